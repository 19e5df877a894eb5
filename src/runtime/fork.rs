//! What happens after a `fork` without `exec`: the child says clearly that nothing of this crate works there.
//!
//! A forked process has one thread, a copy of the one that forked. Workers, the poller and the clock are not there, so whatever waits for
//! them would wait for ever; and a copy of a worker must not run the goroutines that live there, which go on in the parent. So in the
//! child of a process that has started a runtime
//!
//! - whoever would wait panics before others can find it ([`check`], called by `park::current` and the like);
//! - nothing starts: no goroutine, no runtime, no timer;
//! - a copy of a worker never switches, as in a panic hook, and when the goroutine that forked ends, so does the process.
//!
//! What waits for nobody (`try_send`, an uncontended lock) works as far as no other thread was at it during the fork.

use std::{
    io, process,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use crate::{runtime::scheduler::Worker, util::stderr};

const MESSAGE: &str = "this process was forked from one that runs goroutines, and they are not in it: only fork followed by exec is supported";

/// This process is such a child.
static FORKED: AtomicBool = AtomicBool::new(false);

/// Has every child of this process know it. Called before a runtime has any thread.
pub(crate) fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler may run at any time: it touches an atomic and a cell of its own thread only, and never unwinds. Failing for
        // want of memory leaves forks unnoticed.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}

extern "C" fn in_child() {
    // ORDERING: Relaxed. There is one thread.
    FORKED.store(true, Relaxed);
    if let Some(worker) = Worker::current() {
        // Nothing switches any more.
        worker.in_hook().set(true);
    }
}

/// Whether this process is such a child.
#[inline]
pub(crate) fn forked() -> bool {
    // ORDERING: Relaxed. Set before the thread that asks had a life of its own.
    FORKED.load(Relaxed)
}

/// For whoever needs the other threads.
///
/// # Panics
///
/// In a forked child.
#[inline]
#[track_caller]
pub(crate) fn check() {
    if forked() {
        refuse();
    }
}

#[cold]
#[track_caller]
fn refuse() -> ! {
    panic!("{MESSAGE}")
}

/// As [`check`], for callers that report errors.
#[inline]
pub(crate) fn checked() -> io::Result<()> {
    if forked() { Err(io::Error::other(MESSAGE)) } else { Ok(()) }
}

/// Called where a goroutine ends: in a child there is nothing to go on with.
#[inline]
pub(crate) fn end_of_goroutine() {
    if forked() {
        stderr::print(&format!("fatal: the goroutine that forked has ended: {MESSAGE}\n"));
        process::abort();
    }
}
