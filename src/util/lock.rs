//! A small lock for short critical sections inside this crate. It blocks the thread, never the goroutine.
//!
//! - L1: nothing parks, calls user code, or wakes anybody while it holds a `Lock` (P4 and P6 of ARCHITECTURE.md). So the
//!   holder can be delayed only by the kernel, and the wait is short.
//! - L2: the word is 0 (free), 1 (held) or 2 (held, and somebody may sleep on it). Whoever slept sets 2 when it takes the
//!   lock, since others may sleep still; only a release that finds 2 makes a system call.
//!
//! Under contention a locker first backs off without looking, then sleeps on a futex: a preempted holder or a real-time
//! waiter can delay the others but not livelock them. Under `loom` the word is loom's own mutex.

use std::{
    cell::UnsafeCell,
    fmt,
    ops::{Deref, DerefMut},
};

#[cfg(loom)]
pub(crate) use model::RawLock;
#[cfg(not(loom))]
pub(crate) use native::RawLock;

/// See the module.
pub(crate) struct Lock<T: ?Sized> {
    raw: RawLock,
    value: UnsafeCell<T>,
}

// SAFETY: the lock hands out one `&mut T` at a time, so sharing it needs no more than sending `T`.
unsafe impl<T: ?Sized + Send> Send for Lock<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    #[cfg(not(loom))]
    pub(crate) const fn new(value: T) -> Self {
        Self { raw: RawLock::new(), value: UnsafeCell::new(value) }
    }

    #[cfg(loom)]
    pub(crate) fn new(value: T) -> Self {
        Self { raw: RawLock::new(), value: UnsafeCell::new(value) }
    }
}

impl<T: ?Sized> Lock<T> {
    #[inline]
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        self.raw.lock();
        Guard { lock: self }
    }

    /// The lock without what it guards, for those that are held in sets (`select`).
    #[inline]
    pub(crate) fn raw(&self) -> &RawLock {
        &self.raw
    }

    /// What the lock guards, while its raw part is held.
    ///
    /// # Safety
    ///
    /// The caller holds it, and `f` does not come back here.
    #[inline]
    pub(crate) unsafe fn with_raw<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: by the caller there is no other reference.
        f(unsafe { &mut *self.value.get() })
    }
}

impl<T: ?Sized> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").finish_non_exhaustive()
    }
}

/// Holds a [`Lock`] until it is dropped.
pub(crate) struct Guard<'a, T: ?Sized> {
    lock: &'a Lock<T>,
}

impl<T: ?Sized> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: a guard exists only while its thread holds the lock, so no other reference is used.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; `&mut self` excludes other uses of this guard.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the guard's thread holds it.
        unsafe { self.lock.raw.unlock() };
    }
}

#[cfg(not(loom))]
mod native {
    use std::sync::atomic::{
        AtomicU32,
        Ordering::{Acquire, Relaxed, Release},
    };

    use crate::util::backoff::Backoff;

    const FREE: u32 = 0;
    const HELD: u32 = 1;
    const SLEEPERS: u32 = 2;

    /// The lock's word (L2).
    pub(crate) struct RawLock(AtomicU32);

    impl RawLock {
        pub(super) const fn new() -> Self {
            Self(AtomicU32::new(FREE))
        }

        /// By which locks that are held in sets are ordered; never zero.
        #[inline]
        pub(crate) fn address(&self) -> usize {
            std::ptr::from_ref(self).addr()
        }

        #[inline]
        pub(crate) fn lock(&self) {
            // ORDERING: Acquire. Takes over what the last holder wrote; pairs with the Release in `unlock`.
            if self.0.compare_exchange(FREE, HELD, Acquire, Relaxed).is_err() {
                self.lock_slow();
            }
        }

        #[cold]
        fn lock_slow(&self) {
            let mut backoff = Backoff::new();
            while backoff.pause() {
                // ORDERING: Acquire, as in `lock`.
                if self.0.compare_exchange(FREE, HELD, Acquire, Relaxed).is_ok() {
                    return;
                }
            }
            // ORDERING: Acquire, as in `lock`. The swap announces a sleeper (L2).
            while self.0.swap(SLEEPERS, Acquire) != FREE {
                super::sleep::wait(&self.0, SLEEPERS);
            }
        }

        /// # Safety
        ///
        /// The calling thread holds the lock.
        #[inline]
        pub(crate) unsafe fn unlock(&self) {
            // ORDERING: Release. Publishes what was written under the lock; pairs with the Acquires in `lock`.
            if self.0.swap(FREE, Release) == SLEEPERS {
                super::sleep::wake_one(&self.0);
            }
        }
    }
}

/// Sleeping on a word of memory.
#[cfg(not(loom))]
pub(crate) mod sleep {
    use std::sync::atomic::AtomicU32;

    /// Sleeps while `word` is `value`; may return for no reason.
    #[cfg(target_os = "linux")]
    #[cold]
    pub(crate) fn wait(word: &AtomicU32, value: u32) {
        use rustix::thread::futex;
        // An error means that the word had changed or a signal came; the caller looks again either way.
        let _ = futex::wait(word, futex::Flags::PRIVATE, value, None);
    }

    /// Wakes one thread that sleeps on `word`. The word may belong to somebody else by now: that costs a look, no more.
    #[cfg(target_os = "linux")]
    #[cold]
    pub(crate) fn wake_one(word: &AtomicU32) {
        use rustix::thread::futex;
        let _ = futex::wake(word, futex::Flags::PRIVATE, 1);
    }

    /// Portable stand-in: gives the processor away and lets the caller look again.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn wait(_word: &AtomicU32, _value: u32) {
        std::thread::sleep(std::time::Duration::from_micros(20));
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn wake_one(_word: &AtomicU32) {}
}

#[cfg(loom)]
mod model {
    use std::{cell::UnsafeCell, mem};

    use loom::sync::{Mutex, MutexGuard};

    /// loom's mutex as a bare lock.
    pub(crate) struct RawLock {
        mutex: Mutex<()>,
        /// The holder's guard; only the holder looks here.
        held: UnsafeCell<Option<MutexGuard<'static, ()>>>,
        /// Stands for the address, since a model must run the same way every time.
        id: usize,
    }

    impl RawLock {
        pub(super) fn new() -> Self {
            use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
            static NEXT: AtomicUsize = AtomicUsize::new(1);
            Self { mutex: Mutex::new(()), held: UnsafeCell::new(None), id: NEXT.fetch_add(1, Relaxed) }
        }

        pub(crate) fn address(&self) -> usize {
            self.id
        }

        pub(crate) fn lock(&self) {
            let guard = self.mutex.lock().expect("no holder of a model lock panics");
            // SAFETY: the guard is dropped in `unlock`, before the mutex is.
            let guard = unsafe { mem::transmute::<MutexGuard<'_, ()>, MutexGuard<'static, ()>>(guard) };
            // SAFETY: only the holder looks here.
            unsafe { *self.held.get() = Some(guard) };
        }

        pub(crate) unsafe fn unlock(&self) {
            // SAFETY: only the holder looks here.
            let guard = unsafe { (*self.held.get()).take() };
            drop(guard);
        }
    }
}
