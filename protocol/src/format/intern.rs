//! Numbering leaves: the same leaf gets the same number, however hostile the digests are.
//!
//! Digests in a skeleton need not be the hash of anything, so that an author could pick them to collide in a hash table. The tables
//! here are keyed by the root's CID, which depends on every digest below it, and so cannot be aimed at.

use std::hash::{BuildHasher, DefaultHasher, Hasher};

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

/// Numbers leaves. Five to six bytes a leaf beside the leaves themselves.
#[derive(Debug)]
pub(super) struct Interner {
    leaves: Vec<Leaf>,
    /// By the first bits of a leaf's hash.
    tables: Vec<Table>,
    state: KeyedState,
}

impl Interner {
    pub(super) fn new(root: &Cid) -> Self {
        Self {
            leaves: Vec::new(),
            tables: vec![Table::default(); TABLES],
            state: KeyedState::new(root),
        }
    }

    /// The number of `leaf`, a new one if it was not seen before.
    ///
    /// # Errors
    /// The other length, if it was seen with another.
    pub(super) fn intern(&mut self, leaf: Leaf) -> Result<u32, u32> {
        let Self { leaves, tables, state } = self;
        let hash = |cid: &Cid| {
            let mut hasher = state.build_hasher();
            hasher.write(cid.digest());
            hasher.finish()
        };
        let of_leaf = hash(&leaf.cid);
        let table = &mut tables[(of_leaf >> 32) as usize % TABLES];
        match table.find(of_leaf, |number| leaves[number as usize].cid == leaf.cid) {
            Some(number) => {
                let len = leaves[number as usize].len;
                if len == leaf.len { Ok(number) } else { Err(len) }
            }
            None => {
                let number = leaves.len() as u32;
                leaves.push(leaf);
                table.insert(number, |number| hash(&leaves[number as usize].cid));
                Ok(number)
            }
        }
    }

    /// The leaves by number.
    pub(super) fn into_leaves(self) -> Vec<Leaf> {
        self.leaves
    }
}

/// So many tables grow one at a time: what one of them takes while it grows is little of all.
const TABLES: usize = 64;
/// An empty slot.
const EMPTY: u32 = u32::MAX;

/// Numbers by hash, with open addressing: those of a library take up to two and a half times as much, and double, which for millions of leaves is what a reader's memory peaks at.
#[derive(Clone, Debug, Default)]
struct Table {
    slots: Vec<u32>,
    len: usize,
}

impl Table {
    /// The number with this hash that `is_it`.
    fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        self.from(hash)
            .take_while(|number| *number != EMPTY)
            .find(|number| is_it(*number))
    }

    /// Puts in a number that is not in it. `hash` gives that of any number in it, and of this one.
    fn insert(&mut self, number: u32, hash: impl Fn(u32) -> u64) {
        // A fifth stays empty.
        if (self.len + 1) * 5 > self.slots.len() * 4 {
            let larger = vec![EMPTY; self.slots.len() / 4 * 5 + 8];
            let numbers = std::mem::replace(&mut self.slots, larger);
            for number in numbers.into_iter().filter(|number| *number != EMPTY) {
                self.put(number, hash(number));
            }
        }
        self.put(number, hash(number));
        self.len += 1;
    }

    fn put(&mut self, number: u32, hash: u64) {
        let start = self.start(hash);
        let (before, after) = self.slots.split_at_mut(start);
        let slot = after.iter_mut().chain(before).find(|slot| **slot == EMPTY);
        *slot.expect("a fifth of the slots is empty") = number;
    }

    /// The slots from that of a hash on, around.
    fn from(&self, hash: u64) -> impl Iterator<Item = u32> {
        let (before, after) = self.slots.split_at(self.start(hash));
        after.iter().chain(before).copied()
    }

    fn start(&self, hash: u64) -> usize {
        (((hash & u64::from(u32::MAX)) * self.slots.len() as u64) >> 32) as usize
    }
}

/// The piece that each leaf is, by number. It lies in many blocks, for which the heap has room where the tables of an [`Interner`] were.
#[derive(Debug)]
pub(super) struct Pieces {
    blocks: Vec<Box<[u32]>>,
    len: usize,
}

