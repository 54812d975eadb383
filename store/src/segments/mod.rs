//! Copies that the store owns: of packs that were shared with a copy, every block lies in an append-only file of the home, a **segment**, and the shared
//! folder may be changed or deleted.
//!
//! A segment belongs to one network, so that serving by CID never crosses from one to another. Leaves are held once a network, whatever packs have them;
//! nodes are beside them, and `record` says how, so that a lost index can be made anew from segments alone (`adopt`). Where the file system can, large files
//! are not copied: the segment shares their blocks until the user changes them. `sweep` deletes segments that nothing needs any more, and
//! writes the rest of those that are mostly dead anew.
//!
//! To the index a segment is a file like any other, whose rows of leaves are committed after its bytes were synced; what lies beyond its committed length is
//! of a copy that was cut off, and is written over.

mod adopt;
mod append;
mod copy;
pub(crate) mod record;
mod sweep;
mod verify;

use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard, TryLockError},
};

use modswarm_protocol::Cid;
use rusqlite::params;

pub(crate) use self::{
    adopt::{adopt, restore},
    copy::{Job, copy},
    sweep::{cloned_files, sweep},
    verify::{heal_nodes, verify},
};
use crate::{
    error::{GcError, IndexError, ShareError},
    fs,
    index::rows::{self, FileState, segments as table},
    packs::NetworkId,
    room::Shortage,
    store::Inner,
};

/// The right to write to segments and to delete them. One at a time has it, from before it looks at what they hold until what it relies on is in the index.
#[derive(Debug, Default)]
pub(crate) struct Segments(Mutex<()>);

pub(crate) type Alone<'a> = MutexGuard<'a, ()>;

impl Segments {
    pub(crate) fn alone(&self) -> Alone<'_> {
        crate::lock(&self.0)
    }

    /// As [`Segments::alone`]; `None` if another has it now.
    pub(crate) fn try_alone(&self) -> Option<Alone<'_>> {
        match self.0.try_lock() {
            Ok(alone) => Some(alone),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// Why a segment cannot be written.
#[derive(Debug)]
pub(crate) enum SegmentError {
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    Index(IndexError),
    NotAllowed(Shortage),
    /// A file that is being copied is not what it was when it was hashed.
    Changing(PathBuf),
    Cancelled,
}

impl<E: Into<IndexError>> From<E> for SegmentError {
    fn from(e: E) -> Self {
        Self::Index(e.into())
    }
}

impl From<SegmentError> for ShareError {
    fn from(e: SegmentError) -> Self {
        match e {
            SegmentError::Io { path, source } if fs::is_disk_full(&source) => Self::DiskFull(path),
            SegmentError::Io { path, source } => Self::Io { path, source },
            SegmentError::Index(e) => Self::Index(e),
            SegmentError::NotAllowed(shortage) => Self::NotAllowed(shortage),
            SegmentError::Changing(path) => Self::Changing(path),
            SegmentError::Cancelled => Self::Cancelled,
        }
    }
}

impl From<SegmentError> for GcError {
    fn from(e: SegmentError) -> Self {
        match e {
            SegmentError::Io { path, source } => Self::Io { path, source },
            SegmentError::Index(e) => Self::Index(e),
            SegmentError::Cancelled => Self::Cancelled,
            SegmentError::NotAllowed(Shortage::Quota { .. } | Shortage::Floor { .. }) | SegmentError::Changing(_) => {
                Self::Index(IndexError::Other("a segment cannot be written anew now".to_owned()))
            }
        }
    }
}

/// The folder of the home's segments.
pub(crate) fn folder(inner: &Inner) -> PathBuf {
    inner.lock.home().join("segments")
}

/// The number in the name of a segment; `None` for other names.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    digits.parse().ok().filter(|number: &u64| number.to_string() == digits)
}

/// Puts right what has changed while no process had the home: it may have been moved, or its disk was not there.
pub(crate) fn recover(inner: &Inner) -> Result<(), IndexError> {
    let segments = table::all(&*inner.index.reader()?)?;
    if segments.is_empty() {
        return Ok(());
    }
    let folder = folder(inner);
    let there: Vec<i64> = segments
        .iter()
        .filter(|segment| inner.backend.exists(&folder.join(&segment.name)))
        .map(|segment| segment.file)
        .collect();
    let path = fs::path_bytes(&folder).to_owned();
    inner.index.writer.run(move |tx| -> Result<(), IndexError> {
        let root = rows::root_id(tx, &path)?;
        tx.execute(
            "UPDATE files SET root = ?1 WHERE id IN (SELECT file FROM segments) AND root != ?1",
            [root],
        )?;
        let mut statement = tx.prepare("UPDATE files SET state = ?2 WHERE id = ?1 AND state != ?2")?;
        for file in there {
            statement.execute(params![file, FileState::Whole.code()])?;
        }
        Ok(())
    })
}

/// Whether the index knows every segment of the home's folder: a new one knows none of those that a lost one knew before it was rebuilt.
pub(crate) fn are_known(inner: &Inner) -> Result<bool, IndexError> {
    let known = table::all(&*inner.index.reader()?)?;
    let known: std::collections::HashSet<String> = known.into_iter().map(|segment| segment.name).collect();
    let names = inner.backend.read_dir(&folder(inner)).unwrap_or_default();
    let mut names = names.into_iter().filter_map(|(name, _)| name.into_string().ok());
    Ok(names.all(|name| number_of(&name).is_none() || known.contains(&name)))
}

/// The CIDs of all nodes that a pack of this content has, and of its pack.json and pack.sig, as far as they are here.
pub(crate) fn node_cids(
    inner: &Inner,
    pack: Option<&Cid>,
    content: &modswarm_protocol::format::Content,
) -> Result<Vec<Cid>, IndexError> {
    let mut cids: Vec<Cid> = content.node_cids().collect();
    if let Some(pack) = pack {
        cids.push(*pack);
        let bytes = rows::node(&*inner.index.reader()?, pack)?;
        let parts = bytes.and_then(|bytes| modswarm_protocol::format::read::pack_parts(pack, &bytes));
        if let Some((manifest, sig)) = parts {
            cids.push(manifest);
            cids.extend(sig);
        }
    }
    Ok(cids)
}

/// Whether a network's segments hold a leaf, as far as the index knows.
pub(crate) fn places(
    inner: &Inner,
    network: &NetworkId,
    cid: &Cid,
    len: u32,
) -> Result<Vec<(i64, String, u64)>, IndexError> {
    table::places_of_leaf(&*inner.index.reader()?, network, cid.prefix() as i64, len)
}
