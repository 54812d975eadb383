//! What a `get` tells: how far it is, what the user should know, and the sums at its end.

use modswarm_protocol::{
    engine::{Stage as EngineStage, TransferStats},
    format::{PackPath, Skeleton},
};
use modswarm_store::{Download, Finished};
use tokio::time::MissedTickBehavior;

use super::Job;
use crate::{
    api::{Complete, Failure, GetEvent, PeerShare, Renamed, Stage},
    node::{
        actor::TransferView,
        jobs::{Drive, PROGRESS_INTERVAL, node_ended},
    },
};

impl Job {
    pub(super) fn tell(&self, stage: Stage, done: u64, total: u64, view: Option<&TransferView>) {
        let rate = view.map_or(0, |view| view.stats.rate_down);
        let eta = (rate > 0 && total > done).then(|| (total - done).div_ceil(rate));
        let _ = self.events.try_send(GetEvent::Progress {
            stage,
            bytes_done: done,
            bytes_total: total,
            rate,
            eta,
            peers: view.map_or(0, |view| view.stats.sources as u64),
        });
    }

    pub(super) async fn warn(&self, message: String) {
        let _ = self.events.send(GetEvent::Warning { message }).await;
    }

    pub(super) async fn complete(
        &self,
        drive: &Drive,
        before: Option<TransferStats>,
        skeleton: &Skeleton,
        download: &Download,
        finished: Finished,
    ) -> Result<Complete, Failure> {
        let view = drive.view().await?.ok_or_else(node_ended)?;
        let plan = download.plan();
        let earlier = |key| {
            let peers = before.iter().flat_map(|stats| &stats.peers);
            peers
                .filter(|peer| peer.peer == key)
                .map(|peer| peer.bytes)
                .sum::<u64>()
        };
        let mut peers: Vec<PeerShare> = Vec::new();
        for sent in &view.stats.peers {
            let bytes = sent.bytes.saturating_sub(earlier(sent.peer));
            if let (Some((peer, addr)), true) = (view.names.get(&sent.peer), bytes > 0) {
                peers.push(PeerShare {
                    peer_id: peer.to_string(),
                    addr: addr.to_string(),
                    bytes,
                });
            }
        }
        peers.sort_by_key(|peer| std::cmp::Reverse(peer.bytes));
        let bytes_fetched = view
            .stats
            .bytes_fetched
            .saturating_sub(before.as_ref().map_or(0, |stats| stats.bytes_fetched));
        let bytes_skeleton = view
            .stats
            .bytes_skeleton
            .saturating_sub(before.as_ref().map_or(0, |stats| stats.bytes_skeleton));
        let bytes_wasted = view
            .stats
            .bytes_wasted
            .saturating_sub(before.as_ref().map_or(0, |stats| stats.bytes_wasted));
        Ok(Complete {
            pack: skeleton.pack.as_ref().map(|_| skeleton.root),
            content: skeleton.content.cid(),
            files: plan.files,
            bytes: plan.bytes,
            seconds: self.started.elapsed().as_secs_f64(),
            bytes_fetched,
            bytes_reused: plan.bytes.saturating_sub(bytes_fetched),
            bytes_skeleton,
            bytes_wasted,
            peers,
            renamed: renames(&finished.renamed),
            removed: strings(&finished.removed),
            kept: strings(&[finished.skipped, finished.kept].concat()),
            set_aside: renames(&finished.set_aside),
            path: finished.path,
        })
    }
}

pub(super) fn ticks() -> tokio::time::Interval {
    let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

pub(super) fn stage_of(view: &TransferView, skeleton: bool) -> Stage {
    match view.stats.stage {
        EngineStage::Paused if view.stats.stopped => Stage::Paused,
        EngineStage::Queued => Stage::Queued,
        EngineStage::Downloading => Stage::Downloading,
        EngineStage::FetchingSkeleton => Stage::FetchingSkeleton,
        EngineStage::Seeding if !skeleton => Stage::Finishing,
        EngineStage::Connecting => Stage::Connecting,
        _ if view.dialling > 0 && view.stats.sources == 0 => Stage::Connecting,
        EngineStage::LookingForPeers => Stage::LookingForPeers,
        EngineStage::Waiting | EngineStage::Seeding | EngineStage::Paused => Stage::Waiting,
    }
}

pub(in crate::node::jobs) fn strings(paths: &[PackPath]) -> Vec<String> {
    paths.iter().map(ToString::to_string).collect()
}

pub(in crate::node::jobs) fn renames(pairs: &[(PackPath, PackPath)]) -> Vec<Renamed> {
    pairs
        .iter()
        .map(|(from, to)| Renamed {
            from: from.to_string(),
            to: to.to_string(),
        })
        .collect()
}
