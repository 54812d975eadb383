//! Whom to dial, and for what: peers that may have what a transfer needs, and entry points to the network.
//!
//! Who is known at which addresses, and when a dial is due again, is [`crate::node::peers`]'s affair; hearsay is [`crate::node::exchange`]'s, and when to look somebody up
//! [`crate::node::discovery`]'s.

use std::time::Instant;

use libp2p::{
    Multiaddr, PeerId, kad,
    swarm::dial_opts::{DialOpts, PeerCondition},
};
use modswarm_protocol::{
    engine::{ConnId, PeerKey, TransferId},
    wire::KnownPeer,
};

use super::{Actor, network::is_public};
use crate::node::{exchange::is_tellable, peers::Dial};

/// Peers that are dialled for one transfer and not yet connected.
const MAX_CANDIDATES: usize = 256;
/// Peers that we look for for one transfer: nobody else is dialled for it beyond. Others may still dial us.
const ENOUGH_SOURCES: usize = 40;

impl Actor {
    pub(super) fn add_entry_point(&mut self, peer: Option<PeerId>, addr: Multiaddr) {
        match peer {
            Some(peer) => {
                self.book.add(peer, [addr.clone()], true);
                self.swarm.behaviour_mut().kad.add_address(&peer, addr);
                self.entry_points.push(peer);
            }
            None => {
                if let Err(error) = self.swarm.dial(addr.clone()) {
                    tracing::warn!(%addr, %error, "cannot dial");
                }
            }
        }
    }

    pub(super) fn add_candidate(&mut self, transfer: TransferId, peer: PeerId) {
        if peer == *self.swarm.local_peer_id() {
            return;
        }
        let Some(t) = self.transfers.get_mut(&transfer) else {
            return;
        };
        if !t.candidates.contains(&peer) {
            if t.candidates.len() < MAX_CANDIDATES {
                t.candidates.push(peer);
            } else if let Some(doubtful) = t.candidates.iter_mut().find(|peer| self.book.is_doubtful(peer)) {
                *doubtful = peer;
            }
        }
        if self.book.is_connected(&peer) {
            self.swarm.behaviour_mut().swap.want_session(peer);
        }
    }

    pub(super) fn handle_query(&mut self, id: kad::QueryId, result: kad::QueryResult, answered: bool, last: bool) {
        let mut reached = false;
        match result {
            kad::QueryResult::GetProviders(Ok(kad::GetProvidersOk::FoundProviders { providers, .. })) => {
                if let Some(transfer) = self.discovery.transfer_of(id) {
                    for peer in providers {
                        if self.banned.contains_key(&peer) {
                            continue;
                        }
                        tracing::debug!(%peer, "named as a provider");
                        self.book.add(peer, [], false);
                        self.add_candidate(transfer, peer);
                        // The addresses that came with the record serve only while the look-up lives: dial now.
                        if let Some(dial) = self.book.dial(peer, Instant::now()) {
                            self.dial(dial);
                        }
                    }
                }
            }
            // The library calls it a success too if there was nobody to tell.
            kad::QueryResult::StartProviding(Ok(_)) => reached = answered,
            _ => {}
        }
        if last {
            self.discovery.finished(id, reached, Instant::now());
        }
    }

    /// A peer names others that have to do with a transfer.
    pub(super) fn peers_heard(&mut self, transfer: TransferId, conn: ConnId, peers: Vec<KnownPeer>) {
        let Some(source) = self.sessions.get(&conn).map(|live| live.session.peer) else {
            return;
        };
        let now = Instant::now();
        tracing::debug!(%source, count = peers.len(), "names peers");
        let public = !self.network.trusts_listen_addresses();
        let usable = |addr: &Multiaddr| is_tellable(addr) && (!public || is_public(addr));
        self.exchange.hear(transfer, source, peers, usable, now);
        self.dial_heard(now);
    }

    /// Dials whoever may have what is needed, and lost bootstrap peers.
    pub(super) fn dial_candidates(&mut self, now: Instant) {
        let mut dials: Vec<Dial> = Vec::new();
        for peer in self.entry_points.iter().filter(|peer| !self.banned.contains_key(*peer)) {
            dials.extend(self.book.dial(*peer, now));
        }
        let clock = self.now();
        let score = |peer: &PeerId| self.engine.score(clock, &PeerKey::of(&peer.to_bytes()));
        for (id, transfer) in &self.transfers {
            if transfer.sink.is_none() {
                continue;
            }
            let room = self.room_for(*id);
            let candidates = self.book.best_first(&transfer.candidates, score);
            let (book, banned) = (&mut self.book, &self.banned);
            let due = candidates.iter().filter(|peer| !banned.contains_key(*peer));
            dials.extend(due.filter_map(|peer| book.dial(*peer, now)).take(room));
        }
        dials.into_iter().for_each(|dial| self.dial(dial));
    }

    /// Dials peers that were heard of, as many as may be.
    pub(super) fn dial_heard(&mut self, now: Instant) {
        let fetching = self.transfers.iter().filter(|(_, t)| t.sink.is_some());
        for id in fetching.map(|(id, _)| *id).collect::<Vec<_>>() {
            let room = self.room_for(id);
            let dials = self.exchange.dials(id, room, &mut self.book, now);
            dials.into_iter().for_each(|dial| self.dial(dial));
        }
    }

    /// How many more peers are worth a dial for a transfer.
    fn room_for(&self, transfer: TransferId) -> usize {
        let sources = self.engine.transfer_stats(transfer).map_or(0, |stats| stats.sources);
        ENOUGH_SOURCES.saturating_sub(sources + self.exchange.dialling(transfer))
    }

    pub(super) fn dial(&mut self, Dial { peer, addrs }: Dial) {
        let opts = DialOpts::peer_id(peer).condition(PeerCondition::Disconnected);
        let opts = if addrs.is_empty() {
            opts.build()
        } else {
            opts.addresses(addrs).build()
        };
        if let Err(error) = self.swarm.dial(opts) {
            tracing::debug!(%peer, %error, "cannot dial");
            self.dial_failed(peer);
        }
    }

    /// A dial failed: its other addresses are tried, and the peer is given up for now if there are none.
    fn dial_failed(&mut self, peer: PeerId) {
        match self.book.failed(peer, Instant::now()) {
            Some(next) => self.dial(next),
            None => self.exchange.failed(peer),
        }
    }
}
