//! Hashing and disk, off the executor: a pool of threads that verifies what arrives and reads what is served.
//!
//! What may be in the air is bounded in bytes; who brings a block waits for room before its payload is read from the socket.

use std::{
    io,
    panic::{self, AssertUnwindSafe},
    sync::Arc,
};

use bytes::Bytes;
use modswarm_protocol::{
    Cid,
    engine::{Expected, Verdict},
};
use modswarm_store::{Download, NetworkId, ReadLeafError, Store, WriteError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::{
    facts::{Input, Wanted},
    threads::Threads,
};

/// Payload bytes that may wait to be verified and written. What is on request beyond waits in the connection, which has room for all of that.
const ROOM_BYTES: usize = 8 * 1024 * 1024;
/// Permits are handed out in units of this many bytes.
const ROOM_UNIT: usize = 1024;

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

    /// Reads a block to serve; nothing if it is not here.
    pub(super) fn read(&self, cid: Cid, source: Source) -> oneshot::Receiver<Option<Bytes>> {
        let (done, bytes) = oneshot::channel();
        let inner = Arc::clone(&self.inner);
        self.inner.threads.spawn(move || {
            let _ = done.send(inner.load(cid, source));
        });
        bytes
    }

    /// Verifies a block and keeps it; the verdict goes to `inputs`, whatever happens. `room` is given back before.
    pub(super) fn take(
        &self,
        block: Wanted,
        payload: Vec<u8>,
        room: Option<OwnedSemaphorePermit>,
        inputs: mpsc::Sender<Input>,
    ) {
        self.inner.threads.spawn(move || {
            let Wanted { expected, download } = block;
            // The engine waits for every verdict: a defect that shows here must not keep one from coming.
            let judged = panic::catch_unwind(AssertUnwindSafe(|| judge(&expected, download, payload)));
            let Judged { verdict, node, problem } = judged.unwrap_or_else(|_| {
                tracing::error!(cid = %expected.cid, "a block could not be kept, by a defect of this program");
                Judged::not_kept(None)
            });
            drop(room);
            let _ = inputs.blocking_send(Input::Verdict {
                expected,
                verdict,
                node,
                problem,
            });
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

    fn not_kept(problem: Option<WriteError>) -> Self {
        Self {
            problem,
            ..Self::of(Verdict::WriteFailed)
        }
    }
}

/// Verifies a block, and writes it if it is a piece.
fn judge(expected: &Expected, download: Option<Download>, payload: Vec<u8>) -> Judged {
    if !expected.cid.verifies(&payload) {
        return Judged::of(Verdict::Corrupt);
    }
    let Some(piece) = expected.piece else {
        return Judged {
            node: Some(Bytes::from(payload)),
            ..Judged::of(Verdict::Good)
        };
    };
    match download.map(|download| download.write_piece(piece, &payload)) {
        Some(Ok(())) => Judged::of(Verdict::Good),
        // The download has ended meanwhile: there is nobody to tell.
        None | Some(Err(WriteError::Ended)) => Judged::not_kept(None),
        Some(Err(error)) => Judged::not_kept(Some(error)),
    }
}

impl Inner {
    fn load(&self, cid: Cid, source: Source) -> Option<Bytes> {
        let leaf = match source {
            Source::Node => {
                return self.store.node(&cid).unwrap_or_else(|error| {
                    tracing::warn!(%cid, %error, "cannot read a node");
                    None
                });
            }
            Source::Leaf(len) => self.store.read_leaf(&cid, len),
            Source::AnyLeaf => self.store.read_leaf_in(&cid, &self.network),
        };
        match leaf {
            Ok(bytes) => Some(bytes),
            Err(ReadLeafError::NotHere(_) | ReadLeafError::Lost(_)) => None,
            Err(error) => {
                tracing::warn!(%cid, %error, "cannot read a block");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use modswarm_protocol::{
        Timestamp,
        engine::{ConnId, ContentSpec, Engine, EngineConfig, PickOrder},
        format::{Content, Name},
        wire,
    };
    use modswarm_store::{Conflicts, DownloadSpec, HomeLock, ShareSpec, StoreOptions};

    use super::*;

    const NETWORK: NetworkId = [7; 32];

    fn open(home: &Path) -> Store {
        let lock = HomeLock::try_acquire(home).unwrap().expect("nobody else holds it");
        Store::open(lock, StoreOptions::default()).unwrap()
    }

    /// Shares a folder of `files` files that differ.
    fn share(store: &Store, folder: &Path, files: u8) -> Content {
        fs::create_dir(folder).unwrap();
        (0..files).for_each(|n| fs::write(folder.join(n.to_string()), [n; 100]).unwrap());
        let shared = store.share(&ShareSpec::new(folder, NETWORK), &()).unwrap();
        store.skeleton(&shared.pack, None).unwrap().unwrap().content
    }

    fn download(seed: &Store, to: &Store, content: &Content, destination: &Path) -> Download {
        let node = |cid: &Cid| (*cid, seed.node(cid).unwrap().unwrap());
        to.put_nodes(&content.node_cids().iter().map(node).collect::<Vec<_>>())
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
