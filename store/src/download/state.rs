//! An open download: which pieces are where, and what is not committed yet.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use bitvec::vec::BitVec;
use bytes::Bytes;
use modswarm_protocol::{
    Cid,
    format::{Content, Part, PieceIndex, PieceSet},
};

use super::{
    Plan,
    layout::{Layout, Place},
    place::{PlaceError, Placed, Target},
};
use crate::{
    backend::{BackendDir, BackendFile},
    error::{Blockage, IndexError, WriteError},
    fs,
    index::rows,
    packs::PackId,
    store::Inner,
};

/// Pieces that are gathered before a commit is asked for without waiting for its time.
const GATHERED_MAX: usize = 16 * 1024;

/// Where a file of the content stands.
#[derive(Clone, Debug)]
pub(crate) enum Slot {
    /// Not selected.
    Out,
    /// In the staging folder, or not made yet.
    Staged(Target),
    /// Under its final name; the row that it has.
    Placed(i64),
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) inner: Arc<Inner>,
    pub(crate) id: PackId,
    pub(crate) content: Arc<Content>,
    pub(crate) destination: PathBuf,
    pub(crate) stage: PathBuf,
    pub(crate) stage_dir: Box<dyn BackendDir>,
    pub(crate) whole_content: bool,
    pub(crate) layout: Layout,
    pub(crate) moving: Mutex<Moving>,
    /// Staged files kept open for writing, oldest first.
    open: Mutex<VecDeque<(u32, Arc<dyn BackendFile>)>>,
}

/// What changes.
#[derive(Debug)]
pub(crate) struct Moving {
    pub(crate) have: PieceSet,
    writing: HashSet<u32>,
    /// By number of place.
    pub(crate) present: BitVec,
    /// By file: places that are not present.
    pub(crate) missing: Vec<u32>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) gathered: Gathered,
    /// Taken by the commit that is under way.
    pub(super) taken: Gathered,
    /// Pieces that are had and that the index does not know yet: at most what is written in a second.
    pub(super) fresh: HashMap<Cid, PieceIndex>,
    /// Whether the writer has been told.
    pub(super) told: bool,
    pub(crate) bytes_here: u64,
    pub(crate) piece_bytes_here: u64,
    /// Whole files that could not be put in their places.
    pub(crate) stuck: HashMap<u32, PlaceError>,
    ended: bool,
}

/// What is to be committed.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pub(super) pieces: Vec<u32>,
    pub(super) dirty: BTreeSet<u32>,
    pub(crate) whole: BTreeSet<u32>,
    pub(super) placed: Vec<Placed>,
    pub(super) have: Option<(PieceSet, u64)>,
}

impl Gathered {
    pub(super) fn merge(&mut self, other: Self) {
        self.pieces.extend(other.pieces);
        self.dirty.extend(other.dirty);
        self.whole.extend(other.whole);
        self.placed.extend(other.placed);
        if other.have.is_some() {
            self.have = other.have;
        }
    }

    fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.dirty.is_empty() && self.whole.is_empty() && self.placed.is_empty()
    }
}

/// What [`State::new`] needs to know.
pub(crate) struct Start {
    pub(crate) id: PackId,
    pub(crate) content: Arc<Content>,
    pub(crate) destination: PathBuf,
    pub(crate) stage: PathBuf,
    pub(crate) stage_dir: Box<dyn BackendDir>,
    pub(crate) whole_content: bool,
    pub(crate) layout: Layout,
    pub(crate) slots: Vec<Slot>,
    /// By number of place.
    pub(crate) present: BitVec,
}

impl State {
    pub(crate) fn new(inner: &Arc<Inner>, start: Start) -> Self {
        let Start {
            id,
            content,
            destination,
            stage,
            stage_dir,
            whole_content,
            layout,
            slots,
            present,
        } = start;
        let mut missing = vec![0; slots.len()];
        let mut have = content.map().none();
        let (mut bytes_here, mut piece_bytes_here) = (0, 0);
        for (piece, leaf) in content.map().iter() {
            let mut all = true;
            for place in layout.places(piece) {
                if present[place.number as usize] {
                    bytes_here += u64::from(leaf.len);
                } else {
                    missing[place.file as usize] += 1;
                    all = false;
                }
            }
            if all && layout.places(piece).len() > 0 {
                have.set(piece.as_usize(), true);
                piece_bytes_here += u64::from(leaf.len);
            }
        }
        let mut gathered = Gathered::default();
        for (number, slot) in slots.iter().enumerate() {
            match slot {
                Slot::Staged(_) if missing[number] == 0 => {
                    gathered.whole.insert(number as u32);
                }
                Slot::Placed(_) => {
                    // Bytes that nodes carry have no places.
                    let carried = content.parts(&content.files()[number]).filter_map(|part| match part {
                        Part::Node { len, .. } => Some(u64::from(len)),
                        Part::Piece(_) => None,
                    });
                    bytes_here += carried.sum::<u64>();
                }
                _ => {}
            }
        }
        Self {
            inner: inner.clone(),
            id,
            content,
            destination,
            stage,
            stage_dir,
            whole_content,
            layout,
            moving: Mutex::new(Moving {
                have,
                writing: HashSet::new(),
                present,
                missing,
                slots,
                gathered,
                taken: Gathered::default(),
                fresh: HashMap::new(),
                told: false,
                bytes_here,
                piece_bytes_here,
                stuck: HashMap::new(),
                ended: false,
            }),
            open: Mutex::default(),
        }
    }

