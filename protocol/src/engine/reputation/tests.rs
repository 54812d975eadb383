use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

const ORIGIN: u64 = 1_700_000_000;
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

fn peer(number: u64) -> PeerKey {
    PeerKey::of(&number.to_le_bytes())
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn empty() -> Reputation {
    Reputation::new(ORIGIN, Vec::new())
}

#[test]
fn who_is_not_known_is_neither_good_nor_bad() {
    assert_eq!(empty().score(at(0), &peer(1)), 0);
    assert_eq!(empty().ban(at(0), &peer(1)), None);
}

#[test]
fn the_first_bad_block_is_a_day_and_each_further_one_twice_that_up_to_a_month() {
    let mut known = empty();
    let mut now = 10;
    for days in [1, 2, 4, 8, 16, 30, 30] {
        let ban = known
            .handle_fault(at(now), peer(1), Fault::CorruptBlock, 1)
            .expect("a ban");
        assert_eq!((ban.since, ban.until), (ORIGIN + now, ORIGIN + now + days * DAY));
        // More of what was under way makes it no longer.
        assert_eq!(known.handle_fault(at(now + 5), peer(1), Fault::CorruptBlock, 1), None);
        now += days * DAY;
        assert!(known.ban(at(now - 1), &peer(1)).is_some());
        assert_eq!(known.ban(at(now), &peer(1)), None);
    }
    assert_eq!(known.ban(at(20), &peer(2)), None, "nobody else is banned");
}

#[test]
fn offences_close_to_each_other_are_minutes_and_growing() {
    let mut known = empty();
    let offence = |known: &mut Reputation, now| {
        let ban = known.handle_fault(at(now), peer(1), Fault::Unsolicited, 1);
        ban.map(|ban| (ban.until - ban.since) / 60)
    };
    let mut now = 0;
    assert_eq!(offence(&mut known, now), None);
    assert_eq!(offence(&mut known, now + HOUR), None);
    now += 2 * HOUR;
    for minutes in [5, 10, 20, 40, 80, 160, 320, 640, 1280, 1440, 1440] {
        assert_eq!(offence(&mut known, now), Some(minutes));
        now += minutes * 60 + HOUR;
    }
    // An hour and a second without one: they are counted anew.
    assert_eq!(offence(&mut known, now + 1), None);
    assert_eq!(offence(&mut known, now + 1 + 2 * HOUR), None);
    assert_eq!(offence(&mut known, now + 1 + 4 * HOUR), None);
}

#[test]
fn what_the_network_may_be_to_blame_for_bans_nobody() {
    let mut known = empty();
    for fault in [
        Fault::ConnectFailed,
        Fault::Stalled,
        Fault::HelloTimeout,
        Fault::BrokenPromise,
    ] {
        for second in 0..1000 {
            assert_eq!(known.handle_fault(at(second), peer(1), fault, 1), None);
        }
    }
    let low = known.score(at(1000), &peer(1));
    assert!(low < 0);
    let later = known.score(at(30 * DAY), &peer(1));
    assert!(later > low && later >= -1, "{low}, then {later}");
}

#[test]
fn a_short_ban_does_not_shorten_a_long_one() {
    let mut known = empty();
    let long = known.handle_fault(at(0), peer(1), Fault::CorruptBlock, 1);
    for second in 1..10 {
        assert_eq!(known.handle_fault(at(second), peer(1), Fault::WrongShape, 1), None);
    }
    assert_eq!(known.ban(at(10), &peer(1)), long);
}

#[test]
fn forgiving_takes_bans_and_faults_and_leaves_what_was_given() {
    let mut known = empty();
    known.handle_good(at(0), peer(1), 5_000_000);
    let good = known.score(at(1), &peer(1));
    for number in [1, 2] {
        known.handle_fault(at(1), peer(number), Fault::CorruptBlock, 1);
    }
    known.handle_good(at(1), peer(3), 1);
    assert_eq!(known.forgive(at(1), Some(&peer(3))), []);
    assert_eq!(known.forgive(at(1), Some(&peer(1))), [peer(1)]);
    assert_eq!((known.ban(at(1), &peer(1)), known.score(at(1), &peer(1))), (None, good));
    assert!(known.ban(at(1), &peer(2)).is_some());
    assert_eq!(known.forgive(at(1), None), [peer(2)]);
    // It begins with a day again.
    let ban = known
        .handle_fault(at(2), peer(1), Fault::CorruptBlock, 1)
        .expect("a ban");
    assert_eq!(ban.until - ban.since, DAY);
}

#[test]
fn the_least_known_are_forgotten_first_and_the_banned_last() {
    let mut known = Reputation::bounded(32, ORIGIN, Vec::new());
    for number in 0..8 {
        known.handle_fault(at(number), peer(number), Fault::CorruptBlock, 1);
    }
    for number in 8..16 {
        known.handle_good(at(10), peer(number), number << 20);
    }
    for number in 100..1000 {
        known.handle_served(at(20 + number), peer(number), 1);
        assert!(known.records.len() <= 32);
    }
    let kept = |numbers: std::ops::Range<u64>| numbers.filter(|n| known.record(&peer(*n)).is_some()).count();
    assert_eq!((kept(0..8), kept(8..16)), (8, 8));
    // Of the worthless ones, the last seen are still there.
    assert_eq!(kept(990..1000), 10);
}

#[test]
fn whoever_makes_up_peers_without_end_does_not_push_out_all_that_is_known() {
    let mut known = Reputation::bounded(64, ORIGIN, Vec::new());
    for number in 0..20 {
        known.handle_good(at(0), peer(number), 100 << 20);
    }
    for number in 100..2000 {
        assert!(
            known
                .handle_fault(at(number), peer(number), Fault::CorruptBlock, 1)
                .is_some()
        );
        assert!(known.records.len() <= 64);
    }
    assert!((0..20).all(|number| known.record(&peer(number)).is_some()));
    assert!((1980..2000).all(|number| known.ban(at(2000), &peer(number)).is_some()));
}

#[test]
fn changes_are_told_in_batches_and_once_until_they_are_taken() {
    let mut known = empty();
    assert!(!known.poll_changed(at(0)));
    known.handle_good(at(10), peer(1), 1);
    assert_eq!(known.due_at(), Some(at(70)));
    assert!(!known.poll_changed(at(69)) && known.poll_changed(at(70)));
    assert!(!known.poll_changed(at(200)), "it was told already");
    known.handle_good(at(201), peer(2), 1);
    let taken: Vec<PeerKey> = known.take_changed().into_iter().map(|record| record.peer).collect();
    assert_eq!(taken.len(), 2);
    assert_eq!(known.take_changed(), []);
    // A fault is told soon, but no sooner than a second after the last.
    known.handle_fault(at(300), peer(1), Fault::Stalled, 1);
    assert!(known.poll_changed(at(300)));
    known.take_changed();
    known.handle_fault(at(300), peer(1), Fault::Stalled, 1);
    assert!(!known.poll_changed(at(300)) && known.poll_changed(at(301)));
    known.take_changed();
    // So is what came from someone who has left.
    known.handle_good(at(302), peer(1), 1);
    known.handle_left(&peer(2));
    assert!(!known.poll_changed(at(303)));
    known.handle_left(&peer(1));
    assert!(known.poll_changed(at(303)));
}

#[test]
fn records_of_a_wrong_clock_or_a_damaged_disk_make_sense_again() {
    let mut record = PeerRecord::new(peer(1), u64::MAX);
    record.merit = f64::NAN;
    let tally = |recent| Tally {
        fault: Fault::Stalled,
        count: 1,
        last: u64::MAX,
        recent,
    };
    record.faults = vec![tally(f64::INFINITY), tally(-1.0)];
    record.ban = Some(Ban {
        fault: Fault::CorruptBlock,
        since: u64::MAX,
        until: u64::MAX,
    });
    let known = Reputation::new(ORIGIN, vec![record]);
    let record = known.record(&peer(1)).expect("there");
    assert_eq!((record.seen, record.merit, record.faults.len()), (ORIGIN, 0.0, 1));
    assert_eq!(known.score(at(0), &peer(1)), 0);
    assert!(known.ban(at(30 * DAY - 1), &peer(1)).is_some());
    assert_eq!(known.ban(at(30 * DAY), &peer(1)), None);
}

#[derive(Clone, Copy, Debug)]
enum Fact {
    Good(u64),
    Fault(Fault),
    Forgive,
}

/// All that was ever told of one peer, gone through from the beginning for each answer.
#[derive(Default)]
struct Model(Vec<(u64, Fact)>);

impl Model {
    fn since_forgiven(&self) -> impl Iterator<Item = (u64, Fault)> {
        let from = self
            .0
            .iter()
            .rposition(|(_, fact)| matches!(fact, Fact::Forgive))
            .map_or(0, |at| at + 1);
        self.0[from..].iter().filter_map(|(when, fact)| match fact {
            Fact::Fault(fault) => Some((*when, *fault)),
            _ => None,
        })
    }

    fn points(&self, now: u64) -> f64 {
        let left = |when: u64, days: f64| 0.5f64.powf((now - when) as f64 / (days * DAY as f64));
        let merit: f64 = self
            .0
            .iter()
            .map(|(when, fact)| match fact {
                Fact::Good(bytes) => *bytes as f64 * left(*when, 7.0),
                _ => 0.0,
            })
            .sum();
        let mut points = 80.0 * merit / (merit + 67_108_864.0);
        for (fault, weight, most, days) in [
            (Fault::ConnectFailed, 1.0, 10.0, 0.25),
            (Fault::Stalled, 3.0, 30.0, 1.0),
            (Fault::BrokenPromise, 2.0, 60.0, 3.0),
            (Fault::HelloTimeout, 5.0, 20.0, 1.0),
            (Fault::NoSuchPiece, 20.0, 100.0, 3.0),
            (Fault::Unsolicited, 25.0, 100.0, 3.0),
            (Fault::CorruptBlock, 150.0, 300.0, 30.0),
        ] {
            let mut cost: f64 = 0.0;
            let mut last = 0;
            for (when, _) in self.since_forgiven().filter(|(_, of)| *of == fault) {
                cost = (cost * 0.5f64.powf((when - last) as f64 / (days * DAY as f64)) + weight).min(most);
                last = when;
            }
            points -= cost * left(last, days);
        }
        points
    }

    fn banned_until(&self) -> u64 {
        let (mut until, mut for_corrupt, mut strikes) = (0, false, 0);
        let (mut offences, mut last_offence, mut offence_ban) = (0, None, None);
        for (when, fault) in self.since_forgiven() {
            let days = match fault {
                Fault::CorruptBlock if until > when && for_corrupt => continue,
                Fault::CorruptBlock => {
                    strikes += 1;
                    (0..strikes - 1).fold(DAY, |days, _| (days * 2).min(30 * DAY))
                }
                Fault::NoSuchPiece | Fault::Unsolicited => {
                    offences = match last_offence.max(offence_ban) {
                        Some(last) if when <= last + HOUR => offences + 1,
                        _ => 1,
                    };
                    last_offence = Some(when);
                    if offences < 3 {
                        continue;
                    }
                    (3..offences).fold(300, |time, _| (time * 2).min(DAY))
                }
                _ => continue,
            };
            if until <= when || when + days > until {
                until = when + days;
                for_corrupt = fault == Fault::CorruptBlock;
                offence_ban = Some(until).filter(|_| !for_corrupt);
            }
        }
        until
    }
}

fn fact() -> impl Strategy<Value = Fact> {
    prop_oneof![
        6 => (1..50_000_000u64).prop_map(Fact::Good),
        1 => Just(Fact::Fault(Fault::CorruptBlock)),
        2 => Just(Fact::Fault(Fault::ConnectFailed)),
        3 => Just(Fact::Fault(Fault::Stalled)),
        2 => Just(Fact::Fault(Fault::BrokenPromise)),
        1 => Just(Fact::Fault(Fault::HelloTimeout)),
        4 => Just(Fact::Fault(Fault::Unsolicited)),
        4 => Just(Fact::Fault(Fault::NoSuchPiece)),
        1 => Just(Fact::Forgive),
    ]
}

fn wait() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..100u64, 3 => 0..2 * HOUR, 1 => 0..5 * DAY]
}

