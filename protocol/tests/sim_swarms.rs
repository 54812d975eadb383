//! Whole swarms of honest peers in scenes of all kinds.

mod common;

use std::time::Duration;

use common::{MBIT, Swarm, peer, spec, with_seeds};
use modswarm_protocol::engine::{ContentPieces, ContentSpec, EngineConfig, PickOrder, Stage};
use modswarm_protocol::format::{Cid, Codec, HashKind};
use modswarm_protocol::sim::{PeerSpec, World, fake_content};
use modswarm_protocol::wire::NetworkId;

const PIECE: u32 = 64 * 1024;
const LONG: Duration = Duration::from_secs(600);

fn assert_sound(world: &World) {
    let outcome = world.outcome();
    println!("wasted {:.4}", outcome.wasted());
    assert!(outcome.violations.is_empty(), "{:?}", outcome.violations);
    assert!(outcome.bans.is_empty());
    assert!(outcome.wasted() <= 0.01, "{} wasted", outcome.wasted());
}

#[test]
fn dozens_of_mixed_peers_complete() {
    with_seeds(3, |seed| {
        let mut leechers: Vec<PeerSpec> = Vec::new();
        for i in 0..36u64 {
            let mut spec = peer((2 + i % 7 * 5) * MBIT, (20 + i % 5 * 20) * MBIT);
            spec.delay = Duration::from_millis(2 + i * 3);
            leechers.push(spec);
        }
        let mut swarm = Swarm::new(seed, 300, PIECE, &[peer(30 * MBIT, 30 * MBIT)], &leechers);
        let peers = swarm.peers();
        assert!(swarm.world.run_until_complete(LONG, peers.clone()), "not complete");
        assert_sound(&swarm.world);
        for outcome in &swarm.world.outcome().peers[peers] {
            let stats = &outcome.transfers[0];
            assert_eq!(stats.bytes_fetched, swarm.map.bytes());
            assert_eq!(
                stats.peers.iter().map(|peer| peer.bytes).sum::<u64>(),
                swarm.map.bytes()
            );
            assert_eq!(stats.stage, Stage::Seeding);
        }
    });
}

#[test]
fn tens_of_thousands_of_small_pieces_need_few_messages() {
    with_seeds(2, |seed| {
        let seeds = [peer(100 * MBIT, 100 * MBIT); 2];
        let mut swarm = Swarm::new(seed, 30_000, 900, &seeds, &[peer(100 * MBIT, 100 * MBIT)]);
        assert!(swarm.world.run_until_complete(LONG, 2..3));
        assert_sound(&swarm.world);
        let outcome = swarm.world.outcome();
        assert!(
            outcome.peers[2].control_messages < 3000,
            "{} messages",
            outcome.peers[2].control_messages
        );
        assert!(
            outcome.peers[2].took.expect("complete") < Duration::from_secs(5),
            "{:?}",
            outcome.peers[2].took
        );
    });
}

#[test]
fn pieces_of_the_largest_kind_go_over_slow_links() {
    with_seeds(2, |seed| {
        let slow = peer(2 * MBIT, 4 * MBIT);
        let mut swarm = Swarm::new(seed, 12, 2 * 1024 * 1024, &[slow; 2], &[slow; 2]);
        let peers = swarm.peers();
        assert!(swarm.world.run_until_complete(LONG, peers.clone()));
        println!("{:?}", swarm.world.outcome().last(peers));
        assert!(swarm.world.outcome().violations.is_empty());
    });
}

