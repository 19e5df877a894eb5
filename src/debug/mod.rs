//! Looking at goroutines: lists, leaks and standstills.

pub(crate) mod deadlock;
pub(crate) mod dump;
pub(crate) mod list;
mod metrics;
pub(crate) mod quit;
pub(crate) mod signal;
pub(crate) mod standstill;
pub(crate) mod watchdog;

use std::{
    io::Write,
    os::fd::AsFd,
    process,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

pub use self::dump::dump;
use self::list::List;
pub use self::metrics::{Metrics, metrics};
use crate::runtime::lifecycle::Shared;

/// Waits until all goroutines of `runtime` have ended, for `limit` at most, and lists those that have not.
pub(crate) fn wait_for_end(runtime: &Arc<Shared>, limit: Duration) -> List {
    let begin = Instant::now();
    let mut pause = Duration::from_micros(50);
    while runtime.alive() > 0 && begin.elapsed() < limit {
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    if runtime.alive() == 0 { List::default() } else { List::of(runtime) }
}

/// Ends the process, since a test waits for ever and cannot be unwound; says which and why.
pub(crate) fn fail_stuck_test(test: &str, runtime: &Arc<Shared>) -> ! {
    let list = List::of(runtime);
    write_error(&format!(
        "\ntest {test} ... FAILED\nfatal: all goroutines are asleep - deadlock!\n\n{list}\n\
         test {test} waits for ever, so the test process ends here; run it alone with `cargo test {test}`\n"
    ));
    process::exit(2);
}

/// Writes to standard error without its lock, which a goroutine that waits may hold.
pub(crate) fn write_error(text: &str) {
    if let Ok(descriptor) = std::io::stderr().as_fd().try_clone_to_owned() {
        // There is nobody to tell of an error.
        let _ = std::fs::File::from(descriptor).write_all(text.as_bytes());
    }
}
