//! What one peer has asked of us and has not got yet.

use std::collections::VecDeque;

use super::action::Violation;
use super::rate::Meter;
use crate::format::Cid;
use crate::time::Timestamp;
use crate::wire::limits::{MAX_QUEUED_CIDS, MAX_QUEUED_PIECES};
use crate::wire::{Handle, RequestId, Run};

/// Bytes that the caller is asked to write at a time, at the least: what was asked for cannot be cancelled any more…
const AHEAD_MIN: u64 = 64 * 1024;
/// …and at the most. In between it is what the peer takes in [`AHEAD_MICROS`].
const AHEAD_MAX: u64 = 4 * 1024 * 1024;
const AHEAD_MICROS: u64 = 200_000;
/// Blocks that the caller is asked to write at a time: small ones do not add up to many bytes.
const AHEAD_JOBS: usize = 256;
/// What a block of unknown length counts until it was written.
const ASSUMED_LEN: u32 = 64 * 1024;

/// A block asked for by CID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CidWant {
    pub(crate) handle: Handle,
    pub(crate) request: RequestId,
    pub(crate) position: u16,
    pub(crate) cid: Cid,
}

/// The next thing to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// One piece.
    Piece(Handle, u32),
    /// A node or a leaf by CID.
    Cid(CidWant),
}

#[derive(Clone, Copy, Debug)]
enum Entry {
    Run(Handle, Run),
    Leaf(CidWant),
}

impl Entry {
    fn handle(&self) -> Handle {
        match self {
            Self::Run(handle, _) => *handle,
            Self::Leaf(want) => want.handle,
        }
    }
}

/// The serve queue of one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Uploads {
    /// Nodes of skeletons: before all else, and while choked.
    nodes: VecDeque<CidWant>,
    queue: VecDeque<Entry>,
    pieces: u32,
    leaves: usize,
    ahead: u64,
    jobs: usize,
    pub(crate) meter: Meter,
    pub(crate) bytes: u64,
}

/// What a choke drops.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub(crate) runs: Vec<(Handle, Run)>,
    pub(crate) leaves: Vec<CidWant>,
}

impl Uploads {
    pub(crate) fn push_runs(&mut self, handle: Handle, runs: &[Run]) -> Result<(), Violation> {
        for run in runs {
            self.pieces = self.pieces.saturating_add(run.len);
            if self.pieces > MAX_QUEUED_PIECES {
                return Err(Violation::OverLimit("requested pieces"));
            }
            self.queue.push_back(Entry::Run(handle, *run));
        }
        Ok(())
    }

    pub(crate) fn push_nodes(&mut self, wants: impl IntoIterator<Item = CidWant>) -> Result<(), Violation> {
        self.nodes.extend(wants);
        self.check_cids()
    }

    pub(crate) fn push_leaves(&mut self, wants: impl IntoIterator<Item = CidWant>) -> Result<(), Violation> {
        for want in wants {
            self.leaves += 1;
            self.queue.push_back(Entry::Leaf(want));
        }
        self.check_cids()
    }

    fn check_cids(&self) -> Result<(), Violation> {
        if self.nodes.len() + self.leaves > MAX_QUEUED_CIDS {
            return Err(Violation::OverLimit("requested content IDs"));
        }
        Ok(())
    }

    /// Drops what is queued of `runs`. What the caller was asked to write is written.
    pub(crate) fn cancel(&mut self, handle: Handle, runs: &[Run]) {
        let mut cancelled = runs.to_vec();
        cancelled.sort_unstable();
        let mut kept = VecDeque::with_capacity(self.queue.len());
        for entry in self.queue.drain(..) {
            match entry {
                Entry::Run(of, run) if of == handle => {
                    let mut start = run.start;
                    let from = cancelled.partition_point(|c| c.start < run.start).saturating_sub(1);
                    for cut in cancelled[from..].iter().take_while(|c| c.start < run.end()) {
                        if cut.end() <= start {
                            continue;
                        }
                        if cut.start > start {
                            kept.push_back(Entry::Run(
                                handle,
                                Run {
                                    start,
                                    len: cut.start - start,
                                },
                            ));
                        }
                        start = cut.end().min(run.end());
                    }
                    if start < run.end() {
                        kept.push_back(Entry::Run(
                            handle,
                            Run {
                                start,
                                len: run.end() - start,
                            },
                        ));
                    }
                }
                other => kept.push_back(other),
            }
        }
        self.queue = kept;
        self.recount();
    }

    /// Drops all that was asked for through `handle`.
    pub(crate) fn close(&mut self, handle: Handle) {
        self.nodes.retain(|want| want.handle != handle);
        self.queue.retain(|entry| match entry {
            Entry::Run(of, _) => *of != handle,
            Entry::Leaf(want) => want.handle != handle,
        });
        self.recount();
    }

