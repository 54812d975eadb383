//! How a folder becomes a pack, in place.

use std::path::PathBuf;

use modswarm_protocol::{
    Cid, HashKind,
    format::{ChunkerProfile, Manifest, Name},
};

use crate::packs::{NetworkId, PackId};

/// What to share, and what to say of it.
///
/// Where a field is `None` (or empty, for lists), the pack that was shared from the same path before decides; its words are kept.
#[derive(Clone, Debug)]
pub struct ShareSpec {
    /// A folder or a file, absolute.
    pub path: PathBuf,
    /// The pack's name; the folder's or file's at first.
    pub name: Option<Name>,
    /// Free text.
    pub description: Option<String>,
    /// Who made it.
    pub creator: Option<String>,
    /// The game that it is for.
    pub game: Option<String>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// The pack's own version.
    pub version: Option<String>,
    /// The pack that this one follows, if not the one shared from this path before.
    pub previous: Option<Cid>,
    /// The hash function of all CIDs.
    pub hash: Option<HashKind>,
    /// How files are cut.
    pub profile: Option<ChunkerProfile>,
    /// The network to serve it in.
    pub network: NetworkId,
}

impl ShareSpec {
    /// Shares `path` in `network`, saying nothing of it.
    pub fn new(path: impl Into<PathBuf>, network: NetworkId) -> Self {
        Self {
            path: path.into(),
            name: None,
            description: None,
            creator: None,
            game: None,
            tags: Vec::new(),
            version: None,
            previous: None,
            hash: None,
            profile: None,
            network,
        }
    }
}

/// A shared pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedPack {
    /// Its record.
    pub id: PackId,
    /// Pack CID.
    pub pack: Cid,
    /// Content CID.
    pub content: Cid,
    /// What pack.json says.
    pub manifest: Manifest,
    /// Number of files.
    pub files: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Number of distinct leaves.
    pub blocks: u64,
    /// Bytes that were read and hashed; 0 if every file was known.
    pub bytes_hashed: u64,
}
