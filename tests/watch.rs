//! Files that change while they are served, over real processes.

#![cfg(unix)]

mod support;

use std::{fs, time::Instant};

use serde_json::Value;
use support::{Machine, PATIENCE, assert_same_tree, noise, share, write};

/// Asks until `is` holds of what `info` says of the pack.
fn until(machine: &Machine, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let info = machine.run(&["info", "Pack", "--json"]);
        assert_eq!(info.code(), 0, "{}", info.said);
        let info = info.last_json();
        if is(&info) {
            return info;
        }
        assert!(began.elapsed() < PATIENCE, "{what} does not come: {info}");
    }
}

#[test]
fn what_is_edited_is_withdrawn_unasked_and_what_is_back_is_served_again() {
    let [a, b] = ["from", "to"].map(Machine::new);
    write(&a.path("Pack/one.pak"), &noise(1, 700_000));
    write(&a.path("Pack/two.pak"), &noise(2, 300_000));
    let seed = share(&a, &a.path("Pack"), &[]);
    let all = seed.ready["blocks"].as_u64().expect("a number");
    let here = |info: &Value| info["blocks_here"].as_u64().expect("a number");

    // Half of one file is written over: nobody has asked for it, and it is noticed.
    let mut edited = noise(1, 700_000);
    edited[350_000..].fill(7);
    write(&a.path("Pack/one.pak"), &edited);
    let info = until(&a, "the loss", |info| here(info) < all);
    assert_eq!(info["state"], "damaged");
    let problem = info["problem"].as_str().expect("text");
    assert!(problem.contains("one.pak") && problem.contains("share"), "{problem}");
    assert!(here(&info) > 0);

    // As it was: all of it is here again, and another gets it.
    write(&a.path("Pack/one.pak"), &noise(1, 700_000));
    until(&a, "the return", |info| here(info) == all);
    let got = b.run(&["get", &seed.link, "--no-seed", "--json"]);
    assert_eq!(got.code(), 0, "{}", got.said);
    assert_same_tree(&a.path("Pack"), &b.path("Pack"));
}

#[test]
fn a_renamed_mod_goes_on_and_a_folder_that_was_away_comes_back() {
    let [a, b] = ["from", "to"].map(Machine::new);
    write(&a.path("Pack/one.pak"), &noise(1, 700_000));
    let seed = share(&a, &a.path("Pack"), &[]);
    let all = seed.ready["blocks"].as_u64().expect("a number");
    fs::rename(a.path("Pack/one.pak"), a.path("Pack/one.pak.disabled")).expect("renamed");
    until(&a, "the renamed file", |info| info["state"] == "seeding");
    fs::rename(a.path("Pack"), a.path("Away")).expect("renamed");
    let info = until(&a, "the loss", |info| info["blocks_here"] == 0);
    let problem = info["problem"].as_str().expect("text");
    assert!(
        problem.contains("its folder is not there") && problem.contains("modswarm move"),
        "{problem}"
    );
    fs::rename(a.path("Away"), a.path("Pack")).expect("renamed");
    until(&a, "the return", |info| info["blocks_here"] == all);
    let got = b.run(&["get", &seed.link, "--no-seed", "--json"]);
    assert_eq!(got.code(), 0, "{}", got.said);
    assert_eq!(
        fs::read(b.path("Pack/one.pak")).expect("it is there"),
        noise(1, 700_000)
    );
}
