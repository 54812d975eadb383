//! Making the record of a pack anew from its kept skeleton and what is found of its files, whatever was edited, kept, left out, added or lost.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use bitvec::vec::BitVec;
use modswarm_protocol::format::{Content, Name};

use super::{Differing, Rebuilt};
use crate::{
    backend::Identity,
    choice::{self, Choice},
    download::Conflicts,
    error::{IndexError, RebuildError, VerifyError},
    fs,
    home::{Place, PlaceFile, write_plain},
    index::rows::{self, FileState, NewFile, PackRow},
    observer::{Meter, Observer},
    packs::{self, Fault, PackId, PackRecord, PackState},
    share, skeletons,
    store::{Inner, Store},
};

/// Makes the record anew, if the skeleton is whole and any of the pack's bytes are there; says whether it did. Durable.
pub(super) fn restore(
    store: &Store,
    file: &Path,
    place: &PlaceFile,
    path: &Path,
    observer: &dyn Observer,
    rebuilt: &mut Rebuilt,
) -> Result<bool, RebuildError> {
    let inner = store.inner();
    if place.copied || matches!(place.place, Place::Downloading) {
        return Ok(false);
    }
    let Some(content) = content_of(inner, place)? else {
        return Ok(false);
    };
    let files = content.files().len();
    let choice = match file.parent().filter(|_| place.chosen) {
        Some(dir) => {
            let read = Choice::read(&*inner.backend, dir, place.number(), files);
            read.map_err(|source| RebuildError::Io {
                path: dir.to_owned(),
                source,
            })?
        }
        None => None,
    };
    let Some(id) = insert(inner, place, path, &content, choice.as_ref(), observer)? else {
        return Ok(false);
    };
    let verified = packs::verify_pack(inner, id, observer).map_err(verify_error)?;
    let Some(record) = store.pack(id)? else {
        return Ok(false);
    };
    if record.pieces > 0 && record.pieces_here == 0 {
        // The disk may not be there now: the place stays remembered.
        store
            .remove_pack(id, false)
            .map_err(|e| IndexError::Other(e.to_string()))?;
        return Ok(false);
    }
    choice::remember(inner, &record).map_err(|source| RebuildError::Io {
        path: inner.lock.home().join("packs"),
        source,
    })?;
    let choice_lost = place.chosen && choice.is_none();
    let missing = verified.bad.iter().filter(|bad| bad.fault == Fault::Missing).count();
    let changed = verified.bad.len() - missing;
    if choice_lost || !verified.bad.is_empty() {
        rebuilt.differing.push(Differing {
            id,
            missing: missing as u64,
            changed: changed as u64,
            choice_lost,
        });
    }
    rebuilt.restored.push(record);
    Ok(true)
}

/// The content, if the home's plain files have all of its nodes, and the pack is of this content.
fn content_of(inner: &Inner, place: &PlaceFile) -> Result<Option<Arc<Content>>, RebuildError> {
    skeletons::put_back(inner, &place.pack.unwrap_or(place.content))?;
    if let Some(pack) = &place.pack {
        let Ok(Some(skeleton)) = inner.skeleton(pack, None) else {
            return Ok(None);
        };
        let Some(head) = skeleton.pack.filter(|_| skeleton.content.cid() == place.content) else {
            return Ok(None);
        };
        if inner.lock.read_manifest(&*inner.backend, pack).is_none() {
            let dir = inner.lock.pack_dir(pack);
            let sig = head.sig.as_ref().map(|(_, bytes)| &bytes[..]);
            for (name, bytes) in [("pack.sig", sig), ("pack.json", Some(&head.manifest_bytes[..]))] {
                let path = dir.join(name);
                let written = bytes.map_or(Ok(()), |bytes| write_plain(&*inner.backend, &path, bytes));
                written.map_err(|source| RebuildError::Io { path, source })?;
            }
        }
    }
    let name = Name::new(&place.name).ok();
    Ok(inner.content_named(&place.content, name.as_ref()).unwrap_or(None))
}

