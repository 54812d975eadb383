//! Rate limits: of all transfers together and of each, in each direction.
//!
//! A block passes when both its buckets are open, and is then paid for in both. What waits for its own transfer's bucket holds up nothing else.
//! Connections in the local network neither wait nor count, unless [`EngineConfig::limit_lan`](super::EngineConfig::limit_lan) says so.

use std::collections::BTreeSet;

use super::core::Engine;
use super::ids::{ConnId, TransferId};
use super::ledbat::UploadController;
use super::limit::TokenBucket;
use super::pacer;
use crate::time::Timestamp;
use crate::wire::Handle;

/// The two buckets that a block passes.
pub(crate) struct Gate<'a> {
    exempt: bool,
    /// Whether what comes with the bytes of blocks is counted here. Whoever writes counts it himself.
    framed: bool,
    all: &'a mut TokenBucket,
    own: &'a mut TokenBucket,
}

impl<'a> Gate<'a> {
    /// The buckets of uploads.
    pub(crate) fn up(exempt: bool, all: &'a mut TokenBucket, own: &'a mut TokenBucket) -> Self {
        let framed = false;
        Self {
            exempt,
            framed,
            all,
            own,
        }
    }

    /// The buckets of downloads.
    pub(crate) fn down(exempt: bool, all: &'a mut TokenBucket, own: &'a mut TokenBucket) -> Self {
        let framed = true;
        Self {
            exempt,
            framed,
            all,
            own,
        }
    }

    pub(crate) fn is_open(&mut self, now: Timestamp) -> bool {
        self.exempt || (self.all.is_open(now) && self.own.is_open(now))
    }

    pub(crate) fn take(&mut self, now: Timestamp, bytes: u64) {
        if !self.exempt {
            let bytes = self.counted(bytes);
            self.all.take(now, bytes);
            self.own.take(now, bytes);
        }
    }

    pub(crate) fn give_back(&mut self, now: Timestamp, bytes: u64) {
        if !self.exempt {
            let bytes = self.counted(bytes);
            self.all.give_back(now, bytes);
            self.own.give_back(now, bytes);
        }
    }

    /// Bytes of payload with what comes with them, if they come as slowly as is asked for.
    fn counted(&self, bytes: u64) -> u64 {
        let slower = [self.all.rate(), self.own.rate()].into_iter().flatten().min();
        match slower.filter(|_| self.framed) {
            Some(rate) => bytes + pacer::framing(rate, bytes),
            None => bytes,
        }
    }
}

/// The limits of one transfer.
#[derive(Clone, Debug)]
pub(crate) struct OwnLimits {
    pub(crate) up: TokenBucket,
    pub(crate) down: TokenBucket,
}

impl Default for OwnLimits {
    fn default() -> Self {
        Self {
            up: TokenBucket::new(None),
            down: TokenBucket::new(None),
        }
    }
}

impl Engine {
    /// Changes the limits of all transfers together, in bytes a second; none: unlimited. With an upload controller, `upload` is the most that it may
    /// allow.
    pub fn set_limits(&mut self, now: Timestamp, upload: Option<u64>, download: Option<u64>) {
        self.advance(now);
        self.config.upload_limit = upload;
        self.config.download_limit = download;
        self.down.set_rate(self.now, download);
        self.apply_upload_limit();
        self.to_fill.extend(self.conns.keys());
        self.to_serve.extend(self.conns.keys());
        self.ask_paces();
    }

    /// Changes the limits of one transfer, in bytes a second; none: unlimited.
    pub fn set_transfer_limits(
        &mut self,
        now: Timestamp,
        transfer: TransferId,
        upload: Option<u64>,
        download: Option<u64>,
    ) {
        self.advance(now);
        let Some(of) = self.transfers.get_mut(&transfer) else {
            return;
        };
        of.limits.up.set_rate(self.now, upload);
        of.limits.down.set_rate(self.now, download);
        self.to_refill.insert(transfer);
        self.to_serve.extend(self.conns.keys());
        self.ask_paces();
    }

    /// Lets `controller` say how much is uploaded, or nobody.
    pub fn set_upload_controller(&mut self, now: Timestamp, controller: Option<Box<dyn UploadController>>) {
        self.advance(now);
        self.controller = controller;
        self.apply_upload_limit();
        self.to_serve.extend(self.conns.keys());
    }

    /// Whether connections in the local network are limited as all others are.
    pub fn set_limit_lan(&mut self, now: Timestamp, limit_lan: bool) {
        self.advance(now);
        self.config.limit_lan = limit_lan;
        self.exempt = self.conns.keys().copied().filter(|id| self.is_exempt(*id)).collect();
        self.to_fill.extend(self.conns.keys());
        self.to_serve.extend(self.conns.keys());
        self.ask_paces();
    }

