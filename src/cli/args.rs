//! What can be written on the command line.
//!
//! [`parse`] is the only entrance: a line becomes [`Options`] and one [`Command`], each with its arguments parsed into what they mean. This file has the list of
//! commands; what can stand behind each is in [`global`], [`share`], [`get`], [`peers`] and [`upkeep`], and in [`super::limit`] for limits and pauses. What a command
//! does is in the module of its name in [`super`].

mod get;
mod global;
mod peers;
mod share;
mod upkeep;

use std::{ffi::OsString, path::PathBuf};

use clap::{
    CommandFactory, FromArgMatches, Parser, Subcommand,
    builder::{Styles, styling::AnsiColor},
};
use clap_complete::Shell;
use modswarm::config::Options;

use get::{DIFF_EXAMPLES, GET_EXAMPLES};
pub(crate) use get::{DiffArgs, GetArgs, ListArgs};
use global::GlobalArgs;
use peers::PEERS_EXAMPLES;
pub(crate) use peers::{ForgiveArgs, PeersArgs, PeersCommand};
use share::SHARE_EXAMPLES;
pub(crate) use share::ShareArgs;
use upkeep::VERIFY_EXAMPLES;
pub(crate) use upkeep::{GcArgs, InfoArgs, MoveArgs, RemoveArgs, StoreCommand, VerifyArgs};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

// Paragraphs are one line each: clap wraps them to the terminal.
const EXAMPLES: &str = "\
Examples:
  modswarm share ~/mods/MyPack            share a folder; prints the link to pass on
  modswarm get 'modswarm:b…' -o ~/mods    download a pack to ~/mods/<name>, then seed it
  modswarm ls 'modswarm:b…'               look at a pack's files before getting it
  modswarm status                         what is shared and downloading here

Every global option can also be set in the environment (MODSWARM_UPLOAD_LIMIT=5MB/s, lists with commas) or in the \
config file that `modswarm status` names (upload-limit = \"5MB/s\"). A flag wins over the environment, and that over the file.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 nobody has it, 5 broken or forged data, 6 no network, 7 interrupted \
with progress kept, 9 disk full, 13 files in the way, 130 interrupted before anything began.";

/// Share modpacks peer to peer: fast, verified, without a server.
///
/// modswarm shares a folder of mods in place, and downloads packs from everyone who has them at once.
#[derive(Debug, Parser)]
#[command(
    name = "modswarm",
    version,
    propagate_version = true,
    styles = STYLES,
    max_term_width = 110,
    after_help = EXAMPLES,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Share a folder or a file, and seed it until stopped.
    #[command(after_help = SHARE_EXAMPLES)]
    Share(ShareArgs),
    /// Download a pack, then seed it.
    #[command(after_help = GET_EXAMPLES)]
    Get(GetArgs),
    /// Show how two versions differ, and what an update would fetch.
    #[command(after_help = DIFF_EXAMPLES)]
    Diff(DiffArgs),
    /// List the files of a pack without downloading it.
    Ls(ListArgs),
    /// Show all about one pack of this machine.
    Info(InfoArgs),
    /// Show what is shared and downloading here.
    Status,
    /// Show the connected peers, and those that are known to be bad.
    #[command(after_help = PEERS_EXAMPLES)]
    Peers(PeersArgs),
    /// Forget a pack: stop sharing or downloading it.
    #[command(
        after_help = "The files stay where they are, unless --data is given. To stop seeding for now, end the process instead."
    )]
    Rm(RemoveArgs),
    /// Read packs whole and compare every byte with what was shared.
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(VerifyArgs),
    /// Move a pack to another folder or disk, and go on seeding it from there.
    #[command(
        after_help = "Like mv: into DIR if it is a folder, to the new name DIR otherwise. If you have moved the pack's folder yourself, name \
                      the folder where it is now: it is verified there and goes on being seeded."
    )]
    Move(MoveArgs),
    /// Keep a pack: `rm` refuses it and `gc --keep` passes it over.
    Pin(InfoArgs),
    /// Take a pin back.
    Unpin(InfoArgs),
    /// Show or change limits while modswarm runs.
    #[command(after_help = super::limit::LIMIT_EXAMPLES)]
    Limit(super::limit::LimitArgs),
    /// Pause a pack: it is neither downloaded nor seeded until `resume`.
    #[command(after_help = super::limit::PAUSE_HELP)]
    Pause(super::limit::PauseArgs),
    /// Go on with a paused pack.
    Resume(super::limit::PauseArgs),
    /// Give a pack more or less of the line than others that are being downloaded.
    #[command(after_help = super::limit::PRIORITY_HELP)]
    Priority(super::limit::PriorityArgs),
    /// Delete what modswarm keeps for packs that are no longer here.
    #[command(
        after_help = "Without --keep it never touches a file of a pack: it clears the index and left-over staging folders.\n\nExamples:\n  \
                      modswarm gc\n  modswarm gc --keep 500GB    remove downloaded packs, the least recently used first"
    )]
    Gc(GcArgs),
    /// Mend the home itself.
    Store {
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// Print the completions of a shell.
    #[command(
        after_help = "Examples:\n  modswarm completions bash > ~/.local/share/bash-completion/completions/modswarm\n  \
        modswarm completions fish > ~/.config/fish/completions/modswarm.fish"
    )]
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Print the manual page, or write all of them to a folder.
    Man {
        /// Write the pages of all commands there.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// Reads a command line, its first word the program's name.
///
/// # Errors
/// clap's error, which is also how help and version come.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<(Options, Command), clap::Error> {
    let matches = Cli::command().try_get_matches_from(args)?;
    let cli = Cli::from_arg_matches(&matches)?;
    let options = global::options(cli.global, &matches);
    Ok((options, cli.command))
}

