//! The sending end of a channel.

use std::{
    fmt, mem,
    panic::{RefUnwindSafe, UnwindSafe},
    time::{Duration, Instant},
};

use super::{
    CloseError, SendError, SendTimeoutError, TrySendError,
    allocation::{Allocation, ChannelLayout, SenderWord, one_less, one_more, other_side_gone, side_gone},
    core::{Channel, Ended},
};
use crate::runtime::present;

/// The sending end of a channel; Go's `chan<- T`.
///
/// # Examples
///
/// ```
/// let (tx, rx) = oxigo::bounded(2);
/// let other = tx.clone();
/// tx.send(1).unwrap();
/// other.send(2).unwrap();
/// // Clones are the same channel: closing it closes it for all.
/// other.close().unwrap();
/// assert_eq!(tx.send(3).unwrap_err().to_string(), "send on closed channel");
/// assert_eq!(rx.iter().collect::<Vec<_>>(), [1, 2]);
/// ```
///
/// A `Sender` cannot receive, nor be ranged over, nor turn into the other end:
///
/// ```compile_fail,E0599
/// let (tx, rx) = oxigo::unbuffered::<i32>();
/// tx.recv();
/// ```
///
/// ```compile_fail,E0277
/// let (tx, rx) = oxigo::unbuffered::<i32>();
/// for value in tx {}
/// ```
///
/// ```compile_fail,E0277
/// let (tx, rx) = oxigo::unbuffered::<i32>();
/// let rx: oxigo::Receiver<i32> = tx.into();
/// ```
///
/// It goes to another goroutine only if its values may:
///
/// ```compile_fail,E0277
/// let (tx, rx) = oxigo::unbuffered::<std::rc::Rc<i32>>();
/// oxigo::go(move || drop(tx));
/// ```
pub struct Sender<T> {
    pub(super) word: SenderWord<T>,
}

// SAFETY: values pass from thread to thread, so `T: Send`; ends do not give references to values.
unsafe impl<T: Send> Send for Sender<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Sender<T> {}
impl<T> UnwindSafe for Sender<T> {}
impl<T> RefUnwindSafe for Sender<T> {}

impl<T> Sender<T> {
    #[inline]
    fn allocation(&self) -> &Allocation<T> {
        self.word.allocation()
    }

    /// The addresses of the channel.
    pub(crate) fn layout(&self) -> ChannelLayout {
        self.word.layout()
    }

    #[inline]
    pub(crate) fn channel(&self) -> &Channel<T> {
        &self.allocation().channel
    }

