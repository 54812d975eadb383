//! Getting version 2 over an installed version 1: what it costs, what is renamed, and what becomes of the user's own files.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::{collections::BTreeMap, fs, path::Path};

use common::*;
use modswarm_store::{BeginError, Conflicts, Download, FinishError, Finished, PackState, SharedPack, Store};

type Tree = BTreeMap<String, Option<Vec<u8>>>;

/// Version 1 as `b` installed it, and version 2 as `a` shares it.
struct Versions {
    place: Place,
    a: Store,
    b: Store,
    one: SharedPack,
    two: SharedPack,
}

impl Versions {
    fn new(first: &[(&str, Vec<u8>)], second: &[(&str, Vec<u8>)]) -> Self {
        let place = Place::new();
        let (a, b) = (place.store("a"), place.store("b"));
        let root = place.path("p");
        fs::create_dir_all(&root).unwrap();
        for (path, bytes) in first {
            write(&root.join(path), bytes);
        }
        let one = share(&a, &root);
        get(&a, &b, &one, &place.path("out"));
        settle();
        // Its leaves are to be had from `a` alone, so that nothing is left of version 1 there. `a` closes what it has read first: some systems keep the name
        // of a deleted file until then.
        drop(a);
        fs::remove_dir_all(&root).unwrap();
        fs::create_dir_all(&root).unwrap();
        for (path, bytes) in second {
            write(&root.join(path), bytes);
        }
        let a = place.store("a");
        let two = share(&a, &root);
        copy_skeleton(&a, &b, &two.pack);
        Self { place, a, b, one, two }
    }

    fn out(&self) -> std::path::PathBuf {
        self.place.path("out")
    }

    fn wanted(&self) -> Tree {
        tree(&self.place.path("p"))
    }

    fn begin(&self, conflicts: Conflicts) -> Result<Download, BeginError> {
        let mut spec = spec(&self.two, &self.out());
        spec.conflicts = conflicts;
        self.b.begin_download(&spec, &())
    }

    fn update(&self, conflicts: Conflicts) -> (u64, Finished) {
        let download = self.begin(conflicts).unwrap();
        download.adopt_local().unwrap();
        let fetched = fetch(&self.a, &download);
        let map = download.content().map().clone();
        let bytes = fetched
            .iter_ones()
            .map(|at| u64::from(map.leaf(map.index(at as u32).unwrap()).len));
        (bytes.sum(), download.finish().unwrap())
    }
}

fn pairs(of: &[(modswarm_protocol::format::PackPath, modswarm_protocol::format::PackPath)]) -> Vec<(&str, &str)> {
    of.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect()
}

fn names(of: &[modswarm_protocol::format::PackPath]) -> Vec<&str> {
    of.iter().map(|path| path.as_str()).collect()
}

fn inode(path: &Path) -> u64 {
    number_and_time(path).0
}

fn changed(seed: u64, len: usize, at: usize) -> Vec<u8> {
    let mut bytes = noise(seed, len);
    bytes[at] ^= 1;
    bytes
}

/// Bytes that files below `dir` take on the disk.
fn allocated(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            match metadata.is_dir() {
                true => allocated(&entry.path()),
                false => disk_bytes(&entry.path()).unwrap_or(metadata.len()),
            }
        })
        .sum()
}

#[test]
fn local_leaves_are_not_copied_before_their_file_lacks_nothing_else() {
    let size = 2_000_000;
    let old: Vec<_> = (0..6).map(|n| (format!("f{n}"), noise(n, size))).collect();
    let new: Vec<_> = (0..6).map(|n| (format!("f{n}"), changed(n, size, size / 2))).collect();
    let by_ref = |files: &[(String, Vec<u8>)]| files.to_vec();
    let (old, new) = (by_ref(&old), by_ref(&new));
    let old: Vec<(&str, Vec<u8>)> = old.iter().map(|(p, b)| (p.as_str(), b.clone())).collect();
    let new: Vec<(&str, Vec<u8>)> = new.iter().map(|(p, b)| (p.as_str(), b.clone())).collect();
    let v = Versions::new(&old, &new);
    let stages = || -> Vec<_> {
        let all = fs::read_dir(v.place.path("")).unwrap();
        all.map(|entry| entry.unwrap().path())
            .filter(|path| path.file_name().unwrap().to_str().unwrap().ends_with(".part"))
            .collect()
    };
    let staged = || stages().iter().map(|stage| allocated(stage)).sum::<u64>();
    let download = v.begin(Conflicts::Refuse).unwrap();
    assert_eq!(staged(), 0, "nothing is copied at the beginning");

    let absent = download.wanted() & !download.have();
    let map = download.content().map().clone();
    let mut fetched = 0;
    let slack = 6 * 8192;
    for at in absent.iter_ones() {
        let index = map.index(at as u32).unwrap();
        let leaf = map.leaf(index);
        fetched += u64::from(leaf.len);
        download
            .write_piece(index, &v.a.read_leaf(&leaf.cid, leaf.len).unwrap())
            .unwrap();
        let peak = fetched + size as u64 + slack;
        assert!(staged() <= peak, "{} staged, {peak} allowed", staged());
    }
    assert!(fetched < 6 * 200_000, "{fetched}");
    download.finish().unwrap();
    assert_eq!(tree(&v.out()), v.wanted());
    assert_readable(&v.b, &v.two.content);
}

