//! What becomes of each file of a content: it is there, it only needs another name, it is to be staged, or the user keeps his own.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bitvec::vec::BitVec;
use modswarm_protocol::{
    Cid,
    format::{Content, PackPath, path::case_key},
};

use super::{
    Conflicts,
    inspect::{There, is_still},
    known::Known,
    place::Replace,
};
use crate::{
    backend::Identity,
    fs,
    index::rows::{FileRow, FileState},
    store::Inner,
};

/// What is to become of each selected file.
#[derive(Debug)]
pub(super) struct Decided {
    selected: BitVec,
    /// By number. The others are to be staged where nothing stands: there may be a million of those.
    others: BTreeMap<usize, What>,
}

/// What is to become of one file.
#[derive(Debug)]
pub(super) enum What {
    /// It is there already.
    Adopt {
        identity: Identity,
        seen: i64,
        row: Option<i64>,
        /// Its row and leaves are to be written (again).
        fresh: bool,
    },
    /// It is to be staged; the row that it has been staged under. `held`: it gets its name only at the end, under the journal.
    Stage {
        replace: Replace,
        row: Option<Box<FileRow>>,
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
            selected,
            others: BTreeMap::new(),
        }
    }

    pub(super) fn set(&mut self, number: usize, what: What) {
        match what {
            What::Stage {
                replace: Replace::Nothing,
                row: None,
                held: false,
            } => self.others.remove(&number),
            what => self.others.insert(number, what),
        };
    }

    /// What is to become of the file of this number; none if it is not selected.
    pub(super) fn get(&self, number: usize) -> Option<&What> {
        self.selected[number].then(|| self.others.get(&number).unwrap_or(&NEW))
    }

    /// Takes that out.
    pub(super) fn take(&mut self, number: usize) -> Option<What> {
        self.selected[number].then(|| self.others.remove(&number).unwrap_or(What::new_file()))
    }

    /// All selected files, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &What)> {
        let numbers = self.selected.iter_ones();
        numbers.map(|number| (number, self.others.get(&number).unwrap_or(&NEW)))
    }

    /// Those of them that are not simply to be staged where nothing stands.
    pub(super) fn others(&self) -> impl Iterator<Item = (usize, &What)> {
        self.others.iter().map(|(number, what)| (*number, what))
    }
}

/// To be staged where nothing stands.
static NEW: What = What::new_file();

impl What {
    const fn new_file() -> Self {
        Self::Stage {
            replace: Replace::Nothing,
            row: None,
            held: false,
        }
    }

    /// Bytes of the file that goes when this one comes.
    pub(super) fn replaced_size(&self) -> u64 {
        match self {
            Self::Stage { replace, .. } | Self::Move { replace, .. } => match replace {
                Replace::Known(old) => old.identity.size,
                Replace::Theirs { size, .. } => *size,
                Replace::Nothing => 0,
            },
            Self::Adopt { .. } | Self::Keep | Self::Leave => 0,
        }
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
) -> Decisions {
    let mut conflicts = Vec::new();
    let mut decided = Decided::to_stage(selected.clone());
    for number in selected.iter_ones() {
        let file = content.file(number);
        let path = file.path();
        let there = there.remove(&number).unwrap_or(There::Nothing);
        let at_place = known.by_place.get(path.as_str().as_bytes());
        let row = known.files.get(&(number as u32)).filter(|row| row.stage.is_some());
        let stage = |replace, held| What::Stage {
            replace,
            row: row.cloned().map(Box::new),
            held,
        };
        let mended = (policy == Conflicts::Mend)
            .then(|| known.mended(inner, number, &path, &there))
            .flatten();
        if let Some(what) = mended {
            decided.set(number, what);
            continue;
        }
        let what = match there {
            There::Same { identity, seen, row } => match known.other_case(&path, &identity) {
                // One file, which this system finds under both spellings.
                Some((from, row)) => What::Move {
                    from,
                    row: Box::new(row),
                    replace: Replace::Nothing,
                },
                None => What::Adopt {
                    identity,
                    seen,
                    row: row.or_else(|| at_place.filter(|row| row.cid == file.cid()).map(|row| row.id)),
                    fresh: row.is_none(),
                },
            },
            There::Nothing => stage(Replace::Nothing, false),
            There::Differs(identity) => match known
                .as_fetched(inner, &path, at_place, identity)
                .or_else(|| rotten(at_place, &file.cid(), identity).filter(|_| policy == Conflicts::Mend))
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
                        Conflicts::Mend if known.in_place(number).is_some() => What::Leave,
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
        find_moves(inner, content, known, &mut decided);
    }
    Decisions {
        files: decided,
        conflicts,
    }
}

/// The row of a file that was `cid` when it was looked at last, wherever it came from, and that nobody has edited since.
fn rotten(at_place: Option<&FileRow>, cid: &Cid, now: Option<Identity>) -> Option<FileRow> {
    let (row, now) = (at_place?, now?);
    (row.cid == *cid && row.identity.same_bytes(&now)).then(|| row.clone())
}

/// Turns files to be staged into ones to be renamed, where the former version has the same file under a name that is free for the taking.
fn find_moves(inner: &Inner, content: &Content, known: &Known, decided: &mut Decided) {
    let may_move =
        |row: &FileRow| known.fetched.contains(&row.id) && row.state == FileState::Whole && row.identity.size > 0;
    if !known.by_place.values().any(may_move) {
        return;
    }
    let adopted: HashSet<Vec<u8>> = decided
        .others()
        .filter(|(_, what)| matches!(what, What::Adopt { .. } | What::Keep))
        .map(|(number, _)| content.file(number).path().as_str().as_bytes().to_vec())
        .collect();
    let adopted_rows: HashSet<i64> = decided
        .others()
        .filter_map(|(_, what)| match what {
            What::Adopt { row, .. } => *row,
            _ => None,
        })
        .collect();
    let wanted: HashSet<Cid> = decided
        .iter()
        .filter(|(_, what)| matches!(what, What::Stage { .. }))
        .map(|(number, _)| content.file(number).cid())
        .collect();
    // By path, so that the same is decided every time.
    let mut candidates: BTreeMap<PackPath, &FileRow> = BTreeMap::new();
    for (path, row) in &known.by_place {
        if !may_move(row) || !wanted.contains(&row.cid) {
            continue;
        }
        if adopted.contains(path.as_slice()) || adopted_rows.contains(&row.id) {
            continue;
        }
        if let Some(named) = fs::pack_path(&fs::path_from(path.clone())) {
            candidates.insert(named, row);
        }
    }
    if candidates.is_empty() {
        return;
    }
    // At its own place it would have been adopted: its bytes are not what the index says.
    for file in content.files() {
        let path = file.path();
        if candidates.get(&path).is_some_and(|row| row.cid == file.cid()) {
            candidates.remove(&path);
        }
    }
    let mut spare: HashMap<Cid, BTreeMap<PackPath, &FileRow>> = HashMap::new();
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
                    row: Box::new(row.clone()),
                    replace: replace.clone(),
                };
                decided.set(file.number(), what);
            }
        }
    }
    // Whatever comes where a file is moved away waits for that.
    for file in content.files().filter(|file| moved.contains(&file.path())) {
        let what = match decided.take(file.number()) {
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
            Some(what) => what,
            None => continue,
        };
        decided.set(file.number(), what);
    }
}

