//! `share`: a folder becomes a pack and is served.

use std::sync::Arc;

use modswarm_protocol::{
    Cid,
    format::{ChunkerProfile, Link, Name},
};
use modswarm_store::{Observer, Progress, ShareSpec, SharedPack, Stage as StoreStage, Warning};
use tokio::sync::mpsc;

use super::{
    CancelFlag,
    failures::{share_failure, task_failure},
    unix_seconds,
};
use crate::{
    api::{Failure, FailureKind, ShareEvent, ShareRequest, Shared, Stage},
    node::{
        Inner,
        actor::Command,
        actor::Register,
        network::{Reach, reach},
    },
};

/// Addresses in a link: enough to get in, few enough for a chat message and a QR code.
const LINK_ADDRS: usize = 4;

/// Runs the job; the last event says how it ended.
pub(in crate::node) async fn run(node: Arc<Inner>, request: ShareRequest, events: mpsc::Sender<ShareEvent>) {
    let last = tokio::select! {
        shared = share(&node, request, &events) => match shared {
            Ok(shared) => ShareEvent::Ready(shared),
            Err(failure) => ShareEvent::Failed(failure),
        },
        () = events.closed() => return,
    };
    let _ = events.send(last).await;
}

async fn share(node: &Arc<Inner>, request: ShareRequest, events: &mpsc::Sender<ShareEvent>) -> Result<Shared, Failure> {
    let cancel = CancelFlag::default();
    let _guard = cancel.guard();
    let spec = spec_of(&request, node.network_id())?;
    let reports = Reports {
        events: events.clone(),
        cancel,
    };
    let store = node.store.clone();
    let shared = tokio::task::spawn_blocking(move || store.share(&spec, &reports).map_err(share_failure))
        .await
        .map_err(task_failure)??;
    let (pack, content) = (shared.pack, shared.content);
    node.send(Command::Serve(Register {
        content,
        packs: vec![pack],
        has_something: true,
    }))
    .await?;
    let addrs = node.overview().await?.addrs;
    let expires = request.expires.map(|seconds| unix_seconds().saturating_add(seconds));
    let link = link_of(&shared.manifest.name, pack, content, &addrs, expires);
    let SharedPack {
        files, bytes, blocks, ..
    } = shared;
    Ok(Shared {
        pack,
        content,
        link,
        files,
        bytes,
        blocks,
        peer_id: node.peer_id.to_string(),
        addrs: addrs.iter().map(ToString::to_string).collect(),
    })
}

fn spec_of(request: &ShareRequest, network: [u8; 32]) -> Result<ShareSpec, Failure> {
    let name = request
        .name
        .as_deref()
        .map(Name::normalised)
        .transpose()
        .map_err(|error| {
            Failure::new(
                FailureKind::Usage,
                format!("the pack cannot have this name: {error}"),
                "give another with --name",
            )
        })?;
    let mut spec = ShareSpec::new(&request.path, network);
    spec.name = name;
    spec.description.clone_from(&request.description);
    spec.creator.clone_from(&request.creator);
    spec.game.clone_from(&request.game);
    spec.tags.clone_from(&request.tags);
    spec.previous = request.previous;
    spec.hash = request.hash;
    spec.profile = None::<ChunkerProfile>;
    spec.copy = request.copy;
    Ok(spec)
}

/// The text to pass on.
pub(in crate::node) fn link_of(
    name: &Name,
    pack: Cid,
    content: Cid,
    addrs: &[libp2p::Multiaddr],
    expires: Option<u64>,
) -> String {
    // Friends are on other machines: an address of this one alone is passed on only if there is no other.
    let far = addrs.iter().filter(|addr| reach(addr) < Reach::Machine).count();
    let addrs = addrs
        .iter()
        .take(if far > 0 { far.min(LINK_ADDRS) } else { LINK_ADDRS })
        .cloned()
        .collect();
    Link {
        pack,
        content: Some(content),
        name: Some(name.clone()),
        addrs,
        expires,
    }
    .to_string()
}

struct Reports {
    events: mpsc::Sender<ShareEvent>,
    cancel: CancelFlag,
}

impl Observer for Reports {
    fn progress(&self, progress: Progress) {
        let stage = match progress.stage {
            StoreStage::Scanning => Stage::Scanning,
            StoreStage::Indexing => Stage::Indexing,
            StoreStage::Copying => Stage::Copying,
            _ => Stage::Hashing,
        };
        // Whoever reads slowly sees fewer of them.
        let _ = self.events.try_send(ShareEvent::Progress {
            stage,
            bytes_done: progress.bytes_done,
            bytes_total: progress.bytes_total,
            files_done: progress.files_done,
            files_total: progress.files_total,
        });
    }

    fn warning(&self, warning: Warning) {
        // Called from blocking threads: waiting for the reader is right, losing a warning is not.
        let _ = self.events.blocking_send(ShareEvent::Warning {
            message: warning.to_string(),
        });
    }

    fn cancelled(&self) -> bool {
        self.cancel.is_set()
    }
}
