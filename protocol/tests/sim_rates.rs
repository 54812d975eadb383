//! How near the least possible time simple scenes come.

mod common;

use std::time::Duration;

use common::{MBIT, Swarm, peer, with_seeds};
use modswarm_protocol::sim::{PeerSpec, least_time};

const PIECE: u32 = 64 * 1024;

/// Runs a scene with a few seeds and gives the least eta.
fn eta(name: &str, pieces: u32, seeds: &[PeerSpec], leechers: &[PeerSpec]) -> f64 {
    let etas = with_seeds(3, |seed| {
        let mut swarm = Swarm::new(seed, pieces, PIECE, seeds, leechers);
        let peers = swarm.peers();
        assert!(
            swarm.world.run_until_complete(Duration::from_secs(3600), peers.clone()),
            "{name}: not complete"
        );
        let outcome = swarm.world.outcome();
        let took = outcome.last(peers).expect("complete");
        let ups: Vec<u64> = seeds.iter().map(|peer| peer.up).collect();
        let rates: Vec<(u64, u64)> = leechers.iter().map(|peer| (peer.up, peer.down)).collect();
        let eta = least_time(u64::from(pieces) * u64::from(PIECE), &ups, &rates).as_secs_f64() / took.as_secs_f64();
        let messages: u64 = outcome.peers.iter().map(|peer| peer.control_messages).sum();
        println!(
            "{name}: eta {eta:.3}, {took:?}, wasted {:.4}, {messages} messages",
            outcome.wasted()
        );
        assert!(outcome.violations.is_empty(), "{:?}", outcome.violations);
        assert!(outcome.wasted() <= 0.01, "{name}: {} wasted", outcome.wasted());
        eta
    });
    etas.into_iter().fold(f64::MAX, f64::min)
}

#[test]
fn four_seeds_fill_one_downlink() {
    let eta = eta(
        "fan-in",
        2048,
        &[peer(50 * MBIT, 400 * MBIT); 4],
        &[peer(100 * MBIT, 400 * MBIT)],
    );
    assert!(eta > 0.85, "{eta}");
}

#[test]
fn one_seed_and_eight_that_trade() {
    let eta = eta(
        "aggregate",
        1024,
        &[peer(100 * MBIT, 100 * MBIT)],
        &[peer(10 * MBIT, 100 * MBIT); 8],
    );
    assert!(eta > 0.95, "{eta}");
}

#[test]
fn a_slow_seed_and_eight_that_trade() {
    let eta = eta(
        "seed-limited",
        1024,
        &[peer(20 * MBIT, 100 * MBIT)],
        &[peer(20 * MBIT, 100 * MBIT); 8],
    );
    assert!(eta > 0.93, "{eta}");
}

#[test]
fn a_sole_seed_sends_everything_once_before_anything_twice() {
    with_seeds(2, |seed| {
        let equal = peer(20 * MBIT, 100 * MBIT);
        let mut swarm = Swarm::new(seed, 1000, 2 * PIECE, &[equal], &[equal; 16]);
        let peers = swarm.peers();
        let spread = swarm.world.run_until(Duration::from_secs(600), |world| {
            let mut held: Vec<u32> = peers
                .clone()
                .flat_map(|peer| world.pieces_done(peer))
                .copied()
                .collect();
            held.sort_unstable();
            held.dedup();
            held.len() == 1000
        });
        assert!(spread);
        let sent = swarm.world.outcome().peers[0].transfers[0].bytes_served;
        let once = sent as f64 / swarm.map.bytes() as f64;
        println!("sent {once:.3} of it by the time that others had all of it");
        // What is under way when the last piece lands counts too.
        assert!(once < 1.03, "{once}");
        assert!(swarm.world.run_until_complete(Duration::from_secs(60), peers.clone()));
        let outcome = swarm.world.outcome();
        let mut took: Vec<Duration> = peers.clone().filter_map(|peer| outcome.peers[peer].took).collect();
        took.sort_unstable();
        assert!(took[15] < took[7] * 11 / 10, "{took:?}");
    });
}
