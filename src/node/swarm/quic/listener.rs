//! One socket that is listened on: its addresses, and who comes in.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use futures::{FutureExt as _, Stream, future::BoxFuture};
use if_watch::{IfEvent, tokio::IfWatcher};
use libp2p::core::transport::{ListenerId, TransportEvent};

use super::{Config, Connecting, Error, multiaddr};

type Event = TransportEvent<Connecting, Error>;

pub(super) struct Listener {
    id: ListenerId,
    config: Config,
    endpoint: quinn::Endpoint,
    /// The endpoint's socket once more, to send from.
    socket: UdpSocket,
    local: SocketAddr,
    accept: BoxFuture<'static, Option<quinn::Incoming>>,
    /// Tells of the machine's addresses, if all are listened on.
    interfaces: Option<IfWatcher>,
    addresses: Vec<IpAddr>,
    next: Option<Event>,
    closed: bool,
    waker: Option<Waker>,
}

impl Listener {
    pub(super) fn new(id: ListenerId, socket: UdpSocket, config: Config) -> io::Result<Self> {
        let local = socket.local_addr()?;
        let endpoint = config.endpoint(socket.try_clone()?, true)?;
        let all = local.ip().is_unspecified();
        let mut listener = Self {
            id,
            accept: accept(&endpoint),
            config,
            endpoint,
            socket,
            local,
            interfaces: all.then(IfWatcher::new).transpose()?,
            addresses: Vec::new(),
            next: None,
            closed: false,
            waker: None,
        };
        if !all {
            listener.next = Some(listener.gained(local.ip()));
        }
        Ok(listener)
    }

    pub(super) fn id(&self) -> ListenerId {
        self.id
    }

    pub(super) fn endpoint(&self) -> quinn::Endpoint {
        self.endpoint.clone()
    }

    /// The endpoint's socket.
    pub(super) fn socket(&self) -> io::Result<UdpSocket> {
        self.socket.try_clone()
    }

    /// Whether a packet from here can come to `remote`.
    pub(super) fn reaches(&self, remote: SocketAddr) -> bool {
        let family = self.local.is_ipv6() == remote.is_ipv6();
        let loopback = !remote.ip().is_loopback() || self.addresses.iter().any(IpAddr::is_loopback);
        !self.closed && family && loopback
    }

    /// Ends it; connections that came in end too.
    pub(super) fn close(&mut self) {
        if self.closed {
            return;
        }
        self.closed = true;
        self.endpoint.close(0u32.into(), &[]);
        self.next = Some(TransportEvent::ListenerClosed {
            listener_id: self.id,
            reason: Ok(()),
        });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn gained(&mut self, ip: IpAddr) -> Event {
        self.addresses.push(ip);
        TransportEvent::NewAddress {
            listener_id: self.id,
            listen_addr: multiaddr(SocketAddr::new(ip, self.local.port())),
        }
    }

    fn lost(&mut self, ip: IpAddr) -> Event {
        self.addresses.retain(|had| *had != ip);
        TransportEvent::AddressExpired {
            listener_id: self.id,
            listen_addr: multiaddr(SocketAddr::new(ip, self.local.port())),
        }
    }

    fn poll_interfaces(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            let Some(interfaces) = &mut self.interfaces else {
                return Poll::Pending;
            };
            let event = ready!(interfaces.poll_if_event(cx));
            let ours = |ip: IpAddr| ip.is_ipv6() == self.local.is_ipv6();
            match event {
                Ok(IfEvent::Up(net)) if ours(net.addr()) => return Poll::Ready(self.gained(net.addr())),
                Ok(IfEvent::Down(net)) if ours(net.addr()) => return Poll::Ready(self.lost(net.addr())),
                Ok(_) => {}
                Err(error) => return Poll::Ready(self.failed(error.into())),
            }
        }
    }

    fn failed(&self, error: Error) -> Event {
        TransportEvent::ListenerError {
            listener_id: self.id,
            error,
        }
    }

    fn came(&mut self, incoming: quinn::Incoming) -> Event {
        let remote = incoming.remote_address();
        let (server, far) = self.config.server(remote);
        match incoming.accept_with(server) {
            Ok(connecting) => TransportEvent::Incoming {
                listener_id: self.id,
                upgrade: Connecting::new(connecting, far),
                local_addr: multiaddr(self.local),
                send_back_addr: multiaddr(remote),
            },
            Err(error) => self.failed(error.into()),
        }
    }
}

fn accept(endpoint: &quinn::Endpoint) -> BoxFuture<'static, Option<quinn::Incoming>> {
    let endpoint = endpoint.clone();
    async move { endpoint.accept().await }.boxed()
}

impl Stream for Listener {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        if let Some(event) = self.next.take() {
            return Poll::Ready(Some(event));
        }
        if self.closed {
            return Poll::Ready(None);
        }
        if let Poll::Ready(event) = self.poll_interfaces(cx) {
            return Poll::Ready(Some(event));
        }
        match self.accept.poll_unpin(cx) {
            Poll::Ready(Some(incoming)) => {
                self.accept = accept(&self.endpoint);
                Poll::Ready(Some(self.came(incoming)))
            }
            Poll::Ready(None) => {
                self.close();
                Poll::Ready(self.next.take())
            }
            Poll::Pending => {
                self.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