#[test]
fn a_leaf_that_only_a_replaced_file_has_is_kept_for_the_files_that_need_it() {
    // Everything moves from one file to the next: each replaced file is the only place of what the next one needs.
    let body = |n: u64| noise(n, 600_000);
    let v = Versions::new(
        &[("a", body(1)), ("b", body(2)), ("c", body(3))],
        &[
            ("a", [body(3), b"x".to_vec()].concat()),
            ("b", [body(1), b"y".to_vec()].concat()),
            ("c", [body(2), b"z".to_vec()].concat()),
        ],
    );
    let (fetched, _) = v.update(Conflicts::Refuse);
    assert!(fetched < 3 * 140_000, "only the ends are new: {fetched}");
    assert_eq!(tree(&v.out()), v.wanted());
    assert_readable(&v.b, &v.two.content);
}

#[test]
fn a_local_leaf_that_is_not_there_after_all_is_fetched() {
    let v = Versions::new(
        &[("a", noise(1, 900_000))],
        &[("new/a", [noise(1, 900_000), noise(2, 900_000)].concat())],
    );
    let download = v.begin(Conflicts::Refuse).unwrap();
    let before = fetch(&v.a, &download);
    fs::remove_file(v.out().join("a")).unwrap();
    while let Err(e) = download.finish() {
        assert!(matches!(e, FinishError::Incomplete(_)), "{e}");
        assert!(download.lost() > 0);
        assert!(fetch(&v.a, &download).any());
    }
    assert!(before.any());
    assert_eq!(tree(&v.out()), v.wanted());
}

#[test]
fn renamed_files_are_renamed_and_not_copied() {
    let v = Versions::new(
        &[("old/Skin_P.pak", noise(1, 400_000)), ("stays", noise(2, 1000))],
        &[
            ("new/deep/Skin_9999999_P.pak", noise(1, 400_000)),
            ("stays", noise(2, 1000)),
        ],
    );
    let before = inode(&v.out().join("old/Skin_P.pak"));
    let (fetched, finished) = v.update(Conflicts::Refuse);
    assert_eq!(fetched, 0);
    assert_eq!(
        pairs(&finished.renamed),
        [("old/Skin_P.pak", "new/deep/Skin_9999999_P.pak")]
    );
    assert!(finished.removed.is_empty());
    assert_eq!(inode(&v.out().join("new/deep/Skin_9999999_P.pak")), before);
    assert_eq!(tree(&v.out()), v.wanted());
    assert_readable(&v.b, &v.two.content);
    let old = v.b.packs_of(&v.one.content).unwrap().remove(0);
    assert_eq!(old.state, PackState::Superseded);
    assert_eq!(
        old.pieces, old.pieces_here,
        "all of version 1 is served under its new names"
    );
}

#[test]
fn names_that_change_places_or_go_round_are_only_renamed() {
    let body = |n: u64| noise(n, 100_000);
    let v = Versions::new(
        &[
            ("a", body(1)),
            ("b", body(2)),
            ("1", body(3)),
            ("2", body(4)),
            ("3", body(5)),
            ("Case", body(6)),
        ],
        &[
            ("b", body(1)),
            ("a", body(2)),
            ("2", body(3)),
            ("3", body(4)),
            ("1", body(5)),
            ("case", body(6)),
        ],
    );
    let inodes: Vec<u64> = ["a", "b", "1", "2", "3"]
        .iter()
        .map(|n| inode(&v.out().join(n)))
        .collect();
    let (fetched, finished) = v.update(Conflicts::Refuse);
    assert_eq!((fetched, finished.renamed.len()), (0, 6));
    let now: Vec<u64> = ["b", "a", "2", "3", "1"]
        .iter()
        .map(|n| inode(&v.out().join(n)))
        .collect();
    assert_eq!(inodes, now);
    assert_eq!(tree(&v.out()), v.wanted());
    assert_readable(&v.b, &v.two.content);
}

