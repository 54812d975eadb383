//! What is fuzzed: one module a target, each a plain function over bytes that panics where a property does not hold.
//!
//! The functions have two callers. `fuzz_targets/` hands them to libFuzzer, for as long as one likes; `store/tests/fuzz` takes these very files in, and
//! replays the kept corpora and a bounded number of mutations of them, with a seed that it prints, wherever `cargo test` runs.
//!
//! Properties go beyond *no panic*: what is decoded and encoded again is the same, memory stays within a small multiple of the input, what is accepted is
//! safe to put on a disk, and errors are safe to show on a terminal.
#![allow(unreachable_pub, dead_code, reason = "taken in as a module by the short run")]

pub mod block;
pub mod choice;
pub mod engine;
pub mod guard;
pub mod home;
pub mod input;
pub mod link;
pub mod manifest;
pub mod memory;
pub mod place;
pub mod records;
pub mod seeds;
pub mod segment;
pub mod skeleton;
pub mod wire;

/// A target's name, which is also that of its corpus, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 11] = [
    ("block", block::run),
    ("skeleton", skeleton::run),
    ("manifest", manifest::run),
    ("link", link::run),
    ("wire", wire::run),
    ("engine", engine::run),
    ("records", records::run),
    ("place", place::run),
    ("choice", choice::run),
    ("segment", segment::run),
    ("home", home::run),
];

/// An error goes to terminals and logs: it must be short beside its cause, and must not carry control characters there.
#[track_caller]
pub fn assert_presentable(error: &dyn std::error::Error, input_len: usize) {
    let mut at: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = at {
        let text = error.to_string();
        assert!(
            !text.is_empty() && text.len() <= 1000 + 12 * input_len,
            "{} bytes",
            text.len()
        );
        let control = text.chars().find(|c| c.is_control());
        assert_eq!(control, None, "in {text:?}");
        at = error.source();
    }
}
