//! Pieces that are asked back from who has not come to them, to have them from another peer: both halves of it, one engine each.

mod common;

use std::time::Duration;

use common::{connect, spec};
use modswarm_protocol::Timestamp;
use modswarm_protocol::engine::{Action, ConnId, Engine, EngineConfig, ServeJob, Verdict};
use modswarm_protocol::format::Cid;
use modswarm_protocol::sim::fake_content;
use modswarm_protocol::wire::{BulkHeader, Encoding, Handle, Have, Message, RejectReason, Rejection, Run, What};

const LEN: u32 = 64 * 1024;
const HANDLE: Handle = Handle(0);
const SLOW: ConnId = ConnId(1);
const IDLE: ConnId = ConnId(2);

struct Node {
    engine: Engine,
    now: Timestamp,
    content: Cid,
    said: Vec<(ConnId, Message)>,
    jobs: Vec<ServeJob>,
}

impl Node {
    fn new(pieces: u32, seeds: bool) -> Self {
        let (content, map) = fake_content(1, pieces, LEN);
        let mut engine = Engine::new(EngineConfig::default(), 1);
        let have = if seeds { map.all() } else { map.none() };
        engine.add_content(Timestamp::ZERO, spec(content, &map, have));
        Self {
            engine,
            now: Timestamp::ZERO,
            content,
            said: Vec::new(),
            jobs: Vec::new(),
        }
    }