#[test]
fn a_new_file_takes_the_name_of_one_that_is_renamed() {
    let v = Versions::new(
        &[("main.pak", noise(1, 300_000))],
        &[("main.pak", noise(2, 300_000)), ("main_old.pak", noise(1, 300_000))],
    );
    let before = inode(&v.out().join("main.pak"));
    let (_, finished) = v.update(Conflicts::Refuse);
    assert_eq!(pairs(&finished.renamed), [("main.pak", "main_old.pak")]);
    assert_eq!(inode(&v.out().join("main_old.pak")), before);
    assert_eq!(tree(&v.out()), v.wanted());
    assert_readable(&v.b, &v.two.content);
}

fn edited() -> Versions {
    let v = Versions::new(
        &[
            ("Skin.pak", noise(1, 300_000)),
            ("other", noise(2, 100_000)),
            ("gone", noise(3, 1000)),
        ],
        &[("Skin.pak", noise(4, 300_000)), ("other", noise(5, 100_000))],
    );
    write(&v.out().join("Skin.pak"), b"edited");
    write(&v.out().join("gone"), b"edited too");
    v
}

#[test]
fn edits_without_a_word_about_them_change_nothing() {
    let v = edited();
    let before = tree(&v.out());
    let Err(BeginError::WouldOverwrite { files, .. }) = v.begin(Conflicts::Refuse) else {
        panic!("it began")
    };
    assert_eq!(names(&files), ["Skin.pak"]);
    assert_eq!(tree(&v.out()), before);
}

#[test]
fn mine_are_kept_and_remembered_and_asked_for_again() {
    let v = edited();
    let (fetched, finished) = v.update(Conflicts::KeepMine);
    assert_eq!(names(&finished.skipped), ["Skin.pak"]);
    assert_eq!(names(&finished.kept), ["gone"]);
    assert_eq!(fetched, 100_000, "what is left out is not fetched");
    assert_eq!(fs::read(v.out().join("Skin.pak")).unwrap(), b"edited");
    assert_eq!(fs::read(v.out().join("other")).unwrap(), noise(5, 100_000));
    let record = v.b.packs_of(&v.two.content).unwrap().remove(0);
    assert_eq!((record.state, record.kept), (PackState::Whole, 1));
    let check = v.b.check_pack(record.id).unwrap();
    assert!(check.missing.is_empty() && check.changed.is_empty(), "{check:?}");
    assert!(matches!(
        v.begin(Conflicts::Refuse),
        Err(BeginError::WouldOverwrite { .. })
    ));
    // Another word, and it is whole.
    v.update(Conflicts::TakeTheirs);
    assert_eq!(fs::read(v.out().join("Skin.pak")).unwrap(), noise(4, 300_000));
    assert_eq!(v.b.packs_of(&v.two.content).unwrap().remove(0).kept, 0);
    assert_readable(&v.b, &v.two.content);
}

#[test]
fn theirs_replace_mine_when_asked() {
    let v = edited();
    let (_, finished) = v.update(Conflicts::TakeTheirs);
    assert_eq!(fs::read(v.out().join("Skin.pak")).unwrap(), noise(4, 300_000));
    assert_eq!(names(&finished.kept), ["gone"]);
    assert_eq!(fs::read(v.out().join("gone")).unwrap(), b"edited too");
}

#[test]
fn both_are_kept_under_clear_names() {
    let v = edited();
    write(&v.out().join("Skin (mine).pak"), b"taken");
    let (_, finished) = v.update(Conflicts::KeepBoth);
    assert_eq!(pairs(&finished.set_aside), [("Skin.pak", "Skin (mine 2).pak")]);
    assert_eq!(fs::read(v.out().join("Skin (mine 2).pak")).unwrap(), b"edited");
    assert_eq!(fs::read(v.out().join("Skin (mine).pak")).unwrap(), b"taken");
    assert_eq!(fs::read(v.out().join("Skin.pak")).unwrap(), noise(4, 300_000));
    assert_readable(&v.b, &v.two.content);
}

