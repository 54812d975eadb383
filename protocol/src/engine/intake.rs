//! Blocks that come in: whether they are wanted, and what became of them.

use super::action::{Event, Expected, Unwanted, Verdict, Violation};
use super::conn::{Arriving, Kept, LATE_PATIENCE};
use super::core::Engine;
use super::ids::{ConnId, TransferId};
use super::reputation::Fault;
use super::requests::{Arrival, Request};
use super::session::Role;
use crate::format::Cid;
use crate::time::Timestamp;
use crate::wire::{BulkHeader, Encoding, Handle, Message, Run, What};

impl Engine {
    /// A block's header came: whether to read its payload, and what it must be.
    ///
    /// # Errors
    /// When the payload is not to be kept; see [`Unwanted`].
    pub fn handle_block_header(
        &mut self,
        now: Timestamp,
        conn: ConnId,
        header: &BulkHeader,
    ) -> Result<Expected, Unwanted> {
        self.advance(now);
        let outcome = self.judge(conn, header);
        if let Err(Unwanted::Violation(violation)) = outcome {
            self.disconnect(conn, violation.into());
        }
        outcome
    }

    fn judge(&mut self, id: ConnId, header: &BulkHeader) -> Result<Expected, Unwanted> {
        let Some(conn) = self.conns.get_mut(&id) else {
            return Err(Unwanted::Late);
        };
        if header.encoding != Encoding::Plain {
            return Err(Unwanted::Violation(Violation::WrongShape));
        }
        let BulkHeader { handle, what, len, .. } = *header;
        if let What::Node { request, cid, more } = what {
            return self.judge_unnamed(id, header, (request, cid, more));
        }
        let (transfer, cid, piece, requested) = match conn.requests.classify(self.now, handle, what) {
            Arrival::Requested(request) => (request.transfer, request.cid, request.piece, true),
            Arrival::Late(transfer, cid, piece) => (transfer, cid, piece, false),
            Arrival::Forgotten => {
                conn.arriving = Some(Arriving { rest: len, kept: None });
                return Err(Unwanted::Late);
            }
            Arrival::Unsolicited => return Err(Unwanted::Violation(Violation::Unsolicited)),
        };
        let session = conn.sessions.contains_key(&handle);
        let awaited = !requested && conn.window.drains_in(u64::from(len)) < LATE_PATIENCE;
        let of = self.transfers.get_mut(&transfer);
        let mut needed = false;
        let mut index = None;
        if let Some(of) = of {
            match (piece, &mut of.pieces) {
                (Some(piece), Some(pieces)) => {
                    if len != pieces.piece_len(piece) {
                        return Err(Unwanted::Violation(Violation::WrongShape));
                    }
                    let verifying = pieces.pending.get(&piece).is_some_and(|pending| pending.verifying > 0);
                    needed = session && !pieces.has(piece) && !verifying && pieces.wanted[piece as usize];
                    index = pieces.map.index(piece);
                    if needed && awaited {
                        // Nobody else need be asked for it while it is coming.
                        pieces.assign(piece, id);
                    }
                    if !needed {
                        of.bytes_wasted += u64::from(len);
                    }
                }
                (None, _) => needed = session && of.nodes.contains(&cid),
                (Some(_), None) => {}
            }
        }
        if !needed {
            if requested {
                self.end_request(id, handle, what, false);
            }
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.arriving = Some(Arriving { rest: len, kept: None });
            }
            return Err(Unwanted::Late);
        }
        let expected = Expected {
            conn: id,
            transfer,
            cid,
            len,
            piece: index,
        };
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.arriving = Some(Arriving {
                rest: len,
                kept: Some(Kept {
                    expected,
                    handle,
                    what,
                    requested,
                    since: self.now,
                    awaited,
                }),
            });
        }
        Ok(expected)
    }

    /// `bytes` more of the payload behind the last header came (kept or read over). Told at least each
    /// 64 KiB, so that rates and time-outs see progress.
    pub fn handle_block_progress(&mut self, now: Timestamp, conn: ConnId, bytes: u32) {
        self.advance(now);
        let (id, now) = (conn, self.now);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(arriving) = &mut conn.arriving else { return };
        let bytes = bytes.min(arriving.rest);
        arriving.rest -= bytes;
        let Arriving { rest, kept } = *arriving;
        let mut counted = 0;
        if let Some(kept) = kept.filter(|kept| kept.requested)
            && let Some(request) = conn.requests.get_mut(kept.handle, kept.what)
            && request.piece.is_some()
        {
            request.received += bytes;
            counted = u64::from(bytes);
        }
        conn.window.on_payload(now, u64::from(bytes), counted);
        conn.down.add(now, u64::from(bytes));
        if let Some(kept) = kept
            && let Some(session) = conn.sessions.get_mut(&kept.handle)
        {
            session.down.add(now, u64::from(bytes));
        }
        if let Some(kept) = kept
            && let Some(transfer) = self.transfers.get_mut(&kept.expected.transfer)
        {
            transfer.last_payload = Some(now);
        }
        if rest == 0 {
            conn.arriving = None;
            conn.forgive();
            if let Some(kept) = kept {
                self.on_whole(id, kept);
            }
        }
        self.to_fill.insert(id);
    }

    fn on_whole(&mut self, id: ConnId, kept: Kept) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if kept.requested {
            let request = conn.requests.remove(kept.handle, kept.what);
            self.stop_awaiting(request);
        }
        if let Some(piece) = kept.expected.piece
            && let Some(pieces) = self
                .transfers
                .get_mut(&kept.expected.transfer)
                .and_then(|t| t.pieces.as_mut())
        {
            pieces.begin_verifying(piece.get(), id);
        }
    }

    /// What became of a block that came whole. Exactly once for each.
    pub fn handle_verdict(&mut self, now: Timestamp, block: &Expected, verdict: Verdict) {
        self.advance(now);
        let len = u64::from(block.len);
        let Some(transfer) = self.transfers.get_mut(&block.transfer) else {
            if verdict == Verdict::Corrupt {
                self.ban(block);
            }
            return;
        };
        if let (Some(piece), Some(pieces)) = (block.piece, &mut transfer.pieces) {
            pieces.end_verifying(piece.get());
        }
        match verdict {
            Verdict::Good => match block.piece {
                Some(piece) => {
                    if !self.gain(block.transfer, piece.get()) {
                        if let Some(transfer) = self.transfers.get_mut(&block.transfer) {
                            transfer.bytes_wasted += len;
                        }
                        return;
                    }
                    self.credit(block, len);
                    self.event(Event::PieceDone {
                        transfer: block.transfer,
                        piece,
                        conn: block.conn,
                    });
                    self.after_gain(block.transfer);
                }
                None => {
                    // It may have come before it was wanted, and whoever asked has it now.
                    let wanted = transfer.nodes.settle(&block.cid);
                    transfer.bytes_skeleton += len;
                    let (transfer, cid, conn) = (block.transfer, block.cid, block.conn);
                    self.event(Event::NodeDone { transfer, cid, conn });
                    if wanted {
                        self.after_gain(block.transfer);
                    }
                }
            },
            Verdict::Corrupt => {
                transfer.bytes_corrupt += len;
                if block.piece.is_none() {
                    transfer.nodes.release(block.conn, &block.cid, true);
                }
                self.to_refill.insert(block.transfer);
                self.ban(block);
            }
            Verdict::WriteFailed => {
                if block.piece.is_none() {
                    transfer.nodes.release(block.conn, &block.cid, false);
                }
                transfer.paused = true;
                self.close_sessions(block.transfer);
                self.run_queue();
                self.event(Event::WriteFailed(block.transfer));
            }
        }
    }

    fn credit(&mut self, block: &Expected, len: u64) {
        let now = self.now;
        let peer = self.conns.get_mut(&block.conn).map(|conn| {
            conn.bytes_down += len;
            conn.gave_at = Some(now);
            conn.peer
        });
        let peer = peer.or_else(|| self.departed.get(&block.conn).copied());
        let Some(transfer) = self.transfers.get_mut(&block.transfer) else {
            return;
        };
        transfer.bytes_fetched += len;
        transfer.down.add(now, len);
        if let Some(peer) = peer {
            transfer.credit(peer, len);
            self.reputation.handle_good(now, peer, len);
        }
    }

    /// The sender of a corrupt block is banned, even if it has left meanwhile. Nobody else is punished.
    fn ban(&mut self, block: &Expected) {
        let peer = match self.conns.get(&block.conn) {
            Some(conn) => conn.peer,
            None => match self.departed.get(&block.conn) {
                Some(peer) => *peer,
                None => return,
            },
        };
        if let Some(ban) = self.reputation.handle_fault(self.now, peer, Fault::CorruptBlock, 1) {
            let (conn, transfer, cid) = (block.conn, block.transfer, block.cid);
            self.event(Event::Banned {
                peer,
                conn,
                transfer,
                cid,
                until: ban.until,
            });
        }
        self.part_with(&peer);
    }

    /// Ends a request that was answered otherwise than by its block. `refused`: the peer will not send it.
    pub(super) fn end_request(&mut self, id: ConnId, handle: Handle, what: What, refused: bool) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(request) = conn.requests.remove(handle, what) else {
            return;
        };
        conn.window.on_release(request.rest());
        self.stop_awaiting(Some(request));
        if refused {
            self.give_back_requested(id, request.transfer, request.rest());
        }
        self.release(id, request.transfer, request.piece, request.cid, refused);
        if refused {
            self.await_former(id, handle, what);
        }
    }

    /// A request was refused while its block is coming in: that answers a former request of the same, and counts as late.
    fn await_former(&mut self, id: ConnId, handle: Handle, what: What) {
        let arriving = self.conns.get_mut(&id).and_then(|conn| conn.arriving.as_mut());
        let kept = arriving.and_then(|arriving| arriving.kept.as_mut());
        let Some(kept) = kept.filter(|kept| kept.handle == handle && kept.what == what) else {
            return;
        };
        kept.requested = false;
        let Some(piece) = kept.expected.piece else { return };
        let of = self.transfers.get_mut(&kept.expected.transfer);
        if let Some(pieces) = of.and_then(|of| of.pieces.as_mut())
            && pieces.picker.contains(piece.get())
        {
            pieces.assign(piece.get(), id);
            kept.awaited = true;
        }
    }

    /// Takes a request back without a word: its block may still come.
    pub(super) fn retract_request(&mut self, id: ConnId, handle: Handle, what: What) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(request) = conn.requests.retract(self.now, handle, what) else {
            return;
        };
        conn.window.on_release(request.rest());
        if let Some(arriving) = &mut conn.arriving
            && arriving
                .kept
                .is_some_and(|kept| kept.handle == handle && kept.what == what)
        {
            arriving.kept = None;
            let wasted = u64::from(request.received);
            if let Some(transfer) = self.transfers.get_mut(&request.transfer) {
                transfer.bytes_wasted += wasted + u64::from(arriving.rest);
            }
        }
        self.stop_awaiting(Some(request));
        self.give_back_requested(id, request.transfer, request.rest());
        self.release(id, request.transfer, request.piece, request.cid, true);
    }

    /// A request has ended: whoever awaited its release awaits it no more.
    fn stop_awaiting(&mut self, request: Option<Request>) {
        if let Some(release) = request.and_then(|request| request.release)
            && let Some(conn) = self.conns.get_mut(&release.to)
        {
            conn.awaits.retain(|until| *until != release.until);
            self.to_fill.insert(release.to);
        }
    }

    /// Takes requests back and tells the peer so.
    pub(super) fn take_back(&mut self, id: ConnId, requests: &[(Handle, What)]) {
        let mut cancelled: Vec<(Handle, Run)> = Vec::new();
        for (handle, what) in requests {
            self.retract_request(id, *handle, *what);
            if let What::Piece(piece) = what {
                match cancelled.last_mut() {
                    Some((of, run)) if of == handle && run.end() == *piece => run.len += 1,
                    _ => cancelled.push((*handle, Run { start: *piece, len: 1 })),
                }
            }
        }
        for of_handle in cancelled.chunk_by(|a, b| a.0 == b.0) {
            for chunk in of_handle.chunks(crate::wire::limits::MAX_RUNS) {
                let runs = chunk.iter().map(|(_, run)| *run).collect();
                self.send(
                    id,
                    Message::Cancel {
                        handle: chunk[0].0,
                        runs,
                    },
                );
            }
        }
    }

    fn release(&mut self, id: ConnId, transfer: TransferId, piece: Option<u32>, cid: Cid, refused: bool) {
        match piece {
            Some(piece) => self.unassign(transfer, piece, id),
            None => {
                if let Some(of) = self.transfers.get_mut(&transfer) {
                    of.nodes.release(id, &cid, refused);
                    self.to_refill.insert(transfer);
                }
            }
        }
    }

    pub(super) fn unassign(&mut self, transfer: TransferId, piece: u32, id: ConnId) {
        let Some(pieces) = self.transfers.get_mut(&transfer).and_then(|of| of.pieces.as_mut()) else {
            return;
        };
        if pieces.unassign(piece, id) {
            self.to_refill.insert(transfer);
        }
    }

    /// Nobody need bring the piece any more.
    pub(super) fn cancel_everywhere(&mut self, transfer: TransferId, piece: u32) {
        let Some(pieces) = self.transfers.get(&transfer).and_then(|of| of.pieces.as_ref()) else {
            return;
        };
        let Some(pending) = pieces.pending.get(&piece) else {
            return;
        };
        for id in pending.assignees.clone() {
            self.cancel_at(id, transfer, piece);
        }
    }

    /// One peer need not bring the piece any more.
    pub(super) fn cancel_at(&mut self, id: ConnId, transfer: TransferId, piece: u32) {
        let Some(conn) = self.conns.get(&id) else { return };
        let mut requests = Vec::new();
        for (handle, session) in conn.sessions.iter().filter(|(_, of)| of.transfer == transfer) {
            if session.role == Role::Related {
                // By CID, and few at a time.
                let of_handle = conn.requests.of_handle(*handle);
                let same = of_handle.filter(|(_, request)| request.piece == Some(piece));
                requests.extend(same.map(|(what, _)| (*handle, what)));
            } else if conn.requests.get(*handle, What::Piece(piece)).is_some() {
                requests.push((*handle, What::Piece(piece)));
            }
        }
        self.take_back(id, &requests);
        self.unassign(transfer, piece, id);
        self.to_fill.insert(id);
    }
}
