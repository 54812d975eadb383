//! `get`: a pack becomes a folder. What an update changes there is told beforehand by [`diff`](super::Diff).

use std::path::PathBuf;

use modswarm_protocol::Cid;
use serde::{Deserialize, Serialize};

use super::{Failure, Stage};

/// What `get` does with files at the destination that are the user's own, or that he changed after a get put them there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conflicts {
    /// Nothing is changed while there are any.
    #[default]
    Refuse,
    /// They stay, and the pack's files are left out there.
    KeepMine,
    /// They are replaced.
    TakeTheirs,
    /// They are renamed to a free name, such as `Skin (mine).pak`.
    KeepBoth,
    /// They stay, and what they are to the pack: only what is missing or rotten is put there. What `verify --repair` does.
    Mend,
}

/// `get TARGET`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct GetRequest {
    /// A link, CID, `ipfs://`, `/ipfs/` or gateway URL, as the user gave it.
    pub target: String,
    /// Absolute folder under which the pack's folder appears (or an installed pack's own folder).
    pub output: PathBuf,
    /// Multiaddrs of peers to ask, each ending in `/p2p/ID`.
    pub peers: Vec<String>,
    /// Globs over paths inside the pack; empty: everything.
    pub only: Vec<String>,
    /// Replace files that differ; the same as [`Conflicts::TakeTheirs`], for older clients.
    #[serde(default)]
    pub overwrite: bool,
    /// What to do with files of the user's that are in the way.
    #[serde(default)]
    pub conflicts: Conflicts,
    /// Seconds without a new verified block after which to give up; none: never.
    pub timeout: Option<u64>,
    /// Go on seeding when complete.
    pub seed: bool,
    /// Globs over paths inside the pack: files that are fetched before all others.
    #[serde(default)]
    pub first: Vec<String>,
    /// Fetch from the first byte to the last, and not what is rarest first.
    #[serde(default)]
    pub sequential: bool,
}

/// What `get` reports; the last is [`GetEvent::Complete`] or [`GetEvent::Failed`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum GetEvent {
    /// What will be written; once, before anything is.
    Plan {
        /// Pack CID, where the target is a pack.
        pack: Option<Cid>,
        /// Content CID.
        content: Cid,
        /// The pack's name.
        name: String,
        /// Where the files will be.
        path: PathBuf,
        /// Selected files.
        files: u64,
        /// Bytes of the selected files.
        bytes: u64,
        /// Bytes of them that are on this machine already.
        bytes_here: u64,
        /// Free bytes on the destination's disk.
        disk_free: Option<u64>,
        /// Files that will only get another name.
        #[serde(default)]
        renamed: Vec<Renamed>,
        /// Files of the user's that stay where the pack has others.
        #[serde(default)]
        kept: Vec<String>,
    },
    /// How far it is; a few a second.
    Progress {
        /// What is happening.
        stage: Stage,
        /// Bytes of the selection that are here.
        bytes_done: u64,
        /// Bytes of the selection; 0 until the plan.
        bytes_total: u64,
        /// Bytes a second, averaged over some seconds.
        rate: u64,
        /// Seconds left at this rate.
        eta: Option<u64>,
        /// Peers with a session for this content.
        peers: u64,
    },
    /// Something that the user should know and that does not stop the get.
    Warning {
        /// One sentence.
        message: String,
    },
    /// Files in the way that are the user's own or that he changed; once, before a [`GetEvent::Failed`] that [`GetRequest::conflicts`] can avoid.
    Conflicts {
        /// Where the pack's files would be.
        path: PathBuf,
        /// Their paths in the pack.
        files: Vec<String>,
    },
    /// All files are in their places and durable.
    Complete(Complete),
    /// It ended without all files; what was verified is kept.
    Failed(Failure),
}

/// The end of a `get`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Complete {
    /// Pack CID, where the target was a pack.
    pub pack: Option<Cid>,
    /// Content CID.
    pub content: Cid,
    /// Where the files are.
    pub path: PathBuf,
    /// Number of selected files.
    pub files: u64,
    /// Bytes of the selected files.
    pub bytes: u64,
    /// From the start of the get.
    pub seconds: f64,
    /// Verified leaf bytes from peers, each distinct leaf once.
    pub bytes_fetched: u64,
    /// The rest of the selected bytes.
    pub bytes_reused: u64,
    /// Bytes of nodes and pack.json from peers.
    pub bytes_skeleton: u64,
    /// Leaf bytes that came in vain: a second time, or when they were no longer wanted.
    #[serde(default)]
    pub bytes_wasted: u64,
    /// Who sent verified leaves.
    pub peers: Vec<PeerShare>,
    /// Files that only got another name.
    #[serde(default)]
    pub renamed: Vec<Renamed>,
    /// Files of the version that stood there before that were deleted, since this one has none of them.
    #[serde(default)]
    pub removed: Vec<String>,
    /// Files of the user's that stayed: where the pack has others, and those of the former version that he changed.
    #[serde(default)]
    pub kept: Vec<String>,
    /// Files of the user's that were in the way and have another name now.
    #[serde(default)]
    pub set_aside: Vec<Renamed>,
}

/// A file that has another name now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renamed {
    /// Its path before, below the pack's folder.
    pub from: String,
    /// Its path now.
    pub to: String,
}

/// What one peer sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PeerShare {
    /// Who.
    pub peer_id: String,
    /// The address of the connection, or the last one known; may be empty then.
    pub addr: String,
    /// Verified leaf bytes.
    pub bytes: u64,
}
