//! The pure part of modswarm: what a pack is, what peers say to each other, and how a swarm behaves.
//!
//! Nothing in this crate touches a file, a socket, a clock or global randomness: time is an argument ([`time::Timestamp`]),
//! randomness comes from a generator that the caller seeds, and disk, hashing and network are effects that the engine asks for.
//! The real node and the simulator run the same code.
//!
//! Where to read next: [`mod@format`] for packs and CIDs, [`wire`] for messages, [`engine`] for the swarm.

pub mod engine;
pub mod format;
pub mod time;
pub mod wire;

#[cfg(feature = "sim")]
pub mod sim;

pub use format::{Cid, Codec, HashKind};
pub use time::Timestamp;
