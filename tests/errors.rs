//! What goes wrong in a user's hands: exit codes, and that each error says what to do next.

#![cfg(unix)]

mod support;

use std::{fs, os::unix::fs::symlink, time::Duration};

use support::{Finished, Machine, Seed, noise, share, write};

/// A pack of two files that is shared, and who shares it.
fn shared() -> (Machine, Seed) {
    let a = Machine::new("from");
    let pack = a.path("Pack");
    write(&pack.join("big.bin"), &noise(1, 3 << 20));
    write(&pack.join("sub/small.txt"), b"text");
    let seed = share(&a, &pack, &[]);
    (a, seed)
}

#[track_caller]
fn assert_fails(finished: &Finished, code: i32, words: &[&str]) {
    assert_eq!(finished.code(), code, "{}", finished.said);
    for word in words.iter().chain(&["help:"]) {
        assert!(
            finished.said.contains(word),
            "{word:?} is missing in:\n{}",
            finished.said
        );
    }
}

#[test]
fn files_that_differ_are_listed_and_left_alone() {
    let (_a, seed) = shared();
    let b = Machine::new("to");
    write(&b.path("in/Pack/big.bin"), b"mine");
    write(&b.path("in/Pack/sub/small.txt"), b"mine too");
    let get = ["get", &seed.link, "--no-seed", "-o", "in"];
    let refused = b.run(&get);
    assert_fails(&refused, 13, &["big.bin", "sub/small.txt", "--overwrite"]);
    assert_eq!(fs::read(b.path("in/Pack/big.bin")).expect("there"), b"mine");
    let replaced = b.run(&[&get[..], &["--overwrite"]].concat());
    assert_eq!(replaced.code(), 0, "{}", replaced.said);
    assert_eq!(fs::read(b.path("in/Pack/sub/small.txt")).expect("there"), b"text");
}

#[test]
fn what_stands_in_the_way_is_named_and_no_symlink_is_followed() {
    let (_a, seed) = shared();
    let b = Machine::new("to");
    fs::create_dir_all(b.path("in/Pack")).expect("folders");
    fs::create_dir(b.path("elsewhere")).expect("a folder");
    symlink(b.path("elsewhere"), b.path("in/Pack/sub")).expect("a symlink");
    let refused = b.run(&["get", &seed.link, "--no-seed", "-o", "in", "--overwrite"]);
    assert_fails(&refused, 13, &["symbolic link", "in/Pack/sub"]);
    assert_eq!(fs::read_dir(b.path("elsewhere")).expect("there").count(), 0);

    fs::create_dir_all(b.path("other/Pack/big.bin")).expect("folders");
    let refused = b.run(&["get", &seed.link, "--no-seed", "-o", "other", "--overwrite"]);
    assert_fails(&refused, 13, &["a folder stands at", "other/Pack/big.bin"]);

    write(&b.path("file"), b"x");
    let refused = b.run(&["get", &seed.link, "--no-seed", "-o", "file/below"]);
    assert_fails(&refused, 2, &["lies below the file"]);
}

#[test]
fn only_that_matches_nothing_is_a_usage_error() {
    let (_a, seed) = shared();
    let refused = Machine::new("to").run(&["get", &seed.link, "--no-seed", "--only", "*.nope"]);
    assert_fails(&refused, 2, &["--only selects no file", "modswarm ls"]);
}

#[test]
fn nobody_who_has_it_ends_a_get_only_with_a_timeout() {
    const CID: &str = "bafkr4iefvsx6zgce5mqexsib4dgcf4qyo26hvcymjv5ffui3gek7sdd3pm";
    let a = Machine::new("alone");
    let ended = a.run(&["get", CID, "--timeout", "1"]);
    assert_fails(&ended, 3, &["nobody who has it"]);

    let began = std::time::Instant::now();
    let waiting = a.start(&["get", CID, "--progress", "plain"]);
    while !waiting.said().contains("nobody has it yet") {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", waiting.said());
        std::thread::sleep(Duration::from_millis(50));
    }
    let stopped = waiting.stop();
    assert_eq!(stopped.code(), 130, "{}", stopped.said);
}

#[test]
fn ctrl_c_says_how_far_it_was_and_the_next_get_goes_on() {
    let a = Machine::new("from");
    let pack = a.path("Pack");
    write(&pack.join("big.bin"), &noise(1, 12 << 20));
    let seed = share(&a, &pack, &["--upload-limit", "4MiB/s"]);
    let b = Machine::new("to");
    let get = ["get", &seed.link, "--json", "--no-seed"];
    let process = b.start(&get);
    process.until_bytes(1 << 20);
    let stopped = process.stop();
    assert_fails(&stopped, 7, &["is kept", "goes on from there"]);
    assert_eq!(stopped.last_json()["kind"], "interrupted");
    let done = b.run(&get);
    assert_eq!(done.code(), 0, "{}", done.said);
    let complete = done.last_json();
    assert!(complete["bytes_reused"].as_u64() > Some(0), "{complete}");

    let again = b.run(&get).last_json();
    assert_eq!(again["bytes_fetched"], 0, "{again}");
    // To another folder: the plan says before anything is written that nothing need be fetched.
    let copied = b.start(&[&get[..], &["-o", "copy"]].concat());
    let plan = copied.until_event("plan");
    assert_eq!(plan["bytes_here"], plan["bytes"], "{plan}");
    assert_eq!(copied.until_event("complete")["bytes_fetched"], 0);
}

