//! What one peer has asked of us and has not got yet.

use std::collections::VecDeque;
use std::time::Duration;

use super::action::Violation;
use super::rate::Meter;
use crate::format::Cid;
use crate::time::Timestamp;
use crate::wire::limits::{MAX_QUEUED_CIDS, MAX_QUEUED_PIECES};
use crate::wire::{Handle, RequestId, Run, runs_of};

/// Bytes that the caller is asked to write at a time, at the least: what was asked for cannot be cancelled any more…
const AHEAD_MIN: u64 = 64 * 1024;
/// …and at the most. In between it is what the peer takes in [`AHEAD_MICROS`].
const AHEAD_MAX: u64 = 4 * 1024 * 1024;
const AHEAD_MICROS: u64 = 200_000;
/// Blocks that the caller is asked to write at a time: small ones do not add up to many bytes.
const AHEAD_JOBS: usize = 256;
/// A peer that has not taken in a block for this long is not waited for.
const STUCK: Duration = Duration::from_millis(500);
/// Pieces that are looked at for the next to serve.
const LOOKS: usize = 32;
/// Bytes by which a peer that others have got ahead of may catch up: a newcomer does not hold up those who were here before for long.
const CATCH_UP: u64 = 16 * 1024 * 1024;
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

/// A node that comes without having been named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnnamedNode {
    pub(crate) handle: Handle,
    pub(crate) request: RequestId,
    pub(crate) cid: Cid,
    /// How many come after it.
    pub(crate) more: u16,
}

