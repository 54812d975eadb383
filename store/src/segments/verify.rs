//! Reading all that a copied pack has in segments. What has rotten is copied again from the folder where that still has it.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use modswarm_protocol::{
    Cid,
    format::{Content, File, Leaf, Part, PieceIndex},
};
use rayon::prelude::*;

use super::{
    Alone, SegmentError,
    append::Appender,
    folder, node_cids, places,
    record::{Kind, Records},
};
use crate::{
    error::{IndexError, VerifyError},
    index::rows::{self, LeafRow, PackRow, segments as table},
    observer::{Meter, Observer, Stage},
    packs::{BadFile, Fault, PackRecord, Verified},
    store::Inner,
};

/// One leaf, looked at.
#[derive(Default)]
struct Looked {
    right: bool,
    /// Places that hold something else.
    wrong: Vec<LeafRow>,
    /// The leaf from elsewhere, if no segment has it.
    healed: Option<Bytes>,
}

/// Reads and verifies every leaf of a copied pack. Durable.
pub(crate) fn verify(
    inner: &Inner,
    pack: &PackRow,
    content: &Arc<Content>,
    observer: &dyn Observer,
) -> Result<Verified, VerifyError> {
    let meter = Meter::new(observer);
    let map = content.map();
    let record = &pack.record;
    meter.stage(Stage::Checking, map.bytes(), u64::from(map.len()));
    let alone = inner.segments.alone();
    let had = rows::bits_from_bytes(pack.have.as_deref(), map.len() as usize);
    let mut verified = Verified {
        files: content.files().len() as u64,
        ..Verified::default()
    };
    let mut back: Vec<(u32, u32)> = Vec::new();
    let mut lost: Vec<(u32, u32)> = Vec::new();
    let leaves: Vec<(PieceIndex, Leaf)> = map.iter().collect();
    // Some at a time: what was healed is in memory until it is written.
    for some in leaves.chunks(LEAVES_MAX) {
        if meter.cancelled() {
            return Err(VerifyError::Cancelled);
        }
        let looked: Vec<Looked> = inner.pool.install(|| {
            let looked = some.par_iter().map(|(_, leaf)| look(inner, pack, leaf, &meter));
            looked.collect::<Result<_, IndexError>>()
        })?;
        let mut appender: Option<Appender<'_>> = None;
        let mut wrong: Vec<LeafRow> = Vec::new();
        for ((index, leaf), looked) in some.iter().zip(looked) {
            if looked.right || looked.healed.is_some() {
                verified.bytes += u64::from(leaf.len);
                if !had[index.as_usize()] {
                    back.push((index.get(), leaf.len));
                }
            } else {
                lost.push((index.get(), leaf.len));
            }
            wrong.extend(looked.wrong);
            if let Some(bytes) = looked.healed {
                let appender = match &mut appender {
                    Some(appender) => appender,
                    None => appender.insert(open(inner, &alone, pack)?),
                };
                appender.append(Kind::Leaf, &leaf.cid, &bytes).map_err(verify_error)?;
            }
        }
        if let Some(mut appender) = appender {
            appender.commit().map_err(verify_error)?;
        }
        if !wrong.is_empty() {
            inner
                .index
                .writer
                .run(move |tx| wrong.iter().try_for_each(|row| rows::delete_leaf(tx, row)))?;
        }
    }
    heal_nodes(inner, &alone, record, content).map_err(verify_error)?;
    drop(alone);
    verified.restored = back.len() as u64;
    let newly_lost: Vec<u32> = lost.iter().map(|(piece, _)| *piece).collect();
    let newly_lost: Vec<u32> = newly_lost.into_iter().filter(|piece| had[*piece as usize]).collect();
    verified.lost = newly_lost.len() as u64;
    verified.bad = bad_files(content, &lost);
    let id = record.id;
    inner
        .index
        .writer
        .run(move |tx| rows::change_have(tx, id, &back, &lost))?;
    if !newly_lost.is_empty() {
        inner.withdraw(record.content, map.len() as usize, newly_lost);
    }
    meter.report();
    Ok(verified)
}

