//! What becomes of each file of a content: it is there, it only needs another name, it is to be staged, or the user keeps his own.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::{BuildHasher, RandomState},
};

use bitvec::vec::BitVec;
use modswarm_protocol::{
    Cid,
    format::{Content, PackPath, path::case_key},
};
use rusqlite::Connection;

use super::{
    Conflicts,
    inspect::{Found, There, is_still},
    known::{Known, Rows},
    marks::{Mark, Marks},
    place::Replace,
};
use crate::{
    backend::Identity,
    error::IndexError,
    fs,
    index::rows::{FileRow, FileState},
    store::Inner,
};

/// What is to become of each selected file.
#[derive(Debug)]
pub(super) struct Decided {
    selected: BitVec,
    /// [`Mark::Nothing`] for those that are to be staged where nothing stands, [`Mark::Staged`] if they have a row, [`Mark::Placed`] for [`What::Known`].
    marks: Marks,
    others: BTreeMap<usize, What>,
}

/// What is to become of one file.
#[derive(Clone, Debug)]
pub(super) enum What {
    /// It is there already, as this row of the index says.
    Known(i64),
    /// It is there already. Its leaves are to be written, and its row if it has none.
    Adopt { found: Found, row: Option<i64> },
    /// It is to be staged; the row that it has been staged under. `held`: it gets its name only at the end, under the journal.
    Stage {
        replace: Replace,
        row: Option<i64>,
        held: bool,
    },
    /// The former version has it under another name: it is renamed at the end.
    Move {
        from: PackPath,
        row: Box<FileRow>,
        replace: Replace,
    },
    /// The user's file stays there.
    Keep,
    /// It stays as it is, and what the index says of it.
    Leave,
}

impl Decided {
    /// All of them are to be staged where nothing stands.
    pub(super) fn to_stage(selected: BitVec) -> Self {
        Self {
            marks: Marks::new(selected.len()),
            selected,
            others: BTreeMap::new(),
        }
    }

    pub(super) fn set(&mut self, number: usize, what: What) {
        let mark = match &what {
            What::Known(row) => Mark::Placed(*row),
            What::Stage {
                replace: Replace::Nothing,
                row,
                held: false,
            } => row.map_or(Mark::Nothing, Mark::Staged),
            _ => Mark::Other,
        };
        match self.marks.set(number, mark) {
            Mark::Other => self.others.insert(number, what),
            _ => self.others.remove(&number),
        };
    }

    /// What is to become of the file of this number; none if it is not selected.
    pub(super) fn get(&self, number: usize) -> Option<What> {
        let stage = |row| What::Stage {
            replace: Replace::Nothing,
            row,
            held: false,
        };
        self.selected[number].then(|| match self.marks.get(number) {
            Mark::Nothing => stage(None),
            Mark::Staged(row) => stage(Some(row)),
            Mark::Placed(row) => What::Known(row),
            Mark::Other => self.others.get(&number).cloned().unwrap_or_else(|| stage(None)),
        })
    }

    /// All selected files, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, What)> + '_ {
        let numbers = self.selected.iter_ones();
        numbers.filter_map(|number| Some((number, self.get(number)?)))
    }
}

impl What {
    /// Bytes of the file that goes when this one comes.
    pub(super) fn replaced_size(&self) -> u64 {
        match self {
            Self::Stage { replace, .. } | Self::Move { replace, .. } => match replace {
                Replace::Known(old) => old.identity.size,
                Replace::Theirs { size, .. } => *size,
                Replace::Nothing => 0,
            },
            Self::Known(_) | Self::Adopt { .. } | Self::Keep | Self::Leave => 0,
        }
    }

    /// Whether what is there stays there.
    fn stays(&self) -> bool {
        matches!(self, Self::Known(_) | Self::Adopt { .. } | Self::Keep)
    }
}

/// What was decided, and which files of the user's are in the way. If the policy refuses, it is decided as if they were to be replaced.
#[derive(Debug)]
pub(super) struct Decisions {
    pub(super) files: Decided,
    pub(super) conflicts: Vec<PackPath>,
}

