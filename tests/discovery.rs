//! Finding who has a pack by nothing but its CID: provider records through a bootstrap node, over both transports.

#![cfg(unix)]

mod support;

use support::{Machine, noise, share, write};

/// B and C know A only. B shares; C gets by the bare CID, and A never has a byte of it.
#[track_caller]
fn a_pack_is_found_through_the_bootstrap_node(listen: &'static str) {
    let [a, b, c] = ["entry", "from", "to"].map(Machine::new);
    write(&a.path("Other/file.txt"), b"something else");
    write(&b.path("Pack/big.bin"), &noise(1, 2 << 20));
    let entry = share(&a, &a.path("Other"), &["--listen", listen]);
    let addr = entry.ready["addrs"][0].as_str().expect("an address").to_owned();
    let seed = share(&b, &b.path("Pack"), &["--listen", listen, "--bootstrap", &addr]);
    for (cid, place) in [(&seed.pack, "by-pack"), (&seed.content, "by-content")] {
        let got = c.run(&[
            "get",
            cid,
            "--json",
            "--no-seed",
            "-o",
            place,
            "--listen",
            listen,
            "--bootstrap",
            &addr,
            "--timeout",
            "60",
        ]);
        assert_eq!(got.code(), 0, "{}", got.said);
        if place == "by-pack" {
            let complete = got.last_json();
            assert_eq!(
                support::bytes_from(&complete, &seed.peer_id),
                complete["bytes_fetched"].as_u64().expect("a number")
            );
            support::assert_same_tree(&b.path("Pack"), &c.path("by-pack/Pack"));
        }
    }
}

#[test]
fn a_pack_is_found_by_its_cid_over_tcp() {
    a_pack_is_found_through_the_bootstrap_node("/ip4/127.0.0.1/tcp/0");
}

#[test]
fn a_pack_is_found_by_its_cid_over_quic() {
    a_pack_is_found_through_the_bootstrap_node("/ip4/127.0.0.1/udp/0/quic-v1");
}

/// C looks before anybody has the pack, and gets it once B shares.
#[test]
fn who_waits_is_served_when_the_pack_appears() {
    let [a, b, c] = ["entry", "from", "to"].map(Machine::new);
    write(&a.path("Other/file.txt"), b"something else");
    write(&b.path("Pack/big.bin"), &noise(1, 1 << 20));
    let entry = share(&a, &a.path("Other"), &[]);
    let addr = entry.ready["addrs"][0].as_str().expect("an address").to_owned();
    // Shared once, so that the CID is known, and ended again: a node of its own, which A never meets.
    let before = share(&b, &b.path("Pack"), &[]);
    let pack = before.pack.clone();
    before.process.stop();

    let waiting = c.start(&["get", &pack, "--json", "--no-seed", "--bootstrap", &addr]);
    let looking = waiting.until_event("progress");
    assert_eq!(looking["bytes_done"], 0);
    let seed = share(&b, &b.path("Pack"), &["--bootstrap", &addr]);
    assert_eq!(seed.pack, pack);
    let complete = waiting.until_event("complete");
    assert_eq!(complete["pack"], pack.as_str());
}
