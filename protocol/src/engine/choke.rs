//! Whom to serve: upload slots, given anew in rounds.
//!
//! While there are slots for all who want one, nobody waits. Otherwise those who give us most while we are downloading keep
//! theirs, and the rest go round: who has waited longest takes the slot of who has had one longest. Who gets nothing before others do (it gives nothing, or lets
//! nothing spread) holds a slot only while those others leave one. Who has it all does not let those wait for a round from whom it has it.

use std::time::Duration;

use super::ids::ConnId;
use super::rng::Rng;
use crate::time::Timestamp;

/// How long a slot is held before it is up for a round.
pub(crate) const ROUND: Duration = Duration::from_secs(10);
/// How long one is kept for a peer that asks for nothing, while others do not either.
pub(crate) const IDLE: Duration = Duration::from_secs(2);
/// Of the slots, one in this many goes round even while there are enough who give us something.
const OPTIMISTIC: usize = 4;

/// A peer that wants pieces, or holds a slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) conn: ConnId,
    /// Whether it wants pieces that we have.
    pub(crate) interested: bool,
    pub(crate) unchoked: bool,
    /// When it got its slot or lost it last.
    pub(crate) since: Timestamp,
    /// Whether it gets only the slots that others leave.
    pub(crate) last: bool,
    /// Whether it ever gave us anything.
    pub(crate) gave: bool,
    /// Whether it stands back for those who did: it never gave us anything, and we have it all from others.
    pub(crate) stands_back: bool,
    /// Bytes a second that it gives us.
    pub(crate) gives: u64,
}

/// Gives out upload slots.
#[derive(Clone, Debug)]
pub(crate) struct Choker {
    slots: usize,
    next_round: Timestamp,
}

impl Choker {
    pub(crate) fn new(slots: usize) -> Self {
        Self {
            slots: slots.max(1),
            next_round: Timestamp::ZERO,
        }
    }

    /// Who is to be choked and who unchoked, in that order.
    pub(crate) fn decide(
        &mut self,
        now: Timestamp,
        mut all: Vec<Candidate>,
        rng: &mut Rng,
    ) -> (Vec<ConnId>, Vec<ConnId>) {
        let round = now >= self.next_round;
        if round {
            self.next_round = now + ROUND;
        }
        let wanting = all.iter().filter(|c| c.interested).count();
        let holding = all.iter().filter(|c| c.interested && c.unchoked).count();
        if wanting <= self.slots || (!round && holding < self.slots) {
            // Free slots go at once, to who has waited longest.
            all.sort_by_key(|c| (c.last, c.since));
            let free = self.slots - holding;
            let unchoke: Vec<ConnId> = all
                .iter()
                .filter(|c| c.interested && !c.unchoked)
                .take(free)
                .map(|c| c.conn)
                .collect();
            // Those who had them and want nothing would come back to more than there are.
            let open = all.iter().filter(|c| c.unchoked).count();
            let too_many = (open + unchoke.len()).saturating_sub(self.slots);
            let idle = all.iter().filter(|c| c.unchoked && !c.interested);
            return (idle.take(too_many).map(|c| c.conn).collect(), unchoke);
        }
        if !round {
            return give_way(&mut all);
        }
        let lots: Vec<u64> = all.iter().map(|_| rng.next()).collect();
        let mut chosen = vec![false; all.len()];
        let mut rest = self.slots;
        for last in [false, true] {
            let mut order: Vec<usize> = (0..all.len())
                .filter(|i| all[*i].interested && all[*i].last == last)
                .collect();
            order.sort_by_key(|i| (std::cmp::Reverse(all[*i].gives), lots[*i]));
            let kept = rest - rest.div_ceil(OPTIMISTIC);
            for i in order.iter().filter(|i| all[**i].gives > 0).take(kept) {
                chosen[*i] = true;
                rest -= 1;
            }
            order.retain(|i| !chosen[*i]);
            // Waiting ones by how long they wait, then holders by how short they hold.
            order.sort_by_key(|i| {
                let span = now.since(all[*i].since);
                (
                    all[*i].unchoked,
                    if all[*i].unchoked { span } else { Duration::MAX - span },
                    lots[*i],
                )
            });
            // A holder keeps its slot for two rounds at least, so that it gets something done.
            let settled = |c: &Candidate| c.unchoked && now.since(c.since) < ROUND * 2;
            let fresh = order.iter().copied().filter(|i| settled(&all[*i]));
            let fresh: Vec<usize> = fresh.take(rest.saturating_sub(1)).collect();
            let others = order.iter().copied().filter(|i| !fresh.contains(i));
            for i in fresh.iter().copied().chain(others).take(rest).collect::<Vec<_>>() {
                chosen[i] = true;
                rest -= 1;
            }
        }
        let pick = |want: bool| {
            let of = all
                .iter()
                .zip(&chosen)
                .filter(move |(c, chosen)| **chosen == want && c.unchoked != want);
            of.map(|(c, _)| c.conn).collect::<Vec<_>>()
        };
        (pick(false), pick(true))
    }
}

