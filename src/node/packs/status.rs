//! How the packs do: `status` and `info`, and what is wrong with whose files.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use modswarm_protocol::{
    engine::{Stage, TransferStats},
    format::{Name, PackPath},
};
use modswarm_store::{Check, Origin, PackRecord, PackState as Kept};

use super::{
    blocking,
    choose::{Entry, choose},
};
use crate::{
    api::{Failure, Limit, LimitRequest, NetworkKind, PackState, PackStatus, Status},
    node::{
        Inner,
        actor::{Overview, Wish},
        index_failure, jobs, wishes,
    },
};

/// How long `status` may look at files.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);

pub(in crate::node) async fn status(node: &Arc<Inner>) -> Result<Status, Failure> {
    let packs = statuses(node, |_| true).await?;
    let limits = wishes::limit(node, LimitRequest::default()).await?;
    let overview = node.overview().await?;
    let offline = node.config.offline;
    Ok(Status {
        peer_id: (!offline).then(|| node.peer_id.to_string()),
        addrs: overview.addrs.iter().map(ToString::to_string).collect(),
        network: node.config.network,
        upload_rate: overview.peers.iter().map(|peer| peer.stats.rate_up).sum(),
        download_rate: overview.peers.iter().map(|peer| peer.stats.rate_down).sum(),
        upload_limit: limits.upload_now,
        download_limit: limits.download.bytes_per_second(),
        upload_auto: limits.upload == Limit::Auto,
        peers: overview.peers.len() as u64,
        packs,
    })
}

/// How the packs that `which` chooses are doing.
pub(in crate::node) async fn statuses(
    node: &Arc<Inner>,
    which: impl Fn(&PackRecord) -> bool,
) -> Result<Vec<PackStatus>, Failure> {
    let overview = node.overview().await?;
    let mut packs = records(node).await?;
    packs.retain(|(record, _)| which(record));
    let (packs, wishes) = blocking(node, move |store| {
        let wishes: Result<Vec<Wish>, Failure> = packs
            .iter()
            .map(|(record, _)| wishes::of(store, &record.content))
            .collect();
        Ok((packs, wishes?))
    })
    .await?;
    Ok(packs
        .iter()
        .zip(wishes)
        .map(|((record, problem), wish)| pack_status(record, problem.clone(), wish, &overview))
        .collect())
}

pub(in crate::node) async fn info(node: &Arc<Inner>, target: &str) -> Result<PackStatus, Failure> {
    let overview = node.overview().await?;
    let packs = records(node).await?;
    let chosen = choose(&packs, target)?;
    let (record, problem) = chosen.current;
    let content = record.content;
    let wish = blocking(node, move |store| wishes::of(store, &content)).await?;
    Ok(pack_status(record, problem.clone(), wish, &overview))
}

/// All records, with what is wrong with each. Files are looked at for as long as people like to wait; of packs beyond that, it is said what is known.
pub(super) async fn records(node: &Arc<Inner>) -> Result<Vec<Entry>, Failure> {
    blocking(node, |store| {
        let mut all = Vec::new();
        let mut records = store.packs().map_err(index_failure)?;
        records.sort_by_key(|record| record.files);
        let until = Instant::now() + LOOK_PATIENCE;
        for record in records {
            if Instant::now() >= until {
                let problem = known_problem(&record);
                all.push((record, problem));
                continue;
            }
            let check = store.check_pack(record.id).map_err(index_failure)?;
            let whole = check.missing.is_empty() && check.changed.is_empty();
            let problem = (!whole).then(|| problem(&record, &check));
            // The check may have withdrawn pieces: look again.
            let record = store.pack(record.id).map_err(index_failure)?.unwrap_or(record);
            all.push((record, problem));
        }
        all.sort_by_key(|(record, _)| record.id);
        Ok(all)
    })
    .await
}