/// Rows for the pack and for every file that belongs there, none of them believed to hold anything. `None`: the place says no network.
fn insert(
    inner: &Inner,
    place: &PlaceFile,
    path: &Path,
    content: &Content,
    choice: Option<&Choice>,
    observer: &dyn Observer,
) -> Result<Option<PackId>, RebuildError> {
    let Some(network) = place.network() else {
        return Ok(None);
    };
    let selected = choice.and_then(Choice::selected);
    let kept: Vec<u32> = choice.map(|choice| choice.kept().collect()).unwrap_or_default();
    let is_kept: HashSet<u32> = kept.iter().copied().collect();
    let (root, spelled) = share::places_at(inner, path, &Meter::new(observer));
    let numbers: Vec<u32> = (0..content.files().len() as u32)
        .filter(|number| selected.as_ref().is_none_or(|set| set[*number as usize]))
        .collect();
    let manifest = place
        .pack
        .and_then(|pack| inner.lock.read_manifest(&*inner.backend, &pack));
    let profile = manifest
        .and_then(|(manifest, _)| manifest.chunker)
        .map(|profile| profile.to_string());
    let record = PackRecord {
        id: PackId(0),
        pack: place.pack,
        content: place.content,
        name: place.name.clone(),
        network,
        path: path.to_owned(),
        origin: place.origin(),
        state: PackState::Whole,
        files: numbers.len() as u64,
        bytes: numbers.iter().map(|number| content.file(*number as usize).size()).sum(),
        pieces: content.map().len(),
        pieces_here: 0,
        piece_bytes: content.map().bytes(),
        piece_bytes_here: 0,
        partial: selected.is_some(),
        kept: kept.len() as u64,
        created: place.created,
        pinned: false,
        used: packs::now_secs(),
        copied: false,
    };
    let files: Vec<_> = numbers
        .into_iter()
        .filter(|number| !is_kept.contains(number))
        .map(|number| {
            let file = content.file(number as usize);
            let place = spelled.get(&file.path()).cloned();
            let place = place.unwrap_or_else(|| PathBuf::from(file.path().as_str()));
            (number, fs::path_bytes(&place).to_owned(), file.cid(), file.size())
        })
        .collect();
    let root = fs::path_bytes(&root).to_owned();
    let have = rows::bits_to_bytes(&content.map().none());
    let selection = selected.map(|set: BitVec| rows::bits_to_bytes(&set.iter().by_vals().collect()));
    let id = inner.index.writer.run(move |tx| -> Result<PackId, IndexError> {
        let root = rows::root_id(tx, &root)?;
        let row = PackRow {
            record,
            root,
            have: Some(have),
            selection,
            stage: None,
            conflicts: Conflicts::default(),
        };
        let id = rows::insert_pack(tx, &row)?;
        // Another pack may have been restored at the same place.
        let mut there = HashMap::new();
        rows::each_file_of_root(tx, root, |row| {
            there.insert((row.path, row.cid), row.id);
        })?;
        for (number, path, cid, size) in files {
            let file = match there.get(&(path.clone(), cid)) {
                Some(file) => *file,
                None => {
                    let unknown = Identity {
                        dev: 0,
                        file: 0,
                        size,
                        mtime: 0,
                        ctime: 0,
                    };
                    let new = NewFile {
                        root,
                        path: &path,
                        stage: None,
                        state: FileState::Whole,
                        identity: unknown,
                        seen: 0,
                        cid,
                        profile: profile.as_deref(),
                    };
                    rows::insert_file(tx, &new)?
                }
            };
            rows::insert_pack_file(tx, id, number, file)?;
        }
        rows::set_kept(tx, id, &kept)?;
        Ok(id)
    })?;
    Ok(Some(id))
}

fn verify_error(e: VerifyError) -> RebuildError {
    match e {
        VerifyError::Cancelled => RebuildError::Cancelled,
        VerifyError::Index(e) => e.into(),
        other => IndexError::Other(other.to_string()).into(),
    }
}
