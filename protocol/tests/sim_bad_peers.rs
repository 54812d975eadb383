//! Swarms in which some peers lie, stall, dribble or leave: the others complete, and only the guilty pay.

mod common;

use std::time::Duration;

use common::{MBIT, Swarm, peer, spec, with_seeds};
use modswarm_protocol::Timestamp;
use modswarm_protocol::engine::{EngineConfig, Event};
use modswarm_protocol::sim::{Behaviour, Outcome, PeerSpec, World, fake_content};

const PIECE: u32 = 64 * 1024;
const LONG: Duration = Duration::from_secs(600);

fn with(behaviour: Behaviour, spec: PeerSpec) -> PeerSpec {
    PeerSpec { behaviour, ..spec }
}

/// Runs a swarm to the end and checks what must hold whatever its peers do.
fn run(swarm: &mut Swarm) -> Outcome {
    let peers = swarm.peers();
    assert!(
        swarm.world.run_until_complete(LONG, peers),
        "not complete: {:?}",
        swarm.world.outcome().peers
    );
    let outcome = swarm.world.outcome();
    println!("last {:?}, wasted {:.4}", outcome.last(swarm.peers()), outcome.wasted());
    // What may come twice in the end, with what was under way from who was banned or given up on.
    assert!(outcome.wasted() <= 0.01, "{} wasted", outcome.wasted());
    assert!(outcome.violations.is_empty(), "{:?}", outcome.violations);
    outcome
}

#[test]
fn corrupt_block_bans_only_its_sender() {
    with_seeds(8, |seed| {
        let good = peer(20 * MBIT, 50 * MBIT);
        let liar = with(Behaviour::Liar { every: 20 }, good);
        let mut swarm = Swarm::new(seed, 400, PIECE, &[good, liar, good, liar], &[good; 12]);
        let outcome = run(&mut swarm);
        assert!(!outcome.bans.is_empty());
        for (by, banned, event) in &outcome.bans {
            assert!([1, 3].contains(banned), "peer {by} banned {banned}: {event:?}");
        }
        // Once banned, never heard again: nobody bans the same peer twice.
        let mut pairs: Vec<(usize, usize)> = outcome.bans.iter().map(|(by, banned, _)| (*by, *banned)).collect();
        let bans = pairs.len();
        pairs.sort_unstable();
        pairs.dedup();
        assert_eq!(pairs.len(), bans);
        for peer in &outcome.peers[4..] {
            // One bad block each at the most, besides what was under way from the same sender.
            assert!(
                peer.transfers[0].bytes_corrupt <= 2 * u64::from(PIECE),
                "{:?}",
                peer.transfers[0]
            );
        }
    });
}

#[test]
fn a_seed_that_stalls_does_not_hold_the_swarm() {
    with_seeds(6, |seed| {
        let good = peer(20 * MBIT, 50 * MBIT);
        let staller = with(Behaviour::Staller { after: 10 }, good);
        let mut swarm = Swarm::new(seed, 400, PIECE, &[good, staller, staller], &[good; 8]);
        let outcome = run(&mut swarm);
        let last = outcome.last(swarm.peers()).expect("complete");
        assert!(last < Duration::from_secs(60), "{last:?}");
    });
}

#[test]
fn a_seed_that_dribbles_does_not_hold_the_swarm() {
    with_seeds(6, |seed| {
        let good = peer(20 * MBIT, 50 * MBIT);
        let drip = with(Behaviour::Drip { rate: 100 }, good);
        let mut swarm = Swarm::new(seed, 400, PIECE, &[good, drip, drip], &[good; 8]);
        let outcome = run(&mut swarm);
        let last = outcome.last(swarm.peers()).expect("complete");
        assert!(last < Duration::from_secs(60), "{last:?}");
    });
}

