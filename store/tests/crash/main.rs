//! Power cuts and failing disks at every operation, on a disk that loses what was not synced.
//!
//! Each scenario runs once to count its operations; then again and again, with the machine off from the first operation on, from the second, and so
//! on; and with each operation, and each look at the disk, failing by itself. Afterwards a slow model says what may be found: what was acknowledged is there, files under final
//! names are wholly old or wholly new, what the store says it has can be read, and the job can be run again to its end.
//!
//! `MODSWARM_CRASH_SEEDS` says how many outcomes of each crash are tried.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

#[path = "../common/mod.rs"]
mod common;
mod disk;
mod mending;
mod rebuilding;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use common::{NETWORK, copy_skeleton, noise, spec, write};
use disk::{CrashDisk, Glitch, Trouble};
use modswarm_protocol::Cid;
use modswarm_store::{
    Conflicts, Download, DownloadSpec, HomeLock, PackState, ShareSpec, SharedPack, Store, StoreOptions,
};
use tempfile::TempDir;

type Tree = BTreeMap<String, Option<Vec<u8>>>;

/// Where packs are downloaded to, on the disk in memory.
const OUT: &str = "/disk/mods/Pack";

fn seeds() -> u64 {
    std::env::var("MODSWARM_CRASH_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(2)
}

/// A pack in two versions, shared by a store on the real disk.
struct World {
    dir: TempDir,
    from: Store,
    one: SharedPack,
    two: SharedPack,
    tree_one: Tree,
    tree_two: Tree,
}

impl World {
    fn new() -> Self {
        // In memory where there is such a place: the index syncs often.
        let dir = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let from = open(&dir.path().join("from"), None);
        let root = dir.path().join("Pack");
        write(&root.join("same.pak"), &noise(1, 150_000));
        write(&root.join("changes.pak"), &noise(2, 300_000));
        write(&root.join("twin.pak"), &noise(1, 150_000));
        write(&root.join("old.pak"), &noise(3, 60_000));
        write(&root.join("sub/deep/empty"), b"");
        write(&root.join("sub/goes.pak"), &noise(4, 20_000));
        write(&root.join("left.pak"), &noise(6, 9_000));
        write(&root.join("right.pak"), &noise(7, 9_500));
        write(&root.join("was.pak"), &noise(8, 9_800));
        fs::create_dir_all(root.join("hollow")).unwrap();
        let one = share(&from, &root);
        let tree_one = common::tree(&root);
        common::settle();
        let mut changed = noise(2, 300_000);
        changed[120_000] ^= 1;
        write(&root.join("changes.pak"), &changed);
        fs::rename(root.join("old.pak"), root.join("new.pak")).unwrap();
        fs::remove_file(root.join("sub/goes.pak")).unwrap();
        // Two change their names, and a new one takes the name of one that moves.
        fs::rename(root.join("left.pak"), root.join("third.pak")).unwrap();
        fs::rename(root.join("right.pak"), root.join("left.pak")).unwrap();
        fs::rename(root.join("third.pak"), root.join("right.pak")).unwrap();
        fs::rename(root.join("was.pak"), root.join("sub/is.pak")).unwrap();
        write(&root.join("was.pak"), &noise(9, 8_000));
        write(&root.join("sub/fresh.pak"), &noise(5, 40_000));
        let two = share(&from, &root);
        let tree_two = common::tree(&root);
        Self {
            dir,
            from,
            one,
            two,
            tree_one,
            tree_two,
        }
    }

    fn home(&self) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join("home")
    }

    /// An empty home and disk.
    fn start(&self) -> CrashDisk {
        let _ = fs::remove_dir_all(self.home());
        fs::create_dir(self.home()).unwrap();
        CrashDisk::new(&[
            PathBuf::from("/disk/mods"),
            self.home().join("packs"),
            self.home().join("segments"),
        ])
    }

    /// What a finished scenario left, to begin others with.
    fn keep(&self, disk: &CrashDisk) -> (CrashDisk, Vec<u8>) {
        disk.settle();
        (disk.copy(), fs::read(self.home().join("index.sqlite")).unwrap())
    }

    fn again(&self, kept: &(CrashDisk, Vec<u8>)) -> CrashDisk {
        let _ = fs::remove_dir_all(self.home());
        fs::create_dir(self.home()).unwrap();
        fs::write(self.home().join("index.sqlite"), &kept.1).unwrap();
        kept.0.copy()
    }
}

