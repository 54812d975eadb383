//! What many connected peers cost a seed: processor time and memory, beside one peer that gets as much.
//!
//! `cargo bench --bench many_peers`. The seed is the program itself, in a process of its own: it shares one pack of noise at an upload limit over loopback TCP.
//! Its peers are all in this process, each a libp2p node with a connection, an identity and a session of its own that does what a leecher does
//! (`tests/support/rawpeer.rs`, with identify and ping). Whole nodes would also keep a connection to each other through the DHT of the private network: of two
//! hundred, that alone keeps a machine busy. What is measured of the seed begins [`WARM_UP`] after all sessions are open; its peak of memory is that
//! of its life, sharing within. What one peer costs a byte is encryption, hashing, reading and sockets; the rest is what many peers cost.
//!
//! `MODSWARM_BENCH_PEERS` sets how many peers (200), `_RATE` the limit in MB a second (50), `_SECONDS` how long is measured (15), `_ONLY` a comma-separated
//! choice of [`KINDS`]. What the seed can send in that time is written to the temporary folder.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench that cannot go on should panic")]

#[path = "../tests/support/rawpeer.rs"]
mod rawpeer;
#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    collections::VecDeque,
    env, fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use modswarm_protocol::{
    Cid, Codec, HashKind,
    format::{ChunkerProfile, ContentBuilder, Leaf, PieceSet},
    wire::{
        Extension, Handle, Have, Hello, Message, RejectReason, Rejection, StreamKind, What, limits::MAX_RUNS, runs_of,
    },
};
use rawpeer::{NETWORK, RawPeer, Wire};
use support::{Machine, noise, share};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

/// What is compared: one peer; many that keep what they get, so that only their being there and their news count; and many that pass everything on to
/// each other, so that each of them tells the seed of every piece.
const KINDS: [&str; 3] = ["one", "apart", "swarm"];
/// From when all sessions are open until what is measured begins: peers have been introduced to each other, and windows have grown.
const WARM_UP: Duration = Duration::from_secs(5);
const FILE_LEN: usize = 32 << 20;
/// Peers that connect at a time.
const CONNECTING: usize = 32;
/// The kernel's clock ticks a second, as programs are shown them.
const TICKS: f64 = 100.0;

/// Bytes that a peer has on request at the least…
const WINDOW_MIN: u64 = 256 * 1024;
/// …and as many as came in this time.
const WINDOW: Duration = Duration::from_millis(500);
/// As in the engine (`engine/local.rs`): news of common pieces wait for at least this long…
const NEWS_DELAY: Duration = Duration::from_millis(150);
/// …and of those that fewer have, as long as there is this between them.
const RARE: u16 = 10;
const RARE_DELAY: Duration = Duration::from_millis(5);
/// Among peers that pass pieces on, the time in which twice as many have a piece: news, request and block.
const DOUBLING: Duration = Duration::from_millis(100);
/// How often pieces are passed on.
const PASSING: Duration = Duration::from_millis(10);
const HANDLE: Handle = Handle(0);

