//! Time: sleeping.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use crate::runtime::{park, wait::Reason};

/// Waits for `duration`, not less.
///
/// A duration of zero returns at once. One that the clock cannot count to waits for ever.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, Instant};
///
/// let start = Instant::now();
/// oxigo::time::sleep(Duration::from_millis(5));
/// assert!(start.elapsed() >= Duration::from_millis(5));
/// ```
///
/// # Blocking
///
/// Parks the goroutine, or blocks the thread.
pub fn sleep(duration: Duration) {
    if duration.is_zero() {
        return;
    }
    match Instant::now().checked_add(duration) {
        Some(deadline) => sleep_until(deadline),
        None => park::current().park(Reason::Sleep.alone()),
    }
}

/// Waits until `deadline` has come; returns at once when it has passed.
///
/// # Blocking
///
/// Parks the goroutine, or blocks the thread.
pub fn sleep_until(deadline: Instant) {
    if deadline <= Instant::now() {
        return;
    }
    let unit = park::current();
    let ticket = unit.arm();
    // Nobody else knows the ticket, so only the clock ends this wait.
    let _ = unit.park_until(ticket, Some(deadline), Reason::Sleep.alone());
}
