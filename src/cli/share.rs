//! `modswarm share`.

use std::path::{Component, Path, PathBuf};

use modswarm::{
    api::{Failure, FailureKind, ShareEvent, ShareRequest, Shared},
    control::CallError,
};
use tokio::sync::mpsc;

use super::{
    args::ShareArgs,
    progress::{Meter, Snapshot},
    qr,
    session::{Context, Followed, Need, Seeded, Session, cancelled},
    signals::Phase,
    text,
};

pub(crate) async fn run(context: &Context, args: ShareArgs) -> Result<(), Failure> {
    let request = ShareRequest {
        path: checked_path(&args.path, &context.settings.places.home)?,
        name: args.name,
        description: args.description,
        creator: args.creator,
        game: args.game,
        tags: args.tags,
        hash: args.hash.map(Into::into),
        previous: args.previous,
        expires: args.expires,
        copy: (args.copy || args.no_copy).then_some(args.copy),
    };
    let mut shared = false;
    loop {
        let session = context.join(Need::Network).await?;
        context.upload_notice(&session);
        let mut events = None;
        if !shared {
            match once(context, &session, &request, !args.no_qr).await {
                Followed::Done(rest) => events = Some(rest),
                Followed::Lost => {
                    context.take_over(&session)?;
                    continue;
                }
                Followed::Failed(failure) => {
                    session.close().await;
                    return Err(failure);
                }
                Followed::Stopped => {
                    session.close().await;
                    return Err(cancelled());
                }
            }
            shared = true;
            context.signals.enter(Phase::Seeding);
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

/// Shares, and prints the pack. Gives the rest of the job's channel.
async fn once(
    context: &Context,
    session: &Session,
    request: &ShareRequest,
    with_qr: bool,
) -> Followed<mpsc::Receiver<ShareEvent>> {
    let mut events = match session.share(request).await {
        Ok(events) => events,
        Err(CallError::Lost) => return Followed::Lost,
        Err(CallError::Failed(failure)) => return Followed::Failed(failure),
    };
    let mut meter = Meter::new(&context.ui);
    let followed = context
        .follow(&mut events, &mut meter, |event, meter| {
            if let Some(snapshot) = Snapshot::of_share(&event) {
                meter.update(snapshot, &event);
            }
            match event {
                ShareEvent::Progress { .. } => None,
                ShareEvent::Warning { message } => {
                    context.ui.warning(&message);
                    None
                }
                ShareEvent::Ready(shared) => Some(Ok(shared)),
                ShareEvent::Failed(failure) => Some(Err(failure)),
            }
        })
        .await;
    meter.clear();
    match followed {
        Followed::Done(shared) => {
            print(context, &shared, with_qr);
            Followed::Done(events)
        }
        Followed::Failed(failure) => Followed::Failed(failure),
        Followed::Lost => Followed::Lost,
        Followed::Stopped => Followed::Stopped,
    }
}

fn print(context: &Context, shared: &Shared, with_qr: bool) {
    if context.ui.json() {
        context.ui.json_result(shared);
        return;
    }
    context.ui.note(&format!(
        "Shared {} ({}, {}).",
        text::count(shared.files, "file"),
        text::bytes(shared.bytes),
        text::count(shared.blocks, "block")
    ));
    context.ui.result(&format!(
        "pack     {}\ncontent  {}\nlink     {}",
        shared.pack,
        shared.content,
        text::escaped(&shared.link)
    ));
    // The shorter link does without addresses and the content CID; it is found all the same.
    let bare = format!("modswarm:{}", shared.pack);
    if with_qr && let Some(code) = qr::for_terminal(&[&shared.link, &bare]) {
        context.ui.result(&code);
    }
}

/// The absolute path of what is to be shared, or what is wrong with it.
fn checked_path(path: &Path, home: &Path) -> Result<PathBuf, Failure> {
    let usage = |message: String, help: &str| Failure::new(FailureKind::Usage, message, help);
    let shown = path.display();
    if path.as_os_str().is_empty() {
        return Err(usage(
            "the path to share is empty".to_owned(),
            "name a folder or a file, as in: modswarm share ~/mods/MyPack",
        ));
    }
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let text = path.to_string_lossy();
            return Err(if text.starts_with("modswarm:") || text.starts_with("ipfs://") {
                usage(
                    format!("`{shown}` is a link, not a folder"),
                    "to download it: modswarm get 'LINK'",
                )
            } else {
                usage(
                    format!("there is no file or folder `{shown}`"),
                    "see whether the path is spelled right; put it in quotes if it has spaces",
                )
            });
        }
        Err(error) => {
            return Err(Failure::new(
                FailureKind::Failed,
                format!("`{shown}` can't be looked at: {error}"),
                "see who may read it",
            ));
        }
    };
    if !metadata.is_dir() && !metadata.is_file() {
        return Err(usage(
            format!("`{shown}` is neither a folder nor a file"),
            "share a folder or a regular file",
        ));
    }
    let failed = |error: std::io::Error| {
        Failure::new(
            FailureKind::Failed,
            format!("`{shown}` has no absolute path: {error}"),
            "share it by its full path",
        )
    };
    // `..` after a symlink leads where only the system knows.
    let absolute = if path.components().any(|component| component == Component::ParentDir) {
        dunce::canonicalize(path).map_err(failed)?
    } else {
        std::path::absolute(path).map_err(failed)?
    };
    let real = dunce::canonicalize(&absolute).map_err(failed)?;
    if real.parent().is_none() {
        return Err(usage(
            "that is the whole file system".to_owned(),
            "share the folder with the mods only",
        ));
    }
    let home = dunce::canonicalize(home).unwrap_or_else(|_| home.to_owned());
    if home.starts_with(&real) || real.starts_with(&home) {
        return Err(usage(
            format!(
                "`{shown}` holds modswarm's own folder {}, with this machine's secret key",
                home.display()
            ),
            "share the folder with the mods only",
        ));
    }
    Ok(absolute)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_not_be_shared_is_refused_before_anything_is_read() {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().join("home");
        let mods = root.path().join("mods");
        std::fs::create_dir(&home).unwrap();
        std::fs::create_dir(&mods).unwrap();
        assert_eq!(checked_path(&mods, &home).unwrap(), mods);
        let refused = [
            root.path().to_owned(),
            home.clone(),
            home.join("../home"),
            "/".into(),
            "".into(),
            mods.join("no"),
        ];
        for path in refused {
            let failure = checked_path(&path, &home).unwrap_err();
            assert_eq!(failure.kind, FailureKind::Usage, "{}", path.display());
            assert!(failure.help.is_some());
        }
        let link = checked_path(Path::new("modswarm:bafy?n=x"), &home).unwrap_err();
        assert!(link.help.unwrap().contains("get"));
    }
}
