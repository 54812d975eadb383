//! Hashing and disk, off the executor: a pool of threads that verifies what arrives and reads what is served.
//!
//! What may be in the air is bounded in bytes; who brings a block waits for room before its payload is read from the socket.

use std::{
    collections::VecDeque,
    io,
    panic::{self, AssertUnwindSafe},
    slice,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use modswarm_protocol::{Cid, engine::Verdict};
use modswarm_store::{NetworkId, ReadLeafError, Store, WriteError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::{
    facts::{Input, Wanted},
    threads::Threads,
};

/// Payload bytes that may wait to be verified and written. What is on request beyond waits in the connection, which has room for all of that.
const ROOM_BYTES: usize = 8 * 1024 * 1024;
/// Permits are handed out in units of this many bytes.
const ROOM_UNIT: usize = 1024;

/// Blocks that one thread verifies and writes together.
const TOGETHER_MAX: usize = 16;

/// Where a block to serve lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A leaf of so many bytes, in a file.
    Leaf(u32),
    /// A leaf in any pack of the node's network.
    AnyLeaf,
    /// A node or pack.json, in the index.
    Node,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(super) struct BlockPool {
    inner: Arc<Inner>,
}

struct Inner {
    threads: Threads,
    store: Store,
    network: NetworkId,
    room: Arc<Semaphore>,
    arrived: Mutex<Waiting>,
}

/// Blocks to judge. A job that finds several does a share of them together; while there are any, a job waits for its turn.
#[derive(Default)]
struct Waiting {
    /// In the order in which they came.
    blocks: VecDeque<Arrived>,
    /// Jobs that wait: no more than there are threads.
    jobs: usize,
}

/// A leaf that is to be read.
struct Asked {
    cid: Cid,
    len: u32,
    done: oneshot::Sender<Option<Bytes>>,
}

/// A block that came and is to be judged.
struct Arrived {
    block: Wanted,
    payload: Bytes,
    room: Option<OwnedSemaphorePermit>,
    inputs: mpsc::Sender<Input>,
}

impl BlockPool {
    pub(super) fn new(store: Store, network: NetworkId) -> io::Result<Self> {
        let threads = Threads::start("blocks")?;
        let room = Arc::new(Semaphore::new(ROOM_BYTES / ROOM_UNIT));
        Ok(Self {
            inner: Arc::new(Inner {
                threads,
                store,
                network,
                room,
                arrived: Mutex::default(),
            }),
        })
    }

    pub(super) fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Waits until a block of `len` bytes may be taken in.
    pub(super) async fn room(&self, len: usize) -> Option<OwnedSemaphorePermit> {
        let units = len.div_ceil(ROOM_UNIT).max(1) as u32;
        Arc::clone(&self.inner.room).acquire_many_owned(units).await.ok()
    }

    /// Reads blocks to serve, those that are leaves together; nothing for one that is not here.
    pub(super) fn read(
        &self,
        blocks: impl IntoIterator<Item = (Cid, Source)>,
    ) -> Vec<oneshot::Receiver<Option<Bytes>>> {
        let mut leaves = Vec::new();
        let mut read = |(cid, source)| {
            let (done, bytes) = oneshot::channel();
            let inner = Arc::clone(&self.inner);
            match source {
                Source::Leaf(len) => leaves.push(Asked { cid, len, done }),
                Source::AnyLeaf => self.inner.threads.spawn(move || {
                    let leaf = inner.store.read_leaf_in(&cid, &inner.network);
                    let _ = done.send(readable(&cid, leaf));
                }),
                Source::Node => self.inner.threads.spawn(move || {
                    let _ = done.send(inner.node(&cid));
                }),
            }
            bytes
        };
        let reading = blocks.into_iter().map(&mut read).collect();
        let share = leaves.len().div_ceil(self.inner.threads.count()).max(1);
        let mut leaves = leaves.into_iter();
        loop {
            let asked: Vec<Asked> = leaves.by_ref().take(share).collect();
            if asked.is_empty() {
                break reading;
            }
            let inner = Arc::clone(&self.inner);
            self.inner.threads.spawn(move || inner.read_leaves(asked));
        }
    }

    /// Verifies a block and keeps it; the verdict goes to `inputs`, whatever happens. `room` is given back before.
    pub(super) fn take(
        &self,
        block: Wanted,
        payload: Vec<u8>,
        room: Option<OwnedSemaphorePermit>,
        inputs: mpsc::Sender<Input>,
    ) {
        let arrived = Arrived {
            block,
            payload: payload.into(),
            room,
            inputs,
        };
        let mut waiting = lock(&self.inner.arrived);
        waiting.blocks.push_back(arrived);
        if waiting.jobs < self.inner.threads.count() {
            waiting.jobs += 1;
            drop(waiting);
            self.judge_next();
        }
    }

    /// Has a thread judge a share of the blocks that wait.
    fn judge_next(&self) {
        let pool = self.clone();
        self.inner.threads.spawn(move || {
            let (blocks, more) = pool.inner.next_arrived();
            if more {
                pool.judge_next();
            }
            // The engine waits for every verdict: a defect that shows here must not keep one from coming, nor fall upon other blocks.
            let judged = panic::catch_unwind(AssertUnwindSafe(|| judge(&blocks))).unwrap_or_else(|_| {
                let alone = |block| panic::catch_unwind(AssertUnwindSafe(|| judge(slice::from_ref(block))));
                blocks
                    .iter()
                    .flat_map(|block| alone(block).unwrap_or_else(|_| vec![Judged::by_defect(block)]))
                    .collect()
            });
            for (block, judged) in blocks.into_iter().zip(judged) {
                let Judged { verdict, node, problem } = judged;
                drop(block.room);
                let _ = block.inputs.blocking_send(Input::Verdict {
                    expected: block.block.expected,
                    verdict,
                    node,
                    problem,
                });
            }
        });
    }
}

/// What became of a block.
struct Judged {
    verdict: Verdict,
    /// The bytes of a node, for the one who asked.
    node: Option<Bytes>,
    /// Why it was not kept, where that can be said.
    problem: Option<WriteError>,
}

impl Judged {
    fn of(verdict: Verdict) -> Self {
        Self {
            verdict,
            node: None,
            problem: None,
        }
    }

    fn by_defect(block: &Arrived) -> Self {
        let cid = block.block.expected.cid;
        tracing::error!(%cid, "a block could not be kept, by a defect of this program");
        Self::not_kept(None)
    }

    fn not_kept(problem: Option<WriteError>) -> Self {
        Self {
            problem,
            ..Self::of(Verdict::WriteFailed)
        }
    }
}

/// Verifies blocks, and writes those that are pieces.
fn judge(blocks: &[Arrived]) -> Vec<Judged> {
    let transfer = |arrived: &Arrived| arrived.block.expected.transfer;
    let of_one = |a: &Arrived, b: &Arrived| transfer(a) == transfer(b);
    blocks.chunk_by(of_one).flat_map(judge_transfer).collect()
}

/// As [`judge`], those of one transfer.
fn judge_transfer(blocks: &[Arrived]) -> Vec<Judged> {
    let mut judged = Vec::with_capacity(blocks.len());
    let (mut pieces, mut numbers, mut download) = (Vec::new(), Vec::new(), None);
    for (number, Arrived { block, payload, .. }) in blocks.iter().enumerate() {
        let expected = &block.expected;
        judged.push(if !expected.cid.verifies(payload) {
            Judged::of(Verdict::Corrupt)
        } else if let Some(piece) = expected.piece {
            // The download has ended meanwhile, unless it is written: there is nobody to tell.
            if block.download.is_some() {
                pieces.push((piece, &payload[..]));
                numbers.push(number);
                download = block.download.as_ref();
            }
            Judged::not_kept(None)
        } else {
            Judged {
                node: Some(payload.clone()),
                ..Judged::of(Verdict::Good)
            }
        });
    }
    let written = download.map(|download| download.write_pieces(&pieces));
    for (number, written) in numbers.into_iter().zip(written.into_iter().flatten()) {
        judged[number] = match written {
            Ok(()) => Judged::of(Verdict::Good),
            Err(WriteError::Ended) => Judged::not_kept(None),
            Err(error) => Judged::not_kept(Some(error)),
        };
    }
    judged
}

impl Inner {
    /// One thread's share of the blocks that wait: another may have had it already. Whether a job is to be spawned for the rest.
    fn next_arrived(&self) -> (Vec<Arrived>, bool) {
        let mut waiting = lock(&self.arrived);
        waiting.jobs -= 1;
        let share = waiting.blocks.len().div_ceil(self.threads.count()).min(TOGETHER_MAX);
        let blocks = waiting.blocks.drain(..share).collect();
        let more = waiting.jobs == 0 && !waiting.blocks.is_empty();
        waiting.jobs += usize::from(more);
        (blocks, more)
    }

    fn read_leaves(&self, mut asked: Vec<Asked>) {
        // Nobody waits any more for what a connection that has ended had asked for.
        asked.retain(|asked| !asked.done.is_closed());
        let leaves: Vec<(Cid, u32)> = asked.iter().map(|asked| (asked.cid, asked.len)).collect();
        let mut asked = asked.into_iter();
        self.store.read_leaves(&leaves, |_, leaf| {
            if let Some(Asked { cid, done, .. }) = asked.next() {
                let _ = done.send(readable(&cid, leaf));
            }
        });
    }

    fn node(&self, cid: &Cid) -> Option<Bytes> {
        self.store.node(cid).unwrap_or_else(|error| {
            tracing::warn!(%cid, %error, "cannot read a node");
            None
        })
    }
}

/// The bytes of a leaf, if it could be read.
fn readable(cid: &Cid, leaf: Result<Bytes, ReadLeafError>) -> Option<Bytes> {
    match leaf {
        Ok(bytes) => Some(bytes),
        Err(ReadLeafError::NotHere(_) | ReadLeafError::Lost(_)) => None,
        Err(error) => {
            tracing::warn!(%cid, %error, "cannot read a block");
            None
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use modswarm_protocol::{
        Timestamp,
        engine::{ConnId, ContentSpec, Engine, EngineConfig, Expected, PickOrder},
        format::{Content, Name},
        wire,
    };
    use modswarm_store::{Conflicts, Download, DownloadSpec, HomeLock, ShareSpec, StoreOptions};

    use super::*;

    const NETWORK: NetworkId = [7; 32];

    fn open(home: &Path) -> Store {
        let lock = HomeLock::try_acquire(home).unwrap().expect("nobody else holds it");
        Store::open(lock, StoreOptions::default()).unwrap()
    }

    /// Shares a folder of `files` files that differ.
    fn share(store: &Store, folder: &Path, files: u8) -> Arc<Content> {
        fs::create_dir(folder).unwrap();
        (0..files).for_each(|n| fs::write(folder.join(n.to_string()), [n; 100]).unwrap());
        let shared = store.share(&ShareSpec::new(folder, NETWORK), &()).unwrap();
        store.skeleton(&shared.pack, None).unwrap().unwrap().content
    }

    fn download(seed: &Store, to: &Store, content: &Content, destination: &Path) -> Download {
        let node = |cid: Cid| (cid, seed.node(&cid).unwrap().unwrap());
        to.put_nodes(&content.node_cids().map(node).collect::<Vec<_>>())
            .unwrap();
        let spec = DownloadSpec {
            pack: None,
            content: content.cid(),
            name: Name::new("Pack").unwrap(),
            destination: destination.to_owned(),
            selection: None,
            conflicts: Conflicts::Refuse,
            network: NETWORK,
        };
        to.begin_download(&spec, &()).unwrap()
    }

    #[tokio::test]
    async fn a_panic_over_a_block_gives_a_verdict_and_its_room_back() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dunce::canonicalize(dir.path()).unwrap().join(name);
        let (seed, store) = (open(&at("seed")), open(&at("home")));
        let small = share(&seed, &at("Small"), 1);
        let large = share(&seed, &at("Large"), 3);
        let pool = BlockPool::new(store.clone(), NETWORK).unwrap();
        let (inputs, mut facts) = mpsc::channel(1);
        let download = download(&seed, &store, &small, &at("mods"));
        // Only an engine numbers transfers.
        let mut engine = Engine::new(EngineConfig::default(), 1);
        let spec = ContentSpec {
            content: Some(small.cid()),
            packs: Vec::new(),
            network: wire::NetworkId(NETWORK),
            pieces: None,
            related: Vec::new(),
            order: PickOrder::default(),
        };
        let transfer = engine.add_content(Timestamp::ZERO, spec);

        // A piece of another content, whose map is larger, is what no download may be asked to write.
        let last = large.map().index(2).unwrap();
        let first = small.map().index(0).unwrap();
        for (content, piece, wanted) in [(&large, last, Verdict::WriteFailed), (&small, first, Verdict::Good)] {
            let leaf = content.map().leaf(piece);
            let payload = seed.read_leaf(&leaf.cid, leaf.len).unwrap().to_vec();
            let expected = Expected {
                conn: ConnId(1),
                transfer,
                cid: leaf.cid,
                len: leaf.len,
                piece: Some(piece),
            };
            let block = Wanted {
                expected,
                download: Some(download.clone()),
            };
            let room = pool.room(payload.len()).await;
            assert!(room.is_some());
            pool.take(block, payload, room, inputs.clone());
            let Some(Input::Verdict {
                expected: of,
                verdict,
                problem,
                ..
            }) = facts.recv().await
            else {
                panic!("a block was taken and no verdict came")
            };
            assert_eq!((of, verdict), (expected, wanted));
            assert!(problem.is_none(), "the disk is not to blame");
            assert_eq!(pool.inner.room.available_permits(), ROOM_BYTES / ROOM_UNIT);
        }
    }
}
