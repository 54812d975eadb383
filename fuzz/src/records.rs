//! Rows of the index, with any values in their columns: see [`modswarm_store::fuzzing::records`].

use super::memory;

pub fn run(data: &[u8]) {
    // The largest content that there may be is a bit set of two megabytes, of which a few are held at once. SQLite's own memory is not counted.
    memory::within(64 * data.len() + (16 << 20), || modswarm_store::fuzzing::records(data));
}
