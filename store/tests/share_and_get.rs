//! The whole way: a folder is shared, its leaves are read back, another home downloads it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::fs;

use common::*;
use modswarm_protocol::{Cid, Codec, HashKind};
use modswarm_store::{FinishError, Origin, PackState, ReadLeafError, WriteError};

fn sample(root: &std::path::Path) {
    write(&root.join("big.pak"), &noise(1, 3_000_000));
    write(&root.join("same.pak"), &noise(1, 3_000_000));
    write(&root.join("Skin v1.2_9999999_P.pak"), &noise(2, 70_000));
    write(&root.join("deep/er/файл.txt"), "привет".as_bytes());
    write(&root.join("deep/日本語.ucas"), &noise(3, 500_000));
    write(&root.join(".hidden"), b"dot");
    write(&root.join("zero"), b"");
    fs::create_dir_all(root.join("empty/inside")).unwrap();
    write(&root.join(".gitignore"), b"*.pak\n");
}

#[test]
fn a_shared_folder_can_be_read_and_downloaded_byte_for_byte() {
    let place = Place::new();
    let (a, b) = (place.store("a"), place.store("b"));
    let root = place.path("MyPack");
    sample(&root);
    let before = tree(&root);
    let pack = share(&a, &root);
    assert_eq!(pack.files, 8);
    assert_eq!(pack.manifest.name.as_str(), "MyPack");
    assert_readable(&a, &pack.content);

    let destination = place.path("there/MyPack");
    let (fetched, finished) = get(&a, &b, &pack, &destination);
    assert_eq!(
        fetched.count_ones() as u64,
        pack.blocks,
        "equal files have the same leaves"
    );
    assert!(finished.removed.is_empty() && finished.kept.is_empty());
    assert_eq!(tree(&destination), before);
    assert_eq!(tree(&root), before, "sharing changes nothing");
    assert_eq!(
        fs::read_dir(place.path("there")).unwrap().count(),
        1,
        "no staging is left"
    );
    assert_readable(&b, &pack.content);
    let record = b.packs().unwrap().remove(0);
    assert_eq!((record.state, record.origin), (PackState::Whole, Origin::Fetched));
    assert_eq!((record.pack, record.pieces_here), (Some(pack.pack), record.pieces));

    // Whoever downloaded it can share it on as the same pack.
    assert_eq!(share(&b, &destination).pack, pack.pack);
}

#[test]
fn a_single_file_is_a_folder_of_one() {
    let place = Place::new();
    let (a, b) = (place.store("a"), place.store("b"));
    write(&place.path("one.zip"), &noise(9, 200_000));
    let pack = share(&a, &place.path("one.zip"));
    assert_eq!(a.packs().unwrap()[0].path, place.path("one.zip"));
    get(&a, &b, &pack, &place.path("out"));
    assert_eq!(fs::read(place.path("out/one.zip")).unwrap(), noise(9, 200_000));
}

#[test]
fn an_empty_folder_and_a_folder_of_empty_files_can_be_shared() {
    let place = Place::new();
    let (a, b) = (place.store("a"), place.store("b"));
    for name in ["none", "zeros"] {
        fs::create_dir_all(place.path(name).join("x")).unwrap();
    }
    write(&place.path("zeros/1"), b"");
    write(&place.path("zeros/2"), b"");
    for name in ["none", "zeros"] {
        let pack = share(&a, &place.path(name));
        assert_eq!(pack.blocks, 0);
        let destination = place.path("out").join(name);
        get(&a, &b, &pack, &destination);
        assert_eq!(tree(&destination), tree(&place.path(name)));
    }
}

#[test]
fn finishing_early_says_what_is_missing_and_wrong_lengths_are_refused() {
    let place = Place::new();
    let (a, b) = (place.store("a"), place.store("b"));
    write(&place.path("p/f"), &noise(4, 400_000));
    let pack = share(&a, &place.path("p"));
    copy_skeleton(&a, &b, &pack.pack);
    let download = b.begin_download(&spec(&pack, &place.path("out")), &()).unwrap();
    assert!(matches!(download.finish(), Err(FinishError::Incomplete(n)) if u64::from(n) == pack.blocks));
    let first = download.content().map().index(0).unwrap();
    assert!(matches!(
        download.write_piece(first, b"short"),
        Err(WriteError::Length { given: 5, .. })
    ));
    assert!(!place.path("out").exists(), "nothing appears before it is whole");
}

