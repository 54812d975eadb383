//! Which connection to a peer carries its session.
//!
//! The side that dialled a connection opens the control stream on it. When both sides dialled at once, the connection that the
//! smaller peer ID dialled stays, and a direct connection always replaces a relayed one; both sides reach the same verdict.
//!
//! A connection that never carried a session is not closed here, though one beside it does: a look-up may have made it, and waits for an answer on it. Once no
//! protocol has a stream on it any more, the swarm closes it after its idle time.

use std::{
    collections::{HashMap, VecDeque},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId, Stream,
    core::{Endpoint, transport::PortUse},
    swarm::{
        CloseConnection, ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler,
        THandler, THandlerInEvent, THandlerOutEvent, ToSwarm, behaviour::ConnectionEstablished,
    },
};
use modswarm_protocol::wire::StreamKind;

use super::{
    InboundStream, OpenError,
    handler::{FromHandler, Handler, OpenStream},
};
use crate::node::network::{AddressClass, classify};

/// What the behaviour tells the node.
#[derive(Debug)]
pub(in crate::node) enum Event {
    /// We opened the control stream of a new session on this connection.
    ControlOpened {
        peer: PeerId,
        connection: ConnectionId,
        addr: Multiaddr,
        stream: Stream,
    },
    /// We opened the bulk stream of a session.
    BulkOpened { connection: ConnectionId, stream: Stream },
    /// The peer opened a stream; its first byte says of which kind.
    Inbound {
        peer: PeerId,
        connection: ConnectionId,
        addr: Multiaddr,
        stream: InboundStream,
    },
    /// A stream could not be opened.
    OpenFailed {
        peer: PeerId,
        connection: ConnectionId,
        kind: StreamKind,
        error: OpenError,
    },
    /// The peer opened more streams than it may: its connection is to be closed.
    Flooded { peer: PeerId, connection: ConnectionId },
    /// A connection ended, and with it its session if it had one.
    Closed { connection: ConnectionId },
}

struct Connection {
    addr: Multiaddr,
    class: AddressClass,
    dialled_by_us: bool,
    /// A control stream was asked for or accepted here.
    used: bool,
}

#[derive(Default)]
struct Peer {
    connections: HashMap<ConnectionId, Connection>,
    /// The connection that carries the session, or is about to.
    session: Option<ConnectionId>,
    wanted: bool,
    supported: bool,
}

/// See the module.
pub(in crate::node) struct Behaviour {
    local: PeerId,
    peers: HashMap<PeerId, Peer>,
    queue: VecDeque<ToSwarm<Event, OpenStream>>,
}

impl Behaviour {
    pub(in crate::node) fn new(local: PeerId) -> Self {
        Self {
            local,
            peers: HashMap::new(),
            queue: VecDeque::new(),
        }
    }

