//! Names of things that the engine and its caller speak of.

/// A connection to a peer, numbered by the caller; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A transfer, numbered by the engine; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferId(pub(crate) u64);

/// Who a peer is, across connections: a digest of its peer ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey(pub [u8; 32]);

impl PeerKey {
    /// The key of a peer ID's bytes.
    pub fn of(peer_id: &[u8]) -> Self {
        Self(*blake3::hash(peer_id).as_bytes())
    }
}
