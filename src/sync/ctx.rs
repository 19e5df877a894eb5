//! Locks that a context may end the wait for.
//!
//! `Mutex` and `RwLock` are `lock_api`'s types, so what is ours comes by extension traits.

use super::{
    Mutex, MutexGuard, RawMutex, RawRwLock, RwLock, RwLockReadGuard, RwLockUpgradableReadGuard, RwLockWriteGuard,
    rwlock::Read,
};
use crate::context::{Context, ContextError};

mod sealed {
    pub trait Sealed {}
}

impl<T: ?Sized> sealed::Sealed for Mutex<T> {}
impl<T: ?Sized> sealed::Sealed for RwLock<T> {}

/// [`Mutex::lock`](https://docs.rs/lock_api/0.4/lock_api/struct.Mutex.html#method.lock) with a context. Not meant to be implemented elsewhere.
///
/// # Examples
///
/// ```
/// use oxigo::{context::{Context, ContextError}, sync::{Mutex, MutexCtx}};
///
/// let value = Mutex::new(1);
/// let (ctx, cancel) = Context::background().with_cancel();
/// *value.lock_ctx(&ctx)? += 1;
///
/// let guard = value.lock();
/// oxigo::scope(|s| {
///     let waiting = s.go(|| value.lock_ctx(&ctx).map(|guard| *guard));
///     cancel.cancel();
///     assert_eq!(waiting.join().unwrap(), Err(ContextError::Canceled));
/// });
/// assert_eq!(*guard, 2);
/// # Ok::<(), ContextError>(())
/// ```
pub trait MutexCtx: sealed::Sealed {
    /// What the mutex protects.
    type Value: ?Sized;

    /// Locks the mutex, waiting until `ctx` ends at the latest. If the context has ended already, a mutex that is free is not locked.
    ///
    /// # Errors
    ///
    /// Why the context has ended.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    fn lock_ctx(&self, ctx: &Context) -> Result<MutexGuard<'_, Self::Value>, ContextError>;
}

impl<T: ?Sized> MutexCtx for Mutex<T> {
    type Value = T;

    fn lock_ctx(&self, ctx: &Context) -> Result<MutexGuard<'_, T>, ContextError> {
        // SAFETY: taken by `acquire_until` only, and let go of by the guard only.
        let raw: &RawMutex = unsafe { self.raw() };
        ctx.within(|until| raw.acquire_until(until))?;
        // SAFETY: the lock was taken above, by us, and there is no other guard for it.
        Ok(unsafe { self.make_guard_unchecked() })
    }
}

/// [`RwLock`]'s [`read`](https://docs.rs/lock_api/0.4/lock_api/struct.RwLock.html#method.read),
/// [`upgradable_read`](https://docs.rs/lock_api/0.4/lock_api/struct.RwLock.html#method.upgradable_read) and
/// [`write`](https://docs.rs/lock_api/0.4/lock_api/struct.RwLock.html#method.write) with a context. Not meant to be implemented elsewhere.
///
/// # Examples
///
/// ```
/// use oxigo::{context::{Context, ContextError}, sync::{RwLock, RwLockCtx}};
/// use std::time::Duration;
///
/// let value = RwLock::new(1);
/// let (ctx, _cancel) = Context::background().with_timeout(Duration::from_millis(5));
/// *value.write_ctx(&ctx)? += 1;
/// let reader = value.read_ctx(&ctx)?;
/// assert_eq!(*reader, 2);
/// assert_eq!(value.write_ctx(&ctx).unwrap_err(), ContextError::DeadlineExceeded);
/// # Ok::<(), ContextError>(())
/// ```
pub trait RwLockCtx: sealed::Sealed {
    /// What the lock protects.
    type Value: ?Sized;

    /// Takes a read lock, waiting until `ctx` ends at the latest. If the context has ended already, a lock that is free is not taken.
    ///
    /// # Errors
    ///
    /// Why the context has ended.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    fn read_ctx(&self, ctx: &Context) -> Result<RwLockReadGuard<'_, Self::Value>, ContextError>;

    /// Takes the upgradable lock, waiting until `ctx` ends at the latest. If the context has ended already, a lock that is free is not taken.
    ///
    /// # Errors
    ///
    /// Why the context has ended.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    fn upgradable_read_ctx(&self, ctx: &Context) -> Result<RwLockUpgradableReadGuard<'_, Self::Value>, ContextError>;

    /// Takes the write lock, waiting until `ctx` ends at the latest. If the context has ended already, a lock that is free is not taken. When this
    /// gives up, readers that it has held back come in.
    ///
    /// # Errors
    ///
    /// Why the context has ended.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    fn write_ctx(&self, ctx: &Context) -> Result<RwLockWriteGuard<'_, Self::Value>, ContextError>;
}

impl<T: ?Sized> RwLockCtx for RwLock<T> {
    type Value = T;

    fn read_ctx(&self, ctx: &Context) -> Result<RwLockReadGuard<'_, T>, ContextError> {
        // SAFETY: a lock is taken by `acquire_shared` only, and let go of by the guard only.
        let raw: &RawRwLock = unsafe { self.raw() };
        ctx.within(|until| raw.acquire_shared(Read::Plain, until))?;
        // SAFETY: the read lock was taken above, by us, and there is no guard for it yet.
        Ok(unsafe { self.make_read_guard_unchecked() })
    }

    fn upgradable_read_ctx(&self, ctx: &Context) -> Result<RwLockUpgradableReadGuard<'_, T>, ContextError> {
        // SAFETY: the lock is taken by `acquire_shared` only, and let go of by the guard only.
        let raw: &RawRwLock = unsafe { self.raw() };
        ctx.within(|until| raw.acquire_shared(Read::Upgradable, until))?;
        // SAFETY: the upgradable lock was taken above, by us, and there is no other guard for it.
        Ok(unsafe { self.make_upgradable_guard_unchecked() })
    }

    fn write_ctx(&self, ctx: &Context) -> Result<RwLockWriteGuard<'_, T>, ContextError> {
        // SAFETY: the lock is taken by `acquire_exclusive` only, and let go of by the guard only.
        let raw: &RawRwLock = unsafe { self.raw() };
        ctx.within(|until| raw.acquire_exclusive(until))?;
        // SAFETY: the write lock was taken above, by us, and there is no other guard for it.
        Ok(unsafe { self.make_write_guard_unchecked() })
    }
}
