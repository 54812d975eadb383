//! What both ends of the control API agree on.

use serde::{Deserialize, Serialize};

use crate::api::NetworkKind;

/// The version of the API, in every request as [`VERSION_HEADER`] and in [`HolderInfo`]. It rises when an old client would
/// misunderstand a new holder, or the other way round.
pub const API_VERSION: u32 = 2;

/// The header that carries [`API_VERSION`].
pub const VERSION_HEADER: &str = "modswarm-api";

/// The longest body of a request, in bytes.
pub const MAX_REQUEST_LEN: usize = 1024 * 1024;

/// The longest line of an event, in bytes.
pub(super) const MAX_LINE_LEN: usize = 4 * 1024 * 1024;

/// The longest answer that is not a stream, in bytes: the list of a pack of a million files.
pub(super) const MAX_ANSWER_LEN: usize = 512 * 1024 * 1024;

/// The most connections that a holder keeps; further ones wait.
pub(super) const MAX_CONNECTIONS: usize = 256;

/// Who holds the home, and with what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderInfo {
    /// Its [`API_VERSION`].
    pub api: u32,
    /// Its program's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Its network.
    pub network: NetworkKind,
    /// The addresses that it was told to listen on; empty: the network's defaults.
    pub listen: Vec<String>,
    /// Its bootstrap peers, beside the network's own.
    pub bootstrap: Vec<String>,
    /// Bytes a second; none: unlimited.
    pub upload_limit: Option<u64>,
    /// Bytes a second; none: unlimited.
    pub download_limit: Option<u64>,
    /// Whether uploads look after themselves.
    #[serde(default)]
    pub upload_auto: bool,
}

/// `info PACK`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InfoRequest {
    /// A link, CID, name or path of a pack of the home.
    pub target: String,
}
