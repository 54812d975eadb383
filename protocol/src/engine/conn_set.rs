//! A small set of connections, in order.

use std::borrow::Borrow;

use super::ids::ConnId;

/// Connections in ascending order. It is emptied and filled again with every fact, mostly with one: it keeps its memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnSet(Vec<ConnId>);

impl ConnSet {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn insert(&mut self, conn: ConnId) {
        if self.0.last().is_none_or(|last| *last < conn) {
            self.0.push(conn);
        } else if let Err(place) = self.0.binary_search(&conn) {
            self.0.insert(place, conn);
        }
    }

    pub(crate) fn extend<C: Borrow<ConnId>>(&mut self, conns: impl IntoIterator<Item = C>) {
        conns.into_iter().for_each(|conn| self.insert(*conn.borrow()));
    }

    pub(crate) fn remove(&mut self, conn: &ConnId) {
        if let Ok(place) = self.0.binary_search(conn) {
            self.0.remove(place);
        }
    }

    pub(crate) fn retain(&mut self, keep: impl FnMut(&ConnId) -> bool) {
        self.0.retain(keep);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &ConnId> {
        self.0.iter()
    }

    /// Takes all of them out, in order.
    pub(crate) fn take(&mut self) -> Vec<ConnId> {
        std::mem::take(&mut self.0)
    }

    /// Gives the memory of what was taken out back.
    pub(crate) fn reuse(&mut self, mut taken: Vec<ConnId>) {
        if self.0.is_empty() {
            taken.clear();
            self.0 = taken;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn holds_what_a_tree_would(steps in vec((0..40u64, any::<bool>()), 0..200)) {
            let (mut set, mut model) = (ConnSet::default(), BTreeSet::new());
            for (conn, add) in steps {
                if add {
                    set.insert(ConnId(conn));
                    model.insert(ConnId(conn));
                } else {
                    set.remove(&ConnId(conn));
                    model.remove(&ConnId(conn));
                }
                prop_assert!(set.iter().eq(model.iter()));
            }
            set.retain(|conn| conn.0 % 2 == 0);
            model.retain(|conn| conn.0 % 2 == 0);
            set.extend([ConnId(7), ConnId(3)]);
            model.extend([ConnId(7), ConnId(3)]);
            prop_assert_eq!(set.take(), model.into_iter().collect::<Vec<_>>());
            prop_assert!(set.is_empty());
        }
    }
}
