//! `RwLock` by `lock_api`: the raw traits on the lock, and the types that users see.

use std::time::{Duration, Instant};

use super::{
    RawRwLock,
    word::{Read, UPGRADABLE, WRITER, readers},
};
use crate::{
    facade::Ordering::Relaxed,
    runtime::{present, until::Until},
    sync::mutex::Manner,
};

// SAFETY: `WRITER` is set by one party at a time and only while there are no readers; readers come in only while it is clear.
unsafe impl lock_api::RawRwLock for RawRwLock {
    #[allow(clippy::declare_interior_mutable_const, reason = "lock_api's way of saying `const fn new`")]
    const INIT: Self = Self::new();

    type GuardMarker = lock_api::GuardNoSend;

    #[inline]
    fn lock_shared(&self) {
        self.acquire_shared(Read::Plain, Until::EVER);
    }

    #[inline]
    fn try_lock_shared(&self) -> bool {
        self.try_acquire_shared(Read::Plain)
    }

    #[inline]
    unsafe fn unlock_shared(&self) {
        // SAFETY: passed on.
        unsafe { self.release_shared() };
    }

    #[inline]
    fn lock_exclusive(&self) {
        self.acquire_exclusive(Until::EVER);
    }

    #[inline]
    fn try_lock_exclusive(&self) -> bool {
        self.try_acquire_exclusive()
    }

    #[inline]
    unsafe fn unlock_exclusive(&self) {
        // SAFETY: passed on.
        unsafe { self.release_exclusive(Manner::Free) };
    }

    fn is_locked(&self) -> bool {
        // ORDERING: Relaxed. Says how it was.
        let word = self.word.load(Relaxed);
        word & (WRITER | UPGRADABLE) != 0 || readers(word) > 0
    }

    fn is_locked_exclusive(&self) -> bool {
        // ORDERING: Relaxed, as above.
        self.word.load(Relaxed) & WRITER != 0
    }
}

// SAFETY: as above.
unsafe impl lock_api::RawRwLockFair for RawRwLock {
    unsafe fn unlock_shared_fair(&self) {
        // SAFETY: passed on. The last reader hands over, calls a writer, or leaves it to one that has been called.
        unsafe { self.release_shared() };
    }

    unsafe fn unlock_exclusive_fair(&self) {
        // SAFETY: passed on.
        unsafe { self.release_exclusive(Manner::Fair) };
    }
}

// SAFETY: the writer becomes a reader in one step.
unsafe impl lock_api::RawRwLockDowngrade for RawRwLock {
    unsafe fn downgrade(&self) {
        // SAFETY: passed on.
        unsafe { self.downgrade_exclusive() };
    }
}

// SAFETY: as above; true means that the lock was taken.
unsafe impl lock_api::RawRwLockTimed for RawRwLock {
    type Duration = Duration;
    type Instant = Instant;

    fn try_lock_shared_for(&self, timeout: Duration) -> bool {
        self.acquire_shared(Read::Plain, Until::deadline(present::after(timeout)))
    }

    fn try_lock_shared_until(&self, timeout: Instant) -> bool {
        self.acquire_shared(Read::Plain, Until::deadline(Some(timeout)))
    }

    fn try_lock_exclusive_for(&self, timeout: Duration) -> bool {
        self.acquire_exclusive(Until::deadline(present::after(timeout)))
    }

    fn try_lock_exclusive_until(&self, timeout: Instant) -> bool {
        self.acquire_exclusive(Until::deadline(Some(timeout)))
    }
}

// SAFETY: a recursive reader waits for a writer that holds the lock only, never for one that waits.
unsafe impl lock_api::RawRwLockRecursive for RawRwLock {
    fn lock_shared_recursive(&self) {
        self.acquire_shared(Read::Recursive, Until::EVER);
    }

    fn try_lock_shared_recursive(&self) -> bool {
        self.try_acquire_shared(Read::Recursive)
    }
}

