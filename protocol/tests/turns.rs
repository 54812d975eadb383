//! Whose turn it is to be served: one engine that downloads, and peers who ask it.

mod common;

use std::time::Duration;

use common::{connect, spec};
use modswarm_protocol::Timestamp;
use modswarm_protocol::engine::{Action, ConnId, Engine, EngineConfig, ServeJob};
use modswarm_protocol::format::{Cid, Codec, HashKind};
use modswarm_protocol::sim::fake_content;
use modswarm_protocol::wire::{Handle, Have, Message, RequestId, Run};

const LEN: u32 = 64 * 1024;
const PIECES: u32 = 1000;
const HANDLE: Handle = Handle(0);

struct Node {
    engine: Engine,
    now: Timestamp,
    content: Cid,
    jobs: Vec<ServeJob>,
}

impl Node {
    /// A leecher that has all but the last piece.
    fn new() -> Self {
        let (content, map) = fake_content(1, PIECES, LEN);
        let mut engine = Engine::new(EngineConfig::default(), 1);
        let mut have = map.all();
        have.set(PIECES as usize - 1, false);
        engine.add_content(Timestamp::ZERO, spec(content, &map, have));
        Self {
            engine,
            now: Timestamp::ZERO,
            content,
            jobs: Vec::new(),
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
