//! The clock, the links, and what the node would do.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use super::outcome::{Outcome, PeerOutcome};
use super::peer::{Behaviour, End, Packet, Peer, PeerSpec, Sending};
use crate::engine::{
    Action, ConnId, ContentSpec, DisconnectReason, Engine, EngineConfig, Event, PeerKey, ServeFailure, ServeJob,
    TransferId, Unwanted, Verdict,
};
use crate::format::{Cid, Codec, HashKind, Leaf, PieceMap, SharedPieceMap};
use crate::time::Timestamp;
use crate::wire::{BulkHeader, Encoding, Message, split_frame};

/// A peer of a [`World`], by order of adding.
pub type PeerIndex = usize;

/// Bytes that a connection holds on the way at most, as a socket's buffers would.
const PIPE: u32 = 512 * 1024;
/// How long a block is hashed and handed to the store.
const VERIFY: Duration = Duration::from_millis(1);
/// Bytes of a node of a skeleton.
const NODE_LEN: u32 = 2000;

enum Happening {
    Control {
        to: usize,
        conn: ConnId,
        bytes: Vec<u8>,
    },
    UplinkFree {
        of: usize,
    },
    Landed {
        to: usize,
        conn: ConnId,
        packet: Packet,
    },
    TakenIn {
        to: usize,
        conn: ConnId,
        packet: Packet,
    },
    Room {
        of: usize,
        conn: ConnId,
        bytes: u32,
    },
    Verified {
        by: usize,
        block: crate::engine::Expected,
        corrupt: bool,
    },
    Closed {
        to: usize,
        conn: ConnId,
    },
    Timer {
        of: usize,
    },
    Leaves {
        peer: usize,
    },
    Dials {
        of: usize,
        to: usize,
    },
}

/// Many peers, links between them, and a virtual clock.
pub struct World {
    now: Timestamp,
    seed: u64,
    order: u64,
    queue: BinaryHeap<Reverse<(Timestamp, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    peers: Vec<Peer>,
    conns_made: u64,
    contents: BTreeMap<Cid, u32>,
    bans: Vec<(usize, usize, Event)>,
    violations: Vec<(usize, String)>,
    packet: u32,
    noted: bool,
    exchanging: bool,
}

impl World {
    /// An empty world; `seed` decides all that is left to chance.
    pub fn new(seed: u64) -> Self {
        Self {
            now: Timestamp::ZERO,
            seed,
            order: 0,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            peers: Vec::new(),
            conns_made: 0,
            contents: BTreeMap::new(),
            bans: Vec::new(),
            violations: Vec::new(),
            packet: 16 * 1024,
            noted: false,
            exchanging: false,
        }
    }

