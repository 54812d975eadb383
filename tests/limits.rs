//! Limits, pauses, priorities and the queue, over real processes.

#![cfg(unix)]

mod support;

use serde_json::Value;
use support::{Machine, Process, assert_same_tree, noise, share, write};

const MIB: usize = 1 << 20;

/// Runs a command of one machine that answers in JSON.
#[track_caller]
fn ask(machine: &Machine, args: &[&str]) -> Value {
    let answered = machine.run(&[args, &["--json"]].concat());
    assert_eq!(answered.code(), 0, "{args:?}: {}", answered.said);
    answered.last_json()
}

/// Reads lines until a get says that it is at `stage`.
#[track_caller]
fn until_stage(getting: &Process, stage: &str) -> Value {
    loop {
        let progress = getting.until_event("progress");
        if progress["stage"] == stage {
            return progress;
        }
    }
}

fn pack_of(status: &Value) -> &Value {
    &status["packs"][0]
}

#[test]
fn a_limit_is_changed_while_a_get_runs() {
    let [a, b] = ["a", "b"].map(Machine::new);
    let pack = a.path("Slow");
    write(&pack.join("a.pak"), &noise(1, 24 * MIB));
    // So slow that it would take a quarter of an hour.
    let seed = share(&a, &pack, &["--upload-limit", "30kB/s"]);
    let getting = b.start(&["get", &seed.link, "--json", "--no-seed", "-o", "in"]);
    until_stage(&getting, "downloading");
    assert_eq!(ask(&a, &["status"])["upload_limit"], 30_000);
    let limits = ask(&a, &["limit", "--up", "none", "--down", "3MB/s"]);
    assert_eq!(limits["upload"], "unlimited");
    assert_eq!(limits["download"]["bytes_per_second"], 3_000_000);
    let complete = getting.until_event("complete");
    assert_eq!(complete["bytes_fetched"], seed.ready["bytes"]);
    assert_same_tree(&pack, &b.path("in/Slow"));
    let status = ask(&a, &["status"]);
    assert_eq!(
        (&status["upload_limit"], &status["download_limit"]),
        (&Value::Null, &3_000_000.into())
    );
    // Uploads that look after themselves begin slowly.
    let limits = ask(&a, &["limit", "--up", "auto"]);
    assert_eq!(limits["upload"], "auto");
    assert!(limits["upload_now"].as_u64().is_some_and(|rate| rate > 0), "{limits}");
    assert_eq!(ask(&a, &["status"])["upload_auto"], true);
}

#[test]
fn a_paused_pack_stays_paused_across_processes_and_says_so() {
    let [a, b] = ["a", "b"].map(Machine::new);
    let pack = a.path("Pack");
    write(&pack.join("a.pak"), &noise(1, 8 * MIB));
    let seed = share(&a, &pack, &["--upload-limit", "200kB/s"]);
    let getting = b.start(&["get", &seed.link, "--json", "-o", "in"]);
    until_stage(&getting, "downloading");
    // Another process pauses it, and sets what is kept with it.
    let paused = ask(&b, &["pause", "Pack"]);
    assert_eq!(
        (&paused[0]["stopped"], &paused[0]["state"]),
        (&true.into(), &"paused".into())
    );
    ask(&b, &["priority", "Pack", "high"]);
    ask(&b, &["limit", "Pack", "--down", "64MB/s"]);
    until_stage(&getting, "paused");
    let stopped = getting.stop();
    assert!(stopped.said.contains("modswarm resume 'Pack'"), "{}", stopped.said);
    // Nobody holds the home now, and all is as it was.
    let status = ask(&b, &["status"]);
    let kept = pack_of(&status);
    assert_eq!((&kept["stopped"], &kept["priority"]), (&true.into(), &"high".into()));
    assert_eq!(kept["download_limit"], 64_000_000);
    // The limits of all packs together are nobody's.
    let limited = b.run(&["limit", "--up", "1MB/s"]);
    assert_eq!(limited.code(), 1, "{}", limited.said);
    assert!(limited.said.contains("no modswarm is running"), "{}", limited.said);
    // A new get says that it is paused, and goes on once it is not.
    ask(&a, &["limit", "--up", "none"]);
    let getting = b.start(&["get", &seed.link, "--json", "-o", "in"]);
    let progress = until_stage(&getting, "paused");
    assert!(progress["bytes_done"].as_u64() < progress["bytes_total"].as_u64());
    ask(&b, &["resume", "--all"]);
    getting.until_event("complete");
    assert_same_tree(&pack, &b.path("in/Pack"));
    assert_eq!(pack_of(&ask(&b, &["status"]))["state"], "seeding");
    // Paused, it is not served either: who comes finds nobody.
    ask(&b, &["pause", "Pack"]);
    let addr = ask(&b, &["status"])["addrs"][0]
        .as_str()
        .expect("an address")
        .to_owned();
    seed.process.stop();
    let c = Machine::new("c");
    let asked = c.run(&["get", &seed.content, "--peer", &addr, "--timeout", "4", "--no-seed"]);
    assert_eq!(asked.code(), 3, "{}", asked.said);
    ask(&b, &["resume", "Pack"]);
    let got = c.run(&["get", &seed.content, "--peer", &addr, "--no-seed"]);
    assert_eq!(got.code(), 0, "{}", got.said);
}

