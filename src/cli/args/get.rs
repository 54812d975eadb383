//! `get`, and what only looks: `ls` and `diff`. All name a pack that others have, and may name peers to ask.

use std::path::PathBuf;

use clap::Args;
use libp2p::Multiaddr;
use modswarm::{api::Conflicts, config};

pub(super) const GET_EXAMPLES: &str = "\
Examples:
  modswarm get 'modswarm:b…' -o ~/mods           writes ~/mods/<name>/
  modswarm get 'modswarm:b…' -o ~/mods/MyPack    updates an installed pack
  modswarm get b… --only '*.pak' --no-seed       only some files; ends when done
  modswarm get ipfs://b…                         a CID in any spelling works too
  modswarm get b… --peer /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…

Put the link in quotes: the shell reads & and ? itself. Stopped or cut off, the same command goes on where it was.";

pub(super) const DIFF_EXAMPLES: &str = "\
+ added, ~ changed, - removed, > only renamed, ! yours or changed by you.

Examples:
  modswarm diff ~/mods/MyPack modswarm:bafy…    what getting the new version would do there
  modswarm diff bafy…1 bafy…2                   two versions, wherever they are";

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

fn parse_glob(text: &str) -> Result<String, String> {
    match globset::Glob::new(text) {
        Ok(_) if !text.is_empty() => Ok(text.to_owned()),
        Ok(_) => Err("it is empty; to mean everything, leave it out".to_owned()),
        Err(error) => Err(format!("{}; it looks like '*.pak' or 'maps/**'", error.kind())),
    }
}
