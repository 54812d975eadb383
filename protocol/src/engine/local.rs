//! What the node wishes, and what it finds out locally.

use super::action::Event;
use super::config::{ContentPieces, ContentSpec};
use super::core::Engine;
use super::ids::{ConnId, TransferId};
use super::priority::Share;
use super::session::{Role, SessionState, Source};
use super::stats::{ConnStats, Stage, TransferStats};
use super::transfer::{Pieces, Transfer};
use crate::format::{Cid, PieceIndex, PieceSet};
use crate::time::Timestamp;
use crate::wire::limits::MAX_RUNS;
use crate::wire::{CloseReason, Handle, Message, runs_of};

/// News to peers wait for at least this long (and for the next tick)…
const NEWS_DELAY: std::time::Duration = std::time::Duration::from_millis(80);
/// …or for this many pieces.
const NEWS_BATCH: usize = 512;
/// A piece that fewer are known to have is told of sooner: how fast it spreads is how soon the swarm ends…
const RARE: u16 = 10;
/// …but not within this of the last news, for in a small swarm all are rare, and nobody is to hear of each by a message of its own.
const RARE_DELAY: std::time::Duration = std::time::Duration::from_millis(5);
/// How long after a payload a transfer counts as downloading.
const LIVELY: std::time::Duration = std::time::Duration::from_secs(2);

impl Engine {
    /// Adds a content to fetch or seed. If the content is known already, the two become one and the known transfer's ID is returned.
    ///
    /// `pieces` needs `content`; without it they are ignored.
    pub fn add_content(&mut self, now: Timestamp, spec: ContentSpec) -> TransferId {
        self.advance(now);
        let known = spec.content.and_then(|content| self.roots.get(&content)).copied();
        let known = known.or_else(|| {
            let mut known = spec.packs.iter().filter_map(|pack| self.roots.get(pack)).copied();
            known.find(|_| spec.content.is_none())
        });
        let id = known.unwrap_or_else(|| {
            self.transfers_made += 1;
            let id = TransferId(self.transfers_made);
            let mut transfer = Transfer::new(spec.network, spec.order);
            transfer.share = Share::at_place(self.transfers_made);
            self.transfers.insert(id, transfer);
            id
        });
        let packs = self.packs_to_name(id, &spec);
        self.name(id, spec.content, &packs, &spec.related);
        match (spec.content, spec.pieces) {
            (Some(content), Some(pieces)) => self.set_pieces(now, id, content, pieces),
            _ => {
                self.open_everywhere();
                id
            }
        }
    }

    /// A content may have been shared in several networks. It is served in the engine's if it was shared there, but a pack's
    /// words are told only in the pack's own network.
    fn packs_to_name(&mut self, id: TransferId, spec: &ContentSpec) -> Vec<Cid> {
        let own = self.config.network;
        let Some(transfer) = self.transfers.get_mut(&id) else {
            return Vec::new();
        };
        if spec.network == transfer.network {
            return spec.packs.clone();
        }
        if spec.network != own {
            return Vec::new();
        }
        transfer.network = own;
        for pack in std::mem::take(&mut transfer.packs) {
            self.roots.remove(&pack);
        }
        spec.packs.clone()
    }

    fn name(&mut self, id: TransferId, content: Option<Cid>, packs: &[Cid], related: &[Cid]) {
        let Some(transfer) = self.transfers.get_mut(&id) else {
            return;
        };
        if let Some(content) = content {
            transfer.content = Some(content);
            self.roots.insert(content, id);
        }
        for pack in packs {
            self.roots.insert(*pack, id);
            if !transfer.packs.contains(pack) {
                transfer.packs.push(*pack);
            }
        }
        for content in related {
            if !transfer.related.contains(content) {
                transfer.related.push(*content);
            }
        }
    }

