//! Leaving peers that begin something and do not go on with it, or that do not read what they are sent.
//!
//! A stream may be silent for as long as it likes between messages or blocks. Once one has begun, its bytes have to come at a rate that is
//! of some use, and what is written to a peer has to be read.

use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout, timeout_at};

use crate::node::facts::SessionError;

/// Within each such span, what has begun is brought to its end or forward by [`SPAN_BYTES`].
const SPAN: Duration = Duration::from_secs(30);
/// A kilobyte a second: below that a peer is of no use.
const SPAN_BYTES: usize = 30 * 1024;
/// How long a peer may take none of what is written. A multiplexed stream makes room in steps of half its window, 128 KiB at the least.
const UNREAD: Duration = Duration::from_secs(60);

/// The pace of one stream's reading end.
#[derive(Debug, Default)]
pub(super) struct Pace {
    span: Option<Instant>,
    bytes: usize,
}

impl Pace {
    /// Reads what there is. With `begun` the peer is in the middle of something, a `what`.
    pub(super) async fn read(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        into: &mut [u8],
        begun: bool,
        what: &'static str,
    ) -> Result<usize, SessionError> {
        let n = if begun {
            let since = *self.span.get_or_insert_with(Instant::now);
            let read = timeout_at(since + SPAN, stream.read(into)).await;
            read.map_err(|_| SessionError::Stalled(what))??
        } else {
            stream.read(into).await?
        };
        if n == 0 {
            return Err(SessionError::Ended);
        }
        self.bytes += n;
        if self.bytes >= SPAN_BYTES {
            self.finished();
        }
        Ok(n)
    }

    /// What had begun is whole.
    pub(super) fn finished(&mut self) {
        self.span = None;
        self.bytes = 0;
    }
}

/// Writes all of `bytes`, as far as the peer goes on reading.
pub(super) async fn write_all(
    stream: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
    what: &'static str,
) -> Result<(), SessionError> {
    while !bytes.is_empty() {
        let written = timeout(UNREAD, stream.write(bytes)).await;
        let n = written.map_err(|_| SessionError::NotRead(what))??;
        if n == 0 {
            return Err(SessionError::Ended);
        }
        bytes = &bytes[n..];
    }
    Ok(())
}

/// Hands what was written to the connection.
pub(super) async fn flush(stream: &mut (impl AsyncWrite + Unpin), what: &'static str) -> Result<(), SessionError> {
    let flushed = timeout(UNREAD, stream.flush()).await;
    Ok(flushed.map_err(|_| SessionError::NotRead(what))??)
}
