//! A small lock for short critical sections inside this crate. It blocks the thread, never the goroutine.
//!
//! - L1: nothing parks, calls user code, or wakes anybody while it holds a `Lock` (P4 and P6 of ARCHITECTURE.md). So the
//!   holder can be delayed only by the kernel, and the wait is short.
//! - L2: the word is FREE or HELD, and letting go is a plain store. Who waits never sleeps until it is woken but for a time, so the
//!   holder need not know of it.
//!
//! [`BiasedLock`] is the same with another word, see [`biased`](super::biased).
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

#[cfg(not(loom))]
pub(crate) use super::biased::RawBiased;
#[cfg(loom)]
pub(crate) use model::RawLock;
#[cfg(loom)]
pub(crate) use model::RawLock as RawBiased;
#[cfg(not(loom))]
pub(crate) use native::RawLock;

/// The bare lock in a [`Lock`].
///
/// # Safety
///
/// One thread at a time is between `lock` and `unlock`, and what it wrote is seen by the next.
pub(crate) unsafe trait Raw {
    fn lock(&self);

    /// # Safety
    ///
    /// The calling thread holds the lock.
    unsafe fn unlock(&self);
}

/// See the module.
pub(crate) struct Lock<T: ?Sized, R: Raw = RawLock> {
    raw: R,
    value: UnsafeCell<T>,
}

/// A [`Lock`] for what mostly one worker uses.
pub(crate) type BiasedLock<T> = Lock<T, RawBiased>;

// SAFETY: the lock hands out one `&mut T` at a time, so sharing it needs no more than sending `T`.
unsafe impl<T: ?Sized + Send, R: Raw> Send for Lock<T, R> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send, R: Raw> Sync for Lock<T, R> {}
// A panic cannot leave the value half changed: the code under the lock is ours and does not panic there (L1).
impl<T: ?Sized, R: Raw> std::panic::UnwindSafe for Lock<T, R> {}
impl<T: ?Sized, R: Raw> std::panic::RefUnwindSafe for Lock<T, R> {}

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

impl<T> BiasedLock<T> {
    pub(crate) fn biased(value: T) -> Self {
        Self { raw: RawBiased::new(), value: UnsafeCell::new(value) }
    }
}

impl<T: ?Sized, R: Raw> Lock<T, R> {
    #[inline]
    pub(crate) fn lock(&self) -> Guard<'_, T, R> {
        self.raw.lock();
        Guard { lock: self }
    }

    /// The lock without what it guards, for those that are held in sets (`select`).
    #[inline]
    pub(crate) fn raw(&self) -> &R {
        &self.raw
    }

    /// What the lock guards, while its raw part is held.
    ///
    /// # Safety
    ///
    /// The caller holds it, and `f` does not come back here.
    #[inline]
    pub(crate) unsafe fn with_raw<O>(&self, f: impl FnOnce(&mut T) -> O) -> O {
        // SAFETY: by the caller there is no other reference.
        f(unsafe { &mut *self.value.get() })
    }
}

impl<T: ?Sized, R: Raw> fmt::Debug for Lock<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").finish_non_exhaustive()
    }
}

/// Holds a [`Lock`] until it is dropped.
pub(crate) struct Guard<'a, T: ?Sized, R: Raw = RawLock> {
    lock: &'a Lock<T, R>,
}

impl<T: ?Sized, R: Raw> Deref for Guard<'_, T, R> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: a guard exists only while its thread holds the lock, so no other reference is used.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized, R: Raw> DerefMut for Guard<'_, T, R> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; `&mut self` excludes other uses of this guard.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized, R: Raw> Drop for Guard<'_, T, R> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the guard's thread holds it.
        unsafe { self.lock.raw.unlock() };
    }
}

#[cfg(not(loom))]
mod native {
    use std::sync::atomic::{
        AtomicBool,
        Ordering::{Acquire, Relaxed, Release},
    };

    use super::Raw;
    use crate::util::backoff::Backoff;

    /// The lock's word (L2): whether it is held.
    pub(crate) struct RawLock(AtomicBool);

    impl RawLock {
        pub(super) const fn new() -> Self {
            Self(AtomicBool::new(false))
        }

        pub(crate) fn address(&self) -> usize {
            std::ptr::from_ref(self).addr()
        }

        #[inline]
        fn try_lock(&self) -> bool {
            // ORDERING: Acquire. Takes over what the last holder wrote; pairs with the Release in `unlock`.
            self.0.compare_exchange(false, true, Acquire, Relaxed).is_ok()
        }

        #[cold]
        fn lock_slow(&self) {
            let mut backoff = Backoff::new();
            loop {
                backoff.wait();
                if self.try_lock() {
                    return;
                }
            }
        }
    }

    // SAFETY: who has exchanged the word is alone until it stores again; Acquire and Release hand on what was written.
    unsafe impl Raw for RawLock {
        #[inline]
        fn lock(&self) {
            if !self.try_lock() {
                self.lock_slow();
            }
        }

        #[inline]
        unsafe fn unlock(&self) {
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

        pub(crate) fn is_shared(&self) -> bool {
            false
        }
    }

    // SAFETY: as loom's mutex.
    unsafe impl super::Raw for RawLock {
        fn lock(&self) {
            let guard = self.mutex.lock().expect("no holder of a model lock panics");
            // SAFETY: the guard is dropped in `unlock`, before the mutex is.
            let guard = unsafe { mem::transmute::<MutexGuard<'_, ()>, MutexGuard<'static, ()>>(guard) };
            // SAFETY: only the holder looks here.
            unsafe { *self.held.get() = Some(guard) };
        }

        unsafe fn unlock(&self) {
            // SAFETY: only the holder looks here.
            let guard = unsafe { (*self.held.get()).take() };
            drop(guard);
        }
    }
}
