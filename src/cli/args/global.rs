//! Options that every command takes, and that can stand in the environment and in the config file as well.
//!
//! They become [`Options`], the same shape that the file has; which of the three wins is `modswarm::config`'s affair.

use std::path::PathBuf;

use clap::{ArgAction, ArgMatches, Args, ValueEnum, builder::BoolishValueParser, parser::ValueSource};
use libp2p::Multiaddr;
use modswarm::{
    api::NetworkKind,
    config::{self, Options, ProgressMode, Rate, UploadLimit},
};

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(super) struct GlobalArgs {
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

pub(super) fn options(global: GlobalArgs, matches: &ArgMatches) -> Options {
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
