//! What a simulated peer is like: its line and its manners.

use std::time::Duration;

use crate::time::Timestamp;

/// What a peer does with what it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Serves it.
    Honest,
    /// Sends wrong bytes for one block in so many.
    Liar {
        /// Every so manieth block is corrupt.
        every: u32,
    },
    /// Takes requests and serves no more after so many blocks, but stays connected.
    Staller {
        /// Blocks served before.
        after: u32,
    },
    /// Dribbles: its uplink passes so many bytes a second, whatever its rate.
    Drip {
        /// Bytes a second.
        rate: u64,
    },
    /// Takes what it is given, and gives nothing: it never says that it has pieces, and serves no one.
    FreeRider,
    /// Says that it has everything, whatever it has.
    FalseMap {
        /// Whether it refuses requests for what it does not have, and serves the rest; if not, it answers none.
        answers: bool,
    },
    /// Floods whoever it is connected to from its second second on: with handles of contents that do not exist, with requests, or with blocks that nobody
    /// asked for.
    Flooder,
    /// Leaves at a time, for good, and says so.
    Leaver {
        /// When.
        at: Timestamp,
    },
    /// Is gone from one moment to the next. The others find that out when nothing has come from it for a while.
    Crasher {
        /// When.
        at: Timestamp,
        /// After how long it begins anew, with the pieces that it had; none: never.
        back_after: Option<Duration>,
    },
}

/// What a line does to what goes over it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Everything is under way for up to so much longer, by lot.
    pub jitter: Duration,
    /// Of a million packets, so many are lost, each way.
    pub loss_ppm: u32,
    /// Bytes that wait for the uplink, and for the downlink, at most: more are lost. None: connections wait for their turn at the uplink, and as much as
    /// they hold waits for the downlink.
    pub queue: Option<u32>,
}

impl Line {
    /// Whether senders have to find out how much they may send.
    pub(super) fn is_congestible(&self) -> bool {
        self.loss_ppm > 0 || self.queue.is_some()
    }
}

/// A peer's links and manners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerSpec {
    /// Bytes a second out.
    pub up: u64,
    /// Bytes a second in.
    pub down: u64,
    /// One way to the middle of the network.
    pub delay: Duration,
    /// What its line does to packets.
    pub line: Line,
    /// Its manners.
    pub behaviour: Behaviour,
}

impl PeerSpec {
    /// An honest peer on a line that loses nothing.
    pub fn honest(up: u64, down: u64, delay: Duration) -> Self {
        Self {
            up,
            down,
            delay,
            line: Line::default(),
            behaviour: Behaviour::Honest,
        }
    }

    pub(super) fn up_rate(&self) -> u64 {
        let up = match self.behaviour {
            Behaviour::Drip { rate } => rate.min(self.up),
            _ => self.up,
        };
        up.max(1)
    }
}
