//! What the index knows of a destination before a download to it begins.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use bitvec::vec::BitVec;
use modswarm_protocol::{Cid, format::Content};

use super::{DownloadSpec, begin::resolve, staging_name};
use crate::{
    backend::Backend,
    error::BeginError,
    fs,
    index::rows::{self, FileRow, FileState, PackRow},
    packs::{Origin, PackState},
    store::Inner,
};

/// What the home knows of a destination.
pub(super) struct Known {
    pub(super) destination: PathBuf,
    pub(super) stage: PathBuf,
    /// The record of this content at this place.
    pub(super) record: Option<PackRow>,
    /// Its files, by number.
    pub(super) files: HashMap<u32, FileRow>,
    /// What the index has in place below the destination.
    pub(super) by_place: HashMap<Vec<u8>, FileRow>,
    /// Rows of files that downloads put there, which an update may replace.
    pub(super) fetched: BTreeSet<i64>,
    /// Those of them that are part of another version.
    pub(super) former: BTreeSet<i64>,
    /// Files of the content, by number, in whose places the user kept his own.
    pub(super) kept: BTreeSet<u32>,
}

pub(super) fn look_up(inner: &Inner, spec: &DownloadSpec) -> Result<Known, BeginError> {
    let destination = resolve(&*inner.backend, &spec.destination)?;
    let conn = inner.index.reader()?;
    let at_place = rows::packs_at(&conn, fs::path_bytes(&destination))?;
    if at_place.iter().any(|row| inner.open_download(row.record.id).is_some()) {
        return Err(BeginError::InUse(destination));
    }
    let (mut fetched, mut former) = (BTreeSet::new(), BTreeSet::new());
    for row in at_place.iter().filter(|row| row.record.origin == Origin::Fetched) {
        let other = row.record.content != spec.content && row.record.state != PackState::Superseded;
        for (_, file) in rows::files_of_pack(&conn, row.record.id)? {
            fetched.insert(file.id);
            if other {
                former.insert(file.id);
            }
        }
    }
    let record = at_place
        .into_iter()
        .find(|row| row.record.content == spec.content && row.record.state != PackState::Superseded);
    let files = match &record {
        Some(row) => rows::files_of_pack(&conn, row.record.id)?.into_iter().collect(),
        None => HashMap::new(),
    };
    let kept = match &record {
        Some(row) => rows::kept(&conn, row.record.id)?.into_iter().collect(),
        None => BTreeSet::new(),
    };
    let by_place = match rows::find_root(&conn, fs::path_bytes(&destination))? {
        Some(root) => rows::files_of_root(&conn, root)?
            .into_iter()
            .map(|row| (row.path.clone(), row))
            .collect(),
        None => HashMap::new(),
    };
    let stage = match record.as_ref().and_then(|row| row.stage.clone()) {
        Some(stage) => fs::path_from(stage),
        None => stage_for(&*inner.backend, &spec.content, &destination),
    };
    Ok(Known {
        destination,
        stage,
        record,
        files,
        by_place,
        fetched,
        former,
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
pub(super) fn select(spec: &DownloadSpec, content: &Content, known: &Known) -> BitVec {
    let files = content.files().len();
    let Some(asked) = &spec.selection else {
        return BitVec::repeat(true, files);
    };
    let placed = |number: usize| {
        let row = known.files.get(&(number as u32));
        row.is_some_and(|row| row.stage.is_none() && row.state == FileState::Whole)
    };
    (0..files)
        .map(|number| asked.get(number).is_some_and(|bit| *bit) || placed(number))
        .collect()
}
