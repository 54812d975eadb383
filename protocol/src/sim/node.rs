//! One simulated node: an engine, and what a program does around it. Its links are in [`super::links`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::agenda::{Agenda, Happening, Moment};
use super::common::{Common, Mail, Outbox, SILENCE};
use super::links::End;
use super::manners;
use super::spec::{Behaviour, PeerSpec};
use crate::engine::{
    Action, ConnId, ContentSpec, DisconnectReason, Engine, EngineConfig, Event, PeerKey, Rng, ServeFailure, ServeJob,
    TransferId, Verdict,
};
use crate::format::{Cid, PieceSet};
use crate::time::Timestamp;

/// Bytes of a node of a skeleton.
pub(super) const NODE_LEN: u32 = 2000;
/// Numbers of connections that nodes make themselves have this bit.
const DIALLED: u64 = 1 << 63;
/// Who does not answer, and who was lost, is dialled again after this.
const REDIAL: Duration = Duration::from_secs(5);
/// How often who was lost is dialled.
const REDIALS: u32 = 12;

/// Where a node's doings go.
pub(super) struct World<'a> {
    pub(super) common: &'a Common,
    pub(super) out: &'a mut Outbox,
    pub(super) now: Timestamp,
}

/// What a node has come to.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) started_at: Timestamp,
    pub(super) completed_at: Option<Timestamp>,
    /// Pieces by transfer, and all of them in order.
    pub(super) done: BTreeMap<TransferId, PieceSet>,
    pub(super) done_order: Vec<u32>,
    pub(super) control_bytes: u64,
    pub(super) control_messages: u64,
    pub(super) bans: Vec<(Timestamp, usize, Event)>,
    pub(super) violations: Vec<(Timestamp, String)>,
    /// Something has happened that whoever runs the world may wait for.
    pub(super) noted: bool,
}

/// One node.
pub(super) struct Node {
    pub(super) index: usize,
    pub(super) spec: PeerSpec,
    pub(super) engine: Engine,
    pub(super) record: Record,
    pub(super) agenda: Agenda,
    pub(super) ends: BTreeMap<ConnId, End>,
    /// Connections with something to send, in turn.
    pub(super) turns: VecDeque<ConnId>,
    pub(super) sending: bool,
    /// When the uplink and the downlink will have passed what they hold.
    pub(super) up_free_at: Timestamp,
    pub(super) down_free_at: Timestamp,
    pub(super) served_blocks: u32,
    /// Things that it has flooded others with.
    pub(super) floods: u32,
    /// Nodes of skeletons that it can serve.
    pub(super) nodes: BTreeSet<Cid>,
    /// Gone for good, or crashed.
    pub(super) away: bool,
    pub(super) lots: Rng,
    pub(super) scratch: Vec<u8>,
    /// How often it has begun anew.
    life: u32,
    seed: u64,
    config: EngineConfig,
    contents: Vec<ContentSpec>,
    timer_at: Option<Timestamp>,
    /// Things that it has thought of, ever.
    thoughts: u64,
    dials: u64,
    dialling: BTreeMap<usize, Timestamp>,
    /// Whom it was connected to when it crashed.
    knew: Vec<usize>,
}

impl Node {
    pub(super) fn new(index: usize, spec: PeerSpec, config: EngineConfig, seed: u64, now: Timestamp) -> Self {
        let seed = seed ^ (index as u64 + 1).wrapping_mul(0x5851_f42d_4c95_7f2d);
        Self {
            index,
            spec,
            engine: Engine::new(config.clone(), seed),
            record: Record {
                started_at: now,
                ..Record::default()
            },
            agenda: Agenda::default(),
            ends: BTreeMap::new(),
            turns: VecDeque::new(),
            sending: false,
            up_free_at: Timestamp::ZERO,
            down_free_at: Timestamp::ZERO,
            served_blocks: 0,
            floods: 0,
            nodes: BTreeSet::new(),
            away: false,
            lots: Rng::new(seed ^ 0x6c6f_7473),
            scratch: Vec::new(),
            life: 0,
            seed,
            config,
            contents: Vec::new(),
            timer_at: None,
            thoughts: 0,
            dials: 0,
            dialling: BTreeMap::new(),
            knew: Vec::new(),
        }
    }

