//! A link as a QR code in half blocks.

use std::io::IsTerminal;

use console::Term;
use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2};

/// The code of `link`, if standard output is a terminal wide enough for it.
pub(crate) fn for_terminal(link: &str) -> Option<String> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    code(link, usize::from(Term::stdout().size_checked()?.1))
}

/// The code of `link` in at most `columns` columns.
///
/// Dark modules are drawn as spaces and light ones as blocks, quiet zone included: on a dark terminal that is a code as
/// printed, and phones read the reverse of a light one.
fn code(link: &str, columns: usize) -> Option<String> {
    // The lowest correction level makes the smallest code; a screen has no stains.
    let code = QrCode::with_error_correction_level(link, EcLevel::L).ok()?;
    let drawn = code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .quiet_zone(true)
        .build();
    let width = drawn.lines().map(|line| line.chars().count()).max()?;
    (width < columns).then_some(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_drawn_only_where_it_fits() {
        let link = "modswarm:bafyr4iaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa?n=MyPack";
        let drawn = code(link, 80).unwrap();
        assert!(drawn.lines().all(|line| line.chars().count() < 80));
        assert_eq!(code(link, 20), None);
        assert_eq!(code(&"x".repeat(10_000), 1000), None);
    }
}
