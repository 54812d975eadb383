//! How a segment is spelled, so that it can be read without the index.
//!
//! ```text
//! "modswarm segment" ‖ network (32 bytes)
//! record*: kind (1) ‖ length of the CID (1) ‖ CID ‖ length of the payload (8, little endian) ‖ payload
//! ```
//!
//! The payload of a leaf or a node is the block. That of a clone is a whole file, at the next multiple of [`ALIGN`] so that file systems can share its
//! blocks; the CID is then the file's, whose nodes are records too. Nothing is checked here but bounds: whoever uses a payload hashes it.

use std::io;

use modswarm_protocol::{Cid, format::MAX_BLOCK_LEN};

use crate::{
    backend::{BackendFile, Identity},
    packs::NetworkId,
};

/// What a segment begins with.
const MAGIC: &[u8; 16] = b"modswarm segment";
/// Bytes before the first record.
pub(crate) const FILE_HEADER: u64 = MAGIC.len() as u64 + 32;
/// Bytes of the longest CID.
const CID_MAX: usize = 64;
/// Bytes of the longest record before its payload.
const HEADER_MAX: usize = 2 + CID_MAX + 8;
/// Bytes that are looked through at a time for a record behind a damaged one.
const WINDOW: usize = 1 << 20;
/// File systems share whole blocks of this many bytes.
pub(crate) const ALIGN: u64 = 4096;
/// Bytes of a file that may be cloned into a segment.
const CLONE_MAX: u64 = 1 << 48;

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A leaf.
    Leaf,
    /// A node, pack.json or pack.sig.
    Node,
    /// A whole file, whose blocks are shared with the user's.
    Clone,
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    pub(crate) cid: Cid,
    /// Where the payload begins.
    pub(crate) at: u64,
    /// Bytes of the payload.
    pub(crate) len: u64,
}

impl Record {
    /// Where the next record begins.
    pub(crate) fn end(&self) -> u64 {
        self.at + self.len
    }
}

/// The bytes that a segment of `network` begins with.
pub(crate) fn file_header(network: &NetworkId) -> Vec<u8> {
    [&MAGIC[..], network].concat()
}

/// The network of the segment `file`; `None` if it is none.
pub(crate) fn read_file_header(file: &dyn BackendFile) -> io::Result<Option<NetworkId>> {
    let mut bytes = [0; FILE_HEADER as usize];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    }
    let (magic, network) = bytes.split_at(MAGIC.len());
    Ok(network.try_into().ok().filter(|_| magic == MAGIC))
}

/// The header of a record that begins at `start`, with where its payload is to be.
pub(crate) fn header(kind: Kind, cid: &Cid, len: u64, start: u64) -> (Vec<u8>, Record) {
    let cid_bytes = cid.to_bytes();
    let mut bytes = Vec::with_capacity(HEADER_MAX);
    bytes.push(match kind {
        Kind::Leaf => 1,
        Kind::Node => 2,
        Kind::Clone => 3,
    });
    bytes.push(cid_bytes.len() as u8);
    bytes.extend_from_slice(&cid_bytes);
    bytes.extend_from_slice(&len.to_le_bytes());
    let at = payload_at(kind, start + bytes.len() as u64);
    let cid = *cid;
    (bytes, Record { kind, cid, at, len })
}

/// Bytes that a record of `len` bytes of payload takes at most.
pub(crate) fn record_len(kind: Kind, cid: &Cid, len: u64) -> u64 {
    let header = 2 + cid.to_bytes().len() as u64 + 8;
    let padding = if kind == Kind::Clone { ALIGN - 1 } else { 0 };
    header + padding + len
}

/// Where the payload of a record lies whose header ends at `end`.
fn payload_at(kind: Kind, end: u64) -> u64 {
    match kind {
        Kind::Clone => end.next_multiple_of(ALIGN),
        Kind::Leaf | Kind::Node => end,
    }
}

