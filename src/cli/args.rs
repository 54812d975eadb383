//! What can be written on the command line.
//!
//! Global options become [`Options`], the same shape that the config file has; [`parse`] is the only entrance.

use std::{ffi::OsString, path::PathBuf};

use clap::{
    ArgAction, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
    builder::{BoolishValueParser, Styles, styling::AnsiColor},
    parser::ValueSource,
};
use clap_complete::Shell;
use libp2p::{Multiaddr, PeerId};
use modswarm::{
    api::{Conflicts, NetworkKind},
    config::{self, Options, ProgressMode, Rate, UploadLimit},
};
use modswarm_protocol::{Cid, HashKind};

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

const SHARE_EXAMPLES: &str = "\
Examples:
  modswarm share ~/mods/MyPack
  modswarm share Skin.pak --name 'Red skin' --creator Ada --tag skin --tag red
  modswarm share ~/mods/MyPack --network lan    only in this local network
  modswarm share ~/mods/MyPack --json           one line of JSON, for other programs

The files stay where they are and are not copied. What a .modswarmignore in the folder names (gitignore syntax) is left \
out. Sharing again after a change hashes only what changed. It seeds until stopped with Ctrl-C.";

const GET_EXAMPLES: &str = "\
Examples:
  modswarm get 'modswarm:b…' -o ~/mods           writes ~/mods/<name>/
  modswarm get 'modswarm:b…' -o ~/mods/MyPack    updates an installed pack
  modswarm get b… --only '*.pak' --no-seed       only some files; ends when done
  modswarm get ipfs://b…                         a CID in any spelling works too
  modswarm get b… --peer /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…

Put the link in quotes: the shell reads & and ? itself. Stopped or cut off, the same command goes on where it was.";

const VERIFY_EXAMPLES: &str = "\
Examples:
  modswarm verify                        all packs of this machine
  modswarm verify ~/mods/MyPack --repair fetch again what is missing or rotten

