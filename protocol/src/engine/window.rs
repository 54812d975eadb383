//! How many bytes may be on request from one connection, and when it has gone silent.
//!
//! The window follows what the path delivers: it doubles each round trip until the rate stops growing, and is then the measured
//! rate times round trip plus [`SLACK`], so that the path never idles and never holds more than about a second of requests. What is fast needs
//! less time: all connections together have no more than [`SLACK_BYTES`] on request beyond their round trips (but for a few blocks each, and what is asked for before a rate is known), for where our own disk is what
//! they wait for, all of it lies in our memory.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Timestamp;

/// Bytes on request from a peer of which nothing is known.
const INITIAL: u64 = 256 * 1024;
/// The window never falls below this, so that there is always a next request under way.
const MIN: u64 = 32 * 1024;
/// The window never grows past this.
const MAX: u64 = 32 * 1024 * 1024;
/// How much of a path's rate is kept on request beyond a round trip: covers the server's turns between its peers.
const SLACK: Duration = Duration::from_millis(350);
/// What all connections have on request beyond a round trip, where that is less.
const SLACK_BYTES: u64 = 8 * 1024 * 1024;
/// What is on request while the window grows is at most what the path delivers in this time, or in a round trip and twice [`SLACK_BYTES`].
const DRAIN: Duration = Duration::from_millis(900);
/// A rate sample spans at least this…
const SAMPLE_MIN: Duration = Duration::from_millis(100);
/// …and ends after this, however little came.
const SAMPLE_MAX: Duration = Duration::from_secs(1);
/// Bytes that make a sample worth ending before [`SAMPLE_MAX`].
const SAMPLE_BYTES: u64 = 128 * 1024;
/// Growth from one sample to the next below which the path counts as full, in percent.
const GROWTH: u64 = 125;
/// A connection with requests and no payload for this long is snubbed: at the least,…
const STALL_MIN: Duration = Duration::from_secs(5);
/// …at the most,…
const STALL_MAX: Duration = Duration::from_secs(60);
/// …and before its first block, when it may be taking turns among many.
const STALL_FIRST: Duration = Duration::from_secs(15);

/// The least of so many round trips counts.
const RTTS: usize = 6;

/// The request window of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    rtt: Duration,
    /// Those that were measured last.
    rtts: VecDeque<Duration>,
    window: u64,
    in_flight: u64,
    /// Bytes a second; none until the first sample.
    rate: Option<u64>,
    growing: bool,
    sample_from: Timestamp,
    sample_bytes: u64,
    /// Whether there was room in the window that nothing was found for: the sample says nothing of the path then.
    sample_idle: bool,
    last_progress: Timestamp,
    /// The longest silence between payloads while some was on request, slowly forgotten.
    gap: Duration,
    slack: Slack,
}

/// How much of a path's rate is kept on request beyond a round trip, at what all paths together deliver.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slack {
    /// Of a full path…
    full: Duration,
    /// …and at most while it is not known to be full.
    growing: Duration,
}

impl Slack {
    /// That of each of the connections which together deliver `rate` bytes a second.
    pub(crate) fn at(rate: u64) -> Self {
        let within = |bytes: u64| Duration::from_micros(bytes.saturating_mul(1_000_000) / rate.max(1));
        Self {
            full: SLACK.min(within(SLACK_BYTES)),
            growing: DRAIN.min(within(2 * SLACK_BYTES)),
        }
    }
}

impl Window {
    /// A window of a connection whose round trip is taken for `rtt` until it was measured.
    pub(crate) fn new(now: Timestamp, rtt: Duration) -> Self {
        Self {
            rtt,
            rtts: VecDeque::new(),
            window: INITIAL,
            in_flight: 0,
            rate: None,
            growing: true,
            sample_from: now,
            sample_bytes: 0,
            sample_idle: true,
            last_progress: now,
            gap: Duration::ZERO,
            slack: Slack::at(0),
        }
    }

    pub(crate) fn rtt(&self) -> Duration {
        self.rtt
    }

