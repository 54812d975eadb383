//! The operating system as a [`Backend`]: each call goes to the functions of this system's side.

use std::{
    any::Any,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    sync::Mutex,
    time::UNIX_EPOCH,
};

use super::sys;
use crate::backend::{Backend, BackendDir, BackendFile, Entry, Identity, Onto};

/// The operating system's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemBackend;

/// A file of the system. Who writes to it holds the lock: systems let one writer at a time into a file, and Linux has the others spin meanwhile.
#[derive(Debug)]
struct SystemFile(fs::File, Mutex<()>);

/// A folder of the system.
#[derive(Debug)]
struct SystemDir(sys::Dir);

fn file(opened: io::Result<fs::File>) -> io::Result<Box<dyn BackendFile>> {
    Ok(Box::new(SystemFile(opened?, Mutex::default())))
}

fn entry_of(path: &Path, metadata: &fs::Metadata) -> io::Result<Entry> {
    let kind = metadata.file_type();
    Ok(if kind.is_file() {
        Entry::File(sys::identity_from(path, metadata)?)
    } else if kind.is_dir() {
        Entry::Folder
    } else if kind.is_symlink() {
        Entry::Symlink
    } else {
        Entry::Special
    })
}

impl Backend for SystemBackend {
    fn open(&self, path: &Path) -> io::Result<Box<dyn BackendFile>> {
        file(sys::open_read(path))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn BackendFile>> {
        file(fs::File::create(sys::literal(path)))
    }

    fn open_dir(&self, path: &Path) -> io::Result<Box<dyn BackendDir>> {
        Ok(Box::new(SystemDir(sys::Dir::open(path)?)))
    }

    #[cfg(target_os = "linux")]
    fn open_resolved(&self, path: &Path) -> io::Result<Box<dyn BackendDir>> {
        Ok(Box::new(SystemDir(sys::Dir::open_resolved(path)?)))
    }

    fn entry(&self, path: &Path) -> io::Result<Entry> {
        entry_of(path, &fs::symlink_metadata(sys::literal(path))?)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<(OsString, Entry)>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(sys::literal(path))? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // It went away meanwhile.
                Err(e) if super::is_gone(&e) => continue,
                Err(e) => return Err(e),
            };
            entries.push((entry.file_name(), entry_of(&entry.path(), &metadata)?));
        }
        Ok(entries)
    }

    fn create_dirs(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(sys::literal(path))
    }

    fn replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(sys::literal(from), sys::literal(to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(sys::literal(path))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(sys::literal(path))
    }

    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(sys::literal(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        sys::sync_dir(path)
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        dunce::canonicalize(path)
    }

    #[cfg(target_os = "linux")]
    fn share_blocks(&self, from: &Path, to: &Path, at: u64, len: u64) -> io::Result<bool> {
        sys::share_blocks(from, to, at, len)
    }

    fn free_space(&self, path: &Path) -> Option<u64> {
        sys::free_space(path)
    }

    fn device(&self, path: &Path) -> io::Result<u64> {
        sys::device(path)
    }

    fn now_ns(&self) -> i64 {
        super::now_ns()
    }
}

impl BackendFile for SystemFile {
    fn identity(&self) -> io::Result<Identity> {
        sys::identity(&self.0)
    }

    fn born(&self) -> i64 {
        let created = self.0.metadata().and_then(|metadata| metadata.created());
        let since = created.ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        since.map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(0))
    }

    #[cfg(unix)]
    fn has_other_names(&self) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        self.0.metadata().is_ok_and(|metadata| metadata.nlink() > 1)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        sys::read_exact_at(&self.0, buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let _turn = crate::lock(&self.1);
        sys::write_all_at(&self.0, buf, offset)
    }

    #[cfg(target_os = "linux")]
    fn write_all_vectored_at(&self, bufs: &[&[u8]], offset: u64) -> io::Result<()> {
        let _turn = crate::lock(&self.1);
        sys::write_all_vectored_at(&self.0, bufs, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    #[cfg(target_os = "linux")]
    fn share_range(&self, from: &dyn BackendFile, from_at: u64, at: u64, len: u64) -> io::Result<bool> {
        match from.as_any().and_then(|from| from.downcast_ref::<Self>()) {
            Some(from) => sys::share_range(&from.0, from_at, &self.0, at, len),
            None => Ok(false),
        }
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }

    fn advise_sequential(&self) {
        sys::advise_sequential(&self.0);
    }

    fn read_ahead(&self, offset: u64, len: u64) {
        sys::read_ahead(&self.0, offset, len);
    }
}

impl BackendDir for SystemDir {
    fn folder(&self, name: &str) -> io::Result<Box<dyn BackendDir>> {
        Ok(Box::new(Self(self.0.folder(name)?)))
    }

    fn make_folder(&self, name: &str) -> io::Result<(Box<dyn BackendDir>, bool)> {
        let (dir, made) = self.0.make_folder(name)?;
        Ok((Box::new(Self(dir)), made))
    }

    fn entry(&self, name: &str) -> io::Result<Option<Entry>> {
        self.0.entry(name)
    }

    fn open_file(&self, name: &str) -> io::Result<Box<dyn BackendFile>> {
        file(self.0.open_file(name))
    }

    fn open_file_rw(&self, name: &str) -> io::Result<Box<dyn BackendFile>> {
        file(self.0.open_file_rw(name))
    }

    fn create_file(&self, name: &str) -> io::Result<Box<dyn BackendFile>> {
        file(self.0.create_file(name))
    }

    fn rename_from(&self, from: &dyn BackendDir, from_name: &str, name: &str, onto: Onto) -> io::Result<bool> {
        let from = from
            .as_any()
            .downcast_ref::<Self>()
            .ok_or_else(|| io::Error::from(io::ErrorKind::CrossesDevices))?;
        self.0.rename_from(&from.0, from_name, name, onto)
    }

    fn remove_file(&self, name: &str) -> io::Result<()> {
        self.0.remove_file(name)
    }

    fn sync_files(&self, names: &[String]) -> io::Result<()> {
        sys::sync_files(&self.0, names)
    }

    fn sync_folders(&self, dirs: &[&str]) -> io::Result<()> {
        sys::sync_folders(&self.0, dirs)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