#[test]
fn pieces_can_be_written_together_in_any_order() {
    let place = Place::new();
    let (a, b) = (place.store("a"), place.store("b"));
    let bytes = noise(5, 900_000);
    write(&place.path("p/long"), &bytes);
    // Some of its pieces are needed twice, and some are zeros.
    write(&place.path("p/half"), &bytes[..500_000]);
    write(
        &place.path("p/zeros"),
        &[&vec![0; 700_000][..], &bytes[..100_000]].concat(),
    );
    let pack = share(&a, &place.path("p"));
    copy_skeleton(&a, &b, &pack.pack);
    let download = b.begin_download(&spec(&pack, &place.path("out")), &()).unwrap();
    let map = download.content().map().clone();
    let mut blocks: Vec<_> = map
        .iter()
        .map(|(index, leaf)| (index, a.read_leaf(&leaf.cid, leaf.len).unwrap()))
        .collect();
    assert!(blocks.len() > 12);
    // In three streams that take turns, each with every third.
    blocks.sort_by_key(|(index, _)| (index.get() / 6, index.get() % 3));
    for some in blocks.chunks(7) {
        let mut given: Vec<_> = some.iter().map(|(index, bytes)| (*index, &bytes[..])).collect();
        given.push(given[0]);
        given.push((given[1].0, b"short"));
        let outcomes = download.write_pieces(&given);
        assert_eq!(outcomes.len(), given.len());
        let (wrong, good) = outcomes.split_last().unwrap();
        assert!(good.iter().all(Result::is_ok), "{good:?}");
        assert!(matches!(wrong, Err(WriteError::Length { given: 5, .. })), "{wrong:?}");
    }
    assert!(download.have().all());
    download.finish().unwrap();
    assert_eq!(tree(&place.path("out")), tree(&place.path("p")));
    assert!(matches!(
        download.write_pieces(&[(blocks[0].0, &blocks[0].1)])[..],
        [Err(WriteError::Ended)]
    ));
}

#[test]
fn leaves_are_read_together_as_each_by_itself() {
    let place = Place::new();
    let a = place.store("a");
    write(&place.path("p/kept"), &noise(6, 400_000));
    write(&place.path("p/edited"), &noise(7, 400_000));
    let pack = share(&a, &place.path("p"));
    let content = a.skeleton(&pack.pack, None).unwrap().unwrap().content;
    let mut leaves: Vec<_> = content.map().iter().map(|(_, leaf)| (leaf.cid, leaf.len)).collect();
    leaves.insert(2, (Cid::of(Codec::Raw, HashKind::Blake3, b"of no pack"), 10));
    write(&place.path("p/edited"), &noise(8, 400_000));
    let mut read = Vec::new();
    a.read_leaves(&leaves, |number, leaf| read.push((number, leaf)));
    assert!(read.iter().map(|(number, _)| *number).eq(0..leaves.len()));
    let (mut kept, mut lost) = (0, 0);
    for ((cid, len), (number, leaf)) in leaves.iter().zip(read) {
        match leaf {
            Ok(bytes) => {
                assert!(cid.verifies(&bytes) && bytes.len() == *len as usize);
                kept += bytes.len();
            }
            Err(ReadLeafError::NotHere(_)) => assert_eq!(number, 2),
            Err(ReadLeafError::Lost(_)) => lost += *len,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((kept, lost), (400_000, 400_000));
    assert!(!a.take_withdrawn().is_empty(), "peers are told");
}

#[test]
fn a_selection_brings_only_its_files_and_can_grow() {
    let place = Place::new();
    let (a, b) = (place.store("a"), place.store("b"));
    sample(&place.path("p"));
    let pack = share(&a, &place.path("p"));
    copy_skeleton(&a, &b, &pack.pack);
    let out = place.path("out");
    let mut spec = spec(&pack, &out);
    let only = |name: &str| {
        let record = a.packs().unwrap().remove(0);
        let content = a.content(&record).unwrap().unwrap();
        Some(content.files().map(|f| f.path().as_str() == name).collect())
    };
    spec.selection = only("deep/er/файл.txt");
    let download = b.begin_download(&spec, &()).unwrap();
    assert_eq!(download.plan().files, 1);
    assert_eq!(fetch(&a, &download).count_ones(), 1);
    download.finish().unwrap();
    assert_eq!(tree(&out).values().flatten().count(), 1);
    assert!(b.packs().unwrap()[0].partial);

    spec.selection = only(".hidden");
    let download = b.begin_download(&spec, &()).unwrap();
    assert_eq!(download.plan().files, 2, "what is there stays part of it");
    assert_eq!(fetch(&a, &download).count_ones(), 1);
    download.finish().unwrap();
    assert_eq!(tree(&out).values().flatten().count(), 2);
}

#[test]
fn a_leaf_is_read_by_its_cid_only_for_the_network_of_its_pack() {
    let place = Place::new();
    let store = place.store("a");
    let root = place.path("MyPack");
    sample(&root);
    let pack = share(&store, &root);
    let record = store.pack(pack.id).unwrap().unwrap();
    let content = store.content(&record).unwrap().unwrap();
    let mut other = record.network;
    other[0] ^= 1;
    for (_, leaf) in content.map().iter() {
        assert!(
            leaf.cid
                .verifies(&store.read_leaf_in(&leaf.cid, &record.network).unwrap())
        );
        assert!(store.read_leaf_in(&leaf.cid, &other).is_err());
    }
}
