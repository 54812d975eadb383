//! Sharing blocks with the files that hold the same bytes, instead of copying those: where the file system can, and where they lie as far from the beginning
//! of a block there as here.
//!
//! Other files may be changed by their owners at any instant, and nothing but its own pieces is ever put into a staged file. So a range is shared with a
//! scratch file of the staging folder first, read and hashed there, and shared from there, where nobody changes it, with the staged file. What cannot be shared,
//! or turns out to be something else, is left to be copied.

use std::{collections::HashMap, io, path::PathBuf, sync::atomic::Ordering::Relaxed};

use modswarm_protocol::format::{Part, PieceIndex, Span};
use rayon::prelude::*;

use super::{layout::Place, state::State};
use crate::{backend::BackendFile, error::IndexError, read::spots};

/// File systems share whole blocks of this many bytes.
const ALIGN: u64 = 4096;
/// Shorter ranges are copied: sharing costs several calls, and splits files.
const RANGE_MIN: u64 = 16 * ALIGN;
/// Bytes that are shared together.
const RANGE_MAX: u64 = 64 << 20;
/// The name of the scratch file among those of staged files, which are numbers of rows, from one on.
const SCRATCH: &str = "0";

/// Where a file, by its row, has the bytes of a range: so many bytes further on than the staged file.
type Source = (i64, i64);

/// A range of the staged file that lies in one piece in another.
struct Range {
    source: Source,
    path: PathBuf,
    pieces: Vec<(PieceIndex, Span)>,
}

impl Range {
    fn start(&self) -> u64 {
        self.pieces.first().map_or(0, |(_, span)| span.offset)
    }

    fn end(&self) -> u64 {
        self.pieces
            .last()
            .map_or(0, |(_, span)| span.offset + u64::from(span.len))
    }
}

/// Shares what it can of what the staged file `number`, of the row `row`, lacks.
pub(super) fn fill(state: &State, number: u32, row: i64) -> Result<(), IndexError> {
    if !state.may_share.load(Relaxed) || state.content.file(number as usize).size() < RANGE_MIN {
        return Ok(());
    }
    let mut spans = state.content.file(number as usize).spans().peekable();
    let mut scratch = None;
    while spans.peek().is_some() {
        if state.has_ended() || !state.may_share.load(Relaxed) {
            return Ok(());
        }
        let Some(range) = next_range(state, number, &mut spans)? else {
            continue;
        };
        let shared = share(state, number, row, &range, &mut scratch).unwrap_or_else(|e| {
            // If it is the disk's fault, copying says so too.
            tracing::debug!("blocks of {:?} cannot be shared: {e}", range.path);
            state.may_share.store(false, Relaxed);
            Vec::new()
        });
        if shared.is_empty() {
            continue;
        }
        let mut moving = crate::lock(&state.moving);
        for (piece, offset) in shared {
            let places: Vec<Place> = state
                .layout
                .places_in(piece, number)
                .filter(|place| place.offset == offset)
                .collect();
            moving.is_there(state, piece, &places);
        }
        moving.gathered.dirty.insert(number);
        moving.gathered.filled.insert(number);
    }
    Ok(())
}

/// Takes spans up to the end of the next range that may be worth it.
fn next_range(
    state: &State,
    number: u32,
    spans: &mut std::iter::Peekable<impl Iterator<Item = Span>>,
) -> Result<Option<Range>, IndexError> {
    // Those files that have all of the range so far.
    let mut sources: HashMap<Source, PathBuf> = HashMap::new();
    let mut pieces: Vec<(PieceIndex, Span)> = Vec::new();
    let mut bytes = 0;
    while let Some(span) = spans.peek() {
        let found = match span.part {
            Part::Piece(piece) if is_absent(state, number, piece, span.offset) => {
                Some(piece).zip(Some(sources_of(state, piece, span.offset)?).filter(|found| !found.is_empty()))
            }
            _ => None,
        };
        let Some((piece, found)) = found else {
            spans.next();
            break;
        };
        if pieces.is_empty() {
            sources = found;
        } else {
            if bytes >= RANGE_MAX || !sources.keys().any(|source| found.contains_key(source)) {
                break;
            }
            sources.retain(|source, _| found.contains_key(source));
        }
        bytes += u64::from(span.len);
        pieces.push((piece, *span));
        spans.next();
    }
    // The same one of several every time.
    let source = sources.into_iter().min_by_key(|(source, _)| *source);
    Ok(source
        .filter(|_| bytes >= RANGE_MIN)
        .map(|(source, path)| Range { source, path, pieces }))
}

fn is_absent(state: &State, number: u32, piece: PieceIndex, offset: u64) -> bool {
    let moving = crate::lock(&state.moving);
    let mut places = state.layout.places_in(piece, number);
    places.any(|place| place.offset == offset && !moving.present[place.number as usize])
}

