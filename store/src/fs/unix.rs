//! The Unix side.

use std::{
    borrow::Cow,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{
            ffi::{OsStrExt as _, OsStringExt as _},
            fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _},
        },
    },
    path::{Path, PathBuf},
};

use modswarm_protocol::format::Name;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat};

use super::{Entry, Identity, Onto};

/// A path as the index keeps it.
pub(crate) fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// The path that [`path_bytes`] gave.
pub(crate) fn path_from(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

/// `path` so that the system takes it letter by letter, as this one always does.
pub(crate) fn literal(path: &Path) -> Cow<'_, Path> {
    Cow::Borrowed(path)
}

/// The bytes of a name, UTF-8 if it is text at all.
pub(crate) fn name_bytes(name: &OsStr) -> &[u8] {
    name.as_bytes()
}

/// The identity of the file at `path`, whose metadata were just taken.
#[allow(clippy::unnecessary_wraps, reason = "the Windows side opens the file")]
pub(crate) fn identity_from(_path: &Path, metadata: &fs::Metadata) -> io::Result<Identity> {
    Ok(identity_of(metadata))
}

fn identity_of(metadata: &fs::Metadata) -> Identity {
    let ns = |s: i64, ns: i64| s.saturating_mul(1_000_000_000).saturating_add(ns);
    Identity {
        dev: metadata.dev(),
        file: metadata.ino(),
        size: metadata.size(),
        mtime: ns(metadata.mtime(), metadata.mtime_nsec()),
        ctime: ns(metadata.ctime(), metadata.ctime_nsec()),
    }
}

/// The identity of an open file.
pub(crate) fn identity(file: &File) -> io::Result<Identity> {
    Ok(identity_of(&file.metadata()?))
}

/// Opens a regular file for reading; a symlink, pipe or device gives `NotFound`, and none of them makes it wait.
pub(crate) fn open_read(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path)
        .map_err(|e| match rustix::io::Errno::from_io_error(&e) {
            Some(rustix::io::Errno::LOOP) => io::ErrorKind::NotFound.into(),
            _ => e,
        })?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Fills `buf` from `offset`; `UnexpectedEof` if the file ends before.
pub(crate) fn read_exact_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<()> {
    file.read_exact_at(buf, offset)
}

/// Writes all of `buf` at `offset`.
pub(crate) fn write_all_at(file: &File, buf: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(buf, offset)
}

