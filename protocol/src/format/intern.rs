//! Numbering leaves: the same leaf gets the same number, however hostile the digests are.
//!
//! Digests in a skeleton need not be the hash of anything, so that an author could pick them to collide in a hash table. The tables
//! here are keyed by the root's CID, which depends on every digest below it, and so cannot be aimed at.

use std::hash::{BuildHasher, DefaultHasher, Hasher};

use hashbrown::{HashTable, hash_table::Entry};

use super::{
    cid::Cid,
    pieces::{Leaf, PieceMap},
};

/// Stands for the piece of a leaf that is none.
pub(super) const UNSEEN: u32 = u32::MAX;

/// Hashes differently for each root, and the same in each run.
#[derive(Clone, Debug)]
pub(super) struct KeyedState(DefaultHasher);

impl KeyedState {
    pub(super) fn new(root: &Cid) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(&root.to_bytes());
        Self(hasher)
    }
}

impl BuildHasher for KeyedState {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        self.0.clone()
    }
}

/// Makes a piece map. Four bytes a leaf beside the leaves themselves.
#[derive(Debug)]
pub(super) struct Interner {
    leaves: Vec<Leaf>,
    table: HashTable<u32>,
    state: KeyedState,
}

impl Interner {
    pub(super) fn new(root: &Cid) -> Self {
        Self {
            leaves: Vec::new(),
            table: HashTable::new(),
            state: KeyedState::new(root),
        }
    }

    /// The number of `leaf`, a new one if it was not seen before.
    ///
    /// # Errors
    /// The other length, if it was seen with another.
    pub(super) fn intern(&mut self, leaf: Leaf) -> Result<u32, u32> {
        let Self { leaves, table, state } = self;
        let hash = |cid: &Cid| {
            let mut hasher = state.build_hasher();
            hasher.write(cid.digest());
            hasher.finish()
        };
        let found = table.entry(
            hash(&leaf.cid),
            |&index| leaves[index as usize].cid == leaf.cid,
            |&index| hash(&leaves[index as usize].cid),
        );
        match found {
            Entry::Occupied(found) => {
                let index = *found.get();
                let len = leaves[index as usize].len;
                if len == leaf.len { Ok(index) } else { Err(len) }
            }
            Entry::Vacant(place) => {
                let index = leaves.len() as u32;
                place.insert(index);
                leaves.push(leaf);
                Ok(index)
            }
        }
    }

    /// Number of leaves.
    pub(super) fn len(&self) -> usize {
        self.leaves.len()
    }

    /// The map in which each leaf is the piece that `pieces` gives for its number, without those that are [`UNSEEN`]. The pieces that are given are all from
    /// 0, each once. Takes no memory of the map's size.
    pub(super) fn into_map_of(self, mut pieces: Vec<u32>) -> PieceMap {
        let Self { mut leaves, table, .. } = self;
        drop(table);
        let seen = pieces.iter().filter(|piece| **piece != UNSEEN).count();
        let unseen = pieces.iter_mut().filter(|piece| **piece == UNSEEN);
        unseen.zip(seen as u32..).for_each(|(piece, last)| *piece = last);
        for at in 0..leaves.len() {
            // Each swap brings one leaf to its place.
            while pieces[at] as usize != at {
                let to = pieces[at] as usize;
                leaves.swap(at, to);
                pieces.swap(at, to);
            }
        }
        leaves.truncate(seen);
        leaves.shrink_to_fit();
        PieceMap::new(leaves)
    }
}
