//! The clock, and who lives by it.
//!
//! Nodes hear of each other only after the least delay between any two. So time passes in windows that are no longer than that: within one, each node goes on
//! by itself, and at its end all get what the others have sent. What a window comes to does not depend on which node goes first, or on how many threads there
//! are: nodes lie in a fixed number of parts, and whoever brings threads (see [`World::set_workers`]) runs the parts on them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::agenda::Happening;
use super::common::{Common, Mailbag, Outbox, Partition, SILENCE};
use super::node::{self, Node};
use super::outcome::{Outcome, PeerOutcome};
use super::spec::PeerSpec;
use crate::engine::{ConnId, ContentSpec, Engine, EngineConfig, TransferId};
use crate::format::Cid;
use crate::time::Timestamp;

/// A peer of a [`World`], by order of adding.
pub type PeerIndex = usize;

/// Parts of a world, which may be run at the same time.
const PARTS: usize = 16;
/// Bytes of a packet, if nothing else is said.
const PACKET: u32 = 16 * 1024;
const NEVER: Timestamp = Timestamp::from_micros(u64::MAX);

/// Every so manieth node, and what others have sent to them.
struct Part {
    nodes: Vec<Node>,
    /// By part that it comes from.
    inbox: Vec<Mailbag>,
    outbox: Outbox,
    /// When the next thing happens to one of the nodes, mail aside.
    next_at: Timestamp,
    noted: bool,
}

impl Part {
    fn new() -> Self {
        Self {
            nodes: Vec::new(),
            inbox: (0..PARTS).map(|_| Mailbag::default()).collect(),
            outbox: Outbox::new(PARTS),
            next_at: NEVER,
            noted: false,
        }
    }

    fn run(&mut self, common: &Common, until: Timestamp) {
        for bag in &mut self.inbox {
            for mail in bag.mails.drain(..) {
                self.nodes[mail.to / PARTS].agenda.push(mail.moment, mail.happening);
            }
            bag.first_at = NEVER;
        }
        self.next_at = NEVER;
        for node in &mut self.nodes {
            node.run(until, common, &mut self.outbox);
            self.next_at = self.next_at.min(node.agenda.next_at());
            self.noted |= std::mem::take(&mut node.record.noted);
        }
    }
}

/// What one part of a world does in one window of time.
pub struct Job<'a> {
    part: &'a mut Part,
    common: &'a Common,
    until: Timestamp,
}

impl Job<'_> {
    /// Does it.
    pub fn run(self) {
        self.part.run(self.common, self.until);
    }
}

