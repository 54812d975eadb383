//! Reading leaves where they lie.

use modswarm_protocol::{Cid, format::PieceSet};

/// Pieces of one content that can no longer be read here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawn {
    /// The content.
    pub content: Cid,
    /// Its pieces that were lost.
    pub pieces: PieceSet,
}
