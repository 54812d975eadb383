//! How a pack becomes a folder.

use std::{path::PathBuf, sync::Arc};

use bitvec::vec::BitVec;
use modswarm_protocol::{
    Cid,
    format::{Content, Name, PackPath, PieceIndex, PieceSet},
};

use crate::{
    error::{BeginError, FinishError, WriteError},
    observer::Observer,
    packs::{NetworkId, PackId},
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
    /// Bytes of distinct leaves of the selection.
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
    /// Files of the version that stood there before, put there by a download and unchanged since, that were deleted because this version has none of them.
    pub removed: Vec<PackPath>,
    /// Files of the former version that this one does not have and that were kept, since the user changed them.
    pub kept: Vec<PackPath>,
}

/// An unfinished download. Cheap to clone; dropping it stops nothing and loses nothing.
#[derive(Clone, Debug)]
pub struct Download {
    content: Arc<Content>,
}

impl Download {
    /// Its record, in state [`crate::PackState::Downloading`].
    pub fn id(&self) -> PackId {
        PackId(0)
    }

    /// The content.
    pub fn content(&self) -> &Arc<Content> {
        &self.content
    }

    /// Which pieces lie everywhere where the selection needs them.
    pub fn have(&self) -> PieceSet {
        self.content.map().none()
    }

    /// Which pieces the selection needs.
    pub fn wanted(&self) -> PieceSet {
        self.content.map().all()
    }

    /// Where it stands now.
    pub fn plan(&self) -> Plan {
        unreachable!()
    }

    /// Finds wanted leaves in other packs of this home and copies them; returns which pieces it added. Call it before fetching: what it finds need not be
    /// fetched.
    ///
    /// # Errors
    /// See [`BeginError`]; what was copied stays.
    pub fn adopt_local(&self, observer: &dyn Observer) -> Result<PieceSet, BeginError> {
        let _ = observer;
        Ok(self.content.map().none())
    }

    /// Writes a verified piece to every place that needs it. Durable within about a second; until then a crash loses it, and it is fetched again.
    ///
    /// A piece that is here already is ignored, so that duplicates do no harm. Several threads may write at once.
    ///
    /// # Errors
    /// See [`WriteError`]; after one the piece counts as not written.
    pub fn write_piece(&self, piece: PieceIndex, bytes: &[u8]) -> Result<(), WriteError> {
        let _ = (piece, bytes);
        Err(WriteError::Ended)
    }

    /// Ends the download: all files under their final names, folders made, everything durable, and the record whole.
    ///
    /// # Errors
    /// See [`FinishError`]; it can be called again.
    pub fn finish(&self) -> Result<Finished, FinishError> {
        Err(FinishError::Incomplete(0))
    }
}
