//! Operations in two steps, for the run-time `Select`: the first chooses, the second completes or gives up.
//!
//! A sender is given the value in the second step; until then its place is null. A receiver may yet give up what it has. In between the
//! channel's lock is not held. C1 to C4 are those of [`state`](super::state).
//!
//! - C5: a two-step sender that waits has nothing to take yet, so its place is null. Who claims it gives it something to send to, and wakes it:
//!   - where there is a buffer, the promise of a place in it;
//!   - where there is none, the claimer's own node. The claimer then waits, without a ticket, until the value is there ([`Outcome::Done`]) or the
//!     sender has given up ([`Outcome::Again`]). It has to wait: a sender that was told it is chosen must find somebody, and one who only came to
//!     look would otherwise never meet such a sender. The node says `Again` from the beginning, so that it is not put into a queue when the sender
//!     gives up: its owner looks again, since it may be one that does not wait, or not for this channel alone.
//! - C6: a promised place is a place in the order (C2): what comes later, into the buffer or to it, stays behind until the promise is kept or
//!   given up, and receivers wait for it as for any value, with their limits. A close ends all promises.
//! - C7: a party that waited in the queue when a two-step operation claimed it goes back to its place there when that operation is given up, if it
//!   waits for this channel alone and without a limit; any other one looks again. Between the two steps a claimed receiver waits for its value, and
//!   a claimed sender keeps its own.
//! - C8: a value that a two-step receive has taken from the buffer, or from a sender that has gone on, and given up comes before all others,
//!   but behind those given back that had been taken before it. The buffer may grow for it; beyond its capacity such values count for
//!   nothing, as those of waiting senders.
//!
//! For C6 and C8 there is a way beside the ring (`detour`). While it is in use the channel is not `plain`, and takes the cold paths.

use std::{mem::MaybeUninit, ops::ControlFlow, ptr::NonNull, time::Instant};

use super::{
    core::{Channel, Ended, Join},
    detour::{Detour, Promise},
    state::{State, Step},
};
use crate::{
    runtime::{
        park::{self, Wake},
        wait::Reason,
        waitq::{Claimed, ClaimedNode, Node, Outcome, TakenAt},
    },
    util::lock::{Guard, RawBiased},
};

/// What the first step of a two-step receive has come to.
#[must_use]
pub(crate) enum Taken {
    Step(Step, TakenAt),
    /// A sender that waits has been claimed, and still has its value (C7).
    Held(ClaimedNode),
}

/// What a two-step send may send to. It is not copied: its second step takes it, or it is given up.
#[derive(Debug)]
#[must_use]
pub(crate) enum Grant {
    Closed,
    /// A place in the buffer.
    Room(Promise),
    /// A receiver that waits.
    Receiver(ClaimedNode),
}

impl Grant {
    /// What a two-step sender that waited finds as its place (C5).
    ///
    /// # Safety
    ///
    /// The place is that of the node of such a sender, whose wait has ended with [`Outcome::Done`], and is asked for once.
    pub(crate) unsafe fn from_place(place: *mut ()) -> Self {
        match (Promise::from_place(place), NonNull::new(place.cast())) {
            (Some(promise), _) => Self::Room(promise),
            // SAFETY: a place that is an address is that of a node whose owner waits for us alone, without a ticket (C5).
            (None, Some(node)) => Self::Receiver(unsafe { ClaimedNode::new(node) }),
            (None, None) => Self::Closed,
        }
    }
}

impl<T> State<T> {
    /// The first step of a two-step send.
    pub(crate) fn grant(&mut self) -> Option<Grant> {
        if self.closed || self.deaf {
            return Some(Grant::Closed);
        }
        // With a buffer receivers that wait get what is promised (C6).
        if self.room == 0
            && let Some(receiver) = self.receivers.claim_first()
        {
            let taken_at = self.next_taking();
            receiver.set_taken_at(taken_at);
            return Some(Grant::Receiver(receiver));
        }
        self.has_room().then(|| Grant::Room(self.promise()))
    }

    /// The first step of a two-step receive: into `into`, or by holding the sender.
    ///
    /// # Safety
    ///
    /// As [`receive`](Self::receive).
    pub(crate) unsafe fn take(&mut self, into: *mut T) -> Taken {
        let taken_at = self.next_taking();
        if self.sender_is_first()
            && let Some(sender) = self.senders.claim_first()
        {
            if sender.place().is_null() {
                return Taken::Step(Step::Promise(sender), taken_at);
            }
            sender.set_taken_at(taken_at);
            return Taken::Held(sender);
        }
        let taken_at = self.detour.as_ref().and_then(|detour| detour.returned()).unwrap_or(taken_at);
        // SAFETY: by the caller.
        Taken::Step(unsafe { self.receive(into) }, taken_at)
    }

    pub(crate) fn next_taking(&mut self) -> TakenAt {
        self.taken_at = self.taken_at.next();
        self.taken_at
    }

