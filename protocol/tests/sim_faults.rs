//! Swarms on bad lines and among peers that crash, boast or flood: whoever is honest completes, and nobody is punished for what a line does.

mod common;

use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;
use std::{iter, thread};

use common::{MBIT, Swarm, peer, with_seeds};
use modswarm_protocol::Timestamp;
use modswarm_protocol::sim::{Behaviour, Job, Line, Outcome, PeerSpec, World};

const PIECE: u32 = 64 * 1024;
const LONG: Duration = Duration::from_secs(600);

fn good() -> PeerSpec {
    peer(20 * MBIT, 50 * MBIT)
}

fn with(behaviour: Behaviour) -> PeerSpec {
    PeerSpec { behaviour, ..good() }
}

fn on(line: Line) -> PeerSpec {
    PeerSpec { line, ..good() }
}

fn second(at: u64) -> Timestamp {
    Timestamp::from_micros(at * 1_000_000)
}

/// Runs until all of `honest` have everything.
#[track_caller]
fn complete(world: &mut World, honest: Range<usize>) -> Outcome {
    let done = world.run_until_complete(LONG, honest.clone());
    let outcome = world.outcome();
    println!("last {:?}, wasted {:.4}", outcome.last(honest), outcome.wasted());
    assert!(done, "not complete: {:?}", outcome.peers);
    outcome
}

#[track_caller]
fn assert_nobody_is_blamed(outcome: &Outcome) {
    assert!(outcome.violations.is_empty(), "{:?}", outcome.violations);
    assert!(outcome.bans.is_empty(), "{:?}", outcome.bans);
}

/// A swarm in which something of everything happens.
fn eventful(seed: u64) -> Swarm {
    let bad = Line {
        jitter: Duration::from_millis(10),
        loss_ppm: 5000,
        queue: Some(128 * 1024),
    };
    let mut leechers = vec![good(); 6];
    leechers.extend([
        on(bad),
        on(bad),
        with(Behaviour::Liar { every: 7 }),
        with(Behaviour::FreeRider),
        with(Behaviour::Flooder),
        with(Behaviour::FalseMap { answers: true }),
        with(Behaviour::Crasher {
            at: second(2),
            back_after: Some(Duration::from_secs(3)),
        }),
    ]);
    let mut swarm = Swarm::new(seed, 200, PIECE, &[good()], &leechers);
    swarm.world.part(second(1), second(3), [1, 2, 9]);
    swarm
}

fn on_threads(count: usize, jobs: Vec<Job<'_>>) {
    let jobs = Mutex::new(jobs);
    let next = || jobs.lock().expect("no job panics").pop();
    thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| iter::from_fn(next).for_each(Job::run));
        }
    });
}

#[test]
fn a_world_comes_to_the_same_on_any_number_of_threads_and_without_the_codec() {
    with_seeds(2, |seed| {
        let run = |prepare: &dyn Fn(&mut World)| {
            let mut swarm = eventful(seed);
            prepare(&mut swarm.world);
            swarm.world.run_until(Duration::from_secs(8), |_| false);
            let done: Vec<Vec<u32>> = swarm
                .peers()
                .map(|peer| swarm.world.pieces_done(peer).to_vec())
                .collect();
            (done, format!("{:?}", swarm.world.outcome()))
        };
        let alone = run(&|_| {});
        assert!(alone.0.iter().any(|done| !done.is_empty()));
        for threads in [2, 3] {
            let on_some = run(&|world| world.set_workers(Box::new(move |jobs| on_threads(threads, jobs))));
            assert!(on_some == alone, "{threads} threads make a difference");
        }
        let handed_over = run(&|world| world.coarsen(16 * 1024));
        assert!(handed_over == alone, "the codec makes a difference");
    });
}

#[test]
fn jitter_delays_and_does_no_other_harm() {
    with_seeds(3, |seed| {
        let shaky = on(Line {
            jitter: Duration::from_millis(40),
            ..Line::default()
        });
        let mut swarm = Swarm::new(seed, 300, PIECE, &[shaky], &[shaky; 8]);
        let outcome = complete(&mut swarm.world, 1..9);
        assert_nobody_is_blamed(&outcome);
        assert!(outcome.wasted() <= 0.02, "{}", outcome.wasted());
        let last = outcome.last(1..9).expect("complete");
        assert!(last < Duration::from_secs(15), "{last:?}");
    });
}

#[test]
fn lost_packets_are_sent_again() {
    with_seeds(3, |seed| {
        let lossy = on(Line {
            loss_ppm: 10_000,
            ..Line::default()
        });
        let mut swarm = Swarm::new(seed, 300, PIECE, &[lossy], &[lossy; 8]);
        let outcome = complete(&mut swarm.world, 1..9);
        assert_nobody_is_blamed(&outcome);
        assert!(outcome.wasted() <= 0.05, "{}", outcome.wasted());
    });
}

#[test]
fn a_full_queue_slows_senders_down_and_the_line_stays_busy() {
    with_seeds(3, |seed| {
        let queued = on(Line {
            queue: Some(128 * 1024),
            ..Line::default()
        });
        let mut swarm = Swarm::new(seed, 300, PIECE, &[queued], &[queued; 8]);
        let outcome = complete(&mut swarm.world, 1..9);
        assert_nobody_is_blamed(&outcome);
        // The seed needs eight seconds for the first copy.
        let last = outcome.last(1..9).expect("complete");
        assert!(last < Duration::from_secs(16), "{last:?}");
    });
}

