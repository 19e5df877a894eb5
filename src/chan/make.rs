//! How channels are made.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Receiver, Sender, allocation::allocate, core::Channel, receiver::Flavor, timer::TimerChannel};
use crate::runtime::present;

/// Makes a channel without a buffer: a send waits until a receive takes its value. Go's `make(chan T)`; the same as `bounded(0)`.
///
/// # Examples
///
/// ```
/// let (tx, rx) = oxigo::unbuffered();
/// oxigo::go(move || tx.send("hello").unwrap());
/// assert_eq!(rx.recv().unwrap(), "hello");
/// ```
///
/// # Blocking
///
/// Never parks.
#[must_use = "a channel without its ends is gone"]
pub fn unbuffered<T>() -> (Sender<T>, Receiver<T>) {
    bounded(0)
}

/// Makes a channel with room for `capacity` values. Go's `make(chan T, capacity)`.
///
/// # Examples
///
/// ```
/// let (tx, rx) = oxigo::bounded(2);
/// tx.send(1).unwrap();
/// tx.send(2).unwrap();
/// assert!(tx.try_send(3).is_err());
/// assert_eq!(rx.recv(), Ok(1));
/// ```
///
/// # Panics
///
/// When room for so many values cannot be allocated.
///
/// # Blocking
///
/// Never parks.
#[must_use = "a channel without its ends is gone"]
#[track_caller]
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    both_ends(Channel::bounded(capacity))
}

/// Makes a channel whose sends never wait.
///
/// # Examples
///
/// ```
/// let (tx, rx) = oxigo::unbounded();
/// for n in 0..1000 {
///     tx.send(n).unwrap();
/// }
/// assert_eq!((rx.len(), tx.capacity()), (1000, None));
/// ```
///
/// # Blocking
///
/// Never parks.
#[must_use = "a channel without its ends is gone"]
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    both_ends(Channel::unbounded())
}

/// A receiver on which nothing ever comes: a disabled arm of a `select!`.
///
/// # Examples
///
/// ```
/// use oxigo::chan::{never, Receiver};
///
/// let (tx, rx) = oxigo::bounded(1);
/// tx.send(5).unwrap();
/// let enabled = false;
/// let guarded: Receiver<i32> = if enabled { rx } else { never() };
/// let received = oxigo::select! {
///     recv(guarded) -> value => value.ok(),
///     default => None,
/// };
/// assert_eq!(received, None);
/// ```
///
/// # Blocking
///
/// Never parks.
#[must_use = "a receiver does nothing unless it is received from"]
pub const fn never<T>() -> Receiver<T> {
    Receiver { flavor: Flavor::Never }
}

/// A receiver that gets one value, after `duration`: the time at which it was due.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, Instant};
///
/// let start = Instant::now();
/// let fired = oxigo::chan::after(Duration::from_millis(2)).recv().unwrap();
/// assert!(fired - start >= Duration::from_millis(2));
/// ```
///
/// # Blocking
///
/// Never parks.
#[must_use = "a receiver does nothing unless it is received from"]
pub fn after(duration: Duration) -> Receiver<Instant> {
    timer(present::after(duration), None)
}

/// A receiver that gets one value, at the time `when`: that time.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, Instant};
///
/// let when = Instant::now() + Duration::from_millis(2);
/// assert_eq!(oxigo::chan::at(when).recv(), Ok(when));
/// ```
///
/// # Blocking
///
/// Never parks.
pub fn at(when: Instant) -> Receiver<Instant> {
    timer(Some(when), None)
}

/// A receiver that gets the time once in every `period`. Of ticks that nobody receives in time, one is kept and the others are dropped.
///
/// A period of zero is always ready, as in crossbeam-channel; [`Ticker::new`](crate::time::Ticker::new) refuses it.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let ticks = oxigo::chan::tick(Duration::from_millis(1));
/// let first = ticks.recv().unwrap();
/// assert!(ticks.recv().unwrap() - first >= Duration::from_millis(1));
/// ```
///
/// # Blocking
///
/// Never parks.
pub fn tick(period: Duration) -> Receiver<Instant> {
    timer(present::after(period), Some(period))
}

pub(crate) fn timer(next: Option<Instant>, period: Option<Duration>) -> Receiver<Instant> {
    Receiver { flavor: Flavor::Timer(Arc::new(TimerChannel::new(next, period))) }
}

fn both_ends<T>(channel: Channel<T>) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = allocate(channel);
    (Sender { word: sender }, Receiver { flavor: Flavor::Channel(receiver) })
}
