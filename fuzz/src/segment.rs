//! A file of the home with blocks that were copied.

use super::memory;

pub fn run(data: &[u8]) {
    memory::within(32 * data.len() + 16 * 1024, || modswarm_store::fuzzing::segment(data));
}
