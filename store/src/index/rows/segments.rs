//! Rows of segments, the files that the store owns.

use modswarm_protocol::{Cid, Codec, HashKind};
use rusqlite::{Connection, Row, params};

use super::{FileState, NewFile, Result, insert_file, senseless};
use crate::{backend::Identity, packs::NetworkId, segments::number_of};

/// Places of one leaf that are looked at.
const PLACES_MAX: i64 = 8;

/// A row of `segments`.
#[derive(Clone, Debug)]
pub(crate) struct SegmentRow {
    /// Its number among the files.
    pub(crate) file: i64,
    pub(crate) name: String,
    pub(crate) network: NetworkId,
    /// Bytes that are committed.
    pub(crate) len: u64,
    /// Nothing of it is needed any more: it is to be deleted.
    pub(crate) dying: bool,
}

fn read_name(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    let name: String = row.get(column)?;
    // Whatever happened to the index, no other file is written to or deleted on its word.
    if number_of(&name).is_some() {
        Ok(name)
    } else {
        Err(senseless(column, "no segment has this name"))
    }
}

/// All segments, oldest first.
pub(crate) fn all(conn: &Connection) -> Result<Vec<SegmentRow>> {
    let mut statement = conn.prepare_cached("SELECT file, name, network, len, dying FROM segments ORDER BY file")?;
    let rows = statement.query_map([], |row| {
        Ok(SegmentRow {
            file: row.get(0)?,
            name: read_name(row, 1)?,
            network: row.get(2)?,
            len: row.get::<_, i64>(3)? as u64,
            dying: row.get(4)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Bytes of all segments.
pub(crate) fn bytes(conn: &Connection) -> Result<u64> {
    Ok(conn.query_row("SELECT coalesce(sum(len), 0) FROM segments", [], |row| {
        row.get::<_, i64>(0)
    })? as u64)
}

/// Makes a row for a segment of which nothing is committed. `root` is the number of the segments' folder.
pub(crate) fn insert(conn: &Connection, root: i64, name: &str, network: &NetworkId) -> Result<i64> {
    let new = NewFile {
        root,
        path: name.as_bytes(),
        stage: None,
        state: FileState::Whole,
        // It is the store's own, and recognised by nothing but its name.
        identity: Identity {
            dev: 0,
            file: 0,
            size: 0,
            mtime: 0,
            ctime: 0,
        },
        seen: 0,
        cid: Cid::of(Codec::Raw, HashKind::Blake3, b""),
        profile: None,
    };
    let file = insert_file(conn, &new)?;
    conn.prepare_cached("INSERT INTO segments (file, name, network, len) VALUES (?1, ?2, ?3, 0)")?
        .execute(params![file, name, network])?;
    Ok(file)
}

pub(crate) fn set_len(conn: &Connection, file: i64, len: u64) -> Result<()> {
    conn.prepare_cached("UPDATE segments SET len = ?2 WHERE file = ?1")?
        .execute(params![file, len as i64])?;
    Ok(())
}

/// Says that nothing of a segment is needed any more. The rows of its leaves are dead from now on.
pub(crate) fn doom(conn: &Connection, file: i64) -> Result<()> {
    super::delete_file(conn, file)?;
    conn.execute("UPDATE segments SET dying = 1 WHERE file = ?1", [file])?;
    Ok(())
}

/// The segment's file is no more.
pub(crate) fn forget(conn: &Connection, file: i64) -> Result<()> {
    conn.execute("DELETE FROM segments WHERE file = ?1", [file])?;
    Ok(())
}

/// Where leaves of this prefix and length lie in segments of `network`: segment, its name, and offset.
pub(crate) fn places_of_leaf(
    conn: &Connection,
    network: &NetworkId,
    prefix: i64,
    len: u32,
) -> Result<Vec<(i64, String, u64)>> {
    let mut statement = conn.prepare_cached(
        "SELECT l.file, s.name, l.offset FROM leaves l JOIN segments s ON s.file = l.file
         WHERE l.prefix = ?1 AND l.len = ?2 AND s.network = ?3 AND NOT s.dying LIMIT ?4",
    )?;
    let rows = statement.query_map(params![prefix, len, network, PLACES_MAX], |row| {
        Ok((row.get(0)?, read_name(row, 1)?, row.get::<_, i64>(2)? as u64))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
