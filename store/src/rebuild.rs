//! Making the index anew from the home's plain files and the packs' own.
//!
//! The damaged index is put aside, never deleted. Each place that the home remembers is read and cut as its pack.json says; where that gives the content CID
//! that it had, the record is as before, under the same pack CID. What comes out differently was changed, is only partly there, or was cut by another
//! program: its place stays remembered, and getting the pack again into the same folder fetches its list of files and adopts what is there.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use modswarm_protocol::{Cid, format::Manifest};

use crate::{
    backend::Backend,
    error::{IndexError, RebuildError, ShareError},
    fs,
    home::{HomeLock, Place, PlaceFile},
    left,
    observer::{Meter, Observer},
    packs::{NetworkId, PackRecord},
    segments::{self, SegmentError},
    share,
    store::{Inner, Store, StoreOptions},
};

/// Files that make up an index.
const INDEX_FILES: [&str; 3] = ["", "-wal", "-shm"];

/// What [`Store::rebuild`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Where the old index is now; none if there was none.
    pub put_aside: Vec<PathBuf>,
    /// Packs that are as they were.
    pub restored: Vec<PackRecord>,
    /// Packs whose files are not what they were, or not all there.
    pub left: Vec<Left>,
    /// Plain files that make no sense.
    pub unreadable: Vec<PathBuf>,
}

/// A pack that could not be restored from this machine alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Its name.
    pub name: String,
    /// Pack CID, where the content came as a pack.
    pub pack: Option<Cid>,
    /// Content CID.
    pub content: Cid,
    /// Where its files are, or were.
    pub path: PathBuf,
    /// Whether the user shared it; otherwise it was downloaded.
    pub shared: bool,
    /// Whether segments of the home hold its blocks. They stay until it is restored or removed.
    pub copied: bool,
    /// Why, in one sentence.
    pub reason: String,
}

pub(crate) fn rebuild(
    lock: HomeLock,
    options: StoreOptions,
    observer: &dyn Observer,
) -> Result<(Store, Rebuilt), RebuildError> {
    // Before there is an index that does not know of them.
    left::mark(&*options.backend, &lock).map_err(|source| RebuildError::Io {
        path: lock.home().join("packs"),
        source,
    })?;
    let (places, unreadable) = left::remembered(&*options.backend, &lock);
    let mut rebuilt = Rebuilt {
        put_aside: put_aside(&*options.backend, &lock)?,
        unreadable,
        ..Rebuilt::default()
    };
    let store = Store::open(lock, options)?;
    adopt_segments(&store, observer)?;
    let mut done: HashSet<(Cid, PathBuf, Option<NetworkId>)> = HashSet::new();
    // The latest first: it is what stands in a folder that had several versions.
    for (file, place) in places.iter().rev() {
        let Some(path) = place.path() else {
            rebuilt.unreadable.push(file.clone());
            continue;
        };
        if !done.insert((place.content, path.clone(), place.network())) {
            forget(&store, file);
            continue;
        }
        match restore(&store, place, &path, observer)? {
            Ok(record) => {
                rebuilt.restored.push(record);
                forget(&store, file);
            }
            Err(_) if place.copied && restore_copied(&store, place, &path, &mut rebuilt)? => forget(&store, file),
            // A former version: what survives of it is the newer one's as well. Not so the copy of one.
            Err(_) if !place.copied && rebuilt.restored.iter().any(|record| record.path == path) => {
                forget(&store, file);
            }
            Err(reason) => rebuilt.left.push(Left {
                name: place.name.clone(),
                pack: place.pack,
                content: place.content,
                path,
                shared: place.shared,
                copied: place.copied,
                reason,
            }),
        }
    }
    Ok((store, rebuilt))
}

pub(crate) fn forget_left(inner: &Inner, cid: &Cid) -> Result<Vec<Left>, RebuildError> {
    let forgotten = left::forget(inner, cid).map_err(segment_error)?;
    let reason = "it was given up".to_owned();
    Ok(forgotten
        .into_iter()
        .map(|left| match left.place {
            Some(place) => Left {
                path: place.path().unwrap_or_default(),
                name: place.name,
                pack: place.pack,
                content: place.content,
                shared: place.shared,
                copied: place.copied,
                reason: reason.clone(),
            },
            None => Left {
                name: left.cid.to_string(),
                pack: None,
                content: left.cid,
                path: left.file,
                shared: false,
                copied: false,
                reason: reason.clone(),
            },
        })
        .collect())
}

/// Puts what the home's segments hold into the index.
fn adopt_segments(store: &Store, observer: &dyn Observer) -> Result<(), RebuildError> {
    let meter = Meter::new(observer);
    segments::adopt(store.inner(), &meter).map_err(segment_error)
}

