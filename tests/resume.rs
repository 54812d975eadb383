//! Interrupted downloads go on from what they had, from whoever is there.

#![cfg(unix)]

mod support;

use support::{Machine, Process, assert_same_tree, noise, share, write};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 48 * MIB;

/// Starts a get that is slow enough to be ended half-way, ends it with `end`, and lets it go on.
fn ended_half_way(end: impl FnOnce(Process)) {
    let [a, b] = ["from", "to"].map(Machine::new);
    let pack = a.path("Pack");
    for i in 0..6 {
        write(&pack.join(format!("{i}.pak")), &noise(i, (SIZE / 6) as usize));
    }
    let seed = share(&a, &pack, &[]);
    let slow = b.start(&["get", &seed.link, "--json", "--download-limit", "12MiB/s"]);
    slow.until_bytes(20 * MIB);
    end(slow);

    let got = b.run(&["get", &seed.link, "--json", "--no-seed"]);
    assert_eq!(got.code(), 0, "{}", got.said);
    let complete = got.last_json();
    let fetched = complete["bytes_fetched"].as_u64().expect("a number");
    // What was verified within the last second before a kill may have to come again.
    assert!(fetched < SIZE - 4 * MIB, "fetched {fetched} of {SIZE} again");
    assert_eq!(fetched + complete["bytes_reused"].as_u64().expect("a number"), SIZE);
    assert_same_tree(&pack, &b.path("Pack"));
}

#[test]
fn after_ctrl_c_a_get_goes_on() {
    ended_half_way(|get| {
        let ended = get.stop();
        assert_eq!(ended.code(), 7, "{}", ended.said);
    });
}

#[test]
fn after_kill_9_a_get_goes_on() {
    ended_half_way(Process::kill);
}

#[test]
fn a_get_waits_for_a_seed_that_comes_back() {
    let [a, b] = ["from", "to"].map(Machine::new);
    let pack = a.path("Pack");
    write(&pack.join("one.pak"), &noise(1, (30 * MIB) as usize));
    let seed = share(&a, &pack, &["--upload-limit", "10MiB/s"]);
    // The link names the port: the seed has to come back on it.
    let addr = seed.ready["addrs"][0].as_str().expect("an address").to_owned();
    let listen = addr.split("/p2p/").next().expect("an address").to_owned();
    let get = b.start(&["get", &seed.link, "--json", "--no-seed"]);
    get.until_bytes(5 * MIB);
    seed.process.kill();
    let _again = share(&a, &pack, &["--listen", &listen]);
    get.until_event("complete");
    assert_eq!(get.finish().code(), 0);
    assert_same_tree(&pack, &b.path("Pack"));
}
