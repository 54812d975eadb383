//! Peers that are never talked to again while this engine lives.

use std::collections::{BTreeSet, VecDeque};

use super::ids::PeerKey;

/// Bans beyond this push out the oldest.
pub(crate) const MAX_BANS: usize = 4096;

/// A bounded set of banned peers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bans {
    set: BTreeSet<PeerKey>,
    order: VecDeque<PeerKey>,
}

impl Bans {
    pub(crate) fn insert(&mut self, peer: PeerKey) {
        if !self.set.insert(peer) {
            return;
        }
        self.order.push_back(peer);
        if self.order.len() > MAX_BANS
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
    }

    pub(crate) fn contains(&self, peer: &PeerKey) -> bool {
        self.set.contains(peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_ban_goes_when_there_are_too_many() {
        let mut bans = Bans::default();
        let peer = |i: usize| PeerKey::of(&i.to_le_bytes());
        for i in 0..=MAX_BANS {
            bans.insert(peer(i));
            bans.insert(peer(i));
        }
        assert!(!bans.contains(&peer(0)));
        assert!(bans.contains(&peer(1)) && bans.contains(&peer(MAX_BANS)));
        assert_eq!(bans.set.len(), MAX_BANS);
    }
}
