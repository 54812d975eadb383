//! What peers tell of other peers: whom to dial for it, and whom to go on believing.
//!
//! Owns what was heard and has not been tried, and the credit of those who said it. When a peer may be dialled again is the affair of
//! [`PeerBook`], and whom *we* tell of whom that of the engine, which [`Exchange::vouched`] tells where a peer can be reached.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use modswarm_protocol::{
    engine::TransferId,
    wire::{KnownPeer, limits::MAX_PEER_ADDRS},
};

use super::{
    network::{AddressClass, Reach, classify, reach},
    peers::{Dial, PeerBook, without_peer},
};

/// Peers heard of for one transfer that were not tried yet.
const MAX_HEARD: usize = 200;
/// Dials under way to peers that were heard of…
const MAX_DIALS: usize = 16;
/// …and of these, to those whom one peer named.
const MAX_DIALS_PER_SOURCE: usize = 8;
/// Peers whose credit is remembered.
const MAX_SOURCES: usize = 1024;
/// Peers whose own addresses are remembered, while they are connected.
const MAX_CLAIMS: usize = 1024;
/// Names that may lead nowhere before a peer is believed no longer, besides [`FAILURES_PER_SUCCESS`] for each that led somewhere.
const FAILURES_ALLOWED: u32 = 8;
const FAILURES_PER_SUCCESS: u32 = 2;
/// Outcomes after which older ones count half.
const CREDIT_MEMORY: u32 = 64;
/// Two that hear of each other at once should not dial each other at once: the greater ID lets the smaller go first.
const YIELD: Duration = Duration::from_millis(400);
/// Until a peer that cannot be dialled now is looked at again.
const LATER: Duration = Duration::from_secs(1);

/// A peer that was heard of and not tried.
#[derive(Debug)]
struct Heard {
    peer: PeerId,
    addrs: Vec<Multiaddr>,
    source: PeerId,
    seed: bool,
    not_before: Instant,
}

/// A dial to a peer that was heard of.
#[derive(Debug)]
struct Attempt {
    source: PeerId,
    transfer: TransferId,
}

/// How well the names that one peer gave have worked.
#[derive(Debug, Default)]
struct Credit {
    worked: u32,
    failed: u32,
}

impl Credit {
    fn is_believed(&self) -> bool {
        self.failed < FAILURES_ALLOWED + FAILURES_PER_SUCCESS * self.worked
    }

