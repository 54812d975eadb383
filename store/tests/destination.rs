//! What stands at a destination is never lost, and nothing is written outside it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::fs;
#[cfg(unix)]
use std::os::unix::fs::symlink;

use common::*;
use modswarm_store::{BeginError, Blockage, Conflicts, FinishError};

struct Case {
    place: Place,
    a: modswarm_store::Store,
    b: modswarm_store::Store,
    pack: modswarm_store::SharedPack,
}

fn case() -> Case {
    let place = Place::new();
    let (a, b) = (place.store("a"), place.store("b"));
    write(&place.path("p/sub/f"), &noise(1, 200_000));
    write(&place.path("p/g"), &noise(2, 1000));
    write(&place.path("p/empty"), b"");
    let pack = share(&a, &place.path("p"));
    copy_skeleton(&a, &b, &pack.pack);
    Case { place, a, b, pack }
}

#[test]
fn an_existing_file_that_differs_stays_and_all_of_them_are_named() {
    let c = case();
    let out = c.place.path("out");
    write(&out.join("g"), b"mine");
    write(&out.join("sub/f"), &noise(3, 200_000));
    write(&out.join("other"), b"not of the pack");
    let before = tree(&out);
    let e = c.b.begin_download(&spec(&c.pack, &out), &()).unwrap_err();
    assert!(
        matches!(&e, BeginError::WouldOverwrite { files, .. } if files.len() == 2),
        "{e}"
    );
    assert_eq!(tree(&out), before);
    assert!(c.b.packs().unwrap().is_empty(), "nothing was begun");

    let mut spec = spec(&c.pack, &out);
    spec.conflicts = Conflicts::TakeTheirs;
    let download = c.b.begin_download(&spec, &()).unwrap();
    assert_eq!(
        fs::read(out.join("g")).unwrap(),
        b"mine",
        "the old file stands until the new one is whole"
    );
    fetch(&c.a, &download);
    download.finish().unwrap();
    assert_eq!(fs::read(out.join("g")).unwrap(), noise(2, 1000));
    assert_eq!(fs::read(out.join("other")).unwrap(), b"not of the pack");
}

#[test]
fn an_existing_file_with_the_same_bytes_is_adopted() {
    let c = case();
    let out = c.place.path("out");
    write(&out.join("sub/f"), &noise(1, 200_000));
    let watch = Watch::default();
    let download = c.b.begin_download(&spec(&c.pack, &out), &watch).unwrap();
    assert_eq!(watch.hashed(), 200_000);
    assert_eq!(fetch(&c.a, &download).count_ones(), 1);
    download.finish().unwrap();
    assert_readable(&c.b, &c.pack.content);
}

// Windows lets only administrators make symlinks.
#[cfg(unix)]
#[test]
fn a_planted_symlink_is_never_written_through() {
    let c = case();
    let (out, outside) = (c.place.path("out"), c.place.path("outside"));
    fs::create_dir_all(&outside).unwrap();
    fs::create_dir_all(&out).unwrap();
    symlink(&outside, out.join("sub")).unwrap();
    let e = c.b.begin_download(&spec(&c.pack, &out), &()).unwrap_err();
    assert!(
        matches!(&e, BeginError::Blocked(b) if matches!(b[0], Blockage::Symlink(_))),
        "{e}"
    );

    // Planted while the download is under way.
    fs::remove_file(out.join("sub")).unwrap();
    let download = c.b.begin_download(&spec(&c.pack, &out), &()).unwrap();
    symlink(&outside, out.join("sub")).unwrap();
    symlink(outside.join("through"), out.join("g")).unwrap();
    fetch(&c.a, &download);
    let e = download.finish().unwrap_err();
    assert!(matches!(&e, FinishError::Blocked(_)), "{e}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert!(out.join("g").symlink_metadata().unwrap().is_symlink());

    // Out of the way, it goes on without fetching anything again.
    fs::remove_file(out.join("sub")).unwrap();
    fs::remove_file(out.join("g")).unwrap();
    download.finish().unwrap();
    assert_eq!(tree(&out), tree(&c.place.path("p")));
}

#[test]
fn folders_and_files_in_each_others_place_are_refused_clearly() {
    let c = case();
    let out = c.place.path("out");
    fs::create_dir_all(out.join("g")).unwrap();
    write(&out.join("sub"), b"a file");
    let mut spec = spec(&c.pack, &out);
    spec.conflicts = Conflicts::TakeTheirs;
    let e = c.b.begin_download(&spec, &()).unwrap_err();
    let BeginError::Blocked(blocked) = &e else {
        panic!("{e}")
    };
    assert!(blocked.iter().any(|b| matches!(b, Blockage::FolderForFile(_))));
    assert!(blocked.iter().any(|b| matches!(b, Blockage::FileForFolder(_))));
    write(&c.place.path("file"), b"x");
    spec.destination = c.place.path("file");
    assert!(matches!(c.b.begin_download(&spec, &()), Err(BeginError::Blocked(_))));
    assert_eq!(fs::read(c.place.path("file")).unwrap(), b"x");
}

#[test]
fn a_file_that_appears_meanwhile_is_not_overwritten() {
    let c = case();
    let out = c.place.path("out");
    let download = c.b.begin_download(&spec(&c.pack, &out), &()).unwrap();
    write(&out.join("g"), b"appeared");
    fetch(&c.a, &download);
    let e = download.finish().unwrap_err();
    assert!(
        matches!(&e, FinishError::WouldOverwrite { files, .. } if files[0].as_str() == "g"),
        "{e}"
    );
    assert_eq!(fs::read(out.join("g")).unwrap(), b"appeared");
    assert!(out.join("sub/f").exists(), "the others are in place");
    fs::remove_file(out.join("g")).unwrap();
    download.finish().unwrap();
    assert_eq!(fs::read(out.join("g")).unwrap(), noise(2, 1000));
}

#[test]
fn a_file_deleted_before_the_end_is_fetched_again() {
    let c = case();
    let out = c.place.path("out");
    let download = c.b.begin_download(&spec(&c.pack, &out), &()).unwrap();
    fetch(&c.a, &download);
    c.b.flush().unwrap();
    fs::remove_file(out.join("sub/f")).unwrap();
    fs::remove_file(out.join("empty")).unwrap();
    assert!(matches!(download.finish(), Err(FinishError::Incomplete(_))));
    fetch(&c.a, &download);
    download.finish().unwrap();
    assert_eq!(tree(&out), tree(&c.place.path("p")));
}

#[test]
fn two_downloads_to_one_place_are_refused() {
    let c = case();
    let spec = spec(&c.pack, &c.place.path("out"));
    let first = c.b.begin_download(&spec, &()).unwrap();
    assert!(matches!(c.b.begin_download(&spec, &()), Err(BeginError::InUse(_))));
    drop(first);
    assert!(c.b.begin_download(&spec, &()).is_ok());
}
