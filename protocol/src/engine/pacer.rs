//! Spreads the bytes of blocks over time, for whoever writes them.
//!
//! The engine lets blocks pass whole and pays for them afterwards, which is exact but comes in bursts of a block. The node asks a [`Pacer`] with
//! the same limits before each write, so that a block at a low limit leaves in small pieces; and one with what the peer asks for. It reads no clock and
//! knows no socket.

use std::collections::BTreeMap;
use std::time::Duration;

use super::limit::TokenBucket;
use crate::time::Timestamp;

/// What is written late may be caught up with by so much. With [`STEP`] no burst is longer than a tenth of a second.
const SAVES: Duration = Duration::from_millis(50);
/// Bytes are let through for so long at a time…
const STEP: Duration = Duration::from_millis(40);
/// …but as many as fill a packet…
const STEP_MIN: u64 = 1024;
/// …and no more than this.
const STEP_MAX: u64 = 256 * 1024;
/// What a write costs besides its bytes: the headers of a stream's frame and of an encrypted record. At a low limit writes are small.
const FRAMING: u64 = 34;
/// How long the writer waits at the most before it asks again: limits may have changed.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// Limits, as those who write blocks see them: of all together, and of some kinds of them, by `K`.
#[derive(Clone, Debug)]
pub struct Pacer<K> {
    all: TokenBucket,
    /// Of those that have a limit of their own.
    own: BTreeMap<K, TokenBucket>,
}

impl<K> Default for Pacer<K> {
    fn default() -> Self {
        Self {
            all: TokenBucket::saving(None, SAVES),
            own: BTreeMap::new(),
        }
    }
}

impl<K: Ord> Pacer<K> {
    /// Changes the limit of all together, in bytes a second; none: unlimited.
    pub fn set_rate(&mut self, now: Timestamp, rate: Option<u64>) {
        self.all.set_rate(now, rate);
    }

    /// Changes the limit of one kind, in bytes a second; none: unlimited, and forgotten.
    pub fn set_own_rate(&mut self, now: Timestamp, of: K, rate: Option<u64>) {
        match rate {
            None => _ = self.own.remove(&of),
            Some(_) => {
                let bucket = self.own.entry(of);
                bucket
                    .or_insert_with(|| TokenBucket::saving(rate, SAVES))
                    .set_rate(now, rate);
            }
        }
    }

    /// Whether there is no limit at all.
    pub fn is_unlimited(&self) -> bool {
        self.all.rate().is_none() && self.own.is_empty()
    }

    /// How many of `want` bytes of a block of kind `of` may be written now; they count as written, with what a write costs besides.
    ///
    /// In a `hurry` (a block of another kind waits behind this one on the same stream) the kind's own limit does not hold the
    /// block up: it pays for it before its next one.
    ///
    /// # Errors
    /// When to ask again, if it is none.
    pub fn ask(&mut self, now: Timestamp, of: &K, want: u32, hurry: bool) -> Result<u32, Timestamp> {
        let mut own = self.own.get_mut(of);
        let mut step = step(self.all.rate());
        let mut opens = (!self.all.is_open(now)).then(|| self.all.opens_at()).flatten();
        if let Some(own) = own.as_mut().filter(|_| !hurry) {
            step = step.min(self::step(own.rate()));
            let own_opens = (!own.is_open(now)).then(|| own.opens_at()).flatten();
            opens = opens.max(own_opens);
        }
        if let Some(at) = opens {
            return Err(at.min(now + WAIT_MAX));
        }
        let granted = step.min(u64::from(want));
        self.all.take(now, granted + FRAMING);
        if let Some(own) = own {
            own.take(now, granted + FRAMING);
        }
        Ok(granted as u32)
    }

    /// Of what was granted by one [`Pacer::ask`] only `written` of `granted` bytes were written: none, or some.
    pub fn give_back(&mut self, now: Timestamp, of: &K, granted: u32, written: u32) {
        let framing = if written == 0 { FRAMING } else { 0 };
        let bytes = u64::from(granted - written) + framing;
        self.all.give_back(now, bytes);
        if let Some(own) = self.own.get_mut(of) {
            own.give_back(now, bytes);
        }
    }
}

