//! The piece map: a content's distinct leaves, numbered.

use std::sync::Arc;

use bitvec::vec::BitVec;

use super::cid::Cid;

/// A set of pieces of one content: bit `i` is piece index `i`. Its length is the piece map's.
pub type PieceSet = BitVec<u64, bitvec::order::Lsb0>;

/// A position in a [`PieceMap`], made only by checking against one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceIndex(u32);

impl PieceIndex {
    /// The number, from 0.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The number as an index into slices.
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }
}

/// One leaf: its CID and its length in bytes (1 to [`super::MAX_BLOCK_LEN`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The leaf's CID; its codec is raw.
    pub cid: Cid,
    /// Bytes.
    pub len: u32,
}

/// A content's distinct leaves in order of first occurrence, depth first, links as stored, without the empty leaf.
///
/// Everyone who has the content's skeleton derives the same map, so that peers can speak of pieces by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PieceMap {
    leaves: Vec<Leaf>,
    bytes: u64,
}

/// A piece map shared between the engine, the store and the node.
pub type SharedPieceMap = Arc<PieceMap>;

impl PieceMap {
    /// The map with `leaves`, which the caller has made distinct.
    pub fn new(leaves: Vec<Leaf>) -> Self {
        let bytes = leaves.iter().map(|leaf| u64::from(leaf.len)).sum();
        Self { leaves, bytes }
    }

    /// Number of pieces.
    pub fn len(&self) -> u32 {
        self.leaves.len() as u32
    }

    /// Whether the content has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// Bytes of all distinct leaves together.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// `index` as a piece index, if there is such a piece.
    pub fn index(&self, index: u32) -> Option<PieceIndex> {
        (index < self.len()).then_some(PieceIndex(index))
    }

    /// The leaf at `index`.
    ///
    /// # Panics
    /// If `index` was made by a larger map.
    pub fn leaf(&self, index: PieceIndex) -> Leaf {
        self.leaves[index.as_usize()]
    }

    /// All leaves with their indices, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (PieceIndex, Leaf)> + '_ {
        self.leaves
            .iter()
            .enumerate()
            .map(|(i, leaf)| (PieceIndex(i as u32), *leaf))
    }

    /// The pieces by their CIDs.
    pub fn by_cid(&self) -> ByCid<'_> {
        let mut order: Vec<u32> = (0..self.len()).collect();
        order.sort_unstable_by_key(|piece| self.leaves[*piece as usize].cid);
        ByCid { map: self, order }
    }

    /// The empty set over this map.
    pub fn none(&self) -> PieceSet {
        PieceSet::repeat(false, self.leaves.len())
    }

    /// The full set over this map.
    pub fn all(&self) -> PieceSet {
        PieceSet::repeat(true, self.leaves.len())
    }
}

/// Finds pieces of a map by their CIDs. Four bytes a piece.
#[derive(Clone, Debug)]
pub struct ByCid<'a> {
    map: &'a PieceMap,
    order: Vec<u32>,
}

impl ByCid<'_> {
    /// The piece with this CID, if there is one.
    pub fn find(&self, cid: &Cid) -> Option<PieceIndex> {
        let leaves = &self.map.leaves;
        let at = self
            .order
            .binary_search_by_key(cid, |piece| leaves[*piece as usize].cid);
        at.ok().map(|at| PieceIndex(self.order[at]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Codec, HashKind};

    #[test]
    fn pieces_are_found_by_their_cids() {
        let cid = |n: u32| Cid::of(Codec::Raw, HashKind::Blake3, &n.to_le_bytes());
        let map = PieceMap::new((0..1000).map(|n| Leaf { cid: cid(n), len: 4 }).collect());
        let by_cid = map.by_cid();
        for n in [0, 1, 17, 500, 999] {
            assert_eq!(by_cid.find(&cid(n)).map(PieceIndex::get), Some(n));
        }
        assert_eq!(by_cid.find(&cid(1000)), None);
        assert_eq!(PieceMap::default().by_cid().find(&cid(0)), None);
    }
}
