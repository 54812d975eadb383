//! Everything between us and one peer over one connection, for all contents.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use smallvec::SmallVec;

use super::action::Expected;
use super::exchange::Exchange;
use super::flood::Flood;
use super::ids::{PeerKey, TransferId};
use super::offers::Offering;
use super::rate::Meter;
use super::requests::Requests;
use super::session::{Session, SessionState, Source};
use super::skeleton::Coming;
use super::uploads::Uploads;
use super::weigh::EVEN;
use super::window::Window;
use crate::format::Cid;
use crate::time::Timestamp;
use crate::wire::limits::HELLO_TIMEOUT;
use crate::wire::{Handle, RequestId, What};

/// How long a snubbed peer is left alone the first time; twice as long each further time.
const SNUB_PENALTY: Duration = Duration::from_secs(5);
/// A block that is not on request any more is awaited for this long from its first byte.
pub(crate) const LATE_PATIENCE: Duration = Duration::from_secs(10);
/// Doublings of [`SNUB_PENALTY`].
const SNUB_DOUBLINGS: u32 = 5;

/// Who gave something in this time gives, if it has kept others before us lately: two that would hold that against each other would both
/// serve each other last, and never find out that they could trade.
const GAVE_LATELY: Duration = Duration::from_secs(30);
/// Who has given less than one part in so many of what it got does not give.
const GIVES_PART: u64 = 64;
/// Who has got so many bytes from us and given none comes after those who gave some.
const MUCH: u64 = 2 * 1024 * 1024;

/// How a peer is served beside others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// In its turn.
    Equal,
    /// After those: it takes and does not give.
    Takes,
    /// After all others: what it gets goes no further, or it has said to have it.
    Vain,
}

/// The server's half of a session: a handle that the peer opened at us.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served {
    pub(crate) transfer: TransferId,
    /// Whether it was opened by content CID, so that pieces can be asked for.
    pub(crate) pieces: bool,
    /// What the peer was offered, while it cannot choose.
    pub(crate) offering: Offering,
}

/// The block whose payload is coming in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arriving {
    pub(crate) rest: u32,
    /// What it is, if it is to be kept.
    pub(crate) kept: Option<Kept>,
}

/// A block that is coming in and is to be kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    pub(crate) expected: Expected,
    pub(crate) handle: Handle,
    pub(crate) what: What,
    /// Whether it is on request still, and counted in the window.
    pub(crate) requested: bool,
    /// Since when it is coming in.
    pub(crate) since: Timestamp,
    /// Whether nobody else is asked for it meanwhile although it is not on request any more.
    pub(crate) awaited: bool,
}

impl Kept {
    /// Whether a late block has been awaited for long enough: who dribbles would keep everybody else from bringing it. Said once.
    fn tires(&mut self, now: Timestamp) -> bool {
        self.awaited && now.since(self.since) >= LATE_PATIENCE && std::mem::take(&mut self.awaited)
    }
}

