//! Pieces that have come, written to every place that needs them. Those that lie side by side in a file are written together: for the system a few large
//! writes are half the work of many small ones.

use std::sync::Arc;

use modswarm_protocol::format::PieceIndex;

use super::{assemble, layout::Place, state::State};
use crate::{error::WriteError, fs};

/// A piece that is being written.
struct Writing<'a> {
    /// Which of those that were given.
    number: usize,
    piece: PieceIndex,
    bytes: &'a [u8],
    /// Where it is missing, with the rows of those files.
    places: Vec<(Place, i64)>,
    written: Vec<Place>,
    failed: Option<WriteError>,
}

/// Keeps others from writing the same pieces meanwhile.
struct Claims<'a> {
    state: &'a State,
    writing: Vec<Writing<'a>>,
}

impl Drop for Claims<'_> {
    fn drop(&mut self) {
        let mut moving = crate::lock(&self.state.moving);
        for writing in &self.writing {
            moving.writing.remove(&writing.piece.get());
        }
    }
}

/// One place of a piece that is being written.
#[derive(Clone, Copy)]
struct Spot {
    place: Place,
    row: i64,
    /// Of [`Claims::writing`].
    at: usize,
}

/// See [`super::Download::write_pieces`].
pub(super) fn write(state: &Arc<State>, pieces: &[(PieceIndex, &[u8])]) -> Vec<Result<(), WriteError>> {
    let mut results: Vec<Result<(), WriteError>> = pieces.iter().map(|_| Ok(())).collect();
    let mut claims = claim(state, pieces, &mut results);
    if claims.writing.is_empty() {
        return results;
    }
    if let Err(error) = write_all(&mut claims) {
        for writing in &claims.writing {
            results[writing.number] = Err(error.clone().into());
        }
        return results;
    }
    record(&mut claims);
    let told = state.tell();
    for writing in &mut claims.writing {
        let failed = writing.failed.take();
        results[writing.number] = match &told {
            Err(error) => Err(error.clone().into()),
            Ok(()) => failed.map_or(Ok(()), Err),
        };
    }
    drop(claims);
    if let Err(e) = assemble::wake(state) {
        tracing::warn!("files of {:?} are put together later: {e}", state.destination);
    }
    results
}

/// Which of the pieces are missing, and where. `results` of the others are said.
fn claim<'a>(
    state: &'a State,
    pieces: &[(PieceIndex, &'a [u8])],
    results: &mut [Result<(), WriteError>],
) -> Claims<'a> {
    let mut claims = Claims {
        state,
        writing: Vec::with_capacity(pieces.len()),
    };
    let mut moving = crate::lock(&state.moving);
    for (number, &(piece, bytes)) in pieces.iter().enumerate() {
        let expected = state.content.map().leaf(piece).len;
        if bytes.len() != expected as usize {
            let given = bytes.len();
            results[number] = Err(WriteError::Length { expected, given });
            continue;
        }
        if moving.ended {
            results[number] = Err(WriteError::Ended);
            continue;
        }
        // What can be copied is not asked of others, and what comes all the same is not waited for.
        let here = moving.have[piece.as_usize()] || moving.local[piece.as_usize()];
        if here || moving.unwanted[piece.as_usize()] || !moving.writing.insert(piece.get()) {
            continue;
        }
        let absent = state
            .layout
            .places(piece)
            .filter(|place| !moving.present[place.number as usize]);
        let places = absent
            .filter_map(|place| Some((place, moving.slots.staged_row(place.file)?)))
            .collect();
        claims.writing.push(Writing {
            number,
            piece,
            bytes,
            places,
            written: Vec::new(),
            failed: None,
        });
    }
    drop(moving);
    claims
}

