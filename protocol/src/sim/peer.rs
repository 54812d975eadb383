//! One simulated peer: an engine, an uplink and a downlink.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::engine::{ConnId, Engine, Expected, ServeJob, TransferId};
use crate::format::Cid;
use crate::time::Timestamp;
use crate::wire::BulkHeader;

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
    /// Leaves at a time, for good.
    Leaver {
        /// When.
        at: Timestamp,
    },
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
    /// Its manners.
    pub behaviour: Behaviour,
}

/// One packet of a block.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    /// On the block's first packet.
    pub(super) header: Option<BulkHeader>,
    pub(super) bytes: u32,
    pub(super) corrupt: bool,
}

/// A block on its way out.
#[derive(Clone, Debug)]
pub(super) struct Sending {
    pub(super) job: ServeJob,
    pub(super) len: u32,
    pub(super) sent: u32,
    pub(super) corrupt: bool,
}

/// One end of a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct End {
    pub(super) other: usize,
    pub(super) queue: VecDeque<Sending>,
    /// Bytes that have left and have not been taken in at the other end.
    pub(super) on_the_way: u32,
    pub(super) arriving: Option<(Expected, u32, bool)>,
}

pub(super) struct Peer {
    pub(super) spec: PeerSpec,
    pub(super) engine: Engine,
    pub(super) ends: BTreeMap<ConnId, End>,
    /// Connections with something to send, in turn.
    pub(super) turns: VecDeque<ConnId>,
    pub(super) sending: bool,
    pub(super) down_free_at: Timestamp,
    pub(super) timer_at: Option<Timestamp>,
    pub(super) gone: bool,
    pub(super) served_blocks: u32,
    pub(super) nodes: BTreeSet<Cid>,
    pub(super) started_at: Timestamp,
    pub(super) completed_at: Option<Timestamp>,
    pub(super) done: BTreeSet<(TransferId, u32)>,
    pub(super) done_order: Vec<u32>,
    pub(super) control_bytes: u64,
    pub(super) control_messages: u64,
}

impl Peer {
    pub(super) fn new(spec: PeerSpec, engine: Engine, now: Timestamp) -> Self {
        Self {
            spec,
            engine,
            ends: BTreeMap::new(),
            turns: VecDeque::new(),
            sending: false,
            down_free_at: Timestamp::ZERO,
            timer_at: None,
            gone: false,
            served_blocks: 0,
            nodes: BTreeSet::new(),
            started_at: now,
            completed_at: None,
            done: BTreeSet::new(),
            done_order: Vec::new(),
            control_bytes: 0,
            control_messages: 0,
        }
    }

    pub(super) fn up_rate(&self) -> u64 {
        match self.spec.behaviour {
            Behaviour::Drip { rate } => rate.min(self.spec.up),
            _ => self.spec.up,
        }
    }
}
