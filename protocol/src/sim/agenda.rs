//! What is going to happen at one node, in order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::engine::{ConnId, Expected, Rng};
use crate::time::Timestamp;
use crate::wire::{BulkHeader, Message};

/// A part of a block under way.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    /// Its place among the packets of its connection.
    pub(super) number: u64,
    /// On the block's first packet.
    pub(super) header: Option<BulkHeader>,
    pub(super) bytes: u32,
    pub(super) corrupt: bool,
}

/// Something that happens at a node.
#[derive(Debug)]
pub(super) enum Happening {
    /// A message comes.
    Said { conn: ConnId, message: Message },
    /// The uplink has sent its packet.
    UplinkFree,
    /// A packet has come as far as the downlink.
    Landed { conn: ConnId, packet: Packet },
    /// A packet is here.
    Came { conn: ConnId, packet: Packet },
    /// The other end has taken bytes in.
    Room { conn: ConnId, bytes: u32 },
    /// A packet of ours was lost on its way.
    Dropped { conn: ConnId, packet: Packet },
    /// The hash of a block is known.
    Verified { block: Expected, corrupt: bool },
    /// The other end has closed the connection, or nothing has come from there for too long.
    Closed { conn: ConnId, silent: bool },
    /// The engine wants to be woken.
    Timer,
    /// It dials another node, so many times if that does not answer.
    Dials { to: usize, tries: u32 },
    /// Another node dials it. `life`: how often that one has begun anew.
    Dialled { by: usize, conn: ConnId, life: u32 },
    /// A node that it dialled has answered.
    Answered { by: usize, conn: ConnId, life: u32 },
    /// A partition has lasted for so long that connections across it end.
    Cut { partition: usize },
    /// It leaves.
    Leaves,
    /// It crashes.
    Crashes,
    /// It begins anew.
    Returns,
    /// It floods all others.
    Floods,
}

/// When something happens. Of what comes from several nodes at the same time, lots decide which is first; of what comes from one, the order in which it
/// thought of it. That does not depend on when the agenda learned of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment {
    pub(super) at: Timestamp,
    lot: u32,
    from: u32,
    number: u64,
}

impl Moment {
    /// The moment of the `number`th thing that node `from` thought of, for node `to`.
    pub(super) fn new(at: Timestamp, from: usize, to: usize, number: u64) -> Self {
        let pair = (from as u64) << 32 | to as u64;
        let lot = Rng::new(at.as_micros() ^ pair.wrapping_mul(0x9e37_79b9_7f4a_7c15)).next() as u32;
        let from = from as u32;
        Self { at, lot, from, number }
    }
}

/// What is going to happen at one node.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    order: BinaryHeap<Reverse<(Moment, u32)>>,
    happenings: Vec<Option<Happening>>,
    free: Vec<u32>,
}

impl Agenda {
    pub(super) fn push(&mut self, moment: Moment, happening: Happening) {
        let place = match self.free.pop() {
            Some(place) => {
                self.happenings[place as usize] = Some(happening);
                place
            }
            None => {
                self.happenings.push(Some(happening));
                self.happenings.len() as u32 - 1
            }
        };
        self.order.push(Reverse((moment, place)));
    }

    /// When the next thing happens; the end of time if nothing does.
    pub(super) fn next_at(&self) -> Timestamp {
        let next = self.order.peek();
        next.map_or(Timestamp::from_micros(u64::MAX), |Reverse((moment, _))| moment.at)
    }

    /// The next thing that happens before `until`.
    pub(super) fn pop_before(&mut self, until: Timestamp) -> Option<(Timestamp, Happening)> {
        if self.next_at() >= until {
            return None;
        }
        let Reverse((moment, place)) = self.order.pop()?;
        self.free.push(place);
        let happening = self.happenings[place as usize].take()?;
        Some((moment.at, happening))
    }

    /// Nothing of it happens.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
