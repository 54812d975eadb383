//! The links of a node: what goes through its uplink, and what comes through its downlink.
//!
//! A connection holds a bounded number of bytes on the way. Where lines lose nothing, connections wait for their turn at the uplink, packet by
//! packet, and the downlink is one queue. Where a line's queue is bounded or packets are lost, a sender finds out how much it may have on the way:
//! slow start, one packet more each round trip, and three tenths less when packets are lost, which are sent again. Either way bytes come in order.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::agenda::{Happening, Packet};
use super::node::{NODE_LEN, Node, World};
use crate::engine::{ConnId, Expected, ServeJob, Unwanted};
use crate::time::Timestamp;
use crate::wire::{BulkHeader, Encoding, Message, split_frame};

/// Bytes that a connection holds on the way at most, as a socket's buffers would.
const PIPE: u64 = 512 * 1024;
/// How long a block is hashed and handed to the store.
const VERIFY: Duration = Duration::from_millis(1);
/// Packets that a sender who knows nothing of the way has on it.
const FIRST_PACKETS: u64 = 4;

/// A block on its way out.
#[derive(Clone, Debug)]
struct Sending {
    job: ServeJob,
    len: u32,
    sent: u32,
    corrupt: bool,
}

/// How much a sender may have on a way that loses packets: additive increase, multiplicative decrease (RFC 5681, with the decrease of RFC 9438).
#[derive(Clone, Debug)]
struct Congestion {
    window: u64,
    threshold: u64,
    packet: u64,
    /// Losses until then are of one event.
    recovers_at: Timestamp,
}

impl Congestion {
    fn new(packet: u32) -> Self {
        let packet = u64::from(packet);
        Self {
            window: FIRST_PACKETS * packet,
            threshold: u64::MAX,
            packet,
            recovers_at: Timestamp::ZERO,
        }
    }

    fn on_taken_in(&mut self, bytes: u64) {
        self.window += if self.window < self.threshold {
            bytes
        } else {
            self.packet * bytes / self.window
        };
    }

    fn on_lost(&mut self, now: Timestamp, rtt: Duration) {
        if now >= self.recovers_at {
            self.window = (self.window / 10 * 7).max(2 * self.packet);
            self.threshold = self.window;
            self.recovers_at = now + rtt;
        }
    }
}

/// One end of a connection.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) other: usize,
    /// How often the other had begun anew.
    pub(super) life: u32,
    /// One way.
    pub(super) delay: Duration,
    /// When the last message will be there.
    pub(super) said_by: Timestamp,
    queue: VecDeque<Sending>,
    /// Packets that were lost.
    again: VecDeque<Packet>,
    in_turns: bool,
    /// Bytes that have left and have not been taken in at the other end.
    on_the_way: u64,
    congestion: Option<Congestion>,
    next_number: u64,
    /// The number of the packet that comes next, and those that have come before it.
    expected_number: u64,
    early: BTreeMap<u64, Packet>,
    arriving: Option<(Expected, u32, bool)>,
}

impl End {
    pub(super) fn new(other: usize, delay: Duration, life: u32, congestible: bool, packet: u32) -> Self {
        Self {
            other,
            life,
            delay,
            said_by: Timestamp::ZERO,
            queue: VecDeque::new(),
            again: VecDeque::new(),
            in_turns: false,
            on_the_way: 0,
            congestion: congestible.then(|| Congestion::new(packet)),
            next_number: 0,
            expected_number: 0,
            early: BTreeMap::new(),
            arriving: None,
        }
    }

    fn may_send(&self) -> bool {
        let window = self
            .congestion
            .as_ref()
            .map_or(PIPE, |congestion| congestion.window.min(PIPE));
        (!self.again.is_empty() || !self.queue.is_empty()) && self.on_the_way < window
    }

    /// The next packet, and the block that is whole with it.
    fn next_packet(&mut self, size: u32) -> Option<(Packet, Option<ServeJob>)> {
        if let Some(packet) = self.again.pop_front() {
            self.on_the_way += u64::from(packet.bytes);
            return Some((packet, None));
        }
        let sending = self.queue.front_mut()?;
        let bytes = size.min(sending.len - sending.sent);
        let header = (sending.sent == 0).then_some(BulkHeader {
            handle: sending.job.handle,
            what: sending.job.what,
            encoding: Encoding::Plain,
            len: sending.len,
        });
        sending.sent += bytes;
        let packet = Packet {
            number: self.next_number,
            header,
            bytes,
            corrupt: sending.corrupt,
        };
        self.next_number += 1;
        self.on_the_way += u64::from(bytes);
        let whole = (sending.sent == sending.len).then_some(sending.job);
        if whole.is_some() {
            self.queue.pop_front();
        }
        Some((packet, whole))
    }
}

