//! One window for all far connections, since what they share is the uplink.
//!
//! A connection of its own cannot know how much is on its way: seven that each keep a little in the modem's queue fill it, and seven of which four pause leave it
//! empty. So members tell what they see, and what may be on its way is set for all of them together, such that the queue that they see adds [`QUEUE`]: enough that
//! the uplink never idles, little enough that nothing is lost and that acknowledgements come soon. The way from there to the peers is each member's own affair.
//!
//! The delay-based law is FAST TCP's (Wei, Jin, Low, Hegde 2006), with the queue in time instead of bytes; letting it run empty now and then, so that a standing
//! queue is not taken for distance, is LEDBAT++'s (draft-irtf-iccrg-ledbat-plus-plus).

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// What is kept in the uplink's queue, in seconds.
const QUEUE: f64 = 0.040;
/// How much of the way to the window that fits is gone in one round trip.
const STEP: f64 = 0.5;
/// Part of the window that is given up when more than a few packets were lost.
const ON_LOSS: f64 = 0.15;
/// Bytes that one acknowledgement may be of.
const JUST_ACKED: u64 = 16 * 1024;
/// The part of the traffic that sees the least queue: its own paths to the peers are taken to be free.
const FREE: f64 = 0.25;
/// The queue is let run empty this often.
const EMPTY_EVERY: Duration = Duration::from_secs(20);
/// Part of what the path holds that is on its way meanwhile.
const WHILE_EMPTYING: f64 = 0.9;
/// The rate of all is measured over this.
const MEASURED_OVER: Duration = Duration::from_millis(100);
/// How far the sum of reports may be beyond that.
const BEYOND_MEASURED: f64 = 1.25;
/// Bytes that may be on their way before anything is known; from there it doubles.
const START: u64 = 96 * 1024;

/// What a member saw in its last round trip.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    /// Bytes a second that were acknowledged.
    pub(super) rate: f64,
    /// The queue on the way there, in seconds.
    pub(super) queue: f64,
    /// What the round trip takes besides, in seconds: its way, the queue of the peer's uplink, and how long the peer held acknowledgements back.
    pub(super) rest: f64,
    /// The same of the packets that came soonest, in seconds.
    pub(super) least: f64,
    /// The round trip without any of that, in seconds.
    pub(super) base: f64,
    /// The most that was on its way, in bytes.
    pub(super) most: u64,
    /// For how long this counts.
    pub(super) counts_for: Duration,
    /// Whether it would have sent more had it been let.
    pub(super) limited: bool,
    /// Whether more was lost than lines lose by themselves.
    pub(super) lossy: bool,
    /// Whether its first packets have just filled a queue.
    pub(super) filled: bool,
    /// How much faster than another's it is to go.
    pub(super) weight: f64,
}

/// See the module. Bytes.
#[derive(Debug)]
pub(super) struct Uplink {
    window: AtomicU64,
    /// Whether the members have filled it once.
    bound: AtomicBool,
    in_flight: AtomicU64,
    members: AtomicU64,
    /// What the round trips of all members take together, each by its weight, in microseconds.
    rounds: AtomicU64,
    /// Bytes that were acknowledged, ever.
    acked: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    reports: HashMap<u64, (Instant, Report)>,
    /// Until when the queue runs empty, and the window to go back to.
    emptying: Option<(Instant, u64)>,
    empty_next: Option<Instant>,
    /// When the rate of all was last looked at, what was acknowledged by then, and what it was: a sum of reports would count those who pause.
    measured: Option<(Instant, u64, f64)>,
}

impl State {
    /// Bytes a second of all members together: the `sum` of what they report, which is news, but not much beyond what was measured.
    fn rate(&mut self, now: Instant, acked: u64, sum: f64) -> f64 {
        let Some((since, before, rate)) = self.measured else {
            self.measured = Some((now, acked, sum));
            return sum;
        };
        let span = now.duration_since(since);
        let mut measured = rate;
        if span >= MEASURED_OVER {
            measured = (acked - before) as f64 / span.as_secs_f64();
            self.measured = Some((now, acked, measured));
        }
        // Who pauses reports less than it sent.
        sum.clamp(measured, measured * BEYOND_MEASURED)
    }
}

impl Default for Uplink {
    fn default() -> Self {
        Self {
            window: AtomicU64::new(START),
            bound: AtomicBool::new(false),
            in_flight: AtomicU64::new(0),
            members: AtomicU64::new(1),
            rounds: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }
}

impl Uplink {
    /// Whether the members have filled it yet.
    pub(super) fn is_bound(&self) -> bool {
        self.bound.load(Relaxed)
    }

