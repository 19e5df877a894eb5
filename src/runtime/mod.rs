//! Goroutines and what runs them.

pub(crate) mod park;
#[cfg(not(loom))]
pub(crate) mod scheduler;
pub(crate) mod thread_parker;
pub(crate) mod unit;
pub(crate) mod wait;