/// Writes all of `bufs`, one behind the other, from `offset` on.
#[cfg(target_os = "linux")]
pub(crate) fn write_all_vectored_at(file: &File, bufs: &[&[u8]], mut offset: u64) -> io::Result<()> {
    /// More than so many at once are refused.
    const BUFS_MAX: usize = 1024;
    let mut slices: Vec<io::IoSlice<'_>> = bufs.iter().map(|buf| io::IoSlice::new(buf)).collect();
    let mut rest = &mut slices[..];
    // Those without bytes at the front are passed over too.
    io::IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        let now = &rest[..rest.len().min(BUFS_MAX)];
        match rustix::io::pwritev(file, now, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                offset += n as u64;
                io::IoSlice::advance_slices(&mut rest, n);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Says that a file will be read once from start to end.
pub(crate) fn advise_sequential(file: &File) {
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::Sequential);
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// Says that `len` bytes from `offset` will be read soon.
pub(crate) fn read_ahead(file: &File, offset: u64, len: u64) {
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fadvise(
        file,
        offset,
        std::num::NonZeroU64::new(len),
        rustix::fs::Advice::WillNeed,
    );
    #[cfg(not(target_os = "linux"))]
    let _ = (file, offset, len);
}

/// From here on, syncing a whole file system is cheaper than every file for itself.
#[cfg(target_os = "linux")]
const SYNC_ALL_MIN: usize = 32;

/// Makes the bytes of the files `names` in `dir` durable.
pub(crate) fn sync_files(dir: &Dir, names: &[String]) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if names.len() >= SYNC_ALL_MIN {
        return Ok(rustix::fs::syncfs(&dir.0)?);
    }
    for name in names {
        match dir.open_file(name) {
            Ok(file) => file.sync_data()?,
            Err(e) if super::is_gone(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Makes the names in `root` and in the folders `dirs` below it (paths with `/`) durable.
pub(crate) fn sync_folders(root: &Dir, dirs: &[&str]) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if dirs.len() >= SYNC_ALL_MIN {
        return Ok(rustix::fs::syncfs(&root.0)?);
    }
    root.sync()?;
    for path in dirs {
        let mut dir: Option<Dir> = None;
        for name in path.split('/') {
            dir = Some(dir.as_ref().unwrap_or(root).folder(name)?);
        }
        if let Some(dir) = dir {
            dir.sync()?;
        }
    }
    Ok(())
}

/// Makes a folder (and its parents) that only its owner can look into.
pub(crate) fn create_private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes `len` bytes of `to` from `at` share the blocks of the whole file `from`; `false` where the file system cannot.
#[cfg(target_os = "linux")]
pub(crate) fn share_blocks(from: &Path, to: &Path, at: u64, len: u64) -> io::Result<bool> {
    let from = open_read(from)?;
    let to = fs::OpenOptions::new().write(true).open(to)?;
    share_range(&from, 0, &to, at, len)
}

/// Makes `len` bytes of `to` from `at` share the blocks of as many bytes of `from` from `from_at`; `false` where the file system cannot.
#[cfg(target_os = "linux")]
pub(crate) fn share_range(from: &File, from_at: u64, to: &File, at: u64, len: u64) -> io::Result<bool> {
    use rustix::io::Errno;
    let Some(bytes) = std::num::NonZeroU64::new(len) else {
        return Ok(false);
    };
    let cloned = reflink_copy::ReflinkBlockBuilder::new(from, to, bytes)
        .from_offset(from_at)
        .to_offset(at)
        .reflink_block();
    match cloned {
        Ok(()) => Ok(true),
        Err(e) => match Errno::from_io_error(&e) {
            // Another file system, one without shared blocks, or one with other blocks.
            Some(
                Errno::XDEV
                | Errno::OPNOTSUPP
                | Errno::NOTTY
                | Errno::NOSYS
                | Errno::INVAL
                | Errno::TXTBSY
                | Errno::PERM,
            ) => Ok(false),
            _ => Err(e),
        },
    }
}

/// Bytes that this user can still write to the disk of `path`.
pub(crate) fn free_space(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

/// The device of `path`'s file system.
pub(crate) fn device(path: &Path) -> io::Result<u64> {
    Ok(fs::metadata(path)?.dev())
}

/// Whether names of this folder that differ only in case are one. Asked of the folder itself where the system does not tell.
pub(crate) const CASE_FOLDS: bool = cfg!(target_os = "macos");

/// Why this system cannot create a file of this name.
pub(crate) fn name_issue(name: &str) -> Option<String> {
    (name.len() > 255).then(|| "names of more than 255 bytes are too long here".to_owned())
}

/// The name that the folder of a pack of the name `name` gets on this system.
pub fn folder_name(name: &Name) -> Name {
    name.clone()
}

/// An open folder. Names are looked up in it without following symlinks.
#[derive(Debug)]
pub(crate) struct Dir(OwnedFd);

const DIR_FLAGS: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Dir {
    /// Opens the folder at `path`, following symlinks: the user chose it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Opens the folder at `path`; a symlink anywhere on the way gives `NotADirectory`.
    #[cfg(target_os = "linux")]
    pub(crate) fn open_resolved(path: &Path) -> io::Result<Self> {
        use rustix::{fs::ResolveFlags, io::Errno};
        match rustix::fs::openat2(
            rustix::fs::CWD,
            path,
            DIR_FLAGS,
            Mode::empty(),
            ResolveFlags::NO_SYMLINKS,
        ) {
            Ok(fd) => Ok(Self(fd)),
            Err(Errno::LOOP) => Err(io::ErrorKind::NotADirectory.into()),
            // An old kernel, or a sandbox that does not know the call: as near to it as there is.
            Err(Errno::NOSYS | Errno::PERM) if path.canonicalize()? != path => Err(io::ErrorKind::NotADirectory.into()),
            Err(Errno::NOSYS | Errno::PERM) => Ok(Self(rustix::fs::open(path, DIR_FLAGS, Mode::empty())?)),
            Err(e) => Err(e.into()),
        }
    }

    /// The folder `name` in this one. A symlink or file gives `NotADirectory`.
    pub(crate) fn folder(&self, name: &str) -> io::Result<Self> {
        match rustix::fs::openat(&self.0, name, DIR_FLAGS, Mode::empty()) {
            Ok(fd) => Ok(Self(fd)),
            Err(rustix::io::Errno::LOOP) => Err(io::ErrorKind::NotADirectory.into()),
            Err(e) => Err(e.into()),
        }
    }

    /// As [`Dir::folder`], made where there is none. Says whether it was made.
    pub(crate) fn make_folder(&self, name: &str) -> io::Result<(Self, bool)> {
        let made = match rustix::fs::mkdirat(&self.0, name, Mode::from_raw_mode(0o777)) {
            Ok(()) => true,
            Err(rustix::io::Errno::EXIST) => false,
            Err(e) => return Err(e.into()),
        };
        Ok((self.folder(name)?, made))
    }

    /// What stands under `name`; `None` if nothing does.
    pub(crate) fn entry(&self, name: &str) -> io::Result<Option<Entry>> {
        let stat = match rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Entry::File(stat_identity(&stat)),
            FileType::Directory => Entry::Folder,
            FileType::Symlink => Entry::Symlink,
            _ => Entry::Special,
        }))
    }

    /// Opens the regular file `name` for reading; a symlink gives `NotFound`.
    pub(crate) fn open_file(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.0, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(rustix::io::Errno::LOOP) => return Err(io::ErrorKind::NotFound.into()),
            Err(e) => return Err(e.into()),
        };
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    /// Opens the regular file `name` for reading and writing; a symlink gives `NotFound`.
    pub(crate) fn open_file_rw(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.0, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(rustix::io::Errno::LOOP) => return Err(io::ErrorKind::NotFound.into()),
            Err(e) => return Err(e.into()),
        };
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    /// Makes the file `name`; `AlreadyExists` if anything stands there.
    pub(crate) fn create_file(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.0, name, flags, Mode::from_raw_mode(0o666))?;
        Ok(File::from(fd))
    }

    /// Moves `from_name` of the folder `from` to `name` in this one. Says whether what stood there is now under the old name.
    pub(crate) fn rename_from(&self, from: &Self, from_name: &str, name: &str, onto: Onto) -> io::Result<bool> {
        use rustix::io::Errno;
        let flags = match onto {
            Onto::Nothing => RenameFlags::NOREPLACE,
            Onto::Exchange => RenameFlags::EXCHANGE,
        };
        match (rename_with(&from.0, from_name, &self.0, name, flags), onto) {
            (Ok(()), _) => Ok(onto == Onto::Exchange),
            // A file system without the flag: a hard link never replaces, and a plain rename always does.
            (Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP), Onto::Nothing) => {
                match rustix::fs::linkat(&from.0, from_name, &self.0, name, AtFlags::empty()) {
                    Ok(()) => rustix::fs::unlinkat(&from.0, from_name, AtFlags::empty())?,
                    Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => {
                        if self.entry(name)?.is_some() {
                            return Err(io::ErrorKind::AlreadyExists.into());
                        }
                        rustix::fs::renameat(&from.0, from_name, &self.0, name)?;
                    }
                    Err(e) => return Err(e.into()),
                }
                Ok(false)
            }
            (Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP), Onto::Exchange) => {
                rustix::fs::renameat(&from.0, from_name, &self.0, name)?;
                Ok(false)
            }
            (Err(e), _) => Err(e.into()),
        }
    }

    /// Deletes the file `name`.
    pub(crate) fn remove_file(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name, AtFlags::empty())?)
    }

    /// Makes the names in it durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(self.0.as_fd())?)
    }
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
fn rename_with(
    from: &OwnedFd,
    from_name: &str,
    to: &OwnedFd,
    name: &str,
    flags: RenameFlags,
) -> rustix::io::Result<()> {
    rustix::fs::renameat_with(from, from_name, to, name, flags)
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn rename_with(_: &OwnedFd, _: &str, _: &OwnedFd, _: &str, _: RenameFlags) -> rustix::io::Result<()> {
    Err(rustix::io::Errno::NOSYS)
}

#[allow(clippy::unnecessary_cast, reason = "the widths differ between systems")]
fn stat_identity(stat: &Stat) -> Identity {
    let ns = |s: i64, ns: i64| s.saturating_mul(1_000_000_000).saturating_add(ns);
    Identity {
        dev: stat.st_dev as u64,
        file: stat.st_ino as u64,
        size: stat.st_size as u64,
        mtime: ns(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
        ctime: ns(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
    }
}
