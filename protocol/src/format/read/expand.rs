//! From measured nodes to a [`Content`]: depth first, links as stored.

use std::{collections::HashMap, sync::Arc};

use super::{
    super::{
        cid::{Cid, Codec},
        content::{Block, Content, EMPTY, LEAF, NodeRow, Row},
        hamt,
        intern::{Interner, Pieces},
        names::{Names, Spot, TOP},
        parts::{CARRIER, Parts},
        path::{Name, NameError, PATH_LEN_MAX},
    },
    SkeletonError,
    measure::wrong_kind,
    nodes::{Entry, FileLink, Linked, Node, Nodes},
};

/// Expands what [`super::measure::measure`] has let pass. A file as the root is called `file_name`.
pub(super) fn expand(mut nodes: Nodes, root: u32, file_name: &Name) -> Result<Content, SkeletonError> {
    let cid = nodes.cid(root);
    let leaves = std::mem::replace(&mut nodes.leaves, Interner::new(&cid, Codec::Raw));
    let cids = std::mem::replace(&mut nodes.cids, Interner::new(&cid, Codec::DagPb));
    let cids = cids.into_pieces();
    let own_name = nodes.names.push(file_name.as_str()).ok_or(SkeletonError::TooLarge {
        what: "bytes of names",
        max: u32::MAX.into(),
    })?;
    let mut expand = Expand {
        nodes: &nodes,
        pieces: leaves.into_pieces(),
        cids,
        carriers: HashMap::new(),
        content: nothing(&cid),
    };
    match nodes.get(root)? {
        Node::Leaves { .. } | Node::File(_) => expand.file(
            root,
            Spot {
                name: own_name,
                folder: TOP,
            },
        )?,
        _ => expand.dir(root, Folder { number: TOP, len: 0 })?,
    }
    let Expand {
        pieces, cids, content, ..
    } = expand;
    let names = std::mem::take(&mut nodes.names);
    drop(nodes);
    let mut content = Content {
        map: Arc::new(pieces.into_map()),
        skeleton: cids.into_blocks(|cid, len| Block { cid, len }),
        names,
        ..content
    };
    content.names.shrink_to_fit();
    content.files.shrink_to_fit();
    content.nodes.shrink_to_fit();
    content.dirs.shrink_to_fit();
    content.parts.shrink_to_fit();
    Ok(content)
}

/// The content whose root is one leaf of `len` bytes.
pub(super) fn single_leaf(root: &Cid, len: u32, file_name: &Name) -> Content {
    let mut content = nothing(root);
    let name = content.names.push(file_name.as_str()).expect("it is the first");
    let mut leaves = Interner::new(root, root.codec());
    let leaf = (len > 0).then(|| leaves.number(root, len));
    let mut pieces = leaves.into_pieces();
    let what = match leaf {
        Some(leaf) => {
            content.parts.push(pieces.piece(leaf));
            LEAF
        }
        None => empty(root),
    };
    content.files.push(Row {
        spot: Spot { name, folder: TOP },
        part: 0,
        what,
    });
    content.map = Arc::new(pieces.into_map());
    content
}

/// A content without files.
fn nothing(cid: &Cid) -> Content {
    Content {
        cid: *cid,
        map: Arc::default(),
        names: Names::default(),
        files: Vec::new(),
        nodes: Vec::new(),
        dirs: Vec::new(),
        parts: Parts::default(),
        carriers: Vec::new(),
        skeleton: Vec::new(),
        skipped: Vec::new(),
    }
}

/// What stands for an empty file of this CID.
fn empty(cid: &Cid) -> u32 {
    let of_hash = EMPTY.iter().find(|(hash, _)| *hash == cid.hash());
    of_hash.expect("all hashes are there").1
}

struct Expand<'a> {
    nodes: &'a Nodes,
    pieces: Pieces,
    /// The nodes; those that were come to are numbered by their places in `Content::skeleton`.
    cids: Pieces,
    /// Places of nodes among the carriers.
    carriers: HashMap<u32, u32>,
    content: Content,
}

/// A folder, and bytes of its path.
#[derive(Clone, Copy)]
struct Folder {
    number: u32,
    len: usize,
}

impl<'a> Expand<'a> {
    /// Counts a node to the skeleton, once. Returns its place there.
    fn visit(&mut self, node: u32) -> u32 {
        self.cids.piece(node)
    }

    fn dir(&mut self, node: u32, folder: Folder) -> Result<(), SkeletonError> {
        let nodes = self.nodes;
        match nodes.get(node)? {
            Node::Directory(entries) => {
                self.visit(node);
                let entries = nodes.entries(entries);
                self.refuse_twins(node, entries.iter().map(|entry| nodes.name(*entry)).collect())?;
                entries.iter().try_for_each(|entry| self.entry(*entry, folder))
            }
            Node::Shard(..) => {
                let mut names = Vec::new();
                self.shard_names(node, &mut Vec::new(), &mut names)?;
                self.refuse_twins(node, names)?;
                self.shard_entries(node, folder)
            }
            _ => Err(self.wrong_kind(node, "a folder")),
        }
    }

