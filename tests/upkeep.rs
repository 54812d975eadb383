//! `verify`, `move`, `pin`, `gc` and the bounds on room, over real processes.

#![cfg(unix)]

mod support;

use std::{fs, os::unix::fs::FileExt as _, path::Path};

use support::{Machine, Seed, assert_same_tree, noise, share, write};

/// A pack shared by `a` and downloaded by `b` to `Pack`.
fn downloaded(a: &Machine, b: &Machine) -> Seed {
    let pack = a.path("Pack");
    write(&pack.join("big.pak"), &noise(1, 2_000_000));
    write(&pack.join("sub/small.pak"), &noise(2, 40_000));
    let seed = share(a, &pack, &[]);
    let got = b.run(&["get", &seed.link, "--json", "--no-seed"]);
    assert_eq!(got.code(), 0, "{}", got.said);
    seed
}

/// Flips a bit, and puts the file's time stamp back.
fn rot(path: &Path) {
    let before = fs::metadata(path).expect("it is there").modified().expect("a time");
    let file = fs::OpenOptions::new()
        .write(true)
        .read(true)
        .open(path)
        .expect("it opens");
    let mut byte = [0];
    file.read_exact_at(&mut byte, 1_000_000).expect("it is long enough");
    file.write_all_at(&[byte[0] ^ 1], 1_000_000).expect("it is writable");
    file.set_modified(before).expect("a time can be set");
}

#[test]
fn rot_is_found_and_repaired_and_an_edit_is_kept() {
    let [a, b] = ["from", "to"].map(Machine::new);
    let seed = downloaded(&a, &b);
    let fine = b.run(&["verify", "--json"]);
    assert_eq!(fine.code(), 0, "{}", fine.said);
    assert_eq!(fine.last_json()["bad"].as_array().map(Vec::len), Some(0));

    rot(&b.path("Pack/big.pak"));
    let found = b.run(&["verify"]);
    assert_eq!(found.code(), 5, "{}", found.said);
    assert!(found.stdout.join("\n").contains("big.pak: "), "{:?}", found.stdout);
    assert!(found.said.contains("--repair"), "{}", found.said);

    let addr = seed.ready["addrs"][0].as_str().expect("an address");
    let repaired = b.run(&["verify", "Pack", "--repair", "--json", "--peer", addr]);
    assert_eq!(repaired.code(), 0, "{}", repaired.said);
    assert_eq!(repaired.last_json()["repaired"], true);
    assert_same_tree(&a.path("Pack"), &b.path("Pack"));

    write(&b.path("Pack/sub/small.pak"), b"mine");
    let kept = b.run(&["verify", "Pack", "--repair", "--peer", addr]);
    assert_eq!(kept.code(), 5, "{}", kept.said);
    assert_eq!(fs::read(b.path("Pack/sub/small.pak")).expect("it is there"), b"mine");

    // Beside an edit, the rest is mended.
    rot(&b.path("Pack/big.pak"));
    let mended = b.run(&["verify", "Pack", "--repair", "--peer", addr]);
    assert_eq!(mended.code(), 5, "{}", mended.said);
    assert!(mended.said.contains("the rest was mended"), "{}", mended.said);
    assert_eq!(fs::read(b.path("Pack/sub/small.pak")).expect("it is there"), b"mine");
    let [theirs, ours] = [&a, &b].map(|machine| fs::read(machine.path("Pack/big.pak")).expect("it is there"));
    assert!(theirs == ours);
}

