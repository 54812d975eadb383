//! Putting whole files under their final names, never over something else.

use std::{collections::BTreeSet, io, path::PathBuf};

use modswarm_protocol::format::PackPath;

use super::state::State;
use crate::{
    backend::{BackendDir, Entry, Identity, Onto},
    error::Blockage,
};

/// Where a staged file is going.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Its row in the index, and its name in the staging folder.
    pub(crate) row: i64,
    /// What it may replace.
    pub(crate) replace: Replace,
}

/// What may stand at a file's final name and be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Replace {
    Nothing,
    /// The file of a former version, if it still is as the index knows it: its row and identity.
    Known(i64, Identity),
    /// Any file or symlink: the user said so. The row that the index has for the place.
    Anything(Option<i64>),
}

/// A file that now has its final name.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) number: u32,
    pub(crate) row: i64,
    pub(crate) identity: Identity,
    pub(crate) seen: i64,
    /// The row of the file that it replaced.
    pub(crate) replaced: Option<i64>,
}

/// Why a file has not got its final name.
#[derive(Debug)]
pub(crate) enum PlaceError {
    /// Something that differs stands there.
    Differs,
    Blocked(Blockage),
    Io(PathBuf, io::Error),
}

#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) placed: Vec<Placed>,
    pub(crate) stuck: Vec<(u32, PlaceError)>,
}

/// Puts each staged file where it belongs; the new names are durable afterwards.
pub(crate) fn place_files(state: &State, whole: Vec<(u32, Target)>) -> Outcome {
    let mut outcome = Outcome::default();
    if whole.is_empty() {
        return outcome;
    }
    let backend = &state.inner.backend;
    let root = backend
        .create_dirs_durably(&state.destination)
        .and_then(|()| backend.open_dir(&state.destination));
    let root = match root {
        Ok(root) => root,
        Err(e) => {
            let all = whole.into_iter();
            outcome.stuck = all
                .map(|(number, _)| (number, PlaceError::Io(state.destination.clone(), copy_of(&e))))
                .collect();
            return outcome;
        }
    };
    let mut folders: BTreeSet<PackPath> = BTreeSet::new();
    for (number, target) in whole {
        let path = &state.content.files()[number as usize].path;
        match place_file(state, &*root, path, &target) {
            Ok((identity, replaced)) => {
                folders.extend(path.parent());
                outcome.placed.push(Placed {
                    number,
                    row: target.row,
                    identity,
                    seen: backend.now_ns(),
                    replaced,
                });
            }
            Err(e) => outcome.stuck.push((number, e)),
        }
    }
    let mut with_parents = folders.clone();
    for folder in &folders {
        with_parents.extend(std::iter::successors(folder.parent(), PackPath::parent));
    }
    let folders: Vec<&str> = with_parents.iter().map(PackPath::as_str).collect();
    if let Err(e) = root.sync_folders(&folders).and_then(|()| state.stage_dir.sync()) {
        tracing::warn!("names in {:?} are not durable yet: {e}", state.destination);
    }
    outcome
}

fn copy_of(e: &io::Error) -> io::Error {
    e.raw_os_error()
        .map_or_else(|| e.kind().into(), io::Error::from_raw_os_error)
}

/// The folder at `path` below `root`, made where there is none.
pub(crate) fn make_folders(
    root: &dyn BackendDir,
    shown: &std::path::Path,
    path: &PackPath,
) -> Result<Box<dyn BackendDir>, PlaceError> {
    let mut dir: Option<Box<dyn BackendDir>> = None;
    let mut at = shown.to_owned();
    for name in path.names() {
        at.push(name);
        let parent = dir.as_deref().unwrap_or(root);
        match parent.make_folder(name) {
            Ok((folder, _)) => dir = Some(folder),
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
                return Err(PlaceError::Blocked(match parent.entry(name) {
                    Ok(Some(Entry::Symlink)) => Blockage::Symlink(at),
                    _ => Blockage::FileForFolder(at),
                }));
            }
            Err(e) => return Err(PlaceError::Io(at, e)),
        }
    }
    dir.ok_or_else(|| PlaceError::Io(at, io::ErrorKind::InvalidInput.into()))
}

fn place_file(
    state: &State,
    root: &dyn BackendDir,
    path: &PackPath,
    target: &Target,
) -> Result<(Identity, Option<i64>), PlaceError> {
    let shown = state.destination.join(path.as_str());
    let io = |e| PlaceError::Io(shown.clone(), e);
    let parent = match path.parent() {
        Some(parent) => Some(make_folders(root, &state.destination, &parent)?),
        None => None,
    };
    let dir = parent.as_deref().unwrap_or(root);
    let (name, staged) = (path.file_name(), target.row.to_string());

    let there = dir.entry(name).map_err(io)?;
    let mut replaced = None;
    match there {
        None => match dir.rename_from(&*state.stage_dir, &staged, name, Onto::Nothing) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(PlaceError::Differs),
            Err(e) => return Err(io(e)),
        },
        Some(Entry::Folder) => return Err(Blockage::FolderForFile(shown).into()),
        Some(Entry::Special) => return Err(Blockage::Special(shown).into()),
        Some(entry) => {
            let expected = |entry: &Entry| match (&target.replace, entry) {
                (Replace::Known(_, identity), Entry::File(now)) => identity.same_bytes(now),
                (Replace::Anything(_), Entry::File(_) | Entry::Symlink) => true,
                _ => false,
            };
            if !expected(&entry) {
                return Err(PlaceError::Differs);
            }
            let swapped = dir
                .rename_from(&*state.stage_dir, &staged, name, Onto::Exchange)
                .map_err(io)?;
            if swapped {
                // What came out is looked at again: it may have been replaced since the first look, and then goes back.
                match state.stage_dir.entry(&staged).map_err(io)? {
                    // If it cannot be deleted now, it goes with the staging folder.
                    Some(out) if expected(&out) => drop(state.stage_dir.remove_file(&staged)),
                    _ => {
                        dir.rename_from(&*state.stage_dir, &staged, name, Onto::Exchange)
                            .map_err(io)?;
                        return Err(PlaceError::Differs);
                    }
                }
            }
            replaced = match target.replace {
                Replace::Known(row, _) => Some(row),
                Replace::Anything(row) => row,
                Replace::Nothing => None,
            };
        }
    }
    match dir.entry(name).map_err(io)? {
        Some(Entry::File(identity)) => Ok((identity, replaced)),
        _ => Err(PlaceError::Differs),
    }
}
