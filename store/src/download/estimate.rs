//! How much room a download takes, at its worst moment and in the end.
//!
//! Fetched leaves take room as they come. Local ones are copied when their file lacks nothing else, and the file that it replaces gives its room back before
//! the next is put together; files whose sizes together are no more than the largest go together.

use bitvec::vec::BitVec;
use modswarm_protocol::format::{Content, Part, PieceSet};

use super::{
    decide::{Decided, What},
    layout::Layout,
};

/// Bytes of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Estimate {
    /// Of distinct leaves that are to be fetched.
    pub(super) fetch: u64,
    /// Beside what is there, at the worst moment.
    pub(super) peak: u64,
    /// More than now, in the end, without files that are deleted then.
    pub(super) change: i64,
}

/// Of what is still to be done. `present` is by number of place.
pub(super) fn estimate(
    content: &Content,
    layout: &Layout,
    decided: &Decided,
    present: &BitVec,
    local: &PieceSet,
) -> Estimate {
    let mut estimate = Estimate::default();
    for (piece, leaf) in content.map().iter() {
        let absent = || layout.places(piece).any(|place| !present[place.number as usize]);
        if !local[piece.as_usize()] && absent() {
            estimate.fetch += u64::from(leaf.len);
        }
    }
    let (mut written, mut growth, mut largest) = (0_u64, 0_u64, 0_u64);
    for (number, what) in decided.iter() {
        let old = what.replaced_size();
        match what {
            What::Stage { .. } => {}
            // A file that is renamed replaces what stands at its new name.
            What::Move { .. } => {
                estimate.change -= old as i64;
                continue;
            }
            What::Known(_) | What::Adopt { .. } | What::Keep | What::Leave => continue,
        }
        let file = content.file(number);
        let (mut fetched, mut copied) = (0, 0);
        for (place, part) in file.part_numbers().zip(file.parts()) {
            let len = u64::from(content.part_len(part));
            match part {
                Part::Node { .. } => fetched += len,
                Part::Piece(_) if present[place as usize] => {}
                Part::Piece(piece) if local[piece.as_usize()] => copied += len,
                Part::Piece(_) => fetched += len,
            }
        }
        written += fetched;
        growth += copied.saturating_sub(old);
        largest = largest.max(copied);
        estimate.change += (fetched + copied) as i64 - old as i64;
    }
    estimate.peak = written + growth + largest;
    estimate
}
