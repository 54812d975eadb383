//! Whole skeletons, at both ends: what comes behind a `WantSkeleton` without having been named in it.
//!
//! A skeleton is read from the top, and each level names the next: that is a round trip for each. Who has nothing of it asks one peer for all of it
//! instead, if it is small, and asks for no node elsewhere while that comes.

use std::sync::Arc;
use std::time::Duration;

use super::action::{Expected, Unwanted, Violation};
use super::conn::{Arriving, Conn, Kept};
use super::core::Engine;
use super::ids::{ConnId, TransferId};
use super::requests::LATE_GRACE;
use super::transfer::Transfer;
use crate::format::Cid;
use crate::time::Timestamp;
use crate::wire::limits::{MAX_SKELETON_BYTES, MAX_SKELETON_NODES};
use crate::wire::{BulkHeader, Handle, Message, RejectReason, Rejection, RequestId, What};

/// A skeleton of which nothing has come for this long, plus four round trips, is read level by level…
const SILENCE: Duration = Duration::from_secs(1);
/// …and one that has not come whole after this.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a transfer's skeleton is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Whole {
    /// Node by node.
    #[default]
    No,
    /// Whole, of the next peer that is asked.
    Due,
    /// Whole: it is coming from this peer.
    From(ConnId),
}

/// What may come, or may still come, behind one `WantSkeleton` of ours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coming {
    handle: Handle,
    request: RequestId,
    transfer: TransferId,
    nodes: u32,
    bytes: u64,
    since: Timestamp,
    last: Timestamp,
    /// Whether nobody is asked for nodes meanwhile.
    awaited: bool,
}

impl Engine {
    /// Wants nodes as [`Engine::want_nodes`] does, of a skeleton of which nothing else is here: all of it may come, in any order and also what was not wanted
    /// yet, but at most [`MAX_SKELETON_NODES`] nodes and [`MAX_SKELETON_BYTES`] of those.
    pub fn want_skeleton(&mut self, now: Timestamp, transfer: TransferId, cids: &[Cid]) {
        if let Some(of) = self.transfers.get_mut(&transfer)
            && of.nodes.whole == Whole::No
        {
            of.nodes.whole = Whole::Due;
        }
        self.want_nodes(now, transfer, cids);
    }

    /// Says what a skeleton consists of: its nodes, from the top, and their bytes. Peers that ask for it whole get it so if it is small: at most
    /// [`MAX_SKELETON_NODES`] nodes and [`MAX_SKELETON_BYTES`]. None for one that is not.
    pub fn set_skeleton(&mut self, now: Timestamp, transfer: TransferId, skeleton: Option<(&[Cid], u64)>) {
        self.advance(now);
        let small = skeleton
            .filter(|(nodes, bytes)| nodes.len() <= MAX_SKELETON_NODES as usize && *bytes <= MAX_SKELETON_BYTES);
        if let Some(of) = self.transfers.get_mut(&transfer) {
            of.skeleton = small.map(|(nodes, _)| Arc::from(nodes));
        }
    }

    /// A peer wants the rest of a skeleton, of which it has asked for `named`.
    pub(super) fn send_skeleton(
        &mut self,
        id: ConnId,
        handle: Handle,
        request: RequestId,
        named: &[Cid],
    ) -> Result<(), Violation> {
        let Some(conn) = self.conns.get_mut(&id) else {
            return Ok(());
        };
        let Some(served) = conn.served.get(&handle) else {
            return Ok(());
        };
        let skeleton = self.transfers.get(&served.transfer).and_then(|of| of.skeleton.as_ref());
        let rest = skeleton.map(|nodes| nodes.iter().filter(|cid| !named.contains(cid)).copied());
        let begun = rest.is_some_and(|rest| conn.uploads.push_skeleton(handle, request, rest.collect()));
        if !begun {
            conn.flood.on_refused(self.now)?;
            let what = Rejection::Blocks {
                request,
                positions: Vec::new(),
            };
            self.reject(id, handle, what, RejectReason::NotFound);
        }
        Ok(())
    }

    /// Whether a peer is to be asked for all of a transfer's skeleton.
    pub(super) fn is_skeleton_due(&self, id: ConnId, transfer: TransferId) -> bool {
        let due = |of: &Transfer| of.nodes.whole == Whole::Due;
        // One that has not said what it knows is taken to know it.
        let knows = |conn: &Conn| conn.skeletons || !conn.is_ready();
        self.transfers.get(&transfer).is_some_and(due) && self.conns.get(&id).is_some_and(knows)
    }

