//! Deleting what no pack needs any more: whole segments, and the dead parts of others by writing the rest anew.

use std::{
    collections::{BTreeSet, HashSet},
    path::PathBuf,
};

use bytes::Bytes;
use modswarm_protocol::Cid;

use super::{
    Alone, SegmentError,
    append::Appender,
    copy::holds,
    folder, node_cids,
    record::{FILE_HEADER, Kind, Record, Records},
};
use crate::{
    backend::BackendFile,
    error::{IndexError, SkeletonReadError},
    fs,
    index::rows::{
        self,
        segments::{self as table, SegmentRow},
    },
    left,
    packs::NetworkId,
    store::Inner,
};

/// A segment is written anew when this share of it is dead.
const DEAD_SHARE: u64 = 4;
/// And at least so many bytes: headers are not worth it.
const DEAD_MIN: u64 = 64 << 10;

/// What [`sweep`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    /// Bytes of all segments before.
    pub(crate) before: u64,
    /// And after.
    pub(crate) after: u64,
}

/// What of a network's segments is needed.
struct Live {
    /// Prefixes of leaves, sorted.
    leaves: Vec<u64>,
    nodes: HashSet<Cid>,
}

impl Live {
    fn needs(&self, record: &Record) -> bool {
        match record.kind {
            Kind::Leaf => self.needs_leaf(&record.cid),
            Kind::Node => self.nodes.contains(&record.cid),
            Kind::Clone => false,
        }
    }

    /// Two leaves of one prefix are needed both or neither, which keeps too much at worst.
    fn needs_leaf(&self, cid: &Cid) -> bool {
        self.leaves.binary_search(&cid.prefix()).is_ok()
    }
}

/// Deletes what is dead, as far as that is worth it. It can be stopped at any instant.
pub(crate) fn sweep(inner: &Inner, alone: &Alone<'_>, stop: &dyn Fn() -> bool) -> Result<Swept, SegmentError> {
    inner.index.writer.flush()?;
    let segments = table::all(&*inner.index.reader()?)?;
    let mut swept = Swept {
        before: table::bytes(&*inner.index.reader()?)?,
        after: 0,
    };
    for segment in segments.iter().filter(|segment| segment.dying) {
        delete(inner, segment)?;
    }
    let networks: BTreeSet<NetworkId> = segments.iter().map(|segment| segment.network).collect();
    let cloned = cloned_files(inner)?;
    let left = left::all(inner)?;
    for network in networks {
        if left.iter().any(|left| left.may_have_copy_in(&network)) {
            tracing::warn!("copies stay as they are while one is not restored whose list of files is damaged");
            continue;
        }
        let Some(live) = live(inner, &network, &cloned)? else {
            continue;
        };
        let of_network = |segment: &&SegmentRow| segment.network == network && !segment.dying;
        for segment in segments.iter().filter(of_network) {
            if stop() {
                return Err(SegmentError::Cancelled);
            }
            sweep_one(inner, alone, segment, &live, stop)?;
        }
    }
    swept.after = table::bytes(&*inner.index.reader()?)?;
    Ok(swept)
}

/// What the copied packs of `network` need; `None` if the file list of one of them cannot be read.
fn live(inner: &Inner, network: &NetworkId, cloned: &[(NetworkId, Cid)]) -> Result<Option<Live>, SegmentError> {
    let mut live = Live {
        leaves: Vec::new(),
        nodes: HashSet::new(),
    };
    let packs = rows::packs(&*inner.index.reader()?)?;
    let copied = packs.iter().map(|row| &row.record);
    for record in copied.filter(|record| record.copied && record.network == *network) {
        let content = match inner.content(record) {
            Ok(Some(content)) => content,
            Ok(None) | Err(SkeletonReadError::Skeleton(_)) => {
                tracing::warn!(
                    "the list of files of {:?} cannot be read; its copy is left as it is",
                    record.name
                );
                return Ok(None);
            }
            Err(SkeletonReadError::Index(e)) => return Err(e.into()),
        };
        live.leaves
            .extend(content.map().iter().map(|(_, leaf)| leaf.cid.prefix()));
        live.nodes.extend(node_cids(inner, record.pack.as_ref(), &content)?);
    }
    for (_, file) in cloned.iter().filter(|(of, _)| of == network) {
        if let Ok(Some(skeleton)) = inner.skeleton(file, None) {
            live.nodes.extend(skeleton.content.node_cids());
        }
    }
    live.leaves.sort_unstable();
    live.leaves.dedup();
    Ok(Some(live))
}

