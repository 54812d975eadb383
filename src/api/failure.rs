//! The one error of all requests: what kind it is, a sentence for the user, and what to do next.

use serde::{Deserialize, Serialize};

/// The kinds of failure that a caller can tell apart; each has an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Anything else.
    Failed,
    /// The request makes no sense.
    Usage,
    /// Nobody has it.
    NotFound,
    /// What the pack's author made is broken, or bytes do not match.
    Integrity,
    /// No way to the network.
    Network,
    /// Stopped with progress kept.
    Interrupted,
    /// No room.
    DiskFull,
    /// Files that differ are in the way.
    WouldOverwrite,
    /// Stopped before anything began.
    Cancelled,
}

impl FailureKind {
    /// The process's exit code.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Integrity => 5,
            Self::Network => 6,
            Self::Interrupted => 7,
            Self::DiskFull => 9,
            Self::WouldOverwrite => 13,
            Self::Cancelled => 130,
        }
    }
}

/// Why a request failed, as a message to a tired player.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind.
    pub kind: FailureKind,
    /// What happened, in one sentence.
    pub message: String,
    /// What to do next.
    pub help: Option<String>,
}

impl Failure {
    /// A failure with `message` and what to do next.
    pub fn new(kind: FailureKind, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            help: Some(help.into()),
        }
    }
}
