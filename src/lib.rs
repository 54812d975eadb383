//! modswarm: share modpacks peer to peer. Content-addressed, swarming, verified, in place.

pub mod api;
pub mod config;
pub mod control;
pub mod node;