/// A block that was given up is awaited when its header comes all the same, but not for as long as its sender likes.
#[test]
fn leechers_that_dribble_keep_nobody_from_the_last_pieces() {
    with_seeds(3, |seed| {
        let good = peer(20 * MBIT, 100 * MBIT);
        let drip = with(Behaviour::Drip { rate: 5000 }, good);
        let leechers: Vec<PeerSpec> = (0..40).map(|i| if i % 10 < 3 { drip } else { good }).collect();
        let mut swarm = Swarm::new(seed, 600, 2 * PIECE, &[good], &leechers);
        let honest: Vec<usize> = (1..=40).filter(|i| leechers[i - 1] == good).collect();
        let done = swarm.world.run_until(Duration::from_secs(200), |world| {
            honest.iter().all(|peer| world.pieces_done(*peer).len() == 600)
        });
        let left = honest.iter().filter(|peer| swarm.world.pieces_done(**peer).len() < 600);
        println!("{:?}", swarm.world.now());
        assert!(done, "{} are not complete", left.count());
    });
}

/// What one that dribbles is asked for in the end goes to another that may dribble too: nobody waits for both.
#[test]
fn two_that_dribble_do_not_hold_the_end_of_a_sparse_swarm() {
    with_seeds(3, |seed| {
        let good = peer(20 * MBIT, 100 * MBIT);
        let drip = with(Behaviour::Drip { rate: 5000 }, good);
        let mut world = World::new(seed);
        let (content, map) = fake_content(seed, 400, 2 * PIECE);
        let peers: Vec<PeerSpec> = (0..=60)
            .map(|i| if i > 0 && i % 10 < 3 { drip } else { good })
            .collect();
        for (i, spec_of) in peers.iter().enumerate() {
            let index = world.add_peer(*spec_of, EngineConfig::default());
            world.add_content(index, spec(content, &map, if i == 0 { map.all() } else { map.none() }));
        }
        world.connect_randomly(15);
        let honest: Vec<usize> = (1..=60).filter(|i| peers[*i] == good).collect();
        let done = |world: &World, part: usize| {
            let done = honest.iter().filter(|peer| world.pieces_done(**peer).len() == 400);
            done.count() >= honest.len() / part
        };
        assert!(world.run_until(LONG, |world| done(world, 2)));
        let median = world.now();
        assert!(world.run_until(LONG, |world| done(world, 1)));
        let last = world.now();
        println!("half were done after {median:?}, all after {last:?}");
        assert!(last.as_micros() <= median.as_micros() * 3 / 2, "{median:?}, {last:?}");
    });
}

#[test]
fn peers_that_leave_take_nothing_with_them() {
    with_seeds(8, |seed| {
        let good = peer(20 * MBIT, 50 * MBIT);
        let leaver = |secs: u64| {
            with(
                Behaviour::Leaver {
                    at: Timestamp::from_micros(secs * 1_000_000),
                },
                good,
            )
        };
        // The first seed leaves only when the leechers hold all of it between them.
        let seeds = [good, leaver(2), leaver(4)];
        let mut leechers = vec![good; 8];
        leechers.extend([leaver(3), leaver(5), leaver(7)]);
        let mut swarm = Swarm::new(seed, 600, PIECE, &seeds, &leechers);
        let peers = swarm.peers();
        let mut here = vec![0; peers.len()];
        // Progress is looked at all along: it only ever grows.
        while !swarm.world.run_until_complete(Duration::from_secs(1), peers.clone()) {
            assert!(swarm.world.now() < Timestamp::ZERO + LONG);
            for (peer, here) in swarm.world.outcome().peers[peers.clone()].iter().zip(&mut here) {
                assert!(peer.transfers[0].pieces_here >= *here, "progress was lost");
                *here = peer.transfers[0].pieces_here;
            }
        }
        run(&mut swarm);
    });
}

#[test]
fn the_last_seed_leaves_and_those_with_half_each_complete_each_other() {
    with_seeds(6, |seed| {
        let good = peer(20 * MBIT, 50 * MBIT);
        let mut swarm = Swarm::new(seed, 300, PIECE, &[good], &[good; 4]);
        let world = &mut swarm.world;
        // The seed goes as soon as the leechers have everything between them.
        let spread = world.run_until(LONG, |world| {
            let mut held: Vec<u32> = (1..5).flat_map(|peer| world.pieces_done(peer)).copied().collect();
            held.sort_unstable();
            held.dedup();
            held.len() == 300
        });
        assert!(spread);
        assert!(
            world.outcome().peers[1..].iter().any(|peer| peer.took.is_none()),
            "complete too early to tell"
        );
        world.leave(0);
        assert!(world.run_until_complete(LONG, 1..5), "{:?}", world.outcome().peers);
        assert!(world.outcome().wasted() <= 0.01);
    });
}

