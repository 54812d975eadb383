//! The commands that keep packs in order: `verify`, `move`, `pin`, `unpin`, `gc`.

use modswarm::{
    api::{
        BadFile, Collected, Failure, FailureKind, FileFault, GcRequest, MoveRequest, Moved, PackVerified, PinRequest,
        VerifyEvent, VerifyRequest,
    },
    control::CallError,
};

use super::{
    args::{GcArgs, InfoArgs, MoveArgs, VerifyArgs},
    local::{ask, nothing_here, own_target},
    progress::{Meter, Snapshot},
    session::{Context, Followed, Need, Session, cancelled},
    text::{self, escaped},
};

/// Bad files of one pack that are named, one a line.
const SHOWN: usize = 20;

/// `modswarm verify`.
pub(crate) async fn verify(context: &Context, args: VerifyArgs) -> Result<(), Failure> {
    let target = args.target.as_deref().map(own_target).transpose()?;
    if !context.settings.places.home.exists() {
        return match target {
            Some(target) => Err(nothing_here(&target)),
            None => {
                context.ui.note("There are no packs here yet.");
                Ok(())
            }
        };
    }
    let request = VerifyRequest {
        target,
        repair: args.repair,
        peers: args.peers.iter().map(ToString::to_string).collect(),
        timeout: args.timeout,
    };
    let need = if request.repair { Need::Network } else { Need::Index };
    loop {
        let session = context.join(need).await?;
        let ended = once(context, &session, &request).await;
        if matches!(ended, Followed::Lost) && matches!(session, Session::Client(_)) {
            context.take_over(&session)?;
            continue;
        }
        session.close().await;
        return match ended {
            Followed::Done(wrong) => judge(wrong),
            Followed::Failed(failure) => Err(failure),
            Followed::Lost | Followed::Stopped => Err(cancelled()),
        };
    }
}

/// What is wrong and was not repaired.
#[derive(Debug, Default)]
struct Wrong {
    packs: u64,
    files: u64,
    /// Those of the files that somebody changed.
    edited: u64,
}

fn judge(wrong: Wrong) -> Result<(), Failure> {
    if wrong.packs == 0 {
        return Ok(());
    }
    let help = if wrong.edited == wrong.files {
        "nothing was touched: `modswarm share FOLDER` makes what you changed in a folder of your own a new version; `modswarm get PACK -o FOLDER --overwrite` \
         brings the pack's files back"
    } else {
        "`modswarm verify PACK --repair` fetches what is missing or rotten again; a changed folder of your own is shared again with `modswarm \
         share`"
    };
    Err(Failure::new(
        FailureKind::Integrity,
        format!(
            "{} in {} not as shared",
            match wrong.files {
                1 => "1 file is".to_owned(),
                files => format!("{files} files are"),
            },
            text::count(wrong.packs, "pack")
        ),
        help,
    ))
}

async fn once(context: &Context, session: &Session, request: &VerifyRequest) -> Followed<Wrong> {
    let mut events = match session.verify(request).await {
        Ok(events) => events,
        Err(CallError::Lost) => return Followed::Lost,
        Err(CallError::Failed(failure)) => return Followed::Failed(failure),
    };
    let mut meter = Meter::new(&context.ui);
    let mut wrong = Wrong::default();
    let followed = context
        .follow(&mut events, &mut meter, |event, meter| {
            if let Some(snapshot) = Snapshot::of_verify(&event) {
                meter.update(snapshot, &event);
            }
            match event {
                VerifyEvent::Progress { .. } => None,
                VerifyEvent::Warning { message } => {
                    context.ui.warning(&message);
                    None
                }
                VerifyEvent::Pack(pack) => {
                    if !pack.bad.is_empty() && pack.repaired != Some(true) {
                        wrong.packs += 1;
                        let wrong_still = || pack.bad.iter().filter(|bad| !bad.mended);
                        wrong.files += wrong_still().count() as u64;
                        let edited = wrong_still().filter(|bad| bad.fault == FileFault::Changed);
                        wrong.edited += edited.count() as u64;
                    }
                    if context.ui.json() {
                        context.ui.json_result(&pack);
                    } else {
                        context.ui.result(&shown(&pack));
                    }
                    None
                }
                VerifyEvent::Complete => Some(Ok(())),
                VerifyEvent::Failed(failure) => Some(Err(failure)),
            }
        })
        .await;
    meter.clear();
    match followed {
        Followed::Done(()) => Followed::Done(wrong),
        Followed::Failed(failure) => Followed::Failed(failure),
        Followed::Lost => Followed::Lost,
        Followed::Stopped => Followed::Stopped,
    }
}

