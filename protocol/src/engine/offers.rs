//! When a seed offers pieces instead of letting leechers choose, and to whom; and a leecher's half of it. See [`super::spread`] for why.

use std::collections::VecDeque;
use std::time::Duration;

use super::action::Violation;
use super::conn::Served;
use super::core::Engine;
use super::ids::{ConnId, TransferId};
use super::session::Source;
use super::spread::{self, Spread};
use super::transfer::Pieces;
use crate::time::Timestamp;
use crate::wire::limits::MAX_RUNS;
use crate::wire::{Handle, Message, Run, runs_of};

/// Bytes offered to a leecher and not sent yet, at the least…
const AHEAD_MIN: u64 = 128 * 1024;
/// …and as many as go to it in this time: a round trip for the offer and the request, and some to choose from.
const AHEAD: Duration = Duration::from_millis(1200);
/// Of the last pieces, as many as go to all together in this time: whoever has most of them is who the first copy waits for.
const LAST_AHEAD: Duration = Duration::from_millis(500);
/// Pieces offered to a leecher at a time, however small.
const AHEAD_PIECES: usize = 1024;
/// A leecher that has not asked for what it was offered after this long is not waited for.
const STALE: Duration = Duration::from_secs(5);
/// A leecher that has nothing to ask for, with nothing left to offer it, may choose after this long: what others were offered may take them a while.
const NOTHING_LEFT: Duration = Duration::from_millis(1500);
/// Pieces that a leecher is sent before any of them is seen with others.
const TRIAL: usize = 2;
/// A leecher that keeps so many pieces to itself is offered no more while there are others…
const SILENT: u32 = 2;
/// …for this long.
const DEAD_END: Duration = Duration::from_secs(60);
/// A leecher that lets so many offers in a row lie wants something else, and may choose.
const IGNORED: u32 = 3;
/// Connections over which a seed still follows what leechers have once everything has gone out.
const WATCHED: usize = 50;
/// Offers that a leecher keeps; more are an offence.
const MAX_OFFERED: usize = 64 * 1024;

/// What a server offers us: nothing else is asked of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offered(VecDeque<u32>);

impl Offered {
    /// The next piece of the offer that can be picked. What is here by now, or no longer there, is dropped.
    pub(crate) fn next(&mut self, pieces: &Pieces, source: &Source) -> Option<u32> {
        self.0
            .retain(|piece| *piece < pieces.len() && !pieces.has(*piece) && source.has(*piece));
        self.0.iter().copied().find(|piece| pieces.picker.contains(*piece))
    }
}

/// Who is offered more than a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// Who was seen to pass something on; so many bytes each, if not more.
    Proven { share: u64 },
    /// Everyone.
    All,
}

/// What a leecher was offered of one content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offering {
    /// Whether it may ask for offered pieces only.
    pub(crate) steered: bool,
    /// Offers in a row that it let lie.
    ignored: u32,
    /// Pieces that were sent and have not been seen with others yet.
    unseen: usize,
    /// Whether any was.
    passes_on: bool,
    /// Pieces that were sent and did not spread, and until when nothing is offered for that.
    silent: u32,
    dead_end_until: Timestamp,
    /// Offered and not sent: pieces and bytes.
    pieces: usize,
    bytes: u64,
}

impl Offering {
    /// Whether what the leecher gets goes no further.
    pub(crate) fn is_dead_end(&self, now: Timestamp) -> bool {
        now < self.dead_end_until
    }

    /// Whether anything that it got was seen to go further.
    pub(crate) fn passes_on(&self) -> bool {
        self.passes_on
    }

    fn on_silent(&mut self, now: Timestamp) {
        self.unseen = self.unseen.saturating_sub(1);
        self.silent += 1;
        if self.silent >= SILENT {
            // Tried again later: one more silence is enough then.
            self.dead_end_until = now + DEAD_END;
            self.silent = SILENT - 1;
            self.passes_on = false;
        }
    }
}