fn main() {
    let number = |name: &str, default| env::var(name).map_or(default, |text| text.parse::<usize>().unwrap());
    let peers = number("MODSWARM_BENCH_PEERS", 200);
    let (rate, seconds) = (number("MODSWARM_BENCH_RATE", 50), number("MODSWARM_BENCH_SECONDS", 15));
    let only = env::var("MODSWARM_BENCH_ONLY").unwrap_or_default();
    let chosen = |kind: &&str| only.is_empty() || only.split(',').any(|asked| asked.trim() == *kind);
    let folder = Machine::new("many-peers");
    let pack = folder.path("pack");
    // A sole seed in a swarm sends everything once.
    let bytes = rate * 1_000_000 * (seconds + 2 * WARM_UP.as_secs() as usize);
    let (content, leaves) = write_noise(&pack, bytes);
    println!(
        "{} MB in {} pieces, limit {rate} MB/s, {seconds} s each",
        bytes / 1_000_000,
        leaves.len()
    );
    println!("| | peers | served | MB/s | messages/s | seed's cores | CPU s/GB | cores beyond one peer's | peak MiB |");
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|");
    let mut one: Option<f64> = None;
    for kind in KINDS.into_iter().filter(chosen) {
        let peers = if kind == "one" { 1 } else { peers };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let spent = runtime.block_on(run(kind, peers, rate, seconds, &pack, content, &leaves));
        let a_byte = spent.cpu / spent.bytes;
        let beyond = one.filter(|_| kind != "one");
        let beyond = beyond.map(|one| format!("{:.3}", (a_byte - one) * spent.bytes / spent.seconds));
        println!(
            "| {kind} | {peers} | {} | {:.1} | {:.0} | {:.3} | {:.2} | {} | {:.0} |",
            spent.served,
            spent.bytes / spent.seconds / 1e6,
            spent.messages / spent.seconds,
            spent.cpu / spent.seconds,
            a_byte * 1e9,
            beyond.unwrap_or_default(),
            spent.peak_mib,
        );
        if kind == "one" {
            one = Some(a_byte);
        }
    }
}

/// Files of noise, their content CID and their pieces.
fn write_noise(folder: &Path, bytes: usize) -> (Cid, Arc<[Leaf]>) {
    fs::create_dir_all(folder).unwrap();
    let mut content = ContentBuilder::new(HashKind::Blake3);
    for file in 0..bytes.div_ceil(FILE_LEN) {
        let noise = noise(file as u64 + 1, FILE_LEN.min(bytes - file * FILE_LEN));
        let leaf = |chunk: &[u8]| Leaf {
            cid: Cid::of(Codec::Raw, HashKind::Blake3, chunk),
            len: chunk.len() as u32,
        };
        let leaves = ChunkerProfile::DEFAULT.chunks(&noise).map(leaf);
        content
            .add_file(format!("{file}.pak").parse().unwrap(), leaves)
            .unwrap();
        fs::write(folder.join(format!("{file}.pak")), &noise).unwrap();
    }
    let content = content.finish().unwrap();
    (
        content.cid,
        content.content.map().iter().map(|(_, leaf)| leaf).collect(),
    )
}

/// What the seed did and spent while it was measured.
struct Spent {
    /// Peers that got something.
    served: usize,
    bytes: f64,
    /// Control messages that it was sent.
    messages: f64,
    seconds: f64,
    cpu: f64,
    peak_mib: f64,
}

async fn run(
    kind: &str,
    peers: usize,
    rate: usize,
    seconds: usize,
    pack: &Path,
    content: Cid,
    leaves: &Arc<[Leaf]>,
) -> Spent {
    let machine = Machine::new("many-peers-seed");
    let seed = share(&machine, pack, &["--no-qr", "--upload-limit", &format!("{rate}MB/s")]);
    assert_eq!(seed.content, content.to_string(), "pieces are numbered otherwise");
    let addr = seed.ready["addrs"][0].as_str().unwrap();
    let (spread, spreading) = mpsc::unbounded_channel();
    let swarm = Arc::new(Swarm {
        content,
        leaves: Arc::clone(leaves),
        holders: leaves.iter().map(|_| AtomicU16::new(0)).collect(),
        bytes: (0..peers).map(|_| AtomicU64::new(0)).collect(),
        messages: AtomicU64::new(0),
        opened: AtomicUsize::new(0),
        spread: (kind == "swarm").then_some(spread),
    });
    let mut tasks = JoinSet::new();
    let mut inboxes = Vec::new();
    let connecting = Arc::new(tokio::sync::Semaphore::new(CONNECTING));
    for number in 0..peers {
        let (inbox, passed_on) = mpsc::unbounded_channel();
        inboxes.push(inbox);
        let (swarm, addr, connecting) = (Arc::clone(&swarm), addr.to_owned(), Arc::clone(&connecting));
        tasks.spawn(async move {
            let permit = connecting.acquire().await.unwrap();
            let peer = Peer::join(number, swarm, &addr).await;
            drop(permit);
            peer.leech(passed_on).await;
        });
    }
    if swarm.spread.is_some() {
        tasks.spawn(pass_on(spreading, inboxes));
    }
    while swarm.opened.load(Relaxed) < peers {
        sleep(Duration::from_millis(20)).await;
        assert!(tasks.try_join_next().is_none(), "a peer has left");
    }
    sleep(WARM_UP).await;

    let pid = seed.process.id();
    let got = || -> Vec<u64> { swarm.bytes.iter().map(|bytes| bytes.load(Relaxed)).collect() };
    let (begun, cpu, messages, before) = (Instant::now(), cpu_seconds(pid), swarm.messages.load(Relaxed), got());
    sleep(Duration::from_secs(seconds as u64)).await;
    let elapsed = begun.elapsed().as_secs_f64();
    let each: Vec<u64> = got()
        .iter()
        .zip(&before)
        .map(|(after, before)| after - before)
        .collect();
    let spent = Spent {
        served: each.iter().filter(|bytes| **bytes > 0).count(),
        bytes: each.iter().sum::<u64>() as f64,
        messages: (swarm.messages.load(Relaxed) - messages) as f64,
        seconds: elapsed,
        cpu: cpu_seconds(pid) - cpu,
        peak_mib: peak_mib(pid),
    };
    assert!(tasks.try_join_next().is_none(), "a peer has left");
    spent
}

