//! Looking at goroutines: dumps, leaks, labels, counts, and what is said of standstills.

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
    io::Write,
    os::fd::AsFd,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

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

/// Writes to standard error without its lock, which a goroutine that waits may hold.
pub(crate) fn write_error(text: &str) {
    if let Ok(descriptor) = std::io::stderr().as_fd().try_clone_to_owned() {
        // There is nobody to tell of an error.
        let _ = std::fs::File::from(descriptor).write_all(text.as_bytes());
    }
}
