//! The home's packs: serving them, and saying how they do.

use std::{collections::HashMap, sync::Arc, time::Duration};

use modswarm_protocol::{
    Cid,
    engine::{ContentPieces, Stage, TransferStats},
    format::{Name, PackPath, Target},
};
use modswarm_store::{
    Check, GcError, MoveError, NetworkId, Origin, PackRecord, PackState as Kept, SkeletonReadError, Store,
};

use super::{
    Inner,
    actor::{Command, Overview, Register, Wish},
    facts::Seed,
    index_failure, jobs, remove_failure, task_failure, wishes,
};
use crate::api::{
    Collected, Failure, FailureKind, GcRequest, Limit, LimitRequest, MoveRequest, Moved, NetworkKind, PackState,
    PackStatus, PinRequest, RemoveRequest, Removed, Status,
};

/// How often the store is asked what can no longer be read.
const WITHDRAW_INTERVAL: Duration = Duration::from_secs(1);
/// How long `status` may look at files.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);
/// How often it is written down what was served.
const USED_INTERVAL: Duration = Duration::from_secs(600);

pub(super) async fn blocking<T: Send + 'static>(
    node: &Inner,
    work: impl FnOnce(&Store) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let store = node.store.clone();
    tokio::task::spawn_blocking(move || work(&store))
        .await
        .map_err(task_failure)?
}

/// Serves every pack of the home that belongs to the node's network. Their files are not looked at here: that is done while they are served.
pub(super) async fn serve_all(node: &Arc<Inner>) -> Result<(), Failure> {
    let network = node.network_id();
    let records = blocking(node, |store| store.packs().map_err(index_failure)).await?;
    wishes::tell_all(node, &records).await?;
    for record in records.iter().filter(|record| record.network == network) {
        node.send(Command::Serve(register(record))).await?;
    }
    Ok(())
}

/// What the actor is told of a record to serve.
pub(super) fn register(record: &PackRecord) -> Register {
    Register {
        content: record.content,
        packs: record.pack.into_iter().collect(),
        has_something: record.pieces == 0 || record.pieces_here > 0,
    }
}

