//! Tests in which time costs nothing: Go's `testing/synctest`.
//!
//! [`test`](test()) runs a function in a *bubble*: its goroutines have a clock of their own, which stands still while any of them runs, and jumps to
//! the next deadline when all of them wait. So a test of a time-out of an hour takes no time, and what it measures is exact. [`wait`] returns when
//! all other goroutines of the bubble wait, so that a test can look at what they have done without guessing how long that takes.
//!
//! ```
//! use oxigo::{go, synctest, time};
//! use std::{sync::{Arc, atomic::{AtomicU32, Ordering::SeqCst}}, time::Duration};
//!
//! const HOUR: Duration = Duration::from_secs(3600);
//!
//! synctest::test(|| {
//!     let beats = Arc::new(AtomicU32::new(0));
//!     let counted = beats.clone();
//!     go(move || {
//!         for _ in 0..12 {
//!             time::sleep(HOUR);
//!             counted.fetch_add(1, SeqCst);
//!         }
//!     });
//!     let begin = time::now();
//!     time::sleep(12 * HOUR);
//!     synctest::wait(); // whoever is due at the same time has had its turn
//!     assert_eq!(beats.load(SeqCst), 12);
//!     assert_eq!(time::now() - begin, 12 * HOUR);
//! }); // returns when all goroutines of the bubble have ended
//! ```
//!
//! # What is part of a bubble
//!
//! The goroutines that are started in it, and those that these start, also later by [`after_func`](crate::time::after_func()) or a context. They run
//! on one worker of their own, so that no two things in a bubble happen at the same time; what is due at one time happens in random order. All times
//! of this crate are the bubble's there: sleeps, timers, tickers, deadlines and time limits. [`time::now`](crate::time::now) returns the bubble's
//! time; `Instant::now` and `SystemTime` of the standard library return real time.
//!
//! # What counts as waiting
//!
//! - For channels, `select!`, locks, wait groups, joins, timers, pipes in memory ([`net::pipe`](crate::net::pipe())): time may move on.
//! - For sockets, host names, the system's pipes, processes, [`blocking`](crate::blocking) and [futures](crate::future): time stands still. These
//!   waits are ended by somebody outside, in real time.
//!
//! Channels, locks and wait groups carry no mark of their bubble, as Go's do. So a goroutine that waits for a channel which somebody outside is going
//! to use counts as waiting for the bubble, and time moves on past it: receive inside [`blocking`](crate::blocking) there. While a goroutine waits
//! for a lock, time moves on only after 10 ms of real time, so that locks which others use too, such as that of a cache of the program, disturb
//! nothing.
//!
//! | Go | here |
//! |---|---|
//! | `synctest.Test(t, f)` | [`test(f)`](test()) |
//! | `synctest.Wait()` | [`wait()`](wait) |
//! | `synctest.Sleep(d)` | [`sleep(d)`](sleep) |
//! | `time.Now()` | [`time::now()`](crate::time::now) |
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::{
    Builder, Runtime,
    debug::dump,
    runtime::{
        bubble::{self, Bubble, Stuck},
        panics,
    },
};

