//! A connection and its streams, as libp2p uses them.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures::{AsyncRead, AsyncWrite, FutureExt as _, future::BoxFuture};
use libp2p::{
    PeerId,
    core::muxing::{StreamMuxer, StreamMuxerEvent},
};
use quinn::rustls::pki_types::CertificateDer;
use tokio::{
    task::AbortHandle,
    time::{Sleep, sleep},
};

use super::{Error, HANDSHAKE_TIMEOUT, congestion::Far, transit};
use crate::node::swarm::tls;

/// Messages of so many bytes do not wait behind blocks for that; within a second, a stream's no more than this.
const MESSAGE: usize = 8 * 1024;
const MESSAGES: usize = 64 * 1024;
const MESSAGES_OVER: Duration = Duration::from_secs(1);
/// Room that is made for one, for what a connection may have taken when its window was larger counts too.
const BEYOND: u64 = 1024 * 1024;

/// What a peer may still say on a stream that was let go of, in bytes, and for how long.
const LAST_WORDS: usize = 1024;
const LAST_WORDS_TIME: Duration = Duration::from_secs(5);

/// A handshake under way.
pub(super) struct Connecting {
    connecting: quinn::Connecting,
    remote: SocketAddr,
    far: Option<Arc<Far>>,
    timeout: Pin<Box<Sleep>>,
}

impl Connecting {
    pub(super) fn new(connecting: quinn::Connecting, far: Option<Arc<Far>>) -> Self {
        Self {
            remote: connecting.remote_address(),
            connecting,
            far,
            timeout: Box::pin(sleep(HANDSHAKE_TIMEOUT)),
        }
    }

    pub(super) fn remote(&self) -> SocketAddr {
        self.remote
    }
}

impl Future for Connecting {
    type Output = Result<(PeerId, Connection), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Poll::Ready(connected) = self.connecting.poll_unpin(cx) else {
            return self.timeout.poll_unpin(cx).map(|()| Err(Error::HandshakeTimedOut));
        };
        let connection = connected?;
        let peer = peer_of(&connection).ok_or(Error::NoIdentity)?;
        let far = self.far.take();
        if let Some(far) = &far {
            far.is_to(peer);
        }
        let probes = far
            .as_ref()
            .map(|far| tokio::spawn(transit::run(connection.clone(), Arc::clone(&far.transit))).abort_handle());
        let connection = Connection {
            connection,
            far,
            probes,
            incoming: None,
            outgoing: None,
            closing: None,
        };
        Poll::Ready(Ok((peer, connection)))
    }
}

/// Whom the certificate names; the handshake has verified it.
fn peer_of(connection: &quinn::Connection) -> Option<PeerId> {
    let certificates: Box<Vec<CertificateDer<'static>>> = connection.peer_identity()?.downcast().ok()?;
    tls::peer_of(&certificates)
}

type Opening = BoxFuture<'static, Result<(quinn::SendStream, quinn::RecvStream), quinn::ConnectionError>>;

/// See the module.
pub(super) struct Connection {
    connection: quinn::Connection,
    far: Option<Arc<Far>>,
    /// Sends and echoes probes.
    probes: Option<AbortHandle>,
    incoming: Option<Opening>,
    outgoing: Option<Opening>,
    closing: Option<BoxFuture<'static, quinn::ConnectionError>>,
}

impl Connection {
    fn stream(&self, (send, recv): (quinn::SendStream, quinn::RecvStream)) -> Stream {
        let bound = self.far.as_ref().map(|far| Bound {
            connection: self.connection.clone(),
            far: Arc::clone(far),
        });
        Stream {
            send,
            messages: Messages {
                since: Instant::now(),
                bytes: 0,
            },
            recv: Some(recv),
            bound,
            closed: None,
        }
    }
}

#[cfg(test)]
impl Connection {
    /// Takes a connection on this machine for a far one.
    pub(super) fn pretend(&mut self, far: Far) {
        self.far = Some(Arc::new(far));
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // It holds the connection too, which would outlive this one.
        if let Some(probes) = &self.probes {
            probes.abort();
        }
    }
}

