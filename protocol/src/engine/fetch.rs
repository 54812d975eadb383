//! Which requests to send over a connection that has room for more.

use std::time::Duration;

use smallvec::{SmallVec, smallvec};

use super::config::PickOrder;
use super::core::Engine;
use super::endgame::{self, Choice};
use super::flow::Gate;
use super::ids::{ConnId, TransferId};
use super::requests::{Release, Request};
use super::session::{Role, Session, SessionState, Source};
use crate::format::Cid;
use crate::wire::limits::{MAX_CIDS, MAX_QUEUED_PIECES, MAX_RUNS};
use crate::wire::{Handle, Message, Run, What, runs_of};

/// Nodes of skeletons on request from one peer at a time.
const MAX_NODES_IN_FLIGHT: usize = 2 * MAX_CIDS;
/// Pieces on request from one peer at a time, however small.
const MAX_PIECES_IN_FLIGHT: usize = MAX_QUEUED_PIECES as usize / 2;
/// Bytes of one run of consecutive pieces: long ones cost rarity.
const RUN_BYTES: u64 = 512 * 1024;
/// Bytes that a session gets before it is the next one's turn.
const TURN_BYTES: u64 = 128 * 1024;
/// While several sessions share a connection, none has more on request than it delivers in this time (or than [`TURN_BYTES`]).
const SESSION_DRAIN: Duration = Duration::from_secs(1);
/// Pieces that others have been asked to release for one connection in the endgame; before, one.
const MAX_AWAITED: usize = 4;
/// How often it is looked, before the end, for pieces that could move to a peer with nothing to do.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a peer is awaited, beyond two round trips, that was asked to release a piece.
const RELEASE_PATIENCE: Duration = Duration::from_millis(500);
/// Contents on one connection that are looked at without taking memory for it.
const FEW: usize = 4;
/// A transfer's first pieces are chosen by lot: whatever they are, they can be traded soonest.
const RANDOM_FIRST: u32 = 4;

