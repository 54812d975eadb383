//! Copying what a pack is made of into segments, as it is shared.

use std::{
    collections::HashSet,
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
    append::Appender,
    folder, places,
    record::{Kind, Record},
};
use crate::{
    backend::BackendFile,
    error::IndexError,
    fs,
    index::rows::segments as table,
    observer::{Meter, Stage},
    packs::NetworkId,
    room,
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
    let mut appender = Appender::new(inner, alone, job.network, HashSet::new())?;
    let wanted = plan(inner, job, &mut held, &mut appender, meter)?;
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

/// Clones the files that are mostly new, where the file system can; returns the leaves that are left to copy, in the files' order.
fn plan(
    inner: &Inner,
    job: &Job<'_>,
    held: &mut PieceSet,
    appender: &mut Appender<'_>,
    meter: &Meter<'_>,
) -> Result<Vec<Wanted>, SegmentError> {
    let home = inner.backend.device(inner.lock.home()).ok();
    let mut may_clone = true;
    let mut wanted = Vec::new();
    for (number, file) in job.content.files().iter().enumerate() {
        if meter.cancelled() {
            return Err(SegmentError::Cancelled);
        }
        let first = wanted.len();
        let mut bytes = 0;
        for span in job.content.spans(file) {
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
        if !may_clone || file.size < CLONE_MIN || bytes < file.size / 2 {
            continue;
        }
        let path = &job.paths[number];
        let here = inner.backend.identity_at(path).ok().flatten().map(|now| now.dev);
        may_clone = here.is_some() && here == home;
        if may_clone {
            match appender.clone_file(path, &file.cid, file.size)? {
                Some(record) => verify_clone(inner, job, appender, &record, &wanted.split_off(first), path, meter)?,
                None => may_clone = false,
            }
        }
    }
    // So that what was cloned counts whatever becomes of the rest.
    appender.commit()?;
    Ok(wanted)
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

/// Whether there is room for the copy, and it is allowed.
fn admit(inner: &Inner, job: &Job<'_>, wanted: &[Wanted]) -> Result<(), SegmentError> {
    let map = job.content.map();
    let needed: u64 = wanted.iter().map(|leaf| u64::from(map.leaf(leaf.piece).len)).sum();
    if needed == 0 {
        return Ok(());
    }
    let conn = inner.index.reader()?;
    if let Some(shortage) = room::reserve(&conn, inner.room.quota(), b"", needed)? {
        return Err(SegmentError::NotAllowed(shortage));
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
