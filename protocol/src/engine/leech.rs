//! The leecher's half of the protocol: opening handles, and what servers say on them.

use std::time::Duration;

use super::action::{Expected, Violation};
use super::core::Engine;
use super::ids::{ConnId, TransferId};
use super::session::{Role, Session, SessionState, Source};
use super::transfer::Transfer;
use crate::format::{Cid, PieceSet};
use crate::wire::limits::MAX_HANDLES;
use crate::wire::{Handle, Have, Message, RejectReason, Rejection, Run, What, runs_of};

/// A root that a peer refused is asked for again after this; at once if the peer asks us for it.
const OPEN_RETRY: Duration = Duration::from_secs(30);
/// A leecher of ours that has nothing yet is asked again after this.
const LEECHER_RETRY: Duration = Duration::from_millis(500);
/// A peer that is busy is left alone for this long.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// Times that a server may change its mind about each piece, on average.
const MAX_CHANGES: u64 = 8;

impl Engine {
    /// Opens at a peer all that we fetch and have not opened there.
    pub(super) fn open_sessions(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if !conn.may_ask() || conn.is_doubted(self.now) {
            return;
        }
        let fetching = self
            .transfers
            .iter()
            .filter(|(_, t)| (t.is_fetching() || t.spread.is_some()) && t.network == self.config.network);
        for (transfer_id, transfer) in fetching {
            for (root, role) in roots_to_open(transfer, |root| conn.refused.contains_key(root)) {
                let waits = conn.refused.get(&root).is_some_and(|retry| self.now < *retry);
                if waits || conn.by_root.contains_key(&root) || conn.sessions.len() >= MAX_HANDLES {
                    continue;
                }
                let handle = conn.open_session(Session::new(*transfer_id, root, role));
                self.actions
                    .push_back(super::Action::Send(id, Message::Open { handle, root }));
                self.to_fill.insert(id);
            }
        }
        self.ask_pace(id);
    }

