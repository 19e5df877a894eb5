//! Workers and how goroutines reach them: what the seam (`runtime::park`) is made of.
//!
//! The rule is *start anywhere, then stay*. A fresh closure (`Send`) may start on any worker; from its first instruction on the
//! goroutine belongs to that worker's OS thread. So there is no state between running and parked: a waker may publish a wake while
//! the goroutine is still on its way to park, since only its own worker can run it, and is busy running it.

pub(crate) mod closing;
pub(crate) mod idle;
pub(crate) mod inbox;
#[cfg(target_os = "linux")]
mod lending;
#[cfg(not(loom))]
mod processor;
#[cfg(not(loom))]
mod run_queue;
#[cfg(not(loom))]
mod worker;

#[cfg(not(loom))]
pub(crate) use native::*;

#[cfg(not(loom))]
mod native {
    use std::{
        marker::PhantomData,
        sync::atomic::{AtomicU64, Ordering::Relaxed},
        time::{Duration, Instant},
    };

    pub(crate) use super::{
        inbox::Linked,
        processor::Processor,
        processor::{count, uncount},
        worker::{CALL, Computes, FirstTurns, Worker, steal},
    };
    use crate::{
        debug::{
            hooks::{self, TRACE},
            trace,
        },
        runtime::{
            park::{Parked, Wake},
            slot::{Accepted, Slot},
            task::TaskRef,
            unit::{Ticket, Unit},
            wait::{Reason, Wait},
        },
        util::backoff,
    };

    /// How long one round of lingering leaves a channel to the other worker, which sends or receives about a hundred values meanwhile.
    const LINGER: Duration = Duration::from_nanos(1_200);

