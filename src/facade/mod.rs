//! Atomics, cells, locks and threads: the standard library's, or `loom`'s under `cfg(loom)`.
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
#[cfg(all(not(loom), not(target_os = "linux")))]
pub(crate) use std::sync::{Condvar, Mutex};
#[cfg(not(loom))]
pub(crate) use std::{
    hint,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};
