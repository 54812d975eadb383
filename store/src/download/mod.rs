//! How a pack becomes a folder.
//!
//! Files are staged in a hidden folder next to the destination, under their numbers in the index, and appear under their final names one by one, each when
//! all its leaves are in it and synced. `begin` looks at what is there already (`inspect`), decides what becomes of each file (`decide`), looks for leaves
//! that the home has elsewhere (`local`), reckons the room (`estimate`) and makes the rows (`put`). `state` knows where it stands, `pieces` takes what comes; `assemble` copies local leaves
//! into files that lack nothing else, of those that replace others a few at a time, so that an update never holds two whole versions, and `reflink` spares it what the file system can
//! share; `staging` knows which staged files are the
//! download's own; `commit` makes all that durable; `place` puts whole files where they belong without ever losing what stands there; `moves` renames
//! what only has another name now; `finish` ends it (`settle`: files of the user's that are in the way by then). `layout` knows which piece goes where.
//!
//! There may be a million files, so that little is kept of each: `known` asks the index for one after the other, `marks` has four bytes for what is nothing special
//! (`slots`: where each file stands), and rows are written and read in batches.
//!
//! It owns no policy of what to fetch, and it does not verify pieces: the caller has.

mod assemble;
mod begin;
mod commit;
mod compare;
mod decide;
mod estimate;
mod finish;
mod former;
mod inspect;
mod known;
mod layout;
mod local;
mod marks;
mod moves;
mod moving;
mod pieces;
mod place;
mod put;
mod reconcile;
mod reflink;
mod settle;
mod slots;
mod staging;
mod state;

use std::{path::PathBuf, sync::Arc};

use bitvec::vec::BitVec;
use modswarm_protocol::{
    Cid,
    format::{Content, Name, PackPath, PieceIndex, PieceSet},
};

pub(crate) use self::{
    begin::{begin, preview, resume},
    compare::compare,
    moves::{RecoverError, recover_pack},
    reconcile::write_down,
    staging::clear_at,
    state::State,
};
use crate::{
    error::{BeginError, FinishError, WriteError},
    fs,
    packs::{NetworkId, PackId},
    store::Closer,
};

/// What becomes of files at the destination that differ from the pack's and that no download put there as they are: the user's own, or edited by him.
///
/// It goes for those that are found at the beginning and for those that appear or are edited until the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conflicts {
    /// Nothing is begun, or ended, while there are such files.
    #[default]
    Refuse,
    /// They stay, and the pack's files are left out there.
    KeepMine,
    /// They are replaced.
    TakeTheirs,
    /// They are renamed to a free name beside the pack's files.
    KeepBoth,
    /// The pack stands there already and is mended: files that were edited, renamed or kept stay as they are and what they are to the pack. Put there is what was
    /// found missing, or damaged without anybody having edited it (see [`crate::Store::verify_pack`]), in a folder that was shared as well.
    Mend,
}

impl Conflicts {
    pub(crate) const fn code(self) -> i64 {
        match self {
            Self::Refuse => 0,
            Self::TakeTheirs => 1,
            Self::KeepMine => 2,
            Self::KeepBoth => 3,
            Self::Mend => 4,
        }
    }

    pub(crate) const fn from_code(code: i64) -> Self {
        match code {
            1 => Self::TakeTheirs,
            2 => Self::KeepMine,
            3 => Self::KeepBoth,
            4 => Self::Mend,
            _ => Self::Refuse,
        }
    }
}

/// What to download, and where to.
#[derive(Clone, Debug)]
pub struct DownloadSpec {
    /// Pack CID, where the content came as a pack.
    pub pack: Option<Cid>,
    /// Content CID (or that of a plain file); its nodes have been put.
    pub content: Cid,
    /// The pack's name; also what the file is called if `content` is a plain file.
    pub name: Name,
    /// The folder that the files will lie in; absolute. Made if there is none.
    pub destination: PathBuf,
    /// The selected files: a bit for each of [`Content::files`]; `None`: all, and all empty folders.
    ///
    /// Files that an earlier download of the same content put there stay part of it.
    pub selection: Option<BitVec>,
    /// What to do with files of the user's that are in the way.
    pub conflicts: Conflicts,
    /// The network to serve it in.
    pub network: NetworkId,
}

