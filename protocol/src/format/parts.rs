//! What files are made of, in one list, kept as runs: most files are pieces that follow one another.

use std::ops::Range;

/// Parts by number: pieces by index, or carriers by index with [`CARRIER`] set. Eight bytes for each run of parts of which each is
/// the one after the last, however many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    runs: Vec<Run>,
    len: u32,
}

/// Set in a part that is an index into the carriers.
pub(super) const CARRIER: u32 = 1 << 31;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// The number of its first part.
    number: u32,
    /// That part.
    part: u32,
}

impl Parts {
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn push(&mut self, part: u32) {
        let goes_on = |run: &Run| part == run.part + (self.len - run.number);
        if !self.runs.last().is_some_and(goes_on) {
            self.runs.push(Run { number: self.len, part });
        }
        self.len += 1;
    }

    pub(super) fn shrink_to_fit(&mut self) {
        self.runs.shrink_to_fit();
    }

    /// The parts of these numbers.
    ///
    /// # Panics
    /// If there are not as many.
    pub(super) fn range(&self, numbers: Range<u32>) -> Iter<'_> {
        assert!(numbers.end <= self.len, "there are {} parts", self.len);
        let after = self.runs.partition_point(|run| run.number <= numbers.start);
        let mut iter = Iter {
            runs: &self.runs[after..],
            end: self.len,
            part: 0,
            of_run: 0,
            left: numbers.len(),
        };
        if let Some(run) = self.runs[..after].last() {
            let skipped = numbers.start - run.number;
            iter.part = run.part + skipped;
            iter.of_run = iter.next_run_at() - numbers.start;
        }
        iter
    }
}

/// Parts in order of their numbers.
#[derive(Clone, Debug)]
pub(super) struct Iter<'a> {
    /// Those behind the one that it is in.
    runs: &'a [Run],
    /// The number of all parts.
    end: u32,
    /// The next part,…
    part: u32,
    /// …and how many of its run there are from it on.
    of_run: u32,
    left: usize,
}

impl Iter<'_> {
    fn next_run_at(&self) -> u32 {
        self.runs.first().map_or(self.end, |run| run.number)
    }
}

impl Iterator for Iter<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        self.left = self.left.checked_sub(1)?;
        if self.of_run == 0 {
            let (run, rest) = self.runs.split_first()?;
            self.runs = rest;
            self.part = run.part;
            self.of_run = self.next_run_at() - run.number;
        }
        let part = self.part;
        self.part += 1;
        self.of_run -= 1;
        Some(part)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Iter<'_> {}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn pieces_that_follow_one_another_take_eight_bytes() {
        let mut parts = Parts::default();
        (0..1_000_000).for_each(|piece| parts.push(piece));
        assert_eq!(parts.runs.len(), 1);
        parts.push(0);
        parts.push(CARRIER);
        assert_eq!(parts.runs.len(), 3);
        assert_eq!(
            parts.range(999_999..1_000_002).collect::<Vec<_>>(),
            [999_999, 0, CARRIER]
        );
    }

    proptest! {
        #[test]
        fn any_range_of_them_is_what_was_pushed(
            runs in vec((0..50_u32, any::<bool>(), 1..6_u32), 0..20),
            cuts in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..20),
        ) {
            let mut parts = Parts::default();
            let mut plain = Vec::new();
            for (from, carriers, len) in runs {
                let from = from | if carriers { CARRIER } else { 0 };
                plain.extend(from..from + len);
            }
            plain.iter().for_each(|part| parts.push(*part));
            prop_assert_eq!(parts.len() as usize, plain.len());
            for (a, b) in cuts {
                let (a, b) = (a.index(plain.len() + 1), b.index(plain.len() + 1));
                let (from, to) = (a.min(b), a.max(b));
                let range = parts.range(from as u32..to as u32);
                prop_assert_eq!(range.len(), to - from);
                prop_assert_eq!(range.collect::<Vec<_>>(), &plain[from..to]);
            }
        }
    }
}
