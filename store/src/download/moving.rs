//! What changes while a download is open: which places are filled, which pieces can be copied, which files are whole, what is not committed.
//!
//! A *place* of a piece is present, or can be filled from this home (its piece is `local`), or is missing. A file without missing places is `ready` to be put
//! together, one without absent places is whole.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bitvec::vec::BitVec;
use modswarm_protocol::{
    Cid,
    format::{Part, PieceIndex, PieceSet},
};

use super::{
    layout::Place,
    place::{PlaceError, Placed, Replace, Target},
    slots::Slots,
    state::State,
};
use crate::backend::Identity;

#[derive(Debug)]
pub(crate) struct Moving {
    /// Pieces that are in all their places.
    pub(crate) have: PieceSet,
    /// Pieces that are not, and that lie elsewhere in this home.
    pub(crate) local: PieceSet,
    /// Pieces that only files have that stay as they are while others are mended.
    pub(super) left: PieceSet,
    /// Pieces that only files have that the user does not want any more.
    pub(super) unwanted: PieceSet,
    pub(super) writing: HashSet<u32>,
    /// By number of place.
    pub(crate) present: BitVec,
    /// What files of more than [`FEW`] parts lack; that of others is soon counted.
    pub(super) lacks: HashMap<u32, Lack>,
    pub(crate) slots: Slots,
    /// Files to be put together, and how many of their places are absent.
    pub(super) ready: BTreeMap<u32, u32>,
    /// Whole files that get their names at the end.
    pub(super) held: BTreeSet<u32>,
    /// Whether somebody sees to `ready`.
    pub(super) assembling: bool,
    pub(crate) gathered: Gathered,
    /// Taken by the commit that is under way.
    pub(super) taken: Gathered,
    /// Pieces that are had and that the index does not know yet: at most what is written in a second.
    pub(super) fresh: HashMap<Cid, PieceIndex>,
    /// Whether the writer has been told.
    pub(super) told: bool,
    /// Whether it has been told not to wait.
    pub(super) hurried: bool,
    pub(crate) bytes_here: u64,
    pub(crate) piece_bytes_here: u64,
    /// Pieces that were believed local and were not.
    pub(super) lost: u64,
    /// Whole files that could not be put in their places.
    pub(crate) stuck: HashMap<u32, PlaceError>,
    pub(super) ended: bool,
}

/// What a file lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lack {
    /// Places that are not present.
    absent: u32,
    /// Those of them whose pieces are to be fetched.
    missing: u32,
}

/// Files that are put together before it is written down that they are.
const BATCH_MAX: usize = 1024;

/// Parts of a file that are counted rather than that their count is kept.
const FEW: usize = 64;

/// What is to be committed.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pub(super) pieces: Vec<u32>,
    /// Files that were put together.
    pub(super) filled: BTreeSet<u32>,
    pub(super) dirty: BTreeSet<u32>,
    pub(crate) whole: BTreeSet<u32>,
    pub(super) placed: Vec<Placed>,
    /// Staged files, their rows, and by what they are to be remembered.
    pub(super) made: Vec<(u32, i64, Identity)>,
    pub(super) have: Option<(PieceSet, u64)>,
}

impl Gathered {
    pub(super) fn merge(&mut self, other: Self) {
        self.pieces.extend(other.pieces);
        self.filled.extend(other.filled);
        self.dirty.extend(other.dirty);
        self.whole.extend(other.whole);
        self.placed.extend(other.placed);
        self.made.extend(other.made);
        if other.have.is_some() {
            self.have = other.have;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        let Self {
            pieces,
            filled,
            dirty,
            whole,
            placed,
            made: _,
            have: _,
        } = self;
        pieces.is_empty() && filled.is_empty() && dirty.is_empty() && whole.is_empty() && placed.is_empty()
    }
}

impl Moving {
    /// Counts anew what is absent and missing, from `present`, `local` and `slots`; files that became ready are put together.
    pub(super) fn recount(&mut self, state: &State) {
        let large = state.content.files().filter(|file| file.part_count() > FEW);
        self.lacks = large.map(|file| (file.number() as u32, Lack::default())).collect();
        self.bytes_here = state.carried_bytes(&self.slots);
        self.piece_bytes_here = 0;
        for (piece, leaf) in state.content.map().iter() {
            let len = u64::from(leaf.len);
            let (mut all, mut any) = (true, false);
            for place in state.layout.places(piece) {
                if self.slots.is_out(place.file) {
                    continue;
                }
                any = true;
                if self.present[place.number as usize] {
                    self.bytes_here += len;
                    continue;
                }
                all = false;
                if let Some(lack) = self.lacks.get_mut(&place.file) {
                    lack.absent += 1;
                    lack.missing += u32::from(!self.local[piece.as_usize()]);
                }
            }
            let at = piece.as_usize();
            let have = if any { all } else { self.left[at] };
            self.have.set(at, have);
            self.unwanted.set(at, !any);
            if have {
                self.local.set(at, false);
                self.piece_bytes_here += len;
            }
        }
        self.ready.clear();
        for number in 0..self.slots.len() {
            self.look_at(state, number as u32);
        }
    }

