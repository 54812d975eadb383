//! The commands that ask once and print: `ls`, `info`, `status`, `rm`.

use std::time::Instant;

use modswarm::{
    api::{
        Failure, FailureKind, ListRequest, ListedFile, Listing, PackState, PackStatus, Priority, RemoveRequest, Status,
    },
    config::Places,
    control::CallError,
};

use super::{
    args::{InfoArgs, ListArgs, RemoveArgs},
    differences::name as network_name,
    output::{Shown, Ui},
    progress::{Meter, STILL_LOOKING_AFTER, TICK},
    session::{Context, Need, Session, cancelled},
    target,
    text::{self, escaped},
};

/// `modswarm ls`.
pub(crate) async fn list(context: &Context, args: ListArgs) -> Result<(), Failure> {
    let request = ListRequest {
        target: target::checked(&args.source.target)?,
        peers: args.source.peers.iter().map(ToString::to_string).collect(),
        timeout: args.source.timeout,
    };
    let listing = ask(context, Need::Network, async |session: &Session| {
        session.list(&request).await
    })
    .await?;
    if context.ui.json() {
        context.ui.json_result(&listing);
    } else {
        context.ui.note(&heading(&listing));
        context.ui.result(&table(&listing, args.cids));
    }
    Ok(())
}

/// `modswarm info`.
pub(crate) async fn info(context: &Context, args: InfoArgs) -> Result<(), Failure> {
    let target = own_target(&args.target)?;
    if !context.settings.places.home.exists() {
        return Err(nothing_here(&target));
    }
    let (pack, running) = ask(context, Need::Index, async |session: &Session| {
        Ok((session.info(&target).await?, matches!(session, Session::Client(_))))
    })
    .await?;
    if context.ui.json() {
        context.ui.json_result(&pack);
    } else {
        context.ui.result(&details(&pack, running));
    }
    Ok(())
}

/// `modswarm status`.
pub(crate) async fn status(context: &Context) -> Result<(), Failure> {
    let status = if context.settings.places.home.exists() {
        ask(context, Need::Index, async |session: &Session| {
            let mut status = session.status().await?;
            if matches!(session, Session::Holder(_)) {
                // This process only looks: to others the node is not there.
                status.peer_id = None;
                status.addrs.clear();
            }
            Ok(status)
        })
        .await?
    } else {
        Status {
            peer_id: None,
            addrs: Vec::new(),
            network: context.settings.network(),
            upload_rate: 0,
            download_rate: 0,
            upload_limit: context.settings.upload_limit().bytes_per_second(),
            download_limit: context.settings.download_limit().bytes_per_second(),
            upload_auto: false,
            peers: 0,
            packs: Vec::new(),
        }
    };
    if context.ui.json() {
        context.ui.json_result(&status);
    } else {
        context.ui.result(&overview(&status, &context.settings.places));
    }
    Ok(())
}

/// `modswarm rm`.
pub(crate) async fn remove(context: &Context, args: RemoveArgs) -> Result<(), Failure> {
    let request = RemoveRequest {
        target: own_target(&args.target)?,
        data: args.data,
    };
    if !context.settings.places.home.exists() {
        return Err(nothing_here(&request.target));
    }
    let removed = ask(context, Need::Index, async |session: &Session| {
        session.remove(&request).await
    })
    .await?;
    if context.ui.json() {
        context.ui.json_result(&removed);
        return Ok(());
    }
    let path = escaped(&removed.path.to_string_lossy());
    let files = if removed.data_deleted {
        format!("its files in {path} are deleted")
    } else if removed.files_kept > 0 {
        format!(
            "its files in {path} are deleted, but for {} that changed or that another pack has",
            text::count(removed.files_kept, "file")
        )
    } else {
        format!("its files stay in {path}")
    };
    context
        .ui
        .result(&format!("Forgot {}; {files}.", escaped(&removed.name)));
    Ok(())
}

/// Asks a node; when the holder goes away meanwhile, asks whoever comes after it.
pub(crate) async fn ask<T>(
    context: &Context,
    need: Need,
    question: impl AsyncFn(&Session) -> Result<T, CallError>,
) -> Result<T, Failure> {
    loop {
        let session = context.join(need).await?;
        let mut meter = Meter::new(&context.ui);
        let answer = tokio::select! {
            biased;
            () = context.signals.stopped() => Err(CallError::Failed(cancelled())),
            answer = question(&session) => answer,
            () = waiting(&context.ui, &mut meter) => unreachable!("waiting never ends"),
        };
        meter.clear();
        let lost = matches!(answer, Err(CallError::Lost));
        if lost && matches!(session, Session::Client(_)) {
            continue;
        }
        session.close().await;
        return match answer {
            Ok(answer) => Ok(answer),
            Err(CallError::Failed(failure)) => Err(failure),
            Err(CallError::Lost) => Err(cancelled()),
        };
    }
}