impl Node {
    /// Sends a control message. It waits for no turn: messages are small.
    pub(super) fn say(&mut self, world: &mut World<'_>, conn: ConnId, message: Message) {
        let Some(end) = self.ends.get_mut(&conn) else { return };
        self.scratch.clear();
        message.encode(&mut self.scratch);
        self.record.control_bytes += self.scratch.len() as u64;
        self.record.control_messages += 1;
        let message = if world.common.coded {
            let frame = split_frame(&self.scratch)
                .expect("our own frames keep the bounds")
                .expect("frames come whole");
            let message = Message::decode(frame.message).expect("our own messages decode");
            message.expect("known type")
        } else {
            message
        };
        let mut leaves = world.now;
        if self.spec.line.queue.is_some() {
            let took = Duration::from_micros(self.scratch.len() as u64 * 1_000_000 / self.spec.up_rate());
            leaves = self.up_free_at.max(leaves) + took;
            self.up_free_at = leaves;
        }
        let (other, delay) = (end.other, end.delay);
        let mut comes = leaves + delay + world.common.jitter(self.index, other, &mut self.lots);
        if world.common.is_lost(self.index, other, &mut self.lots) {
            comes = comes + delay * 2;
        }
        // Messages keep their order.
        comes = comes.max(end.said_by);
        end.said_by = comes;
        self.post(world, other, comes.since(world.now), Happening::Said { conn, message });
    }

    /// Puts a block into a connection's queue.
    pub(super) fn send_block(&mut self, world: &mut World<'_>, job: ServeJob, len: u32, corrupt: bool) {
        if let Some(end) = self.ends.get_mut(&job.conn) {
            let sent = 0;
            end.queue.push_back(Sending {
                job,
                len,
                sent,
                corrupt,
            });
            self.go_on(world, job.conn);
        }
    }

    /// Sends a packet that nobody asked for.
    pub(super) fn send_unasked(&mut self, world: &mut World<'_>, conn: ConnId, mut packet: Packet) {
        let Some(end) = self.ends.get_mut(&conn) else { return };
        packet.number = end.next_number;
        end.next_number += 1;
        end.on_the_way += u64::from(packet.bytes);
        self.transmit(world, conn, packet, world.now);
    }

    /// A connection may have got something to send, or room for it.
    fn go_on(&mut self, world: &mut World<'_>, conn: ConnId) {
        if self.spec.line.queue.is_some() {
            self.send_all(world, conn);
            return;
        }
        if let Some(end) = self.ends.get_mut(&conn)
            && end.may_send()
            && !std::mem::replace(&mut end.in_turns, true)
        {
            self.turns.push_back(conn);
        }
        self.send_next(world);
    }

    /// Puts the next packet on the uplink, if that is free.
    pub(super) fn send_next(&mut self, world: &mut World<'_>) {
        if self.sending || self.away {
            return;
        }
        let (conn, packet, whole) = loop {
            let Some(conn) = self.turns.pop_front() else { return };
            let Some(end) = self.ends.get_mut(&conn) else { continue };
            end.in_turns = false;
            if !end.may_send() {
                continue;
            }
            let Some((packet, whole)) = end.next_packet(world.common.packet) else {
                continue;
            };
            if end.may_send() {
                end.in_turns = true;
                self.turns.push_back(conn);
            }
            break (conn, packet, whole);
        };
        self.sending = true;
        let leaves = world.now + self.passing(packet.bytes, self.spec.up_rate());
        self.later(world, leaves, Happening::UplinkFree);
        self.transmit(world, conn, packet, leaves);
        self.is_written(world, whole);
    }

    /// Puts all that a connection may send into the uplink's queue.
    fn send_all(&mut self, world: &mut World<'_>, conn: ConnId) {
        let now = world.now;
        loop {
            let Some(end) = self.ends.get_mut(&conn) else { return };
            if !end.may_send() {
                return;
            }
            let Some((packet, whole)) = end.next_packet(world.common.packet) else {
                return;
            };
            let rtt = end.delay * 2;
            if self.has_room(now, self.up_free_at, self.spec.up_rate(), packet.bytes) {
                self.up_free_at = self.up_free_at.max(now) + self.passing(packet.bytes, self.spec.up_rate());
                self.transmit(world, conn, packet, self.up_free_at);
            } else {
                // That it is missing shows when what was sent after it has arrived.
                self.later(world, now + rtt, Happening::Dropped { conn, packet });
            }
            self.is_written(world, whole);
        }
    }

    fn passing(&self, bytes: u32, rate: u64) -> Duration {
        Duration::from_micros(u64::from(bytes) * 1_000_000 / rate.max(1))
    }

