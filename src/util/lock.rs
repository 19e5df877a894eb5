//! A small lock for short critical sections inside this crate. It blocks the thread, never the goroutine.
//!
//! - L1: nothing parks, calls user code, or wakes anybody while it holds a `Lock` (P4 and P6 of ARCHITECTURE.md). So the
//!   holder can be delayed only by the kernel, and the wait is short.
//! - L2: the word is 0 (free), 1 (held) or 2 (held, and somebody may sleep on it). Whoever slept sets 2 when it takes the
//!   lock, since others may sleep still; only a release that finds 2 makes a system call.
//!
//! Under contention a locker first backs off without looking, then sleeps on a futex: a preempted holder or a real-time
//! waiter can delay the others but not livelock them. Under `loom` the lock is loom's own.

#[cfg(not(loom))]
pub(crate) use native::{Guard, Lock};

#[cfg(loom)]
pub(crate) use model::{Guard, Lock};

#[cfg(not(loom))]
mod native {
    use std::{
        cell::UnsafeCell,
        fmt,
        ops::{Deref, DerefMut},
        sync::atomic::{
            AtomicU32,
            Ordering::{Acquire, Relaxed, Release},
        },
    };

    use crate::util::backoff::Backoff;

    const FREE: u32 = 0;
    const HELD: u32 = 1;
    const SLEEPERS: u32 = 2;

    /// See the module.
    pub(crate) struct Lock<T: ?Sized> {
        word: AtomicU32,
        value: UnsafeCell<T>,
    }

    // SAFETY: the lock hands out one `&mut T` at a time, so sharing it needs no more than sending `T`.
    unsafe impl<T: ?Sized + Send> Send for Lock<T> {}
    // SAFETY: as above.
    unsafe impl<T: ?Sized + Send> Sync for Lock<T> {}

    // A panic cannot leave the value half changed: the code under the lock is ours and does not panic there (L1).
    impl<T: ?Sized> std::panic::UnwindSafe for Lock<T> {}
    impl<T: ?Sized> std::panic::RefUnwindSafe for Lock<T> {}

    impl<T> Lock<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self { word: AtomicU32::new(FREE), value: UnsafeCell::new(value) }
        }
    }

    impl<T: ?Sized> Lock<T> {
        #[inline]
        pub(crate) fn lock(&self) -> Guard<'_, T> {
            // ORDERING: Acquire. Takes over what the last holder wrote; pairs with the Release in `Guard::drop`.
            if self.word.compare_exchange(FREE, HELD, Acquire, Relaxed).is_err() {
                self.lock_slow();
            }
            Guard { lock: self }
        }

        #[cold]
        fn lock_slow(&self) {
            let mut backoff = Backoff::new();
            while backoff.pause() {
                // ORDERING: Acquire, as in `lock`.
                if self.word.compare_exchange(FREE, HELD, Acquire, Relaxed).is_ok() {
                    return;
                }
            }
            // ORDERING: Acquire, as in `lock`. The swap announces a sleeper (L2).
            while self.word.swap(SLEEPERS, Acquire) != FREE {
                super::sleep::wait(&self.word, SLEEPERS);
            }
        }

        /// Takes the lock without a guard, for locks that are held in sets (`select`).
        #[inline]
        pub(crate) fn lock_raw(&self) {
            std::mem::forget(self.lock());
        }

        /// Lets go of a lock taken with `lock_raw`.
        ///
        /// # Safety
        ///
        /// The caller holds it.
        #[inline]
        pub(crate) unsafe fn unlock_raw(&self) {
            drop(Guard { lock: self });
        }

        /// What the lock guards, while it is held with `lock_raw`.
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
            // ORDERING: Release. Publishes what was written under the lock; pairs with the Acquires in `lock`.
            if self.lock.word.swap(FREE, Release) == SLEEPERS {
                super::sleep::wake_one(&self.lock.word);
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
    use std::{
        cell::UnsafeCell,
        fmt,
        ops::{Deref, DerefMut},
    };

    /// loom's mutex behind the interface of the native lock.
    pub(crate) struct Lock<T> {
        mutex: loom::sync::Mutex<()>,
        value: UnsafeCell<T>,
        /// The guard of a lock taken with `lock_raw`; only the holder looks here.
        held: UnsafeCell<Option<loom::sync::MutexGuard<'static, ()>>>,
    }

    // SAFETY: as for the native lock.
    unsafe impl<T: Send> Send for Lock<T> {}
    // SAFETY: as for the native lock.
    unsafe impl<T: Send> Sync for Lock<T> {}

    impl<T> fmt::Debug for Lock<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Lock").finish_non_exhaustive()
        }
    }

    impl<T> Lock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self { mutex: loom::sync::Mutex::new(()), value: UnsafeCell::new(value), held: UnsafeCell::new(None) }
        }

        pub(crate) fn lock(&self) -> Guard<'_, T> {
            Guard { _guard: self.mutex.lock().expect("no holder of a model lock panics"), lock: self }
        }

        pub(crate) fn lock_raw(&self) {
            let guard = self.mutex.lock().expect("no holder of a model lock panics");
            // SAFETY: the guard is dropped in `unlock_raw`, before the lock is.
            let guard = unsafe {
                std::mem::transmute::<loom::sync::MutexGuard<'_, ()>, loom::sync::MutexGuard<'static, ()>>(guard)
            };
            // SAFETY: only the holder looks here.
            unsafe { *self.held.get() = Some(guard) };
        }

        pub(crate) unsafe fn unlock_raw(&self) {
            // SAFETY: only the holder looks here.
            let guard = unsafe { (*self.held.get()).take() };
            drop(guard);
        }

        pub(crate) unsafe fn with_raw<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
            // SAFETY: the caller holds the lock.
            f(unsafe { &mut *self.value.get() })
        }
    }

    pub(crate) struct Guard<'a, T> {
        _guard: loom::sync::MutexGuard<'a, ()>,
        lock: &'a Lock<T>,
    }

    impl<T> Deref for Guard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            // SAFETY: the guard holds the lock.
            unsafe { &*self.lock.value.get() }
        }
    }

    impl<T> DerefMut for Guard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            // SAFETY: the guard holds the lock.
            unsafe { &mut *self.lock.value.get() }
        }
    }
}
