//! Peers for people: who is connected, who is remembered, who is banned, and forgiving.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use libp2p::{Multiaddr, PeerId};
use modswarm_protocol::engine::{Cause, PeerKey, PeerRecord};
use modswarm_store::KnownPeer;
use tokio::sync::oneshot;

use super::{Inner, actor::Command, index_failure, jobs, network, node_ended, task_failure};
use crate::api::{Failure, FailureKind, ForgiveRequest, Forgiven, PeerFault, PeerStatus};

async fn records(node: &Inner) -> Result<Vec<KnownPeer>, Failure> {
    let (reply, answer) = oneshot::channel();
    node.send(Command::KnownPeers { reply }).await?;
    answer.await.map_err(|_| node_ended())
}

/// Connected peers.
pub(super) async fn peers(node: &Arc<Inner>) -> Result<Vec<PeerStatus>, Failure> {
    let overview = node.overview().await?;
    let known = records(node).await?;
    let known: HashMap<PeerKey, &PeerRecord> = known.iter().map(|peer| (peer.record.peer, &peer.record)).collect();
    let now = jobs::unix_seconds();
    let status = |peer: &super::actor::PeerView| {
        let of = |transfer| overview.contents.get(transfer).copied();
        let mut status = PeerStatus {
            peer_id: peer.peer.to_string(),
            transport: network::transport_name(&peer.addr).to_owned(),
            addr: peer.addr.to_string(),
            agent: peer.stats.agent.clone(),
            rtt_ms: u64::try_from(peer.stats.rtt.as_millis()).ok(),
            bytes_received: peer.stats.bytes_down,
            bytes_sent: peer.stats.bytes_up,
            download_rate: peer.stats.rate_down,
            upload_rate: peer.stats.rate_up,
            contents: peer.stats.transfers.iter().filter_map(of).collect(),
            connected: true,
            ..PeerStatus::default()
        };
        if let Some(record) = known.get(&peer.stats.peer) {
            add_record(&mut status, record, now);
        }
        status
    };
    Ok(overview.peers.iter().map(status).collect())
}

/// Remembered peers that are not connected: banned ones first, then the worst first.
pub(super) async fn known_peers(node: &Arc<Inner>) -> Result<Vec<PeerStatus>, Failure> {
    let connected: HashSet<PeerKey> = node
        .overview()
        .await?
        .peers
        .iter()
        .map(|peer| peer.stats.peer)
        .collect();
    let now = jobs::unix_seconds();
    let known = records(node).await?;
    let away = known.iter().filter(|peer| !connected.contains(&peer.record.peer));
    let mut known: Vec<PeerStatus> = away.filter_map(|peer| remembered(peer, now)).collect();
    known.sort_by_key(|peer| {
        (
            peer.banned_until.is_none(),
            peer.score,
            std::cmp::Reverse(peer.last_seen),
        )
    });
    Ok(known)
}

fn remembered(peer: &KnownPeer, now: u64) -> Option<PeerStatus> {
    let addr = peer.addr.parse().ok().filter(|addr: &Multiaddr| !addr.is_empty());
    let record = &peer.record;
    let mut status = PeerStatus {
        peer_id: PeerId::from_bytes(&peer.peer_id).ok()?.to_string(),
        transport: addr
            .as_ref()
            .map(network::transport_name)
            .unwrap_or_default()
            .to_owned(),
        addr: peer.addr.clone(),
        rtt_ms: record.rtt.and_then(|rtt| u64::try_from(rtt.as_millis()).ok()),
        ..PeerStatus::default()
    };
    add_record(&mut status, record, now);
    Some(status)
}

fn add_record(status: &mut PeerStatus, record: &PeerRecord, now: u64) {
    let ban = record.ban_at(now);
    status.score = record.score(now);
    status.bytes_received_total = record.bytes_down;
    status.bytes_sent_total = record.bytes_up;
    status.usual_download_rate = record.rate_down;
    status.last_seen = Some(record.seen);
    status.banned_until = ban.map(|ban| ban.until);
    status.ban_reason = ban.map(|ban| ban.fault.name().to_owned());
    let evidence = record.evidence(now);
    let points = |fault| {
        let of = evidence
            .iter()
            .find(|part| matches!(part.cause, Cause::Fault(tally) if tally.fault == fault));
        of.map_or(0.0, |part| part.points)
    };
    let fault = |tally: &modswarm_protocol::engine::Tally| PeerFault {
        kind: tally.fault.name().to_owned(),
        count: tally.count,
        last: tally.last,
        points: points(tally.fault).round() as i32,
    };
    status.faults = record.faults.iter().map(fault).collect();
}

/// Takes bans and faults back. Durable, and in force at once.
pub(super) async fn forgive(node: &Arc<Inner>, request: ForgiveRequest) -> Result<Forgiven, Failure> {
    let peer = match &request.peer_id {
        None => None,
        Some(text) => Some(text.parse::<PeerId>().map_err(|error| {
            Failure::new(
                FailureKind::Usage,
                format!("`{text}` is not a peer ID: {error}"),
                "peer IDs look like 12D3KooW… and are shown by `modswarm peers`",
            )
        })?),
    };
    if let Some(peer) = peer {
        let id = peer.to_bytes();
        if !records(node).await?.iter().any(|known| known.peer_id == id) {
            return Err(Failure::new(
                FailureKind::NotFound,
                format!("no peer {peer} is remembered here"),
                "see `modswarm peers --all` for those that are",
            ));
        }
    }
    // The engine first: whatever it gives the store to write from now on is forgiven.
    let (reply, answer) = oneshot::channel();
    node.send(Command::Forgive { peer, reply }).await?;
    let peers = answer.await.map_err(|_| node_ended())? as u64;
    let store = node.store.clone();
    let id = peer.map(|peer| peer.to_bytes());
    tokio::task::spawn_blocking(move || store.forgive(id.as_deref()))
        .await
        .map_err(task_failure)?
        .map_err(index_failure)?;
    Ok(Forgiven { peers })
}
