//! The engine under messages in any order, from peers that hold to nothing: it never panics, and what it keeps is bounded.

mod common;

use std::time::Duration;

use common::spec;
use modswarm_protocol::Timestamp;
use modswarm_protocol::engine::{
    Action, ConnId, DisconnectReason, Engine, EngineConfig, Expected, PeerKey, Priority, ServeFailure, ServeJob,
    Unwanted, Verdict, Violation,
};
use modswarm_protocol::format::{Cid, Codec, HashKind};
use modswarm_protocol::sim::fake_content;
use modswarm_protocol::wire::limits::{HELLO_TIMEOUT, MAX_HANDLES, MAX_QUEUED_PIECES};
use modswarm_protocol::wire::{
    BulkHeader, CloseReason, Encoding, Extension, Handle, Have, Hello, KnownPeer, Message, NetworkId, RejectReason,
    Rejection, RequestId, Run, What, runs_of,
};
use proptest::collection::vec;
use proptest::prelude::*;

const PIECES: u32 = 64;
const LEN: u32 = 1000;

#[derive(Clone, Debug)]
enum Step {
    Connect(u64),
    Disconnect(u64),
    Say(u64, Message),
    Header(u64, BulkHeader),
    Answer(u64),
    Progress(u64, u32),
    Verdict(usize, u8),
    Served(usize, bool),
    Wait(u32),
    Lose(u32),
    Find(u32),
    Pause(bool),
    Limit(Option<u64>),
    /// Stopped or not, its own limit, its priority, and how many may fetch at a time; for one transfer.
    Wish(usize, bool, Option<u64>, u8, Option<usize>),
    Local(u64, bool),
}

