//! How much a far connection may have on its way.
//!
//! Two windows hold at once, the lesser counts: the one that all far connections share (`uplink.rs`), and this connection's own, which looks for what the path to the
//! peer bears beyond that: it doubles each round trip until a queue builds up, and then follows the part of the delay that the others do not see. Packets that are lost
//! by themselves, as on wireless lines, slow nothing down.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;

use super::{
    config::{ACK_DELAY, ACK_PACKETS},
    uplink::{Member, Report, Uplink},
};

/// Packets that may be on their way before anything is known…
const INITIAL_PACKETS: u64 = 20;
/// …and always.
const MIN_PACKETS: u64 = 4;
/// What a connection may add to the delay that all have in common, in seconds.
const OWN_QUEUE: f64 = 0.040;
/// How much of the way to the window that fits is gone in one round trip, and by how much it grows at the most.
const STEP: f64 = 0.5;
const GROWTH: f64 = 1.5;
/// Where nothing is known of the uplink, a queue of so many round trips tells that it is full; within these bounds, in seconds.
const FULL: f64 = 0.125;
const FULL_MIN: f64 = 0.004;
const FULL_MAX: f64 = 0.016;
/// While it doubles, the delay is looked at several times in a round trip; a packet that was late tells nothing.
const LOOKS: f64 = 4.0;
const LOOK_PACKETS: u32 = 8;
/// Losing more than this part says that there was too much on its way, if there is a queue…
const LOSS: f64 = 0.02;
/// …or, whatever the queue, this part.
const HEAVY_LOSS: f64 = 0.1;
const ON_LOSS: f64 = 0.85;
const ON_HEAVY_LOSS: f64 = 0.7;
/// Fewer lost packets in one round trip are no sign of anything.
const LOST_PACKETS: u64 = 4;
/// For how long the least round trip counts, at the least; at the most twice that.
const BASE_FOR: Duration = Duration::from_secs(30);
/// A report counts for so many round trips, and no less than this.
const REPORT_ROUNDS: f64 = 3.0;
const REPORT_MIN: f64 = 0.4;
/// A datagram of fewer bytes is an acknowledgement, which counts as on its way nowhere.
const ACK_BYTES: u64 = 300;

/// What a connection may have on its way now, for whoever writes to it. Bytes.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    bytes: AtomicU64,
    /// What was made of it last.
    applied: AtomicU64,
}

impl Allowance {
    /// What may be on its way, if that is so different from what it was last time that it is worth doing something about.
    pub(super) fn changed(&self) -> Option<u64> {
        let (bytes, applied) = (self.bytes.load(Relaxed), self.applied.load(Relaxed));
        let changed = bytes.abs_diff(applied) > applied / 16;
        changed.then(|| {
            self.applied.store(bytes, Relaxed);
            bytes
        })
    }
}

/// Makes the controller of one connection.
pub(super) struct Factory {
    uplink: Arc<Uplink>,
    allowance: Arc<Allowance>,
}

impl Factory {
    pub(super) fn new(uplink: Arc<Uplink>, allowance: Arc<Allowance>) -> Self {
        Self { uplink, allowance }
    }
}

impl ControllerFactory for Factory {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        let member = Member::new(Arc::clone(&self.uplink));
        Box::new(Congestion::new(member, Arc::clone(&self.allowance), now, mtu))
    }
}

/// See the module.
#[derive(Clone)]
struct Congestion {
    member: Member,
    allowance: Arc<Allowance>,
    mtu: u64,
    window: u64,
    doubling: bool,
    base: Least,
    round: Span,
    look: Span,
}

/// The least round trip of the last while.
#[derive(Clone, Copy)]
struct Least {
    since: Instant,
    now: Duration,
    before: Duration,
}

impl Least {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            now: Duration::MAX,
            before: Duration::MAX,
        }
    }

    fn add(&mut self, now: Instant, rtt: Duration) {
        if now.duration_since(self.since) > BASE_FOR {
            self.since = now;
            self.before = self.now;
            self.now = rtt;
        }
        self.now = self.now.min(rtt);
    }

    /// In seconds; zero before the first round trip.
    fn secs(&self) -> f64 {
        let least = self.now.min(self.before);
        if least == Duration::MAX {
            0.0
        } else {
            least.as_secs_f64()
        }
    }
}

/// What was seen since a moment.
#[derive(Clone, Copy)]
struct Span {
    since: Instant,
    least: Duration,
    packets: u32,
    acked: u64,
    lost: u64,
    limited: bool,
    /// The most that was on its way.
    most: u64,
}

impl Span {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            least: Duration::MAX,
            packets: 0,
            acked: 0,
            lost: 0,
            limited: false,
            most: 0,
        }
    }

    fn add(&mut self, rtt: Duration, bytes: u64, limited: bool) {
        self.least = self.least.min(rtt);
        self.packets += 1;
        self.acked += bytes;
        self.limited |= limited;
    }

    fn secs(&self, now: Instant) -> f64 {
        now.duration_since(self.since).as_secs_f64()
    }

    /// The delay beyond `base`, in seconds.
    fn queue(&self, base: f64) -> f64 {
        (self.least.as_secs_f64() - base).max(0.0)
    }

    /// The part that was lost.
    fn loss(&self) -> f64 {
        self.lost as f64 / (self.lost + self.acked).max(1) as f64
    }
}

/// The queue that says that a path of which nothing is known is full, in seconds.
fn full(base: f64) -> f64 {
    (base * FULL).clamp(FULL_MIN, FULL_MAX)
}