/// Where a download stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Selected files.
    pub files: u64,
    /// Bytes of the selected files; equal files count each.
    pub bytes: u64,
    /// Bytes of them that are in place, staged, or elsewhere in this home.
    pub bytes_here: u64,
    /// Distinct leaves of the selection.
    pub pieces: u64,
    /// Those of them that are in this home.
    pub pieces_here: u64,
    /// Bytes of the distinct leaves of the selection.
    pub piece_bytes: u64,
    /// Bytes of those of `pieces_here`.
    pub piece_bytes_here: u64,
    /// Free bytes on the destination's disk, where the system tells.
    pub disk_free: Option<u64>,
}

/// What [`Download::finish`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The record, now [`crate::PackState::Whole`].
    pub id: PackId,
    /// Where the files are.
    pub path: PathBuf,
    /// Files of the version that stood there before that were deleted, because this version has none of them: put there by a download
    /// and unchanged since.
    pub removed: Vec<PackPath>,
    /// Files of the former version that this one does not have and that were kept, since the user changed them.
    pub kept: Vec<PackPath>,
    /// Files of the former version that only got another name: from which to which.
    pub renamed: Vec<(PackPath, PackPath)>,
    /// Files of the pack that were left out, since the user kept his own there.
    pub skipped: Vec<PackPath>,
    /// Files of the user's that were in the way: their names before and now.
    pub set_aside: Vec<(PackPath, PackPath)>,
}

/// What a download would do, as far as can be said without beginning it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preview {
    /// Where the files would be.
    pub destination: PathBuf,
    /// Files that are there already and stay.
    pub unchanged: u64,
    /// Files for which there is nothing yet.
    pub added: Vec<PackPath>,
    /// Files that would be replaced by others.
    pub changed: Vec<PackPath>,
    /// Files of the version that stands there that would be deleted.
    pub removed: Vec<PackPath>,
    /// Files that would only be renamed: from which to which.
    pub renamed: Vec<(PackPath, PackPath)>,
    /// Files in the way that are the user's own or that he changed. What becomes of them is [`DownloadSpec::conflicts`]; if that refuses, the sums below are
    /// those of replacing them.
    pub conflicts: Vec<PackPath>,
    /// Files of the version that stands there that would be kept, since the user changed them.
    pub kept: Vec<PackPath>,
    /// Bytes of distinct leaves that are nowhere in this home.
    pub bytes_to_fetch: u64,
    /// Bytes that would be needed on the disk beside what is there, at the worst moment.
    pub disk_needed: u64,
    /// By how many bytes more is taken in the end; less, if negative.
    pub disk_change: i64,
    /// Free bytes on the destination's disk, where the system tells.
    pub disk_free: Option<u64>,
}

/// An unfinished download. Cheap to clone; dropping the last clone stops it and loses nothing.
#[derive(Clone, Debug)]
pub struct Download {
    state: Arc<State>,
    _handle: Arc<Handle>,
}

/// Says that nobody is downloading any more once the last [`Download`] is dropped.
#[derive(Debug)]
struct Handle {
    state: Arc<State>,
    _closer: Arc<Closer>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.state.end();
        // Whoever opens the same home next finds nobody writing.
        self.state.join_worker();
    }
}

impl Download {
    pub(crate) fn new(state: Arc<State>, closer: &Arc<Closer>) -> Self {
        let handle = Arc::new(Handle {
            state: state.clone(),
            _closer: closer.clone(),
        });
        Self { state, _handle: handle }
    }

    /// Its record, in state [`crate::PackState::Downloading`].
    pub fn id(&self) -> PackId {
        self.state.id
    }

    /// The content.
    pub fn content(&self) -> &Arc<Content> {
        &self.state.content
    }

    /// The folder that the files will lie in.
    pub fn destination(&self) -> &std::path::Path {
        &self.state.destination
    }

