//! Putting whole files under their final names, never over something else.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use modswarm_protocol::format::PackPath;

use super::{Conflicts, state::State};
use crate::{
    backend::{Backend, BackendDir, Entry, Identity, Onto},
    error::Blockage,
    index::rows::FileRow,
};

/// Where a staged file is going.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Its row in the index, and its name in the staging folder.
    pub(crate) row: i64,
    /// What it may replace.
    pub(crate) replace: Replace,
    /// It gets its name only at the end, under the journal.
    pub(crate) held: bool,
}

impl Target {
    /// That of a new file.
    pub(super) fn onto_nothing(row: i64) -> Self {
        Self {
            row,
            replace: Replace::Nothing,
            held: false,
        }
    }
}

/// What may stand at a file's final name and be replaced.
#[derive(Clone, Debug)]
pub(crate) enum Replace {
    Nothing,
    /// The file of a former version, if it still is as the index knows it.
    Known(Box<FileRow>),
    /// A file of the user's, of this size, which he lets go. The row that the index has for the place.
    Theirs {
        row: Option<i64>,
        size: u64,
    },
}

impl Replace {
    /// The row of the file that goes.
    pub(crate) fn row(&self) -> Option<i64> {
        match self {
            Self::Known(old) => Some(old.id),
            Self::Theirs { row, .. } => *row,
            Self::Nothing => None,
        }
    }
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
    /// What was staged is not there any more, or something else is.
    Lost,
    Blocked(Blockage),
    Io(PathBuf, io::Error),
}

#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) placed: Vec<Placed>,
    pub(crate) stuck: Vec<(u32, PlaceError)>,
}

/// Where files are put: out of one folder, below another.
pub(super) struct Placing<'a> {
    pub(super) backend: &'a dyn Backend,
    pub(super) stage: &'a dyn BackendDir,
    pub(super) root: &'a dyn BackendDir,
    /// The path of `root`.
    pub(super) shown: &'a Path,
    pub(super) policy: Conflicts,
}

/// Puts each staged file where it belongs; the new names are durable afterwards.
pub(crate) fn place_files(state: &State, whole: Vec<(u32, Target)>) -> Outcome {
    let mut outcome = Outcome::default();
    if whole.is_empty() {
        return outcome;
    }
    let backend = &state.inner.backend;
    let root = match backend.make_resolved(&state.destination) {
        Ok(root) => root,
        Err(e) => {
            let in_the_way = in_the_way(&**backend, &state.destination, &e);
            let error = || match &in_the_way {
                Some(blockage) => PlaceError::Blocked(blockage.clone()),
                None => PlaceError::Io(state.destination.clone(), copy_of(&e)),
            };
            outcome.stuck = whole.into_iter().map(|(number, _)| (number, error())).collect();
            return outcome;
        }
    };
    let placing = Placing {
        backend: &**backend,
        stage: &*state.stage_dir,
        root: &*root,
        shown: &state.destination,
        policy: state.policy,
    };
    let mut folders: BTreeSet<PackPath> = BTreeSet::new();
    let mut taken_out = Vec::new();
    for (number, target) in whole {
        let path = state.content.file(number as usize).path();
        match state.is_ours(number, target.row) {
            Ok(true) => {}
            Ok(false) => {
                outcome.stuck.push((number, PlaceError::Lost));
                continue;
            }
            Err(e) => {
                let staged = state.stage.join(target.row.to_string());
                outcome.stuck.push((number, PlaceError::Io(staged, e)));
                continue;
            }
        }
        // Some systems do not let the name of an open file be taken.
        if let Some(replaced) = target.replace.row() {
            state.inner.files.forget(replaced);
        }
        match placing.place(&path, target.row, &target.replace) {
            Ok((identity, out)) => {
                folders.extend(path.parent());
                taken_out.extend(out.then_some(target.row));
                outcome.placed.push(Placed {
                    number,
                    row: target.row,
                    identity,
                    seen: backend.now_ns(),
                    replaced: target.replace.row(),
                });
            }
            Err(e) => outcome.stuck.push((number, e)),
        }
    }
    match sync_names(&*root, folders).and_then(|()| state.stage_dir.sync()) {
        Ok(()) => placing.discard(taken_out),
        Err(e) => tracing::warn!("names in {:?} are not durable yet: {e}", state.destination),
    }
    outcome
}

