//! What is switched on of the things that the scheduler does only for those who look: one word, read once where it matters.
//!
//! - H1: a bit is set before anything depends on it. A hook that reads an old word does nothing, as if it had come a moment earlier.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Events are recorded ([`trace`](super::trace)).
pub(crate) const TRACE: u8 = 1;
/// Somebody has set labels, begun a leak check or asked for ancestors: goroutines inherit ([`heritage`](super::heritage)). Never unset.
pub(crate) const HERITAGE: u8 = 2;

static ON: AtomicU8 = AtomicU8::new(0);

/// Whether any of `bits` is set.
#[inline]
pub(crate) fn on(bits: u8) -> bool {
    // ORDERING: Relaxed. H1; whoever switches something on sees its own write, and so do the goroutines that it starts.
    ON.load(Relaxed) & bits != 0
}

pub(crate) fn switch_on(bits: u8) {
    // ORDERING: Relaxed, as above.
    ON.fetch_or(bits, Relaxed);
}

pub(crate) fn switch_off(bits: u8) {
    // ORDERING: Relaxed, as above.
    ON.fetch_and(!bits, Relaxed);
}
