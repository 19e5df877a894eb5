//! Waiting for each other: Go's `sync`.

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
#[cfg(not(loom))]
mod err_group;
#[cfg(loom)]
mod loom_models;
mod mutex;
mod once;
mod once_lock;
mod rwlock;
mod semaphore;
#[cfg(not(loom))]
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
#[cfg(not(loom))]
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
#[cfg(not(loom))]
pub use single_flight::SingleFlight;
#[cfg(not(loom))]
pub(crate) use wait_group::Place as GroupPlace;
pub use wait_group::{DoneGuard, WaitGroup};