// SAFETY: as above.
unsafe impl lock_api::RawRwLockRecursiveTimed for RawRwLock {
    fn try_lock_shared_recursive_for(&self, timeout: Duration) -> bool {
        self.acquire_shared(Read::Recursive, Until::deadline(present::after(timeout)))
    }

    fn try_lock_shared_recursive_until(&self, timeout: Instant) -> bool {
        self.acquire_shared(Read::Recursive, Until::deadline(Some(timeout)))
    }
}

// SAFETY: `UPGRADABLE` is set by one party at a time, and only while there is no writer; it keeps writers out until that party lets go of it
// or, alone, becomes the writer in one step.
unsafe impl lock_api::RawRwLockUpgrade for RawRwLock {
    #[inline]
    fn lock_upgradable(&self) {
        self.acquire_shared(Read::Upgradable, Until::EVER);
    }

    #[inline]
    fn try_lock_upgradable(&self) -> bool {
        self.try_acquire_shared(Read::Upgradable)
    }

    #[inline]
    unsafe fn unlock_upgradable(&self) {
        // SAFETY: passed on.
        unsafe { self.release_upgradable() };
    }

    #[inline]
    unsafe fn upgrade(&self) {
        // SAFETY: passed on.
        unsafe { self.upgrade_until(Until::EVER) };
    }

    #[inline]
    unsafe fn try_upgrade(&self) -> bool {
        // SAFETY: passed on.
        unsafe { self.try_upgrade_now() }
    }
}

// SAFETY: as above.
unsafe impl lock_api::RawRwLockUpgradeFair for RawRwLock {
    unsafe fn unlock_upgradable_fair(&self) {
        // SAFETY: passed on. As above.
        unsafe { self.release_upgradable() };
    }
}

// SAFETY: the one lock becomes the other without a moment in which a writer could come in.
unsafe impl lock_api::RawRwLockUpgradeDowngrade for RawRwLock {
    unsafe fn downgrade_upgradable(&self) {
        // SAFETY: passed on.
        unsafe { self.downgrade_to_shared() };
    }

    unsafe fn downgrade_to_upgradable(&self) {
        // SAFETY: passed on.
        unsafe { self.downgrade_exclusive_to_upgradable() };
    }
}

// SAFETY: as above; true means that the lock was taken. After false the upgradable lock is held as before.
unsafe impl lock_api::RawRwLockUpgradeTimed for RawRwLock {
    fn try_lock_upgradable_for(&self, timeout: Duration) -> bool {
        self.acquire_shared(Read::Upgradable, Until::deadline(present::after(timeout)))
    }

    fn try_lock_upgradable_until(&self, timeout: Instant) -> bool {
        self.acquire_shared(Read::Upgradable, Until::deadline(Some(timeout)))
    }

    unsafe fn try_upgrade_for(&self, timeout: Duration) -> bool {
        // SAFETY: passed on.
        unsafe { self.upgrade_until(Until::deadline(present::after(timeout))) }
    }

    unsafe fn try_upgrade_until(&self, timeout: Instant) -> bool {
        // SAFETY: passed on.
        unsafe { self.upgrade_until(Until::deadline(Some(timeout))) }
    }
}

