//! `Select`: a select over a list of operations that is made at run time.
//!
//! It works in two steps, as crossbeam's does: `select` chooses an operation, and the `SelectedOperation` completes it with the end it was
//! made from.
//!
//! - Y1: a receive takes its value in the first step, into room on the heap or, when it is small, in the `SelectedOperation`, and the second step
//!   takes it out; but a sender that waits keeps its value until the second step, and waits (C7 of `chan::two_step`).
//! - Y2: a send gets a grant in the first step (C5): the promise of a place in the buffer, or a receiver that keeps waiting for it.
//! - Y3: a selected operation that is dropped gives its value, its partner or its grant back (C6 to C8), and panics.

use std::{
    fmt,
    marker::PhantomData,
    mem, ptr,
    time::{Duration, Instant},
};

use super::{
    engine::{self, Arm, MOST_ARMS, Otherwise, Purpose, State},
    operation::{self, Operation, Small},
};
use crate::{
    chan::{
        ReadyTimeoutError, Receiver, RecvError, SelectTimeoutError, SendError, Sender, TryReadyError, TrySelectError,
        two_step::Grant,
    },
    runtime::{park, present, wait::Reason},
    util::lock::RawBiased,
};

/// Operations for whose small values no memory is allocated.
const FEW: usize = 8;

/// Selects from a list of channel operations that is made at run time.
///
/// # Examples
///
/// ```
/// use oxigo::chan::Select;
///
/// let channels: Vec<_> = (0..10).map(|_| oxigo::unbuffered()).collect();
/// let sender = channels[7].0.clone();
/// oxigo::go(move || sender.send("lucky").unwrap());
///
/// let mut select = Select::new();
/// for (_, receiver) in &channels {
///     select.recv(receiver);
/// }
/// let operation = select.select();
/// assert_eq!(operation.index(), 7);
/// assert_eq!(operation.recv(&channels[7].1), Ok("lucky"));
/// ```
pub struct Select<'a> {
    /// Operations with their indices, which ascend.
    operations: Vec<(usize, &'a dyn Operation)>,
    /// The index of the next operation. None is given twice.
    next: usize,
    biased: bool,
}

// SAFETY: a select moves values between places under locks and never looks at them. A value that may not leave its thread can be sent,
// received or dropped only with the ends themselves, which do not leave it either, and which outlive the select.
unsafe impl Send for Select<'_> {}
// SAFETY: as above.
unsafe impl Sync for Select<'_> {}

