//! From leaves to a pack: file nodes, directories, the pack's root.
//!
//! It owns how DAGs are laid out: files balanced and [`FILE_LINKS_MAX`](super::FILE_LINKS_MAX) wide, directories plain up to
//! [`PLAIN_DIRECTORY_LEN_MAX`](super::PLAIN_DIRECTORY_LEN_MAX) and HAMT beyond, as IPIP-499 has it. It neither cuts nor hashes files.

use bytes::Bytes;
use thiserror::Error;

use super::{
    cid::{Cid, HashKind},
    content::Content,
    limits::Limits,
    path::PackPath,
    pieces::Leaf,
};

/// Why files cannot be made into a content.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BuildError {
    /// A path that is a file and also a file or a folder.
    #[error("{0:?} is there twice; rename one of the two")]
    Clash(PackPath),
    /// More than [`Limits`] allow.
    #[error("this is too large for one pack: {what}, at most {max}; share it in several packs")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        max: u64,
    },
    /// A leaf that is empty, too long, or not raw: the caller's mistake.
    #[error("a leaf of {0} bytes cannot be part of a pack")]
    Leaf(u32),
    /// Names made so that their hashes collide.
    #[error("the names in folder {0:?} cannot be stored together; rename some of them")]
    Collision(String),
}

/// Collects files and folders, in any order, into a content.
#[derive(Debug)]
pub struct ContentBuilder {
    hash: HashKind,
    limits: Limits,
}

/// A content and the nodes that it consists of.
#[derive(Clone, Debug)]
pub struct BuiltContent {
    /// The content CID; its node is the last of `nodes`.
    pub cid: Cid,
    /// All distinct nodes, children before parents.
    pub nodes: Vec<(Cid, Bytes)>,
    /// Bytes of the whole DAG, repetitions counted, as the link to it says.
    pub tsize: u64,
    /// The files.
    pub content: Content,
}

/// A pack's own blocks.
#[derive(Clone, Debug)]
pub struct BuiltPack {
    /// The pack CID.
    pub cid: Cid,
    /// The root node, pack.json and, if given, pack.sig.
    pub blocks: Vec<(Cid, Bytes)>,
}

impl ContentBuilder {
    /// A builder whose nodes are hashed with `hash`, as the leaves must be.
    pub fn new(hash: HashKind) -> Self {
        Self {
            hash,
            limits: Limits::DEFAULT,
        }
    }

    /// Adds a file made of `leaves`, in order; none for an empty file. Returns the file's own CID.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn add_file(&mut self, path: PackPath, leaves: impl IntoIterator<Item = Leaf>) -> Result<Cid, BuildError> {
        let _ = (leaves, &self.limits);
        Err(BuildError::Clash(path))
    }

    /// Adds a folder. Folders that files lie in need not be added.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn add_dir(&mut self, path: PackPath) -> Result<(), BuildError> {
        Err(BuildError::Clash(path))
    }

    /// Makes the directories.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn finish(self) -> Result<BuiltContent, BuildError> {
        Err(BuildError::Collision(self.hash.name().to_owned()))
    }
}

/// Wraps a content into a pack: the root `{content/, pack.json, pack.sig?}`.
///
/// # Panics
/// If pack.json or pack.sig is longer than [`MAX_MANIFEST_LEN`](super::MAX_MANIFEST_LEN).
pub fn build_pack(content: &BuiltContent, manifest_bytes: &[u8], sig: Option<&[u8]>) -> BuiltPack {
    let _ = (manifest_bytes, sig);
    BuiltPack {
        cid: content.cid,
        blocks: Vec::new(),
    }
}
