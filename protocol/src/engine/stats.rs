//! What the engine tells of itself.

use std::time::Duration;

use super::ids::{ConnId, PeerKey, TransferId};
use super::priority::Priority;

/// What a transfer is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// No peer that might have it is connected.
    LookingForPeers,
    /// Peers were asked whether they have it; none has said so yet.
    Connecting,
    /// Fetching the skeleton.
    FetchingSkeleton,
    /// Pieces are coming in.
    Downloading,
    /// Peers have it or may get it, but nothing is coming in.
    Waiting,
    /// Everything wanted is here.
    Seeding,
    /// Waiting until fewer others are fetching.
    Queued,
    /// Paused by the caller or by a failed write.
    Paused,
}

/// One transfer.
#[derive(Clone, Debug)]
pub struct TransferStats {
    /// Which.
    pub transfer: TransferId,
    /// What it is doing.
    pub stage: Stage,
    /// How much it gets compared with others.
    pub priority: Priority,
    /// Whether the user has stopped it: it is neither fetched nor served.
    pub stopped: bool,
    /// Its own limits in bytes a second; none: unlimited.
    pub upload_limit: Option<u64>,
    /// See `upload_limit`.
    pub download_limit: Option<u64>,
    /// Pieces wanted; zero while the skeleton is unknown.
    pub pieces_wanted: u32,
    /// Wanted pieces that are here.
    pub pieces_here: u32,
    /// Bytes wanted.
    pub bytes_wanted: u64,
    /// Wanted bytes that are here.
    pub bytes_here: u64,
    /// Verified leaf bytes from peers, each distinct leaf once.
    pub bytes_fetched: u64,
    /// Leaf payload bytes that came a second time, or when they were no longer wanted.
    pub bytes_wasted: u64,
    /// Payload bytes that did not hash to what they should.
    pub bytes_corrupt: u64,
    /// Verified bytes of skeleton from peers.
    pub bytes_skeleton: u64,
    /// Bytes served.
    pub bytes_served: u64,
    /// Verified bytes a second, lately.
    pub rate_down: u64,
    /// Served bytes a second, lately.
    pub rate_up: u64,
    /// Peers that said that they have some of it.
    pub sources: usize,
    /// Peers that opened it with us.
    pub leechers: usize,
    /// Verified leaf bytes by peer, those that have left included.
    pub peers: Vec<PeerBytes>,
}

/// What one peer has given to one transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerBytes {
    /// Who.
    pub peer: PeerKey,
    /// Verified leaf bytes.
    pub bytes: u64,
}

/// One connection.
#[derive(Clone, Debug)]
pub struct ConnStats {
    /// Which.
    pub conn: ConnId,
    /// To whom.
    pub peer: PeerKey,
    /// The peer's program, once it said `Hello`.
    pub agent: Option<String>,
    /// The round trip.
    pub rtt: Duration,
    /// Payload bytes a second that come in, lately.
    pub rate_down: u64,
    /// Payload bytes a second that go out, lately.
    pub rate_up: u64,
    /// Verified leaf bytes from it.
    pub bytes_down: u64,
    /// Payload bytes served to it.
    pub bytes_up: u64,
    /// Bytes that may be on request from it at a time.
    pub window: u64,
    /// Bytes that are on request from it.
    pub in_flight: u64,
    /// Whether it is choking us.
    pub choked_by_peer: bool,
    /// Whether we are choking it.
    pub choking_peer: bool,
    /// Whether it has let requests time out and not made up for it.
    pub snubbed: bool,
    /// What it is worth by all that is remembered of it: [`super::PeerRecord::score`].
    pub score: i32,
    /// What the two have to do with each other: transfers in which one serves the other, or might.
    pub transfers: Vec<TransferId>,
}
