//! The main job over real processes: share, get, get from many, seed by itself.

#![cfg(unix)]

mod support;

use std::{fs, os::unix::fs::FileExt as _};

use support::{Machine, assert_same_tree, bytes_from, noise, share, write};

const MIB: usize = 1 << 20;

/// A shares; B gets from A; C gets from A and B at once; A leaves; D gets from B and C.
#[test]
fn whoever_has_downloaded_seeds_by_itself() {
    let [a, b, c, d] = ["a", "b", "c", "d"].map(Machine::new);
    let pack = a.path("MyPack");
    write(&pack.join("~mods/Skin v1.2_9999999_P.pak"), &noise(1, 40 * MIB));
    write(&pack.join("~mods/Skin v1.2_9999999_P.utoc"), &noise(2, 70_000));
    write(&pack.join("readme.txt"), b"hello");
    // Slow enough that C cannot have all of it from one before it knows the other.
    let limit = ["--upload-limit", "16MiB/s"];
    let seed = share(&a, &pack, &limit);

    let start = |machine: &Machine, peers: &[&str]| {
        let mut args = vec!["get", &seed.link, "--json", "-o", "in"];
        args.extend(limit);
        peers.iter().for_each(|peer| args.extend(["--peer", peer]));
        machine.start(&args)
    };
    let addr = |machine: &Machine| {
        let status = machine.run(&["status", "--json"]);
        assert_eq!(status.code(), 0, "{}", status.said);
        status.last_json()["addrs"][0].as_str().expect("an address").to_owned()
    };
    let peer_id = |machine: &Machine| machine.run(&["status", "--json"]).last_json()["peer_id"].clone();

    let in_b = start(&b, &[]);
    let complete = in_b.until_event("complete");
    assert_eq!(complete["pack"], seed.pack);
    assert_eq!(complete["content"], seed.content);
    assert_eq!(complete["bytes_fetched"], seed.ready["bytes"]);
    assert_eq!(complete["bytes_reused"], 0);
    assert_same_tree(&pack, &b.path("in/MyPack"));

    let in_c = start(&c, &[&addr(&b)]);
    let complete = in_c.until_event("complete");
    let from_a = bytes_from(&complete, &seed.peer_id);
    let from_b = bytes_from(&complete, peer_id(&b).as_str().expect("a peer ID"));
    assert!(from_a > 0 && from_b > 0, "from A {from_a}, from B {from_b}");
    assert_eq!(Some(from_a + from_b), complete["bytes_fetched"].as_u64());
    assert_same_tree(&pack, &c.path("in/MyPack"));

    let ended = seed.process.stop();
    assert_eq!(ended.code(), 0, "{}", ended.said);

    let in_d = start(&d, &[&addr(&b), &addr(&c)]);
    let complete = in_d.until_event("complete");
    let of = |machine: &Machine| bytes_from(&complete, peer_id(machine).as_str().expect("a peer ID"));
    assert!(of(&b) > 0 && of(&c) > 0, "{complete}");
    assert_same_tree(&pack, &d.path("in/MyPack"));
    for seeding in [in_b, in_c, in_d] {
        let ended = seeding.stop();
        assert_eq!(ended.code(), 0, "{}", ended.said);
    }
}

/// Shares what `fill` makes and asserts that a get with `--no-seed` brings the same.
#[track_caller]
fn round_trip(fill: impl FnOnce(&std::path::Path)) -> serde_json::Value {
    let [a, b] = ["from", "to"].map(Machine::new);
    let pack = a.path("Pack");
    fs::create_dir(&pack).expect("a folder");
    fill(&pack);
    let seed = share(&a, &pack, &[]);
    let got = b.run(&["get", &seed.link, "--json", "--no-seed"]);
    assert_eq!(got.code(), 0, "{}", got.said);
    assert_same_tree(&pack, &b.path("Pack"));
    got.last_json()
}

