//! What a `get` will write, and where, before anything is written.

use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use modswarm_protocol::format::{Content, Name, Part, PieceSet, Skeleton, Target};
use modswarm_store::{BeginError, Download, DownloadSpec, Observer, Progress, Stage as StoreStage, Warning};
use tokio::sync::mpsc;

use super::{
    Job,
    report::{renames, strings},
};
use crate::{
    api::{Conflicts, Failure, FailureKind, GetEvent, GetRequest, Stage},
    node::{
        heap,
        jobs::{
            CancelFlag,
            failures::{begin_failure, index_failure, interrupted, task_failure},
        },
    },
};

pub(in crate::node::jobs) fn globs(flag: &str, patterns: &[String]) -> Result<Option<GlobSet>, Failure> {
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

/// The pieces of the files that `first` matches.
pub(super) fn pieces_of(content: &Content, first: &GlobSet) -> Result<PieceSet, Failure> {
    let mut pieces = content.map().none();
    let mut files = content
        .files()
        .filter(|file| first.is_match(file.path().as_str()))
        .peekable();
    if files.peek().is_none() {
        return Err(Failure::new(
            FailureKind::Usage,
            "--first matches no file of this pack",
            "`modswarm ls` lists its files; quote patterns so that the shell leaves them alone",
        ));
    }
    for part in files.flat_map(|file| file.parts()) {
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

impl Job {
    pub(in crate::node::jobs) async fn spec(
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
                .map(|file| only.is_match(file.path().as_str()))
                .collect::<bitvec::vec::BitVec>()
        });
        if selection.as_ref().is_some_and(|selected| selected.not_any()) && content.files().len() > 0 {
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
    async fn destination(&self, output: &Path, name: &Name) -> Result<PathBuf, Failure> {
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
    pub(super) async fn open(&self, spec: DownloadSpec, skeleton: &Skeleton) -> Result<Download, Failure> {
        let cancel = CancelFlag::default();
        let _guard = cancel.guard();
        let store = self.node.store.clone();
        let reports = Reports {
            events: self.events.clone(),
            cancel: cancel.clone(),
        };
        let (name, path) = (spec.name.as_str().to_owned(), spec.destination.clone());
        let (download, plan) = tokio::task::spawn_blocking(move || {
            heap::give_back();
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
