//! Reading a whole pack and comparing it with its CIDs: what rots silently is found, what was doubted and is right is had again.

use std::{collections::HashSet, io, path::Path, sync::Arc};

use modswarm_protocol::format::{Content, File, PackPath, Part, PieceSet, Span};
use rayon::prelude::*;
use rusqlite::Transaction;

use super::{Check, PackId, PackState, check_pack, find_elsewhere};
use crate::{
    backend::{Backend, BackendFile, Identity},
    error::{IndexError, VerifyError},
    fs,
    index::rows::{self, FileRow, FileState, LeafRow, PackRow},
    observer::{Meter, Observer, Stage},
    store::Inner,
};

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not there.
    Missing,
    /// It was changed after it was shared or fetched, as its size or time stamps show.
    Changed,
    /// Its bytes changed and nothing else: the disk, or a program that hid it.
    Rotten,
    /// The system does not let it be read.
    Unreadable,
}

/// A file that is not as the pack has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadFile {
    /// In the pack.
    pub path: PackPath,
    /// What is wrong with it.
    pub fault: Fault,
    /// Its bytes that are not as they should be.
    pub bytes: u64,
}

/// What [`crate::Store::verify_pack`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Files looked at.
    pub files: u64,
    /// Bytes that were read and are right.
    pub bytes: u64,
    /// Files that are not as the pack has them.
    pub bad: Vec<BadFile>,
    /// Pieces that were believed lost and are here.
    pub restored: u64,
    /// Pieces that were believed here and are lost.
    pub lost: u64,
}

/// One file, looked at.
struct Looked {
    number: u32,
    row: i64,
    bad: Option<BadFile>,
    /// Its identity, and since when it is certain; none for staged files and files that kept changing.
    fresh: Option<(Identity, i64)>,
    /// Rows of leaves that are right, to be written (again).
    right: Vec<LeafRow>,
    wrong: Vec<LeafRow>,
    right_pieces: Vec<(u32, u32)>,
    wrong_pieces: Vec<(u32, u32)>,
    bytes: u64,
}

pub(crate) fn verify_pack(inner: &Inner, id: PackId, observer: &dyn Observer) -> Result<Verified, VerifyError> {
    if inner.open_download(id).is_none() {
        // A file that was only renamed is not missing.
        check_pack(inner, id)?;
    }
    verify_files(inner, id, |_, _| true, observer)
}

/// As [`verify_pack`], of some files only.
pub(crate) fn verify_some(
    inner: &Inner,
    id: PackId,
    paths: &[PackPath],
    observer: &dyn Observer,
) -> Result<Verified, VerifyError> {
    let wanted: HashSet<&PackPath> = paths.iter().collect();
    verify_files(inner, id, |(file, _), _| wanted.contains(&file.path()), observer)
}

/// Looks at every file of a pack, and reads those that are not as the index knows them, each once as it is: what was edited is withdrawn before anybody
/// asks for it.
pub(crate) fn look_again(inner: &Inner, id: PackId) -> Result<Check, VerifyError> {
    let check = check_pack(inner, id)?;
    if check.changed.is_empty() || inner.open_download(id).is_some() {
        return Ok(check);
    }
    let changed: HashSet<&PackPath> = check.changed.iter().collect();
    let fresh = |file: File<'_>, row: &FileRow, path: &Path| {
        if !changed.contains(&file.path()) {
            return false;
        }
        let Ok(Some(now)) = inner.backend.identity_at(path) else {
            return false;
        };
        let mut read = crate::lock(&inner.edits);
        if read.len() >= EDITS_MAX {
            read.clear();
        }
        read.insert(row.id, now) != Some(now)
    };
    verify_files(inner, id, |(file, row), path| fresh(file, row, path), &())?;
    Ok(check)
}

/// Edited files whose bytes are known to differ that are remembered; beyond, they are read again.
const EDITS_MAX: usize = 100_000;

