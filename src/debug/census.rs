//! The census: every goroutine of a runtime as its own worker sees it.
//!
//! A goroutine is looked at by its worker between two others, when nothing of it can change. A worker spends [`TURN`] on this at a time
//! and runs goroutines in between.
//!
//! - Z1: a census never hangs: a worker that has made no progress for [`PATIENCE`] is left out.
//! - Z2: goroutines that are started while it is taken may be missing.
//! - Z3: a worker looks for as long as somebody waits for the answer. What it is asked lies with it until the goroutine that holds it gives way, perhaps
//!   for hours and beside thousands of others: so that refers to the census weakly, and whoever has waited takes with it all that it was about.

use std::{
    collections::HashMap,
    panic::Location,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
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
        let list = |&processor: &&'static Processor| {
            Some((processor, Mutex::new(lists.remove(&std::ptr::from_ref(processor).addr())?)))
        };
        let lists = runtime.processors().iter().filter_map(list).collect();
        let request = Arc::new(Request { traces, lists, answers: Mutex::default(), changed: Condvar::new() });
        (0..request.lists.len()).for_each(|at| request.ask(at));
        let Answers { entries, done, loops, .. } = request.wait();
        let entries: Vec<CensusEntry> = entries.into_iter().flatten().collect();
        let held = (0..request.lists.len()).filter(|at| !done.contains(at)).map(|at| request.lists[at].0).collect();
        let unseen = runtime.alive().saturating_sub(entries.len());
        Self { entries, held, unseen, loops }
    }
}

#[derive(Debug, Default)]
struct Answers {
    /// A part for each turn: one vector that grows would be copied by a worker, of all things.
    entries: Vec<Vec<CensusEntry>>,
    /// Lists that workers have come to the end of.
    done: Vec<usize>,
    loops: Vec<Hidden>,
    progress: u64,
}

/// What one census asks of the workers of one runtime.
struct Request {
    traces: Traces,
    /// For each worker that is asked, the slots that it has not looked at.
    lists: Vec<(&'static Processor, Mutex<Vec<&'static Slot>>)>,
    answers: Mutex<Answers>,
    changed: Condvar,
}

impl Request {
    /// Asks for a turn at a list (Z3).
    fn ask(self: &Arc<Self>, at: usize) {
        let request = Arc::downgrade(self);
        self.lists[at].0.ask(Box::new(move |_: &Worker| {
            if let Some(request) = request.upgrade() {
                request.turn(at);
            }
        }));
    }

    /// Looks at goroutines of a list for a turn, and asks for another turn if some are left. Called by the list's worker.
    fn turn(self: &Arc<Self>, at: usize) {
        let edge = std::hint::black_box(0_u8);
        self.turn_below(at, (&raw const edge).addr());
    }

    /// `edge` is above everything that this puts on the stack.
    #[inline(never)]
    fn turn_below(self: &Arc<Self>, at: usize, edge: usize) {
        let (processor, ref list) = self.lists[at];
        // By its worker's turns alone, one after another.
        let mut slots = list.lock().unwrap_or_else(PoisonError::into_inner);
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
        drop(slots);
        let mut answers = self.answers();
        answers.entries.push(entries);
        answers.progress += 1;
        if done {
            answers.done.push(at);
            answers.loops.push(Hidden::new(edge));
        }
        self.changed.notify_all();
        drop(answers);
        if !done {
            self.ask(at);
        }
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for all of them. What has been gathered when all are done, or when nothing has come for a while.
    fn wait(&self) -> Answers {
        let mut answers = self.answers();
        let (mut seen, mut since) = (answers.progress, Instant::now());
        while answers.done.len() < self.lists.len() && since.elapsed() < PATIENCE {
            let waited = self.changed.wait_timeout(answers, PATIENCE.saturating_sub(since.elapsed()));
            answers = waited.unwrap_or_else(PoisonError::into_inner).0;
            if answers.progress != seen {
                (seen, since) = (answers.progress, Instant::now());
            }
        }
        std::mem::take(&mut *answers)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

    use super::*;
    use crate::{JoinHandle, Runtime};

    /// A runtime of one worker, whose goroutine runs until the flag is set, and yields or not.
    fn busy(yields: bool) -> (Runtime, Arc<AtomicBool>, Arc<AtomicUsize>, JoinHandle<()>) {
        let runtime = Runtime::builder().workers(1).build().unwrap();
        let (over, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (ends, counts) = (Arc::clone(&over), Arc::clone(&rounds));
        let goroutine = runtime.go(move || {
            while !ends.load(SeqCst) {
                counts.fetch_add(1, SeqCst);
                if yields {
                    crate::yield_now();
                }
            }
        });
        while rounds.load(SeqCst) == 0 {
            std::thread::yield_now();
        }
        (runtime, over, rounds, goroutine)
    }

    /// Z3: with a worker that is held lies nothing of what it was asked by those who wait no more.
    #[test]
    fn what_nobody_waits_for_is_not_kept() {
        let (runtime, over, _, goroutine) = busy(false);
        let processor = runtime.shared().processors()[0];
        let lists = vec![(processor, Mutex::default())];
        let request = Request { traces: Traces::Left, lists, answers: Mutex::default(), changed: Condvar::new() };
        let request = Arc::new(request);
        request.ask(0);
        assert!(request.wait().done.is_empty());
        let kept = Arc::downgrade(&request);
        drop(request);
        assert!(kept.upgrade().is_none());
        over.store(true, SeqCst);
        goroutine.join().unwrap();
        // It has come to the errand, and there is another census.
        assert!(Census::of(runtime.shared(), Traces::Left).held.is_empty());
    }

    /// Many that look at the same time do not stop a worker for the sum of their turns.
    #[test]
    fn goroutines_run_between_errands() {
        const ERRANDS: usize = 40;
        let (runtime, over, rounds, goroutine) = busy(true);
        let processor = runtime.shared().processors()[0];
        let (begin, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        for _ in 0..ERRANDS {
            let (begin, rounds, seen) = (Arc::clone(&begin), Arc::clone(&rounds), Arc::clone(&seen));
            processor.ask(Box::new(move |_: &Worker| {
                // The first one waits here until all have been asked for.
                while !begin.load(SeqCst) {
                    std::thread::yield_now();
                }
                let end = Instant::now() + TURN;
                while Instant::now() < end {}
                seen.lock().unwrap().push(rounds.load(SeqCst));
            }));
        }
        begin.store(true, SeqCst);
        while seen.lock().unwrap().len() < ERRANDS {
            std::thread::yield_now();
        }
        over.store(true, SeqCst);
        goroutine.join().unwrap();
        let mut seen = std::mem::take(&mut *seen.lock().unwrap());
        seen.dedup();
        assert_eq!(seen.len(), ERRANDS);
    }
}