    /// Whether a line that is busy until `free_at` can hold so many bytes more.
    fn has_room(&self, now: Timestamp, free_at: Timestamp, rate: u64, bytes: u32) -> bool {
        let held = free_at.since(now).as_micros() as u64 * rate / 1_000_000;
        let most = self.spec.line.queue.map_or(u64::MAX, u64::from);
        held == 0 || held + u64::from(bytes) <= most
    }

    /// The node's write returns once the block is with the socket.
    fn is_written(&mut self, world: &mut World<'_>, whole: Option<ServeJob>) {
        if let Some(job) = whole {
            self.engine
                .handle_served(world.now, &job, Ok(job.len.unwrap_or(NODE_LEN)));
            self.drain(world);
        }
    }

    /// A packet leaves the uplink.
    fn transmit(&mut self, world: &mut World<'_>, conn: ConnId, packet: Packet, leaves: Timestamp) {
        let Some(end) = self.ends.get(&conn) else { return };
        let (other, delay) = (end.other, end.delay);
        if world.common.is_lost(self.index, other, &mut self.lots) {
            self.later(world, leaves + delay * 2, Happening::Dropped { conn, packet });
            return;
        }
        let after = leaves.since(world.now) + delay + world.common.jitter(self.index, other, &mut self.lots);
        self.post(world, other, after, Happening::Landed { conn, packet });
    }

    /// The other end has taken bytes in.
    pub(super) fn on_room(&mut self, world: &mut World<'_>, conn: ConnId, bytes: u32) {
        if let Some(end) = self.ends.get_mut(&conn) {
            end.on_the_way -= u64::from(bytes);
            if let Some(congestion) = &mut end.congestion {
                congestion.on_taken_in(u64::from(bytes));
            }
            self.go_on(world, conn);
        }
    }

    /// A packet was lost: it is sent again before all else.
    pub(super) fn on_dropped(&mut self, world: &mut World<'_>, conn: ConnId, packet: Packet) {
        if let Some(end) = self.ends.get_mut(&conn) {
            end.on_the_way -= u64::from(packet.bytes);
            end.again.push_back(packet);
            if let Some(congestion) = &mut end.congestion {
                congestion.on_lost(world.now, end.delay * 2);
            }
            self.go_on(world, conn);
        }
    }

    /// A packet has come as far as the downlink.
    pub(super) fn land(&mut self, world: &mut World<'_>, conn: ConnId, packet: Packet) {
        let now = world.now;
        let Some(end) = self.ends.get(&conn) else { return };
        let (other, delay) = (end.other, end.delay);
        if !self.has_room(now, self.down_free_at, self.spec.down, packet.bytes) {
            self.post(world, other, delay, Happening::Dropped { conn, packet });
            return;
        }
        let at = self.down_free_at.max(now) + self.passing(packet.bytes, self.spec.down);
        self.down_free_at = at;
        self.later(world, at, Happening::Came { conn, packet });
    }

    /// A packet is here.
    pub(super) fn take_in(&mut self, world: &mut World<'_>, conn: ConnId, packet: Packet) {
        let Some(end) = self.ends.get_mut(&conn) else { return };
        let (other, delay, bytes) = (end.other, end.delay, packet.bytes);
        let mut next = None;
        if packet.number == end.expected_number {
            next = Some(packet);
        } else {
            end.early.insert(packet.number, packet);
        }
        self.post(world, other, delay, Happening::Room { conn, bytes });
        while let Some(packet) = next {
            self.read(world, conn, packet);
            let Some(end) = self.ends.get_mut(&conn) else { return };
            end.expected_number += 1;
            next = end.early.remove(&end.expected_number);
        }
    }

    /// A packet is read, in its order.
    fn read(&mut self, world: &mut World<'_>, conn: ConnId, packet: Packet) {
        let now = world.now;
        if let Some(header) = &packet.header {
            if world.common.coded {
                self.scratch.clear();
                header.encode(&mut self.scratch);
                let len = self.scratch.len();
                assert_eq!(BulkHeader::decode(&self.scratch), Ok(Some((*header, len))));
            }
            let judged = self.engine.handle_block_header(now, conn, header);
            if let Some(end) = self.ends.get_mut(&conn) {
                end.arriving = match judged {
                    Ok(expected) => Some((expected, expected.len, packet.corrupt)),
                    Err(Unwanted::Late | Unwanted::Violation(_)) => None,
                };
            }
        }
        self.engine.handle_block_progress(now, conn, packet.bytes);
        if let Some(end) = self.ends.get_mut(&conn)
            && let Some((block, rest, corrupt)) = &mut end.arriving
        {
            *rest -= packet.bytes;
            if *rest == 0 {
                let (block, corrupt) = (*block, *corrupt);
                end.arriving = None;
                self.later(world, now + VERIFY, Happening::Verified { block, corrupt });
            }
        }
        self.drain(world);
    }
}
