//! The control messages.

use std::fmt;

use super::have::{Have, Run};
use crate::format::Cid;

/// The name of the protocol on a stream.
pub const PROTOCOL: &str = "/modswarm/swap/1";

/// Names a content on one connection; chosen by the side that opened it, and never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(pub u32);

/// Names one `WantNodes`, `WantSkeleton` or `RequestCids` on one handle; chosen by the leecher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u32);

/// The network that a node is in. Peers of different networks do not talk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkId(pub [u8; 32]);

impl NetworkId {
    /// The public network.
    pub const PUBLIC: Self = Self::named(b"public");
    /// This LAN.
    pub const LAN: Self = Self::named(b"lan");
    /// A private network without a key.
    pub const PRIVATE: Self = Self([0; 32]);

    const fn named(name: &[u8]) -> Self {
        let mut id = [0; 32];
        let mut i = 0;
        while i < name.len() {
            id[i] = name[i];
            i += 1;
        }
        Self(id)
    }
}

impl fmt::Debug for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::PUBLIC => f.write_str("public"),
            Self::LAN => f.write_str("lan"),
            Self::PRIVATE => f.write_str("private"),
            Self(id) => write!(f, "private-{:02x}{:02x}{:02x}{:02x}", id[0], id[1], id[2], id[3]),
        }
    }
}

/// The first message, from each side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The sender's network.
    pub network: NetworkId,
    /// The sender's program and version: for people to read, never to decide by.
    pub agent: String,
    /// What the sender can do beyond this document. Names that the receiver does not know are ignored.
    pub extensions: Vec<Extension>,
}

/// One entry of the extension map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Its name; each at most once in a `Hello`.
    pub name: String,
    /// Its parameters.
    pub value: Vec<u8>,
}

impl Extension {
    /// The name of peer exchange: who does not name it is sent no [`Message::Peers`].
    pub const PEER_EXCHANGE: &'static str = "pex";
    /// The name of whole skeletons: who does not name it passes over [`Message::WantSkeleton`].
    pub const SKELETONS: &'static str = "skeleton";
}

/// A peer as another one names it. Nothing of it is to be believed before it was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownPeer {
    /// Its peer ID, in binary: 1 to [`super::limits::MAX_PEER_ID_LEN`] bytes.
    pub id: Box<[u8]>,
    /// Bits of which only [`KnownPeer::SEED`] means something today.
    pub flags: u32,
    /// Where it can be dialled: up to [`super::limits::MAX_PEER_ADDRS`] multiaddrs in binary, each of 1 to
    /// [`super::limits::MAX_PEER_ADDR_LEN`] bytes. Those that the receiver cannot read are to be passed over.
    pub addrs: Vec<Box<[u8]>>,
}

impl KnownPeer {
    /// The flag of one that had everything; without it, it was fetching.
    pub const SEED: u32 = 1;
}

/// Why something was refused. None of them is an offence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectReason {
    /// The sender does not have it (or not for this network), or knows no such handle.
    NotFound,
    /// The sender is choking the receiver.
    Choked,
    /// The sender has as much to do as it takes on.
    Busy,
    /// The receiver asked for it to be released.
    Released,
    /// A reason of a later version.
    Other(u32),
}

/// What was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The handle was not opened.
    Open,
    /// These pieces will not be sent unless they are requested again.
    Pieces(Vec<Run>),
    /// The blocks at these positions of a request by CID will not be sent.
    Blocks {
        /// The request.
        request: RequestId,
        /// Positions in it, from 0. None: what a [`Message::WantSkeleton`] did not name.
        positions: Vec<u16>,
    },
}

/// Why the server closed a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The content was removed at the server.
    Removed,
    /// The server goes away.
    ShuttingDown,
    /// A reason of a later version.
    Other(u32),
}

