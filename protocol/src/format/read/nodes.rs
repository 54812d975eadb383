//! The nodes that are known or awaited, in a few long lists: there may be a million of them, and of what they name.

use std::{collections::BTreeMap, ops::Range};

use super::{
    super::{
        cid::{Cid, Codec},
        hamt,
        intern::Interner,
        names::Names,
    },
    SkeletonError,
    parse::leaf_len,
};

/// The nodes, numbered as they were first named, and what they list.
#[derive(Debug)]
pub(super) struct Nodes {
    /// Their CIDs and, of those that are known, how long their blocks are.
    pub(super) cids: Interner,
    /// By number.
    nodes: Vec<Node>,
    /// How many are known or awaited.
    wanted: u64,
    /// The leaves that they name, numbered as they came.
    pub(super) leaves: Interner,
    pub(super) names: Names,
    pub(super) entries: Vec<Entry>,
    /// Where the entries of shards lie in them.
    pub(super) positions: Vec<u8>,
    /// By number of entry: the hash of its name as it is stored, where that is not in NFC.
    pub(super) stored_hashes: BTreeMap<u32, u64>,
    pub(super) odd: Vec<Odd>,
    pub(super) files: Vec<FileNode>,
    pub(super) runs: Vec<Run>,
    pub(super) below: Vec<FilePart>,
}

/// What a dag-pb block is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Node {
    /// Some node links to it, and nobody asked for it.
    Named,
    Awaited,
    Directory(Slice),
    /// Its entries, and where their positions begin.
    Shard(Slice, u32),
    /// A file, or a part of one, that is leaves of which each is the one after the last.
    Leaves {
        size: u64,
        run: Run,
    },
    /// Another: its place in `Nodes::files`.
    File(u32),
    Symlink,
}

/// Some of a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice {
    from: u32,
    to: u32,
}

/// An entry of a folder, or a link to a part of a large one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Where its name begins; [`SHARD`] for a part of a large folder.
    pub(super) name: u32,
    target: u32,
}

/// In the place of a name.
pub(super) const SHARD: u32 = u32::MAX;

/// What an entry is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Linked {
    /// The leaf of this number. It is not empty.
    Leaf(u32),
    /// A node.
    Node(u32),
    /// A leaf that is empty, or that cannot be one: its place among the odd ones.
    Odd(u32),
}

/// Set in `Entry::target` for a node.
const NODE: u32 = 1 << 31;
/// Set in it for an odd one.
const ODD: u32 = 1 << 30;

/// A leaf that is empty or impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Odd {
    pub(super) cid: Cid,
    /// Meant for the whole DAG below; believed only of raw leaves, where it is checked when the leaf arrives.
    pub(super) tsize: Option<u64>,
}

/// A file or a part of one. What it carries in itself comes before its links.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileNode {
    pub(super) size: u64,
    pub(super) inline: u32,
    /// How many leaves it links to.
    pub(super) leaves: u32,
    /// Its links.
    pub(super) links: Links,
    /// Those of them that are nodes.
    pub(super) below: Slice,
}

/// The links of a file's node.
#[derive(Clone, Copy, Debug)]
pub(super) enum Links {
    One(Run),
    Runs(Slice),
}

/// Links of which each is the one after the last: leaves are numbered as they come. Numbers of leaves; with [`NODE`], places in `Nodes::below`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    first: u32,
    len: u32,
}

/// A node that is a part of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct FilePart {
    pub(super) node: u32,
    pub(super) size: u64,
}

/// What a file's node links to.
#[derive(Clone, Copy, Debug)]
pub(super) enum FileLink {
    /// The leaf of this number. It is not empty.
    Leaf(u32),
    /// Another node.
    Part(FilePart),
}

impl Slice {
    /// What was added to a list since it was `from` long.
    pub(super) fn since<T>(from: usize, list: &[T]) -> Self {
        Self {
            from: place(from),
            to: place(list.len()),
        }
    }

    pub(super) fn len(self) -> usize {
        (self.to - self.from) as usize
    }

    pub(super) fn start(self) -> u32 {
        self.from
    }

    pub(super) fn range(self) -> Range<usize> {
        self.from as usize..self.to as usize
    }
}

