//! The engine: owns connections and transfers, and composes the machines.
//!
//! This file holds facts about connections and time; `local` what the node wishes, `leech` and `serve` the two halves of
//! the protocol, `intake` blocks that come, `fetch` which requests to send.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::action::{Action, DisconnectReason, Event, Violation};
use super::choke::Choker;
use super::config::EngineConfig;
use super::conn::Conn;
use super::conn_set::ConnSet;
use super::ids::{ConnId, PeerKey, TransferId};
use super::ledbat::UploadController;
use super::limit::TokenBucket;
use super::reputation::{Fault, Reputation};
use super::rng::Rng;
use super::transfer::Transfer;
use super::uplink::Uplink;
use super::window::Slack;
use crate::format::Cid;
use crate::time::Timestamp;
use crate::wire::limits::{MAX_AGENT_LEN, MAX_EXTENSIONS};
use crate::wire::{Extension, Hello, Message};

/// Connections that an engine takes at the most, whatever its configuration says.
pub(crate) const MAX_CONNECTIONS: usize = 4096;
/// Ended connections whose peers are remembered; the oldest numbers go first.
const MAX_DEPARTED: usize = 256;
/// How often time-outs, rates and batches are looked after while blocks are moving…
const TICK: Duration = Duration::from_millis(100);
/// …and while none are.
const SLOW_TICK: Duration = Duration::from_secs(1);
/// `Event::NeedPeers` is said at most this often for a transfer.
const NEED_PEERS_INTERVAL: Duration = Duration::from_secs(5);
/// Peers that refused a node are asked for it again after this.
const NODES_RETRY: Duration = Duration::from_secs(30);

/// The swarm engine of one node. See the [module](super) for the contract.
#[derive(Debug)]
pub struct Engine {
    pub(super) config: EngineConfig,
    pub(super) now: Timestamp,
    pub(super) rng: Rng,
    pub(super) actions: VecDeque<Action>,
    pub(super) conns: BTreeMap<ConnId, Conn>,
    pub(super) transfers: BTreeMap<TransferId, Transfer>,
    pub(super) transfers_made: u64,
    /// Content and pack CIDs of all transfers.
    pub(super) roots: BTreeMap<Cid, TransferId>,
    pub(super) reputation: Reputation,
    /// Who was behind connections that ended lately: their last blocks may still be in the hands of whoever verifies them.
    pub(super) departed: BTreeMap<ConnId, PeerKey>,
    pub(super) up: TokenBucket,
    pub(super) down: TokenBucket,
    /// Says how much is uploaded, within the limit.
    pub(super) controller: Option<Box<dyn UploadController>>,
    /// Connections that no limit holds for.
    pub(super) exempt: BTreeSet<ConnId>,
    /// Something waits for the download limit of all.
    pub(super) down_shut: bool,
    /// Transfers with something that waits for their own limits.
    pub(super) waiting_down: BTreeSet<TransferId>,
    pub(super) waiting_up: BTreeSet<TransferId>,
    /// How far fair queueing between transfers is.
    pub(super) virtual_time: u64,
    pub(super) choker: Choker,
    pub(super) uplink: Uplink,
    /// Connections over which requests may be due.
    pub(super) to_fill: ConnSet,
    /// Transfers for which every connection may have something to request again.
    pub(super) to_refill: BTreeSet<TransferId>,
    /// Connections over which there may be something to serve.
    pub(super) to_serve: ConnSet,
    pub(super) serve_turn: ConnId,
    /// Transfers with pieces gained or lost that peers were not told of.
    pub(super) to_tell: BTreeSet<TransferId>,
    /// Peers that are to be told of others, and of which transfer.
    pub(super) to_introduce: BTreeSet<(ConnId, TransferId)>,
    /// Transfers whose leechers may have room for offers.
    pub(super) to_offer: BTreeSet<TransferId>,
    next_tick: Timestamp,
    next_slow_tick: Timestamp,
    pub(super) busy: bool,
}

