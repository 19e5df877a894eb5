//! The channel itself: a lock, and the operations that take it, do a step on what it guards ([`state`](super::state), with C1 to C4), leave it,
//! and wake or wait.
//!
//! # What happens outside the lock
//!
//! Wakes (P6), dropping of values, and yielding when a slice is used up.

use std::{
    collections::VecDeque,
    mem::{self, MaybeUninit},
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use super::{
    glance::Glance,
    ring::Ring,
    state::{State, Step},
};
use crate::{
    facade::AtomicBool,
    runtime::{
        park::{self, Parked, Wake},
        unit::Unit,
        wait::Reason,
        waitq::{Claimed, Node, Outcome, TakenAt},
    },
    util::{
        BiasedLock,
        lock::{Guard, RawBiased},
    },
};

/// How many receivers a close tells under one hold of the lock.
const TOLD_AT_ONCE: usize = if cfg!(loom) { 1 } else { 32 };

/// A channel of values of type `T`.
pub(crate) struct Channel<T> {
    state: BiasedLock<State<T>>,
    pub(super) glance: Glance,
    /// Of the ends, which count themselves in `allocation`; here there is room for it.
    pub(super) one_side_gone: AtomicBool,
    /// As in the state. With `usize::MAX` there is always room.
    room: usize,
}

/// Where a receiver that has to wait joins the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Join {
    First,
    Last,
}

/// The end of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Done,
    Closed,
    TimedOut,
    WouldBlock,
}

impl<T> Channel<T> {
    #[track_caller]
    pub(crate) fn bounded(capacity: usize) -> Self {
        Self::new(capacity, false, Ring::bounded(capacity))
    }

    pub(crate) fn unbounded() -> Self {
        Self::new(usize::MAX, true, Ring::unbounded())
    }

    fn new(room: usize, unbounded: bool, ring: Ring<T>) -> Self {
        let state = State::new(room, unbounded, ring);
        let one_side_gone = AtomicBool::new(false);
        Self { state: BiasedLock::biased(state), glance: Glance::new(), one_side_gone, room }
    }

    #[inline]
    pub(crate) fn state(&self) -> &BiasedLock<State<T>> {
        &self.state
    }

    /// Whether there is a buffer, so that not every send is a rendezvous.
    pub(super) fn has_buffer(&self) -> bool {
        self.room != 0
    }

    /// Whether a party that finds nothing may look again before it parks (`linger`). Without a ring never: two that linger do not meet.
    /// Called with the lock held.
    #[inline]
    fn may_linger(&self) -> bool {
        self.room != 0 && self.state.raw().is_shared()
    }

    /// Leaves the lock, then wakes: first those who watch, then the partner.
    #[inline(always)]
    pub(super) fn unlock_and_wake(state: Guard<'_, State<T>, RawBiased>, partner: Option<&'static Unit>) {
        if state.watchers.is_empty() {
            drop(state);
        } else {
            Self::wake_watchers(state);
        }
        if let Some(partner) = partner {
            partner.wake(Wake::Handoff);
        }
    }

    /// Leaves the lock, then wakes: first those who watch, then those who were served.
    pub(super) fn unlock_and_wake_all(state: Guard<'_, State<T>, RawBiased>, served: Claimed) {
        let served = match served.into_only() {
            Ok(partner) => return Self::unlock_and_wake(state, Some(partner)),
            Err(served) => served,
        };
        let mut woken = state.watchers.claim_all(Outcome::Again);
        woken.append(served);
        drop(state);
        woken.wake();
    }

    #[cold]
    fn wake_watchers(state: Guard<'_, State<T>, RawBiased>) {
        let watchers = state.watchers.claim_all(Outcome::Again);
        drop(state);
        watchers.wake();
    }

    /// Under the lock: a value was sent, to the receiver that is to be woken or into the buffer (C9).
    #[inline]
    pub(crate) fn added(&self, receiver: Option<&'static Unit>) {
        if receiver.is_none() {
            self.glance.has_changed();
        }
    }