fn message() -> impl Strategy<Value = Message> {
    let handle = || (0..4u32).prop_map(Handle);
    let runs = || vec(0..PIECES + 2, 0..20).prop_map(runs_of);
    let within = || vec(0..PIECES, 0..20).prop_map(runs_of);
    let root = (0..3u64).prop_map(|i| fake_content(i, 1, 1).0);
    let reason = || {
        prop_oneof![
            Just(RejectReason::NotFound),
            Just(RejectReason::Choked),
            Just(RejectReason::Busy),
            Just(RejectReason::Released)
        ]
    };
    let have = prop_oneof![
        Just(Have::None),
        Just(Have::All),
        within().prop_map(|runs| Have::Map(modswarm_protocol::wire::HaveMap::Runs(runs))),
    ];
    let cids = || {
        vec(
            (0..20u32).prop_map(|i| Cid::of(Codec::Raw, HashKind::Blake3, &i.to_le_bytes())),
            0..10,
        )
    };
    prop_oneof![
        2 => (handle(), root).prop_map(|(handle, root)| Message::Open { handle, root }),
        4 => (handle(), have).prop_map(|(handle, have)| Message::Opened { handle, have }),
        1 => (handle(), reason()).prop_map(|(handle, reason)| Message::Rejected { handle, what: Rejection::Open, reason }),
        2 => (handle(), within(), reason())
            .prop_map(|(handle, runs, reason)| Message::Rejected { handle, what: Rejection::Pieces(runs), reason }),
        1 => (handle(), 0..4u32, vec(0..10u16, 0..5), reason()).prop_map(|(handle, request, positions, reason)| {
            Message::Rejected { handle, what: Rejection::Blocks { request: RequestId(request), positions }, reason }
        }),
        3 => (handle(), cids(), 0..3u8).prop_map(|(handle, cids, kind)| {
            let request = RequestId(0);
            match kind {
                0 => Message::WantNodes { handle, request, cids },
                1 => Message::WantSkeleton { handle, request, cids },
                _ => Message::RequestCids { handle, request, cids },
            }
        }),
        4 => (handle(), within()).prop_map(|(handle, runs)| Message::Request { handle, runs }),
        1 => (handle(), runs()).prop_map(|(handle, runs)| Message::Request { handle, runs }),
        2 => (handle(), runs()).prop_map(|(handle, runs)| Message::Cancel { handle, runs }),
        2 => (handle(), runs()).prop_map(|(handle, runs)| Message::Release { handle, runs }),
        1 => (proptest::option::of(handle()), 0..3u32).prop_map(|(handle, rate)| Message::Pace { handle, rate: rate * 9999 }),
        1 => handle().prop_map(|handle| Message::Close { handle }),
        1 => handle().prop_map(|handle| Message::Closed { handle, reason: CloseReason::Removed }),
        4 => (handle(), within()).prop_map(|(handle, runs)| Message::Have { handle, runs }),
        2 => (handle(), within()).prop_map(|(handle, runs)| Message::Lost { handle, runs }),
        2 => (handle(), 0..3u8).prop_map(|(handle, count)| {
            let peer = |id| KnownPeer { id: [id].into(), flags: 0, addrs: vec![[id].into()] };
            Message::Peers { handle, peers: (0..count).map(peer).collect() }
        }),
        2 => (handle(), within()).prop_map(|(handle, runs)| Message::Offer { handle, runs }),
        2 => Just(Message::Choke),
        4 => Just(Message::Unchoke),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let conn = || 0..3u64;
    let header = (0..4u32, 0..PIECES, 999..=1000u32).prop_map(|(handle, piece, len)| BulkHeader {
        handle: Handle(handle),
        what: What::Piece(piece),
        encoding: Encoding::Plain,
        len,
    });
    prop_oneof![
        2 => conn().prop_map(Step::Connect),
        1 => conn().prop_map(Step::Disconnect),
        12 => (conn(), message()).prop_map(|(conn, message)| Step::Say(conn, message)),
        1 => (conn(), header).prop_map(|(conn, header)| Step::Header(conn, header)),
        8 => conn().prop_map(Step::Answer),
        8 => (conn(), 1..2000u32).prop_map(|(conn, bytes)| Step::Progress(conn, bytes)),
        6 => (any::<usize>(), 0..8u8).prop_map(|(i, verdict)| Step::Verdict(i, verdict)),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(i, good)| Step::Served(i, good)),
        4 => (0..20_000u32).prop_map(Step::Wait),
        1 => (0..PIECES).prop_map(Step::Lose),
        1 => (0..PIECES).prop_map(Step::Find),
        1 => any::<bool>().prop_map(Step::Pause),
        1 => proptest::option::of(0..100_000u64).prop_map(Step::Limit),
        1 => (0..2usize, any::<bool>(), proptest::option::of(0..100_000u64), 0..3u8, proptest::option::of(0..3usize))
            .prop_map(|(of, stopped, limit, priority, max)| Step::Wish(of, stopped, limit, priority, max)),
        1 => (conn(), any::<bool>()).prop_map(|(conn, local)| Step::Local(conn, local)),
    ]
}

/// A node that keeps to the contract, and notes what a peer may answer.
struct Node {
    engine: Engine,
    now: Timestamp,
    slots: [Option<ConnId>; 3],
    conns: u64,
    requested: Vec<(ConnId, Handle, u32)>,
    arriving: Vec<(ConnId, Option<Expected>, u32)>,
    whole: Vec<Expected>,
    jobs: Vec<ServeJob>,
}

impl Node {
    fn drain(&mut self) {
        let mut actions = 0;
        while let Some(action) = self.engine.poll_action() {
            actions += 1;
            assert!(actions < 10_000, "the engine does not come to rest");
            match action {
                Action::Send(conn, Message::Request { handle, runs }) => {
                    let pieces = runs.iter().flat_map(|run| run.pieces());
                    self.requested.extend(pieces.map(|piece| (conn, handle, piece)));
                }
                Action::Serve(job) => self.jobs.push(job),
                Action::Disconnect(conn, _) => self.gone(conn),
                Action::Send(..) | Action::Pace { .. } | Action::Weigh { .. } | Action::Event(_) => {}
            }
        }
        for conn in self.engine.connections() {
            let stats = self.engine.conn_stats(conn).expect("connected");
            assert!(stats.in_flight <= u64::from(PIECES * LEN), "{stats:?}");
        }
        for transfer in self.engine.transfers() {
            let stats = self.engine.transfer_stats(transfer).expect("there");
            assert!(stats.bytes_here <= stats.bytes_wanted && stats.pieces_here <= stats.pieces_wanted);
        }
    }

