//! What transfers get of what there is: limits, priorities, the queue, and pauses.

mod common;

use std::time::Duration;

use common::{MBIT, peer, spec, with_seeds};
use modswarm_protocol::engine::{ContentSpec, EngineConfig, Ledbat, PickOrder, Priority, Stage, TransferId};
use modswarm_protocol::format::{Cid, Codec, HashKind, PieceSet, SharedPieceMap};
use modswarm_protocol::sim::{PeerIndex, World, fake_content};

const PIECE: u32 = 64 * 1024;
const LONG: Duration = Duration::from_secs(600);

/// A seed of so many contents and who fetches them all, connected.
struct Pair {
    world: World,
    seed: PeerIndex,
    getter: PeerIndex,
    maps: Vec<SharedPieceMap>,
    served: Vec<TransferId>,
    fetched: Vec<TransferId>,
}

impl Pair {
    fn new(chance: u64, contents: u64, pieces: u32, config: EngineConfig) -> Self {
        let mut world = World::new(chance);
        let seed = world.add_peer(peer(40 * MBIT, 40 * MBIT), EngineConfig::default());
        let getter = world.add_peer(peer(40 * MBIT, 40 * MBIT), config);
        let (mut maps, mut served, mut fetched) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..contents {
            let (content, map) = fake_content(i, pieces, PIECE);
            served.push(world.add_content(seed, spec(content, &map, map.all())));
            fetched.push(world.add_content(getter, spec(content, &map, map.none())));
            maps.push(map);
        }
        world.connect(seed, getter);
        Self {
            world,
            seed,
            getter,
            maps,
            served,
            fetched,
        }
    }

    fn bytes(&self, i: usize) -> u64 {
        let stats = self.world.engine(self.getter).transfer_stats(self.fetched[i]);
        stats.expect("it is there").bytes_here
    }

    fn stage(&self, i: usize) -> Stage {
        let stats = self.world.engine(self.getter).transfer_stats(self.fetched[i]);
        stats.expect("it is there").stage
    }

    fn run(&mut self, secs: u64) {
        self.world.run_until(Duration::from_secs(secs), |_| false);
    }

    fn prioritise(&mut self, i: usize, priority: Priority) {
        let id = self.fetched[i];
        self.world
            .tell(self.getter, |engine, now| engine.set_priority(now, id, priority));
    }
}

fn ratio(one: u64, other: u64) -> f64 {
    one as f64 / other as f64
}

#[test]
fn a_connection_is_shared_by_priority_and_nobody_starves() {
    with_seeds(3, |seed| {
        let mut pair = Pair::new(seed, 3, 4000, EngineConfig::default());
        pair.prioritise(0, Priority::High);
        pair.prioritise(2, Priority::Low);
        pair.run(20);
        let [high, normal, low] = [0, 1, 2].map(|i| pair.bytes(i));
        println!("{high}, {normal}, {low}");
        assert!((3.2..5.0).contains(&ratio(high, normal)), "{high} and {normal}");
        assert!((3.0..5.5).contains(&ratio(normal, low)), "{normal} and {low}");
        // All of the link is used all the same.
        assert!(high + normal + low > 40 * MBIT * 18);
    });
}

#[test]
fn a_limit_of_all_is_shared_by_priority_across_connections() {
    with_seeds(3, |seed| {
        let mut world = World::new(seed);
        let limited = EngineConfig {
            download_limit: Some(1_000_000),
            ..EngineConfig::default()
        };
        let getter = world.add_peer(peer(40 * MBIT, 40 * MBIT), limited);
        let mut fetched = Vec::new();
        for i in 0..2 {
            let (content, map) = fake_content(i, 2000, PIECE);
            let holder = world.add_peer(peer(40 * MBIT, 40 * MBIT), EngineConfig::default());
            world.add_content(holder, spec(content, &map, map.all()));
            fetched.push(world.add_content(getter, spec(content, &map, map.none())));
            world.connect(holder, getter);
        }
        world.tell(getter, |engine, now| {
            engine.set_priority(now, fetched[0], Priority::High)
        });
        world.run_until(Duration::from_secs(60), |_| false);
        let [high, normal] = [0, 1].map(|i| {
            let stats = world.engine(getter).transfer_stats(fetched[i]);
            stats.expect("it is there").bytes_here
        });
        println!("{high}, {normal}");
        assert!((3.0..5.2).contains(&ratio(high, normal)), "{high} and {normal}");
        assert!((0.97..1.03).contains(&ratio(high + normal, 60_000_000)));
    });
}

