//! Which places of which files a piece belongs to.

use modswarm_protocol::format::{Content, Part, PieceIndex, PieceSet};

/// The places of all pieces in the selected files, in one flat list: twelve bytes a place. A place has a number, its position in the list.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Where each piece's places begin; one more entry than there are pieces.
    first: Vec<u32>,
    files: Vec<u32>,
    offsets: Vec<u64>,
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
    pub(crate) fn new(content: &Content, selected: impl Fn(usize) -> bool) -> Self {
        let pieces = content.map().len() as usize;
        let mut first = vec![0_u32; pieces + 1];
        let each = |see: &mut dyn FnMut(PieceIndex, u32, u64)| {
            for (number, file) in content.files().iter().enumerate().filter(|(n, _)| selected(*n)) {
                for span in content.spans(file) {
                    if let Part::Piece(piece) = span.part {
                        see(piece, number as u32, span.offset);
                    }
                }
            }
        };
        each(&mut |piece, _, _| first[piece.as_usize() + 1] += 1);
        for at in 1..first.len() {
            first[at] += first[at - 1];
        }
        let total = first[pieces] as usize;
        let (mut files, mut offsets) = (vec![0; total], vec![0; total]);
        let mut next = first.clone();
        each(&mut |piece, file, offset| {
            let at = &mut next[piece.as_usize()];
            files[*at as usize] = file;
            offsets[*at as usize] = offset;
            *at += 1;
        });
        Self { first, files, offsets }
    }

    /// Number of all places.
    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    /// The places of `piece`, in the order of files and offsets.
    pub(crate) fn places(&self, piece: PieceIndex) -> impl ExactSizeIterator<Item = Place> + '_ {
        let range = self.first[piece.as_usize()]..self.first[piece.as_usize() + 1];
        range.map(|number| Place {
            number,
            file: self.files[number as usize],
            offset: self.offsets[number as usize],
        })
    }

    /// The places of `piece` in `file`, in the order of offsets.
    pub(crate) fn places_in(&self, piece: PieceIndex, file: u32) -> impl Iterator<Item = Place> + '_ {
        let (start, end) = (self.first[piece.as_usize()], self.first[piece.as_usize() + 1]);
        let files = &self.files[start as usize..end as usize];
        let from = start + files.partition_point(|f| *f < file) as u32;
        let to = start + files.partition_point(|f| *f <= file) as u32;
        (from..to).map(move |number| Place {
            number,
            file,
            offset: self.offsets[number as usize],
        })
    }

    /// The pieces that have a place.
    pub(crate) fn wanted(&self) -> PieceSet {
        self.first.windows(2).map(|ends| ends[0] < ends[1]).collect()
    }
}
