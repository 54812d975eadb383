//! A disk that ends at a folder: whatever an index says, nothing outside is so much as looked at, and a folder is deleted with all that is in it only if it
//! is a staging folder, or part of the home.

use std::{
    ffi::OsString,
    io,
    path::{Component, Path, PathBuf},
};

use modswarm_store::backend::{Backend, BackendDir, BackendFile, Entry, SystemBackend};

/// The operating system, below one folder.
#[derive(Debug)]
pub struct Guard {
    pub root: PathBuf,
    pub home: PathBuf,
}

impl Guard {
    /// `path`, if it is below the root; an error as of a file that belongs to somebody else otherwise.
    fn within<'a>(&self, path: &'a Path) -> io::Result<&'a Path> {
        let climbs = path.components().any(|c| matches!(c, Component::ParentDir));
        if path.starts_with(&self.root) && !climbs {
            Ok(path)
        } else {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
}

impl Backend for Guard {
    fn open(&self, path: &Path) -> io::Result<Box<dyn BackendFile>> {
        SystemBackend.open(self.within(path)?)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn BackendFile>> {
        assert!(path.starts_with(&self.home), "{path:?} would be emptied");
        SystemBackend.create(self.within(path)?)
    }

    fn open_dir(&self, path: &Path) -> io::Result<Box<dyn BackendDir>> {
        SystemBackend.open_dir(self.within(path)?)
    }

    fn entry(&self, path: &Path) -> io::Result<Entry> {
        SystemBackend.entry(self.within(path)?)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<(OsString, Entry)>> {
        SystemBackend.read_dir(self.within(path)?)
    }

    fn create_dirs(&self, path: &Path) -> io::Result<()> {
        SystemBackend.create_dirs(self.within(path)?)
    }

    fn replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        SystemBackend.replace(self.within(from)?, self.within(to)?)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        SystemBackend.remove_file(self.within(path)?)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        SystemBackend.remove_dir(self.within(path)?)
    }

    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let staging = name.starts_with(".modswarm-") && name.ends_with(".part");
        assert!(
            staging || path.starts_with(self.home.join("packs")),
            "all of {path:?} would be deleted"
        );
        SystemBackend.remove_tree(self.within(path)?)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        SystemBackend.sync_dir(self.within(path)?)
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        SystemBackend.resolve(self.within(path)?)
    }

    fn free_space(&self, path: &Path) -> Option<u64> {
        SystemBackend.free_space(self.within(path).ok()?)
    }

    fn device(&self, path: &Path) -> io::Result<u64> {
        SystemBackend.device(self.within(path)?)
    }

    fn now_ns(&self) -> i64 {
        SystemBackend.now_ns()
    }
}