/// Reads a header from the bytes at `start`; `None` if they make no sense or their payload does not end by `end`.
pub(crate) fn parse_header(bytes: &[u8], start: u64, end: u64) -> Option<Record> {
    let (&[kind, cid_len], rest) = bytes.split_first_chunk()?;
    let kind = match kind {
        1 => Kind::Leaf,
        2 => Kind::Node,
        3 => Kind::Clone,
        _ => return None,
    };
    let cid_len = usize::from(cid_len);
    let (cid, rest) = rest.split_at_checked(cid_len).filter(|_| cid_len <= CID_MAX)?;
    let cid = Cid::from_bytes(cid).ok()?;
    let len = u64::from_le_bytes(*rest.first_chunk()?);
    let bound = match kind {
        Kind::Clone => CLONE_MAX,
        Kind::Leaf | Kind::Node => MAX_BLOCK_LEN as u64,
    };
    let at = payload_at(kind, start.checked_add(2 + cid_len as u64 + 8)?);
    let fits = len <= bound && at.checked_add(len)? <= end;
    fits.then_some(Record { kind, cid, at, len })
}

/// The records of a segment's first `end` bytes, in order, as far as they make sense.
#[derive(Debug)]
pub(crate) struct Records<'a> {
    file: &'a dyn BackendFile,
    at: u64,
    end: u64,
}

impl<'a> Records<'a> {
    pub(crate) fn new(file: &'a dyn BackendFile, end: u64) -> Self {
        let at = FILE_HEADER;
        Self { file, at, end }
    }

    /// Goes on behind a record whose header has rotted, at the next bytes that look like one; says whether there are any. What looks like a record in the middle of
    /// a payload does no harm: its bytes do not hash to its CID, or are what it says.
    pub(crate) fn skip_damage(&mut self) -> io::Result<bool> {
        let mut window = vec![0; WINDOW];
        let mut from = self.at + 1;
        while from < self.end {
            let len = (self.end - from).min(WINDOW as u64) as usize;
            match self.file.read_exact_at(&mut window[..len], from) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                Err(e) => return Err(e),
            }
            let bytes = &window[..len];
            for at in 0..len {
                let header = &bytes[at..len.min(at + HEADER_MAX)];
                if parse_header(header, from + at as u64, self.end).is_some() {
                    self.at = from + at as u64;
                    return Ok(true);
                }
            }
            // A header may lie across the end of the window.
            let step = len.saturating_sub(HEADER_MAX).max(1);
            from += step as u64;
        }
        Ok(false)
    }
}

impl Iterator for Records<'_> {
    type Item = io::Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut bytes = [0; HEADER_MAX];
        let len = self.end.saturating_sub(self.at).min(HEADER_MAX as u64) as usize;
        if len == 0 {
            return None;
        }
        match self.file.read_exact_at(&mut bytes[..len], self.at) {
            Ok(()) => {}
            // Only the file's length says whether it ends there; a read that fails says nothing of what lies beyond.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                let longer = |now: Identity| now.size >= self.at + len as u64;
                return self.file.identity().is_ok_and(longer).then_some(Err(e));
            }
            Err(e) => return Some(Err(e)),
        }
        let record = parse_header(&bytes[..len], self.at, self.end)?;
        self.at = record.end();
        Some(Ok(record))
    }
}

#[cfg(test)]
mod tests {
    use modswarm_protocol::{Codec, HashKind};

    use super::*;

    #[test]
    fn headers_are_read_back_and_what_is_cut_off_is_not() {
        let cid = Cid::of(Codec::Raw, HashKind::Blake3, b"leaf");
        for (kind, start, len) in [(Kind::Leaf, 48, 4), (Kind::Node, 99, 0), (Kind::Clone, 5000, 1 << 33)] {
            let (bytes, record) = header(kind, &cid, len, start);
            assert_eq!(parse_header(&bytes, start, record.end()), Some(record));
            assert_eq!(parse_header(&bytes, start, record.end().saturating_sub(1)), None);
            for cut in 0..bytes.len() {
                assert_eq!(parse_header(&bytes[..cut], start, record.end()), None);
            }
            if kind == Kind::Clone {
                assert_eq!(record.at % ALIGN, 0);
            }
        }
    }

    #[test]
    fn a_leaf_longer_than_a_block_makes_no_sense() {
        let cid = Cid::of(Codec::Raw, HashKind::Blake3, b"leaf");
        let (bytes, record) = header(Kind::Leaf, &cid, MAX_BLOCK_LEN as u64 + 1, 48);
        assert_eq!(parse_header(&bytes, 48, record.end()), None);
    }
}
