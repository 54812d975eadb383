//! Which wanted leaves this home has in other files, by the index and a stat of each such file. They are not fetched; `assemble` copies and verifies them.

use std::collections::HashMap;

use bitvec::vec::BitVec;
use modswarm_protocol::format::{Content, PieceIndex, PieceMap, PieceSet};

use super::layout::Layout;
use crate::{
    error::{BeginError, IndexError},
    index::rows::{self, FileState},
    observer::Meter,
    store::Inner,
};

/// Rows seen between two looks at whether the job is cancelled.
const STEP: usize = 4096;
/// To find a place anew takes about as long as to pass over so many rows.
const BETWEEN_MAX: usize = 16;

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
    let nowhere_else = inner.holds_no_leaf()?;
    let mut unknown: Vec<PieceIndex> = Vec::new();
    for (piece, _) in map.iter() {
        let (mut all, mut any) = (true, false);
        for place in layout.places(piece) {
            let here = present[place.number as usize];
            (all, any) = (all && here, any || here);
        }
        if all {
            continue;
        }
        if any {
            local.set(piece.as_usize(), true);
        } else if !nowhere_else {
            unknown.push(piece);
        }
    }
    if unknown.is_empty() {
        return Ok(local);
    }
    // In the index's order, and from one state of it: to begin a look for each leaf takes most of the time.
    unknown.sort_unstable_by_key(|piece| map.leaf(*piece).cid.prefix() as i64);
    let conn = inner.index.reader()?;
    let conn = &conn.unchecked_transaction().map_err(IndexError::from)?;
    let mut files = Files::default();
    let mut rest = &unknown[..];
    while !rest.is_empty() {
        if meter.cancelled() {
            return Err(BeginError::Cancelled);
        }
        rest = look(conn, map, rest, &mut |piece, file| {
            let there = !local[piece.as_usize()] && files.are_as_known(inner, conn, file)?;
            if there {
                local.set(piece.as_usize(), true);
            }
            Ok(())
        })?;
    }
    Ok(local)
}

/// Walks the rows of leaves from the first of `unknown` on, which are in the order of their prefixes, and tells `found` of each that is one of them and of its
/// file; returns those that are left when others lie between or [`STEP`] rows were seen.
fn look<'a>(
    conn: &rusqlite::Connection,
    map: &PieceMap,
    unknown: &'a [PieceIndex],
    found: &mut dyn FnMut(PieceIndex, i64) -> Result<(), IndexError>,
) -> Result<&'a [PieceIndex], IndexError> {
    let prefix_of = |piece: &PieceIndex| map.leaf(*piece).cid.prefix() as i64;
    let mut rest = unknown;
    let Some(first) = rest.first() else { return Ok(rest) };
    let mut rows = rows::LeavesFrom::new(conn)?;
    let mut rows = rows.query(prefix_of(first))?;
    let (mut seen, mut between) = (0, 0);
    while let Some(row) = rows.next()? {
        let passed = rest.partition_point(|piece| prefix_of(piece) < row.prefix);
        rest = &rest[passed..];
        let Some(next) = rest.first() else { return Ok(rest) };
        seen += 1;
        between = if prefix_of(next) == row.prefix { 0 } else { between + 1 };
        if between > BETWEEN_MAX || seen > STEP && passed > 0 {
            return Ok(rest);
        }
        let same = rest.iter().take_while(|piece| prefix_of(piece) == row.prefix);
        for piece in same.filter(|piece| map.leaf(**piece).len == row.len) {
            found(*piece, row.file)?;
        }
    }
    Ok(&[])
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
            Some((row, ..)) if row.state == FileState::Gone => false,
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
