//! The libp2p side of `/modswarm/swap/1`: a behaviour that opens and accepts its streams on the best connection to each peer.
//!
//! It owns the choice of connection and nothing else: what flows over the streams is the session's affair.

mod behaviour;
mod handler;
#[cfg(test)]
mod tests;

pub(super) use behaviour::{Behaviour, Event};
pub(super) use handler::{InboundStream, OpenError};

/// The protocol's name.
pub(super) const PROTOCOL: libp2p::StreamProtocol = libp2p::StreamProtocol::new("/modswarm/swap/1");
