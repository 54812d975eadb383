//! What is in a folder: names checked, identities taken, nothing read.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    hash::{BuildHasher as _, RandomState},
    path::{Path, PathBuf},
};

use ignore::WalkBuilder;
use modswarm_protocol::format::{
    Name, PackPath,
    path::{case_key, portability_issue},
};
use rayon::prelude::*;

use crate::{
    backend::Identity,
    error::ShareError,
    fs,
    observer::{Meter, Warning},
};

/// The file whose lines, in gitignore's syntax, leave files out.
const IGNORE_FILE: &str = ".modswarmignore";
/// Files that systems litter folders with; compared without case.
const LITTER: [&str; 4] = [IGNORE_FILE, ".DS_Store", "Thumbs.db", "desktop.ini"];

/// A file to share.
#[derive(Debug)]
pub(crate) struct Found {
    /// In the pack.
    pub(crate) path: PackPath,
    /// Below the root, as the system spells it.
    pub(crate) place: PathBuf,
    pub(crate) identity: Identity,
}

/// What a folder holds.
#[derive(Debug)]
pub(crate) struct Scan {
    /// What `place`s are relative to: the folder, or the folder of the single file.
    pub(crate) root: PathBuf,
    /// What the user named, without symlinks.
    pub(crate) shared: PathBuf,
    pub(crate) files: Vec<Found>,
    pub(crate) dirs: Vec<PackPath>,
}

/// Looks at `path`; metadata are taken by the threads of `pool`.
pub(crate) fn scan(path: &Path, pool: &rayon::ThreadPool, meter: &Meter<'_>) -> Result<Scan, ShareError> {
    let io = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => ShareError::NotFound(path.to_owned()),
        _ => ShareError::Io {
            path: path.to_owned(),
            source,
        },
    };
    let shared = dunce::canonicalize(path).map_err(io)?;
    let metadata = std::fs::metadata(&shared).map_err(io)?;
    if metadata.is_dir() {
        scan_folder(shared, pool, meter)
    } else if metadata.is_file() {
        let name = shared
            .file_name()
            .ok_or_else(|| ShareError::NotShareable(path.to_owned()))?;
        let pack = pack_name(name).map_err(|e| ShareError::Names(vec![(shared.clone(), e)]))?;
        let found = Found {
            path: pack.into(),
            place: PathBuf::from(name),
            identity: fs::identity_from(&shared, &metadata).map_err(io)?,
        };
        let root = shared.parent().unwrap_or(Path::new("/")).to_owned();
        Ok(Scan {
            root,
            files: vec![found],
            dirs: Vec::new(),
            shared,
        })
    } else {
        Err(ShareError::NotShareable(path.to_owned()))
    }
}

fn pack_name(name: &OsStr) -> Result<Name, modswarm_protocol::format::NameError> {
    Name::from_utf8(fs::name_bytes(name))
}

fn is_litter(name: &OsStr, is_dir: bool) -> bool {
    let Some(name) = name.to_str() else { return false };
    if is_dir {
        return crate::download::is_staging_name(name);
    }
    LITTER.iter().any(|litter| name.eq_ignore_ascii_case(litter))
}

fn scan_folder(root: PathBuf, pool: &rayon::ThreadPool, meter: &Meter<'_>) -> Result<Scan, ShareError> {
    let walked = fs::literal(&root);
    let walk = WalkBuilder::new(&*walked)
        .standard_filters(false)
        .follow_links(false)
        .add_custom_ignore_filename(IGNORE_FILE)
        .filter_entry(|entry| {
            entry.depth() == 0 || !is_litter(entry.file_name(), entry.file_type().is_some_and(|t| t.is_dir()))
        })
        .build();
    let mut files = Vec::new();
    let mut dirs = Vec::new();
    let mut bad = Vec::new();
    // The pack paths of the folders that lead to the current entry; `None` below a bad name.
    let mut above: Vec<Option<PackPath>> = Vec::new();
    for entry in walk {
        if meter.cancelled() {
            return Err(ShareError::Cancelled);
        }
        let entry = entry.map_err(|e| walk_error(&root, e))?;
        if let Some(e) = entry.error() {
            meter.warn(Warning::Ignore(e.to_string()));
        }
        let depth = entry.depth();
        if depth == 0 {
            continue;
        }
        let Some(kind) = entry.file_type() else { continue };
        let shown = || root.join(entry.path().strip_prefix(&*walked).unwrap_or(entry.path()));
        if kind.is_symlink() {
            meter.warn(Warning::SymlinkSkipped(shown()));
            continue;
        }
        if !kind.is_file() && !kind.is_dir() {
            meter.warn(Warning::SpecialSkipped(shown()));
            continue;
        }
        above.truncate(depth - 1);
        let parent = match above.last() {
            Some(None) => continue,
            Some(Some(parent)) => Some(parent),
            None => None,
        };
        let path = pack_name(entry.file_name()).and_then(|name| match parent {
            Some(parent) => parent.join(&name),
            None => Ok(name.into()),
        });
        let path = match path {
            Ok(path) => path,
            Err(e) => {
                bad.push((shown(), e));
                if kind.is_dir() {
                    above.push(None);
                }
                continue;
            }
        };
        if kind.is_dir() {
            above.push(Some(path.clone()));
            dirs.push((path, shown()));
        } else {
            let place = entry.path().strip_prefix(&*walked).unwrap_or(entry.path()).to_owned();
            files.push((path, place));
        }
    }
    if !bad.is_empty() {
        return Err(ShareError::Names(bad));
    }
    let files = pool.install(|| {
        let look = |(path, place)| look(&root, path, place, meter);
        files.into_par_iter().map(look).collect::<Result<Vec<_>, _>>()
    })?;
    check_twins(&root, &files, &dirs, meter)?;
    let paths = files.iter().map(|file| &file.path);
    for path in paths.chain(dirs.iter().map(|(path, _)| path)) {
        if let Some(issue) = portability_issue(path.file_name()) {
            let path = path.clone();
            meter.warn(Warning::Unportable { path, issue });
        }
    }
    Ok(Scan {
        shared: root.clone(),
        root,
        files,
        dirs: dirs.into_iter().map(|(path, _)| path).collect(),
    })
}

