//! One block into one node: everything that can be checked without looking at another block.

use super::{
    super::{
        MAX_BLOCK_LEN,
        cid::{Cid, Codec},
        dagpb::{InLink, decode_node},
        hamt::{self, PREFIX_LEN},
        intern::Interner,
        path::Name,
        pieces::Leaf,
        unixfs::{self, Kind, Message},
    },
    SkeletonError,
};

/// What a dag-pb block is.
#[derive(Debug)]
pub(super) enum Node {
    Directory(Box<[Entry]>),
    Shard(Box<[ShardEntry]>),
    File(FileNode),
    Symlink,
}

/// An entry of a plain directory.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Name,
    pub(super) cid: Cid,
    /// Meant for the whole DAG below; believed only of raw leaves, where it is checked when the leaf arrives.
    pub(super) tsize: Option<u64>,
    /// The number of the leaf that it is, unless that is empty or impossible.
    pub(super) leaf: Option<u32>,
}

/// A link of a HAMT shard.
#[derive(Debug)]
pub(super) struct ShardEntry {
    pub(super) position: u8,
    pub(super) content: ShardContent,
}

#[derive(Debug)]
pub(super) enum ShardContent {
    Shard(Cid),
    /// The hash is that of the name as it is stored, which may not be in NFC.
    Entry {
        hash: u64,
        entry: Entry,
    },
}

/// A file or a part of one. What it carries in itself comes before its links. Links are kept as runs, for there may be millions.
#[derive(Debug)]
pub(super) struct FileNode {
    pub(super) size: u64,
    pub(super) inline: u32,
    /// Numbers of leaves; with [`NODE`], places in `below`.
    links: Box<[Run]>,
    below: Box<[FilePart]>,
}

/// Links of which each is the one after the last: leaves are numbered as they come.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: u32,
    len: u32,
}

/// A node that is a part of a file.
#[derive(Debug)]
pub(super) struct FilePart {
    pub(super) cid: Cid,
    pub(super) size: u64,
}

/// What a file's node links to.
#[derive(Clone, Copy, Debug)]
pub(super) enum FileLink<'a> {
    /// The leaf of this number. It is not empty.
    Leaf(u32),
    /// Another node.
    Part(&'a FilePart),
}

/// Set in an entry of `FileNode::links` that is no leaf.
const NODE: u32 = 1 << 31;

impl Node {
    /// Parses a dag-pb block. Leaves are numbered by `leaves`.
    pub(super) fn parse(cid: &Cid, bytes: &[u8], leaves: &mut Interner) -> Result<Self, SkeletonError> {
        let malformed = |what| SkeletonError::Malformed { cid: *cid, what };
        let (links, data) = decode_node(bytes).map_err(malformed)?;
        let message = unixfs::decode(data).map_err(malformed)?;
        if matches!(message.kind, Kind::Directory | Kind::HamtShard | Kind::Symlink) && !message.blocksizes.is_empty() {
            return Err(malformed("only files have block sizes"));
        }
        match message.kind {
            Kind::File | Kind::Raw => FileNode::parse(cid, &links, &message, leaves).map(Node::File),
            Kind::Directory => {
                let entries = links.iter().map(|link| Entry::parse(cid, link, link.name, leaves));
                entries.collect::<Result<_, _>>().map(Node::Directory)
            }
            Kind::HamtShard => parse_shard(cid, &links, &message, leaves).map(Node::Shard),
            Kind::Symlink if links.is_empty() => Ok(Node::Symlink),
            Kind::Symlink => Err(malformed("a symbolic link has links")),
            Kind::Metadata => Err(malformed("UnixFS metadata nodes are not used by any tool")),
        }
    }

