//! Whom to dial for what, and when: addresses from links, `--peer`, provider records and multicast DNS.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

/// Peers remembered at once; beyond, the ones that failed most are forgotten.
const MAX_PEERS: usize = 4096;
/// Addresses kept of one peer.
const MAX_ADDRS: usize = 16;
/// Peers that are dialled at a time, besides those that the user named.
const MAX_DIALLING: usize = 64;
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(120);
/// A peer that broke the protocol is not dialled for this long; twice as long each further time,…
const SHUN_MIN: Duration = Duration::from_secs(60);
/// …and at the most.
const SHUN_MAX: Duration = Duration::from_secs(3600);

/// What is known of reaching one peer.
#[derive(Debug, Default)]
struct Known {
    addrs: Vec<Multiaddr>,
    /// Where others say that it is: tried with the rest, and forgotten once it was.
    hearsay: Vec<Multiaddr>,
    failures: u32,
    not_before: Option<Instant>,
    /// Sessions that ended by its fault.
    offences: u32,
    shunned_until: Option<Instant>,
    dialling: bool,
    /// Addresses to try if the dial under way fails.
    fallback: Vec<Multiaddr>,
    /// It said that it does not speak our protocol.
    foreign: bool,
    /// Never forgotten, always tried again: from a link, `--peer` or `--bootstrap`.
    named: bool,
}

/// The peers that may be worth a dial.
#[derive(Debug, Default)]
pub(super) struct PeerBook {
    known: HashMap<PeerId, Known>,
    /// Those that are being dialled.
    dialling: usize,
    connected: HashSet<PeerId>,
}

/// What to do about a peer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Dial {
    pub(super) peer: PeerId,
    /// Empty: what the behaviours know.
    pub(super) addrs: Vec<Multiaddr>,
}

impl PeerBook {
    /// Remembers `addrs` of `peer`.
    pub(super) fn add(&mut self, peer: PeerId, addrs: impl IntoIterator<Item = Multiaddr>, named: bool) {
        if self.known.len() >= MAX_PEERS && !self.known.contains_key(&peer) {
            self.forget_worst();
        }
        let known = self.known.entry(peer).or_default();
        known.named |= named;
        for addr in addrs {
            let addr = without_peer(addr);
            if known.addrs.len() < MAX_ADDRS && !known.addrs.contains(&addr) {
                known.addrs.push(addr);
            }
        }
    }

    /// Remembers, for the next dial only, where others say that `peer` is.
    pub(super) fn add_hearsay(&mut self, peer: PeerId, addrs: Vec<Multiaddr>) {
        self.add(peer, [], false);
        if let Some(known) = self.known.get_mut(&peer).filter(|known| !known.dialling) {
            known.hearsay = addrs;
        }
    }

    fn forget_worst(&mut self) {
        let worst = self
            .known
            .iter()
            .filter(|(peer, k)| !k.named && !k.dialling && !self.connected.contains(peer))
            .max_by_key(|(_, k)| (k.foreign, k.failures))
            .map(|(peer, _)| *peer);
        if let Some(peer) = worst {
            self.known.remove(&peer);
        }
    }

    /// `candidates` in the order in which to dial them: who failed least first, and of these who has the better `score`.
    pub(super) fn best_first(&self, candidates: &[PeerId], score: impl Fn(&PeerId) -> i32) -> Vec<PeerId> {
        let mut order = candidates.to_vec();
        order.sort_by_cached_key(|peer| {
            let failures = self.known.get(peer).map_or(0, |known| known.failures);
            (failures, std::cmp::Reverse(score(peer)))
        });
        order
    }

    /// An address of `peer`, if one is known.
    pub(super) fn addr(&self, peer: &PeerId) -> Option<&Multiaddr> {
        self.known.get(peer)?.addrs.first()
    }

