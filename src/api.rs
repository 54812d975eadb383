//! What one can ask of a node, and what it answers: the same types in process, over the control socket and in `--json`.
//!
//! Field names of events are read by other programs: add, never rename. Sizes are bytes, times are seconds.

mod limits;

use std::path::PathBuf;

use modswarm_protocol::{Cid, HashKind};
use serde::{Deserialize, Serialize};

pub use limits::{AdjustRequest, Limit, LimitRequest, Limits, PackLimits, Priority};

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

/// `share PATH`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ShareRequest {
    /// Absolute path of the folder or file.
    pub path: PathBuf,
    /// The pack's name; the folder's name if none is given.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// Who made the pack.
    pub creator: Option<String>,
    /// The game that it is for.
    pub game: Option<String>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// The hash function's name, `blake3` or `sha2-256`; blake3 if none is given.
    #[serde(default, with = "hash_name")]
    pub hash: Option<HashKind>,
    /// The pack that this one follows; found by itself when a changed folder is shared again.
    pub previous: Option<Cid>,
    /// Seconds until the link expires.
    pub expires: Option<u64>,
    /// Whether the home is to have a copy of its own, so that the folder may be changed or deleted; none: as when it was shared before, and not at first.
    #[serde(default)]
    pub copy: Option<bool>,
}

/// What `get` does with files at the destination that are the user's own, or that he changed after a get put them there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conflicts {
    /// Nothing is changed while there are any.
    #[default]
    Refuse,
    /// They stay, and the pack's files are left out there.
    KeepMine,
    /// They are replaced.
    TakeTheirs,
    /// They are renamed to a free name, such as `Skin (mine).pak`.
    KeepBoth,
    /// They stay, and what they are to the pack: only what is missing or rotten is put there. What `verify --repair` does.
    Mend,
}

/// `get TARGET`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct GetRequest {
    /// A link, CID, `ipfs://`, `/ipfs/` or gateway URL, as the user gave it.
    pub target: String,
    /// Absolute folder under which the pack's folder appears (or an installed pack's own folder).
    pub output: PathBuf,
    /// Multiaddrs of peers to ask, each ending in `/p2p/ID`.
    pub peers: Vec<String>,
    /// Globs over paths inside the pack; empty: everything.
    pub only: Vec<String>,
    /// Replace files that differ; the same as [`Conflicts::TakeTheirs`], for older clients.
    #[serde(default)]
    pub overwrite: bool,
    /// What to do with files of the user's that are in the way.
    #[serde(default)]
    pub conflicts: Conflicts,
    /// Seconds without a new verified block after which to give up; none: never.
    pub timeout: Option<u64>,
    /// Go on seeding when complete.
    pub seed: bool,
    /// Globs over paths inside the pack: files that are fetched before all others.
    #[serde(default)]
    pub first: Vec<String>,
    /// Fetch from the first byte to the last, and not what is rarest first.
    #[serde(default)]
    pub sequential: bool,
}

/// `diff A B`, and `get --dry-run`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DiffRequest {
    /// What stands now: a link, CID, or the name of a pack of this home; or the absolute folder of one, which is looked at as it is. None: what stands where a get
    /// to `output` would put its files.
    pub from: Option<String>,
    /// What is to stand there: a link, CID, or the name or folder of a pack of this home.
    pub to: String,
    /// As in [`GetRequest::output`]; only without `from`.
    pub output: Option<PathBuf>,
    /// As in [`GetRequest::peers`].
    pub peers: Vec<String>,
    /// As in [`GetRequest::only`]; only without `from`.
    pub only: Vec<String>,
    /// As in [`GetRequest::conflicts`]. If it refuses, the sums are those of replacing what is in the way.
    pub conflicts: Conflicts,
    /// As in [`GetRequest::timeout`].
    pub timeout: Option<u64>,
}

