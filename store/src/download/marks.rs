//! What most files of a content need to have kept of them, in four bytes a file: there may be a million.

/// A row of the index, and where its file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Nothing,
    /// In the staging folder, or to be made there, to go where nothing stands.
    Staged(i64),
    /// In its place.
    Placed(i64),
    /// More is to be said of it, elsewhere.
    Other,
}

/// The marks of files by number. All are [`Mark::Nothing`] at first, which takes no memory.
#[derive(Debug)]
pub(super) struct Marks {
    files: usize,
    /// The row of a staged file, the negative of that of a placed one, [`NOTHING`] or [`OTHER`].
    marks: Vec<i32>,
}

const NOTHING: i32 = 0;
const OTHER: i32 = i32::MIN;

impl Marks {
    pub(super) fn new(files: usize) -> Self {
        Self {
            files,
            marks: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.files
    }

    pub(super) fn get(&self, number: usize) -> Mark {
        match self.marks.get(number).copied().unwrap_or(NOTHING) {
            NOTHING => Mark::Nothing,
            OTHER => Mark::Other,
            row if row > 0 => Mark::Staged(row.into()),
            row => Mark::Placed((-row).into()),
        }
    }

    /// Sets one. Returns what it is then: [`Mark::Other`] for a row that does not fit.
    pub(super) fn set(&mut self, number: usize, mark: Mark) -> Mark {
        let short = |row: i64| i32::try_from(row).ok().filter(|row| *row > 0);
        let mark = match mark {
            Mark::Nothing => NOTHING,
            Mark::Staged(row) => short(row).unwrap_or(OTHER),
            Mark::Placed(row) => short(row).map_or(OTHER, |row| -row),
            Mark::Other => OTHER,
        };
        if self.marks.is_empty() && mark != NOTHING {
            self.marks = vec![NOTHING; self.files];
        }
        if let Some(place) = self.marks.get_mut(number) {
            *place = mark;
        }
        self.get(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_what_was_set_as_far_as_they_fit() {
        let most = i64::from(i32::MAX);
        let fit = [Mark::Nothing, Mark::Other, Mark::Staged(1), Mark::Placed(most)];
        let others = [-1, 0, most + 1, i64::MIN, i64::MAX].map(|row| [Mark::Staged(row), Mark::Placed(row)]);
        let mut marks = Marks::new(3);
        assert_eq!(marks.set(1, Mark::Nothing), Mark::Nothing);
        assert_eq!(marks.marks.capacity(), 0);
        for mark in fit {
            assert_eq!(marks.set(1, mark), mark);
            assert_eq!([0, 1, 2].map(|at| marks.get(at)), [Mark::Nothing, mark, Mark::Nothing]);
        }
        for mark in others.into_iter().flatten() {
            assert_eq!(marks.set(2, mark), Mark::Other);
        }
    }
}
