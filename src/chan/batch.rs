//! Many values at once.
//!
//! Between workers the lock's and the buffer's cache lines, and the wakes, cost far more than moving a value. A batch pays for them once: it
//! moves what it can under one hold of the lock, and wakes all whom it has served together. Only a plain channel's buffer, and receivers
//! that wait, are dealt with here; whatever else there may be (rendezvous, two-step partners, the end of the channel) is left to the
//! operations for single values, one of which each batch begins or goes on with when it has to wait.

use std::{mem, vec};

use super::{Chan, Receiver, RecvError, SendError, Sender, core::Channel, receiver::FlavorRef, state::State};
use crate::runtime::{
    park,
    waitq::{Claimed, Outcome},
};

/// How many values, and how many bytes, are moved under one hold of the lock: it is to be short (L1).
const AT_ONCE: usize = 64;
const BYTES_AT_ONCE: usize = 16 * 1024;

/// For values of type `T`, one at least.
const fn at_once<T>() -> usize {
    match mem::size_of::<T>() {
        size if size <= BYTES_AT_ONCE / AT_ONCE => AT_ONCE,
        size if size < BYTES_AT_ONCE => BYTES_AT_ONCE / size,
        _ => 1,
    }
}

impl<T> State<T> {
    /// Moves `count` values, which are there, to the end of `into`, and senders that wait into the buffer (C2).
    fn receive_buffered(&mut self, into: &mut Vec<T>, count: usize) -> Claimed {
        into.extend(self.ring.drain(count));
        let mut woken = Claimed::none();
        for _ in 0..count {
            let Some(sender) = self.claim_for_room() else { break };
            woken.push(sender, Outcome::Done);
        }
        self.relax();
        woken
    }

    /// Moves values from `rest`, `most` at most, to receivers that wait and into the buffer, while nothing has to be waited for.
    fn send_ready(&mut self, rest: &mut vec::IntoIter<T>, most: usize) -> Claimed {
        let mut woken = Claimed::none();
        if !self.plain {
            return woken;
        }
        let mut left = most.min(rest.len());
        while left != 0
            && let Some(receiver) = self.receivers().claim_first()
            && let Some(value) = rest.next()
        {
            // SAFETY: a receiver's place is uninitialised room for a `T`.
            unsafe { receiver.place().cast::<T>().write(value) };
            woken.push(receiver, Outcome::Done);
            left -= 1;
        }
        let room = self.room - self.ring.len();
        self.ring.extend(rest.take(left.min(room)));
        woken
    }
}

impl<T> Channel<T> {
    /// Receives what is in the buffer, `limit` values at most. Never switches (P4).
    fn receive_buffered(&self, into: &mut Vec<T>, limit: usize) {
        let mut left = None;
        loop {
            let mut state = self.state().lock();
            // Not more than are there now: senders may go on for ever.
            let there = state.ring.len();
            let goal = left.unwrap_or(limit).min(there);
            if goal == 0 {
                return;
            }
            let spare = into.capacity() - into.len();
            if spare == 0 {
                drop(state);
                // Not under the lock (L1).
                into.reserve(goal.min(at_once::<T>()));
                continue;
            }
            let count = goal.min(spare).min(at_once::<T>());
            let woken = state.receive_buffered(into, count);
            Self::unlock_and_wake_all(state, woken);
            left = Some(goal - count);
        }
    }

    /// Sends what needs no waiting.
    fn send_ready(&self, rest: &mut vec::IntoIter<T>) {
        loop {
            let before = rest.len();
            let mut state = self.state().lock();
            let woken = state.send_ready(rest, at_once::<T>());
            self.glance.has_changed();
            let is_unbounded = state.room == usize::MAX;
            Self::unlock_and_wake_all(state, woken);
            if rest.len() == before {
                return;
            }
            if !is_unbounded {
                park::spend();
            }
        }
    }
}

impl<T> Receiver<T> {
    /// Waits until there is a value, and appends it, and whatever else is in the buffer, to `into`: `limit` values at most. Returns how many.
    ///
    /// Values come in the order in which they were sent. If they come from another worker, this takes a half to a fifth of the time of one
    /// [`recv`](Self::recv) for each value; the buffer should have room for several batches. From a channel without a buffer it receives the values
    /// of the senders that wait, 64 at most.
    ///
    /// # Examples
    ///
    /// ```
    /// let (tx, rx) = oxigo::bounded(10);
    /// tx.send_many(vec![1, 2, 3]).unwrap();
    /// let mut numbers = Vec::new();
    /// assert_eq!(rx.recv_many(&mut numbers, 2), Ok(2));
    /// assert_eq!(rx.recv_many(&mut numbers, 2), Ok(1));
    /// assert_eq!(numbers, [1, 2, 3]);
    /// drop(tx);
    /// assert!(rx.recv_many(&mut numbers, 2).is_err());
    /// ```
    ///
    /// # Errors
    ///
    /// When the channel is closed and everything that was sent has been received. Never for a limit of 0.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread, until there is a value.
    pub fn recv_many(&self, into: &mut Vec<T>, limit: usize) -> Result<usize, RecvError> {
        let before = into.len();
        if limit == 0 {
            park::spend();
            return Ok(0);
        }
        into.reserve(1);
        into.push(self.recv()?);
        match self.flavor() {
            FlavorRef::Channel(channel) if channel.has_buffer() => channel.receive_buffered(into, limit - 1),
            FlavorRef::Channel(_) => into.extend(self.try_iter().take(limit.min(AT_ONCE) - 1)),
            // Have one at a time.
            FlavorRef::Timer(_) | FlavorRef::Never => {}
        }
        Ok(into.len() - before)
    }
}

impl<T> Sender<T> {
    /// Sends all of `values` in their order, waiting for room, or on an unbuffered channel for receivers.
    ///
    /// Values of other senders may come between them. If they go to another worker, this takes a half to a fifth of the time of one
    /// [`send`](Self::send) for each value.
    ///
    /// # Examples
    ///
    /// ```
    /// let (tx, rx) = oxigo::bounded(2);
    /// oxigo::go(move || tx.send_many((1..=100).collect()).unwrap());
    /// assert_eq!(rx.iter().sum::<i32>(), 5050);
    /// ```
    ///
    /// # Errors
    ///
    /// With the values that were not sent, when the channel is closed, or becomes so while this waits, and when no receiver is left.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread; never on an unbounded channel.
    pub fn send_many(&self, values: Vec<T>) -> Result<(), SendError<Vec<T>>> {
        let mut rest = values.into_iter();
        loop {
            self.channel().send_ready(&mut rest);
            let Some(value) = rest.next() else { return Ok(()) };
            if let Err(SendError(value)) = self.send(value) {
                let mut left = Vec::with_capacity(rest.len() + 1);
                left.push(value);
                left.extend(rest);
                return Err(SendError(left));
            }
        }
    }
}

impl<T> Chan<T> {
    /// See [`Receiver::recv_many`].
    ///
    /// # Errors
    ///
    /// When the channel is closed and everything that was sent has been received. Never for a limit of 0.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread, until there is a value.
    pub fn recv_many(&self, into: &mut Vec<T>, limit: usize) -> Result<usize, RecvError> {
        self.receiver.recv_many(into, limit)
    }

    /// See [`Sender::send_many`].
    ///
    /// # Errors
    ///
    /// With the values that were not sent, when the channel is closed, or becomes so while this waits.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn send_many(&self, values: Vec<T>) -> Result<(), SendError<Vec<T>>> {
        self.sender.send_many(values)
    }
}
