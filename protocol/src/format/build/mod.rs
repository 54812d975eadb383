//! From leaves to a pack: file nodes, directories, the pack's root.
//!
//! It owns how DAGs are laid out: files balanced and [`FILE_LINKS_MAX`](super::FILE_LINKS_MAX) wide, directories plain up to
//! [`PLAIN_DIRECTORY_LEN_MAX`](super::PLAIN_DIRECTORY_LEN_MAX) and HAMT beyond, as IPIP-499 has it. It neither cuts nor hashes
//! files. What it has built it reads back with [`SkeletonReader`], so that nothing is shared that others would refuse.

use std::{
    collections::{BTreeMap, HashSet, btree_map},
    sync::Arc,
};

use bytes::Bytes;
use thiserror::Error;

use super::{
    MAX_BLOCK_LEN, MAX_MANIFEST_LEN,
    cid::{Cid, Codec, HashKind},
    content::Content,
    dagpb::{OutLink, encode_node},
    limits::Limits,
    path::PackPath,
    pieces::Leaf,
    read::{SkeletonError, SkeletonReader},
    unixfs::DIRECTORY,
};

mod dirs;
mod files;

use files::FileTree;

/// Why files cannot be made into a content.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BuildError {
    /// A path that is a file and also a file or a folder.
    #[error("{0:?} is there twice; rename one of the two")]
    Clash(PackPath),
    /// More than [`Limits`] allow.
    #[error("this is too large for one pack: {what}, at most {max}; share it in several packs")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        max: u64,
    },
    /// A leaf that is empty, too long, not raw or of another hash: the caller's mistake.
    #[error("a leaf of {0} bytes cannot be part of this pack")]
    Leaf(u32),
    /// Names made so that their hashes collide.
    #[error("some names in folder {0:?} cannot be stored together, since their hashes are the same; rename them")]
    Collision(String),
    /// What was built cannot be read: a fault of this program.
    #[error("the pack that was built cannot be read back ({0}); this is a fault in modswarm, please report it")]
    Unreadable(String),
}

/// Collects files and folders, in any order, into a content.
#[derive(Debug)]
pub struct ContentBuilder {
    limits: Limits,
    nodes: Nodes,
    root: Folder,
    entries: u64,
    parts: u64,
}

/// A content and the nodes that it consists of.
#[derive(Clone, Debug)]
pub struct BuiltContent {
    /// The content CID; its node is the last of `nodes`.
    pub cid: Cid,
    /// All distinct nodes, children before parents.
    pub nodes: Vec<(Cid, Bytes)>,
    /// Bytes of the whole DAG, repetitions counted, as the link to it says.
    pub tsize: u64,
    /// The files.
    pub content: Content,
}

/// A pack's own blocks.
#[derive(Clone, Debug)]
pub struct BuiltPack {
    /// The pack CID.
    pub cid: Cid,
    /// The root node, pack.json and, if given, pack.sig.
    pub blocks: Vec<(Cid, Bytes)>,
}

/// Distinct nodes in the order in which they were made.
#[derive(Debug)]
struct Nodes {
    hash: HashKind,
    list: Vec<(Cid, Bytes)>,
    seen: HashSet<Cid>,
}

#[derive(Debug, Default)]
struct Folder(BTreeMap<Box<str>, Item>);

#[derive(Debug)]
enum Item {
    File { cid: Cid, tsize: u64 },
    Folder(Folder),
}

impl Nodes {
    /// Keeps a node and returns its CID and length.
    fn push(&mut self, bytes: Vec<u8>) -> (Cid, u64) {
        let cid = Cid::of(Codec::DagPb, self.hash, &bytes);
        let len = bytes.len() as u64;
        if self.seen.insert(cid) {
            self.list.push((cid, bytes.into()));
        }
        (cid, len)
    }
}

impl ContentBuilder {
    /// A builder whose nodes are hashed with `hash`, as the leaves must be.
    pub fn new(hash: HashKind) -> Self {
        Self::with_limits(hash, Limits::DEFAULT)
    }

    /// A builder with limits of its own.
    pub fn with_limits(hash: HashKind, limits: Limits) -> Self {
        let nodes = Nodes {
            hash,
            list: Vec::new(),
            seen: HashSet::new(),
        };
        Self {
            limits,
            nodes,
            root: Folder::default(),
            entries: 0,
            parts: 0,
        }
    }

    /// Adds a file made of `leaves`, in order; none for an empty file. Returns the file's own CID.
    ///
    /// # Errors
    /// See [`BuildError`]. The builder is of no use after one.
    pub fn add_file(&mut self, path: PackPath, leaves: impl IntoIterator<Item = Leaf>) -> Result<Cid, BuildError> {
        let hash = self.nodes.hash;
        let mut tree = FileTree::default();
        for leaf in leaves {
            let whole = leaf.len > 0 && leaf.len as usize <= MAX_BLOCK_LEN;
            if !whole || leaf.cid.codec() != Codec::Raw || leaf.cid.hash() != hash {
                return Err(BuildError::Leaf(leaf.len));
            }
            self.parts += 1;
            if self.parts > self.limits.parts {
                return Err(BuildError::TooLarge {
                    what: "blocks in files",
                    max: self.limits.parts,
                });
            }
            tree.push_leaf(leaf, &mut self.nodes);
        }
        let (cid, tsize) = match tree.finish(&mut self.nodes) {
            Some(root) => (root.cid, root.tsize),
            None => (Cid::new(Codec::Raw, hash, *hash.empty_digest()), 0),
        };
        let (folder, name) = self.folder_of(&path)?;
        match folder.0.entry(name.into()) {
            btree_map::Entry::Vacant(place) => place.insert(Item::File { cid, tsize }),
            btree_map::Entry::Occupied(_) => return Err(BuildError::Clash(path)),
        };
        self.count_entry()?;
        Ok(cid)
    }

