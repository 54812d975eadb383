//! How a folder becomes a pack, in place.
//!
//! `scan` looks at names and identities; `hash` reads what the index does not vouch for (`parallel`: with all cores on one file); this file decides what is known, builds
//! the nodes, and says it all to `commit`, which writes the index. Nothing is copied unless it was asked for, and nothing in the folder is touched.

mod commit;
mod hash;
mod known;
mod parallel;
mod scan;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::OnceLock,
    time::{SystemTime, UNIX_EPOCH},
};

use modswarm_protocol::{
    Cid, HashKind,
    format::{BuiltContent, ChunkerProfile, ContentBuilder, Leaf, Manifest, Name, PackPath, build_pack},
};
use rayon::prelude::*;

pub(crate) use self::{
    commit::{PLACES_MAX, Supersede, apply_superseded, surviving},
    known::leaves_of,
};
use self::{
    hash::{Buffers, Hashed, Hasher, LARGE_MIN, Recipe},
    known::{KnownRow, rows_of, same_recipe},
    scan::{Scan, scan},
};
use crate::{
    error::ShareError,
    fs,
    index::rows::{self, PackRow},
    observer::{Meter, Observer, Stage},
    packs::{NetworkId, Origin, PackId, PackState},
    store::Inner,
};

/// What to share, and what to say of it.
///
/// Where a field is `None` (or empty, for lists), the pack that was shared from the same path before decides; its words are kept.
#[derive(Clone, Debug)]
pub struct ShareSpec {
    /// A folder or a file, absolute.
    pub path: PathBuf,
    /// The pack's name; the folder's or file's at first.
    pub name: Option<Name>,
    /// Free text.
    pub description: Option<String>,
    /// Who made it.
    pub creator: Option<String>,
    /// The game that it is for.
    pub game: Option<String>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// The pack's own version.
    pub version: Option<String>,
    /// The pack that this one follows, if not the one shared from this path before.
    pub previous: Option<Cid>,
    /// The hash function of all CIDs.
    pub hash: Option<HashKind>,
    /// How files are cut.
    pub profile: Option<ChunkerProfile>,
    /// The network to serve it in.
    pub network: NetworkId,
    /// Whether the store is to have a copy of its own, so that the folder may be changed or deleted while the pack is served.
    pub copy: Option<bool>,
}

impl ShareSpec {
    /// Shares `path` in `network`, saying nothing of it.
    pub fn new(path: impl Into<PathBuf>, network: NetworkId) -> Self {
        Self {
            path: path.into(),
            name: None,
            description: None,
            creator: None,
            game: None,
            tags: Vec::new(),
            version: None,
            previous: None,
            hash: None,
            profile: None,
            network,
            copy: None,
        }
    }
}

/// A shared pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedPack {
    /// Its record.
    pub id: PackId,
    /// Pack CID.
    pub pack: Cid,
    /// Content CID.
    pub content: Cid,
    /// What pack.json says.
    pub manifest: Manifest,
    /// Number of files.
    pub files: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Number of distinct leaves.
    pub blocks: u64,
    /// Bytes that were read and hashed; 0 if every file was known.
    pub bytes_hashed: u64,
}

/// What is known of a file after looking at it, and reading it where needed.
#[derive(Debug)]
enum Known {
    /// The row of this number vouches for it at this place; with its leaves.
    Here(i64, Vec<Leaf>),
    /// The index vouches for it, at another place or in another root: a moved folder.
    Elsewhere(Hashed),
    /// It was read.
    Read(Hashed),
}

pub(crate) fn share(inner: &Inner, spec: &ShareSpec, observer: &dyn Observer) -> Result<SharedPack, ShareError> {
    let meter = Meter::new(observer);
    meter.stage(Stage::Scanning, 0, 0);
    let scan = scan(&spec.path, &inner.pool, &meter)?;
    meter.report();

    let before = Before::look(inner, spec, &scan)?;
    let known = look_and_read(inner, &scan, &before, &meter)?;
    meter.report();

    meter.stage(Stage::Indexing, 0, scan.files.len() as u64);
    let (built, files) = build(&scan, &before, known)?;
    let (manifest, manifest_bytes) = before.manifest(spec, &scan, &built)?;
    let pack = build_pack(&built, &manifest_bytes, None);
    let bytes_hashed = meter.bytes_hashed();
    let shared = SharedPack {
        id: PackId(0),
        pack: pack.cid,
        content: built.cid,
        files: scan.files.len() as u64,
        bytes: scan.files.iter().map(|file| file.identity.size).sum(),
        blocks: u64::from(built.content.map().len()),
        manifest,
        bytes_hashed,
    };
    let copied = spec
        .copy
        .unwrap_or_else(|| before.pack.as_ref().is_some_and(|row| row.record.copied));
    let job = commit::Commit {
        shared,
        copied,
        network: spec.network,
        scan,
        files,
        profile: before.recipe.profile.to_string(),
        built,
        pack_blocks: pack.blocks,
        manifest_bytes,
        origin: Origin::Shared,
        created: None,
    };
    commit::commit(inner, job, &meter)
}