/// One connection.
#[derive(Clone, Debug)]
pub(crate) struct Conn {
    pub(crate) peer: PeerKey,
    /// Whether the other end is in the local network.
    pub(crate) local: bool,
    pub(crate) agent: Option<String>,
    pub(crate) since: Timestamp,
    pub(crate) hello_by: Timestamp,
    /// We chose this peer: it is asked before it has said `Hello`.
    pub(crate) chosen: bool,
    pub(crate) window: Window,
    pub(crate) requests: Requests,
    /// Skeletons that were asked for whole.
    pub(crate) coming: SmallVec<[Coming; 1]>,
    /// Whether the peer sends such.
    pub(crate) skeletons: bool,
    /// Until when it is awaited that other peers release pieces for this one.
    pub(crate) awaits: SmallVec<[Timestamp; 4]>,
    /// When it was looked last for pieces that could move to this one.
    pub(crate) looked_at: Timestamp,
    pub(crate) arriving: Option<Arriving>,
    pub(crate) choked_by_peer: bool,
    pub(crate) snubbed_until: Option<Timestamp>,
    /// Until when the peer is not believed.
    pub(crate) doubted_until: Timestamp,
    snubs: u32,
    pub(crate) sessions: BTreeMap<Handle, Session>,
    pub(crate) by_root: BTreeMap<Cid, Handle>,
    /// Roots that the peer refused, and when to ask again.
    pub(crate) refused: BTreeMap<Cid, Timestamp>,
    next_handle: u32,
    next_request: u32,
    /// The session whose turn it was last.
    pub(crate) turn: Handle,
    pub(crate) served: BTreeMap<Handle, Served>,
    pub(crate) uploads: Uploads,
    pub(crate) flood: Flood,
    pub(crate) choking: bool,
    pub(crate) slot_since: Timestamp,
    pub(crate) asked_at: Timestamp,
    pub(crate) down: Meter,
    pub(crate) bytes_down: u64,
    /// When the last of them came.
    pub(crate) gave_at: Option<Timestamp>,
    pub(crate) exchange: Exchange,
    /// How fast it is to be sent to beside others, as the caller was told.
    pub(crate) weight: u16,
    /// How fast the peer was asked to send, in bytes a second; 0: as it likes.
    pub(crate) asked_pace: u32,
    /// Handles of the peer that it wants at a pace of their own.
    pub(crate) paced: BTreeSet<Handle>,
}

impl Conn {
    pub(crate) fn new(now: Timestamp, peer: PeerKey, rtt: Duration) -> Self {
        Self {
            peer,
            local: false,
            agent: None,
            since: now,
            hello_by: now + HELLO_TIMEOUT,
            chosen: false,
            window: Window::new(now, rtt),
            requests: Requests::default(),
            coming: SmallVec::new(),
            skeletons: false,
            awaits: SmallVec::new(),
            looked_at: now,
            arriving: None,
            choked_by_peer: true,
            snubbed_until: None,
            doubted_until: Timestamp::ZERO,
            snubs: 0,
            sessions: BTreeMap::new(),
            by_root: BTreeMap::new(),
            refused: BTreeMap::new(),
            next_handle: 0,
            next_request: 0,
            turn: Handle(0),
            served: BTreeMap::new(),
            uploads: Uploads::default(),
            flood: Flood::default(),
            choking: true,
            slot_since: now,
            asked_at: now,
            down: Meter::default(),
            bytes_down: 0,
            gave_at: None,
            exchange: Exchange::default(),
            weight: EVEN,
            asked_pace: 0,
            paced: BTreeSet::new(),
        }
    }

    /// Whether the peer has said `Hello`.
    pub(crate) fn is_ready(&self) -> bool {
        self.agent.is_some()
    }

    /// Whether handles may be opened and nodes asked for.
    pub(crate) fn may_ask(&self) -> bool {
        self.chosen || self.is_ready()
    }

    pub(crate) fn open_session(&mut self, session: Session) -> Handle {
        let handle = Handle(self.next_handle);
        self.next_handle = self.next_handle.wrapping_add(1);
        self.by_root.insert(session.root, handle);
        self.sessions.insert(handle, session);
        handle
    }

    /// Whether we have ever used the handle.
    pub(crate) fn knows_handle(&self, handle: Handle) -> bool {
        handle.0 < self.next_handle
    }

    pub(crate) fn next_request(&mut self) -> RequestId {
        let request = RequestId(self.next_request);
        self.next_request = self.next_request.wrapping_add(1);
        request
    }

    pub(crate) fn snub(&mut self, now: Timestamp) {
        self.snubbed_until = Some(now + SNUB_PENALTY * (1 << self.snubs.min(SNUB_DOUBLINGS)));
        self.snubs += 1;
        self.window.on_snubbed(now);
    }

    /// Time has passed. The late block that is not awaited any more, if it is so with one.
    pub(crate) fn find_tired(&mut self, now: Timestamp) -> Option<Expected> {
        let kept = self.arriving.as_mut()?.kept.as_mut()?;
        kept.tires(now).then_some(kept.expected)
    }

