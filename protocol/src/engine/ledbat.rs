//! How much to upload without being felt: the delay that uploads add is kept near a target.
//!
//! An uplink that is asked for more than it carries fills the queue in front of it, and everything else in the house waits behind that. The
//! queue shows in round trips: what they take beyond the least that was seen lately. [`Ledbat`] raises the rate gently while that is below
//! [`TARGET`], and lowers it by a share when it is above (RFC 6817, and LEDBAT++'s slow start and slow-downs; by rate and not by window, since it is one
//! limit for all connections).

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use super::ids::ConnId;
use crate::time::Timestamp;

/// Decides how much is uploaded from what round trips tell. The engine feeds it, and asks it at least once a second.
pub trait UploadController: fmt::Debug + Send + Sync {
    /// A round trip was measured on a connection that goes through the uplink.
    fn on_rtt_sample(&mut self, now: Timestamp, conn: ConnId, rtt: Duration);
    /// So many bytes of payload were written to such connections.
    fn on_sent(&mut self, now: Timestamp, bytes: u64);
    /// A connection has ended.
    fn on_gone(&mut self, conn: ConnId);
    /// Bytes a second that may be uploaded; none: unlimited.
    fn limit(&mut self, now: Timestamp) -> Option<u64>;
}

/// The delay that uploads may add.
const TARGET: Duration = Duration::from_millis(80);
/// It begins here…
const INITIAL: f64 = 64_000.0;
/// …and never goes below, so that trading goes on.
const MIN: f64 = 8_000.0;
const MAX: f64 = 1e9;
/// Until a first queue is seen, the rate grows by this factor a second.
const STARTING: f64 = 1.8;
/// Then by this much at most, relative, a second.
const GAIN: f64 = 0.10;
/// A step down takes away so much of the rate for each target's worth of delay beyond the target…
const DECREASE: f64 = 0.25;
/// …but never more than to this part.
const DECREASE_MAX: f64 = 0.5;
/// A step down is followed by another only after this: round trips must see the first one.
const SETTLE: Duration = Duration::from_millis(1500);
/// Least round trips are kept for this many windows…
const WINDOWS: usize = 10;
/// …of this length: a path that became longer is the new base by then.
const WINDOW: Duration = Duration::from_secs(60);
/// A sample says nothing any more after this.
const FRESH: Duration = Duration::from_secs(4);
/// The rate is lowered so often for [`SLOW_FOR`], so that the queue drains and the base can be seen.
const SLOW_EVERY: Duration = Duration::from_secs(120);
const SLOW_FOR: Duration = Duration::from_secs(3);
const SLOW_TO: f64 = 0.25;
/// Growth needs a limit that is used: so much of it must have been sent.
const USED: f64 = 0.7;
/// Connections of which round trips are kept.
const MAX_CONNS: usize = 256;

/// The round trips of one connection.
#[derive(Clone, Debug, Default)]
struct Path {
    /// The least of each window, the newest last.
    least: VecDeque<Duration>,
    window_began: Timestamp,
    latest: Duration,
    at: Timestamp,
}

impl Path {
    fn add(&mut self, now: Timestamp, rtt: Duration) {
        if self.least.is_empty() || now.since(self.window_began) >= WINDOW {
            self.window_began = now;
            self.least.push_back(rtt);
            if self.least.len() > WINDOWS {
                self.least.pop_front();
            }
        }
        if let Some(least) = self.least.back_mut() {
            *least = (*least).min(rtt);
        }
        (self.latest, self.at) = (rtt, now);
    }

    /// What its last round trip took beyond the least.
    fn queue(&self) -> Duration {
        let base = self.least.iter().min().copied().unwrap_or_default();
        self.latest.saturating_sub(base)
    }
}

/// Keeps the delay that our uploads add near a target (RFC 6817).
#[derive(Clone, Debug)]
pub struct Ledbat {
    rate: f64,
    starting: bool,
    paths: BTreeMap<ConnId, Path>,
    /// When the rate was last thought about.
    at: Option<Timestamp>,
    sent: f64,
    lowered_at: Option<Timestamp>,
    slow_next: Timestamp,
}