    /// From now on all can be reached where they are, tell each other of others, and connect to whom they hear of.
    pub fn exchange_peers(&mut self) {
        self.exchanging = true;
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Adds a peer whose clock starts now.
    pub fn add_peer(&mut self, spec: PeerSpec, config: EngineConfig) -> PeerIndex {
        let index = self.peers.len();
        let engine = Engine::new(
            config,
            self.seed ^ (index as u64 + 1).wrapping_mul(0x5851_f42d_4c95_7f2d),
        );
        self.peers.push(Peer::new(spec, engine, self.now));
        if let Behaviour::Leaver { at } = spec.behaviour {
            self.at(at, Happening::Leaves { peer: index });
        }
        index
    }

    /// Gives a peer a content to seed or fetch.
    pub fn add_content(&mut self, peer: PeerIndex, spec: ContentSpec) -> TransferId {
        if let Some(pieces) = &spec.pieces {
            self.contents
                .extend(pieces.map.iter().map(|(_, leaf)| (leaf.cid, leaf.len)));
        }
        let now = self.now;
        let id = self.peers[peer].engine.add_content(now, spec);
        self.drain(peer);
        id
    }

    /// Gives a peer nodes of skeletons to serve.
    pub fn add_nodes(&mut self, peer: PeerIndex, nodes: impl IntoIterator<Item = Cid>) {
        self.peers[peer].nodes.extend(nodes);
    }

    /// Tells a peer's engine something, and does what it says.
    pub fn tell<T>(&mut self, peer: PeerIndex, tell: impl FnOnce(&mut Engine, Timestamp) -> T) -> T {
        let now = self.now;
        let told = tell(&mut self.peers[peer].engine, now);
        self.drain(peer);
        told
    }

    /// A peer's engine.
    pub fn engine(&self, peer: PeerIndex) -> &Engine {
        &self.peers[peer].engine
    }

    /// The pieces that a peer has fetched, in order.
    pub fn pieces_done(&self, peer: PeerIndex) -> Vec<u32> {
        self.peers[peer].done_order.clone()
    }

    /// Connects two peers.
    pub fn connect(&mut self, a: PeerIndex, b: PeerIndex) -> ConnId {
        self.conns_made += 1;
        let conn = ConnId(self.conns_made);
        let rtt = self.delay(a, b) * 2;
        for (one, other) in [(a, b), (b, a)] {
            self.peers[one].ends.insert(
                conn,
                End {
                    other,
                    ..End::default()
                },
            );
            self.peers[one]
                .engine
                .handle_connected(self.now, conn, peer_key(other), rtt);
            if self.exchanging {
                let id = peer_id(other);
                let addrs = vec![id.into()];
                self.peers[one].engine.handle_reachable(self.now, conn, &id, addrs);
            }
        }
        self.drain(a);
        self.drain(b);
        conn
    }

    /// Connects every two peers.
    pub fn connect_all(&mut self) {
        for a in 0..self.peers.len() {
            for b in a + 1..self.peers.len() {
                self.connect(a, b);
            }
        }
    }

    /// Connects each peer with `degree` others or a few more, chosen by lot, so that all hang together.
    pub fn connect_randomly(&mut self, degree: usize) {
        let count = self.peers.len();
        let mut lots = crate::engine::Rng::new(self.seed ^ 0x746f_706f);
        // A ring through all in random order holds them together; the rest is chosen by lot.
        let mut ring: Vec<PeerIndex> = (0..count).collect();
        for i in (1..count).rev() {
            ring.swap(i, lots.below(i + 1));
        }
        let mut linked: Vec<BTreeSet<PeerIndex>> = vec![BTreeSet::new(); count];
        let mut pairs = Vec::new();
        let mut link = |a: usize, b: usize, linked: &mut Vec<BTreeSet<PeerIndex>>| {
            if a != b && linked[a].insert(b) {
                linked[b].insert(a);
                pairs.push((a, b));
            }
        };
        for i in 0..count {
            link(ring[i], ring[(i + 1) % count], &mut linked);
        }
        for a in 0..count {
            for _ in 0..degree * 20 {
                if linked[a].len() >= degree {
                    break;
                }
                let b = lots.below(count);
                if linked[b].len() < degree {
                    link(a, b, &mut linked);
                }
            }
        }
        for (a, b) in pairs {
            self.connect(a, b);
        }
    }

    /// A peer goes away: its connections end, and it does nothing more.
    pub fn leave(&mut self, peer: PeerIndex) {
        self.peers[peer].gone = true;
        for conn in self.peers[peer].ends.keys().copied().collect::<Vec<_>>() {
            self.close(peer, conn);
        }
    }

    /// Runs until `done` or until `limit` has passed; whether `done`.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + limit;
        self.noted = true;
        loop {
            // What `done` looks at changes only with an event of some engine.
            if std::mem::take(&mut self.noted) && done(self) {
                return true;
            }
            let Some(Reverse((at, order))) = self.queue.pop() else {
                return done(self);
            };
            let Some(happening) = self.happenings.remove(&order) else {
                continue;
            };
            if at > end {
                self.queue.push(Reverse((at, order)));
                self.happenings.insert(order, happening);
                self.now = end;
                return done(self);
            }
            self.now = at;
            self.happen(happening);
        }
    }

    /// Runs until all of `peers` have everything or `limit` has passed.
    pub fn run_until_complete(&mut self, limit: Duration, peers: std::ops::Range<PeerIndex>) -> bool {
        self.run_until(limit, |world| {
            world.peers[peers.clone()]
                .iter()
                .all(|peer| peer.completed_at.is_some() || peer.gone)
        })
    }

