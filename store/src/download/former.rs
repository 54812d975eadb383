//! Files of a former version that the new one does not have: deleted where nobody has changed them.
//!
//! Which they are is written down in the transaction that makes the new version whole (`former`), so that a crash between that and the deletion leaves
//! nothing behind: the next opening of the store goes on.

use std::{
    collections::{BTreeSet, HashSet},
    path::{Path, PathBuf},
};

use modswarm_protocol::format::PackPath;
use rusqlite::Transaction;

use crate::{
    error::IndexError,
    fs,
    index::rows::{self, FileRow},
    packs::PackState,
    store::Inner,
};

/// What became of them.
#[derive(Debug, Default)]
pub(super) struct Swept {
    pub(super) removed: Vec<PackPath>,
    pub(super) kept: Vec<PackPath>,
}

/// Writes down that a file is to be deleted.
pub(super) fn note(tx: &Transaction<'_>, file: i64) -> Result<(), IndexError> {
    tx.prepare_cached("INSERT OR IGNORE INTO former (file) VALUES (?1)")?
        .execute([file])?;
    Ok(())
}

/// Goes on with what a crash left, in all folders. When the store is opened.
pub(crate) fn recover(inner: &Inner) -> Result<(), IndexError> {
    let conn = inner.index.reader()?;
    let mut statement = conn.prepare("SELECT DISTINCT f.root FROM former o JOIN files f ON f.id = o.file")?;
    let roots: Vec<i64> = statement
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    drop(statement);
    drop(conn);
    for root in roots {
        sweep(inner, root)?;
    }
    Ok(())
}

/// Deletes what was written down of the folder `root`, and folders that this leaves empty.
pub(super) fn sweep(inner: &Inner, root: i64) -> Result<Swept, IndexError> {
    let conn = inner.index.reader()?;
    let Some(folder) = rows::root_path(&conn, root)?.map(fs::path_from) else {
        return Ok(Swept::default());
    };
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {} FROM former o JOIN files f ON f.id = o.file WHERE f.root = ?1",
        FileRow::COLUMNS
    ))?;
    let files: Vec<FileRow> = statement
        .query_map([root], FileRow::read)?
        .collect::<rusqlite::Result<_>>()?;
    drop(statement);
    drop(conn);
    let mut swept = Swept::default();
    if files.is_empty() {
        return Ok(swept);
    }
    let own_dirs = own_dirs(inner, &folder)?;
    let mut parents: BTreeSet<PathBuf> = BTreeSet::new();
    let (mut gone, mut done) = (Vec::new(), Vec::new());
    for file in files {
        let place = fs::path_from(file.path.clone());
        let path = folder.join(&place);
        let named = fs::pack_path(&place);
        let between = place.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty());
        inner.files.forget(file.id);
        match inner.backend.identity_at(&path) {
            Ok(Some(now)) if file.identity.same_bytes(&now) => match inner.backend.remove_file(&path) {
                Ok(()) => {
                    swept.removed.extend(named);
                    gone.push(file.id);
                    parents.extend(between.map(Path::to_owned));
                }
                // Another time.
                Err(_) => swept.kept.extend(named),
            },
            Ok(_) => {
                swept.kept.extend(named);
                done.push(file.id);
            }
            Err(e) if fs::is_gone(&e) => {
                gone.push(file.id);
                parents.extend(between.map(Path::to_owned));
            }
            Err(_) => swept.kept.extend(named),
        }
    }
    for dir in parents.iter().rev() {
        if !dir.to_str().is_some_and(|dir| own_dirs.contains(dir)) {
            let _ = inner.backend.remove_dir(&folder.join(dir));
        }
    }
    // Before it is forgotten what was to go, it must be gone for good.
    for dir in parents.iter().map(|dir| folder.join(dir)).chain([folder.clone()]) {
        match inner.backend.sync_dir(&dir) {
            Err(e) if !fs::is_gone(&e) => {
                tracing::warn!("what was deleted in {dir:?} is not durable yet: {e}");
                return Ok(swept);
            }
            _ => {}
        }
    }
    inner.index.writer.run(move |tx| -> Result<(), IndexError> {
        for file in gone.iter().chain(&done) {
            tx.prepare_cached("DELETE FROM former WHERE file = ?1")?
                .execute([file])?;
        }
        gone.iter().try_for_each(|file| rows::delete_file(tx, *file))
    })?;
    Ok(swept)
}

/// The folders that the packs at `folder` have.
fn own_dirs(inner: &Inner, folder: &Path) -> Result<HashSet<String>, IndexError> {
    let packs = rows::packs_at(&*inner.index.reader()?, fs::path_bytes(folder))?;
    let whole = packs.iter().filter(|row| row.record.state == PackState::Whole);
    let contents = whole.filter_map(|row| inner.content(&row.record).ok().flatten());
    Ok(contents
        .flat_map(|content| content.dirs().map(|dir| dir.to_string()).collect::<Vec<_>>())
        .collect())
}
