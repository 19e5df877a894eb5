//! Pipes of the operating system that park the goroutine.
#![forbid(unsafe_code)]

mod pipe;

pub use self::pipe::{PipeReader, PipeWriter, pipe};
