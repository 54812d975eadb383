#![no_main]

#[global_allocator]
static MEMORY: modswarm_fuzz::memory::Counting = modswarm_fuzz::memory::Counting;

libfuzzer_sys::fuzz_target!(|data: &[u8]| modswarm_fuzz::choice::run(data));
