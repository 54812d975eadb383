//! The seam between the store and the disk: every operation on users' files and on the home's plain files goes through a [`Backend`].
//!
//! [`SystemBackend`] is the operating system. Others stand in for it in tests: one that drops what was not synced, reorders or tears it, and fails or
//! stops at any operation. The index itself is SQLite's affair, which makes each of its commits durable; a backend is only told of each
//! ([`Backend::before_index_commit`]), so that it can keep it from happening.
//!
//! # What an implementation promises
//! - Bytes written to a file survive a power cut once [`BackendFile::sync`] (or [`BackendDir::sync_files`]) has returned `Ok`; until then any part of
//!   them may be lost.
//! - A name that was made, changed or removed survives once its folder was synced; until then the old state may be found again.
//! - Renames are atomic: each name is at any instant wholly old or wholly new.
//! - Symlinks are never followed below a folder that was opened.

use std::{
    any::Any,
    ffi::OsString,
    fmt::Debug,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

pub use crate::fs::SystemBackend;

/// By what a file is known. Two equal identities mean the same bytes, unless the later one was taken within a tick of the file's newest time stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The file system.
    pub dev: u64,
    /// The file's number in it.
    pub file: u64,
    /// In bytes.
    pub size: u64,
    /// Nanoseconds since 1970.
    pub mtime: i64,
    /// Nanoseconds since 1970; when the file's metadata changed last. Equal to `mtime` where the system has none.
    pub ctime: i64,
}

impl Identity {
    /// Whether a file of this identity, seen at `seen` (nanoseconds since 1970), could have changed afterwards without its identity showing it.
    ///
    /// Git's rule: a time stamp that is not older than the look itself proves nothing, since the clock of file systems ticks coarsely.
    pub(crate) fn is_racy(&self, seen: i64) -> bool {
        let whole_seconds = self.mtime % 1_000_000_000 == 0 && self.ctime % 1_000_000_000 == 0;
        let tick = if whole_seconds { TICK_COARSE } else { TICK };
        let newest = self.mtime.max(self.ctime);
        newest.saturating_add(tick.as_nanos() as i64) >= seen
    }

    /// Whether it is the same file, whatever is in it.
    pub(crate) fn same_file(&self, other: &Self) -> bool {
        (self.dev, self.file) == (other.dev, other.file)
    }

    /// Whether it is the same file with the same bytes, though perhaps under another name (a rename sets `ctime`).
    pub(crate) fn same_bytes(&self, other: &Self) -> bool {
        self.same_file(other) && (self.size, self.mtime) == (other.size, other.mtime)
    }
}

/// The kernel's clock for time stamps ticks at least this often.
const TICK: Duration = Duration::from_millis(20);
/// FAT keeps times to two seconds.
const TICK_COARSE: Duration = Duration::from_secs(2);

/// What stands under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A regular file.
    File(Identity),
    /// A folder.
    Folder,
    /// A symbolic link, or what the system has of the kind.
    Symlink,
    /// A pipe, socket or device.
    Special,
}

/// How [`BackendDir::rename_from`] treats what stands under the new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onto {
    /// It fails with `AlreadyExists`.
    Nothing,
    /// The two change places, where the system can; otherwise it is replaced.
    Exchange,
}

