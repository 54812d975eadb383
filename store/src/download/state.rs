//! An open download: its files, and the pieces that are written to them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    path::PathBuf,
    sync::{Arc, Mutex, atomic::AtomicBool},
    thread::JoinHandle,
};

use bitvec::vec::BitVec;
use bytes::Bytes;
use modswarm_protocol::{
    Cid,
    format::{Content, File, PackPath, Part, PieceSet},
};

use super::{
    Conflicts, Plan,
    layout::Layout,
    moving::{Gathered, Moving},
    place::{PlaceError, Target},
    slots::{Slot, Slots},
    staging::Own,
};
use crate::{
    backend::{BackendDir, BackendFile},
    error::{Blockage, IndexError},
    index::rows,
    packs::PackId,
    store::Inner,
};

/// Pieces that are gathered before a commit is asked for without waiting for its time.
const GATHERED_MAX: usize = 16 * 1024;
/// The same for files: each takes some hundred bytes until then.
const GATHERED_FILES_MAX: usize = 4 * 1024;

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) inner: Arc<Inner>,
    pub(crate) id: PackId,
    pub(crate) content: Arc<Content>,
    pub(crate) destination: PathBuf,
    pub(crate) stage: PathBuf,
    pub(crate) stage_dir: Box<dyn BackendDir>,
    pub(super) own: Mutex<Own>,
    pub(crate) whole_content: bool,
    pub(crate) policy: Conflicts,
    /// Files of the pack that the user's own stand for.
    pub(crate) kept: Mutex<BTreeSet<u32>>,
    pub(crate) layout: Layout,
    pub(crate) moving: Mutex<Moving>,
    /// Held by whoever puts files together.
    pub(super) turn: Mutex<()>,
    pub(super) worker: Mutex<Option<JoinHandle<()>>>,
    /// Whether files were made in the staging folder whose names are not durable yet.
    pub(super) names_made: AtomicBool,
    /// Whether the file system of the staging folder may be able to share blocks.
    pub(super) may_share: AtomicBool,
    /// Staged files kept open for writing, oldest first.
    pub(super) open: Mutex<VecDeque<(u32, Arc<dyn BackendFile>)>>,
}

/// What [`State::new`] needs to know.
pub(crate) struct Start {
    pub(crate) id: PackId,
    pub(crate) content: Arc<Content>,
    pub(crate) destination: PathBuf,
    pub(crate) stage: PathBuf,
    pub(crate) stage_dir: Box<dyn BackendDir>,
    pub(crate) own: Own,
    pub(crate) whole_content: bool,
    pub(crate) policy: Conflicts,
    pub(crate) kept: BTreeSet<u32>,
    pub(crate) layout: Layout,
    pub(crate) slots: Slots,
    /// By number of place.
    pub(crate) present: BitVec,
    pub(crate) local: PieceSet,
    /// As in [`Moving`].
    pub(crate) left: PieceSet,
}

impl State {
    pub(crate) fn new(inner: &Arc<Inner>, start: Start) -> Self {
        let Start {
            id,
            content,
            destination,
            stage,
            stage_dir,
            own,
            whole_content,
            policy,
            kept,
            layout,
            slots,
            present,
            local,
            left,
        } = start;
        let none = content.map().none();
        let state = Self {
            inner: inner.clone(),
            id,
            content,
            destination,
            stage,
            stage_dir,
            own: Mutex::new(own),
            whole_content,
            policy,
            kept: Mutex::new(kept),
            layout,
            moving: Mutex::new(Moving {
                have: none.clone(),
                local,
                left,
                unwanted: none,
                writing: HashSet::new(),
                present,
                lacks: HashMap::new(),
                slots,
                ready: BTreeMap::new(),
                held: BTreeSet::new(),
                assembling: false,
                gathered: Gathered::default(),
                taken: Gathered::default(),
                fresh: HashMap::new(),
                told: false,
                hurried: false,
                bytes_here: 0,
                piece_bytes_here: 0,
                lost: 0,
                stuck: HashMap::new(),
                ended: false,
            }),
            turn: Mutex::default(),
            worker: Mutex::default(),
            names_made: AtomicBool::new(false),
            may_share: AtomicBool::new(true),
            open: Mutex::default(),
        };
        crate::lock(&state.moving).recount(&state);
        state
    }

