//! Rows as types, and the statements that more than one part needs.

use std::path::PathBuf;

use bytes::Bytes;
use modswarm_protocol::{Cid, format::PieceSet};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::{
    backend::Identity,
    download::Conflicts,
    error::IndexError,
    fs::path_from,
    packs::{Origin, PackId, PackRecord, PackState},
};

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
            path: row.get(1)?,
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
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {}, p.number FROM pack_files p JOIN files f ON f.id = p.file WHERE p.pack = ?1 ORDER BY p.number",
        FileRow::COLUMNS
    ))?;
    let rows = statement.query_map([pack.0], |row| Ok((row.get(12)?, FileRow::read(row)?)))?;
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

/// A pack record as the tables have it.
#[derive(Clone, Debug)]
pub(crate) struct PackRow {
    pub(crate) record: PackRecord,
    pub(crate) root: i64,
    /// `None`: all.
    pub(crate) have: Option<Vec<u8>>,
    /// `None`: all.
    pub(crate) selection: Option<Vec<u8>>,
    /// The staging folder, while downloading.
    pub(crate) stage: Option<Vec<u8>>,
    pub(crate) conflicts: Conflicts,
}

const PACK_COLUMNS: &str = "id, pack, content, name, network, root, place, origin, state, created, files, bytes, pieces, pieces_here, \
                            piece_bytes, piece_bytes_here, have, selection, stage, overwrite, pinned, used, \
                            (SELECT count(*) FROM kept k WHERE k.pack = packs.id)";

fn read_pack(row: &Row<'_>) -> rusqlite::Result<PackRow> {
    let pack: Option<Vec<u8>> = row.get(1)?;
    let pack = pack.map(|bytes| parse_cid(&bytes, 1)).transpose()?;
    let selection: Option<Vec<u8>> = row.get(17)?;
    Ok(PackRow {
        record: PackRecord {
            id: PackId(row.get(0)?),
            pack,
            content: read_cid(row, 2)?,
            name: row.get(3)?,
            network: row.get(4)?,
            path: path_from(row.get(6)?),
            origin: if row.get::<_, i64>(7)? == 0 {
                Origin::Shared
            } else {
                Origin::Fetched
            },
            state: match row.get::<_, i64>(8)? {
                0 => PackState::Downloading,
                1 => PackState::Whole,
                _ => PackState::Superseded,
            },
            created: row.get::<_, i64>(9)? as u64,
            files: row.get::<_, i64>(10)? as u64,
            bytes: row.get::<_, i64>(11)? as u64,
            pieces: row.get(12)?,
            pieces_here: row.get(13)?,
            piece_bytes: row.get::<_, i64>(14)? as u64,
            piece_bytes_here: row.get::<_, i64>(15)? as u64,
            partial: selection.is_some(),
            pinned: row.get(20)?,
            used: row.get::<_, i64>(21)? as u64,
            kept: row.get::<_, i64>(22)? as u64,
        },
        root: row.get(5)?,
        have: row.get(16)?,
        selection,
        stage: row.get(18)?,
        conflicts: Conflicts::from_code(row.get(19)?),
    })
}

pub(crate) const fn state_code(state: PackState) -> i64 {
    match state {
        PackState::Downloading => 0,
        PackState::Whole => 1,
        PackState::Superseded => 2,
    }
}

pub(crate) const fn origin_code(origin: Origin) -> i64 {
    match origin {
        Origin::Shared => 0,
        Origin::Fetched => 1,
    }
}

