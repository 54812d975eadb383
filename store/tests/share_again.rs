//! Sharing the same place again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::fs;

use common::*;
use modswarm_store::{PackState, ShareError, ShareSpec};

#[test]
fn unchanged_files_cost_no_reading_and_keep_the_pack() {
    let place = Place::new();
    let store = place.store("home");
    let root = place.path("p");
    for n in 0..20 {
        write(&root.join(format!("{n}/f")), &noise(n, 100_000));
    }
    settle();
    let first = share(&store, &root);
    assert_eq!(first.bytes_hashed, 2_000_000);
    let again = share(&store, &root);
    assert_eq!(again.bytes_hashed, 0);
    assert_eq!(
        (again.pack, again.id, &again.manifest),
        (first.pack, first.id, &first.manifest)
    );

    // It holds for the next process too.
    drop(store);
    let store = place.store("home");
    assert_eq!(share(&store, &root).bytes_hashed, 0);

    // A folder that was moved keeps its files' identities.
    fs::rename(&root, place.path("q")).unwrap();
    let moved = share(&store, &place.path("q"));
    assert_eq!((moved.bytes_hashed, moved.content), (0, first.content));
}

#[test]
fn a_changed_file_costs_only_itself_and_names_the_former_pack() {
    let place = Place::new();
    let store = place.store("home");
    let root = place.path("p");
    for n in 0..10 {
        write(&root.join(format!("{n}")), &noise(n, 50_000));
    }
    settle();
    let first = share(&store, &root);
    write(&root.join("3"), &noise(99, 60_000));
    settle();
    let second = share(&store, &root);
    assert_eq!(second.bytes_hashed, 60_000);
    assert_eq!(second.manifest.previous, Some(first.pack));
    assert_ne!(second.content, first.content);
    assert_readable(&store, &second.content);

    // What survives of the former version is still had, what does not is not.
    let old = store.packs_of(&first.content).unwrap().remove(0);
    assert_eq!(old.state, PackState::Superseded);
    assert!(old.pieces_here < old.pieces && old.pieces_here > 0);
    let content = store.content(&old).unwrap().unwrap();
    let have = store.have(&first.content).unwrap().unwrap();
    for (index, leaf) in content.map().iter() {
        assert_eq!(store.read_leaf(&leaf.cid, leaf.len).is_ok(), have[index.as_usize()]);
    }
}

#[test]
fn words_are_kept_unless_new_ones_are_given() {
    let place = Place::new();
    let store = place.store("home");
    write(&place.path("p/f"), b"x");
    settle();
    let mut spec = ShareSpec::new(place.path("p"), NETWORK);
    spec.description = Some("first".to_owned());
    spec.tags = vec!["a".to_owned()];
    let first = store.share(&spec, &()).unwrap();
    let again = share(&store, &place.path("p"));
    assert_eq!(again.pack, first.pack);
    spec.description = Some("second".to_owned());
    let second = store.share(&spec, &()).unwrap();
    assert_eq!(
        (second.content, second.manifest.previous),
        (first.content, Some(first.pack))
    );
    assert_eq!(second.manifest.tags, ["a"]);
    assert!(store.have(&first.content).unwrap().unwrap().all());
}

#[test]
fn a_touched_file_is_read_again_and_stays_the_same_pack() {
    let place = Place::new();
    let store = place.store("home");
    write(&place.path("p/f"), &noise(1, 300_000));
    settle();
    let first = share(&store, &place.path("p"));
    write(&place.path("p/f"), &noise(1, 300_000));
    settle();
    let second = share(&store, &place.path("p"));
    assert_eq!((second.pack, second.bytes_hashed), (first.pack, 300_000));
    assert_eq!(share(&store, &place.path("p")).bytes_hashed, 0);
}

#[test]
fn a_file_whose_time_stamp_proves_nothing_is_read_again() {
    let place = Place::new();
    let store = place.store("home");
    write(&place.path("p/f"), &noise(1, 1000));
    // The clock of the file is ahead of ours: no look is ever younger.
    let ahead = std::time::SystemTime::now() + std::time::Duration::from_secs(3600);
    fs::File::options()
        .write(true)
        .open(place.path("p/f"))
        .unwrap()
        .set_modified(ahead)
        .unwrap();
    share(&store, &place.path("p"));
    assert_eq!(share(&store, &place.path("p")).bytes_hashed, 1000);
}

#[test]
fn a_cancelled_share_leaves_the_former_one_as_it_was() {
    let place = Place::new();
    let store = place.store("home");
    write(&place.path("p/f"), &noise(1, 1000));
    let first = share(&store, &place.path("p"));
    write(&place.path("p/g"), &noise(2, 1000));
    let watch = Watch {
        cancel: true,
        ..Watch::default()
    };
    let spec = ShareSpec::new(place.path("p"), NETWORK);
    assert!(matches!(store.share(&spec, &watch), Err(ShareError::Cancelled)));
    assert_eq!(store.packs().unwrap().len(), 1);
    assert_readable(&store, &first.content);
}
