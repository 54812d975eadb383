//! What is remembered of one peer, and what it is worth.

use std::cmp::Ordering;
use std::fmt;
use std::time::Duration;

use crate::engine::action::Violation;
use crate::engine::ids::PeerKey;

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// Points that good bytes are worth at the most, and the bytes that are worth half of that.
const BYTES_POINTS: f64 = 80.0;
const BYTES_HALF: f64 = 64.0 * 1024.0 * 1024.0;
/// Points that speed is worth at the most, and the rate that is worth half of that.
const SPEED_POINTS: f64 = 20.0;
const SPEED_HALF: f64 = 1024.0 * 1024.0;
/// Good bytes that a rate needs behind it to count for half.
const SPEED_PROOF: f64 = 1024.0 * 1024.0;
/// After this long, good bytes count half.
const MERIT_HALF_LIFE: u64 = 7 * DAY;
/// Of a rate, each sample (one a second) replaces this share.
const RATE_SHARE: u64 = 16;

/// The best score, and, negated, the worst. Who is not known has zero.
pub const MAX_SCORE: i32 = 100;

/// What a peer did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// It could not be connected to at any of its addresses.
    ConnectFailed,
    /// It let requests time out.
    Stalled,
    /// It sent a block that did not hash to its CID.
    CorruptBlock,
    /// It said that it had a piece, and refused it without having said `Lost`.
    BrokenPromise,
    /// [`Violation::Malformed`].
    Malformed,
    /// [`Violation::OutOfOrder`].
    OutOfOrder,
    /// [`Violation::HelloTimeout`].
    HelloTimeout,
    /// [`Violation::HandleInUse`].
    HandleInUse,
    /// [`Violation::OverLimit`].
    OverLimit,
    /// [`Violation::NoSuchPiece`].
    NoSuchPiece,
    /// [`Violation::Unsolicited`].
    Unsolicited,
    /// [`Violation::WrongShape`].
    WrongShape,
}

impl Fault {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 12] = [
        Self::ConnectFailed,
        Self::Stalled,
        Self::CorruptBlock,
        Self::BrokenPromise,
        Self::Malformed,
        Self::OutOfOrder,
        Self::HelloTimeout,
        Self::HandleInUse,
        Self::OverLimit,
        Self::NoSuchPiece,
        Self::Unsolicited,
        Self::WrongShape,
    ];

    /// Its number on disk; never used for another.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The fault with this number, if this version knows it.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// Its name for programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConnectFailed => "connect_failed",
            Self::Stalled => "stalled",
            Self::CorruptBlock => "corrupt_block",
            Self::BrokenPromise => "broken_promise",
            Self::Malformed => "malformed",
            Self::OutOfOrder => "out_of_order",
            Self::HelloTimeout => "hello_timeout",
            Self::HandleInUse => "handle_in_use",
            Self::OverLimit => "over_limit",
            Self::NoSuchPiece => "no_such_piece",
            Self::Unsolicited => "unsolicited",
            Self::WrongShape => "wrong_shape",
        }
    }

    /// The fault with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }

    /// Points that one costs while it is fresh.
    const fn weight(self) -> f64 {
        match self {
            Self::ConnectFailed => 1.0,
            Self::BrokenPromise => 2.0,
            Self::Stalled => 3.0,
            Self::HelloTimeout => 5.0,
            Self::OutOfOrder | Self::HandleInUse | Self::OverLimit | Self::NoSuchPiece => 20.0,
            Self::Malformed | Self::Unsolicited | Self::WrongShape => 25.0,
            Self::CorruptBlock => 150.0,
        }
    }

    /// Points that all of a kind cost at the most: what the network may be to blame for never sinks a peer by itself.
    const fn most(self) -> f64 {
        match self {
            Self::ConnectFailed => 10.0,
            Self::HelloTimeout => 20.0,
            Self::Stalled => 30.0,
            Self::BrokenPromise => 60.0,
            Self::CorruptBlock => 300.0,
            _ => 100.0,
        }
    }

    /// After how many seconds it counts half.
    const fn half_life(self) -> u64 {
        match self {
            Self::ConnectFailed => 6 * HOUR,
            Self::Stalled | Self::HelloTimeout => DAY,
            Self::CorruptBlock => 30 * DAY,
            _ => 3 * DAY,
        }
    }

    /// Whether it breaks the protocol beyond doubt. A slow handshake may be the network's fault.
    pub(super) const fn is_offence(self) -> bool {
        !matches!(
            self,
            Self::ConnectFailed | Self::Stalled | Self::CorruptBlock | Self::BrokenPromise | Self::HelloTimeout
        )
    }
}

