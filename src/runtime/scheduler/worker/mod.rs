//! A worker: one OS thread that starts fresh closures and runs the goroutines it has started.
//!
//! # Who owns what
//!
//! - Everything in [`Worker`] belongs to its thread; goroutines of that thread reach it through a thread-local pointer. Its fields
//!   are cells, and no borrow of them lives across a switch (P5).
//! - What others may touch is in the worker's [`Processor`].
//! - W1: a worker ends only when the last of its goroutines has, so it outlives every frame of theirs.
//!
//! # What runs next
//!
//! 1. the hand-off slot: the goroutine that the last one woke. It inherits the rest of that one's slice (operations and ticks), so
//!    that a pair that talks stays together but cannot starve the queue;
//! 2. the private run queue, fed by local wakes, the inbox, timers and the poller, in the order of [`ready`];
//! 3. fresh closures, the newest first (but B7): depth first keeps few stacks alive. Thieves take from the older ones. Every few ticks the oldest is
//!    started instead, since a goroutine that starts one and waits for it, again and again, would otherwise keep the older ones from their start for ever;
//! 4. what was placed with this worker, what lies in the runtime's injector, other workers' oldest closures;
//! 5. if there is nothing: give up the core for a moment if it has connections ([`give_way`]), search for a short while, then sleep in the poller.
//!
//! Every 61st round, and whenever the coarse clock has moved on, a worker first looks at its inbox, timers and poller, and at the places of point 4.
//!
//! Which closure is started, and where, is decided in [`fresh`], [`shed`] and [`deal`]; what a worker does when it has nothing to do, in
//! [`rest`](mod@rest).

mod deal;
mod fresh;
mod give_way;
mod lend_core;
mod ready;
mod rest;
mod shed;

