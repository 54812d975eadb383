//! What is remembered of peers: names for the engine's keys, bans at the door, and records that go to the store and come back.
//!
//! The engine knows peers by a key and judges them; peer IDs and addresses are known here only.

use std::collections::HashSet;

use libp2p::{Multiaddr, PeerId};
use modswarm_protocol::engine::{PeerKey, PeerRecord};
use modswarm_store::KnownPeer;

use super::{Actor, MAX_MET, TransferEvent};
use crate::node::facts::Input;

impl Actor {
    /// Takes up what the store remembered at the start: the engine has the records already.
    pub(super) fn remember(&mut self, known: &[KnownPeer]) {
        let now = self.now();
        for KnownPeer { peer_id, addr, record } in known {
            let Ok(peer) = PeerId::from_bytes(peer_id) else {
                continue;
            };
            let addr = addr.parse().unwrap_or_else(|_| Multiaddr::empty());
            self.met.insert(record.peer, (peer, addr));
            if self.engine.ban_of(now, &record.peer).is_some() {
                self.block(&record.peer);
            }
        }
    }

    /// Remembers the name behind a peer's key.
    pub(super) fn meet(&mut self, peer: PeerId, addr: Multiaddr) {
        if self.met.len() >= MAX_MET {
            // Those that are connected or have a record stay; both are bounded.
            let connected: HashSet<PeerId> = self.sessions.values().map(|live| live.session.peer).collect();
            self.met
                .retain(|key, (peer, _)| connected.contains(&*peer) || self.engine.record(key).is_some());
        }
        self.met.insert(PeerKey::of(&peer.to_bytes()), (peer, addr));
    }

    /// None of a peer's addresses could be reached.
    pub(super) fn note_unreachable(&mut self, peer: PeerId) {
        let now = self.now();
        let key = PeerKey::of(&peer.to_bytes());
        if !self.met.contains_key(&key) {
            let addr = self.book.addr(&peer).cloned().unwrap_or_else(Multiaddr::empty);
            self.meet(peer, addr);
        }
        self.engine.handle_connect_failure(now, key);
    }

    /// Lets no connection to or from a peer be made, and ends those that there are. Its name, for people.
    pub(super) fn block(&mut self, key: &PeerKey) -> String {
        let Some((peer, _)) = self.met.get(key) else {
            return "a peer".to_owned();
        };
        let peer = *peer;
        self.banned.insert(peer, *key);
        self.swarm.behaviour_mut().bans.block_peer(peer);
        peer.to_string()
    }

    /// Lets those in again whose ban has ended.
    pub(super) fn lift_bans(&mut self) {
        let now = self.now();
        let over = |key: &PeerKey| self.engine.ban_of(now, key).is_none();
        let free: Vec<PeerId> = self
            .banned
            .iter()
            .filter(|(_, key)| over(key))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in free {
            self.banned.remove(&peer);
            self.swarm.behaviour_mut().bans.unblock_peer(peer);
        }
    }

    /// Tells the job behind a transfer if a peer that the user named for it is banned.
    pub(super) fn mention_ban(&self, transfer: modswarm_protocol::engine::TransferId, peer: &PeerId) {
        let Some(ban) = self
            .banned
            .get(peer)
            .and_then(|key| self.engine.ban_of(self.now(), key))
        else {
            return;
        };
        let span = self.span_until(ban.until);
        self.tell(
            transfer,
            TransferEvent::Notice(format!(
                "{peer} is banned for another {span} and will not be asked; `modswarm peers forgive {peer}` lets it back in"
            )),
        );
    }

    /// How long it is until a time in seconds since 1970, for people.
    pub(super) fn span_until(&self, until: u64) -> String {
        span(until.saturating_sub(self.engine.unix_time(self.now())))
    }

    pub(super) fn known_peers(&self) -> Vec<KnownPeer> {
        self.named(self.engine.records().cloned())
    }

    fn named(&self, records: impl IntoIterator<Item = PeerRecord>) -> Vec<KnownPeer> {
        let name = |record: PeerRecord| {
            let (peer, addr) = self.met.get(&record.peer)?;
            Some(KnownPeer {
                peer_id: peer.to_bytes(),
                addr: if addr.is_empty() {
                    String::new()
                } else {
                    addr.to_string()
                },
                record,
            })
        };
        records.into_iter().filter_map(name).collect()
    }

    /// Takes bans and faults back, and lets the forgiven in.
    pub(super) fn forgive_peers(&mut self, peer: Option<PeerId>) -> usize {
        let now = self.now();
        let key = peer.map(|peer| PeerKey::of(&peer.to_bytes()));
        let forgiven = self.engine.forgive(now, key.as_ref());
        self.lift_bans();
        forgiven.len()
    }

    /// Gives the store what has changed. One write at a time: what changes meanwhile waits in the engine.
    pub(super) fn keep_records(&mut self) {
        if self.keeping.is_some() {
            return;
        }
        let changed = self.engine.take_changed_records();
        let (records, now) = (self.named(changed), self.engine.unix_time(self.now()));
        let (store, inputs) = (self.pool.store().clone(), self.input_sender.clone());
        self.keeping = Some(tokio::spawn(async move {
            let written = tokio::task::spawn_blocking(move || store.put_peer_records(&records, now)).await;
            if let Ok(Err(error)) = written {
                tracing::warn!(%error, "what was learnt of peers is forgotten at the next start");
            }
            let _ = inputs.send(Input::RecordsKept).await;
        }));
    }

    /// The last write is done; what came meanwhile follows.
    pub(super) fn records_kept(&mut self) {
        self.keeping = None;
        if self.engine.has_told_changes() {
            self.keep_records();
        }
    }

    /// Writes what has changed since the last write, when the node ends.
    pub(super) async fn keep_last_records(&mut self) {
        // The facts that it would wait to report are taken no more.
        self.inputs.close();
        if let Some(keeping) = self.keeping.take() {
            let _ = keeping.await;
        }
        let changed = self.engine.take_changed_records();
        if changed.is_empty() {
            return;
        }
        let (records, now) = (self.named(changed), self.engine.unix_time(self.now()));
        let store = self.pool.store().clone();
        let written = tokio::task::spawn_blocking(move || store.put_peer_records(&records, now)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "what was learnt of peers last is forgotten");
        }
    }
}

/// A time of so many seconds, for people.
fn span(seconds: u64) -> String {
    match seconds.div_ceil(60) {
        minutes @ 0..120 => format!("{} min", minutes.max(1)),
        minutes @ 120..2880 => format!("{} h", minutes.div_ceil(60)),
        minutes => format!("{} days", minutes.div_ceil(24 * 60)),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_rounded_up_to_what_a_person_would_say() {
        for (seconds, said) in [
            (0, "1 min"),
            (300, "5 min"),
            (86_400, "24 h"),
            (86_401, "25 h"),
            (2_592_000, "30 days"),
        ] {
            assert_eq!(super::span(seconds), said);
        }
    }
}