impl Known {
    /// What becomes of a file when the pack is mended, as far as that does not depend on what stands at its place: it stays where the user wants it so, and where
    /// nothing is known to be wrong with it.
    fn mended(&self, inner: &Inner, number: usize, path: &PackPath, there: &There) -> Option<What> {
        let number = number as u32;
        if self.kept.contains(&number) {
            return (!matches!(there, There::Same { .. })).then_some(What::Keep);
        }
        let row = self.in_place(number as usize)?;
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

    /// The same file, known under a name that differs from `path` only in case, where this system takes the two for one.
    fn other_case(&self, path: &PackPath, now: &Identity) -> Option<(PackPath, FileRow)> {
        if !fs::CASE_FOLDS {
            return None;
        }
        self.by_place.values().find_map(|row| {
            let from = fs::pack_path(&fs::path_from(row.path.clone()))?;
            let same = self.fetched.contains(&row.id) && row.identity.same_bytes(now);
            let twin = from != *path && case_of(from.as_str()) == case_of(path.as_str());
            (same && twin).then(|| (from, row.clone()))
        })
    }

    /// The row of a file of the content that is not staged.
    fn in_place(&self, number: usize) -> Option<&FileRow> {
        self.files.get(&(number as u32)).filter(|row| row.stage.is_none())
    }

    /// The row of the file at `path` if it is still as a download put it there, by its identity `now` or, if only that differs, by its bytes.
    fn as_fetched(
        &self,
        inner: &Inner,
        path: &PackPath,
        at_place: Option<&FileRow>,
        now: Option<Identity>,
    ) -> Option<FileRow> {
        let (row, now) = (at_place?, now?);
        if !self.fetched.contains(&row.id) {
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
) -> (Vec<(PackPath, u64)>, Vec<PackPath>) {
    let own = own_paths(content);
    let (mut removed, mut kept) = (Vec::new(), Vec::new());
    for row in known.by_place.values() {
        let place = fs::path_from(row.path.clone());
        let Some(path) = fs::pack_path(&place) else {
            continue;
        };
        if !known.former.contains(&row.id) || own.contains(&case_of(path.as_str())) || gone.contains(&path) {
            continue;
        }
        match inner.backend.identity_at(&known.destination.join(&place)) {
            Ok(Some(now)) if row.identity.same_bytes(&now) => removed.push((path, now.size)),
            Err(e) if fs::is_gone(&e) => {}
            _ => kept.push(path),
        }
    }
    removed.sort_unstable();
    kept.sort_unstable();
    (removed, kept)
}

/// The paths of a content's files, as this system tells names apart.
pub(super) fn own_paths(content: &Content) -> HashSet<String> {
    content.files().map(|file| case_of(file.path().as_str())).collect()
}

/// A path as this system tells names apart.
pub(super) fn case_of(path: &str) -> String {
    if fs::CASE_FOLDS {
        case_key(path)
    } else {
        path.to_owned()
    }
}
