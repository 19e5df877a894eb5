//! The channel itself: one lock, a ring, and wait queues.
//!
//! # Invariants, under the lock
//!
//! - C1: a receiver waits only if the ring is empty, no sender waits, and the channel is open; a sender waits only if the ring is full,
//!   no receiver waits, and the channel is open on both sides. So one of the two queues is empty, except that one party's `select` may
//!   wait in both queues of an unbuffered channel (its own nodes never match each other, since it looks before it enqueues), and except
//!   for nodes whose waits have been lost to another channel and that their owners have not yet withdrawn.
//! - C2: values leave in the order they came: the ring first, then the waiting senders in their order. Receiving from a full ring moves
//!   the first waiting sender's value in, in the same step.
//! - C3: a value given to a waiting receiver never passes through the ring; one taken from a waiting sender without a ring neither.
//! - C4: once `closed`, nothing enters; once `deaf` (no receiver is left), nothing enters and the ring is empty.
//!
//! # Two-step senders
//!
//! The run-time `Select` chooses an operation first and is given the value later. Until then its place is null.
//!
//! - C5: who claims a waiting sender whose place is null gives it something to send to, and wakes it: either a promise of room in the
//!   ring (`promised`, its place stays null), or the claimer's own node as its place. In the second case the claimer then waits,
//!   without a ticket, until the value is there ([`Outcome::Done`]) or the operation has been given up ([`Outcome::Again`], which the
//!   node says from the beginning: its owner looks again, since it may be one that does not wait, or not for this channel alone).
//! - C6: a value that a two-step receive has taken and given up goes back to the front of the ring, which may grow for it; and a promised
//!   place that has been lost to such a value is made by growing.
//! - C7: a receiver that was waiting when a two-step sender claimed it goes back to the front of the queue, where it lies, when that sender gives
//!   up, if it waits for this channel alone and without a limit; any other one looks again.
//!
//! # What happens outside the lock
//!
//! Wakes (P6), dropping of values, and yielding when a slice is used up.

use std::{
    collections::VecDeque,
    mem::{self, MaybeUninit},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::NonNull,
    time::Instant,
};

use super::{
    linger::Linger,
    ring::Ring,
    waitq::{Claimed, Node, Outcome, WaitQueue},
};
use crate::{
    runtime::{
        park::{self, Parked, Wake},
        unit::Unit,
        wait::Reason,
    },
    util::{
        BiasedLock,
        lock::{Guard, RawBiased},
    },
};

/// How many receivers a close tells under one hold of the lock.
const TOLD_AT_ONCE: usize = 32;

/// A channel of values of type `T`.
pub(crate) struct Channel<T> {
    state: BiasedLock<State<T>>,
    /// `usize::MAX` for unbounded.
    room: usize,
    unbounded: bool,
}

pub(crate) struct State<T> {
    ring: Ring<T>,
    receivers: WaitQueue,
    senders: WaitQueue,
    /// Those who wait to be told that something has changed (`ready`).
    watchers: WaitQueue,
    /// Places in the ring that two-step senders have been promised.
    promised: usize,
    room: usize,
    closed: bool,
    deaf: bool,
    senders_linger: Linger,
    receivers_linger: Linger,
}

/// What a step under the lock has come to.
#[must_use]
pub(crate) enum Step {
    /// The value has been moved; a partner is to be woken after unlocking.
    Done(Option<&'static Unit>),
    /// Sends find no one left to take the value; receives find nothing, for ever.
    Closed,
    /// A two-step sender has been claimed (C5): the receiver has to wait for its value.
    Promise(NonNull<Node>),
    Pending,
}

/// What a two-step send may send to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Grant {
    Closed,
    /// A place in the ring.
    Room,
    /// A receiver that waits.
    Receiver(NonNull<Node>),
}

/// The end of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Done,
    Closed,
    TimedOut,
    WouldBlock,
}

