//! Packs of which the store has a copy of its own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use common::*;
use modswarm_store::{
    HomeLock, Observer, Progress, ReadLeafError, Rebuilt, ShareError, ShareSpec, SharedPack, Shortage, Stage, Store,
    StoreOptions,
};

fn share_copy(store: &Store, path: &Path) -> SharedPack {
    try_copy(store, path, NETWORK).unwrap()
}

fn try_copy(store: &Store, path: &Path, network: [u8; 32]) -> Result<SharedPack, ShareError> {
    let mut spec = ShareSpec::new(path, network);
    spec.copy = Some(true);
    store.share(&spec, &())
}

/// The segments of a home, oldest first.
fn segments(home: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(home.join("segments")) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

fn bytes_of_segments(home: &Path) -> u64 {
    segments(home)
        .iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .sum()
}

/// A pack of some files, in `p`.
fn sample(place: &Place) -> PathBuf {
    let root = place.path("p");
    write(&root.join("large.pak"), &noise(1, 1_500_000));
    write(&root.join("small.pak"), &noise(2, 40_000));
    write(&root.join("twin.pak"), &noise(2, 40_000));
    write(&root.join("sub/empty"), b"");
    root
}

#[test]
fn a_copied_pack_does_without_its_folder() {
    let place = Place::new();
    let root = sample(&place);
    let (a, b) = (place.store("a"), place.store("b"));
    let before = tree(&root);
    let pack = share_copy(&a, &root);
    assert!(a.pack(pack.id).unwrap().unwrap().copied);
    let held = bytes_of_segments(&place.path("a"));
    assert!((1_540_000..1_560_000).contains(&held), "each leaf once: {held}");

    fs::remove_dir_all(&root).unwrap();
    assert!(a.check_pack(pack.id).unwrap().missing.is_empty());
    assert!(a.take_withdrawn().is_empty());
    assert_readable(&a, &pack.content);
    assert!(a.verify_pack(pack.id, &()).unwrap().bad.is_empty());
    get(&a, &b, &pack, &place.path("out"));
    assert_eq!(tree(&place.path("out")), before);

    drop(a);
    let a = open(&place.path("a"));
    assert_readable(&a, &pack.content);
}

#[test]
fn versions_share_what_they_have_in_common_and_the_older_stays_whole() {
    let place = Place::new();
    let root = sample(&place);
    let store = place.store("home");
    let one = share_copy(&store, &root);
    let first = bytes_of_segments(&place.path("home"));
    settle();
    write_at(&root.join("large.pak"), 700_000, b"another byte or two");
    // What is not said again stays as it was.
    let two = share(&store, &root);
    assert_ne!(one.content, two.content);
    assert_eq!(two.manifest.previous, Some(one.pack));
    let grown = bytes_of_segments(&place.path("home")) - first;
    assert!(grown < 300_000, "{grown}");
    assert_readable(&store, &one.content);
    assert_readable(&store, &two.content);

    let again = share(&store, &root);
    assert_eq!(again.pack, two.pack);
    assert_eq!(
        bytes_of_segments(&place.path("home")),
        first + grown,
        "nothing is copied twice"
    );

    // Without the first, what only it had goes; what is left is whole.
    store.remove_pack(one.id, false).unwrap();
    fs::remove_dir_all(&root).unwrap();
    store.collect_garbage(&()).unwrap();
    assert_readable(&store, &two.content);
    store.remove_pack(two.id, false).unwrap();
    assert_eq!(segments(&place.path("home")), Vec::<PathBuf>::new());
}

#[test]
fn what_no_pack_needs_is_given_back_and_the_rest_is_written_anew() {
    let place = Place::new();
    let store = place.store("home");
    let names = ["p", "q", "r"];
    for (at, name) in names.iter().enumerate() {
        write(&place.path(name).join("own.pak"), &noise(at as u64, 900_000));
        write(&place.path(name).join("common.pak"), &noise(99, 200_000));
    }
    let packs: Vec<SharedPack> = names.iter().map(|name| share_copy(&store, &place.path(name))).collect();
    let all = bytes_of_segments(&place.path("home"));
    for name in names {
        fs::remove_dir_all(place.path(name)).unwrap();
    }
    // The first brought what all have.
    store.remove_pack(packs[0].id, false).unwrap();
    let collected = store.collect_garbage(&()).unwrap();
    assert!(collected.leaf_rows > 0 || collected.segment_bytes == 0);
    let left = bytes_of_segments(&place.path("home"));
    assert!(all - left > 850_000, "{all} {left}");
    for pack in &packs[1..] {
        assert_readable(&store, &pack.content);
        assert!(store.verify_pack(pack.id, &()).unwrap().bad.is_empty());
    }
    assert_eq!(store.collect_garbage(&()).unwrap().segment_bytes, 0);
}

#[test]
fn no_longer_copied_it_is_served_from_the_folder_again() {
    let place = Place::new();
    let root = sample(&place);
    let store = place.store("home");
    let pack = share_copy(&store, &root);
    let mut spec = ShareSpec::new(&root, NETWORK);
    spec.copy = Some(false);
    assert_eq!(store.share(&spec, &()).unwrap().id, pack.id);
    assert!(store.collect_garbage(&()).unwrap().segment_bytes > 1_500_000);
    assert_eq!(segments(&place.path("home")), Vec::<PathBuf>::new());
    assert_readable(&store, &pack.content);
}

#[test]
fn networks_do_not_see_each_others_copies() {
    let place = Place::new();
    let root = sample(&place);
    let store = place.store("home");
    let pack = share_copy(&store, &root);
    let record = store.pack(pack.id).unwrap().unwrap();
    let content = store.content(&record).unwrap().unwrap();
    let leaf = content.map().iter().next().unwrap().1;
    fs::remove_dir_all(&root).unwrap();
    assert!(store.read_leaf_in(&leaf.cid, &NETWORK).is_ok());
    let other = store.read_leaf_in(&leaf.cid, &[8; 32]);
    assert!(matches!(other, Err(ReadLeafError::NotHere(_))), "{other:?}");

    // The same files in another network have a copy of their own.
    let root = sample(&place);
    let held = bytes_of_segments(&place.path("home"));
    fs::rename(&root, place.path("q")).unwrap();
    try_copy(&store, &place.path("q"), [8; 32]).unwrap();
    assert!(bytes_of_segments(&place.path("home")) > 2 * held - 10_000);
    store.remove_pack(pack.id, false).unwrap();
    let other = store.read_leaf_in(&leaf.cid, &NETWORK);
    assert!(matches!(other, Err(ReadLeafError::NotHere(_))), "{other:?}");
    assert!(store.read_leaf_in(&leaf.cid, &[8; 32]).is_ok());
}

/// Edits a file when copying begins.
struct Edit(PathBuf);

impl Observer for Edit {
    fn progress(&self, progress: Progress) {
        if progress.stage == Stage::Copying && progress.bytes_done == 0 {
            write_at(&self.0, 5000, b"edited");
        }
    }
}

#[test]
fn a_file_that_changes_before_it_is_copied_ends_the_share() {
    let place = Place::new();
    let root = sample(&place);
    let store = place.store("home");
    let mut spec = ShareSpec::new(&root, NETWORK);
    spec.copy = Some(true);
    let error = store.share(&spec, &Edit(root.join("large.pak"))).unwrap_err();
    assert!(
        matches!(&error, ShareError::Changing(path) if *path == root.join("large.pak")),
        "{error:?}"
    );
    assert!(store.packs().unwrap().is_empty());
    // Nothing was lost, and nothing stays.
    let pack = share_copy(&store, &root);
    fs::remove_dir_all(&root).unwrap();
    assert_readable(&store, &pack.content);
    store.remove_pack(pack.id, false).unwrap();
    store.collect_garbage(&()).unwrap();
    assert_eq!(segments(&place.path("home")), Vec::<PathBuf>::new());
}

#[test]
fn what_rots_in_a_segment_is_copied_again_while_the_folder_has_it_and_withdrawn_after() {
    let place = Place::new();
    let root = sample(&place);
    let store = place.store("home");
    let pack = share_copy(&store, &root);
    let segment = segments(&place.path("home")).remove(0);
    let rot = |store: &Store| {
        let record = store.pack(pack.id).unwrap().unwrap();
        let content = store.content(&record).unwrap().unwrap();
        let leaf = content.map().iter().nth(3).unwrap().1;
        let all = fs::read(&segment).unwrap();
        let bytes = store.read_leaf(&leaf.cid, leaf.len).unwrap();
        for (at, _) in all
            .windows(64)
            .enumerate()
            .filter(|(_, window)| *window == &bytes[..64])
        {
            write_at(&segment, at as u64 + 10, b"rotten");
        }
        leaf
    };
    rot(&store);
    let verified = store.verify_pack(pack.id, &()).unwrap();
    assert!(verified.bad.is_empty() && verified.lost == 0, "{verified:?}");
    // No file of the folder is open any more.
    drop(store);
    fs::remove_dir_all(&root).unwrap();
    let store = open(&place.path("home"));
    assert_readable(&store, &pack.content);

    let leaf = rot(&store);
    let verified = store.verify_pack(pack.id, &()).unwrap();
    assert_eq!((verified.lost, verified.bad.len()), (1, 1), "{verified:?}");
    assert_eq!(verified.bad[0].bytes, u64::from(leaf.len));
    assert!(store.read_leaf(&leaf.cid, leaf.len).is_err());
    assert_eq!(store.have(&pack.content).unwrap().unwrap().count_zeros(), 1);
    assert_eq!(store.take_withdrawn().len(), 1);
}

#[test]
fn a_lost_index_is_made_anew_from_segments_alone() {
    let place = Place::new();
    let root = sample(&place);
    let store = place.store("home");
    let one = share_copy(&store, &root);
    settle();
    write_at(&root.join("small.pak"), 7, b"changed");
    let two = share(&store, &root);
    fs::remove_dir_all(&root).unwrap();
    drop(store);
    // What a copy that was cut off leaves at the end.
    let segment = segments(&place.path("home")).remove(0);
    let len = fs::metadata(&segment).unwrap().len();
    write_at(&segment, len, &noise(5, 1000));
    for name in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(place.path(&format!("home/index.sqlite{name}")));
    }
    let lock = HomeLock::try_acquire(&place.path("home")).unwrap().unwrap();
    let (store, rebuilt) = Store::rebuild(lock, StoreOptions::default(), &()).unwrap();
    assert_eq!(rebuilt.left, []);
    assert_eq!(rebuilt.restored.len(), 2);
    for pack in [&one, &two] {
        assert_readable(&store, &pack.content);
        assert!(store.packs_of(&pack.pack).unwrap()[0].copied);
    }
    // And it goes on.
    write(&place.path("q/new.pak"), &noise(77, 300_000));
    let three = share_copy(&store, &place.path("q"));
    fs::remove_dir_all(place.path("q")).unwrap();
    for pack in [&one, &two, &three] {
        assert_readable(&store, &pack.content);
    }
}

