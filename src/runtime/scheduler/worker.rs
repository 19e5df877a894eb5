//! A worker: one OS thread that starts fresh closures and runs the goroutines it has started.
//!
//! # Who owns what
//!
//! - Everything in [`Worker`] belongs to its thread; goroutines of that thread reach it through a thread-local pointer. Its fields
//!   are cells, and no reference into them lives across a switch (P5).
//! - What others may touch is in the worker's [`Processor`].
//!
//! # What runs next
//!
//! 1. the hand-off slot: the goroutine that the last one woke. It inherits the rest of that one's slice (operations and ticks), so
//!    that a pair that talks stays together but cannot starve the queue;
//! 2. the private run queue, fed by local wakes, the inbox, timers and the poller;
//! 3. fresh closures, the newest first: depth first keeps few stacks alive. The pool of older ones is what thieves take from;
//! 4. what was given to this worker, the runtime's injector, other workers' oldest closures;
//! 5. a short search, then sleep in the poller.
//!
//! Every 61st round, and whenever the coarse clock has moved on, a worker first looks at its inbox, timers, poller, and at the
//! places of 4.
//!
//! # Balance
//!
//! - B1: a worker prefers what it has started. When fresh closures have waited behind a run queue for more than a tick, the
//!   oldest may start, at most every other round, and only where no other worker is less loaded; otherwise a less loaded one is
//!   made sure to be awake, and takes it.
//! - B2: a pair that talks stays together, load spreads as soon as it exists. When a scheduling point has passed over many fresh closures
//!   (at least `MANY`), others may take them, one at a time, the oldest. Fewer are taken only from an owner that has stood still for a
//!   while (`STALL`): one that comes to scheduling points quickly starts them itself after `PATIENCE` of those. What was placed by a hint
//!   is left to its worker unless that one stands still for long (`STALL_PLACED`).
//! - B3: the goroutine started next after a successful `accept` is the connection's handler; it goes to the worker with the fewest
//!   connections.

use std::{
    cell::{Cell, RefCell},
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, SeqCst},
        atomic::fence,
    },
    time::{Duration, Instant},
};

use crossbeam_deque::{Steal, Worker as Deque};

use super::{
    processor::{Processor, count},
    run_queue::RunQueue,
};
use crate::{
    debug::{
        hooks::{self, TRACE},
        trace,
    },
    runtime::{
        clock,
        driver::{poller::Events, timers::Timers},
        lifecycle::{self, Shared},
        park::Wake,
        slot::Slot,
        task::TaskRef,
        threads,
    },
    stack::Cache,
};

/// Operations in one slice. The clock ends most slices; this bounds those that finish within one tick.
const BUDGET: u32 = 4096;
/// Ticks in one slice.
const SLICE: u64 = 3;
/// What a system call takes of the budget: a peer that answers at once would keep the worker from the others for a whole slice.
const CALL: u32 = BUDGET / 32;
/// Rounds after which a worker looks at everything else first, as Go's scheduler does.
const LOOK_AROUND: u32 = 61;
/// The longest search before sleep.
const SEARCH_MAX: Duration = Duration::from_micros(50);
/// The shortest search that is worth beginning.
const SEARCH_MIN: Duration = Duration::from_micros(2);
/// Looks at the inbox between two looks everywhere, with a pause after each.
const ANSWER_LOOKS: u32 = 16;
/// How long a worker naps at first while others are busy, doubling up to `NAP_MAX`, before it sleeps for good.
const NAP_MIN: Duration = Duration::from_micros(20);
const NAP_MAX: Duration = Duration::from_millis(2);
/// Fresh closures that are many enough for thieves to share at once.
const MANY: usize = 4;
/// Scheduling points within one tick that pass over fewer before one of them is started.
const PATIENCE: u32 = 16;
/// A closure behind an owner that has stood still this long may be taken.
const STALL: Duration = Duration::from_micros(20);
/// The same for closures that were placed by a hint or with their connection: the owner may just have lost its core for a moment.
const STALL_PLACED: Duration = Duration::from_millis(10);
/// Idle stacks given back to the kernel between two looks for work.
const TRIM_BATCH: usize = 64;
/// How long a worker that has more to give back sleeps while others are at work.
const TRIM_PAUSE: Duration = Duration::from_millis(1);
/// Ticks between two times at which a worker gives back what deep calls have touched, as far as it is busy in between.
const TRIM_DEEP_PAUSE: u64 = 16;

