//! `run`: a main goroutine, from a thread that waits for it.

use std::sync::Arc;

use crate::{
    debug::leaks::Main,
    runtime::{
        go::{Builder, RawJoinHandle, cannot_start},
        lifecycle::{self, RuntimeInner},
        panics,
        scheduler::Worker,
    },
};

/// Runs `f` as a main goroutine on the default runtime and returns its value.
///
/// The calling thread waits and never becomes a worker, so `f` may borrow. When `run` returns, other goroutines are not waited
/// for: they run on until the process ends. Several threads may `run` at once.
///
/// # Examples
///
/// ```
/// let words = ["go", "rust"];
/// let total = oxigo::run(|| words.iter().map(|word| word.len()).sum::<usize>());
/// assert_eq!(total, 6);
/// ```
///
/// # Panics
///
/// Resumes a panic of `f`. Panics when it is called on a goroutine of the default runtime, whose worker it would hold: there, call `f` itself, or use
/// `go(f).join()`. Panics when the default runtime cannot be started, or no stack is available; the message says why.
///
/// # Blocking
///
/// Blocks the calling thread; parks a goroutine of another runtime.
#[track_caller]
pub fn run<F, T>(f: F) -> T
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    run_on(lifecycle::default_runtime(), f)
}

#[track_caller]
pub(crate) fn run_on<F, T>(runtime: &Arc<RuntimeInner>, f: F) -> T
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    if Worker::current().is_some_and(|worker| Arc::ptr_eq(&worker.runtime, runtime)) {
        panic!("run called on a goroutine of the same runtime: use go(f).join() instead");
    }
    let main = Main::register(lifecycle::main_id());
    // SAFETY: this frame waits for the end of the goroutine and takes its result before it returns or unwinds, so whatever `f` and
    // `T` borrow outlives their use. Between `start` and the end of `join` nothing here can panic.
    let started = unsafe { Builder::new().start(Some(runtime), f, (), Some(main.0)) };
    // No closure: it would be the place of the panic.
    let goroutine = match started {
        Ok(goroutine) => goroutine,
        Err(error) => cannot_start(&error),
    };
    // SAFETY: the closure returns `T`, and this is the only handle.
    let handle = unsafe { RawJoinHandle::<T>::new(goroutine) };
    handle.join().unwrap_or_else(|payload| panics::resume(payload))
}
