//! Ending a download: everything in place and durable, the former version superseded.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io,
    sync::Arc,
};

use modswarm_protocol::{Cid, format::PackPath};

use super::{
    Finished,
    decide::OwnPaths,
    former,
    moves::{self, Renamed},
    place::{PlaceError, in_the_way, make_folders},
    settle::settle,
    staging::{clear, clear_at},
    state::State,
};
use crate::{
    backend::Identity,
    choice,
    error::{FinishError, IndexError},
    fs,
    index::rows::{self, PackRow},
    packs::{Origin, PackState},
    share::{Supersede, apply_superseded, surviving},
    skeletons,
};

/// How often the end of a download is gone over, since files at the destination change meanwhile.
const ROUNDS: u32 = 3;
/// Files of which it is written together that they were looked at again.
const AT_A_TIME: usize = 4096;

pub(crate) fn finish(state: &Arc<State>) -> Result<Finished, FinishError> {
    complete(state)?;
    super::assemble::run(state)?;
    // Leaves that were believed to be here may not have been.
    complete(state)?;
    place_all(state)?;
    let renamed = rename_all(state)?;
    lost_meanwhile(state)?;
    make_all_folders(state)?;

    let root = end_rows(state)?;
    let mut finished = Finished {
        id: state.id,
        path: state.destination.clone(),
        removed: Vec::new(),
        kept: Vec::new(),
        renamed: renamed.renamed,
        skipped: state.skipped(),
        set_aside: renamed.set_aside,
    };
    if let Some(root) = root {
        let swept = former::sweep(&state.inner, root)?;
        (finished.removed, finished.kept) = (swept.removed, swept.kept);
    }
    remove_emptied(state, &finished.renamed);
    if clear(&*state.inner.backend, &state.stage, &*state.stage_dir).is_ok() {
        let stage = fs::path_bytes(&state.stage).to_owned();
        let _ = state.inner.index.writer.run(move |tx| rows::forget_stage(tx, &stage));
    }
    state.end();
    Ok(finished)
}

fn complete(state: &State) -> Result<(), FinishError> {
    match state.pieces_missing() {
        0 => Ok(()),
        missing => Err(FinishError::Incomplete(missing)),
    }
}

/// Puts every file in its place that can go there now; what is in the way is dealt with as the user asked.
fn place_all(state: &Arc<State>) -> Result<(), FinishError> {
    // Those that could not be placed before get another chance.
    let stuck: Vec<u32> = state.take_stuck().into_iter().map(|(number, _)| number).collect();
    state.try_again(&stuck);
    for _ in 0..ROUNDS {
        state.tell()?;
        state.inner.index.writer.flush_of(state.clone())?;
        let stuck = state.take_stuck();
        if stuck.is_empty() {
            return Ok(());
        }
        let numbers: Vec<u32> = stuck.iter().map(|(number, _)| *number).collect();
        if let Err(e) = settle(state, stuck) {
            state.try_again(&numbers);
            return Err(e);
        }
    }
    state.tell()?;
    Ok(state.inner.index.writer.flush_of(state.clone())?)
}

/// Gives the files their names that waited for all others.
fn rename_all(state: &Arc<State>) -> Result<Renamed, FinishError> {
    let mut all = Renamed::default();
    for _ in 0..ROUNDS {
        let done = moves::run(state)?;
        all.renamed.extend(done.renamed);
        all.set_aside.extend(done.set_aside);
        if !done.lost.is_empty() {
            let missing = state.take_back(&done.lost)?;
            if missing > 0 {
                return Err(FinishError::Incomplete(missing));
            }
            super::assemble::run(state)?;
            place_all(state)?;
        }
        if done.stuck.is_empty() {
            break;
        }
        settle(state, done.stuck)?;
        state.tell()?;
        state.inner.index.writer.flush_of(state.clone())?;
    }
    all.renamed.sort_unstable();
    all.set_aside.sort_unstable();
    Ok(all)
}

/// Looks at every file once more, so that its time stamps are older than the look. What was deleted since it was placed is to be fetched again.
fn lost_meanwhile(state: &Arc<State>) -> Result<(), FinishError> {
    let mut newest = 0;
    rows::each_file_of_pack(&*state.inner.index.reader()?, state.id, 0, u32::MAX, |_, row| {
        newest = row.identity.mtime.max(row.identity.ctime).max(newest);
    })?;
    state.inner.backend.wait_out_tick(newest);
    let mut gone = Vec::new();
    // There may be very many.
    for from in (0..state.content.files().len() as u32).step_by(AT_A_TIME) {
        look_once_more(state, from, &mut gone)?;
    }
    if gone.is_empty() {
        return Ok(());
    }
    let missing = state.take_back(&gone)?;
    if missing > 0 {
        return Err(FinishError::Incomplete(missing));
    }
    // Files without pieces of their own are simply made again, and others may be copied from what is here.
    super::assemble::run(state)?;
    complete(state)?;
    place_all(state)
}

