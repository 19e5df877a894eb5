//! What `select!` expands to: arms with room for their values, and one call of the engine. Not public interface.
//!
//! - M1: an arm is run until it is chosen, and not again. The macro runs each once; since others can name these functions, and need no
//!   `unsafe` for it, [`AnyArm::arm`] sees to it: what was sent is no longer in its room, and what was received must not be written over.
//! - M2: the arms that share a slot are all run by one run, which is over once one of them is chosen; and only then does anybody write to the
//!   slot. `AnyArm::arm` sees to this as well. Two runs at a time, of goroutines of one worker, would send one value twice.

#![allow(missing_docs, missing_debug_implementations, reason = "macro code only")]

use std::{
    cell::Cell,
    mem::{ManuallyDrop, MaybeUninit},
    ops::Deref,
    time::{Duration, Instant},
};

pub use super::engine::Otherwise;
use super::{
    engine::{self, Arm, Purpose, State},
    operation::Operation,
};
use crate::{
    chan::{Chan, Receiver, RecvError, SendError, Sender},
    runtime::{park, present, wait::Reason},
    time::{Ticker, Timer},
};

/// What leads to an end `E`: the end itself, a two-way channel, a timer or a ticker, or what dereferences to one of them.
#[diagnostic::on_unimplemented(
    message = "this arm of `select!` needs `{E}`, and got `{Self}`",
    label = "expected `{E}`, a `Chan`, or a reference to one of them",
    note = "to wait for the end of a context: `recv(ctx.done())`",
    note = "to wait for what a goroutine returns, have it send that into a channel"
)]
pub trait LeadsTo<E> {
    #[doc(hidden)]
    fn end_led_to(&self) -> &E;
}

impl<T> LeadsTo<Receiver<T>> for Receiver<T> {
    fn end_led_to(&self) -> &Self {
        self
    }
}

impl<T> LeadsTo<Sender<T>> for Sender<T> {
    fn end_led_to(&self) -> &Self {
        self
    }
}

impl<T> LeadsTo<Receiver<T>> for Chan<T> {
    fn end_led_to(&self) -> &Receiver<T> {
        self.ends().1
    }
}

impl<T> LeadsTo<Sender<T>> for Chan<T> {
    fn end_led_to(&self) -> &Sender<T> {
        self.ends().0
    }
}

impl LeadsTo<Receiver<Instant>> for Timer {
    fn end_led_to(&self) -> &Receiver<Instant> {
        self.receiver()
    }
}

impl LeadsTo<Receiver<Instant>> for Ticker {
    fn end_led_to(&self) -> &Receiver<Instant> {
        self.receiver()
    }
}

// So that an error speaks of the channel, not of `Deref`.
#[diagnostic::do_not_recommend]
impl<E, P: Deref<Target: LeadsTo<E>> + ?Sized> LeadsTo<E> for P {
    fn end_led_to(&self) -> &E {
        (**self).end_led_to()
    }
}

/// The end of a `recv`. Apart from [`Recv::new`], so that the type of its values is known there.
pub fn receiver<T, R: LeadsTo<Receiver<T>> + ?Sized>(from: &R) -> &Receiver<T> {
    from.end_led_to()
}

/// The end of a `send`. Apart from [`Send::new`], so that a value is turned into what the channel is of.
pub fn sender<T, S: LeadsTo<Sender<T>> + ?Sized>(to: &S) -> &Sender<T> {
    to.end_led_to()
}

/// A receiving arm and the room for its value.
pub struct Recv<'a, T> {
    from: &'a Receiver<T>,
    room: MaybeUninit<T>,
    state: State,
}

impl<'a, T> Recv<'a, T> {
    #[inline]
    pub fn new(from: &'a Receiver<T>) -> Self {
        Self { from, room: MaybeUninit::uninit(), state: State::Passed }
    }

