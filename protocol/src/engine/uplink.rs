//! How much may be handed to sockets at a time, over all connections.
//!
//! A block is of use to its receiver, and to those whom it will pass it on to, only when it is whole: sixteen blocks that share an uplink all come when
//! the last one does. So few are under way at a time, as many as keep the uplink full.

use super::rate::Meter;
use crate::time::Timestamp;

/// Bytes that may be under way at the least…
const MIN: u64 = 128 * 1024;
/// …and as many as the uplink takes in this time.
const AHEAD_MICROS: u64 = 150_000;

/// What all connections have under way together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Uplink {
    ahead: u64,
    meter: Meter,
    /// How far the peer that was served last had come.
    turn: u64,
}

impl Uplink {
    /// Whether one more block may be handed out.
    pub(crate) fn is_open(&self, now: Timestamp) -> bool {
        self.ahead < MIN || self.ahead < self.meter.rate(now).saturating_mul(AHEAD_MICROS) / 1_000_000
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.ahead == 0
    }

    pub(crate) fn turn(&self) -> u64 {
        self.turn
    }

    pub(crate) fn set_turn(&mut self, turn: u64) {
        self.turn = turn;
    }

    /// `bytes` were handed out.
    pub(crate) fn on_started(&mut self, bytes: u64) {
        self.ahead += bytes;
    }

    /// `counted` bytes of what was handed out are no longer under way; `written` of them went out.
    pub(crate) fn on_ended(&mut self, now: Timestamp, counted: u64, written: u64) {
        self.ahead = self.ahead.saturating_sub(counted);
        self.meter.add(now, written);
    }

    /// `bytes` that were handed out are not waited for any more: their connection has ended or takes nothing in.
    pub(crate) fn on_given_up(&mut self, bytes: u64) {
        self.ahead = self.ahead.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn as_much_is_under_way_as_keeps_the_uplink_full_and_no_more() {
        for rate in [100_000u64, 2_500_000, 100_000_000] {
            let block = 64 * 1024u64;
            let mut uplink = Uplink::default();
            let (mut now, mut ahead, mut idle) = (Timestamp::ZERO, 0u64, Duration::ZERO);
            for _ in 0..2000 {
                while uplink.is_open(now) {
                    uplink.on_started(block);
                    ahead += block;
                }
                let most = MIN.max(rate * 2 * AHEAD_MICROS / 1_000_000) + block;
                assert!(ahead <= most, "{ahead} bytes are under way at {rate} bytes a second");
                if ahead == 0 {
                    idle += Duration::from_millis(1);
                } else {
                    now = now + Duration::from_micros(block * 1_000_000 / rate);
                    uplink.on_ended(now, block, block);
                    ahead -= block;
                }
            }
            assert_eq!(idle, Duration::ZERO);
        }
    }

    #[test]
    fn what_is_given_up_makes_room() {
        let mut uplink = Uplink::default();
        uplink.on_started(MIN);
        assert!(!uplink.is_open(Timestamp::ZERO));
        uplink.on_given_up(MIN);
        assert!(uplink.is_open(Timestamp::ZERO));
    }
}
