//! `share`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use modswarm::config;
use modswarm_protocol::{Cid, HashKind};

pub(super) const SHARE_EXAMPLES: &str = "\
Examples:
  modswarm share ~/mods/MyPack
  modswarm share Skin.pak --name 'Red skin' --creator Ada --tag skin --tag red
  modswarm share ~/mods/MyPack --network lan    only in this local network
  modswarm share ~/mods/MyPack --json           one line of JSON, for other programs

The files stay where they are and are not copied. What a .modswarmignore in the folder names (gitignore syntax) is left \
out. Sharing again after a change hashes only what changed. It seeds until stopped with Ctrl-C.";

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
