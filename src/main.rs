//! The command line; everything else is in the library.

use std::process::ExitCode;

/// Heaps of glibc's allocator. It would make one for nearly every thread, and each keeps what its thread's
/// busiest moment took.
#[cfg(target_env = "gnu")]
const HEAPS: libc::c_int = 2;
/// What is larger (bytes) is given back to the kernel once it is free. Left alone, glibc raises this to 32 MiB, and
/// the buffers of a journal's blocks leave holes in the heap.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 128 * 1024;

fn main() -> ExitCode {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "the allocator has no safe door")]
    // SAFETY: it sets numbers of the allocator's, and there is no other thread yet. Where it fails nothing is changed.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, HEAPS);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
    trackside::cli::main()
}
