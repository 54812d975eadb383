//! Content identifiers, parsed into a type that holds only what modswarm can verify.
//!
//! Source: the CID and multihash specifications (<https://github.com/multiformats/cid>). CIDv0 is read as its CIDv1 equivalent.

use std::{fmt, str::FromStr};

use cid::multihash::Multihash;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use thiserror::Error;

/// The hash function of a [`Cid`]. Both give 256 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HashKind {
    /// BLAKE3-256, multihash code 0x1e. The default.
    #[default]
    Blake3,
    /// SHA2-256, multihash code 0x12, for tools that do not read BLAKE3.
    Sha2_256,
}

const EMPTY_BLAKE3: [u8; 32] = [
    0xaf, 0x13, 0x49, 0xb9, 0xf5, 0xf9, 0xa1, 0xa6, 0xa0, 0x40, 0x4d, 0xea, 0x36, 0xdc, 0xc9, 0x49, 0x9b, 0xcb, 0x25,
    0xc9, 0xad, 0xc1, 0x12, 0xb7, 0xcc, 0x9a, 0x93, 0xca, 0xe4, 0x1f, 0x32, 0x62,
];
const EMPTY_SHA2_256: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41,
    0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

impl HashKind {
    /// The multihash code.
    pub const fn code(self) -> u64 {
        match self {
            Self::Blake3 => 0x1e,
            Self::Sha2_256 => 0x12,
        }
    }

    /// Hashes `bytes`.
    pub fn digest(self, bytes: &[u8]) -> [u8; 32] {
        match self {
            Self::Blake3 => *blake3::hash(bytes).as_bytes(),
            Self::Sha2_256 => sha2::Sha256::digest(bytes).into(),
        }
    }

    /// What it makes of no bytes.
    pub const fn empty_digest(self) -> &'static [u8; 32] {
        match self {
            Self::Blake3 => &EMPTY_BLAKE3,
            Self::Sha2_256 => &EMPTY_SHA2_256,
        }
    }

    /// The name as on the command line: `blake3` or `sha2-256`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blake3 => "blake3",
            Self::Sha2_256 => "sha2-256",
        }
    }
}

/// What the bytes behind a [`Cid`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// Raw bytes (0x55): a leaf, pack.json or pack.sig.
    Raw,
    /// A dag-pb node (0x70): a UnixFS directory or file.
    DagPb,
}

impl Codec {
    /// The multicodec code.
    pub const fn code(self) -> u64 {
        match self {
            Self::Raw => 0x55,
            Self::DagPb => 0x70,
        }
    }
}

/// The CID of one block: codec, hash function and digest. Always CIDv1, always 32 bytes of digest.
///
/// Displayed in lower-case base32 (`bafk…`, `bafy…`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cid {
    codec: Codec,
    hash: HashKind,
    digest: [u8; 32],
}

/// Why a CID cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CidError {
    /// The text or bytes are not a CID at all.
    #[error("not a content ID: {0}")]
    Malformed(String),
    /// A codec that is neither raw nor dag-pb.
    #[error("content of codec 0x{0:x} is not a file or a folder (only raw and dag-pb are)")]
    Codec(u64),
    /// The identity hash, which carries its bytes in the CID and proves nothing.
    #[error("identity CIDs carry their bytes in themselves and are not accepted")]
    Identity,
    /// A hash function that is neither BLAKE3-256 nor SHA2-256.
    #[error("hash function 0x{0:x} is not supported (only blake3 and sha2-256 are)")]
    Hash(u64),
    /// A digest that is not 32 bytes long; a truncated one would not prove anything.
    #[error("a digest of {0} bytes instead of 32 is not accepted")]
    DigestLength(usize),
}

impl Cid {
    /// Bytes of [`Cid::to_bytes`]: version, codec, hash code, length, digest.
    pub const BINARY_LEN: usize = 36;

    /// The CID with these parts.
    pub const fn new(codec: Codec, hash: HashKind, digest: [u8; 32]) -> Self {
        Self { codec, hash, digest }
    }

