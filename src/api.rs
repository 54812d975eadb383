//! What one can ask of a node, and what it answers: the same types in process, over the control socket and in `--json`.
//!
//! Field names of events are read by other programs: add, never rename. Sizes are bytes, times are seconds.
//!
//! One module a request, or a few that belong together, with the request's events and answer; they hold no behaviour. Who answers is [`crate::node`], how it goes over
//! the socket is [`crate::control`].

mod failure;
mod get;
mod limits;
mod look;
mod peers;
mod share;
mod status;
mod upkeep;
mod verify;

use serde::{Deserialize, Serialize};

pub use failure::{Failure, FailureKind};
pub use get::{Complete, Conflicts, GetEvent, GetRequest, PeerShare, Renamed};
pub use limits::{AdjustRequest, Limit, LimitRequest, Limits, PackLimits, Priority};
pub use look::{Diff, DiffRequest, ListRequest, ListedFile, Listing};
pub use peers::{ForgiveRequest, Forgiven, PeerFault, PeerStatus};
pub use share::{ShareEvent, ShareRequest, Shared};
pub use status::{PackState, PackStatus, Status};
pub use upkeep::{Collected, GcRequest, MoveRequest, Moved, PinRequest, RemoveRequest, Removed};
pub use verify::{BadFile, FileFault, PackVerified, VerifyEvent, VerifyRequest};

/// The network that a pack is shared in. A pack is announced and served only in its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkKind {
    /// The public IPFS DHT.
    #[default]
    Public,
    /// This LAN, by multicast DNS.
    Lan,
    /// Only peers named by `--bootstrap`, `--peer` and links.
    Private,
}

/// Whether a stage of a job is moving, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Looking at the files of a folder.
    Scanning,
    /// Cutting and hashing files.
    Hashing,
    /// Writing the index.
    Indexing,
    /// Copying what is shared into the home.
    Copying,
    /// Nobody known yet.
    LookingForPeers,
    /// Dialling the first peers.
    Connecting,
    /// Fetching the list of files.
    FetchingSkeleton,
    /// Looking for what is here already.
    Checking,
    /// Reading packs whole.
    Verifying,
    /// Blocks are arriving.
    Downloading,
    /// Connected, but nobody sends.
    Waiting,
    /// Until fewer others are being downloaded.
    Queued,
    /// By `pause`, until `resume`.
    Paused,
    /// Moving files to their places.
    Finishing,
}
