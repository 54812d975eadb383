//! What the engine asks its caller to do, and what passes between them for one block.

use super::ids::{ConnId, PeerKey, TransferId};
use crate::format::{Cid, PieceIndex};
use crate::wire::{Handle, KnownPeer, Message, What};

/// Something to do, from [`super::Engine::poll_action`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write a control message. Messages to one connection keep their order.
    Send(ConnId, Message),
    /// Read a block, write it to the peer's bulk stream, and report it with [`super::Engine::handle_served`]. Blocks to one
    /// connection keep their order; how many bytes are asked for at a time is bounded.
    Serve(ServeJob),
    /// Blocks that are sent to a peer are to leave no faster than `rate` bytes a second (none: as fast as they may): those of one handle of its, or all
    /// together. It asks for that; see [`super::Pacer`].
    Pace {
        /// To whom.
        conn: ConnId,
        /// The peer's handle; none: all of the connection.
        handle: Option<Handle>,
        /// Bytes a second.
        rate: Option<u64>,
    },
    /// Where this connection shares an uplink with others, it is to be sent to so much faster than one of 100, or slower, as far as both have something to send
    /// and the caller can see to it. Connections begin with 100.
    Weigh {
        /// To whom.
        conn: ConnId,
        /// Hundredths, 25 to 400.
        weight: u16,
    },
    /// Close a connection. The engine has forgotten it already; reporting its end again does no harm.
    Disconnect(ConnId, DisconnectReason),
    /// Something that the caller may want to act on.
    Event(Event),
}

/// A block to serve. Handed back in [`super::Engine::handle_served`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeJob {
    /// To whom.
    pub conn: ConnId,
    /// The peer's handle, for the block's header.
    pub handle: Handle,
    /// The transfer that the peer opened by it.
    pub transfer: TransferId,
    /// Which block, for the block's header.
    pub what: What,
    /// The piece, if the block was asked for as one.
    pub piece: Option<PieceIndex>,
    /// The block. If it was not asked for as a piece it may lie in any pack **of the engine's network**, or nowhere.
    pub cid: Cid,
    /// Bytes, if the engine knows.
    pub len: Option<u32>,
    /// Whether it counts towards the upload limits; see [`super::Pacer`].
    pub limited: bool,
}

/// Why a block was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServeFailure {
    /// It is not here, or no longer. For a piece the caller reports [`super::Engine::handle_lost`] before.
    NotHere,
    /// It could not be read for now.
    Busy,
}

/// A block that is arriving and is wanted. Handed back in [`super::Engine::handle_verdict`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// From whom.
    pub conn: ConnId,
    /// For which transfer.
    pub transfer: TransferId,
    /// What its bytes must hash to.
    pub cid: Cid,
    /// Bytes of payload to read: as announced, and already checked.
    pub len: u32,
    /// The piece, or none for a node of the skeleton.
    pub piece: Option<PieceIndex>,
}

/// Why the payload behind a header is not to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwanted {
    /// It was asked for once and has come too late: read over its bytes, reporting them as progress.
    Late,
    /// It was never asked for, or is not what was. The connection is being closed: stop reading.
    Violation(Violation),
}

/// What became of a block whose payload has arrived whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The hash is right, and the bytes are with the store.
    Good,
    /// The hash is wrong: who sent it is banned.
    Corrupt,
    /// The hash is right, but the bytes could not be kept. The transfer pauses until it is resumed.
    WriteFailed,
}

/// What a peer did that ends its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Bytes that are not a message.
    #[error("malformed message: {0}")]
    Malformed(crate::wire::DecodeError),
    /// A message before `Hello`, or a second `Hello`.
    #[error("messages out of order")]
    OutOfOrder,
    /// No `Hello` in time.
    #[error("handshake took too long")]
    HelloTimeout,
    /// A handle opened twice.
    #[error("handle opened twice")]
    HandleInUse,
    /// More handles, requests or CIDs than the limits allow.
    #[error("over the limit of {0}")]
    OverLimit(&'static str),
    /// A piece that the content does not have, or a have-map of another length.
    #[error("speaks of pieces that do not exist")]
    NoSuchPiece,
    /// A block that was not asked for.
    #[error("sent a block that was not asked for")]
    Unsolicited,
    /// A block of another length than the piece map says, or in an encoding that was not agreed on.
    #[error("sent a block of the wrong length or encoding")]
    WrongShape,
}

/// Why the engine closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DisconnectReason {
    /// The peer is in another network.
    #[error("is in another network")]
    OtherNetwork,
    /// The peer broke the protocol.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The peer is banned.
    #[error("is banned")]
    Banned,
    /// There are as many connections as the engine takes.
    #[error("too many connections")]
    TooManyConnections,
    /// It did nothing, and a newcomer wanted its place.
    #[error("makes room for another")]
    LeastUseful,
    /// Neither has anything that the other wants.
    #[error("has nothing to do with us any more")]
    NothingShared,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The peer has said `Hello` and is in our network.
    Ready {
        /// The connection.
        conn: ConnId,
        /// Its program.
        agent: String,
    },
    /// A piece was verified and kept.
    PieceDone {
        /// The transfer.
        transfer: TransferId,
        /// The piece.
        piece: PieceIndex,
        /// From whom.
        conn: ConnId,
    },
    /// A node of the skeleton was verified and kept.
    NodeDone {
        /// The transfer.
        transfer: TransferId,
        /// The node.
        cid: Cid,
        /// From whom.
        conn: ConnId,
    },
    /// Every peer that is connected was asked for these nodes and has none of them. They stay wanted: peers that come later
    /// are asked, and these again after a while.
    NodesMissing {
        /// The transfer.
        transfer: TransferId,
        /// The nodes.
        cids: Vec<Cid>,
    },
    /// Everything wanted is here. Said again if pieces were lost and fetched again.
    Complete(TransferId),
    /// Nobody connected has the content, or what is still missing of it: find more peers. Said at most every few seconds.
    NeedPeers(TransferId),
    /// A peer names others that have to do with a content. They are hearsay: nothing is known of them until they are dialled.
    PeersHeard {
        /// The transfer.
        transfer: TransferId,
        /// Who names them.
        conn: ConnId,
        /// At most [`crate::wire::limits::MAX_PEERS`], a bounded number of times.
        peers: Vec<KnownPeer>,
    },
    /// A peer asks for a content that was added by [`super::Engine::add_seed`]: hand its pieces to [`super::Engine::set_pieces`], or say
    /// [`super::Engine::handle_no_pieces`]. Said once until either.
    PiecesNeeded(TransferId),
    /// A block could not be kept: the transfer pauses until [`super::Engine::resume`].
    WriteFailed(TransferId),
    /// A peer sent a corrupt block, and is banned. Its connections are being closed.
    Banned {
        /// Who.
        peer: PeerKey,
        /// On which connection.
        conn: ConnId,
        /// For which transfer.
        transfer: TransferId,
        /// The block that its bytes did not hash to.
        cid: Cid,
        /// Until when, in seconds since 1970.
        until: u64,
    },
    /// A peer broke the protocol once too often, and is banned. Its connections are being closed.
    BannedForViolation {
        /// Who.
        peer: PeerKey,
        /// On which connection.
        conn: ConnId,
        /// What it did last.
        violation: Violation,
        /// Until when, in seconds since 1970.
        until: u64,
    },
    /// What is known of peers has changed: have it with [`super::Engine::take_changed_records`] and keep it. Said at most once a second, and once until
    /// then.
    RecordsChanged,
}