    /// The skeleton of `transfer` is known. If another transfer has the same content, the two become one. Returns the ID to
    /// use from now on.
    pub fn set_pieces(
        &mut self,
        now: Timestamp,
        transfer: TransferId,
        content: Cid,
        pieces: ContentPieces,
    ) -> TransferId {
        self.advance(now);
        let mut id = transfer;
        if let Some(other) = self.roots.get(&content).copied().filter(|other| *other != transfer)
            && let Some(merged) = self.transfers.get(&transfer)
        {
            let (packs, related) = (merged.packs.clone(), merged.related.clone());
            self.drop_transfer(transfer, None);
            self.name(other, Some(content), &packs, &related);
            id = other;
        }
        self.name(id, Some(content), &[], &[]);
        self.end_skeleton_of(id);
        let Some(transfer) = self.transfers.get_mut(&id) else {
            return id;
        };
        if let Some(known) = &mut transfer.pieces {
            let found: Vec<u32> = pieces
                .have
                .iter_ones()
                .map(|i| i as u32)
                .filter(|i| *i < known.len())
                .collect();
            let mut wanted = pieces.wanted.unwrap_or_else(|| known.map.all());
            wanted.resize(known.map.len() as usize, false);
            wanted |= known.wanted.clone();
            known.set_wanted(wanted);
            for piece in found {
                self.gain(id, piece);
            }
        } else {
            transfer.pieces = Some(Pieces::new(pieces));
            let waiting = transfer.idle.take().unwrap_or_default().waiting;
            self.adopt_sessions(id);
            self.answer_waiting(waiting);
        }
        self.after_wanted(id);
        id
    }

    /// Sessions that were opened before the pieces were known are read by them now, or opened again.
    fn adopt_sessions(&mut self, id: TransferId) {
        let conns: Vec<ConnId> = self.conns.keys().copied().collect();
        for conn_id in conns {
            let roots = &self.roots;
            let Some(conn) = self.conns.get_mut(&conn_id) else {
                continue;
            };
            // Who knew no pieces either when it was asked may know them by now: it answers our asking by its own.
            conn.refused.retain(|root, _| roots.get(root) != Some(&id));
            let mine: Vec<Handle> = conn
                .sessions
                .iter()
                .filter(|(_, session)| session.transfer == id)
                .map(|(h, _)| *h)
                .collect();
            for handle in mine {
                let Some(session) = self.conns.get(&conn_id).and_then(|conn| conn.sessions.get(&handle)) else {
                    continue;
                };
                match (session.role, session.state, &session.source) {
                    (Role::Content, SessionState::Opening, _) => {}
                    (Role::Content, SessionState::Open, Source::All) => {
                        if let Some(transfer) = self.transfers.get_mut(&id) {
                            transfer.seeds += 1;
                        }
                    }
                    _ => self.close_session(conn_id, handle),
                }
            }
        }
    }

    /// Asks peers for nodes of the skeleton, in this order. Those already asked for are not asked for twice.
    pub fn want_nodes(&mut self, now: Timestamp, transfer: TransferId, cids: &[Cid]) {
        self.advance(now);
        if let Some(of) = self.transfers.get_mut(&transfer) {
            of.nodes.want(cids);
            self.to_refill.insert(transfer);
            self.open_everywhere();
        }
    }

    /// Changes which pieces are wanted.
    pub fn set_wanted(&mut self, now: Timestamp, transfer: TransferId, wanted: PieceSet) {
        self.advance(now);
        let Some(pieces) = self.transfers.get_mut(&transfer).and_then(|of| of.pieces.as_mut()) else {
            return;
        };
        let mut wanted = wanted;
        wanted.resize(pieces.map.len() as usize, false);
        pieces.set_wanted(wanted);
        let dropped: Vec<u32> = pieces
            .pending
            .keys()
            .copied()
            .filter(|p| !pieces.wanted[*p as usize])
            .collect();
        for piece in dropped {
            self.cancel_everywhere(transfer, piece);
        }
        self.after_wanted(transfer);
    }

    /// What is wanted or here has changed: says `Complete`, or goes on.
    pub(super) fn after_wanted(&mut self, id: TransferId) {
        let Some(transfer) = self.transfers.get_mut(&id) else {
            return;
        };
        let complete = transfer.pieces.as_ref().is_some_and(Pieces::is_complete);
        if transfer.share.listed != (transfer.pieces.is_some() && transfer.wants()) {
            self.run_queue();
        }
        let Some(transfer) = self.transfers.get_mut(&id) else {
            return;
        };
        if complete && !transfer.complete_told {
            transfer.complete_told = true;
            self.event(Event::Complete(id));
        } else if !complete {
            transfer.complete_told = false;
        }
        if self.transfers.get(&id).is_some_and(Transfer::is_fetching) {
            self.to_refill.insert(id);
            self.open_everywhere();
        } else {
            self.close_sessions(id);
        }
    }

    pub(super) fn open_everywhere(&mut self) {
        for id in self.conns.keys().copied().collect::<Vec<_>>() {
            self.open_sessions(id);
        }
    }

