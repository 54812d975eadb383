//! The C library's heap.

/// Gives back to the system what the heap holds and nobody uses. What a large skeleton was read with leaves much of it, in small pieces between others.
pub(super) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it may be called at any time, by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
