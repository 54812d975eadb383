//! Numbering blocks: the same block gets the same number, however hostile the digests are.
//!
//! Digests in a skeleton need not be the hash of anything, so that an author could pick them to collide in a hash table. The hash
//! here is keyed by the root's CID, which depends on every digest below it, and so cannot be aimed at.

use std::hash::{BuildHasher, DefaultHasher, Hasher};

use super::{
    cid::{Cid, Codec, HashKind},
    pieces::{Leaf, PieceMap},
};

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

/// Numbers blocks of one codec as they come. Half a byte to a byte a block beside what it is known by: what links those of one bucket lies where a leaf in a
/// [`PieceMap`] has room to spare.
#[derive(Debug)]
pub(super) struct Interner {
    codec: Codec,
    rows: Vec<Row>,
    /// The last block of each bucket, or [`NONE`].
    buckets: Vec<u32>,
    state: KeyedState,
}

/// Stands for no number.
const NONE: u32 = u32::MAX;
/// As many blocks as a bucket has before there are twice as many buckets, which are looked through one after another.
const PER_BUCKET: usize = 8;

/// A block, as large as a [`Leaf`].
#[derive(Clone, Copy, Debug)]
struct Row {
    digest: [u8; 32],
    /// Its length, with [`SHA2`] for that hash.
    len_and_hash: u32,
    /// In an [`Interner`] the block before it in its bucket, in [`Pieces`] the piece that it is; or [`NONE`].
    link: u32,
}

/// Set in `Row::len_and_hash`.
const SHA2: u32 = 1 << 31;

impl Row {
    fn new(cid: &Cid, len: u32, link: u32) -> Self {
        let hash = match cid.hash() {
            HashKind::Blake3 => 0,
            HashKind::Sha2_256 => SHA2,
        };
        Self {
            digest: *cid.digest(),
            len_and_hash: hash | len,
            link,
        }
    }

    fn is(&self, cid: &Cid) -> bool {
        self.digest == *cid.digest() && self.hash() == cid.hash()
    }

    fn hash(&self) -> HashKind {
        match self.len_and_hash & SHA2 {
            0 => HashKind::Blake3,
            _ => HashKind::Sha2_256,
        }
    }

    fn len(&self) -> u32 {
        self.len_and_hash & !SHA2
    }

    fn cid(&self, codec: Codec) -> Cid {
        Cid::new(codec, self.hash(), self.digest)
    }
}

impl Interner {
    /// `codec` is that of all blocks, `root` what the hash is keyed by.
    pub(super) fn new(root: &Cid, codec: Codec) -> Self {
        Self {
            codec,
            rows: Vec::new(),
            buckets: Vec::new(),
            state: KeyedState::new(root),
        }
    }

    /// The number of `leaf`, a new one if it was not seen before.
    ///
    /// # Errors
    /// The other length, if it was seen with another.
    pub(super) fn intern(&mut self, leaf: Leaf) -> Result<u32, u32> {
        let number = self.number(&leaf.cid, leaf.len);
        match self.block_len(number) {
            len if len == leaf.len => Ok(number),
            len => Err(len),
        }
    }

    /// The number of `cid`. If it was not seen before it gets the next one, and this length.
    pub(super) fn number(&mut self, cid: &Cid, len: u32) -> u32 {
        if let Some(number) = self.find(cid) {
            return number;
        }
        if self.rows.len() == self.buckets.len() * PER_BUCKET {
            self.grow();
        }
        let bucket = self.bucket(cid.digest());
        let number = self.rows.len() as u32;
        let before = std::mem::replace(&mut self.buckets[bucket], number);
        self.rows.push(Row::new(cid, len, before));
        number
    }

    /// The number of `cid`, if it has one.
    pub(super) fn find(&self, cid: &Cid) -> Option<u32> {
        debug_assert_eq!(cid.codec(), self.codec);
        if self.buckets.is_empty() {
            return None;
        }
        let mut next = self.buckets[self.bucket(cid.digest())];
        while let Some(row) = self.rows.get(next as usize) {
            if row.is(cid) {
                return Some(next);
            }
            next = row.link;
        }
        None
    }

    /// What has this number.
    pub(super) fn cid(&self, number: u32) -> Cid {
        self.rows[number as usize].cid(self.codec)
    }

    /// The length that it was given.
    pub(super) fn block_len(&self, number: u32) -> u32 {
        self.rows[number as usize].len()
    }

    /// Gives it another.
    pub(super) fn set_block_len(&mut self, number: u32, len: u32) {
        let row = &mut self.rows[number as usize];
        row.len_and_hash = (row.len_and_hash & SHA2) | len;
    }

    /// How many have a number.
    pub(super) fn count(&self) -> usize {
        self.rows.len()
    }

    /// The blocks, none of which is a piece yet.
    pub(super) fn into_pieces(self) -> Pieces {
        let Self { codec, mut rows, .. } = self;
        rows.iter_mut().for_each(|row| row.link = NONE);
        Pieces { codec, rows, count: 0 }
    }

    fn grow(&mut self) {
        let buckets = (self.buckets.len() * 2).max(64);
        // Before there are new ones.
        self.buckets = Vec::new();
        self.buckets.resize(buckets, NONE);
        for number in 0..self.rows.len() {
            let bucket = self.bucket(&self.rows[number].digest);
            self.rows[number].link = std::mem::replace(&mut self.buckets[bucket], number as u32);
        }
    }

