//! Leaves that are here already are not fetched again, and an update touches only what changed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::fs;

use common::*;
use modswarm_store::{BeginError, Conflicts, PackState, Store};

#[test]
fn a_leaf_in_many_places_is_fetched_once_and_written_to_each() {
    let place = Place::new();
    let (a, b) = (place.store("a"), place.store("b"));
    let body = noise(5, 300_000);
    for n in 0..100 {
        write(&place.path("p").join(format!("{n}")), &body);
    }
    write(&place.path("p/twice"), &[body.clone(), body.clone()].concat());
    write(&place.path("p/zeros"), &vec![0; 3_000_000]);
    let pack = share(&a, &place.path("p"));
    let (fetched, _) = get(&a, &b, &pack, &place.path("out"));
    assert_eq!(fetched.count_ones() as u64, pack.blocks);
    assert!(pack.blocks < 30);
    assert_eq!(tree(&place.path("out")), tree(&place.path("p")));
}

#[test]
fn a_leaf_of_another_pack_is_copied_instead_of_fetched() {
    let place = Place::new();
    let (a, b) = (place.store("a"), place.store("b"));
    write(&place.path("mine/x"), &noise(1, 2_000_000));
    share(&b, &place.path("mine"));
    write(&place.path("p/renamed"), &noise(1, 2_000_000));
    write(&place.path("p/new"), &noise(2, 10_000));
    let pack = share(&a, &place.path("p"));
    let (fetched, _) = get(&a, &b, &pack, &place.path("out"));
    assert_eq!(fetched.count_ones(), 1);
    assert_eq!(tree(&place.path("out")), tree(&place.path("p")));
}

/// Version 1 installed by `b`, and version 2 shared by `a`.
fn two_versions(place: &Place) -> (Store, Store, modswarm_store::SharedPack, modswarm_store::SharedPack) {
    let (a, b) = (place.store("a"), place.store("b"));
    let root = place.path("p");
    write(&root.join("same"), &noise(1, 500_000));
    write(&root.join("changes"), &noise(2, 2_000_000));
    write(&root.join("old-name"), &noise(3, 400_000));
    write(&root.join("dir/goes"), &noise(4, 100_000));
    let one = share(&a, &root);
    get(&a, &b, &one, &place.path("out"));
    settle();
    let mut changed = noise(2, 2_000_000);
    changed[1_000_000] ^= 1;
    write(&root.join("changes"), &changed);
    fs::rename(root.join("old-name"), root.join("new-name")).unwrap();
    // It closes what it has read first: some systems keep the name of a deleted file until then.
    drop(a);
    fs::remove_dir_all(root.join("dir")).unwrap();
    let a = place.store("a");
    write(&root.join("fresh"), &noise(5, 50_000));
    let two = share(&a, &root);
    (a, b, one, two)
}

#[test]
fn an_update_fetches_only_new_leaves_and_leaves_unchanged_files_alone() {
    let place = Place::new();
    let (a, b, one, two) = two_versions(&place);
    let out = place.path("out");
    let before = number_and_time(&out.join("same"));
    copy_skeleton(&a, &b, &two.pack);
    let watch = Watch::default();
    let download = b.begin_download(&spec(&two, &out), &watch).unwrap();
    assert_eq!(watch.hashed(), 0, "unchanged files cost a stat");
    download.adopt_local().unwrap();
    let fetched = fetch(&a, &download);

    let leaves = |pack| {
        let record = a.packs_of(pack).unwrap().remove(0);
        let content = a.content(&record).unwrap().unwrap();
        content
            .map()
            .iter()
            .map(|(_, leaf)| leaf.cid)
            .collect::<std::collections::BTreeSet<_>>()
    };
    let (old, new) = (leaves(&one.content), leaves(&two.content));
    assert_eq!(fetched.count_ones(), new.difference(&old).count());
    let finished = download.finish().unwrap();
    assert_eq!(tree(&out), tree(&place.path("p")));
    let removed: Vec<_> = finished.removed.iter().map(|p| p.as_str()).collect();
    assert_eq!(removed, ["dir/goes"]);
    let renamed: Vec<_> = finished.renamed.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(renamed, [("old-name", "new-name")]);
    assert_eq!(before, number_and_time(&out.join("same")));

    // What survives of version 1 is still served.
    let old_record = b.packs_of(&one.content).unwrap().remove(0);
    assert_eq!(old_record.state, PackState::Superseded);
    let content = b.content(&old_record).unwrap().unwrap();
    let have = b.have(&one.content).unwrap().unwrap();
    assert_eq!(have.count_ones(), old.intersection(&new).count());
    for (index, leaf) in content.map().iter().filter(|(index, _)| have[index.as_usize()]) {
        assert!(b.read_leaf(&leaf.cid, leaf.len).is_ok(), "{index:?}");
    }
    assert_readable(&b, &two.content);
}

#[test]
fn an_update_keeps_what_the_user_edited() {
    let place = Place::new();
    let (a, b, _, two) = two_versions(&place);
    let out = place.path("out");
    write(&out.join("changes"), b"my own");
    write(&out.join("dir/goes"), b"mine too");
    settle();
    copy_skeleton(&a, &b, &two.pack);
    let before = tree(&out);
    let e = b.begin_download(&spec(&two, &out), &()).unwrap_err();
    let BeginError::WouldOverwrite { files, .. } = e else {
        panic!("{e}")
    };
    assert_eq!(files.iter().map(|f| f.as_str()).collect::<Vec<_>>(), ["changes"]);
    assert_eq!(tree(&out), before);

    let mut spec = spec(&two, &out);
    spec.conflicts = Conflicts::TakeTheirs;
    let download = b.begin_download(&spec, &()).unwrap();
    fetch(&a, &download);
    let finished = download.finish().unwrap();
    assert_eq!(
        finished.kept.iter().map(|p| p.as_str()).collect::<Vec<_>>(),
        ["dir/goes"]
    );
    assert_eq!(fs::read(out.join("dir/goes")).unwrap(), b"mine too");
    assert_ne!(fs::read(out.join("changes")).unwrap(), b"my own");
}

#[test]
fn files_that_the_user_shared_are_never_replaced_unasked() {
    let place = Place::new();
    let (a, b) = (place.store("a"), place.store("b"));
    write(&place.path("mine/f"), &noise(1, 10_000));
    share(&b, &place.path("mine"));
    write(&place.path("p/f"), &noise(2, 10_000));
    let pack = share(&a, &place.path("p"));
    copy_skeleton(&a, &b, &pack.pack);
    let e = b.begin_download(&spec(&pack, &place.path("mine")), &()).unwrap_err();
    assert!(matches!(e, BeginError::WouldOverwrite { .. }));
    assert_eq!(fs::read(place.path("mine/f")).unwrap(), noise(1, 10_000));
}

#[test]
fn getting_what_is_installed_costs_only_stats() {
    let place = Place::new();
    let (a, b) = (place.store("a"), place.store("b"));
    for n in 0..50 {
        write(&place.path("p").join(n.to_string()), &noise(n, 30_000));
    }
    let pack = share(&a, &place.path("p"));
    get(&a, &b, &pack, &place.path("out"));
    let watch = Watch::default();
    let download = b.begin_download(&spec(&pack, &place.path("out")), &watch).unwrap();
    assert!(download.have().all());
    assert_eq!(watch.hashed(), 0);
    download.finish().unwrap();
    assert_eq!(b.packs().unwrap().len(), 1);
}
