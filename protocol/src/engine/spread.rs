//! A sole seed's first copy: every piece goes out once before any goes out twice.
//!
//! While nobody else has everything, a seed's uplink is what the whole swarm waits for, and a piece that it sends twice is a piece that the others could
//! have passed on. So it *offers* each leecher pieces of its own, a little more than are under way, and leechers ask it for no others. That a piece has
//! spread is learned from the leechers' have-messages. Once all have gone out, everyone may ask for anything.
//!
//! This file keeps the account of one content; [`super::offers`] says when and to whom.

use std::collections::BTreeMap;

use super::ids::ConnId;
use crate::format::PieceSet;

/// What became of each piece while the first copy goes out.
#[derive(Clone, Debug)]
pub(crate) struct Spread {
    /// Pieces that were offered, sent or seen elsewhere.
    out: PieceSet,
    /// Pieces that were not.
    left: usize,
    /// Where the next offer is looked for: each begins where the last one ended.
    cursor: usize,
    /// Pieces that were offered and have not gone out, and to whom.
    offered: BTreeMap<u32, ConnId>,
}

impl Spread {
    /// An account of `pieces` pieces, `from` one of which the first offer begins.
    pub(crate) fn new(pieces: u32, from: u32) -> Self {
        Self {
            out: PieceSet::repeat(false, pieces as usize),
            left: pieces as usize,
            cursor: from as usize,
            offered: BTreeMap::new(),
        }
    }

    /// Whether every piece has gone out, or is with others.
    pub(crate) fn is_over(&self) -> bool {
        self.left == 0 && self.offered.is_empty()
    }

    /// Offers `conn` the next pieces: the longest stretch from where the last offer ended, up to `max` and not past what was out before.
    pub(crate) fn offer(&mut self, conn: ConnId, mut max: impl FnMut(u32) -> bool) -> Vec<u32> {
        let mut offered = Vec::new();
        while self.left > 0 {
            let next = self.out[self.cursor..].first_zero().map(|i| self.cursor + i);
            let Some(next) = next.or_else(|| self.out.first_zero()) else {
                break;
            };
            if !max(next as u32) {
                break;
            }
            self.out.set(next, true);
            self.left -= 1;
            self.cursor = next + 1;
            self.offered.insert(next as u32, conn);
            offered.push(next as u32);
        }
        offered
    }

    /// Somebody else has the piece. Whether that ends an offer.
    pub(crate) fn on_seen(&mut self, piece: u32) -> Option<ConnId> {
        self.on_sent(piece)
    }

    /// The piece has gone out. To whom it had been offered, if it was.
    pub(crate) fn on_sent(&mut self, piece: u32) -> Option<ConnId> {
        if !self.out[piece as usize] {
            self.out.set(piece as usize, true);
            self.left -= 1;
        }
        self.offered.remove(&piece)
    }

    /// `conn` will not take what it was offered: others are offered it.
    pub(crate) fn withdraw(&mut self, conn: ConnId) {
        let pieces: Vec<u32> = self.offered.iter().filter(|(_, to)| **to == conn).map(|(piece, _)| *piece).collect();
        for piece in pieces {
            self.offered.remove(&piece);
            self.out.set(piece as usize, false);
            self.left += 1;
        }
    }
}