    /// Bytes of files in their places that nodes carry, and that therefore have no places of their own.
    pub(super) fn carried_bytes(&self, slots: &Slots) -> u64 {
        if self.content.carriers().is_empty() {
            return 0;
        }
        let files = self.content.files();
        files
            .filter(|file| slots.is_in_place(file.number() as u32))
            .flat_map(File::parts)
            .filter_map(|part| match part {
                Part::Node { len, .. } => Some(u64::from(len)),
                Part::Piece(_) => None,
            })
            .sum()
    }

    pub(crate) fn renames(&self) -> Vec<(PackPath, PackPath)> {
        let moving = crate::lock(&self.moving);
        let slots = moving.slots.others();
        slots
            .filter_map(|(number, slot)| match slot {
                Slot::Moving(moved) => Some((moved.from.clone(), self.content.file(number as usize).path())),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn skipped(&self) -> Vec<PackPath> {
        let kept = crate::lock(&self.kept);
        kept.iter()
            .map(|number| self.content.file(*number as usize).path())
            .collect()
    }

    /// Which pieces are to be copied from elsewhere.
    pub(crate) fn local(&self) -> PieceSet {
        crate::lock(&self.moving).local.clone()
    }

    pub(crate) fn lost(&self) -> u64 {
        crate::lock(&self.moving).lost
    }

    /// Which pieces the files need that the user wants.
    pub(crate) fn wanted(&self) -> PieceSet {
        self.layout.wanted() & !crate::lock(&self.moving).unwanted.clone()
    }

    /// How many pieces are still to be fetched.
    pub(super) fn pieces_missing(&self) -> u32 {
        (self.wanted() & !self.have()).count_ones() as u32
    }

    pub(crate) fn have(&self) -> PieceSet {
        crate::lock(&self.moving).had()
    }

    pub(crate) fn has_ended(&self) -> bool {
        crate::lock(&self.moving).ended
    }

    pub(crate) fn end(&self) {
        crate::lock(&self.moving).ended = true;
        crate::lock(&self.open).clear();
    }

    /// Waits for the thread that puts files together, which ends soon once the download has ended.
    pub(super) fn join_worker(&self) {
        let worker = crate::lock(&self.worker).take();
        if let Some(worker) = worker {
            let _ = worker.join();
        }
    }

    pub(crate) fn plan(&self) -> Plan {
        let wanted = self.wanted();
        let map = self.content.map();
        let bytes_of = |set: &PieceSet| -> u64 {
            set.iter_ones()
                .filter_map(|at| map.index(at as u32))
                .map(|piece| u64::from(map.leaf(piece).len))
                .sum()
        };
        let moving = crate::lock(&self.moving);
        let selected = || {
            let files = self.content.files();
            files.filter(|file| !moving.slots.is_out(file.number() as u32))
        };
        let local = moving.local.iter_ones().filter_map(|at| map.index(at as u32));
        let to_copy: u64 = local
            .map(|piece| {
                let absent = self
                    .layout
                    .places(piece)
                    .filter(|place| !moving.present[place.number as usize]);
                absent.count() as u64 * u64::from(map.leaf(piece).len)
            })
            .sum();
        let here = moving.had();
        Plan {
            files: selected().count() as u64,
            bytes: selected().map(File::size).sum(),
            bytes_here: moving.bytes_here + to_copy,
            pieces: wanted.count_ones() as u64,
            pieces_here: here.count_ones() as u64,
            piece_bytes: bytes_of(&wanted),
            piece_bytes_here: bytes_of(&here),
            disk_free: self.inner.backend.free_space(&self.stage),
        }
    }

    /// Reads and verifies a leaf that was written and is not committed yet. Others are told of it already.
    pub(crate) fn read_fresh(&self, cid: &Cid) -> Option<Bytes> {
        let (place, slot, len) = {
            let moving = crate::lock(&self.moving);
            let piece = *moving.fresh.get(cid)?;
            let mut places = self.layout.places(piece);
            let place = places.find(|place| moving.present[place.number as usize])?;
            let slot = moving.slots.get(place.file);
            (place, slot, self.content.map().leaf(piece).len)
        };
        let path = self
            .destination
            .join(self.content.file(place.file as usize).path().as_str());
        let file = match slot {
            // It may get its final name at this very moment.
            Slot::Staged(target) => {
                let staged = self.inner.backend.open(&self.stage.join(target.row.to_string()));
                staged.or_else(|_| self.inner.backend.open(&path))
            }
            Slot::Placed(_) => self.inner.backend.open(&path),
            Slot::Moving(file) => self.inner.backend.open(&self.destination.join(file.from.as_str())),
            Slot::Out => return None,
        };
        let mut bytes = vec![0; len as usize];
        file.ok()?.read_exact_at(&mut bytes, place.offset).ok()?;
        cid.verifies(&bytes).then(|| bytes.into())
    }

    pub(super) fn close_staged(&self, numbers: &BTreeSet<u32>) {
        crate::lock(&self.open).retain(|(number, _)| !numbers.contains(number));
    }

    /// Tells the writer that something was gathered, if it has not been told, and that it is much, if it has not been told that.
    pub(crate) fn tell(self: &Arc<Self>) -> Result<(), IndexError> {
        let (tell, flush) = {
            let mut moving = crate::lock(&self.moving);
            let tell = !moving.told && !moving.gathered.is_empty();
            moving.told |= tell;
            let much =
                moving.gathered.pieces.len() >= GATHERED_MAX || moving.gathered.dirty.len() >= GATHERED_FILES_MAX;
            let flush = !moving.hurried && much;
            moving.hurried |= flush;
            (tell, flush)
        };
        if tell {
            self.inner.index.writer.pending(self.clone())?;
        }
        if flush {
            self.inner.index.writer.flush_of(self.clone())?;
        }
        Ok(())
    }
}

impl State {
    /// Whether no piece belongs in the file: it is empty, or nodes carry all its bytes.
    pub(super) fn layout_is_empty_for(&self, number: u32) -> bool {
        let file = self.content.file(number as usize);
        !file.parts().any(|part| matches!(part, Part::Piece(_)))
    }

    /// Files that were here and are gone again: they are staged anew. Returns how many pieces are missing now.
    pub(crate) fn take_back(&self, numbers: &[u32]) -> Result<u32, IndexError> {
        self.disown(numbers.iter().copied());
        let mut rows_back = Vec::new();
        {
            let mut guard = crate::lock(&self.moving);
            let moving = &mut *guard;
            for &number in numbers {
                let Some(row) = moving.slots.row(number) else {
                    continue;
                };
                rows_back.push(row);
                moving.held.remove(&number);
                moving.slots.set(number, Slot::Staged(Target::onto_nothing(row)));
            }
            let back: HashSet<u32> = numbers.iter().copied().collect();
            for (piece, _) in self.content.map().iter() {
                let mut any = false;
                for place in self.layout.places(piece).filter(|place| back.contains(&place.file)) {
                    moving.present.set(place.number as usize, false);
                    any = true;
                }
                // Another file of the content may have it.
                if any {
                    let elsewhere = self
                        .layout
                        .places(piece)
                        .any(|place| moving.present[place.number as usize] && !moving.slots.is_out(place.file));
                    moving.local.set(piece.as_usize(), elsewhere);
                }
            }
            moving.recount(self);
        };
        let id = self.id;
        self.inner.index.writer.run(move |tx| -> Result<(), IndexError> {
            rows_back.iter().try_for_each(|row| rows::stage_file(tx, *row, id))
        })?;
        Ok(self.pieces_missing())
    }

    /// What keeps whole files from their places; they are not tried again by themselves.
    pub(super) fn take_stuck(&self) -> Vec<(u32, PlaceError)> {
        crate::lock(&self.moving).stuck.drain().collect()
    }

    /// Lets whole files that have not got their names be put in their places with the next commit.
    pub(super) fn try_again(&self, numbers: &[u32]) {
        let mut guard = crate::lock(&self.moving);
        let moving = &mut *guard;
        for number in numbers {
            if moving.slots.staged_row(*number).is_some() && !moving.held.contains(number) {
                moving.gathered.whole.insert(*number);
            }
        }
    }
}

/// For errors that name what is in the way.
impl From<Blockage> for PlaceError {
    fn from(blockage: Blockage) -> Self {
        Self::Blocked(blockage)
    }
}