/// Shows that a question takes its time. Never ends.
async fn waiting(ui: &Ui, meter: &mut Meter) {
    let began = Instant::now();
    let mut said = false;
    loop {
        tokio::time::sleep(TICK * 2).await;
        let waited = began.elapsed();
        if waited < STILL_LOOKING_AFTER {
            meter.spin("looking for it".to_owned());
            continue;
        }
        meter.spin(format!(
            "nobody has answered yet, still looking ({})",
            text::duration(waited)
        ));
        if ui.shown() == Shown::Plain && !said {
            said = true;
            ui.note("nobody has answered yet, still looking");
        }
    }
}

/// What names a pack of this machine. Paths become absolute, because the holder is in another folder.
pub(crate) fn own_target(target: &str) -> Result<String, Failure> {
    let target = target.trim();
    if target.is_empty() {
        return Err(Failure::new(
            FailureKind::Usage,
            "the name of the pack is empty",
            "name a pack by its link, CID, name or folder; `modswarm status` lists them",
        ));
    }
    let looks_like_path = target.starts_with(['.', '/', '~']) || target.contains(std::path::MAIN_SEPARATOR);
    if looks_like_path
        && !target.starts_with("/ipfs/")
        && !target.contains("://")
        && let Ok(path) = std::path::absolute(target)
        && path.exists()
    {
        return Ok(dunce::canonicalize(&path)
            .unwrap_or(path)
            .to_string_lossy()
            .into_owned());
    }
    Ok(target.to_owned())
}

pub(crate) fn nothing_here(target: &str) -> Failure {
    Failure::new(
        FailureKind::Failed,
        format!("there is no pack `{target}` here: nothing was shared or downloaded in this home yet"),
        "to look at a pack of others: modswarm ls 'LINK'",
    )
}

fn heading(listing: &Listing) -> String {
    let bytes: u64 = listing.files.iter().map(|file| file.size).sum();
    format!(
        "{}: {}, {}, {}",
        escaped(listing.name.as_deref().unwrap_or("(no name)")),
        text::count(listing.files.len() as u64, "file"),
        text::bytes(bytes),
        text::count(listing.blocks, "block")
    )
}

/// A line a file, sizes aligned.
fn table(listing: &Listing, cids: bool) -> String {
    let line = |file: &ListedFile| {
        let cid = if cids { format!("  {}", file.cid) } else { String::new() };
        format!("{:>9}{cid}  {}", text::bytes(file.size), escaped(&file.path))
    };
    let dirs = listing
        .empty_dirs
        .iter()
        .map(|path| format!("{:>9}  {}/", "-", escaped(path)));
    listing
        .files
        .iter()
        .map(line)
        .chain(dirs)
        .collect::<Vec<_>>()
        .join("\n")
}

/// What a pack is doing, where `running` says whether a process is there to do it.
fn state(pack: &PackStatus, running: bool) -> String {
    let what = match pack.state {
        PackState::Seeding if running => "seeding".to_owned(),
        PackState::Seeding => "complete, not seeded now".to_owned(),
        PackState::Downloading => format!("downloading, {} %", text::percent(pack.bytes_here, pack.bytes)),
        PackState::Queued => format!("queued at {} %", text::percent(pack.bytes_here, pack.bytes)),
        PackState::Paused if pack.bytes_here == pack.bytes => "paused".to_owned(),
        PackState::Paused => format!("paused at {} %", text::percent(pack.bytes_here, pack.bytes)),
        PackState::Damaged => "damaged".to_owned(),
        PackState::Superseded => "older version, replaced in its folder".to_owned(),
    };
    match pack.priority {
        Priority::Normal => what,
        Priority::High => format!("{what}, high priority"),
        Priority::Low => format!("{what}, low priority"),
    }
}

/// A pack's own limits, if it has any.
fn own_limits(pack: &PackStatus) -> Option<String> {
    let up = pack.upload_limit.map(|rate| format!("upload {}", text::rate(rate)));
    let down = pack.download_limit.map(|rate| format!("download {}", text::rate(rate)));
    let limits: Vec<String> = [up, down].into_iter().flatten().collect();
    (!limits.is_empty()).then(|| limits.join(", "))
}