fn open(home: &Path, disk: Option<&CrashDisk>) -> Store {
    try_open(home, disk).unwrap()
}

fn try_open(home: &Path, disk: Option<&CrashDisk>) -> Result<Store, modswarm_store::OpenError> {
    let lock = HomeLock::try_acquire(home)
        .unwrap()
        .expect("nobody else holds the home");
    let mut options = StoreOptions::default();
    options.hash_threads = 1;
    if let Some(disk) = disk {
        options.backend = Arc::new(disk.clone());
    }
    Store::open(lock, options)
}

fn share(store: &Store, path: &Path) -> SharedPack {
    store.share(&ShareSpec::new(path, NETWORK), &()).unwrap()
}

/// What a scenario was told is done.
#[derive(Debug, Default)]
struct Acked {
    pieces: Vec<(Cid, usize)>,
    /// Contents that are whole at [`OUT`].
    finished: Option<Cid>,
    removed: bool,
}

type Step<'a> = &'a dyn Fn(&Store, &World, &mut Acked) -> Result<(), String>;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Downloads a version to [`OUT`], in two halves with a flush between.
fn get(store: &Store, world: &World, pack: &SharedPack, acked: &mut Acked) -> Result<(), String> {
    copy(store, world, pack)?;
    let download = store.begin_download(&destination(pack), &()).map_err(text)?;
    download.adopt_local().map_err(text)?;
    let absent: Vec<usize> = (download.wanted() & !download.have()).iter_ones().collect();
    let (first, second) = absent.split_at(absent.len() / 2);
    write_together(&download, world, first)?;
    store.flush().map_err(text)?;
    acked.pieces.extend(first.iter().map(|piece| (pack.content, *piece)));
    write_together(&download, world, second)?;
    download.finish().map_err(text)?;
    acked.pieces.clear();
    acked.finished = Some(pack.content);
    Ok(())
}

/// Writes pieces a few at a time, as they come from the network: what is side by side is one write.
fn write_together(download: &Download, world: &World, pieces: &[usize]) -> Result<(), String> {
    let map = download.content().map().clone();
    for some in pieces.chunks(3) {
        let blocks = some.iter().map(|piece| {
            let index = map.index(*piece as u32).unwrap();
            let leaf = map.leaf(index);
            let bytes = world.from.read_leaf(&leaf.cid, leaf.len);
            Ok((index, bytes.or_else(|_| old_leaf(world, &leaf.cid)).map_err(text)?))
        });
        let blocks = blocks.collect::<Result<Vec<_>, String>>()?;
        let given: Vec<_> = blocks.iter().map(|(index, bytes)| (*index, &bytes[..])).collect();
        for outcome in download.write_pieces(&given) {
            outcome.map_err(text)?;
        }
    }
    Ok(())
}

/// The folder has moved on to the second version: what the first had alone is cut from memory.
fn old_leaf(world: &World, cid: &Cid) -> Result<bytes::Bytes, modswarm_store::ReadLeafError> {
    let record = world.from.packs_of(&world.two.content).unwrap().remove(0);
    let content = world.from.content(&record).unwrap().unwrap();
    drop(content);
    for bytes in world.tree_one.values().flatten() {
        let profile = modswarm_protocol::format::ChunkerProfile::DEFAULT;
        if let Some(chunk) = profile.chunks(bytes).find(|chunk| cid.verifies(chunk)) {
            return Ok(bytes::Bytes::copy_from_slice(chunk));
        }
    }
    Err(modswarm_store::ReadLeafError::NotHere(*cid))
}

fn copy(store: &Store, world: &World, pack: &SharedPack) -> Result<(), String> {
    // `copy_skeleton` panics on a disk that is off; the nodes are put as it does.
    let skeleton = world
        .from
        .skeleton(&pack.pack, None)
        .map_err(text)?
        .ok_or("no skeleton")?;
    let head = skeleton.pack.ok_or("no pack")?;
    let mut nodes = vec![(pack.pack, head.root_bytes), (head.manifest_cid, head.manifest_bytes)];
    for cid in skeleton.content.node_cids() {
        nodes.push((cid, world.from.node(&cid).map_err(text)?.ok_or("no node")?));
    }
    store.put_nodes(&nodes).map_err(text)
}

