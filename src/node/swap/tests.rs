//! Two sides over TCP on loopback, which do with their streams what the actor does.

use std::{collections::HashMap, time::Duration};

use futures::StreamExt as _;
use libp2p::{
    Multiaddr, PeerId, Stream, Swarm, SwarmBuilder, noise,
    swarm::{ConnectionId, SwarmEvent, dial_opts::DialOpts},
    tcp, tls, yamux,
};

use super::{Behaviour, Event, InboundStream};

const PATIENCE: Duration = Duration::from_secs(120);
/// As the node's, and shorter.
const IDLE_TIMEOUT: Duration = Duration::from_millis(200);

#[expect(dead_code, reason = "held, so that it stays open")]
enum Control {
    Opened(Stream),
    Accepted(InboundStream),
}

struct Side {
    swarm: Swarm<Behaviour>,
    addr: Multiaddr,
    /// Whether we dialled each.
    connections: HashMap<ConnectionId, bool>,
    session: Option<(ConnectionId, Control)>,
    made: usize,
}

impl Side {
    async fn new() -> Self {
        let mut swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(
                tcp::Config::default().nodelay(true),
                (tls::Config::new, noise::Config::new),
                yamux::Config::default,
            )
            .expect("TCP with TLS")
            .with_behaviour(|key| Behaviour::new(PeerId::from(key.public())))
            .expect("a behaviour")
            .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE_TIMEOUT))
            .build();
        swarm
            .listen_on("/ip4/127.0.0.1/tcp/0".parse().expect("an address"))
            .expect("TCP on loopback");
        let addr = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address;
            }
        };
        Self {
            swarm,
            addr,
            connections: HashMap::new(),
            session: None,
            made: 0,
        }
    }

    fn dial(&mut self, other: &Self) {
        let peer = DialOpts::peer_id(*other.swarm.local_peer_id());
        let opts = peer.addresses(vec![other.addr.clone()]).build();
        self.swarm.dial(opts).expect("nothing is dialled yet");
    }

    fn begin(&mut self, peer: PeerId, connection: ConnectionId, control: Control) {
        if let Some((old, _)) = self.session.replace((connection, control)) {
            self.swarm.behaviour_mut().close(peer, old);
        }
    }

    fn handle(&mut self, event: SwarmEvent<Event>) {
        match event {
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => {
                self.made += 1;
                self.connections.insert(connection_id, endpoint.is_dialer());
                self.swarm.behaviour_mut().want_session(peer_id);
            }
            SwarmEvent::ConnectionClosed { connection_id, .. } => {
                self.connections.remove(&connection_id);
                self.session.take_if(|(session, _)| *session == connection_id);
            }
            SwarmEvent::Behaviour(Event::ControlOpened {
                peer,
                connection,
                stream,
                ..
            }) => self.begin(peer, connection, Control::Opened(stream)),
            SwarmEvent::Behaviour(Event::Inbound {
                peer,
                connection,
                stream,
                ..
            }) => {
                if self.swarm.behaviour_mut().accept_control(peer, connection) {
                    self.begin(peer, connection, Control::Accepted(stream));
                } else {
                    self.swarm.behaviour_mut().close(peer, connection);
                }
            }
            _ => {}
        }
    }

    /// Whether we dialled the one connection that is left, once it is and carries the session.
    fn settled(&self) -> Option<bool> {
        let (session, _) = self.session.as_ref()?;
        let alone = self.made == 2 && self.connections.len() == 1;
        self.connections.get(session).copied().filter(|_| alone)
    }
}

#[tokio::test]
async fn two_that_dial_each_other_at_once_end_with_one_connection_that_both_chose() {
    for _ in 0..20 {
        let (mut a, mut b) = (Side::new().await, Side::new().await);
        a.dial(&b);
        b.dial(&a);
        let settling = async {
            loop {
                tokio::select! {
                    event = a.swarm.select_next_some() => a.handle(event),
                    event = b.swarm.select_next_some() => b.handle(event),
                }
                if let (Some(by_a), Some(by_b)) = (a.settled(), b.settled()) {
                    return (by_a, by_b);
                }
            }
        };
        let (by_a, by_b) = tokio::time::timeout(PATIENCE, settling)
            .await
            .expect("one connection is left, with the session on it");
        assert_ne!(by_a, by_b, "each has a connection of its own");
    }
}
