//! Which places of which files a piece belongs to.

use std::{ops::Range, sync::Arc};

use bitvec::vec::BitVec;
use modswarm_protocol::format::{Content, Part, PieceIndex, PieceSet};

/// How many parts one offset is kept for.
const MARK_EVERY: usize = 16;

/// The places of all pieces in the selected files. A place has a number: that of its part in the content.
///
/// Pieces are numbered by their first occurrence, so that where each occurs first is told by a few runs; only further occurrences take
/// room, eight bytes each.
#[derive(Debug)]
pub(crate) struct Layout {
    content: Arc<Content>,
    /// By file.
    selected: BitVec,
    /// Where pieces occur first, selected or not, in ascending order.
    firsts: Vec<Run>,
    /// Pieces with the parts at which they occur again in selected files, in ascending order.
    repeats: Vec<(u32, u32)>,
    /// The offset in its file of every [`MARK_EVERY`]th part of the content.
    marks: Vec<u64>,
}

/// Pieces that follow one another in parts that follow one another.
#[derive(Clone, Copy, Debug)]
struct Run {
    piece: u32,
    part: u32,
}

/// One place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) number: u32,
    /// The file's number in the content.
    pub(crate) file: u32,
    pub(crate) offset: u64,
}

impl Layout {
    pub(crate) fn new(content: &Arc<Content>, selected: impl Fn(usize) -> bool) -> Self {
        let mut firsts: Vec<Run> = Vec::new();
        let mut repeats = Vec::new();
        let mut next = 0;
        let selected: BitVec = (0..content.files().len()).map(selected).collect();
        for (file, selected) in content.files().zip(&selected) {
            for (part, what) in file.part_numbers().zip(file.parts()) {
                let Part::Piece(piece) = what else { continue };
                let piece = piece.get();
                if piece < next {
                    if *selected {
                        repeats.push((piece, part));
                    }
                    continue;
                }
                let goes_on = |run: &Run| part - run.part == piece - run.piece;
                if !firsts.last().is_some_and(goes_on) {
                    firsts.push(Run { piece, part });
                }
                next = piece + 1;
            }
        }
        repeats.sort_unstable();
        firsts.shrink_to_fit();
        repeats.shrink_to_fit();
        Self {
            content: Arc::clone(content),
            selected,
            firsts,
            repeats,
            marks: marks(content),
        }
    }

    /// One more than the greatest number of a place.
    pub(crate) fn len(&self) -> usize {
        self.content.part_total() as usize
    }

    /// The places of `piece`, in the order of files and offsets.
    pub(crate) fn places(&self, piece: PieceIndex) -> impl Iterator<Item = Place> + '_ {
        let first = self.first(piece).filter(|place| self.selected[place.file as usize]);
        first.into_iter().chain(self.again(piece, 0..u32::MAX))
    }

    /// The places of `piece` in `file`, in the order of offsets.
    pub(crate) fn places_in(&self, piece: PieceIndex, file: u32) -> impl Iterator<Item = Place> + '_ {
        let first = self
            .first(piece)
            .filter(|place| place.file == file && self.selected[file as usize]);
        let within = self.content.file(file as usize).part_numbers();
        first.into_iter().chain(self.again(piece, within))
    }

    /// The pieces that have a place.
    pub(crate) fn wanted(&self) -> PieceSet {
        let mut wanted = self.content.map().none();
        for (file, _) in self
            .content
            .files()
            .zip(&self.selected)
            .filter(|(_, selected)| **selected)
        {
            for part in file.parts() {
                if let Part::Piece(piece) = part {
                    wanted.set(piece.as_usize(), true);
                }
            }
        }
        wanted
    }

    /// Where it occurs first, selected or not.
    fn first(&self, piece: PieceIndex) -> Option<Place> {
        let after = self.firsts.partition_point(|run| run.piece <= piece.get());
        let run = self.firsts[..after].last()?;
        Some(self.place(run.part + (piece.get() - run.piece)))
    }

    /// Where it occurs again, among these parts.
    fn again(&self, piece: PieceIndex, parts: Range<u32>) -> impl Iterator<Item = Place> + '_ {
        let piece = piece.get();
        let from = self.repeats.partition_point(|repeat| *repeat < (piece, parts.start));
        let those = self.repeats[from..].iter();
        those
            .take_while(move |(of, part)| *of == piece && *part < parts.end)
            .map(|(_, part)| self.place(*part))
    }

    fn place(&self, number: u32) -> Place {
        let file = self.content.file_of_part(number);
        let of_file = self.content.file(file).part_numbers();
        let mark = number as usize / MARK_EVERY;
        let marked = (mark * MARK_EVERY) as u32;
        let (from, offset) = if marked > of_file.start {
            (marked, self.marks[mark])
        } else {
            (of_file.start, 0)
        };
        let before = self.content.parts_numbered(from..number);
        let before = before.map(|part| u64::from(self.content.part_len(part)));
        Place {
            number,
            file: file as u32,
            offset: offset + before.sum::<u64>(),
        }
    }
}