/// A pack that stood at a path once, as the home's plain files have it.
pub(crate) struct Restore {
    pub(crate) pack: Cid,
    pub(crate) content: Cid,
    pub(crate) manifest: Manifest,
    pub(crate) manifest_bytes: Vec<u8>,
    pub(crate) sig: Option<Vec<u8>>,
    pub(crate) network: NetworkId,
    pub(crate) origin: Origin,
    pub(crate) created: u64,
    pub(crate) copied: bool,
}

/// Makes the record of a pack anew, if its files at `path` are still what they were. Durable.
pub(crate) fn restore(
    inner: &Inner,
    path: &std::path::Path,
    known: Restore,
    observer: &dyn Observer,
) -> Result<Option<SharedPack>, ShareError> {
    let meter = Meter::new(observer);
    meter.stage(Stage::Scanning, 0, 0);
    let scan = scan(path, &inner.pool, &meter)?;
    meter.report();
    let recipe = Recipe {
        hash: known.content.hash(),
        profile: known.manifest.chunker.unwrap_or_default(),
    };
    let before = Before {
        pack: None,
        manifest: None,
        recipe,
        files: rows_of(inner, &scan, recipe)?,
    };
    let found = look_and_read(inner, &scan, &before, &meter)?;
    meter.report();
    let (built, files) = build(&scan, &before, found)?;
    let pack = build_pack(&built, &known.manifest_bytes, known.sig.as_deref());
    if built.cid != known.content || pack.cid != known.pack {
        return Ok(None);
    }
    meter.stage(Stage::Indexing, 0, scan.files.len() as u64);
    let shared = SharedPack {
        id: PackId(0),
        pack: pack.cid,
        content: built.cid,
        files: scan.files.len() as u64,
        bytes: scan.files.iter().map(|file| file.identity.size).sum(),
        blocks: u64::from(built.content.map().len()),
        manifest: known.manifest,
        bytes_hashed: meter.bytes_hashed(),
    };
    let job = commit::Commit {
        shared,
        copied: known.copied,
        network: known.network,
        scan,
        files,
        profile: recipe.profile.to_string(),
        built,
        pack_blocks: pack.blocks,
        manifest_bytes: known.manifest_bytes,
        origin: known.origin,
        created: Some(known.created),
    };
    commit::commit(inner, job, &meter).map(Some)
}

/// What files at `path` are relative to, and where the files are below that which a share would find: names may be spelled otherwise than in the pack.
pub(crate) fn places_at(
    inner: &Inner,
    path: &std::path::Path,
    meter: &Meter<'_>,
) -> (PathBuf, HashMap<PackPath, PathBuf>) {
    match scan(path, &inner.pool, meter) {
        Ok(scan) => {
            let files = scan.files.into_iter().map(|found| (found.path, found.place));
            (scan.root, files.collect())
        }
        // A pack's own name for a file is where it is nearly always.
        Err(_) => (path.to_owned(), HashMap::new()),
    }
}

/// What the home knew of the path before.
struct Before {
    /// The pack that stands there.
    pack: Option<PackRow>,
    manifest: Option<(Manifest, Vec<u8>)>,
    recipe: Recipe,
    /// What stood at the places of the scan's files, in their order.
    files: Vec<Option<KnownRow>>,
}

impl Before {
    fn look(inner: &Inner, spec: &ShareSpec, scan: &Scan) -> Result<Self, ShareError> {
        let conn = inner.index.reader()?;
        let pack = rows::packs_at(&conn, fs::path_bytes(&scan.shared))?
            .into_iter()
            .find(|row| row.record.state == PackState::Whole);
        let manifest = pack
            .as_ref()
            .and_then(|row| inner.lock.read_manifest(&*inner.backend, &row.record.pack?))
            .filter(|(manifest, _)| pack.as_ref().is_some_and(|row| row.record.content == manifest.content));
        let recipe = Recipe {
            hash: spec
                .hash
                .or_else(|| Some(pack.as_ref()?.record.content.hash()))
                .unwrap_or_default(),
            profile: spec
                .profile
                .or_else(|| manifest.as_ref()?.0.chunker)
                .unwrap_or_default(),
        };
        drop(conn);
        let files = rows_of(inner, scan, recipe)?;
        Ok(Self {
            pack,
            manifest,
            recipe,
            files,
        })
    }

