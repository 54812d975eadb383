//! Places of leaves that the index does not name: of a leaf that occurs in very many places it keeps only the first few, and when those are gone the others
//! are found by going through the pack.

use std::collections::{BTreeMap, BTreeSet};

use modswarm_protocol::format::{Content, Part};
use rusqlite::Connection;

use super::PackId;
use crate::{
    backend::Backend,
    error::IndexError,
    fs,
    index::rows::{self, FileState, LeafRow},
    share::PLACES_MAX,
};

/// Files that are looked at for one call.
const LOOKS_MAX: usize = 4096;

/// Of `pieces`, of which the index names no place any more: those that other files of the pack have. A place of each goes into the index; like all
/// there, it is only believed once it was read.
pub(crate) fn find(
    backend: &dyn Backend,
    conn: &Connection,
    id: PackId,
    content: &Content,
    pieces: &[u32],
) -> Result<BTreeSet<u32>, IndexError> {
    let mut wanted: BTreeMap<u32, usize> = pieces.iter().map(|piece| (*piece, 0)).collect();
    let in_file = |number: usize| {
        content.file(number).spans().filter_map(|span| match span.part {
            Part::Piece(piece) => Some((piece.get(), span)),
            Part::Node { .. } => None,
        })
    };
    for number in 0..content.files().len() {
        for (piece, _) in in_file(number) {
            if let Some(count) = wanted.get_mut(&piece) {
                *count += 1;
            }
        }
    }
    // The others were all in the index.
    wanted.retain(|_, count| *count > usize::from(PLACES_MAX));
    if wanted.is_empty() {
        return Ok(BTreeSet::new());
    }
    let pack = rows::pack(conn, id)?;
    let root = pack.map(|pack| rows::root_path(conn, pack.root)).transpose()?.flatten();
    let Some(root) = root.map(fs::path_from) else {
        return Ok(BTreeSet::new());
    };
    let mut found = BTreeSet::new();
    let mut places = Vec::new();
    let mut looks = 0;
    for (number, file) in rows::files_of_pack(conn, id)? {
        // One that nothing is known of for sure was looked at and found wanting.
        if file.state != FileState::Whole || file.seen == 0 || number as usize >= content.files().len() {
            continue;
        }
        let mut is_there = None;
        for (piece, span) in in_file(number as usize) {
            if !wanted.contains_key(&piece) {
                continue;
            }
            let is_there = *is_there.get_or_insert_with(|| {
                looks += 1;
                let now = backend.identity_at(&root.join(fs::path_from(file.path.clone())));
                now.is_ok_and(|now| now.is_some_and(|now| file.identity.same_bytes(&now)))
            });
            if !is_there {
                break;
            }
            wanted.remove(&piece);
            let index = content.map().index(piece);
            let prefix = index.map(|index| content.map().leaf(index).cid.prefix() as i64);
            found.insert(piece);
            places.extend(prefix.map(|prefix| LeafRow {
                prefix,
                file: file.id,
                offset: span.offset,
                len: span.len,
            }));
        }
        if wanted.is_empty() || looks >= LOOKS_MAX {
            break;
        }
    }
    rows::insert_leaves(conn, &places)?;
    Ok(found)
}