    /// Says whether the other end of a connection is in the local network; it is not until that is said.
    pub fn set_local(&mut self, now: Timestamp, conn: ConnId, local: bool) {
        self.advance(now);
        if let Some(of) = self.conns.get_mut(&conn) {
            of.local = local;
            if self.is_exempt(conn) {
                self.exempt.insert(conn);
            } else {
                self.exempt.remove(&conn);
            }
            self.to_fill.insert(conn);
            self.to_serve.insert(conn);
            self.ask_pace(conn);
        }
    }

    /// Bytes a second that may be served now, by whoever decided it; none: unlimited.
    pub fn upload_rate(&self) -> Option<u64> {
        self.up.rate()
    }

    /// Asks the controller, if there is one.
    pub(super) fn apply_upload_limit(&mut self) {
        let (now, ceiling) = (self.now, self.config.upload_limit);
        let asked = self.controller.as_mut().and_then(|controller| controller.limit(now));
        let rate = match (asked, ceiling) {
            (Some(asked), Some(ceiling)) => Some(asked.min(ceiling)),
            (asked, ceiling) => asked.or(ceiling),
        };
        if rate != self.up.rate() {
            self.up.set_rate(now, rate);
        }
    }

    /// Whether a connection neither waits for limits nor counts towards them.
    pub(super) fn is_exempt(&self, conn: ConnId) -> bool {
        !self.config.limit_lan && self.conns.get(&conn).is_some_and(|conn| conn.local)
    }

    /// Bytes on request that will not come after all.
    pub(super) fn give_back_requested(&mut self, conn: ConnId, transfer: TransferId, bytes: u64) {
        let exempt = self.is_exempt(conn);
        if let Some(of) = self.transfers.get_mut(&transfer) {
            Gate::down(exempt, &mut self.down, &mut of.limits.down).give_back(self.now, bytes);
        }
    }

    /// Handles of a peer whose transfers are served no more for now.
    pub(super) fn closed_handles(&mut self, id: ConnId) -> Vec<Handle> {
        let now = self.now;
        let exempt = self.is_exempt(id);
        let Some(conn) = self.conns.get(&id).filter(|_| !exempt) else {
            return Vec::new();
        };
        let mut closed = Vec::new();
        for (handle, served) in &conn.served {
            if let Some(of) = self.transfers.get_mut(&served.transfer)
                && !of.limits.up.is_open(now)
            {
                self.waiting_up.insert(served.transfer);
                closed.push(*handle);
            }
        }
        closed
    }

    /// Whoever waited for a limit that has opened may go on.
    pub(super) fn open_limits(&mut self) {
        let now = self.now;
        if self.down_shut && self.down.is_open(now) {
            self.down_shut = false;
            self.to_fill.extend(self.conns.keys());
        }
        self.up.is_open(now);
        let mut still = BTreeSet::new();
        for id in std::mem::take(&mut self.waiting_down) {
            let Some(of) = self.transfers.get_mut(&id) else {
                continue;
            };
            if of.limits.down.is_open(now) {
                self.to_refill.insert(id);
            } else {
                still.insert(id);
            }
        }
        self.waiting_down = std::mem::take(&mut still);
        for id in std::mem::take(&mut self.waiting_up) {
            let Some(of) = self.transfers.get_mut(&id) else {
                continue;
            };
            if !of.limits.up.is_open(now) {
                still.insert(id);
                continue;
            }
            let serves = |conn: &super::conn::Conn| {
                !conn.uploads.is_empty() && conn.served.values().any(|served| served.transfer == id)
            };
            let conns = self.conns.iter().filter(|(_, conn)| serves(conn));
            self.to_serve.extend(conns.map(|(id, _)| *id));
        }
        self.waiting_up = still;
    }

    /// When the next limit opens that somebody waits for.
    pub(super) fn limits_open_at(&self) -> Option<Timestamp> {
        let now = self.now;
        let up = (!self.to_serve.is_empty()).then(|| self.up.opens_at()).flatten();
        let down = self.down_shut.then(|| self.down.opens_at().unwrap_or(now));
        let own_down = self.waiting_down.iter().filter_map(|id| self.transfers.get(id));
        let own_down = own_down.map(|of| of.limits.down.opens_at().unwrap_or(now)).min();
        let own_up = self.waiting_up.iter().filter_map(|id| self.transfers.get(id));
        let own_up = own_up.map(|of| of.limits.up.opens_at().unwrap_or(now)).min();
        [up, down, own_down, own_up].into_iter().flatten().min()
    }
}
