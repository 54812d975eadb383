//! What the user wants of contents: pauses, priorities, limits. The engine is told whenever a content gets a transfer.

use modswarm_protocol::{
    Cid,
    engine::{self, Ledbat, TransferId},
};
use serde::{Deserialize, Serialize};

use super::Actor;
use crate::{
    api::{Limit, Limits, Priority},
    node::swarm,
};

/// What the user wants of one content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::node) struct Wish {
    /// Neither fetched nor served.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::node) paused: bool,
    pub(in crate::node) priority: Priority,
    /// Bytes a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::node) upload: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::node) download: Option<u64>,
}

impl Actor {
    pub(super) fn wish(&mut self, content: Cid, wish: Wish) {
        if wish == Wish::default() {
            self.wishes.remove(&content);
        } else {
            self.wishes.insert(content, wish);
        }
        if let Some(transfer) = self.transfer_of(&content) {
            self.apply_wish(transfer);
        }
    }

    /// Tells the engine what the user wants of a transfer, as far as its content is known.
    pub(super) fn apply_wish(&mut self, transfer: TransferId) {
        let now = self.now();
        let Some(t) = self.transfers.get(&transfer) else { return };
        let content = t.roots.iter().find_map(|root| self.wishes.get(root));
        let wish = content.copied().unwrap_or_default();
        let priority = match wish.priority {
            Priority::Low => engine::Priority::Low,
            Priority::Normal => engine::Priority::Normal,
            Priority::High => engine::Priority::High,
        };
        self.engine.set_priority(now, transfer, priority);
        self.engine
            .set_transfer_limits(now, transfer, wish.upload, wish.download);
        self.throttle.set_own_rate(transfer, wish.upload);
        self.engine.set_stopped(now, transfer, wish.paused);
    }

    /// Changes the limits of all transfers together, as far as that is asked, and says what they are.
    pub(super) fn limit(&mut self, upload: Option<Limit>, download: Option<Limit>) -> Limits {
        let now = self.now();
        if let Some(limit) = upload {
            let auto = limit == Limit::Auto;
            if auto != (self.limits.upload == Limit::Auto) {
                let controller = auto.then(|| Box::<Ledbat>::default() as Box<dyn engine::UploadController>);
                self.engine.set_upload_controller(now, controller);
                // Connections that are there keep their interval.
                self.swarm.behaviour_mut().ping = swarm::ping_behaviour(auto);
            }
            self.limits.upload = limit;
        }
        if let Some(limit) = download {
            self.limits.download = limit;
        }
        if upload.is_some() || download.is_some() {
            let (up, down) = (self.limits.upload, self.limits.download);
            self.engine
                .set_limits(now, up.bytes_per_second(), down.bytes_per_second());
        }
        Limits {
            upload_now: self.engine.upload_rate(),
            ..self.limits.clone()
        }
    }

    /// Tells the writers of blocks when the limit of all uploads has changed.
    pub(super) fn keep_throttle(&mut self) {
        let rate = self.engine.upload_rate();
        if rate != self.throttled_to {
            self.throttled_to = rate;
            self.throttle.set_rate(rate);
        }
    }
}
