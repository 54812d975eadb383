//! Where each file of a content stands.

use std::collections::BTreeMap;

use modswarm_protocol::format::PackPath;

use super::{
    marks::{Mark, Marks},
    place::{Replace, Target},
};
use crate::index::rows::FileRow;

/// Where a file of the content stands.
#[derive(Clone, Debug)]
pub(crate) enum Slot {
    /// Not selected.
    Out,
    /// In the staging folder, or not made yet.
    Staged(Target),
    /// Under its final name; the row that it has.
    Placed(i64),
    /// Under the name that the former version gave it.
    Moving(Box<Move>),
}

/// A file that is renamed at the end.
#[derive(Clone, Debug)]
pub(crate) struct Move {
    /// Its row, with the name that it has and by what it is known.
    pub(crate) row: FileRow,
    pub(crate) from: PackPath,
    pub(crate) replace: Replace,
}

impl Slot {
    /// The row of the file, and whether it is there at all.
    pub(super) fn row(&self) -> Option<i64> {
        match self {
            Self::Out => None,
            Self::Staged(target) => Some(target.row),
            Self::Placed(row) => Some(*row),
            Self::Moving(file) => Some(file.row.id),
        }
    }
}

/// The slots of all files, by number.
#[derive(Debug)]
pub(crate) struct Slots {
    /// [`Mark::Nothing`] for those that are not selected.
    marks: Marks,
    others: BTreeMap<u32, Slot>,
}

impl Slots {
    /// Of so many files none is selected.
    pub(super) fn out(files: usize) -> Self {
        Self {
            marks: Marks::new(files),
            others: BTreeMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.marks.len()
    }

    pub(super) fn get(&self, number: u32) -> Slot {
        match self.mark(number) {
            Mark::Nothing => Slot::Out,
            Mark::Staged(row) => Slot::Staged(Target::onto_nothing(row)),
            Mark::Placed(row) => Slot::Placed(row),
            Mark::Other => self.others.get(&number).cloned().unwrap_or(Slot::Out),
        }
    }

    pub(super) fn set(&mut self, number: u32, slot: Slot) {
        let mark = match &slot {
            Slot::Out => Mark::Nothing,
            Slot::Placed(row) => Mark::Placed(*row),
            Slot::Staged(Target {
                row,
                replace: Replace::Nothing,
                held: false,
            }) => Mark::Staged(*row),
            Slot::Staged(_) | Slot::Moving(_) => Mark::Other,
        };
        match self.marks.set(number as usize, mark) {
            Mark::Other => self.others.insert(number, slot),
            _ => self.others.remove(&number),
        };
    }

    fn mark(&self, number: u32) -> Mark {
        self.marks.get(number as usize)
    }

    pub(super) fn is_out(&self, number: u32) -> bool {
        self.mark(number) == Mark::Nothing
    }

    /// Where the file is going, if it is staged.
    pub(super) fn staged(&self, number: u32) -> Option<Target> {
        match self.get(number) {
            Slot::Staged(target) => Some(target),
            _ => None,
        }
    }

    /// The row of a file that is staged.
    pub(super) fn staged_row(&self, number: u32) -> Option<i64> {
        match self.mark(number) {
            Mark::Staged(row) => Some(row),
            Mark::Other => self.staged(number).map(|target| target.row),
            Mark::Nothing | Mark::Placed(_) => None,
        }
    }

    /// Whether the file may be one that is staged where something stands.
    pub(super) fn may_replace(&self, number: u32) -> bool {
        self.mark(number) == Mark::Other
    }

    /// The row of a file that is placed.
    pub(super) fn placed_row(&self, number: u32) -> Option<i64> {
        match self.get(number) {
            Slot::Placed(row) => Some(row),
            _ => None,
        }
    }

    /// Whether the bytes of the file are under a name of the user's folder already.
    pub(super) fn is_in_place(&self, number: u32) -> bool {
        matches!(self.get(number), Slot::Placed(_) | Slot::Moving(_))
    }

    /// The row that the file has, wherever it stands.
    pub(super) fn row(&self, number: u32) -> Option<i64> {
        match self.mark(number) {
            Mark::Nothing => None,
            Mark::Staged(row) | Mark::Placed(row) => Some(row),
            Mark::Other => self.get(number).row(),
        }
    }

    /// Those of files that are renamed at the end, or that may stand for something else.
    pub(super) fn others(&self) -> impl Iterator<Item = (u32, &Slot)> + '_ {
        self.others.iter().map(|(number, slot)| (*number, slot))
    }

    /// That of a file that is renamed at the end.
    pub(super) fn moving_mut(&mut self, number: u32) -> Option<&mut Move> {
        match self.others.get_mut(&number) {
            Some(Slot::Moving(file)) => Some(file),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_what_was_set() {
        let theirs = Replace::Theirs { row: None, size: 7 };
        let held = |held, replace| Slot::Staged(Target { row: 5, replace, held });
        let all = [
            Slot::Out,
            Slot::Placed(3),
            Slot::Placed(0),
            Slot::Placed(-4),
            Slot::Placed(i64::MIN),
            Slot::Placed(i64::from(i32::MAX)),
            Slot::Placed(i64::from(i32::MAX) + 1),
            Slot::Staged(Target::onto_nothing(-1)),
            held(false, Replace::Nothing),
            held(true, Replace::Nothing),
            held(false, theirs),
        ];
        let mut slots = Slots::out(all.len());
        for shift in 0..all.len() {
            for (number, slot) in (0..).zip(all.iter().cycle().skip(shift).take(all.len())) {
                slots.set(number, slot.clone());
            }
            for (number, slot) in (0..).zip(all.iter().cycle().skip(shift).take(all.len())) {
                assert_eq!(format!("{:?}", slots.get(number)), format!("{slot:?}"));
                assert_eq!(slots.row(number), slot.row());
                assert_eq!(slots.is_out(number), matches!(slot, Slot::Out));
                let staged = slots.staged(number).map(|target| target.row);
                assert_eq!(slots.staged_row(number), staged);
                assert_eq!(staged.is_some(), matches!(slot, Slot::Staged(_)));
                assert_eq!(slots.placed_row(number).is_some(), matches!(slot, Slot::Placed(_)));
            }
            assert_eq!((0..all.len() as u32).filter(|number| slots.is_out(*number)).count(), 1);
        }
    }
}
