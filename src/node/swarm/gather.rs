//! A socket that is read from now and then while much comes in, and at once otherwise.
//!
//! From far away packets come one by one, and each would wake the executor, to be a tenth of a TLS record. While a connection brings bulk it is left alone
//! until the next beat, which all connections share: one waking up then reads what all of them have got. A message that comes alone is read at once.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use futures::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};

/// From beat to beat. A message waits for this long at the most; a round trip across the internet is ten times as long.
pub(super) const BEAT: Duration = Duration::from_millis(4);
/// Who has brought so many bytes since the last rest brings more: nearly a packet, more than a short message.
const BULK_MIN: usize = 1024;

/// See the module. With no beat to keep to, it is as the socket within.
pub(super) struct Gather<S> {
    socket: S,
    beat: Option<Beat>,
}

struct Beat {
    /// Beats are counted from here.
    since: Instant,
    rest: Rest,
    /// Bytes read since the last rest.
    read: usize,
}

/// A time in which nothing is read.
pub(super) struct Rest {
    end: Pin<Box<Sleep>>,
    resting: bool,
}

impl Rest {
    /// One that is over.
    pub(super) fn over() -> Self {
        Self {
            end: Box::pin(sleep_until(Instant::now())),
            resting: false,
        }
    }

    pub(super) fn begin(&mut self, until: Instant) {
        self.end.as_mut().reset(until);
        self.resting = true;
    }

    /// Waits until it is over.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.resting {
            ready!(self.end.as_mut().poll(cx));
            self.resting = false;
        }
        Poll::Ready(())
    }
}

impl<S> Gather<S> {
    /// Reads whenever something has come.
    pub(super) fn at_once(socket: S) -> Self {
        Self { socket, beat: None }
    }

    /// Reads in beats that are counted from `since`.
    pub(super) fn in_beats(socket: S, since: Instant) -> Self {
        let beat = Beat {
            since,
            rest: Rest::over(),
            read: 0,
        };
        Self {
            socket,
            beat: Some(beat),
        }
    }
}

impl Beat {
    /// There is nothing more to read now. Whether so much has come that the beat is to be waited for.
    fn begins_rest(&mut self) -> bool {
        std::mem::take(&mut self.read) >= BULK_MIN
    }

    fn rest(&mut self) {
        let beats = self.since.elapsed().as_nanos() / BEAT.as_nanos() + 1;
        let next = self.since + BEAT.saturating_mul(u32::try_from(beats).unwrap_or(u32::MAX));
        self.rest.begin(next);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gather<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Some(beat) = &mut this.beat else {
            return Pin::new(&mut this.socket).poll_read(cx, buf);
        };
        loop {
            ready!(beat.rest.poll_over(cx));
            let mut read = Pin::new(&mut this.socket).poll_read(cx, buf);
            if read.is_pending() && beat.begins_rest() {
                // Asked in nobody's name, the socket wakes nobody for the packet that comes next.
                let nobody = &mut Context::from_waker(Waker::noop());
                read = Pin::new(&mut this.socket).poll_read(nobody, buf);
                if read.is_pending() {
                    beat.rest();
                    continue;
                }
            }
            if let Poll::Ready(Ok(read)) = &read {
                beat.read += read;
            }
            return read;
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
        task::Wake,
    };

    use futures::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::io::{DuplexStream, duplex};
    use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};

    use super::*;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    /// Two ends, of which the first reads in beats, the next of them in a good while.
    fn ends() -> (Gather<Compat<DuplexStream>>, Compat<DuplexStream>) {
        let (near, far) = duplex(1 << 20);
        let next = Instant::now() + Duration::from_secs(3600);
        (Gather::in_beats(near.compat(), next), far.compat())
    }

    fn poll(near: &mut Gather<Compat<DuplexStream>>, cx: &mut Context<'_>) -> Poll<usize> {
        Pin::new(near).poll_read(cx, &mut [0; 4096]).map(Result::unwrap)
    }

    #[tokio::test]
    async fn a_message_that_comes_alone_is_read_at_once() {
        let (mut near, mut far) = ends();
        let woken = Arc::new(Count::default());
        let waker = Arc::clone(&woken).into();
        let cx = &mut Context::from_waker(&waker);
        for number in 0..10 {
            assert_eq!(poll(&mut near, cx), Poll::Pending);
            far.write_all(&[1; 100]).await.unwrap();
            assert_eq!(woken.0.load(Relaxed), number + 1);
            assert_eq!(poll(&mut near, cx), Poll::Ready(100));
        }
    }

    #[tokio::test]
    async fn while_bulk_comes_nobody_is_woken_before_the_beat() {
        let (mut near, mut far) = ends();
        let woken = Arc::new(Count::default());
        let waker = Arc::clone(&woken).into();
        let cx = &mut Context::from_waker(&waker);
        far.write_all(&[1; BULK_MIN]).await.unwrap();
        assert_eq!(poll(&mut near, cx), Poll::Ready(BULK_MIN));
        for _ in 0..10 {
            assert_eq!(poll(&mut near, cx), Poll::Pending);
            far.write_all(&[1; 100]).await.unwrap();
        }
        assert_eq!(woken.0.load(Relaxed), 0);
    }

    #[tokio::test]
    async fn all_that_is_sent_is_read_and_then_the_end() {
        let (near, far) = duplex(1 << 14);
        let mut near = Gather::in_beats(near.compat(), Instant::now());
        let sender = tokio::spawn(async move {
            let mut far = far.compat();
            for number in 0..200 {
                far.write_all(&[number; 1448]).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let mut all = Vec::new();
        near.read_to_end(&mut all).await.unwrap();
        sender.await.unwrap();
        let sent: Vec<u8> = (0..200).flat_map(|number| [number; 1448]).collect();
        assert!(all == sent, "{} of {} bytes, or others", all.len(), sent.len());
    }
}