    fn note(&mut self, worked: bool) {
        if self.worked + self.failed >= CREDIT_MEMORY {
            self.worked /= 2;
            self.failed /= 2;
        }
        if worked {
            self.worked += 1;
        } else {
            self.failed += 1;
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Exchange {
    local: PeerId,
    heard: HashMap<TransferId, Vec<Heard>>,
    dialling: HashMap<PeerId, Attempt>,
    credit: HashMap<PeerId, Credit>,
    /// Where connected peers say that they listen.
    claims: HashMap<PeerId, Vec<Multiaddr>>,
}

impl Exchange {
    pub(super) fn new(local: PeerId) -> Self {
        Self {
            local,
            heard: HashMap::new(),
            dialling: HashMap::new(),
            credit: HashMap::new(),
            claims: HashMap::new(),
        }
    }

    /// `source` names peers for `transfer`. Addresses that `usable` refuses are dropped, and peers without one with them.
    pub(super) fn hear(
        &mut self,
        transfer: TransferId,
        source: PeerId,
        peers: Vec<KnownPeer>,
        usable: impl Fn(&Multiaddr) -> bool,
        now: Instant,
    ) {
        if !self.credit.get(&source).is_none_or(Credit::is_believed) {
            return;
        }
        let heard = self.heard.entry(transfer).or_default();
        for named in peers {
            let Ok(peer) = PeerId::from_bytes(&named.id) else {
                continue;
            };
            let addrs = named
                .addrs
                .into_iter()
                .filter_map(|addr| Multiaddr::try_from(addr.into_vec()).ok());
            let addrs: Vec<Multiaddr> = addrs.map(without_peer).filter(&usable).take(MAX_PEER_ADDRS).collect();
            // Who named a peer first answers for it, so that nobody can spoil it for those who know better.
            let known = heard.iter().any(|known| known.peer == peer) || self.dialling.contains_key(&peer);
            if peer == self.local || addrs.is_empty() || known || heard.len() >= MAX_HEARD {
                continue;
            }
            let goes_first = self.local.to_bytes() < peer.to_bytes();
            heard.push(Heard {
                peer,
                addrs,
                source,
                seed: named.flags & KnownPeer::SEED != 0,
                not_before: if goes_first { now } else { now + YIELD },
            });
        }
    }

    /// At most `room` dials to make now for `transfer`, seeds first. Each is answered by [`Exchange::connected`] or [`Exchange::failed`].
    pub(super) fn dials(&mut self, transfer: TransferId, room: usize, book: &mut PeerBook, now: Instant) -> Vec<Dial> {
        let mut dials = Vec::new();
        let Some(heard) = self.heard.get_mut(&transfer) else {
            return dials;
        };
        heard.retain(|known| {
            let believed = self.credit.get(&known.source).is_none_or(Credit::is_believed);
            believed && !book.is_connected(&known.peer)
        });
        heard.sort_by_key(|known| !known.seed);
        let mut at = 0;
        while let Some(known) = heard.get_mut(at) {
            let (under_way, of_source) = (self.dialling.len(), |a: &&Attempt| a.source == known.source);
            if dials.len() >= room || under_way >= MAX_DIALS {
                break;
            }
            let busy = self.dialling.values().filter(of_source).count() >= MAX_DIALS_PER_SOURCE;
            if busy || known.not_before > now {
                at += 1;
                continue;
            }
            book.add_hearsay(known.peer, known.addrs.clone());
            let Some(dial) = book.dial(known.peer, now) else {
                known.not_before = now + LATER;
                at += 1;
                continue;
            };
            let Heard { peer, source, .. } = heard.remove(at);
            self.dialling.insert(peer, Attempt { source, transfer });
            dials.push(dial);
        }
        dials
    }

    /// Dials under way for `transfer`.
    pub(super) fn dialling(&self, transfer: TransferId) -> usize {
        self.dialling.values().filter(|a| a.transfer == transfer).count()
    }

    /// When the next peer may be dialled that may not be yet.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        let waiting = self.heard.values().flatten().map(|known| known.not_before);
        waiting.filter(|at| *at > now).min()
    }

    /// There is a connection to `peer`, whoever made it. The transfers that it was named for.
    pub(super) fn connected(&mut self, peer: PeerId) -> Vec<TransferId> {
        let mut named_for = Vec::new();
        if let Some(Attempt { source, transfer }) = self.dialling.remove(&peer) {
            self.note(source, true);
            named_for.push(transfer);
        }
        for (transfer, heard) in &mut self.heard {
            if let Some(at) = heard.iter().position(|known| known.peer == peer) {
                heard.swap_remove(at);
                named_for.push(*transfer);
            }
        }
        named_for
    }

    /// `peer` could not be reached at any address.
    pub(super) fn failed(&mut self, peer: PeerId) {
        if let Some(Attempt { source, .. }) = self.dialling.remove(&peer) {
            self.note(source, false);
        }
    }

    fn note(&mut self, source: PeerId, worked: bool) {
        if self.credit.len() >= MAX_SOURCES && !self.credit.contains_key(&source) {
            // Those who are not believed are what this remembers for.
            let least = self.credit.iter().max_by_key(|(_, c)| (c.is_believed(), c.worked));
            if let Some(peer) = least.map(|(peer, _)| *peer) {
                self.credit.remove(&peer);
            }
        }
        let credit = self.credit.entry(source).or_default();
        let believed = credit.is_believed();
        credit.note(worked);
        if believed && !credit.is_believed() {
            tracing::info!(peer = %source, "names peers that cannot be reached; no longer listened to");
        }
    }

    /// Nobody fetches `transfer` any more.
    pub(super) fn forget(&mut self, transfer: TransferId) {
        self.heard.remove(&transfer);
    }

    /// A transfer goes on under another number.
    pub(super) fn rename(&mut self, from: TransferId, to: TransferId) {
        if let Some(heard) = self.heard.remove(&from) {
            self.heard.entry(to).or_default().extend(heard);
        }
        for attempt in self.dialling.values_mut().filter(|a| a.transfer == from) {
            attempt.transfer = to;
        }
    }

    /// Where a connected peer says that it listens.
    pub(super) fn claims(&mut self, peer: PeerId, addrs: Vec<Multiaddr>) {
        if self.claims.len() < MAX_CLAIMS || self.claims.contains_key(&peer) {
            self.claims.insert(peer, addrs);
        }
    }

    /// The last connection to a peer ended.
    pub(super) fn disconnected(&mut self, peer: &PeerId) {
        self.claims.remove(peer);
    }

    /// The addresses of a peer that others may be told of: the one that we dialled it at, and those of its own claims whose host is the
    /// one that it is seen at.
    pub(super) fn vouched(
        &self,
        peer: PeerId,
        seen_at: &Multiaddr,
        dialled: bool,
        usable: impl Fn(&Multiaddr) -> bool,
    ) -> Vec<Multiaddr> {
        let seen_at = without_peer(seen_at.clone());
        let same_host = |addr: &&Multiaddr| {
            let relayed = |addr: &Multiaddr| classify(addr) == AddressClass::Relayed;
            addr.iter().next() == seen_at.iter().next() && relayed(addr) == relayed(&seen_at)
        };
        let claims = self.claims.get(&peer).into_iter().flatten().filter(same_host).cloned();
        let mut addrs: Vec<Multiaddr> = dialled.then(|| seen_at.clone()).into_iter().collect();
        for addr in claims.map(without_peer) {
            if !addrs.contains(&addr) {
                addrs.push(addr);
            }
        }
        addrs.retain(usable);
        addrs.truncate(MAX_PEER_ADDRS);
        addrs
    }
}

/// Whether an address may be told, and dialled on hearsay: one of a host, by number, that means the same everywhere in the network.
pub(super) fn is_tellable(addr: &Multiaddr) -> bool {
    let multicast = match addr.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_multicast() || ip.is_broadcast(),
        Some(Protocol::Ip6(ip)) => ip.is_multicast(),
        _ => return false,
    };
    !multicast && reach(addr) != Reach::Nowhere
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(peer: PeerId, port: u16) -> KnownPeer {
        let addr: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
        KnownPeer {
            id: peer.to_bytes().into(),
            flags: 0,
            addrs: vec![addr.to_vec().into()],
        }
    }

    fn transfer() -> TransferId {
        use modswarm_protocol::{
            Timestamp,
            engine::{ContentSpec, Engine, EngineConfig, PickOrder},
            wire::NetworkId,
        };
        let spec = ContentSpec {
            content: None,
            packs: Vec::new(),
            network: NetworkId::PUBLIC,
            pieces: None,
            related: Vec::new(),
            order: PickOrder::default(),
        };
        Engine::new(EngineConfig::default(), 1).add_content(Timestamp::ZERO, spec)
    }

    /// Who is dialled within a while, if nobody answers.
    fn all_dials(exchange: &mut Exchange, book: &mut PeerBook, mut now: Instant) -> usize {
        let mut count = 0;
        for _ in 0..200 {
            now += YIELD;
            let dials = exchange.dials(transfer(), 40, book, now);
            assert!(exchange.dialling.len() <= MAX_DIALS);
            count += dials.len();
            for dial in dials {
                assert_eq!(book.failed(dial.peer, now), None);
                exchange.failed(dial.peer);
            }
        }
        count
    }

    #[test]
    fn a_liar_costs_a_bounded_number_of_dials_and_is_believed_no_more() {
        let (mut exchange, mut book) = (Exchange::new(PeerId::random()), PeerBook::default());
        let (liar, now) = (PeerId::random(), Instant::now());
        for _ in 0..4 {
            let forged = (1..=50).map(|port| named(PeerId::random(), port)).collect();
            exchange.hear(transfer(), liar, forged, is_tellable, now);
        }
        assert!(exchange.heard[&transfer()].len() <= MAX_HEARD);
        let dials = all_dials(&mut exchange, &mut book, now);
        assert!(
            dials <= FAILURES_ALLOWED as usize + MAX_DIALS_PER_SOURCE,
            "{dials} dials"
        );
        exchange.hear(transfer(), liar, vec![named(PeerId::random(), 1)], is_tellable, now);
        assert!(exchange.heard[&transfer()].is_empty());
        // Others are believed as before.
        exchange.hear(
            transfer(),
            PeerId::random(),
            vec![named(PeerId::random(), 1)],
            is_tellable,
            now,
        );
        assert_eq!(all_dials(&mut exchange, &mut book, now), 1);
    }

    #[test]
    fn who_named_peers_that_answer_may_be_wrong_now_and_then() {
        let mut credit = Credit::default();
        for _ in 0..1000 {
            credit.note(true);
            credit.note(false);
            assert!(credit.is_believed());
        }
        for _ in 0..1000 {
            credit.note(false);
        }
        assert!(!credit.is_believed());
    }

    #[test]
    fn one_of_two_waits_for_the_other_to_dial() {
        let now = Instant::now();
        let (a, b) = (PeerId::random(), PeerId::random());
        let due = |local: PeerId, other: PeerId| {
            let mut exchange = Exchange::new(local);
            exchange.hear(transfer(), PeerId::random(), vec![named(other, 1)], is_tellable, now);
            exchange.dials(transfer(), 1, &mut PeerBook::default(), now).len()
        };
        assert_eq!(due(a, b) + due(b, a), 1);
    }

    #[test]
    fn own_claims_are_told_of_only_for_the_host_that_is_seen() {
        let mut exchange = Exchange::new(PeerId::random());
        let peer = PeerId::random();
        let addr = |text: &str| text.parse::<Multiaddr>().unwrap();
        exchange.claims(
            peer,
            [
                "/ip4/10.0.0.7/tcp/1",
                "/ip4/10.0.0.7/udp/2/quic-v1",
                "/ip4/10.9.9.9/tcp/1",
                "/ip4/127.0.0.1/tcp/1",
            ]
            .map(addr)
            .to_vec(),
        );
        let seen = addr("/ip4/10.0.0.7/tcp/50000");
        let claimed = ["/ip4/10.0.0.7/tcp/1", "/ip4/10.0.0.7/udp/2/quic-v1"].map(addr);
        assert_eq!(exchange.vouched(peer, &seen, false, is_tellable), claimed);
        let dialled = exchange.vouched(peer, &seen, true, is_tellable);
        assert_eq!(dialled, [&[seen.clone()][..], &claimed].concat());
        assert_eq!(exchange.vouched(peer, &seen, true, |_| false), []);
        let relayed = addr("/ip4/10.0.0.7/tcp/1/p2p/12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X/p2p-circuit");
        assert_eq!(exchange.vouched(peer, &relayed, false, is_tellable), []);
        exchange.disconnected(&peer);
        assert_eq!(exchange.vouched(peer, &seen, false, is_tellable), []);
    }

    #[test]
    fn names_and_addresses_without_a_host_are_not_dialled_on_hearsay() {
        for text in [
            "/dns4/example.com/tcp/1",
            "/ip4/0.0.0.0/tcp/1",
            "/ip4/224.0.0.1/udp/1/quic-v1",
            "/ip6/fe80::1/tcp/1",
        ] {
            assert!(!is_tellable(&text.parse().unwrap()), "{text}");
        }
    }
}