/// A place in a list. Each has four bytes of memory at least for what is in it.
fn place(at: usize) -> u32 {
    u32::try_from(at).expect("a skeleton has fewer links than that")
}

impl Entry {
    pub(super) fn new(name: u32, linked: Linked) -> Self {
        let target = match linked {
            Linked::Leaf(number) => number,
            Linked::Node(number) => NODE | number,
            Linked::Odd(at) => ODD | at,
        };
        Self { name, target }
    }

    pub(super) fn linked(self) -> Linked {
        match self.target {
            target if target & NODE != 0 => Linked::Node(target & !NODE),
            target if target & ODD != 0 => Linked::Odd(target & !ODD),
            leaf => Linked::Leaf(leaf),
        }
    }

    pub(super) fn is_shard(self) -> bool {
        self.name == SHARD
    }
}

impl Odd {
    /// The length of the leaf; 0 for the empty leaf.
    pub(super) fn leaf_len(&self) -> Result<u32, SkeletonError> {
        let missing = SkeletonError::Malformed {
            cid: self.cid,
            what: "the folder does not say how long this file is",
        };
        leaf_len(&self.cid, self.tsize.ok_or(missing)?)
    }
}

impl FileLink {
    /// Adds it to the last of `runs` that are not before `from`, if it follows that.
    pub(super) fn push(self, runs: &mut Vec<Run>, from: usize, below: &mut Vec<FilePart>) {
        let link = match self {
            Self::Leaf(number) => number,
            Self::Part(part) => {
                below.push(part);
                NODE | place(below.len() - 1)
            }
        };
        match runs[from..].last_mut().filter(|run| run.first + run.len == link) {
            Some(run) => run.len += 1,
            None => runs.push(Run { first: link, len: 1 }),
        }
    }
}

impl Node {
    /// What it is, in words.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Directory(_) => "a folder",
            Self::Shard(..) => "a part of a large folder",
            Self::Leaves { .. } | Self::File(_) => "a file",
            Self::Symlink => "a symbolic link",
            Self::Named | Self::Awaited => "not known yet",
        }
    }
}

impl Nodes {
    pub(super) fn new(root: &Cid) -> Self {
        Self {
            cids: Interner::new(root, Codec::DagPb),
            nodes: Vec::new(),
            wanted: 0,
            leaves: Interner::new(root, Codec::Raw),
            names: Names::default(),
            entries: Vec::new(),
            positions: Vec::new(),
            stored_hashes: BTreeMap::new(),
            odd: Vec::new(),
            files: Vec::new(),
            runs: Vec::new(),
            below: Vec::new(),
        }
    }

    /// The number of a node that is named.
    pub(super) fn number(&mut self, cid: &Cid) -> u32 {
        let number = self.cids.number(cid, 0);
        if self.nodes.len() < self.cids.count() {
            self.nodes.push(Node::Named);
        }
        number
    }

    pub(super) fn cid(&self, number: u32) -> Cid {
        self.cids.cid(number)
    }

    /// How many are known or awaited.
    pub(super) fn wanted(&self) -> u64 {
        self.wanted
    }

    /// Awaits a node. Whether it was neither known nor awaited before.
    pub(super) fn want(&mut self, number: u32) -> bool {
        let node = &mut self.nodes[number as usize];
        let new = matches!(node, Node::Named);
        if new {
            *node = Node::Awaited;
            self.wanted += 1;
        }
        new
    }

    /// The number of a node that is awaited.
    pub(super) fn awaited(&self, cid: &Cid) -> Option<u32> {
        let number = self.cids.find(cid)?;
        self.is_awaited(number).then_some(number)
    }

    pub(super) fn is_awaited(&self, number: u32) -> bool {
        matches!(self.nodes[number as usize], Node::Awaited)
    }

    /// Notes what a node is, and that its block is `len` bytes long.
    pub(super) fn know(&mut self, number: u32, node: Node, len: u32) {
        self.nodes[number as usize] = node;
        self.cids.set_block_len(number, len);
    }

