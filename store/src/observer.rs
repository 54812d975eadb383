//! How long jobs report, warn and are cancelled.

use std::{
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use modswarm_protocol::format::PackPath;

/// What a long job is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Looking at names and identities of files.
    Scanning,
    /// Reading, cutting and hashing files.
    Hashing,
    /// Writing the index.
    Indexing,
    /// Comparing files that are at the destination already.
    Checking,
    /// Copying leaves that other packs hold.
    Copying,
}

/// How far a long job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it is doing.
    pub stage: Stage,
    /// Bytes done; files that cost only a stat count whole.
    pub bytes_done: u64,
    /// Bytes in all; 0 while scanning.
    pub bytes_total: u64,
    /// Files done; pieces, while copying.
    pub files_done: u64,
    /// Files in all; 0 while scanning.
    pub files_total: u64,
    /// Bytes that were read and hashed so far, over all stages of the job.
    pub bytes_hashed: u64,
}

/// Something that the user should know and that stops nothing. Displayed as one sentence, names escaped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// A symlink was left out.
    #[error("{0:?} is a symbolic link and was left out")]
    SymlinkSkipped(PathBuf),
    /// A socket, pipe or device was left out.
    #[error("{0:?} is neither a file nor a folder and was left out")]
    SpecialSkipped(PathBuf),
    /// Two names that Windows and macOS take for one.
    #[error("{0:?} and {1:?} differ only in case; Windows and macOS can keep only one of them")]
    CaseTwins(PackPath, PackPath),
    /// A name that some system cannot create.
    #[error("{path:?} cannot be installed everywhere: {issue}")]
    Unportable {
        /// The path in the pack.
        path: PackPath,
        /// Why.
        issue: modswarm_protocol::format::path::PortabilityIssue,
    },
    /// A line of a `.modswarmignore` that makes no sense.
    #[error("{0}")]
    Ignore(String),
    /// An entry of a foreign content that cannot be installed.
    #[error("{0:?} is not a file or a folder in this content and was left out")]
    EntrySkipped(PackPath),
}

/// Receives reports of a long job, from several threads, a few a second, and may cancel it. `()` ignores them all.
pub trait Observer: Sync {
    /// How far the job is. The last report of a stage always arrives.
    fn progress(&self, progress: Progress) {
        let _ = progress;
    }

    /// Something that the user should know.
    fn warning(&self, warning: Warning) {
        let _ = warning;
    }

    /// Whether the job should end. It ends soon, with an error that says so, and leaves nothing behind.
    fn cancelled(&self) -> bool {
        false
    }
}

impl Observer for () {}

/// Between two reports.
const INTERVAL: Duration = Duration::from_millis(100);

/// Counts on behalf of an [`Observer`], and spares it the flood.
pub(crate) struct Meter<'a> {
    observer: &'a dyn Observer,
    bytes_done: AtomicU64,
    files_done: AtomicU64,
    bytes_hashed: AtomicU64,
    totals: Mutex<(Stage, u64, u64)>,
    last: Mutex<Option<Instant>>,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(observer: &'a dyn Observer) -> Self {
        Self {
            observer,
            bytes_done: AtomicU64::new(0),
            files_done: AtomicU64::new(0),
            bytes_hashed: AtomicU64::new(0),
            totals: Mutex::new((Stage::Scanning, 0, 0)),
            last: Mutex::new(None),
        }
    }

    /// Begins a stage: done counts start at zero, hashed bytes go on.
    pub(crate) fn stage(&self, stage: Stage, bytes_total: u64, files_total: u64) {
        *crate::lock(&self.totals) = (stage, bytes_total, files_total);
        self.bytes_done.store(0, Relaxed);
        self.files_done.store(0, Relaxed);
        self.report();
    }

    pub(crate) fn add_bytes(&self, done: u64, hashed: u64) {
        self.bytes_done.fetch_add(done, Relaxed);
        self.bytes_hashed.fetch_add(hashed, Relaxed);
        self.tick();
    }

    pub(crate) fn add_file(&self) {
        self.files_done.fetch_add(1, Relaxed);
        self.tick();
    }

    pub(crate) fn bytes_hashed(&self) -> u64 {
        self.bytes_hashed.load(Relaxed)
    }

    pub(crate) fn warn(&self, warning: Warning) {
        self.observer.warning(warning);
    }

    pub(crate) fn cancelled(&self) -> bool {
        self.observer.cancelled()
    }

    /// Reports now; at the end of a stage.
    pub(crate) fn report(&self) {
        *crate::lock(&self.last) = Some(Instant::now());
        let (stage, bytes_total, files_total) = *crate::lock(&self.totals);
        self.observer.progress(Progress {
            stage,
            bytes_done: self.bytes_done.load(Relaxed),
            bytes_total,
            files_done: self.files_done.load(Relaxed),
            files_total,
            bytes_hashed: self.bytes_hashed.load(Relaxed),
        });
    }

    fn tick(&self) {
        let due = match self.last.try_lock() {
            Ok(last) => last.is_none_or(|at| at.elapsed() >= INTERVAL),
            Err(_) => false,
        };
        if due {
            self.report();
        }
    }
}
