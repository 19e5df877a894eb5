//! The seam: how anything in this crate waits and is woken. Everything above speaks to the scheduler only through here.
//!
//! A party that must wait asks for its own [`Unit`] with [`current`], tells the others where to find it (a node in a wait
//! queue, a readiness word, a timer), and then calls [`Unit::park`] or [`Unit::park_until`] **exactly once**. The party that
//! ends the wait calls [`Unit::wake`] **exactly once**.
//!
//! There are two kinds of wait.
//!
//! - *Without a ticket*: every waker must hold one and the same lock to find the waiter's node. Taking the node out of the
//!   queue under that lock is the claim. The waiter parks with [`Unit::park`].
//! - *With a ticket*: wakers come without a common lock (a timer, `unpark`, several channels of a `select`). The waiter calls
//!   [`Unit::arm`] first and writes the [`Ticket`] into each node; whoever wins [`Unit::try_claim`] ends the wait and wakes.
//!   The waiter parks with [`Unit::park`], or with [`Unit::park_until`] when it has a time limit: the clock is then one of
//!   the competitors for the claim.
//!
//! The rules (ARCHITECTURE.md, P1 to P6):
//!
//! - A wake may come before the park: it is not lost. A started goroutine can only be run by its own worker, and that worker
//!   is busy running it until it parks; a thread's signal is remembered.
//! - P2: a party that has told others where to find it always parks, even if it already sees itself claimed.
//! - P3: a waker copies everything it needs out of the waiter's node *before* [`Unit::wake`], and touches nothing of the node
//!   after it. The `Unit` itself is type-stable and may be touched late.
//! - P4: `park` and `park_until` switch to other goroutines; [`spend`], [`spend_call`], [`linger`] and `yield_now` may; nothing else here does.
//! - P6: nothing here may be called while one of this crate's locks is held, except `current`, `arm`, `try_claim`, `is_open`.

use std::time::Instant;

#[cfg(not(loom))]
pub(crate) use crate::runtime::fork::forked;
#[cfg(not(loom))]
pub(crate) use crate::runtime::panics::{is_unwinding, may_have_caught, resume as resume_panic};
#[cfg(not(loom))]
pub(crate) use crate::runtime::scheduler::{
    WaitsOutside, WakeBatch, accepted, holds_worker, is_on_only_worker, linger, no_switch, place, place_of, spend,
    spend_call, tick, yield_now,
};
#[cfg(not(loom))]
pub(crate) use crate::runtime::slot::Accepted;
use crate::runtime::{
    thread_parker::ThreadParker,
    unit::{Ticket, Unit},
    wait::Wait,
};

/// How a wait with a time limit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Parked {
    /// Somebody claimed the wait and woke us.
    Woken,
    /// The time limit passed first, and the claim is spent: no waker will come any more.
    TimedOut,
}

/// Where a woken goroutine goes. Without meaning for threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// It runs next, on the rest of the waker's budget: the waker is about to wait for it, or likely to.
    Handoff,
    /// It goes to the end of the run queue.
    Queue,
}

/// The unit of the caller: its goroutine's, or its thread's. Constant for the whole life of a goroutine. Panics in a forked child, where
/// nobody would wake it: here, while nobody has been told of it yet.
#[inline]
pub(crate) fn current() -> &'static Unit {
    #[cfg(not(loom))]
    crate::runtime::fork::check();
    #[cfg(not(loom))]
    if let Some(slot) = crate::runtime::scheduler::current_slot() {
        return slot.unit();
    }
    ThreadParker::current().unit()
}

impl Unit {
    /// Waits for the one wake of this wait. Called on `current()` only.
    #[inline]
    pub(crate) fn park(&'static self, wait: Wait) {
        #[cfg(not(loom))]
        if !self.home().is_thread() {
            return crate::runtime::scheduler::park(self, wait);
        }
        // SAFETY: the unit has no home worker.
        unsafe { ThreadParker::of(self) }.park(wait);
    }

    /// Waits for the wake of this wait, or until `deadline`. Called on `current()` only, with the ticket just armed.
    #[inline]
    pub(crate) fn park_until(&'static self, ticket: Ticket, deadline: Option<Instant>, wait: Wait) -> Parked {
        let Some(deadline) = deadline else {
            self.park(wait);
            return Parked::Woken;
        };
        #[cfg(not(loom))]
        if !self.home().is_thread() {
            return crate::runtime::scheduler::park_until(self, ticket, deadline, wait);
        }
        // SAFETY: the unit has no home worker.
        unsafe { ThreadParker::of(self) }.park_until(ticket, deadline)
    }

    /// Ends this unit's wait. The caller holds the claim (U3) and uses it up with this call.
    #[inline]
    pub(crate) fn wake(&'static self, how: Wake) {
        #[cfg(not(loom))]
        if !self.home().is_thread() {
            return crate::runtime::scheduler::wake(self, how);
        }
        let _ = how;
        // SAFETY: the unit has no home worker.
        unsafe { ThreadParker::of(self) }.notify();
    }
}

#[cfg(loom)]
pub(crate) use model::{
    WakeBatch, forked, is_on_only_worker, is_unwinding, linger, may_have_caught, no_switch, place, place_of,
    resume_panic, spend, tick,
};

/// In a model every party is a thread.
#[cfg(loom)]
mod model {
    pub(crate) use std::{panic::resume_unwind as resume_panic, thread::panicking as is_unwinding};

    use super::{Unit, Wake};

    pub(crate) struct WakeBatch;

    impl WakeBatch {
        pub(crate) fn new() -> Self {
            Self
        }

        pub(crate) fn push(&mut self, unit: &'static Unit) {
            unit.wake(Wake::Queue);
        }
    }

    pub(crate) fn forked() -> bool {
        false
    }

    pub(crate) fn may_have_caught() -> bool {
        false
    }

    pub(crate) fn spend() {}

    pub(crate) fn linger(_round: u32) {}

    pub(crate) fn is_on_only_worker() -> bool {
        false
    }

    pub(crate) fn tick() -> u32 {
        0
    }

    pub(crate) fn place() -> u32 {
        0
    }

    pub(crate) fn place_of(_unit: &'static Unit) -> u32 {
        0
    }

    pub(crate) fn no_switch() {}
}
