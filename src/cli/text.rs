//! Text for people: sizes, times, and names that cannot play tricks on a terminal.

use std::{fmt::Write as _, time::Duration};

/// `text` with what a terminal would obey, or show in another order than it is, made visible.
///
/// Names come from strangers. Control characters (line feeds too) and the marks that turn the direction of writing become
/// `\u{…}`; letters of all scripts stay.
pub(crate) fn escaped(text: &str) -> String {
    escape(text, false)
}

/// As [`escaped`], but lines stay lines: for messages of our own that hold names.
pub(crate) fn escaped_lines(text: &str) -> String {
    escape(text, true)
}

fn escape(text: &str, keep_lines: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\n' && keep_lines {
            out.push(c);
        } else if is_dangerous(c) {
            // Writing to a string cannot fail.
            let _ = write!(out, "{}", c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

fn is_dangerous(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061c}' | '\u{200e}' | '\u{200f}'          // direction marks
            | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' // embeddings, overrides, isolates
            | '\u{2028}' | '\u{2029}'                     // line and paragraph separators
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}'        // invisible
            | '\u{e0000}'..='\u{e007f}') // tags
}

/// A number of bytes: `999 B`, `1.5 kB`, `23.4 MB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    // 999.95 would be shown as 1000.0.
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A speed: `23.4 MB/s`.
pub(crate) fn rate(bytes_per_second: u64) -> String {
    format!("{}/s", bytes(bytes_per_second))
}

/// A time: `7 s`, `2 min 5 s`, `3 h 20 min`, `4 days`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..172_800 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A count with its word: `1 file`, `2 files`.
pub(crate) fn count(count: u64, word: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {word}{plural}")
}

/// Whole percent, 100 only when all is done.
pub(crate) fn percent(done: u64, total: u64) -> u64 {
    if total == 0 {
        return 0;
    }
    u64::try_from(u128::from(done.min(total)) * 100 / u128::from(total)).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_steer_the_terminal() {
        for (name, shown) in [
            ("Skin v1.2_9999999_P.pak", "Skin v1.2_9999999_P.pak"),
            ("мод 模组 مود é", "мод 模组 مود é"),
            ("a\x1b[2Jb", "a\\u{1b}[2Jb"),
            ("a\nb\r\tc\0", "a\\u{a}b\\u{d}\\u{9}c\\u{0}"),
            ("a\u{9b}31m", "a\\u{9b}31m"),
            ("gpj.\u{202e}exe", "gpj.\\u{202e}exe"),
            ("\u{2066}x\u{2069}\u{200f}", "\\u{2066}x\\u{2069}\\u{200f}"),
        ] {
            assert_eq!(escaped(name), shown);
        }
        assert_eq!(escaped_lines("a\nb\x07"), "a\nb\\u{7}");
    }

    #[test]
    fn sizes_never_show_four_digits() {
        for (size, shown) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (1_500_000_000, "1.5 GB"),
            (u64::MAX, "18446.7 PB"),
        ] {
            assert_eq!(bytes(size), shown);
        }
    }

    #[test]
    fn times_are_short() {
        for (seconds, shown) in [
            (0, "0 s"),
            (125, "2 min 5 s"),
            (12_000, "3 h 20 min"),
            (400_000, "4 days"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), shown);
        }
    }

    #[test]
    fn hundred_percent_means_done() {
        assert_eq!(percent(999_999, 1_000_000), 99);
        assert_eq!(percent(7, 7), 100);
        assert_eq!(percent(0, 0), 0);
        assert_eq!(percent(u64::MAX - 1, u64::MAX), 99);
    }
}