fn marks(content: &Content) -> Vec<u64> {
    let mut marks = Vec::with_capacity(content.part_total() as usize / MARK_EVERY + 1);
    for file in content.files() {
        let numbers = file.part_numbers();
        for (number, span) in numbers.zip(file.spans()) {
            if (number as usize).is_multiple_of(MARK_EVERY) {
                marks.push(span.offset);
            }
        }
    }
    marks
}

#[cfg(test)]
mod tests {
    use modswarm_protocol::{
        Cid,
        format::{Codec, ContentBuilder, HashKind, Leaf, PackPath},
    };
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn leaf(n: u8) -> Leaf {
        Leaf {
            cid: Cid::of(Codec::Raw, HashKind::Blake3, &[n]),
            len: 100 + u32::from(n),
        }
    }

    /// All places by walking the selected files, by piece.
    fn walked(content: &Content, selected: &[bool]) -> Vec<Vec<(u32, u64)>> {
        let mut places = vec![Vec::new(); content.map().len() as usize];
        let files = content.files().enumerate();
        for (number, file) in files.filter(|(number, _)| selected[*number]) {
            for span in file.spans() {
                if let Part::Piece(piece) = span.part {
                    places[piece.as_usize()].push((number as u32, span.offset));
                }
            }
        }
        places
    }

    proptest! {
        #[test]
        fn places_are_those_that_a_walk_finds(
            files in vec((vec(0..40u8, 0..70), any::<bool>()), 1..12),
        ) {
            let mut builder = ContentBuilder::new(HashKind::Blake3);
            for (number, (leaves, _)) in files.iter().enumerate() {
                let path = PackPath::new(&format!("f{number:02}")).expect("a name");
                builder.add_file(path, leaves.iter().map(|n| leaf(*n))).expect("leaves");
            }
            let content = Arc::new(builder.finish().expect("a content").content);
            let selected: Vec<bool> = files.iter().map(|(_, selected)| *selected).collect();
            let layout = Layout::new(&content, |number| selected[number]);
            let expected = walked(&content, &selected);
            let mut numbers = std::collections::HashSet::new();
            for (piece, _) in content.map().iter() {
                let expected = &expected[piece.as_usize()];
                let places: Vec<Place> = layout.places(piece).collect();
                let found: Vec<(u32, u64)> = places.iter().map(|place| (place.file, place.offset)).collect();
                prop_assert_eq!(&found, expected);
                for place in &places {
                    prop_assert!(numbers.insert(place.number) && (place.number as usize) < layout.len());
                }
                for file in 0..content.files().len() as u32 {
                    let within: Vec<Place> = layout.places_in(piece, file).collect();
                    let expected: Vec<Place> = places.iter().copied().filter(|place| place.file == file).collect();
                    prop_assert_eq!(within, expected);
                }
                prop_assert_eq!(layout.wanted()[piece.as_usize()], !expected.is_empty());
            }
        }
    }
}
