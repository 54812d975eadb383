//! A home whose index is lost or damaged.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::{fs, path::Path};

use common::*;
use modswarm_store::{HomeLock, IndexError, OpenError, Origin, PackState, Rebuilt, Store, StoreOptions};

fn rebuild(home: &Path) -> (Store, Rebuilt) {
    let lock = HomeLock::try_acquire(home).unwrap().unwrap();
    Store::rebuild(lock, StoreOptions::default(), &()).unwrap()
}

/// Three kinds of damage to an index; each leaves the rest of the home as it is.
type Damage = (&'static str, fn(&Path));

fn damages() -> [Damage; 3] {
    [
        ("deleted", |index| fs::remove_file(index).unwrap()),
        ("garbage", |index| fs::write(index, noise(9, 100_000)).unwrap()),
        ("cut short", |index| {
            let file = fs::OpenOptions::new().write(true).open(index).unwrap();
            file.set_len(5000).unwrap();
        }),
    ]
}

#[test]
fn all_packs_are_as_they_were_whatever_happened_to_the_index() {
    for (what, damage) in damages() {
        let place = Place::new();
        write(&place.path("p/a.pak"), &noise(1, 400_000));
        write(&place.path("p/dir/b"), b"");
        fs::create_dir_all(place.path("p/hollow")).unwrap();
        write(&place.path("q/c.pak"), &noise(2, 300_000));
        let (a, b) = (place.store("a"), place.store("b"));
        let p = share(&a, &place.path("p"));
        get(&a, &b, &p, &place.path("out"));
        let q = share(&b, &place.path("q"));
        let before = b.packs().unwrap();
        drop(b);
        for name in ["-wal", "-shm"] {
            let _ = fs::remove_file(place.path(&format!("b/index.sqlite{name}")));
        }
        damage(&place.path("b/index.sqlite"));

        let (b, rebuilt) = rebuild(&place.path("b"));
        assert_eq!(rebuilt.left, [], "{what}");
        assert_eq!(rebuilt.unreadable, Vec::<std::path::PathBuf>::new(), "{what}");
        assert_eq!(rebuilt.put_aside.is_empty(), what == "deleted");
        assert!(rebuilt.put_aside.iter().all(|path| path.exists()));
        let after = b.packs().unwrap();
        let known = |records: &[modswarm_store::PackRecord]| {
            let mut known: Vec<_> = records
                .iter()
                .map(|r| (r.pack, r.content, r.path.clone(), r.origin, r.created, r.network))
                .collect();
            known.sort_by_key(|(pack, ..)| *pack);
            known
        };
        assert_eq!(known(&after), known(&before), "{what}");
        assert!(after.iter().all(|record| record.state == PackState::Whole));
        assert!(after.iter().any(|record| record.origin == Origin::Fetched));
        assert_readable(&b, &p.content);
        assert_readable(&b, &q.content);
        // It is whole enough to get from, and to be rebuilt again.
        let c = place.store("c");
        get(&b, &c, &p, &place.path("again"));
        assert_eq!(tree(&place.path("again")), tree(&place.path("p")));
        drop(b);
        let (_b, rebuilt) = rebuild(&place.path("b"));
        assert_eq!((rebuilt.restored.len(), rebuilt.left.len()), (2, 0), "{what}");
    }
}

#[test]
fn what_cannot_be_restored_is_named_and_got_again_without_fetching_what_is_there() {
    let place = Place::new();
    write(&place.path("p/a.pak"), &noise(1, 400_000));
    write(&place.path("p/b.pak"), &noise(2, 400_000));
    let (a, b) = (place.store("a"), place.store("b"));
    let pack = share(&a, &place.path("p"));
    get(&a, &b, &pack, &place.path("out"));
    drop(b);
    write(&place.path("out/notes.txt"), b"mine");
    fs::remove_file(place.path("out/b.pak")).unwrap();
    fs::remove_file(place.path("b/index.sqlite")).unwrap();

    let (b, rebuilt) = rebuild(&place.path("b"));
    assert_eq!(rebuilt.restored, []);
    assert_eq!(rebuilt.left[0].pack, Some(pack.pack));
    assert!(!rebuilt.left[0].shared);
    let (fetched, _) = get(&a, &b, &pack, &place.path("out"));
    let b_pak = 400_000 / 128 / 1024;
    assert!(fetched.count_ones() > b_pak && fetched.count_ones() < pack.blocks as usize);
    assert_eq!(fs::read(place.path("out/notes.txt")).unwrap(), b"mine");
    assert_readable(&b, &pack.content);
}

#[test]
fn a_folder_that_had_two_versions_comes_back_as_the_later() {
    let place = Place::new();
    write(&place.path("p/a.pak"), &noise(1, 300_000));
    let store = place.store("home");
    share(&store, &place.path("p"));
    settle();
    write(&place.path("p/b.pak"), &noise(2, 300_000));
    let two = share(&store, &place.path("p"));
    drop(store);
    fs::remove_file(place.path("home/index.sqlite")).unwrap();
    let (store, rebuilt) = rebuild(&place.path("home"));
    assert_eq!(rebuilt.left, []);
    assert_eq!(rebuilt.restored.len(), 1);
    assert_eq!(rebuilt.restored[0].pack, Some(two.pack));
    assert_readable(&store, &two.content);
    // Sharing goes on from it.
    settle();
    let again = share(&store, &place.path("p"));
    assert_eq!(again.pack, two.pack);
}

#[test]
fn plain_files_that_make_no_sense_are_named_and_harm_nothing() {
    let place = Place::new();
    write(&place.path("p/a.pak"), &noise(1, 300_000));
    let store = place.store("home");
    let pack = share(&store, &place.path("p"));
    drop(store);
    fs::remove_file(place.path("home/index.sqlite")).unwrap();
    let dir = place.path("home/packs").join(pack.pack.to_string());
    write(&dir.join("place-77.json"), b"{\"content\": 1");
    write(&place.path("home/packs/nonsense/place-x.json"), b"");
    let (store, rebuilt) = rebuild(&place.path("home"));
    assert_eq!(rebuilt.unreadable.len(), 2);
    assert_eq!(rebuilt.restored.len(), 1);
    drop(store);

    // With pack.json damaged, the pack cannot be what it was: that is said.
    fs::remove_file(place.path("home/index.sqlite")).unwrap();
    write(&dir.join("pack.json"), b"{}");
    let (_store, rebuilt) = rebuild(&place.path("home"));
    assert!(rebuilt.left[0].reason.contains("pack.json"), "{:?}", rebuilt.left);
}

#[test]
fn a_damaged_index_is_refused_when_opened() {
    let place = Place::new();
    drop(place.store("home"));
    fs::write(place.path("home/index.sqlite"), noise(3, 50_000)).unwrap();
    let lock = HomeLock::try_acquire(&place.path("home")).unwrap().unwrap();
    let error = Store::open(lock, StoreOptions::default()).unwrap_err();
    assert!(matches!(error, OpenError::Index(IndexError::Corrupt)), "{error:?}");
}
