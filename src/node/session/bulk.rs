//! The bulk streams: blocks, one way each.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use libp2p::Stream;
use modswarm_protocol::{
    engine::{ConnId, ServeFailure, ServeJob},
    wire::{BulkHeader, Encoding, StreamKind},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    pace::{self, Pace},
    throttle::Throttles,
};
use crate::node::{
    blocks::{BlockPool, Source},
    facts::{HeaderReply, Input, Served, SessionError},
    swap::InboundStream,
};

/// Blocks that wait to be read and sent to one peer.
pub(in crate::node) const SERVE_QUEUE: usize = 4096;
/// Blocks that are read from disk ahead of the one being sent.
const READ_AHEAD: usize = 16;
/// Frames are gathered up to this many bytes before they are written.
const WRITE_BATCH: usize = 256 * 1024;
/// Served blocks that are reported together.
const DONE_BATCH: usize = 32;
/// Arriving payload bytes that are told to the engine together…
const PROGRESS_STEP: usize = 64 * 1024;
/// …or what has come in this time: a block from a peer with a low limit takes long, and is no stall.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// Bytes asked of the socket at once.
const READ_CHUNK: usize = 64 * 1024;
/// Memory for a longer payload is taken only once the engine has said that it is wanted.
const EAGER: usize = 256 * 1024;
/// What bulk streams carry, for errors.
const BLOCKS: &str = "blocks";

/// A block that the engine wants sent.
#[derive(Debug)]
pub(in crate::node) struct Serve {
    pub(in crate::node) job: ServeJob,
    /// Where to read it.
    pub(in crate::node) source: Source,
}

struct Reading {
    job: ServeJob,
    bytes: oneshot::Receiver<Option<Bytes>>,
}

/// Reads and sends the blocks of `queue`, in order.
pub(super) async fn write(
    mut stream: Stream,
    mut queue: mpsc::Receiver<Serve>,
    pool: BlockPool,
    throttles: Throttles,
    inputs: mpsc::Sender<Input>,
) -> SessionError {
    let result: Result<(), SessionError> = async {
        let mut buffer = vec![StreamKind::Bulk.to_byte()];
        let mut done = Vec::new();
        let mut reading: VecDeque<Reading> = VecDeque::new();
        loop {
            if reading.is_empty() {
                if !buffer.is_empty() || !done.is_empty() {
                    flush(&mut stream, &mut buffer, &mut done, &inputs).await?;
                }
                let serve = queue.recv().await.ok_or(SessionError::NodeEnded)?;
                read_ahead(&mut reading, Some(serve), &mut queue, &pool);
            } else if reading.len() <= READ_AHEAD / 2 {
                read_ahead(&mut reading, None, &mut queue, &pool);
            }
            let Some(Reading { job, bytes }) = reading.pop_front() else {
                continue;
            };
            let Some(bytes) = bytes.await.ok().flatten() else {
                done.push((job, Err(ServeFailure::NotHere)));
                continue;
            };
            let len = bytes.len() as u32;
            BulkHeader {
                handle: job.handle,
                what: job.what,
                encoding: Encoding::Plain,
                len,
            }
            .encode(&mut buffer);
            if !throttles.let_pass(&job) {
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    // Something may wait behind it that its own limit must not hold up.
                    read_ahead(&mut reading, None, &mut queue, &pool);
                    let others = reading.iter().map(|other| &other.job);
                    match throttles.ask(&job, rest.len() as u32, others) {
                        Ok(granted) => {
                            let (now, later) = rest.split_at(granted as usize);
                            buffer.extend_from_slice(now);
                            rest = later;
                            if buffer.len() >= WRITE_BATCH {
                                flush(&mut stream, &mut buffer, &mut done, &inputs).await?;
                            }
                        }
                        Err(at) => {
                            flush(&mut stream, &mut buffer, &mut done, &inputs).await?;
                            tokio::time::sleep_until(at.into()).await;
                        }
                    }
                }
                done.push((job, Ok(len)));
                continue;
            }
            done.push((job, Ok(len)));
            if bytes.len() >= WRITE_BATCH / 2 {
                // Large blocks are not copied together.
                pace::write_all(&mut stream, &buffer, BLOCKS).await?;
                buffer.clear();
                pace::write_all(&mut stream, &bytes, BLOCKS).await?;
            } else {
                buffer.extend_from_slice(&bytes);
            }
            if buffer.len() >= WRITE_BATCH || done.len() >= DONE_BATCH {
                flush(&mut stream, &mut buffer, &mut done, &inputs).await?;
            }
        }
    }
    .await;
    result.err().unwrap_or(SessionError::Ended)
}

/// Begins to read `first` and what waits in `queue`, as far as blocks may be read ahead.
fn read_ahead(
    reading: &mut VecDeque<Reading>,
    first: Option<Serve>,
    queue: &mut mpsc::Receiver<Serve>,
    pool: &BlockPool,
) {
    let room = READ_AHEAD.saturating_sub(reading.len());
    let queued = std::iter::from_fn(|| queue.try_recv().ok());
    let serves: Vec<Serve> = first.into_iter().chain(queued).take(room).collect();
    let bytes = pool.read(serves.iter().map(|serve| (serve.job.cid, serve.source)));
    reading.extend(
        serves
            .iter()
            .zip(bytes)
            .map(|(serve, bytes)| Reading { job: serve.job, bytes }),
    );
}

