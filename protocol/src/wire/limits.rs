//! Every bound on what a peer may send. A frame is refused by its length alone, before anything is allocated for it.

use std::time::Duration;

use crate::format::MAX_BLOCK_LEN;

/// Most pieces that a content may have and still be traded by index: 2^24, which is a terabyte at the default average.
pub const MAX_PIECES: u32 = 1 << 24;
/// Most bytes of a control frame, without its length prefix. Only [`super::Message::Opened`] may be longer, because it carries a have-map.
pub const MAX_FRAME_LEN: usize = 64 * 1024;
/// Most bytes of an `Opened` frame, without its length prefix: a bitmap over [`MAX_PIECES`] and its head.
pub const MAX_OPENED_LEN: usize = MAX_PIECES as usize / 8 + 64;
/// Most bytes of a `Hello` frame: all that is accepted before the peer has named its network.
pub const MAX_HELLO_LEN: usize = 4 * 1024;
/// Most bytes of a varint: 32 bits' worth.
pub const MAX_VARINT_LEN: usize = 5;
/// Most bytes of the agent text in a `Hello`.
pub const MAX_AGENT_LEN: usize = 64;
/// Most extensions in a `Hello`.
pub const MAX_EXTENSIONS: usize = 32;
/// Most bytes of an extension's name.
pub const MAX_EXTENSION_NAME_LEN: usize = 32;
/// Most bytes of an extension's value.
pub const MAX_EXTENSION_VALUE_LEN: usize = 64;
/// Most CIDs in one `WantNodes`, `WantSkeleton` or `RequestCids`.
pub const MAX_CIDS: usize = 64;
/// Most runs in one `Request`, `Cancel`, `Have`, `Lost` or `Rejected`.
pub const MAX_RUNS: usize = 1024;
/// Most handles that one side may hold open on a connection.
pub const MAX_HANDLES: usize = 512;
/// Most pieces that may be requested on a connection and not yet answered, over all handles.
pub const MAX_QUEUED_PIECES: u32 = 16 * 1024;
/// Most blocks by CID that may be requested on a connection and not yet answered, over all handles.
pub const MAX_QUEUED_CIDS: usize = 512;
/// Most peers in one `Peers`.
pub const MAX_PEERS: usize = 50;
/// Most addresses of one peer in a `Peers`.
pub const MAX_PEER_ADDRS: usize = 4;
/// Most bytes of a peer's ID in a `Peers`.
pub const MAX_PEER_ID_LEN: usize = 64;
/// Most bytes of one address in a `Peers`.
pub const MAX_PEER_ADDR_LEN: usize = 128;
/// Most bytes of a `Peers` frame, without its length prefix.
pub const MAX_PEERS_LEN: usize =
    3 * MAX_VARINT_LEN + MAX_PEERS * (2 + MAX_PEER_ID_LEN + MAX_VARINT_LEN + MAX_PEER_ADDRS * (2 + MAX_PEER_ADDR_LEN));
/// Most nodes that come behind one `WantSkeleton` without being named in it…
pub const MAX_SKELETON_NODES: u32 = 256;
/// …and most bytes of them.
pub const MAX_SKELETON_BYTES: u64 = 1024 * 1024;
/// Bytes of a CID on the wire: its codec, its hash, the digest.
pub const CID_LEN: usize = 2 + 32;
/// Most bytes of a block's header on a bulk stream.
pub const MAX_BULK_HEADER_LEN: usize = 1 + CID_LEN + 4 * MAX_VARINT_LEN;
/// Most bytes of a block's payload on a bulk stream.
pub const MAX_PAYLOAD_LEN: u32 = MAX_BLOCK_LEN as u32;
/// A connection whose `Hello` has not come after this long is closed.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(20);
