//! Making the index of segments anew from the segments themselves.

use std::collections::HashMap;

use bytes::Bytes;
use modswarm_protocol::{
    Cid,
    format::{Content, MAX_BLOCK_LEN, PieceSet},
};
use rayon::prelude::*;

use super::{
    SegmentError, folder, number_of,
    record::{FILE_HEADER, Kind, Record, Records, read_file_header},
};
use crate::{
    download::Conflicts,
    error::IndexError,
    fs,
    home::PlaceFile,
    index::rows::{self, LeafRow, PackRow, segments as table},
    observer::{Meter, Stage},
    packs::{NetworkId, PackId, PackRecord, PackState},
    store::Inner,
};

/// Nodes of one transaction.
const NODES_MAX: usize = 1024;

/// What a segment holds.
struct Found {
    name: String,
    network: NetworkId,
    len: u64,
    leaves: Vec<(i64, u64, u32)>,
    clones: Vec<Record>,
}

/// Puts every segment of the home's folder, and what it holds, into an index that knows of none. Every byte is read and hashed. Durable.
pub(crate) fn adopt(inner: &Inner, meter: &Meter<'_>) -> Result<(), SegmentError> {
    let folder = folder(inner);
    let names: Vec<(String, u64)> = inner
        .backend
        .read_dir(&folder)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(name, entry)| match entry {
            crate::backend::Entry::File(now) => Some((name.into_string().ok()?, now.size)),
            _ => None,
        })
        .filter(|(name, _)| number_of(name).is_some())
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    meter.stage(
        Stage::Checking,
        names.iter().map(|(_, size)| size).sum(),
        names.len() as u64,
    );
    let found: Vec<Option<Found>> = inner.pool.install(|| {
        let read = names
            .par_iter()
            .map(|(name, size)| read_segment(inner, name, *size, meter));
        read.collect::<Result<_, _>>()
    })?;
    let root = fs::path_bytes(&folder).to_owned();
    let mut clones: HashMap<i64, Vec<Record>> = HashMap::new();
    for mut segment in found.into_iter().flatten() {
        let (root, of_segment) = (root.clone(), std::mem::take(&mut segment.clones));
        let file = inner.index.writer.run(move |tx| -> Result<i64, IndexError> {
            let root = rows::root_id(tx, &root)?;
            let file = table::insert(tx, root, &segment.name, &segment.network)?;
            insert(tx, file, &mut segment.leaves)?;
            table::set_len(tx, file, segment.len)?;
            Ok(file)
        })?;
        clones.insert(file, of_segment);
    }
    // The nodes of cloned files may be in later segments.
    for (file, clones) in clones {
        for clone in clones {
            adopt_clone(inner, file, &clone, meter)?;
        }
    }
    Ok(())
}

fn insert(conn: &rusqlite::Connection, file: i64, leaves: &mut Vec<(i64, u64, u32)>) -> Result<(), IndexError> {
    leaves.sort_unstable();
    let row = |(prefix, offset, len): (i64, u64, u32)| LeafRow {
        prefix,
        file,
        offset,
        len,
    };
    rows::insert_leaves(conn, &leaves.drain(..).map(row).collect::<Vec<_>>())
}

/// Reads one segment, and keeps its nodes; `None` if it is none.
fn read_segment(inner: &Inner, name: &str, size: u64, meter: &Meter<'_>) -> Result<Option<Found>, SegmentError> {
    let path = folder(inner).join(name);
    let failed = |source| SegmentError::Io {
        path: path.clone(),
        source,
    };
    let file = inner.backend.open(&path).map_err(failed)?;
    let Some(network) = read_file_header(&*file).map_err(failed)? else {
        return Ok(None);
    };
    let mut found = Found {
        name: name.to_owned(),
        network,
        len: FILE_HEADER,
        leaves: Vec::new(),
        clones: Vec::new(),
    };
    let mut nodes: Vec<(Cid, Bytes)> = Vec::new();
    let mut buf = Vec::new();
    let mut records = Records::new(&*file, size);
    loop {
        let record = match records.next() {
            Some(record) => record.map_err(failed)?,
            // Behind a header that has rotted there may be more.
            None if records.skip_damage().map_err(failed)? => continue,
            None => break,
        };
        if meter.cancelled() {
            return Err(SegmentError::Cancelled);
        }
        found.len = record.end();
        if record.kind == Kind::Clone {
            found.clones.push(record);
            continue;
        }
        debug_assert!(record.len <= MAX_BLOCK_LEN as u64, "records are bounded");
        buf.resize(record.len as usize, 0);
        file.read_exact_at(&mut buf, record.at).map_err(failed)?;
        meter.add_bytes(record.len, record.len);
        if !record.cid.verifies(&buf) {
            continue;
        }
        if record.kind == Kind::Leaf {
            found
                .leaves
                .push((record.cid.prefix() as i64, record.at, record.len as u32));
        } else {
            nodes.push((record.cid, Bytes::copy_from_slice(&buf)));
            if nodes.len() >= NODES_MAX {
                put(inner, &mut nodes)?;
            }
        }
    }
    put(inner, &mut nodes)?;
    meter.add_file();
    Ok(Some(found))
}