impl Engine {
    /// A server offers pieces, or, with an empty list, lets us choose again.
    pub(super) fn on_offer(&mut self, id: ConnId, handle: Handle, runs: &[Run]) -> Result<(), Violation> {
        let Some(session) = self.conns.get_mut(&id).and_then(|conn| conn.sessions.get_mut(&handle)) else {
            return Ok(());
        };
        let pieces = self.transfers.get(&session.transfer).and_then(|of| of.pieces.as_ref());
        if pieces.is_some_and(|pieces| runs.iter().any(|run| run.end() > pieces.len())) {
            return Err(Violation::NoSuchPiece);
        }
        session.exhausted = 0;
        self.to_fill.insert(id);
        // Who wants only some of it cannot wait until that is offered.
        let picky = pieces.is_some_and(|pieces| pieces.wanted_count < pieces.len());
        if runs.is_empty() || picky {
            session.offers = None;
            return Ok(());
        }
        let offers = session.offers.get_or_insert_default();
        let count: u64 = runs.iter().map(|run| u64::from(run.len)).sum();
        if offers.0.len() as u64 + count > MAX_OFFERED as u64 {
            return Err(Violation::OverLimit("offered pieces"));
        }
        offers.0.extend(runs.iter().flat_map(|run| run.pieces()));
        Ok(())
    }

    /// Whether a transfer is a seed's and goes out piece by piece: there is more than one leecher, and not everything is with them. Others may say to be
    /// seeds too: if they are, each sends a part.
    fn is_spreading(&self, id: TransferId, leechers: usize) -> bool {
        let Some(of) = self.transfers.get(&id) else {
            return false;
        };
        let pieces = of.pieces.as_ref();
        let whole = pieces.is_some_and(|pieces| pieces.have_count == pieces.len());
        whole
            && !of.spread_over
            && of.network == self.config.network
            && (leechers > 1 || (leechers == 1 && of.spread.is_some()))
    }

