//! The rows of a download that begins: its record, what was adopted, and a number for every file to be staged.

use std::collections::BTreeSet;

use modswarm_protocol::{
    Cid,
    format::{Content, Part},
};
use rusqlite::Transaction;

use super::{
    DownloadSpec,
    decide::{Decided, What},
    known::Known,
    place::{Replace, Target},
    state::{Move, Slot},
};
use crate::{
    backend::Identity,
    error::{BeginError, IndexError},
    fs,
    index::rows::{self, FileState, LeafRow, NewFile, PackRow},
    packs::{PackId, PackRecord},
    store::Inner,
};

/// One file's rows to write.
struct FilePut {
    number: u32,
    path: Vec<u8>,
    cid: Cid,
    size: u64,
    leaves: Vec<(i64, u64, u32)>,
    /// A row that says of the place what is not so.
    outdated: Option<i64>,
    what: What,
}

#[allow(clippy::too_many_arguments, reason = "all of it is decided by one caller")]
pub(super) fn put_rows(
    inner: &Inner,
    spec: &DownloadSpec,
    content: &Content,
    known: &Known,
    record: &PackRecord,
    selection: Option<Vec<u8>>,
    have: Vec<u8>,
    decided: Vec<Decided>,
    profile: Option<String>,
) -> Result<(PackId, Vec<Slot>), BeginError> {
    let row = PackRow {
        record: record.clone(),
        root: 0,
        have: Some(have),
        selection,
        stage: Some(fs::path_bytes(&known.stage).to_owned()),
        conflicts: spec.conflicts,
    };
    let moved: BTreeSet<i64> = decided
        .iter()
        .filter_map(|file| match &file.what {
            What::Move { row, .. } => Some(row.id),
            _ => None,
        })
        .collect();
    let puts: Vec<FilePut> = decided
        .into_iter()
        .map(|Decided { number, what }| {
            let file = &content.files()[number];
            let at_place = known.by_place.get(file.path.as_str().as_bytes()).map(|row| row.id);
            let (fresh, outdated) = match &what {
                What::Adopt { row, fresh, .. } => (*fresh, at_place.filter(|_| row.is_none())),
                // Where nothing stands, what the index says of the place is not so.
                What::Stage {
                    replace: Replace::Nothing,
                    ..
                } => (false, at_place.filter(|row| !moved.contains(row))),
                What::Stage { .. } | What::Move { .. } | What::Keep | What::Leave => (false, None),
            };
            FilePut {
                number: number as u32,
                path: file.path.as_str().as_bytes().to_owned(),
                cid: file.cid,
                size: file.size,
                leaves: if fresh { first_places(content, file) } else { Vec::new() },
                outdated,
                what,
            }
        })
        .collect();
    let same = known.record.as_ref().map(|row| row.record.id);
    let root = fs::path_bytes(&known.destination).to_owned();
    let files = content.files().len();
    let quota = inner.room.quota();
    let (id, made) = inner.index.writer.run(move |tx| -> Result<_, BeginError> {
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
        let made = put_files(tx, id, root, puts, profile.as_deref())?;
        Ok((id, made))
    })?;
    let mut slots = vec![Slot::Out; files];
    for (number, slot) in made {
        slots[number as usize] = slot;
    }
    Ok((id, slots))
}

/// `(prefix, offset, len)` of each distinct leaf of a file, where it occurs first.
pub(super) fn first_places(content: &Content, file: &modswarm_protocol::format::File) -> Vec<(i64, u64, u32)> {
    let mut seen = std::collections::HashSet::new();
    content
        .spans(file)
        .filter_map(|span| match span.part {
            Part::Piece(piece) if seen.insert(piece) => {
                Some((content.map().leaf(piece).cid.prefix() as i64, span.offset, span.len))
            }
            _ => None,
        })
        .collect()
}

fn put_files(
    tx: &Transaction<'_>,
    id: PackId,
    root: i64,
    puts: Vec<FilePut>,
    profile: Option<&str>,
) -> Result<Vec<(u32, Slot)>, IndexError> {
    let mut slots = Vec::with_capacity(puts.len());
    let mut leaves = Vec::new();
    for put in puts {
        let new = |stage, state, identity, seen| NewFile {
            root,
            path: &put.path,
            stage,
            state,
            identity,
            seen,
            cid: put.cid,
            profile,
        };
        if let Some(outdated) = put.outdated {
            rows::delete_file(tx, outdated)?;
        }
        let slot = match put.what {
            What::Adopt {
                identity,
                seen,
                row,
                fresh,
            } => {
                let row = match row {
                    Some(row) if fresh => {
                        rows::place_file(tx, row, &identity, seen)?;
                        row
                    }
                    Some(row) => row,
                    None => rows::insert_file(tx, &new(None, FileState::Whole, identity, seen))?,
                };
                leaves.extend(put.leaves.iter().map(|&(prefix, offset, len)| LeafRow {
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
                rows::set_kept(tx, id, &[put.number])?;
                continue;
            }
            What::Stage { replace, row, held } => {
                let row = match row {
                    Some(row) => row.id,
                    None => {
                        let identity = Identity {
                            dev: 0,
                            file: 0,
                            size: put.size,
                            mtime: 0,
                            ctime: 0,
                        };
                        rows::insert_file(tx, &new(Some(id.0), FileState::Staged, identity, 0))?
                    }
                };
                Slot::Staged(Target { row, replace, held })
            }
        };
        let Some(row) = slot.row() else { continue };
        rows::insert_pack_file(tx, id, put.number, row)?;
        slots.push((put.number, slot));
    }
    leaves.sort_unstable();
    rows::insert_leaves(tx, &leaves)?;
    Ok(slots)
}
