//! What the store's tests share: a home, trees of files, and a loop that downloads from one store into another.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]
#![allow(dead_code, unreachable_pub, reason = "each test file uses some of it")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use modswarm_protocol::{
    Cid,
    format::{Name, PieceSet},
};
use modswarm_store::{
    Conflicts, Download, DownloadSpec, Finished, HomeLock, Observer, Progress, ShareSpec, SharedPack, Store,
    StoreOptions, Warning,
};
use tempfile::TempDir;

pub const NETWORK: [u8; 32] = [7; 32];

/// A home and a place for files, both gone at the end.
pub struct Place {
    pub dir: TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        dunce::canonicalize(self.dir.path()).unwrap().join(name)
    }

    pub fn store(&self, name: &str) -> Store {
        open(&self.path(name))
    }
}

pub fn open(home: &Path) -> Store {
    let lock = HomeLock::try_acquire(home)
        .unwrap()
        .expect("nobody else holds the home");
    let mut options = StoreOptions::default();
    options.hash_threads = 2;
    Store::open(lock, options).unwrap()
}

/// What stays the same of a file as long as it is the same file, whatever it is called; and when it was written.
pub fn number_and_time(path: &Path) -> (u64, std::time::SystemTime) {
    let metadata = fs::metadata(path).unwrap();
    #[cfg(unix)]
    let number = std::os::unix::fs::MetadataExt::ino(&metadata);
    // Windows tells a file's number only through an open handle; when it was made will do.
    #[cfg(windows)]
    let number = std::os::windows::fs::MetadataExt::creation_time(&metadata);
    (number, metadata.modified().unwrap())
}

/// Bytes that a file takes on the disk; nothing where that cannot be told.
pub fn disk_bytes(path: &Path) -> Option<u64> {
    #[cfg(unix)]
    return Some(std::os::unix::fs::MetadataExt::blocks(&fs::metadata(path).unwrap()) * 512);
    #[cfg(windows)]
    {
        use std::os::windows::io::AsRawHandle as _;
        use windows_sys::Win32::Storage::FileSystem as win;
        let file = fs::File::open(path).unwrap();
        // SAFETY: all-zero bytes are a valid value of this plain C struct.
        let mut info: win::FILE_STANDARD_INFO = unsafe { std::mem::zeroed() };
        // SAFETY: the handle is open as long as `file`, and `info` is a valid place of the said size for the answer.
        let ok = unsafe {
            win::GetFileInformationByHandleEx(
                file.as_raw_handle().cast(),
                win::FileStandardInfo,
                std::ptr::from_mut(&mut info).cast(),
                size_of::<win::FILE_STANDARD_INFO>() as u32,
            )
        };
        (ok != 0).then_some(info.AllocationSize as u64)
    }
}

/// Writes `bytes` in the middle of a file.
pub fn write_at(path: &Path, offset: u64, bytes: &[u8]) {
    use std::io::{Seek as _, Write as _};
    let mut file = fs::File::options().write(true).open(path).unwrap();
    file.seek(std::io::SeekFrom::Start(offset)).unwrap();
    file.write_all(bytes).unwrap();
}

/// Reads `len` bytes in the middle of a file.
pub fn read_at(path: &Path, offset: u64, len: usize) -> Vec<u8> {
    use std::io::{Read as _, Seek as _};
    let mut file = fs::File::open(path).unwrap();
    file.seek(std::io::SeekFrom::Start(offset)).unwrap();
    let mut bytes = vec![0; len];
    file.read_exact(&mut bytes).unwrap();
    bytes
}

/// Bytes that look random; the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend_from_slice(&x.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    out.truncate(len);
    out
}

pub fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Takes a file out of where it is, as far as anybody who looks there is concerned. Under Wine the name of a file that is merely deleted stays until the
/// last reader has closed it.
pub fn take_away(path: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let gone = to.join(path.file_name().unwrap());
    fs::rename(path, &gone).unwrap();
    fs::remove_file(gone).unwrap();
}

/// Takes from a home the plain files that say which files and blocks its packs have.
pub fn lose_skeletons(home: &Path) {
    for pack in fs::read_dir(home.join("packs")).unwrap() {
        let _ = fs::remove_file(pack.unwrap().path().join("skeleton"));
    }
}

/// Sets a file's time stamps back, and waits until the change itself is not racy any more.
pub fn settle() {
    // The only wait by time: git's racy rule is about the clock of the file system.
    std::thread::sleep(std::time::Duration::from_millis(40));
}

