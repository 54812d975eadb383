//! Skeletons that come whole: both halves of it, one engine each.

mod common;

use std::time::Duration;

use common::{connect, spec};
use modswarm_protocol::Timestamp;
use modswarm_protocol::engine::{
    Action, ConnId, ContentSpec, DisconnectReason, Engine, EngineConfig, Event, Expected, PeerKey, PickOrder, ServeJob,
    TransferId, Unwanted, Verdict, Violation,
};
use modswarm_protocol::format::{Cid, Codec, HashKind};
use modswarm_protocol::sim::fake_content;
use modswarm_protocol::wire::limits::{MAX_SKELETON_BYTES, MAX_SKELETON_NODES};
use modswarm_protocol::wire::{
    BulkHeader, Encoding, Extension, Handle, Hello, Message, NetworkId, RejectReason, Rejection, RequestId, What,
};

const HANDLE: Handle = Handle(0);
const REQUEST: RequestId = RequestId(0);
const A: ConnId = ConnId(1);
const B: ConnId = ConnId(2);
const LEN: u32 = 1000;

fn node(i: u32) -> Cid {
    Cid::of(Codec::DagPb, HashKind::Blake3, &i.to_le_bytes())
}

struct Side {
    engine: Engine,
    now: Timestamp,
    transfer: TransferId,
    root: Cid,
    said: Vec<(ConnId, Message)>,
    jobs: Vec<ServeJob>,
    ended: Vec<(ConnId, DisconnectReason)>,
    done: Vec<Cid>,
}

impl Side {
    fn of(engine: Engine, transfer: TransferId, root: Cid) -> Self {
        let mut side = Self {
            engine,
            now: Timestamp::ZERO,
            transfer,
            root,
            said: Vec::new(),
            jobs: Vec::new(),
            ended: Vec::new(),
            done: Vec::new(),
        };
        side.drain();
        side
    }

    /// One that serves a content whose skeleton is `nodes`.
    fn server(nodes: &[Cid], bytes: u64) -> Self {
        let (content, map) = fake_content(1, 4, LEN);
        let mut engine = Engine::new(EngineConfig::default(), 1);
        let transfer = engine.add_content(Timestamp::ZERO, spec(content, &map, map.all()));
        engine.set_skeleton(Timestamp::ZERO, transfer, Some((nodes, bytes)));
        let mut side = Self::of(engine, transfer, content);
        connect(&mut side.engine, side.now, A);
        side.drain();
        side.hear(
            A,
            Message::Open {
                handle: HANDLE,
                root: content,
            },
        );
        side
    }

    /// One that fetches the skeleton of `node(0)`, and the peers that it may ask.
    fn leecher(peers: &[(ConnId, bool)]) -> Self {
        let mut engine = Engine::new(EngineConfig::default(), 1);
        let spec = ContentSpec {
            content: Some(node(0)),
            packs: Vec::new(),
            network: NetworkId::PUBLIC,
            pieces: None,
            related: Vec::new(),
            order: PickOrder::default(),
        };
        let transfer = engine.add_content(Timestamp::ZERO, spec);
        let mut side = Self::of(engine, transfer, node(0));
        peers.iter().for_each(|(conn, knows)| side.meet(*conn, *knows));
        side.engine.want_skeleton(side.now, transfer, &[node(0)]);
        side.drain();
        side
    }

    fn meet(&mut self, conn: ConnId, knows: bool) {
        let peer = PeerKey::of(&conn.0.to_le_bytes());
        self.engine
            .handle_connected(self.now, conn, peer, Duration::from_millis(20));
        self.hear(conn, greeting(knows));
    }

    fn drain(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            match action {
                Action::Send(conn, message) => self.said.push((conn, message)),
                Action::Serve(job) => self.jobs.push(job),
                Action::Disconnect(conn, reason) => self.ended.push((conn, reason)),
                Action::Event(Event::NodeDone { cid, .. }) => self.done.push(cid),
                Action::Pace { .. } | Action::Weigh { .. } | Action::Event(_) => {}
            }
        }
    }

    fn hear(&mut self, conn: ConnId, message: Message) {
        self.engine.handle_message(self.now, conn, message);
        self.drain();
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        self.engine.handle_timeout(self.now);
        self.drain();
    }

    fn header(&mut self, conn: ConnId, what: What, len: u32) -> Result<Expected, Unwanted> {
        let header = BulkHeader {
            handle: HANDLE,
            what,
            encoding: Encoding::Plain,
            len,
        };
        let expected = self.engine.handle_block_header(self.now, conn, &header);
        self.engine.handle_block_progress(self.now, conn, len);
        self.drain();
        expected
    }

    /// A block comes and is right.
    fn receive(&mut self, conn: ConnId, what: What) {
        let expected = self.header(conn, what, LEN).expect("it is wanted");
        self.engine.handle_verdict(self.now, &expected, Verdict::Good);
        self.drain();
    }

    fn want(&mut self, nodes: &[Cid]) {
        self.engine.want_nodes(self.now, self.transfer, nodes);
        self.drain();
    }

    /// All that a server has to send.
    fn sends(&mut self) -> Vec<What> {
        let mut sent = Vec::new();
        while !self.jobs.is_empty() {
            for job in std::mem::take(&mut self.jobs) {
                sent.push(job.what);
                self.engine.handle_served(self.now, &job, Ok(LEN));
                self.drain();
            }
        }
        sent
    }

    /// What was asked for since the last look: of whom, whether whole, and which nodes.
    fn asked(&mut self) -> Vec<(ConnId, bool, Vec<Cid>)> {
        let said = std::mem::take(&mut self.said).into_iter();
        said.filter_map(|(conn, message)| match message {
            Message::WantSkeleton { cids, .. } => Some((conn, true, cids)),
            Message::WantNodes { cids, .. } => Some((conn, false, cids)),
            _ => None,
        })
        .collect()
    }
}