#[test]
fn skeleton_first_then_pieces_from_the_pack_cid_alone() {
    with_seeds(4, |seed| {
        let mut world = World::new(seed);
        let (content, map) = fake_content(seed, 100, PIECE);
        let node = |i: u32| Cid::of(Codec::DagPb, HashKind::Blake3, &i.to_le_bytes());
        let nodes: Vec<Cid> = (0..500).map(node).collect();
        for _ in 0..3 {
            let index = world.add_peer(peer(50 * MBIT, 50 * MBIT), EngineConfig::default());
            let mut seeding = spec(content, &map, map.all());
            seeding.packs = vec![nodes[0]];
            world.add_nodes(index, nodes.iter().copied());
            world.add_content(index, seeding);
        }
        let getter = world.add_peer(peer(50 * MBIT, 50 * MBIT), EngineConfig::default());
        let wanted = ContentSpec {
            content: None,
            packs: vec![nodes[0]],
            pieces: None,
            ..spec(content, &map, map.none())
        };
        let transfer = world.add_content(getter, wanted);
        assert_eq!(
            world.engine(getter).transfer_stats(transfer).expect("there").stage,
            Stage::LookingForPeers
        );
        world.tell(getter, |engine, now| engine.want_nodes(now, transfer, &nodes[..1]));
        for other in 0..3 {
            world.connect(other, getter);
        }
        let skeleton = |world: &World| {
            world
                .engine(getter)
                .transfer_stats(transfer)
                .expect("there")
                .bytes_skeleton
        };
        assert!(
            world.run_until(LONG, |world| skeleton(world) == 2000),
            "the root did not come"
        );
        assert_eq!(
            world.engine(getter).transfer_stats(transfer).expect("there").stage,
            Stage::FetchingSkeleton
        );
        world.tell(getter, |engine, now| engine.want_nodes(now, transfer, &nodes[1..]));
        assert!(
            world.run_until(LONG, |world| skeleton(world) == 2000 * 500),
            "{}",
            skeleton(&world)
        );
        assert!(world.now().as_micros() < 2_000_000, "{:?}", world.now());
        let pieces = ContentPieces {
            map: map.clone(),
            have: map.none(),
            wanted: None,
        };
        let same = world.tell(getter, |engine, now| engine.set_pieces(now, transfer, content, pieces));
        assert_eq!(same, transfer);
        assert!(world.run_until_complete(LONG, getter..getter + 1));
        assert_sound(&world);
        let stats = world.engine(getter).transfer_stats(transfer).expect("there");
        assert_eq!((stats.bytes_skeleton, stats.bytes_fetched), (2000 * 500, map.bytes()));
        assert_eq!(stats.peers.len(), 3, "all three gave something");
    });
}

#[test]
fn a_node_that_nobody_has_is_reported_and_asked_of_who_comes() {
    let mut world = World::new(1);
    let (content, map) = fake_content(1, 10, PIECE);
    let node = Cid::of(Codec::DagPb, HashKind::Blake3, b"node");
    for holder in [false, false, true] {
        let index = world.add_peer(peer(50 * MBIT, 50 * MBIT), EngineConfig::default());
        let mut seeding = spec(content, &map, map.all());
        seeding.packs = vec![node];
        world.add_nodes(index, holder.then_some(node));
        world.add_content(index, seeding);
    }
    let getter = world.add_peer(peer(50 * MBIT, 50 * MBIT), EngineConfig::default());
    let wanted = ContentSpec {
        content: None,
        packs: vec![node],
        pieces: None,
        ..spec(content, &map, map.none())
    };
    let transfer = world.add_content(getter, wanted);
    world.tell(getter, |engine, now| engine.want_nodes(now, transfer, &[node]));
    world.connect(0, getter);
    world.connect(1, getter);
    let fetched = |world: &World| {
        world
            .engine(getter)
            .transfer_stats(transfer)
            .expect("there")
            .bytes_skeleton
            > 0
    };
    assert!(!world.run_until(Duration::from_secs(5), fetched));
    world.connect(2, getter);
    assert!(world.run_until(Duration::from_secs(5), fetched));
    // Whoever has no such node is no worse for it.
    assert!(world.outcome().violations.is_empty());
}

#[test]
fn several_contents_share_a_connection_fairly() {
    with_seeds(4, |seed| {
        let mut world = World::new(seed);
        let contents: Vec<_> = (0..3).map(|i| fake_content(100 * seed + i, 300, PIECE)).collect();
        for have in [true, false] {
            let index = world.add_peer(peer(50 * MBIT, 50 * MBIT), EngineConfig::default());
            for (content, map) in &contents {
                world.add_content(index, spec(*content, map, if have { map.all() } else { map.none() }));
            }
        }
        world.connect(0, 1);
        world.run_until(Duration::from_secs(5), |_| false);
        let bytes: Vec<u64> = world.outcome().peers[1]
            .transfers
            .iter()
            .map(|t| t.bytes_fetched)
            .collect();
        let (least, most) = (*bytes.iter().min().expect("three"), *bytes.iter().max().expect("three"));
        assert!(least * 10 >= most * 8, "{bytes:?}");
        let done = |world: &World| {
            world.outcome().peers[1]
                .transfers
                .iter()
                .all(|t| t.stage == Stage::Seeding)
        };
        assert!(world.run_until(LONG, done));
        assert_sound(&world);
    });
}

#[test]
fn two_halves_trade_until_both_are_whole() {
    with_seeds(4, |seed| {
        let mut world = World::new(seed);
        let (content, map) = fake_content(seed, 200, PIECE);
        for half in [0, 1] {
            let index = world.add_peer(peer(50 * MBIT, 50 * MBIT), EngineConfig::default());
            let mut have = map.none();
            (0..200).filter(|i| i % 2 == half).for_each(|i| have.set(i, true));
            world.add_content(index, spec(content, &map, have));
        }
        world.connect(0, 1);
        assert!(world.run_until_complete(Duration::from_secs(30), 0..2));
        assert_sound(&world);
    });
}

