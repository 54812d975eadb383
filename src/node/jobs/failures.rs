//! Errors of the store and the format, as messages to a tired player.

use modswarm_protocol::format::SkeletonError;
use modswarm_store::{
    BeginError, FinishError, IndexError, OpenError, RebuildError, RemoveError, ShareError, Shortage, SkeletonReadError,
    WriteError,
};

use super::causes;
use crate::api::{Failure, FailureKind};

const GOES_ON: &str = "then run the same command again: it goes on from what is here";

fn disk_full(message: String) -> Failure {
    Failure::new(
        FailureKind::DiskFull,
        message,
        format!("make room or choose another folder with -o, {GOES_ON}"),
    )
}

/// What the user's own bounds refuse.
fn not_allowed(shortage: &Shortage) -> Failure {
    let help = match shortage {
        Shortage::Quota { .. } => {
            format!("raise --quota, or make room with `modswarm rm --data` or `modswarm gc --keep SIZE`, {GOES_ON}")
        }
        _ => format!("make room, lower --min-free, or choose another folder with -o, {GOES_ON}"),
    };
    Failure::new(FailureKind::DiskFull, shortage.to_string(), help)
}

pub(in crate::node) fn index_failure(error: IndexError) -> Failure {
    match error {
        IndexError::DiskFull => Failure::new(
            FailureKind::DiskFull,
            "no room left on the disk that holds the home with its index",
            format!("make room on the disk of the home (`modswarm status` names it), {GOES_ON}"),
        ),
        IndexError::Busy | IndexError::Newer { .. } => Failure {
            kind: FailureKind::Failed,
            message: error.to_string(),
            help: None,
        },
        IndexError::Corrupt => Failure::new(
            FailureKind::Failed,
            "the index of this home (its file index.sqlite) is damaged",
            "end all modswarm processes and run `modswarm store rebuild`: it makes a new one from your packs' files",
        ),
        IndexError::ReadOnly => Failure::new(
            FailureKind::Failed,
            "the index cannot be written: the home is read-only",
            "make the home writable, or name another with --home",
        ),
        _ => Failure::new(
            FailureKind::Failed,
            error.to_string(),
            "your files are as they were; try again, or name another home with --home",
        ),
    }
}

pub(in crate::node) fn open_failure(error: OpenError, home: &std::path::Path) -> Failure {
    match error {
        OpenError::Index(IndexError::Corrupt) => Failure::new(
            FailureKind::Failed,
            format!("the index {} is damaged", home.join("index.sqlite").display()),
            "run `modswarm store rebuild`: it makes a new one from your packs' files, and puts this one aside",
        ),
        OpenError::Index(error) => index_failure(error),
        other => Failure::new(
            FailureKind::Failed,
            causes(&other),
            "close other programs and try again",
        ),
    }
}

/// Why there is no new index, for programs that rebuild one.
pub fn rebuild_failure(error: RebuildError, home: &std::path::Path) -> Failure {
    match error {
        RebuildError::Open(error) => open_failure(error, home),
        RebuildError::Index(error) => index_failure(error),
        RebuildError::Cancelled => interrupted(),
        other => Failure::new(FailureKind::Failed, causes(&other), "mend it and run this again"),
    }
}

pub(in crate::node) fn task_failure(error: tokio::task::JoinError) -> Failure {
    Failure::new(
        FailureKind::Failed,
        format!("a part of the program failed: {error}"),
        "this is a defect: please report it with the output of the same command under --log debug",
    )
}

pub(super) fn skeleton_failure(error: &SkeletonError) -> Failure {
    Failure::new(
        FailureKind::Integrity,
        format!("this pack cannot be used: {}", causes(error)),
        "ask whoever made it to share it again with a current modswarm",
    )
}

pub(super) fn skeleton_read_failure(error: SkeletonReadError) -> Failure {
    match error {
        SkeletonReadError::Skeleton(error) => skeleton_failure(&error),
        SkeletonReadError::Index(error) => index_failure(error),
        other => Failure::new(FailureKind::Failed, causes(&other), "try again"),
    }
}

pub(super) fn share_failure(error: ShareError) -> Failure {
    let (kind, help) = match &error {
        ShareError::NotFound(_) => (FailureKind::Usage, "check the path"),
        ShareError::NotShareable(_) => (FailureKind::Usage, "share a folder or a file"),
        ShareError::Names(_) | ShareError::Twins(_) => (
            FailureKind::Failed,
            "rename them, or leave them out with a line in .modswarmignore, and share again",
        ),
        ShareError::Changing(_) => (FailureKind::Failed, "close the program that writes it and share again"),
        ShareError::Io { .. } => (
            FailureKind::Failed,
            "make it readable, or leave it out with a line in .modswarmignore, and share again",
        ),
        ShareError::Cancelled => (FailureKind::Cancelled, "nothing was changed"),
        ShareError::DiskFull(_) => (
            FailureKind::DiskFull,
            "make room on the disk of the home, or share without --copy: that takes no room",
        ),
        ShareError::NotAllowed(_) => (
            FailureKind::DiskFull,
            "raise --quota or lower --min-free, make room, or share without --copy: that takes no room",
        ),
        _ => (FailureKind::Failed, "nothing was changed; mend it and share again"),
    };
    match error {
        ShareError::Index(error) => index_failure(error),
        ShareError::Names(names) => Failure::new(
            kind,
            listed(
                "these names cannot be in a pack",
                names.iter().map(|(p, e)| format!("{p:?}: {e}")),
            ),
            help,
        ),
        ShareError::Twins(pairs) => Failure::new(
            kind,
            listed(
                "these names are the same in Unicode",
                pairs.iter().map(|(a, b)| format!("{a:?} and {b:?}")),
            ),
            help,
        ),
        error => Failure::new(kind, causes(&error), help),
    }
}

