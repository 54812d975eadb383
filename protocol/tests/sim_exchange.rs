//! Swarms that hold together by what peers tell each other: nobody finds anybody in another way.

mod common;

use std::time::Duration;

use common::{MBIT, peer, spec, with_seeds};
use modswarm_protocol::engine::{ContentPieces, ContentSpec, EngineConfig, PickOrder};
use modswarm_protocol::format::SharedPieceMap;
use modswarm_protocol::sim::{PeerIndex, World, fake_content};
use modswarm_protocol::{Cid, wire::NetworkId};

const PIECE: u32 = 64 * 1024;
const LONG: Duration = Duration::from_secs(600);

/// A world that lives by peer exchange, and one content in it.
struct Scene {
    world: World,
    content: Cid,
    map: SharedPieceMap,
}

impl Scene {
    fn new(seed: u64, pieces: u32) -> Self {
        let (content, map) = fake_content(seed, pieces, PIECE);
        let mut world = World::new(seed);
        world.exchange_peers();
        Self { world, content, map }
    }

    fn add(&mut self, up: u64, seeding: bool) -> PeerIndex {
        let peer = self.world.add_peer(peer(up, 100 * MBIT), EngineConfig::default());
        let have = if seeding { self.map.all() } else { self.map.none() };
        self.world.add_content(peer, spec(self.content, &self.map, have));
        peer
    }

    fn neighbours(&self, peer: PeerIndex) -> usize {
        self.world.engine(peer).connections().len()
    }

    #[track_caller]
    fn assert_sound(&self) {
        let outcome = self.world.outcome();
        assert!(outcome.violations.is_empty(), "{:?}", outcome.violations);
        assert!(outcome.bans.is_empty());
    }
}

#[test]
fn eight_who_know_the_seed_only_know_each_other_within_a_second() {
    with_seeds(5, |seed| {
        let mut scene = Scene::new(seed, 2000);
        let first = scene.add(20 * MBIT, true);
        let others: Vec<PeerIndex> = (0..8).map(|_| scene.add(20 * MBIT, false)).collect();
        others.iter().for_each(|peer| {
            let _ = scene.world.connect(*peer, first);
        });
        scene.world.run_until(Duration::from_secs(1), |_| false);
        for peer in others {
            assert_eq!(scene.neighbours(peer), 8, "peer {peer}");
        }
        scene.assert_sound();
    });
}

#[test]
fn in_a_large_swarm_everybody_knows_many_soon() {
    with_seeds(1, |seed| {
        let mut scene = Scene::new(seed, 200);
        let first = scene.add(20 * MBIT, true);
        let others: Vec<PeerIndex> = (0..100).map(|_| scene.add(20 * MBIT, false)).collect();
        others.iter().for_each(|peer| {
            let _ = scene.world.connect(*peer, first);
        });
        scene.world.run_until(Duration::from_secs(3), |_| false);
        let least = others.iter().map(|peer| scene.neighbours(*peer)).min().unwrap_or(0);
        println!("at least {least} neighbours");
        assert!(least >= 40);
        scene.assert_sound();
    });
}

/// The only seed leaves once all of it is out; from then on a peer comes and one goes every two seconds, and whoever comes knows one peer.
#[test]
fn a_swarm_outlives_its_seed_and_goes_on_while_peers_come_and_go() {
    with_seeds(3, |seed| {
        let mut scene = Scene::new(seed, 200);
        let first = scene.add(40 * MBIT, true);
        let mut alive: Vec<PeerIndex> = (0..6).map(|_| scene.add(20 * MBIT, false)).collect();
        alive.iter().for_each(|peer| {
            let _ = scene.world.connect(*peer, first);
        });
        let whole = |world: &World, peer: PeerIndex| world.outcome().peers[peer].took.is_some();
        let is_out = |world: &World| alive.iter().any(|peer| whole(world, *peer));
        assert!(scene.world.run_until(LONG, is_out), "not spread");
        scene.world.leave(first);
        for round in 0..20 {
            let going = alive.remove(0);
            let knows = alive[round % alive.len()];
            let new = scene.add(20 * MBIT, false);
            scene.world.connect(new, knows);
            alive.push(new);
            scene.world.run_until(Duration::from_secs(2), |_| false);
            // The last copy never leaves.
            if alive.iter().any(|peer| whole(&scene.world, *peer)) {
                scene.world.leave(going);
            } else {
                alive.push(going);
            }
        }
        let complete = |world: &World| alive.iter().all(|peer| whole(world, *peer));
        assert!(scene.world.run_until(LONG, complete), "not complete");
        for peer in &alive {
            assert!(scene.neighbours(*peer) + 1 >= alive.len(), "peer {peer} is alone");
        }
        scene.assert_sound();
    });
}

/// Two that meet before they know the pieces refuse each other; what they learn later reaches the other at once.
#[test]
fn who_was_asked_too_early_is_asked_again_once_there_are_pieces() {
    for first in [0, 1] {
        let mut scene = Scene::new(1, 20);
        let (content, map) = (scene.content, scene.map.clone());
        let peers = [(); 2].map(|()| {
            scene
                .world
                .add_peer(peer(20 * MBIT, 20 * MBIT), EngineConfig::default())
        });
        let transfers = peers.map(|peer| {
            let unknown = ContentSpec {
                content: Some(content),
                packs: Vec::new(),
                network: NetworkId::PUBLIC,
                pieces: None,
                related: Vec::new(),
                order: PickOrder::default(),
            };
            scene.world.add_content(peer, unknown)
        });
        // A third, whom nobody meets, tells the world how long the pieces are.
        scene.add(MBIT, true);
        scene.world.connect(0, 1);
        scene.world.run_until(Duration::from_millis(500), |_| false);
        for peer in [first, 1 - first] {
            let mut have = if peer == 0 { map.all() } else { map.none() };
            have.set(0, false);
            let pieces = ContentPieces {
                map: map.clone(),
                have,
                wanted: None,
            };
            scene.world.tell(peer, |engine, now| {
                engine.set_pieces(now, transfers[peer], content, pieces)
            });
            scene.world.run_until(Duration::from_millis(500), |_| false);
        }
        let here = |world: &World| {
            world
                .engine(1)
                .transfer_stats(transfers[1])
                .map_or(0, |stats| stats.pieces_here)
        };
        let done = |world: &World| here(world) == map.len() - 1;
        assert!(
            scene.world.run_until(Duration::from_secs(5), done),
            "peer {first} first"
        );
    }
}
