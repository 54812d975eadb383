//! `rm`, `move`, `pin` and `gc`: what is kept of packs, and where.

use std::path::PathBuf;

use modswarm_protocol::Cid;
use serde::{Deserialize, Serialize};

/// `rm TARGET`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RemoveRequest {
    /// A link, CID, name or path of a pack of the home.
    pub target: String,
    /// Delete the user's files as well.
    pub data: bool,
}

/// What `rm` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The pack's name.
    pub name: String,
    /// Content CID.
    pub content: Cid,
    /// Where its files were, and still are unless `data_deleted`.
    pub path: PathBuf,
    /// Whether the files were deleted too, all of them.
    pub data_deleted: bool,
    /// Files that were to be deleted and were kept, since they changed or another pack has them.
    pub files_kept: u64,
}

/// `move PACK DIR`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MoveRequest {
    /// A link, CID, name or path of a pack of the home.
    pub target: String,
    /// Absolute path: the folder that the pack is to be, or an existing one under which its folder appears.
    pub to: PathBuf,
}

/// What `move` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// The pack's name.
    pub name: String,
    /// Content CID.
    pub content: Cid,
    /// Where its files were.
    pub from: PathBuf,
    /// Where they are.
    pub to: PathBuf,
    /// Bytes copied to another disk; 0 where a rename was enough.
    pub bytes_copied: u64,
    /// Files of the pack that stayed behind as well, since their copies are not as the pack has them.
    pub left: Vec<PathBuf>,
}

/// `pin PACK` and `unpin PACK`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PinRequest {
    /// A link, CID, name or path of a pack of the home.
    pub target: String,
    /// Whether it is to be kept.
    pub pinned: bool,
}

/// `gc`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct GcRequest {
    /// Remove downloaded packs with their files, the least recently used first, until those that are left take at most so many bytes; pinned ones
    /// and ones that the user shared stay. None: no pack is removed.
    pub keep: Option<u64>,
}

/// What `gc` did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Packs that were removed.
    pub packs: Vec<Removed>,
    /// Bytes of the files of those packs.
    pub pack_bytes: u64,
    /// Nodes of packs that are not here any more.
    pub nodes: u64,
    /// Their bytes.
    pub node_bytes: u64,
    /// Entries of the index that meant nothing any more.
    pub rows: u64,
    /// Bytes of copies that no pack needs any more.
    #[serde(default)]
    pub copy_bytes: u64,
    /// Staging folders that were left over.
    pub stages: Vec<PathBuf>,
    /// Bytes of the index before.
    pub index_bytes_before: u64,
    /// Bytes of the index after.
    pub index_bytes_after: u64,
}
