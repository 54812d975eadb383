//! The leecher's half of a session: one handle that we opened at a peer, and what the peer has behind it.

use crate::format::{Cid, PieceSet};
use crate::time::Timestamp;

use super::ids::TransferId;
use super::offers::Offered;
use super::rate::Meter;

/// What a peer has of a content, as far as we know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Nothing that could be asked for as a piece.
    Nothing,
    /// Everything.
    All,
    /// These pieces.
    Map(PieceSet),
    /// It does not say. Each piece is asked for once.
    Unknown {
        /// Pieces that it was asked for and refused.
        tried: PieceSet,
    },
}

impl Source {
    /// Whether the peer has said that it has the piece.
    pub(crate) fn has(&self, piece: u32) -> bool {
        match self {
            Self::Nothing | Self::Unknown { .. } => false,
            Self::All => true,
            Self::Map(have) => have[piece as usize],
        }
    }
}

/// Why a handle was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Pieces and nodes of the content.
    Content,
    /// Nodes of a pack whose content is not known yet.
    Pack,
    /// Leaves that may lie in another version of the content, by CID.
    Related,
}

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionState {
    /// `Open` was sent.
    Opening,
    /// `Opened` came.
    Open,
    /// `Opened` came with a have-map before there was a piece map to read it by: to be opened again.
    Early,
}

/// One handle of ours.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) transfer: TransferId,
    pub(crate) root: Cid,
    pub(crate) role: Role,
    pub(crate) state: SessionState,
    pub(crate) source: Source,
    /// The picker's epoch at which it had nothing for this session; zero if it may have something.
    pub(crate) exhausted: u64,
    /// Until when nothing is requested, after the peer said that it is busy.
    pub(crate) busy_until: Timestamp,
    /// Pieces in its map.
    pub(crate) held: u32,
    /// What the peer offers us, if it does not let us choose.
    pub(crate) offers: Option<Offered>,
    /// Pieces of its map that the peer refused.
    pub(crate) broken: u32,
    /// Pieces that the peer said it got or lost since `Opened`.
    pub(crate) changes: u64,
    /// What has come through it lately.
    pub(crate) down: Meter,
    /// How fast the peer was asked to send what it is asked for here, in bytes a second; 0: as it likes.
    pub(crate) asked_pace: u32,
}

impl Session {
    pub(crate) fn new(transfer: TransferId, root: Cid, role: Role) -> Self {
        Self {
            transfer,
            root,
            role,
            state: SessionState::Opening,
            source: Source::Nothing,
            exhausted: 0,
            busy_until: Timestamp::ZERO,
            held: 0,
            offers: None,
            broken: 0,
            changes: 0,
            down: Meter::default(),
            asked_pace: 0,
        }
    }
}
