//! `verify`: packs are read whole; with `repair`, what is wrong is fetched again.

use std::{collections::HashSet, sync::Arc};

use modswarm_protocol::format::PackPath;
use modswarm_store::{Fault, Observer, Origin, PackRecord, PackState, Progress, Verified, VerifyError};
use tokio::sync::mpsc;

use super::{
    CancelFlag,
    failures::{index_failure, skeleton_failure, task_failure},
};
use crate::{
    api::{
        BadFile, Conflicts, Failure, FailureKind, FileFault, GetEvent, GetRequest, PackVerified, VerifyEvent,
        VerifyRequest,
    },
    node::{Inner, packs},
};

/// Events of a repair that wait to be passed on.
const REPAIR_QUEUE: usize = 16;

/// Runs the job; the last event says how it ended.
pub(in crate::node) async fn run(node: Arc<Inner>, request: VerifyRequest, events: mpsc::Sender<VerifyEvent>) {
    let last = tokio::select! {
        verified = verify(&node, &request, &events) => match verified {
            Ok(()) => VerifyEvent::Complete,
            Err(failure) => VerifyEvent::Failed(failure),
        },
        () = events.closed() => return,
    };
    let _ = events.send(last).await;
}

async fn verify(node: &Arc<Inner>, request: &VerifyRequest, events: &mpsc::Sender<VerifyEvent>) -> Result<(), Failure> {
    for record in packs::targets(node, request.target.as_deref()).await? {
        if record.state == PackState::Superseded {
            continue;
        }
        let verified = read(node, &record, None, events).await?;
        let mut report = report(&record, &verified);
        if request.repair && !verified.bad.is_empty() {
            if let Err(failure) = repair(node, &record, &verified, request, events).await {
                let message = match &failure.help {
                    Some(help) => format!("{}; {help}", failure.message),
                    None => failure.message.clone(),
                };
                let _ = events.send(VerifyEvent::Warning { message }).await;
            } else {
                // Nobody but the disk says whether it holds what was written to it.
                let paths = verified.bad.iter().map(|bad| bad.path.clone()).collect();
                let again = read(node, &record, Some(paths), events).await?;
                let still: HashSet<&str> = again.bad.iter().map(|bad| bad.path.as_str()).collect();
                for bad in &mut report.bad {
                    bad.mended = !still.contains(bad.path.as_str());
                }
            }
            report.repaired = Some(report.bad.iter().all(|bad| bad.mended));
            if let Some(message) = edits(&record, &report) {
                let _ = events.send(VerifyEvent::Warning { message }).await;
            }
        }
        let _ = events.send(VerifyEvent::Pack(report)).await;
    }
    Ok(())
}

/// Reads a pack, or some of its files.
async fn read(
    node: &Inner,
    record: &PackRecord,
    paths: Option<Vec<PackPath>>,
    events: &mpsc::Sender<VerifyEvent>,
) -> Result<Verified, Failure> {
    let cancel = CancelFlag::default();
    let _guard = cancel.guard();
    let reports = Reports {
        pack: record.name.clone(),
        events: events.clone(),
        cancel,
    };
    let (store, id) = (node.store.clone(), record.id);
    let name = record.name.clone();
    tokio::task::spawn_blocking(move || {
        let verified = match paths {
            Some(paths) => store.verify_files(id, &paths, &reports),
            None => store.verify_pack(id, &reports),
        };
        verified.map_err(|error| failure(error, &name))
    })
    .await
    .map_err(task_failure)?
}

/// What to do about files that were edited and that a repair left as they are; none if there are none.
fn edits(record: &PackRecord, report: &PackVerified) -> Option<String> {
    let edited = |bad: &&BadFile| bad.fault == FileFault::Changed && !bad.mended;
    let (files, stay) = match report.bad.iter().filter(edited).count() {
        0 => return None,
        1 => ("1 file".to_owned(), "stays as it is"),
        files => (format!("{files} files"), "stay as they are"),
    };
    let mended = report.bad.iter().any(|bad| bad.mended);
    let rest = if mended { "; the rest was mended" } else { "" };
    let (pack, path) = (record.pack.unwrap_or(record.content), record.path.display());
    let next = match record.origin {
        Origin::Shared => format!("to share what you changed as a new version: `modswarm share '{path}'`"),
        Origin::Fetched => "to keep yours, go on as it is, or share the folder as a pack of your own".to_owned(),
    };
    let above = record.path.parent().unwrap_or(&record.path).display();
    Some(format!(
        "{files} of {} changed after being put there {stay}{rest}; {next}; to have the pack's files back: `modswarm get {pack} -o '{above}' --overwrite`",
        record.name
    ))
}

