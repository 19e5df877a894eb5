//! Small tools that know nothing of goroutines: locks that never park, a back-off, and words to standard error.

pub(crate) mod backoff;
pub(crate) mod biased;
pub(crate) mod lock;
#[cfg(not(loom))]
pub(crate) mod stderr;

pub(crate) use lock::{BiasedLock, Lock};
