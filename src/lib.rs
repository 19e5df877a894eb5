//! Go's concurrency for Rust.

pub mod chan;
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
pub mod net;
#[cfg(not(loom))]
mod stack;
pub mod sync;
pub mod time;

pub use chan::{Chan, Receiver, Sender, bounded, unbounded, unbuffered};
pub use oxigo_macros::{main, test};
#[cfg(not(loom))]
pub use runtime::{
    Builder, Deadlock, Goroutine, Id, JoinHandle, PanicPolicy, Runtime, RuntimeBuilder, Scope, ScopedJoinHandle, blocking,
    current, exit, go, num_goroutines, park, park_timeout, run, scope, yield_now,
};
pub use sync::WaitGroup;
