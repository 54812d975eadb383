//! What the index knows of a destination before a download to it begins.

use std::{
    collections::{BTreeSet, VecDeque},
    path::{Path, PathBuf},
};

use bitvec::vec::BitVec;
use modswarm_protocol::{
    Cid,
    format::{Content, PackPath},
};
use rusqlite::Connection;

use super::{DownloadSpec, begin::resolve, staging_name};
use crate::{
    backend::Backend,
    error::{BeginError, IndexError},
    fs,
    index::rows::{self, FileRow, FileState, PackRow},
    packs::{Origin, PackId, PackState},
    store::Inner,
};

/// What the home knows of a destination. Files are looked up when they are asked for: there may be a million.
pub(super) struct Known {
    pub(super) destination: PathBuf,
    pub(super) stage: PathBuf,
    /// The record of this content at this place.
    pub(super) record: Option<PackRow>,
    /// The number of the destination, if the index has files there.
    root: Option<i64>,
    /// Rows of files that downloads put there, which an update may replace.
    pub(super) fetched: Rows,
    /// Those of them that are part of another version.
    pub(super) former: Rows,
    /// Files of the content, by number, in whose places the user kept his own.
    pub(super) kept: BTreeSet<u32>,
}

/// Numbers of rows, in ascending order.
#[derive(Debug, Default)]
pub(super) struct Rows(Vec<i64>);

impl Rows {
    pub(super) fn contains(&self, row: i64) -> bool {
        self.0.binary_search(&row).is_ok()
    }
}

impl FromIterator<i64> for Rows {
    fn from_iter<I: IntoIterator<Item = i64>>(rows: I) -> Self {
        let mut rows: Vec<i64> = rows.into_iter().collect();
        rows.sort_unstable();
        rows.dedup();
        rows.shrink_to_fit();
        Self(rows)
    }
}

impl Known {
    /// What the index has in place at `path` below the destination.
    pub(super) fn at_place(&self, conn: &Connection, path: &PackPath) -> Result<Option<FileRow>, IndexError> {
        match self.root {
            Some(root) => rows::file_at(conn, root, path.as_str().as_bytes()),
            None => Ok(None),
        }
    }

    /// Goes through all that the index has in place below the destination.
    pub(super) fn each_in_place(&self, conn: &Connection, each: impl FnMut(FileRow)) -> Result<(), IndexError> {
        match self.root {
            Some(root) => rows::each_file_of_root(conn, root, each),
            None => Ok(()),
        }
    }

    /// The files of this content at this place, to be asked for in ascending order.
    pub(super) fn files<'a>(&self, conn: &'a Connection) -> Files<'a> {
        Files {
            conn,
            pack: self.record.as_ref().map(|row| row.record.id),
            read: VecDeque::new(),
            next: 0,
        }
    }
}

/// See [`Known::files`].
pub(super) struct Files<'a> {
    conn: &'a Connection,
    pack: Option<PackId>,
    /// Some of them,…
    read: VecDeque<(u32, FileRow)>,
    /// …none of which has this number or a greater one.
    next: u32,
}

/// Files that are read together.
const AT_A_TIME: u32 = 1024;

impl Files<'_> {
    /// The row of the file of this number.
    pub(super) fn get(&mut self, number: u32) -> Result<Option<&FileRow>, IndexError> {
        let Some(pack) = self.pack else { return Ok(None) };
        while self.read.front().is_some_and(|(first, _)| *first < number) {
            self.read.pop_front();
        }
        if self.read.is_empty() && self.next <= number {
            let read = rows::files_of_pack_from(self.conn, pack, number, AT_A_TIME)?;
            let last = read.last().filter(|_| read.len() == AT_A_TIME as usize);
            self.next = last.map_or(u32::MAX, |(last, _)| last.saturating_add(1));
            self.read = read.into();
        }
        let first = self.read.front();
        Ok(first.filter(|(first, _)| *first == number).map(|(_, row)| row))
    }
}

pub(super) fn look_up(inner: &Inner, spec: &DownloadSpec) -> Result<Known, BeginError> {
    let destination = resolve(&*inner.backend, &spec.destination)?;
    let conn = inner.index.reader()?;
    let at_place = rows::packs_at(&conn, fs::path_bytes(&destination))?;
    if at_place.iter().any(|row| inner.open_download(row.record.id).is_some()) {
        return Err(BeginError::InUse(destination));
    }
    let (mut fetched, mut former) = (Vec::new(), Vec::new());
    for row in at_place.iter().filter(|row| row.record.origin == Origin::Fetched) {
        let files = rows::file_ids_of_pack(&conn, row.record.id)?;
        if row.record.content != spec.content && row.record.state != PackState::Superseded {
            former.extend(&files);
        }
        fetched.extend(files);
    }
    let record = at_place
        .into_iter()
        .find(|row| row.record.content == spec.content && row.record.state != PackState::Superseded);
    let kept = match &record {
        Some(row) => rows::kept(&conn, row.record.id)?.into_iter().collect(),
        None => BTreeSet::new(),
    };
    let stage = match record.as_ref().and_then(|row| row.stage.clone()) {
        Some(stage) => fs::path_from(stage),
        None => stage_for(&*inner.backend, &spec.content, &destination),
    };
    Ok(Known {
        root: rows::find_root(&conn, fs::path_bytes(&destination))?,
        destination,
        stage,
        record,
        fetched: fetched.into_iter().collect(),
        former: former.into_iter().collect(),
        kept,
    })
}

/// Next to the destination; in it, if it is the root of a file system of its own.
fn stage_for(backend: &dyn Backend, content: &Cid, destination: &Path) -> PathBuf {
    let name = staging_name(content, destination);
    match destination.parent() {
        Some(parent)
            if !backend.exists(destination) || backend.device(parent).ok() == backend.device(destination).ok() =>
        {
            parent.join(name)
        }
        _ => destination.join(name),
    }
}

/// What is asked for, and what an earlier download of the same content has put there.
pub(super) fn select(
    inner: &Inner,
    spec: &DownloadSpec,
    content: &Content,
    known: &Known,
) -> Result<BitVec, IndexError> {
    let files = content.files().len();
    let Some(asked) = &spec.selection else {
        return Ok(BitVec::repeat(true, files));
    };
    let mut selected: BitVec = (0..files)
        .map(|number| asked.get(number).is_some_and(|bit| *bit))
        .collect();
    if let Some(row) = &known.record {
        rows::each_file_of_pack(&*inner.index.reader()?, row.record.id, 0, u32::MAX, |number, row| {
            if row.stage.is_none()
                && row.state == FileState::Whole
                && let Some(mut bit) = selected.get_mut(number as usize)
            {
                *bit = true;
            }
        })?;
    }
    Ok(selected)
}