thread_local! {
    // No destructor, constant initialiser: reading it is one load, and it is there until the thread is gone (P5).
    static CURRENT: Cell<*const Worker> = const { Cell::new(std::ptr::null()) };
}

/// See the module.
pub(crate) struct Worker {
    pub(crate) runtime: Arc<Shared>,
    pub(crate) processor: &'static Processor,
    index: usize,
    current: Cell<Option<&'static Slot>>,
    handoff: Cell<Option<&'static Slot>>,
    queue: RunQueue<Slot>,
    fresh: Deque<TaskRef>,
    /// A closure for which there was no stack.
    stalled: Cell<Option<TaskRef>>,
    budget: Cell<u32>,
    slice_start: Cell<u64>,
    rounds: Cell<u32>,
    last_look: Cell<u64>,
    /// B1: since when fresh closures wait behind the queue, how many of them did then, and whose turn it is.
    fresh_since: Cell<u64>,
    fresh_credit: Cell<usize>,
    fresh_turn: Cell<bool>,
    /// B2: scheduling points before a few fresh closures are started, zero when there were none; in which tick they were counted; the tick
    /// in which a thief was last woken for a few.
    fresh_patience: Cell<u32>,
    fresh_tick: Cell<u64>,
    few_woken: Cell<u64>,
    /// The tick in which pages were last given back while others were at work.
    last_trim: Cell<u64>,
    /// The same for the pages of deep calls.
    last_trim_deep: Cell<u64>,
    /// The last goroutine gave up its turn by itself.
    yielded: Cell<bool>,
    timers: RefCell<Timers<Slot>>,
    stacks: RefCell<Cache<Slot>>,
    /// Stacks that are reserved for closures not yet started, and not spoken for.
    credits: Cell<u32>,
    next_id: Cell<u64>,
    last_id: Cell<u64>,
    events: RefCell<Events>,
    search: Cell<Duration>,
    /// How many times in a row the worker went to sleep without having found anything before.
    vain: Cell<u32>,
    /// For B2: what each other worker's round count was, and when it was first seen so.
    watched: RefCell<Vec<(u64, Instant)>>,
    seed: Cell<u32>,
    in_hook: Cell<bool>,
    #[cfg(debug_assertions)]
    no_switch: Cell<u32>,
}

enum Next {
    Started(&'static Slot),
    Fresh(TaskRef),
}

impl Worker {
    pub(crate) fn new(runtime: Arc<Shared>, index: usize) -> Self {
        let processor = runtime.processors()[index];
        let now = Instant::now();
        let workers = runtime.processors().len();
        Self {
            processor,
            index,
            current: Cell::new(None),
            handoff: Cell::new(None),
            queue: RunQueue::new(),
            fresh: processor.take_deque(),
            stalled: Cell::new(None),
            budget: Cell::new(BUDGET),
            slice_start: Cell::new(0),
            rounds: Cell::new(0),
            last_look: Cell::new(0),
            fresh_since: Cell::new(0),
            fresh_credit: Cell::new(0),
            fresh_turn: Cell::new(false),
            fresh_patience: Cell::new(0),
            fresh_tick: Cell::new(0),
            few_woken: Cell::new(0),
            last_trim: Cell::new(0),
            last_trim_deep: Cell::new(0),
            yielded: Cell::new(false),
            timers: RefCell::new(Timers::new()),
            stacks: RefCell::new(Cache::new(runtime.stacks())),
            credits: Cell::new(0),
            next_id: Cell::new(0),
            last_id: Cell::new(0),
            events: RefCell::new(Events::new()),
            search: Cell::new(SEARCH_MAX / 2),
            vain: Cell::new(0),
            watched: RefCell::new(vec![(0, now); workers]),
            seed: Cell::new(0x9E37_79B9 ^ (index as u32 + 1)),
            in_hook: Cell::new(false),
            #[cfg(debug_assertions)]
            no_switch: Cell::new(0),
            runtime,
        }
    }

    /// The worker that the calling thread is, if it is one.
    #[inline]
    pub(crate) fn current<'a>() -> Option<&'a Self> {
        let worker = CURRENT.get();
        // SAFETY: `run` sets the pointer for as long as the worker exists, and the worker outlives every frame of its goroutines
        // (W1: it ends only when the last of them has). The lifetime is the caller's frame at most.
        unsafe { worker.as_ref() }
    }