#[test]
fn a_peer_that_gets_the_content_later_is_asked_again() {
    let mut world = World::new(1);
    let (content, map) = fake_content(1, 50, PIECE);
    let later = world.add_peer(peer(50 * MBIT, 50 * MBIT), EngineConfig::default());
    let getter = world.add_peer(peer(50 * MBIT, 50 * MBIT), EngineConfig::default());
    world.add_content(getter, spec(content, &map, map.none()));
    world.connect(later, getter);
    assert!(!world.run_until_complete(Duration::from_secs(10), getter..getter + 1));
    world.add_content(later, spec(content, &map, map.all()));
    assert!(world.run_until_complete(Duration::from_secs(40), getter..getter + 1));
}

#[test]
fn lost_pieces_are_fetched_elsewhere_and_never_asked_of_who_lost_them() {
    with_seeds(4, |seed| {
        let spec = peer(20 * MBIT, 50 * MBIT);
        let mut swarm = Swarm::new(seed, 200, PIECE, &[spec; 2], &[spec]);
        let (world, content, map) = (&mut swarm.world, swarm.content, swarm.map.clone());
        world.run_until(Duration::from_secs(1), |_| false);
        let transfer = world.engine(0).transfer_of(&content).expect("seeding");
        for piece in 0..150 {
            let piece = map.index(piece).expect("exists");
            world.tell(0, |engine, now| engine.handle_lost(now, transfer, piece));
        }
        assert!(world.run_until_complete(LONG, 2..3));
        assert_sound(world);
        // The one that lost them gets them back from the others.
        assert!(world.run_until(LONG, |world| {
            world.engine(0).transfer_stats(transfer).expect("there").stage == Stage::Seeding
        }));
    });
}

#[test]
fn what_only_an_older_version_holds_is_fetched_by_cid() {
    let mut world = World::new(1);
    let (new, map) = fake_content(1, 60, PIECE);
    let (old, _) = fake_content(2, 1, PIECE);
    let holder = world.add_peer(peer(50 * MBIT, 50 * MBIT), EngineConfig::default());
    let (_, old_map) = fake_content(2, 1, PIECE);
    world.add_content(holder, spec(old, &old_map, old_map.all()));
    // The older version's leaves, as the store would find them by CID: half of the newer one's.
    world.add_nodes(holder, map.iter().take(30).map(|(_, leaf)| leaf.cid));
    let getter = world.add_peer(peer(50 * MBIT, 50 * MBIT), EngineConfig::default());
    let wanted = ContentSpec {
        related: vec![old],
        ..spec(new, &map, map.none())
    };
    let transfer = world.add_content(getter, wanted);
    world.connect(holder, getter);
    let here = |world: &World| {
        world
            .engine(getter)
            .transfer_stats(transfer)
            .expect("there")
            .pieces_here
    };
    assert!(
        world.run_until(Duration::from_secs(20), |world| here(world) == 30),
        "{}",
        here(&world)
    );
    assert!(world.outcome().violations.is_empty());
}

#[test]
fn more_leechers_than_slots_all_complete() {
    with_seeds(2, |seed| {
        let mut world = World::new(seed);
        let (content, map) = fake_content(seed, 300, PIECE);
        let config = EngineConfig {
            upload_slots: 4,
            ..EngineConfig::default()
        };
        for i in 0..25 {
            let index = world.add_peer(peer(20 * MBIT, 50 * MBIT), config.clone());
            world.add_content(index, spec(content, &map, if i == 0 { map.all() } else { map.none() }));
        }
        world.connect_all();
        assert!(world.run_until_complete(LONG, 1..25));
        println!("{:?}", world.outcome().last(1..25));
        assert_sound(&world);
    });
}

#[test]
fn peers_of_another_network_get_nothing() {
    let mut world = World::new(1);
    let (content, map) = fake_content(1, 10, PIECE);
    let seed = world.add_peer(peer(50 * MBIT, 50 * MBIT), EngineConfig::default());
    world.add_content(seed, spec(content, &map, map.all()));
    let private = ContentSpec {
        network: NetworkId::PRIVATE,
        ..spec(fake_content(2, 10, PIECE).0, &map, map.all())
    };
    let hidden = private.content.expect("named");
    world.add_content(seed, private);
    let config = EngineConfig {
        network: NetworkId::LAN,
        ..EngineConfig::default()
    };
    let stranger = world.add_peer(peer(50 * MBIT, 50 * MBIT), config);
    world.add_content(
        stranger,
        ContentSpec {
            network: NetworkId::LAN,
            ..spec(content, &map, map.none())
        },
    );
    let neighbour = world.add_peer(peer(50 * MBIT, 50 * MBIT), EngineConfig::default());
    world.add_content(neighbour, spec(hidden, &map, map.none()));
    world.connect(seed, stranger);
    world.connect(seed, neighbour);
    world.run_until(Duration::from_secs(60), |_| false);
    assert_eq!(world.outcome().peers[stranger].transfers[0].pieces_here, 0);
    assert_eq!(
        world.outcome().peers[neighbour].transfers[0].pieces_here,
        0,
        "a content of another network was served"
    );
    assert!(
        world.engine(seed).connections().len() == 1,
        "the stranger is still connected"
    );
}

