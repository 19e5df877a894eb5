//! The control block of a goroutine's stack, kept beside the slab and never freed.
//!
//! A slot serves one goroutine after another. Who may touch what:
//!
//! - `unit.claim` (U1 to U4): anybody, at any time.
//! - `next`: whoever holds the claim on the goroutine, or the queue it was put into. One link is enough, since a goroutine is in
//!   at most one queue (P2).
//! - `processor`: written by the home worker before the goroutine's first instruction, then constant until it ends.
//! - everything else: only the home worker's thread, from the goroutine itself or from the scheduler's loop (G1). That is what
//!   pinning gives: no locks here.
//! - `task` and the `wait_*`: by G1 that thread's too, but its handler of SIGURG may read them in the middle of anything (`debug::question`), so
//!   they are atomics, and their accesses Relaxed: those of one thread. Of a goroutine that is suspended they say one thing together.

use std::{
    cell::{Cell, UnsafeCell},
    ptr,
    sync::atomic::{
        AtomicPtr, AtomicU32, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
    time::Duration,
};

use crate::{
    coroutine::{self, Coroutine, StackRange, Trace, Yielder},
    runtime::{
        clock,
        driver::timers::{NOWHERE, Timed},
        panics,
        scheduler::{Linked, Processor},
        task::{TaskCell, TaskRef},
        unit::Unit,
        wait::{AtomicReason, Reason, Wait},
    },
    stack::{Bounds, Metadata, overflow::RawStderr},
    util::prefetch,
};

/// A connection that was accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accepted {
    /// Whether the worker on which that was polls for the listener.
    pub(crate) listener_is_here: bool,
}

/// Bytes in which a slot remembers the depth of its frames: a mebibyte can be told.
const UNIT: usize = 16;

/// A long turn counts for so many short ones, each of which takes one back: between two long turns, one that computes may have short ones.
const LONG_TURN: u8 = 4;

/// See the module.
#[repr(C, align(64))]
pub(crate) struct Slot {
    unit: Unit,
    next: AtomicPtr<Slot>,
    processor: AtomicPtr<Processor>,
    coroutine: UnsafeCell<Option<Coroutine>>,
    yielder: Cell<*const Yielder>,
    task: TaskCell,
    wait_object: AtomicUsize,
    wait_reason: AtomicReason,
    timed_out: Cell<bool>,
    accepted: Cell<Option<Accepted>>,
    own_stack: Cell<bool>,
    unwinds: Cell<bool>,
    /// Counts long turns against short ones; zero when they are not measured. See `LONG_TURN`.
    long_turns: Cell<u8>,
    /// Where the frames of a goroutine that has suspended begin: the lower bits of the address in units of `UNIT`.
    frames: Cell<u16>,
    timer: Cell<u32>,
    /// The tick in which the wait began, cut to 32 bits.
    wait_since: AtomicU32,
    bounds: Bounds,
}

// SAFETY: fields that are not atomic are used by the home worker's thread only (G1); the hand-over of a finished slot to
// another worker goes through the stack pool's lock or the deque that carries the task, which order the accesses.
unsafe impl Sync for Slot {}
// SAFETY: as above. Nothing in a slot is bound to a thread while no goroutine uses it.
unsafe impl Send for Slot {}

impl Metadata for Slot {
    fn new(bounds: Bounds) -> Self {
        Self {
            unit: Unit::new(),
            next: AtomicPtr::new(ptr::null_mut()),
            processor: AtomicPtr::new(ptr::null_mut()),
            coroutine: UnsafeCell::new(None),
            yielder: Cell::new(ptr::null()),
            task: TaskCell::empty(),
            wait_object: AtomicUsize::new(0),
            wait_reason: AtomicReason::default(),
            timed_out: Cell::new(false),
            accepted: Cell::new(None),
            own_stack: Cell::new(false),
            unwinds: Cell::new(false),
            long_turns: Cell::new(0),
            frames: Cell::new(0),
            timer: Cell::new(NOWHERE),
            wait_since: AtomicU32::new(0),
            bounds,
        }
    }

    fn bounds(&self) -> Bounds {
        self.bounds
    }

    fn report_overflow(&self, out: &mut RawStderr) {
        panics::report_overflow(self, out);
    }
}

impl Linked for Slot {
    #[inline]
    fn link(&self) -> &AtomicPtr<Self> {
        &self.next
    }
}

impl Timed for Slot {
    #[inline]
    fn position(&self) -> &Cell<u32> {
        &self.timer
    }
}

