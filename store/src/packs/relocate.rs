//! Moving a pack to another folder, on the same disk or another, or following it to where the user has moved it.
//!
//! On the same disk the folder is renamed, with all that is in it. To another disk the pack's files are copied, read back and verified, and only then
//! deleted where they were. The index keeps a journal (`moves`), by which [`recover`] brings a move that was cut off to one of its two ends: the pack is
//! always whole in one place, and the index knows which.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use modswarm_protocol::format::Content;
use rusqlite::{Transaction, params};

use super::{PackId, PackState, verify::verify_pack};
use crate::{
    backend::{Backend, BackendDir, BackendFile, Identity},
    choice,
    download::staging_name,
    error::{IndexError, MoveError},
    fs,
    index::rows::{self, FileRow, PackRow},
    observer::{Meter, Observer, Stage},
    store::Inner,
};

/// Bytes copied at once.
const CHUNK: usize = 1 << 20;

/// What [`crate::Store::move_pack`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Where the pack was.
    pub from: PathBuf,
    /// Where it is.
    pub to: PathBuf,
    /// Bytes that were copied to another disk; 0 where a rename was enough.
    pub bytes_copied: u64,
    /// Files of the pack that stayed behind as well, since their copies are not as the pack has them, or since they changed meanwhile.
    pub left: Vec<PathBuf>,
}

/// A file that was copied, as it was and as it is.
struct Copied {
    row: i64,
    source: PathBuf,
    before: Identity,
    copy: Identity,
    seen: i64,
}

pub(crate) fn move_pack(inner: &Inner, id: PackId, target: &Path, observer: &dyn Observer) -> Result<Moved, MoveError> {
    let alone = inner.upkeep.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    let backend = &*inner.backend;
    let conn = inner.index.reader()?;
    let pack = rows::pack(&conn, id)?.ok_or(MoveError::Unknown)?;
    let from = pack.record.path.clone();
    let going = rows::packs_at(&conn, fs::path_bytes(&from))?;
    if going.iter().any(|row| row.record.state == PackState::Downloading) {
        return Err(MoveError::Unfinished);
    }
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| MoveError::Io { path, source }
    };
    let absolute = std::path::absolute(target).map_err(io(target))?;
    let name = absolute
        .file_name()
        .ok_or_else(|| MoveError::NoName(absolute.clone()))?
        .to_owned();
    let above = absolute.parent().unwrap_or(Path::new("/"));
    backend.create_dirs_durably(above).map_err(io(above))?;
    let above = backend.resolve(above).map_err(io(above))?;
    let to = above.join(name);
    if to == from {
        return Err(MoveError::SamePlace(to));
    }
    if to.starts_with(&from) || from.starts_with(&to) {
        return Err(MoveError::Nested { from, to });
    }
    let nested = rows::packs(&conn)?
        .into_iter()
        .find(|row| row.record.path != from && row.record.path.starts_with(&from));
    if let Some(row) = nested {
        return Err(MoveError::Holds(row.record.path));
    }
    drop(conn);

    let there = backend.exists(&to);
    if !backend.exists(&from) {
        if !there {
            return Err(MoveError::Nowhere { from, to });
        }
        // The user has moved it: follow.
        rebind(inner, &going, &from, &to, Vec::new())?;
        drop(alone);
        for row in &going {
            verify_pack(inner, row.record.id, observer)?;
        }
        return Ok(Moved {
            from,
            to,
            bytes_copied: 0,
            left: Vec::new(),
        });
    }
    if there && backend.remove_dir(&to).is_err() {
        return Err(MoveError::Occupied(to));
    }
    let renamed = backend.device(&from).ok() == backend.device(&above).ok() && rename(inner, id, &going, &from, &to)?;
    if renamed {
        return Ok(Moved {
            from,
            to,
            bytes_copied: 0,
            left: Vec::new(),
        });
    }
    let copied = copy_over(inner, &pack, &going, &from, &to, observer)?;
    drop(alone);
    leave(inner, &going, from, to, copied, observer)
}

/// Whether the folder could be renamed.
fn rename(inner: &Inner, id: PackId, going: &[PackRow], from: &Path, to: &Path) -> Result<bool, MoveError> {
    // Some systems do not rename a folder of which a file is open.
    let conn = inner.index.reader()?;
    for row in going {
        for (_, file) in rows::files_of_pack(&conn, row.record.id)? {
            inner.files.forget(file.id);
        }
    }
    drop(conn);
    begin_journal(inner, id, from, to, false)?;
    match inner.backend.replace(from, to) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {
            end_journal(inner, id)?;
            return Ok(false);
        }
        Err(source) => {
            end_journal(inner, id)?;
            return Err(MoveError::Io {
                path: from.to_owned(),
                source,
            });
        }
    }
    for parent in [from.parent(), to.parent()].into_iter().flatten() {
        inner.backend.sync_dir(parent).map_err(|source| MoveError::Io {
            path: parent.to_owned(),
            source,
        })?;
    }
    rebind(inner, going, from, to, Vec::new())?;
    Ok(true)
}