    /// Runs until the runtime has been given up and the last goroutine of this worker has ended.
    pub(crate) fn run(self) {
        CURRENT.set(&self);
        crate::util::biased::enlist();
        self.processor.start_polling();
        // ORDERING: Relaxed. The clock thread may learn of it late.
        self.processor.watch.thread.store(threads::current().into(), Relaxed);
        self.count_round();
        self.processor.doze().wake_up();
        clock::active();
        loop {
            match self.next() {
                Some(Next::Started(slot)) => self.execute(slot),
                Some(Next::Fresh(task)) => self.start(task),
                None if self.may_end() => break,
                None => self.rest(),
            }
        }
        // To the others a worker that has ended is one that sleeps.
        self.runtime.idle().sleeps();
        self.processor.doze().announce();
        self.processor.watch.thread.store(0, Relaxed);
        CURRENT.set(std::ptr::null());
        self.processor.stop_polling();
        self.runtime.give_back_credits(self.credits.get());
        self.stacks.borrow_mut().give_back_all();
        self.processor.put_deque(self.fresh);
    }

    // ---- running ---------------------------------------------------------------------------------------------------------

    #[inline]
    fn execute(&self, slot: &'static Slot) {
        self.current.set(Some(slot));
        if hooks::on(TRACE) {
            trace::resumes(self.processor, slot);
        }
        let ended = slot.resume();
        self.current.set(None);
        if hooks::on(TRACE) {
            trace::suspends(self.processor, slot, ended);
        }
        if ended {
            self.retire(slot);
        }
    }

    #[inline]
    fn retire(&self, slot: &'static Slot) {
        slot.clear_task();
        if slot.own_stack().take() {
            lifecycle::stack_pool_of(slot).put_one(slot);
            return;
        }
        self.stacks.borrow_mut().put(slot);
        self.credit();
    }

    fn start(&self, task: TaskRef) {
        let Some(slot) = self.stack_for(task) else {
            // Every closure has a stack reserved, so only the kernel's own memory can be short. Try again later, one at a time: what
            // else was to start waits with what others have given to this worker, which is not looked at in every round.
            if self.stalled.get().is_none() {
                self.stalled.set(Some(task));
            } else {
                self.processor.given.push(task);
            }
            return;
        };
        count(&self.processor.published.started);
        slot.start(self.processor, task);
        self.execute(slot);
    }

    #[inline]
    fn stack_for(&self, task: TaskRef) -> Option<&'static Slot> {
        if let Some(unit) = task.unit() {
            // SAFETY: a task that has not started and knows a unit has a slot of its own.
            return Some(unsafe { Slot::of(unit) });
        }
        let taken = self.stacks.borrow_mut().take();
        taken.or_else(|| self.refill())
    }

