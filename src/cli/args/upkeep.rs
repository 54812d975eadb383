//! What looks after the packs of this machine, and the home itself: `info`, `rm`, `verify`, `move`, `pin`, `gc`, `store`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use libp2p::Multiaddr;
use modswarm::config;

pub(super) const VERIFY_EXAMPLES: &str = "\
Examples:
  modswarm verify                        all packs of this machine
  modswarm verify ~/mods/MyPack --repair fetch again what is missing or rotten

Files that you changed are told from rotten ones by their time stamps; they are reported and never replaced. It ends with code 5 if \
something is wrong and was not repaired.";

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
