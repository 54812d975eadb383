//! Copying what a pack is made of into segments, as it is shared.

use std::{
    collections::HashSet,
    ops::Range,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use modswarm_protocol::{
    Cid,
    format::{Content, Part, PieceIndex, PieceSet},
};
use rayon::prelude::*;

use super::{
    Alone, SegmentError,
    append::{Appender, SEGMENT_MAX},
    folder, places,
    record::{FILE_HEADER, Kind, Record, record_len},
};
use crate::{
    backend::BackendFile,
    error::IndexError,
    fs,
    index::rows::segments as table,
    observer::{Meter, Stage},
    packs::NetworkId,
    room::{self, Shortage},
    store::Inner,
};

/// A file of at least so many bytes is cloned where the file system can.
const CLONE_MIN: u64 = 256 << 10;
/// Bytes copied between two commits.
const BATCH_BYTES: u64 = 64 << 20;
/// Bytes that one thread copies at a time.
const RUN_BYTES: u64 = 4 << 20;

/// What to copy.
pub(crate) struct Job<'a> {
    pub(crate) network: NetworkId,
    pub(crate) content: &'a Content,
    /// Where each file of the content lies, in its order.
    pub(crate) paths: Vec<PathBuf>,
    /// The nodes, pack.json and pack.sig; none if they are in a segment already.
    pub(crate) nodes: Vec<&'a (Cid, Bytes)>,
}

/// A leaf to be copied.
struct Wanted {
    file: u32,
    offset: u64,
    piece: PieceIndex,
}

/// Copies every leaf that the network's segments do not hold yet, and the nodes. Each is verified on its way. Durable.
pub(crate) fn copy(inner: &Inner, alone: &Alone<'_>, job: &Job<'_>, meter: &Meter<'_>) -> Result<(), SegmentError> {
    let map = job.content.map();
    meter.stage(Stage::Copying, map.bytes(), u64::from(map.len()));
    let mut held = held(inner, job, meter)?;
    if held.all() && job.nodes.is_empty() {
        return Ok(());
    }
    let (wanted, whole) = select(job, &mut held);
    let spare = reserve(inner, job, &wanted)?;
    let mut appender = Appender::new(inner, alone, job.network, HashSet::new())?;
    let wanted = clone_files(inner, job, wanted, &whole, spare, &mut appender, meter)?;
    admit(inner, job, &wanted)?;
    let mut rest = &wanted[..];
    while !rest.is_empty() {
        let mut bytes = 0;
        let end = rest.iter().position(|leaf| {
            let len = map.leaf(leaf.piece).len;
            bytes += u64::from(len);
            bytes > BATCH_BYTES
        });
        let (batch, later) = rest.split_at(end.unwrap_or(rest.len()).max(1));
        copy_batch(inner, job, &mut appender, batch, meter)?;
        rest = later;
    }
    for (cid, bytes) in &job.nodes {
        appender.append(Kind::Node, cid, bytes)?;
    }
    appender.commit()?;
    meter.report();
    Ok(())
}

/// Which leaves the network's segments hold: looked up, read and verified.
fn held(inner: &Inner, job: &Job<'_>, meter: &Meter<'_>) -> Result<PieceSet, SegmentError> {
    let map = job.content.map();
    let mut held = map.none();
    let segments = table::all(&*inner.index.reader()?)?;
    if !segments.iter().any(|segment| segment.network == job.network) {
        return Ok(held);
    }
    let look = |(index, leaf): (PieceIndex, modswarm_protocol::format::Leaf)| -> Result<Option<u32>, SegmentError> {
        if meter.cancelled() {
            return Err(SegmentError::Cancelled);
        }
        let there = holds(inner, &job.network, &leaf.cid, leaf.len, None)?;
        if there {
            meter.add_bytes(u64::from(leaf.len), 0);
        }
        Ok(there.then_some(index.get()))
    };
    let leaves: Vec<_> = map.iter().collect();
    let found: Vec<Option<u32>> = inner
        .pool
        .install(|| leaves.into_par_iter().map(look).collect::<Result<_, _>>())?;
    for piece in found.into_iter().flatten() {
        held.set(piece as usize, true);
    }
    Ok(held)
}

