//! The Windows side. A game and its mod manager may use, rename and delete files while we hold them: everything is opened with all
//! share modes. Folders are paths here, and every step into one checks that it is no symlink or junction.

use std::{
    borrow::Cow,
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io,
    os::windows::{
        fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
        io::AsRawHandle as _,
    },
    path::{Component, Path, PathBuf, Prefix},
};

use modswarm_protocol::format::{
    Name,
    path::{PortabilityIssue, portability_issue},
};
use windows_sys::Win32::{
    Foundation::ERROR_ACCESS_DENIED,
    Storage::FileSystem as win,
    System::{IO as ioctl, Ioctl::FSCTL_SET_SPARSE},
};

use super::{Entry, Identity, Onto};

const SHARE_ALL: u32 = win::FILE_SHARE_READ | win::FILE_SHARE_WRITE | win::FILE_SHARE_DELETE;
/// Opens folders too, and reparse points themselves.
const FLAGS: u32 = win::FILE_FLAG_BACKUP_SEMANTICS | win::FILE_FLAG_OPEN_REPARSE_POINT;

/// A path as the index keeps it. Unpaired surrogates, which no pack can hold, do not come back as they were.
pub(crate) fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}

/// The path that [`path_bytes`] gave.
pub(crate) fn path_from(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(&bytes).into_owned())
}

