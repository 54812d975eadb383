//! Frames and bodies: bytes to messages and back.

use thiserror::Error;

use super::have::{Have, HaveMap, Run};
use super::limits::{
    MAX_AGENT_LEN, MAX_CIDS, MAX_EXTENSION_NAME_LEN, MAX_EXTENSION_VALUE_LEN, MAX_EXTENSIONS, MAX_FRAME_LEN,
    MAX_HELLO_LEN, MAX_OPENED_LEN, MAX_PEERS, MAX_PEERS_LEN, MAX_RUNS,
};
use super::message::{CloseReason, Extension, Handle, Hello, Message, NetworkId, RejectReason, Rejection, RequestId};
use super::reader::Reader;
use crate::format::Cid;

/// Why bytes are not a message. All of them end the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// A body ends before its last field.
    #[error("message ends early")]
    Truncated,
    /// Bytes follow the last field.
    #[error("bytes follow the message")]
    Trailing,
    /// A varint of over 32 bits, or longer than it need be.
    #[error("varint too long")]
    Varint,
    /// A frame over the bound for its type.
    #[error("frame of {len} bytes is over the bound of {max}")]
    FrameTooLong {
        /// Bytes announced.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A list or string over its bound.
    #[error("{0} over its bound")]
    TooMany(&'static str),
    /// A number that no field may have.
    #[error("{0} out of range")]
    OutOfRange(&'static str),
    /// Text that is not UTF-8.
    #[error("text is not UTF-8")]
    Text,
    /// A CID that modswarm cannot verify.
    #[error("a content ID that cannot be verified")]
    Cid,
}

/// The numbers of the message types.
mod kind {
    pub(super) const HELLO: u32 = 0;
    pub(super) const OPEN: u32 = 1;
    pub(super) const OPENED: u32 = 2;
    pub(super) const REJECTED: u32 = 3;
    pub(super) const WANT_NODES: u32 = 4;
    pub(super) const REQUEST: u32 = 5;
    pub(super) const REQUEST_CIDS: u32 = 6;
    pub(super) const CANCEL: u32 = 7;
    pub(super) const CLOSE: u32 = 8;
    pub(super) const CLOSED: u32 = 9;
    pub(super) const HAVE: u32 = 10;
    pub(super) const LOST: u32 = 11;
    pub(super) const CHOKE: u32 = 12;
    pub(super) const UNCHOKE: u32 = 13;
    pub(super) const PEERS: u32 = 14;
    pub(super) const OFFER: u32 = 15;
    pub(super) const RELEASE: u32 = 16;
    pub(super) const WANT_SKELETON: u32 = 17;
    pub(super) const PACE: u32 = 18;
}

/// A whole frame at the start of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Type and body: what [`Message::decode`] reads.
    pub message: &'a [u8],
    /// Bytes of the buffer that the frame takes, length prefix included.
    pub consumed: usize,
}

/// Finds the first frame in `buffer`; nothing if it is not whole yet. Its length is judged, by its type, as soon as both can
/// be read, so that a buffer never need grow past the bound ([`MAX_OPENED_LEN`] plus the prefix).
///
/// # Errors
/// When the frame is longer than its type allows.
pub fn split_frame(buffer: &[u8]) -> Result<Option<Frame<'_>>, DecodeError> {
    let mut reader = Reader::new(buffer);
    let len = match reader.varint() {
        Ok(len) => len as usize,
        Err(DecodeError::Truncated) => return Ok(None),
        Err(other) => return Err(other),
    };
    let start = reader.position();
    if len > MAX_OPENED_LEN {
        return Err(DecodeError::FrameTooLong {
            len,
            max: MAX_OPENED_LEN,
        });
    }
    if len == 0 {
        return Err(DecodeError::Truncated);
    }
    match reader.varint() {
        Ok(kind) => {
            let max = match kind {
                kind::HELLO => MAX_HELLO_LEN,
                kind::OPENED => MAX_OPENED_LEN,
                kind::PEERS => MAX_PEERS_LEN,
                _ => MAX_FRAME_LEN,
            };
            if len > max {
                return Err(DecodeError::FrameTooLong { len, max });
            }
        }
        Err(DecodeError::Truncated) => {}
        Err(other) => return Err(other),
    }
    Ok(buffer.get(start..start + len).map(|message| Frame {
        message,
        consumed: start + len,
    }))
}

