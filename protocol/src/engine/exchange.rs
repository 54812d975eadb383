//! Peer exchange: whom the peers are told of that fetch a content from us, and how much of the like we listen to.
//!
//! A peer is named only with addresses that the caller vouches for ([`Engine::handle_reachable`]); what we hear goes to the caller
//! ([`Event::PeersHeard`]), never on to others. Whoever opens a content is told at once of all who have to do with it, and they of
//! the newcomer; after some messages the rest has to wait for its minute, so that large swarms cost little.

use std::collections::BTreeMap;
use std::time::Duration;

use super::action::{Event, Violation};
use super::core::Engine;
use super::ids::{ConnId, PeerKey, TransferId};
use super::rng::Rng;
use super::session::{SessionState, Source};
use crate::time::Timestamp;
use crate::wire::limits::{MAX_HANDLES, MAX_PEER_ADDR_LEN, MAX_PEER_ADDRS, MAX_PEER_ID_LEN, MAX_PEERS};
use crate::wire::{Handle, KnownPeer, Message};

/// How long the first news for a peer wait for more: a swarm that starts at once is told in one or two messages.
const BATCH: Duration = Duration::from_millis(200);
/// Peers that wait to be named to one peer for one content.
const MAX_PENDING: usize = 200;
/// What we send: so many messages for a content, and then one an interval.
const SAID: Rate = Rate {
    burst: 10,
    interval: Duration::from_secs(60),
};
/// What we take. More than [`SAID`], for messages may bunch up on their way.
const HEARD: Rate = Rate {
    burst: 16,
    interval: Duration::from_secs(30),
};

#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: u32,
    interval: Duration,
}

/// How many messages of a [`Rate`] are left.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    used: u32,
    /// When `used` last went down, or began.
    since: Timestamp,
}

impl Allowance {
    fn new(now: Timestamp) -> Self {
        Self { used: 0, since: now }
    }

    fn take(&mut self, now: Timestamp, rate: Rate) -> bool {
        while self.used > 0 && now.since(self.since) >= rate.interval {
            self.used -= 1;
            self.since = self.since + rate.interval;
        }
        if self.used == 0 {
            self.since = now;
        }
        let left = self.used < rate.burst;
        self.used += u32::from(left);
        left
    }

    /// When there is one more, if there is none now.
    fn next(&self, rate: Rate) -> Timestamp {
        self.since + rate.interval
    }
}

/// One content, as far as one peer is told and tells of who has to do with it.
#[derive(Clone, Debug)]
struct Circle {
    /// The peer is told of others.
    listens: bool,
    /// Others are told of the peer.
    named: bool,
    /// Whom it is to be told of next.
    pending: Vec<ConnId>,
    /// When, if there is anyone.
    due: Timestamp,
    said: Allowance,
    heard: Allowance,
}

impl Circle {
    fn new(now: Timestamp) -> Self {
        Self {
            listens: false,
            named: false,
            pending: Vec::new(),
            due: now,
            said: Allowance::new(now),
            heard: Allowance::new(now),
        }
    }

    fn push(&mut self, now: Timestamp, conn: ConnId) {
        if self.pending.is_empty() {
            self.due = now + BATCH;
        }
        if self.pending.len() < MAX_PENDING {
            self.pending.push(conn);
        }
    }

    /// As many as one message holds, chosen by lot: who is told of some only should not be told of the same as everyone.
    fn next(&mut self, rng: &mut Rng) -> Vec<ConnId> {
        let count = self.pending.len().min(MAX_PEERS);
        let mut taken = Vec::with_capacity(count);
        for _ in 0..count {
            taken.push(self.pending.swap_remove(rng.below(self.pending.len())));
        }
        taken
    }
}

/// What a connection has to do with peer exchange.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exchange {
    /// The peer takes part.
    pub(crate) spoken: bool,
    /// Its ID and where others can dial it, once the caller knows; flags are set when it is told.
    reachable: Option<KnownPeer>,
    circles: BTreeMap<TransferId, Circle>,
}

impl Exchange {
    fn circle(&mut self, now: Timestamp, transfer: TransferId) -> Option<&mut Circle> {
        if self.circles.len() >= MAX_HANDLES && !self.circles.contains_key(&transfer) {
            return None;
        }
        Some(self.circles.entry(transfer).or_insert_with(|| Circle::new(now)))
    }

    /// The transfer is no more.
    pub(crate) fn forget(&mut self, transfer: TransferId) {
        self.circles.remove(&transfer);
    }
}

