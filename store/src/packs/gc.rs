//! Clearing up: what the home keeps and no pack needs any more. Users' files are never touched.
//!
//! What may still be mended stays: the plain files of packs that a lost index knew, and the blocks of their copies (`left`).
//!
//! What goes: segments that no copied pack needs, nodes that no record leads to (of packs that were removed or only looked at), rows of files and leaves that are dead, staging folders that
//! crashes left, plain files of packs that are no more; then the index is made smaller where much of it is free. It can be stopped at any
//! instant: each step is a transaction, and the next run goes on.

use std::{collections::HashSet, path::PathBuf};

use modswarm_protocol::{
    Cid,
    format::{Limits, Name, SkeletonReader},
};
use rusqlite::params;

use super::PackRecord;
use crate::{
    download::{clear_at, is_staging_folder},
    error::{GcError, IndexError},
    fs,
    index::rows,
    left,
    observer::Observer,
    store::Inner,
};

/// A node that was put within this many hours stays: somebody may be fetching a skeleton now.
const FRESH_HOURS: i64 = 1;
/// Nodes looked at, and rows deleted, in one transaction.
const BATCH: usize = 4096;
/// The leaves' table is swept in this many parts, one transaction each.
const SWEEPS: i64 = 256;
/// The index is written anew when this share of it is free.
const FREE_SHARE: u64 = 4;
/// And at least so many bytes.
const FREE_MIN: u64 = 1 << 20;

/// What [`crate::Store::collect_garbage`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Nodes deleted.
    pub nodes: u64,
    /// Their bytes.
    pub node_bytes: u64,
    /// Rows of leaves that lay in files that are no more.
    pub leaf_rows: u64,
    /// Rows of files that no pack has.
    pub file_rows: u64,
    /// Bytes of copies that no pack needs any more.
    pub segment_bytes: u64,
    /// Staging folders deleted.
    pub stages: Vec<PathBuf>,
    /// Bytes of the index before.
    pub index_bytes_before: u64,
    /// Bytes of the index after.
    pub index_bytes_after: u64,
}

pub(crate) fn collect(inner: &Inner, observer: &dyn Observer) -> Result<Collected, GcError> {
    let stop = || {
        if observer.cancelled() {
            Err(GcError::Cancelled)
        } else {
            Ok(())
        }
    };
    inner.index.writer.flush()?;
    let left = left::mend(inner)?;
    let records: Vec<PackRecord> = rows::packs(&*inner.index.reader()?)?
        .into_iter()
        .map(|row| row.record)
        .collect();
    let mut collected = Collected {
        index_bytes_before: index_bytes(inner)?.0,
        ..Collected::default()
    };
    // A share writes rows of files before those of their pack, and a download is known before its staging folder is.
    let alone = inner.upkeep.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    stages(inner, &mut collected)?;
    stop()?;
    collected.file_rows = inner.index.writer.run(|tx| -> Result<u64, IndexError> {
        Ok(tx.execute(
            "DELETE FROM files WHERE stage IS NULL AND id NOT IN (SELECT file FROM former) AND id NOT IN (SELECT file FROM segments)
               AND NOT EXISTS (SELECT 1 FROM pack_files p WHERE p.file = files.id)",
            [],
        )? as u64)
    })?;
    drop(alone);
    let alone = inner.segments.alone();
    let swept = crate::segments::sweep(inner, &alone, &|| observer.cancelled())?;
    drop(alone);
    collected.segment_bytes = swept.before.saturating_sub(swept.after);
    sweep_leaves(inner, &mut collected, &stop)?;
    // Below a node that is missing nobody can say which are needed.
    if !left.iter().any(left::Left::may_have_copy) {
        sweep_nodes(inner, &records, &mut collected, &stop)?;
    }
    let mut kept: HashSet<PathBuf> = records
        .iter()
        .map(|record| inner.lock.pack_dir(&record.pack.unwrap_or(record.content)))
        .collect();
    kept.extend(left.iter().filter_map(|left| Some(left.file.parent()?.to_owned())));
    plain_files(inner, &kept);
    shrink(inner)?;
    collected.index_bytes_after = index_bytes(inner)?.0;
    Ok(collected)
}

/// Deletes staging folders whose download has ended.
fn stages(inner: &Inner, collected: &mut Collected) -> Result<(), IndexError> {
    let conn = inner.index.reader()?;
    let mut statement = conn.prepare_cached(
        "SELECT s.path FROM stages s WHERE NOT EXISTS (SELECT 1 FROM packs p WHERE p.stage = s.path)",
    )?;
    let left: Vec<Vec<u8>> = statement
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    drop(statement);
    drop(conn);
    for bytes in left {
        let path = fs::path_from(bytes.clone());
        if !is_staging_folder(&bytes) {
            return Err(IndexError::Corrupt);
        }
        let there = inner.backend.exists(&path);
        match clear_at(&*inner.backend, &path) {
            Ok(()) if there => collected.stages.push(path),
            Ok(()) => {}
            // A disk that is not there now: next time.
            Err(e) => {
                tracing::warn!("{path:?} cannot be deleted: {e}");
                continue;
            }
        }
        inner.index.writer.run(move |tx| rows::forget_stage(tx, &bytes))?;
    }
    Ok(())
}

