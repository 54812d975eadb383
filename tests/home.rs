//! One home and several processes: the first holds it, the others ask it, and one of them takes over when it is gone.

#![cfg(unix)]

mod support;

use std::{fs, time::Duration};

use serde_json::Value;
use support::{Machine, PATIENCE, noise, share, write};

fn status(machine: &Machine) -> Value {
    let status = machine.run(&["status", "--json"]);
    assert_eq!(status.code(), 0, "{}", status.said);
    status.last_json()
}

/// Waits until a process serves the home again.
fn await_held(machine: &Machine) -> Value {
    let began = std::time::Instant::now();
    loop {
        let status = status(machine);
        if !status["peer_id"].is_null() {
            return status;
        }
        assert!(began.elapsed() < PATIENCE, "nobody took the home over: {status}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A share holds the home and a get is its client, half done, when the holder ends: the get goes on from what there is.
fn an_unfinished_get_takes_over(end: impl FnOnce(support::Process)) {
    let [a, b] = ["from", "both"].map(Machine::new);
    write(&a.path("Pack/big.bin"), &noise(1, 24 << 20));
    write(&b.path("Own/file.bin"), &noise(2, 1 << 20));
    let seed = share(&a, &a.path("Pack"), &["--upload-limit", "4MiB/s"]);
    let own = share(&b, &b.path("Own"), &[]);

    let get = b.start(&["get", &seed.link, "--json"]);
    // What came in the last second may be lost by a kill; the rest may not.
    get.until_bytes(10 << 20);
    let packs = status(&b)["packs"].as_array().expect("a list").len();
    assert_eq!(packs, 2);
    let peers = b.run(&["peers", "--json"]).last_json();
    assert_eq!(peers[0]["peer_id"], seed.peer_id.as_str());
    assert_eq!(peers[0]["contents"], serde_json::json!([seed.content]));
    end(own.process);

    let complete = get.until_event("complete");
    assert!(get.said().contains("this one goes on with it"), "{}", get.said());
    let reused = complete["bytes_reused"].as_u64().expect("a number");
    assert!(reused > 0, "it began again: {complete}");
    support::assert_same_tree(&a.path("Pack"), &b.path("Pack"));

    // The pack that the former holder shared is seeded by the one who took over.
    let status = await_held(&b);
    assert_eq!(status["peer_id"], own.peer_id.as_str());
    let c = Machine::new("third");
    let addr = status["addrs"][0].as_str().expect("an address").to_owned();
    let got = c.run(&["get", &own.pack, "--peer", &addr, "--no-seed"]);
    assert_eq!(got.code(), 0, "{}", got.said);
    let ended = get.stop();
    assert_eq!(ended.code(), 0, "{}", ended.said);
}

#[test]
fn a_get_takes_the_home_over_when_its_holder_is_killed() {
    an_unfinished_get_takes_over(support::Process::kill);
}

#[test]
fn a_get_takes_the_home_over_when_its_holder_is_stopped() {
    an_unfinished_get_takes_over(|holder| {
        holder.signal(rustix::process::Signal::TERM);
        let ended = holder.finish();
        assert_eq!(ended.code(), 0, "{}", ended.said);
    });
}

#[test]
fn what_a_client_shared_goes_on_being_seeded_when_it_ends() {
    let [a, b] = ["both", "to"].map(Machine::new);
    write(&a.path("One/file.bin"), &noise(1, 100_000));
    write(&a.path("Two/file.bin"), &noise(2, 100_000));
    let holder = share(&a, &a.path("One"), &[]);
    let client = share(&a, &a.path("Two"), &[]);
    assert_eq!(client.peer_id, holder.peer_id);
    let ended = client.process.stop();
    assert_eq!(ended.code(), 0, "{}", ended.said);
    let got = b.run(&["get", &client.link, "--no-seed"]);
    assert_eq!(got.code(), 0, "{}", got.said);
}

#[test]
fn a_home_that_is_no_home_says_so_and_is_left_alone() {
    let a = Machine::new("broken");
    fs::write(a.path("home"), b"a file").expect("written");
    let refused = a.run(&["status"]);
    assert_eq!(refused.code(), 2, "{}", refused.said);
    assert!(refused.said.contains("is a file"), "{}", refused.said);
    fs::remove_file(a.path("home")).expect("removed");

    for (file, word, remedy) in [
        ("index.sqlite", "index", "rebuild"),
        ("identity.key", "key file", "move"),
    ] {
        fs::create_dir(a.path("home")).expect("a folder");
        fs::write(a.home().join(file), noise(1, 10_000)).expect("written");
        let refused = a.run(&["status"]);
        assert_eq!(refused.code(), 1, "{}", refused.said);
        for word in [word, "damaged", "help: ", remedy] {
            assert!(refused.said.contains(word), "{word} is missing in {}", refused.said);
        }
        assert_eq!(fs::read(a.home().join(file)).expect("still there"), noise(1, 10_000));
        fs::remove_dir_all(a.home()).expect("removed");
    }
}

/// The remedy that a damaged index names: what is there is taken as it is.
#[test]
fn a_new_index_takes_up_what_is_on_the_disk() {
    let [a, b] = ["from", "to"].map(Machine::new);
    write(&a.path("Pack/big.bin"), &noise(1, 2 << 20));
    let seed = share(&a, &a.path("Pack"), &[]);
    let get = ["get", &seed.link, "--json", "--no-seed"];
    assert_eq!(b.run(&get).code(), 0);
    fs::remove_file(b.home().join("index.sqlite")).expect("removed");
    let again = b.run(&get);
    assert_eq!(again.code(), 0, "{}", again.said);
    assert_eq!(again.last_json()["bytes_fetched"], 0);
}
