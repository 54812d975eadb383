//! The skeletons of packs as plain files of the home: what a lost index knew of a pack whose folder does not say it any more.
//!
//! A folder whose files are all as the pack has them gives the same blocks when it is cut again. One with files that were edited, kept, left out or lost does
//! not, nor does one that another program cut. So every pack that stands somewhere has its nodes, pack.json and pack.sig in `packs/<CID>/skeleton`, spelled as
//! the records of a segment (see [`crate::segments::record`]) of no network. Nothing in it is believed before it is hashed. Foreign packs whose nodes carry
//! the files' bytes have none: it would be a second copy.

use std::io;

use bytes::Bytes;
use modswarm_protocol::{
    Cid,
    format::{Content, MAX_BLOCK_LEN},
};

use crate::{
    backend::{Backend, BackendFile, Entry},
    error::IndexError,
    home::{self, HomeLock, number_of_place},
    index::rows,
    packs::PackRecord,
    segments::record::{self, FILE_HEADER, Kind, Records},
    store::Inner,
};

/// The file in the folder of a pack's plain files.
const NAME: &str = "skeleton";
/// Bytes written at once.
const WRITE_MAX: usize = 1 << 20;
/// Nodes put into the index in one transaction.
const NODES_MAX: usize = 1024;

/// Whether the skeleton of the pack (or bare content) `cid` is kept.
fn is_kept(backend: &dyn Backend, lock: &HomeLock, cid: &Cid) -> bool {
    let entry = backend.entry(&lock.pack_dir(cid).join(NAME));
    matches!(entry, Ok(Entry::File(now)) if now.size > FILE_HEADER)
}

/// Keeps the skeleton of the pack (or bare content) `cid`, unless that was done before. Durable.
pub(crate) fn keep<'a>(
    backend: &dyn Backend,
    lock: &HomeLock,
    cid: &Cid,
    blocks: impl IntoIterator<Item = &'a (Cid, Bytes)>,
) -> io::Result<()> {
    if is_kept(backend, lock, cid) {
        return Ok(());
    }
    let mut writer = Writer::new(backend, lock, cid)?;
    blocks
        .into_iter()
        .try_for_each(|(cid, bytes)| writer.push(cid, bytes))?;
    writer.finish(backend, lock, cid)
}

/// Keeps the skeleton of a pack whose nodes are in the index, unless that was done before. Durable.
pub(crate) fn keep_known(inner: &Inner, pack: Option<&Cid>, content: &Content) -> io::Result<()> {
    let (backend, lock) = (&*inner.backend, &inner.lock);
    let content_cid = content.cid();
    let cid = pack.unwrap_or(&content_cid);
    if !content.carriers().is_empty() || is_kept(backend, lock, cid) {
        return Ok(());
    }
    let nodes = crate::segments::node_cids(inner, pack, content).map_err(io::Error::other)?;
    let mut writer = Writer::new(backend, lock, cid)?;
    let conn = inner.index.reader().map_err(io::Error::other)?;
    for node in nodes {
        if let Some(bytes) = rows::node(&conn, &node).map_err(io::Error::other)? {
            writer.push(&node, &bytes)?;
        }
    }
    writer.finish(backend, lock, cid)
}

/// A skeleton that is being written beside its name.
struct Writer {
    file: Box<dyn BackendFile>,
    /// Bytes that are written.
    at: u64,
    pending: Vec<u8>,
}

impl Writer {
    fn new(backend: &dyn Backend, lock: &HomeLock, cid: &Cid) -> io::Result<Self> {
        let dir = lock.pack_dir(cid);
        backend.create_dirs_durably(&dir)?;
        Ok(Self {
            file: backend.create(&dir.join(NAME).with_extension("new"))?,
            at: 0,
            pending: record::file_header(&[0; 32]),
        })
    }

    fn push(&mut self, cid: &Cid, bytes: &[u8]) -> io::Result<()> {
        let start = self.at + self.pending.len() as u64;
        let (header, _) = record::header(Kind::Node, cid, bytes.len() as u64, start);
        self.pending.extend_from_slice(&header);
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= WRITE_MAX {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.pending, self.at)?;
        self.at += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    fn finish(mut self, backend: &dyn Backend, lock: &HomeLock, cid: &Cid) -> io::Result<()> {
        self.write()?;
        self.file.sync()?;
        let path = lock.pack_dir(cid).join(NAME);
        backend.replace(&path.with_extension("new"), &path)?;
        backend.sync_dir(&lock.pack_dir(cid))
    }
}

/// Puts what is whole of a kept skeleton into the index; what is not there or has rotted is left out.
pub(crate) fn put_back(inner: &Inner, cid: &Cid) -> Result<(), IndexError> {
    let path = inner.lock.pack_dir(cid).join(NAME);
    let opened = inner.backend.open(&path);
    let Ok((now, file)) = opened.and_then(|file| Ok((file.identity()?, file))) else {
        return Ok(());
    };
    if !matches!(record::read_file_header(&*file), Ok(Some(_))) {
        return Ok(());
    }
    let mut nodes = Vec::new();
    for record in Records::new(&*file, now.size).map_while(Result::ok) {
        debug_assert!(record.kind == Kind::Clone || record.len <= MAX_BLOCK_LEN as u64);
        if record.kind != Kind::Node {
            continue;
        }
        let mut bytes = vec![0; record.len as usize];
        if file.read_exact_at(&mut bytes, record.at).is_ok() && record.cid.verifies(&bytes) {
            nodes.push((record.cid, Bytes::from(bytes)));
        }
        if nodes.len() >= NODES_MAX {
            put(inner, &mut nodes)?;
        }
    }
    put(inner, &mut nodes)
}

fn put(inner: &Inner, nodes: &mut Vec<(Cid, Bytes)>) -> Result<(), IndexError> {
    let nodes = std::mem::take(nodes);
    if nodes.is_empty() {
        return Ok(());
    }
    inner.index.writer.run(move |tx| rows::put_nodes(tx, &nodes))
}

/// Deletes the skeleton of a pack that stands at no other place than `record`'s, where another version stands now: what survives of it is the newer one's as
/// well.
pub(crate) fn retire(backend: &dyn Backend, lock: &HomeLock, record: &PackRecord) {
    if record.copied {
        return;
    }
    let cid = record.pack.unwrap_or(record.content);
    let dir = lock.pack_dir(&cid);
    let names = backend.read_dir(&dir).unwrap_or_default();
    let mut numbers = names.iter().filter_map(|(name, _)| number_of_place(name.to_str()?));
    if numbers.all(|number| number == record.id.0) {
        home::remove_if_there(backend, &dir.join(NAME));
    }
}

/// Deletes the skeleton in the folder of a pack's plain files.
pub(crate) fn remove(backend: &dyn Backend, lock: &HomeLock, cid: &Cid) {
    home::remove_if_there(backend, &lock.pack_dir(cid).join(NAME));
}
