//! One operation of a `select`: what it knows of a channel's end, with the type of its values forgotten.

use std::{mem::MaybeUninit, time::Instant};

use crate::{
    chan::{
        Receiver, Sender,
        allocation::ChannelLayout,
        core::{Channel, Ended},
        receiver::FlavorRef,
        state::{State, Step},
        two_step::{Grant, Taken},
    },
    runtime::{
        present,
        unit::Unit,
        waitq::{Claimed, ClaimedNode, Node, TakenAt, WaitQueue},
    },
    util::lock::RawBiased,
};

/// What an attempt under the lock has come to.
pub(crate) enum Attempt {
    /// The operation is complete; a partner is to be woken.
    Done(Option<&'static Unit>),
    /// It is complete in that the channel is closed.
    Closed,
    /// A two-step sender has been claimed: its value must be waited for (C5 of `chan::two_step`).
    Promise(ClaimedNode),
    /// A two-step send may go on.
    Granted(Grant),
    /// A two-step receive has its value.
    Taken(Option<&'static Unit>, TakenAt),
    /// A two-step receive may go on with this sender.
    Held(ClaimedNode),
    WouldBlock,
}

/// One operation on one end: receiving for receivers, sending for senders.
///
/// # Safety
///
/// `place` is room for a value of the end's type, holding one for senders; null places are for two-step sends, and to watch. What is marked
/// *locked* is called while [`raw`](Self::raw) is held.
pub(crate) unsafe trait Operation {
    /// The lock of the channel, the same for all its ends. None: nothing ever happens on this end.
    fn raw(&self) -> Option<&RawBiased>;
    /// Locked. Whether an attempt may succeed; it may yet be lost to another.
    unsafe fn is_ready(&self) -> bool;
    /// Locked. Completes the operation if that is possible now.
    unsafe fn attempt(&self, place: *mut ()) -> Attempt;
    /// Not locked. Completes the operation if that is possible now, as `try_send` and `try_recv` do; the value is moved when this is done.
    unsafe fn attempt_alone(&self, place: *mut ()) -> Ended;
    /// Locked. The first step of the operation in two, if that is possible now.
    unsafe fn choose(&self, place: *mut ()) -> Attempt;
    /// Locked. For what a two-step receive that joins the queue now will get.
    unsafe fn taken_at(&self) -> TakenAt;
    /// Locked. Joins the queue, or the front of it; or those who only watch.
    unsafe fn enqueue(&self, node: &Node, how: Enqueue);
    /// Locked. Leaves the queue, if still in it.
    unsafe fn withdraw(&self, node: &Node, how: Enqueue);
    /// Locked. Takes those who watch out, to be woken after unlocking.
    unsafe fn take_watchers(&self) -> Option<Claimed>;
    /// Locked. When the clock will complete the operation.
    unsafe fn deadline(&self) -> Option<Instant>;
    /// Whether this end sends.
    fn sends(&self) -> bool;
    /// Room for one value: `small` if it fits in there, else on the heap; null for sends.
    fn make_room(&self, small: *mut Small) -> *mut ();
    /// Whether that room is `small`.
    fn is_small(&self) -> bool;
    /// The end of that room, which holds nothing.
    unsafe fn free_room(&self, room: *mut ());
    /// Gives a value that was received and is not wanted back to the channel, where it was; frees its room.
    unsafe fn give_back(&self, room: *mut (), taken_at: TakenAt);
    /// Lets a sender that was held, and came from this end's channel, wait again.
    unsafe fn give_back_held(&self, sender: ClaimedNode);
    /// Gives up a grant, which came from this end's channel.
    unsafe fn give_up(&self, grant: Grant);
    /// Who could complete the operation.
    fn counterpart(&self) -> Counterpart;
}

/// Who could complete an operation that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Counterpart {
    /// Who holds a receiver of this channel, or closes it.
    Receivers(ChannelLayout),
    /// Who holds a sender of it.
    Senders(ChannelLayout),
    /// Nobody.
    Nothing,
    /// Whoever sets the timer.
    Timer,
}

/// Room for a small value of any type, for which no memory is allocated.
pub(crate) type Small = MaybeUninit<[usize; 4]>;

/// Whether values of type `T` have room in [`Small`].
const fn fits<T>() -> bool {
    size_of::<T>() <= size_of::<Small>() && align_of::<T>() <= align_of::<Small>()
}

/// Takes the value out of the room of a receive, and ends the room.
///
/// # Safety
///
/// The room was made by a receiver of `T`s, and holds a value; one in a [`Small`] has moved with it.
pub(crate) unsafe fn take_from_room<T>(room: *mut ()) -> T {
    if fits::<T>() {
        // SAFETY: by the caller.
        return unsafe { room.cast::<T>().read() };
    }
    // SAFETY: made on the heap by `make_room`.
    let room = unsafe { Box::from_raw(room.cast::<MaybeUninit<T>>()) };
    // SAFETY: by the caller.
    unsafe { *room.assume_init() }
}

/// Where a node goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enqueue {
    Last,
    First,
    Watch,
}

