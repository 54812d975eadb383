//! From measured nodes to a [`Content`]: depth first, links as stored.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    super::{
        cid::{Cid, Codec},
        content::{Content, File},
        hamt,
        intern::{Interner, KeyedState, Pieces},
        parts::{CARRIER, Parts},
        path::{Name, NameError, PackPath},
        pieces::Leaf,
    },
    SkeletonError,
    measure::wrong_kind,
    parse::{Entry, FileLink, Node, ShardContent},
    reader::Nodes,
};

/// Expands what [`super::measure::measure`] has let pass. A file as the root is called `file_name`. `leaves` are all of them, as they came.
pub(super) fn expand(nodes: &Nodes, leaves: Interner, root: &Cid, file_name: &Name) -> Result<Content, SkeletonError> {
    let mut expand = Expand::new(nodes, leaves.into_pieces(), root);
    match nodes.get(root)? {
        Node::File(_) => expand.file(root, file_name.clone().into())?,
        _ => expand.dir(root, None)?,
    }
    Ok(expand.finish())
}

/// The content whose root is one leaf of `len` bytes.
pub(super) fn single_leaf(root: &Cid, len: u32, file_name: &Name) -> Content {
    let nodes = Nodes::new(root);
    let mut leaves = Interner::new(root);
    let leaf = (len > 0).then(|| leaves.intern(Leaf { cid: *root, len }).expect("it is the first"));
    let mut expand = Expand::new(&nodes, leaves.into_pieces(), root);
    expand.leaf_file(root, leaf, len, file_name.clone().into());
    expand.finish()
}

struct Expand<'a> {
    nodes: &'a Nodes,
    pieces: Pieces,
    seen: HashSet<Cid, KeyedState>,
    carrier_index: HashMap<Cid, u32, KeyedState>,
    content: Content,
}

impl<'a> Expand<'a> {
    fn new(nodes: &'a Nodes, pieces: Pieces, root: &Cid) -> Self {
        let state = KeyedState::new(root);
        Self {
            nodes,
            pieces,
            seen: HashSet::with_hasher(state.clone()),
            carrier_index: HashMap::with_hasher(state),
            content: Content {
                cid: *root,
                map: Arc::default(),
                files: Vec::new(),
                dirs: Vec::new(),
                parts: Parts::default(),
                carriers: Vec::new(),
                node_cids: Vec::new(),
                skeleton_bytes: 0,
                skipped: Vec::new(),
            },
        }
    }

    fn finish(self) -> Content {
        let mut content = self.content;
        content.map = Arc::new(self.pieces.into_map());
        content.parts.shrink_to_fit();
        content.files.shrink_to_fit();
        content
    }

