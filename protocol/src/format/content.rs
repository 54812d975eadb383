//! A content, known: its files, folders and leaves.
//!
//! [`super::build::ContentBuilder`] and [`super::read::SkeletonReader`] make it; both give the same for the same skeleton. Parts of
//! all files lie in one list of runs, since a content may have millions.

use std::{ops::Range, sync::Arc};

use super::{
    cid::Cid,
    parts::{CARRIER, Parts},
    path::PackPath,
    pieces::{PieceIndex, PieceMap},
};

/// The files of a content and the leaves that they are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub(super) cid: Cid,
    pub(super) map: Arc<PieceMap>,
    pub(super) files: Vec<File>,
    pub(super) dirs: Vec<PackPath>,
    pub(super) parts: Parts,
    pub(super) carriers: Vec<(Cid, u32)>,
    pub(super) node_cids: Vec<Cid>,
    pub(super) skeleton_bytes: u64,
    pub(super) skipped: Vec<PackPath>,
}

/// One file of a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Where it lies in the content.
    pub path: PackPath,
    /// Bytes.
    pub size: u64,
    /// The CID of the file alone.
    pub cid: Cid,
    pub(super) parts: Range<u32>,
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
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// All folders, the empty ones too, without the root; a folder comes before what lies in it.
    pub fn dirs(&self) -> &[PackPath] {
        &self.dirs
    }

    /// The CIDs of all distinct nodes that carry no file bytes, the root first. Empty for a file of one leaf.
    pub fn node_cids(&self) -> &[Cid] {
        &self.node_cids
    }

    /// Bytes of the nodes of [`Content::node_cids`].
    pub fn skeleton_bytes(&self) -> u64 {
        self.skeleton_bytes
    }

    /// Distinct foreign nodes that carry file bytes, with how many. Empty for what modswarm made.
    pub fn carriers(&self) -> &[(Cid, u32)] {
        &self.carriers
    }

    /// Entries of a foreign DAG that are left out, because they are symlinks.
    pub fn skipped(&self) -> &[PackPath] {
        &self.skipped
    }

    /// Bytes of all files together; equal files count each.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Number of parts of `file`.
    pub fn part_count(&self, file: &File) -> usize {
        file.parts.len()
    }

    /// The parts of `file` in order; none for an empty file. `file` is one of this content's.
    pub fn parts(&self, file: &File) -> impl ExactSizeIterator<Item = Part> + Clone + '_ {
        self.parts_numbered(self.part_numbers(file))
    }

    /// Number of parts of all files.
    pub fn part_total(&self) -> u32 {
        self.parts.len()
    }

    /// The numbers of the parts of `file` among those of all files, which follow one another. `file` is one of this content's.
    pub fn part_numbers(&self, file: &File) -> Range<u32> {
        file.parts.clone()
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
        self.files.partition_point(|file| file.parts.end <= number)
    }

    /// The parts of `file` with their places, in order, without gaps.
    pub fn spans(&self, file: &File) -> impl Iterator<Item = Span> + '_ {
        let mut offset = 0;
        self.parts(file).map(move |part| {
            let len = self.part_len(part);
            let span = Span { offset, len, part };
            offset += u64::from(len);
            span
        })
    }

    /// Bytes of `part`.
    pub fn part_len(&self, part: Part) -> u32 {
        match part {
            Part::Piece(index) => self.map.leaf(index).len,
            Part::Node { len, .. } => len,
        }
    }

    /// The file at `path`.
    pub fn file(&self, path: &PackPath) -> Option<&File> {
        self.files.iter().find(|file| file.path == *path)
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
