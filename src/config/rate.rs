//! Limits in bytes a second, as people write them.

use std::{fmt, num::NonZeroU64, str::FromStr};

/// A limit in bytes a second, or none.
///
/// Written as a number and a unit: `5MB/s`, `800KiB`, `20Mbit`, `1.5 MB`; `0` and `unlimited` are no limit. `k`, `M` and `G`
/// are powers of 1000, `Ki`, `Mi` and `Gi` powers of 1024; only `bit` and `bps` mean bits. `/s` may be left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate(Option<NonZeroU64>);

/// Why a text is no [`Rate`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// There is no number at its beginning.
    #[error("it is no number with a unit; write it like 5MB/s, 800KiB or 20Mbit, or `unlimited`")]
    Number,
    /// The unit is unknown.
    #[error("`{0}` is no unit of speed; write it like 5MB/s, 800KiB or 20Mbit, or `unlimited`")]
    Unit(String),
    /// Less than [`Rate::MIN`].
    #[error(
        "that is under 1 kB/s, too slow for anything to arrive; did you forget the unit, as in 5MB/s? (`unlimited` is no limit)"
    )]
    TooSlow,
    /// More than a `u64` holds.
    #[error("that is too large; for no limit write `unlimited`")]
    TooLarge,
}

/// A limit of uploads: a [`Rate`], or `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadLimit {
    /// This.
    Rate(Rate),
    /// As fast as nobody else on the line feels.
    Auto,
}

impl Default for UploadLimit {
    fn default() -> Self {
        Self::Rate(Rate::UNLIMITED)
    }
}

impl UploadLimit {
    /// Bytes a second; none where there is no fixed one.
    pub const fn bytes_per_second(self) -> Option<u64> {
        match self {
            Self::Rate(rate) => rate.bytes_per_second(),
            Self::Auto => None,
        }
    }
}

impl FromStr for UploadLimit {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        if text.trim().eq_ignore_ascii_case("auto") {
            return Ok(Self::Auto);
        }
        text.parse().map(Self::Rate)
    }
}

impl fmt::Display for UploadLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate(rate) => rate.fmt(f),
            Self::Auto => f.write_str("auto"),
        }
    }
}

impl Rate {
    /// No limit.
    pub const UNLIMITED: Self = Self(None);

    /// The least limit that is accepted, in bytes a second: below it a request times out before its block is whole.
    pub const MIN: u64 = 1000;

    /// Bytes a second; none: unlimited.
    pub const fn bytes_per_second(self) -> Option<u64> {
        match self.0 {
            Some(rate) => Some(rate.get()),
            None => None,
        }
    }

    /// The limit of so many bytes a second; none and zero: unlimited.
    pub fn from_bytes_per_second(rate: Option<u64>) -> Self {
        Self(rate.and_then(NonZeroU64::new))
    }

    fn checked(bytes_per_second: f64) -> Result<Self, RateError> {
        if bytes_per_second == 0.0 {
            return Ok(Self::UNLIMITED);
        }
        if bytes_per_second < Self::MIN as f64 {
            return Err(RateError::TooSlow);
        }
        // Well below 2^64, so that sums of a few of them do not overflow either.
        if bytes_per_second > 1e18 {
            return Err(RateError::TooLarge);
        }
        Ok(Self(NonZeroU64::new(bytes_per_second as u64)))
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let text = text.trim();
        if ["unlimited", "none", "off"]
            .iter()
            .any(|word| text.eq_ignore_ascii_case(word))
        {
            return Ok(Self::UNLIMITED);
        }
        let digits = text
            .bytes()
            .take_while(|byte| byte.is_ascii_digit() || *byte == b'.')
            .count();
        let (number, unit) = text.split_at(digits);
        let number: f64 = number.parse().map_err(|_| RateError::Number)?;
        let multiplier = multiplier(unit.trim()).ok_or_else(|| RateError::Unit(unit.trim().to_owned()))?;
        Self::checked(number * multiplier)
    }
}

/// How many bytes a second one of `unit` is.
fn multiplier(unit: &str) -> Option<f64> {
    let unit = unit.to_ascii_lowercase();
    let unit = unit.strip_suffix("/s").unwrap_or(&unit);
    let (unit, bits) = match unit
        .strip_suffix("bits")
        .or_else(|| unit.strip_suffix("bit"))
        .or_else(|| unit.strip_suffix("bps"))
    {
        Some(rest) => (rest, true),
        None => (unit.strip_suffix('b').unwrap_or(unit), false),
    };
    let bytes = match unit {
        "" => 1.0,
        "k" => 1e3,
        "m" => 1e6,
        "g" => 1e9,
        "ki" => 1024.0,
        "mi" => 1024.0 * 1024.0,
        "gi" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    Some(if bits { bytes / 8.0 } else { bytes })
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bytes_per_second() {
            None => f.write_str("unlimited"),
            Some(rate) => {
                let (value, unit) = match rate {
                    1_000_000_000.. => (rate as f64 / 1e9, "GB/s"),
                    1_000_000.. => (rate as f64 / 1e6, "MB/s"),
                    1000.. => (rate as f64 / 1e3, "kB/s"),
                    _ => (rate as f64, "B/s"),
                };
                // At most two decimals, none that are zero.
                write!(f, "{} {unit}", (value * 100.0).round() / 100.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Option<u64> {
        text.parse::<Rate>()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
            .bytes_per_second()
    }

    #[test]
    fn units_are_read_as_people_write_them() {
        for (text, expected) in [
            ("5MB/s", 5_000_000),
            ("5 MB/s", 5_000_000),
            ("5mb", 5_000_000),
            ("5M", 5_000_000),
            ("800KiB", 800 * 1024),
            ("800kib/s", 800 * 1024),
            ("1.5MiB/s", 1_572_864),
            ("20Mbit", 2_500_000),
            ("20Mbit/s", 2_500_000),
            ("100Mbps", 12_500_000),
            ("1Gbit", 125_000_000),
            ("2GiB/s", 2 << 30),
            ("1000", 1000),
            ("250000B/s", 250_000),
        ] {
            assert_eq!(rate(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn no_limit_has_several_names() {
        for text in ["0", "unlimited", "Unlimited", "none", "off", "0MB/s"] {
            assert_eq!(rate(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_rate_is_refused_with_the_reason() {
        for (text, error) in [
            ("", RateError::Number),
            ("fast", RateError::Number),
            ("-5MB", RateError::Number),
            ("1.2.3MB", RateError::Number),
            ("5 parsecs", RateError::Unit("parsecs".to_owned())),
            ("5", RateError::TooSlow),
            ("999", RateError::TooSlow),
            ("99999999999999999999GB", RateError::TooLarge),
        ] {
            assert_eq!(text.parse::<Rate>(), Err(error), "{text}");
        }
    }

    #[test]
    fn uploads_may_look_after_themselves() {
        assert_eq!("Auto".parse(), Ok(UploadLimit::Auto));
        assert_eq!(
            "5MB/s".parse::<UploadLimit>().unwrap().bytes_per_second(),
            Some(5_000_000)
        );
        assert_eq!(UploadLimit::Auto.to_string(), "auto");
        assert!("auto".parse::<Rate>().is_err());
    }

    #[test]
    fn what_is_shown_can_be_read_again() {
        for text in ["unlimited", "5 MB/s", "1.25 GB/s", "800 kB/s"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
    }
}