pub(super) fn decide(
    inner: &Inner,
    policy: Conflicts,
    content: &Content,
    known: &Known,
    selected: &BitVec,
    mut there: BTreeMap<usize, There>,
    may_move: bool,
) -> Result<Decisions, IndexError> {
    let conn = &*inner.index.reader()?;
    let mut conflicts = Vec::new();
    let mut decided = Decided::to_stage(selected.clone());
    let mut files = known.files(conn);
    let twins = Twins::new(conn, known)?;
    for number in selected.iter_ones() {
        let file = content.file(number);
        let path = file.path();
        let there = there.remove(&number).unwrap_or(There::Nothing);
        let at_place = match there {
            There::Nothing | There::Known(_) => None,
            There::Same(_) | There::Differs(_) => known.at_place(conn, &path)?,
        };
        let at_place = at_place.as_ref();
        let row = files.get(number as u32)?;
        let stage = |replace, held| What::Stage {
            replace,
            row: row.filter(|row| row.stage.is_some()).map(|row| row.id),
            held,
        };
        let in_place = row.filter(|row| row.stage.is_none());
        let mended = (policy == Conflicts::Mend)
            .then(|| known.mended(inner, number, &path, in_place, &there))
            .flatten();
        if let Some(what) = mended {
            decided.set(number, what);
            continue;
        }
        let what = match there {
            There::Known(row) => What::Known(row),
            There::Same(found) => match twins.find(conn, &path, &found.identity)? {
                // One file, which this system finds under both spellings.
                Some((from, row)) => What::Move {
                    from,
                    row: Box::new(row),
                    replace: Replace::Nothing,
                },
                None => What::Adopt {
                    found: *found,
                    row: at_place.filter(|row| row.cid == file.cid()).map(|row| row.id),
                },
            },
            There::Nothing => stage(Replace::Nothing, false),
            There::Differs(identity) => match known
                .as_fetched(inner, &path, at_place, identity.as_deref())
                .or_else(|| rotten(at_place, &file.cid(), identity.as_deref()).filter(|_| policy == Conflicts::Mend))
            {
                Some(old) => stage(Replace::Known(Box::new(old)), false),
                None => {
                    if policy != Conflicts::Mend {
                        conflicts.push(path);
                    }
                    let theirs = Replace::Theirs {
                        row: at_place.map(|row| row.id),
                        size: identity.map_or(0, |identity| identity.size),
                    };
                    match policy {
                        Conflicts::KeepMine => What::Keep,
                        Conflicts::Mend if in_place.is_some() => What::Leave,
                        // What the pack was to have there was being put there, and something else is there now.
                        Conflicts::Mend => What::Keep,
                        Conflicts::KeepBoth => stage(Replace::Nothing, true),
                        Conflicts::TakeTheirs | Conflicts::Refuse => stage(theirs, false),
                    }
                }
            },
        };
        decided.set(number, what);
    }
    if may_move {
        find_moves(inner, conn, content, known, &mut decided)?;
    }
    Ok(Decisions {
        files: decided,
        conflicts,
    })
}

/// The row of a file that was `cid` when it was looked at last, wherever it came from, and that nobody has edited since.
fn rotten(at_place: Option<&FileRow>, cid: &Cid, now: Option<&Identity>) -> Option<FileRow> {
    let (row, now) = (at_place?, now?);
    (row.cid == *cid && row.identity.same_bytes(now)).then(|| row.clone())
}

