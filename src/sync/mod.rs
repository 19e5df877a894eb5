//! Waiting for each other: Go's `sync`, with `errgroup`, `semaphore` and `singleflight`.
//!
//! | Go | here |
//! |---|---|
//! | `sync.Mutex`, `sync.RWMutex` | [`Mutex<T>`](Mutex), [`RwLock<T>`](RwLock), which hold the value that they protect; the interface is `parking_lot`'s |
//! | `mu.Lock()`, `defer mu.Unlock()` | `let guard = mutex.lock()`; dropping the guard unlocks |
//! | none: a lock, or the end of a context | [`mutex.lock_ctx(&ctx)`](MutexCtx::lock_ctx), [`lock.read_ctx(&ctx)`](RwLockCtx::read_ctx): import the trait |
//! | `sync.Cond` | [`Condvar`] |
//! | `sync.Once` | [`Once`] |
//! | `sync.OnceValue(f)` | [`LazyLock<T>`](LazyLock), [`OnceLock<T>`](OnceLock) |
//! | `sync.WaitGroup`, `wg.Go(f)` | [`WaitGroup`], [`wg.go(f)`](WaitGroup::go) |
//! | `errgroup.WithContext(ctx)`, `g.SetLimit(n)` | [`ErrGroup::with_context(&ctx)`](ErrGroup::with_context), [`group.set_limit(n)`](ErrGroup::set_limit) |
//! | `semaphore.NewWeighted(n)`, `s.Acquire(ctx, k)` | [`Semaphore::new(n)`](Semaphore::new), [`semaphore.acquire_ctx(k, &ctx)`](Semaphore::acquire_ctx) |
//! | `singleflight.Group` | [`SingleFlight`] |
//! | `sync.Map`, `sync.Pool` | none: `RwLock<HashMap<K, V>>`; a bounded channel of values |
//! | `sync/atomic` | [`std::sync::atomic`] |
//! | none: parties that wait for each other | [`Barrier`] |
//!
//! These park the goroutine that waits, and its worker runs others; a plain thread they block. The locks of `std::sync` and `parking_lot` block the
//! worker's thread instead. That is harmless if a lock is held for a moment only, and never across a wait. A lock held across a wait can hang the
//! worker for ever: another goroutine of the worker that wants the lock blocks the thread that the holder needs to go on.

/// A `new` that is `const`, except in models, whose atomics cannot be made in constants.
macro_rules! const_new {
    ($(#[$attribute:meta])* $visibility:vis fn new($($parameter:ident: $type:ty),*) -> Self $body:block) => {
        $(#[$attribute])*
        #[cfg(not(loom))]
        $visibility const fn new($($parameter: $type),*) -> Self $body

        $(#[$attribute])*
        #[cfg(loom)]
        $visibility fn new($($parameter: $type),*) -> Self $body
    };
}

mod barrier;
mod condvar;
#[cfg(not(loom))]
mod ctx;
mod err_group;
#[cfg(loom)]
mod loom_models;
mod mutex;
mod once;
mod once_lock;
mod rwlock;
mod semaphore;
mod single_flight;
pub(crate) mod turn;
mod wait_group;

/// The crate whose types and traits the locks are made with, as `parking_lot` has it.
pub use lock_api;

pub use barrier::{Barrier, BarrierWaitResult};
pub use condvar::Condvar;
#[cfg(not(loom))]
pub use condvar::WaitTimeoutResult;
#[cfg(not(loom))]
pub use ctx::{MutexCtx, RwLockCtx};
pub use err_group::{ErrGroup, TaskFailed};
#[cfg(all(feature = "arc_lock", not(loom)))]
pub use mutex::ArcMutexGuard;
pub use mutex::RawMutex;
#[cfg(not(loom))]
pub use mutex::{MappedMutexGuard, Mutex, MutexGuard, const_mutex};
pub use once::{Once, OnceState};
pub use once_lock::{LazyLock, OnceLock};
pub use rwlock::RawRwLock;
#[cfg(all(feature = "arc_lock", not(loom)))]
pub use rwlock::{ArcRwLockReadGuard, ArcRwLockUpgradableReadGuard, ArcRwLockWriteGuard};
#[cfg(not(loom))]
pub use rwlock::{
    MappedRwLockReadGuard, MappedRwLockWriteGuard, RwLock, RwLockReadGuard, RwLockUpgradableReadGuard,
    RwLockWriteGuard, const_rwlock,
};
pub use semaphore::{OwnedPermit, Permit, Semaphore};
pub use single_flight::SingleFlight;
#[cfg(not(loom))]
pub(crate) use wait_group::GroupLayout;
pub use wait_group::{DoneGuard, WaitGroup};