/// The next thing to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// One piece.
    Piece(Handle, u32),
    /// A node or a leaf by CID.
    Cid(CidWant),
    /// The next of a whole skeleton.
    Node(UnnamedNode),
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
    /// The rest of the skeleton that they are of, behind them.
    skeleton: VecDeque<UnnamedNode>,
    queue: VecDeque<Entry>,
    pieces: u32,
    leaves: usize,
    ahead: u64,
    jobs: usize,
    /// Since when the caller has been writing without a block coming to an end.
    waits_since: Timestamp,
    /// Whether the peer takes nothing in: what it has ahead does not keep others from being served.
    stuck: bool,
    pub(crate) meter: Meter,
    pub(crate) bytes: u64,
    /// Pieces and leaves that went to it; nodes are not counted.
    pub(crate) leaves_sent: u32,
    /// Bytes that count as if it had got them, since it was not here to take its turn.
    missed: u64,
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

    /// Has `cids` follow the nodes that were named; one skeleton at a time. Whether there is anything to come.
    pub(crate) fn push_skeleton(&mut self, handle: Handle, request: RequestId, cids: Vec<Cid>) -> bool {
        if cids.is_empty() || !self.skeleton.is_empty() {
            return false;
        }
        let more = (0..cids.len() as u16).rev();
        let nodes = cids.into_iter().zip(more).map(|(cid, more)| UnnamedNode {
            handle,
            request,
            cid,
            more,
        });
        self.skeleton.extend(nodes);
        true
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

    /// As [`Uploads::cancel`]; returns what was dropped.
    pub(crate) fn release(&mut self, handle: Handle, mut runs: Vec<Run>) -> Vec<Run> {
        runs.sort_unstable();
        let named = |piece: &u32| {
            let after = runs.partition_point(|run| run.start <= *piece);
            after > 0 && *piece < runs[after - 1].end()
        };
        let dropped = runs_of(self.queued(handle).filter(named));
        self.cancel(handle, &dropped);
        dropped
    }

    /// Drops all that was asked for through `handle`.
    pub(crate) fn close(&mut self, handle: Handle) {
        self.nodes.retain(|want| want.handle != handle);
        self.skeleton.retain(|node| node.handle != handle);
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

    /// Pieces of `handle` that are asked for and not served yet.
    pub(crate) fn queued(&self, handle: Handle) -> impl Iterator<Item = u32> {
        let runs = self.queue.iter().filter_map(move |entry| match entry {
            Entry::Run(of, run) if *of == handle => Some(*run),
            _ => None,
        });
        runs.flat_map(Run::pieces)
    }

    /// Takes one piece out of the run at `at`.
    fn take(&mut self, at: usize, piece: u32) {
        let Some(Entry::Run(handle, run)) = self.queue.get(at).copied() else {
            return;
        };
        self.pieces -= 1;
        let (before, after) = (piece - run.start, run.end() - piece - 1);
        let rest = Run {
            start: piece + 1,
            len: after,
        };
        let kept = Run {
            start: run.start,
            len: before,
        };
        match (before, after) {
            (0, 0) => drop(self.queue.remove(at)),
            (0, _) => self.queue[at] = Entry::Run(handle, rest),
            (_, 0) => self.queue[at] = Entry::Run(handle, kept),
            _ => {
                self.queue[at] = Entry::Run(handle, kept);
                self.queue.insert(at + 1, Entry::Run(handle, rest));
            }
        }
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
        if self.is_empty() {
            return false;
        }
        let ahead = (self.meter.rate(now).saturating_mul(AHEAD_MICROS) / 1_000_000).clamp(AHEAD_MIN, AHEAD_MAX);
        self.jobs == 0 || (self.ahead < ahead && self.jobs < AHEAD_JOBS)
    }

    /// How far it has come, in bytes; whoever has come least far is served next.
    pub(crate) fn turn(&self) -> u64 {
        self.bytes + self.missed
    }

    /// It asks while the peer that was served last had come as far as `turn`.
    pub(crate) fn join(&mut self, turn: u64) {
        self.missed += turn.saturating_sub(CATCH_UP).saturating_sub(self.turn());
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.has_nodes() && self.queue.is_empty()
    }

    /// Whether there is nothing to serve, and nothing is being written.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_empty() && self.jobs == 0
    }

    fn has_nodes(&self) -> bool {
        !self.nodes.is_empty() || !self.skeleton.is_empty()
    }

    /// The rank of what [`Uploads::next`] would take; least for nodes.
    pub(crate) fn rank(&self, rank: impl FnMut(Handle, u32) -> u16) -> u16 {
        if self.has_nodes() {
            return 0;
        }
        self.best(&[], rank).map_or(0, |(rank, ..)| rank)
    }

    /// Takes the next thing to serve: of the first few pieces asked for, that for which `rank` is least. What was asked for through one of `closed` is
    /// passed over.
    pub(crate) fn next(&mut self, closed: &[Handle], rank: impl Fn(Handle, u32) -> u16) -> Option<Wanted> {
        if let Some(node) = self.nodes.pop_front() {
            return Some(Wanted::Cid(node));
        }
        if let Some(node) = self.skeleton.pop_front() {
            return Some(Wanted::Node(node));
        }
        if let Some((_, at, handle, piece)) = self.best(closed, rank) {
            self.take(at, piece);
            self.leaves_sent = self.leaves_sent.saturating_add(1);
            return Some(Wanted::Piece(handle, piece));
        }
        let at = self.queue.iter().position(|entry| !closed.contains(&entry.handle()))?;
        match self.queue.get_mut(at)? {
            Entry::Run(..) => None,
            Entry::Leaf(want) => {
                let wanted = Wanted::Cid(*want);
                self.queue.remove(at);
                self.leaves -= 1;
                self.leaves_sent = self.leaves_sent.saturating_add(1);
                Some(wanted)
            }
        }
    }

    fn best(&self, closed: &[Handle], mut rank: impl FnMut(Handle, u32) -> u16) -> Option<(u16, usize, Handle, u32)> {
        let mut best: Option<(u16, usize, Handle, u32)> = None;
        let mut looks = 0;
        'queue: for (at, entry) in self.queue.iter().enumerate() {
            if closed.contains(&entry.handle()) {
                continue;
            }
            let Entry::Run(handle, run) = entry else { break };
            for piece in run.pieces() {
                let rank = rank(*handle, piece);
                if best.is_none_or(|(least, ..)| rank < least) {
                    best = Some((rank, at, *handle, piece));
                }
                looks += 1;
                // None comes before what nobody has.
                if rank == 0 || looks == LOOKS {
                    break 'queue;
                }
            }
        }
        best
    }

    /// The caller was asked to write a block. Bytes that it counts as.
    pub(crate) fn on_started(&mut self, now: Timestamp, len: Option<u32>) -> u64 {
        let len = u64::from(len.unwrap_or(ASSUMED_LEN));
        if self.jobs == 0 {
            self.waits_since = now;
        }
        self.ahead += len;
        self.jobs += 1;
        len
    }

    /// Bytes that the caller was asked to write and has not.
    pub(crate) fn ahead(&self) -> u64 {
        self.ahead
    }

    /// Whether the peer takes nothing in.
    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Time has passed. Bytes that the peer has just been found not to take in.
    pub(crate) fn find_stuck(&mut self, now: Timestamp) -> u64 {
        if self.stuck || self.jobs == 0 || now.since(self.waits_since) < STUCK {
            return 0;
        }
        self.stuck = true;
        self.ahead
    }

    /// The block was written, or will not be. Bytes that it had counted as.
    pub(crate) fn on_ended(&mut self, now: Timestamp, len: Option<u32>, written: u32) -> u64 {
        let counted = u64::from(len.unwrap_or(ASSUMED_LEN));
        self.ahead = self.ahead.saturating_sub(counted);
        self.jobs = self.jobs.saturating_sub(1);
        self.waits_since = now;
        self.stuck = false;
        self.bytes += u64::from(written);
        self.meter.add(now, u64::from(written));
        counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(uploads: &mut Uploads) -> Vec<u32> {
        std::iter::from_fn(|| uploads.next(&[], |_, _| 0))
            .filter_map(|wanted| match wanted {
                Wanted::Piece(_, piece) => Some(piece),
                Wanted::Cid(_) | Wanted::Node(_) => None,
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
    fn the_least_ranked_of_the_first_few_goes_first_and_ties_keep_their_order() {
        let mut uploads = Uploads::default();
        uploads
            .push_runs(Handle(1), &[Run { start: 0, len: 5 }, Run { start: 9, len: 2 }])
            .expect("few");
        let rank = |_: Handle, piece: u32| if piece == 3 || piece == 10 { 0 } else { 5 };
        assert_eq!(uploads.rank(rank), 0);
        let order: Vec<Wanted> = std::iter::from_fn(|| uploads.next(&[], rank)).collect();
        let pieces: Vec<u32> = order
            .into_iter()
            .filter_map(|wanted| match wanted {
                Wanted::Piece(_, piece) => Some(piece),
                Wanted::Cid(_) | Wanted::Node(_) => None,
            })
            .collect();
        assert_eq!(pieces, [3, 10, 0, 1, 2, 4, 9]);
        assert!(uploads.is_empty() && uploads.pieces == 0);
    }

    #[test]
    fn a_peer_that_takes_nothing_in_is_found_out_and_forgiven() {
        let mut uploads = Uploads::default();
        let now = Timestamp::from_micros(1);
        uploads.on_started(now, Some(1000));
        assert_eq!(uploads.find_stuck(now + STUCK / 2), 0);
        assert_eq!(uploads.find_stuck(now + STUCK), 1000);
        assert_eq!(uploads.find_stuck(now + STUCK * 2), 0, "said once");
        uploads.on_ended(now + STUCK * 3, Some(1000), 1000);
        assert!(!uploads.is_stuck() && uploads.ahead() == 0);
    }

    #[test]
    fn a_newcomer_catches_up_by_no_more_than_a_bound() {
        let mut uploads = Uploads::default();
        uploads.join(CATCH_UP / 2);
        assert_eq!(uploads.turn(), 0);
        uploads.join(CATCH_UP * 5);
        assert_eq!(uploads.turn(), CATCH_UP * 4);
        uploads.on_started(Timestamp::ZERO, Some(1000));
        uploads.on_ended(Timestamp::ZERO, Some(1000), 1000);
        uploads.join(CATCH_UP * 5);
        assert_eq!(uploads.turn(), CATCH_UP * 4 + 1000, "what it got meanwhile counts once");
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
