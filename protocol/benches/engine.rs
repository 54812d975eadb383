//! What a block costs the engine: asked for, announced, received, verified, and told of, among a hundred peers that trade the same content of
//! 1.6 million pieces and get a block each in the same time.
//!
//! `cargo bench -p modswarm-protocol --bench engine`. Where the system tells it, the time is the processor's, so that it means the same on a busy
//! machine; what the bench itself does for a hundred peers is in it, about a fifth. Have-messages come and go batched, as nodes send them.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench that cannot go on should panic")]

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use modswarm_protocol::Timestamp;
use modswarm_protocol::engine::{Action, ConnId, Engine, EngineConfig, Event, PeerKey, Verdict};
use modswarm_protocol::format::{PieceSet, SharedPieceMap};
use modswarm_protocol::sim::{fake_content, fake_spec};
use modswarm_protocol::wire::{
    BulkHeader, Encoding, Handle, Have, HaveMap, Hello, Message, NetworkId, Run, What, runs_of,
};

const PIECES: u32 = 1_600_000;
const LEN: u32 = 64 * 1024;
const PEERS: u64 = 100;
/// Bytes a second that the node receives; each of its peers does too.
const RATE: u64 = 50_000_000;
/// How often a peer tells what it got: nodes batch for 100 to 200 ms.
const NEWS: Duration = Duration::from_millis(150);
/// Pieces that a peer gets in a row: nodes ask for runs of half a mebibyte.
const PEER_RUN: u32 = 8;
/// Of the pieces, one in this many is there from the beginning, at each peer and here.
const HELD: u32 = 4;

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(end)) as u32
    }
}

struct Peer {
    conn: ConnId,
    /// What it holds, as it has told.
    have: PieceSet,
    /// Got and not told.
    news: Vec<u32>,
    /// Blocks that it was asked for.
    asked: VecDeque<(Handle, u32)>,
}

struct World {
    engine: Engine,
    now: Timestamp,
    peers: Vec<Peer>,
    dice: Dice,
    next_news: Timestamp,
    turn: usize,
    done: u64,
    told: u64,
}

fn held(dice: &mut Dice) -> PieceSet {
    let mut set = PieceSet::repeat(false, PIECES as usize);
    for start in (0..PIECES).step_by(PEER_RUN as usize) {
        if dice.below(HELD) == 0 {
            set[start as usize..(start + PEER_RUN) as usize].fill(true);
        }
    }
    set
}

fn bits(set: &PieceSet) -> Vec<u8> {
    let mut bytes = vec![0; set.len().div_ceil(8)];
    set.iter_ones().for_each(|i| bytes[i / 8] |= 1 << (i % 8));
    bytes
}

impl World {
    fn new() -> Self {
        let (content, map): (_, SharedPieceMap) = fake_content(1, PIECES, LEN);
        let mut dice = Dice(1);
        let config = EngineConfig {
            upload_slots: PEERS as usize,
            ..EngineConfig::default()
        };
        let mut engine = Engine::new(config, 1);
        let have = held(&mut dice);
        engine.add_content(Timestamp::ZERO, fake_spec(content, &map, have));
        let mut world = Self {
            engine,
            now: Timestamp::ZERO,
            peers: Vec::new(),
            dice,
            next_news: Timestamp::ZERO + NEWS,
            turn: 0,
            done: 0,
            told: 0,
        };
        for i in 1..=PEERS {
            let conn = ConnId(i);
            let have = held(&mut world.dice);
            let rtt = Duration::from_millis(20);
            world
                .engine
                .handle_connected(world.now, conn, PeerKey::of(&i.to_le_bytes()), rtt);
            let hello = Hello {
                network: NetworkId::PUBLIC,
                agent: "bench".into(),
                extensions: Vec::new(),
            };
            let handle = Handle(0);
            let map = Have::Map(HaveMap::Bits(bits(&have)));
            for message in [
                Message::Hello(hello),
                Message::Open { handle, root: content },
                Message::Opened { handle, have: map },
                Message::Unchoke,
            ] {
                world.engine.handle_message(world.now, conn, message);
            }
            world.peers.push(Peer {
                conn,
                have,
                news: Vec::new(),
                asked: VecDeque::new(),
            });
            world.drain();
        }
        world
    }

