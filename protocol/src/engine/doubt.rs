//! Peers that say to have what they have not.
//!
//! What a peer says to have is believed until it shows itself that it is not so: it asks us for a piece of its own map, or refuses pieces of it. Honest ones never
//! do, as they tell `Lost` before either. Whoever is doubted is asked for nothing, counts in nothing, and is served when nobody else waits; after a while it is
//! heard again.

use std::time::Duration;

use super::core::Engine;
use super::ids::{ConnId, TransferId};
use super::reputation::Fault;
use super::session::{Role, Source};
use crate::wire::{Handle, Run};

/// How long a peer is doubted.
const DOUBT: Duration = Duration::from_secs(60);
/// Pieces of its map that a peer refuses before it is doubted.
const PROMISES: u32 = 4;

impl Engine {
    /// The peer asks for pieces of a transfer.
    pub(super) fn note_asked(&mut self, id: ConnId, transfer: TransferId, runs: &[Run]) {
        let Some(conn) = self.conns.get(&id) else { return };
        let mut sessions = conn.sessions.values().filter(|session| session.transfer == transfer);
        let false_map = sessions.any(|session| match &session.source {
            Source::All => session.role == Role::Content && !runs.is_empty(),
            Source::Map(have) => runs
                .iter()
                .any(|run| have[run.start as usize..run.end() as usize].any()),
            Source::Nothing | Source::Unknown { .. } => false,
        });
        if false_map {
            let peer = conn.peer;
            self.reputation.handle_fault(self.now, peer, Fault::BrokenPromise, 1);
            self.doubt(id);
        }
    }

    /// The peer refused pieces as not there: those that it had said to have are broken promises. One that tells `Lost` first is not heard here, as
    /// by then it has not said so any more.
    pub(super) fn note_refusals(&mut self, id: ConnId, handle: Handle, pieces: &[u32]) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(session) = conn.sessions.get_mut(&handle) else {
            return;
        };
        let broken = pieces.iter().filter(|piece| session.source.has(**piece)).count();
        let times = u32::try_from(broken).unwrap_or(u32::MAX);
        session.broken = session.broken.saturating_add(times);
        let doubtful = session.broken >= PROMISES;
        if times > 0 {
            let peer = conn.peer;
            self.reputation
                .handle_fault(self.now, peer, Fault::BrokenPromise, times);
        }
        if doubtful {
            self.doubt(id);
        }
    }

    fn doubt(&mut self, id: ConnId) {
        let until = self.now + DOUBT;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.doubted_until = until;
        let handles: Vec<Handle> = conn.sessions.keys().copied().collect();
        let served: Vec<TransferId> = conn.served.values().map(|served| served.transfer).collect();
        for handle in handles {
            self.close_session(id, handle);
        }
        for transfer in served {
            self.withdraw_offers(transfer, id);
        }
    }
}