impl<T> State<T> {
    /// Sends the value at `value` if that needs no waiting; it has been moved out when this is done.
    ///
    /// # Safety
    ///
    /// `value` points to a valid value, which the caller forgets when this is done.
    #[inline]
    pub(crate) unsafe fn send(&mut self, value: *const T) -> Step {
        if self.closed || self.deaf {
            return Step::Closed;
        }
        if let Some(receiver) = self.receivers.claim_first() {
            // SAFETY: claimed, so its owner waits (Q1, Q3).
            let receiver = unsafe { receiver.as_ref() };
            // SAFETY: a receiver's place is uninitialised room for a `T`.
            unsafe { receiver.place().cast::<T>().copy_from_nonoverlapping(value, 1) };
            receiver.set_outcome(Outcome::Done);
            return Step::Done(Some(receiver.unit()));
        }
        if self.has_room() {
            // SAFETY: by the caller.
            self.ring.push(unsafe { value.read() });
            return Step::Done(None);
        }
        Step::Pending
    }

    /// Receives into `into` if that needs no waiting.
    ///
    /// # Safety
    ///
    /// `into` points to uninitialised room for a `T`.
    #[inline]
    pub(crate) unsafe fn receive(&mut self, into: *mut T) -> Step {
        if let Some(value) = self.ring.pop() {
            // SAFETY: by the caller.
            unsafe { into.write(value) };
            // C2.
            let sender = self.refill();
            if self.room == usize::MAX {
                self.ring.relax();
            }
            return Step::Done(sender);
        }
        if let Some(sender) = self.senders.claim_first() {
            // SAFETY: claimed, so its owner waits (Q1, Q3).
            let waiting = unsafe { sender.as_ref() };
            if waiting.place().is_null() {
                return Step::Promise(sender);
            }
            // SAFETY: a sender's place holds its value, which its owner forgets.
            unsafe { into.copy_from_nonoverlapping(waiting.place().cast::<T>(), 1) };
            waiting.set_outcome(Outcome::Done);
            return Step::Done(Some(waiting.unit()));
        }
        if self.closed { Step::Closed } else { Step::Pending }
    }

    /// Gives room in the ring to the first waiting sender, if there is some.
    #[inline]
    fn refill(&mut self) -> Option<&'static Unit> {
        if self.senders.is_empty() || !self.has_room() {
            return None;
        }
        let sender = self.senders.claim_first()?;
        // SAFETY: claimed, so its owner waits (Q1, Q3).
        let sender = unsafe { sender.as_ref() };
        if sender.place().is_null() {
            // C5.
            self.promised += 1;
        } else {
            // SAFETY: a sender's place holds its value, which its owner forgets.
            self.ring.push(unsafe { sender.place().cast::<T>().read() });
        }
        sender.set_outcome(Outcome::Done);
        Some(sender.unit())
    }

    /// The first step of a two-step send.
    pub(crate) fn grant(&mut self) -> Option<Grant> {
        if self.closed || self.deaf {
            return Some(Grant::Closed);
        }
        if let Some(receiver) = self.receivers.claim_first() {
            return Some(Grant::Receiver(receiver));
        }
        if self.has_room() {
            self.promised += 1;
            return Some(Grant::Room);
        }
        None
    }

    #[inline]
    fn has_room(&self) -> bool {
        self.ring.len() + self.promised < self.room
    }

    #[inline]
    pub(crate) fn can_send(&self) -> bool {
        self.closed || self.deaf || !self.receivers.is_empty() || self.has_room()
    }

    #[inline]
    pub(crate) fn can_receive(&self) -> bool {
        self.ring.len() > 0 || !self.senders.is_empty() || self.closed
    }

    #[inline]
    pub(crate) fn receivers(&self) -> &WaitQueue {
        &self.receivers
    }

    #[inline]
    pub(crate) fn senders(&self) -> &WaitQueue {
        &self.senders
    }

    #[inline]
    pub(crate) fn watchers(&self) -> &WaitQueue {
        &self.watchers
    }

    /// Those who watch, to be woken after unlocking.
    #[inline]
    pub(crate) fn take_watchers(&mut self) -> Option<Claimed> {
        if self.watchers.is_empty() { None } else { Some(self.watchers.claim_all(Outcome::Again)) }
    }
}

