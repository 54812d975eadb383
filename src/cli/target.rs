//! What a user may paste where a link is wanted, and what to say when it is something else.
//!
//! The node parses links; here is only what it cannot know (the file system), or what should not wait for a network.

use std::path::Path;

use modswarm::api::{Failure, FailureKind};

/// The longest target that is taken, in bytes.
const MAX_TARGET_LEN: usize = 16 * 1024;

/// `target` without spaces around it, or why it is none.
pub(crate) fn checked(target: &str) -> Result<String, Failure> {
    let usage = |message: &str, help: String| Err(Failure::new(FailureKind::Usage, message, help));
    let target = target.trim();
    let lower = target.to_ascii_lowercase();
    if target.is_empty() {
        return usage(
            "the link is empty",
            "paste the link that `modswarm share` printed, in quotes".to_owned(),
        );
    }
    if target.len() > MAX_TARGET_LEN {
        return usage(
            "that is far too long for a link",
            "paste the link that `modswarm share` printed, in quotes".to_owned(),
        );
    }
    if lower.starts_with("magnet:") || lower.ends_with(".torrent") {
        return usage(
            "that is a BitTorrent link, which modswarm does not speak",
            "open it with a torrent program, or ask for a modswarm link".to_owned(),
        );
    }
    if !target.contains("://")
        && !lower.starts_with("modswarm:")
        && !lower.starts_with("/ipfs/")
        && Path::new(target).exists()
    {
        return usage(
            "that is a file or folder of this machine, not a link",
            format!("to share it with others: modswarm share '{target}'"),
        );
    }
    Ok(target.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_link_is_answered_with_what_it_is() {
        for (target, word) in [
            ("", "quotes"),
            ("  ", "quotes"),
            ("magnet:?xt=urn:btih:aa", "torrent"),
            ("https://example.org/x.torrent", "torrent"),
            (env!("CARGO_MANIFEST_DIR"), "modswarm share"),
        ] {
            let failure = checked(target).unwrap_err();
            assert_eq!(failure.kind, FailureKind::Usage);
            assert!(failure.help.unwrap().contains(word), "{target}");
        }
        assert_eq!(checked(" modswarm:bafy \n").unwrap(), "modswarm:bafy");
    }
}
