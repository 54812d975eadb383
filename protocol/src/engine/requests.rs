//! What is on request at one peer, and what was not long ago.
//!
//! Every block that a peer sends must be on request, or have been: after a cancel, a time-out or a choke, blocks under way still
//! come, and are no offence for [`LATE_GRACE`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::ids::{ConnId, TransferId};
use super::window::Window;
use crate::format::Cid;
use crate::time::Timestamp;
use crate::wire::{Handle, Run, What};

/// How long a block may come after its request was taken back.
pub(crate) const LATE_GRACE: Duration = Duration::from_secs(180);
/// Taken-back requests that are remembered. While more than this were taken back within the grace, no late block is an offence.
pub(crate) const MAX_LATE: usize = 16 * 1024;
/// A block that has been on request for this long goes elsewhere if, as it goes, it would not come for as long again and
/// its length at [`SLOWEST`].
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes a second below which a peer is of no use.
const SLOWEST: u64 = 4 * 1024;
/// A node of the skeleton that has not come after this long, plus four round trips, goes elsewhere.
const NODE_TIMEOUT: Duration = Duration::from_secs(5);

/// One block on request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) transfer: TransferId,
    pub(crate) cid: Cid,
    /// The piece; none for a node of the skeleton.
    pub(crate) piece: Option<u32>,
    /// Bytes, counted in the window; zero for a node.
    pub(crate) len: u32,
    /// Of these, bytes that have come.
    pub(crate) received: u32,
    pub(crate) sent_at: Timestamp,
    /// That the peer was asked to release it, if it was.
    pub(crate) release: Option<Release>,
    /// What had been requested over this connection, ever, up to and including this block.
    pub(crate) mark: u64,
}

/// A request that goes to another peer if the one that was asked first has not come near it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Release {
    /// Who would bring the piece sooner.
    pub(crate) to: ConnId,
    /// Until when an answer is awaited.
    pub(crate) until: Timestamp,
}

impl Request {
    pub(crate) fn is_being_released(&self, now: Timestamp) -> bool {
        self.release.is_some_and(|release| now < release.until)
    }

    pub(crate) fn rest(&self) -> u64 {
        u64::from(self.len - self.received)
    }
}

/// The requests of one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requests {
    open: BTreeMap<(Handle, What), Request>,
    /// Bytes of the blocks on request, by handle.
    asked: BTreeMap<Handle, u64>,
    nodes: usize,
    requested: u64,
    settled: u64,
    late: BTreeMap<(Handle, What), Late>,
    late_order: VecDeque<(Timestamp, Handle, What)>,
    lenient_until: Option<Timestamp>,
}

/// A block that may still come, so many times.
#[derive(Clone, Copy, Debug)]
struct Late {
    transfer: TransferId,
    cid: Cid,
    piece: Option<u32>,
    copies: u32,
    /// When it was taken back last.
    since: Timestamp,
}

/// What a block that came is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arrival {
    /// On request.
    Requested(Request),
    /// Was on request not long ago: transfer, CID, piece.
    Late(TransferId, Cid, Option<u32>),
    /// May have been on request.
    Forgotten,
    /// Never was.
    Unsolicited,
}

impl Requests {
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Bytes of the blocks on request through `handle`.
    pub(crate) fn asked(&self, handle: Handle) -> u64 {
        self.asked.get(&handle).copied().unwrap_or(0)
    }

    /// Nodes of the skeleton on request.
    pub(crate) fn nodes(&self) -> usize {
        self.nodes
    }

    pub(crate) fn insert(&mut self, handle: Handle, what: What, mut request: Request) {
        self.requested += u64::from(request.len);
        request.mark = self.requested;
        self.nodes += usize::from(request.piece.is_none());
        *self.asked.entry(handle).or_default() += u64::from(request.len);
        self.open.insert((handle, what), request);
    }

    pub(crate) fn get(&self, handle: Handle, what: What) -> Option<&Request> {
        self.open.get(&(handle, what))
    }

    pub(crate) fn get_mut(&mut self, handle: Handle, what: What) -> Option<&mut Request> {
        self.open.get_mut(&(handle, what))
    }

    /// Bytes that the peer sends before this request is answered, itself included, if it keeps the order.
    pub(crate) fn ahead(&self, request: &Request) -> u64 {
        request.mark.saturating_sub(self.settled).max(request.rest())
    }

    /// Ends a request: answered, refused, or about to be taken back.
    pub(crate) fn remove(&mut self, handle: Handle, what: What) -> Option<Request> {
        let request = self.open.remove(&(handle, what))?;
        self.settled += u64::from(request.len);
        if let Some(asked) = self.asked.get_mut(&handle) {
            *asked -= u64::from(request.len);
            if *asked == 0 {
                self.asked.remove(&handle);
            }
        }
        self.nodes -= usize::from(request.piece.is_none());
        if self.open.is_empty() {
            self.settled = self.requested;
        }
        Some(request)
    }

    /// Takes a request back: its block may still come.
    pub(crate) fn retract(&mut self, now: Timestamp, handle: Handle, what: What) -> Option<Request> {
        let request = self.remove(handle, what)?;
        self.expire_late(now);
        if self.late_order.len() >= MAX_LATE {
            self.late.clear();
            self.late_order.clear();
            self.lenient_until = Some(now + LATE_GRACE);
        }
        let Request {
            transfer, cid, piece, ..
        } = request;
        let late = self.late.entry((handle, what)).or_insert(Late {
            transfer,
            cid,
            piece,
            copies: 0,
            since: now,
        });
        late.copies += 1;
        late.since = now;
        self.late_order.push_back((now, handle, what));
        Some(request)
    }