#[test]
fn a_limited_transfer_holds_up_no_other_on_its_connection() {
    for upload in [true, false] {
        with_seeds(2, |seed| {
            let mut pair = Pair::new(seed, 2, 2000, EngineConfig::default());
            let (at, id) = if upload {
                (pair.seed, pair.served[0])
            } else {
                (pair.getter, pair.fetched[0])
            };
            pair.world.tell(at, |engine, now| {
                let rate = Some(200_000);
                if upload {
                    engine.set_transfer_limits(now, id, rate, None);
                } else {
                    engine.set_transfer_limits(now, id, None, rate);
                }
            });
            pair.run(20);
            let (limited, free) = (pair.bytes(0), pair.bytes(1));
            println!("limited {limited}, free {free}");
            assert!((0.93..1.05).contains(&ratio(limited, 20 * 200_000)), "{limited}");
            assert!(free > 40 * MBIT * 18, "{free}");
            // Changed while it runs.
            pair.world
                .tell(at, |engine, now| engine.set_transfer_limits(now, id, None, None));
            let getter = pair.getter;
            assert!(pair.world.run_until(Duration::from_secs(60), |world| {
                let engine = world.engine(getter);
                engine.transfers().iter().all(|id| {
                    engine
                        .transfer_stats(*id)
                        .is_some_and(|stats| stats.stage == Stage::Seeding)
                })
            }));
        });
    }
}

#[test]
fn any_five_seconds_of_a_limit_are_exact() {
    for rate in [200_000u64, 1_000_000] {
        let limited = EngineConfig {
            download_limit: Some(rate),
            ..EngineConfig::default()
        };
        let mut pair = Pair::new(1, 1, 4000, limited);
        pair.run(2);
        let mut last = pair.bytes(0);
        for _ in 0..6 {
            pair.run(5);
            let now = pair.bytes(0);
            // One block more or less.
            let off = (now - last).abs_diff(5 * rate);
            assert!(
                off <= rate * 5 * 3 / 100 + u64::from(PIECE),
                "{} of {rate} B/s",
                now - last
            );
            last = now;
        }
        let all = pair.bytes(0);
        assert!((0.97..1.03).contains(&ratio(all, rate * 32)), "{all}");
    }
}

#[test]
fn the_local_network_is_exempt_unless_it_is_said_that_it_is_not() {
    for (limit_lan, expected) in [(false, false), (true, true)] {
        let config = EngineConfig {
            download_limit: Some(100_000),
            limit_lan,
            ..EngineConfig::default()
        };
        let mut pair = Pair::new(1, 1, 2000, config);
        let conn = pair.world.engine(pair.getter).connections()[0];
        pair.world
            .tell(pair.getter, |engine, now| engine.set_local(now, conn, true));
        pair.run(5);
        let limited = pair.bytes(0) < 1_000_000;
        assert_eq!(limited, expected, "{}", pair.bytes(0));
        pair.world
            .tell(pair.getter, |engine, now| engine.set_limit_lan(now, !limit_lan));
        let before = pair.bytes(0);
        pair.run(5);
        assert_eq!(pair.bytes(0) - before < 5_000_000, !expected);
    }
}