/// A control message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The first message of each side.
    Hello(Hello),
    /// Leecher: opens a content by its content CID, or a pack by its pack CID (through which only nodes are fetched).
    Open {
        /// A number that the leecher has not used on this connection.
        handle: Handle,
        /// Content CID or pack CID.
        root: Cid,
    },
    /// Server: the handle is open, and this is what the server has. Pieces are numbered by the content's piece map.
    Opened {
        /// The handle.
        handle: Handle,
        /// What the server has; [`Have::None`] for a pack CID.
        have: Have,
    },
    /// Server: something that was asked for will not come.
    Rejected {
        /// The handle.
        handle: Handle,
        /// What.
        what: Rejection,
        /// Why.
        reason: RejectReason,
    },
    /// Leecher: wants nodes of the skeleton. Served even while choked.
    WantNodes {
        /// The handle.
        handle: Handle,
        /// The request's number.
        request: RequestId,
        /// Up to [`super::limits::MAX_CIDS`].
        cids: Vec<Cid>,
    },
    /// Leecher: wants these nodes, as by [`Message::WantNodes`], and all others of the skeleton if they are few
    /// ([`super::limits::MAX_SKELETON_NODES`], [`super::limits::MAX_SKELETON_BYTES`]): the others come unnamed, as [`super::What::Node`]. If they are not to
    /// come, an empty [`Rejection::Blocks`] says so.
    WantSkeleton {
        /// The handle.
        handle: Handle,
        /// The request's number.
        request: RequestId,
        /// Up to [`super::limits::MAX_CIDS`].
        cids: Vec<Cid>,
    },
    /// Leecher: wants pieces. Each is answered by a block or by a rejection, or taken back by a cancel.
    Request {
        /// The handle.
        handle: Handle,
        /// Up to [`super::limits::MAX_RUNS`].
        runs: Vec<Run>,
    },
    /// Leecher: wants leaves by CID, which may lie in another content of the server.
    RequestCids {
        /// The handle.
        handle: Handle,
        /// The request's number.
        request: RequestId,
        /// Up to [`super::limits::MAX_CIDS`].
        cids: Vec<Cid>,
    },
    /// Leecher: no longer wants these pieces. What is under way comes all the same.
    Cancel {
        /// The handle.
        handle: Handle,
        /// Up to [`super::limits::MAX_RUNS`].
        runs: Vec<Run>,
    },
    /// Leecher: would have these pieces from others. Those that are not under way yet are rejected, with [`RejectReason::Released`]; the rest come.
    Release {
        /// The handle.
        handle: Handle,
        /// Up to [`super::limits::MAX_RUNS`].
        runs: Vec<Run>,
    },
    /// Leecher: would be sent blocks no faster than this. Advice: its own download limit is its own affair, but what is sent in small pieces over time
    /// comes in no bursts.
    Pace {
        /// The handle whose blocks are meant; none: those of all handles together.
        handle: Option<Handle>,
        /// Bytes a second; 0: as fast as the server likes, as in the beginning.
        rate: u32,
    },
    /// Leecher: gives the handle back. Its number is never used again on this connection.
    Close {
        /// The handle.
        handle: Handle,
    },
    /// Server: the handle is closed from its side.
    Closed {
        /// The handle.
        handle: Handle,
        /// Why.
        reason: CloseReason,
    },
    /// Server: has got these pieces since.
    Have {
        /// The handle.
        handle: Handle,
        /// Up to [`super::limits::MAX_RUNS`].
        runs: Vec<Run>,
    },
    /// Server: does not have these pieces any more; requests for them will not be answered.
    Lost {
        /// The handle.
        handle: Handle,
        /// Up to [`super::limits::MAX_RUNS`].
        runs: Vec<Run>,
    },
    /// Server: others who have, or fetch, the content behind the handle. Only to those who named
    /// [`Extension::PEER_EXCHANGE`] in their `Hello`.
    Peers {
        /// The handle.
        handle: Handle,
        /// Up to [`super::limits::MAX_PEERS`].
        peers: Vec<KnownPeer>,
    },
    /// Server: asks to be asked for these pieces only, and for those of earlier offers, until an empty offer lets the leecher choose again. Pieces that are
    /// not offered are served all the same.
    Offer {
        /// The handle.
        handle: Handle,
        /// Up to [`super::limits::MAX_RUNS`].
        runs: Vec<Run>,
    },
    /// Server: serves no pieces for now. Requests not yet under way are rejected one by one.
    Choke,
    /// Server: serves pieces. A connection starts choked.
    Unchoke,
}