/// What the peers have in common.
struct Swarm {
    content: Cid,
    leaves: Arc<[Leaf]>,
    /// By piece: how many peers have it.
    holders: Vec<AtomicU16>,
    /// By peer: payload that it got from the seed.
    bytes: Vec<AtomicU64>,
    /// Control messages sent to the seed.
    messages: AtomicU64,
    /// Sessions that the seed has opened.
    opened: AtomicUsize,
    /// Takes pieces that a peer passes on; none: they all keep what they get.
    spread: Option<mpsc::UnboundedSender<(usize, u32)>>,
}

/// Passes pieces on from who got them to all others, each to twice as many in the same time. The blocks themselves are not moved: the seed has no part in that.
async fn pass_on(mut got: mpsc::UnboundedReceiver<(usize, u32)>, inboxes: Vec<mpsc::UnboundedSender<Vec<u32>>>) {
    struct Spreading {
        piece: u32,
        from: usize,
        since: Instant,
        /// How many of the others have it.
        reached: usize,
    }
    let mut under_way: Vec<Spreading> = Vec::new();
    let mut tick = tokio::time::interval(PASSING);
    loop {
        tick.tick().await;
        let now = Instant::now();
        while let Ok((from, piece)) = got.try_recv() {
            under_way.push(Spreading {
                piece,
                from,
                since: now,
                reached: 0,
            });
        }
        let mut parcels = vec![Vec::new(); inboxes.len()];
        let others = inboxes.len() - 1;
        under_way.retain_mut(|spreading| {
            let doublings = (now - spreading.since).as_secs_f64() / DOUBLING.as_secs_f64();
            let due = (doublings.exp2() as usize - 1).min(others);
            for other in spreading.reached..due {
                // Each piece takes a way of its own through the swarm.
                let place = (other + spreading.piece as usize * 31) % others;
                parcels[(spreading.from + 1 + place) % inboxes.len()].push(spreading.piece);
            }
            spreading.reached = due;
            due < others
        });
        for (inbox, parcel) in inboxes.iter().zip(parcels) {
            if !parcel.is_empty() {
                let _ = inbox.send(parcel);
            }
        }
    }
}

