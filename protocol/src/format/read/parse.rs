//! One block into one node: everything that can be checked without looking at another block.

use super::{
    super::{
        MAX_BLOCK_LEN,
        cid::{Cid, Codec},
        dagpb::{InLink, decode_node},
        hamt::{self, PREFIX_LEN},
        path::Name,
        pieces::Leaf,
        unixfs::{self, Kind, Message},
    },
    SkeletonError,
    nodes::{Entry, FileLink, FileNode, FilePart, Linked, Links, Node, Nodes, Odd, SHARD, Slice},
};

impl Nodes {
    /// Parses a dag-pb block. What it lists is kept.
    pub(super) fn parse(&mut self, cid: &Cid, bytes: &[u8]) -> Result<Node, SkeletonError> {
        let malformed = |what| SkeletonError::Malformed { cid: *cid, what };
        let (links, data) = decode_node(bytes).map_err(malformed)?;
        let message = unixfs::decode(data).map_err(malformed)?;
        if matches!(message.kind, Kind::Directory | Kind::HamtShard | Kind::Symlink) && !message.blocksizes.is_empty() {
            return Err(malformed("only files have block sizes"));
        }
        match message.kind {
            Kind::File | Kind::Raw => self.parse_file(cid, &links, &message),
            Kind::Directory => {
                let from = self.entries.len();
                for link in &links {
                    self.parse_entry(cid, link, link.name)?;
                }
                Ok(Node::Directory(Slice::since(from, &self.entries)))
            }
            Kind::HamtShard => self.parse_shard(cid, &links, &message),
            Kind::Symlink if links.is_empty() => Ok(Node::Symlink),
            Kind::Symlink => Err(malformed("a symbolic link has links")),
            Kind::Metadata => Err(malformed("UnixFS metadata nodes are not used by any tool")),
        }
    }

    fn parse_entry(&mut self, cid: &Cid, link: &InLink<'_>, stored: &[u8]) -> Result<(), SkeletonError> {
        let name = Name::from_utf8(stored).map_err(|source| SkeletonError::Name { cid: *cid, source })?;
        let target = link_cid(cid, link)?;
        let odd = Odd {
            cid: target,
            tsize: link.tsize,
        };
        let linked = match (target.codec(), odd.leaf_len()) {
            (Codec::DagPb, _) => Linked::Node(self.number(&target)),
            (Codec::Raw, Ok(len @ 1..)) => Linked::Leaf(self.leaf(Leaf { cid: target, len })?),
            // What is wrong with its length is wrong only if it turns out to be one of the files.
            (Codec::Raw, _) => {
                if self.odd.last() != Some(&odd) {
                    self.odd.push(odd);
                }
                Linked::Odd(self.odd.len() as u32 - 1)
            }
        };
        let at = self.names.push(name.as_str()).ok_or(SkeletonError::TooLarge {
            what: "bytes of names",
            max: u32::MAX.into(),
        })?;
        self.entries.push(Entry::new(at, linked));
        Ok(())
    }

    /// The number of a leaf.
    fn leaf(&mut self, leaf: Leaf) -> Result<u32, SkeletonError> {
        self.leaves.intern(leaf).map_err(|other| SkeletonError::LyingSize {
            cid: leaf.cid,
            said: leaf.len.into(),
            found: other.into(),
        })
    }

    fn parse_file(&mut self, cid: &Cid, links: &[InLink<'_>], message: &Message<'_>) -> Result<Node, SkeletonError> {
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
        let (runs, below) = (self.runs.len(), self.below.len());
        for (link, &size) in links.iter().zip(&message.blocksizes) {
            let target = link_cid(cid, link)?;
            if size == 0 {
                // No encoder writes it, and endless nothing would be free to ask for.
                return Err(malformed("it links to nothing"));
            }
            let link = match target.codec() {
                Codec::Raw => {
                    let len = leaf_len(&target, size)?;
                    FileLink::Leaf(self.leaf(Leaf { cid: target, len })?)
                }
                Codec::DagPb => FileLink::Part(FilePart {
                    node: self.number(&target),
                    size,
                }),
            };
            link.push(&mut self.runs, runs, &mut self.below);
        }
        match message.filesize {
            Some(said) if said != found => return Err(SkeletonError::LyingSize { cid: *cid, said, found }),
            None if !links.is_empty() => return Err(malformed("it does not say how long the file is")),
            _ => {}
        }
        let below = Slice::since(below, &self.below);
        if let ([run], 0, 0) = (&self.runs[runs..], inline, below.len()) {
            let run = *run;
            self.runs.pop();
            return Ok(Node::Leaves { size: found, run });
        }
        self.files.push(FileNode {
            size: found,
            inline: inline as u32,
            leaves: (links.len() - below.len()) as u32,
            links: Links::Runs(Slice::since(runs, &self.runs)),
            below,
        });
        Ok(Node::File(self.files.len() as u32 - 1))
    }

    fn parse_shard(&mut self, cid: &Cid, links: &[InLink<'_>], message: &Message<'_>) -> Result<Node, SkeletonError> {
        let malformed = |what| SkeletonError::Malformed { cid: *cid, what };
        if message.hash_type != Some(hamt::HASH_TYPE) {
            return Err(malformed("a large folder uses an unknown hash"));
        }
        if message.fanout != Some(hamt::FANOUT) {
            return Err(malformed("a large folder is not 256 wide"));
        }
        let (entries, positions) = (self.entries.len(), self.positions.len());
        for link in links {
            let position = parse_position(link.name).ok_or(malformed("a large folder's entry has no position"))?;
            self.positions.push(position);
            let name = &link.name[PREFIX_LEN..];
            if name.is_empty() {
                let shard = match link_cid(cid, link)? {
                    shard if shard.codec() == Codec::DagPb => self.number(&shard),
                    _ => return Err(malformed("a part of a large folder is no node")),
                };
                self.entries.push(Entry::new(SHARD, Linked::Node(shard)));
                continue;
            }
            self.parse_entry(cid, link, name)?;
            let number = self.entries.len() as u32 - 1;
            if self.name(self.entries[number as usize]).as_bytes() != name {
                self.stored_hashes.insert(number, hamt::hash_name(name));
            }
        }
        let own = &self.positions[positions..];
        if !own.is_sorted_by(|a, b| a < b) {
            return Err(malformed("a large folder's entries are not in order"));
        }
        if trimmed(message.data) != hamt::bitfield(own.iter().copied()) {
            return Err(malformed("a large folder's map does not match its entries"));
        }
        let positions = Slice::since(positions, &self.positions);
        Ok(Node::Shard(Slice::since(entries, &self.entries), positions.start()))
    }
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
