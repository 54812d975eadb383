//! The one task that drives the engine: it turns what happens on the network into facts for the engine, and does what the engine says.
//!
//! It never hashes, reads or writes a file, or waits for anyone: sockets, disk and jobs talk to it over bounded channels.

mod commands;
mod dialling;
mod effects;
mod network;
mod pages;
mod reputation;
mod sessions;
mod wishes;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::StreamExt as _;
use libp2p::{Multiaddr, PeerId, Swarm, swarm::ConnectionId};
use modswarm_protocol::{
    Cid, Timestamp,
    engine::{ConnId, Engine, Expected, PeerKey, TransferId, Verdict, Violation},
    format::SharedPieceMap,
    wire::BulkHeader,
};
use modswarm_store::{Download, KnownPeer, WriteError};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::JoinHandle,
    time::MissedTickBehavior,
};

pub(super) use commands::{Command, Fetch, Overview, PeerView, Register, TransferView};
pub(super) use wishes::Wish;

use super::{
    blocks::BlockPool,
    discovery::Discovery,
    exchange::Exchange,
    facts::{HeaderReply, Input, NodeSet, SessionError, Wanted},
    peers::PeerBook,
    session::{Session, UploadLimits},
    swarm::{Behaviour, Weights},
};
use crate::api::{Limits, NetworkKind};

/// Facts from sessions and the block pool that wait for the actor.
const INPUT_QUEUE: usize = 1024;
/// Requests from jobs and the API that wait for the actor.
const COMMAND_QUEUE: usize = 64;
/// How often look-ups, dials and announcements that are due are started.
const TICK: Duration = Duration::from_secs(1);
/// Peers whose names are remembered for reports.
const MAX_MET: usize = 16 * 1024;
/// Facts that are taken in a row before the engine's answers are carried out.
const INPUT_BATCH: usize = 64;

/// What the job behind a transfer hears.
#[derive(Debug)]
pub(super) enum TransferEvent {
    /// A node or pack.json that was asked for, verified.
    Node { cid: Cid, bytes: Bytes },
    /// A piece was verified and kept.
    Piece,
    /// All wanted pieces are here.
    Complete,
    /// A block could not be kept, and the transfer has paused.
    WriteFailed(Option<WriteError>),
    /// Something that the user should know.
    Notice(String),
}

/// What the actor knows of one of the engine's transfers.
#[derive(Debug, Default)]
struct Transfer {
    /// Content CID and pack CIDs.
    roots: Vec<Cid>,
    /// Which of them is the content, once that is known.
    content: Option<Cid>,
    /// The pieces, while they are in memory.
    map: Option<SharedPieceMap>,
    /// What may be served as nodes.
    nodes: Arc<NodeSet>,
    /// Set while pieces and nodes are read from the store.
    loading: Option<pages::Loading>,
    /// Since when nobody has had to do with the pieces.
    unused_since: Option<Instant>,
    /// Where arriving pieces go.
    download: Option<Download>,
    /// The job that fetches it.
    sink: Option<mpsc::Sender<TransferEvent>>,
    /// Peers that may have it.
    candidates: Vec<PeerId>,
    /// Providers that do not speak our protocol.
    foreign: HashSet<PeerId>,
    /// A pack of the home: served when no job fetches it.
    serving: bool,
    /// Why the last block could not be kept.
    problem: Option<WriteError>,
}

/// A session and what is known of it.
#[derive(Debug)]
struct Live {
    session: Session,
    addr: Multiaddr,
    /// Whether we dialled that address.
    dialled: bool,
}

/// See the module.
pub(super) struct Actor {
    swarm: Swarm<Behaviour>,
    weights: Weights,
    engine: Engine,
    network: NetworkKind,
    started: Instant,
    pool: BlockPool,
    book: PeerBook,
    discovery: Discovery,
    exchange: Exchange,
    /// Bootstrap peers: dialled again whenever they are lost.
    entry_points: Vec<PeerId>,
    sessions: HashMap<ConnId, Live>,
    by_connection: HashMap<ConnectionId, ConnId>,
    conns_made: u64,
    /// Peers that had a session or are remembered, bounded by [`MAX_MET`].
    met: HashMap<PeerKey, (PeerId, Multiaddr)>,
    /// Banned peers, as the swarm knows them.
    banned: HashMap<PeerId, PeerKey>,
    /// Writes what is remembered of peers.
    keeping: Option<JoinHandle<()>>,
    transfers: HashMap<TransferId, Transfer>,
    /// How many contents are read from the store at a time.
    loads: Arc<Semaphore>,
    /// What the user wants of contents, by content CID: at most one for each content of the home.
    wishes: HashMap<Cid, Wish>,
    /// The limits of all transfers together.
    limits: Limits,
    throttle: UploadLimits,
    /// What the writers of blocks were told last.
    throttled_to: Option<u64>,
    listen_addrs: Vec<Multiaddr>,
    input_sender: mpsc::Sender<Input>,
    inputs: mpsc::Receiver<Input>,
    commands: mpsc::Receiver<Command>,
    ending: Option<oneshot::Sender<()>>,
}

