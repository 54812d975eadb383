//! QUIC as libp2p speaks it, on quinn directly: what decides how fast a swarm is are settings of quinn that the library's own binding does not pass on.
//!
//! - Far connections share one window, sized by the delay that they add to the uplink (`congestion.rs`, `uplink.rs`, `transit.rs`).
//! - What a connection takes from its streams is little more than may be on its way, as TCP's send buffer is kept short, so that who is served next is decided here.
//! - Far receivers acknowledge every few packets, not every other one: on a slow uplink that is bytes for payload.
//!
//! `listener.rs` has what comes in, `connection.rs` the streams. It owns no policy of whom to dial.

mod config;
mod congestion;
mod connection;
mod listener;
#[cfg(unix)]
mod socket;
mod transit;
mod uplink;
mod weights;

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _, channel::oneshot, future::BoxFuture, stream::SelectAll};
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{
        Endpoint,
        muxing::StreamMuxerBox,
        transport::{Boxed, DialOpts, ListenerId, PortUse, TransportError, TransportEvent},
    },
    identity::Keypair,
    multiaddr::Protocol,
    tls::certificate::GenError,
};
use socket2::{Domain, Socket, Type};

pub(in crate::node) use self::weights::Weights;
use self::{
    config::Config,
    connection::{Connecting, Connection},
    listener::Listener,
};

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// What the system is asked to hold of a socket's packets; it may give less. Linux' default overflows at some hundred Mbit/s.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;
/// From one packet that opens a way through a NAT to the next.
const PUNCH_EVERY: Duration = Duration::from_millis(100);

/// What can go wrong with a connection.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Connect(#[from] quinn::ConnectError),
    #[error(transparent)]
    Connection(#[from] quinn::ConnectionError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the handshake took too long")]
    HandshakeTimedOut,
    #[error("the peer's certificate does not say who it is")]
    NoIdentity,
    #[error("nothing listens here that the peer could dial")]
    NoListener,
    #[error("a way to {0} is being opened already")]
    AlreadyPunching(SocketAddr),
}

impl From<Error> for TransportError<Error> {
    fn from(error: Error) -> Self {
        TransportError::Other(error)
    }
}

/// The transport of whoever has `key`, which sends to peers as `weights` say.
///
/// # Errors
/// If no certificate can be made from the key.
pub(super) fn transport(key: &Keypair, weights: Weights) -> Result<Boxed<(PeerId, StreamMuxerBox)>, GenError> {
    let transport = Quic::new(key, weights)?;
    Ok(transport
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
        .boxed())
}

/// See the module.
struct Quic {
    config: Config,
    listeners: SelectAll<Listener>,
    /// For dials where nothing listens, by family: IPv6 or not.
    dialers: HashMap<bool, quinn::Endpoint>,
    /// Who waits for a peer to come through an opened way.
    punching: HashMap<SocketAddr, oneshot::Sender<Connecting>>,
    waker: Option<Waker>,
}