/// Inserts a record; its `id` is ignored and the new one returned.
pub(crate) fn insert_pack(conn: &Connection, row: &PackRow) -> Result<PackId> {
    let r = &row.record;
    conn.prepare_cached(
        "INSERT INTO packs (pack, content, name, network, root, place, origin, state, created, files, bytes, pieces, pieces_here,
            piece_bytes, piece_bytes_here, have, selection, stage, overwrite, pinned, used)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)",
    )?
    .execute(params![
        r.pack.map(|cid| cid.to_bytes()),
        r.content.to_bytes(),
        r.name,
        r.network,
        row.root,
        crate::fs::path_bytes(&r.path),
        origin_code(r.origin),
        state_code(r.state),
        r.created as i64,
        r.files as i64,
        r.bytes as i64,
        r.pieces,
        r.pieces_here,
        r.piece_bytes as i64,
        r.piece_bytes_here as i64,
        row.have,
        row.selection,
        row.stage,
        row.conflicts.code(),
        r.pinned,
        r.used as i64
    ])?;
    Ok(PackId(conn.last_insert_rowid()))
}

/// Makes a record a download (again); its files are put anew, and what it has is what they hold.
pub(crate) fn renew_pack(conn: &Connection, id: PackId, row: &PackRow) -> Result<()> {
    let r = &row.record;
    conn.prepare_cached(
        "UPDATE packs SET pack = coalesce(?2, pack), name = ?3, network = ?4, state = ?5, files = ?6, bytes = ?7, selection = ?8, stage = ?9,
            overwrite = ?10, have = ?11, pieces_here = ?12, piece_bytes_here = ?13 WHERE id = ?1",
    )?
    .execute(params![
        id.0,
        r.pack.map(|cid| cid.to_bytes()),
        r.name,
        r.network,
        state_code(r.state),
        r.files as i64,
        r.bytes as i64,
        row.selection,
        row.stage,
        row.conflicts.code(),
        row.have,
        r.pieces_here,
        r.piece_bytes_here as i64
    ])?;
    Ok(())
}

/// Forgets the staging folder of a download that has ended, and files that are still said to be in it.
pub(crate) fn end_stage(conn: &Connection, id: PackId) -> Result<()> {
    conn.execute("UPDATE packs SET stage = NULL, overwrite = 0 WHERE id = ?1", [id.0])?;
    conn.execute(
        "DELETE FROM pack_files WHERE pack = ?1 AND file IN (SELECT id FROM files WHERE stage = ?1)",
        [id.0],
    )?;
    conn.execute("DELETE FROM files WHERE stage = ?1", [id.0])?;
    Ok(())
}

