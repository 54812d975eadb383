//! What the engine wants done.

use modswarm_protocol::{
    Codec,
    engine::{Action, Event, ServeFailure, ServeJob},
};

use super::{Actor, TransferEvent};
use crate::node::{
    blocks::Source,
    facts::{EndReason, SessionError},
    session::Serve,
};

impl Actor {
    /// Drains the engine.
    pub(super) fn carry_out(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            match action {
                Action::Send(conn, message) => {
                    let kept_up = self.sessions.get(&conn).is_none_or(|live| live.session.send(&message));
                    if !kept_up {
                        self.end_session(conn, &SessionError::NotRead("messages").into());
                    }
                }
                Action::Serve(job) => self.serve(job),
                Action::Pace { conn, handle, rate } => {
                    if let Some(live) = self.sessions.get(&conn) {
                        live.session.set_pace(handle, rate);
                    }
                }
                Action::Weigh { conn, weight } => {
                    if let Some(live) = self.sessions.get(&conn) {
                        self.weights.set(live.session.peer, weight);
                    }
                }
                Action::Disconnect(conn, reason) => self.end_session(conn, &EndReason::Engine(reason)),
                Action::Event(event) => self.handle_event(event),
            }
        }
    }

    fn serve(&mut self, job: ServeJob) {
        let now = self.now();
        let Some(source) = self.source_of(&job) else {
            self.engine.handle_served(now, &job, Err(ServeFailure::NotHere));
            return;
        };
        let Some(live) = self.sessions.get_mut(&job.conn) else {
            return;
        };
        if !live.session.bulk_requested {
            live.session.bulk_requested = true;
            let (peer, connection) = (live.session.peer, live.session.connection);
            self.swarm.behaviour_mut().swap.open_bulk(peer, connection);
        }
        if !live.session.serve(Serve { job, source }) {
            self.engine.handle_served(now, &job, Err(ServeFailure::Busy));
        }
    }

    /// Where a block lies; nothing if this transfer's peers have no business with it.
    fn source_of(&self, job: &ServeJob) -> Option<Source> {
        if job.piece.is_some() {
            return job.len.map(Source::Leaf);
        }
        if self.is_node_of(job.transfer, &job.cid) {
            return Some(Source::Node);
        }
        // It may lie in any pack of this network, an older or newer version most likely; nodes of others are none of the peer's business.
        (job.cid.codec() == Codec::Raw).then_some(Source::AnyLeaf)
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::PieceDone { transfer, .. } => self.tell(transfer, TransferEvent::Piece),
            Event::Complete(transfer) => {
                self.discovery.stop(transfer, &mut self.swarm.behaviour_mut().kad);
                self.tell(transfer, TransferEvent::Complete);
            }
            Event::PeersHeard { transfer, conn, peers } => self.peers_heard(transfer, conn, peers),
            Event::PiecesNeeded(transfer) => self.load(transfer),
            Event::NeedPeers(transfer) => self.discovery.hurry(transfer, std::time::Instant::now()),
            Event::WriteFailed(transfer) => {
                let problem = self.transfers.get_mut(&transfer).and_then(|t| t.problem.take());
                self.tell(transfer, TransferEvent::WriteFailed(problem));
            }
            Event::Banned {
                peer,
                transfer,
                cid,
                until,
                ..
            } => {
                let who = self.block(&peer);
                let span = self.span_until(until);
                tracing::warn!(peer = who, %cid, span, "banned for sending wrong bytes");
                let notice =
                    format!("{who} sent wrong bytes and will not be asked again for {span}; nothing of it was kept");
                self.tell(transfer, TransferEvent::Notice(notice));
            }
            Event::BannedForViolation {
                peer, violation, until, ..
            } => {
                let who = self.block(&peer);
                tracing::warn!(peer = who, %violation, span = self.span_until(until), "banned for breaking the protocol again and again");
            }
            Event::RecordsChanged => self.keep_records(),
            Event::Ready { conn, agent } => tracing::debug!(?conn, agent, "session is ready"),
            Event::NodeDone { .. } | Event::NodesMissing { .. } => {}
        }
    }

    pub(super) fn tell(&self, transfer: modswarm_protocol::engine::TransferId, event: TransferEvent) {
        if let Some(sink) = self.transfers.get(&transfer).and_then(|t| t.sink.as_ref()) {
            // A job that is behind reads the state of things itself when it wakes.
            let _ = sink.try_send(event);
        }
    }
}
