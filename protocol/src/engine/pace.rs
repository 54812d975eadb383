//! The pace at which whoever has a download limit asks to be sent to.
//!
//! A download limit holds requests back, and a block comes whole once it was requested: at the speed of the line, which at a low limit is a burst of
//! seconds. So its server is told how fast blocks may come, and spreads their bytes with a [`Pacer`](super::Pacer) of the connection. A server that
//! does not know the message sends as it likes: the limit itself is kept here.

use super::action::Action;
use super::core::Engine;
use super::ids::ConnId;
use crate::wire::{Handle, Message};

/// Blocks are sent no slower than this, in bytes a second: who waits for one would take it for stalled.
const PACE_MIN: u64 = 4096;
/// What is asked for is so much faster than the limit (a 64th), so that nothing ever queues up at a server for its pace alone.
const HEADROOM: u64 = 64;

impl Engine {
    /// Tells a peer how fast it may send, as far as that has changed.
    pub(super) fn ask_pace(&mut self, id: ConnId) {
        let exempt = self.is_exempt(id);
        let Some(conn) = self.conns.get_mut(&id).filter(|conn| conn.may_ask()) else {
            return;
        };
        let all = pace_of(self.down.rate().filter(|_| !exempt));
        if !conn.sessions.is_empty() && conn.asked_pace != all {
            conn.asked_pace = all;
            let message = Message::Pace {
                handle: None,
                rate: all,
            };
            self.actions.push_back(Action::Send(id, message));
        }
        for (handle, session) in &mut conn.sessions {
            let own = self.transfers.get(&session.transfer);
            let rate = pace_of(own.and_then(|of| of.limits.down.rate()).filter(|_| !exempt));
            if session.asked_pace != rate {
                session.asked_pace = rate;
                let handle = Some(*handle);
                self.actions.push_back(Action::Send(id, Message::Pace { handle, rate }));
            }
        }
    }

    /// Tells all peers, as far as that has changed.
    pub(super) fn ask_paces(&mut self) {
        for id in self.conns.keys().copied().collect::<Vec<_>>() {
            self.ask_pace(id);
        }
    }

    /// A peer says how fast it wants what it has opened, or all of it.
    pub(super) fn on_pace(&mut self, id: ConnId, handle: Option<Handle>, rate: u32) {
        if let Some(handle) = handle {
            let waits = self.waiting_handles(id).any(|other| other == handle);
            let Some(conn) = self.conns.get_mut(&id) else { return };
            // It may have been refused, or closed, meanwhile.
            if !waits && !conn.served.contains_key(&handle) {
                return;
            }
            if rate > 0 {
                conn.paced.insert(handle);
            } else {
                conn.paced.remove(&handle);
            }
        }
        let rate = (rate > 0).then(|| u64::from(rate).max(PACE_MIN));
        self.actions.push_back(Action::Pace { conn: id, handle, rate });
    }

    /// A handle that a peer has had is closed.
    pub(super) fn forget_pace(&mut self, id: ConnId, handle: Handle) {
        if self.conns.get_mut(&id).is_some_and(|conn| conn.paced.remove(&handle)) {
            self.actions.push_back(Action::Pace {
                conn: id,
                handle: Some(handle),
                rate: None,
            });
        }
    }
}

/// What is asked for under a limit; 0 for none.
fn pace_of(limit: Option<u64>) -> u32 {
    limit.map_or(0, |limit| {
        let pace = limit.saturating_add(limit / HEADROOM).max(PACE_MIN);
        u32::try_from(pace).unwrap_or(0)
    })
}