/// Makes the record of a pack anew whose blocks are in segments, if its folder does not vouch for it any more.
fn restore_copied(store: &Store, place: &PlaceFile, path: &Path, rebuilt: &mut Rebuilt) -> Result<bool, RebuildError> {
    let superseded = rebuilt.restored.iter().any(|record| record.path == path);
    let restored = left::restore_copied(store.inner(), place, path, superseded).map_err(segment_error)?;
    let any = restored.is_some();
    rebuilt.restored.extend(restored);
    Ok(any)
}

fn segment_error(e: SegmentError) -> RebuildError {
    match e {
        SegmentError::Io { path, source } => RebuildError::Io { path, source },
        SegmentError::Index(e) => e.into(),
        SegmentError::Cancelled => RebuildError::Cancelled,
        SegmentError::NotAllowed(shortage) => IndexError::Other(shortage.to_string()).into(),
        SegmentError::Changing(path) => IndexError::Other(format!("{path:?} keeps changing")).into(),
    }
}

/// Deletes the plain file of a place that has a new one.
fn forget(store: &Store, file: &Path) {
    if let Err(e) = store.inner().backend.remove_file(file) {
        tracing::warn!("{file:?} cannot be deleted: {e}");
    }
}

fn put_aside(backend: &dyn Backend, lock: &HomeLock) -> Result<Vec<PathBuf>, RebuildError> {
    let index = lock.index_path();
    let with = |suffix: &str| {
        let mut name = index.clone().into_os_string();
        name.push(suffix);
        PathBuf::from(name)
    };
    let mut moved = Vec::new();
    if !INDEX_FILES.iter().any(|suffix| backend.exists(&with(suffix))) {
        return Ok(moved);
    }
    let free = (1..u32::MAX).find(|n| {
        let mark = format!(".damaged-{n}");
        !INDEX_FILES
            .iter()
            .any(|suffix| backend.exists(&with(&format!("{suffix}{mark}"))))
    });
    let mark = format!(".damaged-{}", free.unwrap_or(u32::MAX));
    // The index itself last: cut off in between, the next run finds it and puts it aside too.
    for suffix in INDEX_FILES.iter().rev() {
        let (from, to) = (with(suffix), with(&format!("{suffix}{mark}")));
        match backend.replace(&from, &to) {
            Ok(()) => moved.push(to),
            Err(e) if fs::is_gone(&e) => {}
            Err(source) => return Err(RebuildError::Io { path: from, source }),
        }
    }
    backend.sync_dir(lock.home()).map_err(|source| RebuildError::Io {
        path: lock.home().to_owned(),
        source,
    })?;
    Ok(moved)
}

/// The record, or why there is none.
fn restore(
    store: &Store,
    place: &PlaceFile,
    path: &Path,
    observer: &dyn Observer,
) -> Result<Result<PackRecord, String>, RebuildError> {
    let inner = store.inner();
    if matches!(place.place, Place::Downloading) {
        return Ok(Err("its download was not finished".to_owned()));
    }
    let Some(network) = place.network() else {
        return Ok(Err(
            "its plain file in the home does not say which network it belongs to".to_owned(),
        ));
    };
    let Some(pack) = place.pack else {
        return Ok(Err("its list of files was made by others".to_owned()));
    };
    let manifest = inner.lock.read_manifest(&*inner.backend, &pack);
    let Some((manifest, bytes)): Option<(Manifest, Vec<u8>)> = manifest else {
        return Ok(Err("its pack.json in the home is missing or damaged".to_owned()));
    };
    let sig = inner.backend.read(&inner.lock.pack_dir(&pack).join("pack.sig")).ok();
    let known = share::Restore {
        pack,
        content: place.content,
        manifest,
        manifest_bytes: bytes,
        sig,
        network,
        origin: place.origin(),
        created: place.created,
        copied: place.copied,
    };
    match share::restore(inner, path, known, observer) {
        Ok(Some(shared)) => Ok(match store.pack(shared.id)? {
            Some(record) => Ok(record),
            None => Err("it was removed meanwhile".to_owned()),
        }),
        Ok(None) if place.shared => Ok(Err("its files are not what they were when they were shared".to_owned())),
        Ok(None) => Ok(Err("its files are not all there, or others are among them".to_owned())),
        Err(ShareError::Cancelled) => Err(RebuildError::Cancelled),
        Err(ShareError::Index(error)) => Err(error.into()),
        Err(error) => Ok(Err(error.to_string())),
    }
}