impl Engine {
    /// Where others can dial the peer behind a connection, by its peer ID and multiaddrs in binary: only addresses that the caller has
    /// dialled itself, or that the peer claims and is seen at. Peers that take part in the same contents will be told. No address:
    /// nobody is told any more.
    pub fn handle_reachable(&mut self, now: Timestamp, conn: ConnId, id: &[u8], addrs: Vec<Box<[u8]>>) {
        self.advance(now);
        let Some(of) = self.conns.get_mut(&conn) else { return };
        if of.peer != PeerKey::of(id) || id.is_empty() || id.len() > MAX_PEER_ID_LEN {
            return;
        }
        let mut addrs = addrs;
        addrs.retain(|addr| !addr.is_empty() && addr.len() <= MAX_PEER_ADDR_LEN);
        addrs.truncate(MAX_PEER_ADDRS);
        of.exchange.reachable = (!addrs.is_empty()).then(|| KnownPeer {
            id: id.into(),
            flags: 0,
            addrs,
        });
        let fetched = of.sessions.values().filter(|s| s.state != SessionState::Opening);
        let served = of.served.values().map(|served| served.transfer);
        let mut transfers: Vec<TransferId> = fetched.map(|session| session.transfer).chain(served).collect();
        transfers.sort_unstable();
        transfers.dedup();
        for transfer in transfers {
            self.join_circle(conn, transfer);
        }
    }

    /// A peer has opened a transfer at us, or let us open it: it and the others are introduced to each other.
    pub(super) fn join_circle(&mut self, id: ConnId, transfer: TransferId) {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let opened = conn.served.values().any(|served| served.transfer == transfer);
        let listens = conn.exchange.spoken && opened;
        let can_be_named = conn.exchange.reachable.is_some();
        let Some(circle) = conn.exchange.circle(now, transfer) else {
            return;
        };
        let begins = listens && !std::mem::replace(&mut circle.listens, listens);
        let new = can_be_named && !std::mem::replace(&mut circle.named, can_be_named);
        if !begins && !new {
            return;
        }
        let mut others = Vec::new();
        for (other_id, other) in self.conns.iter_mut().filter(|(other, _)| **other != id) {
            let Some(theirs) = other.exchange.circles.get_mut(&transfer) else {
                continue;
            };
            if begins && theirs.named {
                others.push(*other_id);
            }
            if new && theirs.listens {
                theirs.push(now, id);
                self.to_introduce.insert((*other_id, transfer));
            }
        }
        if others.is_empty() {
            self.set_busy();
            return;
        }
        if let Some(circle) = self.conns.get_mut(&id).and_then(|c| c.exchange.circle(now, transfer)) {
            others.into_iter().for_each(|other| circle.push(now, other));
            self.to_introduce.insert((id, transfer));
        }
        self.set_busy();
    }

    /// Tells peers of others, as far as it is time.
    pub(super) fn introduce(&mut self) {
        let now = self.now;
        for (id, transfer) in self.to_introduce.iter().copied().collect::<Vec<_>>() {
            let Some((handle, named)) = self.next_introduction(now, id, transfer) else {
                continue;
            };
            let peers: Vec<KnownPeer> = named
                .into_iter()
                .filter_map(|other| self.known_peer(other, transfer))
                .collect();
            if !peers.is_empty() {
                self.send(id, Message::Peers { handle, peers });
            }
        }
    }

    /// Whom to name to a peer now, and under which handle.
    fn next_introduction(&mut self, now: Timestamp, id: ConnId, transfer: TransferId) -> Option<(Handle, Vec<ConnId>)> {
        let rng = &mut self.rng;
        let conn = self.conns.get_mut(&id);
        let circle = conn.and_then(|conn| Some((&conn.served, conn.exchange.circles.get_mut(&transfer)?)));
        let Some((served, circle)) = circle else {
            self.to_introduce.remove(&(id, transfer));
            return None;
        };
        let Some((handle, _)) = served.iter().find(|(_, served)| served.transfer == transfer) else {
            // It has what it wanted. Should it open the content again, it is told of everybody again.
            circle.listens = false;
            circle.pending.clear();
            self.to_introduce.remove(&(id, transfer));
            return None;
        };
        if now < circle.due {
            return None;
        }
        if !circle.said.take(now, SAID) {
            circle.due = circle.said.next(SAID);
            return None;
        }
        let named = circle.next(rng);
        if circle.pending.is_empty() {
            self.to_introduce.remove(&(id, transfer));
        } else {
            circle.due = now + BATCH;
        }
        Some((*handle, named))
    }

    fn known_peer(&self, id: ConnId, transfer: TransferId) -> Option<KnownPeer> {
        let conn = self.conns.get(&id)?;
        let mut peer = conn.exchange.reachable.clone()?;
        let mut sessions = conn.sessions.values().filter(|session| session.transfer == transfer);
        if sessions.any(|session| session.source == Source::All) {
            peer.flags |= KnownPeer::SEED;
        }
        Some(peer)
    }