/// Tells peers of pieces that can no longer be read here, for as long as the node lives.
pub(super) async fn watch_withdrawn(node: std::sync::Weak<Inner>) {
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

/// The records of the node's network that are served.
pub(super) async fn served(node: &Inner) -> Result<Vec<PackRecord>, Failure> {
    let network = node.network_id();
    blocking(node, move |store| {
        let mut records = store.packs().map_err(index_failure)?;
        records.retain(|record| record.network == network && record.state != Kept::Superseded);
        Ok(records)
    })
    .await
}

/// Remembers what was served, so that clearing up takes first what nobody wants. For as long as the node lives.
pub(super) async fn watch_used(node: std::sync::Weak<Inner>) {
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

/// What it takes to serve a content; nothing (and a line in the log) if it cannot be served now.
pub(super) fn seed(store: &Store, content: &Cid, network: &NetworkId) -> Option<Seed> {
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
        let mut nodes = jobs::content_nodes(&known);
        for pack in records.iter().filter_map(|record| record.pack) {
            nodes.extend(store.head_cids(&pack)?);
        }
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

pub(super) async fn status(node: &Arc<Inner>) -> Result<Status, Failure> {
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
pub(super) async fn statuses(
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

pub(super) async fn info(node: &Arc<Inner>, target: &str) -> Result<PackStatus, Failure> {
    let overview = node.overview().await?;
    let packs = records(node).await?;
    let chosen = choose(&packs, target)?;
    let (record, problem) = chosen.current;
    let content = record.content;
    let wish = blocking(node, move |store| wishes::of(store, &content)).await?;
    Ok(pack_status(record, problem.clone(), wish, &overview))
}

pub(super) async fn remove(node: &Arc<Inner>, request: RemoveRequest) -> Result<Removed, Failure> {
    let packs = records(node).await?;
    let chosen = match choose(&packs, &request.target) {
        Ok(chosen) => chosen,
        Err(unknown) => return forget_left(node, &request, unknown).await,
    };
    let record = chosen.current.0.clone();
    if record.pinned {
        return Err(Failure::new(
            FailureKind::Failed,
            format!("{} is pinned", record.name),
            "unpin it first (`modswarm unpin`), then remove it",
        ));
    }
    let overview = node.overview().await?;
    if overview.transfers.get(&record.content).is_some_and(|(_, busy)| *busy) {
        return Err(Failure::new(
            FailureKind::Failed,
            format!("{} is being downloaded now", record.name),
            "end its download first (Ctrl-C in its terminal), then remove it",
        ));
    }
    let going: Vec<&PackRecord> = chosen.older.iter().copied().chain([&chosen.current.0]).collect();
    for gone in &going {
        let others = packs
            .iter()
            .any(|(other, _)| other.content == gone.content && going.iter().all(|record| record.id != other.id));
        if !others {
            wishes::forget(node, gone.content).await?;
            node.send(Command::Forget { content: gone.content }).await?;
        }
    }
    let ids: Vec<_> = going.iter().map(|record| record.id).collect();
    let data = request.data;
    let removed = blocking(node, move |store| {
        let mut last = None;
        for id in ids {
            last = Some(store.remove_pack(id, data).map_err(remove_failure)?);
        }
        Ok(last)
    })
    .await?;
    let kept = removed.map_or(0, |removed| removed.files_kept.len() as u64);
    Ok(Removed {
        name: record.name,
        content: record.content,
        path: record.path,
        data_deleted: data && kept == 0,
        files_kept: kept,
    })
}

/// Forgets what a lost index knew and `store rebuild` could not restore; `unknown` if there is nothing of that either.
async fn forget_left(node: &Arc<Inner>, request: &RemoveRequest, unknown: Failure) -> Result<Removed, Failure> {
    let Ok(target) = Target::parse(&request.target) else {
        return Err(unknown);
    };
    let left = blocking(node, move |store| {
        let home = store.home().to_owned();
        store
            .forget_left(&target.root)
            .map_err(|error| jobs::rebuild_failure(error, &home))
    })
    .await?;
    let left = left.into_iter().next().ok_or(unknown)?;
    Ok(Removed {
        name: left.name,
        content: left.content,
        path: left.path,
        data_deleted: false,
        files_kept: 0,
    })
}

/// The records that `target` means; all if it is none.
pub(super) async fn targets(node: &Arc<Inner>, target: Option<&str>) -> Result<Vec<PackRecord>, Failure> {
    let packs = records(node).await?;
    Ok(match target {
        Some(target) => vec![choose(&packs, target)?.current.0.clone()],
        None => packs.into_iter().map(|(record, _)| record).collect(),
    })
}

/// Refuses while the content of `record` is being downloaded.
async fn not_busy(node: &Inner, record: &PackRecord) -> Result<(), Failure> {
    let overview = node.overview().await?;
    if overview.transfers.get(&record.content).is_some_and(|(_, busy)| *busy) {
        return Err(Failure::new(
            FailureKind::Failed,
            format!("{} is being downloaded now", record.name),
            "end its download first (Ctrl-C in its terminal), then run this again",
        ));
    }
    Ok(())
}

pub(super) async fn relocate(node: &Arc<Inner>, request: MoveRequest) -> Result<Moved, Failure> {
    let record = targets(node, Some(&request.target)).await?.swap_remove(0);
    not_busy(node, &record).await?;
    // As `mv` does: into a folder that is there, or to a name that is not.
    let gone = !record.path.exists();
    let to = match record.path.file_name() {
        Some(name) if request.to.is_dir() && !gone => request.to.join(name),
        _ => request.to,
    };
    let moved = blocking(node, move |store| {
        store
            .move_pack(record.id, &to, &())
            .map_err(move_failure)
            .map(|moved| (record, moved))
    })
    .await?;
    let (record, moved) = moved;
    Ok(Moved {
        name: record.name,
        content: record.content,
        from: moved.from,
        to: moved.to,
        bytes_copied: moved.bytes_copied,
        left: moved.left,
    })
}

fn move_failure(error: MoveError) -> Failure {
    let help = match &error {
        MoveError::Index(_) => {
            let MoveError::Index(error) = error else {
                unreachable!("just matched")
            };
            return index_failure(error);
        }
        MoveError::DiskFull { .. } => {
            return Failure::new(
                FailureKind::DiskFull,
                error.to_string(),
                "make room there or choose another disk; nothing was changed",
            );
        }
        MoveError::Unfinished => "finish the download or remove it, then move the pack",
        MoveError::Occupied(_) => "nothing was changed",
        MoveError::Nowhere { .. } => "if you moved it, name the folder where its files are now",
        _ => "the pack is whole where it was",
    };
    Failure::new(FailureKind::Failed, jobs::causes(&error), help)
}

pub(super) async fn pin(node: &Arc<Inner>, request: PinRequest) -> Result<PackStatus, Failure> {
    let record = targets(node, Some(&request.target)).await?.swap_remove(0);
    let (id, pinned) = (record.id, request.pinned);
    blocking(node, move |store| store.set_pinned(id, pinned).map_err(index_failure)).await?;
    info(node, &request.target).await
}

pub(super) async fn collect(node: &Arc<Inner>, request: GcRequest) -> Result<Collected, Failure> {
    let mut collected = Collected::default();
    if let Some(keep) = request.keep {
        make_room(node, keep, &mut collected).await?;
    }
    let done = blocking(node, |store| {
        store.collect_garbage(&()).map_err(|error| match error {
            GcError::Index(error) => index_failure(error),
            error @ GcError::Io { .. } => Failure::new(
                FailureKind::Failed,
                jobs::causes(&error),
                "make the folder `segments` of the home writable and make room there, then run it again: it goes on",
            ),
            other => Failure::new(FailureKind::Interrupted, other.to_string(), "run it again: it goes on"),
        })
    })
    .await?;
    collected.nodes = done.nodes;
    collected.node_bytes = done.node_bytes;
    collected.rows = done.leaf_rows + done.file_rows;
    collected.copy_bytes = done.segment_bytes;
    collected.stages = done.stages;
    collected.index_bytes_before = done.index_bytes_before;
    collected.index_bytes_after = done.index_bytes_after;
    Ok(collected)
}

/// Removes downloaded packs, the least recently used first, until the rest takes at most `keep` bytes.
async fn make_room(node: &Arc<Inner>, keep: u64, collected: &mut Collected) -> Result<(), Failure> {
    let overview = node.overview().await?;
    let mut fetched: Vec<PackRecord> = targets(node, None)
        .await?
        .into_iter()
        .filter(|record| record.origin == Origin::Fetched && record.state != Kept::Superseded)
        .collect();
    let mut taken: u64 = fetched.iter().map(|record| record.bytes).sum();
    fetched.sort_by_key(|record| record.used);
    for record in fetched {
        if taken <= keep {
            break;
        }
        let busy = overview.transfers.get(&record.content).is_some_and(|(_, busy)| *busy);
        if record.pinned || busy {
            continue;
        }
        let request = RemoveRequest {
            target: record.path.to_string_lossy().into_owned(),
            data: true,
        };
        match remove(node, request).await {
            Ok(removed) => {
                taken -= record.bytes;
                collected.pack_bytes += record.bytes;
                collected.packs.push(removed);
            }
            Err(failure) => tracing::warn!(pack = record.name, %failure, "it was not removed"),
        }
    }
    Ok(())
}

/// All records, with what is wrong with each. Files are looked at for as long as people like to wait; of packs beyond that, it is said what is known.
async fn records(node: &Arc<Inner>) -> Result<Vec<(PackRecord, Option<String>)>, Failure> {
    blocking(node, |store| {
        let mut all = Vec::new();
        let mut records = store.packs().map_err(index_failure)?;
        records.sort_by_key(|record| record.files);
        let until = std::time::Instant::now() + LOOK_PATIENCE;
        for record in records {
            if std::time::Instant::now() >= until {
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

type Entry = (PackRecord, Option<String>);

/// What a target means.
#[derive(Debug)]
struct Chosen<'a> {
    current: &'a Entry,
    /// Former versions in the same folder, if the target meant the folder and not one version.
    older: Vec<&'a PackRecord>,
}

/// The one pack that `target` (a link, CID, name or path) means.
fn choose<'a>(packs: &'a [Entry], target: &str) -> Result<Chosen<'a>, Failure> {
    let cids: Vec<Cid> = Target::parse(target)
        .map(|target| [Some(target.root), target.content])
        .into_iter()
        .flatten()
        .flatten()
        .collect();
    let path = dunce::canonicalize(target).ok();
    let matches: Vec<&Entry> = packs
        .iter()
        .filter(|(record, _)| {
            cids.contains(&record.content)
                || record.pack.is_some_and(|pack| cids.contains(&pack))
                || record.name == target
                || path.as_ref() == Some(&record.path)
        })
        .collect();
    // A pack CID says more than the content that it shares with others.
    let exact: Vec<&Entry> = matches
        .iter()
        .filter(|(record, _)| record.pack.is_some_and(|pack| cids.contains(&pack)))
        .copied()
        .collect();
    let matches = if exact.len() == 1 { exact } else { matches };
    let superseded = |entry: &&&Entry| entry.0.state == Kept::Superseded;
    let current: Vec<&Entry> = matches.iter().filter(|entry| !superseded(entry)).copied().collect();
    match (current.as_slice(), matches.as_slice()) {
        ([current], _) => Ok(Chosen {
            current,
            older: if cids.is_empty() {
                let there = packs.iter().map(|(record, _)| record);
                there
                    .filter(|record| record.state == Kept::Superseded && record.path == current.0.path)
                    .collect()
            } else {
                Vec::new()
            },
        }),
        ([], [current]) => Ok(Chosen {
            current,
            older: Vec::new(),
        }),
        (_, []) => Err(Failure::new(
            FailureKind::Failed,
            format!("there is no pack {target:?} in this home"),
            "`modswarm status` lists the packs of this home",
        )),
        ([], several) | (several, _) => {
            let places: Vec<String> = several
                .iter()
                .map(|(r, _)| format!("\n  {}  {}", r.pack.unwrap_or(r.content), r.path.display()))
                .collect();
            Err(Failure::new(
                FailureKind::Failed,
                format!("{target:?} means several packs:{}", places.concat()),
                "name one by its CID or its path",
            ))
        }
    }
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
