//! Which piece next: those that are wanted, not here and not on request, by how many peers have them.
//!
//! Pieces lie in one bucket per availability, in no order; a piece knows its place in its bucket, so that every change is a
//! swap. Peers that have everything are not counted piece by piece: they change no piece's rank. Built for millions of pieces: a
//! pick looks at a bounded number of bucket entries before it falls back on the words of two bit sets.

use std::collections::VecDeque;

use super::bucket::Bucket;
use super::rng::Rng;
use super::session::Source;
use crate::format::PieceSet;

/// The place of a piece that is in no bucket.
const NOWHERE: u32 = u32::MAX;
/// Bucket entries that one pick looks at before it falls back on the bit sets.
const MAX_LOOKS: usize = 256;
/// Pieces that came back lately, which are looked at one by one before all are.
const MAX_RETURNED: usize = 256;

/// Pieces that go before all others.
#[derive(Clone, Debug)]
struct First {
    pieces: PieceSet,
    /// As [`Picker::buckets`].
    buckets: Vec<Bucket>,
    /// Those of them that can be picked.
    pickable: PieceSet,
}

/// The pieces of one transfer that could be requested.
#[derive(Clone, Debug)]
pub(crate) struct Picker {
    /// By piece: how many peers that do not have everything have it.
    availability: Vec<u16>,
    /// By piece: its index in its bucket.
    place: Vec<u32>,
    /// By availability: the pieces that can be picked, without those of `first`.
    buckets: Vec<Bucket>,
    /// Pieces that go before all others; none: there are no such.
    first: Option<First>,
    /// The pieces in any bucket.
    pickable: PieceSet,
    count: usize,
    /// Raised whenever a piece comes back: whoever found nothing may look again.
    epoch: u64,
    /// The pieces that came back last, one for each step of the epoch.
    returned: VecDeque<u32>,
}

