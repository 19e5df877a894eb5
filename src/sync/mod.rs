//! Waiting for each other: Go's `sync`.

#[cfg(not(loom))]
mod err_group;
pub(crate) mod turn;
mod wait_group;

#[cfg(not(loom))]
pub use err_group::{ErrGroup, TaskFailed};
pub use wait_group::{DoneGuard, WaitGroup};
