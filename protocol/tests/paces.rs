//! Whoever has a download limit says how fast it would be sent to: both halves of it, one engine each.

mod common;

use common::{connect, spec};
use modswarm_protocol::Timestamp;
use modswarm_protocol::engine::{Action, ConnId, Engine, EngineConfig, TransferId};
use modswarm_protocol::format::Cid;
use modswarm_protocol::sim::fake_content;
use modswarm_protocol::wire::{Handle, Message};

const CONN: ConnId = ConnId(1);
const NOW: Timestamp = Timestamp::ZERO;

/// An engine with one content that it has or fetches, and a peer.
fn node(seeds: bool, limit: Option<u64>) -> (Engine, TransferId, Cid) {
    let (content, map) = fake_content(1, 40, 64 * 1024);
    let config = EngineConfig {
        download_limit: limit,
        ..EngineConfig::default()
    };
    let mut engine = Engine::new(config, 1);
    let have = if seeds { map.all() } else { map.none() };
    let transfer = engine.add_content(NOW, spec(content, &map, have));
    connect(&mut engine, NOW, CONN);
    (engine, transfer, content)
}

/// The paces that are asked for: of which handle, and how fast.
fn asked(engine: &mut Engine) -> Vec<(Option<Handle>, u32)> {
    let actions = std::iter::from_fn(|| engine.poll_action());
    let paces = actions.filter_map(|action| match action {
        Action::Send(CONN, Message::Pace { handle, rate }) => Some((handle, rate)),
        _ => None,
    });
    paces.collect()
}

/// The paces that are to be kept to: of which handle, and how fast.
fn kept(engine: &mut Engine) -> Vec<(Option<Handle>, Option<u64>)> {
    let actions = std::iter::from_fn(|| engine.poll_action());
    let paces = actions.filter_map(|action| match action {
        Action::Pace {
            conn: CONN,
            handle,
            rate,
        } => Some((handle, rate)),
        _ => None,
    });
    paces.collect()
}

#[track_caller]
fn assert_just_above(asked: u32, limit: u32) {
    assert!(
        asked > limit && asked - limit <= limit / 32,
        "{asked} under a limit of {limit}"
    );
}

#[test]
fn whoever_has_no_limit_asks_for_no_pace() {
    let (mut engine, ..) = node(false, None);
    assert_eq!(asked(&mut engine), []);
}

#[test]
fn a_limit_is_told_with_the_first_opening_and_when_it_changes() {
    let (mut engine, ..) = node(false, Some(200_000));
    let [(None, rate)] = asked(&mut engine)[..] else {
        panic!("it asks once")
    };
    assert_just_above(rate, 200_000);
    engine.set_limits(NOW, None, Some(200_000));
    assert_eq!(asked(&mut engine), [], "nothing has changed");
    engine.set_limits(NOW, None, Some(3_000_000));
    let [(None, rate)] = asked(&mut engine)[..] else {
        panic!("it asks once")
    };
    assert_just_above(rate, 3_000_000);
    engine.set_limits(NOW, None, None);
    assert_eq!(asked(&mut engine), [(None, 0)]);
    // More than the message can say is as good as none.
    engine.set_limits(NOW, None, Some(1 << 40));
    assert_eq!(asked(&mut engine), []);
}

#[test]
fn a_transfer_with_a_limit_of_its_own_asks_by_its_handle() {
    let (mut engine, transfer, _) = node(false, None);
    asked(&mut engine);
    engine.set_transfer_limits(NOW, transfer, None, Some(50_000));
    let [(Some(handle), rate)] = asked(&mut engine)[..] else {
        panic!("it asks for one handle")
    };
    assert_just_above(rate, 50_000);
    engine.set_transfer_limits(NOW, transfer, None, None);
    assert_eq!(asked(&mut engine), [(Some(handle), 0)]);
}

#[test]
fn peers_in_the_local_network_are_asked_for_no_pace_unless_limits_hold_there_too() {
    let (mut engine, ..) = node(false, Some(200_000));
    assert_eq!(asked(&mut engine).len(), 1);
    engine.set_local(NOW, CONN, true);
    assert_eq!(asked(&mut engine), [(None, 0)]);
    engine.set_limit_lan(NOW, true);
    assert!(matches!(asked(&mut engine)[..], [(None, 1..)]));
}

#[test]
fn a_server_keeps_to_what_it_is_asked_for_until_the_handle_is_closed() {
    let (mut engine, transfer, root) = node(true, None);
    let [open, other] = [Handle(5), Handle(6)];
    let pace = |handle, rate| Message::Pace { handle, rate };
    engine.handle_message(NOW, CONN, Message::Open { handle: open, root });
    for message in [pace(None, 200_000), pace(Some(open), 90_000), pace(Some(open), 80_000)] {
        engine.handle_message(NOW, CONN, message);
    }
    let paces = [
        (None, Some(200_000)),
        (Some(open), Some(90_000)),
        (Some(open), Some(80_000)),
    ];
    assert_eq!(kept(&mut engine), paces);
    // What was never opened, or was refused, has none.
    engine.handle_message(NOW, CONN, pace(Some(other), 90_000));
    assert_eq!(kept(&mut engine), []);
    engine.handle_message(NOW, CONN, Message::Close { handle: open });
    engine.handle_message(NOW, CONN, pace(None, 0));
    assert_eq!(kept(&mut engine), [(Some(open), None), (None, None)]);
    // Closed from this side, it is forgotten too.
    engine.handle_message(NOW, CONN, Message::Open { handle: other, root });
    engine.handle_message(NOW, CONN, pace(Some(other), 90_000));
    kept(&mut engine);
    engine.remove_content(NOW, transfer);
    assert_eq!(kept(&mut engine), [(Some(other), None)]);
}

#[test]
fn no_block_is_sent_so_slowly_that_it_would_be_taken_for_stalled() {
    let (mut engine, ..) = node(true, None);
    engine.handle_message(NOW, CONN, Message::Pace { handle: None, rate: 1 });
    let [(None, Some(rate))] = kept(&mut engine)[..] else {
        panic!("it keeps to a pace")
    };
    assert!(rate >= 2048, "{rate}");
}
