//! Which files of a pack belong to its place, where not all do: some were never selected, and where the user kept his own, the pack's were left out.
//!
//! The index knows; `packs/<CID>/choice-<number>.json` says it to whoever makes the index anew. It is written before the place's own file speaks of it, so a
//! place that says it has one and has none was damaged. Files are known by their numbers in the content, which its CID fixes.

use std::{io, ops::Range, path::Path};

use bitvec::vec::BitVec;
use modswarm_protocol::format::Limits;
use serde::{Deserialize, Serialize};

use crate::{
    backend::Backend,
    error::IndexError,
    fs,
    home::{self, Place, PlaceFile, read_plain, write_plain},
    index::rows,
    packs::PackRecord,
    store::Inner,
};

/// The longest such file that is read: every second file of the largest content, each a range.
const BYTES_MAX: u64 = 32 << 20;

/// The choice of one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Choice {
    /// How many files the content has.
    files: u32,
    /// Half-open ranges of numbers, ascending.
    kept: Vec<(u32, u32)>,
    /// As `kept`; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    selected: Option<Vec<(u32, u32)>>,
}

impl Choice {
    /// `kept` ascends.
    pub(crate) fn new(files: u32, kept: &[u32], selected: Option<&BitVec>) -> Self {
        Self {
            files,
            kept: ranges(kept.iter().copied()),
            selected: selected.map(|set| ranges(set.iter_ones().map(|number| number as u32))),
        }
    }

    /// Reads the bytes of such a file; `None` if they make no sense.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() as u64 > BYTES_MAX {
            return None;
        }
        let choice: Self = serde_json::from_slice(bytes).ok()?;
        let ascends = |ranges: &[(u32, u32)]| {
            let mut end = 0;
            ranges.iter().all(|&(from, to)| {
                let right = from >= end && from < to && to <= choice.files;
                end = to;
                right
            })
        };
        let makes_sense = u64::from(choice.files) <= Limits::DEFAULT.entries
            && ascends(&choice.kept)
            && choice.selected.as_deref().is_none_or(ascends);
        makes_sense.then_some(choice)
    }

    pub(crate) fn to_bytes(&self) -> io::Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(io::Error::other)
    }

    /// Reads the choice of place `number` in the folder `dir` of a pack's plain files; `None` if there is none that makes sense for a content of `files` files.
    ///
    /// An error says that the disk does not give what may be there: it is not to be taken for lost.
    pub(crate) fn read(backend: &dyn Backend, dir: &Path, number: i64, files: usize) -> io::Result<Option<Self>> {
        match read_plain(backend, &dir.join(name(number)), BYTES_MAX) {
            Ok(bytes) => Ok(Self::parse(&bytes).filter(|choice| choice.files as usize == files)),
            Err(e) if fs::is_gone(&e) || e.kind() == io::ErrorKind::InvalidData => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The numbers of files that the user kept his own in place of.
    pub(crate) fn kept(&self) -> impl Iterator<Item = u32> {
        self.kept.iter().flat_map(|&(from, to)| Range { start: from, end: to })
    }

    /// The selected files; `None`: all.
    pub(crate) fn selected(&self) -> Option<BitVec> {
        let ranges = self.selected.as_ref()?;
        let mut set = BitVec::repeat(false, self.files as usize);
        for &(from, to) in ranges {
            set[from as usize..to as usize].fill(true);
        }
        Some(set)
    }
}

fn ranges(numbers: impl Iterator<Item = u32>) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, end)) if *end == number => *end += 1,
            _ => ranges.push((number, number + 1)),
        }
    }
    ranges
}

fn name(number: i64) -> String {
    format!("choice-{number}.json")
}

/// Remembers in plain files where a pack whose download has ended lies, and which of its files are there. Durable.
pub(crate) fn remember(inner: &Inner, record: &PackRecord) -> io::Result<()> {
    let (backend, lock) = (&*inner.backend, &inner.lock);
    let dir = lock.pack_dir(&record.pack.unwrap_or(record.content));
    let path = dir.join(name(record.id.0));
    let place = PlaceFile::new(record.id, record, Place::Whole);
    if !place.chosen {
        lock.write_place(backend, &place)?;
        home::remove_if_there(backend, &path);
        return Ok(());
    }
    if let Some(choice) = known(inner, record).map_err(io::Error::other)? {
        write_plain(backend, &path, &choice.to_bytes()?)?;
    }
    lock.write_place(backend, &place)
}

/// What the index knows.
fn known(inner: &Inner, record: &PackRecord) -> Result<Option<Choice>, IndexError> {
    let conn = inner.index.reader()?;
    let Some(row) = rows::pack(&conn, record.id)? else {
        return Ok(None);
    };
    let kept = rows::kept(&conn, record.id)?;
    drop(conn);
    let Ok(Some(content)) = inner.content(record) else {
        return Ok(None);
    };
    let files = content.files().len();
    let selected = row.selection.map(|bytes| {
        let bits = rows::bits_from_bytes(Some(&bytes), files);
        bits.iter().by_vals().collect::<BitVec>()
    });
    Ok(Some(Choice::new(files as u32, &kept, selected.as_ref())))
}

/// Deletes the choice of place `number` in the folder `dir`.
pub(crate) fn forget(backend: &dyn Backend, dir: &Path, number: i64) {
    home::remove_if_there(backend, &dir.join(name(number)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_read_back_and_one_that_makes_no_sense_is_not() {
        let selected: BitVec = (0..10).map(|number| number != 4).collect();
        for choice in [
            Choice::new(10, &[], None),
            Choice::new(10, &[0, 1, 2, 9], None),
            Choice::new(10, &[5], Some(&selected)),
        ] {
            let again = Choice::parse(&choice.to_bytes().unwrap());
            assert_eq!(again, Some(choice));
        }
        let some = Choice::new(10, &[0, 1, 2, 9], Some(&selected));
        assert_eq!(some.kept().collect::<Vec<_>>(), [0, 1, 2, 9]);
        assert_eq!(some.selected(), Some(selected));
        for text in [
            r#"{"files":10,"kept":[[3,2]]}"#,
            r#"{"files":10,"kept":[[2,2]]}"#,
            r#"{"files":10,"kept":[[4,6],[5,7]]}"#,
            r#"{"files":10,"kept":[[4,11]]}"#,
            r#"{"files":4294967295,"kept":[[0,4294967295]]}"#,
            r#"{"files":10,"kept":[],"selected":[[0,11]]}"#,
            r#"{"files":10}"#,
            "",
        ] {
            assert_eq!(Choice::parse(text.as_bytes()), None, "{text}");
        }
    }
}
