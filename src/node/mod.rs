//! The node: libp2p, discovery, and the actor that drives the engine.
//!
//! [`Node`] is the handle that commands and the control socket hold. Behind it: `actor` (one task, owns swarm and engine), `session`
//! (sockets of one peer), `blocks` (hashing and disk, off the executor), `jobs` (what one request does), `swap` (which connection
//! carries a session), `watch` (files that change under us), `discovery` (Kademlia on a schedule), `exchange`
//! (what peers tell of others) and `peers` (whom to dial, and when).

mod actor;
mod blocks;
mod discovery;
mod exchange;
mod facts;
mod heap;
mod identity;
mod jobs;
mod known;
mod network;
mod packs;
mod peers;
mod session;
mod swap;
mod swarm;
mod threads;
mod watch;
mod wishes;

use std::{sync::Arc, time::Duration};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use modswarm_protocol::{
    engine::{Engine, EngineConfig},
    wire,
};
use modswarm_store::{HomeLock, Store, StoreOptions};
use tokio::sync::{mpsc, oneshot};

#[doc(hidden)]
pub use self::jobs::rebuild_failure;
use self::{
    actor::{Actor, Command, Overview},
    blocks::BlockPool,
    jobs::{index_failure, node_ended, open_failure, remove_failure, task_failure},
};
use crate::api::{
    AdjustRequest, Collected, Diff, DiffRequest, Failure, FailureKind, ForgiveRequest, Forgiven, GcRequest, GetEvent,
    GetRequest, Limit, LimitRequest, Limits, ListRequest, Listing, MoveRequest, Moved, NetworkKind, PackStatus,
    PeerStatus, PinRequest, RemoveRequest, Removed, ShareEvent, ShareRequest, Status, VerifyEvent, VerifyRequest,
};

/// Events of one job that wait for their reader.
const EVENT_QUEUE: usize = 64;
/// How long a node waits for its first listen address.
const LISTEN_PATIENCE: Duration = Duration::from_secs(5);

/// How to start a node. The default is the public network with no limits.
#[derive(Clone, Debug, Default)]
pub struct NodeConfig {
    /// Addresses to listen on, such as `/ip4/0.0.0.0/tcp/4001`, each of which must work; empty: the network's defaults, of which one must.
    pub listen: Vec<Multiaddr>,
    /// Peers to bootstrap from, beside the network's own; each ends in `/p2p/ID`.
    pub bootstrap: Vec<Multiaddr>,
    /// The network.
    pub network: NetworkKind,
    /// Of all uploads together, in bytes a second; none: unlimited.
    pub upload_limit: Option<u64>,
    /// Of all downloads together, in bytes a second; none: unlimited.
    pub download_limit: Option<u64>,
    /// Follow what the line bears: `upload_limit` is ignored.
    pub upload_auto: bool,
    /// Whether the limits hold for peers in the local network too.
    pub limit_lan: bool,
    /// Packs that are fetched at a time; none: all.
    pub max_active: Option<usize>,
    /// Bytes that the files of all downloads may take; none: as many as there is room for.
    pub quota: Option<u64>,
    /// Bytes that downloads leave free on every disk.
    pub min_free: u64,
    /// Neither listen nor dial, and do not watch files: only look at the home.
    pub offline: bool,
}

/// A handle on a running node; cheap to clone. It serves the packs of its home until [`Node::shutdown`].
///
/// Where a call fails, [`Failure::kind`](crate::api::Failure::kind) says which of the kinds named there it is, and any of them may be
/// [`FailureKind::DiskFull`] or [`FailureKind::Failed`] when the home's disk is full or refuses.
#[derive(Clone, Debug)]
pub struct Node {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    config: NodeConfig,
    peer_id: PeerId,
    commands: mpsc::Sender<Command>,
}

impl Inner {
    async fn send(&self, command: Command) -> Result<(), Failure> {
        self.commands.send(command).await.map_err(|_| node_ended())
    }

    async fn overview(&self) -> Result<Overview, Failure> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Overview { reply }).await?;
        answer.await.map_err(|_| node_ended())
    }

    fn network_id(&self) -> [u8; 32] {
        self.config.network.id()
    }
}

