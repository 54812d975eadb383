//! A deterministic simulator: many engines, one virtual clock, links with rates and delays.
//!
//! It does for the engine what the node does, with events in place of sockets: the same [`crate::engine::Engine`], the same
//! contract, every control message through the codec (see [`World::coarsen`]). A [`World`] is made from a seed and gives the same run each time, on however
//! many threads.
//!
//! It models what shapes a swarm's time: each peer's uplink is shared by its connections packet by packet, its downlink is one
//! queue, each pair has a delay, and a connection holds a bounded number of bytes on the way. A [`Line`] can add jitter, losses and bounded queues, and senders
//! then react to congestion. Control messages are delayed and lost as packets are, but take no room in the queues of others.
//!
//! Where to read next: [`World`] for the clock, `node` for what a peer does, `links` for what its line does, [`Behaviour`] for what peers do wrong,
//! [`Outcome`] for what is reported.

mod agenda;
mod common;
mod links;
mod manners;
mod node;
mod outcome;
mod scene;
mod spec;
mod world;

pub use outcome::{Outcome, PeerOutcome, least_time};
pub use scene::{fake_content, fake_spec};
pub use spec::{Behaviour, Line, PeerSpec};
pub use world::{Job, PeerIndex, Workers, World};
