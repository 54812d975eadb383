//! Kademlia on a schedule: whom to look up, what to announce, and when again.
//!
//! Look-ups and announcements are spread out, a few at a time; results are used as they come.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::kad::{self, QueryId, RecordKey};
use modswarm_protocol::{Cid, engine::TransferId};

/// Announcements under way at once.
const MAX_ANNOUNCING: usize = 8;
/// Records live for 48 hours at those who keep them.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(22 * 3600);
/// After an announcement that reached nobody.
const ANNOUNCE_RETRY: Duration = Duration::from_secs(30);
/// Between two look-ups for the same thing while it is needed.
const LOOKUP_INTERVAL_MIN: Duration = Duration::from_secs(1);
const LOOKUP_INTERVAL_MAX: Duration = Duration::from_secs(60);

type Kad = kad::Behaviour<kad::store::MemoryStore>;

#[derive(Debug)]
struct Announcement {
    next: Instant,
    query: Option<QueryId>,
}

#[derive(Debug)]
struct Lookup {
    transfer: TransferId,
    next: Instant,
    interval: Duration,
    query: Option<QueryId>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Discovery {
    announcements: HashMap<Cid, Announcement>,
    lookups: HashMap<Cid, Lookup>,
}

/// The key of a CID's provider records: its multihash.
///
/// Kept apart from the CID, so that a pack may one day be found by a key that does not give its CID away.
pub(super) fn discovery_key(cid: &Cid) -> RecordKey {
    RecordKey::new(&cid.multihash_bytes())
}

impl Discovery {
    /// Announces that this node has `cid`, now and again.
    pub(super) fn announce(&mut self, cid: Cid, now: Instant) {
        self.announcements
            .entry(cid)
            .or_insert(Announcement { next: now, query: None });
    }

    /// Announces no longer, and names this node no more when asked. Kademlia has no word to take back what others keep: that lapses.
    pub(super) fn withdraw(&mut self, cid: &Cid, kad: &mut Kad) {
        if self.announcements.remove(cid).is_some() {
            kad.stop_providing(&discovery_key(cid));
        }
    }

    /// Our addresses or neighbours changed: what was announced before is announced again soon.
    pub(super) fn announce_again(&mut self, now: Instant) {
        for announcement in self.announcements.values_mut() {
            announcement.next = announcement.next.min(now + Duration::from_secs(1));
        }
    }

    /// Looks for providers of `cid` until told to stop.
    pub(super) fn look_for(&mut self, cid: Cid, transfer: TransferId, now: Instant) {
        let lookup = self.lookups.entry(cid).or_insert(Lookup {
            transfer,
            next: now,
            interval: LOOKUP_INTERVAL_MIN,
            query: None,
        });
        lookup.transfer = transfer;
    }

    /// Nobody is known: the next look-up is due now, if the last is some seconds old.
    pub(super) fn hurry(&mut self, transfer: TransferId, now: Instant) {
        for lookup in self.lookups.values_mut().filter(|lookup| lookup.transfer == transfer) {
            lookup.interval = LOOKUP_INTERVAL_MIN;
            lookup.next = lookup.next.min(now + LOOKUP_INTERVAL_MIN);
        }
    }

    /// Stops looking for what `transfer` needed.
    pub(super) fn stop(&mut self, transfer: TransferId, kad: &mut Kad) {
        self.lookups.retain(|_, lookup| {
            if lookup.transfer != transfer {
                return true;
            }
            if let Some(mut query) = lookup.query.and_then(|id| kad.query_mut(&id)) {
                query.finish();
            }
            false
        });
    }

    /// Starts what is due. To be called about once a second; does nothing while no other node is known.
    pub(super) fn tick(&mut self, now: Instant, kad: &mut Kad, reachable: bool) {
        if kad.kbuckets().all(|bucket| bucket.is_empty()) {
            return;
        }
        for (cid, lookup) in &mut self.lookups {
            if lookup.query.is_none() && lookup.next <= now {
                lookup.query = Some(kad.get_providers(discovery_key(cid)));
            }
        }
        if !reachable {
            return;
        }
        let busy = self.announcements.values().filter(|a| a.query.is_some()).count();
        let due = self
            .announcements
            .iter_mut()
            .filter(|(_, a)| a.query.is_none() && a.next <= now);
        for (cid, announcement) in due.take(MAX_ANNOUNCING.saturating_sub(busy)) {
            match kad.start_providing(discovery_key(cid)) {
                Ok(query) => announcement.query = Some(query),
                Err(error) => {
                    tracing::warn!(%cid, %error, "cannot announce");
                    announcement.next = now + ANNOUNCE_RETRY;
                }
            }
        }
    }

    /// The transfer that a look-up is for.
    pub(super) fn transfer_of(&self, query: QueryId) -> Option<TransferId> {
        self.lookups
            .values()
            .find(|lookup| lookup.query == Some(query))
            .map(|lookup| lookup.transfer)
    }

    /// A query ended; `reached` says whether an announcement found anybody.
    pub(super) fn finished(&mut self, query: QueryId, reached: bool, now: Instant) {
        for lookup in self.lookups.values_mut().filter(|lookup| lookup.query == Some(query)) {
            lookup.query = None;
            lookup.next = now + lookup.interval;
            lookup.interval = (lookup.interval * 2).min(LOOKUP_INTERVAL_MAX);
        }
        for announcement in self.announcements.values_mut().filter(|a| a.query == Some(query)) {
            announcement.query = None;
            announcement.next = now + if reached { ANNOUNCE_INTERVAL } else { ANNOUNCE_RETRY };
        }
    }
}