impl Engine {
    /// Sends what requests there are to send over a connection.
    pub(super) fn fill(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(&id) else { return };
        if !conn.may_ask() || conn.sessions.is_empty() {
            return;
        }
        self.fill_nodes(id);
        let Some(conn) = self.conns.get(&id) else { return };
        let snubbed = conn.snubbed_until.is_some();
        if conn.choked_by_peer
            || conn
                .snubbed_until
                .is_some_and(|until| self.now < until || !conn.requests.is_empty())
            || conn.window.room() == 0
            // As with the window: small pieces are asked for many at a time, not one for each that came.
            || conn.requests.len() > MAX_PIECES_IN_FLIGHT - MAX_PIECES_IN_FLIGHT / 4
        {
            return;
        }
        // A snubbed peer gets one piece to show what it can.
        let mut room = if snubbed { 1 } else { conn.window.room() };
        let open = conn.sessions.iter().filter(|(_, session)| {
            session.state == SessionState::Open && session.role != Role::Pack && session.busy_until <= self.now
        });
        let mut handles: SmallVec<[Handle; FEW]> = open.map(|(handle, _)| *handle).collect();
        if handles.is_empty() {
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.window.on_idle();
            }
            return;
        }
        let after = handles.partition_point(|handle| *handle <= conn.turn);
        handles.rotate_left(after);
        let transfer_of = |handle: &Handle| Some(conn.sessions.get(handle)?.transfer);
        // Short turns keep to the weights; longer ones take fewer messages.
        let turn_bytes = if self.priorities_differ(handles.iter().filter_map(transfer_of)) {
            TURN_BYTES
        } else {
            TURN_BYTES.max(room / handles.len() as u64)
        };
        let mut picked: SmallVec<[(Handle, Vec<u32>); FEW]> =
            handles.iter().map(|handle| (*handle, Vec::new())).collect();
        let mut first = None;
        let held_back = self.held_back(id, &handles);
        let mut live: SmallVec<[usize; FEW]> = (0..handles.len()).filter(|i| !held_back[*i]).collect();
        while room > 0 {
            // Whoever has got least for its weight; who began last, last.
            let tags = live.iter().enumerate().map(|(at, i)| {
                let session = self.conns.get(&id).and_then(|conn| conn.sessions.get(&picked[*i].0));
                (session.map_or(0, |session| self.tag_of(session)), at)
            });
            let Some((_, at)) = tags.min() else { break };
            let (handle, pieces) = &mut picked[live[at]];
            let bytes = self.pick(id, *handle, room.min(turn_bytes), pieces);
            if bytes == 0 {
                live.remove(at);
                continue;
            }
            room = room.saturating_sub(bytes);
            first = first.or(Some(*handle));
            let session = self.conns.get(&id).and_then(|conn| conn.sessions.get(handle));
            if let Some(transfer) = session.map(|session| session.transfer) {
                self.charge(transfer, bytes);
            }
        }
        // The next one begins next time, so that the short last turn falls on each.
        if let (Some(first), Some(conn)) = (first, self.conns.get_mut(&id)) {
            conn.turn = first;
        }
        if room > 0
            && let Some(conn) = self.conns.get_mut(&id)
        {
            conn.window.on_idle();
        }
        for (handle, pieces) in picked {
            if !pieces.is_empty() {
                self.send_requests(id, handle, pieces);
            }
        }
    }

    /// Which of the sessions have as much on request as they deliver in [`SESSION_DRAIN`]. One whose transfer is limited at the other end would
    /// fill the window that all of them share.
    fn held_back(&self, id: ConnId, handles: &[Handle]) -> SmallVec<[bool; FEW]> {
        let Some(conn) = self.conns.get(&id).filter(|_| handles.len() > 1) else {
            return smallvec![false; handles.len()];
        };
        let full = |handle: &Handle| {
            let rate = conn
                .sessions
                .get(handle)
                .map_or(0, |session| session.down.rate(self.now));
            let drained = rate.saturating_mul(SESSION_DRAIN.as_millis() as u64) / 1000;
            conn.requests.asked(*handle) >= drained.max(TURN_BYTES)
        };
        handles.iter().map(full).collect()
    }

    fn send_requests(&mut self, id: ConnId, handle: Handle, pieces: Vec<u32>) {
        self.set_busy();
        let Some(session) = self.conns.get(&id).and_then(|conn| conn.sessions.get(&handle)) else {
            return;
        };
        if session.role == Role::Content {
            for runs in runs_of(pieces).chunks(MAX_RUNS) {
                self.send(
                    id,
                    Message::Request {
                        handle,
                        runs: runs.to_vec(),
                    },
                );
            }
        }
    }

    /// Picks up to `budget` bytes of pieces for a session and books them; the last may reach past it. Bytes picked.
    fn pick(&mut self, id: ConnId, handle: Handle, budget: u64, into: &mut Vec<u32>) -> u64 {
        let now = self.now;
        let exempt = self.is_exempt(id);
        let Some(conn) = self.conns.get_mut(&id) else { return 0 };
        let Some(session) = conn.sessions.get_mut(&handle) else {
            return 0;
        };
        let transfer_id = session.transfer;
        let Some(transfer) = self.transfers.get_mut(&transfer_id) else {
            return 0;
        };
        if !transfer.is_fetching() {
            return 0;
        }
        let mut gate = Gate::down(exempt, &mut self.down, &mut transfer.limits.down);
        if !gate.is_open(now) {
            if transfer.limits.down.is_open(now) {
                self.down_shut = true;
            } else {
                self.waiting_down.insert(transfer_id);
            }
            return 0;
        }
        let Some(pieces) = &mut transfer.pieces else { return 0 };
        if session.role == Role::Related {
            return self.pick_by_cid(id, handle, transfer_id);
        }
        let mut bytes = 0;
        while bytes < budget && conn.requests.len() < MAX_PIECES_IN_FLIGHT && gate.is_open(now) {
            if pieces.picker.is_exhausted_since(session.exhausted, &session.source) {
                session.exhausted = pieces.picker.epoch();
                break;
            }
            let first = match (&mut session.offers, transfer.order) {
                (_, PickOrder::Sequential) => pieces.picker.first(&session.source),
                (Some(offers), _) => offers.next(pieces, &session.source),
                (None, PickOrder::RarestFirst) if pieces.have_count < RANDOM_FIRST => {
                    pieces.picker.any(&session.source, &mut self.rng)
                }
                (None, PickOrder::RarestFirst) => pieces.picker.rarest(&session.source, &mut self.rng),
            };
            let Some(first) = first else {
                session.exhausted = pieces.picker.epoch();
                break;
            };
            let rarity = pieces.picker.availability(first);
            let mut piece = first;
            let mut run_bytes = 0;
            loop {
                let index = pieces
                    .map
                    .index(piece)
                    .expect("the picker holds pieces of this map only");
                let leaf = pieces.map.leaf(index);
                pieces.assign(piece, id);
                let what = What::Piece(piece);
                conn.requests.insert(
                    handle,
                    what,
                    Request::new(now, transfer_id, leaf.cid, Some(piece), leaf.len),
                );
                conn.window.on_request(now, u64::from(leaf.len));
                gate.take(now, u64::from(leaf.len));
                into.push(piece);
                run_bytes += u64::from(leaf.len);
                piece += 1;
                let goes_on = piece < pieces.len()
                    && session.offers.is_none()
                    && bytes + run_bytes < budget
                    && run_bytes < RUN_BYTES
                    && conn.requests.len() < MAX_PIECES_IN_FLIGHT
                    && pieces.picker.contains(piece)
                    && pieces.picker.availability(piece) == rarity
                    && pieces.picker.go_together(first, piece)
                    && session.source.has(piece)
                    && gate.is_open(now);
                if !goes_on {
                    break;
                }
            }
            bytes += run_bytes;
        }
        if bytes == 0 && !pieces.pending.is_empty() && session.offers.is_none() {
            let over = pieces.picker.count() == 0;
            let looks = conn.requests.is_empty() && now.since(conn.looked_at) >= LOOK_EVERY;
            if over || looks {
                conn.looked_at = now;
                return self.pick_again(id, handle, transfer_id, over, into);
            }
        }
        bytes
    }

    /// Everything that this connection could bring is on request, and it has nothing to do. `over`: everything altogether is.
    fn pick_again(
        &mut self,
        id: ConnId,
        handle: Handle,
        transfer_id: TransferId,
        over: bool,
        into: &mut Vec<u32>,
    ) -> u64 {
        let now = self.now;
        let most = if over { MAX_AWAITED } else { 1 };
        let Some(conn) = self.conns.get_mut(&id) else { return 0 };
        conn.awaits.retain(|until| now < *until);
        for _ in conn.awaits.len()..most {
            match endgame::choose(now, id, handle, transfer_id, over, &self.conns, &self.transfers) {
                None => break,
                Some(Choice::Move { piece, from }) => self.ask_to_release(from, transfer_id, piece, id),
                Some(Choice::Double { piece }) => {
                    into.push(piece);
                    return self.book(id, handle, transfer_id, piece);
                }
            }
        }
        0
    }

    /// Asks a peer to release a piece that `to` would bring sooner.
    fn ask_to_release(&mut self, from: ConnId, transfer_id: TransferId, piece: u32, to: ConnId) {
        let Some(root) = self.transfers.get(&transfer_id).and_then(|of| of.content) else {
            return;
        };
        let Some(conn) = self.conns.get_mut(&from) else { return };
        let Some(handle) = conn.by_root.get(&root).copied() else {
            return;
        };
        let Some(request) = conn.requests.get_mut(handle, What::Piece(piece)) else {
            return;
        };
        let until = self.now + conn.window.rtt() * 2 + RELEASE_PATIENCE;
        request.release = Some(Release { to, until });
        if let Some(to) = self.conns.get_mut(&to) {
            to.awaits.push(until);
        }
        let runs = vec![Run { start: piece, len: 1 }];
        self.send(from, Message::Release { handle, runs });
    }

    /// A peer has released pieces: who would bring them sooner is asked for them.
    pub(super) fn on_released(&mut self, id: ConnId, handle: Handle, runs: &[Run]) {
        let Some(conn) = self.conns.get(&id) else { return };
        let pieces: Vec<u32> = runs.iter().flat_map(|run| conn.requests.within(handle, *run)).collect();
        for piece in pieces {
            let what = What::Piece(piece);
            let request = self.conns.get(&id).and_then(|conn| conn.requests.get(handle, what));
            // The answer may be to a former request of the same; then this one is still to be answered, and if it was asked back too, its block may come.
            let Some((transfer, release)) = request.and_then(|request| Some((request.transfer, request.release?)))
            else {
                continue;
            };
            self.retract_request(id, handle, what);
            self.take_over(release.to, transfer, piece);
        }
    }

    /// Asks a connection for a piece that was released for it, if that can be.
    fn take_over(&mut self, id: ConnId, transfer_id: TransferId, piece: u32) {
        let Some(of) = self.transfers.get(&transfer_id) else {
            return;
        };
        let (Some(root), Some(pieces)) = (of.content, &of.pieces) else {
            return;
        };
        let Some(conn) = self.conns.get(&id) else { return };
        let Some(handle) = conn.by_root.get(&root).copied() else {
            return;
        };
        let serves = conn.sessions.get(&handle).is_some_and(|session| {
            session.state == SessionState::Open && session.offers.is_none() && session.source.has(piece)
        });
        if serves
            && pieces.picker.contains(piece)
            && of.is_fetching()
            && !conn.choked_by_peer
            && conn.snubbed_until.is_none()
            && conn.window.room() > 0
        {
            self.book(id, handle, transfer_id, piece);
            self.send_requests(id, handle, vec![piece]);
        }
    }

    /// Books a request of a piece that is to be sent. Its bytes.
    fn book(&mut self, id: ConnId, handle: Handle, transfer_id: TransferId, piece: u32) -> u64 {
        let now = self.now;
        let exempt = self.is_exempt(id);
        let Some(conn) = self.conns.get_mut(&id) else { return 0 };
        let Some(transfer) = self.transfers.get_mut(&transfer_id) else {
            return 0;
        };
        let Some(pieces) = &mut transfer.pieces else { return 0 };
        let Some(index) = pieces.map.index(piece) else { return 0 };
        let leaf = pieces.map.leaf(index);
        pieces.assign(piece, id);
        let request = Request::new(now, transfer_id, leaf.cid, Some(piece), leaf.len);
        conn.requests.insert(handle, What::Piece(piece), request);
        conn.window.on_request(now, u64::from(leaf.len));
        Gate::down(exempt, &mut self.down, &mut transfer.limits.down).take(now, u64::from(leaf.len));
        u64::from(leaf.len)
    }

    /// Asks a peer that has another version for leaves that nobody is known to have.
    fn pick_by_cid(&mut self, id: ConnId, handle: Handle, transfer_id: TransferId) -> u64 {
        let now = self.now;
        let exempt = self.is_exempt(id);
        let Some(conn) = self.conns.get_mut(&id) else { return 0 };
        let Some(transfer) = self
            .transfers
            .get_mut(&transfer_id)
            .filter(|transfer| transfer.seeds == 0)
        else {
            return 0;
        };
        let (Some(session), Some(pieces)) = (conn.sessions.get(&handle), &mut transfer.pieces) else {
            return 0;
        };
        let Source::Unknown { tried } = &session.source else {
            return 0;
        };
        let asked = conn.requests.of_handle(handle).count();
        if session.exhausted == pieces.picker.epoch() || asked >= MAX_CIDS / 2 {
            return 0;
        }
        let chosen = pieces.picker.unheld(MAX_CIDS - asked, |piece| !tried[piece as usize]);
        if chosen.is_empty() {
            let epoch = pieces.picker.epoch();
            if let Some(session) = conn.sessions.get_mut(&handle) {
                session.exhausted = epoch;
            }
            return 0;
        }
        let mut gate = Gate::down(exempt, &mut self.down, &mut transfer.limits.down);
        let request = conn.next_request();
        let mut cids = Vec::with_capacity(chosen.len());
        let mut bytes = 0;
        for (position, piece) in chosen.into_iter().enumerate() {
            let Some(index) = pieces.map.index(piece) else { continue };
            let leaf = pieces.map.leaf(index);
            pieces.assign(piece, id);
            let what = What::Block {
                request,
                position: position as u16,
            };
            conn.requests.insert(
                handle,
                what,
                Request::new(now, transfer_id, leaf.cid, Some(piece), leaf.len),
            );
            conn.window.on_request(now, u64::from(leaf.len));
            gate.take(now, u64::from(leaf.len));
            cids.push(leaf.cid);
            bytes += u64::from(leaf.len);
        }
        self.set_busy();
        self.send(id, Message::RequestCids { handle, request, cids });
        bytes
    }

    /// Asks for nodes of skeletons. A handle whose opening is not confirmed yet is used already: it saves a round trip.
    fn fill_nodes(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(&id) else { return };
        let usable = conn
            .sessions
            .iter()
            .filter(|(_, session)| session.role != Role::Related);
        let waits = |session: &Session| {
            let of = self.transfers.get(&session.transfer);
            of.is_some_and(|of| of.nodes.waiting() > 0 && of.is_fetching())
        };
        let mut by_transfer: SmallVec<[(TransferId, Handle); FEW]> = SmallVec::new();
        for (handle, session) in usable.filter(|(_, session)| waits(session)) {
            // One handle of a transfer is enough, the surest first.
            match by_transfer
                .iter_mut()
                .find(|(transfer, _)| *transfer == session.transfer)
            {
                Some(known) if session.state != SessionState::Opening => known.1 = *handle,
                Some(_) => {}
                None => by_transfer.push((session.transfer, *handle)),
            }
        }
        for (transfer_id, handle) in by_transfer {
            // Asking through one may have taken from what waits for another.
            let waiting = self.transfers.get(&transfer_id).map_or(0, |of| of.nodes.waiting());
            if waiting == 0 {
                continue;
            }
            let peers = self
                .conns
                .values()
                .filter(|conn| conn.has_session(transfer_id, false))
                .count();
            let whole = self.is_skeleton_due(id, transfer_id);
            let share = if whole { waiting } else { waiting.div_ceil(peers.max(1)) };
            self.ask_nodes(id, handle, transfer_id, share, whole);
        }
    }

    fn ask_nodes(&mut self, id: ConnId, handle: Handle, transfer_id: TransferId, mut share: usize, mut whole: bool) {
        let now = self.now;
        while share > 0 {
            let Some(conn) = self.conns.get_mut(&id) else { return };
            let Some(transfer) = self.transfers.get_mut(&transfer_id) else {
                return;
            };
            let room = MAX_NODES_IN_FLIGHT.saturating_sub(conn.requests.nodes());
            let cids: Vec<Cid> = transfer.nodes.ask(id, room.min(share).min(MAX_CIDS));
            if cids.is_empty() {
                return;
            }
            share -= cids.len();
            let request = conn.next_request();
            for (position, cid) in cids.iter().enumerate() {
                let what = What::Block {
                    request,
                    position: position as u16,
                };
                conn.requests
                    .insert(handle, what, Request::new(now, transfer_id, *cid, None, 0));
            }
            if std::mem::take(&mut whole) {
                self.ask_skeleton(id, handle, request, transfer_id, cids);
            } else {
                self.send(id, Message::WantNodes { handle, request, cids });
            }
            self.set_busy();
        }
    }
}

impl Request {
    fn new(now: crate::time::Timestamp, transfer: TransferId, cid: Cid, piece: Option<u32>, len: u32) -> Self {
        Self {
            transfer,
            cid,
            piece,
            len,
            received: 0,
            sent_at: now,
            release: None,
            mark: 0,
        }
    }
}
