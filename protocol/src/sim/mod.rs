//! A deterministic simulator: many engines, one virtual clock, links with rates and delays.
//!
//! It does for the engine what the node does, with events in place of sockets: the same [`crate::engine::Engine`], the same
//! contract, every control message through the codec. A [`World`] is made from a seed and gives the same run each time.
//!
//! It models what shapes a swarm's time: each peer's uplink is shared by its connections packet by packet, its downlink is one
//! queue, each pair has a delay, and a connection holds a bounded number of bytes on the way. It does not model congestion control.
//!
//! Where to read next: [`World`] for the clock and links, [`Behaviour`] for what peers do wrong, [`Outcome`] for what is reported.

mod outcome;
mod peer;
mod world;

pub use outcome::{Outcome, PeerOutcome, least_time};
pub use peer::{Behaviour, PeerSpec};
pub use world::{PeerIndex, World, fake_content};