/// Whether a segment of the network holds the leaf, beside the one numbered `beside`; it is read.
pub(super) fn holds(
    inner: &Inner,
    network: &NetworkId,
    cid: &Cid,
    len: u32,
    beside: Option<i64>,
) -> Result<bool, IndexError> {
    let folder = folder(inner);
    let mut buf = Vec::new();
    let places = places(inner, network, cid, len)?;
    for (row, name, offset) in places.into_iter().filter(|(row, ..)| Some(*row) != beside) {
        buf.resize(len as usize, 0);
        let file = inner.files.open(row, || inner.backend.open(&folder.join(&name)));
        if file.is_ok_and(|file| file.read_exact_at(&mut buf, offset).is_ok()) && cid.verifies(&buf) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A file that is better cloned than copied.
struct MostlyNew {
    file: u32,
    /// Its leaves among those that are wanted.
    leaves: Range<usize>,
}

/// The leaves to copy, in the files' order, and the files that are mostly made of them.
fn select(job: &Job<'_>, held: &mut PieceSet) -> (Vec<Wanted>, Vec<MostlyNew>) {
    let mut wanted = Vec::new();
    let mut whole = Vec::new();
    for (number, file) in job.content.files().enumerate() {
        let first = wanted.len();
        let mut bytes = 0;
        for span in file.spans() {
            let Part::Piece(piece) = span.part else { continue };
            if !held.replace(piece.as_usize(), true) {
                bytes += u64::from(span.len);
                wanted.push(Wanted {
                    file: number as u32,
                    offset: span.offset,
                    piece,
                });
            }
        }
        if file.size() >= CLONE_MIN && bytes >= file.size() / 2 {
            whole.push(MostlyNew {
                file: number as u32,
                leaves: first..wanted.len(),
            });
        }
    }
    (wanted, whole)
}

/// Bytes that leaves take in segments.
fn bytes_of(job: &Job<'_>, leaves: &[Wanted]) -> u64 {
    let leaves = leaves.iter().map(|leaf| job.content.map().leaf(leaf.piece));
    leaves
        .map(|leaf| record_len(Kind::Leaf, &leaf.cid, u64::from(leaf.len)))
        .sum()
}

/// Refuses what the quota does not allow; returns what it allows beyond, if there is one. What is cloned takes no room of the disk, but it does once the
/// user's file is changed, and so it counts like what is copied.
fn reserve(inner: &Inner, job: &Job<'_>, wanted: &[Wanted]) -> Result<Option<u64>, SegmentError> {
    let Some(quota) = inner.room.quota() else {
        return Ok(None);
    };
    let nodes = job.nodes.iter();
    let nodes: u64 = nodes
        .map(|(cid, bytes)| record_len(Kind::Node, cid, bytes.len() as u64))
        .sum();
    let records = bytes_of(job, wanted) + nodes;
    let needed = records + FILE_HEADER * (1 + records / SEGMENT_MAX);
    let conn = inner.index.reader()?;
    let taken = room::taken(&conn, b"")?;
    match quota.checked_sub(taken.saturating_add(needed)) {
        Some(spare) => Ok(Some(spare)),
        None => Err(SegmentError::NotAllowed(Shortage::Quota { quota, taken, needed })),
    }
}

/// Clones the files `whole`, where the file system can and as far as `spare` bytes are enough for what else is in them; returns the leaves that are left to
/// copy.
fn clone_files(
    inner: &Inner,
    job: &Job<'_>,
    wanted: Vec<Wanted>,
    whole: &[MostlyNew],
    mut spare: Option<u64>,
    appender: &mut Appender<'_>,
    meter: &Meter<'_>,
) -> Result<Vec<Wanted>, SegmentError> {
    let home = inner.backend.device(inner.lock.home()).ok();
    let mut cloned: Vec<Range<usize>> = Vec::new();
    for MostlyNew { file, leaves } in whole {
        if meter.cancelled() {
            return Err(SegmentError::Cancelled);
        }
        let path = &job.paths[*file as usize];
        let file = job.content.file(*file as usize);
        let of_file = &wanted[leaves.clone()];
        let more =
            (record_len(Kind::Clone, &file.cid(), file.size()) + FILE_HEADER).saturating_sub(bytes_of(job, of_file));
        if spare.is_some_and(|spare| spare < more) {
            continue;
        }
        let here = inner.backend.identity_at(path).ok().flatten().map(|now| now.dev);
        if here.is_none() || here != home {
            break;
        }
        let Some(record) = appender.clone_file(path, &file.cid(), file.size())? else {
            break;
        };
        verify_clone(inner, job, appender, &record, of_file, path, meter)?;
        spare = spare.map(|spare| spare - more);
        cloned.push(leaves.clone());
    }
    // So that what was cloned counts whatever becomes of the rest.
    appender.commit()?;
    let mut cloned = cloned.into_iter().peekable();
    let mut left = Vec::new();
    for (at, leaf) in wanted.into_iter().enumerate() {
        while cloned.next_if(|range| range.end <= at).is_some() {}
        if !cloned.peek().is_some_and(|range| range.contains(&at)) {
            left.push(leaf);
        }
    }
    Ok(left)
}

/// Reads what a clone holds of `leaves`, and names them.
fn verify_clone(
    inner: &Inner,
    job: &Job<'_>,
    appender: &mut Appender<'_>,
    record: &Record,
    leaves: &[Wanted],
    path: &Path,
    meter: &Meter<'_>,
) -> Result<(), SegmentError> {
    let map = job.content.map();
    let reader: &Appender<'_> = appender;
    let check = |leaf: &Wanted| -> bool {
        let known = map.leaf(leaf.piece);
        let mut buf = vec![0; known.len as usize];
        let right = reader.read(&mut buf, record.at + leaf.offset).is_ok() && known.cid.verifies(&buf);
        meter.add_bytes(u64::from(known.len), u64::from(known.len));
        right
    };
    if !inner.pool.install(|| leaves.par_iter().all(check)) {
        return Err(SegmentError::Changing(path.to_owned()));
    }
    appender.add_leaves(leaves.iter().map(|leaf| {
        let known = map.leaf(leaf.piece);
        (known.cid, record.at + leaf.offset, known.len)
    }));
    Ok(())
}

/// Whether the disk has room for what is copied.
fn admit(inner: &Inner, job: &Job<'_>, wanted: &[Wanted]) -> Result<(), SegmentError> {
    let needed = bytes_of(job, wanted);
    if needed == 0 {
        return Ok(());
    }
    inner
        .room
        .admit(&*inner.backend, inner.lock.home(), needed)
        .map_err(SegmentError::NotAllowed)
}

/// A leaf with its place.
struct Placed<'a> {
    leaf: &'a Wanted,
    header: Vec<u8>,
    record: Record,
}

/// Copies some leaves with all threads, and commits them.
fn copy_batch(
    inner: &Inner,
    job: &Job<'_>,
    appender: &mut Appender<'_>,
    batch: &[Wanted],
    meter: &Meter<'_>,
) -> Result<(), SegmentError> {
    let map = job.content.map();
    let mut placed: Vec<Placed<'_>> = Vec::with_capacity(batch.len());
    for leaf in batch {
        let known = map.leaf(leaf.piece);
        if appender.is_full_for(known.len) {
            copy_placed(inner, job, appender, &std::mem::take(&mut placed), meter)?;
        }
        let (header, record) = appender.reserve(Kind::Leaf, &known.cid, known.len)?;
        placed.push(Placed { leaf, header, record });
    }
    copy_placed(inner, job, appender, &placed, meter)
}

/// Copies leaves to their places in the current segment, and commits them.
fn copy_placed(
    inner: &Inner,
    job: &Job<'_>,
    appender: &mut Appender<'_>,
    placed: &[Placed<'_>],
    meter: &Meter<'_>,
) -> Result<(), SegmentError> {
    // Each run is of one file.
    let mut runs: Vec<&[Placed<'_>]> = Vec::new();
    for of_file in placed.chunk_by(|a, b| a.leaf.file == b.leaf.file) {
        let mut rest = of_file;
        while let Some(first) = rest.first() {
            let until = first.record.at + RUN_BYTES;
            let end = rest
                .iter()
                .position(|leaf| leaf.record.at >= until)
                .unwrap_or(rest.len());
            let (run, later) = rest.split_at(end);
            runs.push(run);
            rest = later;
        }
    }
    let writer: &Appender<'_> = appender;
    let copy_run = |run: &&[Placed<'_>]| -> Result<(), SegmentError> {
        let path = &job.paths[run[0].leaf.file as usize];
        let file = inner.backend.open(path).map_err(|e| unreadable(path, e))?;
        let mut bytes = Vec::new();
        for leaf in *run {
            if meter.cancelled() {
                return Err(SegmentError::Cancelled);
            }
            copy_leaf(&*file, path, leaf, &mut bytes)?;
            writer.write(&leaf.record, &bytes)?;
            meter.add_bytes(leaf.record.len, leaf.record.len);
            meter.add_file();
        }
        Ok(())
    };
    inner.pool.install(|| runs.par_iter().try_for_each(copy_run))?;
    appender.commit()
}

/// Reads and verifies a leaf; `bytes` is its whole record then.
fn copy_leaf(
    file: &dyn BackendFile,
    path: &Path,
    placed: &Placed<'_>,
    bytes: &mut Vec<u8>,
) -> Result<(), SegmentError> {
    bytes.clear();
    bytes.extend_from_slice(&placed.header);
    let start = bytes.len();
    bytes.resize(start + placed.record.len as usize, 0);
    let payload = &mut bytes[start..];
    file.read_exact_at(payload, placed.leaf.offset)
        .map_err(|e| unreadable(path, e))?;
    if placed.record.cid.verifies(payload) {
        Ok(())
    } else {
        Err(SegmentError::Changing(path.to_owned()))
    }
}

/// A file that was there a moment ago, and is shorter now or gone, is changing.
fn unreadable(path: &Path, e: std::io::Error) -> SegmentError {
    if fs::is_gone(&e) || e.kind() == std::io::ErrorKind::UnexpectedEof {
        SegmentError::Changing(path.to_owned())
    } else {
        SegmentError::Io {
            path: path.to_owned(),
            source: e,
        }
    }
}
