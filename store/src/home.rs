//! The home folder: its lock, its layout, and the plain files from which the index can be rebuilt.
//!
//! ```text
//! <home>/lock                        held by the one process that owns the home
//! <home>/index.sqlite (-wal, -shm)   the index
//! <home>/packs/<pack or content CID>/pack.json, pack.sig
//! <home>/packs/<pack or content CID>/place-<number>.json     where it lies on this machine, one file each place
//! ```

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use crate::{error::HomeError, fs};

/// The right to use a home. One process at a time has it; it ends with the value, or with the process however that ends.
#[derive(Debug)]
pub struct HomeLock {
    home: PathBuf,
    _file: File,
}

impl HomeLock {
    /// Takes the lock of the home at `home`, making the folder (for its owner only) where there is none. `None` if another process has it.
    ///
    /// # Errors
    /// When the folder or its lock file cannot be made.
    pub fn try_acquire(home: &Path) -> Result<Option<Self>, HomeError> {
        let wrap = |path: &Path| {
            let path = path.to_owned();
            move |source| HomeError { path, source }
        };
        fs::create_private_dir(home).map_err(wrap(home))?;
        let home = home.canonicalize().map_err(wrap(home))?;
        let path = home.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(wrap(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { home, _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(HomeError { path, source }),
        }
    }

    /// The home, as an absolute path without symlinks.
    pub fn home(&self) -> &Path {
        &self.home
    }

    pub(crate) fn index_path(&self) -> PathBuf {
        self.home.join("index.sqlite")
    }

    /// The folder of plain files of the pack (or bare content) `cid`.
    pub(crate) fn pack_dir(&self, cid: &modswarm_protocol::Cid) -> PathBuf {
        self.home.join("packs").join(cid.to_string())
    }
}

/// Writes a small file so that a crash leaves the old one or the new one. Durable.
pub(crate) fn write_plain(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    std::fs::create_dir_all(dir)?;
    let staged = path.with_extension("new");
    let mut file = File::create(&staged)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&staged, path)?;
    fs::sync_dir(dir)
}