/// Runs jobs, all of them, in any order and on any threads.
pub type Workers = Box<dyn Fn(Vec<Job<'_>>)>;

/// Many peers, links between them, and a virtual clock.
pub struct World {
    now: Timestamp,
    seed: u64,
    common: Common,
    parts: Vec<Part>,
    peers: usize,
    conns_made: u64,
    workers: Workers,
}

impl World {
    /// An empty world; `seed` decides all that is left to chance.
    pub fn new(seed: u64) -> Self {
        Self {
            now: Timestamp::ZERO,
            seed,
            common: Common {
                specs: Vec::new(),
                contents: BTreeMap::new(),
                partitions: Vec::new(),
                packet: PACKET,
                coded: true,
                exchanging: false,
            },
            parts: (0..PARTS).map(|_| Part::new()).collect(),
            peers: 0,
            conns_made: 0,
            workers: Box::new(|jobs| jobs.into_iter().for_each(Job::run)),
        }
    }

    /// From now on all can be reached where they are, tell each other of others, and connect to whom they hear of.
    pub fn exchange_peers(&mut self) {
        self.common.exchanging = true;
    }

    /// Lets `workers` run the parts of the world from now on. The outcome is the same.
    pub fn set_workers(&mut self, workers: Workers) {
        self.workers = workers;
    }

    /// Makes large worlds cheaper: packets of so many bytes instead of 16 KiB, and messages that are measured but handed over as they are, instead of passing the
    /// codec. With larger packets, more goes out in one turn.
    pub fn coarsen(&mut self, packet: u32) {
        self.common.packet = packet.max(1);
        self.common.coded = false;
    }

    /// Parts `one_side` from all others for some time. To be called before that begins.
    ///
    /// What is sent across meanwhile comes when it is over. If it lasts for longer than connections bear silence, they end, and both sides go on dialling.
    pub fn part(&mut self, from: Timestamp, until: Timestamp, one_side: impl IntoIterator<Item = PeerIndex>) {
        let mut side = vec![false; self.peers];
        one_side.into_iter().for_each(|peer| side[peer] = true);
        let partition = self.common.partitions.len();
        self.common.partitions.push(Partition { from, until, side });
        if until.since(from) > SILENCE {
            for peer in 0..self.peers {
                let cut = Happening::Cut { partition };
                self.with(peer, |node, world| node.later(world, from + SILENCE, cut));
            }
        }
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// How many peers there are, those that have left too.
    pub fn peers(&self) -> usize {
        self.peers
    }

    /// Adds a peer whose clock starts now.
    pub fn add_peer(&mut self, spec: PeerSpec, config: EngineConfig) -> PeerIndex {
        let index = self.peers;
        self.peers += 1;
        self.common.specs.push(spec);
        let node = Node::new(index, spec, config, self.seed, self.now);
        self.parts[index % PARTS].nodes.push(node);
        self.with(index, Node::begin);
        index
    }

    /// Gives a peer a content to seed or fetch.
    pub fn add_content(&mut self, peer: PeerIndex, spec: ContentSpec) -> TransferId {
        if let Some(pieces) = &spec.pieces {
            // Told of the same map by every peer, it looks at it once.
            let known = |i| pieces.map.index(i).map(|i| pieces.map.leaf(i).cid);
            let ends = [known(0), known(pieces.map.len().saturating_sub(1))];
            if !ends.iter().flatten().all(|cid| self.common.contents.contains_key(cid)) {
                let leaves = pieces.map.iter().map(|(_, leaf)| (leaf.cid, leaf.len));
                self.common.contents.extend(leaves);
            }
        }
        self.with(peer, |node, world| node.add_content(world, spec))
    }

    /// Gives a peer nodes of skeletons to serve.
    pub fn add_nodes(&mut self, peer: PeerIndex, nodes: impl IntoIterator<Item = Cid>) {
        self.with(peer, |node, _| node.nodes.extend(nodes));
    }

    /// Tells a peer's engine something, and does what it says.
    pub fn tell<T>(&mut self, peer: PeerIndex, tell: impl FnOnce(&mut Engine, Timestamp) -> T) -> T {
        self.with(peer, |node, world| {
            let told = tell(&mut node.engine, world.now);
            node.drain(world);
            told
        })
    }

    /// A peer's engine.
    pub fn engine(&self, peer: PeerIndex) -> &Engine {
        &self.node(peer).engine
    }

    /// The pieces that a peer has fetched, in order.
    pub fn pieces_done(&self, peer: PeerIndex) -> &[u32] {
        &self.node(peer).record.done_order
    }

    /// Connects two peers.
    pub fn connect(&mut self, a: PeerIndex, b: PeerIndex) -> ConnId {
        self.conns_made += 1;
        let conn = ConnId(self.conns_made);
        for (one, other) in [(a, b), (b, a)] {
            self.with(one, |node, world| node.add_end(world, other, conn, 0));
        }
        conn
    }

    /// A peer goes away: its connections end, and it does nothing more.
    pub fn leave(&mut self, peer: PeerIndex) {
        self.with(peer, Node::leave);
    }

    /// Runs until `done` or until `limit` has passed; whether `done`, which is looked at each time that as much time as two peers are apart has passed.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + limit;
        let window = self.common.least_delay();
        let mut noted = true;
        loop {
            // What `done` looks at changes only with an event of some engine.
            if noted && done(self) {
                return true;
            }
            let next = self.next_at();
            if next == NEVER {
                return done(self);
            }
            if next > end {
                self.now = end;
                return done(self);
            }
            let until = (next + window).min(end + Duration::from_micros(1));
            noted = self.run_window(until);
            self.now = until.min(end);
        }
    }

    fn run_window(&mut self, until: Timestamp) -> bool {
        let common = &self.common;
        let jobs = self.parts.iter_mut().map(|part| Job { part, common, until });
        (self.workers)(jobs.collect());
        (0..PARTS).for_each(|part| self.hand_over(part));
        let noted = self.parts.iter_mut().map(|part| std::mem::take(&mut part.noted));
        noted.fold(false, |any, noted| any | noted)
    }

    /// When the next thing happens.
    fn next_at(&self) -> Timestamp {
        let of_part = |part: &Part| {
            let mail = part.inbox.iter().map(|bag| bag.first_at);
            mail.fold(part.next_at, Ord::min)
        };
        self.parts.iter().map(of_part).min().unwrap_or(NEVER)
    }

    /// What a part has sent goes to whom it is for.
    fn hand_over(&mut self, from: usize) {
        for to in 0..PARTS {
            let bag = &mut self.parts[from].outbox.bags[to];
            if bag.mails.is_empty() {
                continue;
            }
            let mut bag = std::mem::take(bag);
            let kept = &mut self.parts[to].inbox[from];
            if kept.mails.is_empty() {
                // An emptied bag is filled again.
                std::mem::swap(kept, &mut bag);
                self.parts[from].outbox.bags[to] = bag;
            } else {
                kept.first_at = kept.first_at.min(bag.first_at);
                kept.mails.append(&mut bag.mails);
            }
        }
    }

    /// Runs until all of `peers` have everything or `limit` has passed.
    pub fn run_until_complete(&mut self, limit: Duration, peers: Range<PeerIndex>) -> bool {
        self.run_until(limit, |world| {
            peers.clone().all(|peer| {
                let node = world.node(peer);
                node.record.completed_at.is_some() || node.is_gone()
            })
        })
    }

    /// What it has come to so far.
    pub fn outcome(&self) -> Outcome {
        let of_peer = |node: &Node| PeerOutcome {
            took: node.record.completed_at.map(|at| at.since(node.record.started_at)),
            transfers: node
                .engine
                .transfers()
                .iter()
                .filter_map(|id| node.engine.transfer_stats(*id))
                .collect(),
            control_bytes: node.record.control_bytes,
            control_messages: node.record.control_messages,
        };
        let nodes = || (0..self.peers).map(|peer| self.node(peer));
        let bans = nodes().flat_map(|node| {
            node.record
                .bans
                .iter()
                .map(|ban| (ban.0, (node.index, ban.1, ban.2.clone())))
        });
        let violations = nodes().flat_map(|node| {
            let violations = node.record.violations.iter();
            violations.map(|violation| (violation.0, (node.index, violation.1.clone())))
        });
        Outcome {
            peers: nodes().map(of_peer).collect(),
            bans: in_order(bans.collect()),
            violations: in_order(violations.collect()),
        }
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    fn node(&self, peer: PeerIndex) -> &Node {
        &self.parts[peer % PARTS].nodes[peer / PARTS]
    }

    /// Does something with a node, now.
    fn with<T>(&mut self, peer: PeerIndex, act: impl FnOnce(&mut Node, &mut node::World<'_>) -> T) -> T {
        let part = &mut self.parts[peer % PARTS];
        let node = &mut part.nodes[peer / PARTS];
        let mut world = node::World {
            common: &self.common,
            out: &mut part.outbox,
            now: self.now,
        };
        let acted = act(node, &mut world);
        part.next_at = part.next_at.min(node.agenda.next_at());
        self.hand_over(peer % PARTS);
        acted
    }
}

fn in_order<T>(mut of: Vec<(Timestamp, T)>) -> Vec<T> {
    of.sort_by_key(|(at, _)| *at);
    of.into_iter().map(|(_, of)| of).collect()
}
