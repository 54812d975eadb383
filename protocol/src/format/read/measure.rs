//! Adding up what a skeleton stands for, over distinct nodes only.
//!
//! A node that is linked to a million times is looked at once. Whatever passes is safe to expand: the expansion visits no more than
//! a fixed multiple of what was counted here.

use std::collections::HashMap;

use super::{
    super::{
        cid::{Cid, Codec},
        hamt,
        intern::KeyedState,
        limits::{FILE_DEPTH_MAX, Limits},
    },
    SkeletonError,
    parse::{Entry, FileLink, FileNode, Node, ShardContent},
    reader::Nodes,
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
pub(super) fn measure(nodes: &Nodes, root: &Cid, limits: &Limits) -> Result<(), SkeletonError> {
    let state = KeyedState::new(root);
    let mut measure = Measure {
        nodes,
        limits,
        dirs: HashMap::with_hasher(state.clone()),
        files: HashMap::with_hasher(state),
    };
    match nodes.get(root)? {
        Node::File(_) => measure.file(root, 0).map(drop),
        Node::Directory(_) | Node::Shard(_) => measure.dir(root, 0, 0).map(drop),
        node @ Node::Symlink => Err(wrong_kind(root, "a file or a folder", node)),
    }
}

pub(super) fn wrong_kind(cid: &Cid, expected: &'static str, node: &Node) -> SkeletonError {
    SkeletonError::WrongKind {
        cid: *cid,
        expected,
        found: node.kind(),
    }
}

struct Measure<'a> {
    nodes: &'a Nodes,
    limits: &'a Limits,
    dirs: HashMap<Cid, Totals, KeyedState>,
    files: HashMap<Cid, FileTotals, KeyedState>,
}

impl Measure<'_> {
    /// `depth` folders and, within its folder, `level` shards lie above.
    fn dir(&mut self, cid: &Cid, depth: u32, level: usize) -> Result<Totals, SkeletonError> {
        let totals = match self.dirs.get(cid) {
            Some(totals) => *totals,
            None => {
                // Checked on the way down as well, so that the recursion is bounded.
                self.check_depth(cid, depth, level)?;
                let totals = self.add_up(cid, depth, level)?;
                self.dirs.insert(*cid, totals);
                totals
            }
        };
        self.check_depth(cid, depth + totals.depth, level + totals.shards)?;
        Ok(totals)
    }

    fn check_depth(&self, cid: &Cid, depth: u32, level: usize) -> Result<(), SkeletonError> {
        if depth > self.limits.depth {
            return Err(SkeletonError::TooLarge {
                what: "folders nested in folders",
                max: self.limits.depth.into(),
            });
        }
        if level >= hamt::LEVELS {
            return Err(SkeletonError::Malformed {
                cid: *cid,
                what: "a large folder is nested too deeply",
            });
        }
        Ok(())
    }

    fn add_up(&mut self, cid: &Cid, depth: u32, level: usize) -> Result<Totals, SkeletonError> {
        let nodes = self.nodes;
        let mut totals = Totals::default();
        match nodes.get(cid)? {
            Node::Directory(entries) => {
                for entry in entries {
                    let below = self.entry(entry, depth)?;
                    self.add(&mut totals, &below)?;
                }
            }
            Node::Shard(entries) => {
                for entry in entries {
                    let below = match &entry.content {
                        ShardContent::Shard(shard) => self.shard(shard, depth, level + 1)?,
                        ShardContent::Entry { entry, .. } => self.entry(entry, depth)?,
                    };
                    self.add(&mut totals, &below)?;
                }
            }
            node => return Err(wrong_kind(cid, "a folder", node)),
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

    /// A part of a folder, below its root.
    fn shard(&mut self, cid: &Cid, depth: u32, level: usize) -> Result<Totals, SkeletonError> {
        match self.nodes.get(cid)? {
            // Endless nothing would be free to ask for.
            Node::Shard(entries) if entries.is_empty() => {
                return Err(SkeletonError::Malformed {
                    cid: *cid,
                    what: "a part of a large folder is empty",
                });
            }
            Node::Shard(_) => {}
            node => return Err(wrong_kind(cid, "a part of a large folder", node)),
        }
        let totals = self.dir(cid, depth, level)?;
        Ok(Totals {
            shards: totals.shards + 1,
            ..totals
        })
    }

    /// An entry with its name and all below it, as its folder counts it.
    fn entry(&mut self, entry: &Entry, depth: u32) -> Result<Totals, SkeletonError> {
        let name = entry.name.as_str().len() as u64;
        let mut totals = Totals {
            entries: 1,
            path_bytes: name,
            ..Totals::default()
        };
        if entry.cid.codec() == Codec::Raw {
            totals.parts = u64::from(entry.leaf_len()? > 0);
            return Ok(totals);
        }
        match self.nodes.get(&entry.cid)? {
            Node::File(_) => totals.parts = self.file(&entry.cid, 0)?.parts,
            Node::Symlink => {}
            Node::Directory(_) | Node::Shard(_) => {
                let below = self.dir(&entry.cid, depth + 1, 0)?;
                totals.entries += below.entries;
                totals.parts = below.parts;
                totals.path_bytes += below.path_bytes + below.entries * (name + 1);
                totals.depth = below.depth + 1;
            }
        }
        Ok(totals)
    }

    /// `level` nodes of the same file lie above.
    fn file(&mut self, cid: &Cid, level: u32) -> Result<FileTotals, SkeletonError> {
        let totals = match self.files.get(cid) {
            Some(totals) => *totals,
            None => {
                if level >= FILE_DEPTH_MAX {
                    return Err(SkeletonError::FileTooDeep(*cid));
                }
                let nodes = self.nodes;
                let totals = match nodes.get(cid)? {
                    Node::File(file) => self.file_node(file, level)?,
                    node => return Err(wrong_kind(cid, "a part of a file", node)),
                };
                self.files.insert(*cid, totals);
                totals
            }
        };
        if level + totals.levels > FILE_DEPTH_MAX {
            return Err(SkeletonError::FileTooDeep(*cid));
        }
        Ok(totals)
    }

    fn file_node(&mut self, file: &FileNode, level: u32) -> Result<FileTotals, SkeletonError> {
        let mut totals = FileTotals {
            parts: u64::from(file.inline > 0),
            size: file.size,
            levels: 1,
        };
        for link in file.links() {
            let FileLink::Part(part) = link else {
                totals.parts += 1;
                continue;
            };
            let below = self.file(&part.cid, level + 1)?;
            if below.size != part.size {
                return Err(SkeletonError::LyingSize {
                    cid: part.cid,
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