/// Makes the names in `root`, in `folders` below it and in those above them durable.
pub(super) fn sync_names(root: &dyn BackendDir, folders: BTreeSet<PackPath>) -> io::Result<()> {
    let mut with_parents = folders.clone();
    for folder in &folders {
        with_parents.extend(std::iter::successors(folder.parent(), PackPath::parent));
    }
    let folders: Vec<&str> = with_parents.iter().map(PackPath::as_str).collect();
    root.sync_folders(&folders)
}

fn copy_of(e: &io::Error) -> io::Error {
    e.raw_os_error()
        .map_or_else(|| e.kind().into(), io::Error::from_raw_os_error)
}

/// What keeps the folder at `path` from being opened, where `e` says that something on the way is no folder.
pub(super) fn in_the_way(backend: &dyn Backend, path: &Path, e: &io::Error) -> Option<Blockage> {
    if e.kind() != io::ErrorKind::NotADirectory {
        return None;
    }
    let mut on_the_way: Vec<&Path> = path.ancestors().collect();
    on_the_way.reverse();
    on_the_way.into_iter().find_map(|at| match backend.entry(at).ok()? {
        Entry::Symlink => Some(Blockage::Symlink(at.to_owned())),
        Entry::File(_) | Entry::Special => Some(Blockage::FileForFolder(at.to_owned())),
        Entry::Folder => None,
    })
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

impl Placing<'_> {
    /// The folder that `path` lies in, made where there is none; `None` is the root.
    pub(super) fn parent(&self, path: &PackPath) -> Result<Option<Box<dyn BackendDir>>, PlaceError> {
        path.parent()
            .map(|parent| make_folders(self.root, self.shown, &parent))
            .transpose()
    }

    /// Deletes files that others took the place of, once that is durable: until then their names may be all that leads to the new ones.
    pub(super) fn discard(&self, rows: impl IntoIterator<Item = i64>) {
        for row in rows {
            // What cannot be deleted now goes with the staging folder.
            let _ = self.stage.remove_file(&row.to_string());
        }
    }

    /// Gives the file `row` of the staging folder the name `path`, in the place of nothing or of what `replace` and the policy let go. Says whether that is
    /// in the staging folder now, to be discarded.
    pub(super) fn place(&self, path: &PackPath, row: i64, replace: &Replace) -> Result<(Identity, bool), PlaceError> {
        let shown = self.shown.join(path.as_str());
        let io = |e| PlaceError::Io(shown.clone(), e);
        let parent = self.parent(path)?;
        let dir = parent.as_deref().unwrap_or(self.root);
        let (name, staged) = (path.file_name(), row.to_string());

        let there = dir.entry(name).map_err(io)?;
        let mut taken_out = false;
        match there {
            None => match dir.rename_from(self.stage, &staged, name, Onto::Nothing) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(PlaceError::Differs),
                Err(e) => return Err(io(e)),
            },
            Some(Entry::Folder) => return Err(Blockage::FolderForFile(shown).into()),
            Some(Entry::Special) => return Err(Blockage::Special(shown).into()),
            Some(entry) => {
                let expected = |entry: &Entry| match (replace, entry) {
                    (Replace::Known(old), Entry::File(now)) if old.identity.same_bytes(now) => true,
                    (_, Entry::File(_) | Entry::Symlink) => self.policy == Conflicts::TakeTheirs,
                    _ => false,
                };
                if !expected(&entry) {
                    return Err(PlaceError::Differs);
                }
                let swapped = dir.rename_from(self.stage, &staged, name, Onto::Exchange).map_err(io)?;
                if swapped {
                    // What came out is looked at again: it may have been replaced since the first look, and then goes back.
                    match self.stage.entry(&staged).map_err(io)? {
                        Some(out) if expected(&out) => taken_out = true,
                        _ => {
                            dir.rename_from(self.stage, &staged, name, Onto::Exchange).map_err(io)?;
                            return Err(PlaceError::Differs);
                        }
                    }
                }
            }
        }
        match dir.entry(name).map_err(io)? {
            Some(Entry::File(identity)) => Ok((identity, taken_out)),
            _ => Err(PlaceError::Differs),
        }
    }

    /// Deletes the file or symlink at `path`.
    pub(super) fn remove(&self, path: &PackPath) -> Result<(), PlaceError> {
        let parent = self.parent(path)?;
        let dir = parent.as_deref().unwrap_or(self.root);
        match dir.remove_file(path.file_name()) {
            Err(e) if !crate::fs::is_gone(&e) => Err(PlaceError::Io(self.shown.join(path.as_str()), e)),
            _ => Ok(()),
        }
    }

    /// Renames what stands at `path` to a free name beside it, such as `Skin (mine).pak`; returns the name, `None` if nothing stood there.
    pub(super) fn set_aside(&self, path: &PackPath, word: &str) -> Result<Option<PackPath>, PlaceError> {
        let shown = self.shown.join(path.as_str());
        let io = |e| PlaceError::Io(shown.clone(), e);
        let parent = self.parent(path)?;
        let dir = parent.as_deref().unwrap_or(self.root);
        match dir.entry(path.file_name()).map_err(io)? {
            None => return Ok(None),
            Some(Entry::Folder) => return Err(Blockage::FolderForFile(shown).into()),
            Some(Entry::Special) => return Err(Blockage::Special(shown).into()),
            Some(Entry::File(_) | Entry::Symlink) => {}
        }
        for name in free_names(path.file_name(), word) {
            match dir.rename_from(dir, path.file_name(), &name, Onto::Nothing) {
                Ok(_) => return Ok(Some(beside(path, &name))),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(io(e)),
            }
        }
        Err(PlaceError::Differs)
    }
}