/// Many readers or one writer of a value. Go's `sync.RWMutex`, with `parking_lot`'s interface.
///
/// A writer that waits holds back new readers; when a writer leaves, the readers that wait come in before the next writer, and others may read on
/// until that one has come for its turn. So neither kind starves. A goroutine that has a read lock must not take a second one with `read`, since a
/// writer may have begun to wait in between, which would be a deadlock; that is what `read_recursive` is for. The lock is not poisoned by panics.
///
/// The methods are [those of `lock_api::RwLock`](https://docs.rs/lock_api/0.4/lock_api/struct.RwLock.html):
///
/// - `new(value)`: held by nobody.
/// - `read()`, `write()`: wait for the lock and return a guard.
/// - `try_read()`, `try_write()`: a guard, if that needs no waiting.
/// - `try_read_for(duration)`, `try_write_for(duration)`, and with `_until(instant)`: wait for so long at most.
/// - `read_recursive()`, with the same `try_` forms: a read lock, even while a writer waits.
/// - `read_ctx(&ctx)`, `upgradable_read_ctx(&ctx)`, `write_ctx(&ctx)`: wait until `ctx` ends at the latest; import
///   [`RwLockCtx`](crate::sync::RwLockCtx).
/// - `is_locked()`, `is_locked_exclusive()`: whether somebody holds it now; whether a writer does.
/// - `get_mut()`, `into_inner()`: the value, without locking, for whoever has the lock to himself.
///
/// Guards have `map`, `downgrade`, `unlocked`, `unlock_fair` and `bump` as associated functions, those of
/// [readers](https://docs.rs/lock_api/0.4/lock_api/struct.RwLockReadGuard.html) all but `downgrade`.
///
/// One reader at a time may be upgradable (`upgradable_read`, with its own `try_`, `_for` and `_until`): it reads beside the others, keeps
/// writers out, and may become the writer without letting go: see [`RwLockUpgradableReadGuard`].
///
/// # Examples
///
/// ```
/// use oxigo::sync::RwLock;
///
/// let names = RwLock::new(vec!["ada"]);
/// oxigo::scope(|s| {
///     s.go(|| names.write().push("grace"));
///     s.go(|| assert_eq!(names.read()[0], "ada"));
/// });
/// assert_eq!(names.read().len(), 2);
/// ```
///
/// # Blocking
///
/// Taking a lock and upgrading one park the goroutine, or block the thread. `try_read`, `try_write`, `try_upgradable_read`, downgrading
/// and unlocking do neither.
pub type RwLock<T> = lock_api::RwLock<RawRwLock, T>;

/// One of the read locks of an [`RwLock`], until it is dropped.
///
/// # Examples
///
/// ```
/// use oxigo::sync::{RwLock, RwLockReadGuard};
///
/// let value = RwLock::new(1);
/// let guard: RwLockReadGuard<'_, i32> = value.read();
/// assert_eq!(*guard + *value.read_recursive(), 2);
/// ```
pub type RwLockReadGuard<'a, T> = lock_api::RwLockReadGuard<'a, RawRwLock, T>;

/// The write lock of an [`RwLock`], until it is dropped or downgraded.
///
/// # Examples
///
/// ```
/// use oxigo::sync::{RwLock, RwLockWriteGuard};
///
/// let value = RwLock::new(1);
/// let mut guard: RwLockWriteGuard<'_, i32> = value.write();
/// *guard += 1;
/// let reader = RwLockWriteGuard::downgrade(guard);
/// assert_eq!(*reader, 2);
/// ```
pub type RwLockWriteGuard<'a, T> = lock_api::RwLockWriteGuard<'a, RawRwLock, T>;

/// The read lock of an [`RwLock`] that may become the write lock, until it is dropped, upgraded or downgraded. There is one at a time; plain
/// readers may be there beside it.
///
/// `upgrade` waits for the other readers to leave. Meanwhile no new ones come in, and it goes before all writers that wait. `try_upgrade` and
/// the forms with a time limit give the guard back when they fail: the lock is held as before. `with_upgraded` and its `try_` forms upgrade
/// for the time of a closure. `downgrade` makes a plain reader of it, and [`RwLockWriteGuard`]'s `downgrade_to_upgradable` makes one of a
/// writer. Those who wait for an upgradable lock get it in the order in which they came.
///
/// # Examples
///
/// ```
/// use oxigo::sync::{RwLock, RwLockUpgradableReadGuard};
///
/// let names = RwLock::new(vec!["ada"]);
/// let guard: RwLockUpgradableReadGuard<'_, Vec<&str>> = names.upgradable_read();
/// assert_eq!(names.read().len(), 1);
/// // Nobody can have added the name since we looked.
/// if !guard.contains(&"grace") {
///     RwLockUpgradableReadGuard::upgrade(guard).push("grace");
/// }
/// assert_eq!(*names.read(), ["ada", "grace"]);
/// ```
///
/// # Blocking
///
/// `upgrade`, `with_upgraded`, `bump` and the forms with a time limit park the goroutine, or block the thread. `try_upgrade`,
/// `try_with_upgraded` and downgrading do neither.
pub type RwLockUpgradableReadGuard<'a, T> = lock_api::RwLockUpgradableReadGuard<'a, RawRwLock, T>;