    /// Opens a session with `peer` as soon as there is a connection to it; without this, only if identify says that it speaks
    /// our protocol. The wish is forgotten when the last connection ends.
    pub(in crate::node) fn want_session(&mut self, peer: PeerId) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.wanted = true;
            self.choose(peer);
        }
    }

    /// Asks for the bulk stream of a session; answered by [`Event::BulkOpened`] or [`Event::OpenFailed`].
    pub(in crate::node) fn open_bulk(&mut self, peer: PeerId, connection: ConnectionId) {
        self.notify(peer, connection, StreamKind::Bulk);
    }

    /// Whether the peer's control stream on `connection` may become its session, given the one that it has now.
    ///
    /// True makes it the session's connection.
    pub(in crate::node) fn accept_control(&mut self, peer: PeerId, connection: ConnectionId) -> bool {
        let local = self.local;
        let Some(known) = self.peers.get_mut(&peer) else {
            return false;
        };
        let Some(offered) = known.connections.get(&connection) else {
            return false;
        };
        let better = match known.session.and_then(|id| known.connections.get(&id)) {
            None => true,
            Some(current) => {
                let rank = |c: &Connection| {
                    let dialler = if c.dialled_by_us { local } else { peer };
                    (c.class == AddressClass::Relayed, dialler.to_bytes())
                };
                rank(offered) <= rank(current)
            }
        };
        if better {
            known.session = Some(connection);
            if let Some(c) = known.connections.get_mut(&connection) {
                c.used = true;
            }
        }
        better
    }

    /// A session on this connection came to nothing: another connection may carry one.
    pub(in crate::node) fn give_up(&mut self, peer: PeerId, connection: ConnectionId) {
        if let Some(known) = self
            .peers
            .get_mut(&peer)
            .filter(|known| known.session == Some(connection))
        {
            known.session = None;
        }
    }

    /// Closes a connection of `peer`.
    pub(in crate::node) fn close(&mut self, peer: PeerId, connection: ConnectionId) {
        self.queue.push_back(ToSwarm::CloseConnection {
            peer_id: peer,
            connection: CloseConnection::One(connection),
        });
    }

    fn notify(&mut self, peer_id: PeerId, connection: ConnectionId, kind: StreamKind) {
        self.queue.push_back(ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::One(connection),
            event: OpenStream(kind),
        });
    }

    /// Opens the control stream on the best connection that we dialled, if that is better than what there is.
    fn choose(&mut self, peer: PeerId) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        if !known.wanted && !known.supported {
            return;
        }
        let current = known.session.and_then(|id| known.connections.get(&id)).map(|c| c.class);
        let best = known
            .connections
            .iter()
            .filter(|(_, c)| c.dialled_by_us && !c.used)
            .min_by_key(|(id, c)| (c.class, **id));
        let Some((&id, class)) = best.map(|(id, c)| (id, c.class)) else {
            return;
        };
        let improves = match current {
            None => true,
            Some(current) => current == AddressClass::Relayed && class != AddressClass::Relayed,
        };
        if improves {
            known.session = Some(id);
            if let Some(c) = known.connections.get_mut(&id) {
                c.used = true;
            }
            self.notify(peer, id, StreamKind::Control);
        }
    }

    fn established(&mut self, event: ConnectionEstablished<'_>) {
        let known = self.peers.entry(event.peer_id).or_default();
        let addr = event.endpoint.get_remote_address().clone();
        let class = if event.endpoint.is_relayed() {
            AddressClass::Relayed
        } else {
            classify(&addr)
        };
        let connection = Connection {
            addr,
            class,
            dialled_by_us: event.endpoint.is_dialer(),
            used: false,
        };
        known.connections.insert(event.connection_id, connection);
        self.choose(event.peer_id);
    }

    fn closed(&mut self, event: ConnectionClosed<'_>) {
        let Some(known) = self.peers.get_mut(&event.peer_id) else {
            return;
        };
        known.connections.remove(&event.connection_id);
        if known.session == Some(event.connection_id) {
            known.session = None;
        }
        if known.connections.is_empty() {
            self.peers.remove(&event.peer_id);
        }
        self.queue.push_back(ToSwarm::GenerateEvent(Event::Closed {
            connection: event.connection_id,
        }));
        self.choose(event.peer_id);
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(event) => self.established(event),
            FromSwarm::ConnectionClosed(event) => self.closed(event),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        let Some(conn) = known.connections.get(&connection) else {
            return;
        };
        let addr = conn.addr.clone();
        let event = match event {
            FromHandler::Inbound(stream) => Event::Inbound {
                peer,
                connection,
                addr,
                stream,
            },
            FromHandler::Outbound(StreamKind::Control, stream) => {
                // The peer's own dial may have won in the meantime.
                if known.session != Some(connection) {
                    return;
                }
                Event::ControlOpened {
                    peer,
                    connection,
                    addr,
                    stream,
                }
            }
            FromHandler::Outbound(StreamKind::Bulk, stream) => Event::BulkOpened { connection, stream },
            FromHandler::OpenFailed(kind, error) => {
                if kind == StreamKind::Control && known.session == Some(connection) {
                    known.session = None;
                }
                Event::OpenFailed {
                    peer,
                    connection,
                    kind,
                    error,
                }
            }
            FromHandler::Flooded => Event::Flooded { peer, connection },
            FromHandler::Supported => {
                known.supported = true;
                self.choose(peer);
                return;
            }
        };
        self.queue.push_back(ToSwarm::GenerateEvent(event));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.queue.pop_front() {
            Some(event) => Poll::Ready(event),
            None => Poll::Pending,
        }
    }
}
