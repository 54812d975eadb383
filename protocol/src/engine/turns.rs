//! Whose turn it is to be served.
//!
//! Who gives comes before who only takes, and nobody is given much more than others. Among leechers whoever is behind goes first: what is rare is asked for by those
//! who are ahead, so that rarest first alone would have the others end late, when most uplinks have nothing left to do. The more compete for an uplink, the more it
//! counts that what is rare goes out, and the less exactly they are kept level. A seed's first copy goes out by rarity alone.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::conn::{Conn, Served, Standing};
use super::core::Engine;
use super::ids::{ConnId, TransferId};
use super::transfer::{Pieces, Transfer};
use crate::wire::Handle;

/// A piece that so many have is common: who asks for it counts more than how many more have it.
const COMMON: u16 = 6;
/// Connections that are looked at without taking memory for it.
const READY: usize = 32;
/// Bytes that one peer may get beyond what others get in the mean in the same time…
const AHEAD_OF_OTHERS: u64 = 8 * 1024 * 1024;
/// …and one part in so many of that: whoever says to have little is not given for it what the others could pass on.
const AHEAD_PART: u64 = 8;
/// Leechers have come equally far if they are not further apart than one part in so many of what they have…
const LEVEL_PART: u64 = 256;
/// …and so many times that among more of them than this.
const LEVEL_PEERS: usize = 8;

/// One that waits to be served.
struct Waits<'a> {
    id: ConnId,
    conn: &'a Conn,
    standing: Standing,
}

/// What decides between those who wait.
struct Turns<'a> {
    transfers: &'a BTreeMap<TransferId, Transfer>,
    /// Whether we fetch something: only then can anything be given in return.
    trades: bool,
    /// Bytes from which on a peer has got much more than others.
    fair: u64,
    /// Whether the last pieces of a first copy are on offer.
    ends: bool,
    /// What those who pass pieces on have in the mean, once the first copy is out and they alone are helped for being behind: others may be behind since
    /// nobody else serves them.
    proven: Option<u64>,
}

impl<'a> Turns<'a> {
    fn new(transfers: &'a BTreeMap<TransferId, Transfer>, trades: bool, ready: &[Waits<'_>]) -> Self {
        let equals = ready.iter().filter(|waits| waits.standing == Standing::Equal);
        let turns = equals.map(|waits| waits.conn.uploads.turn());
        let (sum, count) = turns.fold((0_u64, 0_u64), |(sum, count), turn| (sum + turn, count + 1));
        let mean = u64::checked_div(sum, count);
        let spreads = || transfers.values().filter_map(|of| of.spread.as_ref());
        let over = !trades && spreads().next().is_none();
        let proven = ready.iter().filter(|waits| over && waits.conn.passes_on());
        let (sum, count) = proven.fold((0, 0), |(sum, count), waits| {
            (sum + u64::from(waits.conn.has_at_least()), count + 1)
        });
        Self {
            transfers,
            trades,
            fair: mean.map_or(u64::MAX, too_much),
            ends: spreads().any(|spread| spread.left() == 0),
            proven: u64::checked_div(sum, count),
        }
    }

    /// How rare the rarest of the pieces is that a peer asks for next.
    fn rarest(&self, conn: &Conn) -> u16 {
        let mut known: Option<(Handle, Option<&Pieces>)> = None;
        conn.uploads.rank(|handle, piece| {
            let of = known.filter(|(of, _)| *of == handle).map(|(_, of)| of);
            let of = of.unwrap_or_else(|| pieces_of(self.transfers, &conn.served, handle));
            known = Some((handle, of));
            rarity(of, piece)
        })
    }

    /// The last pieces that nobody has go out whoever asks for them.
    fn is_ahead(&self, conn: &Conn) -> bool {
        conn.uploads.turn() > self.fair && !(self.ends && self.rarest(conn) == 0)
    }

    fn class(&self, waits: &Waits<'_>) -> (Standing, bool) {
        (waits.standing, self.is_ahead(waits.conn))
    }

    fn held(&self, conn: &Conn) -> u64 {
        let helped = self.proven.filter(|_| !conn.passes_on());
        helped.unwrap_or(u64::from(conn.has_at_least()))
    }

    /// Of those in the first class, who is behind, who asks for what is rare, who has least, then in turn after `last`.
    fn first(&self, ready: &[Waits<'_>], last: ConnId) -> Option<ConnId> {
        let class = ready.iter().map(|waits| self.class(waits)).min()?;
        // What they ask for is looked at only of those who may come next.
        let first = ready.iter().filter(|waits| self.class(waits) == class);
        let first: SmallVec<[(&Waits<'_>, u64); READY]> = first.map(|waits| (waits, self.held(waits.conn))).collect();
        let least = first.iter().map(|(_, held)| *held).min()?;
        let most = first.iter().map(|(_, held)| *held).max()?;
        let level = (most / LEVEL_PART).max(1) * first.len().div_ceil(LEVEL_PEERS) as u64;
        let ahead = |held: u64| if self.trades { (held - least) / level } else { 0 };
        let rank = |(waits, held): &(&Waits<'_>, u64)| {
            let id = waits.id;
            (ahead(*held), self.rarest(waits.conn), *held, id <= last, id)
        };
        first.iter().min_by_key(|of| rank(of)).map(|(waits, _)| waits.id)
    }
}

impl Engine {
    /// The connection to serve next. While the limit is shut, only those that none holds for are served.
    pub(super) fn next_to_serve(&mut self) -> Option<ConnId> {
        let (now, conns, transfers) = (self.now, &self.conns, &self.transfers);
        let open = self.up.is_open(now);
        let exempt = &self.exempt;
        let trades = transfers.values().any(Transfer::is_fetching);
        self.to_serve
            .retain(|id| conns.get(id).is_some_and(|conn| conn.uploads.is_ready(now)));
        let waiting = || self.to_serve.iter().filter_map(|id| Some((*id, conns.get(id)?)));
        // Who has it all remembers who gave.
        let owes = waiting().any(|(_, conn)| conn.bytes_down > 0);
        let due = waiting().filter(|(id, _)| open || exempt.contains(id));
        let ready = due.map(|(id, conn)| Waits {
            id,
            conn,
            standing: conn.standing(now, trades, owes),
        });
        let ready: SmallVec<[Waits<'_>; READY]> = ready.collect();
        Turns::new(transfers, trades, &ready).first(&ready, self.serve_turn)
    }
}

/// Bytes from which on a peer has got much more than others, who have got `mean`.
pub(super) fn too_much(mean: u64) -> u64 {
    mean + mean / AHEAD_PART + AHEAD_OF_OTHERS
}

/// The pieces that a peer can ask for by `handle`.
pub(super) fn pieces_of<'a>(
    transfers: &'a BTreeMap<TransferId, Transfer>,
    served: &BTreeMap<Handle, Served>,
    handle: Handle,
) -> Option<&'a Pieces> {
    let of = served.get(&handle).and_then(|served| transfers.get(&served.transfer));
    of.and_then(|of| of.pieces.as_ref())
}

/// How many peers are known to have a piece that is asked for: what few have goes out first.
pub(super) fn rarity(pieces: Option<&Pieces>, piece: u32) -> u16 {
    let pieces = pieces.filter(|pieces| piece < pieces.len());
    pieces.map_or(0, |pieces| pieces.picker.availability(piece).min(COMMON))
}
