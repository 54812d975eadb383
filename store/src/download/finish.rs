//! Ending a download: everything in place and durable, the former version superseded.

use std::{collections::HashSet, io, sync::Arc};

use modswarm_protocol::{Cid, format::PackPath};

use super::{
    Finished, former,
    place::{PlaceError, make_folders},
    state::{Slot, State},
};
use crate::{
    error::{FinishError, IndexError},
    fs,
    home::{Place, PlaceFile},
    index::rows::{self, FileRow, PackRow},
    packs::{Origin, PackState},
    share::{Supersede, apply_superseded, surviving},
};

pub(crate) fn finish(state: &Arc<State>) -> Result<Finished, FinishError> {
    let wanted = state.layout.wanted().count_ones();
    let missing = wanted - state.have().count_ones();
    if missing > 0 {
        return Err(FinishError::Incomplete(missing as u32));
    }
    // Those that could not be placed before get another chance.
    drop(state.stuck());
    state.tell()?;
    state.inner.index.writer.flush()?;
    complain(state)?;
    lost_meanwhile(state)?;
    make_all_folders(state)?;

    let root = end_rows(state)?;
    let mut finished = Finished {
        id: state.id,
        path: state.destination.clone(),
        removed: Vec::new(),
        kept: Vec::new(),
    };
    if let Some(root) = root {
        let swept = former::sweep(&state.inner, root)?;
        (finished.removed, finished.kept) = (swept.removed, swept.kept);
    }
    if state.inner.backend.remove_tree_durably(&state.stage).is_ok() {
        let stage = fs::path_bytes(&state.stage).to_owned();
        let _ = state.inner.index.writer.run(move |tx| rows::forget_stage(tx, &stage));
    }
    state.end();
    Ok(finished)
}

/// Says why files have not got their names.
fn complain(state: &State) -> Result<(), FinishError> {
    let stuck = state.stuck();
    let mut differ: Vec<PackPath> = Vec::new();
    let mut blocked = Vec::new();
    for (number, error) in stuck {
        match error {
            PlaceError::Differs => differ.push(state.content.files()[number as usize].path.clone()),
            PlaceError::Blocked(blockage) => blocked.push(blockage),
            PlaceError::Io(path, source) if fs::is_disk_full(&source) => return Err(FinishError::DiskFull(path)),
            PlaceError::Io(path, source) => return Err(FinishError::Io { path, source }),
        }
    }
    if !blocked.is_empty() {
        return Err(FinishError::Blocked(blocked));
    }
    if !differ.is_empty() {
        differ.sort_unstable();
        return Err(FinishError::WouldOverwrite {
            destination: state.destination.clone(),
            files: differ,
        });
    }
    Ok(())
}

/// Looks at every file once more, so that its time stamps are older than the look. What was deleted since it was placed is to be fetched again.
fn lost_meanwhile(state: &Arc<State>) -> Result<(), FinishError> {
    let placed: Vec<(u32, i64)> = {
        let moving = crate::lock(&state.moving);
        let slots = moving.slots.iter().enumerate();
        slots
            .filter_map(|(number, slot)| match slot {
                Slot::Placed(row) => Some((number as u32, *row)),
                _ => None,
            })
            .collect()
    };
    let conn = state.inner.index.reader()?;
    let rows: std::collections::HashMap<i64, FileRow> = rows::files_of_pack(&conn, state.id)?
        .into_iter()
        .map(|(_, row)| (row.id, row))
        .collect();
    drop(conn);
    let newest = rows
        .values()
        .map(|row| row.identity.mtime.max(row.identity.ctime))
        .max();
    state.inner.backend.wait_out_tick(newest.unwrap_or(0));
    let mut gone = Vec::new();
    let mut fresh = Vec::new();
    for (number, row) in placed {
        let path = state
            .destination
            .join(state.content.files()[number as usize].path.as_str());
        let seen = state.inner.backend.now_ns();
        match state.inner.backend.identity_at(&path) {
            Ok(Some(now)) => {
                if let Some(known) = rows.get(&row)
                    && known.identity == now
                    && now.is_racy(known.seen)
                {
                    fresh.push((row, now, seen));
                }
            }
            Ok(None) => gone.push(number),
            Err(e) if fs::is_gone(&e) => gone.push(number),
            Err(source) => return Err(FinishError::Io { path, source }),
        }
    }
    if !fresh.is_empty() {
        state.inner.index.writer.run(move |tx| -> Result<(), IndexError> {
            for (row, identity, seen) in &fresh {
                rows::place_file(tx, *row, identity, *seen)?;
            }
            Ok(())
        })?;
    }
    if gone.is_empty() {
        return Ok(());
    }
    let missing = state.take_back(&gone)?;
    if missing > 0 {
        return Err(FinishError::Incomplete(missing));
    }
    // Files without pieces of their own are simply made again.
    state.tell()?;
    state.inner.index.writer.flush()?;
    complain(state)
}

