//! [`Store`]: the calls that the rest of the program makes.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use modswarm_protocol::{
    Cid,
    format::{Content, Name, PieceSet, Skeleton},
};

use crate::{
    download::{Download, DownloadSpec},
    error::{BeginError, IndexError, OpenError, ReadLeafError, RemoveError, ShareError, SkeletonReadError},
    home::HomeLock,
    observer::Observer,
    packs::{Check, PackId, PackRecord, Removed},
    read::Withdrawn,
    share::{ShareSpec, SharedPack},
};

/// How to open a store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoreOptions {
    /// Threads that hash; 0: one a core.
    pub hash_threads: usize,
    /// Files of users kept open for reading and for writing, each.
    pub open_files_max: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            hash_threads: 0,
            open_files_max: 64,
        }
    }
}

/// The blocks of one home. Cheap to clone; all calls block and may come from any thread.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    lock: HomeLock,
}

impl Store {
    /// Opens the home, making its index where there is none. Costs nothing that grows with the packs.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(lock: HomeLock, options: StoreOptions) -> Result<Self, OpenError> {
        let _ = options;
        Ok(Self {
            inner: Arc::new(Inner { lock }),
        })
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
        Ok(())
    }

    /// [`Store::flush`], then ends the writer; later calls that write give [`IndexError::Closed`]. Dropping the last clone does the same, silently.
    ///
    /// # Errors
    /// As [`Store::flush`].
    pub fn close(&self) -> Result<(), IndexError> {
        Ok(())
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
        let _ = (spec, observer);
        Err(ShareError::Cancelled)
    }

    /// All records, oldest first.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn packs(&self) -> Result<Vec<PackRecord>, IndexError> {
        Ok(Vec::new())
    }

    /// The records whose pack or content CID is `cid`, newest first.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn packs_of(&self, cid: &Cid) -> Result<Vec<PackRecord>, IndexError> {
        let _ = cid;
        Ok(Vec::new())
    }

    /// One record.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn pack(&self, id: PackId) -> Result<Option<PackRecord>, IndexError> {
        let _ = id;
        Ok(None)
    }

    /// Looks at every file of a pack (a stat each), withdraws the pieces of those that are gone and brings back those of files that are there again.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn check_pack(&self, id: PackId) -> Result<Check, IndexError> {
        let _ = id;
        Ok(Check::default())
    }

    /// Forgets a pack; `delete_data` also deletes its files, as far as they are as the index knows them and no other pack uses them, and the folders
    /// that this leaves empty. Durable.
    ///
    /// # Errors
    /// See [`RemoveError`].
    pub fn remove_pack(&self, id: PackId, delete_data: bool) -> Result<Removed, RemoveError> {
        let _ = (id, delete_data);
        Err(RemoveError::Unknown)
    }

    // Nodes.

    /// The bytes of a node, pack.json or pack.sig.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn node(&self, cid: &Cid) -> Result<Option<Bytes>, IndexError> {
        let _ = cid;
        Ok(None)
    }

    /// Keeps nodes, pack.json or pack.sig, which the caller has verified. Durable.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn put_nodes(&self, nodes: &[(Cid, Bytes)]) -> Result<(), IndexError> {
        let _ = nodes;
        Ok(())
    }

    /// The skeleton of `root` (a pack, folder or file), if all its nodes are here. `name` is what to call the file if `root` is one.
    ///
    /// # Errors
    /// See [`SkeletonReadError`].
    pub fn skeleton(&self, root: &Cid, name: Option<&Name>) -> Result<Option<Skeleton>, SkeletonReadError> {
        let _ = (root, name);
        Ok(None)
    }

    /// The content of a record. Shared with other callers that hold it, and read from the nodes otherwise.
    ///
    /// # Errors
    /// See [`SkeletonReadError`].
    pub fn content(&self, record: &PackRecord) -> Result<Option<Arc<Content>>, SkeletonReadError> {
        let _ = record;
        Ok(None)
    }

    // Leaves.

    /// Which pieces of `content` can be read here, over all its records: the sum of what is committed and what open downloads have written.
    /// `None` if no record has this content.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn have(&self, content: &Cid) -> Result<Option<PieceSet>, IndexError> {
        let _ = content;
        Ok(None)
    }

    /// Reads a leaf of `len` bytes from wherever it lies, and verifies it.
    ///
    /// # Errors
    /// See [`ReadLeafError`].
    pub fn read_leaf(&self, cid: &Cid, len: u32) -> Result<Bytes, ReadLeafError> {
        let _ = len;
        Err(ReadLeafError::NotHere(*cid))
    }

    /// What can no longer be read, since the last call: one entry a content. Peers are to be told.
    pub fn take_withdrawn(&self) -> Vec<Withdrawn> {
        Vec::new()
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
        let _ = observer;
        Err(BeginError::UnknownContent(spec.content))
    }

    /// Goes on with the unfinished download of the record `id` (state [`crate::PackState::Downloading`]), without hashing what is here.
    ///
    /// # Errors
    /// See [`BeginError`].
    pub fn resume_download(&self, id: PackId, observer: &dyn Observer) -> Result<Download, BeginError> {
        let _ = (id, observer);
        Err(BeginError::InUse(PathBuf::new()))
    }

    // Settings.

    /// A small value kept with the home.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn setting(&self, key: &str) -> Result<Option<String>, IndexError> {
        let _ = key;
        Ok(None)
    }

    /// Keeps a small value with the home. Durable.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn set_setting(&self, key: &str, value: &str) -> Result<(), IndexError> {
        let _ = (key, value);
        Ok(())
    }
}
