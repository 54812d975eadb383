//! How much faster than others some peers are to be sent to: the engine says it of peers, and controllers ask it of connections.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU16, Ordering::Relaxed},
    },
};

use libp2p::PeerId;

/// As fast as others, in hundredths.
const EVEN: u16 = 100;

/// The weight of one connection.
#[derive(Debug)]
pub(super) struct Weight(AtomicU16);

impl Default for Weight {
    fn default() -> Self {
        Self(AtomicU16::new(EVEN))
    }
}

impl Weight {
    pub(super) fn get(&self) -> f64 {
        f64::from(self.0.load(Relaxed)) / f64::from(EVEN)
    }

    pub(super) fn set(&self, hundredths: u16) {
        self.0.store(hundredths.max(1), Relaxed);
    }
}

/// The weights of far connections, by peer.
#[derive(Clone, Debug, Default)]
pub(in crate::node) struct Weights(Arc<Mutex<HashMap<PeerId, Vec<Weak<Weight>>>>>);

impl Weights {
    /// What is sent to `peer` over its far connections goes so much faster than what goes to one of 100, in hundredths.
    pub(in crate::node) fn set(&self, peer: PeerId, hundredths: u16) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer = all.get(&peer).into_iter().flatten().filter_map(Weak::upgrade);
        of_peer.for_each(|weight| weight.set(hundredths));
    }

    /// A connection to `peer` has this weight, as long as it lasts.
    pub(super) fn add(&self, peer: PeerId, weight: &Arc<Weight>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that have ended.
        all.retain(|_, of_peer| {
            of_peer.retain(|weight| weight.strong_count() > 0);
            !of_peer.is_empty()
        });
        all.entry(peer).or_default().push(Arc::downgrade(weight));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_connections_of_a_peer_get_its_weight_and_ended_ones_are_forgotten() {
        let weights = Weights::default();
        let (one, other) = (PeerId::random(), PeerId::random());
        let conns: [Arc<Weight>; 3] = Default::default();
        weights.add(one, &conns[0]);
        weights.add(one, &conns[1]);
        weights.add(other, &conns[2]);
        weights.set(one, 250);
        assert_eq!(conns.each_ref().map(|weight| weight.get()), [2.5, 2.5, 1.0]);
        drop(conns);
        weights.add(other, &Arc::default());
        assert_eq!(weights.0.lock().expect("not poisoned").len(), 1);
    }
}