Files that you changed are told from rotten ones by their time stamps; they are reported and never replaced. It ends with code 5 if \
something is wrong and was not repaired.";

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

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
struct GlobalArgs {
    /// The folder with the index and the identity [default: the platform's].
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "MODSWARM_HOME",
        hide_env_values = true
    )]
    home: Option<PathBuf>,
    /// Listen on this address; may be given several times.
    #[arg(long, global = true, value_name = "MULTIADDR", env = "MODSWARM_LISTEN", hide_env_values = true,
        value_delimiter = ',', value_parser = config::parse_listen)]
    listen: Vec<Multiaddr>,
    /// Join the network through this peer; may be given several times.
    #[arg(long, global = true, value_name = "MULTIADDR", env = "MODSWARM_BOOTSTRAP", hide_env_values = true,
        value_delimiter = ',', value_parser = config::parse_bootstrap)]
    bootstrap: Vec<Multiaddr>,
    /// Where packs are announced and looked for [default: public].
    #[arg(long, global = true, value_enum, env = "MODSWARM_NETWORK", hide_env_values = true)]
    network: Option<NetworkArg>,
    /// Print results as JSON.
    #[arg(long, global = true, env = "MODSWARM_JSON", hide_env_values = true, action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new())]
    json: bool,
    /// Say nothing but results and errors.
    #[arg(short, long, global = true, env = "MODSWARM_QUIET", hide_env_values = true, action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new())]
    quiet: bool,
    /// How progress is shown [default: auto].
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "HOW",
        env = "MODSWARM_PROGRESS",
        hide_env_values = true
    )]
    progress: Option<ProgressArg>,
    /// Write a log to standard error, as in debug or modswarm=trace.
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        env = "MODSWARM_LOG",
        hide_env_values = true
    )]
    log: Option<String>,
    /// Upload no faster than this, as in 5MB/s, 800KiB, 20Mbit; `auto`: as fast as nobody else on the line feels [default: unlimited].
    #[arg(
        long,
        global = true,
        value_name = "RATE",
        env = "MODSWARM_UPLOAD_LIMIT",
        hide_env_values = true
    )]
    upload_limit: Option<UploadLimit>,
    /// Download no faster than this [default: unlimited].
    #[arg(
        long,
        global = true,
        value_name = "RATE",
        env = "MODSWARM_DOWNLOAD_LIMIT",
        hide_env_values = true
    )]
    download_limit: Option<Rate>,
    /// Hold to the limits in the local network too; without it they are for the internet [default: only with --network lan].
    #[arg(long, global = true, env = "MODSWARM_LIMIT_LAN", hide_env_values = true, action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new())]
    limit_lan: bool,
    /// Download this many packs at a time, the others after them; 0 for all [default: 5].
    #[arg(
        long,
        global = true,
        value_name = "N",
        env = "MODSWARM_MAX_ACTIVE",
        hide_env_values = true
    )]
    max_active: Option<usize>,
    /// Let the files of all downloads take at most this much, as in 200GB [default: unlimited].
    #[arg(long, global = true, value_name = "SIZE", env = "MODSWARM_QUOTA", hide_env_values = true, value_parser = config::parse_size)]
    quota: Option<u64>,
    /// Leave at least this much free on every disk [default: 100MB].
    #[arg(long, global = true, value_name = "SIZE", env = "MODSWARM_MIN_FREE", hide_env_values = true, value_parser = config::parse_size)]
    min_free: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum NetworkArg {
    /// Everyone, through the public IPFS DHT.
    Public,
    /// This local network only.
    Lan,
    /// Only peers named by --bootstrap, --peer and links.
    Private,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProgressArg {
    /// A bar on a terminal, plain lines elsewhere.
    Auto,
    /// A line every few seconds.
    Plain,
    /// A JSON object a line.
    Json,
    /// Not at all.
    None,
}

const DIFF_EXAMPLES: &str = "\
+ added, ~ changed, - removed, > only renamed, ! yours or changed by you.

Examples:
  modswarm diff ~/mods/MyPack modswarm:bafy…    what getting the new version would do there
  modswarm diff bafy…1 bafy…2                   two versions, wherever they are";

const PEERS_EXAMPLES: &str = "\
A peer that sends wrong bytes is banned: for a day the first time, twice as long each further time, up to 30 days. One that breaks the protocol again
and again is banned for minutes. Nothing else bans; a low score only means that others are connected to first.

Examples:
  modswarm peers --all                       everyone who is remembered
  modswarm peers forgive 12D3KooW…           let one in again
  modswarm peers forgive --all               let everyone in again";

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

/// What to do with the home.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Make the index anew from the home's plain files and the packs' own, when it is lost or damaged.
    #[command(
        after_help = "Files of packs are only read. The old index is put aside. What cannot be restored from this machine alone (a download that \
                      was not finished, a pack cut by another program) is named, with the command that goes on with it."
    )]
    Rebuild,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct PeersArgs {
    /// List every peer that is remembered, good ones too.
    #[arg(long)]
    pub(crate) all: bool,
    #[command(subcommand)]
    pub(crate) command: Option<PeersCommand>,
}

