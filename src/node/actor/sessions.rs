//! Sessions: how one begins on a connection, gets its streams, and ends.
//!
//! Which connection carries a session is [`crate::node::swap`]'s choice, what flows over its streams [`crate::node::session`]'s affair. Here the engine is told that
//! there is one.

use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use modswarm_protocol::{
    engine::{ConnId, PeerKey},
    wire::StreamKind,
};

use super::{Actor, Live, TransferEvent};
use crate::node::{
    exchange::is_tellable,
    facts::{EndReason, Input, SessionError},
    network::{AddressClass, classify, is_local_network},
    session::{ControlStream, Session, read_kind},
    swap::{self, InboundStream, OpenError},
};

/// Before ping has measured one.
const RTT_GUESS_NEAR: Duration = Duration::from_millis(1);
const RTT_GUESS_FAR: Duration = Duration::from_millis(100);

impl Actor {
    pub(super) fn handle_swap_event(&mut self, event: swap::Event) {
        match event {
            swap::Event::ControlOpened {
                peer,
                connection,
                addr,
                stream,
            } => {
                self.start_session(peer, connection, addr, ControlStream::Outbound(stream));
            }
            swap::Event::Inbound {
                peer,
                connection,
                addr,
                mut stream,
            } => {
                let inputs = self.input_sender.clone();
                // Bounded by the streams that the handler lets in, and by a time-out.
                tokio::spawn(async move {
                    let kind = read_kind(&mut stream.stream).await;
                    let _ = inputs
                        .send(Input::Inbound {
                            peer,
                            connection,
                            addr,
                            stream,
                            kind,
                        })
                        .await;
                });
            }
            swap::Event::BulkOpened { connection, stream } => {
                let Some(conn) = self.by_connection.get(&connection).copied() else {
                    return;
                };
                let Some(live) = self.sessions.get_mut(&conn) else {
                    return;
                };
                if let Some(queue) = live.session.take_serve_queue() {
                    let (pool, limits, inputs) = (self.pool.clone(), self.throttle.clone(), self.input_sender.clone());
                    live.session
                        .start_bulk_writer(conn, stream, queue, pool, limits, inputs);
                }
            }
            swap::Event::OpenFailed {
                peer,
                connection,
                kind,
                error,
            } => {
                tracing::debug!(%peer, ?kind, ?error, "cannot open a stream");
                match kind {
                    StreamKind::Bulk => {
                        let error =
                            SessionError::Io(std::io::Error::other("the stream for blocks could not be opened"));
                        self.leave(peer, connection, &error.into());
                    }
                    StreamKind::Control if error == OpenError::Unsupported => self.is_foreign(peer),
                    StreamKind::Control => {}
                }
            }
            swap::Event::Flooded { peer, connection } => {
                self.leave(peer, connection, &SessionError::TooManyStreams.into());
            }
            swap::Event::Closed { connection } => {
                if let Some(conn) = self.by_connection.get(&connection).copied() {
                    self.end_session(conn, &EndReason::Closed);
                }
            }
        }
    }

    pub(super) fn handle_inbound(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        addr: Multiaddr,
        stream: InboundStream,
        kind: Result<StreamKind, SessionError>,
    ) {
        match kind {
            Ok(StreamKind::Control) => {
                if self.by_connection.contains_key(&connection) {
                    self.leave(peer, connection, &SessionError::TooManyStreams.into());
                } else if self.swarm.behaviour_mut().swap.accept_control(peer, connection) {
                    self.start_session(peer, connection, addr, ControlStream::Inbound(stream));
                } else {
                    // Both dialled at once, and the other connection won.
                    self.swarm.behaviour_mut().swap.close(peer, connection);
                }
            }
            Ok(StreamKind::Bulk) => {
                let Some(conn) = self.by_connection.get(&connection).copied() else {
                    return;
                };
                let Some(live) = self.sessions.get_mut(&conn) else {
                    return;
                };
                if live.session.bulk_accepted {
                    // Blocks of two streams could not be told apart.
                    self.leave(peer, connection, &SessionError::TooManyStreams.into());
                    return;
                }
                live.session
                    .start_bulk_reader(conn, stream, self.pool.clone(), self.input_sender.clone());
            }
            Err(error) => {
                let reason = EndReason::from(error);
                if reason.is_offence() {
                    self.leave(peer, connection, &reason);
                } else {
                    tracing::debug!(%peer, %reason, "dropped a stream");
                }
            }
        }
    }