/// Turns files to be staged into ones to be renamed, where the former version has the same file under a name that is free for the taking.
fn find_moves(
    inner: &Inner,
    conn: &Connection,
    content: &Content,
    known: &Known,
    decided: &mut Decided,
) -> Result<(), IndexError> {
    let adopted: Rows = decided
        .iter()
        .filter_map(|(_, what)| match what {
            What::Known(row) => Some(row),
            What::Adopt { row, .. } => row,
            _ => None,
        })
        .collect();
    let may_move = |row: &FileRow| {
        let theirs = known.fetched.contains(row.id) && row.state == FileState::Whole;
        theirs && row.identity.size > 0 && !adopted.contains(row.id)
    };
    let mut any = false;
    known.each_in_place(conn, |row| any |= may_move(&row))?;
    if !any {
        return Ok(());
    }
    let wanted: HashSet<Cid> = decided
        .iter()
        .filter(|(_, what)| matches!(what, What::Stage { .. }))
        .map(|(number, _)| content.file(number).cid())
        .collect();
    // By path, so that the same is decided every time.
    let mut candidates: BTreeMap<PackPath, FileRow> = BTreeMap::new();
    known.each_in_place(conn, |row| {
        if may_move(&row)
            && wanted.contains(&row.cid)
            && let Some(named) = fs::pack_path(&fs::path_from(row.path.clone()))
        {
            candidates.insert(named, row);
        }
    })?;
    if candidates.is_empty() {
        return Ok(());
    }
    for file in content.files() {
        let path = file.path();
        let Some(row) = candidates.get(&path) else { continue };
        // With the same bytes it would have been adopted: they are not what the index says.
        let stays = decided.get(file.number()).is_some_and(|what| what.stays());
        if stays || row.cid == file.cid() {
            candidates.remove(&path);
        }
    }
    let mut spare: HashMap<Cid, BTreeMap<PackPath, FileRow>> = HashMap::new();
    for (named, row) in candidates {
        let now = inner.backend.identity_at(&known.destination.join(named.as_str()));
        let same = matches!(now, Ok(Some(now)) if row.identity.same_bytes(&now));
        // One that was found damaged is read before it is believed.
        if same && (row.seen != 0 || is_still(inner, &known.destination, &named, &row.cid)) {
            spare.entry(row.cid).or_default().insert(named, row);
        }
    }
    let mut moved: BTreeSet<PackPath> = BTreeSet::new();
    for same_name in [true, false] {
        for file in content.files() {
            let Some(What::Stage { replace, row, .. }) = decided.get(file.number()) else {
                continue;
            };
            // What was staged in part is nearly always less work to finish than to explain.
            if row.is_some() && !matches!(replace, Replace::Nothing) {
                continue;
            }
            let Some(candidates) = spare.get_mut(&file.cid()) else {
                continue;
            };
            let found = candidates
                .keys()
                .find(|from| !same_name || from.file_name() == file.name())
                .cloned();
            if let Some(from) = found
                && let Some(row) = candidates.remove(&from)
            {
                moved.insert(from.clone());
                let what = What::Move {
                    from,
                    row: Box::new(row),
                    replace,
                };
                decided.set(file.number(), what);
            }
        }
    }
    // Whatever comes where a file is moved away waits for that.
    for file in content.files().filter(|file| moved.contains(&file.path())) {
        let what = match decided.get(file.number()) {
            Some(What::Stage { row, .. }) => What::Stage {
                replace: Replace::Nothing,
                row,
                held: true,
            },
            Some(What::Move { from, row, .. }) => What::Move {
                from,
                row,
                replace: Replace::Nothing,
            },
            _ => continue,
        };
        decided.set(file.number(), what);
    }
    Ok(())
}

/// Files that are known under names which this system may take for others.
struct Twins<'a> {
    known: &'a Known,
    /// Paths by their spelling without regard to case, where the system has none.
    folded: HashMap<String, Vec<PackPath>>,
}

impl<'a> Twins<'a> {
    fn new(conn: &Connection, known: &'a Known) -> Result<Self, IndexError> {
        let mut folded: HashMap<String, Vec<PackPath>> = HashMap::new();
        if fs::CASE_FOLDS {
            known.each_in_place(conn, |row| {
                if known.fetched.contains(row.id)
                    && let Some(path) = fs::pack_path(&fs::path_from(row.path))
                {
                    folded.entry(case_of(path.as_str())).or_default().push(path);
                }
            })?;
        }
        Ok(Self { known, folded })
    }

    /// The same file, known under a name that differs from `path` only in case.
    fn find(
        &self,
        conn: &Connection,
        path: &PackPath,
        now: &Identity,
    ) -> Result<Option<(PackPath, FileRow)>, IndexError> {
        if self.folded.is_empty() {
            return Ok(None);
        }
        let twins = self.folded.get(&case_of(path.as_str()));
        for twin in twins.into_iter().flatten().filter(|twin| *twin != path) {
            let row = self.known.at_place(conn, twin)?;
            if let Some(row) = row.filter(|row| self.known.fetched.contains(row.id) && row.identity.same_bytes(now)) {
                return Ok(Some((twin.clone(), row)));
            }
        }
        Ok(None)
    }
}

