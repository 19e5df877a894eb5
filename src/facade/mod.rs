//! Atomics, cells, locks, threads and what is set once: the standard library's, or `loom`'s under `cfg(loom)`.
//!
//! Every module whose protocol is model-checked takes these from here and from nowhere else, so that one source text is
//! both what runs and what is checked.

#[cfg(loom)]
pub(crate) use loom::{
    hint,
    sync::{
        Condvar, Mutex,
        atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
    },
    thread,
};
#[cfg(loom)]
pub(crate) use model::{OnceLock, TimedCondvar};
#[cfg(all(not(loom), not(target_os = "linux")))]
pub(crate) use std::sync::Condvar;
#[cfg(not(loom))]
pub(crate) use std::sync::{Condvar as TimedCondvar, Mutex, OnceLock};
#[cfg(not(loom))]
pub(crate) use std::{
    hint,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};

#[cfg(loom)]
mod model {
    use std::{
        sync::{LockResult, atomic::AtomicBool as Unseen},
        time::Duration,
    };

    use loom::sync::MutexGuard;

    use super::{
        AtomicBool, AtomicUsize, Condvar, Mutex,
        Ordering::{AcqRel, Acquire, Relaxed},
    };

    /// The standard library's, where a wait may have a time limit. No time passes until the model says so; then all that is left passes at once.
    pub(crate) struct TimedCondvar {
        changed: Condvar,
        /// Changed and looked at under the mutex.
        is_late: Unseen,
    }

    pub(crate) struct TimedOut(bool);

    impl TimedCondvar {
        pub(crate) fn new() -> Self {
            Self { changed: Condvar::new(), is_late: Unseen::new(false) }
        }

        pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
            self.changed.wait(guard)
        }

        pub(crate) fn wait_timeout<'a, T>(
            &self,
            guard: MutexGuard<'a, T>,
            _limit: Duration,
        ) -> LockResult<(MutexGuard<'a, T>, TimedOut)> {
            let is_late = || self.is_late.load(std::sync::atomic::Ordering::Relaxed);
            let guard = if is_late() { guard } else { self.changed.wait(guard).unwrap() };
            Ok((guard, TimedOut(is_late())))
        }

        pub(crate) fn notify_one(&self) {
            self.changed.notify_one();
        }

        /// Lets all time limits pass, those to come too. `mutex` is what the waits let go of.
        pub(crate) fn let_time_pass<T>(&self, mutex: &Mutex<T>) {
            let held = mutex.lock().unwrap();
            self.is_late.store(true, std::sync::atomic::Ordering::Relaxed);
            drop(held);
            self.changed.notify_all();
        }
    }

    impl TimedOut {
        pub(crate) fn timed_out(&self) -> bool {
            self.0
        }
    }

    /// The standard library's, of which loom knows when it is set. Whoever looks comes before that or after it, and may find nothing after it
    /// as well, where nothing else says that it was before.
    pub(crate) struct OnceLock<T> {
        /// Changed at each look, and publishes nothing. Of a word that two have read, and one of them then writes, loom sees no race of the write
        /// with the other one's read.
        looks: AtomicUsize,
        set: AtomicBool,
        value: std::sync::OnceLock<T>,
    }

    impl<T> OnceLock<T> {
        pub(crate) fn new() -> Self {
            Self { looks: AtomicUsize::new(0), set: AtomicBool::new(false), value: std::sync::OnceLock::new() }
        }

        pub(crate) fn get(&self) -> Option<&T> {
            // ORDERING: Relaxed, here and below. It publishes nothing.
            self.looks.fetch_add(1, Relaxed);
            // ORDERING: Acquire. What was before the value was set comes before; pairs with the AcqRel in `get_or_init`.
            if self.set.load(Acquire) { self.value.get() } else { None }
        }

        /// `init` does nothing of which loom knows, so that this is one step.
        pub(crate) fn get_or_init(&self, init: impl FnOnce() -> T) -> &T {
            self.looks.fetch_add(1, Relaxed);
            // ORDERING: AcqRel. Pairs with itself and with the Acquire in `get`.
            self.set.swap(true, AcqRel);
            self.value.get_or_init(init)
        }
    }
}
