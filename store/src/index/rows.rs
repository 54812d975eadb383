//! Rows as types, and the statements that more than one part needs: of files, leaves and nodes here, of packs in `packs`, of peers in `peers`.

mod packs;
pub(crate) mod peers;
pub(crate) mod segments;

use std::path::{Component, PathBuf};

use bytes::Bytes;
use modswarm_protocol::{Cid, format::PieceSet};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

pub(crate) use self::packs::*;
use crate::{backend::Identity, error::IndexError, fs::path_from, packs::PackId};

/// Places of one leaf that are looked at.
const FILES_MAX: i64 = 64;

type Result<T> = std::result::Result<T, IndexError>;

/// Whether a file of the index can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileState {
    /// In a staging folder, some leaves written.
    Staged,
    /// In its place, all leaves in it.
    Whole,
    /// It was not where it was known to be. Its rows are kept, since folders are unmounted and come back.
    Gone,
}

impl FileState {
    pub(crate) const fn code(self) -> i64 {
        match self {
            Self::Staged => 0,
            Self::Whole => 1,
            Self::Gone => 2,
        }
    }

    fn from_code(code: i64) -> Self {
        match code {
            0 => Self::Staged,
            1 => Self::Whole,
            _ => Self::Gone,
        }
    }
}

/// A row of `files`.
#[derive(Clone, Debug)]
pub(crate) struct FileRow {
    pub(crate) id: i64,
    /// Relative to its root, as the system spells it.
    pub(crate) path: Vec<u8>,
    /// The pack in whose staging folder it is.
    pub(crate) stage: Option<i64>,
    pub(crate) state: FileState,
    pub(crate) identity: Identity,
    /// When its identity was looked at.
    pub(crate) seen: i64,
    pub(crate) cid: Cid,
    pub(crate) profile: Option<String>,
}

impl FileRow {
    pub(crate) const COLUMNS: &str =
        "f.id, f.path, f.stage, f.state, f.dev, f.ino, f.size, f.mtime, f.ctime, f.seen, f.cid, f.profile";

    pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            path: read_place(row, 1)?,
            stage: row.get(2)?,
            state: FileState::from_code(row.get(3)?),
            identity: Identity {
                dev: row.get::<_, i64>(4)? as u64,
                file: row.get::<_, i64>(5)? as u64,
                size: row.get::<_, i64>(6)? as u64,
                mtime: row.get(7)?,
                ctime: row.get(8)?,
            },
            seen: row.get(9)?,
            cid: read_cid(row, 10)?,
            profile: row.get(11)?,
        })
    }

    /// Whether a file of identity `now`, wherever it is, certainly has the bytes that this row knows.
    pub(crate) fn vouches_for(&self, now: &Identity) -> bool {
        self.state != FileState::Staged && self.identity == *now && !self.identity.is_racy(self.seen)
    }
}

/// What a new row of `files` says.
#[derive(Clone, Debug)]
pub(crate) struct NewFile<'a> {
    pub(crate) root: i64,
    pub(crate) path: &'a [u8],
    pub(crate) stage: Option<i64>,
    pub(crate) state: FileState,
    pub(crate) identity: Identity,
    pub(crate) seen: i64,
    pub(crate) cid: Cid,
    pub(crate) profile: Option<&'a str>,
}