    /// Sends without waiting. Never switches (P4).
    ///
    /// # Safety
    ///
    /// As [`State::send`].
    #[inline]
    pub(crate) unsafe fn try_send(&self, value: *const T) -> Ended {
        let _p4 = park::no_switch();
        let mut state = self.state.lock();
        // SAFETY: by the caller.
        match unsafe { state.send(value) } {
            Step::Done(receiver) => {
                self.added(receiver);
                Self::unlock_and_wake(state, receiver);
                Ended::Done
            }
            Step::Closed => Ended::Closed,
            Step::Promise(_) | Step::Pending => Ended::WouldBlock,
        }
    }

    /// Receives without waiting; but a two-step sender that waits where there is no buffer is a partner that is there, so its value is waited
    /// for (C5).
    ///
    /// # Safety
    ///
    /// As [`State::receive`].
    #[inline]
    pub(crate) unsafe fn try_receive(&self, into: *mut T) -> Ended {
        if let Some(nothing) = self.glance.look() {
            return nothing;
        }
        loop {
            let mut state = self.state.lock();
            // SAFETY: by the caller.
            match unsafe { state.receive(into) } {
                Step::Done(sender) => {
                    Self::unlock_and_wake(state, sender);
                    return Ended::Done;
                }
                Step::Closed => {
                    self.glance.has_ended();
                    return Ended::Closed;
                }
                Step::Pending => {
                    self.glance.is_empty();
                    return Ended::WouldBlock;
                }
                // SAFETY: claimed just now, under the lock that is still held; `into` is room for the value.
                Step::Promise(sender) => match unsafe { self.await_value(state, sender, into) } {
                    Outcome::Done => return Ended::Done,
                    Outcome::Closed => return Ended::Closed,
                    Outcome::Waiting | Outcome::Again => {}
                },
            }
        }
    }

    /// Sends, waiting until `deadline` at most.
    ///
    /// # Safety
    ///
    /// `value` points to a valid value, which the caller forgets when the answer is `Done`.
    #[inline]
    pub(crate) unsafe fn send(&self, value: *mut T, deadline: Option<Instant>) -> Ended {
        let mut rounds = 0;
        let state = loop {
            let mut state = self.state.lock();
            // SAFETY: by the caller.
            match unsafe { state.send(value) } {
                Step::Done(receiver) => {
                    if rounds != 0 {
                        state.senders_linger.paid();
                    }
                    self.added(receiver);
                    Self::unlock_and_wake(state, receiver);
                    if self.room != usize::MAX {
                        park::spend();
                    }
                    return Ended::Done;
                }
                Step::Closed => {
                    drop(state);
                    if self.room != usize::MAX {
                        park::spend();
                    }
                    return Ended::Closed;
                }
                Step::Promise(_) | Step::Pending => {
                    if deadline.is_some() || !self.may_linger() || !state.senders_linger.again(rounds) {
                        break state;
                    }
                }
            }
            drop(state);
            park::linger(rounds);
            rounds += 1;
        };
        // SAFETY: by the caller.
        match unsafe { self.send_waiting(state, value, deadline, TakenAt::NEVER) } {
            ControlFlow::Break(ended) => ended,
            // SAFETY: by the caller.
            ControlFlow::Continue(taken_at) => unsafe { self.send_again(value, deadline, taken_at) },
        }
    }

