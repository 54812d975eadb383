//! The home folder: its lock, its layout, and the plain files from which the index can be rebuilt.
//!
//! ```text
//! <home>/lock                        held by the one process that owns the home
//! <home>/index.sqlite (-wal, -shm)   the index
//! <home>/packs/<pack or content CID>/pack.json, pack.sig
//! <home>/packs/<pack or content CID>/skeleton                its nodes
//! <home>/packs/<pack or content CID>/place-<number>.json     where it lies on this machine, one file each place
//! <home>/packs/<pack or content CID>/choice-<number>.json    which of its files are there, where not all are
//! <home>/segments/<number>.seg       blocks of packs that were shared with a copy
//! ```

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

use modswarm_protocol::{
    Cid,
    format::{MAX_MANIFEST_LEN, Manifest},
};
use serde::{Deserialize, Serialize};

use crate::{
    backend::Backend,
    choice,
    error::HomeError,
    fs,
    packs::{NetworkId, Origin, PackId, PackRecord},
    skeletons,
};

/// The right to use a home. One process at a time has it; it ends with the value, or with the process however that ends.
#[derive(Debug)]
pub struct HomeLock {
    home: PathBuf,
    _file: File,
}

impl HomeLock {
    /// Takes the lock of the home at `home`, making the folder (for its owner only) where there is none. `None` if another process has it.
    ///
    /// # Errors
    /// When the folder or its lock file cannot be made.
    pub fn try_acquire(home: &Path) -> Result<Option<Self>, HomeError> {
        let wrap = |path: &Path| {
            let path = path.to_owned();
            move |source| HomeError { path, source }
        };
        fs::create_private_dir(home).map_err(wrap(home))?;
        let home = dunce::canonicalize(home).map_err(wrap(home))?;
        let path = home.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(wrap(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { home, _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(HomeError { path, source }),
        }
    }

    /// The home, as an absolute path without symlinks.
    pub fn home(&self) -> &Path {
        &self.home
    }

    pub(crate) fn index_path(&self) -> PathBuf {
        self.home.join("index.sqlite")
    }

    /// The folder of plain files of the pack (or bare content) `cid`.
    pub(crate) fn pack_dir(&self, cid: &Cid) -> PathBuf {
        self.home.join("packs").join(cid.to_string())
    }
}

/// Writes a small file so that a crash leaves the old one or the new one. Durable.
pub(crate) fn write_plain(backend: &dyn Backend, path: &Path, bytes: &[u8]) -> io::Result<()> {
    if backend.read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    backend.create_dirs_durably(dir)?;
    let staged = path.with_extension("new");
    let file = backend.create(&staged)?;
    file.write_all_at(bytes, 0)?;
    file.sync()?;
    backend.replace(&staged, path)?;
    backend.sync_dir(dir)
}

/// Reads a small file; one that is longer than `max` bytes is none of the home's.
pub(crate) fn read_plain(backend: &dyn Backend, path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let file = backend.open(path)?;
    let len = file.identity()?.size;
    if len > max {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Deletes a plain file that nothing depends on any more.
pub(crate) fn remove_if_there(backend: &dyn Backend, path: &Path) {
    match backend.remove_file(path) {
        Err(e) if !fs::is_gone(&e) => tracing::warn!("{path:?} cannot be deleted: {e}"),
        _ => {}
    }
}

/// The longest plain file of a place that is read: a path takes four times its bytes at most.
const PLACE_BYTES_MAX: u64 = 1 << 20;

/// Whether the files at a place are all there.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Place {
    Whole,
    Downloading,
}

/// What the home remembers of a pack's place beside the index, so that the index can be rebuilt.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PlaceFile {
    #[serde(skip)]
    number: i64,
    pub(crate) pack: Option<Cid>,
    pub(crate) content: Cid,
    pub(crate) name: String,
    /// The path as text where it is UTF-8, and its bytes in hexadecimal otherwise.
    path: PathText,
    /// Hexadecimal.
    network: String,
    pub(crate) shared: bool,
    pub(crate) place: Place,
    pub(crate) created: u64,
    /// Whether segments of the home hold its blocks.
    #[serde(default)]
    pub(crate) copied: bool,
    /// Whether only some of its files belong there: see `choice`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) chosen: bool,
    /// The index that knew of it was lost, and it was not restored since: see `left`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) left: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PathText {
    Text(String),
    Hex(String),
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl PlaceFile {
    pub(crate) fn new(id: PackId, record: &PackRecord, place: Place) -> Self {
        Self {
            number: id.0,
            pack: record.pack,
            content: record.content,
            name: record.name.clone(),
            path: match record.path.to_str() {
                Some(text) => PathText::Text(text.to_owned()),
                None => PathText::Hex(hex(fs::path_bytes(&record.path))),
            },
            network: hex(&record.network),
            shared: record.origin == Origin::Shared,
            place,
            created: record.created,
            copied: record.copied,
            chosen: matches!(place, Place::Whole) && (record.kept > 0 || record.partial),
            left: false,
        }
    }
}

/// The highest number of a place. Nobody shares so often, and whoever writes a higher one into a home leaves numbers for those that follow.
const NUMBER_MAX: i64 = 1 << 48;

/// The number in the name of a place's file; `None` for other names.
pub(crate) fn number_of_place(name: &str) -> Option<i64> {
    let number = name.strip_prefix("place-")?.strip_suffix(".json")?;
    number.parse().ok().filter(|number| (1..=NUMBER_MAX).contains(number))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok())
        .collect()
}

impl PlaceFile {
    /// Reads the file at `path`, which is called `place-<number>.json`; `None` if it makes no sense.
    pub(crate) fn read(backend: &dyn Backend, path: &Path, number: i64) -> Option<Self> {
        Self::parse(&read_plain(backend, path, PLACE_BYTES_MAX).ok()?, number)
    }

    /// Reads the bytes of such a file.
    pub(crate) fn parse(bytes: &[u8], number: i64) -> Option<Self> {
        let file: Self = serde_json::from_slice(bytes).ok()?;
        (number > 0).then_some(Self { number, ..file })
    }

    pub(crate) fn to_bytes(&self) -> io::Result<Vec<u8>> {
        serde_json::to_vec_pretty(self).map_err(io::Error::other)
    }

    pub(crate) fn number(&self) -> i64 {
        self.number
    }

    /// Where the pack lies; `None` if that is no absolute path.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        let path = match &self.path {
            PathText::Text(text) => PathBuf::from(text),
            PathText::Hex(text) => fs::path_from(unhex(text)?),
        };
        path.is_absolute().then_some(path)
    }