fn attempt_of(step: Step) -> Attempt {
    match step {
        Step::Done(partner) => Attempt::Done(partner),
        Step::Closed => Attempt::Closed,
        Step::Promise(sender) => Attempt::Promise(sender),
        Step::Pending => Attempt::WouldBlock,
    }
}

fn join(queue: &WaitQueue, node: &Node, how: Enqueue) {
    match how {
        // SAFETY: the node stays where it is until its select withdraws it.
        Enqueue::First => unsafe { queue.push_front(node) },
        // SAFETY: as above.
        Enqueue::Last | Enqueue::Watch => unsafe { queue.push(node) },
    }
}

// SAFETY: the methods keep to the contract of the channel's own.
unsafe impl<T> Operation for Sender<T> {
    #[inline]
    fn raw(&self) -> Option<&RawBiased> {
        Some(self.channel().state().raw())
    }

    unsafe fn is_ready(&self) -> bool {
        // SAFETY: locked by the caller.
        unsafe { self.channel().state().with_raw(|state| state.can_send()) }
    }

    unsafe fn attempt(&self, place: *mut ()) -> Attempt {
        let send = |state: &mut State<T>| {
            // SAFETY: the caller forgets the value when this is done.
            unsafe { state.send(place.cast()) }
        };
        // SAFETY: locked by the caller.
        let step = unsafe { self.channel().state().with_raw(send) };
        if let Step::Done(receiver) = step {
            self.channel().added(receiver);
        }
        attempt_of(step)
    }

    #[inline]
    unsafe fn attempt_alone(&self, place: *mut ()) -> Ended {
        // SAFETY: the caller forgets the value when this is done.
        unsafe { self.channel().try_send(place.cast()) }
    }

    unsafe fn choose(&self, _place: *mut ()) -> Attempt {
        // SAFETY: locked by the caller.
        let grant = unsafe { self.channel().state().with_raw(|state| state.grant()) };
        grant.map_or(Attempt::WouldBlock, Attempt::Granted)
    }

    unsafe fn taken_at(&self) -> TakenAt {
        TakenAt::NEVER
    }

    unsafe fn enqueue(&self, node: &Node, how: Enqueue) {
        let join = |state: &mut State<T>| match how {
            Enqueue::Watch => join(state.watchers(), node, how),
            _ => join(state.senders(), node, how),
        };
        // SAFETY: locked by the caller.
        unsafe { self.channel().state().with_raw(join) };
        // A sender that waits, for all others but those who watch.
        self.channel().added(None);
    }

    unsafe fn withdraw(&self, node: &Node, how: Enqueue) {
        // SAFETY: locked by the caller.
        unsafe {
            self.channel().state().with_raw(|state| match how {
                Enqueue::Last | Enqueue::First => state.senders().remove(node),
                Enqueue::Watch => state.watchers().remove(node),
            });
        }
    }

    unsafe fn take_watchers(&self) -> Option<Claimed> {
        // SAFETY: locked by the caller.
        unsafe { self.channel().state().with_raw(|state| state.take_watchers()) }
    }

    unsafe fn deadline(&self) -> Option<Instant> {
        None
    }

    fn sends(&self) -> bool {
        true
    }

    fn make_room(&self, _small: *mut Small) -> *mut () {
        std::ptr::null_mut()
    }