    /// Waits in the queue. Goes on with when it was taken out by a two-step receiver that has given up (C7).
    ///
    /// # Safety
    ///
    /// As [`send`](Self::send).
    // Always: one more function to return through after the switch costs 7 ns (`pingpong` 64 and 82 ns).
    #[inline(always)]
    pub(super) unsafe fn send_waiting(
        &self,
        state: Guard<'_, State<T>, RawBiased>,
        value: *mut T,
        deadline: Option<Instant>,
        taken_at: TakenAt,
    ) -> ControlFlow<Ended, TakenAt> {
        let unit = park::current();
        let ticket = deadline.map(|_| unit.arm());
        let node = Node::new(unit, ticket, value.cast());
        if taken_at == TakenAt::NEVER {
            // SAFETY: the node stays in this frame until it is out of the queue.
            unsafe { state.senders.push(&node) };
        } else {
            node.set_taken_at(taken_at);
            // SAFETY: as above.
            unsafe { state.senders.put_back(&node) };
        }
        self.glance.has_changed();
        Self::unlock_and_wake(state, None);
        match ticket {
            None => unit.park(Reason::ChanSend.on(self)),
            Some(ticket) => {
                if unit.park_until(ticket, deadline, Reason::ChanSend.on(self)) == Parked::TimedOut {
                    self.state.lock().senders.remove(&node);
                    return ControlFlow::Break(Ended::TimedOut);
                }
            }
        }
        match node.outcome() {
            Outcome::Done => ControlFlow::Break(Ended::Done),
            Outcome::Closed => ControlFlow::Break(Ended::Closed),
            Outcome::Waiting | Outcome::Again => ControlFlow::Continue(node.taken_at()),
        }
    }

    /// Receives, waiting until `deadline` at most.
    ///
    /// # Safety
    ///
    /// `into` points to uninitialised room for a `T`, which is initialised when the answer is `Done`.
    #[inline]
    pub(crate) unsafe fn receive(&self, into: *mut T, deadline: Option<Instant>) -> Ended {
        let mut rounds = 0;
        loop {
            let mut state = self.state.lock();
            // SAFETY: by the caller.
            match unsafe { state.receive(into) } {
                Step::Done(sender) => {
                    if rounds != 0 {
                        state.receivers_linger.paid();
                    }
                    Self::unlock_and_wake(state, sender);
                    park::spend();
                    return Ended::Done;
                }
                Step::Closed => {
                    drop(state);
                    park::spend();
                    return Ended::Closed;
                }
                Step::Pending => {
                    if deadline.is_some() || !self.may_linger() || !state.receivers_linger.again(rounds) {
                        // SAFETY: by the caller.
                        return match unsafe { self.receive_waiting(state, into, deadline, Join::Last) } {
                            ControlFlow::Break(ended) => ended,
                            // SAFETY: by the caller.
                            ControlFlow::Continue(outcome) => unsafe { self.receive_again(outcome, into, deadline) },
                        };
                    }
                }
                Step::Promise(sender) => {
                    // SAFETY: claimed just now, under the lock that is still held; `into` is room for the value.
                    let outcome = unsafe { self.await_value(state, sender, into) };
                    // SAFETY: by the caller.
                    return unsafe { self.receive_again(outcome, into, deadline) };
                }
            }
            drop(state);
            park::linger(rounds);
            rounds += 1;
        }
    }

    /// Waits in the queue. Goes on with what came of a two-step sender's step, when that was not a value.
    ///
    /// # Safety
    ///
    /// As [`receive`](Self::receive).
    pub(super) unsafe fn receive_waiting(
        &self,
        state: Guard<'_, State<T>, RawBiased>,
        into: *mut T,
        deadline: Option<Instant>,
        join: Join,
    ) -> ControlFlow<Ended, Outcome> {
        let unit = park::current();
        let ticket = deadline.map(|_| unit.arm());
        let node = Node::new(unit, ticket, into.cast());

        match join {
            // SAFETY: the node stays in this frame until it is out of the queue.
            Join::First => unsafe { state.receivers.push_front(&node) },
            // SAFETY: as above.
            Join::Last => unsafe { state.receivers.push(&node) },
        }
        Self::unlock_and_wake(state, None);
        match ticket {
            None => unit.park(Reason::ChanRecv.on(self)),
            Some(ticket) => {
                if unit.park_until(ticket, deadline, Reason::ChanRecv.on(self)) == Parked::TimedOut {
                    self.state.lock().receivers.remove(&node);
                    return ControlFlow::Break(Ended::TimedOut);
                }
            }
        }
        match node.outcome() {
            Outcome::Done => ControlFlow::Break(Ended::Done),
            Outcome::Closed => ControlFlow::Break(Ended::Closed),
            outcome @ (Outcome::Waiting | Outcome::Again) => ControlFlow::Continue(outcome),
        }
    }

