//! Connections that send over one uplink, in virtual time.

use std::{collections::VecDeque, time::Duration};

use quinn::congestion::Controller as _;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::*;

const PACKET: u64 = 1452;
const STEP: f64 = 0.0005;
/// What happened before is how it starts.
const FROM: f64 = 3.0;

/// A line with a queue. Bytes and seconds.
struct Line {
    rate: f64,
    longest: f64,
    free_at: f64,
}

impl Line {
    fn new(rate: f64) -> Self {
        Self {
            rate,
            longest: 0.1,
            free_at: 0.0,
        }
    }

    /// When a packet that comes at `at` is through; none if the queue is full.
    fn pass(&mut self, at: f64) -> Option<f64> {
        let begins = self.free_at.max(at);
        if begins - at > self.longest {
            return None;
        }
        self.free_at = begins + PACKET as f64 / self.rate;
        Some(self.free_at)
    }
}

struct Sender {
    congestion: Congestion,
    base: f64,
    joins: f64,
    tokens: f64,
    in_flight: u64,
    /// When it is heard of, when it was sent, and when it came if it did.
    under_way: VecDeque<(f64, f64, Option<f64>)>,
    /// Whether the peer echoes, and when it did last.
    echoes: bool,
    echoed: f64,
    /// The peer's own line, if that is slow.
    narrow: Option<Line>,
    idle: bool,
    delivered: u64,
}

struct Outcome {
    /// Of the uplink's bytes, the part that was used.
    used: f64,
    /// Mean delay in the uplink's queue.
    queue: f64,
    /// Of the packets sent, the part that found the queue full.
    lost: f64,
    each: Vec<u64>,
}

struct Scene {
    rate: f64,
    secs: f64,
    random_loss: f64,
    senders: Vec<(f64, f64, Option<f64>)>,
    /// How many have something to send at a time, others every 300 ms.
    at_a_time: Option<usize>,
    /// Whether peers echo.
    echoes: bool,
    /// How long acknowledgements wait at most in the queue of the peer's own uplink.
    behind: f64,
}

impl Scene {
    fn new(rate: f64, senders: usize) -> Self {
        Self {
            rate,
            secs: 20.0,
            random_loss: 0.0,
            senders: vec![(0.06, 0.0, None); senders],
            at_a_time: None,
            echoes: true,
            behind: 0.0,
        }
    }

    fn run(self, seed: u64) -> Outcome {
        let mut rng = StdRng::seed_from_u64(seed);
        let start = Instant::now();
        let at = |t: f64| start + Duration::from_secs_f64(t);
        let uplink = Arc::<Uplink>::default();
        let mut line = Line::new(self.rate);
        let senders = self.senders.iter().map(|(base, joins, narrow)| Sender {
            congestion: Congestion::new(
                Member::new(Arc::clone(&uplink)),
                Arc::default(),
                at(*joins),
                PACKET as u16,
            ),
            base: *base,
            joins: *joins,
            tokens: 0.0,
            in_flight: 0,
            under_way: VecDeque::new(),
            echoes: self.echoes,
            echoed: 0.0,
            narrow: narrow.map(Line::new),
            idle: false,
            delivered: 0,
        });
        let mut senders: Vec<Sender> = senders.collect();
        let (mut sent, mut full, mut queue, mut steps, mut through) = (0u64, 0u64, 0.0, 0u64, 0u64);
        for step in 0..(self.secs / STEP) as u64 {
            let t = step as f64 * STEP;
            if let Some(busy) = self.at_a_time
                && step % (0.3 / STEP) as u64 == 0
            {
                for sender in &mut senders {
                    sender.idle = true;
                }
                for _ in 0..busy {
                    let one = rng.random_range(0..senders.len());
                    senders[one].idle = false;
                }
            }
            if t > FROM {
                queue += (line.free_at - t).max(0.0);
                steps += 1;
            }
            // Nobody is always the first.
            let first = rng.random_range(0..senders.len());
            for i in 0..senders.len() {
                let at_turn = (first + i) % senders.len();
                let sender = &mut senders[at_turn];
                if t < sender.joins {
                    continue;
                }
                let came = sender.hear(t, &at);
                if t > FROM {
                    through += came;
                    sender.delivered += came;
                }
                let window = sender.congestion.window();
                let rtt = sender.base + 0.02;
                sender.tokens = (sender.tokens + 1.25 * window as f64 / rtt * STEP).min(10.0 * PACKET as f64);
                while !sender.idle && sender.in_flight + PACKET <= window && sender.tokens >= PACKET as f64 {
                    sender.tokens -= PACKET as f64;
                    sender.in_flight += PACKET;
                    sender.congestion.on_sent(at(t), PACKET, 0);
                    let by_itself = rng.random_bool(self.random_loss);
                    let passed = line.pass(t);
                    let passed = match (passed, &mut sender.narrow) {
                        (Some(then), Some(narrow)) => narrow.pass(then),
                        (passed, _) => passed,
                    };
                    sent += u64::from(t > FROM);
                    full += u64::from(t > FROM && passed.is_none());
                    // The peer's own queue is longer and shorter in turn, and never quite empty.
                    let behind = self.behind * (0.75 + 0.25 * (t + i as f64).sin());
                    let heard = passed.unwrap_or(t + 0.1) + sender.base + behind;
                    let came = passed.filter(|_| !by_itself);
                    sender.under_way.push_back((heard, t, came));
                }
            }
        }
        Outcome {
            used: through as f64 / ((self.secs - FROM) * self.rate),
            queue: queue / steps as f64,
            lost: full as f64 / sent as f64,
            each: senders.iter().map(|sender| sender.delivered).collect(),
        }
    }
}

