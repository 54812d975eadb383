//! What is remembered of peers over restarts. What it means is the engine's affair; here it is rows.

use modswarm_protocol::engine::PeerRecord;

/// A peer and what is remembered of it.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownPeer {
    /// The bytes of its peer ID. Longer ones than 64 are not kept.
    pub peer_id: Vec<u8>,
    /// Where it was met last; may be empty.
    pub addr: String,
    /// What is remembered.
    pub record: PeerRecord,
}
