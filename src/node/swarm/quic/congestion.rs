//! How much a far connection may have on its way.
//!
//! Two windows hold at once, the lesser counts: the one that all far connections share (`uplink.rs`), and this connection's own, which looks for what the path to the
//! peer bears beyond that: it doubles each round trip until a queue builds up, and then follows the part of the delay that the others do not see. Packets that are lost
//! by themselves, as on wireless lines, slow nothing down. A queue is what `transit.rs` says it is, where the peer echoes; else what the round trip takes longer.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use libp2p::PeerId;
use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;

use super::{
    config::ACK_PACKETS,
    transit::Transit,
    uplink::{Member, Report, Uplink},
    weights::{Weight, Weights},
};

/// Packets that may be on their way before anything is known…
const INITIAL_PACKETS: u64 = 48;
/// …in the round trip after one in which hardly any were…
const IDLE_PACKETS: u64 = 20;
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
/// How late few packets may be acknowledged, in seconds.
const ACK_LATE: f64 = 0.025;
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
/// Probes are sent so many times in a round trip, and no sooner one after another than this, in seconds.
const PROBES: f64 = 1.0;
const PROBES_DOUBLING: f64 = 4.0;
const PROBE_MIN: f64 = 0.01;
/// A round trip without an echo is waited out this many times.
const ECHO_ROUNDS: f64 = 3.0;
/// What a round trip takes longer by more than this counts as queue whatever the peer echoes, in seconds: nobody has us send more than an uplink bears.
const ELSEWHERE: f64 = 0.2;
/// A datagram of fewer bytes is an acknowledgement, which counts as on its way nowhere.
const ACK_BYTES: u64 = 300;

/// What a connection takes beyond what may be on its way: so many times that, and so many bytes at the least and at the most. What it has taken cannot be taken
/// back, and goes out before anything else.
const UNSENT: u64 = 2;
const UNSENT_MIN: u64 = 16 * 1024;
const UNSENT_MAX: u64 = 128 * 1024;
/// For so long after a loss no less than may be on its way: quinn keeps all that came after a lost packet until that packet has come too, and the line would run
/// empty meanwhile.
const AFTER_LOSS: Duration = Duration::from_secs(10);

/// What a connection may take from its streams and keep until it has come. Bytes.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    bytes: AtomicU64,
    /// What was made of it last.
    applied: AtomicU64,
}

impl Allowance {
    /// What was made of it last.
    pub(super) fn applied(&self) -> u64 {
        self.applied.load(Relaxed)
    }

    /// What it may take, if that is so different from what it was last time that it is worth doing something about.
    pub(super) fn changed(&self) -> Option<u64> {
        let (bytes, applied) = (self.bytes.load(Relaxed), self.applied.load(Relaxed));
        let changed = bytes.abs_diff(applied) > applied / 16;
        changed.then(|| {
            self.applied.store(bytes, Relaxed);
            bytes
        })
    }
}

/// What the controller of a far connection shares with its streams and with whoever sends probes.
#[derive(Debug, Default)]
pub(super) struct Far {
    pub(super) allowance: Allowance,
    pub(super) transit: Arc<Transit>,
    weight: Arc<Weight>,
    weights: Weights,
}

impl Far {
    pub(super) fn new(weights: Weights) -> Self {
        Self {
            weights,
            ..Self::default()
        }
    }

    /// The connection turns out to be to `peer`.
    pub(super) fn is_to(&self, peer: PeerId) {
        self.weights.add(peer, &self.weight);
    }
}

#[cfg(test)]
impl Far {
    /// As if it might take so many bytes.
    pub(super) fn allowing(bytes: u64) -> Self {
        let far = Self::default();
        far.allowance.bytes.store(bytes, Relaxed);
        far
    }
}

/// Makes the controller of one connection.
pub(super) struct Factory {
    uplink: Arc<Uplink>,
    far: Arc<Far>,
}

impl Factory {
    pub(super) fn new(uplink: Arc<Uplink>, far: Arc<Far>) -> Self {
        Self { uplink, far }
    }
}

impl ControllerFactory for Factory {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        let member = Member::new(Arc::clone(&self.uplink));
        Box::new(Congestion::new(member, Arc::clone(&self.far), now, mtu))
    }
}

/// See the module.
#[derive(Clone)]
struct Congestion {
    member: Member,
    far: Arc<Far>,
    mtu: u64,
    window: u64,
    doubling: bool,
    /// The round trip, and the way there, which is beyond by the difference of two clocks.
    base: Least,
    there: Least,
    /// What a round trip took with the queue that all have in common, in seconds.
    whole: Option<f64>,
    probed: Option<Instant>,
    /// When the window was last made smaller for what was lost, or since it was full: what was sent before says nothing of it.
    cut: Option<Instant>,
    /// When anything was last lost.
    lost: Option<Instant>,
    round: Span,
    look: Span,
}

