//! From blocks of unknown origin to a [`Skeleton`]: strict and bounded.
//!
//! [`SkeletonReader`] does no I/O. The contract: *add what arrives, ask what is wanted, until nothing is*:
//! 1. make a reader for a pack CID, a content CID or the CID of any UnixFS file;
//! 2. fetch what [`SkeletonReader::wanted`] names, from anywhere, and check each block against its CID;
//! 3. hand each to [`SkeletonReader::add`];
//! 4. when [`SkeletonReader::is_complete`], take the result from [`SkeletonReader::finish`].
//!
//! An error from `add` or `finish` is the pack's fault and its author's, never that of the peer who sent the block: the pack
//! fails, nobody is banned. Totals are added up over distinct nodes and checked against [`super::Limits`] before anything is expanded, so
//! that a small DAG that stands for endless files costs nothing.
//!
//! Parts: `parse` turns one block into a node; `nodes` keeps them; `measure` adds up; `expand` makes the [`super::Content`]; `error` says what is wrong.

mod error;
mod expand;
mod measure;
mod nodes;
mod parse;
mod reader;

pub use error::SkeletonError;
pub use parse::inline_bytes;
pub use reader::{Added, PackHead, Skeleton, SkeletonReader, pack_parts};

#[cfg(test)]
mod tests;