    /// Does all that happens before `until`.
    pub(super) fn run(&mut self, until: Timestamp, common: &Common, out: &mut Outbox) {
        while let Some((now, happening)) = self.agenda.pop_before(until) {
            self.happen(&mut World { common, out, now }, happening);
        }
    }

    /// Its behaviour begins.
    pub(super) fn begin(&mut self, world: &mut World<'_>) {
        match self.spec.behaviour {
            Behaviour::Leaver { at } => self.later(world, at, Happening::Leaves),
            Behaviour::Crasher { at, .. } => self.later(world, at, Happening::Crashes),
            Behaviour::Flooder => self.later(world, world.now + manners::CALM, Happening::Floods),
            _ => {}
        }
    }

    pub(super) fn add_content(&mut self, world: &mut World<'_>, spec: ContentSpec) -> TransferId {
        self.contents.push(spec.clone());
        let id = self.engine.add_content(world.now, spec);
        self.drain(world);
        id
    }

    /// Something happens here.
    pub(super) fn later(&mut self, world: &World<'_>, at: Timestamp, happening: Happening) {
        let moment = self.moment(at.max(world.now), self.index);
        self.agenda.push(moment, happening);
    }

    /// Something happens at another node, `after` as long as the way there takes.
    pub(super) fn post(&mut self, world: &mut World<'_>, to: usize, after: Duration, happening: Happening) {
        let sets_out = world.common.sets_out(world.now, self.index, to);
        let moment = self.moment(sets_out + after, to);
        world.out.post(Mail { to, moment, happening });
    }

    fn moment(&mut self, at: Timestamp, to: usize) -> Moment {
        self.thoughts += 1;
        Moment::new(at, self.index, to, self.thoughts)
    }

    fn happen(&mut self, world: &mut World<'_>, happening: Happening) {
        let now = world.now;
        if self.away {
            if let Happening::Returns = happening {
                self.begin_anew(world);
            }
            return;
        }
        match happening {
            Happening::Said { conn, message } => {
                if self.ends.contains_key(&conn) && manners::hears(self.spec.behaviour, &message) {
                    self.engine.handle_message(now, conn, message);
                    self.drain(world);
                }
            }
            Happening::UplinkFree => {
                self.sending = false;
                self.send_next(world);
            }
            Happening::Landed { conn, packet } => self.land(world, conn, packet),
            Happening::Came { conn, packet } => self.take_in(world, conn, packet),
            Happening::Room { conn, bytes } => self.on_room(world, conn, bytes),
            Happening::Dropped { conn, packet } => self.on_dropped(world, conn, packet),
            Happening::Verified { block, corrupt } => {
                let verdict = if corrupt { Verdict::Corrupt } else { Verdict::Good };
                self.engine.handle_verdict(now, &block, verdict);
                self.drain(world);
            }
            Happening::Closed { conn, silent } => {
                let Some(end) = self.ends.remove(&conn) else { return };
                self.engine.handle_disconnected(now, conn);
                self.drain(world);
                if silent {
                    self.dial(world, end.other, REDIALS);
                }
            }
            Happening::Timer => {
                if self.timer_at == Some(now) {
                    self.timer_at = None;
                    self.engine.handle_timeout(now);
                    self.drain(world);
                }
            }
            Happening::Dials { to, tries } => self.dial(world, to, tries),
            Happening::Dialled { by, conn, life } => self.on_dialled(world, by, conn, life),
            Happening::Answered { by, conn, life } => {
                self.dialling.remove(&by);
                if !self.ends.values().any(|end| end.other == by) {
                    self.add_end(world, by, conn, life);
                }
            }
            Happening::Cut { partition } => self.cut(world, partition),
            Happening::Leaves => self.leave(world),
            Happening::Crashes => self.crash(world),
            Happening::Returns => {}
            Happening::Floods => {
                self.flood(world);
                self.later(world, now + manners::FLOOD_EVERY, Happening::Floods);
            }
        }
    }

