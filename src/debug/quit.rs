//! SIGQUIT: prints every goroutine and ends the process with status 2, as Go does.
//!
//! The handler writes to a pipe; a thread of ours reads from it and does the rest, so that nothing is looked at in a handler. Both are
//! made by the first runtime, and only if the program has said nothing of its own about the signal.

use std::{
    io::Read,
    process,
    sync::{
        Once,
        atomic::{AtomicI32, Ordering::Relaxed},
    },
    thread,
};

use rustix::{
    fd::IntoRawFd,
    pipe::{PipeFlags, pipe_with},
};

use crate::{
    debug::{self, deadlock, dump, signal},
    runtime::{lifecycle, scheduler, threads::Ours},
};

static PIPE: AtomicI32 = AtomicI32::new(-1);

/// See the module. Failing is silent: the signal then does what it did before.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Ok((reader, writer)) = pipe_with(PipeFlags::CLOEXEC) else { return };
        let serve = move || {
            scheduler::block_signals();
            let _ours = Ours::register();
            if std::fs::File::from(reader).read_exact(&mut [0]).is_ok() {
                quit();
            }
        };
        if thread::Builder::new().name("oxigo-sigquit".into()).spawn(serve).is_ok() {
            // Open for as long as the process lives.
            PIPE.store(writer.into_raw_fd(), Relaxed);
            signal::install(libc::SIGQUIT, handler);
        }
    });
}

fn quit() -> ! {
    deadlock::keep_silent();
    debug::write_error(&format!("SIGQUIT: quit\n\n{}", dump::gather(&lifecycle::runtimes())));
    process::exit(2);
}

extern "C" fn handler(_signal: libc::c_int) {
    // SAFETY: `write` is async-signal-safe; the buffer is one byte. A pipe that is full has been written to.
    unsafe { libc::write(PIPE.load(Relaxed), [0_u8].as_ptr().cast(), 1) };
}