impl Picker {
    /// A picker over `pieces` pieces, none of which can be picked yet.
    pub(crate) fn new(pieces: usize) -> Self {
        Self {
            availability: vec![0; pieces],
            place: vec![NOWHERE; pieces],
            buckets: vec![Bucket::default()],
            first: None,
            pickable: PieceSet::repeat(false, pieces),
            count: 0,
            epoch: 1,
            returned: VecDeque::new(),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn contains(&self, piece: u32) -> bool {
        self.place[piece as usize] != NOWHERE
    }

    /// Lets `first` go before all others.
    pub(crate) fn set_first(&mut self, first: Option<PieceSet>) {
        let listed: Vec<u32> = self.pickable.iter_ones().map(|piece| piece as u32).collect();
        listed.iter().for_each(|piece| self.pull(*piece));
        self.first = first.map(|mut pieces| {
            pieces.resize(self.place.len(), false);
            First {
                pickable: PieceSet::repeat(false, pieces.len()),
                pieces,
                buckets: vec![Bucket::default()],
            }
        });
        listed.iter().for_each(|piece| self.push(*piece));
        self.epoch += 1;
    }

    /// The piece can be picked from now on.
    pub(crate) fn insert(&mut self, piece: u32) {
        if self.contains(piece) {
            return;
        }
        self.push(piece);
        self.pickable.set(piece as usize, true);
        self.count += 1;
        self.epoch += 1;
        if self.returned.len() == MAX_RETURNED {
            self.returned.pop_front();
        }
        self.returned.push_back(piece);
    }

    /// Whether `source` has nothing that could be picked, given that it had nothing at `epoch`: what came back since is all there is to look at.
    /// False if too much came back to tell.
    pub(crate) fn is_exhausted_since(&self, epoch: u64, source: &Source) -> bool {
        let since = self.epoch.saturating_sub(epoch);
        if epoch == 0 || since > self.returned.len() as u64 {
            return false;
        }
        let mut back = self.returned.iter().rev().take(since as usize);
        !back.any(|piece| self.contains(*piece) && source.has(*piece))
    }

    /// The piece cannot be picked any more.
    pub(crate) fn remove(&mut self, piece: u32) {
        if !self.contains(piece) {
            return;
        }
        self.pull(piece);
        self.pickable.set(piece as usize, false);
        self.count -= 1;
    }

    /// One more peer has the piece.
    pub(crate) fn on_gained(&mut self, piece: u32) {
        self.rerank(piece, self.availability[piece as usize].saturating_add(1));
    }

    /// One peer less has the piece.
    pub(crate) fn on_lost(&mut self, piece: u32) {
        self.rerank(piece, self.availability[piece as usize].saturating_sub(1));
    }

    /// How many peers that do not have everything have the piece.
    pub(crate) fn availability(&self, piece: u32) -> u16 {
        self.availability[piece as usize]
    }

    /// A piece that `source` has, of those that the fewest have; ties by lot.
    pub(crate) fn rarest(&self, source: &Source, rng: &mut Rng) -> Option<u32> {
        let first = self.first.iter();
        let families = first.map(|first| (&first.buckets, &first.pickable));
        families
            .chain([(&self.buckets, &self.pickable)])
            .find_map(|(buckets, pickable)| rarest_of(buckets, pickable, source, rng))
    }

    /// A piece that `source` has, however rare: the next from a place chosen by lot.
    pub(crate) fn any(&self, source: &Source, rng: &mut Rng) -> Option<u32> {
        if self.count == 0 {
            return None;
        }
        let first = self.first.as_ref();
        first
            .and_then(|first| any_of(&first.pickable, source, rng))
            .or_else(|| any_of(&self.pickable, source, rng))
    }

    /// The first piece that `source` has.
    pub(crate) fn first(&self, source: &Source) -> Option<u32> {
        let words = self.pickable.as_raw_slice().len();
        let first = self.first.as_ref();
        first
            .and_then(|first| find(&first.pickable, source, 0, words))
            .or_else(|| find(&self.pickable, source, 0, words))
    }

    /// Whether two pieces may lie in one request: neither goes before the other.
    pub(crate) fn go_together(&self, one: u32, other: u32) -> bool {
        let first = self.first.as_ref();
        first.is_none_or(|first| first.pieces[one as usize] == first.pieces[other as usize])
    }

    /// Up to `max` pieces that no peer is known to have.
    pub(crate) fn unheld(&self, max: usize, mut fits: impl FnMut(u32) -> bool) -> Vec<u32> {
        let first = self.first.iter().flat_map(|first| first.buckets[0].iter());
        first
            .chain(self.buckets[0].iter())
            .filter(|piece| fits(*piece))
            .take(max)
            .collect()
    }

    fn rerank(&mut self, piece: u32, availability: u16) {
        let listed = self.contains(piece);
        if listed {
            self.pull(piece);
        }
        self.availability[piece as usize] = availability;
        if listed {
            self.push(piece);
        }
    }

    fn push(&mut self, piece: u32) {
        let rank = usize::from(self.availability[piece as usize]);
        let buckets = match &mut self.first {
            Some(first) if first.pieces[piece as usize] => {
                first.pickable.set(piece as usize, true);
                &mut first.buckets
            }
            _ => &mut self.buckets,
        };
        if buckets.len() <= rank {
            buckets.resize_with(rank + 1, Bucket::default);
        }
        let bucket = &mut buckets[rank];
        self.place[piece as usize] = bucket.len() as u32;
        bucket.push(piece);
    }

    fn pull(&mut self, piece: u32) {
        let rank = usize::from(self.availability[piece as usize]);
        let buckets = match &mut self.first {
            Some(first) if first.pieces[piece as usize] => {
                first.pickable.set(piece as usize, false);
                &mut first.buckets
            }
            _ => &mut self.buckets,
        };
        let place = self.place[piece as usize];
        if let Some(moved) = buckets[rank].swap_remove(place as usize) {
            self.place[moved as usize] = place;
        }
        self.place[piece as usize] = NOWHERE;
    }
}

/// A piece of `buckets` that `source` has, of those that the fewest have; ties by lot. `pickable` are the pieces in any of them.
fn rarest_of(buckets: &[Bucket], pickable: &PieceSet, source: &Source, rng: &mut Rng) -> Option<u32> {
    let mut looks = 0;
    for bucket in buckets {
        if bucket.is_empty() {
            continue;
        }
        let from = rng.below(bucket.len());
        for i in 0..bucket.len() {
            let piece = bucket.at((from + i) % bucket.len());
            if source.has(piece) {
                return Some(piece);
            }
            looks += 1;
            if looks == MAX_LOOKS {
                return any_of(pickable, source, rng);
            }
        }
    }
    None
}

/// A piece of `pickable` that `source` has: the next from a place chosen by lot.
fn any_of(pickable: &PieceSet, source: &Source, rng: &mut Rng) -> Option<u32> {
    let words = pickable.as_raw_slice().len();
    let from = rng.below(words);
    find(pickable, source, from, words).or_else(|| find(pickable, source, 0, from))
}

/// The first piece of `pickable` that `source` has, from one word to another.
fn find(pickable: &PieceSet, source: &Source, from: usize, to: usize) -> Option<u32> {
    let pickable = &pickable.as_raw_slice()[from..to];
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

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::rng::Rng;
    use super::*;

    const PIECES: usize = 200;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u32),
        Remove(u32),
        Gain(u32),
        Lose(u32),
        Pick(Vec<u32>),
    }

