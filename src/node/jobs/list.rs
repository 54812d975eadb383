//! `ls`: a pack's skeleton, and nothing else.

use std::{collections::HashSet, sync::Arc, time::Duration};

use modswarm_protocol::format::{File, Skeleton};

use super::{BUSY_INTERVAL, Drive, failures::skeleton_read_failure, parse_target, skeleton, task_failure};
use crate::{
    api::{Failure, FailureKind, ListRequest, ListedFile, Listing},
    node::Inner,
};

/// Lists the files of a pack.
pub(in crate::node) async fn run(node: Arc<Inner>, request: ListRequest) -> Result<Listing, Failure> {
    let skeleton = skeleton_of(&node, &request.target, &request.peers, request.timeout).await?;
    listing(&skeleton)
}

/// The list of files of `target`, fetched if it is not here.
pub(super) async fn skeleton_of(
    node: &Arc<Inner>,
    target: &str,
    peers: &[String],
    timeout: Option<u64>,
) -> Result<Skeleton, Failure> {
    let (target, peers) = parse_target(target, peers)?;
    let store = node.store.clone();
    let (root, name) = (target.root, target.name.clone());
    let here = tokio::task::spawn_blocking(move || store.skeleton(&root, name.as_ref()))
        .await
        .map_err(task_failure)?
        .map_err(skeleton_read_failure)?;
    if let Some(skeleton) = here {
        return Ok(skeleton);
    }
    let mut drive = loop {
        match Drive::begin(node, &target, peers.clone()).await? {
            Some(drive) => break drive,
            None => tokio::time::sleep(BUSY_INTERVAL).await,
        }
    };
    let fetching = skeleton::fetch(node, &mut drive, &target, |_| {});
    match timeout {
        None => fetching.await,
        Some(seconds) => tokio::time::timeout(Duration::from_secs(seconds), fetching)
            .await
            .map_err(|_| {
                Failure::new(
                    FailureKind::NotFound,
                    format!("nobody gave the list of files within {seconds} seconds"),
                    "check the link, ask somebody who has the pack to share it again, or wait longer with --timeout",
                )
            })?,
    }
}

fn listing(skeleton: &Skeleton) -> Result<Listing, Failure> {
    let content = &skeleton.content;
    let mut full = HashSet::new();
    for path in content.files().map(File::path).chain(content.dirs()) {
        full.extend(path.parent().map(|parent| parent.as_str().to_owned()));
    }
    let manifest = skeleton
        .pack
        .as_ref()
        .map(|head| serde_json::from_slice(&head.manifest_bytes))
        .transpose()
        .map_err(|error| {
            Failure::new(
                FailureKind::Integrity,
                format!("pack.json is damaged: {error}"),
                "ask for a new link",
            )
        })?;
    Ok(Listing {
        pack: skeleton.pack.as_ref().map(|_| skeleton.root),
        content: content.cid(),
        name: skeleton
            .pack
            .as_ref()
            .map(|head| head.manifest.name.as_str().to_owned()),
        manifest,
        blocks: u64::from(content.map().len()),
        files: content
            .files()
            .map(|file| ListedFile {
                path: file.path().to_string(),
                size: file.size(),
                cid: file.cid(),
            })
            .collect(),
        empty_dirs: content
            .dirs()
            .filter(|dir| !full.contains(dir.as_str()))
            .map(|dir| dir.to_string())
            .collect(),
    })
}
