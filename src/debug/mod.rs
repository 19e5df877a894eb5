//! Looking at goroutines: dumps, leaks, suspects, labels, metrics and execution traces.
//!
//! ```
//! use oxigo::{Builder, debug, unbuffered};
//!
//! let (tx, rx) = unbuffered::<()>();
//! let worker = Builder::new().name("worker".into()).spawn(move || (rx.recv(), rx.recv()))?;
//! tx.send(())?;
//! let mut text = Vec::new();
//! debug::dump(&mut text)?; // as SIGQUIT prints it
//! assert!(String::from_utf8(text)?.contains("[worker]"));
//! drop(tx);
//! assert!(worker.join().unwrap().1.is_err()); // the channel is closed
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod aside;
pub(crate) mod census;
pub(crate) mod deadlock;
pub(crate) mod dump;
pub(crate) mod heritage;
pub(crate) mod hooks;
pub(crate) mod leaks;
pub(crate) mod memory;
mod metrics;
#[cfg(feature = "metrics")]
mod publish;
pub(crate) mod question;
pub(crate) mod quit;
pub(crate) mod sigaction;
#[cfg(feature = "tracing")]
pub(crate) mod spans;
pub(crate) mod standstill;
pub(crate) mod suspects;
pub mod trace;
pub(crate) mod watchdog;

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, write},
};

pub(crate) use self::aside::write_aside;
pub use self::dump::dump;
pub(crate) use self::dump::gather;
pub use self::heritage::{Label, label, label_value};
pub use self::leaks::{GoroutineInfo, Goroutines, LeakCheck, leak_check, leaks};
pub use self::metrics::{Metrics, metrics};
#[cfg(feature = "metrics")]
pub use self::publish::{Publisher, publish_metrics, publish_metrics_every};
pub use self::suspects::{Suspect, Suspects, suspects};
use crate::runtime::{lifecycle::RuntimeInner, task::TaskRef};

/// Waits until all goroutines of `runtime` have ended, for `limit` at most, and lists those that have not.
pub(crate) fn wait_for_end(runtime: &Arc<RuntimeInner>, limit: Duration) -> Goroutines {
    let begin = Instant::now();
    let mut pause = Duration::from_micros(50);
    while runtime.alive() > 0 && begin.elapsed() < limit {
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    if runtime.alive() == 0 { Goroutines::default() } else { Goroutines::of(runtime) }
}

/// Called for each new goroutine, by the one who starts it and before it can run.
#[inline]
pub(crate) fn born(task: &TaskRef) {
    if hooks::on(hooks::HERITAGE | hooks::TRACE) {
        born_watched(task);
    }
}

#[cold]
fn born_watched(task: &TaskRef) {
    if hooks::on(hooks::HERITAGE) {
        heritage::pass_on(task);
    }
    if hooks::on(hooks::TRACE) {
        trace::starts(task);
    }
}

/// Writes to standard error without its lock, which a goroutine that waits may hold, and without a descriptor of its own: the table may be full.
/// If somebody has made that a pipe that does not block, who reads from it is given time when it is full.
pub(crate) fn write_error(text: &str) {
    const PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
    let (stderr, mut rest) = (io::stderr(), text.as_bytes());
    let room = || poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&PATIENCE));
    while !rest.is_empty() {
        match write(&stderr, rest) {
            Ok(written @ 1..) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if matches!(room(), Ok(1) | Err(Errno::INTR)) => {}
            // There is nobody to tell of an error.
            _ => return,
        }
    }
}
