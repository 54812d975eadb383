//! [`Store`]: the calls that the rest of the program makes.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, RwLock, Weak},
    time::Instant,
};

use bytes::Bytes;
use modswarm_protocol::{
    Cid,
    format::{Content, Limits, Name, PackPath, PieceSet, Skeleton, SkeletonReader},
};

use crate::{
    backend::{Backend, Identity, SystemBackend},
    download::{self, Download, DownloadSpec, Preview},
    error::{
        BeginError, GcError, IndexError, MoveError, OpenError, ReadLeafError, RebuildError, RemoveError, ShareError,
        SkeletonReadError, VerifyError,
    },
    home::HomeLock,
    index::{Index, rows},
    left,
    observer::Observer,
    packs::{self, Check, Collected, Moved, NetworkId, PackId, PackRecord, Removed, Verified},
    peers::KnownPeer,
    read::{self, FileCache, Withdrawn},
    rebuild::{self, Rebuilt},
    room::Room,
    segments::{self, Segments},
    share::{self, ShareSpec, SharedPack},
};

/// How to open a store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoreOptions {
    /// Threads that hash; 0: one a core.
    pub hash_threads: usize,
    /// Files of users kept open for reading and for writing, each.
    pub open_files_max: usize,
    /// Bytes that the files of all downloads of the home may take; none: as many as there is room for.
    pub quota: Option<u64>,
    /// Bytes that downloads leave free on every disk.
    pub min_free: u64,
    /// The disk.
    pub backend: Arc<dyn Backend>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            hash_threads: 0,
            open_files_max: 64,
            quota: None,
            min_free: 0,
            backend: Arc::new(SystemBackend),
        }
    }
}

/// The blocks of one home. Cheap to clone; all calls block and may come from any thread.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
    closer: Arc<Closer>,
}

/// Commits what is pending when the last handle on the store or one of its downloads is dropped. Until then the writer may hold the store as well.
#[derive(Debug)]
pub(crate) struct Closer(Arc<Inner>);

impl Drop for Closer {
    fn drop(&mut self) {
        // What cannot be written now is lost with the process anyway: to go on trying would keep the home from others.
        if let Err(e) = self.0.index.writer.close()
            && !matches!(e, IndexError::Closed)
        {
            tracing::warn!("the store was closed before all was written: {e}");
        }
    }
}

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
    /// The content whose file was found wanting last: more of its leaves are likely to be asked for. Let go by [`Store::take_withdrawn`].
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
            let same_name = name.is_none_or(|name| content.files().iter().all(|f| f.path.as_str() == name.as_str()));
            if !content.node_cids().is_empty() && content.files().first().is_none_or(|f| f.cid != *cid) || same_name {
                return Ok(Some(content));
            }
        }
        let Some(skeleton) = self.skeleton(cid, name)? else {
            return Ok(None);
        };
        let content = Arc::new(skeleton.content);
        let mut contents = crate::lock(&self.contents);
        contents.retain(|_, held| held.strong_count() > 0);
        contents.insert(*cid, Arc::downgrade(&content));
        Ok(Some(content))
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

