//! How rare the pieces are that can be picked: a bucket for each availability, which counts pieces by stretches of the content instead of listing them.

use super::rng::Rng;
use super::session::Source;
use crate::format::PieceSet;

/// Pieces of a stretch…
const STRETCH: usize = WORDS * 64;
/// …and the words of a bit set that hold them.
const WORDS: usize = 2;
/// Counts that are added up at once.
const BLOCK: usize = 64;
/// Pieces and stretches, those without any a block at a time, that one pick looks at before it takes any piece.
const MAX_LOOKS: usize = 4096;

/// The pieces of one availability, counted.
#[derive(Clone, Debug, Default)]
struct Bucket {
    total: u32,
    /// By stretch; empty before the first.
    counts: Vec<u16>,
}

/// See the module. Two bytes for each stretch and availability, and a bit a piece.
#[derive(Clone, Debug)]
pub(crate) struct Ranks {
    /// By availability.
    buckets: Vec<Bucket>,
    /// The pieces that can be picked.
    pickable: PieceSet,
}

impl Ranks {
    /// Of `pieces` pieces, none of which can be picked.
    pub(crate) fn new(pieces: usize) -> Self {
        Self {
            buckets: Vec::new(),
            pickable: PieceSet::repeat(false, pieces),
        }
    }

    pub(crate) fn contains(&self, piece: u32) -> bool {
        self.pickable[piece as usize]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.pickable.iter_ones().map(|piece| piece as u32)
    }

    /// The piece, of so many peers, can be picked from now on; it could not before.
    pub(crate) fn insert(&mut self, piece: u32, availability: u16) {
        self.pickable.set(piece as usize, true);
        self.count(piece, availability, 1);
    }

    /// The piece, of so many peers, cannot be picked any more; it could before.
    pub(crate) fn remove(&mut self, piece: u32, availability: u16) {
        self.pickable.set(piece as usize, false);
        self.count(piece, availability, -1);
    }

    /// The piece, which can be picked, has another availability.
    pub(crate) fn change(&mut self, piece: u32, from: u16, to: u16) {
        self.count(piece, from, -1);
        self.count(piece, to, 1);
    }

    fn count(&mut self, piece: u32, availability: u16, by: i16) {
        let rank = usize::from(availability);
        if self.buckets.len() <= rank {
            self.buckets.resize_with(rank + 1, Bucket::default);
        }
        let bucket = &mut self.buckets[rank];
        if bucket.counts.is_empty() {
            bucket.counts = vec![0; self.pickable.len().div_ceil(STRETCH)];
        }
        let count = &mut bucket.counts[piece as usize / STRETCH];
        *count = count.wrapping_add_signed(by);
        bucket.total = bucket.total.wrapping_add_signed(by.into());
    }

    /// A piece that `source` has, of those that the fewest have; ties by lot.
    pub(crate) fn rarest(&self, availability: &[u16], source: &Source, rng: &mut Rng) -> Option<u32> {
        if matches!(source, Source::Nothing | Source::Unknown { .. }) {
            return None;
        }
        let mut looks = MAX_LOOKS;
        for (number, bucket) in self.buckets.iter().enumerate().filter(|(_, bucket)| bucket.total > 0) {
            let of_bucket = |piece: u32| usize::from(availability[piece as usize]) == number;
            let (stretch, before) = bucket.find(rng.below(bucket.total as usize) as u32);
            let from = self
                .within(stretch, &Source::All)
                .filter(|piece| of_bucket(*piece))
                .nth(before)?;
            let counts = &bucket.counts;
            // From where the lot fell to the end, and from the beginning to there.
            for (around, (mut at, end)) in [(false, (stretch, counts.len())), (true, (0, stretch + 1))] {
                while let Some(empty) = counts[at..end].iter().position(|count| *count > 0) {
                    at += empty;
                    looks = looks.saturating_sub(1 + empty / BLOCK);
                    for piece in self.within(at, source) {
                        if (around || piece >= from) && of_bucket(piece) {
                            return Some(piece);
                        }
                        looks = looks.saturating_sub(1);
                    }
                    if looks == 0 {
                        return self.any(source, rng);
                    }
                    at += 1;
                }
                looks = looks.saturating_sub((end - at) / BLOCK);
            }
        }
        None
    }

    /// A piece that `source` has, however rare: the next from a place chosen by lot.
    pub(crate) fn any(&self, source: &Source, rng: &mut Rng) -> Option<u32> {
        let words = self.pickable.as_raw_slice().len();
        let from = rng.below(words.max(1));
        self.find(source, from, words).or_else(|| self.find(source, 0, from))
    }

    /// The first piece that `source` has.
    pub(crate) fn first(&self, source: &Source) -> Option<u32> {
        self.find(source, 0, self.pickable.as_raw_slice().len())
    }

    /// The pieces of one availability, in order.
    pub(crate) fn of(&self, availability: &[u16], number: u16) -> impl Iterator<Item = u32> {
        let counts = self
            .buckets
            .get(usize::from(number))
            .map_or(&[][..], |bucket| &bucket.counts);
        let stretches = counts.iter().enumerate().filter(|(_, count)| **count > 0);
        stretches
            .flat_map(|(stretch, _)| self.within(stretch, &Source::All))
            .filter(move |piece| availability[*piece as usize] == number)
    }

    /// The pieces of a stretch that `source` has, in order.
    fn within<'a>(&'a self, stretch: usize, source: &'a Source) -> impl Iterator<Item = u32> + 'a {
        let words = self.pickable.as_raw_slice();
        let first = stretch * WORDS;
        (first..words.len().min(first + WORDS)).flat_map(move |at| {
            let word = match source {
                Source::All => words[at],
                Source::Map(have) => words[at] & have.as_raw_slice()[at],
                Source::Nothing | Source::Unknown { .. } => 0,
            };
            ones(word).map(move |bit| (at * 64) as u32 + bit)
        })
    }

    /// The first piece that `source` has, from one word to another.
    fn find(&self, source: &Source, from: usize, to: usize) -> Option<u32> {
        let pickable = &self.pickable.as_raw_slice()[from..to];
        let hit = |i: usize, word: u64| Some(((from + i) * 64) as u32 + word.trailing_zeros());
        match source {
            Source::All => pickable
                .iter()
                .enumerate()
                .find(|(_, word)| **word != 0)
                .and_then(|(i, word)| hit(i, *word)),
            Source::Map(have) => {
                let have = &have.as_raw_slice()[from..to];
                let both = pickable.iter().zip(have).map(|(a, b)| a & b);
                both.enumerate()
                    .find(|(_, word)| *word != 0)
                    .and_then(|(i, word)| hit(i, word))
            }
            Source::Nothing | Source::Unknown { .. } => None,
        }
    }
}

impl Bucket {
    /// The stretch in which the `nth` of these pieces lies, and how many of them lie before it there.
    fn find(&self, mut nth: u32) -> (usize, usize) {
        let mut at = 0;
        for block in self.counts.chunks(BLOCK) {
            let sum = block.iter().map(|count| u32::from(*count)).sum();
            if nth < sum {
                break;
            }
            nth -= sum;
            at += block.len();
        }
        while let Some(count) = self.counts.get(at).filter(|count| u32::from(**count) <= nth) {
            nth -= u32::from(*count);
            at += 1;
        }
        (at, nth as usize)
    }
}

/// The numbers of the bits that are set, in order.
fn ones(mut word: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = word.trailing_zeros();
        (word != 0).then(|| {
            word &= word - 1;
            bit
        })
    })
}
