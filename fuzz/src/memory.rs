//! How much memory a decoder asks for, measured.

use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Runs `work` and asserts that it never held more than `limit` bytes beyond what was held
/// before. One at a time in a process: the count knows no threads.
///
/// # Panics
/// If it held more: bytes from outside must not choose how much memory they take (design §10).
pub(crate) fn within<T>(limit: usize, work: impl FnOnce() -> T) -> T {
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let result = work();
    let grown = HEAP.peak_usage().saturating_sub(before);
    assert!(grown <= limit, "{grown} bytes were held where {limit} is the bound");
    result
}
