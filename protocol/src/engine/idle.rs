//! Seeds that nobody asks for: their pieces are not in memory until a peer opens them, and are put away once nobody has to do with them.

use super::action::{Event, Violation};
use super::config::ContentSpec;
use super::core::Engine;
use super::ids::{ConnId, TransferId};
use super::serve::Asked;
use crate::format::Cid;
use crate::time::Timestamp;
use crate::wire::limits::MAX_QUEUED_CIDS;
use crate::wire::{Handle, RejectReason, Rejection, RequestId};

/// A seeded content whose pieces are not in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Idle {
    /// What peers have opened meanwhile, answered once the pieces are there.
    pub(crate) waiting: Vec<Waiting>,
    /// Whether the caller was asked for the pieces.
    pub(crate) asked: bool,
}

/// An `Open` that waits for its answer.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) conn: ConnId,
    pub(crate) handle: Handle,
    pub(crate) root: Cid,
    /// Nodes that were asked for without awaiting the answer.
    pub(crate) nodes: Vec<(RequestId, Vec<Cid>, Asked)>,
}

impl Engine {
    /// Adds a content of which nothing is wanted, to be seeded: `pieces` of `spec` are ignored. They are asked for ([`Event::PiecesNeeded`]) when a peer
    /// first wants them, so that contents that nobody asks for cost next to nothing. Nothing changes if the pieces are known already.
    pub fn add_seed(&mut self, now: Timestamp, mut spec: ContentSpec) -> TransferId {
        spec.pieces = None;
        let known = spec.content.is_some_and(|content| self.roots.contains_key(&content));
        let id = self.add_content(now, spec);
        if !known
            && let Some(transfer) = self.transfers.get_mut(&id)
            && transfer.pieces.is_none()
        {
            transfer.idle = Some(Idle::default());
            self.close_sessions(id);
        }
        id
    }

    /// The pieces of a seeded content that a peer asked for cannot be had: peers are told that it is not here.
    pub fn handle_no_pieces(&mut self, now: Timestamp, transfer: TransferId) {
        self.advance(now);
        let idle = self.transfers.get_mut(&transfer).and_then(|of| of.idle.as_mut());
        let waiting = idle.map(std::mem::take).unwrap_or_default().waiting;
        self.refuse_waiting(waiting);
    }

    /// Whether peers or the node itself have to do with the pieces of a content now. One of which that is not so can be put away by
    /// [`Engine::put_pieces_away`].
    pub fn uses_pieces(&self, transfer: TransferId) -> bool {
        let Some(of) = self.transfers.get(&transfer) else {
            return false;
        };
        of.is_fetching()
            || of.idle.as_ref().is_some_and(|idle| idle.asked)
            || of.pieces.as_ref().is_some_and(|pieces| !pieces.pending.is_empty())
            || self
                .conns
                .values()
                .any(|conn| conn.served.values().any(|served| served.transfer == transfer))
    }

    /// Forgets the pieces of a content that is seeded and that nobody uses, until a peer asks for it. Whether it did.
    pub fn put_pieces_away(&mut self, now: Timestamp, transfer: TransferId) -> bool {
        self.advance(now);
        if self.uses_pieces(transfer) {
            return false;
        }
        // A seed opens what it seeds only to learn how it spreads, and who is behind.
        self.end_spreading(transfer);
        self.close_sessions(transfer);
        let Some(of) = self.transfers.get_mut(&transfer).filter(|of| of.content.is_some()) else {
            return false;
        };
        of.pieces = None;
        of.skeleton = None;
        of.idle.get_or_insert_default();
        self.to_tell.remove(&transfer);
        true
    }

    /// Tells peers that waited for pieces of a content that it is not here.
    pub(super) fn refuse_waiting(&mut self, waiting: Vec<Waiting>) {
        for Waiting {
            conn, handle, nodes, ..
        } in waiting
        {
            self.reject(conn, handle, Rejection::Open, RejectReason::NotFound);
            for (request, cids, _) in nodes {
                let positions = (0..cids.len() as u16).collect();
                self.reject(
                    conn,
                    handle,
                    Rejection::Blocks { request, positions },
                    RejectReason::NotFound,
                );
            }
        }
    }

    /// Answers peers that waited for pieces which are there now.
    pub(super) fn answer_waiting(&mut self, waiting: Vec<Waiting>) {
        for Waiting {
            conn,
            handle,
            root,
            nodes,
        } in waiting
        {
            let mut answered = self.on_open(conn, handle, root);
            for (request, cids, asked) in nodes {
                answered = answered.and_then(|()| self.on_want(conn, handle, request, &cids, asked));
            }
            if let Err(violation) = answered {
                self.disconnect(conn, violation.into());
            }
        }
    }

