//! What `#[oxigo::main]` and `#[oxigo::test]` expand to.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Deadlock, Runtime,
    debug::{self, standstill::Standstill},
    runtime::lifecycle,
};

/// How long goroutines that are about to end may take after a test.
const GRACE: Duration = Duration::from_secs(2);
/// How long everything must have been asleep before a test is failed for it.
const QUIET: Duration = Duration::from_secs(1);

/// Runs a program's `main`.
#[track_caller]
pub fn main<T: Send>(workers: Option<usize>, body: impl FnOnce() -> T + Send) -> T {
    if let Some(workers) = workers
        && let Err(error) = lifecycle::start_default(workers)
    {
        panic!("cannot start the default runtime: {error}");
    }
    crate::run(body)
}

/// Runs one test on a runtime of its own.
///
/// A test whose goroutines have all been asleep for a second, with nothing that could wake one, fails with a list of them; the
/// goroutines stay where they are, since nothing may unwind them.
pub fn test<T: Send>(workers: Option<usize>, leaks_allowed: bool, foreign: bool, body: impl FnOnce() -> T + Send) -> T {
    let runtime = Runtime::builder()
        .workers(workers.unwrap_or(2))
        .name("oxigo-test")
        // The watcher below looks, and knows the test's name.
        .deadlock(Deadlock::Off)
        .build()
        .unwrap_or_else(|error| panic!("cannot start a runtime for this test: {error}"));

    // The watcher lends its verdict to the main goroutine's waiter; a test that is stuck for ever cannot be unwound, so its failure
    // is told by the thread that watches, and the process ends as a failed test run does.
    let (done, finished) = mpsc::channel::<()>();
    let watcher = (!foreign).then(|| {
        let shared = runtime.shared().clone();
        let name = thread::current().name().map(str::to_owned);
        thread::Builder::new().name("oxigo-test-watch".into()).spawn(move || {
            let mut standstill = Standstill::new(&shared);
            let mut since = Instant::now();
            while let Err(mpsc::RecvTimeoutError::Timeout) = finished.recv_timeout(Duration::from_millis(50)) {
                if !standstill.look() {
                    since = Instant::now();
                } else if since.elapsed() >= QUIET {
                    let name = name.as_deref().unwrap_or("?");
                    debug::fail_stuck_test(name, &shared);
                }
            }
        })
    });
    let result = panic::catch_unwind(AssertUnwindSafe(|| runtime.run(body)));
    drop(done);
    if let Some(Ok(watcher)) = watcher {
        let _ = watcher.join();
    }
    let value = result.unwrap_or_else(|payload| panic::resume_unwind(payload));
    if !leaks_allowed {
        let leaked = debug::wait_for_end(runtime.shared(), GRACE);
        if !leaked.is_empty() {
            panic!("{} goroutines that this test started are still alive:\n{leaked}", leaked.len());
        }
    }
    value
}
