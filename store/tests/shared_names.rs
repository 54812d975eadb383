//! What may be in a folder that is shared: names, symlinks and sockets as only Unix has them.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::symlink, net::UnixListener},
};

use common::*;
use modswarm_store::{ShareError, ShareSpec, Store, Warning};

fn paths(store: &Store, pack: &modswarm_store::SharedPack) -> Vec<String> {
    let record = store.pack(pack.id).unwrap().unwrap();
    let content = store.content(&record).unwrap().unwrap();
    let mut paths: Vec<String> = content.files().map(|f| f.path().to_string()).collect();
    paths.extend(content.dirs().map(|d| format!("{d}/")));
    paths.sort();
    paths
}

#[test]
fn only_modswarmignore_and_litter_leave_files_out() {
    let place = Place::new();
    let store = place.store("home");
    let root = place.path("p");
    for name in [
        "a.log",
        "keep.txt",
        "sub/b.log",
        "sub/c.txt",
        "secret/x",
        ".git/config",
        ".DS_Store",
        "sub/Thumbs.db",
    ] {
        write(&root.join(name), b"x");
    }
    write(&root.join(".gitignore"), b"*\n");
    write(&root.join(".ignore"), b"*\n");
    write(&root.join(".modswarmignore"), b"*.log\n!sub/b.log\nsecret/\n");
    write(&root.join("desktop.ini"), b"x");
    fs::create_dir_all(root.join(".modswarm-abcdefgh-01234567.part")).unwrap();
    write(&root.join(".modswarm-abcdefgh-01234567.part/1"), b"x");
    let pack = share(&store, &root);
    assert_eq!(
        paths(&store, &pack),
        [
            ".git/",
            ".git/config",
            ".gitignore",
            ".ignore",
            "keep.txt",
            "sub/",
            "sub/b.log",
            "sub/c.txt"
        ]
    );
}

#[test]
fn links_and_special_files_are_left_out_with_a_warning() {
    let place = Place::new();
    let store = place.store("home");
    let root = place.path("p");
    write(&root.join("f"), b"x");
    symlink("f", root.join("link")).unwrap();
    symlink("/", root.join("slash")).unwrap();
    let _socket = UnixListener::bind(root.join("socket")).unwrap();
    write(&root.join("F"), b"y");
    write(&root.join("nul.txt"), b"z");
    let watch = Watch::default();
    let pack = store.share(&ShareSpec::new(&root, NETWORK), &watch).unwrap();
    assert_eq!(paths(&store, &pack), ["F", "f", "nul.txt"]);
    let warnings = watch.warnings.into_inner().unwrap();
    let count = |f: fn(&Warning) -> bool| warnings.iter().filter(|w| f(w)).count();
    assert_eq!(count(|w| matches!(w, Warning::SymlinkSkipped(_))), 2);
    assert_eq!(count(|w| matches!(w, Warning::SpecialSkipped(_))), 1);
    assert_eq!(count(|w| matches!(w, Warning::CaseTwins(..))), 1);
    assert_eq!(count(|w| matches!(w, Warning::Unportable { .. })), 1);
}

#[test]
fn names_that_cannot_be_in_a_pack_are_all_shown_escaped() {
    let place = Place::new();
    let store = place.store("home");
    let root = place.path("p");
    write(&root.join("fine"), b"x");
    write(&root.join(OsStr::from_bytes(b"bad\xff")), b"x");
    write(&root.join("new\nline/inside"), b"x");
    let e = store.share(&ShareSpec::new(&root, NETWORK), &()).unwrap_err();
    let ShareError::Names(names) = &e else { panic!("{e}") };
    assert_eq!(names.len(), 2);
    assert!(!e.to_string().contains('\n'), "{e}");
}

#[test]
fn names_that_normalise_to_one_are_refused_and_one_alone_is_normalised() {
    let place = Place::new();
    let store = place.store("home");
    write(&place.path("p/e\u{301}.txt"), b"x");
    let pack = share(&store, &place.path("p"));
    assert_eq!(paths(&store, &pack), ["\u{e9}.txt"]);
    assert_readable(&store, &pack.content);
    write(&place.path("p/\u{e9}.txt"), b"y");
    let e = store.share(&ShareSpec::new(place.path("p"), NETWORK), &()).unwrap_err();
    assert!(matches!(e, ShareError::Twins(twins) if twins.len() == 1));
}

#[test]
fn what_is_not_there_or_not_a_file_is_refused() {
    let place = Place::new();
    let store = place.store("home");
    let refused = |path: &std::path::Path| store.share(&ShareSpec::new(path, NETWORK), &()).unwrap_err();
    assert!(matches!(refused(&place.path("no")), ShareError::NotFound(_)));
    assert!(matches!(refused("/dev/null".as_ref()), ShareError::NotShareable(_)));
}