fn query_packs(conn: &Connection, clause: &str, values: impl rusqlite::Params) -> Result<Vec<PackRow>> {
    let mut statement = conn.prepare_cached(&format!("SELECT {PACK_COLUMNS} FROM packs {clause}"))?;
    let rows = statement.query_map(values, read_pack)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(crate) fn packs(conn: &Connection) -> Result<Vec<PackRow>> {
    query_packs(conn, "ORDER BY id", [])
}

pub(crate) fn pack(conn: &Connection, id: PackId) -> Result<Option<PackRow>> {
    Ok(query_packs(conn, "WHERE id = ?1", [id.0])?.pop())
}

pub(crate) fn packs_of(conn: &Connection, cid: &Cid) -> Result<Vec<PackRow>> {
    query_packs(
        conn,
        "WHERE content = ?1 OR pack = ?1 ORDER BY id DESC",
        [cid.to_bytes()],
    )
}

pub(crate) fn packs_at(conn: &Connection, place: &[u8]) -> Result<Vec<PackRow>> {
    query_packs(conn, "WHERE place = ?1 ORDER BY id DESC", [place])
}

/// The packs that `file` is part of, with its number in each.
pub(crate) fn packs_of_file(conn: &Connection, file: i64) -> Result<Vec<(PackId, u32)>> {
    let mut statement = conn.prepare_cached("SELECT pack, number FROM pack_files WHERE file = ?1")?;
    let rows = statement.query_map([file], |row| Ok((PackId(row.get(0)?), row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(crate) fn set_have(conn: &Connection, id: PackId, have: Option<&[u8]>, pieces: u32, bytes: u64) -> Result<()> {
    conn.prepare_cached("UPDATE packs SET have = ?2, pieces_here = ?3, piece_bytes_here = ?4 WHERE id = ?1")?
        .execute(params![id.0, have, pieces, bytes as i64])?;
    Ok(())
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

/// Says which files of a pack are not there because the user kept his own.
pub(crate) fn set_kept(conn: &Connection, pack: PackId, numbers: &[u32]) -> Result<()> {
    let mut forget = conn.prepare_cached("DELETE FROM pack_files WHERE pack = ?1 AND number = ?2")?;
    let mut keep = conn.prepare_cached("INSERT OR IGNORE INTO kept (pack, number) VALUES (?1, ?2)")?;
    for number in numbers {
        forget.execute(params![pack.0, number])?;
        keep.execute(params![pack.0, number])?;
    }
    Ok(())
}

/// Forgets which files the user kept: he is asked again.
pub(crate) fn forget_kept(conn: &Connection, pack: PackId) -> Result<()> {
    conn.execute("DELETE FROM kept WHERE pack = ?1", [pack.0])?;
    Ok(())
}

/// Adds and takes away pieces, each with its bytes, of what a pack has.
pub(crate) fn change_have(conn: &Connection, id: PackId, add: &[(u32, u32)], take: &[(u32, u32)]) -> Result<()> {
    let Some(row) = pack(conn, id)? else { return Ok(()) };
    let mut have = bits_from_bytes(row.have.as_deref(), row.record.pieces as usize);
    let (mut pieces, mut bytes) = (row.record.pieces_here, row.record.piece_bytes_here);
    for (changes, to) in [(add, true), (take, false)] {
        for &(piece, len) in changes {
            let Some(mut bit) = have.get_mut(piece as usize) else {
                continue;
            };
            if *bit != to {
                *bit = to;
                let len = u64::from(len);
                (pieces, bytes) = if to {
                    (pieces + 1, bytes + len)
                } else {
                    (pieces - 1, bytes.saturating_sub(len))
                };
            }
        }
    }
    let blob = (!have.all()).then(|| bits_to_bytes(&have));
    set_have(conn, id, blob.as_deref(), pieces, bytes)
}

pub(crate) fn set_pack_state(conn: &Connection, id: PackId, state: PackState) -> Result<()> {
    conn.prepare_cached("UPDATE packs SET state = ?2 WHERE id = ?1")?
        .execute(params![id.0, state_code(state)])?;
    Ok(())
}

pub(crate) fn delete_pack(conn: &Connection, id: PackId) -> Result<()> {
    conn.execute("DELETE FROM packs WHERE id = ?1", [id.0])?;
    conn.execute("DELETE FROM pack_files WHERE pack = ?1", [id.0])?;
    conn.execute("DELETE FROM kept WHERE pack = ?1", [id.0])?;
    conn.execute("DELETE FROM renames WHERE pack = ?1", [id.0])?;
    Ok(())
}

/// Remembers a staging folder, so that it is cleared up if nobody comes back to it.
pub(crate) fn remember_stage(conn: &Connection, path: &[u8]) -> Result<()> {
    conn.prepare_cached("INSERT OR IGNORE INTO stages (path) VALUES (?1)")?
        .execute([path])?;
    Ok(())
}

/// The staging folder is no more.
pub(crate) fn forget_stage(conn: &Connection, path: &[u8]) -> Result<()> {
    conn.prepare_cached("DELETE FROM stages WHERE path = ?1")?
        .execute([path])?;
    Ok(())
}

pub(crate) fn mark_used(conn: &Connection, content: &Cid, now: u64) -> Result<()> {
    conn.prepare_cached("UPDATE packs SET used = ?2 WHERE content = ?1")?
        .execute(params![content.to_bytes(), now as i64])?;
    Ok(())
}

pub(crate) fn set_pinned(conn: &Connection, id: PackId, pinned: bool) -> Result<()> {
    conn.execute("UPDATE packs SET pinned = ?2 WHERE id = ?1", params![id.0, pinned])?;
    Ok(())
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
