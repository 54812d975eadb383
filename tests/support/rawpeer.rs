//! A peer that speaks `/modswarm/swap/1` by hand: it is on the network as a node is (TCP, TLS, yamux, on loopback), and says whatever bytes
//! a test gives it.
//!
//! As a leecher it dials a node ([`RawPeer::connect`]), opens streams of its own, and writes messages or bytes on them. As a seed
//! ([`RawPeer::seed`]) it waits to be dialled and serves a small pack ([`RawPack`]), real or forged, as [`Deeds`] says: honestly, with wrong bytes,
//! or not at all. What comes back is read by [`Wire`].

#![allow(dead_code, unreachable_pub, reason = "each binary uses its own part")]

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder, identify,
    multiaddr::Protocol,
    noise, ping,
    swarm::{DialError, NetworkBehaviour, SwarmEvent, behaviour::toggle::Toggle, dial_opts::DialOpts},
    tls, yamux,
};
use modswarm_protocol::{
    Cid, Codec, HashKind,
    format::{ContentBuilder, Leaf, Manifest, Name, build_pack},
    wire::{
        BulkHeader, Encoding, Extension, Handle, Have, Hello, Message, NetworkId, RejectReason, Rejection, RequestId,
        StreamKind, What, split_frame,
    },
};
use tokio::sync::{mpsc, oneshot};

/// What the streams are negotiated as.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/modswarm/swap/1");
/// The ID of a private network without a key, which is what tests run in.
pub const NETWORK: NetworkId = NetworkId([0; 32]);
/// How long the other side may take on a machine that is busy with other work.
const PATIENCE: Duration = Duration::from_secs(240);

/// The first message of an honest peer.
pub fn hello() -> Message {
    hello_with(&[])
}

/// As [`hello`], with names of extensions.
pub fn hello_with(extensions: &[&str]) -> Message {
    let extension = |name: &&str| Extension {
        name: (*name).to_owned(),
        value: Vec::new(),
    };
    Message::Hello(Hello {
        network: NETWORK,
        agent: "raw/1".to_owned(),
        extensions: extensions.iter().map(extension).collect(),
    })
}

type Dial = (Multiaddr, oneshot::Sender<Result<PeerId, DialError>>);

/// A peer with an identity of its own. Its connections end with it.
pub struct RawPeer {
    pub id: PeerId,
    addr: Multiaddr,
    control: libp2p_stream::Control,
    inbound: mpsc::Receiver<(PeerId, Stream)>,
    dials: mpsc::Sender<Dial>,
    tasks: [tokio::task::AbortHandle; 2],
}

impl RawPeer {
    /// Listens on a port of the system's choice, and speaks the swap protocol alone.
    pub async fn new() -> Self {
        Self::start(swarm(false)).await
    }

    /// As [`RawPeer::new`], and speaks identify and ping as nodes do: they learn where it can be dialled, and measure round trips.
    pub async fn with_identify_and_ping() -> Self {
        Self::start(swarm(true)).await
    }

