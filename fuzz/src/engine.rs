//! The swarm engine under the streams of peers that hold to nothing, driven as the node drives it.
//!
//! Input: steps of one byte with what each needs behind it ([`Step`]). Messages and headers stand there as on the wire, so that the codec's seeds serve here too.

use std::time::Duration;

use modswarm_protocol::{
    Timestamp,
    engine::{
        Action, ConnId, ContentPieces, ContentSpec, Engine, EngineConfig, Expected, PeerKey, PickOrder, ServeFailure,
        ServeJob, Unwanted, Verdict, Violation,
    },
    format::{Cid, PieceSet, SharedPieceMap},
    sim::fake_content,
    wire::{
        BulkHeader, Encoding, Extension, Handle, Hello, Message, NetworkId, What,
        limits::{MAX_HANDLES, MAX_QUEUED_CIDS, MAX_QUEUED_PIECES},
        split_frame,
    },
};

use super::{input::Input, memory};

/// Pieces of each content, and bytes of each piece.
pub const PIECES: u32 = 64;
pub const LEN: u32 = 1000;
/// Peers at a time.
const SLOTS: usize = 3;

/// What a step's first byte says, in its lower four bits. The upper four choose a peer, where one is needed.
pub struct Step;

impl Step {
    pub const CONNECT: u8 = 0;
    /// As [`Step::CONNECT`], and nothing is said for the peer: its stream has to begin with a `Hello`.
    pub const CONNECT_SILENT: u8 = 1;
    pub const DISCONNECT: u8 = 2;
    /// A frame follows.
    pub const SAY: u8 = 3;
    /// A block's header follows.
    pub const HEADER: u8 = 4;
    /// The header of the block that was requested first.
    pub const ANSWER: u8 = 5;
    /// Two bytes follow: how many of the block's have come.
    pub const PROGRESS: u8 = 6;
    /// Follow: which block, and what the hash says.
    pub const VERDICT: u8 = 7;
    pub const SERVED: u8 = 8;
    /// Two bytes follow: milliseconds.
    pub const WAIT: u8 = 9;
    /// A piece follows.
    pub const LOSE: u8 = 10;
    pub const FIND: u8 = 11;
    pub const PAUSE: u8 = 12;
    pub const RESUME: u8 = 13;
    /// Two bytes follow: bytes a second in hundreds; none at all is unlimited.
    pub const LIMIT: u8 = 14;
    /// What the node finds out about its contents: [`Fact`] follows, and a byte for what needs one.
    pub const FACT: u8 = 15;
}

/// What the byte behind [`Step::FACT`] says, modulo [`Fact::COUNT`].
pub struct Fact;

impl Fact {
    /// The skeleton of the content that was unknown ([`EARLY`]) is there.
    pub const PIECES: u8 = 0;
    /// A node of that skeleton is wanted.
    pub const NODE: u8 = 1;
    /// The unknown content is given up, and asked for anew.
    pub const ANEW: u8 = 2;
    /// The pieces of the content that nobody asked for ([`IDLE`]) were read.
    pub const READ: u8 = 3;
    /// They cannot be read.
    pub const UNREAD: u8 = 4;
    /// They are put away if nobody uses them.
    pub const AWAY: u8 = 5;
    /// Other pieces of the fetched content are wanted: each whose index the byte does not divide.
    pub const WANTED: u8 = 6;
    pub const COUNT: u8 = 7;
}

/// The content of which only the name is known at first; its peers may open it early.
pub const EARLY: u64 = 2;
/// The seeded content whose pieces are not in memory at first.
pub const IDLE: u64 = 3;

pub fn run(data: &[u8]) {
    // An engine with two small contents and three peers, and for each step at most what a message's bounds let it queue.
    memory::within((8 << 20) + 64 * data.len(), || {
        let mut node = Node::new();
        let mut input = Input(data);
        while !input.is_empty() {
            node.step(&mut input);
            node.drain();
        }
        node.complete();
    });
}

/// The content that the engine fetches (`0`, [`EARLY`]) or seeds (`1`, [`IDLE`]).
pub fn content(which: u64) -> (Cid, SharedPieceMap) {
    fake_content(which, PIECES, LEN)
}

fn spec(content: Cid, map: &SharedPieceMap, have: PieceSet) -> ContentSpec {
    ContentSpec {
        content: Some(content),
        packs: Vec::new(),
        network: NetworkId::PUBLIC,
        pieces: Some(ContentPieces {
            map: map.clone(),
            have,
            wanted: None,
        }),
        related: Vec::new(),
        order: PickOrder::RarestFirst,
    }
}

