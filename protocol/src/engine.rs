//! The swarm engine.
