//! SIGQUIT: prints every goroutine and ends the process with status 2, as Go does.
//!
//! The handler writes to a pipe; a thread of ours reads from it and does the rest, so that nothing is looked at in a handler. Both are
//! made by the first runtime, and only if the program has said nothing of its own about the signal. Once the program has subscribed to it
//! through [`signal`](mod@crate::signal), whose handler calls this one, that module decides what it does.
//!
//! A forked child has the handler and the pipe, whose other end is the parent's: there the signal does what it did before.

use std::{
    io::{self, Read},
    os::fd::IntoRawFd,
    process,
    sync::atomic::{
        AtomicBool, AtomicI32,
        Ordering::{Acquire, Relaxed, Release},
    },
    thread,
};

use crate::{
    debug::{self, deadlock, dump, sigaction},
    runtime::{fork, lifecycle, scheduler, threads::Ours},
    util::Service,
};

/// One address, to be told by.
static HANDLER: extern "C" fn(libc::c_int) = handler;
static PIPE: AtomicI32 = AtomicI32::new(-1);
/// Whether the signal is this module's to answer, when nobody is subscribed to it.
static OURS: AtomicBool = AtomicBool::new(false);
/// Whether the program has subscribed to the signal, at some time.
static SUBSCRIBED: AtomicBool = AtomicBool::new(false);

/// See the module. Failing is silent: the signal then does what it did before, and the next runtime tries again.
pub(crate) fn install() {
    static SERVICE: Service = Service::new();
    let _ = SERVICE.start(|| {
        let (mut reader, writer) = io::pipe()?;
        let serve = move || {
            scheduler::block_signals();
            let _ours = Ours::register();
            if reader.read_exact(&mut [0]).is_ok() {
                quit();
            }
        };
        thread::Builder::new().name("oxigo-sigquit".into()).spawn(serve)?;
        // Open for as long as the process lives.
        // ORDERING: Relaxed. The handler, which reads it, is installed by a system call after this.
        PIPE.store(writer.into_raw_fd(), Relaxed);
        // One that is subscribed to has a handler already, which is not of the program's making.
        let installed = sigaction::install(libc::SIGQUIT, HANDLER);
        // ORDERING: Relaxed, for both. Each stands for itself, and a subscription made just now may be missed.
        OURS.store(installed || SUBSCRIBED.load(Relaxed), Relaxed);
        Ok(())
    });
}

/// Whether this action of the signal is this module's.
pub(crate) fn is_handler(action: libc::sighandler_t) -> bool {
    action == HANDLER as libc::sighandler_t
}

/// A subscription has been made: the handler leaves the signal alone from now on.
pub(crate) fn subscribed() {
    // ORDERING: Release. Pairs with the Acquire in `handler`: a signal that is sent after the subscription was made finds this.
    SUBSCRIBED.store(true, Release);
}

/// The signal has come, and nobody is subscribed to it any more. Returns if it is not this module's to answer.
pub(crate) fn unclaimed() {
    // ORDERING: Relaxed. It stands for itself.
    if OURS.load(Relaxed) {
        quit();
    }
}

fn quit() -> ! {
    deadlock::keep_silent();
    debug::write_error(&format!("SIGQUIT: quit\n\n{}", dump::gather_last(&lifecycle::runtimes())));
    process::exit(2);
}

extern "C" fn handler(_signal: libc::c_int) {
    // ORDERING: Acquire. Its partner is in `subscribed`.
    if SUBSCRIBED.load(Acquire) {
        return;
    }
    if fork::forked() {
        // SAFETY: the default action; async-signal-safe.
        unsafe { libc::signal(libc::SIGQUIT, libc::SIG_DFL) };
        // SAFETY: async-signal-safe; it arrives when the handler has returned.
        unsafe { libc::raise(libc::SIGQUIT) };
        return;
    }
    // ORDERING: Relaxed, as in `install`.
    // SAFETY: `write` is async-signal-safe; the buffer is one byte. A pipe that is full has been written to.
    unsafe { libc::write(PIPE.load(Relaxed), [0_u8].as_ptr().cast(), 1) };
}