impl Engine {
    /// An engine without connections or contents. `seed` decides all that is left to chance.
    pub fn new(mut config: EngineConfig, seed: u64) -> Self {
        while config.agent.len() > MAX_AGENT_LEN {
            config.agent.pop();
        }
        let own = [Extension::PEER_EXCHANGE, Extension::SKELETONS];
        config.extensions.truncate(MAX_EXTENSIONS - own.len());
        config.extensions.extend(own.map(|name| Extension {
            name: name.to_owned(),
            value: Vec::new(),
        }));
        let reputation = Reputation::new(config.started_at, std::mem::take(&mut config.known));
        Self {
            now: Timestamp::ZERO,
            rng: Rng::new(seed),
            actions: VecDeque::new(),
            conns: BTreeMap::new(),
            transfers: BTreeMap::new(),
            transfers_made: 0,
            roots: BTreeMap::new(),
            reputation,
            departed: BTreeMap::new(),
            up: TokenBucket::new(config.upload_limit),
            down: TokenBucket::new(config.download_limit),
            controller: None,
            exempt: BTreeSet::new(),
            down_shut: false,
            waiting_down: BTreeSet::new(),
            waiting_up: BTreeSet::new(),
            virtual_time: 0,
            choker: Choker::new(config.upload_slots),
            uplink: Uplink::default(),
            to_fill: ConnSet::default(),
            to_refill: BTreeSet::new(),
            to_serve: ConnSet::default(),
            serve_turn: ConnId(0),
            to_tell: BTreeSet::new(),
            to_introduce: BTreeSet::new(),
            to_offer: BTreeSet::new(),
            next_tick: Timestamp::ZERO,
            next_slow_tick: Timestamp::ZERO,
            busy: false,
            config,
        }
    }

    /// A connection's control stream is there. `rtt` is a first guess of its round trip.
    pub fn handle_connected(&mut self, now: Timestamp, conn: ConnId, peer: PeerKey, rtt: Duration) {
        self.advance(now);
        if self.reputation.ban(self.now, &peer).is_some() {
            self.actions
                .push_back(Action::Disconnect(conn, DisconnectReason::Banned));
            return;
        }
        if !self.make_room_for(&peer) {
            self.actions
                .push_back(Action::Disconnect(conn, DisconnectReason::TooManyConnections));
            return;
        }
        self.conns.insert(conn, Conn::new(self.now, peer, rtt));
        let hello = Hello {
            network: self.config.network,
            agent: self.config.agent.clone(),
            extensions: self.config.extensions.clone(),
        };
        self.send(conn, Message::Hello(hello));
    }

    /// We made this connection to ask its peer for what we fetch: handles are opened behind our `Hello`, a round trip sooner than after the
    /// peer's. To be called right after [`Engine::handle_connected`], and not for peers that came to us: what we look for is not told to
    /// whoever knocks.
    pub fn ask_at_once(&mut self, now: Timestamp, conn: ConnId) {
        self.advance(now);
        if let Some(found) = self.conns.get_mut(&conn) {
            found.chosen = true;
            self.open_sessions(conn);
        }
    }

    /// A connection has ended. Blocks of it that came whole still get their verdict.
    pub fn handle_disconnected(&mut self, now: Timestamp, conn: ConnId) {
        self.advance(now);
        self.forget(conn);
    }