pub(crate) fn insert_file(conn: &Connection, file: &NewFile<'_>) -> Result<i64> {
    let id = &file.identity;
    conn.prepare_cached(
        "INSERT INTO files (root, path, stage, state, dev, ino, size, mtime, ctime, seen, cid, profile)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?
    .execute(params![
        file.root,
        file.path,
        file.stage,
        file.state.code(),
        id.dev as i64,
        id.file as i64,
        id.size as i64,
        id.mtime,
        id.ctime,
        file.seen,
        file.cid.to_bytes(),
        file.profile
    ])?;
    Ok(conn.last_insert_rowid())
}

/// Says that a file is whole, in its place, with this identity.
pub(crate) fn place_file(conn: &Connection, file: i64, identity: &Identity, seen: i64) -> Result<()> {
    conn.prepare_cached(
        "UPDATE files SET stage = NULL, state = ?2, dev = ?3, ino = ?4, size = ?5, mtime = ?6, ctime = ?7, seen = ?8 WHERE id = ?1",
    )?
    .execute(params![
        file,
        FileState::Whole.code(),
        identity.dev as i64,
        identity.file as i64,
        identity.size as i64,
        identity.mtime,
        identity.ctime,
        seen
    ])?;
    Ok(())
}

/// Says that a file is to be staged again for `pack`.
pub(crate) fn stage_file(conn: &Connection, file: i64, pack: PackId) -> Result<()> {
    conn.prepare_cached("UPDATE files SET stage = ?2, state = ?3 WHERE id = ?1")?
        .execute(params![file, pack.0, FileState::Staged.code()])?;
    Ok(())
}

/// Says by what a staged file is recognised when its download goes on.
pub(crate) fn remember_staged(conn: &Connection, file: i64, identity: &Identity) -> Result<()> {
    conn.prepare_cached("UPDATE files SET dev = ?2, ino = ?3, ctime = ?4 WHERE id = ?1 AND stage IS NOT NULL")?
        .execute(params![file, identity.dev as i64, identity.file as i64, identity.ctime])?;
    Ok(())
}

/// Says that a file's identity proves nothing: it is read before it is believed.
pub(crate) fn doubt_file(conn: &Connection, file: i64) -> Result<()> {
    conn.prepare_cached("UPDATE files SET seen = 0 WHERE id = ?1")?
        .execute([file])?;
    Ok(())
}

pub(crate) fn set_file_state(conn: &Connection, file: i64, state: FileState) -> Result<()> {
    conn.prepare_cached("UPDATE files SET state = ?2 WHERE id = ?1")?
        .execute(params![file, state.code()])?;
    Ok(())
}

/// Forgets a file. Its leaves' rows are dead from now on.
pub(crate) fn delete_file(conn: &Connection, file: i64) -> Result<()> {
    conn.prepare_cached("DELETE FROM files WHERE id = ?1")?
        .execute([file])?;
    conn.prepare_cached("DELETE FROM pack_files WHERE file = ?1")?
        .execute([file])?;
    Ok(())
}

/// The files in place with this device and file number.
pub(crate) fn files_by_identity(conn: &Connection, identity: &Identity) -> Result<Vec<FileRow>> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {} FROM files f WHERE f.ino = ?1 AND f.dev = ?2 AND f.stage IS NULL",
        FileRow::COLUMNS
    ))?;
    let rows = statement.query_map(params![identity.file as i64, identity.dev as i64], FileRow::read)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Goes through all files in place under `root`.
pub(crate) fn each_file_of_root(conn: &Connection, root: i64, mut each: impl FnMut(FileRow)) -> Result<()> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {} FROM files f WHERE f.root = ?1 AND f.stage IS NULL",
        FileRow::COLUMNS
    ))?;
    let mut rows = statement.query([root])?;
    while let Some(row) = rows.next()? {
        each(FileRow::read(row)?);
    }
    Ok(())
}

/// The file in place at `path` below `root`; the newest row if there are several.
pub(crate) fn file_at(conn: &Connection, root: i64, path: &[u8]) -> Result<Option<FileRow>> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {} FROM files f WHERE f.root = ?1 AND f.path = ?2 AND f.stage IS NULL ORDER BY f.id DESC LIMIT 1",
        FileRow::COLUMNS
    ))?;
    Ok(statement.query_row(params![root, path], FileRow::read).optional()?)
}

/// All files in place under `root`.
pub(crate) fn files_of_root(conn: &Connection, root: i64) -> Result<Vec<FileRow>> {
    let mut files = Vec::new();
    each_file_of_root(conn, root, |row| files.push(row))?;
    Ok(files)
}