impl<T> Channel<T> {
    pub(crate) fn bounded(capacity: usize) -> Self {
        Self::new(capacity, false, Ring::bounded(capacity))
    }

    pub(crate) fn unbounded() -> Self {
        Self::new(usize::MAX, true, Ring::unbounded())
    }

    fn new(room: usize, unbounded: bool, ring: Ring<T>) -> Self {
        let state = State {
            ring,
            receivers: WaitQueue::new(),
            senders: WaitQueue::new(),
            watchers: WaitQueue::new(),
            promised: 0,
            room,
            closed: false,
            deaf: false,
            senders_linger: Linger::new(),
            receivers_linger: Linger::new(),
        };
        Self { state: BiasedLock::biased(state), room, unbounded }
    }

    #[inline]
    pub(crate) fn state(&self) -> &BiasedLock<State<T>> {
        &self.state
    }

    /// Whether a party that finds nothing may look again before it parks (`linger`). Without a ring never: two that linger do not meet.
    /// Called with the lock held.
    #[inline]
    fn may_linger(&self) -> bool {
        self.room != 0 && self.state.raw().is_shared()
    }

    /// Leaves the lock, then wakes: first those who watch, then the partner.
    #[inline]
    fn unlock_and_wake(state: Guard<'_, State<T>, RawBiased>, partner: Option<&'static Unit>) {
        if state.watchers.is_empty() {
            drop(state);
        } else {
            Self::wake_watchers(state);
        }
        if let Some(partner) = partner {
            partner.wake(Wake::Handoff);
        }
    }