    /// A piece was found locally (not fetched).
    pub fn handle_have(&mut self, now: Timestamp, transfer: TransferId, piece: PieceIndex) {
        self.advance(now);
        let exists = |of: &Transfer| of.pieces.as_ref().is_some_and(|pieces| piece.get() < pieces.len());
        if self.transfers.get(&transfer).is_some_and(exists) && self.gain(transfer, piece.get()) {
            self.after_gain(transfer);
        }
    }

    /// A piece is gone locally: peers are told, and it is fetched again if it is wanted.
    pub fn handle_lost(&mut self, now: Timestamp, transfer: TransferId, piece: PieceIndex) {
        self.advance(now);
        let Some(pieces) = self.transfers.get_mut(&transfer).and_then(|of| of.pieces.as_mut()) else {
            return;
        };
        if piece.get() < pieces.len() && pieces.lose(piece.get()) {
            self.to_tell.insert(transfer);
            self.to_offer.insert(transfer);
            self.after_wanted(transfer);
        }
    }

    /// The piece is here: nobody need bring it any more, and peers will be told. Whether that is new.
    pub(super) fn gain(&mut self, id: TransferId, piece: u32) -> bool {
        let now = self.now;
        let Some(pieces) = self.transfers.get_mut(&id).and_then(|of| of.pieces.as_mut()) else {
            return false;
        };
        if !pieces.gain(now, piece) {
            return false;
        }
        pieces.news_urgent |= pieces.picker.availability(piece) < RARE;
        self.to_tell.insert(id);
        self.set_busy();
        self.cancel_everywhere(id, piece);
        true
    }

    /// Says `Complete` if that is so by now.
    pub(super) fn after_gain(&mut self, id: TransferId) {
        if self
            .transfers
            .get(&id)
            .and_then(|of| of.pieces.as_ref())
            .is_some_and(Pieces::is_complete)
        {
            self.after_wanted(id);
        }
    }

    /// Forgets a transfer; peers that opened it are told.
    pub fn remove_content(&mut self, now: Timestamp, transfer: TransferId) {
        self.advance(now);
        self.drop_transfer(transfer, Some(CloseReason::Removed));
    }

    fn drop_transfer(&mut self, id: TransferId, tell: Option<CloseReason>) {
        self.close_sessions(id);
        let idle = self.transfers.get_mut(&id).and_then(|of| of.idle.take());
        self.refuse_waiting(idle.unwrap_or_default().waiting);
        self.close_served(id, tell.unwrap_or(CloseReason::Removed));
        self.transfers.remove(&id);
        self.run_queue();
        self.roots.retain(|_, of| *of != id);
        self.to_tell.remove(&id);
        self.to_refill.remove(&id);
    }

    /// Stops fetching; what is here goes on being served.
    pub fn pause(&mut self, now: Timestamp, transfer: TransferId) {
        self.advance(now);
        if let Some(of) = self.transfers.get_mut(&transfer) {
            of.paused = true;
            self.close_sessions(transfer);
            self.run_queue();
        }
    }

    /// Goes on fetching after a pause or a failed write.
    pub fn resume(&mut self, now: Timestamp, transfer: TransferId) {
        self.advance(now);
        if let Some(of) = self.transfers.get_mut(&transfer) {
            of.paused = false;
            self.after_wanted(transfer);
        }
    }

    /// Tells peers of pieces gained (batched) and lost (at once).
    pub(super) fn tell_news(&mut self, ripe: bool) {
        for id in self.to_tell.iter().copied().collect::<Vec<_>>() {
            let Some(pieces) = self.transfers.get_mut(&id).and_then(|of| of.pieces.as_mut()) else {
                continue;
            };
            let lost = std::mem::take(&mut pieces.losses);
            let old = ripe && self.now.since(pieces.news_since) >= NEWS_DELAY;
            let urgent = pieces.news_urgent && self.now.since(pieces.news_told) >= RARE_DELAY;
            let gained = if old || urgent || pieces.news.len() >= NEWS_BATCH || !lost.is_empty() {
                pieces.news_urgent = false;
                pieces.news_told = self.now;
                std::mem::take(&mut pieces.news)
            } else {
                Vec::new()
            };
            if pieces.news.is_empty() {
                self.to_tell.remove(&id);
            }
            // What was gained and lost again, or the other way, is told as it is now.
            let Some(pieces) = self.transfers.get(&id).and_then(|of| of.pieces.as_ref()) else {
                continue;
            };
            let gained = runs_of(gained.into_iter().filter(|piece| pieces.has(*piece)));
            let lost = runs_of(lost.into_iter().filter(|piece| !pieces.has(*piece)));
            if gained.is_empty() && lost.is_empty() {
                continue;
            }
            for (conn_id, conn) in &self.conns {
                for (handle, _) in conn
                    .served
                    .iter()
                    .filter(|(_, served)| served.transfer == id && served.pieces)
                {
                    for runs in lost.chunks(MAX_RUNS) {
                        let message = Message::Lost {
                            handle: *handle,
                            runs: runs.to_vec(),
                        };
                        self.actions.push_back(super::Action::Send(*conn_id, message));
                    }
                    for runs in gained.chunks(MAX_RUNS) {
                        let message = Message::Have {
                            handle: *handle,
                            runs: runs.to_vec(),
                        };
                        self.actions.push_back(super::Action::Send(*conn_id, message));
                    }
                }
            }
        }
    }

