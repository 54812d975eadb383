//! Getting a new version over an installed one, over real processes: what is said before is what is done, and the user's files are his.

#![cfg(unix)]

mod support;

use std::fs;

use serde_json::Value;
use support::{Machine, Seed, assert_same_tree, noise, share, write};

/// `b` has the first version in `Pack`, with one file edited; the second is shared.
struct Case {
    a: Machine,
    b: Machine,
    first: String,
    second: Seed,
}

impl Case {
    fn new() -> Self {
        let [a, b] = ["from", "to"].map(Machine::new);
        let pack = a.path("Pack");
        write(&pack.join("same.pak"), &noise(1, 300_000));
        write(&pack.join("changes.pak"), &noise(2, 2_000_000));
        write(&pack.join("Skin.pak"), &noise(3, 200_000));
        write(&pack.join("old/moved.pak"), &noise(4, 400_000));
        write(&pack.join("gone.pak"), &noise(5, 50_000));
        let first = share(&a, &pack, &[]);
        let got = b.run(&["get", &first.link, "--json", "--no-seed"]);
        assert_eq!(got.code(), 0, "{}", got.said);
        let first_pack = first.ready["pack"].as_str().expect("a CID").to_owned();
        first.process.kill();
        let mut changed = noise(2, 2_000_000);
        changed[1_000_000] ^= 1;
        write(&pack.join("changes.pak"), &changed);
        write(&pack.join("Skin.pak"), &noise(6, 210_000));
        write(&pack.join("fresh.pak"), &noise(7, 90_000));
        fs::create_dir(pack.join("new")).expect("a folder");
        fs::rename(pack.join("old/moved.pak"), pack.join("new/moved.pak")).expect("it moves");
        fs::remove_dir(pack.join("old")).expect("it is empty");
        fs::remove_file(pack.join("gone.pak")).expect("it is there");
        let second = share(&a, &pack, &[]);
        write(&b.path("Pack/Skin.pak"), b"edited");
        Self {
            a,
            b,
            first: first_pack,
            second,
        }
    }

    fn get(&self, more: &[&str]) -> support::Finished {
        let get = ["get", &self.second.link, "--json", "--no-seed"];
        self.b.run(&[&get[..], more].concat())
    }

    fn skin(&self) -> Vec<u8> {
        fs::read(self.b.path("Pack/Skin.pak")).expect("it is there")
    }
}

fn names(value: &Value) -> Vec<&str> {
    let list = value.as_array().expect("a list");
    list.iter().map(|name| name.as_str().expect("text")).collect()
}

#[test]
fn without_a_word_about_edits_nothing_is_changed() {
    let case = Case::new();
    let refused = case.get(&[]);
    assert_eq!(refused.code(), 13, "{}", refused.said);
    assert!(refused.said.contains("--keep-mine") || refused.stdout.join("\n").contains("--keep-mine"));
    assert_eq!(case.skin(), b"edited");
    assert_eq!(
        fs::read(case.b.path("Pack/changes.pak")).expect("there"),
        noise(2, 2_000_000)
    );
    assert!(case.b.path("Pack/gone.pak").exists());
}

#[test]
fn a_dry_run_says_what_the_get_does_and_does_nothing() {
    let case = Case::new();
    let dry = case.get(&["--dry-run", "--keep-both"]);
    assert_eq!(dry.code(), 0, "{}", dry.said);
    let plan = dry.last_json();
    assert!(case.b.path("Pack/gone.pak").exists() && !case.b.path("Pack/fresh.pak").exists());
    assert_eq!(names(&plan["added"]), ["fresh.pak"]);
    assert_eq!(names(&plan["changed"]), ["Skin.pak", "changes.pak"]);
    assert_eq!(names(&plan["removed"]), ["gone.pak"]);
    assert_eq!(names(&plan["conflicts"]), ["Skin.pak"]);
    assert_eq!(plan["renamed"][0]["to"], "new/moved.pak");

    let pack = case.b.path("Pack");
    let diff = case.b.run(&["diff", "Pack", &case.second.link, "--json"]);
    assert_eq!(diff.code(), 0, "{}", diff.said);
    let diff = diff.last_json();
    for field in [
        "added",
        "changed",
        "removed",
        "renamed",
        "conflicts",
        "bytes_to_fetch",
        "unchanged",
    ] {
        assert_eq!(diff[field], plan[field], "{field}");
    }
    let between = case.b.run(&["diff", &case.first, &case.second.link, "--json"]);
    assert_eq!(between.code(), 0, "{}", between.said);
    let between = between.last_json();
    for field in ["added", "changed", "removed", "renamed", "bytes_to_fetch", "unchanged"] {
        assert_eq!(between[field], plan[field], "{field}");
    }

    let done = case.get(&["--keep-both"]);
    assert_eq!(done.code(), 0, "{}", done.said);
    let complete = done.last_json();
    assert_eq!(complete["bytes_fetched"], plan["bytes_to_fetch"]);
    assert_eq!(complete["removed"], plan["removed"]);
    assert_eq!(complete["renamed"], plan["renamed"]);
    assert_eq!(complete["set_aside"][0]["to"], "Skin (mine).pak");
    let aside = pack.join("Skin (mine).pak");
    assert_eq!(fs::read(&aside).expect("it is kept"), b"edited");
    fs::remove_file(aside).expect("it is there");
    assert_same_tree(&case.a.path("Pack"), &pack);
}

#[test]
fn mine_stay_and_the_pack_is_not_called_damaged() {
    let case = Case::new();
    let done = case.get(&["--keep-mine"]);
    assert_eq!(done.code(), 0, "{}", done.said);
    assert_eq!(names(&done.last_json()["kept"]), ["Skin.pak"]);
    assert_eq!(case.skin(), b"edited");
    assert!(case.b.path("Pack/fresh.pak").exists());
    let info = case.b.run(&["info", "Pack", "--json"]);
    assert_eq!(info.last_json()["state"], "seeding", "{}", info.said);
    assert!(info.last_json()["kept"].as_u64() >= Some(1), "{}", info.said);
    assert_eq!(case.get(&[]).code(), 13, "it is asked again");
}

#[test]
fn theirs_replace_mine_by_either_name_of_the_flag() {
    for flag in ["--take-theirs", "--overwrite"] {
        let case = Case::new();
        let done = case.get(&[flag]);
        assert_eq!(done.code(), 0, "{}", done.said);
        assert_same_tree(&case.a.path("Pack"), &case.b.path("Pack"));
    }
}
