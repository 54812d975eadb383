//! A home whose index is lost or damaged.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::{fs, path::Path};

use common::*;
use modswarm_protocol::format::PackPath;
use modswarm_store::{
    Conflicts, Fault, HomeLock, IndexError, OpenError, Origin, PackState, Rebuilt, SharedPack, Store, StoreOptions,
};

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
    lose_skeletons(&place.path("b"));
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

    // A damaged pack.json is in the skeleton as well.
    fs::remove_file(place.path("home/index.sqlite")).unwrap();
    write(&dir.join("pack.json"), b"{}");
    let (store, rebuilt) = rebuild(&place.path("home"));
    assert_eq!(rebuilt.restored.len(), 1);
    assert!(fs::read(dir.join("pack.json")).unwrap().len() > 2);
    drop(store);

    // With both damaged, the pack cannot be what it was: that is said.
    fs::remove_file(place.path("home/index.sqlite")).unwrap();
    write(&dir.join("pack.json"), b"{}");
    fs::write(dir.join("skeleton"), noise(4, 3000)).unwrap();
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

/// A home that has the second version of a pack, in which the user edited `mine.pak`, and one who shares that version.
struct Edited {
    place: Place,
    a: Store,
    two: SharedPack,
}

const MINE: &[u8] = b"edited by the user";

impl Edited {
    fn new(conflicts: Conflicts) -> Self {
        let place = Place::new();
        let (a, b) = (place.store("a"), place.store("b"));
        for (name, seed) in [("mine.pak", 1), ("other.pak", 2), ("sub/same.pak", 3)] {
            write(&place.path("p").join(name), &noise(seed, 300_000));
        }
        let one = share(&a, &place.path("p"));
        get(&a, &b, &one, &place.path("out"));
        settle();
        write(&place.path("p/mine.pak"), &noise(4, 300_000));
        write(&place.path("p/other.pak"), &noise(5, 300_000));
        let two = share(&a, &place.path("p"));
        write(&place.path("out/mine.pak"), MINE);
        copy_skeleton(&a, &b, &two.pack);
        let mut spec = spec(&two, &place.path("out"));
        spec.conflicts = conflicts;
        let download = b.begin_download(&spec, &()).unwrap();
        download.adopt_local().unwrap();
        fetch(&a, &download);
        download.finish().unwrap();
        drop(b);
        Self { place, a, two }
    }

    fn rebuilt(&self) -> (Store, Rebuilt) {
        fs::remove_file(self.place.path("b/index.sqlite")).unwrap();
        rebuild(&self.place.path("b"))
    }

    fn plain(&self, name: &str) -> std::path::PathBuf {
        let dir = self.place.path("b/packs").join(self.two.pack.to_string());
        let mut names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        names
            .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(name))
            .unwrap()
    }

    /// Everything but what the user kept is there, served and right, and nothing the store does touches his.
    fn check(&self, b: &Store, mine: &[u8]) {
        let record = b.packs_of(&self.two.pack).unwrap().remove(0);
        assert_eq!((record.state, record.origin), (PackState::Whole, Origin::Fetched));
        let content = b.content(&record).unwrap().unwrap();
        let have = b.have(&self.two.content).unwrap().unwrap();
        for file in content.files().filter(|file| file.path().as_str() != "mine.pak") {
            for span in file.spans() {
                let modswarm_protocol::format::Part::Piece(piece) = span.part else {
                    unreachable!()
                };
                let leaf = content.map().leaf(piece);
                assert!(have[piece.as_usize()], "{:?}", file.path());
                assert!(b.read_leaf(&leaf.cid, leaf.len).is_ok());
            }
        }
        b.collect_garbage(&()).unwrap();
        b.verify_pack(record.id, &()).unwrap();
        assert_eq!(fs::read(self.place.path("out/mine.pak")).unwrap(), mine);
    }
}

