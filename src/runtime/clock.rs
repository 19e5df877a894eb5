//! The clock thread: a coarse clock for the workers, and eyes on those that one goroutine holds.
//!
//! Reading a precise clock costs as much as a context switch, so the workers' hot path reads a word that this thread advances
//! once a millisecond while any worker is awake. Time slices, the age of fresh closures and the rounds in which a busy worker
//! looks at its timers and its poller are counted in these ticks. When nothing has been awake for a while the thread sleeps, and
//! the next worker that wakes from sleep starts it again.
//!
//! The same thread looks for deadlocks once everything has been quiet, and for goroutines that hold their worker while it has not.
//!
//! - C1: `NOW` only grows: it is the milliseconds since the clock began, written by this thread, and by a worker that finds it asleep.
//! - C2: the thread sleeps only while nobody has been active. A worker that gets up says so, and wakes the thread if it sleeps
//!   ([`clock_sleep`](super::clock_sleep)).

use std::{
    io, process,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use crate::{
    debug::deadlock::Detector,
    runtime::{clock_sleep::Sleep, driver::poller::Events, threads::Ours},
    util::Service,
};

/// The length of a tick.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// Ticks without activity after which the thread sleeps.
const QUIET: u64 = 100;

static NOW: AtomicU64 = AtomicU64::new(1);
static SLEEP: Sleep = Sleep::new();
static BEGIN: OnceLock<Instant> = OnceLock::new();
static SERVICE: Service = Service::new();
static THREAD: OnceLock<Thread> = OnceLock::new();

/// The tick that passes now.
#[inline]
pub(crate) fn now() -> u64 {
    // ORDERING: Relaxed. A clock publishes nothing but itself.
    NOW.load(Relaxed)
}

/// Called by a worker that gets up from sleep, or has begun.
pub(crate) fn active() {
    if SLEEP.disturb()
        && let Some(thread) = THREAD.get()
    {
        // The goroutines that run next are to see the time that has passed meanwhile.
        advance();
        thread.unpark();
    }
}

/// Whether there is the clock thread: from the first runtime on.
pub(crate) fn has_begun() -> bool {
    THREAD.get().is_some()
}

/// Called by who has ended a worker's sleep. The worker says so itself when it gets up; if it has no core for that, the clock thread is to notice.
pub(crate) fn expect_active() {
    // A hint: if it goes to sleep at this moment, a worker that is late is not noticed.
    if SLEEP.is_asleep() {
        active();
    }
}

/// The tick that passes now, also while the clock sleeps. Reads a precise clock.
pub(crate) fn precisely() -> u64 {
    1 + u64::try_from(BEGIN.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A time as the wheels count it: nanoseconds since the clock began. What was before that is at it; what comes centuries later never does.
#[inline]
pub(crate) fn nanos(when: Instant) -> u64 {
    let since = when.saturating_duration_since(*BEGIN.get_or_init(Instant::now));
    since.as_secs().saturating_mul(1_000_000_000).saturating_add(since.subsec_nanos().into())
}

/// The time that [`nanos`] counted; none for what never comes.
pub(crate) fn instant(nanos: u64) -> Option<Instant> {
    let begin = BEGIN.get_or_init(Instant::now);
    (nanos < u64::MAX).then(|| begin.checked_add(Duration::from_nanos(nanos)))?
}

/// The status that the process is to end with.
static ENDS_WITH: OnceLock<i32> = OnceLock::new();

/// Ends the process, on the clock thread: for a worker that can have no other thread for it.
pub(crate) fn end_process(status: i32) {
    let _ = ENDS_WITH.set(status);
    active();
}

fn advance() {
    // ORDERING: Relaxed, as in `now`.
    NOW.fetch_max(precisely(), Relaxed);
}

/// Starts the thread, once for the process.
pub(crate) fn start() -> io::Result<()> {
    SERVICE.start(|| {
        let spawned = thread::Builder::new().name("oxigo-clock".into()).spawn(run)?;
        let _ = THREAD.set(spawned.thread().clone());
        Ok(())
    })
}

fn run() {
    super::scheduler::block_signals();
    let _ours = Ours::register();
    let (mut events, mut runtimes) = (Events::new(), Vec::new());
    let mut quiet = 0;
    let mut seen = 0;
    loop {
        thread::sleep(TICK);
        if let Some(status) = ENDS_WITH.get() {
            process::exit(*status);
        }
        advance();
        let short = super::blocking::relieve(now());
        let awake = super::lifecycle::supervise(&mut events, &mut runtimes) || short;
        let activity = SLEEP.activity();
        quiet = if awake || activity != seen { 0 } else { quiet + 1 };
        seen = activity;
        if quiet < QUIET {
            continue;
        }
        let mut detector = Detector::new();
        SLEEP.sleep(
            seen,
            || super::blocking::relieve(now()) || super::lifecycle::supervise(&mut events, &mut runtimes),
            || match detector.look() {
                Some(pause) => thread::park_timeout(pause),
                None => thread::park(),
            },
        );
        quiet = 0;
    }
}