    fn start_session(&mut self, peer: PeerId, connection: ConnectionId, addr: Multiaddr, stream: ControlStream) {
        let old: Vec<ConnId> = self
            .sessions
            .iter()
            .filter(|(_, l)| l.session.peer == peer)
            .map(|(conn, _)| *conn)
            .collect();
        old.into_iter()
            .for_each(|conn| self.end_session(conn, &EndReason::Replaced));
        self.conns_made += 1;
        let conn = ConnId(self.conns_made);
        let near = matches!(classify(&addr), AddressClass::NearTcp | AddressClass::NearQuic);
        let rtt = if near { RTT_GUESS_NEAR } else { RTT_GUESS_FAR };
        tracing::debug!(%peer, %addr, ?conn, "session begins");
        let dialled = matches!(stream, ControlStream::Outbound(_));
        let session = Session::start(conn, peer, connection, stream, self.input_sender.clone());
        self.by_connection.insert(connection, conn);
        let now = self.now();
        let key = PeerKey::of(&peer.to_bytes());
        self.meet(peer, addr.clone());
        let local = is_local_network(&addr);
        self.sessions.insert(conn, Live { session, addr, dialled });
        self.engine.handle_connected(now, conn, key, rtt);
        self.engine.set_local(now, conn, local);
        if dialled {
            self.engine.ask_at_once(now, conn);
        }
        self.tell_reachable(conn);
    }

    /// Tells the engine where the peer of a session can be dialled by others.
    pub(super) fn tell_reachable(&mut self, conn: ConnId) {
        let now = self.now();
        let Some(live) = self.sessions.get(&conn) else { return };
        let peer = live.session.peer;
        let usable = |addr: &Multiaddr| is_tellable(addr) && self.is_usable(addr);
        let addrs = self.exchange.vouched(peer, &live.addr, live.dialled, usable);
        let addrs = addrs.iter().map(|addr| addr.to_vec().into()).collect();
        self.engine.handle_reachable(now, conn, &peer.to_bytes(), addrs);
    }

    /// Closes a connection, and ends the session on it if it has one.
    fn leave(&mut self, peer: PeerId, connection: ConnectionId, reason: &EndReason) {
        match self.by_connection.get(&connection).copied() {
            Some(conn) => self.end_session(conn, reason),
            None => {
                tracing::info!(%peer, %reason, "closing a connection");
                self.swarm.behaviour_mut().swap.close(peer, connection);
            }
        }
    }

    /// Ends a session and says why. Whoever is told of its end later finds it gone, so that it is said once.
    pub(super) fn end_session(&mut self, conn: ConnId, reason: &EndReason) {
        let Some(live) = self.forget_session(conn) else {
            return;
        };
        let peer = live.session.peer;
        if reason.is_offence() {
            tracing::info!(%peer, ?conn, %reason, "session ended");
            self.book.offended(peer, Instant::now());
        } else {
            tracing::debug!(%peer, ?conn, %reason, "session ended");
        }
        // A session's streams live and die together: whoever wants to go on connects anew.
        self.swarm.behaviour_mut().swap.close(peer, live.session.connection);
    }

    /// The peer does not speak our protocol. Its connection may still serve look-ups.
    pub(super) fn end_foreign_session(&mut self, conn: ConnId) {
        if let Some(live) = self.forget_session(conn) {
            self.swarm
                .behaviour_mut()
                .swap
                .give_up(live.session.peer, live.session.connection);
            self.is_foreign(live.session.peer);
        }
    }

    fn forget_session(&mut self, conn: ConnId) -> Option<Live> {
        let live = self.sessions.remove(&conn)?;
        self.by_connection.remove(&live.session.connection);
        let now = self.now();
        self.engine.handle_disconnected(now, conn);
        Some(live)
    }

    /// A provider that speaks other protocols: remembered as such, and the user is told once.
    pub(super) fn is_foreign(&mut self, peer: PeerId) {
        self.book.foreign(peer);
        for transfer in self.transfers.values_mut() {
            if transfer.candidates.contains(&peer) && transfer.foreign.insert(peer) {
                let n = transfer.foreign.len();
                if let (Some(sink), true) = (&transfer.sink, n.is_power_of_two()) {
                    let notice = match n {
                        1 => "1 node is named as having it, but does not speak a protocol of ours".to_owned(),
                        n => format!("{n} nodes are named as having it, but do not speak a protocol of ours"),
                    };
                    let _ = sink.try_send(TransferEvent::Notice(notice));
                }
            }
        }
    }
}