/// Deletes rows of leaves whose file has no row.
fn sweep_leaves(
    inner: &Inner,
    collected: &mut Collected,
    stop: &dyn Fn() -> Result<(), GcError>,
) -> Result<(), GcError> {
    // Prefixes are spread evenly over all numbers.
    let bound = |part: i128| (i128::from(i64::MIN) + (part << 64) / i128::from(SWEEPS)) as i64;
    for part in 0..i128::from(SWEEPS) {
        stop()?;
        let from = bound(part);
        let to = bound(part + 1).wrapping_sub(1);
        let reader = inner.index.reader()?;
        let mut statement = reader.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM leaves l LEFT JOIN files f ON f.id = l.file
             WHERE l.prefix BETWEEN ?1 AND ?2 AND f.id IS NULL)",
        )?;
        // Looking does not hold up those who write.
        if !statement.query_row([from, to], |row| row.get::<_, bool>(0))? {
            continue;
        }
        collected.leaf_rows += inner.index.writer.run(move |tx| -> Result<u64, IndexError> {
            Ok(tx.execute(
                "DELETE FROM leaves WHERE prefix BETWEEN ?1 AND ?2 AND file NOT IN (SELECT id FROM files)",
                [from, to],
            )? as u64)
        })?;
    }
    Ok(())
}

/// Deletes nodes that no record leads to.
fn sweep_nodes(
    inner: &Inner,
    records: &[PackRecord],
    collected: &mut Collected,
    stop: &dyn Fn() -> Result<(), GcError>,
) -> Result<(), GcError> {
    let mut live: HashSet<Cid> = HashSet::new();
    for record in records {
        stop()?;
        let name = Name::new(&record.name).ok();
        for root in record.pack.into_iter().chain([record.content]) {
            mark(inner, root, name.as_ref(), &mut live)?;
        }
    }
    for (_, file) in crate::segments::cloned_files(inner)? {
        mark(inner, file, None, &mut live)?;
    }
    let fresh_from = (super::now_secs() / 3600) as i64 - FRESH_HOURS;
    let mut after = 0_i64;
    loop {
        stop()?;
        let reader = inner.index.reader()?;
        let mut statement = reader.prepare_cached(
            "SELECT rowid, cid, length(bytes), seen FROM nodes WHERE rowid > ?1 ORDER BY rowid LIMIT ?2",
        )?;
        let page: Vec<(i64, Vec<u8>, i64, i64)> = statement
            .query_map(params![after, BATCH as i64], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })?
            .collect::<rusqlite::Result<_>>()?;
        drop(statement);
        drop(reader);
        let Some((last, ..)) = page.last() else { break };
        after = *last;
        let dead: Vec<(i64, i64)> = page
            .iter()
            .filter(|(_, cid, _, seen)| {
                *seen < fresh_from && !Cid::from_bytes(cid).is_ok_and(|cid| live.contains(&cid))
            })
            .map(|(rowid, _, len, _)| (*rowid, *len))
            .collect();
        if dead.is_empty() {
            continue;
        }
        let (nodes, bytes) = inner.index.writer.run(move |tx| -> Result<(u64, u64), IndexError> {
            let mut statement = tx.prepare_cached("DELETE FROM nodes WHERE rowid = ?1 AND seen < ?2")?;
            let (mut nodes, mut bytes) = (0, 0);
            for (rowid, len) in dead {
                // Put again meanwhile, it stays.
                if statement.execute([rowid, fresh_from])? > 0 {
                    nodes += 1;
                    bytes += len as u64;
                }
            }
            Ok((nodes, bytes))
        })?;
        collected.nodes += nodes;
        collected.node_bytes += bytes;
    }
    Ok(())
}

/// Adds all nodes that `root` leads to, as far as they are here.
fn mark(inner: &Inner, root: Cid, name: Option<&Name>, live: &mut HashSet<Cid>) -> Result<(), IndexError> {
    live.insert(root);
    let conn = inner.index.reader()?;
    let mut reader = SkeletonReader::new(root, Limits::DEFAULT);
    if let Some(name) = name {
        reader = reader.named(name.clone());
    }
    loop {
        let wanted = reader.wanted(BATCH);
        if wanted.is_empty() {
            return Ok(());
        }
        for cid in wanted {
            live.insert(cid);
            if let Some(bytes) = rows::node(&conn, &cid)?
                && cid.verifies(&bytes)
            {
                // What makes no sense leads nowhere.
                let _ = reader.add(&cid, &bytes);
            }
        }
    }
}

/// Deletes the plain files of packs that have no record.
fn plain_files(inner: &Inner, kept: &HashSet<PathBuf>) {
    let folder = inner.lock.home().join("packs");
    for (name, _) in inner.backend.read_dir(&folder).unwrap_or_default() {
        let path = folder.join(name);
        if !kept.contains(&path)
            && let Err(e) = inner.backend.remove_tree(&path)
        {
            tracing::warn!("{path:?} cannot be deleted: {e}");
        }
    }
}

/// Bytes of the index, and of those the free ones.
fn index_bytes(inner: &Inner) -> Result<(u64, u64), IndexError> {
    let conn = inner.index.reader()?;
    let pragma = |name: &str| conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
    let page = pragma("page_size")? as u64;
    Ok((
        pragma("page_count")? as u64 * page,
        pragma("freelist_count")? as u64 * page,
    ))
}

fn shrink(inner: &Inner) -> Result<(), IndexError> {
    let (all, free) = index_bytes(inner)?;
    if free < FREE_MIN || free < all / FREE_SHARE {
        return Ok(());
    }
    inner.index.writer.outside_transactions(|conn| {
        conn.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE);")?;
        Ok(())
    })
}
