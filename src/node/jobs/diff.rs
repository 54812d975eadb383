//! `diff` and `get --dry-run`: what a get would do, and how two packs differ. Lists of files are fetched; nothing else is written.

use std::{path::Path, sync::Arc};

use modswarm_protocol::format::{Name, Skeleton, Target};
use modswarm_store::{Observer, Preview};
use tokio::{sync::mpsc, time::Instant};

use super::{
    CancelFlag,
    failures::begin_failure,
    get::{Job, globs, renames, strings},
    list, task_failure,
};
use crate::{
    api::{Diff, DiffRequest, Failure, FailureKind, GetRequest},
    node::{Inner, packs},
};

/// Compares.
pub(in crate::node) async fn run(node: Arc<Inner>, request: DiffRequest) -> Result<Diff, Failure> {
    let to = resolve(&node, &request.to).await?;
    let new = list::skeleton_of(&node, &to, &request.peers, request.timeout).await?;
    let (from, output) = match (&request.from, &request.output) {
        (Some(from), _) if is_folder(from) => {
            let record = packs::targets(&node, Some(from)).await?.swap_remove(0);
            (record.pack.or(Some(record.content)), Some(record.path))
        }
        (Some(from), _) => {
            let from = resolve(&node, from).await?;
            let old = list::skeleton_of(&node, &from, &request.peers, request.timeout).await?;
            return between(&node, old, new).await;
        }
        (None, Some(output)) => (None, Some(output.clone())),
        (None, None) => (None, None),
    };
    let output = output.ok_or_else(|| {
        Failure::new(
            FailureKind::Usage,
            "there is nothing to compare with",
            "name two packs, or a folder that one would be got into",
        )
    })?;
    installed(&node, &request, &to, new, &output, from).await
}

fn is_folder(text: &str) -> bool {
    Target::parse(text).is_err() && Path::new(text).is_dir()
}

/// A link, CID or URL as it is; the CID of the pack of this home that a name or folder means.
async fn resolve(node: &Arc<Inner>, text: &str) -> Result<String, Failure> {
    if Target::parse(text).is_ok() {
        return Ok(text.to_owned());
    }
    let record = packs::targets(node, Some(text)).await?.swap_remove(0);
    Ok(record.pack.unwrap_or(record.content).to_string())
}

/// What a get of `new` into `output` would do.
async fn installed(
    node: &Arc<Inner>,
    request: &DiffRequest,
    to: &str,
    new: Skeleton,
    output: &Path,
    from: Option<modswarm_protocol::Cid>,
) -> Result<Diff, Failure> {
    let get = GetRequest {
        target: to.to_owned(),
        output: output.to_owned(),
        only: request.only.clone(),
        conflicts: request.conflicts,
        ..GetRequest::default()
    };
    let (target, _) = super::parse_target(to, &[])?;
    // Nobody listens: there is nothing to say but the answer.
    let (events, _) = mpsc::channel(1);
    let job = Job {
        node: Arc::clone(node),
        events,
        started: Instant::now(),
        timeout: None,
    };
    let only = globs("--only", &get.only)?;
    let spec = job.spec(&get, &target, &new, only.as_ref()).await?;
    let cancel = CancelFlag::default();
    let _guard = cancel.guard();
    let store = node.store.clone();
    let quiet = Quiet(cancel.clone());
    let preview = tokio::task::spawn_blocking(move || store.preview_download(&spec, &quiet))
        .await
        .map_err(task_failure)?
        .map_err(begin_failure)?;
    Ok(diff(&preview, from, &new, Some(preview.destination.clone())))
}

async fn between(node: &Arc<Inner>, old: Skeleton, new: Skeleton) -> Result<Diff, Failure> {
    let cancel = CancelFlag::default();
    let _guard = cancel.guard();
    let store = node.store.clone();
    let (old_content, new_content) = (old.content.clone(), new.content.clone());
    let quiet = Quiet(cancel.clone());
    let preview = tokio::task::spawn_blocking(move || store.compare(&old_content, &new_content, &quiet))
        .await
        .map_err(task_failure)?
        .map_err(begin_failure)?;
    Ok(diff(&preview, Some(root_of(&old)), &new, None))
}

/// Only ends when nobody waits any more.
struct Quiet(CancelFlag);

impl Observer for Quiet {
    fn cancelled(&self) -> bool {
        self.0.is_set()
    }
}

fn root_of(skeleton: &Skeleton) -> modswarm_protocol::Cid {
    skeleton.root
}

fn diff(
    preview: &Preview,
    from: Option<modswarm_protocol::Cid>,
    new: &Skeleton,
    path: Option<std::path::PathBuf>,
) -> Diff {
    Diff {
        from,
        to: root_of(new),
        name: new
            .pack
            .as_ref()
            .map(|head| Name::as_str(&head.manifest.name).to_owned()),
        path,
        unchanged: preview.unchanged,
        added: strings(&preview.added),
        changed: strings(&preview.changed),
        removed: strings(&preview.removed),
        renamed: renames(&preview.renamed),
        conflicts: strings(&preview.conflicts),
        kept: strings(&preview.kept),
        bytes_to_fetch: preview.bytes_to_fetch,
        disk_needed: preview.disk_needed,
        disk_change: preview.disk_change,
        disk_free: preview.disk_free,
    }
}