    /// Bytes that are still to come of a piece that is not on request any more, if nobody else is asked for it meanwhile.
    pub(crate) fn awaited(&self, transfer: TransferId, piece: u32) -> Option<u64> {
        let arriving = self.arriving.as_ref()?;
        let kept = arriving.kept.as_ref().filter(|kept| kept.awaited)?;
        let expected = kept.expected;
        let same = expected.transfer == transfer && expected.piece.is_some_and(|index| index.get() == piece);
        same.then_some(u64::from(arriving.rest))
    }

    /// The peer has brought a block whole: what was is forgiven.
    pub(crate) fn forgive(&mut self) {
        self.snubbed_until = None;
        self.snubs = 0;
    }

    pub(crate) fn has_session(&self, transfer: TransferId, open: bool) -> bool {
        let mut sessions = self.sessions.values().filter(|s| s.transfer == transfer);
        sessions.any(|s| !open || s.state != SessionState::Opening)
    }

    /// Whether it says to have all pieces of a transfer.
    pub(crate) fn has_all(&self, transfer: TransferId) -> bool {
        let mut sessions = self.sessions.values();
        sessions.any(|session| session.transfer == transfer && session.source == Source::All)
    }

    /// Whether it takes and does not give: it has something, if only from us, and chokes us, or takes requests and does not answer.
    pub(crate) fn is_selfish(&self, now: Timestamp) -> bool {
        // Who reads a skeleton has nothing to give yet.
        let owes = self.has_at_least() > 0;
        (self.choked_by_peer && owes) || (self.snubbed_until.is_some() && !self.is_giver(now))
    }

    /// Whether it will give again, as far as can be told from what it gave.
    fn is_giver(&self, now: Timestamp) -> bool {
        let lately = || self.gave_at.is_some_and(|at| now.since(at) < GAVE_LATELY);
        let may_again = || self.snubbed_until.is_some_and(|until| now >= until);
        self.bytes_down > self.uploads.bytes / GIVES_PART && (lately() || may_again())
    }

    /// How it is served beside others. `trades`: we fetch something, and who chokes us can be told; `owes`: we have it from some of them.
    pub(crate) fn standing(&self, now: Timestamp, trades: bool, owes: bool) -> Standing {
        if self.is_vain(now) {
            Standing::Vain
        } else if (trades && self.is_selfish(now)) || (!trades && owes && self.is_taker()) {
            Standing::Takes
        } else {
            Standing::Equal
        }
    }

    /// Whether what it gets from us goes no further, as far as we saw, or is what it says to have.
    pub(crate) fn is_vain(&self, now: Timestamp) -> bool {
        self.is_doubted(now) || self.served.values().any(|served| served.offering.is_dead_end(now))
    }

    /// Whether others were seen to have what only it had got from us.
    pub(crate) fn passes_on(&self) -> bool {
        self.served.values().any(|served| served.offering.passes_on())
    }

    /// Whether it has got much and never gave anything.
    pub(crate) fn is_taker(&self) -> bool {
        self.bytes_down == 0 && self.uploads.bytes >= MUCH
    }

    /// Whether what it says to have is not believed.
    pub(crate) fn is_doubted(&self, now: Timestamp) -> bool {
        now < self.doubted_until
    }

    /// Pieces that it is known to have, of all that we have opened there.
    pub(crate) fn held(&self) -> u32 {
        self.sessions.values().map(|session| session.held).sum()
    }

    /// Pieces that it has at the least: who keeps back what it has does not pass for one who is behind.
    pub(crate) fn has_at_least(&self) -> u32 {
        self.held().max(self.uploads.leaves_sent)
    }

    /// Whether it may ask for leaves. Through a pack's handle it may too, by CID; and who reads a skeleton will want pieces next.
    pub(crate) fn is_leeching(&self) -> bool {
        !self.served.is_empty()
    }
}
