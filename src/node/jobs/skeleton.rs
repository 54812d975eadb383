//! Fetching a skeleton: whole from one peer if it is small and none of it can be here, else breadth first, in batches, from whoever has it. Each block is kept
//! once it is known to belong to it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

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
        heap,
    },
};

/// Nodes that are asked for at a time; each waits in the transfer's queue at most once.
const NODES_IN_FLIGHT: usize = 256;
/// Blocks that are kept in one transaction…
const KEEP_BATCH: usize = 256;
/// …or fewer, if they are this many bytes: until it ends they are in memory, and in the index's cache.
const KEEP_BYTES: usize = 2 * 1024 * 1024;
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
    let mut walk = Walk {
        node,
        drive,
        target,
        whole: !has_kin(node, target).await?,
        early: HashMap::new(),
        awaited: HashSet::new(),
        unkept: Vec::new(),
        unkept_bytes: 0,
        step: &mut step,
    };
    if let Some(skeleton) = walk.from(target.root, deadline).await? {
        return Ok(skeleton);
    }
    let content = target.content.unwrap_or(target.root);
    (walk.step)(Step::Notice(
        "nobody has the pack's description any more; fetching its files alone".to_owned(),
    ));
    walk.from(content, None).await?.ok_or_else(super::node_ended)
}

/// A walk over a skeleton.
struct Walk<'a, F> {
    node: &'a Arc<Inner>,
    drive: &'a mut Drive,
    target: &'a Target,
    /// Whether all of it may come with what is asked for first.
    whole: bool,
    /// What has come and is not known to belong to it yet. The engine bounds what comes without having been asked for.
    early: HashMap<Cid, Bytes>,
    awaited: HashSet<Cid>,
    unkept: Vec<(Cid, Bytes)>,
    unkept_bytes: usize,
    step: &'a mut F,
}

impl<F: FnMut(Step)> Walk<'_, F> {
    /// Walks from `root`; nothing if the root itself has not come by `deadline`.
    async fn from(&mut self, root: Cid, deadline: Option<Instant>) -> Result<Option<Skeleton>, Failure> {
        let mut reader = SkeletonReader::new(root, Limits::DEFAULT);
        if let Some(name) = &self.target.name {
            reader = reader.named(name.clone());
        }
        // A link names the content beside the pack that holds it: it is asked for with the root, a round trip before the root names it.
        let mut ahead = self.target.content.filter(|content| *content != root);
        while !reader.is_complete() {
            if self.unkept.len() >= KEEP_BATCH || self.unkept_bytes >= KEEP_BYTES {
                self.keep().await?;
            }
            let mut wanted = self.wanted(&mut reader)?;
            wanted.extend(ahead.take());
            if !wanted.is_empty() {
                self.ask(&mut reader, wanted).await?;
                continue;
            }
            // What had come early may have been all that was wanted.
            if reader.is_complete() {
                break;
            }
            let give_up = deadline.filter(|_| reader.knows_nothing());
            let event = tokio::select! {
                event = self.drive.events.recv() => event.ok_or_else(super::node_ended)?,
                () = at(give_up) => return Ok(None),
            };
            self.hear(&mut reader, event)?;
        }
        self.keep().await?;
        let finish = move || {
            // What it was read with is in the way of what it becomes.
            heap::give_back();
            reader.finish().map(Some).map_err(|error| skeleton_failure(&error))
        };
        tokio::task::spawn_blocking(finish).await.map_err(task_failure)?
    }

    /// What the reader wants next that has not come and is not on its way.
    fn wanted(&mut self, reader: &mut SkeletonReader) -> Result<Vec<Cid>, Failure> {
        let mut wanted = Vec::new();
        loop {
            let room = NODES_IN_FLIGHT.saturating_sub(self.awaited.len() + wanted.len());
            let named = reader.wanted(room);
            if named.is_empty() {
                return Ok(wanted);
            }
            for cid in named {
                match self.early.remove(&cid) {
                    Some(bytes) => self.take_in(reader, cid, bytes)?,
                    None if self.awaited.contains(&cid) => {}
                    None => wanted.push(cid),
                }
            }
        }
    }

    /// Takes what the index has, and asks peers for the rest.
    async fn ask(&mut self, reader: &mut SkeletonReader, wanted: Vec<Cid>) -> Result<(), Failure> {
        let (here, missing) = look_up(self.node, wanted).await?;
        // Where some of it is here, more may be.
        self.whole &= here.is_empty();
        for (cid, bytes) in here {
            if let Added::Unwanted = reader.add(&cid, &bytes).map_err(|error| skeleton_failure(&error))? {
                self.early.insert(cid, bytes);
            }
        }
        self.awaited.extend(&missing);
        // What has come meanwhile need not be asked for.
        while let Ok(event) = self.drive.events.try_recv() {
            self.hear(reader, event)?;
        }
        let cids: Vec<Cid> = missing.into_iter().filter(|cid| self.awaited.contains(cid)).collect();
        if cids.is_empty() {
            return Ok(());
        }
        self.node
            .send(Command::WantNodes {
                transfer: self.drive.transfer,
                cids,
                whole: std::mem::take(&mut self.whole),
            })
            .await
    }

    fn hear(&mut self, reader: &mut SkeletonReader, event: TransferEvent) -> Result<(), Failure> {
        match event {
            TransferEvent::Node { cid, bytes } => {
                self.awaited.remove(&cid);
                self.take_in(reader, cid, bytes)?;
                (self.step)(Step::Block);
            }
            TransferEvent::Notice(notice) => (self.step)(Step::Notice(notice)),
            TransferEvent::WriteFailed(problem) => return Err(write_failure(problem)),
            TransferEvent::Piece | TransferEvent::Complete => {}
        }
        Ok(())
    }

    fn take_in(&mut self, reader: &mut SkeletonReader, cid: Cid, bytes: Bytes) -> Result<(), Failure> {
        match reader.add(&cid, &bytes).map_err(|error| skeleton_failure(&error))? {
            Added::Unwanted => drop(self.early.insert(cid, bytes)),
            Added::Skeleton | Added::FileBytes => {
                self.unkept_bytes += bytes.len();
                self.unkept.push((cid, bytes));
            }
        }
        Ok(())
    }

    async fn keep(&mut self) -> Result<(), Failure> {
        self.unkept_bytes = 0;
        keep(self.node, std::mem::take(&mut self.unkept)).await
    }
}

/// Whether something here may have nodes in common with `target`: another version of it.
async fn has_kin(node: &Arc<Inner>, target: &Target) -> Result<bool, Failure> {
    let store = node.store.clone();
    let packs = tokio::task::spawn_blocking(move || store.packs().map_err(index_failure))
        .await
        .map_err(task_failure)??;
    Ok(match &target.name {
        Some(name) => packs.iter().any(|pack| pack.name == name.as_str()),
        None => !packs.is_empty(),
    })
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
