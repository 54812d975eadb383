//! Packs of which only the home's plain files know: their index was lost, and they could not be restored from what this machine has.
//!
//! Their plain files are marked before there is an index that does not know of them, so that whatever cuts a rebuild off, clearing up can tell them from
//! packs that were removed. It keeps those files, and all blocks of copies that may be theirs: as long as the list of files of a copied pack is damaged, nobody
//! can say which those are. One whose list can be read again, because it was fetched or its folder is back, is restored with the next clearing up.

use std::{
    io,
    path::{Path, PathBuf},
};

use modswarm_protocol::{Cid, format::Name};

use crate::{
    backend::Backend,
    choice,
    error::IndexError,
    home::{HomeLock, PlaceFile, number_of_place, write_plain},
    index::rows,
    packs::{NetworkId, PackRecord, PackState},
    segments::{self, SegmentError},
    skeletons,
    store::Inner,
};

/// A pack that was left.
#[derive(Debug)]
pub(crate) struct Left {
    /// Its plain file.
    pub(crate) file: PathBuf,
    /// The name of the folder of that, which is its pack CID, or its content CID.
    pub(crate) cid: Cid,
    /// What the plain file says; `None`: it is damaged.
    pub(crate) place: Option<PlaceFile>,
}

impl Left {
    /// Whether blocks in segments of `network` may be its.
    pub(crate) fn may_have_copy_in(&self, network: &NetworkId) -> bool {
        self.place
            .as_ref()
            .is_none_or(|place| place.copied && place.network().is_none_or(|of| of == *network))
    }

    pub(crate) fn may_have_copy(&self) -> bool {
        self.place.as_ref().is_none_or(|place| place.copied)
    }
}

/// All places that the home remembers, oldest first, and the plain files that make no sense or cannot be read. A folder that cannot be listed is an error: what it
/// holds is not to be taken for forgotten.
#[allow(clippy::type_complexity, reason = "two lists for two callers")]
pub(crate) fn remembered(
    backend: &dyn Backend,
    lock: &HomeLock,
) -> io::Result<(Vec<(PathBuf, PlaceFile)>, Vec<PathBuf>)> {
    let list = |dir: &Path| match backend.read_dir(dir) {
        // A stray file among the folders, or no pack yet.
        Err(e) if crate::fs::is_gone(&e) => Ok(Vec::new()),
        listed => listed,
    };
    let folder = lock.home().join("packs");
    let (mut places, mut unreadable) = (Vec::new(), Vec::new());
    for (name, _) in list(&folder)? {
        let dir = folder.join(name);
        for (name, _) in list(&dir)? {
            let text = name.to_string_lossy();
            if !text.starts_with("place-") || !text.ends_with(".json") {
                continue;
            }
            let path = dir.join(&name);
            let place = number_of_place(&text).and_then(|number| PlaceFile::read(backend, &path, number));
            match place {
                Some(place) => places.push((path, place)),
                None => unreadable.push(path),
            }
        }
    }
    places.sort_by_key(|(_, place)| place.number());
    Ok((places, unreadable))
}

/// Marks all places that the home remembers, and returns the highest number of one. Durable.
pub(crate) fn mark(backend: &dyn Backend, lock: &HomeLock) -> io::Result<i64> {
    let mut last = 0;
    let (places, unreadable) = remembered(backend, lock)?;
    // What cannot be read now has its number still, and no other is to take its name.
    for path in unreadable {
        let number = path.file_name().and_then(|name| number_of_place(name.to_str()?));
        last = last.max(number.unwrap_or(0));
    }
    for (path, mut place) in places {
        last = last.max(place.number());
        if !place.left {
            place.left = true;
            write_plain(backend, &path, &place.to_bytes()?)?;
        }
    }
    Ok(last)
}

/// The packs that are left still.
pub(crate) fn all(inner: &Inner) -> Result<Vec<Left>, IndexError> {
    Ok(look(inner)?.0)
}

