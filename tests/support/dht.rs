//! A node that speaks Kademlia alone, in the private network on loopback: it hears what others announce, and asks them who has what. It has nothing itself.

#![allow(dead_code, unreachable_pub, reason = "each binary uses its own part")]

use std::collections::{HashMap, HashSet};

use futures::StreamExt as _;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, identify, kad,
    multiaddr::Protocol,
    noise,
    swarm::{NetworkBehaviour, SwarmEvent},
    tls, yamux,
};
use modswarm_protocol::Cid;
use tokio::sync::{mpsc, oneshot};

use crate::support::PATIENCE;

const PROTOCOL: StreamProtocol = StreamProtocol::new("/modswarm/private/kad/1.0.0");

/// The key under which providers of `cid` are found.
pub fn key_of(cid: &str) -> kad::RecordKey {
    let cid: Cid = cid.parse().expect("a CID");
    kad::RecordKey::new(&cid.multihash_bytes())
}

/// Asks all that are known; answered by whom they name.
struct Question(kad::RecordKey, oneshot::Sender<HashSet<PeerId>>);

/// See the module. It ends when dropped.
pub struct DhtNode {
    addr: Multiaddr,
    heard: mpsc::UnboundedReceiver<(PeerId, kad::RecordKey)>,
    questions: mpsc::Sender<Question>,
    task: tokio::task::AbortHandle,
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    kad: kad::Behaviour<kad::store::MemoryStore>,
}

impl DhtNode {
    /// Listens on a port of the system's choice; nobody is known yet.
    pub async fn new() -> Self {
        Self::start(swarm()).await
    }

    /// As [`DhtNode::new`], and dials the node at `addr`, which ends in its peer ID: both then know each other.
    pub async fn beside(addr: &str) -> Self {
        let mut swarm = swarm();
        let addr: Multiaddr = addr.parse().expect("an address");
        swarm.dial(addr).expect("it may be dialled");
        Self::start(swarm).await
    }

    async fn start(mut swarm: Swarm<Behaviour>) -> Self {
        swarm
            .listen_on("/ip4/127.0.0.1/tcp/0".parse().expect("an address"))
            .expect("TCP on loopback");
        let (hear, heard) = mpsc::unbounded_channel();
        let (questions, asked) = mpsc::channel(1);
        let (listening, listens) = oneshot::channel();
        let id = *swarm.local_peer_id();
        let task = tokio::spawn(drive(swarm, hear, asked, listening)).abort_handle();
        let addr = listens.await.expect("it listens").with(Protocol::P2p(id));
        Self {
            addr,
            heard,
            questions,
            task,
        }
    }

    /// Where it listens, with its peer ID: for `--bootstrap`.
    pub fn addr(&self) -> String {
        self.addr.to_string()
    }

    /// The next announcement that comes: who has what.
    pub async fn announcement(&mut self) -> (PeerId, kad::RecordKey) {
        let next = tokio::time::timeout(PATIENCE, self.heard.recv()).await;
        next.expect("an announcement comes").expect("the swarm runs")
    }

    /// Whom those that it knows name as having `key`.
    pub async fn providers(&self, key: &kad::RecordKey) -> HashSet<PeerId> {
        let (reply, answer) = oneshot::channel();
        let question = Question(key.clone(), reply);
        assert!(self.questions.send(question).await.is_ok(), "the swarm runs");
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        answer.expect("a look-up ends").expect("the swarm runs")
    }
}

impl Drop for DhtNode {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn swarm() -> Swarm<Behaviour> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            libp2p::tcp::Config::default().nodelay(true),
            (tls::Config::new, noise::Config::new),
            yamux::Config::default,
        )
        .expect("TCP with TLS")
        .with_behaviour(|key| {
            let id = PeerId::from(key.public());
            let mut config = kad::Config::new(PROTOCOL);
            // Announcements are told of, and not kept: what it finds out is what others say.
            config.set_record_filtering(kad::StoreInserts::FilterBoth);
            let mut kad = kad::Behaviour::with_config(id, kad::store::MemoryStore::new(id), config);
            kad.set_mode(Some(kad::Mode::Server));
            Behaviour {
                identify: identify::Behaviour::new(identify::Config::new("/modswarm/1".to_owned(), key.public())),
                kad,
            }
        })
        .expect("a behaviour")
        .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE))
        .build()
}

async fn drive(
    mut swarm: Swarm<Behaviour>,
    hear: mpsc::UnboundedSender<(PeerId, kad::RecordKey)>,
    mut questions: mpsc::Receiver<Question>,
    listening: oneshot::Sender<Multiaddr>,
) {
    let mut listening = Some(listening);
    let mut asked: HashMap<kad::QueryId, (HashSet<PeerId>, oneshot::Sender<HashSet<PeerId>>)> = HashMap::new();
    loop {
        tokio::select! {
            event = swarm.select_next_some() => match event {
                SwarmEvent::NewListenAddr { address, .. } => {
                    swarm.add_external_address(address.clone());
                    if let Some(listening) = listening.take() {
                        let _ = listening.send(address);
                    }
                }
                SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. })) => {
                    for addr in info.listen_addrs {
                        swarm.behaviour_mut().kad.add_address(&peer_id, addr);
                    }
                }
                SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::InboundRequest {
                    request: kad::InboundRequest::AddProvider { record: Some(record) },
                })) => {
                    let _ = hear.send((record.provider, record.key));
                }
                SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                    id,
                    result: kad::QueryResult::GetProviders(found),
                    step,
                    ..
                })) => {
                    let Some((named, _)) = asked.get_mut(&id) else { continue };
                    if let Ok(kad::GetProvidersOk::FoundProviders { providers, .. }) = found {
                        named.extend(providers);
                    }
                    if step.last && let Some((named, reply)) = asked.remove(&id) {
                        let _ = reply.send(named);
                    }
                }
                _ => {}
            },
            question = questions.recv() => {
                let Some(Question(key, reply)) = question else { return };
                let id = swarm.behaviour_mut().kad.get_providers(key);
                asked.insert(id, (HashSet::new(), reply));
            }
        }
    }
}