/// `path` so that the system takes it letter by letter: names of devices, dots and spaces at the end, and any length. A path that is not whole, or that
/// leads up, stays as it is.
pub(crate) fn literal(path: &Path) -> Cow<'_, Path> {
    let mut components = path.components();
    let Some(Component::Prefix(prefix)) = components.next() else {
        return Cow::Borrowed(path);
    };
    let mut text = OsString::from(r"\\?\");
    match prefix.kind() {
        Prefix::Disk(_) if path.has_root() => text.push(prefix.as_os_str()),
        Prefix::UNC(server, share) => {
            for part in [r"UNC\".as_ref(), server, r"\".as_ref(), share] {
                text.push(part);
            }
        }
        _ => return Cow::Borrowed(path),
    }
    for component in components {
        match component {
            Component::Normal(name) => {
                text.push(r"\");
                text.push(name);
            }
            Component::ParentDir => return Cow::Borrowed(path),
            _ => {}
        }
    }
    // The root of a disk is not the disk.
    if path.parent().is_none() {
        text.push(r"\");
    }
    Cow::Owned(text.into())
}

/// The bytes of a name, UTF-8 if it is text at all.
pub(crate) fn name_bytes(name: &OsStr) -> &[u8] {
    name.as_encoded_bytes()
}

fn open_with(path: &Path, access: u32) -> io::Result<File> {
    OpenOptions::new()
        .access_mode(access)
        .share_mode(SHARE_ALL)
        .custom_flags(FLAGS)
        .open(literal(path))
}

/// The identity of the file at `path`, whose metadata were just taken.
pub(crate) fn identity_from(path: &Path, _metadata: &fs::Metadata) -> io::Result<Identity> {
    identity(&open_with(path, 0)?)
}

/// The identity of an open file. Where the file system does not know when its metadata changed, the write time stands for both.
pub(crate) fn identity(file: &File) -> io::Result<Identity> {
    // SAFETY: all-zero bytes are a valid value of this plain C struct.
    let mut info: win::BY_HANDLE_FILE_INFORMATION = unsafe { std::mem::zeroed() };
    // SAFETY: the handle is open as long as `file`, and `info` is a valid place for the answer.
    if unsafe { win::GetFileInformationByHandle(file.as_raw_handle().cast(), &mut info) } == 0 {
        return Err(io::Error::last_os_error());
    }
    let join = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
    // In 100 ns since 1601.
    let ticks = join(info.ftLastWriteTime.dwHighDateTime, info.ftLastWriteTime.dwLowDateTime);
    let since_1970 = |ticks: i64| ticks.saturating_sub(116_444_736_000_000_000).saturating_mul(100);
    let written = since_1970(ticks as i64);
    let changed = change_time(file).map_or(written, since_1970);
    Ok(Identity {
        dev: u64::from(info.dwVolumeSerialNumber),
        file: join(info.nFileIndexHigh, info.nFileIndexLow),
        size: join(info.nFileSizeHigh, info.nFileSizeLow),
        mtime: written,
        ctime: changed,
    })
}

/// When the metadata of an open file changed, in 100 ns since 1601, if the file system knows.
fn change_time(file: &File) -> Option<i64> {
    // SAFETY: all-zero bytes are a valid value of this plain C struct.
    let mut info: win::FILE_BASIC_INFO = unsafe { std::mem::zeroed() };
    // SAFETY: the handle is open as long as `file`, and `info` is a valid place of the said size for the answer.
    let ok = unsafe {
        win::GetFileInformationByHandleEx(
            file.as_raw_handle().cast(),
            win::FileBasicInfo,
            std::ptr::from_mut(&mut info).cast(),
            size_of::<win::FILE_BASIC_INFO>() as u32,
        )
    };
    (ok != 0 && info.ChangeTime != 0).then_some(info.ChangeTime)
}

/// A path for the system's own calls: of any length, and ended with a zero.
fn wide(path: &Path) -> Vec<u16> {
    use std::os::windows::ffi::OsStrExt as _;
    let whole = if path.is_absolute() {
        Cow::Borrowed(path)
    } else {
        Cow::Owned(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
    };
    literal(&whole).as_os_str().encode_wide().chain([0]).collect()
}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Opens a regular file for reading; a symlink or folder gives `NotFound`.
pub(crate) fn open_read(path: &Path) -> io::Result<File> {
    regular(open_with(path, win::FILE_GENERIC_READ)?)
}

/// Fills `buf` from `offset`; `UnexpectedEof` if the file ends before.
pub(crate) fn read_exact_at(file: &File, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        let read = file.seek_read(buf, offset)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buf = &mut buf[read..];
        offset += read as u64;
    }
    Ok(())
}

/// Writes all of `buf` at `offset`.
pub(crate) fn write_all_at(file: &File, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        let written = file.seek_write(buf, offset)?;
        buf = &buf[written..];
        offset += written as u64;
    }
    Ok(())
}

/// Says that a file will be read once from start to end.
pub(crate) fn advise_sequential(_file: &File) {}

/// Says that `len` bytes from `offset` will be read soon. Windows has no call for it; it reads sequential files ahead by itself.
pub(crate) fn read_ahead(_file: &File, _offset: u64, _len: u64) {}

/// Makes the bytes of the files `names` in `dir` durable.
pub(crate) fn sync_files(dir: &Dir, names: &[String]) -> io::Result<()> {
    for name in names {
        match dir.open_file_rw(name) {
            Ok(file) => file.sync_data()?,
            Err(e) if super::is_gone(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// NTFS keeps names in its journal; there is no call to wait for it without rights over the volume.
pub(crate) fn sync_folders(_root: &Dir, _dirs: &[&str]) -> io::Result<()> {
    Ok(())
}

/// Makes a folder and its parents. Profiles are private to their users.
pub(crate) fn create_private_dir(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

/// See [`sync_folders`].
pub(crate) fn sync_dir(_path: &Path) -> io::Result<()> {
    Ok(())
}

/// Bytes that this user can still write to the disk of `path`.
pub(crate) fn free_space(path: &Path) -> Option<u64> {
    let path = wide(path);
    let mut free = 0;
    // SAFETY: `path` ends with a zero and `free` is a valid place for the answer; the other two may be null.
    let ok = unsafe { win::GetDiskFreeSpaceExW(path.as_ptr(), &mut free, std::ptr::null_mut(), std::ptr::null_mut()) };
    (ok != 0).then_some(free)
}

/// The volume of `path`.
pub(crate) fn device(path: &Path) -> io::Result<u64> {
    Ok(identity(&open_with(path, 0)?)?.dev)
}

/// Lets what is never written take no room. Without it, writing at the end of a new file makes Windows write zeros up to there. Not every file system can.
fn make_sparse(file: &File) {
    let mut returned = 0;
    // SAFETY: the handle is open as long as `file`; this request has no input and no output, and `returned` is a valid place for their length.
    unsafe {
        ioctl::DeviceIoControl(
            file.as_raw_handle().cast(),
            FSCTL_SET_SPARSE,
            std::ptr::null(),
            0,
            std::ptr::null_mut(),
            0,
            &mut returned,
            std::ptr::null_mut(),
        )
    };
}

/// Names that differ only in case are one.
pub(crate) const CASE_FOLDS: bool = true;

/// Why this system cannot create a file of this name.
pub(crate) fn name_issue(name: &str) -> Option<String> {
    match portability_issue(name)? {
        PortabilityIssue::Deceptive => None,
        issue => Some(issue.to_string()),
    }
}

/// The name that the folder of a pack of the name `name` gets on this system: `name`, with `_` in the place of what Windows does not allow.
pub fn folder_name(name: &Name) -> Name {
    let mut text = name.as_str().to_owned();
    while let Some(issue) = portability_issue(&text) {
        text = match issue {
            PortabilityIssue::Character(c) => text.replace(c, "_"),
            PortabilityIssue::TrailingDotOrSpace => format!("{}_", text.trim_end_matches(['.', ' '])),
            PortabilityIssue::Reserved => format!("_{text}"),
            PortabilityIssue::TooLong => {
                let mut cut = 255;
                while !text.is_char_boundary(cut) {
                    cut -= 1;
                }
                text[..cut].to_owned()
            }
            PortabilityIssue::Deceptive => break,
        };
    }
    // What was put in is allowed in every name.
    Name::new(&text).unwrap_or_else(|_| name.clone())
}

/// A folder, checked to be no symlink or junction when it was stepped into.
#[derive(Debug)]
pub(crate) struct Dir(PathBuf);

impl Dir {
    /// Opens the folder at `path`, following symlinks: the user chose it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let path = literal(path);
        if fs::metadata(&path)?.is_dir() {
            Ok(Self(path.into_owned()))
        } else {
            Err(io::ErrorKind::NotADirectory.into())
        }
    }

    /// The path of `name` in this folder. Refuses what Windows would take for another folder or disk, or for a stream of a file.
    fn at(&self, name: &str) -> io::Result<PathBuf> {
        if name.contains([':', '\\', '/']) || matches!(name, "" | "." | "..") {
            return Err(io::ErrorKind::InvalidFilename.into());
        }
        Ok(self.0.join(name))
    }

    /// The folder `name` in this one. A symlink, junction or file gives `NotADirectory`.
    pub(crate) fn folder(&self, name: &str) -> io::Result<Self> {
        let path = self.at(name)?;
        let metadata = fs::symlink_metadata(&path)?;
        let reparse = metadata.file_attributes() & win::FILE_ATTRIBUTE_REPARSE_POINT != 0;
        if metadata.is_dir() && !reparse {
            Ok(Self(path))
        } else {
            Err(io::ErrorKind::NotADirectory.into())
        }
    }

    /// As [`Dir::folder`], made where there is none. Says whether it was made.
    pub(crate) fn make_folder(&self, name: &str) -> io::Result<(Self, bool)> {
        let made = match fs::create_dir(self.at(name)?) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
            Err(e) => return Err(e),
        };
        Ok((self.folder(name)?, made))
    }

    /// What stands under `name`; `None` if nothing does.
    pub(crate) fn entry(&self, name: &str) -> io::Result<Option<Entry>> {
        let path = self.at(name)?;
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        Ok(Some(
            if metadata.file_attributes() & win::FILE_ATTRIBUTE_REPARSE_POINT != 0 {
                Entry::Symlink
            } else if metadata.is_dir() {
                Entry::Folder
            } else if metadata.is_file() {
                Entry::File(identity_from(&path, &metadata)?)
            } else {
                Entry::Special
            },
        ))
    }

    /// Opens the regular file `name` for reading.
    pub(crate) fn open_file(&self, name: &str) -> io::Result<File> {
        open_read(&self.at(name)?)
    }

    /// Opens the regular file `name` for reading and writing.
    pub(crate) fn open_file_rw(&self, name: &str) -> io::Result<File> {
        regular(open_with(
            &self.at(name)?,
            win::FILE_GENERIC_READ | win::FILE_GENERIC_WRITE,
        )?)
    }

    /// Makes the file `name`; `AlreadyExists` if anything stands there.
    pub(crate) fn create_file(&self, name: &str) -> io::Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .share_mode(SHARE_ALL)
            .open(self.at(name)?)?;
        make_sparse(&file);
        Ok(file)
    }

    /// Moves `from_name` of the folder `from` to `name` in this one. Windows has no exchange: what stood there is replaced.
    pub(crate) fn rename_from(&self, from: &Self, from_name: &str, name: &str, onto: Onto) -> io::Result<bool> {
        let (old, new) = (wide(&from.at(from_name)?), wide(&self.at(name)?));
        let flags = match onto {
            Onto::Nothing => win::MOVEFILE_WRITE_THROUGH,
            Onto::Exchange => win::MOVEFILE_WRITE_THROUGH | win::MOVEFILE_REPLACE_EXISTING,
        };
        // SAFETY: both are paths that end with a zero.
        if unsafe { win::MoveFileExW(old.as_ptr(), new.as_ptr(), flags) } != 0 {
            return Ok(false);
        }
        let refused = io::Error::last_os_error();
        if onto == Onto::Nothing || refused.raw_os_error() != Some(ERROR_ACCESS_DENIED as i32) {
            return Err(refused);
        }
        // A game, or a reader of ours, has open what is replaced. The standard library's call falls back to POSIX's way, which takes the name from such a
        // file at once; that has no flag for writing through, so the file is flushed, and on NTFS its name with it.
        let file = from.open_file_rw(from_name)?;
        fs::rename(from.at(from_name)?, self.at(name)?)?;
        file.sync_all()?;
        Ok(false)
    }

    /// Deletes the file `name`.
    pub(crate) fn remove_file(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.at(name)?)
    }

    /// See [`sync_folders`].
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
