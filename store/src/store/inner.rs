//! What all parts of the store share: the index, the disk, and what is held in memory for as long as somebody needs it.
//!
//! No call of [`Store`](super::Store) is made of this alone; each has a module that takes an [`Inner`] and does the work.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, RwLock, Weak},
    time::Instant,
};

use bytes::Bytes;
use modswarm_protocol::{
    Cid,
    format::{Content, Limits, Name, PackHead, PieceSet, Skeleton, SkeletonReader},
};

use super::StoreOptions;
use crate::{
    backend::{Backend, Identity},
    download,
    error::{IndexError, SkeletonReadError},
    home::HomeLock,
    index::{Index, rows},
    packs::{PackId, PackRecord},
    read::FileCache,
    room::Room,
    segments::Segments,
};

/// Nodes asked of a skeleton's reader at once.
const NODES_WANTED: usize = 1024;

#[derive(Debug)]
pub(crate) struct Inner {
    // Ended in this order: the index is closed before the lock is given back.
    pub(crate) index: Index,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) pool: rayon::ThreadPool,
    pub(crate) files: FileCache,
    pub(crate) options: StoreOptions,
    pub(crate) room: Room,
    /// Contents that somebody holds. Idle packs cost nothing.
    contents: Mutex<HashMap<Cid, Weak<Content>>>,
    /// The content whose file was found wanting last: more of its leaves are likely to be asked for. Let go by [`Inner::take_withdrawn`].
    held: Mutex<Option<Arc<Content>>>,
    downloads: Mutex<HashMap<PackId, Weak<download::State>>>,
    withdrawn: Mutex<HashMap<Cid, PieceSet>>,
    /// When packs were last looked at on behalf of readers.
    pub(crate) checked: Mutex<HashMap<PackId, Instant>>,
    /// Held for reading by what writes rows in several steps, for writing by what deletes rows that nothing needs.
    pub(crate) upkeep: RwLock<()>,
    /// Files that were edited, by number, as they were when they were read last.
    pub(crate) edits: Mutex<HashMap<i64, Identity>>,
    pub(crate) segments: Segments,
    pub(crate) lock: HomeLock,
}

impl Inner {
    pub(super) fn new(lock: HomeLock, options: StoreOptions, index: Index, pool: rayon::ThreadPool) -> Self {
        Self {
            index,
            backend: Arc::clone(&options.backend),
            pool,
            files: FileCache::new(options.open_files_max),
            room: Room::new(options.quota, options.min_free),
            options,
            contents: Mutex::default(),
            held: Mutex::default(),
            downloads: Mutex::default(),
            withdrawn: Mutex::default(),
            checked: Mutex::default(),
            upkeep: RwLock::default(),
            edits: Mutex::default(),
            segments: Segments::default(),
            lock,
        }
    }

    /// The skeleton of `root`, if all its nodes are here and whole.
    pub(crate) fn skeleton(&self, root: &Cid, name: Option<&Name>) -> Result<Option<Skeleton>, SkeletonReadError> {
        let conn = self.index.reader()?;
        // One look for all nodes: to begin one takes longer than to find a node.
        let conn = conn.unchecked_transaction().map_err(IndexError::from)?;
        let mut reader = SkeletonReader::new(*root, Limits::DEFAULT);
        if let Some(name) = name {
            reader = reader.named(name.clone());
        }
        loop {
            let wanted = reader.wanted(NODES_WANTED);
            if wanted.is_empty() {
                break;
            }
            for cid in wanted {
                match rows::node(&conn, &cid)? {
                    Some(bytes) if cid.verifies(&bytes) => reader.add(&cid, &bytes)?,
                    _ => return Ok(None),
                };
            }
        }
        Ok(Some(reader.finish()?))
    }

    /// What a pack says of itself, if its nodes are here and whole; its content need not be.
    pub(crate) fn pack_head(&self, pack: &Cid) -> Result<Option<PackHead>, IndexError> {
        let conn = self.index.reader()?;
        PackHead::read(pack, |cid| {
            let bytes = rows::node(&conn, cid)?;
            Ok(bytes.filter(|bytes| cid.verifies(bytes)))
        })
    }

    pub(crate) fn content(&self, record: &PackRecord) -> Result<Option<Arc<Content>>, SkeletonReadError> {
        self.content_named(&record.content, Name::new(&record.name).ok().as_ref())
    }