    /// Keeps a request for nodes on a handle whose opening waits. `None` if none does.
    pub(super) fn keep_want(
        &mut self,
        id: ConnId,
        handle: Handle,
        request: RequestId,
        cids: &[Cid],
        asked: Asked,
    ) -> Option<Result<(), Violation>> {
        let idle = self.transfers.values_mut().filter_map(|of| of.idle.as_mut());
        let mut waiting: Vec<&mut Waiting> = idle
            .flat_map(|idle| &mut idle.waiting)
            .filter(|waiting| waiting.conn == id)
            .collect();
        let of_handle = waiting.iter().position(|waiting| waiting.handle == handle)?;
        let kept = waiting.iter().flat_map(|waiting| &waiting.nodes);
        // One of nothing takes memory too.
        let kept: usize = kept.map(|(_, cids, _)| cids.len().max(1)).sum();
        if kept + cids.len().max(1) > MAX_QUEUED_CIDS {
            return Some(Err(Violation::OverLimit("nodes")));
        }
        waiting[of_handle].nodes.push((request, cids.to_vec(), asked));
        Some(Ok(()))
    }

    /// A peer does not wait for the answer to an `Open` any more.
    pub(super) fn forget_waiting(&mut self, id: ConnId, handle: Handle) {
        for idle in self.transfers.values_mut().filter_map(|of| of.idle.as_mut()) {
            idle.waiting
                .retain(|waiting| (waiting.conn, waiting.handle) != (id, handle));
        }
    }

    /// Whether `transfer` is idle; a peer's `Open` waits then, and the caller is asked for the pieces.
    pub(super) fn wait_for_pieces(&mut self, transfer: TransferId, conn: ConnId, handle: Handle, root: Cid) -> bool {
        let Some(idle) = self.transfers.get_mut(&transfer).and_then(|of| of.idle.as_mut()) else {
            return false;
        };
        idle.waiting.push(Waiting {
            conn,
            handle,
            root,
            nodes: Vec::new(),
        });
        if !std::mem::replace(&mut idle.asked, true) {
            self.event(Event::PiecesNeeded(transfer));
        }
        true
    }

