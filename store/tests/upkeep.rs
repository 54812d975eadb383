//! Verifying, clearing up and moving packs.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::{
    fs,
    time::{Duration, SystemTime},
};

use common::*;
use modswarm_store::{Conflicts, Fault, MoveError, Store, Verified};

/// A folder with files of several sizes.
fn fill(place: &Place, name: &str) {
    let root = place.path(name);
    write(&root.join("big.pak"), &noise(1, 3_000_000));
    write(&root.join("dir/small.pak"), &noise(2, 20_000));
    write(&root.join("dir/empty"), b"");
    fs::create_dir_all(root.join("hollow")).unwrap();
}

/// Flips a bit of a file, and puts its time stamp back: rot.
fn rot(path: &std::path::Path, at: u64) {
    let before = fs::metadata(path).unwrap().modified().unwrap();
    let byte = read_at(path, at, 1)[0];
    write_at(path, at, &[byte ^ 4]);
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_modified(before).unwrap();
}

fn faults(verified: &Verified) -> Vec<(&str, Fault)> {
    verified.bad.iter().map(|bad| (bad.path.as_str(), bad.fault)).collect()
}

fn bits(store: &Store, content: &modswarm_protocol::Cid) -> (usize, usize) {
    let have = store.have(content).unwrap().unwrap();
    (have.count_ones(), have.len())
}

#[test]
fn verify_finds_rot_edits_and_loss_and_withdraws_only_what_is_wrong() {
    let place = Place::new();
    fill(&place, "p");
    let store = place.store("home");
    let pack = share(&store, &place.path("p"));
    settle();
    assert_eq!(store.verify_pack(pack.id, &()).unwrap().bad, []);

    rot(&place.path("p/big.pak"), 1_500_000);
    fs::remove_file(place.path("p/dir/small.pak")).unwrap();
    let verified = store.verify_pack(pack.id, &()).unwrap();
    assert_eq!(
        faults(&verified),
        [("big.pak", Fault::Rotten), ("dir/small.pak", Fault::Missing)]
    );
    let lost_of_big = verified.bad[0].bytes;
    assert!(lost_of_big > 0 && lost_of_big <= 128 * 1024, "{lost_of_big}");
    let (here, all) = bits(&store, &pack.content);
    assert_eq!(here as u64 + verified.lost, all as u64);
    let withdrawn = store.take_withdrawn();
    assert_eq!(withdrawn[0].pieces.count_ones() as u64, verified.lost);

    // A user's edit is told from rot by its time stamp.
    write(&place.path("p/big.pak"), &noise(9, 3_000_000));
    let verified = store.verify_pack(pack.id, &()).unwrap();
    assert_eq!(faults(&verified)[0], ("big.pak", Fault::Changed));
    assert_eq!(bits(&store, &pack.content).0, 0);

    // Everything back as it was: all of it is had again.
    fill(&place, "p");
    let verified = store.verify_pack(pack.id, &()).unwrap();
    assert_eq!(verified.bad, []);
    assert_eq!(verified.restored, all as u64);
    assert_readable(&store, &pack.content);
}

#[test]
fn what_verify_finds_rotten_is_fetched_again_and_nothing_else() {
    let place = Place::new();
    fill(&place, "p");
    let (a, b) = (place.store("a"), place.store("b"));
    let pack = share(&a, &place.path("p"));
    get(&a, &b, &pack, &place.path("out"));
    settle();
    rot(&place.path("out/big.pak"), 7);
    let verified = b.verify_pack(b.packs().unwrap()[0].id, &()).unwrap();
    assert_eq!(faults(&verified), [("big.pak", Fault::Rotten)]);

    let mut again = spec(&pack, &place.path("out"));
    again.conflicts = Conflicts::TakeTheirs;
    let download = b.begin_download(&again, &()).unwrap();
    download.adopt_local().unwrap();
    assert_eq!(fetch(&a, &download).count_ones(), 1);
    download.finish().unwrap();
    assert_eq!(tree(&place.path("out")), tree(&place.path("p")));
    assert_eq!(b.verify_pack(download.id(), &()).unwrap().bad, []);
}