    /// A round trip was measured. Under load it includes queues, so that the least of the last few counts.
    pub(crate) fn on_rtt(&mut self, rtt: Duration) {
        if self.rtts.len() == RTTS {
            self.rtts.pop_front();
        }
        self.rtts.push_back(rtt);
        self.rtt = self.rtts.iter().min().copied().unwrap_or(rtt);
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.window
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Bytes that may be requested now. Nothing until a quarter of the window is free, so that a request asks for several
    /// blocks. The last block may reach past the end.
    pub(crate) fn room(&self) -> u64 {
        if self.in_flight > self.window / 4 * 3 {
            0
        } else {
            self.window - self.in_flight
        }
    }

    /// Bytes a second that the path delivers, or is taken to before it was measured.
    pub(crate) fn rate(&self) -> u64 {
        self.rate
            .unwrap_or_else(|| per_second(INITIAL, self.rtt + SLACK))
            .max(1)
    }

    /// When `bytes` requested after all that is in flight would be here. Never sooner than what [`Window::time_for`] says of
    /// the same bytes once they are requested, so that a piece which moves for a gain never moves back for one.
    pub(crate) fn eta(&self, now: Timestamp, bytes: u64) -> Duration {
        self.rtt + self.time_for(now, self.in_flight + bytes)
    }

    /// When the path will have delivered the first `bytes` of what is in flight, as it went lately. Silence counts against it.
    pub(crate) fn time_for(&self, now: Timestamp, bytes: u64) -> Duration {
        let silence = if self.in_flight > 0 {
            self.silence(now)
        } else {
            Duration::ZERO
        };
        silence + self.drains_in(bytes)
    }

    /// How long nothing has come, or, if nothing had been on request before, how long something has been.
    pub(crate) fn silence(&self, now: Timestamp) -> Duration {
        now.since(self.last_progress)
    }

    /// How long the path takes for `bytes`.
    pub(crate) fn drains_in(&self, bytes: u64) -> Duration {
        Duration::from_micros(bytes.saturating_mul(1_000_000) / self.rate())
    }

    pub(crate) fn on_request(&mut self, now: Timestamp, bytes: u64) {
        if self.in_flight == 0 {
            self.last_progress = now;
            self.begin_sample(now);
        }
        self.in_flight += bytes;
    }

    /// Requested bytes that will not come by this request any more.
    pub(crate) fn on_release(&mut self, bytes: u64) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
    }

    /// Payload came; `counted` of it had been on request.
    pub(crate) fn on_payload(&mut self, now: Timestamp, bytes: u64, counted: u64) {
        let silence = now.since(self.last_progress);
        self.gap = if silence > self.gap {
            silence
        } else {
            self.gap - (self.gap - silence) / 256
        };
        self.last_progress = now;
        self.in_flight = self.in_flight.saturating_sub(counted);
        self.sample_bytes += bytes;
        if self.growing {
            self.window = (self.window + bytes).min(self.ceiling());
        }
        self.maybe_sample(now);
    }

    /// There was room and nothing to ask for.
    pub(crate) fn on_idle(&mut self) {
        self.sample_idle = true;
    }

    /// Time has passed; all connections together deliver as much as `slack` was made for.
    pub(crate) fn on_tick(&mut self, now: Timestamp, slack: Slack) {
        self.slack = slack;
        if self.in_flight > 0 {
            self.maybe_sample(now);
        }
    }

    /// The peer was given up on for now: starts anew, small.
    pub(crate) fn on_snubbed(&mut self, now: Timestamp) {
        self.window = MIN;
        self.rate = Some(self.rate() / 8);
        self.growing = true;
        self.gap = Duration::ZERO;
        self.begin_sample(now);
    }

    /// Whether it has been silent for so long, with requests open, that they should go elsewhere.
    pub(crate) fn is_stalled(&self, now: Timestamp) -> bool {
        self.in_flight > 0 && now.since(self.last_progress) > self.stall_limit()
    }

    fn stall_limit(&self) -> Duration {
        if self.rate.is_none() {
            return STALL_FIRST;
        }
        (self.gap * 4 + self.rtt * 4).clamp(STALL_MIN, STALL_MAX)
    }

    fn ceiling(&self) -> u64 {
        self.rate
            .map_or(SLACK_BYTES, |rate| in_time(rate, self.rtt + self.slack.growing))
            .clamp(INITIAL, MAX)
    }

    fn begin_sample(&mut self, now: Timestamp) {
        self.sample_from = now;
        self.sample_bytes = 0;
        self.sample_idle = false;
    }

    fn maybe_sample(&mut self, now: Timestamp) {
        let span = now.since(self.sample_from);
        let enough = span >= SAMPLE_MIN.max(self.rtt) && self.sample_bytes >= SAMPLE_BYTES;
        if !enough && span < SAMPLE_MAX.max(self.rtt * 2) {
            return;
        }
        let sample = per_second(self.sample_bytes, span);
        let idle = self.sample_idle;
        self.begin_sample(now);
        let known = self.rate.unwrap_or(0);
        if sample >= known {
            self.rate = Some(sample);
        } else if !idle {
            self.rate = Some(known - (known - sample) / 4);
        }
        let Some(rate) = self.rate else { return };
        if self.growing && !idle && known > 0 && sample < known.saturating_mul(GROWTH) / 100 {
            self.growing = false;
        }
        // Where that is only a block or two, another is asked for: whoever has nothing on request for a moment is passed over.
        let fitting = in_time(rate, self.rtt + self.slack.full)
            .max(in_time(rate, self.rtt + self.slack.growing).min(INITIAL))
            .clamp(MIN, MAX);
        self.window = if self.growing {
            self.window.max(fitting).min(self.ceiling())
        } else {
            fitting
        };
    }
}