    pub(crate) fn have(&self) -> PieceSet {
        crate::lock(&self.moving).have.clone()
    }

    pub(crate) fn has_ended(&self) -> bool {
        crate::lock(&self.moving).ended
    }

    pub(crate) fn end(&self) {
        crate::lock(&self.moving).ended = true;
        crate::lock(&self.open).clear();
    }

    pub(crate) fn plan(&self) -> Plan {
        let wanted = self.layout.wanted();
        let piece_bytes = wanted.iter_ones().filter_map(|at| self.content.map().index(at as u32));
        let piece_bytes = piece_bytes
            .map(|index| u64::from(self.content.map().leaf(index).len))
            .sum();
        let moving = crate::lock(&self.moving);
        let selected = || {
            moving
                .slots
                .iter()
                .zip(self.content.files())
                .filter(|(s, _)| !matches!(s, Slot::Out))
        };
        Plan {
            files: selected().count() as u64,
            bytes: selected().map(|(_, file)| file.size).sum(),
            bytes_here: moving.bytes_here,
            pieces: wanted.count_ones() as u64,
            pieces_here: moving.have.count_ones() as u64,
            piece_bytes,
            piece_bytes_here: moving.piece_bytes_here,
            disk_free: self.inner.backend.free_space(&self.stage),
        }
    }

    /// Reads and verifies a leaf that was written and is not committed yet. Others are told of it already.
    pub(crate) fn read_fresh(&self, cid: &Cid) -> Option<Bytes> {
        let (place, slot, len) = {
            let moving = crate::lock(&self.moving);
            let piece = *moving.fresh.get(cid)?;
            let place = self.layout.places(piece).next()?;
            let slot = moving.slots[place.file as usize].clone();
            (place, slot, self.content.map().leaf(piece).len)
        };
        let path = self
            .destination
            .join(self.content.files()[place.file as usize].path.as_str());
        let file = match slot {
            // It may get its final name at this very moment.
            Slot::Staged(target) => {
                let staged = self.inner.backend.open(&self.stage.join(target.row.to_string()));
                staged.or_else(|_| self.inner.backend.open(&path))
            }
            Slot::Placed(_) => self.inner.backend.open(&path),
            Slot::Out => return None,
        };
        let mut bytes = vec![0; len as usize];
        file.ok()?.read_exact_at(&mut bytes, place.offset).ok()?;
        cid.verifies(&bytes).then(|| bytes.into())
    }

