//! The plain file in a home that says which of a pack's files are at a place.

use super::memory;

pub fn run(data: &[u8]) {
    // A bit for each file of the largest content that there may be, and a number for each that it names.
    memory::within(32 * data.len() + 9 * 1024 * 1024, || {
        modswarm_store::fuzzing::choice(data)
    });
}
