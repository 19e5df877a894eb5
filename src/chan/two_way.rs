//! `Chan`: both ends in one, as Go's `chan T`.

use std::{fmt, time::Duration, time::Instant};

use super::{
    CloseError, IntoIter, Iter, Receiver, RecvError, RecvTimeoutError, SendError, SendTimeoutError, Sender, TryIter,
    TryRecvError, TrySendError, bounded, unbounded, unbuffered,
};

/// A two-way channel; Go's `chan T`.
///
/// It turns into either end with [`sender`](Self::sender), [`receiver`](Self::receiver) or `From`; there is no way back:
///
/// ```compile_fail,E0277
/// let (tx, _rx) = oxigo::unbuffered::<i32>();
/// let both: oxigo::Chan<i32> = tx.into();
/// ```
///
/// ```compile_fail,E0277
/// let (_tx, rx) = oxigo::unbuffered::<i32>();
/// let both: oxigo::Chan<i32> = rx.into();
/// ```
///
/// It counts as both ends, so an iteration over a `Chan` ends only when somebody calls [`close`](Self::close).
///
/// # Examples
///
/// ```
/// use oxigo::Chan;
///
/// let numbers = Chan::bounded(3);
/// for n in 1..=3 {
///     numbers.send(n).unwrap();
/// }
/// numbers.close().unwrap();
/// assert_eq!(numbers.iter().sum::<i32>(), 6);
/// ```
pub struct Chan<T> {
    pub(super) sender: Sender<T>,
    pub(super) receiver: Receiver<T>,
}

impl<T> Chan<T> {
    /// A two-way channel without a buffer; see [`unbuffered`](super::unbuffered()).
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn unbuffered() -> Self {
        let (sender, receiver) = unbuffered();
        Self { sender, receiver }
    }

    /// A two-way channel with room for `capacity` values; see [`bounded`](super::bounded()).
    ///
    /// # Panics
    ///
    /// When room for so many values cannot be allocated.
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[track_caller]
    pub fn bounded(capacity: usize) -> Self {
        let (sender, receiver) = bounded(capacity);
        Self { sender, receiver }
    }

    /// A two-way channel whose sends never wait; see [`unbounded`](super::unbounded()).
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn unbounded() -> Self {
        let (sender, receiver) = unbounded();
        Self { sender, receiver }
    }

    /// Both ends.
    pub(crate) fn ends(&self) -> (&Sender<T>, &Receiver<T>) {
        (&self.sender, &self.receiver)
    }

    /// A sending end of this channel.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn sender(&self) -> Sender<T> {
        self.sender.clone()
    }

    /// A receiving end of this channel.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn receiver(&self) -> Receiver<T> {
        self.receiver.clone()
    }

    /// See [`Sender::send`].
    ///
    /// # Errors
    ///
    /// With the value when the channel is closed, or becomes so while this waits.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.sender.send(value)
    }

    /// See [`Sender::try_send`].
    ///
    /// # Errors
    ///
    /// With the value: `Full`, or `Disconnected` when the channel is closed.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.sender.try_send(value)
    }

    /// See [`Sender::send_timeout`].
    ///
    /// # Errors
    ///
    /// With the value: `Timeout`, or `Disconnected` when the channel is closed.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn send_timeout(&self, value: T, timeout: Duration) -> Result<(), SendTimeoutError<T>> {
        self.sender.send_timeout(value, timeout)
    }

    /// See [`Sender::send_deadline`].
    ///
    /// # Errors
    ///
    /// With the value: `Timeout`, or `Disconnected` when the channel is closed.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn send_deadline(&self, value: T, deadline: Instant) -> Result<(), SendTimeoutError<T>> {
        self.sender.send_deadline(value, deadline)
    }

    /// See [`Receiver::recv`].
    ///
    /// # Errors
    ///
    /// When the channel is closed and empty.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn recv(&self) -> Result<T, RecvError> {
        self.receiver.recv()
    }

    /// See [`Receiver::try_recv`].
    ///
    /// # Errors
    ///
    /// `Empty`, or `Disconnected` when the channel is closed and empty.
    ///
    /// # Blocking
    ///
    /// Never parks, except in one case, which [`Receiver::try_recv`] describes: it may wait for the value of a run-time [`Select`](super::Select).
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.receiver.try_recv()
    }

    /// See [`Receiver::recv_timeout`].
    ///
    /// # Errors
    ///
    /// `Timeout`, or `Disconnected` when the channel is closed and empty.
    ///
    /// # Blocking
    ///
    /// As [`Receiver::recv_timeout`].
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.receiver.recv_timeout(timeout)
    }

    /// See [`Receiver::recv_deadline`].
    ///
    /// # Errors
    ///
    /// `Timeout`, or `Disconnected` when the channel is closed and empty.
    ///
    /// # Blocking
    ///
    /// As [`Receiver::recv_timeout`].
    pub fn recv_deadline(&self, deadline: Instant) -> Result<T, RecvTimeoutError> {
        self.receiver.recv_deadline(deadline)
    }

    /// See [`Sender::close`].
    ///
    /// # Errors
    ///
    /// When the channel was closed before.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn close(&self) -> Result<(), CloseError> {
        self.sender.close()
    }

    /// See [`Sender::is_closed`].
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// See [`Receiver::iter`]; ends only by [`close`](Self::close).
    ///
    /// # Blocking
    ///
    /// Never parks; the iterator waits as [`recv`](Self::recv) does.
    pub fn iter(&self) -> Iter<'_, T> {
        self.receiver.iter()
    }

    /// See [`Receiver::try_iter`].
    ///
    /// # Blocking
    ///
    /// Never parks; the iterator waits only where [`try_recv`](Self::try_recv) does.
    pub fn try_iter(&self) -> TryIter<'_, T> {
        self.receiver.try_iter()
    }

    /// How many values wait in the buffer.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn len(&self) -> usize {
        self.sender.len()
    }

    /// Whether no value waits in the buffer.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn is_empty(&self) -> bool {
        self.sender.is_empty()
    }

    /// Whether the buffer has no room; always, for an unbuffered channel.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn is_full(&self) -> bool {
        self.sender.is_full()
    }

    /// How many values the buffer holds.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn capacity(&self) -> Option<usize> {
        self.sender.capacity()
    }

    /// Whether both are one channel.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn same_channel(&self, other: &Self) -> bool {
        self.sender.same_channel(&other.sender)
    }
}

impl<T> Clone for Chan<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), receiver: self.receiver.clone() }
    }
}

impl<T> From<Chan<T>> for Sender<T> {
    fn from(chan: Chan<T>) -> Self {
        chan.sender
    }
}

impl<T> From<Chan<T>> for Receiver<T> {
    fn from(chan: Chan<T>) -> Self {
        chan.receiver
    }
}

impl<'a, T> IntoIterator for &'a Chan<T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

/// Ends only by [`close`](Chan::close): the iterator counts as both ends, as the `Chan` did.
impl<T> IntoIterator for Chan<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter { receiver: self.receiver, _sender: Some(self.sender) }
    }
}

impl<T> fmt::Debug for Chan<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("Chan { .. }")
    }
}
