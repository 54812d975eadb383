//! Writing a shared pack into the index and the home's plain files.
//!
//! Files go in with their leaves, some thousands of rows a transaction, so that the writer serves others in between; a crash leaves rows that the next
//! share uses. The last transaction makes the pack.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
};

use bytes::Bytes;
use modswarm_protocol::{
    Cid,
    format::{BuiltContent, PackPath, PieceSet},
};
use rusqlite::Transaction;

use super::{FileChange, SharedPack, scan::Scan};
use crate::{
    backend::Identity,
    choice,
    download::Conflicts,
    error::{IndexError, ShareError},
    fs,
    index::rows::{self, FileState, LeafRow, NewFile, PackRow},
    observer::{Meter, Stage},
    packs::{NetworkId, Origin, PackId, PackRecord, PackState},
    segments, skeletons,
    store::Inner,
};

/// Leaf rows of one transaction.
const ROWS_MAX: usize = 50_000;
/// Bytes of nodes of one transaction.
const NODE_BYTES_MAX: usize = 16 << 20;
/// Places of one leaf in one pack that the index keeps; a leaf of zeros may have a hundred thousand.
pub(crate) const PLACES_MAX: u8 = 16;

pub(super) struct Commit {
    pub(super) shared: SharedPack,
    /// Whether its blocks are to be copied into segments.
    pub(super) copied: bool,
    pub(super) network: NetworkId,
    pub(super) scan: Scan,
    pub(super) files: Vec<FileChange>,
    pub(super) profile: String,
    pub(super) built: BuiltContent,
    pub(super) pack_blocks: Vec<(Cid, Bytes)>,
    pub(super) manifest_bytes: Vec<u8>,
    pub(super) origin: Origin,
    /// In seconds since 1970; now if it is none.
    pub(super) created: Option<u64>,
}

/// A file to insert, with `(prefix, offset, len)` of its leaves.
struct FileInsert {
    at: usize,
    path: Vec<u8>,
    identity: Identity,
    seen: i64,
    cid: Cid,
    leaves: Vec<(i64, u64, u32)>,
    /// The row that it has already.
    row: Option<i64>,
    /// The row that said something else of the same place.
    instead_of: Option<i64>,
}

pub(super) fn commit(inner: &Inner, job: Commit, meter: &Meter<'_>) -> Result<SharedPack, ShareError> {
    let Commit {
        mut shared,
        copied,
        network,
        scan,
        files,
        profile,
        built,
        pack_blocks,
        manifest_bytes,
        origin,
        created,
    } = job;
    // From here on no segment is deleted that this pack will need.
    let _alone = copied.then(|| inner.segments.alone());
    if let Some(alone) = &_alone {
        copy(inner, alone, &shared, network, &scan, &built, &pack_blocks, meter)?;
        meter.stage(Stage::Indexing, 0, scan.files.len() as u64);
    }
    let _together = inner.upkeep.read().unwrap_or_else(std::sync::PoisonError::into_inner);
    let skeleton = built.nodes.iter().chain(&pack_blocks);
    let of_home = |source| IndexError::of_home(&inner.lock.pack_dir(&shared.pack), &source);
    skeletons::keep(&*inner.backend, &inner.lock, &shared.pack, skeleton).map_err(of_home)?;
    put_nodes(inner, built.nodes)?;
    let ids = put_files(inner, &scan, files, &profile, meter)?;

    let plain = inner.lock.pack_dir(&shared.pack).join("pack.json");
    crate::home::write_plain(&*inner.backend, &plain, &manifest_bytes).map_err(of_home)?;

    let by_path: HashMap<&PackPath, usize> = scan.files.iter().enumerate().map(|(at, f)| (&f.path, at)).collect();
    let numbered: Vec<i64> = built
        .content
        .files()
        .map(|file| {
            let at = by_path
                .get(&file.path())
                .expect("the builder gives back what it was given");
            ids[*at]
        })
        .collect();
    let map = built.content.map().clone();
    let (former, supersede) = superseded(inner, &scan, &shared, &map)?;
    let record = PackRecord {
        id: PackId(0),
        pack: Some(shared.pack),
        content: shared.content,
        name: shared.manifest.name.as_str().to_owned(),
        network,
        path: scan.shared.clone(),
        origin,
        state: PackState::Whole,
        files: shared.files,
        bytes: shared.bytes,
        pieces: map.len(),
        pieces_here: map.len(),
        piece_bytes: map.bytes(),
        piece_bytes_here: map.bytes(),
        partial: false,
        kept: 0,
        created: created.unwrap_or_else(crate::packs::now_secs),
        pinned: false,
        used: crate::packs::now_secs(),
        copied,
    };
    let mut place = record.clone();
    let root = fs::path_bytes(&scan.root).to_owned();
    let id = inner.index.writer.run(move |tx| -> Result<PackId, IndexError> {
        let root = rows::root_id(tx, &root)?;
        rows::put_nodes(tx, &pack_blocks)?;
        put_pack(tx, record, root, &numbered, &supersede)
    })?;
    shared.id = id;
    inner.forget_withdrawn(&shared.content);
    place.id = id;
    choice::remember(inner, &place).map_err(|source| IndexError::of_home(&place.path, &source))?;
    for record in &former {
        skeletons::retire(&*inner.backend, &inner.lock, record);
    }
    Ok(shared)
}