/// How two versions differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diff {
    /// The old one's CID, where it is one.
    pub from: Option<Cid>,
    /// The new one's CID.
    pub to: Cid,
    /// The new one's name.
    pub name: Option<String>,
    /// Where the files are, or would be.
    pub path: Option<PathBuf>,
    /// Files that are the same.
    pub unchanged: u64,
    /// Files that only the new one has.
    pub added: Vec<String>,
    /// Files that differ.
    pub changed: Vec<String>,
    /// Files that only the old one has, and that will be deleted.
    pub removed: Vec<String>,
    /// Files that only have another name.
    pub renamed: Vec<Renamed>,
    /// Files in the way that are the user's own or that he changed.
    pub conflicts: Vec<String>,
    /// Files that only the old one has and that the user changed: they stay.
    pub kept: Vec<String>,
    /// Bytes of distinct leaves that are nowhere in this home.
    pub bytes_to_fetch: u64,
    /// Bytes of room needed beside what is there, at the worst moment.
    pub disk_needed: u64,
    /// Bytes that it takes more in the end; less, if negative.
    pub disk_change: i64,
    /// Free bytes on the disk, where it is known.
    pub disk_free: Option<u64>,
}

/// `ls TARGET`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ListRequest {
    /// As in [`GetRequest::target`].
    pub target: String,
    /// As in [`GetRequest::peers`].
    pub peers: Vec<String>,
    /// As in [`GetRequest::timeout`].
    pub timeout: Option<u64>,
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

/// What `share` reports; the last is [`ShareEvent::Ready`] or [`ShareEvent::Failed`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ShareEvent {
    /// How far it is; a few a second.
    Progress {
        /// What is being done.
        stage: Stage,
        /// Bytes looked at (unchanged files count whole).
        bytes_done: u64,
        /// Bytes of all files; 0 while scanning.
        bytes_total: u64,
        /// Files done.
        files_done: u64,
        /// All files.
        files_total: u64,
    },
    /// Something that the user should know and that does not stop the share.
    Warning {
        /// One sentence.
        message: String,
    },
    /// The pack is shared and being served.
    Ready(Shared),
    /// It ended without a pack.
    Failed(Failure),
}

/// A shared pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// Pack CID.
    pub pack: Cid,
    /// Content CID.
    pub content: Cid,
    /// What to pass on.
    pub link: String,
    /// Number of files.
    pub files: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Number of distinct leaves.
    pub blocks: u64,
    /// This node.
    pub peer_id: String,
    /// Addresses that can be dialled, each ending in `/p2p/ID`.
    pub addrs: Vec<String>,
}

/// What `get` reports; the last is [`GetEvent::Complete`] or [`GetEvent::Failed`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum GetEvent {
    /// What will be written; once, before anything is.
    Plan {
        /// Pack CID, where the target is a pack.
        pack: Option<Cid>,
        /// Content CID.
        content: Cid,
        /// The pack's name.
        name: String,
        /// Where the files will be.
        path: PathBuf,
        /// Selected files.
        files: u64,
        /// Bytes of the selected files.
        bytes: u64,
        /// Bytes of them that are on this machine already.
        bytes_here: u64,
        /// Free bytes on the destination's disk.
        disk_free: Option<u64>,
        /// Files that will only get another name.
        #[serde(default)]
        renamed: Vec<Renamed>,
        /// Files of the user's that stay where the pack has others.
        #[serde(default)]
        kept: Vec<String>,
    },
    /// How far it is; a few a second.
    Progress {
        /// What is happening.
        stage: Stage,
        /// Bytes of the selection that are here.
        bytes_done: u64,
        /// Bytes of the selection; 0 until the plan.
        bytes_total: u64,
        /// Bytes a second, averaged over some seconds.
        rate: u64,
        /// Seconds left at this rate.
        eta: Option<u64>,
        /// Peers with a session for this content.
        peers: u64,
    },
    /// Something that the user should know and that does not stop the get.
    Warning {
        /// One sentence.
        message: String,
    },
    /// Files in the way that are the user's own or that he changed; once, before a [`GetEvent::Failed`] that [`GetRequest::conflicts`] can avoid.
    Conflicts {
        /// Where the pack's files would be.
        path: PathBuf,
        /// Their paths in the pack.
        files: Vec<String>,
    },
    /// All files are in their places and durable.
    Complete(Complete),
    /// It ended without all files; what was verified is kept.
    Failed(Failure),
}

