//! The command line: parses, asks a node, and shows what it answers.
//!
//! Where to read next: [`args`] for what can be written, [`session`] for how a command comes to a node, [`output`] and
//! [`progress`] for what is shown where, one module for each larger command.

mod args;
mod ask;
mod diff;
mod differences;
mod get;
mod limit;
mod local;
mod manual;
mod output;
mod peers;
mod progress;
mod qr;
mod rebuild;
mod session;
mod share;
mod signals;
mod target;
mod text;
mod upkeep;

use std::{process::ExitCode, time::Duration};

use args::{Command, StoreCommand};
use modswarm::{
    api::{Failure, FailureKind},
    config::Settings,
};
use output::{LogWriter, Ui};
use session::Context;
use signals::Signals;
use tracing_subscriber::EnvFilter;

/// How long what still runs in the background may take when the work is done.
const END_WITHIN: Duration = Duration::from_secs(5);

/// What is logged without `--log`: only our own failures that nobody could be told otherwise.
const DEFAULT_LOG: &str = "modswarm=error,modswarm_store=error,modswarm_protocol=error";

/// The whole program.
pub(crate) fn main() -> ExitCode {
    let (options, command) = match args::parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help goes to standard output, errors to the other; a reader that went away is nobody's loss.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let ended = match Settings::load(options) {
        Ok(settings) => {
            let ui = Ui::new(&settings);
            let ended = run(settings, ui.clone(), command).and_then(|()| ui.finish());
            ended.inspect_err(|failure| ui.failure(failure))
        }
        Err(error) => {
            let failure = Failure::new(FailureKind::Usage, with_causes(&error), error.help());
            Ui::early().failure(&failure);
            Err(failure)
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => ExitCode::from(failure.kind.exit_code()),
    }
}

fn run(settings: Settings, ui: Ui, command: Command) -> Result<(), Failure> {
    match command {
        Command::Completions { shell } => {
            manual::completions(&ui, shell);
            return Ok(());
        }
        Command::Man { dir } => return manual::man(&ui, dir.as_deref()),
        _ => {}
    }
    start_log(settings.options.log.as_deref(), &ui)?;
    let system = |error: std::io::Error| {
        Failure::new(
            FailureKind::Failed,
            format!("the system gave no threads or signals: {error}"),
            "see whether this user may start more processes",
        )
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(system)?;
    let ended = runtime.block_on(async {
        let signals = Signals::listen().map_err(system)?;
        let context = Context { settings, ui, signals };
        match command {
            Command::Share(args) => share::run(&context, args).await,
            Command::Get(args) => get::run(&context, args).await,
            Command::Diff(args) => diff::run(&context, args).await,
            Command::Ls(args) => local::list(&context, args).await,
            Command::Info(args) => local::info(&context, args).await,
            Command::Status => local::status(&context).await,
            Command::Peers(args) => peers::run(&context, args).await,
            Command::Rm(args) => local::remove(&context, args).await,
            Command::Verify(args) => upkeep::verify(&context, args).await,
            Command::Move(args) => upkeep::relocate(&context, args).await,
            Command::Pin(args) => upkeep::pin(&context, args, true).await,
            Command::Unpin(args) => upkeep::pin(&context, args, false).await,
            Command::Limit(args) => limit::limit(&context, args).await,
            Command::Pause(args) => limit::pause(&context, args, true).await,
            Command::Resume(args) => limit::pause(&context, args, false).await,
            Command::Priority(args) => limit::priority(&context, args).await,
            Command::Store {
                command: StoreCommand::Rebuild,
            } => rebuild::run(&context).await,
            Command::Gc(args) => upkeep::collect(&context, args).await,
            Command::Completions { .. } | Command::Man { .. } => unreachable!("they need no node and were done above"),
        }
    });
    runtime.shutdown_timeout(END_WITHIN);
    ended
}

fn start_log(filter: Option<&str>, ui: &Ui) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(filter.unwrap_or(DEFAULT_LOG)).map_err(|error| {
        Failure::new(
            FailureKind::Usage,
            format!("the log filter can't be read: {error}"),
            "write it like --log debug or --log modswarm=trace,libp2p=info",
        )
    })?;
    let writer = LogWriter(ui.clone());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    Ok(())
}

/// An error's message with those of its causes after it.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message.push_str(": ");
        message.push_str(error.to_string().trim_end());
        cause = error.source();
    }
    message
}