    /// The dial to make now for `peer`, if it is neither connected nor being dialled nor failed a moment ago.
    pub(super) fn dial(&mut self, peer: PeerId, now: Instant) -> Option<Dial> {
        if self.connected.contains(&peer) {
            return None;
        }
        let known = self.known.get_mut(&peer)?;
        let mut waits = [known.not_before, known.shunned_until].into_iter().flatten();
        if known.dialling || known.foreign || waits.any(|at| at > now) {
            return None;
        }
        if !known.named && self.dialling >= MAX_DIALLING {
            return None;
        }
        known.dialling = true;
        self.dialling += 1;
        let mut addrs = known.addrs.clone();
        addrs.append(&mut known.hearsay);
        let (addrs, rest) = super::swarm::dial_order(addrs);
        known.fallback = rest;
        Some(Dial { peer, addrs })
    }

    /// A dial failed: what to try next, if anything.
    pub(super) fn failed(&mut self, peer: PeerId, now: Instant) -> Option<Dial> {
        let known = self.known.get_mut(&peer)?;
        if !known.dialling {
            return None;
        }
        if !known.fallback.is_empty() {
            return Some(Dial {
                peer,
                addrs: std::mem::take(&mut known.fallback),
            });
        }
        known.dialling = false;
        self.dialling -= 1;
        let wait = BACKOFF_MIN.saturating_mul(1 << known.failures.min(7)).min(BACKOFF_MAX);
        // What the user named is worth trying often.
        let wait = if known.named {
            wait.min(Duration::from_secs(8))
        } else {
            wait
        };
        known.failures = known.failures.saturating_add(1);
        known.not_before = Some(now + wait);
        None
    }

    pub(super) fn connected(&mut self, peer: PeerId) {
        self.connected.insert(peer);
        if let Some(known) = self.known.get_mut(&peer) {
            self.dialling -= usize::from(std::mem::take(&mut known.dialling));
            known.failures = 0;
            known.not_before = None;
            known.fallback.clear();
        }
    }

    pub(super) fn disconnected(&mut self, peer: PeerId, now: Instant) {
        self.connected.remove(&peer);
        if let Some(known) = self.known.get_mut(&peer) {
            known.not_before = Some(now + BACKOFF_MIN);
        }
    }

    /// A session with the peer ended by its fault: what it did once it would do again at once.
    pub(super) fn offended(&mut self, peer: PeerId, now: Instant) {
        if let Some(known) = self.known.get_mut(&peer) {
            // Peers that dial us are not in the book, and the engine's affair.
            let wait = SHUN_MIN.saturating_mul(1 << known.offences.min(6)).min(SHUN_MAX);
            known.offences = known.offences.saturating_add(1);
            known.shunned_until = Some(now + wait);
        }
    }

    /// Whether the peer broke the protocol lately: whoever dialled, there is to be no connection.
    pub(super) fn is_shunned(&self, peer: &PeerId, now: Instant) -> bool {
        let until = self.known.get(peer).and_then(|known| known.shunned_until);
        until.is_some_and(|until| until > now)
    }

    /// The peer does not speak our protocol.
    pub(super) fn foreign(&mut self, peer: PeerId) {
        if let Some(known) = self.known.get_mut(&peer) {
            known.foreign = true;
        }
    }

    pub(super) fn is_connected(&self, peer: &PeerId) -> bool {
        self.connected.contains(peer)
    }

    /// Whether a peer that has been tried can be passed over for others.
    pub(super) fn is_doubtful(&self, peer: &PeerId) -> bool {
        let tried = |known: &Known| !known.named && !known.dialling && (known.failures > 0 || known.foreign);
        !self.is_connected(peer) && self.known.get(peer).is_none_or(tried)
    }

    pub(super) fn is_dialling(&self, peer: &PeerId) -> bool {
        self.known.get(peer).is_some_and(|known| known.dialling)
    }
}

/// `addr` without its `/p2p/ID`.
pub(super) fn without_peer(mut addr: Multiaddr) -> Multiaddr {
    if let Some(Protocol::P2p(_)) = addr.iter().last() {
        addr.pop();
    }
    addr
}