    fn drain(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            match action {
                Action::Send(conn, Message::Request { handle, runs }) => {
                    let asked = &mut self.peers[conn.0 as usize - 1].asked;
                    asked.extend(runs.iter().flat_map(|run| run.pieces()).map(|piece| (handle, piece)));
                }
                Action::Send(_, Message::Have { runs, .. }) => {
                    self.told += black_box(runs).iter().map(|run| u64::from(run.len)).sum::<u64>();
                }
                Action::Disconnect(conn, reason) => panic!("{conn:?}: {reason}"),
                Action::Event(Event::Complete(_)) => panic!("too few pieces for so many runs"),
                _ => {}
            }
        }
    }

    /// A block comes, and every peer gets one elsewhere in the same time.
    fn block(&mut self) {
        self.now = self.now + Duration::from_micros(u64::from(LEN) * 1_000_000 / RATE);
        let now = self.now;
        let (conn, handle, piece) = loop {
            self.turn = (self.turn + 1) % self.peers.len();
            let peer = &mut self.peers[self.turn];
            if let Some((handle, piece)) = peer.asked.pop_front() {
                break (peer.conn, handle, piece);
            }
            assert!(
                self.peers.iter().any(|peer| !peer.asked.is_empty()),
                "nothing is on request"
            );
        };
        let header = BulkHeader {
            handle,
            what: What::Piece(piece),
            encoding: Encoding::Plain,
            len: LEN,
        };
        let expected = self.engine.handle_block_header(now, conn, &header).unwrap();
        self.engine.handle_block_progress(now, conn, LEN);
        self.drain();
        self.engine.handle_verdict(now, &expected, Verdict::Good);
        self.drain();
        self.done += 1;
        self.gossip();
        if self.engine.poll_timeout().is_some_and(|at| at <= now) {
            self.engine.handle_timeout(now);
            self.drain();
        }
    }

    fn gossip(&mut self) {
        if self.done.is_multiple_of(u64::from(PEER_RUN)) {
            for peer in &mut self.peers {
                let start = loop {
                    let start = self.dice.below(PIECES / PEER_RUN) * PEER_RUN;
                    if !peer.have[start as usize] {
                        break start;
                    }
                };
                peer.have[start as usize..(start + PEER_RUN) as usize].fill(true);
                peer.news.extend(start..start + PEER_RUN);
            }
        }
        if self.now < self.next_news {
            return;
        }
        self.next_news = self.now + NEWS;
        for i in 0..self.peers.len() {
            let peer = &mut self.peers[i];
            let runs: Vec<Run> = runs_of(std::mem::take(&mut peer.news));
            let conn = peer.conn;
            let now = self.now;
            let message = Message::Have {
                handle: Handle(0),
                runs,
            };
            self.engine.handle_message(now, conn, message);
            self.drain();
        }
    }
}

/// Processor time of this thread, since some instant.
#[cfg(unix)]
fn clock() -> Duration {
    let at = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(at.tv_sec as u64, at.tv_nsec as u32)
}

/// Time since some instant.
#[cfg(not(unix))]
fn clock() -> Duration {
    static BEGUN: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    BEGUN.elapsed()
}

fn block_among_a_hundred_peers(c: &mut Criterion) {
    let mut world = World::new();
    // The windows fill.
    (0..5_000).for_each(|_| world.block());
    c.bench_function("block_among_100_peers_of_1600000_pieces", |b| {
        b.iter_custom(|blocks| {
            let begun = clock();
            (0..blocks).for_each(|_| world.block());
            clock() - begun
        });
    });
    eprintln!(
        "{} blocks; {} pieces told of each to about {} peers",
        world.done,
        world.told / PEERS,
        world.told / world.done.max(1)
    );
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(10));
    targets = block_among_a_hundred_peers
}
criterion_main!(benches);
