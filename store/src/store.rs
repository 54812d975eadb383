//! [`Store`]: the calls that the rest of the program makes.
//!
//! Here it is opened and closed. Its other calls stand by what they are about in [`packs`], [`blocks`], [`downloads`] and [`remembered`], with what each
//! promises; the work is done by the modules of the crate, which take an [`Inner`].

mod blocks;
mod downloads;
mod inner;
mod packs;
mod remembered;

use std::{path::Path, sync::Arc};

pub(crate) use inner::Inner;

use crate::{
    backend::{Backend, SystemBackend},
    download,
    error::{IndexError, OpenError, RebuildError},
    home::HomeLock,
    index::Index,
    left,
    observer::Observer,
    rebuild::{self, Rebuilt},
    segments,
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
        let index = Index::open(&lock.index_path(), backend)?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(options.hash_threads)
            .thread_name(|n| format!("modswarm-hash-{n}"))
            .build()
            .map_err(|e| OpenError::Thread(std::io::Error::other(e)))?;
        let inner = Arc::new(Inner::new(lock, options, index, pool));
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
        crate::packs::recover(&inner)?;
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
}