/// The files that have a piece as far from the beginning of a block as `offset` is.
fn sources_of(state: &State, piece: PieceIndex, offset: u64) -> Result<HashMap<Source, PathBuf>, IndexError> {
    let leaf = state.content.map().leaf(piece);
    let found = spots(&state.inner, &leaf.cid, leaf.len)?
        .into_iter()
        .filter_map(|spot| {
            let further = spot.row.offset as i64 - offset as i64;
            let path = spot.staged.or(spot.path)?;
            (further % ALIGN as i64 == 0).then_some(((spot.row.file, further), path))
        });
    Ok(found.collect())
}

/// Shares a range with the staged file; returns the pieces that are in it now, with their offsets. Nothing else was written.
fn share(
    state: &State,
    number: u32,
    row: i64,
    range: &Range,
    scratch: &mut Option<Box<dyn BackendFile>>,
) -> io::Result<Vec<(PieceIndex, u64)>> {
    let staged = state.staged_file(number, row)?;
    let Ok(source) = state.inner.backend.open(&range.path) else {
        return Ok(Vec::new());
    };
    let (theirs, ours) = (source.identity()?, staged.identity()?);
    let at_source = |offset: u64| offset.wrapping_add_signed(range.source.1);
    if theirs.same_file(&ours) || theirs.dev != ours.dev || theirs.size < at_source(range.end()) {
        return Ok(Vec::new());
    }
    let scratch = match scratch {
        Some(made) => made,
        None => scratch.insert(make_scratch(state)?),
    };
    scratch.set_len(ours.size)?;
    let first = range.start().next_multiple_of(ALIGN);
    let last = range.end() / ALIGN * ALIGN;
    if !scratch.share_range(&*source, at_source(first), first, last - first)? {
        // Nothing of this folder will be, or only this source cannot; that is not worth knowing.
        state.may_share.store(false, Relaxed);
        return Ok(Vec::new());
    }
    // The ends of the range share their blocks with what is not in it.
    let mut buf = Vec::new();
    for (from, to) in [(range.start(), first), (last, range.end())] {
        buf.resize((to - from) as usize, 0);
        if source.read_exact_at(&mut buf, at_source(from)).is_ok() {
            scratch.write_all_at(&buf, from)?;
        }
    }
    let right = verify(state, &**scratch, range);
    let mut shared = Vec::new();
    let all: Vec<(&(PieceIndex, Span), bool)> = range.pieces.iter().zip(right).collect();
    for part in all.chunk_by(|a, b| a.1 == b.1).filter(|part| part[0].1) {
        let start = part[0].0.1.offset;
        let end = part[part.len() - 1].0.1.offset + u64::from(part[part.len() - 1].0.1.len);
        if share_from_scratch(&**scratch, &*staged, start, end)? {
            shared.extend(part.iter().map(|((piece, span), _)| (*piece, span.offset)));
        }
    }
    // Its blocks are the staged file's now.
    scratch.set_len(0)?;
    Ok(shared)
}

/// An empty scratch file.
fn make_scratch(state: &State) -> io::Result<Box<dyn BackendFile>> {
    match state.stage_dir.create_file(SCRATCH) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            state.stage_dir.remove_file(SCRATCH)?;
            state.stage_dir.create_file(SCRATCH)
        }
        created => created,
    }
}

/// Which pieces of a range are in the scratch file as they should be.
fn verify(state: &State, scratch: &dyn BackendFile, range: &Range) -> Vec<bool> {
    let check = |(piece, span): &(PieceIndex, Span)| -> bool {
        let mut buf = vec![0; span.len as usize];
        let leaf = state.content.map().leaf(*piece);
        !state.has_ended() && scratch.read_exact_at(&mut buf, span.offset).is_ok() && leaf.cid.verifies(&buf)
    };
    state
        .inner
        .pool
        .install(|| range.pieces.par_iter().map(check).collect())
}

/// Puts verified bytes of the scratch file into the staged file. `false`: they are too few.
fn share_from_scratch(scratch: &dyn BackendFile, staged: &dyn BackendFile, start: u64, end: u64) -> io::Result<bool> {
    let first = start.next_multiple_of(ALIGN);
    let last = end / ALIGN * ALIGN;
    if last <= first || !staged.share_range(scratch, first, first, last - first)? {
        return Ok(false);
    }
    let mut buf = Vec::new();
    for (from, to) in [(start, first), (last, end)] {
        buf.resize((to - from) as usize, 0);
        scratch.read_exact_at(&mut buf, from)?;
        staged.write_all_at(&buf, from)?;
    }
    Ok(true)
}
