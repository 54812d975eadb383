//! One error type an operation, by what the caller can do about it. Causes are in `source()`.

use std::{
    io,
    path::{Path, PathBuf},
};

use modswarm_protocol::{
    Cid,
    format::{BuildError, NameError, PackPath, SkeletonError},
};
use thiserror::Error;

use crate::room::Shortage;

/// The home folder or its lock cannot be used.
#[derive(Debug, Error)]
#[error("the home folder is not usable at {path:?}")]
pub struct HomeError {
    /// What could not be made or opened.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// The index refused an operation.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum IndexError {
    /// Something else holds the index open for longer than is reasonable.
    #[error("the index is in use by another program; close it (a database browser, a backup) and try again")]
    Busy,
    /// The file is damaged.
    #[error("the index is damaged; rebuild it from the home's plain files")]
    Corrupt,
    /// The home cannot be written.
    #[error("the index cannot be written: the home is read-only; make its disk writable, or choose another home")]
    ReadOnly,
    /// No room left for the index.
    #[error("no room left on the disk that holds the home with its index; make room and try again")]
    DiskFull,
    /// A newer modswarm made it.
    #[error("the index was made by a newer modswarm (schema {found}, this one knows {known}); update this program")]
    Newer {
        /// Its `user_version`.
        found: i64,
        /// The latest that this program knows.
        known: i64,
    },
    /// The writer has ended; only after [`crate::Store::close`].
    #[error("the store is closed")]
    Closed,
    /// Anything else.
    #[error("the index failed: {0}")]
    Other(String),
}

impl IndexError {
    /// For a plain file of the home that cannot be written.
    pub(crate) fn of_home(path: &Path, source: &io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => Self::ReadOnly,
            _ => Self::Other(format!("{path:?} cannot be written: {source}")),
        }
    }
}

impl From<rusqlite::Error> for IndexError {
    fn from(e: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        match e.sqlite_error_code() {
            Some(Code::DatabaseBusy | Code::DatabaseLocked) => Self::Busy,
            Some(Code::DatabaseCorrupt | Code::NotADatabase) => Self::Corrupt,
            Some(Code::ReadOnly) => Self::ReadOnly,
            Some(Code::DiskFull) => Self::DiskFull,
            None if matches!(
                e,
                rusqlite::Error::FromSqlConversionFailure(..)
                    | rusqlite::Error::IntegralValueOutOfRange(..)
                    | rusqlite::Error::InvalidColumnType(..)
            ) =>
            {
                Self::Corrupt
            }
            _ => Self::Other(e.to_string()),
        }
    }
}

/// A store cannot be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The index cannot be used.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A thread could not be started.
    #[error("no thread could be started")]
    Thread(#[source] io::Error),
}

/// The index cannot be made anew. The old one is where it was put, and all files of packs are as they were.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RebuildError {
    /// The new one cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The new one refuses.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A file of the home cannot be read or moved.
    #[error("{path:?} cannot be read or moved aside")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The observer said so.
    #[error("cancelled")]
    Cancelled,
}

/// A folder cannot be shared.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ShareError {
    /// There is nothing at the path.
    #[error("there is nothing at {0:?}")]
    NotFound(PathBuf),
    /// The path is neither a file nor a folder.
    #[error("{0:?} is neither a file nor a folder")]
    NotShareable(PathBuf),
    /// Names that cannot be in a pack. All of them.
    #[error("{} names cannot be in a pack; the first: {:?}: {}", .0.len(), .0[0].0, .0[0].1)]
    Names(Vec<(PathBuf, NameError)>),
    /// Names that are one in Unicode NFC. All pairs.
    #[error("{} pairs of names are the same in Unicode; rename one of {:?} and {:?}", .0.len(), .0[0].0, .0[0].1)]
    Twins(Vec<(PathBuf, PathBuf)>),
    /// A file kept changing while it was read.
    #[error("{0:?} keeps changing while it is read; close the program that writes it and share again")]
    Changing(PathBuf),
    /// A file or folder cannot be read.
    #[error("{path:?} cannot be read")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no room for the copy that was asked for.
    #[error("the disk of {0:?} is full")]
    DiskFull(PathBuf),
    /// The copy that was asked for is beyond the quota, or would leave too little free.
    #[error(transparent)]
    NotAllowed(Shortage),
    /// The folder is beyond a limit of the format.
    #[error(transparent)]
    Format(#[from] BuildError),
    /// pack.json would be too large or make no sense.
    #[error("the pack's description cannot be stored: {0}")]
    Manifest(String),
    /// The index refused.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The observer said so.
    #[error("cancelled")]
    Cancelled,
}