/// A part of a segment that is needed.
struct Part {
    kind: Kind,
    cid: Cid,
    at: u64,
    len: u32,
}

fn sweep_one(
    inner: &Inner,
    alone: &Alone<'_>,
    segment: &SegmentRow,
    live: &Live,
    stop: &dyn Fn() -> bool,
) -> Result<(), SegmentError> {
    let path = folder(inner).join(&segment.name);
    let failed = |source| SegmentError::Io {
        path: path.clone(),
        source,
    };
    let file = match inner.backend.open(&path) {
        Ok(file) => file,
        // Deleted by somebody, or never made.
        Err(e) if fs::is_gone(&e) => return doom(inner, segment),
        Err(e) => return Err(failed(e)),
    };
    let mut parts = Vec::new();
    let mut end = FILE_HEADER;
    for record in Records::new(&*file, segment.len) {
        let record = record.map_err(failed)?;
        end = record.end();
        if record.kind == Kind::Clone {
            match parts_of_clone(inner, &record, live)? {
                Some(leaves) => parts.extend(leaves),
                None => return Ok(()),
            }
        } else if live.needs(&record) {
            parts.push(Part {
                kind: record.kind,
                cid: record.cid,
                at: record.at,
                len: record.len as u32,
            });
        }
    }
    if end < segment.len && !live.leaves.is_empty() {
        tracing::warn!("{path:?} is damaged in the middle and is left as it is: what lies beyond may be needed");
        return Ok(());
    }
    let needed: u64 = parts.iter().map(|part| u64::from(part.len)).sum();
    let dead = segment.len.saturating_sub(needed);
    if !parts.iter().any(|part| part.kind == Kind::Leaf) && live.leaves.is_empty() || parts.is_empty() {
        return doom(inner, segment);
    }
    let worth = dead >= segment.len / DEAD_SHARE && dead >= DEAD_MIN;
    if worth {
        write_anew(inner, alone, segment, &*file, &parts, stop)?;
    }
    Ok(())
}