/// Puts those nodes of a copied pack into segments again that are not whole there, as far as the index has them: a lost index is made anew from them. Durable.
pub(crate) fn heal_nodes(
    inner: &Inner,
    alone: &Alone<'_>,
    record: &PackRecord,
    content: &Content,
) -> Result<(), SegmentError> {
    let cids = node_cids(inner, record.pack.as_ref(), content)?;
    let mut missing: HashSet<Cid> = cids.iter().copied().collect();
    let folder = folder(inner);
    let mut buf = Vec::new();
    for segment in table::all(&*inner.index.reader()?)? {
        if segment.network != record.network || segment.dying {
            continue;
        }
        let Ok(file) = inner.backend.open(&folder.join(&segment.name)) else {
            continue;
        };
        let records = Records::new(&*file, segment.len).map_while(Result::ok);
        for node in records.filter(|record| record.kind == Kind::Node) {
            if !missing.contains(&node.cid) {
                continue;
            }
            buf.resize(node.len as usize, 0);
            if file.read_exact_at(&mut buf, node.at).is_ok() && node.cid.verifies(&buf) {
                missing.remove(&node.cid);
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let mut appender = Appender::new(inner, alone, record.network, HashSet::new())?;
    for cid in cids.iter().filter(|cid| missing.contains(cid)) {
        if let Some(bytes) = rows::node(&*inner.index.reader()?, cid)?.filter(|bytes| cid.verifies(bytes)) {
            appender.append(Kind::Node, cid, &bytes)?;
        }
    }
    appender.commit()
}

/// Leaves looked at together.
const LEAVES_MAX: usize = 256;

fn open<'a>(inner: &'a Inner, alone: &Alone<'_>, pack: &PackRow) -> Result<Appender<'a>, VerifyError> {
    Appender::new(inner, alone, pack.record.network, HashSet::new()).map_err(verify_error)
}

fn verify_error(e: SegmentError) -> VerifyError {
    match e {
        SegmentError::Index(e) => VerifyError::Index(e),
        SegmentError::Cancelled => VerifyError::Cancelled,
        SegmentError::Io { path, source } => {
            VerifyError::Index(IndexError::Other(format!("{path:?} cannot be written: {source}")))
        }
        SegmentError::NotAllowed(shortage) => VerifyError::Index(IndexError::Other(shortage.to_string())),
        SegmentError::Changing(path) => VerifyError::Index(IndexError::Other(format!("{path:?} keeps changing"))),
    }
}

fn look(inner: &Inner, pack: &PackRow, leaf: &Leaf, meter: &Meter<'_>) -> Result<Looked, IndexError> {
    let folder = folder(inner);
    let mut looked = Looked::default();
    let mut buf = vec![0; leaf.len as usize];
    for (row, name, offset) in places(inner, &pack.record.network, &leaf.cid, leaf.len)? {
        let file = inner.files.open(row, || inner.backend.open(&folder.join(&name)));
        if file.is_ok_and(|file| file.read_exact_at(&mut buf, offset).is_ok()) && leaf.cid.verifies(&buf) {
            looked.right = true;
        } else {
            looked.wrong.push(LeafRow {
                prefix: leaf.cid.prefix() as i64,
                file: row,
                offset,
                len: leaf.len,
            });
        }
    }
    if !looked.right {
        looked.healed = crate::read::read_leaf(inner, &leaf.cid, leaf.len).ok();
    }
    meter.add_bytes(u64::from(leaf.len), u64::from(leaf.len));
    Ok(looked)
}

/// The files that have lost pieces.
fn bad_files(content: &Content, lost: &[(u32, u32)]) -> Vec<BadFile> {
    if lost.is_empty() {
        return Vec::new();
    }
    let lost: HashSet<u32> = lost.iter().map(|(piece, _)| *piece).collect();
    let bytes = |file: File<'_>| -> u64 {
        let spans = file.spans();
        let bad = spans.filter(|span| matches!(span.part, Part::Piece(piece) if lost.contains(&piece.get())));
        bad.map(|span| u64::from(span.len)).sum()
    };
    let files = content.files().map(|file| (file, bytes(file)));
    files
        .filter(|(_, bytes)| *bytes > 0)
        .map(|(file, bytes)| BadFile {
            path: file.path(),
            fault: Fault::Rotten,
            bytes,
        })
        .collect()
}
