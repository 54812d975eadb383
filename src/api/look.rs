//! `ls` and `diff`: what a pack has, and how two versions differ. Neither fetches more than nodes, nor writes a file.

use std::path::PathBuf;

use modswarm_protocol::Cid;
use serde::{Deserialize, Serialize};

use super::{Conflicts, Renamed};

/// `ls TARGET`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ListRequest {
    /// As in [`GetRequest::target`](super::GetRequest::target).
    pub target: String,
    /// As in [`GetRequest::peers`](super::GetRequest::peers).
    pub peers: Vec<String>,
    /// As in [`GetRequest::timeout`](super::GetRequest::timeout).
    pub timeout: Option<u64>,
}

/// The files of a pack.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listing {
    /// Pack CID, where the target is a pack.
    pub pack: Option<Cid>,
    /// Content CID.
    pub content: Cid,
    /// The pack's name.
    pub name: Option<String>,
    /// pack.json as it stands, where the target is a pack.
    pub manifest: Option<serde_json::Value>,
    /// Number of distinct leaves.
    pub blocks: u64,
    /// All files, in pack order.
    pub files: Vec<ListedFile>,
    /// Empty folders.
    pub empty_dirs: Vec<String>,
}

/// One file of a [`Listing`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListedFile {
    /// Path inside the pack, `/` between names.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// The file's CID.
    pub cid: Cid,
}

/// `diff A B`, and `get --dry-run`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DiffRequest {
    /// What stands now: a link, CID, or the name of a pack of this home; or the absolute folder of one, which is looked at as it is. None: what stands where a get
    /// to `output` would put its files.
    pub from: Option<String>,
    /// What is to stand there: a link, CID, or the name or folder of a pack of this home.
    pub to: String,
    /// As in [`GetRequest::output`](super::GetRequest::output); only without `from`.
    pub output: Option<PathBuf>,
    /// As in [`GetRequest::peers`](super::GetRequest::peers).
    pub peers: Vec<String>,
    /// As in [`GetRequest::only`](super::GetRequest::only); only without `from`.
    pub only: Vec<String>,
    /// As in [`GetRequest::conflicts`](super::GetRequest::conflicts). If it refuses, the sums are those of replacing what is in the way.
    pub conflicts: Conflicts,
    /// As in [`GetRequest::timeout`](super::GetRequest::timeout).
    pub timeout: Option<u64>,
}

/// How two versions differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diff {
    /// The old one's CID, where it is one.
    pub from: Option<Cid>,
    /// The new one's CID.
    pub to: Cid,
    /// The new one's name.
    pub name: Option<String>,
    /// Where the files are, or would be.
    pub path: Option<PathBuf>,
    /// Files that are the same.
    pub unchanged: u64,
    /// Files that only the new one has.
    pub added: Vec<String>,
    /// Files that differ.
    pub changed: Vec<String>,
    /// Files that only the old one has, and that will be deleted.
    pub removed: Vec<String>,
    /// Files that only have another name.
    pub renamed: Vec<Renamed>,
    /// Files in the way that are the user's own or that he changed.
    pub conflicts: Vec<String>,
    /// Files that only the old one has and that the user changed: they stay.
    pub kept: Vec<String>,
    /// Bytes of distinct leaves that are nowhere in this home.
    pub bytes_to_fetch: u64,
    /// Bytes of room needed beside what is there, at the worst moment.
    pub disk_needed: u64,
    /// Bytes that it takes more in the end; less, if negative.
    pub disk_change: i64,
    /// Free bytes on the disk, where it is known.
    pub disk_free: Option<u64>,
}