async fn flush(
    stream: &mut Stream,
    buffer: &mut Vec<u8>,
    done: &mut Vec<Served>,
    inputs: &mpsc::Sender<Input>,
) -> Result<(), SessionError> {
    pace::write_all(stream, buffer, BLOCKS).await?;
    pace::flush(stream, BLOCKS).await?;
    buffer.clear();
    if !done.is_empty() {
        let blocks = std::mem::take(done);
        inputs
            .send(Input::Served { blocks })
            .await
            .map_err(|_| SessionError::NodeEnded)?;
    }
    Ok(())
}

/// Reads the peer's blocks and hands each to the block pool, as far as the engine expects it.
pub(super) async fn read(
    conn: ConnId,
    inbound: InboundStream,
    pool: BlockPool,
    inputs: mpsc::Sender<Input>,
) -> SessionError {
    let InboundStream {
        stream,
        permit: _permit,
    } = inbound;
    let mut reader = Reader {
        conn,
        stream,
        buffer: BytesMut::with_capacity(READ_CHUNK),
        pace: Pace::default(),
        inputs,
    };
    loop {
        if let Err(error) = reader.block(&pool).await {
            return error;
        }
    }
}

struct Reader {
    conn: ConnId,
    stream: Stream,
    buffer: BytesMut,
    pace: Pace,
    inputs: mpsc::Sender<Input>,
}

impl Reader {
    /// Reads one block.
    async fn block(&mut self, pool: &BlockPool) -> Result<(), SessionError> {
        let header = self.header().await?;
        let len = header.len as usize;
        let (reply, mut expected) = oneshot::channel();
        // The last byte is told once the block is on its way to its verdict: the engine then waits for that.
        let arrived = self.buffer.len().min(len - 1);
        let fact = Input::BlockHeader {
            conn: self.conn,
            header,
            arrived: arrived as u32,
            reply,
        };
        self.tell(fact).await?;
        let mut early = None;
        if len > EAGER {
            early = Some((&mut expected).await.map_err(|_| SessionError::NodeEnded)?);
            if matches!(early, Some(HeaderReply::Stop)) {
                return Err(SessionError::Refused);
            }
        }
        // A short payload is read while the engine looks the header up.
        let (payload, told) = self.payload(len, arrived).await?;
        let reply = match early {
            Some(reply) => reply,
            None => expected.await.map_err(|_| SessionError::NodeEnded)?,
        };
        let rest = Input::Progress {
            conn: self.conn,
            bytes: (len - told) as u32,
        };
        match reply {
            HeaderReply::Stop => return Err(SessionError::Refused),
            HeaderReply::Skip => self.tell(rest).await?,
            HeaderReply::Take(block) => {
                // Waits while as much as is allowed is being hashed and written: the peer's window fills, and it waits too. Room is
                // taken for what is here only, so that no peer holds any by being slow.
                let room = pool.room(len).await;
                let told = self.inputs.reserve().await.map_err(|_| SessionError::NodeEnded)?;
                // From here on nothing can come between: a block that was told whole gets its verdict, whatever becomes of the session.
                told.send(rest);
                pool.take(block, payload, room, self.inputs.clone());
            }
        }
        Ok(())
    }

    async fn tell(&mut self, fact: Input) -> Result<(), SessionError> {
        self.inputs.send(fact).await.map_err(|_| SessionError::NodeEnded)
    }

    async fn header(&mut self) -> Result<BulkHeader, SessionError> {
        loop {
            // A header has a bounded length and a payload at most a block's: both are checked here.
            if let Some((header, used)) = BulkHeader::decode(&self.buffer)? {
                let _ = self.buffer.split_to(used);
                return Ok(header);
            }
            let (at, begun) = (self.buffer.len(), !self.buffer.is_empty());
            self.buffer.resize(at + READ_CHUNK, 0);
            let n = self
                .pace
                .read(&mut self.stream, &mut self.buffer[at..], begun, "block")
                .await;
            self.buffer.truncate(at + *n.as_ref().unwrap_or(&0));
            n?;
        }
    }

    /// The payload, and how many bytes of it the engine has been told of: not the last.
    async fn payload(&mut self, len: usize, mut told: usize) -> Result<(Vec<u8>, usize), SessionError> {
        let mut payload = vec![0; len];
        let mut have = self.buffer.len().min(len);
        payload[..have].copy_from_slice(&self.buffer.split_to(have));
        let mut told_at = Instant::now();
        while have < len {
            have += self
                .pace
                .read(&mut self.stream, &mut payload[have..], true, "block")
                .await?;
            if have < len && (have - told >= PROGRESS_STEP || (have > told && told_at.elapsed() >= PROGRESS_EVERY)) {
                told_at = Instant::now();
                let bytes = (have - told) as u32;
                told = have;
                self.tell(Input::Progress { conn: self.conn, bytes }).await?;
            }
        }
        self.pace.finished();
        Ok((payload, told))
    }
}
