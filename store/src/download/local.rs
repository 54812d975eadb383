//! Leaves that this home holds already: copied instead of fetched.

use std::sync::{Arc, Mutex};

use modswarm_protocol::format::{PieceIndex, PieceSet};
use rayon::prelude::*;

use super::state::{State, write_piece};
use crate::{
    error::{BeginError, IndexError, ReadLeafError, WriteError},
    index::rows,
    observer::{Meter, Observer, Stage},
    read::read_leaf,
};

/// What [`adopt`] will bring if all is as the index says, in bytes of files.
pub(crate) fn expected_bytes(state: &State) -> Result<u64, IndexError> {
    if state.inner.holds_no_leaf()? {
        return Ok(0);
    }
    let map = state.content.map();
    let mut leaves: Vec<(i64, u32, u64)> = absent(state)
        .map(|piece| {
            let leaf = map.leaf(piece);
            (
                leaf.cid.prefix() as i64,
                leaf.len,
                state.layout.places(piece).count() as u64,
            )
        })
        .collect();
    leaves.sort_unstable();
    let conn = state.inner.index.reader()?;
    let mut bytes = 0;
    for (prefix, len, places) in leaves {
        if rows::is_anywhere(&conn, prefix, len)? {
            bytes += u64::from(len) * places;
        }
    }
    Ok(bytes)
}

fn absent(state: &State) -> impl Iterator<Item = PieceIndex> {
    let absent: PieceSet = state.layout.wanted() & !state.have();
    let map = state.content.map();
    (0..absent.len())
        .filter(move |at| absent[*at])
        .filter_map(|at| map.index(at as u32))
}

pub(crate) fn adopt(state: &Arc<State>, observer: &dyn Observer) -> Result<PieceSet, BeginError> {
    let meter = Meter::new(observer);
    let map = state.content.map();
    let mut pieces: Vec<PieceIndex> = absent(state).collect();
    let added = Mutex::new(map.none());
    if pieces.is_empty() || state.inner.holds_no_leaf()? {
        return Ok(map.none());
    }
    // The index is ordered by prefix: neighbours are looked up one after the other.
    pieces.sort_unstable_by_key(|piece| map.leaf(*piece).cid.prefix() as i64);
    let bytes = pieces.iter().map(|piece| u64::from(map.leaf(*piece).len)).sum();
    meter.stage(Stage::Copying, bytes, pieces.len() as u64);
    let copy = |piece: &PieceIndex| -> Result<(), BeginError> {
        if meter.cancelled() {
            return Err(BeginError::Cancelled);
        }
        let leaf = map.leaf(*piece);
        match read_leaf(&state.inner, &leaf.cid, leaf.len) {
            Ok(bytes) => {
                write_piece(state, *piece, &bytes).map_err(|e| begin_error(state, e))?;
                crate::lock(&added).set(piece.as_usize(), true);
                meter.add_bytes(u64::from(leaf.len), u64::from(leaf.len));
            }
            Err(ReadLeafError::Index(e)) => return Err(e.into()),
            // Then it is fetched.
            Err(_) => meter.add_bytes(u64::from(leaf.len), 0),
        }
        meter.add_file();
        Ok(())
    };
    state.inner.pool.install(|| pieces.par_iter().try_for_each(copy))?;
    meter.report();
    Ok(added.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

fn begin_error(state: &State, e: WriteError) -> BeginError {
    match e {
        WriteError::DiskFull(path) => BeginError::DiskFull {
            free: state.inner.backend.free_space(&path).unwrap_or(0),
            path,
            needed: 0,
        },
        WriteError::Io { path, source } => BeginError::Io { path, source },
        WriteError::Index(e) => BeginError::Index(e),
        WriteError::NotAllowed(shortage) => BeginError::NotAllowed(shortage),
        WriteError::Ended | WriteError::Length { .. } => BeginError::InUse(state.destination.clone()),
    }
}
