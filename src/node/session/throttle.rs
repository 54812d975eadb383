//! The upload limits and what a peer asks for, for the tasks that write blocks.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use modswarm_protocol::{
    Timestamp,
    engine::{Pacer, ServeJob, TransferId},
    wire::Handle,
};

/// A [`Pacer`] that the actor sets and writers ask.
#[derive(Debug)]
pub(in crate::node) struct Throttle<K> {
    pacer: Arc<Mutex<Pacer<K>>>,
    started: Instant,
}

/// The upload limits: of the node, and of its transfers.
pub(in crate::node) type UploadLimits = Throttle<TransferId>;
/// How fast a peer wants to be sent to: over its connection, and what it asked for by a handle.
pub(in crate::node) type PeerPace = Throttle<Handle>;

impl<K> Clone for Throttle<K> {
    fn clone(&self) -> Self {
        Self {
            pacer: Arc::clone(&self.pacer),
            started: self.started,
        }
    }
}

impl<K: Ord> Throttle<K> {
    pub(in crate::node) fn new() -> Self {
        Self {
            pacer: Arc::default(),
            started: Instant::now(),
        }
    }

    pub(in crate::node) fn set_rate(&self, rate: Option<u64>) {
        self.pacer().set_rate(self.now(), rate);
    }

    pub(in crate::node) fn set_own_rate(&self, of: K, rate: Option<u64>) {
        self.pacer().set_own_rate(self.now(), of, rate);
    }

    fn is_unlimited(&self) -> bool {
        self.pacer().is_unlimited()
    }

    /// See [`Pacer::ask`].
    fn ask(&self, of: &K, want: u32, hurry: bool) -> Result<u32, Instant> {
        let asked = self.pacer().ask(self.now(), of, want, hurry);
        asked.map_err(|at| self.started + Duration::from_micros(at.as_micros()))
    }

    fn give_back(&self, of: &K, granted: u32, written: u32) {
        self.pacer().give_back(self.now(), of, granted, written);
    }

    fn pacer(&self) -> MutexGuard<'_, Pacer<K>> {
        // Its buckets are whole after every statement.
        self.pacer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_micros(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

/// What holds up the blocks to one peer.
#[derive(Clone, Debug)]
pub(in crate::node) struct Throttles {
    /// Of this node.
    pub(in crate::node) limits: UploadLimits,
    /// Of the peer.
    pub(in crate::node) pace: PeerPace,
}

impl Throttles {
    /// Whether a block may leave as fast as the connection takes it.
    pub(super) fn let_pass(&self, job: &ServeJob) -> bool {
        (!job.limited || self.limits.is_unlimited()) && self.pace.is_unlimited()
    }

    /// How many of `want` bytes of a block may be written now; they count as written. `others` wait behind it on the same stream.
    ///
    /// # Errors
    /// When to ask again, if it is none.
    pub(super) fn ask<'a>(
        &self,
        job: &ServeJob,
        want: u32,
        mut others: impl Iterator<Item = &'a ServeJob> + Clone,
    ) -> Result<u32, Instant> {
        let hurry = others.clone().any(|other| other.handle != job.handle);
        let paced = self.pace.ask(&job.handle, want, hurry)?;
        if !job.limited {
            return Ok(paced);
        }
        let hurry = others.any(|other| other.transfer != job.transfer);
        let granted = self.limits.ask(&job.transfer, paced, hurry);
        let written = *granted.as_ref().unwrap_or(&0);
        if written < paced {
            self.pace.give_back(&job.handle, paced, written);
        }
        granted
    }
}
