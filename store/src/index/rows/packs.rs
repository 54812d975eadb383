//! Rows of packs: their records, what each has, and what is remembered beside them.

use modswarm_protocol::{Cid, format::Limits};
use rusqlite::{Connection, Row, params};

use super::{Result, bits_from_bytes, bits_to_bytes, parse_cid, read_cid, senseless};
use crate::{
    download::{Conflicts, is_staging_folder},
    fs::path_from,
    packs::{Origin, PackId, PackRecord, PackState},
};

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
                            piece_bytes, piece_bytes_here, have, selection, stage, overwrite, pinned, used, copied, \
                            (SELECT count(*) FROM kept k WHERE k.pack = packs.id)";

fn read_pack(row: &Row<'_>) -> rusqlite::Result<PackRow> {
    let pack: Option<Vec<u8>> = row.get(1)?;
    let pack = pack.map(|bytes| parse_cid(&bytes, 1)).transpose()?;
    let selection: Option<Vec<u8>> = row.get(17)?;
    let pieces: u32 = row.get(12)?;
    if u64::from(pieces) > Limits::DEFAULT.parts {
        return Err(senseless(12, "more pieces than a content may have"));
    }
    let stage: Option<Vec<u8>> = row.get(18)?;
    if stage.as_ref().is_some_and(|stage| !is_staging_folder(stage)) {
        return Err(senseless(18, "no staging folder has this name"));
    }
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
            pieces,
            pieces_here: row.get(13)?,
            piece_bytes: row.get::<_, i64>(14)? as u64,
            piece_bytes_here: row.get::<_, i64>(15)? as u64,
            partial: selection.is_some(),
            pinned: row.get(20)?,
            used: row.get::<_, i64>(21)? as u64,
            copied: row.get(22)?,
            kept: row.get::<_, i64>(23)? as u64,
        },
        root: row.get(5)?,
        have: row.get(16)?,
        selection,
        stage,
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
            piece_bytes, piece_bytes_here, have, selection, stage, overwrite, pinned, used, copied)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22)",
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
        r.used as i64,
        r.copied
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

/// The files of a pack that are not there because the user kept his own, ascending.
pub(crate) fn kept(conn: &Connection, pack: PackId) -> Result<Vec<u32>> {
    let mut statement = conn.prepare_cached("SELECT number FROM kept WHERE pack = ?1 ORDER BY number")?;
    let rows = statement.query_map([pack.0], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
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
                    (pieces.saturating_add(1), bytes.saturating_add(len))
                } else {
                    (pieces.saturating_sub(1), bytes.saturating_sub(len))
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

pub(crate) fn set_copied(conn: &Connection, id: PackId, copied: bool) -> Result<()> {
    conn.execute("UPDATE packs SET copied = ?2 WHERE id = ?1", params![id.0, copied])?;
    Ok(())
}

pub(crate) fn set_pinned(conn: &Connection, id: PackId, pinned: bool) -> Result<()> {
    conn.execute("UPDATE packs SET pinned = ?2 WHERE id = ?1", params![id.0, pinned])?;
    Ok(())
}
