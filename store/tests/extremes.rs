//! Large, many, and no room left.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::{fs, process::Command};

use common::*;
use modswarm_store::{BeginError, WriteError};

/// A number of small files, for systems on which ten thousand take too long.
const SMALL_FILES: &str = "MODSWARM_SMALL_FILES";

#[test]
fn a_sparse_file_over_four_gigabytes_goes_the_whole_way() {
    const SIZE: u64 = 5 << 30;
    let place = Place::new();
    let (a, b) = (place.store("a"), place.store("b"));
    fs::create_dir(place.path("p")).unwrap();
    let file = fs::File::create(place.path("p/huge")).unwrap();
    file.set_len(SIZE).unwrap();
    drop(file);
    write_at(&place.path("p/huge"), (4 << 30) + 77, b"in the middle");
    let pack = share(&a, &place.path("p"));
    assert_eq!(pack.bytes, SIZE);
    assert!(pack.blocks < 10, "zeros are one leaf");
    get(&a, &b, &pack, &place.path("out"));
    let out = place.path("out/huge");
    assert_eq!(fs::metadata(&out).unwrap().len(), SIZE);
    assert_eq!(read_at(&out, (4 << 30) + 77, 13), b"in the middle");
    assert!(
        disk_bytes(&out).is_none_or(|bytes| bytes < 64 << 20),
        "runs of zeros stay sparse"
    );
}

#[test]
fn ten_thousand_small_files_go_the_whole_way() {
    let files: u64 = std::env::var(SMALL_FILES).map_or(10_000, |number| number.parse().unwrap());
    let place = Place::new();
    let (a, b) = (place.store("a"), place.store("b"));
    for n in 0..files {
        write(
            &place.path("p").join(format!("{}/{n}.json", n % 37)),
            &noise(n, (n % 900) as usize),
        );
    }
    settle();
    let pack = share(&a, &place.path("p"));
    assert_eq!(pack.files, files);
    assert_eq!(share(&a, &place.path("p")).bytes_hashed, 0);
    get(&a, &b, &pack, &place.path("out"));
    assert_eq!(tree(&place.path("out")), tree(&place.path("p")));
}

#[test]
fn a_leaf_in_a_hundred_thousand_places_is_written_to_each_and_found_in_any() {
    const FILES: usize = 100;
    const LEAF: usize = 512;
    let place = Place::new();
    let (a, b) = (place.store("a"), place.store("b"));
    let pattern = noise(1, LEAF);
    let file = |n: usize| [pattern.repeat(1000), noise(100 + n as u64, LEAF)].concat();
    for n in 0..FILES {
        write(&place.path("p").join(format!("{n:03}.pak")), &file(n));
    }
    settle();
    let mut spec = modswarm_store::ShareSpec::new(place.path("p"), [0; 32]);
    spec.profile = modswarm_protocol::format::ChunkerProfile::fixed(LEAF as u32);
    let pack = a.share(&spec, &()).unwrap();
    assert_eq!(pack.blocks, 1 + FILES as u64);
    get(&a, &b, &pack, &place.path("out"));
    assert_eq!(tree(&place.path("out")), tree(&place.path("p")));
    // Wherever it is left, it is found: most of its places are not in the index.
    let leaf = modswarm_protocol::Cid::of(
        modswarm_protocol::format::Codec::Raw,
        modswarm_protocol::format::HashKind::Blake3,
        &pattern,
    );
    let out = |n: usize| place.path("out").join(format!("{n:03}.pak"));
    for n in 0..FILES - 2 {
        if n % 3 == 0 {
            write(&out(n), &noise(500, LEAF * 1001));
        } else {
            take_away(&out(n), &place.path("away"));
        }
        if n % 7 == 0 || n == FILES - 3 {
            let read = b.read_leaf(&leaf, LEAF as u32);
            assert_eq!(read.unwrap_or_else(|e| panic!("after file {n}: {e}")), pattern);
        }
    }
    b.look_again(b.packs().unwrap()[0].id).unwrap();
    assert_eq!(b.read_leaf(&leaf, LEAF as u32).unwrap(), pattern);
    let withdrawn = b.take_withdrawn();
    assert!(
        withdrawn.iter().all(|lost| !lost.pieces[0]),
        "nobody was told that it is lost"
    );
    for n in [FILES - 2, FILES - 1] {
        take_away(&out(n), &place.path("away"));
    }
    settle();
    b.check_pack(b.packs().unwrap()[0].id).unwrap();
    b.read_leaf(&leaf, LEAF as u32).unwrap_err();
    assert!(b.take_withdrawn().iter().any(|lost| lost.pieces[0]));
}