impl Pieces {
    /// Numbers of a block.
    const BLOCK: usize = 1 << 15;

    /// Of `len` leaves, all of which are [`UNSEEN`].
    pub(super) fn new(len: usize) -> Self {
        let starts = (0..len).step_by(Self::BLOCK);
        Self {
            blocks: starts
                .map(|start| vec![UNSEEN; Self::BLOCK.min(len - start)].into())
                .collect(),
            len,
        }
    }

    pub(super) fn of(&mut self, number: u32) -> &mut u32 {
        let number = number as usize;
        &mut self.blocks[number / Self::BLOCK][number % Self::BLOCK]
    }
}

/// The map in which each leaf is the piece that `pieces` gives for its number, without those that are [`UNSEEN`]. The pieces that are given are all from
/// 0, each once. Takes no memory of the map's size.
pub(super) fn map_of(mut leaves: Vec<Leaf>, mut pieces: Pieces) -> PieceMap {
    assert_eq!(leaves.len(), pieces.len, "there is one for each leaf");
    let all = || pieces.blocks.iter().flatten();
    let seen = all().filter(|piece| **piece != UNSEEN).count();
    let unseen = pieces.blocks.iter_mut().flatten().filter(|piece| **piece == UNSEEN);
    unseen.zip(seen as u32..).for_each(|(piece, last)| *piece = last);
    for at in 0..leaves.len() as u32 {
        // Each swap brings one leaf to its place.
        loop {
            let to = *pieces.of(at);
            if to == at {
                break;
            }
            leaves.swap(at as usize, to as usize);
            let its = std::mem::replace(pieces.of(to), to);
            *pieces.of(at) = its;
        }
    }
    leaves.truncate(seen);
    leaves.shrink_to_fit();
    PieceMap::new(leaves)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::format::{Codec, HashKind};

    proptest! {
        #[test]
        fn the_same_leaf_gets_the_same_number(leaves in vec((0..300_u16, any::<bool>()), 0..2000)) {
            let root = Cid::of(Codec::Raw, HashKind::Blake3, b"root");
            let mut interner = Interner::new(&root);
            let mut model: HashMap<u16, (u32, u32)> = HashMap::new();
            for (leaf, lies) in leaves {
                let cid = Cid::of(Codec::Raw, HashKind::Blake3, &leaf.to_le_bytes());
                let len = if lies { 3 } else { 2 };
                let next = model.len() as u32;
                let (number, known) = *model.entry(leaf).or_insert((next, len));
                let expected = if known == len { Ok(number) } else { Err(known) };
                prop_assert_eq!(interner.intern(Leaf { cid, len }), expected);
            }
            prop_assert_eq!(interner.into_leaves().len(), model.len());
        }
    }

    #[test]
    fn leaves_are_sorted_by_piece_and_those_of_no_file_are_left_out() {
        let leaf = |number: u32| Leaf {
            cid: Cid::of(Codec::Raw, HashKind::Blake3, &number.to_le_bytes()),
            len: 4,
        };
        let count = 2 * Pieces::BLOCK as u32 + 5;
        let mut pieces = Pieces::new(count as usize);
        // Every third is in no file, and the others come last to first.
        let seen: Vec<u32> = (0..count).rev().filter(|number| number % 3 != 0).collect();
        for (piece, number) in (0..).zip(&seen) {
            *pieces.of(*number) = piece;
        }
        let map = map_of((0..count).map(leaf).collect(), pieces);
        assert_eq!(map.len() as usize, seen.len());
        for (piece, number) in (0..).zip(seen) {
            assert_eq!(map.leaf(map.index(piece).expect("it is one")), leaf(number));
        }
    }

    #[test]
    fn many_leaves_take_little_beside_themselves() {
        let root = Cid::of(Codec::Raw, HashKind::Blake3, b"root");
        let mut interner = Interner::new(&root);
        for number in 0..200_000_u32 {
            let cid = Cid::of(Codec::Raw, HashKind::Blake3, &number.to_le_bytes());
            assert_eq!(interner.intern(Leaf { cid, len: 4 }), Ok(number));
        }
        let slots: usize = interner.tables.iter().map(|table| table.slots.capacity()).sum();
        assert!((250_000..330_000).contains(&slots), "{slots} slots of four bytes");
    }
}