/// A leaf cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadLeafError {
    /// No file of this home holds it, as far as the index knows.
    #[error("leaf {0} is not here")]
    NotHere(Cid),
    /// The index knew places, but none of them holds it any more. They have been dropped: see [`crate::Store::take_withdrawn`].
    #[error("leaf {0} is no longer here: the files that held it changed or are gone")]
    Lost(Cid),
    /// A file that should hold it cannot be read now. The place is kept.
    #[error("{path:?} cannot be read")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The index refused.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// A skeleton cannot be read back from the index.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SkeletonReadError {
    /// The nodes are here and make no sense together.
    #[error(transparent)]
    Skeleton(#[from] SkeletonError),
    /// The index refused.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// Something at a destination that no flag can take out of the way.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Blockage {
    /// A folder stands where a file belongs.
    #[error("a folder stands at {0:?}, where a file belongs; move it away")]
    FolderForFile(PathBuf),
    /// A file stands where a folder belongs.
    #[error("a file stands at {0:?}, where a folder belongs; move it away")]
    FileForFolder(PathBuf),
    /// A symlink stands where a folder belongs; it is never followed.
    #[error("a symbolic link stands at {0:?}, where a folder belongs; remove it or choose another folder")]
    Symlink(PathBuf),
    /// Neither a file nor a folder.
    #[error("{0:?} is neither a file nor a folder; move it away")]
    Special(PathBuf),
    /// This system cannot create the name.
    #[error("{0} cannot be created on this system: {1}; leave it out with --only")]
    Name(PackPath, String),
    /// Two files of the content that this disk takes for one.
    #[error("{0} and {1} differ only in case, and this disk can keep only one of them; leave one out with --only")]
    CaseTwins(PackPath, PackPath),
}

