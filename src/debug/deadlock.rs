//! The deadlock report: nothing runs, nothing that is pending could wake anybody, and so nothing ever will.
//!
//! The clock thread looks, once everything has been quiet for a while; while anything runs, nothing here does.
//!
//! # What a look sees
//!
//! - X1: every runtime stands still ([`RuntimeInner::standstill`]): all its workers sleep, nothing is on its way to them, and none of its
//!   goroutines waits for a timer, a descriptor or a blocking call;
//! - X2: the plain threads that sleep in an operation of ours without a time limit, none of them for a descriptor;
//! - X3: the process's threads, listed; where there is no descriptor for that, those of ours and of X2, if by their number there are no others.
//!
//! # Why two looks suffice
//!
//! One look is not taken at one instant: while it goes round, somebody who was not yet looked at may wake somebody who already was, and
//! then go to sleep. But each worker counts the times it gets up, and each thread its waits. Two looks that are equal in all counts say
//! that each party slept from its part of the first look to its part of the second. All these spans contain the pause between the looks,
//! so at one instant all parties slept, and with nothing on its way a party is only woken by one that runs. Who else could run is a
//! thread outside: X3 lists them, and equal lists before and after the pause say that none came or went.
//!
//! A thread that is neither ours nor asleep in X2 is *foreign*: it might wake somebody, so it silences the report, and the next look
//! comes later and later.

use std::{
    fmt::Write as _,
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::{
    Deadlock,
    debug::{self, dump},
    runtime::{
        alarm,
        lifecycle::{self, RuntimeInner},
        thread_parker::{self, Sleeper},
        threads::{self, Tid},
    },
};

/// The pause between two looks that must be equal.
const PAUSE: Duration = Duration::from_millis(10);
/// When to look again at a process with foreign threads, or one that waits for a signal: first, and at the longest.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MOST: Duration = Duration::from_secs(60);

static SILENT: AtomicBool = AtomicBool::new(false);

/// The process is about to end in another way.
pub(crate) fn keep_silent() {
    // ORDERING: Relaxed. Seen long before everything has been quiet for the time that a report takes.
    SILENT.store(true, Relaxed);
}

/// X1 to X3.
#[derive(Debug, PartialEq)]
struct Look {
    runtimes: Vec<(usize, u64)>,
    sleepers: Vec<(Tid, u64)>,
    threads: Option<Vec<Tid>>,
}

impl Look {
    /// None when anything runs, or is to be woken by something that is none of ours.
    fn take(runtimes: &[Arc<RuntimeInner>], sleepers: &[Sleeper], ours: &[Tid]) -> Option<Self> {
        let counted = |runtime: &Arc<RuntimeInner>| Some((Arc::as_ptr(runtime).addr(), runtime.standstill()?));
        let runtimes = runtimes.iter().map(counted).collect::<Option<Vec<_>>>()?;
        if sleepers.iter().any(|sleeper| sleeper.wait.reason.ends_outside()) {
            return None;
        }
        let known = ours.iter().copied().chain(sleepers.iter().map(|sleeper| sleeper.thread));
        let threads = threads::all().or_else(|| threads::all_if(known.collect()));
        let sleepers = sleepers.iter().map(|sleeper| (sleeper.thread, sleeper.waits)).collect();
        Some(Self { runtimes, sleepers, threads })
    }

    /// Whether every thread is ours or sleeps. False where the system does not list them.
    fn all_known(&self, ours: &[Tid]) -> bool {
        let known = |thread: &Tid| ours.contains(thread) || self.sleepers.iter().any(|(sleeper, _)| sleeper == thread);
        self.threads.as_ref().is_some_and(|threads| threads.iter().all(known))
    }
}

/// The looks of one quiet time.
pub(crate) struct Detector {
    last: Option<(Instant, Look)>,
    again: Duration,
}

impl Detector {
    pub(crate) fn new() -> Self {
        Self { last: None, again: AGAIN }
    }

    /// Looks, and reports a deadlock. Otherwise says when to look again if nothing happens meanwhile; never, where what is pending
    /// will wake a worker first. A thread may drop the receiver of a signal, which wakes nobody.
    pub(crate) fn look(&mut self) -> Option<Duration> {
        if let Some((at, _)) = &self.last
            && at.elapsed() < PAUSE
        {
            return Some(PAUSE);
        }
        let runtimes = lifecycle::runtimes();
        let speaking: Vec<_> = runtimes.iter().filter(|runtime| speaks(runtime)).collect();
        if speaking.is_empty() || SILENT.load(Relaxed) {
            self.last = None;
            return None;
        }
        let (sleepers, ours) = (thread_parker::sleepers(), threads::ours());
        let Some(look) = Look::take(&runtimes, &sleepers, &ours) else {
            self.last = None;
            return alarm::may_lapse().then(|| self.later());
        };
        let (now, before) = (Instant::now(), self.last.take());
        let same = before.is_some_and(|(_, before)| before == look);
        if same {
            let stuck = |runtime: &Arc<RuntimeInner>| runtime.alive() > 0;
            let closed_world = |runtime: &Arc<RuntimeInner>| runtime.options().deadlock == Deadlock::ClosedWorld;
            let anybody = !sleepers.is_empty() || speaking.iter().any(|runtime| stuck(runtime));
            if speaking.iter().any(|runtime| closed_world(runtime) && stuck(runtime))
                || (anybody && look.all_known(&ours))
            {
                report(&runtimes, &sleepers);
            }
        }
        self.last = Some((now, look));
        Some(if same { self.later() } else { PAUSE })
    }

    fn later(&mut self) -> Duration {
        let pause = self.again;
        self.again = (self.again * 2).min(AGAIN_MOST);
        pause
    }
}

/// Whether a standstill of this runtime is to be reported. What a runtime leaves behind when it is dropped is left on purpose.
fn speaks(runtime: &RuntimeInner) -> bool {
    runtime.options().deadlock != Deadlock::Off && !runtime.is_closed()
}

fn report(runtimes: &[Arc<RuntimeInner>], sleepers: &[Sleeper]) -> ! {
    let mut text = String::from("fatal: all goroutines are asleep - deadlock!\n\n");
    text.push_str(&dump::gather(runtimes));
    for sleeper in sleepers {
        let name = threads::name(sleeper.thread).unwrap_or_default();
        let _ = writeln!(text, "thread {} [{name}]: {}", sleeper.thread, sleeper.wait);
    }
    debug::write_error(&text);
    process::exit(2);
}