impl Store {
    /// Opens the home, making its index where there is none. Costs nothing that grows with the packs.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(lock: HomeLock, options: StoreOptions) -> Result<Self, OpenError> {
        let backend = Arc::clone(&options.backend);
        let mut last = 0;
        // The index is the system's, whatever the backend.
        if !lock.index_path().exists() {
            // The new one knows nothing of packs that the home may remember.
            last = left::mark(&*backend, &lock).map_err(|e| {
                IndexError::Other(format!(
                    "what {:?} remembers of packs cannot be marked: {e}",
                    lock.home()
                ))
            })?;
        }
        let index = Index::open(&lock.index_path(), Arc::clone(&backend))?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(options.hash_threads)
            .thread_name(|n| format!("modswarm-hash-{n}"))
            .build()
            .map_err(|e| OpenError::Thread(std::io::Error::other(e)))?;
        let inner = Arc::new(Inner {
            index,
            backend,
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
        });
        if last > 0 {
            // Old numbers are never used again: the plain files of what is not restored keep theirs.
            inner.index.writer.run(move |tx| {
                tx.execute(
                    "INSERT INTO sqlite_sequence (name, seq)
                     SELECT 'packs', ?1 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'packs')",
                    [last],
                )?;
                Ok::<(), IndexError>(())
            })?;
        }
        segments::recover(&inner)?;
        packs::recover(&inner)?;
        download::recover(&inner)?;
        let closer = Arc::new(Closer(inner.clone()));
        Ok(Self { inner, closer })
    }

    /// Makes the index of a home anew from its plain files and the packs' own, for when it is lost or damaged; the old one is put aside.
    ///
    /// # Errors
    /// See [`RebuildError`]; it can be run again.
    pub fn rebuild(
        lock: HomeLock,
        options: StoreOptions,
        observer: &dyn Observer,
    ) -> Result<(Self, Rebuilt), RebuildError> {
        rebuild::rebuild(lock, options, observer)
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// The home.
    pub fn home(&self) -> &Path {
        self.inner.lock.home()
    }

    /// Makes all that was written durable.
    ///
    /// # Errors
    /// What kept it from being so; what was written stays pending and is tried again.
    pub fn flush(&self) -> Result<(), IndexError> {
        self.inner.index.writer.flush()
    }

    /// [`Store::flush`], then ends the writer; later calls that write give [`IndexError::Closed`]. Dropping the last clone does the same, silently.
    ///
    /// # Errors
    /// As [`Store::flush`].
    pub fn close(&self) -> Result<(), IndexError> {
        self.inner.index.writer.close()
    }

    // Packs.

    /// Makes a folder or file a pack, in place. Durable.
    ///
    /// Files that are as the index knows them cost a stat; an unchanged folder keeps its pack CID, a changed one names its former as
    /// `previous`. Cancelled or failed, it leaves what was shared before as it was.
    ///
    /// # Errors
    /// See [`ShareError`].
    pub fn share(&self, spec: &ShareSpec, observer: &dyn Observer) -> Result<SharedPack, ShareError> {
        share::share(&self.inner, spec, observer)
    }

    /// All records, oldest first.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn packs(&self) -> Result<Vec<PackRecord>, IndexError> {
        let rows = rows::packs(&*self.inner.index.reader()?)?;
        Ok(rows.into_iter().map(|row| row.record).collect())
    }

    /// The records whose pack or content CID is `cid`, newest first.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn packs_of(&self, cid: &Cid) -> Result<Vec<PackRecord>, IndexError> {
        let rows = rows::packs_of(&*self.inner.index.reader()?, cid)?;
        Ok(rows.into_iter().map(|row| row.record).collect())
    }

    /// One record.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn pack(&self, id: PackId) -> Result<Option<PackRecord>, IndexError> {
        Ok(rows::pack(&*self.inner.index.reader()?, id)?.map(|row| row.record))
    }

    /// Looks at every file of a pack (a stat each), withdraws the pieces of those that are gone and brings back those of files that are there again.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn check_pack(&self, id: PackId) -> Result<Check, IndexError> {
        packs::check_pack(&self.inner, id)
    }

    /// Forgets a pack; `delete_data` also deletes its files, as far as they are as the index knows them and no other pack uses them, and the folders
    /// that this leaves empty. Durable.
    ///
    /// # Errors
    /// See [`RemoveError`].
    pub fn remove_pack(&self, id: PackId, delete_data: bool) -> Result<Removed, RemoveError> {
        packs::remove_pack(&self.inner, id, delete_data)
    }

    /// As [`Store::check_pack`], and reads the files that were changed, each once as it is, so that what was edited is withdrawn before anybody asks for it.
    ///
    /// # Errors
    /// See [`VerifyError`].
    pub fn look_again(&self, id: PackId) -> Result<Check, VerifyError> {
        packs::look_again(&self.inner, id)
    }

    /// Reads every byte of a pack and compares it with its CIDs. What is wrong is withdrawn, what was believed lost and is right is had again.
    /// Durable.
    ///
    /// # Errors
    /// See [`VerifyError`].
    pub fn verify_pack(&self, id: PackId, observer: &dyn Observer) -> Result<Verified, VerifyError> {
        packs::verify_pack(&self.inner, id, observer)
    }

    /// As [`Store::verify_pack`], of the files at `paths` in the pack alone; of a copied pack all is read. Durable.
    ///
    /// # Errors
    /// See [`VerifyError`].
    pub fn verify_files(
        &self,
        id: PackId,
        paths: &[PackPath],
        observer: &dyn Observer,
    ) -> Result<Verified, VerifyError> {
        packs::verify_some(&self.inner, id, paths, observer)
    }

    /// Moves a pack to the folder (or, for a single file, the file) `target`, which does not exist yet or is an empty folder; with it go all records of the
    /// same place. If the user has moved it there already, its records follow, and it is verified. Durable.
    ///
    /// # Errors
    /// See [`MoveError`].
    pub fn move_pack(&self, id: PackId, target: &Path, observer: &dyn Observer) -> Result<Moved, MoveError> {
        packs::move_pack(&self.inner, id, target, observer)
    }

    /// Forgets packs of this pack or content CID that a lost index knew and that were not restored; see [`Rebuilt::left`]. Their copies go with the next
    /// clearing up. Returns them. Durable.
    ///
    /// # Errors
    /// When the home cannot be read or written.
    pub fn forget_left(&self, cid: &Cid) -> Result<Vec<rebuild::Left>, RebuildError> {
        rebuild::forget_left(&self.inner, cid)
    }

    /// Says whether clearing up must keep a pack. Durable.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn set_pinned(&self, id: PackId, pinned: bool) -> Result<(), IndexError> {
        self.inner.index.writer.run(move |tx| rows::set_pinned(tx, id, pinned))
    }

    /// Says that packs with these contents were served or fetched just now: see [`PackRecord::used`]. Durable.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn mark_used(&self, contents: &[Cid]) -> Result<(), IndexError> {
        let contents = contents.to_vec();
        let now = packs::now_secs();
        self.inner.index.writer.run(move |tx| {
            contents
                .iter()
                .try_for_each(|content| rows::mark_used(tx, content, now))
        })
    }

    /// Deletes what the home keeps and no pack needs any more; users' files are never touched. It may run beside anything else.
    ///
    /// # Errors
    /// See [`GcError`].
    pub fn collect_garbage(&self, observer: &dyn Observer) -> Result<Collected, GcError> {
        packs::collect(&self.inner, observer)
    }

    // Nodes.

    /// The bytes of a node, pack.json or pack.sig.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn node(&self, cid: &Cid) -> Result<Option<Bytes>, IndexError> {
        let node = rows::node(&*self.inner.index.reader()?, cid)?;
        Ok(node.filter(|bytes| cid.verifies(bytes)))
    }

    /// Keeps nodes, pack.json or pack.sig, which the caller has verified. Durable.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn put_nodes(&self, nodes: &[(Cid, Bytes)]) -> Result<(), IndexError> {
        let nodes = nodes.to_vec();
        self.inner.index.writer.run(move |tx| rows::put_nodes(tx, &nodes))
    }

    /// The CIDs of what a pack has beside its content: its root, pack.json and pack.sig. Empty if the pack is not here.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn head_cids(&self, pack: &Cid) -> Result<Vec<Cid>, IndexError> {
        let node = self.node(pack)?;
        let parts = node.and_then(|bytes| modswarm_protocol::format::read::pack_parts(pack, &bytes));
        let Some((manifest, sig)) = parts else {
            return Ok(Vec::new());
        };
        Ok([*pack, manifest].into_iter().chain(sig).collect())
    }

    /// The skeleton of `root` (a pack, folder or file), if all its nodes are here. `name` is what to call the file if `root` is one.
    ///
    /// # Errors
    /// See [`SkeletonReadError`].
    pub fn skeleton(&self, root: &Cid, name: Option<&Name>) -> Result<Option<Skeleton>, SkeletonReadError> {
        self.inner.skeleton(root, name)
    }

    /// The content of a record. Shared with other callers that hold it, and read from the nodes otherwise.
    ///
    /// # Errors
    /// See [`SkeletonReadError`].
    pub fn content(&self, record: &PackRecord) -> Result<Option<Arc<Content>>, SkeletonReadError> {
        self.inner.content(record)
    }

    // Leaves.

    /// Which pieces of `content` can be read here, over all its records: the sum of what is committed and what open downloads have written.
    /// `None` if no record has this content.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn have(&self, content: &Cid) -> Result<Option<PieceSet>, IndexError> {
        let rows = rows::packs_of(&*self.inner.index.reader()?, content)?;
        let mut sum: Option<PieceSet> = None;
        for row in rows.iter().filter(|row| row.record.content == *content) {
            let have = match self.inner.open_download(row.record.id) {
                Some(state) => state.have(),
                None => rows::bits_from_bytes(row.have.as_deref(), row.record.pieces as usize),
            };
            match &mut sum {
                Some(sum) => *sum |= have,
                None => sum = Some(have),
            }
        }
        Ok(sum)
    }

    /// Reads a leaf of `len` bytes from wherever it lies, and verifies it.
    ///
    /// # Errors
    /// See [`ReadLeafError`].
    pub fn read_leaf(&self, cid: &Cid, len: u32) -> Result<Bytes, ReadLeafError> {
        let read = read::read_leaf(&self.inner, cid, len);
        if matches!(read, Err(ReadLeafError::NotHere(_) | ReadLeafError::Lost(_))) {
            read::disclaim(&self.inner, cid)?;
        }
        read
    }

    /// Reads and verifies a leaf that is in a pack of `network`; in packs of other networks alone, it is not here.
    ///
    /// # Errors
    /// See [`ReadLeafError`].
    pub fn read_leaf_in(&self, cid: &Cid, network: &NetworkId) -> Result<Bytes, ReadLeafError> {
        read::read_leaf_in(&self.inner, cid, network)
    }

    /// What can no longer be read, since the last call: one entry a content. Peers are to be told. To be called about once a second, since it also closes
    /// files that were read and are not any more.
    pub fn take_withdrawn(&self) -> Vec<Withdrawn> {
        let withdrawn = std::mem::take(&mut *crate::lock(&self.inner.withdrawn));
        self.inner.files.close_stale();
        if withdrawn.is_empty() {
            *crate::lock(&self.inner.held) = None;
        }
        let entries = withdrawn.into_iter();
        entries.map(|(content, pieces)| Withdrawn { content, pieces }).collect()
    }

    // Downloads.

    /// Begins a download, or goes on with the unfinished one of the same content and destination.
    ///
    /// Looks at what is at the destination: files that are the content's already are adopted (a stat where the index knows them, hashed otherwise), and
    /// what would be overwritten is found before anything is written. The content's nodes must have been put before.
    ///
    /// # Errors
    /// See [`BeginError`].
    pub fn begin_download(&self, spec: &DownloadSpec, observer: &dyn Observer) -> Result<Download, BeginError> {
        let state = download::begin(&self.inner, spec, observer)?;
        Ok(Download::new(state, &self.closer))
    }

    /// Says what [`Store::begin_download`] of the same would do, without writing anything.
    ///
    /// # Errors
    /// See [`BeginError`].
    pub fn preview_download(&self, spec: &DownloadSpec, observer: &dyn Observer) -> Result<Preview, BeginError> {
        download::preview(&self.inner, spec, observer)
    }

    /// Says how `new` differs from `old`, and what it would take to come from one to the other where `old` is installed unchanged. Bytes to fetch are
    /// those of all leaves of `new` that are nowhere in this home.
    ///
    /// # Errors
    /// See [`BeginError`].
    pub fn compare(&self, old: &Content, new: &Content, observer: &dyn Observer) -> Result<Preview, BeginError> {
        download::compare(&self.inner, old, new, observer)
    }

    /// Goes on with the unfinished download of the record `id` (state [`crate::PackState::Downloading`]), without hashing what is here.
    ///
    /// # Errors
    /// See [`BeginError`].
    pub fn resume_download(&self, id: PackId, observer: &dyn Observer) -> Result<Download, BeginError> {
        let state = download::resume(&self.inner, id, observer)?;
        Ok(Download::new(state, &self.closer))
    }

    // Peers.

    /// What is remembered of peers, at most [`modswarm_protocol::engine::MAX_RECORDS`] of them, the last seen first.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn peer_records(&self) -> Result<Vec<KnownPeer>, IndexError> {
        rows::peers::all(&*self.inner.index.reader()?)
    }

    /// Remembers peers as they are given. Beyond [`modswarm_protocol::engine::MAX_RECORDS`] those that are worth least at `now` (seconds since 1970)
    /// are forgotten. Durable.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn put_peer_records(&self, peers: &[KnownPeer], now: u64) -> Result<(), IndexError> {
        let peers = peers.to_vec();
        self.inner.index.writer.run(move |tx| rows::peers::put(tx, &peers, now))
    }

    /// Takes the bans and faults of the peer with this ID, or of all, back; what they gave stays remembered. How many had any. Durable.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn forgive(&self, peer_id: Option<&[u8]>) -> Result<u64, IndexError> {
        let peer_id = peer_id.map(<[u8]>::to_vec);
        self.inner
            .index
            .writer
            .run(move |tx| rows::peers::forgive(tx, peer_id.as_deref()))
    }

    // Settings.

    /// A small value kept with the home.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn setting(&self, key: &str) -> Result<Option<String>, IndexError> {
        rows::setting(&*self.inner.index.reader()?, key)
    }

    /// Keeps a small value with the home. Durable.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn set_setting(&self, key: &str, value: &str) -> Result<(), IndexError> {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.inner
            .index
            .writer
            .run(move |tx| rows::set_setting(tx, &key, &value))
    }

    /// Forgets a small value. Durable.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn remove_setting(&self, key: &str) -> Result<(), IndexError> {
        let key = key.to_owned();
        self.inner.index.writer.run(move |tx| rows::remove_setting(tx, &key))
    }
}
