//! What a server has of a content, compact on the wire.

use super::limits::MAX_PIECES;
use crate::format::PieceSet;

/// `len` consecutive pieces from `start`. On the wire `len` is at least 1, the end at most [`MAX_PIECES`], and runs in a list
/// ascend without overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// The first piece.
    pub start: u32,
    /// How many.
    pub len: u32,
}

impl Run {
    /// The piece after the last.
    pub const fn end(self) -> u32 {
        self.start.saturating_add(self.len)
    }

    /// The pieces.
    pub const fn pieces(self) -> std::ops::Range<u32> {
        self.start..self.end()
    }
}

/// Packs `pieces`, in any order, into ascending runs, each piece once.
pub fn runs_of(pieces: impl IntoIterator<Item = u32>) -> Vec<Run> {
    let mut pieces: Vec<u32> = pieces.into_iter().collect();
    pieces.sort_unstable();
    let mut runs: Vec<Run> = Vec::new();
    for piece in pieces {
        match runs.last_mut() {
            Some(run) if piece < run.end() => {}
            Some(run) if piece == run.end() => run.len += 1,
            _ => runs.push(Run { start: piece, len: 1 }),
        }
    }
    runs
}

/// Sorts runs and joins those that overlap or touch.
pub(crate) fn join_runs(mut runs: Vec<Run>) -> Vec<Run> {
    runs.sort_unstable();
    let mut joined: Vec<Run> = Vec::with_capacity(runs.len());
    for run in runs {
        match joined.last_mut() {
            Some(last) if run.start <= last.end() => last.len = last.end().max(run.end()) - last.start,
            _ => joined.push(run),
        }
    }
    joined
}

/// What a server has of a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Have {
    /// Nothing yet, or the root is a pack's.
    None,
    /// Everything.
    All,
    /// Some.
    Map(HaveMap),
}

/// A have-map as it came: checked against the number of pieces only when it is expanded, so that a short frame never makes a
/// long allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HaveMap {
    /// Bit `i % 8` (from the least) of byte `i / 8` is piece `i`.
    Bits(Vec<u8>),
    /// Ascending, not touching.
    Runs(Vec<Run>),
}

impl Have {
    /// The shortest form of `set`.
    pub fn of(set: &PieceSet) -> Self {
        if set.not_any() {
            return Self::None;
        }
        if set.all() {
            return Self::All;
        }
        Self::Map(HaveMap::of(set))
    }
}

impl HaveMap {
    /// The shorter of a bitmap and runs.
    fn of(set: &PieceSet) -> Self {
        let bits_len = set.len().div_ceil(8);
        let mut runs = Vec::new();
        let mut at = 0;
        while let Some(start) = set[at..].first_one().map(|i| at + i) {
            let end = set[start..].first_zero().map_or(set.len(), |i| start + i);
            runs.push(Run {
                start: start as u32,
                len: (end - start) as u32,
            });
            at = end;
            // A run takes two bytes at the least.
            if runs.len() * 2 > bits_len {
                break;
            }
        }
        if super::codec::runs_len(&runs) < bits_len {
            return Self::Runs(runs);
        }
        let mut bytes = vec![0; bits_len];
        for i in set.iter_ones() {
            bytes[i / 8] |= 1 << (i % 8);
        }
        Self::Bits(bytes)
    }

    /// The map as a set over `pieces` pieces; nothing if it speaks of others or has another length.
    pub fn to_set(&self, pieces: u32) -> Option<PieceSet> {
        if pieces > MAX_PIECES {
            return None;
        }
        let mut set = PieceSet::repeat(false, pieces as usize);
        match self {
            Self::Bits(bytes) => {
                if bytes.len() != set.len().div_ceil(8) {
                    return None;
                }
                for (i, byte) in bytes.iter().enumerate() {
                    let mut byte = *byte;
                    while byte != 0 {
                        let bit = i * 8 + byte.trailing_zeros() as usize;
                        byte &= byte - 1;
                        if bit >= set.len() {
                            return None;
                        }
                        set.set(bit, true);
                    }
                }
            }
            Self::Runs(runs) => {
                for run in runs {
                    if run.end() > pieces {
                        return None;
                    }
                    set[run.start as usize..run.end() as usize].fill(true);
                }
            }
        }
        Some(set)
    }
}
