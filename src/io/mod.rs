//! Pipes of the operating system, and copying in the kernel.
#![forbid(unsafe_code)]

mod copy;
mod pipe;

pub use self::{
    copy::{Sink, Source, copy},
    pipe::{PipeReader, PipeWriter, pipe},
};
