//! `Condvar`: waits under a mutex until somebody says that things have changed.
//!
//! - D1: a waiter is in the queue before it lets go of the mutex. So whoever takes the mutex after it finds it there (CO-01).
//! - D2: a wait ends by a notification that took its node out of the queue, by its time limit or its context, and for no other reason
//!   (CO-04). A notification that finds the wait ended by those goes to the next.
//! - D3: the mutex of those who wait is noted with the first of them and forgotten with the last; another one panics.
//! - D4 (P3): a notification leaves the lock before it wakes; it touches the condition variable only while those it will wake wait.

use std::{
    fmt,
    time::{Duration, Instant},
};

use super::mutex::RawMutex;
use crate::{
    runtime::{
        park::{self, Wake},
        until::{self, Until},
        wait::Reason,
        waitq::{Node, Outcome, WaitQueue},
    },
    util::Lock,
};

/// Lets goroutines and threads wait, under a [`Mutex`](super::Mutex), until another one says that things have changed. Go's `sync.Cond`,
/// with `parking_lot`'s interface.
///
/// Waiters are notified in the order in which they began to wait. A wait ends only by a notification, its time limit or its context. Still, the
/// condition has to be checked again, since others may have held the lock in between.
///
/// # Examples
///
/// ```
/// use oxigo::sync::{Condvar, Mutex};
///
/// let (ready, changed) = (Mutex::new(false), Condvar::new());
/// oxigo::scope(|s| {
///     s.go(|| {
///         *ready.lock() = true;
///         changed.notify_one();
///     });
///     let mut ready = ready.lock();
///     while !*ready {
///         changed.wait(&mut ready);
///     }
/// });
/// ```
pub struct Condvar {
    state: Lock<State>,
}

struct State {
    queue: WaitQueue,
    /// The address of the mutex of those who wait: to compare, not to follow (D3).
    mutex: usize,
}

impl Condvar {
    const_new! {
        /// A condition variable that nobody waits on.
        ///
        /// # Examples
        ///
        /// ```
        /// static CHANGED: oxigo::sync::Condvar = oxigo::sync::Condvar::new();
        /// assert!(!CHANGED.notify_one());
        /// ```
        ///
        /// # Blocking
        ///
        /// Never parks.
        pub fn new() -> Self {
            Self { state: Lock::new(State { queue: WaitQueue::new(), mutex: 0 }) }
        }
    }

    /// Notifies the party that has waited longest. Returns whether there was one.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(!oxigo::sync::Condvar::new().notify_one());
    /// ```
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn notify_one(&self) -> bool {
        let _p4 = park::no_switch();
        let state = self.state.lock();
        let Some(first) = state.queue.claim_first() else { return false };
        let unit = first.complete(Outcome::Done);
        drop(state);
        unit.wake(Wake::Queue);
        true
    }

    /// Notifies all who wait now. Returns how many there were.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(oxigo::sync::Condvar::new().notify_all(), 0);
    /// ```
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn notify_all(&self) -> usize {
        let _p4 = park::no_switch();
        let state = self.state.lock();
        let all = state.queue.claim_all(Outcome::Done);
        drop(state);
        let count = all.len();
        all.wake();
        count
    }

    /// Lets go of `mutex`, waits for a notification until `until`, and takes `mutex` again. True when notified.
    ///
    /// The caller holds `mutex`, and holds it again afterwards.
    #[track_caller]
    pub(crate) fn wait_raw(&self, mutex: &RawMutex, until: Until<'_>) -> bool {
        let unit = park::current();
        let address = std::ptr::from_ref(mutex).addr();
        let ticket = until.arm(unit);
        let node = Node::new(unit, ticket, std::ptr::null_mut());
        let mut state = self.state.lock();
        if state.queue.is_empty() {
            state.mutex = address;
        } else if state.mutex != address {
            drop(state);
            until::disarm(unit, ticket);
            panic!("attempted to use a condition variable with more than one mutex");
        }
        // SAFETY: the node stays in this frame until it is out of the queue.
        unsafe { state.queue.push(&node) };
        drop(state);
        // SAFETY: the caller holds it and lets us. D1: we are in the queue.
        unsafe { mutex.release() };
        let notified = until.park(&node, ticket, Reason::Condvar.on(self));
        if !notified {
            self.state.lock().queue.remove(&node);
        }
        mutex.acquire_again();
        notified
    }
}

#[cfg(not(loom))]
mod api {
    use super::{Condvar, Duration, Instant, Until, park};
    use crate::{
        context::{Context, ContextError},
        runtime::present,
        sync::MutexGuard,
    };

