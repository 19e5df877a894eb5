//! A list of a runtime's goroutines: who they are, what they wait for, where they were started.

use std::{
    fmt,
    panic::Location,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::runtime::{lifecycle::Shared, scheduler::Worker, wait::Wait};

/// How long a worker that is busy is waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// One goroutine as its worker saw it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) name: Option<String>,
    pub(crate) wait: Wait,
    pub(crate) started_at: &'static Location<'static>,
}

/// Goroutines in the order of their ids.
#[derive(Clone, Debug, Default)]
pub(crate) struct List {
    entries: Vec<Entry>,
    /// Goroutines that could not be looked at: not started, or on a worker that one goroutine holds.
    unseen: usize,
}

impl List {
    /// Asks every worker for its goroutines. Never hangs: a worker that does not come to it in time is left out.
    pub(crate) fn of(runtime: &Arc<Shared>) -> Self {
        let answers = Arc::new((Mutex::new((Vec::new(), 0_usize)), Condvar::new()));
        let asked = runtime.processors().len();
        for processor in runtime.processors() {
            let answers = Arc::clone(&answers);
            processor.ask(Box::new(move |worker: &Worker| {
                let found = worker.goroutines();
                let mut state = answers.0.lock().unwrap_or_else(PoisonError::into_inner);
                state.0.extend(found);
                state.1 += 1;
                answers.1.notify_all();
            }));
        }
        let deadline = Instant::now() + PATIENCE;
        let mut state = answers.0.lock().unwrap_or_else(PoisonError::into_inner);
        while state.1 < asked {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = answers.1.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut entries = std::mem::take(&mut state.0);
        entries.sort_by_key(|entry| entry.id);
        let unseen = runtime.alive().saturating_sub(entries.len());
        Self { entries, unseen }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.unseen == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() + self.unseen
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entry in &self.entries {
            write!(f, "goroutine {}", entry.id)?;
            if let Some(name) = &entry.name {
                write!(f, " [{name}]")?;
            }
            writeln!(f, ": {}\n    started at {}", entry.wait, entry.started_at)?;
        }
        if self.unseen > 0 {
            writeln!(f, "and {} more that have not started or could not be looked at", self.unseen)?;
        }
        Ok(())
    }
}