impl Message {
    /// Appends the message as a frame, with its length prefix, to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut body = Vec::with_capacity(64);
        self.encode_body(&mut body);
        put_varint(out, body.len() as u32);
        out.extend_from_slice(&body);
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => {
                put_varint(out, kind::HELLO);
                out.extend_from_slice(&hello.network.0);
                put_bytes(out, hello.agent.as_bytes());
                put_varint(out, hello.extensions.len() as u32);
                for extension in &hello.extensions {
                    put_bytes(out, extension.name.as_bytes());
                    put_bytes(out, &extension.value);
                }
            }
            Self::Open { handle, root } => {
                put_head(out, kind::OPEN, *handle);
                put_cid(out, root);
            }
            Self::Opened { handle, have } => {
                put_head(out, kind::OPENED, *handle);
                match have {
                    Have::None => out.push(0),
                    Have::All => out.push(1),
                    Have::Map(HaveMap::Bits(bytes)) => {
                        out.push(2);
                        out.extend_from_slice(bytes);
                    }
                    Have::Map(HaveMap::Runs(runs)) => {
                        out.push(3);
                        put_runs(out, runs);
                    }
                }
            }
            Self::Rejected { handle, what, reason } => {
                put_head(out, kind::REJECTED, *handle);
                put_varint(
                    out,
                    match reason {
                        RejectReason::NotFound => 0,
                        RejectReason::Choked => 1,
                        RejectReason::Busy => 2,
                        RejectReason::Released => 3,
                        RejectReason::Other(n) => *n,
                    },
                );
                match what {
                    Rejection::Open => out.push(0),
                    Rejection::Pieces(runs) => {
                        out.push(1);
                        put_runs(out, runs);
                    }
                    Rejection::Blocks { request, positions } => {
                        out.push(2);
                        put_varint(out, request.0);
                        put_varint(out, positions.len() as u32);
                        for position in positions {
                            put_varint(out, u32::from(*position));
                        }
                    }
                }
            }
            Self::WantNodes { handle, request, cids } => put_cids(out, kind::WANT_NODES, *handle, *request, cids),
            Self::WantSkeleton { handle, request, cids } => put_cids(out, kind::WANT_SKELETON, *handle, *request, cids),
            Self::RequestCids { handle, request, cids } => put_cids(out, kind::REQUEST_CIDS, *handle, *request, cids),
            Self::Request { handle, runs } => put_head_runs(out, kind::REQUEST, *handle, runs),
            Self::Cancel { handle, runs } => put_head_runs(out, kind::CANCEL, *handle, runs),
            Self::Have { handle, runs } => put_head_runs(out, kind::HAVE, *handle, runs),
            Self::Lost { handle, runs } => put_head_runs(out, kind::LOST, *handle, runs),
            Self::Offer { handle, runs } => put_head_runs(out, kind::OFFER, *handle, runs),
            Self::Release { handle, runs } => put_head_runs(out, kind::RELEASE, *handle, runs),
            Self::Close { handle } => put_head(out, kind::CLOSE, *handle),
            Self::Closed { handle, reason } => {
                put_head(out, kind::CLOSED, *handle);
                put_varint(
                    out,
                    match reason {
                        CloseReason::Removed => 0,
                        CloseReason::ShuttingDown => 1,
                        CloseReason::Other(n) => *n,
                    },
                );
            }
            Self::Peers { handle, peers } => {
                put_head(out, kind::PEERS, *handle);
                put_varint(out, peers.len() as u32);
                for peer in peers {
                    put_bytes(out, &peer.id);
                    put_varint(out, peer.flags);
                    put_varint(out, peer.addrs.len() as u32);
                    for addr in &peer.addrs {
                        put_bytes(out, addr);
                    }
                }
            }
            Self::Pace { handle, rate } => {
                put_varint(out, kind::PACE);
                match handle {
                    None => out.push(0),
                    Some(handle) => {
                        out.push(1);
                        put_varint(out, handle.0);
                    }
                }
                put_varint(out, *rate);
            }
            Self::Choke => put_varint(out, kind::CHOKE),
            Self::Unchoke => put_varint(out, kind::UNCHOKE),
        }
    }

    /// Reads what [`Frame::message`] holds; nothing if the type is unknown, which is to be skipped.
    ///
    /// Takes memory in proportion to `message`, never to what numbers in it say.
    ///
    /// # Errors
    /// When the type is known and the body is not one of it.
    pub fn decode(message: &[u8]) -> Result<Option<Self>, DecodeError> {
        let mut reader = Reader::new(message);
        let Some(message) = Self::read(&mut reader)? else {
            return Ok(None);
        };
        if !reader.rest().is_empty() {
            return Err(DecodeError::Trailing);
        }
        Ok(Some(message))
    }

    fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        let message = match reader.varint()? {
            kind::HELLO => Self::Hello(read_hello(reader)?),
            kind::OPEN => Self::Open {
                handle: reader.handle()?,
                root: reader.cid()?,
            },
            kind::OPENED => {
                let handle = reader.handle()?;
                let have = match reader.byte()? {
                    0 => Have::None,
                    1 => Have::All,
                    2 => Have::Map(HaveMap::Bits(reader.take_rest().to_vec())),
                    3 => Have::Map(HaveMap::Runs(reader.runs(usize::MAX)?)),
                    _ => return Err(DecodeError::OutOfRange("kind of have-map")),
                };
                Self::Opened { handle, have }
            }
            kind::REJECTED => {
                let handle = reader.handle()?;
                let reason = match reader.varint()? {
                    0 => RejectReason::NotFound,
                    1 => RejectReason::Choked,
                    2 => RejectReason::Busy,
                    3 => RejectReason::Released,
                    n => RejectReason::Other(n),
                };
                let what = match reader.byte()? {
                    0 => Rejection::Open,
                    1 => Rejection::Pieces(reader.runs(MAX_RUNS)?),
                    2 => {
                        let request = RequestId(reader.varint()?);
                        let count = reader.count(MAX_CIDS, "positions")?;
                        let mut positions = Vec::with_capacity(count);
                        for _ in 0..count {
                            let position = reader.varint()?;
                            if position as usize >= MAX_CIDS {
                                return Err(DecodeError::OutOfRange("position"));
                            }
                            positions.push(position as u16);
                        }
                        Rejection::Blocks { request, positions }
                    }
                    _ => return Err(DecodeError::OutOfRange("kind of rejection")),
                };
                Self::Rejected { handle, what, reason }
            }
            kind::WANT_NODES => {
                let (handle, request, cids) = reader.cids()?;
                Self::WantNodes { handle, request, cids }
            }
            kind::WANT_SKELETON => {
                let (handle, request, cids) = reader.cids()?;
                Self::WantSkeleton { handle, request, cids }
            }
            kind::REQUEST_CIDS => {
                let (handle, request, cids) = reader.cids()?;
                Self::RequestCids { handle, request, cids }
            }
            kind::REQUEST => Self::Request {
                handle: reader.handle()?,
                runs: reader.runs(MAX_RUNS)?,
            },
            kind::CANCEL => Self::Cancel {
                handle: reader.handle()?,
                runs: reader.runs(MAX_RUNS)?,
            },
            kind::HAVE => Self::Have {
                handle: reader.handle()?,
                runs: reader.runs(MAX_RUNS)?,
            },
            kind::LOST => Self::Lost {
                handle: reader.handle()?,
                runs: reader.runs(MAX_RUNS)?,
            },
            kind::CLOSE => Self::Close {
                handle: reader.handle()?,
            },
            kind::CLOSED => {
                let handle = reader.handle()?;
                let reason = match reader.varint()? {
                    0 => CloseReason::Removed,
                    1 => CloseReason::ShuttingDown,
                    n => CloseReason::Other(n),
                };
                Self::Closed { handle, reason }
            }
            kind::PEERS => {
                let handle = reader.handle()?;
                let count = reader.count(MAX_PEERS, "peers")?;
                let mut peers = Vec::with_capacity(count);
                for _ in 0..count {
                    peers.push(reader.peer()?);
                }
                Self::Peers { handle, peers }
            }
            kind::RELEASE => Self::Release {
                handle: reader.handle()?,
                runs: reader.runs(MAX_RUNS)?,
            },
            kind::PACE => Self::Pace {
                handle: match reader.byte()? {
                    0 => None,
                    1 => Some(reader.handle()?),
                    _ => return Err(DecodeError::OutOfRange("kind of pace")),
                },
                rate: reader.varint()?,
            },
            kind::OFFER => Self::Offer {
                handle: reader.handle()?,
                runs: reader.runs(MAX_RUNS)?,
            },
            kind::CHOKE => Self::Choke,
            kind::UNCHOKE => Self::Unchoke,
            _ => return Ok(None),
        };
        Ok(Some(message))
    }
}

