//! One large file on every core: cut in segments side by side, joined so that the cuts are those of one pass from start to end.
//!
//! Where a file is cut depends on the cut before, but only so far: two passes that cut at one place agree from there on, and they meet within a leaf
//! or two. So each worker reads a segment and cuts it as if a leaf began there. Segments are then *joined* in order: what the former left over is cut
//! on from the last certain cut until a cut falls on one of the segment's own; the rest of those stand. Joined segments are hashed by whoever is
//! idle. Joining cuts one leaf in some thirty again, and hashes nothing twice.

use std::{
    collections::BTreeMap,
    io,
    sync::{Condvar, Mutex},
};

use modswarm_protocol::format::{ChunkerProfile, Leaf};

use super::hash::Hasher;
use crate::backend::BackendFile;

/// Bytes of all buffers of one file together, beyond the first two.
const BUFFER_BYTES_MAX: usize = 48 << 20;
/// Buffers of one file a worker: one that it reads or hashes; the others bridge the time in which a worker before it is held up.
const BUFFERS_PER_WORKER: usize = 4;

/// A segment's bytes, and its cuts.
struct Segment {
    number: u64,
    /// What the former segment left over, up to `head`, then the segment's bytes.
    buf: Vec<u8>,
    /// Where the first leaf begins in `buf`.
    begin: usize,
    /// Where the segment's bytes end in `buf`.
    end: usize,
    /// Certain leaves: the segment's own, from `head` on, until it is joined; then those from `begin` on.
    lens: Vec<u32>,
}

/// The lengths of the leaves at the start of `data`, as far as they are certain: all if it is the file's end, otherwise those that more bytes would not change.
fn certain_cuts(data: &[u8], last: bool, profile: ChunkerProfile) -> Vec<u32> {
    let mut lens = Vec::with_capacity(data.len() / (profile.max_len() / 4).max(1) + 1);
    let mut at = 0;
    while let Some(len) = certain_cut(&data[at..], last, profile) {
        lens.push(len as u32);
        at += len;
    }
    lens
}

fn certain_cut(data: &[u8], last: bool, profile: ChunkerProfile) -> Option<usize> {
    let len = profile.next_cut(data);
    // A cut before the end is one that was found, or the longest leaf.
    let certain = last || len < data.len() || data.len() >= profile.max_len();
    (certain && len > 0).then_some(len)
}

/// Makes segments' own cuts those of the whole file, in order.
struct Joiner {
    profile: ChunkerProfile,
    /// What the last joined segment left over.
    rest: Vec<u8>,
}

impl Joiner {
    fn join(&mut self, segment: &mut Segment, head: usize, last: bool) {
        let rest = self.rest.len();
        segment.begin = head - rest;
        segment.buf[segment.begin..head].copy_from_slice(&self.rest);
        let data = &segment.buf[segment.begin..segment.end];
        let mut own = std::mem::take(&mut segment.lens).into_iter();
        // The start of the next leaf of each pass.
        let (mut at, mut own_at) = (0, rest);
        let mut lens = Vec::with_capacity(own.len() + 4);
        loop {
            while own_at < at
                && let Some(len) = own.next()
            {
                own_at += len as usize;
            }
            if own_at == at {
                at += own.as_slice().iter().map(|&len| len as usize).sum::<usize>();
                lens.extend(own);
                break;
            }
            match certain_cut(&data[at..], last, self.profile) {
                Some(len) => {
                    lens.push(len as u32);
                    at += len;
                }
                None => break,
            }
        }
        self.rest.clear();
        self.rest.extend_from_slice(&data[at..]);
        segment.lens = lens;
    }
}

struct State {
    /// The next segment to read.
    next: u64,
    /// Segments being read, waiting or being hashed.
    out: usize,
    /// Cut, and not joined.
    cut: BTreeMap<u64, Segment>,
    /// The next segment to join.
    join: u64,
    joiner: Joiner,
    /// Joined, and not hashed.
    joined: Vec<Segment>,
    /// Hashed leaves by segment.
    done: Vec<(u64, Vec<Leaf>)>,
    failed: Option<io::Error>,
}

/// A file being cut and hashed by several workers.
struct Work<'a> {
    hasher: &'a Hasher<'a>,
    file: &'a dyn BackendFile,
    size: u64,
    segment: usize,
    segments: u64,
    /// Room before a segment's bytes.
    head: usize,
    /// Segments that may be read, waiting or being hashed at once.
    out_max: usize,
    state: Mutex<State>,
    changed: Condvar,
}