#[test]
fn files_that_the_user_kept_are_known_as_his_again() {
    let e = Edited::new(Conflicts::KeepMine);
    for _ in 0..2 {
        let (b, rebuilt) = e.rebuilt();
        assert_eq!((rebuilt.left, rebuilt.differing), (Vec::new(), Vec::new()));
        let record = b.packs_of(&e.two.pack).unwrap().remove(0);
        assert_eq!((record.kept, record.files, record.partial), (1, 3, false));
        assert_eq!(b.verify_pack(record.id, &()).unwrap().bad, []);
        e.check(&b, MINE);
    }
    // Whoever gets it again is asked again.
    let b = e.place.store("b");
    let refused = b.begin_download(&spec(&e.two, &e.place.path("out")), &());
    assert!(matches!(
        refused,
        Err(modswarm_store::BeginError::WouldOverwrite { .. })
    ));
    // And what he kept is nobody's to delete.
    let id = b.packs_of(&e.two.pack).unwrap()[0].id;
    b.remove_pack(id, true).unwrap();
    let left = tree(&e.place.path("out"));
    assert_eq!(left.keys().collect::<Vec<_>>(), ["mine.pak"]);
    assert!(!e.place.path("b/packs").join(e.two.pack.to_string()).exists());
}

#[test]
fn both_files_of_a_pair_that_was_kept_are_there_after_a_rebuild() {
    let e = Edited::new(Conflicts::KeepBoth);
    let before = tree(&e.place.path("out"));
    assert_eq!(before.len(), 5);
    let (b, rebuilt) = e.rebuilt();
    assert_eq!((rebuilt.restored.len(), rebuilt.differing), (1, Vec::new()));
    assert_readable(&b, &e.two.content);
    b.collect_garbage(&()).unwrap();
    assert!(tree(&e.place.path("out")) == before);
}

#[test]
fn without_the_list_of_kept_files_they_count_as_edited_and_stay() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 3] = [
        ("lost", |path| fs::remove_file(path).unwrap()),
        ("garbage", |path| fs::write(path, noise(3, 700)).unwrap()),
        ("of another content", |path| {
            fs::write(path, br#"{"files":4,"kept":[[0,1]]}"#).unwrap();
        }),
    ];
    for (what, damage) in damages {
        let e = Edited::new(Conflicts::KeepMine);
        damage(&e.plain("choice-"));
        let (b, rebuilt) = e.rebuilt();
        assert_eq!(rebuilt.left, [], "{what}");
        let [differs] = &rebuilt.differing[..] else {
            panic!("{what}: {:?}", rebuilt.differing)
        };
        assert_eq!(
            (differs.missing, differs.changed, differs.choice_lost),
            (0, 1, true),
            "{what}"
        );
        let bad = b.verify_pack(differs.id, &()).unwrap().bad;
        assert_eq!((bad.len(), bad[0].fault), (1, Fault::Changed), "{what}");
        e.check(&b, MINE);
        let refused = b.begin_download(&spec(&e.two, &e.place.path("out")), &());
        assert!(
            matches!(refused, Err(modswarm_store::BeginError::WouldOverwrite { .. })),
            "{what}"
        );
    }
}

#[test]
fn without_skeleton_a_pack_with_kept_files_is_named_and_nothing_is_lost() {
    let e = Edited::new(Conflicts::KeepMine);
    lose_skeletons(&e.place.path("b"));
    let before = tree(&e.place.path("out"));
    let (b, rebuilt) = e.rebuilt();
    // The former version is as well: nobody can say which of the two stands there.
    assert_eq!(rebuilt.restored, []);
    assert!(rebuilt.left.iter().any(|left| left.pack == Some(e.two.pack)));
    b.collect_garbage(&()).unwrap();
    copy_skeleton(&e.a, &b, &e.two.pack);
    let mut again = spec(&e.two, &e.place.path("out"));
    again.conflicts = Conflicts::KeepMine;
    let download = b.begin_download(&again, &()).unwrap();
    assert_eq!(fetch(&e.a, &download).count_ones(), 0, "all is there");
    download.finish().unwrap();
    assert!(tree(&e.place.path("out")) == before);
    e.check(&b, MINE);
}

