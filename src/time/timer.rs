//! `Timer` and `Ticker`: receivers of the time that can be stopped and set anew.
//!
//! A timer's receiver is passive (`chan::timer`): a deadline under a lock, looked at by those who receive. So stopping and setting anew are
//! one step under that lock, truthful in every race: a value is due and unread, or it is not.

use std::{
    fmt,
    time::{Duration, Instant},
};

use crate::chan::{Receiver, make};
use crate::runtime::present;

/// Sends the time once, after a duration; Go's `time.Timer`.
///
/// Every method takes `&self`, from any goroutine or thread. Dropping the timer disarms it, also for clones of its receiver. The value is the
/// time at which the timer fired, however late it is read. The channel never closes.
///
/// An arm of `select!` takes the timer itself: `recv(timer)` is `recv(timer.receiver())`.
///
/// # Examples
///
/// ```
/// use oxigo::time::Timer;
/// use std::time::Duration;
///
/// let (_tx, requests) = oxigo::unbuffered::<u32>();
/// let idle = Timer::new(Duration::from_millis(2));
/// oxigo::select! {
///     recv(requests) -> request => panic!("{request:?}"),
///     recv(idle) -> fired => println!("nothing to do since {:?}", fired.unwrap()),
/// }
/// // Fired and read: nothing was stopped by setting it anew.
/// assert!(!idle.reset(Duration::from_secs(3600)));
/// assert!(idle.stop());
/// ```
pub struct Timer {
    receiver: Receiver<Instant>,
}

impl Timer {
    /// A timer that fires after `duration`; if that is too long for the clock, it never fires.
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[must_use = "dropping the timer disarms it"]
    pub fn new(duration: Duration) -> Self {
        Self { receiver: make::timer(present::after(duration), None) }
    }

    /// The receiver of the time.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn receiver(&self) -> &Receiver<Instant> {
        &self.receiver
    }

    /// Disarms the timer. Returns true if that has kept a value from being received: if the timer was armed, or had fired and its value was not
    /// received yet.
    ///
    /// No value can be received after this returns, until the timer is [reset](Self::reset). Whoever waits on the receiver goes on waiting.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn stop(&self) -> bool {
        self.receiver.disarm_timer()
    }

    /// Makes the timer fire after `duration` from now. Returns what [`stop`](Self::stop) would have returned.
    ///
    /// No value of the old setting can be received after this returns. Whoever waits on the receiver waits for the new time.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn reset(&self, duration: Duration) -> bool {
        self.receiver.set_timer(present::after(duration), None)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer").field("fires_in", &fires_in(&self.receiver)).finish()
    }
}

/// Sends the time again and again, a period apart; Go's `time.Ticker`.
///
/// A slow receiver loses ticks: at most one waits to be received, and later ticks still come at whole multiples of the period. Each value is the time
/// at which its tick was due. Every method takes `&self`. Dropping the ticker stops it, also for clones of its receiver. The channel never closes.
///
/// An arm of `select!` takes the ticker itself: `recv(ticker)` is `recv(ticker.receiver())`.
///
/// # Examples
///
/// ```
/// use oxigo::time::Ticker;
/// use std::time::Duration;
///
/// let ticker = Ticker::new(Duration::from_millis(2));
/// let first = ticker.receiver().recv().unwrap();
/// let second = ticker.receiver().recv().unwrap();
/// assert!(second - first >= Duration::from_millis(2));
/// ticker.stop();
/// ```
pub struct Ticker {
    receiver: Receiver<Instant>,
}

impl Ticker {
    /// A ticker whose first tick is due after one `period`.
    ///
    /// # Panics
    ///
    /// When the period is zero.
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[must_use = "dropping the ticker stops it"]
    #[track_caller]
    pub fn new(period: Duration) -> Self {
        Self { receiver: make::timer(first_tick(period), Some(period)) }
    }

    /// The receiver of the ticks.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn receiver(&self) -> &Receiver<Instant> {
        &self.receiver
    }

    /// Stops the ticks, and drops one that has not been received. Whoever waits on the receiver goes on waiting; [`reset`](Self::reset) starts the
    /// ticks again.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn stop(&self) {
        self.receiver.disarm_timer();
    }

    /// Makes a tick come every `period` from now on. No tick of the old setting can be received after this returns.
    ///
    /// # Panics
    ///
    /// When the period is zero.
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[track_caller]
    pub fn reset(&self, period: Duration) {
        self.receiver.set_timer(first_tick(period), Some(period));
    }
}

#[track_caller]
fn first_tick(period: Duration) -> Option<Instant> {
    assert!(!period.is_zero(), "a ticker's period must not be zero");
    present::after(period)
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Ticker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticker").field("ticks_in", &fires_in(&self.receiver)).finish()
    }
}

/// The time left, zero when due; none when disarmed.
fn fires_in(receiver: &Receiver<Instant>) -> Option<Duration> {
    receiver.timer_deadline().map(|next| next.saturating_duration_since(present::now()))
}
