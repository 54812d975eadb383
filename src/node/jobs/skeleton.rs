//! Fetching a skeleton: breadth first, in batches, from whoever has it, each block kept as it comes.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use modswarm_protocol::{
    Cid,
    format::{Added, Limits, Skeleton, SkeletonReader, Target},
};
use tokio::time::Instant;

use super::{
    Drive,
    failures::{index_failure, skeleton_failure, task_failure, write_failure},
};
use crate::{
    api::Failure,
    node::{
        Inner,
        actor::{Command, TransferEvent},
    },
};

/// Nodes that are asked for at a time; each waits in the transfer's queue at most once.
const NODES_IN_FLIGHT: usize = 256;
/// Blocks that are kept in one transaction.
const KEEP_BATCH: usize = 256;
/// How long a link's pack root is looked for before its content alone is taken.
const ROOT_PATIENCE: Duration = Duration::from_secs(8);

/// What happens while a skeleton is being fetched.
pub(super) enum Step {
    /// A block came.
    Block,
    /// Something that the user should know.
    Notice(String),
}

/// Fetches the skeleton of `target`, telling `step` of each block.
pub(super) async fn fetch(
    node: &Arc<Inner>,
    drive: &mut Drive,
    target: &Target,
    mut step: impl FnMut(Step),
) -> Result<Skeleton, Failure> {
    let deadline = target
        .content
        .filter(|content| *content != target.root)
        .map(|_| Instant::now() + ROOT_PATIENCE);
    match walk(node, drive, target.root, target, deadline, &mut step).await? {
        Some(skeleton) => Ok(skeleton),
        None => {
            let content = target.content.unwrap_or(target.root);
            step(Step::Notice(
                "nobody has the pack's description any more; fetching its files alone".to_owned(),
            ));
            let found = walk(node, drive, content, target, None, &mut step).await?;
            found.ok_or_else(super::node_ended)
        }
    }
}

/// Walks from `root`; nothing if the root itself has not come by `deadline`.
async fn walk(
    node: &Arc<Inner>,
    drive: &mut Drive,
    root: Cid,
    target: &Target,
    deadline: Option<Instant>,
    step: &mut impl FnMut(Step),
) -> Result<Option<Skeleton>, Failure> {
    let mut reader = SkeletonReader::new(root, Limits::DEFAULT);
    if let Some(name) = &target.name {
        reader = reader.named(name.clone());
    }
    // A link names the content beside the pack that holds it: it is asked for with the root, a round trip before the root names it.
    let ahead = target.content.filter(|content| *content != root);
    let mut early: Option<(Cid, Bytes)> = None;
    let mut awaited: HashSet<Cid> = HashSet::new();
    let mut unkept: Vec<(Cid, Bytes)> = Vec::new();
    let (mut any, mut begun) = (false, false);
    while !reader.is_complete() {
        let mut wanted = reader.wanted(NODES_IN_FLIGHT.saturating_sub(awaited.len()));
        wanted.retain(|cid| !awaited.contains(cid));
        if !std::mem::replace(&mut begun, true) {
            wanted.extend(ahead);
        }
        if !wanted.is_empty() {
            let (here, missing) = look_up(node, wanted).await?;
            any |= here.iter().any(|(cid, _)| Some(*cid) != ahead);
            for (cid, bytes) in here {
                reader.add(&cid, &bytes).map_err(|error| skeleton_failure(&error))?;
            }
            if !missing.is_empty() {
                awaited.extend(&missing);
                node.send(Command::WantNodes {
                    transfer: drive.transfer,
                    cids: missing,
                })
                .await?;
            }
            continue;
        }
        let give_up = deadline.filter(|_| !any);
        let event = tokio::select! {
            event = drive.events.recv() => event.ok_or_else(super::node_ended)?,
            () = at(give_up) => return Ok(None),
        };
        match event {
            TransferEvent::Node { cid, bytes } if awaited.remove(&cid) => {
                any |= Some(cid) != ahead;
                for (cid, bytes) in std::iter::once((cid, bytes)).chain(early.take()) {
                    match reader.add(&cid, &bytes).map_err(|error| skeleton_failure(&error))? {
                        Added::Unwanted => early = Some((cid, bytes)),
                        Added::Skeleton | Added::FileBytes => unkept.push((cid, bytes)),
                    }
                }
                step(Step::Block);
            }
            TransferEvent::Notice(notice) => step(Step::Notice(notice)),
            TransferEvent::WriteFailed(problem) => return Err(write_failure(problem)),
            TransferEvent::Node { .. } | TransferEvent::Piece | TransferEvent::Complete => {}
        }
        if unkept.len() >= KEEP_BATCH {
            keep(node, std::mem::take(&mut unkept)).await?;
        }
    }
    keep(node, unkept).await?;
    reader.finish().map(Some).map_err(|error| skeleton_failure(&error))
}

/// Splits into what the index has and what it has not.
async fn look_up(node: &Arc<Inner>, cids: Vec<Cid>) -> Result<(Vec<(Cid, Bytes)>, Vec<Cid>), Failure> {
    let store = node.store.clone();
    tokio::task::spawn_blocking(move || {
        let mut here = Vec::new();
        let mut missing = Vec::new();
        for cid in cids {
            match store.node(&cid).map_err(index_failure)? {
                // The index is a file of the user's: what comes from it is verified too.
                Some(bytes) if cid.verifies(&bytes) => here.push((cid, bytes)),
                _ => missing.push(cid),
            }
        }
        Ok((here, missing))
    })
    .await
    .map_err(task_failure)?
}

async fn keep(node: &Arc<Inner>, nodes: Vec<(Cid, Bytes)>) -> Result<(), Failure> {
    if nodes.is_empty() {
        return Ok(());
    }
    let store = node.store.clone();
    tokio::task::spawn_blocking(move || store.put_nodes(&nodes).map_err(index_failure))
        .await
        .map_err(task_failure)?
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
