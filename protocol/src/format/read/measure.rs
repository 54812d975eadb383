//! Adding up what a skeleton stands for, over distinct nodes only.
//!
//! A node that is linked to a million times is looked at once. Whatever passes is safe to expand: the expansion visits no more than
//! a fixed multiple of what was counted here.

use std::collections::HashMap;

use super::{
    super::{
        cid::Cid,
        hamt,
        limits::{FILE_DEPTH_MAX, Limits},
    },
    SkeletonError,
    nodes::{Entry, FileNode, Linked, Node, Nodes},
};

/// What lies in a folder, or in a part of one.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    entries: u64,
    parts: u64,
    path_bytes: u64,
    /// Folders nested in it.
    depth: u32,
    /// Shards nested in it.
    shards: usize,
}

/// What lies in a file, or in a part of one.
#[derive(Clone, Copy, Debug)]
struct FileTotals {
    parts: u64,
    size: u64,
    /// Nodes nested in it, itself counted.
    levels: u32,
}

/// Checks everything below `root`, which is a folder or a file.
pub(super) fn measure(nodes: &Nodes, root: u32, limits: &Limits) -> Result<(), SkeletonError> {
    let mut measure = Measure {
        nodes,
        limits,
        dirs: HashMap::new(),
        files: HashMap::new(),
    };
    match nodes.get(root)? {
        Node::Leaves { .. } | Node::File(_) => measure.file(root, 0).map(drop),
        Node::Directory(_) | Node::Shard(..) => measure.dir(root, 0, 0).map(drop),
        _ => Err(wrong_kind(nodes, nodes.cid(root), root, "a file or a folder")),
    }
}

/// That `node`, which is known, is not what it should be.
pub(super) fn wrong_kind(nodes: &Nodes, cid: Cid, node: u32, expected: &'static str) -> SkeletonError {
    match nodes.get(node) {
        Ok(found) => SkeletonError::WrongKind {
            cid,
            expected,
            found: found.kind(),
        },
        Err(e) => e,
    }
}

/// Nodes by number, with what was added up of them.
struct Measure<'a> {
    nodes: &'a Nodes,
    limits: &'a Limits,
    dirs: HashMap<u32, Totals>,
    /// Those of more than one level; the others are as soon added up again.
    files: HashMap<u32, FileTotals>,
}

