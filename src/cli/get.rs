//! `modswarm get`.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use modswarm::{
    api::{Complete, Conflicts, DiffRequest, Failure, FailureKind, GetEvent, GetRequest},
    control::CallError,
};
use tokio::sync::mpsc;

use super::{
    args::GetArgs,
    ask::{self, InTheWay},
    diff,
    output::Ui,
    progress::{Meter, Snapshot, TICK},
    session::{Context, Followed, Need, Seeded, Session, cancelled},
    signals::Phase,
    target, text,
};

pub(crate) async fn run(context: &Context, args: GetArgs) -> Result<(), Failure> {
    if args.dry_run {
        let request = DiffRequest {
            from: None,
            to: target::checked(&args.source.target)?,
            output: Some(checked_output(&args.output)?),
            peers: args.source.peers.iter().map(ToString::to_string).collect(),
            only: args.only,
            conflicts: args.conflicts.policy(),
            timeout: args.source.timeout,
        };
        return diff::show(context, &request).await;
    }
    let mut request = GetRequest {
        target: target::checked(&args.source.target)?,
        output: checked_output(&args.output)?,
        peers: args.source.peers.iter().map(ToString::to_string).collect(),
        only: args.only,
        overwrite: false,
        conflicts: args.conflicts.policy(),
        timeout: args.source.timeout,
        seed: !args.no_seed,
        first: args.first,
        sequential: args.sequential,
    };
    let mut complete = false;
    loop {
        let session = context.join(Need::Network).await?;
        context.upload_notice(&session);
        let mut events = None;
        if !complete {
            let mut in_the_way = None;
            let mut followed = once(context, &session, &request, &mut in_the_way).await;
            if let (Followed::Failed(_), Some(found)) = (&followed, in_the_way.take())
                && request.conflicts == Conflicts::Refuse
                && ask::possible(&context.ui)
            {
                request.conflicts = match ask::what_to_do(context, &found).await {
                    Some(policy) => policy,
                    None => {
                        session.close().await;
                        return Err(cancelled());
                    }
                };
                followed = once(context, &session, &request, &mut in_the_way).await;
            }
            match followed {
                Followed::Done(rest) => events = Some(rest),
                Followed::Lost => {
                    context.take_over(&session)?;
                    continue;
                }
                Followed::Failed(failure) => {
                    session.close().await;
                    return Err(failure);
                }
                // `once` knows what is kept and makes it a failure.
                Followed::Stopped => return Err(cancelled()),
            }
            complete = true;
            context.signals.enter(Phase::Seeding);
            if !request.seed {
                session.close().await;
                return Ok(());
            }
        }
        context.say_who_seeds(&session);
        match context.seed(&session, events).await {
            Seeded::Lost => context.take_over(&session)?,
            Seeded::Stopped => {
                session.close().await;
                return Ok(());
            }
        }
    }
}

/// Gets, and prints what comes of it. Gives the rest of the job's channel.
///
/// `in_the_way` tells of files that kept it from beginning.
async fn once(
    context: &Context,
    session: &Session,
    request: &GetRequest,
    in_the_way: &mut Option<InTheWay>,
) -> Followed<mpsc::Receiver<GetEvent>> {
    let mut events = match session.get(request).await {
        Ok(events) => events,
        Err(CallError::Lost) => return Followed::Lost,
        Err(CallError::Failed(failure)) => return Followed::Failed(failure),
    };
    let mut meter = Meter::new(&context.ui);
    let mut underway = false;
    let mut lines = JsonLines::default();
    let followed = context
        .follow(&mut events, &mut meter, |event, meter| {
            lines.write(&context.ui, &event);
            if let Some(snapshot) = Snapshot::of_get(&event) {
                meter.update(snapshot, &event);
            }
            match event {
                GetEvent::Progress { .. } => None,
                GetEvent::Plan { .. } => {
                    underway = true;
                    context.signals.enter(Phase::Underway);
                    if !context.ui.json()
                        && let Some(plan) = plan(&event)
                    {
                        context.ui.note(&plan);
                    }
                    None
                }
                GetEvent::Warning { message } => {
                    context.ui.warning(&message);
                    None
                }
                GetEvent::Conflicts { path, files } => {
                    *in_the_way = Some(InTheWay { path, files });
                    None
                }
                GetEvent::Complete(complete) => Some(Ok(complete)),
                GetEvent::Failed(failure) => Some(Err(failure)),
            }
        })
        .await;
    meter.clear();
    match followed {
        Followed::Done(complete) => {
            print(context, &complete);
            Followed::Done(events)
        }
        Followed::Stopped => {
            let failure = if underway {
                interrupted(meter.kept())
            } else {
                cancelled()
            };
            lines.write(&context.ui, &GetEvent::Failed(failure.clone()));
            Followed::Failed(failure)
        }
        Followed::Failed(failure) => Followed::Failed(failure),
        Followed::Lost => Followed::Lost,
    }
}

/// The failure of a get that the user stopped, with what is kept of it.
fn interrupted(kept: Option<String>) -> Failure {
    let kept = kept.map_or_else(
        || "what has arrived is kept".to_owned(),
        |kept| format!("{kept} is kept"),
    );
    Failure::new(
        FailureKind::Interrupted,
        kept,
        "run the same command again: it goes on from there",
    )
}

