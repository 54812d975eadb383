//! Losing the index as well: after power cuts while files of the user's are kept, and in the middle of making a new one.

use modswarm_store::{RebuildError, Rebuilt};

use super::*;

/// What the user made of `changes.pak` before the second version came.
const MINE: &[u8] = b"edited by the user";

fn rebuild(home: &Path, disk: &CrashDisk) -> Result<(Store, Rebuilt), RebuildError> {
    let lock = HomeLock::try_acquire(home)
        .unwrap()
        .expect("nobody else holds the home");
    let mut options = StoreOptions::default();
    options.hash_threads = 1;
    options.backend = Arc::new(disk.clone());
    Store::rebuild(lock, options, &())
}

fn lose_index(world: &World) {
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(world.home().join(format!("index.sqlite{suffix}")));
    }
}

/// A home that has the first version, of which the user edited a file.
fn edited(world: &World) -> (CrashDisk, Vec<u8>) {
    let kept = installed(world);
    kept.0.edit(&Path::new(OUT).join("changes.pak"), MINE);
    kept
}

fn update(store: &Store, world: &World) -> Result<(), String> {
    copy(store, world, &world.two)?;
    let mut keep = destination(&world.two);
    keep.conflicts = Conflicts::KeepMine;
    let download = store.begin_download(&keep, &()).map_err(text)?;
    download.adopt_local().map_err(text)?;
    let map = download.content().map().clone();
    for piece in (download.wanted() & !download.have()).iter_ones() {
        let index = map.index(piece as u32).unwrap();
        let leaf = map.leaf(index);
        let bytes = world.from.read_leaf(&leaf.cid, leaf.len).map_err(text)?;
        download.write_piece(index, &bytes).map_err(text)?;
    }
    download.finish().map_err(text).map(|_| ())
}

fn mine(disk: &CrashDisk) -> bool {
    disk.tree(Path::new(OUT)).get("changes.pak") == Some(&Some(MINE.to_vec()))
}

/// All that the user kept is known as his, and the rest is there and right.
fn check_kept(store: &Store, disk: &CrashDisk, world: &World, done: bool, what: &str) {
    let records = store.packs_of(&world.two.content).unwrap();
    let record = records.first().unwrap_or_else(|| panic!("{what}: forgotten"));
    assert_eq!((record.state, record.kept), (PackState::Whole, 1), "{what}");
    assert_eq!(store.verify_pack(record.id, &()).unwrap().bad, [], "{what}");
    store.collect_garbage(&()).unwrap_or_else(|e| panic!("{what}: {e}"));
    let mut expected = world.tree_two.clone();
    expected.insert("changes.pak".to_owned(), Some(MINE.to_vec()));
    // That a file of the former version was to go, only the index knew.
    let goes = "sub/goes.pak";
    if let Some(left) = disk.tree(Path::new(OUT)).remove(goes).filter(|_| !done) {
        assert!(left == world.tree_one[goes], "{what}");
        expected.insert(goes.to_owned(), left);
    }
    assert_same(disk, Path::new(OUT), &expected, what);
}

#[test]
fn what_was_kept_is_known_after_a_power_cut_that_takes_the_index_along() {
    let world = World::new();
    let kept = edited(&world);
    let disk = world.again(&kept);
    let store = open(&world.home(), Some(&disk));
    update(&store, &world).unwrap();
    drop(store);
    let ops = disk.ops();
    println!("update: {ops} operations");
    for at in 1..=ops + 1 {
        let what = format!("crash at {at} of {ops}");
        let disk = world.again(&kept);
        disk.trouble(Trouble::CrashAt(at));
        let done = match try_open(&world.home(), Some(&disk)) {
            Ok(store) => update(&store, &world).is_ok(),
            Err(_) => false,
        };
        let what = format!("{what} ({})", disk.last());
        let disk = disk.survivor(at);
        lose_index(&world);
        let (store, rebuilt) = rebuild(&world.home(), &disk).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(mine(&disk), "{what}");
        if done {
            assert_eq!(rebuilt.differing, [], "{what}");
            check_kept(&store, &disk, &world, at > ops, &what);
        } else {
            // The user's file stays through whatever the update left, and it can be run again.
            store.collect_garbage(&()).unwrap_or_else(|e| panic!("{what}: {e}"));
            update(&store, &world).unwrap_or_else(|e| panic!("{what}: {e}"));
            check_kept(&store, &disk, &world, false, &what);
        }
    }
}

#[test]
fn a_rebuild_survives_a_power_cut_and_a_failing_disk_at_every_operation() {
    let world = World::new();
    let kept = edited(&world);
    let disk = world.again(&kept);
    let store = open(&world.home(), Some(&disk));
    update(&store, &world).unwrap();
    drop(store);
    let kept = world.keep(&disk);
    let start = || {
        let disk = world.again(&kept);
        lose_index(&world);
        disk
    };
    let disk = start();
    drop(rebuild(&world.home(), &disk).unwrap());
    let (ops, looks) = (disk.ops(), disk.looks());
    println!("rebuild: {ops} operations, {looks} looks");
    let crashes = (1..=ops).map(Trouble::CrashAt);
    let fails = (1..=ops).map(|at| Trouble::FailAt(at, io::ErrorKind::Other));
    let glitches = [Glitch::Error, Glitch::Short, Glitch::ErrorsFromNow];
    let blind = (1..=looks).flat_map(|at| glitches.map(|glitch| Trouble::FailLook(at, glitch)));
    for trouble in crashes.chain(fails).chain(blind) {
        let disk = start();
        disk.trouble(trouble);
        drop(rebuild(&world.home(), &disk));
        let what = format!("{trouble:?} ({})", disk.last());
        disk.trouble(Trouble::None);
        let disk = match trouble {
            Trouble::CrashAt(at) => disk.survivor(at),
            _ => disk,
        };
        lose_index(&world);
        let (store, rebuilt) = rebuild(&world.home(), &disk).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(rebuilt.left, [], "{what}");
        check_kept(&store, &disk, &world, true, &what);
    }
}
