//! What the index's writer does with an open download: sync its files, put whole ones in their places, write its rows.

use std::{
    collections::{BTreeSet, HashSet},
    io,
    sync::atomic::Ordering::Relaxed,
};

use modswarm_protocol::format::Part;
use rusqlite::Transaction;

use super::{
    layout::Place,
    moving::{Gathered, Moving},
    slots::Slot,
    state::State,
};
use crate::{
    error::IndexError,
    fs,
    index::{
        Pending,
        rows::{self, LeafRow},
    },
};

/// Places of one leaf in one pack that the index keeps.
const PLACES_MAX: usize = crate::share::PLACES_MAX as usize;

impl Pending for State {
    fn sync(&self) -> Result<(), IndexError> {
        let (dirty, whole) = {
            let mut guard = crate::lock(&self.moving);
            let moving = &mut *guard;
            (moving.told, moving.hurried) = (false, false);
            let mut gathered = std::mem::take(&mut moving.gathered);
            gathered.have = Some((moving.have.clone(), moving.piece_bytes_here));
            moving.taken.merge(gathered);
            let row = |number: &u32| Some((*number, moving.slots.staged(*number)?));
            let dirty: Vec<_> = moving.taken.dirty.iter().filter_map(row).collect();
            let whole: Vec<_> = moving.taken.whole.iter().filter_map(row).collect();
            (dirty, whole)
        };
        // Files without a piece of their own have not been made yet.
        for (number, target) in &whole {
            if self.layout_is_empty_for(*number)
                && let Err(e) = self.staged_file(*number, target.row)
            {
                if fs::is_gone(&e) && self.has_ended() {
                    // The download was dropped and its pack forgotten, and the staging folder went with it.
                    crate::lock(&self.moving).taken = Gathered::default();
                    return Ok(());
                }
                return Err(sync_error(&e));
            }
        }
        let mut names: BTreeSet<String> = dirty.iter().map(|(_, target)| target.row.to_string()).collect();
        names.extend(whole.iter().map(|(_, target)| target.row.to_string()));
        let names: Vec<String> = names.into_iter().collect();
        self.stage_dir.sync_files(&names).map_err(|e| sync_error(&e))?;
        if self.names_made.swap(false, Relaxed)
            && let Err(e) = self.stage_dir.sync()
        {
            self.names_made.store(true, Relaxed);
            return Err(sync_error(&e));
        }

        let made = self.to_record(dirty.iter().map(|(number, target)| (*number, target.row)));
        crate::lock(&self.moving).taken.made.extend(made);
        let numbers = whole.iter().map(|(number, _)| *number).collect();
        self.close_staged(&numbers);
        let outcome = super::place::place_files(self, whole);
        self.disown(outcome.placed.iter().map(|placed| placed.number));
        let mut moving = crate::lock(&self.moving);
        for placed in outcome.placed {
            moving.slots.set(placed.number, Slot::Placed(placed.row));
            moving.stuck.remove(&placed.number);
            moving.taken.whole.remove(&placed.number);
            moving.taken.placed.push(placed);
        }
        for (number, error) in outcome.stuck {
            moving.taken.whole.remove(&number);
            moving.stuck.insert(number, error);
        }
        Ok(())
    }

    fn apply(&self, tx: &Transaction<'_>) -> Result<(), IndexError> {
        let moving = crate::lock(&self.moving);
        let taken = &moving.taken;
        let mut leaves = self.leaves_of_filled(&moving);
        for piece in taken.pieces.iter().filter_map(|&piece| self.content.map().index(piece)) {
            let leaf = self.content.map().leaf(piece);
            let mut last = None;
            for place in self.layout.places(piece).take(PLACES_MAX) {
                // Once a file is enough.
                if last.replace(place.file) == Some(place.file) || !moving.present[place.number as usize] {
                    continue;
                }
                let Some(row) = moving.slots.row(place.file) else {
                    continue;
                };
                leaves.push(LeafRow {
                    prefix: leaf.cid.prefix() as i64,
                    file: row,
                    offset: place.offset,
                    len: leaf.len,
                });
            }
        }
        leaves.sort_unstable();
        rows::insert_leaves(tx, &leaves)?;
        for (_, row, identity) in &taken.made {
            rows::remember_staged(tx, *row, identity)?;
        }
        for placed in &taken.placed {
            if let Some(old) = placed.replaced {
                rows::delete_file(tx, old)?;
            }
            rows::place_file(tx, placed.row, &placed.identity, placed.seen)?;
        }
        if let Some((have, bytes)) = &taken.have {
            let blob = rows::bits_to_bytes(have);
            rows::set_have(tx, self.id, Some(&blob), have.count_ones() as u32, *bytes)?;
        }
        Ok(())
    }

    fn committed(&self, result: &Result<(), IndexError>) {
        let mut guard = crate::lock(&self.moving);
        let moving = &mut *guard;
        let taken = std::mem::take(&mut moving.taken);
        if result.is_err() {
            let newer = std::mem::replace(&mut moving.gathered, taken);
            moving.gathered.merge(newer);
            // The writer tries again by itself.
            moving.told = true;
        } else {
            self.are_recorded(taken.made.iter().map(|(number, ..)| *number));
            for placed in &taken.placed {
                self.inner.files.forget(placed.row);
                // Its room is given back when nobody has it open any more.
                if let Some(replaced) = placed.replaced {
                    self.inner.files.forget(replaced);
                }
            }
            for piece in taken.pieces.iter().filter_map(|&piece| self.content.map().index(piece)) {
                moving.fresh.remove(&self.content.map().leaf(piece).cid);
            }
        }
    }
}

impl State {
    /// The rows of the leaves of files that were put together.
    fn leaves_of_filled(&self, moving: &Moving) -> Vec<LeafRow> {
        let mut leaves = Vec::new();
        for &number in &moving.taken.filled {
            let Some(row) = moving.slots.row(number) else {
                continue;
            };
            let mut seen = HashSet::new();
            for span in self.content.file(number as usize).spans() {
                let Part::Piece(piece) = span.part else { continue };
                if !seen.insert(piece) {
                    continue;
                }
                let first = || self.layout.places(piece).take(PLACES_MAX);
                let here = |place: Place| moving.present[place.number as usize];
                if !self.layout.places_in(piece, number).all(here) {
                    continue;
                }
                // Beyond the first places of a leaf only what stands for all of them is kept.
                if first().any(|place| place.file == number) || !first().any(here) {
                    leaves.push(LeafRow {
                        prefix: self.content.map().leaf(piece).cid.prefix() as i64,
                        file: row,
                        offset: span.offset,
                        len: span.len,
                    });
                }
            }
        }
        leaves
    }
}

fn sync_error(e: &io::Error) -> IndexError {
    if fs::is_disk_full(e) {
        IndexError::DiskFull
    } else {
        IndexError::Other(format!("downloaded files cannot be made durable: {e}"))
    }
}
