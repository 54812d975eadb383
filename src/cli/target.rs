//! What a user may paste where a link is wanted, and what to say when it is something else.
//!
//! The node parses links again; here it is done before a node is started, so that a slip of the mouse is answered at once.

use std::path::Path;

use modswarm::api::{Failure, FailureKind};
use modswarm_protocol::format::link::{Target, TargetError};

/// `target` without spaces around it, or why it is none.
pub(crate) fn checked(target: &str) -> Result<String, Failure> {
    let target = target.trim();
    match Target::parse(target) {
        Ok(_) => Ok(target.to_owned()),
        Err(TargetError::Unknown(_)) if Path::new(target).exists() => Err(Failure::new(
            FailureKind::Usage,
            format!("`{target}` is a file or folder of this machine, not a link"),
            format!("to share it with others: modswarm share '{target}'"),
        )),
        Err(TargetError::Unknown(_)) if looks_like_a_cid(target) => Err(Failure::new(
            FailureKind::Usage,
            format!("`{target}` looks like a CID, but is cut short or mistyped"),
            "copy it again, all of it; the whole link that `modswarm share` printed is better still",
        )),
        Err(error) => {
            let (message, help) = sentence_and_help(&error.to_string());
            Err(Failure::new(FailureKind::Usage, message, help))
        }
    }
}

/// Whether somebody meant this to be a CID.
fn looks_like_a_cid(text: &str) -> bool {
    const SHORTEST: usize = 12;
    let text = text.strip_prefix("modswarm:").unwrap_or(text);
    let text = text.strip_prefix("ipfs://").unwrap_or(text);
    text.len() >= SHORTEST
        && (text.starts_with("baf") || text.starts_with("Qm"))
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// A target's error ends with its remedy, after a semicolon.
fn sentence_and_help(text: &str) -> (String, String) {
    match text.split_once("; ") {
        Some((sentence, help)) => (sentence.to_owned(), help.to_owned()),
        None => (
            text.to_owned(),
            "paste the link that `modswarm share` printed, in quotes".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_link_is_answered_with_what_it_is() {
        for (target, word) in [
            ("", "paste"),
            ("  ", "paste"),
            (
                "magnet:?xt=urn:btih:c12fe1c06bba254a9dc9f519b335aa7c1367a88a",
                "BitTorrent",
            ),
            ("nonsense", "paste"),
            ("bafyb4ifwl5f7u5cnhjlvh2tpavlsa", "cut short"),
            (env!("CARGO_MANIFEST_DIR"), "modswarm share"),
        ] {
            let failure = checked(target).unwrap_err();
            assert_eq!(failure.kind, FailureKind::Usage);
            let text = format!("{}; {}", failure.message, failure.help.unwrap());
            assert!(text.contains(word), "{target}: {text}");
        }
        let cid = "bafkr4iefvsx6zgce5mqexsib4dgcf4qyo26hvcymjv5ffui3gek7sdd3pm";
        assert_eq!(
            checked(&format!(" modswarm:{cid} \n")).unwrap(),
            format!("modswarm:{cid}")
        );
    }
}