#[test]
fn a_sharer_has_rot_mended_by_those_who_got_it_and_keeps_edits() {
    let [a, b] = ["from", "to"].map(Machine::new);
    let seed = downloaded(&a, &b);
    seed.process.kill();
    let other = share(&b, &b.path("Pack"), &[]);
    let addr = other.ready["addrs"][0].as_str().expect("an address");
    rot(&a.path("Pack/big.pak"));
    write(&a.path("Pack/sub/small.pak"), b"edited");
    let mended = a.run(&["verify", "Pack", "--repair", "--peer", addr]);
    assert_eq!(mended.code(), 5, "{}", mended.said);
    let said = mended.stdout.join("\n");
    assert!(
        said.contains("big.pak: ") && said.contains("rotten on the disk, mended"),
        "{said}"
    );
    assert!(mended.said.contains("the rest was mended"), "{}", mended.said);
    assert!(mended.said.contains("modswarm share '"), "{}", mended.said);
    assert_eq!(fs::read(a.path("Pack/sub/small.pak")).expect("it is there"), b"edited");
    let [ours, theirs] = [&a, &b].map(|machine| fs::read(machine.path("Pack/big.pak")).expect("it is there"));
    assert!(ours == theirs);
    // The edit is still known for what it is.
    let found = a.run(&["verify", "Pack", "--json"]);
    assert_eq!(found.last_json()["bad"][0]["fault"], "changed");
    assert_eq!(found.last_json()["bad"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_pack_is_moved_and_goes_on_being_served() {
    let [a, b, c] = ["from", "to", "third"].map(Machine::new);
    let seed = downloaded(&a, &b);
    fs::create_dir(b.path("mods")).expect("a folder");
    let to = b.path("mods");
    let moved = b.run(&["move", "Pack", to.to_str().expect("text"), "--json"]);
    assert_eq!(moved.code(), 0, "{}", moved.said);
    assert!(!b.path("Pack").exists());
    assert_same_tree(&a.path("Pack"), &b.path("mods/Pack"));
    seed.process.kill();

    let served = share(&b, &b.path("mods/Pack"), &[]);
    assert_eq!(served.content, seed.content);
    let got = c.run(&["get", &served.link, "--json", "--no-seed"]);
    assert_eq!(got.code(), 0, "{}", got.said);
    assert_same_tree(&a.path("Pack"), &c.path("Pack"));

    let nowhere = b.run(&["move", "Other", "x"]);
    assert_eq!(nowhere.code(), 1);
    assert!(nowhere.said.contains("no pack"), "{}", nowhere.said);
}

#[test]
fn a_damaged_index_is_made_anew_by_the_command_that_its_error_names() {
    let [a, b] = ["from", "to"].map(Machine::new);
    let seed = downloaded(&a, &b);
    fs::write(b.home().join("index.sqlite"), noise(5, 40_000)).expect("it is writable");
    let refused = b.run(&["status"]);
    assert_eq!(refused.code(), 1);
    assert!(refused.said.contains("modswarm store rebuild"), "{}", refused.said);
    let rebuilt = b.run(&["store", "rebuild", "--json"]);
    assert_eq!(rebuilt.code(), 0, "{}", rebuilt.said);
    assert_eq!(rebuilt.last_json()["restored"].as_array().map(Vec::len), Some(1));
    assert_eq!(b.run(&["verify"]).code(), 0);

    // What is missing or edited does not keep the rest from coming back, and is named.
    fs::remove_file(b.path("Pack/big.pak")).expect("it can be deleted");
    write(&b.path("Pack/sub/more.pak"), b"added");
    fs::remove_file(b.home().join("index.sqlite")).expect("it can be deleted");
    let rebuilt = b.run(&["store", "rebuild"]);
    assert_eq!(rebuilt.code(), 0, "{}", rebuilt.said);
    let said = rebuilt.stdout.join("\n");
    assert!(
        said.contains("1 file missing") && said.contains("modswarm verify"),
        "{said}"
    );
    let verified = b.run(&["verify", "--json"]);
    assert_eq!(verified.last_json()["bad"][0]["fault"], "missing", "{}", verified.said);

    // What cannot be restored can be given up.
    let pack = seed.ready["pack"].as_str().expect("a CID");
    fs::remove_file(b.home().join("packs").join(pack).join("skeleton")).expect("it can be deleted");
    fs::remove_file(b.home().join("index.sqlite")).expect("it can be deleted");
    let rebuilt = b.run(&["store", "rebuild", "--json"]);
    assert_eq!(rebuilt.last_json()["left"].as_array().map(Vec::len), Some(1));
    assert_eq!(b.run(&["rm", pack]).code(), 0);
    assert_eq!(b.run(&["rm", pack]).code(), 1);
    let rebuilt = b.run(&["store", "rebuild", "--json"]);
    assert_eq!(rebuilt.last_json()["left"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_pinned_pack_is_kept_and_an_unpinned_one_makes_room() {
    let [a, b] = ["from", "to"].map(Machine::new);
    let _seed = downloaded(&a, &b);
    assert_eq!(b.run(&["pin", "Pack"]).code(), 0);
    let refused = b.run(&["rm", "Pack", "--data"]);
    assert_eq!(refused.code(), 1);
    assert!(refused.said.contains("unpin"), "{}", refused.said);
    let passed = b.run(&["gc", "--keep", "1MB", "--json"]);
    assert_eq!(passed.code(), 0, "{}", passed.said);
    assert!(b.path("Pack/big.pak").exists());

    assert_eq!(b.run(&["unpin", "Pack"]).code(), 0);
    let cleared = b.run(&["gc", "--keep", "1MB", "--json"]);
    assert_eq!(cleared.code(), 0, "{}", cleared.said);
    assert_eq!(cleared.last_json()["packs"].as_array().map(Vec::len), Some(1));
    assert!(!b.path("Pack").exists());
    // What the user shared is never deleted.
    assert_eq!(a.run(&["gc", "--keep", "0", "--json"]).code(), 0);
    assert!(a.path("Pack/big.pak").exists());
}

#[test]
fn a_download_beyond_the_quota_or_below_the_floor_is_refused_before_it_begins() {
    let [a, b] = ["from", "to"].map(Machine::new);
    write(&a.path("Pack/big.pak"), &noise(1, 2_000_000));
    let seed = share(&a, &a.path("Pack"), &[]);
    let over = b.run(&["get", &seed.link, "--no-seed", "--quota", "1MB"]);
    assert_eq!(over.code(), 9, "{}", over.said);
    assert!(over.said.contains("--quota"), "{}", over.said);
    let floor = b.run(&["get", &seed.link, "--no-seed", "--min-free", "900000TB"]);
    assert_eq!(floor.code(), 9, "{}", floor.said);
    assert!(floor.said.contains("--min-free"), "{}", floor.said);
    assert!(!b.path("Pack").exists());
    let fits = b.run(&["get", &seed.link, "--no-seed", "--quota", "3MB", "--min-free", "0"]);
    assert_eq!(fits.code(), 0, "{}", fits.said);
}

#[test]
fn a_pack_shared_with_a_copy_does_without_its_folder_and_rm_gives_the_room_back() {
    let [a, b] = ["from", "to"].map(Machine::new);
    let pack = a.path("Pack");
    write(&pack.join("big.pak"), &noise(1, 2_000_000));
    write(&pack.join("sub/small.pak"), &noise(2, 40_000));
    let seed = share(&a, &pack, &["--copy"]);
    let kept = a.path("Kept");
    fs::rename(&pack, &kept).expect("it can be moved");
    let status = a.run(&["status", "--json"]);
    let first = &status.last_json()["packs"][0];
    assert_eq!(first["copied"], true, "{}", status.said);
    assert!(first["problem"].is_null(), "{first}");
    let got = b.run(&["get", &seed.link, "--json", "--no-seed"]);
    assert_eq!(got.code(), 0, "{}", got.said);
    assert_same_tree(&kept, &b.path("Pack"));
    assert_eq!(a.run(&["verify"]).code(), 0);

    let removed = a.run(&["rm", &seed.content]);
    assert_eq!(removed.code(), 0, "{}", removed.said);
    let left = fs::read_dir(a.home().join("segments")).expect("a folder").count();
    assert_eq!(left, 0);
}
