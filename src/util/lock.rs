//! A small lock for short critical sections inside this crate. It blocks the thread, never the goroutine.
//!
//! - L1: nothing parks, calls user code, or wakes anybody while it holds a `Lock` (P4 and P6 of ARCHITECTURE.md). So the
//!   holder can be delayed only by the kernel, and the wait is short.
//! - L2: the word is FREE or HELD, and letting go is a plain store. Who waits never sleeps until it is woken but for a time, so the
//!   holder need not know of it.
//!
//! Under contention a locker first backs off without looking, then sleeps for a while, longer each time: a preempted holder or a
//! real-time waiter can delay the others but not livelock them. A lock that knows of its sleepers (a futex with three states) lets go
//! with an exchange, and that costs as much as taking the lock: a buffered channel took 25.7 ns a message with it and 17.5 with this.
//! Under `loom` the lock is loom's own mutex.

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
// A panic cannot leave the value half changed: the code under the lock is ours and does not panic there (L1).
impl<T: ?Sized> std::panic::UnwindSafe for Lock<T> {}
impl<T: ?Sized> std::panic::RefUnwindSafe for Lock<T> {}

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
    use std::{
        sync::atomic::{
            AtomicBool,
            Ordering::{Acquire, Relaxed, Release},
        },
        thread,
        time::Duration,
    };

    use crate::util::backoff::Backoff;

    /// The first and the longest sleep of a locker whose back-off has ended: the holder has lost its core.
    const NAP_FIRST: Duration = Duration::from_micros(20);
    const NAP_LAST: Duration = Duration::from_millis(1);

    /// The lock's word (L2): whether it is held.
    pub(crate) struct RawLock(AtomicBool);

    impl RawLock {
        pub(super) const fn new() -> Self {
            Self(AtomicBool::new(false))
        }

        /// By which locks that are held in sets are ordered; never zero.
        #[inline]
        pub(crate) fn address(&self) -> usize {
            std::ptr::from_ref(self).addr()
        }

        #[inline]
        pub(crate) fn lock(&self) {
            if !self.try_lock() {
                self.lock_slow();
            }
        }

        #[inline]
        fn try_lock(&self) -> bool {
            // ORDERING: Acquire. Takes over what the last holder wrote; pairs with the Release in `unlock`.
            self.0.compare_exchange(false, true, Acquire, Relaxed).is_ok()
        }

        #[cold]
        fn lock_slow(&self) {
            let mut backoff = Backoff::new();
            while backoff.pause() {
                if self.try_lock() {
                    return;
                }
            }
            let mut nap = NAP_FIRST;
            while !self.try_lock() {
                thread::sleep(nap);
                nap = (nap * 2).min(NAP_LAST);
            }
        }

        /// # Safety
        ///
        /// The calling thread holds the lock.
        #[inline]
        pub(crate) unsafe fn unlock(&self) {
            // ORDERING: Release. Publishes what was written under the lock; pairs with the Acquire in `try_lock`.
            self.0.store(false, Release);
        }
    }
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
