//! The one allocation of a channel, how its ends refer to it, and who frees it.

use std::{mem, ptr::NonNull};

use super::core::Channel;
use crate::facade::{
    AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed},
};

/// The one allocation of a channel.
///
/// Each kind of end is counted for itself: the last sender closes, the last receiver deafens. Whichever side ends second frees.
///
/// `repr(C)`: [`ChannelLayout`] tells where the counts are, whatever `T` is.
#[repr(C)]
pub(super) struct Allocation<T> {
    pub(super) senders: AtomicUsize,
    pub(super) receivers: AtomicUsize,
    pub(super) channel: Channel<T>,
}

/// The end of a channel as it lies in memory: the address of the channel, and in its low bits which end this is. So a word in memory tells
/// ends from each other and from references to the channel (`debug::suspects`). The bits cost nothing: they are part of the offset in each
/// access.
pub(super) struct EndWord<T, const BITS: usize>(NonNull<Allocation<T>>);

pub(super) type SenderWord<T> = EndWord<T, SENDER>;
pub(super) type ReceiverWord<T> = EndWord<T, RECEIVER>;

const SENDER: usize = 1;
const RECEIVER: usize = 2;
const _: () = assert!(mem::align_of::<Allocation<()>>() > SENDER | RECEIVER);

impl<T, const BITS: usize> EndWord<T, BITS> {
    #[inline]
    fn new(allocation: NonNull<Allocation<T>>) -> Self {
        // SAFETY: the bits are fewer than the bytes of an `Allocation`.
        Self(unsafe { allocation.byte_add(BITS) })
    }

    #[inline]
    pub(super) fn get(&self) -> NonNull<Allocation<T>> {
        // SAFETY: back to where `new` began.
        unsafe { self.0.byte_sub(BITS) }
    }

    #[inline]
    pub(super) fn allocation(&self) -> &Allocation<T> {
        // SAFETY: an end keeps the channel alive.
        unsafe { self.get().as_ref() }
    }

    pub(super) fn layout(&self) -> ChannelLayout {
        ChannelLayout(self.get().addr().get())
    }
}

impl<T, const BITS: usize> Clone for EndWord<T, BITS> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, const BITS: usize> Copy for EndWord<T, BITS> {}

/// The addresses that belong to a channel: numbers to compare with what lies in memory, and nothing to follow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChannelLayout(usize);

impl ChannelLayout {
    /// The bytes of a channel's allocation.
    pub(crate) const SPAN: usize = mem::size_of::<Allocation<()>>();

    /// Of the channel that a wait for sending or receiving has named.
    pub(crate) fn of_channel(address: usize) -> Self {
        Self(address - mem::offset_of!(Allocation<()>, channel))
    }

    pub(crate) fn start(self) -> usize {
        self.0
    }

    /// A sender's word, and where senders are counted.
    pub(crate) fn senders(self) -> (usize, usize) {
        (self.0 + SENDER, self.0 + mem::offset_of!(Allocation<()>, senders))
    }

    /// A receiver's word, and where receivers are counted.
    pub(crate) fn receivers(self) -> (usize, usize) {
        (self.0 + RECEIVER, self.0 + mem::offset_of!(Allocation<()>, receivers))
    }
}

/// A new channel, and its first two ends.
pub(super) fn allocate<T>(channel: Channel<T>) -> (SenderWord<T>, ReceiverWord<T>) {
    const {
        assert!(mem::offset_of!(Allocation<T>, channel) == mem::offset_of!(Allocation<()>, channel));
        assert!(mem::size_of::<Allocation<T>>() == ChannelLayout::SPAN);
    }
    let allocation = Box::new(Allocation { senders: AtomicUsize::new(1), receivers: AtomicUsize::new(1), channel });
    let allocation = NonNull::from(Box::leak(allocation));
    (EndWord::new(allocation), EndWord::new(allocation))
}

/// More ends than this are a leak that would overflow the count.
const MOST_ENDS: usize = isize::MAX as usize;

pub(super) fn one_more(count: &AtomicUsize) {
    // ORDERING: Relaxed. A new end is made from one that exists.
    if count.fetch_add(1, Relaxed) > MOST_ENDS {
        std::process::abort();
    }
}

/// Counts an end less; whether it was the last of its side. Who has the only one needs no exchange.
#[inline]
pub(super) fn one_less(count: &AtomicUsize) -> bool {
    // ORDERING: Acquire. What the last end does comes after what all others of its side did; pairs with the Release below. The caller has the
    // only end then, so nobody makes another one.
    if count.load(Acquire) == 1 {
        // ORDERING: Relaxed. Says no more than that there is none.
        count.store(0, Relaxed);
        return true;
    }
    // ORDERING: AcqRel, as above.
    count.fetch_sub(1, AcqRel) == 1
}

/// Whether the other side is gone, for the last end of a side.
#[inline]
pub(super) fn other_side_gone<T>(allocation: &Allocation<T>) -> bool {
    // ORDERING: Acquire. Who comes second sees all that the first did; pairs with the Release in `side_gone`.
    allocation.channel.one_side_gone.load(Acquire)
}

/// Frees the channel when this is the second side to go.
///
/// # Safety
///
/// The caller was the last end of its side and does not touch the channel afterwards.
pub(super) unsafe fn side_gone<T>(allocation: NonNull<Allocation<T>>) {
    // SAFETY: alive until both sides are gone.
    let ends = unsafe { allocation.as_ref() };
    // ORDERING: AcqRel. The one that frees sees all that the other side did.
    if other_side_gone(ends) || ends.channel.one_side_gone.swap(true, AcqRel) {
        // SAFETY: both sides are gone; the allocation came from a `Box`.
        drop(unsafe { Box::from_raw(allocation.as_ptr()) });
    }
}

#[cfg(not(loom))]
const _: () = assert!(mem::size_of::<Allocation<u64>>() <= 160, "an unbuffered channel is one small allocation");