fn put(inner: &Inner, nodes: &mut Vec<(Cid, Bytes)>) -> Result<(), IndexError> {
    let nodes = std::mem::take(nodes);
    inner.index.writer.run(move |tx| rows::put_nodes(tx, &nodes))
}

/// Names the leaves of a cloned file that are right.
fn adopt_clone(inner: &Inner, row: i64, clone: &Record, meter: &Meter<'_>) -> Result<(), SegmentError> {
    let Ok(leaves) = crate::share::leaves_of(inner, &clone.cid, clone.len) else {
        return Ok(());
    };
    let Some((_, root, _)) = rows::file_and_place(&*inner.index.reader()?, row)? else {
        return Ok(());
    };
    let segments = table::all(&*inner.index.reader()?)?;
    let Some(segment) = segments.into_iter().find(|segment| segment.file == row) else {
        return Ok(());
    };
    let path = root.join(&segment.name);
    let failed = |source| SegmentError::Io {
        path: path.clone(),
        source,
    };
    let file = inner.backend.open(&path).map_err(failed)?;
    let mut right = Vec::new();
    let mut at = clone.at;
    let mut buf = Vec::new();
    for leaf in leaves {
        buf.resize(leaf.len as usize, 0);
        if at + u64::from(leaf.len) > clone.end() {
            break;
        }
        file.read_exact_at(&mut buf, at).map_err(failed)?;
        meter.add_bytes(u64::from(leaf.len), u64::from(leaf.len));
        if leaf.cid.verifies(&buf) {
            right.push((leaf.cid.prefix() as i64, at, leaf.len));
        }
        at += u64::from(leaf.len);
    }
    inner.index.writer.run(move |tx| insert(tx, row, &mut right))?;
    Ok(())
}

/// Makes the record of a copied pack anew from what segments hold of its content; `None` if it says no network. Durable.
pub(crate) fn restore(
    inner: &Inner,
    place: &PlaceFile,
    path: &std::path::Path,
    content: &Content,
    superseded: bool,
) -> Result<Option<PackRecord>, IndexError> {
    let Some(network) = place.network() else {
        return Ok(None);
    };
    let map = content.map();
    let mut have: PieceSet = map.none();
    let (mut pieces, mut bytes) = (0, 0);
    for (index, leaf) in map.iter() {
        if !super::places(inner, &network, &leaf.cid, leaf.len)?.is_empty() {
            have.set(index.as_usize(), true);
            pieces += 1;
            bytes += u64::from(leaf.len);
        }
    }
    let record = PackRecord {
        id: PackId(0),
        pack: place.pack,
        content: place.content,
        name: place.name.clone(),
        network,
        path: path.to_owned(),
        origin: place.origin(),
        state: if superseded {
            PackState::Superseded
        } else {
            PackState::Whole
        },
        files: content.files().len() as u64,
        bytes: content.bytes(),
        pieces: map.len(),
        pieces_here: pieces,
        piece_bytes: map.bytes(),
        piece_bytes_here: bytes,
        partial: false,
        kept: 0,
        created: place.created,
        pinned: false,
        used: crate::packs::now_secs(),
        copied: true,
    };
    let mut row = PackRow {
        record: record.clone(),
        root: 0,
        have: (!have.all()).then(|| rows::bits_to_bytes(&have)),
        selection: None,
        stage: None,
        conflicts: Conflicts::default(),
    };
    let root = fs::path_bytes(path).to_owned();
    let id = inner.index.writer.run(move |tx| -> Result<PackId, IndexError> {
        row.root = rows::root_id(tx, &root)?;
        rows::insert_pack(tx, &row)
    })?;
    Ok(Some(PackRecord { id, ..record }))
}
