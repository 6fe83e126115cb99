//! The command line; everything else is in the library.

use std::process::ExitCode;

/// Heaps of glibc's allocator. It would make one for nearly every thread, and each keeps what its thread's
/// busiest moment took: over a race the resident memory then rises in steps, with nothing leaked.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

fn main() -> ExitCode {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "the allocator has no safe door")]
    // SAFETY: it sets a number of the allocator's, and there is no other thread yet. Where it fails nothing is changed.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
    trackside::cli::main()
}
