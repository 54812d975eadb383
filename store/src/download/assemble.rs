//! Putting files together whose pieces are all in this home: what lies elsewhere is copied into the staged file, hashed while it is read.
//!
//! It runs beside whoever writes pieces, in one thread of the download that lives while there is such a file, or in the caller of `finish`. Some files go
//! together, no more than the largest of them takes; they are synced and put in their places (`commit`), and what they replace gives its room back, before the
//! next. Leaves that only a replaced file has and that other files still need are copied into those first. Nothing of it needs a journal: after a crash what is
//! not committed is copied again.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io,
    sync::{Arc, Mutex},
};

use modswarm_protocol::{
    Cid, Codec,
    format::{Part, PieceIndex},
};
use rayon::prelude::*;

use super::{
    layout::Place,
    place::{Replace, Target},
    reflink,
    state::State,
};
use crate::{
    error::{FinishError, IndexError, ReadLeafError, WriteError},
    index::rows,
    read::read_leaf,
};

/// Starts the thread, if there is something for it and it does not run.
pub(super) fn wake(state: &Arc<State>) -> io::Result<()> {
    let mut worker = crate::lock(&state.worker);
    {
        let mut moving = crate::lock(&state.moving);
        if moving.ready.is_empty() || moving.assembling || moving.ended {
            return Ok(());
        }
        moving.assembling = true;
    }
    // It has ended, or is about to.
    if let Some(former) = worker.take() {
        let _ = former.join();
    }
    let own = Arc::clone(state);
    let thread = std::thread::Builder::new()
        .name("modswarm-assemble".to_owned())
        .spawn(move || {
            if let Err(e) = run(&own) {
                // `finish` tries again, and says it to the user.
                tracing::warn!("files of {:?} cannot be put together now: {e}", own.destination);
                crate::lock(&own.moving).assembling = false;
            }
        });
    match thread {
        Ok(thread) => {
            *worker = Some(thread);
            Ok(())
        }
        Err(e) => {
            crate::lock(&state.moving).assembling = false;
            Err(e)
        }
    }
}

/// Puts together what can be, until nothing is left of it or the download has ended.
pub(super) fn run(state: &Arc<State>) -> Result<(), FinishError> {
    let one_at_a_time = crate::lock(&state.turn);
    loop {
        let batch = {
            let mut moving = crate::lock(&state.moving);
            let batch = if moving.ended { Vec::new() } else { moving.next_batch() };
            if batch.is_empty() {
                moving.assembling = false;
                drop(moving);
                drop(one_at_a_time);
                return Ok(());
            }
            batch
        };
        if let Err(e) = assemble(state, &batch) {
            let mut moving = crate::lock(&state.moving);
            batch.iter().for_each(|(number, _)| moving.make_ready(state, *number));
            return Err(e);
        }
    }
}

fn assemble(state: &Arc<State>, batch: &[(u32, Target)]) -> Result<(), FinishError> {
    let mut filled = Vec::with_capacity(batch.len());
    for (number, target) in batch {
        if fill(state, *number, target)? {
            filled.push((*number, target));
        }
        if crate::lock(&state.moving).ended {
            crate::lock(&state.moving).make_ready(state, *number);
            return Ok(());
        }
    }
    if preserve(state, &filled)? {
        state.tell()?;
        state.inner.index.writer.flush_of(state.clone())?;
    }
    {
        let mut moving = crate::lock(&state.moving);
        for (number, target) in &filled {
            moving.is_whole(*number, target.held);
        }
    }
    state.tell()?;
    state.inner.index.writer.flush_of(state.clone())?;
    Ok(())
}

/// What became of one leaf.
enum Copied {
    There(PieceIndex),
    Lost(PieceIndex),
}

/// The distinct pieces of a file that are not in all their places in it.
fn absent(state: &State, number: u32) -> Vec<PieceIndex> {
    let moving = crate::lock(&state.moving);
    let mut seen = HashSet::new();
    let parts = state.content.file(number as usize).parts();
    let pieces = parts.filter_map(|part| match part {
        Part::Piece(piece) => Some(piece),
        Part::Node { .. } => None,
    });
    pieces
        .filter(|piece| seen.insert(*piece))
        .filter(|piece| {
            state
                .layout
                .places_in(*piece, number)
                .any(|place| !moving.present[place.number as usize])
        })
        .collect()
}

/// Copies what a file lacks. `false`: some of it was not where it was believed to be, or the download has ended.
fn fill(state: &Arc<State>, number: u32, target: &Target) -> Result<bool, FinishError> {
    if absent(state, number).is_empty() {
        return Ok(true);
    }
    reflink::fill(state, number, target.row)?;
    let pieces = absent(state, number);
    let copy = |piece: &PieceIndex| -> Result<Option<Copied>, FinishError> {
        if state.has_ended() {
            return Ok(None);
        }
        let places: Vec<Place> = state.layout.places_in(*piece, number).collect();
        copy_leaf(state, *piece, &places, |_| Some(target.row)).map(Some)
    };
    let copied: Vec<Option<Copied>> = state
        .inner
        .pool
        .install(|| pieces.par_iter().map(copy).collect::<Result<_, _>>())?;
    let ended = copied.iter().any(Option::is_none);
    let mut lost = Vec::new();
    {
        let mut moving = crate::lock(&state.moving);
        for copied in copied.into_iter().flatten() {
            match copied {
                Copied::There(piece) => {
                    let places = state.layout.places_in(piece, number).collect::<Vec<_>>();
                    moving.is_there(state, piece, &places);
                }
                Copied::Lost(piece) => lost.push(piece),
            }
        }
        moving.gathered.dirty.insert(number);
        moving.gathered.filled.insert(number);
        moving.lose(state, &lost);
    }
    Ok(!ended && lost.is_empty())
}

