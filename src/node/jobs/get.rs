//! `get`: skeleton, plan, pieces, files in their places.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use libp2p::{Multiaddr, PeerId};
use modswarm_protocol::{
    engine::{ContentPieces, PickOrder, Stage as EngineStage, TransferStats},
    format::{Content, Name, PackPath, Part, PieceSet, Skeleton, Target},
};
use modswarm_store::{
    BeginError, Download, DownloadSpec, FinishError, Finished, Observer, Progress, Stage as StoreStage, Warning,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior},
};

use super::{
    BUSY_INTERVAL, CancelFlag, Drive, PROGRESS_INTERVAL,
    failures::{
        begin_failure, finish_failure, index_failure, interrupted, skeleton_read_failure, task_failure, write_failure,
    },
    node_ended, nodes_of, parse_target, skeleton,
};
use crate::{
    api::{Complete, Conflicts, Failure, FailureKind, GetEvent, GetRequest, PeerShare, Renamed, Stage},
    node::{
        Inner,
        actor::{Command, Fetch, TransferEvent, TransferView},
    },
};

/// How often a download is put in place whose pieces vanish again meanwhile.
const FINISH_ATTEMPTS: u32 = 3;

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
    let complete = job.complete(&drive, before, &skeleton, &download, finished).await?;
    if !request.seed {
        job.stop_seeding(skeleton.content.cid()).await?;
    }
    Ok(complete)
}

/// The pieces of the files that `first` matches.
fn pieces_of(content: &Content, first: &GlobSet) -> Result<PieceSet, Failure> {
    let mut pieces = content.map().none();
    let mut files = content
        .files()
        .iter()
        .filter(|file| first.is_match(file.path.as_str()))
        .peekable();
    if files.peek().is_none() {
        return Err(Failure::new(
            FailureKind::Usage,
            "--first matches no file of this pack",
            "`modswarm ls` lists its files; quote patterns so that the shell leaves them alone",
        ));
    }
    for part in files.flat_map(|file| content.parts(file)) {
        if let Part::Piece(piece) = part {
            pieces.set(piece.as_usize(), true);
        }
    }
    Ok(pieces)
}

/// What the request says of files in the way; older clients know only one word of it.
fn policy(request: &GetRequest) -> modswarm_store::Conflicts {
    use modswarm_store::Conflicts as Kept;
    match request.conflicts {
        Conflicts::Refuse if request.overwrite => Kept::TakeTheirs,
        Conflicts::Refuse => Kept::Refuse,
        Conflicts::KeepMine => Kept::KeepMine,
        Conflicts::TakeTheirs => Kept::TakeTheirs,
        Conflicts::KeepBoth => Kept::KeepBoth,
        Conflicts::Mend => Kept::Mend,
    }
}

pub(super) fn strings(paths: &[PackPath]) -> Vec<String> {
    paths.iter().map(ToString::to_string).collect()
}

pub(super) fn renames(pairs: &[(PackPath, PackPath)]) -> Vec<Renamed> {
    pairs
        .iter()
        .map(|(from, to)| Renamed {
            from: from.to_string(),
            to: to.to_string(),
        })
        .collect()
}

pub(super) fn globs(flag: &str, patterns: &[String]) -> Result<Option<GlobSet>, Failure> {
    if patterns.is_empty() {
        return Ok(None);
    }
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let glob = GlobBuilder::new(pattern)
            .literal_separator(true)
            .build()
            .map_err(|error| {
                Failure::new(
                    FailureKind::Usage,
                    format!("{flag} {pattern:?} cannot be read: {}", error.kind()),
                    format!("write it like {flag} 'mods/**' or {flag} '*.pak'"),
                )
            })?;
        set.add(glob);
    }
    let set = set.build().map_err(|error| {
        Failure::new(
            FailureKind::Usage,
            format!("{flag}: {error}"),
            "use fewer or simpler patterns",
        )
    })?;
    Ok(Some(set))
}

pub(super) struct Job {
    pub(super) node: Arc<Inner>,
    pub(super) events: mpsc::Sender<GetEvent>,
    pub(super) started: Instant,
    pub(super) timeout: Option<Duration>,
}