/// The events as lines on standard output, progress not more than a few times a second.
#[derive(Debug, Default)]
struct JsonLines {
    progress_at: Option<Instant>,
}

impl JsonLines {
    fn write(&mut self, ui: &Ui, event: &GetEvent) {
        if !ui.json() {
            return;
        }
        if matches!(event, GetEvent::Progress { .. }) {
            let now = Instant::now();
            if self.progress_at.is_some_and(|at| now - at < TICK) {
                return;
            }
            self.progress_at = Some(now);
        }
        ui.json_result(event);
    }
}

/// What will be written, for people.
fn plan(event: &GetEvent) -> Option<String> {
    let GetEvent::Plan {
        name,
        path,
        files,
        bytes,
        bytes_here,
        disk_free,
        renamed,
        kept,
        ..
    } = event
    else {
        return None;
    };
    let mut lines = vec![text::escaped(name)];
    lines.push(format!("  {}, {}", text::count(*files, "file"), text::bytes(*bytes)));
    if *bytes_here > 0 {
        let fetch = bytes.saturating_sub(*bytes_here);
        lines.push(format!(
            "  {} of it here already, {} to fetch",
            text::bytes(*bytes_here),
            text::bytes(fetch)
        ));
    }
    lines.push(format!("  into {}", text::escaped(&path.to_string_lossy())));
    if !renamed.is_empty() {
        lines.push(format!("  {} only renamed", text::count(renamed.len() as u64, "file")));
    }
    if !kept.is_empty() {
        lines.push(format!("  {} of your own kept", text::count(kept.len() as u64, "file")));
    }
    if let Some(free) = disk_free {
        lines.push(format!("  {} free there", text::bytes(*free)));
    }
    Some(lines.join("\n"))
}

fn print(context: &Context, complete: &Complete) {
    if context.ui.json() {
        return;
    }
    let fetched = match complete.peers.len() as u64 {
        0 => String::new(),
        peers => format!(
            "{} fetched from {}",
            text::bytes(complete.bytes_fetched),
            text::count(peers, "peer")
        ),
    };
    let reused = match complete.bytes_reused {
        0 => String::new(),
        bytes => format!("{} were here already", text::bytes(bytes)),
    };
    let how: Vec<String> = [fetched, reused].into_iter().filter(|part| !part.is_empty()).collect();
    let how = if how.is_empty() {
        String::new()
    } else {
        format!(": {}", how.join(", "))
    };
    context.ui.note(&format!(
        "Complete: {}, {} in {:.1} s{how}.",
        text::count(complete.files, "file"),
        text::bytes(complete.bytes),
        complete.seconds
    ));
    context.ui.result(&text::escaped(&complete.path.to_string_lossy()));
}

/// The absolute destination, or what is wrong with it.
fn checked_output(output: &Path) -> Result<PathBuf, Failure> {
    if output.as_os_str().is_empty() {
        return Err(Failure::new(
            FailureKind::Usage,
            "the destination -o is empty",
            "name a folder, as in: -o ~/mods",
        ));
    }
    let absolute = std::path::absolute(output).map_err(|error| {
        Failure::new(
            FailureKind::Failed,
            format!("the destination `{}` has no absolute path: {error}", output.display()),
            "name it by its full path",
        )
    })?;
    if absolute.exists() && !absolute.is_dir() {
        return Err(Failure::new(
            FailureKind::Usage,
            format!("the destination `{}` is a file", output.display()),
            "name the folder in which the pack's folder is to appear, as in: -o ~/mods",
        ));
    }
    let above = absolute.ancestors().find(|dir| dir.exists());
    if let Some(file) = above.filter(|dir| !dir.is_dir()) {
        return Err(Failure::new(
            FailureKind::Usage,
            format!(
                "the destination `{}` lies below the file `{}`",
                output.display(),
                file.display()
            ),
            "name a folder, as in: -o ~/mods",
        ));
    }
    Ok(absolute)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_no_destination() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert_eq!(checked_output(&file).unwrap_err().kind, FailureKind::Usage);
        assert_eq!(
            checked_output(&file.join("below")).unwrap_err().kind,
            FailureKind::Usage
        );
        assert!(checked_output(root.path()).is_ok());
        assert!(checked_output(&root.path().join("not/yet")).is_ok());
    }

    #[test]
    fn the_plan_shows_no_trick_of_a_name() {
        let event = GetEvent::Plan {
            pack: None,
            content: modswarm_protocol::Cid::of(
                modswarm_protocol::Codec::Raw,
                modswarm_protocol::HashKind::Blake3,
                b"",
            ),
            name: "evil\x1b[2J".to_owned(),
            path: "/mods/x".into(),
            files: 1,
            bytes: 2_000_000,
            bytes_here: 500_000,
            disk_free: Some(10_000_000_000),
            renamed: Vec::new(),
            kept: Vec::new(),
        };
        let shown = plan(&event).unwrap();
        assert_eq!(
            shown,
            "evil\\u{1b}[2J\n  1 file, 2.0 MB\n  500.0 kB of it here already, 1.5 MB to fetch\n  into /mods/x\n  10.0 GB free there"
        );
    }
}