fn destination(pack: &SharedPack) -> DownloadSpec {
    DownloadSpec {
        conflicts: Conflicts::Refuse,
        ..spec(pack, Path::new(OUT))
    }
}

/// What must hold whatever happened.
fn check(store: &Store, disk: &CrashDisk, world: &World, acked: &Acked, allowed: &[&Tree], what: &str) {
    let found = disk.tree(Path::new(OUT));
    for (path, bytes) in &found {
        let Some(bytes) = bytes else { continue };
        let right = allowed.iter().any(|tree| tree.get(path) == Some(&Some(bytes.clone())));
        assert!(right, "{what}: {path} ({} bytes) is neither old nor new", bytes.len());
    }
    for pack in [&world.one, &world.two] {
        let Some(have) = store.have(&pack.content).unwrap() else {
            continue;
        };
        let record = store.packs_of(&pack.content).unwrap().remove(0);
        let Some(content) = store.content(&record).unwrap() else {
            continue;
        };
        for (index, leaf) in content.map().iter() {
            let claimed = have[index.as_usize()];
            let read = store.read_leaf(&leaf.cid, leaf.len);
            if let Ok(bytes) = &read {
                assert!(leaf.cid.verifies(bytes), "{what}: wrong bytes");
            } else {
                let promised =
                    acked.finished == Some(pack.content) || acked.pieces.contains(&(pack.content, index.as_usize()));
                assert!(
                    !promised,
                    "{what}: piece {} of {} was acknowledged and is lost",
                    index.get(),
                    pack.content
                );
                // Claimed and gone: it must have been withdrawn by the read.
                assert!(
                    !claimed || !store.have(&pack.content).unwrap().unwrap()[index.as_usize()],
                    "{what}: piece {} of {} is claimed and not there: {read:?}, {:?}",
                    index.get(),
                    pack.content,
                    store.packs_of(&pack.content)
                );
            }
        }
        if acked.finished == Some(pack.content) {
            let record = store.packs_of(&pack.content).unwrap().remove(0);
            assert_eq!(record.state, PackState::Whole, "{what}");
        }
    }
    if acked.removed {
        assert!(store.packs().unwrap().is_empty(), "{what}");
    }
}

/// Compares without printing megabytes.
fn assert_same(disk: &CrashDisk, path: &Path, tree: &Tree, what: &str) {
    let found = disk.tree(path);
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        tree.keys().collect::<Vec<_>>(),
        "{what}"
    );
    for (path, bytes) in tree {
        assert!(found[path] == *bytes, "{what}: {path} is wrong");
    }
}

/// Nothing is left beside the pack's folder, and all is as it should be.
fn check_end(store: &Store, disk: &CrashDisk, pack: &SharedPack, tree: &Tree, what: &str) {
    assert_same(disk, Path::new(OUT), tree, what);
    let beside = disk.tree(Path::new("/disk/mods"));
    let beside: Vec<_> = beside.keys().filter(|path| !path.starts_with("Pack")).collect();
    assert!(beside.is_empty(), "{what}: {beside:?} is left");
    let record = store.packs_of(&pack.content).unwrap().remove(0);
    assert_eq!(store.verify_pack(record.id, &()).unwrap().bad, [], "{what}");
    assert!(store.have(&pack.content).unwrap().unwrap().all(), "{what}");
}

