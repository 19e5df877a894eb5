//! Metrics for operators, through the facade crate `metrics`.

use std::{
    io,
    panic::{self, AssertUnwindSafe},
    sync::mpsc::{self, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::Duration,
};

use super::metrics::metrics;
use crate::runtime::{blocking, scheduler, threads::Ours};

/// Publishes what [`metrics()`](super::metrics()) counts now, to the recorder that the program has installed with the crate `metrics`.
///
/// Gauges: `oxigo_goroutines`, `oxigo_goroutines_parked`, `oxigo_workers`, `oxigo_longest_run_seconds`. Counters:
/// `oxigo_goroutines_started_total`, `oxigo_steals_total`, `oxigo_remote_wakes_total`, `oxigo_polls_total`.
///
/// # Blocking
///
/// Never parks by itself; calls the recorder.
pub fn publish_metrics() {
    let now = metrics();
    ::metrics::gauge!("oxigo_goroutines").set(now.goroutines as f64);
    ::metrics::gauge!("oxigo_goroutines_parked").set(now.parked as f64);
    ::metrics::gauge!("oxigo_workers").set(now.workers as f64);
    ::metrics::gauge!("oxigo_longest_run_seconds").set(now.longest_run.as_secs_f64());
    ::metrics::counter!("oxigo_goroutines_started_total").absolute(now.started);
    ::metrics::counter!("oxigo_steals_total").absolute(now.steals);
    ::metrics::counter!("oxigo_remote_wakes_total").absolute(now.remote_wakes);
    ::metrics::counter!("oxigo_polls_total").absolute(now.polls);
}

/// Calls [`publish_metrics`] at once and then every `period`, on a thread of its own, until the publisher is dropped.
///
/// # Examples
///
/// ```
/// let publisher = oxigo::debug::publish_metrics_every(std::time::Duration::from_secs(10))?;
/// // … the program runs
/// drop(publisher);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// When no thread can be had.
///
/// # Blocking
///
/// Never parks.
pub fn publish_metrics_every(period: Duration) -> io::Result<Publisher> {
    let (stop, stopped) = mpsc::channel::<()>();
    let publish = move || {
        scheduler::block_signals();
        let _ours = Ours::register();
        loop {
            publish_metrics();
            if let Err(RecvTimeoutError::Disconnected) = stopped.recv_timeout(period) {
                return;
            }
        }
    };
    let thread = thread::Builder::new().name("oxigo-metrics".into()).spawn(publish)?;
    Ok(Publisher { stop: Some(stop), thread: Some(thread) })
}

/// Publishes until it is dropped; made by [`publish_metrics_every`].
///
/// # Blocking
///
/// Dropping it parks the goroutine, or blocks the thread, until the recorder is not called any more.
#[derive(Debug)]
#[must_use = "publishing ends when this is dropped"]
pub struct Publisher {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Publisher {
    fn drop(&mut self) {
        drop(self.stop.take());
        let mut thread = self.thread.take();
        // The recorder is the user's and takes what time it likes, or waits for a goroutine of this worker.
        let parked = panic::catch_unwind(AssertUnwindSafe(|| blocking(|| join(&mut thread))));
        if parked.is_err() {
            // There is no thread to wait on.
            join(&mut thread);
        }
    }
}

fn join(thread: &mut Option<JoinHandle<()>>) {
    if let Some(thread) = thread.take() {
        // A recorder that panicked has said so.
        let _ = thread.join();
    }
}