fn verify_files(
    inner: &Inner,
    id: PackId,
    wanted: impl Fn((File<'_>, &FileRow), &Path) -> bool + Sync,
    observer: &dyn Observer,
) -> Result<Verified, VerifyError> {
    let meter = Meter::new(observer);
    if inner.open_download(id).is_some() {
        return Err(VerifyError::InUse);
    }
    // What a dropped download has written is to be in the rows that are read next.
    inner.index.writer.flush()?;
    let conn = inner.index.reader()?;
    let pack = rows::pack(&conn, id)?.ok_or(VerifyError::Unknown)?;
    let files = rows::files_of_pack(&conn, id)?;
    let root = rows::root_path(&conn, pack.root)?
        .map(fs::path_from)
        .unwrap_or_default();
    drop(conn);
    let content = inner.content(&pack.record)?.ok_or(VerifyError::SkeletonMissing)?;
    if pack.record.copied {
        // Whatever becomes of the folder: what is served is the copy.
        return crate::segments::verify(inner, &pack, &content, observer);
    }
    let had = rows::bits_from_bytes(pack.have.as_deref(), content.map().len() as usize);

    let bytes = files
        .iter()
        .filter_map(|(number, _)| content.files().nth(*number as usize));
    meter.stage(Stage::Checking, bytes.map(|file| file.size()).sum(), files.len() as u64);
    let look = |(number, row): &(u32, FileRow)| -> Result<Option<Looked>, VerifyError> {
        let Some(file) = content.files().nth(*number as usize) else {
            return Ok(None);
        };
        let mut path = root.join(fs::path_from(row.path.clone()));
        if let (Some(stage), Some(_)) = (&pack.stage, row.stage) {
            let staged = fs::path_from(stage.clone()).join(row.id.to_string());
            // It may have got its name, in exchange for what stood there, before a crash and before that was written down.
            let is_at =
                |path: &Path| matches!(inner.backend.identity_at(path), Ok(Some(now)) if now.same_file(&row.identity));
            if is_at(&staged) || !is_at(&path) {
                path = staged;
            }
        }
        if !wanted((file, row), &path) {
            return Ok(None);
        }
        let looked = look_at(inner, &path, &content, *number, file, row, &had, &meter)?;
        meter.add_file();
        Ok(Some(looked))
    };
    let looked: Vec<Option<Looked>> = inner
        .pool
        .install(|| files.par_iter().map(look).collect::<Result<_, _>>())?;
    meter.report();
    apply(inner, &pack, &content, looked.into_iter().flatten().collect())
}

#[allow(clippy::too_many_arguments, reason = "all of it is one caller's")]
fn look_at(
    inner: &Inner,
    path: &Path,
    content: &Content,
    number: u32,
    file: File<'_>,
    row: &FileRow,
    had: &PieceSet,
    meter: &Meter<'_>,
) -> Result<Looked, VerifyError> {
    let staged = row.stage.is_some();
    let mut looked = Looked {
        number,
        row: row.id,
        bad: None,
        fresh: None,
        right: Vec::new(),
        wrong: Vec::new(),
        right_pieces: Vec::new(),
        wrong_pieces: Vec::new(),
        bytes: 0,
    };
    let bad = |fault, bytes| {
        Some(BadFile {
            path: file.path(),
            fault,
            bytes,
        })
    };
    // Of a staged file only what was committed is promised.
    let promised = |span: &Span| match span.part {
        Part::Piece(piece) => !staged || had[piece.as_usize()],
        Part::Node { .. } => !staged,
    };
    // Once a file is enough.
    let mut seen_pieces = HashSet::new();
    let mut mark = |looked: &mut Looked, span: &Span, right: bool| {
        let Part::Piece(piece) = span.part else { return };
        if right && !seen_pieces.insert(piece) {
            return;
        }
        let leaf = content.map().leaf(piece);
        let place = LeafRow {
            prefix: leaf.cid.prefix() as i64,
            file: row.id,
            offset: span.offset,
            len: span.len,
        };
        let (places, pieces) = if right {
            (&mut looked.right, &mut looked.right_pieces)
        } else {
            (&mut looked.wrong, &mut looked.wrong_pieces)
        };
        places.push(place);
        pieces.push((piece.get(), leaf.len));
    };
    let opened = inner
        .backend
        .open(path)
        .and_then(|opened| Ok((opened.identity()?, opened)));
    let (before, opened) = match opened {
        Ok(opened) => opened,
        Err(e) => {
            let promised: Vec<Span> = file.spans().filter(promised).collect();
            for span in &promised {
                mark(&mut looked, span, false);
            }
            let fault = if fs::is_gone(&e) {
                Fault::Missing
            } else {
                Fault::Unreadable
            };
            // A staged file that nothing was written to need not be there.
            if !staged || !promised.is_empty() {
                looked.bad = bad(fault, promised.iter().map(|span| u64::from(span.len)).sum());
            }
            return Ok(looked);
        }
    };
    let mut buf = Vec::new();
    let mut wrong_bytes = 0;
    let mut unreadable = false;
    for span in file.spans().filter(promised) {
        if meter.cancelled() {
            return Err(VerifyError::Cancelled);
        }
        buf.resize(span.len as usize, 0);
        let right = match read(&*opened, &mut buf, span.offset) {
            Ok(true) => match span.part {
                Part::Piece(piece) => content.map().leaf(piece).cid.verifies(&buf),
                Part::Node { cid, .. } => inner.carried(&cid).is_ok_and(|bytes| bytes == buf),
            },
            Ok(false) => false,
            Err(_) => {
                unreadable = true;
                false
            }
        };
        mark(&mut looked, &span, right);
        if right {
            looked.bytes += u64::from(span.len);
        } else {
            wrong_bytes += u64::from(span.len);
        }
        meter.add_bytes(u64::from(span.len), u64::from(span.len));
    }
    let seen = inner.backend.now_ns();
    let after = opened.identity().ok();
    let longer = before.size != file.size();
    if wrong_bytes > 0 || longer {
        let fault = if unreadable {
            Fault::Unreadable
        } else if !staged && (longer || after != Some(before) || !before.same_bytes(&row.identity)) {
            Fault::Changed
        } else {
            Fault::Rotten
        };
        looked.bad = bad(fault, wrong_bytes);
    } else if !staged && after == Some(before) {
        looked.fresh = Some((before, seen));
    }
    // What the index says already need not be said again.
    let known = had.all() && row.state != FileState::Gone && row.identity == before;
    if known && looked.bad.is_none() {
        looked.right.clear();
        looked.right_pieces.clear();
        if row.vouches_for(&before) {
            looked.fresh = None;
        }
    }
    Ok(looked)
}

/// Whether there were bytes enough.
fn read(file: &dyn BackendFile, buf: &mut [u8], offset: u64) -> io::Result<bool> {
    match file.read_exact_at(buf, offset) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

/// Rows of leaves of one transaction.
const ROWS_MAX: usize = 50_000;

fn apply(inner: &Inner, pack: &PackRow, content: &Arc<Content>, looked: Vec<Looked>) -> Result<Verified, VerifyError> {
    let mut verified = Verified {
        files: looked.len() as u64,
        ..Verified::default()
    };
    let mut batch: Vec<Looked> = Vec::new();
    let mut batch_rows = 0;
    let mut lost_all: Vec<u32> = Vec::new();
    let mut flush = |batch: &mut Vec<Looked>, verified: &mut Verified| -> Result<(), IndexError> {
        let batch = std::mem::take(batch);
        let id = pack.record.id;
        let (content, backend) = (Arc::clone(content), Arc::clone(&inner.backend));
        let write = move |tx: &Transaction<'_>| write(&*backend, tx, id, &content, &batch);
        let (restored, lost) = inner.index.writer.run(write)?;
        verified.restored += restored;
        verified.lost += lost.len() as u64;
        lost_all.extend(lost);
        Ok(())
    };
    for file in looked {
        verified.bytes += file.bytes;
        verified.bad.extend(file.bad.clone());
        let rows = file.right.len() + file.wrong.len() + usize::from(file.fresh.is_some());
        if rows == 0 && file.wrong_pieces.is_empty() {
            continue;
        }
        if !file.wrong.is_empty() {
            inner.files.forget(file.row);
        }
        batch_rows += rows;
        batch.push(file);
        if batch_rows >= ROWS_MAX {
            batch_rows = 0;
            flush(&mut batch, &mut verified)?;
        }
    }
    flush(&mut batch, &mut verified)?;
    if !lost_all.is_empty() {
        inner.withdraw(pack.record.content, content.map().len() as usize, lost_all);
    }
    verified.bad.sort_by(|a, b| a.path.cmp(&b.path));
    if pack.record.state == PackState::Whole && verified.bad.is_empty() {
        inner.forget_withdrawn(&pack.record.content);
    }
    Ok(verified)
}

/// Writes what was found; returns how many pieces came back, and which are lost.
fn write(
    backend: &dyn Backend,
    tx: &Transaction<'_>,
    id: PackId,
    content: &Content,
    batch: &[Looked],
) -> Result<(u64, Vec<u32>), IndexError> {
    let before = rows::pack(tx, id)?.map_or(0, |row| row.record.pieces_here);
    let mut right: Vec<LeafRow> = Vec::new();
    for file in batch {
        if let Some((identity, seen)) = &file.fresh {
            rows::place_file(tx, file.row, identity, *seen)?;
        }
        right.extend(&file.right);
        for row in &file.wrong {
            rows::delete_leaf(tx, row)?;
        }
        let missing = file.bad.as_ref().is_some_and(|bad| bad.fault == Fault::Missing);
        if missing {
            rows::set_file_state(tx, file.row, FileState::Gone)?;
        } else if file.bad.is_some() {
            rows::doubt_file(tx, file.row)?;
        }
        tracing::trace!(number = file.number, "verified");
    }
    right.sort_unstable();
    rows::insert_leaves(tx, &right)?;
    let back: Vec<(u32, u32)> = batch
        .iter()
        .flat_map(|file| file.right_pieces.iter().copied())
        .collect();
    rows::change_have(tx, id, &back, &[])?;
    let after = rows::pack(tx, id)?.map_or(0, |row| row.record.pieces_here);
    let mut lost = Vec::new();
    for file in batch {
        for (row, piece) in file.wrong.iter().zip(&file.wrong_pieces) {
            if !rows::is_anywhere(tx, row.prefix, row.len)? {
                lost.push(*piece);
            }
        }
    }
    let pieces: Vec<u32> = lost.iter().map(|(piece, _)| *piece).collect();
    let elsewhere = find_elsewhere(backend, tx, id, content, &pieces)?;
    lost.retain(|(piece, _)| !elsewhere.contains(piece));
    rows::change_have(tx, id, &[], &lost)?;
    Ok((
        u64::from(after.saturating_sub(before)),
        lost.into_iter().map(|(piece, _)| piece).collect(),
    ))
}
