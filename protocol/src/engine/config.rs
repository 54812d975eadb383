//! What an engine and its transfers are told when they are made.

use super::reputation::PeerRecord;
use crate::format::{Cid, PieceSet, SharedPieceMap};
#[cfg(doc)]
use crate::time::Timestamp;
use crate::wire::{Extension, NetworkId};

/// Settings of an engine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The network: named in every `Hello`, and only contents of it are served.
    pub network: NetworkId,
    /// Program and version, at most [`crate::wire::limits::MAX_AGENT_LEN`] bytes (cut to it).
    pub agent: String,
    /// Extensions to name in every `Hello`.
    pub extensions: Vec<Extension>,
    /// Bytes a second that are served; none: unlimited.
    pub upload_limit: Option<u64>,
    /// Bytes a second that are requested; none: unlimited.
    pub download_limit: Option<u64>,
    /// Whether the limits hold for connections in the local network too; see [`super::Engine::set_local`].
    pub limit_lan: bool,
    /// Transfers that fetch pieces at a time, at least 1; the others wait. None: all.
    pub max_active: Option<usize>,
    /// Connections held at a time. Beyond, the least useful of those that do nothing makes room for a new one.
    pub connections: usize,
    /// Peers that are served pieces at a time, at least 1; one more gets its turn by lot.
    pub upload_slots: usize,
    /// What was known of peers at the last start, bans included: what [`super::Engine::take_changed_records`] gave, the last of each peer.
    pub known: Vec<PeerRecord>,
    /// The time at [`Timestamp::ZERO`], in seconds since 1970: records outlive the engine.
    pub started_at: u64,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            network: NetworkId::PUBLIC,
            agent: concat!("modswarm/", env!("CARGO_PKG_VERSION")).to_owned(),
            extensions: Vec::new(),
            upload_limit: None,
            download_limit: None,
            limit_lan: false,
            max_active: None,
            connections: super::core::MAX_CONNECTIONS,
            upload_slots: 16,
            known: Vec::new(),
            started_at: 0,
        }
    }
}

/// In which order pieces are requested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PickOrder {
    /// The rarest first, ties by lot.
    #[default]
    RarestFirst,
    /// By index.
    Sequential,
}

/// A content to fetch or to seed: both are the same thing, for what is fetched is what is wanted and not had.
#[derive(Clone, Debug)]
pub struct ContentSpec {
    /// The content CID, if it is known yet. Two transfers of one content become one.
    pub content: Option<Cid>,
    /// Packs that hold the content: other names under which peers may open it.
    pub packs: Vec<Cid>,
    /// The network that the pack was shared in. In another than the engine's it is neither fetched nor served.
    pub network: NetworkId,
    /// The pieces, once the skeleton is known.
    pub pieces: Option<ContentPieces>,
    /// Contents (older or newer versions) whose holders may hold leaves of this one; asked by CID for what nobody else has.
    pub related: Vec<Cid>,
    /// In which order.
    pub order: PickOrder,
}

/// The pieces of a content, and which of them are here.
#[derive(Clone, Debug)]
pub struct ContentPieces {
    /// The piece map.
    pub map: SharedPieceMap,
    /// What is here, as long as the map.
    pub have: PieceSet,
    /// What is wanted, as long as the map; none: all of it.
    pub wanted: Option<PieceSet>,
}