    /// The content `cid`; `name` is what its only file is called if it is a plain file.
    pub(crate) fn content_named(
        &self,
        cid: &Cid,
        name: Option<&Name>,
    ) -> Result<Option<Arc<Content>>, SkeletonReadError> {
        if let Some(content) = self.cached_content(cid) {
            // A plain file may have another name elsewhere; folders name their own files.
            let same_name = name.is_none_or(|name| content.files().all(|f| f.path().as_str() == name.as_str()));
            if content.node_cids().len() > 0 && content.files().next().is_none_or(|f| f.cid() != *cid) || same_name {
                return Ok(Some(content));
            }
        }
        let Some(skeleton) = self.skeleton(cid, name)? else {
            return Ok(None);
        };
        self.know_content(&skeleton.content);
        Ok(Some(skeleton.content))
    }

    /// Spares others reading the skeleton of a content while somebody holds it.
    pub(crate) fn know_content(&self, content: &Arc<Content>) {
        let mut contents = crate::lock(&self.contents);
        contents.retain(|_, held| held.strong_count() > 0);
        contents.insert(content.cid(), Arc::downgrade(content));
    }

    /// The content, if somebody holds it.
    pub(crate) fn cached_content(&self, cid: &Cid) -> Option<Arc<Content>> {
        crate::lock(&self.contents).get(cid)?.upgrade()
    }

    /// Spares those who come next reading the skeleton again.
    pub(crate) fn hold_for_a_while(&self, content: &Arc<Content>) {
        *crate::lock(&self.held) = Some(Arc::clone(content));
    }

    /// The file bytes that the foreign node `cid` carries in itself.
    pub(crate) fn carried(&self, cid: &Cid) -> Result<Vec<u8>, IndexError> {
        let missing = || IndexError::Other(format!("node {cid} is missing or damaged"));
        let node = rows::node(&*self.index.reader()?, cid)?.filter(|bytes| cid.verifies(bytes));
        let node = node.ok_or_else(missing)?;
        let bytes = modswarm_protocol::format::read::inline_bytes(&node).ok_or_else(missing)?;
        Ok(bytes.to_vec())
    }

    /// Whether the index knows of no leaf at all.
    pub(crate) fn holds_no_leaf(&self) -> Result<bool, IndexError> {
        let conn = self.index.reader()?;
        Ok(conn.query_row("SELECT NOT EXISTS (SELECT 1 FROM leaves)", [], |row| row.get(0))?)
    }

    /// Notes pieces that can no longer be read.
    pub(crate) fn withdraw(&self, content: Cid, pieces: usize, lost: impl IntoIterator<Item = u32>) {
        let mut withdrawn = crate::lock(&self.withdrawn);
        let set = withdrawn
            .entry(content)
            .or_insert_with(|| PieceSet::repeat(false, pieces));
        for piece in lost {
            if let Some(mut bit) = set.get_mut(piece as usize) {
                *bit = true;
            }
        }
    }

    /// The content is whole again: nothing of it is to be withdrawn.
    pub(crate) fn forget_withdrawn(&self, content: &Cid) {
        crate::lock(&self.withdrawn).remove(content);
    }

    /// What was withdrawn since the last call.
    pub(super) fn take_withdrawn(&self) -> HashMap<Cid, PieceSet> {
        let withdrawn = std::mem::take(&mut *crate::lock(&self.withdrawn));
        if withdrawn.is_empty() {
            *crate::lock(&self.held) = None;
        }
        withdrawn
    }

    pub(crate) fn open_download(&self, id: PackId) -> Option<Arc<download::State>> {
        crate::lock(&self.downloads)
            .get(&id)?
            .upgrade()
            .filter(|state| !state.has_ended())
    }

    /// A leaf that an open download has written and not committed.
    pub(crate) fn fresh_leaf(&self, cid: &Cid) -> Option<Bytes> {
        let open: Vec<_> = crate::lock(&self.downloads)
            .values()
            .filter_map(Weak::upgrade)
            .collect();
        open.iter().find_map(|state| state.read_fresh(cid))
    }

    pub(crate) fn register_download(&self, id: PackId, state: &Arc<download::State>) {
        let mut downloads = crate::lock(&self.downloads);
        downloads.retain(|_, held| held.strong_count() > 0);
        downloads.insert(id, Arc::downgrade(state));
    }
}