use std::{
    cell::{Cell, RefCell},
    ptr,
    sync::{
        Arc,
        atomic::{AtomicPtr, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crossbeam_deque::Worker as Deque;

pub(crate) use self::deal::FirstTurns;
pub(crate) use self::fresh::steal;
use self::{
    deal::Dealing,
    fresh::{Order, Seen},
    give_way::GiveWay,
    lend_core::LendCore,
    ready::Ready,
    rest::SEARCH_MAX,
    shed::Shedding,
};
use super::processor::{Processor, count};
use crate::{
    debug::{
        hooks::{self, TRACE},
        trace,
    },
    runtime::{
        bubble::Bubble,
        clock,
        driver::{poller::Events, timers::Timers},
        lifecycle::{self, RuntimeInner},
        panics,
        park::Wake,
        slot::Slot,
        task::TaskRef,
        task_memory, threads,
    },
    stack::Cache,
    util::prefetch,
};

/// Operations in one slice. The clock ends most slices; this bounds those that finish within one tick.
const BUDGET: u32 = 4096;
/// Ticks in one slice.
const SLICE: u64 = 3;
/// Set in the budget while one runs that computes (B6): then each operation asks `computes_on`.
const COMPUTES: u32 = 1 << 31;
/// What a system call takes of the budget: a peer that answers at once would keep the worker from the others for a whole slice.
pub(crate) const CALL: u32 = BUDGET / 32;
/// Rounds after which a worker looks at everything else first, as Go's scheduler does.
const LOOK_AROUND: u32 = 61;
/// The same for one whose only goroutine yields, which is a much shorter round.
const LOOK_AROUND_ALONE: u32 = 64 * LOOK_AROUND;
/// Rounds after which a worker that is never out of work takes a closure from one that is more loaded, and the ticks, for long rounds. Seldom: what
/// waits can still go to whoever is out of work first, and what has started cannot (`unequal`: 0.98 of the cores busy, and 0.79 when half of the
/// difference was taken each tick).
const HELP_OUT: u32 = 4 * LOOK_AROUND;
const HELP_OUT_TICKS: u64 = 8;
/// Ready goroutines that are a few, and rounds in a tick of those that compute: then a worker with one more than this one has clearly more to do.
const FEW: u32 = 4;
const SLOW: u64 = 64;

/// Ready goroutines beyond which the next ones' memory is asked for ahead of their turn: it has left the caches since they last ran.
const FAR: u32 = 32;

thread_local! {
    // No destructor, constant initialiser: reading it is one load, and it is there until the thread is gone (P5).
    static CURRENT: Cell<*const Worker> = const { Cell::new(std::ptr::null()) };
}

/// See the module.
pub(crate) struct Worker {
    pub(crate) runtime: Arc<RuntimeInner>,
    pub(crate) processor: &'static Processor,
    index: usize,
    /// Read by the handler of SIGURG at any moment (G6 of `debug::question`).
    current: AtomicPtr<Slot>,
    handoff: Cell<Option<&'static Slot>>,
    queue: Ready<Slot>,
    fresh: Deque<TaskRef>,
    /// A closure for which there was no stack.
    stalled: Cell<Option<TaskRef>>,
    budget: Cell<u32>,
    /// The tick that passed at the last scheduling point.
    tick: Cell<u64>,
    slice_start: Cell<u64>,
    rounds: Cell<u32>,
    last_look: Cell<u64>,
    /// Counts those looks, which have their turns: see `look_around`.
    looks: Cell<u8>,
    /// The round in which one of them has last found a closure to start.
    look_found: Cell<u32>,
    /// The tick in which it last looked whether another worker is more loaded, and the round.
    helped: Cell<u64>,
    helped_rounds: Cell<u32>,
    /// B1: since when fresh closures wait behind the queue, how many of them did then, and whose turn it is.
    fresh_since: Cell<u64>,
    fresh_credit: Cell<usize>,
    fresh_turn: Cell<bool>,
    /// The tick in which the oldest fresh closure is to be started in place of the newest.
    oldest_due: Cell<u64>,
    /// B7.
    order: Order,
    /// B2: scheduling points before a few fresh closures are started, zero when there were none; when half of them had come; in which tick they
    /// were counted; the tick in which a thief was last woken for a few.
    fresh_patience: Cell<u32>,
    fresh_half: Cell<Option<Instant>>,
    fresh_tick: Cell<u64>,
    few_woken: Cell<u64>,
    /// B4.
    shedding: Shedding,
    /// B5.
    dealing: Dealing,
    /// The tick in which pages were last given back while others were at work.
    last_trim: Cell<u64>,
    /// The same for the pages of deep calls.
    last_trim_deep: Cell<u64>,
    /// Whether the last goroutine gave up its turn by itself, or had used up its slice.
    yielded: Cell<bool>,
    timers: RefCell<Timers<Slot>>,
    stacks: RefCell<Cache<Slot>>,
    tasks: task_memory::Cache,
    /// Stacks that are reserved for closures not yet started, and not spoken for.
    credits: Cell<u32>,
    next_id: Cell<u64>,
    last_id: Cell<u64>,
    events: RefCell<Events>,
    search: Cell<Duration>,
    /// How long it takes to wake this worker from sleep, about.
    wake_time: Cell<Duration>,
    /// The last look before sleep has found closures that others leave, and a core for this worker. Those who look at the same time would otherwise
    /// each leave them to the other, and look again.
    found_left: Cell<bool>,
    /// Searches in a row that ended before an answer came in the sleep that followed; and for how many such sleeps more there is no search.
    outlasted: Cell<u32>,
    unsearched: Cell<u32>,
    /// How many times in a row the worker went to sleep without having found anything before.
    vain: Cell<u32>,
    give_way: RefCell<GiveWay>,
    lend_core: LendCore,
    /// For B2: what each other worker was last found at.
    watched: RefCell<Vec<Seen>>,
    seed: Cell<u32>,
    in_hook: Cell<bool>,
    /// Goroutines that wait while they unwind.
    parked_unwinding: Cell<u32>,
    #[cfg(debug_assertions)]
    no_switch: Cell<u32>,
}

/// What becomes of a goroutine that computes, at an operation.
pub(crate) enum Computes {
    /// It does not, or has used up its slice.
    No,
    GoesOn,
    Interrupted,
}

enum Next {
    Started(&'static Slot),
    Fresh(TaskRef),
    /// A closure that was placed here, or stolen.
    Taken(TaskRef),
}

impl Worker {
    pub(crate) fn new(runtime: Arc<RuntimeInner>, index: usize) -> Self {
        let processor = runtime.processors()[index];
        let now = Instant::now();
        let workers = runtime.processors().len();
        Self {
            processor,
            index,
            current: AtomicPtr::new(ptr::null_mut()),
            handoff: Cell::new(None),
            queue: Ready::new(),
            fresh: processor.take_deque(),
            stalled: Cell::new(None),
            budget: Cell::new(BUDGET),
            tick: Cell::new(0),
            slice_start: Cell::new(0),
            rounds: Cell::new(0),
            last_look: Cell::new(0),
            looks: Cell::new(0),
            look_found: Cell::new(0),
            helped: Cell::new(0),
            helped_rounds: Cell::new(0),
            fresh_since: Cell::new(0),
            fresh_credit: Cell::new(0),
            fresh_turn: Cell::new(false),
            oldest_due: Cell::new(0),
            order: Order::new(),
            fresh_patience: Cell::new(0),
            fresh_half: Cell::new(None),
            fresh_tick: Cell::new(0),
            few_woken: Cell::new(0),
            shedding: Shedding::default(),
            dealing: Dealing::default(),
            last_trim: Cell::new(0),
            last_trim_deep: Cell::new(0),
            yielded: Cell::new(false),
            timers: RefCell::new(Timers::new()),
            stacks: RefCell::new(Cache::new(runtime.stacks())),
            tasks: task_memory::Cache::new(),
            credits: Cell::new(0),
            next_id: Cell::new(0),
            last_id: Cell::new(0),
            events: RefCell::new(Events::new()),
            search: Cell::new(SEARCH_MAX / 2),
            wake_time: Cell::new(SEARCH_MAX / 2),
            found_left: Cell::new(false),
            outlasted: Cell::new(0),
            unsearched: Cell::new(0),
            vain: Cell::new(0),
            give_way: RefCell::new(GiveWay::new(now)),
            lend_core: LendCore::new(workers, now),
            watched: RefCell::new(vec![Seen::nothing(now); workers]),
            seed: Cell::new(0x9E37_79B9 ^ (index as u32 + 1)),
            in_hook: Cell::new(false),
            parked_unwinding: Cell::new(0),
            #[cfg(debug_assertions)]
            no_switch: Cell::new(0),
            runtime,
        }
    }

    /// The worker that the calling thread is, if it is one.
    #[inline]
    pub(crate) fn current<'a>() -> Option<&'a Self> {
        let worker = CURRENT.get();
        // SAFETY: `run` sets the pointer for as long as the worker exists, and the worker outlives every frame of its goroutines (W1). The
        // lifetime is the caller's frame at most.
        unsafe { worker.as_ref() }
    }

    /// Runs until the runtime has been given up and the last goroutine of this worker has ended.
    pub(crate) fn run(self) {
        CURRENT.set(&self);
        crate::util::biased::enlist();
        if hooks::on(TRACE) {
            trace::begins(self.processor);
        }
        self.processor.start_polling();
        // ORDERING: Relaxed. The clock thread may learn of it late.
        self.processor.watch.thread.store(threads::current().into(), Relaxed);
        self.count_round();
        self.processor.doze().wake_up();
        self.runtime.idle().begins();
        clock::active();
        // Whatever waits is the others', where they use all cores.
        if !self.has_core() {
            self.sleep();
        }
        let mut last = None;
        loop {
            match self.next(last.take()) {
                Some(Next::Started(slot)) => last = (!self.execute(slot)).then_some(slot),
                Some(Next::Fresh(task)) => self.start_fresh(task),
                Some(Next::Taken(task)) => self.start_taken(task),
                None if self.may_end() => break,
                None => self.rest(),
            }
        }
        // To the others a worker that has ended is one that sleeps.
        self.runtime.idle().end(self.processor.doze());
        self.processor.watch.thread.store(0, Relaxed);
        CURRENT.set(std::ptr::null());
        self.processor.stop_polling();
        self.runtime.give_back_credits(self.credits.get());
        self.stacks.borrow_mut().give_back_all();
        self.tasks.give_back_all();
        self.processor.put_deque(self.fresh);
    }

    // ---- running ---------------------------------------------------------------------------------------------------------

    /// True when the goroutine has ended.
    #[inline(always)]
    fn execute(&self, slot: &'static Slot) -> bool {
        if slot.is_measured() { self.execute_measured(slot) } else { self.execute_plainly(slot) }
    }

    /// B6: of a goroutine whose turns are measured.
    #[cold]
    #[inline(never)]
    fn execute_measured(&self, slot: &'static Slot) -> bool {
        if slot.has_long_turns() {
            self.budget.set(self.budget.get() | COMPUTES);
        }
        let begin = Instant::now();
        let ended = self.execute_plainly(slot);
        // Once it has ended the slot is whoever's.
        if !ended {
            slot.note_turn(begin.elapsed() >= ready::LONG);
        }
        ended
    }

    // Always inlined, as `start`: each has several callers, and the loop takes 7 ns more of the 37 of a rendezvous when one is called.
    #[inline(always)]
    fn execute_plainly(&self, slot: &'static Slot) -> bool {
        // ORDERING: Relaxed. Of this thread alone, and its handlers; a switch is a barrier for the compiler (G5 of `debug::question`).
        self.current.store(ptr::from_ref(slot).cast_mut(), Relaxed);
        self.yielded.set(false);
        if hooks::on(TRACE) {
            trace::resumes(self.processor, slot);
        }
        // Whoever unwinds has been counted as it suspended.
        if slot.unwinds().get() {
            self.parked_unwinding.set(self.parked_unwinding.get() - 1);
        }
        let ended = slot.resume();
        if std::thread::panicking() || slot.unwinds().get() {
            self.note_unwinding(slot, ended);
        }
        // ORDERING: Relaxed, as above.
        self.current.store(ptr::null_mut(), Relaxed);
        if hooks::on(TRACE) {
            trace::suspends(self.processor, slot, ended);
        }
        if ended {
            self.retire(slot);
        }
        ended
    }

    /// Where a goroutine of this thread unwinds: whether it is this one, which has suspended or ended, and is still the current one. The others are
    /// to know, since the thread's count of panics is theirs as well (`panics::is_unwinding`).
    #[cold]
    fn note_unwinding(&self, slot: &'static Slot, ended: bool) {
        let unwinds = !ended && panics::is_unwinding();
        slot.unwinds().set(unwinds);
        if unwinds {
            self.parked_unwinding.set(self.parked_unwinding.get() + 1);
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

    /// The goroutine, if it has begun and has not ended yet.
    #[inline(always)]
    fn start(&self, task: TaskRef) -> Option<&'static Slot> {
        let Some(slot) = self.stack_for(task) else {
            // Every closure has a stack reserved, so only the kernel's own memory can be short. Try again later, one at a time: what
            // else was to start waits with what others have given to this worker, which is not looked at in every round.
            if self.stalled.get().is_none() {
                self.stalled.set(Some(task));
            } else {
                self.processor.given.push(task);
            }
            return None;
        };
        count(&self.processor.published.started);
        slot.start(self.processor, task);
        let ended = self.execute_plainly(slot);
        self.order.note(ended);
        (!ended).then_some(slot)
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
        if self.in_hook.get() { None } else { self.running_or_panicking() }
    }

    /// As [`running`](Self::running), in a panic hook too.
    #[inline]
    pub(crate) fn running_or_panicking(&self) -> Option<&'static Slot> {
        // ORDERING: Relaxed. Of one thread.
        let current = self.current.load(Relaxed);
        // SAFETY: null, or a slot, as `execute` stored it; slots are never freed (S1).
        unsafe { current.as_ref() }
    }

    pub(crate) fn in_hook(&self) -> &Cell<bool> {
        &self.in_hook
    }

    #[inline]
    pub(crate) fn bubble(&self) -> Option<&Bubble> {
        self.runtime.bubble()
    }

    pub(crate) fn tasks(&self) -> &task_memory::Cache {
        &self.tasks
    }

    pub(crate) fn parked_unwinding(&self) -> &Cell<u32> {
        &self.parked_unwinding
    }

    /// In the handler of the worker's thread.
    pub(crate) fn take_core(&self) {
        self.lend_core.take(self.processor);
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
            Wake::Queue => self.queue.push(slot),
            Wake::Handoff => {
                if let Some(before) = self.handoff.replace(Some(slot)) {
                    self.queue.push(before);
                }
            }
        }
    }

    /// Puts the running goroutine behind all that are ready; it suspends next.
    #[inline]
    pub(crate) fn requeue(&self, slot: &'static Slot) {
        // Who was woken before that and cannot run on what is left of the slice stands before it.
        if self.handoff.get().is_some()
            && !self.has_slice_left(clock::now())
            && let Some(woken) = self.handoff.take()
        {
            self.queue.push(woken);
        }
        self.queue.push(slot);
        self.yielded.set(true);
    }

    /// B6, asked at an operation that takes `cost` of the budget: a running goroutine that computes goes on until its slice is used up, unless it has
    /// woken a prompt one, which runs next.
    #[cold]
    #[inline(never)]
    pub(crate) fn computes_on(&self, slot: &'static Slot, cost: u32) -> Computes {
        let budget = self.budget.get();
        if budget & COMPUTES == 0 {
            return Computes::No;
        }
        let now = clock::now();
        if self.handoff.get().is_some_and(|woken| !woken.has_long_turns()) {
            self.queue.push_interrupted(slot, now);
            return Computes::Interrupted;
        }
        if budget & !COMPUTES > cost && now.wrapping_sub(self.slice_start.get()) < SLICE {
            self.budget.set(budget - cost);
            return Computes::GoesOn;
        }
        Computes::No
    }

    /// Whether anything else is ready here, as far as one look tells.
    #[inline]
    pub(crate) fn is_alone(&self) -> bool {
        self.handoff.get().is_none()
            && self.queue.is_empty()
            && self.fresh.is_empty()
            && self.processor.inbox().is_empty()
    }

    /// Whether somebody who is ready computes: a guess (B6).
    pub(crate) fn others_compute(&self) -> bool {
        self.queue.has_patient()
    }

    /// Begins a new slice for a goroutine that would be chosen again anyway; true when the worker should look around.
    #[inline]
    pub(crate) fn renew_slice(&self) -> bool {
        let now = clock::now();
        self.budget.set(BUDGET | self.budget.get() & COMPUTES);
        self.slice_start.set(now);
        if self.count_round().is_multiple_of(LOOK_AROUND_ALONE) {
            // The clock thread may have no core.
            self.look_around_soon();
        }
        now != self.last_look.get()
    }

    /// Whether the slice lasts for one more operation.
    #[inline]
    fn has_slice_left(&self, now: u64) -> bool {
        self.budget.get() & !COMPUTES > 1 && now.wrapping_sub(self.slice_start.get()) < SLICE
    }

    /// Counts one scheduling point.
    #[inline]
    fn count_round(&self) -> u32 {
        let rounds = self.rounds.get().wrapping_add(1);
        self.rounds.set(rounds);
        count(&self.processor.published.rounds);
        rounds
    }

    /// Counts one operation; true when the slice is used up and somebody else could run.
    #[inline]
    pub(crate) fn spend(&self) -> bool {
        let left = self.budget.get();
        // With `COMPUTES` it is negative, and `computes_on` decides.
        if left.cast_signed() > 1 {
            self.budget.set(left - 1);
            // The clock is looked at now and then only.
            if !left.is_multiple_of(64) || clock::now().wrapping_sub(self.slice_start.get()) < SLICE {
                return false;
            }
        }
        true
    }

    /// Counts one system call that could have parked; true when the slice is used up.
    #[inline]
    pub(crate) fn spend_call(&self) -> bool {
        let left = self.budget.get();
        // As in `spend`.
        if left.cast_signed() > CALL.cast_signed() {
            self.budget.set(left - CALL);
            if clock::now().wrapping_sub(self.slice_start.get()) < SLICE {
                return false;
            }
        }
        true
    }

    /// Has the worker look around before the next goroutine of its queue.
    pub(crate) fn look_around_soon(&self) {
        self.last_look.set(u64::MAX);
    }

    /// Arms the timer of the running goroutine.
    pub(crate) fn arm_timer(&self, slot: &'static Slot, deadline: Instant) {
        self.timers.borrow_mut().arm(deadline, slot);
    }

    pub(crate) fn disarm_timer(&self, slot: &'static Slot) {
        self.timers.borrow_mut().cancel(slot);
    }

    // ---- the loop --------------------------------------------------------------------------------------------------------

    /// What runs next, in the order that the head of the module gives.
    #[inline]
    fn next(&self, last: Option<&'static Slot>) -> Option<Next> {
        if self.fresh_patience.get() != 0
            && let Some(task) = self.few_fresh()
        {
            return Some(Next::Fresh(task));
        }
        let now = clock::now();
        if self.tick.get() != now {
            self.ticked(now, last);
        }
        // 1. On the rest of the slice.
        if let Some(slot) = self.handoff.take() {
            // B6: among those who compute partners share a slice as others do.
            let waits = slot.has_long_turns() && self.queue.begins_prompt();
            if !waits && self.has_slice_left(now) {
                self.budget.set((self.budget.get() & !COMPUTES) - 1);
                count(&self.processor.published.rounds);
                return Some(Next::Started(slot));
            }
            self.queue.push(slot);
            if !waits {
                self.fresh_has_waited(now);
            }
        }
        // Everything else begins a new slice.
        self.budget.set(BUDGET);
        self.slice_start.set(now);
        let rounds = self.count_round();
        if rounds.is_multiple_of(LOOK_AROUND) || now != self.last_look.get() {
            self.last_look.set(now);
            if let Some(task) = self.look_around(rounds) {
                self.look_found.set(rounds);
                return Some(Next::Fresh(task));
            }
        }
        if !self.processor.inbox().is_empty() {
            self.drain_inbox();
        }
        // 2.
        if !self.queue.is_empty() {
            if self.fresh.is_empty() {
                // B1: others have taken those that waited.
                self.fresh_credit.set(0);
            } else if let Some(task) = self.fresh_before_queue(now) {
                return Some(Next::Fresh(task));
            }
            let slot = self.queue.pop();
            if self.queue.len() > FAR {
                self.fetch_ahead();
            }
            self.processor.set_load(self.queue.len());
            self.publish_fresh(now, self.queue.len() < 2 && self.fresh_works());
            return slot.map(Next::Started);
        }
        // 3.
        self.processor.set_load(0);
        // B1: nobody waits behind a queue.
        self.fresh_credit.set(0);
        let task = self.next_fresh(now);
        let left = self.publish_fresh(now, self.fresh_works());
        self.deal(left);
        task.map(Next::Fresh).or_else(|| self.next_elsewhere())
    }

    /// B6: a tick has ended in the last turn, which may have been a long one. In a bubble nothing depends on how fast the machine is.
    #[cold]
    #[inline(never)]
    fn ticked(&self, now: u64, last: Option<&'static Slot>) {
        self.tick.set(now);
        if let Some(last) = last
            && self.bubble().is_none()
        {
            last.measure_turns();
        }
    }

    /// Asks for what the next goroutine will touch, and for the record of the one after that, which tells what that will touch.
    #[inline]
    fn fetch_ahead(&self) {
        let (first, second) = self.queue.first_two();
        if let Some(first) = first {
            first.fetch_frames();
        }
        prefetch::fetch_lines(second, size_of::<Slot>() / 64);
    }

    /// The rest of the order, 4 and the beginning of 5, for a worker that has nothing of its own.
    #[cold]
    fn next_elsewhere(&self) -> Option<Next> {
        if self.stalled.get().is_some() && !self.stacks.borrow().is_warm() {
            std::thread::sleep(Duration::from_millis(1));
        }
        // To poll is a system call, and costs more than what a thief may be about to run: `next` sees to it that it happens often enough.
        if self.stalled.get().is_none()
            && let Some(next) = self.take_elsewhere()
        {
            return Some(next);
        }
        self.processor.rests(clock::now());
        if self.processor.has_errands() {
            self.processor.run_errands(self);
        }
        // Events first: a wait must not time out although what it waits for is there.
        let has_sockets = self.processor.sockets() > 0;
        if has_sockets {
            self.lend_core.offer(self.processor, self.runtime.processors());
            self.give_way.borrow_mut().pass();
        }
        let looks = has_sockets && self.looks_before_sleep();
        if (looks || self.timers.borrow_mut().is_due(|| self.time())) && self.poll_now() > 0 {
            self.vain.set(0);
        }
        self.fire_timers();
        self.drain_inbox();
        let started = self.queue.pop().map(Next::Started);
        // After timers and events: what ends meanwhile may leave the stack that this one waits for.
        let next = started.or_else(|| self.stalled.take().map(Next::Fresh)).or_else(|| self.take_elsewhere());
        if next.is_some() {
            self.processor.ends_rest();
        }
        next
    }

    #[inline]
    fn drain_inbox(&self) {
        if let Some(chain) = self.processor.inbox().take() {
            self.queue.append(chain);
        }
    }

    /// Looks at everything that a busy worker would otherwise pass over.
    #[cold]
    fn look_around(&self, rounds: u32) -> Option<TaskRef> {
        self.look_at_crowd(clock::now());
        if self.processor.has_errands() {
            self.processor.run_errands(self);
        }
        // Events first, as in `next_elsewhere`.
        self.poll_now();
        self.fire_timers();
        self.drain_inbox();
        // With no stack here either: the kernel may have memory again.
        if let Some(task) = self.stalled.take() {
            return Some(task);
        }
        // Where turns are as long as ticks this is called before each. Who is ready has every other one of those then.
        if rounds.wrapping_sub(self.look_found.get()) == 1 && !self.queue.is_empty() {
            return None;
        }
        // What was placed here or comes from outside starts even while this worker is busy, but one at a time, and neither keeps the other waiting.
        let look = self.looks.get().wrapping_add(1);
        self.looks.set(look);
        let placed = || steal(|| self.processor.given.steal());
        let task = match look % 4 {
            1 => placed().or_else(|| self.take_injected()),
            3 => self.take_injected().or_else(placed),
            _ => None,
        };
        if task.is_some() {
            return task;
        }
        let now = clock::now();
        let (ticks, since) = (now.wrapping_sub(self.helped.get()), rounds.wrapping_sub(self.helped_rounds.get()));
        // Of a few that compute one more makes a difference.
        let few = self.queue.len() < FEW && u64::from(since) < ticks.saturating_mul(SLOW);
        if rounds.is_multiple_of(HELP_OUT) || ticks >= if few { 1 } else { HELP_OUT_TICKS } {
            self.helped.set(now);
            self.helped_rounds.set(rounds);
            self.processor.set_takes_one_more(few);
            return self.take_from_more_loaded(few);
        }
        None
    }

    /// What time it is for this worker's goroutines.
    fn time(&self) -> Instant {
        self.bubble().map_or_else(Instant::now, Bubble::now)
    }

    /// Wakes the goroutines whose time has come.
    pub(crate) fn fire_timers(&self) {
        if self.timers.borrow().is_empty() {
            return;
        }
        let Some(bubble) = self.bubble() else {
            return self.timers.borrow_mut().fire(Instant::now(), |slot| self.time_is_up(slot));
        };
        let mut due = Vec::new();
        self.timers.borrow_mut().fire(bubble.now(), |slot| due.push(slot));
        bubble.shuffle(&mut due);
        due.into_iter().for_each(|slot| self.time_is_up(slot));
    }

    fn time_is_up(&self, slot: &'static Slot) {
        if slot.unit().try_claim_open() {
            slot.timed_out().set(true);
            if hooks::on(TRACE) {
                trace::timer_wakes(slot);
            }
            self.queue.push(slot);
        }
    }

    /// Looks for events, of which there can be none without a descriptor that is watched here. How many there were.
    fn poll_now(&self) -> usize {
        count(&self.processor.published.looks);
        if self.processor.sockets() > 0 { self.poll(Some(Duration::ZERO)) } else { 0 }
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
}

impl RuntimeInner {
    /// Wakes one sleeper to search, unless somebody searches already or there is no core for it. Call after publishing.
    pub(crate) fn wake_one(&self) {
        if self.idle().must_wake() {
            self.wake_sleeper();
        }
    }

    /// Wakes a sleeper, if there is one and a core for it, whoever searches.
    pub(crate) fn wake_sleeper(&self) {
        if !self.has_free_core() {
            return;
        }
        // Where there are more of them than cores, best one whose goroutines talk to those of others already.
        let settled = self.processors().iter().filter(|p| self.is_oversubscribed() && p.is_settled());
        for processor in settled.chain(self.processors()) {
            if processor.notify_fenced() {
                return;
            }
        }
    }
}