/// A scenario with a crash at every operation, and with every operation failing.
fn every_crash(
    name: &str,
    world: &World,
    kept: &(CrashDisk, Vec<u8>),
    step: Step<'_>,
    allowed: &[&Tree],
    end: &dyn Fn(&Store, &CrashDisk, &str),
) {
    let disk = world.again(kept);
    let mut acked = Acked::default();
    let store = open(&world.home(), Some(&disk));
    step(&store, world, &mut acked).unwrap_or_else(|e| panic!("{name}: {e}"));
    drop(store);
    let (ops, looks) = (disk.ops(), disk.looks());
    println!("{name}: {ops} operations, {} outcomes each", seeds());
    for at in 1..=ops {
        for seed in 0..seeds() {
            let what = format!("{name}, crash at {at} of {ops}, seed {seed}");
            let disk = world.again(kept);
            disk.trouble(Trouble::CrashAt(at));
            let mut acked = Acked::default();
            if let Ok(store) = try_open(&world.home(), Some(&disk)) {
                let _ = step(&store, world, &mut acked);
                drop(store);
            }
            let what = format!("{what} ({})", disk.last());
            let disk = disk.survivor(at * 1000 + seed);
            let store = open(&world.home(), Some(&disk));
            check(&store, &disk, world, &acked, allowed, &what);
            end(&store, &disk, &what);
        }
    }
    for at in 1..=ops {
        for kind in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
            let disk = world.again(kept);
            disk.trouble(Trouble::FailAt(at, kind));
            let mut acked = Acked::default();
            let store = try_open(&world.home(), Some(&disk));
            let what = format!("{name}, {kind:?} at {at} of {ops}");
            let store = match store {
                Ok(store) => {
                    let _ = step(&store, world, &mut acked);
                    store
                }
                Err(_) => open(&world.home(), Some(&disk)),
            };
            // The number of operations varies a little: a late one must not come while the model looks.
            disk.trouble(Trouble::None);
            let what = format!("{what} ({})", disk.last());
            check(&store, &disk, world, &acked, allowed, &what);
            end(&store, &disk, &what);
        }
    }
    every_failing_look(name, world, kept, step, allowed, end, looks);
}

/// A scenario with every look at the disk failing.
fn every_failing_look(
    name: &str,
    world: &World,
    kept: &(CrashDisk, Vec<u8>),
    step: Step<'_>,
    allowed: &[&Tree],
    end: &dyn Fn(&Store, &CrashDisk, &str),
    looks: u64,
) {
    println!("{name}: {looks} looks");
    for at in 1..=looks {
        for glitch in [Glitch::Error, Glitch::Short, Glitch::ErrorsFromNow] {
            let disk = world.again(kept);
            disk.trouble(Trouble::FailLook(at, glitch));
            let mut acked = Acked::default();
            let opened = try_open(&world.home(), Some(&disk));
            if let Ok(store) = &opened {
                let _ = step(store, world, &mut acked);
            }
            disk.trouble(Trouble::None);
            let store = opened.unwrap_or_else(|_| open(&world.home(), Some(&disk)));
            let what = format!("{name}, {glitch:?} at look {at} of {looks} ({})", disk.last());
            // A file that was short for an instant has its pieces withdrawn until somebody reads it again.
            for record in store.packs().unwrap() {
                store
                    .verify_pack(record.id, &())
                    .unwrap_or_else(|e| panic!("{what}: {e}"));
            }
            check(&store, &disk, world, &acked, allowed, &what);
            end(&store, &disk, &what);
        }
    }
}

/// Gets `pack` again until it is whole.
fn ends_with<'a>(world: &'a World, pack: &'a SharedPack, tree: &'a Tree) -> impl Fn(&Store, &CrashDisk, &str) + 'a {
    move |store, disk, what| {
        let mut acked = Acked::default();
        get(store, world, pack, &mut acked).unwrap_or_else(|e| panic!("{what}: it cannot go on: {e}"));
        store.collect_garbage(&()).unwrap_or_else(|e| panic!("{what}: {e}"));
        check_end(store, disk, pack, tree, what);
    }
}

#[test]
fn a_get_survives_a_power_cut_at_every_operation() {
    let world = World::new();
    let disk = world.start();
    drop(open(&world.home(), Some(&disk)));
    let kept = world.keep(&disk);
    every_crash(
        "get",
        &world,
        &kept,
        &|store, world, acked| get(store, world, &world.two, acked),
        &[&world.tree_two],
        &ends_with(&world, &world.two, &world.tree_two),
    );
}

/// A home that has the first version.
fn installed(world: &World) -> (CrashDisk, Vec<u8>) {
    let disk = world.start();
    let store = open(&world.home(), Some(&disk));
    get(&store, world, &world.one, &mut Acked::default()).unwrap();
    drop(store);
    world.keep(&disk)
}

