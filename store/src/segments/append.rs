//! Writing to the newest segment of a network, and beginning the next.

use std::{collections::HashSet, io, path::PathBuf};

use modswarm_protocol::Cid;

use super::{
    Alone, SegmentError, folder, number_of,
    record::{ALIGN, FILE_HEADER, Kind, Record, file_header, header, read_file_header},
};
use crate::{
    backend::{BackendDir, BackendFile},
    fs,
    index::rows::{self, LeafRow, segments as table},
    packs::NetworkId,
    store::Inner,
};

/// A segment takes nothing more once it has so many bytes; a file that is cloned may make one larger.
pub(super) const SEGMENT_MAX: u64 = 256 << 20;

/// Appends to the segments of one network. What was appended counts once [`Appender::commit`] has returned.
pub(super) struct Appender<'a> {
    inner: &'a Inner,
    network: NetworkId,
    folder: PathBuf,
    dir: Box<dyn BackendDir>,
    /// Segments that are about to be deleted.
    avoid: HashSet<i64>,
    current: Option<Current>,
    /// Whether a name was made since the last commit.
    made: bool,
}

/// The segment that is written to.
struct Current {
    row: i64,
    name: String,
    file: Box<dyn BackendFile>,
    len: u64,
    /// Rows of leaves to commit.
    leaves: Vec<LeafRow>,
}

impl<'a> Appender<'a> {
    pub(super) fn new(
        inner: &'a Inner,
        _alone: &Alone<'_>,
        network: NetworkId,
        avoid: HashSet<i64>,
    ) -> Result<Self, SegmentError> {
        let folder = folder(inner);
        let failed = |source| SegmentError::Io {
            path: folder.clone(),
            source,
        };
        inner.backend.create_dirs_durably(&folder).map_err(failed)?;
        let dir = inner.backend.open_dir(&folder).map_err(failed)?;
        Ok(Self {
            inner,
            network,
            folder,
            dir,
            avoid,
            current: None,
            made: false,
        })
    }

    fn failed(&self, name: &str) -> impl Fn(io::Error) -> SegmentError + use<> {
        let path = self.folder.join(name);
        move |source| SegmentError::Io {
            path: path.clone(),
            source,
        }
    }

    /// Makes sure that the current segment takes a record of `len` bytes with its header.
    fn make_room(&mut self, len: u64) -> Result<(), SegmentError> {
        if let Some(current) = &self.current
            && current.len > FILE_HEADER
            && current.len + len > SEGMENT_MAX
        {
            self.commit()?;
            self.current = None;
        }
        if self.current.is_none() {
            self.current = match self.reopen(len)? {
                Some(current) => Some(current),
                None => Some(self.begin()?),
            };
        }
        Ok(())
    }

    /// The newest segment, if it takes `len` bytes more.
    fn reopen(&self, len: u64) -> Result<Option<Current>, SegmentError> {
        let newest = table::all(&*self.inner.index.reader()?)?
            .into_iter()
            .rfind(|segment| segment.network == self.network && !segment.dying && !self.avoid.contains(&segment.file));
        let Some(segment) = newest.filter(|segment| segment.len >= FILE_HEADER && segment.len + len <= SEGMENT_MAX)
        else {
            return Ok(None);
        };
        let opened = self.dir.open_file_rw(&segment.name).and_then(|file| {
            let ours = read_file_header(&*file)? == Some(self.network);
            Ok((ours && file.identity()?.size >= segment.len, file))
        });
        match opened {
            Ok((true, file)) => {
                // What a copy that was cut off has left.
                file.set_len(segment.len).map_err(self.failed(&segment.name))?;
                Ok(Some(Current {
                    row: segment.file,
                    name: segment.name,
                    file,
                    len: segment.len,
                    leaves: Vec::new(),
                }))
            }
            // Somebody has damaged or deleted it: nothing more is put there.
            Ok((false, _)) => Ok(None),
            Err(e) if fs::is_gone(&e) => Ok(None),
            Err(e) => Err(self.failed(&segment.name)(e)),
        }
    }

    fn begin(&mut self) -> Result<Current, SegmentError> {
        let rows = table::all(&*self.inner.index.reader()?)?;
        let there = self.inner.backend.read_dir(&self.folder).map_err(self.failed(""))?;
        let numbers = rows.iter().filter_map(|segment| number_of(&segment.name));
        let used = numbers.chain(there.iter().filter_map(|(name, _)| number_of(name.to_str()?)));
        let name = format!("{}.seg", used.max().map_or(1, |last| last.saturating_add(1)));
        let (root, network) = (fs::path_bytes(&self.folder).to_owned(), self.network);
        let to_insert = name.clone();
        // The row comes first: a file without one would never be deleted.
        let row = self.inner.index.writer.run(move |tx| {
            let root = rows::root_id(tx, &root)?;
            table::insert(tx, root, &to_insert, &network)
        })?;
        let file = self.dir.create_file(&name).map_err(self.failed(&name))?;
        file.write_all_at(&file_header(&self.network), 0)
            .map_err(self.failed(&name))?;
        self.made = true;
        Ok(Current {
            row,
            name,
            file,
            len: FILE_HEADER,
            leaves: Vec::new(),
        })
    }