fn lose_index(home: &Path) {
    for name in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(home.join(format!("index.sqlite{name}")));
    }
}

fn rebuild(home: &Path) -> (Store, Rebuilt) {
    let lock = HomeLock::try_acquire(home).unwrap().unwrap();
    Store::rebuild(lock, StoreOptions::default(), &()).unwrap()
}

/// Damages every copy of `bytes` in the home's segments.
fn rot(home: &Path, bytes: &[u8]) {
    let mut any = false;
    for segment in segments(home) {
        let all = fs::read(&segment).unwrap();
        for (at, _) in all
            .windows(bytes.len())
            .enumerate()
            .filter(|(_, window)| *window == bytes)
        {
            write_at(&segment, at as u64 + 5, b"rotten");
            any = true;
        }
    }
    assert!(any);
}

/// A home whose index is lost, with a copied pack whose folder is gone and whose list of files has rotted. Another store has the list.
fn with_a_rotten_list(place: &Place) -> (SharedPack, Store) {
    let root = sample(place);
    let store = place.store("home");
    let pack = share_copy(&store, &root);
    write(&place.path("q/other.pak"), &noise(50, 900_000));
    share_copy(&store, &place.path("q"));
    let other = place.store("other");
    copy_skeleton(&store, &other, &pack.pack);
    let list = store.node(&pack.content).unwrap().unwrap();
    drop(store);
    fs::remove_dir_all(&root).unwrap();
    rot(&place.path("home"), &list);
    lose_skeletons(&place.path("home"));
    lose_index(&place.path("home"));
    (pack, other)
}

