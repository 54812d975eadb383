//! Directories of many entries: a hash array mapped trie, 256 wide, placed by murmur3-x64-64.
//!
//! Source: the UnixFS specification's HAMT section, and boxo's `hamt` package. A shard's links are in order of position; a link's
//! name is the position as two upper-case hexadecimal digits, followed, for an entry, by its name.

use super::{
    cid::Cid,
    dagpb::{OutLink, encode_node},
    murmur3::murmur3_x64_64,
    unixfs::encode_shard,
};

/// Positions in one shard.
pub(super) const FANOUT: u64 = 256;
/// The multicodec of murmur3-x64-64.
pub(super) const HASH_TYPE: u64 = 0x22;
/// Shards from the root down: one for each byte of the hash.
pub(super) const LEVELS: usize = 8;
/// Hexadecimal digits before an entry's name.
pub(super) const PREFIX_LEN: usize = 2;

/// The hash that places `name`.
pub(super) fn hash_name(name: &[u8]) -> u64 {
    murmur3_x64_64(name)
}

/// Where an entry of this hash lies in its shard at `level`, the root being 0.
pub(super) fn position(hash: u64, level: usize) -> u8 {
    hash.to_be_bytes()[level]
}

/// The bits of `positions`, most significant byte first, without leading zero bytes.
pub(super) fn bitfield(positions: impl Iterator<Item = u8>) -> Vec<u8> {
    let mut bits = [0_u8; FANOUT as usize / 8];
    for position in positions {
        bits[bits.len() - 1 - usize::from(position) / 8] |= 1 << (position % 8);
    }
    let zeros = bits.iter().take_while(|&&byte| byte == 0).count();
    bits[zeros..].to_vec()
}

/// An entry to place.
#[derive(Clone, Debug)]
pub(super) struct Entry<'a> {
    pub(super) hash: u64,
    pub(super) name: &'a str,
    pub(super) cid: Cid,
    pub(super) tsize: u64,
}

/// Entries whose hashes are the same in all 64 bits: no trie tells them apart.
#[derive(Debug)]
pub(super) struct Collision;

/// Makes the shards of `entries`, which are sorted by hash, and hands each node to `emit`, the root last. Returns what `emit` did
/// for the root, with the Tsize of all.
pub(super) fn build(
    entries: &[Entry<'_>],
    level: usize,
    emit: &mut impl FnMut(Vec<u8>) -> (Cid, u64),
) -> Result<(Cid, u64), Collision> {
    if level == LEVELS {
        return Err(Collision);
    }
    let mut links: Vec<(u8, &str, Cid, u64)> = Vec::new();
    for group in entries.chunk_by(|a, b| position(a.hash, level) == position(b.hash, level)) {
        let at = position(group[0].hash, level);
        links.push(match group {
            [only] => (at, only.name, only.cid, only.tsize),
            _ => {
                let (cid, tsize) = build(group, level + 1, emit)?;
                (at, "", cid, tsize)
            }
        });
    }
    let names: Vec<String> = links.iter().map(|(at, name, ..)| format!("{at:02X}{name}")).collect();
    let data = encode_shard(&bitfield(links.iter().map(|link| link.0)), HASH_TYPE, FANOUT);
    let node = encode_node(
        links.iter().zip(&names).map(|(&(_, _, cid, tsize), name)| OutLink {
            cid,
            name: name.as_bytes(),
            tsize,
        }),
        &data,
    );
    let below: u64 = links.iter().map(|link| link.3).sum();
    let (cid, len) = emit(node);
    Ok((cid, len.saturating_add(below)))
}
