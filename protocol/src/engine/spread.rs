//! A sole seed's first copy: every piece goes out once before any goes out twice.
//!
//! While nobody else has everything, a seed's uplink is what the whole swarm waits for, and a piece that it sends twice is a piece that the others could
//! have passed on. So it *offers* each leecher pieces of its own, a little more than are under way, and leechers ask it for no others. That a piece has
//! spread is learned from the leechers' have-messages. Once all have gone out, everyone may ask for anything.
//!
//! This file keeps the account of one content; [`super::offers`] says when and to whom.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use smallvec::{SmallVec, smallvec};

use super::ids::ConnId;
use super::rng::Rng;
use crate::format::PieceSet;
use crate::time::Timestamp;

/// A piece that only who got it says to have after this long has not spread: it is kept back, or passed on with wrong bytes, or its holder has left.
pub(crate) const UNSEEN: Duration = Duration::from_secs(6);

/// What became of each piece while the first copy goes out.
#[derive(Clone, Debug)]
pub(crate) struct Spread {
    /// Pieces that were offered, sent or seen elsewhere.
    out: PieceSet,
    /// Pieces that were not.
    left: usize,
    /// Where the next offer is looked for: each begins where the last one ended, or, where others have been, at a place chosen by lot: several seeds would end
    /// up at the same one.
    cursor: usize,
    lots: Rng,
    /// Pieces that were offered and have not gone out, and to whom.
    offered: BTreeMap<u32, ConnId>,
    /// Pieces that were sent, when and in that order…
    sent: VecDeque<(Timestamp, u32)>,
    /// …and those of them that nobody has said to have but who got them, and who these are.
    unseen: BTreeMap<u32, SmallVec<[ConnId; 1]>>,
}

impl Spread {
    /// An account of `pieces` pieces.
    pub(crate) fn new(pieces: u32, seed: u64) -> Self {
        Self {
            out: PieceSet::repeat(false, pieces as usize),
            left: pieces as usize,
            cursor: pieces as usize,
            lots: Rng::new(seed),
            offered: BTreeMap::new(),
            sent: VecDeque::new(),
            unseen: BTreeMap::new(),
        }
    }

    /// Whether every piece has gone out, or is with others.
    pub(crate) fn is_over(&self) -> bool {
        self.left == 0 && self.offered.is_empty()
    }

    /// Pieces that are left to offer.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// Offers `conn` the next pieces: the longest stretch from where the last offer ended, up to `max` and not past what was out before.
    pub(crate) fn offer(&mut self, conn: ConnId, mut max: impl FnMut(u32) -> bool) -> Vec<u32> {
        let mut offered = Vec::new();
        while self.left > 0 {
            if self.out.get(self.cursor).is_none_or(|out| *out) {
                self.cursor = self.lots.below(self.out.len());
            }
            let next = self.out[self.cursor..].first_zero().map(|i| self.cursor + i);
            let Some(next) = next.or_else(|| self.out.first_zero()) else {
                break;
            };
            if !max(next as u32) {
                break;
            }
            self.out.set(next, true);
            self.left -= 1;
            self.cursor = next + 1;
            self.offered.insert(next as u32, conn);
            offered.push(next as u32);
        }
        offered
    }

    /// `by` says to have the piece. To whom it was offered, if it was; and who got it from us and has passed it on by that.
    pub(crate) fn on_seen(&mut self, by: ConnId, piece: u32) -> (Option<ConnId>, Option<ConnId>) {
        let sent_to = self.unseen.get(&piece);
        let elsewhere = sent_to.is_some_and(|sent_to| !sent_to.contains(&by));
        let sent_to = elsewhere.then(|| self.unseen.remove(&piece)).flatten();
        // Of several who got it from us, nobody can say who has passed it on.
        let passed_on_by = sent_to.filter(|sent_to| sent_to.len() == 1).map(|sent_to| sent_to[0]);
        (self.out(piece), passed_on_by)
    }

    /// The piece has gone out. To whom it was offered, if it was.
    pub(crate) fn on_sent(&mut self, now: Timestamp, conn: ConnId, piece: u32) -> Option<ConnId> {
        if !self.out[piece as usize] || self.offered.contains_key(&piece) {
            self.sent.push_back((now, piece));
            self.unseen.insert(piece, smallvec![conn]);
        } else if let Some(sent_to) = self.unseen.get_mut(&piece)
            && !sent_to.contains(&conn)
        {
            sent_to.push(conn);
        }
        self.out(piece)
    }

    /// Pieces that only who got them says to have, so long after they were sent, are offered to others. Who got one, once for each. Those that `pass_on` what
    /// they get may have more to pass on than their uplink takes: they are left in peace.
    pub(crate) fn expire(&mut self, now: Timestamp, pass_on: impl Fn(ConnId) -> bool) -> Vec<ConnId> {
        let mut silent = Vec::new();
        while let Some((at, piece)) = self.sent.front().copied() {
            if now.since(at) < UNSEEN && self.unseen.contains_key(&piece) {
                break;
            }
            self.sent.pop_front();
            if let Some(sent_to) = self
                .unseen
                .remove(&piece)
                .filter(|to| !to.iter().any(|conn| pass_on(*conn)))
            {
                self.out.set(piece as usize, false);
                self.left += 1;
                silent.extend(sent_to);
            }
        }
        silent
    }

    fn out(&mut self, piece: u32) -> Option<ConnId> {
        if !self.out[piece as usize] {
            self.out.set(piece as usize, true);
            self.left -= 1;
        }
        self.offered.remove(&piece)
    }

