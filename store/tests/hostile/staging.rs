//! The staging folder lies among the user's files, under a name that anybody can reckon.

use std::{fs, os::unix::fs::symlink, path::Path};

use super::{assert_helps, common::*, planted::case};

/// Names that staged files of the first gets of a home have.
const NAMES: std::ops::Range<u32> = 1..40;

#[test]
fn a_symlink_at_the_staging_folder_is_not_followed() {
    let case = case();
    let stage = case.stage_to_be();
    symlink(case.place.path("outside"), &stage).unwrap();
    let refused = case.get(&case.spec(), |_| {}).unwrap_err();
    assert_helps(&refused, &["symbolic link", ".modswarm-"]);
    case.assert_outside_untouched();
    assert!(stage.symlink_metadata().unwrap().is_symlink());
    fs::remove_file(&stage).unwrap();
    case.assert_goes_through();
}

#[test]
fn a_staging_folder_that_becomes_a_symlink_is_not_followed() {
    for moment in 1..4 {
        println!("moment {moment}");
        let case = case();
        let got = case.get(&case.spec(), |now| {
            if now == moment {
                let stage = case.stage();
                fs::rename(&stage, case.place.path("aside")).unwrap();
                symlink(case.place.path("outside"), &stage).unwrap();
            }
        });
        case.assert_outside_untouched();
        // The folder that it has open is still its own.
        got.unwrap();
        assert_eq!(tree(&case.out()), tree(&case.place.path("p")));
        fs::remove_file(case.stage()).unwrap();
        case.assert_goes_through();
    }
}

#[test]
fn files_that_are_planted_in_the_staging_folder_are_not_written_to() {
    let case = case();
    let stage = case.stage_to_be();
    fs::create_dir(&stage).unwrap();
    for name in NAMES {
        let name = stage.join(name.to_string());
        match name.file_name().unwrap().to_str().unwrap().parse::<u32>().unwrap() % 3 {
            0 => fs::hard_link(case.place.path("outside/precious"), name).unwrap(),
            1 => symlink(case.place.path("outside/precious"), name).unwrap(),
            _ => fs::write(name, noise(99, 400_000)).unwrap(),
        }
    }
    case.get(&case.spec(), |_| {}).unwrap();
    case.assert_outside_untouched();
    assert_eq!(tree(&case.out()), tree(&case.place.path("p")));
    assert_readable(&case.b, &case.pack.content);
}

#[test]
fn a_link_made_to_a_staged_file_ends_the_get_clearly_or_changes_nothing() {
    let case = case();
    let mut linked = Vec::new();
    let got = case.get(&case.spec(), |now| {
        if now == 2 {
            for entry in fs::read_dir(case.stage()).unwrap() {
                let entry = entry.unwrap();
                let copy = case
                    .place
                    .path(&format!("link {}", entry.file_name().to_str().unwrap()));
                fs::hard_link(entry.path(), &copy).unwrap();
                linked.push(copy);
            }
        }
    });
    assert!(!linked.is_empty());
    if let Err(text) = got {
        assert_helps(&text, &["linked to from elsewhere"]);
    }
    for link in linked {
        fs::remove_file(link).unwrap();
    }
    case.assert_goes_through();
}

#[test]
fn another_folder_in_the_place_of_the_staging_folder_keeps_its_files() {
    for moment in 1..4 {
        println!("moment {moment}");
        let case = case();
        let got = case.get(&case.spec(), |now| {
            if now == moment {
                let stage = case.stage();
                fs::rename(&stage, case.place.path("aside")).unwrap();
                write(&stage.join("notes.txt"), b"mine");
                for name in NAMES {
                    write(&stage.join(name.to_string()), b"mine too");
                }
            }
        });
        got.unwrap();
        let stage = case.stage();
        assert_eq!(fs::read(stage.join("notes.txt")).unwrap(), b"mine");
        for name in NAMES {
            assert_eq!(fs::read(stage.join(name.to_string())).unwrap(), b"mine too");
        }
        assert_eq!(tree(&case.out()), tree(&case.place.path("p")));
        assert_readable(&case.b, &case.pack.content);
    }
}

/// Pieces that were committed are not where the index says: they are fetched again, and nothing wrong gets a final name.
#[test]
fn a_get_goes_on_rightly_when_its_staged_files_were_replaced_meanwhile() {
    for (what, bytes) in [("noise", Some(noise(77, 400_000))), ("nothing", None)] {
        println!("{what}");
        let case = case();
        let download = case.b.begin_download(&case.spec(), &()).unwrap();
        let absent = download.wanted();
        let all: Vec<usize> = absent.iter_ones().collect();
        // All but one piece of the large file.
        for piece in &all[..all.len() - 1] {
            let index = download.content().map().index(*piece as u32).unwrap();
            let leaf = download.content().map().leaf(index);
            let bytes = case.a.read_leaf(&leaf.cid, leaf.len).unwrap();
            download.write_piece(index, &bytes).unwrap();
        }
        case.b.flush().unwrap();
        drop(download);
        let stage = case.stage();
        let mut replaced = 0;
        for entry in fs::read_dir(&stage).unwrap() {
            let path = entry.unwrap().path();
            let len = fs::metadata(&path).unwrap().len() as usize;
            fs::remove_file(&path).unwrap();
            if let Some(bytes) = &bytes {
                fs::write(&path, &bytes[..len]).unwrap();
            }
            replaced += 1;
        }
        assert!(replaced > 0);
        case.assert_goes_through();
    }
}