#[test]
fn who_is_exempt_does_not_count_and_who_is_not_is_exact_all_the_same() {
    let mut world = World::new(5);
    let (content, map) = fake_content(1, 1500, PIECE);
    let limited = EngineConfig {
        upload_limit: Some(300_000),
        ..EngineConfig::default()
    };
    let seed = world.add_peer(peer(80 * MBIT, 40 * MBIT), limited);
    world.add_content(seed, spec(content, &map, map.all()));
    let [near, far] = [0, 1].map(|_| {
        let getter = world.add_peer(peer(MBIT, 40 * MBIT), EngineConfig::default());
        let id = world.add_content(getter, spec(content, &map, map.none()));
        let conn = world.connect(seed, getter);
        (getter, id, conn)
    });
    world.tell(seed, |engine, now| engine.set_local(now, near.2, true));
    world.run_until(Duration::from_secs(30), |_| false);
    let bytes = |(getter, id, _): (PeerIndex, TransferId, _)| {
        world.engine(getter).transfer_stats(id).expect("there").bytes_here
    };
    assert_eq!(bytes(near), map.bytes());
    assert!(
        (0.97..1.03).contains(&ratio(bytes(far), 30 * 300_000)),
        "{}",
        bytes(far)
    );
}

#[test]
fn only_so_many_fetch_at_a_time_the_highest_priority_first() {
    with_seeds(2, |seed| {
        let config = EngineConfig {
            max_active: Some(2),
            ..EngineConfig::default()
        };
        let mut pair = Pair::new(seed, 5, 400, config);
        pair.prioritise(4, Priority::High);
        pair.run(1);
        let stages = |pair: &Pair| [0, 1, 2, 3, 4].map(|i| pair.stage(i));
        let q = Stage::Queued;
        let d = Stage::Downloading;
        assert_eq!(stages(&pair), [d, q, q, q, d]);
        // A pause lets the next go, and its end takes that back.
        let first = pair.fetched[0];
        let getter = pair.getter;
        pair.world
            .tell(getter, |engine, now| engine.set_stopped(now, first, true));
        pair.run(1);
        assert_eq!(stages(&pair), [Stage::Paused, d, q, q, d]);
        pair.world
            .tell(getter, |engine, now| engine.set_stopped(now, first, false));
        assert_eq!(pair.stage(1), q);
        let mut most = 0;
        let fetched = pair.fetched.clone();
        assert!(pair.world.run_until(LONG, |world| {
            let stages = fetched.iter().filter_map(|id| world.engine(getter).transfer_stats(*id));
            let stages: Vec<Stage> = stages.map(|stats| stats.stage).collect();
            let busy = stages
                .iter()
                .filter(|stage| !matches!(stage, Stage::Queued | Stage::Seeding));
            most = most.max(busy.count());
            stages.iter().all(|stage| *stage == Stage::Seeding)
        }));
        assert_eq!(most, 2);
        let outcome = pair.world.outcome();
        assert!(outcome.violations.is_empty(), "{:?}", outcome.violations);
        assert!(outcome.wasted() < 0.01, "{}", outcome.wasted());
    });
}

#[test]
fn what_nobody_has_holds_no_place_for_ever() {
    let config = EngineConfig {
        max_active: Some(1),
        ..EngineConfig::default()
    };
    let mut pair = Pair::new(1, 1, 50, config);
    let (content, map) = fake_content(77, 10, PIECE);
    let getter = pair.getter;
    let lonely = pair.world.add_content(getter, spec(content, &map, map.none()));
    pair.world
        .tell(getter, |engine, now| engine.set_priority(now, lonely, Priority::High));
    pair.run(30);
    assert_eq!(pair.stage(0), Stage::Queued);
    pair.run(60);
    assert_eq!(pair.stage(0), Stage::Seeding);
    // And it looks for peers again.
    pair.run(1);
    let stage = pair.world.engine(getter).transfer_stats(lonely).expect("there").stage;
    assert_eq!(stage, Stage::LookingForPeers);
}

#[test]
fn a_paused_content_is_neither_fetched_nor_served() {
    let mut pair = Pair::new(1, 1, 4000, EngineConfig::default());
    pair.run(2);
    for at_the_seed in [true, false] {
        let (at, id) = if at_the_seed {
            (pair.seed, pair.served[0])
        } else {
            (pair.getter, pair.fetched[0])
        };
        pair.world.tell(at, |engine, now| engine.set_stopped(now, id, true));
        // What was under way arrives.
        pair.run(3);
        let before = pair.bytes(0);
        pair.run(40);
        assert_eq!(pair.bytes(0), before);
        assert!(before > 0);
        pair.world.tell(at, |engine, now| engine.set_stopped(now, id, false));
        // Whoever was refused asks again after half a minute.
        pair.run(if at_the_seed { 31 } else { 1 });
        assert!(pair.bytes(0) > before, "at the seed: {at_the_seed}; {before}");
    }
    assert!(pair.world.run_until_complete(LONG, 1..2));
    assert!(pair.world.outcome().violations.is_empty());
}

