//! The socket under QUIC, which is read from now and then while much comes in from far away, and at once otherwise.
//!
//! From far away packets come one by one, and to be woken for each of them costs more than what is done with it. While they come the socket is left alone for a
//! beat, after which one waking up reads all that have gathered. The executor does not watch it meanwhile: the system tells of every packet that comes to or leaves a
//! descriptor that is watched, whoever waits.

use std::{
    fmt,
    io::{self, ErrorKind::WouldBlock, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit, UdpSocketState},
};
use tokio::{
    io::Interest,
    net::UdpSocket as Watched,
    time::{Instant, sleep},
};

use crate::node::{
    network::is_near,
    swarm::gather::{BEAT, Rest},
};

/// So many packets in a beat are worth a rest…
const MIN_PACKETS: usize = 2;
/// …and more bytes than this could be too many for what the system keeps of a socket's packets, which is some 200 KiB with what describes them.
const MAX_BYTES: usize = 64 * 1024;

/// See the module.
pub(super) struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
    reading: Mutex<Reading>,
    /// Whether nothing more could be sent when that was last tried.
    full: AtomicBool,
    /// Watched while somebody waits until more can be sent.
    writable: Mutex<Weak<Watched>>,
}

/// Between two readings.
struct Reading {
    /// Watched while what comes next is waited for.
    readable: Option<Watched>,
    rest: Rest,
    came: Came,
}

/// What has come lately.
struct Came {
    since: Instant,
    packets: usize,
    bytes: usize,
    near: bool,
    /// Whether, by what came before, rests are worth it.
    rests: bool,
}

impl Came {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            packets: 0,
            bytes: 0,
            near: false,
            rests: false,
        }
    }

    fn on_packets(&mut self, from: SocketAddr, bytes: usize, each: usize) {
        self.packets += bytes.div_ceil(each.max(1));
        self.bytes += bytes;
        self.near |= is_near(from.ip());
    }

    /// There is nothing more to read at `now`. Whether to rest.
    fn begins_rest(&mut self, now: Instant) -> bool {
        let beats = now.duration_since(self.since).as_secs_f64() / BEAT.as_secs_f64();
        if beats >= 1.0 {
            let in_a_beat = |count: usize| count as f64 / beats;
            let rests = !self.near
                && in_a_beat(self.packets) >= MIN_PACKETS as f64
                && in_a_beat(self.bytes) <= MAX_BYTES as f64;
            *self = Self {
                rests,
                ..Self::new(now)
            };
        }
        self.rests && !self.near
    }
}

impl Socket {
    /// Of a socket that is bound. Only within the executor.
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        Ok(Self {
            state: UdpSocketState::new((&socket).into())?,
            socket,
            reading: Mutex::new(Reading {
                readable: None,
                rest: Rest::over(),
                came: Came::new(Instant::now()),
            }),
            full: AtomicBool::new(false),
            writable: Mutex::default(),
        })
    }

    /// Waits until more can be sent.
    async fn until_writable(self: Arc<Self>) -> io::Result<()> {
        match self.watched() {
            Ok(watched) => watched.writable().await?,
            Err(error) => {
                tracing::debug!(%error, "a UDP socket cannot be watched, and is tried again and again");
                sleep(BEAT).await;
            }
        }
        self.full.store(false, Relaxed);
        Ok(())
    }

    /// The socket, watched by all who wait until more can be sent.
    fn watched(&self) -> io::Result<Arc<Watched>> {
        let mut watched = self.writable.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watched) = watched.upgrade() {
            return Ok(watched);
        }
        let made = Arc::new(watch(&self.socket)?);
        *watched = Arc::downgrade(&made);
        Ok(made)
    }
}

/// Has the executor watch a socket until that is dropped.
fn watch(socket: &UdpSocket) -> io::Result<Watched> {
    Watched::from_std(socket.try_clone()?)
}

impl Reading {
    fn rest(&mut self, now: Instant) {
        self.readable = None;
        self.rest.begin(now + BEAT);
    }

