//! The block store: everything that touches a disk.
//!
//! It owns the **home** (one SQLite index, plain copies of pack.json) and knows where each block lies. Nodes live in the index;
//! leaves live in the user's own files: the shared folder, or the folder that a pack was downloaded to. Nothing is copied to be
//! shared, and what is read is hashed before it is handed out, because users' files change.
//!
//! It does not speak to peers, choose pieces or know of time limits. All calls block: call them from a blocking pool.
//!
//! # What survives what
//! - A call that returned `Ok` and is documented as *durable* survives a power cut.
//! - [`Download::write_piece`] is durable within about a second ([`Store::flush`] makes it so at once): a piece's bytes are synced before the index
//!   says that it is here, so that after a crash the index never promises what the disk does not hold.
//! - A file stands under its final name only when all its leaves have been verified and synced.
//!
//! # Where to read next
//! [`Store`] for the calls, `share` for how a folder becomes a pack, `download` for how a pack becomes a folder, `index` for the tables
//! and the one writer, [`backend`] for the seam to the disk and `fs` for the operating system behind it.

pub mod backend;
mod download;
mod error;
mod fs;
mod home;
mod index;
mod observer;
mod packs;
mod read;
mod rebuild;
mod room;
mod share;
mod store;

pub use download::{Conflicts, Download, DownloadSpec, Finished, Plan, Preview};
pub use error::{
    BeginError, Blockage, FinishError, GcError, HomeError, IndexError, MoveError, OpenError, ReadLeafError,
    RebuildError, RemoveError, ShareError, SkeletonReadError, VerifyError, WriteError,
};
pub use home::HomeLock;
pub use observer::{Observer, Progress, Stage, Warning};
pub use packs::{
    BadFile, Check, Collected, Fault, Moved, NetworkId, Origin, PackId, PackRecord, PackState, Removed, Verified,
};
pub use read::Withdrawn;
pub use rebuild::{Left, Rebuilt};
pub use room::Shortage;
pub use share::{ShareSpec, SharedPack};
pub use store::{Store, StoreOptions};

/// Locks `mutex`. A panic while it was held is a defect that has been reported; the data are counters and maps that stay consistent.
fn lock<T: ?Sized>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
