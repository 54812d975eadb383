//! Messages between peers.
