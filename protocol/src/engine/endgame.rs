//! The end of a transfer: everything is on request, and some connections have nothing to do while others are slow.
//!
//! A piece is then asked of a second peer, and of a third if two dribble, that would bring it much sooner. Where the first has not come near it, it is
//! told to forget the piece in time (the piece *moves*); else it may come twice, and what may come twice is bounded.

use std::collections::BTreeMap;
use std::time::Duration;

use super::conn::Conn;
use super::ids::{ConnId, TransferId};
use super::requests::Request;
use super::transfer::Transfer;
use crate::format::Cid;
use crate::time::Timestamp;
use crate::wire::{Handle, What};

/// Pending pieces that are looked at for one choice.
const MAX_LOOKS: usize = 4096;
/// Of the bytes wanted, one part in this many may come twice.
const BUDGET: u64 = 200;
/// Of the bytes moved, one part in this many is taken to come twice.
const MOVE_RISK: u64 = 2;
/// A second copy must come at least this much sooner than the first.
const GAIN: Duration = Duration::from_millis(100);
/// A transfer too small for a budget may double one piece for this gain.
const LARGE_GAIN: Duration = Duration::from_secs(2);
/// Of a peer that was given up on before, a piece is asked elsewhere for this gain whatever has come twice already…
const RESCUE_GAIN: Duration = Duration::from_secs(5);
/// …and of one that takes so many times as long as another, for this one: who dribbles holds up nobody's end, and by then has not brought much.
const DRIBBLE_GAIN: Duration = Duration::from_secs(10);
const DRIBBLES: u32 = 8;
/// A piece that two are asked for goes to a third at the most, if both dribble: who has never been asked for anything may do so too.
const MAX_COPIES: usize = 2;
/// How long before its turn a piece is cancelled in time, beyond a round trip: servers read a little ahead.
const CANCEL_MARGIN: Duration = Duration::from_millis(400);

/// A piece to ask of one more peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    pub(crate) piece: u32,
    /// Who was to bring it.
    pub(crate) from: ConnId,
    /// Whether `from` is told in time to forget it.
    pub(crate) moved: bool,
}

/// The piece that `id` would bring soonest as compared with who is to bring it; none if nothing is gained.
pub(crate) fn choose(
    now: Timestamp,
    id: ConnId,
    handle: Handle,
    transfer_id: TransferId,
    conns: &BTreeMap<ConnId, Conn>,
    transfers: &BTreeMap<TransferId, Transfer>,
) -> Option<Choice> {
    let conn = conns.get(&id)?;
    let source = &conn.sessions.get(&handle)?.source;
    let transfer = transfers.get(&transfer_id)?;
    let pieces = transfer.pieces.as_ref()?;
    let root = transfer.content?;
    let mut doubled = 0;
    let mut best: Option<(Duration, Choice, u64, bool)> = None;
    for (piece, pending) in pieces.pending.iter().take(MAX_LOOKS) {
        let len = u64::from(pieces.piece_len(*piece));
        let copies = pending.assignees.len() + usize::from(pending.verifying);
        if copies > 1 {
            doubled += len * (copies as u64 - 1);
        }
        if copies > MAX_COPIES || pending.verifying > 0 || pending.assignees.contains(&id) || !source.has(*piece) {
            continue;
        }
        // Whoever brings it soonest counts.
        let asked = pending.assignees.iter().filter_map(|from| {
            let other = conns.get(from)?;
            let request = requested(other, &root, *piece)?;
            let ahead = other.requests.ahead(request).min(other.window.in_flight());
            Some((other.window.time_for(now, ahead), ahead, *from, other, request))
        });
        let Some((before, ahead, from, other, request)) = asked.min_by_key(|(before, ..)| *before) else {
            continue;
        };
        let after = conn.window.eta(now, len);
        if before < after * 3 / 2 + GAIN {
            continue;
        }
        let dribbles = before >= after * DRIBBLES;
        if copies > 1 && !(dribbles && before - after >= DRIBBLE_GAIN) {
            continue;
        }
        let until_turn = other.window.drains_in(ahead.saturating_sub(len));
        let moved = copies == 1 && request.received == 0 && until_turn > (other.window.rtt() + CANCEL_MARGIN) * 2;
        let gain = before - after;
        if best.as_ref().is_none_or(|(known, ..)| gain > *known) {
            best = Some((
                gain,
                Choice {
                    piece: *piece,
                    from,
                    moved,
                },
                len,
                dribbles,
            ));
        }
    }
    let (gain, choice, len, dribbles) = best?;
    let spent = transfer.bytes_wasted + doubled;
    let budget = pieces.wanted_bytes / BUDGET;
    // A move costs nothing if the peer is told in time; where that was not so, what came twice is spent.
    let charge = if choice.moved { 0 } else { len };
    let spent = spent + transfer.bytes_moved / MOVE_RISK;
    let given_up = conns.get(&choice.from).is_some_and(|from| from.snubbed_until.is_some());
    let rescue = (given_up && gain >= RESCUE_GAIN) || (dribbles && gain >= DRIBBLE_GAIN);
    let small = budget < len && spent == 0 && gain >= LARGE_GAIN;
    (spent + charge <= budget || small || rescue).then_some(choice)
}

/// What `other` was asked for a piece.
fn requested<'a>(other: &'a Conn, root: &Cid, piece: u32) -> Option<&'a Request> {
    let handle = other.by_root.get(root)?;
    other.requests.get(*handle, What::Piece(piece))
}
