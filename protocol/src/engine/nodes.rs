//! The nodes of one transfer's skeleton that are still to be fetched, and who was asked for them.

use std::collections::{BTreeMap, VecDeque};

use smallvec::SmallVec;

use super::ids::ConnId;
use super::skeleton::Whole;
use crate::format::Cid;

/// Nodes that one transfer may want at a time; more are not taken.
pub(crate) const MAX_WANTED: usize = 64 * 1024;

#[derive(Clone, Debug, Default)]
struct Wanted {
    /// On request, or in the hands of whoever verifies it.
    asked: Option<ConnId>,
    /// Peers that refused it or kept silent.
    refused: SmallVec<[ConnId; 2]>,
    reported: bool,
}

/// Nodes to fetch.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeFetch {
    /// Whether all that is below comes with what is asked for.
    pub(crate) whole: Whole,
    wanted: BTreeMap<Cid, Wanted>,
    /// What is coming in, or in the hands of whoever verifies it, without having been named.
    unnamed: BTreeMap<Cid, ConnId>,
    /// What can be asked for, in order; may name nodes that are settled meanwhile.
    queue: VecDeque<Cid>,
}

impl NodeFetch {
    pub(crate) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Nodes that wait to be asked for; none while all of them are coming.
    pub(crate) fn waiting(&self) -> usize {
        match self.whole {
            Whole::From(_) => 0,
            Whole::No | Whole::Due => self.queue.len(),
        }
    }

    pub(crate) fn contains(&self, cid: &Cid) -> bool {
        self.wanted.contains_key(cid)
    }

    pub(crate) fn want(&mut self, cids: &[Cid]) {
        for cid in cids {
            if self.wanted.len() >= MAX_WANTED {
                return;
            }
            if !self.wanted.contains_key(cid) {
                let asked = self.unnamed.get(cid).copied();
                self.wanted.insert(
                    *cid,
                    Wanted {
                        asked,
                        ..Wanted::default()
                    },
                );
                if asked.is_none() {
                    self.queue.push_back(*cid);
                }
            }
        }
    }

    /// Takes up to `max` nodes that `conn` has not refused, in order, as asked of it.
    pub(crate) fn ask(&mut self, conn: ConnId, max: usize) -> Vec<Cid> {
        let mut taken = Vec::new();
        let mut passed = Vec::new();
        while taken.len() < max
            && let Some(cid) = self.queue.pop_front()
        {
            let Some(wanted) = self.wanted.get_mut(&cid) else {
                continue;
            };
            if wanted.asked.is_some() {
                continue;
            }
            if wanted.refused.contains(&conn) {
                passed.push(cid);
            } else {
                wanted.asked = Some(conn);
                taken.push(cid);
            }
        }
        for cid in passed.into_iter().rev() {
            self.queue.push_front(cid);
        }
        taken
    }

    /// The node comes from `conn` without having been named.
    pub(crate) fn on_unnamed(&mut self, conn: ConnId, cid: &Cid) {
        self.unnamed.insert(*cid, conn);
        if let Some(wanted) = self.wanted.get_mut(cid) {
            wanted.asked.get_or_insert(conn);
        }
    }

    /// `conn` will not send the node. `refused`: and shall not be asked again soon.
    pub(crate) fn release(&mut self, conn: ConnId, cid: &Cid, refused: bool) {
        if self.unnamed.get(cid) == Some(&conn) {
            self.unnamed.remove(cid);
        }
        let Some(wanted) = self.wanted.get_mut(cid) else { return };
        if refused && !wanted.refused.contains(&conn) {
            wanted.refused.push(conn);
        }
        if wanted.asked == Some(conn) {
            wanted.asked = None;
            self.queue.push_front(*cid);
        }
    }

    /// The node is here. Whether it was wanted.
    pub(crate) fn settle(&mut self, cid: &Cid) -> bool {
        self.unnamed.remove(cid);
        self.wanted.remove(cid).is_some()
    }

    /// A connection is gone: it neither holds nor refuses anything.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        for wanted in self.wanted.values_mut() {
            wanted.refused.retain(|c| *c != conn);
        }
    }

    /// Everyone may be asked again.
    pub(crate) fn forgive(&mut self) {
        for wanted in self.wanted.values_mut() {
            wanted.refused.clear();
        }
    }

    /// Nodes that all of `conns` have refused, each told once until everyone is forgiven and it is told again.
    pub(crate) fn missing(&mut self, conns: &[ConnId]) -> Vec<Cid> {
        let mut missing = Vec::new();
        for (cid, wanted) in &mut self.wanted {
            let lost = !conns.is_empty() && wanted.asked.is_none() && conns.iter().all(|c| wanted.refused.contains(c));
            if lost && !wanted.reported {
                missing.push(*cid);
            }
            wanted.reported = lost;
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Codec, HashKind};

    fn cid(i: u32) -> Cid {
        Cid::of(Codec::DagPb, HashKind::Blake3, &i.to_le_bytes())
    }

    #[test]
    fn a_refused_node_goes_to_the_next_peer_and_is_reported_when_all_refuse() {
        let mut nodes = NodeFetch::default();
        let (a, b) = (ConnId(1), ConnId(2));
        nodes.want(&[cid(1), cid(2)]);
        assert_eq!(nodes.ask(a, 10), [cid(1), cid(2)]);
        assert!(nodes.ask(b, 10).is_empty());
        nodes.release(a, &cid(2), true);
        assert!(nodes.ask(a, 10).is_empty());
        assert!(nodes.missing(&[a, b]).is_empty());
        assert_eq!(nodes.ask(b, 10), [cid(2)]);
        nodes.release(b, &cid(2), true);
        assert_eq!(nodes.missing(&[a, b]), [cid(2)]);
        assert!(nodes.missing(&[a, b]).is_empty());
        nodes.forgive();
        assert_eq!(nodes.ask(a, 10), [cid(2)]);
        assert!(nodes.settle(&cid(2)) && !nodes.settle(&cid(2)));
    }

    #[test]
    fn no_more_than_the_bound_is_wanted() {
        let mut nodes = NodeFetch::default();
        let cids: Vec<Cid> = (0..MAX_WANTED as u32 + 10).map(cid).collect();
        nodes.want(&cids);
        assert_eq!(nodes.wanted.len(), MAX_WANTED);
        assert_eq!(nodes.waiting(), MAX_WANTED);
    }
}