/// What comes with `bytes` of blocks that are written at `rate`.
pub(crate) fn framing(rate: u64, bytes: u64) -> u64 {
    bytes.div_ceil(step(Some(rate))) * FRAMING
}

fn step(rate: Option<u64>) -> u64 {
    rate.map_or(u64::MAX, |rate| {
        (rate.saturating_mul(STEP.as_millis() as u64) / 1000).clamp(STEP_MIN, STEP_MAX)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OF: u32 = 1;

    /// Writes blocks of `len` at `rate` for `secs`, waking up late by what `late` gives; what was written when.
    fn write(rate: u64, len: u32, secs: u64, mut late: impl FnMut() -> Duration) -> Vec<(Timestamp, u64)> {
        let mut pacer = Pacer::default();
        pacer.set_rate(Timestamp::ZERO, Some(rate));
        let mut now = Timestamp::ZERO + Duration::from_secs(1);
        let end = now + Duration::from_secs(secs);
        let mut written = Vec::new();
        let mut rest = len;
        while now < end {
            match pacer.ask(now, &OF, rest, false) {
                Ok(bytes) => {
                    written.push((now, u64::from(bytes)));
                    rest -= bytes;
                    if rest == 0 {
                        rest = len;
                    }
                }
                Err(at) => {
                    assert!(at > now, "asked again at once");
                    now = at + late();
                }
            }
        }
        written
    }

    /// The most bytes in any span of `span`.
    fn most_in(written: &[(Timestamp, u64)], span: Duration) -> u64 {
        let mut most = 0;
        let (mut from, mut sum) = (0, 0);
        for (at, bytes) in written {
            sum += bytes;
            while written[from].0 + span <= *at {
                sum -= written[from].1;
                from += 1;
            }
            most = most.max(sum);
        }
        most
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn rates_are_exact_and_bursts_short_for_blocks_of_any_length(
            rate in 20_000u64..20_000_000,
            len in 1u32..2_000_000,
            seed in any::<u64>(),
        ) {
            let mut state = seed;
            // A busy machine wakes up late, mostly by a little.
            let late = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                Duration::from_micros((state >> 33) % 4000)
            };
            let written = write(rate, len.max((rate / 200) as u32), 11, late);
            let total: u64 = written.iter().map(|(_, bytes)| bytes).sum();
            let exact = total as f64 / (rate * 11) as f64;
            prop_assert!((0.97..1.03).contains(&exact), "{exact} of the rate");
            // Any five seconds, and any instant: what the rate gives, a burst of 100 ms, and a packet.
            for span in [Duration::from_secs(5), Duration::from_millis(1)] {
                let most = most_in(&written, span);
                let allowed = rate as f64 * (span + Duration::from_millis(100)).as_secs_f64() + STEP_MIN as f64;
                prop_assert!(most as f64 <= allowed, "{most} bytes in {span:?}, {allowed} allowed");
            }
        }
    }

    #[test]
    fn a_changed_limit_holds_within_a_tenth_of_a_second() {
        let mut pacer = Pacer::default();
        let mut now = Timestamp::ZERO;
        pacer.set_rate(now, Some(1000));
        while pacer.ask(now, &OF, 1 << 20, false).is_ok() {}
        let again = pacer.ask(now, &OF, 1 << 20, false).unwrap_err();
        assert!(again <= now + WAIT_MAX);
        pacer.set_rate(now, Some(10_000_000));
        now = again;
        assert_eq!(pacer.ask(now, &OF, 1 << 20, false), Ok(262_144));
    }

    #[test]
    fn a_kind_with_a_limit_of_its_own_holds_up_no_other() {
        let mut pacer = Pacer::default();
        let now = Timestamp::ZERO;
        pacer.set_own_rate(now, OF, Some(10_000));
        assert_eq!(pacer.ask(now, &OF, 50_000, false), Ok(1024));
        assert!(pacer.ask(now, &OF, 50_000, false).is_err());
        assert_eq!(pacer.ask(now, &2, 50_000, false), Ok(50_000));
        // Something waits behind it: out with it, to be paid for later.
        assert_eq!(pacer.ask(now, &OF, 50_000, true), Ok(50_000));
        assert!(pacer.ask(now + Duration::from_secs(5), &OF, 1, false).is_err());
        assert!(pacer.ask(now + Duration::from_millis(5200), &OF, 1, false).is_ok());
    }
}
