//! What the swarm says: connections and addresses that come and go, and who speaks what.
//!
//! It goes on in [`super::sessions`] with the streams of our own protocol, and in [`super::dialling`] with whom to connect to.

use std::time::Instant;

use libp2p::{
    Multiaddr, PeerId, identify, kad, mdns,
    multiaddr::Protocol,
    ping,
    swarm::{DialError, SwarmEvent},
};
use modswarm_protocol::engine::TransferId;

use super::Actor;
use crate::{
    api::NetworkKind,
    node::{
        network::{Reach, classify, reach},
        swap,
        swarm::BehaviourEvent,
    },
};

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
            BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                id,
                result,
                stats,
                step,
            }) => {
                self.handle_query(id, result, stats.num_successes() > 0, step.last);
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
    pub(super) fn is_usable(&self, addr: &Multiaddr) -> bool {
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
pub(super) fn is_public(addr: &Multiaddr) -> bool {
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