    /// Collects the names of a large folder, each of which must lie where its hash says. `above` are the positions that lead here.
    fn shard_names(&self, shard: u32, above: &mut Vec<u8>, names: &mut Vec<&'a str>) -> Result<(), SkeletonError> {
        let Node::Shard(entries, positions) = self.nodes.get(shard)? else {
            return Ok(());
        };
        for (number, entry, position) in self.nodes.placed(entries, positions) {
            above.push(position);
            match entry.linked() {
                Linked::Node(below) if entry.is_shard() => self.shard_names(below, above, names)?,
                _ => {
                    let hash = self.nodes.hash(number, entry);
                    if above
                        .iter()
                        .enumerate()
                        .any(|(level, &at)| hamt::position(hash, level) != at)
                    {
                        return Err(SkeletonError::Malformed {
                            cid: self.cids.cid(shard),
                            what: "a large folder's entry lies in the wrong place",
                        });
                    }
                    names.push(self.nodes.name(entry));
                }
            }
            above.pop();
        }
        Ok(())
    }

    fn shard_entries(&mut self, shard: u32, folder: Folder) -> Result<(), SkeletonError> {
        let nodes = self.nodes;
        self.visit(shard);
        let Node::Shard(entries, _) = nodes.get(shard)? else {
            return Ok(());
        };
        for entry in nodes.entries(entries) {
            match entry.linked() {
                Linked::Node(below) if entry.is_shard() => self.shard_entries(below, folder)?,
                _ => self.entry(*entry, folder)?,
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: Entry, folder: Folder) -> Result<(), SkeletonError> {
        let name = self.nodes.name(entry).len();
        let len = match folder.number {
            TOP => name,
            _ => folder.len + 1 + name,
        };
        if len > PATH_LEN_MAX {
            return Err(SkeletonError::Name {
                cid: match entry.linked() {
                    Linked::Leaf(number) => self.pieces.cid(number),
                    Linked::Node(number) => self.cids.cid(number),
                    Linked::Odd(at) => self.nodes.odd[at as usize].cid,
                },
                source: NameError::PathTooLong(len),
            });
        }
        let spot = Spot {
            name: entry.name,
            folder: folder.number,
        };
        let node = match entry.linked() {
            Linked::Leaf(number) => {
                self.push_file(spot, LEAF);
                self.piece(number);
                return Ok(());
            }
            Linked::Odd(at) => {
                let odd = self.nodes.odd[at as usize];
                odd.leaf_len()?;
                self.push_file(spot, empty(&odd.cid));
                return Ok(());
            }
            Linked::Node(node) => node,
        };
        match self.nodes.get(node)? {
            Node::Leaves { .. } | Node::File(_) => self.file(node, spot),
            Node::Directory(_) | Node::Shard(..) => {
                let number = self.content.dirs.len() as u32;
                self.content.dirs.push(spot);
                self.dir(node, Folder { number, len })
            }
            Node::Symlink | Node::Named | Node::Awaited => {
                self.visit(node);
                self.content.skipped.push(spot);
                Ok(())
            }
        }
    }

    fn push_file(&mut self, spot: Spot, what: u32) {
        self.content.files.push(Row {
            spot,
            part: self.content.parts.len(),
            what,
        });
    }

    fn file(&mut self, node: u32, spot: Spot) -> Result<(), SkeletonError> {
        let what = self.content.nodes.len() as u32;
        self.push_file(spot, what);
        let (cid, size) = self.file_node(node)?;
        self.content.nodes.push(NodeRow { cid, size });
        Ok(())
    }

    /// Returns the node's place in the skeleton, or with [`CARRIER`] among the carriers, and how many bytes of the file it stands for.
    fn file_node(&mut self, node: u32) -> Result<(u32, u64), SkeletonError> {
        let nodes = self.nodes;
        let Some(file) = nodes.file(nodes.get(node)?) else {
            return Err(self.wrong_kind(node, "a part of a file"));
        };
        let place = match file.inline {
            0 => self.visit(node),
            inline => self.carrier(node, inline),
        };
        for link in nodes.links(&file) {
            match link {
                FileLink::Leaf(number) => self.piece(number),
                FileLink::Part(part) => self.file_node(part.node).map(drop)?,
            }
        }
        Ok((place, file.size))
    }

    fn carrier(&mut self, node: u32, len: u32) -> u32 {
        let carriers = &mut self.content.carriers;
        let place = *self.carriers.entry(node).or_insert_with(|| {
            carriers.push((self.cids.cid(node), len));
            CARRIER | (carriers.len() as u32 - 1)
        });
        self.content.parts.push(place);
        place
    }

    fn wrong_kind(&self, node: u32, expected: &'static str) -> SkeletonError {
        wrong_kind(self.nodes, self.cids.cid(node), node, expected)
    }

    /// Two names of one folder that are the same, as they were written or in NFC.
    fn refuse_twins(&self, folder: u32, mut names: Vec<&str>) -> Result<(), SkeletonError> {
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(SkeletonError::DuplicateName {
                cid: self.cids.cid(folder),
                name: pair[0].to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// Pieces are numbered by their first occurrence.
    fn piece(&mut self, number: u32) {
        self.content.parts.push(self.pieces.piece(number));
    }
}
