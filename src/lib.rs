//! Go's concurrency for Rust.

