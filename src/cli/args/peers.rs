//! `peers`.

use clap::{Args, Subcommand};
use libp2p::PeerId;

pub(super) const PEERS_EXAMPLES: &str = "\
A peer that sends wrong bytes is banned: for a day the first time, twice as long each further time, up to 30 days. One that breaks the protocol again
and again is banned for minutes. Nothing else bans; a low score only means that others are connected to first.

Examples:
  modswarm peers --all                       everyone who is remembered
  modswarm peers forgive 12D3KooW…           let one in again
  modswarm peers forgive --all               let everyone in again";

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