/// Takes the identity of a file: the one call that a known file costs.
fn look(root: &Path, path: PackPath, place: PathBuf, meter: &Meter<'_>) -> Result<Found, ShareError> {
    if meter.cancelled() {
        return Err(ShareError::Cancelled);
    }
    let full = root.join(&place);
    let identity =
        std::fs::symlink_metadata(fs::literal(&full)).and_then(|metadata| fs::identity_from(&full, &metadata));
    let identity = identity.map_err(|source| ShareError::Io { path: full, source })?;
    meter.add_file();
    Ok(Found { path, place, identity })
}

fn walk_error(root: &Path, e: ignore::Error) -> ShareError {
    fn path_of(e: &ignore::Error) -> Option<PathBuf> {
        match e {
            ignore::Error::WithPath { path, .. } => Some(path.clone()),
            ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => path_of(err),
            _ => None,
        }
    }
    let path = path_of(&e).unwrap_or_else(|| root.to_owned());
    let text = e.to_string();
    ShareError::Io {
        path,
        source: e.into_io_error().unwrap_or_else(|| std::io::Error::other(text)),
    }
}

/// Refuses names that NFC makes one; warns of names that some systems take for one.
fn check_twins(
    root: &Path,
    files: &[Found],
    dirs: &[(PackPath, PathBuf)],
    meter: &Meter<'_>,
) -> Result<(), ShareError> {
    let all = || {
        let files = files.iter().map(|file| (&file.path, file.place.as_path()));
        files.chain(dirs.iter().map(|(path, place)| (path, place.as_path())))
    };
    // Most folders have no twins: numbers tell so, and only names whose numbers are the same are compared.
    let hasher = RandomState::new();
    let mut hashes: Vec<u64> = all().map(|(path, _)| hasher.hash_one(folded_name(path))).collect();
    let by_place = hashes.clone();
    hashes.sort_unstable();
    let twins: HashSet<u64> = hashes
        .windows(2)
        .filter(|two| two[0] == two[1])
        .map(|two| two[0])
        .collect();
    drop(hashes);
    if twins.is_empty() {
        return Ok(());
    }
    let all = || {
        let marked = all().zip(&by_place).filter(|(_, hash)| twins.contains(hash));
        marked.map(|(entry, _)| entry)
    };
    let mut seen: HashMap<&PackPath, &Path> = HashMap::new();
    let mut refused = Vec::new();
    for (path, place) in all() {
        if let Some(other) = seen.insert(path, place) {
            refused.push((root.join(other), root.join(place)));
        }
    }
    if !refused.is_empty() {
        return Err(ShareError::Twins(refused));
    }
    drop(seen);
    let mut folded: HashMap<String, &PackPath> = HashMap::new();
    for (path, _) in all() {
        if let Some(other) = folded.insert(folded_name(path), path) {
            meter.warn(Warning::CaseTwins(other.clone(), path.clone()));
        }
    }
    Ok(())
}

/// The same for paths that Windows and macOS take for one.
fn folded_name(path: &PackPath) -> String {
    let text = path.as_str();
    if text.is_ascii() {
        text.to_ascii_lowercase()
    } else {
        case_key(text)
    }
}
