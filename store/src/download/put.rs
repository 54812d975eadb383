//! The rows of a download that begins: its record, what was adopted, and a number for every file to be staged.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use modswarm_protocol::format::{Content, Part};
use rusqlite::Transaction;

use super::{
    DownloadSpec,
    decide::{Decided, What},
    known::Known,
    place::{Replace, Target},
    slots::{Move, Slot, Slots},
};
use crate::{
    backend::Identity,
    error::{BeginError, IndexError},
    fs,
    index::rows::{self, FileState, LeafRow, NewFile, PackRow},
    packs::{PackId, PackRecord},
    store::Inner,
};

/// What the rows are made of.
struct Puts {
    content: Arc<Content>,
    decided: Decided,
    /// By number of file: a row that says of its place what is not so.
    outdated: HashMap<usize, i64>,
    profile: Option<String>,
}

#[allow(clippy::too_many_arguments, reason = "all of it is decided by one caller")]
pub(super) fn put_rows(
    inner: &Inner,
    spec: &DownloadSpec,
    content: &Arc<Content>,
    known: &Known,
    record: &PackRecord,
    selection: Option<Vec<u8>>,
    have: Vec<u8>,
    decided: Decided,
    profile: Option<String>,
) -> Result<(PackId, Slots), BeginError> {
    let row = PackRow {
        record: record.clone(),
        root: 0,
        have: Some(have),
        selection,
        stage: Some(fs::path_bytes(&known.stage).to_owned()),
        conflicts: spec.conflicts,
    };
    let puts = Puts {
        content: content.clone(),
        outdated: outdated(inner, content, known, &decided)?,
        decided,
        profile,
    };
    let same = known.record.as_ref().map(|row| row.record.id);
    let root = fs::path_bytes(&known.destination).to_owned();
    let quota = inner.room.quota();
    inner.index.writer.run(move |tx| -> Result<_, BeginError> {
        if let Some(shortage) = crate::room::reserve(tx, quota, fs::path_bytes(&row.record.path), row.record.bytes)? {
            return Err(shortage.into());
        }
        let root = rows::root_id(tx, &root)?;
        let row = PackRow { root, ..row };
        let id = match same {
            Some(id) => {
                rows::renew_pack(tx, id, &row)?;
                id
            }
            None => rows::insert_pack(tx, &row)?,
        };
        rows::forget_kept(tx, id)?;
        let slots = put_files(tx, id, root, puts)?;
        Ok((id, slots))
    })
}

/// Rows that say of the places of files what is not so, by the numbers of those files.
fn outdated(
    inner: &Inner,
    content: &Content,
    known: &Known,
    decided: &Decided,
) -> Result<HashMap<usize, i64>, IndexError> {
    let conn = &*inner.index.reader()?;
    let moved: HashSet<i64> = decided
        .iter()
        .filter_map(|(_, what)| match what {
            What::Move { row, .. } => Some(row.id),
            _ => None,
        })
        .collect();
    let mut outdated = HashMap::new();
    for (number, what) in decided.iter() {
        let may_stay = match what {
            What::Adopt { row: None, .. } => false,
            // Where nothing stands, what the index says of the place is not so.
            What::Stage {
                replace: Replace::Nothing,
                ..
            } => true,
            _ => continue,
        };
        let row = known.at_place(conn, &content.file(number).path())?;
        if let Some(row) = row.filter(|row| !may_stay || !moved.contains(&row.id)) {
            outdated.insert(number, row.id);
        }
    }
    Ok(outdated)
}

/// `(prefix, offset, len)` of each distinct leaf of a file, where it occurs first.
pub(super) fn first_places(content: &Content, file: modswarm_protocol::format::File<'_>) -> Vec<(i64, u64, u32)> {
    let mut seen = std::collections::HashSet::new();
    file.spans()
        .filter_map(|span| match span.part {
            Part::Piece(piece) if seen.insert(piece) => {
                Some((content.map().leaf(piece).cid.prefix() as i64, span.offset, span.len))
            }
            _ => None,
        })
        .collect()
}

/// Writes the rows of one file after the other: there may be a million.
fn put_files(tx: &Transaction<'_>, id: PackId, root: i64, puts: Puts) -> Result<Slots, IndexError> {
    let mut slots = Slots::out(puts.content.files().len());
    let mut leaves = Vec::new();
    for file in puts.content.files() {
        let Some(what) = puts.decided.get(file.number()) else {
            continue;
        };
        let number = file.number() as u32;
        let path = file.path();
        let new = |stage, state, identity, seen| NewFile {
            root,
            path: path.as_str().as_bytes(),
            stage,
            state,
            identity,
            seen,
            cid: file.cid(),
            profile: puts.profile.as_deref(),
        };
        if let Some(outdated) = puts.outdated.get(&file.number()) {
            rows::delete_file(tx, *outdated)?;
        }
        let slot = match what {
            What::Known(row) => Slot::Placed(row),
            What::Adopt { found, row } => {
                let row = match row {
                    Some(row) => {
                        rows::place_file(tx, row, &found.identity, found.seen)?;
                        row
                    }
                    None => rows::insert_file(tx, &new(None, FileState::Whole, found.identity, found.seen))?,
                };
                let places = first_places(&puts.content, file).into_iter();
                leaves.extend(places.map(|(prefix, offset, len)| LeafRow {
                    prefix,
                    file: row,
                    offset,
                    len,
                }));
                Slot::Placed(row)
            }
            What::Move { from, row, replace } => Slot::Moving(Box::new(Move {
                row: *row,
                from,
                replace,
            })),
            What::Leave => continue,
            What::Keep => {
                rows::set_kept(tx, id, &[number])?;
                continue;
            }
            What::Stage { replace, row, held } => {
                let row = match row {
                    Some(row) => row,
                    None => {
                        let identity = Identity {
                            dev: 0,
                            file: 0,
                            size: file.size(),
                            mtime: 0,
                            ctime: 0,
                        };
                        rows::insert_file(tx, &new(Some(id.0), FileState::Staged, identity, 0))?
                    }
                };
                Slot::Staged(Target { row, replace, held })
            }
        };
        if let Some(row) = slot.row() {
            rows::insert_pack_file(tx, id, number, row)?;
            slots.set(number, slot);
        }
    }
    leaves.sort_unstable();
    rows::insert_leaves(tx, &leaves)?;
    Ok(slots)
}
