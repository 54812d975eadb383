//! What is known of peers: what they gave, what they did wrong, and who is banned until when.
//!
//! It owns a bounded set of [`PeerRecord`]s, keyed by peer and kept over connections; what outlives the process is the caller's
//! affair, who is told that records changed and hands them back at the next start. Facts come in by `handle_*`. Scores and bans
//! are looked up; nothing here ends a connection. What a record holds and how it is scored is in `record`.
//!
//! Times of records are seconds since 1970, as they outlive the process. The engine's clock begins anew with each, so that they
//! are counted from what the caller said the time was at its origin; a clock that is set meanwhile is not followed.

mod record;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use record::{Ban, Cause, Evidence, Fault, MAX_SCORE, PeerRecord, Tally, Worth};

use super::ids::PeerKey;
use crate::time::Timestamp;

/// Peers that are remembered. Beyond, those of whom least is known are forgotten.
pub const MAX_RECORDS: usize = 4096;
/// Of these, one in so many may be banned: beyond, the bans that end first are forgotten, so that whoever makes up peer IDs
/// without end cannot push out all that is known of others.
const BANNED_SHARE: usize = 2;
/// One in so many is forgotten at once, so that looking for them costs little.
const EVICTED_SHARE: usize = 16;

/// The ban for the first corrupt block; each further one is twice as long,…
const CORRUPT_BAN: u64 = 24 * 3600;
/// …up to this.
const LONGEST_BAN: u64 = 30 * 24 * 3600;
/// So many protocol offences, each within [`OFFENCE_MEMORY`] of the one before or of the end of the ban for it, are a ban:…
const OFFENCES_TOLERATED: u32 = 3;
const OFFENCE_MEMORY: u64 = 3600;
/// …this long, each further one twice as long,…
const OFFENCE_BAN: u64 = 5 * 60;
/// …up to this.
const LONGEST_OFFENCE_BAN: u64 = 24 * 3600;

/// Faults, bans and what is known of who has left are told after this…
const TELL_SOON: Duration = Duration::from_secs(1);
/// …and mere progress after this.
const TELL_LATER: Duration = Duration::from_secs(60);

/// The records of all peers.
#[derive(Clone, Debug)]
pub(crate) struct Reputation {
    /// Seconds since 1970 at the origin of the engine's clock.
    origin: u64,
    bound: usize,
    records: BTreeMap<PeerKey, PeerRecord>,
    /// Records that the caller has not taken since they changed.
    changed: BTreeSet<PeerKey>,
    /// When the first of them changed, and whether it matters soon.
    since: Timestamp,
    soon: bool,
    /// When the caller was last told that there are some, and whether it has not taken them yet.
    told_at: Option<Timestamp>,
    told: bool,
}

impl Reputation {
    /// What was known at the last start. Of more than [`MAX_RECORDS`], those of whom least is known are forgotten.
    pub(crate) fn new(origin: u64, known: Vec<PeerRecord>) -> Self {
        Self::bounded(MAX_RECORDS, origin, known)
    }

    fn bounded(bound: usize, origin: u64, known: Vec<PeerRecord>) -> Self {
        let mut records = BTreeMap::new();
        for mut record in known {
            record.mend(origin, LONGEST_BAN);
            records.insert(record.peer, record);
        }
        let mut reputation = Self {
            origin,
            bound,
            records,
            changed: BTreeSet::new(),
            since: Timestamp::ZERO,
            soon: false,
            told_at: None,
            told: false,
        };
        let over = reputation.records.len().saturating_sub(bound);
        reputation.evict(Timestamp::ZERO, over);
        reputation
    }

    /// Verified leaf bytes came from a peer.
    pub(crate) fn handle_good(&mut self, now: Timestamp, peer: PeerKey, bytes: u64) {
        let wall = self.wall(now);
        self.note(now, peer, false).add_good(wall, bytes);
    }

    /// Payload bytes were served to a peer.
    pub(crate) fn handle_served(&mut self, now: Timestamp, peer: PeerKey, bytes: u64) {
        let record = self.note(now, peer, false);
        record.bytes_up = record.bytes_up.saturating_add(bytes);
    }

    /// Bytes a second that come from a peer and go to it; told once a second while there are any.
    pub(crate) fn handle_rates(&mut self, now: Timestamp, peer: PeerKey, down: u64, up: u64) {
        self.note(now, peer, false).add_rates(down, up);
    }

    /// A round trip was measured.
    pub(crate) fn handle_rtt(&mut self, now: Timestamp, peer: PeerKey, rtt: Duration) {
        if self
            .records
            .get(&peer)
            .is_none_or(|record| record.rtt.is_none_or(|least| rtt < least))
        {
            self.note(now, peer, false).rtt = Some(rtt);
        }
    }

    /// A connection of a peer has ended.
    pub(crate) fn handle_left(&mut self, peer: &PeerKey) {
        self.soon |= self.changed.contains(peer);
    }

