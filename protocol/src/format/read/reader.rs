//! The walk over a skeleton.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

use super::{
    super::{
        MAX_BLOCK_LEN, MAX_MANIFEST_LEN,
        cid::{Cid, Codec},
        content::Content,
        limits::Limits,
        manifest::{Manifest, ManifestError},
        path::Name,
    },
    SkeletonError,
    expand::{expand, single_leaf},
    measure::{measure, wrong_kind},
    nodes::{Linked, Node, Nodes},
};

/// All of a pack but its leaves.
#[derive(Clone, Debug)]
pub struct Skeleton {
    /// What the reader was made for.
    pub root: Cid,
    /// What the pack says of itself; none if the root is a plain file or folder.
    pub pack: Option<PackHead>,
    /// The files.
    pub content: Arc<Content>,
}

/// A pack's root and what lies beside its content. Its blocks do not count as the content's nodes.
#[derive(Clone, Debug)]
pub struct PackHead {
    /// The root node's bytes; its CID is the pack CID.
    pub root_bytes: Bytes,
    /// What pack.json says.
    pub manifest: Manifest,
    /// The exact bytes of pack.json.
    pub manifest_bytes: Bytes,
    /// The CID of pack.json.
    pub manifest_cid: Cid,
    /// pack.sig, not checked.
    pub sig: Option<(Cid, Bytes)>,
}

/// The CIDs of pack.json and of pack.sig, if there is one, that the root node of a pack names. Nothing if `bytes` is not such a node.
pub fn pack_parts(root: &Cid, bytes: &[u8]) -> Option<(Cid, Option<Cid>)> {
    let mut nodes = Nodes::new(root);
    let node = nodes.parse(root, bytes).ok()?;
    let links = pack_links(&nodes, node, bytes)?;
    Some((links.manifest, links.sig))
}

impl PackHead {
    /// Reads the head of a pack alone, from the blocks that `block` gives; it has checked each against its CID. None if one of them is not there, or if they are
    /// not a pack's.
    ///
    /// # Errors
    /// Those of `block`.
    pub fn read<E>(root: &Cid, mut block: impl FnMut(&Cid) -> Result<Option<Bytes>, E>) -> Result<Option<Self>, E> {
        let Some(root_bytes) = block(root)? else {
            return Ok(None);
        };
        let mut nodes = Nodes::new(root);
        let node = nodes.parse(root, &root_bytes).ok();
        let Some(links) = node.and_then(|node| pack_links(&nodes, node, &root_bytes)) else {
            return Ok(None);
        };
        let Some(manifest_bytes) = block(&links.manifest)? else {
            return Ok(None);
        };
        let sig = match links.sig {
            Some(sig) => match block(&sig)? {
                Some(bytes) => Some((sig, bytes)),
                None => return Ok(None),
            },
            None => None,
        };
        let manifest = Manifest::from_bytes(&manifest_bytes).ok();
        Ok(manifest
            .filter(|manifest| manifest.content == links.content)
            .map(|manifest| Self {
                root_bytes: links.root_bytes,
                manifest,
                manifest_bytes,
                manifest_cid: links.manifest,
                sig,
            }))
    }
}

/// What [`SkeletonReader::add`] did with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It belongs to the skeleton: keep it as a node.
    Skeleton,
    /// It is a foreign block that carries file bytes: keep it, and do not count it as skeleton.
    FileBytes,
    /// It was not wanted, or is known already.
    Unwanted,
}

/// Reads a skeleton from its blocks. See the [module](super) for the contract.
#[derive(Debug)]
pub struct SkeletonReader {
    root: Cid,
    limits: Limits,
    file_name: Option<Name>,
    may_be_pack: bool,
    nodes: Nodes,
    /// pack.json and pack.sig, or the root if it is a leaf: none until they arrive.
    raw: Vec<(Cid, Option<Bytes>)>,
    /// What is to be named as wanted.
    queue: VecDeque<Wanted>,
    missing: u64,
    skeleton_bytes: u64,
    /// Entries of the distinct folders that were added: the content has at least as many.
    entries: u64,
    head: Head,
}