    /// There is nothing more to read.
    fn on_drained(&mut self, socket: &UdpSocket) {
        let now = Instant::now();
        if self.came.begins_rest(now) {
            self.rest(now);
        } else if self.readable.is_none() {
            match watch(socket) {
                Ok(readable) => self.readable = Some(readable),
                Err(error) => {
                    tracing::debug!(%error, "a UDP socket cannot be watched, and is looked at again and again");
                    self.rest(now);
                }
            }
        }
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller {
            socket: self,
            waiting: None,
        })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.state.send((&self.socket).into(), transmit);
        if matches!(&sent, Err(error) if error.kind() == WouldBlock) {
            self.full.store(true, Relaxed);
        }
        sent
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            ready!(reading.rest.poll_over(cx));
            if let Some(readable) = &reading.readable {
                ready!(readable.poll_recv_ready(cx))?;
            }
            let mut recv = || self.state.recv((&self.socket).into(), bufs, meta);
            let read = match &reading.readable {
                Some(readable) => readable.try_io(Interest::READABLE, recv),
                None => recv(),
            };
            match read {
                Err(error) if error.kind() == WouldBlock => reading.on_drained(&self.socket),
                read => {
                    for meta in &meta[..*read.as_ref().unwrap_or(&0)] {
                        reading.came.on_packets(meta.addr, meta.len, meta.stride);
                    }
                    return Poll::Ready(read);
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

type Waiting = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// Tells one task when more can be sent.
struct Poller {
    socket: Arc<Socket>,
    waiting: Option<Waiting>,
}

impl UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.waiting.is_none() && !this.socket.full.load(Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let socket = &this.socket;
        let waiting = this
            .waiting
            .get_or_insert_with(|| Box::pin(Arc::clone(socket).until_writable()));
        let told = ready!(waiting.as_mut().poll(cx));
        this.waiting = None;
        Poll::Ready(told)
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use futures::future::poll_fn;

    use super::*;

    const FAR: &str = "192.0.2.1:7";
    const NEAR: &str = "127.0.0.1:7";

    /// Whether it rests after `beats` in each of which so many packets of so many bytes came from there.
    fn rests(from: &str, beats: u32, packets: usize, bytes: usize) -> bool {
        let from = from.parse().unwrap();
        let mut now = Instant::now();
        let mut came = Came::new(now);
        let mut rests = false;
        for _ in 0..beats {
            now += BEAT;
            (0..packets).for_each(|_| came.on_packets(from, bytes, bytes));
            rests = came.begins_rest(now);
        }
        rests
    }

    #[test]
    fn rests_while_packets_come_from_far_away_and_fit() {
        assert!(rests(FAR, 1, 7, 1472));
        assert!(rests(FAR, 9, 2, 40));
        assert!(!rests(FAR, 9, 1, 1472), "a message that comes alone is read at once");
        assert!(!rests(FAR, 9, 100, 1472), "they would not fit");
        assert!(!rests(NEAR, 9, 7, 1472), "a round trip is short");
    }

    /// A socket, and another that sends to it.
    fn pair() -> (Arc<Socket>, UdpSocket) {
        let bound = || UdpSocket::bind("127.0.0.1:0").unwrap();
        (Arc::new(Socket::new(bound()).unwrap()), bound())
    }

    fn poll_recv(socket: &Socket, cx: &mut Context<'_>) -> Poll<usize> {
        let (mut buf, mut meta) = ([0; 2048], [RecvMeta::default()]);
        let read = socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buf)], &mut meta);
        read.map(|read| {
            assert_eq!(read.unwrap(), 1);
            meta[0].len
        })
    }

    #[tokio::test]
    async fn what_comes_during_a_rest_is_read_after_it_and_what_comes_later_at_once() {
        let (socket, peer) = pair();
        let to = socket.local_addr().unwrap();
        socket.reading.lock().unwrap().rest(Instant::now());
        peer.send_to(&[1; 100], to).unwrap();
        assert_eq!(
            poll_recv(&socket, &mut Context::from_waker(Waker::noop())),
            Poll::Pending
        );
        assert_eq!(poll_fn(|cx| poll_recv(&socket, cx)).await, 100);
        assert_eq!(
            poll_recv(&socket, &mut Context::from_waker(Waker::noop())),
            Poll::Pending
        );
        assert!(socket.reading.lock().unwrap().readable.is_some(), "it is watched");
        peer.send_to(&[1; 200], to).unwrap();
        assert_eq!(poll_fn(|cx| poll_recv(&socket, cx)).await, 200);
    }

    #[tokio::test]
    async fn who_found_the_socket_full_waits_until_it_is_not() {
        let (socket, _) = pair();
        let mut poller = Arc::clone(&socket).create_io_poller();
        assert!(matches!(
            poller.as_mut().poll_writable(&mut Context::from_waker(Waker::noop())),
            Poll::Ready(Ok(()))
        ));
        socket.full.store(true, Relaxed);
        poll_fn(|cx| poller.as_mut().poll_writable(cx)).await.unwrap();
        assert!(!socket.full.load(Relaxed));
    }

    #[test]
    fn a_near_packet_ends_resting_at_once_and_many_at_once_count() {
        let [far, near] = [FAR, NEAR].map(|addr| addr.parse().unwrap());
        let begun = Instant::now();
        let mut came = Came::new(begun);
        // Four packets that the system gave as one.
        came.on_packets(far, 4 * 1472, 1472);
        assert!(came.begins_rest(begun + BEAT));
        came.on_packets(near, 100, 100);
        assert!(!came.begins_rest(begun + BEAT));
    }
}
