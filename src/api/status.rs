//! `status` and `info`: how the node and the packs of the home do.

use std::path::PathBuf;

use modswarm_protocol::Cid;
use serde::{Deserialize, Serialize};

use super::{NetworkKind, Priority};

/// What a pack of this home is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackState {
    /// Everything selected is here and served.
    Seeding,
    /// Being fetched by this process.
    Downloading,
    /// Being fetched when fewer others are.
    Queued,
    /// Begun, and not being fetched now; or paused by the user, whatever it did.
    Paused,
    /// Files are missing or changed; `problem` says which.
    Damaged,
    /// A newer version stands in its folder; what is the same in both is still served.
    Superseded,
}

/// One pack of the home, for `status` and `info`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PackStatus {
    /// Pack CID, where the content came as a pack.
    pub pack: Option<Cid>,
    /// Content CID.
    pub content: Cid,
    /// The pack's name.
    pub name: String,
    /// The network that it is served in.
    pub network: NetworkKind,
    /// What it is doing.
    pub state: PackState,
    /// Where its files are.
    pub path: PathBuf,
    /// Number of files.
    pub files: u64,
    /// Bytes of the selected files.
    pub bytes: u64,
    /// Bytes of them that are here.
    pub bytes_here: u64,
    /// Distinct leaves.
    pub blocks: u64,
    /// Distinct leaves that are here.
    pub blocks_here: u64,
    /// Leaf bytes sent to peers since the process started.
    pub bytes_uploaded: u64,
    /// Peers with a session for it now.
    pub peers: u64,
    /// What is wrong and how to mend it.
    pub problem: Option<String>,
    /// Files of the pack that are not here because the user kept their own in their places.
    #[serde(default)]
    pub kept: u64,
    /// Whether `gc --keep` and `rm` leave it alone.
    #[serde(default)]
    pub pinned: bool,
    /// Whether the home has a copy of its own, and does without the folder.
    #[serde(default)]
    pub copied: bool,
    /// Whether `pause` stopped it: it is neither fetched nor served until `resume`.
    #[serde(default)]
    pub stopped: bool,
    /// How much it gets compared with others.
    #[serde(default)]
    pub priority: Priority,
    /// Its own limits in bytes a second; none: unlimited.
    #[serde(default)]
    pub upload_limit: Option<u64>,
    /// See `upload_limit`.
    #[serde(default)]
    pub download_limit: Option<u64>,
    /// What to pass on.
    pub link: String,
}

/// The node as a whole, for `status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// This node; none when no process holds the home.
    pub peer_id: Option<String>,
    /// Addresses that can be dialled.
    pub addrs: Vec<String>,
    /// The node's network.
    pub network: NetworkKind,
    /// Bytes a second sent and received, averaged over some seconds.
    pub upload_rate: u64,
    /// See `upload_rate`.
    pub download_rate: u64,
    /// Limits in bytes a second; none: unlimited.
    pub upload_limit: Option<u64>,
    /// See `upload_limit`.
    pub download_limit: Option<u64>,
    /// Whether `upload_limit` follows what the line bears.
    #[serde(default)]
    pub upload_auto: bool,
    /// Connected peers that speak our protocol.
    pub peers: u64,
    /// Packs of the home.
    pub packs: Vec<PackStatus>,
}
