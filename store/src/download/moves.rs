//! The end of an update: files of the former version get their new names, and files that waited for those, or for one of the user's to be set aside, get
//! theirs. All of it under a journal in the index (`renames`), so that after a crash it is completed, or undone where something is in the way.
//!
//! Each file that is renamed first goes into the staging folder, under its number, and from there to its new name: so names may change places, go round in
//! circles, and differ only in case. Which of the three places a file is in tells how far it was; a file is found by its identity, never by its name alone.
//! While a file is under way, its row says both where it is staged and where it comes from or goes to, so that it goes on being served.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    path::PathBuf,
    sync::Arc,
};

use modswarm_protocol::format::PackPath;
use rusqlite::{Connection, Transaction, params};

use super::{
    Conflicts,
    place::{PlaceError, Placing, Replace, beside, free_names, in_the_way, sync_names},
    slots::Slot,
    state::State,
};
use crate::{
    backend::{BackendDir, Entry, Identity, Onto},
    error::{FinishError, IndexError},
    fs,
    index::rows::{self, FileRow},
    packs::PackId,
    store::Inner,
};

/// One file to get a name.
#[derive(Debug)]
struct Step {
    /// Its row, and its name in the staging folder.
    row: i64,
    number: u32,
    /// Where it is, and by what it is known there; none for a file that is staged.
    source: Option<(PackPath, Identity)>,
    target: PackPath,
    replace: Replace,
}

/// How a step ended.
#[derive(Debug)]
enum End {
    /// It has its name. What stood there may have another now.
    Placed {
        identity: Identity,
        seen: i64,
        aside: Option<PackPath>,
        /// What it took the place of is in the staging folder.
        taken_out: bool,
    },
    /// Something is in the way: it is at `at`, its former name or one beside it.
    Back {
        at: PackPath,
        identity: Identity,
        seen: i64,
        why: PlaceError,
    },
    /// Something is in the way: it stays in the staging folder.
    Stays(PlaceError),
    /// It is neither where it was nor where it was to go.
    Lost,
}

/// What [`run`] did.
#[derive(Debug, Default)]
pub(super) struct Renamed {
    pub(super) renamed: Vec<(PackPath, PackPath)>,
    pub(super) set_aside: Vec<(PackPath, PackPath)>,
    /// Files that something stands in the way of.
    pub(super) stuck: Vec<(u32, PlaceError)>,
    /// Files that are gone: they are to be fetched.
    pub(super) lost: Vec<u32>,
}

/// Gives all files their names that waited for the end.
pub(super) fn run(state: &Arc<State>) -> Result<Renamed, FinishError> {
    let steps = steps_of(state);
    if steps.is_empty() {
        return Ok(Renamed::default());
    }
    let io = |source: io::Error| to_finish(state.destination.clone(), source);
    for step in steps.iter().filter(|step| step.source.is_none()) {
        if state.layout_is_empty_for(step.number) {
            state.staged_file(step.number, step.row).map_err(io)?;
        }
    }
    let mut lost = Vec::new();
    for step in steps.iter().filter(|step| step.source.is_none()) {
        if !state.is_ours(step.number, step.row).map_err(io)? {
            lost.push(step.number);
        }
    }
    if !lost.is_empty() {
        return Ok(Renamed {
            lost,
            ..Renamed::default()
        });
    }
    let staged: BTreeSet<u32> = steps.iter().filter(|s| s.source.is_none()).map(|s| s.number).collect();
    let names: Vec<String> = steps
        .iter()
        .filter(|s| s.source.is_none())
        .map(|s| s.row.to_string())
        .collect();
    state.stage_dir.sync_files(&names).map_err(io)?;
    state.stage_dir.sync().map_err(io)?;
    state.close_staged(&staged);
    let backend = &*state.inner.backend;
    let root =
        backend
            .make_resolved(&state.destination)
            .map_err(|e| match in_the_way(backend, &state.destination, &e) {
                Some(blockage) => FinishError::Blocked(vec![blockage]),
                None => io(e),
            })?;
    let placing = Placing {
        backend,
        stage: &*state.stage_dir,
        root: &*root,
        shown: &state.destination,
        policy: state.policy,
    };
    write_journal(&state.inner, state.id, &steps)?;
    let ends = carry_out(&state.inner, &placing, state.id, &steps).map_err(|e| match e {
        Failed::Place(PlaceError::Io(path, source)) => to_finish(path, source),
        Failed::Place(PlaceError::Blocked(blockage)) => FinishError::Blocked(vec![blockage]),
        Failed::Place(PlaceError::Differs | PlaceError::Lost) => FinishError::Incomplete(1),
        Failed::Index(e) => FinishError::Index(e),
    })?;
    Ok(settle(state, &steps, ends))
}