#[test]
fn downloads_beyond_the_first_wait_for_their_turn() {
    let [a, b] = ["a", "b"].map(Machine::new);
    let seeds = ["One", "Two"].map(|name| {
        let pack = a.path(name);
        write(&pack.join("a.pak"), &noise(name.len() as u64, 4 * MIB));
        write(&pack.join("name.txt"), name.as_bytes());
        pack
    });
    let first = share(&a, &seeds[0], &["--upload-limit", "150kB/s"]);
    let second = share(&a, &seeds[1], &[]);
    let one = b.start(&["get", &first.link, "--json", "-o", "in", "--max-active", "1"]);
    until_stage(&one, "downloading");
    let two = b.start(&["get", &second.link, "--json", "-o", "in"]);
    until_stage(&two, "queued");
    // A pause lets the next go.
    ask(&b, &["pause", "One"]);
    until_stage(&two, "downloading");
    ask(&a, &["limit", "--up", "none"]);
    two.until_event("complete");
    ask(&b, &["resume", "One"]);
    one.until_event("complete");
    assert_same_tree(&seeds[0], &b.path("in/One"));
    assert_same_tree(&seeds[1], &b.path("in/Two"));
}

#[test]
fn files_that_are_to_come_first_do() {
    let [a, b] = ["a", "b"].map(Machine::new);
    let pack = a.path("Pack");
    for (i, name) in ["a.pak", "b.pak", "z.utoc"].into_iter().enumerate() {
        write(&pack.join(name), &noise(i as u64 + 1, 4 * MIB));
    }
    let seed = share(&a, &pack, &["--upload-limit", "1MB/s"]);
    let getting = b.start(&[
        "get",
        &seed.link,
        "--json",
        "-o",
        "in",
        "--first",
        "*.utoc",
        "--sequential",
    ]);
    // With a third of it here, and a little more, all of that is the last file.
    getting.until_bytes(4 * MIB as u64 + 600_000);
    getting.stop();
    let got = b.run(&[
        "get",
        &seed.link,
        "--json",
        "-o",
        "out",
        "--only",
        "*.utoc",
        "--no-seed",
    ]);
    assert_eq!(got.code(), 0, "{}", got.said);
    assert_eq!(got.last_json()["bytes_fetched"], 0, "{}", got.last_json());

    let wrong = b.run(&["get", &seed.link, "-o", "else", "--first", "*.ucas"]);
    assert_eq!(wrong.code(), 2, "{}", wrong.said);
    assert!(wrong.said.contains("--first"), "{}", wrong.said);
}

#[test]
fn wrong_wishes_are_answered_with_what_is_right() {
    let a = Machine::new("a");
    write(&a.path("Pack/a.pak"), b"a mod");
    let seed = share(&a, &a.path("Pack"), &[]);
    for (args, code, expected) in [
        (&["limit", "Pack", "--up", "auto"][..], 2, "modswarm limit --up auto"),
        (&["limit", "--down", "auto"], 2, "5MB/s"),
        (&["limit", "--up", "5"], 2, "5MB/s"),
        (&["pause"], 2, "--all"),
        (&["pause", "Pack", "--all"], 2, "--all"),
        (&["priority", "Pack", "urgent"], 2, "high"),
        (&["resume", "Nothing"], 1, "modswarm status"),
    ] {
        let answered = a.run(args);
        assert_eq!(answered.code(), code, "{args:?}: {}", answered.said);
        assert!(answered.said.contains(expected), "{args:?}: {}", answered.said);
    }
    assert_eq!(seed.process.stop().code(), 0);
    // What is only for this run changes nothing when nothing runs.
    let limits = a.run(&["limit", "--up", "1MB/s"]);
    assert!(limits.said.contains("no modswarm is running"), "{}", limits.said);
}