fn details(pack: &PackStatus, running: bool) -> String {
    let mut lines = vec![
        ("name", escaped(&pack.name)),
        ("state", state(pack, running)),
        ("path", escaped(&pack.path.to_string_lossy())),
        ("files", format!("{} ({})", pack.files, text::bytes(pack.bytes))),
        (
            "here",
            format!(
                "{}, {} of {}",
                text::bytes(pack.bytes_here),
                pack.blocks_here,
                text::count(pack.blocks, "block")
            ),
        ),
        ("network", network_name(pack.network).to_owned()),
        ("pinned", if pack.pinned { "yes" } else { "no" }.to_owned()),
        ("peers", pack.peers.to_string()),
        ("sent", text::bytes(pack.bytes_uploaded)),
        (
            "limits",
            own_limits(pack).unwrap_or_else(|| "none of its own".to_owned()),
        ),
        ("content", pack.content.to_string()),
    ];
    if let Some(cid) = pack.pack {
        lines.push(("pack", cid.to_string()));
    }
    lines.push(("link", escaped(&pack.link)));
    if pack.copied {
        lines.push(("copy", "in the home: the folder may be changed or deleted".to_owned()));
    }
    if pack.kept > 0 {
        lines.push((
            "kept",
            format!("{} of your own in place of the pack's", text::count(pack.kept, "file")),
        ));
    }
    if let Some(problem) = &pack.problem {
        lines.push(("problem", escaped(problem)));
    }
    aligned(&lines)
}

fn aligned(lines: &[(&str, String)]) -> String {
    let lines: Vec<String> = lines.iter().map(|(key, value)| format!("{key:<8} {value}")).collect();
    lines.join("\n")
}

fn overview(status: &Status, places: &Places) -> String {
    let mut text = match &status.peer_id {
        None => "Not running: nothing is seeded or downloaded now. `modswarm share` or `get` starts it.\n".to_owned(),
        Some(peer_id) => {
            let limit = |limit: Option<u64>, auto: bool| match limit {
                Some(limit) if auto => format!("{} by itself", text::rate(limit)),
                None => "no limit".to_owned(),
                Some(limit) => format!("limit {}", text::rate(limit)),
            };
            let mut lines = vec![
                ("peer ID", peer_id.clone()),
                (
                    "network",
                    format!(
                        "{}, {}",
                        network_name(status.network),
                        text::count(status.peers, "peer")
                    ),
                ),
                (
                    "upload",
                    format!(
                        "{} ({})",
                        text::rate(status.upload_rate),
                        limit(status.upload_limit, status.upload_auto)
                    ),
                ),
                (
                    "download",
                    format!(
                        "{} ({})",
                        text::rate(status.download_rate),
                        limit(status.download_limit, false)
                    ),
                ),
            ];
            lines.extend(status.addrs.iter().map(|addr| ("address", escaped(addr))));
            aligned(&lines) + "\n"
        }
    };
    text.push_str(&aligned(&[
        ("home", escaped(&places.home.to_string_lossy())),
        ("config", escaped(&places.config_file.to_string_lossy())),
    ]));
    text.push('\n');
    if status.packs.is_empty() {
        text.push_str(
            "\nNo packs yet. Share one with `modswarm share FOLDER`, or download one with `modswarm get LINK`.",
        );
    }
    for pack in &status.packs {
        // What to pass on to `info` and `rm`.
        let cid = pack.pack.unwrap_or(pack.content);
        text.push_str(&format!(
            "\n{}  ({}, {}, {})\n  {}\n  {cid}\n",
            escaped(&pack.name),
            state(pack, status.peer_id.is_some()),
            text::count(pack.files, "file"),
            text::bytes(pack.bytes),
            escaped(&pack.path.to_string_lossy()),
        ));
        if let Some(limits) = own_limits(pack) {
            text.push_str(&format!("  limits: {limits}\n"));
        }
        if pack.stopped {
            text.push_str(&format!(
                "  `modswarm resume '{}'` goes on with it\n",
                escaped(&pack.name)
            ));
        }
        if let Some(problem) = &pack.problem {
            text.push_str(&format!("  problem: {}\n", escaped(problem)));
        }
    }
    text.trim_end().to_owned()
}
