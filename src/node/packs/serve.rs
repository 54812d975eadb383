//! Serving what the home has: at the start, and for as long as the node lives.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use modswarm_protocol::{Cid, engine::ContentPieces};
use modswarm_store::{NetworkId, PackRecord, PackState as Kept, SkeletonReadError, Store};

use super::blocking;
use crate::{
    api::Failure,
    node::{
        Inner,
        actor::{Command, Register},
        facts::{Nodes, Seed},
        index_failure, wishes,
    },
};

/// How often the store is asked what can no longer be read.
const WITHDRAW_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is written down what was served.
const USED_INTERVAL: Duration = Duration::from_secs(600);

/// Serves every pack of the home that belongs to the node's network. Their files are not looked at here: that is done while they are served.
pub(in crate::node) async fn serve_all(node: &Arc<Inner>) -> Result<(), Failure> {
    let network = node.network_id();
    let records = blocking(node, |store| store.packs().map_err(index_failure)).await?;
    wishes::tell_all(node, &records).await?;
    for record in records.iter().filter(|record| record.network == network) {
        node.send(Command::Serve(register(record))).await?;
    }
    Ok(())
}

/// What the actor is told of a record to serve.
pub(in crate::node) fn register(record: &PackRecord) -> Register {
    Register {
        content: record.content,
        packs: record.pack.into_iter().collect(),
        has_something: record.pieces == 0 || record.pieces_here > 0,
    }
}

/// The records of the node's network that are served.
pub(in crate::node) async fn served(node: &Inner) -> Result<Vec<PackRecord>, Failure> {
    let network = node.network_id();
    blocking(node, move |store| {
        let mut records = store.packs().map_err(index_failure)?;
        records.retain(|record| record.network == network && record.state != Kept::Superseded);
        Ok(records)
    })
    .await
}

/// What it takes to serve a content; nothing (and a line in the log) if it cannot be served now.
pub(in crate::node) fn seed(store: &Store, content: &Cid, network: &NetworkId) -> Option<Seed> {
    let read = || -> Result<Option<Seed>, SkeletonReadError> {
        let mut records = store.packs_of(content)?;
        records.retain(|record| record.content == *content && record.network == *network);
        let Some(record) = records.first() else { return Ok(None) };
        let Some(known) = store.content(record)? else {
            return Ok(None);
        };
        // What is lost from now on is told to who asked.
        let Some(have) = store.have(content)? else {
            return Ok(None);
        };
        let mut heads = Vec::new();
        for pack in records.iter().filter_map(|record| record.pack) {
            heads.push(store.head_cids(&pack)?);
        }
        let nodes = match &heads[..] {
            [head] => {
                let mut bytes = 0;
                for cid in head {
                    bytes += store.node(cid)?.map_or(0, |bytes| bytes.len() as u64);
                }
                Nodes::new(&known, head, bytes)
            }
            // Who asks for one of several packs is not sent the others.
            _ => Nodes::new(&known, &[], 0).with(heads.into_iter().flatten()),
        };
        let map = Arc::clone(known.map());
        let wanted = Some(map.none());
        let pieces = ContentPieces { map, have, wanted };
        Ok(Some(Seed { pieces, nodes }))
    };
    read().unwrap_or_else(|error| {
        tracing::error!(%content, %error, "a content cannot be served");
        None
    })
}

/// Tells peers of pieces that can no longer be read here, for as long as the node lives.
pub(in crate::node) async fn watch_withdrawn(node: Weak<Inner>) {
    let mut tick = tokio::time::interval(WITHDRAW_INTERVAL);
    loop {
        tick.tick().await;
        let Some(node) = node.upgrade() else { return };
        for withdrawn in node.store.take_withdrawn() {
            tracing::warn!(content = %withdrawn.content, pieces = withdrawn.pieces.count_ones(), "no longer here");
            let content = withdrawn.content;
            let left = blocking(&node, move |store| store.packs_of(&content).map_err(index_failure)).await;
            let nothing_left = left.is_ok_and(|records| {
                let mut of_content = records.iter().filter(|record| record.content == content);
                of_content.all(|record| record.pieces_here == 0)
            });
            let lost = Command::Lost {
                content,
                pieces: withdrawn.pieces,
                nothing_left,
            };
            if node.send(lost).await.is_err() {
                return;
            }
        }
    }
}

/// Remembers what was served, so that clearing up takes first what nobody wants. For as long as the node lives.
pub(in crate::node) async fn watch_used(node: Weak<Inner>) {
    let mut tick = tokio::time::interval(USED_INTERVAL);
    let mut served: HashMap<Cid, u64> = HashMap::new();
    loop {
        tick.tick().await;
        let Some(node) = node.upgrade() else { return };
        let Ok(overview) = node.overview().await else { return };
        let now: HashMap<Cid, u64> = overview
            .transfers
            .iter()
            .map(|(content, (stats, _))| (*content, stats.bytes_served))
            .collect();
        let used: Vec<Cid> = now
            .iter()
            .filter(|(content, bytes)| **bytes > served.get(content).copied().unwrap_or(0))
            .map(|(content, _)| *content)
            .collect();
        served = now;
        if !used.is_empty()
            && let Err(failure) = blocking(&node, move |store| store.mark_used(&used).map_err(index_failure)).await
        {
            tracing::warn!(%failure, "what was served is not remembered");
        }
    }
}