    /// A round trip was measured.
    pub fn handle_rtt(&mut self, now: Timestamp, conn: ConnId, rtt: Duration) {
        self.advance(now);
        let id = conn;
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.window.on_rtt(rtt);
            self.reputation.handle_rtt(self.now, conn.peer, rtt);
            // What is in the local network does not go through the uplink.
            if !conn.local
                && let Some(controller) = &mut self.controller
            {
                controller.on_rtt_sample(self.now, id, rtt);
            }
        }
    }

    /// A control message came. Messages of a connection that the engine does not know are ignored.
    pub fn handle_message(&mut self, now: Timestamp, conn: ConnId, message: Message) {
        self.advance(now);
        if let Err(reason) = self.dispatch(conn, message) {
            self.disconnect(conn, reason);
        }
    }

    /// The caller itself saw the peer break the protocol (bytes that do not decode, say): closes the connection.
    pub fn handle_violation(&mut self, now: Timestamp, conn: ConnId, violation: Violation) {
        self.advance(now);
        self.disconnect(conn, DisconnectReason::Violation(violation));
    }

    fn dispatch(&mut self, id: ConnId, message: Message) -> Result<(), DisconnectReason> {
        let Some(conn) = self.conns.get_mut(&id) else {
            return Ok(());
        };
        match message {
            Message::Hello(hello) => {
                if conn.is_ready() {
                    return Err(Violation::OutOfOrder.into());
                }
                if hello.network != self.config.network {
                    return Err(DisconnectReason::OtherNetwork);
                }
                let names = |name| hello.extensions.iter().any(|e| e.name == name);
                conn.exchange.spoken = names(Extension::PEER_EXCHANGE);
                conn.skeletons = names(Extension::SKELETONS);
                let skeletons = conn.skeletons;
                conn.agent = Some(hello.agent.clone());
                self.actions.push_back(Action::Event(Event::Ready {
                    conn: id,
                    agent: hello.agent,
                }));
                if !skeletons {
                    self.on_no_skeletons(id);
                }
                self.open_sessions(id);
                Ok(())
            }
            _ if !conn.is_ready() => Err(Violation::OutOfOrder.into()),
            Message::Opened { .. }
            | Message::Rejected { .. }
            | Message::Closed { .. }
            | Message::Have { .. }
            | Message::Lost { .. }
            | Message::Peers { .. }
            | Message::Offer { .. }
            | Message::Choke
            | Message::Unchoke => Ok(self.handle_as_leecher(id, message)?),
            Message::Open { .. }
            | Message::WantNodes { .. }
            | Message::WantSkeleton { .. }
            | Message::Request { .. }
            | Message::RequestCids { .. }
            | Message::Cancel { .. }
            | Message::Release { .. }
            | Message::Pace { .. }
            | Message::Close { .. } => Ok(self.handle_as_server(id, message)?),
        }
    }

    /// Time has passed. Calling it too early or too late does no harm.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.advance(now);
        self.open_limits();
        if self.now >= self.next_tick {
            self.tick();
        }
    }

    /// When to call [`Engine::handle_timeout`] at the latest; none while there is nothing to wait for.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let idle = self.conns.is_empty() && !self.transfers.values().any(Transfer::is_fetching);
        let tick = (!idle).then_some(self.next_tick);
        [tick, self.limits_open_at(), self.reputation.due_at()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next thing to do; none once all has been told.
    pub fn poll_action(&mut self) -> Option<Action> {
        if self.actions.is_empty() {
            self.settle();
        }
        self.actions.pop_front()
    }

    pub(super) fn advance(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
    }

    pub(super) fn send(&mut self, conn: ConnId, message: Message) {
        self.actions.push_back(Action::Send(conn, message));
    }

    pub(super) fn event(&mut self, event: Event) {
        self.actions.push_back(Action::Event(event));
    }

    /// There is something to look after each [`TICK`].
    pub(super) fn set_busy(&mut self) {
        self.busy = true;
        self.next_tick = self.next_tick.min(self.now + TICK);
    }

    pub(super) fn disconnect(&mut self, conn: ConnId, reason: DisconnectReason) {
        if let Some(peer) = self.conns.get(&conn).map(|of| of.peer) {
            self.forget(conn);
            self.actions.push_back(Action::Disconnect(conn, reason));
            if let DisconnectReason::Violation(violation) = reason {
                self.note_violation(conn, peer, violation);
            }
        }
    }

    fn forget(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(&id) else { return };
        let served: Vec<TransferId> = conn.served.values().map(|served| served.transfer).collect();
        for handle in conn.sessions.keys().copied().collect::<Vec<_>>() {
            self.drop_session(id, handle);
        }
        for transfer in served {
            self.withdraw_offers(transfer, id);
        }
        if let Some(conn) = self.conns.remove(&id) {
            self.reputation.handle_left(&conn.peer);
            if !conn.uploads.is_stuck() {
                self.uplink.on_given_up(conn.uploads.ahead());
            }
            self.departed.insert(id, conn.peer);
            if self.departed.len() > MAX_DEPARTED {
                self.departed.pop_first();
            }
        }
        for transfer in self.transfers.values_mut() {
            transfer.nodes.forget(id);
            if let Some(idle) = &mut transfer.idle {
                idle.waiting.retain(|waiting| waiting.conn != id);
            }
        }
        self.to_fill.remove(&id);
        self.to_serve.remove(&id);
        self.exempt.remove(&id);
        if let Some(controller) = &mut self.controller {
            controller.on_gone(id);
        }
        self.run_choker();
    }

    /// Makes up what follows from all that was told: requests, blocks to serve, news.
    fn settle(&mut self) {
        // What is lost is told of before it is asked for.
        if !self.to_tell.is_empty() {
            self.tell_news(false);
        }
        for transfer in std::mem::take(&mut self.to_refill) {
            let conns = self.conns.iter().filter(|(_, conn)| conn.has_session(transfer, false));
            self.to_fill.extend(conns.map(|(id, _)| *id));
        }
        let mut due = self.to_fill.take();
        if !due.is_empty() {
            // Who goes first is left to chance, so that no one is always first at what few have.
            let from = self.rng.below(due.len());
            due.rotate_left(from);
            if self.down.rate().is_some() {
                // There may be room for one only.
                due.sort_by_cached_key(|id| self.least_tag(*id));
            }
            for id in &due {
                self.fill(*id);
            }
        }
        self.to_fill.reuse(due);
        for transfer in std::mem::take(&mut self.to_offer) {
            self.offer(transfer);
        }
        if !self.to_serve.is_empty() {
            self.serve();
        }
        if self.reputation.poll_changed(self.now) {
            self.event(Event::RecordsChanged);
        }
    }

    fn tick(&mut self) {
        let ids: Vec<ConnId> = self.conns.keys().copied().collect();
        self.busy = false;
        self.apply_upload_limit();
        let fetching = self.conns.values().filter(|conn| conn.window.in_flight() > 0);
        let slack = Slack::at(fetching.map(|conn| conn.window.rate()).sum());
        for id in &ids {
            self.tick_conn(*id, slack);
        }
        self.tell_news(true);
        self.introduce();
        if self.now >= self.next_slow_tick {
            self.next_slow_tick = self.now + SLOW_TICK;
            for id in &ids {
                self.open_sessions(*id);
                self.note_rates(*id);
            }
            self.part();
            self.run_choker();
            self.weigh();
            self.withdraw_stale_offers();
            for id in self.transfers.keys().copied().collect::<Vec<_>>() {
                self.tick_transfer(id);
            }
            self.tick_queue();
        }
        let busy = self.busy || !self.to_tell.is_empty() || self.introduces_within(SLOW_TICK);
        self.busy = busy;
        self.next_tick = if busy { self.now + TICK } else { self.next_slow_tick };
    }

    fn tick_conn(&mut self, id: ConnId, slack: Slack) {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if !conn.is_ready() {
            if now >= conn.hello_by {
                self.disconnect(id, Violation::HelloTimeout.into());
            } else {
                self.find_silent_skeletons(id);
            }
            return;
        }
        conn.window.on_tick(now, slack);
        self.uplink.on_given_up(conn.uploads.find_stuck(now));
        let tired = conn.find_tired(now);
        let stalled = conn.window.is_stalled(now);
        let overdue = if stalled {
            conn.requests.matching(|_, request| request.piece.is_some())
        } else {
            conn.requests.overdue(now, &conn.window)
        };
        let gave_up_pieces = overdue
            .iter()
            .any(|(h, w)| conn.requests.get(*h, *w).is_some_and(|r| r.piece.is_some()));
        if gave_up_pieces {
            conn.snub(now);
        }
        if !overdue.is_empty() {
            self.reputation.handle_fault(now, conn.peer, Fault::Stalled, 1);
        }
        if !conn.requests.is_empty() || !conn.uploads.is_empty() {
            self.busy = true;
        }
        self.take_back(id, &overdue);
        self.find_silent_skeletons(id);
        if let Some((block, piece)) = tired.and_then(|block| Some((block, block.piece?))) {
            self.unassign(block.transfer, piece.get(), id);
        }
        self.to_fill.insert(id);
    }

    fn tick_transfer(&mut self, id: TransferId) {
        let now = self.now;
        let conns: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, conn)| conn.has_session(id, true))
            .map(|(id, _)| *id)
            .collect();
        let Some(transfer) = self.transfers.get_mut(&id) else {
            return;
        };
        if !transfer.nodes.is_empty() {
            let missing = transfer.nodes.missing(&conns);
            if now.since(transfer.nodes_forgiven) >= NODES_RETRY {
                transfer.nodes_forgiven = now;
                transfer.nodes.forgive();
            }
            if !missing.is_empty() {
                self.actions.push_back(Action::Event(Event::NodesMissing {
                    transfer: id,
                    cids: missing,
                }));
            }
        }
        let idle = transfer
            .last_payload
            .is_none_or(|at| now.since(at) >= NEED_PEERS_INTERVAL);
        let told = transfer
            .need_peers_told
            .is_some_and(|at| now.since(at) < NEED_PEERS_INTERVAL);
        if transfer.is_fetching() && idle && !told {
            transfer.need_peers_told = Some(now);
            self.actions.push_back(Action::Event(Event::NeedPeers(id)));
        }
    }
}