/// `path` with another file name. A name made of a valid one is valid; if it is too long after all, the path itself.
pub(super) fn beside(path: &PackPath, name: &str) -> PackPath {
    let text = match path.parent() {
        Some(parent) => format!("{parent}/{name}"),
        None => name.to_owned(),
    };
    PackPath::new(&text).unwrap_or_else(|_| path.clone())
}

/// Names that a file of the name `name` may be given to be out of the way.
const NAMES_MAX: u32 = 10_000;
/// Bytes of a name that leave room for the word and the number.
const STEM_MAX: usize = 200;

/// `Skin (mine).pak`, `Skin (mine 2).pak` and so on.
pub(super) fn free_names(name: &str, word: &str) -> impl Iterator<Item = String> {
    // A leading dot is part of the name, and what follows the last one tells games what the file is.
    let (stem, ending) = match name.rfind('.') {
        Some(at) if at > 0 && name.len() - at <= 20 => name.split_at(at),
        _ => (name, ""),
    };
    let mut cut = stem.len().min(STEM_MAX);
    while !stem.is_char_boundary(cut) {
        cut -= 1;
    }
    let (stem, ending, word) = (stem[..cut].to_owned(), ending.to_owned(), word.to_owned());
    (1..=NAMES_MAX).map(move |n| match n {
        1 => format!("{stem} ({word}){ending}"),
        n => format!("{stem} ({word} {n}){ending}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_aside_keeps_its_ending_and_is_short_enough() {
        let first = |name: &str| free_names(name, "mine").next().unwrap();
        assert_eq!(first("Skin v1.2_9999999_P.pak"), "Skin v1.2_9999999_P (mine).pak");
        assert_eq!(free_names("a.pak", "mine").nth(1).unwrap(), "a (mine 2).pak");
        assert_eq!(first(".hidden"), ".hidden (mine)");
        assert_eq!(first("plain"), "plain (mine)");
        assert!(first(&format!("{}.pak", "é".repeat(125))).len() <= 255);
    }
}