#[test]
fn limits_hold_in_both_directions() {
    for upload in [true, false] {
        let mut world = World::new(1);
        let (content, map) = fake_content(1, 400, 16 * 1024);
        let limit = |on: bool| on.then_some(500_000);
        let up = EngineConfig {
            upload_limit: limit(upload),
            ..EngineConfig::default()
        };
        let down = EngineConfig {
            download_limit: limit(!upload),
            ..EngineConfig::default()
        };
        let seed = world.add_peer(peer(100 * MBIT, 100 * MBIT), up);
        world.add_content(seed, spec(content, &map, map.all()));
        let getter = world.add_peer(peer(100 * MBIT, 100 * MBIT), down);
        world.add_content(getter, spec(content, &map, map.none()));
        world.connect(seed, getter);
        assert!(world.run_until_complete(LONG, getter..getter + 1));
        let took = world.outcome().peers[getter].took.expect("complete").as_secs_f64();
        let exact = map.bytes() as f64 / 500_000.0;
        assert!(
            (exact * 0.96..exact * 1.04).contains(&took),
            "{took} s instead of {exact} s"
        );
    }
}

#[test]
fn sequential_order_is_kept() {
    let mut world = World::new(1);
    let (content, map) = fake_content(1, 200, PIECE);
    let seed = world.add_peer(peer(10 * MBIT, 10 * MBIT), EngineConfig::default());
    world.add_content(seed, spec(content, &map, map.all()));
    let getter = world.add_peer(peer(10 * MBIT, 10 * MBIT), EngineConfig::default());
    world.add_content(
        getter,
        ContentSpec {
            order: PickOrder::Sequential,
            ..spec(content, &map, map.none())
        },
    );
    world.connect(seed, getter);
    world.run_until(Duration::from_secs(5), |_| false);
    let have = world.pieces_done(getter);
    assert!(have.len() > 20);
    assert!(have.windows(2).all(|pair| pair[0] < pair[1]), "{have:?}");
    assert_eq!(have.last().copied(), Some(have.len() as u32 - 1));
}

#[test]
fn what_is_not_wanted_is_not_fetched() {
    let mut world = World::new(1);
    let (content, map) = fake_content(1, 100, PIECE);
    let seed = world.add_peer(peer(50 * MBIT, 50 * MBIT), EngineConfig::default());
    world.add_content(seed, spec(content, &map, map.all()));
    let getter = world.add_peer(peer(50 * MBIT, 50 * MBIT), EngineConfig::default());
    let mut some = spec(content, &map, map.none());
    let mut wanted = map.none();
    (0..100).step_by(3).for_each(|i| wanted.set(i, true));
    if let Some(pieces) = &mut some.pieces {
        pieces.wanted = Some(wanted);
    }
    world.add_content(getter, some);
    world.connect(seed, getter);
    assert!(world.run_until_complete(LONG, getter..getter + 1));
    assert!(world.pieces_done(getter).iter().all(|piece| piece % 3 == 0));
    assert_eq!(
        world.outcome().peers[getter].transfers[0].bytes_fetched,
        34 * u64::from(PIECE)
    );
}

#[test]
fn a_content_shared_in_two_networks_is_served_without_the_other_pack_s_words() {
    let mut world = World::new(1);
    let (content, map) = fake_content(1, 10, PIECE);
    let pack = |name: &[u8]| Cid::of(Codec::DagPb, HashKind::Blake3, name);
    for private_first in [true, false] {
        let seed = world.add_peer(peer(50 * MBIT, 50 * MBIT), EngineConfig::default());
        let private = ContentSpec {
            network: NetworkId::PRIVATE,
            packs: vec![pack(b"private")],
            ..spec(content, &map, map.all())
        };
        let public = ContentSpec {
            packs: vec![pack(b"public")],
            ..spec(content, &map, map.all())
        };
        let specs = if private_first {
            [private, public]
        } else {
            [public, private]
        };
        for spec in specs {
            world.add_content(seed, spec);
        }
        assert!(world.engine(seed).transfer_of(&pack(b"public")).is_some());
        assert!(world.engine(seed).transfer_of(&pack(b"private")).is_none());
        let getter = world.add_peer(peer(50 * MBIT, 50 * MBIT), EngineConfig::default());
        world.add_content(getter, spec(content, &map, map.none()));
        world.connect(seed, getter);
        assert!(world.run_until_complete(LONG, getter..getter + 1));
    }
}