impl<'a> Select<'a> {
    /// An empty list. Of the operations that are ready, each is equally likely to be chosen.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn new() -> Self {
        Self { operations: Vec::new(), next: 0, biased: false }
    }

    /// An empty list. Of the operations that are ready, the first is chosen.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn new_biased() -> Self {
        Self { operations: Vec::new(), next: 0, biased: true }
    }

    #[track_caller]
    fn add(&mut self, operation: &'a dyn Operation) -> usize {
        assert!(self.operations.len() < MOST_ARMS, "a select of more than {MOST_ARMS} operations");
        let index = self.next;
        self.operations.push((index, operation));
        self.next += 1;
        index
    }

    /// Adds a send, and returns its index.
    ///
    /// # Panics
    ///
    /// When there are 65,536 operations already.
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[track_caller]
    pub fn send<T>(&mut self, sender: &'a Sender<T>) -> usize {
        self.add(sender)
    }

    /// Adds a receive, and returns its index.
    ///
    /// # Panics
    ///
    /// When there are 65,536 operations already.
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[track_caller]
    pub fn recv<T>(&mut self, receiver: &'a Receiver<T>) -> usize {
        self.add(receiver)
    }

    /// Removes an operation from the list; the indices of the others stay the same.
    ///
    /// # Panics
    ///
    /// When there is no operation with this index.
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[track_caller]
    pub fn remove(&mut self, index: usize) {
        assert!(index < self.next, "index out of bounds; {index} >= {}", self.next);
        let Ok(place) = self.operations.binary_search_by_key(&index, |(index, _)| *index) else {
            panic!("no operation with this index");
        };
        self.operations.remove(place);
    }

    /// Chooses an operation that is ready now.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::chan::Select;
    ///
    /// let (tx, rx) = oxigo::bounded(1);
    /// let mut select = Select::new();
    /// let receive = select.recv(&rx);
    /// assert!(select.try_select().is_err());
    /// tx.send(5).unwrap();
    /// let chosen = select.try_select().unwrap();
    /// assert_eq!(chosen.index(), receive);
    /// assert_eq!(chosen.recv(&rx), Ok(5));
    /// ```
    ///
    /// # Errors
    ///
    /// When none was ready at one instant.
    ///
    /// # Blocking
    ///
    /// Never parks, except in one case: a receive on an unbuffered channel meets another `Select` that waits to send, and waits for its value as
    /// [`Receiver::try_recv`] does.
    pub fn try_select(&mut self) -> Result<SelectedOperation<'a>, TrySelectError> {
        self.run(Otherwise::Return).ok_or(TrySelectError)
    }

    /// Waits until an operation is ready, and chooses it.
    ///
    /// # Examples
    ///
    /// ```
    /// let (first, second) = (oxigo::bounded(1), oxigo::bounded(1));
    /// let mut select = oxigo::chan::Select::new();
    /// let from_first = select.recv(&first.1);
    /// let from_second = select.recv(&second.1);
    /// second.0.send("two").unwrap();
    /// let chosen = select.select();
    /// let value = match chosen.index() {
    ///     index if index == from_first => chosen.recv(&first.1),
    ///     index if index == from_second => chosen.recv(&second.1),
    ///     _ => unreachable!(),
    /// };
    /// assert_eq!(value, Ok("two"));
    /// ```
    ///
    /// # Panics
    ///
    /// When the list is empty.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    #[track_caller]
    pub fn select(&mut self) -> SelectedOperation<'a> {
        assert!(!self.operations.is_empty(), "no operations have been added to `Select`");
        loop {
            if let Some(operation) = self.run(Otherwise::Wait(None)) {
                return operation;
            }
        }
    }

    /// Like [`select`](Self::select), but waits at most `timeout`.
    ///
    /// # Errors
    ///
    /// When the time has passed.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread. Where [`try_select`](Self::try_select) waits for another `Select`, so does this, even beyond its
    /// time limit.
    pub fn select_timeout(&mut self, timeout: Duration) -> Result<SelectedOperation<'a>, SelectTimeoutError> {
        self.run(Otherwise::Wait(present::after(timeout))).ok_or(SelectTimeoutError)
    }

    /// Like [`select`](Self::select), but waits until `deadline` at the latest.
    ///
    /// # Errors
    ///
    /// When the deadline has passed.
    ///
    /// # Blocking
    ///
    /// As [`select_timeout`](Self::select_timeout).
    pub fn select_deadline(&mut self, deadline: Instant) -> Result<SelectedOperation<'a>, SelectTimeoutError> {
        self.run(Otherwise::Wait(Some(deadline))).ok_or(SelectTimeoutError)
    }

    /// The index of an operation that is ready now.
    ///
    /// # Errors
    ///
    /// When none was ready at one instant.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn try_ready(&mut self) -> Result<usize, TryReadyError> {
        self.tell(Otherwise::Return).ok_or(TryReadyError)
    }

    /// Waits until an operation is ready, and returns its index. It may no longer be ready when it is tried, if another party comes first.
    ///
    /// # Examples
    ///
    /// ```
    /// let (tx, rx) = oxigo::bounded(1);
    /// let mut select = oxigo::chan::Select::new();
    /// let numbers = select.recv(&rx);
    /// tx.send(1).unwrap();
    /// assert_eq!(select.ready(), numbers);
    /// assert_eq!(rx.try_recv(), Ok(1)); // as another party may have come first
    /// ```
    ///
    /// # Panics
    ///
    /// When the list is empty.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    #[track_caller]
    pub fn ready(&mut self) -> usize {
        assert!(!self.operations.is_empty(), "no operations have been added to `Select`");
        loop {
            if let Some(index) = self.tell(Otherwise::Wait(None)) {
                return index;
            }
        }
    }

    /// Like [`ready`](Self::ready), but waits at most `timeout`.
    ///
    /// # Errors
    ///
    /// When the time has passed.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn ready_timeout(&mut self, timeout: Duration) -> Result<usize, ReadyTimeoutError> {
        self.tell(Otherwise::Wait(present::after(timeout))).ok_or(ReadyTimeoutError)
    }

    /// Like [`ready`](Self::ready), but waits until `deadline` at the latest.
    ///
    /// # Errors
    ///
    /// When the deadline has passed.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn ready_deadline(&mut self, deadline: Instant) -> Result<usize, ReadyTimeoutError> {
        self.tell(Otherwise::Wait(Some(deadline))).ok_or(ReadyTimeoutError)
    }

    fn run(&mut self, otherwise: Otherwise) -> Option<SelectedOperation<'a>> {
        let mut few = [const { Small::uninit() }; FEW];
        let mut many = Vec::new();
        let rooms = if self.operations.len() <= FEW {
            few.as_mut_ptr()
        } else {
            many.reserve_exact(self.operations.len());
            many.as_mut_ptr()
        };
        // Within what was reserved: there is one for each operation.
        let mut arms = self.arms(|at, one| one.make_room(rooms.wrapping_add(at)));
        if arms.is_empty()
            && let Otherwise::Wait(None) = otherwise
        {
            park::current().park(Reason::Forever.alone());
        }
        let chosen = engine::run(&mut arms, self.biased, otherwise, Purpose::Choose);
        let mut operation = None;
        for (at, arm) in arms.iter_mut().enumerate() {
            if chosen == Some(at) {
                let (one, room) = (arm.operation(), arm.place());
                operation = Some(SelectedOperation {
                    index: self.operations[at].0,
                    operation: one,
                    // SAFETY: that is where the room is then.
                    small: if one.is_small() { unsafe { room.cast::<Small>().read() } } else { Small::uninit() },
                    heap: room,
                    state: arm.take_state(),
                    _not_sync: PhantomData,
                });
            } else {
                // SAFETY: the room of an arm that was passed over holds nothing.
                unsafe { arm.operation().free_room(arm.place()) };
            }
        }
        if otherwise != Otherwise::Return {
            park::spend();
        }
        operation
    }

    fn tell(&mut self, otherwise: Otherwise) -> Option<usize> {
        let mut arms = self.arms(|_, _| ptr::null_mut());
        let ready = engine::run(&mut arms, self.biased, otherwise, Purpose::Tell).map(|at| self.operations[at].0);
        if otherwise != Otherwise::Return {
            park::spend();
        }
        ready
    }

    fn arms(&self, place: impl Fn(usize, &dyn Operation) -> *mut ()) -> Vec<Arm<'a>> {
        let arm = |(at, &(_, one)): (usize, &(usize, &'a dyn Operation))| {
            // SAFETY: the operation's own room, which is freed after the select; or null, for selects that complete nothing.
            unsafe { Arm::new(one, place(at, one)) }
        };
        self.operations.iter().enumerate().map(arm).collect()
    }
}

