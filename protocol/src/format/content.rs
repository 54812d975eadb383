//! A content, known: its files, folders and leaves.
//!
//! [`super::build::ContentBuilder`] and [`super::read::SkeletonReader`] make it; both give the same for the same skeleton. Parts of
//! all files lie in one list of runs, and their names in one text, since a content may have millions.

use std::{fmt, iter::FusedIterator, ops::Range, sync::Arc};

use super::{
    cid::{Cid, Codec, HashKind},
    names::{Names, Spot},
    parts::{CARRIER, Parts},
    path::PackPath,
    pieces::{PieceIndex, PieceMap},
};

/// The files of a content and the leaves that they are made of.
#[derive(Clone, Debug)]
pub struct Content {
    pub(super) cid: Cid,
    pub(super) map: Arc<PieceMap>,
    pub(super) names: Names,
    pub(super) files: Vec<Row>,
    /// Of files that are nodes, in their order.
    pub(super) nodes: Vec<NodeRow>,
    pub(super) dirs: Vec<Spot>,
    pub(super) parts: Parts,
    pub(super) carriers: Vec<(Cid, u32)>,
    pub(super) skeleton: Vec<Block>,
    pub(super) skipped: Vec<Spot>,
}

/// A file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) spot: Spot,
    /// The number of its first part; those up to the next file's are its own.
    pub(super) part: u32,
    /// Its place in `Content::nodes`, or [`LEAF`] or one of [`EMPTY`].
    pub(super) what: u32,
}

/// A file that is its only part.
pub(super) const LEAF: u32 = u32::MAX;
/// Empty files by the hash of their CIDs.
pub(super) const EMPTY: [(HashKind, u32); 2] = [(HashKind::Blake3, u32::MAX - 1), (HashKind::Sha2_256, u32::MAX - 2)];

/// A node and the length of its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) cid: Cid,
    pub(super) len: u32,
}

/// What is known of a file that is a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct NodeRow {
    /// Its place in `Content::skeleton`, or with [`CARRIER`] among the carriers.
    pub(super) cid: u32,
    pub(super) size: u64,
}

/// One file of a content.
#[derive(Clone, Copy)]
pub struct File<'a> {
    content: &'a Content,
    number: u32,
}

/// The files of a content, in order.
#[derive(Clone, Debug)]
pub struct Files<'a> {
    content: &'a Content,
    left: Range<u32>,
}

/// A run of bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A leaf.
    Piece(PieceIndex),
    /// The bytes that a foreign dag-pb node carries in itself; fetched by CID, no piece.
    Node {
        /// The node.
        cid: Cid,
        /// Bytes that it carries.
        len: u32,
    },
}

/// A [`Part`] and where it lies in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Bytes from the file's start.
    pub offset: u64,
    /// Bytes; never zero.
    pub len: u32,
    /// What lies there.
    pub part: Part,
}

impl Content {
    /// The content CID.
    pub fn cid(&self) -> Cid {
        self.cid
    }

    /// The piece map.
    pub fn map(&self) -> &Arc<PieceMap> {
        &self.map
    }

    /// All files, depth first, links as stored.
    pub fn files(&self) -> Files<'_> {
        Files {
            content: self,
            left: 0..self.files.len() as u32,
        }
    }

    /// The file of this number, from 0.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn file(&self, number: usize) -> File<'_> {
        self.files().nth(number).expect("the content has as many files")
    }

    /// All folders, the empty ones too, without the root; a folder comes before what lies in it.
    pub fn dirs(&self) -> impl ExactSizeIterator<Item = PackPath> + '_ {
        self.dirs.iter().map(|spot| self.names.path(&self.dirs, *spot))
    }

    /// The CIDs of all distinct nodes that carry no file bytes, the root first. Empty for a file of one leaf.
    pub fn node_cids(&self) -> impl ExactSizeIterator<Item = Cid> + '_ {
        self.skeleton.iter().map(|node| node.cid)
    }

    /// Bytes of the nodes of [`Content::node_cids`].
    pub fn skeleton_bytes(&self) -> u64 {
        self.skeleton.iter().map(|node| u64::from(node.len)).sum()
    }

    /// Distinct foreign nodes that carry file bytes, with how many. Empty for what modswarm made.
    pub fn carriers(&self) -> &[(Cid, u32)] {
        &self.carriers
    }

    /// Entries of a foreign DAG that are left out, because they are symlinks.
    pub fn skipped(&self) -> impl ExactSizeIterator<Item = PackPath> + '_ {
        self.skipped.iter().map(|spot| self.names.path(&self.dirs, *spot))
    }

    /// Bytes of all files together; equal files count each.
    pub fn bytes(&self) -> u64 {
        self.files().map(File::size).sum()
    }

    /// Number of parts of all files.
    pub fn part_total(&self) -> u32 {
        self.parts.len()
    }

    /// The parts of these numbers, in order.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn parts_numbered(&self, numbers: Range<u32>) -> impl ExactSizeIterator<Item = Part> + Clone + '_ {
        self.parts.range(numbers).map(|raw| self.part(raw))
    }

    /// The number of the file to which the part of a number belongs; that of files if there are not as many parts.
    pub fn file_of_part(&self, number: u32) -> usize {
        if number >= self.parts.len() {
            return self.files.len();
        }
        // Of those that begin no later the last one has it: whatever begins where it does is empty.
        self.files.partition_point(|file| file.part <= number) - 1
    }

    /// Bytes of `part`.
    pub fn part_len(&self, part: Part) -> u32 {
        match part {
            Part::Piece(index) => self.map.leaf(index).len,
            Part::Node { len, .. } => len,
        }
    }

    fn part(&self, raw: u32) -> Part {
        if raw & CARRIER != 0 {
            let (cid, len) = self.carriers[(raw & !CARRIER) as usize];
            Part::Node { cid, len }
        } else {
            Part::Piece(self.map.index(raw).expect("parts name pieces of their own map"))
        }
    }
}