impl Sender {
    /// What has come back by `t`; bytes that were delivered.
    fn hear(&mut self, t: f64, at: &impl Fn(f64) -> Instant) -> u64 {
        let (mut came, mut lost, mut heard) = (0, 0, false);
        while self.under_way.front().is_some_and(|(when, ..)| *when <= t) {
            let (_, sent, arrived) = self.under_way.pop_front().expect("looked");
            heard = true;
            self.in_flight -= PACKET;
            if let Some(there) = arrived {
                came += PACKET;
                if self.echoes && t - self.echoed > self.base / 3.0 {
                    self.echoed = t;
                    // By a clock of its own.
                    self.congestion.far.transit.learnt(there - sent + 1e6);
                }
                self.congestion.on_acked(at(t), at(sent), PACKET, self.idle);
            } else {
                lost += PACKET;
            }
        }
        if lost > 0 {
            self.congestion.on_congestion_event(at(t), at(t), false, lost);
        }
        if heard {
            self.congestion.on_end_acks(at(t), self.in_flight, self.idle, None);
        }
        came
    }
}

#[test]
fn one_connection_fills_the_uplink_and_keeps_its_queue_short() {
    for rate in [125e3, 1.25e6, 6.25e6, 12.5e6] {
        let seen = Scene::new(rate, 1).run(1);
        assert!(seen.used > 0.97, "{rate} B/s: {} used", seen.used);
        assert!(seen.queue < 0.06, "{rate} B/s: {} s of queue", seen.queue);
        assert!(seen.lost < 0.002, "{rate} B/s: {} lost", seen.lost);
    }
}

#[test]
fn connections_share_the_uplink_evenly() {
    for rate in [1.25e6, 12.5e6] {
        let seen = Scene::new(rate, 8).run(2);
        assert!(seen.used > 0.97, "{rate} B/s: {} used", seen.used);
        assert!(seen.queue < 0.06, "{rate} B/s: {} s of queue", seen.queue);
        assert!(seen.lost < 0.002, "{rate} B/s: {} lost", seen.lost);
        let (least, most) = (seen.each.iter().min().unwrap(), seen.each.iter().max().unwrap());
        assert!(*most as f64 <= *least as f64 * 1.25, "{rate} B/s: {:?}", seen.each);
    }
}

/// The uplink was full, with a short queue that lost hardly anything.
fn assert_full(seen: &Outcome) {
    assert!(seen.used > 0.97, "{} used", seen.used);
    assert!(seen.queue < 0.06, "{} s of queue", seen.queue);
    assert!(seen.lost < 0.002, "{} lost", seen.lost);
}

#[test]
fn the_queues_of_peers_are_not_taken_for_ones_own() {
    let mut scene = Scene::new(1.25e6, 7);
    scene.behind = 0.08;
    let seen = scene.run(8);
    assert_full(&seen);
}

#[test]
fn peers_that_echo_nothing_are_known_by_their_round_trips() {
    let mut scene = Scene::new(1.25e6, 7);
    scene.echoes = false;
    let seen = scene.run(9);
    assert_full(&seen);
}

#[test]
fn the_uplink_stays_full_while_few_have_something_to_send_and_others_every_moment() {
    let mut lost = 0.0;
    for seed in 10..20 {
        let mut scene = Scene::new(1.25e6, 7);
        scene.at_a_time = Some(3);
        let seen = scene.run(seed);
        assert!(seen.used > 0.98, "seed {seed}: {} used", seen.used);
        lost += seen.lost / 10.0;
    }
    assert!(lost < 0.05, "{lost} lost");
}

#[test]
fn packets_that_are_lost_by_themselves_slow_nothing_down() {
    for loss in [0.005, 0.015] {
        let mut scene = Scene::new(2.5e6, 4);
        scene.random_loss = loss;
        let seen = scene.run(4);
        assert!(seen.used > 0.95 - loss, "{loss}: {} used", seen.used);
    }
}

#[test]
fn a_peer_with_a_slow_line_holds_up_no_other() {
    let mut scene = Scene::new(2.5e6, 4);
    scene.senders[0].2 = Some(100e3);
    let seen = scene.run(5);
    assert!(seen.used > 0.95, "{} used", seen.used);
    let own = seen.each[0] as f64 / (20.0 - FROM);
    assert!(own > 80e3, "{own} B/s of 100,000");
}

#[test]
fn far_and_near_peers_fill_it_together() {
    let mut scene = Scene::new(2.5e6, 5);
    for (sender, base) in scene.senders.iter_mut().zip([0.01, 0.03, 0.06, 0.12, 0.25]) {
        sender.0 = base;
    }
    let seen = scene.run(6);
    assert!(seen.used > 0.95, "{} used", seen.used);
    assert!(seen.queue < 0.06, "{} s of queue", seen.queue);
    assert!(seen.lost < 0.005, "{} lost", seen.lost);
}

#[test]
fn a_standing_queue_is_not_taken_for_distance() {
    let mut scene = Scene::new(1.25e6, 6);
    scene.secs = 180.0;
    for (i, sender) in scene.senders.iter_mut().enumerate() {
        sender.1 = i as f64 * 20.0;
    }
    let seen = scene.run(7);
    assert!(seen.queue < 0.06, "{} s of queue", seen.queue);
    assert!(seen.lost < 0.005, "{} lost", seen.lost);
}