enum Step {
    Read(u64),
    Hash(Segment),
}

/// The leaves of the first `size` bytes of `file`, read `segment` bytes at a time by `workers` threads of the current pool.
///
/// # Errors
/// `UnexpectedEof` if the file has fewer bytes, `Interrupted` if cancelled, or what reading gave.
pub(super) fn leaves(
    hasher: &Hasher<'_>,
    file: &dyn BackendFile,
    size: u64,
    (segment, workers): (usize, usize),
) -> io::Result<Vec<Leaf>> {
    let profile = hasher.recipe.profile;
    let head = profile.max_len();
    let segments = size.div_ceil(segment as u64);
    let workers = workers.min(usize::try_from(segments).unwrap_or(usize::MAX)).max(1);
    let work = Work {
        hasher,
        file,
        size,
        segment,
        segments,
        head,
        out_max: (workers * BUFFERS_PER_WORKER)
            .min(BUFFER_BYTES_MAX / (segment + head))
            .max(2),
        state: Mutex::new(State {
            next: 0,
            out: 0,
            cut: BTreeMap::new(),
            join: 0,
            joiner: Joiner {
                profile,
                rest: Vec::new(),
            },
            joined: Vec::new(),
            done: Vec::new(),
            failed: None,
        }),
        changed: Condvar::new(),
    };
    rayon::in_place_scope(|scope| {
        let work = &work;
        for _ in 1..workers {
            scope.spawn(move |_| work.run());
        }
        work.run();
    });
    let state = work
        .state
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(e) = state.failed {
        return Err(e);
    }
    let mut done = state.done;
    done.sort_unstable_by_key(|(number, _)| *number);
    Ok(done.into_iter().flat_map(|(_, leaves)| leaves).collect())
}

impl Work<'_> {
    /// Does what there is to do until nothing is left or something failed.
    fn run(&self) {
        let _release = Release(self);
        while let Some(step) = self.next_step() {
            let done = match step {
                Step::Read(number) => self.read(number).map(|segment| self.join(segment)),
                Step::Hash(segment) => {
                    self.hash(segment);
                    Ok(())
                }
            };
            if let Err(e) = done {
                self.fail(e);
            }
        }
    }

    fn next_step(&self) -> Option<Step> {
        let mut state = crate::lock(&self.state);
        loop {
            if state.failed.is_some() {
                return None;
            }
            if let Some(segment) = state.joined.pop() {
                return Some(Step::Hash(segment));
            }
            if state.next < self.segments && state.out < self.out_max {
                let number = state.next;
                state.next += 1;
                state.out += 1;
                return Some(Step::Read(number));
            }
            if state.next == self.segments && state.join == self.segments {
                return None;
            }
            // Another worker is at a segment that comes before: it wakes this one.
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    fn read(&self, number: u64) -> io::Result<Segment> {
        if self.hasher.meter.cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let at = number * self.segment as u64;
        let len = (self.size - at).min(self.segment as u64) as usize;
        self.file
            .read_ahead(at + (self.out_max * self.segment) as u64, self.segment as u64);
        let mut buf = self.hasher.buffers.take(self.head + len);
        let bytes = &mut buf[self.head..self.head + len];
        self.file.read_exact_at(bytes, at)?;
        Ok(Segment {
            number,
            lens: certain_cuts(bytes, number + 1 == self.segments, self.hasher.recipe.profile),
            buf,
            begin: self.head,
            end: self.head + len,
        })
    }

    /// Joins `segment`, and those that waited for it; or lets it wait.
    fn join(&self, segment: Segment) {
        let mut state = crate::lock(&self.state);
        let state = &mut *state;
        state.cut.insert(segment.number, segment);
        while let Some(mut segment) = state.cut.remove(&state.join) {
            state.join += 1;
            state.joiner.join(&mut segment, self.head, state.join == self.segments);
            state.joined.push(segment);
        }
        self.changed.notify_all();
    }

    fn hash(&self, segment: Segment) {
        let mut leaves = Vec::with_capacity(segment.lens.len());
        let mut at = segment.begin;
        for &len in &segment.lens {
            let leaf = &segment.buf[at..at + len as usize];
            leaves.push(self.hasher.recipe.leaf(leaf));
            at += leaf.len();
        }
        let len = (segment.end - self.head) as u64;
        self.hasher.buffers.give_back(segment.buf);
        let mut state = crate::lock(&self.state);
        state.done.push((segment.number, leaves));
        state.out -= 1;
        drop(state);
        self.changed.notify_one();
        self.hasher.meter.add_bytes(len, len);
    }

    fn fail(&self, e: io::Error) {
        crate::lock(&self.state).failed.get_or_insert(e);
        self.changed.notify_all();
    }
}

/// Lets the others end when a worker panics: they would wait for its segment.
struct Release<'a, 'b>(&'a Work<'b>);

impl Drop for Release<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(io::Error::other("a worker panicked"));
        }
    }
}