    fn is_small(&self) -> bool {
        false
    }

    unsafe fn free_room(&self, _room: *mut ()) {}

    unsafe fn give_back(&self, _room: *mut (), _taken_at: TakenAt) {}

    unsafe fn give_back_held(&self, _sender: ClaimedNode) {}

    unsafe fn give_up(&self, grant: Grant) {
        // SAFETY: by the caller.
        unsafe { self.channel().give_up_grant(grant) };
    }

    fn counterpart(&self) -> Counterpart {
        Counterpart::Receivers(self.layout())
    }
}

// SAFETY: as above.
unsafe impl<T> Operation for Receiver<T> {
    #[inline]
    fn raw(&self) -> Option<&RawBiased> {
        match self.flavor() {
            FlavorRef::Channel(channel) => Some(channel.state().raw()),
            FlavorRef::Timer(timer) => Some(timer.state().raw()),
            FlavorRef::Never => None,
        }
    }

    unsafe fn is_ready(&self) -> bool {
        match self.flavor() {
            // SAFETY: locked by the caller.
            FlavorRef::Channel(channel) => unsafe { channel.state().with_raw(|state| state.can_receive()) },
            // SAFETY: locked by the caller.
            FlavorRef::Timer(timer) => unsafe { timer.state().with_raw(|state| state.is_due()) },
            FlavorRef::Never => false,
        }
    }

    unsafe fn attempt(&self, place: *mut ()) -> Attempt {
        match self.flavor() {
            FlavorRef::Channel(channel) => {
                let receive = |state: &mut State<T>| {
                    // SAFETY: the place is room for a value.
                    unsafe { state.receive(place.cast()) }
                };
                // SAFETY: locked by the caller.
                attempt_of(unsafe { channel.state().with_raw(receive) })
            }
            FlavorRef::Timer(timer) => {
                // SAFETY: locked by the caller.
                let due = unsafe { timer.state().with_raw(|state| state.take(present::now())) };
                let Some(due) = due else { return Attempt::WouldBlock };
                // SAFETY: the place is room for a value.
                unsafe { place.cast::<T>().write(timer.value(due)) };
                Attempt::Done(None)
            }
            FlavorRef::Never => Attempt::WouldBlock,
        }
    }

    #[inline]
    unsafe fn attempt_alone(&self, place: *mut ()) -> Ended {
        match self.flavor() {
            // SAFETY: the place is room for a value.
            FlavorRef::Channel(channel) => unsafe { channel.try_receive(place.cast()) },
            FlavorRef::Timer(timer) => {
                let Some(value) = timer.try_receive() else { return Ended::WouldBlock };
                // SAFETY: as above.
                unsafe { place.cast::<T>().write(value) };
                Ended::Done
            }
            FlavorRef::Never => Ended::WouldBlock,
        }
    }

    unsafe fn choose(&self, place: *mut ()) -> Attempt {
        let FlavorRef::Channel(channel) = self.flavor() else {
            // SAFETY: by the caller.
            return match (unsafe { self.attempt(place) }, self.flavor()) {
                (Attempt::Done(partner), FlavorRef::Timer(timer)) => {
                    // SAFETY: locked by the caller.
                    Attempt::Taken(partner, unsafe { timer.state().with_raw(|state| state.set_at()) })
                }
                (other, _) => other,
            };
        };
        let take = |state: &mut State<T>| {
            // SAFETY: the place is room for a value.
            unsafe { state.take(place.cast()) }
        };
        // SAFETY: locked by the caller.
        match unsafe { channel.state().with_raw(take) } {
            Taken::Held(sender) => Attempt::Held(sender),
            Taken::Step(Step::Done(partner), taken_at) => Attempt::Taken(partner, taken_at),
            Taken::Step(step, _) => attempt_of(step),
        }
    }

    unsafe fn taken_at(&self) -> TakenAt {
        match self.flavor() {
            // SAFETY: locked by the caller.
            FlavorRef::Channel(channel) => unsafe { channel.state().with_raw(State::next_taking) },
            _ => TakenAt::NEVER,
        }
    }