    fn step() -> impl Strategy<Value = Step> {
        let piece = || 0..PIECES as u32;
        prop_oneof![
            piece().prop_map(Step::Insert),
            piece().prop_map(Step::Remove),
            piece().prop_map(Step::Gain),
            piece().prop_map(Step::Lose),
            vec(piece(), 0..100).prop_map(Step::Pick),
        ]
    }

    proptest! {
        #[test]
        fn picks_as_a_slow_model_does(steps in vec(step(), 0..400), seed in any::<u64>()) {
            let mut rng = Rng::new(seed);
            let mut picker = Picker::new(PIECES);
            let mut model: Vec<(bool, u16)> = vec![(false, 0); PIECES];
            for step in steps {
                match step {
                    Step::Insert(piece) => {
                        picker.insert(piece);
                        model[piece as usize].0 = true;
                    }
                    Step::Remove(piece) => {
                        picker.remove(piece);
                        model[piece as usize].0 = false;
                    }
                    Step::Gain(piece) => {
                        picker.on_gained(piece);
                        model[piece as usize].1 += 1;
                    }
                    Step::Lose(piece) => {
                        picker.on_lost(piece);
                        model[piece as usize].1 = model[piece as usize].1.saturating_sub(1);
                    }
                    Step::Pick(held) => {
                        let mut have = PieceSet::repeat(false, PIECES);
                        held.iter().for_each(|piece| have.set(*piece as usize, true));
                        for source in [Source::Map(have.clone()), Source::All] {
                            let can = |piece: usize| model[piece].0 && source.has(piece as u32);
                            let rarest = (0..PIECES).filter(|piece| can(*piece)).map(|piece| model[piece].1).min();
                            let picked = picker.rarest(&source, &mut rng);
                            prop_assert_eq!(picked.map(|piece| model[piece as usize].1), rarest);
                            prop_assert!(picked.is_none_or(|piece| can(piece as usize)));
                            let first = (0..PIECES).find(|piece| can(*piece)).map(|piece| piece as u32);
                            prop_assert_eq!(picker.first(&source), first);
                            let any = picker.any(&source, &mut rng);
                            prop_assert_eq!(any.is_some(), first.is_some());
                            prop_assert!(any.is_none_or(|piece| can(piece as usize)));
                        }
                        let unheld: Vec<u32> = (0..PIECES as u32).filter(|p| model[*p as usize] == (true, 0)).collect();
                        let mut found = picker.unheld(PIECES, |_| true);
                        found.sort_unstable();
                        prop_assert_eq!(found, unheld);
                    }
                }
                prop_assert_eq!(picker.count(), model.iter().filter(|(in_it, _)| *in_it).count());
            }
        }
    }

    #[test]
    fn millions_of_pieces_are_picked_and_ranked_in_constant_time() {
        // Not a clock but a count: each pick looks at few entries, and a change moves one piece.
        let pieces = 1_600_000;
        let mut picker = Picker::new(pieces);
        let mut rng = Rng::new(1);
        (0..pieces as u32).for_each(|piece| picker.insert(piece));
        (0..pieces as u32).for_each(|piece| picker.on_gained(piece));
        // A source that has one piece, which no look at the buckets is likely to meet.
        let mut have = PieceSet::repeat(false, pieces);
        have.set(1_234_567, true);
        assert_eq!(picker.rarest(&Source::Map(have), &mut rng), Some(1_234_567));
        for _ in 0..100_000 {
            let piece = picker.rarest(&Source::All, &mut rng).expect("many");
            picker.remove(piece);
            picker.on_lost(piece);
            picker.insert(piece);
        }
        assert_eq!(picker.count(), pieces);
    }
}
