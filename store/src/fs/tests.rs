use std::fs;
#[cfg(unix)]
use std::os::unix::fs::symlink;

use super::{
    sys::{Dir, open_read},
    *,
};

// Windows lets only administrators make symlinks.
#[cfg(unix)]
#[test]
fn a_folder_never_follows_a_planted_symlink() {
    let home = tempfile::tempdir().unwrap();
    let outside = home.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "x").unwrap();
    let inside = home.path().join("inside");
    fs::create_dir(&inside).unwrap();
    symlink(&outside, inside.join("link")).unwrap();
    symlink(outside.join("secret"), inside.join("file")).unwrap();

    let dir = Dir::open(&inside).unwrap();
    assert_eq!(dir.folder("link").unwrap_err().kind(), io::ErrorKind::NotADirectory);
    assert_eq!(
        dir.make_folder("link").unwrap_err().kind(),
        io::ErrorKind::NotADirectory
    );
    assert!(dir.open_file("file").is_err());
    assert_eq!(dir.entry("file").unwrap(), Some(Entry::Symlink));
    assert!(open_read(&inside.join("file")).is_err());
}

#[test]
fn rename_onto_nothing_refuses_to_replace_and_exchange_keeps_both() {
    let home = tempfile::tempdir().unwrap();
    let dir = Dir::open(home.path()).unwrap();
    fs::write(home.path().join("new"), "new").unwrap();
    fs::write(home.path().join("old"), "old").unwrap();
    let refused = dir.rename_from(&dir, "new", "old", Onto::Nothing).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
    // Not every system can.
    let exchanged = dir.rename_from(&dir, "new", "old", Onto::Exchange).unwrap();
    assert_eq!(exchanged, cfg!(target_os = "linux"));
    assert_eq!(fs::read(home.path().join("old")).unwrap(), b"new");
    assert_eq!(
        fs::read(home.path().join("new")).ok(),
        exchanged.then(|| b"old".to_vec())
    );
    assert!(!dir.rename_from(&dir, "old", "other", Onto::Nothing).unwrap());
    assert_eq!(fs::read(home.path().join("other")).unwrap(), b"new");
}

/// As a game has it open, or a reader of ours.
#[test]
fn a_file_that_is_open_is_replaced_at_once() {
    let home = tempfile::tempdir().unwrap();
    let dir = Dir::open(home.path()).unwrap();
    fs::write(home.path().join("new"), "new").unwrap();
    fs::write(home.path().join("old"), "old").unwrap();
    let reader = open_read(&home.path().join("old")).unwrap();
    dir.rename_from(&dir, "new", "old", Onto::Exchange).unwrap();
    assert_eq!(fs::read(home.path().join("old")).unwrap(), b"new");
    let mut bytes = [0; 3];
    super::sys::read_exact_at(&reader, &mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"old");
}

#[cfg(windows)]
#[test]
fn whole_paths_are_taken_letter_by_letter_and_others_left_alone() {
    for (path, literal) in [
        (r"C:\a\.\CON", r"\\?\C:\a\CON"),
        (r"C:/a/trailing. ", r"\\?\C:\a\trailing. "),
        (r"C:\", r"\\?\C:\"),
        (r"\\server\share\x.", r"\\?\UNC\server\share\x."),
        (r"\\?\C:\a", r"\\?\C:\a"),
        (r"C:\a\..\b", r"C:\a\..\b"),
        (r"C:a", r"C:a"),
        (r"a\b", r"a\b"),
    ] {
        assert_eq!(super::sys::literal(Path::new(path)).as_os_str(), literal, "{path}");
    }
}

#[cfg(windows)]
#[test]
fn no_name_leads_out_of_its_folder() {
    let home = tempfile::tempdir().unwrap();
    let dir = Dir::open(home.path()).unwrap();
    for name in ["C:evil", "a:stream", "..", ".", "", r"..\x", "a/b"] {
        assert!(dir.make_folder(name).is_err(), "{name}");
        assert!(dir.create_file(name).is_err(), "{name}");
        assert!(dir.entry(name).is_err(), "{name}");
    }
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn a_time_stamp_that_is_not_older_than_the_look_is_racy() {
    let at = 1_700_000_000_123_456_789;
    let identity = Identity {
        dev: 1,
        file: 2,
        size: 3,
        mtime: at,
        ctime: at,
    };
    assert!(identity.is_racy(at));
    assert!(identity.is_racy(at + 10_000_000));
    assert!(!identity.is_racy(at + 30_000_000));
    let coarse = Identity {
        mtime: 1_700_000_000_000_000_000,
        ctime: 1_700_000_000_000_000_000,
        ..identity
    };
    assert!(coarse.is_racy(1_700_000_001_000_000_000));
    assert!(!coarse.is_racy(1_700_000_003_000_000_000));
}