impl Default for Ledbat {
    fn default() -> Self {
        Self {
            rate: INITIAL,
            starting: true,
            paths: BTreeMap::new(),
            at: None,
            sent: 0.0,
            lowered_at: None,
            slow_next: Timestamp::ZERO,
        }
    }
}

impl Ledbat {
    /// The delay that is common to all paths: one peer's own queue shows in its round trips only.
    fn queue(&self, now: Timestamp) -> Option<Duration> {
        let fresh = self.paths.values().filter(|path| now.since(path.at) < FRESH);
        fresh.map(Path::queue).min()
    }

    fn adjust(&mut self, now: Timestamp, elapsed: f64) {
        let sent = std::mem::take(&mut self.sent) / elapsed;
        let Some(queue) = self.queue(now) else { return };
        let off = 1.0 - queue.as_secs_f64() / TARGET.as_secs_f64();
        if self.starting && off < 0.5 {
            self.starting = false;
        }
        let settling = self.lowered_at.is_some_and(|at| now.since(at) < SETTLE);
        if off < 0.0 {
            if !settling {
                // What was sent in truth, if the limit was above it by far.
                let from = self.rate.min((sent * 1.5).max(MIN));
                self.rate = from * (1.0 + DECREASE * off).max(DECREASE_MAX);
                self.lowered_at = Some(now);
            }
        } else if !settling && sent >= self.rate * USED {
            let by = if self.starting { STARTING } else { 1.0 + GAIN * off };
            self.rate *= by.powf(elapsed);
        }
        self.rate = self.rate.clamp(MIN, MAX);
    }
}

impl UploadController for Ledbat {
    fn on_rtt_sample(&mut self, now: Timestamp, conn: ConnId, rtt: Duration) {
        if self.paths.len() < MAX_CONNS || self.paths.contains_key(&conn) {
            self.paths.entry(conn).or_default().add(now, rtt);
        }
    }

    fn on_sent(&mut self, _: Timestamp, bytes: u64) {
        self.sent += bytes as f64;
    }

    fn on_gone(&mut self, conn: ConnId) {
        self.paths.remove(&conn);
    }