    /// Takes a place for a leaf or node of `len` bytes: its header, and where it lies. The caller writes it with [`Appender::write`].
    pub(super) fn reserve(&mut self, kind: Kind, cid: &Cid, len: u32) -> Result<(Vec<u8>, Record), SegmentError> {
        self.make_room(u64::from(len) + ALIGN)?;
        let current = self.current.as_mut().expect("room was made");
        let (bytes, record) = header(kind, cid, u64::from(len), current.len);
        current.len = record.end();
        if kind == Kind::Leaf {
            current.leaves.push(LeafRow {
                prefix: cid.prefix() as i64,
                file: current.row,
                offset: record.at,
                len,
            });
        }
        Ok((bytes, record))
    }

    /// Whether a record of `len` bytes would begin another segment.
    pub(super) fn is_full_for(&self, len: u32) -> bool {
        let current = self.current.as_ref();
        current.is_some_and(|current| current.len + u64::from(len) + ALIGN > SEGMENT_MAX)
    }

    /// Writes a record whose place was taken: its header and payload in one.
    pub(super) fn write(&self, record: &Record, bytes: &[u8]) -> Result<(), SegmentError> {
        let current = self.current.as_ref().expect("a place was taken in it");
        let start = record.end() - bytes.len() as u64;
        current
            .file
            .write_all_at(bytes, start)
            .map_err(self.failed(&current.name))
    }

    /// Takes a place for a block and writes it.
    pub(super) fn append(&mut self, kind: Kind, cid: &Cid, payload: &[u8]) -> Result<(), SegmentError> {
        let (mut bytes, record) = self.reserve(kind, cid, payload.len() as u32)?;
        bytes.extend_from_slice(payload);
        self.write(&record, &bytes)
    }

    /// Shares the blocks of the file `from`, of `len` bytes and this CID, with the segment; `None` where the file system cannot. What came is to be
    /// verified, and named with [`Appender::add_leaves`].
    pub(super) fn clone_file(
        &mut self,
        from: &std::path::Path,
        cid: &Cid,
        len: u64,
    ) -> Result<Option<Record>, SegmentError> {
        self.make_room(len + 2 * ALIGN)?;
        let current = self.current.as_mut().expect("room was made");
        let (bytes, record) = header(Kind::Clone, cid, len, current.len);
        let path = self.folder.join(&current.name);
        let failed = |source| SegmentError::Io {
            path: path.clone(),
            source,
        };
        current.file.write_all_at(&bytes, current.len).map_err(failed)?;
        current.file.set_len(record.at).map_err(failed)?;
        let cloned = self.inner.backend.share_blocks(from, &path, record.at, len);
        if !cloned.map_err(failed)? {
            current.file.set_len(current.len).map_err(failed)?;
            return Ok(None);
        }
        current.len = record.end();
        Ok(Some(record))
    }

    /// Names leaves that lie in the current segment.
    pub(super) fn add_leaves(&mut self, leaves: impl IntoIterator<Item = (Cid, u64, u32)>) {
        let current = self.current.as_mut().expect("they are in it");
        let row = current.row;
        current
            .leaves
            .extend(leaves.into_iter().map(|(cid, offset, len)| LeafRow {
                prefix: cid.prefix() as i64,
                file: row,
                offset,
                len,
            }));
    }

    /// Fills `buf` from the current segment.
    pub(super) fn read(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        let current = self.current.as_ref().ok_or(io::ErrorKind::NotFound)?;
        current.file.read_exact_at(buf, at)
    }

    /// Makes what was appended durable, then known.
    pub(super) fn commit(&mut self) -> Result<(), SegmentError> {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        let path = self.folder.join(&current.name);
        let failed = |source| SegmentError::Io {
            path: path.clone(),
            source,
        };
        current.file.sync().map_err(failed)?;
        if std::mem::take(&mut self.made)
            && let Err(e) = self.dir.sync()
        {
            self.made = true;
            return Err(failed(e));
        }
        let mut leaves = std::mem::take(&mut current.leaves);
        leaves.sort_unstable();
        let (row, len) = (current.row, current.len);
        self.inner.index.writer.run(move |tx| {
            rows::insert_leaves(tx, &leaves)?;
            table::set_len(tx, row, len)
        })?;
        Ok(())
    }
}