    /// What it has come to so far.
    pub fn outcome(&self) -> Outcome {
        let peer = |peer: &Peer| PeerOutcome {
            took: peer.completed_at.map(|at| at.since(peer.started_at)),
            transfers: peer
                .engine
                .transfers()
                .iter()
                .filter_map(|id| peer.engine.transfer_stats(*id))
                .collect(),
            control_bytes: peer.control_bytes,
            control_messages: peer.control_messages,
        };
        Outcome {
            peers: self.peers.iter().map(peer).collect(),
            bans: self.bans.clone(),
            violations: self.violations.clone(),
        }
    }

    fn at(&mut self, at: Timestamp, happening: Happening) {
        self.order += 1;
        self.queue.push(Reverse((at.max(self.now), self.order)));
        self.happenings.insert(self.order, happening);
    }

    fn delay(&self, a: usize, b: usize) -> Duration {
        self.peers[a].spec.delay + self.peers[b].spec.delay
    }

    fn happen(&mut self, happening: Happening) {
        let now = self.now;
        match happening {
            Happening::Control { to, conn, bytes } => {
                if self.peers[to].gone || !self.peers[to].ends.contains_key(&conn) {
                    return;
                }
                let frame = split_frame(&bytes)
                    .expect("our own frames keep the bounds")
                    .expect("frames come whole");
                let message = Message::decode(frame.message)
                    .expect("our own messages decode")
                    .expect("known type");
                self.peers[to].engine.handle_message(now, conn, message);
                self.drain(to);
            }
            Happening::UplinkFree { of } => {
                self.peers[of].sending = false;
                self.send_next(of);
            }
            Happening::Landed { to, conn, packet } => {
                let peer = &mut self.peers[to];
                let took = Duration::from_micros(u64::from(packet.bytes) * 1_000_000 / peer.spec.down);
                let at = peer.down_free_at.max(now) + took;
                peer.down_free_at = at;
                self.at(at, Happening::TakenIn { to, conn, packet });
            }
            Happening::TakenIn { to, conn, packet } => self.take_in(to, conn, packet),
            Happening::Room { of, conn, bytes } => {
                if let Some(end) = self.peers[of].ends.get_mut(&conn) {
                    let was_full = end.on_the_way >= PIPE;
                    end.on_the_way -= bytes;
                    if was_full && end.on_the_way < PIPE && !end.queue.is_empty() {
                        self.peers[of].turns.push_back(conn);
                    }
                    self.send_next(of);
                }
            }
            Happening::Verified { by, block, corrupt } => {
                if self.peers[by].gone {
                    return;
                }
                let verdict = if corrupt { Verdict::Corrupt } else { Verdict::Good };
                self.peers[by].engine.handle_verdict(now, &block, verdict);
                self.drain(by);
            }
            Happening::Closed { to, conn } => {
                if self.peers[to].ends.remove(&conn).is_some() && !self.peers[to].gone {
                    self.peers[to].engine.handle_disconnected(now, conn);
                    self.drain(to);
                }
            }
            Happening::Timer { of } => {
                if self.peers[of].timer_at == Some(now) && !self.peers[of].gone {
                    self.peers[of].timer_at = None;
                    self.peers[of].engine.handle_timeout(now);
                    self.drain(of);
                }
            }
            Happening::Leaves { peer } => self.leave(peer),
            Happening::Dials { of, to } => {
                let known = self.peers[of].ends.values().any(|end| end.other == to);
                if !known && !self.peers[of].gone && !self.peers[to].gone {
                    self.connect(of, to);
                }
            }
        }
    }

