//! Rate limits: token buckets that let blocks through whole and pay for them afterwards.

use std::time::Duration;

use crate::time::Timestamp;

/// How long an idle bucket saves up: no burst is longer than this.
const BURST: Duration = Duration::from_millis(100);

/// A limit in bytes a second, or none.
///
/// A block passes as soon as the bucket is not in debt, and then puts it in debt: over any long span the rate is exact, and blocks
/// larger than a burst still pass.
#[derive(Clone, Debug)]
pub(crate) struct TokenBucket {
    rate: Option<u64>,
    /// How long it saves up while idle.
    saves: Duration,
    /// In millionths of a byte, so that no time is lost to rounding.
    credit: i128,
    at: Timestamp,
}

const MICRO: i128 = 1_000_000;

impl TokenBucket {
    pub(crate) fn new(rate: Option<u64>) -> Self {
        Self::saving(rate, BURST)
    }

    /// A bucket that saves up `saves` while idle.
    pub(crate) fn saving(rate: Option<u64>, saves: Duration) -> Self {
        Self {
            rate: rate.map(|rate| rate.max(1)),
            saves,
            credit: 0,
            at: Timestamp::ZERO,
        }
    }

    pub(crate) fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// Changes the limit. Debt is kept as bytes or as time, whichever is sooner paid, so that a change takes effect at once.
    pub(crate) fn set_rate(&mut self, now: Timestamp, rate: Option<u64>) {
        self.refill(now);
        let rate = rate.map(|rate| rate.max(1));
        self.credit = match (self.rate, rate) {
            (Some(old), Some(new)) => {
                let scaled = self.credit * i128::from(new) / i128::from(old);
                if self.credit < 0 {
                    scaled.max(self.credit)
                } else {
                    scaled
                }
            }
            _ => 0,
        };
        self.rate = rate;
    }

    /// Whether a block may pass now.
    pub(crate) fn is_open(&mut self, now: Timestamp) -> bool {
        self.refill(now);
        self.rate.is_none() || self.credit >= 0
    }

    /// `bytes` have passed.
    pub(crate) fn take(&mut self, now: Timestamp, bytes: u64) {
        self.refill(now);
        if self.rate.is_some() {
            self.credit -= i128::from(bytes) * MICRO;
        }
    }

    /// `bytes` that were taken did not pass after all.
    pub(crate) fn give_back(&mut self, now: Timestamp, bytes: u64) {
        self.refill(now);
        if let Some(rate) = self.rate {
            self.credit = (self.credit + i128::from(bytes) * MICRO).min(self.burst(rate));
        }
    }

    /// When the bucket opens, if it is not open.
    pub(crate) fn opens_at(&self) -> Option<Timestamp> {
        let rate = i128::from(self.rate?);
        if self.credit >= 0 {
            return None;
        }
        let wait = (-self.credit + rate - 1) / rate;
        Some(self.at + Duration::from_micros(u64::try_from(wait).unwrap_or(u64::MAX)))
    }

    fn refill(&mut self, now: Timestamp) {
        if let Some(rate) = self.rate {
            let elapsed = now.since(self.at).as_micros() as i128;
            self.credit = (self.credit + elapsed * i128::from(rate)).min(self.burst(rate));
        }
        self.at = self.at.max(now);
    }

    fn burst(&self, rate: u64) -> i128 {
        i128::from(rate) * self.saves.as_micros() as i128
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_exact_over_time_and_bursts_are_short() {
        let mut bucket = TokenBucket::new(Some(1_000_000));
        let mut now = Timestamp::from_micros(5_000_000);
        let start = now;
        let mut passed = 0u64;
        while now.since(start) < Duration::from_secs(10) {
            while bucket.is_open(now) {
                bucket.take(now, 64 * 1024);
                passed += 64 * 1024;
            }
            let allowed = 1_000_000.0 * (now.since(start) + BURST).as_secs_f64() + 64.0 * 1024.0;
            assert!(passed as f64 <= allowed + 1.0, "{passed} bytes at {now:?}");
            now = bucket.opens_at().expect("in debt");
        }
        let exact = passed as f64 / 10_000_000.0;
        assert!((0.97..1.03).contains(&exact), "{exact}");
    }

    #[test]
    fn no_limit_never_closes() {
        let mut bucket = TokenBucket::new(None);
        bucket.take(Timestamp::ZERO, u64::MAX / 2);
        assert!(bucket.is_open(Timestamp::ZERO));
        assert_eq!(bucket.opens_at(), None);
    }

    #[test]
    fn a_raised_limit_takes_effect_at_once() {
        let mut bucket = TokenBucket::new(Some(1000));
        let now = Timestamp::from_micros(1);
        bucket.take(now, 10_000);
        bucket.set_rate(now, Some(1_000_000));
        let wait = bucket.opens_at().expect("in debt").since(now);
        assert!(wait <= Duration::from_millis(10), "{wait:?}");
        bucket.set_rate(now, Some(1000));
        let again = bucket.opens_at().expect("in debt").since(now);
        assert!(again.abs_diff(wait) <= Duration::from_millis(1), "{again:?}");
        bucket.set_rate(now, None);
        assert!(bucket.is_open(now));
    }
}