/// Copies what the pack is made of into segments.
#[allow(clippy::too_many_arguments, reason = "all of it is one caller's")]
fn copy(
    inner: &Inner,
    alone: &segments::Alone<'_>,
    shared: &SharedPack,
    network: NetworkId,
    scan: &Scan,
    built: &BuiltContent,
    pack_blocks: &[(Cid, Bytes)],
    meter: &Meter<'_>,
) -> Result<(), ShareError> {
    let places: HashMap<&PackPath, PathBuf> = scan
        .files
        .iter()
        .map(|found| (&found.path, scan.root.join(&found.place)))
        .collect();
    let files = built.content.files();
    let known = rows::packs_of(&*inner.index.reader()?, &shared.pack)?;
    let has_nodes = known
        .iter()
        .any(|row| row.record.copied && row.record.network == network);
    let nodes = if has_nodes {
        Vec::new()
    } else {
        built.nodes.iter().chain(pack_blocks).collect()
    };
    let job = segments::Job {
        network,
        content: &built.content,
        paths: files
            .map(|file| places.get(&file.path()).cloned().unwrap_or_default())
            .collect(),
        nodes,
    };
    Ok(segments::copy(inner, alone, &job, meter)?)
}

fn put_nodes(inner: &Inner, nodes: Vec<(Cid, Bytes)>) -> Result<(), IndexError> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    let mut known = nodes.into_iter().peekable();
    while let Some(node) = known.next() {
        bytes += node.1.len();
        batch.push(node);
        if bytes >= NODE_BYTES_MAX || known.peek().is_none() {
            bytes = 0;
            let batch = std::mem::take(&mut batch);
            inner.index.writer.run(move |tx| rows::put_nodes(tx, &batch))?;
        }
    }
    Ok(())
}

/// Gives every file of the scan its row; returns their numbers in the scan's order.
fn put_files(
    inner: &Inner,
    scan: &Scan,
    files: Vec<FileChange>,
    profile: &str,
    meter: &Meter<'_>,
) -> Result<Vec<i64>, ShareError> {
    let mut ids = vec![0; files.len()];
    let mut batch: Vec<FileInsert> = Vec::new();
    let mut rows_in_batch = 0;
    let mut places: HashMap<i64, u8> = HashMap::new();
    let root = fs::path_bytes(&scan.root).to_owned();
    let flush = |batch: &mut Vec<FileInsert>, ids: &mut Vec<i64>| {
        if batch.is_empty() {
            return Ok(());
        }
        if meter.cancelled() {
            return Err(ShareError::Cancelled);
        }
        let batch = std::mem::take(batch);
        let (root, profile) = (root.clone(), profile.to_owned());
        let put = move |tx: &Transaction<'_>| put_batch(tx, &root, &profile, &batch);
        for (at, id) in inner.index.writer.run(put)? {
            ids[at] = id;
        }
        Ok(())
    };
    for (at, (found, change)) in scan.files.iter().zip(files).enumerate() {
        let (hashed, cid, row, instead_of) = match change {
            FileChange::Keep(id) => {
                ids[at] = id;
                meter.add_file();
                continue;
            }
            FileChange::Refresh(row, cid, hashed) => (hashed, cid, Some(row), None),
            FileChange::New {
                hashed,
                cid,
                instead_of,
            } => (hashed, cid, None, instead_of),
        };
        let mut leaves = Vec::with_capacity(hashed.leaves.len());
        let mut seen = HashSet::new();
        let mut offset = 0;
        for leaf in &hashed.leaves {
            let prefix = leaf.cid.prefix() as i64;
            let count = places.entry(prefix).or_default();
            if *count < PLACES_MAX && seen.insert(leaf.cid) {
                *count += 1;
                leaves.push((prefix, offset, leaf.len));
            }
            offset += u64::from(leaf.len);
        }
        rows_in_batch += leaves.len() + 1;
        batch.push(FileInsert {
            at,
            path: fs::path_bytes(&found.place).to_owned(),
            identity: hashed.identity,
            seen: hashed.seen,
            cid,
            leaves,
            row,
            instead_of,
        });
        meter.add_file();
        if rows_in_batch >= ROWS_MAX {
            rows_in_batch = 0;
            flush(&mut batch, &mut ids)?;
        }
    }
    flush(&mut batch, &mut ids)?;
    Ok(ids)
}