    /// The slot of the calling goroutine; none on a plain thread, and none in a panic hook, where operations block the thread.
    #[inline]
    pub(crate) fn current_slot() -> Option<&'static Slot> {
        Worker::current()?.running()
    }

    /// Whether the caller would hold its own worker by waiting: in a panic hook on a goroutine.
    pub(crate) fn holds_worker() -> bool {
        Worker::current().is_some_and(|worker| worker.running().is_none())
    }

    /// The task of the calling goroutine.
    pub(crate) fn current_task() -> Option<TaskRef> {
        current_slot()?.task()
    }

    /// The slot of `unit`, which is the calling goroutine's.
    #[inline]
    fn own_slot(unit: &'static Unit) -> &'static Slot {
        // SAFETY: `park` and its kin come here only for units that are not a thread's.
        let slot = unsafe { Slot::of(unit) };
        debug_assert!(
            current_slot().is_some_and(|current| std::ptr::eq(current, slot)),
            "only the goroutine itself parks itself"
        );
        slot
    }

    /// Switches to the worker's loop. The one place where a goroutine leaves its thread to others.
    #[inline]
    fn switch(slot: &'static Slot) {
        #[cfg(debug_assertions)]
        NoSwitch::check();
        #[cfg(feature = "tracing")]
        let spans = crate::debug::spans::leave();
        slot.suspend();
        #[cfg(feature = "tracing")]
        spans.enter();
    }

    #[inline]
    pub(crate) fn park(unit: &'static Unit, wait: Wait) {
        let slot = own_slot(unit);
        slot.set_wait(wait);
        let published = &slot.processor().published;
        if wait.reason.is_foreign() {
            switch_counted(slot, &published.foreign);
        } else if wait.reason == Reason::Sleep {
            switch_counted(slot, &published.timed);
        } else if wait.reason.is_lock() {
            switch_counted(slot, &published.locks);
        } else {
            switch(slot);
        }
        slot.clear_wait();
    }

    /// Switches, and counts the goroutine by what it waits for.
    fn switch_counted(slot: &'static Slot, waiting: &AtomicU64) {
        count(waiting);
        switch(slot);
        uncount(waiting);
    }

    /// Counts the calling goroutine among those that wait for something outside, whatever its waits are called while this lives.
    #[must_use]
    pub(crate) struct WaitsOutside {
        processor: Option<&'static Processor>,
        /// The counter is the worker's own.
        _not_send: PhantomData<*mut ()>,
    }

    impl WaitsOutside {
        pub(crate) fn begin() -> Self {
            let processor = current_slot().map(|slot| slot.processor());
            if let Some(processor) = processor {
                count(&processor.published.foreign);
            }
            Self { processor, _not_send: PhantomData }
        }
    }

    impl Drop for WaitsOutside {
        fn drop(&mut self) {
            if let Some(processor) = self.processor {
                uncount(&processor.published.foreign);
            }
        }
    }

    #[inline]
    pub(crate) fn park_until(unit: &'static Unit, ticket: Ticket, deadline: Instant, wait: Wait) -> Parked {
        let slot = own_slot(unit);
        debug_assert!(ticket.to_bits() & 1 == 1);
        let worker = Worker::current().expect("a goroutine runs on a worker");
        slot.timed_out().set(false);
        worker.arm_timer(slot, deadline);
        slot.set_wait(wait);
        let published = &slot.processor().published;
        switch_counted(slot, if wait.reason.is_foreign() { &published.foreign } else { &published.timed });
        slot.clear_wait();
        if slot.timed_out().get() {
            return Parked::TimedOut;
        }
        worker.disarm_timer(slot);
        Parked::Woken
    }

    #[inline]
    pub(crate) fn wake(unit: &'static Unit, how: Wake) {
        // SAFETY: the seam comes here only for units that are not a thread's.
        let slot = unsafe { Slot::of(unit) };
        if hooks::on(TRACE) {
            trace::wakes(slot);
        }
        let home = slot.processor();
        if let Some(worker) = Worker::current() {
            if std::ptr::eq(worker.processor, home) {
                return worker.ready(slot, how);
            }
            count(&worker.processor.published.remote_wakes);
        }
        home.deliver(slot, slot);
    }

    /// Wakes many units of one event (close, broadcast) with one push for each home worker in a row. Threads are woken at once,
    /// goroutines at the latest when the batch is dropped.
    pub(crate) struct WakeBatch {
        /// Goroutines of one other worker, linked newest to oldest.
        chain: Option<(&'static Slot, &'static Slot)>,
    }

    impl WakeBatch {
        #[inline]
        pub(crate) fn new() -> Self {
            Self { chain: None }
        }

        /// Takes over the claim on `unit`. P3: the node it was found through must not be touched any more.
        pub(crate) fn push(&mut self, unit: &'static Unit) {
            if unit.home().is_thread() {
                return unit.wake(Wake::Queue);
            }
            // SAFETY: not a thread's.
            let slot = unsafe { Slot::of(unit) };
            if hooks::on(TRACE) {
                trace::wakes(slot);
            }
            let home = slot.processor();
            if let Some(worker) = Worker::current()
                && std::ptr::eq(worker.processor, home)
            {
                return worker.ready(slot, Wake::Queue);
            }
            if let Some((newest, oldest)) = self.chain {
                if std::ptr::eq(newest.processor(), home) {
                    // ORDERING: Relaxed. We hold the claim on both; the push publishes.
                    slot.link().store(std::ptr::from_ref(newest).cast_mut(), Relaxed);
                    self.chain = Some((slot, oldest));
                    return;
                }
                self.flush();
            }
            self.chain = Some((slot, slot));
        }

        fn flush(&mut self) {
            if let Some((newest, oldest)) = self.chain.take() {
                newest.processor().deliver(newest, oldest);
            }
        }
    }

    impl Drop for WakeBatch {
        #[inline]
        fn drop(&mut self) {
            self.flush();
        }
    }

    /// Counts one operation that could have parked but did not; when the goroutine has used up its slice, it yields. On a plain
    /// thread this does nothing. Never called from `try_*`, unbounded `send`, `close` and the like (P4).
    #[inline]
    pub(crate) fn spend() {
        if let Some(worker) = Worker::current()
            && worker.spend()
        {
            spend_slow(worker, 1);
        }
    }

    /// As [`spend`], for a system call, which costs more.
    #[inline]
    pub(crate) fn spend_call() {
        if let Some(worker) = Worker::current()
            && worker.spend_call()
        {
            spend_slow(worker, CALL);
        }
    }

    /// A number for the worker that the caller runs on, 0 on a plain thread. Goroutines of one worker never run at the same time, so
    /// one of them spins in vain for another. Two workers may share a number: a hint, no more. The lower 16 bits are 0.
    #[inline]
    pub(crate) fn place() -> u32 {
        Worker::current().map_or(0, |worker| number(worker.processor))
    }

    /// The [`place`] of the goroutine or thread that `unit` is part of.
    #[inline]
    pub(crate) fn place_of(unit: &'static Unit) -> u32 {
        if unit.home().is_thread() {
            return 0;
        }
        // SAFETY: not a thread's.
        number(unsafe { Slot::of(unit) }.processor())
    }

    #[inline]
    fn number(processor: &'static Processor) -> u32 {
        // Processors begin on cache lines, whose six bits of offset are worth nothing here.
        ((std::ptr::from_ref(processor).addr() >> 6) as u32) << 16
    }

    /// The coarse clock, in milliseconds. It stands still while no worker is awake.
    #[inline]
    pub(crate) fn tick() -> u32 {
        crate::runtime::clock::now() as u32
    }

    #[cold]
    fn spend_slow(worker: &Worker, cost: u32) {
        let Some(slot) = worker.running() else { return };
        match worker.computes_on(slot, cost) {
            Computes::GoesOn => return,
            Computes::Interrupted => return switch(slot),
            Computes::No => {}
        }
        if cost == CALL {
            // Those who wait for the poller stand in no queue.
            worker.look_around_soon();
        }
        if worker.is_alone() && !worker.renew_slice() {
            return;
        }
        worker.requeue(slot);
        switch(slot);
    }

    /// Lets others run; the caller goes to the end of its worker's run queue.
    #[inline]
    pub(crate) fn yield_now() {
        let Some(worker) = Worker::current() else { return std::thread::yield_now() };
        let Some(slot) = worker.running() else { return std::thread::yield_now() };
        if worker.is_alone() && !worker.renew_slice() {
            return;
        }
        worker.requeue(slot);
        switch(slot);
    }

    /// Passes a moment for something that another worker is about to do, for the time numbered `round`: others of this worker run. When
    /// that was not enough, nobody does for a moment before: the others may wait for the same, and each that looks takes the line from the
    /// worker they wait for. Where others compute, a turn of theirs is such a moment; and who does not compute comes back before that, finds
    /// nothing, and had better be woken.
    #[cold]
    pub(crate) fn linger(round: u32) {
        let worker = Worker::current().filter(|worker| !worker.is_alone());
        let Some((worker, slot)) = worker.and_then(|worker| Some((worker, worker.running()?))) else {
            return backoff::spin(LINGER);
        };
        if round > 0 && !worker.others_compute() {
            backoff::spin(LINGER);
        }
        worker.requeue(slot);
        switch(slot);
    }

    /// Whether the calling goroutine's worker is the only one of its runtime; false on a plain thread.
    pub(crate) fn is_on_only_worker() -> bool {
        Worker::current().is_some_and(|worker| worker.runtime.processors().len() == 1)
    }

    /// Whether the calling goroutine lives on the worker of `processor`; false on a plain thread.
    #[inline]
    pub(crate) fn is_of(processor: &'static Processor) -> bool {
        Worker::current().is_some_and(|worker| std::ptr::eq(worker.processor, processor))
    }

    /// Whether the runtime of the calling goroutine has been given up, so that closures end unrun.
    #[inline]
    pub(crate) fn refuses_new() -> bool {
        Worker::current().is_some_and(|worker| worker.runtime.is_closed())
    }

    /// Counts the end of the calling goroutine.
    #[inline]
    pub(crate) fn ended() {
        if let Some(worker) = Worker::current() {
            count(&worker.processor.published.ended);
        }
    }

    /// Takes back the last `ended`.
    #[cold]
    pub(crate) fn not_ended() {
        if let Some(worker) = Worker::current() {
            uncount(&worker.processor.published.ended);
        }
    }

    /// Sets the task that the calling goroutine's slot names.
    #[inline]
    pub(crate) fn name_task(task: Option<TaskRef>) {
        if let Some(slot) = Worker::current().and_then(Worker::running_or_panicking) {
            slot.name_task(task);
        }
    }

    /// Tells the scheduler that the calling goroutine has accepted a connection: the goroutine it starts next is its handler.
    pub(crate) fn accepted(connection: Accepted) {
        if let Some(slot) = current_slot() {
            slot.accepted().set(Some(connection));
        }
    }

    /// The processor whose poller is to watch a descriptor that the caller wants to wait for.
    pub(crate) fn driver_for_current() -> std::io::Result<&'static Processor> {
        match Worker::current() {
            Some(worker) => Ok(worker.processor),
            None => crate::runtime::lifecycle::default_processor(),
        }
    }

    /// Keeps signals that a program handles away from the calling thread, so that handlers run on threads that are not ours.
    pub(crate) fn block_signals() {
        crate::stack::overflow::block_asynchronous_signals();
    }

    /// Whether the calling thread blocks just those signals: it has done [`block_signals`], or a thread that has done it started it.
    pub(crate) fn has_blocked_signals() -> bool {
        crate::stack::overflow::blocks_asynchronous_signals()
    }

    /// Runs `f` with those signals let in, on a thread that blocks them: for starting processes, which inherit the mask.
    pub(crate) fn with_signals<R>(f: impl FnOnce() -> R) -> R {
        crate::stack::overflow::with_asynchronous_signals(f)
    }

    /// Marks the span of an operation that must never switch goroutines; debug builds prove it (P4).
    #[cfg(debug_assertions)]
    #[inline]
    pub(crate) fn no_switch() -> NoSwitch {
        NoSwitch::enter()
    }

    #[cfg(not(debug_assertions))]
    #[inline]
    pub(crate) fn no_switch() {}

    /// While one exists on a worker, no goroutine of it may switch.
    #[cfg(debug_assertions)]
    #[must_use]
    pub(crate) struct NoSwitch(());

    #[cfg(debug_assertions)]
    impl NoSwitch {
        fn enter() -> Self {
            if let Some(worker) = Worker::current() {
                worker.no_switch().set(worker.no_switch().get() + 1);
            }
            Self(())
        }

        fn check() {
            if let Some(worker) = Worker::current() {
                assert!(worker.no_switch().get() == 0, "an operation that must never switch goroutines tried to (P4)");
            }
        }
    }

    #[cfg(debug_assertions)]
    impl Drop for NoSwitch {
        fn drop(&mut self) {
            if let Some(worker) = Worker::current() {
                worker.no_switch().set(worker.no_switch().get() - 1);
            }
        }
    }
}
