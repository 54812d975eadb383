//! `share`: a folder becomes a pack.

use std::path::PathBuf;

use modswarm_protocol::{Cid, HashKind};
use serde::{Deserialize, Serialize};

use super::{Failure, Stage};

/// `share PATH`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ShareRequest {
    /// Absolute path of the folder or file.
    pub path: PathBuf,
    /// The pack's name; the folder's name if none is given.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// Who made the pack.
    pub creator: Option<String>,
    /// The game that it is for.
    pub game: Option<String>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// The hash function's name, `blake3` or `sha2-256`; blake3 if none is given.
    #[serde(default, with = "hash_name")]
    pub hash: Option<HashKind>,
    /// The pack that this one follows; found by itself when a changed folder is shared again.
    pub previous: Option<Cid>,
    /// Seconds until the link expires.
    pub expires: Option<u64>,
    /// Whether the home is to have a copy of its own, so that the folder may be changed or deleted; none: as when it was shared before, and not at first.
    #[serde(default)]
    pub copy: Option<bool>,
}

/// What `share` reports; the last is [`ShareEvent::Ready`] or [`ShareEvent::Failed`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ShareEvent {
    /// How far it is; a few a second.
    Progress {
        /// What is being done.
        stage: Stage,
        /// Bytes looked at (unchanged files count whole).
        bytes_done: u64,
        /// Bytes of all files; 0 while scanning.
        bytes_total: u64,
        /// Files done.
        files_done: u64,
        /// All files.
        files_total: u64,
    },
    /// Something that the user should know and that does not stop the share.
    Warning {
        /// One sentence.
        message: String,
    },
    /// The pack is shared and being served.
    Ready(Shared),
    /// It ended without a pack.
    Failed(Failure),
}

/// A shared pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// Pack CID.
    pub pack: Cid,
    /// Content CID.
    pub content: Cid,
    /// What to pass on.
    pub link: String,
    /// Number of files.
    pub files: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Number of distinct leaves.
    pub blocks: u64,
    /// This node.
    pub peer_id: String,
    /// Addresses that can be dialled, each ending in `/p2p/ID`.
    pub addrs: Vec<String>,
}

mod hash_name {
    use modswarm_protocol::HashKind;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(hash: &Option<HashKind>, serializer: S) -> Result<S::Ok, S::Error> {
        match hash {
            Some(hash) => serializer.serialize_some(hash.name()),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<HashKind>, D::Error> {
        let name = Option::<String>::deserialize(deserializer)?;
        match name.as_deref() {
            None => Ok(None),
            Some("blake3") => Ok(Some(HashKind::Blake3)),
            Some("sha2-256") => Ok(Some(HashKind::Sha2_256)),
            Some(other) => Err(serde::de::Error::custom(format!("unknown hash function {other}"))),
        }
    }
}
