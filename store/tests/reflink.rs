//! What a download finds on the same disk takes no room twice where the file system can share blocks.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::fs;

use common::*;

/// Needs root, mkfs and a kernel that has the file system; elsewhere it skips itself.
fn downloads_share_blocks_on(kind: &str) {
    let place = Place::new();
    let Some(disk) = Loop::mount(&place, kind) else {
        println!("skipped: this user cannot make and mount {kind}");
        return;
    };
    // Somebody else's pack: one file as it is here, one that differs in the middle, one where all lies elsewhere, and one that is new.
    let (one, two, three) = (noise(1, 20_000_003), noise(2, 30_000_000), noise(3, 5_000_000));
    let mut changed = two.clone();
    changed[9_000_000..9_700_000].copy_from_slice(&noise(9, 700_000));
    let root = place.path("theirs");
    write(&root.join("one.pak"), &one);
    write(&root.join("two.pak"), &changed);
    write(&root.join("three.pak"), &[&[7; 10][..], &three].concat());
    write(
        &root.join("holes.pak"),
        &[&one[..200_000], &[0; 3_000_000], &one[..200_000]].concat(),
    );
    write(&root.join("new.pak"), &noise(4, 500_000));
    let other = place.store("other");
    let pack = share(&other, &root);

    write(&disk.0.join("p/one.pak"), &one);
    write(&disk.0.join("p/two.pak"), &two);
    write(&disk.0.join("p/three.pak"), &three);
    let store = open(&disk.0.join("home"));
    share(&store, &disk.0.join("p"));
    let before = disk.used();
    let (fetched, _) = get(&other, &store, &pack, &disk.0.join("out"));
    assert_eq!(tree(&disk.0.join("out")), tree(&root));
    let record = store.packs_of(&pack.pack).unwrap().remove(0);
    let content = store.content(&record).unwrap().unwrap();
    let map = content.map();
    let fetched: u64 = fetched
        .iter_ones()
        .map(|at| u64::from(map.leaf(map.index(at as u32).unwrap()).len))
        .sum();
    assert!(fetched < 4_000_000, "{fetched}");
    let taken = disk.used() - before;
    let copied = 5_000_000 + 400_000;
    println!(
        "{kind}: {taken} bytes taken for {} with {fetched} fetched",
        record.bytes
    );
    assert!(taken < fetched + copied + 4_000_000, "{taken} bytes, {fetched} fetched");

    // Each is the user's own from now on.
    fs::remove_file(disk.0.join("p/one.pak")).unwrap();
    write_at(&disk.0.join("p/two.pak"), 0, &noise(8, 10_000_000));
    assert_eq!(tree(&disk.0.join("out")), tree(&root));
    assert!(store.verify_pack(record.id, &()).unwrap().bad.is_empty());

    // An update shares with the version that it replaces.
    settle();
    let mut newer = changed;
    newer[20_000_000..20_100_000].copy_from_slice(&noise(10, 100_000));
    write(&root.join("two.pak"), &newer);
    let two = share(&other, &root);
    let before = disk.used();
    get(&other, &store, &two, &disk.0.join("out"));
    assert_eq!(tree(&disk.0.join("out")), tree(&root));
    assert!(disk.used() < before + 4_000_000, "{before} {}", disk.used());
    drop(store);
}

#[test]
fn downloads_share_blocks_on_btrfs() {
    downloads_share_blocks_on("btrfs");
}

#[test]
fn downloads_share_blocks_on_xfs() {
    downloads_share_blocks_on("xfs");
}
