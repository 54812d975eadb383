//! The bulk streams: blocks, one way each.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::Stream;
use modswarm_protocol::{
    engine::{ConnId, ServeFailure, ServeJob},
    wire::{BulkHeader, Encoding, StreamKind},
};
use tokio::sync::{mpsc, oneshot};

use super::pace::Pace;
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
    pace: Pace,
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
                reading.push_back(start_reading(&pool, serve));
            }
            while reading.len() < READ_AHEAD {
                let Ok(serve) = queue.try_recv() else { break };
                reading.push_back(start_reading(&pool, serve));
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
            if job.limited && !pace.is_unlimited() {
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    // Whether something waits behind it that its own limit must not hold up.
                    while reading.len() < READ_AHEAD {
                        let Ok(serve) = queue.try_recv() else { break };
                        reading.push_back(start_reading(&pool, serve));
                    }
                    let hurry = reading.iter().any(|other| other.job.transfer != job.transfer);
                    match pace.ask(job.transfer, rest.len() as u32, hurry) {
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
                stream.write_all(&buffer).await?;
                buffer.clear();
                stream.write_all(&bytes).await?;
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

fn start_reading(pool: &BlockPool, serve: Serve) -> Reading {
    let Serve { job, source } = serve;
    Reading {
        job,
        bytes: pool.read(job.cid, source),
    }
}

async fn flush(
    stream: &mut Stream,
    buffer: &mut Vec<u8>,
    done: &mut Vec<Served>,
    inputs: &mpsc::Sender<Input>,
) -> Result<(), SessionError> {
    stream.write_all(buffer).await?;
    stream.flush().await?;
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
    let result: Result<(), SessionError> = async {
        let mut reader = Reader {
            conn,
            stream,
            buffer: BytesMut::with_capacity(READ_CHUNK),
            inputs: inputs.clone(),
        };
        loop {
            let header = reader.header().await?;
            // Waits while as much as is allowed is being hashed and written: the peer's window fills, and it waits too.
            let room = pool.room(header.len as usize).await;
            let (reply, expected) = oneshot::channel();
            let arrived = (reader.buffer.len() as u32).min(header.len);
            inputs
                .send(Input::BlockHeader {
                    conn,
                    header,
                    arrived,
                    reply,
                })
                .await
                .map_err(|_| SessionError::NodeEnded)?;
            // The payload is read while the engine looks the header up; it is one block at most.
            let payload = reader.payload(header.len as usize).await?;
            match expected.await.map_err(|_| SessionError::NodeEnded)? {
                HeaderReply::Take(block) => pool.take(block, payload, room, inputs.clone()),
                HeaderReply::Skip => {}
                HeaderReply::Stop => return Err(SessionError::Unsolicited),
            }
        }
    }
    .await;
    result.err().unwrap_or(SessionError::Ended)
}

struct Reader {
    conn: ConnId,
    stream: Stream,
    buffer: BytesMut,
    inputs: mpsc::Sender<Input>,
}

impl Reader {
    async fn fill(&mut self) -> Result<(), SessionError> {
        let at = self.buffer.len();
        self.buffer.resize(at + READ_CHUNK, 0);
        let n = self.stream.read(&mut self.buffer[at..]).await;
        self.buffer.truncate(at + *n.as_ref().unwrap_or(&0));
        if n? == 0 {
            return Err(SessionError::Ended);
        }
        Ok(())
    }

    async fn header(&mut self) -> Result<BulkHeader, SessionError> {
        loop {
            // A header has a bounded length and a payload at most a block's: both are checked here.
            if let Some((header, used)) = BulkHeader::decode(&self.buffer)? {
                let _ = self.buffer.split_to(used);
                return Ok(header);
            }
            self.fill().await?;
        }
    }

    async fn payload(&mut self, len: usize) -> Result<Vec<u8>, SessionError> {
        let mut payload = vec![0; len];
        let mut have = self.buffer.len().min(len);
        payload[..have].copy_from_slice(&self.buffer.split_to(have));
        let mut told = have;
        let mut told_at = Instant::now();
        while have < len {
            let n = self.stream.read(&mut payload[have..]).await?;
            if n == 0 {
                return Err(SessionError::Ended);
            }
            have += n;
            if have == len || have - told >= PROGRESS_STEP || told_at.elapsed() >= PROGRESS_EVERY {
                told_at = Instant::now();
                let bytes = (have - told) as u32;
                told = have;
                let progress = Input::Progress { conn: self.conn, bytes };
                self.inputs.send(progress).await.map_err(|_| SessionError::NodeEnded)?;
            }
        }
        Ok(payload)
    }
}