fn failure(error: VerifyError, name: &str) -> Failure {
    match error {
        VerifyError::Index(error) => index_failure(error),
        VerifyError::Skeleton(error) => skeleton_failure(&error),
        VerifyError::SkeletonMissing => Failure::new(
            FailureKind::Integrity,
            format!("the list of files of {name} is missing or damaged"),
            "get the pack again, or share its folder again: what is there is checked and not fetched again",
        ),
        VerifyError::Cancelled => super::failures::interrupted(),
        other => Failure::new(
            FailureKind::Failed,
            format!("{name} cannot be verified: {other}"),
            "wait until its download has ended, then verify it",
        ),
    }
}

fn report(record: &PackRecord, verified: &Verified) -> PackVerified {
    PackVerified {
        pack: record.pack,
        content: record.content,
        name: record.name.clone(),
        path: record.path.clone(),
        files: verified.files,
        bytes: verified.bytes,
        bad: verified
            .bad
            .iter()
            .map(|bad| BadFile {
                path: bad.path.as_str().to_owned(),
                fault: match bad.fault {
                    Fault::Missing => FileFault::Missing,
                    Fault::Changed => FileFault::Changed,
                    Fault::Rotten => FileFault::Rotten,
                    Fault::Unreadable => FileFault::Unreadable,
                },
                bytes: bad.bytes,
                mended: false,
            })
            .collect(),
        restored: verified.restored,
        lost: verified.lost,
        repaired: None,
    }
}

/// Fetches what is missing or rotten. What the user changed stays as it is: only the user knows which of the two is wanted.
async fn repair(
    node: &Arc<Inner>,
    record: &PackRecord,
    verified: &Verified,
    request: &VerifyRequest,
    events: &mpsc::Sender<VerifyEvent>,
) -> Result<(), Failure> {
    if verified.bad.iter().all(|bad| bad.fault == Fault::Changed) {
        return Ok(());
    }
    if record.copied {
        return Err(Failure::new(
            FailureKind::Failed,
            format!(
                "the copy of {} has rotten, and its folder has no more of it",
                record.name
            ),
            "get the pack into another folder, and share that with --copy",
        ));
    }
    if record.path.is_file() {
        return Err(Failure::new(
            FailureKind::Failed,
            format!("{} was shared as a single file and is not replaced", record.name),
            "get the pack into another folder, and copy the file from there",
        ));
    }
    let (sender, mut progress) = mpsc::channel(REPAIR_QUEUE);
    let get = GetRequest {
        target: record.pack.unwrap_or(record.content).to_string(),
        output: record.path.clone(),
        peers: request.peers.clone(),
        only: if record.partial {
            let bad = verified.bad.iter().filter(|bad| bad.fault != Fault::Changed);
            bad.map(|bad| globset::escape(bad.path.as_str())).collect()
        } else {
            Vec::new()
        },
        overwrite: false,
        conflicts: Conflicts::Mend,
        timeout: request.timeout,
        seed: true,
        ..GetRequest::default()
    };
    let getting = tokio::spawn(super::get(Arc::clone(node), get, sender));
    let mut outcome = Err(super::node_ended());
    while let Some(event) = progress.recv().await {
        match event {
            GetEvent::Plan { .. } | GetEvent::Conflicts { .. } => {}
            GetEvent::Progress {
                bytes_done,
                bytes_total,
                ..
            } => {
                let _ = events.try_send(VerifyEvent::Progress {
                    pack: record.name.clone(),
                    repairing: true,
                    bytes_done,
                    bytes_total,
                    files_done: 0,
                    files_total: record.files,
                });
            }
            GetEvent::Warning { message } => {
                let _ = events.send(VerifyEvent::Warning { message }).await;
            }
            GetEvent::Complete(_) => outcome = Ok(()),
            GetEvent::Failed(failure) => outcome = Err(failure),
        }
    }
    let _ = getting.await;
    outcome
}

struct Reports {
    pack: String,
    events: mpsc::Sender<VerifyEvent>,
    cancel: CancelFlag,
}

impl Observer for Reports {
    fn progress(&self, progress: Progress) {
        let _ = self.events.try_send(VerifyEvent::Progress {
            pack: self.pack.clone(),
            repairing: false,
            bytes_done: progress.bytes_done,
            bytes_total: progress.bytes_total,
            files_done: progress.files_done,
            files_total: progress.files_total,
        });
    }

    fn cancelled(&self) -> bool {
        self.cancel.is_set()
    }
}
