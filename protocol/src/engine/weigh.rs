//! Who is to be sent to faster than others, where connections share an uplink.
//!
//! A connection takes in more than is on its way, so that several of them always have something to send, and then it is not the order in which blocks
//! are handed out that decides who gets more, but how connections share the line: evenly, or in favour of who is near. Those who are behind, be it that they are
//! far away, would end last, when most uplinks have nothing left to do. So whoever misses more is to be sent to faster, and all end at the same time; and whoever has
//! got less than others so far, since what they miss differs little until late.

use super::action::Action;
use super::conn::{Conn, Standing};
use super::core::Engine;
use super::ids::ConnId;
use super::transfer::Transfer;
use super::turns::too_much;

/// As fast as others, in hundredths; the least, and the most.
pub(crate) const EVEN: u16 = 100;
const LEAST: u16 = 25;
const MOST: u16 = 400;
/// A weight that has changed by less than one part in so many is not told.
const STEP: u16 = 8;

/// The part of a content by which what peers have got may differ for no reason.
const CHANCE: u64 = 32;
/// How much it counts at the most that one was slower than others.
const SLOWER_MOST: f64 = 1.5;

/// How far a peer is, in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    missing: u64,
    got: u64,
}

impl Engine {
    /// Says how fast each of those that ask for something is to be sent to, as far as that has changed.
    pub(super) fn weigh(&mut self) {
        let trades = self.transfers.values().any(Transfer::is_fetching);
        let owes = self.conns.values().any(|conn| conn.bytes_down > 0);
        let mut asking: Vec<(ConnId, Progress, u64)> = Vec::new();
        let mut others: Vec<ConnId> = Vec::new();
        for (id, conn) in self.conns.iter().filter(|(_, conn)| !conn.uploads.is_idle()) {
            let equal = conn.standing(self.now, trades, owes) == Standing::Equal;
            match self.progress(conn).filter(|_| equal) {
                Some(progress) => asking.push((*id, progress, conn.uploads.turn())),
                None => others.push(*id),
            }
        }
        let mean =
            |of: fn(&(ConnId, Progress, u64)) -> u64| asking.iter().map(of).sum::<u64>() / (asking.len() as u64).max(1);
        let of_all = Progress {
            missing: mean(|of| of.1.missing),
            got: mean(|of| of.1.got),
        };
        let most_served = too_much(mean(|of| of.2));
        for (id, progress, served) in asking {
            // Who only says to have little has got much already.
            let most = if served > most_served { EVEN } else { MOST };
            self.set_weight(id, weight_of(progress, of_all).min(most));
        }
        // Who was favoured before is not, once it is found to take only.
        others.into_iter().for_each(|id| self.set_weight(id, EVEN));
    }

    fn set_weight(&mut self, id: ConnId, weight: u16) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if weight.abs_diff(conn.weight) > conn.weight / STEP {
            conn.weight = weight;
            self.actions.push_back(Action::Weigh { conn: id, weight });
        }
    }

    /// How far a peer is with what it fetches here, if that can be told.
    fn progress(&self, conn: &Conn) -> Option<Progress> {
        let mut progress = Progress::default();
        // Who keeps back what it has has at least what it got from us, where that is of one content.
        let got = if conn.served.len() == 1 {
            conn.uploads.leaves_sent
        } else {
            0
        };
        for served in conn.served.values().filter(|served| served.pieces) {
            let of = self.transfers.get(&served.transfer)?;
            let pieces = of.pieces.as_ref()?;
            let session = conn
                .sessions
                .values()
                .find(|session| session.transfer == served.transfer)?;
            let got = session.held.max(got).min(pieces.len());
            let piece_bytes = pieces.map.bytes() / u64::from(pieces.len().max(1));
            progress.got += piece_bytes * u64::from(got);
            progress.missing += piece_bytes * u64::from(pieces.len() - got);
        }
        Some(progress)
    }
}

/// More than in proportion, since who is far is slower even so.
fn weight_of(of: Progress, mean: Progress) -> u16 {
    if mean.missing == 0 {
        return EVEN;
    }
    // What came by chance first is no sign of a slow line.
    let chance = ((mean.got + mean.missing) / CHANCE) as f64;
    let behind = of.missing as f64 / mean.missing as f64;
    let slower = ((mean.got as f64 + chance) / (of.got as f64 + chance)).clamp(1.0 / SLOWER_MOST, SLOWER_MOST);
    let part = behind * slower;
    ((part * part * f64::from(EVEN)) as u16).clamp(LEAST, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn weight(got: u64, mean: u64) -> u16 {
        let of = |got| Progress {
            missing: 128 * MIB - got,
            got,
        };
        weight_of(of(got), of(mean))
    }

    #[test]
    fn who_is_behind_is_sent_to_faster_early_and_late() {
        assert_eq!(weight(64 * MIB, 64 * MIB), EVEN);
        // A fifth less, soon after the beginning and near the end.
        assert!(
            (140..200).contains(&weight(16 * MIB, 20 * MIB)),
            "{}",
            weight(16 * MIB, 20 * MIB)
        );
        assert_eq!(weight(96 * MIB, 120 * MIB), MOST);
        assert!(
            (50..80).contains(&weight(24 * MIB, 20 * MIB)),
            "{}",
            weight(24 * MIB, 20 * MIB)
        );
    }

    #[test]
    fn what_came_first_by_chance_is_no_matter_and_all_has_bounds() {
        assert!((90..120).contains(&weight(0, MIB / 4)), "{}", weight(0, MIB / 4));
        assert_eq!(weight(128 * MIB, 64 * MIB), LEAST);
        assert_eq!(weight(0, 127 * MIB), MOST);
        assert_eq!(weight(128 * MIB, 128 * MIB), EVEN);
    }
}
