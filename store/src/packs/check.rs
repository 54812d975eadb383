//! Looking at a pack's files without reading them: what is gone is withdrawn, what was renamed is found, what is back is had again.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use modswarm_protocol::format::{Content, Part};

use super::{Check, PackId, PackState, find_elsewhere};
use crate::{
    backend::{Backend, Entry},
    error::IndexError,
    fs,
    index::rows::{self, FileRow, FileState},
    store::Inner,
};

/// Between two looks at the same pack on behalf of readers, each of which may find a file gone.
const INTERVAL: Duration = Duration::from_secs(5);

/// Looks at the packs that `file` is part of, unless that was done just now. Says whether it looked.
pub(crate) fn check_packs_of_file(inner: &Inner, file: i64) -> Result<bool, IndexError> {
    let conn = inner.index.reader()?;
    let packs = rows::packs_of_file(&conn, file)?;
    drop(conn);
    if packs.is_empty() {
        inner.files.forget(file);
        inner
            .index
            .writer
            .run(move |tx| rows::set_file_state(tx, file, FileState::Gone))?;
        return Ok(true);
    }
    let mut looked = false;
    for (id, _) in packs {
        {
            let mut checked = crate::lock(&inner.checked);
            checked.retain(|_, at: &mut Instant| at.elapsed() < INTERVAL);
            if checked.insert(id, Instant::now()).is_some() {
                continue;
            }
        }
        check_pack(inner, id)?;
        looked = true;
    }
    Ok(looked)
}

/// Rows of files that are held at a time: a pack may have a million.
const AT_A_TIME: u32 = 4096;

/// What is to change for one file.
enum Change {
    /// It is where it was, or somewhere else (the new place, then).
    There(Option<Vec<u8>>),
    Gone,
}

pub(crate) fn check_pack(inner: &Inner, id: PackId) -> Result<Check, IndexError> {
    let conn = inner.index.reader()?;
    let Some(pack) = rows::pack(&conn, id)? else {
        return Ok(Check::default());
    };
    let root: Option<Vec<u8>> = rows::root_path(&conn, pack.root)?;
    drop(conn);
    let root = fs::path_from(root.unwrap_or_default());

    let mut changes: Vec<(u32, i64, Change)> = Vec::new();
    let mut changed = Vec::new();
    let mut missing: Vec<(u32, FileRow)> = Vec::new();
    let mut from = Some(0);
    while let Some(first) = from {
        let files = rows::files_of_pack_from(&*inner.index.reader()?, id, first, AT_A_TIME)?;
        // The index is a file of the user's: whatever its numbers are, this ends.
        from = files.last().and_then(|(last, _)| last.checked_add(1));
        for (number, file) in files.into_iter().filter(|(_, file)| file.stage.is_none()) {
            match inner.backend.identity_at(&root.join(fs::path_from(file.path.clone()))) {
                Ok(Some(now)) if file.identity.same_bytes(&now) => {
                    if file.state == FileState::Gone {
                        changes.push((number, file.id, Change::There(None)));
                    }
                }
                Ok(Some(_)) => changed.push(number),
                Ok(None) => missing.push((number, file)),
                Err(e) if fs::is_gone(&e) => missing.push((number, file)),
                Err(_) => changed.push(number),
            }
        }
    }
    if !missing.is_empty() {
        let moved = find_moved(&*inner.backend, &pack.record.path, &root, &missing);
        let mut still = Vec::new();
        for (number, file) in missing {
            match moved.get(&file.id) {
                Some(place) => {
                    let place = fs::path_bytes(place).to_owned();
                    changes.push((number, file.id, Change::There(Some(place))));
                }
                None => {
                    if file.state != FileState::Gone {
                        changes.push((number, file.id, Change::Gone));
                    }
                    still.push((number, file));
                }
            }
        }
        missing = still;
    }
    if changes.is_empty() && changed.is_empty() && missing.is_empty() {
        return Ok(Check::default());
    }
    let Ok(Some(content)) = inner.content(&pack.record) else {
        return Ok(Check::default());
    };
    let path = |number: u32| content.files().nth(number as usize).map(|file| file.path());
    let check = Check {
        missing: missing.iter().filter_map(|(number, _)| path(*number)).collect(),
        changed: changed.iter().filter_map(|number| path(*number)).collect(),
        away: !missing.is_empty() && !inner.backend.exists(&pack.record.path),
    };
    if !changes.is_empty() {
        apply(inner, &pack, &content, changes)?;
    }
    // A pack of which the store has a copy does without its folder.
    Ok(if pack.record.copied { Check::default() } else { check })
}

