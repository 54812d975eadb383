//! Symlinks, hard links, files and folders that appear at the destination at every moment of a get.

use std::{fs, os::unix::fs::symlink, path::PathBuf, process::Command};

use modswarm_store::{Conflicts, DownloadSpec, FinishError, SharedPack, Store};

use super::{assert_helps, common::*, words};

/// A pack, two homes, and a folder of the user's that no get has any business in.
pub(super) struct Case {
    pub(super) place: Place,
    pub(super) a: Store,
    pub(super) b: Store,
    pub(super) pack: SharedPack,
}

pub(super) fn case() -> Case {
    let place = Place::new();
    let (a, b) = (place.store("a"), place.store("b"));
    write(&place.path("p/sub/f"), &noise(1, 400_000));
    write(&place.path("p/sub/deeper/h"), &noise(4, 3000));
    write(&place.path("p/g"), &noise(2, 1000));
    write(&place.path("p/empty"), b"");
    write(&place.path("outside/precious"), b"mine");
    write(&place.path("outside/sub/f"), b"mine as well");
    fs::create_dir(place.path("in")).unwrap();
    let pack = share(&a, &place.path("p"));
    copy_skeleton(&a, &b, &pack.pack);
    Case { place, a, b, pack }
}

impl Case {
    pub(super) fn out(&self) -> PathBuf {
        self.place.path("in/out")
    }

    pub(super) fn spec(&self) -> DownloadSpec {
        spec(&self.pack, &self.out())
    }

    /// The staging folder of a get that was begun.
    pub(super) fn stage(&self) -> PathBuf {
        let entries = fs::read_dir(self.place.path("in"))
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let mut stages = entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(".modswarm-"));
        stages.next().expect("a get was begun")
    }

    /// Where the staging folder will be: of a get that is begun and forgotten again.
    pub(super) fn stage_to_be(&self) -> PathBuf {
        let download = self.b.begin_download(&self.spec(), &()).unwrap();
        let (id, stage) = (download.id(), self.stage());
        drop(download);
        self.b.remove_pack(id, false).unwrap();
        assert!(!stage.exists());
        stage
    }

    /// Begins, fetches and ends a get; `at` is called at each moment with its number: before it, after its beginning, half-way, before its end. What turns out
    /// to be missing at the end is fetched again, as the node does.
    pub(super) fn get(&self, spec: &DownloadSpec, mut at: impl FnMut(usize)) -> Result<(), String> {
        at(0);
        let download = self.b.begin_download(spec, &()).map_err(|e| words(&e))?;
        at(1);
        let half = (download.wanted() & !download.have()).count_ones() / 2;
        let mut written = 0;
        for round in 0..4 {
            let absent = download.wanted() & !download.have();
            for piece in absent.iter_ones() {
                if written == half {
                    self.b.flush().map_err(|e| words(&e))?;
                    at(2);
                }
                written += 1;
                let index = download.content().map().index(piece as u32).unwrap();
                let leaf = download.content().map().leaf(index);
                let bytes = self.a.read_leaf(&leaf.cid, leaf.len).unwrap();
                download.write_piece(index, &bytes).map_err(|e| words(&e))?;
            }
            if round == 0 {
                at(3);
            }
            match download.finish() {
                Ok(_) => return Ok(()),
                Err(FinishError::Incomplete(_)) => {}
                Err(e) => return Err(words(&e)),
            }
        }
        Err("pieces are missing again and again".to_owned())
    }

    #[track_caller]
    pub(super) fn assert_outside_untouched(&self) {
        let outside = tree(&self.place.path("outside"));
        let names: Vec<&String> = outside.keys().collect();
        assert_eq!(names, ["precious", "sub", "sub/f"]);
        assert_eq!(outside["precious"].as_deref(), Some(&b"mine"[..]));
        assert_eq!(outside["sub/f"].as_deref(), Some(&b"mine as well"[..]));
    }

    /// With nothing in the way any more, the same get goes through and nothing of it is left over.
    #[track_caller]
    pub(super) fn assert_goes_through(&self) {
        self.get(&self.spec(), |_| {}).unwrap();
        assert_eq!(tree(&self.out()), tree(&self.place.path("p")));
        assert_readable(&self.b, &self.pack.content);
        let left: Vec<_> = fs::read_dir(self.place.path("in"))
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left, ["out"]);
    }
}

/// Puts a symlink to `target` at `spot`; what stands there goes aside.
fn plant(case: &Case, spot: &str, target: &str) {
    let spot = case.place.path(spot);
    if spot.symlink_metadata().is_ok() {
        fs::rename(&spot, case.place.path("aside")).unwrap();
    }
    fs::create_dir_all(spot.parent().unwrap()).unwrap();
    symlink(case.place.path(target), &spot).unwrap();
}