#[test]
fn clearing_up_deletes_what_no_pack_needs_and_nothing_else() {
    let place = Place::new();
    fill(&place, "p");
    write(&place.path("q/other.pak"), &noise(7, 2_000_000));
    let store = place.store("home");
    let gone = share(&store, &place.path("p"));
    let stays = share(&store, &place.path("q"));
    store.remove_pack(gone.id, false).unwrap();
    drop(store);

    // Nodes that were put within the hour stay; so that the test need not wait for one, they are made older.
    let index = place.path("home/index.sqlite");
    let conn = rusqlite::Connection::open(&index).unwrap();
    conn.execute("UPDATE nodes SET seen = 1", []).unwrap();
    drop(conn);
    let store = place.store("home");
    let collected = store.collect_garbage(&()).unwrap();
    assert!(collected.nodes >= 3, "{collected:?}");
    assert!(collected.leaf_rows > 0, "{collected:?}");
    assert_eq!(store.collect_garbage(&()).unwrap().nodes, 0);
    assert!(store.skeleton(&gone.pack, None).unwrap().is_none());
    assert_readable(&store, &stays.content);
    assert_eq!(tree(&place.path("p")).len(), 5);
    // What was shared before is shared again by reading it.
    assert_eq!(share(&store, &place.path("p")).content, gone.content);
}

#[test]
fn a_staging_folder_that_nobody_comes_back_to_is_cleared_up() {
    let place = Place::new();
    fill(&place, "p");
    let (a, b) = (place.store("a"), place.store("b"));
    let pack = share(&a, &place.path("p"));
    copy_skeleton(&a, &b, &pack.pack);
    let download = b.begin_download(&spec(&pack, &place.path("out")), &()).unwrap();
    let staging = || {
        let names = fs::read_dir(place.dir.path()).unwrap();
        names
            .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().ends_with(".part"))
            .count()
    };
    assert_eq!(staging(), 1);
    // While it is unfinished, it stays.
    assert_eq!(b.collect_garbage(&()).unwrap().stages.len(), 0);
    assert_eq!(staging(), 1);
    drop(download);
    let id = b.packs().unwrap()[0].id;
    drop(b);
    let conn = rusqlite::Connection::open(place.path("b/index.sqlite")).unwrap();
    conn.execute("DELETE FROM packs", []).unwrap();
    drop(conn);
    let b = place.store("b");
    assert_eq!(b.collect_garbage(&()).unwrap().stages.len(), 1, "{id:?}");
    assert_eq!(staging(), 0);
}

#[test]
fn a_moved_pack_goes_on_being_served_from_where_it_is() {
    let place = Place::new();
    fill(&place, "p");
    write(&place.path("p/notes.txt"), b"mine");
    settle();
    let store = place.store("home");
    let pack = share(&store, &place.path("p"));
    let before = tree(&place.path("p"));
    let moved = store.move_pack(pack.id, &place.path("new/home"), &()).unwrap();
    assert_eq!(moved.to, place.path("new/home"));
    assert!(!place.path("p").exists());
    assert_eq!(tree(&place.path("new/home")), before);
    assert_readable(&store, &pack.content);
    assert_eq!(store.pack(pack.id).unwrap().unwrap().path, place.path("new/home"));

    // The user moves it by other means: it is found where it is named.
    fs::rename(place.path("new/home"), place.path("elsewhere")).unwrap();
    store.move_pack(pack.id, &place.path("elsewhere"), &()).unwrap();
    assert_readable(&store, &pack.content);
    // Sharing it again hashes nothing and gives the same pack.
    settle();
    let watch = Watch::default();
    let again = store
        .share(
            &modswarm_store::ShareSpec::new(place.path("elsewhere"), NETWORK),
            &watch,
        )
        .unwrap();
    assert_eq!((again.pack, watch.hashed()), (pack.pack, 0));
}

