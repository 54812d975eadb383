//! What changes the home's packs by request: `rm`, `move`, `pin` and `gc`.

use std::sync::Arc;

use modswarm_protocol::format::Target;
use modswarm_store::{GcError, MoveError, NetworkId, Origin, PackRecord, PackState as Kept};

use super::{
    blocking,
    choose::{choose, targets},
    status::{info, records},
};
use crate::{
    api::{
        Collected, Failure, FailureKind, GcRequest, MoveRequest, Moved, PackStatus, PinRequest, RemoveRequest, Removed,
    },
    node::{Inner, actor::Command, index_failure, jobs, remove_failure, wishes},
};

pub(in crate::node) async fn remove(node: &Arc<Inner>, request: RemoveRequest) -> Result<Removed, Failure> {
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
    let network = node.network_id();
    for gone in &going {
        let (records, content) = (packs.iter().map(|(record, _)| record), gone.content);
        let left: Vec<&PackRecord> = records
            .filter(|other| other.content == content && going.iter().all(|record| record.id != other.id))
            .collect();
        if left.is_empty() {
            wishes::forget(node, content).await?;
        }
        if let Some(command) = serving_ends(gone, &left, &network) {
            node.send(command).await?;
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

/// What the actor is told when `gone` goes, and of the packs with the same content those that are `left` stay.
fn serving_ends(gone: &PackRecord, left: &[&PackRecord], network: &NetworkId) -> Option<Command> {
    let content = gone.content;
    let mut served = left.iter().filter(|record| record.network == *network).peekable();
    if served.peek().is_none() {
        return Some(Command::Forget { content });
    }
    let pack = gone
        .pack
        .filter(|pack| served.all(|record| record.pack != Some(*pack)))?;
    Some(Command::Unname { content, pack })
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

pub(in crate::node) async fn relocate(node: &Arc<Inner>, request: MoveRequest) -> Result<Moved, Failure> {
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

pub(in crate::node) async fn pin(node: &Arc<Inner>, request: PinRequest) -> Result<PackStatus, Failure> {
    let record = targets(node, Some(&request.target)).await?.swap_remove(0);
    let (id, pinned) = (record.id, request.pinned);
    blocking(node, move |store| store.set_pinned(id, pinned).map_err(index_failure)).await?;
    info(node, &request.target).await
}

pub(in crate::node) async fn collect(node: &Arc<Inner>, request: GcRequest) -> Result<Collected, Failure> {
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