    /// Offers leechers of a content what they have room for.
    pub(super) fn offer(&mut self, id: TransferId) {
        let (mut leechers, mut others) = (Vec::new(), Vec::new());
        for (conn_id, conn) in &self.conns {
            let served = conn
                .served
                .iter()
                .filter(|(_, served)| served.transfer == id && served.pieces);
            // Who says to have everything would have nothing to ask for, and is not believed if it asks all the same.
            let lacks = !conn.is_doubted(self.now) && !conn.has_all(id);
            let list = if lacks { &mut leechers } else { &mut others };
            list.extend(served.map(|(handle, _)| (*conn_id, *handle)));
        }
        for (conn_id, handle) in others {
            self.let_choose(id, conn_id, handle);
        }
        if self.up.rate().is_some() {
            // Whom no limit holds for costs nothing of what the others share, and would only wait for them.
            let unlimited: Vec<(ConnId, Handle)> = leechers
                .extract_if(.., |(conn_id, _)| self.exempt.contains(conn_id))
                .collect();
            for (conn_id, handle) in unlimited {
                self.let_choose(id, conn_id, handle);
            }
        }
        if !self.is_spreading(id, leechers.len()) {
            self.end_spreading(id);
            return;
        }
        if self.transfers.get(&id).is_some_and(|of| of.spread.is_none()) {
            self.begin_spreading(id, &leechers);
        }
        let seeds = self.transfers.get(&id).map_or(0, |of| of.seeds);
        if leechers.len() <= seeds.max(1) {
            // Nobody is there to pass anything on, or there are as many seeds, and steering would only hold them up.
            for (conn_id, handle) in leechers {
                self.let_choose(id, conn_id, handle);
            }
            return;
        }
        let now = self.now;
        // Who has least to pass on goes first, so that what is left falls to all uplinks alike; who keeps what it gets comes last.
        let offering = |engine: &Self, conn_id: &ConnId, handle: &Handle| {
            let served = engine.conns.get(conn_id).and_then(|conn| conn.served.get(handle));
            served.map(|served| served.offering).unwrap_or_default()
        };
        leechers.retain(|(conn_id, handle)| offering(self, conn_id, handle).ignored < IGNORED);
        if leechers.is_empty() {
            self.end_spreading(id);
            return;
        }
        leechers.retain(|(conn_id, _)| self.conns.get(conn_id).is_some_and(|conn| !conn.choking));
        leechers.sort_by_key(|(conn_id, handle)| {
            let offering = offering(self, conn_id, handle);
            (offering.pieces + offering.unseen, offering.bytes)
        });
        let spreads =
            |engine: &Self, conn_id: &ConnId, handle: &Handle| !offering(engine, conn_id, handle).is_dead_end(now);
        if leechers.iter().any(|(conn_id, handle)| spreads(self, conn_id, handle)) {
            leechers.retain(|(conn_id, handle)| spreads(self, conn_id, handle));
        }
        // What goes out last is not tried on who may keep it.
        let proven = |engine: &Self, conn_id: &ConnId, handle: &Handle| offering(engine, conn_id, handle).passes_on;
        let ends = self.ends_soon(id);
        if ends && leechers.iter().any(|(conn_id, handle)| proven(self, conn_id, handle)) {
            leechers.retain(|(conn_id, handle)| proven(self, conn_id, handle));
        }
        // Nor does anyone hold much of it that others could have asked for by then.
        let most = if ends {
            self.up_in(id, LAST_AHEAD) / leechers.len().max(1) as u64
        } else {
            u64::MAX
        };
        let known = leechers
            .iter()
            .filter(|(conn_id, handle)| proven(self, conn_id, handle));
        let filling = AHEAD_MIN.max(self.up_in(id, AHEAD));
        let share = filling.checked_div(known.count() as u64).unwrap_or(0);
        // The uplink is not left idle while those who could be offered something are on trial; but who is known to pass on what it gets takes more of it first.
        for trust in [Trust::Proven { share: 0 }, Trust::Proven { share }, Trust::All] {
            self.offer_to(id, &leechers, trust, most);
            let ahead = leechers
                .iter()
                .map(|(conn_id, handle)| offering(self, conn_id, handle).bytes);
            if ahead.sum::<u64>() >= filling / 2 {
                break;
            }
        }
        if self
            .transfers
            .get(&id)
            .and_then(|of| of.spread.as_ref())
            .is_some_and(Spread::is_over)
        {
            self.end_spreading(id);
        }
    }

    /// Whether what is left to offer goes out before it shows who keeps it.
    fn ends_soon(&self, id: TransferId) -> bool {
        let Some(of) = self.transfers.get(&id) else {
            return false;
        };
        let (Some(spread), Some(pieces)) = (&of.spread, &of.pieces) else {
            return false;
        };
        let left = pieces.map.bytes() / u64::from(pieces.len().max(1)) * spread.left() as u64;
        left < self.up_in(id, spread::UNSEEN)
    }

    /// Bytes of a transfer that go out in a time, as it went lately.
    fn up_in(&self, id: TransferId, time: Duration) -> u64 {
        let rate = self.transfers.get(&id).map_or(0, |of| of.up.rate(self.now));
        (u128::from(rate) * time.as_micros() / 1_000_000) as u64
    }

