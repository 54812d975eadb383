//! Files that a download had put in their places when the machine went off, before the index was told.
//!
//! The same download finds them by looking at its destination. Another one to the same folder would take them for the user's: so it first looks at what an
//! unfinished one may have left, and writes down what it finds.

use std::collections::HashMap;

use modswarm_protocol::format::{Content, PackPath};

use super::inspect::{Found, same_bytes};
use crate::{
    backend::Identity,
    error::BeginError,
    fs,
    index::rows::{self, LeafRow, PackRow},
    observer::Meter,
    packs::PackState,
    store::Inner,
};

/// A file that is in its place.
struct Placed {
    row: i64,
    path: Vec<u8>,
    identity: Identity,
    seen: i64,
    leaves: Vec<(i64, u64, u32)>,
}

/// Looks for files that unfinished downloads to `destination`, other than that of `content`, have put there unwritten.
pub(crate) fn write_down(
    inner: &Inner,
    destination: &std::path::Path,
    content: Option<&modswarm_protocol::Cid>,
    meter: &Meter<'_>,
) -> Result<(), BeginError> {
    let others: Vec<PackRow> = rows::packs_at(&*inner.index.reader()?, fs::path_bytes(destination))?
        .into_iter()
        .filter(|row| row.record.state == PackState::Downloading && Some(&row.record.content) != content)
        .filter(|row| inner.open_download(row.record.id).is_none())
        .collect();
    for row in others {
        let Ok(Some(content)) = inner.content(&row.record) else {
            continue;
        };
        let placed = look(inner, destination, &row, &content, meter)?;
        if placed.is_empty() {
            continue;
        }
        let root = row.root;
        inner
            .index
            .writer
            .run(move |tx| -> Result<(), crate::error::IndexError> {
                for file in &placed {
                    for old in rows::files_at(tx, root, &file.path)? {
                        rows::delete_file(tx, old)?;
                    }
                    rows::place_file(tx, file.row, &file.identity, file.seen)?;
                    let leaves: Vec<LeafRow> = file
                        .leaves
                        .iter()
                        .map(|&(prefix, offset, len)| LeafRow {
                            prefix,
                            file: file.row,
                            offset,
                            len,
                        })
                        .collect();
                    rows::insert_leaves(tx, &leaves)?;
                }
                Ok(())
            })?;
    }
    Ok(())
}

fn look(
    inner: &Inner,
    destination: &std::path::Path,
    row: &PackRow,
    content: &Content,
    meter: &Meter<'_>,
) -> Result<Vec<Placed>, BeginError> {
    let conn = inner.index.reader()?;
    let files = rows::files_of_pack(&conn, row.record.id)?;
    let known: HashMap<Vec<u8>, Identity> = rows::files_of_root(&conn, row.root)?
        .into_iter()
        .map(|row| (row.path, row.identity))
        .collect();
    drop(conn);
    let Ok(root) = inner.backend.open_resolved(destination) else {
        return Ok(Vec::new());
    };
    let mut placed = Vec::new();
    for (number, staged) in files.into_iter().filter(|(_, file)| file.stage.is_some()) {
        let Some(file) = content.files().nth(number as usize) else {
            continue;
        };
        let path: &PackPath = &file.path();
        let Ok(Some(now)) = inner.backend.identity_at(&destination.join(path.as_str())) else {
            continue;
        };
        // What the index knows of the place is nobody's news.
        let is_known = known
            .get(path.as_str().as_bytes())
            .is_some_and(|known| known.same_bytes(&now));
        if is_known || now.size != file.size() {
            continue;
        }
        if let Some(Found { identity, seen }) = same_bytes(inner, content, file, &*root, destination, meter)? {
            placed.push(Placed {
                row: staged.id,
                path: path.as_str().as_bytes().to_owned(),
                identity,
                seen,
                leaves: super::put::first_places(content, file),
            });
        }
    }
    Ok(placed)
}
