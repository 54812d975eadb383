//! Which wanted leaves this home has in other files, by the index and a stat of each such file. They are not fetched; `assemble` copies and verifies them.

use std::collections::HashMap;

use bitvec::vec::BitVec;
use modswarm_protocol::format::{Content, PieceIndex, PieceSet};

use super::layout::Layout;
use crate::{
    error::{BeginError, IndexError},
    index::rows,
    observer::Meter,
    store::Inner,
};

/// Leaves looked up between two looks at whether the job is cancelled.
const STEP: usize = 4096;

/// The wanted pieces that are absent somewhere and that some file holds, be it of this content (`present`, by number of place) or another.
pub(super) fn find(
    inner: &Inner,
    content: &Content,
    layout: &Layout,
    present: &BitVec,
    meter: &Meter<'_>,
) -> Result<PieceSet, BeginError> {
    let map = content.map();
    let mut local = map.none();
    let mut unknown: Vec<PieceIndex> = Vec::new();
    for (piece, _) in map.iter() {
        let here = layout
            .places(piece)
            .filter(|place| present[place.number as usize])
            .count();
        if here == layout.places(piece).len() {
            continue;
        }
        if here > 0 {
            local.set(piece.as_usize(), true);
        } else {
            unknown.push(piece);
        }
    }
    if unknown.is_empty() || inner.holds_no_leaf()? {
        return Ok(local);
    }
    // The index is ordered by prefix: neighbours are looked up one after the other.
    unknown.sort_unstable_by_key(|piece| map.leaf(*piece).cid.prefix() as i64);
    let mut files = Files::default();
    let conn = inner.index.reader()?;
    for (at, piece) in unknown.into_iter().enumerate() {
        if at % STEP == 0 && meter.cancelled() {
            return Err(BeginError::Cancelled);
        }
        let leaf = map.leaf(piece);
        for file in rows::files_with_leaf(&conn, leaf.cid.prefix() as i64, leaf.len)? {
            if files.are_as_known(inner, &conn, file)? {
                local.set(piece.as_usize(), true);
                break;
            }
        }
    }
    Ok(local)
}

/// Files that were looked at.
#[derive(Default)]
struct Files(HashMap<i64, bool>);

impl Files {
    /// Whether the file is where the index says, and as it says.
    fn are_as_known(&mut self, inner: &Inner, conn: &rusqlite::Connection, file: i64) -> Result<bool, IndexError> {
        if let Some(known) = self.0.get(&file) {
            return Ok(*known);
        }
        let same = match rows::file_and_place(conn, file)? {
            None => false,
            Some((row, root, stage)) => {
                let place = root.join(crate::fs::path_from(row.path.clone()));
                match stage {
                    // What is committed of it is in it.
                    Some(stage) => {
                        inner.backend.exists(&stage.join(row.id.to_string())) || inner.backend.exists(&place)
                    }
                    None => {
                        matches!(inner.backend.identity_at(&place), Ok(Some(now)) if row.identity.same_bytes(&now))
                    }
                }
            }
        };
        self.0.insert(file, same);
        Ok(same)
    }
}
