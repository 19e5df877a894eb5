//! Go's concurrency for Rust.

mod facade;
pub(crate) mod runtime;
mod util;
