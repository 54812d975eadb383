//! Hashing and disk, off the executor: a pool of threads that verifies what arrives and reads what is served.
//!
//! What may be in the air is bounded in bytes; who brings a block waits for room before its payload is read from the socket.

use std::{io, sync::Arc};

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

    /// Verifies a block and keeps it; the verdict goes to `inputs`. `room` is given back then.
    pub(super) fn take(
        &self,
        block: Wanted,
        payload: Vec<u8>,
        room: Option<OwnedSemaphorePermit>,
        inputs: mpsc::Sender<Input>,
    ) {
        self.inner.threads.spawn(move || {
            let Wanted { expected, download } = block;
            let mut problem = None;
            let mut node = None;
            let verdict = if !expected.cid.verifies(&payload) {
                Verdict::Corrupt
            } else if let Some(piece) = expected.piece {
                match download.map(|download| download.write_piece(piece, &payload)) {
                    Some(Ok(())) => Verdict::Good,
                    // The download has ended meanwhile: there is nobody to tell.
                    None | Some(Err(WriteError::Ended)) => Verdict::WriteFailed,
                    Some(Err(error)) => {
                        problem = Some(error);
                        Verdict::WriteFailed
                    }
                }
            } else {
                node = Some(Bytes::from(payload));
                Verdict::Good
            };
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
