//! Small tools that know nothing of goroutines: locks that never park, and a back-off.

pub(crate) mod backoff;
pub(crate) mod biased;
pub(crate) mod lock;

pub(crate) use lock::{BiasedLock, Lock};