    /// Adds a folder. Folders that files lie in need not be added.
    ///
    /// # Errors
    /// See [`BuildError`]. The builder is of no use after one.
    pub fn add_dir(&mut self, path: PackPath) -> Result<(), BuildError> {
        let (folder, name) = self.folder_of(&path)?;
        match folder.0.entry(name.into()) {
            btree_map::Entry::Vacant(place) => {
                place.insert(Item::Folder(Folder::default()));
                self.count_entry()
            }
            btree_map::Entry::Occupied(found) if matches!(found.get(), Item::Folder(_)) => Ok(()),
            btree_map::Entry::Occupied(_) => Err(BuildError::Clash(path)),
        }
    }

    fn count_entry(&mut self) -> Result<(), BuildError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(BuildError::TooLarge {
                what: "files and folders",
                max: self.limits.entries,
            });
        }
        Ok(())
    }

    /// The folder that `path` lies in, made if need be, and the last name.
    fn folder_of<'a>(&mut self, path: &'a PackPath) -> Result<(&mut Folder, &'a str), BuildError> {
        let mut names = path.names();
        let last = names.next_back().expect("a path has at least one name");
        if names.clone().count() > self.limits.depth as usize {
            return Err(BuildError::TooLarge {
                what: "folders nested in folders",
                max: self.limits.depth.into(),
            });
        }
        let mut folder = &mut self.root;
        for name in names {
            match folder
                .0
                .entry(name.into())
                .or_insert_with(|| Item::Folder(Folder::default()))
            {
                Item::Folder(inner) => folder = inner,
                Item::File { .. } => return Err(BuildError::Clash(path.clone())),
            }
        }
        Ok((folder, last))
    }

    /// Makes the directories.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn finish(mut self) -> Result<BuiltContent, BuildError> {
        let (cid, tsize) = self.root.build(&mut self.nodes, "")?;
        // An equal folder deeper down may have been made before.
        let nodes = self.nodes.list;
        let content = read_back(cid, &nodes, self.limits)?;
        Ok(BuiltContent {
            cid,
            nodes,
            tsize,
            content,
        })
    }
}

impl Folder {
    fn build(&self, nodes: &mut Nodes, path: &str) -> Result<(Cid, u64), BuildError> {
        let mut entries = Vec::with_capacity(self.0.len());
        for (name, item) in &self.0 {
            let (cid, tsize) = match item {
                Item::File { cid, tsize } => (*cid, *tsize),
                Item::Folder(folder) => folder.build(nodes, &format!("{path}{name}/"))?,
            };
            entries.push((&**name, cid, tsize));
        }
        dirs::directory(&entries, nodes).map_err(|_| BuildError::Collision(path.to_owned()))
    }
}

fn read_back(root: Cid, nodes: &[(Cid, Bytes)], limits: Limits) -> Result<Content, BuildError> {
    let read = || {
        let mut reader = SkeletonReader::of_content(root, limits);
        // Parents stand behind their children.
        for (cid, bytes) in nodes.iter().rev() {
            reader.add(cid, bytes)?;
        }
        reader.finish()
    };
    match read() {
        Ok(skeleton) => Ok(Arc::unwrap_or_clone(skeleton.content)),
        Err(SkeletonError::TooLarge { what, max }) => Err(BuildError::TooLarge { what, max }),
        Err(e) => Err(BuildError::Unreadable(e.to_string())),
    }
}

/// Wraps a content into a pack: the root `{content/, pack.json, pack.sig?}`.
///
/// # Panics
/// If pack.json or pack.sig is longer than [`MAX_MANIFEST_LEN`].
pub fn build_pack(content: &BuiltContent, manifest_bytes: &[u8], sig: Option<&[u8]>) -> BuiltPack {
    let hash = content.cid.hash();
    let files = [("pack.json", Some(manifest_bytes)), ("pack.sig", sig)];
    let files: Vec<(&str, Cid, Bytes)> = files
        .into_iter()
        .filter_map(|(name, bytes)| {
            let bytes = Bytes::copy_from_slice(bytes?);
            assert!(bytes.len() <= MAX_MANIFEST_LEN, "{name} is too long");
            Some((name, Cid::of(Codec::Raw, hash, &bytes), bytes))
        })
        .collect();
    let content_link = OutLink {
        cid: content.cid,
        name: b"content",
        tsize: content.tsize,
    };
    let links = files.iter().map(|(name, cid, bytes)| OutLink {
        cid: *cid,
        name: name.as_bytes(),
        tsize: bytes.len() as u64,
    });
    let root = encode_node(std::iter::once(content_link).chain(links), &DIRECTORY);
    let cid = Cid::of(Codec::DagPb, hash, &root);
    let mut blocks = vec![(cid, Bytes::from(root))];
    blocks.extend(files.into_iter().map(|(_, cid, bytes)| (cid, bytes)));
    BuiltPack { cid, blocks }
}

#[cfg(test)]
mod tests;
