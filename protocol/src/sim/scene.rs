//! Who is connected to whom, and contents that do not exist.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::world::{PeerIndex, World};
use crate::engine::{ContentPieces, ContentSpec, PickOrder, Rng};
use crate::format::{Cid, Codec, HashKind, Leaf, PieceMap, PieceSet, SharedPieceMap};
use crate::wire::NetworkId;

impl World {
    /// Connects every two peers.
    pub fn connect_all(&mut self) {
        for a in 0..self.peers() {
            for b in a + 1..self.peers() {
                self.connect(a, b);
            }
        }
    }

    /// Connects each peer with `degree` others or a few more, chosen by lot, so that all hang together.
    pub fn connect_randomly(&mut self, degree: usize) {
        let count = self.peers();
        let mut lots = Rng::new(self.seed() ^ 0x746f_706f);
        // A ring through all in random order holds them together; the rest is chosen by lot.
        let mut ring: Vec<PeerIndex> = (0..count).collect();
        for i in (1..count).rev() {
            ring.swap(i, lots.below(i + 1));
        }
        let mut linked: Vec<BTreeSet<PeerIndex>> = vec![BTreeSet::new(); count];
        let mut pairs = Vec::new();
        let mut link = |a: usize, b: usize, linked: &mut Vec<BTreeSet<PeerIndex>>| {
            if a != b && linked[a].insert(b) {
                linked[b].insert(a);
                pairs.push((a, b));
            }
        };
        for i in 0..count {
            link(ring[i], ring[(i + 1) % count], &mut linked);
        }
        for a in 0..count {
            for _ in 0..degree * 20 {
                if linked[a].len() >= degree {
                    break;
                }
                let b = lots.below(count);
                if linked[b].len() < degree {
                    link(a, b, &mut linked);
                }
            }
        }
        for (a, b) in pairs {
            self.connect(a, b);
        }
    }
}

/// A content of `pieces` leaves of `len` bytes, none of which exists: its CID and its piece map.
pub fn fake_content(name: u64, pieces: u32, len: u32) -> (Cid, SharedPieceMap) {
    let cid = |codec, i: u64| Cid::of(codec, HashKind::Blake3, &[name.to_le_bytes(), i.to_le_bytes()].concat());
    let leaves = (0..pieces)
        .map(|i| Leaf {
            cid: cid(Codec::Raw, u64::from(i)),
            len,
        })
        .collect();
    (cid(Codec::DagPb, u64::MAX), Arc::new(PieceMap::new(leaves)))
}

/// What an engine is told of such a content, all of which is wanted and `have` of which is here.
pub fn fake_spec(content: Cid, map: &SharedPieceMap, have: PieceSet) -> ContentSpec {
    ContentSpec {
        content: Some(content),
        packs: Vec::new(),
        network: NetworkId::PUBLIC,
        pieces: Some(ContentPieces {
            map: map.clone(),
            have,
            wanted: None,
        }),
        related: Vec::new(),
        order: PickOrder::RarestFirst,
    }
}
