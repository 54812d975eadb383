//! From a file to its leaves: read, cut, hash, with every core busy and bounded memory.
//!
//! A small file is one task. A large one is a pipeline: a thread reads [`SEGMENT`]s ahead, the task cuts them (cut points depend on
//! each other), and whole segments of cut leaves are hashed by whichever worker is idle, or by the task itself when none is.

use std::{
    io,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread,
};

use modswarm_protocol::{
    Cid, Codec, HashKind,
    format::{ChunkerProfile, Leaf},
};

use crate::{
    backend::{Backend, BackendFile, Identity},
    error::ShareError,
    observer::Meter,
};

/// Bytes read at once.
const SEGMENT: usize = 1 << 20;
/// From this size on a file is read by a thread of its own.
const PIPELINE_MIN: u64 = 16 << 20;
/// Segments read ahead.
const READ_AHEAD: usize = 2;
/// Segments of one file that wait to be hashed; beyond, the cutter hashes.
const HASH_AHEAD: usize = 2;
/// Times that a file that changes under the reader is begun anew.
const ATTEMPTS: usize = 3;

/// How to make leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipe {
    pub(crate) profile: ChunkerProfile,
    pub(crate) hash: HashKind,
}

/// A file's leaves, and the identity under which they are certain.
#[derive(Debug)]
pub(crate) struct Hashed {
    pub(crate) identity: Identity,
    pub(crate) seen: i64,
    pub(crate) leaves: Vec<Leaf>,
}

/// Reads, cuts and hashes the file at `path`, again if it changes meanwhile.
pub(crate) fn hash_file(
    backend: &dyn Backend,
    path: &Path,
    recipe: Recipe,
    meter: &Meter<'_>,
) -> Result<Hashed, ShareError> {
    let io = |source: io::Error| ShareError::Io {
        path: path.to_owned(),
        source,
    };
    for _ in 0..ATTEMPTS {
        let file = backend.open(path).map_err(io)?;
        let before = file.identity().map_err(io)?;
        let leaves = match leaves_of(&*file, before.size, recipe, meter) {
            Ok(leaves) => leaves,
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => continue,
            Err(e) if e.kind() == io::ErrorKind::Interrupted && meter.cancelled() => return Err(ShareError::Cancelled),
            Err(e) => return Err(io(e)),
        };
        let seen = backend.now_ns();
        let after = file.identity().map_err(io)?;
        let there = backend.identity_at(path).map_err(io)?;
        if before == after && there == Some(after) {
            return Ok(Hashed {
                identity: after,
                seen,
                leaves,
            });
        }
    }
    Err(ShareError::Changing(path.to_owned()))
}

/// The leaves of the first `size` bytes of `file`; `UnexpectedEof` if it has fewer, `Interrupted` if cancelled.
fn leaves_of(file: &dyn BackendFile, size: u64, recipe: Recipe, meter: &Meter<'_>) -> io::Result<Vec<Leaf>> {
    let head = recipe.profile.max_len();
    if size <= SEGMENT as u64 {
        return with_buffer(size as usize, |buf| {
            file.read_exact_at(buf, 0)?;
            let mut leaves = Vec::with_capacity(buf.len() / (head / 4).max(1) + 1);
            hash_run(buf, &cuts(buf, true, recipe).0, recipe, &mut leaves);
            meter.add_bytes(size, size);
            Ok(leaves)
        });
    }
    file.advise_sequential();
    let cutter = Cutter {
        recipe,
        meter,
        head,
        size,
        done: Mutex::default(),
        spare: Mutex::default(),
        queued: AtomicUsize::new(0),
    };
    if size < PIPELINE_MIN {
        let mut at = 0;
        cutter.run(&mut || {
            let segment = read_segment(file, at, size, head, cutter.spare())?;
            at += (segment.len() - head) as u64;
            Ok(segment)
        })?;
    } else {
        thread::scope(|scope| {
            let (segments, read) = mpsc::sync_channel(READ_AHEAD);
            let cutter = &cutter;
            scope.spawn(move || {
                let mut at = 0;
                while at < size {
                    let segment = read_segment(file, at, size, head, cutter.spare());
                    let failed = segment.is_err();
                    at += segment.as_ref().map_or(0, |s| (s.len() - head) as u64);
                    // The cutter is gone if it was cancelled.
                    if segments.send(segment).is_err() || failed {
                        return;
                    }
                }
            });
            cutter.run(&mut || read.recv().unwrap_or_else(|_| Err(io::ErrorKind::UnexpectedEof.into())))
        })?;
    }
    let mut runs = std::mem::take(&mut *crate::lock(&cutter.done));
    runs.sort_unstable_by_key(|(at, _)| *at);
    Ok(runs.into_iter().flat_map(|(_, leaves)| leaves).collect())
}