/// A block that is needed.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    Node(u32),
    /// Its place in `SkeletonReader::raw`.
    Raw(usize),
}

/// Whether the root is a pack's.
#[derive(Debug)]
enum Head {
    /// The root is not known, or is no pack's.
    None,
    /// It looks like one: what pack.json says will decide.
    Candidate(PackLinks),
    /// It is one.
    Pack(PackLinks, Box<Manifest>),
}

#[derive(Clone, Debug)]
struct PackLinks {
    root_bytes: Bytes,
    content: Cid,
    manifest: Cid,
    sig: Option<Cid>,
}

impl SkeletonReader {
    /// A reader of what `root` names: a pack, a folder or a file.
    pub fn new(root: Cid, limits: Limits) -> Self {
        let mut reader = Self {
            root,
            limits,
            file_name: None,
            may_be_pack: true,
            nodes: Nodes::new(&root),
            raw: Vec::new(),
            queue: VecDeque::new(),
            missing: 0,
            skeleton_bytes: 0,
            entries: 0,
            head: Head::None,
        };
        match root.codec() {
            Codec::DagPb => {
                let root = reader.nodes.number(&root);
                reader.want_nodes(&[root]);
            }
            Codec::Raw => reader.want_raw(root),
        }
        reader
    }

    /// A reader of a content: a folder that happens to look like a pack is taken for what it is.
    pub fn of_content(root: Cid, limits: Limits) -> Self {
        Self {
            may_be_pack: false,
            ..Self::new(root, limits)
        }
    }

    /// Says how the file is called, if `root` turns out to be a file. Its CID otherwise.
    #[must_use]
    pub fn named(mut self, name: Name) -> Self {
        self.file_name = Some(name);
        self
    }

    /// Up to `max` blocks to fetch, breadth first; each is named once. A caller that fails to fetch one tries again by itself.
    pub fn wanted(&mut self, max: usize) -> Vec<Cid> {
        let mut wanted = Vec::new();
        while wanted.len() < max
            && let Some(next) = self.queue.pop_front()
        {
            match next {
                Wanted::Node(node) if self.nodes.is_awaited(node) => wanted.push(self.nodes.cid(node)),
                Wanted::Raw(at) if self.raw[at].1.is_none() => wanted.push(self.raw[at].0),
                Wanted::Node(_) | Wanted::Raw(_) => {}
            }
        }
        wanted
    }

    /// How many blocks are known to be needed and have not been added, named by [`SkeletonReader::wanted`] or not.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// Whether not even the root was added.
    pub fn knows_nothing(&self) -> bool {
        self.is_awaited(&self.root)
    }

    /// Bytes of skeleton that were added.
    pub fn skeleton_bytes(&self) -> u64 {
        self.skeleton_bytes
    }

    /// Whether all blocks were added.
    pub fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// The content CID, as soon as it is known.
    pub fn content_cid(&self) -> Option<Cid> {
        match &self.head {
            Head::Pack(links, _) => Some(links.content),
            Head::Candidate(_) => None,
            Head::None => (!self.is_awaited(&self.root)).then_some(self.root),
        }
    }

    /// What pack.json says, as soon as it is known.
    pub fn manifest(&self) -> Option<&Manifest> {
        match &self.head {
            Head::Pack(_, manifest) => Some(manifest),
            _ => None,
        }
    }

    /// Takes a block, which the caller has checked against its CID. One that was not named yet may be added, too.
    ///
    /// # Errors
    /// See [`SkeletonError`]. The reader is of no use after one.
    pub fn add(&mut self, cid: &Cid, bytes: &[u8]) -> Result<Added, SkeletonError> {
        if !self.is_awaited(cid) {
            return Ok(Added::Unwanted);
        }
        if bytes.len() > MAX_BLOCK_LEN {
            return Err(SkeletonError::BlockTooLong {
                cid: *cid,
                len: bytes.len() as u64,
            });
        }
        self.missing -= 1;
        match cid.codec() {
            Codec::DagPb => self.add_node(cid, bytes),
            Codec::Raw => self.add_raw(cid, bytes),
        }
    }