/// A leecher, as far as its seed sees one.
struct Peer {
    number: usize,
    swarm: Arc<Swarm>,
    control: Wire,
    /// Pieces that the bulk stream brought.
    blocks: mpsc::UnboundedReceiver<u32>,
    has: PieceSet,
    /// What was requested and has neither come nor been refused.
    requested: PieceSet,
    in_flight: u64,
    choked: bool,
    /// What it may ask for; none: anything.
    offered: Option<VecDeque<u32>>,
    /// Where in its own order it looks for the next piece.
    cursor: usize,
    window: u64,
    sampled: u64,
    sampled_at: Instant,
    /// The handle by which the seed has opened the content here.
    seeds_handle: Option<Handle>,
    news: Vec<u32>,
    news_due: Instant,
    told_at: Instant,
}

impl Peer {
    async fn join(number: usize, swarm: Arc<Swarm>, addr: &str) -> Self {
        let raw = RawPeer::with_identify_and_ping().await;
        let node = raw.connect(addr).await;
        let control = raw.open_as(node, StreamKind::Control).await;
        let (got, blocks) = mpsc::unbounded_channel();
        tokio::spawn(read_blocks(raw, number, Arc::clone(&swarm), got));
        let pieces = swarm.leaves.len();
        let now = Instant::now();
        let mut peer = Self {
            number,
            control,
            blocks,
            has: PieceSet::repeat(false, pieces),
            requested: PieceSet::repeat(false, pieces),
            in_flight: 0,
            choked: true,
            offered: None,
            cursor: 0,
            window: WINDOW_MIN,
            sampled: 0,
            sampled_at: now,
            seeds_handle: None,
            news: Vec::new(),
            news_due: now,
            told_at: now,
            swarm,
        };
        let hello = Hello {
            network: NETWORK,
            agent: "many-peers/1".to_owned(),
            extensions: vec![Extension {
                name: Extension::PEER_EXCHANGE.to_owned(),
                value: Vec::new(),
            }],
        };
        peer.say(Message::Hello(hello)).await;
        let root = peer.swarm.content;
        peer.say(Message::Open { handle: HANDLE, root }).await;
        peer
    }

    async fn say(&mut self, message: Message) {
        self.swarm.messages.fetch_add(1, Relaxed);
        assert!(self.control.say(&message).await, "the seed is there");
    }

    /// Asks for pieces and tells of those that it has, until it is aborted.
    async fn leech(mut self, mut passed_on: mpsc::UnboundedReceiver<Vec<u32>>) {
        loop {
            let telling = !self.news.is_empty();
            tokio::select! {
                message = self.control.next() => {
                    let message = message.expect("the seed goes on with the session");
                    self.hear(message).await;
                }
                Some(piece) = self.blocks.recv() => {
                    self.settle(piece);
                    self.gain(piece);
                    if let Some(spread) = &self.swarm.spread {
                        let _ = spread.send((self.number, piece));
                    }
                }
                Some(pieces) = passed_on.recv() => pieces.into_iter().for_each(|piece| self.gain(piece)),
                () = sleep_until(self.news_due), if telling => self.tell().await,
            }
            self.ask().await;
        }
    }

    async fn hear(&mut self, message: Message) {
        match message {
            Message::Opened { handle, have } => {
                assert_eq!((handle, have), (HANDLE, Have::All));
                self.swarm.opened.fetch_add(1, Relaxed);
            }
            Message::Choke => self.choked = true,
            Message::Unchoke => self.choked = false,
            Message::Offer { runs, .. } if runs.is_empty() => self.offered = None,
            Message::Offer { runs, .. } => {
                let pieces = runs.iter().flat_map(|run| run.pieces());
                self.offered.get_or_insert_default().extend(pieces);
            }
            Message::Rejected {
                what: Rejection::Pieces(runs),
                reason: RejectReason::Choked,
                ..
            } => runs
                .iter()
                .flat_map(|run| run.pieces())
                .for_each(|piece| self.settle(piece)),
            // What it has is learned by opening it, as at every leecher of a sole seed.
            Message::Open { handle, root } => {
                assert_eq!(root, self.swarm.content);
                let have = Have::of(&self.has);
                self.news.clear();
                self.seeds_handle = Some(handle);
                self.say(Message::Opened { handle, have }).await;
            }
            Message::Close { .. } => self.seeds_handle = None,
            Message::Rejected { .. } | Message::Lost { .. } | Message::Closed { .. } => panic!("{message:?}"),
            _ => {}
        }
    }

