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
    decided: &[Decided],
    present: &BitVec,
    local: &PieceSet,
) -> Estimate {
    let files = content.files().len();
    let mut fetched = vec![0_u64; files];
    let mut copied = vec![0_u64; files];
    let mut estimate = Estimate::default();
    for (piece, leaf) in content.map().iter() {
        let len = u64::from(leaf.len);
        let is_local = local[piece.as_usize()];
        let mut absent = false;
        for place in layout.places(piece).filter(|place| !present[place.number as usize]) {
            absent = true;
            if is_local {
                copied[place.file as usize] += len;
            } else {
                fetched[place.file as usize] += len;
            }
        }
        if absent && !is_local {
            estimate.fetch += len;
        }
    }
    let (mut written, mut growth, mut largest) = (0_u64, 0_u64, 0_u64);
    for file in decided {
        let described = &content.files()[file.number];
        let carried: u64 = match &file.what {
            What::Stage { .. } => content
                .parts(described)
                .filter_map(|part| match part {
                    Part::Node { len, .. } => Some(u64::from(len)),
                    Part::Piece(_) => None,
                })
                .sum(),
            _ => continue,
        };
        let old = file.what.replaced_size();
        let copied = copied[file.number];
        written += fetched[file.number] + carried;
        growth += copied.saturating_sub(old);
        largest = largest.max(copied);
        estimate.change += (fetched[file.number] + carried + copied) as i64 - old as i64;
    }
    // A file that is renamed replaces what stands at its new name.
    estimate.change -= decided
        .iter()
        .filter(|file| matches!(file.what, What::Move { .. }))
        .map(|file| file.what.replaced_size() as i64)
        .sum::<i64>();
    estimate.peak = written + growth + largest;
    estimate
}