impl From<Violation> for Fault {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::Malformed(_) => Self::Malformed,
            Violation::OutOfOrder => Self::OutOfOrder,
            Violation::HelloTimeout => Self::HelloTimeout,
            Violation::HandleInUse => Self::HandleInUse,
            Violation::OverLimit(_) => Self::OverLimit,
            Violation::NoSuchPiece => Self::NoSuchPiece,
            Violation::Unsolicited => Self::Unsolicited,
            Violation::WrongShape => Self::WrongShape,
        }
    }
}

/// In words that end "the peer …".
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConnectFailed => "could not be reached",
            Self::Stalled => "did not answer in time",
            Self::CorruptBlock => "sent wrong bytes",
            Self::BrokenPromise => "refused what it said it had",
            Self::Malformed => "sent what is no message",
            Self::OutOfOrder => "spoke out of turn",
            Self::HelloTimeout => "took too long to greet",
            Self::HandleInUse => "opened a handle twice",
            Self::OverLimit => "asked for more than is allowed",
            Self::NoSuchPiece => "spoke of pieces that do not exist",
            Self::Unsolicited => "sent what nobody asked for",
            Self::WrongShape => "sent blocks of a wrong length",
        })
    }
}

/// How often a peer committed one fault.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tally {
    /// Which.
    pub fault: Fault,
    /// How often, ever.
    pub count: u32,
    /// The last time, in seconds since 1970.
    pub last: u64,
    /// How often, as it counted at the last time: older ones less.
    pub recent: f64,
}

/// A time during which a peer is not talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ban {
    /// What for.
    pub fault: Fault,
    /// When it was spoken, in seconds since 1970.
    pub since: u64,
    /// When it ends, exclusive, in seconds since 1970.
    pub until: u64,
}

/// What is remembered of one peer, over connections and restarts. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerRecord {
    /// Who.
    pub peer: PeerKey,
    /// When something was noted last.
    pub seen: u64,
    /// Verified leaf bytes from it, ever.
    pub bytes_down: u64,
    /// Payload bytes served to it, ever.
    pub bytes_up: u64,
    /// Verified leaf bytes from it as they counted at `merit_at`: older ones less.
    pub merit: f64,
    /// See `merit`.
    pub merit_at: u64,
    /// Bytes a second that came from it while some came, averaged over some ten seconds.
    pub rate_down: u64,
    /// Bytes a second that went to it while some went.
    pub rate_up: u64,
    /// The least round trip.
    pub rtt: Option<Duration>,
    /// What it did wrong, by ascending fault, each at most once.
    pub faults: Vec<Tally>,
    /// The last ban, over or not.
    pub ban: Option<Ban>,
    /// Bans for corrupt blocks so far: each is twice as long.
    pub strikes: u32,
    /// Protocol offences, each within an hour of the one before or of the end of the ban for it.
    pub offences: u32,
}

/// What a record is worth keeping for; the least is forgotten first.
#[derive(Clone, Copy, Debug)]
pub struct Worth {
    banned_until: u64,
    information: f64,
    seen: u64,
}

impl Worth {
    /// A total order, whatever a disk may have made of the numbers.
    pub fn total_cmp(&self, other: &Self) -> Ordering {
        (self.banned_until.cmp(&other.banned_until))
            .then(self.information.total_cmp(&other.information))
            .then(self.seen.cmp(&other.seen))
    }
}

/// Why a peer has its score: one part of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// What.
    pub cause: Cause,
    /// What it adds to the score.
    pub points: f64,
}

/// What counts for or against a peer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cause {
    /// Verified bytes that it sent.
    Bytes,
    /// How fast it sent them.
    Speed,
    /// What it did wrong.
    Fault(Tally),
}

impl PeerRecord {
    /// A record of a peer of which nothing is known.
    pub fn new(peer: PeerKey, now: u64) -> Self {
        Self {
            peer,
            seen: now,
            bytes_down: 0,
            bytes_up: 0,
            merit: 0.0,
            merit_at: now,
            rate_down: 0,
            rate_up: 0,
            rtt: None,
            faults: Vec::new(),
            ban: None,
            strikes: 0,
            offences: 0,
        }
    }

    /// The ban that holds at `now`, if one does.
    pub fn ban_at(&self, now: u64) -> Option<Ban> {
        self.ban.filter(|ban| now < ban.until)
    }

    /// From minus [`MAX_SCORE`] to [`MAX_SCORE`]; zero for who is not known.
    pub fn score(&self, now: u64) -> i32 {
        let points: f64 = self.parts(now).map(|evidence| evidence.points).sum();
        points.round().clamp(f64::from(-MAX_SCORE), f64::from(MAX_SCORE)) as i32
    }

    /// What the score is made of: what moves it most first, nothing that moves it by less than half a point.
    pub fn evidence(&self, now: u64) -> Vec<Evidence> {
        let mut parts: Vec<Evidence> = self.parts(now).filter(|part| part.points.abs() >= 0.5).collect();
        parts.sort_by(|a, b| b.points.abs().total_cmp(&a.points.abs()));
        parts
    }

