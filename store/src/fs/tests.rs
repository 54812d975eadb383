use std::fs;
#[cfg(unix)]
use std::os::unix::fs::symlink;

#[cfg(unix)]
use super::sys::open_read;
use super::{sys::Dir, *};

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