/// Takes it away again, and puts back what stood there.
fn mend(case: &Case, spot: &str) {
    let spot = case.place.path(spot);
    fs::remove_file(&spot).unwrap();
    if case.place.path("aside").exists() {
        fs::rename(case.place.path("aside"), &spot).unwrap();
    }
}

/// What a symlink at `spot` to `target` does to a get, planted at every moment but those before `first`.
fn try_everywhere(spot: &str, target: &str, first: usize, part: &str) {
    for moment in first..4 {
        for conflicts in [Conflicts::Refuse, Conflicts::TakeTheirs, Conflicts::KeepBoth] {
            println!("{spot} -> {target} at moment {moment} with {conflicts:?}");
            let case = case();
            let spec = DownloadSpec {
                conflicts,
                ..case.spec()
            };
            let got = case.get(&spec, |now| {
                if now == moment {
                    plant(&case, spot, target);
                }
            });
            case.assert_outside_untouched();
            if let Err(text) = got {
                // Which flag to use is for the caller to say.
                assert!(text.contains(part), "{part:?} is missing in: {text}");
                assert!(
                    case.place.path(spot).symlink_metadata().unwrap().is_symlink(),
                    "it was taken away unasked"
                );
                mend(&case, spot);
            } else if case
                .place
                .path(spot)
                .symlink_metadata()
                .is_ok_and(|found| found.is_symlink())
            {
                // The get had no more business there.
                mend(&case, spot);
            }
            case.assert_goes_through_again();
        }
    }
}

impl Case {
    /// As [`Case::assert_goes_through`], where names that were set aside may stand beside the pack's files.
    #[track_caller]
    fn assert_goes_through_again(&self) {
        self.get(&self.spec(), |_| {}).unwrap();
        let (out, expected) = (tree_of_files(&self.out()), tree_of_files(&self.place.path("p")));
        for (path, bytes) in &expected {
            assert_eq!(out.get(path), Some(bytes), "{path}");
        }
        self.assert_outside_untouched();
    }
}

/// Regular files only: symlinks that were set aside are not followed.
fn tree_of_files(root: &std::path::Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut files = std::collections::BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                let name = entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }
    files
}

// A symlink that is there before the get begins is the destination that the user chose.
#[test]
fn a_symlink_planted_at_the_destination_is_not_followed() {
    try_everywhere("in/out", "outside", 1, "symbolic link");
}

#[test]
fn a_symlink_planted_above_the_destination_is_not_followed() {
    try_everywhere("in", "outside", 1, "symbolic link");
}

#[test]
fn a_symlink_planted_at_a_folder_of_the_pack_is_not_followed() {
    try_everywhere("in/out/sub", "outside/sub", 0, "symbolic link");
    try_everywhere("in/out/sub/deeper", "outside", 0, "symbolic link");
}

#[test]
fn a_symlink_planted_at_a_file_of_the_pack_is_not_written_through() {
    try_everywhere("in/out/g", "outside/precious", 0, "would be overwritten");
    // One that leads nowhere is not made to lead somewhere.
    try_everywhere("in/out/sub/f", "outside/new", 0, "would be overwritten");
}

#[test]
fn a_symlink_to_nowhere_at_the_destination_is_not_made_a_folder() {
    let case = case();
    plant(&case, "in/out", "outside/new");
    let refused = case.get(&case.spec(), |_| {}).unwrap_err();
    assert_helps(&refused, &["symbolic link", "in/out"]);
    case.assert_outside_untouched();
    mend(&case, "in/out");
    case.assert_goes_through();
}

#[test]
fn a_hard_link_at_the_destination_is_replaced_and_never_written_to() {
    let case = case();
    fs::create_dir(case.out()).unwrap();
    fs::hard_link(case.place.path("outside/precious"), case.out().join("g")).unwrap();
    let refused = case.get(&case.spec(), |_| {}).unwrap_err();
    assert!(
        refused.contains("would be overwritten") && refused.contains(": g"),
        "{refused}"
    );
    let spec = DownloadSpec {
        conflicts: Conflicts::TakeTheirs,
        ..case.spec()
    };
    case.get(&spec, |_| {}).unwrap();
    case.assert_outside_untouched();
    assert_eq!(fs::read(case.out().join("g")).unwrap(), noise(2, 1000));
    case.assert_goes_through();
}

#[test]
fn an_update_of_a_file_that_is_linked_to_from_outside_leaves_the_other_name_as_it_is() {
    let case = case();
    case.assert_goes_through();
    fs::hard_link(case.out().join("g"), case.place.path("copy")).unwrap();
    fs::hard_link(case.out().join("sub/f"), case.place.path("copy of f")).unwrap();
    settle();
    write(&case.place.path("p/g"), &noise(7, 1000));
    let mut longer = noise(1, 400_000);
    longer.extend_from_slice(&noise(8, 1000));
    write(&case.place.path("p/sub/f"), &longer);
    let second = share(&case.a, &case.place.path("p"));
    copy_skeleton(&case.a, &case.b, &second.pack);
    let spec = DownloadSpec {
        conflicts: Conflicts::TakeTheirs,
        ..spec(&second, &case.out())
    };
    case.get(&spec, |_| {}).unwrap();
    assert_eq!(tree(&case.out()), tree(&case.place.path("p")));
    assert_eq!(fs::read(case.place.path("copy")).unwrap(), noise(2, 1000));
    assert_eq!(fs::read(case.place.path("copy of f")).unwrap(), noise(1, 400_000));
}

