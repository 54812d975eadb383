//! The server's half of the protocol: what peers open and ask for, and what they get.

use super::action::{Action, ServeFailure, ServeJob, Violation};
use super::choke::{Candidate, IDLE, ROUND};
use super::conn::Served;
use super::core::Engine;
use super::flow::Gate;
use super::ids::{ConnId, TransferId};
use super::turns::{pieces_of, rarity};
use super::uploads::{CidWant, Wanted};
use crate::format::Cid;
use crate::time::Timestamp;
use crate::wire::limits::{MAX_HANDLES, MAX_RUNS};
use crate::wire::{Handle, Have, Message, RejectReason, Rejection, RequestId, Run, What, join_runs};

/// What is asked for by CID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Nodes of a skeleton.
    Nodes,
    /// These and the rest of it.
    Skeleton,
    /// Leaves.
    Leaves,
}

impl Engine {
    pub(super) fn handle_as_server(&mut self, id: ConnId, message: Message) -> Result<(), Violation> {
        match message {
            Message::Open { handle, root } => self.on_open(id, handle, root),
            Message::WantNodes { handle, request, cids } => self.on_want(id, handle, request, &cids, Asked::Nodes),
            Message::WantSkeleton { handle, request, cids } => {
                self.on_want(id, handle, request, &cids, Asked::Skeleton)
            }
            Message::RequestCids { handle, request, cids } => self.on_want(id, handle, request, &cids, Asked::Leaves),
            Message::Request { handle, runs } => self.on_request(id, handle, runs),
            Message::Cancel { handle, runs } => {
                if let Some(conn) = self.conns.get_mut(&id) {
                    conn.uploads.cancel(handle, &runs);
                }
                Ok(())
            }
            Message::Release { handle, runs } => {
                let released = self.conns.get_mut(&id).map(|conn| conn.uploads.release(handle, runs));
                for runs in released.unwrap_or_default().chunks(MAX_RUNS) {
                    let what = Rejection::Pieces(runs.to_vec());
                    self.reject(id, handle, what, RejectReason::Released);
                }
                Ok(())
            }
            Message::Pace { handle, rate } => {
                self.on_pace(id, handle, rate);
                Ok(())
            }
            Message::Close { handle } => {
                self.forget_pace(id, handle);
                if let Some(conn) = self.conns.get_mut(&id) {
                    let served = conn.served.remove(&handle);
                    conn.uploads.close(handle);
                    if let Some(served) = served {
                        self.withdraw_offers(served.transfer, id);
                        self.to_offer.insert(served.transfer);
                    }
                    self.forget_waiting(id, handle);
                    self.run_choker();
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn on_open(&mut self, id: ConnId, handle: Handle, root: Cid) -> Result<(), Violation> {
        let Some(conn) = self.conns.get_mut(&id) else {
            return Ok(());
        };
        conn.flood.on_open(self.now)?;
        let Some(conn) = self.conns.get(&id) else {
            return Ok(());
        };
        if conn.served.contains_key(&handle) || self.waiting_handles(id).any(|other| other == handle) {
            return Err(Violation::HandleInUse);
        }
        if conn.served.len() + self.waiting_handles(id).count() >= MAX_HANDLES {
            return Err(Violation::OverLimit("handles"));
        }
        let found = self.roots.get(&root).copied();
        let found = found.and_then(|transfer| Some((transfer, self.transfers.get(&transfer)?)));
        let found = found.filter(|(_, transfer)| transfer.network == self.config.network && !transfer.share.stopped);
        let Some((transfer_id, transfer)) = found else {
            self.reject(id, handle, Rejection::Open, RejectReason::NotFound);
            return Ok(());
        };
        let content = transfer.content;
        if self.wait_for_pieces(transfer_id, id, handle, root) {
            return Ok(());
        }
        let (Some(transfer), Some(conn)) = (self.transfers.get(&transfer_id), self.conns.get_mut(&id)) else {
            return Ok(());
        };
        // Whoever fetches what we fetch may have some of it by now.
        conn.refused.remove(&root);
        if let Some(content) = &content {
            conn.refused.remove(content);
        }
        let Some(pieces) = &transfer.pieces else {
            self.reject(id, handle, Rejection::Open, RejectReason::NotFound);
            self.open_sessions(id);
            return Ok(());
        };
        let by_content = transfer.content == Some(root);
        let have = if by_content { Have::of(&pieces.have) } else { Have::None };
        conn.served.insert(
            handle,
            Served {
                transfer: transfer_id,
                pieces: by_content,
                offering: super::offers::Offering::default(),
            },
        );
        self.to_offer.insert(transfer_id);
        self.run_choker();
        self.send(id, Message::Opened { handle, have });
        self.join_circle(id, transfer_id);
        self.open_sessions(id);
        Ok(())
    }

    pub(super) fn on_want(
        &mut self,
        id: ConnId,
        handle: Handle,
        request: RequestId,
        cids: &[Cid],
        asked: Asked,
    ) -> Result<(), Violation> {
        let nodes = asked != Asked::Leaves;
        if nodes && let Some(kept) = self.keep_want(id, handle, request, cids, asked) {
            return kept;
        }
        let Some(conn) = self.conns.get_mut(&id) else {
            return Ok(());
        };
        let reason = match conn.served.get(&handle) {
            None => Some(RejectReason::NotFound),
            Some(_) if !nodes && conn.choking => Some(RejectReason::Choked),
            Some(_) => None,
        };
        if let Some(reason) = reason {
            conn.flood.on_refused(self.now)?;
            let positions = (0..cids.len() as u16).collect();
            self.reject(id, handle, Rejection::Blocks { request, positions }, reason);
            return Ok(());
        }
        let wants = cids.iter().zip(0..).map(|(cid, position)| CidWant {
            handle,
            request,
            position,
            cid: *cid,
        });
        if nodes {
            conn.uploads.push_nodes(wants)?;
        } else {
            conn.asked_at = self.now;
            conn.uploads.push_leaves(wants)?;
        }
        if asked == Asked::Skeleton {
            self.send_skeleton(id, handle, request, cids)?;
        }
        self.to_serve.insert(id);
        Ok(())
    }

    fn on_request(&mut self, id: ConnId, handle: Handle, runs: Vec<Run>) -> Result<(), Violation> {
        let Some(conn) = self.conns.get_mut(&id) else {
            return Ok(());
        };
        let Some(served) = conn.served.get(&handle) else {
            conn.flood.on_refused(self.now)?;
            self.reject(id, handle, Rejection::Pieces(runs), RejectReason::NotFound);
            return Ok(());
        };
        let pieces = self
            .transfers
            .get(&served.transfer)
            .and_then(|transfer| transfer.pieces.as_ref());
        let len = pieces.filter(|_| served.pieces).map_or(0, |pieces| pieces.len());
        if runs.iter().any(|run| run.end() > len) {
            return Err(Violation::NoSuchPiece);
        }
        let transfer = served.transfer;
        self.note_asked(id, transfer, &runs);
        let Some(conn) = self.conns.get_mut(&id) else {
            return Ok(());
        };
        if conn.choking {
            conn.flood.on_refused(self.now)?;
            self.reject(id, handle, Rejection::Pieces(runs), RejectReason::Choked);
            return Ok(());
        }
        conn.asked_at = self.now;
        conn.uploads.join(self.uplink.turn());
        conn.uploads.push_runs(handle, &runs)?;
        self.to_serve.insert(id);
        self.set_busy();
        Ok(())
    }

    pub(super) fn reject(&mut self, id: ConnId, handle: Handle, what: Rejection, reason: RejectReason) {
        self.send(id, Message::Rejected { handle, what, reason });
    }

    /// Asks the caller for blocks to serve: one from each peer in turn, while the limit and the peers' pipes allow.
    pub(super) fn serve(&mut self) {
        let mut missing: Vec<(ConnId, Handle, Run)> = Vec::new();
        while self.uplink.is_open(self.now) {
            let Some(id) = self.next_to_serve() else { break };
            self.serve_turn = id;
            if !self.serve_one(id, &mut missing) {
                self.to_serve.remove(&id);
            }
        }
        for of_handle in missing.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let (id, handle, _) = of_handle[0];
            let refused = self.conns.get_mut(&id).map(|conn| conn.flood.on_refused(self.now));
            if let Some(Err(violation)) = refused {
                self.disconnect(id, violation.into());
                continue;
            }
            let runs = join_runs(of_handle.iter().map(|(_, _, run)| *run).collect());
            for runs in runs.chunks(MAX_RUNS) {
                self.reject(id, handle, Rejection::Pieces(runs.to_vec()), RejectReason::NotFound);
            }
        }
    }

    /// Serves one block to a peer; false if there is none to serve it now.
    fn serve_one(&mut self, id: ConnId, missing: &mut Vec<(ConnId, Handle, Run)>) -> bool {
        let closed = self.closed_handles(id);
        let exempt = self.is_exempt(id);
        let Some(conn) = self.conns.get_mut(&id) else {
            return false;
        };
        if !conn.uploads.is_ready(self.now) {
            return false;
        }
        let (transfers, served) = (&self.transfers, &conn.served);
        let rarity = |handle: Handle, piece: u32| rarity(pieces_of(transfers, served, handle), piece);
        let job = match conn.uploads.next(&closed, rarity) {
            None => return false,
            Some(Wanted::Cid(want)) => {
                let Some(served) = conn.served.get(&want.handle) else {
                    return true;
                };
                let what = What::Block {
                    request: want.request,
                    position: want.position,
                };
                let (transfer, cid) = (served.transfer, want.cid);
                ServeJob {
                    conn: id,
                    handle: want.handle,
                    transfer,
                    what,
                    piece: None,
                    cid,
                    len: None,
                    limited: !exempt,
                }
            }
            Some(Wanted::Node(node)) => {
                let Some(served) = conn.served.get(&node.handle) else {
                    return true;
                };
                ServeJob {
                    conn: id,
                    handle: node.handle,
                    transfer: served.transfer,
                    what: What::Node {
                        request: node.request,
                        cid: node.cid,
                        more: node.more,
                    },
                    piece: None,
                    cid: node.cid,
                    len: None,
                    limited: !exempt,
                }
            }
            Some(Wanted::Piece(handle, piece)) => {
                let Some(served) = conn.served.get(&handle) else {
                    return true;
                };
                let pieces = self
                    .transfers
                    .get(&served.transfer)
                    .and_then(|transfer| transfer.pieces.as_ref());
                let Some(pieces) = pieces else { return true };
                let Some(index) = pieces.map.index(piece).filter(|_| pieces.has(piece)) else {
                    missing.push((id, handle, Run { start: piece, len: 1 }));
                    return true;
                };
                let leaf = pieces.map.leaf(index);
                ServeJob {
                    conn: id,
                    handle,
                    transfer: served.transfer,
                    what: What::Piece(piece),
                    piece: Some(index),
                    cid: leaf.cid,
                    len: Some(leaf.len),
                    limited: !exempt,
                }
            }
        };
        self.uplink.set_turn(conn.uploads.turn());
        let counted = conn.uploads.on_started(self.now, job.len);
        // What a peer that takes nothing in has ahead counts again once it does.
        if !conn.uploads.is_stuck() {
            self.uplink.on_started(counted);
        }
        if let Some(of) = self.transfers.get_mut(&job.transfer) {
            Gate::up(exempt, &mut self.up, &mut of.limits.up).take(self.now, counted);
        }
        if let Some(piece) = job.piece {
            self.piece_is_out(job.transfer, piece.get(), job.conn, true);
        }
        self.actions.push_back(Action::Serve(job));
        true
    }

    /// A block that [`Action::Serve`] asked for was written (with how many bytes of payload), or was not. Exactly once for
    /// each, in any order; not needed once the connection has ended.
    pub fn handle_served(&mut self, now: Timestamp, job: &ServeJob, outcome: Result<u32, ServeFailure>) {
        self.advance(now);
        let now = self.now;
        let Some(conn) = self.conns.get_mut(&job.conn) else {
            return;
        };
        let (written, peer) = (outcome.unwrap_or(0), conn.peer);
        let stuck = conn.uploads.is_stuck();
        let counted = conn.uploads.on_ended(now, job.len, written);
        let written = u64::from(written);
        self.uplink.on_ended(now, if stuck { 0 } else { counted }, written);
        if stuck {
            self.uplink.on_started(conn.uploads.ahead());
        }
        if job.limited
            && let Some(controller) = &mut self.controller
        {
            controller.on_sent(now, written);
        }
        if let Some(transfer) = self.transfers.get_mut(&job.transfer) {
            let mut gate = Gate::up(!job.limited, &mut self.up, &mut transfer.limits.up);
            if written < counted {
                gate.give_back(now, counted - written);
            } else {
                gate.take(now, written - counted);
            }
            transfer.bytes_served += written;
            transfer.up.add(now, written);
        }
        if written > 0 {
            self.reputation.handle_served(now, peer, written);
        }
        if let Err(failure) = outcome {
            // Who hears `Lost` first knows that the refusal breaks no promise.
            self.tell_news(false);
            let reason = match failure {
                ServeFailure::NotHere => RejectReason::NotFound,
                ServeFailure::Busy => RejectReason::Busy,
            };
            let what = match job.what {
                What::Piece(piece) => Some(Rejection::Pieces(vec![Run { start: piece, len: 1 }])),
                What::Block { request, position } => Some(Rejection::Blocks {
                    request,
                    positions: vec![position],
                }),
                // Whoever has not named it asks for it by name when it does not come.
                What::Node { .. } => None,
            };
            if let Some(what) = what {
                self.reject(job.conn, job.handle, what, reason);
            }
        }
        self.to_serve.insert(job.conn);
    }

    /// Gives out upload slots.
    pub(super) fn run_choker(&mut self) {
        let now = self.now;
        let fetching: Vec<TransferId> = self
            .transfers
            .iter()
            .filter(|(_, transfer)| transfer.is_fetching())
            .map(|(id, _)| *id)
            .collect();
        let owes = self.conns.values().any(|conn| conn.bytes_down > 0);
        // While nothing goes out, slots are not kept for who may ask again.
        let patience = if self.uplink.is_idle() { IDLE } else { ROUND };
        let candidate = |(id, conn): (&ConnId, &super::conn::Conn)| {
            let leeching = conn.is_leeching();
            let idle = !conn.choking
                && conn.uploads.is_empty()
                && now.since(conn.asked_at) >= patience
                && now.since(conn.slot_since) >= patience;
            let trades = fetching.iter().any(|transfer| conn.has_session(*transfer, true));
            Candidate {
                conn: *id,
                interested: leeching && !idle,
                unchoked: !conn.choking,
                since: conn.slot_since,
                gave: conn.bytes_down > 0,
                stands_back: conn.bytes_down == 0 && owes && fetching.is_empty(),
                last: conn.is_vain(now) || (owes && conn.is_taker()),
                gives: if trades { conn.down.rate(now) } else { 0 },
            }
        };
        let all: Vec<Candidate> = self
            .conns
            .iter()
            .map(candidate)
            .filter(|c| c.interested || c.unchoked)
            .collect();
        if all.is_empty() {
            return;
        }
        let (choke, unchoke) = self.choker.decide(now, all, &mut self.rng);
        for id in choke {
            self.choke(id);
        }
        for id in unchoke {
            let Some(conn) = self.conns.get_mut(&id) else { continue };
            conn.choking = false;
            conn.slot_since = now;
            conn.asked_at = now;
            self.to_offer.extend(conn.served.values().map(|served| served.transfer));
            self.send(id, Message::Unchoke);
        }
    }

    fn choke(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.choking = true;
        conn.slot_since = self.now;
        let mut dropped = conn.uploads.choke();
        let served: Vec<TransferId> = conn.served.values().map(|served| served.transfer).collect();
        for transfer in served {
            self.withdraw_offers(transfer, id);
        }
        self.send(id, Message::Choke);
        dropped.runs.sort_unstable();
        for of_handle in dropped.runs.chunk_by(|a, b| a.0 == b.0) {
            let runs = join_runs(of_handle.iter().map(|(_, run)| *run).collect());
            for runs in runs.chunks(MAX_RUNS) {
                self.reject(
                    id,
                    of_handle[0].0,
                    Rejection::Pieces(runs.to_vec()),
                    RejectReason::Choked,
                );
            }
        }
        for of_request in dropped
            .leaves
            .chunk_by(|a, b| (a.handle, a.request) == (b.handle, b.request))
        {
            let CidWant { handle, request, .. } = of_request[0];
            let positions = of_request.iter().map(|want| want.position).collect();
            self.reject(
                id,
                handle,
                Rejection::Blocks { request, positions },
                RejectReason::Choked,
            );
        }
    }
}