#[test]
fn a_single_file_is_moved_too() {
    let place = Place::new();
    write(&place.path("one/x.pak"), &noise(3, 200_000));
    write(&place.path("one/y.pak"), &noise(4, 200_000));
    let store = place.store("home");
    let x = share(&store, &place.path("one/x.pak"));
    let y = share(&store, &place.path("one/y.pak"));
    store.move_pack(x.id, &place.path("two/z.pak"), &()).unwrap();
    assert!(place.path("two/z.pak").exists() && !place.path("one/x.pak").exists());
    assert_readable(&store, &x.content);
    assert_readable(&store, &y.content);
}

#[test]
fn a_move_that_makes_no_sense_is_refused_and_changes_nothing() {
    let place = Place::new();
    fill(&place, "p");
    write(&place.path("taken/x"), b"x");
    let store = place.store("home");
    let pack = share(&store, &place.path("p"));
    let to = |name: &str| store.move_pack(pack.id, &place.path(name), &()).unwrap_err();
    assert!(matches!(to("p"), MoveError::SamePlace(_)));
    assert!(matches!(to("p/inside"), MoveError::Nested { .. }));
    assert!(matches!(to("taken"), MoveError::Occupied(_)));
    fs::create_dir_all(place.path("p/inside")).ok();
    let _ = fs::remove_dir(place.path("p/inside"));
    assert_readable(&store, &pack.content);
    fs::rename(place.path("p"), place.path("hidden")).unwrap();
    assert!(matches!(to("nowhere"), MoveError::Nowhere { .. }));
}

#[test]
fn a_move_to_another_disk_copies_verifies_and_deletes() {
    // Most systems have a file system in memory there; without one there is nothing to move to.
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("skipped: no second file system");
        return;
    };
    let place = Place::new();
    fill(&place, "p");
    let store = place.store("home");
    let pack = share(&store, &place.path("p"));
    write(&place.path("p/notes.txt"), b"mine");
    let mut before = tree(&place.path("p"));
    let target = other.path().canonicalize().unwrap().join("moved");
    let moved = store.move_pack(pack.id, &target, &()).unwrap();
    if moved.bytes_copied == 0 {
        eprintln!("skipped: both are one file system");
        return;
    }
    assert_eq!(moved.bytes_copied, 3_020_000);
    before.remove("notes.txt");
    assert_eq!(tree(&target), before);
    // What is not of the pack stays.
    assert_eq!(tree(&place.path("p")).keys().collect::<Vec<_>>(), ["notes.txt"]);
    assert_readable(&store, &pack.content);
    assert!(store.verify_pack(pack.id, &()).unwrap().bad.is_empty());
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 1);
}

#[test]
fn a_move_that_was_cut_off_is_ended_when_the_store_is_opened() {
    let place = Place::new();
    fill(&place, "p");
    let store = place.store("home");
    let pack = share(&store, &place.path("p"));
    drop(store);
    // As a crash leaves it between the rename and the rows.
    let journal = |source: &str, target: &str| {
        let conn = rusqlite::Connection::open(place.path("home/index.sqlite")).unwrap();
        conn.execute(
            "INSERT INTO moves (pack, source, target, copied) VALUES (1, ?1, ?2, 0)",
            [
                place.path(source).as_os_str().as_encoded_bytes(),
                place.path(target).as_os_str().as_encoded_bytes(),
            ],
        )
        .unwrap();
    };
    journal("p", "new");
    fs::rename(place.path("p"), place.path("new")).unwrap();
    let store = place.store("home");
    assert_eq!(store.pack(pack.id).unwrap().unwrap().path, place.path("new"));
    assert_readable(&store, &pack.content);
    drop(store);
    // And before it.
    journal("new", "other");
    let store = place.store("home");
    assert_eq!(store.pack(pack.id).unwrap().unwrap().path, place.path("new"));
    assert_readable(&store, &pack.content);
}

#[test]
fn a_pin_is_remembered() {
    let place = Place::new();
    fill(&place, "p");
    let store = place.store("home");
    let pack = share(&store, &place.path("p"));
    assert!(!store.pack(pack.id).unwrap().unwrap().pinned);
    store.set_pinned(pack.id, true).unwrap();
    drop(store);
    let record = place.store("home").pack(pack.id).unwrap().unwrap();
    assert!(record.pinned);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    assert!(Duration::from_secs(record.used) + Duration::from_secs(60) > now);
}
