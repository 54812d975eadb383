//! A whole home whose index was damaged or edited: the store is opened on it and used.
//!
//! Input: edits, each the number of a table, a row, a column and a value (see [`modswarm_store::fuzzing`]), made in the index of a home that shares a folder,
//! has fetched a pack and its update, and is in the middle of another download. Nothing panics, what is read is verified, and nothing outside the packs' own
//! folders is touched: see [`super::guard`].

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use modswarm_protocol::format::Name;
use modswarm_store::{
    Conflicts, DownloadSpec, HomeLock, PackState, ShareSpec, SharedPack, Store, StoreOptions,
    fuzzing::{TABLES, take_value},
};
use rusqlite::Connection;
use tempfile::TempDir;

use super::{assert_presentable, guard::Guard, input::Input};

const NETWORK: [u8; 32] = [7; 32];
/// Edits of one input that are made.
const EDITS_MAX: usize = 16;

/// Files by path.
type Tree = BTreeMap<PathBuf, Vec<u8>>;

thread_local! {
    static TEMPLATE: RefCell<Option<Template>> = const { RefCell::new(None) };
}

struct Template {
    dir: TempDir,
    index: Vec<u8>,
    files: Tree,
    update: DownloadSpec,
}

pub fn run(data: &[u8]) {
    TEMPLATE.with_borrow_mut(|slot| {
        // A case that failed leaves nothing that can be gone on with.
        let template = slot.take().unwrap_or_else(Template::new);
        template.run(data);
        *slot = Some(template);
    });
}

/// Opens `home`, with a disk that ends at the folder above it.
fn open(home: &Path) -> Result<Store, modswarm_store::OpenError> {
    let lock = HomeLock::try_acquire(home).expect("a folder").expect("nobody else");
    let mut options = StoreOptions::default();
    options.hash_threads = 1;
    options.backend = Arc::new(Guard {
        root: home.parent().expect("a folder").to_owned(),
        home: home.to_owned(),
    });
    Store::open(lock, options)
}

/// Bytes that look random; the same for the same seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |_| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    };
    (0..len).map(step).collect()
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().expect("below something")).expect("folders");
    fs::write(path, bytes).expect("written");
}

/// All files below `root`, by path.
fn tree(root: &Path) -> Tree {
    let mut files = Tree::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = fs::read(&path).expect("readable");
                files.insert(path, bytes);
            }
        }
    }
    files
}

fn spec(pack: &SharedPack, destination: PathBuf, conflicts: Conflicts) -> DownloadSpec {
    DownloadSpec {
        pack: Some(pack.pack),
        content: pack.content,
        name: Name::new(pack.manifest.name.as_str()).expect("a name"),
        destination,
        selection: None,
        conflicts,
        network: NETWORK,
    }
}

/// Fetches `pieces` pieces at most, and ends the download if those were all.
fn get(from: &Store, to: &Store, pack: &SharedPack, spec: &DownloadSpec, pieces: usize) {
    let skeleton = from.skeleton(&pack.pack, None).expect("the index").expect("shared");
    let head = skeleton.pack.expect("a pack");
    let mut nodes = vec![(pack.pack, head.root_bytes), (head.manifest_cid, head.manifest_bytes)];
    let own = skeleton.content.node_cids();
    nodes.extend(own.map(|cid| (cid, from.node(&cid).expect("the index").expect("shared"))));
    to.put_nodes(&nodes).expect("the index");
    let download = to.begin_download(spec, &()).expect("nothing is in the way");
    let absent = download.wanted() & !download.have();
    for at in absent.iter_ones().take(pieces) {
        let index = download.content().map().index(at as u32).expect("a piece");
        let leaf = download.content().map().leaf(index);
        let bytes = from.read_leaf(&leaf.cid, leaf.len).expect("shared");
        download.write_piece(index, &bytes).expect("written");
    }
    if absent.count_ones() <= pieces {
        download.finish().expect("all is there");
    }
}