impl Measure<'_> {
    /// `depth` folders and, within its folder, `level` shards lie above.
    fn dir(&mut self, node: u32, depth: u32, level: usize) -> Result<Totals, SkeletonError> {
        let totals = match self.dirs.get(&node) {
            Some(totals) => *totals,
            None => {
                // Checked on the way down as well, so that the recursion is bounded.
                self.check_depth(node, depth, level)?;
                let totals = self.add_up(node, depth, level)?;
                self.dirs.insert(node, totals);
                totals
            }
        };
        self.check_depth(node, depth + totals.depth, level + totals.shards)?;
        Ok(totals)
    }

    fn check_depth(&self, node: u32, depth: u32, level: usize) -> Result<(), SkeletonError> {
        if depth > self.limits.depth {
            return Err(SkeletonError::TooLarge {
                what: "folders nested in folders",
                max: self.limits.depth.into(),
            });
        }
        if level >= hamt::LEVELS {
            return Err(SkeletonError::Malformed {
                cid: self.nodes.cid(node),
                what: "a large folder is nested too deeply",
            });
        }
        Ok(())
    }

    fn add_up(&mut self, node: u32, depth: u32, level: usize) -> Result<Totals, SkeletonError> {
        let nodes = self.nodes;
        let mut totals = Totals::default();
        let (Node::Directory(entries) | Node::Shard(entries, _)) = nodes.get(node)? else {
            return Err(wrong_kind(nodes, nodes.cid(node), node, "a folder"));
        };
        for entry in nodes.entries(entries) {
            let below = match entry.linked() {
                Linked::Node(shard) if entry.is_shard() => self.shard(shard, depth, level + 1)?,
                _ => self.entry(*entry, depth)?,
            };
            self.add(&mut totals, &below)?;
        }
        Ok(totals)
    }

    fn add(&self, totals: &mut Totals, below: &Totals) -> Result<(), SkeletonError> {
        totals.entries += below.entries;
        totals.parts += below.parts;
        totals.path_bytes += below.path_bytes;
        totals.depth = totals.depth.max(below.depth);
        totals.shards = totals.shards.max(below.shards);
        let bounds = [
            (totals.entries, "files and folders", self.limits.entries),
            (totals.parts, "blocks in files", self.limits.parts),
            (totals.path_bytes, "bytes of names", self.limits.path_bytes),
        ];
        match bounds.into_iter().find(|(total, _, max)| total > max) {
            Some((_, what, max)) => Err(SkeletonError::TooLarge { what, max }),
            None => Ok(()),
        }
    }

    fn wrong_kind(&self, node: u32, expected: &'static str) -> SkeletonError {
        wrong_kind(self.nodes, self.nodes.cid(node), node, expected)
    }

    /// A part of a folder, below its root.
    fn shard(&mut self, node: u32, depth: u32, level: usize) -> Result<Totals, SkeletonError> {
        match self.nodes.get(node)? {
            // Endless nothing would be free to ask for.
            Node::Shard(entries, _) if entries.len() == 0 => {
                return Err(SkeletonError::Malformed {
                    cid: self.nodes.cid(node),
                    what: "a part of a large folder is empty",
                });
            }
            Node::Shard(..) => {}
            _ => return Err(self.wrong_kind(node, "a part of a large folder")),
        }
        let totals = self.dir(node, depth, level)?;
        Ok(Totals {
            shards: totals.shards + 1,
            ..totals
        })
    }

    /// An entry with its name and all below it, as its folder counts it.
    fn entry(&mut self, entry: Entry, depth: u32) -> Result<Totals, SkeletonError> {
        let name = self.nodes.name(entry).len() as u64;
        let mut totals = Totals {
            entries: 1,
            path_bytes: name,
            ..Totals::default()
        };
        let node = match entry.linked() {
            Linked::Leaf(_) => {
                totals.parts = 1;
                return Ok(totals);
            }
            Linked::Odd(at) => {
                self.nodes.odd[at as usize].leaf_len()?;
                return Ok(totals);
            }
            Linked::Node(node) => node,
        };
        match self.nodes.get(node)? {
            Node::Leaves { .. } | Node::File(_) => totals.parts = self.file(node, 0)?.parts,
            Node::Directory(_) | Node::Shard(..) => {
                let below = self.dir(node, depth + 1, 0)?;
                totals.entries += below.entries;
                totals.parts = below.parts;
                totals.path_bytes += below.path_bytes + below.entries * (name + 1);
                totals.depth = below.depth + 1;
            }
            Node::Symlink | Node::Named | Node::Awaited => {}
        }
        Ok(totals)
    }

    /// `level` nodes of the same file lie above.
    fn file(&mut self, node: u32, level: u32) -> Result<FileTotals, SkeletonError> {
        let totals = match self.files.get(&node) {
            Some(totals) => *totals,
            None => {
                if level >= FILE_DEPTH_MAX {
                    return Err(SkeletonError::FileTooDeep(self.nodes.cid(node)));
                }
                let Some(file) = self.nodes.file(self.nodes.get(node)?) else {
                    return Err(self.wrong_kind(node, "a part of a file"));
                };
                let totals = self.file_node(&file, level)?;
                if totals.levels > 1 {
                    self.files.insert(node, totals);
                }
                totals
            }
        };
        if level + totals.levels > FILE_DEPTH_MAX {
            return Err(SkeletonError::FileTooDeep(self.nodes.cid(node)));
        }
        Ok(totals)
    }

    fn file_node(&mut self, file: &FileNode, level: u32) -> Result<FileTotals, SkeletonError> {
        let nodes = self.nodes;
        let mut totals = FileTotals {
            parts: u64::from(file.inline > 0) + u64::from(file.leaves),
            size: file.size,
            levels: 1,
        };
        for part in nodes.parts_below(file) {
            let below = self.file(part.node, level + 1)?;
            if below.size != part.size {
                return Err(SkeletonError::LyingSize {
                    cid: nodes.cid(part.node),
                    said: part.size,
                    found: below.size,
                });
            }
            totals.parts += below.parts;
            totals.levels = totals.levels.max(below.levels + 1);
        }
        if totals.parts > self.limits.parts {
            return Err(SkeletonError::TooLarge {
                what: "blocks in one file",
                max: self.limits.parts,
            });
        }
        Ok(totals)
    }
}