/// Splits `…/p2p/ID` into peer and address.
pub(super) fn split_peer(addr: &Multiaddr) -> Option<(PeerId, Multiaddr)> {
    match addr.iter().last() {
        Some(Protocol::P2p(peer)) => Some((peer, without_peer(addr.clone()))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_tcp_is_tried_first_and_the_rest_if_it_fails() {
        let mut book = PeerBook::default();
        let now = Instant::now();
        let peer = PeerId::random();
        let tcp: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        let quic: Multiaddr = "/ip4/127.0.0.1/udp/1/quic-v1".parse().unwrap();
        book.add(peer, [quic.clone(), tcp.clone()], true);
        assert_eq!(book.dial(peer, now), Some(Dial { peer, addrs: vec![tcp] }));
        assert_eq!(book.dial(peer, now), None, "one dial at a time");
        assert_eq!(
            book.failed(peer, now),
            Some(Dial {
                peer,
                addrs: vec![quic]
            })
        );
        assert_eq!(book.failed(peer, now), None);
        assert_eq!(book.dial(peer, now), None, "not at once again");
        assert!(book.dial(peer, now + BACKOFF_MAX).is_some());
    }

    #[test]
    fn dials_under_way_are_bounded_but_for_what_the_user_named() {
        let mut book = PeerBook::default();
        let now = Instant::now();
        let peers: Vec<PeerId> = (0..MAX_DIALLING + 5).map(|_| PeerId::random()).collect();
        peers.iter().for_each(|peer| book.add(*peer, [], false));
        assert_eq!(
            peers.iter().filter_map(|peer| book.dial(*peer, now)).count(),
            MAX_DIALLING
        );
        let named = PeerId::random();
        book.add(named, [], true);
        assert!(book.dial(named, now).is_some());
        book.connected(named);
        book.failed(peers[0], now);
        book.connected(peers[1]);
        assert_eq!(peers.iter().filter_map(|peer| book.dial(*peer, now)).count(), 2);
    }

    #[test]
    fn hearsay_is_tried_once_and_crowds_nothing_out() {
        let mut book = PeerBook::default();
        let now = Instant::now();
        let peer = PeerId::random();
        let [own, heard]: [Multiaddr; 2] =
            ["/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/2"].map(|addr| addr.parse().unwrap());
        book.add(peer, [own.clone()], false);
        book.add_hearsay(peer, vec![heard.clone()]);
        assert_eq!(book.dial(peer, now).unwrap().addrs, [own.clone(), heard]);
        book.failed(peer, now);
        assert_eq!(book.dial(peer, now + BACKOFF_MAX).unwrap().addrs, [own]);
    }

    #[test]
    fn who_failed_least_is_dialled_first_and_of_these_who_has_done_best() {
        let mut book = PeerBook::default();
        let now = Instant::now();
        let [bad, failed, good, stranger] = [(); 4].map(|()| PeerId::random());
        book.add(failed, ["/ip4/127.0.0.1/tcp/1".parse().unwrap()], false);
        book.dial(failed, now);
        assert_eq!(book.failed(failed, now), None);
        let score = |peer: &PeerId| match peer {
            peer if *peer == bad => -5,
            peer if *peer == good || *peer == failed => 50,
            _ => 0,
        };
        let order = book.best_first(&[bad, failed, stranger, good], score);
        assert_eq!(order, [good, stranger, bad, failed]);
    }

    #[test]
    fn a_peer_that_broke_the_protocol_is_not_dialled_at_once_however_often_it_connects() {
        let mut book = PeerBook::default();
        let now = Instant::now();
        let peer = PeerId::random();
        book.add(peer, ["/ip4/127.0.0.1/tcp/1".parse().unwrap()], true);
        for _ in 0..2 {
            book.connected(peer);
            book.offended(peer, now);
            book.disconnected(peer, now);
        }
        assert_eq!(book.dial(peer, now + SHUN_MIN), None);
        assert!(book.is_shunned(&peer, now + SHUN_MIN));
        assert!(book.dial(peer, now + SHUN_MIN * 2).is_some());
    }

    #[test]
    fn the_book_is_bounded_and_keeps_what_the_user_named() {
        let mut book = PeerBook::default();
        let named = PeerId::random();
        book.add(named, ["/ip4/127.0.0.1/tcp/1".parse().unwrap()], true);
        for _ in 0..MAX_PEERS + 10 {
            book.add(PeerId::random(), [], false);
        }
        assert!(book.known.len() <= MAX_PEERS);
        assert!(book.known.contains_key(&named));
    }
}