    /// Whether the buffer has nothing that comes before the first of the senders that wait.
    pub(super) fn sender_is_first(&self) -> bool {
        if self.ring.len() > 0 {
            return false;
        }
        let Some(detour) = &self.detour else { return true };
        match (detour.returned(), self.senders.first_taken_at()) {
            (None, _) => !detour.has_line(),
            // C8: given back too, and taken before.
            (Some(returned), Some(sender)) => sender != TakenAt::NEVER && sender.is_before(returned),
            (Some(_), None) => false,
        }
    }

    #[cold]
    pub(super) fn detour(&mut self) -> &mut Detour<T> {
        self.detour.get_or_insert_with(|| Box::new(Detour::new()))
    }

    #[cold]
    pub(super) fn promise(&mut self) -> Promise {
        let promise = self.detour().promise();
        self.recount();
        promise
    }

    /// Keeps a promise, or gives it up for want of a value. Those whom that served, to be woken after unlocking.
    fn settle(&mut self, promise: Promise, value: Option<T>) -> Claimed {
        self.detour().settle(promise, value);
        self.advance()
    }

    /// C6: what is behind promises goes to those who wait for it, or into the ring.
    pub(super) fn end_promises(&mut self) -> Claimed {
        self.recount();
        let Some(detour) = &mut self.detour else { return Claimed::none() };
        detour.void();
        self.advance()
    }

    /// C1, C6: what no promise holds up any more goes to those who wait for it, and what has room moves in.
    #[cold]
    pub(super) fn advance(&mut self) -> Claimed {
        let mut served = Claimed::none();
        loop {
            if let Some(detour) = &mut self.detour {
                detour.advance(&mut self.ring);
                self.recount();
            }
            while self.ring.len() > 0
                && let Some(receiver) = self.receivers.claim_first()
                && let Some(value) = self.ring.pop()
            {
                // SAFETY: a receiver's place is uninitialised room for a `T`.
                unsafe { receiver.place().cast::<T>().write(value) };
                served.push(receiver, Outcome::Done);
            }
            if !self.has_room() {
                return served;
            }
            let Some(sender) = self.senders.claim_first() else { return served };
            self.let_in(&sender);
            served.push(sender, Outcome::Done);
        }
    }
}

impl<T> Channel<T> {
    /// Goes on after a two-step receiver that has given up (C7).
    ///
    /// # Safety
    ///
    /// As [`send`](Self::send).
    #[cold]
    pub(super) unsafe fn send_again(&self, value: *mut T, deadline: Option<Instant>, mut taken_at: TakenAt) -> Ended {
        loop {
            let mut state = self.state().lock();
            // SAFETY: by the caller.
            match unsafe { state.send(value) } {
                Step::Done(receiver) => {
                    self.added(receiver);
                    Self::unlock_and_wake(state, receiver);
                    return Ended::Done;
                }
                Step::Closed => return Ended::Closed,
                Step::Promise(_) | Step::Pending => {
                    // SAFETY: by the caller.
                    match unsafe { self.send_waiting(state, value, deadline, taken_at) } {
                        ControlFlow::Break(ended) => return ended,
                        ControlFlow::Continue(again) => taken_at = again,
                    }
                }
            }
        }
    }

