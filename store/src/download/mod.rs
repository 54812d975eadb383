//! How a pack becomes a folder.
//!
//! Files are staged in a hidden folder next to the destination, under their numbers in the index, and appear under their final names one by one, each when
//! all its leaves are in it and synced. `begin` looks at what is there already (`inspect`) and makes the rows (`put`); `state` takes pieces and `commit`
//! makes them durable; `place` puts whole files where they belong without ever losing what stands there; `finish` ends it. `layout`
//! knows which piece goes where.
//!
//! It owns no policy of what to fetch, and it does not verify pieces: the caller has.

mod begin;
mod commit;
mod finish;
mod former;
mod inspect;
mod layout;
mod local;
mod place;
mod put;
mod reconcile;
mod state;

use std::{path::PathBuf, sync::Arc};

use bitvec::vec::BitVec;
use modswarm_protocol::{
    Cid,
    format::{Content, Name, PackPath, PieceIndex, PieceSet},
};

pub(crate) use self::{
    begin::{begin, resume},
    former::recover,
    reconcile::write_down,
    state::State,
};
use crate::{
    error::{BeginError, FinishError, IndexError, WriteError},
    fs,
    observer::Observer,
    packs::{NetworkId, PackId},
    store::Closer,
};

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
    /// Replace files that differ.
    pub overwrite: bool,
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
    /// Bytes of them that are in place or staged.
    pub bytes_here: u64,
    /// Distinct leaves of the selection.
    pub pieces: u64,
    /// Those that are everywhere where the selection needs them.
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

    /// Which pieces lie everywhere where the selection needs them.
    pub fn have(&self) -> PieceSet {
        self.state.have()
    }

    /// Which pieces the selection needs.
    pub fn wanted(&self) -> PieceSet {
        self.state.layout.wanted()
    }

    /// Where it stands now.
    pub fn plan(&self) -> Plan {
        self.state.plan()
    }

    /// Bytes of the wanted files that [`Download::adopt_local`] will bring, if other files of this home are as the index says.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn local_bytes(&self) -> Result<u64, IndexError> {
        local::expected_bytes(&self.state)
    }

    /// Finds wanted leaves in files of this home and copies them; returns which pieces it added. Call it before fetching: what it finds need not be
    /// fetched.
    ///
    /// # Errors
    /// See [`BeginError`]; what was copied stays.
    pub fn adopt_local(&self, observer: &dyn Observer) -> Result<PieceSet, BeginError> {
        local::adopt(&self.state, observer)
    }

    /// Writes a verified piece to every place that needs it. Durable within about a second; until then a crash loses it, and it is fetched again.
    ///
    /// A piece that is here already is ignored, so that duplicates do no harm. Several threads may write at once.
    ///
    /// # Errors
    /// See [`WriteError`]; after one the piece counts as not written.
    pub fn write_piece(&self, piece: PieceIndex, bytes: &[u8]) -> Result<(), WriteError> {
        state::write_piece(&self.state, piece, bytes)
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

/// The staging folder's name for `content` at `destination`.
pub(crate) fn staging_name(content: &Cid, destination: &std::path::Path) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&content.to_bytes()).update(fs::path_bytes(destination));
    let text = content.to_string();
    let hash = hasher.finalize().to_hex();
    format!(".modswarm-{}-{}.part", &text[text.len() - 8..], &hash[..8])
}

/// Whether a folder of this name is a staging folder, which is part of no pack.
pub(crate) fn is_staging_name(name: &str) -> bool {
    name.starts_with(".modswarm-") && name.ends_with(".part")
}
