//! The control stream: length-prefixed messages both ways.

use futures::{
    AsyncReadExt as _, AsyncWriteExt as _,
    io::{ReadHalf, WriteHalf},
};
use libp2p::Stream;
use modswarm_protocol::{
    engine::ConnId,
    wire::{self, Message, StreamKind},
};
use tokio::sync::mpsc;

use super::ControlStream;
use crate::node::facts::{Input, SessionError};

/// Bytes asked of the socket at once.
const READ_CHUNK: usize = 16 * 1024;

/// Moves messages until one side ends.
pub(super) async fn run(
    conn: ConnId,
    stream: ControlStream,
    outgoing: mpsc::Receiver<Message>,
    inputs: mpsc::Sender<Input>,
) -> SessionError {
    let (stream, _permit) = match stream {
        ControlStream::Outbound(mut stream) => {
            if let Err(e) = stream.write_all(&[StreamKind::Control.to_byte()]).await {
                return e.into();
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
    loop {
        let n = stream.read(&mut chunk).await?;
        if n == 0 {
            return Err(SessionError::Ended);
        }
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
    }
}

async fn write(mut stream: WriteHalf<Stream>, mut outgoing: mpsc::Receiver<Message>) -> Result<(), SessionError> {
    let mut buffer = Vec::new();
    while let Some(message) = outgoing.recv().await {
        message.encode(&mut buffer);
        // What is queued already goes out in the same write.
        while buffer.len() < READ_CHUNK {
            let Ok(message) = outgoing.try_recv() else { break };
            message.encode(&mut buffer);
        }
        stream.write_all(&buffer).await?;
        stream.flush().await?;
        buffer.clear();
    }
    Err(SessionError::NodeEnded)
}
