//! One content being fetched or seeded: its pieces, who is assigned which, and its accounts.

use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::config::{ContentPieces, PickOrder};
use super::flow::OwnLimits;
use super::idle::Idle;
use super::ids::{ConnId, PeerKey};
use super::nodes::NodeFetch;
use super::picker::Picker;
use super::priority::Share;
use super::rate::Meter;
use super::spread::Spread;
use super::stats::PeerBytes;
use crate::format::{Cid, PieceSet, SharedPieceMap};
use crate::time::Timestamp;
use crate::wire::NetworkId;

/// Peers whose bytes are remembered for one transfer; who gave least goes first.
pub(crate) const MAX_PEERS_REMEMBERED: usize = 1024;

/// Who is to bring a piece that is neither here nor pickable.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    /// One, except in the endgame.
    pub(crate) assignees: SmallVec<[ConnId; 2]>,
    /// Copies that came whole and wait for their verdict.
    pub(crate) verifying: u8,
}

/// The pieces of a transfer whose skeleton is known.
#[derive(Clone, Debug)]
pub(crate) struct Pieces {
    pub(crate) map: SharedPieceMap,
    pub(crate) have: PieceSet,
    pub(crate) wanted: PieceSet,
    pub(crate) picker: Picker,
    pub(crate) pending: BTreeMap<u32, Pending>,
    /// Pieces here, wanted or not.
    pub(crate) have_count: u32,
    pub(crate) wanted_count: u32,
    pub(crate) wanted_bytes: u64,
    pub(crate) here_count: u32,
    pub(crate) here_bytes: u64,
    /// Got since peers were told last.
    pub(crate) news: Vec<u32>,
    pub(crate) news_since: Timestamp,
    /// Whether one of them is rare.
    pub(crate) news_urgent: bool,
    /// When peers were told last.
    pub(crate) news_told: Timestamp,
    /// Lost since peers were told last.
    pub(crate) losses: Vec<u32>,
}

impl Pieces {
    pub(crate) fn new(pieces: ContentPieces) -> Self {
        let len = pieces.map.len() as usize;
        let mut have = pieces.have;
        have.resize(len, false);
        let mut wanted = pieces.wanted.unwrap_or_else(|| pieces.map.all());
        wanted.resize(len, false);
        let mut new = Self {
            have_count: have.count_ones() as u32,
            map: pieces.map,
            have,
            wanted: PieceSet::new(),
            picker: Picker::new(len),
            pending: BTreeMap::new(),
            wanted_count: 0,
            wanted_bytes: 0,
            here_count: 0,
            here_bytes: 0,
            news: Vec::new(),
            news_since: Timestamp::ZERO,
            news_urgent: false,
            news_told: Timestamp::ZERO,
            losses: Vec::new(),
        };
        new.set_wanted(wanted);
        new
    }

    pub(crate) fn len(&self) -> u32 {
        self.map.len()
    }

    /// Bytes of a piece, which exists.
    pub(crate) fn piece_len(&self, piece: u32) -> u32 {
        self.map.index(piece).map_or(0, |index| self.map.leaf(index).len)
    }

    pub(crate) fn has(&self, piece: u32) -> bool {
        self.have[piece as usize]
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.here_count == self.wanted_count
    }

    pub(crate) fn set_wanted(&mut self, wanted: PieceSet) {
        self.wanted = wanted;
        (self.wanted_count, self.wanted_bytes, self.here_count, self.here_bytes) = (0, 0, 0, 0);
        for (index, leaf) in self.map.iter() {
            let (piece, i) = (index.get(), index.as_usize());
            let (wanted, here) = (self.wanted[i], self.have[i]);
            if wanted {
                self.wanted_count += 1;
                self.wanted_bytes += u64::from(leaf.len);
                self.here_count += u32::from(here);
                self.here_bytes += if here { u64::from(leaf.len) } else { 0 };
            }
            if wanted && !here && !self.pending.contains_key(&piece) {
                self.picker.insert(piece);
            } else {
                self.picker.remove(piece);
            }
        }
    }

    /// The piece is here now. Whether it was not before.
    pub(crate) fn gain(&mut self, now: Timestamp, piece: u32) -> bool {
        let i = piece as usize;
        if self.have[i] {
            return false;
        }
        self.have.set(i, true);
        self.have_count += 1;
        if self.wanted[i] {
            self.here_count += 1;
            self.here_bytes += u64::from(self.piece_len(piece));
        }
        self.picker.remove(piece);
        if self.news.is_empty() {
            self.news_since = now;
        }
        self.news.push(piece);
        true
    }

    /// The piece is here no longer. Whether it was before.
    pub(crate) fn lose(&mut self, piece: u32) -> bool {
        let i = piece as usize;
        if !self.have[i] {
            return false;
        }
        self.have.set(i, false);
        self.have_count -= 1;
        self.losses.push(piece);
        if self.wanted[i] {
            self.here_count -= 1;
            self.here_bytes -= u64::from(self.piece_len(piece));
            if !self.pending.contains_key(&piece) {
                self.picker.insert(piece);
            }
        }
        true
    }

    pub(crate) fn assign(&mut self, piece: u32, conn: ConnId) {
        self.picker.remove(piece);
        self.pending.entry(piece).or_default().assignees.push(conn);
    }

