//! The files of a staging folder: which of them are this download's own, and clearing up.
//!
//! A staging folder lies among the user's files, under a name that anybody can reckon. So what is found in it is not written to, trusted or deleted just for its
//! name: a staged file is the download's own if it made it in this run, or if it is the file that the index remembers. Where file numbers do not last, as
//! on FAT, the pieces in a file that may be another are read before they count as had. A file with a second name elsewhere is never written to.

use std::{
    collections::{HashMap, HashSet},
    io,
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bitvec::vec::BitVec;
use modswarm_protocol::format::{Content, Part, PieceIndex, PieceSet};

use super::{layout::Layout, state::State};
use crate::{
    backend::{Backend, BackendDir, BackendFile, Entry, Identity},
    fs,
    index::rows::FileRow,
};

/// Which files of the content have a staged file that is the download's own, by number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Own {
    files: HashMap<u32, Made>,
    /// Those of them that may not be the ones that were made of a hole: what is missing in them need not read as zeros.
    doubtful: HashSet<u32>,
    /// Those whose identity the index knows.
    recorded: HashSet<u32>,
}

/// By what a staged file is known while it is written to. The number alone is soon given to another file, on some systems at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Made {
    file: u64,
    born: i64,
}

impl Made {
    fn of(file: &dyn BackendFile) -> io::Result<Self> {
        Ok(Self {
            file: file.identity()?.file,
            born: file.born(),
        })
    }
}

/// A staged file that an earlier run left.
pub(super) struct Left {
    number: u32,
    file: Box<dyn BackendFile>,
    identity: Identity,
    /// Whether it certainly is the one that the index remembers.
    known: bool,
}

impl Left {
    /// The file of this number and row in the staging folder `dir`, if it can be the one that was left.
    pub(super) fn find(dir: &dyn BackendDir, number: u32, row: &FileRow, size: u64) -> Option<Self> {
        let file = dir.open_file(&row.id.to_string()).ok()?;
        let identity = file.identity().ok()?;
        let known = row.identity.same_file(&identity) && row.identity.ctime == file.born();
        (identity.size == size && !file.has_other_names()).then_some(Self {
            number,
            file,
            identity,
            known,
        })
    }

    /// Whether it is the file of this identity.
    pub(super) fn is(&self, identity: &Identity) -> bool {
        identity.same_file(&self.identity)
    }
}

impl Own {
    /// Takes a file that was left for the download's own. Where it may be another, sets in `present`, by number of place, which of the pieces that were
    /// `committed` are in it; one without a single right piece is another file altogether, and is made anew.
    pub(super) fn take_over(
        &mut self,
        left: &Left,
        of: (&Content, &Layout),
        committed: &PieceSet,
        present: &mut BitVec,
    ) {
        let Ok(made) = Made::of(&*left.file) else { return };
        if left.known {
            self.files.insert(left.number, made);
            self.recorded.insert(left.number);
        } else if read_pieces(&*left.file, of, left.number, committed, present) {
            self.files.insert(left.number, made);
            self.doubtful.insert(left.number);
        }
    }

    /// Sets in `present` which of the pieces that were `committed` are in files that certainly are the download's own.
    pub(super) fn mark(&self, (content, layout): (&Content, &Layout), committed: &PieceSet, present: &mut BitVec) {
        if self.recorded.is_empty() {
            return;
        }
        for piece in committed.iter_ones().filter_map(|at| content.map().index(at as u32)) {
            for place in layout.places(piece).filter(|place| self.recorded.contains(&place.file)) {
                present.set(place.number as usize, true);
            }
        }
    }
}

/// Reads the pieces that were committed to the staged file `number`; whether any is there.
fn read_pieces(
    file: &dyn BackendFile,
    (content, layout): (&Content, &Layout),
    number: u32,
    committed: &PieceSet,
    present: &mut BitVec,
) -> bool {
    let mut buf = Vec::new();
    let mut seen = HashSet::new();
    let mut any = false;
    for part in content.file(number as usize).parts() {
        let Part::Piece(piece) = part else { continue };
        if !committed[piece.as_usize()] || !seen.insert(piece) {
            continue;
        }
        let leaf = content.map().leaf(piece);
        buf.resize(leaf.len as usize, 0);
        for place in layout.places_in(piece, number) {
            let read = file.read_exact_at(&mut buf, place.offset);
            if read.is_ok() && leaf.cid.verifies(&buf) {
                present.set(place.number as usize, true);
                any = true;
            }
        }
    }
    any
}