    /// pack.json: the stored bytes if nothing that it says has changed, otherwise new ones that name the former pack.
    fn manifest(&self, spec: &ShareSpec, scan: &Scan, built: &BuiltContent) -> Result<(Manifest, Vec<u8>), ShareError> {
        let old = self.manifest.as_ref().map(|(manifest, _)| manifest);
        let name = match (&spec.name, old) {
            (Some(name), _) => name.clone(),
            (None, Some(old)) => old.name.clone(),
            (None, None) => {
                let name = scan.shared.file_name().map_or(&b"pack"[..], fs::name_bytes);
                Name::from_utf8(name).map_err(|e| ShareError::Names(vec![(scan.shared.clone(), e)]))?
            }
        };
        let mut new = match old {
            Some(old) => old.clone(),
            None => Manifest::new(built.cid, name.clone()),
        };
        new.content = built.cid;
        new.name = name;
        let or_old = |given: &Option<String>, old: Option<String>| given.clone().or(old);
        new.description = or_old(&spec.description, new.description);
        new.creator = or_old(&spec.creator, new.creator);
        new.game = or_old(&spec.game, new.game);
        new.version = or_old(&spec.version, new.version);
        if !spec.tags.is_empty() {
            new.tags.clone_from(&spec.tags);
        }
        if let Some(previous) = spec.previous {
            new.previous = Some(previous);
        }
        new.chunker = Some(self.recipe.profile);
        if let Some((old, bytes)) = &self.manifest
            && *old == new
        {
            return Ok((new, bytes.clone()));
        }
        if spec.previous.is_none() {
            new.previous = self.pack.as_ref().and_then(|row| row.record.pack);
        }
        new.created = SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|d| d.as_secs());
        let bytes = new.to_bytes().map_err(|e| ShareError::Manifest(e.to_string()))?;
        Ok((new, bytes))
    }
}

/// Looks at every file, and reads those that the index does not vouch for. In the order of `scan.files`.
fn look_and_read(inner: &Inner, scan: &Scan, before: &Before, meter: &Meter<'_>) -> Result<Vec<Known>, ShareError> {
    let bytes = scan.files.iter().map(|file| file.identity.size).sum();
    meter.stage(Stage::Hashing, bytes, scan.files.len() as u64);
    let profile = before.recipe.profile.to_string();
    // Large files have all workers one after another, so that the memory of one bounds that of many; the small ones share them.
    let (large, small): (Vec<usize>, Vec<usize>) =
        (0..scan.files.len()).partition(|&at| scan.files[at].identity.size >= LARGE_MIN);
    let hasher = Hasher {
        backend: &*inner.backend,
        recipe: before.recipe,
        meter,
        buffers: Buffers::default(),
    };
    let slots: Vec<OnceLock<Known>> = scan.files.iter().map(|_| OnceLock::new()).collect();
    let look = |at: usize| -> Result<(), ShareError> {
        if meter.cancelled() {
            return Err(ShareError::Cancelled);
        }
        let found = &scan.files[at];
        let known = match &before.files[at] {
            Some(row) if row.vouches_for(&found.identity) => {
                Known::Here(row.id, leaves_of(inner, &row.cid, found.identity.size)?)
            }
            _ => {
                let conn = inner.index.reader()?;
                let elsewhere = rows::files_by_identity(&conn, &found.identity)?
                    .into_iter()
                    .find(|row| same_recipe(row, before.recipe, &profile) && row.vouches_for(&found.identity));
                drop(conn);
                match elsewhere {
                    Some(row) => Known::Elsewhere(Hashed {
                        identity: row.identity,
                        seen: row.seen,
                        leaves: leaves_of(inner, &row.cid, row.identity.size)?,
                    }),
                    None => Known::Read(hasher.hash_file(&scan.root.join(&found.place))?),
                }
            }
        };
        if !matches!(known, Known::Read(_)) {
            meter.add_bytes(found.identity.size, 0);
        }
        meter.add_file();
        // Nobody else looks at this file.
        let _ = slots[at].set(known);
        Ok(())
    };
    inner.pool.install(|| {
        large.into_iter().try_for_each(look)?;
        small.into_par_iter().try_for_each(look)
    })?;
    let known = slots.into_iter().map(OnceLock::into_inner);
    Ok(known.map(|known| known.expect("each was looked at")).collect())
}

/// What the index is to say of one file.
#[derive(Debug)]
enum FileChange {
    /// Its row stays.
    Keep(i64),
    /// Its row stays, under a fresh identity: it was read again and is the same.
    Refresh(i64, Cid, Hashed),
    /// It gets a row, and its leaves too.
    New {
        hashed: Hashed,
        cid: Cid,
        /// The row that said something else of the same place.
        instead_of: Option<i64>,
    },
}

fn build(scan: &Scan, before: &Before, known: Vec<Known>) -> Result<(BuiltContent, Vec<FileChange>), ShareError> {
    let mut builder = ContentBuilder::new(before.recipe.hash);
    for dir in &scan.dirs {
        builder.add_dir(dir.clone())?;
    }
    let mut changes = Vec::with_capacity(known.len());
    for ((found, known), old) in scan.files.iter().zip(known).zip(&before.files) {
        let path = found.path.clone();
        let instead_of = old.map(|row| row.id);
        changes.push(match known {
            Known::Here(row, leaves) => {
                builder.add_file(path, leaves)?;
                FileChange::Keep(row)
            }
            Known::Elsewhere(hashed) => FileChange::New {
                cid: builder.add_file(path, hashed.leaves.iter().copied())?,
                hashed,
                instead_of,
            },
            Known::Read(hashed) => {
                let cid = builder.add_file(path, hashed.leaves.iter().copied())?;
                match old {
                    Some(row) if row.same_recipe && row.cid == cid => FileChange::Refresh(row.id, cid, hashed),
                    _ => FileChange::New {
                        hashed,
                        cid,
                        instead_of,
                    },
                }
            }
        });
    }
    Ok((builder.finish()?, changes))
}
