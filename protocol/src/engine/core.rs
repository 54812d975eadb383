//! The engine: owns connections and transfers, and composes the machines.

use std::{collections::VecDeque, time::Duration};

use super::action::{Action, Expected, ServeFailure, ServeJob, Unwanted, Verdict, Violation};
use super::config::{ContentPieces, ContentSpec, EngineConfig};
use super::ids::{ConnId, PeerKey, TransferId};
use super::stats::{ConnStats, TransferStats};
use crate::format::{Cid, PieceIndex, PieceSet};
use crate::time::Timestamp;
use crate::wire::{BulkHeader, Message};

/// The swarm engine of one node. See the [module](super) for the contract.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    now: Timestamp,
    actions: VecDeque<Action>,
    transfers_made: u64,
}

impl Engine {
    /// An engine without connections or contents. `seed` decides all that is left to chance.
    pub fn new(config: EngineConfig, seed: u64) -> Self {
        let _ = seed;
        Self {
            config,
            now: Timestamp::ZERO,
            actions: VecDeque::new(),
            transfers_made: 0,
        }
    }

    // Facts about connections.

    /// A connection's control stream is there. `rtt` is a first guess of its round trip.
    pub fn handle_connected(&mut self, now: Timestamp, conn: ConnId, peer: PeerKey, rtt: Duration) {
        let _ = (now, conn, peer, rtt);
    }

    /// A connection has ended. Blocks of it that came whole still get their verdict.
    pub fn handle_disconnected(&mut self, now: Timestamp, conn: ConnId) {
        let _ = (now, conn);
    }

    /// A round trip was measured.
    pub fn handle_rtt(&mut self, now: Timestamp, conn: ConnId, rtt: Duration) {
        let _ = (now, conn, rtt);
    }

    /// A control message came. Messages of a connection that the engine does not know are ignored.
    pub fn handle_message(&mut self, now: Timestamp, conn: ConnId, message: Message) {
        let _ = (now, conn, message);
    }

    /// The caller itself saw the peer break the protocol (bytes that do not decode, say): closes the connection.
    pub fn handle_violation(&mut self, now: Timestamp, conn: ConnId, violation: Violation) {
        let _ = (now, conn, violation);
    }

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
        let _ = (now, conn, header);
        Err(Unwanted::Late)
    }

    /// `bytes` more of the payload behind the last header came (kept or read over). Told at least each
    /// 64 KiB, so that rates and time-outs see progress.
    pub fn handle_block_progress(&mut self, now: Timestamp, conn: ConnId, bytes: u32) {
        let _ = (now, conn, bytes);
    }

    /// What became of a block that came whole. Exactly once for each.
    pub fn handle_verdict(&mut self, now: Timestamp, block: &Expected, verdict: Verdict) {
        let _ = (now, block, verdict);
    }

    /// A block that [`Action::Serve`] asked for was written (with how many bytes of payload), or was not. Exactly once for
    /// each, in any order; not needed once the connection has ended.
    pub fn handle_served(&mut self, now: Timestamp, job: &ServeJob, outcome: Result<u32, ServeFailure>) {
        let _ = (now, job, outcome);
    }

    // Local wishes and facts.

    /// Adds a content to fetch or seed. If the content is known already, the two become one and the known transfer's ID is returned.
    pub fn add_content(&mut self, now: Timestamp, spec: ContentSpec) -> TransferId {
        let _ = (now, spec);
        self.transfers_made += 1;
        TransferId(self.transfers_made)
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
        let _ = (now, content, pieces);
        transfer
    }

    /// Asks peers for nodes of the skeleton, in this order. Those already asked for are not asked for twice.
    pub fn want_nodes(&mut self, now: Timestamp, transfer: TransferId, cids: &[Cid]) {
        let _ = (now, transfer, cids);
    }

    /// Changes which pieces are wanted.
    pub fn set_wanted(&mut self, now: Timestamp, transfer: TransferId, wanted: PieceSet) {
        let _ = (now, transfer, wanted);
    }

    /// A piece was found locally (not fetched).
    pub fn handle_have(&mut self, now: Timestamp, transfer: TransferId, piece: PieceIndex) {
        let _ = (now, transfer, piece);
    }

    /// A piece is gone locally: peers are told, and it is fetched again if it is wanted.
    pub fn handle_lost(&mut self, now: Timestamp, transfer: TransferId, piece: PieceIndex) {
        let _ = (now, transfer, piece);
    }

    /// Forgets a transfer; peers that opened it are told.
    pub fn remove_content(&mut self, now: Timestamp, transfer: TransferId) {
        let _ = (now, transfer);
    }

    /// Stops fetching; what is here goes on being served.
    pub fn pause(&mut self, now: Timestamp, transfer: TransferId) {
        let _ = (now, transfer);
    }

    /// Goes on fetching after a pause or a failed write.
    pub fn resume(&mut self, now: Timestamp, transfer: TransferId) {
        let _ = (now, transfer);
    }

    /// Changes the limits in bytes a second; none: unlimited.
    pub fn set_limits(&mut self, now: Timestamp, upload: Option<u64>, download: Option<u64>) {
        self.config.upload_limit = upload;
        self.config.download_limit = download;
        self.now = now;
    }

    // Time and output.

    /// Time has passed. Calling it too early or too late does no harm.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// When to call [`Engine::handle_timeout`] at the latest; none while there is nothing to wait for.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        None
    }

    /// The next thing to do; none once all has been told.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    // Looking in.

    /// The transfers.
    pub fn transfers(&self) -> Vec<TransferId> {
        Vec::new()
    }

    /// How a transfer is doing; none if there is no such transfer.
    pub fn transfer_stats(&self, transfer: TransferId) -> Option<TransferStats> {
        let _ = transfer;
        None
    }

    /// How a connection is doing; none if there is no such connection.
    pub fn conn_stats(&self, conn: ConnId) -> Option<ConnStats> {
        let _ = conn;
        None
    }

    /// The connections.
    pub fn connections(&self) -> Vec<ConnId> {
        Vec::new()
    }
}