impl Quic {
    fn new(key: &Keypair, weights: Weights) -> Result<Self, GenError> {
        Ok(Self {
            config: Config::new(key, weights)?,
            listeners: SelectAll::new(),
            dialers: HashMap::new(),
            punching: HashMap::new(),
            waker: None,
        })
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// A listener whose port a dial to `remote` can leave from.
    fn listener_for(&self, remote: SocketAddr) -> Option<&Listener> {
        self.listeners.iter().find(|listener| listener.reaches(remote))
    }

    /// The endpoint that a dial to `remote` leaves from.
    fn endpoint_for(&mut self, remote: SocketAddr, port_use: PortUse) -> io::Result<quinn::Endpoint> {
        let any: IpAddr = match remote.ip() {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let any = SocketAddr::new(any, 0);
        if port_use != PortUse::Reuse {
            return self.config.endpoint(bind(any)?, false);
        }
        if let Some(listener) = self.listener_for(remote) {
            return Ok(listener.endpoint());
        }
        match self.dialers.entry(remote.is_ipv6()) {
            Entry::Occupied(entry) => Ok(entry.get().clone()),
            Entry::Vacant(entry) => Ok(entry.insert(self.config.endpoint(bind(any)?, false)?).clone()),
        }
    }

    /// Sends packets to `remote` from the port that is listened on until the peer, who does the same, comes in.
    fn punch(&mut self, remote: SocketAddr) -> Result<<Self as Transport>::Dial, TransportError<Error>> {
        let listener = self.listener_for(remote).ok_or(Error::NoListener)?;
        let socket = listener.socket().map_err(Error::Io)?;
        let (sender, receiver) = oneshot::channel();
        // Those that nobody came through.
        self.punching.retain(|_, waiting| !waiting.is_canceled());
        match self.punching.entry(remote) {
            Entry::Occupied(_) => return Err(Error::AlreadyPunching(remote).into()),
            Entry::Vacant(entry) => drop(entry.insert(sender)),
        }
        Ok(async move {
            tokio::select! {
                connecting = receiver => connecting.map_err(|_| Error::NoListener)?.await,
                error = send_again_and_again(socket, remote) => Err(error.into()),
                () = tokio::time::sleep(HANDSHAKE_TIMEOUT) => Err(Error::HandshakeTimedOut),
            }
        }
        .boxed())
    }
}

impl Transport for Quic {
    type Output = (PeerId, Connection);
    type Error = Error;
    type ListenerUpgrade = Connecting;
    type Dial = BoxFuture<'static, Result<Self::Output, Error>>;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<Error>> {
        let (local, _) = socket_addr(&addr).ok_or(TransportError::MultiaddrNotSupported(addr))?;
        let socket = bind(local).map_err(Error::Io)?;
        let listener = Listener::new(id, socket, self.config.clone()).map_err(Error::Io)?;
        self.listeners.push(listener);
        // From now on dials leave from the port that is listened on.
        self.dialers.remove(&local.is_ipv6());
        self.wake();
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        let listener = self.listeners.iter_mut().find(|listener| listener.id() == id);
        listener.map(Listener::close).is_some()
    }

    fn dial(&mut self, addr: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<Error>> {
        let dialled = socket_addr(&addr).filter(|(remote, _)| remote.port() != 0 && !remote.ip().is_unspecified());
        let (remote, _) = dialled.ok_or(TransportError::MultiaddrNotSupported(addr))?;
        if opts.role == Endpoint::Listener && opts.port_use == PortUse::New {
            return self.punch(remote);
        }
        let endpoint = self.endpoint_for(remote, opts.port_use).map_err(Error::Io)?;
        let (client, far) = self.config.client(remote);
        Ok(async move {
            // Certificates name peers, not hosts; a name is asked for all the same.
            let connecting = endpoint.connect_with(client, remote, "l")?;
            Connecting::new(connecting, far).await
        }
        .boxed())
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Connecting, Error>> {
        while let Poll::Ready(Some(event)) = self.listeners.poll_next_unpin(cx) {
            let event = match event {
                TransportEvent::Incoming {
                    listener_id,
                    upgrade,
                    local_addr,
                    send_back_addr,
                } => {
                    let upgrade = match self.punching.remove(&upgrade.remote()) {
                        None => upgrade,
                        Some(waiting) => match waiting.send(upgrade) {
                            Ok(()) => continue,
                            // Whoever waited has given up.
                            Err(upgrade) => upgrade,
                        },
                    };
                    TransportEvent::Incoming {
                        listener_id,
                        upgrade,
                        local_addr,
                        send_back_addr,
                    }
                }
                other => other,
            };
            return Poll::Ready(event);
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Opens a socket at `addr`, with room for bursts.
fn bind(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(socket2::Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    let given = socket.set_recv_buffer_size(SOCKET_BUFFER);
    if let Err(error) = given.and_then(|()| socket.set_send_buffer_size(SOCKET_BUFFER)) {
        tracing::debug!(%error, "cannot enlarge the buffers of a UDP socket");
    }
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// Sends a few bytes to `remote` until that fails.
async fn send_again_and_again(socket: UdpSocket, remote: SocketAddr) -> io::Error {
    let socket = match tokio::net::UdpSocket::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return error,
    };
    loop {
        // Random, so that nobody takes it for a packet of any connection.
        let bytes: [u8; 64] = rand::random();
        if let Err(error) = socket.send_to(&bytes, remote).await {
            return error;
        }
        tokio::time::sleep(PUNCH_EVERY).await;
    }
}

/// The socket address and the peer in `/ip…/udp/…/quic-v1[/p2p/…]`; none if it is another kind of address.
fn socket_addr(addr: &Multiaddr) -> Option<(SocketAddr, Option<PeerId>)> {
    let mut parts = addr.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    let Protocol::Udp(port) = parts.next()? else {
        return None;
    };
    let Protocol::QuicV1 = parts.next()? else { return None };
    let peer = match parts.next() {
        None => None,
        Some(Protocol::P2p(peer)) => Some(peer),
        Some(_) => return None,
    };
    parts.next().is_none().then_some((SocketAddr::new(ip, port), peer))
}

/// How peers write `addr`.
fn multiaddr(addr: SocketAddr) -> Multiaddr {
    Multiaddr::from(addr.ip())
        .with(Protocol::Udp(addr.port()))
        .with(Protocol::QuicV1)
}

#[cfg(test)]
mod tests;