#[test]
fn an_update_survives_a_power_cut_at_every_operation() {
    let world = World::new();
    let kept = installed(&world);
    let disk = world.again(&kept);
    get(
        &open(&world.home(), Some(&disk)),
        &world,
        &world.two,
        &mut Acked::default(),
    )
    .unwrap();
    assert!(disk.has_shared(), "it is tried with blocks that are shared");
    every_crash(
        "update",
        &world,
        &kept,
        &|store, world, acked| get(store, world, &world.two, acked),
        &[&world.tree_one, &world.tree_two],
        &ends_with(&world, &world.two, &world.tree_two),
    );
}

/// Begins a download and leaves it after a few pieces, some of them flushed.
fn begin(store: &Store, world: &World, pack: &SharedPack) -> Result<(), String> {
    copy(store, world, pack)?;
    let download = store.begin_download(&destination(pack), &()).map_err(text)?;
    let absent: Vec<usize> = (download.wanted() & !download.have()).iter_ones().collect();
    let map = download.content().map().clone();
    for piece in absent.iter().step_by(2) {
        let index = map.index(*piece as u32).unwrap();
        let leaf = map.leaf(index);
        let bytes = world
            .from
            .read_leaf(&leaf.cid, leaf.len)
            .or_else(|_| old_leaf(world, &leaf.cid))
            .map_err(text)?;
        download.write_piece(index, &bytes).map_err(text)?;
    }
    store.flush().map_err(text)
}

#[test]
fn going_there_and_back_between_versions_survives_a_power_cut_at_every_operation() {
    let world = World::new();
    let kept = installed(&world);
    every_crash(
        "there and back",
        &world,
        &kept,
        &|store, world, acked| {
            begin(store, world, &world.two)?;
            get(store, world, &world.one, acked)?;
            *acked = Acked::default();
            begin(store, world, &world.two)?;
            get(store, world, &world.two, acked)
        },
        &[&world.tree_one, &world.tree_two],
        &ends_with(&world, &world.two, &world.tree_two),
    );
}

#[test]
fn a_removal_survives_a_power_cut_at_every_operation() {
    let world = World::new();
    let kept = installed(&world);
    every_crash(
        "rm",
        &world,
        &kept,
        &|store, _, acked| {
            let id = store.packs().map_err(text)?[0].id;
            store.remove_pack(id, true).map_err(text)?;
            acked.removed = true;
            Ok(())
        },
        &[&world.tree_one],
        &|store, _, what| {
            for record in store.packs().unwrap() {
                store
                    .remove_pack(record.id, true)
                    .unwrap_or_else(|e| panic!("{what}: {e}"));
            }
            assert!(store.packs().unwrap().is_empty());
        },
    );
}

#[test]
fn a_move_survives_a_power_cut_at_every_operation() {
    let world = World::new();
    let kept = installed(&world);
    let to = Path::new("/disk/mods/elsewhere/Moved");
    every_crash(
        "move",
        &world,
        &kept,
        &|store, _, _| {
            let id = store.packs().map_err(text)?[0].id;
            store.move_pack(id, to, &()).map_err(text).map(|_| ())
        },
        &[&world.tree_one],
        &|store, disk, what| {
            let record = store.packs().unwrap().remove(0);
            if record.path != to {
                store
                    .move_pack(record.id, to, &())
                    .unwrap_or_else(|e| panic!("{what}: {e}"));
            }
            assert_same(disk, to, &world.tree_one, what);
            assert_eq!(disk.tree(Path::new(OUT)), Tree::new(), "{what}");
            let record = store.packs().unwrap().remove(0);
            assert_eq!(store.verify_pack(record.id, &()).unwrap().bad, [], "{what}");
        },
    );
}

#[test]
fn a_share_survives_a_power_cut_at_every_operation() {
    let world = World::new();
    let disk = world.start();
    drop(open(&world.home(), Some(&disk)));
    let kept = world.keep(&disk);
    let folder = world.dir.path().join("Pack");
    every_crash(
        "share",
        &world,
        &kept,
        &|store, world, acked| {
            let shared = store.share(&ShareSpec::new(&folder, NETWORK), &()).map_err(text)?;
            assert_eq!(shared.content, world.two.content);
            acked.finished = Some(shared.content);
            Ok(())
        },
        &[],
        &|store, _, what| {
            let shared = share(store, &folder);
            assert_eq!(shared.content, world.two.content, "{what}");
            assert_eq!(store.verify_pack(shared.id, &()).unwrap().bad, [], "{what}");
            assert!(
                common::tree(&folder) == world.tree_two,
                "{what}: the folder was touched"
            );
        },
    );
}

