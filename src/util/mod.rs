//! Small tools that know nothing of goroutines: locks that never park, a back-off, prefetching, threads that
//! the process needs once, words to standard error, errors that name a limit, and descriptors without a file.

pub(crate) mod backoff;
pub(crate) mod biased;
#[cfg(not(loom))]
mod limit;
pub(crate) mod lock;
pub(crate) mod prefetch;
#[cfg(not(loom))]
mod service;
#[cfg(not(loom))]
pub(crate) mod stderr;
#[cfg(not(loom))]
pub(crate) mod vacant;

#[cfg(not(loom))]
pub(crate) use limit::limit_reached;
pub(crate) use lock::{BiasedLock, Lock};
#[cfg(not(loom))]
pub(crate) use service::Service;