fn shown(pack: &PackVerified) -> String {
    let name = escaped(&pack.name);
    if pack.bad.is_empty() {
        let restored = match pack.restored {
            0 => String::new(),
            blocks => format!("; {} found again", text::count(blocks, "block")),
        };
        return format!(
            "{name}: {}, {}, all as shared{restored}",
            text::count(pack.files, "file"),
            text::bytes(pack.bytes)
        );
    }
    let outcome = match pack.repaired {
        Some(true) => ", repaired",
        Some(false) if pack.bad.iter().any(|bad| bad.mended) => ", repaired in part",
        Some(false) => ", not repaired",
        None => "",
    };
    let mut lines = vec![format!(
        "{name}: {} of {} not as shared{outcome}",
        pack.bad.len(),
        text::count(pack.files, "file")
    )];
    lines.extend(pack.bad.iter().take(SHOWN).map(bad_line));
    if pack.bad.len() > SHOWN {
        lines.push(format!("  … and {} more", pack.bad.len() - SHOWN));
    }
    lines.join("\n")
}

fn bad_line(bad: &BadFile) -> String {
    let path = escaped(&bad.path);
    let mended = if bad.mended { ", mended" } else { "" };
    match bad.fault {
        FileFault::Missing => format!("  {path}: missing{mended}"),
        FileFault::Changed => format!("  {path}: changed since it was put there{mended}"),
        FileFault::Rotten => format!("  {path}: {} rotten on the disk{mended}", text::bytes(bad.bytes)),
        FileFault::Unreadable => format!("  {path}: cannot be read{mended}"),
    }
}

/// `modswarm move`.
pub(crate) async fn relocate(context: &Context, args: MoveArgs) -> Result<(), Failure> {
    let to = std::path::absolute(&args.to).map_err(|error| {
        Failure::new(
            FailureKind::Usage,
            format!("`{}` has no absolute path: {error}", args.to.display()),
            "name the folder by its full path",
        )
    })?;
    let request = MoveRequest {
        target: own_target(&args.target)?,
        to,
    };
    if !context.settings.places.home.exists() {
        return Err(nothing_here(&request.target));
    }
    let moved = ask(context, Need::Index, async |session: &Session| {
        session.relocate(&request).await
    })
    .await?;
    if context.ui.json() {
        context.ui.json_result(&moved);
        return Ok(());
    }
    context.ui.result(&moved_line(&moved));
    if !moved.left.is_empty() {
        context.ui.warning(&format!(
            "{} stayed in {} as well, since their copies are not as the pack has them; `modswarm verify` says more",
            text::count(moved.left.len() as u64, "file"),
            moved.from.display()
        ));
    }
    Ok(())
}

fn moved_line(moved: &Moved) -> String {
    let copied = match moved.bytes_copied {
        0 => String::new(),
        bytes => format!(" ({} copied and verified)", text::bytes(bytes)),
    };
    format!(
        "Moved {} to {}{copied}.",
        escaped(&moved.name),
        escaped(&moved.to.to_string_lossy())
    )
}

/// `modswarm pin` and `modswarm unpin`.
pub(crate) async fn pin(context: &Context, args: InfoArgs, pinned: bool) -> Result<(), Failure> {
    let request = PinRequest {
        target: own_target(&args.target)?,
        pinned,
    };
    if !context.settings.places.home.exists() {
        return Err(nothing_here(&request.target));
    }
    let pack = ask(context, Need::Index, async |session: &Session| {
        session.pin(&request).await
    })
    .await?;
    if context.ui.json() {
        context.ui.json_result(&pack);
    } else {
        let name = escaped(&pack.name);
        context.ui.result(&if pinned {
            format!("Pinned {name}: `rm` refuses it, and `gc --keep` passes it over.")
        } else {
            format!("{name} is no longer pinned.")
        });
    }
    Ok(())
}

/// `modswarm gc`.
pub(crate) async fn collect(context: &Context, args: GcArgs) -> Result<(), Failure> {
    if !context.settings.places.home.exists() {
        context.ui.note("There is nothing here yet.");
        return Ok(());
    }
    let request = GcRequest { keep: args.keep };
    let collected = ask(context, Need::Index, async |session: &Session| {
        session.collect(&request).await
    })
    .await?;
    if context.ui.json() {
        context.ui.json_result(&collected);
    } else {
        context.ui.result(&collected_lines(&collected));
    }
    Ok(())
}

fn collected_lines(collected: &Collected) -> String {
    let mut lines = Vec::new();
    for pack in &collected.packs {
        lines.push(format!(
            "Removed {} from {}.",
            escaped(&pack.name),
            escaped(&pack.path.to_string_lossy())
        ));
    }
    for stage in &collected.stages {
        lines.push(format!(
            "Deleted {}, left over from a download.",
            escaped(&stage.to_string_lossy())
        ));
    }
    if collected.copy_bytes > 0 {
        lines.push(format!(
            "Gave back {} of copies that no pack needs any more.",
            text::bytes(collected.copy_bytes)
        ));
    }
    let freed = collected.index_bytes_before.saturating_sub(collected.index_bytes_after);
    lines.push(if collected.nodes + collected.rows == 0 && freed == 0 {
        "Nothing in the index to clear.".to_owned()
    } else {
        format!(
            "Cleared {} and {} from the index; it takes {} now.",
            text::count(collected.nodes, "block"),
            match collected.rows {
                1 => "1 entry".to_owned(),
                rows => format!("{rows} entries"),
            },
            text::bytes(collected.index_bytes_after)
        )
    });
    lines.join("\n")
}
