//! What others prepare or plant to make a get write where it must not, lose what the user has, or break the home: each is refused with words that say what to
//! do, and leaves everything as it was.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

#[path = "../common/mod.rs"]
mod common;

mod homes;
#[cfg(unix)]
mod planted;
#[cfg(unix)]
mod staging;
mod trees;

use std::error::Error;

/// An error as a user would read it, with its causes.
fn words(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Asserts that an error says each of `parts`, and something that the user can do.
#[track_caller]
fn assert_helps(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
    const REMEDIES: &[&str] = &[
        "remove",
        "move",
        "delete",
        "choose",
        "ask for",
        "make room",
        "free",
        "update",
        "rename",
        "rebuild",
        "share it",
        "--only",
        "get ",
        "in several packs",
        "name a folder",
    ];
    assert!(
        REMEDIES.iter().any(|remedy| text.contains(remedy)),
        "what is to be done? {text}"
    );
}