fn read_hello(reader: &mut Reader<'_>) -> Result<Hello, DecodeError> {
    let mut network = [0; 32];
    network.copy_from_slice(reader.take(32)?);
    let agent = reader.text(MAX_AGENT_LEN, "agent")?;
    let count = reader.count(MAX_EXTENSIONS, "extensions")?;
    let mut extensions: Vec<Extension> = Vec::with_capacity(count);
    for _ in 0..count {
        let name = reader.text(MAX_EXTENSION_NAME_LEN, "extension name")?;
        let value = reader.bytes(MAX_EXTENSION_VALUE_LEN, "extension value")?.to_vec();
        if extensions.iter().any(|known| known.name == name) {
            return Err(DecodeError::OutOfRange("extension named twice"));
        }
        extensions.push(Extension { name, value });
    }
    Ok(Hello {
        network: NetworkId(network),
        agent,
        extensions,
    })
}

/// Appends `value` as an unsigned LEB128 varint.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_len(value: u32) -> usize {
    (32 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u32);
    out.extend_from_slice(bytes);
}

fn put_head(out: &mut Vec<u8>, kind: u32, handle: Handle) {
    put_varint(out, kind);
    put_varint(out, handle.0);
}

pub(super) fn put_cid(out: &mut Vec<u8>, cid: &Cid) {
    // Codec and hash as codes of one byte each, then the digest: version and digest length are always the same.
    out.push(cid.codec().code() as u8);
    out.push(cid.hash().code() as u8);
    out.extend_from_slice(cid.digest());
}