fn put_batch(
    tx: &Transaction<'_>,
    root: &[u8],
    profile: &str,
    batch: &[FileInsert],
) -> Result<Vec<(usize, i64)>, IndexError> {
    let root = rows::root_id(tx, root)?;
    let mut ids = Vec::with_capacity(batch.len());
    let mut leaves = Vec::new();
    for file in batch {
        if let Some(old) = file.instead_of {
            rows::delete_file(tx, old)?;
        }
        let new = NewFile {
            root,
            path: &file.path,
            stage: None,
            state: FileState::Whole,
            identity: file.identity,
            seen: file.seen,
            cid: file.cid,
            profile: Some(profile),
        };
        let id = match file.row {
            Some(id) => {
                rows::place_file(tx, id, &file.identity, file.seen)?;
                id
            }
            None => rows::insert_file(tx, &new)?,
        };
        leaves.extend(file.leaves.iter().map(|&(prefix, offset, len)| LeafRow {
            prefix,
            file: id,
            offset,
            len,
        }));
        ids.push((file.at, id));
    }
    leaves.sort_unstable();
    rows::insert_leaves(tx, &leaves)?;
    Ok(ids)
}

/// What stood at the same place, and which of its pieces survive in the new content.
pub(crate) struct Supersede {
    pub(crate) id: PackId,
    pub(crate) have: Vec<u8>,
    pub(crate) pieces: u32,
    pub(crate) bytes: u64,
}

fn superseded(
    inner: &Inner,
    scan: &Scan,
    shared: &SharedPack,
    map: &modswarm_protocol::format::PieceMap,
) -> Result<(Vec<PackRecord>, Vec<Supersede>), ShareError> {
    let conn = inner.index.reader()?;
    let rows = rows::packs_at(&conn, fs::path_bytes(&scan.shared))?;
    drop(conn);
    let old: Vec<PackRow> = rows
        .into_iter()
        .filter(|row| row.record.state != PackState::Downloading && row.record.pack != Some(shared.pack))
        .collect();
    if old.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let pieces = map.by_cid();
    let survives = |cid: &Cid| pieces.find(cid).is_some();
    let supersede = old.iter().filter_map(|row| surviving(inner, row, survives)).collect();
    Ok((old.into_iter().map(|row| row.record).collect(), supersede))
}

/// Which pieces of the pack `row` are among `survivors`. `None` if its file list cannot be read.
pub(crate) fn surviving(inner: &Inner, row: &PackRow, survives: impl Fn(&Cid) -> bool) -> Option<Supersede> {
    let content = inner.content(&row.record).ok()??;
    let had = rows::bits_from_bytes(row.have.as_deref(), content.map().len() as usize);
    let mut have: PieceSet = content.map().none();
    let (mut pieces, mut bytes) = (0, 0);
    for (index, leaf) in content.map().iter() {
        if had[index.as_usize()] && (row.record.copied || survives(&leaf.cid)) {
            have.set(index.as_usize(), true);
            pieces += 1;
            bytes += u64::from(leaf.len);
        }
    }
    Some(Supersede {
        id: row.record.id,
        have: rows::bits_to_bytes(&have),
        pieces,
        bytes,
    })
}

/// Marks packs as superseded; those of which nothing survives are forgotten.
pub(crate) fn apply_superseded(tx: &Transaction<'_>, supersede: &[Supersede]) -> Result<(), IndexError> {
    for old in supersede {
        // An unfinished download to the same folder is superseded as well.
        rows::end_stage(tx, old.id)?;
        if old.pieces == 0 {
            rows::delete_pack(tx, old.id)?;
        } else {
            rows::set_have(tx, old.id, Some(&old.have), old.pieces, old.bytes)?;
            rows::set_pack_state(tx, old.id, PackState::Superseded)?;
            tx.execute("DELETE FROM pack_files WHERE pack = ?1", [old.id.0])
                .map_err(IndexError::from)?;
        }
    }
    Ok(())
}

fn put_pack(
    tx: &Transaction<'_>,
    record: PackRecord,
    root: i64,
    files: &[i64],
    supersede: &[Supersede],
) -> Result<PackId, IndexError> {
    apply_superseded(tx, supersede)?;
    let same = rows::packs_at(tx, fs::path_bytes(&record.path))?
        .into_iter()
        .find(|row| row.record.pack == record.pack && row.record.state != PackState::Downloading);
    let id = match same {
        Some(row) => {
            rows::set_have(tx, row.record.id, None, record.pieces, record.piece_bytes)?;
            rows::set_pack_state(tx, row.record.id, PackState::Whole)?;
            rows::set_copied(tx, row.record.id, record.copied)?;
            rows::forget_kept(tx, row.record.id)?;
            tx.execute(
                "UPDATE packs SET network = ?2, selection = NULL, files = ?3, bytes = ?4 WHERE id = ?1",
                rusqlite::params![
                    row.record.id.0,
                    record.network,
                    record.files as i64,
                    record.bytes as i64
                ],
            )
            .map_err(IndexError::from)?;
            row.record.id
        }
        None => rows::insert_pack(
            tx,
            &PackRow {
                record,
                root,
                have: None,
                selection: None,
                stage: None,
                conflicts: Conflicts::default(),
            },
        )?,
    };
    if !rows::has_files(tx, id, files)? {
        tx.execute("DELETE FROM pack_files WHERE pack = ?1", [id.0])
            .map_err(IndexError::from)?;
        for (number, file) in files.iter().enumerate() {
            rows::insert_pack_file(tx, id, number as u32, *file)?;
        }
    }
    Ok(id)
}
