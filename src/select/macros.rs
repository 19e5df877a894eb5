//! What `select!` expands to: places for the values, and one call of the engine. Not public interface.
//!
//! - M1: a place is run until it is chosen, and not again. The macro runs each once; since others can name these functions, and need no
//!   `unsafe` for it, [`Place::arm`] sees to it: what was sent is no longer in the place, and what was received must not be written over.

#![allow(missing_docs, missing_debug_implementations, reason = "macro code only")]

use std::{
    mem::{ManuallyDrop, MaybeUninit},
    time::{Duration, Instant},
};

pub use super::engine::Otherwise;
use super::{
    engine::{self, Arm, Purpose, State},
    handle::Handle,
};
use crate::{
    chan::{Receiver, RecvError, SendError, Sender},
    runtime::{park, wait::Reason},
};

/// A receiving arm and the room for its value.
pub struct Recv<'a, T> {
    from: &'a Receiver<T>,
    room: MaybeUninit<T>,
    state: State,
}

impl<'a, T> Recv<'a, T> {
    pub fn new(from: &'a Receiver<T>) -> Self {
        Self { from, room: MaybeUninit::uninit(), state: State::Passed }
    }

    /// What the chosen arm has received.
    pub fn finish(mut self) -> Result<T, RecvError> {
        match std::mem::replace(&mut self.state, State::Passed) {
            // SAFETY: received into the room; the state is changed, so nothing drops it again.
            State::Done => Ok(unsafe { self.room.assume_init_read() }),
            _ => Err(RecvError),
        }
    }
}

impl<T> Drop for Recv<'_, T> {
    fn drop(&mut self) {
        if matches!(self.state, State::Done) {
            // SAFETY: received into the room and not taken.
            unsafe { self.room.assume_init_drop() };
        }
    }
}

/// A sending arm and its value.
pub struct Send<'a, T> {
    to: &'a Sender<T>,
    value: ManuallyDrop<T>,
    state: State,
    taken: bool,
}

impl<'a, T> Send<'a, T> {
    pub fn new(to: &'a Sender<T>, value: T) -> Self {
        Self { to, value: ManuallyDrop::new(value), state: State::Passed, taken: false }
    }

    /// What became of the chosen arm's value.
    pub fn finish(mut self) -> Result<(), SendError<T>> {
        self.taken = true;
        match self.state {
            State::Done => Ok(()),
            // SAFETY: not sent, and marked as taken.
            _ => Err(SendError(unsafe { ManuallyDrop::take(&mut self.value) })),
        }
    }
}

impl<T> Drop for Send<'_, T> {
    fn drop(&mut self) {
        if !self.taken && !matches!(self.state, State::Done) {
            // SAFETY: neither sent nor taken.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
    }
}

/// A sending arm whose value stays in the user's slot unless it is chosen.
pub struct SendFrom<'a, T> {
    arm: Option<Send<'a, T>>,
    slot: &'a mut Option<T>,
}

impl<'a, T> SendFrom<'a, T> {
    /// # Panics
    ///
    /// When the slot is empty.
    #[track_caller]
    pub fn new(to: &'a Sender<T>, slot: &'a mut Option<T>) -> Self {
        let value = slot.take().expect("select!: the slot of `send(tx, from slot)` is empty");
        Self { arm: Some(Send::new(to, value)), slot }
    }

    /// What became of the chosen arm's value.
    pub fn finish(mut self) -> Result<(), SendError<T>> {
        self.arm.take().expect("finished once").finish()
    }
}

impl<T> Drop for SendFrom<'_, T> {
    fn drop(&mut self) {
        if let Some(arm) = self.arm.take()
            && let Err(SendError(value)) = arm.finish()
        {
            *self.slot = Some(value);
        }
    }
}

/// An arm of any kind, as the macro hands it over. Nobody else can implement it, since `Arm` has no public name.
pub trait Place {
    /// # Panics
    ///
    /// When the arm was chosen before (M1).
    #[doc(hidden)]
    fn arm(&mut self) -> Arm<'_>;
    #[doc(hidden)]
    fn set(&mut self, chosen: Chosen);
}

/// How the chosen arm ended.
pub struct Chosen(State);

/// M1.
#[inline]
fn not_chosen_yet(state: State) {
    assert!(matches!(state, State::Passed), "an arm of a select that was chosen is run again");
}

impl<T> Place for Recv<'_, T> {
    fn arm(&mut self) -> Arm<'_> {
        not_chosen_yet(self.state);
        let handle: &dyn Handle = self.from;
        // SAFETY: room for a `T`, without a value (M1), in a place that is borrowed until the select has ended.
        unsafe { Arm::new(handle, self.room.as_mut_ptr().cast()) }
    }

    fn set(&mut self, chosen: Chosen) {
        self.state = chosen.0;
    }
}

impl<T> Place for Send<'_, T> {
    fn arm(&mut self) -> Arm<'_> {
        not_chosen_yet(self.state);
        let handle: &dyn Handle = self.to;
        // SAFETY: a `T` that has not been moved (M1), in a place that is borrowed until the select has ended.
        unsafe { Arm::new(handle, (&raw mut *self.value).cast()) }
    }

    fn set(&mut self, chosen: Chosen) {
        self.state = chosen.0;
    }
}

impl<T> Place for SendFrom<'_, T> {
    fn arm(&mut self) -> Arm<'_> {
        self.arm.as_mut().expect("not finished yet").arm()
    }

    fn set(&mut self, chosen: Chosen) {
        self.arm.as_mut().expect("not finished yet").set(chosen);
    }
}

/// Runs the select; the index of the chosen arm, or `N` for the default.
pub fn run<const N: usize>(mut places: [&mut dyn Place; N], biased: bool, otherwise: Otherwise) -> usize {
    let (chosen, state) = {
        let mut arms = places.each_mut().map(|place| place.arm());
        match engine::run(&mut arms, biased, otherwise, Purpose::Complete) {
            Some(index) => (index, arms[index].state()),
            None => (N, State::Passed),
        }
    };
    if let Some(place) = places.get_mut(chosen) {
        place.set(Chosen(state));
    }
    if otherwise != Otherwise::Return {
        park::spend();
    }
    chosen
}

/// A select without arms.
pub fn forever() -> ! {
    loop {
        park::current().park(Reason::Forever.alone());
    }
}

/// Says of the operand of `default(duration)` what it has to be.
pub fn limit(duration: Duration) -> Duration {
    duration
}

/// `default(duration)`
pub fn within(duration: Duration) -> Otherwise {
    Otherwise::Wait(Instant::now().checked_add(duration))
}