/// Runs `f` in a bubble of its own, and returns its value when `f` and all goroutines that were started in the bubble have ended.
///
/// When `f` has ended, time stands still for good: what others still wait for, such as the next tick of a [`Ticker`](crate::time::Ticker), never
/// comes, and this panics with a list of those that wait. So let `f` end what it has started, for instance by a context.
///
/// # Examples
///
/// ```
/// use oxigo::{context::Context, synctest, time};
/// use std::time::Duration;
///
/// let late = synctest::test(|| {
///     let (ctx, _cancel) = Context::background().with_timeout(Duration::from_secs(3600));
///     let begin = time::now();
///     ctx.done().recv().unwrap_err(); // closed, an hour later
///     time::now() - begin
/// });
/// assert_eq!(late, Duration::from_secs(3600));
/// ```
///
/// Goroutines that wait for each other do not hang the test: it panics, with a dump of them:
///
/// ```should_panic
/// oxigo::synctest::test(|| {
///     let (_keep, silent) = oxigo::unbuffered::<()>();
///     let _ = silent.recv();
/// });
/// ```
///
/// # Panics
///
/// - Resumes a panic of `f`, when the others have ended or wait for ever. A panic of another goroutine is printed, and has no other effect unless
///   somebody receives it, by `join` or the wait of a group or a scope.
/// - When all goroutines of the bubble wait for each other, and nothing is due. They are leaked, with the thread of their worker.
/// - When `f` has ended and others go on waiting for each other or for time to pass.
/// - When called inside a bubble, and when the system refuses a thread or a descriptor.
///
/// # Blocking
///
/// Blocks the thread; parks a goroutine.
#[track_caller]
pub fn test<F, T>(f: F) -> T
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    assert!(
        bubble::current().is_none(),
        "synctest::test is called inside of a bubble: a bubble cannot be in another one"
    );
    let runtime = match Runtime::of_bubble(Bubble::new()) {
        Ok(runtime) => runtime,
        Err(error) => panic!("cannot make a bubble: {error}"),
    };
    let conduct = || {
        let first = Builder::new().name("bubble".into()).spawn(f)?;
        let bubble = bubble::current().expect("the runtime is a bubble's");
        Ok((bubble.conduct(&first), first))
    };
    let conducted: std::io::Result<_> = runtime.run(conduct);
    let (end, first) = match conducted {
        Ok(conducted) => conducted,
        Err(error) => panic!("cannot start the first goroutine of a bubble: {error}"),
    };
    let what = match end {
        Ok(()) => return first.join().unwrap_or_else(|payload| panics::resume(payload)),
        Err(Stuck::All) => "deadlock: all goroutines of the bubble wait for each other",
        Err(Stuck::Left) => "deadlock: the first goroutine of the bubble has ended, and others wait for ever",
    };
    if first.is_finished()
        && let Err(payload) = first.join()
    {
        panics::resume(payload);
    }
    panic!("{what}\n\n{}", dump::gather(std::slice::from_ref(runtime.shared())));
}

/// Waits until all other goroutines of the bubble wait, or have ended. Time does not move meanwhile.
///
/// The caller sees everything that they have done until then.
///
/// # Examples
///
/// ```
/// use oxigo::{go, synctest, unbuffered};
/// use std::sync::{Arc, atomic::{AtomicBool, Ordering::Relaxed}};
///
/// synctest::test(|| {
///     let (tx, rx) = unbuffered::<()>();
///     let received = Arc::new(AtomicBool::new(false));
///     let tell = received.clone();
///     go(move || {
///         rx.recv().unwrap();
///         tell.store(true, Relaxed);
///     });
///     synctest::wait();
///     assert!(!received.load(Relaxed)); // it waits in `recv`
///     tx.send(()).unwrap();
///     synctest::wait();
///     assert!(received.load(Relaxed));
/// });
/// ```
///
/// # Panics
///
/// When called outside a bubble, and while another goroutine of the bubble is in this function.
///
/// # Blocking
///
/// Parks the goroutine.
#[track_caller]
pub fn wait() {
    let Some(bubble) = bubble::current() else {
        panic!("synctest::wait is called outside of a bubble: call it in what synctest::test runs");
    };
    bubble.settle();
}

/// Sleeps for `duration` of the bubble's time, then does what [`wait`] does: afterwards all that is due by then has happened.
///
/// # Examples
///
/// ```
/// use oxigo::{synctest, time};
/// use std::{sync::{Arc, atomic::{AtomicU32, Ordering::Relaxed}}, time::Duration};
///
/// synctest::test(|| {
///     let calls = Arc::new(AtomicU32::new(0));
///     let counted = calls.clone();
///     time::after_func(Duration::from_secs(1), move || {
///         counted.fetch_add(1, Relaxed);
///     });
///     synctest::sleep(Duration::from_secs(1));
///     assert_eq!(calls.load(Relaxed), 1);
/// });
/// ```
///
/// # Panics
///
/// As [`wait`].
///
/// # Blocking
///
/// Parks the goroutine.
#[track_caller]
pub fn sleep(duration: Duration) {
    crate::time::sleep(duration);
    wait();
}
