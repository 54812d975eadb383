//! Connections, addresses and look-ups.

use std::time::Instant;

use libp2p::{
    Multiaddr, PeerId, identify, kad, mdns,
    multiaddr::Protocol,
    ping,
    swarm::{ConnectionId, DialError, SwarmEvent, dial_opts::DialOpts, dial_opts::PeerCondition},
};
use modswarm_protocol::{
    engine::{ConnId, PeerKey, TransferId},
    wire::{KnownPeer, StreamKind},
};

use super::{Actor, Live, TransferEvent};
use crate::{
    api::NetworkKind,
    node::{
        exchange::is_tellable,
        facts::{EndReason, Input, SessionError},
        network::{AddressClass, Reach, classify, is_local_network, reach},
        peers::Dial,
        session::{ControlStream, Session, read_kind},
        swap::{self, InboundStream, OpenError},
        swarm::BehaviourEvent,
    },
};

/// Peers that are dialled for one transfer and not yet connected.
const MAX_CANDIDATES: usize = 256;
/// Peers that we look for for one transfer: nobody else is dialled for it beyond. Others may still dial us.
const ENOUGH_SOURCES: usize = 40;
/// Before ping has measured one.
const RTT_GUESS_NEAR: std::time::Duration = std::time::Duration::from_millis(1);
const RTT_GUESS_FAR: std::time::Duration = std::time::Duration::from_millis(100);