    /// What it is, in words.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Directory(_) => "a folder",
            Self::Shard(_) => "a part of a large folder",
            Self::File(_) => "a file",
            Self::Symlink => "a symbolic link",
        }
    }

    /// Files and folders that it lists.
    pub(super) fn entries(&self) -> usize {
        match self {
            Self::Directory(entries) => entries.len(),
            Self::Shard(entries) => {
                let own = entries
                    .iter()
                    .filter(|entry| matches!(entry.content, ShardContent::Entry { .. }));
                own.count()
            }
            Self::File(_) | Self::Symlink => 0,
        }
    }

    /// The nodes that it links to.
    pub(super) fn children(&self) -> Vec<Cid> {
        let all: Vec<Cid> = match self {
            Self::Directory(entries) => entries.iter().map(|entry| entry.cid).collect(),
            Self::Shard(entries) => entries
                .iter()
                .map(|entry| match &entry.content {
                    ShardContent::Shard(cid) => *cid,
                    ShardContent::Entry { entry, .. } => entry.cid,
                })
                .collect(),
            Self::File(file) => file.below.iter().map(|part| part.cid).collect(),
            Self::Symlink => Vec::new(),
        };
        all.into_iter().filter(|cid| cid.codec() == Codec::DagPb).collect()
    }
}

impl Entry {
    fn parse(cid: &Cid, link: &InLink<'_>, name: &[u8], leaves: &mut Interner) -> Result<Self, SkeletonError> {
        let name = Name::from_utf8(name).map_err(|source| SkeletonError::Name { cid: *cid, source })?;
        let mut entry = Self {
            name,
            cid: link_cid(cid, link)?,
            tsize: link.tsize,
            leaf: None,
        };
        // What is wrong with its length is wrong only if it turns out to be one of the files.
        if entry.cid.codec() == Codec::Raw
            && let Ok(len @ 1..) = entry.leaf_len()
        {
            entry.leaf = Some(number(leaves, Leaf { cid: entry.cid, len })?);
        }
        Ok(entry)
    }

    /// The length of the raw leaf that this entry is; 0 for the empty leaf.
    pub(super) fn leaf_len(&self) -> Result<u32, SkeletonError> {
        let missing = SkeletonError::Malformed {
            cid: self.cid,
            what: "the folder does not say how long this file is",
        };
        leaf_len(&self.cid, self.tsize.ok_or(missing)?)
    }
}

/// The number of a leaf.
fn number(leaves: &mut Interner, leaf: Leaf) -> Result<u32, SkeletonError> {
    leaves.intern(leaf).map_err(|other| SkeletonError::LyingSize {
        cid: leaf.cid,
        said: leaf.len.into(),
        found: other.into(),
    })
}

/// `said` as a leaf's length, if it can be one.
pub(super) fn leaf_len(cid: &Cid, said: u64) -> Result<u32, SkeletonError> {
    let empty = cid.is_empty_leaf();
    match u32::try_from(said) {
        Ok(0) if !empty => Err(SkeletonError::LyingSize {
            cid: *cid,
            said,
            found: 1,
        }),
        Ok(len) if len > 0 && empty => Err(SkeletonError::LyingSize {
            cid: *cid,
            said,
            found: 0,
        }),
        Ok(len) if len as usize <= MAX_BLOCK_LEN => Ok(len),
        _ => Err(SkeletonError::BlockTooLong { cid: *cid, len: said }),
    }
}