    /// What the chosen arm has received.
    #[inline]
    pub fn finish(mut self) -> Result<T, RecvError> {
        match std::mem::replace(&mut self.state, State::Passed) {
            // SAFETY: received into the room; the state is changed, so nothing drops it again.
            State::Done => Ok(unsafe { self.room.assume_init_read() }),
            _ => Err(RecvError),
        }
    }
}

impl<T> Drop for Recv<'_, T> {
    #[inline]
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
    #[inline]
    pub fn new(to: &'a Sender<T>, value: T) -> Self {
        Self { to, value: ManuallyDrop::new(value), state: State::Passed, taken: false }
    }

    /// What became of the chosen arm's value.
    #[inline]
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
    #[inline]
    fn drop(&mut self) {
        if !self.taken && !matches!(self.state, State::Done) {
            // SAFETY: neither sent nor taken.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
    }
}

/// A slot that the sending arms which name it share. The value stays where it is until one of them is chosen.
pub struct Slot<'a, T> {
    value: &'a Cell<Option<T>>,
    /// The run that the slot is lent to (M2): the address of its list, [`FREE`](Self::FREE) before and [`OVER`](Self::OVER) after it.
    lent: Cell<usize>,
}

impl<'a, T> Slot<'a, T> {
    /// No list is there.
    const FREE: usize = 0;
    /// Nor here: a list is aligned.
    const OVER: usize = 1;

    /// The sender is that of the first arm, and says what the slot has to hold.
    ///
    /// # Panics
    ///
    /// When the slot is empty.
    #[track_caller]
    pub fn new(_: &Sender<T>, slot: &'a mut Option<T>) -> Self {
        assert!(slot.is_some(), "select!: the slot of `send(tx, from slot)` is empty");
        Self { value: Cell::from_mut(slot), lent: Cell::new(Self::FREE) }
    }
}

/// A sending arm whose value stays in the user's slot unless it is chosen.
pub struct SendFrom<'s, 'a, T> {
    slot: &'s Slot<'a, T>,
    to: &'s Sender<T>,
    state: State,
}

impl<'s, 'a, T> SendFrom<'s, 'a, T> {
    pub fn new(slot: &'s Slot<'a, T>, to: &'s Sender<T>) -> Self {
        Self { slot, to, state: State::Passed }
    }

    /// What became of the chosen arm's value.
    #[inline]
    pub fn finish(self) -> Result<(), SendError<T>> {
        match self.state {
            State::Done => Ok(()),
            // M2: the run is over, and there is no other.
            State::Closed => Err(SendError(self.slot.value.take().expect("not sent"))),
            _ => unreachable!("an arm of a select that was not chosen"),
        }
    }
}

/// An arm of any kind, as the macro hands it over. Nobody else can implement it, since `Arm` has no public name.
pub trait AnyArm {
    /// Writes the engine's arm into the place. (One that is returned is copied, twice as long as all else of a select whose arms are ready takes.)
    ///
    /// # Panics
    ///
    /// When the arm was chosen before (M1), or its slot has been lent to another run (M2).
    #[doc(hidden)]
    fn arm<'a>(&'a mut self, run: Run, place: &mut MaybeUninit<Arm<'a>>);
    #[doc(hidden)]
    fn set(&mut self, chosen: Chosen);
}

/// How the chosen arm ended.
pub struct Chosen(State);

/// Which run it is, among those that have not ended: the address of its list, which lies in its frame.
#[derive(Clone, Copy)]
pub struct Run(usize);

/// M1.
#[inline]
fn not_chosen_yet(state: &State) {
    assert!(matches!(state, State::Passed), "an arm of a select that was chosen is run again");
}

impl<T> AnyArm for Recv<'_, T> {
    #[inline]
    fn arm<'a>(&'a mut self, _: Run, place: &mut MaybeUninit<Arm<'a>>) {
        not_chosen_yet(&self.state);
        let operation: &dyn Operation = self.from;
        // SAFETY: room for a `T`, without a value (M1), in a place that is borrowed until the select has ended.
        place.write(unsafe { Arm::new(operation, self.room.as_mut_ptr().cast()) });
    }

    #[inline]
    fn set(&mut self, chosen: Chosen) {
        self.state = chosen.0;
    }
}