#[cfg(test)]
mod tests {
    use modswarm_protocol::HashKind;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        backend::{Identity, SystemBackend},
        observer::Meter,
        share::hash::{Buffers, Recipe},
    };

    fn leaves_with(profile: ChunkerProfile, data: Vec<u8>, len: u64, how: (usize, usize)) -> io::Result<Vec<Leaf>> {
        let hasher = Hasher {
            backend: &SystemBackend,
            recipe: recipe(profile),
            meter: &Meter::new(&()),
            buffers: Buffers::default(),
        };
        leaves(&hasher, &Bytes(data), len, how)
    }

    fn recipe(profile: ChunkerProfile) -> Recipe {
        Recipe {
            profile,
            hash: HashKind::Blake3,
        }
    }

    /// A file in memory.
    #[derive(Debug)]
    struct Bytes(Vec<u8>);

    impl BackendFile for Bytes {
        fn identity(&self) -> io::Result<Identity> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
            let bytes = self.0.get(offset as usize..).and_then(|rest| rest.get(..buf.len()));
            buf.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }

        fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn set_len(&self, _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn sync(&self) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    fn profiles() -> impl Strategy<Value = ChunkerProfile> {
        prop_oneof![
            (8_u32..=19).prop_map(|bits| ChunkerProfile::FastCdc2020 { average: 1 << bits }),
            Just(ChunkerProfile::DEFAULT),
            (1_u32..=200_000).prop_map(|size| ChunkerProfile::Fixed { size }),
            Just(ChunkerProfile::IPIP_499),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(192))]
        #[test]
        fn segments_joined_give_the_leaves_of_one_pass(
            seed in any::<u64>(),
            profile in profiles(),
            len in 1_usize..400_000,
            segment in prop_oneof![64_usize..5000, 5000_usize..200_000],
            workers in 1_usize..5,
            same in prop::collection::vec((any::<prop::sample::Index>(), 1_usize..150_000, any::<u8>()), 0..4),
            period in prop::option::of(1_usize..50_000),
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
                let begin = place.index(len);
                let end = len.min(begin + run);
                data[begin..end].fill(byte);
            }
            if let Some(period) = period {
                for at in period..len {
                    data[at] = data[at - period];
                }
            }
            // Leaves of one byte would make this a test of patience.
            prop_assume!(len / profile.max_len() < 20_000);
            let expected: Vec<Leaf> = profile.chunks(&data).map(|chunk| recipe(profile).leaf(chunk)).collect();
            let given = leaves_with(profile, data, len as u64, (segment, workers)).unwrap();
            prop_assert_eq!(given, expected);
        }
    }

    #[test]
    fn a_file_that_ends_early_is_an_error_and_nobody_waits() {
        let error = leaves_with(ChunkerProfile::DEFAULT, vec![7; 300_000], 1_000_000, (50_000, 3)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn most_of_a_segments_own_cuts_stand() {
        let mut x = 88_172_645_463_325_252_u64;
        let data: Vec<u8> = (0..4 << 20)
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
            })
            .collect();
        let profile = ChunkerProfile::DEFAULT;
        let half = data.len() / 2;
        let whole: std::collections::HashSet<usize> = certain_cuts(&data, true, profile)
            .iter()
            .scan(0, |at, &len| {
                *at += len as usize;
                Some(*at)
            })
            .collect();
        let own = certain_cuts(&data[half..], true, profile);
        let stand = own.iter().scan(half, |at, &len| {
            *at += len as usize;
            Some(*at)
        });
        let stand = stand.filter(|at| whole.contains(at)).count();
        assert!(stand + 6 >= own.len(), "{stand} of {}", own.len());
    }
}