fn put_cids(out: &mut Vec<u8>, kind: u32, handle: Handle, request: RequestId, cids: &[Cid]) {
    put_head(out, kind, handle);
    put_varint(out, request.0);
    put_varint(out, cids.len() as u32);
    for cid in cids {
        put_cid(out, cid);
    }
}

fn put_head_runs(out: &mut Vec<u8>, kind: u32, handle: Handle, runs: &[Run]) {
    put_head(out, kind, handle);
    put_runs(out, runs);
}

/// Runs as (gap since the end of the one before, length less one), which makes every number small.
fn put_runs(out: &mut Vec<u8>, runs: &[Run]) {
    put_varint(out, runs.len() as u32);
    let mut end = 0;
    for run in runs {
        debug_assert!(run.start >= end && run.len > 0, "runs ascend and do not overlap");
        put_varint(out, run.start.wrapping_sub(end));
        put_varint(out, run.len.wrapping_sub(1));
        end = run.end();
    }
}

/// Bytes that [`put_runs`] takes.
pub(super) fn runs_len(runs: &[Run]) -> usize {
    let mut end = 0;
    let mut len = varint_len(runs.len() as u32);
    for run in runs {
        len += varint_len(run.start.wrapping_sub(end)) + varint_len(run.len.wrapping_sub(1));
        end = run.end();
    }
    len
}
