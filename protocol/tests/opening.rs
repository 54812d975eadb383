//! When a content is opened again at a peer that did not have it.

mod common;

use std::time::Duration;

use common::{connect, spec};
use modswarm_protocol::Timestamp;
use modswarm_protocol::engine::{Action, ConnId, Engine, EngineConfig};
use modswarm_protocol::sim::fake_content;
use modswarm_protocol::wire::{Handle, Message, RejectReason, Rejection};

const PEER: ConnId = ConnId(1);
const STEP: Duration = Duration::from_millis(100);

/// Handles that were opened at the peer since the last look.
fn opened(engine: &mut Engine) -> Vec<Handle> {
    std::iter::from_fn(|| engine.poll_action())
        .filter_map(|action| match action {
            Action::Send(_, Message::Open { handle, .. }) => Some(handle),
            _ => None,
        })
        .collect()
}

/// After how many steps a leecher opens what it fetches again at a peer that refused it, if the peer has opened it here before.
fn asks_again_after(peer_fetches_it_too: bool) -> Option<u32> {
    let (root, map) = fake_content(1, 40, 1000);
    let mut now = Timestamp::ZERO;
    let mut engine = Engine::new(EngineConfig::default(), 1);
    engine.add_content(now, spec(root, &map, map.none()));
    connect(&mut engine, now, PEER);
    let [handle] = opened(&mut engine)[..] else {
        panic!("it is opened once")
    };
    if peer_fetches_it_too {
        // Sent before our own asking came there.
        let handle = Handle(7);
        engine.handle_message(now, PEER, Message::Open { handle, root });
    }
    let (what, reason) = (Rejection::Open, RejectReason::NotFound);
    engine.handle_message(now, PEER, Message::Rejected { handle, what, reason });
    (0..100).find(|_| {
        now = now + STEP;
        engine.handle_timeout(now);
        !opened(&mut engine).is_empty()
    })
}

#[test]
fn who_fetches_the_same_and_has_nothing_yet_is_asked_again_soon() {
    let steps = asks_again_after(true).expect("it will have something");
    assert!(steps < 25, "{steps}");
}

#[test]
fn who_has_nothing_to_do_with_it_is_left_alone() {
    assert_eq!(asks_again_after(false), None);
}