    /// Offers each of `leechers` what it has room for, `most` bytes at the most (or one piece).
    fn offer_to(&mut self, id: TransferId, leechers: &[(ConnId, Handle)], trust: Trust, most: u64) {
        let now = self.now;
        for (conn_id, handle) in leechers.iter().copied() {
            let Some(conn) = self.conns.get_mut(&conn_id) else {
                continue;
            };
            let Some(of) = self.transfers.get_mut(&id) else { return };
            let (Some(spread), Some(pieces)) = (&mut of.spread, &of.pieces) else {
                return;
            };
            let target = (u128::from(conn.uploads.meter.rate(now)) * AHEAD.as_micros() / 1_000_000) as u64;
            let Some(served) = conn.served.get_mut(&handle) else {
                continue;
            };
            let offering = &mut served.offering;
            let share = match trust {
                Trust::Proven { share } if offering.passes_on => share,
                Trust::Proven { .. } | Trust::All => 0,
            };
            let target = target.max(AHEAD_MIN).max(share).min(most);
            if offering.steered && offering.bytes > target / 4 * 3 {
                continue;
            }
            let offered = spread.offer(conn_id, |piece| {
                let trusted = trust == Trust::All
                    || offering.passes_on
                    || offering.pieces + offering.unseen + (offering.silent as usize) < TRIAL;
                let room =
                    trusted && offering.pieces < AHEAD_PIECES && (offering.pieces == 0 || offering.bytes < target);
                if room {
                    offering.pieces += 1;
                    offering.bytes += u64::from(pieces.piece_len(piece));
                }
                room
            });
            if offered.is_empty() {
                continue;
            }
            offering.steered = true;
            conn.asked_at = now;
            for runs in runs_of(offered).chunks(MAX_RUNS) {
                let runs = runs.to_vec();
                self.actions
                    .push_back(super::Action::Send(conn_id, Message::Offer { handle, runs }));
            }
        }
    }

    fn update_offering(&mut self, id: TransferId, conn_id: ConnId, update: impl Fn(&mut Offering)) {
        let Some(conn) = self.conns.get_mut(&conn_id) else {
            return;
        };
        let served = conn.served.values_mut();
        served
            .filter(|served| served.transfer == id)
            .for_each(|served| update(&mut served.offering));
    }

    fn begin_spreading(&mut self, id: TransferId, leechers: &[(ConnId, Handle)]) {
        let Some(of) = self.transfers.get_mut(&id) else { return };
        let Some(pieces) = &of.pieces else { return };
        if pieces.len() == 0 {
            of.spread_over = true;
            return;
        }
        let mut spread = Spread::new(pieces.len(), self.rng.next());
        let now = self.now;
        for (conn_id, handle) in leechers {
            let Some(conn) = self.conns.get_mut(conn_id) else {
                continue;
            };
            for piece in conn.uploads.queued(*handle) {
                spread.on_sent(now, *conn_id, piece);
            }
        }
        of.spread = Some(spread);
        // What has spread is learned from the leechers.
        for (conn_id, _) in leechers {
            self.open_sessions(*conn_id);
        }
    }

    /// Lets a leecher choose for itself again.
    fn let_choose(&mut self, id: TransferId, conn_id: ConnId, handle: Handle) {
        let served = self.conns.get(&conn_id).and_then(|conn| conn.served.get(&handle));
        if !served.is_some_and(|served| served.offering.steered) {
            return;
        }
        self.withdraw_offers(id, conn_id);
        let Some(conn) = self.conns.get_mut(&conn_id) else {
            return;
        };
        if let Some(served) = conn.served.get_mut(&handle)
            && std::mem::take(&mut served.offering.steered)
        {
            let runs = Vec::new();
            self.send(conn_id, Message::Offer { handle, runs });
        }
    }

    /// Everything has gone out once, or others have it, or it is not here any more: everyone may ask for anything.
    pub(super) fn end_spreading(&mut self, id: TransferId) {
        let Some(of) = self.transfers.get_mut(&id) else { return };
        let Some(spread) = of.spread.take() else { return };
        of.spread_over = spread.is_over();
        let fetching = of.is_fetching();
        let mut steered = Vec::new();
        for (conn_id, conn) in &mut self.conns {
            for (handle, served) in conn.served.iter_mut().filter(|(_, served)| served.transfer == id) {
                if std::mem::take(&mut served.offering.steered) {
                    steered.push((*conn_id, *handle));
                }
            }
        }
        for (conn_id, handle) in steered {
            let runs = Vec::new();
            self.send(conn_id, Message::Offer { handle, runs });
        }
        // Who is far behind goes first also later, as long as it costs little to be told.
        if !fetching && self.conns.len() > WATCHED {
            self.close_sessions(id);
        }
    }

