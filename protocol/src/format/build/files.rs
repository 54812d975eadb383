//! A file's nodes: balanced, built from the leaves upwards as they come.

use super::{
    super::{FILE_LINKS_MAX, cid::Cid, dagpb::OutLink, dagpb::encode_node, pieces::Leaf, unixfs::encode_file},
    Nodes,
};

/// A leaf or a node of a file, as its parent links to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Child {
    pub(super) cid: Cid,
    /// Bytes of the file below it.
    pub(super) size: u64,
    /// Bytes of all blocks below it.
    pub(super) tsize: u64,
}

/// The open right edge of a file's tree: for each level the children that have no parent yet.
#[derive(Debug, Default)]
pub(super) struct FileTree {
    levels: Vec<Vec<Child>>,
}

impl FileTree {
    pub(super) fn push_leaf(&mut self, leaf: Leaf, nodes: &mut Nodes) {
        let size = u64::from(leaf.len);
        self.push(
            0,
            Child {
                cid: leaf.cid,
                size,
                tsize: size,
            },
            nodes,
        );
    }

    fn push(&mut self, level: usize, child: Child, nodes: &mut Nodes) {
        if self.levels.len() == level {
            self.levels.push(Vec::new());
        }
        // A full node gets its parent only when another child needs room: a file of exactly one node has no second level.
        if self.levels[level].len() == FILE_LINKS_MAX {
            let parent = self.close(level, nodes);
            self.push(level + 1, parent, nodes);
        }
        self.levels[level].push(child);
    }

    fn close(&mut self, level: usize, nodes: &mut Nodes) -> Child {
        let children = std::mem::take(&mut self.levels[level]);
        let links = children.iter().map(|child| OutLink {
            cid: child.cid,
            name: &[],
            tsize: child.tsize,
        });
        let bytes = encode_node(links, &encode_file(children.iter().map(|child| child.size)));
        let (cid, len) = nodes.push(bytes);
        let below: u64 = children.iter().map(|child| child.tsize).sum();
        Child {
            cid,
            size: children.iter().map(|child| child.size).sum(),
            tsize: below + len,
        }
    }

    /// The file's root; none for an empty file.
    pub(super) fn finish(mut self, nodes: &mut Nodes) -> Option<Child> {
        let mut level = 0;
        while level < self.levels.len() {
            if level + 1 == self.levels.len()
                && let [root] = self.levels[level][..]
            {
                return Some(root);
            }
            let parent = self.close(level, nodes);
            self.push(level + 1, parent, nodes);
            level += 1;
        }
        None
    }
}
