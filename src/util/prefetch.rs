//! Cache lines asked for before they are needed.

/// Asks for the `lines` cache lines from `address` on, which will be touched before long. A hint: the address may be any.
#[inline]
pub(crate) fn fetch_lines<T>(address: *const T, lines: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..lines {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the instruction exists on every x86-64, and faults at no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast::<i8>().wrapping_add(line * 64)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (address, lines);
}