/// A [`RwLockReadGuard`] that gives access to a part of the value. Made by `RwLockReadGuard::map`.
///
/// # Examples
///
/// ```
/// use oxigo::sync::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};
///
/// let pair = RwLock::new((1, 2));
/// let second: MappedRwLockReadGuard<'_, i32> = RwLockReadGuard::map(pair.read(), |pair| &pair.1);
/// assert_eq!(*second, 2);
/// ```
pub type MappedRwLockReadGuard<'a, T> = lock_api::MappedRwLockReadGuard<'a, RawRwLock, T>;

/// A [`RwLockWriteGuard`] that gives access to a part of the value. Made by `RwLockWriteGuard::map`.
///
/// # Examples
///
/// ```
/// use oxigo::sync::{MappedRwLockWriteGuard, RwLock, RwLockWriteGuard};
///
/// let pair = RwLock::new((1, 2));
/// let mut second: MappedRwLockWriteGuard<'_, i32> = RwLockWriteGuard::map(pair.write(), |pair| &mut pair.1);
/// *second = 7;
/// drop(second);
/// assert_eq!(pair.read().1, 7);
/// ```
pub type MappedRwLockWriteGuard<'a, T> = lock_api::MappedRwLockWriteGuard<'a, RawRwLock, T>;

/// A read lock that owns its [`RwLock`] through an `Arc`. Made by `RwLock::read_arc`; with the feature `arc_lock`.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use oxigo::sync::{ArcRwLockReadGuard, RwLock};
///
/// let value = Arc::new(RwLock::new(1));
/// let guard: ArcRwLockReadGuard<i32> = value.read_arc();
/// assert_eq!(*guard + *value.read_recursive(), 2);
/// ```
#[cfg(feature = "arc_lock")]
pub type ArcRwLockReadGuard<T> = lock_api::ArcRwLockReadGuard<RawRwLock, T>;

/// A write lock that owns its [`RwLock`] through an `Arc`. Made by `RwLock::write_arc`; with the feature `arc_lock`.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use oxigo::sync::{ArcRwLockWriteGuard, RwLock};
///
/// let value = Arc::new(RwLock::new(1));
/// let mut guard: ArcRwLockWriteGuard<i32> = value.write_arc();
/// *guard += 1;
/// drop(guard);
/// assert_eq!(*value.read(), 2);
/// ```
#[cfg(feature = "arc_lock")]
pub type ArcRwLockWriteGuard<T> = lock_api::ArcRwLockWriteGuard<RawRwLock, T>;

/// An upgradable lock that owns its [`RwLock`] through an `Arc`. Made by `RwLock::upgradable_read_arc`; with the feature `arc_lock`.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use oxigo::sync::{ArcRwLockUpgradableReadGuard, RwLock};
///
/// let value = Arc::new(RwLock::new(1));
/// let mut guard: ArcRwLockUpgradableReadGuard<i32> = value.upgradable_read_arc();
/// guard.with_upgraded(|value| *value += 1);
/// assert_eq!(*guard + *value.read(), 4);
/// ```
#[cfg(feature = "arc_lock")]
pub type ArcRwLockUpgradableReadGuard<T> = lock_api::ArcRwLockUpgradableReadGuard<RawRwLock, T>;

/// A lock that nobody holds. The same as `RwLock::new`, which is `const` too; here because `parking_lot` has it.
///
/// # Examples
///
/// ```
/// static NAME: oxigo::sync::RwLock<&str> = oxigo::sync::const_rwlock("ada");
/// assert_eq!(*NAME.read(), "ada");
/// ```
///
/// # Blocking
///
/// Never parks.
pub const fn const_rwlock<T>(value: T) -> RwLock<T> {
    RwLock::from_raw(RawRwLock::new(), value)
}
