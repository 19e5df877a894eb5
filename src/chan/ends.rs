//! The two ends of a channel, and how channels are made.

use std::{
    fmt, mem,
    panic::{RefUnwindSafe, UnwindSafe},
    ptr::NonNull,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    CloseError, Iter, RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryIter, TryRecvError, TrySendError,
    core::{Channel, Ended, into_room},
    timer::Timer,
};
use crate::{
    facade::{
        AtomicUsize,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
    runtime::{park, present, wait::Reason},
};

/// The one allocation of a channel.
///
/// Each kind of end is counted for itself: the last sender closes, the last receiver deafens. Whichever side ends second frees.
///
/// `repr(C)`: [`ChannelLayout`] tells where the counts are, whatever `T` is.
#[repr(C)]
pub(crate) struct Shared<T> {
    senders: AtomicUsize,
    receivers: AtomicUsize,
    channel: Channel<T>,
}

/// The end of a channel as it lies in memory: the address of the channel, and in its low bits which end this is. So a word in memory tells
/// ends from each other and from references to the channel (`debug::suspects`). The bits cost nothing: they are part of the offset in each
/// access.
struct End<T, const BITS: usize>(NonNull<Shared<T>>);

type SendEnd<T> = End<T, SENDER>;
type ReceiveEnd<T> = End<T, RECEIVER>;

const SENDER: usize = 1;
const RECEIVER: usize = 2;
const _: () = assert!(mem::align_of::<Shared<()>>() > SENDER | RECEIVER);

impl<T, const BITS: usize> End<T, BITS> {
    #[inline]
    fn new(shared: NonNull<Shared<T>>) -> Self {
        // SAFETY: the bits are fewer than the bytes of a `Shared`.
        Self(unsafe { shared.byte_add(BITS) })
    }

    #[inline]
    fn get(&self) -> NonNull<Shared<T>> {
        // SAFETY: back to where `new` began.
        unsafe { self.0.byte_sub(BITS) }
    }

    #[inline]
    fn shared(&self) -> &Shared<T> {
        // SAFETY: an end keeps the channel alive.
        unsafe { self.get().as_ref() }
    }
}

impl<T, const BITS: usize> Clone for End<T, BITS> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, const BITS: usize> Copy for End<T, BITS> {}

/// The addresses that belong to a channel: numbers to compare with what lies in memory, and nothing to follow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChannelLayout(usize);

impl ChannelLayout {
    /// The bytes of a channel's allocation.
    pub(crate) const SPAN: usize = mem::size_of::<Shared<()>>();

    /// Of the channel that a wait for sending or receiving has named.
    pub(crate) fn of_channel(address: usize) -> Self {
        Self(address - mem::offset_of!(Shared<()>, channel))
    }

    pub(crate) fn start(self) -> usize {
        self.0
    }

    /// A sender's word, and where senders are counted.
    pub(crate) fn senders(self) -> (usize, usize) {
        (self.0 + SENDER, self.0 + mem::offset_of!(Shared<()>, senders))
    }

    /// A receiver's word, and where receivers are counted.
    pub(crate) fn receivers(self) -> (usize, usize) {
        (self.0 + RECEIVER, self.0 + mem::offset_of!(Shared<()>, receivers))
    }
}

fn share<T>(channel: Channel<T>) -> (Sender<T>, Receiver<T>) {
    const {
        assert!(mem::offset_of!(Shared<T>, channel) == mem::offset_of!(Shared<()>, channel));
        assert!(mem::size_of::<Shared<T>>() == ChannelLayout::SPAN);
    }
    let shared = Box::new(Shared { senders: AtomicUsize::new(1), receivers: AtomicUsize::new(1), channel });
    let shared = NonNull::from(Box::leak(shared));
    (Sender { end: End::new(shared) }, Receiver { flavor: Flavor::Channel(End::new(shared)) })
}

/// More ends than this are a leak that would overflow the count.
const MOST_ENDS: usize = isize::MAX as usize;

fn one_more(count: &AtomicUsize) {
    // ORDERING: Relaxed. A new end is made from one that exists.
    if count.fetch_add(1, Relaxed) > MOST_ENDS {
        std::process::abort();
    }
}

/// Counts an end less; whether it was the last of its side. Who has the only one needs no exchange.
#[inline]
fn one_less(count: &AtomicUsize) -> bool {
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
fn other_side_gone<T>(shared: &Shared<T>) -> bool {
    // ORDERING: Acquire. Who comes second sees all that the first did; pairs with the Release in `side_gone`.
    shared.channel.one_side_gone.load(Acquire)
}

/// Frees the channel when this is the second side to go.
///
/// # Safety
///
/// The caller was the last end of its side and does not touch the channel afterwards.
unsafe fn side_gone<T>(shared: NonNull<Shared<T>>) {
    // SAFETY: alive until both sides are gone.
    let ends = unsafe { shared.as_ref() };
    // ORDERING: AcqRel. The one that frees sees all that the other side did.
    if other_side_gone(ends) || ends.channel.one_side_gone.swap(true, AcqRel) {
        // SAFETY: both sides are gone; the allocation came from a `Box`.
        drop(unsafe { Box::from_raw(shared.as_ptr()) });
    }
}

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
    share(Channel::bounded(capacity))
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
    share(Channel::unbounded())
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
    Receiver { flavor: Flavor::Timer(Arc::new(Timer::new(next, period))) }
}

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
    end: SendEnd<T>,
}

