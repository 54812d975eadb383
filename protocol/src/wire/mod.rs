//! What peers say to each other on `/modswarm/swap/1`: messages, block headers, and their codec.
//!
//! Pure functions over byte slices; the node moves the bytes. Two peers share one **control stream** for all contents and each
//! sends blocks on a **bulk stream** of its own; the first byte of a stream says which it is ([`StreamKind`]).
//!
//! Roles are per [`Handle`]: who sends [`Message::Open`] has chosen the number and is the *leecher* on it, the other the
//! *server*. Someone who wants to trade both ways opens a handle of its own. Control frames are `varint length, varint type,
//! body`; frames of an unknown type are skipped. Everything has a bound in [`limits`], checked before memory is taken.
//!
//! Where to read next: [`Message`], [`BulkHeader`], and docs/PROTOCOL.md, which draws the bytes. What the messages *do* is in
//! [`crate::engine`].

mod bulk;
mod codec;
mod have;
pub mod limits;
mod message;
mod reader;

pub use bulk::{BulkHeader, Encoding, StreamKind, What};
pub use codec::{DecodeError, Frame, split_frame};
pub(crate) use have::join_runs;
pub use have::{Have, HaveMap, Run, runs_of};
pub use message::{
    CloseReason, Extension, Handle, Hello, KnownPeer, Message, NetworkId, PROTOCOL, RejectReason, Rejection, RequestId,
};