#[test]
fn a_file_for_a_folder_and_a_folder_for_a_file_stay_whenever_they_appear() {
    for moment in 0..4 {
        println!("moment {moment}");
        let case = case();
        let mine = case.out().join("sub/deeper");
        let folder = case.out().join("g/notes.txt");
        let got = case.get(&case.spec(), |now| {
            // By then both may be in their places, and are the pack's.
            if now == moment && mine.symlink_metadata().is_err() {
                write(&mine, b"a file of mine");
            }
            if now == moment && folder.parent().unwrap().symlink_metadata().is_err() {
                write(&folder, b"in a folder of mine");
            }
        });
        if let Err(text) = got {
            assert_helps(&text, &["stands at", "move it away"]);
        }
        if mine.is_file() {
            assert_eq!(fs::read(&mine).unwrap(), b"a file of mine");
            fs::remove_file(&mine).unwrap();
        }
        if folder.exists() {
            assert_eq!(fs::read(&folder).unwrap(), b"in a folder of mine");
            fs::remove_dir_all(folder.parent().unwrap()).unwrap();
        }
        case.assert_goes_through();
    }
}

#[test]
fn a_pipe_in_the_way_is_named_and_nobody_waits_for_it() {
    let case = case();
    fs::create_dir(case.out()).unwrap();
    let made = Command::new("mkfifo").arg(case.out().join("g")).status();
    if !made.is_ok_and(|status| status.success()) {
        println!("skipped: there is no mkfifo");
        return;
    }
    let spec = DownloadSpec {
        conflicts: Conflicts::TakeTheirs,
        ..case.spec()
    };
    let refused = case.get(&spec, |_| {}).unwrap_err();
    assert_helps(&refused, &["out/g", "neither a file nor a folder"]);
    fs::remove_file(case.out().join("g")).unwrap();
    case.assert_goes_through();
}

#[test]
fn symlinks_planted_during_an_update_are_not_followed() {
    for spot in ["in/out", "in/out/sub"] {
        for moment in 0..4 {
            println!("{spot} at moment {moment}");
            let case = case();
            case.assert_goes_through();
            settle();
            // A file that only gets another name, one that changes, and one that goes.
            fs::rename(case.place.path("p/sub/deeper/h"), case.place.path("p/sub/renamed")).unwrap();
            fs::remove_dir(case.place.path("p/sub/deeper")).unwrap();
            write(&case.place.path("p/sub/f"), &noise(9, 400_000));
            fs::remove_file(case.place.path("p/empty")).unwrap();
            let second = share(&case.a, &case.place.path("p"));
            copy_skeleton(&case.a, &case.b, &second.pack);
            let new = spec(&second, &case.out());
            let got = case.get(&new, |now| {
                // Before the beginning it is the user's own choice of a place.
                if now == moment && (now > 0 || spot != "in/out") {
                    plant(&case, spot, "outside");
                }
            });
            case.assert_outside_untouched();
            if let Err(text) = got {
                assert_helps(&text, &["symbolic link"]);
            }
            if case.place.path(spot).symlink_metadata().unwrap().is_symlink() {
                mend(&case, spot);
            }
            case.get(&new, |_| {}).unwrap();
            assert_eq!(tree(&case.out()), tree(&case.place.path("p")));
            case.assert_outside_untouched();
        }
    }
}

#[test]
fn a_pack_is_neither_moved_nor_deleted_through_a_symlink() {
    let case = case();
    case.assert_goes_through();
    let id = case.b.packs().unwrap()[0].id;
    symlink(case.place.path("outside"), case.place.path("elsewhere")).unwrap();
    let refused = words(&case.b.move_pack(id, &case.place.path("elsewhere"), &()).unwrap_err());
    assert_helps(&refused, &["something at"]);
    case.assert_outside_untouched();
    assert_eq!(tree(&case.out()), tree(&case.place.path("p")));

    // The user's own files of the same names and bytes, where one of the pack's folders was.
    fs::rename(case.out().join("sub"), case.place.path("aside")).unwrap();
    write(&case.place.path("twin/f"), &noise(1, 400_000));
    write(&case.place.path("twin/deeper/h"), &noise(4, 3000));
    symlink(case.place.path("twin"), case.out().join("sub")).unwrap();
    let before = tree(&case.place.path("twin"));
    case.b.remove_pack(id, true).unwrap();
    assert_eq!(tree(&case.place.path("twin")), before);
    case.assert_outside_untouched();
    assert!(!case.out().join("g").exists());
}
