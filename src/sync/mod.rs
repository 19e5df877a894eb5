//! Waiting for each other: Go's `sync`.

mod wait_group;

pub use wait_group::{DoneGuard, WaitGroup};