/// What to do about peers.
#[derive(Debug, Subcommand)]
pub(crate) enum PeersCommand {
    /// Lift the ban of a peer and forget what it did wrong; takes effect at once.
    Forgive(ForgiveArgs),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ForgiveArgs {
    /// The peer's ID, as `modswarm peers` shows it.
    #[arg(value_name = "PEER_ID")]
    pub(crate) peer: Option<PeerId>,
    /// Forgive everyone.
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShareArgs {
    /// The folder or file to share.
    pub(crate) path: PathBuf,
    /// The pack's name [default: the folder's].
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// What it is.
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// Who made it.
    #[arg(long)]
    pub(crate) creator: Option<String>,
    /// The game that it is for.
    #[arg(long)]
    pub(crate) game: Option<String>,
    /// A word to find it by; may be given several times.
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
    /// The hash function of its CIDs; sha2-256 only for tools that know no other [default: blake3].
    #[arg(long, value_enum)]
    pub(crate) hash: Option<HashArg>,
    /// The pack that this one follows [default: what this folder was shared as before].
    #[arg(long, value_name = "CID")]
    pub(crate) previous: Option<Cid>,
    /// Make the link valid for this long only, as in 12h or 7d [default: for ever].
    #[arg(long, value_name = "TIME", value_parser = config::parse_seconds)]
    pub(crate) expires: Option<u64>,
    /// Keep a copy in the home, so that the folder may be changed or deleted while the pack is seeded; costs no room where the file system can share it.
    #[arg(long, overrides_with = "no_copy")]
    pub(crate) copy: bool,
    /// Seed from the folder again, and need the copy no more [default: as it was shared before, and no copy at first].
    #[arg(long, overrides_with = "copy")]
    pub(crate) no_copy: bool,
    /// Print no QR code.
    #[arg(long)]
    pub(crate) no_qr: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum HashArg {
    /// Fast, and what all packs use.
    Blake3,
    /// For tools that know no other.
    #[value(name = "sha2-256")]
    Sha2,
}

impl From<HashArg> for HashKind {
    fn from(hash: HashArg) -> Self {
        match hash {
            HashArg::Blake3 => Self::Blake3,
            HashArg::Sha2 => Self::Sha2_256,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct SourceArgs {
    /// A link, a CID, ipfs://…, /ipfs/… or a gateway's URL.
    #[arg(value_name = "LINK|CID")]
    pub(crate) target: String,
    /// Ask this peer too; may be given several times.
    #[arg(long = "peer", value_name = "MULTIADDR", value_parser = config::parse_peer)]
    pub(crate) peers: Vec<Multiaddr>,
    /// Give up after this many seconds without a new verified block [default: keep trying].
    #[arg(long, value_name = "S", value_parser = config::parse_seconds)]
    pub(crate) timeout: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Where the pack's folder appears; an installed pack's own folder is updated.
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(crate) output: PathBuf,
    /// Only files whose path in the pack matches, as in '*.pak' or 'maps/**'; may be given several times.
    #[arg(long, value_name = "GLOB", value_parser = parse_glob)]
    pub(crate) only: Vec<String>,
    /// Fetch files whose path in the pack matches before all others; may be given several times.
    #[arg(long, value_name = "GLOB", value_parser = parse_glob)]
    pub(crate) first: Vec<String>,
    /// Fetch from the first byte to the last, and not what is rarest first.
    #[arg(long)]
    pub(crate) sequential: bool,
    /// End when the download is complete.
    #[arg(long)]
    pub(crate) no_seed: bool,
    /// Only say what would be done: which files, how many bytes, how much room.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) conflicts: ConflictArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The old version: a link, CID or name; or the folder of an installed pack, with what you changed in it.
    #[arg(value_name = "OLD")]
    pub(crate) from: String,
    /// The new version: a link, CID, name or folder of a pack.
    #[arg(value_name = "NEW")]
    pub(crate) to: String,
    /// Ask this peer too; may be given several times.
    #[arg(long = "peer", value_name = "MULTIADDR", value_parser = config::parse_peer)]
    pub(crate) peers: Vec<Multiaddr>,
    /// Give up after this many seconds if nobody gives the list of files [default: keep trying].
    #[arg(long, value_name = "S", value_parser = config::parse_seconds)]
    pub(crate) timeout: Option<u64>,
}

/// What to do with files that are the user's own, or that he changed, where the pack has others. Asked on a terminal if none is given.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct ConflictArgs {
    /// Keep your own files where they are in the way, and leave the pack's out.
    #[arg(long)]
    pub(crate) keep_mine: bool,
    /// Replace your own files where they are in the way.
    #[arg(long, visible_alias = "overwrite")]
    pub(crate) take_theirs: bool,
    /// Rename your own files where they are in the way, as in 'Skin (mine).pak'.
    #[arg(long)]
    pub(crate) keep_both: bool,
}

impl ConflictArgs {
    pub(crate) fn policy(&self) -> Conflicts {
        match (self.keep_mine, self.take_theirs, self.keep_both) {
            (true, ..) => Conflicts::KeepMine,
            (_, true, _) => Conflicts::TakeTheirs,
            (.., true) => Conflicts::KeepBoth,
            _ => Conflicts::Refuse,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Show the CID of each file.
    #[arg(long)]
    pub(crate) cids: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// A link, CID, name or folder of a pack of this machine.
    #[arg(value_name = "PACK")]
    pub(crate) target: String,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// A link, CID, name or folder of a pack of this machine.
    #[arg(value_name = "PACK")]
    pub(crate) target: String,
    /// Delete the files of the pack too.
    #[arg(long)]
    pub(crate) data: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// A link, CID, name or folder of a pack of this machine [default: all packs].
    #[arg(value_name = "PACK")]
    pub(crate) target: Option<String>,
    /// Fetch again what is missing or rotten.
    #[arg(long)]
    pub(crate) repair: bool,
    /// Ask this peer too; may be given several times.
    #[arg(long = "peer", value_name = "MULTIADDR", value_parser = config::parse_peer, requires = "repair")]
    pub(crate) peers: Vec<Multiaddr>,
    /// Give up a repair after this many seconds without a new verified block [default: keep trying].
    #[arg(long, value_name = "S", value_parser = config::parse_seconds, requires = "repair")]
    pub(crate) timeout: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct MoveArgs {
    /// A link, CID, name or folder of a pack of this machine.
    #[arg(value_name = "PACK")]
    pub(crate) target: String,
    /// Where to.
    #[arg(value_name = "DIR")]
    pub(crate) to: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// Remove downloaded packs with their files, the least recently used first, until the rest takes at most this much, as in 500GB. Pinned packs
    /// and packs that were shared from here stay.
    #[arg(long, value_name = "SIZE", value_parser = config::parse_size)]
    pub(crate) keep: Option<u64>,
}

/// Reads a command line, its first word the program's name.
///
/// # Errors
/// clap's error, which is also how help and version come.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<(Options, Command), clap::Error> {
    let matches = Cli::command().try_get_matches_from(args)?;
    let cli = Cli::from_arg_matches(&matches)?;
    let options = options(cli.global, &matches);
    Ok((options, cli.command))
}

/// The whole command, for completions and manual pages.
pub(crate) fn command() -> clap::Command {
    Cli::command()
}

fn options(global: GlobalArgs, matches: &ArgMatches) -> Options {
    // A flag that is not there must leave the word to the file, `MODSWARM_JSON=0` must not.
    let said = |id: &str, value: bool| match matches.value_source(id) {
        Some(ValueSource::CommandLine | ValueSource::EnvVariable) => Some(value),
        _ => None,
    };
    Options {
        json: said("json", global.json),
        quiet: said("quiet", global.quiet),
        home: global.home.filter(|home| !home.as_os_str().is_empty()),
        listen: global.listen,
        bootstrap: global.bootstrap,
        network: global.network.map(|network| match network {
            NetworkArg::Public => NetworkKind::Public,
            NetworkArg::Lan => NetworkKind::Lan,
            NetworkArg::Private => NetworkKind::Private,
        }),
        progress: global.progress.map(|progress| match progress {
            ProgressArg::Auto => ProgressMode::Auto,
            ProgressArg::Plain => ProgressMode::Plain,
            ProgressArg::Json => ProgressMode::Json,
            ProgressArg::None => ProgressMode::None,
        }),
        log: global.log,
        upload_limit: global.upload_limit,
        download_limit: global.download_limit,
        limit_lan: said("limit_lan", global.limit_lan),
        max_active: global.max_active,
        quota: global.quota,
        min_free: global.min_free,
    }
}

fn parse_glob(text: &str) -> Result<String, String> {
    match globset::Glob::new(text) {
        Ok(_) if !text.is_empty() => Ok(text.to_owned()),
        Ok(_) => Err("it is empty; to mean everything, leave it out".to_owned()),
        Err(error) => Err(format!("{}; it looks like '*.pak' or 'maps/**'", error.kind())),
    }
}

#[cfg(test)]
mod tests {
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