// SAFETY: values pass from thread to thread, so `T: Send`; ends do not give references to values.
unsafe impl<T: Send> Send for Sender<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Sender<T> {}
impl<T> UnwindSafe for Sender<T> {}
impl<T> RefUnwindSafe for Sender<T> {}

impl<T> Sender<T> {
    #[inline]
    fn shared(&self) -> &Shared<T> {
        self.end.shared()
    }

    /// The addresses of the channel.
    pub(crate) fn layout(&self) -> ChannelLayout {
        ChannelLayout(self.end.get().addr().get())
    }

    #[inline]
    pub(crate) fn channel(&self) -> &Channel<T> {
        &self.shared().channel
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
        self.end.get() == other.end.get()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        one_more(&self.shared().senders);
        Self { end: self.end }
    }
}

impl<T> Drop for Sender<T> {
    #[inline]
    fn drop(&mut self) {
        if one_less(&self.shared().senders) {
            // Without receivers there is nobody to tell.
            if !other_side_gone(self.shared()) {
                self.channel().close();
            }
            // SAFETY: the last sender, on its way out.
            unsafe { side_gone(self.end.get()) };
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("Sender { .. }")
    }
}

enum Flavor<T> {
    Channel(ReceiveEnd<T>),
    Timer(Arc<Timer<T>>),
    Never,
}

/// What a receiver receives from.
pub(crate) enum Source<'a, T> {
    Channel(&'a Channel<T>),
    Timer(&'a Timer<T>),
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
    flavor: Flavor<T>,
}

// SAFETY: values pass from thread to thread, so `T: Send`; ends do not give references to values.
unsafe impl<T: Send> Send for Receiver<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Receiver<T> {}
impl<T> UnwindSafe for Receiver<T> {}
impl<T> RefUnwindSafe for Receiver<T> {}

impl<T> Receiver<T> {
    #[inline]
    pub(crate) fn source(&self) -> Source<'_, T> {
        match &self.flavor {
            Flavor::Channel(end) => Source::Channel(&end.shared().channel),
            Flavor::Timer(timer) => Source::Timer(timer),
            Flavor::Never => Source::Never,
        }
    }

    /// The addresses of the channel, if it is one.
    pub(crate) fn layout(&self) -> Option<ChannelLayout> {
        match &self.flavor {
            Flavor::Channel(end) => Some(ChannelLayout(end.get().addr().get())),
            Flavor::Timer(_) | Flavor::Never => None,
        }
    }

    /// Sets the timer behind this receiver anew; see [`Timer::set`].
    pub(crate) fn set_timer(&self, next: Option<Instant>, period: Option<Duration>) -> bool {
        match self.source() {
            Source::Timer(timer) => timer.set(next, period),
            Source::Channel(_) | Source::Never => false,
        }
    }

    /// Stops the timer behind this receiver; else as [`set_timer`](Self::set_timer).
    pub(crate) fn disarm_timer(&self) -> bool {
        match self.source() {
            Source::Timer(timer) => timer.disarm(),
            Source::Channel(_) | Source::Never => false,
        }
    }

    /// When the timer behind this receiver is due next.
    pub(crate) fn timer_deadline(&self) -> Option<Instant> {
        match self.source() {
            Source::Timer(timer) => timer.deadline(),
            Source::Channel(_) | Source::Never => None,
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
        match self.source() {
            // SAFETY: `into_room` gives room for a `T`.
            Source::Channel(channel) => into_room(|room| unsafe { channel.receive(room, deadline) }),
            Source::Timer(timer) => timer.receive(deadline),
            Source::Never => {
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
        match self.source() {
            Source::Channel(channel) => {
                // SAFETY: `into_room` gives room for a `T`.
                into_room(|room| unsafe { channel.try_receive(room) }).map_err(|ended| match ended {
                    Ended::Closed => TryRecvError::Disconnected,
                    _ => TryRecvError::Empty,
                })
            }
            Source::Timer(timer) => timer.try_receive().ok_or(TryRecvError::Empty),
            Source::Never => Err(TryRecvError::Empty),
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
        match self.source() {
            Source::Channel(channel) => channel.is_closed(),
            Source::Timer(_) | Source::Never => false,
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
        match self.source() {
            Source::Channel(channel) => channel.len(),
            Source::Timer(timer) => timer.len(),
            Source::Never => 0,
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
        match self.source() {
            Source::Channel(channel) => channel.is_full(),
            Source::Timer(timer) => timer.len() == 1,
            Source::Never => true,
        }
    }

    /// How many values the buffer holds; none when it grows without bound.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn capacity(&self) -> Option<usize> {
        match self.source() {
            Source::Channel(channel) => channel.capacity(),
            Source::Timer(_) => Some(1),
            Source::Never => Some(0),
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
            Flavor::Channel(end) => {
                one_more(&end.shared().receivers);
                Flavor::Channel(*end)
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
        if let Flavor::Channel(end) = &self.flavor {
            let pointer = end.get();
            let shared = end.shared();
            if one_less(&shared.receivers) {
                let leave = Leave(pointer);
                if other_side_gone(shared) {
                    // SAFETY: this is the only end of the channel.
                    unsafe { shared.channel.clear() };
                } else {
                    shared.channel.deafen();
                }
                drop(leave);
            }
        }
    }
}

/// Leaves the channel even if a buffered value panics while it is dropped.
struct Leave<T>(NonNull<Shared<T>>);

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

#[cfg(not(loom))]
const _: () = assert!(mem::size_of::<Shared<u64>>() <= 160, "an unbuffered channel is one small allocation");
const _: () = assert!(mem::size_of::<Sender<u64>>() == mem::size_of::<*const ()>());
