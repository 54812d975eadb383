//! The plain file in a home that says where a pack lies.

use super::memory;

pub fn run(data: &[u8]) {
    memory::within(32 * data.len() + 16 * 1024, || modswarm_store::fuzzing::place(data));
}
