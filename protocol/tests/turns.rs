//! Whose turn it is to be served: one engine that downloads, and peers who ask it.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{connect, spec};
use modswarm_protocol::Timestamp;
use modswarm_protocol::engine::{Action, ConnId, Engine, EngineConfig, ServeJob, Verdict};
use modswarm_protocol::format::{Cid, Codec, HashKind};
use modswarm_protocol::sim::fake_content;
use modswarm_protocol::wire::{BulkHeader, Encoding, Handle, Have, Message, RequestId, Run, What};

const LEN: u32 = 64 * 1024;
const PIECES: u32 = 1000;
const HANDLE: Handle = Handle(0);

struct Node {
    engine: Engine,
    now: Timestamp,
    content: Cid,
    jobs: Vec<ServeJob>,
    /// How fast each is to be sent to, as it was told last.
    weights: BTreeMap<ConnId, u16>,
    /// Who was given a slot.
    unchoked: Vec<ConnId>,
    /// The pieces that were asked of each.
    asked: BTreeMap<ConnId, Vec<u32>>,
}

impl Node {
    /// A leecher that has all but the last piece.
    fn new() -> Self {
        Self::missing(1, EngineConfig::default())
    }

    /// A leecher that has all but the last few pieces.
    fn missing(pieces: u32, config: EngineConfig) -> Self {
        let (content, map) = fake_content(1, PIECES, LEN);
        let mut engine = Engine::new(config, 1);
        let mut have = map.all();
        have[(PIECES - pieces) as usize..].fill(false);
        engine.add_content(Timestamp::ZERO, spec(content, &map, have));
        Self {
            engine,
            now: Timestamp::ZERO,
            content,
            jobs: Vec::new(),
            weights: BTreeMap::new(),
            unchoked: Vec::new(),
            asked: BTreeMap::new(),
        }
    }

    fn hear(&mut self, conn: ConnId, message: Message) {
        self.engine.handle_message(self.now, conn, message);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            match action {
                Action::Serve(job) => self.jobs.push(job),
                Action::Send(conn, Message::Open { handle, .. }) => {
                    let have = Have::None;
                    self.hear(conn, Message::Opened { handle, have });
                }
                Action::Send(conn, Message::Request { runs, .. }) => {
                    let pieces = runs.into_iter().flat_map(Run::pieces);
                    self.asked.entry(conn).or_default().extend(pieces);
                }
                Action::Send(conn, Message::Unchoke) => self.unchoked.push(conn),
                Action::Weigh { conn, weight } => drop(self.weights.insert(conn, weight)),
                _ => {}
            }
        }
    }

    fn join(&mut self, conn: ConnId) {
        connect(&mut self.engine, self.now, conn);
        self.drain();
        let root = self.content;
        self.hear(conn, Message::Open { handle: HANDLE, root });
    }

    /// The line takes the next block.
    fn send(&mut self) -> ServeJob {
        let job = self.jobs.remove(0);
        self.now = self.now + Duration::from_millis(20);
        self.engine.handle_served(self.now, &job, Ok(LEN));
        self.drain();
        job
    }

    /// Time passes in which nothing comes.
    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.engine.poll_timeout().filter(|at| *at <= until) {
            self.now = at.max(self.now);
            self.engine.handle_timeout(self.now);
            self.drain();
        }
        self.now = until;
    }

    /// A peer brings what it was asked for first.
    fn bring(&mut self, conn: ConnId) {
        let piece = self.asked.get_mut(&conn).expect("it was asked").remove(0);
        let header = BulkHeader {
            handle: HANDLE,
            what: What::Piece(piece),
            encoding: Encoding::Plain,
            len: LEN,
        };
        let block = self.engine.handle_block_header(self.now, conn, &header);
        let block = block.expect("it was asked for");
        self.engine.handle_block_progress(self.now, conn, LEN);
        self.engine.handle_verdict(self.now, &block, Verdict::Good);
        self.drain();
    }

    fn ask(&mut self, conn: ConnId, start: u32, len: u32) {
        let runs = vec![Run { start, len }];
        self.hear(conn, Message::Request { handle: HANDLE, runs });
    }
}

