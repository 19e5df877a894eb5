//! Time: sleeping, timers, tickers and functions that run later.
//!
//! The semantics are those of Go 1.23 and later: after [`Timer::stop`] or [`Timer::reset`] returns, no stale value can be received, and what
//! they return is true in every race.
//!
//! | Go | here |
//! |---|---|
//! | `time.Sleep(d)` | [`sleep(d)`](sleep) |
//! | `time.After(d)`, `time.Tick(d)` | [`after(d)`](after), [`tick(d)`](tick) |
//! | `time.NewTimer(d)`, `t.C` | [`Timer::new(d)`](Timer::new), [`t.receiver()`](Timer::receiver) |
//! | `time.NewTicker(d)` | [`Ticker::new(d)`](Ticker::new) |
//! | `time.AfterFunc(d, f)` | [`after_func(d, f)`](after_func()) |
//! | `time.Now()` | [`now()`](now), which knows of bubbles ([`synctest`](crate::synctest)); else `Instant::now()` |
#![forbid(unsafe_code)]

#[cfg(not(loom))]
mod after_func;
mod timer;

#[doc(no_inline)]
pub use std::time::{Duration, Instant};

#[cfg(not(loom))]
pub use self::after_func::{AfterFunc, after_func};
pub use self::timer::{Ticker, Timer};
pub use crate::chan::{after, at, tick};
use crate::{
    chan::{Receiver, RecvTimeoutError},
    runtime::{park, present, wait::Reason},
};

/// Receives a value, waiting for `duration` at most: the most frequent `select!` over a receiver and [`after`].
///
/// The same as [`rx.recv_timeout(duration)`](Receiver::recv_timeout). To wait for a goroutine's result with a limit, use
/// [`JoinHandle::join_timeout`](crate::JoinHandle::join_timeout).
///
/// # Examples
///
/// ```
/// use oxigo::time::timeout;
/// use std::time::Duration;
///
/// let (tx, rx) = oxigo::bounded(1);
/// oxigo::go(move || tx.send(6 * 7));
/// assert_eq!(timeout(Duration::from_secs(60), &rx), Ok(42));
///
/// let (_tx, silent) = oxigo::unbuffered::<()>();
/// assert!(timeout(Duration::from_millis(1), &silent).unwrap_err().is_timeout());
/// ```
///
/// # Errors
///
/// `Timeout` when the time has passed, `Disconnected` when the channel is closed and empty.
///
/// # Blocking
///
/// Parks the goroutine, or blocks the thread.
pub fn timeout<T>(duration: Duration, receiver: &Receiver<T>) -> Result<T, RecvTimeoutError> {
    receiver.recv_timeout(duration)
}

/// The time now: as [`Instant::now`], but in a bubble of [`synctest`](crate::synctest) the bubble's time.
///
/// Code that is to be tested in a bubble uses this in place of `Instant::now`.
///
/// # Examples
///
/// ```
/// use oxigo::{synctest, time};
/// use std::time::Duration;
///
/// const DAY: Duration = Duration::from_secs(24 * 3600);
///
/// synctest::test(|| {
///     let begin = time::now();
///     time::sleep(DAY);
///     assert_eq!(time::now() - begin, DAY);
/// });
/// ```
///
/// # Blocking
///
/// Never parks.
#[inline]
pub fn now() -> Instant {
    present::now()
}

/// Waits for `duration`, and never less. On Linux it takes some 0.1 ms longer if the worker has nothing else to do, and up to a millisecond or more
/// if it has, since a worker that always has a goroutine to run looks at its timers once a millisecond.
///
/// With a duration of zero it returns at once; like any operation that did not have to wait, it yields when the goroutine's slice is used up. A
/// duration that is too long for the clock means for ever.
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
        return park::spend();
    }
    match present::after(duration) {
        Some(deadline) => sleep_until(deadline),
        None => park::current().park(Reason::Sleep.alone()),
    }
}

/// Waits until `deadline`; returns at once if it has passed.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, Instant};
///
/// let deadline = Instant::now() + Duration::from_millis(2);
/// oxigo::time::sleep_until(deadline);
/// assert!(Instant::now() >= deadline);
/// ```
///
/// # Blocking
///
/// Parks the goroutine, or blocks the thread.
pub fn sleep_until(deadline: Instant) {
    if deadline <= present::now() {
        return park::spend();
    }
    let unit = park::current();
    let ticket = unit.arm();
    // Nobody else knows the ticket, so only the clock ends this wait.
    let _ = unit.park_until(ticket, Some(deadline), Reason::Sleep.alone());
}