impl Template {
    fn new() -> Self {
        let dir = TempDir::new().expect("a folder");
        let at = |name: &str| dir.path().canonicalize().expect("there").join(name);
        write(&at("outside/precious"), b"not the store's");
        write(&at("files/own/a.pak"), &noise(1, 5000));
        write(&at("files/own/sub/b.pak"), &noise(2, 900));
        write(&at("from/pack/c.pak"), &noise(3, 700_000));
        write(&at("from/pack/d.pak"), &noise(4, 4000));
        write(&at("from/pack/empty"), b"");
        let (a, b) = (open(&at("a")).expect("new"), open(&at("home")).expect("new"));
        b.share(&ShareSpec::new(at("files/own"), NETWORK), &()).expect("shared");
        let first = a.share(&ShareSpec::new(at("from/pack"), NETWORK), &()).expect("shared");
        for place in ["files/installed", "files/second"] {
            get(&a, &b, &first, &spec(&first, at(place), Conflicts::Refuse), usize::MAX);
        }
        write(&at("from/pack/d.pak"), &noise(5, 4000));
        let second = a.share(&ShareSpec::new(at("from/pack"), NETWORK), &()).expect("shared");
        get(
            &a,
            &b,
            &second,
            &spec(&second, at("files/installed"), Conflicts::TakeTheirs),
            usize::MAX,
        );
        write(&at("from/pack/e.pak"), &noise(6, 800_000));
        let third = a.share(&ShareSpec::new(at("from/pack"), NETWORK), &()).expect("shared");
        get(&a, &b, &third, &spec(&third, at("files/third"), Conflicts::KeepBoth), 2);
        let update = spec(&third, at("files/second"), Conflicts::Refuse);
        b.close().expect("written");
        drop((a, b));
        let index = fs::read(at("home/index.sqlite")).expect("there");
        let files = tree(&at("files"));
        Self {
            dir,
            index,
            files,
            update,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().expect("there").join(name)
    }

    fn run(&self, data: &[u8]) {
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(self.at(&format!("home/index.sqlite{suffix}")));
        }
        let index = self.at("home/index.sqlite");
        fs::write(&index, &self.index).expect("written");
        edit(&index, data);
        match open(&self.at("home")) {
            Ok(store) => {
                self.use_all(&store);
                let _ = store.close();
            }
            Err(e) => assert_presentable(&e, 0),
        }
        let precious = fs::read(self.at("outside/precious")).expect("it is the user's");
        assert_eq!(precious, b"not the store's");
        let now = tree(&self.at("files"));
        for (path, bytes) in &self.files {
            match now.get(path) {
                Some(now) if is_staged(path) || now == bytes => {}
                Some(_) => panic!("{path:?} was written to"),
                // An index may say of any file of a pack that it is to go; then it goes.
                None => write(path, bytes),
            }
        }
        for path in now.keys().filter(|path| !self.files.contains_key(*path)) {
            let _ = fs::remove_file(path);
        }
    }

    fn use_all(&self, store: &Store) {
        let said = |e: &dyn std::error::Error| assert_presentable(e, 4096);
        let packs = match store.packs() {
            Ok(packs) => packs,
            Err(e) => return said(&e),
        };
        for pack in &packs {
            match store.content(pack) {
                Ok(Some(content)) => {
                    for (_, leaf) in content.map().iter() {
                        match store.read_leaf(&leaf.cid, leaf.len) {
                            Ok(bytes) => assert!(leaf.cid.verifies(&bytes)),
                            Err(e) => said(&e),
                        }
                        if let Ok(bytes) = store.read_leaf_in(&leaf.cid, &NETWORK) {
                            assert!(leaf.cid.verifies(&bytes));
                        }
                    }
                }
                Ok(None) => {}
                Err(e) => said(&e),
            }
            let _ = store.have(&pack.content).map_err(|e| said(&e));
            let _ = store.look_again(pack.id).map_err(|e| said(&e));
            let _ = store.set_pinned(pack.id, true).map_err(|e| said(&e));
            if pack.state == PackState::Downloading {
                match store.resume_download(pack.id, &()) {
                    Ok(download) => {
                        let _ = download.plan();
                        let _ = download.adopt_local().map_err(|e| said(&e));
                        let _ = download.finish().map_err(|e| said(&e));
                    }
                    Err(e) => said(&e),
                }
            }
        }
        let _ = store.preview_download(&self.update, &()).map_err(|e| said(&e));
        let _ = store.collect_garbage(&()).map_err(|e| said(&e));
        for pack in &packs {
            let _ = store.verify_pack(pack.id, &()).map_err(|e| said(&e));
            let _ = store.remove_pack(pack.id, false).map_err(|e| said(&e));
        }
        store.take_withdrawn();
    }
}

fn is_staged(path: &Path) -> bool {
    path.components()
        .any(|c| c.as_os_str().to_string_lossy().starts_with(".modswarm-"))
}

fn edit(index: &Path, data: &[u8]) {
    let conn = Connection::open(index).expect("its own index");
    // As the store opens it.
    conn.pragma_update(None, "foreign_keys", false).expect("a setting");
    let mut input = Input(data);
    for _ in 0..EDITS_MAX {
        if input.is_empty() {
            break;
        }
        let table = TABLES[usize::from(input.byte()) % TABLES.len()];
        let (row, column) = (input.byte(), usize::from(input.byte()));
        let value = take_value(&mut input.0);
        let columns: Vec<String> = conn
            .prepare("SELECT name FROM pragma_table_info(?1)")
            .and_then(|mut names| names.query_map([table], |row| row.get(0))?.collect())
            .expect("SQLite tells of tables");
        // A row of another table's values, so that every table has some to edit.
        let _ = conn.execute_batch(match table {
            "former" => "INSERT OR IGNORE INTO former SELECT id FROM files WHERE id % 3 = 0",
            "moves" => "INSERT OR IGNORE INTO moves SELECT id, place, place || x'32', 0 FROM packs WHERE id = 2",
            "renames" => {
                "INSERT OR IGNORE INTO renames SELECT file, pack, number, NULL, x'61', NULL FROM pack_files WHERE pack = 2"
            }
            "kept" => "INSERT OR IGNORE INTO kept SELECT pack, number FROM pack_files WHERE pack = 3",
            _ => "",
        });
        let (first, column) = (&columns[0], &columns[column % columns.len()]);
        // Refused where the value cannot be there: a key twice, or none where one must be.
        let _ = conn.execute(
            &format!(
                "UPDATE {table} SET {column} = ?1 WHERE {first} = (SELECT {first} FROM {table} ORDER BY {first} LIMIT 1 OFFSET \
                 ?2 % (SELECT max(1, count(*)) FROM {table}))"
            ),
            rusqlite::params![value, row],
        );
    }
}
