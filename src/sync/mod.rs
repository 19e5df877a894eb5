//! Waiting for each other: Go's `sync`.

pub(crate) mod turn;
mod wait_group;

pub use wait_group::{DoneGuard, WaitGroup};