    /// `conn` is not to bring the piece any more. Whether it can be picked again by that.
    pub(crate) fn unassign(&mut self, piece: u32, conn: ConnId) -> bool {
        if let Some(pending) = self.pending.get_mut(&piece) {
            pending.assignees.retain(|c| *c != conn);
        }
        self.reconsider(piece)
    }

    /// `conn` has brought the piece whole; its verdict is awaited.
    pub(crate) fn begin_verifying(&mut self, piece: u32, conn: ConnId) {
        let pending = self.pending.entry(piece).or_default();
        pending.assignees.retain(|c| *c != conn);
        pending.verifying = pending.verifying.saturating_add(1);
        self.picker.remove(piece);
    }

    /// The verdict is there.
    pub(crate) fn end_verifying(&mut self, piece: u32) {
        if let Some(pending) = self.pending.get_mut(&piece) {
            pending.verifying = pending.verifying.saturating_sub(1);
        }
        self.reconsider(piece);
    }

    fn reconsider(&mut self, piece: u32) -> bool {
        let Some(pending) = self.pending.get(&piece) else {
            return false;
        };
        if !pending.assignees.is_empty() || pending.verifying > 0 {
            return false;
        }
        self.pending.remove(&piece);
        let open = self.wanted[piece as usize] && !self.have[piece as usize];
        if open {
            self.picker.insert(piece);
        }
        open
    }
}

/// One transfer.
#[derive(Clone, Debug)]
pub(crate) struct Transfer {
    pub(crate) content: Option<Cid>,
    pub(crate) packs: Vec<Cid>,
    pub(crate) related: Vec<Cid>,
    pub(crate) network: NetworkId,
    pub(crate) order: PickOrder,
    pub(crate) pieces: Option<Pieces>,
    /// Set while the pieces of a seeded content are not in memory: nobody asks for them.
    pub(crate) idle: Option<Idle>,
    /// Set while a sole seed's first copy goes out.
    pub(crate) spread: Option<Spread>,
    /// Everything has gone out once, or others have it.
    pub(crate) spread_over: bool,
    pub(crate) nodes: NodeFetch,
    /// The nodes of its skeleton, if they are few and known.
    pub(crate) skeleton: Option<Arc<[Cid]>>,
    pub(crate) share: Share,
    pub(crate) limits: OwnLimits,
    pub(crate) paused: bool,
    pub(crate) complete_told: bool,
    pub(crate) need_peers_told: Option<Timestamp>,
    pub(crate) nodes_forgiven: Timestamp,
    /// Sessions with peers that have everything.
    pub(crate) seeds: usize,
    pub(crate) bytes_fetched: u64,
    pub(crate) bytes_wasted: u64,
    pub(crate) bytes_corrupt: u64,
    pub(crate) bytes_skeleton: u64,
    pub(crate) bytes_served: u64,
    pub(crate) down: Meter,
    pub(crate) up: Meter,
    pub(crate) last_payload: Option<Timestamp>,
    peers: BTreeMap<PeerKey, u64>,
}

impl Transfer {
    pub(crate) fn new(network: NetworkId, order: PickOrder) -> Self {
        Self {
            content: None,
            packs: Vec::new(),
            related: Vec::new(),
            network,
            order,
            pieces: None,
            idle: None,
            spread: None,
            spread_over: false,
            nodes: NodeFetch::default(),
            skeleton: None,
            share: Share::default(),
            limits: OwnLimits::default(),
            paused: false,
            complete_told: false,
            need_peers_told: None,
            nodes_forgiven: Timestamp::ZERO,
            seeds: 0,
            bytes_fetched: 0,
            bytes_wasted: 0,
            bytes_corrupt: 0,
            bytes_skeleton: 0,
            bytes_served: 0,
            down: Meter::default(),
            up: Meter::default(),
            last_payload: None,
            peers: BTreeMap::new(),
        }
    }

    /// Whether anything is still to be fetched, now.
    pub(crate) fn is_fetching(&self) -> bool {
        self.wants() && !self.share.queued
    }

    /// Whether anything is still to be fetched, now or when its turn comes.
    pub(crate) fn wants(&self) -> bool {
        let missing = match &self.pieces {
            Some(pieces) => !pieces.is_complete(),
            None => self.idle.is_none(),
        };
        !self.paused && !self.share.stopped && (missing || !self.nodes.is_empty())
    }

    pub(crate) fn credit(&mut self, peer: PeerKey, bytes: u64) {
        if !self.peers.contains_key(&peer)
            && self.peers.len() >= MAX_PEERS_REMEMBERED
            && let Some(least) = self
                .peers
                .iter()
                .min_by_key(|(_, bytes)| **bytes)
                .map(|(peer, _)| *peer)
        {
            self.peers.remove(&least);
        }
        *self.peers.entry(peer).or_default() += bytes;
    }

    pub(crate) fn peers(&self) -> Vec<PeerBytes> {
        self.peers
            .iter()
            .map(|(peer, bytes)| PeerBytes {
                peer: *peer,
                bytes: *bytes,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_peers_are_remembered_and_the_least_goes() {
        let mut transfer = Transfer::new(NetworkId::PUBLIC, PickOrder::RarestFirst);
        for i in 0..=MAX_PEERS_REMEMBERED {
            transfer.credit(PeerKey::of(&i.to_le_bytes()), 100 + i as u64);
        }
        assert_eq!(transfer.peers().len(), MAX_PEERS_REMEMBERED);
        assert!(transfer.peers().iter().all(|peer| peer.bytes > 100));
    }
}
