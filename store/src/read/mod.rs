//! Reading leaves where they lie: find a place, read, hash, and drop the place if it does not hold what it should.
//!
//! Users' files change at any time, so a place is only a hint and every leaf is hashed before it is handed out. A file that is gone has its packs looked
//! at once, by a stat of each file, so that all that went with it is withdrawn together, and what was only renamed is found again.

mod cache;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use modswarm_protocol::{
    Cid,
    format::{Content, PieceSet},
};
use rusqlite::{Connection, params};

pub(crate) use self::cache::FileCache;
use crate::{
    backend::BackendFile,
    error::{IndexError, ReadLeafError},
    fs,
    index::rows::{self, FileState, LeafRow},
    packs::{NetworkId, PackId, find_elsewhere},
    store::Inner,
};

/// Places of one prefix that are tried.
const PLACES_TRIED_MAX: usize = 64;

/// How often places are looked up anew for one reader.
const LOOKS_MAX: usize = 16;

/// Pieces of one content that can no longer be read here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawn {
    /// The content.
    pub content: Cid,
    /// Its pieces that were lost.
    pub pieces: PieceSet,
}

/// A place as the index has it.
#[derive(Debug)]
pub(crate) struct Spot {
    pub(crate) row: LeafRow,
    /// Where the file is when it is not staged. `None`: the row is dead.
    pub(crate) path: Option<PathBuf>,
    /// Where it is while it is staged.
    pub(crate) staged: Option<PathBuf>,
}

/// What a place turned out to hold.
enum Look {
    Leaf(Bytes),
    /// Other bytes, or the file is too short.
    Other,
    /// No file.
    Gone,
    Failed(PathBuf, io::Error),
}

pub(crate) fn read_leaf(inner: &Inner, cid: &Cid, len: u32) -> Result<Bytes, ReadLeafError> {
    read_at(inner, cid, len, spots(inner, cid, len)?)
}

/// As [`read_leaf`] each of `leaves`, in one look at the index. Each is handed to `done` once it is read, with its number.
pub(crate) fn read_leaves(
    inner: &Inner,
    leaves: &[(Cid, u32)],
    mut done: impl FnMut(usize, Result<Bytes, ReadLeafError>),
) {
    let found = {
        let look = || -> Result<Vec<_>, IndexError> {
            let conn = inner.index.reader()?;
            let read = conn.unchecked_transaction()?;
            leaves.iter().map(|(cid, len)| spots_in(&read, cid, *len)).collect()
        };
        look()
    };
    match found {
        Ok(found) => {
            for (number, ((cid, len), spots)) in leaves.iter().zip(found).enumerate() {
                done(number, read_at(inner, cid, *len, spots));
            }
        }
        Err(error) => (0..leaves.len()).for_each(|number| done(number, Err(error.clone().into()))),
    }
}

/// Reads a leaf from one of `spots`, or from where it is found if it is at none of them.
fn read_at(inner: &Inner, cid: &Cid, len: u32, spots: Vec<Spot>) -> Result<Bytes, ReadLeafError> {
    let mut failed = None;
    let mut known = false;
    let mut first = Some(spots);
    // Another look follows when files were gone and their packs were looked at, or places were wrong and others may have been found.
    for _ in 0..LOOKS_MAX {
        let mut again = false;
        let spots = first.take().map_or_else(|| self::spots(inner, cid, len), Ok)?;
        for spot in spots {
            match look(inner, &spot, cid) {
                Look::Leaf(bytes) => return Ok(bytes),
                Look::Other => {
                    known |= spot.path.is_some();
                    again = true;
                    drop_place(inner, cid, &spot, false)?;
                }
                Look::Gone => {
                    known = true;
                    again = true;
                    if !crate::packs::check_packs_of_file(inner, spot.row.file)? {
                        drop_place(inner, cid, &spot, true)?;
                    }
                }
                Look::Failed(path, source) => failed = Some((path, source)),
            }
        }
        if !again {
            break;
        }
    }
    if let Some(bytes) = inner.fresh_leaf(cid) {
        return Ok(bytes);
    }
    match failed {
        Some((path, source)) => Err(ReadLeafError::Io { path, source }),
        None if known => Err(ReadLeafError::Lost(*cid)),
        None => Err(ReadLeafError::NotHere(*cid)),
    }
}