impl StreamMuxer for Connection {
    type Substream = Stream;
    type Error = Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Stream, Error>> {
        let this = &mut *self;
        let opening = this.incoming.get_or_insert_with(|| {
            let connection = this.connection.clone();
            async move { connection.accept_bi().await }.boxed()
        });
        let opened = ready!(opening.poll_unpin(cx));
        this.incoming = None;
        Poll::Ready(Ok(this.stream(opened?)))
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Stream, Error>> {
        let this = &mut *self;
        let opening = this.outgoing.get_or_insert_with(|| {
            let connection = this.connection.clone();
            async move { connection.open_bi().await }.boxed()
        });
        let opened = ready!(opening.poll_unpin(cx));
        this.outgoing = None;
        Poll::Ready(Ok(this.stream(opened?)))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let this = &mut *self;
        let closing = this.closing.get_or_insert_with(|| {
            this.connection.close(0u32.into(), &[]);
            let connection = this.connection.clone();
            async move { connection.closed().await }.boxed()
        });
        Poll::Ready(match ready!(closing.poll_unpin(cx)) {
            quinn::ConnectionError::LocallyClosed => Ok(()),
            error => Err(error.into()),
        })
    }

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Error>> {
        // Connections do not migrate: there is nothing to tell.
        Poll::Pending
    }
}

/// Keeps short what a connection has taken and not sent.
struct Bound {
    connection: quinn::Connection,
    far: Arc<Far>,
}

impl Bound {
    fn keep(&self) {
        // Setting it takes the connection's lock.
        if let Some(bytes) = self.far.allowance.changed() {
            self.connection.set_send_window(bytes);
        }
    }

    /// Writes although the connection has taken as much as it should.
    fn write_beyond(&self, send: &mut quinn::SendStream, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let bytes = self.far.allowance.applied();
        self.connection.set_send_window(bytes * 2 + BEYOND);
        let written = AsyncWrite::poll_write(Pin::new(send), cx, buf);
        self.connection.set_send_window(bytes);
        written
    }
}

/// What a stream has written beyond what its connection should have taken.
struct Messages {
    since: Instant,
    bytes: usize,
}

impl Messages {
    /// Whether so many bytes more may go ahead.
    fn take(&mut self, bytes: usize) -> bool {
        if self.since.elapsed() >= MESSAGES_OVER {
            *self = Self {
                since: Instant::now(),
                bytes: 0,
            };
        }
        let fits = self.bytes + bytes <= MESSAGES;
        self.bytes += if fits { bytes } else { 0 };
        fits
    }
}

/// One stream, both directions.
pub(super) struct Stream {
    send: quinn::SendStream,
    messages: Messages,
    /// Always there until it is dropped.
    recv: Option<quinn::RecvStream>,
    bound: Option<Bound>,
    closed: Option<Result<(), io::ErrorKind>>,
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if let Some(Err(_)) = self.closed {
            return Poll::Ready(Ok(0));
        }
        match &mut self.recv {
            Some(recv) => AsyncRead::poll_read(Pin::new(recv), cx, buf),
            None => Poll::Ready(Ok(0)),
        }
    }
}

impl Drop for Stream {
    /// Who says something that needs no answer lets go of the stream at once, maybe before the peer has agreed to the protocol. To be told that its word is not
    /// wanted, the peer would take for a failure, and drop what was said: so it is let say a little more.
    fn drop(&mut self) {
        let (Some(recv), Ok(runtime)) = (self.recv.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        runtime.spawn(async move {
            let _ = tokio::time::timeout(LAST_WORDS_TIME, read_last_words(recv)).await;
        });
    }
}

/// Reads what still comes, which is forgotten, until the stream ends or it is too much.
async fn read_last_words(mut recv: quinn::RecvStream) {
    let mut left = LAST_WORDS;
    while left > 0
        && let Ok(Some(chunk)) = recv.read_chunk(left, false).await
    {
        left -= chunk.bytes.len().min(left);
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Some(bound) = &this.bound else {
            return AsyncWrite::poll_write(Pin::new(&mut this.send), cx, buf);
        };
        bound.keep();
        let written = AsyncWrite::poll_write(Pin::new(&mut this.send), cx, buf);
        if written.is_pending() && buf.len() <= MESSAGE && this.messages.take(buf.len()) {
            return bound.write_beyond(&mut this.send, cx, buf);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // May be asked again after it has closed.
        if let Some(closed) = self.closed {
            return Poll::Ready(closed.map_err(Into::into));
        }
        let closed = ready!(AsyncWrite::poll_close(Pin::new(&mut self.send), cx));
        self.closed = Some(closed.as_ref().copied().map_err(io::Error::kind));
        Poll::Ready(closed)
    }
}
