//! Where a file is cut into leaves.
//!
//! This module only finds cut points; reading files and hashing are the caller's. A profile is part of a pack (pack.json names it),
//! because the same files give the same content CID only when they are cut alike.
//!
//! Sources: Xia et al., *The Design of Fast Content-Defined Chunking for Data Deduplication Based Storage Systems* (IEEE TPDS 2020),
//! as the `fastcdc` crate implements it, but with nested masks; `gear` has them, and searches faster for the same cut points. The tests pin them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::MAX_BLOCK_LEN;

mod gear;

/// How files are cut into leaves. Displayed and parsed as `fastcdc2020-65536` or `fixed-1048576`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChunkerProfile {
    /// By content: minimum a quarter of the average, maximum four times it, normalisation level 1 with nested masks, seed 0.
    FastCdc2020 {
        /// Bytes; a power of two from [`ChunkerProfile::AVERAGE_MIN`] to [`ChunkerProfile::AVERAGE_MAX`].
        average: u32,
    },
    /// Every `size` bytes, as IPFS tools do.
    Fixed {
        /// Bytes, from 1 to [`MAX_BLOCK_LEN`].
        size: u32,
    },
}

/// A chunker profile that this program cannot follow.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "chunker profile {0:?} is not known; use one such as \"fastcdc2020-65536\" (a power of two from 256 to 524288) or \
     \"fixed-1048576\" (1 to 2097152)"
)]
pub struct ChunkerProfileError(String);

impl ChunkerProfile {
    /// What `share` uses. Chosen by measurement: docs/FORMAT.md has the table.
    pub const DEFAULT: Self = Self::FastCdc2020 { average: 32 * 1024 };
    /// The profile of IPIP-499's `unixfs-v1-2025`.
    pub const IPIP_499: Self = Self::Fixed { size: 1024 * 1024 };
    /// The smallest average: the algorithm's own bound.
    pub const AVERAGE_MIN: u32 = 256;
    /// The largest average: four times it is [`MAX_BLOCK_LEN`].
    pub const AVERAGE_MAX: u32 = MAX_BLOCK_LEN as u32 / 4;

    /// Content-defined cuts with this average, if it is a power of two within bounds.
    pub const fn fastcdc(average: u32) -> Option<Self> {
        if average.is_power_of_two() && average >= Self::AVERAGE_MIN && average <= Self::AVERAGE_MAX {
            Some(Self::FastCdc2020 { average })
        } else {
            None
        }
    }

    /// Fixed cuts of this size, if it is within bounds.
    pub const fn fixed(size: u32) -> Option<Self> {
        if size >= 1 && size as usize <= MAX_BLOCK_LEN {
            Some(Self::Fixed { size })
        } else {
            None
        }
    }

    /// The longest leaf it makes, in bytes.
    pub const fn max_len(&self) -> usize {
        match *self {
            Self::FastCdc2020 { average } => average as usize * 4,
            Self::Fixed { size } => size as usize,
        }
    }

    /// The length of the leaf that starts where `data` starts: from 1 to [`ChunkerProfile::max_len`], 0 only for no data.
    ///
    /// `data` must hold at least [`ChunkerProfile::max_len`] bytes or reach the end of the file; what lies beyond that many bytes
    /// is not looked at. Nothing is copied.
    pub fn next_cut(&self, data: &[u8]) -> usize {
        let data = &data[..data.len().min(self.max_len())];
        match *self {
            Self::Fixed { .. } => data.len(),
            Self::FastCdc2020 { average } => gear::next_cut(data, average as usize),
        }
    }

    /// The leaves of a file that is wholly in memory, in order.
    pub fn chunks<'a>(&self, mut data: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let profile = *self;
        std::iter::from_fn(move || {
            let (chunk, rest) = data.split_at(profile.next_cut(data));
            data = rest;
            (!chunk.is_empty()).then_some(chunk)
        })
    }
}

impl Default for ChunkerProfile {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for ChunkerProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FastCdc2020 { average } => write!(f, "fastcdc2020-{average}"),
            Self::Fixed { size } => write!(f, "fixed-{size}"),
        }
    }
}

impl FromStr for ChunkerProfile {
    type Err = ChunkerProfileError;

    fn from_str(text: &str) -> Result<Self, ChunkerProfileError> {
        let parsed = text.split_once('-').and_then(|(kind, number)| {
            // One spelling each: no sign, no leading zero.
            let number = number.parse::<u32>().ok().filter(|n| n.to_string() == number)?;
            match kind {
                "fastcdc2020" => Self::fastcdc(number),
                "fixed" => Self::fixed(number),
                _ => None,
            }
        });
        parsed.ok_or_else(|| ChunkerProfileError(text.chars().take(64).collect()))
    }
}

impl Serialize for ChunkerProfile {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ChunkerProfile {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