/// The leaves of a cloned file that are needed; `None` if its nodes are not here to tell.
fn parts_of_clone(inner: &Inner, record: &Record, live: &Live) -> Result<Option<Vec<Part>>, SegmentError> {
    let leaves = match crate::share::leaves_of(inner, &record.cid, record.len) {
        Ok(leaves) => leaves,
        Err(IndexError::Other(_)) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let mut at = record.at;
    let mut parts = Vec::new();
    for leaf in leaves {
        if live.needs_leaf(&leaf.cid) {
            parts.push(Part {
                kind: Kind::Leaf,
                cid: leaf.cid,
                at,
                len: leaf.len,
            });
        }
        at += u64::from(leaf.len);
    }
    Ok(Some(parts))
}

/// The files that were cloned into segments: their nodes say where their leaves are, whatever packs are left.
pub(crate) fn cloned_files(inner: &Inner) -> Result<Vec<(NetworkId, Cid)>, SegmentError> {
    let mut files = Vec::new();
    for segment in table::all(&*inner.index.reader()?)? {
        let path = folder(inner).join(&segment.name);
        let mut read = || -> std::io::Result<()> {
            let file = inner.backend.open(&path)?;
            for record in Records::new(&*file, segment.len) {
                let record = record?;
                if record.kind == Kind::Clone {
                    files.push((segment.network, record.cid));
                }
            }
            Ok(())
        };
        match read() {
            Err(e) if fs::is_gone(&e) => {}
            // The nodes of files that it may hold are not to be taken for dead.
            read => read.map_err(|source| SegmentError::Io { path, source })?,
        }
    }
    Ok(files)
}

/// Writes what is needed of a segment to another one, and deletes it.
fn write_anew(
    inner: &Inner,
    alone: &Alone<'_>,
    segment: &SegmentRow,
    file: &dyn BackendFile,
    parts: &[Part],
    stop: &dyn Fn() -> bool,
) -> Result<(), SegmentError> {
    let avoid = HashSet::from([segment.file]);
    let mut appender = Appender::new(inner, alone, segment.network, avoid)?;
    let mut buf = Vec::new();
    let mut seen = HashSet::new();
    let mut unreadable = false;
    for part in parts {
        if stop() {
            return Err(SegmentError::Cancelled);
        }
        // A run that was cut off may have come so far.
        let network = &segment.network;
        if part.kind == Kind::Leaf && holds(inner, network, &part.cid, part.len, Some(segment.file))? {
            continue;
        }
        buf.resize(part.len as usize, 0);
        if seen.contains(&part.cid) {
            continue;
        }
        let read = file.read_exact_at(&mut buf, part.at);
        let mut right = read.is_ok() && part.cid.verifies(&buf);
        if !right && let Some(bytes) = elsewhere(inner, part)? {
            buf.copy_from_slice(&bytes);
            right = true;
        }
        // What has rotten everywhere is not carried on: it is withdrawn when it is asked for.
        if right {
            appender.append(part.kind, &part.cid, &buf)?;
            seen.insert(part.cid);
        } else {
            unreadable |= read.is_err();
        }
    }
    appender.commit()?;
    if unreadable {
        tracing::warn!("{:?} cannot be read everywhere now, and stays", segment.name);
        return Ok(());
    }
    doom(inner, segment)
}

/// What has rotten in a segment, from the index or from a folder that still has it.
fn elsewhere(inner: &Inner, part: &Part) -> Result<Option<Bytes>, IndexError> {
    let bytes = match part.kind {
        Kind::Node => rows::node(&*inner.index.reader()?, &part.cid)?.filter(|bytes| part.cid.verifies(bytes)),
        Kind::Leaf => crate::read::read_leaf(inner, &part.cid, part.len).ok(),
        Kind::Clone => None,
    };
    Ok(bytes.filter(|bytes| bytes.len() == part.len as usize))
}

/// Deletes a segment of which nothing is needed.
fn doom(inner: &Inner, segment: &SegmentRow) -> Result<(), SegmentError> {
    let row = segment.file;
    inner.index.writer.run(move |tx| table::doom(tx, row))?;
    delete(inner, segment)
}

/// Deletes the file of a segment that is dying, then its row.
fn delete(inner: &Inner, segment: &SegmentRow) -> Result<(), SegmentError> {
    inner.files.forget(segment.file);
    let path: PathBuf = folder(inner).join(&segment.name);
    match inner.backend.remove_file(&path) {
        Ok(()) => {}
        Err(e) if fs::is_gone(&e) => {}
        // It is in use, on a system that minds: next time.
        Err(e) => {
            tracing::warn!("{path:?} cannot be deleted: {e}");
            return Ok(());
        }
    }
    // Without its row, a file that a power cut brings back would stay for ever.
    let folder = folder(inner);
    if let Err(e) = inner.backend.sync_dir(&folder)
        && !fs::is_gone(&e)
    {
        return Err(SegmentError::Io {
            path: folder,
            source: e,
        });
    }
    let row = segment.file;
    inner.index.writer.run(move |tx| table::forget(tx, row))?;
    Ok(())
}
