//! A peer that sends wrong bytes, over real processes: banned, remembered, and forgiven.

#![cfg(unix)]

#[path = "support/liar.rs"]
mod liar;
#[path = "support/rawpeer.rs"]
mod rawpeer;
mod support;

use std::time::{SystemTime, UNIX_EPOCH};

use liar::{Greeting, Liar};
use modswarm_protocol::format::ChunkerProfile;
use serde_json::Value;
use support::{Machine, Process, assert_same_tree, noise, share, write};

/// Shorter than any chunk is cut (a quarter of the average), so that each file is one piece of this length.
const FILE_LEN: u32 = 8_000;
const FILES: u64 = 250;
const _: () = assert!((FILE_LEN as usize) < ChunkerProfile::DEFAULT.max_len() / 16);

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock past 1970").as_secs()
}

/// What `peers` with `more` arguments answers, as a list.
#[track_caller]
fn peers(machine: &Machine, more: &[&str]) -> Vec<Value> {
    let listed = machine.run(&[&["peers", "--json"], more].concat());
    assert_eq!(listed.code(), 0, "{}", listed.said);
    let all: Value = serde_json::from_str(&listed.stdout.concat()).expect("JSON");
    all.as_array().expect("a list").clone()
}

#[track_caller]
fn entry(all: &[Value], peer_id: &str) -> Value {
    let found = all.iter().find(|peer| peer["peer_id"] == peer_id);
    found.unwrap_or_else(|| panic!("no {peer_id} among {all:#?}")).clone()
}

#[track_caller]
fn assert_banned(machine: &Machine, liar: &Liar) {
    let peer = entry(&peers(machine, &[]), &liar.peer_id);
    let until = peer["banned_until"]
        .as_u64()
        .unwrap_or_else(|| panic!("not banned: {peer:#}"));
    assert!(until > now() + 20 * 3600 && until <= now() + 24 * 3600, "until {until}");
    assert_eq!(peer["ban_reason"], "corrupt_block");
    assert_eq!(peer["connected"], false);
    assert_eq!(peer["score"], -100);
    assert_eq!(peer["faults"][0]["kind"], "corrupt_block");
}

#[track_caller]
fn addr(machine: &Machine) -> String {
    let status = machine.run(&["status", "--json"]).last_json();
    status["addrs"][0].as_str().expect("an address").to_owned()
}

#[test]
fn a_liar_is_banned_over_restarts_until_it_is_forgiven() {
    let [a, b] = ["honest", "getter"].map(Machine::new);
    let pack = a.path("Pack");
    for i in 0..FILES {
        write(&pack.join(format!("{i}.cfg")), &noise(i, FILE_LEN as usize));
    }
    // Slow enough that the liar is asked for most of it.
    let seed = share(&a, &pack, &["--upload-limit", "128KiB/s"]);
    let liar = Liar::start(&seed.content, FILES as u32, FILE_LEN);

    let getting = |more: &[&str]| -> Process {
        let get = ["get", &seed.link, "--json", "-o", "in", "--peer", &liar.addr];
        b.start(&[&get, more].concat())
    };
    let seeding = getting(&[]);
    let complete = seeding.until_event("complete");
    assert_same_tree(&pack, &b.path("in/Pack"));
    assert_eq!(support::bytes_from(&complete, &liar.peer_id), 0, "a lie was counted");
    assert_eq!(
        support::bytes_from(&complete, &seed.peer_id),
        FILES * u64::from(FILE_LEN)
    );

    // The process that banned it says so, and lets it in no more. The honest one is fine.
    assert_banned(&b, &liar);
    let honest = entry(&peers(&b, &["--all"]), &seed.peer_id);
    assert_eq!(honest["banned_until"], Value::Null);
    assert_eq!(honest["bytes_received_total"], FILES * u64::from(FILE_LEN));
    assert_eq!(liar.greet(&addr(&b)), Greeting::Refused);
    let said = b.run(&["peers"]);
    let shown = said.stdout.join("\n");
    assert!(
        shown.contains(&liar.peer_id) && shown.contains("it sent wrong bytes"),
        "{}",
        said.said
    );
    seeding.stop();

    // With nothing running it is remembered, and after a restart it is not let in.
    assert_banned(&b, &liar);
    let seeding = getting(&[]);
    seeding.until_event("complete");
    assert_banned(&b, &liar);
    assert_eq!(liar.greet(&addr(&b)), Greeting::Refused);

    // Forgiving one that nobody knows says so; forgiving the liar lets it in at once.
    let unknown = b.run(&[
        "peers",
        "forgive",
        "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo",
        "--json",
    ]);
    assert_eq!(unknown.code(), 3, "{}", unknown.said);
    let forgiven = b.run(&["peers", "forgive", &liar.peer_id, "--json"]);
    assert_eq!(forgiven.code(), 0, "{}", forgiven.said);
    assert_eq!(forgiven.last_json()["peers"], 1);
    assert_eq!(liar.greet(&addr(&b)), Greeting::Answered);
    seeding.stop();
    let remembered = entry(&peers(&b, &["--all"]), &liar.peer_id);
    assert_eq!(
        (&remembered["banned_until"], &remembered["score"]),
        (&Value::Null, &Value::from(0))
    );
    assert_eq!(
        peers(&b, &[])
            .iter()
            .filter(|peer| peer["peer_id"] == liar.peer_id)
            .count(),
        0
    );
}

#[test]
fn forgive_wants_to_know_whom() {
    let machine = Machine::new("forgiving");
    for args in [
        vec!["peers", "forgive"],
        vec![
            "peers",
            "forgive",
            "--all",
            "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo",
        ],
    ] {
        assert_eq!(machine.run(&args).code(), 2);
    }
    let everyone = machine.run(&["peers", "forgive", "--all", "--json"]);
    assert_eq!(
        (everyone.code(), &everyone.last_json()["peers"]),
        (0, &Value::from(0)),
        "{}",
        everyone.said
    );
    let nobody = machine.run(&["peers", "forgive", "nonsense"]);
    assert_eq!(nobody.code(), 2, "{}", nobody.said);
    assert!(nobody.said.contains("nonsense"), "{}", nobody.said);
}
