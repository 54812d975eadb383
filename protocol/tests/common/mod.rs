//! What the simulations share.
#![allow(dead_code, unreachable_pub)]

use std::time::Duration;

use modswarm_protocol::engine::{ConnId, Engine, EngineConfig, PeerKey};
use modswarm_protocol::format::SharedPieceMap;
pub use modswarm_protocol::sim::fake_spec as spec;
use modswarm_protocol::sim::{PeerSpec, World, fake_content};
use modswarm_protocol::wire::{Hello, Message, NetworkId};
use modswarm_protocol::{Cid, Timestamp};

pub const MBIT: u64 = 1_000_000 / 8;

/// Runs `test` with several seeds, each printed; `SIM_SEED` runs that one only.
pub fn with_seeds<T>(count: u64, test: impl Fn(u64) -> T) -> Vec<T> {
    let seeds = match std::env::var("SIM_SEED") {
        Ok(seed) => vec![seed.parse().expect("SIM_SEED is a number")],
        Err(_) => (1..=count).collect(),
    };
    let run = |seed| {
        println!("seed {seed} (SIM_SEED={seed} runs it alone)");
        test(seed)
    };
    seeds.into_iter().map(run).collect()
}

/// Somebody connects to an engine and says hello.
pub fn connect(engine: &mut Engine, now: Timestamp, conn: ConnId) {
    let peer = PeerKey::of(&conn.0.to_le_bytes());
    engine.handle_connected(now, conn, peer, Duration::from_millis(20));
    let hello = Hello {
        network: NetworkId::PUBLIC,
        agent: "test".to_owned(),
        extensions: Vec::new(),
    };
    engine.handle_message(now, conn, Message::Hello(hello));
}

pub fn peer(up: u64, down: u64) -> PeerSpec {
    PeerSpec::honest(up, down, Duration::from_millis(15))
}

/// A world in which the first `seeds` peers have a content and the others fetch it, all connected.
pub struct Swarm {
    pub world: World,
    pub content: Cid,
    pub map: SharedPieceMap,
    pub seeds: usize,
}

impl Swarm {
    pub fn new(seed: u64, pieces: u32, len: u32, seeds: &[PeerSpec], leechers: &[PeerSpec]) -> Self {
        let mut world = World::new(seed);
        let (content, map) = fake_content(seed, pieces, len);
        for (i, peer) in seeds.iter().chain(leechers).enumerate() {
            let index = world.add_peer(*peer, EngineConfig::default());
            let have = if i < seeds.len() { map.all() } else { map.none() };
            world.add_content(index, spec(content, &map, have));
        }
        world.connect_all();
        Self {
            world,
            content,
            map,
            seeds: seeds.len(),
        }
    }

    pub fn peers(&self) -> std::ops::Range<usize> {
        self.seeds..self.world.peers()
    }
}