/// The numbers of the files in place at `path` below `root`.
pub(crate) fn files_at(conn: &Connection, root: i64, path: &[u8]) -> Result<Vec<i64>> {
    let mut statement = conn.prepare_cached("SELECT id FROM files WHERE root = ?1 AND path = ?2 AND stage IS NULL")?;
    let rows = statement.query_map(params![root, path], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The files of a pack with their numbers in its content.
pub(crate) fn files_of_pack(conn: &Connection, pack: PackId) -> Result<Vec<(u32, FileRow)>> {
    files_of_pack_from(conn, pack, 0, u32::MAX)
}

/// At most `max` of them, from number `from` on.
pub(crate) fn files_of_pack_from(conn: &Connection, pack: PackId, from: u32, max: u32) -> Result<Vec<(u32, FileRow)>> {
    let mut files = Vec::new();
    each_file_of_pack(conn, pack, from, max, |number, row| files.push((number, row)))?;
    Ok(files)
}

/// Calls `each` with at most `max` files of a pack and their numbers in its content, from number `from` on, in their order.
pub(crate) fn each_file_of_pack(
    conn: &Connection,
    pack: PackId,
    from: u32,
    max: u32,
    mut each: impl FnMut(u32, FileRow),
) -> Result<()> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {}, p.number FROM pack_files p JOIN files f ON f.id = p.file
         WHERE p.pack = ?1 AND p.number >= ?2 ORDER BY p.number LIMIT ?3",
        FileRow::COLUMNS
    ))?;
    let mut rows = statement.query(params![pack.0, from, max])?;
    while let Some(row) = rows.next()? {
        each(row.get(12)?, FileRow::read(row)?);
    }
    Ok(())
}

