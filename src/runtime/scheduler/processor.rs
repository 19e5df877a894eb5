//! A processor: the face of a worker that others may touch. Go's P.
//!
//! - R1: processors are never freed. A waker may still be busy with `notify` when the goroutine it woke has ended and the worker
//!   with it; it then touches a processor that is idle or serves another runtime, which costs that one a look. Processors of
//!   ended runtimes are used again by later ones.
//! - R2: what is under `published` is written by the owner alone, with plain stores, but for `sockets`; others read it as hints.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicI64, AtomicU32, AtomicU64,
            Ordering::{Acquire, Relaxed},
            fence,
        },
    },
    time::{Duration, Instant},
};

use crossbeam_deque::{Injector, Stealer, Worker as Deque};
use crossbeam_utils::CachePadded;

#[cfg(target_os = "linux")]
use super::lending::Lending;
use super::{idle::Doze, inbox::Inbox, worker::Worker};
use crate::{
    debug::{trace::Recorder, watchdog::Watch},
    runtime::{
        clock,
        driver::poller::{Events, Poller},
        slot::Slot,
        task::TaskRef,
        threads::Tid,
    },
    util::vacant,
};

/// See the module.
pub(crate) struct Processor {
    inbox: CachePadded<Inbox<Slot>>,
    doze: CachePadded<Doze>,
    pub(crate) published: CachePadded<Published>,
    /// Not among what the owner writes all the time, since others look at it often.
    rest: CachePadded<Rest>,
    /// Fresh closures that were placed here: by `near`, `spread`, B3 and B5, those with a stack size of their own, and those for which there was no
    /// stack yet.
    pub(crate) given: Injector<TaskRef>,
    /// How others take fresh closures from the owner's deque, oldest first.
    pub(crate) stealer: Stealer<TaskRef>,
    /// The owner's end of the deque, while no worker uses this processor.
    deque: Mutex<Option<Deque<TaskRef>>>,
    /// What other threads want this worker to look at between two goroutines; code of this crate only.
    errands: Mutex<VecDeque<Errand>>,
    has_errands: AtomicBool,
    /// Whether the worker's thread is being moved to another worker's core, or moves another one to its own.
    #[cfg(target_os = "linux")]
    pub(crate) lending: Lending,
    poller: Poller,
    /// See [`notified_at`](Self::notified_at).
    notified_at: AtomicU64,
    /// See [`notified_on`](Self::notified_on).
    #[cfg(target_os = "linux")]
    notified_on: std::sync::atomic::AtomicUsize,
    /// The core on which the worker last got up; no core's number before.
    #[cfg(target_os = "linux")]
    pub(crate) got_up_on: std::sync::atomic::AtomicUsize,
    /// A worker polls.
    polled: AtomicBool,
    /// What the clock thread remembers of the worker.
    pub(crate) watch: CachePadded<Watch>,
    /// What a trace keeps of this worker.
    pub(crate) recorder: Recorder,
}

/// For how long a worker runs errands before it comes to goroutines: each ends soon, but there may be many.
const ERRANDS: Duration = Duration::from_millis(2);

/// Runs on the worker's own stack (P5: no user code).
pub(crate) type Errand = Box<dyn FnOnce(&Worker) + Send>;

/// What the owner tells the others (R2).
#[derive(Default)]
pub(crate) struct Published {
    /// Goroutines in the private run queue.
    pub(crate) load: AtomicU32,
    /// Counts scheduling points. A processor whose count stands still for a while is busy with one goroutine.
    pub(crate) rounds: AtomicU64,
    /// Counts the times the owner has looked at its timers and its poller between two goroutines, or has rested.
    pub(crate) looks: AtomicU64,
    /// The owner has passed a scheduling point and left fresh closures behind: many, or such as others may take however few they are (B1, B2, B4).
    pub(crate) fresh_left: AtomicBool,
    /// See [`takes_one_more`](Processor::takes_one_more).
    one_more: AtomicBool,
    /// Goroutines started through this worker's `go`, ended on it, and started on it.
    pub(crate) spawned: AtomicU64,
    pub(crate) ended: AtomicU64,
    pub(crate) started: AtomicU64,
    /// Goroutines that wait for a time, and those that wait for a descriptor, a process or a blocking call: such waits may end without any
    /// goroutine's doing.
    pub(crate) timed: AtomicU64,
    pub(crate) foreign: AtomicU64,
    /// Goroutines that wait for a lock without a time limit.
    pub(crate) locks: AtomicU64,
    /// Descriptors that its poller watches; several threads write it.
    pub(crate) sockets: AtomicI64,
    /// For `debug::metrics`.
    pub(crate) steals: AtomicU64,
    pub(crate) polls: AtomicU64,
    pub(crate) remote_wakes: AtomicU64,
}