    fn lack(&self, state: &State, number: u32) -> Lack {
        if let Some(lack) = self.lacks.get(&number) {
            return *lack;
        }
        let file = state.content.file(number as usize);
        let mut lack = Lack::default();
        for (place, part) in file.part_numbers().zip(file.parts()) {
            if let Part::Piece(piece) = part
                && !self.present[place as usize]
            {
                lack.absent += 1;
                lack.missing += u32::from(!self.local[piece.as_usize()]);
            }
        }
        lack
    }

    /// Notes that a file may have nothing missing any more.
    pub(super) fn look_at(&mut self, state: &State, number: u32) {
        if self.slots.staged_row(number).is_none() || self.held.contains(&number) {
            return;
        }
        let lack = self.lack(state, number);
        if lack.missing > 0 {
            return;
        }
        let Some(target) = self.slots.staged(number) else {
            return;
        };
        // What it replaces may hold leaves that other files need.
        let may_take_away = !matches!(target.replace, Replace::Nothing) && self.local.any();
        if lack.absent > 0 || may_take_away {
            self.ready.insert(number, lack.absent);
        } else {
            self.is_whole(number, target.held);
        }
    }

    /// Everything of a file is in it.
    pub(super) fn is_whole(&mut self, number: u32, held: bool) {
        if held {
            self.held.insert(number);
        } else {
            self.gathered.whole.insert(number);
        }
    }

    /// Has a file put together that lacks nothing that is to be fetched.
    pub(super) fn make_ready(&mut self, state: &State, number: u32) {
        let lack = self.lack(state, number);
        self.ready.insert(number, lack.absent);
    }

    /// Takes files to be put together: of those that replace others no more at once than the largest of them takes.
    pub(super) fn next_batch(&mut self) -> Vec<(u32, Target)> {
        let replaces = |target: &Target| !matches!(target.replace, Replace::Nothing);
        let replacing = self.ready.iter().filter(|(number, _)| self.slots.may_replace(**number));
        let most = replacing.map(|(_, absent)| *absent).max().unwrap_or(0);
        let mut batch = Vec::new();
        let mut sum = 0;
        for (&number, absent) in &self.ready {
            let Some(target) = self.slots.staged(number) else {
                continue;
            };
            if replaces(&target) {
                if sum > 0 && sum + absent > most {
                    continue;
                }
                sum += absent.max(&1);
            }
            batch.push((number, target));
            if batch.len() == BATCH_MAX {
                break;
            }
        }
        if batch.is_empty() {
            self.ready.clear();
        }
        for (number, _) in &batch {
            self.ready.remove(number);
        }
        batch
    }

    /// A piece was written to `places`.
    pub(super) fn is_there(&mut self, state: &State, piece: PieceIndex, places: &[Place]) {
        let len = u64::from(state.content.map().leaf(piece).len);
        let at = piece.as_usize();
        for place in places {
            if self.present.replace(place.number as usize, true) {
                continue;
            }
            self.bytes_here += len;
            if let Some(lack) = self.lacks.get_mut(&place.file) {
                lack.absent = lack.absent.saturating_sub(1);
                if !self.local[at] {
                    lack.missing = lack.missing.saturating_sub(1);
                }
            }
        }
        let all = state
            .layout
            .places(piece)
            .all(|place| self.present[place.number as usize] || self.slots.is_out(place.file));
        if all && !self.have[at] {
            self.have.set(at, true);
            self.local.set(at, false);
            self.piece_bytes_here += len;
        }
    }

    /// Pieces that cannot be copied after all.
    pub(super) fn lose(&mut self, state: &State, pieces: &[PieceIndex]) {
        let mut any = false;
        for piece in pieces {
            if self.local.replace(piece.as_usize(), false) {
                self.lost += 1;
                any = true;
            }
        }
        if any {
            self.recount(state);
        }
    }

    /// Which pieces are wanted, in this home or not.
    pub(super) fn had(&self) -> PieceSet {
        self.have.clone() | self.local.clone()
    }
}