    fn drain(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            match action {
                Action::Send(conn, message) => self.said.push((conn, message)),
                Action::Serve(job) => self.jobs.push(job),
                Action::Disconnect(conn, reason) => panic!("{conn:?}: {reason}"),
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

    /// A seed is there, and lets itself be asked.
    fn meet_seed(&mut self, conn: ConnId) {
        connect(&mut self.engine, self.now, conn);
        self.drain();
        self.hear(conn, Message::Unchoke);
        let (handle, have) = (HANDLE, Have::All);
        self.hear(conn, Message::Opened { handle, have });
    }

    /// What was said to a peer since the last look.
    fn said_to(&mut self, conn: ConnId) -> Vec<Message> {
        let said = self.said.extract_if(.., |(to, _)| *to == conn);
        said.map(|(_, message)| message).collect()
    }
}

fn asked(said: &[Message]) -> Vec<u32> {
    let runs = said.iter().filter_map(|message| match message {
        Message::Request { runs, .. } => Some(runs.clone()),
        _ => None,
    });
    pieces(&runs.flatten().collect::<Vec<_>>())
}

fn to_release(said: &[Message]) -> Vec<u32> {
    let runs = said.iter().filter_map(|message| match message {
        Message::Release { runs, .. } => Some(runs.clone()),
        _ => None,
    });
    pieces(&runs.flatten().collect::<Vec<_>>())
}

fn pieces(runs: &[Run]) -> Vec<u32> {
    runs.iter().flat_map(|run| run.start..run.start + run.len).collect()
}

fn released(piece: u32) -> Message {
    Message::Rejected {
        handle: HANDLE,
        what: Rejection::Pieces(vec![Run { start: piece, len: 1 }]),
        reason: RejectReason::Released,
    }
}

#[test]
fn a_server_releases_what_it_has_not_come_to_and_sends_the_rest() {
    let mut node = Node::new(40, true);
    let root = node.content;
    connect(&mut node.engine, node.now, SLOW);
    node.drain();
    let handle = HANDLE;
    node.hear(SLOW, Message::Open { handle, root });
    let runs = vec![Run { start: 0, len: 20 }];
    node.hear(SLOW, Message::Request { handle, runs });
    let under_way: Vec<ServeJob> = std::mem::take(&mut node.jobs);
    assert!(!under_way.is_empty() && under_way.len() < 10);
    node.said.clear();
    let runs = vec![
        Run { start: 0, len: 1 },
        Run { start: 15, len: 3 },
        Run { start: 30, len: 4 },
    ];
    node.hear(SLOW, Message::Release { handle, runs });
    let answer = Message::Rejected {
        handle,
        what: Rejection::Pieces(vec![Run { start: 15, len: 3 }]),
        reason: RejectReason::Released,
    };
    assert_eq!(node.said_to(SLOW), [answer]);
    let mut sent = Vec::new();
    let mut jobs = under_way;
    while let Some(job) = jobs.pop() {
        sent.extend(match job.what {
            What::Piece(piece) => Some(piece),
            What::Block { .. } | What::Node { .. } => None,
        });
        node.engine.handle_served(node.now, &job, Ok(LEN));
        node.drain();
        jobs.append(&mut node.jobs);
    }
    sent.sort_unstable();
    assert_eq!(sent, Vec::from_iter((0..15).chain(18..20)));
    node.said.clear();
    let runs = vec![Run { start: 0, len: 20 }];
    node.hear(SLOW, Message::Release { handle, runs });
    assert_eq!(node.said_to(SLOW), []);
}

#[test]
fn a_piece_goes_to_an_idle_peer_once_it_is_released() {
    let mut node = Node::new(4, false);
    node.meet_seed(SLOW);
    let first = asked(&node.said_to(SLOW));
    assert_eq!(first.len(), 4, "everything is on request");
    node.wait(Duration::from_secs(1));
    node.meet_seed(IDLE);
    node.wait(Duration::from_millis(100));
    let moving = to_release(&node.said_to(SLOW));
    assert!(!moving.is_empty(), "the idle one would bring it sooner");
    let early = asked(&node.said_to(IDLE));
    assert!(!early.contains(&moving[0]), "it might come twice");
    node.hear(SLOW, released(moving[0]));
    assert_eq!(asked(&node.said_to(IDLE)), [moving[0]]);
    assert_eq!(asked(&node.said_to(SLOW)), [0; 0]);
}

#[test]
fn pieces_move_before_the_end_too() {
    let (content, map) = fake_content(1, 8, LEN);
    let mut node = Node::new(8, false);
    assert_eq!(content, node.content);
    // The last four are nowhere.
    let mut have = map.none();
    (0..4).for_each(|piece| have.set(piece, true));
    let handle = HANDLE;
    let have = Have::of(&have);
    for conn in [SLOW, IDLE] {
        connect(&mut node.engine, node.now, conn);
        node.drain();
        node.hear(conn, Message::Unchoke);
        let have = have.clone();
        node.hear(conn, Message::Opened { handle, have });
        node.wait(Duration::from_millis(400));
    }
    let moving = to_release(&node.said_to(SLOW));
    assert_eq!(moving.len(), 1, "one at a time, while there may be better to do");
    node.hear(SLOW, released(moving[0]));
    assert_eq!(asked(&node.said_to(IDLE)), moving);
}

#[test]
fn an_answer_that_comes_too_late_takes_nothing_back() {
    let mut node = Node::new(4, false);
    node.meet_seed(SLOW);
    let first = asked(&node.said_to(SLOW));
    node.hear(SLOW, released(first[0]));
    node.wait(Duration::from_millis(100));
    assert_eq!(asked(&node.said_to(SLOW)), [0; 0], "it is on request still");
}

#[test]
fn a_late_block_that_does_not_go_on_is_had_of_another() {
    let mut node = Node::new(3, false);
    node.meet_seed(SLOW);
    let order = asked(&node.said_to(SLOW));
    let header = |piece| BulkHeader {
        handle: HANDLE,
        what: What::Piece(piece),
        encoding: Encoding::Plain,
        len: LEN,
    };
    node.wait(Duration::from_millis(100));
    for piece in &order[..2] {
        let block = node.engine.handle_block_header(node.now, SLOW, &header(*piece));
        node.engine.handle_block_progress(node.now, SLOW, LEN);
        let block = block.expect("it was asked for");
        node.engine.handle_verdict(node.now, &block, Verdict::Good);
        node.drain();
    }
    // It is silent for so long that the last piece is taken back, and then that begins to come.
    node.wait(Duration::from_secs(6));
    assert!(node.engine.conn_stats(SLOW).expect("it is connected").snubbed);
    let late = node.engine.handle_block_header(node.now, SLOW, &header(order[2]));
    late.expect("it is still missing");
    node.engine.handle_block_progress(node.now, SLOW, 1000);
    node.drain();
    // Who comes now does not double what may be there soon, and is not kept waiting for ten seconds either.
    node.meet_seed(IDLE);
    node.wait(Duration::from_millis(300));
    assert_eq!(asked(&node.said_to(IDLE)), [0; 0]);
    (0..80).for_each(|_| node.wait(Duration::from_millis(100)));
    assert_eq!(asked(&node.said_to(IDLE)), [order[2]]);
}