/// The packs that are left still, and plain files of those that are not.
fn look(inner: &Inner) -> Result<(Vec<Left>, Vec<PathBuf>), IndexError> {
    let (places, unreadable) = remembered(&*inner.backend, &inner.lock)
        .map_err(|e| IndexError::Other(format!("what the home remembers of packs cannot be read: {e}")))?;
    let records = rows::packs(&*inner.index.reader()?)?;
    let records = || records.iter().map(|row| &row.record);
    // With a copied record of the content, its copy is known; with any at its place, the rest of it is.
    let replaced = |place: &PlaceFile| {
        records().any(|record| {
            let same_copy = record.copied && Some(record.network) == place.network();
            place.content == record.content && (same_copy || !place.copied && place.is_of(record))
        })
    };
    let marked = places.into_iter().filter(|(_, place)| place.left);
    let (gone, left): (Vec<_>, Vec<_>) = marked.partition(|(_, place)| replaced(place));
    let damaged = unreadable.into_iter().filter(|path| {
        let number = path.file_name().and_then(|name| number_of_place(name.to_str()?));
        number.is_some_and(|number| !records().any(|record| record.id.0 == number))
    });
    let left = left.into_iter().map(|(file, place)| (file, Some(place)));
    let left = left
        .chain(damaged.map(|file| (file, None)))
        .filter_map(|(file, place)| {
            let cid = cid_of_folder(&file)?;
            Some(Left { file, cid, place })
        });
    Ok((left.collect(), gone.into_iter().map(|(file, _)| file).collect()))
}

fn cid_of_folder(file: &Path) -> Option<Cid> {
    file.parent()?.file_name()?.to_str()?.parse().ok()
}

/// Restores the copied packs whose lists of files can be read now; returns what is left then.
pub(crate) fn mend(inner: &Inner) -> Result<Vec<Left>, SegmentError> {
    let (all, gone) = look(inner)?;
    for file in gone {
        remove(inner, &file)?;
    }
    if !segments::are_known(inner)? {
        // What they hold of a pack cannot be told before they are read.
        return Ok(all);
    }
    let mut still = Vec::new();
    for left in all {
        let place = left.place.as_ref().filter(|place| place.copied);
        let restored = match place.and_then(|place| Some((place, place.path()?))) {
            Some((place, path)) => restore_copied(inner, place, &path, false)?,
            None => None,
        };
        match restored {
            Some(record) => {
                tracing::info!("{:?} is restored", record.name);
                remove(inner, &left.file)?;
            }
            None => still.push(left),
        }
    }
    Ok(still)
}

/// Forgets the packs that were left of this pack or content CID; returns them. Durable.
pub(crate) fn forget(inner: &Inner, cid: &Cid) -> Result<Vec<Left>, SegmentError> {
    let of_cid = |left: &Left| left.cid == *cid || left.place.as_ref().is_some_and(|place| place.content == *cid);
    let forgotten: Vec<Left> = all(inner)?.into_iter().filter(of_cid).collect();
    for left in &forgotten {
        remove(inner, &left.file)?;
    }
    Ok(forgotten)
}

fn remove(inner: &Inner, file: &Path) -> Result<(), SegmentError> {
    let removed = inner.backend.remove_file(file);
    let removed = removed.and_then(|()| file.parent().map_or(Ok(()), |dir| inner.backend.sync_dir(dir)));
    removed.map_err(|source| SegmentError::Io {
        path: file.to_owned(),
        source,
    })
}

/// Makes the record of a copied pack anew from what segments hold, whatever has become of its folder; `None` if its list of files cannot be read. What of
/// the list has rotted in the segments is put there again. Durable.
pub(crate) fn restore_copied(
    inner: &Inner,
    place: &PlaceFile,
    path: &Path,
    superseded: bool,
) -> Result<Option<PackRecord>, SegmentError> {
    let name = Name::new(&place.name).ok();
    let mut content = inner.content_named(&place.content, name.as_ref());
    if !matches!(content, Ok(Some(_))) {
        skeletons::put_back(inner, &place.pack.unwrap_or(place.content))?;
        content = inner.content_named(&place.content, name.as_ref());
    }
    let Ok(Some(content)) = content else {
        return Ok(None);
    };
    let at_place = rows::packs_at(&*inner.index.reader()?, crate::fs::path_bytes(path))?;
    let shared_again = at_place
        .into_iter()
        .find(|row| row.record.state == PackState::Whole && row.record.pack == place.pack && place.is_of(&row.record));
    let record = match shared_again {
        Some(row) => {
            let id = row.record.id;
            inner.index.writer.run(move |tx| rows::set_copied(tx, id, true))?;
            PackRecord {
                copied: true,
                ..row.record
            }
        }
        None => match segments::restore(inner, place, path, &content, superseded)? {
            Some(record) => record,
            None => return Ok(None),
        },
    };
    segments::heal_nodes(inner, &inner.segments.alone(), &record, &content)?;
    choice::remember(inner, &record).map_err(|source| SegmentError::Io {
        path: inner.lock.home().join("packs"),
        source,
    })?;
    Ok(Some(record))
}