#[test]
fn clearing_up_keeps_the_copy_of_a_pack_whose_list_of_files_has_rotted_until_it_is_mended() {
    let place = Place::new();
    let (pack, other) = with_a_rotten_list(&place);
    let (store, rebuilt) = rebuild(&place.path("home"));
    assert_eq!(rebuilt.restored.len(), 1);
    assert_eq!((rebuilt.left.len(), rebuilt.left[0].copied), (1, true));
    let held = bytes_of_segments(&place.path("home"));
    store.collect_garbage(&()).unwrap();
    // Nor does removing another.
    let q = store.packs().unwrap().remove(0);
    store.remove_pack(q.id, false).unwrap();
    store.collect_garbage(&()).unwrap();
    assert_eq!(bytes_of_segments(&place.path("home")), held);
    drop(store);
    // Whoever looks again has as much as the first.
    let (store, rebuilt) = rebuild(&place.path("home"));
    assert_eq!(rebuilt.left.len(), 1);

    // The list is fetched from somebody.
    copy_skeleton(&other, &store, &pack.pack);
    store.collect_garbage(&()).unwrap();
    let record = store.packs_of(&pack.pack).unwrap().remove(0);
    assert!(record.copied && record.pieces_here == record.pieces, "{record:?}");
    assert_readable(&store, &pack.content);
    // From now on it is a pack like others: what it does not need goes, and a lost index brings it back.
    store.collect_garbage(&()).unwrap();
    assert!(bytes_of_segments(&place.path("home")) < held - 850_000);
    drop(store);
    lose_index(&place.path("home"));
    let (store, rebuilt) = rebuild(&place.path("home"));
    assert_eq!((rebuilt.restored.len(), rebuilt.left), (1, Vec::new()));
    assert_readable(&store, &pack.content);
    let id = store.packs_of(&pack.pack).unwrap()[0].id;
    store.remove_pack(id, false).unwrap();
    store.collect_garbage(&()).unwrap();
    assert_eq!(segments(&place.path("home")), Vec::<PathBuf>::new());
}

