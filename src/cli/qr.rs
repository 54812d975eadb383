//! A link as a QR code in half blocks.

use std::io::IsTerminal;

use console::Term;
use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2};

/// The code of the first of `links` that fits, if standard output is a terminal large enough for any.
pub(crate) fn for_terminal(links: &[&str]) -> Option<String> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    let (rows, columns) = Term::stdout().size_checked()?;
    links
        .iter()
        .find_map(|link| code(link, usize::from(rows), usize::from(columns)))
}

/// How many rows under the code are needed for what is said next.
const ROWS_BELOW: usize = 3;

/// The code of `link` on a screen of so many rows and columns: one that must be scrolled can't be scanned.
///
/// Dark modules are drawn as spaces and light ones as blocks, quiet zone included: on a dark terminal that is a code as
/// printed, and phones read the reverse on a light one.
fn code(link: &str, rows: usize, columns: usize) -> Option<String> {
    // The lowest correction level makes the smallest code; a screen has no stains.
    let code = QrCode::with_error_correction_level(link, EcLevel::L).ok()?;
    let drawn = code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .quiet_zone(true)
        .build();
    let width = drawn.lines().map(|line| line.chars().count()).max()?;
    (width <= columns && drawn.lines().count() + ROWS_BELOW <= rows).then_some(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_drawn_only_where_it_fits() {
        let link = "modswarm:bafyr4iaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        let drawn = code(link, 24, 80).unwrap();
        assert!(drawn.lines().count() < 24 && drawn.lines().all(|line| line.chars().count() <= 80));
        assert_eq!(code(link, 10, 80), None);
        assert_eq!(code(link, 24, 20), None);
        assert_eq!(code(&"x".repeat(10_000), 1000, 1000), None);
    }
}
