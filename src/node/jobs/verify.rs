//! `verify`: packs are read whole; with `repair`, what is wrong is fetched again.

use std::sync::Arc;

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
        let verified = read(node, &record, events).await?;
        let mut report = report(&record, &verified);
        if request.repair && !verified.bad.is_empty() {
            match repair(node, &record, &verified, request, events).await {
                Ok(()) => {
                    let edited = edited(&verified);
                    report.repaired = Some(edited == 0);
                    if edited > 0 {
                        let message = format!(
                            "{} of {} that were changed after they were put there are kept; the rest was mended",
                            if edited == 1 {
                                "1 file".to_owned()
                            } else {
                                format!("{edited} files")
                            },
                            record.name
                        );
                        let _ = events.send(VerifyEvent::Warning { message }).await;
                    }
                }
                Err(failure) => {
                    report.repaired = Some(false);
                    let message = match &failure.help {
                        Some(help) => format!("{}; {help}", failure.message),
                        None => failure.message.clone(),
                    };
                    let _ = events.send(VerifyEvent::Warning { message }).await;
                }
            }
        }
        let _ = events.send(VerifyEvent::Pack(report)).await;
    }
    Ok(())
}

async fn read(node: &Inner, record: &PackRecord, events: &mpsc::Sender<VerifyEvent>) -> Result<Verified, Failure> {
    let cancel = CancelFlag::default();
    let _guard = cancel.guard();
    let reports = Reports {
        pack: record.name.clone(),
        events: events.clone(),
        cancel,
    };
    let (store, id) = (node.store.clone(), record.id);
    let name = record.name.clone();
    tokio::task::spawn_blocking(move || store.verify_pack(id, &reports).map_err(|error| failure(error, &name)))
        .await
        .map_err(task_failure)?
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
            })
            .collect(),
        restored: verified.restored,
        lost: verified.lost,
        repaired: None,
    }
}

/// Fetches what is missing or rotten. What the user changed stays as it is: only the user knows which of the two is wanted.
/// How many files were changed by their owner.
fn edited(verified: &Verified) -> usize {
    verified.bad.iter().filter(|bad| bad.fault == Fault::Changed).count()
}

async fn repair(
    node: &Arc<Inner>,
    record: &PackRecord,
    verified: &Verified,
    request: &VerifyRequest,
    events: &mpsc::Sender<VerifyEvent>,
) -> Result<(), Failure> {
    let changed = edited(verified);
    // A download knows by its records which files were put there as they are, and are not the user's; of a folder that was shared all are.
    if changed == verified.bad.len() || changed > 0 && record.origin == Origin::Shared {
        return Err(Failure::new(
            FailureKind::WouldOverwrite,
            format!(
                "{changed} files of {} were changed after they were put there, and are kept",
                record.name
            ),
            "to have the pack's files back, get it again with --overwrite; to keep yours, share the folder again",
        ));
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
        conflicts: if changed > 0 {
            Conflicts::KeepMine
        } else {
            Conflicts::TakeTheirs
        },
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
