//! How often a peer may ask in vain.
//!
//! A request that is refused is no offence, for it may have crossed a choke, a `Lost` or a `Closed`. Each is answered, though, and whoever asks
//! without end costs us an answer without end.

use std::time::Duration;

use super::action::Violation;
use crate::time::Timestamp;

/// Refusals within [`SPAN`] that are taken for races: an honest peer opens at most [`MAX_HANDLES`](crate::wire::limits::MAX_HANDLES) contents at once,
/// each with a request or two behind it.
pub(crate) const MAX_REFUSALS: u32 = 4096;
const SPAN: Duration = Duration::from_secs(10);
/// What an `Open` counts: its answer is a have-map.
const OPEN_WEIGHT: u32 = 4;

/// What one peer has asked in vain lately.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flood {
    since: Timestamp,
    refusals: u32,
}

impl Flood {
    /// A request is refused.
    pub(crate) fn on_refused(&mut self, now: Timestamp) -> Result<(), Violation> {
        self.count(now, 1)
    }

    /// A content is opened, whether it is here or not.
    pub(crate) fn on_open(&mut self, now: Timestamp) -> Result<(), Violation> {
        self.count(now, OPEN_WEIGHT)
    }

    fn count(&mut self, now: Timestamp, weight: u32) -> Result<(), Violation> {
        if now.since(self.since) >= SPAN {
            self.since = now;
            self.refusals = 0;
        }
        self.refusals += weight;
        if self.refusals > MAX_REFUSALS {
            return Err(Violation::OverLimit("requests in vain"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn races_are_forgotten_and_floods_are_not() {
        let mut flood = Flood::default();
        let mut now = Timestamp::ZERO;
        for _ in 0..10 {
            for _ in 0..MAX_REFUSALS {
                assert_eq!(flood.on_refused(now), Ok(()));
            }
            now = now + SPAN;
        }
        for _ in 0..MAX_REFUSALS / OPEN_WEIGHT {
            assert_eq!(flood.on_open(now), Ok(()));
        }
        assert_eq!(flood.on_refused(now), Err(Violation::OverLimit("requests in vain")));
    }
}