/// The rows of the files of a pack, in ascending order.
pub(crate) fn file_ids_of_pack(conn: &Connection, pack: PackId) -> Result<Vec<i64>> {
    let mut statement = conn.prepare_cached("SELECT file FROM pack_files WHERE pack = ?1 ORDER BY file")?;
    let rows = statement.query_map([pack.0], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Whether the files of `pack` are `files`, in this order.
pub(crate) fn has_files(conn: &Connection, pack: PackId, files: &[i64]) -> Result<bool> {
    let mut statement = conn.prepare_cached("SELECT number, file FROM pack_files WHERE pack = ?1 ORDER BY number")?;
    let mut rows = statement.query([pack.0])?;
    for (at, file) in files.iter().enumerate() {
        match rows.next()? {
            Some(row) if row.get::<_, i64>(0)? == at as i64 && row.get::<_, i64>(1)? == *file => {}
            _ => return Ok(false),
        }
    }
    Ok(rows.next()?.is_none())
}

pub(crate) fn insert_pack_file(conn: &Connection, pack: PackId, number: u32, file: i64) -> Result<()> {
    conn.prepare_cached("INSERT OR REPLACE INTO pack_files (pack, number, file) VALUES (?1, ?2, ?3)")?
        .execute(params![pack.0, number, file])?;
    Ok(())
}

/// A row of `leaves`: where a leaf lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LeafRow {
    pub(crate) prefix: i64,
    pub(crate) file: i64,
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

/// Inserts rows; sorted ones go in several times faster.
pub(crate) fn insert_leaves(conn: &Connection, rows: &[LeafRow]) -> Result<()> {
    let mut statement =
        conn.prepare_cached("INSERT OR REPLACE INTO leaves (prefix, file, offset, len) VALUES (?1, ?2, ?3, ?4)")?;
    for row in rows {
        statement.execute(params![row.prefix, row.file, row.offset as i64, row.len])?;
    }
    Ok(())
}

pub(crate) fn delete_leaf(conn: &Connection, row: &LeafRow) -> Result<()> {
    conn.prepare_cached("DELETE FROM leaves WHERE prefix = ?1 AND file = ?2 AND offset = ?3")?
        .execute(params![row.prefix, row.file, row.offset as i64])?;
    Ok(())
}

/// The number of `path` among the roots, given one if it has none.
pub(crate) fn root_id(conn: &Connection, path: &[u8]) -> Result<i64> {
    conn.prepare_cached("INSERT OR IGNORE INTO roots (path) VALUES (?1)")?
        .execute([path])?;
    find_root(conn, path)?.ok_or_else(|| IndexError::Other("a root just inserted is not there".to_owned()))
}

pub(crate) fn find_root(conn: &Connection, path: &[u8]) -> Result<Option<i64>> {
    Ok(conn
        .prepare_cached("SELECT id FROM roots WHERE path = ?1")?
        .query_row([path], |row| row.get(0))
        .optional()?)
}

pub(crate) fn root_path(conn: &Connection, root: i64) -> Result<Option<Vec<u8>>> {
    Ok(conn
        .prepare_cached("SELECT path FROM roots WHERE id = ?1")?
        .query_row([root], |row| row.get(0))
        .optional()?)
}

/// Says that a file lies elsewhere under its root.
pub(crate) fn move_file(conn: &Connection, file: i64, path: &[u8]) -> Result<()> {
    conn.prepare_cached("UPDATE files SET path = ?2 WHERE id = ?1")?
        .execute(params![file, path])?;
    Ok(())
}

pub(crate) fn setting(conn: &Connection, key: &str) -> Result<Option<String>> {
    Ok(conn
        .prepare_cached("SELECT value FROM settings WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()?)
}

pub(crate) fn set_setting(conn: &Connection, key: &str, value: &str) -> Result<()> {
    conn.prepare_cached("INSERT OR REPLACE INTO settings (key, value) VALUES (?1, ?2)")?
        .execute([key, value])?;
    Ok(())
}

pub(crate) fn remove_setting(conn: &Connection, key: &str) -> Result<()> {
    conn.prepare_cached("DELETE FROM settings WHERE key = ?1")?
        .execute([key])?;
    Ok(())
}

pub(crate) fn put_nodes<'a>(conn: &Connection, nodes: impl IntoIterator<Item = &'a (Cid, Bytes)>) -> Result<()> {
    let mut statement = conn.prepare_cached(
        "INSERT INTO nodes (cid, bytes, seen) VALUES (?1, ?2, ?3) ON CONFLICT (cid) DO UPDATE SET seen = ?3 WHERE seen < ?3",
    )?;
    let seen = crate::packs::now_secs() / 3600;
    for (cid, bytes) in nodes {
        statement.execute(params![cid.to_bytes(), bytes.as_ref(), seen as i64])?;
    }
    Ok(())
}

pub(crate) fn node(conn: &Connection, cid: &Cid) -> Result<Option<Bytes>> {
    Ok(conn
        .prepare_cached("SELECT bytes FROM nodes WHERE cid = ?1")?
        .query_row([cid.to_bytes()], |row| row.get::<_, Vec<u8>>(0))
        .optional()?
        .map(Bytes::from))
}

/// Whether any file that can be read is said to hold a leaf of this prefix and length.
pub(crate) fn is_anywhere(conn: &Connection, prefix: i64, len: u32) -> Result<bool> {
    Ok(conn
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM leaves l JOIN files f ON f.id = l.file
             WHERE l.prefix = ?1 AND l.len = ?2 AND f.state != ?3)",
        )?
        .query_row(params![prefix, len, FileState::Gone.code()], |row| row.get(0))?)
}

/// The files that can be read and are said to hold a leaf of this prefix and length.
pub(crate) fn files_with_leaf(conn: &Connection, prefix: i64, len: u32) -> Result<Vec<i64>> {
    let mut statement = conn.prepare_cached(
        "SELECT l.file FROM leaves l JOIN files f ON f.id = l.file
         WHERE l.prefix = ?1 AND l.len = ?2 AND f.state != ?3 LIMIT ?4",
    )?;
    let rows = statement.query_map(params![prefix, len, FileState::Gone.code(), FILES_MAX], |row| {
        row.get(0)
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The rows of leaves in the order of their prefixes.
pub(crate) struct LeavesFrom<'a>(rusqlite::CachedStatement<'a>);

/// Rows of [`LeavesFrom`], one after the other.
pub(crate) struct LeafRows<'a>(rusqlite::Rows<'a>);

impl<'a> LeavesFrom<'a> {
    pub(crate) fn new(conn: &'a Connection) -> Result<Self> {
        let sql = "SELECT prefix, file, offset, len FROM leaves WHERE prefix >= ?1 ORDER BY prefix";
        Ok(Self(conn.prepare_cached(sql)?))
    }

    /// The rows from `prefix` on.
    pub(crate) fn query(&mut self, prefix: i64) -> Result<LeafRows<'_>> {
        Ok(LeafRows(self.0.query([prefix])?))
    }
}

impl LeafRows<'_> {
    pub(crate) fn next(&mut self) -> Result<Option<LeafRow>> {
        let Some(row) = self.0.next()? else { return Ok(None) };
        Ok(Some(LeafRow {
            prefix: row.get(0)?,
            file: row.get(1)?,
            offset: row.get::<_, i64>(2)? as u64,
            // No leaf is empty: a row that makes no sense is nobody's.
            len: row.get::<_, i64>(3)?.try_into().unwrap_or(0),
        }))
    }
}

