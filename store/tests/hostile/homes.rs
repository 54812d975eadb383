//! Homes that cannot be used as they are: read-only, on a full disk, of a newer program.

use std::{fs, path::PathBuf, process::Command};

use modswarm_store::{HomeLock, IndexError, OpenError, ShareSpec, Store, StoreOptions};
use rusqlite::Connection;

use super::{assert_helps, common::*, words};

/// A small file system of its own, where this user may mount one.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let size = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at);
        let mounted = mount.status().is_ok_and(|status| status.success());
        if !mounted {
            println!("skipped: this user cannot mount a tmpfs");
        }
        mounted.then_some(Self(at))
    }

    fn remount(&self, how: &str) {
        let options = format!("remount,{how}");
        let status = Command::new("mount").args(["-o", &options]).arg(&self.0).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn try_open(home: &std::path::Path) -> Result<Store, String> {
    let lock = HomeLock::try_acquire(home)
        .map_err(|e| words(&e))?
        .expect("nobody else");
    Store::open(lock, StoreOptions::default()).map_err(|e| words(&e))
}

#[test]
fn a_home_on_a_read_only_disk_is_refused_and_comes_back_with_the_disk() {
    let place = Place::new();
    let Some(disk) = Tmpfs::mount(place.path("disk"), "32m") else {
        return;
    };
    let home = disk.0.join("home");
    write(&place.path("p/f"), &noise(1, 300_000));
    let store = open(&home);
    let pack = share(&store, &place.path("p"));
    store.close().unwrap();
    drop(store);
    disk.remount("ro");
    let refused = try_open(&home).unwrap_err();
    // The program adds what to do: another home, or other rights.
    assert!(
        refused.contains("the home folder is not usable") && refused.contains("Read-only"),
        "{refused}"
    );
    disk.remount("rw");
    assert_readable(&open(&home), &pack.content);
}

#[test]
fn an_index_that_cannot_be_written_is_refused() {
    let place = Place::new();
    let store = place.store("home");
    drop(store);
    let index = place.path("home/index.sqlite");
    let before = fs::read(&index).unwrap();
    let mut only_read = fs::metadata(&index).unwrap().permissions();
    only_read.set_readonly(true);
    fs::set_permissions(&index, only_read).unwrap();
    match try_open(&place.path("home")) {
        Err(refused) => assert_helps(&refused, &["read-only"]),
        // The superuser writes all the same.
        Ok(store) => drop(store),
    }
    assert_eq!(fs::read(&index).unwrap().len(), before.len());
}

#[test]
fn a_disk_that_becomes_read_only_loses_nothing_that_was_there() {
    let place = Place::new();
    let Some(disk) = Tmpfs::mount(place.path("disk"), "32m") else {
        return;
    };
    let home = disk.0.join("home");
    write(&place.path("p/f"), &noise(1, 300_000));
    write(&place.path("q/f"), &noise(2, 300_000));
    let store = open(&home);
    let pack = share(&store, &place.path("p"));
    // As long as a file is open for writing, the system only does it by force.
    let forced = Command::new("mount").args(["-o", "remount,ro"]).arg(&disk.0).status();
    if forced.is_ok_and(|status| status.success()) {
        let refused = store.share(&ShareSpec::new(place.path("q"), NETWORK), &()).unwrap_err();
        assert_helps(&words(&refused), &["read-only"]);
        assert_eq!(tree(&place.path("q")).len(), 1);
        disk.remount("rw");
    } else {
        println!("the system does not make a disk in use read-only");
    }
    assert_readable(&store, &pack.content);
    share(&store, &place.path("q"));
}

#[test]
fn a_home_on_a_full_disk_says_so_and_goes_on_when_there_is_room() {
    let place = Place::new();
    let Some(disk) = Tmpfs::mount(place.path("disk"), "4m") else {
        return;
    };
    let home = disk.0.join("home");
    write(&place.path("p/f"), &noise(1, 300_000));
    for n in 0..3000 {
        write(&place.path(&format!("q/{}/{n}", n % 10)), &noise(n, 50));
    }
    let store = open(&home);
    let pack = share(&store, &place.path("p"));
    let ballast = disk.0.join("ballast");
    fill(&ballast);
    let refused = store.share(&ShareSpec::new(place.path("q"), NETWORK), &()).unwrap_err();
    assert_helps(&words(&refused), &["no room", "home"]);
    assert_eq!(store.packs().unwrap().len(), 1, "nothing was half shared");
    assert_readable(&store, &pack.content);

    // A get into a folder with plenty of room needs some in the home as well.
    let (other, target) = (place.store("other"), place.path("out"));
    let big = share(&other, &place.path("q"));
    let skeleton = other.skeleton(&big.pack, None).unwrap().unwrap();
    let nodes: Vec<_> = skeleton
        .content
        .node_cids()
        .map(|cid| (cid, other.node(&cid).unwrap().unwrap()))
        .collect();
    let refused = store.put_nodes(&nodes).unwrap_err();
    assert_helps(&words(&refused), &["no room"]);
    assert!(!target.exists());

    // What is open is closed and opened again without more room than there is.
    drop(store);
    match try_open(&home) {
        Ok(store) => assert_readable(&store, &pack.content),
        Err(refused) => assert_helps(&refused, &["no room"]),
    }
    fs::remove_file(&ballast).unwrap();
    let store = open(&home);
    assert_readable(&store, &pack.content);
    let second = share(&store, &place.path("q"));
    assert_eq!(second.files, 3000);
}

#[test]
fn a_get_goes_on_where_it_was_when_the_homes_disk_has_room_again() {
    let place = Place::new();
    let Some(disk) = Tmpfs::mount(place.path("disk"), "4m") else {
        return;
    };
    for n in 0..600 {
        write(&place.path(&format!("p/{}/{n}", n % 10)), &noise(n, 500));
    }
    let (a, b) = (place.store("a"), open(&disk.0.join("home")));
    let pack = share(&a, &place.path("p"));
    copy_skeleton(&a, &b, &pack.pack);
    let download = b.begin_download(&spec(&pack, &place.path("out")), &()).unwrap();
    let ballast = disk.0.join("ballast");
    fill(&ballast);
    fetch(&a, &download);
    let refused = download.finish().unwrap_err();
    assert_helps(&words(&refused), &["no room", "home"]);
    let refused = b.flush().unwrap_err();
    assert_helps(&words(&refused), &["no room", "home"]);
    fs::remove_file(&ballast).unwrap();
    assert_eq!(fetch(&a, &download).count_ones(), 0, "nothing is fetched twice");
    download.finish().unwrap();
    assert_eq!(tree(&place.path("out")), tree(&place.path("p")));
    assert_readable(&b, &pack.content);
}

/// Takes all the room that there is.
fn fill(ballast: &std::path::Path) {
    use std::io::Write as _;
    let mut file = fs::File::create(ballast).unwrap();
    for size in [1 << 16, 1 << 12, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

#[test]
fn a_home_of_a_newer_program_is_refused_and_left_as_it_is() {
    let place = Place::new();
    write(&place.path("p/f"), &noise(1, 300_000));
    let store = place.store("home");
    share(&store, &place.path("p"));
    store.close().unwrap();
    drop(store);
    let index = place.path("home/index.sqlite");
    let conn = Connection::open(&index).unwrap();
    conn.pragma_update(None, "user_version", 1000).unwrap();
    conn.execute_batch(
        "CREATE TABLE of_later (x); INSERT INTO of_later VALUES ('kept'); PRAGMA wal_checkpoint(TRUNCATE);",
    )
    .unwrap();
    drop(conn);
    let before = tree(&place.path("home"));
    let lock = HomeLock::try_acquire(&place.path("home")).unwrap().unwrap();
    let refused = Store::open(lock, StoreOptions::default()).unwrap_err();
    assert!(
        matches!(refused, OpenError::Index(IndexError::Newer { found: 1000, .. })),
        "{refused}"
    );
    assert_helps(&words(&refused), &["newer modswarm", "1000", "update this program"]);
    assert_eq!(tree(&place.path("home")), before);
    // And its lock is given back.
    let lock = HomeLock::try_acquire(&place.path("home")).unwrap().unwrap();
    // Nor is it made anew, which would lose what only the newer program knows.
    let refused = Store::rebuild(lock, StoreOptions::default(), &()).unwrap_err();
    assert_helps(&words(&refused), &["newer modswarm", "update this program"]);
    assert_eq!(tree(&place.path("home")), before);
}

#[test]
fn a_home_that_is_a_file_or_lies_below_one_is_refused() {
    let place = Place::new();
    write(&place.path("file"), b"mine");
    for home in ["file", "file/below"] {
        let refused = words(&HomeLock::try_acquire(&place.path(home)).unwrap_err());
        assert!(
            refused.contains("the home folder is not usable") && refused.contains("file"),
            "{refused}"
        );
    }
    assert_eq!(fs::read(place.path("file")).unwrap(), b"mine");
}