impl Slot {
    #[inline]
    pub(crate) fn unit(&'static self) -> &'static Unit {
        &self.unit
    }

    /// The slot that `unit` is part of.
    ///
    /// # Safety
    ///
    /// `unit` is a goroutine's, not a thread's.
    #[inline]
    pub(crate) unsafe fn of(unit: &'static Unit) -> &'static Self {
        // SAFETY: by the caller the address is a slot's, written at its goroutine's start; slots are never freed (S1).
        unsafe { &*unit.home().whole().cast::<Self>() }
    }

    /// The worker this goroutine lives on.
    #[inline]
    pub(crate) fn processor(&self) -> &'static Processor {
        // ORDERING: Relaxed. Constant while the goroutine lives, and published with its unit.
        let processor = self.processor.load(Relaxed);
        // SAFETY: set before the goroutine's first instruction, so never null for one who found its unit; processors are
        // never freed.
        unsafe { &*processor }
    }

    /// The worker this slot's goroutine lives on, null when it is idle: an address to compare, not to follow.
    pub(crate) fn worker_address(&self) -> *const Processor {
        // ORDERING: Acquire. Pairs with the Release in `start`, for readers on other threads.
        self.processor.load(Acquire)
    }

    /// Makes this idle slot the goroutine that runs `task` on `processor`. The caller owns the slot and is that worker.
    #[inline]
    pub(crate) fn start(&'static self, processor: &'static Processor, task: TaskRef) {
        self.unit.home().set_slot(ptr::from_ref(self).cast());
        // ORDERING: Release. A dump that reads the worker sees a slot that was made wholly.
        self.processor.store(ptr::from_ref(processor).cast_mut(), Release);
        task.set_unit(&self.unit);
        self.task.set(Some(task));
        self.unwinds.set(false);
        self.long_turns.set(0);
        // SAFETY: the pool hands out disjoint ranges, mapped for ever, each with its guard (S1, S2), to one owner at a time.
        let stack = unsafe { StackRange::new(self.bounds.top(), self.bounds.limit()) };
        let coroutine = Coroutine::new(stack, move |yielder| {
            self.yielder.set(yielder);
            task.run();
        });
        // SAFETY: the slot is idle and ours, so no reference to its coroutine exists.
        unsafe { *self.coroutine.get() = Some(coroutine) };
    }

    /// Runs the goroutine until it parks or ends. Called by its worker's loop only; true when it ended.
    #[inline]
    pub(crate) fn resume(&'static self) -> bool {
        let coroutine = self.coroutine.get();
        // SAFETY: only the home worker's loop makes references to the coroutine, and it does not nest (G1).
        let coroutine = unsafe { &mut *coroutine };
        let Some(running) = coroutine else { unreachable!("resumed a slot without a goroutine") };
        let ended = running.resume() == crate::coroutine::Resumed::Finished;
        if ended {
            *coroutine = None;
        }
        ended
    }

    /// Suspends the calling goroutine, which must be this slot's.
    #[inline]
    pub(crate) fn suspend(&'static self) {
        // SAFETY: the yielder lives at the root of this goroutine's stack for as long as the goroutine does.
        let yielder = unsafe { &*self.yielder.get() };
        let here = 0_u8;
        self.frames.set(((&raw const here).addr() / UNIT) as u16);
        coroutine::suspend(yielder);
    }

    /// Asks for the memory that this goroutine, which is suspended, touches first when it goes on.
    #[inline]
    pub(crate) fn fetch_frames(&self) {
        /// Of the frames, the innermost: from where a shallow goroutine waits to its end.
        const LINES: usize = 12;
        let top = self.bounds.top();
        // What lies deeper than the bits can tell is missed.
        let depth = usize::from(((top / UNIT) as u16).wrapping_sub(self.frames.get())) * UNIT;
        prefetch::fetch_lines(ptr::without_provenance::<u8>(top - depth), depth.div_ceil(64).min(LINES));
        if let Some(task) = self.task.get() {
            task.fetch();
        }
    }

    /// The frames of this goroutine. Called by its worker's loop between goroutines, when it has started: so it is suspended.
    pub(crate) fn trace(&'static self) -> Trace {
        // SAFETY: as in `resume`.
        let coroutine = unsafe { &mut *self.coroutine.get() };
        let stack = self.bounds.limit()..=self.bounds.top();
        coroutine.as_mut().map_or_else(Trace::new, |suspended| suspended.trace(stack))
    }

    /// How many bytes at the top of its stack this goroutine uses. Called as `trace`.
    pub(crate) fn depth(&'static self) -> usize {
        // SAFETY: as in `resume`.
        let coroutine = unsafe { &mut *self.coroutine.get() };
        let lowest = self.bounds.limit();
        coroutine.as_mut().map_or(0, |suspended| self.bounds.top() - suspended.bottom().max(lowest))
    }

    #[inline]
    pub(crate) fn task(&self) -> Option<TaskRef> {
        self.task.get()
    }

    #[inline]
    pub(crate) fn name_task(&self, task: Option<TaskRef>) {
        self.task.set(task);
    }

    /// Forgets the goroutine that has ended.
    #[inline]
    pub(crate) fn clear_task(&self) {
        self.task.set(None);
        // ORDERING: Relaxed. Whoever lists a worker's goroutines does so on that worker's thread.
        self.processor.store(ptr::null_mut(), Relaxed);
    }

    #[inline]
    pub(crate) fn set_wait(&self, wait: Wait) {
        self.wait_reason.store(wait.reason);
        self.wait_object.store(wait.object, Relaxed);
        self.wait_since.store(clock::now() as u32, Relaxed);
    }

    /// For how long the goroutine has waited, to about a tick; up to seven weeks.
    pub(crate) fn waited(&self) -> Duration {
        waited_since(self.wait_since())
    }

    /// The tick in which the wait began, for [`waited_since`].
    pub(crate) fn wait_since(&self) -> u32 {
        self.wait_since.load(Relaxed)
    }

    #[inline]
    pub(crate) fn clear_wait(&self) {
        self.wait_reason.store(Reason::None);
    }

    pub(crate) fn wait(&self) -> Wait {
        Wait { reason: self.wait_reason.load(), object: self.wait_object.load(Relaxed) }
    }

    /// Whether the present wait has a time limit.
    pub(crate) fn has_timer(&self) -> bool {
        self.timer.get() != NOWHERE
    }

    /// Of a goroutine that waits in `join`, and by nothing else goes on: the id of the one whose end it waits for. Called by its worker's loop
    /// between goroutines, or in a handler on its worker's thread while another one runs.
    pub(crate) fn joins(&self) -> Option<u64> {
        let Wait { reason, object } = self.wait();
        if reason != Reason::Join || object == 0 {
            return None;
        }
        // SAFETY: the goroutine waits in `wait_finished`, whose frame holds the reference to the task that it has named (J3), and does not
        // go on while its worker is here.
        Some(unsafe { crate::runtime::task::id_at(object) })
    }

    /// Whether this goroutine's timer claimed its wait.
    #[inline]
    pub(crate) fn timed_out(&self) -> &Cell<bool> {
        &self.timed_out
    }

    /// That this goroutine has just accepted a connection whose handler it has not started yet.
    #[inline]
    pub(crate) fn accepted(&self) -> &Cell<Option<Accepted>> {
        &self.accepted
    }

    /// Whether this goroutine is known to unwind; while it is suspended its worker counts it then.
    #[inline]
    pub(crate) fn unwinds(&self) -> &Cell<bool> {
        &self.unwinds
    }

    /// Has this goroutine's turns measured from now on, until they are short.
    pub(crate) fn measure_turns(&self) {
        self.long_turns.set(self.long_turns.get().max(1));
    }

    #[inline]
    pub(crate) fn is_measured(&self) -> bool {
        self.long_turns.get() > 0
    }

    /// Whether this goroutine's turns are long: the last, or one of a few before.
    #[inline]
    pub(crate) fn has_long_turns(&self) -> bool {
        self.long_turns.get() > 1
    }

    /// Notes a turn that was measured.
    pub(crate) fn note_turn(&self, long: bool) {
        let turns = self.long_turns.get();
        self.long_turns.set(if long { (turns + LONG_TURN).min(4 * LONG_TURN) } else { turns.saturating_sub(1) });
    }

    /// Makes this idle slot, of a size that one goroutine asked for, known by its unit before that goroutine starts.
    pub(crate) fn reserve_for_one(&'static self) {
        self.unit.home().set_slot(ptr::from_ref(self).cast());
        self.own_stack.set(true);
    }

    /// Whether the slot belongs to another pool than its worker's.
    pub(crate) fn own_stack(&self) -> &Cell<bool> {
        &self.own_stack
    }
}

/// How long ago a tick was, as [`Slot::waited`] tells it.
pub(crate) fn waited_since(tick: u32) -> Duration {
    Duration::from_millis((clock::precisely() as u32).wrapping_sub(tick).into())
}

// AddressSanitizer has corosensei remember where the other stack lies (`ci/sanitizers`).
#[cfg(not(oxigo_asan))]
const _: () = assert!(size_of::<Slot>() == 128, "a slot counts towards the bytes of every goroutine");
