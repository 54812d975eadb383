//! Forgetting a pack, and deleting its files where that was asked for.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{PackId, PackState, Removed};
use crate::{
    backend::Backend,
    download::{RecoverError, clear_at, recover_pack},
    error::{IndexError, RemoveError},
    fs,
    index::rows::{self, FileRow, PackRow},
    observer::Meter,
    store::Inner,
};

pub(crate) fn remove_pack(inner: &Inner, id: PackId, delete_data: bool) -> Result<Removed, RemoveError> {
    let conn = inner.index.reader()?;
    let pack = rows::pack(&conn, id)?.ok_or(RemoveError::Unknown)?;
    if inner.open_download(id).is_some() {
        return Err(RemoveError::InUse);
    }
    drop(conn);
    // Files of the user's that an update was renaming are not to go with the staging folder.
    recover_pack(inner, id).map_err(|e| match e {
        RecoverError::Io { path, source } => RemoveError::Io { path, source },
        RecoverError::Index(e) => e.into(),
    })?;
    if delete_data && pack.record.state == PackState::Downloading {
        // What a crash kept from being written down is to go as well.
        let meter = Meter::new(&());
        if let Err(e) = crate::download::write_down(inner, &pack.record.path, None, &meter) {
            tracing::warn!("files that an unfinished download left may stay: {e}");
        }
    }
    let conn = inner.index.reader()?;
    let files = rows::files_of_pack(&conn, id)?;
    let root = rows::root_path(&conn, pack.root)?
        .map(fs::path_from)
        .unwrap_or_default();
    drop(conn);

    // The record goes first: after a crash in between, files are left that nobody claims, never a record of files that are gone.
    let own = forget(inner, &pack, &files)?;
    inner
        .lock
        .forget_place(&*inner.backend, &pack.record)
        .map_err(|source| RemoveError::Io {
            path: inner.lock.home().join("packs"),
            source,
        })?;
    let mut removed = Removed {
        record: pack.record.clone(),
        files_deleted: 0,
        files_kept: Vec::new(),
    };
    if let Some(stage) = &pack.stage {
        // Staged files are ours alone.
        let path = fs::path_from(stage.clone());
        if clear_at(&*inner.backend, &path).is_ok() {
            let stage = stage.clone();
            inner.index.writer.run(move |tx| rows::forget_stage(tx, &stage))?;
        }
    }
    if delete_data && pack.record.state != PackState::Superseded {
        // Folders that were empty from the start.
        let content = inner.content(&pack.record).ok().flatten();
        let dirs = content.iter().flat_map(|content| content.dirs());
        let dirs = dirs.filter(fs::can_create);
        let dirs = dirs.map(|dir| pack.record.path.join(dir.as_str())).collect();
        delete_files(
            &*inner.backend,
            &root,
            &pack.record.path,
            &files,
            &own,
            dirs,
            &mut removed,
        );
    }
    if pack.record.copied
        && let Some(alone) = inner.segments.try_alone()
        && let Err(e) = crate::segments::sweep(inner, &alone, &|| false)
    {
        // Clearing up does it.
        tracing::warn!("the copy of {:?} stays for now: {e:?}", pack.record.name);
    }
    Ok(removed)
}

/// Deletes the rows; returns the files that no other pack has.
fn forget(inner: &Inner, pack: &PackRow, files: &[(u32, FileRow)]) -> Result<BTreeSet<i64>, IndexError> {
    let id = pack.record.id;
    let ids: Vec<i64> = files.iter().map(|(_, file)| file.id).collect();
    for file in &ids {
        inner.files.forget(*file);
    }
    inner.index.writer.run(move |tx| {
        let mut own = BTreeSet::new();
        rows::delete_pack(tx, id)?;
        for file in ids {
            if rows::packs_of_file(tx, file)?.is_empty() {
                rows::delete_file(tx, file)?;
                own.insert(file);
            }
        }
        Ok(own)
    })
}

/// Deletes the files that are as the index knows them, and the folders that are empty then.
fn delete_files(
    backend: &dyn Backend,
    root: &Path,
    folder: &Path,
    files: &[(u32, FileRow)],
    own: &BTreeSet<i64>,
    mut parents: BTreeSet<PathBuf>,
    removed: &mut Removed,
) {
    for (_, file) in files.iter().filter(|(_, file)| file.stage.is_none()) {
        let path = root.join(fs::path_from(file.path.clone()));
        match backend.identity_at(&path) {
            Ok(Some(now)) if own.contains(&file.id) && file.identity.same_bytes(&now) => {
                match backend.remove_file(&path) {
                    Ok(()) => removed.files_deleted += 1,
                    Err(_) => removed.files_kept.push(path.clone()),
                }
            }
            Err(e) if fs::is_gone(&e) => {}
            _ => removed.files_kept.push(path.clone()),
        }
        let within = path.ancestors().skip(1).take_while(|dir| dir.starts_with(folder));
        parents.extend(within.map(Path::to_owned));
    }
    // Deepest first; one that is not empty stays.
    for dir in parents.iter().rev() {
        let _ = backend.remove_dir(dir);
    }
}
