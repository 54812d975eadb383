//! `modswarm limit`, `pause`, `resume` and `priority`.

use clap::{Args, ValueEnum};
use modswarm::{
    api::{AdjustRequest, Failure, FailureKind, Limit, LimitRequest, Limits, PackStatus, Priority},
    config::{Rate, UploadLimit},
    control::CallError,
};

use super::{
    local::{ask, nothing_here, own_target},
    session::{Context, Need, Session},
    text::{self, escaped},
};

pub(crate) const LIMIT_EXAMPLES: &str = "\
Examples:
  modswarm limit                             what limits there are
  modswarm limit --up 2MB/s --down none      for all packs together, until modswarm ends
  modswarm limit --up auto                   as much as nobody else on the line feels
  modswarm limit MyPack --down 500kB/s       for one pack; that is kept

What holds from the start is set by --upload-limit and --download-limit, or in the config file. Peers in the local network are not limited, \
unless modswarm was started with --limit-lan.";

pub(crate) const PAUSE_HELP: &str = "\
A paused pack stays paused until `modswarm resume`, also when modswarm is started anew. To stop only one download, Ctrl-C in its terminal is enough.";

pub(crate) const PRIORITY_HELP: &str = "\
Where several packs come over the same line, one of high priority gets four times what a normal one gets, and that four times what a low one gets. \
Of packs that wait for their turn (see --max-active), the highest priority goes first. It is kept.";

#[derive(Debug, Args)]
pub(crate) struct LimitArgs {
    /// A link, CID, name or folder of a pack of this machine [default: all packs together].
    #[arg(value_name = "PACK")]
    target: Option<String>,
    /// Upload no faster than this, as in 5MB/s; `none` for no limit, `auto` to follow what the line bears.
    #[arg(long, value_name = "RATE")]
    up: Option<UploadLimit>,
    /// Download no faster than this; `none` for no limit.
    #[arg(long, value_name = "RATE")]
    down: Option<Rate>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct PauseArgs {
    /// A link, CID, name or folder of a pack of this machine.
    #[arg(value_name = "PACK")]
    target: Option<String>,
    /// All packs.
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PriorityArgs {
    /// A link, CID, name or folder of a pack of this machine.
    #[arg(value_name = "PACK")]
    target: String,
    /// How much it gets.
    #[arg(value_name = "PRIORITY")]
    priority: PriorityArg,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PriorityArg {
    /// Four times what a normal one gets.
    High,
    /// As much as every other normal one.
    Normal,
    /// A quarter of what a normal one gets.
    Low,
}

/// `modswarm limit`.
pub(crate) async fn limit(context: &Context, args: LimitArgs) -> Result<(), Failure> {
    let request = LimitRequest {
        target: args.target.as_deref().map(own_target).transpose()?,
        upload: args.up.map(|up| match up {
            UploadLimit::Auto => Limit::Auto,
            UploadLimit::Rate(rate) => Limit::of(rate.bytes_per_second()),
        }),
        download: args.down.map(|down| Limit::of(down.bytes_per_second())),
    };
    needs_home(context, request.target.as_deref())?;
    let changes_all = request.target.is_none() && (request.upload.is_some() || request.download.is_some());
    let limits = ask(context, Need::Index, async |session: &Session| {
        if changes_all && !matches!(session, Session::Client(_)) {
            return Err(CallError::Failed(nobody_to_limit()));
        }
        session.limit(&request).await
    })
    .await?;
    if context.ui.json() {
        context.ui.json_result(&limits);
        return Ok(());
    }
    context.ui.result(&shown(&limits));
    Ok(())
}

/// `modswarm pause` and `resume`.
pub(crate) async fn pause(context: &Context, args: PauseArgs, paused: bool) -> Result<(), Failure> {
    let target = args.target.as_deref().filter(|_| !args.all);
    let request = AdjustRequest {
        target: target.map(own_target).transpose()?,
        paused: Some(paused),
        priority: None,
    };
    let done = if paused { "Paused" } else { "Resumed" };
    adjust(context, &request, |pack| format!("{done} {}.", escaped(&pack.name))).await
}

/// `modswarm priority`.
pub(crate) async fn priority(context: &Context, args: PriorityArgs) -> Result<(), Failure> {
    let (priority, name) = match args.priority {
        PriorityArg::High => (Priority::High, "high"),
        PriorityArg::Normal => (Priority::Normal, "normal"),
        PriorityArg::Low => (Priority::Low, "low"),
    };
    let request = AdjustRequest {
        target: Some(own_target(&args.target)?),
        paused: None,
        priority: Some(priority),
    };
    adjust(context, &request, |pack| {
        format!("{} has {name} priority.", escaped(&pack.name))
    })
    .await
}

async fn adjust(
    context: &Context,
    request: &AdjustRequest,
    line: impl Fn(&PackStatus) -> String,
) -> Result<(), Failure> {
    needs_home(context, request.target.as_deref())?;
    let packs = ask(context, Need::Index, async |session: &Session| {
        session.adjust(request).await
    })
    .await?;
    if context.ui.json() {
        context.ui.json_result(&packs);
    } else if packs.is_empty() {
        context.ui.note("There are no packs in this home.");
    } else {
        context
            .ui
            .result(&packs.iter().map(line).collect::<Vec<_>>().join("\n"));
    }
    Ok(())
}

/// The limits of all packs together end with the process that has them.
fn nobody_to_limit() -> Failure {
    Failure::new(
        FailureKind::Failed,
        "no modswarm is running for this home, so that there is nothing to limit",
        "start it with --upload-limit and --download-limit, or set upload-limit and download-limit in the config file; `modswarm limit PACK` is for one pack, and is kept",
    )
}

fn needs_home(context: &Context, target: Option<&str>) -> Result<(), Failure> {
    match target {
        _ if context.settings.places.home.exists() => Ok(()),
        Some(target) => Err(nothing_here(target)),
        None => Err(Failure::new(
            FailureKind::Failed,
            "there are no packs here: nothing was shared or downloaded in this home yet",
            "`modswarm share FOLDER` or `modswarm get LINK` begins",
        )),
    }
}

fn shown(limits: &Limits) -> String {
    let word = |limit: Limit| match limit {
        Limit::Unlimited => "unlimited".to_owned(),
        Limit::Auto => "auto".to_owned(),
        Limit::BytesPerSecond(rate) => text::rate(rate),
    };
    let now = match (limits.upload, limits.upload_now) {
        (Limit::Auto, Some(now)) => format!(" ({} now)", text::rate(now)),
        _ => String::new(),
    };
    let lan = if limits.lan {
        ""
    } else {
        "\nPeers in the local network are not limited."
    };
    let mut lines = format!(
        "all packs: upload {}{now}, download {}{lan}",
        word(limits.upload),
        word(limits.download)
    );
    for pack in &limits.packs {
        lines.push_str(&format!(
            "\n{}: upload {}, download {}\n  {}",
            escaped(&pack.name),
            word(pack.upload),
            word(pack.download),
            escaped(&pack.path.to_string_lossy())
        ));
    }
    lines
}
