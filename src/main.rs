//! The command line.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    tune_the_heap();
    cli::main()
}

/// Lets all threads take memory from one heap. Blocks are taken in one thread and given back in another: with a heap for each thread, as the C library has it,
/// each keeps as much as ever was in it, and a large get takes half as much memory again, for no speed that could be measured.
///
/// What is as large as the lists of a large pack is taken from the system itself, and given back to it: in the heap it would leave room behind that only
/// something as large again fills.
fn tune_the_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it changes settings of the allocator, before there is another thread.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 4 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 16 << 20);
    }
}