/// A heading and its first lines, for a list that may be long.
fn listed(heading: &str, lines: impl ExactSizeIterator<Item = String>) -> String {
    const SHOWN: usize = 10;
    let more = lines.len().saturating_sub(SHOWN);
    let mut text = format!("{heading}:");
    for line in lines.take(SHOWN) {
        text.push_str("\n  ");
        text.push_str(&line);
    }
    if more > 0 {
        text.push_str(&format!("\n  … and {more} more"));
    }
    text
}

fn would_overwrite(destination: &std::path::Path, files: &[modswarm_protocol::format::PackPath]) -> Failure {
    let heading = format!("these files at {destination:?} differ from the pack's and would be overwritten");
    Failure::new(
        FailureKind::WouldOverwrite,
        listed(&heading, files.iter().map(ToString::to_string)),
        "nothing was changed; say --keep-mine, --take-theirs (or --overwrite) or --keep-both, or choose another folder with -o",
    )
}

pub(super) fn begin_failure(error: BeginError) -> Failure {
    match error {
        BeginError::WouldOverwrite { destination, files } => would_overwrite(&destination, &files),
        BeginError::DiskFull { .. } => disk_full(error.to_string()),
        BeginError::NotAllowed(shortage) => not_allowed(&shortage),
        BeginError::Skeleton(error) => skeleton_failure(&error),
        BeginError::Index(error) => index_failure(error),
        BeginError::Blocked(blocks) => Failure::new(
            FailureKind::WouldOverwrite,
            listed("these are in the way", blocks.iter().map(ToString::to_string)),
            "nothing was changed; move them away or choose another folder with -o",
        ),
        BeginError::InUse(_) => Failure::new(FailureKind::Failed, error.to_string(), "wait until it has ended"),
        BeginError::Cancelled => interrupted(),
        error => Failure::new(
            FailureKind::Failed,
            causes(&error),
            "make the folder writable, or choose another with -o",
        ),
    }
}

pub(super) fn finish_failure(error: FinishError) -> Failure {
    match error {
        FinishError::WouldOverwrite { destination, files } => {
            let heading = format!("these files at {destination:?} appeared or were changed during the get");
            Failure::new(
                FailureKind::WouldOverwrite,
                listed(&heading, files.iter().map(ToString::to_string)),
                "they were left as they are; run the same command with --keep-mine, --take-theirs or --keep-both: nothing is fetched twice",
            )
        }
        FinishError::DiskFull(_) => disk_full(error.to_string()),
        FinishError::NotAllowed(shortage) => not_allowed(&shortage),
        FinishError::Incomplete(_) => Failure::new(
            FailureKind::Failed,
            "files at the destination vanish while they are put there",
            format!("see which program deletes or moves them, {GOES_ON}"),
        ),
        FinishError::Index(error) => index_failure(error),
        error => Failure::new(FailureKind::Failed, causes(&error), format!("mend it, {GOES_ON}")),
    }
}

pub(super) fn write_failure(error: Option<WriteError>) -> Failure {
    match error {
        Some(error @ WriteError::DiskFull(_)) => disk_full(error.to_string()),
        Some(WriteError::NotAllowed(shortage)) => not_allowed(&shortage),
        Some(WriteError::Index(error)) => index_failure(error),
        Some(error) => Failure::new(FailureKind::Failed, causes(&error), format!("mend it, {GOES_ON}")),
        None => Failure::new(
            FailureKind::Failed,
            "a block could not be written",
            format!("see what is wrong with the disk, {GOES_ON}"),
        ),
    }
}

pub(in crate::node) fn remove_failure(error: RemoveError) -> Failure {
    let help = match &error {
        RemoveError::Unknown => "`modswarm status` lists the packs of this home",
        RemoveError::InUse => "end its download first",
        _ => "mend it and try again",
    };
    Failure::new(FailureKind::Failed, causes(&error), help)
}

pub(super) fn interrupted() -> Failure {
    Failure::new(
        FailureKind::Interrupted,
        "stopped; what was verified is kept",
        "run the same command again: it goes on from what is here",
    )
}