/// Writes what was claimed, as far as it can be. An error: there is no room for any of it.
fn write_all(claims: &mut Claims<'_>) -> Result<(), crate::room::Shortage> {
    let Claims { state, writing } = claims;
    let spots: Vec<Spot> = writing
        .iter()
        .enumerate()
        .flat_map(|(at, writing)| writing.places.iter().map(move |&(place, row)| Spot { place, row, at }))
        .collect();
    let len = |spot: &Spot| writing[spot.at].bytes.len() as u64;
    let size = spots.iter().map(len).sum();
    state.inner.room.write(&*state.inner.backend, &state.stage, size)?;
    // A staged file is made of a hole, and nothing but its own pieces is ever written to it: zeros are there already.
    let is_hole =
        |spot: &Spot| writing[spot.at].bytes.iter().all(|byte| *byte == 0) && !state.is_doubtful(spot.place.file);
    let (holes, mut solid): (Vec<Spot>, Vec<Spot>) = spots.into_iter().partition(is_hole);
    solid.sort_unstable_by_key(|spot| (spot.place.file, spot.place.offset));
    let adjoin = |a: &Spot, b: &Spot| a.place.file == b.place.file && a.place.offset + len(a) == b.place.offset;
    let alone = |spot: &Spot| state.write_run(spot.place, spot.row, &[writing[spot.at].bytes]);
    let mut outcomes: Vec<(Spot, Result<(), WriteError>)> = Vec::with_capacity(solid.len() + holes.len());
    for run in solid.chunk_by(adjoin) {
        let bytes: Vec<&[u8]> = run.iter().map(|spot| writing[spot.at].bytes).collect();
        match state.write_run(run[0].place, run[0].row, &bytes) {
            Ok(()) => outcomes.extend(run.iter().map(|spot| (*spot, Ok(())))),
            Err(error) if run.len() == 1 => outcomes.push((run[0], Err(error))),
            // Some of them may be possible.
            Err(_) => outcomes.extend(run.iter().map(|spot| (*spot, alone(spot)))),
        }
    }
    // The file is made all the same.
    outcomes.extend(
        holes
            .iter()
            .map(|spot| (*spot, state.write_run(spot.place, spot.row, &[]))),
    );
    for (spot, outcome) in outcomes {
        let writing = &mut writing[spot.at];
        match outcome {
            Ok(()) => writing.written.push(spot.place),
            Err(error) => writing.failed = Some(error),
        }
    }
    Ok(())
}

/// Lets it be known what was written.
fn record(claims: &mut Claims<'_>) {
    let state = claims.state;
    let mut guard = crate::lock(&state.moving);
    let moving = &mut *guard;
    for writing in &claims.writing {
        moving.is_there(state, writing.piece, &writing.written);
        for place in &writing.written {
            moving.gathered.dirty.insert(place.file);
            moving.look_at(state, place.file);
        }
        // What is in one file only can be copied to the others.
        if writing.failed.is_none() || !writing.written.is_empty() {
            moving.gathered.pieces.push(writing.piece.get());
            let cid = state.content.map().leaf(writing.piece).cid;
            moving.fresh.insert(cid, writing.piece);
        }
    }
}

impl State {
    /// Writes a leaf to one of its places, in the staged file `row`.
    pub(super) fn write_place(&self, place: Place, row: i64, bytes: &[u8]) -> Result<(), WriteError> {
        let zeros = bytes.iter().all(|byte| *byte == 0) && !self.is_doubtful(place.file);
        let bytes: &[&[u8]] = if zeros { &[] } else { &[bytes] };
        self.write_run(place, row, bytes)
    }

    /// Writes leaves that follow each other, the first of them to `place`, in the staged file `row`.
    fn write_run(&self, place: Place, row: i64, leaves: &[&[u8]]) -> Result<(), WriteError> {
        let wrote = self
            .staged_file(place.file, row)
            .and_then(|file| file.write_all_vectored_at(leaves, place.offset));
        wrote.map_err(|source| {
            if fs::is_disk_full(&source) {
                WriteError::DiskFull(self.stage.clone())
            } else {
                WriteError::Io {
                    path: self.stage.join(row.to_string()),
                    source,
                }
            }
        })
    }
}
