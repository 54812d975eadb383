//! Mending a pack where it stands: what rotted or is lost is put there again, whatever its owner did to the rest.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::{fs, path::Path};

use common::*;
use modswarm_store::{Conflicts, Fault, Origin, PackId, PackState, SharedPack, Store};

/// Changes a bit of a file and nothing that the system tells of it.
fn rot(path: &Path, at: u64) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    let byte = read_at(path, at, 1)[0];
    write_at(path, at, &[byte ^ 1]);
    fs::File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(modified)
        .unwrap();
}

/// Mends a pack as `verify --repair` does; returns the pieces that were fetched.
fn mend(from: &Store, to: &Store, pack: &SharedPack, destination: &Path) -> usize {
    let mut spec = spec(pack, destination);
    spec.conflicts = Conflicts::Mend;
    let download = to.begin_download(&spec, &()).unwrap();
    download.adopt_local().unwrap();
    let fetched = fetch(from, &download).count_ones();
    download.finish().unwrap();
    fetched
}

fn faults(store: &Store, id: PackId) -> Vec<(String, Fault)> {
    let bad = store.verify_pack(id, &()).unwrap().bad;
    bad.into_iter()
        .map(|bad| (bad.path.as_str().to_owned(), bad.fault))
        .collect()
}

#[test]
fn a_shared_pack_is_mended_beside_what_its_owner_edited_renamed_and_added() {
    let place = Place::new();
    let root = place.path("p");
    for (name, seed) in [("rots", 1), ("edited", 2), ("renamed", 3), ("gone", 4), ("same", 5)] {
        write(&root.join(name), &noise(seed, 500_000));
    }
    let (a, b) = (place.store("a"), place.store("b"));
    let pack = share(&a, &root);
    get(&a, &b, &pack, &place.path("out"));
    settle();

    rot(&root.join("rots"), 100_000);
    write_at(&root.join("edited"), 100_000, b"edited by its owner");
    fs::rename(root.join("renamed"), root.join("renamed.off")).unwrap();
    fs::remove_file(root.join("gone")).unwrap();
    write(&root.join("added"), b"new");
    let found = faults(&a, pack.id);
    let expected = [
        ("edited", Fault::Changed),
        ("gone", Fault::Missing),
        ("rots", Fault::Rotten),
    ];
    assert_eq!(found, expected.map(|(path, fault)| (path.to_owned(), fault)));
    let had = a.pack(pack.id).unwrap().unwrap().piece_bytes_here;

    assert!(mend(&b, &a, &pack, &root) > 0);
    let mended = tree(&root);
    assert_eq!(
        mended.keys().collect::<Vec<_>>(),
        ["added", "edited", "gone", "renamed.off", "rots", "same"]
    );
    for name in ["rots", "gone", "same"] {
        assert!(mended[name] == tree(&place.path("out"))[name], "{name}");
    }
    assert_eq!(
        &mended["edited"].as_ref().unwrap()[100_000..100_019],
        b"edited by its owner"
    );
    // It is as before otherwise: shared, the edit known as such, and all served that is there, of the edited and the renamed file too.
    let record = a.pack(pack.id).unwrap().unwrap();
    assert_eq!(
        (record.origin, record.state, record.partial, record.kept),
        (Origin::Shared, PackState::Whole, false, 0)
    );
    assert!(record.piece_bytes_here > had + 500_000, "{record:?}");
    assert_eq!(faults(&a, pack.id), [("edited".to_owned(), Fault::Changed)]);
    let content = a.content(&record).unwrap().unwrap();
    let have = a.have(&pack.content).unwrap().unwrap();
    let edited = content
        .map()
        .iter()
        .filter(|(index, _)| !have[index.as_usize()])
        .count();
    assert!((1..=2).contains(&edited), "{edited} pieces are missing");
    for (index, leaf) in content.map().iter() {
        assert_eq!(a.read_leaf(&leaf.cid, leaf.len).is_ok(), have[index.as_usize()]);
    }
    // The next rot is mended as well, and an edit that is taken back is the pack's file again.
    rot(&root.join("same"), 5);
    assert_eq!(faults(&a, pack.id).len(), 2);
    assert_eq!(mend(&b, &a, &pack, &root), 1);
    write(&root.join("edited"), &noise(2, 500_000));
    assert_eq!(faults(&a, pack.id), []);
    assert_readable(&a, &pack.content);
}

#[test]
fn what_the_user_kept_stays_his_when_the_rest_is_mended() {
    let place = Place::new();
    write(&place.path("p/mine"), &noise(1, 300_000));
    write(&place.path("p/rots"), &noise(2, 300_000));
    let (a, b) = (place.store("a"), place.store("b"));
    let pack = share(&a, &place.path("p"));
    write(&place.path("out/mine"), b"mine");
    copy_skeleton(&a, &b, &pack.pack);
    let mut keep = spec(&pack, &place.path("out"));
    keep.conflicts = Conflicts::KeepMine;
    let download = b.begin_download(&keep, &()).unwrap();
    fetch(&a, &download);
    let id = download.finish().unwrap().id;
    drop(download);
    settle();
    rot(&place.path("out/rots"), 200_000);
    assert_eq!(faults(&b, id), [("rots".to_owned(), Fault::Rotten)]);
    assert_eq!(mend(&a, &b, &pack, &place.path("out")), 1);
    assert_eq!(fs::read(place.path("out/mine")).unwrap(), b"mine");
    assert_eq!(faults(&b, id), []);
    assert_eq!(b.pack(id).unwrap().unwrap().kept, 1);
    // Deleted by the user, it is not brought back either.
    fs::remove_file(place.path("out/mine")).unwrap();
    rot(&place.path("out/rots"), 200_000);
    faults(&b, id);
    mend(&a, &b, &pack, &place.path("out"));
    assert!(!place.path("out/mine").exists());
}