fn per_second(bytes: u64, span: Duration) -> u64 {
    bytes.saturating_mul(1_000_000) / (span.as_micros() as u64).max(1)
}

fn in_time(rate: u64, span: Duration) -> u64 {
    (u128::from(rate) * span.as_micros() / 1_000_000) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path that delivers `rate` bytes a second after half a round trip; returns the window and in-flight over time.
    fn run(rate: u64, rtt: Duration, secs: u64) -> (Window, Duration) {
        let mut window = Window::new(Timestamp::ZERO, rtt);
        let step = Duration::from_millis(2);
        let per_step = rate / 500;
        let mut arrivals: std::collections::VecDeque<(Timestamp, u64)> = Default::default();
        let mut queued = 0u64;
        let mut now = Timestamp::ZERO;
        let mut full_at = None;
        while now < Timestamp::ZERO + Duration::from_secs(secs) {
            now = now + step;
            let room = window.room();
            if room > 0 {
                window.on_request(now, room);
                arrivals.push_back((now + rtt, room));
            }
            while arrivals.front().is_some_and(|(at, _)| *at <= now) {
                queued += arrivals.pop_front().expect("looked").1;
            }
            let served = queued.min(per_step);
            queued -= served;
            if served > 0 {
                window.on_payload(now, served, served);
            }
            if served == per_step && full_at.is_none() {
                full_at = Some(now.since(Timestamp::ZERO));
            }
            window.on_tick(now, Slack::at(window.rate()));
        }
        (window, full_at.expect("the path was never full"))
    }

    #[test]
    fn fills_the_path_fast_and_queues_less_than_a_second() {
        for (rate, rtt) in [
            (6_250_000, 60),
            (50_000_000, 10),
            (125_000, 100),
            (1_250_000, 200),
            (12_500_000, 150),
        ] {
            let rtt = Duration::from_millis(rtt);
            let (window, full_at) = run(rate, rtt, 10);
            assert!(
                full_at < rtt * 8 + Duration::from_millis(100),
                "{rate} B/s, {rtt:?}: full after {full_at:?}"
            );
            let held = Duration::from_micros(window.bytes() * 1_000_000 / rate);
            assert!(
                held <= rtt + Duration::from_secs(1),
                "{rate} B/s, {rtt:?}: holds {held:?}"
            );
            assert!(held >= rtt, "{rate} B/s, {rtt:?}: holds only {held:?}");
        }
    }

    #[test]
    fn a_path_that_is_faster_than_disks_holds_some_megabytes_and_a_share_of_them_beside_others() {
        let (rate, rtt) = (500_000_000, Duration::from_millis(1));
        let (window, _) = run(rate, rtt, 5);
        let held = window.bytes() - in_time(rate, rtt);
        assert!((SLACK_BYTES / 2..=SLACK_BYTES).contains(&held), "{held}");
        let beside = Slack::at(4 * rate).full;
        assert!(
            in_time(4 * rate, beside).abs_diff(SLACK_BYTES) < 64 * 1024,
            "all four have it together"
        );
        assert!(Slack::at(rate / 100).full == SLACK);
    }

    #[test]
    fn the_least_of_the_last_round_trips_counts_whatever_was_guessed() {
        let ms = Duration::from_millis;
        let mut window = Window::new(Timestamp::ZERO, ms(100));
        let mut told = |rtt| {
            window.on_rtt(ms(rtt));
            window.rtt().as_millis()
        };
        assert_eq!([300, 350, 280, 290].map(&mut told), [300, 300, 280, 280]);
        // A way that has become longer is known once none of them was shorter.
        assert_eq!([400; 6].map(&mut told), [280, 280, 280, 280, 290, 400]);
    }

    #[test]
    fn silence_with_open_requests_is_a_stall_and_without_is_not() {
        let mut window = Window::new(Timestamp::ZERO, Duration::from_millis(50));
        let late = Timestamp::ZERO + Duration::from_secs(100);
        assert!(!window.is_stalled(late));
        window.on_request(late, 1000);
        assert!(!window.is_stalled(late + Duration::from_secs(1)));
        assert!(window.is_stalled(late + STALL_FIRST + Duration::from_secs(1)));
    }
}
