//! Who is to be sent to faster than others, where connections share an uplink.
//!
//! A connection takes in more than is on its way, so that several of them always have something to send, and then it is not the order in which blocks
//! are handed out that decides who gets more, but how connections share the line: evenly, or in favour of who is near. Those who are behind, be it that they are
//! far away, would end last, when most uplinks have nothing left to do. So whoever misses more is to be sent to faster, and all end at the same time.

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

impl Engine {
    /// Says how fast each of those that ask for something is to be sent to, as far as that has changed.
    pub(super) fn weigh(&mut self) {
        let trades = self.transfers.values().any(Transfer::is_fetching);
        let owes = self.conns.values().any(|conn| conn.bytes_down > 0);
        let mut asking: Vec<(ConnId, u64, u64)> = Vec::new();
        let mut others: Vec<ConnId> = Vec::new();
        for (id, conn) in self.conns.iter().filter(|(_, conn)| !conn.uploads.is_idle()) {
            let equal = conn.standing(self.now, trades, owes) == Standing::Equal;
            match self.missing(conn).filter(|_| equal) {
                Some(missing) => asking.push((*id, missing, conn.uploads.turn())),
                None => others.push(*id),
            }
        }
        let mean =
            |of: fn(&(ConnId, u64, u64)) -> u64| asking.iter().map(of).sum::<u64>() / (asking.len() as u64).max(1);
        let (missing, turn) = (mean(|of| of.1), mean(|of| of.2));
        let most_served = too_much(turn);
        for (id, misses, served) in asking {
            // Who only says to have little has got much already.
            let most = if served > most_served { EVEN } else { MOST };
            self.set_weight(id, weight_of(misses, missing).min(most));
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

    /// Bytes that a peer misses of what it fetches here, if that can be told.
    fn missing(&self, conn: &Conn) -> Option<u64> {
        let mut missing = 0;
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
            let left = pieces.len().saturating_sub(session.held.max(got));
            missing += pieces.map.bytes() / u64::from(pieces.len().max(1)) * u64::from(left);
        }
        Some(missing)
    }
}

/// More than in proportion, since who is far is slower even so.
fn weight_of(misses: u64, mean: u64) -> u16 {
    if mean == 0 {
        return EVEN;
    }
    let part = misses as f64 / mean as f64;
    ((part * part * f64::from(EVEN)) as u16).clamp(LEAST, MOST)
}
