//! The command line.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    use_one_heap();
    cli::main()
}

/// Lets all threads take memory from one heap. Blocks are taken in one thread and given back in another: with a heap for each thread, as the C library has it,
/// each keeps as much as ever was in it, and a large get takes half as much memory again, for no speed that could be measured.
fn use_one_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it changes a setting of the allocator, before there is another thread.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
