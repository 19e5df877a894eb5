//! What a channel's lock guards: the ring, the queues of those who wait, and the steps that are taken under the lock.
//!
//! # Invariants, under the lock
//!
//! - C1: a receiver waits only if the buffer is empty, no sender waits, and the channel is open; a sender waits only if the buffer is full,
//!   no receiver waits, and the channel is open on both sides. So one of the two queues is empty, except that one party's `select` may
//!   wait in both queues of an unbuffered channel (its own nodes never match each other, since it looks before it enqueues), except
//!   for nodes whose waits have been lost to another channel and that their owners have not yet withdrawn, and except behind an open
//!   promise (C5 of `two_step`), where receivers wait for what senders that wait, or values in the buffer, may not overtake.
//! - C2: values leave in the order they came: the buffer first, then the waiting senders in their order. Receiving from a full buffer moves
//!   the first waiting sender's value in, in the same step.
//! - C3: a value given to a waiting receiver never passes through the ring; one taken from a waiting sender without a ring neither. A value
//!   that receivers have waited for behind a promise is the exception.
//! - C4: once `closed`, nothing enters; once `deaf` (no receiver is left), nothing enters and the buffer is empty.
//!
//! Operations in two steps, with C5 to C8, are in [`two_step`](super::two_step). The way beside the ring that they need (`detour`) is looked
//! at here, on the cold paths: while it is in use the channel is not `plain`.

use std::collections::VecDeque;

use super::{detour::Detour, linger::Linger, ring::Ring};
use crate::runtime::{
    unit::Unit,
    waitq::{Claimed, ClaimedNode, Outcome, TakenAt, WaitQueue},
};

/// What the lock guards. `two_step` works on it too.
pub(crate) struct State<T> {
    pub(super) ring: Ring<T>,
    pub(super) receivers: WaitQueue,
    pub(super) senders: WaitQueue,
    /// Those who wait to be told that something has changed (`ready`).
    pub(super) watchers: WaitQueue,
    /// What is not in the ring. Made when it is first needed.
    pub(super) detour: Option<Box<Detour<T>>>,
    pub(super) room: usize,
    /// Told from a capacity of `usize::MAX`, which values without size can have.
    pub(super) unbounded: bool,
    /// Open on both sides, and the ring is the whole buffer: all that the fast paths ask.
    pub(super) plain: bool,
    pub(super) closed: bool,
    pub(super) deaf: bool,
    /// When something was last taken in two steps.
    pub(super) taken_at: TakenAt,
    pub(super) senders_linger: Linger,
    pub(super) receivers_linger: Linger,
}

/// What a step under the lock has come to.
#[must_use]
pub(crate) enum Step {
    /// The value has been moved; a partner is to be woken after unlocking.
    Done(Option<&'static Unit>),
    /// Sends find no one left to take the value; receives find nothing, for ever.
    Closed,
    /// A two-step sender has been claimed (C5): the receiver has to wait for its value.
    Promise(ClaimedNode),
    Pending,
}

impl<T> State<T> {
    pub(super) fn new(room: usize, unbounded: bool, ring: Ring<T>) -> Self {
        Self {
            ring,
            receivers: WaitQueue::new(),
            senders: WaitQueue::new(),
            watchers: WaitQueue::new(),
            detour: None,
            room,
            unbounded,
            plain: true,
            closed: false,
            deaf: false,
            taken_at: TakenAt::NEVER,
            senders_linger: Linger::new(),
            receivers_linger: Linger::new(),
        }
    }

    /// Sends the value at `value` if that needs no waiting; it has been moved out when this is done.
    ///
    /// # Safety
    ///
    /// `value` points to a valid value, which the caller forgets when this is done.
    #[inline]
    pub(crate) unsafe fn send(&mut self, value: *const T) -> Step {
        if !self.plain {
            // SAFETY: by the caller.
            return unsafe { self.send_beside(value) };
        }
        if let Some(receiver) = self.receivers.claim_first() {
            // SAFETY: a receiver's place is uninitialised room for a `T`.
            unsafe { receiver.place().cast::<T>().copy_from_nonoverlapping(value, 1) };
            return Step::Done(Some(receiver.complete(Outcome::Done)));
        }
        if self.ring.len() < self.room {
            // SAFETY: by the caller.
            self.ring.push(unsafe { value.read() });
            return Step::Done(None);
        }
        Step::Pending
    }

    /// As [`send`](Self::send), where the channel is not plain. Receivers that wait do so behind a promise (C6).
    ///
    /// # Safety
    ///
    /// As [`send`](Self::send).
    #[cold]
    unsafe fn send_beside(&mut self, value: *const T) -> Step {
        if self.closed || self.deaf {
            return Step::Closed;
        }
        if !self.has_room() {
            return Step::Pending;
        }
        // SAFETY: by the caller.
        self.push(unsafe { value.read() });
        Step::Done(None)
    }

    /// Receives into `into` if that needs no waiting.
    ///
    /// # Safety
    ///
    /// `into` points to uninitialised room for a `T`.
    // Always, as `refill` and `unlock_and_wake`: three calls for each value cost a third of it (`buffered` 10.9 and 6.7 ns).
    #[inline(always)]
    pub(crate) unsafe fn receive(&mut self, into: *mut T) -> Step {
        if let Some(value) = self.ring.pop() {
            // SAFETY: by the caller.
            unsafe { into.write(value) };
            // C2.
            let sender = self.refill();
            self.relax();
            return Step::Done(sender);
        }
        if !self.plain {
            // SAFETY: by the caller.
            return unsafe { self.receive_beside(into) };
        }
        // SAFETY: by the caller.
        unsafe { self.receive_from_sender(into) }
    }