#[test]
fn a_pack_that_was_left_and_is_given_up_takes_its_copy_along() {
    let place = Place::new();
    let (pack, _other) = with_a_rotten_list(&place);
    let (store, _) = rebuild(&place.path("home"));
    let held = bytes_of_segments(&place.path("home"));
    let given_up = store.forget_left(&pack.pack).unwrap();
    assert_eq!((given_up.len(), given_up[0].content), (1, pack.content));
    assert_eq!(store.forget_left(&pack.pack).unwrap(), []);
    store.collect_garbage(&()).unwrap();
    assert!(bytes_of_segments(&place.path("home")) < held - 1_500_000);
    assert!(!place.path("home/packs").join(pack.pack.to_string()).exists());
}

#[test]
fn an_index_that_was_lost_unnoticed_does_not_let_clearing_up_delete_what_it_knew() {
    let place = Place::new();
    let root = sample(&place);
    let store = place.store("home");
    let pack = share_copy(&store, &root);
    write(&place.path("q/other.pak"), &noise(50, 400_000));
    let in_place = share(&store, &place.path("q"));
    drop(store);
    fs::remove_dir_all(&root).unwrap();
    lose_index(&place.path("home"));

    let store = place.store("home");
    assert!(store.packs().unwrap().is_empty());
    write(&place.path("r/new.pak"), &noise(51, 400_000));
    let new = share_copy(&store, &place.path("r"));
    store.remove_pack(new.id, false).unwrap();
    store.collect_garbage(&()).unwrap();
    drop(store);
    let (store, rebuilt) = rebuild(&place.path("home"));
    assert_eq!((rebuilt.restored.len(), rebuilt.left), (2, Vec::new()));
    assert_readable(&store, &pack.content);
    assert_readable(&store, &in_place.content);
    let held = bytes_of_segments(&place.path("home"));
    store.collect_garbage(&()).unwrap();
    assert!(
        bytes_of_segments(&place.path("home")) < held - 350_000,
        "the new one goes"
    );
}