    /// The transfers.
    pub fn transfers(&self) -> Vec<TransferId> {
        self.transfers.keys().copied().collect()
    }

    /// The transfer with this content CID or pack CID.
    pub fn transfer_of(&self, root: &Cid) -> Option<TransferId> {
        self.roots.get(root).copied()
    }

    /// How a transfer is doing; none if there is no such transfer.
    pub fn transfer_stats(&self, transfer: TransferId) -> Option<TransferStats> {
        let of = self.transfers.get(&transfer)?;
        let pieces = of.pieces.as_ref();
        Some(TransferStats {
            transfer,
            stage: self.stage(transfer, of),
            priority: of.share.priority,
            stopped: of.share.stopped,
            upload_limit: of.limits.up.rate(),
            download_limit: of.limits.down.rate(),
            pieces_wanted: pieces.map_or(0, |p| p.wanted_count),
            pieces_here: pieces.map_or(0, |p| p.here_count),
            bytes_wanted: pieces.map_or(0, |p| p.wanted_bytes),
            bytes_here: pieces.map_or(0, |p| p.here_bytes),
            bytes_fetched: of.bytes_fetched,
            bytes_wasted: of.bytes_wasted,
            bytes_corrupt: of.bytes_corrupt,
            bytes_skeleton: of.bytes_skeleton,
            bytes_served: of.bytes_served,
            rate_down: of.down.rate(self.now),
            rate_up: of.up.rate(self.now),
            sources: self
                .conns
                .values()
                .filter(|conn| conn.has_session(transfer, true))
                .count(),
            leechers: self
                .conns
                .values()
                .filter(|c| c.served.values().any(|s| s.transfer == transfer))
                .count(),
            peers: of.peers(),
        })
    }

    fn stage(&self, id: TransferId, of: &Transfer) -> Stage {
        if of.paused || of.share.stopped {
            return Stage::Paused;
        }
        if of.share.queued {
            return Stage::Queued;
        }
        if !of.is_fetching() {
            return Stage::Seeding;
        }
        if !self.conns.values().any(|conn| conn.has_session(id, false)) {
            return Stage::LookingForPeers;
        }
        if !self.conns.values().any(|conn| conn.has_session(id, true)) {
            return Stage::Connecting;
        }
        if of.pieces.is_none() {
            return Stage::FetchingSkeleton;
        }
        if of.last_payload.is_some_and(|at| self.now.since(at) < LIVELY) {
            Stage::Downloading
        } else {
            Stage::Waiting
        }
    }

    /// How a connection is doing; none if there is no such connection.
    pub fn conn_stats(&self, conn: ConnId) -> Option<ConnStats> {
        let of = self.conns.get(&conn)?;
        let fetched = of.sessions.values().map(|session| session.transfer);
        let served = of.served.values().map(|served| served.transfer);
        let mut transfers: Vec<TransferId> = fetched.chain(served).collect();
        transfers.sort_unstable();
        transfers.dedup();
        Some(ConnStats {
            conn,
            peer: of.peer,
            agent: of.agent.clone(),
            rtt: of.window.rtt(),
            rate_down: of.down.rate(self.now),
            rate_up: of.uploads.meter.rate(self.now),
            bytes_down: of.bytes_down,
            bytes_up: of.uploads.bytes,
            window: of.window.bytes(),
            in_flight: of.window.in_flight(),
            choked_by_peer: of.choked_by_peer,
            choking_peer: of.choking,
            snubbed: of.snubbed_until.is_some(),
            score: self.reputation.score(self.now, &of.peer),
            transfers,
        })
    }

    /// The connections.
    pub fn connections(&self) -> Vec<ConnId> {
        self.conns.keys().copied().collect()
    }
}