/// Reads a leaf from wherever it lies and writes it to `places`; `row` names the staged file of each.
fn copy_leaf(
    state: &Arc<State>,
    piece: PieceIndex,
    places: &[Place],
    row: impl Fn(u32) -> Option<i64>,
) -> Result<Copied, FinishError> {
    let leaf = state.content.map().leaf(piece);
    let bytes = match read_leaf(&state.inner, &leaf.cid, leaf.len) {
        Ok(bytes) => bytes,
        Err(ReadLeafError::Index(e)) => return Err(e.into()),
        // Then it is fetched.
        Err(_) => return Ok(Copied::Lost(piece)),
    };
    for place in places {
        if let Some(row) = row(place.file) {
            state.write_place(*place, row, &bytes).map_err(finish_error)?;
        }
    }
    Ok(Copied::There(piece))
}

fn finish_error(e: WriteError) -> FinishError {
    match e {
        WriteError::DiskFull(path) => FinishError::DiskFull(path),
        WriteError::Io { path, source } => FinishError::Io { path, source },
        WriteError::Index(e) => FinishError::Index(e),
        WriteError::NotAllowed(shortage) => FinishError::NotAllowed(shortage),
        WriteError::Ended | WriteError::Length { .. } => FinishError::Incomplete(1),
    }
}

/// Copies the leaves that only the files replaced by `batch` have into the other files that need them. Says whether there were any.
fn preserve(state: &Arc<State>, batch: &[(u32, &Target)]) -> Result<bool, FinishError> {
    let doomed: Vec<(i64, Option<Cid>)> = batch
        .iter()
        .filter_map(|(_, target)| match &target.replace {
            Replace::Known(old) => Some((old.id, Some(old.cid))),
            Replace::Theirs { row: Some(row), .. } => Some((*row, None)),
            _ => None,
        })
        .collect();
    if doomed.is_empty() {
        return Ok(false);
    }
    let needed = needed_elsewhere(state);
    if needed.is_empty() {
        return Ok(false);
    }
    let gone: BTreeSet<i64> = doomed.iter().map(|(row, _)| *row).collect();
    let mut copies: Vec<PieceIndex> = Vec::new();
    for (row, cid) in doomed {
        for cid in leaves_of(state, row, cid)? {
            let Some(piece) = needed.get(&cid) else { continue };
            let leaf = state.content.map().leaf(*piece);
            let conn = state.inner.index.reader()?;
            let places = rows::files_with_leaf(&conn, cid.prefix() as i64, leaf.len)?;
            if places.iter().all(|file| gone.contains(file)) {
                copies.push(*piece);
            }
        }
    }
    copies.sort_unstable();
    copies.dedup();
    let lost = Mutex::new(Vec::new());
    let copy = |piece: &PieceIndex| -> Result<(), FinishError> {
        let (places, targets): (Vec<Place>, HashMap<u32, i64>) = {
            let moving = crate::lock(&state.moving);
            let places = state.layout.places(*piece);
            let absent = places.filter(|place| !moving.present[place.number as usize]);
            absent
                .filter_map(|place| Some((place, (place.file, moving.slots.staged_row(place.file)?))))
                .unzip()
        };
        match copy_leaf(state, *piece, &places, |file| targets.get(&file).copied())? {
            Copied::There(piece) => {
                let mut moving = crate::lock(&state.moving);
                moving.is_there(state, piece, &places);
                moving.gathered.dirty.extend(targets.keys().copied());
                let leaf = state.content.map().leaf(piece);
                moving.gathered.pieces.push(piece.get());
                moving.fresh.insert(leaf.cid, piece);
            }
            Copied::Lost(piece) => crate::lock(&lost).push(piece),
        }
        Ok(())
    };
    state.inner.pool.install(|| copies.par_iter().try_for_each(copy))?;
    let lost = lost.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    crate::lock(&state.moving).lose(state, &lost);
    Ok(!copies.is_empty())
}

/// Pieces to be copied that are in no file of this download yet.
fn needed_elsewhere(state: &State) -> HashMap<Cid, PieceIndex> {
    let moving = crate::lock(&state.moving);
    let map = state.content.map();
    let local = moving.local.iter_ones().filter_map(|at| map.index(at as u32));
    local
        .filter(|piece| {
            state
                .layout
                .places(*piece)
                .all(|place| !moving.present[place.number as usize])
        })
        .map(|piece| (map.leaf(piece).cid, piece))
        .collect()
}

/// The leaves of the file `row`, whose CID may not be known to the caller.
fn leaves_of(state: &State, row: i64, cid: Option<Cid>) -> Result<Vec<Cid>, IndexError> {
    let cid = match cid {
        Some(cid) => Some(cid),
        None => rows::file_and_place(&*state.inner.index.reader()?, row)?.map(|(row, ..)| row.cid),
    };
    let Some(cid) = cid else { return Ok(Vec::new()) };
    if cid.codec() == Codec::Raw {
        return Ok(vec![cid]);
    }
    // Nodes that are not here any more name no leaves; those that were lost so are fetched.
    let Ok(Some(file)) = state.inner.skeleton(&cid, None) else {
        return Ok(Vec::new());
    };
    Ok(file.content.map().iter().map(|(_, leaf)| leaf.cid).collect())
}