#[test]
fn who_reads_a_skeleton_is_served_at_once_although_it_has_nothing_to_give() {
    let mut node = Node::new();
    let (reader, others) = (ConnId(9), [ConnId(1), ConnId(2)]);
    for conn in others {
        node.join(conn);
        node.hear(conn, Message::Unchoke);
    }
    // It chokes us: it has no use for slots yet.
    node.join(reader);
    for (conn, start) in others.into_iter().zip([0, 300]) {
        node.ask(conn, start, 300);
    }
    for request in 0..20 {
        let cid = Cid::of(Codec::DagPb, HashKind::Blake3, &[request as u8]);
        let message = Message::WantNodes {
            handle: HANDLE,
            request: RequestId(request),
            cids: vec![cid],
        };
        node.hear(reader, message);
        let waits = node.jobs.len();
        let before = (0..).take_while(|_| node.send().conn != reader).count();
        assert!(before <= waits, "{before} blocks went before node {request}");
    }
}

#[test]
fn who_is_behind_goes_before_what_is_rare() {
    let mut node = Node::new();
    let (behind, ahead) = (ConnId(1), ConnId(2));
    for (conn, has) in [(behind, 100), (ahead, 200)] {
        node.join(conn);
        node.hear(conn, Message::Unchoke);
        let runs = vec![Run { start: 0, len: has }];
        node.hear(conn, Message::Have { handle: HANDLE, runs });
    }
    // What the one asks for nobody has but us; what the other asks for, the one has too.
    node.ask(ahead, 400, 300);
    node.ask(behind, 100, 100);
    // Until it is known how fast the line is, little is under way to each.
    for _ in 0..50 {
        node.send();
    }
    for _ in 0..40 {
        assert_eq!(node.send().conn, behind);
    }
}

#[test]
fn who_misses_more_is_to_be_sent_to_faster() {
    let mut node = Node::new();
    let (behind, ahead, near) = (ConnId(1), ConnId(2), ConnId(3));
    for (conn, has) in [(behind, 100), (ahead, 600), (near, 500)] {
        node.join(conn);
        node.hear(conn, Message::Unchoke);
        let runs = vec![Run { start: 0, len: has }];
        node.hear(conn, Message::Have { handle: HANDLE, runs });
        node.ask(conn, has, 200);
    }
    node.wait(Duration::from_secs(2));
    let weight = |conn| node.weights.get(&conn).copied().unwrap_or(100);
    assert!(weight(behind) > 150, "{:?}", node.weights);
    assert!(weight(ahead) < weight(near) && weight(near) < 100, "{:?}", node.weights);
    // It does not give any more.
    node.hear(behind, Message::Choke);
    node.wait(Duration::from_secs(2));
    assert_eq!(node.weights[&behind], 100);
}

#[test]
fn two_who_keep_each_other_waiting_find_out_that_they_can_trade() {
    for gives in [true, false] {
        let mut node = Node::missing(100, EngineConfig::default());
        let (slow, other) = (ConnId(1), ConnId(2));
        for conn in [slow, other] {
            node.join(conn);
        }
        let runs = vec![Run { start: 900, len: 100 }];
        node.hear(slow, Message::Have { handle: HANDLE, runs });
        let runs = vec![Run { start: 0, len: 300 }];
        node.hear(other, Message::Have { handle: HANDLE, runs });
        node.hear(slow, Message::Unchoke);
        node.hear(other, Message::Unchoke);
        if gives {
            node.bring(slow);
        }
        // It has much to do besides.
        node.wait(Duration::from_secs(16));
        let stats = node.engine.conn_stats(slow).expect("it is connected");
        assert!(stats.snubbed, "it was not asked for long enough");
        node.ask(other, 300, 300);
        node.ask(slow, 0, 300);
        let served: Vec<ConnId> = (0..40).map(|_| node.send().conn).collect();
        let to_slow = served.iter().filter(|conn| **conn == slow).count();
        assert_eq!(to_slow >= 10, gives, "{to_slow} of 40 blocks went to it");
    }
}

#[test]
fn slots_of_those_who_ask_for_nothing_go_to_others_while_nothing_goes_out() {
    let config = EngineConfig {
        upload_slots: 1,
        ..EngineConfig::default()
    };
    let mut node = Node::missing(1, config);
    let (first, second) = (ConnId(1), ConnId(2));
    node.join(first);
    node.join(second);
    assert_eq!(node.unchoked, [first]);
    node.wait(Duration::from_secs(3));
    assert_eq!(node.unchoked, [first, second]);
}
