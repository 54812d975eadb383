//! What sockets and the block pool tell the actor. They know these types and not the actor.

use bytes::Bytes;
use libp2p::{Multiaddr, PeerId, core::upgrade::NegotiationError, swarm::ConnectionId};
use modswarm_protocol::{
    Cid,
    engine::{ConnId, ContentPieces, DisconnectReason, Expected, ServeFailure, ServeJob, TransferId, Verdict},
    format::Content,
    wire::{BulkHeader, DecodeError, Message, StreamKind, limits::MAX_SKELETON_NODES},
};
use modswarm_store::{Download, WriteError};
use tokio::sync::oneshot;

use super::swap::InboundStream;

/// A fact from a session or the block pool.
#[derive(Debug)]
pub(super) enum Input {
    /// A control message came.
    Message { conn: ConnId, message: Message },
    /// A task of a session ended, and with it the session.
    SessionEnded { conn: ConnId, error: SessionError },
    /// A block is about to arrive.
    BlockHeader {
        conn: ConnId,
        header: BulkHeader,
        /// Bytes of its payload that are here already.
        arrived: u32,
        reply: oneshot::Sender<HeaderReply>,
    },
    /// More of the payload behind the last header arrived.
    Progress { conn: ConnId, bytes: u32 },
    /// A block arrived and was looked at.
    Verdict {
        expected: Expected,
        verdict: Verdict,
        node: Option<Bytes>,
        problem: Option<WriteError>,
    },
    /// Blocks were sent, or could not be read.
    Served { blocks: Vec<Served> },
    /// What a peer wants to be served was read from the store; nothing if it cannot be served.
    Loaded {
        transfer: TransferId,
        seed: Option<Box<Seed>>,
    },
    /// What is remembered of peers was written to the store, or could not be.
    RecordsKept,
    /// The first byte of a stream that a peer opened was read.
    Inbound {
        peer: PeerId,
        connection: ConnectionId,
        addr: Multiaddr,
        stream: InboundStream,
        kind: Result<StreamKind, SessionError>,
    },
}

/// A content of the home, ready to be served.
#[derive(Debug)]
pub(super) struct Seed {
    pub(super) pieces: ContentPieces,
    pub(super) nodes: Nodes,
}

/// What may be served as nodes of one content.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    pub(super) all: NodeSet,
    /// Those that a peer needs who has nothing yet, from the top, and their bytes; none if there are too many for one answer.
    skeleton: Option<(Vec<Cid>, u64)>,
}

/// Nodes in ascending order: there may be a million.
#[derive(Debug, Default)]
pub(super) struct NodeSet(Box<[Cid]>);

impl Nodes {
    /// Of a content and of the packs around it. `head_bytes` are those of `heads`.
    pub(super) fn new(content: &Content, heads: &[Cid], head_bytes: u64) -> Self {
        let skeleton = || heads.iter().copied().chain(content.node_cids());
        let is_small = heads.len() + content.node_cids().len() <= MAX_SKELETON_NODES as usize;
        let carriers = content.carriers().iter().map(|(cid, _)| *cid);
        Self {
            all: skeleton().chain(carriers).collect(),
            skeleton: is_small.then(|| (skeleton().collect(), content.skeleton_bytes() + head_bytes)),
        }
    }

    /// These, and `others` that are not sent unasked.
    pub(super) fn with(self, others: impl IntoIterator<Item = Cid>) -> Self {
        Self {
            all: self.all.0.into_iter().chain(others).collect(),
            ..self
        }
    }

    /// The skeleton, as the engine takes it.
    pub(super) fn skeleton(&self) -> Option<(&[Cid], u64)> {
        let skeleton = self.skeleton.as_ref();
        skeleton.map(|(nodes, bytes)| (&nodes[..], *bytes))
    }
}

impl NodeSet {
    pub(super) fn contains(&self, cid: &Cid) -> bool {
        self.0.binary_search(cid).is_ok()
    }
}

impl FromIterator<Cid> for NodeSet {
    fn from_iter<I: IntoIterator<Item = Cid>>(cids: I) -> Self {
        let mut cids: Vec<Cid> = cids.into_iter().collect();
        cids.sort_unstable();
        cids.dedup();
        Self(cids.into())
    }
}

/// What to do with a block whose header came.
#[derive(Debug)]
pub(super) enum HeaderReply {
    /// Verify and keep it.
    Take(Wanted),
    /// Read over it.
    Skip,
    /// End the session.
    Stop,
}

/// A block that is wanted, and where its bytes go.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) expected: Expected,
    /// The download that a piece belongs to; none for a node, whose bytes go back to the one who asked.
    pub(super) download: Option<Download>,
}

/// What became of a block to serve, for the engine.
pub(super) type Served = (ServeJob, Result<u32, ServeFailure>);

/// Why a session's tasks ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error("the stream ended")]
    Ended,
    #[error("the stream failed: {0}")]
    Io(std::io::Error),
    #[error("the peer does not speak our protocol")]
    Foreign,
    #[error("the peer broke the protocol: {0}")]
    Protocol(#[from] DecodeError),
    #[error("the peer opened a stream of unknown kind {0}")]
    StreamKind(u8),
    #[error("the peer opened a stream and did not say what for")]
    NothingSaid,
    #[error("the peer opened more streams than a session has")]
    TooManyStreams,
    #[error("the peer began a {0} and did not go on with it")]
    Stalled(&'static str),
    #[error("the peer does not read its {0}")]
    NotRead(&'static str),
    /// The engine judged what came, and says why itself.
    #[error("the peer broke the protocol")]
    Refused,
    #[error("the node ended")]
    NodeEnded,
}

impl From<std::io::Error> for SessionError {
    /// A stream's protocol is agreed on with its first bytes, so that the first read may be told that there is none.
    fn from(error: std::io::Error) -> Self {
        let negotiation = error
            .get_ref()
            .and_then(|cause| cause.downcast_ref::<NegotiationError>());
        if matches!(negotiation, Some(NegotiationError::Failed)) {
            Self::Foreign
        } else {
            Self::Io(error)
        }
    }
}

impl SessionError {
    /// Whether the peer is to blame.
    fn is_offence(&self) -> bool {
        !matches!(self, Self::Ended | Self::Io(_) | Self::NodeEnded)
    }
}

/// Why a session ended: said once, by the one who ends it.
#[derive(Debug, thiserror::Error)]
pub(super) enum EndReason {
    #[error(transparent)]
    Streams(#[from] SessionError),
    #[error(transparent)]
    Engine(DisconnectReason),
    #[error("the connection closed")]
    Closed,
    #[error("another session with the peer took its place")]
    Replaced,
}

impl EndReason {
    /// Whether the peer is to blame.
    pub(super) fn is_offence(&self) -> bool {
        match self {
            Self::Streams(error) => error.is_offence(),
            Self::Engine(reason) => matches!(reason, DisconnectReason::Violation(_)),
            Self::Closed | Self::Replaced => false,
        }
    }
}