    /// A node that is known.
    pub(super) fn get(&self, number: u32) -> Result<Node, SkeletonError> {
        match self.nodes[number as usize] {
            Node::Named | Node::Awaited => Err(SkeletonError::Incomplete(1)),
            node => Ok(node),
        }
    }

    pub(super) fn entries(&self, slice: Slice) -> &[Entry] {
        &self.entries[slice.range()]
    }

    /// The entries of a shard with their numbers and positions.
    pub(super) fn placed(&self, slice: Slice, positions: u32) -> impl Iterator<Item = (u32, Entry, u8)> + '_ {
        let positions = &self.positions[positions as usize..];
        let entries = self.entries(slice).iter().zip(positions);
        (slice.from..)
            .zip(entries)
            .map(|(number, (entry, at))| (number, *entry, *at))
    }

    pub(super) fn name(&self, entry: Entry) -> &str {
        self.names.get(entry.name)
    }

    /// The hash that places an entry of a shard.
    pub(super) fn hash(&self, number: u32, entry: Entry) -> u64 {
        let stored = self.stored_hashes.get(&number).copied();
        stored.unwrap_or_else(|| hamt::hash_name(self.name(entry).as_bytes()))
    }

    /// What the entry is, by CID.
    pub(super) fn cid_of(&self, entry: Entry) -> Cid {
        match entry.linked() {
            Linked::Leaf(number) => self.leaves.cid(number),
            Linked::Node(number) => self.cid(number),
            Linked::Odd(at) => self.odd[at as usize].cid,
        }
    }

    /// How long the entry says that it is, if it is a leaf.
    pub(super) fn said_len(&self, entry: Entry) -> Option<u64> {
        match entry.linked() {
            Linked::Leaf(number) => Some(self.leaves.block_len(number).into()),
            Linked::Odd(at) => self.odd[at as usize].tsize,
            Linked::Node(_) => None,
        }
    }

    /// The file, or part of one, that a node is.
    pub(super) fn file(&self, node: Node) -> Option<FileNode> {
        match node {
            Node::Leaves { size, run } => Some(FileNode {
                size,
                inline: 0,
                leaves: run.len,
                links: Links::One(run),
                below: Slice::since(0, &[] as &[u8]),
            }),
            Node::File(at) => Some(self.files[at as usize]),
            _ => None,
        }
    }

    /// What a file's node links to, in order.
    pub(super) fn links(&self, file: &FileNode) -> impl Iterator<Item = FileLink> + '_ {
        let (one, runs) = match file.links {
            Links::One(run) => (Some(run), &[][..]),
            Links::Runs(runs) => (None, &self.runs[runs.range()]),
        };
        let runs = one.into_iter().chain(runs.iter().copied());
        let links = runs.flat_map(|run| run.first..run.first + run.len);
        links.map(|link| match link & NODE {
            0 => FileLink::Leaf(link),
            _ => FileLink::Part(self.below[(link & !NODE) as usize]),
        })
    }

    /// Those of its links that are nodes.
    pub(super) fn parts_below(&self, file: &FileNode) -> &[FilePart] {
        &self.below[file.below.range()]
    }

    /// The nodes that it links to.
    pub(super) fn children(&self, node: Node) -> Vec<u32> {
        match node {
            Node::Directory(entries) | Node::Shard(entries, _) => {
                let linked = self.entries(entries).iter().map(|entry| entry.linked());
                linked
                    .filter_map(|linked| match linked {
                        Linked::Node(number) => Some(number),
                        Linked::Leaf(_) | Linked::Odd(_) => None,
                    })
                    .collect()
            }
            Node::Leaves { .. } | Node::Symlink | Node::Named | Node::Awaited => Vec::new(),
            Node::File(at) => {
                let below = self.parts_below(&self.files[at as usize]);
                below.iter().map(|part| part.node).collect()
            }
        }
    }

    /// How many files and folders it lists.
    pub(super) fn listed(&self, node: Node) -> usize {
        match node {
            Node::Directory(entries) => entries.len(),
            Node::Shard(entries, _) => self.entries(entries).iter().filter(|entry| !entry.is_shard()).count(),
            Node::Leaves { .. } | Node::File(_) | Node::Symlink | Node::Named | Node::Awaited => 0,
        }
    }
}