#[test]
fn a_shared_pack_with_edited_added_and_deleted_files_comes_back_with_the_rest() {
    let place = Place::new();
    for (name, seed) in [("edited.pak", 1), ("gone.pak", 2), ("same.pak", 3)] {
        write(&place.path("p").join(name), &noise(seed, 400_000));
    }
    let store = place.store("home");
    let pack = share(&store, &place.path("p"));
    drop(store);
    settle();
    write_at(&place.path("p/edited.pak"), 1000, b"edited");
    write(&place.path("p/added.pak"), b"new");
    fs::remove_file(place.path("p/gone.pak")).unwrap();
    let before = tree(&place.path("p"));
    fs::remove_file(place.path("home/index.sqlite")).unwrap();
    let (store, rebuilt) = rebuild(&place.path("home"));
    assert_eq!(rebuilt.left, []);
    let [differs] = &rebuilt.differing[..] else {
        panic!("{:?}", rebuilt.differing)
    };
    assert_eq!((differs.missing, differs.changed, differs.choice_lost), (1, 1, false));
    let record = store.packs_of(&pack.pack).unwrap().remove(0);
    assert_eq!(record.origin, Origin::Shared);
    let content = store.content(&record).unwrap().unwrap();
    let have = store.have(&pack.content).unwrap().unwrap();
    for (index, leaf) in content.map().iter() {
        assert_eq!(have[index.as_usize()], store.read_leaf(&leaf.cid, leaf.len).is_ok());
    }
    // Of the edited file all is had but the blocks that were edited.
    assert!(record.piece_bytes_here > 500_000, "{record:?}");
    let check = store.look_again(record.id).unwrap();
    let edited: PackPath = "edited.pak".parse().unwrap();
    assert_eq!(check.changed, [edited]);
    // Nothing was touched, and sharing goes on from it.
    assert!(tree(&place.path("p")) == before);
    let two = share(&store, &place.path("p"));
    assert_eq!(two.manifest.previous, Some(pack.pack));
    assert_readable(&store, &two.content);
}

#[test]
fn a_pack_of_which_some_files_were_selected_comes_back_as_such() {
    let place = Place::new();
    write(&place.path("p/a.pak"), &noise(1, 400_000));
    write(&place.path("p/b.pak"), &noise(2, 400_000));
    let (a, b) = (place.store("a"), place.store("b"));
    let pack = share(&a, &place.path("p"));
    copy_skeleton(&a, &b, &pack.pack);
    let mut only = spec(&pack, &place.path("out"));
    only.selection = Some([true, false].into_iter().collect());
    let download = b.begin_download(&only, &()).unwrap();
    fetch(&a, &download);
    download.finish().unwrap();
    drop((download, b));
    fs::remove_file(place.path("b/index.sqlite")).unwrap();
    let (b, rebuilt) = rebuild(&place.path("b"));
    assert_eq!((rebuilt.left, rebuilt.differing), (Vec::new(), Vec::new()));
    let record = b.packs().unwrap().remove(0);
    assert!(
        record.partial && record.files == 1 && record.bytes == 400_000,
        "{record:?}"
    );
    assert_eq!(b.verify_pack(record.id, &()).unwrap().bad, []);
}

#[test]
fn a_place_whose_disk_is_not_there_stays_remembered() {
    let place = Place::new();
    write(&place.path("p/a.pak"), &noise(1, 400_000));
    let store = place.store("home");
    let pack = share(&store, &place.path("p"));
    drop(store);
    fs::rename(place.path("p"), place.path("unmounted")).unwrap();
    for _ in 0..2 {
        let _ = fs::remove_file(place.path("home/index.sqlite"));
        let (store, rebuilt) = rebuild(&place.path("home"));
        assert_eq!((rebuilt.restored.len(), rebuilt.left.len()), (0, 1));
        store.collect_garbage(&()).unwrap();
        assert_eq!(store.packs().unwrap(), []);
    }
    fs::rename(place.path("unmounted"), place.path("p")).unwrap();
    fs::remove_file(place.path("home/index.sqlite")).unwrap();
    let (store, rebuilt) = rebuild(&place.path("home"));
    assert_eq!((rebuilt.restored.len(), rebuilt.left.len()), (1, 0));
    assert_readable(&store, &pack.content);
}