    /// Closes the channel; false when it was closed before. Never switches (P4).
    pub(crate) fn close(&self) -> bool {
        let _p4 = park::no_switch();
        let mut state = self.state.lock();
        if state.closed {
            return false;
        }
        state.closed = true;
        self.glance.has_changed();
        // Senders' values stay with them.
        let mut woken = state.senders.claim_all(Outcome::Closed);
        woken.append(state.end_promises());
        state.watchers.claim_all_into(Outcome::Again, &mut woken);
        // Nothing enters any more (C4), so receivers may be told some at a time: their nodes are touched while they are near, and the lock
        // is not held for long. No sender is left for one of them to meet. A few are told in the order in which they came; where there are
        // many, the others from the end, which is faster.
        let mut more = state.receivers.claim_some(Outcome::Closed, TOLD_AT_ONCE, &mut woken);
        while more {
            drop(state);
            std::mem::replace(&mut woken, Claimed::none()).wake();
            state = self.state.lock();
            more = state.receivers.claim_some_from_the_end(Outcome::Closed, TOLD_AT_ONCE, &mut woken);
        }
        drop(state);
        woken.wake();
        true
    }

    /// The last receiver is gone: nothing will ever be taken out.
    pub(crate) fn deafen(&self) {
        let (woken, values) = {
            let mut state = self.state.lock();
            state.deaf = true;
            let mut woken = state.senders.claim_all(Outcome::Closed);
            state.watchers.claim_all_into(Outcome::Again, &mut woken);
            (woken, state.take_all())
        };
        woken.wake();
        // P6: whatever the values' `Drop` does, it does without the lock.
        drop_all(values);
    }

    /// Drops what is left, as [`deafen`](Self::deafen), where nobody is left to be told.
    ///
    /// # Safety
    ///
    /// Nobody else uses the channel, or ever will.
    pub(crate) unsafe fn clear(&self) {
        // SAFETY: by the caller; nothing but the values is touched, and none is dropped in there.
        drop_all(unsafe { self.state.with_raw(State::take_all) });
    }

    pub(crate) fn is_closed(&self) -> bool {
        let state = self.state.lock();
        state.closed || state.deaf
    }

    pub(crate) fn len(&self) -> usize {
        if self.room == 0 { 0 } else { self.state.lock().len() }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.room
    }

    pub(crate) fn capacity(&self) -> Option<usize> {
        if self.room == usize::MAX && self.state.lock().unbounded { None } else { Some(self.room) }
    }
}

/// Drops every value, also behind one whose `Drop` panics; the first such panic goes on when all are gone. The glue of a collection would
/// end the process at a second one.
fn drop_all<T>(mut values: VecDeque<T>) {
    let mut first = None;
    while !values.is_empty() {
        let rest = AssertUnwindSafe(|| {
            while let Some(value) = values.pop_front() {
                drop(value);
            }
        });
        if let Err(payload) = catch_unwind(rest) {
            // Only one panic can go on. The payload of another is leaked: its `Drop` could panic in turn.
            if first.is_none() {
                first = Some(payload);
            } else {
                mem::forget(payload);
            }
        }
    }
    if let Some(payload) = first {
        park::resume_panic(payload);
    }
}

/// Runs `receive` with room for a value; the value, when it says `Done`.
#[inline]
pub(crate) fn into_room<T>(receive: impl FnOnce(*mut T) -> Ended) -> Result<T, Ended> {
    let mut room = MaybeUninit::<T>::uninit();
    match receive(room.as_mut_ptr()) {
        // SAFETY: `receive` has initialised the room when it says `Done`.
        Ended::Done => Ok(unsafe { room.assume_init() }),
        ended => Err(ended),
    }
}
