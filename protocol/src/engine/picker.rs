//! Which piece next: those that are wanted, not here and not on request, by how many peers have them.
//!
//! Pieces are counted by availability, so that every change is two counts. Peers that have everything are not counted piece by piece: they change no piece's rank. Built
//! for millions of pieces: a pick looks at the counts of the rarest, and at a bounded number of pieces before it falls back on the words of two bit sets.

use std::collections::VecDeque;

use super::ranks::Ranks;
use super::rng::Rng;
use super::session::Source;
use crate::format::PieceSet;

/// Pieces that came back lately, which are looked at one by one before all are.
const MAX_RETURNED: usize = 256;

/// Pieces that go before all others.
#[derive(Clone, Debug)]
struct First {
    pieces: PieceSet,
    /// Those of them that can be picked.
    ranks: Ranks,
}

/// The pieces of one transfer that could be requested.
#[derive(Clone, Debug)]
pub(crate) struct Picker {
    /// By piece: how many peers that do not have everything have it.
    availability: Vec<u16>,
    /// The pieces that can be picked, without those of `first`.
    ranks: Ranks,
    /// Pieces that go before all others; none: there are no such.
    first: Option<First>,
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
            ranks: Ranks::new(pieces),
            first: None,
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
        let first = self.first.as_ref();
        self.ranks.contains(piece) || first.is_some_and(|first| first.ranks.contains(piece))
    }

    /// Lets `first` go before all others.
    pub(crate) fn set_first(&mut self, first: Option<PieceSet>) {
        let pieces = self.availability.len();
        let before = self.first.take();
        let rest = std::mem::replace(&mut self.ranks, Ranks::new(pieces));
        self.first = first.map(|mut first| {
            first.resize(pieces, false);
            First {
                pieces: first,
                ranks: Ranks::new(pieces),
            }
        });
        let before = before.iter().flat_map(|before| before.ranks.iter());
        for piece in before.chain(rest.iter()) {
            let availability = self.availability[piece as usize];
            self.ranks_of(piece).insert(piece, availability);
        }
        self.epoch += 1;
    }

    /// The piece can be picked from now on.
    pub(crate) fn insert(&mut self, piece: u32) {
        if self.contains(piece) {
            return;
        }
        let availability = self.availability[piece as usize];
        self.ranks_of(piece).insert(piece, availability);
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
        let availability = self.availability[piece as usize];
        self.ranks_of(piece).remove(piece, availability);
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
        self.in_turn()
            .find_map(|ranks| ranks.rarest(&self.availability, source, rng))
    }

    /// A piece that `source` has, however rare: the next from a place chosen by lot.
    pub(crate) fn any(&self, source: &Source, rng: &mut Rng) -> Option<u32> {
        self.in_turn().find_map(|ranks| ranks.any(source, rng))
    }

    /// The first piece that `source` has.
    pub(crate) fn first(&self, source: &Source) -> Option<u32> {
        self.in_turn().find_map(|ranks| ranks.first(source))
    }

    /// Whether two pieces may lie in one request: neither goes before the other.
    pub(crate) fn go_together(&self, one: u32, other: u32) -> bool {
        let first = self.first.as_ref();
        first.is_none_or(|first| first.pieces[one as usize] == first.pieces[other as usize])
    }

    /// Up to `max` pieces that no peer is known to have.
    pub(crate) fn unheld(&self, max: usize, mut fits: impl FnMut(u32) -> bool) -> Vec<u32> {
        self.in_turn()
            .flat_map(|ranks| ranks.of(&self.availability, 0))
            .filter(|piece| fits(*piece))
            .take(max)
            .collect()
    }

    fn rerank(&mut self, piece: u32, availability: u16) {
        let before = std::mem::replace(&mut self.availability[piece as usize], availability);
        let ranks = self.ranks_of(piece);
        if ranks.contains(piece) {
            ranks.change(piece, before, availability);
        }
    }

    /// Those that go before others, and the rest.
    fn in_turn(&self) -> impl Iterator<Item = &Ranks> {
        let first = self.first.as_ref().map(|first| &first.ranks);
        first.into_iter().chain([&self.ranks])
    }

    /// Where the piece belongs.
    fn ranks_of(&mut self, piece: u32) -> &mut Ranks {
        match &mut self.first {
            Some(first) if first.pieces[piece as usize] => &mut first.ranks,
            _ => &mut self.ranks,
        }
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
        // Not a clock but a count: each pick looks at few pieces, and a change is two counts.
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