    /// Asks a peer for `named` and for what lies below.
    pub(super) fn ask_skeleton(
        &mut self,
        id: ConnId,
        handle: Handle,
        request: RequestId,
        transfer: TransferId,
        named: Vec<Cid>,
    ) {
        let (Some(conn), Some(of)) = (self.conns.get_mut(&id), self.transfers.get_mut(&transfer)) else {
            return;
        };
        of.nodes.whole = Whole::From(id);
        conn.coming.retain(|coming| self.now.since(coming.last) < LATE_GRACE);
        conn.coming.push(Coming {
            handle,
            request,
            transfer,
            nodes: MAX_SKELETON_NODES,
            bytes: MAX_SKELETON_BYTES,
            since: self.now,
            last: self.now,
            awaited: true,
        });
        self.send(
            id,
            Message::WantSkeleton {
                handle,
                request,
                cids: named,
            },
        );
    }

    /// The header of a node that was not named came.
    pub(super) fn judge_unnamed(
        &mut self,
        id: ConnId,
        header: &BulkHeader,
        (request, cid, more): (RequestId, Cid, u16),
    ) -> Result<Expected, Unwanted> {
        let BulkHeader { handle, what, len, .. } = *header;
        let Some(conn) = self.conns.get_mut(&id) else {
            return Err(Unwanted::Late);
        };
        let mut coming = conn.coming.iter_mut();
        let Some(coming) = coming.find(|coming| coming.is_of(handle, Some(request))) else {
            return Err(Unwanted::Violation(Violation::Unsolicited));
        };
        if coming.nodes <= u32::from(more) || coming.bytes < u64::from(len) {
            return Err(Unwanted::Violation(Violation::Unsolicited));
        }
        coming.nodes = u32::from(more);
        coming.bytes -= u64::from(len);
        coming.last = self.now;
        let (transfer, awaited) = (coming.transfer, coming.awaited);
        let expected = Expected {
            conn: id,
            transfer,
            cid,
            len,
            piece: None,
        };
        let mut of = self.transfers.get_mut(&transfer);
        let wanted = of.as_ref().is_some_and(|of| of.nodes.contains(&cid));
        let kept = (conn.sessions.contains_key(&handle) && (awaited || wanted)).then_some(Kept {
            expected,
            handle,
            what,
            requested: false,
            since: self.now,
            awaited: false,
        });
        conn.arriving = Some(Arriving { rest: len, kept });
        if let (Some(_), Some(of)) = (kept, &mut of) {
            of.nodes.on_unnamed(id, &cid);
        }
        if more == 0 {
            self.end_skeletons(id, |coming| coming.is_of(handle, Some(request)));
        }
        kept.map(|_| expected).ok_or(Unwanted::Late)
    }

    /// Time has passed: a skeleton that does not come is read otherwise.
    pub(super) fn find_silent_skeletons(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(&id) else { return };
        let now = self.now;
        let silence = SILENCE + conn.window.rtt() * 4;
        if !conn.awaits_skeleton() {
            return;
        }
        self.busy = true;
        if !conn.is_ready() {
            // Who has not even said what it knows may never do, and would be awaited for long.
            if now.since(conn.since) >= silence {
                self.on_no_skeletons(id);
            }
        } else {
            self.end_skeletons(id, |coming| {
                now.since(coming.last) >= silence || now.since(coming.since) >= PATIENCE
            });
        }
    }

    /// The peer does not know whole skeletons: what was named is asked for again, of anybody.
    pub(super) fn on_no_skeletons(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let mut unread = Vec::new();
        for coming in &conn.coming {
            let named = conn.requests.of_handle(coming.handle).map(|(what, _)| what);
            let named = named.filter(|what| matches!(what, What::Block { request, .. } if *request == coming.request));
            unread.extend(named.map(|what| (coming.handle, what)));
        }
        self.end_skeletons(id, |_| true);
        for (handle, what) in unread {
            self.end_request(id, handle, what, false);
        }
    }

    /// Skeletons that a peer was to send are awaited no more, though they may still come.
    pub(super) fn end_skeletons(&mut self, id: ConnId, which: impl Fn(&Coming) -> bool) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        for coming in conn.coming.iter_mut().filter(|coming| which(coming)) {
            coming.awaited = false;
            if let Some(of) = self.transfers.get_mut(&coming.transfer)
                && of.nodes.whole == Whole::From(id)
            {
                of.nodes.whole = Whole::No;
                self.to_refill.insert(coming.transfer);
            }
        }
    }

    /// All of a transfer's skeleton is here.
    pub(super) fn end_skeleton_of(&mut self, transfer: TransferId) {
        let of = self.transfers.get_mut(&transfer);
        let whole = of.map_or(Whole::No, |of| std::mem::take(&mut of.nodes.whole));
        if let Whole::From(id) = whole {
            self.end_skeletons(id, |coming| coming.transfer == transfer);
        }
    }
}

impl Coming {
    pub(crate) fn is_of(&self, handle: Handle, request: Option<RequestId>) -> bool {
        self.handle == handle && request.is_none_or(|request| self.request == request)
    }
}

impl Conn {
    /// Whether a skeleton is coming from it that nobody else is asked for.
    pub(crate) fn awaits_skeleton(&self) -> bool {
        self.coming.iter().any(|coming| coming.awaited)
    }
}
