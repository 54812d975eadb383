//! Fields off bytes, each judged before memory is taken for it.

use super::codec::DecodeError;
use super::have::Run;
use super::limits::{MAX_CIDS, MAX_PEER_ADDR_LEN, MAX_PEER_ADDRS, MAX_PEER_ID_LEN, MAX_PIECES, MAX_VARINT_LEN};
use super::message::{Handle, KnownPeer, RequestId};
use crate::format::{Cid, Codec, HashKind};

/// Reads fields off a slice.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    pub(super) fn take_rest(&mut self) -> &'a [u8] {
        let rest = self.rest();
        self.at = self.bytes.len();
        rest
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let taken = self.rest().get(..len).ok_or(DecodeError::Truncated)?;
        self.at += len;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn varint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0u64;
        for i in 0..MAX_VARINT_LEN {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                // A last byte of zero is a longer way to say the same.
                if byte == 0 && i > 0 {
                    return Err(DecodeError::Varint);
                }
                return u32::try_from(value).map_err(|_| DecodeError::Varint);
            }
        }
        Err(DecodeError::Varint)
    }

    pub(super) fn handle(&mut self) -> Result<Handle, DecodeError> {
        self.varint().map(Handle)
    }

    pub(super) fn count(&mut self, max: usize, what: &'static str) -> Result<usize, DecodeError> {
        let count = self.varint()? as usize;
        if count > max {
            return Err(DecodeError::TooMany(what));
        }
        // Nothing is shorter than a byte, so that a list cannot be longer than what is left.
        if count > self.rest().len() {
            return Err(DecodeError::Truncated);
        }
        Ok(count)
    }

    pub(super) fn bytes(&mut self, max: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = self.count(max, what)?;
        self.take(len)
    }

    /// Bytes of which there is at least one.
    fn some_bytes(&mut self, max: usize, what: &'static str) -> Result<Box<[u8]>, DecodeError> {
        match self.bytes(max, what)? {
            [] => Err(DecodeError::OutOfRange(what)),
            bytes => Ok(bytes.into()),
        }
    }

    pub(super) fn peer(&mut self) -> Result<KnownPeer, DecodeError> {
        let id = self.some_bytes(MAX_PEER_ID_LEN, "peer ID")?;
        let flags = self.varint()?;
        let count = self.count(MAX_PEER_ADDRS, "addresses")?;
        let mut addrs = Vec::with_capacity(count);
        for _ in 0..count {
            addrs.push(self.some_bytes(MAX_PEER_ADDR_LEN, "address")?);
        }
        Ok(KnownPeer { id, flags, addrs })
    }

    pub(super) fn text(&mut self, max: usize, what: &'static str) -> Result<String, DecodeError> {
        let bytes = self.bytes(max, what)?;
        std::str::from_utf8(bytes)
            .map(str::to_owned)
            .map_err(|_| DecodeError::Text)
    }

    pub(super) fn cid(&mut self) -> Result<Cid, DecodeError> {
        let codec = match self.byte()? {
            0x55 => Codec::Raw,
            0x70 => Codec::DagPb,
            _ => return Err(DecodeError::Cid),
        };
        let hash = match self.byte()? {
            0x1e => HashKind::Blake3,
            0x12 => HashKind::Sha2_256,
            _ => return Err(DecodeError::Cid),
        };
        let mut digest = [0; 32];
        digest.copy_from_slice(self.take(32)?);
        Ok(Cid::new(codec, hash, digest))
    }

    pub(super) fn cids(&mut self) -> Result<(Handle, RequestId, Vec<Cid>), DecodeError> {
        let handle = self.handle()?;
        let request = RequestId(self.varint()?);
        let count = self.count(MAX_CIDS, "content IDs")?;
        let mut cids = Vec::with_capacity(count);
        for _ in 0..count {
            cids.push(self.cid()?);
        }
        Ok((handle, request, cids))
    }

    pub(super) fn runs(&mut self, max: usize) -> Result<Vec<Run>, DecodeError> {
        let count = self.count(max, "runs")?;
        if count > self.rest().len() / 2 {
            return Err(DecodeError::Truncated);
        }
        let mut runs = Vec::with_capacity(count);
        let mut end = 0u32;
        for _ in 0..count {
            let start = end.checked_add(self.varint()?).ok_or(DecodeError::OutOfRange("run"))?;
            let len = self.varint()?.checked_add(1).ok_or(DecodeError::OutOfRange("run"))?;
            let run = Run { start, len };
            end = start.checked_add(len).ok_or(DecodeError::OutOfRange("run"))?;
            if end > MAX_PIECES {
                return Err(DecodeError::OutOfRange("run"));
            }
            runs.push(run);
        }
        Ok(runs)
    }
}
