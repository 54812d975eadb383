//! Which transfers fetch at a time, and how they share what there is: priorities, the queue, and pauses.
//!
//! At most [`EngineConfig::max_active`](super::EngineConfig::max_active) transfers fetch pieces at a time; the others wait in order, the highest
//! priority first. Those that fetch share connections by weight (start-time fair queueing over bytes requested): a low one gets less, and
//! never nothing. Skeletons are small, and are fetched without waiting.

use std::cmp::Reverse;
use std::time::Duration;

use super::config::PickOrder;
use super::core::Engine;
use super::ids::{ConnId, TransferId};
use super::session::Session;
use crate::format::PieceSet;
use crate::time::Timestamp;
use crate::wire::{CloseReason, Handle, Message};

/// A transfer that holds a place among the fetching ones, and to which nothing has come for this long, goes behind those that wait…
const STALLED: Duration = Duration::from_secs(60);
/// …and is counted as the others again after this.
const STALLED_RETRY: Duration = Duration::from_secs(300);

/// How much of what there is a transfer gets, compared with others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// A quarter of what a normal one gets.
    Low,
    /// As much as every other normal one.
    #[default]
    Normal,
    /// Four times what a normal one gets.
    High,
}

impl Priority {
    /// What a byte counts, in sixteenths of what it counts at the least weight.
    fn cost(self) -> u64 {
        match self {
            Self::Low => 16,
            Self::Normal => 4,
            Self::High => 1,
        }
    }
}

/// One transfer's place among the others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Share {
    pub(crate) priority: Priority,
    /// Paused by the user: neither fetched nor served.
    pub(crate) stopped: bool,
    /// Whether it waits for its turn to fetch pieces.
    pub(crate) queued: bool,
    /// Whether the queue knows that it has pieces to fetch.
    pub(crate) listed: bool,
    /// Its place in the queue: the less, the sooner.
    place: u64,
    active_since: Timestamp,
    /// Since when it is behind the others, because nothing came.
    stalled_at: Option<Timestamp>,
    /// What it has got for its weight.
    tag: u64,
}

impl Share {
    pub(crate) fn at_place(place: u64) -> Self {
        Self {
            place,
            ..Self::default()
        }
    }
}

impl Engine {
    /// Changes how much a transfer gets compared with others.
    pub fn set_priority(&mut self, now: Timestamp, transfer: TransferId, priority: Priority) {
        self.advance(now);
        if let Some(of) = self.transfers.get_mut(&transfer) {
            of.share.priority = priority;
            self.run_queue();
        }
    }

    /// Stops fetching and serving a transfer, or goes on with both. What is here stays known.
    pub fn set_stopped(&mut self, now: Timestamp, transfer: TransferId, stopped: bool) {
        self.advance(now);
        let Some(of) = self.transfers.get_mut(&transfer) else {
            return;
        };
        if std::mem::replace(&mut of.share.stopped, stopped) == stopped {
            return;
        }
        if stopped {
            let waiting = of.idle.as_mut().map(std::mem::take).unwrap_or_default().waiting;
            self.refuse_waiting(waiting);
            self.close_sessions(transfer);
            self.close_served(transfer, CloseReason::Removed);
            self.run_choker();
            self.run_queue();
        } else {
            self.after_wanted(transfer);
        }
    }

    /// Changes how many transfers fetch pieces at a time; none: all.
    pub fn set_max_active(&mut self, now: Timestamp, max_active: Option<usize>) {
        self.advance(now);
        self.config.max_active = max_active;
        self.run_queue();
    }

    /// Changes in which order pieces are fetched: those of `first` before all others, and both in `order`.
    pub fn set_order(&mut self, now: Timestamp, transfer: TransferId, order: PickOrder, first: Option<PieceSet>) {
        self.advance(now);
        if let Some(of) = self.transfers.get_mut(&transfer) {
            of.order = order;
            if let Some(pieces) = &mut of.pieces {
                pieces.picker.set_first(first);
            }
        }
    }

