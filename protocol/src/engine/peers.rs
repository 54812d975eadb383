//! What the engine notes of peers, what it does about it, and what it answers about them.

use super::action::{DisconnectReason, Event, Violation};
use super::core::Engine;
use super::ids::{ConnId, PeerKey};
use super::rate::Meter;
use super::reputation::{Ban, Fault, PeerRecord};
use crate::time::Timestamp;

impl Engine {
    /// None of a peer's addresses could be connected to.
    pub fn handle_connect_failure(&mut self, now: Timestamp, peer: PeerKey) {
        self.advance(now);
        self.reputation.handle_fault(self.now, peer, Fault::ConnectFailed, 1);
    }

    /// The ban that holds for a peer; without one, it may be connected to.
    pub fn ban_of(&self, now: Timestamp, peer: &PeerKey) -> Option<Ban> {
        self.reputation.ban(self.now.max(now), peer)
    }

    /// What a peer is worth by all that is remembered of it: from minus [`super::MAX_SCORE`] to [`super::MAX_SCORE`], zero for who is not known.
    pub fn score(&self, now: Timestamp, peer: &PeerKey) -> i32 {
        self.reputation.score(self.now.max(now), peer)
    }

    /// All that is remembered of a peer.
    pub fn record(&self, peer: &PeerKey) -> Option<&PeerRecord> {
        self.reputation.record(peer)
    }

    /// All that is remembered of peers; at most [`super::MAX_RECORDS`].
    pub fn records(&self) -> impl Iterator<Item = &PeerRecord> {
        self.reputation.records()
    }

    /// The records that have changed since this was called last, to be kept until the next start.
    pub fn take_changed_records(&mut self) -> Vec<PeerRecord> {
        self.reputation.take_changed()
    }

    /// Whether [`Event::RecordsChanged`] was said and the records were not taken since.
    pub fn has_told_changes(&self) -> bool {
        self.reputation.is_told()
    }

    /// Takes the bans and faults of a peer, or of all, back: it may connect at once. Who had any.
    pub fn forgive(&mut self, now: Timestamp, peer: Option<&PeerKey>) -> Vec<PeerKey> {
        self.advance(now);
        self.reputation.forgive(self.now, peer)
    }

    /// Seconds since 1970, as records count them.
    pub fn unix_time(&self, now: Timestamp) -> u64 {
        self.reputation.wall(self.now.max(now))
    }

    /// A connection was closed because its peer broke the protocol.
    pub(super) fn note_violation(&mut self, conn: ConnId, peer: PeerKey, violation: Violation) {
        if let Some(ban) = self.reputation.handle_fault(self.now, peer, violation.into(), 1) {
            self.event(Event::BannedForViolation {
                peer,
                conn,
                violation,
                until: ban.until,
            });
            self.part_with(&peer);
        }
    }

    /// Closes all connections to a peer that is banned.
    pub(super) fn part_with(&mut self, peer: &PeerKey) {
        let theirs = self.conns.iter().filter(|(_, conn)| conn.peer == *peer);
        for conn in theirs.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.disconnect(conn, DisconnectReason::Banned);
        }
    }

    /// Rates of a connection, once a second while something moves.
    pub(super) fn note_rates(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(&id) else { return };
        // What fades after the last byte says nothing of how fast it came.
        let rate = |meter: &Meter| {
            if meter.is_moving(self.now) {
                meter.rate(self.now)
            } else {
                0
            }
        };
        let (down, up) = (rate(&conn.down), rate(&conn.uploads.meter));
        if down > 0 || up > 0 {
            self.reputation.handle_rates(self.now, conn.peer, down, up);
        }
    }
}