/// A file's row, its root, and the staging folder that it is in.
pub(crate) fn file_and_place(conn: &Connection, file: i64) -> Result<Option<(FileRow, PathBuf, Option<PathBuf>)>> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {}, r.path, p.stage FROM files f JOIN roots r ON r.id = f.root LEFT JOIN packs p ON p.id = f.stage WHERE f.id = ?1",
        FileRow::COLUMNS
    ))?;
    let row = statement.query_row([file], |row| {
        let stage: Option<Vec<u8>> = row.get(13)?;
        Ok((FileRow::read(row)?, path_from(row.get(12)?), stage.map(path_from)))
    });
    Ok(row.optional()?)
}

/// A bit set as the tables keep it: bit `i` is bit `i % 8` of byte `i / 8`.
pub(crate) fn bits_to_bytes(set: &PieceSet) -> Vec<u8> {
    let mut bytes: Vec<u8> = set.as_raw_slice().iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.truncate(set.len().div_ceil(8));
    if let Some(last) = bytes.last_mut()
        && !set.len().is_multiple_of(8)
    {
        *last &= (1 << (set.len() % 8)) - 1;
    }
    bytes
}

/// The set of `len` bits that [`bits_to_bytes`] gave; `None` is the full set. Missing bytes are zeros.
pub(crate) fn bits_from_bytes(bytes: Option<&[u8]>, len: usize) -> PieceSet {
    let Some(bytes) = bytes else {
        return PieceSet::repeat(true, len);
    };
    let mut set = PieceSet::repeat(false, len);
    for (at, mut bit) in set.iter_mut().enumerate() {
        *bit = bytes.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1);
    }
    set
}

/// Whether bit `at` is in the set that [`bits_to_bytes`] gave.
pub(crate) fn has_bit(bytes: Option<&[u8]>, at: u32) -> bool {
    bytes.is_none_or(|bytes| bytes.get(at as usize / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1))
}

fn parse_cid(bytes: &[u8], column: usize) -> rusqlite::Result<Cid> {
    Cid::from_bytes(bytes)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Blob, Box::new(e)))
}

fn read_cid(row: &Row<'_>, column: usize) -> rusqlite::Result<Cid> {
    let bytes: Vec<u8> = row.get(column)?;
    parse_cid(&bytes, column)
}

/// A value that no statement of the store writes.
fn senseless(column: usize, what: &'static str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Null, what.into())
}

/// A path below a root: whatever happened to the index, nothing outside is read, replaced or deleted on its word.
fn read_place(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<u8>> {
    let bytes: Vec<u8> = row.get(column)?;
    let below = |c| matches!(c, Component::Normal(_));
    if path_from(bytes.clone()).components().all(below) {
        Ok(bytes)
    } else {
        Err(senseless(column, "a file's path leaves its folder"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bit_sets_survive_their_bytes_at_every_length() {
        for len in 0..70 {
            let set: PieceSet = (0..len).map(|i| i % 3 == 0).collect();
            assert_eq!(bits_from_bytes(Some(&bits_to_bytes(&set)), len), set);
            assert_eq!(bits_to_bytes(&PieceSet::repeat(true, len)).len(), len.div_ceil(8));
        }
    }
}