/// Looks at those of [`AT_A_TIME`] files that are in their places. Adds to `gone` the ones that are not there any more.
fn look_once_more(state: &State, from: u32, gone: &mut Vec<u32>) -> Result<(), FinishError> {
    let placed: Vec<(u32, i64)> = {
        let moving = crate::lock(&state.moving);
        let numbers = (from..moving.slots.len() as u32).take(AT_A_TIME);
        numbers
            .filter_map(|number| Some((number, moving.slots.placed_row(number)?)))
            .collect()
    };
    let mut known: HashMap<i64, (Identity, i64)> = HashMap::new();
    rows::each_file_of_pack(
        &*state.inner.index.reader()?,
        state.id,
        from,
        AT_A_TIME as u32,
        |_, row| {
            known.insert(row.id, (row.identity, row.seen));
        },
    )?;
    let mut fresh = Vec::new();
    for (number, row) in placed {
        let path = state
            .destination
            .join(state.content.file(number as usize).path().as_str());
        let seen = state.inner.backend.now_ns();
        match state.inner.backend.identity_at(&path) {
            Ok(Some(now)) => {
                if let Some((before, looked)) = known.get(&row)
                    && *before == now
                    && now.is_racy(*looked)
                {
                    fresh.push((row, now, seen));
                }
            }
            Ok(None) => gone.push(number),
            Err(e) if fs::is_gone(&e) => gone.push(number),
            Err(source) => return Err(FinishError::Io { path, source }),
        }
    }
    Ok(place_again(state, fresh)?)
}

/// Writes what was seen of files when.
fn place_again(state: &State, seen: Vec<(i64, Identity, i64)>) -> Result<(), IndexError> {
    if seen.is_empty() {
        return Ok(());
    }
    state.inner.index.writer.run(move |tx| {
        let mut all = seen.iter();
        all.try_for_each(|(row, identity, seen)| rows::place_file(tx, *row, identity, *seen))
    })
}

fn make_all_folders(state: &State) -> Result<(), FinishError> {
    let io = |source: io::Error| match fs::is_disk_full(&source) {
        true => FinishError::DiskFull(state.destination.clone()),
        false => FinishError::Io {
            path: state.destination.clone(),
            source,
        },
    };
    let backend = &*state.inner.backend;
    let root =
        backend
            .make_resolved(&state.destination)
            .map_err(|e| match in_the_way(backend, &state.destination, &e) {
                Some(blockage) => FinishError::Blocked(vec![blockage]),
                None => io(e),
            })?;
    let mut folders: Vec<PackPath> = Vec::new();
    if state.whole_content {
        for path in state.content.dirs().filter(fs::can_create) {
            match make_folders(&*root, &state.destination, &path) {
                Ok(_) => folders.push(path),
                Err(PlaceError::Blocked(blockage)) => return Err(FinishError::Blocked(vec![blockage])),
                Err(PlaceError::Io(path, source)) => return Err(FinishError::Io { path, source }),
                Err(PlaceError::Differs | PlaceError::Lost) => {}
            }
        }
    }
    let folders: Vec<&str> = folders.iter().map(PackPath::as_str).collect();
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
    if state.whole_content && !others.is_empty() {
        let have = crate::lock(&state.moving).have.clone();
        let pieces = state.content.map().by_cid();
        let survives = |cid: &Cid| pieces.find(cid).is_some_and(|piece| have[piece.as_usize()]);
        let own = OwnPaths::new(&state.content);
        for row in &others {
            if row.record.origin == Origin::Fetched && row.record.state != PackState::Superseded {
                rows::each_file_of_pack(&conn, row.record.id, 0, u32::MAX, |_, file| {
                    let is_own = || std::str::from_utf8(&file.path).is_ok_and(|path| own.contains(path));
                    if file.stage.is_none() && !is_own() {
                        leftover.push(file.id);
                    }
                })?;
            }
            supersede.extend(surviving(&state.inner, row, survives));
        }
    }
    drop(conn);
    let id = state.id;
    let have = crate::lock(&state.moving).have.clone();
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
        if !ours && state.whole_content && clear_at(&*state.inner.backend, &fs::path_from(stage.clone())).is_ok() {
            let stage = stage.clone();
            state.inner.index.writer.run(move |tx| rows::forget_stage(tx, &stage))?;
        }
    }
    let root = record.as_ref().map(|row| row.root);
    if let Some(row) = record {
        choice::remember(&state.inner, &row.record).map_err(|source| FinishError::Io {
            path: state.inner.lock.home().to_owned(),
            source,
        })?;
    }
    for row in others
        .iter()
        .filter(|row| superseded.iter().any(|(id, _)| *id == row.record.id))
    {
        skeletons::retire(&*state.inner.backend, &state.inner.lock, &row.record);
    }
    state.inner.forget_withdrawn(&state.content.cid());
    Ok(root)
}

/// Deletes folders whose last file was renamed.
fn remove_emptied(state: &State, renamed: &[(PackPath, PackPath)]) {
    let own: HashSet<PackPath> = state.content.dirs().collect();
    let left: BTreeSet<PackPath> = renamed
        .iter()
        .flat_map(|(from, _)| std::iter::successors(from.parent(), PackPath::parent))
        .collect();
    // Deepest first; one that is not empty stays.
    for dir in left.iter().rev().filter(|dir| !own.contains(*dir)) {
        let _ = state.inner.backend.remove_dir(&state.destination.join(dir.as_str()));
    }
}