/// Puts a folder on the real disk, shares it with a copy, and deletes it again.
fn share_copy(store: &Store, folder: &Path, tree: &Tree) -> Result<SharedPack, modswarm_store::ShareError> {
    let _ = fs::remove_dir_all(folder);
    for (path, bytes) in tree {
        match bytes {
            Some(bytes) => write(&folder.join(path), bytes),
            None => fs::create_dir_all(folder.join(path)).unwrap(),
        }
    }
    let mut spec = ShareSpec::new(folder, NETWORK);
    spec.copy = Some(true);
    let shared = store.share(&spec, &());
    fs::remove_dir_all(folder).unwrap();
    shared
}

fn assert_copied(store: &Store, content: &Cid, what: &str) {
    let record = store.packs_of(content).unwrap().remove(0);
    assert!(record.copied, "{what}");
    assert_eq!(store.verify_pack(record.id, &()).unwrap().bad, [], "{what}");
    assert!(store.have(content).unwrap().unwrap().all(), "{what}");
}

#[test]
fn a_copy_survives_a_power_cut_at_every_operation() {
    let world = World::new();
    let disk = world.start();
    let folder = world.dir.path().join("Copied");
    let store = open(&world.home(), Some(&disk));
    share_copy(&store, &folder, &world.tree_one).unwrap();
    drop(store);
    let kept = world.keep(&disk);
    every_crash(
        "copy",
        &world,
        &kept,
        &|store, world, acked| {
            let shared = share_copy(store, &folder, &world.tree_two).map_err(text)?;
            assert_eq!(shared.content, world.two.content);
            acked.finished = Some(shared.content);
            Ok(())
        },
        &[],
        &|store, _, what| {
            assert_copied(store, &world.one.content, what);
            let shared = share_copy(store, &folder, &world.tree_two).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(shared.content, world.two.content, "{what}");
            assert_copied(store, &world.one.content, what);
            assert_copied(store, &world.two.content, what);
        },
    );
}

#[test]
fn writing_segments_anew_survives_a_power_cut_at_every_operation() {
    let world = World::new();
    let disk = world.start();
    let folder = world.dir.path().join("Copied");
    let other = Tree::from([("other.pak".to_owned(), Some(noise(77, 700_000)))]);
    let store = open(&world.home(), Some(&disk));
    let other = share_copy(&store, &world.dir.path().join("Other"), &other).unwrap();
    share_copy(&store, &folder, &world.tree_two).unwrap();
    store.flush().unwrap();
    drop(store);
    let kept = world.keep(&disk);
    every_crash(
        "compaction",
        &world,
        &kept,
        &|store, world, acked| {
            acked.finished = Some(world.two.content);
            let there = store.packs_of(&other.pack).unwrap();
            store.remove_pack(there[0].id, false).map_err(text)?;
            store.collect_garbage(&()).map_err(text).map(|_| ())
        },
        &[],
        &|store, disk, what| {
            if let Some(record) = store.packs_of(&other.pack).unwrap().first() {
                store.remove_pack(record.id, false).unwrap();
            }
            store.collect_garbage(&()).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_copied(store, &world.two.content, what);
            let left = disk.tree(&world.home().join("segments"));
            let bytes: usize = left.values().flatten().map(Vec::len).sum();
            assert!(bytes < 800_000, "{what}: {bytes} bytes in {:?}", left.keys());
        },
    );
}

#[test]
fn clearing_up_survives_a_power_cut_at_every_operation() {
    let world = World::new();
    let disk = world.start();
    let store = open(&world.home(), Some(&disk));
    get(&store, &world, &world.one, &mut Acked::default()).unwrap();
    copy_skeleton(&world.from, &store, &world.two.pack);
    drop(store);
    let conn = rusqlite::Connection::open(world.home().join("index.sqlite")).unwrap();
    conn.execute("UPDATE nodes SET seen = 1", []).unwrap();
    drop(conn);
    let kept = world.keep(&disk);
    every_crash(
        "gc",
        &world,
        &kept,
        &|store, _, _| store.collect_garbage(&()).map_err(text).map(|_| ()),
        &[&world.tree_one],
        &|store, disk, what| {
            store.collect_garbage(&()).unwrap_or_else(|e| panic!("{what}: {e}"));
            check_end(store, disk, &world.one, &world.tree_one, what);
        },
    );
}

