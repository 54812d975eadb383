//! FastCDC's search for the next cut, several places at a time. It gives the cut points that the `fastcdc` crate gives with the masks of [`masks`];
//! its table and strict masks are the crate's.
//!
//! Each step of the gear hash waits for the one before, so that one search keeps a processor mostly idle. But a hash is only made of the last
//! [`WINDOW`] bytes (older ones are shifted out), so that it can be had anywhere by hashing a window's worth: a strip of [`LANES`] neighbouring
//! runs is searched side by side. A strip in which anything is found is searched again from its start for the first.

use std::sync::LazyLock;

use fastcdc::v2020::{Normalization, get_gear_with_seed, select_masks};

/// Bytes that a hash depends on: each step shifts one bit out of 64.
const WINDOW: usize = 64;
/// Runs searched side by side.
const LANES: usize = 4;
/// Bytes of a run.
const RUN: usize = 512;
/// Bytes of a run that are searched between two looks at what was found.
const GROUP: usize = 8;

type Gear = [u64; 256];

static GEAR: LazyLock<Gear> = LazyLock::new(|| {
    let (gear, _) = get_gear_with_seed(0);
    std::array::from_fn(|byte| gear[byte])
});

/// The length of the leaf at the start of `data`, which is not longer than four times `average`.
pub(super) fn next_cut(data: &[u8], average: usize) -> usize {
    let min = average / 4;
    if data.len() <= min {
        return data.len();
    }
    let (strict, relaxed) = masks(average);
    // The algorithm tests bytes in pairs; a last odd one is never a cut.
    let end = data.len() & !1;
    let center = average.min(end);
    let mut search = Search {
        gear: &GEAR,
        data,
        at: min,
        hash: 0,
    };
    search
        .find(center, strict)
        .or_else(|| search.find(end, relaxed))
        .unwrap_or(data.len())
}

/// The masks before and after `average`: of one bit more and one bit fewer than it would take to cut every `average` bytes.
///
/// The relaxed mask is the strict one without its two lowest bits, not the crate's of that many bits. So a cut by the strict mask is one by the
/// relaxed mask too: after a change, two versions whose leaves begin at different places meet at the next such byte even if one is before its average
/// there and the other beyond it. With the crate's masks (32 KiB: neither holds the other) half of those meetings are missed.
fn masks(average: usize) -> (u64, u64) {
    let (strict, _) = select_masks(average, Normalization::Level1);
    let without_lowest = |mask: u64| mask & mask.wrapping_sub(1);
    (strict, without_lowest(without_lowest(strict)))
}

struct Search<'a> {
    gear: &'a Gear,
    data: &'a [u8],
    /// The next byte.
    at: usize,
    /// Of the bytes before `at`.
    hash: u64,
}

impl Search<'_> {
    /// The first place before `end` whose hash has none of the bits of `mask`; goes on from there or from `end`.
    fn find(&mut self, end: usize, mask: u64) -> Option<usize> {
        while end - self.at >= LANES * RUN {
            match self.strip(mask) {
                Some(hash) => {
                    self.hash = hash;
                    self.at += LANES * RUN;
                }
                None => break,
            }
        }
        let mut hash = self.hash;
        for (offset, &byte) in self.data[self.at..end].iter().enumerate() {
            hash = step(self.gear, hash, byte);
            if hash & mask == 0 {
                return Some(self.at + offset);
            }
        }
        self.hash = hash;
        self.at = end;
        None
    }

    /// The hash at the end of the strip at `at`; `None` if there is a cut in it.
    fn strip(&self, mask: u64) -> Option<u64> {
        let gear = self.gear;
        let (runs, _) = self.data[self.at..].as_chunks::<RUN>();
        let [first, second, third, fourth, ..] = runs else {
            return None;
        };
        let (mut a, mut b) = (self.hash, warm(gear, first));
        let (mut c, mut d) = (warm(gear, second), warm(gear, third));
        for group in (0..RUN).step_by(GROUP) {
            // One branch a group: a branch a byte costs more than the group's rest.
            let mut found = false;
            for at in group..group + GROUP {
                a = step(gear, a, first[at]);
                b = step(gear, b, second[at]);
                c = step(gear, c, third[at]);
                d = step(gear, d, fourth[at]);
                found |= a & mask == 0;
                found |= b & mask == 0;
                found |= c & mask == 0;
                found |= d & mask == 0;
            }
            if found {
                return None;
            }
        }
        Some(d)
    }
}

#[inline]
fn step(gear: &Gear, hash: u64, byte: u8) -> u64 {
    (hash << 1).wrapping_add(gear[usize::from(byte)])
}

/// The hash at the end of `run`.
fn warm(gear: &Gear, run: &[u8]) -> u64 {
    run[run.len() - WINDOW..]
        .iter()
        .fold(0, |hash, &byte| step(gear, hash, byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn by_the_crate(data: &[u8], average: usize) -> usize {
        let (strict, relaxed) = masks(average);
        let (min, max) = (average / 4, average * 4);
        fastcdc::v2020::cut(data, min, average, max, strict, relaxed, strict << 1, relaxed << 1).1
    }

    #[test]
    fn what_the_strict_mask_cuts_the_relaxed_one_cuts_too() {
        for bits in 8..=19 {
            let (strict, relaxed) = masks(1 << bits);
            assert_eq!(strict & relaxed, relaxed);
            assert_eq!((strict.count_ones(), relaxed.count_ones()), (bits + 1, bits - 1));
        }
    }

    proptest! {
        #[test]
        fn cuts_are_those_of_the_reference(
            seed in any::<u64>(),
            bits in 8_u32..=19,
            len in 0_usize..300_000,
            same in prop::collection::vec((any::<prop::sample::Index>(), 1_usize..20_000, any::<u8>()), 0..6),
            period in prop::option::of(1_usize..5000),
        ) {
            let mut x = seed | 1;
            let mut data: Vec<u8> = (0..len)
                .map(|_| {
                    x ^= x << 13;
                    x ^= x >> 7;
                    x ^= x << 17;
                    (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
                })
                .collect();
            for (place, run, byte) in same {
                let begin = if len == 0 { 0 } else { place.index(len) };
                let end = len.min(begin + run);
                data[begin..end].fill(byte);
            }
            if let Some(period) = period {
                for at in period..len {
                    data[at] = data[at - period];
                }
            }
            let average = 1_usize << bits;
            let mut at = 0;
            while at < data.len() {
                let window = &data[at..data.len().min(at + average * 4)];
                let cut = next_cut(window, average);
                prop_assert_eq!(cut, by_the_crate(window, average), "at {}", at);
                at += cut;
            }
        }
    }
}
