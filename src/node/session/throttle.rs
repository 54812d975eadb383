//! The upload limits, for the tasks that write blocks.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use modswarm_protocol::{
    Timestamp,
    engine::{Pacer, TransferId},
};

/// The node's [`Pacer`]: the actor sets its limits, and writers ask it.
#[derive(Clone, Debug)]
pub(in crate::node) struct Throttle {
    pacer: Arc<Mutex<Pacer>>,
    started: Instant,
}

impl Throttle {
    pub(in crate::node) fn new() -> Self {
        Self {
            pacer: Arc::default(),
            started: Instant::now(),
        }
    }

    pub(in crate::node) fn set_rate(&self, rate: Option<u64>) {
        self.pacer().set_rate(self.now(), rate);
    }

    pub(in crate::node) fn set_transfer_rate(&self, transfer: TransferId, rate: Option<u64>) {
        self.pacer().set_transfer_rate(self.now(), transfer, rate);
    }

    pub(super) fn is_unlimited(&self) -> bool {
        self.pacer().is_unlimited()
    }

    /// See [`Pacer::ask`].
    pub(super) fn ask(&self, transfer: TransferId, want: u32, hurry: bool) -> Result<u32, Instant> {
        let asked = self.pacer().ask(self.now(), transfer, want, hurry);
        asked.map_err(|at| self.started + Duration::from_micros(at.as_micros()))
    }

    fn pacer(&self) -> MutexGuard<'_, Pacer> {
        // Its buckets are whole after every statement.
        self.pacer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_micros(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}
