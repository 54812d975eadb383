//! The end of a transfer: everything is on request, and some connections have nothing to do while others are slow.
//!
//! A piece is then asked of a second peer, and of more if those dribble, that would bring it much sooner. Where the first has not come near it, it is
//! asked to release the piece before (the piece *moves*); else it may come twice, and what may come twice is bounded. Pieces move before the end too, to
//! peers that would have nothing to do.

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
/// Before the end.
const EARLY_LOOKS: usize = 256;
/// Of the bytes wanted, one part in this many may come twice.
const BUDGET: u64 = 200;
/// A second copy must come at least this much sooner than the first.
const GAIN: Duration = Duration::from_millis(100);
/// A transfer too small for a budget may double one piece for this gain.
const LARGE_GAIN: Duration = Duration::from_secs(2);
/// Of a peer that was given up on before, a piece is asked elsewhere for this gain whatever has come twice already.
const RESCUE_GAIN: Duration = Duration::from_secs(5);
/// Who takes so many times as long as another dribbles…
const DRIBBLES: u32 = 8;
/// …and for this gain half as much again may come twice: who dribbles holds up nobody's end, and by then has not brought much.
const DRIBBLE_GAIN: Duration = Duration::from_secs(10);
/// While so few pieces are missing, [`LARGE_GAIN`] is enough for that.
const LAST: usize = 2;
/// A piece that so many are asked for goes to one more at the most, if all of them dribble: who has never been asked for anything may do so too.
const MAX_COPIES: usize = 4;
/// How long before its turn a piece can be released, beyond a round trip: servers read a little ahead.
const RELEASE_MARGIN: Duration = Duration::from_millis(200);

/// A piece to have of another peer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Choice {
    /// Once who was to bring it has released it.
    Move { piece: u32, from: ConnId },
    /// Beside whoever is to bring it.
    Double { piece: u32 },
}

/// The piece that `id` would bring soonest as compared with who is to bring it; none if nothing is gained. Before the end is near (`over`) pieces only move.
pub(crate) fn choose(
    now: Timestamp,
    id: ConnId,
    handle: Handle,
    transfer_id: TransferId,
    over: bool,
    conns: &BTreeMap<ConnId, Conn>,
    transfers: &BTreeMap<TransferId, Transfer>,
) -> Option<Choice> {
    let conn = conns.get(&id)?;
    let source = &conn.sessions.get(&handle)?.source;
    let transfer = transfers.get(&transfer_id)?;
    let pieces = transfer.pieces.as_ref()?;
    let root = transfer.content?;
    let mut doubled = 0;
    let mut best: Option<Gain> = None;
    for (piece, pending) in pieces.pending.iter().take(if over { MAX_LOOKS } else { EARLY_LOOKS }) {
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
            let request = requested(other, &root, *piece);
            let (before, ahead) = match request {
                Some(request) => {
                    let ahead = other.requests.ahead(request).min(other.window.in_flight());
                    (other.window.time_for(now, ahead), ahead)
                }
                None => {
                    let rest = other.awaited(transfer_id, *piece)?;
                    (other.window.silence(now) + other.window.drains_in(rest), rest)
                }
            };
            Some((before, ahead, *from, other, request))
        });
        let Some((before, ahead, from, other, request)) = asked.min_by_key(|(before, ..)| *before) else {
            continue;
        };
        let after = conn.window.eta(now, len);
        if before < after * 3 / 2 + GAIN || request.is_some_and(|request| request.is_being_released(now)) {
            continue;
        }
        let until_turn = other.window.drains_in(ahead.saturating_sub(len));
        let moves = copies == 1
            && request.is_some_and(|request| request.received == 0 && request.release.is_none())
            && until_turn > other.window.rtt() + RELEASE_MARGIN;
        let dribbles = before >= after * DRIBBLES;
        if (!over && !moves) || (copies > 1 && !(dribbles && before - after >= DRIBBLE_GAIN)) {
            continue;
        }
        let gain = before - after;
        if best.as_ref().is_none_or(|best| gain > best.gain) {
            best = Some(Gain {
                gain,
                piece: *piece,
                len,
                from,
                moves,
                dribbles,
            });
        }
    }
    let best = best?;
    let (piece, from) = (best.piece, best.from);
    if best.moves {
        return Some(Choice::Move { piece, from });
    }
    let spent = transfer.bytes_wasted + doubled;
    let budget = pieces.wanted_bytes / BUDGET;
    let given_up = conns.get(&from).is_some_and(|from| from.snubbed_until.is_some());
    let rescue = given_up && best.gain >= RESCUE_GAIN;
    let small = budget < best.len && spent == 0 && best.gain >= LARGE_GAIN;
    let large = if pieces.pending.len() <= LAST {
        LARGE_GAIN
    } else {
        DRIBBLE_GAIN
    };
    let budget = if best.dribbles && best.gain >= large {
        budget * 3 / 2
    } else {
        budget
    };
    (spent + best.len <= budget || small || rescue).then_some(Choice::Double { piece })
}

/// What is gained by having a piece of another peer.
struct Gain {
    gain: Duration,
    piece: u32,
    len: u64,
    from: ConnId,
    moves: bool,
    dribbles: bool,
}

/// What `other` was asked for a piece.
fn requested<'a>(other: &'a Conn, root: &Cid, piece: u32) -> Option<&'a Request> {
    let handle = other.by_root.get(root)?;
    other.requests.get(*handle, What::Piece(piece))
}
