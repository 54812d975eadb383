//! What a seed offers to leechers that do as each test says: one engine, and what others say to it.

mod common;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use common::{connect, spec};
use modswarm_protocol::Timestamp;
use modswarm_protocol::engine::{Action, ConnId, DisconnectReason, Engine, EngineConfig, ServeJob};
use modswarm_protocol::format::{Cid, SharedPieceMap};
use modswarm_protocol::sim::fake_content;
use modswarm_protocol::wire::{Handle, Have, Message, Run};

const LEN: u32 = 64 * 1024;
/// Bytes a second that the seed's line takes.
const RATE: u64 = 1_000_000;
const STEP: Duration = Duration::from_millis(10);
/// The handle by which each leecher asks.
const ASKS: Handle = Handle(0);

struct Seed {
    engine: Engine,
    now: Timestamp,
    content: Cid,
    map: SharedPieceMap,
    /// What leechers say to have when they are asked; nothing if it is not in here.
    says: BTreeMap<ConnId, Have>,
    choked: BTreeSet<ConnId>,
    /// Of whom it wants to know what they have.
    follows: BTreeMap<ConnId, Handle>,
    parted: Vec<ConnId>,
    offered: BTreeMap<ConnId, Vec<u32>>,
    jobs: VecDeque<ServeJob>,
    sent: Vec<(ConnId, u32)>,
    /// Bytes that the line has had time for.
    line: u64,
}

impl Seed {
    fn new(pieces: u32, slots: usize) -> Self {
        let (content, map) = fake_content(1, pieces, LEN);
        let config = EngineConfig {
            upload_slots: slots,
            ..EngineConfig::default()
        };
        let mut engine = Engine::new(config, 1);
        engine.add_content(Timestamp::ZERO, spec(content, &map, map.all()));
        Self {
            engine,
            now: Timestamp::ZERO,
            content,
            map,
            says: BTreeMap::new(),
            choked: BTreeSet::new(),
            follows: BTreeMap::new(),
            parted: Vec::new(),
            offered: BTreeMap::new(),
            jobs: VecDeque::new(),
            sent: Vec::new(),
            line: 0,
        }
    }

    fn hear(&mut self, conn: ConnId, message: Message) {
        self.engine.handle_message(self.now, conn, message);
        self.drain();
    }

    /// A leecher comes and opens the content.
    fn join(&mut self, conn: u64, says: Have) {
        let id = ConnId(conn);
        self.says.insert(id, says);
        self.choked.insert(id);
        connect(&mut self.engine, self.now, id);
        self.drain();
        let root = self.content;
        self.hear(id, Message::Open { handle: ASKS, root });
    }

    fn drain(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            match action {
                Action::Send(conn, Message::Open { handle, .. }) => {
                    let have = self.says[&conn].clone();
                    self.follows.insert(conn, handle);
                    self.engine
                        .handle_message(self.now, conn, Message::Opened { handle, have });
                }
                Action::Send(conn, Message::Offer { runs, .. }) if !runs.is_empty() => {
                    assert!(
                        !self.choked.contains(&conn),
                        "{conn:?} is offered what it may not ask for"
                    );
                    let pieces = runs.iter().flat_map(|run| run.pieces());
                    self.offered.entry(conn).or_default().extend(pieces);
                    // Who says to have everything asks only where a test does.
                    if self.says[&conn] != Have::All {
                        let handle = ASKS;
                        self.engine
                            .handle_message(self.now, conn, Message::Request { handle, runs });
                    }
                }
                Action::Send(conn, Message::Choke) => drop(self.choked.insert(conn)),
                Action::Send(conn, Message::Unchoke) => drop(self.choked.remove(&conn)),
                Action::Send(conn, Message::Close { .. }) => drop(self.follows.remove(&conn)),
                Action::Disconnect(conn, DisconnectReason::NothingShared) => self.parted.push(conn),
                Action::Serve(job) => self.jobs.push_back(job),
                Action::Disconnect(conn, reason) => panic!("{conn:?}: {reason}"),
                Action::Send(..) | Action::Pace { .. } | Action::Weigh { .. } | Action::Event(_) => {}
            }
        }
    }

    /// Lets time pass; the line sends what it is given.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + STEP;
            self.line += RATE * STEP.as_micros() as u64 / 1_000_000;
            if self.jobs.is_empty() {
                self.line = 0;
            }
            while self.line >= u64::from(LEN)
                && let Some(job) = self.jobs.pop_front()
            {
                self.line -= u64::from(LEN);
                self.sent.push((job.conn, job.piece.expect("pieces only").get()));
                self.engine.handle_served(self.now, &job, Ok(LEN));
                self.drain();
            }
            self.engine.handle_timeout(self.now);
            self.drain();
        }
    }

    /// The part of a time in which the line was at work.
    fn busy(&self, time: Duration) -> f64 {
        self.sent.len() as f64 * f64::from(LEN) / (RATE as f64 * time.as_secs_f64())
    }
}

