//! What can be wrong with a pack, in words for a player.

use thiserror::Error;

use super::super::{
    MAX_BLOCK_LEN,
    cid::{Cid, CidError},
    limits::FILE_DEPTH_MAX,
    manifest::ManifestError,
    path::NameError,
};

/// Why a pack cannot be read. It is as its author made it: no other peer has a better one.
#[derive(Debug, Error)]
pub enum SkeletonError {
    /// A block longer than any that is accepted.
    #[error(
        "block {cid} is {len} bytes long, at most {MAX_BLOCK_LEN} are accepted; ask for the pack to be shared again with smaller blocks"
    )]
    BlockTooLong {
        /// The block.
        cid: Cid,
        /// Its length.
        len: u64,
    },
    /// Bytes that are not dag-pb or not UnixFS.
    #[error("block {cid} is damaged at its source ({what}); ask for the pack to be shared again")]
    Malformed {
        /// The block.
        cid: Cid,
        /// What is wrong.
        what: &'static str,
    },
    /// A link that cannot be followed.
    #[error("block {cid} refers to something that cannot be fetched: {source}")]
    Link {
        /// The block.
        cid: Cid,
        /// Why.
        #[source]
        source: CidError,
    },
    /// A name that could do harm.
    #[error(
        "the pack was refused, because a name in it could do harm: {source}; ask for it to be shared again without that name"
    )]
    Name {
        /// The folder's node.
        cid: Cid,
        /// What is wrong with the name.
        #[source]
        source: NameError,
    },
    /// Two entries of one folder that no disk can hold beside each other.
    #[error("the pack lists {name:?} twice in one folder; ask for it to be shared again")]
    DuplicateName {
        /// The folder's node.
        cid: Cid,
        /// The name, in NFC.
        name: String,
    },
    /// Sizes that contradict each other.
    #[error(
        "the pack lies about sizes: {cid} is said to have {said} bytes and has {found}; ask for it to be shared again"
    )]
    LyingSize {
        /// The block.
        cid: Cid,
        /// What its parent, or it itself, says.
        said: u64,
        /// What it adds up to.
        found: u64,
    },
    /// A folder where a file must be, or the other way round.
    #[error("block {cid} is {found}, where {expected} was expected; ask for the pack to be shared again")]
    WrongKind {
        /// The block.
        cid: Cid,
        /// What was expected.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// A total beyond [`super::super::Limits`].
    #[error("the pack is too large to be accepted: {what}, at most {max}; it can be shared in several packs instead")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        max: u64,
    },
    /// File nodes nested deeper than any file needs.
    #[error("file {0} is nested over {FILE_DEPTH_MAX} levels deep; ask for the pack to be shared again")]
    FileTooDeep(Cid),
    /// pack.json is not usable.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// pack.json names another content than the one beside it.
    #[error(
        "the pack contradicts itself: pack.json says its content is {said}, and {found} lies beside it; ask for it to be shared again"
    )]
    OtherContent {
        /// What pack.json says.
        said: Cid,
        /// What the pack's root says.
        found: Cid,
    },
    /// [`super::SkeletonReader::finish`] was called too early.
    #[error("{0} blocks of the pack's file list are still missing")]
    Incomplete(u64),
}
