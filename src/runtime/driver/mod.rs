//! What wakes goroutines from outside: deadlines and descriptors. One poller and one wheel of timers for each worker.

#[cfg(not(loom))]
pub(crate) mod poller;
#[cfg(not(loom))]
pub(crate) mod source;
#[cfg(not(loom))]
pub(crate) mod timers;

pub(crate) mod readiness;