#[test]
fn tens_of_thousands_of_small_files_arrive() {
    let complete = round_trip(|pack| {
        for i in 0..20_000u64 {
            let dir = if i % 3 == 0 {
                "wide".to_owned()
            } else {
                format!("deep/{}/{}", i % 17, i % 101)
            };
            write(
                &pack.join(dir).join(format!("file-{i}.json")),
                &noise(i, (i % 300) as usize),
            );
        }
    });
    assert_eq!(complete["files"], 20_000);
}

#[test]
fn odd_names_empty_files_and_empty_folders_arrive() {
    round_trip(|pack| {
        for name in [
            "empty.bin",
            ".hidden",
            "...dots",
            "a.b.c.d.tar.gz",
            "~mods/Skin v1.2_9999999_P.pak",
            "日本語/モッド.pak",
            "Ünïcödé/naïve café.txt",
            "Русский/мод.utoc",
            "العربية/تعديل",
            "emoji 🎮/🧱.bin",
            "with 'quotes' \"and\" % & ? #.txt",
            "-starts-with-dash",
        ] {
            write(
                &pack.join(name),
                if name.starts_with("empty") {
                    b""
                } else {
                    name.as_bytes()
                },
            );
        }
        fs::create_dir_all(pack.join("empty folder/and one in it")).expect("folders");
    });
}

#[test]
fn two_files_with_the_same_content_move_once() {
    let bytes = noise(7, 3 * MIB);
    let complete = round_trip(|pack| {
        write(&pack.join("one.bin"), &bytes);
        write(&pack.join("sub/two.bin"), &bytes);
    });
    assert_eq!(complete["bytes_fetched"], bytes.len());
    assert_eq!(complete["bytes_reused"], bytes.len());
}

#[test]
fn a_file_over_four_gibibytes_arrives() {
    const LEN: u64 = (4 << 30) + 12_345;
    let complete = round_trip(|pack| {
        let file = fs::File::create(pack.join("huge.pak")).expect("a file");
        file.set_len(LEN).expect("a sparse file");
        for (i, at) in [0, 1 << 30, (4 << 30) - 100, LEN - 5000].into_iter().enumerate() {
            file.write_all_at(&noise(i as u64, 5000), at).expect("written");
        }
    });
    assert_eq!(complete["bytes"], LEN);
}

#[test]
fn a_single_file_is_shared_as_a_folder_of_one() {
    let [a, b] = ["from", "to"].map(Machine::new);
    let file = a.path("Solo v2.pak");
    write(&file, &noise(9, 2 * MIB));
    let seed = share(&a, &file, &[]);
    assert_eq!(seed.ready["files"], 1);
    let got = b.run(&["get", &seed.link, "--json", "--no-seed"]);
    assert_eq!(got.code(), 0, "{}", got.said);
    let path = got.last_json()["path"].as_str().expect("a path").to_owned();
    support::assert_same_file(&file, &std::path::Path::new(&path).join("Solo v2.pak"));
}

#[test]
fn only_selected_files_are_fetched() {
    let [a, b] = ["from", "to"].map(Machine::new);
    let pack = a.path("Pack");
    write(&pack.join("big.bin"), &noise(1, 8 * MIB));
    write(&pack.join("docs/read me.txt"), b"text");
    let seed = share(&a, &pack, &[]);
    let got = b.run(&["get", &seed.link, "--json", "--no-seed", "--only", "docs/**"]);
    assert_eq!(got.code(), 0, "{}", got.said);
    assert_eq!(got.last_json()["bytes_fetched"], 4);
    assert!(b.path("Pack/docs/read me.txt").exists());
    assert!(!b.path("Pack/big.bin").exists());
}

