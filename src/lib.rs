//! Go's concurrency for Rust.

mod facade;
pub(crate) mod runtime;
mod util;

#[cfg(not(loom))]
#[doc(hidden)]
#[path = "attributes.rs"]
pub mod __private;
#[cfg(not(loom))]
mod coroutine;
#[cfg(not(loom))]
pub mod debug;
#[cfg(not(loom))]
mod stack;
pub mod time;

pub use oxigo_macros::{main, test};
#[cfg(not(loom))]
pub use runtime::{
    Builder, Deadlock, Goroutine, Id, JoinHandle, PanicPolicy, Runtime, RuntimeBuilder, Scope, ScopedJoinHandle, blocking,
    current, exit, go, num_goroutines, park, park_timeout, run, scope, yield_now,
};