fn to_finish(path: PathBuf, source: io::Error) -> FinishError {
    if fs::is_disk_full(&source) {
        FinishError::DiskFull(path)
    } else {
        FinishError::Io { path, source }
    }
}

fn steps_of(state: &State) -> Vec<Step> {
    let moving = crate::lock(&state.moving);
    let mut steps = Vec::new();
    for (number, slot) in moving.slots.others() {
        let target = || state.content.file(number as usize).path();
        match slot {
            Slot::Moving(file) => steps.push(Step {
                row: file.row.id,
                number,
                source: Some((file.from.clone(), file.row.identity)),
                target: target(),
                replace: file.replace.clone(),
            }),
            Slot::Staged(staged) if moving.held.contains(&number) => steps.push(Step {
                row: staged.row,
                number,
                source: None,
                target: target(),
                replace: staged.replace.clone(),
            }),
            _ => {}
        }
    }
    steps
}

fn settle(state: &State, steps: &[Step], ends: Vec<End>) -> Renamed {
    let mut done = Renamed::default();
    let mut moving = crate::lock(&state.moving);
    for (step, end) in steps.iter().zip(ends) {
        let number = step.number;
        match end {
            End::Placed { aside, .. } => {
                moving.slots.set(number, Slot::Placed(step.row));
                moving.held.remove(&number);
                if let Some((from, _)) = &step.source {
                    done.renamed.push((from.clone(), step.target.clone()));
                }
                done.set_aside.extend(aside.map(|aside| (step.target.clone(), aside)));
            }
            End::Back { at, identity, why, .. } => {
                if let Some(file) = moving.slots.moving_mut(number) {
                    file.from = at;
                    file.row.identity = identity;
                }
                done.stuck.push((number, why));
            }
            End::Stays(why) => done.stuck.push((number, why)),
            End::Lost => {
                moving.held.remove(&number);
                done.lost.push(number);
            }
        }
    }
    done
}

/// Why steps could not be carried out now; the journal is there for the next attempt.
#[derive(Debug)]
enum Failed {
    Place(PlaceError),
    Index(IndexError),
}

impl From<PlaceError> for Failed {
    fn from(e: PlaceError) -> Self {
        Self::Place(e)
    }
}

impl From<IndexError> for Failed {
    fn from(e: IndexError) -> Self {
        Self::Index(e)
    }
}