fn make_all_folders(state: &State) -> Result<(), FinishError> {
    let io = |source: io::Error| match fs::is_disk_full(&source) {
        true => FinishError::DiskFull(state.destination.clone()),
        false => FinishError::Io {
            path: state.destination.clone(),
            source,
        },
    };
    state
        .inner
        .backend
        .create_dirs_durably(&state.destination)
        .map_err(io)?;
    let root = state.inner.backend.open_dir(&state.destination).map_err(io)?;
    let mut folders: Vec<&str> = Vec::new();
    if state.whole_content {
        for path in state.content.dirs() {
            match make_folders(&*root, &state.destination, path) {
                Ok(_) => folders.push(path.as_str()),
                Err(PlaceError::Blocked(blockage)) => return Err(FinishError::Blocked(vec![blockage])),
                Err(PlaceError::Io(path, source)) => return Err(FinishError::Io { path, source }),
                Err(PlaceError::Differs) => {}
            }
        }
    }
    root.sync_folders(&folders).map_err(io)?;
    if let Some(parent) = state.destination.parent() {
        state.inner.backend.sync_dir(parent).map_err(io)?;
    }
    Ok(())
}

/// Makes the record whole and supersedes the former version; returns the number of the folder.
fn end_rows(state: &State) -> Result<Option<i64>, FinishError> {
    let conn = state.inner.index.reader()?;
    let others: Vec<PackRow> = rows::packs_at(&conn, fs::path_bytes(&state.destination))?
        .into_iter()
        .filter(|row| row.record.id != state.id)
        .collect();
    let mut leftover = Vec::new();
    let mut supersede: Vec<Supersede> = Vec::new();
    // With only some files selected, the other version is still there with the rest.
    if state.whole_content {
        let survivors: HashSet<Cid> = state.content.map().iter().map(|(_, leaf)| leaf.cid).collect();
        let own: HashSet<&[u8]> = state
            .content
            .files()
            .iter()
            .map(|file| file.path.as_str().as_bytes())
            .collect();
        for row in &others {
            if row.record.origin == Origin::Fetched && row.record.state != PackState::Superseded {
                let files = rows::files_of_pack(&conn, row.record.id)?.into_iter();
                let files = files.map(|(_, file)| file);
                let files = files.filter(|file| file.stage.is_none() && !own.contains(file.path.as_slice()));
                leftover.extend(files.map(|file| file.id));
            }
            supersede.extend(surviving(&state.inner, row, &survivors));
        }
    }
    drop(conn);
    let id = state.id;
    let have = state.have();
    let here = state.plan().piece_bytes_here;
    let blob = (!have.all()).then(|| rows::bits_to_bytes(&have));
    let superseded: Vec<_> = supersede.iter().map(|old| (old.id, old.pieces)).collect();
    let record = state.inner.index.writer.run(move |tx| -> Result<_, IndexError> {
        leftover.iter().try_for_each(|file| former::note(tx, *file))?;
        apply_superseded(tx, &supersede)?;
        rows::set_have(tx, id, blob.as_deref(), have.count_ones() as u32, here)?;
        rows::set_pack_state(tx, id, PackState::Whole)?;
        rows::end_stage(tx, id)?;
        rows::pack(tx, id)
    })?;
    for row in others.iter().filter(|row| superseded.contains(&(row.record.id, 0))) {
        let _ = state.inner.lock.forget_place(&*state.inner.backend, &row.record);
    }
    for stage in others.iter().filter_map(|row| row.stage.as_ref()) {
        let ours = fs::path_bytes(&state.stage) == stage.as_slice();
        if !ours
            && state.whole_content
            && state
                .inner
                .backend
                .remove_tree_durably(&fs::path_from(stage.clone()))
                .is_ok()
        {
            let stage = stage.clone();
            state.inner.index.writer.run(move |tx| rows::forget_stage(tx, &stage))?;
        }
    }
    let root = record.as_ref().map(|row| row.root);
    if let Some(row) = record {
        let place = PlaceFile::new(id, &row.record, Place::Whole);
        state
            .inner
            .lock
            .write_place(&*state.inner.backend, &place)
            .map_err(|source| FinishError::Io {
                path: state.inner.lock.home().to_owned(),
                source,
            })?;
    }
    state.inner.forget_withdrawn(&state.content.cid());
    Ok(root)
}