impl Job {
    fn tell(&self, stage: Stage, done: u64, total: u64, view: Option<&TransferView>) {
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

    async fn warn(&self, message: String) {
        let _ = self.events.send(GetEvent::Warning { message }).await;
    }

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

    pub(super) async fn spec(
        &self,
        request: &GetRequest,
        target: &Target,
        skeleton: &Skeleton,
        only: Option<&GlobSet>,
    ) -> Result<DownloadSpec, Failure> {
        let content = &skeleton.content;
        let name = match &skeleton.pack {
            Some(head) => head.manifest.name.clone(),
            None => match &target.name {
                Some(name) => name.clone(),
                None => Name::new(&target.root.to_string()).map_err(|error| {
                    Failure::new(
                        FailureKind::Failed,
                        error.to_string(),
                        "use a link instead of a bare CID",
                    )
                })?,
            },
        };
        let selection = only.map(|only| {
            content
                .files()
                .iter()
                .map(|file| only.is_match(file.path.as_str()))
                .collect::<bitvec::vec::BitVec>()
        });
        if selection.as_ref().is_some_and(|selected| selected.not_any()) && !content.files().is_empty() {
            return Err(Failure::new(
                FailureKind::Usage,
                "--only selects no file of this pack",
                "`modswarm ls` lists its files; quote patterns so that the shell leaves them alone",
            ));
        }
        Ok(DownloadSpec {
            pack: skeleton.pack.as_ref().map(|_| skeleton.root),
            content: content.cid(),
            destination: self.destination(&request.output, &name).await?,
            name,
            selection,
            conflicts: policy(request),
            network: self.node.network_id(),
        })
    }

    /// `output/<name>`, or `output` itself if that is the folder of an installed pack.
    async fn destination(&self, output: &std::path::Path, name: &Name) -> Result<PathBuf, Failure> {
        let store = self.node.store.clone();
        let asked = output.to_owned();
        let installed = tokio::task::spawn_blocking(move || {
            let real = dunce::canonicalize(&asked).unwrap_or(asked);
            let packs = store.packs().map_err(index_failure)?;
            Ok(packs.into_iter().any(|pack| pack.path == real))
        })
        .await
        .map_err(task_failure)??;
        Ok(if installed {
            output.to_owned()
        } else {
            output.join(modswarm_store::folder_name(name).as_str())
        })
    }

    /// Opens the download, says what will be written, and lets what this home has elsewhere be put together.
    async fn open(&self, spec: DownloadSpec, skeleton: &Skeleton) -> Result<Download, Failure> {
        let cancel = CancelFlag::default();
        let _guard = cancel.guard();
        let store = self.node.store.clone();
        let reports = Reports {
            events: self.events.clone(),
            cancel: cancel.clone(),
        };
        let (name, path) = (spec.name.as_str().to_owned(), spec.destination.clone());
        let (download, plan) = tokio::task::spawn_blocking(move || {
            let download = store.begin_download(&spec, &reports).map_err(|error| {
                if let BeginError::WouldOverwrite { destination, files } = &error {
                    let _ = reports.events.blocking_send(GetEvent::Conflicts {
                        path: destination.clone(),
                        files: strings(files),
                    });
                }
                begin_failure(error)
            })?;
            let plan = download.plan();
            Ok((download, plan))
        })
        .await
        .map_err(task_failure)??;
        let plan = GetEvent::Plan {
            pack: skeleton.pack.as_ref().map(|_| skeleton.root),
            content: skeleton.content.cid(),
            name,
            path,
            files: plan.files,
            bytes: plan.bytes,
            bytes_here: plan.bytes_here,
            disk_free: plan.disk_free,
            renamed: renames(&download.renames()),
            kept: strings(&download.skipped()),
        };
        self.events.send(plan).await.map_err(|_| interrupted())?;
        tokio::task::spawn_blocking(move || {
            download.adopt_local().map_err(begin_failure)?;
            Ok(download)
        })
        .await
        .map_err(task_failure)?
    }

    /// Fetches and puts in place; what vanished meanwhile (somebody deleted a file that was just placed) is fetched again.
    async fn fetch_and_finish(
        &self,
        drive: &mut Drive,
        skeleton: &Skeleton,
        download: &Download,
    ) -> Result<modswarm_store::Finished, Failure> {
        let mut attempt = 1;
        loop {
            self.fetch(drive, skeleton, download).await?;
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

    async fn finish(&self, download: &Download) -> Result<Result<modswarm_store::Finished, FinishError>, Failure> {
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

    async fn complete(
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

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ticks() -> tokio::time::Interval {
    let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

fn stage_of(view: &TransferView, skeleton: bool) -> Stage {
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

struct Reports {
    events: mpsc::Sender<GetEvent>,
    cancel: CancelFlag,
}

impl Observer for Reports {
    fn progress(&self, progress: Progress) {
        if matches!(progress.stage, StoreStage::Checking | StoreStage::Copying) {
            let _ = self.events.try_send(GetEvent::Progress {
                stage: Stage::Checking,
                bytes_done: progress.bytes_done,
                bytes_total: progress.bytes_total,
                rate: 0,
                eta: None,
                peers: 0,
            });
        }
    }

    fn warning(&self, warning: Warning) {
        let _ = self.events.blocking_send(GetEvent::Warning {
            message: warning.to_string(),
        });
    }

    fn cancelled(&self) -> bool {
        self.cancel.is_set()
    }
}
