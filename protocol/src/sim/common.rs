//! What all nodes see and none changes while time passes.

use std::collections::BTreeMap;
use std::time::Duration;

use super::agenda::{Happening, Moment};
use super::spec::PeerSpec;
use crate::engine::Rng;
use crate::format::Cid;
use crate::time::Timestamp;

/// No two nodes are nearer to each other: it is the least time that all of them may go on without hearing of each other.
pub(super) const NEAREST: Duration = Duration::from_micros(100);
/// A connection ends when nothing has come over it for this long.
pub(super) const SILENCE: Duration = Duration::from_secs(15);

/// For a time, those on one side hear nothing of those on the other.
#[derive(Clone, Debug)]
pub(super) struct Partition {
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
    /// By node; those that come later are on the side of `false`.
    pub(super) side: Vec<bool>,
}

impl Partition {
    pub(super) fn is_between(&self, a: usize, b: usize) -> bool {
        let side = |node: usize| self.side.get(node).copied().unwrap_or(false);
        side(a) != side(b)
    }
}

/// What all nodes see.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) specs: Vec<PeerSpec>,
    /// The bytes of blocks.
    pub(super) contents: BTreeMap<Cid, u32>,
    pub(super) partitions: Vec<Partition>,
    /// Bytes of a packet.
    pub(super) packet: u32,
    /// Whether messages pass the codec.
    pub(super) coded: bool,
    /// Whether nodes tell each other of others.
    pub(super) exchanging: bool,
}

impl Common {
    /// The way from one node to another.
    pub(super) fn delay(&self, a: usize, b: usize) -> Duration {
        (self.specs[a].delay + self.specs[b].delay).max(NEAREST)
    }

    /// The least way from any node to any other.
    pub(super) fn least_delay(&self) -> Duration {
        let mut delays: Vec<Duration> = self.specs.iter().map(|spec| spec.delay).collect();
        delays.sort_unstable();
        delays.iter().take(2).sum::<Duration>().max(NEAREST)
    }

    /// When what is sent now between two nodes sets out: later than now if they are parted.
    pub(super) fn sets_out(&self, now: Timestamp, a: usize, b: usize) -> Timestamp {
        let parted = self
            .partitions
            .iter()
            .filter(|partition| partition.from <= now && now < partition.until && partition.is_between(a, b));
        parted.map(|partition| partition.until).fold(now, Ord::max)
    }

    /// How much longer than its delay something is under way.
    pub(super) fn jitter(&self, a: usize, b: usize, lots: &mut Rng) -> Duration {
        let most = self.specs[a].line.jitter + self.specs[b].line.jitter;
        match most.as_micros() as usize {
            0 => Duration::ZERO,
            most => Duration::from_micros(lots.below(most + 1) as u64),
        }
    }

    /// Whether a packet is lost.
    pub(super) fn is_lost(&self, a: usize, b: usize, lots: &mut Rng) -> bool {
        let ppm = self.specs[a].line.loss_ppm + self.specs[b].line.loss_ppm;
        ppm > 0 && lots.below(1_000_000) < ppm as usize
    }
}

/// Something that one node sends to another.
#[derive(Debug)]
pub(super) struct Mail {
    pub(super) to: usize,
    pub(super) moment: Moment,
    pub(super) happening: Happening,
}

/// What nodes have sent to those of one part.
#[derive(Debug)]
pub(super) struct Mailbag {
    pub(super) mails: Vec<Mail>,
    /// When the first of it comes.
    pub(super) first_at: Timestamp,
}

impl Default for Mailbag {
    fn default() -> Self {
        Self {
            mails: Vec::new(),
            first_at: Timestamp::from_micros(u64::MAX),
        }
    }
}

/// What nodes send while time passes: a bag for each part.
#[derive(Debug)]
pub(super) struct Outbox {
    pub(super) bags: Vec<Mailbag>,
}

impl Outbox {
    pub(super) fn new(parts: usize) -> Self {
        Self {
            bags: (0..parts).map(|_| Mailbag::default()).collect(),
        }
    }

    pub(super) fn post(&mut self, mail: Mail) {
        let parts = self.bags.len();
        let bag = &mut self.bags[mail.to % parts];
        bag.first_at = bag.first_at.min(mail.moment.at);
        bag.mails.push(mail);
    }
}