fn greeting(knows: bool) -> Message {
    let skeletons = Extension {
        name: Extension::SKELETONS.to_owned(),
        value: Vec::new(),
    };
    Message::Hello(Hello {
        network: NetworkId::PUBLIC,
        agent: "test".to_owned(),
        extensions: knows.then_some(skeletons).into_iter().collect(),
    })
}

fn named(position: u16) -> What {
    What::Block {
        request: REQUEST,
        position,
    }
}

fn unnamed(i: u32, more: u16) -> What {
    What::Node {
        request: REQUEST,
        cid: node(i),
        more,
    }
}

fn want_whole(cids: Vec<Cid>) -> Message {
    Message::WantSkeleton {
        handle: HANDLE,
        request: REQUEST,
        cids,
    }
}

/// Says that what was not named will not come.
fn no_rest() -> Message {
    Message::Rejected {
        handle: HANDLE,
        what: Rejection::Blocks {
            request: REQUEST,
            positions: Vec::new(),
        },
        reason: RejectReason::NotFound,
    }
}

#[test]
fn a_server_sends_what_was_named_and_then_the_rest_and_says_how_much_is_to_come() {
    let nodes: Vec<Cid> = (0..5).map(node).collect();
    let mut server = Side::server(&nodes, 5 * u64::from(LEN));
    server.hear(A, want_whole(vec![node(2), node(0)]));
    let expected = [named(0), named(1), unnamed(1, 2), unnamed(3, 1), unnamed(4, 0)];
    assert_eq!(server.sends(), expected);
}

#[test]
fn a_server_says_when_the_rest_will_not_come() {
    let no_rest = no_rest();
    let many: Vec<Cid> = (0..=MAX_SKELETON_NODES).map(node).collect();
    for (nodes, bytes) in [
        (&many[..], u64::from(LEN)),
        (&many[..2], MAX_SKELETON_BYTES + 1),
        (&many[..1], u64::from(LEN)),
    ] {
        let mut server = Side::server(nodes, bytes);
        server.said.clear();
        server.hear(A, want_whole(vec![node(0)]));
        assert_eq!(server.sends(), [named(0)]);
        assert!(server.said.contains(&(A, no_rest.clone())), "{:?}", server.said);
    }
}

#[test]
fn who_asks_again_and_again_meanwhile_is_left() {
    let nodes: Vec<Cid> = (0..200).map(node).collect();
    let mut server = Side::server(&nodes, MAX_SKELETON_BYTES);
    for _ in 0..10_000 {
        server.hear(A, want_whole(Vec::new()));
    }
    let over = DisconnectReason::Violation(Violation::OverLimit("requests in vain"));
    assert_eq!(server.ended, [(A, over)]);
}

#[test]
fn a_closed_handle_ends_the_skeleton_behind_it() {
    let nodes: Vec<Cid> = (0..200).map(node).collect();
    let mut server = Side::server(&nodes, MAX_SKELETON_BYTES);
    server.hear(A, want_whole(vec![node(0)]));
    server.hear(A, Message::Close { handle: HANDLE });
    assert_eq!(server.sends(), [named(0)], "what is under way comes all the same");
}

#[test]
fn all_comes_from_one_peer_in_any_order_and_nobody_is_asked_meanwhile() {
    let mut leecher = Side::leecher(&[(A, true), (B, true)]);
    let asked = leecher.asked();
    let [(of, true, cids)] = &asked[..] else {
        panic!("{asked:?}")
    };
    assert_eq!(cids, &[node(0)]);
    let of = *of;
    // What lies below comes before what names it.
    leecher.receive(of, unnamed(2, 1));
    leecher.receive(of, named(0));
    leecher.want(&[node(1)]);
    leecher.wait(Duration::from_millis(100));
    assert_eq!(leecher.asked(), []);
    leecher.receive(of, unnamed(1, 0));
    assert_eq!(leecher.done, [node(2), node(0), node(1)]);
    // The last has come: what else is wanted is asked for.
    leecher.want(&[node(9)]);
    assert_eq!(leecher.asked().len(), 1);
}