/// Reads the segment at `at` into a buffer that leaves `head` bytes of room before it, for what the cutter has left over.
fn read_segment(file: &dyn BackendFile, at: u64, size: u64, head: usize, mut buf: Vec<u8>) -> io::Result<Vec<u8>> {
    let len = (size - at).min(SEGMENT as u64) as usize;
    buf.resize(head + len, 0);
    file.read_exact_at(&mut buf[head..], at)?;
    Ok(buf)
}

struct Cutter<'a> {
    recipe: Recipe,
    meter: &'a Meter<'a>,
    head: usize,
    size: u64,
    /// Hashed runs with the offsets of their segments.
    done: Mutex<Vec<(u64, Vec<Leaf>)>>,
    /// Buffers to be used again: fresh ones cost a page fault every 4 KiB.
    spare: Mutex<Vec<Vec<u8>>>,
    queued: AtomicUsize,
}

impl Cutter<'_> {
    fn spare(&self) -> Vec<u8> {
        crate::lock(&self.spare).pop().unwrap_or_default()
    }

    fn run(&self, next: &mut dyn FnMut() -> io::Result<Vec<u8>>) -> io::Result<()> {
        let this = self;
        rayon::in_place_scope(|scope| {
            let mut at = 0;
            let mut rest: Vec<u8> = Vec::new();
            while at < this.size {
                if this.meter.cancelled() {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                let mut segment = next()?;
                let read = (segment.len() - this.head) as u64;
                let begin = this.head - rest.len();
                segment[begin..this.head].copy_from_slice(&rest);
                let order = at;
                at += read;
                let (lens, used) = cuts(&segment[begin..], at == this.size, this.recipe);
                rest.clear();
                rest.extend_from_slice(&segment[begin + used..]);
                let work = move || {
                    let mut leaves = Vec::with_capacity(lens.len());
                    hash_run(&segment[begin..], &lens, this.recipe, &mut leaves);
                    crate::lock(&this.done).push((order, leaves));
                    crate::lock(&this.spare).push(segment);
                    this.meter.add_bytes(read, read);
                };
                if this.queued.fetch_add(1, Relaxed) < HASH_AHEAD {
                    scope.spawn(move |_| {
                        work();
                        this.queued.fetch_sub(1, Relaxed);
                    });
                } else {
                    work();
                    this.queued.fetch_sub(1, Relaxed);
                }
            }
            Ok(())
        })
    }
}

/// The lengths of the leaves at the start of `data`, as far as they are certain, and the bytes that they take.
fn cuts(data: &[u8], last: bool, recipe: Recipe) -> (Vec<u32>, usize) {
    let mut lens = Vec::new();
    let mut at = 0;
    while at < data.len() && (last || data.len() - at >= recipe.profile.max_len()) {
        let len = recipe.profile.next_cut(&data[at..]);
        lens.push(len as u32);
        at += len;
    }
    (lens, at)
}

fn hash_run(data: &[u8], lens: &[u32], recipe: Recipe, leaves: &mut Vec<Leaf>) {
    let mut at = 0;
    for &len in lens {
        let end = at + len as usize;
        leaves.push(Leaf {
            cid: Cid::of(Codec::Raw, recipe.hash, &data[at..end]),
            len,
        });
        at = end;
    }
}

/// Lends a buffer that the thread uses again.
fn with_buffer<T>(len: usize, f: impl FnOnce(&mut [u8]) -> T) -> T {
    thread_local! {
        static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
    }
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.len() < len {
            buffer.resize(len, 0);
        }
        f(&mut buffer[..len])
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::backend::SystemBackend;

    /// Bytes that look random and are not.
    fn noise(len: usize) -> Vec<u8> {
        let mut x = 0x9e37_79b9_7f4a_7c15_u64;
        (0..len)
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                (x >> 32) as u8
            })
            .collect()
    }

    #[test]
    fn a_file_gives_the_same_leaves_whichever_way_it_is_read() {
        let all = noise(PIPELINE_MIN as usize + SEGMENT + 12_345);
        for profile in [
            ChunkerProfile::DEFAULT,
            ChunkerProfile::IPIP_499,
            ChunkerProfile::Fixed { size: 700_001 },
        ] {
            let recipe = Recipe {
                profile,
                hash: HashKind::Blake3,
            };
            for len in [
                0,
                1,
                5000,
                SEGMENT,
                SEGMENT + 1,
                5 * SEGMENT,
                PIPELINE_MIN as usize,
                all.len(),
            ] {
                let data = &all[..len];
                let mut file = tempfile::NamedTempFile::new().unwrap();
                file.write_all(data).unwrap();
                let given = hash_file(&SystemBackend, file.path(), recipe, &Meter::new(&()))
                    .unwrap()
                    .leaves;
                let slow: Vec<Leaf> = profile
                    .chunks(data)
                    .map(|chunk| Leaf {
                        cid: Cid::of(Codec::Raw, HashKind::Blake3, chunk),
                        len: chunk.len() as u32,
                    })
                    .collect();
                assert_eq!(given, slow, "{profile} {len}");
            }
        }
    }
}
