//! `get`: skeleton, plan, pieces, files in their places.
//!
//! The steps of a download one after another are in [`get`]; [`plan`] decides what will be written where, [`fetch`] has the engine fetch it and the store put it in
//! place, and [`report`] says how far it is. What is asked of whom is the engine's affair, how files come to be is `modswarm_store`'s.

mod fetch;
mod plan;
mod report;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use libp2p::{Multiaddr, PeerId};
use modswarm_protocol::{
    engine::PickOrder,
    format::{Skeleton, Target},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

pub(super) use plan::globs;
use plan::pieces_of;
pub(super) use report::{renames, strings};
use report::{stage_of, ticks};

use super::{
    BUSY_INTERVAL, Drive,
    failures::{index_failure, skeleton_read_failure, task_failure},
    node_ended, parse_target, skeleton,
};
use crate::{
    api::{Complete, Failure, FailureKind, GetEvent, GetRequest, Stage},
    node::{
        Inner,
        actor::{Command, TransferView},
    },
};

/// Runs the job; the last event says how it ended. It stops when nobody listens any more.
pub(in crate::node) async fn run(node: Arc<Inner>, request: GetRequest, events: mpsc::Sender<GetEvent>) {
    let last = tokio::select! {
        complete = get(&node, request, &events) => match complete {
            Ok(complete) => GetEvent::Complete(complete),
            Err(failure) => GetEvent::Failed(failure),
        },
        () = events.closed() => return,
    };
    let _ = events.send(last).await;
}

async fn get(node: &Arc<Inner>, request: GetRequest, events: &mpsc::Sender<GetEvent>) -> Result<Complete, Failure> {
    let job = Job {
        node: Arc::clone(node),
        events: events.clone(),
        started: Instant::now(),
        timeout: request.timeout.map(Duration::from_secs),
    };
    let (target, peers) = parse_target(&request.target, &request.peers)?;
    let only = globs("--only", &request.only)?;
    let first = globs("--first", &request.first)?;
    let order = if request.sequential {
        PickOrder::Sequential
    } else {
        PickOrder::default()
    };
    let mut drive = job.begin(&target, peers).await?;
    let mut before = drive.view().await?.map(|view| view.stats);
    let skeleton = job.skeleton(&mut drive, &target).await?;
    tracing::debug!(content = %skeleton.content.cid(), "the skeleton is here");
    node.store.know_content(&skeleton.content);
    // Another name of a content that is known already: the two become one, and what that one fetched before is not this job's.
    if let Some((stats, _)) = node.overview().await?.transfers.get(&skeleton.content.cid())
        && stats.transfer != drive.transfer
    {
        before = Some(stats.clone());
    }
    let spec = job.spec(&request, &target, &skeleton, only.as_ref()).await?;
    let download = job.open(spec, &skeleton).await?;
    tracing::debug!("the download is open");
    drive.order = order;
    drive.first = first.map(|first| pieces_of(&skeleton.content, &first)).transpose()?;
    let finished = job.fetch_and_finish(&mut drive, &skeleton, &download).await?;
    tracing::debug!("every file is in its place");
    let complete = job.complete(&drive, before, &skeleton, &download, finished).await?;
    if !request.seed {
        job.stop_seeding(skeleton.content.cid()).await?;
    }
    Ok(complete)
}

pub(super) struct Job {
    pub(super) node: Arc<Inner>,
    pub(super) events: mpsc::Sender<GetEvent>,
    pub(super) started: Instant,
    pub(super) timeout: Option<Duration>,
}

impl Job {
    /// Waits for its turn: two jobs do not fetch the same at once.
    async fn begin(&self, target: &Target, peers: Vec<(PeerId, Multiaddr)>) -> Result<Drive, Failure> {
        loop {
            match Drive::begin(&self.node, target, peers.clone()).await? {
                Some(drive) => return Ok(drive),
                None => {
                    self.tell(Stage::Waiting, 0, 0, None);
                    tokio::time::sleep(BUSY_INTERVAL).await;
                }
            }
        }
    }

    async fn skeleton(&self, drive: &mut Drive, target: &Target) -> Result<Skeleton, Failure> {
        let store = self.node.store.clone();
        let (root, name) = (target.root, target.name.clone());
        let here = tokio::task::spawn_blocking(move || store.skeleton(&root, name.as_ref()))
            .await
            .map_err(task_failure)?
            .map_err(skeleton_read_failure)?;
        if let Some(skeleton) = here {
            return Ok(skeleton);
        }
        let last_block = Mutex::new(Instant::now());
        let notices = Mutex::new(Vec::new());
        let transfer = drive.transfer;
        let fetching = skeleton::fetch(&self.node, drive, target, |step| match step {
            skeleton::Step::Block => *lock(&last_block) = Instant::now(),
            skeleton::Step::Notice(text) => lock(&notices).push(text),
        });
        tokio::pin!(fetching);
        let mut tick = ticks();
        loop {
            tokio::select! {
                skeleton = &mut fetching => return skeleton,
                _ = tick.tick() => {
                    let view = self.view(transfer).await?;
                    let stage = view.as_ref().map_or(Stage::LookingForPeers, |view| stage_of(view, true));
                    self.tell(stage, 0, 0, view.as_ref());
                    let said: Vec<String> = std::mem::take(&mut lock(&notices));
                    for notice in said {
                        self.warn(notice).await;
                    }
                    let quiet = lock(&last_block).elapsed();
                    self.check_timeout(quiet)?;
                }
            }
        }
    }

    async fn view(&self, transfer: modswarm_protocol::engine::TransferId) -> Result<Option<TransferView>, Failure> {
        let (reply, answer) = oneshot::channel();
        self.node.send(Command::Transfer { transfer, reply }).await?;
        answer.await.map_err(|_| node_ended())
    }

    fn check_timeout(&self, quiet: Duration) -> Result<(), Failure> {
        match self.timeout {
            Some(timeout) if quiet >= timeout => Err(Failure::new(
                FailureKind::NotFound,
                format!(
                    "no new block came within {} seconds: nobody who has it can be reached now",
                    timeout.as_secs()
                ),
                "ask somebody who has the pack to share it again, then run the same command; what was verified is kept",
            )),
            _ => Ok(()),
        }
    }

    /// Serves the content no longer, unless another place of this home has it too.
    async fn stop_seeding(&self, content: modswarm_protocol::Cid) -> Result<(), Failure> {
        let store = self.node.store.clone();
        let places = tokio::task::spawn_blocking(move || store.packs_of(&content).map_err(index_failure))
            .await
            .map_err(task_failure)??;
        if places.len() > 1 {
            return Ok(());
        }
        self.node.send(Command::Forget { content }).await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
