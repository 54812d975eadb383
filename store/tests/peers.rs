//! What is remembered of peers over restarts.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::time::Duration;

use common::*;
use modswarm_protocol::engine::{Ban, Fault, MAX_RECORDS, PeerKey, PeerRecord, Tally};
use modswarm_store::{HomeLock, KnownPeer, Store, StoreOptions};

const NOW: u64 = 1_800_000_000;

fn known(number: u32) -> KnownPeer {
    let peer_id = number.to_be_bytes().to_vec();
    KnownPeer {
        record: PeerRecord::new(PeerKey::of(&peer_id), NOW - u64::from(number)),
        addr: format!("/ip4/127.0.0.1/tcp/{number}"),
        peer_id,
    }
}

fn liar(number: u32) -> KnownPeer {
    let mut peer = known(number);
    let tally = |fault, recent| Tally {
        fault,
        count: 3,
        last: NOW - 7,
        recent,
    };
    peer.record.faults = vec![tally(Fault::Stalled, 1.25), tally(Fault::CorruptBlock, 1.0)];
    peer.record.ban = Some(Ban {
        fault: Fault::CorruptBlock,
        since: NOW - 7,
        until: NOW + 86_400,
    });
    peer.record.strikes = 2;
    peer.record.offences = 1;
    peer
}

fn giver(number: u32) -> KnownPeer {
    let mut peer = known(number);
    peer.record.bytes_down = 123_456_789_012;
    peer.record.bytes_up = 5;
    peer.record.merit = 1234.5;
    peer.record.merit_at = NOW - 100;
    peer.record.rate_down = 1_000_000;
    peer.record.rate_up = 7;
    peer.record.rtt = Some(Duration::from_micros(12_345));
    peer
}

fn by_id(mut peers: Vec<KnownPeer>) -> Vec<KnownPeer> {
    peers.sort_by(|a, b| a.peer_id.cmp(&b.peer_id));
    peers
}

#[test]
fn what_is_put_is_there_after_a_restart_and_replaces_what_was() {
    let place = Place::new();
    let store = place.store("a");
    assert_eq!(store.peer_records().unwrap(), []);
    store.put_peer_records(&[known(1), liar(2), giver(3)], NOW).unwrap();
    store.put_peer_records(&[giver(1)], NOW).unwrap();
    store.close().unwrap();
    drop(store);
    let store = place.store("a");
    assert_eq!(by_id(store.peer_records().unwrap()), [giver(1), liar(2), giver(3)]);
    // A peer whose faults were forgiven meanwhile has none.
    store.put_peer_records(&[known(2)], NOW).unwrap();
    assert_eq!(by_id(store.peer_records().unwrap())[1], known(2));
}

#[test]
fn beyond_the_bound_those_that_are_worth_least_are_forgotten() {
    let place = Place::new();
    let store = place.store("a");
    let bound = MAX_RECORDS as u32;
    let worth_keeping: Vec<KnownPeer> = (0..10).map(liar).chain((10..20).map(giver)).collect();
    store.put_peer_records(&worth_keeping, NOW).unwrap();
    let strangers: Vec<KnownPeer> = (20..bound + 50).map(known).collect();
    for batch in strangers.chunks(1000) {
        store.put_peer_records(batch, NOW).unwrap();
    }
    let kept = by_id(store.peer_records().unwrap());
    assert_eq!(kept.len(), MAX_RECORDS);
    assert_eq!(kept[..20], worth_keeping[..]);
    // Of the others, the last seen.
    assert_eq!(kept[20..], strangers[..MAX_RECORDS - 20]);
}

#[test]
fn names_without_measure_are_not_kept() {
    let place = Place::new();
    let store = place.store("a");
    let (mut long_id, mut long_addr) = (known(1), known(2));
    long_id.peer_id = vec![1; 65];
    long_addr.addr = "/".repeat(513);
    store.put_peer_records(&[long_id, long_addr], NOW).unwrap();
    let kept = store.peer_records().unwrap();
    assert_eq!((kept.len(), kept[0].addr.as_str()), (1, ""));
}

#[test]
fn forgiving_takes_bans_and_faults_of_one_or_of_all() {
    let place = Place::new();
    let store = place.store("a");
    store
        .put_peer_records(&[liar(1), liar(2), giver(3), liar(4)], NOW)
        .unwrap();
    let forgiven = |number: u32| {
        let mut peer = known(number);
        peer.record.seen = liar(number).record.seen;
        peer
    };
    assert_eq!(store.forgive(Some(&giver(3).peer_id)).unwrap(), 0);
    assert_eq!(store.forgive(Some(b"stranger")).unwrap(), 0);
    assert_eq!(store.forgive(Some(&liar(1).peer_id)).unwrap(), 1);
    let expected = [forgiven(1), liar(2), giver(3), liar(4)];
    assert_eq!(by_id(store.peer_records().unwrap()), expected);
    assert_eq!(store.forgive(None).unwrap(), 2);
    let expected = [forgiven(1), forgiven(2), giver(3), forgiven(4)];
    assert_eq!(by_id(store.peer_records().unwrap()), expected);
}

/// They are no more than a memory: a home whose index is made anew begins without.
#[test]
fn a_rebuilt_home_does_without() {
    let place = Place::new();
    write(&place.path("p/a.pak"), &noise(1, 100_000));
    let store = place.store("a");
    let pack = share(&store, &place.path("p"));
    store.put_peer_records(&[liar(1)], NOW).unwrap();
    store.close().unwrap();
    drop(store);
    let lock = HomeLock::try_acquire(&place.path("a")).unwrap().unwrap();
    let (store, _) = Store::rebuild(lock, StoreOptions::default(), &()).unwrap();
    assert_eq!(store.peer_records().unwrap(), []);
    store.put_peer_records(&[giver(2)], NOW).unwrap();
    assert_eq!(store.peer_records().unwrap(), [giver(2)]);
    assert_readable(&store, &pack.content);
}