impl Node {
    /// Opens the home, starts listening, and serves the home's packs. The home stays locked for as long as there is a handle.
    ///
    /// # Errors
    /// [`FailureKind::Failed`] when the home cannot be used, [`FailureKind::Network`] when nothing can be listened on.
    pub async fn start(lock: HomeLock, config: NodeConfig) -> Result<Self, Failure> {
        let bounds = (config.quota, config.min_free);
        let (store, key, known) = tokio::task::spawn_blocking(move || {
            let key = identity::load_or_create(lock.home())
                .map_err(|error| Failure::new(FailureKind::Failed, jobs::causes(&error), error.help()))?;
            let home = lock.home().to_owned();
            let mut options = StoreOptions::default();
            (options.quota, options.min_free) = bounds;
            let store = Store::open(lock, options).map_err(|error| open_failure(error, &home))?;
            // Without it the node knows less, and works.
            let known = store.peer_records().unwrap_or_else(|error| {
                tracing::warn!(%error, "what was remembered of peers cannot be read");
                Vec::new()
            });
            Ok((store, key, known))
        })
        .await
        .map_err(task_failure)??;
        let peer_id = PeerId::from(key.public());
        let pool = BlockPool::new(store.clone(), config.network.id()).map_err(|error| {
            Failure::new(
                FailureKind::Failed,
                format!("no threads: {error}"),
                "close other programs and try again",
            )
        })?;
        let (mut swarm, weights) = swarm::build(key, config.network, config.offline)?;
        if !config.offline {
            listen(&mut swarm, &config)?;
        }
        let engine = Engine::new(
            EngineConfig {
                network: wire::NetworkId(config.network.id()),
                agent: swarm::agent_version(),
                limit_lan: config.limit_lan,
                max_active: config.max_active,
                connections: swarm::MAX_SESSIONS,
                known: known.iter().map(|peer| peer.record.clone()).collect(),
                started_at: jobs::unix_seconds(),
                ..EngineConfig::default()
            },
            rand::random(),
        );
        let limits = Limits {
            upload: if config.upload_auto {
                Limit::Auto
            } else {
                Limit::of(config.upload_limit)
            },
            download: Limit::of(config.download_limit),
            lan: config.limit_lan,
            ..Limits::default()
        };
        let bootstrap = if config.offline { Vec::new() } else { bootstrap(&config) };
        let (actor, commands) = Actor::new(
            (swarm, weights),
            engine,
            config.network,
            pool,
            bootstrap,
            &known,
            limits,
        );
        tokio::spawn(actor.run());
        let node = Self {
            inner: Arc::new(Inner {
                store,
                config,
                peer_id,
                commands,
            }),
        };
        packs::serve_all(&node.inner).await?;
        tokio::spawn(packs::watch_withdrawn(Arc::downgrade(&node.inner)));
        if !node.inner.config.offline {
            tokio::spawn(packs::watch_used(Arc::downgrade(&node.inner)));
            tokio::spawn(watch::run(Arc::downgrade(&node.inner)));
        }
        if !node.inner.config.offline {
            node.await_listening().await?;
        }
        Ok(node)
    }