#[test]
fn an_edit_that_is_the_new_version_is_adopted_and_a_touched_file_is_no_edit() {
    let v = Versions::new(
        &[("a", noise(1, 200_000)), ("b", noise(2, 200_000))],
        &[("a", noise(3, 200_000)), ("b", noise(4, 200_000))],
    );
    write(&v.out().join("a"), &noise(3, 200_000));
    write(&v.out().join("b"), &noise(2, 200_000));
    let (fetched, _) = v.update(Conflicts::Refuse);
    assert_eq!(fetched, 200_000);
    assert_eq!(tree(&v.out()), v.wanted());
}

/// Edits one file, and puts one in the way, after the download has begun.
fn edited_meanwhile(conflicts: Conflicts) -> (Versions, Result<Finished, FinishError>) {
    let v = Versions::new(
        &[("a", noise(1, 200_000))],
        &[
            ("a", noise(2, 200_000)),
            ("new", noise(3, 1000)),
            ("same", noise(4, 1000)),
        ],
    );
    let download = v.begin(conflicts).unwrap();
    write(&v.out().join("a"), b"edited");
    write(&v.out().join("new"), b"mine");
    write(&v.out().join("same"), &noise(4, 1000));
    fetch(&v.a, &download);
    let finished = download.finish();
    (v, finished)
}

#[test]
fn what_is_edited_meanwhile_is_treated_alike() {
    let (v, finished) = edited_meanwhile(Conflicts::Refuse);
    let Err(FinishError::WouldOverwrite { files, .. }) = finished else {
        panic!("{finished:?}")
    };
    assert_eq!(names(&files), ["a", "new"]);
    assert_eq!(fs::read(v.out().join("a")).unwrap(), b"edited");

    let (v, finished) = edited_meanwhile(Conflicts::KeepMine);
    assert_eq!(names(&finished.unwrap().skipped), ["a", "new"]);
    assert_eq!(fs::read(v.out().join("new")).unwrap(), b"mine");
    assert_eq!(v.b.packs_of(&v.two.content).unwrap()[0].kept, 2);

    let (v, finished) = edited_meanwhile(Conflicts::TakeTheirs);
    finished.unwrap();
    assert_eq!(tree(&v.out()), v.wanted());

    let (v, finished) = edited_meanwhile(Conflicts::KeepBoth);
    assert_eq!(
        pairs(&finished.unwrap().set_aside),
        [("a", "a (mine)"), ("new", "new (mine)")]
    );
    assert_eq!(fs::read(v.out().join("a (mine)")).unwrap(), b"edited");
    assert_eq!(fs::read(v.out().join("a")).unwrap(), noise(2, 200_000));
    assert_readable(&v.b, &v.two.content);
}

#[test]
fn a_preview_says_to_the_byte_what_the_get_then_does() {
    let v = Versions::new(
        &[
            ("same", noise(1, 50_000)),
            ("changes", noise(2, 500_000)),
            ("old-name", noise(3, 70_000)),
            ("goes", noise(4, 90_000)),
            ("edited", noise(5, 1000)),
        ],
        &[
            ("same", noise(1, 50_000)),
            ("changes", changed(2, 500_000, 1000)),
            ("new-name", noise(3, 70_000)),
            ("fresh", noise(6, 120_000)),
            ("edited", noise(7, 1000)),
        ],
    );
    write(&v.out().join("edited"), b"mine");
    let before = tree(&v.out());
    let mut spec = spec(&v.two, &v.out());
    spec.conflicts = Conflicts::KeepBoth;
    let preview = v.b.preview_download(&spec, &()).unwrap();
    assert_eq!(tree(&v.out()), before);
    assert_eq!(v.b.packs().unwrap().len(), 1, "nothing was begun");
    let size = |tree: Tree| tree.values().flatten().map(|bytes| bytes.len() as i64).sum::<i64>();
    let (fetched, finished) = v.update(Conflicts::KeepBoth);
    assert_eq!(preview.bytes_to_fetch, fetched);
    assert_eq!(preview.renamed, finished.renamed);
    assert_eq!(preview.removed, finished.removed);
    assert_eq!(names(&preview.added), ["fresh"]);
    assert_eq!(names(&preview.changed), ["changes", "edited"]);
    assert_eq!(names(&preview.conflicts), ["edited"]);
    assert_eq!(preview.unchanged, 1);
    assert_eq!(preview.disk_change, size(tree(&v.out())) - size(before));
}