    /// # Safety
    ///
    /// As [`receive`](Self::receive).
    #[inline]
    unsafe fn receive_from_sender(&mut self, into: *mut T) -> Step {
        if let Some(sender) = self.senders.claim_first() {
            if sender.place().is_null() {
                return Step::Promise(sender);
            }
            // SAFETY: a sender's place holds its value, which its owner forgets.
            unsafe { into.copy_from_nonoverlapping(sender.place().cast::<T>(), 1) };
            return Step::Done(Some(sender.complete(Outcome::Done)));
        }
        Step::Pending
    }

    /// As [`receive`](Self::receive), where the ring is empty and the channel not plain.
    ///
    /// # Safety
    ///
    /// As [`receive`](Self::receive).
    #[cold]
    unsafe fn receive_beside(&mut self, into: *mut T) -> Step {
        if self.sender_is_first() {
            // SAFETY: by the caller.
            let step = unsafe { self.receive_from_sender(into) };
            if !matches!(step, Step::Pending) {
                return step;
            }
        }
        if let Some(detour) = &mut self.detour {
            if let Some(value) = detour.pop_returned(&mut self.ring) {
                // SAFETY: by the caller.
                unsafe { into.write(value) };
                self.recount();
                // C2.
                return Step::Done(self.refill());
            }
            if detour.has_line() {
                return Step::Pending;
            }
        }
        if self.closed { Step::Closed } else { Step::Pending }
    }

    /// Gives room in the buffer to the first waiting sender, if there is some.
    #[inline(always)]
    fn refill(&mut self) -> Option<&'static Unit> {
        if self.senders.is_empty() { None } else { self.refill_from_sender() }
    }

    fn refill_from_sender(&mut self) -> Option<&'static Unit> {
        self.claim_for_room().map(|sender| sender.complete(Outcome::Done))
    }

    /// The first waiting sender, whose value has been moved in; it is to be told that it is done.
    pub(super) fn claim_for_room(&mut self) -> Option<ClaimedNode> {
        if !self.has_room() {
            return None;
        }
        let sender = self.senders.claim_first()?;
        self.let_in(&sender);
        Some(sender)
    }

    /// Gives an unbounded buffer's room back when most of it is unused.
    #[inline(always)]
    pub(super) fn relax(&mut self) {
        if self.room == usize::MAX {
            self.ring.relax();
        }
    }

    /// Moves a claimed sender's value in, for which there is room; or promises the room (C5).
    #[inline]
    pub(super) fn let_in(&mut self, sender: &ClaimedNode) {
        if sender.place().is_null() {
            sender.set_place(self.promise().into_place());
            return;
        }
        // SAFETY: a sender's place holds its value, which its owner forgets.
        let value = unsafe { sender.place().cast::<T>().read() };
        if self.plain {
            self.ring.push(value);
        } else {
            self.push(value);
        }
    }

    /// Adds a value behind all others.
    #[cold]
    fn push(&mut self, value: T) {
        let value = match &mut self.detour {
            Some(detour) => detour.push(value),
            None => Some(value),
        };
        if let Some(value) = value {
            self.ring.push(value);
        }
        self.recount();
    }

    /// To be called when the detour, `closed` or `deaf` has changed.
    pub(super) fn recount(&mut self) {
        self.plain = !self.closed && !self.deaf && self.detour.as_deref().is_none_or(Detour::is_empty);
    }

    #[inline]
    pub(super) fn has_room(&self) -> bool {
        if self.plain { self.ring.len() < self.room } else { self.has_room_beside() }
    }

    #[cold]
    fn has_room_beside(&self) -> bool {
        self.ring.len() + self.detour.as_deref().map_or(0, Detour::len) < self.room
    }

    #[inline]
    pub(crate) fn can_send(&self) -> bool {
        if self.plain { !self.receivers.is_empty() || self.has_room() } else { self.can_send_beside() }
    }

    #[cold]
    fn can_send_beside(&self) -> bool {
        self.closed || self.deaf || self.has_room()
    }

    #[inline]
    pub(crate) fn can_receive(&self) -> bool {
        self.ring.len() > 0 || if self.plain { !self.senders.is_empty() } else { self.can_receive_beside() }
    }

    #[cold]
    fn can_receive_beside(&self) -> bool {
        match self.detour.as_deref() {
            Some(detour) if detour.returned().is_some() => true,
            Some(detour) if detour.has_line() => false,
            _ => self.closed || !self.senders.is_empty(),
        }
    }

    /// All values, to be dropped elsewhere.
    pub(super) fn take_all(&mut self) -> VecDeque<T> {
        let values = match &mut self.detour {
            Some(detour) => detour.take(&mut self.ring),
            None => self.ring.take(),
        };
        self.recount();
        values
    }

    pub(super) fn len(&self) -> usize {
        // C8.
        (self.ring.len() + self.detour.as_deref().map_or(0, Detour::values)).min(self.room)
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