fn apply(
    inner: &Inner,
    pack: &rows::PackRow,
    content: &Arc<Content>,
    changes: Vec<(u32, i64, Change)>,
) -> Result<(), IndexError> {
    let id = pack.record.id;
    let pieces = |gone: bool| -> Vec<(u32, i64, u32)> {
        let numbers = changes
            .iter()
            .filter(|(_, _, change)| matches!(change, Change::Gone) == gone);
        let set: BTreeSet<u32> = numbers
            .filter_map(|(number, _, _)| content.files().nth(*number as usize))
            .flat_map(|file| file.parts())
            .filter_map(|part| match part {
                Part::Piece(index) => Some(index.get()),
                Part::Node { .. } => None,
            })
            .collect();
        set.into_iter()
            .filter_map(|piece| content.map().index(piece))
            .map(|index| {
                let leaf = content.map().leaf(index);
                (index.get(), leaf.cid.prefix() as i64, leaf.len)
            })
            .collect()
    };
    let (in_doubt, back) = (pieces(true), pieces(false));
    // An open download knows for itself what it has.
    let whole = pack.record.state == PackState::Whole;
    for (_, file, _) in &changes {
        inner.files.forget(*file);
    }
    let (found_in, backend) = (Arc::clone(content), Arc::clone(&inner.backend));
    let lost = inner.index.writer.run(move |tx| -> Result<_, IndexError> {
        for (_, file, change) in &changes {
            match change {
                Change::Gone => rows::set_file_state(tx, *file, FileState::Gone)?,
                Change::There(place) => {
                    rows::set_file_state(tx, *file, FileState::Whole)?;
                    if let Some(place) = place {
                        rows::move_file(tx, *file, place)?;
                    }
                }
            }
        }
        let mut lost = Vec::new();
        for (piece, prefix, len) in in_doubt {
            if !rows::is_anywhere(tx, prefix, len)? {
                lost.push((piece, len));
            }
        }
        let pieces: Vec<u32> = lost.iter().map(|(piece, _)| *piece).collect();
        let elsewhere = find_elsewhere(&*backend, tx, id, &found_in, &pieces)?;
        lost.retain(|(piece, _)| !elsewhere.contains(piece));
        if whole {
            let back: Vec<_> = back.into_iter().map(|(piece, _, len)| (piece, len)).collect();
            rows::change_have(tx, id, &back, &lost)?;
        }
        Ok(lost)
    })?;
    if !lost.is_empty() {
        inner.withdraw(
            pack.record.content,
            content.map().len() as usize,
            lost.into_iter().map(|(piece, _)| piece),
        );
    }
    Ok(())
}

/// Where missing files are now, below the pack's folder: a mod that was disabled was only renamed.
fn find_moved(backend: &dyn Backend, folder: &Path, root: &Path, missing: &[(u32, FileRow)]) -> HashMap<i64, PathBuf> {
    let by_file: HashMap<(u64, u64), &FileRow> = missing
        .iter()
        .map(|(_, file)| ((file.identity.dev, file.identity.file), file))
        .collect();
    let mut moved = HashMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for (name, entry) in backend.read_dir(&folder).unwrap_or_default() {
            let path = folder.join(name);
            match entry {
                Entry::Folder => folders.push(path),
                Entry::File(now) => {
                    if let Some(file) = by_file.get(&(now.dev, now.file))
                        && file.identity.same_bytes(&now)
                        && let Ok(place) = path.strip_prefix(root)
                    {
                        moved.insert(file.id, place.to_owned());
                    }
                }
                Entry::Symlink | Entry::Special => {}
            }
            if moved.len() == by_file.len() {
                return moved;
            }
        }
    }
    moved
}