    /// A piece is on request no more.
    fn settle(&mut self, piece: u32) {
        if self.requested.replace(piece as usize, false) {
            self.in_flight -= u64::from(self.swarm.leaves[piece as usize].len);
        }
    }

    fn gain(&mut self, piece: u32) {
        if self.has.replace(piece as usize, true) {
            return;
        }
        let rare = self.swarm.holders[piece as usize].fetch_add(1, Relaxed) < RARE;
        if self.seeds_handle.is_none() {
            return;
        }
        let now = Instant::now();
        if self.news.is_empty() {
            self.news_due = now + NEWS_DELAY;
        }
        if rare {
            self.news_due = self.news_due.min(self.told_at + RARE_DELAY);
        }
        self.news.push(piece);
    }

    async fn tell(&mut self) {
        self.told_at = Instant::now();
        let runs = runs_of(self.news.drain(..));
        let Some(handle) = self.seeds_handle else { return };
        for runs in runs.chunks(MAX_RUNS) {
            let runs = runs.to_vec();
            self.say(Message::Have { handle, runs }).await;
        }
    }

    /// Requests pieces once a quarter of the window is free.
    async fn ask(&mut self) {
        if self.sampled_at.elapsed() >= WINDOW {
            let bytes = self.swarm.bytes[self.number].load(Relaxed);
            self.window = (bytes - self.sampled).max(WINDOW_MIN);
            (self.sampled, self.sampled_at) = (bytes, Instant::now());
        }
        if self.choked || self.in_flight > self.window / 4 * 3 {
            return;
        }
        let mut asked = Vec::new();
        while self.in_flight < self.window {
            let Some(piece) = self.next() else { break };
            self.requested.set(piece as usize, true);
            self.in_flight += u64::from(self.swarm.leaves[piece as usize].len);
            asked.push(piece);
        }
        for runs in runs_of(asked).chunks(MAX_RUNS) {
            let runs = runs.to_vec();
            self.say(Message::Request { handle: HANDLE, runs }).await;
        }
    }

    /// The next piece to ask for: of those offered, or in an order of its own.
    fn next(&mut self) -> Option<u32> {
        let wants = |piece: u32| !self.has[piece as usize] && !self.requested[piece as usize];
        if let Some(offered) = &mut self.offered {
            let at = offered.iter().position(|piece| wants(*piece))?;
            return offered.drain(..=at).next_back();
        }
        let pieces = self.has.len();
        // Scattered, as what is rarest is.
        let order = |at: usize| ((self.number * 7919 + at) * STRIDE % pieces) as u32;
        let found = (0..pieces).find(|step| wants(order(self.cursor + step)))?;
        let piece = order(self.cursor + found);
        self.cursor += found + 1;
        Some(piece)
    }
}

/// A prime beyond the number of pieces of any pack that fits here, so that steps of so many meet all of them.
const STRIDE: usize = 1_000_003;

/// Verifies what the seed sends.
async fn read_blocks(mut raw: RawPeer, number: usize, swarm: Arc<Swarm>, got: mpsc::UnboundedSender<u32>) {
    let (_, kind, mut bulk) = raw.accept().await;
    assert_eq!(kind, StreamKind::Bulk);
    while let Some((header, payload)) = bulk.next_block().await {
        let What::Piece(piece) = header.what else {
            panic!("{header:?}")
        };
        let cid = Cid::of(Codec::Raw, HashKind::Blake3, &payload);
        assert_eq!(swarm.leaves[piece as usize].cid, cid, "piece {piece} is wrong");
        swarm.bytes[number].fetch_add(payload.len() as u64, Relaxed);
        if got.send(piece).is_err() {
            return;
        }
    }
}

// What the system says of the seed.

fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name, which comes before, may hold anything.
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    ticks as f64 / TICKS
}

fn peak_mib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}