    /// Takes a report in. The queue that all members have in common, in seconds.
    fn report(&self, id: u64, now: Instant, report: Report, least_each: u64) -> f64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.reports.insert(id, (now + report.counts_for, report));
        state.reports.retain(|_, (until, _)| *until > now);
        let all: Vec<Report> = state.reports.values().map(|(_, report)| *report).collect();
        let seen = Seen::of(all);
        self.members.store(seen.members, Relaxed);
        self.rounds.store(micros(seen.rounds), Relaxed);
        let least = seen.members * least_each;
        match state.emptying {
            Some((until, _)) if now < until => return seen.queue,
            Some((_, before)) => {
                state.emptying = None;
                self.window.store(before, Relaxed);
            }
            None => {}
        }
        let window = self.window.load(Relaxed);
        if !self.is_bound() {
            if report.filled || report.lossy || (report.limited && seen.queue > QUEUE) {
                self.bind(&seen, least);
                state.empty_next = Some(now + EMPTY_EVERY);
            }
            return seen.queue;
        }
        let in_flight = self.in_flight.load(Relaxed);
        // What was acknowledged just now was on its way too.
        let used = Used {
            half: in_flight >= window / 2,
            most: in_flight + JUST_ACKED >= window / 4 * 3,
        };
        let rate = state.rate(now, self.acked.load(Relaxed), seen.rate);
        let window = seen.adjust(window as f64, rate, &report, used) as u64;
        self.window.store(window.max(least), Relaxed);
        if state.empty_next.is_some_and(|at| now >= at) {
            state.empty_next = Some(now + EMPTY_EVERY);
            let lasts = Duration::from_secs_f64(seen.rest + QUEUE);
            state.emptying = Some((now + lasts, window.max(least)));
            let held = (rate * seen.least * WHILE_EMPTYING) as u64;
            self.window.store(held.clamp(least, window.max(least)), Relaxed);
        }
        seen.queue
    }

    /// Ends the doubling: somebody has seen a queue.
    fn bind(&self, seen: &Seen, least: u64) {
        let in_flight = self.in_flight.load(Relaxed) as f64;
        // Those who have not reported yet send as the others do; and half of it has found no queue a round trip ago.
        let unseen = in_flight / seen.in_flight.max(1) as f64;
        let fitting = (seen.fitting() * unseen.max(1.0)).max(in_flight / 2.0);
        self.window.store((fitting as u64).max(least), Relaxed);
        self.bound.store(true, Relaxed);
    }
}

fn micros(secs: f64) -> u64 {
    (secs * 1e6) as u64
}

/// How much of the window is on its way.
#[derive(Clone, Copy)]
struct Used {
    half: bool,
    most: bool,
}

/// The members' reports, put together.
struct Seen {
    members: u64,
    /// Bytes a second, and the most that was on its way, each member's by itself.
    rate: f64,
    in_flight: u64,
    /// What round trips take besides that, those of packets that came soonest, and those without any queue; means by traffic.
    rest: f64,
    least: f64,
    base: f64,
    /// All of that and the queue, of all of them together, each by its weight.
    rounds: f64,
    /// The queue that those see who see the least.
    queue: f64,
}

impl Seen {
    fn of(mut all: Vec<Report>) -> Self {
        let rate: f64 = all.iter().map(|report| report.rate).sum();
        let mean = |of: fn(&Report) -> f64| {
            let weighted: f64 = all.iter().map(|report| report.rate * of(report)).sum();
            if rate > 0.0 { weighted / rate } else { 0.0 }
        };
        let (rest, least, base) = (
            mean(|report| report.rest),
            mean(|report| report.least),
            mean(|report| report.base),
        );
        all.sort_unstable_by(|a, b| a.queue.total_cmp(&b.queue));
        let mut counted = 0.0;
        let freest = all.iter().find(|report| {
            counted += report.rate;
            counted >= rate * FREE
        });
        let queue = freest.map_or(0.0, |report| report.queue);
        Self {
            members: (all.len() as u64).max(1),
            rate,
            in_flight: all.iter().map(|report| report.most).sum(),
            rest,
            least,
            base,
            rounds: all.iter().map(|report| (report.rest + queue) * report.weight).sum(),
            queue,
        }
    }

    /// What fills the path and the queue as it should be, as far as can be told from a first look.
    fn fitting(&self) -> f64 {
        self.rate * (self.base + QUEUE)
    }

    /// The part of what is on its way that is not in the queue.
    fn free(&self) -> f64 {
        self.rest / (self.rest + self.queue).max(f64::MIN_POSITIVE)
    }

