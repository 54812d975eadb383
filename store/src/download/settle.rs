//! Files of the user's that stand, by the end of a download, where files of the pack belong: what was asked for such files is done for these too.

use std::sync::Arc;

use super::{
    Conflicts,
    inspect::is_there,
    place::{PlaceError, Placed, Target},
    slots::Slot,
    state::State,
};
use crate::{
    error::{FinishError, IndexError},
    fs,
    index::rows,
};

/// Deals with what kept `stuck` files from their places; an error names what cannot be dealt with.
pub(super) fn settle(state: &Arc<State>, stuck: Vec<(u32, PlaceError)>) -> Result<(), FinishError> {
    let mut differ: Vec<u32> = Vec::new();
    let mut lost: Vec<u32> = Vec::new();
    let mut blocked = Vec::new();
    for (number, error) in stuck {
        match error {
            PlaceError::Differs => differ.push(number),
            PlaceError::Blocked(blockage) => blocked.push(blockage),
            PlaceError::Io(path, source) if fs::is_disk_full(&source) => return Err(FinishError::DiskFull(path)),
            PlaceError::Lost => lost.push(number),
            PlaceError::Io(path, source) => return Err(FinishError::Io { path, source }),
        }
    }
    if !blocked.is_empty() {
        return Err(FinishError::Blocked(blocked));
    }
    if !lost.is_empty() {
        return Err(FinishError::Incomplete(state.take_back(&lost)?));
    }
    differ.retain(|number| !adopt(state, *number));
    if differ.is_empty() {
        return Ok(());
    }
    match state.policy {
        Conflicts::KeepMine => Ok(keep_mine(state, &differ)?),
        Conflicts::KeepBoth => {
            let mut moving = crate::lock(&state.moving);
            for number in differ {
                if let Some(target) = moving.slots.staged(number) {
                    moving.slots.set(number, Slot::Staged(Target { held: true, ..target }));
                    moving.gathered.whole.remove(&number);
                    moving.held.insert(number);
                }
            }
            Ok(())
        }
        // What is to be replaced and differs all the same is being changed right now.
        Conflicts::Refuse | Conflicts::TakeTheirs | Conflicts::Mend => {
            let mut files: Vec<_> = differ
                .iter()
                .map(|number| state.content.file(*number as usize).path())
                .collect();
            files.sort_unstable();
            Err(FinishError::WouldOverwrite {
                destination: state.destination.clone(),
                files,
            })
        }
    }
}

/// Whether what stands there is the pack's file by now: it is taken for it.
fn adopt(state: &State, number: u32) -> bool {
    let mut moving = crate::lock(&state.moving);
    let Some(target) = moving.slots.staged(number) else {
        return false;
    };
    let Some((identity, seen)) = is_there(&state.inner, &state.content, &state.destination, number) else {
        return false;
    };
    let _ = state.stage_dir.remove_file(&target.row.to_string());
    moving.slots.set(number, Slot::Placed(target.row));
    moving.held.remove(&number);
    moving.gathered.whole.remove(&number);
    moving.gathered.placed.push(Placed {
        number,
        row: target.row,
        identity,
        seen,
        replaced: target.replace.row(),
    });
    true
}

/// Leaves the pack's files out where the user's own stand.
fn keep_mine(state: &State, numbers: &[u32]) -> Result<(), IndexError> {
    crate::lock(&state.kept).extend(numbers);
    {
        let mut guard = crate::lock(&state.moving);
        let moving = &mut *guard;
        for number in numbers {
            moving.slots.set(*number, Slot::Out);
            moving.held.remove(number);
            moving.gathered.whole.remove(number);
            moving.gathered.filled.remove(number);
            moving.gathered.dirty.remove(number);
        }
        moving.recount(state);
    }
    let (id, numbers) = (state.id, numbers.to_vec());
    state.inner.index.writer.run(move |tx| rows::set_kept(tx, id, &numbers))
}