impl<T> AnyArm for Send<'_, T> {
    #[inline]
    fn arm<'a>(&'a mut self, _: Run, place: &mut MaybeUninit<Arm<'a>>) {
        not_chosen_yet(&self.state);
        let operation: &dyn Operation = self.to;
        // SAFETY: a `T` that has not been moved (M1), in a place that is borrowed until the select has ended.
        place.write(unsafe { Arm::new(operation, (&raw mut *self.value).cast()) });
    }

    #[inline]
    fn set(&mut self, chosen: Chosen) {
        self.state = chosen.0;
    }
}

impl<T> AnyArm for SendFrom<'_, '_, T> {
    #[inline]
    fn arm<'a>(&'a mut self, run: Run, place: &mut MaybeUninit<Arm<'a>>) {
        not_chosen_yet(&self.state);
        let lent = self.slot.lent.get();
        assert!(lent == Slot::<T>::FREE || lent == run.0, "a slot is lent to one run of one select");
        self.slot.lent.set(run.0);
        // SAFETY: nobody writes to the slot before the run is over (M2), and until then there are shared references to it only.
        let value = unsafe { &*self.slot.value.as_ptr() };
        let value = std::ptr::from_ref(value.as_ref().expect("looked at by `Slot::new`"));
        let operation: &dyn Operation = self.to;
        // SAFETY: a `T` that has not been moved, in a slot that is borrowed until the select has ended. What is sent is read there. Of the arms
        // that share it one is chosen at most (X4 of `engine`), so it is moved once.
        place.write(unsafe { Arm::new(operation, value.cast_mut().cast()) });
    }

    #[inline]
    fn set(&mut self, chosen: Chosen) {
        self.state = chosen.0;
        self.slot.lent.set(Slot::<T>::OVER);
        if matches!(self.state, State::Done) {
            // SAFETY: the run is over, and we are on the thread that has the slot. The value was moved out of it, so it is not dropped.
            unsafe { self.slot.value.as_ptr().write(None) };
        }
    }
}

/// Runs the select; the index of the chosen arm, or `N` for the default.
#[inline]
pub fn run<const N: usize>(mut given: [&mut dyn AnyArm; N], biased: bool, otherwise: Otherwise) -> usize {
    if N == 1 && otherwise == Otherwise::Return {
        // Inlined, so that the kind of the arm is known.
        return usize::from(!attempt(&mut given));
    }
    run_all(given, biased, otherwise)
}

/// The only arm is tried; whether it was chosen.
#[inline]
fn attempt(given: &mut [&mut dyn AnyArm]) -> bool {
    let run = Run(given.as_ptr().addr());
    let state = {
        let mut place = MaybeUninit::uninit();
        given[0].arm(run, &mut place);
        // SAFETY: written: so does each implementation, and all of them are here.
        let arm = unsafe { place.assume_init_mut() };
        if !arm.attempt_alone() {
            return false;
        }
        arm.take_state()
    };
    given[0].set(Chosen(state));
    true
}

fn run_all<const N: usize>(mut given: [&mut dyn AnyArm; N], biased: bool, otherwise: Otherwise) -> usize {
    let (chosen, state) = {
        let run = Run(given.as_ptr().addr());
        let mut arms = [const { MaybeUninit::uninit() }; N];
        for (place, arm) in arms.iter_mut().zip(&mut given) {
            arm.arm(run, place);
        }
        // SAFETY: there are as many `given`, and each implementation writes its place; all of them are here.
        let arms = unsafe { arms.assume_init_mut() };
        match engine::run(arms, biased, otherwise, Purpose::Complete) {
            Some(index) => (index, arms[index].take_state()),
            None => (N, State::Passed),
        }
    };
    if let Some(arm) = given.get_mut(chosen) {
        arm.set(Chosen(state));
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
    Otherwise::Wait(present::after(duration))
}