    fn add_node(&mut self, cid: &Cid, bytes: &[u8]) -> Result<Added, SkeletonError> {
        let number = self.nodes.number(cid);
        let node = self.nodes.parse(cid, bytes)?;
        let carries = self.nodes.file(node).is_some_and(|file| file.inline > 0);
        if !carries {
            self.count_skeleton(bytes.len())?;
        }
        let may_be_pack = self.may_be_pack && *cid == self.root;
        let links = may_be_pack.then(|| pack_links(&self.nodes, node, bytes)).flatten();
        let children = match links {
            Some(links) => {
                self.want_raw(links.manifest);
                links.sig.into_iter().for_each(|sig| self.want_raw(sig));
                let content = self.nodes.number(&links.content);
                self.head = Head::Candidate(links);
                vec![content]
            }
            None => {
                self.count_entries(node)?;
                self.nodes.children(node)
            }
        };
        self.nodes.know(number, node, bytes.len() as u32);
        self.want_nodes(&children);
        if self.nodes.wanted() > self.limits.nodes {
            return Err(SkeletonError::TooLarge {
                what: "nodes",
                max: self.limits.nodes,
            });
        }
        Ok(if carries { Added::FileBytes } else { Added::Skeleton })
    }

    fn add_raw(&mut self, cid: &Cid, bytes: &[u8]) -> Result<Added, SkeletonError> {
        let bytes = Bytes::copy_from_slice(bytes);
        if let Some((_, held)) = self.raw.iter_mut().find(|(known, _)| known == cid) {
            *held = Some(bytes.clone());
        }
        if *cid == self.root {
            return Ok(Added::FileBytes);
        }
        if bytes.len() > MAX_MANIFEST_LEN {
            return Err(ManifestError::TooLong(bytes.len()).into());
        }
        self.count_skeleton(bytes.len())?;
        if let Head::Candidate(links) = &self.head
            && links.manifest == *cid
        {
            self.decide(links.clone(), &bytes)?;
        }
        Ok(Added::Skeleton)
    }