#[test]
fn ls_lists_a_pack_without_fetching_its_files() {
    let [a, b] = ["from", "to"].map(Machine::new);
    let pack = a.path("Pack");
    write(&pack.join("big.bin"), &noise(1, 8 * MIB));
    write(&pack.join("sub/small.txt"), b"text");
    let seed = share(&a, &pack, &["--description", "for testing"]);
    let listed = b.run(&["ls", &seed.link, "--json"]);
    assert_eq!(listed.code(), 0, "{}", listed.said);
    let listing: serde_json::Value = serde_json::from_str(&listed.stdout.concat()).expect("JSON");
    assert_eq!(listing["files"][0]["path"], "big.bin");
    assert_eq!(listing["files"][1]["size"], 4);
    assert_eq!(listing["manifest"]["description"], "for testing");
}

#[test]
fn a_new_version_fetches_only_what_changed() {
    let [a, b] = ["from", "to"].map(Machine::new);
    let pack = a.path("Pack");
    write(&pack.join("stays.pak"), &noise(1, 5 * MIB));
    write(&pack.join("renamed.pak"), &noise(2, 3 * MIB));
    write(&pack.join("changed.pak"), &noise(3, 6 * MIB));
    let first = share(&a, &pack, &[]);
    let got = b.run(&["get", &first.link, "--json", "--no-seed"]);
    assert_eq!(got.code(), 0, "{}", got.said);
    first.process.stop();

    fs::rename(pack.join("renamed.pak"), pack.join("renamed.pak.disabled")).expect("renamed");
    let second = share(&a, &pack, &[]);
    assert_ne!(second.pack, first.pack);
    let got = b.run(&["get", &second.link, "--json", "--no-seed", "-o", "renamed"]);
    assert_eq!(got.code(), 0, "{}", got.said);
    assert_eq!(got.last_json()["bytes_fetched"], 0, "a renamed file moves no leaf");
    assert_same_tree(&pack, &b.path("renamed/Pack"));
    second.process.stop();

    let mut bytes = noise(3, 6 * MIB);
    bytes.splice(2_000_000..2_000_000, *b"inserted in the middle");
    write(&pack.join("changed.pak"), &bytes);
    let third = share(&a, &pack, &[]);
    let got = b.run(&["get", &third.link, "--json", "--no-seed", "-o", "changed"]);
    assert_eq!(got.code(), 0, "{}", got.said);
    let complete = got.last_json();
    let fetched = complete["bytes_fetched"].as_u64().expect("a number");
    assert!(fetched > 0 && fetched < MIB as u64, "fetched {fetched}");
    assert_eq!(
        fetched + complete["bytes_reused"].as_u64().expect("a number"),
        third.ready["bytes"].as_u64().unwrap()
    );
    assert_same_tree(&pack, &b.path("changed/Pack"));
}

/// The pieces that two versions share come from a seed of the old one, when nobody else has them.
#[test]
fn a_seed_of_the_old_version_gives_what_it_has_of_the_new_one() {
    let [a, b, c] = ["a", "b", "c"].map(Machine::new);
    let pack = a.path("Pack");
    let kept = noise(1, 4 * MIB);
    write(&pack.join("stays.pak"), &kept);
    write(&pack.join("goes.pak"), &noise(2, MIB));
    let first = share(&a, &pack, &[]);
    let old = b.start(&["get", &first.link, "--json"]);
    old.until_event("complete");
    first.process.stop();

    write(&pack.join("comes.pak"), &noise(3, MIB));
    let second = share(&a, &pack, &[]);
    // The author's copy loses a file after it was shared: only the seed of the old version still has its bytes.
    fs::remove_file(pack.join("stays.pak")).expect("removed");
    let status = b.run(&["status", "--json"]).last_json();
    let addr = status["addrs"][0].as_str().expect("an address");
    let got = c.run(&["get", &second.link, "--json", "--no-seed", "--peer", addr]);
    assert_eq!(got.code(), 0, "{}", got.said);
    let old_id = status["peer_id"].as_str().expect("a peer ID");
    assert!(
        bytes_from(&got.last_json(), old_id) >= kept.len() as u64,
        "{}",
        got.said
    );
    assert_eq!(fs::read(c.path("Pack/stays.pak")).expect("there"), kept);
    old.stop();
}