    pub(crate) fn network(&self) -> Option<NetworkId> {
        unhex(&self.network)?.try_into().ok()
    }

    /// Whether it speaks of the same content at the same place in the same network.
    pub(crate) fn is_of(&self, record: &PackRecord) -> bool {
        self.content == record.content
            && self.network() == Some(record.network)
            && self.path().as_deref() == Some(&*record.path)
    }

    pub(crate) fn origin(&self) -> Origin {
        if self.shared { Origin::Shared } else { Origin::Fetched }
    }
}

impl HomeLock {
    /// pack.json of `pack`, parsed and as it stands; `None` if it is not there or is not what the home put there.
    pub(crate) fn read_manifest(&self, backend: &dyn Backend, pack: &Cid) -> Option<(Manifest, Vec<u8>)> {
        let bytes = read_plain(backend, &self.pack_dir(pack).join("pack.json"), MAX_MANIFEST_LEN as u64).ok()?;
        Some((Manifest::from_bytes(&bytes).ok()?, bytes))
    }

    /// Remembers where a pack lies. Durable.
    pub(crate) fn write_place(&self, backend: &dyn Backend, file: &PlaceFile) -> io::Result<()> {
        let path = self.place_path(&file.pack.unwrap_or(file.content), file.number);
        write_plain(backend, &path, &file.to_bytes()?)
    }

    /// Forgets where a pack lies, and the pack's plain files with its last place.
    pub(crate) fn forget_place(&self, backend: &dyn Backend, record: &PackRecord) -> io::Result<()> {
        let cid = record.pack.unwrap_or(record.content);
        let path = self.place_path(&cid, record.id.0);
        match backend.remove_file(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        }
        let dir = self.pack_dir(&cid);
        choice::forget(backend, &dir, record.id.0);
        let mut others = false;
        for (name, _) in backend.read_dir(&dir)? {
            let path = dir.join(&name);
            let Some(number) = number_of_place(&name.to_string_lossy()) else {
                continue;
            };
            // What a lost index knew of the same place was this record's.
            let same = PlaceFile::read(backend, &path, number).is_some_and(|place| place.left && place.is_of(record));
            if !same || backend.remove_file(&path).is_err() {
                others = true;
            } else {
                choice::forget(backend, &dir, number);
            }
        }
        if !others {
            skeletons::remove(backend, self, &cid);
            for name in ["pack.json", "pack.sig"] {
                let _ = backend.remove_file(&dir.join(name));
            }
            let _ = backend.remove_dir(&dir);
        }
        Ok(())
    }

    fn place_path(&self, cid: &Cid, number: i64) -> PathBuf {
        self.pack_dir(cid).join(format!("place-{number}.json"))
    }
}