/// What is wrong with a pack as far as that was found before.
fn known_problem(record: &PackRecord) -> Option<String> {
    let expected = record.state == Kept::Whole && !record.partial && record.kept == 0;
    (expected && record.pieces_here < record.pieces).then(|| {
        let lost = record.pieces - record.pieces_here;
        format!("{lost} of its blocks were lost; `modswarm verify` says which files it was")
    })
}

/// What is wrong with a pack's files, and how to mend it.
fn problem(record: &PackRecord, check: &Check) -> String {
    let pack = record.pack.unwrap_or(record.content);
    if check.away {
        return format!(
            "its folder is not there; it goes on once the folder, or its disk, is back. If it lies elsewhere now: `modswarm move {pack} FOLDER`"
        );
    }
    let what = |files: &[PackPath], one: &str, several: &str| match files {
        [] => None,
        [file] => Some(format!("{file} {one}")),
        files => Some(format!("{} files {several} ({}, …)", files.len(), files[0])),
    };
    let parts = [
        what(&check.missing, "is gone", "are gone"),
        what(&check.changed, "was changed", "were changed"),
    ];
    let mend = match record.origin {
        Origin::Shared if check.missing.is_empty() => "share the folder again to share it as it is now",
        Origin::Shared => {
            "share the folder again to share it as it is now, or bring back what is gone with `modswarm verify --repair`"
        }
        Origin::Fetched if check.changed.is_empty() => "get the pack again to bring back what it had",
        Origin::Fetched => "get the pack again with --overwrite to bring back what it had",
    };
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    format!("{}; {mend}", parts.join(" and "))
}

fn pack_status(record: &PackRecord, problem: Option<String>, wish: Wish, overview: &Overview) -> PackStatus {
    let live: Option<&(TransferStats, bool)> = overview.transfers.get(&record.content);
    let queued = live.is_some_and(|(stats, _)| stats.stage == Stage::Queued);
    let state = match record.state {
        Kept::Superseded => PackState::Superseded,
        _ if wish.paused => PackState::Paused,
        _ if live.is_some_and(|(_, busy)| *busy) && queued => PackState::Queued,
        _ if live.is_some_and(|(_, busy)| *busy) && record.state == Kept::Downloading => PackState::Downloading,
        Kept::Downloading => PackState::Paused,
        _ if problem.is_some() => PackState::Damaged,
        _ => PackState::Seeding,
    };
    let share = |part: u64, whole: u64| if whole == 0 { 1.0 } else { part as f64 / whole as f64 };
    let here = match record.state {
        Kept::Whole if problem.is_none() => record.bytes,
        // Places of equal leaves are not counted apart: an estimate for people.
        _ => (record.bytes as f64 * share(record.piece_bytes_here, record.piece_bytes)) as u64,
    };
    let name = Name::normalised(&record.name).ok();
    let link = match (&record.pack, name) {
        (Some(pack), Some(name)) => jobs::link_of(&name, *pack, record.content, &overview.addrs, None),
        _ => record.content.to_string(),
    };
    PackStatus {
        pack: record.pack,
        content: record.content,
        name: record.name.clone(),
        network: kind_of(&record.network),
        state,
        path: record.path.clone(),
        files: record.files,
        bytes: record.bytes,
        bytes_here: here.min(record.bytes),
        blocks: u64::from(record.pieces),
        blocks_here: u64::from(record.pieces_here),
        bytes_uploaded: live.map_or(0, |(stats, _)| stats.bytes_served),
        peers: live.map_or(0, |(stats, _)| (stats.sources + stats.leechers) as u64),
        problem,
        kept: record.kept,
        pinned: record.pinned,
        copied: record.copied,
        stopped: wish.paused,
        priority: wish.priority,
        upload_limit: wish.upload,
        download_limit: wish.download,
        link,
    }
}

fn kind_of(network: &[u8; 32]) -> NetworkKind {
    [NetworkKind::Public, NetworkKind::Lan]
        .into_iter()
        .find(|kind| kind.id() == *network)
        .unwrap_or(NetworkKind::Private)
}