#[test]
fn what_does_not_come_is_asked_for_node_by_node() {
    let no_rest = no_rest();
    type End = fn(&mut Side, ConnId, Message);
    let ways: [(&str, End); 3] = [
        ("refused", |side, conn, no_rest| side.hear(conn, no_rest)),
        ("silent", |side, _, _| {
            (0..20).for_each(|_| side.wait(Duration::from_millis(100)))
        }),
        ("gone", |side, conn, _| {
            side.engine.handle_disconnected(side.now, conn);
            side.drain();
        }),
    ];
    for (how, end) in ways {
        let mut leecher = Side::leecher(&[(A, true), (B, true)]);
        let of = leecher.asked()[0].0;
        leecher.receive(of, named(0));
        leecher.want(&[node(1)]);
        assert_eq!(leecher.asked(), [], "{how}");
        end(&mut leecher, of, no_rest.clone());
        let asked = leecher.asked();
        assert!(
            matches!(&asked[..], [(_, false, cids)] if cids == &[node(1)]),
            "{how}: {asked:?}"
        );
    }
}

impl Side {
    /// A leecher that has asked `A`, which has not said a word yet.
    fn asked_before_a_word() -> Self {
        let mut leecher = Self::leecher(&[]);
        let peer = PeerKey::of(b"A");
        let rtt = Duration::from_millis(20);
        leecher.engine.handle_connected(leecher.now, A, peer, rtt);
        leecher.engine.ask_at_once(leecher.now, A);
        leecher.drain();
        assert_eq!(leecher.asked(), [(A, true, vec![node(0)])]);
        leecher
    }
}

#[test]
fn a_peer_that_does_not_know_whole_skeletons_is_asked_for_nodes() {
    let mut leecher = Side::leecher(&[(A, false)]);
    assert_eq!(leecher.asked(), [(A, false, vec![node(0)])]);

    // Asked before it has said what it knows.
    let mut leecher = Side::asked_before_a_word();
    leecher.hear(A, greeting(false));
    assert_eq!(leecher.asked(), [(A, false, vec![node(0)])]);
}

#[test]
fn who_never_greets_holds_nobody_up() {
    let mut leecher = Side::asked_before_a_word();
    leecher.meet(B, true);
    assert_eq!(leecher.asked(), []);
    leecher.want(&[node(1)]);
    (0..40).for_each(|_| leecher.wait(Duration::from_millis(100)));
    let asked = leecher.asked();
    assert!(asked.iter().any(|(conn, ..)| *conn == B), "{asked:?}");
}

#[test]
fn what_was_given_up_may_still_come_and_is_read_over() {
    let mut leecher = Side::leecher(&[(A, true)]);
    leecher.receive(A, named(0));
    (0..20).for_each(|_| leecher.wait(Duration::from_millis(100)));
    assert_eq!(leecher.header(A, unnamed(5, 3), LEN), Err(Unwanted::Late));
    // Unless it was wanted meanwhile.
    leecher.want(&[node(6)]);
    assert!(leecher.header(A, unnamed(6, 2), LEN).is_ok());
    assert_eq!(leecher.ended, []);
}

#[test]
fn nodes_that_nobody_asked_for_end_the_session() {
    let unsolicited = DisconnectReason::Violation(Violation::Unsolicited);
    let other = What::Node {
        request: RequestId(7),
        cid: node(1),
        more: 0,
    };
    let after_the_last = |leecher: &mut Side| leecher.receive(A, unnamed(1, 0));
    let out_of_count = |leecher: &mut Side| leecher.receive(A, unnamed(1, 3));
    let nothing = |_: &mut Side| {};
    type Before = fn(&mut Side);
    let ways: [(Before, What, u32); 4] = [
        (nothing, other, LEN),
        (after_the_last, unnamed(2, 0), LEN),
        (out_of_count, unnamed(2, 3), LEN),
        (nothing, unnamed(2, 3), MAX_SKELETON_BYTES as u32 + 1),
    ];
    for (before, what, len) in ways {
        let mut leecher = Side::leecher(&[(A, true)]);
        before(&mut leecher);
        let refused = leecher.header(A, what, len);
        assert_eq!(refused, Err(Unwanted::Violation(Violation::Unsolicited)), "{what:?}");
        assert_eq!(leecher.ended, [(A, unsolicited)]);
    }
}

#[test]
fn a_wrong_node_that_nobody_named_bans_its_sender() {
    let mut leecher = Side::leecher(&[(A, true)]);
    let expected = leecher.header(A, unnamed(1, 3), LEN).expect("it may come");
    leecher.engine.handle_verdict(leecher.now, &expected, Verdict::Corrupt);
    leecher.drain();
    assert_eq!(leecher.ended, [(A, DisconnectReason::Banned)]);
}

#[test]
fn once_all_is_here_the_rest_is_read_over() {
    let (content, map) = fake_content(3, 4, LEN);
    let mut leecher = Side::leecher(&[(A, true)]);
    leecher.receive(A, named(0));
    let pieces = spec(content, &map, map.none()).pieces.expect("given");
    leecher
        .engine
        .set_pieces(leecher.now, leecher.transfer, leecher.root, pieces);
    leecher.drain();
    assert_eq!(leecher.header(A, unnamed(5, 3), LEN), Err(Unwanted::Late));
    assert_eq!(leecher.ended, []);
}
