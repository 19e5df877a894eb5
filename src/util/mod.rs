//! Small tools that know nothing of goroutines: a lock that never parks, and a back-off.

pub(crate) mod backoff;
pub(crate) mod lock;

pub(crate) use lock::Lock;