    /// Drops all pieces and leaves: nodes are served to choked peers too.
    pub(crate) fn choke(&mut self) -> Dropped {
        let mut dropped = Dropped::default();
        for entry in self.queue.drain(..) {
            match entry {
                Entry::Run(handle, run) => dropped.runs.push((handle, run)),
                Entry::Leaf(want) => dropped.leaves.push(want),
            }
        }
        self.recount();
        dropped
    }

    fn recount(&mut self) {
        self.pieces = 0;
        self.leaves = 0;
        for entry in &self.queue {
            match entry {
                Entry::Run(_, run) => self.pieces += run.len,
                Entry::Leaf(_) => self.leaves += 1,
            }
        }
    }

    /// Whether there is something to serve and the caller has not too much to write already.
    pub(crate) fn is_ready(&self, now: Timestamp) -> bool {
        if self.nodes.is_empty() && self.queue.is_empty() {
            return false;
        }
        let ahead = (self.meter.rate(now).saturating_mul(AHEAD_MICROS) / 1_000_000).clamp(AHEAD_MIN, AHEAD_MAX);
        self.jobs == 0 || (self.ahead < ahead && self.jobs < AHEAD_JOBS)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.queue.is_empty()
    }

    /// Takes the next thing to serve, passing over pieces and leaves that were asked for through one of `closed`.
    pub(crate) fn next(&mut self, closed: &[Handle]) -> Option<Wanted> {
        if let Some(node) = self.nodes.pop_front() {
            return Some(Wanted::Cid(node));
        }
        let at = self.queue.iter().position(|entry| !closed.contains(&entry.handle()))?;
        match self.queue.get_mut(at)? {
            Entry::Run(handle, run) => {
                let wanted = Wanted::Piece(*handle, run.start);
                run.start += 1;
                run.len -= 1;
                self.pieces -= 1;
                if run.len == 0 {
                    self.queue.remove(at);
                }
                Some(wanted)
            }
            Entry::Leaf(want) => {
                let wanted = Wanted::Cid(*want);
                self.queue.remove(at);
                self.leaves -= 1;
                Some(wanted)
            }
        }
    }

    /// The caller was asked to write a block. Bytes that it counts as.
    pub(crate) fn on_started(&mut self, len: Option<u32>) -> u64 {
        let len = u64::from(len.unwrap_or(ASSUMED_LEN));
        self.ahead += len;
        self.jobs += 1;
        len
    }

    /// The block was written, or will not be. Bytes that it had counted as.
    pub(crate) fn on_ended(&mut self, now: Timestamp, len: Option<u32>, written: u32) -> u64 {
        let counted = u64::from(len.unwrap_or(ASSUMED_LEN));
        self.ahead = self.ahead.saturating_sub(counted);
        self.jobs = self.jobs.saturating_sub(1);
        self.bytes += u64::from(written);
        self.meter.add(now, u64::from(written));
        counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(uploads: &mut Uploads) -> Vec<u32> {
        std::iter::from_fn(|| uploads.next(&[]))
            .filter_map(|wanted| match wanted {
                Wanted::Piece(_, piece) => Some(piece),
                Wanted::Cid(_) => None,
            })
            .collect()
    }

    #[test]
    fn cancel_cuts_runs_in_the_middle_and_leaves_other_handles_alone() {
        let mut uploads = Uploads::default();
        uploads
            .push_runs(Handle(1), &[Run { start: 0, len: 10 }, Run { start: 20, len: 3 }])
            .expect("few");
        uploads.push_runs(Handle(2), &[Run { start: 4, len: 2 }]).expect("few");
        uploads.cancel(
            Handle(1),
            &[
                Run { start: 21, len: 9 },
                Run { start: 3, len: 2 },
                Run { start: 7, len: 1 },
            ],
        );
        assert_eq!(uploads.pieces, 7 + 1 + 2);
        assert_eq!(drain(&mut uploads), [0, 1, 2, 5, 6, 8, 9, 20, 4, 5]);
    }

    #[test]
    fn a_cancel_that_begins_before_a_run_cuts_its_head() {
        let mut uploads = Uploads::default();
        uploads
            .push_runs(Handle(1), &[Run { start: 10, len: 10 }])
            .expect("few");
        uploads.cancel(Handle(1), &[Run { start: 2, len: 1 }, Run { start: 5, len: 8 }]);
        assert_eq!(drain(&mut uploads), [13, 14, 15, 16, 17, 18, 19]);
    }

    #[test]
    fn a_million_wants_are_over_the_limit() {
        let mut uploads = Uploads::default();
        let all = [Run {
            start: 0,
            len: MAX_QUEUED_PIECES,
        }];
        uploads.push_runs(Handle(1), &all).expect("at the limit");
        let over = uploads.push_runs(
            Handle(1),
            &[Run {
                start: 0,
                len: u32::MAX,
            }],
        );
        assert_eq!(over, Err(Violation::OverLimit("requested pieces")));
    }
}