    /// Whether [`Engine::introduce`] will have something to say within `span`.
    pub(super) fn introduces_within(&self, span: Duration) -> bool {
        let by = self.now + span;
        self.to_introduce.iter().any(|(id, transfer)| {
            let circle = self.conns.get(id).and_then(|conn| conn.exchange.circles.get(transfer));
            circle.is_some_and(|circle| circle.due <= by)
        })
    }

    /// A peer names others to us.
    pub(super) fn on_peers(&mut self, id: ConnId, handle: Handle, peers: Vec<KnownPeer>) -> Result<(), Violation> {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(&id) else {
            return Ok(());
        };
        let Some(session) = conn.sessions.get(&handle) else {
            return Ok(());
        };
        if session.state == SessionState::Opening {
            return Err(Violation::OutOfOrder);
        }
        let transfer = session.transfer;
        let Some(circle) = conn.exchange.circle(now, transfer) else {
            return Ok(());
        };
        if !circle.heard.take(now, HEARD) {
            return Err(Violation::OverLimit("messages that name peers"));
        }
        if !peers.is_empty() {
            self.event(Event::PeersHeard {
                transfer,
                conn: id,
                peers,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engine::{Action, ContentPieces, ContentSpec, DisconnectReason, EngineConfig, PickOrder};
    use crate::format::{Cid, Codec, HashKind, Leaf, PieceMap};
    use crate::wire::{Extension, Have, Hello, NetworkId};

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(ms * 1000)
    }

    fn cid(name: &str) -> Cid {
        Cid::of(Codec::Raw, HashKind::Blake3, name.as_bytes())
    }

    fn content() -> Cid {
        cid("content")
    }

    fn id_of(conn: u64) -> [u8; 8] {
        conn.to_le_bytes()
    }

    fn node(seeding: bool) -> Engine {
        let mut engine = Engine::new(EngineConfig::default(), 1);
        let map = Arc::new(PieceMap::new(vec![Leaf {
            cid: cid("leaf"),
            len: 9,
        }]));
        let have = if seeding { map.all() } else { map.none() };
        let pieces = Some(ContentPieces {
            map,
            have,
            wanted: None,
        });
        let spec = ContentSpec {
            content: Some(content()),
            packs: Vec::new(),
            network: NetworkId::PUBLIC,
            pieces,
            related: Vec::new(),
            order: PickOrder::default(),
        };
        engine.add_content(Timestamp::ZERO, spec);
        engine
    }

    /// A peer connects, says `Hello` and opens the content.
    fn comes(engine: &mut Engine, now: Timestamp, conn: u64, takes_part: bool) {
        engine.handle_connected(now, ConnId(conn), PeerKey::of(&id_of(conn)), Duration::from_millis(10));
        let extension = Extension {
            name: Extension::PEER_EXCHANGE.to_owned(),
            value: Vec::new(),
        };
        let hello = Hello {
            network: NetworkId::PUBLIC,
            agent: "test".to_owned(),
            extensions: takes_part.then_some(extension).into_iter().collect(),
        };
        engine.handle_message(now, ConnId(conn), Message::Hello(hello));
        let open = Message::Open {
            handle: Handle(7),
            root: content(),
        };
        engine.handle_message(now, ConnId(conn), open);
    }

    fn reachable(engine: &mut Engine, now: Timestamp, conn: u64) {
        engine.handle_reachable(now, ConnId(conn), &id_of(conn), vec![[4, 127, 0, 0, 1].into()]);
    }

    /// Who was told of whom, in order.
    fn told(engine: &mut Engine) -> Vec<(u64, Vec<u64>)> {
        let actions = std::iter::from_fn(|| engine.poll_action());
        let told = actions.filter_map(|action| match action {
            Action::Send(conn, Message::Peers { handle, peers }) => {
                assert_eq!(handle, Handle(7));
                assert!(peers.len() <= MAX_PEERS);
                let mut of: Vec<u64> = peers
                    .iter()
                    .map(|peer| u64::from_le_bytes(peer.id[..].try_into().unwrap()))
                    .collect();
                of.sort_unstable();
                Some((conn.0, of))
            }
            _ => None,
        });
        told.collect()
    }

    /// Lets time pass as the engine asks for it.
    fn run(engine: &mut Engine, until: Timestamp) -> Vec<(u64, Vec<u64>)> {
        let mut all = told(engine);
        while let Some(due) = engine.poll_timeout().filter(|due| *due <= until) {
            engine.handle_timeout(due);
            all.extend(told(engine));
        }
        engine.handle_timeout(until);
        all.extend(told(engine));
        all
    }

    #[test]
    fn a_newcomer_and_the_others_hear_of_each_other_within_a_moment() {
        let mut engine = node(true);
        for conn in 1..=3 {
            comes(&mut engine, at(0), conn, true);
            reachable(&mut engine, at(0), conn);
        }
        let mut first = run(&mut engine, at(400));
        first.sort();
        assert_eq!(first, [(1, vec![2, 3]), (2, vec![1, 3]), (3, vec![1, 2])]);
        // Where it can be reached is found out later.
        comes(&mut engine, at(1000), 4, true);
        assert_eq!(run(&mut engine, at(1400)), [(4, vec![1, 2, 3])]);
        reachable(&mut engine, at(2000), 4);
        assert_eq!(run(&mut engine, at(2400)), [(1, vec![4]), (2, vec![4]), (3, vec![4])]);
        assert_eq!(run(&mut engine, at(200_000)), [], "nobody is told twice");
    }

    #[test]
    fn who_does_not_take_part_is_told_nothing_and_named_all_the_same() {
        let mut engine = node(true);
        for (conn, takes_part) in [(1, false), (2, true)] {
            comes(&mut engine, at(0), conn, takes_part);
            reachable(&mut engine, at(0), conn);
        }
        assert_eq!(run(&mut engine, at(1000)), [(2, vec![1])]);
    }

    #[test]
    fn nobody_is_named_without_an_address_or_under_another_s_name() {
        let mut engine = node(true);
        comes(&mut engine, at(0), 1, true);
        comes(&mut engine, at(0), 2, true);
        engine.handle_reachable(at(0), ConnId(2), &id_of(2), vec![vec![1; MAX_PEER_ADDR_LEN + 1].into()]);
        engine.handle_reachable(at(0), ConnId(2), &id_of(3), vec![[1].into()]);
        assert_eq!(run(&mut engine, at(1000)), []);
    }

    #[test]
    fn after_some_messages_the_rest_waits_for_its_minute() {
        let mut engine = node(true);
        comes(&mut engine, at(0), 0, true);
        let mut messages = 0;
        for conn in 1..=40 {
            comes(&mut engine, at(conn * 1000), conn, false);
            reachable(&mut engine, at(conn * 1000), conn);
            messages += run(&mut engine, at(conn * 1000 + 999)).len();
        }
        assert_eq!(messages as u32, SAID.burst);
        // The allowance began with the first message: the next comes a minute after it, with all that has piled up.
        let later = run(&mut engine, at(75_000));
        assert_eq!(later.len(), 1);
        assert_eq!(later[0].1.len() as u64, 40 - u64::from(SAID.burst));
    }

    #[test]
    fn a_large_swarm_is_told_in_bounded_messages_each_once() {
        let mut engine = node(true);
        for conn in 1..=220 {
            comes(&mut engine, at(0), conn, false);
            reachable(&mut engine, at(0), conn);
        }
        comes(&mut engine, at(0), 1000, true);
        let told = run(&mut engine, at(5000));
        let mut of: Vec<u64> = told.iter().flat_map(|(_, of)| of.clone()).collect();
        of.sort_unstable();
        of.dedup();
        assert_eq!((told.len(), of.len()), (MAX_PENDING.div_ceil(MAX_PEERS), MAX_PENDING));
    }

    #[test]
    fn a_peer_that_names_more_often_than_it_may_is_disconnected() {
        let mut engine = node(false);
        comes(&mut engine, at(0), 1, true);
        let handle = Handle(0);
        let peers = vec![KnownPeer {
            id: [1].into(),
            flags: 0,
            addrs: Vec::new(),
        }];
        let naming = Message::Peers { handle, peers };
        let opened = Message::Opened {
            handle,
            have: Have::All,
        };
        engine.handle_message(at(0), ConnId(1), opened);
        let mut heard = 0;
        let mut ended = None;
        for _ in 0..HEARD.burst + 5 {
            engine.handle_message(at(0), ConnId(1), naming.clone());
            while let Some(action) = engine.poll_action() {
                match action {
                    Action::Event(Event::PeersHeard { .. }) => heard += 1,
                    Action::Disconnect(_, reason) => ended = Some(reason),
                    _ => {}
                }
            }
        }
        assert_eq!(heard, HEARD.burst);
        let reason = Violation::OverLimit("messages that name peers");
        assert_eq!(ended, Some(DisconnectReason::Violation(reason)));
    }

    #[test]
    fn what_we_send_is_never_too_much_for_who_keeps_to_the_same_rules() {
        let mut said = Allowance::new(at(0));
        let mut heard = Allowance::new(at(0));
        // Everything due within 90 s arrives in one go at its end.
        for ms in (0..10_000_000).step_by(100) {
            if said.take(at(ms), SAID) {
                let arrives = (ms / 90_000 + 1) * 90_000;
                assert!(heard.take(at(arrives), HEARD), "at {ms} ms");
            }
        }
    }
}