    unsafe fn enqueue(&self, node: &Node, how: Enqueue) {
        match self.flavor() {
            FlavorRef::Channel(channel) => {
                let join = |state: &mut State<T>| match how {
                    Enqueue::Watch => join(state.watchers(), node, how),
                    _ => join(state.receivers(), node, how),
                };
                // SAFETY: locked by the caller.
                unsafe { channel.state().with_raw(join) };
            }
            // SAFETY: locked by the caller.
            FlavorRef::Timer(timer) => unsafe { timer.state().with_raw(|state| join(state.waiters(), node, how)) },
            FlavorRef::Never => {}
        }
    }

    unsafe fn withdraw(&self, node: &Node, how: Enqueue) {
        match self.flavor() {
            // SAFETY: locked by the caller.
            FlavorRef::Channel(channel) => unsafe {
                channel.state().with_raw(|state| match how {
                    Enqueue::Last | Enqueue::First => state.receivers().remove(node),
                    Enqueue::Watch => state.watchers().remove(node),
                });
            },
            // SAFETY: locked by the caller.
            FlavorRef::Timer(timer) => unsafe { timer.state().with_raw(|state| state.waiters().remove(node)) },
            FlavorRef::Never => {}
        }
    }

    unsafe fn take_watchers(&self) -> Option<Claimed> {
        match self.flavor() {
            // SAFETY: locked by the caller.
            FlavorRef::Channel(channel) => unsafe { channel.state().with_raw(|state| state.take_watchers()) },
            _ => None,
        }
    }

    unsafe fn deadline(&self) -> Option<Instant> {
        match self.flavor() {
            // SAFETY: locked by the caller.
            FlavorRef::Timer(timer) => unsafe { timer.state().with_raw(|state| state.next()) },
            _ => None,
        }
    }

    fn sends(&self) -> bool {
        false
    }

    fn make_room(&self, small: *mut Small) -> *mut () {
        if fits::<T>() { small.cast() } else { Box::into_raw(Box::<T>::new_uninit()).cast() }
    }

    fn is_small(&self) -> bool {
        fits::<T>()
    }

    unsafe fn free_room(&self, room: *mut ()) {
        if !fits::<T>() {
            // SAFETY: made by `make_room`.
            drop(unsafe { Box::from_raw(room.cast::<MaybeUninit<T>>()) });
        }
    }

    unsafe fn give_back(&self, room: *mut (), taken_at: TakenAt) {
        // SAFETY: by the caller it holds a value.
        let value = unsafe { take_from_room::<T>(room) };
        match self.flavor() {
            FlavorRef::Channel(channel) => channel.give_back(value, taken_at),
            FlavorRef::Timer(timer) => timer.give_back(taken_at),
            FlavorRef::Never => {}
        }
    }

    unsafe fn give_back_held(&self, sender: ClaimedNode) {
        if let FlavorRef::Channel(channel) = self.flavor() {
            // SAFETY: by the caller.
            unsafe { channel.give_back_held(sender) };
        }
    }

    unsafe fn give_up(&self, _grant: Grant) {}

    fn counterpart(&self) -> Counterpart {
        match (self.layout(), self.flavor()) {
            (Some(layout), _) => Counterpart::Senders(layout),
            (None, FlavorRef::Never) => Counterpart::Nothing,
            (None, _) => Counterpart::Timer,
        }
    }
}

/// The second step of a two-step receive from a sender that is held.
///
/// # Safety
///
/// The sender came from an attempt of a receiver of `T`s.
pub(crate) unsafe fn take_held<T>(sender: ClaimedNode) -> T {
    // SAFETY: by the caller.
    unsafe { Channel::<T>::take_held(sender) }
}

/// The second step of a two-step send.
///
/// # Safety
///
/// The grant came from the sender's channel.
pub(crate) unsafe fn send_granted<T>(sender: &Sender<T>, grant: Grant, value: T) -> Result<(), T> {
    let value = std::mem::ManuallyDrop::new(value);
    // SAFETY: the grant by the caller; a valid value, which is forgotten when this is done.
    match unsafe { sender.channel().send_granted(grant, &raw const *value) } {
        Ended::Done => Ok(()),
        _ => Err(std::mem::ManuallyDrop::into_inner(value)),
    }
}