/// The same bytes in another file, as after a backup was played back: what is right in it is not fetched again.
#[test]
fn staged_files_that_were_copied_back_count_for_what_is_right_in_them() {
    let case = case();
    let download = case.b.begin_download(&case.spec(), &()).unwrap();
    let all: Vec<usize> = download.wanted().iter_ones().collect();
    for piece in &all[..all.len() - 1] {
        let index = download.content().map().index(*piece as u32).unwrap();
        let leaf = download.content().map().leaf(index);
        let bytes = case.a.read_leaf(&leaf.cid, leaf.len).unwrap();
        download.write_piece(index, &bytes).unwrap();
    }
    case.b.flush().unwrap();
    let had = download.have().count_ones();
    drop(download);
    for entry in fs::read_dir(case.stage()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        fs::rename(&path, case.place.path("aside")).unwrap();
        fs::write(&path, bytes).unwrap();
    }
    let download = case.b.begin_download(&case.spec(), &()).unwrap();
    assert_eq!(download.have().count_ones(), had);
    drop(download);
    case.assert_goes_through();
}

#[test]
fn a_staging_folder_that_is_deleted_costs_what_was_in_it_and_nothing_else() {
    for moment in 1..4 {
        println!("moment {moment}");
        let case = case();
        let got = case.get(&case.spec(), |now| {
            if now == moment {
                fs::remove_dir_all(case.stage()).unwrap();
            }
        });
        if let Err(text) = got {
            assert_helps(&text, &["get the pack again"]);
        }
        case.assert_goes_through();
    }
}

/// Two gets at once: what happens to the staging folder of one is nothing to the other, and to the home.
#[test]
fn a_get_that_cannot_go_on_keeps_no_other_from_its_end() {
    let case = case();
    write(&case.place.path("q/empty"), b"");
    write(&case.place.path("q/f"), &noise(6, 200_000));
    let other = share(&case.a, &case.place.path("q"));
    copy_skeleton(&case.a, &case.b, &other.pack);
    let stuck = case.b.begin_download(&case.spec(), &()).unwrap();
    fs::remove_dir_all(case.stage()).unwrap();
    get(&case.a, &case.b, &other, &case.place.path("other/q"));
    assert_eq!(tree(&case.place.path("other/q")), tree(&case.place.path("q")));
    share(&case.b, &case.place.path("q"));
    // Ended and forgotten, it holds up nothing at all any more.
    let id = stuck.id();
    drop(stuck);
    case.b.remove_pack(id, false).unwrap();
    case.b.flush().unwrap();
    case.assert_goes_through();
}

/// Between two pieces, or just before its final name, a staged file is exchanged for something else: that never gets the name.
#[test]
fn what_is_put_in_the_place_of_staged_files_never_gets_their_names() {
    type Planting = fn(&Path, &Path);
    let plantings: [(&str, Planting); 4] = [
        ("a symlink", |at, precious| symlink(precious, at).unwrap()),
        ("a hard link", |at, precious| fs::hard_link(precious, at).unwrap()),
        ("a folder", |at, _| fs::create_dir(at).unwrap()),
        ("other bytes", |at, _| fs::write(at, noise(55, 400_000)).unwrap()),
    ];
    for (what, planting) in plantings {
        for moment in 1..4 {
            println!("{what} at moment {moment}");
            let case = case();
            let precious = case.place.path("outside/precious");
            let got = case.get(&case.spec(), |now| {
                if now == moment {
                    for entry in fs::read_dir(case.stage()).unwrap() {
                        let path = entry.unwrap().path();
                        let len = fs::metadata(&path).unwrap().len();
                        fs::remove_file(&path).unwrap();
                        planting(&path, &precious);
                        if path.is_file() && what == "other bytes" {
                            fs::OpenOptions::new()
                                .write(true)
                                .open(&path)
                                .unwrap()
                                .set_len(len)
                                .unwrap();
                        }
                    }
                }
            });
            case.assert_outside_untouched();
            if let Err(text) = got {
                assert!(text.contains("stands there") || text.contains("directory"), "{text}");
                for entry in fs::read_dir(case.stage()).unwrap() {
                    let path = entry.unwrap().path();
                    if path.is_dir() {
                        fs::remove_dir(path).unwrap();
                    }
                }
            }
            case.get(&case.spec(), |_| {}).unwrap();
            assert_eq!(tree(&case.out()), tree(&case.place.path("p")));
            case.assert_outside_untouched();
        }
    }
}