/// The end of a `get`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Complete {
    /// Pack CID, where the target was a pack.
    pub pack: Option<Cid>,
    /// Content CID.
    pub content: Cid,
    /// Where the files are.
    pub path: PathBuf,
    /// Number of selected files.
    pub files: u64,
    /// Bytes of the selected files.
    pub bytes: u64,
    /// From the start of the get.
    pub seconds: f64,
    /// Verified leaf bytes from peers, each distinct leaf once.
    pub bytes_fetched: u64,
    /// The rest of the selected bytes.
    pub bytes_reused: u64,
    /// Bytes of nodes and pack.json from peers.
    pub bytes_skeleton: u64,
    /// Leaf bytes that came in vain: a second time, or when they were no longer wanted.
    #[serde(default)]
    pub bytes_wasted: u64,
    /// Who sent verified leaves.
    pub peers: Vec<PeerShare>,
    /// Files that only got another name.
    #[serde(default)]
    pub renamed: Vec<Renamed>,
    /// Files of the version that stood there before that were deleted, since this one has none of them.
    #[serde(default)]
    pub removed: Vec<String>,
    /// Files of the user's that stayed: where the pack has others, and those of the former version that he changed.
    #[serde(default)]
    pub kept: Vec<String>,
    /// Files of the user's that were in the way and have another name now.
    #[serde(default)]
    pub set_aside: Vec<Renamed>,
}

/// A file that has another name now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renamed {
    /// Its path before, below the pack's folder.
    pub from: String,
    /// Its path now.
    pub to: String,
}

/// What one peer sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PeerShare {
    /// Who.
    pub peer_id: String,
    /// The address of the connection, or the last one known; may be empty then.
    pub addr: String,
    /// Verified leaf bytes.
    pub bytes: u64,
}

/// The files of a pack.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listing {
    /// Pack CID, where the target is a pack.
    pub pack: Option<Cid>,
    /// Content CID.
    pub content: Cid,
    /// The pack's name.
    pub name: Option<String>,
    /// pack.json as it stands, where the target is a pack.
    pub manifest: Option<serde_json::Value>,
    /// Number of distinct leaves.
    pub blocks: u64,
    /// All files, in pack order.
    pub files: Vec<ListedFile>,
    /// Empty folders.
    pub empty_dirs: Vec<String>,
}

/// One file of a [`Listing`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListedFile {
    /// Path inside the pack, `/` between names.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// The file's CID.
    pub cid: Cid,
}

/// What a pack of this home is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackState {
    /// Everything selected is here and served.
    Seeding,
    /// Being fetched by this process.
    Downloading,
    /// Being fetched when fewer others are.
    Queued,
    /// Begun, and not being fetched now; or paused by the user, whatever it did.
    Paused,
    /// Files are missing or changed; `problem` says which.
    Damaged,
    /// A newer version stands in its folder; what is the same in both is still served.
    Superseded,
}

/// One pack of the home, for `status` and `info`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PackStatus {
    /// Pack CID, where the content came as a pack.
    pub pack: Option<Cid>,
    /// Content CID.
    pub content: Cid,
    /// The pack's name.
    pub name: String,
    /// The network that it is served in.
    pub network: NetworkKind,
    /// What it is doing.
    pub state: PackState,
    /// Where its files are.
    pub path: PathBuf,
    /// Number of files.
    pub files: u64,
    /// Bytes of the selected files.
    pub bytes: u64,
    /// Bytes of them that are here.
    pub bytes_here: u64,
    /// Distinct leaves.
    pub blocks: u64,
    /// Distinct leaves that are here.
    pub blocks_here: u64,
    /// Leaf bytes sent to peers since the process started.
    pub bytes_uploaded: u64,
    /// Peers with a session for it now.
    pub peers: u64,
    /// What is wrong and how to mend it.
    pub problem: Option<String>,
    /// Files of the pack that are not here because the user kept their own in their places.
    #[serde(default)]
    pub kept: u64,
    /// Whether `gc --keep` and `rm` leave it alone.
    #[serde(default)]
    pub pinned: bool,
    /// Whether the home has a copy of its own, and does without the folder.
    #[serde(default)]
    pub copied: bool,
    /// Whether `pause` stopped it: it is neither fetched nor served until `resume`.
    #[serde(default)]
    pub stopped: bool,
    /// How much it gets compared with others.
    #[serde(default)]
    pub priority: Priority,
    /// Its own limits in bytes a second; none: unlimited.
    #[serde(default)]
    pub upload_limit: Option<u64>,
    /// See `upload_limit`.
    #[serde(default)]
    pub download_limit: Option<u64>,
    /// What to pass on.
    pub link: String,
}

