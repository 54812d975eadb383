//! Names that Windows keeps for devices or does not allow: warned of at share, served all the same, refused or left out at get where they cannot be created.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::{fs, path::PathBuf};

use bitvec::vec::BitVec;
use common::*;
use modswarm_protocol::{
    Cid, Codec, HashKind,
    format::{ContentBuilder, Leaf, Name},
};
use modswarm_store::{BeginError, Conflicts, DownloadSpec, Store, Warning};

/// Names, and a word of why Windows refuses them.
const NAMES: &[(&str, &str)] = &[
    ("CON", "device"),
    ("nul.txt", "device"),
    ("COM0", "device"),
    ("lpt9.tar.gz", "device"),
    ("trailing.", "dot or space"),
    ("trailing ", "dot or space"),
    ("a:stream", "':'"),
    ("C:evil", "':'"),
    ("what?", "'?'"),
];

fn leaf(bytes: &[u8]) -> Leaf {
    Leaf {
        cid: Cid::of(Codec::Raw, HashKind::Blake3, bytes),
        len: bytes.len() as u32,
    }
}

/// A content of the files `files`, each of which holds its own path, and of the empty folders `dirs`; `store` has its nodes.
fn content(store: &Store, files: &[&str], dirs: &[&str]) -> Cid {
    let mut builder = ContentBuilder::new(HashKind::Blake3);
    for path in files {
        builder
            .add_file(path.parse().unwrap(), [leaf(path.as_bytes())])
            .unwrap();
    }
    for path in dirs {
        builder.add_dir(path.parse().unwrap()).unwrap();
    }
    let built = builder.finish().unwrap();
    store.put_nodes(&built.nodes).unwrap();
    built.cid
}

fn spec_of(content: Cid, destination: PathBuf) -> DownloadSpec {
    DownloadSpec {
        pack: None,
        content,
        name: Name::new("Pack").unwrap(),
        destination,
        selection: None,
        conflicts: Conflicts::Refuse,
        network: NETWORK,
    }
}

/// Gets what [`content`] made.
fn get_all(store: &Store, spec: &DownloadSpec, files: &[&str], watch: &Watch) {
    let download = store.begin_download(spec, watch).unwrap();
    for at in (download.wanted() & !download.have()).iter_ones() {
        let index = download.content().map().index(at as u32).unwrap();
        let wanted = download.content().map().leaf(index);
        let bytes = files
            .iter()
            .find(|path| leaf(path.as_bytes()).cid == wanted.cid)
            .unwrap();
        download.write_piece(index, bytes.as_bytes()).unwrap();
    }
    download.finish().unwrap();
}