    /// Whether this is a pack, now that pack.json is known.
    fn decide(&mut self, links: PackLinks, manifest: &[u8]) -> Result<(), SkeletonError> {
        match Manifest::from_bytes(manifest) {
            Ok(manifest) if manifest.content != links.content => {
                return Err(SkeletonError::OtherContent {
                    said: manifest.content,
                    found: links.content,
                });
            }
            Ok(manifest) => self.head = Head::Pack(links, Box::new(manifest)),
            // Somebody's own file of that name, in a plain folder.
            Err(ManifestError::NotAManifest(_)) => {
                self.head = Head::None;
                let root = self.nodes.number(&self.root);
                let children = self.nodes.children(self.nodes.get(root)?);
                self.want_nodes(&children);
            }
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }

    /// The skeleton.
    ///
    /// # Errors
    /// See [`SkeletonError`].
    pub fn finish(mut self) -> Result<Skeleton, SkeletonError> {
        if self.missing > 0 {
            return Err(SkeletonError::Incomplete(self.missing));
        }
        let root = self.root;
        let own_name = || Name::new(&root.to_string()).expect("a CID is letters and digits");
        let file_name = self.file_name.clone().unwrap_or_else(own_name);
        if root.codec() == Codec::Raw {
            let len = self.held(&root)?.len() as u32;
            return Ok(Skeleton {
                root,
                pack: None,
                content: Arc::new(single_leaf(&root, len, &file_name)),
            });
        }
        let (content, pack) = match &self.head {
            Head::Pack(links, manifest) => (links.content, Some(self.pack_head(links, manifest)?)),
            _ => (root, None),
        };
        let node = self.nodes.number(&content);
        if pack.is_some() && !matches!(self.nodes.get(node)?, Node::Directory(_) | Node::Shard(..)) {
            return Err(wrong_kind(
                &self.nodes,
                content,
                node,
                "the folder with the pack's files",
            ));
        }
        measure(&self.nodes, node, &self.limits)?;
        // It is of no use any more, and may be long.
        drop(self.queue);
        Ok(Skeleton {
            root,
            pack,
            content: Arc::new(expand(self.nodes, node, &file_name)?),
        })
    }

    fn pack_head(&self, links: &PackLinks, manifest: &Manifest) -> Result<PackHead, SkeletonError> {
        let sig = match links.sig {
            Some(sig) => Some((sig, self.held(&sig)?)),
            None => None,
        };
        Ok(PackHead {
            root_bytes: links.root_bytes.clone(),
            manifest: manifest.clone(),
            manifest_bytes: self.held(&links.manifest)?,
            manifest_cid: links.manifest,
            sig,
        })
    }

    fn held(&self, cid: &Cid) -> Result<Bytes, SkeletonError> {
        let held = self
            .raw
            .iter()
            .find(|(known, _)| known == cid)
            .and_then(|(_, bytes)| bytes.clone());
        held.ok_or(SkeletonError::Incomplete(1))
    }

    fn is_awaited(&self, cid: &Cid) -> bool {
        match cid.codec() {
            Codec::DagPb => self.nodes.awaited(cid).is_some(),
            Codec::Raw => self.raw.iter().any(|(known, bytes)| known == cid && bytes.is_none()),
        }
    }

    fn want_nodes(&mut self, numbers: &[u32]) {
        for number in numbers {
            if self.nodes.want(*number) {
                self.queue.push_back(Wanted::Node(*number));
                self.missing += 1;
            }
        }
    }

    fn want_raw(&mut self, cid: Cid) {
        if self.raw.iter().all(|(known, _)| *known != cid) {
            self.queue.push_back(Wanted::Raw(self.raw.len()));
            self.raw.push((cid, None));
            self.missing += 1;
        }
    }

    /// Refuses too many entries as soon as they have come, since each is held until all nodes are there.
    fn count_entries(&mut self, node: Node) -> Result<(), SkeletonError> {
        self.entries += self.nodes.listed(node) as u64;
        if self.entries > self.limits.entries {
            return Err(SkeletonError::TooLarge {
                what: "files and folders",
                max: self.limits.entries,
            });
        }
        Ok(())
    }

    fn count_skeleton(&mut self, len: usize) -> Result<(), SkeletonError> {
        self.skeleton_bytes += len as u64;
        if self.skeleton_bytes > self.limits.skeleton_bytes {
            return Err(SkeletonError::TooLarge {
                what: "bytes of file lists",
                max: self.limits.skeleton_bytes,
            });
        }
        Ok(())
    }
}

/// The links of a pack's root, if `node` may be one: a plain directory with `content/` and an uncut pack.json.
fn pack_links(nodes: &Nodes, node: Node, bytes: &[u8]) -> Option<PackLinks> {
    let Node::Directory(entries) = node else { return None };
    let find = |name: &str, codec: Codec| {
        let mut entries = nodes.entries(entries).iter().copied();
        entries.find(|entry| {
            let is_node = matches!(entry.linked(), Linked::Node(_));
            nodes.name(*entry) == name && is_node == (codec == Codec::DagPb)
        })
    };
    let uncut = |name: &str| {
        let entry = find(name, Codec::Raw)?;
        let said = nodes.said_len(entry);
        said.is_none_or(|said| said <= MAX_MANIFEST_LEN as u64)
            .then(|| nodes.cid_of(entry))
    };
    Some(PackLinks {
        root_bytes: Bytes::copy_from_slice(bytes),
        content: nodes.cid_of(find("content", Codec::DagPb)?),
        manifest: uncut("pack.json")?,
        sig: uncut("pack.sig"),
    })
}