    async fn start(mut swarm: Swarm<Behaviour>) -> Self {
        let streams = &swarm.behaviour().streams;
        let mut accepted = streams.new_control().accept(PROTOCOL).expect("accepted once");
        let control = streams.new_control();
        swarm
            .listen_on("/ip4/127.0.0.1/tcp/0".parse().expect("an address"))
            .expect("TCP on loopback");
        let id = *swarm.local_peer_id();
        let addr = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address.with(Protocol::P2p(id));
            }
        };
        let (dials, to_dial) = mpsc::channel(16);
        let (found, inbound) = mpsc::channel(1024);
        let accept = tokio::spawn(async move {
            // The library drops streams that are not taken at once.
            while let Some(stream) = accepted.next().await {
                if found.send(stream).await.is_err() {
                    break;
                }
            }
        });
        let tasks = [
            tokio::spawn(drive(swarm, to_dial)).abort_handle(),
            accept.abort_handle(),
        ];
        Self {
            id,
            addr,
            control,
            inbound,
            dials,
            tasks,
        }
    }

    /// Where it listens, with its peer ID: for `--peer` and links.
    pub fn addr(&self) -> String {
        self.addr.to_string()
    }

    /// Makes a new connection to a node; `addr` ends in its peer ID.
    pub async fn connect(&self, addr: &str) -> PeerId {
        self.try_connect(addr)
            .await
            .unwrap_or_else(|e| panic!("cannot connect to {addr}: {e}"))
    }

    /// As [`RawPeer::connect`], and says why it cannot.
    pub async fn try_connect(&self, addr: &str) -> Result<PeerId, DialError> {
        let (reply, answer) = oneshot::channel();
        let addr = addr.parse().expect("an address");
        self.dials.send((addr, reply)).await.expect("the swarm runs");
        within(answer).await.expect("the swarm runs")
    }

    /// Opens a stream to a connected node and writes nothing on it.
    pub async fn open(&self, node: PeerId) -> io::Result<Wire> {
        let stream = within(self.control.clone().open_stream(node, PROTOCOL)).await;
        stream.map(Wire::new).map_err(io::Error::other)
    }

    /// Opens a stream to a connected node and says what kind it is.
    pub async fn open_as(&self, node: PeerId, kind: StreamKind) -> Wire {
        let mut wire = self.open(node).await.expect("the node is connected");
        wire.write(&[kind.to_byte()]).await;
        wire
    }

    /// Connects to a node as a leecher does, and greets it: the control stream, on which the node's own greeting was read.
    pub async fn greet(&self, addr: &str) -> (PeerId, Wire) {
        let node = self.connect(addr).await;
        let mut control = self.open_as(node, StreamKind::Control).await;
        control.say(&hello()).await;
        let greeting = control.next().await;
        assert!(matches!(greeting, Some(Message::Hello(_))), "{greeting:?}");
        (node, control)
    }

    /// The next stream that a node opened, and its kind.
    pub async fn accept(&mut self) -> (PeerId, StreamKind, Wire) {
        let (node, stream) = within(self.inbound.recv()).await.expect("the swarm runs");
        let mut wire = Wire::new(stream);
        let kind = wire
            .byte()
            .await
            .and_then(StreamKind::from_byte)
            .expect("a kind of stream");
        (node, kind, wire)
    }

    /// Waits for a node to open its session, and greets it.
    pub async fn accept_session(&mut self) -> (PeerId, Wire) {
        loop {
            let (node, kind, mut control) = self.accept().await;
            if kind == StreamKind::Control {
                control.say(&hello()).await;
                return (node, control);
            }
        }
    }

    /// Serves `pack` to whoever opens a session. Must be awaited or spawned; it goes on until it or this peer is dropped. Nothing else can accept
    /// streams from then on.
    pub fn seed(&mut self, pack: Arc<RawPack>, deeds: Deeds) -> impl Future<Output = ()> + Send + use<> {
        let mut inbound = std::mem::replace(&mut self.inbound, mpsc::channel(1).1);
        let control = self.control.clone();
        async move {
            let mut sessions = tokio::task::JoinSet::new();
            while let Some((node, stream)) = inbound.recv().await {
                let (control, pack) = (control.clone(), Arc::clone(&pack));
                sessions.spawn(async move {
                    let mut wire = Wire::new(stream);
                    match wire.byte().await.and_then(StreamKind::from_byte) {
                        Some(StreamKind::Control) => serve(control, node, wire, &pack, deeds).await,
                        // Nothing was asked for.
                        Some(StreamKind::Bulk) | None => {}
                    }
                });
            }
        }
    }
}

impl Drop for RawPeer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::AbortHandle::abort);
    }
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    streams: libp2p_stream::Behaviour,
    identify: Toggle<identify::Behaviour>,
    ping: Toggle<ping::Behaviour>,
}

fn swarm(identify_and_ping: bool) -> Swarm<Behaviour> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            libp2p::tcp::Config::default().nodelay(true),
            (tls::Config::new, noise::Config::new),
            yamux::Config::default,
        )
        .expect("TCP with TLS")
        .with_behaviour(|key| {
            let identify = identify::Config::new("/modswarm/1".to_owned(), key.public());
            Behaviour {
                streams: libp2p_stream::Behaviour::new(),
                identify: identify_and_ping.then(|| identify::Behaviour::new(identify)).into(),
                ping: identify_and_ping.then(ping::Behaviour::default).into(),
            }
        })
        .expect("a behaviour")
        .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE))
        .build()
}