    /// A peer did something wrong, so many times. The ban that follows from it, if it was not banned as long already.
    pub(crate) fn handle_fault(&mut self, now: Timestamp, peer: PeerKey, fault: Fault, times: u32) -> Option<Ban> {
        let wall = self.wall(now);
        let record = self.note(now, peer, true);
        let last_offence = record.last_offence();
        record.add_fault(wall, fault, times);
        let holds = record.ban_at(wall);
        let seconds = if fault == Fault::CorruptBlock {
            // What was under way when it was banned is not another lie.
            if holds.is_some_and(|ban| ban.fault == Fault::CorruptBlock) {
                return None;
            }
            record.strikes = record.strikes.saturating_add(1);
            doubled(CORRUPT_BAN, record.strikes - 1, LONGEST_BAN)
        } else if fault.is_offence() {
            let in_a_row = last_offence.is_some_and(|last| wall.saturating_sub(last) <= OFFENCE_MEMORY);
            record.offences = if in_a_row { record.offences.saturating_add(1) } else { 1 };
            let over = record.offences.checked_sub(OFFENCES_TOLERATED)?;
            doubled(OFFENCE_BAN, over, LONGEST_OFFENCE_BAN)
        } else {
            return None;
        };
        let ban = Ban {
            fault,
            since: wall,
            until: wall.saturating_add(seconds),
        };
        if holds.is_some_and(|holds| holds.until >= ban.until) {
            return None;
        }
        record.ban = Some(ban);
        self.bound_bans(now);
        Some(ban)
    }

    /// Takes the bans and faults of a peer, or of all, back. What they gave stays. Who had any.
    pub(crate) fn forgive(&mut self, now: Timestamp, peer: Option<&PeerKey>) -> Vec<PeerKey> {
        let guilty = |record: &PeerRecord| record.ban.is_some() || !record.faults.is_empty();
        let forgiven: Vec<PeerKey> = match peer {
            Some(peer) => self
                .records
                .get(peer)
                .into_iter()
                .filter(|r| guilty(r))
                .map(|r| r.peer)
                .collect(),
            None => self.records.values().filter(|r| guilty(r)).map(|r| r.peer).collect(),
        };
        for peer in &forgiven {
            let record = self.note(now, *peer, true);
            record.faults.clear();
            record.ban = None;
            record.strikes = 0;
            record.offences = 0;
        }
        forgiven
    }

    /// The ban that holds, if one does.
    pub(crate) fn ban(&self, now: Timestamp, peer: &PeerKey) -> Option<Ban> {
        self.records.get(peer)?.ban_at(self.wall(now))
    }

    /// See [`PeerRecord::score`].
    pub(crate) fn score(&self, now: Timestamp, peer: &PeerKey) -> i32 {
        self.records.get(peer).map_or(0, |record| record.score(self.wall(now)))
    }

    pub(crate) fn record(&self, peer: &PeerKey) -> Option<&PeerRecord> {
        self.records.get(peer)
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &PeerRecord> {
        self.records.values()
    }

    /// When [`Reputation::poll_changed`] has something to say, unless more happens; none while it has not.
    pub(crate) fn due_at(&self) -> Option<Timestamp> {
        if self.told || self.changed.is_empty() {
            return None;
        }
        Some(match (self.soon, self.told_at) {
            (true, Some(at)) => at + TELL_SOON,
            (true, None) => Timestamp::ZERO,
            (false, _) => self.since + TELL_LATER,
        })
    }

    /// Whether the caller is to be told now that records have changed.
    pub(crate) fn poll_changed(&mut self, now: Timestamp) -> bool {
        let due = self.due_at().is_some_and(|at| now >= at);
        if due {
            self.told = true;
            self.told_at = Some(now);
        }
        due
    }

    /// Whether the caller was told and has not taken them.
    pub(crate) fn is_told(&self) -> bool {
        self.told
    }

    /// The records that have changed since this was called last.
    pub(crate) fn take_changed(&mut self) -> Vec<PeerRecord> {
        (self.told, self.soon) = (false, false);
        let changed = std::mem::take(&mut self.changed);
        changed
            .iter()
            .filter_map(|peer| self.records.get(peer).cloned())
            .collect()
    }

    /// Seconds since 1970.
    pub(crate) fn wall(&self, now: Timestamp) -> u64 {
        self.origin.saturating_add(now.as_micros() / 1_000_000)
    }

    /// The record of a peer, made if need be, and due to be told.
    fn note(&mut self, now: Timestamp, peer: PeerKey, soon: bool) -> &mut PeerRecord {
        if self.changed.is_empty() {
            self.since = now;
        }
        self.soon |= soon;
        self.changed.insert(peer);
        if !self.records.contains_key(&peer) && self.records.len() >= self.bound {
            self.evict(now, (self.bound / EVICTED_SHARE).max(1));
        }
        let wall = self.wall(now);
        let record = self.records.entry(peer).or_insert_with(|| PeerRecord::new(peer, wall));
        record.seen = wall;
        record
    }

    /// Forgets so many, those that are worth least.
    fn evict(&mut self, now: Timestamp, count: usize) {
        if count == 0 {
            return;
        }
        let wall = self.wall(now);
        let mut order: Vec<(Worth, PeerKey)> = self.records.values().map(|r| (r.worth(wall), r.peer)).collect();
        order.sort_by(|(a, a_key), (b, b_key)| a.total_cmp(b).then(a_key.cmp(b_key)));
        for (_, peer) in order.iter().take(count) {
            self.records.remove(peer);
            self.changed.remove(peer);
        }
    }

    fn bound_bans(&mut self, now: Timestamp) {
        let wall = self.wall(now);
        let banned = self
            .records
            .values()
            .filter_map(|r| Some((r.ban_at(wall)?.until, r.peer)));
        let banned: Vec<(u64, PeerKey)> = banned.collect();
        if banned.len() <= (self.bound / BANNED_SHARE).max(1) {
            return;
        }
        if let Some((_, first)) = banned.iter().min() {
            self.records.remove(first);
            self.changed.remove(first);
        }
    }
}

/// `first` doubled so many times, `most` at the most.
fn doubled(first: u64, times: u32, most: u64) -> u64 {
    1u64.checked_shl(times)
        .and_then(|factor| first.checked_mul(factor))
        .map_or(most, |seconds| seconds.min(most))
}
