//! Making the index anew from the home's plain files and the packs' own.
//!
//! The damaged index is put aside, never deleted. Each place that the home remembers is read, and compared with the skeleton that the home keeps of its pack (see
//! [`found`]): the record is as before, with those files that are there still. Where the skeleton is lost, the place is cut as its pack.json says; where that
//! gives the content CID that it had, the record is as before, under the same pack CID. What comes out differently then was changed, is only partly there, or
//! was cut by another program: its place stays remembered, and getting the pack again into the same folder fetches its list of files and adopts what is there.

mod found;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use modswarm_protocol::{Cid, format::Manifest};

use crate::{
    backend::Backend,
    choice,
    error::{IndexError, RebuildError, ShareError},
    fs,
    home::{self, HomeLock, Place, PlaceFile},
    left,
    observer::{Meter, Observer},
    packs::{NetworkId, PackId, PackRecord},
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
    /// Those of them whose files are not all as the pack has them.
    pub differing: Vec<Differing>,
    /// Packs whose files are not what they were, or not all there.
    pub left: Vec<Left>,
    /// Plain files that make no sense.
    pub unreadable: Vec<PathBuf>,
}

/// A pack that was restored with the files that are there still. The others are as if they had been edited or deleted: nothing replaces or deletes them unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Differing {
    /// Its record.
    pub id: PackId,
    /// Files that are not there.
    pub missing: u64,
    /// Files whose bytes are others.
    pub changed: u64,
    /// Whether it is not known any more which files the user kept his own in place of, or did not select.
    pub choice_lost: bool,
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
    /// Whether only some of its files belong there: others were not selected, or the user kept his own in their places.
    pub chosen: bool,
    /// Why, in one sentence.
    pub reason: String,
}

pub(crate) fn rebuild(
    lock: HomeLock,
    options: StoreOptions,
    observer: &dyn Observer,
) -> Result<(Store, Rebuilt), RebuildError> {
    refuse_newer(&lock)?;
    // Before there is an index that does not know of them.
    let remembered = left::mark(&*options.backend, &lock).and_then(|_| left::remembered(&*options.backend, &lock));
    let (places, unreadable) = remembered.map_err(|source| RebuildError::Io {
        path: lock.home().join("packs"),
        source,
    })?;
    let mut rebuilt = Rebuilt {
        put_aside: put_aside(&*options.backend, &lock)?,
        unreadable,
        ..Rebuilt::default()
    };
    let store = Store::open(lock, options)?;
    adopt_segments(&store, observer)?;
    let mut done: HashSet<(Cid, PathBuf, Option<NetworkId>)> = HashSet::new();
    let mut tried: Vec<Tried<'_>> = Vec::new();
    // The latest first: it is what stands in a folder that had several versions.
    for (file, place) in places.iter().rev() {
        let Some(path) = place.path() else {
            rebuilt.unreadable.push(file.clone());
            continue;
        };
        if !done.insert((place.content, path.clone(), place.network())) {
            forget(&store, file, place);
            continue;
        }
        // With several, the one that stands there is the one whose files are all there.
        let alone = places
            .iter()
            .filter(|(_, other)| other.path().as_ref() == Some(&path))
            .count()
            == 1;
        if alone && found::restore(&store, file, place, &path, observer, &mut rebuilt)? {
            forget(&store, file, place);
            continue;
        }
        match restore(&store, place, &path, observer)? {
            Ok(record) => {
                rebuilt.restored.push(record);
                forget(&store, file, place);
            }
            Err(reason) => tried.push(Tried {
                file,
                place,
                path,
                reason,
                alone,
            }),
        }
    }
    for tried in tried {
        let Tried { file, place, path, .. } = &tried;
        let superseded = rebuilt.restored.iter().any(|record| record.path == *path);
        let restored = match (place.copied, superseded) {
            (true, _) => restore_copied(&store, place, path, &mut rebuilt)?,
            // A former version: what survives of it is the newer one's as well. Not so the copy of one.
            (false, true) => true,
            (false, false) => !tried.alone && found::restore(&store, file, place, path, observer, &mut rebuilt)?,
        };
        if restored {
            forget(&store, file, place);
        } else {
            rebuilt.left.push(tried.left());
        }
    }
    Ok((store, rebuilt))
}

/// A place whose pack is not what is cut there now.
struct Tried<'a> {
    file: &'a Path,
    place: &'a PlaceFile,
    path: PathBuf,
    reason: String,
    /// Whether no other pack was at its path.
    alone: bool,
}

impl Tried<'_> {
    fn left(self) -> Left {
        Left {
            name: self.place.name.clone(),
            pack: self.place.pack,
            content: self.place.content,
            path: self.path,
            shared: self.place.shared,
            copied: self.place.copied,
            chosen: self.place.chosen,
            reason: self.reason,
        }
    }
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
                chosen: place.chosen,
                reason: reason.clone(),
            },
            None => Left {
                name: left.cid.to_string(),
                pack: None,
                content: left.cid,
                path: left.file,
                shared: false,
                copied: false,
                chosen: false,
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
fn forget(store: &Store, file: &Path, place: &PlaceFile) {
    let backend = &*store.inner().backend;
    home::remove_if_there(backend, file);
    if let Some(dir) = file.parent() {
        choice::forget(backend, dir, place.number());
    }
}

/// Refuses an index that is not damaged but made by a newer program: making it anew would lose what only that knows.
fn refuse_newer(lock: &HomeLock) -> Result<(), RebuildError> {
    match crate::index::version(&lock.index_path()) {
        Some(found) if found > crate::index::schema::VERSION => Err(IndexError::Newer {
            found,
            known: crate::index::schema::VERSION,
        }
        .into()),
        // Whatever else is wrong with it is why it is made anew.
        _ => Ok(()),
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