    pub(super) fn handle_as_leecher(&mut self, id: ConnId, message: Message) -> Result<(), Violation> {
        match message {
            Message::Opened { handle, have } => self.on_opened(id, handle, have),
            Message::Rejected { handle, what, reason } => self.on_rejected(id, handle, what, reason),
            Message::Closed { handle, .. } => {
                if self.check_handle(id, handle)? {
                    self.refuse_root(id, handle);
                }
                Ok(())
            }
            Message::Have { handle, runs } => self.on_changed(id, handle, &runs, true),
            Message::Lost { handle, runs } => {
                self.on_changed(id, handle, &runs, false)?;
                self.on_unanswered(id, handle, &runs, true);
                Ok(())
            }
            Message::Peers { handle, peers } => {
                self.check_handle(id, handle)?;
                self.on_peers(id, handle, peers)
            }
            Message::Offer { handle, runs } => {
                self.check_handle(id, handle)?;
                self.on_offer(id, handle, &runs)
            }
            Message::Choke => {
                // What is under way still comes; the rest is rejected piece by piece.
                if let Some(conn) = self.conns.get_mut(&id) {
                    conn.choked_by_peer = true;
                }
                Ok(())
            }
            Message::Unchoke => {
                if let Some(conn) = self.conns.get_mut(&id) {
                    conn.choked_by_peer = false;
                    self.to_fill.insert(id);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether we hold the handle still; one that we never had is an offence.
    fn check_handle(&self, id: ConnId, handle: Handle) -> Result<bool, Violation> {
        let Some(conn) = self.conns.get(&id) else {
            return Ok(false);
        };
        if !conn.knows_handle(handle) {
            return Err(Violation::OutOfOrder);
        }
        Ok(conn.sessions.contains_key(&handle))
    }

    fn on_opened(&mut self, id: ConnId, handle: Handle, have: Have) -> Result<(), Violation> {
        if !self.check_handle(id, handle)? {
            return Ok(());
        }
        let Some(session) = self.conns.get_mut(&id).and_then(|conn| conn.sessions.get_mut(&handle)) else {
            return Ok(());
        };
        if session.state != SessionState::Opening {
            return Err(Violation::OutOfOrder);
        }
        session.state = SessionState::Open;
        let transfer_id = session.transfer;
        let Some(transfer) = self.transfers.get_mut(&transfer_id) else {
            return Ok(());
        };
        let mut seen: Vec<u32> = Vec::new();
        match (session.role, &mut transfer.pieces) {
            (Role::Pack, _) => {}
            (Role::Related, Some(pieces)) => {
                session.source = Source::Unknown {
                    tried: pieces.map.none(),
                }
            }
            (Role::Related, None) => {}
            (Role::Content, None) => match have {
                Have::All => session.source = Source::All,
                Have::None | Have::Map(_) => session.state = SessionState::Early,
            },
            (Role::Content, Some(pieces)) => match have {
                Have::All => {
                    session.source = Source::All;
                    transfer.seeds += 1;
                    self.to_offer.insert(transfer_id);
                }
                Have::None => session.source = Source::Map(pieces.map.none()),
                Have::Map(map) => {
                    let set = map.to_set(pieces.len()).ok_or(Violation::NoSuchPiece)?;
                    for piece in set.iter_ones() {
                        pieces.picker.on_gained(piece as u32);
                    }
                    if transfer.spread.is_some() {
                        seen = set.iter_ones().map(|piece| piece as u32).collect();
                    }
                    session.held = set.count_ones() as u32;
                    session.source = Source::Map(set);
                }
            },
        }
        for piece in seen {
            self.piece_is_out(transfer_id, piece, id, false);
        }
        self.to_fill.insert(id);
        self.join_circle(id, transfer_id);
        Ok(())
    }

    fn on_rejected(
        &mut self,
        id: ConnId,
        handle: Handle,
        what: Rejection,
        reason: RejectReason,
    ) -> Result<(), Violation> {
        if !self.check_handle(id, handle)? {
            return Ok(());
        }
        match what {
            Rejection::Open => {
                self.refuse_root(id, handle);
                self.open_sessions(id);
            }
            Rejection::Pieces(runs) if reason == RejectReason::Released => self.on_released(id, handle, &runs),
            Rejection::Pieces(runs) => {
                if reason == RejectReason::NotFound {
                    // A race with `Lost`, or content that came after `Opened`: what it does not have, it does not have.
                    let requested = self.on_unanswered(id, handle, &runs, false);
                    self.note_refusals(id, handle, &requested);
                    self.on_changed(id, handle, &runs_of(requested), false)?;
                } else {
                    self.on_unanswered(id, handle, &runs, false);
                }
                self.after_refusal(id, handle, reason);
            }
            Rejection::Blocks { request, positions } => {
                if positions.is_empty() {
                    self.end_skeletons(id, |coming| coming.is_of(handle, Some(request)));
                    return Ok(());
                }
                for position in positions {
                    self.refuse_block(id, handle, What::Block { request, position }, reason);
                }
                self.after_refusal(id, handle, reason);
            }
        }
        Ok(())
    }

    fn after_refusal(&mut self, id: ConnId, handle: Handle, reason: RejectReason) {
        let until = self.now + BUSY_PAUSE;
        let session = self.conns.get_mut(&id).and_then(|conn| conn.sessions.get_mut(&handle));
        if let Some(session) = session.filter(|_| matches!(reason, RejectReason::Busy | RejectReason::Other(_))) {
            session.busy_until = until;
        }
        self.to_fill.insert(id);
    }

    fn refuse_block(&mut self, id: ConnId, handle: Handle, what: What, reason: RejectReason) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(request) = conn.requests.get(handle, what).copied() else {
            return;
        };
        if let (Some(piece), Some(session)) = (request.piece, conn.sessions.get_mut(&handle))
            && let Source::Unknown { tried } = &mut session.source
            && reason != RejectReason::Choked
        {
            tried.set(piece as usize, true);
        }
        self.end_request(id, handle, what, true);
    }

    /// Requests for `runs` will not be answered, except that what is under way may still come. The pieces that were on request.
    fn on_unanswered(&mut self, id: ConnId, handle: Handle, runs: &[Run], under_way: bool) -> Vec<u32> {
        let Some(conn) = self.conns.get(&id) else {
            return Vec::new();
        };
        let requested: Vec<u32> = runs.iter().flat_map(|run| conn.requests.within(handle, *run)).collect();
        for piece in &requested {
            if under_way {
                self.retract_request(id, handle, What::Piece(*piece));
            } else {
                self.end_request(id, handle, What::Piece(*piece), true);
            }
        }
        self.to_fill.insert(id);
        requested
    }

    /// The server has got or lost pieces.
    fn on_changed(&mut self, id: ConnId, handle: Handle, runs: &[Run], gained: bool) -> Result<(), Violation> {
        if !self.check_handle(id, handle)? {
            return Ok(());
        }
        let Some(session) = self.conns.get_mut(&id).and_then(|conn| conn.sessions.get_mut(&handle)) else {
            return Ok(());
        };
        if session.role != Role::Content {
            return Err(Violation::NoSuchPiece);
        }
        let transfer_id = session.transfer;
        let Some(transfer) = self.transfers.get_mut(&transfer_id) else {
            return Ok(());
        };
        let spreading = transfer.spread.is_some();
        let mut seen = Vec::new();
        let Some(pieces) = &mut transfer.pieces else {
            if !gained || session.source != Source::All {
                session.state = SessionState::Early;
                session.source = Source::Nothing;
            }
            return Ok(());
        };
        if session.state == SessionState::Opening {
            return Err(Violation::OutOfOrder);
        }
        if runs.iter().any(|run| run.end() > pieces.len()) {
            return Err(Violation::NoSuchPiece);
        }
        if session.source == Source::All {
            if gained || runs.is_empty() {
                return Ok(());
            }
            // It no longer has everything: counted piece by piece from now on.
            transfer.seeds -= 1;
            let all = pieces.map.all();
            for piece in 0..pieces.len() {
                pieces.picker.on_gained(piece);
            }
            session.source = Source::Map(all);
        }
        let Source::Map(have) = &mut session.source else {
            return Ok(());
        };
        let mut changes = 0;
        let mut useful = false;
        for run in runs {
            flip(have, *run, gained, |piece| {
                changes += 1;
                if gained {
                    session.held += 1;
                    pieces.picker.on_gained(piece);
                    useful |= pieces.picker.contains(piece);
                    if spreading {
                        seen.push(piece);
                    }
                } else {
                    session.held = session.held.saturating_sub(1);
                    pieces.picker.on_lost(piece);
                }
            });
        }
        session.changes += changes;
        if session.changes > MAX_CHANGES * (u64::from(pieces.len()) + 1024) {
            return Err(Violation::OverLimit("changes to a have-map"));
        }
        // What cannot be picked gives nothing to look for; what is on request elsewhere may be asked for twice in the end.
        if useful {
            session.exhausted = 0;
        }
        if gained && changes > 0 {
            self.to_fill.insert(id);
        }
        for piece in seen {
            self.piece_is_out(transfer_id, piece, id, false);
        }
        Ok(())
    }

    fn refuse_root(&mut self, id: ConnId, handle: Handle) {
        if let Some(conn) = self.conns.get_mut(&id)
            && let Some(session) = conn.sessions.get(&handle)
        {
            // Who fetches it from us too will have something soon, which a seed waits to see. Its asking may have crossed ours, and then says so no more.
            let fetching = self.transfers.get(&session.transfer).is_some_and(Transfer::is_fetching);
            let leeches = conn.served.values().any(|served| served.transfer == session.transfer);
            let soon = leeches || !fetching;
            let retry = self.now + if soon { LEECHER_RETRY } else { OPEN_RETRY };
            if conn.refused.len() >= MAX_HANDLES {
                let now = self.now;
                conn.refused.retain(|_, retry| *retry > now);
            }
            conn.refused.insert(session.root, retry);
        }
        self.drop_session(id, handle);
    }

    /// Gives a handle back.
    pub(super) fn close_session(&mut self, id: ConnId, handle: Handle) {
        if self
            .conns
            .get(&id)
            .is_some_and(|conn| conn.sessions.contains_key(&handle))
        {
            self.drop_session(id, handle);
            self.send(id, Message::Close { handle });
        }
    }

    /// Gives back all handles of a transfer.
    pub(super) fn close_sessions(&mut self, transfer: TransferId) {
        for id in self.conns.keys().copied().collect::<Vec<_>>() {
            let Some(conn) = self.conns.get(&id) else { continue };
            let mine = conn.sessions.iter().filter(|(_, session)| session.transfer == transfer);
            for handle in mine.map(|(handle, _)| *handle).collect::<Vec<_>>() {
                self.close_session(id, handle);
            }
        }
    }

    /// Forgets a handle: its requests go elsewhere, and what the peer has counts no more.
    pub(super) fn drop_session(&mut self, id: ConnId, handle: Handle) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if let Some(kept) = conn
            .arriving
            .and_then(|arriving| arriving.kept)
            .filter(|kept| kept.handle == handle)
        {
            // What is coming in is read over from here.
            if let Some(arriving) = &mut conn.arriving {
                arriving.kept = None;
            }
            let Expected {
                transfer, cid, piece, ..
            } = kept.expected;
            match piece {
                Some(piece) if kept.awaited => self.unassign(transfer, piece.get(), id),
                None if !kept.requested => {
                    if let Some(of) = self.transfers.get_mut(&transfer) {
                        of.nodes.release(id, &cid, false);
                    }
                }
                _ => {}
            }
        }
        self.end_skeletons(id, |coming| coming.is_of(handle, None));
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let requested: Vec<What> = conn.requests.of_handle(handle).map(|(what, _)| what).collect();
        for what in requested {
            self.retract_request(id, handle, what);
        }
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(session) = conn.sessions.remove(&handle) else {
            return;
        };
        conn.by_root.remove(&session.root);
        let Some(transfer) = self.transfers.get_mut(&session.transfer) else {
            return;
        };
        let Some(pieces) = &mut transfer.pieces else { return };
        match &session.source {
            Source::All => transfer.seeds -= 1,
            Source::Map(have) => {
                for piece in have.iter_ones() {
                    pieces.picker.on_lost(piece as u32);
                }
            }
            Source::Nothing | Source::Unknown { .. } => {}
        }
    }
}

/// Makes every bit of `run` be `to`, telling `each` of those that were not. Takes a step a word where nothing changes: runs are short on the
/// wire however long they are.
fn flip(set: &mut PieceSet, run: Run, to: bool, mut each: impl FnMut(u32)) {
    let (start, end) = (run.start as usize, run.end() as usize);
    let words = set.as_raw_mut_slice();
    let mut at = start;
    while at < end {
        let (word, bit) = (at / 64, at % 64);
        let bits = (64 - bit).min(end - at);
        let mask = (u64::MAX >> (64 - bits)) << bit;
        let mut flips = if to { !words[word] & mask } else { words[word] & mask };
        words[word] ^= flips;
        while flips != 0 {
            each((word * 64) as u32 + flips.trailing_zeros());
            flips &= flips - 1;
        }
        at += bits;
    }
}

/// Roots of a transfer that a peer may be asked for, and what for.
fn roots_to_open(transfer: &Transfer, refused: impl Fn(&Cid) -> bool) -> Vec<(Cid, Role)> {
    let mut roots = Vec::new();
    if let Some(content) = transfer.content {
        roots.push((content, Role::Content));
        if transfer.is_fetching() && transfer.pieces.is_some() && refused(&content) {
            roots.extend(transfer.related.iter().map(|root| (*root, Role::Related)));
        }
    }
    if transfer.pieces.is_none() {
        roots.extend(transfer.packs.iter().map(|root| (*root, Role::Pack)));
    }
    roots
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn flips_are_what_a_look_at_each_bit_finds(
            len in 1..300usize,
            ones in vec(any::<prop::sample::Index>(), 0..200),
            runs in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<bool>()), 1..10),
        ) {
            let mut set = PieceSet::repeat(false, len);
            ones.iter().for_each(|one| set.set(one.index(len), true));
            for (start, run_len, to) in runs {
                let start = start.index(len);
                let run = Run { start: start as u32, len: run_len.index(len - start) as u32 + 1 };
                let mut model = set.clone();
                let expected: Vec<u32> = run.pieces().filter(|piece| model[*piece as usize] != to).collect();
                run.pieces().for_each(|piece| model.set(piece as usize, to));
                let mut flipped = Vec::new();
                flip(&mut set, run, to, |piece| flipped.push(piece));
                prop_assert_eq!(flipped, expected);
                prop_assert_eq!(&set, &model);
            }
        }
    }
}
