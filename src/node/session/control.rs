//! The control stream: length-prefixed messages both ways.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures::{
    AsyncReadExt as _,
    io::{ReadHalf, WriteHalf},
};
use libp2p::Stream;
use modswarm_protocol::{
    engine::ConnId,
    wire::{self, Message, StreamKind},
};
use tokio::sync::mpsc;

use super::{
    ControlStream,
    pace::{self, Pace},
};
use crate::node::facts::{Input, SessionError};

/// Bytes asked of the socket at once.
const READ_CHUNK: usize = 16 * 1024;
/// A larger buffer than this is given back once a long message was read.
const KEPT_BUFFER: usize = 64 * 1024;
/// What control streams carry, for errors.
const MESSAGES: &str = "messages";

/// Frames that wait to be written, and how many bytes they are.
#[derive(Debug)]
pub(super) struct Outgoing {
    frames: mpsc::Receiver<Vec<u8>>,
    queued: Arc<AtomicUsize>,
}

impl Outgoing {
    pub(super) fn new(frames: mpsc::Receiver<Vec<u8>>, queued: Arc<AtomicUsize>) -> Self {
        Self { frames, queued }
    }
}

/// Moves messages until one side ends.
pub(super) async fn run(
    conn: ConnId,
    stream: ControlStream,
    outgoing: Outgoing,
    inputs: mpsc::Sender<Input>,
) -> SessionError {
    let (stream, _permit) = match stream {
        ControlStream::Outbound(mut stream) => {
            if let Err(e) = pace::write_all(&mut stream, &[StreamKind::Control.to_byte()], MESSAGES).await {
                return e;
            }
            (stream, None)
        }
        ControlStream::Inbound(inbound) => (inbound.stream, Some(inbound.permit)),
    };
    let (reader, writer) = stream.split();
    let ended = tokio::select! {
        ended = read(conn, reader, inputs) => ended,
        ended = write(writer, outgoing) => ended,
    };
    ended.err().unwrap_or(SessionError::Ended)
}

async fn read(conn: ConnId, mut stream: ReadHalf<Stream>, inputs: mpsc::Sender<Input>) -> Result<(), SessionError> {
    let mut buffer = Vec::new();
    let mut chunk = vec![0; READ_CHUNK];
    let mut pace = Pace::default();
    loop {
        let begun = !buffer.is_empty();
        let n = pace.read(&mut stream, &mut chunk, begun, "message").await?;
        buffer.extend_from_slice(&chunk[..n]);
        let mut used = 0;
        // `split_frame` refuses lengths over the frame bound, so that the buffer stays bounded.
        while let Some(frame) = wire::split_frame(&buffer[used..])? {
            let message = Message::decode(frame.message)?;
            used += frame.consumed;
            if let Some(message) = message {
                inputs
                    .send(Input::Message { conn, message })
                    .await
                    .map_err(|_| SessionError::NodeEnded)?;
            }
        }
        buffer.drain(..used);
        if used > 0 {
            pace.finished();
        }
        if buffer.is_empty() && buffer.capacity() > KEPT_BUFFER {
            buffer = Vec::new();
        }
    }
}

async fn write(mut stream: WriteHalf<Stream>, mut outgoing: Outgoing) -> Result<(), SessionError> {
    while let Some(mut buffer) = outgoing.frames.recv().await {
        // What is queued already goes out in the same write.
        while buffer.len() < READ_CHUNK {
            let Ok(frame) = outgoing.frames.try_recv() else { break };
            buffer.extend_from_slice(&frame);
        }
        pace::write_all(&mut stream, &buffer, MESSAGES).await?;
        pace::flush(&mut stream, MESSAGES).await?;
        outgoing.queued.fetch_sub(buffer.len(), Ordering::Relaxed);
    }
    Err(SessionError::NodeEnded)
}
