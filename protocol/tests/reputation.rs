//! What an engine remembers of peers, and what it does about it.

mod common;

use std::time::Duration;

use common::spec;
use modswarm_protocol::Timestamp;
use modswarm_protocol::engine::{
    Action, Cause, ConnId, DisconnectReason, Engine, EngineConfig, Event, Expected, Fault, PeerKey, PeerRecord,
    ServeFailure, TransferId, Verdict, Violation,
};
use modswarm_protocol::format::{Cid, SharedPieceMap};
use modswarm_protocol::sim::fake_content;
use modswarm_protocol::wire::{
    BulkHeader, Encoding, Handle, Have, Hello, Message, NetworkId, RejectReason, Rejection, Run, What,
};

const PIECES: u32 = 64;
const LEN: u32 = 64 * 1024;
const STARTED_AT: u64 = 1_800_000_000;
const DAY: u64 = 24 * 3600;

fn key(name: &str) -> PeerKey {
    PeerKey::of(name.as_bytes())
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn content() -> (Cid, SharedPieceMap) {
    fake_content(1, PIECES, LEN)
}

/// An engine that fetches a content, and what it said.
struct Node {
    engine: Engine,
    transfer: TransferId,
    now: Timestamp,
    said: Vec<Action>,
}

impl Node {
    fn new(config: EngineConfig) -> Self {
        let mut engine = Engine::new(config, 1);
        let (content, map) = content();
        let transfer = engine.add_content(Timestamp::ZERO, spec(content, &map, map.none()));
        Self {
            engine,
            transfer,
            now: Timestamp::ZERO,
            said: Vec::new(),
        }
    }

    fn started() -> Self {
        Self::new(EngineConfig {
            started_at: STARTED_AT,
            ..EngineConfig::default()
        })
    }

    fn drain(&mut self) {
        self.said.extend(std::iter::from_fn(|| self.engine.poll_action()));
    }

    fn wait_until(&mut self, seconds: u64) {
        self.now = at(seconds);
        self.engine.handle_timeout(self.now);
        self.drain();
    }

    fn say(&mut self, conn: u64, message: Message) {
        self.engine.handle_message(self.now, ConnId(conn), message);
        self.drain();
    }

    fn connect(&mut self, conn: u64, peer: &str) {
        self.engine
            .handle_connected(self.now, ConnId(conn), key(peer), Duration::from_millis(20));
        let hello = Hello {
            network: NetworkId::PUBLIC,
            agent: "test".to_owned(),
            extensions: Vec::new(),
        };
        self.say(conn, Message::Hello(hello));
    }

    /// Connects a peer that says that it has everything, and is asked for pieces.
    fn connect_seed(&mut self, conn: u64, peer: &str) -> Vec<u32> {
        self.connect(conn, peer);
        let handle = Handle(0);
        let have = Have::All;
        self.say(conn, Message::Opened { handle, have });
        self.say(conn, Message::Unchoke);
        self.requested(conn)
    }

    fn requested(&self, conn: u64) -> Vec<u32> {
        let runs = self.said.iter().filter_map(|action| match action {
            Action::Send(to, Message::Request { runs, .. }) if *to == ConnId(conn) => Some(runs),
            _ => None,
        });
        runs.flatten().flat_map(|run| run.pieces()).collect()
    }

    /// A piece comes whole.
    fn receive(&mut self, conn: u64, piece: u32) -> Expected {
        let header = BulkHeader {
            handle: Handle(0),
            what: What::Piece(piece),
            encoding: Encoding::Plain,
            len: LEN,
        };
        let expected = self
            .engine
            .handle_block_header(self.now, ConnId(conn), &header)
            .expect("it was asked for");
        self.engine.handle_block_progress(self.now, ConnId(conn), LEN);
        expected
    }

    fn judge(&mut self, block: &Expected, verdict: Verdict) {
        self.engine.handle_verdict(self.now, block, verdict);
        self.drain();
    }

    fn closed(&self, conn: u64) -> Option<DisconnectReason> {
        self.said.iter().find_map(|action| match action {
            Action::Disconnect(of, reason) if *of == ConnId(conn) => Some(*reason),
            _ => None,
        })
    }

    fn bans(&self) -> Vec<(PeerKey, u64)> {
        let bans = self.said.iter().filter_map(|action| match action {
            Action::Event(Event::Banned { peer, until, .. } | Event::BannedForViolation { peer, until, .. }) => {
                Some((*peer, *until))
            }
            _ => None,
        });
        bans.collect()
    }

    fn changes_told(&self) -> usize {
        let told = |action: &&Action| matches!(action, Action::Event(Event::RecordsChanged));
        self.said.iter().filter(told).count()
    }
}

#[test]
fn a_bad_block_bans_its_sender_only() {
    let mut node = Node::started();
    let of_liar = node.connect_seed(1, "liar");
    let of_other = node.connect_seed(2, "other");
    node.now = at(5);
    let bad = node.receive(1, of_liar[0]);
    node.judge(&bad, Verdict::Corrupt);
    assert_eq!(node.bans(), [(key("liar"), STARTED_AT + 5 + DAY)]);
    assert_eq!(node.closed(1), Some(DisconnectReason::Banned));
    assert_eq!(node.engine.connections(), [ConnId(2)]);
    let good = node.receive(2, of_other[0]);
    node.judge(&good, Verdict::Good);
    assert!(node.engine.score(node.now, &key("other")) >= 0);
    assert_eq!(node.engine.score(node.now, &key("liar")), -100);
    // It comes back, and so does someone else.
    node.connect(3, "liar");
    node.connect(4, "third");
    assert_eq!(node.closed(3), Some(DisconnectReason::Banned));
    assert_eq!(node.engine.connections(), [ConnId(2), ConnId(4)]);
}

#[test]
fn a_late_verdict_of_a_departed_connection_still_bans() {
    let mut node = Node::started();
    let asked = node.connect_seed(1, "liar");
    let bad = node.receive(1, asked[0]);
    node.engine.handle_disconnected(node.now, ConnId(1));
    // It is back before anyone knew.
    node.connect(2, "liar");
    assert_eq!(node.closed(2), None);
    node.judge(&bad, Verdict::Corrupt);
    assert_eq!(node.bans().len(), 1);
    assert_eq!(node.closed(2), Some(DisconnectReason::Banned));
    // So it is if what was fetched is not wanted any more.
    let mut node = Node::started();
    let asked = node.connect_seed(1, "liar");
    let bad = node.receive(1, asked[0]);
    node.engine.handle_disconnected(node.now, ConnId(1));
    let transfer = node.transfer;
    node.engine.remove_content(node.now, transfer);
    node.judge(&bad, Verdict::Corrupt);
    assert_eq!(node.bans().len(), 1);
}

#[test]
fn a_ban_survives_a_restart_and_ends() {
    let mut node = Node::started();
    let asked = node.connect_seed(1, "liar");
    let bad = node.receive(1, asked[0]);
    node.judge(&bad, Verdict::Corrupt);
    assert_eq!(node.changes_told(), 1, "a ban is told at once");
    let known = node.engine.take_changed_records();
    let restarted = |after: u64, known: &[PeerRecord]| {
        let mut node = Node::new(EngineConfig {
            started_at: STARTED_AT + after,
            known: known.to_vec(),
            ..EngineConfig::default()
        });
        node.connect(1, "liar");
        node
    };
    assert_eq!(restarted(100, &known).closed(1), Some(DisconnectReason::Banned));
    assert_eq!(restarted(DAY + 1, &known).closed(1), None);
    // The same engine, a day later.
    node.wait_until(DAY + 1);
    node.connect(2, "liar");
    assert_eq!(node.closed(2), None);
    // It lies again: twice as long.
    let mut node = restarted(2 * DAY, &known);
    let handle = Handle(0);
    node.say(
        1,
        Message::Opened {
            handle,
            have: Have::All,
        },
    );
    node.say(1, Message::Unchoke);
    let bad = node.receive(1, node.requested(1)[0]);
    node.judge(&bad, Verdict::Corrupt);
    assert_eq!(node.bans(), [(key("liar"), STARTED_AT + 4 * DAY)]);
}

#[test]
fn who_breaks_the_protocol_again_and_again_is_banned_for_minutes() {
    let mut node = Node::started();
    for conn in 1..=3 {
        node.connect(conn, "rude");
        // A second `Hello`.
        let hello = Hello {
            network: NetworkId::PUBLIC,
            agent: "test".to_owned(),
            extensions: Vec::new(),
        };
        node.say(conn, Message::Hello(hello));
        let violation = DisconnectReason::Violation(Violation::OutOfOrder);
        assert_eq!(node.closed(conn), Some(violation));
    }
    assert_eq!(node.bans(), [(key("rude"), STARTED_AT + 300)]);
    node.connect(4, "rude");
    assert_eq!(node.closed(4), Some(DisconnectReason::Banned));
    node.wait_until(300);
    node.connect(5, "rude");
    assert_eq!(node.closed(5), None);
}

#[test]
fn forgiving_lets_a_peer_in_at_once() {
    let mut node = Node::started();
    let asked = node.connect_seed(1, "liar");
    let bad = node.receive(1, asked[0]);
    node.judge(&bad, Verdict::Corrupt);
    assert!(node.engine.ban_of(node.now, &key("liar")).is_some());
    assert_eq!(node.engine.forgive(node.now, Some(&key("stranger"))), []);
    assert_eq!(node.engine.forgive(node.now, Some(&key("liar"))), [key("liar")]);
    node.connect(2, "liar");
    assert_eq!(node.closed(2), None);
    let records = node.engine.take_changed_records();
    assert!(
        records
            .iter()
            .all(|record| record.ban.is_none() && record.faults.is_empty())
    );
}

#[test]
fn refusing_what_was_promised_counts_and_saying_that_it_is_lost_does_not() {
    let reject = |piece| Message::Rejected {
        handle: Handle(0),
        what: Rejection::Pieces(vec![Run { start: piece, len: 1 }]),
        reason: RejectReason::NotFound,
    };
    let mut node = Node::started();
    let of_boaster = node.connect_seed(1, "boaster");
    let of_loser = node.connect_seed(2, "loser");
    let of_busy = node.connect_seed(3, "busy");
    node.say(1, reject(of_boaster[0]));
    // What it said no more to have is no promise.
    node.say(1, reject(of_boaster[0]));
    let runs = vec![Run {
        start: of_loser[0],
        len: 1,
    }];
    node.say(
        2,
        Message::Lost {
            handle: Handle(0),
            runs,
        },
    );
    node.say(2, reject(of_loser[0]));
    let busy = Message::Rejected {
        handle: Handle(0),
        what: Rejection::Pieces(vec![Run {
            start: of_busy[0],
            len: 1,
        }]),
        reason: RejectReason::Busy,
    };
    node.say(3, busy);
    let broken = |peer| {
        let record = node.engine.record(&key(peer))?;
        Some(record.tally(Fault::BrokenPromise)?.count)
    };
    assert_eq!(
        (broken("boaster"), broken("loser"), broken("busy")),
        (Some(1), None, None)
    );
    assert!(node.engine.score(node.now, &key("boaster")) < 0);
    assert_eq!(node.engine.connections().len(), 3, "nobody is cut off for it");
}

/// The server's half of the same: what cannot be read is told as lost before it is refused.
#[test]
fn a_server_that_lost_a_piece_says_so_before_it_refuses() {
    let mut node = Node::started();
    let (content, map) = fake_content(2, PIECES, LEN);
    node.engine.add_content(node.now, spec(content, &map, map.all()));
    node.connect(1, "leecher");
    node.said.clear();
    let handle = Handle(7);
    node.say(1, Message::Open { handle, root: content });
    let runs = vec![Run { start: 3, len: 1 }];
    node.say(1, Message::Request { handle, runs });
    let job = node.said.iter().find_map(|action| match action {
        Action::Serve(job) => Some(*job),
        _ => None,
    });
    let job = job.expect("it is served");
    node.said.clear();
    let piece = job.piece.expect("a piece");
    node.engine.handle_lost(node.now, job.transfer, piece);
    node.engine.handle_served(node.now, &job, Err(ServeFailure::NotHere));
    node.drain();
    let told: Vec<&Message> = node
        .said
        .iter()
        .filter_map(|action| match action {
            Action::Send(_, message @ (Message::Lost { .. } | Message::Rejected { .. })) => Some(message),
            _ => None,
        })
        .collect();
    assert!(
        matches!(told[..], [Message::Lost { .. }, Message::Rejected { .. }]),
        "{told:?}"
    );
}

#[test]
fn at_the_limit_a_bad_idle_connection_goes_for_a_better_one() {
    let mut node = Node::new(EngineConfig {
        connections: 2,
        started_at: STARTED_AT,
        ..EngineConfig::default()
    });
    for _ in 0..5 {
        node.engine.handle_connect_failure(node.now, key("shaky"));
    }
    node.connect(1, "shaky");
    node.connect(2, "plain");
    // It had no time yet.
    node.connect(3, "newcomer");
    assert_eq!(node.closed(3), Some(DisconnectReason::TooManyConnections));
    node.wait_until(31);
    // Someone who is worse does not get its place, someone who is not does, and then nobody is worse than the next.
    for _ in 0..9 {
        node.engine.handle_connect_failure(node.now, key("worse"));
    }
    for (conn, peer, gets_in) in [(4, "worse", false), (5, "newcomer", true), (6, "another", false)] {
        node.connect(conn, peer);
        let closed = node.closed(conn);
        assert_eq!(closed.is_none(), gets_in, "{peer}: {closed:?}");
    }
    assert_eq!(node.closed(1), Some(DisconnectReason::LeastUseful));
    assert_eq!(node.engine.connections(), [ConnId(2), ConnId(5)]);
}

#[test]
fn a_score_has_its_reasons() {
    let mut node = Node::started();
    let asked = node.connect_seed(1, "both");
    for piece in &asked[..3] {
        let good = node.receive(1, *piece);
        node.judge(&good, Verdict::Good);
    }
    node.engine.handle_rtt(node.now, ConnId(1), Duration::from_millis(30));
    node.engine.handle_rtt(node.now, ConnId(1), Duration::from_millis(50));
    // Then it stalls.
    node.wait_until(20);
    node.wait_until(40);
    let record = node.engine.record(&key("both")).expect("known");
    assert_eq!(record.bytes_down, 3 * u64::from(LEN));
    assert_eq!(record.rtt, Some(Duration::from_millis(30)));
    let stalls = record.tally(Fault::Stalled).expect("it stalled");
    assert!(stalls.count >= 1 && stalls.last >= STARTED_AT + 20);
    let evidence = record.evidence(STARTED_AT + 40);
    assert!(
        evidence
            .iter()
            .any(|part| part.cause == Cause::Fault(*stalls) && part.points < 0.0),
        "{evidence:?}"
    );
    let low = record.score(STARTED_AT + 40);
    let later = record.score(STARTED_AT + 40 + 5 * DAY);
    assert!(
        low < 0 && later >= 0,
        "{low}, then {later}: it is not held against it for ever"
    );
    assert!(node.changes_told() >= 1);
}

#[test]
fn an_idle_engine_still_tells_what_it_knows_of_who_has_left() {
    let mut node = Node::started();
    let asked = node.connect_seed(1, "peer");
    let good = node.receive(1, asked[0]);
    node.judge(&good, Verdict::Good);
    let transfer = node.transfer;
    node.engine.remove_content(node.now, transfer);
    node.drain();
    assert_eq!(node.changes_told(), 0);
    node.engine.handle_disconnected(node.now, ConnId(1));
    node.drain();
    if node.changes_told() == 0 {
        let due = node.engine.poll_timeout().expect("it has something to tell");
        node.engine.handle_timeout(due);
        node.drain();
    }
    assert_eq!(node.changes_told(), 1);
    assert_eq!(node.engine.take_changed_records().len(), 1);
    assert_eq!(node.engine.poll_timeout(), None);
}