    /// A connection with another node is there.
    pub(super) fn add_end(&mut self, world: &mut World<'_>, other: usize, conn: ConnId, life: u32) {
        let delay = world.common.delay(self.index, other);
        let congestible = self.spec.line.is_congestible() || world.common.specs[other].line.is_congestible();
        self.ends
            .insert(conn, End::new(other, delay, life, congestible, world.common.packet));
        self.engine
            .handle_connected(world.now, conn, peer_key(other), delay * 2);
        if world.common.exchanging {
            let id = peer_id(other);
            self.engine.handle_reachable(world.now, conn, &id, vec![id.into()]);
        }
        self.drain(world);
    }

    fn dial(&mut self, world: &mut World<'_>, to: usize, tries: u32) {
        let now = world.now;
        let waits = self.dialling.get(&to).is_some_and(|until| now < *until);
        if tries == 0 || waits || to == self.index || self.ends.values().any(|end| end.other == to) {
            return;
        }
        self.dialling.insert(to, now + REDIAL);
        self.dials += 1;
        let conn = ConnId(DIALLED | (self.index as u64) << 32 | self.dials);
        self.later(world, now + REDIAL, Happening::Dials { to, tries: tries - 1 });
        if world.common.sets_out(now, self.index, to) == now {
            let (by, life) = (self.index, self.life);
            let way = world.common.delay(by, to);
            self.post(world, to, way, Happening::Dialled { by, conn, life });
        }
    }

    fn on_dialled(&mut self, world: &mut World<'_>, by: usize, conn: ConnId, life: u32) {
        // Two that dial each other at once: the dial of the one with the lesser index counts.
        if self.index < by && self.dialling.contains_key(&by) {
            return;
        }
        let known = self.ends.iter().find(|(_, end)| end.other == by);
        if let Some((old, end)) = known.map(|(old, end)| (*old, end)) {
            if end.life == life {
                return;
            }
            // It has begun anew, and we had not found out.
            self.ends.remove(&old);
            self.engine.handle_disconnected(world.now, old);
            self.drain(world);
        }
        let answer = Happening::Answered {
            by: self.index,
            conn,
            life: self.life,
        };
        let way = world.common.delay(self.index, by);
        self.post(world, by, way, answer);
        self.add_end(world, by, conn, life);
    }

    /// Connections across a partition have been silent for too long.
    fn cut(&mut self, world: &mut World<'_>, partition: usize) {
        let partition = &world.common.partitions[partition];
        let across = self
            .ends
            .iter()
            .filter(|(_, end)| partition.is_between(self.index, end.other));
        for conn in across.map(|(conn, _)| *conn).collect::<Vec<_>>() {
            self.later(world, world.now, Happening::Closed { conn, silent: true });
        }
    }

    /// Whether it will do nothing more.
    pub(super) fn is_gone(&self) -> bool {
        let returns = matches!(
            self.spec.behaviour,
            Behaviour::Crasher {
                back_after: Some(_),
                ..
            }
        );
        self.away && !returns
    }

    /// It goes away and says so.
    pub(super) fn leave(&mut self, world: &mut World<'_>) {
        self.away = true;
        for conn in self.ends.keys().copied().collect::<Vec<_>>() {
            self.close(world, conn);
        }
    }

    /// It is gone without a word.
    fn crash(&mut self, world: &mut World<'_>) {
        self.away = true;
        self.agenda.clear();
        for (conn, end) in std::mem::take(&mut self.ends) {
            self.post(
                world,
                end.other,
                SILENCE.max(end.delay),
                Happening::Closed { conn, silent: true },
            );
            self.knew.push(end.other);
        }
        if let Behaviour::Crasher {
            back_after: Some(after),
            ..
        } = self.spec.behaviour
        {
            self.later(world, world.now + after, Happening::Returns);
        }
    }

