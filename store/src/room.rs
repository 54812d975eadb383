//! How much of a disk downloads may take: a quota over all of them, and room that is always left free.
//!
//! The quota is reserved when a download begins, in the transaction that makes its record, so that two that begin together cannot both have the last of it.
//! The floor is looked at when one begins, and again while it writes.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use rusqlite::{Connection, params};

use crate::{
    backend::Backend,
    error::IndexError,
    index::rows,
    packs::{Origin, PackState},
};

/// Bytes written between two looks at the free space.
const LOOK_EVERY: u64 = 16 << 20;

/// The bounds, and what was written since they were looked at.
#[derive(Debug)]
pub(crate) struct Room {
    quota: Option<u64>,
    min_free: u64,
    unlooked: AtomicU64,
}

/// Why a download may not begin or go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Shortage {
    /// Downloads and copies would take more than the quota.
    #[error("downloads and copies may take {quota} bytes in all, {taken} are taken, and {needed} more are needed")]
    Quota {
        /// The quota.
        quota: u64,
        /// Bytes of the other downloads of this home, and of its copies.
        taken: u64,
        /// Bytes of this one.
        needed: u64,
    },
    /// Less would be free than is to be kept free.
    #[error("{min_free} bytes are to stay free on the disk of {path:?}; {free} are free, and {needed} are needed")]
    Floor {
        /// Where it was to be written.
        path: PathBuf,
        /// What is to stay free.
        min_free: u64,
        /// What is free.
        free: u64,
        /// Bytes to write.
        needed: u64,
    },
}

impl Room {
    pub(crate) fn new(quota: Option<u64>, min_free: u64) -> Self {
        Self {
            quota,
            min_free,
            unlooked: AtomicU64::new(0),
        }
    }

    /// The quota, to be passed to [`reserve`].
    pub(crate) fn quota(&self) -> Option<u64> {
        self.quota
    }

    /// Whether `needed` bytes more leave enough free on the disk of `path`.
    pub(crate) fn admit(&self, backend: &dyn Backend, path: &Path, needed: u64) -> Result<(), Shortage> {
        match backend.free_space(path) {
            Some(free) if self.min_free > 0 && free < needed.saturating_add(self.min_free) => Err(Shortage::Floor {
                path: path.to_owned(),
                min_free: self.min_free,
                free,
                needed,
            }),
            _ => Ok(()),
        }
    }

    /// As [`Room::admit`], for `bytes` that are about to be written; it looks now and then.
    pub(crate) fn write(&self, backend: &dyn Backend, path: &Path, bytes: u64) -> Result<(), Shortage> {
        if self.min_free == 0 || self.unlooked.fetch_add(bytes, Relaxed) + bytes < LOOK_EVERY {
            return Ok(());
        }
        self.admit(backend, path, bytes)?;
        self.unlooked.store(0, Relaxed);
        Ok(())
    }
}

/// Refuses `needed` bytes for a download to `place` if all downloads would take more than `quota`. In the transaction that makes its record.
pub(crate) fn reserve(
    conn: &Connection,
    quota: Option<u64>,
    place: &[u8],
    needed: u64,
) -> Result<Option<Shortage>, IndexError> {
    let Some(quota) = quota else { return Ok(None) };
    let taken = taken(conn, place)?;
    Ok((taken.saturating_add(needed) > quota).then_some(Shortage::Quota { quota, taken, needed }))
}

/// What counts towards the quota beside a download to `place`.
pub(crate) fn taken(conn: &Connection, place: &[u8]) -> Result<u64, IndexError> {
    let taken: i64 = conn
        .prepare_cached("SELECT coalesce(sum(bytes), 0) FROM packs WHERE origin = ?1 AND state != ?2 AND place != ?3")?
        .query_row(
            params![
                rows::origin_code(Origin::Fetched),
                rows::state_code(PackState::Superseded),
                place
            ],
            |row| row.get(0),
        )?;
    Ok((taken as u64).saturating_add(rows::segments::bytes(conn)?))
}