proptest! {
    #[test]
    fn scores_and_bans_are_what_going_through_all_facts_gives(facts in vec((wait(), fact()), 1..80), later in wait()) {
        let mut known = empty();
        let mut model = Model::default();
        let mut now = 0;
        for (wait, fact) in facts {
            now += wait;
            match fact {
                Fact::Good(bytes) => known.handle_good(at(now), peer(1), bytes),
                Fact::Fault(fault) => {
                    known.handle_fault(at(now), peer(1), fault, 1);
                }
                Fact::Forgive => drop(known.forgive(at(now), Some(&peer(1)))),
            }
            model.0.push((now, fact));
            let until = model.banned_until();
            let ban = known.ban(at(now), &peer(1)).map(|ban| ban.until - ORIGIN);
            prop_assert_eq!(ban, Some(until).filter(|until| *until > now));
        }
        let now = now + later;
        let points = model.points(now);
        let wall = ORIGIN + now;
        let shown = |record: &PeerRecord| record.evidence(wall).iter().map(|evidence| evidence.points).sum();
        let (score, shown): (i32, f64) = known.record(&peer(1)).map_or((0, 0.0), |r| (r.score(wall), shown(r)));
        prop_assert!((f64::from(score) - points.clamp(-100.0, 100.0)).abs() <= 0.51, "{} and {}", score, points);
        // Parts too small to be shown are in the score all the same.
        prop_assert!((shown - points).abs() < 5.0, "{} shown, {} right", shown, points);
    }

    #[test]
    fn good_bytes_never_lower_a_score(facts in vec((wait(), fact()), 0..40), more in 1..1_000_000_000u64) {
        let mut known = empty();
        let mut now = 0;
        for (wait, fact) in facts {
            now += wait;
            match fact {
                Fact::Good(bytes) => known.handle_good(at(now), peer(1), bytes),
                Fact::Fault(fault) => {
                    known.handle_fault(at(now), peer(1), fault, 1);
                }
                Fact::Forgive => drop(known.forgive(at(now), None)),
            }
            known.handle_rates(at(now), peer(1), now % 5_000_000, 0);
        }
        let before = known.score(at(now), &peer(1));
        known.handle_good(at(now), peer(1), more);
        prop_assert!(known.score(at(now), &peer(1)) >= before);
    }

    #[test]
    fn never_more_than_the_bound_and_never_a_banned_one_before_a_worthless_one(
        facts in vec((0..60u64, fact(), 0..30u64), 1..300)
    ) {
        const BOUND: usize = 16;
        let mut known = Reputation::bounded(BOUND, ORIGIN, Vec::new());
        let mut now = 0;
        for (number, fact, wait) in facts {
            now += wait;
            let before = known.clone();
            match fact {
                Fact::Good(bytes) => known.handle_good(at(now), peer(number), bytes),
                Fact::Fault(fault) => {
                    known.handle_fault(at(now), peer(number), fault, 1);
                }
                Fact::Forgive => drop(known.forgive(at(now), Some(&peer(number)))),
            }
            prop_assert!(known.records.len() <= BOUND);
            prop_assert!(known.changed.iter().all(|peer| known.records.contains_key(peer)));
            let banned = |of: &Reputation| of.records.keys().filter(|peer| of.ban(at(now), peer).is_some()).count();
            if banned(&before) < BOUND / 2 {
                prop_assert!(banned(&known) >= banned(&before) || matches!(fact, Fact::Forgive));
            }
            prop_assert!(banned(&known) <= BOUND / 2);
        }
    }
}
