//! SIGURG: what other threads want of a worker's thread at once, in the middle of a goroutine.
//!
//! The handler allocates nothing, takes no lock and calls nothing of the user's (G1 of `debug::question`). It is installed at the first use, and
//! only where the program has none of its own for this signal, whose default is to do nothing. Where the program sets one later, nobody is
//! interrupted any more: that one would run on a goroutine's stack.

use std::sync::Once;

use crate::{
    debug::{question, sigaction},
    runtime::{scheduler::Worker, threads::Tid},
};

/// Interrupts a worker's thread; false when it has ended, or there can be no handler, and on systems other than Linux.
pub(crate) fn interrupt(thread: Tid) -> bool {
    cfg!(target_os = "linux") && is_ours() && send(thread)
}

#[cfg(target_os = "linux")]
fn send(thread: Tid) -> bool {
    let process = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: a signal that our handler deals with; a thread that has ended is an error.
    unsafe { libc::syscall(libc::SYS_tgkill, process, thread.cast_signed(), libc::SIGURG) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn send(_thread: Tid) -> bool {
    false
}

/// One address, to be told by.
static HANDLER: extern "C" fn(libc::c_int) = handle;

/// Installs the handler, once; whether it is still there.
fn is_ours() -> bool {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| _ = sigaction::install(libc::SIGURG, HANDLER));
    sigaction::action(libc::SIGURG) == Some(HANDLER as libc::sighandler_t)
}

extern "C" fn handle(_signal: libc::c_int) {
    if let Some(worker) = Worker::current() {
        worker.take_core();
        question::answer(worker);
    }
}
