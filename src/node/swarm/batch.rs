//! A connection whose small writes leave together.
//!
//! The multiplexer writes the header and the body of each frame by themselves, and flushes after each. Every such write would be a TLS record and a system call
//! of its own. Here they are kept until a few records are full, or until the multiplexer asks for input, which it does whenever it has nothing more to send.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite};
use libp2p::{
    core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo},
    yamux,
};

/// Four full TLS records.
const CAPACITY: usize = 64 * 1024;

/// See the module. To flush it does nothing: to read from it, or to close it, flushes.
pub(super) struct Batched<S> {
    inner: S,
    /// What was written and is not in `inner` yet, from `sent` on. Takes memory only meanwhile.
    buffer: Vec<u8>,
    sent: usize,
    /// Whether `inner` has taken something since it was flushed.
    unflushed: bool,
}

impl<S> Batched<S> {
    pub(super) fn new(inner: S) -> Self {
        Self {
            inner,
            buffer: Vec::new(),
            sent: 0,
            unflushed: false,
        }
    }
}

impl<S: AsyncWrite + Unpin> Batched<S> {
    /// Hands all that was written to `inner`.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.buffer.len() {
            let n = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.buffer[self.sent..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += n;
            self.unflushed = true;
        }
        self.sent = 0;
        self.buffer = Vec::new();
        Poll::Ready(Ok(()))
    }

    fn poll_send_and_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        if self.unflushed {
            ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Batched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        // What cannot leave yet keeps nothing from coming in.
        if let Poll::Ready(Err(error)) = this.poll_send_and_flush(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut this.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Batched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.buffer.len() == CAPACITY {
            ready!(this.poll_send(cx))?;
        }
        if this.buffer.is_empty() {
            this.buffer.reserve_exact(CAPACITY);
        }
        let n = buf.len().min(CAPACITY - this.buffer.len());
        this.buffer.extend_from_slice(&buf[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_send_and_flush(cx))?;
        Pin::new(&mut this.inner).poll_close(cx)
    }
}

/// Yamux over such a connection.
#[derive(Clone, Default)]
pub(super) struct Multiplex(yamux::Config);

impl UpgradeInfo for Multiplex {
    type Info = <yamux::Config as UpgradeInfo>::Info;
    type InfoIter = <yamux::Config as UpgradeInfo>::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.protocol_info()
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Multiplex {
    type Output = yamux::Muxer<Batched<C>>;
    type Error = io::Error;
    type Future = <yamux::Config as InboundConnectionUpgrade<Batched<C>>>::Future;

    fn upgrade_inbound(self, connection: C, info: Self::Info) -> Self::Future {
        self.0.upgrade_inbound(Batched::new(connection), info)
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Multiplex {
    type Output = yamux::Muxer<Batched<C>>;
    type Error = io::Error;
    type Future = <yamux::Config as OutboundConnectionUpgrade<Batched<C>>>::Future;

    fn upgrade_outbound(self, connection: C, info: Self::Info) -> Self::Future {
        self.0.upgrade_outbound(Batched::new(connection), info)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use futures::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::io::duplex;
    use tokio_util::compat::TokioAsyncReadCompatExt as _;

    use super::*;

    /// Takes what is written, up to `room`, and keeps the length of each write.
    #[derive(Default)]
    struct Sizes {
        room: usize,
        writes: Vec<usize>,
    }

    impl AsyncWrite for Sizes {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            if self.room == 0 {
                return Poll::Pending;
            }
            let n = buf.len().min(self.room);
            self.room -= n;
            self.writes.push(n);
            Poll::Ready(Ok(n))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// One byte comes in, whatever leaves.
    impl AsyncRead for Sizes {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(1))
        }
    }

    fn batched(room: usize) -> Batched<Sizes> {
        Batched::new(Sizes {
            room,
            writes: Vec::new(),
        })
    }

    /// Writes and flushes as the multiplexer does; how much was taken.
    fn write(to: &mut Batched<Sizes>, bytes: &[u8]) -> Poll<usize> {
        let cx = &mut Context::from_waker(Waker::noop());
        let written = Pin::new(&mut *to).poll_write(cx, bytes).map(Result::unwrap);
        assert!(Pin::new(to).poll_flush(cx).is_ready());
        written
    }

    fn read(from: &mut Batched<Sizes>) -> Poll<usize> {
        let cx = &mut Context::from_waker(Waker::noop());
        Pin::new(from).poll_read(cx, &mut [0]).map(Result::unwrap)
    }

    #[test]
    fn what_is_written_leaves_together_once_input_is_asked_for() {
        let mut connection = batched(usize::MAX);
        assert_eq!(write(&mut connection, &[0; 12]), Poll::Ready(12));
        assert_eq!(write(&mut connection, &[0; 500]), Poll::Ready(500));
        assert!(connection.inner.writes.is_empty());
        assert_eq!(read(&mut connection), Poll::Ready(1));
        assert_eq!(connection.inner.writes, [512]);
        assert_eq!(connection.buffer.capacity(), 0, "nothing is kept while nothing waits");
    }

    #[test]
    fn a_full_batch_leaves_before_more_is_taken() {
        let mut connection = batched(usize::MAX);
        assert_eq!(write(&mut connection, &[0; 100]), Poll::Ready(100));
        assert_eq!(write(&mut connection, &[0; CAPACITY]), Poll::Ready(CAPACITY - 100));
        assert_eq!(write(&mut connection, &[0; 100]), Poll::Ready(100));
        assert_eq!(connection.inner.writes, [CAPACITY]);
    }

    #[test]
    fn who_cannot_send_takes_no_more_and_still_reads() {
        let mut connection = batched(10);
        assert_eq!(write(&mut connection, &[0; CAPACITY]), Poll::Ready(CAPACITY));
        assert_eq!(write(&mut connection, &[0; 100]), Poll::Pending);
        assert_eq!(read(&mut connection), Poll::Ready(1));
        connection.inner.room = usize::MAX;
        assert_eq!(write(&mut connection, &[0; 100]), Poll::Ready(100));
        assert_eq!(connection.inner.writes, [10, CAPACITY - 10]);
    }

    #[tokio::test]
    async fn to_close_sends_what_waits() {
        let (near, far) = duplex(10);
        let mut near = Batched::new(near.compat());
        let bytes: Vec<u8> = (0..=255).cycle().take(CAPACITY + 1000).collect();
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            far.compat().read_to_end(&mut all).await.unwrap();
            all
        });
        near.write_all(&bytes).await.unwrap();
        near.close().await.unwrap();
        assert!(reader.await.unwrap() == bytes);
    }
}