    #[cold]
    fn wake_watchers(state: Guard<'_, State<T>, RawBiased>) {
        let watchers = state.watchers.claim_all(Outcome::Again);
        drop(state);
        watchers.wake();
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
                Self::unlock_and_wake(state, receiver);
                Ended::Done
            }
            Step::Closed => Ended::Closed,
            Step::Promise(_) | Step::Pending => Ended::WouldBlock,
        }
    }

    /// Receives without waiting; but a two-step sender that waits is a partner that is there, so its value is waited for.
    ///
    /// # Safety
    ///
    /// As [`State::receive`].
    #[inline]
    pub(crate) unsafe fn try_receive(&self, into: *mut T) -> Ended {
        loop {
            let mut state = self.state.lock();
            // SAFETY: by the caller.
            match unsafe { state.receive(into) } {
                Step::Done(sender) => {
                    Self::unlock_and_wake(state, sender);
                    return Ended::Done;
                }
                Step::Closed => return Ended::Closed,
                Step::Pending => return Ended::WouldBlock,
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
                    Self::unlock_and_wake(state, receiver);
                    if !self.unbounded {
                        park::spend();
                    }
                    return Ended::Done;
                }
                Step::Closed => return Ended::Closed,
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
        let unit = park::current();
        let ticket = deadline.map(|_| unit.arm());
        let node = Node::new(unit, ticket, value.cast());
        // SAFETY: the node stays in this frame until it is out of the queue.
        unsafe { state.senders.push(&node) };
        Self::unlock_and_wake(state, None);
        match ticket {
            None => unit.park(Reason::ChanSend.on(self)),
            Some(ticket) => {
                if unit.park_until(ticket, deadline, Reason::ChanSend.on(self)) == Parked::TimedOut {
                    self.state.lock().senders.remove(&node);
                    return Ended::TimedOut;
                }
            }
        }
        match node.outcome() {
            Outcome::Done => Ended::Done,
            Outcome::Closed => Ended::Closed,
            Outcome::Waiting | Outcome::Again => unreachable!("a sender is woken with an outcome"),
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
                        return unsafe { self.receive_waiting(state, into, deadline, false) };
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

    /// # Safety
    ///
    /// As [`receive`](Self::receive).
    unsafe fn receive_waiting(
        &self,
        state: Guard<'_, State<T>, RawBiased>,
        into: *mut T,
        deadline: Option<Instant>,
        first: bool,
    ) -> Ended {
        let unit = park::current();
        let ticket = deadline.map(|_| unit.arm());
        let node = Node::new(unit, ticket, into.cast());

        if first {
            // SAFETY: the node stays in this frame until it is out of the queue.
            unsafe { state.receivers.push_front(&node) };
        } else {
            // SAFETY: as above.
            unsafe { state.receivers.push(&node) };
        }
        Self::unlock_and_wake(state, None);
        match ticket {
            None => unit.park(Reason::ChanRecv.on(self)),
            Some(ticket) => {
                if unit.park_until(ticket, deadline, Reason::ChanRecv.on(self)) == Parked::TimedOut {
                    self.state.lock().receivers.remove(&node);
                    return Ended::TimedOut;
                }
            }
        }
        match node.outcome() {
            Outcome::Done => Ended::Done,
            Outcome::Closed => Ended::Closed,
            // SAFETY: by the caller.
            outcome @ (Outcome::Waiting | Outcome::Again) => unsafe { self.receive_again(outcome, into, deadline) },
        }
    }

    /// Goes on after a two-step sender: with what it brought, or from the front of the queue.
    ///
    /// # Safety
    ///
    /// As [`receive`](Self::receive).
    #[cold]
    unsafe fn receive_again(&self, mut outcome: Outcome, into: *mut T, deadline: Option<Instant>) -> Ended {
        loop {
            match outcome {
                Outcome::Done => return Ended::Done,
                Outcome::Closed => return Ended::Closed,
                Outcome::Waiting | Outcome::Again => {}
            }
            let mut state = self.state.lock();
            // SAFETY: by the caller.
            match unsafe { state.receive(into) } {
                Step::Done(sender) => {
                    Self::unlock_and_wake(state, sender);
                    return Ended::Done;
                }
                Step::Closed => return Ended::Closed,
                // SAFETY: by the caller.
                Step::Pending => return unsafe { self.receive_waiting(state, into, deadline, true) },
                // SAFETY: as above.
                Step::Promise(sender) => outcome = unsafe { self.await_value(state, sender, into) },
            }
        }
    }

    /// C5: gives a claimed two-step sender the calling party as its receiver and waits for what comes of it.
    ///
    /// # Safety
    ///
    /// `sender` was claimed under the lock that `state` holds; `into` is room for a `T`.
    #[cold]
    unsafe fn await_value(
        &self,
        state: Guard<'_, State<T>, RawBiased>,
        sender: NonNull<Node>,
        into: *mut T,
    ) -> Outcome {
        let unit = park::current();
        let node = Node::new(unit, None, into.cast());
        node.set_outcome(Outcome::Again);
        // SAFETY: claimed, so its owner waits (Q1).
        let sender = unsafe { sender.as_ref() };
        sender.set_place((&raw const node).cast_mut().cast());
        sender.set_outcome(Outcome::Done);
        let partner = sender.unit();
        Self::unlock_and_wake(state, Some(partner));
        unit.park(Reason::ChanRecv.on(self));
        node.outcome()
    }

    /// The second step of a two-step send.
    ///
    /// # Safety
    ///
    /// `grant` came from this channel and is used once; `value` points to a valid value, which the caller forgets when the answer is
    /// `Done`.
    pub(crate) unsafe fn send_granted(&self, grant: Grant, value: *const T) -> Ended {
        match grant {
            Grant::Closed => Ended::Closed,
            Grant::Room => {
                let mut state = self.state.lock();
                state.promised -= 1;
                // SAFETY: by the caller.
                match unsafe { state.send(value) } {
                    Step::Done(receiver) => {
                        Self::unlock_and_wake(state, receiver);
                        Ended::Done
                    }
                    Step::Closed => Ended::Closed,
                    Step::Promise(_) | Step::Pending => {
                        // A value that was given back (C6) has taken the place; the promise is kept by growing.
                        // SAFETY: by the caller.
                        state.ring.push(unsafe { value.read() });
                        Self::unlock_and_wake(state, None);
                        Ended::Done
                    }
                }
            }
            Grant::Receiver(receiver) => {
                // SAFETY: granted, so its owner waits for us (C5).
                let receiver = unsafe { receiver.as_ref() };
                // SAFETY: its place is room for a `T`.
                unsafe { receiver.place().cast::<T>().copy_from_nonoverlapping(value, 1) };
                receiver.set_outcome(Outcome::Done);
                let unit = receiver.unit();
                unit.wake(Wake::Handoff);
                Ended::Done
            }
        }
    }

    /// Gives up a two-step send: its partner goes back to where it was.
    pub(crate) fn give_up_grant(&self, grant: Grant) {
        let mut state = self.state.lock();
        match grant {
            Grant::Closed => {}
            Grant::Room => {
                state.promised -= 1;
                let sender = state.refill();
                Self::unlock_and_wake(state, sender);
            }
            Grant::Receiver(receiver) => {
                // SAFETY: granted, so its owner waits for us (C5).
                let receiver = unsafe { receiver.as_ref() };
                let unit = receiver.unit();
                let waited = receiver.outcome() == Outcome::Waiting;
                if waited && receiver.is_plain() && !state.can_receive() && !receiver.place().is_null() {
                    // SAFETY: its owner stays parked in the frame that has the node.
                    unsafe { state.receivers.push_front(receiver) };
                    receiver.set_outcome(Outcome::Waiting);
                    // Who watches is told that somebody waits again.
                    return Self::unlock_and_wake(state, None);
                }
                // It looks again by itself: for a value, the close, its time limit, or at its other arms.
                receiver.set_outcome(Outcome::Again);
                drop(state);
                unit.wake(Wake::Queue);
            }
        }
    }

    /// Gives up a two-step receive: the value goes to the first waiting receiver, or back to the front (C6).
    pub(crate) fn give_back(&self, value: T) {
        let mut state = self.state.lock();
        if state.deaf {
            drop(state);
            return drop(value);
        }
        let value = MaybeUninit::new(value);
        let Some(receiver) = state.receivers.claim_first() else {
            // SAFETY: initialised above and not moved yet.
            state.ring.put_back(unsafe { value.assume_init() });
            return Self::unlock_and_wake(state, None);
        };
        // SAFETY: claimed, so its owner waits (Q1, Q3).
        let receiver = unsafe { receiver.as_ref() };
        // SAFETY: a receiver's place is room for a `T`; `MaybeUninit` does not drop the original.
        unsafe { receiver.place().cast::<T>().copy_from_nonoverlapping(value.as_ptr(), 1) };
        receiver.set_outcome(Outcome::Done);
        let unit = receiver.unit();
        Self::unlock_and_wake(state, Some(unit));
    }

    /// Closes the channel; false when it was closed before. Never switches (P4).
    pub(crate) fn close(&self) -> bool {
        let _p4 = park::no_switch();
        let mut state = self.state.lock();
        if state.closed {
            return false;
        }
        state.closed = true;
        // Senders' values stay with them.
        let mut woken = state.senders.claim_all(Outcome::Closed);
        state.watchers.claim_all_into(Outcome::Again, &mut woken);
        // Nothing enters any more (C4), so receivers may be told some at a time: their nodes are touched while they are near, and the lock
        // is not held for long. No sender is left for one of them to meet.
        while state.receivers.claim_some(Outcome::Closed, TOLD_AT_ONCE, &mut woken) {
            drop(state);
            std::mem::replace(&mut woken, Claimed::none()).wake();
            state = self.state.lock();
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
            (woken, state.ring.take())
        };
        woken.wake();
        // P6: whatever the values' `Drop` does, it does without the lock.
        drop_all(values);
    }

    pub(crate) fn is_closed(&self) -> bool {
        let state = self.state.lock();
        state.closed || state.deaf
    }

    pub(crate) fn len(&self) -> usize {
        if self.room == 0 { 0 } else { self.state.lock().ring.len() }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.room
    }

    pub(crate) fn capacity(&self) -> Option<usize> {
        if self.unbounded { None } else { Some(self.room) }
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