#[test]
fn they_are_warned_of_at_share_and_served() {
    let place = Place::new();
    let store = place.store("home");
    // In this spelling of a path Windows takes names letter by letter, as other systems always do.
    let root = fs::canonicalize(place.dir.path()).unwrap().join("p");
    fs::create_dir(&root).unwrap();
    write(&root.join("plain.txt"), b"plain");
    // No program of Windows makes the others.
    let possible = |name: &str| cfg!(unix) || !name.contains([':', '?']);
    let names: Vec<&str> = NAMES
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| possible(name))
        .collect();
    for name in &names {
        write(&root.join(name), &noise(name.len() as u64, 50_000));
    }
    for folder in ["aux", "dots..."] {
        fs::create_dir(root.join(folder)).unwrap();
        write(&root.join(folder).join("inside.txt"), folder.as_bytes());
    }
    settle();
    let watch = Watch::default();
    let pack = store
        .share(&modswarm_store::ShareSpec::new(place.path("p"), NETWORK), &watch)
        .unwrap();
    assert_eq!(pack.files, 1 + names.len() as u64 + 2);
    let warnings = watch.warnings.into_inner().unwrap();
    let mut warned: Vec<&str> = warnings
        .iter()
        .map(|warning| match warning {
            Warning::Unportable { path, .. } => path.as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    warned.sort_unstable();
    let mut wanted: Vec<&str> = names.iter().copied().chain(["aux", "dots..."]).collect();
    wanted.sort_unstable();
    assert_eq!(warned, wanted);
    assert_readable(&store, &pack.content);
    let check = store.check_pack(pack.id).unwrap();
    assert!(check.missing.is_empty() && check.changed.is_empty(), "{check:?}");
    assert_eq!(share(&store, &place.path("p")).bytes_hashed, 0, "they are known again");
    assert_eq!(store.verify_pack(pack.id, &()).unwrap().bad, []);
}

#[test]
fn files_are_created_as_they_are_or_refused_by_name_before_anything_is_written() {
    for (name, why) in NAMES {
        for path in [(*name).to_owned(), format!("{name}/inside.txt")] {
            println!("{path:?}");
            let place = Place::new();
            let store = place.store("home");
            let files = ["plain.txt", &path];
            let content = content(&store, &files, &[]);
            let mut spec = spec_of(content, place.path("in/Pack"));
            if cfg!(unix) {
                get_all(&store, &spec, &files, &Watch::default());
                assert_eq!(tree(&place.path("in/Pack"))[&path].as_deref(), Some(path.as_bytes()));
                continue;
            }
            let refused = store.begin_download(&spec, &()).unwrap_err();
            let BeginError::Blocked(blockages) = &refused else {
                panic!("{refused}")
            };
            let text = blockages[0].to_string();
            assert!(blockages.len() == 1 && text.contains(path.as_str()), "{text}");
            assert!(text.contains(why) && text.contains("--only"), "{text}");
            assert!(!place.path("in").exists(), "something was written");
            // The rest can be had.
            let record = store.skeleton(&content, Some(&spec.name)).unwrap().unwrap();
            let files_of = record.content.files();
            spec.selection = Some(
                files_of
                    .map(|file| file.path().as_str() == "plain.txt")
                    .collect::<BitVec>(),
            );
            get_all(&store, &spec, &files, &Watch::default());
            assert_eq!(tree(&place.path("in/Pack")).keys().collect::<Vec<_>>(), ["plain.txt"]);
        }
    }
}

#[test]
fn empty_folders_are_created_as_they_are_or_left_out_with_a_warning() {
    for (name, _) in NAMES {
        for path in [(*name).to_owned(), format!("sub/{name}")] {
            println!("{path:?}");
            let place = Place::new();
            let store = place.store("home");
            let files = ["plain.txt"];
            let content = content(&store, &files, &[&path]);
            let spec = spec_of(content, place.path("in/Pack"));
            let watch = Watch::default();
            get_all(&store, &spec, &files, &watch);
            let warnings = watch.warnings.into_inner().unwrap();
            let out = tree(&place.path("in"));
            if cfg!(unix) {
                assert!(warnings.is_empty(), "{warnings:?}");
                assert_eq!(out[&format!("Pack/{path}")], None);
            } else {
                assert!(
                    matches!(&warnings[..], [Warning::Unportable { path: left, .. }] if left.as_str() == path),
                    "{warnings:?}"
                );
                let mut left: Vec<&str> = out.keys().map(String::as_str).collect();
                left.retain(|path| *path != "Pack/sub");
                assert_eq!(left, ["Pack", "Pack/plain.txt"]);
            }
            // Nor is anything beside it touched when the pack goes.
            let id = store.packs().unwrap()[0].id;
            store.remove_pack(id, true).unwrap();
            assert!(!place.path("in/Pack").exists());
        }
    }
}

#[test]
fn the_folder_of_a_pack_has_a_name_that_this_system_can_create() {
    let place = Place::new();
    for (name, _) in NAMES {
        let folder = modswarm_store::folder_name(&Name::new(name).unwrap());
        let path = place.path("").join(folder.as_str());
        fs::create_dir(&path).unwrap();
        let found = fs::read_dir(place.dir.path()).unwrap().next().unwrap().unwrap();
        assert_eq!(found.file_name().to_str(), Some(folder.as_str()), "{name:?}");
        fs::remove_dir(found.path()).unwrap();
        assert_eq!(folder.as_str() == *name, cfg!(unix), "{name:?}");
    }
}