    /// What a block that came is. A late one comes as often as it was asked for.
    pub(crate) fn classify(&mut self, now: Timestamp, handle: Handle, what: What) -> Arrival {
        if let Some(request) = self.open.get(&(handle, what)) {
            return Arrival::Requested(*request);
        }
        if let Some(late) = self.late.get(&(handle, what)).copied() {
            self.forget_late(handle, what);
            return Arrival::Late(late.transfer, late.cid, late.piece);
        }
        if self.lenient_until.is_some_and(|until| now < until) {
            Arrival::Forgotten
        } else {
            Arrival::Unsolicited
        }
    }

    /// The requests made through one handle.
    pub(crate) fn of_handle(&self, handle: Handle) -> impl Iterator<Item = (What, &Request)> {
        let from = (handle, What::Piece(0));
        let all = self.open.range(from..).take_while(move |((of, _), _)| *of == handle);
        all.map(|((_, what), request)| (*what, request))
    }

    /// Pieces of a run that are on request through a handle.
    pub(crate) fn within(&self, handle: Handle, run: Run) -> impl Iterator<Item = u32> {
        let keys = (handle, What::Piece(run.start))..(handle, What::Piece(run.end()));
        self.open.range(keys).filter_map(|((_, what), _)| match what {
            What::Piece(piece) => Some(*piece),
            What::Block { .. } | What::Node { .. } => None,
        })
    }

    /// All requests for which `pick` holds.
    pub(crate) fn matching(&self, mut pick: impl FnMut(Handle, &Request) -> bool) -> Vec<(Handle, What)> {
        let open = self.open.iter().filter(|((handle, _), request)| pick(*handle, request));
        open.map(|(key, _)| *key).collect()
    }

    /// Requests that have been open for too long.
    pub(crate) fn overdue(&self, now: Timestamp, window: &Window) -> Vec<(Handle, What)> {
        self.matching(|_, request| {
            let age = now.since(request.sent_at);
            if request.piece.is_none() {
                return age > NODE_TIMEOUT + window.rtt() * 4;
            }
            let patience = REQUEST_TIMEOUT + Duration::from_micros(request.rest() * 1_000_000 / SLOWEST);
            age > REQUEST_TIMEOUT && window.time_for(now, self.ahead(request)) > patience
        })
    }

    fn expire_late(&mut self, now: Timestamp) {
        while let Some((at, handle, what)) = self.late_order.front().copied() {
            if now.since(at) <= LATE_GRACE {
                break;
            }
            self.late_order.pop_front();
            if self.late.get(&(handle, what)).is_some_and(|late| late.since == at) {
                self.late.remove(&(handle, what));
            }
        }
    }

    fn forget_late(&mut self, handle: Handle, what: What) {
        if let Some(late) = self.late.get_mut(&(handle, what)) {
            late.copies -= 1;
            if late.copies == 0 {
                self.late.remove(&(handle, what));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Codec, HashKind};

    fn request(piece: u32) -> Request {
        Request {
            transfer: TransferId(1),
            cid: Cid::of(Codec::Raw, HashKind::Blake3, &piece.to_le_bytes()),
            piece: Some(piece),
            len: 1000,
            received: 0,
            sent_at: Timestamp::ZERO,
            release: None,
            mark: 0,
        }
    }

    #[test]
    fn late_blocks_are_known_once_and_strangers_are_not() {
        let mut requests = Requests::default();
        let (handle, what) = (Handle(1), What::Piece(7));
        requests.insert(handle, what, request(7));
        requests.retract(Timestamp::ZERO, handle, what).expect("was open");
        assert!(matches!(
            requests.classify(Timestamp::ZERO, handle, what),
            Arrival::Late(..)
        ));
        assert!(matches!(
            requests.classify(Timestamp::ZERO, handle, what),
            Arrival::Unsolicited
        ));
    }

    #[test]
    fn requests_are_found_by_handle_and_by_run() {
        let mut requests = Requests::default();
        let block = What::Block {
            request: crate::wire::RequestId(0),
            position: 3,
        };
        for (handle, what) in [
            (1, What::Piece(9)),
            (2, What::Piece(4)),
            (2, What::Piece(7)),
            (2, block),
            (3, What::Piece(5)),
        ] {
            requests.insert(Handle(handle), what, request(0));
        }
        let of: Vec<What> = requests.of_handle(Handle(2)).map(|(what, _)| what).collect();
        assert_eq!(of, [What::Piece(4), What::Piece(7), block]);
        let within = |start, len| requests.within(Handle(2), Run { start, len }).collect::<Vec<u32>>();
        assert_eq!(within(0, 7), [4]);
        assert_eq!(within(4, 4), [4, 7]);
        assert_eq!(within(8, u32::MAX), [0; 0]);
    }

    #[test]
    fn memory_of_late_blocks_is_bounded_and_leniency_ends() {
        let mut requests = Requests::default();
        for piece in 0..=MAX_LATE as u32 {
            requests.insert(Handle(1), What::Piece(piece), request(piece));
            requests.retract(Timestamp::ZERO, Handle(1), What::Piece(piece));
        }
        assert!(requests.late.len() <= MAX_LATE && requests.late_order.len() <= MAX_LATE);
        let classify = |requests: &mut Requests, at| requests.classify(at, Handle(1), What::Piece(0));
        assert!(matches!(classify(&mut requests, Timestamp::ZERO), Arrival::Forgotten));
        let later = Timestamp::ZERO + LATE_GRACE + Duration::from_secs(1);
        assert!(matches!(classify(&mut requests, later), Arrival::Unsolicited));
    }
}