impl Default for Select<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl Clone for Select<'_> {
    fn clone(&self) -> Self {
        Self { operations: self.operations.clone(), next: self.next, biased: self.biased }
    }
}

impl fmt::Debug for Select<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("Select { .. }")
    }
}

/// An operation that was chosen and has to be completed, with the end that it was made from.
///
/// Until it is completed or dropped, others wait for it:
///
/// - On a channel with a buffer, a send keeps the place in the buffer that it was given. What others send meanwhile is received after it, so
///   receivers wait; `try_recv` finds nothing.
/// - Without a buffer, a receiver that waited goes on waiting for the value, even beyond its own time limit.
/// - Without a buffer, a sender that waited goes on only when its value has been received from the operation, even beyond its own time limit.
///
/// So do not [`forget`](std::mem::forget) one:
///
/// - A send to a buffer would keep its place, and keep receivers from the values behind it, until the channel is closed.
/// - Without a buffer, a partner that waited would wait for ever. A close does not reach it, since it has left the queue.
/// - A receive that has its value already would lose it; nobody waits for that.
///
/// # Dropping
///
/// Dropping it without completing it panics. No value is lost but the tick of a ticker, and the order of values is kept:
///
/// - The place of a send becomes free, and the values behind it move up.
/// - A partner that waited goes back to its place in the queue. One with a time limit, or that selects, looks again instead, and others may get
///   ahead of it meanwhile.
/// - A value that came from the buffer, or from a sender that has gone on, is received before all others; of several, the one that was taken
///   first. It may be one more than the channel has room for, since others have sent meanwhile. Then it waits as the value of a parked sender
///   does, and [`len`](Receiver::len) does not count it. With the last receiver it is dropped as buffered values are.
#[must_use]
pub struct SelectedOperation<'a> {
    index: usize,
    operation: &'a dyn Operation,
    /// The room of a receive, if it is small.
    small: Small,
    /// Where it is otherwise.
    heap: *mut (),
    state: State,
    _not_sync: PhantomData<*mut ()>,
}

