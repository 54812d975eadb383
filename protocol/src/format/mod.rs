//! What a pack is: CIDs, links, UnixFS nodes, pack.json, the piece map and the chunker.
//!
//! This module owns every byte that enters a CID, and every check of bytes that come from elsewhere. It does not fetch, store or
//! cut files: a caller hands it leaves ([`ContentBuilder`]) or verified blocks ([`SkeletonReader`]).
//!
//! Where to read next: `docs/FORMAT.md` draws the bytes; [`ContentBuilder`] makes packs, [`SkeletonReader`] takes them apart, [`Content`] is what both
//! give.

pub mod limits;
pub mod link;
pub mod manifest;
pub mod path;
pub mod read;

mod build;
mod chunker;
mod cid;
mod content;
mod dagpb;
mod hamt;
mod intern;
mod murmur3;
mod names;
mod parts;
mod pieces;
mod unixfs;

pub use build::{BuildError, BuiltContent, BuiltPack, ContentBuilder, build_pack};
pub use chunker::{ChunkerProfile, ChunkerProfileError};
pub use cid::{Cid, CidError, Codec, HashKind};
pub use content::{Content, File, Files, Part, Span};
pub use limits::Limits;
pub use link::{Link, Target, TargetError};
pub use manifest::Manifest;
pub use path::{Name, NameError, PackPath};
pub use pieces::{ByCid, Leaf, PieceIndex, PieceMap, PieceSet, SharedPieceMap};
pub use read::{Added, PackHead, Skeleton, SkeletonError, SkeletonReader};

/// The largest block that is accepted from anyone: 2 MiB, as Bitswap has it.
pub const MAX_BLOCK_LEN: usize = 2 * 1024 * 1024;

/// The largest pack.json or pack.sig: 256 KiB.
pub const MAX_MANIFEST_LEN: usize = 256 * 1024;

/// Links of one file node; a file of more leaves gets another level.
pub(crate) const FILE_LINKS_MAX: usize = 1024;

/// A directory whose plain node would be longer than this many bytes is stored as a HAMT (IPIP-499).
pub(crate) const PLAIN_DIRECTORY_LEN_MAX: usize = 256 * 1024;
