//! TCP as the other transports are, except for how it dials.
//!
//! - TLS is proposed alone and its first bytes are sent along, a round trip sooner than after an answer. Whoever does not speak it is dialled again with noise.
//! - Dials leave from the port that is listened on, which lets peers behind NATs be reached. Where two peers dial each other at once, their two connections would
//!   be one and the same, with a client at both ends: the one with the larger peer ID dials from a port of its own. So does everyone on Windows, which refuses
//!   two sockets on one port ("access denied"), whereupon the library gives the dial up.

use std::{
    error::Error,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures::{FutureExt as _, future::BoxFuture, future::Either};
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, DialOpts, ListenerId, PortUse, TransportError, TransportEvent},
        upgrade::{
            InboundConnectionUpgrade, NegotiationError, OutboundConnectionUpgrade, SelectUpgrade, UpgradeInfo, Version,
        },
    },
    identity::Keypair,
    multiaddr::Protocol,
    noise, tcp,
    tls::certificate::GenError,
};
use tokio::{net::TcpStream, time::Instant};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};

use super::{ahead::ReadAhead, batch::Multiplex, gather::Gather, tls};
use crate::node::network::{AddressClass, classify};

/// What can keep the transport from being made.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetUpError {
    #[error(transparent)]
    Tls(#[from] GenError),
    #[error(transparent)]
    Noise(#[from] noise::Error),
}

/// TCP, encrypted by TLS or noise, multiplexed by yamux.
pub(super) fn transport(key: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, SetUpError> {
    let (tls, noise) = (tls::Config::new(key)?, noise::Config::new(key)?);
    let since = Instant::now();
    let tcp = Shared::new(OwnPorts {
        inner: tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
            .map(move |socket, point| suited_to(point.get_remote_address(), socket, since)),
        local: PeerId::from(key.public()),
    });
    let either = Secure(SelectUpgrade::new(tls.clone(), noise.clone()));
    // Each has types of its own until it is boxed.
    macro_rules! secured {
        ($secure:expr) => {
            tcp.clone()
                .upgrade(Version::V1Lazy)
                .authenticate($secure)
                .multiplex(Multiplex::default())
                .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
                .boxed()
        };
    }
    let transport = TlsFirst {
        listening: secured!(either),
        tls: secured!(tls),
        noise: secured!(noise),
    };
    Ok(transport.boxed())
}

/// Bytes that the system takes of a connection before they can be sent. What is in its buffers goes out before anything else and cannot be taken back: on a
/// slow uplink that would be many seconds' worth, over all connections.
#[cfg(target_os = "linux")]
const UNSENT: libc::c_int = 64 * 1024;

/// The socket as it is used over the way to `remote`. On this machine and in the LAN a tenth of the rate counts more than what is kept short and gathered.
fn suited_to(
    remote: &Multiaddr,
    socket: tcp::tokio::TcpStream,
    since: Instant,
) -> ReadAhead<Gather<Compat<TcpStream>>> {
    let socket = TcpStream::from(socket);
    if classify(remote) == AddressClass::NearTcp {
        return ReadAhead::new(Gather::at_once(socket.compat()));
    }
    keep_short(&socket);
    ReadAhead::new(Gather::in_beats(socket.compat(), since))
}

/// Keeps what waits in the system's send buffer short, where the system can.
fn keep_short(socket: &TcpStream) {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd as _;
        // SAFETY: the descriptor is open while `socket` lives, and the option is an int that outlives the call.
        let failed = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_NOTSENT_LOWAT,
                std::ptr::from_ref(&UNSENT).cast(),
                size_of_val(&UNSENT) as libc::socklen_t,
            )
        };
        if failed != 0 {
            tracing::debug!(error = %io::Error::last_os_error(), "cannot keep the send buffer short");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = socket;
}

type Connections = Boxed<(PeerId, StreamMuxerBox)>;

/// Listens for both ways to encrypt, dials with TLS, and with noise whoever has no TLS.
struct TlsFirst {
    listening: Connections,
    tls: Connections,
    noise: Connections,
}

impl Transport for TlsFirst {
    type Output = <Connections as Transport>::Output;
    type Error = io::Error;
    type ListenerUpgrade = <Connections as Transport>::ListenerUpgrade;
    type Dial = BoxFuture<'static, io::Result<Self::Output>>;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.listening.listen_on(id, addr)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.listening.remove_listener(id)
    }

    fn dial(&mut self, addr: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        let first = self.tls.dial(addr.clone(), opts)?;
        // From a port of its own: the first connection is still remembered on the other.
        let port_use = PortUse::New;
        let second = self.noise.dial(addr, DialOpts { port_use, ..opts })?;
        Ok(async move {
            match first.await {
                Err(error) if was_refused(&error) => second.await,
                result => result,
            }
        }
        .boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Pin::new(&mut self.listening).poll(cx)
    }
}

/// Whether the peer said that it does not speak what was proposed.
fn was_refused(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(negotiation) = error.downcast_ref::<NegotiationError>() {
            return matches!(negotiation, NegotiationError::Failed);
        }
        // An error of input and output does not name what it holds as its source.
        cause = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

/// One transport in several hands: all of them dial from the port that one of them listens on.
struct Shared<T>(Arc<Mutex<T>>);

impl<T> Shared<T> {
    fn new(transport: T) -> Self {
        Self(Arc::new(Mutex::new(transport)))
    }

    fn inner(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Transport + Unpin> Transport for Shared<T> {
    type Output = T::Output;
    type Error = T::Error;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = T::Dial;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<Self::Error>> {
        self.inner().listen_on(id, addr)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner().remove_listener(id)
    }

    fn dial(&mut self, addr: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<Self::Error>> {
        self.inner().dial(addr, opts)
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Pin::new(&mut *self.inner()).poll(cx)
    }
}

/// A transport that dials from ports of their own where two dials could meet, or the system wants that.
struct OwnPorts<T> {
    inner: T,
    local: PeerId,
}

impl<T> OwnPorts<T> {
    fn port_use(&self, addr: &Multiaddr, asked: PortUse) -> PortUse {
        let may_meet = match addr.iter().last() {
            Some(Protocol::P2p(peer)) => peer < self.local,
            _ => false,
        };
        if cfg!(windows) || may_meet { PortUse::New } else { asked }
    }
}

impl<T: Transport + Unpin> Transport for OwnPorts<T> {
    type Output = T::Output;
    type Error = T::Error;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = T::Dial;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<Self::Error>> {
        self.inner.listen_on(id, addr)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, addr: Multiaddr, mut opts: DialOpts) -> Result<Self::Dial, TransportError<Self::Error>> {
        opts.port_use = self.port_use(&addr, opts.port_use);
        self.inner.dial(addr, opts)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}

/// Either of two ways to encrypt, whichever both ends speak.
#[derive(Clone)]
struct Secure<A, B>(SelectUpgrade<A, B>);

impl<A: UpgradeInfo, B: UpgradeInfo> UpgradeInfo for Secure<A, B> {
    type Info = <SelectUpgrade<A, B> as UpgradeInfo>::Info;
    type InfoIter = <SelectUpgrade<A, B> as UpgradeInfo>::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.protocol_info()
    }
}

fn joined<A, B>(ends: Either<(PeerId, A), (PeerId, B)>) -> (PeerId, Either<A, B>) {
    match ends {
        Either::Left((peer, stream)) => (peer, Either::Left(stream)),
        Either::Right((peer, stream)) => (peer, Either::Right(stream)),
    }
}

impl<C, A, B, TA, TB, EA, EB> InboundConnectionUpgrade<C> for Secure<A, B>
where
    A: InboundConnectionUpgrade<C, Output = (PeerId, TA), Error = EA, Future: Send + 'static>,
    B: InboundConnectionUpgrade<C, Output = (PeerId, TB), Error = EB, Future: Send + 'static>,
{
    type Output = (PeerId, Either<TA, TB>);
    type Error = <SelectUpgrade<A, B> as InboundConnectionUpgrade<C>>::Error;
    type Future = BoxFuture<'static, Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, socket: C, info: Self::Info) -> Self::Future {
        let upgrade = self.0.upgrade_inbound(socket, info);
        async move { upgrade.await.map(joined) }.boxed()
    }
}

impl<C, A, B, TA, TB, EA, EB> OutboundConnectionUpgrade<C> for Secure<A, B>
where
    A: OutboundConnectionUpgrade<C, Output = (PeerId, TA), Error = EA, Future: Send + 'static>,
    B: OutboundConnectionUpgrade<C, Output = (PeerId, TB), Error = EB, Future: Send + 'static>,
{
    type Output = (PeerId, Either<TA, TB>);
    type Error = <SelectUpgrade<A, B> as OutboundConnectionUpgrade<C>>::Error;
    type Future = BoxFuture<'static, Result<Self::Output, Self::Error>>;

    fn upgrade_outbound(self, socket: C, info: Self::Info) -> Self::Future {
        let upgrade = self.0.upgrade_outbound(socket, info);
        async move { upgrade.await.map(joined) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use libp2p::{core::Endpoint, yamux};

    use super::*;

    #[test]
    fn of_two_peers_that_dial_each_other_at_most_one_dials_from_the_port_it_listens_on() {
        if cfg!(windows) {
            return;
        }
        let (a, b) = (PeerId::random(), PeerId::random());
        let of = |local: PeerId, remote: PeerId| {
            let addr: Multiaddr = format!("/ip4/127.0.0.1/tcp/1/p2p/{remote}").parse().unwrap();
            OwnPorts { inner: (), local }.port_use(&addr, PortUse::Reuse)
        };
        let used = [of(a, b), of(b, a)];
        let reusing = used.into_iter().filter(|used| *used == PortUse::Reuse).count();
        assert_eq!(reusing, 1, "{a} and {b}");
    }

    #[tokio::test]
    async fn a_peer_without_tls_is_dialled_with_noise() {
        let key = Keypair::generate_ed25519();
        let mut listening = tcp::tokio::Transport::default()
            .upgrade(Version::V1Lazy)
            .authenticate(noise::Config::new(&key).unwrap())
            .multiplex(yamux::Config::default())
            .boxed();
        let anywhere = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
        listening.listen_on(ListenerId::next(), anywhere).unwrap();
        let addr = loop {
            if let Some(TransportEvent::NewAddress { listen_addr, .. }) = listening.next().await {
                break listen_addr;
            }
        };
        tokio::spawn(async move {
            while let Some(event) = listening.next().await {
                if let TransportEvent::Incoming { upgrade, .. } = event {
                    tokio::spawn(upgrade);
                }
            }
        });
        let opts = DialOpts {
            role: Endpoint::Dialer,
            port_use: PortUse::Reuse,
        };
        let mut dialling = transport(&Keypair::generate_ed25519()).unwrap();
        let (peer, _) = dialling.dial(addr, opts).unwrap().await.unwrap();
        assert_eq!(peer, PeerId::from(key.public()));
    }
}
