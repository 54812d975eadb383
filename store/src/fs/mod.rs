//! Every call to the operating system that the store makes on users' files: identities, confined folders, renames, syncs.
//!
//! One side for Unix, one for Windows, with the same functions. It knows nothing of packs. [`Dir`] is how a destination is walked:
//! name by name from an open folder, so that a symlink planted on the way is never followed.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

#[cfg(unix)]
#[path = "unix.rs"]
mod sys;
#[cfg(windows)]
#[path = "windows.rs"]
mod sys;

pub(crate) use sys::*;

/// By what a file is known. Two equal identities, the later one not [racy](Identity::is_racy), mean the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) dev: u64,
    pub(crate) file: u64,
    pub(crate) size: u64,
    /// Nanoseconds since 1970.
    pub(crate) mtime: i64,
    /// Nanoseconds since 1970; when the file's metadata changed last. Equal to `mtime` where the system has none.
    pub(crate) ctime: i64,
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

/// Now, in nanoseconds since 1970.
pub(crate) fn now_ns() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
}

/// Returns once a look at a file whose newest time stamp is `newest` proves something: at most a tick of the file system's clock later.
pub(crate) fn wait_out_tick(newest: i64) {
    let until = newest.saturating_add(TICK.as_nanos() as i64).saturating_add(1);
    let left = until.saturating_sub(now_ns());
    if (1..=TICK.as_nanos() as i64).contains(&left) {
        std::thread::sleep(Duration::from_nanos(left.unsigned_abs()));
    }
}

/// What stands under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    File(Identity),
    Folder,
    Symlink,
    Special,
}

/// How [`Dir::rename_from`] treats what stands under the new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Onto {
    /// It fails with `AlreadyExists`.
    Nothing,
    /// The two change places, where the system can; otherwise it is replaced.
    Exchange,
}

/// Whether `e` means that a disk or quota is full.
pub(crate) fn is_disk_full(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Whether `e` means that there is no such file, or no such folder on the way.
pub(crate) fn is_gone(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The first of `path` and its parents that exists.
pub(crate) fn existing_ancestor(path: &Path) -> PathBuf {
    path.ancestors()
        .find(|p| p.exists())
        .map_or_else(|| PathBuf::from("."), Path::to_owned)
}

#[cfg(test)]
mod tests;
