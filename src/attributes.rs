//! What `#[oxigo::main]` and `#[oxigo::test]` expand to.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::mpsc,
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
/// How often a running test is looked at.
const LOOK: Duration = Duration::from_millis(50);

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
/// goroutines stay where they are, since nothing may unwind them. So the test's own goroutine may borrow nothing from here.
#[track_caller]
pub fn test<F, T>(workers: Option<usize>, leaks_allowed: bool, foreign: bool, body: F) -> T
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let runtime = Runtime::builder()
        .workers(workers.unwrap_or(2))
        .name("oxigo-test")
        // This thread looks, and fails its own test only.
        .deadlock(Deadlock::Off)
        .build()
        .unwrap_or_else(|error| panic!("cannot start a runtime for this test: {error}"));

    let (done, finished) = mpsc::channel();
    let main = runtime.go(move || {
        let result = panic::catch_unwind(AssertUnwindSafe(body));
        // Nobody listens any more when the test has been failed for standing still.
        let _ = done.send(result);
    });
    drop(main);
    let mut standstill = Standstill::new(runtime.shared());
    let mut since = Instant::now();
    let result = loop {
        match finished.recv_timeout(LOOK) {
            Ok(result) => break result,
            Err(mpsc::RecvTimeoutError::Timeout) if !foreign && standstill.look() => {
                if since.elapsed() >= QUIET {
                    let list = debug::gather(std::slice::from_ref(runtime.shared()));
                    panic!("fatal: all goroutines are asleep - deadlock!\n\n{list}");
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => since = Instant::now(),
            Err(mpsc::RecvTimeoutError::Disconnected) => unreachable!("the test's goroutine sends before it ends"),
        }
    };
    let value = result.unwrap_or_else(|payload| panic::resume_unwind(payload));
    if !leaks_allowed {
        let leaked = debug::wait_for_end(runtime.shared(), GRACE);
        if !leaked.is_empty() {
            let verb = if leaked.len() == 1 { "is" } else { "are" };
            let where_they_wait = debug::gather(std::slice::from_ref(runtime.shared()));
            let count = debug::leaks::counted(leaked.len());
            panic!("{count} that this test started {verb} still alive:\n{leaked}\n\n{where_they_wait}");
        }
    }
    value
}