#[test]
fn everyone_learns_who_lied_only_by_having_been_lied_to() {
    with_seeds(3, |seed| {
        let good = peer(20 * MBIT, 50 * MBIT);
        let liar = with(Behaviour::Liar { every: 1 }, good);
        let mut swarm = Swarm::new(seed, 200, PIECE, &[good, liar], &[good; 3]);
        let outcome = run(&mut swarm);
        for (_, banned, event) in &outcome.bans {
            assert_eq!(*banned, 1);
            assert!(matches!(event, Event::Banned { .. }));
        }
        let from_liar = |peer: &modswarm_protocol::sim::PeerOutcome| {
            let key = modswarm_protocol::engine::PeerKey::of(&1usize.to_le_bytes());
            peer.transfers[0].peers.iter().any(|of| of.peer == key)
        };
        assert!(!outcome.peers[2..].iter().any(from_liar), "a liar was credited");
    });
}

#[test]
fn who_gives_has_everything_before_who_only_takes() {
    with_seeds(2, |seed| {
        let good = peer(20 * MBIT, 100 * MBIT);
        let rider = with(Behaviour::FreeRider, good);
        let leechers: Vec<PeerSpec> = (0..30).map(|i| if i % 5 < 2 { rider } else { good }).collect();
        let mut swarm = Swarm::new(seed, 300, PIECE, &[good], &leechers);
        let outcome = run(&mut swarm);
        let median = |riders: bool| {
            let of_kind = (0..30).filter(|i| (i % 5 < 2) == riders);
            let mut took: Vec<Duration> = of_kind.filter_map(|i| outcome.peers[i + 1].took).collect();
            took.sort_unstable();
            took[took.len() / 2]
        };
        println!("contributors {:?}, free-riders {:?}", median(false), median(true));
        assert!(median(false) <= median(true));
    });
}

/// The time in which the honest among `leechers` have everything from one seed.
fn time_of_honest(seed: u64, leechers: &[PeerSpec]) -> f64 {
    let good = peer(20 * MBIT, 100 * MBIT);
    let mut swarm = Swarm::new(seed, 600, PIECE, &[good], leechers);
    let honest: Vec<usize> = (1..=leechers.len()).filter(|i| leechers[i - 1] == good).collect();
    let done = swarm.world.run_until(LONG, |world| {
        honest.iter().all(|peer| world.pieces_done(*peer).len() == 600)
    });
    assert!(done);
    swarm.world.outcome().last(honest).expect("complete").as_secs_f64()
}

/// The time of the honest among twenty peers, of which six do as `behaviour` says, by the time of the honest without them.
fn slowed_by_a_third(seed: u64, behaviour: Behaviour) -> f64 {
    let good = peer(20 * MBIT, 100 * MBIT);
    let among: Vec<PeerSpec> = (0..20)
        .map(|i| if i % 10 < 3 { with(behaviour, good) } else { good })
        .collect();
    let (among, alone) = (time_of_honest(seed, &among), time_of_honest(seed, &[good; 14]));
    println!("{among:.1} s among {behaviour:?}, {alone:.1} s without");
    among / alone
}

#[test]
fn a_third_of_liars_does_not_bring_a_small_swarm_down() {
    with_seeds(2, |seed| {
        let slowed = slowed_by_a_third(seed, Behaviour::Liar { every: 1 });
        assert!(slowed < 1.4, "{slowed}");
    });
}

#[test]
fn a_third_of_false_maps_does_not_bring_a_small_swarm_down() {
    with_seeds(2, |seed| {
        for answers in [true, false] {
            let slowed = slowed_by_a_third(seed, Behaviour::FalseMap { answers });
            assert!(slowed < 1.15, "{slowed}");
        }
    });
}
