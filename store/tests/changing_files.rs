//! Users' files change while they are shared.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::fs;

use common::*;
use modswarm_protocol::format::PackPath;
use modswarm_store::ReadLeafError;

#[test]
fn a_changed_file_is_never_served_and_its_pieces_are_withdrawn() {
    let place = Place::new();
    let store = place.store("home");
    let mut bytes = noise(1, 2_000_000);
    write(&place.path("p/f"), &bytes);
    let pack = share(&store, &place.path("p"));
    let record = store.pack(pack.id).unwrap().unwrap();
    let content = store.content(&record).unwrap().unwrap();
    bytes[1_000_000] ^= 1;
    write(&place.path("p/f"), &bytes);
    let mut lost = 0;
    for (_, leaf) in content.map().iter() {
        match store.read_leaf(&leaf.cid, leaf.len) {
            Ok(read) => assert!(leaf.cid.verifies(&read)),
            Err(ReadLeafError::Lost(_)) => lost += 1,
            Err(e) => panic!("{e}"),
        }
    }
    assert_eq!(lost, 1);
    let withdrawn = store.take_withdrawn();
    assert_eq!((withdrawn.len(), withdrawn[0].content), (1, pack.content));
    assert_eq!(withdrawn[0].pieces.count_ones(), 1);
    assert_eq!(
        store.have(&pack.content).unwrap().unwrap(),
        !withdrawn[0].pieces.clone()
    );
    assert!(store.take_withdrawn().is_empty());
    assert_eq!(store.check_pack(pack.id).unwrap().changed.len(), 1);
}

#[test]
fn a_deleted_file_withdraws_all_that_lay_only_in_it() {
    let place = Place::new();
    let store = place.store("home");
    write(&place.path("p/gone"), &noise(1, 500_000));
    write(&place.path("p/also-elsewhere"), &noise(2, 100_000));
    write(&place.path("p/copy"), &noise(2, 100_000));
    let pack = share(&store, &place.path("p"));
    let record = store.pack(pack.id).unwrap().unwrap();
    let content = store.content(&record).unwrap().unwrap();
    fs::remove_file(place.path("p/gone")).unwrap();
    fs::remove_file(place.path("p/copy")).unwrap();
    let gone = content.files().find(|f| f.path().as_str() == "gone").unwrap();
    let in_gone = gone.parts().count();
    let (first, leaf) = content.map().iter().find(|(_, l)| l.len > 0).unwrap();
    let _ = (first, store.read_leaf(&leaf.cid, leaf.len));
    store.check_pack(pack.id).unwrap();
    let withdrawn = store.take_withdrawn();
    assert_eq!(withdrawn[0].pieces.count_ones(), in_gone);
    assert_eq!(store.have(&pack.content).unwrap().unwrap().count_zeros(), in_gone);
}

#[test]
fn of_very_many_files_each_that_is_gone_or_changed_is_found() {
    // Rows are looked at 4096 at a time.
    const FILES: usize = 2 * 4096 + 100;
    let place = Place::new();
    let store = place.store("home");
    let path = |number: usize| format!("p/{}/{number:05}", number / 1000);
    (0..FILES).for_each(|number| write(&place.path(&path(number)), &number.to_le_bytes()));
    let pack = share(&store, &place.path("p"));
    let [gone, changed] = [[0, 4095, 4096, FILES - 1], [1, 4094, 8191, 8192]];
    for number in gone {
        fs::remove_file(place.path(&path(number))).unwrap();
    }
    for number in changed {
        write(&place.path(&path(number)), b"something else");
    }
    let check = store.check_pack(pack.id).unwrap();
    let found = |paths: &[PackPath]| paths.iter().map(|path| format!("p/{path}")).collect::<Vec<_>>();
    assert_eq!(found(&check.missing), gone.map(path));
    assert_eq!(found(&check.changed), changed.map(path));
    assert_eq!(store.take_withdrawn()[0].pieces.count_ones(), gone.len());
}

#[test]
fn a_renamed_file_goes_on_being_served() {
    let place = Place::new();
    let store = place.store("home");
    write(&place.path("p/mod.pak"), &noise(1, 300_000));
    let pack = share(&store, &place.path("p"));
    fs::create_dir(place.path("p/off")).unwrap();
    fs::rename(place.path("p/mod.pak"), place.path("p/off/mod.pak.disabled")).unwrap();
    assert_readable(&store, &pack.content);
    assert!(store.take_withdrawn().is_empty());
}

#[test]
fn a_folder_that_comes_back_is_had_again_without_reading() {
    let place = Place::new();
    let store = place.store("home");
    write(&place.path("p/f"), &noise(1, 300_000));
    let pack = share(&store, &place.path("p"));
    fs::rename(place.path("p"), place.path("unmounted")).unwrap();
    assert_eq!(store.check_pack(pack.id).unwrap().missing.len(), 1);
    assert!(store.have(&pack.content).unwrap().unwrap().not_any());
    assert_eq!(store.take_withdrawn().len(), 1);
    fs::rename(place.path("unmounted"), place.path("p")).unwrap();
    assert_eq!(store.check_pack(pack.id).unwrap(), modswarm_store::Check::default());
    assert_readable(&store, &pack.content);
}

#[test]
fn a_truncated_or_replaced_file_gives_no_wrong_byte() {
    let place = Place::new();
    let store = place.store("home");
    write(&place.path("p/f"), &noise(1, 300_000));
    let pack = share(&store, &place.path("p"));
    let record = store.pack(pack.id).unwrap().unwrap();
    let content = store.content(&record).unwrap().unwrap();
    fs::remove_file(place.path("p/f")).unwrap();
    fs::create_dir(place.path("p/f")).unwrap();
    for (_, leaf) in content.map().iter() {
        assert!(store.read_leaf(&leaf.cid, leaf.len).is_err());
    }
    assert!(store.have(&pack.content).unwrap().unwrap().not_any());
}

#[test]
fn removing_a_pack_deletes_only_what_is_as_it_was_put() {
    let place = Place::new();
    let (a, b) = (place.store("a"), place.store("b"));
    write(&place.path("p/dir/f"), &noise(1, 1000));
    write(&place.path("p/g"), &noise(2, 1000));
    fs::create_dir_all(place.path("p/hollow")).unwrap();
    let pack = share(&a, &place.path("p"));
    let out = place.path("out");
    let (_, finished) = get(&a, &b, &pack, &out);
    write(&out.join("g"), b"edited");
    write(&out.join("mine"), b"mine");
    let removed = b.remove_pack(finished.id, true).unwrap();
    assert_eq!((removed.files_deleted, removed.files_kept.len()), (1, 1));
    assert_eq!(tree(&out).keys().collect::<Vec<_>>(), ["g", "mine"]);
    assert!(b.packs().unwrap().is_empty());
    assert!(!place.path("b/packs").join(pack.pack.to_string()).exists());

    // Without the flag nothing of the user's is touched.
    let before = tree(&place.path("p"));
    a.remove_pack(pack.id, false).unwrap();
    assert_eq!(tree(&place.path("p")), before);
    assert!(a.have(&pack.content).unwrap().is_none());
}