    /// Goes on after a two-step sender: with what it brought, or from the front of the queue.
    ///
    /// # Safety
    ///
    /// As [`receive`](Self::receive).
    #[cold]
    pub(super) unsafe fn receive_again(&self, mut outcome: Outcome, into: *mut T, deadline: Option<Instant>) -> Ended {
        loop {
            match outcome {
                Outcome::Done => return Ended::Done,
                Outcome::Closed => return Ended::Closed,
                Outcome::Waiting | Outcome::Again => {}
            }
            let mut state = self.state().lock();
            // SAFETY: by the caller.
            match unsafe { state.receive(into) } {
                Step::Done(sender) => {
                    Self::unlock_and_wake(state, sender);
                    return Ended::Done;
                }
                Step::Closed => return Ended::Closed,
                // SAFETY: by the caller.
                Step::Pending => match unsafe { self.receive_waiting(state, into, deadline, Join::First) } {
                    ControlFlow::Break(ended) => return ended,
                    ControlFlow::Continue(again) => outcome = again,
                },
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
    pub(super) unsafe fn await_value(
        &self,
        state: Guard<'_, State<T>, RawBiased>,
        sender: ClaimedNode,
        into: *mut T,
    ) -> Outcome {
        let unit = park::current();
        let node = Node::new(unit, None, into.cast());
        node.set_outcome(Outcome::Again);
        sender.set_place((&raw const node).cast_mut().cast());
        let partner = sender.complete(Outcome::Done);
        Self::unlock_and_wake(state, Some(partner));
        unit.park(Reason::ChanRecv.on(self));
        node.outcome()
    }

    /// The second step of a two-step send.
    ///
    /// # Safety
    ///
    /// `grant` came from this channel; `value` points to a valid value, which the caller forgets when the answer is `Done`.
    pub(crate) unsafe fn send_granted(&self, grant: Grant, value: *const T) -> Ended {
        match grant {
            Grant::Closed => Ended::Closed,
            Grant::Room(promise) => {
                let mut state = self.state().lock();
                if state.closed || state.deaf {
                    return Ended::Closed;
                }
                // SAFETY: by the caller.
                let served = state.settle(promise, Some(unsafe { value.read() }));
                self.glance.has_changed();
                Self::unlock_and_wake_all(state, served);
                Ended::Done
            }
            Grant::Receiver(receiver) => {
                // SAFETY: its place is room for a `T`, since it waits on a channel of them.
                unsafe { receiver.place().cast::<T>().copy_from_nonoverlapping(value, 1) };
                receiver.complete(Outcome::Done).wake(Wake::Handoff);
                Ended::Done
            }
        }
    }

    /// Gives up a two-step send: its partner goes back to where it was.
    ///
    /// # Safety
    ///
    /// `grant` came from this channel.
    pub(crate) unsafe fn give_up_grant(&self, grant: Grant) {
        let mut state = self.state().lock();
        match grant {
            Grant::Closed => {}
            // A close has ended the promise already.
            Grant::Room(_) if state.closed || state.deaf => {}
            Grant::Room(promise) => {
                let served = state.settle(promise, None);
                self.glance.has_changed();
                Self::unlock_and_wake_all(state, served);
            }
            Grant::Receiver(receiver) => {
                // C7. One that waits for us alone (C5) says `Again` from the beginning.
                let was_in_queue = receiver.outcome() == Outcome::Waiting;
                let goes_on_waiting = was_in_queue
                    // For this channel alone, and without a limit.
                    && receiver.is_plain()
                    // Else it would miss what came while it was claimed.
                    && !state.can_receive()
                    // It has room for a value.
                    && !receiver.place().is_null();
                if goes_on_waiting {
                    // SAFETY: granted by this channel, and it was in the queue, so it is one of those that `grant` takes out of this queue; plain.
                    unsafe { receiver.put_back(&state.receivers) };
                    // Who watches is told that somebody waits again.
                    return Self::unlock_and_wake(state, None);
                }
                // It looks again by itself: for a value, the close, its time limit, or at its other arms.
                let unit = receiver.complete(Outcome::Again);
                drop(state);
                unit.wake(Wake::Queue);
            }
        }
    }

    /// The second step of a two-step receive from a sender that is held (C7).
    ///
    /// # Safety
    ///
    /// `sender` came from [`State::take`] of this channel.
    pub(crate) unsafe fn take_held(sender: ClaimedNode) -> T {
        // SAFETY: a sender's place holds its value, which its owner forgets.
        let value = unsafe { sender.place().cast::<T>().read() };
        sender.complete(Outcome::Done).wake(Wake::Handoff);
        value
    }

    /// Gives up a two-step receive from a sender that is held (C7).
    ///
    /// # Safety
    ///
    /// As [`take_held`](Self::take_held).
    pub(crate) unsafe fn give_back_held(&self, sender: ClaimedNode) {
        let state = self.state().lock();
        if state.closed || state.deaf {
            let unit = sender.complete(Outcome::Closed);
            drop(state);
            return unit.wake(Wake::Queue);
        }
        if let Some(receiver) = state.receivers.claim_first() {
            let from = sender.place().cast::<T>();
            // SAFETY: from the sender's value, which its owner forgets, to the receiver's room.
            unsafe { receiver.place().cast::<T>().copy_from_nonoverlapping(from, 1) };
            let mut served = Claimed::none();
            served.push(receiver, Outcome::Done);
            served.push(sender, Outcome::Done);
            return Self::unlock_and_wake_all(state, served);
        }
        if sender.is_plain() {
            // SAFETY: by the caller `take` has taken it out of this queue; plain.
            unsafe { sender.put_back(&state.senders) };
            self.glance.has_changed();
            // Who watches is told that somebody waits again.
            return Self::unlock_and_wake(state, None);
        }
        // It looks again by itself: for its time limit, or at its other arms.
        let unit = sender.complete(Outcome::Again);
        drop(state);
        unit.wake(Wake::Queue);
    }

    /// Gives up a two-step receive: the value goes to the first waiting receiver, or back (C8).
    pub(crate) fn give_back(&self, value: T, taken_at: TakenAt) {
        let mut state = self.state().lock();
        if state.deaf {
            drop(state);
            return drop(value);
        }
        let value = MaybeUninit::new(value);
        let Some(receiver) = state.receivers.claim_first() else {
            let channel = &mut *state;
            channel.detour();
            if let Some(detour) = &mut channel.detour {
                // SAFETY: initialised above and not moved yet.
                detour.give_back(taken_at, unsafe { value.assume_init() }, &mut channel.ring);
            }
            channel.recount();
            self.glance.has_changed();
            return Self::unlock_and_wake(state, None);
        };
        // SAFETY: a receiver's place is room for a `T`; `MaybeUninit` does not drop the original.
        unsafe { receiver.place().cast::<T>().copy_from_nonoverlapping(value.as_ptr(), 1) };
        let unit = receiver.complete(Outcome::Done);
        Self::unlock_and_wake(state, Some(unit));
    }
}