    fn take_in(&mut self, to: usize, conn: ConnId, packet: Packet) {
        let now = self.now;
        let Some(end) = self.peers[to].ends.get_mut(&conn) else {
            return;
        };
        let other = end.other;
        if self.peers[to].gone {
            return;
        }
        let delay = self.delay(to, other);
        self.at(
            now + delay,
            Happening::Room {
                of: other,
                conn,
                bytes: packet.bytes,
            },
        );
        let peer = &mut self.peers[to];
        if let Some(header) = &packet.header {
            let mut bytes = Vec::new();
            header.encode(&mut bytes);
            assert_eq!(BulkHeader::decode(&bytes), Ok(Some((*header, bytes.len()))));
            let judged = peer.engine.handle_block_header(now, conn, header);
            if let Some(end) = peer.ends.get_mut(&conn) {
                end.arriving = match judged {
                    Ok(expected) => Some((expected, expected.len, packet.corrupt)),
                    Err(Unwanted::Late | Unwanted::Violation(_)) => None,
                };
            }
        }
        peer.engine.handle_block_progress(now, conn, packet.bytes);
        if let Some(end) = peer.ends.get_mut(&conn)
            && let Some((block, rest, corrupt)) = &mut end.arriving
        {
            *rest -= packet.bytes;
            if *rest == 0 {
                let (block, corrupt) = (*block, *corrupt);
                end.arriving = None;
                self.at(now + VERIFY, Happening::Verified { by: to, block, corrupt });
            }
        }
        self.drain(to);
    }

    /// Does what a peer's engine says.
    fn drain(&mut self, of: usize) {
        let now = self.now;
        let free_rider = self.peers[of].spec.behaviour == Behaviour::FreeRider;
        while let Some(action) = self.peers[of].engine.poll_action() {
            if self.peers[of].gone {
                continue;
            }
            match action {
                // It says that it has nothing to give, and gives nothing.
                Action::Send(_, Message::Unchoke | Message::Have { .. }) if free_rider => {}
                Action::Send(conn, message) => {
                    let Some(end) = self.peers[of].ends.get(&conn) else {
                        continue;
                    };
                    let to = end.other;
                    let mut bytes = Vec::new();
                    message.encode(&mut bytes);
                    self.peers[of].control_bytes += bytes.len() as u64;
                    self.peers[of].control_messages += 1;
                    let delay = self.delay(of, to);
                    self.at(now + delay, Happening::Control { to, conn, bytes });
                }
                Action::Serve(job) => self.serve(of, job),
                Action::Disconnect(conn, reason) => {
                    if let DisconnectReason::Violation(violation) = reason {
                        self.violations.push((of, violation.to_string()));
                    }
                    self.close(of, conn);
                }
                Action::Event(event) => self.note(of, event),
            }
        }
        let due = self.peers[of].engine.poll_timeout();
        let peer = &mut self.peers[of];
        if let Some(due) = due.map(|due| due.max(now + Duration::from_micros(1)))
            && peer.timer_at.is_none_or(|at| due < at)
        {
            peer.timer_at = Some(due);
            self.at(due, Happening::Timer { of });
        }
    }

    fn note(&mut self, of: usize, event: Event) {
        self.noted = true;
        let now = self.now;
        match &event {
            Event::PieceDone { transfer, piece, .. } => {
                let new = self.peers[of].done.insert((*transfer, piece.get()));
                assert!(new, "piece {piece:?} of peer {of} was done twice");
                self.peers[of].done_order.push(piece.get());
            }
            Event::PeersHeard { peers, .. } if self.exchanging => {
                let heard = peers.iter().filter_map(|peer| index_of(&peer.id));
                for to in heard
                    .filter(|to| *to != of && *to < self.peers.len())
                    .collect::<Vec<_>>()
                {
                    let round_trip = self.delay(of, to) * 2;
                    self.at(now + round_trip, Happening::Dials { of, to });
                }
            }
            Event::Complete(_) => self.peers[of].completed_at = Some(now),
            Event::Banned { conn, .. } => {
                let banned = self.peers[of].ends.get(conn).map_or(usize::MAX, |end| end.other);
                self.bans.push((of, banned, event));
            }
            _ => {}
        }
    }

