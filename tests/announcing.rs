//! What a node announces to others, and what it announces no more: provider records, heard and asked for by nodes that speak Kademlia alone.

#![cfg(unix)]

#[path = "support/dht.rs"]
mod dht;
mod support;

use std::{
    collections::HashSet,
    fs,
    time::{Duration, Instant},
};

use dht::{DhtNode, key_of};
use libp2p::{PeerId, kad::RecordKey};
use support::{Machine, PATIENCE, Seed, noise, share, write};

/// Shares the folder `name` until it is known by what CIDs, and ends.
fn shared_before(machine: &Machine, name: &str, more: &[&str]) -> [RecordKey; 2] {
    let seed = share(machine, &machine.path(name), more);
    let keys = keys_of(&seed);
    seed.process.stop();
    keys
}

fn keys_of(seed: &Seed) -> [RecordKey; 2] {
    [key_of(&seed.pack), key_of(&seed.content)]
}

fn peer_of(seed: &Seed) -> PeerId {
    seed.peer_id.parse().expect("a peer ID")
}

/// Listens until `peer` has announced each of `keys`; returns all that it announced meanwhile.
async fn until_announced(node: &mut DhtNode, peer: PeerId, keys: &[&RecordKey]) -> HashSet<RecordKey> {
    let mut heard = HashSet::new();
    while !keys.iter().all(|key| heard.contains(*key)) {
        let (who, key) = node.announcement().await;
        assert_eq!(who, peer);
        heard.insert(key);
    }
    heard
}

/// Asks until `peer` names itself, or does not, as having `key`.
async fn until_named(node: &DhtNode, peer: PeerId, key: &RecordKey, named: bool) {
    let began = Instant::now();
    while node.providers(key).await.contains(&peer) != named {
        assert!(began.elapsed() < PATIENCE, "{key:?} does not come to be named: {named}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_pack_is_announced_no_more() {
    let machine = Machine::new("from");
    write(&machine.path("Goes/a.pak"), &noise(1, 300_000));
    write(&machine.path("Stays/b.pak"), &noise(2, 300_000));
    let mut entry = DhtNode::new().await;
    let [goes, goes_content] = shared_before(&machine, "Goes", &[]);
    let seed = share(&machine, &machine.path("Stays"), &["--bootstrap", &entry.addr()]);
    let (peer, [stays, stays_content]) = (peer_of(&seed), keys_of(&seed));
    let all = [&goes, &goes_content, &stays, &stays_content];
    until_announced(&mut entry, peer, &all).await;
    for key in all {
        until_named(&entry, peer, key, true).await;
    }

    let removed = machine.run(&["rm", "Goes"]);
    assert_eq!(removed.code(), 0, "{}", removed.said);
    for (key, named) in [
        (&goes, false),
        (&goes_content, false),
        (&stays, true),
        (&stays_content, true),
    ] {
        until_named(&entry, peer, key, named).await;
    }

    // Whoever joins late is told what others were told before. By the second round the first is over.
    let addr = seed.ready["addrs"][0].as_str().expect("an address");
    let mut late = DhtNode::beside(addr).await;
    let mut heard = until_announced(&mut late, peer, &[&stays, &stays_content]).await;
    let mut later = DhtNode::beside(addr).await;
    heard.extend(until_announced(&mut later, peer, &[&stays, &stays_content]).await);
    heard.extend(until_announced(&mut late, peer, &[&stays, &stays_content]).await);
    assert_eq!(heard, HashSet::from([stays, stays_content]));
}

/// Two packs of the same files are one content: what is left of it is announced, and what is removed is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_pack_takes_no_other_of_the_same_files_with_it() {
    let machine = Machine::new("from");
    write(&machine.path("Goes/a.pak"), &noise(1, 300_000));
    write(&machine.path("Stays/a.pak"), &noise(1, 300_000));
    let mut entry = DhtNode::new().await;
    let [goes, goes_content] = shared_before(&machine, "Goes", &[]);
    let seed = share(&machine, &machine.path("Stays"), &["--bootstrap", &entry.addr()]);
    let (peer, [stays, content]) = (peer_of(&seed), keys_of(&seed));
    assert_eq!(content, goes_content);
    until_announced(&mut entry, peer, &[&goes, &stays, &content]).await;

    let removed = machine.run(&["rm", "Goes"]);
    assert_eq!(removed.code(), 0, "{}", removed.said);
    for (key, named) in [(&goes, false), (&stays, true), (&content, true)] {
        until_named(&entry, peer, key, named).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_whose_files_are_gone_is_announced_again_when_they_are_back() {
    let machine = Machine::new("from");
    write(&machine.path("Pack/a.pak"), &noise(1, 300_000));
    let mut entry = DhtNode::new().await;
    let seed = share(&machine, &machine.path("Pack"), &["--bootstrap", &entry.addr()]);
    let (peer, [pack, content]) = (peer_of(&seed), keys_of(&seed));
    until_announced(&mut entry, peer, &[&pack, &content]).await;

    fs::rename(machine.path("Pack/a.pak"), machine.path("a.pak")).expect("renamed");
    for key in [&pack, &content] {
        until_named(&entry, peer, key, false).await;
    }
    fs::rename(machine.path("a.pak"), machine.path("Pack/a.pak")).expect("renamed");
    until_announced(&mut entry, peer, &[&pack, &content]).await;
    for key in [&pack, &content] {
        until_named(&entry, peer, key, true).await;
    }
}
