//! Looking at what stands at a destination, before anything is written.

use std::{collections::BTreeMap, io, path::Path};

use bitvec::vec::BitVec;
use modswarm_protocol::{
    Cid, Codec,
    format::{Content, PackPath, Part},
};
use rayon::prelude::*;

use super::{known::Known, place::in_the_way};
use crate::{
    backend::{BackendDir, BackendFile, Entry, Identity},
    error::{BeginError, Blockage},
    observer::{Meter, Stage},
    store::Inner,
};

/// What stands where a file of the content belongs.
#[derive(Debug)]
pub(crate) enum There {
    Nothing,
    /// The file itself, and since when that is certain.
    Same(Box<Found>),
    /// The file itself, as this row of the index says.
    Known(i64),
    /// A file (with its identity) or symlink that differs.
    Differs(Option<Box<Identity>>),
}

/// A step from folder to folder that keeps the folders on the way open.
struct Walker<'a> {
    root: &'a dyn BackendDir,
    open: Vec<(String, Option<Box<dyn BackendDir>>)>,
}

impl Walker<'_> {
    /// The folder that `path` lies in; `None` if there is none.
    fn parent_of(&mut self, path: &PackPath) -> Result<Option<&dyn BackendDir>, (usize, io::Error)> {
        let names: Vec<&str> = path.names().collect();
        let folders = &names[..names.len() - 1];
        let same = self
            .open
            .iter()
            .zip(folders)
            .take_while(|((open, _), name)| open == *name)
            .count();
        self.open.truncate(same);
        for (depth, name) in folders.iter().enumerate().skip(same) {
            let next = match self.open.last() {
                Some((_, None)) => None,
                Some((_, Some(dir))) => open_folder(&**dir, name, depth)?,
                None => open_folder(self.root, name, depth)?,
            };
            self.open.push(((*name).to_owned(), next));
        }
        Ok(match self.open.last() {
            Some((_, dir)) => dir.as_deref(),
            None => Some(self.root),
        })
    }
}

