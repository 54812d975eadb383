//! Which places of which files a piece belongs to.

use std::sync::Arc;

use modswarm_protocol::format::{Content, Part, PieceIndex, PieceSet};

/// How many parts one offset is kept for.
const MARK_EVERY: usize = 16;

/// The places of all pieces in the selected files, in one flat list: four bytes a place. A place has a number, its position in the list.
#[derive(Debug)]
pub(crate) struct Layout {
    content: Arc<Content>,
    /// Where each piece's places begin; one more entry than there are pieces.
    first: Vec<u32>,
    /// The part of the content that lies there.
    parts: Vec<u32>,
    /// The offset in its file of every [`MARK_EVERY`]th part of the content.
    marks: Vec<u64>,
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
        let pieces = content.map().len() as usize;
        let mut first = vec![0_u32; pieces + 1];
        let each = |see: &mut dyn FnMut(PieceIndex, u32)| {
            for (_, file) in content.files().iter().enumerate().filter(|(n, _)| selected(*n)) {
                for (number, part) in content.part_numbers(file).zip(content.parts(file)) {
                    if let Part::Piece(piece) = part {
                        see(piece, number);
                    }
                }
            }
        };
        each(&mut |piece, _| first[piece.as_usize()] += 1);
        let mut total = 0;
        for places in &mut first {
            total += std::mem::replace(places, total);
        }
        let mut parts = vec![0; total as usize];
        each(&mut |piece, part| {
            let at = &mut first[piece.as_usize()];
            parts[*at as usize] = part;
            *at += 1;
        });
        // Each has become the beginning of the next one's.
        first.rotate_right(1);
        first[0] = 0;
        Self {
            content: Arc::clone(content),
            first,
            parts,
            marks: marks(content),
        }
    }

    /// Number of all places.
    pub(crate) fn len(&self) -> usize {
        self.parts.len()
    }

    /// The places of `piece`, in the order of files and offsets.
    pub(crate) fn places(&self, piece: PieceIndex) -> impl ExactSizeIterator<Item = Place> + '_ {
        let range = self.first[piece.as_usize()]..self.first[piece.as_usize() + 1];
        range.map(|number| self.place(number))
    }

    /// The places of `piece` in `file`, in the order of offsets.
    pub(crate) fn places_in(&self, piece: PieceIndex, file: u32) -> impl Iterator<Item = Place> + '_ {
        let (start, end) = (self.first[piece.as_usize()], self.first[piece.as_usize() + 1]);
        let parts = &self.parts[start as usize..end as usize];
        let within = self.content.part_numbers(&self.content.files()[file as usize]);
        let from = start + parts.partition_point(|part| *part < within.start) as u32;
        let to = start + parts.partition_point(|part| *part < within.end) as u32;
        (from..to).map(|number| self.place(number))
    }

    /// The pieces that have a place.
    pub(crate) fn wanted(&self) -> PieceSet {
        self.first.windows(2).map(|ends| ends[0] < ends[1]).collect()
    }

    fn place(&self, number: u32) -> Place {
        let part = self.parts[number as usize];
        let file = self.content.file_of_part(part);
        let of_file = self.content.part_numbers(&self.content.files()[file]);
        let mark = part as usize / MARK_EVERY;
        let marked = (mark * MARK_EVERY) as u32;
        let (from, offset) = if marked > of_file.start {
            (marked, self.marks[mark])
        } else {
            (of_file.start, 0)
        };
        let before = (from..part).map(|part| u64::from(self.content.part_len(self.content.part_at(part))));
        Place {
            number,
            file: file as u32,
            offset: offset + before.sum::<u64>(),
        }
    }
}

fn marks(content: &Content) -> Vec<u64> {
    let mut marks = Vec::new();
    for file in content.files() {
        let numbers = content.part_numbers(file);
        for (number, span) in numbers.zip(content.spans(file)) {
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
        let files = content.files().iter().enumerate();
        for (number, file) in files.filter(|(number, _)| selected[*number]) {
            for span in content.spans(file) {
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
            let mut numbers = 0..layout.len() as u32;
            for (piece, _) in content.map().iter() {
                let expected = &expected[piece.as_usize()];
                let places: Vec<Place> = layout.places(piece).collect();
                let found: Vec<(u32, u64)> = places.iter().map(|place| (place.file, place.offset)).collect();
                prop_assert_eq!(&found, expected);
                for place in &places {
                    prop_assert_eq!(Some(place.number), numbers.next());
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
