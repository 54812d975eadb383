//! What ill-mannered nodes do with what their engines say, and what they say themselves.

use std::time::Duration;

use super::agenda::Packet;
use super::node::{Node, World};
use super::spec::Behaviour;
use crate::engine::ConnId;
use crate::format::{Cid, Codec, HashKind};
use crate::wire::limits::MAX_PIECES;
use crate::wire::{BulkHeader, Encoding, Handle, Have, Message, Rejection, Run, What};

/// A flooder waits for this long, so that connections are up,…
pub(super) const CALM: Duration = Duration::from_secs(1);
/// …and then floods this often,…
pub(super) const FLOOD_EVERY: Duration = Duration::from_millis(10);
/// …with so many messages to each.
const FLOOD: u32 = 50;
/// Bytes of a block that nobody asked for.
const UNASKED: u32 = 16 * 1024;

/// What becomes of a message that an engine wants to send.
pub(super) fn says(behaviour: Behaviour, message: Message) -> Option<Message> {
    match (behaviour, message) {
        // It says that it has nothing to give, and gives nothing.
        (Behaviour::FreeRider, Message::Unchoke | Message::Have { .. }) => None,
        (Behaviour::FalseMap { .. }, Message::Opened { handle, .. }) => {
            let have = Have::All;
            Some(Message::Opened { handle, have })
        }
        (Behaviour::FalseMap { .. }, Message::Have { .. } | Message::Lost { .. }) => None,
        (Behaviour::FalseMap { answers: false }, Message::Rejected { what, .. }) if what != Rejection::Open => None,
        (_, message) => Some(message),
    }
}

/// Whether an engine is told of a message.
pub(super) fn hears(behaviour: Behaviour, message: &Message) -> bool {
    // A flooder's engine knows nothing of what is refused.
    behaviour != Behaviour::Flooder || !matches!(message, Message::Rejected { .. })
}

/// Whether a block is served, the so manieth; and then whether with wrong bytes.
pub(super) fn serves(behaviour: Behaviour, nth: u32) -> Option<bool> {
    match behaviour {
        Behaviour::Staller { after } if nth > after => None,
        Behaviour::FreeRider | Behaviour::FalseMap { answers: false } => None,
        Behaviour::Liar { every } => Some(nth.is_multiple_of(every)),
        _ => Some(false),
    }
}

impl Node {
    /// Floods all that it is connected to, each in one of three ways.
    pub(super) fn flood(&mut self, world: &mut World<'_>) {
        for conn in self.ends.keys().copied().collect::<Vec<_>>() {
            match conn.0 % 3 {
                0 => self.flood_with_handles(world, conn),
                1 => self.flood_with_requests(world, conn),
                _ => self.flood_with_blocks(world, conn),
            }
        }
    }

    fn flood_with_handles(&mut self, world: &mut World<'_>, conn: ConnId) {
        for _ in 0..FLOOD {
            // Far from the numbers that its engine gives.
            self.floods += 1;
            let root = Cid::of(Codec::DagPb, HashKind::Blake3, &self.floods.to_le_bytes());
            let handle = Handle(u32::MAX - self.floods);
            self.say(world, conn, Message::Open { handle, root });
        }
    }

    fn flood_with_requests(&mut self, world: &mut World<'_>, conn: ConnId) {
        let runs = vec![Run {
            start: 0,
            len: MAX_PIECES,
        }];
        for _ in 0..FLOOD {
            let (handle, runs) = (Handle(0), runs.clone());
            self.say(world, conn, Message::Request { handle, runs });
        }
    }

    fn flood_with_blocks(&mut self, world: &mut World<'_>, conn: ConnId) {
        let header = BulkHeader {
            handle: Handle(0),
            what: What::Piece(0),
            encoding: Encoding::Plain,
            len: UNASKED,
        };
        let packet = Packet {
            number: 0,
            header: Some(header),
            bytes: UNASKED,
            corrupt: false,
        };
        self.send_unasked(world, conn, packet);
    }
}
