//! What time it is for the caller: everybody's, or, in a bubble, the bubble's own (T1 of [`bubble`](super::bubble)).
//!
//! All deadlines are made and compared by this clock. What the scheduler measures for itself, it measures by the real one.

use std::time::{Duration, Instant};

/// The time now.
#[inline]
pub(crate) fn now() -> Instant {
    #[cfg(not(loom))]
    if super::bubble::is_any()
        && let Some(bubble) = super::bubble::current()
    {
        return bubble.now();
    }
    Instant::now()
}

/// The time `after` from now; none if the clock cannot count to it.
#[inline]
pub(crate) fn after(after: Duration) -> Option<Instant> {
    now().checked_add(after)
}
