//! The settings, in layers.

use std::{fmt, path::PathBuf, str::FromStr};

use libp2p::Multiaddr;

use super::{Places, Rate, UploadLimit};
use crate::api::NetworkKind;

/// How progress is shown on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProgressMode {
    /// A bar on a terminal, plain lines elsewhere.
    #[default]
    Auto,
    /// A line every few seconds.
    Plain,
    /// A JSON object a line.
    Json,
    /// Not at all.
    None,
}

impl ProgressMode {
    /// Its name in flags and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Plain => "plain",
            Self::Json => "json",
            Self::None => "none",
        }
    }
}

impl fmt::Display for ProgressMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ProgressMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Auto, Self::Plain, Self::Json, Self::None]
            .into_iter()
            .find(|mode| mode.name() == text)
            .ok_or_else(|| format!("progress can't be shown as `{text}`; it is one of auto, plain, json and none"))
    }
}

/// One layer of settings: what a source (flags and environment, or the file) said, and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The home folder.
    pub home: Option<PathBuf>,
    /// Addresses to listen on; empty: not said.
    pub listen: Vec<Multiaddr>,
    /// Bootstrap peers; empty: not said.
    pub bootstrap: Vec<Multiaddr>,
    /// The network.
    pub network: Option<NetworkKind>,
    /// Results as JSON.
    pub json: Option<bool>,
    /// Nothing but results and errors.
    pub quiet: Option<bool>,
    /// How progress is shown.
    pub progress: Option<ProgressMode>,
    /// The log filter.
    pub log: Option<String>,
    /// Limit of all uploads together.
    pub upload_limit: Option<UploadLimit>,
    /// Limit of all downloads together.
    pub download_limit: Option<Rate>,
    /// Whether the limits hold in the local network too.
    pub limit_lan: Option<bool>,
    /// Packs that are downloaded at a time; 0: all.
    pub max_active: Option<usize>,
    /// Bytes that the files of all downloads may take.
    pub quota: Option<u64>,
    /// Bytes that downloads leave free on every disk.
    pub min_free: Option<u64>,
}

impl Options {
    /// These options, and where they say nothing, those of `lower`. Lists are replaced, not joined.
    #[must_use]
    pub fn or(self, lower: Self) -> Self {
        fn list<T>(upper: Vec<T>, lower: Vec<T>) -> Vec<T> {
            if upper.is_empty() { lower } else { upper }
        }
        Self {
            home: self.home.or(lower.home),
            listen: list(self.listen, lower.listen),
            bootstrap: list(self.bootstrap, lower.bootstrap),
            network: self.network.or(lower.network),
            json: self.json.or(lower.json),
            quiet: self.quiet.or(lower.quiet),
            progress: self.progress.or(lower.progress),
            log: self.log.or(lower.log),
            upload_limit: self.upload_limit.or(lower.upload_limit),
            download_limit: self.download_limit.or(lower.download_limit),
            limit_lan: self.limit_lan.or(lower.limit_lan),
            max_active: self.max_active.or(lower.max_active),
            quota: self.quota.or(lower.quota),
            min_free: self.min_free.or(lower.min_free),
        }
    }
}

/// What downloads leave free if nothing is said: systems behave badly on a disk without room.
const DEFAULT_MIN_FREE: u64 = 100_000_000;

/// Packs that are downloaded at a time if nothing is said.
const DEFAULT_MAX_ACTIVE: usize = 5;

/// All layers together: what counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the home and the config file are.
    pub places: Places,
    /// What was said; what was not is asked through the methods, which know the defaults.
    pub options: Options,
}

impl Settings {
    /// The network.
    pub fn network(&self) -> NetworkKind {
        self.options.network.unwrap_or_default()
    }

    /// Whether results are JSON.
    pub fn json(&self) -> bool {
        self.options.json.unwrap_or(false)
    }

    /// Whether nothing but results and errors is said.
    pub fn quiet(&self) -> bool {
        self.options.quiet.unwrap_or(false)
    }

    /// How progress is shown.
    pub fn progress(&self) -> ProgressMode {
        self.options.progress.unwrap_or_default()
    }

    /// Limit of all uploads together.
    pub fn upload_limit(&self) -> UploadLimit {
        self.options.upload_limit.unwrap_or_default()
    }

    /// Whether the limits hold in the local network too; where there is nothing else, they do.
    pub fn limit_lan(&self) -> bool {
        self.options.limit_lan.unwrap_or(self.network() == NetworkKind::Lan)
    }

    /// Packs that are downloaded at a time; none: all.
    pub fn max_active(&self) -> Option<usize> {
        Some(self.options.max_active.unwrap_or(DEFAULT_MAX_ACTIVE)).filter(|max| *max > 0)
    }

    /// Bytes that the files of all downloads may take; none: as many as there is room for.
    pub fn quota(&self) -> Option<u64> {
        self.options.quota.filter(|quota| *quota > 0)
    }

    /// Bytes that downloads leave free on every disk.
    pub fn min_free(&self) -> u64 {
        self.options.min_free.unwrap_or(DEFAULT_MIN_FREE)
    }

    /// Limit of all downloads together.
    pub fn download_limit(&self) -> Rate {
        self.options.download_limit.unwrap_or_default()
    }
}
