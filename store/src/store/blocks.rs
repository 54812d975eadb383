//! Calls that read and keep blocks: nodes, what they say together, and leaves.

use std::sync::Arc;

use bytes::Bytes;
use modswarm_protocol::{
    Cid,
    format::{Content, Name, PieceSet, Skeleton},
};

use super::Store;
use crate::{
    error::{IndexError, ReadLeafError, SkeletonReadError},
    index::rows,
    packs::{NetworkId, PackRecord},
    read::{self, Withdrawn},
};

impl Store {
    /// The bytes of a node, pack.json or pack.sig.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn node(&self, cid: &Cid) -> Result<Option<Bytes>, IndexError> {
        let node = rows::node(&*self.inner.index.reader()?, cid)?;
        Ok(node.filter(|bytes| cid.verifies(bytes)))
    }

    /// Keeps nodes, pack.json or pack.sig, which the caller has verified. Durable.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn put_nodes(&self, nodes: &[(Cid, Bytes)]) -> Result<(), IndexError> {
        let nodes = nodes.to_vec();
        self.inner.index.writer.run(move |tx| rows::put_nodes(tx, &nodes))
    }

    /// The CIDs of what a pack has beside its content: its root, pack.json and pack.sig. Empty if the pack is not here.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn head_cids(&self, pack: &Cid) -> Result<Vec<Cid>, IndexError> {
        let node = self.node(pack)?;
        let parts = node.and_then(|bytes| modswarm_protocol::format::read::pack_parts(pack, &bytes));
        let Some((manifest, sig)) = parts else {
            return Ok(Vec::new());
        };
        Ok([*pack, manifest].into_iter().chain(sig).collect())
    }

    /// The skeleton of `root` (a pack, folder or file), if all its nodes are here. `name` is what to call the file if `root` is one.
    ///
    /// # Errors
    /// See [`SkeletonReadError`].
    pub fn skeleton(&self, root: &Cid, name: Option<&Name>) -> Result<Option<Skeleton>, SkeletonReadError> {
        self.inner.skeleton(root, name)
    }

    /// Tells the store of a content that was read from verified nodes which are here: while somebody holds it, nobody reads its skeleton again.
    pub fn know_content(&self, content: &Arc<Content>) {
        self.inner.know_content(content);
    }

    /// The content of a record. Shared with other callers that hold it, and read from the nodes otherwise.
    ///
    /// # Errors
    /// See [`SkeletonReadError`].
    pub fn content(&self, record: &PackRecord) -> Result<Option<Arc<Content>>, SkeletonReadError> {
        self.inner.content(record)
    }

    /// Which pieces of `content` can be read here, over all its records: the sum of what is committed and what open downloads have written.
    /// `None` if no record has this content.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn have(&self, content: &Cid) -> Result<Option<PieceSet>, IndexError> {
        let rows = rows::packs_of(&*self.inner.index.reader()?, content)?;
        let mut sum: Option<PieceSet> = None;
        for row in rows.iter().filter(|row| row.record.content == *content) {
            let have = match self.inner.open_download(row.record.id) {
                Some(state) => state.have(),
                None => rows::bits_from_bytes(row.have.as_deref(), row.record.pieces as usize),
            };
            match &mut sum {
                Some(sum) => *sum |= have,
                None => sum = Some(have),
            }
        }
        Ok(sum)
    }

    /// Reads a leaf of `len` bytes from wherever it lies, and verifies it.
    ///
    /// # Errors
    /// See [`ReadLeafError`].
    pub fn read_leaf(&self, cid: &Cid, len: u32) -> Result<Bytes, ReadLeafError> {
        self.said(cid, read::read_leaf(&self.inner, cid, len))
    }

    /// As [`Store::read_leaf`] each of `leaves` (a CID and a length), which is faster than one by one. Each is handed to `done` as soon as it is read, with its
    /// number.
    pub fn read_leaves(&self, leaves: &[(Cid, u32)], mut done: impl FnMut(usize, Result<Bytes, ReadLeafError>)) {
        read::read_leaves(&self.inner, leaves, |number, read| {
            done(number, self.said(&leaves[number].0, read));
        });
    }

    /// What is not here is not said to be here any more.
    fn said(&self, cid: &Cid, read: Result<Bytes, ReadLeafError>) -> Result<Bytes, ReadLeafError> {
        if matches!(read, Err(ReadLeafError::NotHere(_) | ReadLeafError::Lost(_))) {
            read::disclaim(&self.inner, cid)?;
        }
        read
    }

    /// Reads and verifies a leaf that is in a pack of `network`; in packs of other networks alone, it is not here.
    ///
    /// # Errors
    /// See [`ReadLeafError`].
    pub fn read_leaf_in(&self, cid: &Cid, network: &NetworkId) -> Result<Bytes, ReadLeafError> {
        read::read_leaf_in(&self.inner, cid, network)
    }

    /// What can no longer be read, since the last call: one entry a content. Peers are to be told. To be called about once a second, since it also closes
    /// files that were read and are not any more.
    pub fn take_withdrawn(&self) -> Vec<Withdrawn> {
        let entries = self.inner.take_withdrawn().into_iter();
        self.inner.files.close_stale();
        entries.map(|(content, pieces)| Withdrawn { content, pieces }).collect()
    }
}
