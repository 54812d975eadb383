//! `peers`: who is connected, what is remembered of them, and forgiving it.

use modswarm_protocol::Cid;
use serde::{Deserialize, Serialize};

/// A connected or remembered peer, for `peers`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Who.
    pub peer_id: String,
    /// The address of the connection.
    pub addr: String,
    /// `tcp`, `quic` or `relay`.
    pub transport: String,
    /// The peer's program and version, as it says.
    pub agent: Option<String>,
    /// Round trip in milliseconds.
    pub rtt_ms: Option<u64>,
    /// Verified leaf bytes received from it.
    pub bytes_received: u64,
    /// Leaf bytes sent to it.
    pub bytes_sent: u64,
    /// Bytes a second, averaged over some seconds.
    pub download_rate: u64,
    /// See `download_rate`.
    pub upload_rate: u64,
    /// Contents with a session.
    pub contents: Vec<Cid>,
    /// Whether it is connected. If not, what is said of a connection is zero.
    #[serde(default)]
    pub connected: bool,
    /// What it is worth by all that is remembered of it: -100 to 100, zero for who is not known.
    #[serde(default)]
    pub score: i32,
    /// Verified leaf bytes received from it, ever.
    #[serde(default)]
    pub bytes_received_total: u64,
    /// Bytes sent to it, ever.
    #[serde(default)]
    pub bytes_sent_total: u64,
    /// Bytes a second that came from it while some came.
    #[serde(default)]
    pub usual_download_rate: u64,
    /// When something was noted of it last, in seconds since 1970.
    #[serde(default)]
    pub last_seen: Option<u64>,
    /// Until when it is banned, in seconds since 1970; none if it is not.
    #[serde(default)]
    pub banned_until: Option<u64>,
    /// What it is banned for: a [`PeerFault::kind`].
    #[serde(default)]
    pub ban_reason: Option<String>,
    /// What it did wrong.
    #[serde(default)]
    pub faults: Vec<PeerFault>,
}

/// One kind of what a peer did wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerFault {
    /// `connect_failed`, `stalled`, `corrupt_block`, `broken_promise`, or one of the ways to break the protocol; more may come.
    pub kind: String,
    /// How often.
    pub count: u32,
    /// The last time, in seconds since 1970.
    pub last: u64,
    /// What it adds to the score by now: never more than zero.
    pub points: i32,
}

/// `peers forgive`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgiveRequest {
    /// Whom; none: everyone.
    pub peer_id: Option<String>,
}

/// What `peers forgive` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgiven {
    /// Peers of whom bans or faults were taken back.
    pub peers: u64,
}