fn begin_journal(inner: &Inner, id: PackId, from: &Path, to: &Path, copied: bool) -> Result<(), IndexError> {
    let (from, to) = (fs::path_bytes(from).to_owned(), fs::path_bytes(to).to_owned());
    inner.index.writer.run(move |tx| {
        tx.execute(
            "INSERT OR REPLACE INTO moves (pack, source, target, copied) VALUES (?1, ?2, ?3, ?4)",
            params![id.0, from, to, copied],
        )?;
        Ok(())
    })
}

fn end_journal(inner: &Inner, id: PackId) -> Result<(), IndexError> {
    inner.index.writer.run(move |tx| {
        tx.execute("DELETE FROM moves WHERE pack = ?1", [id.0])?;
        Ok(())
    })
}

/// Says of all records at `from` that they are at `to`, and ends the journal.
fn rebind(
    inner: &Inner,
    going: &[PackRow],
    from: &Path,
    to: &Path,
    copied: Vec<(i64, Identity, i64)>,
) -> Result<(), MoveError> {
    let is_file = matches!(inner.backend.identity_at(to), Ok(Some(_)));
    let root = if is_file { to.parent().unwrap_or(to) } else { to };
    let (root, place) = (fs::path_bytes(root).to_owned(), fs::path_bytes(to).to_owned());
    let name = is_file
        .then(|| to.file_name().map(|name| fs::name_bytes(name).to_owned()))
        .flatten();
    let ids: Vec<PackId> = going.iter().map(|row| row.record.id).collect();
    inner.index.writer.run(move |tx: &Transaction<'_>| -> Result<(), IndexError> {
        let root = rows::root_id(tx, &root)?;
        for id in &ids {
            tx.execute(
                "UPDATE files SET root = ?2 WHERE stage IS NULL AND id IN (SELECT file FROM pack_files WHERE pack = ?1)",
                params![id.0, root],
            )?;
            if let Some(name) = &name {
                tx.execute(
                    "UPDATE files SET path = ?2 WHERE id IN (SELECT file FROM pack_files WHERE pack = ?1)",
                    params![id.0, name],
                )?;
            }
            tx.execute(
                "UPDATE packs SET root = ?2, place = ?3 WHERE id = ?1",
                params![id.0, root, place],
            )?;
            tx.execute("DELETE FROM moves WHERE pack = ?1", [id.0])?;
        }
        for (row, identity, seen) in &copied {
            rows::place_file(tx, *row, identity, *seen)?;
        }
        Ok(())
    })?;
    let conn = inner.index.reader()?;
    for id in going.iter().map(|row| row.record.id) {
        for (_, file) in rows::files_of_pack(&conn, id)? {
            inner.files.forget(file.id);
        }
        if let Some(row) = rows::pack(&conn, id)? {
            choice::remember(inner, &row.record).map_err(|source| MoveError::Io {
                path: inner.lock.home().to_owned(),
                source,
            })?;
        }
    }
    tracing::debug!(?from, ?to, "moved");
    Ok(())
}

/// Where the copy is made before it gets its name.
fn stage_of(pack: &PackRow, to: &Path) -> PathBuf {
    let above = to.parent().unwrap_or(Path::new("/"));
    above.join(staging_name(&pack.record.content, to))
}