/// The node as a whole, for `status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// This node; none when no process holds the home.
    pub peer_id: Option<String>,
    /// Addresses that can be dialled.
    pub addrs: Vec<String>,
    /// The node's network.
    pub network: NetworkKind,
    /// Bytes a second sent and received, averaged over some seconds.
    pub upload_rate: u64,
    /// See `upload_rate`.
    pub download_rate: u64,
    /// Limits in bytes a second; none: unlimited.
    pub upload_limit: Option<u64>,
    /// See `upload_limit`.
    pub download_limit: Option<u64>,
    /// Whether `upload_limit` follows what the line bears.
    #[serde(default)]
    pub upload_auto: bool,
    /// Connected peers that speak our protocol.
    pub peers: u64,
    /// Packs of the home.
    pub packs: Vec<PackStatus>,
}

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

/// `rm TARGET`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RemoveRequest {
    /// A link, CID, name or path of a pack of the home.
    pub target: String,
    /// Delete the user's files as well.
    pub data: bool,
}

/// What `rm` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The pack's name.
    pub name: String,
    /// Content CID.
    pub content: Cid,
    /// Where its files were, and still are unless `data_deleted`.
    pub path: PathBuf,
    /// Whether the files were deleted too, all of them.
    pub data_deleted: bool,
    /// Files that were to be deleted and were kept, since they changed or another pack has them.
    pub files_kept: u64,
}

/// `verify [PACK]`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct VerifyRequest {
    /// A link, CID, name or path of a pack of the home; none: all packs.
    pub target: Option<String>,
    /// Fetch again what is missing or rotten.
    pub repair: bool,
    /// As in [`GetRequest::peers`].
    #[serde(default)]
    pub peers: Vec<String>,
    /// As in [`GetRequest::timeout`].
    #[serde(default)]
    pub timeout: Option<u64>,
}

/// What `verify` reports; the last is [`VerifyEvent::Complete`] or [`VerifyEvent::Failed`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum VerifyEvent {
    /// How far it is with a pack; a few a second.
    Progress {
        /// The pack's name.
        pack: String,
        /// Whether what is wrong is being fetched again.
        repairing: bool,
        /// Bytes read.
        bytes_done: u64,
        /// Bytes of all its files.
        bytes_total: u64,
        /// Files done.
        files_done: u64,
        /// All files.
        files_total: u64,
    },
    /// Something that the user should know and that does not stop it.
    Warning {
        /// One sentence.
        message: String,
    },
    /// One pack was verified.
    Pack(PackVerified),
    /// All were.
    Complete,
    /// It ended before that.
    Failed(Failure),
}

/// What was found of one pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackVerified {
    /// Pack CID, where the content came as a pack.
    pub pack: Option<Cid>,
    /// Content CID.
    pub content: Cid,
    /// The pack's name.
    pub name: String,
    /// Where its files are.
    pub path: PathBuf,
    /// Files looked at.
    pub files: u64,
    /// Bytes that were read and are right.
    pub bytes: u64,
    /// Files that are not as the pack has them, before any repair.
    pub bad: Vec<BadFile>,
    /// Blocks that were believed lost and are here.
    pub restored: u64,
    /// Blocks that were believed here and are lost.
    pub lost: u64,
    /// Whether what was wrong is right again; none if nothing was to be repaired.
    pub repaired: Option<bool>,
}

