//! Which contents have their pieces in memory: those that somebody fetches. The others are read from the store when a peer asks for them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use modswarm_protocol::{Cid, engine::TransferId, format::PieceSet};

use super::Actor;
use crate::node::{
    facts::{Input, Seed},
    packs,
};

/// Contents that are read at a time.
pub(super) const MAX_LOADING: usize = 2;
/// How long pieces stay in memory after the last peer has gone.
const KEEP: Duration = Duration::from_secs(30);

/// A content that is being read from the store.
#[derive(Debug)]
pub(super) struct Loading {
    /// What was lost since it was begun.
    pub(super) lost: Vec<PieceSet>,
    /// Something has come meanwhile: it is read once more.
    again: bool,
}

impl Actor {
    /// Reads the pieces and nodes of a content that is served.
    pub(super) fn load(&mut self, transfer: TransferId) {
        let now = self.now();
        let network = self.network.id();
        let content = self.transfers.get_mut(&transfer).filter(|t| t.serving);
        let Some((t, content)) = content.and_then(|t| t.content.map(|content| (t, content))) else {
            self.engine.handle_no_pieces(now, transfer);
            return;
        };
        if let Some(loading) = &mut t.loading {
            loading.again = true;
            return;
        }
        t.loading = Some(Loading {
            lost: Vec::new(),
            again: false,
        });
        let store = self.pool.store().clone();
        let loads = Arc::clone(&self.loads);
        let inputs = self.input_sender.clone();
        tokio::spawn(async move {
            let Ok(_turn) = loads.acquire_owned().await else { return };
            let seed = tokio::task::spawn_blocking(move || packs::seed(&store, &content, &network)).await;
            let seed = seed.ok().flatten().map(Box::new);
            let _ = inputs.send(Input::Loaded { transfer, seed }).await;
        });
    }

    pub(super) fn handle_loaded(&mut self, transfer: TransferId, seed: Option<Seed>) {
        let now = self.now();
        let Some(t) = self.transfers.get_mut(&transfer) else {
            return;
        };
        let Some(loading) = t.loading.take() else { return };
        if loading.again {
            self.load(transfer);
            return;
        }
        let (Some(mut seed), Some(content)) = (seed, t.content) else {
            self.engine.handle_no_pieces(now, transfer);
            return;
        };
        for lost in loading.lost {
            for piece in lost.iter_ones() {
                if let Some(mut here) = seed.pieces.have.get_mut(piece) {
                    *here = false;
                }
            }
        }
        t.map = Some(Arc::clone(&seed.pieces.map));
        self.engine.set_skeleton(now, transfer, seed.nodes.skeleton());
        t.nodes = Arc::new(seed.nodes.all);
        t.unused_since = None;
        self.engine.set_pieces(now, transfer, content, seed.pieces);
    }

    /// Puts away the pieces of what nobody has fetched for a while.
    pub(super) fn put_unused_away(&mut self, clock: Instant) {
        let now = self.now();
        for (id, t) in &mut self.transfers {
            let unused = t.map.is_some()
                && t.serving
                && t.sink.is_none()
                && t.loading.is_none()
                && !self.engine.uses_pieces(*id);
            if !unused {
                t.unused_since = None;
            } else if clock.duration_since(*t.unused_since.get_or_insert(clock)) >= KEEP
                && self.engine.put_pieces_away(now, *id)
            {
                t.map = None;
                t.nodes = Arc::default();
            }
        }
    }

    /// Whether peers of a transfer that is served may ask for the node `cid`.
    pub(super) fn is_node_of(&self, transfer: TransferId, cid: &Cid) -> bool {
        self.transfers.get(&transfer).is_some_and(|t| t.nodes.contains(cid))
    }
}
