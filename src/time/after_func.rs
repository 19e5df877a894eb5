//! `after_func`: a function that runs later, in a goroutine of its own.

use std::{
    fmt,
    panic::{RefUnwindSafe, UnwindSafe},
    time::Duration,
};

use crate::{
    context::Registration,
    runtime::{
        alarm::{self, Alarm, HomeRuntime},
        fork,
    },
};

/// Starts `f` in a goroutine of its own after `duration`; Go's `time.AfterFunc`.
///
/// It runs on the runtime of the caller, or on the default one. A function that takes long does not delay other timers. Dropping the handle does not
/// stop the function; [`AfterFunc::stop`] does. If that runtime has been dropped when the time has come, or has no stack left, the function is
/// dropped without having run; in the latter case standard error tells which limit was reached. With a duration of zero it starts at once, as with
/// [`go`](crate::go()), and cannot be stopped.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, Instant};
///
/// let (tx, rx) = oxigo::bounded(1);
/// let start = Instant::now();
/// oxigo::time::after_func(Duration::from_millis(3), move || tx.send("now").unwrap());
/// assert_eq!(rx.recv(), Ok("now"));
/// assert!(start.elapsed() >= Duration::from_millis(3));
///
/// let never = oxigo::time::after_func(Duration::from_secs(3600), || unreachable!());
/// assert!(never.stop());
/// ```
///
/// # Panics
///
/// When the thread that keeps the deadlines, or the default runtime, cannot be started.
///
/// # Blocking
///
/// Never parks.
pub fn after_func<F>(duration: Duration, f: F) -> AfterFunc
where
    F: FnOnce() + Send + 'static,
{
    let home = HomeRuntime::here();
    if duration.is_zero() {
        // By way of the alarm thread it would be a wake of that thread, and one of a worker by it.
        fork::check();
        home.go(f);
        return AfterFunc(Kind::Started);
    }
    AfterFunc(Kind::Alarm(Alarm::set(alarm::deadline(duration), move || home.go(f))))
}

/// A function that runs later: made by [`after_func`] and by [`Context::after_func`](crate::context::Context::after_func).
///
/// Dropping it does not stop the function.
pub struct AfterFunc(Kind);

enum Kind {
    Started,
    Alarm(Alarm),
    Context(Registration),
}

// Stopping is one step, and the function is run by nobody who holds this.
impl UnwindSafe for AfterFunc {}
impl RefUnwindSafe for AfterFunc {}

impl AfterFunc {
    pub(crate) fn of_context(registration: Registration) -> Self {
        Self(Kind::Context(registration))
    }

    /// Keeps the function from running. Returns true if it has done so, and false if the function has been started or stopped before.
    ///
    /// If this returns true, the function never runs, and has been dropped. If false, it may still be running: this does not wait for it.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn stop(&self) -> bool {
        match &self.0 {
            Kind::Started => false,
            Kind::Alarm(alarm) => alarm.cancel(),
            Kind::Context(registration) => registration.remove(),
        }
    }
}

impl fmt::Debug for AfterFunc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("AfterFunc { .. }")
    }
}