#[test]
fn the_uplink_is_busy_while_leechers_on_trial_pass_nothing_on() {
    let mut seed = Seed::new(400, 16);
    (1..=4).for_each(|conn| seed.join(conn, Have::None));
    let time = Duration::from_secs(10);
    seed.run(time);
    let busy = seed.busy(time);
    assert!(busy > 0.95, "busy for {busy} of the time");
    let mut pieces: Vec<u32> = seed.sent.iter().map(|(_, piece)| *piece).collect();
    pieces.sort_unstable();
    pieces.dedup();
    println!("{} of {} sent are different ones", pieces.len(), seed.sent.len());
    assert!(pieces.len() * 2 > seed.sent.len());
}

/// Two take and pass nothing on; two more wait for a slot, and are no dead ends as far as anybody knows.
#[test]
fn offers_go_past_choked_leechers() {
    let mut seed = Seed::new(400, 2);
    (1..=4).for_each(|conn| seed.join(conn, Have::None));
    let time = Duration::from_secs(10);
    seed.run(time);
    let busy = seed.busy(time);
    assert!(busy > 0.95, "busy for {busy} of the time");
}

#[test]
fn who_only_says_to_be_a_seed_ends_no_offers() {
    let mut seed = Seed::new(400, 16);
    (1..=6).for_each(|conn| seed.join(conn, if conn == 2 { Have::All } else { Have::None }));
    seed.run(Duration::from_secs(1));
    let offered = |seed: &Seed| {
        let honest = seed.offered.iter().filter(|(conn, _)| **conn != ConnId(2));
        honest.map(|(_, pieces)| pieces.len()).sum::<usize>()
    };
    let early = offered(&seed);
    assert!(early > 0, "nothing is offered");
    seed.run(Duration::from_secs(3));
    let later = offered(&seed);
    assert!(later > early, "offers have ended");
    // It asks for what it says to have: others go first from then on, and its map counts no more.
    let runs = vec![Run { start: 0, len: 400 }];
    seed.hear(ConnId(2), Message::Request { handle: ASKS, runs });
    let before = seed.sent.len();
    seed.run(Duration::from_secs(3));
    let sent = &seed.sent[before..];
    let to_it = sent.iter().filter(|(conn, _)| *conn == ConnId(2)).count();
    assert!(sent.len() > 30 && to_it <= 1, "{to_it} of {}", sent.len());
    assert!(offered(&seed) > later, "offers have ended");
}

#[test]
fn leechers_choose_while_there_are_as_many_seeds() {
    let mut seed = Seed::new(400, 16);
    (1..=2).for_each(|conn| seed.join(conn, Have::None));
    seed.run(Duration::from_secs(1));
    // Two more seeds of the content, which tell so when they are asked and ask for nothing.
    (3..=4).for_each(|conn| seed.join(conn, Have::All));
    seed.run(Duration::from_secs(1));
    let offered: usize = seed.offered.values().map(Vec::len).sum();
    seed.run(Duration::from_secs(2));
    let later: usize = seed.offered.values().map(Vec::len).sum();
    assert_eq!(offered, later, "{} pieces of {}", seed.sent.len(), seed.map.len());
}

#[test]
fn a_seed_follows_leechers_after_the_first_copy_and_parts_from_those_that_need_nothing() {
    let mut seed = Seed::new(40, 16);
    (1..=2).for_each(|conn| seed.join(conn, Have::None));
    let mut told = 0;
    while seed.sent.len() < 40 {
        seed.run(Duration::from_millis(200));
        let news = seed.sent[told..].to_vec();
        for (to, piece) in news {
            // Each passes on what it gets.
            let other = ConnId(3 - to.0);
            let (handle, runs) = (seed.follows[&other], vec![Run { start: piece, len: 1 }]);
            seed.hear(other, Message::Have { handle, runs });
        }
        told = seed.sent.len();
        assert!(seed.now < Timestamp::ZERO + Duration::from_secs(60), "{:?}", seed.sent);
    }
    seed.run(Duration::from_secs(2));
    assert_eq!(seed.follows.len(), 2, "who is behind is not known any more");
    seed.hear(ConnId(1), Message::Close { handle: ASKS });
    seed.run(Duration::from_secs(150));
    assert_eq!(seed.parted, [ConnId(1)]);
}