fn write_journal(inner: &Inner, id: PackId, steps: &[Step]) -> Result<(), IndexError> {
    let entries: Vec<_> = steps
        .iter()
        .map(|step| {
            let source = step
                .source
                .as_ref()
                .map(|(path, _)| path.as_str().as_bytes().to_owned());
            let target = step.target.as_str().as_bytes().to_owned();
            (step.row, step.number, source, target, step.replace.row())
        })
        .collect();
    inner.index.writer.run(move |tx| -> Result<(), IndexError> {
        for (row, number, source, target, replaced) in &entries {
            tx.prepare_cached(
                "INSERT OR REPLACE INTO renames (file, pack, number, source, target, replaced) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![row, id.0, number, source, target, replaced])?;
            if source.is_some() {
                // From now on it is looked for in the staging folder first.
                tx.prepare_cached("UPDATE files SET stage = ?2 WHERE id = ?1")?
                    .execute(params![row, id.0])?;
            }
        }
        Ok(())
    })
}

/// Does what the journal says, from wherever it was left, and ends the journal. The ends are in the order of the steps.
fn carry_out(inner: &Inner, placing: &Placing<'_>, id: PackId, steps: &[Step]) -> Result<Vec<End>, Failed> {
    let mut lost = vec![false; steps.len()];
    let mut folders = BTreeSet::new();
    for (at, step) in steps.iter().enumerate() {
        if let Some((source, identity)) = &step.source {
            lost[at] = !take_out(placing, step, source, identity)?;
            folders.extend(source.parent());
        }
    }
    let io = |e| PlaceError::Io(placing.shown.to_owned(), e);
    placing.stage.sync().map_err(io)?;
    sync_existing(placing, &folders).map_err(io)?;
    let moved: Vec<(i64, Vec<u8>)> = steps
        .iter()
        .filter(|step| step.source.is_some())
        .map(|step| (step.row, step.target.as_str().as_bytes().to_owned()))
        .collect();
    if !moved.is_empty() {
        inner.index.writer.run(move |tx| -> Result<(), IndexError> {
            moved.iter().try_for_each(|(row, path)| rows::move_file(tx, *row, path))
        })?;
    }
    let mut ends = Vec::with_capacity(steps.len());
    for (step, lost) in steps.iter().zip(lost) {
        // Some systems do not let the name of an open file be taken.
        for row in [Some(step.row), step.replace.row()].into_iter().flatten() {
            inner.files.forget(row);
        }
        let end = if lost { End::Lost } else { put_in(placing, step)? };
        if let End::Placed { .. } = end {
            folders.extend(step.target.parent());
        }
        ends.push(end);
    }
    sync_existing(placing, &folders).map_err(io)?;
    placing.stage.sync().map_err(io)?;
    let taken_out = steps.iter().zip(&ends).filter_map(|(step, end)| match end {
        End::Placed { taken_out: true, .. } => Some(step.row),
        _ => None,
    });
    placing.discard(taken_out);
    end_journal(inner, id, steps, &ends)?;
    Ok(ends)
}

/// Syncs those of `folders` that are there; one that is not has no names to lose.
fn sync_existing(placing: &Placing<'_>, folders: &BTreeSet<PackPath>) -> io::Result<()> {
    let there = folders
        .iter()
        .filter(|folder| matches!(folder_at(placing.root, Some(folder)), Ok(Some(_))));
    sync_names(placing.root, there.cloned().collect())
}

/// The folder at `path`, not made; `Ok(None)` is the root.
fn folder_at(root: &dyn BackendDir, path: Option<&PackPath>) -> io::Result<Option<Box<dyn BackendDir>>> {
    let mut dir: Option<Box<dyn BackendDir>> = None;
    for name in path.into_iter().flat_map(PackPath::names) {
        dir = Some(dir.as_deref().unwrap_or(root).folder(name)?);
    }
    Ok(dir)
}

/// What stands at `path`.
fn entry_at(root: &dyn BackendDir, path: &PackPath) -> io::Result<Option<Entry>> {
    match folder_at(root, path.parent().as_ref()) {
        Ok(dir) => dir.as_deref().unwrap_or(root).entry(path.file_name()),
        Err(e) if fs::is_gone(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

fn is_file(entry: Option<Entry>, identity: &Identity) -> bool {
    matches!(entry, Some(Entry::File(now)) if now.same_bytes(identity))
}

/// Moves a file into the staging folder, if it is not there, or at its new name, already. `false`: it is nowhere as it was.
fn take_out(placing: &Placing<'_>, step: &Step, source: &PackPath, identity: &Identity) -> Result<bool, PlaceError> {
    let io = |e| PlaceError::Io(placing.shown.join(source.as_str()), e);
    let name = step.row.to_string();
    if placing.stage.entry(&name).map_err(io)?.is_some() {
        return Ok(true);
    }
    if !is_file(entry_at(placing.root, source).map_err(io)?, identity) {
        return Ok(is_file(entry_at(placing.root, &step.target).map_err(io)?, identity));
    }
    let parent = folder_at(placing.root, source.parent().as_ref()).map_err(io)?;
    let dir = parent.as_deref().unwrap_or(placing.root);
    placing
        .stage
        .rename_from(dir, source.file_name(), &name, Onto::Nothing)
        .map_err(io)?;
    // It may have been replaced since the look.
    if is_file(placing.stage.entry(&name).map_err(io)?, identity) {
        return Ok(true);
    }
    put_back(placing, step.row, source)?;
    Ok(false)
}

/// Moves a file of the staging folder to `path`, or to a free name beside it. Says where it is.
fn put_back(placing: &Placing<'_>, row: i64, path: &PackPath) -> Result<PackPath, PlaceError> {
    let io = |e| PlaceError::Io(placing.shown.join(path.as_str()), e);
    let parent = placing.parent(path)?;
    let dir = parent.as_deref().unwrap_or(placing.root);
    let names = std::iter::once(path.file_name().to_owned()).chain(free_names(path.file_name(), "moved"));
    for name in names {
        match dir.rename_from(placing.stage, &row.to_string(), &name, Onto::Nothing) {
            Ok(_) => return Ok(beside(path, &name)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(io(e)),
        }
    }
    Err(PlaceError::Differs)
}

/// Moves a file from the staging folder to its name.
fn put_in(placing: &Placing<'_>, step: &Step) -> Result<End, PlaceError> {
    let io = |e| PlaceError::Io(placing.shown.join(step.target.as_str()), e);
    let now = || placing.backend.now_ns();
    let name = step.row.to_string();
    let mut staged = placing.stage.entry(&name).map_err(io)?;
    // What it took the place of, before a crash, and was not deleted any more.
    if let (Some(Entry::File(now)), Replace::Known(old)) = (&staged, &step.replace)
        && old.identity.same_file(now)
    {
        placing.stage.remove_file(&name).map_err(io)?;
        staged = None;
    }
    if staged.is_none() {
        // It was put there before a crash.
        return Ok(
            match (entry_at(placing.root, &step.target).map_err(io)?, &step.source) {
                (Some(Entry::File(identity)), Some((_, known))) if identity.same_bytes(known) => End::Placed {
                    identity,
                    seen: now(),
                    aside: None,
                    taken_out: false,
                },
                _ => End::Lost,
            },
        );
    }
    let mut aside = None;
    // Only what is known by its identity changes places with a file: anything else could not be told from it after a crash.
    let strict = Placing {
        policy: Conflicts::Refuse,
        ..*placing
    };
    let mut placed = strict.place(&step.target, step.row, &step.replace);
    if matches!(placed, Err(PlaceError::Differs)) {
        match placing.policy {
            Conflicts::KeepBoth => aside = placing.set_aside(&step.target, "mine")?,
            Conflicts::TakeTheirs => placing.remove(&step.target)?,
            Conflicts::Refuse | Conflicts::KeepMine | Conflicts::Mend => {}
        }
        if matches!(placing.policy, Conflicts::KeepBoth | Conflicts::TakeTheirs) {
            placed = strict.place(&step.target, step.row, &step.replace);
        }
    }
    match (placed, &step.source) {
        (Ok((identity, taken_out)), _) => Ok(End::Placed {
            identity,
            seen: now(),
            aside,
            taken_out,
        }),
        (Err(why @ PlaceError::Io(..)), _) => Err(why),
        (Err(why), None) => Ok(End::Stays(why)),
        (Err(why), Some((source, _))) => {
            let at = put_back(placing, step.row, source)?;
            match entry_at(placing.root, &at).map_err(io)? {
                Some(Entry::File(identity)) => Ok(End::Back {
                    at,
                    identity,
                    seen: now(),
                    why,
                }),
                _ => Ok(End::Lost),
            }
        }
    }
}

fn end_journal(inner: &Inner, id: PackId, steps: &[Step], ends: &[End]) -> Result<(), IndexError> {
    enum Row {
        At(Vec<u8>, Identity, i64),
        /// Not to be found: as it was before.
        Lost,
        Staged,
    }
    let mut changes = Vec::with_capacity(steps.len());
    for (step, end) in steps.iter().zip(ends) {
        let bytes = |path: &PackPath| path.as_str().as_bytes().to_owned();
        let (row, replaced) = match end {
            End::Placed { identity, seen, .. } => (Row::At(bytes(&step.target), *identity, *seen), step.replace.row()),
            End::Back { at, identity, seen, .. } => (Row::At(bytes(at), *identity, *seen), None),
            End::Lost if step.source.is_some() => (Row::Lost, None),
            End::Lost | End::Stays(_) => (Row::Staged, None),
        };
        changes.push((step.row, row, replaced));
    }
    let forgotten: Vec<i64> = steps
        .iter()
        .flat_map(|step| [Some(step.row), step.replace.row()])
        .flatten()
        .collect();
    inner.index.writer.run(move |tx| -> Result<(), IndexError> {
        for (file, row, replaced) in &changes {
            match row {
                Row::At(path, identity, seen) => {
                    rows::place_file(tx, *file, identity, *seen)?;
                    rows::move_file(tx, *file, path)?;
                }
                Row::Lost => {
                    tx.execute("UPDATE files SET stage = NULL WHERE id = ?1", [file])?;
                }
                Row::Staged => {}
            }
            if let Some(replaced) = replaced {
                rows::delete_file(tx, *replaced)?;
            }
        }
        tx.execute("DELETE FROM renames WHERE pack = ?1", [id.0])?;
        Ok(())
    })?;
    for file in forgotten {
        inner.files.forget(file);
    }
    Ok(())
}

/// Completes what the journals of all packs say. What cannot be done now is tried again when its download goes on.
pub(crate) fn recover(inner: &Inner) -> Result<(), IndexError> {
    let packs: Vec<i64> = {
        let conn = inner.index.reader()?;
        let mut statement = conn.prepare_cached("SELECT DISTINCT pack FROM renames")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        rows.collect::<rusqlite::Result<_>>()?
    };
    for pack in packs {
        if let Err(e) = recover_pack(inner, PackId(pack)) {
            tracing::warn!("an update that was cut off cannot be ended now: {e}");
        }
    }
    Ok(())
}

/// Completes what the journal of one pack says, so that none of its files is in the staging folder that was not staged.
///
/// # Errors
/// Where it could not be done, with the file or folder that could not be used.
pub(crate) fn recover_pack(inner: &Inner, id: PackId) -> Result<(), RecoverError> {
    let conn = inner.index.reader()?;
    let steps = read_journal(&conn, id)?;
    if steps.is_empty() {
        return Ok(());
    }
    let pack = rows::pack(&conn, id)?;
    drop(conn);
    let Some((pack, stage)) = pack.and_then(|pack| Some((pack.clone(), pack.stage?))) else {
        inner
            .index
            .writer
            .run(move |tx: &Transaction<'_>| -> Result<(), IndexError> {
                tx.execute("DELETE FROM renames WHERE pack = ?1", [id.0])?;
                Ok(())
            })?;
        return Ok(());
    };
    let (stage, root) = (fs::path_from(stage), pack.record.path.clone());
    let io = |path: &std::path::Path| {
        let path = path.to_owned();
        move |source| RecoverError::Io { path, source }
    };
    let stage_dir = inner.backend.open_resolved(&stage).map_err(io(&stage))?;
    let root_dir = inner.backend.open_resolved(&root).map_err(io(&root))?;
    let placing = Placing {
        backend: &*inner.backend,
        stage: &*stage_dir,
        root: &*root_dir,
        shown: &root,
        policy: pack.conflicts,
    };
    match carry_out(inner, &placing, id, &steps) {
        Ok(_) => Ok(()),
        Err(Failed::Index(e)) => Err(e.into()),
        Err(Failed::Place(PlaceError::Io(path, source))) => Err(RecoverError::Io { path, source }),
        Err(Failed::Place(_)) => Err(io(&root)(io::ErrorKind::AlreadyExists.into())),
    }
}

/// An update that was cut off cannot be ended now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoverError {
    #[error("{path:?} cannot be used: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Index(#[from] IndexError),
}

fn read_journal(conn: &Connection, id: PackId) -> Result<Vec<Step>, IndexError> {
    let mut statement = conn
        .prepare_cached("SELECT file, number, source, target, replaced FROM renames WHERE pack = ?1 ORDER BY number")?;
    type Entry = (i64, u32, Option<Vec<u8>>, Vec<u8>, Option<i64>);
    let entries: Vec<Entry> = statement
        .query_map([id.0], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut known: HashMap<i64, FileRow> = HashMap::new();
    for file in entries.iter().flat_map(|entry| [Some(entry.0), entry.4]).flatten() {
        if let Some((row, ..)) = rows::file_and_place(conn, file)? {
            known.insert(file, row);
        }
    }
    let path = |bytes: Vec<u8>| fs::pack_path(&fs::path_from(bytes));
    let broken = || IndexError::Other("the journal of an update makes no sense".to_owned());
    let mut steps = Vec::with_capacity(entries.len());
    for (row, number, source, target, replaced) in entries {
        // A file that the index has forgotten is nobody's business any more.
        let Some(file) = known.get(&row) else { continue };
        let source = match source {
            Some(source) => Some((path(source).ok_or_else(broken)?, file.identity)),
            None => None,
        };
        steps.push(Step {
            row,
            number,
            source,
            target: path(target).ok_or_else(broken)?,
            replace: match replaced.and_then(|row| known.get(&row)) {
                Some(old) => Replace::Known(Box::new(old.clone())),
                None => Replace::Nothing,
            },
        });
    }
    Ok(steps)
}
