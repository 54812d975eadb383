//! A list in no order that takes little more room than its entries: what grows by doubling may take twice that.

/// Entries of a chunk.
const CHUNK: usize = 1024;

/// Numbers in no order. All chunks but the last are full.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bucket {
    chunks: Vec<Vec<u32>>,
}

impl Bucket {
    pub(crate) fn len(&self) -> usize {
        match self.chunks.last() {
            None => 0,
            Some(last) => (self.chunks.len() - 1) * CHUNK + last.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The entry at `at`, which is one.
    pub(crate) fn at(&self, at: usize) -> u32 {
        self.chunks[at / CHUNK][at % CHUNK]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.chunks.iter().flatten().copied()
    }

    pub(crate) fn push(&mut self, entry: u32) {
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK => last.push(entry),
            _ => self.chunks.push(vec![entry]),
        }
    }

    /// Takes out the entry at `at`, which is one; the last takes its place, if it was not the last itself.
    pub(crate) fn swap_remove(&mut self, at: usize) -> Option<u32> {
        let last = self.chunks.last_mut()?;
        let moved = last.pop()?;
        if last.is_empty() {
            self.chunks.pop();
        }
        if at == self.len() {
            return None;
        }
        self.chunks[at / CHUNK][at % CHUNK] = moved;
        Some(moved)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn does_as_a_plain_list_does(steps in proptest::collection::vec(any::<(bool, prop::sample::Index)>(), 0..200), full in 0..3_usize) {
            let mut bucket = Bucket::default();
            let mut model: Vec<u32> = (0..(full * CHUNK) as u32).collect();
            model.iter().for_each(|entry| bucket.push(*entry));
            for (number, (pushes, at)) in steps.into_iter().enumerate() {
                if pushes || model.is_empty() {
                    bucket.push(number as u32);
                    model.push(number as u32);
                } else {
                    let at = at.index(model.len());
                    model.swap_remove(at);
                    prop_assert_eq!(bucket.swap_remove(at), model.get(at).copied());
                }
                prop_assert_eq!(bucket.len(), model.len());
                prop_assert_eq!(bucket.is_empty(), model.is_empty());
            }
            prop_assert_eq!(bucket.iter().collect::<Vec<_>>(), model.clone());
            prop_assert!((0..model.len()).all(|i| bucket.at(i) == model[i]));
        }
    }
}