/// When the owner was out of work.
#[derive(Default)]
struct Rest {
    /// The tick of the last time.
    last: AtomicU64,
    now: AtomicBool,
}

/// Takes from a counter that only the caller writes.
#[inline]
pub(crate) fn uncount(counter: &AtomicU64) {
    // ORDERING: Relaxed, as in `count`.
    counter.store(counter.load(Relaxed) - 1, Relaxed);
}

/// Adds to a counter that only the caller writes.
#[inline]
pub(crate) fn count(counter: &AtomicU64) {
    count_many(counter, 1);
}

/// As [`count`], of several.
#[inline]
pub(crate) fn count_many(counter: &AtomicU64, more: u64) {
    // ORDERING: Relaxed. One writer (R2); readers want a hint. Ends are ordered by the join or wake that follows them.
    counter.store(counter.load(Relaxed) + more, Relaxed);
}

impl std::fmt::Debug for Processor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Processor").field("load", &self.load()).field("live", &self.live()).finish_non_exhaustive()
    }
}

static SPARE: Mutex<Vec<&'static Processor>> = Mutex::new(Vec::new());

impl Processor {
    /// A processor that no worker uses: a spare one, or a new one.
    pub(crate) fn acquire() -> std::io::Result<&'static Self> {
        if let Some(spare) = SPARE.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(spare);
        }
        let deque = Deque::new_lifo();
        // While there is room in the table of descriptors.
        vacant::prepare();
        Ok(Box::leak(Box::new(Self {
            inbox: CachePadded::new(Inbox::new()),
            doze: CachePadded::new(Doze::new()),
            published: CachePadded::new(Published::default()),
            rest: CachePadded::new(Rest::default()),
            given: Injector::new(),
            stealer: deque.stealer(),
            deque: Mutex::new(Some(deque)),
            errands: Mutex::new(VecDeque::new()),
            has_errands: AtomicBool::new(false),
            #[cfg(target_os = "linux")]
            lending: Lending::new(),
            poller: Poller::new()?,
            notified_at: AtomicU64::new(0),
            #[cfg(target_os = "linux")]
            notified_on: std::sync::atomic::AtomicUsize::new(usize::MAX),
            #[cfg(target_os = "linux")]
            got_up_on: std::sync::atomic::AtomicUsize::new(usize::MAX),
            polled: AtomicBool::new(false),
            watch: CachePadded::new(Watch::default()),
            recorder: Recorder::new(),
        })))
    }

    /// Gives back a processor whose whole runtime has ended. Not earlier: the runtime's other workers look into it for closures, and
    /// would take those of the next one.
    pub(crate) fn release(&'static self) {
        // ORDERING: Relaxed. The lock below publishes the zeroes to the next user.
        let p = &self.published;
        p.load.store(0, Relaxed);
        p.fresh_left.store(false, Relaxed);
        p.one_more.store(false, Relaxed);
        for counter in [&p.spawned, &p.ended, &p.started, &p.looks, &p.steals, &p.polls, &p.remote_wakes] {
            counter.store(0, Relaxed);
        }
        for waiting in [&p.timed, &p.foreign, &p.locks] {
            waiting.store(0, Relaxed);
        }
        self.rest.last.store(0, Relaxed);
        self.rest.now.store(false, Relaxed);
        // `sockets` stays: what is still registered here is watched by the next worker, until somebody adopts it (D5 of `source`).
        self.watch.reset();
        self.doze.reset();
        self.errands.lock().unwrap_or_else(PoisonError::into_inner).clear();
        SPARE.lock().unwrap_or_else(PoisonError::into_inner).push(self);
    }

    pub(crate) fn take_deque(&self) -> Deque<TaskRef> {
        let deque = self.deque.lock().unwrap_or_else(PoisonError::into_inner).take();
        deque.expect("a processor has one worker at a time")
    }

    /// Puts back what [`take_deque`](Self::take_deque) gave.
    pub(crate) fn put_deque(&self, deque: Deque<TaskRef>) {
        *self.deque.lock().unwrap_or_else(PoisonError::into_inner) = Some(deque);
    }

    /// The owner's count of scheduling points.
    #[inline]
    pub(crate) fn rounds(&self) -> u64 {
        // ORDERING: Relaxed. A hint.
        self.published.rounds.load(Relaxed)
    }

    /// The worker's thread; 0 when it has ended or not begun.
    pub(crate) fn thread(&self) -> Tid {
        // ORDERING: Relaxed. A hint.
        Tid::try_from(self.watch.thread.load(Relaxed)).unwrap_or(0)
    }

    #[inline]
    pub(crate) fn inbox(&self) -> &Inbox<Slot> {
        &self.inbox
    }

    #[inline]
    pub(crate) fn doze(&self) -> &Doze {
        &self.doze
    }

    #[inline]
    pub(crate) fn poller(&self) -> &Poller {
        &self.poller
    }

    /// Ends the worker's sleep, if it sleeps. Call after publishing what it is to find (W2, W3 of `idle`).
    #[inline]
    pub(crate) fn notify(&self) {
        if self.doze.notify() {
            self.end_sleep();
        }
    }

    /// As [`notify`](Self::notify), for a caller that has fenced. True when it was asleep.
    pub(crate) fn notify_fenced(&self) -> bool {
        let slept = self.doze.notify_fenced();
        if slept {
            self.end_sleep();
        }
        slept
    }

    #[cold]
    fn end_sleep(&self) {
        // ORDERING: Relaxed. A measurement: a worker that had got up by itself may find the time of its sleep before.
        self.notified_at.store(clock::nanos(Instant::now()), Relaxed);
        // ORDERING: Relaxed, as above.
        #[cfg(target_os = "linux")]
        self.notified_on.store(rustix::thread::sched_getcpu(), Relaxed);
        self.poller.notify();
        clock::expect_active();
    }

    /// The core on which somebody last ended the worker's sleep; no core's number before.
    #[cfg(target_os = "linux")]
    pub(crate) fn notified_on(&self) -> usize {
        // ORDERING: Relaxed. A hint.
        self.notified_on.load(Relaxed)
    }

    /// When somebody last ended the worker's sleep, as [`clock::nanos`] counts.
    pub(crate) fn notified_at(&self) -> u64 {
        // ORDERING: Relaxed, as above.
        self.notified_at.load(Relaxed)
    }

    /// The tick in which the owner was last out of work.
    pub(crate) fn last_rest(&self) -> u64 {
        // ORDERING: Relaxed. A hint.
        self.rest.last.load(Relaxed)
    }

    /// Whether the owner sleeps, searches, or has not begun.
    pub(crate) fn is_out_of_work(&self) -> bool {
        // ORDERING: Relaxed. A hint.
        self.doze.is_resting() || self.rest.now.load(Relaxed)
    }

    /// The owner is out of work, in the tick `now`.
    pub(crate) fn rests(&self, now: u64) {
        // ORDERING: Relaxed, as above.
        if self.rest.last.load(Relaxed) != now {
            self.rest.last.store(now, Relaxed);
        }
        self.rest.now.store(true, Relaxed);
    }

    /// The owner may have found something to do.
    pub(crate) fn ends_rest(&self) {
        // ORDERING: Relaxed, as above.
        self.rest.now.store(false, Relaxed);
    }

    /// Whether others may take this worker's oldest fresh closure, as far as one look tells.
    pub(crate) fn leaves_fresh(&self) -> bool {
        // ORDERING: Relaxed. A hint; the steal decides.
        self.published.fresh_left.load(Relaxed) && !self.stealer.is_empty()
    }

    /// Whether the owner was notified and does not get up, or has not begun: its thread has no core. What was placed here is better taken by others.
    pub(crate) fn is_late(&self) -> bool {
        self.doze.is_notified() && self.watch.late()
    }

    /// Whether the owner, when it looked last, had a few that compute, so that it takes a closure from whoever has one more to run (B1).
    pub(crate) fn takes_one_more(&self) -> bool {
        // ORDERING: Relaxed. A hint.
        self.published.one_more.load(Relaxed)
    }

    pub(crate) fn set_takes_one_more(&self, takes: bool) {
        let word = &self.published.one_more;
        // ORDERING: Relaxed. One writer (R2). Others read it, so it is written when it changes.
        if word.load(Relaxed) != takes {
            word.store(takes, Relaxed);
        }
    }

    /// Has the worker run `errand` soon; never, when its worker has ended.
    pub(crate) fn ask(&self, errand: Errand) {
        self.errands.lock().unwrap_or_else(PoisonError::into_inner).push_back(errand);
        // ORDERING: Relaxed. `notify` fences; the lock carries the errand.
        self.has_errands.store(true, Relaxed);
        self.notify();
    }

    #[inline]
    pub(crate) fn has_errands(&self) -> bool {
        // ORDERING: Relaxed, as in `ask`.
        self.has_errands.load(Relaxed)
    }

    /// Those that wait, the oldest first, for a while.
    pub(crate) fn run_errands(&self, worker: &Worker) {
        let begin = Instant::now();
        loop {
            let mut errands = self.errands.lock().unwrap_or_else(PoisonError::into_inner);
            let errand = errands.pop_front();
            // ORDERING: Relaxed. Under the lock: whoever puts in more after this says so after this.
            self.has_errands.store(!errands.is_empty(), Relaxed);
            drop(errands);
            let Some(errand) = errand else { return };
            errand(worker);
            if begin.elapsed() >= ERRANDS {
                return;
            }
        }
    }

    /// Goroutines that have started here and not ended.
    pub(crate) fn live(&self) -> u64 {
        // An end is counted after its start. Read in this order the difference is not negative, but where stores may overtake each other.
        let ended = self.published.ended.load(Relaxed);
        fence(Acquire);
        self.published.started.load(Relaxed).saturating_sub(ended)
    }

    /// Whether goroutines live here, which cannot go elsewhere.
    pub(crate) fn is_settled(&self) -> bool {
        self.live() > 0
    }

    /// Hands a woken goroutine, or a chain of them, to this worker from another thread.
    #[inline]
    pub(crate) fn deliver(&self, newest: &'static Slot, oldest: &'static Slot) {
        self.inbox.push_chain(newest, oldest);
        self.notify();
    }

    /// Places a fresh closure here.
    pub(crate) fn give(&self, task: TaskRef) {
        self.given.push(task);
        self.notify();
    }

    /// Looks at the poller in place of the worker, which a goroutine holds: those who wait for its descriptors may live elsewhere (E1).
    pub(crate) fn poll_in_place(&self, events: &mut Events) {
        if self.sockets() > 0 {
            // The worker meets the same error when it polls, and knows how to go on.
            let _ = self.poller.poll_in_place(events);
        }
    }

    /// Whether anybody looks at the poller (D5 of `source`).
    #[inline]
    pub(crate) fn is_polled(&self) -> bool {
        // ORDERING: Relaxed. The tick that the caller has read before orders this look (D5).
        self.polled.load(Relaxed)
    }

    /// The worker begins.
    pub(crate) fn start_polling(&self) {
        // ORDERING: Relaxed. Stands for itself: whoever sees it is served, sooner or later.
        self.polled.store(true, Relaxed);
    }

    /// The worker ends: whoever waits for a descriptor that it watched finds another watcher.
    pub(crate) fn stop_polling(&'static self) {
        // ORDERING: Relaxed. The events counted below publish it.
        self.polled.store(false, Relaxed);
        if self.sockets() > 0 {
            crate::runtime::driver::source::worker_has_ended(self);
        }
    }

    pub(crate) fn sockets_changed(&self, by: i64) {
        // ORDERING: Relaxed. A count for others' decisions; several threads write it.
        self.published.sockets.fetch_add(by, Relaxed);
    }

    pub(crate) fn sockets(&self) -> i64 {
        self.published.sockets.load(Relaxed)
    }

    pub(crate) fn load(&self) -> u32 {
        self.published.load.load(Relaxed)
    }

    /// How many goroutines run, are ready, or are to start here, as far as it was published.
    pub(crate) fn ready(&self) -> u32 {
        let started = if self.is_out_of_work() { 0 } else { self.load() + 1 };
        started + self.given.len() as u32
    }

    /// Publishes a new length of the run queue.
    #[inline]
    pub(crate) fn set_load(&self, load: u32) {
        self.published.load.store(load, Relaxed);
    }
}