fn open_folder(
    dir: &dyn BackendDir,
    name: &str,
    depth: usize,
) -> Result<Option<Box<dyn BackendDir>>, (usize, io::Error)> {
    match dir.folder(name) {
        Ok(dir) => Ok(Some(dir)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err((depth, e)),
    }
}

/// Looks at the places of the `selected` files. The answers are by number, where something stands at all.
pub(crate) fn inspect(
    inner: &Inner,
    content: &Content,
    selected: &BitVec,
    known: &Known,
    profile: Option<&str>,
    meter: &Meter<'_>,
) -> Result<BTreeMap<usize, There>, BeginError> {
    let destination = &known.destination;
    let mut there = BTreeMap::new();
    let Some(root) = open_root(inner, destination)? else {
        return Ok(there);
    };
    let conn = inner.index.reader()?;
    let mut blocked = Vec::new();
    let mut walker = Walker {
        root: &*root,
        open: Vec::new(),
    };
    // Those that must be read to know.
    let mut doubtful: Vec<usize> = Vec::new();
    for number in selected.iter_ones() {
        let file = content.file(number);
        let path = file.path();
        let shown = destination.join(path.as_str());
        let parent = match walker.parent_of(&path) {
            Ok(parent) => parent,
            Err((depth, e)) => {
                let at: std::path::PathBuf = path.names().take(depth + 1).collect();
                blocked.push(blockage(inner, &destination.join(at), e)?);
                continue;
            }
        };
        let io = |source| BeginError::Io {
            path: shown.clone(),
            source,
        };
        let entry = match parent {
            Some(dir) => dir.entry(path.file_name()).map_err(io)?,
            None => None,
        };
        let found = match entry {
            None => continue,
            Some(Entry::Symlink) => There::Differs(None),
            Some(Entry::Folder) => {
                blocked.push(Blockage::FolderForFile(shown));
                continue;
            }
            Some(Entry::Special) => {
                blocked.push(Blockage::Special(shown));
                continue;
            }
            Some(Entry::File(identity)) if identity.size != file.size() => There::Differs(Some(Box::new(identity))),
            Some(Entry::File(identity)) => {
                let row = known.at_place(&conn, &path)?;
                match row.filter(|row| row.vouches_for(&identity)) {
                    Some(row) if row.cid == file.cid() => There::Known(row.id),
                    // Cut and hashed alike, another CID means other bytes.
                    Some(row)
                        if row.cid.hash() == file.cid().hash()
                            && profile.is_some()
                            && row.profile.as_deref() == profile =>
                    {
                        There::Differs(Some(Box::new(identity)))
                    }
                    _ => {
                        doubtful.push(number);
                        There::Differs(Some(Box::new(identity)))
                    }
                }
            }
        };
        there.insert(number, found);
    }
    drop(conn);
    if !blocked.is_empty() {
        return Err(BeginError::Blocked(blocked));
    }
    let bytes = doubtful.iter().map(|number| content.file(*number).size()).sum();
    meter.stage(Stage::Checking, bytes, doubtful.len() as u64);
    let look = |&number: &usize| -> Result<(usize, Option<Found>), BeginError> {
        let file = content.file(number);
        let same = read_and_compare(inner, content, file, &*root, meter).map_err(|e| match e {
            Unread::Cancelled => BeginError::Cancelled,
            Unread::Io(source) => BeginError::Io {
                path: destination.join(file.path().as_str()),
                source,
            },
        })?;
        meter.add_file();
        Ok((number, same))
    };
    let looked: Vec<_> = inner
        .pool
        .install(|| doubtful.par_iter().map(look).collect::<Result<_, _>>())?;
    for (number, same) in looked {
        there.extend(same.map(|found| (number, There::Same(Box::new(found)))));
    }
    if !doubtful.is_empty() {
        meter.report();
    }
    Ok(there)
}

fn open_root(inner: &Inner, destination: &Path) -> Result<Option<Box<dyn BackendDir>>, BeginError> {
    match inner.backend.open_resolved(destination) {
        Ok(dir) => Ok(Some(dir)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(match in_the_way(&*inner.backend, destination, &source) {
            Some(blockage) => BeginError::Blocked(vec![blockage]),
            None => BeginError::Io {
                path: destination.to_owned(),
                source,
            },
        }),
    }
}

/// What keeps a folder from being opened at `path`.
fn blockage(inner: &Inner, path: &Path, e: io::Error) -> Result<Blockage, BeginError> {
    match inner.backend.entry(path) {
        Ok(Entry::Symlink) => Ok(Blockage::Symlink(path.to_owned())),
        Ok(Entry::File(_) | Entry::Special) => Ok(Blockage::FileForFolder(path.to_owned())),
        _ => Err(BeginError::Io {
            path: path.to_owned(),
            source: e,
        }),
    }
}

/// Whether the file at `path` below `destination` is the file `cid`, as far as that can be told.
pub(super) fn is_still(inner: &Inner, destination: &Path, path: &PackPath, cid: &Cid) -> bool {
    let Ok(Some(root)) = open_root(inner, destination) else {
        return false;
    };
    let Ok(opened) = open_below(&*root, path) else {
        return false;
    };
    let mut buf = Vec::new();
    let mut read = |offset: u64, len: u32| {
        buf.resize(len as usize, 0);
        opened.read_exact_at(&mut buf, offset).is_ok().then(|| buf.clone())
    };
    if cid.codec() == Codec::Raw {
        let len = opened.identity().map_or(u64::MAX, |identity| identity.size);
        return match u32::try_from(len) {
            Ok(len) if len <= LEAF_MAX => read(0, len).is_some_and(|bytes| cid.verifies(&bytes)),
            _ => false,
        };
    }
    let Ok(Some(known)) = inner.skeleton(cid, None) else {
        return false;
    };
    let mut files = known.content.files();
    let (Some(file), None) = (files.next(), files.next()) else {
        return false;
    };
    file.spans().all(|span| {
        read(span.offset, span.len).is_some_and(|bytes| match span.part {
            Part::Piece(piece) => known.content.map().leaf(piece).cid.verifies(&bytes),
            Part::Node { cid, .. } => inner.carried(&cid).is_ok_and(|carried| carried == bytes),
        })
    })
}

/// Whether what stands at the place of a file of the content is that file by now; its identity, and since when that is certain.
pub(super) fn is_there(inner: &Inner, content: &Content, destination: &Path, number: u32) -> Option<(Identity, i64)> {
    let file = content.file(number as usize);
    let root = open_root(inner, destination).ok()??;
    let entry = open_below(&*root, &file.path()).ok()?.identity().ok()?;
    if entry.size != file.size() {
        return None;
    }
    let found = read_and_compare(inner, content, file, &*root, &Meter::new(&())).ok()??;
    Some((found.identity, found.seen))
}

/// No leaf is longer.
const LEAF_MAX: u32 = 2 << 20;

enum Unread {
    Cancelled,
    Io(io::Error),
}

impl From<io::Error> for Unread {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// Opens the file at `path` below `root`, following no symlink.
fn open_below(root: &dyn BackendDir, path: &PackPath) -> io::Result<Box<dyn BackendFile>> {
    let mut dir: Option<Box<dyn BackendDir>> = None;
    let names: Vec<&str> = path.names().collect();
    for name in &names[..names.len() - 1] {
        dir = Some(dir.as_deref().unwrap_or(root).folder(name)?);
    }
    dir.as_deref().unwrap_or(root).open_file(path.file_name())
}

/// A file that is as the content has it, and since when that is certain.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) identity: Identity,
    pub(super) seen: i64,
}

/// Whether the file below `root` (which is at `destination`) is `file`. A file that cannot be read is not.
pub(super) fn same_bytes(
    inner: &Inner,
    content: &Content,
    file: modswarm_protocol::format::File<'_>,
    root: &dyn BackendDir,
    destination: &Path,
    meter: &Meter<'_>,
) -> Result<Option<Found>, BeginError> {
    match read_and_compare(inner, content, file, root, meter) {
        Ok(found) => Ok(found),
        Err(Unread::Cancelled) => Err(BeginError::Cancelled),
        Err(Unread::Io(e)) => {
            tracing::debug!("{:?} cannot be read: {e}", destination.join(file.path().as_str()));
            Ok(None)
        }
    }
}

/// Whether the file below `root` is `file`, hashed as the content is cut; the file must not change meanwhile.
fn read_and_compare(
    inner: &Inner,
    content: &Content,
    file: modswarm_protocol::format::File<'_>,
    root: &dyn BackendDir,
    meter: &Meter<'_>,
) -> Result<Option<Found>, Unread> {
    let opened = open_below(root, &file.path())?;
    let before = opened.identity()?;
    let mut buf = Vec::new();
    for span in file.spans() {
        if meter.cancelled() {
            return Err(Unread::Cancelled);
        }
        buf.resize(span.len as usize, 0);
        match opened.read_exact_at(&mut buf, span.offset) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(e) => return Err(e.into()),
        }
        let same = match span.part {
            Part::Piece(index) => content.map().leaf(index).cid.verifies(&buf),
            Part::Node { cid, .. } => inner.carried(&cid).is_ok_and(|bytes| bytes == buf),
        };
        meter.add_bytes(u64::from(span.len), u64::from(span.len));
        if !same {
            return Ok(None);
        }
    }
    let seen = inner.backend.now_ns();
    let identity = opened.identity()?;
    let same = identity == before && identity.size == file.size();
    Ok(same.then_some(Found { identity, seen }))
}