    fn limit(&mut self, now: Timestamp) -> Option<u64> {
        let began = *self.at.get_or_insert_with(|| {
            self.slow_next = now + SLOW_EVERY;
            now
        });
        let elapsed = now.since(began);
        if elapsed >= Duration::from_secs(1) {
            self.at = Some(now);
            self.adjust(now, elapsed.as_secs_f64());
        }
        if now >= self.slow_next + SLOW_FOR {
            self.slow_next = now + SLOW_EVERY;
        }
        let slow = now >= self.slow_next;
        Some((self.rate * if slow { SLOW_TO } else { 1.0 }) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An uplink of `capacity` bytes a second with a queue in front, used by a controller and by `others`.
    struct Link {
        ledbat: Ledbat,
        now: Timestamp,
        queued: f64,
        /// Of that, what the controller let through.
        ours: f64,
        carried: f64,
        delays: Vec<f64>,
        random: u64,
    }

    const STEP: Duration = Duration::from_millis(10);
    /// Base round trips of three peers.
    const BASES: [u64; 3] = [20, 60, 140];

    impl Link {
        fn new(seed: u64) -> Self {
            Self {
                ledbat: Ledbat::default(),
                now: Timestamp::ZERO,
                queued: 0.0,
                ours: 0.0,
                carried: 0.0,
                delays: Vec::new(),
                random: seed,
            }
        }

        fn jitter(&mut self) -> u64 {
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.random >> 33) % 6000
        }

        /// Runs for `secs`, a ping a second on each connection; gives the share of the link used by uploads and the mean delay.
        fn run(&mut self, secs: u64, capacity: f64, others: f64) -> (f64, Duration) {
            let end = self.now + Duration::from_secs(secs);
            (self.carried, self.delays) = (0.0, Vec::new());
            let mut ping_at = self.now;
            let step = STEP.as_secs_f64();
            while self.now < end {
                self.now = self.now + STEP;
                let rate = self.ledbat.limit(self.now).expect("it always limits") as f64;
                let sent = rate * step;
                self.ledbat.on_sent(self.now, sent as u64);
                // Others do not yield, and fill the queue up to half a second, as a TCP upload does.
                let others = if self.queued < capacity / 2.0 {
                    others * step
                } else {
                    0.0
                };
                let before = self.queued + sent + others;
                let out = before.min(capacity * step);
                let share = (self.ours + sent) / before.max(1.0);
                self.carried += out * share;
                self.queued = (before - out).min(capacity * 2.0);
                self.ours = self.queued * share;
                let delay = self.queued / capacity;
                self.delays.push(delay);
                if self.now >= ping_at {
                    ping_at = ping_at + Duration::from_secs(1);
                    for (i, base) in BASES.into_iter().enumerate() {
                        let jitter = Duration::from_micros(self.jitter());
                        let rtt = Duration::from_millis(base) + jitter + Duration::from_secs_f64(delay);
                        self.ledbat.on_rtt_sample(self.now, ConnId(i as u64), rtt);
                    }
                }
            }
            let mean = self.delays.iter().sum::<f64>() / self.delays.len() as f64;
            (self.carried / (capacity * secs as f64), Duration::from_secs_f64(mean))
        }
    }

    #[test]
    fn links_of_any_rate_are_used_without_a_queue_that_is_felt() {
        for capacity in [60_000.0, 250_000.0, 1_250_000.0, 12_500_000.0] {
            for seed in 0..3 {
                let mut link = Link::new(seed);
                link.run(60, capacity, 0.0);
                let (used, delay) = link.run(240, capacity, 0.0);
                println!("{capacity} B/s, seed {seed}: {used:.3} used, {delay:?} of delay");
                assert!(used > 0.8, "{capacity}: {used} used");
                assert!(delay < TARGET * 5 / 4, "{capacity}: {delay:?}");
                let worst = link.delays.iter().copied().fold(0.0, f64::max);
                assert!(worst < 0.4, "{capacity}: {worst} s at worst");
            }
        }
    }

    #[test]
    fn a_link_that_changes_is_followed() {
        let mut link = Link::new(7);
        link.run(60, 1_250_000.0, 0.0);
        link.run(30, 400_000.0, 0.0);
        let (used, delay) = link.run(120, 400_000.0, 0.0);
        assert!(used > 0.8 && delay < TARGET * 5 / 4, "{used}, {delay:?}");
        link.run(60, 1_250_000.0, 0.0);
        let (used, delay) = link.run(120, 1_250_000.0, 0.0);
        assert!(used > 0.8 && delay < TARGET * 5 / 4, "{used}, {delay:?}");
    }

    #[test]
    fn others_that_fill_the_link_have_it() {
        let mut link = Link::new(3);
        link.run(60, 1_250_000.0, 0.0);
        link.run(20, 1_250_000.0, 2_000_000.0);
        let (used, _) = link.run(40, 1_250_000.0, 2_000_000.0);
        assert!(used < 0.1, "{used}");
        link.run(60, 1_250_000.0, 0.0);
        let (used, _) = link.run(60, 1_250_000.0, 0.0);
        assert!(used > 0.8, "{used} when they are gone");
    }

    #[test]
    fn what_is_not_used_does_not_grow() {
        let mut ledbat = Ledbat::default();
        let mut now = Timestamp::ZERO;
        for _ in 0..600 {
            now = now + Duration::from_millis(100);
            ledbat.on_rtt_sample(now, ConnId(1), Duration::from_millis(30));
            ledbat.on_sent(now, 100);
            assert_eq!(ledbat.limit(now), Some(INITIAL as u64));
        }
    }

    #[test]
    fn only_so_many_paths_are_kept() {
        let mut ledbat = Ledbat::default();
        for i in 0..1000 {
            ledbat.on_rtt_sample(Timestamp::ZERO, ConnId(i), TARGET);
        }
        assert_eq!(ledbat.paths.len(), MAX_CONNS);
        ledbat.on_gone(ConnId(0));
        assert_eq!(ledbat.paths.len(), MAX_CONNS - 1);
    }
}