#[test]
fn a_list_of_files_that_rots_in_a_segment_is_put_there_again_by_verify() {
    let place = Place::new();
    let root = sample(&place);
    let store = place.store("home");
    let pack = share_copy(&store, &root);
    let list = store.node(&pack.content).unwrap().unwrap();
    rot(&place.path("home"), &list);
    assert!(store.verify_pack(pack.id, &()).unwrap().bad.is_empty());
    drop(store);
    fs::remove_dir_all(&root).unwrap();
    lose_index(&place.path("home"));
    let (store, rebuilt) = rebuild(&place.path("home"));
    assert_eq!(rebuilt.left, []);
    assert_readable(&store, &pack.content);
}

#[test]
fn a_home_that_was_moved_has_its_copies_still() {
    let place = Place::new();
    let root = sample(&place);
    let store = place.store("home");
    let pack = share_copy(&store, &root);
    fs::remove_dir_all(&root).unwrap();
    drop(store);
    fs::rename(place.path("home"), place.path("moved")).unwrap();
    assert_readable(&place.store("moved"), &pack.content);
}

#[test]
fn a_segment_that_somebody_deleted_is_withdrawn_and_not_written_to() {
    let place = Place::new();
    let root = sample(&place);
    let store = place.store("home");
    let pack = share_copy(&store, &root);
    fs::remove_dir_all(&root).unwrap();
    drop(store);
    fs::remove_file(segments(&place.path("home")).remove(0)).unwrap();
    let store = open(&place.path("home"));
    let verified = store.verify_pack(pack.id, &()).unwrap();
    assert_eq!(verified.bad.len(), 3);
    let root = sample(&place);
    let again = share(&store, &root);
    assert_eq!(again.id, pack.id);
    fs::remove_dir_all(&root).unwrap();
    assert_readable(&store, &pack.content);
}

fn open_with_quota(home: &Path, quota: u64) -> Store {
    let lock = HomeLock::try_acquire(home).unwrap().unwrap();
    let mut options = StoreOptions::default();
    options.quota = Some(quota);
    Store::open(lock, options).unwrap()
}

fn is_over_quota<T>(outcome: &Result<T, ShareError>) -> bool {
    matches!(outcome, Err(ShareError::NotAllowed(Shortage::Quota { .. })))
}

#[test]
fn copies_count_towards_the_quota() {
    let place = Place::new();
    let root = sample(&place);
    share_copy(&place.store("free"), &root);
    let takes = bytes_of_segments(&place.path("free"));

    let store = open_with_quota(&place.path("strict"), takes - 1);
    assert!(is_over_quota(&try_copy(&store, &root, NETWORK)));
    assert!(store.packs().unwrap().is_empty());
    // In place it takes no room.
    share(&store, &root);

    let store = open_with_quota(&place.path("home"), takes);
    share_copy(&store, &root);
    // And nothing of another one.
    write(&place.path("q/one.pak"), b"one byte and some more");
    assert!(is_over_quota(&try_copy(&store, &place.path("q"), NETWORK)));
}

#[test]
fn many_leaves_fill_more_than_one_segment() {
    let place = Place::new();
    let root = place.path("p");
    // Three hundred megabytes that look random, quickly.
    let block = noise(1, 1 << 20);
    let mut bytes = Vec::with_capacity(300 << 20);
    for at in 0..300_u32 {
        bytes.extend(block.iter().map(|byte| byte ^ at as u8));
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&at.to_le_bytes());
    }
    write(&root.join("huge.pak"), &bytes);
    drop(bytes);
    let store = place.store("home");
    let pack = share_copy(&store, &root);
    let sizes: Vec<u64> = segments(&place.path("home"))
        .iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .collect();
    fs::remove_dir_all(&root).unwrap();
    assert!(store.verify_pack(pack.id, &()).unwrap().bad.is_empty());
    assert!(sizes.iter().all(|size| *size <= 256 << 20), "{sizes:?}");
}