/// The content of which only the name is known; whoever has the one that is seeded may have leaves of it.
fn early() -> ContentSpec {
    let (early, map) = content(EARLY);
    ContentSpec {
        pieces: None,
        related: vec![content(1).0],
        ..spec(early, &map, map.none())
    }
}

pub fn hello() -> Message {
    Message::Hello(Hello {
        network: NetworkId::PUBLIC,
        agent: "fuzz".into(),
        extensions: vec![Extension {
            name: Extension::PEER_EXCHANGE.into(),
            value: Vec::new(),
        }],
    })
}

/// A node that keeps to the engine's contract, and notes what a peer may answer.
struct Node {
    engine: Engine,
    now: Timestamp,
    slots: [Option<ConnId>; SLOTS],
    conns: u64,
    requested: Vec<(ConnId, Handle, u32)>,
    arriving: Vec<(ConnId, Option<Expected>, u32)>,
    whole: Vec<Expected>,
    jobs: Vec<ServeJob>,
}

impl Node {
    fn new() -> Self {
        let config = EngineConfig {
            upload_slots: 2,
            ..EngineConfig::default()
        };
        let mut engine = Engine::new(config, 7);
        let (fetched, map) = content(0);
        engine.add_content(Timestamp::ZERO, spec(fetched, &map, map.none()));
        let (seeded, map) = content(1);
        engine.add_content(Timestamp::ZERO, spec(seeded, &map, map.all()));
        engine.add_content(Timestamp::ZERO, early());
        let (idle, map) = content(IDLE);
        engine.add_seed(Timestamp::ZERO, spec(idle, &map, map.all()));
        Self {
            engine,
            now: Timestamp::ZERO,
            slots: [None; SLOTS],
            conns: 0,
            requested: Vec::new(),
            arriving: Vec::new(),
            whole: Vec::new(),
            jobs: Vec::new(),
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let op = input.byte();
        let at = usize::from(op >> 4) % SLOTS;
        let (conn, now) = (self.slots[at], self.now);
        match (op & 15, conn) {
            (Step::CONNECT, None) => {
                let conn = self.connect(at);
                self.engine.handle_message(now, conn, hello());
            }
            (Step::CONNECT_SILENT, None) => drop(self.connect(at)),
            (Step::DISCONNECT, Some(conn)) => {
                self.engine.handle_disconnected(now, conn);
                self.gone(conn);
            }
            (Step::SAY, conn) => self.say(conn, input),
            (Step::HEADER, conn) => match BulkHeader::decode(input.0) {
                Ok(Some((header, len))) => {
                    input.bytes(len);
                    if let Some(conn) = conn {
                        self.header(conn, &header);
                    }
                }
                Ok(None) => input.0 = &[],
                Err(e) => {
                    input.byte();
                    self.violate(conn, Violation::Malformed(e));
                }
            },
            (Step::ANSWER, Some(conn)) => {
                if let Some(at) = self.requested.iter().position(|(of, ..)| *of == conn) {
                    let (conn, handle, piece) = self.requested.remove(at);
                    let header = BulkHeader {
                        handle,
                        what: What::Piece(piece),
                        encoding: Encoding::Plain,
                        len: LEN,
                    };
                    self.header(conn, &header);
                }
            }
            (Step::PROGRESS, conn) => {
                let bytes = input.u16();
                if let Some(conn) = conn {
                    self.progress(conn, bytes.into());
                }
            }
            (Step::VERDICT, _) => {
                let (which, verdict) = (usize::from(input.byte()), input.byte());
                if !self.whole.is_empty() {
                    let block = self.whole.swap_remove(which % self.whole.len());
                    let verdict = match verdict % 8 {
                        0 => Verdict::Corrupt,
                        1 => Verdict::WriteFailed,
                        _ => Verdict::Good,
                    };
                    self.engine.handle_verdict(now, &block, verdict);
                }
            }
            (Step::SERVED, _) => {
                let which = usize::from(input.byte());
                if !self.jobs.is_empty() {
                    let job = self.jobs.swap_remove(which % self.jobs.len());
                    let outcome = match which % 4 {
                        0 => Err(ServeFailure::NotHere),
                        1 => Err(ServeFailure::Busy),
                        _ => Ok(job.len.unwrap_or(500)),
                    };
                    self.engine.handle_served(now, &job, outcome);
                }
            }
            (Step::WAIT, _) => {
                self.now = now + Duration::from_millis(input.u16().into());
                self.engine.handle_timeout(self.now);
            }
            (op @ (Step::LOSE | Step::FIND), _) => {
                let (cid, map) = content(0);
                let index = map.index(u32::from(input.byte()) % PIECES);
                if let (Some(transfer), Some(index)) = (self.engine.transfer_of(&cid), index) {
                    match op {
                        Step::LOSE => self.engine.handle_lost(now, transfer, index),
                        _ => self.engine.handle_have(now, transfer, index),
                    }
                }
            }
            (op @ (Step::PAUSE | Step::RESUME), _) => {
                for transfer in self.engine.transfers() {
                    match op {
                        Step::PAUSE => self.engine.pause(now, transfer),
                        _ => self.engine.resume(now, transfer),
                    }
                }
            }
            (Step::FACT, _) => {
                let (fact, with) = (input.byte(), input.byte());
                self.fact(fact % Fact::COUNT, with);
            }
            (Step::LIMIT, _) => {
                let limit = Some(u64::from(input.u16()) * 100).filter(|limit| *limit > 0);
                self.engine.set_limits(now, limit, limit);
            }
            _ => {}
        }
    }

    fn fact(&mut self, fact: u8, with: u8) {
        let now = self.now;
        let transfer = |engine: &Engine, which| engine.transfer_of(&content(which).0).expect("it is there again");
        let pieces = |which, have: fn(&SharedPieceMap) -> PieceSet| {
            let (cid, map) = content(which);
            let have = have(&map);
            let pieces = ContentPieces {
                map,
                have,
                wanted: None,
            };
            (cid, pieces)
        };
        let (early, idle) = (transfer(&self.engine, EARLY), transfer(&self.engine, IDLE));
        match fact {
            Fact::PIECES => {
                let (cid, pieces) = pieces(EARLY, |map| map.none());
                self.engine.set_pieces(now, early, cid, pieces);
            }
            Fact::NODE => {
                let node = Cid::of(
                    modswarm_protocol::Codec::DagPb,
                    modswarm_protocol::HashKind::Blake3,
                    &[with],
                );
                self.engine.want_nodes(now, early, &[node]);
            }
            Fact::ANEW => {
                self.engine.remove_content(now, early);
                self.engine.add_content(now, self::early());
            }
            Fact::READ => {
                let (cid, pieces) = pieces(IDLE, |map| map.all());
                self.engine.set_pieces(now, idle, cid, pieces);
            }
            Fact::UNREAD => self.engine.handle_no_pieces(now, idle),
            Fact::AWAY => drop(self.engine.put_pieces_away(now, idle)),
            _ => {
                let mut wanted = PieceSet::repeat(true, PIECES as usize);
                let step = usize::from(with).max(1);
                (0..PIECES as usize)
                    .step_by(step)
                    .for_each(|piece| wanted.set(piece, step == 1));
                let fetched = transfer(&self.engine, 0);
                self.engine.set_wanted(now, fetched, wanted);
            }
        }
    }

    fn connect(&mut self, at: usize) -> ConnId {
        self.conns += 1;
        let conn = ConnId(self.conns);
        self.slots[at] = Some(conn);
        // Peers come back under the same key, unless they were banned.
        let id = self.conns.to_le_bytes();
        self.engine
            .handle_connected(self.now, conn, PeerKey::of(&id), Duration::from_millis(20));
        self.engine.handle_reachable(self.now, conn, &id, vec![id.into()]);
        conn
    }

    fn say(&mut self, conn: Option<ConnId>, input: &mut Input<'_>) {
        let decoded = match split_frame(input.0) {
            Ok(Some(frame)) => {
                input.bytes(frame.consumed);
                Message::decode(frame.message)
            }
            Ok(None) => {
                input.0 = &[];
                return;
            }
            Err(e) => {
                input.byte();
                Err(e)
            }
        };
        match (decoded, conn) {
            (Ok(Some(message)), Some(conn)) => self.engine.handle_message(self.now, conn, message),
            (Err(e), conn) => self.violate(conn, Violation::Malformed(e)),
            _ => {}
        }
    }

    fn violate(&mut self, conn: Option<ConnId>, violation: Violation) {
        if let Some(conn) = conn {
            self.engine.handle_violation(self.now, conn, violation);
        }
    }

    fn header(&mut self, conn: ConnId, header: &BulkHeader) {
        if self.arriving.iter().any(|(of, ..)| *of == conn) {
            return;
        }
        match self.engine.handle_block_header(self.now, conn, header) {
            Ok(expected) => {
                assert_eq!(expected.len, header.len);
                self.arriving.push((conn, Some(expected), header.len));
            }
            Err(Unwanted::Late) => self.arriving.push((conn, None, header.len)),
            Err(Unwanted::Violation(_)) => {}
        }
    }

    fn progress(&mut self, conn: ConnId, bytes: u32) {
        let Some(at) = self.arriving.iter().position(|(of, ..)| *of == conn) else {
            return;
        };
        let (conn, expected, rest) = &mut self.arriving[at];
        let bytes = bytes.min(*rest);
        *rest -= bytes;
        let (conn, expected, rest) = (*conn, *expected, *rest);
        self.engine.handle_block_progress(self.now, conn, bytes);
        if rest == 0 {
            self.arriving.remove(at);
            self.whole.extend(expected);
        }
    }

    fn drain(&mut self) {
        let mut actions = 0_u32;
        while let Some(action) = self.engine.poll_action() {
            actions += 1;
            assert!(actions <= 4 * MAX_QUEUED_PIECES, "the engine does not come to rest");
            match action {
                Action::Send(conn, message) => {
                    assert!(self.slots.contains(&Some(conn)), "it speaks to nobody");
                    let mut frame = Vec::new();
                    message.encode(&mut frame);
                    let frame = split_frame(&frame).expect("within its bound").expect("whole");
                    assert_eq!(Message::decode(frame.message).as_ref(), Ok(&Some(message.clone())));
                    if let Message::Request { handle, runs } = message {
                        let pieces = runs.iter().flat_map(|run| run.pieces());
                        self.requested.extend(pieces.map(|piece| (conn, handle, piece)));
                    }
                }
                Action::Serve(job) => self.jobs.push(job),
                Action::Disconnect(conn, _) => self.gone(conn),
                Action::Pace { .. } | Action::Weigh { .. } | Action::Event(_) => {}
            }
        }
        let bound = SLOTS * (MAX_QUEUED_PIECES as usize + MAX_QUEUED_CIDS) * 2;
        assert!(self.jobs.len() <= bound && self.requested.len() <= SLOTS * MAX_HANDLES * PIECES as usize);
        for conn in self.engine.connections() {
            let stats = self.engine.conn_stats(conn).expect("connected");
            // Two contents are fetched.
            assert!(stats.in_flight <= u64::from(2 * PIECES * LEN), "{stats:?}");
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
        // Jobs of those who are gone are answered all the same.
    }

    /// Whatever was said before, an honest seed completes the content.
    fn complete(&mut self) {
        for at in 0..SLOTS {
            if let Some(conn) = self.slots[at] {
                self.engine.handle_disconnected(self.now, conn);
                self.gone(conn);
            }
        }
        for job in std::mem::take(&mut self.jobs) {
            self.engine.handle_served(self.now, &job, Err(ServeFailure::NotHere));
        }
        for block in std::mem::take(&mut self.whole) {
            self.engine.handle_verdict(self.now, &block, Verdict::Good);
        }
        self.engine.set_limits(self.now, None, None);
        self.fact(Fact::ANEW, 0);
        self.fact(Fact::WANTED, 1);
        self.drain();
        for transfer in self.engine.transfers() {
            self.engine.resume(self.now, transfer);
        }
        let conn = self.connect(0);
        let have = modswarm_protocol::wire::Have::All;
        for message in [
            hello(),
            Message::Unchoke,
            Message::Opened {
                handle: Handle(0),
                have,
            },
        ] {
            self.engine.handle_message(self.now, conn, message);
        }
        self.drain();
        let (cid, _) = content(0);
        let transfer = self.engine.transfer_of(&cid).expect("it was never removed");
        for _ in 0..PIECES * 4 {
            self.step(&mut Input(&[Step::ANSWER]));
            self.progress(conn, LEN);
            for block in std::mem::take(&mut self.whole) {
                self.engine.handle_verdict(self.now, &block, Verdict::Good);
            }
            self.step(&mut Input(&[Step::WAIT, 1, 0]));
            self.drain();
        }
        let stats = self.engine.transfer_stats(transfer).expect("there");
        assert_eq!(stats.pieces_here, PIECES, "{stats:?}");
    }
}