    fn gone(&mut self, conn: ConnId) {
        for slot in &mut self.slots {
            *slot = slot.filter(|c| *c != conn);
        }
        self.requested.retain(|(of, ..)| *of != conn);
        self.arriving.retain(|(of, ..)| *of != conn);
    }

    fn header(&mut self, conn: ConnId, header: &BulkHeader) {
        if self.arriving.iter().any(|(of, ..)| *of == conn) {
            return;
        }
        match self.engine.handle_block_header(self.now, conn, header) {
            Ok(expected) => self.arriving.push((conn, Some(expected), header.len)),
            Err(Unwanted::Late) => self.arriving.push((conn, None, header.len)),
            Err(Unwanted::Violation(_)) => {}
        }
    }

    fn take(&mut self, step: Step) {
        let now = self.now;
        let slot = |i: u64| self.slots[i as usize];
        match step {
            Step::Connect(i) if slot(i).is_none() => {
                self.conns += 1;
                let conn = ConnId(self.conns);
                self.slots[i as usize] = Some(conn);
                self.engine.handle_connected(
                    now,
                    conn,
                    PeerKey::of(&self.conns.to_le_bytes()),
                    Duration::from_millis(20),
                );
                let hello = Hello {
                    network: NetworkId::PUBLIC,
                    agent: "x".into(),
                    extensions: vec![Extension {
                        name: Extension::PEER_EXCHANGE.into(),
                        value: Vec::new(),
                    }],
                };
                self.engine.handle_message(now, conn, Message::Hello(hello));
                let id = self.conns.to_le_bytes();
                self.engine.handle_reachable(now, conn, &id, vec![id.into()]);
            }
            Step::Disconnect(i) => {
                if let Some(conn) = slot(i) {
                    self.engine.handle_disconnected(now, conn);
                    self.gone(conn);
                }
            }
            Step::Say(i, message) => {
                if let Some(conn) = slot(i) {
                    self.engine.handle_message(now, conn, message);
                }
            }
            Step::Header(i, header) => {
                if let Some(conn) = slot(i) {
                    self.header(conn, &header);
                }
            }
            Step::Answer(i) => {
                let of = slot(i).and_then(|conn| self.requested.iter().position(|(of, ..)| *of == conn));
                if let Some(at) = of {
                    let (conn, handle, piece) = self.requested.remove(at);
                    let what = What::Piece(piece);
                    self.header(
                        conn,
                        &BulkHeader {
                            handle,
                            what,
                            encoding: Encoding::Plain,
                            len: LEN,
                        },
                    );
                }
            }
            Step::Progress(i, bytes) => {
                let at = slot(i).and_then(|conn| self.arriving.iter().position(|(of, ..)| *of == conn));
                if let Some(at) = at {
                    let (conn, expected, rest) = &mut self.arriving[at];
                    let bytes = bytes.min(*rest);
                    *rest -= bytes;
                    let (conn, expected, rest) = (*conn, *expected, *rest);
                    self.engine.handle_block_progress(now, conn, bytes);
                    if rest == 0 {
                        self.arriving.remove(at);
                        self.whole.extend(expected);
                    }
                }
            }
            Step::Verdict(i, verdict) if !self.whole.is_empty() => {
                let block = self.whole.swap_remove(i % self.whole.len());
                let verdict = match verdict {
                    0 => Verdict::Corrupt,
                    1 => Verdict::WriteFailed,
                    _ => Verdict::Good,
                };
                self.engine.handle_verdict(now, &block, verdict);
            }
            Step::Served(i, good) if !self.jobs.is_empty() => {
                let job = self.jobs.swap_remove(i % self.jobs.len());
                let outcome = if good {
                    Ok(job.len.unwrap_or(500))
                } else {
                    Err(ServeFailure::NotHere)
                };
                self.engine.handle_served(now, &job, outcome);
            }
            Step::Wait(millis) => {
                self.now = now + Duration::from_millis(u64::from(millis));
                self.engine.handle_timeout(self.now);
            }
            Step::Lose(piece) | Step::Find(piece) => {
                let (cid, map) = fake_content(0, PIECES, LEN);
                let transfer = self.engine.transfer_of(&cid).expect("there");
                let index = map.index(piece).expect("exists");
                match step {
                    Step::Lose(_) => self.engine.handle_lost(now, transfer, index),
                    _ => self.engine.handle_have(now, transfer, index),
                }
            }
            Step::Pause(pause) => {
                for transfer in self.engine.transfers() {
                    if pause {
                        self.engine.pause(now, transfer)
                    } else {
                        self.engine.resume(now, transfer)
                    }
                }
            }
            Step::Limit(limit) => self.engine.set_limits(now, limit, limit),
            Step::Wish(of, stopped, limit, priority, max_active) => {
                let priority = [Priority::Low, Priority::Normal, Priority::High][usize::from(priority)];
                if let Some(transfer) = self.engine.transfers().get(of).copied() {
                    self.engine.set_stopped(now, transfer, stopped);
                    self.engine.set_transfer_limits(now, transfer, limit, limit);
                    self.engine.set_priority(now, transfer, priority);
                    self.engine.set_max_active(now, max_active);
                }
            }
            Step::Local(i, local) => {
                if let Some(conn) = slot(i) {
                    self.engine.set_local(now, conn, local);
                }
            }
            Step::Connect(_) | Step::Verdict(..) | Step::Served(..) => {}
        }
        self.drain();
    }
}