    /// It begins anew with what it has, and dials whom it knew.
    fn begin_anew(&mut self, world: &mut World<'_>) {
        self.away = false;
        self.life += 1;
        self.engine = Engine::new(self.config.clone(), self.seed.wrapping_add(u64::from(self.life)));
        self.turns.clear();
        (self.sending, self.timer_at) = (false, None);
        for mut spec in std::mem::take(&mut self.contents) {
            if let Some(pieces) = &mut spec.pieces {
                let len = pieces.have.len();
                for done in self.record.done.values().filter(|done| done.len() == len) {
                    pieces.have |= done;
                }
            }
            self.add_content(world, spec);
        }
        self.dialling.clear();
        for other in std::mem::take(&mut self.knew) {
            self.dial(world, other, REDIALS);
        }
    }

    /// Does what its engine says.
    pub(super) fn drain(&mut self, world: &mut World<'_>) {
        let now = world.now;
        while let Some(action) = self.engine.poll_action() {
            if self.away {
                continue;
            }
            match action {
                Action::Send(conn, message) => {
                    if let Some(message) = manners::says(self.spec.behaviour, message) {
                        self.say(world, conn, message);
                    }
                }
                Action::Serve(job) => self.serve(world, job),
                // How the bytes of a block are spread: here it comes as its last one does.
                Action::Pace { .. } => {}
                // Here connections share as they are.
                Action::Weigh { .. } => {}
                Action::Disconnect(conn, reason) => {
                    if let DisconnectReason::Violation(violation) = reason {
                        self.record.violations.push((now, violation.to_string()));
                    }
                    self.close(world, conn);
                }
                Action::Event(event) => self.note(world, event),
            }
        }
        let due = self.engine.poll_timeout();
        if let Some(due) = due.map(|due| due.max(now + Duration::from_micros(1)))
            && self.timer_at.is_none_or(|at| due < at)
        {
            self.timer_at = Some(due);
            self.later(world, due, Happening::Timer);
        }
    }

    fn note(&mut self, world: &mut World<'_>, event: Event) {
        let now = world.now;
        self.record.noted = true;
        match &event {
            Event::PieceDone { transfer, piece, .. } => {
                let done = self.record.done.entry(*transfer).or_default();
                if done.len() <= piece.as_usize() {
                    let of = self.contents.iter().filter_map(|spec| spec.pieces.as_ref());
                    let most = of.map(|pieces| pieces.have.len()).max();
                    done.resize(most.unwrap_or(0).max(piece.as_usize() + 1), false);
                }
                let known = done.replace(piece.as_usize(), true);
                assert!(!known, "piece {piece:?} of peer {} was done twice", self.index);
                self.record.done_order.push(piece.get());
            }
            Event::PeersHeard { peers, .. } if world.common.exchanging => {
                let heard = peers.iter().filter_map(|peer| index_of(&peer.id));
                let heard = heard.filter(|to| *to < world.common.specs.len());
                for to in heard.collect::<Vec<_>>() {
                    self.dial(world, to, 1);
                }
            }
            Event::Complete(_) => self.record.completed_at = Some(now),
            Event::Banned { conn, .. } => {
                let banned = self.ends.get(conn).map_or(usize::MAX, |end| end.other);
                self.record.bans.push((now, banned, event));
            }
            _ => {}
        }
    }

    fn serve(&mut self, world: &mut World<'_>, job: ServeJob) {
        if !self.ends.contains_key(&job.conn) {
            return;
        }
        let known = || world.common.contents.get(&job.cid).copied();
        let len = match job.piece {
            Some(_) => job.len,
            None if self.nodes.contains(&job.cid) => Some(known().unwrap_or(NODE_LEN)),
            None => None,
        };
        let Some(len) = len else {
            self.engine.handle_served(world.now, &job, Err(ServeFailure::NotHere));
            return;
        };
        self.served_blocks += 1;
        if let Some(corrupt) = manners::serves(self.spec.behaviour, self.served_blocks) {
            self.send_block(world, job, len, corrupt);
        }
    }

    fn close(&mut self, world: &mut World<'_>, conn: ConnId) {
        if let Some(end) = self.ends.remove(&conn) {
            let after = end.said_by.max(world.now + end.delay).since(world.now);
            self.post(world, end.other, after, Happening::Closed { conn, silent: false });
        }
    }
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