impl PartialEq for Content {
    /// Whether it is the same, wherever its names lie.
    fn eq(&self, other: &Self) -> bool {
        let Self {
            cid,
            map,
            names: _,
            files: _,
            nodes: _,
            dirs: _,
            parts,
            carriers,
            skeleton,
            skipped: _,
        } = self;
        *cid == other.cid
            && *map == other.map
            && *parts == other.parts
            && *carriers == other.carriers
            && *skeleton == other.skeleton
            && self.dirs().eq(other.dirs())
            && self.skipped().eq(other.skipped())
            && self.files().eq(other.files())
    }
}

impl Eq for Content {}

impl<'a> File<'a> {
    fn row(self) -> &'a Row {
        &self.content.files[self.number as usize]
    }

    /// Its number among the content's files, from 0.
    pub fn number(self) -> usize {
        self.number as usize
    }

    /// Where it lies in the content.
    pub fn path(self) -> PackPath {
        self.content.names.path(&self.content.dirs, self.row().spot)
    }

    /// Its name in the folder that it lies in.
    pub fn name(self) -> &'a str {
        self.content.names.get(self.row().spot.name)
    }

    /// Bytes.
    pub fn size(self) -> u64 {
        match self.node() {
            Some(node) => node.size,
            None => self.parts().map(|part| u64::from(self.content.part_len(part))).sum(),
        }
    }

    /// The CID of the file alone.
    pub fn cid(self) -> Cid {
        if let Some(node) = self.node() {
            return match node.cid & CARRIER {
                0 => self.content.skeleton[node.cid as usize].cid,
                _ => self.content.carriers[(node.cid & !CARRIER) as usize].0,
            };
        }
        let what = self.row().what;
        match (self.parts().next(), EMPTY.iter().find(|(_, empty)| *empty == what)) {
            (Some(Part::Piece(piece)), _) => self.content.map.leaf(piece).cid,
            (Some(Part::Node { cid, .. }), _) => cid,
            (None, Some((hash, _))) => Cid::new(Codec::Raw, *hash, *hash.empty_digest()),
            (None, None) => unreachable!("a file without parts is empty or a node"),
        }
    }

    fn node(self) -> Option<&'a NodeRow> {
        self.content.nodes.get(self.row().what as usize)
    }

    /// Number of parts.
    pub fn part_count(self) -> usize {
        self.part_numbers().len()
    }

    /// The numbers of its parts among those of all files, which follow one another.
    pub fn part_numbers(self) -> Range<u32> {
        let next = self.content.files.get(self.number as usize + 1);
        self.row().part..next.map_or(self.content.parts.len(), |next| next.part)
    }

    /// Its parts in order; none for an empty file.
    pub fn parts(self) -> impl ExactSizeIterator<Item = Part> + Clone + 'a {
        self.content.parts_numbered(self.part_numbers())
    }

    /// Its parts with their places, in order, without gaps.
    pub fn spans(self) -> impl Iterator<Item = Span> + 'a {
        let mut offset = 0;
        self.parts().map(move |part| {
            let len = self.content.part_len(part);
            let span = Span { offset, len, part };
            offset += u64::from(len);
            span
        })
    }
}

/// By path, size, CID and parts.
impl PartialEq for File<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.path() == other.path()
            && (self.size(), self.cid(), self.part_numbers()) == (other.size(), other.cid(), other.part_numbers())
    }
}

impl Eq for File<'_> {}

impl fmt::Debug for File<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("File");
        shown.field("path", &self.path()).field("size", &self.size());
        shown.field("cid", &self.cid()).field("parts", &self.part_numbers());
        shown.finish()
    }
}

impl<'a> Files<'a> {
    fn file(&self, number: u32) -> File<'a> {
        File {
            content: self.content,
            number,
        }
    }
}

impl<'a> Iterator for Files<'a> {
    type Item = File<'a>;

    fn next(&mut self) -> Option<File<'a>> {
        self.left.next().map(|number| self.file(number))
    }

    fn nth(&mut self, n: usize) -> Option<File<'a>> {
        self.left.nth(n).map(|number| self.file(number))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.left.size_hint()
    }
}

impl DoubleEndedIterator for Files<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.left.next_back().map(|number| self.file(number))
    }
}

impl ExactSizeIterator for Files<'_> {}
impl FusedIterator for Files<'_> {}