#[test]
fn a_short_partition_ends_no_connection() {
    with_seeds(3, |seed| {
        let mut swarm = Swarm::new(seed, 300, PIECE, &[good()], &[good(); 8]);
        swarm.world.part(second(2), second(6), 5..9);
        let before: Vec<_> = (0..9).map(|peer| swarm.world.engine(peer).connections()).collect();
        let outcome = complete(&mut swarm.world, 1..9);
        let after: Vec<_> = (0..9).map(|peer| swarm.world.engine(peer).connections()).collect();
        assert_eq!(before, after);
        assert_nobody_is_blamed(&outcome);
    });
}

#[test]
fn a_swarm_that_was_torn_apart_completes_when_it_is_whole_again() {
    with_seeds(3, |seed| {
        let mut swarm = Swarm::new(seed, 300, PIECE, &[good()], &[good(); 8]);
        swarm.world.part(second(2), second(42), 5..9);
        swarm.world.run_until(Duration::from_secs(41), |_| false);
        let parted = swarm.world.outcome();
        assert!(parted.last(1..5).is_some(), "those with the seed did not complete");
        assert!(
            parted.peers[5..].iter().all(|peer| peer.took.is_none()),
            "those without the seed completed"
        );
        assert_eq!(swarm.world.engine(8).connections().len(), 3, "across the partition");
        let outcome = complete(&mut swarm.world, 1..9);
        assert_nobody_is_blamed(&outcome);
        assert!(outcome.last(1..9).expect("complete") < Duration::from_secs(70));
    });
}

#[test]
fn who_says_to_have_what_it_has_not_costs_the_others_little() {
    for answers in [true, false] {
        with_seeds(3, |seed| {
            let boaster = with(Behaviour::FalseMap { answers });
            let mut leechers = vec![good(); 8];
            leechers.extend([boaster; 3]);
            let mut swarm = Swarm::new(seed, 300, PIECE, &[good(); 2], &leechers);
            let outcome = complete(&mut swarm.world, 2..10);
            assert_nobody_is_blamed(&outcome);
            let mut fair = Swarm::new(seed, 300, PIECE, &[good(); 2], &[good(); 8]);
            let without = complete(&mut fair.world, 2..10);
            let (with, without) = (outcome.last(2..10), without.last(2..10));
            let (with, without) = (with.expect("complete"), without.expect("complete"));
            assert!(
                with < without * 2 + Duration::from_secs(10),
                "{with:?} instead of {without:?}"
            );
        });
    }
}

#[test]
fn flooders_are_left_and_the_others_complete() {
    with_seeds(3, |seed| {
        let flooder = with(Behaviour::Flooder);
        let mut leechers = vec![good(); 8];
        leechers.extend([flooder; 3]);
        let mut swarm = Swarm::new(seed, 300, PIECE, &[good()], &leechers);
        let outcome = complete(&mut swarm.world, 1..9);
        for flooder in 9..12 {
            // Flooders bear with each other no better than the others do with them.
            assert_eq!(swarm.world.engine(flooder).connections(), [], "flooder {flooder}");
        }
        for honest in 0..9 {
            assert_eq!(swarm.world.engine(honest).connections().len(), 8, "peer {honest}");
            let left = outcome.violations.iter().filter(|(by, _)| *by == honest).count();
            assert_eq!(left, 3, "{:?}", outcome.violations);
        }
        assert!(outcome.bans.is_empty());
        let last = outcome.last(1..9).expect("complete");
        assert!(last < Duration::from_secs(16), "{last:?}");
    });
}

#[test]
fn who_crashes_comes_back_with_what_it_had() {
    with_seeds(3, |seed| {
        let crasher = |back_after: Option<Duration>| {
            let at = second(4);
            with(Behaviour::Crasher { at, back_after })
        };
        let (soon, later) = (Duration::from_secs(2), Duration::from_secs(30));
        let mut leechers = vec![good(); 6];
        leechers.extend([crasher(None), crasher(Some(soon)), crasher(Some(later))]);
        let mut swarm = Swarm::new(seed, 300, PIECE, &[good()], &leechers);
        swarm.world.run_until(Duration::from_secs(4), |_| false);
        let had: Vec<usize> = [8, 9].map(|peer| swarm.world.pieces_done(peer).len()).to_vec();
        let outcome = complete(&mut swarm.world, 1..10);
        assert_nobody_is_blamed(&outcome);
        assert!(outcome.peers[7].took.is_none());
        for (peer, had) in [8, 9].into_iter().zip(had) {
            let stats = &outcome.peers[peer].transfers[0];
            assert!(had > 20 && stats.pieces_here == 300);
            // What it fetched since it came back is what it did not have.
            assert!(
                stats.bytes_fetched <= (300 - had) as u64 * u64::from(PIECE),
                "{stats:?}"
            );
        }
        assert!(swarm.world.engine(9).connections().len() >= 8);
    });
}
