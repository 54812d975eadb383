//! Streams and the blocks on them.

use super::codec::{DecodeError, put_cid, put_varint};
use super::limits::{MAX_PAYLOAD_LEN, MAX_SKELETON_NODES};
use super::message::{Handle, RequestId};
use super::reader::Reader;
use crate::format::Cid;

/// What a stream is for: its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// Control messages, both ways. The dialler of the connection opens it.
    Control,
    /// Blocks, from the side that opened the stream.
    Bulk,
}

impl StreamKind {
    /// The byte.
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Control => 1,
            Self::Bulk => 2,
        }
    }

    /// The kind behind a byte; nothing if there is none.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Control),
            2 => Some(Self::Bulk),
            _ => None,
        }
    }
}

/// Which block of a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// A piece, by its index in the content's piece map.
    Piece(u32),
    /// A block that was asked for by CID.
    Block {
        /// The request.
        request: RequestId,
        /// The position in it, from 0.
        position: u16,
    },
    /// A node that was not named in the `WantSkeleton` behind which it comes.
    Node {
        /// The request.
        request: RequestId,
        /// The node.
        cid: Cid,
        /// How many come after it, less than [`super::limits::MAX_SKELETON_NODES`].
        more: u16,
    },
}

/// How a payload lies on the wire. Others than plain are used only after both sides named them in their `Hello`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// The block's bytes.
    Plain,
    /// One of an extension.
    Other(u32),
}

/// What stands before a block's payload on a bulk stream. The handle is the receiver's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BulkHeader {
    /// The handle.
    pub handle: Handle,
    /// Which block.
    pub what: What,
    /// How the payload is encoded.
    pub encoding: Encoding,
    /// Bytes of payload, 1 to [`MAX_PAYLOAD_LEN`].
    pub len: u32,
}

impl BulkHeader {
    /// Appends the header to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self.what {
            What::Piece(piece) => {
                out.push(0);
                put_varint(out, self.handle.0);
                put_varint(out, piece);
            }
            What::Block { request, position } => {
                out.push(1);
                put_varint(out, self.handle.0);
                put_varint(out, request.0);
                put_varint(out, u32::from(position));
            }
            What::Node { request, cid, more } => {
                out.push(2);
                put_varint(out, self.handle.0);
                put_varint(out, request.0);
                put_cid(out, &cid);
                put_varint(out, u32::from(more));
            }
        }
        put_varint(
            out,
            match self.encoding {
                Encoding::Plain => 0,
                Encoding::Other(n) => n,
            },
        );
        put_varint(out, self.len);
    }

    /// Reads a header at the start of `bytes`: the header and how many bytes it took, or nothing if more bytes are needed
    /// (never once [`super::limits::MAX_BULK_HEADER_LEN`] bytes are there).
    ///
    /// # Errors
    /// When the bytes cannot be a header.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, DecodeError> {
        let mut reader = Reader::new(bytes);
        match Self::read(&mut reader) {
            Ok(header) => Ok(Some((header, reader.position()))),
            Err(DecodeError::Truncated) => Ok(None),
            Err(other) => Err(other),
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let kind = reader.byte()?;
        let handle = Handle(reader.varint()?);
        let what = match kind {
            0 => What::Piece(reader.varint()?),
            1 => {
                let request = RequestId(reader.varint()?);
                let position = reader.varint()?;
                let position = u16::try_from(position).map_err(|_| DecodeError::OutOfRange("position"))?;
                What::Block { request, position }
            }
            2 => {
                let request = RequestId(reader.varint()?);
                let cid = reader.cid()?;
                let more = reader.varint()?;
                if more >= MAX_SKELETON_NODES {
                    return Err(DecodeError::OutOfRange("nodes to come"));
                }
                let more = more as u16;
                What::Node { request, cid, more }
            }
            _ => return Err(DecodeError::OutOfRange("kind of block")),
        };
        let encoding = match reader.varint()? {
            0 => Encoding::Plain,
            n => Encoding::Other(n),
        };
        let len = reader.varint()?;
        if len == 0 || len > MAX_PAYLOAD_LEN {
            return Err(DecodeError::OutOfRange("length of payload"));
        }
        Ok(Self {
            handle,
            what,
            encoding,
            len,
        })
    }
}