    /// The CID of `bytes`.
    pub fn of(codec: Codec, hash: HashKind, bytes: &[u8]) -> Self {
        Self::new(codec, hash, hash.digest(bytes))
    }

    /// Whether `bytes` are the block that this CID names.
    pub fn verifies(&self, bytes: &[u8]) -> bool {
        self.hash.digest(bytes) == self.digest
    }

    /// Whether it names a raw block of no bytes: the empty leaf, which is never fetched.
    pub fn is_empty_leaf(&self) -> bool {
        self.codec == Codec::Raw && self.digest == *self.hash.empty_digest()
    }

    /// What the bytes are.
    pub const fn codec(&self) -> Codec {
        self.codec
    }

    /// The hash function.
    pub const fn hash(&self) -> HashKind {
        self.hash
    }

    /// The 32 bytes of digest.
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The first eight bytes of the digest, big-endian: enough to find a block's place, never enough to trust it.
    pub fn prefix(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.digest[..8]);
        u64::from_be_bytes(first)
    }

    /// The multihash `<code><32><digest>`: the key of provider records.
    pub fn multihash_bytes(&self) -> Vec<u8> {
        self.to_bytes()[2..].to_vec()
    }

    /// The binary CIDv1.
    pub fn to_bytes(&self) -> [u8; Self::BINARY_LEN] {
        let mut out = [0; Self::BINARY_LEN];
        // Every code used here is below 0x80, so that each varint is one byte.
        out[..4].copy_from_slice(&[1, self.codec.code() as u8, self.hash.code() as u8, 32]);
        out[4..].copy_from_slice(&self.digest);
        out
    }

    /// Reads a binary CID, v1 or v0; the whole slice must be the CID.
    ///
    /// # Errors
    /// See [`CidError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CidError> {
        let mut rest = bytes;
        let parsed = cid::Cid::read_bytes(&mut rest).map_err(|e| CidError::Malformed(e.to_string()))?;
        if !rest.is_empty() {
            return Err(CidError::Malformed("bytes follow it".to_owned()));
        }
        Self::try_from(&parsed)
    }
}

impl TryFrom<&cid::Cid> for Cid {
    type Error = CidError;

    fn try_from(parsed: &cid::Cid) -> Result<Self, CidError> {
        let codec = match parsed.codec() {
            0x55 => Codec::Raw,
            0x70 => Codec::DagPb,
            other => return Err(CidError::Codec(other)),
        };
        let hash = match parsed.hash().code() {
            0x1e => HashKind::Blake3,
            0x12 => HashKind::Sha2_256,
            0 => return Err(CidError::Identity),
            other => return Err(CidError::Hash(other)),
        };
        let digest = parsed.hash().digest();
        let digest = digest.try_into().map_err(|_| CidError::DigestLength(digest.len()))?;
        Ok(Self { codec, hash, digest })
    }
}

impl From<&Cid> for cid::Cid {
    fn from(c: &Cid) -> Self {
        let hash = Multihash::wrap(c.hash.code(), &c.digest).expect("32 bytes fit a 64-byte multihash");
        Self::new_v1(c.codec.code(), hash)
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        cid::Cid::from(self).fmt(f)
    }
}

impl fmt::Debug for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Cid {
    type Err = CidError;

    /// Reads a CID in any multibase, or a CIDv0 (`Qm…`).
    fn from_str(text: &str) -> Result<Self, CidError> {
        let parsed = cid::Cid::try_from(text).map_err(|e| CidError::Malformed(e.to_string()))?;
        Self::try_from(&parsed)
    }
}

impl Serialize for Cid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_leaf_is_known_by_both_hashes() {
        for hash in [HashKind::Blake3, HashKind::Sha2_256] {
            assert!(Cid::of(Codec::Raw, hash, b"").is_empty_leaf());
            assert!(!Cid::of(Codec::DagPb, hash, b"").is_empty_leaf());
            assert!(!Cid::of(Codec::Raw, hash, b"x").is_empty_leaf());
        }
    }
}