impl State {
    /// The staged file `number`, made (sparse, with what nodes carry) where there is none. Another that stands under its name is deleted.
    pub(crate) fn staged_file(&self, number: u32, row: i64) -> io::Result<Arc<dyn BackendFile>> {
        let mut open = crate::lock(&self.open);
        if let Some((_, file)) = open.iter().find(|(n, _)| *n == number) {
            return Ok(file.clone());
        }
        let name = row.to_string();
        let own = crate::lock(&self.own).files.contains_key(&number);
        let file = match self.stage_dir.create_file(&name) {
            Ok(file) => self.begin_staged(number, &name, file)?,
            Err(e) if fs::is_gone(&e) => {
                return Err(io::Error::new(
                    e.kind(),
                    "its folder was deleted meanwhile; get the pack again",
                ));
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && own => {
                let file = self.open_own(number, &name)?;
                if self.is_doubtful(number) {
                    self.write_carried(number, &*file)?;
                }
                file
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                self.stage_dir.remove_file(&name)?;
                let file = self.stage_dir.create_file(&name)?;
                self.begin_staged(number, &name, file)?
            }
            Err(e) => return Err(e),
        };
        let file: Arc<dyn BackendFile> = Arc::from(file);
        while open.len() >= self.inner.options.open_files_max.max(1) {
            open.pop_front();
        }
        open.push_back((number, file.clone()));
        Ok(file)
    }

    fn begin_staged(&self, number: u32, name: &str, file: Box<dyn BackendFile>) -> io::Result<Box<dyn BackendFile>> {
        let size = self.content.file(number as usize).size();
        if let Err(e) = file.set_len(size).and_then(|()| self.write_carried(number, &*file)) {
            let _ = self.stage_dir.remove_file(name);
            return Err(e);
        }
        let made = Made::of(&*file)?;
        let mut own = crate::lock(&self.own);
        own.files.insert(number, made);
        own.doubtful.remove(&number);
        own.recorded.remove(&number);
        drop(own);
        self.names_made.store(true, Relaxed);
        Ok(file)
    }

    fn open_own(&self, number: u32, name: &str) -> io::Result<Box<dyn BackendFile>> {
        let other = || io::Error::other("something else stands there now; delete that and get the pack again");
        match self.stage_dir.entry(name)? {
            Some(Entry::File(_)) => {}
            _ => return Err(other()),
        }
        let file = self.stage_dir.open_file_rw(name)?;
        if file.has_other_names() {
            return Err(io::Error::other("it is linked to from elsewhere; delete that link"));
        }
        let same = crate::lock(&self.own).files.get(&number) == Some(&Made::of(&*file)?);
        // Where file numbers do not last, what was written is looked for.
        if same || self.holds(number, &*file, true) {
            Ok(file)
        } else {
            Err(other())
        }
    }

    /// Whether what stands in the staging folder as the whole file `number` is what was written there, and not what somebody put in its place.
    pub(super) fn is_ours(&self, number: u32, row: i64) -> io::Result<bool> {
        let name = row.to_string();
        match self.stage_dir.entry(&name)? {
            Some(Entry::File(_)) => {}
            _ => return Ok(false),
        }
        let file = self.stage_dir.open_file(&name)?;
        let same = crate::lock(&self.own).files.get(&number) == Some(&Made::of(&*file)?);
        Ok(same || self.holds(number, &*file, false))
    }

    /// Reads the pieces of the file `number`; whether they are in it: all, or all that are said to be.
    fn holds(&self, number: u32, file: &dyn BackendFile, present_only: bool) -> bool {
        let described = self.content.file(number as usize);
        let absent: HashSet<u64> = match present_only {
            false => HashSet::new(),
            true => {
                let moving = crate::lock(&self.moving);
                let pieces: HashSet<PieceIndex> = described.parts().filter_map(piece_of).collect();
                let places = pieces.iter().flat_map(|piece| self.layout.places_in(*piece, number));
                let absent = places.filter(|place| !moving.present[place.number as usize]);
                absent.map(|place| place.offset).collect()
            }
        };
        let size = file.identity().map_or(0, |identity| identity.size);
        let mut buf = Vec::new();
        size == described.size()
            && described.spans().all(|span| {
                buf.resize(span.len as usize, 0);
                match span.part {
                    Part::Piece(_) if absent.contains(&span.offset) => true,
                    Part::Piece(piece) => {
                        file.read_exact_at(&mut buf, span.offset).is_ok()
                            && self.content.map().leaf(piece).cid.verifies(&buf)
                    }
                    Part::Node { cid, .. } => {
                        file.read_exact_at(&mut buf, span.offset).is_ok()
                            && self.inner.carried(&cid).is_ok_and(|carried| carried == buf)
                    }
                }
            })
    }

    /// Staged files that are no more, or have got their names.
    pub(super) fn disown(&self, numbers: impl Iterator<Item = u32>) {
        let mut own = crate::lock(&self.own);
        for number in numbers {
            own.files.remove(&number);
            own.doubtful.remove(&number);
            own.recorded.remove(&number);
        }
    }

    /// Whether what is missing in a staged file may read as something else than zeros.
    pub(super) fn is_doubtful(&self, number: u32) -> bool {
        crate::lock(&self.own).doubtful.contains(&number)
    }

    fn write_carried(&self, number: u32, file: &dyn BackendFile) -> io::Result<()> {
        for span in self.content.file(number as usize).spans() {
            if let Part::Node { cid, .. } = span.part {
                let bytes = self.inner.carried(&cid).map_err(io::Error::other)?;
                file.write_all_at(&bytes, span.offset)?;
            }
        }
        Ok(())
    }

    /// By what the index is to remember the staged files `numbers`, each with its row, as far as it does not know yet: the file number, and as `ctime` when the
    /// file was made, since it is written to.
    pub(super) fn to_record(&self, numbers: impl Iterator<Item = (u32, i64)>) -> Vec<(u32, i64, Identity)> {
        let own = crate::lock(&self.own);
        let unknown = numbers.filter(|(number, _)| own.files.contains_key(number) && !own.recorded.contains(number));
        unknown
            .filter_map(|(number, row)| {
                let file = self.stage_dir.open_file(&row.to_string()).ok()?;
                let identity = Identity {
                    ctime: file.born(),
                    ..file.identity().ok()?
                };
                Some((number, row, identity))
            })
            .collect()
    }

    /// The index knows these files now, as far as they are staged still.
    pub(super) fn are_recorded(&self, numbers: impl Iterator<Item = u32>) {
        let mut guard = crate::lock(&self.own);
        let own = &mut *guard;
        own.recorded
            .extend(numbers.filter(|number| own.files.contains_key(number)));
    }
}

/// Deletes the staged files in `dir`, which was opened at `path`, and the folder if nothing else is in it. What stands at `path` now may be another folder: its
/// files stay.
pub(crate) fn clear(backend: &dyn Backend, path: &Path, dir: &dyn BackendDir) -> io::Result<()> {
    for (name, entry) in backend.read_dir(path)? {
        let Some(name) = name.to_str().filter(|name| is_staged_name(name)) else {
            continue;
        };
        let Entry::File(listed) = entry else { continue };
        match dir.entry(name) {
            Ok(Some(Entry::File(ours))) if ours.same_file(&listed) => dir.remove_file(name)?,
            Ok(_) => {}
            Err(e) if fs::is_gone(&e) => {}
            // Taken for the user's, it would stay for ever.
            Err(e) => return Err(e),
        }
    }
    match backend.remove_dir(path) {
        // A symlink, or a folder with something of the user's in it, stays.
        Err(e) if !fs::is_gone(&e) && e.kind() != io::ErrorKind::DirectoryNotEmpty => return Err(e),
        _ => {}
    }
    match path.parent().map(|parent| backend.sync_dir(parent)) {
        Some(Err(e)) if !fs::is_gone(&e) => Err(e),
        _ => Ok(()),
    }
}

/// [`clear`] for a download that is not open.
pub(crate) fn clear_at(backend: &dyn Backend, path: &Path) -> io::Result<()> {
    match backend.open_resolved(path) {
        Ok(dir) => clear(backend, path, &*dir),
        // Gone, or no folder of ours any more.
        Err(e) if fs::is_gone(&e) => Ok(()),
        Err(e) => Err(e),
    }
}

fn piece_of(part: Part) -> Option<PieceIndex> {
    match part {
        Part::Piece(piece) => Some(piece),
        Part::Node { .. } => None,
    }
}

/// Staged files are called by the numbers of their rows.
fn is_staged_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit())
}