/// Reads a leaf that lies in a pack of `network`, wherever that is, and whose length the asker need not know.
pub(crate) fn read_leaf_in(inner: &Inner, cid: &Cid, network: &NetworkId) -> Result<Bytes, ReadLeafError> {
    let mut outcome = Err(ReadLeafError::NotHere(*cid));
    for len in lens_in(inner, cid, network)? {
        outcome = read_leaf(inner, cid, len);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// The lengths of leaves of this prefix in packs of `network`; hardly ever more than one.
fn lens_in(inner: &Inner, cid: &Cid, network: &NetworkId) -> Result<Vec<u32>, IndexError> {
    let conn = inner.index.reader()?;
    let mut statement = conn.prepare_cached(
        "SELECT DISTINCT l.len FROM leaves l JOIN pack_files pf ON pf.file = l.file JOIN packs p ON p.id = pf.pack
         WHERE l.prefix = ?1 AND p.network = ?2 AND l.len BETWEEN 1 AND ?4
         UNION SELECT l.len FROM leaves l JOIN segments s ON s.file = l.file
         WHERE l.prefix = ?1 AND s.network = ?2 AND l.len BETWEEN 1 AND ?4 LIMIT ?3",
    )?;
    let prefix = cid.prefix() as i64;
    // Whatever a row says, no more memory than a block's is taken for it.
    let len_max = modswarm_protocol::format::MAX_BLOCK_LEN as i64;
    let values = params![prefix, network, PLACES_TRIED_MAX as i64, len_max];
    let rows = statement.query_map(values, |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Where the index says that a leaf may lie.
pub(crate) fn spots(inner: &Inner, cid: &Cid, len: u32) -> Result<Vec<Spot>, IndexError> {
    spots_in(&*inner.index.reader()?, cid, len)
}

fn spots_in(conn: &Connection, cid: &Cid, len: u32) -> Result<Vec<Spot>, IndexError> {
    let prefix = cid.prefix() as i64;
    let mut statement = conn.prepare_cached(
        "SELECT l.file, l.offset, r.path, f.path, p.stage FROM leaves l
         LEFT JOIN files f ON f.id = l.file LEFT JOIN roots r ON r.id = f.root LEFT JOIN packs p ON p.id = f.stage
         WHERE l.prefix = ?1 AND l.len = ?2 AND (f.state IS NULL OR f.state != ?3) LIMIT ?4",
    )?;
    let rows = statement.query_map(
        params![prefix, len, FileState::Gone.code(), PLACES_TRIED_MAX as i64],
        |row| {
            let file: i64 = row.get(0)?;
            let root: Option<Vec<u8>> = row.get(2)?;
            let path: Option<Vec<u8>> = row.get(3)?;
            let stage: Option<Vec<u8>> = row.get(4)?;
            Ok(Spot {
                row: LeafRow {
                    prefix,
                    file,
                    offset: row.get::<_, i64>(1)? as u64,
                    len,
                },
                path: root
                    .zip(path)
                    .map(|(root, path)| fs::path_from(root).join(fs::path_from(path))),
                staged: stage.map(|stage| fs::path_from(stage).join(file.to_string())),
            })
        },
    )?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn look(inner: &Inner, spot: &Spot, cid: &Cid) -> Look {
    let Some(path) = &spot.path else { return Look::Other };
    // A file that is being put in its place is under one of the two names.
    let file = inner.files.open(spot.row.file, || match &spot.staged {
        Some(staged) => match inner.backend.open(staged) {
            Err(e) if fs::is_gone(&e) => inner.backend.open(path),
            other => other,
        },
        None => inner.backend.open(path),
    });
    let file = match file {
        Ok(file) => file,
        Err(e) if fs::is_gone(&e) => return Look::Gone,
        Err(e) => return Look::Failed(path.clone(), e),
    };
    match look_in(&*file, spot, path, cid) {
        // A crash may have come after it got its name, in exchange for what stood there, and before that was written down.
        Look::Other if spot.staged.is_some() => match inner.backend.open(path) {
            Ok(file) => look_in(&*file, spot, path, cid),
            Err(_) => Look::Other,
        },
        look => look,
    }
}

fn look_in(file: &dyn BackendFile, spot: &Spot, path: &Path, cid: &Cid) -> Look {
    let mut bytes = vec![0; spot.row.len as usize];
    match file.read_exact_at(&mut bytes, spot.row.offset) {
        Ok(()) if cid.verifies(&bytes) => Look::Leaf(bytes.into()),
        Ok(()) => Look::Other,
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Look::Other,
        Err(e) => Look::Failed(path.to_owned(), e),
    }
}

/// Forgets a place that does not hold its leaf, or notes that its file is gone, and withdraws the leaf where no other place is left.
fn drop_place(inner: &Inner, cid: &Cid, spot: &Spot, gone: bool) -> Result<(), IndexError> {
    let row = spot.row;
    inner.files.forget(row.file);
    let holders = if spot.path.is_some() {
        holders(inner, cid, row.file)?
    } else {
        Vec::new()
    };
    let backend = Arc::clone(&inner.backend);
    let lost = inner.index.writer.run(move |tx| -> Result<_, IndexError> {
        if gone {
            rows::set_file_state(tx, row.file, FileState::Gone)?;
        } else {
            rows::delete_leaf(tx, &row)?;
            rows::doubt_file(tx, row.file)?;
        }
        if rows::is_anywhere(tx, row.prefix, row.len)? {
            return Ok(Vec::new());
        }
        for holder in &holders {
            if !find_elsewhere(&*backend, tx, holder.record, &holder.content, &[holder.piece])?.is_empty() {
                return Ok(Vec::new());
            }
        }
        for holder in &holders {
            rows::change_have(tx, holder.record, &[], &[(holder.piece, row.len)])?;
        }
        Ok(holders)
    })?;
    for holder in lost {
        holder.withdraw(inner);
    }
    Ok(())
}

/// Withdraws a leaf that no place holds, of contents that are in use and say that it is here: its file may have been replaced by another version's.
pub(crate) fn disclaim(inner: &Inner, cid: &Cid) -> Result<(), IndexError> {
    let mut lost = Vec::new();
    for holder in holders(inner, cid, 0)? {
        let row = rows::pack(&*inner.index.reader()?, holder.record)?;
        let claims = row.is_some_and(|row| rows::has_bit(row.have.as_deref(), holder.piece));
        if claims && inner.open_download(holder.record).is_none() {
            lost.push(holder);
        }
    }
    let Some(len) = lost.iter().find_map(Holder::piece_len) else {
        return Ok(());
    };
    let lost = inner.index.writer.run(move |tx| -> Result<_, IndexError> {
        for holder in &lost {
            rows::change_have(tx, holder.record, &[], &[(holder.piece, len)])?;
        }
        Ok(lost)
    })?;
    for holder in lost {
        holder.withdraw(inner);
    }
    Ok(())
}

/// A record whose content has a leaf.
struct Holder {
    record: PackId,
    content: Arc<Content>,
    piece: u32,
}

impl Holder {
    fn piece_len(&self) -> Option<u32> {
        let map = self.content.map();
        Some(map.leaf(map.index(self.piece)?).len)
    }

    fn withdraw(&self, inner: &Inner) {
        inner.withdraw(self.content.cid(), self.content.map().len() as usize, [self.piece]);
    }
}

/// The records whose content has the leaf, of those that have the file or are in use.
fn holders(inner: &Inner, cid: &Cid, file: i64) -> Result<Vec<Holder>, IndexError> {
    let conn = inner.index.reader()?;
    let of_file: Vec<PackId> = rows::packs_of_file(&conn, file)?
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    let records = rows::packs(&conn)?;
    drop(conn);
    let mut found = Vec::new();
    for row in records {
        let content = match inner.cached_content(&row.record.content) {
            Some(content) => Some(content),
            None if of_file.contains(&row.record.id) => inner.content(&row.record).ok().flatten(),
            None => None,
        };
        let Some(content) = content else { continue };
        let at = content.map().iter().find(|(_, leaf)| leaf.cid == *cid);
        if let Some(piece) = at.map(|(index, _)| index.get()) {
            inner.hold_for_a_while(&content);
            found.push(Holder {
                record: row.record.id,
                content,
                piece,
            });
        }
    }
    Ok(found)
}