/// All files with their bytes, and all folders (`None`), by relative path.
pub fn tree(root: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    fn walk(root: &Path, at: &Path, into: &mut BTreeMap<String, Option<Vec<u8>>>) {
        for entry in fs::read_dir(at).unwrap() {
            let entry = entry.unwrap();
            let name = entry
                .path()
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .replace(std::path::MAIN_SEPARATOR, "/");
            if entry.file_type().unwrap().is_dir() {
                into.insert(name, None);
                walk(root, &entry.path(), into);
            } else {
                into.insert(name, Some(fs::read(entry.path()).unwrap()));
            }
        }
    }
    let mut all = BTreeMap::new();
    walk(root, root, &mut all);
    all
}

/// Remembers what a job said.
#[derive(Default)]
pub struct Watch {
    pub warnings: Mutex<Vec<Warning>>,
    pub last: Mutex<Option<Progress>>,
    pub cancel: bool,
}

impl Observer for Watch {
    fn progress(&self, progress: Progress) {
        *self.last.lock().unwrap() = Some(progress);
    }

    fn warning(&self, warning: Warning) {
        self.warnings.lock().unwrap().push(warning);
    }

    fn cancelled(&self) -> bool {
        self.cancel
    }
}

impl Watch {
    pub fn hashed(&self) -> u64 {
        self.last.lock().unwrap().map_or(0, |p| p.bytes_hashed)
    }
}

pub fn share(store: &Store, path: &Path) -> SharedPack {
    store.share(&ShareSpec::new(path, NETWORK), &()).unwrap()
}

/// Hands all nodes of a pack from one store to another, as a node does after fetching them.
pub fn copy_skeleton(from: &Store, to: &Store, pack: &Cid) {
    let skeleton = from.skeleton(pack, None).unwrap().unwrap();
    let head = skeleton.pack.unwrap();
    let mut nodes = vec![(*pack, head.root_bytes), (head.manifest_cid, head.manifest_bytes)];
    for cid in skeleton.content.node_cids() {
        nodes.push((cid, from.node(&cid).unwrap().unwrap()));
    }
    to.put_nodes(&nodes).unwrap();
}

pub fn spec(pack: &SharedPack, destination: &Path) -> DownloadSpec {
    DownloadSpec {
        pack: Some(pack.pack),
        content: pack.content,
        name: Name::new(pack.manifest.name.as_str()).unwrap(),
        destination: destination.to_owned(),
        selection: None,
        conflicts: Conflicts::Refuse,
        network: NETWORK,
    }
}

/// Writes all absent pieces, read from `from`; returns which.
pub fn fetch(from: &Store, download: &Download) -> PieceSet {
    let absent = download.wanted() & !download.have();
    let map = download.content().map().clone();
    for at in absent.iter_ones() {
        let index = map.index(at as u32).unwrap();
        let leaf = map.leaf(index);
        let bytes = from.read_leaf(&leaf.cid, leaf.len).unwrap();
        download.write_piece(index, &bytes).unwrap();
    }
    absent
}

/// Downloads a whole pack; returns the pieces that came from `from`.
pub fn get(from: &Store, to: &Store, pack: &SharedPack, destination: &Path) -> (PieceSet, Finished) {
    copy_skeleton(from, to, &pack.pack);
    let download = to.begin_download(&spec(pack, destination), &()).unwrap();
    download.adopt_local().unwrap();
    let fetched = fetch(from, &download);
    (fetched, download.finish().unwrap())
}

/// Asserts that every leaf of a pack can be read from `store`.
pub fn assert_readable(store: &Store, content: &Cid) {
    let record = store.packs_of(content).unwrap().remove(0);
    let content = store.content(&record).unwrap().unwrap();
    for (_, leaf) in content.map().iter() {
        assert!(leaf.cid.verifies(&store.read_leaf(&leaf.cid, leaf.len).unwrap()));
    }
    assert!(store.have(&record.content).unwrap().unwrap().all());
}

/// A file system that shares blocks, in a file, where this user may make and mount one.
pub struct Loop(pub PathBuf);

impl Loop {
    pub fn mount(place: &Place, kind: &str) -> Option<Self> {
        let image = place.path("image");
        let file = fs::File::create(&image).unwrap();
        file.set_len(400 << 20).unwrap();
        let at = place.path("disk");
        fs::create_dir(&at).unwrap();
        let quiet = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        let made = quiet(Command::new(format!("mkfs.{kind}")).arg("-q").arg(&image));
        let mounted = made && quiet(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at));
        mounted.then_some(Self(at))
    }

    /// Bytes that are taken.
    pub fn used(&self) -> u64 {
        let synced = Command::new("sync").arg("-f").arg(&self.0).status();
        assert!(synced.unwrap().success());
        let output = Command::new("df").args(["-B1", "--output=used"]).arg(&self.0).output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        text.lines().nth(1).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
