//! Every call to the operating system that the store makes on users' files: identities, confined folders, renames, syncs.
//!
//! One side for Unix, one for Windows, with the same functions, and [`SystemBackend`], through which the rest of the store reaches them. It knows nothing
//! of packs. `Dir` is how a destination is walked: name by name from an open folder, so that a symlink planted on the way is never
//! followed.

use std::{
    io,
    path::{MAIN_SEPARATOR, Path},
    time::{SystemTime, UNIX_EPOCH},
};

use modswarm_protocol::format::PackPath;

#[cfg(unix)]
#[path = "unix.rs"]
mod sys;
#[cfg(windows)]
#[path = "windows.rs"]
mod sys;
mod system;

pub(crate) use self::sys::{
    CASE_FOLDS, create_private_dir, identity_from, literal, name_bytes, name_issue, path_bytes, path_from,
};
pub use self::{sys::folder_name, system::SystemBackend};
use crate::backend::{Entry, Identity, Onto};

/// Now, in nanoseconds since 1970.
fn now_ns() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
}

/// A path below a pack's folder as packs spell it; nothing if no pack can hold it.
pub(crate) fn pack_path(place: &Path) -> Option<PackPath> {
    let text = place.to_str()?.replace(MAIN_SEPARATOR, "/");
    PackPath::new(&text).ok()
}

/// Whether this system can create all names of `path`. Elsewhere it must not be made a path: Windows takes some names for another disk or a stream.
pub(crate) fn can_create(path: &PackPath) -> bool {
    path.names().all(|name| name_issue(name).is_none())
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

#[cfg(test)]
mod tests;