#[test]
fn rot_that_nobody_has_read_yet_is_found_by_verify_and_mended() {
    let world = World::new();
    let kept = installed(&world);
    let disk = world.again(&kept);
    let store = open(&world.home(), Some(&disk));
    let id = store.packs().unwrap()[0].id;
    // Nothing that the disk tells of the file shows it.
    disk.flip(&Path::new(OUT).join("changes.pak"), 1_000_000);
    let bad = store.verify_pack(id, &()).unwrap().bad;
    assert_eq!((bad.len(), bad[0].fault), (1, modswarm_store::Fault::Rotten));
    let mut mend = destination(&world.one);
    mend.conflicts = Conflicts::Mend;
    let download = store.begin_download(&mend, &()).unwrap();
    let absent: Vec<usize> = (download.wanted() & !download.have()).iter_ones().collect();
    assert_eq!(absent.len(), 1);
    let index = download.content().map().index(absent[0] as u32).unwrap();
    let bytes = old_leaf(&world, &download.content().map().leaf(index).cid).unwrap();
    download.write_piece(index, &bytes).unwrap();
    download.finish().unwrap();
    check_end(&store, &disk, &world.one, &world.tree_one, "after a repair");
}

#[test]
fn ten_thousand_flipped_bits_are_all_found_and_fetched_again() {
    let world = World::new();
    let kept = installed(&world);
    let disk = world.again(&kept);
    let store = open(&world.home(), Some(&disk));
    let id = store.packs().unwrap()[0].id;
    let files: Vec<(String, u64)> = world
        .tree_one
        .iter()
        .filter_map(|(path, bytes)| Some((path.clone(), bytes.as_ref()?.len() as u64)))
        .filter(|(_, len)| *len > 0)
        .collect();
    let mut dice = disk::Dice(0x5eed);
    let record = store.pack(id).unwrap().unwrap();
    let content = store.content(&record).unwrap().unwrap();
    for flips in 0..10_000 {
        let (path, len) = &files[dice.roll(files.len() as u64) as usize];
        let bit = dice.roll(len * 8);
        disk.flip(&Path::new(OUT).join(path), bit);
        // The leaf that the bit is in is refused, whoever asks for it, unless an equal one lies elsewhere.
        let file = content.files().find(|file| file.path().as_str() == path).unwrap();
        let span = file
            .spans()
            .find(|span| bit / 8 < span.offset + u64::from(span.len))
            .unwrap();
        let modswarm_protocol::format::Part::Piece(piece) = span.part else {
            unreachable!()
        };
        let leaf = content.map().leaf(piece);
        if let Ok(bytes) = store.read_leaf(&leaf.cid, leaf.len) {
            assert!(leaf.cid.verifies(&bytes), "flip {flips} of bit {bit} in {path}");
        }
        if flips % 500 == 499 {
            // And all of them together are found by reading everything, and fetched again.
            let bad = store.verify_pack(id, &()).unwrap().bad;
            let wrong = disk
                .tree(Path::new(OUT))
                .iter()
                .filter(|(path, bytes)| world.tree_one.get(*path) != Some(*bytes))
                .count();
            assert_eq!(bad.len(), wrong, "after flip {flips}");
            let mut again = destination(&world.one);
            again.conflicts = Conflicts::TakeTheirs;
            let download = store.begin_download(&again, &()).unwrap();
            download.adopt_local().unwrap();
            let absent = download.wanted() & !download.have();
            for at in absent.iter_ones() {
                let index = content.map().index(at as u32).unwrap();
                let bytes = old_leaf(&world, &content.map().leaf(index).cid).unwrap();
                download.write_piece(index, &bytes).unwrap();
            }
            download.finish().unwrap();
            assert_same(&disk, Path::new(OUT), &world.tree_one, "after a repair");
        }
    }
}
