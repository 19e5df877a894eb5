//! The census: every goroutine of a runtime as its own worker sees it.
//!
//! A goroutine is looked at by its worker between two others, when nothing of it can change. A worker spends [`TURN`] on this at a time
//! and runs goroutines in between.
//!
//! - Z1: a census never hangs: a worker that has made no progress for [`PATIENCE`] is left out.
//! - Z2: goroutines that are started while it is taken may be missing.

use std::{
    collections::HashMap,
    panic::Location,
    sync::{Arc, Condvar, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use super::{
    heritage::{Heritage, Marks},
    leaks::Bond,
    memory::Hidden,
    suspects::Stake,
};
use crate::{
    coroutine::Trace,
    runtime::{
        lifecycle::{self, RuntimeInner},
        scheduler::{Processor, Worker},
        slot::Slot,
        wait::{Reason, Wait},
    },
};

/// Z1.
const PATIENCE: Duration = Duration::from_millis(500);
/// For how long a worker looks at its goroutines before it runs some.
const TURN: Duration = Duration::from_millis(2);
/// Slots that may be passed over, being another worker's by now, between two looks at the clock.
const LOOKS: usize = 16;

/// Whether back traces are taken: they take most of the time. And what else is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traces {
    Taken,
    Left,
    /// Left, and instead it is noted what each wait depends on.
    Stakes,
}

/// The object of a select is a list in its frame, which is nothing to name; and kept here it would be found by `suspects`.
pub(super) fn named(wait: Wait) -> Wait {
    if wait.reason == Reason::Select { wait.reason.alone() } else { wait }
}

/// One goroutine.
#[derive(Clone, Debug)]
pub(crate) struct CensusEntry {
    pub(crate) id: u64,
    pub(crate) name: Option<String>,
    pub(crate) wait: Wait,
    /// The id of the goroutine whose end it waits for in `join`.
    pub(crate) joins: Option<u64>,
    pub(crate) waited: Duration,
    pub(crate) started_at: &'static Location<'static>,
    pub(crate) trace: Trace,
    pub(crate) bond: Bond,
    pub(crate) marks: Option<Arc<Marks>>,
    /// As long as it has not ended.
    pub(crate) heritage: Weak<Heritage>,
    pub(crate) stake: Option<Stake>,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Census {
    pub(crate) entries: Vec<CensusEntry>,
    /// Workers that could not be asked (Z1).
    pub(crate) held: Vec<&'static Processor>,
    /// Goroutines that were not seen: on such workers, not started, or begun meanwhile.
    pub(crate) unseen: usize,
    /// Of each worker that was asked for stakes: an address of its own stack, below the frames of its loop.
    pub(crate) loops: Vec<Hidden>,
}

impl Census {
    /// Called on a thread that is no worker of `runtime`.
    pub(crate) fn of(runtime: &Arc<RuntimeInner>, traces: Traces) -> Self {
        let mut lists: HashMap<usize, Vec<&'static Slot>> = HashMap::new();
        lifecycle::each_slot(|slot| {
            let worker = slot.worker_address().addr();
            if worker != 0 {
                lists.entry(worker).or_default().push(slot);
            }
        });
        let request = Arc::new(Request { traces, answers: Mutex::default(), changed: Condvar::new() });
        let mut asked = Vec::new();
        for &processor in runtime.processors() {
            if let Some(slots) = lists.remove(&std::ptr::from_ref(processor).addr()) {
                let request = Arc::clone(&request);
                asked.push(processor);
                processor.ask(Box::new(move |_: &Worker| request.turn(processor, slots)));
            }
        }
        let Answers { entries, done, loops, .. } = request.wait(asked.len());
        let entries: Vec<CensusEntry> = entries.into_iter().flatten().collect();
        asked.retain(|processor| !done.contains(&std::ptr::from_ref(*processor).addr()));
        let unseen = runtime.alive().saturating_sub(entries.len());
        Self { entries, held: asked, unseen, loops }
    }
}

#[derive(Debug, Default)]
struct Answers {
    /// A part for each turn: one vector that grows would be copied by a worker, of all things.
    entries: Vec<Vec<CensusEntry>>,
    /// Workers that have come to the end of their list.
    done: Vec<usize>,
    loops: Vec<Hidden>,
    progress: u64,
}

/// What one census asks of the workers of one runtime.
#[derive(Debug)]
struct Request {
    traces: Traces,
    answers: Mutex<Answers>,
    changed: Condvar,
}

impl Request {
    /// Looks at goroutines of `slots` for a turn, and asks for another turn if some are left.
    fn turn(self: Arc<Self>, processor: &'static Processor, slots: Vec<&'static Slot>) {
        let edge = std::hint::black_box(0_u8);
        self.turn_below(processor, slots, (&raw const edge).addr());
    }

    /// `edge` is above everything that this puts on the stack.
    #[inline(never)]
    fn turn_below(self: Arc<Self>, processor: &'static Processor, mut slots: Vec<&'static Slot>, edge: usize) {
        let begin = Instant::now();
        let mut entries = Vec::new();
        while let Some(slot) = slots.pop() {
            // Slots go from goroutine to goroutine, and from worker to worker; ours stay ours during this turn.
            if std::ptr::eq(slot.worker_address(), processor)
                && let Some(task) = slot.task()
            {
                entries.push(CensusEntry {
                    id: task.id(),
                    name: task.name().map(str::to_owned),
                    wait: named(slot.wait()),
                    joins: slot.joins(),
                    waited: slot.waited(),
                    started_at: task.location(),
                    trace: if self.traces == Traces::Taken { slot.trace() } else { Vec::new() },
                    bond: Bond::of(slot, task),
                    marks: task.marks(),
                    heritage: task.heritage().map_or_else(Weak::new, |heritage| Arc::downgrade(&heritage)),
                    stake: (self.traces == Traces::Stakes).then(|| Stake::of(slot, task)),
                });
            }
            if slots.len().is_multiple_of(LOOKS) && begin.elapsed() >= TURN {
                break;
            }
        }
        let done = slots.is_empty();
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.entries.push(entries);
        answers.progress += 1;
        if done {
            answers.done.push(std::ptr::from_ref(processor).addr());
            answers.loops.push(Hidden::new(edge));
        }
        self.changed.notify_all();
        drop(answers);
        if !done {
            processor.ask(Box::new(move |_: &Worker| self.turn(processor, slots)));
        }
    }

    /// Waits for `workers` of them. What has been gathered when all are done, or when nothing has come for a while.
    fn wait(&self, workers: usize) -> Answers {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut seen, mut since) = (answers.progress, Instant::now());
        while answers.done.len() < workers && since.elapsed() < PATIENCE {
            let waited = self.changed.wait_timeout(answers, PATIENCE.saturating_sub(since.elapsed()));
            answers = waited.unwrap_or_else(PoisonError::into_inner).0;
            if answers.progress != seen {
                (seen, since) = (answers.progress, Instant::now());
            }
        }
        std::mem::take(&mut *answers)
    }
}
