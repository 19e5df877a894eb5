//! Counts for those who watch a program run.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use crate::runtime::lifecycle;

/// What [`metrics()`] has counted over all runtimes of the process that have not ended.
///
/// A runtime that was dropped has ended once its last goroutine has ended, and then its workers; a goroutine that waits for ever keeps it in the
/// sums. When a runtime has ended, what it had counted is taken out of the sums, so even counts of what has happened so far can become smaller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Goroutines that have been made and have not ended, closures that have not started included.
    pub goroutines: usize,
    /// Of these, those that wait for something; ready ones do not count.
    pub parked: usize,
    /// Goroutines that have begun to run so far.
    pub started: u64,
    /// Worker threads.
    pub workers: usize,
    /// Fresh closures that a worker has taken from another so far.
    pub steals: u64,
    /// Wakes of a goroutine that lives on another worker so far.
    pub remote_wakes: u64,
    /// Looks at the poller so far.
    pub polls: u64,
    /// The longest time for which a goroutine held its worker without coming to a scheduling point, in whole milliseconds: coarse,
    /// and 0 for anything shorter than a few.
    pub longest_run: Duration,
}

/// Counts goroutines, workers and what the scheduler has done, in all runtimes of the process together.
///
/// The numbers are read one after another while the program runs, so they may be off by what happens meanwhile. Cheap enough to be
/// called many times a second.
///
/// # Examples
///
/// ```
/// let (tx, rx) = oxigo::unbuffered::<()>();
/// let waits = oxigo::go(move || rx.recv());
/// assert!(oxigo::debug::metrics().goroutines >= 1);
/// drop(tx);
/// assert!(waits.join().unwrap().is_err());
/// ```
///
/// # Blocking
///
/// Never parks.
pub fn metrics() -> Metrics {
    let mut sum = Metrics::default();
    for runtime in lifecycle::runtimes() {
        sum.goroutines += runtime.alive();
        for processor in runtime.processors() {
            let published = &processor.published;
            let awake = u64::from(!processor.doze().is_resting());
            let ready = u64::from(processor.load()) + awake;
            sum.parked += processor.live().saturating_sub(ready) as usize;
            sum.started += published.started.load(Relaxed);
            sum.workers += 1;
            sum.steals += published.steals.load(Relaxed);
            sum.remote_wakes += published.remote_wakes.load(Relaxed);
            sum.polls += published.polls.load(Relaxed);
            sum.longest_run = sum.longest_run.max(processor.watch.longest());
        }
    }
    sum
}
