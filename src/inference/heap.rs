//! The allocator, once models run: what a run needs stays in the heap for the next one.
//!
//! The program has glibc give each buffer of more than 128 KiB back to the kernel, so that those of the journal leave
//! no holes in the heap. A run of a model takes many of that size, and fresh pages cost it as much as its arithmetic.

#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
pub(super) fn keep_buffers() {
    /// What is no larger (bytes) stays in the heap: every buffer of a run for 20 cars.
    const KEPT: libc::c_int = 2 * 1024 * 1024;
    /// Free memory at the heap's end (bytes) above which it is given back.
    const SPARE: libc::c_int = 8 * 1024 * 1024;
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // SAFETY: it sets two numbers of the allocator's under the lock of its main heap; `free` sets the same two,
        // with no lock, wherever a program leaves them alone. Where it fails nothing is changed.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT);
            libc::mallopt(libc::M_TRIM_THRESHOLD, SPARE);
        }
    });
}

#[cfg(not(target_env = "gnu"))]
pub(super) fn keep_buffers() {}