#[test]
fn one_content_in_several_packs_is_one_swarm() {
    let mut world = World::new(1);
    let (content, map) = fake_content(1, 200, PIECE);
    let pack = |name: &[u8]| Cid::of(Codec::DagPb, HashKind::Blake3, name);
    let of_pack = |name: &[u8], have: PieceSet| ContentSpec {
        packs: vec![pack(name)],
        ..spec(content, &map, have)
    };
    let config = EngineConfig::default;
    let [one, other, getter] = [0, 1, 2].map(|_| world.add_peer(peer(8 * MBIT, 80 * MBIT), config()));
    world.add_content(one, of_pack(b"one", map.all()));
    world.add_content(other, of_pack(b"other", map.all()));
    // It has both packs, and knows of each from another peer.
    let a = world.add_content(getter, of_pack(b"one", map.none()));
    let b = world.add_content(getter, of_pack(b"other", map.none()));
    assert_eq!(a, b);
    world.connect_all();
    assert!(world.run_until_complete(LONG, getter..getter + 1));
    let stats = world.engine(getter).transfer_stats(a).expect("there");
    assert_eq!(stats.bytes_fetched, map.bytes());
    assert_eq!(stats.peers.len(), 2);
    assert!(stats.peers.iter().all(|peer| peer.bytes > map.bytes() / 4), "{stats:?}");
    for name in [&b"one"[..], b"other"] {
        assert_eq!(world.engine(getter).transfer_of(&pack(name)), Some(a));
    }
}

#[test]
fn what_is_to_come_first_comes_first() {
    for order in [PickOrder::RarestFirst, PickOrder::Sequential] {
        let mut pair = Pair::new(2, 1, 400, EngineConfig::default());
        let (id, getter) = (pair.fetched[0], pair.getter);
        let first: Vec<u32> = (250..300).chain([7]).collect();
        let mut set = PieceSet::repeat(false, 400);
        first.iter().for_each(|piece| set.set(*piece as usize, true));
        pair.world.tell(getter, |engine, now| {
            engine.set_order(now, id, order, Some(set.clone()))
        });
        assert!(pair.world.run_until_complete(LONG, getter..getter + 1));
        let done = pair.world.pieces_done(getter);
        assert_eq!(done.len() as u32, pair.maps[0].len());
        let (head, rest) = done.split_at(first.len());
        assert!(head.iter().all(|piece| first.contains(piece)), "{head:?}");
        let in_order = |pieces: &[u32]| pieces.windows(2).all(|pair| pair[0] < pair[1]);
        assert_eq!(in_order(head) && in_order(rest), order == PickOrder::Sequential);
    }
}

#[test]
fn an_upload_controller_decides_within_the_limit() {
    let mut pair = Pair::new(1, 1, 4000, EngineConfig::default());
    let seed = pair.seed;
    pair.world.tell(seed, |engine, now| {
        engine.set_upload_controller(now, Some(Box::new(Ledbat::default())));
    });
    pair.run(20);
    let rate = pair.world.engine(seed).upload_rate().expect("it limits");
    assert!(
        (0.9..1.06).contains(&ratio(pair.bytes(0), rate * 20)),
        "{}",
        pair.bytes(0)
    );
    pair.world
        .tell(seed, |engine, now| engine.set_limits(now, Some(20_000), None));
    assert_eq!(pair.world.engine(seed).upload_rate(), Some(20_000));
    pair.world.tell(seed, |engine, now| {
        engine.set_limits(now, None, None);
        engine.set_upload_controller(now, None);
    });
    assert_eq!(pair.world.engine(seed).upload_rate(), None);
    assert!(pair.world.run_until_complete(LONG, 1..2));
}