    /// Sends `value`, waiting for room, or on an unbuffered channel for a receiver.
    ///
    /// # Examples
    ///
    /// ```
    /// let (tx, rx) = oxigo::unbuffered();
    /// oxigo::go(move || {
    ///     tx.send("ping").unwrap(); // waits for the receiver
    ///     // The receiver goes away: the value comes back.
    ///     assert_eq!(tx.send("pong").unwrap_err().into_inner(), "pong");
    /// });
    /// assert_eq!(rx.recv(), Ok("ping"));
    /// drop(rx);
    /// ```
    ///
    /// # Errors
    ///
    /// With the value when the channel is closed, or becomes so while this waits, and when no receiver is left.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread; never on an unbounded channel.
    #[inline]
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        match self.send_until(value, None) {
            Ok(()) => Ok(()),
            Err((value, _)) => Err(SendError(value)),
        }
    }

    #[inline]
    fn send_until(&self, value: T, deadline: Option<Instant>) -> Result<(), (T, Ended)> {
        let mut value = mem::ManuallyDrop::new(value);
        // SAFETY: a valid value, which is forgotten when the answer is `Done`.
        match unsafe { self.channel().send(&raw mut *value, deadline) } {
            Ended::Done => Ok(()),
            ended => Err((mem::ManuallyDrop::into_inner(value), ended)),
        }
    }

    /// Sends `value` if that needs no waiting.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::chan::TrySendError;
    ///
    /// let (tx, rx) = oxigo::bounded(1);
    /// assert_eq!(tx.try_send(1), Ok(()));
    /// assert_eq!(tx.try_send(2), Err(TrySendError::Full(2)));
    /// drop(rx);
    /// assert_eq!(tx.try_send(3), Err(TrySendError::Disconnected(3)));
    /// ```
    ///
    /// # Errors
    ///
    /// With the value: `Full` when there is no room or no receiver waits, `Disconnected` as [`send`](Self::send).
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[inline]
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let value = mem::ManuallyDrop::new(value);
        // SAFETY: a valid value, which is forgotten when the answer is `Done`.
        match unsafe { self.channel().try_send(&raw const *value) } {
            Ended::Done => Ok(()),
            Ended::Closed => Err(TrySendError::Disconnected(mem::ManuallyDrop::into_inner(value))),
            _ => Err(TrySendError::Full(mem::ManuallyDrop::into_inner(value))),
        }
    }

    /// Like [`send`](Self::send), but waits at most `timeout`.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::chan::SendTimeoutError;
    /// use std::time::Duration;
    ///
    /// let (tx, _rx) = oxigo::unbuffered();
    /// assert_eq!(tx.send_timeout(1, Duration::from_millis(1)), Err(SendTimeoutError::Timeout(1)));
    /// ```
    ///
    /// # Errors
    ///
    /// With the value: `Timeout` when the time has passed, `Disconnected` as `send`.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn send_timeout(&self, value: T, timeout: Duration) -> Result<(), SendTimeoutError<T>> {
        match present::after(timeout) {
            Some(deadline) => self.send_deadline(value, deadline),
            None => self.send(value).map_err(SendTimeoutError::from),
        }
    }

    /// Like [`send`](Self::send), but waits until `deadline` at the latest.
    ///
    /// # Errors
    ///
    /// With the value: `Timeout` when the deadline has passed, `Disconnected` as `send`.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn send_deadline(&self, value: T, deadline: Instant) -> Result<(), SendTimeoutError<T>> {
        match self.send_until(value, Some(deadline)) {
            Ok(()) => Ok(()),
            Err((value, Ended::TimedOut)) => Err(SendTimeoutError::Timeout(value)),
            Err((value, _)) => Err(SendTimeoutError::Disconnected(value)),
        }
    }

    /// Closes the channel: nothing more can be sent; receivers get the values that are left, and then errors. Everybody who waits on it is woken.
    ///
    /// # Examples
    ///
    /// ```
    /// let (tx, rx) = oxigo::bounded(1);
    /// tx.send(1).unwrap();
    /// tx.close().unwrap();
    /// assert!(tx.close().is_err() && tx.send(2).is_err());
    /// assert_eq!(rx.recv(), Ok(1)); // what was sent before is received
    /// assert!(rx.recv().is_err());
    /// ```
    ///
    /// # Errors
    ///
    /// When the channel was closed before.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn close(&self) -> Result<(), CloseError> {
        if self.channel().close() { Ok(()) } else { Err(CloseError) }
    }

    /// Whether a send is bound to fail: the channel is closed, or no receiver is left.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn is_closed(&self) -> bool {
        self.channel().is_closed()
    }

    /// How many values wait in the buffer. Never more than [`capacity`](Self::capacity).
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn len(&self) -> usize {
        self.channel().len()
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
        self.channel().is_full()
    }

    /// How many values the buffer holds; none when it grows without bound.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn capacity(&self) -> Option<usize> {
        self.channel().capacity()
    }

    /// Whether both ends are of one channel.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn same_channel(&self, other: &Self) -> bool {
        self.word.get() == other.word.get()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        one_more(&self.allocation().senders);
        Self { word: self.word }
    }
}

impl<T> Drop for Sender<T> {
    #[inline]
    fn drop(&mut self) {
        if one_less(&self.allocation().senders) {
            // Without receivers there is nobody to tell.
            if !other_side_gone(self.allocation()) {
                self.channel().close();
            }
            // SAFETY: the last sender, on its way out.
            unsafe { side_gone(self.word.get()) };
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("Sender { .. }")
    }
}

const _: () = assert!(mem::size_of::<Sender<u64>>() == mem::size_of::<*const ()>());
