//! From a file to its leaves: read, cut, hash, with every core busy and bounded memory.
//!
//! A small file is one task, read whole; a large one is cut in [`parallel`](super::parallel), by all workers at once.

use std::{io, path::Path, sync::Mutex};

use modswarm_protocol::{
    Cid, Codec, HashKind,
    format::{ChunkerProfile, Leaf},
};

use super::parallel;
use crate::{
    backend::{Backend, BackendFile, Identity},
    error::ShareError,
    observer::Meter,
};

/// Bytes read at once.
const SEGMENT: usize = 1 << 20;
/// From this size on all workers are at a file together.
pub(super) const LARGE_MIN: u64 = 8 << 20;
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

/// What hashing the files of one share has in common.
pub(crate) struct Hasher<'a> {
    pub(crate) backend: &'a dyn Backend,
    pub(crate) recipe: Recipe,
    pub(crate) meter: &'a Meter<'a>,
    pub(crate) buffers: Buffers,
}

/// Buffers to be used again: fresh ones cost a page fault every 4 KiB. As many as were in use at once.
#[derive(Debug, Default)]
pub(crate) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// A buffer of at least `len` bytes, whatever is in it.
    pub(super) fn take(&self, len: usize) -> Vec<u8> {
        let mut buf = crate::lock(&self.0).pop().unwrap_or_default();
        if buf.len() < len {
            buf.resize(len, 0);
        }
        buf
    }

    pub(super) fn give_back(&self, buf: Vec<u8>) {
        crate::lock(&self.0).push(buf);
    }
}

impl Hasher<'_> {
    /// Reads, cuts and hashes the file at `path`, again if it changes meanwhile.
    pub(crate) fn hash_file(&self, path: &Path) -> Result<Hashed, ShareError> {
        let io = |source: io::Error| ShareError::Io {
            path: path.to_owned(),
            source,
        };
        for _ in 0..ATTEMPTS {
            let file = self.backend.open(path).map_err(io)?;
            let before = file.identity().map_err(io)?;
            let leaves = match self.leaves_of(&*file, before.size) {
                Ok(leaves) => leaves,
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => continue,
                Err(e) if e.kind() == io::ErrorKind::Interrupted && self.meter.cancelled() => {
                    return Err(ShareError::Cancelled);
                }
                Err(e) => return Err(io(e)),
            };
            let seen = self.backend.now_ns();
            let after = file.identity().map_err(io)?;
            let there = self.backend.identity_at(path).map_err(io)?;
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
    fn leaves_of(&self, file: &dyn BackendFile, size: u64) -> io::Result<Vec<Leaf>> {
        if size > SEGMENT as u64 {
            file.advise_sequential();
            let workers = if size < LARGE_MIN {
                1
            } else {
                rayon::current_num_threads()
            };
            return parallel::leaves(self, file, size, (SEGMENT, workers));
        }
        let len = size as usize;
        let mut buf = self.buffers.take(len);
        let read = file.read_exact_at(&mut buf[..len], 0);
        // Exact for the many files that are one leaf.
        let mut leaves = Vec::with_capacity(len / self.recipe.profile.max_len() + 1);
        if read.is_ok() {
            // Each is hashed while it is in the processor's nearest cache.
            for leaf in self.recipe.profile.chunks(&buf[..len]) {
                leaves.push(self.recipe.leaf(leaf));
            }
            self.meter.add_bytes(size, size);
        }
        self.buffers.give_back(buf);
        read.map(|()| leaves)
    }
}

impl Recipe {
    pub(super) fn leaf(self, bytes: &[u8]) -> Leaf {
        Leaf {
            cid: Cid::of(Codec::Raw, self.hash, bytes),
            len: bytes.len() as u32,
        }
    }
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
        let all = noise(LARGE_MIN as usize + SEGMENT + 12_345);
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
                LARGE_MIN as usize,
                all.len(),
            ] {
                let data = &all[..len];
                let mut file = tempfile::NamedTempFile::new().unwrap();
                file.write_all(data).unwrap();
                let hasher = Hasher {
                    backend: &SystemBackend,
                    recipe,
                    meter: &Meter::new(&()),
                    buffers: Buffers::default(),
                };
                let given = hasher.hash_file(file.path()).unwrap().leaves;
                let slow: Vec<Leaf> = profile.chunks(data).map(|chunk| recipe.leaf(chunk)).collect();
                assert_eq!(given, slow, "{profile} {len}");
            }
        }
    }
}
