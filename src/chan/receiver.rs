//! The receiving end of a channel, of a timer, or of nothing.

use std::{
    fmt,
    panic::{RefUnwindSafe, UnwindSafe},
    ptr::NonNull,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Iter, RecvError, RecvTimeoutError, TryIter, TryRecvError,
    allocation::{Allocation, ChannelLayout, ReceiverWord, one_less, one_more, other_side_gone, side_gone},
    core::{Channel, Ended, into_room},
    timer::TimerChannel,
};
use crate::runtime::{park, present, wait::Reason};

pub(super) enum Flavor<T> {
    Channel(ReceiverWord<T>),
    Timer(Arc<TimerChannel<T>>),
    Never,
}

/// What a receiver receives from.
pub(crate) enum FlavorRef<'a, T> {
    Channel(&'a Channel<T>),
    Timer(&'a TimerChannel<T>),
    Never,
}

/// The receiving end of a channel; Go's `<-chan T`.
///
/// # Examples
///
/// ```
/// let (tx, rx) = oxigo::unbuffered();
/// oxigo::go(move || (0..3).for_each(|n| tx.send(n).unwrap()));
/// // Go's `for v := range ch`: until the channel is closed, here by the end of its only sender.
/// assert_eq!(rx.into_iter().sum::<i32>(), 3);
/// ```
///
/// A `Receiver` can neither send nor close, nor turn into the other end:
///
/// ```compile_fail,E0599
/// let (tx, rx) = oxigo::unbuffered::<i32>();
/// rx.send(1);
/// ```
///
/// ```compile_fail,E0599
/// let (tx, rx) = oxigo::unbuffered::<i32>();
/// rx.close();
/// ```
///
/// ```compile_fail,E0277
/// let (tx, rx) = oxigo::unbuffered::<i32>();
/// let tx: oxigo::Sender<i32> = rx.into();
/// ```
///
/// It goes to another goroutine only if its values may:
///
/// ```compile_fail,E0277
/// let (tx, rx) = oxigo::unbuffered::<std::rc::Rc<i32>>();
/// oxigo::go(move || drop(rx));
/// ```
pub struct Receiver<T> {
    pub(super) flavor: Flavor<T>,
}

// SAFETY: values pass from thread to thread, so `T: Send`; ends do not give references to values.
unsafe impl<T: Send> Send for Receiver<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Receiver<T> {}
impl<T> UnwindSafe for Receiver<T> {}
impl<T> RefUnwindSafe for Receiver<T> {}

impl<T> Receiver<T> {
    #[inline]
    pub(crate) fn flavor(&self) -> FlavorRef<'_, T> {
        match &self.flavor {
            Flavor::Channel(word) => FlavorRef::Channel(&word.allocation().channel),
            Flavor::Timer(timer) => FlavorRef::Timer(timer),
            Flavor::Never => FlavorRef::Never,
        }
    }

    /// The addresses of the channel, if it is one.
    pub(crate) fn layout(&self) -> Option<ChannelLayout> {
        match &self.flavor {
            Flavor::Channel(word) => Some(word.layout()),
            Flavor::Timer(_) | Flavor::Never => None,
        }
    }

    /// Sets the timer behind this receiver anew; see [`TimerChannel::set`].
    pub(crate) fn set_timer(&self, next: Option<Instant>, period: Option<Duration>) -> bool {
        match self.flavor() {
            FlavorRef::Timer(timer) => timer.set(next, period),
            FlavorRef::Channel(_) | FlavorRef::Never => false,
        }
    }

    /// Stops the timer behind this receiver; else as [`set_timer`](Self::set_timer).
    pub(crate) fn disarm_timer(&self) -> bool {
        match self.flavor() {
            FlavorRef::Timer(timer) => timer.disarm(),
            FlavorRef::Channel(_) | FlavorRef::Never => false,
        }
    }

    /// When the timer behind this receiver is due next.
    pub(crate) fn timer_deadline(&self) -> Option<Instant> {
        match self.flavor() {
            FlavorRef::Timer(timer) => timer.deadline(),
            FlavorRef::Channel(_) | FlavorRef::Never => None,
        }
    }

    /// Receives a value, waiting until there is one.
    ///
    /// # Examples
    ///
    /// ```
    /// let (tx, rx) = oxigo::bounded(1);
    /// oxigo::go(move || tx.send(1).unwrap());
    /// assert_eq!(rx.recv(), Ok(1));
    /// assert!(rx.recv().is_err()); // the only sender is gone
    /// ```
    ///
    /// # Errors
    ///
    /// When the channel is closed and everything that was sent has been received.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    #[inline]
    pub fn recv(&self) -> Result<T, RecvError> {
        self.recv_until(None).map_err(|_| RecvError)
    }

    #[inline]
    fn recv_until(&self, deadline: Option<Instant>) -> Result<T, Ended> {
        match self.flavor() {
            // SAFETY: `into_room` gives room for a `T`.
            FlavorRef::Channel(channel) => into_room(|room| unsafe { channel.receive(room, deadline) }),
            FlavorRef::Timer(timer) => timer.receive(deadline),
            FlavorRef::Never => {
                match deadline {
                    Some(deadline) => {
                        crate::time::sleep_until(deadline);
                        // One that has passed is not slept for.
                        park::spend();
                    }
                    None => loop {
                        park::current().park(Reason::NeverRecv.alone());
                    },
                }
                Err(Ended::TimedOut)
            }
        }
    }

    /// Receives a value if there is one now.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::chan::TryRecvError;
    ///
    /// let (tx, rx) = oxigo::bounded(1);
    /// assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
    /// tx.send(1).unwrap();
    /// drop(tx);
    /// assert_eq!(rx.try_recv(), Ok(1));
    /// assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected));
    /// ```
    ///
    /// # Errors
    ///
    /// `Empty` when there is no value now, or only values behind a place that a [`SelectedOperation`](super::SelectedOperation) keeps for one that it
    /// has yet to send. `Disconnected` as [`recv`](Self::recv).
    ///
    /// # Blocking
    ///
    /// Never parks, except in one case: on an unbuffered channel it meets a run-time [`Select`](super::Select) that waits to send. A `Select` first
    /// chooses an operation and only then provides the value; this waits until it has done so, or has dropped the operation. (As in
    /// `crossbeam-channel`. Otherwise a caller that only ever tries would never receive from a `Select`.)
    #[inline]
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        match self.flavor() {
            FlavorRef::Channel(channel) => {
                // SAFETY: `into_room` gives room for a `T`.
                into_room(|room| unsafe { channel.try_receive(room) }).map_err(|ended| match ended {
                    Ended::Closed => TryRecvError::Disconnected,
                    _ => TryRecvError::Empty,
                })
            }
            FlavorRef::Timer(timer) => timer.try_receive().ok_or(TryRecvError::Empty),
            FlavorRef::Never => Err(TryRecvError::Empty),
        }
    }

    /// Like [`recv`](Self::recv), but waits at most `timeout`.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::chan::RecvTimeoutError;
    /// use std::time::Duration;
    ///
    /// let (_tx, rx) = oxigo::bounded::<i32>(1);
    /// assert_eq!(rx.recv_timeout(Duration::from_millis(1)), Err(RecvTimeoutError::Timeout));
    /// ```
    ///
    /// # Errors
    ///
    /// `Timeout` when the time has passed, `Disconnected` as `recv`.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread. Where [`try_recv`](Self::try_recv) waits for a `Select`, so does this, even beyond its time limit.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        match present::after(timeout) {
            Some(deadline) => self.recv_deadline(deadline),
            None => self.recv().map_err(RecvTimeoutError::from),
        }
    }

    /// Like [`recv`](Self::recv), but waits until `deadline` at the latest.
    ///
    /// # Errors
    ///
    /// `Timeout` when the deadline has passed, `Disconnected` as `recv`.
    ///
    /// # Blocking
    ///
    /// As [`recv_timeout`](Self::recv_timeout).
    pub fn recv_deadline(&self, deadline: Instant) -> Result<T, RecvTimeoutError> {
        self.recv_until(Some(deadline)).map_err(|ended| match ended {
            Ended::TimedOut => RecvTimeoutError::Timeout,
            _ => RecvTimeoutError::Disconnected,
        })
    }

    /// Receives until the channel is closed and empty. Go's `for v := range ch`.
    ///
    /// # Examples
    ///
    /// ```
    /// let (tx, rx) = oxigo::unbuffered();
    /// oxigo::go(move || (1..=3).for_each(|n| tx.send(n).unwrap()));
    /// // Ends when the sender is dropped.
    /// assert_eq!(rx.iter().sum::<i32>(), 6);
    /// ```
    ///
    /// # Blocking
    ///
    /// Never parks; the iterator waits as [`recv`](Self::recv) does.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { receiver: self }
    }

    /// Receives the values that are there, without waiting.
    ///
    /// # Examples
    ///
    /// ```
    /// let (tx, rx) = oxigo::bounded(4);
    /// tx.send(1).unwrap();
    /// tx.send(2).unwrap();
    /// assert_eq!(rx.try_iter().collect::<Vec<_>>(), [1, 2]);
    /// ```
    ///
    /// # Blocking
    ///
    /// Never parks; the iterator waits only where [`try_recv`](Self::try_recv) does.
    pub fn try_iter(&self) -> TryIter<'_, T> {
        TryIter { receiver: self }
    }

    /// Whether nothing more can be sent: the channel is closed.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn is_closed(&self) -> bool {
        match self.flavor() {
            FlavorRef::Channel(channel) => channel.is_closed(),
            FlavorRef::Timer(_) | FlavorRef::Never => false,
        }
    }

    /// How many values wait in the buffer; 1 for a timer that is due. Never more than [`capacity`](Self::capacity).
    ///
    /// # Examples
    ///
    /// ```
    /// let (tx, rx) = oxigo::bounded(4);
    /// tx.send("one").unwrap();
    /// assert_eq!((rx.len(), rx.capacity(), rx.is_full()), (1, Some(4), false));
    /// ```
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn len(&self) -> usize {
        match self.flavor() {
            FlavorRef::Channel(channel) => channel.len(),
            FlavorRef::Timer(timer) => timer.len(),
            FlavorRef::Never => 0,
        }
    }

    /// Whether no value waits in the buffer.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the buffer has no room; always, for an unbuffered channel.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn is_full(&self) -> bool {
        match self.flavor() {
            FlavorRef::Channel(channel) => channel.is_full(),
            FlavorRef::Timer(timer) => timer.len() == 1,
            FlavorRef::Never => true,
        }
    }

    /// How many values the buffer holds; none when it grows without bound.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn capacity(&self) -> Option<usize> {
        match self.flavor() {
            FlavorRef::Channel(channel) => channel.capacity(),
            FlavorRef::Timer(_) => Some(1),
            FlavorRef::Never => Some(0),
        }
    }

    /// Whether both ends are of one channel.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn same_channel(&self, other: &Self) -> bool {
        match (&self.flavor, &other.flavor) {
            (Flavor::Channel(a), Flavor::Channel(b)) => a.get() == b.get(),
            (Flavor::Timer(a), Flavor::Timer(b)) => Arc::ptr_eq(a, b),
            (Flavor::Never, Flavor::Never) => true,
            _ => false,
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        let flavor = match &self.flavor {
            Flavor::Channel(word) => {
                one_more(&word.allocation().receivers);
                Flavor::Channel(*word)
            }
            Flavor::Timer(timer) => Flavor::Timer(Arc::clone(timer)),
            Flavor::Never => Flavor::Never,
        };
        Self { flavor }
    }
}

impl<T> Drop for Receiver<T> {
    #[inline]
    fn drop(&mut self) {
        if let Flavor::Channel(word) = &self.flavor {
            let pointer = word.get();
            let allocation = word.allocation();
            if one_less(&allocation.receivers) {
                let leave = Leave(pointer);
                if other_side_gone(allocation) {
                    // SAFETY: this is the only end of the channel.
                    unsafe { allocation.channel.clear() };
                } else {
                    allocation.channel.deafen();
                }
                drop(leave);
            }
        }
    }
}

/// Leaves the channel even if a buffered value panics while it is dropped.
struct Leave<T>(NonNull<Allocation<T>>);

impl<T> Drop for Leave<T> {
    fn drop(&mut self) {
        // SAFETY: the last receiver, on its way out.
        unsafe { side_gone(self.0) };
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("Receiver { .. }")
    }
}
