//! The packs of a home: their records, whether their files are still there, and forgetting them.

mod check;
mod elsewhere;
mod gc;
mod relocate;
mod remove;
mod verify;

use std::{
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use modswarm_protocol::{Cid, format::PackPath};

pub(crate) use self::{
    check::{check_pack, check_packs_of_file},
    elsewhere::find as find_elsewhere,
    gc::collect,
    relocate::{move_pack, recover},
    remove::remove_pack,
    verify::{look_again, verify_pack, verify_some},
};
pub use self::{
    gc::Collected,
    relocate::Moved,
    verify::{BadFile, Fault, Verified},
};

/// The 32 bytes that name a network on the wire. A pack is announced and served only in its own.
pub type NetworkId = [u8; 32];

/// Names one record of this home. Never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackId(pub(crate) i64);

/// How a pack came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Its files are the user's own; they are never replaced by an update without being asked.
    Shared,
    /// Its files were put there by a download.
    Fetched,
}

/// What a pack is doing, as far as the store knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackState {
    /// Everything selected was put in place. Files may have changed since: see [`PackRecord::pieces_here`].
    Whole,
    /// Begun and not finished.
    Downloading,
    /// Another version stands in its folder now; pieces that survived are still served.
    Superseded,
}

/// One content at one place of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackRecord {
    /// Names the record.
    pub id: PackId,
    /// Pack CID, where the content came as a pack.
    pub pack: Option<Cid>,
    /// Content CID.
    pub content: Cid,
    /// The pack's name.
    pub name: String,
    /// The network that it is served in.
    pub network: NetworkId,
    /// The folder with its files; the file itself where a single file was shared.
    pub path: PathBuf,
    /// How it came here.
    pub origin: Origin,
    /// What it is doing.
    pub state: PackState,
    /// Selected files.
    pub files: u64,
    /// Bytes of the selected files.
    pub bytes: u64,
    /// Distinct leaves of the whole content.
    pub pieces: u32,
    /// Distinct leaves that are here, as last committed.
    pub pieces_here: u32,
    /// Bytes of the distinct leaves of the whole content.
    pub piece_bytes: u64,
    /// Bytes of the distinct leaves that are here.
    pub piece_bytes_here: u64,
    /// Whether only some files were selected.
    pub partial: bool,
    /// Files that are not here because the user kept his own in their places.
    pub kept: u64,
    /// When the record was made, in seconds since 1970.
    pub created: u64,
    /// Whether no clearing up may forget it: see [`crate::Store::set_pinned`].
    pub pinned: bool,
    /// When it was fetched or served last, in seconds since 1970: see [`crate::Store::mark_used`].
    pub used: u64,
    /// Whether the store has a copy of its own, so that the folder may change: see [`crate::ShareSpec::copy`].
    pub copied: bool,
}

/// What [`crate::Store::check_pack`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// Files that are not where they were.
    pub missing: Vec<PackPath>,
    /// Files that were changed since; their leaves are looked at again when they are read.
    pub changed: Vec<PackPath>,
    /// Whether its folder (or its one file) is not there at all.
    pub away: bool,
}

/// What [`crate::Store::remove_pack`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The record as it was.
    pub record: PackRecord,
    /// Files that were deleted.
    pub files_deleted: u64,
    /// Files that were to be deleted and were kept: changed since, used by another pack, or not deletable.
    pub files_kept: Vec<PathBuf>,
}

/// Now, in seconds since 1970.
pub(crate) fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