    /// The staged file `number`, made (sparse, with what nodes carry) where there is none.
    pub(crate) fn staged_file(&self, number: u32, row: i64) -> io::Result<Arc<dyn BackendFile>> {
        let mut open = crate::lock(&self.open);
        if let Some((_, file)) = open.iter().find(|(n, _)| *n == number) {
            return Ok(file.clone());
        }
        let name = row.to_string();
        let described = &self.content.files()[number as usize];
        let file = match self.stage_dir.create_file(&name) {
            Ok(file) => {
                let made = file
                    .set_len(described.size)
                    .and_then(|()| self.write_carried(number, &*file));
                if let Err(e) = made {
                    let _ = self.stage_dir.remove_file(&name);
                    return Err(e);
                }
                file
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => self.stage_dir.open_file_rw(&name)?,
            Err(e) => return Err(e),
        };
        let file: Arc<dyn BackendFile> = Arc::from(file);
        while open.len() >= self.inner.options.open_files_max.max(1) {
            open.pop_front();
        }
        open.push_back((number, file.clone()));
        Ok(file)
    }

    fn write_carried(&self, number: u32, file: &dyn BackendFile) -> io::Result<()> {
        for span in self.content.spans(&self.content.files()[number as usize]) {
            if let Part::Node { cid, .. } = span.part {
                let bytes = self.inner.carried(&cid).map_err(io::Error::other)?;
                file.write_all_at(&bytes, span.offset)?;
            }
        }
        Ok(())
    }

    pub(super) fn close_staged(&self, numbers: &BTreeSet<u32>) {
        crate::lock(&self.open).retain(|(number, _)| !numbers.contains(number));
    }

    /// Tells the writer that something was gathered, if it has not been told.
    pub(crate) fn tell(self: &Arc<Self>) -> Result<(), IndexError> {
        let (tell, flush) = {
            let mut moving = crate::lock(&self.moving);
            let tell = !moving.told && !moving.gathered.is_empty();
            moving.told |= tell;
            (tell, moving.gathered.pieces.len() == GATHERED_MAX)
        };
        if tell {
            self.inner.index.writer.pending(self.clone())?;
        }
        if flush {
            self.inner.index.writer.flush()?;
        }
        Ok(())
    }
}

pub(crate) fn write_piece(state: &Arc<State>, piece: PieceIndex, bytes: &[u8]) -> Result<(), WriteError> {
    let leaf = state.content.map().leaf(piece);
    if bytes.len() != leaf.len as usize {
        return Err(WriteError::Length {
            expected: leaf.len,
            given: bytes.len(),
        });
    }
    let places: Vec<(Place, i64)> = {
        let mut moving = crate::lock(&state.moving);
        if moving.ended {
            return Err(WriteError::Ended);
        }
        if moving.have[piece.as_usize()] || !moving.writing.insert(piece.get()) {
            return Ok(());
        }
        let absent = state
            .layout
            .places(piece)
            .filter(|place| !moving.present[place.number as usize]);
        absent
            .filter_map(|place| match &moving.slots[place.file as usize] {
                Slot::Staged(target) => Some((place, target.row)),
                _ => None,
            })
            .collect()
    };
    let size = bytes.len() as u64 * places.len() as u64;
    if let Err(shortage) = state.inner.room.write(&*state.inner.backend, &state.stage, size) {
        crate::lock(&state.moving).writing.remove(&piece.get());
        return Err(shortage.into());
    }
    // A staged file is made of a hole, and nothing but its own pieces is ever written to it: zeros are there already.
    let zeros = bytes.iter().all(|byte| *byte == 0);
    let mut written = Vec::with_capacity(places.len());
    let mut failed = None;
    for (place, row) in places {
        let wrote = state.staged_file(place.file, row).and_then(|file| {
            if zeros {
                Ok(())
            } else {
                file.write_all_at(bytes, place.offset)
            }
        });
        match wrote {
            Ok(()) => written.push(place),
            Err(e) => {
                failed = Some(if fs::is_disk_full(&e) {
                    WriteError::DiskFull(state.stage.clone())
                } else {
                    WriteError::Io {
                        path: state.stage.join(row.to_string()),
                        source: e,
                    }
                });
                break;
            }
        }
    }
    {
        let mut guard = crate::lock(&state.moving);
        let moving = &mut *guard;
        moving.writing.remove(&piece.get());
        for place in written {
            moving.present.set(place.number as usize, true);
            moving.bytes_here += u64::from(leaf.len);
            moving.gathered.dirty.insert(place.file);
            let missing = &mut moving.missing[place.file as usize];
            *missing -= 1;
            if *missing == 0 {
                moving.gathered.whole.insert(place.file);
            }
        }
        if failed.is_none() {
            moving.have.set(piece.as_usize(), true);
            moving.piece_bytes_here += u64::from(leaf.len);
            moving.gathered.pieces.push(piece.get());
            moving.fresh.insert(leaf.cid, piece);
        }
    }
    state.tell()?;
    failed.map_or(Ok(()), Err)
}

impl State {
    /// Whether no piece belongs in the file: it is empty, or nodes carry all its bytes.
    pub(super) fn layout_is_empty_for(&self, number: u32) -> bool {
        let file = &self.content.files()[number as usize];
        !self.content.parts(file).any(|part| matches!(part, Part::Piece(_)))
    }

    /// Files that were placed and are gone again: they are staged anew. Returns how many pieces are missing now.
    pub(crate) fn take_back(&self, numbers: &[u32]) -> Result<u32, IndexError> {
        let mut rows_back = Vec::new();
        let missing = {
            let mut guard = crate::lock(&self.moving);
            let moving = &mut *guard;
            for &number in numbers {
                let Slot::Placed(row) = moving.slots[number as usize] else {
                    continue;
                };
                rows_back.push(row);
                let replace = super::place::Replace::Nothing;
                moving.slots[number as usize] = Slot::Staged(Target { row, replace });
                if self.layout_is_empty_for(number) {
                    moving.gathered.whole.insert(number);
                }
            }
            let back: HashSet<u32> = numbers.iter().copied().collect();
            for (piece, leaf) in self.content.map().iter() {
                for place in self.layout.places(piece).filter(|place| back.contains(&place.file)) {
                    if moving.present.replace(place.number as usize, false) {
                        moving.missing[place.file as usize] += 1;
                        moving.bytes_here -= u64::from(leaf.len);
                    }
                    if moving.have.replace(piece.as_usize(), false) {
                        moving.piece_bytes_here -= u64::from(leaf.len);
                    }
                }
            }
            self.layout.wanted().count_ones() - moving.have.count_ones()
        };
        let id = self.id;
        self.inner.index.writer.run(move |tx| -> Result<(), IndexError> {
            rows_back.iter().try_for_each(|row| rows::stage_file(tx, *row, id))
        })?;
        Ok(missing as u32)
    }

    /// What blocks whole files, taken together.
    pub(crate) fn stuck(&self) -> Vec<(u32, PlaceError)> {
        let mut guard = crate::lock(&self.moving);
        let moving = &mut *guard;
        let stuck: Vec<_> = moving.stuck.drain().collect();
        moving.gathered.whole.extend(stuck.iter().map(|(number, _)| *number));
        stuck
    }
}

/// For errors that name what is in the way.
impl From<Blockage> for PlaceError {
    fn from(blockage: Blockage) -> Self {
        Self::Blocked(blockage)
    }
}