    fn bucket(&self, digest: &[u8; 32]) -> usize {
        let mut hasher = self.state.build_hasher();
        hasher.write(digest);
        (((hasher.finish() & u64::from(u32::MAX)) * self.buckets.len() as u64) >> 32) as usize
    }
}

/// Blocks by the numbers that an [`Interner`] gave them, some of which are given others: leaves that are pieces, nodes that are part of a content.
#[derive(Debug)]
pub(super) struct Pieces {
    codec: Codec,
    rows: Vec<Row>,
    count: u32,
}

impl Pieces {
    /// What has this number.
    pub(super) fn cid(&self, number: u32) -> Cid {
        self.rows[number as usize].cid(self.codec)
    }

    /// The piece that a block is: the next one, if it was none.
    pub(super) fn piece(&mut self, number: u32) -> u32 {
        let piece = &mut self.rows[number as usize].link;
        if *piece == NONE {
            *piece = self.count;
            self.count += 1;
        }
        *piece
    }

    /// The map of those that are pieces.
    pub(super) fn into_map(self) -> PieceMap {
        PieceMap::new(self.into_blocks(|cid, len| Leaf { cid, len }))
    }

    /// Those that are pieces, in their order, in the memory that they are in if what is made of each is as large as a [`Leaf`].
    pub(super) fn into_blocks<T>(self, make: impl Fn(Cid, u32) -> T) -> Vec<T> {
        let Self { codec, mut rows, count } = self;
        let others = rows.iter_mut().filter(|row| row.link == NONE);
        others.zip(count..).for_each(|(row, last)| row.link = last);
        for at in 0..rows.len() {
            // Each swap brings one leaf to its place.
            while rows[at].link as usize != at {
                let to = rows[at].link as usize;
                rows.swap(at, to);
            }
        }
        rows.truncate(count as usize);
        // The standard library collects into the same memory what is as large.
        let blocks = rows.into_iter().map(|row| make(row.cid(codec), row.len()));
        let mut blocks: Vec<T> = blocks.collect();
        blocks.shrink_to_fit();
        blocks
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn cid(number: u32) -> Cid {
        let hash = if number.is_multiple_of(5) {
            HashKind::Sha2_256
        } else {
            HashKind::Blake3
        };
        Cid::of(Codec::Raw, hash, &number.to_le_bytes())
    }

    fn leaf(number: u32) -> Leaf {
        Leaf {
            cid: cid(number),
            len: 4,
        }
    }

    proptest! {
        #[test]
        fn the_same_leaf_gets_the_same_number(leaves in vec((0..300_u32, any::<bool>()), 0..2000)) {
            let mut interner = Interner::new(&cid(1000), Codec::Raw);
            let mut model: HashMap<u32, (u32, u32)> = HashMap::new();
            for (leaf, lies) in leaves {
                let len = if lies { 3 } else { 2 };
                let next = model.len() as u32;
                let (number, known) = *model.entry(leaf).or_insert((next, len));
                let expected = if known == len { Ok(number) } else { Err(known) };
                prop_assert_eq!(interner.intern(Leaf { cid: cid(leaf), len }), expected);
            }
            prop_assert_eq!(interner.rows.len(), model.len());
        }
    }

    #[test]
    fn a_digest_of_another_hash_is_another_leaf() {
        let [blake3, sha2] = [HashKind::Blake3, HashKind::Sha2_256].map(|hash| Leaf {
            cid: Cid::new(Codec::Raw, hash, [7; 32]),
            len: 1,
        });
        let mut interner = Interner::new(&cid(1), Codec::Raw);
        assert_eq!(
            [blake3, sha2, blake3].map(|leaf| interner.intern(leaf)),
            [Ok(0), Ok(1), Ok(0)]
        );
    }

    #[test]
    fn leaves_are_sorted_by_piece_and_those_of_no_file_are_left_out() {
        let count = 70_000;
        let mut interner = Interner::new(&cid(count), Codec::Raw);
        for number in 0..count {
            assert_eq!(interner.intern(leaf(number)), Ok(number));
        }
        let mut pieces = interner.into_pieces();
        // Every third is in no file, and the others come last to first, twice.
        let seen: Vec<u32> = (0..count).rev().filter(|number| number % 3 != 0).collect();
        for _ in 0..2 {
            for (piece, number) in (0..).zip(&seen) {
                assert_eq!(pieces.piece(*number), piece);
            }
        }
        let map = pieces.into_map();
        assert_eq!(map.len() as usize, seen.len());
        for (piece, number) in (0..).zip(seen) {
            assert_eq!(map.leaf(map.index(piece).expect("it is one")), leaf(number));
        }
    }

    #[test]
    fn many_leaves_take_little_beside_themselves() {
        assert_eq!(size_of::<Row>(), size_of::<Leaf>());
        let mut interner = Interner::new(&cid(0), Codec::Raw);
        for number in 0..200_000 {
            assert_eq!(interner.intern(leaf(number)), Ok(number));
        }
        let buckets = interner.buckets.capacity();
        assert!((25_000..50_001).contains(&buckets), "{buckets} buckets of four bytes");
        let mut pieces = interner.into_pieces();
        (0..200_000).for_each(|number| assert_eq!(pieces.piece(number), number));
        pieces.rows.shrink_to_fit();
        let before = pieces.rows.as_ptr();
        assert!(
            std::ptr::eq(pieces.into_blocks(|cid, len| Leaf { cid, len }).as_ptr().cast(), before),
            "the leaves were copied"
        );
    }
}