/// Between rounds, who stands back for others leaves its slot to them.
fn give_way(all: &mut [Candidate]) -> (Vec<ConnId>, Vec<ConnId>) {
    all.sort_by_key(|c| c.since);
    let holders = all.iter().rev().filter(|c| c.unchoked && c.stands_back);
    let waiting = all.iter().filter(|c| c.interested && !c.unchoked && c.gave);
    holders
        .zip(waiting)
        .map(|(holds, waits)| (holds.conn, waits.conn))
        .unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simulate(peers: usize, slots: usize, rounds: u64, gives: impl Fn(usize) -> u64) -> Vec<u32> {
        simulate_with(peers, slots, rounds, gives, |_| false)
    }

    fn simulate_with(
        peers: usize,
        slots: usize,
        rounds: u64,
        gives: impl Fn(usize) -> u64,
        last: impl Fn(usize) -> bool,
    ) -> Vec<u32> {
        let mut choker = Choker::new(slots);
        let mut rng = Rng::new(1);
        let mut held = vec![0; peers];
        let mut state: Vec<(bool, Timestamp)> = vec![(false, Timestamp::ZERO); peers];
        for round in 0..rounds {
            let now = Timestamp::ZERO + ROUND * round as u32 + ROUND;
            let all = (0..peers).map(|i| Candidate {
                conn: ConnId(i as u64),
                interested: true,
                unchoked: state[i].0,
                since: state[i].1,
                gave: false,
                stands_back: false,
                last: last(i),
                gives: gives(i),
            });
            let (choke, unchoke) = choker.decide(now, all.collect(), &mut rng);
            for conn in choke {
                state[conn.0 as usize] = (false, now);
            }
            for conn in unchoke {
                state[conn.0 as usize] = (true, now);
            }
            let holders = state.iter().filter(|(held, _)| *held).count();
            assert!(holders <= slots, "{holders} hold {slots} slots");
            for (held, (unchoked, _)) in held.iter_mut().zip(&state) {
                *held += u32::from(*unchoked);
            }
        }
        held
    }

    #[test]
    fn everyone_holds_a_slot_while_there_are_enough() {
        assert_eq!(simulate(4, 4, 10, |_| 0), [10; 4]);
    }

    #[test]
    fn a_seed_goes_round() {
        let held = simulate(12, 4, 120, |_| 0);
        let (least, most) = (held.iter().min().expect("some"), held.iter().max().expect("some"));
        assert!(*least > 20 && *most < 60, "{held:?}");
    }

    #[test]
    fn those_who_give_hold_their_slots_and_the_others_still_get_turns() {
        let held = simulate(12, 4, 120, |i| if i < 3 { 1000 } else { 0 });
        assert!(held[..3].iter().all(|h| *h > 110), "{held:?}");
        assert!(held[3..].iter().all(|h| *h > 5), "{held:?}");
    }

    #[test]
    fn who_gave_does_not_wait_for_a_round_while_those_who_never_did_hold_slots() {
        let mut choker = Choker::new(2);
        let mut rng = Rng::new(1);
        let now = Timestamp::ZERO + ROUND;
        let candidate = |i: u64, gave: bool, unchoked: bool| Candidate {
            conn: ConnId(i),
            interested: true,
            unchoked,
            since: Timestamp::ZERO,
            last: false,
            gave,
            stands_back: !gave,
            gives: 0,
        };
        let holders = [candidate(1, false, true), candidate(2, true, true)];
        choker.decide(now, [&holders[..], &[candidate(3, false, false)]].concat(), &mut rng);
        let later = now + ROUND / 2;
        let waits = [&holders[..], &[candidate(4, false, false)]].concat();
        assert_eq!(choker.decide(later, waits, &mut rng), (vec![], vec![]));
        let gave = [&holders[..], &[candidate(4, true, false), candidate(5, true, false)]].concat();
        let (choke, unchoke) = choker.decide(later, gave, &mut rng);
        assert_eq!(choke, [ConnId(1)]);
        assert_eq!(unchoke, [ConnId(4)]);
    }

    #[test]
    fn those_who_come_last_hold_what_the_others_leave() {
        let held = simulate_with(12, 4, 120, |_| 0, |i| i >= 3);
        assert!(held[..3].iter().all(|h| *h > 110), "{held:?}");
        assert!(held[3..].iter().all(|h| *h > 5), "{held:?}");
        let held = simulate_with(12, 4, 120, |_| 0, |i| i >= 6);
        assert!(held[..6].iter().all(|h| *h > 60), "{held:?}");
        assert_eq!(held[6..].iter().sum::<u32>(), 0, "{held:?}");
    }
}