/// Needs root, mkfs and a kernel that has the file system; elsewhere it skips itself.
fn blocks_are_shared_on(kind: &str) {
    let place = Place::new();
    let Some(disk) = Loop::mount(&place, kind) else {
        println!("skipped: this user cannot make and mount {kind}");
        return;
    };
    let root = disk.0.join("p");
    write(&root.join("one.pak"), &noise(1, 20_000_003));
    write(&root.join("two.pak"), &noise(2, 10_000_000));
    write(&root.join("small.pak"), &noise(3, 50_000));
    let before = disk.used();
    let store = open(&disk.0.join("home"));
    let pack = share_copy(&store, &root);
    let taken = disk.used() - before;
    assert!(taken < 8_000_000, "{taken} bytes for a copy of 30 MB");

    // What is shared is counted, and refused, like what is copied: it takes room once the user changes his files.
    let counted = bytes_of_segments(&disk.0.join("home"));
    assert!((30_000_000..30_200_000).contains(&counted), "{counted}");
    let strict = open_with_quota(&disk.0.join("strict"), 25_000_000);
    assert!(is_over_quota(&try_copy(&strict, &root, NETWORK)));
    assert_eq!(segments(&disk.0.join("strict")), Vec::<PathBuf>::new());
    drop(strict);
    let strict = open_with_quota(&disk.0.join("strict"), counted + 100_000);
    share_copy(&strict, &root);
    assert!(bytes_of_segments(&disk.0.join("strict")) <= counted + 100_000);
    drop(strict);

    // The user's changes are his own.
    settle();
    write_at(&root.join("one.pak"), 9_000_000, &noise(9, 5_000_000));
    fs::remove_file(root.join("two.pak")).unwrap();
    assert_readable(&store, &pack.content);
    assert!(store.verify_pack(pack.id, &()).unwrap().bad.is_empty());

    // A version that shares the clone's leaves keeps what it needs of it when the first goes.
    let two = share(&store, &root);
    store.remove_pack(pack.id, false).unwrap();
    fs::remove_dir_all(&root).unwrap();
    store.collect_garbage(&()).unwrap();
    assert_readable(&store, &two.content);
    drop(store);

    for name in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(disk.0.join(format!("home/index.sqlite{name}")));
    }
    let lock = HomeLock::try_acquire(&disk.0.join("home")).unwrap().unwrap();
    let (store, rebuilt) = Store::rebuild(lock, StoreOptions::default(), &()).unwrap();
    assert_eq!(rebuilt.left, []);
    assert_readable(&store, &two.content);
}

#[test]
fn blocks_are_shared_on_btrfs() {
    blocks_are_shared_on("btrfs");
}

#[test]
fn blocks_are_shared_on_xfs() {
    blocks_are_shared_on("xfs");
}

#[test]
fn a_lost_index_is_made_anew_from_what_lies_behind_damage_in_a_segment() {
    let place = Place::new();
    let root = sample(&place);
    let store = place.store("home");
    let pack = share_copy(&store, &root);
    drop(store);
    fs::remove_dir_all(&root).unwrap();
    // The header of the first record: nothing says any more where the second begins.
    let first = segments(&place.path("home")).remove(0);
    write_at(&first, 48, &[0xff; 40]);
    lose_index(&place.path("home"));
    let (store, rebuilt) = rebuild(&place.path("home"));
    assert_eq!((rebuilt.restored.len(), rebuilt.left), (1, Vec::new()));
    let record = store.packs_of(&pack.pack).unwrap().remove(0);
    assert_eq!(record.pieces - record.pieces_here, 1, "{record:?}");
    // Clearing up does not take it for dead either.
    store.collect_garbage(&()).unwrap();
    let content = store.content(&record).unwrap().unwrap();
    let lost = content
        .map()
        .iter()
        .filter(|(_, leaf)| store.read_leaf(&leaf.cid, leaf.len).is_err());
    assert_eq!(lost.count(), 1);
}