impl Congestion {
    fn new(member: Member, allowance: Arc<Allowance>, now: Instant, mtu: u16) -> Self {
        let mtu = u64::from(mtu);
        let this = Self {
            member,
            allowance,
            mtu,
            window: INITIAL_PACKETS * mtu,
            doubling: true,
            base: Least::new(now),
            round: Span::new(now),
            look: Span::new(now),
        };
        this.tell();
        this
    }

    fn min(&self) -> u64 {
        MIN_PACKETS * self.mtu
    }

    fn tell(&self) {
        self.allowance.bytes.store(self.window(), Relaxed);
    }

    fn on_acked(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool) {
        let rtt = now.duration_since(sent);
        self.base.add(now, rtt);
        self.member.add_acked(bytes);
        self.round.add(rtt, bytes, !app_limited);
        self.look.add(rtt, bytes, !app_limited);
        if self.doubling {
            if !app_limited && self.member.in_flight() * 2 > self.window {
                self.window += bytes;
            }
            self.look_for_the_end(now);
        }
        // A round trip is over when something comes back that was sent after it began.
        if sent >= self.round.since {
            self.end_round(now);
        }
    }

    /// Stops doubling as soon as the path is full.
    fn look_for_the_end(&mut self, now: Instant) {
        let (base, span) = (self.base.secs(), self.look.secs(now));
        if span < base / LOOKS || self.look.packets < LOOK_PACKETS {
            return;
        }
        let look = std::mem::replace(&mut self.look, Span::new(now));
        let alone = !self.member.uplink().is_bound();
        let queue = look.queue(base);
        let enough = if alone { full(base) } else { OWN_QUEUE };
        // So few may all have come in one acknowledgement, and that late.
        let late = if look.packets < 2 * ACK_PACKETS {
            ACK_DELAY.as_secs_f64()
        } else {
            0.0
        };
        if !look.limited || queue <= enough + late {
            return;
        }
        self.doubling = false;
        let rate = look.acked as f64 / span;
        let fitting = (rate * (base + OWN_QUEUE)) as u64;
        self.window = fitting.min(self.window).max(self.min());
        self.report(now, base, rate, &look, false, alone);
        self.round = Span::new(now);
    }

    fn end_round(&mut self, now: Instant) {
        let round = std::mem::replace(&mut self.round, Span::new(now));
        let (base, span) = (self.base.secs(), round.secs(now));
        if round.packets == 0 || span <= 0.0 {
            return;
        }
        let (queue, loss) = (round.queue(base), round.loss());
        let many = loss > LOSS && round.lost > LOST_PACKETS * self.mtu;
        let lossy = many && (queue > full(base) || loss > HEAVY_LOSS);
        let rate = round.acked as f64 / span;
        let common = self.report(now, span, rate, &round, lossy, false);
        let window = self.window as f64;
        if lossy {
            self.doubling = false;
            let part = if loss > HEAVY_LOSS { ON_HEAVY_LOSS } else { ON_LOSS };
            self.window = (window * part) as u64;
        } else if !self.doubling {
            let own = (queue - common).max(0.0);
            let fitting = window * (base + OWN_QUEUE) / (base + own).max(f64::MIN_POSITIVE);
            if fitting < window || round.limited {
                self.window = (window + STEP * (fitting - window)).min(window * GROWTH) as u64;
            }
            // What was not used is not known to fit.
            self.window = self.window.min((2 * round.most).max(INITIAL_PACKETS * self.mtu));
        }
        self.window = self.window.max(self.min());
        tracing::trace!(
            window = self.window,
            shared = self.member.window(),
            on_its_way = round.most,
            doubling = self.doubling,
            kb_s = (rate / 1e3) as u64,
            base_ms = base * 1e3,
            queue_ms = queue * 1e3,
            common_ms = common * 1e3,
            loss,
            limited = round.limited,
            "round trip"
        );
    }

    fn report(&self, now: Instant, span: f64, rate: f64, seen: &Span, lossy: bool, filled: bool) -> f64 {
        let base = self.base.secs();
        let report = Report {
            rate,
            queue: seen.queue(base),
            base,
            most: seen.most,
            counts_for: Duration::from_secs_f64((span * REPORT_ROUNDS).clamp(REPORT_MIN, 60.0)),
            limited: seen.limited,
            lossy,
            filled,
        };
        self.member.report(now, report, self.min())
    }
}

impl Controller for Congestion {
    fn on_sent(&mut self, _: Instant, bytes: u64, _: u64) {
        if bytes > ACK_BYTES {
            self.member.set_in_flight(self.member.in_flight() + bytes);
            self.round.most = self.round.most.max(self.member.in_flight());
            self.look.most = self.look.most.max(self.member.in_flight());
        }
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, _: &RttEstimator) {
        self.on_acked(now, sent, bytes, app_limited);
    }

    fn on_end_acks(&mut self, _: Instant, in_flight: u64, _: bool, _: Option<u64>) {
        self.member.set_in_flight(in_flight);
        self.tell();
    }

    fn on_congestion_event(&mut self, now: Instant, _: Instant, persistent: bool, lost: u64) {
        self.round.lost += lost;
        if persistent {
            self.window = self.min();
            self.doubling = true;
            self.round = Span::new(now);
            self.look = Span::new(now);
        }
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.mtu = u64::from(mtu);
    }

    fn window(&self) -> u64 {
        self.window.min(self.member.window()).max(self.min())
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        INITIAL_PACKETS * self.mtu
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests;