impl SelectedOperation<'_> {
    /// The operation's index.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Sends `value`; `sender` is the one that was added.
    ///
    /// # Errors
    ///
    /// With the value when the channel is closed.
    ///
    /// # Panics
    ///
    /// When `sender` is not the one that the operation was made from.
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[track_caller]
    pub fn send<T>(mut self, sender: &Sender<T>, value: T) -> Result<(), SendError<T>> {
        self.check(sender);
        let grant = match self.take_state() {
            State::Granted(grant) => grant,
            // Closed while the select waited.
            State::Closed => Grant::Closed,
            _ => unreachable!("a send ends with a grant or closed"),
        };
        mem::forget(self);
        // SAFETY: granted by this channel, as `check` has seen.
        unsafe { operation::send_granted(sender, grant, value) }.map_err(SendError)
    }

    /// Receives the value; `receiver` is the one that was added.
    ///
    /// # Errors
    ///
    /// When the channel is closed and empty.
    ///
    /// # Panics
    ///
    /// When `receiver` is not the one that the operation was made from.
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[track_caller]
    pub fn recv<T>(self, receiver: &Receiver<T>) -> Result<T, RecvError> {
        self.check(receiver);
        let mut chosen = mem::ManuallyDrop::new(self);
        let (state, room) = (chosen.take_state(), chosen.room());
        match state {
            // SAFETY: received into the room, which was made by this receiver, for a `T`.
            State::Taken(_) => Ok(unsafe { operation::take_from_room(room) }),
            State::Held(sender) => {
                // SAFETY: the room holds nothing.
                unsafe { chosen.operation.free_room(room) };
                // SAFETY: held for this receiver, whose values are `T`s.
                Ok(unsafe { operation::take_held(sender) })
            }
            _ => {
                // SAFETY: as above.
                unsafe { chosen.operation.free_room(room) };
                Err(RecvError)
            }
        }
    }

    /// The room of a receive.
    fn room(&mut self) -> *mut () {
        if self.operation.is_small() { (&raw mut self.small).cast() } else { self.heap }
    }

    /// How the operation stands; afterwards nothing is left to complete or to give up.
    fn take_state(&mut self) -> State {
        mem::replace(&mut self.state, State::Passed)
    }

    #[track_caller]
    fn check(&self, end: &dyn Operation) {
        let address = |operation: &dyn Operation| operation.raw().map_or(0, RawBiased::address);
        let same = address(end) == address(self.operation) && end.sends() == self.operation.sends();
        let index = self.index;
        assert!(
            same,
            "passed an end that this operation was not made from; complete it with the end that was added as operation {index}"
        );
    }
}

impl Drop for SelectedOperation<'_> {
    fn drop(&mut self) {
        let room = self.room();
        match self.take_state() {
            State::Granted(Grant::Closed) => {}
            // SAFETY: granted by this end's channel.
            State::Granted(grant) => unsafe { self.operation.give_up(grant) },
            // SAFETY: received into the room, and not taken out.
            State::Taken(taken_at) => unsafe { self.operation.give_back(room, taken_at) },
            State::Held(sender) => {
                // SAFETY: held for this operation, and not used.
                unsafe { self.operation.give_back_held(sender) };
                // SAFETY: the room holds nothing.
                unsafe { self.operation.free_room(room) };
            }
            // SAFETY: as above.
            State::Done | State::Closed | State::Passed => unsafe { self.operation.free_room(room) },
        }
        if !park::is_unwinding() {
            panic!("dropped `SelectedOperation` without completing the operation");
        }
    }
}

impl fmt::Debug for SelectedOperation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SelectedOperation").field("index", &self.index).finish_non_exhaustive()
    }
}
