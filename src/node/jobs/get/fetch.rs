//! Fetching pieces, and putting whole files in their places.

use std::sync::Arc;

use modswarm_protocol::{
    engine::{ContentPieces, Stage as EngineStage},
    format::Skeleton,
};
use modswarm_store::{Download, FinishError, Finished};
use tokio::{sync::oneshot, time::Instant};

use super::{
    Job,
    report::{stage_of, ticks},
};
use crate::{
    api::{Failure, FailureKind, Stage},
    node::{
        actor::{Command, Fetch, TransferEvent},
        jobs::{
            Drive,
            failures::{finish_failure, task_failure, write_failure},
            node_ended, nodes_of,
        },
    },
};

/// How often a download is put in place whose pieces vanish again meanwhile.
const FINISH_ATTEMPTS: u32 = 3;

impl Job {
    /// Fetches and puts in place; what vanished meanwhile (somebody deleted a file that was just placed) is fetched again.
    pub(super) async fn fetch_and_finish(
        &self,
        drive: &mut Drive,
        skeleton: &Skeleton,
        download: &Download,
    ) -> Result<Finished, Failure> {
        let mut attempt = 1;
        loop {
            self.fetch(drive, skeleton, download).await?;
            tracing::debug!("every piece is here");
            match self.finish(download).await? {
                Ok(finished) => return Ok(finished),
                Err(FinishError::Incomplete(_)) if attempt < FINISH_ATTEMPTS => attempt += 1,
                Err(error) => return Err(finish_failure(error)),
            }
        }
    }

    /// Fetches until every wanted piece is here. What turns out not to be here after all is asked for as well.
    async fn fetch(&self, drive: &mut Drive, skeleton: &Skeleton, download: &Download) -> Result<(), Failure> {
        loop {
            let lost = download.lost();
            self.fetch_missing(drive, skeleton, download, lost).await?;
            if download.lost() == lost {
                return Ok(());
            }
        }
    }

    /// Fetches until every wanted piece is here, or more were lost than `lost`.
    async fn fetch_missing(
        &self,
        drive: &mut Drive,
        skeleton: &Skeleton,
        download: &Download,
        lost: u64,
    ) -> Result<(), Failure> {
        let content = download.content();
        let (have, wanted) = (download.have(), download.wanted());
        let missing = wanted.iter_ones().any(|piece| !have[piece]);
        let (reply, answer) = oneshot::channel();
        let fetch = Fetch {
            content: content.cid(),
            pack: skeleton.pack.as_ref().map(|_| skeleton.root),
            previous: skeleton.pack.as_ref().and_then(|head| head.manifest.previous),
            nodes: nodes_of(skeleton),
            pieces: ContentPieces {
                map: Arc::clone(content.map()),
                have,
                wanted: Some(wanted),
            },
            download: download.clone(),
            order: drive.order,
            first: drive.first.clone(),
        };
        let transfer = drive.transfer;
        self.node
            .send(Command::Fetch {
                transfer,
                fetch: Box::new(fetch),
                reply,
            })
            .await?;
        drive.transfer = answer.await.map_err(|_| node_ended())?.ok_or_else(|| {
            Failure::new(
                FailureKind::Failed,
                "another get fetches the same files under another name",
                "wait until it has ended, then run this again: nothing will be fetched twice",
            )
        })?;
        if !missing {
            return Ok(());
        }
        let total = download.plan().bytes;
        let mut last_block = Instant::now();
        let mut paused = false;
        let mut tick = ticks();
        let mut any = false;
        loop {
            tokio::select! {
                event = drive.events.recv() => match event.ok_or_else(node_ended)? {
                    TransferEvent::Piece => {
                        last_block = Instant::now();
                        // The first is news worth telling at once.
                        if !std::mem::replace(&mut any, true) {
                            tick.reset_immediately();
                        }
                    }
                    TransferEvent::Complete => return Ok(()),
                    TransferEvent::WriteFailed(problem) => return Err(write_failure(problem)),
                    TransferEvent::Notice(notice) => self.warn(notice).await,
                    TransferEvent::Node { .. } => {}
                },
                _ = tick.tick() => {
                    if download.lost() != lost {
                        return Ok(());
                    }
                    let Some(view) = drive.view().await? else { return Err(node_ended()) };
                    let missing = view.stats.bytes_wanted.saturating_sub(view.stats.bytes_here);
                    let stage = stage_of(&view, false);
                    self.tell(stage, total.saturating_sub(missing), total, Some(&view));
                    if stage == Stage::Paused && !paused {
                        let name = skeleton.pack.as_ref().map(|head| head.manifest.name.to_string());
                        let name = name.unwrap_or_else(|| content.cid().to_string());
                        self.warn(format!("paused: `modswarm resume '{name}'` goes on with it")).await;
                    }
                    paused = stage == Stage::Paused;
                    if paused || stage == Stage::Queued {
                        // Nothing can come, and nobody is to blame for it.
                        last_block = Instant::now();
                    }
                    self.check_timeout(last_block.elapsed())?;
                    // Events may have been dropped while this job was busy; the state of things never lies.
                    if view.stats.stage == EngineStage::Seeding {
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn finish(&self, download: &Download) -> Result<Result<Finished, FinishError>, Failure> {
        let plan = download.plan();
        self.tell(Stage::Finishing, plan.bytes, plan.bytes, None);
        let download = download.clone();
        let finished = tokio::task::spawn_blocking(move || download.finish())
            .await
            .map_err(task_failure)?;
        if let Ok(finished) = &finished {
            for (from, to) in &finished.set_aside {
                self.warn(format!(
                    "your {from} is called {to} now, and the pack's file has its name"
                ))
                .await;
            }
            for path in &finished.skipped {
                self.warn(format!("{path} is yours and was kept; the pack's file was left out"))
                    .await;
            }
        }
        for path in finished.iter().flat_map(|finished| &finished.kept) {
            self.warn(format!(
                "{path} is no longer in the pack; it was kept, since you changed it"
            ))
            .await;
        }
        Ok(finished)
    }
}