    /// The window after one member's `report`, who moves it by its part of the traffic, which is `rate`.
    fn adjust(&self, window: f64, rate: f64, report: &Report, used: Used) -> f64 {
        let part = if rate > 0.0 { (report.rate / rate).min(1.0) } else { 0.0 };
        if report.lossy {
            return window * (1.0 - ON_LOSS * part);
        }
        let change = STEP * (window * self.free() + rate * QUEUE - window);
        // A queue that was short while little was on its way says nothing of more.
        if !used.half || (change > 0.0 && !(report.limited && used.most)) {
            return window;
        }
        window + change * part
    }
}

/// One connection's part in an [`Uplink`].
#[derive(Debug)]
pub(super) struct Member {
    uplink: Arc<Uplink>,
    id: u64,
    in_flight: u64,
}

impl Member {
    pub(super) fn new(uplink: Arc<Uplink>) -> Self {
        let mut state = uplink.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.next_id += 1;
        let id = state.next_id;
        drop(state);
        Self {
            uplink,
            id,
            in_flight: 0,
        }
    }

    pub(super) fn uplink(&self) -> &Uplink {
        &self.uplink
    }

    /// Bytes of this connection that are on their way.
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    pub(super) fn set_in_flight(&mut self, bytes: u64) {
        let all = &self.uplink.in_flight;
        if bytes >= self.in_flight {
            all.fetch_add(bytes - self.in_flight, Relaxed);
        } else {
            all.fetch_sub(self.in_flight - bytes, Relaxed);
        }
        self.in_flight = bytes;
    }

    pub(super) fn add_acked(&self, bytes: u64) {
        let uplink = &self.uplink;
        uplink.acked.fetch_add(bytes, Relaxed);
        if !uplink.is_bound() && uplink.in_flight.load(Relaxed) * 2 >= uplink.window.load(Relaxed) {
            uplink.window.fetch_add(bytes, Relaxed);
        }
    }

    /// What this connection, whose round trip takes `round` seconds, may have on its way: what the others leave, and no less than its share, with which
    /// all of them send as fast as their weights say.
    pub(super) fn window(&self, round: Option<f64>, weight: f64) -> u64 {
        let window = self.uplink.window.load(Relaxed);
        let others = self.uplink.in_flight.load(Relaxed).saturating_sub(self.in_flight);
        let rounds = self.uplink.rounds.load(Relaxed);
        let share = match round {
            Some(round) if rounds > 0 => {
                (window as f64 * (micros(round * weight) as f64 / rounds as f64).min(1.0)) as u64
            }
            _ => window / self.uplink.members.load(Relaxed).max(1),
        };
        window.saturating_sub(others).max(share)
    }

    /// Tells what was seen in a round trip. The queue that all have in common, in seconds; `least` is what each may have on its way at the least, in bytes.
    pub(super) fn report(&self, now: Instant, report: Report, least: u64) -> f64 {
        self.uplink.report(self.id, now, report, least)
    }
}

impl Clone for Member {
    /// Another connection to the same uplink.
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.uplink))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.set_in_flight(0);
        let mut state = self.uplink.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.reports.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_send_as_fast_as_their_weights_say_however_far_their_peers_are() {
        for weights in [[1.0, 1.0], [1.0, 3.0], [4.0, 0.5]] {
            let uplink = Arc::new(Uplink::default());
            let rests = [0.030, 0.240];
            let mut members = rests.map(|_| Member::new(Arc::clone(&uplink)));
            let now = Instant::now();
            for ((member, rest), weight) in members.iter().zip(rests).zip(weights) {
                let report = Report {
                    rate: 1e5,
                    queue: 0.0,
                    rest,
                    least: rest,
                    base: rest,
                    most: 10_000,
                    counts_for: Duration::from_secs(60),
                    limited: true,
                    lossy: false,
                    filled: false,
                    weight,
                };
                member.report(now, report, 1);
            }
            // Each has all that may be on its way wherever the others leave it nothing.
            let all = uplink.window.load(Relaxed);
            let fair = all as f64 / (rests[0] * weights[0] + rests[1] * weights[1]);
            for i in [0, 1] {
                members[1 - i].set_in_flight(all);
                let rate = members[i].window(Some(rests[i]), weights[i]) as f64 / rests[i];
                let fair = fair * weights[i];
                assert!((rate / fair - 1.0).abs() < 0.01, "{rate} of {fair}");
                members[1 - i].set_in_flight(0);
            }
        }
    }
}