#[test]
fn an_edited_file_is_brought_back_when_asked_and_a_deleted_one_at_once() {
    let (_a, seed) = shared();
    let b = Machine::new("to");
    let file = b.path("Pack/sub/small.txt");
    let get = ["get", &seed.link, "--json", "--no-seed"];
    assert_eq!(b.run(&get).code(), 0);

    write(&file, b"edited by me");
    let status = b.run(&["info", "Pack", "--json"]).last_json();
    assert_eq!(status["state"], "damaged");
    let problem = status["problem"].as_str().expect("text");
    assert!(
        problem.contains("sub/small.txt") && problem.contains("--overwrite"),
        "{problem}"
    );
    assert_fails(&b.run(&get), 13, &["sub/small.txt"]);
    let mended = b.run(&[&get[..], &["--overwrite"]].concat());
    assert_eq!(mended.code(), 0, "{}", mended.said);
    assert_eq!(mended.last_json()["bytes_fetched"], 4);
    assert_eq!(fs::read(&file).expect("there"), b"text");

    fs::remove_file(&file).expect("deleted");
    let mended = b.run(&get);
    assert_eq!(mended.code(), 0, "{}", mended.said);
    assert_eq!(fs::read(&file).expect("there"), b"text");
}

/// The new version takes the folder over: what the user names by it is the new one, and `rm` leaves nothing of either.
#[test]
fn an_update_leaves_one_pack_under_its_name() {
    let a = Machine::new("from");
    let b = Machine::new("to");
    let pack = a.path("Pack");
    write(&pack.join("stays.bin"), &noise(1, 1 << 20));
    write(&pack.join("version.txt"), b"1");
    let first = share(&a, &pack, &[]);
    assert_eq!(b.run(&["get", &first.link, "--no-seed"]).code(), 0);
    first.process.stop();
    write(&pack.join("version.txt"), b"2");
    let second = share(&a, &pack, &[]);
    let updated = b.run(&["get", &second.link, "--json", "--no-seed", "-o", "Pack"]);
    assert_eq!(updated.code(), 0, "{}", updated.said);
    assert_eq!(updated.last_json()["bytes_fetched"], 1);
    assert_eq!(fs::read(b.path("Pack/version.txt")).expect("there"), b"2");

    for target in ["Pack", b.path("Pack").to_str().expect("UTF-8"), &second.link] {
        let info = b.run(&["info", target, "--json"]);
        assert_eq!(info.code(), 0, "{target}: {}", info.said);
        assert_eq!(info.last_json()["pack"], second.pack, "{target}");
    }
    let older = b.run(&["info", &first.pack, "--json"]).last_json();
    assert_eq!(older["state"], "superseded");

    write(&b.path("Pack/mine.txt"), b"not of the pack");
    let removed = b.run(&["rm", "--data", "Pack", "--json"]);
    assert_eq!(removed.code(), 0, "{}", removed.said);
    assert_eq!(removed.last_json()["data_deleted"], true);
    assert!(b.path("Pack/mine.txt").exists() && !b.path("Pack/stays.bin").exists());
    assert_eq!(b.run(&["status", "--json"]).last_json()["packs"], serde_json::json!([]));
}

#[test]
fn a_file_that_changes_while_it_is_seeded_gives_nobody_wrong_bytes() {
    let a = Machine::new("from");
    let b = Machine::new("to");
    let pack = a.path("Pack");
    write(&pack.join("a.bin"), &noise(1, 1 << 20));
    write(&pack.join("b.bin"), &noise(2, 1 << 20));
    let seed = share(&a, &pack, &[]);
    write(&pack.join("b.bin"), &noise(3, 1 << 20));
    let ended = b.run(&["get", &seed.link, "--json", "--no-seed", "--timeout", "3"]);
    assert_fails(&ended, 3, &["no new block"]);
    assert!(!b.path("Pack/b.bin").exists(), "wrong bytes were put in place");
    let status = a.run(&["info", "Pack", "--json"]).last_json();
    assert_eq!(status["state"], "damaged");
    let problem = status["problem"].as_str().expect("text");
    assert!(
        problem.contains("b.bin") && problem.contains("share the folder again"),
        "{problem}"
    );

    // Mended as it says, and under the old link everything but the changed file is still to be had.
    let again = share(&a, &pack, &[]);
    assert_ne!(again.pack, seed.pack);
    let done = b.run(&["get", &again.link, "--json", "--no-seed", "-o", "new"]);
    assert_eq!(done.code(), 0, "{}", done.said);
    support::assert_same_tree(&pack, &b.path("new/Pack"));
}

#[test]
fn an_address_that_is_not_ours_says_what_the_system_said() {
    let refused = Machine::new("alone").run(&[
        "get",
        "bafkr4iefvsx6zgce5mqexsib4dgcf4qyo26hvcymjv5ffui3gek7sdd3pm",
        "--listen",
        "/ip4/203.0.113.7/tcp/4001",
    ]);
    assert_fails(&refused, 6, &["/ip4/203.0.113.7/tcp/4001: ", "os error", "--listen"]);
}
