//! What a pack is: CIDs, links, UnixFS nodes, pack.json, the piece map and the chunker.

pub mod cid;
pub mod pieces;

pub use cid::{Cid, CidError, Codec, HashKind};
pub use pieces::{Leaf, PieceIndex, PieceMap, PieceSet, SharedPieceMap};

/// The largest block that is accepted from anyone: 2 MiB, as Bitswap has it.
pub const MAX_BLOCK_LEN: usize = 2 * 1024 * 1024;