    async fn await_listening(&self) -> Result<(), Failure> {
        let deadline = tokio::time::Instant::now() + LISTEN_PATIENCE;
        while !self.inner.overview().await?.listening {
            if tokio::time::Instant::now() >= deadline {
                return Err(Failure::new(
                    FailureKind::Network,
                    "no address to listen on came up",
                    "check that this machine has a network, or name an address with --listen",
                ));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// This node.
    pub fn peer_id(&self) -> PeerId {
        self.inner.peer_id
    }

    /// How it was started.
    pub fn config(&self) -> &NodeConfig {
        &self.inner.config
    }

    /// Shares a folder or file. The channel ends after [`ShareEvent::Ready`], by when the pack is durable in the home and being served, or after
    /// [`ShareEvent::Failed`]. Dropping the receiver before that cancels. Must be called within Tokio's runtime.
    pub fn share(&self, request: ShareRequest) -> mpsc::Receiver<ShareEvent> {
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        tokio::spawn(jobs::share(Arc::clone(&self.inner), request, events));
        receiver
    }

    /// Fetches a pack. The channel ends after [`GetEvent::Complete`], by when all files are in their places and durable, or after
    /// [`GetEvent::Failed`]. Dropping the receiver before that stops it with progress kept: the same request goes on from there. Must be called within
    /// Tokio's runtime.
    pub fn get(&self, request: GetRequest) -> mpsc::Receiver<GetEvent> {
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        tokio::spawn(jobs::get(Arc::clone(&self.inner), request, events));
        receiver
    }

    /// Lists the files of a pack, whose list is fetched from peers if need be. Dropping the future stops it.
    ///
    /// # Errors
    /// [`FailureKind::Usage`] when the target makes no sense, [`FailureKind::NotFound`] when nobody has it in time, [`FailureKind::Integrity`] when its
    /// author's list is broken.
    pub async fn list(&self, request: ListRequest) -> Result<Listing, Failure> {
        jobs::list(Arc::clone(&self.inner), request).await
    }

    /// Says how two packs differ, or what a get would do. Writes nothing but lists of files to the home. Dropping the future stops it.
    ///
    /// # Errors
    /// As [`Node::list`].
    pub async fn diff(&self, request: DiffRequest) -> Result<Diff, Failure> {
        jobs::diff(Arc::clone(&self.inner), request).await
    }

    /// The node and all packs of its home. Looks at the packs' files for about a second at most.
    ///
    /// # Errors
    /// When the index cannot be read, or the node has ended.
    pub async fn status(&self) -> Result<Status, Failure> {
        packs::status(&self.inner).await
    }

    /// Connected peers.
    ///
    /// # Errors
    /// When the node has ended.
    pub async fn peers(&self) -> Result<Vec<PeerStatus>, Failure> {
        known::peers(&self.inner).await
    }

    /// Peers that are remembered and not connected: banned ones first, then those with the lowest score.
    ///
    /// # Errors
    /// When the node has ended.
    pub async fn known_peers(&self) -> Result<Vec<PeerStatus>, Failure> {
        known::known_peers(&self.inner).await
    }

    /// Takes the bans and faults of a peer, or of all, back: at once, and for good.
    ///
    /// # Errors
    /// When nothing is remembered of the peer, or the index refuses.
    pub async fn forgive(&self, request: ForgiveRequest) -> Result<Forgiven, Failure> {
        known::forgive(&self.inner, request).await
    }

    /// One pack of the home, by link, CID, name or path.
    ///
    /// # Errors
    /// When there is no such pack, or several.
    pub async fn info(&self, target: String) -> Result<PackStatus, Failure> {
        packs::info(&self.inner, &target).await
    }

    /// Forgets a pack. Its files stay, unless [`RemoveRequest::data`] says otherwise.
    ///
    /// # Errors
    /// When there is no such pack, there are several, or its files cannot be deleted.
    pub async fn remove(&self, request: RemoveRequest) -> Result<Removed, Failure> {
        packs::remove(&self.inner, request).await
    }

    /// Reads packs whole and compares them with their CIDs. The channel ends after [`VerifyEvent::Complete`] or [`VerifyEvent::Failed`]. Dropping the
    /// receiver before that stops it. Must be called within Tokio's runtime.
    pub fn verify(&self, request: VerifyRequest) -> mpsc::Receiver<VerifyEvent> {
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        tokio::spawn(jobs::verify(Arc::clone(&self.inner), request, events));
        receiver
    }

    /// Moves a pack to another folder, or follows it there.
    ///
    /// # Errors
    /// When there is no such pack, or it cannot be moved; it is whole where it was then.
    pub async fn relocate(&self, request: MoveRequest) -> Result<Moved, Failure> {
        packs::relocate(&self.inner, request).await
    }

    /// Pins or unpins a pack.
    ///
    /// # Errors
    /// When there is no such pack.
    pub async fn pin(&self, request: PinRequest) -> Result<PackStatus, Failure> {
        packs::pin(&self.inner, request).await
    }

    /// Deletes what no pack needs any more, and packs beyond what is to be kept.
    ///
    /// # Errors
    /// When the index refuses.
    pub async fn collect(&self, request: GcRequest) -> Result<Collected, Failure> {
        packs::collect(&self.inner, request).await
    }

    /// Changes limits while the node runs, and says what they are. Those of one pack are kept.
    ///
    /// # Errors
    /// When there is no such pack.
    pub async fn limit(&self, request: LimitRequest) -> Result<Limits, Failure> {
        wishes::limit(&self.inner, request).await
    }

    /// Pauses, resumes or prioritises packs, and gives how they are then. It is kept.
    ///
    /// # Errors
    /// When there is no such pack.
    pub async fn adjust(&self, request: AdjustRequest) -> Result<Vec<PackStatus>, Failure> {
        wishes::adjust(&self.inner, request).await
    }

    /// Ends the node; what was verified is durable when this returns, and the home's lock is given back with the last handle. To be called before the
    /// process ends: without it, what was verified in the last second may have to be fetched again.
    pub async fn shutdown(&self) {
        let (done, ended) = oneshot::channel();
        if self.inner.send(Command::Shutdown { done }).await.is_ok() {
            let _ = ended.await;
        }
        let store = self.inner.store.clone();
        let closed = tokio::task::spawn_blocking(move || store.close()).await;
        if let Ok(Err(error)) = closed {
            tracing::error!(%error, "what came last may have to be fetched again");
        }
    }
}

fn listen(swarm: &mut libp2p::Swarm<swarm::Behaviour>, config: &NodeConfig) -> Result<(), Failure> {
    let asked = !config.listen.is_empty();
    let addrs = if asked {
        config.listen.clone()
    } else {
        config.network.default_listen()
    };
    let mut problems = Vec::new();
    let mut listening = 0;
    for addr in addrs {
        match swarm.listen_on(addr.clone()) {
            Ok(_) => listening += 1,
            Err(error) => problems.push(format!("{addr}: {}", listen_problem(&error))),
        }
    }
    // What the user asked for has to work; of the defaults, one is enough.
    if (asked && !problems.is_empty()) || listening == 0 {
        return Err(Failure::new(
            FailureKind::Network,
            format!("cannot listen on {}", problems.join(", ")),
            "name another address or port with --listen; /tcp/0 lets the system choose the port",
        ));
    }
    for problem in problems {
        tracing::warn!(problem, "not listening everywhere");
    }
    Ok(())
}

/// Why nothing can be listened on, in one line: the library's error holds its cause in words of its own.
fn listen_problem(error: &libp2p::TransportError<std::io::Error>) -> String {
    match error {
        libp2p::TransportError::MultiaddrNotSupported(_) => {
            "no transport of this program is written like this".to_owned()
        }
        libp2p::TransportError::Other(cause) => {
            let mut text = String::new();
            let mut next: Option<&(dyn std::error::Error + 'static)> = Some(cause);
            while let Some(error) = next {
                text = error.to_string();
                next = error.source();
            }
            // Transports are asked in turn, and each wraps the error of the one before: what the system said is innermost.
            cause.raw_os_error().map_or_else(
                || if text.is_empty() { format!("{cause:?}") } else { text },
                |code| std::io::Error::from_raw_os_error(code).to_string(),
            )
        }
    }
}

fn bootstrap(config: &NodeConfig) -> Vec<(Option<PeerId>, Multiaddr)> {
    config
        .network
        .default_bootstrap()
        .into_iter()
        .chain(config.bootstrap.iter().cloned())
        .map(|addr| match peers::split_peer(&addr) {
            // A name of several nodes resolves to addresses with their IDs: it stays whole.
            Some((peer, rest)) if !matches!(rest.iter().next(), Some(Protocol::Dnsaddr(_))) => (Some(peer), rest),
            Some((peer, _)) => (Some(peer), addr),
            None => (None, addr),
        })
        .collect()
}