fn node() -> Node {
    let mut engine = Engine::new(
        EngineConfig {
            upload_slots: 2,
            ..EngineConfig::default()
        },
        7,
    );
    let (fetched, map) = fake_content(0, PIECES, LEN);
    engine.add_content(Timestamp::ZERO, spec(fetched, &map, map.none()));
    let (seeded, map) = fake_content(1, PIECES, LEN);
    engine.add_content(Timestamp::ZERO, spec(seeded, &map, map.all()));
    Node {
        engine,
        now: Timestamp::ZERO,
        slots: [None; 3],
        conns: 0,
        requested: Vec::new(),
        arriving: Vec::new(),
        whole: Vec::new(),
        jobs: Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_messages_panics(steps in vec(step(), 1..250)) {
        let mut node = node();
        for step in steps {
            node.take(step);
        }
        // Whatever happened, an honest seed still completes it.
        for i in 0..3 {
            if let Some(conn) = node.slots[i] {
                node.engine.handle_disconnected(node.now, conn);
                node.gone(conn);
            }
        }
        node.take(Step::Pause(false));
        node.take(Step::Limit(None));
        for of in 0..2 {
            node.take(Step::Wish(of, false, None, 1, None));
        }
        for block in std::mem::take(&mut node.whole) {
            node.engine.handle_verdict(node.now, &block, Verdict::Good);
        }
        node.take(Step::Connect(0));
        let (cid, _) = fake_content(0, PIECES, LEN);
        let transfer = node.engine.transfer_of(&cid).expect("there");
        node.take(Step::Say(0, Message::Unchoke));
        node.take(Step::Say(0, Message::Opened { handle: Handle(0), have: Have::All }));
        for _ in 0..PIECES * 4 {
            node.take(Step::Answer(0));
            node.take(Step::Progress(0, LEN));
            node.take(Step::Verdict(0, 7));
            node.take(Step::Wait(1));
        }
        let stats = node.engine.transfer_stats(transfer).expect("there");
        prop_assert_eq!(stats.pieces_here, PIECES, "{:?}", stats);
    }
}

fn hello(engine: &mut Engine, conn: ConnId) {
    engine.handle_connected(
        Timestamp::ZERO,
        conn,
        PeerKey::of(&conn.0.to_le_bytes()),
        Duration::from_millis(20),
    );
    let hello = Hello {
        network: NetworkId::PUBLIC,
        agent: "x".into(),
        extensions: Vec::new(),
    };
    engine.handle_message(Timestamp::ZERO, conn, Message::Hello(hello));
}

fn ended(engine: &mut Engine) -> Option<DisconnectReason> {
    let actions = std::iter::from_fn(|| engine.poll_action());
    actions
        .filter_map(|action| {
            if let Action::Disconnect(_, reason) = action {
                Some(reason)
            } else {
                None
            }
        })
        .last()
}

/// What a peer of a fresh node says, and for what violation it is disconnected.
fn offence(say: impl IntoIterator<Item = Message>) -> Option<DisconnectReason> {
    let mut node = node();
    hello(&mut node.engine, ConnId(1));
    for message in say {
        node.engine.handle_message(Timestamp::ZERO, ConnId(1), message);
    }
    ended(&mut node.engine)
}

#[test]
fn offences_end_the_connection_with_their_reason() {
    let seeded = fake_content(1, PIECES, LEN).0;
    let open = |handle| Message::Open {
        handle: Handle(handle),
        root: seeded,
    };
    let request = |start, len| Message::Request {
        handle: Handle(0),
        runs: vec![Run { start, len }],
    };
    let violation = |violation: Violation| Some(DisconnectReason::Violation(violation));

    assert_eq!(offence([open(0), request(0, PIECES)]), None);
    assert_eq!(offence([open(0), open(0)]), violation(Violation::HandleInUse));
    assert_eq!(
        offence([open(0), request(PIECES, 1)]),
        violation(Violation::NoSuchPiece)
    );
    assert_eq!(
        offence((0..=MAX_HANDLES as u32).map(open)),
        violation(Violation::OverLimit("handles"))
    );
    let million = (0..=MAX_QUEUED_PIECES / PIECES).map(|_| request(0, PIECES));
    let million = std::iter::once(open(0)).chain(million);
    assert_eq!(offence(million), violation(Violation::OverLimit("requested pieces")));
    let again = Hello {
        network: NetworkId::PUBLIC,
        agent: String::new(),
        extensions: Vec::new(),
    };
    assert_eq!(offence([Message::Hello(again)]), violation(Violation::OutOfOrder));
    let unknown = Message::Opened {
        handle: Handle(77),
        have: Have::All,
    };
    assert_eq!(offence([unknown]), violation(Violation::OutOfOrder));
    let long = Have::Map(modswarm_protocol::wire::HaveMap::Bits(vec![0; 9]));
    assert_eq!(
        offence([Message::Opened {
            handle: Handle(0),
            have: long
        }]),
        violation(Violation::NoSuchPiece)
    );
    let flip = (0..2000).flat_map(|_| {
        let runs = vec![Run { start: 0, len: PIECES }];
        [
            Message::Have {
                handle: Handle(0),
                runs: runs.clone(),
            },
            Message::Lost {
                handle: Handle(0),
                runs,
            },
        ]
    });
    let flip = std::iter::once(Message::Opened {
        handle: Handle(0),
        have: Have::None,
    })
    .chain(flip);
    assert_eq!(offence(flip), violation(Violation::OverLimit("changes to a have-map")));
    let offer = |runs| Message::Offer {
        handle: Handle(0),
        runs,
    };
    let beyond = vec![Run { start: PIECES, len: 1 }];
    assert_eq!(offence([offer(beyond)]), violation(Violation::NoSuchPiece));
    let offers = (0..2000).map(|_| offer(vec![Run { start: 0, len: PIECES }]));
    assert_eq!(offence(offers), violation(Violation::OverLimit("offered pieces")));
}

#[test]
fn requests_while_choked_or_of_closed_handles_are_rejected_and_no_offence() {
    let mut engine = Engine::new(
        EngineConfig {
            upload_slots: 1,
            ..EngineConfig::default()
        },
        1,
    );
    let (seeded, map) = fake_content(1, PIECES, LEN);
    engine.add_content(Timestamp::ZERO, spec(seeded, &map, map.all()));
    let rejected = |engine: &mut Engine| {
        let actions: Vec<Action> = std::iter::from_fn(|| engine.poll_action()).collect();
        assert!(
            !actions
                .iter()
                .any(|action| matches!(action, Action::Disconnect(..) | Action::Serve(_)))
        );
        actions.into_iter().find_map(|action| match action {
            Action::Send(_, Message::Rejected { reason, .. }) => Some(reason),
            _ => None,
        })
    };
    for conn in [1, 2].map(ConnId) {
        hello(&mut engine, conn);
        engine.handle_message(
            Timestamp::ZERO,
            conn,
            Message::Open {
                handle: Handle(0),
                root: seeded,
            },
        );
    }
    assert_eq!(rejected(&mut engine), None);
    let request = Message::Request {
        handle: Handle(0),
        runs: vec![Run { start: 0, len: 1 }],
    };
    engine.handle_message(Timestamp::ZERO, ConnId(2), request.clone());
    assert_eq!(rejected(&mut engine), Some(RejectReason::Choked));
    engine.handle_message(Timestamp::ZERO, ConnId(2), Message::Close { handle: Handle(0) });
    engine.handle_message(Timestamp::ZERO, ConnId(2), request);
    assert_eq!(rejected(&mut engine), Some(RejectReason::NotFound));
}

#[test]
fn a_peer_that_never_says_hello_is_closed() {
    let mut engine = Engine::new(EngineConfig::default(), 1);
    engine.handle_connected(Timestamp::ZERO, ConnId(1), PeerKey::of(b"x"), Duration::ZERO);
    let mut now = Timestamp::ZERO;
    while now.since(Timestamp::ZERO) <= HELLO_TIMEOUT {
        assert_eq!(ended(&mut engine), None);
        now = engine
            .poll_timeout()
            .expect("waits")
            .max(now + Duration::from_millis(1));
        engine.handle_timeout(now);
    }
    engine.handle_timeout(now + Duration::from_secs(2));
    assert_eq!(
        ended(&mut engine),
        Some(DisconnectReason::Violation(Violation::HelloTimeout))
    );
}

#[test]
fn whom_we_chose_is_asked_behind_our_hello_and_a_stranger_is_told_nothing_of_what_we_fetch() {
    for chosen in [true, false] {
        let mut engine = node().engine;
        engine.handle_connected(Timestamp::ZERO, ConnId(1), PeerKey::of(b"x"), Duration::ZERO);
        if chosen {
            engine.ask_at_once(Timestamp::ZERO, ConnId(1));
        }
        let sent: Vec<Message> = std::iter::from_fn(|| engine.poll_action())
            .filter_map(|action| match action {
                Action::Send(_, message) => Some(message),
                _ => None,
            })
            .collect();
        assert!(matches!(sent.first(), Some(Message::Hello(_))), "{sent:?}");
        let asked = sent.iter().any(|message| matches!(message, Message::Open { .. }));
        assert_eq!(asked, chosen, "{sent:?}");
    }
}

#[test]
fn unsolicited_blocks_and_wrong_lengths_end_the_connection() {
    let mut node = node();
    hello(&mut node.engine, ConnId(1));
    let (now, conn) = (Timestamp::ZERO, ConnId(1));
    let header = |piece, len| BulkHeader {
        handle: Handle(0),
        what: What::Piece(piece),
        encoding: Encoding::Plain,
        len,
    };
    let judged = node.engine.handle_block_header(now, conn, &header(0, LEN));
    assert_eq!(judged, Err(Unwanted::Violation(Violation::Unsolicited)));
    hello(&mut node.engine, ConnId(2));
    node.engine.handle_message(now, ConnId(2), Message::Unchoke);
    node.engine.handle_message(
        now,
        ConnId(2),
        Message::Opened {
            handle: Handle(0),
            have: Have::All,
        },
    );
    node.drain();
    let piece = node.requested[0].2;
    let judged = node.engine.handle_block_header(now, ConnId(2), &header(piece, LEN - 1));
    assert_eq!(judged, Err(Unwanted::Violation(Violation::WrongShape)));
}
