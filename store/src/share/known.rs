//! What the index knows of the files of a scan: kept short, since a folder may have a hundred thousand.

use std::collections::HashMap;

use modswarm_protocol::{Cid, Codec, format::Leaf};

use super::{hash::Recipe, scan::Scan};
use crate::{
    backend::Identity,
    error::{IndexError, SkeletonReadError},
    fs,
    index::rows::{self, FileRow, FileState},
    store::Inner,
};

/// What a row of `files` says of a file of the scan.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownRow {
    pub(super) id: i64,
    pub(super) cid: Cid,
    identity: Identity,
    seen: i64,
    staged: bool,
    /// Whether it was made by the recipe of this share.
    pub(super) same_recipe: bool,
}

impl KnownRow {
    /// Whether a file of identity `now` has the leaves that this row's CID names.
    pub(super) fn vouches_for(&self, now: &Identity) -> bool {
        self.same_recipe && !self.staged && self.identity == *now && !self.identity.is_racy(self.seen)
    }
}

/// Whether `row` was made by `recipe`, whose profile is spelled `profile`.
pub(super) fn same_recipe(row: &FileRow, recipe: Recipe, profile: &str) -> bool {
    row.cid.hash() == recipe.hash && row.profile.as_deref() == Some(profile)
}

/// What the index has at the places of the scan's files, in their order.
pub(super) fn rows_of(inner: &Inner, scan: &Scan, recipe: Recipe) -> Result<Vec<Option<KnownRow>>, IndexError> {
    let mut known = vec![None; scan.files.len()];
    let conn = inner.index.reader()?;
    let Some(root) = rows::find_root(&conn, fs::path_bytes(&scan.root))? else {
        return Ok(known);
    };
    let profile = recipe.profile.to_string();
    let places: HashMap<&[u8], usize> = scan
        .files
        .iter()
        .enumerate()
        .map(|(at, found)| (fs::path_bytes(&found.place), at))
        .collect();
    rows::each_file_of_root(&conn, root, |row| {
        if let Some(&at) = places.get(&row.path[..]) {
            known[at] = Some(KnownRow {
                id: row.id,
                cid: row.cid,
                identity: row.identity,
                seen: row.seen,
                staged: row.state == FileState::Staged,
                same_recipe: same_recipe(&row, recipe, &profile),
            });
        }
    })?;
    Ok(known)
}

/// The leaves of a file that the index vouches for, remembered in its nodes.
pub(crate) fn leaves_of(inner: &Inner, cid: &Cid, size: u64) -> Result<Vec<Leaf>, IndexError> {
    if size == 0 {
        return Ok(Vec::new());
    }
    if cid.codec() == Codec::Raw {
        return Ok(vec![Leaf {
            cid: *cid,
            len: size as u32,
        }]);
    }
    let damaged = || IndexError::Other(format!("the nodes of file {cid} are missing or damaged"));
    let skeleton = inner.skeleton(cid, None).map_err(|e| match e {
        SkeletonReadError::Index(e) => e,
        SkeletonReadError::Skeleton(_) => damaged(),
    })?;
    let content = skeleton.ok_or_else(damaged)?.content;
    Ok(content
        .files()
        .flat_map(|file| file.parts())
        .filter_map(|part| match part {
            modswarm_protocol::format::Part::Piece(index) => Some(content.map().leaf(index)),
            modswarm_protocol::format::Part::Node { .. } => None,
        })
        .collect())
}