    /// What was offered over a connection goes to others.
    pub(super) fn withdraw_offers(&mut self, id: TransferId, conn_id: ConnId) {
        let Some(spread) = self.transfers.get_mut(&id).and_then(|of| of.spread.as_mut()) else {
            return;
        };
        spread.withdraw(conn_id);
        self.to_offer.insert(id);
        self.update_offering(id, conn_id, |offering| (offering.pieces, offering.bytes) = (0, 0));
    }

    /// A piece was sent to a peer, or the peer says that it has it.
    pub(super) fn piece_is_out(&mut self, id: TransferId, piece: u32, conn: ConnId, sent: bool) {
        let now = self.now;
        let Some(of) = self.transfers.get_mut(&id) else { return };
        let Some(spread) = &mut of.spread else {
            return;
        };
        let (offered_to, passed_on_by) = if sent {
            (spread.on_sent(now, conn, piece), None)
        } else {
            spread.on_seen(conn, piece)
        };
        if spread.is_over() {
            self.to_offer.insert(id);
        }
        if sent && offered_to.is_some() {
            self.update_offering(id, conn, |offering| {
                offering.unseen += 1;
                offering.ignored = 0;
            });
        }
        if let Some(conn_id) = passed_on_by {
            self.update_offering(id, conn_id, |offering| {
                offering.unseen = offering.unseen.saturating_sub(1);
                offering.passes_on = true;
            });
            self.to_offer.insert(id);
        }
        let Some(pieces) = self.transfers.get(&id).and_then(|of| of.pieces.as_ref()) else {
            return;
        };
        let Some(conn_id) = offered_to else { return };
        let len = u64::from(pieces.piece_len(piece));
        self.update_offering(id, conn_id, |offering| {
            offering.pieces = offering.pieces.saturating_sub(1);
            offering.bytes = offering.bytes.saturating_sub(len);
        });
        self.to_offer.insert(id);
    }

    /// Offers that nobody has taken up go to others, and so do pieces that were sent and have not spread.
    pub(super) fn withdraw_stale_offers(&mut self) {
        let now = self.now;
        let mut silent = Vec::new();
        let conns = &self.conns;
        for (id, of) in &mut self.transfers {
            let Some(spread) = &mut of.spread else { continue };
            let passes_on = |conn_id: ConnId| {
                let served = conns.get(&conn_id).map(|conn| conn.served.values());
                let mut served = served.into_iter().flatten().filter(|served| served.transfer == *id);
                served.any(|served| served.offering.passes_on)
            };
            silent.extend(spread.expire(now, passes_on).into_iter().map(|conn_id| (*id, conn_id)));
        }
        for (id, conn_id) in silent {
            self.to_offer.insert(id);
            self.update_offering(id, conn_id, |offering| offering.on_silent(now));
        }
        let nothing_left = |id: &TransferId| {
            let spread = self.transfers.get(id).and_then(|of| of.spread.as_ref());
            spread.is_some_and(|spread| spread.left() == 0)
        };
        let (mut stale, mut idle) = (Vec::new(), Vec::new());
        for (conn_id, conn) in self.conns.iter().filter(|(_, conn)| conn.uploads.is_empty()) {
            let waits = now.since(conn.asked_at);
            for (handle, served) in &conn.served {
                let Served { transfer, offering, .. } = served;
                if offering.bytes > 0 && waits >= STALE {
                    stale.push((*transfer, *conn_id, *handle));
                } else if offering.bytes == 0 && offering.steered && waits >= NOTHING_LEFT && nothing_left(transfer) {
                    idle.push((*transfer, *conn_id, *handle));
                }
            }
        }
        for (transfer, conn_id, handle) in idle {
            self.let_choose(transfer, conn_id, handle);
        }
        for (transfer, conn_id, handle) in stale {
            self.update_offering(transfer, conn_id, |offering| offering.ignored += 1);
            self.withdraw_offers(transfer, conn_id);
            let served = self.conns.get(&conn_id).and_then(|conn| conn.served.get(&handle));
            if served.is_some_and(|served| served.offering.ignored >= IGNORED) {
                self.let_choose(transfer, conn_id, handle);
            }
        }
    }
}