impl Actor {
    /// An actor over a swarm that listens, and the way to command it.
    pub(super) fn new(
        (swarm, weights): (Swarm<Behaviour>, Weights),
        engine: Engine,
        network: NetworkKind,
        pool: BlockPool,
        bootstrap: Vec<(Option<PeerId>, Multiaddr)>,
        known: &[KnownPeer],
        limits: Limits,
    ) -> (Self, mpsc::Sender<Command>) {
        let (input_sender, inputs) = mpsc::channel(INPUT_QUEUE);
        let (command_sender, commands) = mpsc::channel(COMMAND_QUEUE);
        let mut actor = Self {
            exchange: Exchange::new(*swarm.local_peer_id()),
            swarm,
            weights,
            engine,
            network,
            started: Instant::now(),
            pool,
            book: PeerBook::default(),
            discovery: Discovery::default(),
            entry_points: Vec::new(),
            sessions: HashMap::new(),
            by_connection: HashMap::new(),
            conns_made: 0,
            met: HashMap::new(),
            banned: HashMap::new(),
            keeping: None,
            transfers: HashMap::new(),
            loads: Arc::new(Semaphore::new(pages::MAX_LOADING)),
            wishes: HashMap::new(),
            limits: Limits::default(),
            throttle: UploadLimits::new(),
            throttled_to: None,
            listen_addrs: Vec::new(),
            input_sender,
            inputs,
            commands,
            ending: None,
        };
        actor.remember(known);
        for (peer, addr) in bootstrap {
            actor.add_entry_point(peer, addr);
        }
        actor.limits.lan = limits.lan;
        actor.limit(Some(limits.upload), Some(limits.download));
        (actor, command_sender)
    }

    /// Runs until told to end, or until every handle on the node is gone.
    pub(super) async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.ending.is_none() {
            let wake = self
                .engine
                .poll_timeout()
                .map(|at| self.started + Duration::from_micros(at.as_micros()));
            let heard = self.exchange.next_due(Instant::now());
            tokio::select! {
                input = self.inputs.recv() => {
                    if let Some(input) = input {
                        self.handle_input(input);
                    }
                    for _ in 0..INPUT_BATCH {
                        let Ok(input) = self.inputs.try_recv() else { break };
                        self.handle_input(input);
                    }
                }
                command = self.commands.recv() => match command {
                    Some(command) => self.handle_command(command),
                    None => break,
                },
                event = self.swarm.select_next_some() => self.handle_swarm_event(event),
                () = sleep_until(wake) => {
                    let now = self.now();
                    self.engine.handle_timeout(now);
                }
                () = sleep_until(heard) => self.dial_heard(Instant::now()),
                _ = tick.tick() => self.tick(),
            }
            self.carry_out();
            self.keep_throttle();
        }
        self.keep_last_records().await;
        if let Some(done) = self.ending.take() {
            let _ = done.send(());
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_micros(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn handle_input(&mut self, input: Input) {
        let now = self.now();
        match input {
            Input::Message { conn, message } => self.engine.handle_message(now, conn, message),
            Input::SessionEnded { conn, error } => match error {
                // The engine says that the session is to end, and why.
                SessionError::Protocol(cause) => self.engine.handle_violation(now, conn, Violation::Malformed(cause)),
                SessionError::Refused => {}
                SessionError::Foreign => self.end_foreign_session(conn),
                error => self.end_session(conn, &error.into()),
            },
            Input::BlockHeader {
                conn,
                header,
                arrived,
                reply,
            } => {
                let _ = reply.send(self.handle_header(now, conn, &header));
                self.engine.handle_block_progress(now, conn, arrived);
            }
            Input::Progress { conn, bytes } => self.engine.handle_block_progress(now, conn, bytes),
            Input::Verdict {
                expected,
                verdict,
                node,
                problem,
            } => {
                self.handle_verdict(now, &expected, verdict, node, problem);
            }
            Input::Served { blocks } => {
                for (job, outcome) in blocks {
                    if let (Err(_), Some(piece)) = (&outcome, job.piece) {
                        self.engine.handle_lost(now, job.transfer, piece);
                    }
                    self.engine.handle_served(now, &job, outcome);
                }
            }
            Input::RecordsKept => self.records_kept(),
            Input::Loaded { transfer, seed } => self.handle_loaded(transfer, seed.map(|seed| *seed)),
            Input::Inbound {
                peer,
                connection,
                addr,
                stream,
                kind,
            } => {
                self.handle_inbound(peer, connection, addr, stream, kind);
            }
        }
    }

    fn handle_header(&mut self, now: Timestamp, conn: ConnId, header: &BulkHeader) -> HeaderReply {
        use modswarm_protocol::engine::Unwanted;
        match self.engine.handle_block_header(now, conn, header) {
            Ok(expected) => {
                let download = self.transfers.get(&expected.transfer).and_then(|t| t.download.clone());
                HeaderReply::Take(Wanted { expected, download })
            }
            Err(Unwanted::Late) => HeaderReply::Skip,
            Err(Unwanted::Violation(_)) => HeaderReply::Stop,
        }
    }

    fn handle_verdict(
        &mut self,
        now: Timestamp,
        expected: &Expected,
        verdict: Verdict,
        node: Option<Bytes>,
        problem: Option<WriteError>,
    ) {
        if let Some(transfer) = self.transfers.get_mut(&expected.transfer) {
            if problem.is_some() {
                transfer.problem = problem;
            }
            if let (Some(bytes), Some(sink)) = (node, &transfer.sink) {
                // Fewer come at a time than the channel holds.
                let _ = sink.try_send(TransferEvent::Node {
                    cid: expected.cid,
                    bytes,
                });
            }
        }
        self.engine.handle_verdict(now, expected, verdict);
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.lift_bans();
        self.dial_candidates(now);
        self.dial_heard(now);
        self.put_unused_away(now);
        self.discover(now);
    }

    /// Starts look-ups and announcements that are due.
    fn discover(&mut self, now: Instant) {
        let reachable = self.swarm.external_addresses().next().is_some();
        self.discovery.tick(now, &mut self.swarm.behaviour_mut().kad, reachable);
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