    /// `conn` will not take what it was offered: others are offered it.
    pub(crate) fn withdraw(&mut self, conn: ConnId) {
        let pieces: Vec<u32> = self
            .offered
            .iter()
            .filter(|(_, to)| **to == conn)
            .map(|(piece, _)| *piece)
            .collect();
        for piece in pieces {
            self.offered.remove(&piece);
            self.out.set(piece as usize, false);
            self.left += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ConnId = ConnId(1);
    const B: ConnId = ConnId(2);

    fn offer(spread: &mut Spread, conn: ConnId, max: usize) -> Vec<u32> {
        let mut room = max;
        let mut offered = spread.offer(conn, |_| {
            let more = room > 0;
            room = room.saturating_sub(1);
            more
        });
        offered.sort_unstable();
        offered
    }

    /// An account whose first offer begins at the first piece.
    fn from_the_first(pieces: u32) -> Spread {
        let mut spread = Spread::new(pieces, 1);
        spread.cursor = 0;
        spread
    }

    #[test]
    fn every_piece_is_offered_once_and_it_is_over_when_all_were_seen() {
        let mut spread = Spread::new(10, 7);
        let mine = offer(&mut spread, A, 4);
        let mut all = [mine.clone(), offer(&mut spread, B, 20)].concat();
        assert_eq!(offer(&mut spread, A, 20), Vec::<u32>::new());
        all.sort_unstable();
        assert_eq!(all, Vec::from_iter(0..10));
        for piece in 0..10 {
            assert!(!spread.is_over());
            let to = if mine.contains(&piece) { A } else { B };
            assert_eq!(spread.on_sent(Timestamp::ZERO, to, piece), Some(to));
            assert_eq!(spread.on_seen(to, piece), (None, None));
        }
        assert!(spread.is_over());
    }

    #[test]
    fn seeds_that_meet_go_on_at_different_places() {
        let pieces = 1000;
        let (mut one, mut other) = (from_the_first(pieces), Spread::new(pieces, 2));
        other.cursor = 500;
        let (mut sent, mut seen) = (0, 0);
        while !one.is_over() {
            // What one sends is seen by the other after the next.
            let (mine, theirs) = (offer(&mut one, A, 1), offer(&mut other, A, 1));
            for (piece, by, at) in mine.iter().map(|p| (p, 0, 1)).chain(theirs.iter().map(|p| (p, 1, 0))) {
                sent += 1;
                seen += usize::from(mine == theirs);
                for (i, spread) in [&mut one, &mut other].into_iter().enumerate() {
                    if i == by {
                        spread.on_sent(Timestamp::ZERO, A, *piece);
                    } else if i == at {
                        spread.on_seen(B, *piece);
                    }
                }
            }
        }
        assert!(sent < 1020 && seen < 20, "{sent} were sent, {seen} by both");
    }

    #[test]
    fn what_others_have_is_not_offered() {
        let mut spread = from_the_first(4);
        assert_eq!(spread.on_seen(B, 1), (None, None));
        assert_eq!(offer(&mut spread, A, 3), [0, 2, 3]);
        assert_eq!(
            spread.on_seen(B, 2),
            (Some(A), None),
            "seen with another: the offer has no point any more"
        );
    }

    #[test]
    fn what_one_will_not_take_goes_to_another() {
        let mut spread = from_the_first(4);
        offer(&mut spread, A, 3);
        spread.on_sent(Timestamp::ZERO, A, 0);
        spread.withdraw(A);
        assert_eq!(offer(&mut spread, B, 9), [1, 2, 3]);
    }

    #[test]
    fn pieces_that_are_kept_to_oneself_go_out_again() {
        let mut spread = from_the_first(3);
        offer(&mut spread, A, 2);
        spread.on_sent(Timestamp::ZERO, A, 0);
        spread.on_sent(Timestamp::ZERO, A, 1);
        spread.on_seen(A, 0);
        assert_eq!(spread.on_seen(B, 1), (None, Some(A)));
        assert_eq!(
            spread.expire(Timestamp::ZERO + UNSEEN / 2, |_| false),
            Vec::<ConnId>::new()
        );
        assert_eq!(spread.expire(Timestamp::ZERO + UNSEEN, |_| false), [A]);
        assert_eq!(offer(&mut spread, B, 9), [0, 2]);
        assert_eq!(
            spread.expire(Timestamp::ZERO + UNSEEN * 2, |_| false),
            Vec::<ConnId>::new()
        );
    }

    #[test]
    fn who_got_a_piece_from_us_says_nothing_of_another_who_got_it_too() {
        let mut spread = from_the_first(2);
        spread.on_sent(Timestamp::ZERO, A, 0);
        spread.on_sent(Timestamp::ZERO, B, 0);
        assert_eq!(spread.on_seen(A, 0), (None, None));
        assert_eq!(spread.on_seen(B, 0), (None, None));
        let mut silent = spread.clone();
        assert_eq!(silent.expire(Timestamp::ZERO + UNSEEN, |_| false), [A, B]);
        assert_eq!(offer(&mut silent, A, 1), [0]);
        assert_eq!(
            spread.on_seen(ConnId(3), 0),
            (None, None),
            "one of the two has passed it on"
        );
        assert_eq!(spread.expire(Timestamp::ZERO + UNSEEN, |_| false), Vec::<ConnId>::new());
        assert_eq!(offer(&mut spread, A, 9), [1]);
    }

    #[test]
    fn who_passes_pieces_on_is_given_time() {
        let mut spread = from_the_first(2);
        offer(&mut spread, A, 2);
        spread.on_sent(Timestamp::ZERO, A, 0);
        spread.on_sent(Timestamp::ZERO, A, 1);
        assert_eq!(
            spread.expire(Timestamp::ZERO + UNSEEN, |conn| conn == A),
            Vec::<ConnId>::new()
        );
        assert!(spread.is_over());
    }
}