    #[cold]
    fn refill(&self) -> Option<&'static Slot> {
        let mut stacks = self.stacks.borrow_mut();
        self.runtime.stacks().refill(&mut stacks, 32).ok()?;
        stacks.take()
    }

    /// The goroutine that runs on this thread now; none while the worker itself or a panic hook runs.
    #[inline]
    pub(crate) fn running(&self) -> Option<&'static Slot> {
        if self.in_hook.get() { None } else { self.current.get() }
    }

    /// As [`running`](Self::running), in a panic hook too.
    pub(crate) fn running_or_panicking(&self) -> Option<&'static Slot> {
        self.current.get()
    }

    pub(crate) fn in_hook(&self) -> &Cell<bool> {
        &self.in_hook
    }

    #[cfg(debug_assertions)]
    pub(crate) fn no_switch(&self) -> &Cell<u32> {
        &self.no_switch
    }

    // ---- parking and waking, called by goroutines ------------------------------------------------------------------------

    /// Puts a goroutine of this worker, whose claim the caller holds, where it will run.
    #[inline]
    pub(crate) fn ready(&self, slot: &'static Slot, how: Wake) {
        match how {
            Wake::Queue => self.queue.push_back(slot),
            Wake::Handoff => {
                if let Some(before) = self.handoff.replace(Some(slot)) {
                    self.queue.push_back(before);
                }
            }
        }
    }

    /// Puts the running goroutine behind all that are ready; it suspends next.
    #[inline]
    pub(crate) fn requeue(&self, slot: &'static Slot) {
        self.queue.push_back(slot);
        self.yielded.set(true);
    }

    /// Whether anything else is ready here, as far as one look tells.
    #[inline]
    pub(crate) fn is_alone(&self) -> bool {
        self.handoff.get().is_none()
            && self.queue.is_empty()
            && self.fresh.is_empty()
            && self.processor.inbox().is_empty()
    }

    /// Begins a new slice for a goroutine that would be chosen again anyway; true when the worker should look around.
    #[inline]
    pub(crate) fn renew_slice(&self) -> bool {
        let now = clock::now();
        self.budget.set(BUDGET);
        self.slice_start.set(now);
        let rounds = self.count_round();
        rounds.is_multiple_of(LOOK_AROUND) || now != self.last_look.get()
    }

    /// Counts one scheduling point.
    #[inline]
    fn count_round(&self) -> u32 {
        let rounds = self.rounds.get().wrapping_add(1);
        self.rounds.set(rounds);
        // ORDERING: Relaxed. One writer; a hint for B2.
        self.processor.published.rounds.store(u64::from(rounds), Relaxed);
        rounds
    }

    /// Counts one operation; true when the slice is used up and somebody else could run.
    #[inline]
    pub(crate) fn spend(&self) -> bool {
        let left = self.budget.get();
        if left > 1 {
            self.budget.set(left - 1);
            // The clock is looked at now and then only.
            if !left.is_multiple_of(64) || clock::now().wrapping_sub(self.slice_start.get()) < SLICE {
                return false;
            }
        }
        true
    }

    /// Counts one system call that could have parked; true when the slice is used up. Then the worker looks around, since those who wait for
    /// the poller stand in no queue.
    #[inline]
    pub(crate) fn spend_call(&self) -> bool {
        let left = self.budget.get();
        if left > CALL {
            self.budget.set(left - CALL);
            if clock::now().wrapping_sub(self.slice_start.get()) < SLICE {
                return false;
            }
        }
        self.last_look.set(u64::MAX);
        true
    }

    /// Arms the timer of the running goroutine.
    pub(crate) fn arm_timer(&self, slot: &'static Slot, deadline: Instant) {
        self.timers.borrow_mut().arm(deadline, slot);
    }

    pub(crate) fn disarm_timer(&self, slot: &'static Slot) {
        self.timers.borrow_mut().cancel(slot);
    }

    // ---- fresh closures --------------------------------------------------------------------------------------------------

    /// An id for a closure that this worker's goroutine starts.
    #[inline]
    pub(crate) fn new_id(&self) -> u64 {
        let id = self.next_id.get();
        if id == self.last_id.get() {
            let block = crate::runtime::lifecycle::id_block();
            self.next_id.set(block.start + 1);
            self.last_id.set(block.end);
            return block.start;
        }
        self.next_id.set(id + 1);
        id
    }

    /// Reserves a stack for one closure.
    #[inline]
    pub(crate) fn reserve(&self) -> std::io::Result<()> {
        let credits = self.credits.get();
        if credits == 0 {
            self.runtime.reserve(64)?;
            self.credits.set(63);
        } else {
            self.credits.set(credits - 1);
        }
        Ok(())
    }

    #[inline]
    fn credit(&self) {
        let credits = self.credits.get() + 1;
        if credits >= 256 {
            self.runtime.give_back_credits(128);
            self.credits.set(credits - 128);
        } else {
            self.credits.set(credits);
        }
    }

    /// Takes in a fresh closure that a goroutine of this worker has made. Never switches (P4).
    #[inline]
    pub(crate) fn push_fresh(&self, task: TaskRef) {
        count(&self.processor.published.spawned);
        if self.current.get().is_some_and(|slot| slot.accepted().take()) {
            return self.place_connection(task);
        }
        if self.fresh_patience.get() == 0 {
            self.fresh_patience.set(PATIENCE);
        }
        self.fresh.push(task);
    }

    /// B3.
    #[cold]
    fn place_connection(&self, task: TaskRef) {
        // Those that were given away and have not started yet count as well.
        let sockets = |p: &Processor| p.sockets() + p.given.len() as i64;
        let processors = self.runtime.processors().iter().copied();
        let least = processors.min_by_key(|p| sockets(p)).expect("a runtime has a worker");
        if sockets(least) >= sockets(self.processor) + self.fresh.len() as i64 {
            self.fresh.push(task);
        } else {
            self.runtime.place(least, task);
        }
    }

    // ---- the loop --------------------------------------------------------------------------------------------------------

    #[inline]
    fn next(&self) -> Option<Next> {
        if self.fresh_patience.get() != 0
            && let Some(task) = self.few_fresh()
        {
            return Some(Next::Fresh(task));
        }
        if let Some(slot) = self.handoff.take() {
            let budget = self.budget.get();
            if budget > 1 && (!budget.is_multiple_of(16) || clock::now().wrapping_sub(self.slice_start.get()) < SLICE) {
                self.budget.set(budget - 1);
                return Some(Next::Started(slot));
            }
            self.queue.push_back(slot);
        }
        let now = clock::now();
        self.budget.set(BUDGET);
        self.slice_start.set(now);
        let rounds = self.count_round();
        if rounds.is_multiple_of(LOOK_AROUND) || now != self.last_look.get() {
            self.last_look.set(now);
            if let Some(task) = self.look_around(rounds) {
                return Some(Next::Fresh(task));
            }
        }
        if !self.processor.inbox().is_empty() {
            self.drain_inbox();
        }
        if !self.queue.is_empty() {
            if !self.fresh.is_empty()
                && let Some(task) = self.fresh_before_queue(now)
            {
                return Some(Next::Fresh(task));
            }
            let slot = self.queue.pop_front();
            self.processor.set_load(self.queue.len());
            self.publish_fresh(now);
            return slot.map(Next::Started);
        }
        self.processor.set_load(0);
        if let Some(task) = self.fresh.pop() {
            self.publish_fresh(now);
            return Some(Next::Fresh(task));
        }
        self.publish_fresh(now);
        self.next_elsewhere()
    }

    /// The rest of the order, for a worker that has nothing of its own.
    #[cold]
    fn next_elsewhere(&self) -> Option<Next> {
        if self.stalled.get().is_some() && !self.stacks.borrow().is_warm() {
            std::thread::sleep(Duration::from_millis(1));
        }
        // To poll is a system call, and costs more than what a thief may be about to run: `next` sees to it that it happens often enough.
        if self.stalled.get().is_none()
            && let Some(task) = self.take_elsewhere()
        {
            return Some(Next::Fresh(task));
        }
        if self.processor.has_errands() {
            self.processor.run_errands(self);
        }
        // Events first: a wait must not time out although what it waits for is there.
        let looks = self.processor.sockets() > 0 && self.looks_before_sleep();
        if (looks || self.timers.borrow_mut().is_due()) && self.poll(Some(Duration::ZERO)) > 0 {
            self.vain.set(0);
        }
        self.fire_timers();
        self.drain_inbox();
        if let Some(slot) = self.queue.pop_front() {
            return Some(Next::Started(slot));
        }
        // After timers and events: what ends meanwhile may leave the stack that this one waits for.
        self.stalled.take().or_else(|| self.take_elsewhere()).map(Next::Fresh)
    }

    #[inline]
    fn drain_inbox(&self) {
        self.processor.inbox().take(|slot| self.queue.push_back(slot));
    }

    /// B2: tells thieves whether a scheduling point has passed over many fresh closures, and wakes one when some are left.
    #[inline]
    fn publish_fresh(&self, now: u64) {
        let left = self.fresh.len();
        let many = left >= MANY;
        let flag = &self.processor.published.fresh_left;
        // ORDERING: Relaxed. One writer; `wake_one` fences before it looks for sleepers.
        if many != flag.load(Relaxed) {
            flag.store(many, Relaxed);
        }
        // A few are most often started here before anybody has got up, so that is tried once a tick.
        if left > 0 && self.runtime.idle().wants_waking() && (many || self.few_woken.replace(now) != now) {
            self.runtime.wake_one();
        }
    }

    /// B2: when a few fresh closures have been passed over by a number of quick scheduling points, the newest. Its owner would be back
    /// here long before a thief had got up, and what it talks to is here.
    fn few_fresh(&self) -> Option<TaskRef> {
        let now = clock::now();
        if self.fresh_tick.get() != now {
            self.fresh_tick.set(now);
            self.fresh_patience.set(PATIENCE);
        }
        let left = self.fresh_patience.get() - 1;
        self.fresh_patience.set(left);
        if left > 0 {
            return None;
        }
        let few = self.fresh.len();
        if few > 1 {
            self.fresh_patience.set(PATIENCE);
        }
        if few < MANY { self.fresh.pop() } else { None }
    }

    /// B1. Called with a run queue and fresh closures that wait behind it.
    fn fresh_before_queue(&self, now: u64) -> Option<TaskRef> {
        // Whoever yields with nobody else ready waits for something, perhaps for a closure of its own.
        if self.yielded.take() && self.queue.len() == 1 {
            return self.fresh.pop();
        }
        let turn = !self.fresh_turn.get();
        self.fresh_turn.set(turn);
        if self.fresh_credit.get() == 0 {
            self.fresh_since.set(now);
            self.fresh_credit.set(self.fresh.len());
            return None;
        }
        if !turn || now.wrapping_sub(self.fresh_since.get()) < 2 {
            return None;
        }
        let mine = self.queue.len();
        if self.runtime.processors().iter().any(|p| p.load() + 1 < mine) {
            self.runtime.wake_one();
            return None;
        }
        self.fresh_credit.set(self.fresh_credit.get() - 1);
        steal(|| self.processor.stealer.steal())
    }

    /// Looks at everything that a busy worker would otherwise pass over.
    #[cold]
    fn look_around(&self, rounds: u32) -> Option<TaskRef> {
        if self.processor.has_errands() {
            self.processor.run_errands(self);
        }
        // Events first, as in `next_elsewhere`.
        self.poll(Some(Duration::ZERO));
        self.fire_timers();
        self.drain_inbox();
        // With no stack here either: the kernel may have memory again.
        if let Some(task) = self.stalled.take() {
            return Some(task);
        }
        // What was placed here or comes from outside starts even while this worker is busy, but one at a time.
        if rounds.is_multiple_of(2) {
            steal(|| self.processor.given.steal()).or_else(|| steal(|| self.runtime.injector().steal()))
        } else {
            None
        }
    }

    /// A fresh closure from anywhere but the own deque.
    fn take_elsewhere(&self) -> Option<TaskRef> {
        if let Some(task) = steal(|| self.processor.given.steal()) {
            return Some(task);
        }
        if let Some(task) = steal(|| self.runtime.injector().steal()) {
            return Some(task);
        }
        self.steal_from_others()
    }

    fn steal_from_others(&self) -> Option<TaskRef> {
        let processors = self.runtime.processors();
        if processors.len() == 1 {
            return None;
        }
        let first = self.random(processors.len());
        for i in 0..processors.len() {
            let index = (first + i) % processors.len();
            if index == self.index {
                continue;
            }
            let victim = processors[index];
            let mut found = None;
            if victim.leaves_fresh() {
                found = steal(|| victim.stealer.steal());
            }
            if found.is_none() {
                let stall = self.stall(index, victim);
                if stall >= STALL {
                    found = steal(|| victim.stealer.steal());
                }
                if found.is_none() && stall >= STALL_PLACED {
                    found = steal(|| victim.given.steal());
                }
            }
            if let Some(task) = &found {
                count(&self.processor.published.steals);
                if hooks::on(TRACE) {
                    trace::steals(task, victim);
                }
                return found;
            }
        }
        None
    }

    /// B2: for how long the victim has had closures to start and has not come to a scheduling point. One that rests does not count: it has
    /// no closures of its own, and whoever placed one there has notified it.
    fn stall(&self, index: usize, victim: &Processor) -> Duration {
        if victim.doze().is_resting() || (victim.stealer.is_empty() && victim.given.is_empty()) {
            return Duration::ZERO;
        }
        // ORDERING: Relaxed. A hint.
        let rounds = victim.published.rounds.load(Relaxed);
        let mut watched = self.watched.borrow_mut();
        let (seen, since) = &mut watched[index];
        if *seen != rounds {
            *seen = rounds;
            *since = Instant::now();
            return Duration::ZERO;
        }
        since.elapsed()
    }

    fn random(&self, below: usize) -> usize {
        // Marsaglia's xorshift.
        let mut x = self.seed.get();
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        self.seed.set(x);
        x as usize % below
    }

    /// Wakes the goroutines whose time has come.
    fn fire_timers(&self) {
        if self.timers.borrow().is_empty() {
            return;
        }
        self.timers.borrow_mut().fire(Instant::now(), |slot| {
            if slot.unit().try_claim_open() {
                slot.timed_out().set(true);
                if hooks::on(TRACE) {
                    trace::timer_wakes(slot);
                }
                self.queue.push_back(slot);
            }
        });
    }

    /// How many events there were.
    fn poll(&self, timeout: Option<Duration>) -> usize {
        let mut events = self.events.borrow_mut();
        count(&self.processor.published.polls);
        // A poller that fails has lost its descriptor, which nothing here can mend; time-outs keep the worker going.
        let mut poll = || self.processor.poller().poll(&mut events, timeout);
        let polled = if hooks::on(TRACE) { trace::polls(self.processor, timeout, poll) } else { poll() };
        polled.unwrap_or_else(|_| {
            std::thread::sleep(Duration::from_millis(1));
            0
        })
    }

    // ---- idleness --------------------------------------------------------------------------------------------------------

    fn may_end(&self) -> bool {
        if !self.runtime.is_closed() {
            return false;
        }
        // Partner of the fence in `Shared::place`: what was placed here before its caller saw `closed` is seen below.
        fence(SeqCst);
        self.processor.live() == 0 && self.stalled.get().is_none() && !self.has_work()
    }

    /// Whether there is anything for this worker to do now.
    fn has_work(&self) -> bool {
        !self.queue.is_empty()
            || !self.processor.inbox().is_empty()
            || !self.fresh.is_empty()
            || !self.processor.given.is_empty()
            || !self.runtime.injector().is_empty()
            || self.processor.has_errands()
            || self.others_leave_work()
    }

    /// What was placed with others does not count: they were notified, and the clock thread looks whether they stand still.
    fn others_leave_work(&self) -> bool {
        let processors = self.runtime.processors();
        processors.iter().enumerate().any(|(i, p)| i != self.index && p.leaves_fresh())
    }

    fn others_stand_still(&self) -> bool {
        let processors = self.runtime.processors();
        processors
            .iter()
            .enumerate()
            .any(|(i, p)| i != self.index && !p.stealer.is_empty() && self.stall(i, p) >= STALL)
    }

    /// Searches, then sleeps, until there may be something to do.
    #[cold]
    fn rest(&self) {
        let looks = self.looks_before_sleep();
        self.vain.set(self.vain.get().wrapping_add(1));
        if looks && self.may_search() && self.search() {
            self.vain.set(0);
            return;
        }
        let begin = Instant::now();
        self.sleep();
        // A search as long as this sleep would have paid.
        let slept = begin.elapsed();
        if slept < SEARCH_MAX && !self.processor.inbox().is_empty() {
            self.vain.set(0);
            self.search.set(slept.max(SEARCH_MIN));
        }
    }

    /// Whether a search takes nothing from anybody: there are others who may bring work, and a core for each that is awake or gets up.
    fn may_search(&self) -> bool {
        let (processors, cores) = (self.runtime.processors(), self.runtime.cores());
        let awake = || processors.iter().filter(|p| !p.doze().is_asleep()).count();
        processors.len() > 1 && cores > 1 && (processors.len() <= cores || awake() <= cores)
    }

    /// Whether to poll without waiting and to search before going to sleep. Where that has found nothing several times in a row, as with
    /// connections that wait for their peers, it is done now and then only: the sleep polls as well.
    fn looks_before_sleep(&self) -> bool {
        let vain = self.vain.get();
        vain < 4 || vain.is_multiple_of(16)
    }

    /// Looks for work for a moment. The moment grows when it paid and shrinks when it did not.
    ///
    /// As many as the idle protocol lets look everywhere; the others look for what comes to them, since an answer often comes at once.
    fn search(&self) -> bool {
        let workers = self.runtime.processors().len();
        let limit = self.search.get();
        let begin = Instant::now();
        let mut everywhere = false;
        let found = loop {
            // Who searches does not stand still (B2).
            self.count_round();
            everywhere = everywhere || self.runtime.idle().begin_search(workers);
            if self.expect_answer() || (everywhere && (self.has_work() || self.others_stand_still())) {
                break true;
            }
            if begin.elapsed() >= limit || !self.may_search() {
                break false;
            }
        };
        self.search.set(if found { (limit * 2).min(SEARCH_MAX) } else { (limit / 2).max(SEARCH_MIN) });
        if everywhere {
            let last = self.runtime.idle().end_search();
            // Others may sleep beside more of the same.
            if found && last && self.others_leave_work() {
                self.runtime.wake_one();
            }
        }
        found
    }

    /// Looks at the inbox for a short while, since that is where goroutines of other workers answer.
    fn expect_answer(&self) -> bool {
        for _ in 0..ANSWER_LOOKS {
            if !self.processor.inbox().is_empty() {
                return true;
            }
            std::hint::spin_loop();
        }
        false
    }

    fn sleep(&self) {
        let mut nap = NAP_MIN;
        loop {
            let pause = self.give_back_pages();
            self.runtime.idle().sleeps();
            self.processor.doze().announce();
            // S3: the last look.
            let work = self.has_work() || (self.runtime.is_closed() && self.may_end());
            let mut napping = false;
            if !work {
                let (timeout, is_nap) = self.sleep_time(nap);
                let pause = pause.filter(|pause| timeout.is_none_or(|timeout| *pause < timeout));
                napping = is_nap || pause.is_some();
                self.poll(pause.or(timeout));
            }
            // Getting up is a scheduling point: thieves count from here (B2).
            self.count_round();
            let notified = self.processor.doze().wake_up();
            self.runtime.idle().wakes();
            if work || notified || !napping {
                break;
            }
            self.fire_timers();
            if self.has_work() {
                break;
            }
            if let Some(task) = self.steal_from_others() {
                self.fresh.push(task);
                break;
            }
            nap = nap.saturating_mul(2);
        }
        clock::active();
    }

    /// How long to wait in the poller, and whether that is a nap: while others are busy, somebody must look whether they leave
    /// closures behind without coming to a scheduling point. After the last nap the clock thread does, once a tick.
    fn sleep_time(&self, nap: Duration) -> (Option<Duration>, bool) {
        let workers = self.runtime.processors().len();
        let next = self.timers.borrow_mut().next_look();
        let until = next.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let napping = nap <= NAP_MAX && self.runtime.idle().sleeping() < workers;
        match (until, napping) {
            (Some(until), true) if nap < until => (Some(nap), true),
            (Some(until), _) => (Some(until), false),
            (None, true) => (Some(nap), true),
            (None, false) => (None, false),
        }
    }

    /// Gives pages of idle stacks back to the kernel for as long as nothing else is to be done. While others are at work only a few in
    /// each tick: to take a page away interrupts them. When some are left, how long to wait before the next time.
    fn give_back_pages(&self) -> Option<Duration> {
        let pause = self.give_back_deep_pages();
        let (now, workers) = (clock::now(), self.runtime.processors().len());
        while !self.has_work() {
            let alone = self.runtime.idle().sleeping() + 1 >= workers;
            if !alone && self.last_trim.replace(now) == now {
                return self.runtime.stacks().has_surplus().then_some(TRIM_PAUSE).or(pause);
            }
            if self.runtime.stacks().trim(TRIM_BATCH) == 0 {
                break;
            }
        }
        pause
    }

    /// What only deep calls have touched, once in a while: a worker may come here thousands of times a second.
    fn give_back_deep_pages(&self) -> Option<Duration> {
        let mut stacks = self.stacks.borrow_mut();
        if !stacks.has_deep() {
            return None;
        }
        // The coarse clock may be asleep.
        let now = clock::precisely();
        let passed = now.wrapping_sub(self.last_trim_deep.get());
        if passed < TRIM_DEEP_PAUSE {
            return Some(clock::TICK * (TRIM_DEEP_PAUSE - passed) as u32);
        }
        self.last_trim_deep.set(now);
        stacks.trim_deep();
        None
    }
}

/// Repeats a steal that lost a race; the race was won by another, so this ends.
#[inline]
pub(crate) fn steal(mut attempt: impl FnMut() -> Steal<TaskRef>) -> Option<TaskRef> {
    loop {
        match attempt() {
            Steal::Success(task) => return Some(task),
            Steal::Empty => return None,
            Steal::Retry => {}
        }
    }
}

impl Shared {
    /// Wakes one sleeper to search, unless somebody searches already. Call after publishing.
    pub(crate) fn wake_one(&self) {
        // Fence W2 of `idle`, for all that the caller has published.
        fence(SeqCst);
        if !self.idle().wants_waking() {
            return;
        }
        for processor in self.processors() {
            if processor.notify_fenced() {
                return;
            }
        }
    }
}