/// A disk. All calls block and may come from any thread.
///
/// Errors are the system's; `NotFound` and `NotADirectory` mean that there is no such file, `StorageFull` and its like that there is no room.
pub trait Backend: Debug + Send + Sync + 'static {
    /// Opens a regular file for reading; a symlink, pipe or device gives `NotFound`, and none of them makes it wait.
    fn open(&self, path: &Path) -> io::Result<Box<dyn BackendFile>>;

    /// Makes or empties the file at `path`, in the home only.
    fn create(&self, path: &Path) -> io::Result<Box<dyn BackendFile>>;

    /// Opens the folder at `path`, following symlinks: the user chose it.
    fn open_dir(&self, path: &Path) -> io::Result<Box<dyn BackendDir>>;

    /// Opens the folder at `path`, which was [resolved](Backend::resolve) before: a symlink that stands on the way now was planted since, and gives
    /// `NotADirectory`.
    ///
    /// # Errors
    /// As [`Backend::open_dir`].
    fn open_resolved(&self, path: &Path) -> io::Result<Box<dyn BackendDir>> {
        if self.resolve(path)? == path {
            self.open_dir(path)
        } else {
            Err(io::ErrorKind::NotADirectory.into())
        }
    }

    /// What stands at `path`, which is not followed if it is a symlink; `NotFound` if nothing does.
    fn entry(&self, path: &Path) -> io::Result<Entry>;

    /// The names in the folder at `path` with what they are, in no order.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<(OsString, Entry)>>;

    /// Makes a folder and its parents.
    fn create_dirs(&self, path: &Path) -> io::Result<()>;

    /// Moves the file `from` to `to`, replacing what stands there, in the home only.
    fn replace(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Deletes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Deletes an empty folder.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Deletes a folder with all that is in it.
    fn remove_tree(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// `path`, which exists, as an absolute path without symlinks and `..`.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf>;

    /// Makes `len` bytes of the file `to` from `at`, where it ends, share the blocks of the whole file `from`, which has `len` bytes; `at` is a multiple of
    /// 4096. `false`, with nothing changed, where the file system cannot.
    fn share_blocks(&self, from: &Path, to: &Path, at: u64, len: u64) -> io::Result<bool> {
        let _ = (from, to, at, len);
        Ok(false)
    }

    /// Bytes that this user can still write to the disk of `path`; `None` where the system does not tell.
    fn free_space(&self, path: &Path) -> Option<u64>;

    /// Names the file system of `path`.
    fn device(&self, path: &Path) -> io::Result<u64>;

    /// Now, in nanoseconds since 1970, by the clock of the file system's time stamps.
    fn now_ns(&self) -> i64;

    /// Comes before each commit of the index. An error keeps it from being made.
    ///
    /// # Errors
    /// Only of backends that tests use.
    fn before_index_commit(&self) -> io::Result<()> {
        Ok(())
    }
}

/// An open file.
pub trait BackendFile: Debug + Send + Sync {
    /// By what it is known.
    fn identity(&self) -> io::Result<Identity>;

    /// When it was made, in nanoseconds since 1970; 0 where the system does not tell.
    fn born(&self) -> i64 {
        0
    }

    /// Whether it certainly has a second name somewhere: writing to it would change what is found there. `false` where the system does not tell.
    fn has_other_names(&self) -> bool {
        false
    }

    /// Fills `buf` from `offset`; `UnexpectedEof` if the file ends before.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `buf` at `offset`.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bufs`, one behind the other, from `offset` on.
    fn write_all_vectored_at(&self, bufs: &[&[u8]], mut offset: u64) -> io::Result<()> {
        for buf in bufs {
            self.write_all_at(buf, offset)?;
            offset += buf.len() as u64;
        }
        Ok(())
    }

    /// Makes it `len` bytes long; what is added reads as zeros and takes no room where the system can.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes its bytes and length durable.
    fn sync(&self) -> io::Result<()>;

    /// Makes `len` bytes from `at`, which end within it, share the blocks of as many bytes of `from`, a file of the same backend, from `from_at`; all three are
    /// multiples of 4096. `false`, with nothing changed, where the file system cannot.
    fn share_range(&self, from: &dyn BackendFile, from_at: u64, at: u64, len: u64) -> io::Result<bool> {
        let _ = (from, from_at, at, len);
        Ok(false)
    }

    /// Itself, for [`BackendFile::share_range`] of the same backend; `None` where that is not to be had.
    fn as_any(&self) -> Option<&dyn Any> {
        None
    }

    /// Says that it will be read once from start to end.
    fn advise_sequential(&self) {}

    /// Says that `len` bytes from `offset` will be read soon; either may lie beyond the end. Does not wait for them.
    fn read_ahead(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }
}

/// An open folder. Names are looked up in it without following symlinks.
pub trait BackendDir: Debug + Send + Sync {
    /// The folder `name` in this one. A symlink or file gives `NotADirectory`.
    fn folder(&self, name: &str) -> io::Result<Box<dyn BackendDir>>;

    /// As [`BackendDir::folder`], made where there is none. Says whether it was made.
    fn make_folder(&self, name: &str) -> io::Result<(Box<dyn BackendDir>, bool)>;

    /// What stands under `name`; `None` if nothing does.
    fn entry(&self, name: &str) -> io::Result<Option<Entry>>;

    /// Opens the regular file `name` for reading.
    fn open_file(&self, name: &str) -> io::Result<Box<dyn BackendFile>>;

    /// Opens the regular file `name` for reading and writing.
    fn open_file_rw(&self, name: &str) -> io::Result<Box<dyn BackendFile>>;

    /// Makes the file `name`; `AlreadyExists` if anything stands there.
    fn create_file(&self, name: &str) -> io::Result<Box<dyn BackendFile>>;

    /// Moves `from_name` of the folder `from`, of the same backend, to `name` in this one. Says whether what stood there is now under the old name.
    fn rename_from(&self, from: &dyn BackendDir, from_name: &str, name: &str, onto: Onto) -> io::Result<bool>;

    /// Deletes the file `name`.
    fn remove_file(&self, name: &str) -> io::Result<()>;

    /// Makes the bytes of the files `names` in it durable; those that are gone are passed over.
    fn sync_files(&self, names: &[String]) -> io::Result<()>;

    /// Makes the names in it and in the folders `dirs` below it (paths with `/`) durable.
    fn sync_folders(&self, dirs: &[&str]) -> io::Result<()>;

    /// Makes the names in it durable.
    fn sync(&self) -> io::Result<()>;

    /// Itself, for [`BackendDir::rename_from`] of the same backend.
    fn as_any(&self) -> &dyn Any;
}

// What is made of the operations above.

impl dyn Backend {
    /// The identity of the regular file at `path`; `None` for anything else that stands there.
    pub(crate) fn identity_at(&self, path: &Path) -> io::Result<Option<Identity>> {
        Ok(match self.entry(path)? {
            Entry::File(identity) => Some(identity),
            _ => None,
        })
    }

    /// Whether something stands at `path`.
    pub(crate) fn exists(&self, path: &Path) -> bool {
        self.entry(path).is_ok()
    }

    /// The first of `path` and its parents that exists.
    pub(crate) fn existing_ancestor(&self, path: &Path) -> PathBuf {
        path.ancestors()
            .find(|p| self.resolve(p).is_ok())
            .map_or_else(|| PathBuf::from("."), Path::to_owned)
    }

    /// Makes a folder and its parents, and their names durable.
    pub(crate) fn create_dirs_durably(&self, path: &Path) -> io::Result<()> {
        if self.exists(path) {
            return self.create_dirs(path);
        }
        let existing = self.existing_ancestor(path);
        self.create_dirs(path)?;
        for made in path.ancestors().take_while(|above| *above != existing) {
            if let Some(parent) = made.parent() {
                self.sync_dir(parent)?;
            }
        }
        Ok(())
    }

    /// The folder at `path`, which was resolved before as far as it existed, made with its parents where there is none; names that are made are durable.
    /// As with [`Backend::open_resolved`], no symlink is followed.
    pub(crate) fn make_resolved(&self, path: &Path) -> io::Result<Box<dyn BackendDir>> {
        match self.open_resolved(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        let existing = self.existing_ancestor(path);
        let mut dir = self.open_resolved(&existing)?;
        for component in path.strip_prefix(&existing).unwrap_or(path).components() {
            let Some(name) = component.as_os_str().to_str() else {
                // Folders are walked by names that are text; such a path is made at once and looked at afterwards.
                self.create_dirs_durably(path)?;
                return self.open_resolved(path);
            };
            let (made, new) = dir.make_folder(name)?;
            if new {
                dir.sync()?;
            }
            dir = made;
        }
        Ok(dir)
    }

    /// All bytes of a small file of the home.
    pub(crate) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(path)?;
        let mut bytes = vec![
            0;
            usize::try_from(file.identity()?.size)
                .unwrap_or(usize::MAX)
                .min(READ_MAX)
        ];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Returns once a look at a file whose newest time stamp is `newest` proves something: at most a tick of the file system's clock later.
    pub(crate) fn wait_out_tick(&self, newest: i64) {
        let until = newest.saturating_add(TICK.as_nanos() as i64).saturating_add(1);
        let left = until.saturating_sub(self.now_ns());
        if (1..=TICK.as_nanos() as i64).contains(&left) {
            std::thread::sleep(Duration::from_nanos(left.unsigned_abs()));
        }
    }
}

/// More than any plain file of a home has.
const READ_MAX: usize = 16 << 20;
