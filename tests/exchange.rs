//! Peer exchange over real processes: a link names one node, and whoever follows it finds all the others.

#![cfg(unix)]

mod support;

use serde_json::Value;
use support::{Machine, Process, assert_same_tree, bytes_from, noise, share, write};

const MIB: usize = 1 << 20;
/// What the log says when a peer names others.
const NAMES_PEERS: &str = "names peers";

/// Starts a get that says in its log what it hears.
fn get(machine: &Machine, link: &str, more: &[&str]) -> Process {
    machine.start_with_log("modswarm=debug", &[&["get", link, "--json", "-o", "in"], more].concat())
}

fn status(machine: &Machine) -> Value {
    machine.run(&["status", "--json"]).last_json()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

#[test]
fn getters_who_know_the_seed_only_trade_with_each_other() {
    let seeding = Machine::new("seed");
    let getters = ["b", "c", "d"].map(Machine::new);
    let pack = seeding.path("Pack");
    write(&pack.join("big.bin"), &noise(1, 24 * MIB));
    let seed = share(&seeding, &pack, &["--upload-limit", "4MiB/s"]);

    let running = [0, 1, 2].map(|i| get(&getters[i], &seed.link, &[]));
    let complete = [0, 1, 2].map(|i| running[i].until_event("complete"));
    let ids = [0, 1, 2].map(|i| text(&status(&getters[i])["peer_id"]));
    for i in 0..3 {
        let others = (0..3).filter(|j| *j != i).map(|j| bytes_from(&complete[i], &ids[j]));
        let from_others: u64 = others.sum();
        let from_seed = bytes_from(&complete[i], &seed.peer_id);
        assert!(from_others > 0, "{from_seed} bytes from the seed: {}", complete[i]);
        assert_eq!(Some(from_seed + from_others), complete[i]["bytes_fetched"].as_u64());
        assert!(running[i].said().contains(NAMES_PEERS), "{}", running[i].said());
        assert_same_tree(&pack, &getters[i].path("in/Pack"));
    }
    for process in running {
        let ended = process.stop();
        assert_eq!(ended.code(), 0, "{}", ended.said);
    }
}

/// B and C get the pack and A, who shared it, leaves. D knows B only, and has what it can from both.
#[test]
fn who_comes_after_the_seed_has_left_finds_the_others_through_one() {
    let [a, b, c, d] = ["a", "b", "c", "d"].map(Machine::new);
    let pack = a.path("Pack");
    write(&pack.join("big.bin"), &noise(2, 24 * MIB));
    let seed = share(&a, &pack, &[]);
    // Slow enough that D has not got everything from B when it hears of C.
    let limit = ["--upload-limit", "4MiB/s"];
    let in_b = get(&b, &seed.link, &limit);
    let in_c = get(&c, &seed.link, &limit);
    in_b.until_event("complete");
    in_c.until_event("complete");
    let ended = seed.process.stop();
    assert_eq!(ended.code(), 0, "{}", ended.said);

    let addr = text(&status(&b)["addrs"][0]);
    let in_d = get(&d, &seed.pack, &["--peer", &addr]);
    let complete = in_d.until_event("complete");
    assert!(in_d.said().contains(NAMES_PEERS), "{}", in_d.said());
    for machine in [&b, &c] {
        let from = bytes_from(&complete, &text(&status(machine)["peer_id"]));
        assert!(from > 0, "{complete}");
    }
    assert_same_tree(&pack, &d.path("in/Pack"));
}