    /// Which pieces of the selection are in this home: in their files, or elsewhere, to be copied before their files are put in their places.
    ///
    /// It may shrink: see [`Download::lost`].
    pub fn have(&self) -> PieceSet {
        self.state.have()
    }

    /// Which pieces the selection needs.
    pub fn wanted(&self) -> PieceSet {
        self.state.wanted()
    }

    /// Where it stands now.
    pub fn plan(&self) -> Plan {
        self.state.plan()
    }

    /// How many pieces of [`Download::have`] turned out, since the download was opened, not to be where the index said. They are missing now.
    pub fn lost(&self) -> u64 {
        self.state.lost()
    }

    /// Which files will only get another name: from which to which.
    pub fn renames(&self) -> Vec<(PackPath, PackPath)> {
        self.state.renames()
    }

    /// Which files are left out, since the user keeps his own there.
    pub fn skipped(&self) -> Vec<PackPath> {
        self.state.skipped()
    }

    /// Begins to put together, beside the caller, those files whose pieces are all in this home; returns which pieces are to be copied. Files that become
    /// so later follow by themselves; without this call, the first [`Download::write_piece`] or [`Download::finish`] begins it.
    ///
    /// # Errors
    /// When the thread for it cannot be started.
    pub fn adopt_local(&self) -> Result<PieceSet, BeginError> {
        let local = self.state.local();
        assemble::wake(&self.state).map_err(|source| BeginError::Io {
            path: self.state.stage.clone(),
            source,
        })?;
        Ok(local)
    }

    /// Writes a verified piece to every place that needs it, and does not wait for files that it completes to be put in their places. Durable within about a second; until then a crash loses it, and it is fetched again.
    ///
    /// A piece that is here already is ignored, so that duplicates do no harm. Several threads may write at once.
    ///
    /// # Errors
    /// See [`WriteError`]; after one the piece counts as not written.
    pub fn write_piece(&self, piece: PieceIndex, bytes: &[u8]) -> Result<(), WriteError> {
        self.write_pieces(&[(piece, bytes)]).pop().unwrap_or(Ok(()))
    }

    /// As [`Download::write_piece`] each of `pieces`, with the outcomes in their order. Together they are written faster, those above all that follow each
    /// other in a file.
    pub fn write_pieces(&self, pieces: &[(PieceIndex, &[u8])]) -> Vec<Result<(), WriteError>> {
        pieces::write(&self.state, pieces)
    }

    /// Ends the download: all files under their final names, folders made, everything durable, and the record whole.
    ///
    /// A former version at the same place, put there by a download, is superseded: its files that this version does not have are deleted where the
    /// user has not changed them (unless only some files were selected), and its surviving pieces are still served.
    ///
    /// # Errors
    /// See [`FinishError`]; it can be called again.
    pub fn finish(&self) -> Result<Finished, FinishError> {
        finish::finish(&self.state)
    }
}

/// Ends what a crash cut off: renames, and files that were to be deleted. When the store is opened.
pub(crate) fn recover(inner: &crate::store::Inner) -> Result<(), crate::error::IndexError> {
    moves::recover(inner)?;
    former::recover(inner)
}

/// The staging folder's name for `content` at `destination`.
pub(crate) fn staging_name(content: &Cid, destination: &std::path::Path) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&content.to_bytes()).update(fs::path_bytes(destination));
    let text = content.to_string();
    let hash = hasher.finalize().to_hex();
    format!(".modswarm-{}-{}.part", &text[text.len() - 8..], &hash[..8])
}

/// Whether `path`, as the index keeps it, is a staging folder's. Only such a folder is ever deleted with all that is in it.
pub(crate) fn is_staging_folder(path: &[u8]) -> bool {
    let path = fs::path_from(path.to_owned());
    path.is_absolute()
        && path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(is_staging_name)
}

/// Whether a folder of this name is a staging folder, which is part of no pack.
pub(crate) fn is_staging_name(name: &str) -> bool {
    name.starts_with(".modswarm-") && name.ends_with(".part")
}
