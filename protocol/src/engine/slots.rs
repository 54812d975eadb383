//! Which connections are worth their place, and which make room when there is none left.

use std::cmp::Reverse;
use std::time::Duration;

use super::action::DisconnectReason;
use super::conn::Conn;
use super::core::{Engine, MAX_CONNECTIONS};
use super::ids::{ConnId, PeerKey};
use super::transfer::Transfer;

/// How long a connection may be without business before a newcomer takes its place.
const GRACE: Duration = Duration::from_secs(10);
/// How long one with business may have moved no block before a newcomer takes its place.
const QUIET: Duration = Duration::from_secs(60);
/// Two who share nothing any more part after this, without anybody wanting the place.
const PART_AFTER: Duration = Duration::from_secs(120);

impl Engine {
    /// Whether there is a place for a connection to `peer`; the least useful of those that do nothing gives up its own, unless more is
    /// thought of it.
    pub(super) fn make_room_for(&mut self, peer: &PeerKey) -> bool {
        if self.conns.len() < self.config.connections.min(MAX_CONNECTIONS) {
            return true;
        }
        let score = self.score(self.now, peer);
        let worth = |id: &ConnId| self.conns.get(id).map(|conn| self.score(self.now, &conn.peer));
        let least = self.least_useful().filter(|id| worth(id) <= Some(score));
        let Some(least) = least.or_else(|| self.worse_than(score)) else {
            return false;
        };
        self.disconnect(least, DisconnectReason::LeastUseful);
        true
    }

    /// Of those that move nothing and had time to, the one of whom least is thought, if that is less than `score`.
    fn worse_than(&self, score: i32) -> Option<ConnId> {
        let quiet = self.conns.iter().filter(|(_, conn)| self.quiet_for(conn) >= GRACE);
        let worst = quiet.map(|(id, conn)| (self.score(self.now, &conn.peer), *id)).min();
        worst.filter(|(worst, _)| *worst < score).map(|(_, id)| id)
    }

    /// Without business before those with some, who moved less before who moved more, of whom less is thought before of whom more is, who has been quiet longest
    /// first.
    fn least_useful(&self) -> Option<ConnId> {
        let idle = self.conns.iter().filter_map(|(id, conn)| {
            let business = self.has_business(*id, conn);
            let quiet = self.quiet_for(conn);
            let spare = quiet >= if business { QUIET } else { GRACE };
            let moved = conn.bytes_down + conn.uploads.bytes;
            let score = self.score(self.now, &conn.peer);
            spare.then_some(((business, if business { moved } else { 0 }, score, Reverse(quiet)), *id))
        });
        idle.min().map(|(_, id)| id)
    }

    /// Ends connections to peers with whom nothing is shared: both have all of it, as a rule.
    pub(super) fn part(&mut self) {
        // Who has nothing of what is wanted today may have it tomorrow.
        if self.transfers.values().any(Transfer::is_fetching) {
            return;
        }
        let parting = self.conns.iter().filter(|(id, conn)| {
            conn.is_ready() && self.quiet_for(conn) >= PART_AFTER && !self.has_business(**id, conn)
        });
        for id in parting.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.disconnect(id, DisconnectReason::NothingShared);
        }
    }

    fn has_business(&self, id: ConnId, conn: &Conn) -> bool {
        // A seed may still follow what somebody has who needs nothing any more.
        let needed = |of: &Transfer| of.is_fetching() || of.spread.is_some();
        let mut asked = conn.sessions.values().filter_map(|of| self.transfers.get(&of.transfer));
        asked.any(needed) || !conn.served.is_empty() || self.waiting_handles(id).next().is_some()
    }

    /// Since when no block has moved.
    fn quiet_for(&self, conn: &Conn) -> Duration {
        let moved = [conn.down.last(), conn.uploads.meter.last()];
        let last = moved.into_iter().flatten().fold(conn.since, Ord::max);
        self.now.since(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Action, EngineConfig, PeerKey};
    use crate::time::Timestamp;
    use crate::wire::{Hello, Message, NetworkId};

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn comes(engine: &mut Engine, now: Timestamp, conn: u64) {
        let peer = PeerKey::of(&conn.to_le_bytes());
        engine.handle_connected(now, ConnId(conn), peer, Duration::from_millis(10));
        let hello = Hello {
            network: NetworkId::PUBLIC,
            agent: "test".to_owned(),
            extensions: Vec::new(),
        };
        engine.handle_message(now, ConnId(conn), Message::Hello(hello));
    }

    fn ended(engine: &mut Engine) -> Vec<(u64, DisconnectReason)> {
        let actions = std::iter::from_fn(|| engine.poll_action());
        let ended = actions.filter_map(|action| match action {
            Action::Disconnect(conn, reason) => Some((conn.0, reason)),
            _ => None,
        });
        ended.collect()
    }

    #[test]
    fn a_full_node_gives_the_place_of_who_idled_longest_to_a_newcomer() {
        let mut engine = Engine::new(
            EngineConfig {
                connections: 3,
                ..EngineConfig::default()
            },
            1,
        );
        (1..=3).for_each(|conn| comes(&mut engine, at(conn), conn));
        comes(&mut engine, at(5), 4);
        assert_eq!(ended(&mut engine), [(4, DisconnectReason::TooManyConnections)]);
        comes(&mut engine, at(30), 5);
        assert_eq!(ended(&mut engine), [(1, DisconnectReason::LeastUseful)]);
        assert_eq!(engine.connections(), [2, 3, 5].map(ConnId));
    }

    #[test]
    fn two_that_share_nothing_part_after_a_while() {
        let mut engine = Engine::new(EngineConfig::default(), 1);
        comes(&mut engine, at(0), 1);
        let mut parted = Vec::new();
        while let Some(due) = engine.poll_timeout().filter(|due| *due <= at(300)) {
            engine.handle_timeout(due);
            parted.extend(ended(&mut engine).into_iter().map(|ended| (due, ended)));
        }
        assert_eq!(parted.len(), 1);
        assert_eq!(parted[0].1, (1, DisconnectReason::NothingShared));
        assert!(parted[0].0 >= at(0) + PART_AFTER);
    }
}
