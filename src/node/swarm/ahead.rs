//! A connection that is read from much at a time.
//!
//! TLS asks for the beginning of a record and then for its rest, each a system call. Where more is there than was asked for, all of it is read at once.
//! A buffered reader of a library would hold its memory for every connection, busy or not; most are idle.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite};

/// Bytes that are read at once.
const CAPACITY: usize = 64 * 1024;
/// Reads that bring less are of messages: no memory is kept for more.
const BULK_MIN: usize = 4096;

/// See the module.
pub(super) struct ReadAhead<S> {
    inner: S,
    /// Empty unless more came lately than was asked for.
    buffer: Vec<u8>,
    /// What was read into `buffer` and not asked for yet: `taken..read`.
    taken: usize,
    read: usize,
}

impl<S> ReadAhead<S> {
    pub(super) fn new(inner: S) -> Self {
        Self {
            inner,
            buffer: Vec::new(),
            taken: 0,
            read: 0,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.taken == this.read {
            if this.buffer.is_empty() {
                let n = ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
                if n == buf.len() && n >= BULK_MIN {
                    this.buffer = vec![0; CAPACITY];
                }
                return Poll::Ready(Ok(n));
            }
            let read = ready!(Pin::new(&mut this.inner).poll_read(cx, &mut this.buffer))?;
            (this.taken, this.read) = (0, read);
        }
        let n = buf.len().min(this.read - this.taken);
        buf[..n].copy_from_slice(&this.buffer[this.taken..][..n]);
        this.taken += n;
        if this.taken == this.read && this.read < BULK_MIN {
            this.buffer = Vec::new();
            (this.taken, this.read) = (0, 0);
        }
        Poll::Ready(Ok(n))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::AsyncReadExt as _;

    use super::*;

    /// Gives as much of `left` bytes as is asked for, and keeps how much that was.
    struct Asked {
        left: usize,
        asked: Vec<usize>,
    }

    impl AsyncRead for Asked {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
            self.asked.push(buf.len());
            let n = buf.len().min(self.left);
            for byte in &mut buf[..n] {
                *byte = self.left as u8;
                self.left -= 1;
            }
            Poll::Ready(Ok(n))
        }
    }

    async fn read_all(left: usize, at_once: usize) -> Vec<usize> {
        let mut reader = ReadAhead::new(Asked {
            left,
            asked: Vec::new(),
        });
        let (mut all, mut chunk) = (Vec::new(), vec![0; at_once]);
        loop {
            let n = reader.read(&mut chunk).await.unwrap();
            if n == 0 {
                break;
            }
            all.extend_from_slice(&chunk[..n]);
        }
        let sent: Vec<u8> = (1..=left).rev().map(|byte| byte as u8).collect();
        assert!(all == sent, "{} of {} bytes, or others", all.len(), sent.len());
        reader.inner.asked
    }

    #[tokio::test]
    async fn where_more_is_there_than_was_asked_for_all_of_it_is_read_at_once() {
        let asked = read_all(4096 + 3 * CAPACITY + 4096, 4096).await;
        assert_eq!(asked, [4096, CAPACITY, CAPACITY, CAPACITY, CAPACITY, CAPACITY]);
    }

    #[tokio::test]
    async fn messages_are_read_as_they_are_asked_for_and_take_no_memory() {
        assert_eq!(read_all(BULK_MIN - 1, 4096).await, [4096, 4096]);
        assert_eq!(read_all(1000, 100).await, [100; 11]);
        // After bulk a short read ends it.
        let asked = read_all(4096 + 100, 4096).await;
        assert_eq!(asked, [4096, CAPACITY, 4096]);
    }
}