    fn visit(&mut self, cid: &Cid) -> Result<&'a Node, SkeletonError> {
        let (node, len) = self.nodes.get_with_len(cid)?;
        if self.seen.insert(*cid) {
            self.content.node_cids.push(*cid);
            self.content.skeleton_bytes += u64::from(len);
        }
        Ok(node)
    }

    fn dir(&mut self, cid: &Cid, path: Option<&PackPath>) -> Result<(), SkeletonError> {
        match self.visit(cid)? {
            Node::Directory(entries) => {
                refuse_twins(cid, entries.iter().map(|entry| &entry.name).collect())?;
                entries.iter().try_for_each(|entry| self.entry(entry, path))
            }
            Node::Shard(_) => {
                let mut names = Vec::new();
                self.shard_names(cid, &mut Vec::new(), &mut names)?;
                refuse_twins(cid, names)?;
                self.shard_entries(cid, path)
            }
            node => Err(wrong_kind(cid, "a folder", node)),
        }
    }

    /// Collects the names of a large folder, each of which must lie where its hash says. `above` are the positions that lead here.
    fn shard_names(&self, cid: &Cid, above: &mut Vec<u8>, names: &mut Vec<&'a Name>) -> Result<(), SkeletonError> {
        let Node::Shard(entries) = self.nodes.get(cid)? else {
            return Ok(());
        };
        for entry in entries {
            above.push(entry.position);
            match &entry.content {
                ShardContent::Shard(shard) => self.shard_names(shard, above, names)?,
                ShardContent::Entry { hash, entry } => {
                    if above
                        .iter()
                        .enumerate()
                        .any(|(level, &at)| hamt::position(*hash, level) != at)
                    {
                        return Err(SkeletonError::Malformed {
                            cid: *cid,
                            what: "a large folder's entry lies in the wrong place",
                        });
                    }
                    names.push(&entry.name);
                }
            }
            above.pop();
        }
        Ok(())
    }

    fn shard_entries(&mut self, cid: &Cid, path: Option<&PackPath>) -> Result<(), SkeletonError> {
        let Node::Shard(entries) = self.visit(cid)? else {
            return Ok(());
        };
        for entry in entries {
            match &entry.content {
                ShardContent::Shard(shard) => self.shard_entries(shard, path)?,
                ShardContent::Entry { entry, .. } => self.entry(entry, path)?,
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, folder: Option<&PackPath>) -> Result<(), SkeletonError> {
        let path = match folder {
            None => entry.name.clone().into(),
            Some(folder) => folder.join(&entry.name).map_err(|e: NameError| SkeletonError::Name {
                cid: entry.cid,
                source: e,
            })?,
        };
        if entry.cid.codec() == Codec::Raw {
            self.leaf_file(&entry.cid, entry.leaf, entry.leaf_len()?, path);
            return Ok(());
        }
        match self.nodes.get(&entry.cid)? {
            Node::File(_) => self.file(&entry.cid, path),
            Node::Symlink => {
                self.visit(&entry.cid)?;
                self.content.skipped.push(path);
                Ok(())
            }
            Node::Directory(_) | Node::Shard(_) => {
                self.content.dirs.push(path.clone());
                self.dir(&entry.cid, Some(&path))
            }
        }
    }

    /// A file of one leaf of this number, or of none.
    fn leaf_file(&mut self, cid: &Cid, leaf: Option<u32>, len: u32, path: PackPath) {
        let start = self.content.parts.len();
        if let Some(number) = leaf {
            self.piece(number);
        }
        self.push_file(path, cid, len.into(), start);
    }

    fn file(&mut self, cid: &Cid, path: PackPath) -> Result<(), SkeletonError> {
        let start = self.content.parts.len();
        let size = self.file_node(cid)?;
        self.push_file(path, cid, size, start);
        Ok(())
    }

    fn push_file(&mut self, path: PackPath, cid: &Cid, size: u64, start: u32) {
        let parts = start..self.content.parts.len();
        self.content.files.push(File {
            path,
            size,
            cid: *cid,
            parts,
        });
    }

    fn file_node(&mut self, cid: &Cid) -> Result<u64, SkeletonError> {
        let nodes = self.nodes;
        let Node::File(file) = nodes.get(cid)? else {
            return Err(wrong_kind(cid, "a part of a file", nodes.get(cid)?));
        };
        if file.inline > 0 {
            self.carrier(cid, file.inline);
        } else {
            self.visit(cid)?;
        }
        for link in file.links() {
            match link {
                FileLink::Leaf(number) => self.piece(number),
                FileLink::Part(part) => self.file_node(&part.cid).map(drop)?,
            }
        }
        Ok(file.size)
    }

    fn carrier(&mut self, cid: &Cid, len: u32) {
        let carriers = &mut self.content.carriers;
        let index = *self.carrier_index.entry(*cid).or_insert_with(|| {
            carriers.push((*cid, len));
            carriers.len() as u32 - 1
        });
        self.content.parts.push(CARRIER | index);
    }

    /// Pieces are numbered by their first occurrence.
    fn piece(&mut self, number: u32) {
        self.content.parts.push(self.pieces.piece(number));
    }
}

/// Two names of one folder that are the same, as they were written or in NFC.
fn refuse_twins(cid: &Cid, mut names: Vec<&Name>) -> Result<(), SkeletonError> {
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(SkeletonError::DuplicateName {
            cid: *cid,
            name: pair[0].to_string(),
        }),
        None => Ok(()),
    }
}
