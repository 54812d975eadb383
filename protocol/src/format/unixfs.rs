//! The UnixFS message inside a dag-pb node: what the node is, and how large.
//!
//! Source: the UnixFS specification (<https://specs.ipfs.tech/unixfs/>). Unknown fields are skipped: mode and time, which some tools
//! write, are not used here.

use super::{
    dagpb::{Malformed, Value, put_bytes, put_varint, take_field, take_varint},
    limits::NODE_LINKS_MAX,
};

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A leaf of old tools; the same as a file without links.
    Raw,
    Directory,
    File,
    Metadata,
    Symlink,
    HamtShard,
}

/// The message of a node.
#[derive(Clone, Debug)]
pub(super) struct Message<'a> {
    pub(super) kind: Kind,
    pub(super) data: &'a [u8],
    pub(super) filesize: Option<u64>,
    pub(super) blocksizes: Vec<u64>,
    pub(super) hash_type: Option<u64>,
    pub(super) fanout: Option<u64>,
}

/// The message of a plain directory.
pub(super) const DIRECTORY: [u8; 2] = [0x08, 0x01];

/// The message of a file node whose links hold `blocksizes` bytes each.
pub(super) fn encode_file(blocksizes: impl Iterator<Item = u64> + Clone) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, 1, 2);
    put_varint(&mut out, 3, blocksizes.clone().sum());
    for size in blocksizes {
        put_varint(&mut out, 4, size);
    }
    out
}

/// The message of a HAMT shard.
pub(super) fn encode_shard(bitfield: &[u8], hash_type: u64, fanout: u64) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, 1, 5);
    put_bytes(&mut out, 2, bitfield);
    put_varint(&mut out, 5, hash_type);
    put_varint(&mut out, 6, fanout);
    out
}

/// Reads a message.
pub(super) fn decode(mut input: &[u8]) -> Result<Message<'_>, Malformed> {
    let mut kind = None;
    let mut data = None;
    let mut blocksizes = Vec::new();
    let (mut filesize, mut hash_type, mut fanout) = (None, None, None);
    let once = |slot: &mut Option<u64>, value| match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err("its UnixFS data says something twice"),
    };
    let mut push = |size| {
        if blocksizes.len() == NODE_LINKS_MAX {
            return Err("it has too many block sizes");
        }
        blocksizes.push(size);
        Ok(())
    };
    while let Some((field, value)) = take_field(&mut input)? {
        match (field, value) {
            (1, Value::Varint(value)) => once(&mut kind, value)?,
            (2, Value::Bytes(bytes)) if data.is_none() => data = Some(bytes),
            (3, Value::Varint(value)) => once(&mut filesize, value)?,
            (4, Value::Varint(value)) => push(value)?,
            // Packed, as newer Protocol Buffers encoders do by themselves.
            (4, Value::Bytes(mut packed)) => {
                while !packed.is_empty() {
                    push(take_varint(&mut packed)?)?;
                }
            }
            (5, Value::Varint(value)) => once(&mut hash_type, value)?,
            (6, Value::Varint(value)) => once(&mut fanout, value)?,
            (0..=6, _) => return Err("its UnixFS data is of the wrong type"),
            _ => {}
        }
    }
    let kind = match kind.ok_or("its UnixFS data does not say what it is")? {
        0 => Kind::Raw,
        1 => Kind::Directory,
        2 => Kind::File,
        3 => Kind::Metadata,
        4 => Kind::Symlink,
        5 => Kind::HamtShard,
        _ => return Err("its UnixFS type is not known"),
    };
    Ok(Message {
        kind,
        data: data.unwrap_or(&[]),
        filesize,
        blocksizes,
        hash_type,
        fanout,
    })
}