    /// Tells peers that opened a transfer that it is not served any more.
    pub(super) fn close_served(&mut self, id: TransferId, reason: CloseReason) {
        for conn_id in self.conns.keys().copied().collect::<Vec<_>>() {
            let Some(conn) = self.conns.get_mut(&conn_id) else {
                continue;
            };
            let served = conn.served.iter().filter(|(_, served)| served.transfer == id);
            let handles: Vec<Handle> = served.map(|(handle, _)| *handle).collect();
            conn.exchange.forget(id);
            for handle in handles {
                if let Some(conn) = self.conns.get_mut(&conn_id) {
                    conn.served.remove(&handle);
                    conn.uploads.close(handle);
                }
                self.forget_pace(conn_id, handle);
                self.send(conn_id, Message::Closed { handle, reason });
            }
        }
    }

    /// Decides which transfers fetch pieces now.
    pub(super) fn run_queue(&mut self) {
        let waiting = self.transfers.values().any(|of| of.share.queued);
        if self.config.max_active.is_none() && !waiting {
            return;
        }
        let wanting = self.transfers.iter_mut().filter_map(|(id, of)| {
            let wants = of.pieces.is_some() && of.wants();
            of.share.listed = wants;
            of.share.queued &= wants;
            let share = &of.share;
            wants.then_some((share.stalled_at.is_some(), Reverse(share.priority), share.place, *id))
        });
        let mut wanting: Vec<_> = wanting.collect();
        wanting.sort_unstable();
        let max = self.config.max_active.unwrap_or(usize::MAX).max(1);
        for (i, (.., id)) in wanting.into_iter().enumerate() {
            let Some(of) = self.transfers.get_mut(&id) else {
                continue;
            };
            let queued = i >= max;
            if std::mem::replace(&mut of.share.queued, queued) == queued {
                continue;
            }
            if queued {
                self.close_sessions(id);
            } else {
                of.share.active_since = self.now;
                self.to_refill.insert(id);
                self.open_everywhere();
            }
        }
    }

    /// Lets those that wait have the places of those to which nothing comes.
    pub(super) fn tick_queue(&mut self) {
        let now = self.now;
        if !self.transfers.values().any(|of| of.share.queued) {
            return;
        }
        for (id, of) in &mut self.transfers {
            // What waits for a rate limit is not stalled.
            let waits = self.waiting_down.contains(id) || self.down_shut;
            let holds = of.pieces.is_some() && of.is_fetching();
            let since = of
                .last_payload
                .unwrap_or(of.share.active_since)
                .max(of.share.active_since);
            if holds && !waits && now.since(since) >= STALLED {
                of.share.stalled_at = Some(now);
            } else if of.share.stalled_at.is_some_and(|at| now.since(at) >= STALLED_RETRY) {
                of.share.stalled_at = None;
            }
        }
        self.run_queue();
    }

    /// What a session's transfer has got for its weight: the least goes first.
    pub(super) fn tag_of(&self, session: &Session) -> u64 {
        let tag = self.transfers.get(&session.transfer).map_or(0, |of| of.share.tag);
        tag.max(self.virtual_time)
    }

    /// The least [`Engine::tag_of`] of what a connection may fetch.
    pub(super) fn least_tag(&self, conn: ConnId) -> u64 {
        let sessions = self
            .conns
            .get(&conn)
            .into_iter()
            .flat_map(|conn| conn.sessions.values());
        sessions.map(|session| self.tag_of(session)).min().unwrap_or(u64::MAX)
    }

    /// Whether not all transfers have the same priority.
    pub(super) fn priorities_differ(&self, sessions: impl Iterator<Item = TransferId>) -> bool {
        let mut priorities = sessions.filter_map(|id| Some(self.transfers.get(&id)?.share.priority));
        let first = priorities.next();
        priorities.any(|priority| Some(priority) != first)
    }

    /// `bytes` were requested for a transfer.
    pub(super) fn charge(&mut self, transfer: TransferId, bytes: u64) {
        if let Some(of) = self.transfers.get_mut(&transfer) {
            self.virtual_time = self.virtual_time.max(of.share.tag);
            let cost = bytes.saturating_mul(of.share.priority.cost());
            of.share.tag = self.virtual_time.saturating_add(cost);
        }
    }
}