impl FileNode {
    /// What it links to, in order.
    pub(super) fn links(&self) -> impl Iterator<Item = FileLink<'_>> {
        let links = self.links.iter().flat_map(|run| run.first..run.first + run.len);
        links.map(|link| match link & NODE {
            0 => FileLink::Leaf(link),
            _ => FileLink::Part(&self.below[(link & !NODE) as usize]),
        })
    }

    fn parse(
        cid: &Cid,
        links: &[InLink<'_>],
        message: &Message<'_>,
        leaves: &mut Interner,
    ) -> Result<Self, SkeletonError> {
        let malformed = |what| SkeletonError::Malformed { cid: *cid, what };
        if message.blocksizes.len() != links.len() {
            return Err(malformed("it has not as many block sizes as links"));
        }
        let inline = message.data.len() as u64;
        let found = message
            .blocksizes
            .iter()
            .try_fold(inline, |sum, &size| sum.checked_add(size));
        let found = found.ok_or(malformed("its sizes add up to more than any disk holds"))?;
        let mut below = Vec::new();
        let parse_link = |(link, &size): (&InLink<'_>, &u64)| {
            let target = link_cid(cid, link)?;
            if size == 0 {
                // No encoder writes it, and endless nothing would be free to ask for.
                return Err(malformed("it links to nothing"));
            }
            if target.codec() == Codec::Raw {
                let len = leaf_len(&target, size)?;
                return number(leaves, Leaf { cid: target, len });
            }
            below.push(FilePart { cid: target, size });
            Ok(NODE | (below.len() - 1) as u32)
        };
        let sized = links.iter().zip(&message.blocksizes);
        let mut runs: Vec<Run> = Vec::new();
        for link in sized.map(parse_link) {
            let link = link?;
            match runs.last_mut().filter(|run| run.first + run.len == link) {
                Some(run) => run.len += 1,
                None => runs.push(Run { first: link, len: 1 }),
            }
        }
        match message.filesize {
            Some(said) if said != found => return Err(SkeletonError::LyingSize { cid: *cid, said, found }),
            None if !links.is_empty() => return Err(malformed("it does not say how long the file is")),
            _ => {}
        }
        Ok(Self {
            size: found,
            inline: inline as u32,
            links: runs.into(),
            below: below.into(),
        })
    }
}

fn parse_shard(
    cid: &Cid,
    links: &[InLink<'_>],
    message: &Message<'_>,
    leaves: &mut Interner,
) -> Result<Box<[ShardEntry]>, SkeletonError> {
    let malformed = |what| SkeletonError::Malformed { cid: *cid, what };
    if message.hash_type != Some(hamt::HASH_TYPE) {
        return Err(malformed("a large folder uses an unknown hash"));
    }
    if message.fanout != Some(hamt::FANOUT) {
        return Err(malformed("a large folder is not 256 wide"));
    }
    let mut parse_link = |link: &InLink<'_>| -> Result<ShardEntry, SkeletonError> {
        let position = parse_position(link.name).ok_or(malformed("a large folder's entry has no position"))?;
        let name = &link.name[PREFIX_LEN..];
        let content = if name.is_empty() {
            ShardContent::Shard(link_cid(cid, link)?)
        } else {
            ShardContent::Entry {
                hash: hamt::hash_name(name),
                entry: Entry::parse(cid, link, name, leaves)?,
            }
        };
        Ok(ShardEntry { position, content })
    };
    let entries: Box<[ShardEntry]> = links.iter().map(&mut parse_link).collect::<Result<_, _>>()?;
    if !entries.is_sorted_by(|a, b| a.position < b.position) {
        return Err(malformed("a large folder's entries are not in order"));
    }
    if trimmed(message.data) != hamt::bitfield(entries.iter().map(|entry| entry.position)) {
        return Err(malformed("a large folder's map does not match its entries"));
    }
    Ok(entries)
}

/// Some encoders keep leading zero bytes.
fn trimmed(bitfield: &[u8]) -> &[u8] {
    let zeros = bitfield.iter().take_while(|&&byte| byte == 0).count();
    &bitfield[zeros..]
}

/// Two upper-case hexadecimal digits at the start of a name.
fn parse_position(name: &[u8]) -> Option<u8> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    };
    Some(digit(*name.first()?)? << 4 | digit(*name.get(1)?)?)
}

fn link_cid(cid: &Cid, link: &InLink<'_>) -> Result<Cid, SkeletonError> {
    link.cid
        .clone()
        .map_err(|source| SkeletonError::Link { cid: *cid, source })
}

/// The file bytes that a foreign dag-pb block carries in itself: what [`super::super::Part::Node`] stands for. None if it carries
/// none or is not a file's.
pub fn inline_bytes(block: &[u8]) -> Option<&[u8]> {
    let (_, data) = decode_node(block).ok()?;
    let message = unixfs::decode(data).ok()?;
    (matches!(message.kind, Kind::File | Kind::Raw) && !message.data.is_empty()).then_some(message.data)
}