/// The whole command, for completions and manual pages.
pub(crate) fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use modswarm::{api::NetworkKind, config::UploadLimit};

    use super::*;

    fn read(args: &[&str]) -> (Options, Command) {
        let args = std::iter::once("modswarm")
            .chain(args.iter().copied())
            .map(OsString::from);
        parse(args).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_and_after_the_command() {
        for args in [
            &["--json", "--upload-limit", "5MB/s", "--network", "lan", "status"][..],
            &["status", "--json", "--upload-limit", "5MB/s", "--network", "lan"],
            &["--json", "status", "--upload-limit=5MB/s", "--network=lan"],
        ] {
            let (options, _) = read(args);
            assert_eq!(options.json, Some(true));
            assert_eq!(options.quiet, None);
            assert_eq!(
                options.upload_limit.and_then(UploadLimit::bytes_per_second),
                Some(5_000_000)
            );
            assert_eq!(options.network, Some(NetworkKind::Lan));
        }
    }

    #[test]
    fn lists_are_given_by_repeating() {
        let (options, command) = read(&[
            "get",
            "x",
            "--listen",
            "/ip4/127.0.0.1/tcp/0",
            "--listen",
            "/ip4/127.0.0.1/tcp/1",
            "--only",
            "*.pak",
            "--only",
            "a/**",
        ]);
        assert_eq!(options.listen.len(), 2);
        let Command::Get(get) = command else {
            panic!("get was read as another command")
        };
        assert_eq!(get.only, ["*.pak", "a/**"]);
        assert!(get.source.peers.is_empty());
    }

    #[test]
    fn wrong_values_are_usage_errors() {
        for args in [
            &["get"][..],
            &["get", "x", "--only", "[z-a]"],
            &["get", "x", "--timeout", "0"],
            &["get", "x", "--peer", "/ip4/127.0.0.1/tcp/1"],
            &["share", "x", "--hash", "md5"],
            &["share", "x", "--previous", "zzz"],
            &["status", "--upload-limit", "5"],
            &["fetch", "x"],
        ] {
            let args = std::iter::once("modswarm")
                .chain(args.iter().copied())
                .map(OsString::from);
            assert_eq!(parse(args).unwrap_err().exit_code(), 2);
        }
    }
}
