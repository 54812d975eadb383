//! The walk over a skeleton.

use bytes::Bytes;

use super::{
    super::{cid::Cid, content::Content, limits::Limits, manifest::Manifest, path::Name},
    SkeletonError,
};

/// All of a pack but its leaves.
#[derive(Clone, Debug)]
pub struct Skeleton {
    /// What the reader was made for.
    pub root: Cid,
    /// What the pack says of itself; none if the root is a plain file or folder.
    pub pack: Option<PackHead>,
    /// The files.
    pub content: Content,
}

/// A pack's root and what lies beside its content. Its blocks do not count as the content's nodes.
#[derive(Clone, Debug)]
pub struct PackHead {
    /// What pack.json says.
    pub manifest: Manifest,
    /// The exact bytes of pack.json.
    pub manifest_bytes: Bytes,
    /// The CID of pack.json.
    pub manifest_cid: Cid,
    /// pack.sig, not checked.
    pub sig: Option<(Cid, Bytes)>,
    /// The root node's bytes; its CID is the pack CID.
    pub root_bytes: Bytes,
}

/// What [`SkeletonReader::add`] did with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It belongs to the skeleton: keep it as a node.
    Skeleton,
    /// It is a foreign block that carries file bytes: keep it, and do not count it as skeleton.
    FileBytes,
    /// It was not wanted, or is known already.
    Unwanted,
}

/// Reads a skeleton from its blocks. See the [module](super) for the contract.
#[derive(Debug)]
pub struct SkeletonReader {
    root: Cid,
    limits: Limits,
    file_name: Option<Name>,
}

impl SkeletonReader {
    /// A reader of what `root` names: a pack, a folder or a file.
    pub fn new(root: Cid, limits: Limits) -> Self {
        Self {
            root,
            limits,
            file_name: None,
        }
    }

    /// Says how the file is called, if `root` turns out to be a file. Its CID otherwise.
    #[must_use]
    pub fn named(mut self, name: Name) -> Self {
        self.file_name = Some(name);
        self
    }

    /// Up to `max` blocks to fetch, breadth first; each is named once. A caller that fails to fetch one tries again by itself.
    pub fn wanted(&mut self, max: usize) -> Vec<Cid> {
        let _ = max;
        Vec::new()
    }

    /// Blocks that were named by [`SkeletonReader::wanted`] or will be, and have not been added.
    pub fn missing(&self) -> u64 {
        u64::from(self.limits.depth)
    }

    /// Takes a block, which the caller has checked against its CID. One that was not named yet may be added, too.
    ///
    /// # Errors
    /// See [`SkeletonError`]. The reader is of no use after one.
    pub fn add(&mut self, cid: &Cid, bytes: &[u8]) -> Result<Added, SkeletonError> {
        let _ = (cid, bytes);
        Ok(Added::Unwanted)
    }

    /// Whether all blocks were added.
    pub fn is_complete(&self) -> bool {
        self.missing() == 0
    }

    /// The content CID, as soon as it is known.
    pub fn content_cid(&self) -> Option<Cid> {
        None
    }

    /// What pack.json says, as soon as it is known.
    pub fn manifest(&self) -> Option<&Manifest> {
        None
    }

    /// The skeleton.
    ///
    /// # Errors
    /// See [`SkeletonError`].
    pub fn finish(self) -> Result<Skeleton, SkeletonError> {
        let _ = self.root;
        Err(SkeletonError::Incomplete(self.missing()))
    }
}