    impl Condvar {
        /// Unlocks the mutex, waits for a notification, and locks the mutex again.
        ///
        /// A notification by anybody who has locked the mutex after this began to wait is not missed.
        ///
        /// # Examples
        ///
        /// See the [type](Condvar).
        ///
        /// # Panics
        ///
        /// When others wait on this condition variable with another mutex.
        ///
        /// # Blocking
        ///
        /// Parks the goroutine, or blocks the thread.
        #[track_caller]
        pub fn wait<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>) {
            let notified = self.wait_ended(guard, Until::EVER);
            debug_assert!(notified);
        }

        /// Like [`wait`](Self::wait), but waits until `deadline` at the latest.
        ///
        /// # Examples
        ///
        /// ```
        /// use oxigo::sync::{Condvar, Mutex};
        ///
        /// let (value, changed) = (Mutex::new(0), Condvar::new());
        /// assert!(changed.wait_until(&mut value.lock(), std::time::Instant::now()).timed_out());
        /// ```
        ///
        /// # Panics
        ///
        /// As `wait`.
        ///
        /// # Blocking
        ///
        /// As `wait`. Locking the mutex again may take longer than the time limit.
        #[track_caller]
        pub fn wait_until<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>, deadline: Instant) -> WaitTimeoutResult {
            WaitTimeoutResult(!self.wait_ended(guard, Until::deadline(Some(deadline))))
        }

        /// Like [`wait`](Self::wait), but waits at most `timeout`.
        ///
        /// # Examples
        ///
        /// ```
        /// use oxigo::sync::{Condvar, Mutex};
        ///
        /// let (value, changed) = (Mutex::new(0), Condvar::new());
        /// assert!(changed.wait_for(&mut value.lock(), std::time::Duration::from_millis(1)).timed_out());
        /// ```
        ///
        /// # Panics
        ///
        /// As `wait`.
        ///
        /// # Blocking
        ///
        /// As `wait`.
        #[track_caller]
        pub fn wait_for<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>, timeout: Duration) -> WaitTimeoutResult {
            WaitTimeoutResult(!self.wait_ended(guard, Until::deadline(present::after(timeout))))
        }

        /// Waits as long as `condition` is true of the value.
        ///
        /// # Examples
        ///
        /// ```
        /// use oxigo::sync::{Condvar, Mutex};
        ///
        /// let (left, changed) = (Mutex::new(3), Condvar::new());
        /// oxigo::scope(|s| {
        ///     for _ in 0..3 {
        ///         s.go(|| {
        ///             *left.lock() -= 1;
        ///             changed.notify_one();
        ///         });
        ///     }
        ///     changed.wait_while(&mut left.lock(), |left| *left > 0);
        /// });
        /// assert_eq!(*left.lock(), 0);
        /// ```
        ///
        /// # Panics
        ///
        /// As `wait`.
        ///
        /// # Blocking
        ///
        /// As `wait`.
        #[track_caller]
        pub fn wait_while<T, F>(&self, guard: &mut MutexGuard<'_, T>, mut condition: F)
        where
            T: ?Sized,
            F: FnMut(&mut T) -> bool,
        {
            while condition(&mut **guard) {
                self.wait(guard);
            }
        }

        /// Like [`wait_while`](Self::wait_while), but waits until `deadline` at the latest. The result says whether the time had passed; in that case
        /// the condition is not checked again.
        ///
        /// # Examples
        ///
        /// ```
        /// use oxigo::sync::{Condvar, Mutex};
        ///
        /// let (left, changed) = (Mutex::new(0), Condvar::new());
        /// assert!(!changed.wait_while_until(&mut left.lock(), |left| *left > 0, std::time::Instant::now()).timed_out());
        /// ```
        ///
        /// # Panics
        ///
        /// As `wait`.
        ///
        /// # Blocking
        ///
        /// As `wait`.
        #[track_caller]
        pub fn wait_while_until<T, F>(
            &self,
            guard: &mut MutexGuard<'_, T>,
            condition: F,
            deadline: Instant,
        ) -> WaitTimeoutResult
        where
            T: ?Sized,
            F: FnMut(&mut T) -> bool,
        {
            self.wait_while_deadline(guard, condition, Some(deadline))
        }

        /// Like [`wait_while`](Self::wait_while), but waits at most `timeout`. The result says whether the time had passed; in that case the
        /// condition is not checked again.
        ///
        /// # Examples
        ///
        /// ```
        /// use oxigo::sync::{Condvar, Mutex};
        ///
        /// let (left, changed) = (Mutex::new(1), Condvar::new());
        /// let limit = std::time::Duration::from_millis(1);
        /// assert!(changed.wait_while_for(&mut left.lock(), |left| *left > 0, limit).timed_out());
        /// ```
        ///
        /// # Panics
        ///
        /// As `wait`.
        ///
        /// # Blocking
        ///
        /// As `wait`.
        #[track_caller]
        pub fn wait_while_for<T, F>(
            &self,
            guard: &mut MutexGuard<'_, T>,
            condition: F,
            timeout: Duration,
        ) -> WaitTimeoutResult
        where
            T: ?Sized,
            F: FnMut(&mut T) -> bool,
        {
            self.wait_while_deadline(guard, condition, present::after(timeout))
        }

        /// Like [`wait`](Self::wait), but gives up when `ctx` ends. The mutex is locked again in either case.
        ///
        /// # Examples
        ///
        /// ```
        /// use oxigo::{context::{Context, ContextError}, sync::{Condvar, Mutex}};
        ///
        /// let (value, changed) = (Mutex::new(0), Condvar::new());
        /// let (ctx, cancel) = Context::background().with_cancel();
        /// oxigo::go(move || cancel.cancel());
        /// assert_eq!(changed.wait_ctx(&mut value.lock(), &ctx), Err(ContextError::Canceled));
        /// ```
        ///
        /// # Errors
        ///
        /// Why the context has ended, if it did so before a notification came; no notification is used up then.
        ///
        /// # Panics
        ///
        /// As `wait`.
        ///
        /// # Blocking
        ///
        /// As `wait`. Locking the mutex again may take longer than until the end of the context.
        #[track_caller]
        pub fn wait_ctx<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>, ctx: &Context) -> Result<(), ContextError> {
            // Nobody else could change what a loop around this asks for, if the lock stayed held.
            ctx.check().inspect_err(|_| MutexGuard::unlocked(guard, park::spend))?;
            if self.wait_ended(guard, ctx.until()) { Ok(()) } else { Err(ctx.why_ended()) }
        }

        /// Like [`wait_while`](Self::wait_while), but gives up when `ctx` ends.
        ///
        /// # Examples
        ///
        /// ```
        /// use oxigo::{context::Context, sync::{Condvar, Mutex}};
        /// use std::time::Duration;
        ///
        /// let (left, changed) = (Mutex::new(1), Condvar::new());
        /// let (ctx, _cancel) = Context::background().with_timeout(Duration::from_millis(1));
        /// assert!(changed.wait_while_ctx(&mut left.lock(), |left| *left > 0, &ctx).unwrap_err().is_timeout());
        /// ```
        ///
        /// # Errors
        ///
        /// As [`wait_ctx`](Self::wait_ctx). None if the condition is false on entry.
        ///
        /// # Panics
        ///
        /// As `wait`.
        ///
        /// # Blocking
        ///
        /// As `wait_ctx`.
        #[track_caller]
        pub fn wait_while_ctx<T, F>(
            &self,
            guard: &mut MutexGuard<'_, T>,
            mut condition: F,
            ctx: &Context,
        ) -> Result<(), ContextError>
        where
            T: ?Sized,
            F: FnMut(&mut T) -> bool,
        {
            while condition(&mut **guard) {
                self.wait_ctx(guard, ctx)?;
            }
            Ok(())
        }

        #[track_caller]
        fn wait_while_deadline<T, F>(
            &self,
            guard: &mut MutexGuard<'_, T>,
            mut condition: F,
            deadline: Option<Instant>,
        ) -> WaitTimeoutResult
        where
            T: ?Sized,
            F: FnMut(&mut T) -> bool,
        {
            let mut notified = true;
            while notified && condition(&mut **guard) {
                notified = self.wait_ended(guard, Until::deadline(deadline));
            }
            WaitTimeoutResult(!notified)
        }

        #[track_caller]
        fn wait_ended<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>, until: Until<'_>) -> bool {
            // SAFETY: the raw mutex is released and taken again, while the exclusive borrow of the guard keeps the value out of reach; at
            // the return it is held as the guard says.
            let mutex = unsafe { MutexGuard::mutex(guard).raw() };
            self.wait_raw(mutex, until)
        }
    }

    /// Whether a wait with a time limit ended because the time had passed.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::sync::{Condvar, Mutex};
    ///
    /// let value = Mutex::new(());
    /// let result = Condvar::new().wait_until(&mut value.lock(), std::time::Instant::now());
    /// assert!(result.timed_out());
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct WaitTimeoutResult(bool);

    impl WaitTimeoutResult {
        /// Whether the time had passed.
        ///
        /// # Blocking
        ///
        /// Never parks.
        #[inline]
        pub fn timed_out(self) -> bool {
            self.0
        }
    }
}

#[cfg(not(loom))]
pub use api::WaitTimeoutResult;

impl Default for Condvar {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condvar").finish_non_exhaustive()
    }
}