    fn parts(&self, now: u64) -> impl Iterator<Item = Evidence> {
        let merit = decayed(self.merit, self.merit_at, now, MERIT_HALF_LIFE);
        let speed = SPEED_POINTS * share(self.rate_down as f64, SPEED_HALF) * share(merit, SPEED_PROOF);
        let faults = self.faults.iter().map(move |tally| Evidence {
            cause: Cause::Fault(*tally),
            points: -tally.fault.weight() * decayed(tally.recent, tally.last, now, tally.fault.half_life()),
        });
        let good = [
            (Cause::Bytes, BYTES_POINTS * share(merit, BYTES_HALF)),
            (Cause::Speed, speed),
        ];
        good.map(|(cause, points)| Evidence { cause, points })
            .into_iter()
            .chain(faults)
    }

    /// What there is for and against the peer, whichever way it goes.
    fn information(&self, now: u64) -> f64 {
        self.parts(now).map(|evidence| evidence.points.abs()).sum()
    }

    /// Where it stands in the order in which records are forgotten when there are too many: whoever is not banned before who is; among those, of
    /// whom least is known, the longest unseen first; among these, whose ban ends first.
    pub fn worth(&self, now: u64) -> Worth {
        Worth {
            banned_until: self.ban_at(now).map_or(0, |ban| ban.until),
            information: self.information(now),
            seen: self.seen,
        }
    }

    /// What its faults of one kind come to.
    pub fn tally(&self, fault: Fault) -> Option<&Tally> {
        self.faults.iter().find(|tally| tally.fault == fault)
    }

    /// When it last broke the protocol, or when the last ban for that ended.
    pub(super) fn last_offence(&self) -> Option<u64> {
        let offences = self.faults.iter().filter(|tally| tally.fault.is_offence());
        let ban = self.ban.filter(|ban| ban.fault.is_offence()).map(|ban| ban.until);
        offences.map(|tally| tally.last).chain(ban).max()
    }

    pub(super) fn add_good(&mut self, now: u64, bytes: u64) {
        self.bytes_down = self.bytes_down.saturating_add(bytes);
        self.merit = decayed(self.merit, self.merit_at, now, MERIT_HALF_LIFE) + bytes as f64;
        self.merit_at = now;
    }

    pub(super) fn add_fault(&mut self, now: u64, fault: Fault, times: u32) {
        let at = self.faults.partition_point(|tally| tally.fault < fault);
        if self.faults.get(at).is_none_or(|tally| tally.fault != fault) {
            let none = Tally {
                fault,
                count: 0,
                last: now,
                recent: 0.0,
            };
            self.faults.insert(at, none);
        }
        let tally = &mut self.faults[at];
        let recent = decayed(tally.recent, tally.last, now, fault.half_life()) + f64::from(times);
        tally.recent = recent.min(fault.most() / fault.weight());
        tally.count = tally.count.saturating_add(times);
        tally.last = now;
    }

    pub(super) fn add_rates(&mut self, down: u64, up: u64) {
        let smooth = |old: u64, new: u64| match (old, new) {
            (old, 0) => old,
            (0, new) => new,
            (old, new) => old - old / RATE_SHARE + new / RATE_SHARE,
        };
        self.rate_down = smooth(self.rate_down, down);
        self.rate_up = smooth(self.rate_up, up);
    }

    /// Makes sense of a record that comes from a disk, whose clock may have been wrong: nothing lies in the future, and no ban is
    /// longer than the longest.
    pub(super) fn mend(&mut self, now: u64, longest_ban: u64) {
        let sane = |value: f64| if value.is_finite() { value.max(0.0) } else { 0.0 };
        self.seen = self.seen.min(now);
        self.merit_at = self.merit_at.min(now);
        self.merit = sane(self.merit).min(self.bytes_down as f64);
        self.faults.sort_by_key(|tally| tally.fault);
        self.faults.dedup_by_key(|tally| tally.fault);
        for tally in &mut self.faults {
            tally.last = tally.last.min(now);
            tally.recent = sane(tally.recent).min(tally.fault.most() / tally.fault.weight());
        }
        if let Some(ban) = &mut self.ban {
            ban.since = ban.since.min(now);
            ban.until = ban.until.min(now + longest_ban);
        }
    }
}

/// What is left at `now` of what was `value` at `at`.
fn decayed(value: f64, at: u64, now: u64, half_life: u64) -> f64 {
    value * (-(now.saturating_sub(at) as f64) / half_life as f64).exp2()
}

/// From 0 to 1, one half at `half`.
fn share(value: f64, half: f64) -> f64 {
    value / (value + half)
}