/// Copies the files of all records at `from`; returns what was copied.
fn copy_over(
    inner: &Inner,
    pack: &PackRow,
    going: &[PackRow],
    from: &Path,
    to: &Path,
    observer: &dyn Observer,
) -> Result<Vec<Copied>, MoveError> {
    let meter = Meter::new(observer);
    let conn = inner.index.reader()?;
    let mut files: Vec<FileRow> = Vec::new();
    for row in going {
        files.extend(
            rows::files_of_pack(&conn, row.record.id)?
                .into_iter()
                .map(|(_, file)| file),
        );
    }
    drop(conn);
    files.sort_by_key(|file| file.id);
    files.dedup_by_key(|file| file.id);
    let needed: u64 = files.iter().map(|file| file.identity.size).sum();
    let above = to.parent().unwrap_or(Path::new("/"));
    if let Some(free) = inner.backend.free_space(above)
        && free < needed
    {
        return Err(MoveError::DiskFull {
            path: to.to_owned(),
            needed,
            free,
        });
    }
    meter.stage(Stage::Copying, needed, files.len() as u64);
    let stage = stage_of(pack, to);
    begin_journal(inner, pack.record.id, from, to, true)?;
    let is_file = matches!(inner.backend.identity_at(from), Ok(Some(_)));
    let content = inner.content(&pack.record).ok().flatten();
    let copied = copy_files(inner, &files, from, is_file, &stage, content.as_deref(), &meter).and_then(|copied| {
        let whole = if is_file {
            files.first().map(|file| stage.join(file.id.to_string()))
        } else {
            Some(stage.clone())
        };
        let io = |source| MoveError::Io {
            path: to.to_owned(),
            source,
        };
        inner
            .backend
            .replace(&whole.unwrap_or_else(|| stage.clone()), to)
            .map_err(io)?;
        inner.backend.sync_dir(above).map_err(io)?;
        Ok(copied)
    });
    if is_file || copied.is_err() {
        let _ = inner.backend.remove_tree(&stage);
    }
    match copied {
        Ok(copied) => {
            let fresh = copied.iter().map(|file| (file.row, file.copy, file.seen)).collect();
            rebind(inner, going, from, to, fresh)?;
            Ok(copied)
        }
        Err(e) => {
            end_journal(inner, pack.record.id)?;
            Err(e)
        }
    }
}

fn copy_files(
    inner: &Inner,
    files: &[FileRow],
    from: &Path,
    is_file: bool,
    stage: &Path,
    content: Option<&Content>,
    meter: &Meter<'_>,
) -> Result<Vec<Copied>, MoveError> {
    let backend = &*inner.backend;
    let at_stage = |source| MoveError::Io {
        path: stage.to_owned(),
        source,
    };
    let _ = backend.remove_tree(stage);
    backend.create_dirs(stage).map_err(at_stage)?;
    let root = backend.open_dir(stage).map_err(at_stage)?;
    let mut folders: BTreeSet<String> = BTreeSet::new();
    for dir in content.into_iter().flat_map(Content::dirs).filter(|_| !is_file) {
        make(&*root, dir.names()).map_err(at_stage)?;
        folders.insert(dir.as_str().to_owned());
    }
    let mut copied = Vec::with_capacity(files.len());
    for file in files.iter().filter(|file| file.stage.is_none()) {
        let place = fs::path_from(file.path.clone());
        let source = if is_file { from.to_owned() } else { from.join(&place) };
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| MoveError::Io { path, source }
        };
        let opened = match backend.open(&source) {
            Ok(opened) => opened,
            // It was gone before: the pack lacks it there as it did here.
            Err(e) if fs::is_gone(&e) => continue,
            Err(e) => return Err(io(&source)(e)),
        };
        let path = fs::pack_path(&place).ok_or_else(|| MoveError::NoName(source.clone()))?;
        let parent = match path.parent().filter(|_| !is_file) {
            Some(parent) => {
                folders.insert(parent.as_str().to_owned());
                Some(make(&*root, parent.names()).map_err(at_stage)?)
            }
            None => None,
        };
        let dir = parent.as_deref().unwrap_or(&*root);
        let name = if is_file {
            file.id.to_string()
        } else {
            path.file_name().to_owned()
        };
        let made = dir.create_file(&name).map_err(at_stage)?;
        let before = opened.identity().map_err(io(&source))?;
        copy_bytes(&*opened, &*made, before.size, meter)?.map_err(at_stage)?;
        made.sync().map_err(at_stage)?;
        let seen = backend.now_ns();
        copied.push(Copied {
            row: file.id,
            source,
            before,
            copy: made.identity().map_err(at_stage)?,
            seen,
        });
        meter.add_file();
    }
    let folders: Vec<&str> = folders.iter().map(String::as_str).collect();
    root.sync_folders(&folders).map_err(at_stage)?;
    meter.report();
    Ok(copied)
}