/// A download cannot be begun or resumed. Nothing of the user's has been touched.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BeginError {
    /// Files that differ are in the way. All of them, as paths in the content.
    #[error("{} files at {destination:?} differ from the pack's and would be overwritten; the first: {}", .files.len(), .files[0])]
    WouldOverwrite {
        /// The folder.
        destination: PathBuf,
        /// The files.
        files: Vec<PackPath>,
    },
    /// Something is in the way that is not overwritten even when asked. All of it.
    #[error("{}{}", .0[0], if .0.len() > 1 { format!(" (and {} more)", .0.len() - 1) } else { String::new() })]
    Blocked(Vec<Blockage>),
    /// Not enough room.
    #[error("not enough room for {path:?}: {needed} bytes are needed and {free} are free")]
    DiskFull {
        /// The destination.
        path: PathBuf,
        /// Bytes still to write.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// The user allows downloads less.
    #[error(transparent)]
    NotAllowed(#[from] Shortage),
    /// The content is not in the index: put its nodes first.
    #[error("the list of files of {0} is not here")]
    UnknownContent(Cid),
    /// Another download or share of this process is using the destination.
    #[error("another download is writing to {0:?}")]
    InUse(PathBuf),
    /// A file or folder cannot be used.
    #[error("{path:?} cannot be used")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The content's nodes make no sense.
    #[error(transparent)]
    Skeleton(#[from] SkeletonError),
    /// The index refused.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The observer said so.
    #[error("cancelled")]
    Cancelled,
}

impl From<SkeletonReadError> for BeginError {
    fn from(e: SkeletonReadError) -> Self {
        match e {
            SkeletonReadError::Skeleton(e) => Self::Skeleton(e),
            SkeletonReadError::Index(e) => Self::Index(e),
        }
    }
}

/// A piece cannot be written. What was written before stays.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// No room left; make some and go on.
    #[error("no room left on the disk that holds {0:?}")]
    DiskFull(PathBuf),
    /// The user wants more room left free.
    #[error(transparent)]
    NotAllowed(#[from] Shortage),
    /// The bytes are not as long as the piece: a defect of the caller.
    #[error("a piece of {expected} bytes was given {given}")]
    Length {
        /// Of the piece.
        expected: u32,
        /// Of the bytes.
        given: usize,
    },
    /// The download is finished or was removed.
    #[error("the download has ended")]
    Ended,
    /// A file cannot be written.
    #[error("{path:?} cannot be written")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The index refused.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// A download cannot be finished. What was written stays; it can be finished later.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FinishError {
    /// Pieces are missing: go on fetching.
    #[error("{0} pieces are missing")]
    Incomplete(u32),
    /// Files that differ appeared at the destination meanwhile. All of them.
    #[error("{} files at {destination:?} appeared or changed meanwhile and would be overwritten; the first: {}", .files.len(), .files[0])]
    WouldOverwrite {
        /// The folder.
        destination: PathBuf,
        /// The files.
        files: Vec<PackPath>,
    },
    /// Something is in the way that is not overwritten even when asked.
    #[error("{}", .0[0])]
    Blocked(Vec<Blockage>),
    /// No room left; make some and finish again.
    #[error("no room left on the disk that holds {0:?}")]
    DiskFull(PathBuf),
    /// The user wants more room left free.
    #[error(transparent)]
    NotAllowed(#[from] Shortage),
    /// A file or folder cannot be written.
    #[error("{path:?} cannot be written")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The index refused.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// A pack cannot be verified.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// There is no such pack.
    #[error("there is no such pack in this home")]
    Unknown,
    /// It is being written now.
    #[error("it is being downloaded now; wait until that has ended")]
    InUse,
    /// Its list of files is not here, or damaged: getting the pack again brings it back.
    #[error("the pack's list of files is missing or damaged; get the pack again")]
    SkeletonMissing,
    /// Its nodes make no sense.
    #[error(transparent)]
    Skeleton(#[from] SkeletonError),
    /// The index refused.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The observer said so.
    #[error("cancelled")]
    Cancelled,
}

impl From<SkeletonReadError> for VerifyError {
    fn from(e: SkeletonReadError) -> Self {
        match e {
            SkeletonReadError::Skeleton(e) => Self::Skeleton(e),
            SkeletonReadError::Index(e) => Self::Index(e),
        }
    }
}

/// The home cannot be cleared up. What was done stays done; it can be run again.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GcError {
    /// A file of the home cannot be read or written.
    #[error("{path:?} cannot be written anew")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The index refused.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The observer said so.
    #[error("cancelled")]
    Cancelled,
}

impl From<rusqlite::Error> for GcError {
    fn from(e: rusqlite::Error) -> Self {
        Self::Index(e.into())
    }
}

/// A pack cannot be moved. It is whole where it was.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MoveError {
    /// There is no such pack.
    #[error("there is no such pack in this home")]
    Unknown,
    /// A download to its folder has not ended.
    #[error("a download to its folder is not finished; finish or remove it first")]
    Unfinished,
    /// The target has no name that a folder could have.
    #[error("{0:?} is no name for a folder")]
    NoName(PathBuf),
    /// It is there already.
    #[error("it is at {0:?} already")]
    SamePlace(PathBuf),
    /// One of the two folders lies in the other.
    #[error("{to:?} and {from:?} lie one in the other; choose a folder outside")]
    Nested {
        /// Where it is.
        from: PathBuf,
        /// Where it was to go.
        to: PathBuf,
    },
    /// Another pack lies in its folder.
    #[error("the pack at {0:?} lies in its folder; move or remove that first")]
    Holds(PathBuf),
    /// Something is at the target.
    #[error("there is something at {0:?}; name a folder that does not exist yet")]
    Occupied(PathBuf),
    /// It is at neither of the two.
    #[error("it is not at {from:?} any more, and not at {to:?} either; name the folder where it is now")]
    Nowhere {
        /// Where it was.
        from: PathBuf,
        /// What was named.
        to: PathBuf,
    },
    /// Not enough room.
    #[error("not enough room for {path:?}: {needed} bytes are needed and {free} are free")]
    DiskFull {
        /// The target.
        path: PathBuf,
        /// Bytes to copy.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// A file or folder cannot be used.
    #[error("{path:?} cannot be used")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It was moved and could not be verified there.
    #[error("it was moved, and could not be verified there")]
    Verify(#[from] VerifyError),
    /// The index refused.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The observer said so.
    #[error("cancelled")]
    Cancelled,
}

/// A pack cannot be forgotten.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RemoveError {
    /// There is no such pack.
    #[error("there is no such pack in this home")]
    Unknown,
    /// It is being written now: end its download first.
    #[error("it is being downloaded now")]
    InUse,
    /// A plain file of the home cannot be deleted.
    #[error("{path:?} cannot be deleted")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The index refused.
    #[error(transparent)]
    Index(#[from] IndexError),
}