/// A small file system of its own, where this user may mount one.
struct Tmpfs(std::path::PathBuf);

impl Tmpfs {
    fn mount(at: std::path::PathBuf, size: &str) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let size = format!("size={size}");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&at)
            .status();
        status.is_ok_and(|s| s.success()).then_some(Self(at))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_said_before_and_during_and_loses_nothing() {
    let place = Place::new();
    let Some(disk) = Tmpfs::mount(place.path("disk"), "8m") else {
        println!("skipped: this user cannot mount a tmpfs");
        return;
    };
    let (a, b) = (place.store("a"), place.store("b"));
    write(&place.path("p/f"), &noise(1, 6_000_000));
    let pack = share(&a, &place.path("p"));
    copy_skeleton(&a, &b, &pack.pack);
    let spec = spec(&pack, &disk.0.join("out"));
    let ballast = disk.0.join("ballast");
    write(&ballast, &vec![1; 4_000_000]);
    let e = b.begin_download(&spec, &()).unwrap_err();
    assert!(matches!(e, BeginError::DiskFull { needed: 6_000_000, .. }), "{e}");
    fs::remove_file(&ballast).unwrap();

    let download = b.begin_download(&spec, &()).unwrap();
    write(&ballast, &vec![1; 4_000_000]);
    let mut full = 0;
    let map = download.content().map().clone();
    let leaves: Vec<_> = map.iter().collect();
    // Of those that are written together the first may still find room.
    for some in leaves.chunks(5) {
        let blocks: Vec<_> = some
            .iter()
            .map(|(_, leaf)| a.read_leaf(&leaf.cid, leaf.len).unwrap())
            .collect();
        let given: Vec<_> = some
            .iter()
            .zip(&blocks)
            .map(|((index, _), bytes)| (*index, &bytes[..]))
            .collect();
        for outcome in download.write_pieces(&given) {
            match outcome {
                Ok(()) => {}
                Err(WriteError::DiskFull(_)) => full += 1,
                Err(e) => panic!("{e}"),
            }
        }
    }
    assert!(full > 0 && download.have().any());
    fs::remove_file(&ballast).unwrap();
    assert_eq!(fetch(&a, &download).count_ones(), full);
    download.finish().unwrap();
    assert_eq!(tree(&disk.0.join("out")), tree(&place.path("p")));
}

#[test]
fn a_home_has_one_owner_and_gives_itself_back() {
    let place = Place::new();
    let store = place.store("home");
    assert!(
        modswarm_store::HomeLock::try_acquire(&place.path("home"))
            .unwrap()
            .is_none()
    );
    store.set_setting("notice", "shown").unwrap();
    drop(store);
    let store = place.store("home");
    assert_eq!(store.setting("notice").unwrap().as_deref(), Some("shown"));
}

#[test]
fn a_damaged_index_is_said_to_be_damaged() {
    let place = Place::new();
    drop(place.store("home"));
    for name in ["index.sqlite-wal", "index.sqlite-shm"] {
        let _ = fs::remove_file(place.path("home").join(name));
    }
    write(&place.path("home/index.sqlite"), &noise(1, 100_000));
    let lock = modswarm_store::HomeLock::try_acquire(&place.path("home"))
        .unwrap()
        .unwrap();
    let e = modswarm_store::Store::open(lock, modswarm_store::StoreOptions::default()).unwrap_err();
    assert!(
        matches!(e, modswarm_store::OpenError::Index(modswarm_store::IndexError::Corrupt)),
        "{e}"
    );
}