/// The least of the last while. Seconds.
#[derive(Clone, Copy)]
struct Least {
    since: Instant,
    now: f64,
    before: f64,
}

impl Least {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            now: f64::INFINITY,
            before: f64::INFINITY,
        }
    }

    fn add(&mut self, now: Instant, secs: f64) {
        if now.duration_since(self.since) > BASE_FOR {
            self.since = now;
            self.before = self.now;
            self.now = secs;
        }
        self.now = self.now.min(secs);
    }

    /// None before the first.
    fn get(&self) -> Option<f64> {
        Some(self.now.min(self.before)).filter(|least| least.is_finite())
    }
}

/// What was seen since a moment.
#[derive(Clone, Copy)]
struct Span {
    since: Instant,
    /// The least round trip, and the least way there, in seconds.
    least: f64,
    there: f64,
    /// The ways there together, and how many.
    theres: (f64, u32),
    packets: u32,
    /// Bytes times their round trip.
    byte_secs: f64,
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
            least: f64::INFINITY,
            there: f64::INFINITY,
            theres: (0.0, 0),
            packets: 0,
            byte_secs: 0.0,
            acked: 0,
            lost: 0,
            limited: false,
            most: 0,
        }
    }

    fn add(&mut self, rtt: f64, bytes: u64, limited: bool) {
        self.least = self.least.min(rtt);
        self.packets += 1;
        self.byte_secs += rtt * bytes as f64;
        self.acked += bytes;
        self.limited |= limited;
    }

    fn add_there(&mut self, secs: f64) {
        self.there = self.there.min(secs);
        self.theres.0 += secs;
        self.theres.1 += 1;
    }

    fn secs(&self, now: Instant) -> f64 {
        now.duration_since(self.since).as_secs_f64()
    }

    /// The mean round trip, in seconds.
    fn mean(&self) -> f64 {
        self.byte_secs / self.acked.max(1) as f64
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
    fn new(member: Member, far: Arc<Far>, now: Instant, mtu: u16) -> Self {
        let mtu = u64::from(mtu);
        let this = Self {
            member,
            far,
            mtu,
            window: INITIAL_PACKETS * mtu,
            doubling: true,
            base: Least::new(now),
            there: Least::new(now),
            whole: None,
            probed: None,
            cut: None,
            lost: None,
            round: Span::new(now),
            look: Span::new(now),
        };
        this.tell(now);
        this
    }

    fn min(&self) -> u64 {
        MIN_PACKETS * self.mtu
    }

    fn tell(&self, now: Instant) {
        let lossy = self.lost.is_some_and(|at| now.duration_since(at) < AFTER_LOSS);
        let window = self.window();
        let unsent = (window * UNSENT).clamp(UNSENT_MIN, UNSENT_MAX);
        let beyond = if lossy { unsent.max(window) } else { unsent };
        self.far.allowance.bytes.store(window + beyond, Relaxed);
    }

    fn on_acked(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool) {
        let rtt = now.duration_since(sent).as_secs_f64();
        self.base.add(now, rtt);
        self.take_samples(now);
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

    /// The round trip without queues, in seconds; zero if it is not known.
    fn base(&self) -> f64 {
        self.base.get().unwrap_or(0.0)
    }

    /// How long the queue between here and the peer was, in seconds.
    fn queue(&self, seen: &Span) -> f64 {
        let longer = (seen.least - self.base()).max(0.0);
        match self.there.get() {
            Some(least) if seen.there.is_finite() => (seen.there - least).max(longer - ELSEWHERE).min(longer),
            _ => longer,
        }
    }

    /// What the mean round trip takes besides that queue: where nothing is known but round trips, what the shortest took.
    fn rest(&self, seen: &Span) -> f64 {
        let rest = match (self.there.get(), seen.theres) {
            (Some(least), (all, count)) if count > 0 => seen.mean() - (all / f64::from(count) - least),
            _ => 0.0,
        };
        rest.max(seen.least - self.queue(seen)).max(0.0)
    }

    /// Whether an echo will say more of `span`.
    fn awaits_echo(&self, span: &Span, now: Instant) -> bool {
        self.there.get().is_some() && span.there.is_infinite() && span.secs(now) < ECHO_ROUNDS * self.base()
    }

    fn take_samples(&mut self, now: Instant) {
        for secs in self.far.transit.samples() {
            self.there.add(now, secs);
            self.round.add_there(secs);
            self.look.add_there(secs);
        }
        let often = if self.doubling { PROBES_DOUBLING } else { PROBES };
        let every = Duration::from_secs_f64((self.base() / often).max(PROBE_MIN));
        if self.probed.is_none_or(|at| now.duration_since(at) >= every) {
            self.probed = Some(now);
            self.far.transit.probe();
        }
    }

    /// Stops doubling as soon as the path is full.
    fn look_for_the_end(&mut self, now: Instant) {
        let (base, span) = (self.base(), self.look.secs(now));
        if span < base / LOOKS || self.look.packets < LOOK_PACKETS || self.awaits_echo(&self.look, now) {
            return;
        }
        let look = std::mem::replace(&mut self.look, Span::new(now));
        let alone = !self.member.uplink().is_bound();
        let queue = self.queue(&look);
        let enough = if alone { full(base) } else { OWN_QUEUE };
        // So few may all have come in one acknowledgement, and that late.
        let late = if look.there.is_infinite() && look.packets < 2 * ACK_PACKETS {
            ACK_LATE
        } else {
            0.0
        };
        if !look.limited || queue <= enough + late {
            return;
        }
        self.doubling = false;
        self.cut = Some(now);
        let rate = look.acked as f64 / span;
        // Half of it has found no queue a round trip ago.
        let fitting = (rate * (base + OWN_QUEUE)).max(look.most as f64 / 2.0);
        self.window = (fitting as u64).min(self.window).max(self.min());
        self.report(now, base, rate, &look, false, alone);
        self.round = Span::new(now);
    }

    fn end_round(&mut self, now: Instant) {
        if self.awaits_echo(&self.round, now) {
            return;
        }
        let round = std::mem::replace(&mut self.round, Span::new(now));
        let (base, span) = (self.base(), round.secs(now));
        if round.packets == 0 || span <= 0.0 {
            return;
        }
        let (queue, loss) = (self.queue(&round), round.loss());
        let many = loss > LOSS && round.lost > LOST_PACKETS * self.mtu;
        let lossy = many && (queue > full(base) || loss > HEAVY_LOSS);
        let rate = round.acked as f64 / span;
        let common = self.report(now, span, rate, &round, lossy, false);
        let window = self.window as f64;
        if lossy {
            self.doubling = false;
            let part = if loss > HEAVY_LOSS { ON_HEAVY_LOSS } else { ON_LOSS };
            self.window = (window * part) as u64;
            self.cut = Some(now);
        } else if !self.doubling {
            let own = (queue - common).max(0.0);
            let fitting = window * (base + OWN_QUEUE) / (base + own).max(f64::MIN_POSITIVE);
            if fitting < window || round.limited {
                let grown = if own < OWN_QUEUE / 4.0 {
                    f64::INFINITY
                } else {
                    window + STEP * (fitting - window)
                };
                self.window = grown.min(window * GROWTH) as u64;
            }
            // What was not used is not known to fit.
            self.window = self.window.min((2 * round.most).max(IDLE_PACKETS * self.mtu));
        }
        self.window = self.window.max(self.min());
        tracing::trace!(
            window = self.window,
            shared = self.member.window(self.whole, self.far.weight.get()),
            on_its_way = round.most,
            doubling = self.doubling,
            kb_s = (rate / 1e3) as u64,
            base_ms = base * 1e3,
            queue_ms = queue * 1e3,
            common_ms = common * 1e3,
            longer_ms = (round.least - base) * 1e3,
            loss,
            limited = round.limited,
            "round trip"
        );
    }

    fn report(&mut self, now: Instant, span: f64, rate: f64, seen: &Span, lossy: bool, filled: bool) -> f64 {
        let queue = self.queue(seen);
        let report = Report {
            rate,
            queue,
            least: (seen.least - queue).max(0.0),
            base: self.base(),
            rest: self.rest(seen),
            most: seen.most,
            counts_for: Duration::from_secs_f64((span * REPORT_ROUNDS).clamp(REPORT_MIN, 60.0)),
            limited: seen.limited,
            lossy,
            filled,
            weight: self.far.weight.get(),
        };
        let common = self.member.report(now, report, self.min());
        self.whole = Some(report.rest + common);
        common
    }
}

impl Controller for Congestion {
    fn on_sent(&mut self, now: Instant, bytes: u64, _: u64) {
        // An acknowledgement alone may go while the probe waits for room.
        if self.far.transit.waits() && (bytes > ACK_BYTES || self.member.in_flight() + self.mtu <= self.window()) {
            self.far.transit.sent(now);
        }
        if bytes > ACK_BYTES {
            self.member.set_in_flight(self.member.in_flight() + bytes);
            self.round.most = self.round.most.max(self.member.in_flight());
            self.look.most = self.look.most.max(self.member.in_flight());
        }
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, _: &RttEstimator) {
        self.on_acked(now, sent, bytes, app_limited);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, _: bool, _: Option<u64>) {
        self.member.set_in_flight(in_flight);
        self.tell(now);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost: u64) {
        self.lost = Some(now);
        if self.cut.is_none_or(|cut| sent > cut) {
            self.round.lost += lost;
        }
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
        self.window
            .min(self.member.window(self.whole, self.far.weight.get()))
            .max(self.min())
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