    /// Handles of a peer that wait for pieces.
    pub(super) fn waiting_handles(&self, id: ConnId) -> impl Iterator<Item = Handle> {
        let idle = self.transfers.values().filter_map(|of| of.idle.as_ref());
        let waiting = idle.flat_map(|idle| &idle.waiting);
        waiting
            .filter(move |waiting| waiting.conn == id)
            .map(|waiting| waiting.handle)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::engine::{Action, ContentPieces, DisconnectReason, EngineConfig, PeerKey, PickOrder};
    use crate::format::{Codec, HashKind, Leaf, PieceMap};
    use crate::wire::{Have, Hello, Message, NetworkId};

    const CONN: ConnId = ConnId(1);
    const NOW: Timestamp = Timestamp::ZERO;

    fn cid(name: &str) -> Cid {
        Cid::of(Codec::Raw, HashKind::Blake3, name.as_bytes())
    }

    fn seeding(content: Cid) -> (Engine, TransferId) {
        let mut engine = Engine::new(EngineConfig::default(), 1);
        let seed = engine.add_seed(
            NOW,
            ContentSpec {
                content: Some(content),
                packs: Vec::new(),
                network: NetworkId::PUBLIC,
                pieces: None,
                related: Vec::new(),
                order: PickOrder::default(),
            },
        );
        engine.handle_connected(NOW, CONN, PeerKey::of(b"peer"), Duration::from_millis(10));
        let hello = Hello {
            network: NetworkId::PUBLIC,
            agent: "test".to_owned(),
            extensions: Vec::new(),
        };
        engine.handle_message(NOW, CONN, Message::Hello(hello));
        (engine, seed)
    }

    fn open(engine: &mut Engine, handle: u32, root: Cid) {
        let handle = Handle(handle);
        engine.handle_message(NOW, CONN, Message::Open { handle, root });
    }

    fn pieces() -> ContentPieces {
        let leaves = ["a", "b"].map(|name| Leaf { cid: cid(name), len: 1 });
        let map = Arc::new(PieceMap::new(leaves.to_vec()));
        ContentPieces {
            have: map.all(),
            wanted: Some(map.none()),
            map,
        }
    }

    /// What was done, as far as it has to do with opening.
    fn done(engine: &mut Engine) -> Vec<Action> {
        std::iter::from_fn(|| engine.poll_action())
            .filter(|action| match action {
                Action::Send(_, message) => {
                    matches!(
                        message,
                        Message::Opened { .. } | Message::Rejected { .. } | Message::Closed { .. }
                    )
                }
                Action::Event(event) => matches!(event, Event::PiecesNeeded(_)),
                Action::Serve(_) | Action::Disconnect(..) => true,
                Action::Pace { .. } | Action::Weigh { .. } => false,
            })
            .collect()
    }

    fn opened(handle: u32) -> Action {
        Action::Send(
            CONN,
            Message::Opened {
                handle: Handle(handle),
                have: Have::All,
            },
        )
    }

    fn not_here(handle: u32) -> Action {
        Action::Send(
            CONN,
            Message::Rejected {
                handle: Handle(handle),
                what: Rejection::Open,
                reason: RejectReason::NotFound,
            },
        )
    }

    #[test]
    fn pieces_are_asked_for_once_and_put_away_when_nobody_has_to_do_with_them() {
        let content = cid("content");
        let (mut engine, seed) = seeding(content);
        assert!(!engine.uses_pieces(seed));
        for round in 0..3 {
            open(&mut engine, 2 * round, content);
            open(&mut engine, 2 * round + 1, content);
            assert_eq!(done(&mut engine), [Action::Event(Event::PiecesNeeded(seed))]);
            assert!(engine.uses_pieces(seed) && !engine.put_pieces_away(NOW, seed));
            engine.set_pieces(NOW, seed, content, pieces());
            assert_eq!(done(&mut engine), [opened(2 * round), opened(2 * round + 1)]);
            assert!(!engine.put_pieces_away(NOW, seed));
            for handle in [2 * round, 2 * round + 1].map(Handle) {
                engine.handle_message(NOW, CONN, Message::Close { handle });
            }
            assert!(engine.put_pieces_away(NOW, seed));
            assert_eq!(done(&mut engine), []);
        }
    }

    #[test]
    fn who_waits_is_told_when_the_pieces_cannot_be_had_and_may_ask_again() {
        let content = cid("content");
        let (mut engine, seed) = seeding(content);
        open(&mut engine, 0, content);
        engine.handle_no_pieces(NOW, seed);
        let asked = Action::Event(Event::PiecesNeeded(seed));
        assert_eq!(done(&mut engine), [asked.clone(), not_here(0)]);
        open(&mut engine, 0, content);
        engine.remove_content(NOW, seed);
        assert_eq!(done(&mut engine), [asked, not_here(0)]);
    }

    #[test]
    fn nodes_that_were_asked_for_without_awaiting_the_answer_come_after_it() {
        let content = cid("content");
        let (mut engine, seed) = seeding(content);
        open(&mut engine, 3, content);
        let want = Message::WantNodes {
            handle: Handle(3),
            request: RequestId(0),
            cids: vec![content],
        };
        engine.handle_message(NOW, CONN, want.clone());
        done(&mut engine);
        engine.set_pieces(NOW, seed, content, pieces());
        let after = done(&mut engine);
        assert_eq!(after[0], opened(3));
        assert!(matches!(after[1..], [Action::Serve(job)] if job.cid == content));
        let (mut engine, seed) = seeding(content);
        open(&mut engine, 3, content);
        engine.handle_message(NOW, CONN, want);
        done(&mut engine);
        engine.handle_no_pieces(NOW, seed);
        assert_eq!(done(&mut engine).len(), 2);
    }

    #[test]
    fn requests_of_nothing_that_wait_are_counted_too() {
        let content = cid("content");
        let (mut engine, _) = seeding(content);
        open(&mut engine, 0, content);
        let over = DisconnectReason::Violation(Violation::OverLimit("nodes"));
        let ended = (0..=MAX_QUEUED_CIDS as u32).any(|request| {
            let want = Message::WantSkeleton {
                handle: Handle(0),
                request: RequestId(request),
                cids: Vec::new(),
            };
            engine.handle_message(NOW, CONN, want);
            done(&mut engine).contains(&Action::Disconnect(CONN, over))
        });
        assert!(ended);
    }

    #[test]
    fn who_has_left_or_closed_is_not_answered() {
        let content = cid("content");
        let (mut engine, seed) = seeding(content);
        open(&mut engine, 0, content);
        open(&mut engine, 1, content);
        engine.handle_message(NOW, CONN, Message::Close { handle: Handle(0) });
        done(&mut engine);
        engine.set_pieces(NOW, seed, content, pieces());
        assert_eq!(done(&mut engine), [opened(1)]);
        let (mut engine, seed) = seeding(content);
        open(&mut engine, 0, content);
        engine.handle_disconnected(NOW, CONN);
        done(&mut engine);
        engine.set_pieces(NOW, seed, content, pieces());
        assert_eq!(done(&mut engine), []);
    }

    #[test]
    fn a_handle_that_waits_is_in_use() {
        let content = cid("content");
        let (mut engine, _) = seeding(content);
        open(&mut engine, 7, content);
        done(&mut engine);
        open(&mut engine, 7, content);
        assert!(matches!(done(&mut engine)[..], [Action::Disconnect(CONN, _)]));
    }
}
