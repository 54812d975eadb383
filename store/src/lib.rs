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
//! # Example
//! One store shares a folder, and another takes it over, leaf by leaf:
//!
//! ```
//! use std::fs;
//!
//! use modswarm_store::{HomeLock, ShareSpec, Store, StoreOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = tempfile::tempdir()?;
//! fs::create_dir(dir.path().join("Skins"))?;
//! fs::write(dir.path().join("Skins/red.pak"), b"red")?;
//!
//! let lock = HomeLock::try_acquire(&dir.path().join("home"))?.ok_or("another process has this home")?;
//! let store = Store::open(lock, StoreOptions::default())?;
//! // The network that the pack is served in; nothing is copied.
//! let network = [0; 32];
//! let pack = store.share(&ShareSpec::new(dir.path().join("Skins"), network), &())?;
//! println!("{} has {} files in {} blocks", pack.pack, pack.files, pack.blocks);
//!
//! // Whatever is read is hashed first: a file that changed gives an error and no wrong byte.
//! let record = store.pack(pack.id)?.ok_or("it was removed")?;
//! let content = store.content(&record)?.ok_or("its nodes are missing")?;
//! for (_, leaf) in content.map().iter() {
//!     let bytes = store.read_leaf(&leaf.cid, leaf.len)?;
//!     assert!(leaf.cid.verifies(&bytes));
//! }
//! assert!(store.verify_pack(pack.id, &())?.bad.is_empty());
//! store.close()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Where to read next
//! [`Store`] for the calls, `share` for how a folder becomes a pack, `download` for how a pack becomes a folder, `index` for the tables
//! and the one writer, [`backend`] for the seam to the disk and `fs` for the operating system behind it.

pub mod backend;
mod choice;
mod download;
mod error;
mod fs;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod home;
mod index;
mod left;
mod observer;
mod packs;
mod peers;
mod read;
mod rebuild;
mod room;
mod segments;
mod share;
mod skeletons;
mod store;

pub use download::{Conflicts, Download, DownloadSpec, Finished, Plan, Preview};
pub use error::{
    BeginError, Blockage, FinishError, GcError, HomeError, IndexError, MoveError, OpenError, ReadLeafError,
    RebuildError, RemoveError, ShareError, SkeletonReadError, VerifyError, WriteError,
};
pub use fs::folder_name;
pub use home::HomeLock;
pub use observer::{Observer, Progress, Stage, Warning};
pub use packs::{
    BadFile, Check, Collected, Fault, Moved, NetworkId, Origin, PackId, PackRecord, PackState, Removed, Verified,
};
pub use peers::KnownPeer;
pub use read::Withdrawn;
pub use rebuild::{Differing, Left, Rebuilt};
pub use room::Shortage;
pub use share::{ShareSpec, SharedPack};
pub use store::{Store, StoreOptions};

/// Locks `mutex`. A panic while it was held is a defect that has been reported; the data are counters and maps that stay consistent.
fn lock<T: ?Sized>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