impl Known {
    /// What becomes of a file when the pack is mended, as far as that does not depend on what stands at its place: it stays where the user wants it so, and where
    /// nothing is known to be wrong with it.
    fn mended(
        &self,
        inner: &Inner,
        number: usize,
        path: &PackPath,
        in_place: Option<&FileRow>,
        there: &There,
    ) -> Option<What> {
        if self.kept.contains(&(number as u32)) {
            return (!matches!(there, There::Same(_) | There::Known(_))).then_some(What::Keep);
        }
        let row = in_place?;
        let place = fs::path_from(row.path.clone());
        let now = inner
            .backend
            .identity_at(&self.destination.join(&place))
            .ok()
            .flatten()?;
        let right = row.seen != 0 && row.identity.same_bytes(&now);
        let renamed = row.path != path.as_str().as_bytes();
        (right || renamed).then_some(What::Leave)
    }

    /// The row of the file at `path` if it is still as a download put it there, by its identity `now` or, if only that differs, by its bytes.
    fn as_fetched(
        &self,
        inner: &Inner,
        path: &PackPath,
        at_place: Option<&FileRow>,
        now: Option<&Identity>,
    ) -> Option<FileRow> {
        let (row, now) = (at_place?, *now?);
        if !self.fetched.contains(row.id) {
            return None;
        }
        if row.identity.same_bytes(&now) {
            return Some(row.clone());
        }
        let same = row.identity.size == now.size && is_still(inner, &self.destination, path, &row.cid);
        same.then(|| FileRow {
            identity: now,
            ..row.clone()
        })
    }
}

/// Files of versions that stand at the destination and that the content does not have: those that a download left there as they are, and those that the user
/// changed. `gone`: paths that are renamed away.
pub(super) fn leftover(
    inner: &Inner,
    content: &Content,
    known: &Known,
    gone: &BTreeSet<PackPath>,
) -> Result<Leftover, IndexError> {
    let (mut removed, mut kept) = (Vec::new(), Vec::new());
    let mut former = Vec::new();
    known.each_in_place(&*inner.index.reader()?, |row| {
        if known.former.contains(row.id) {
            former.push((row.path, row.identity));
        }
    })?;
    if former.is_empty() {
        return Ok((removed, kept));
    }
    let own = OwnPaths::new(content);
    for (path, identity) in former {
        let place = fs::path_from(path);
        let Some(path) = fs::pack_path(&place) else {
            continue;
        };
        if own.contains(path.as_str()) || gone.contains(&path) {
            continue;
        }
        match inner.backend.identity_at(&known.destination.join(&place)) {
            Ok(Some(now)) if identity.same_bytes(&now) => removed.push((path, now.size)),
            Err(e) if fs::is_gone(&e) => {}
            _ => kept.push(path),
        }
    }
    removed.sort_unstable();
    kept.sort_unstable();
    Ok((removed, kept))
}

/// Files and their sizes that go, and files that stay.
type Leftover = (Vec<(PackPath, u64)>, Vec<PackPath>);

/// The paths of a content's files, as this system tells names apart. Eight bytes a file.
pub(super) struct OwnPaths<'a> {
    content: &'a Content,
    state: RandomState,
    /// Hashes of paths and the numbers of the files, in ascending order.
    hashes: Vec<(u32, u32)>,
}

impl<'a> OwnPaths<'a> {
    pub(super) fn new(content: &'a Content) -> Self {
        let state = RandomState::new();
        let hash = |path: &str| state.hash_one(case_of(path)) as u32;
        let files = content.files();
        let mut hashes: Vec<(u32, u32)> = files
            .map(|file| (hash(file.path().as_str()), file.number() as u32))
            .collect();
        hashes.sort_unstable();
        Self { content, state, hashes }
    }

    pub(super) fn contains(&self, path: &str) -> bool {
        let path = case_of(path);
        let hash = self.state.hash_one(&path) as u32;
        let from = self.hashes.partition_point(|(of, _)| *of < hash);
        let mut same = self.hashes[from..].iter().take_while(|(of, _)| *of == hash);
        same.any(|(_, number)| case_of(self.content.file(*number as usize).path().as_str()) == path)
    }
}

/// A path as this system tells names apart.
pub(super) fn case_of(path: &str) -> String {
    if fs::CASE_FOLDS {
        case_key(path)
    } else {
        path.to_owned()
    }
}