async fn drive(mut swarm: Swarm<Behaviour>, mut dials: mpsc::Receiver<Dial>) {
    let mut waiting: HashMap<libp2p::swarm::ConnectionId, oneshot::Sender<Result<PeerId, DialError>>> = HashMap::new();
    loop {
        tokio::select! {
            event = swarm.select_next_some() => match event {
                SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                    if let Some(reply) = waiting.remove(&connection_id) {
                        let _ = reply.send(Ok(peer_id));
                    }
                }
                SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                    if let Some(reply) = waiting.remove(&connection_id) {
                        let _ = reply.send(Err(error));
                    }
                }
                _ => {}
            },
            dial = dials.recv() => {
                let Some((addr, reply)) = dial else { return };
                let opts: DialOpts = addr.into();
                let connection = opts.connection_id();
                match swarm.dial(opts) {
                    Ok(()) => drop(waiting.insert(connection, reply)),
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
        }
    }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.expect("the other side does what is waited for")
}

/// One stream.
pub struct Wire {
    stream: Stream,
    buffer: Vec<u8>,
}

impl Wire {
    fn new(stream: Stream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Writes bytes; false if the node has ended the stream.
    pub async fn write(&mut self, bytes: &[u8]) -> bool {
        let work = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        work.await.is_ok()
    }

    /// Writes a message; false if the node has ended the stream.
    pub async fn say(&mut self, message: &Message) -> bool {
        let mut frame = Vec::new();
        message.encode(&mut frame);
        self.write(&frame).await
    }

    /// Writes a block; false if the node has ended the stream.
    pub async fn send_block(&mut self, handle: Handle, what: What, payload: &[u8]) -> bool {
        let mut bytes = header(handle, what, payload.len() as u32);
        bytes.extend_from_slice(payload);
        self.write(&bytes).await
    }

    async fn fill(&mut self) -> bool {
        let mut chunk = vec![0; 64 * 1024];
        match within(self.stream.read(&mut chunk)).await {
            Ok(n) if n > 0 => {
                self.buffer.extend_from_slice(&chunk[..n]);
                true
            }
            _ => false,
        }
    }

    /// The next byte; nothing if the stream has ended.
    pub async fn byte(&mut self) -> Option<u8> {
        if self.buffer.is_empty() && !self.fill().await {
            return None;
        }
        Some(self.buffer.remove(0))
    }

    /// The next message; nothing if the stream has ended.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(frame) = split_frame(&self.buffer).expect("the node keeps the bounds") {
                let message = Message::decode(frame.message).expect("the node's messages decode");
                let consumed = frame.consumed;
                self.buffer.drain(..consumed);
                if message.is_some() {
                    return message;
                }
                continue;
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// The next message that `pick` takes; nothing if the stream ends before.
    pub async fn until<T>(&mut self, mut pick: impl FnMut(Message) -> Option<T>) -> Option<T> {
        loop {
            if let Some(picked) = pick(self.next().await?) {
                return Some(picked);
            }
        }
    }

    /// The next block; nothing if the stream ends before.
    pub async fn next_block(&mut self) -> Option<(BulkHeader, Vec<u8>)> {
        loop {
            if let Some((header, len)) = BulkHeader::decode(&self.buffer).expect("the node's headers decode")
                && self.buffer.len() >= len + header.len as usize
            {
                let payload = self.buffer[len..len + header.len as usize].to_vec();
                self.buffer.drain(..len + header.len as usize);
                return Some((header, payload));
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// Reads over whatever comes until the node ends the stream.
    pub async fn ended(&mut self) {
        while self.fill().await {
            self.buffer.clear();
        }
    }
}

/// The header of a plain block.
pub fn header(handle: Handle, what: What, len: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    BulkHeader {
        handle,
        what,
        encoding: Encoding::Plain,
        len,
    }
    .encode(&mut bytes);
    bytes
}

/// A small pack in memory: one file, whose leaves all have the same length.
pub struct RawPack {
    pub pack: Cid,
    pub content: Cid,
    pub leaves: Vec<Leaf>,
    /// Nodes, pack.json and leaves.
    pub blocks: HashMap<Cid, Bytes>,
}

impl RawPack {
    /// `pieces` leaves of `len` bytes, which `seed` decides.
    pub fn new(seed: u64, pieces: u32, len: usize) -> Arc<Self> {
        let mut blocks = HashMap::new();
        let mut leaves = Vec::new();
        for i in 0..u64::from(pieces) {
            let bytes: Vec<u8> = (0..len as u64)
                .map(|at| {
                    let mixed = ((seed << 40) | (i << 20) | (at / 8)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    (mixed >> (8 * (at % 8))) as u8
                })
                .collect();
            let cid = Cid::of(Codec::Raw, HashKind::Blake3, &bytes);
            leaves.push(Leaf { cid, len: len as u32 });
            blocks.insert(cid, Bytes::from(bytes));
        }
        let mut builder = ContentBuilder::new(HashKind::Blake3);
        builder
            .add_file("raw.pak".parse().expect("a path"), leaves.iter().copied())
            .expect("fits");
        let built = builder.finish().expect("small");
        let manifest = Manifest::new(built.cid, Name::new("Raw").expect("a name"));
        let pack = build_pack(&built, &manifest.to_bytes().expect("small"), None);
        blocks.extend(built.nodes.iter().cloned());
        blocks.extend(pack.blocks.iter().cloned());
        Arc::new(Self {
            pack: pack.cid,
            content: built.cid,
            leaves: built.content.map().iter().map(|(_, leaf)| leaf).collect(),
            blocks,
        })
    }

    /// A lie about `content`: `pieces` pieces of `len` bytes, all of them wrong at their right length, and no nodes.
    pub fn forged(content: Cid, pieces: u32, len: u32) -> Arc<Self> {
        let bytes = Bytes::from(vec![0x55; len as usize]);
        let cid = Cid::of(Codec::Raw, HashKind::Blake3, &bytes);
        Arc::new(Self {
            pack: content,
            content,
            leaves: vec![Leaf { cid, len }; pieces as usize],
            blocks: HashMap::from([(cid, bytes)]),
        })
    }

    /// All blocks but the leaves, those above last.
    pub fn nodes(&self) -> Vec<Cid> {
        let is_leaf = |cid: &Cid| self.leaves.iter().any(|leaf| leaf.cid == *cid);
        let below = |cid: &Cid| [self.content, self.pack].contains(cid);
        let mut nodes: Vec<Cid> = self.blocks.keys().copied().filter(|cid| !is_leaf(cid)).collect();
        nodes.sort_by_key(|cid| (below(cid), *cid));
        nodes
    }

    /// What `get` takes.
    pub fn link(&self) -> String {
        format!("modswarm:{}?c={}", self.pack, self.content)
    }

    /// The bytes of the pack's one file, `Raw/raw.pak`.
    pub fn file(&self) -> Vec<u8> {
        self.leaves
            .iter()
            .flat_map(|leaf| self.blocks[&leaf.cid].to_vec())
            .collect()
    }

    /// Writes the pack as a folder that can be shared.
    pub fn write_to(&self, folder: &std::path::Path) {
        std::fs::create_dir_all(folder).expect("a folder");
        std::fs::write(folder.join("raw.pak"), self.file()).expect("written");
    }
}

/// How a raw seed behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deeds {
    /// All that is asked for, as the pack has it.
    Honest,
    /// All that is asked for, but nodes only with the whole skeleton, from the bottom, and never by name alone.
    HonestWhole,
    /// Nodes are right; of the pieces, each one whose index this divides is wrong, at its right length.
    WrongPieces { every: u32 },
    /// Nodes are right; of a piece comes this many bytes, and then nothing more.
    Stalls { after: usize },
    /// Says that it has everything and sends nothing at all of it, nodes apart.
    Silent,
}

/// Serves one session.
async fn serve(streams: libp2p_stream::Control, node: PeerId, mut control: Wire, pack: &RawPack, deeds: Deeds) {
    let greeting = if deeds == Deeds::HonestWhole {
        hello_with(&[Extension::SKELETONS])
    } else {
        hello()
    };
    control.say(&greeting).await;
    let (blocks, queue) = mpsc::unbounded_channel();
    let mut roots: HashMap<Handle, Cid> = HashMap::new();
    let bulk = tokio::spawn(send_blocks(streams, node, queue));
    while let Some(message) = control.next().await {
        match message {
            Message::Open { handle, root } if root == pack.content || root == pack.pack => {
                roots.insert(handle, root);
                let have = if root == pack.content { Have::All } else { Have::None };
                control.say(&Message::Unchoke).await;
                control.say(&Message::Opened { handle, have }).await;
            }
            Message::Open { handle, .. } => {
                let (what, reason) = (Rejection::Open, RejectReason::NotFound);
                control.say(&Message::Rejected { handle, what, reason }).await;
            }
            Message::WantSkeleton { handle, request, .. } if deeds == Deeds::HonestWhole => {
                let nodes = pack.nodes();
                for (cid, more) in nodes.iter().zip((0..nodes.len() as u16).rev()) {
                    let what = What::Node {
                        request,
                        cid: *cid,
                        more,
                    };
                    let _ = blocks.send((handle, what, pack.blocks[cid].clone(), None));
                }
            }
            Message::WantNodes { .. } if deeds == Deeds::HonestWhole => {}
            Message::WantNodes { handle, request, cids } | Message::RequestCids { handle, request, cids } => {
                let mut positions = Vec::new();
                for (cid, position) in cids.iter().zip(0..) {
                    match pack.blocks.get(cid).filter(|_| roots.contains_key(&handle)) {
                        Some(bytes) => {
                            let _ = blocks.send((handle, What::Block { request, position }, bytes.clone(), None));
                        }
                        None => positions.push(position),
                    }
                }
                if !positions.is_empty() {
                    let what = Rejection::Blocks { request, positions };
                    let reason = RejectReason::NotFound;
                    control.say(&Message::Rejected { handle, what, reason }).await;
                }
            }
            Message::Request { handle, runs } => {
                for piece in runs.iter().flat_map(|run| run.pieces()) {
                    let bytes = &pack.blocks[&pack.leaves[piece as usize].cid];
                    let (bytes, stop) = match deeds {
                        Deeds::WrongPieces { every } if piece.is_multiple_of(every) => {
                            (bytes.iter().map(|byte| !byte).collect(), None)
                        }
                        Deeds::Honest | Deeds::HonestWhole | Deeds::WrongPieces { .. } => (bytes.clone(), None),
                        Deeds::Stalls { after } => (bytes.clone(), Some(after)),
                        Deeds::Silent => continue,
                    };
                    let _ = blocks.send((handle, What::Piece(piece), bytes, stop));
                }
            }
            Message::Close { handle } => drop(roots.remove(&handle)),
            _ => {}
        }
    }
    bulk.abort();
}

type ToSend = (Handle, What, Bytes, Option<usize>);

async fn send_blocks(
    mut streams: libp2p_stream::Control,
    node: PeerId,
    mut queue: mpsc::UnboundedReceiver<ToSend>,
) -> Option<()> {
    let first = queue.recv().await?;
    let mut wire = Wire::new(streams.open_stream(node, PROTOCOL).await.ok()?);
    wire.write(&[StreamKind::Bulk.to_byte()]).await;
    let mut next = Some(first);
    while let Some((handle, what, bytes, stop)) = next {
        match stop {
            None => drop(wire.send_block(handle, what, &bytes).await),
            Some(after) => {
                wire.write(&header(handle, what, bytes.len() as u32)).await;
                wire.write(&bytes[..after.min(bytes.len())]).await;
                // The stream stays open, and nothing more comes.
                std::future::pending::<()>().await;
            }
        }
        next = queue.recv().await;
    }
    Some(())
}

/// A request for nodes, as a leecher sends it.
pub fn want(handle: Handle, request: u32, cids: Vec<Cid>) -> Message {
    Message::WantNodes {
        handle,
        request: RequestId(request),
        cids,
    }
}