/// A file that is not as its pack has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadFile {
    /// Path inside the pack, `/` between names.
    pub path: String,
    /// What is wrong with it.
    pub fault: FileFault,
    /// Its bytes that are not as they should be.
    pub bytes: u64,
    /// Whether it is right again after a repair.
    #[serde(default)]
    pub mended: bool,
}

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileFault {
    /// It is not there.
    Missing,
    /// It was changed after it was shared or fetched.
    Changed,
    /// Its bytes changed, and its time stamps did not: the disk fails, or a program hides what it does.
    Rotten,
    /// The system does not let it be read.
    Unreadable,
}

/// `move PACK DIR`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MoveRequest {
    /// A link, CID, name or path of a pack of the home.
    pub target: String,
    /// Absolute path: the folder that the pack is to be, or an existing one under which its folder appears.
    pub to: PathBuf,
}

/// What `move` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// The pack's name.
    pub name: String,
    /// Content CID.
    pub content: Cid,
    /// Where its files were.
    pub from: PathBuf,
    /// Where they are.
    pub to: PathBuf,
    /// Bytes copied to another disk; 0 where a rename was enough.
    pub bytes_copied: u64,
    /// Files of the pack that stayed behind as well, since their copies are not as the pack has them.
    pub left: Vec<PathBuf>,
}

/// `pin PACK` and `unpin PACK`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PinRequest {
    /// A link, CID, name or path of a pack of the home.
    pub target: String,
    /// Whether it is to be kept.
    pub pinned: bool,
}

/// `gc`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct GcRequest {
    /// Remove downloaded packs with their files, the least recently used first, until those that are left take at most so many bytes; pinned ones
    /// and ones that the user shared stay. None: no pack is removed.
    pub keep: Option<u64>,
}

/// What `gc` did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Packs that were removed.
    pub packs: Vec<Removed>,
    /// Bytes of the files of those packs.
    pub pack_bytes: u64,
    /// Nodes of packs that are not here any more.
    pub nodes: u64,
    /// Their bytes.
    pub node_bytes: u64,
    /// Entries of the index that meant nothing any more.
    pub rows: u64,
    /// Bytes of copies that no pack needs any more.
    #[serde(default)]
    pub copy_bytes: u64,
    /// Staging folders that were left over.
    pub stages: Vec<PathBuf>,
    /// Bytes of the index before.
    pub index_bytes_before: u64,
    /// Bytes of the index after.
    pub index_bytes_after: u64,
}

/// The kinds of failure that a caller can tell apart; each has an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Anything else.
    Failed,
    /// The request makes no sense.
    Usage,
    /// Nobody has it.
    NotFound,
    /// What the pack's author made is broken, or bytes do not match.
    Integrity,
    /// No way to the network.
    Network,
    /// Stopped with progress kept.
    Interrupted,
    /// No room.
    DiskFull,
    /// Files that differ are in the way.
    WouldOverwrite,
    /// Stopped before anything began.
    Cancelled,
}

impl FailureKind {
    /// The process's exit code.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Integrity => 5,
            Self::Network => 6,
            Self::Interrupted => 7,
            Self::DiskFull => 9,
            Self::WouldOverwrite => 13,
            Self::Cancelled => 130,
        }
    }
}

/// Why a request failed, as a message to a tired player.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind.
    pub kind: FailureKind,
    /// What happened, in one sentence.
    pub message: String,
    /// What to do next.
    pub help: Option<String>,
}

impl Failure {
    /// A failure with `message` and what to do next.
    pub fn new(kind: FailureKind, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            help: Some(help.into()),
        }
    }
}

mod hash_name {
    use modswarm_protocol::HashKind;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(hash: &Option<HashKind>, serializer: S) -> Result<S::Ok, S::Error> {
        match hash {
            Some(hash) => serializer.serialize_some(hash.name()),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<HashKind>, D::Error> {
        let name = Option::<String>::deserialize(deserializer)?;
        match name.as_deref() {
            None => Ok(None),
            Some("blake3") => Ok(Some(HashKind::Blake3)),
            Some("sha2-256") => Ok(Some(HashKind::Sha2_256)),
            Some(other) => Err(serde::de::Error::custom(format!("unknown hash function {other}"))),
        }
    }
}