    fn serve(&mut self, of: usize, job: ServeJob) {
        let now = self.now;
        let peer = &mut self.peers[of];
        let Some(end) = peer.ends.get_mut(&job.conn) else {
            return;
        };
        let known = self.contents.get(&job.cid).copied().filter(|_| job.piece.is_some());
        let len = known.or_else(|| {
            peer.nodes
                .contains(&job.cid)
                .then(|| self.contents.get(&job.cid).copied().unwrap_or(NODE_LEN))
        });
        let Some(len) = len else {
            peer.engine.handle_served(now, &job, Err(ServeFailure::NotHere));
            return;
        };
        peer.served_blocks += 1;
        let corrupt = match peer.spec.behaviour {
            Behaviour::Staller { after } if peer.served_blocks > after => return,
            Behaviour::FreeRider => return,
            Behaviour::Liar { every } => peer.served_blocks.is_multiple_of(every),
            _ => false,
        };
        end.queue.push_back(Sending {
            job,
            len,
            sent: 0,
            corrupt,
        });
        if end.queue.len() == 1 && end.on_the_way < PIPE {
            peer.turns.push_back(job.conn);
        }
        self.send_next(of);
    }

    /// Puts the next packet on a peer's uplink, if that is free.
    fn send_next(&mut self, of: usize) {
        let now = self.now;
        let size = self.packet;
        let peer = &mut self.peers[of];
        if peer.sending || peer.gone {
            return;
        }
        let (conn, end, sending) = loop {
            let Some(conn) = peer.turns.pop_front() else { return };
            let Some(end) = peer.ends.get_mut(&conn) else { continue };
            let Some(sending) = end.queue.pop_front() else { continue };
            break (conn, end, sending);
        };
        let mut sending = sending;
        let bytes = size.min(sending.len - sending.sent);
        let header = (sending.sent == 0).then_some(BulkHeader {
            handle: sending.job.handle,
            what: sending.job.what,
            encoding: Encoding::Plain,
            len: sending.len,
        });
        sending.sent += bytes;
        end.on_the_way += bytes;
        let to = end.other;
        let packet = Packet {
            header,
            bytes,
            corrupt: sending.corrupt,
        };
        let whole = sending.sent == sending.len;
        let job = sending.job;
        if !whole {
            end.queue.push_front(sending);
        }
        if !end.queue.is_empty() && end.on_the_way < PIPE {
            peer.turns.push_back(conn);
        }
        peer.sending = true;
        let took = Duration::from_micros(u64::from(bytes) * 1_000_000 / peer_rate(peer));
        let delay = self.delay(of, to);
        self.at(now + took, Happening::UplinkFree { of });
        self.at(now + took + delay, Happening::Landed { to, conn, packet });
        if whole {
            // The node's write returns once the block is with the socket.
            self.peers[of]
                .engine
                .handle_served(now, &job, Ok(job.len.unwrap_or(NODE_LEN)));
            self.drain(of);
        }
    }

    fn close(&mut self, peer: usize, conn: ConnId) {
        let Some(end) = self.peers[peer].ends.remove(&conn) else {
            return;
        };
        let delay = self.delay(peer, end.other);
        let now = self.now;
        self.at(now + delay, Happening::Closed { to: end.other, conn });
    }
}

fn peer_rate(peer: &Peer) -> u64 {
    peer.up_rate().max(1)
}

/// The key of a simulated peer.
fn peer_key(peer: usize) -> PeerKey {
    PeerKey::of(&peer_id(peer))
}

fn peer_id(peer: usize) -> [u8; size_of::<usize>()] {
    peer.to_le_bytes()
}

fn index_of(peer_id: &[u8]) -> Option<usize> {
    peer_id.try_into().ok().map(usize::from_le_bytes)
}

/// A content of `pieces` leaves of `len` bytes, none of which exists: its CID and its piece map.
pub fn fake_content(name: u64, pieces: u32, len: u32) -> (Cid, SharedPieceMap) {
    let cid = |codec, i: u64| Cid::of(codec, HashKind::Blake3, &[name.to_le_bytes(), i.to_le_bytes()].concat());
    let leaves = (0..pieces)
        .map(|i| Leaf {
            cid: cid(Codec::Raw, u64::from(i)),
            len,
        })
        .collect();
    (cid(Codec::DagPb, u64::MAX), Arc::new(PieceMap::new(leaves)))
}