impl Actor {
    pub(super) fn handle_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.handle_behaviour_event(event),
            SwarmEvent::NewListenAddr { address, .. } => self.add_listen_addr(address),
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.listen_addrs.retain(|addr| *addr != address);
                self.swarm.remove_external_address(&address);
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                self.listen_addrs.retain(|addr| !addresses.contains(addr));
                if let Err(error) = reason {
                    tracing::warn!(?addresses, %error, "no longer listening");
                }
            }
            SwarmEvent::ConnectionEstablished {
                peer_id,
                endpoint,
                connection_id,
                ..
            } => {
                tracing::debug!(peer = %peer_id, addr = %endpoint.get_remote_address(), "connected");
                self.book.connected(peer_id);
                if self.book.is_shunned(&peer_id, Instant::now()) {
                    // A look-up dials whom it knows.
                    self.swarm.behaviour_mut().swap.close(peer_id, connection_id);
                    return;
                }
                for transfer in self.exchange.connected(peer_id) {
                    self.add_candidate(transfer, peer_id);
                }
                if self
                    .transfers
                    .values()
                    .any(|t| t.sink.is_some() && t.candidates.contains(&peer_id))
                {
                    self.swarm.behaviour_mut().swap.want_session(peer_id);
                }
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                num_established: 0,
                cause,
                ..
            } => {
                tracing::debug!(peer = %peer_id, ?cause, "connection closed");
                self.book.disconnected(peer_id, Instant::now());
                self.exchange.disconnected(&peer_id);
            }
            SwarmEvent::OutgoingConnectionError {
                peer_id: Some(peer),
                error,
                ..
            } => {
                tracing::debug!(%peer, %error, "cannot connect");
                match self.book.failed(peer, Instant::now()) {
                    Some(dial) => self.dial(dial),
                    None => {
                        self.exchange.failed(peer);
                        // What we ourselves refused to do is not the peer's failure.
                        if matches!(error, DialError::Transport(_)) {
                            self.note_unreachable(peer);
                        }
                    }
                }
            }
            _ => {}
        }
    }

    fn handle_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Swap(event) => self.handle_swap_event(event),
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => self.identified(peer_id, info),
            BehaviourEvent::Ping(ping::Event {
                connection,
                result: Ok(rtt),
                ..
            }) => {
                if let Some(conn) = self.by_connection.get(&connection) {
                    let now = self.now();
                    self.engine.handle_rtt(now, *conn, rtt);
                }
            }
            BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed { id, result, step, .. }) => {
                self.handle_query(id, result, step.last);
            }
            // Whoever joins late learns what was announced before.
            BehaviourEvent::Kad(kad::Event::RoutingUpdated { is_new_peer: true, .. })
                if self.network.trusts_listen_addresses() =>
            {
                self.discovery.announce_again(Instant::now());
            }
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                for (peer, addr) in found {
                    self.book.add(peer, [addr.clone()], false);
                    self.swarm.behaviour_mut().kad.add_address(&peer, addr);
                    let needy: Vec<TransferId> = self
                        .transfers
                        .iter()
                        .filter(|(_, t)| t.sink.is_some())
                        .map(|(id, _)| *id)
                        .collect();
                    needy
                        .into_iter()
                        .for_each(|transfer| self.add_candidate(transfer, peer));
                }
                self.dial_candidates(Instant::now());
            }
            _ => {}
        }
    }

    fn handle_swap_event(&mut self, event: swap::Event) {
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
                    let (pool, throttle, inputs) =
                        (self.pool.clone(), self.throttle.clone(), self.input_sender.clone());
                    live.session
                        .start_bulk_writer(conn, stream, queue, pool, throttle, inputs);
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

    /// A provider that speaks other protocols: remembered as such, and the user is told once.
    fn is_foreign(&mut self, peer: PeerId) {
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
    fn tell_reachable(&mut self, conn: ConnId) {
        let now = self.now();
        let Some(live) = self.sessions.get(&conn) else { return };
        let peer = live.session.peer;
        let usable = |addr: &Multiaddr| is_tellable(addr) && self.is_usable(addr);
        let addrs = self.exchange.vouched(peer, &live.addr, live.dialled, usable);
        let addrs = addrs.iter().map(|addr| addr.to_vec().into()).collect();
        self.engine.handle_reachable(now, conn, &peer.to_bytes(), addrs);
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

    fn identified(&mut self, peer: PeerId, info: identify::Info) {
        let addrs: Vec<Multiaddr> = info
            .listen_addrs
            .into_iter()
            .filter(|addr| self.is_usable(addr))
            .take(32)
            .collect();
        if info.protocols.contains(&self.network.kad_protocol()) {
            // Where bulk TCP is near, nothing else is offered: the connection that a look-up makes serves for blocks too.
            let (first, _) = crate::node::swarm::dial_order(addrs.clone());
            for addr in first {
                self.swarm.behaviour_mut().kad.add_address(&peer, addr);
            }
        }
        if info.protocols.contains(&swap::PROTOCOL) {
            self.exchange.claims(peer, addrs.clone());
            self.book.add(peer, addrs, false);
            let of_peer = self.sessions.iter().find(|(_, live)| live.session.peer == peer);
            if let Some(conn) = of_peer.map(|(conn, _)| *conn) {
                self.tell_reachable(conn);
            }
        } else {
            self.is_foreign(peer);
        }
    }

    /// Whether an address that others report may be dialled: on the public network, only addresses of the public internet.
    fn is_usable(&self, addr: &Multiaddr) -> bool {
        if self.network.trusts_listen_addresses() {
            return true;
        }
        is_public(addr)
    }

    fn add_listen_addr(&mut self, addr: Multiaddr) {
        tracing::info!(%addr, "listening");
        if !self.listen_addrs.contains(&addr) {
            self.listen_addrs.push(addr.clone());
        }
        if self.network.trusts_listen_addresses() || is_public(&addr) {
            self.swarm.add_external_address(addr);
            if self.network == NetworkKind::Public {
                self.swarm.behaviour_mut().kad.set_mode(Some(kad::Mode::Server));
            }
            self.discovery.announce_again(Instant::now());
        }
    }

    pub(super) fn add_entry_point(&mut self, peer: Option<PeerId>, addr: Multiaddr) {
        match peer {
            Some(peer) => {
                self.book.add(peer, [addr.clone()], true);
                self.swarm.behaviour_mut().kad.add_address(&peer, addr);
                self.entry_points.push(peer);
            }
            None => {
                if let Err(error) = self.swarm.dial(addr.clone()) {
                    tracing::warn!(%addr, %error, "cannot dial");
                }
            }
        }
    }

    pub(super) fn add_candidate(&mut self, transfer: TransferId, peer: PeerId) {
        if peer == *self.swarm.local_peer_id() {
            return;
        }
        let Some(t) = self.transfers.get_mut(&transfer) else {
            return;
        };
        if !t.candidates.contains(&peer) {
            if t.candidates.len() < MAX_CANDIDATES {
                t.candidates.push(peer);
            } else if let Some(doubtful) = t.candidates.iter_mut().find(|peer| self.book.is_doubtful(peer)) {
                *doubtful = peer;
            }
        }
        if self.book.is_connected(&peer) {
            self.swarm.behaviour_mut().swap.want_session(peer);
        }
    }

    /// Dials whoever may have what is needed, and lost bootstrap peers.
    pub(super) fn dial_candidates(&mut self, now: Instant) {
        let mut dials: Vec<Dial> = Vec::new();
        for peer in self.entry_points.iter().filter(|peer| !self.banned.contains_key(*peer)) {
            dials.extend(self.book.dial(*peer, now));
        }
        let clock = self.now();
        let score = |peer: &PeerId| self.engine.score(clock, &PeerKey::of(&peer.to_bytes()));
        for (id, transfer) in &self.transfers {
            if transfer.sink.is_none() {
                continue;
            }
            let room = self.room_for(*id);
            let candidates = self.book.best_first(&transfer.candidates, score);
            let (book, banned) = (&mut self.book, &self.banned);
            let due = candidates.iter().filter(|peer| !banned.contains_key(*peer));
            dials.extend(due.filter_map(|peer| book.dial(*peer, now)).take(room));
        }
        dials.into_iter().for_each(|dial| self.dial(dial));
    }

    /// How many more peers are worth a dial for a transfer.
    fn room_for(&self, transfer: TransferId) -> usize {
        let sources = self.engine.transfer_stats(transfer).map_or(0, |stats| stats.sources);
        ENOUGH_SOURCES.saturating_sub(sources + self.exchange.dialling(transfer))
    }

    /// A peer names others that have to do with a transfer.
    pub(super) fn peers_heard(&mut self, transfer: TransferId, conn: ConnId, peers: Vec<KnownPeer>) {
        let Some(source) = self.sessions.get(&conn).map(|live| live.session.peer) else {
            return;
        };
        let now = Instant::now();
        tracing::debug!(%source, count = peers.len(), "names peers");
        let public = !self.network.trusts_listen_addresses();
        let usable = |addr: &Multiaddr| is_tellable(addr) && (!public || is_public(addr));
        self.exchange.hear(transfer, source, peers, usable, now);
        self.dial_heard(now);
    }

    /// Dials peers that were heard of, as many as may be.
    pub(super) fn dial_heard(&mut self, now: Instant) {
        let fetching = self.transfers.iter().filter(|(_, t)| t.sink.is_some());
        for id in fetching.map(|(id, _)| *id).collect::<Vec<_>>() {
            let room = self.room_for(id);
            let dials = self.exchange.dials(id, room, &mut self.book, now);
            dials.into_iter().for_each(|dial| self.dial(dial));
        }
    }

    /// A dial failed: its other addresses are tried, and the peer is given up for now if there are none.
    fn dial_failed(&mut self, peer: PeerId) {
        match self.book.failed(peer, Instant::now()) {
            Some(next) => self.dial(next),
            None => self.exchange.failed(peer),
        }
    }

    fn dial(&mut self, Dial { peer, addrs }: Dial) {
        let opts = DialOpts::peer_id(peer).condition(PeerCondition::Disconnected);
        let opts = if addrs.is_empty() {
            opts.build()
        } else {
            opts.addresses(addrs).build()
        };
        if let Err(error) = self.swarm.dial(opts) {
            tracing::debug!(%peer, %error, "cannot dial");
            self.dial_failed(peer);
        }
    }

    fn handle_query(&mut self, id: kad::QueryId, result: kad::QueryResult, last: bool) {
        let mut reached = false;
        match result {
            kad::QueryResult::GetProviders(Ok(kad::GetProvidersOk::FoundProviders { providers, .. })) => {
                if let Some(transfer) = self.discovery.transfer_of(id) {
                    for peer in providers {
                        if self.banned.contains_key(&peer) {
                            continue;
                        }
                        tracing::debug!(%peer, "named as a provider");
                        self.book.add(peer, [], false);
                        self.add_candidate(transfer, peer);
                        // The addresses that came with the record serve only while the look-up lives: dial now.
                        if let Some(dial) = self.book.dial(peer, Instant::now()) {
                            self.dial(dial);
                        }
                    }
                }
            }
            kad::QueryResult::StartProviding(Ok(_)) => reached = true,
            _ => {}
        }
        if last {
            self.discovery.finished(id, reached, Instant::now());
        }
    }

    /// The node's addresses that others can dial, each with its peer ID.
    pub(super) fn dialable_addrs(&self) -> Vec<Multiaddr> {
        let local = *self.swarm.local_peer_id();
        let mut addrs: Vec<Multiaddr> = self.swarm.external_addresses().cloned().collect();
        for addr in &self.listen_addrs {
            if !addrs.contains(addr) {
                addrs.push(addr.clone());
            }
        }
        addrs.retain(|addr| reach(addr) != Reach::Nowhere);
        addrs.sort_by_key(|addr| (reach(addr), classify(addr)));
        addrs.into_iter().filter_map(|addr| addr.with_p2p(local).ok()).collect()
    }
}

/// Whether `addr` is on the public internet.
fn is_public(addr: &Multiaddr) -> bool {
    addr.iter().next().is_some_and(|first| match first {
        Protocol::Ip4(ip) => {
            let [a, b, ..] = ip.octets();
            !(ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_unspecified()
                || ip.is_broadcast()
                || ip.is_documentation()
                || ip.is_multicast()
                || a == 0
                || (a == 100 && (64..128).contains(&b))
                || (a == 198 && (18..20).contains(&b)))
        }
        Protocol::Ip6(ip) => {
            !(ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
                || ip.is_multicast())
        }
        Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_) => true,
        _ => false,
    })
}
