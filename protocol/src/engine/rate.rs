//! How many bytes a second, lately.

use std::time::Duration;

use crate::time::Timestamp;

/// Over how long a rate forgets.
const MEMORY: Duration = Duration::from_secs(2);

/// An exponentially weighted rate in continuous time, right from its first second on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter {
    weighted: f64,
    at: Timestamp,
    since: Option<Timestamp>,
}

impl Meter {
    pub(crate) fn add(&mut self, now: Timestamp, bytes: u64) {
        self.since.get_or_insert(now);
        self.weighted = self.decayed(now) + bytes as f64;
        self.at = now;
    }

    /// When bytes were added last, if ever.
    pub(crate) fn last(&self) -> Option<Timestamp> {
        self.since.map(|_| self.at)
    }

    /// Whether something was added in the last second.
    pub(crate) fn is_moving(&self, now: Timestamp) -> bool {
        self.since.is_some() && now.since(self.at) < Duration::from_secs(1)
    }

    /// Bytes a second.
    pub(crate) fn rate(&self, now: Timestamp) -> u64 {
        let Some(since) = self.since else { return 0 };
        let memory = MEMORY.as_secs_f64();
        // While younger than its memory, it has seen only part of what the weights add up to. A tenth of a second is the
        // shortest span that says anything.
        let age = now.since(since).as_secs_f64().max(0.1);
        (self.decayed(now) / (memory * (1.0 - (-age / memory).exp()))) as u64
    }

    fn decayed(&self, now: Timestamp) -> f64 {
        self.weighted * (-now.since(self.at).as_secs_f64() / MEMORY.as_secs_f64()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_stream_has_its_rate_early_and_forgets_it_late() {
        let mut meter = Meter::default();
        let mut now = Timestamp::ZERO;
        for i in 1..=100u64 {
            now = Timestamp::from_micros(i * 100_000);
            meter.add(now, 100_000);
            if i >= 5 {
                let rate = meter.rate(now);
                assert!((900_000..1_300_000).contains(&rate), "{rate} after {i} samples");
            }
        }
        assert!(meter.rate(now + Duration::from_secs(20)) < 1000);
    }
}