fn make<'a>(root: &dyn BackendDir, names: impl Iterator<Item = &'a str>) -> io::Result<Box<dyn BackendDir>> {
    let mut dir: Option<Box<dyn BackendDir>> = None;
    for name in names {
        dir = Some(dir.as_deref().unwrap_or(root).make_folder(name)?.0);
    }
    dir.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Copies `size` bytes; runs of zeros become holes.
fn copy_bytes(
    from: &dyn BackendFile,
    to: &dyn BackendFile,
    size: u64,
    meter: &Meter<'_>,
) -> Result<io::Result<()>, MoveError> {
    let mut buf = vec![0; CHUNK];
    let mut copy = |at: u64, len: usize| -> io::Result<()> {
        let buf = &mut buf[..len];
        from.read_exact_at(buf, at)?;
        if buf.iter().any(|byte| *byte != 0) {
            to.write_all_at(buf, at)?;
        }
        Ok(())
    };
    if let Err(e) = to.set_len(size) {
        return Ok(Err(e));
    }
    let mut at = 0;
    while at < size {
        if meter.cancelled() {
            return Err(MoveError::Cancelled);
        }
        let len = (size - at).min(CHUNK as u64) as usize;
        if let Err(e) = copy(at, len) {
            return Ok(Err(e));
        }
        at += len as u64;
        meter.add_bytes(len as u64, 0);
    }
    Ok(Ok(()))
}

/// Reads the copies back, and deletes the files that they are copies of.
fn leave(
    inner: &Inner,
    going: &[PackRow],
    from: PathBuf,
    to: PathBuf,
    copied: Vec<Copied>,
    observer: &dyn Observer,
) -> Result<Moved, MoveError> {
    let mut doubtful: BTreeSet<PathBuf> = BTreeSet::new();
    for row in going.iter().filter(|row| row.record.state == PackState::Whole) {
        let verified = verify_pack(inner, row.record.id, observer)?;
        doubtful.extend(verified.bad.iter().map(|bad| from.join(bad.path.as_str())));
        if !verified.bad.is_empty() && doubtful.is_empty() {
            doubtful.insert(from.clone());
        }
    }
    let mut moved = Moved {
        bytes_copied: copied.iter().map(|file| file.before.size).sum(),
        from,
        to,
        left: Vec::new(),
    };
    let mut parents: BTreeSet<PathBuf> = BTreeSet::new();
    for file in &copied {
        let unchanged = matches!(inner.backend.identity_at(&file.source), Ok(Some(now)) if now == file.before);
        if unchanged && !doubtful.contains(&file.source) && inner.backend.remove_file(&file.source).is_ok() {
            let within = file.source.ancestors().skip(1);
            parents.extend(
                within
                    .take_while(|dir| dir.starts_with(&moved.from))
                    .map(Path::to_owned),
            );
        } else if inner.backend.exists(&file.source) {
            moved.left.push(file.source.clone());
        }
    }
    let contents = going.iter().filter_map(|row| inner.content(&row.record).ok().flatten());
    for content in contents {
        let dirs = content.dirs().filter(fs::can_create);
        parents.extend(dirs.map(|dir| moved.from.join(dir.as_str())));
    }
    parents.insert(moved.from.clone());
    for dir in parents.iter().rev() {
        let _ = inner.backend.remove_dir(dir);
    }
    Ok(moved)
}

/// Brings moves that were cut off to an end. When the store is opened.
pub(crate) fn recover(inner: &Inner) -> Result<(), IndexError> {
    type Row = (i64, Vec<u8>, Vec<u8>, bool);
    let conn = inner.index.reader()?;
    let mut statement = conn.prepare("SELECT pack, source, target, copied FROM moves")?;
    let moves: Vec<Row> = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect::<rusqlite::Result<_>>()?;
    drop(statement);
    for (id, from, to, copied) in moves {
        let (id, from, to) = (PackId(id), fs::path_from(from), fs::path_from(to));
        let backend: &dyn Backend = &*inner.backend;
        let going = rows::packs_at(&conn, fs::path_bytes(&from))?;
        // The target was not there when the move began: if it is, all of it is.
        let done = backend.exists(&to) && (copied || !backend.exists(&from));
        if copied && let Some(pack) = going.first() {
            let _ = backend.remove_tree(&stage_of(pack, &to));
        }
        if !done {
            end_journal(inner, id)?;
            continue;
        }
        let mut fresh = Vec::new();
        for row in going.iter().filter(|_| copied) {
            for (_, file) in rows::files_of_pack(&conn, row.record.id)? {
                let path = to.join(fs::path_from(file.path.clone()));
                let path = if backend.exists(&path) { path } else { to.clone() };
                if let Ok(Some(identity)) = backend.identity_at(&path) {
                    // Seen long ago: it is read before it is believed.
                    fresh.push((file.id, identity, 0));
                }
            }
        }
        if let Err(e) = rebind(inner, &going, &from, &to, fresh) {
            tracing::warn!("the move of a pack to {to:?} could not be ended: {e}");
        }
    }
    Ok(())
}
