//! TCP as the other transports are, except that on Windows a connection is dialled from a port of its own.
//!
//! Elsewhere dials leave from the port that is listened on, which lets peers behind NATs be reached. Windows refuses two sockets there ("access denied"),
//! and the library then gives the dial up.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures::{FutureExt as _, future::BoxFuture, future::Either};
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, DialOpts, ListenerId, PortUse, TransportError, TransportEvent},
        upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, SelectUpgrade, UpgradeInfo, Version},
    },
    identity::Keypair,
    noise, tcp, tls, yamux,
};

/// What can keep the transport from being made.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetUpError {
    #[error(transparent)]
    Tls(#[from] tls::certificate::GenError),
    #[error(transparent)]
    Noise(#[from] noise::Error),
}

/// TCP, encrypted by TLS or noise, multiplexed by yamux.
pub(super) fn transport(key: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, SetUpError> {
    let secure = Secure(SelectUpgrade::new(tls::Config::new(key)?, noise::Config::new(key)?));
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    Ok(OwnPorts(tcp)
        .upgrade(Version::V1Lazy)
        .authenticate(secure)
        .multiplex(yamux::Config::default())
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
        .boxed())
}

/// A transport that dials from ports of their own where the system wants that.
struct OwnPorts<T>(T);

impl<T: Transport + Unpin> Transport for OwnPorts<T> {
    type Output = T::Output;
    type Error = T::Error;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = T::Dial;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<Self::Error>> {
        self.0.listen_on(id, addr)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.0.remove_listener(id)
    }

    fn dial(&mut self, addr: Multiaddr, mut opts: DialOpts) -> Result<Self::Dial, TransportError<Self::Error>> {
        if cfg!(windows) {
            opts.port_use = PortUse::New;
        }
        self.0.dial(addr, opts)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Pin::new(&mut self.0).poll(cx)
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
