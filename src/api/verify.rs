//! `verify`: every byte compared with what was shared, and mended if asked.

use std::path::PathBuf;

use modswarm_protocol::Cid;
use serde::{Deserialize, Serialize};

use super::Failure;

/// `verify [PACK]`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct VerifyRequest {
    /// A link, CID, name or path of a pack of the home; none: all packs.
    pub target: Option<String>,
    /// Fetch again what is missing or rotten.
    pub repair: bool,
    /// As in [`GetRequest::peers`](super::GetRequest::peers).
    #[serde(default)]
    pub peers: Vec<String>,
    /// As in [`GetRequest::timeout`](super::GetRequest::timeout).
    #[serde(default)]
    pub timeout: Option<u64>,
}

/// What `verify` reports; the last is [`VerifyEvent::Complete`] or [`VerifyEvent::Failed`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum VerifyEvent {
    /// How far it is with a pack; a few a second.
    Progress {
        /// The pack's name.
        pack: String,
        /// Whether what is wrong is being fetched again.
        repairing: bool,
        /// Bytes read.
        bytes_done: u64,
        /// Bytes of all its files.
        bytes_total: u64,
        /// Files done.
        files_done: u64,
        /// All files.
        files_total: u64,
    },
    /// Something that the user should know and that does not stop it.
    Warning {
        /// One sentence.
        message: String,
    },
    /// One pack was verified.
    Pack(PackVerified),
    /// All were.
    Complete,
    /// It ended before that.
    Failed(Failure),
}

/// What was found of one pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackVerified {
    /// Pack CID, where the content came as a pack.
    pub pack: Option<Cid>,
    /// Content CID.
    pub content: Cid,
    /// The pack's name.
    pub name: String,
    /// Where its files are.
    pub path: PathBuf,
    /// Files looked at.
    pub files: u64,
    /// Bytes that were read and are right.
    pub bytes: u64,
    /// Files that are not as the pack has them, before any repair.
    pub bad: Vec<BadFile>,
    /// Blocks that were believed lost and are here.
    pub restored: u64,
    /// Blocks that were believed here and are lost.
    pub lost: u64,
    /// Whether what was wrong is right again; none if nothing was to be repaired.
    pub repaired: Option<bool>,
}

/// A file that is not as its pack has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadFile {
    /// Path inside the pack, `/` between names.
    pub path: String,
    /// What is wrong with it.
    pub fault: FileFault,
    /// Its bytes that are not as they should be.
    pub bytes: u64,
    /// Whether it is right again after a repair.
    #[serde(default)]
    pub mended: bool,
}

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileFault {
    /// It is not there.
    Missing,
    /// It was changed after it was shared or fetched.
    Changed,
    /// Its bytes changed, and its time stamps did not: the disk fails, or a program hides what it does.
    Rotten,
    /// The system does not let it be read.
    Unreadable,
}
