//! Goroutines and what runs them.
//!
//! From the bottom: [`unit`] (who can wait, and who may end a wait), [`park`] (the seam that everything above uses), [`waitq`] (queues of those who wait),
//! `scheduler` (workers), `slot` and `task` (a goroutine's control block and its closure), and on top what users call.

pub(crate) mod interrupt;
pub(crate) mod join_state;
pub(crate) mod park;
pub(crate) mod present;
pub(crate) mod scheduler;
pub(crate) mod thread_parker;
pub(crate) mod token;
pub(crate) mod unit;
pub(crate) mod until;
#[cfg(not(loom))]
pub(crate) mod urgent;
pub(crate) mod wait;
pub(crate) mod waitq;

#[cfg(not(loom))]
pub(crate) mod alarm;
mod alarm_keeper;
#[cfg(loom)]
pub(crate) mod alarm_model;
#[cfg(not(loom))]
pub(crate) mod blocking;
mod blocking_pool;
#[cfg(not(loom))]
pub(crate) mod bubble;
#[cfg(not(loom))]
pub(crate) mod clock;
mod clock_sleep;
#[cfg(not(loom))]
mod cores;
#[cfg(not(loom))]
mod current;
pub(crate) mod driver;
#[cfg(not(loom))]
pub(crate) mod fork;
#[cfg(not(loom))]
pub(crate) mod go;
#[cfg(not(loom))]
pub(crate) mod goroutine;
#[cfg(not(loom))]
mod handle;
#[cfg(not(loom))]
pub(crate) mod lifecycle;
#[cfg(not(loom))]
pub(crate) mod locals;
#[cfg(not(loom))]
pub(crate) mod options;
#[cfg(not(loom))]
pub(crate) mod panics;
#[cfg(not(loom))]
mod run;
#[cfg(not(loom))]
mod scope;
#[cfg(not(loom))]
pub(crate) mod slot;
#[cfg(not(loom))]
pub(crate) mod task;
#[cfg(not(loom))]
pub(crate) mod task_memory;
#[cfg(not(loom))]
mod thread_end;
#[cfg(not(loom))]
pub(crate) mod threads;
mod wheel;

#[cfg(loom)]
pub(crate) use self::alarm_model as alarm;
#[cfg(not(loom))]
pub(crate) use self::scheduler::refuses_new;
#[cfg(not(loom))]
pub use self::{
    blocking::blocking,
    current::{current, exit, num_goroutines, park, park_timeout, yield_now},
    go::{Builder, JoinHandle, go},
    goroutine::{Goroutine, Id},
    handle::{Runtime, RuntimeBuilder},
    options::{Deadlock, PanicPolicy},
    run::run,
    scope::{Scope, ScopedJoinHandle, scope},
};
