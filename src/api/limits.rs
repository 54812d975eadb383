//! Limits, priorities and pauses, as one asks for them.

use std::path::PathBuf;

use modswarm_protocol::Cid;
use serde::{Deserialize, Serialize};

/// How much of what there is a pack gets, compared with others that are being downloaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// A quarter of what a normal one gets.
    Low,
    /// As much as every other normal one.
    #[default]
    Normal,
    /// Four times what a normal one gets.
    High,
}

/// A limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// As fast as it goes.
    #[default]
    Unlimited,
    /// As fast as nobody else on the line feels; only for all uploads together.
    Auto,
    /// Bytes a second.
    BytesPerSecond(u64),
}

impl Limit {
    /// The limit of so many bytes a second; none: unlimited.
    pub fn of(rate: Option<u64>) -> Self {
        rate.map_or(Self::Unlimited, Self::BytesPerSecond)
    }

    /// Bytes a second; none where there is no fixed one.
    pub fn bytes_per_second(self) -> Option<u64> {
        match self {
            Self::BytesPerSecond(rate) => Some(rate),
            Self::Unlimited | Self::Auto => None,
        }
    }
}

/// `limit`: changes limits while the node runs, and says what they are then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitRequest {
    /// A link, CID, name or path of a pack of the home, whose own limits are meant; none: those of all packs together.
    pub target: Option<String>,
    /// The new limit of uploads; none: as it is.
    pub upload: Option<Limit>,
    /// The new limit of downloads; none: as it is.
    pub download: Option<Limit>,
}

/// What limits there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Of all uploads together, until the process ends.
    pub upload: Limit,
    /// What uploads may take now, in bytes a second; none: unlimited.
    pub upload_now: Option<u64>,
    /// Of all downloads together, until the process ends.
    pub download: Limit,
    /// Whether they hold for peers in the local network too.
    pub lan: bool,
    /// Packs with limits of their own (and the one that was asked for).
    pub packs: Vec<PackLimits>,
}

/// The limits of one pack. They are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackLimits {
    /// The pack's name.
    pub name: String,
    /// Content CID.
    pub content: Cid,
    /// Where its files are.
    pub path: PathBuf,
    /// Of its uploads.
    pub upload: Limit,
    /// Of its downloads.
    pub download: Limit,
}

/// `pause`, `resume` and `priority`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdjustRequest {
    /// A link, CID, name or path of a pack of the home; none: all packs.
    pub target: Option<String>,
    /// Whether it is to be neither downloaded nor seeded; none: as it is.
    pub paused: Option<bool>,
    /// Its new priority; none: as it is.
    pub priority: Option<Priority>,
}
