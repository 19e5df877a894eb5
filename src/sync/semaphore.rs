//! `Semaphore`: a number of permits, given out first come, first served.
//!
//! - W1: permits free and the waiters' bit are one word. While the bit is set permits are taken and given under the gate only, so that nobody
//!   overtakes, not even a small request a large one (SM-01, SM-02).
//! - W2: a waiter leaves the queue with its permits in the same step; who withdraws looks whether those behind it can go on (SM-04).
//! - W3 (P3, last touch): giving back without waiters is one compare-exchange, the last touch. With waiters all happens under the gate. A grant
//!   that empties the queue clears the bit, and then others may take what is free by the word while the giver has still to leave the
//!   gate. They cannot free the semaphore meanwhile: only permits are given back, and a permit borrows the semaphore, or shares it by an
//!   `Arc`, until `give` has returned. (A `Mutex` has raw forms, which do not; see M3 there.)

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    context::{Context, ContextError},
    facade::{
        AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
    runtime::{
        park, present,
        until::{self, Until},
        wait::Reason,
        waitq::{Claimed, Node, Outcome, WaitQueue},
    },
    util::Lock,
};

const WAITERS: usize = 1;
/// One permit.
const ONE: usize = 2;

/// Gives out a number of permits; a caller that asks for more than are free waits in order. Go's `semaphore.Weighted`.
///
/// # Examples
///
/// ```
/// use oxigo::sync::Semaphore;
///
/// let memory = Semaphore::new(100);
/// let large = memory.acquire(70);
/// assert!(memory.try_acquire(40).is_none());
/// drop(large);
/// assert!(memory.try_acquire(40).is_some());
/// ```
pub struct Semaphore {
    size: usize,
    word: AtomicUsize,
    /// Guards `queue`. The place of a node says how many permits it asks for.
    gate: Lock<()>,
    queue: WaitQueue,
}

// SAFETY: the queue is reached under the gate only; its nodes belong to parties that wait until they are out of it (Q1).
unsafe impl Send for Semaphore {}
// SAFETY: as above.
unsafe impl Sync for Semaphore {}

impl Semaphore {
    /// The most permits that a semaphore can have: half of `usize::MAX`.
    pub const MAX_PERMITS: usize = usize::MAX / ONE;

    const_new! {
        /// A semaphore with `size` permits, all free.
        ///
        /// # Panics
        ///
        /// When `size` is more than [`MAX_PERMITS`](Self::MAX_PERMITS). In a `const` or `static` that is a compile-time error.
        ///
        /// # Blocking
        ///
        /// Never parks.
        pub fn new(size: usize) -> Self {
            assert!(size <= Self::MAX_PERMITS, "a semaphore has Semaphore::MAX_PERMITS permits at most, half of usize::MAX");
            Self { size, word: AtomicUsize::new(size * ONE), gate: Lock::new(()), queue: WaitQueue::new() }
        }
    }

    /// Takes `n` permits; they are given back when the [`Permit`] is dropped.
    ///
    /// # Examples
    ///
    /// See the [type](Semaphore).
    ///
    /// # Panics
    ///
    /// When `n` is more than the size: such a request can never be granted.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread, until `n` permits are free and all that came before have theirs.
    #[track_caller]
    pub fn acquire(&self, n: usize) -> Permit<'_> {
        let taken = self.take(n, Until::EVER);
        debug_assert!(taken);
        Permit { semaphore: self, n }
    }

    /// Takes `n` permits if they are free and nobody waits; otherwise returns `None`, also if `n` is more than the semaphore has, as Go's
    /// `TryAcquire` does.
    ///
    /// # Examples
    ///
    /// ```
    /// let places = oxigo::sync::Semaphore::new(1);
    /// let mine = places.try_acquire(1).unwrap();
    /// assert!(places.try_acquire(1).is_none());
    /// drop(mine);
    /// assert!(places.try_acquire(1).is_some());
    /// ```
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn try_acquire(&self, n: usize) -> Option<Permit<'_>> {
        self.try_take(n).then(|| Permit { semaphore: self, n })
    }

    /// Like [`acquire`](Self::acquire), but waits at most `timeout`.
    ///
    /// # Panics
    ///
    /// As `acquire`.
    ///
    /// # Blocking
    ///
    /// As `acquire`.
    #[track_caller]
    pub fn acquire_timeout(&self, n: usize, timeout: Duration) -> Option<Permit<'_>> {
        self.take(n, Until::deadline(present::after(timeout))).then(|| Permit { semaphore: self, n })
    }

    /// Like [`acquire`](Self::acquire), but waits until `deadline` at the latest.
    ///
    /// # Panics
    ///
    /// As `acquire`.
    ///
    /// # Blocking
    ///
    /// As `acquire`.
    #[track_caller]
    pub fn acquire_deadline(&self, n: usize, deadline: Instant) -> Option<Permit<'_>> {
        self.take(n, Until::deadline(Some(deadline))).then(|| Permit { semaphore: self, n })
    }

    /// Like [`acquire`](Self::acquire), but the permit holds an `Arc` of the semaphore, where the other one borrows it.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use oxigo::sync::Semaphore;
    ///
    /// let slots = Arc::new(Semaphore::new(2));
    /// for _ in 0..10 {
    ///     let slot = slots.acquire_owned(1);
    ///     oxigo::go(move || {
    ///         // … at most two at a time …
    ///         drop(slot);
    ///     });
    /// }
    /// ```
    ///
    /// # Panics
    ///
    /// As `acquire`.
    ///
    /// # Blocking
    ///
    /// As `acquire`.
    #[track_caller]
    pub fn acquire_owned(self: &Arc<Self>, n: usize) -> OwnedPermit {
        let taken = self.take(n, Until::EVER);
        debug_assert!(taken);
        self.owned(n)
    }

    /// Like [`try_acquire`](Self::try_acquire), but the permit holds an `Arc` of the semaphore, where the other one borrows it.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use oxigo::sync::Semaphore;
    ///
    /// let slots = Arc::new(Semaphore::new(2));
    /// let started = (0..10).filter(|_| match slots.try_acquire_owned(1) {
    ///     Some(slot) => {
    ///         oxigo::go(move || {
    ///             // … at most two at a time, and the rest is turned away …
    ///             drop(slot);
    ///         });
    ///         true
    ///     }
    ///     None => false,
    /// });
    /// assert!(started.count() >= 2);
    /// ```
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn try_acquire_owned(self: &Arc<Self>, n: usize) -> Option<OwnedPermit> {
        self.try_take(n).then(|| self.owned(n))
    }

    /// Like [`acquire_timeout`](Self::acquire_timeout), but the permit holds an `Arc` of the semaphore, where the other one borrows it.
    ///
    /// # Panics
    ///
    /// As `acquire`.
    ///
    /// # Blocking
    ///
    /// As `acquire`.
    #[track_caller]
    pub fn acquire_owned_timeout(self: &Arc<Self>, n: usize, timeout: Duration) -> Option<OwnedPermit> {
        self.take(n, Until::deadline(present::after(timeout))).then(|| self.owned(n))
    }

    /// Like [`acquire_deadline`](Self::acquire_deadline), but the permit holds an `Arc` of the semaphore, where the other one borrows it.
    ///
    /// # Panics
    ///
    /// As `acquire`.
    ///
    /// # Blocking
    ///
    /// As `acquire`.
    #[track_caller]
    pub fn acquire_owned_deadline(self: &Arc<Self>, n: usize, deadline: Instant) -> Option<OwnedPermit> {
        self.take(n, Until::deadline(Some(deadline))).then(|| self.owned(n))
    }

    /// For permits that have been taken.
    fn owned(self: &Arc<Self>, n: usize) -> OwnedPermit {
        OwnedPermit { semaphore: Arc::clone(self), n }
    }

    /// Like [`acquire`](Self::acquire), but gives up when `ctx` ends. If the context has ended already, permits that are free are not taken.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::{context::{Context, ContextError}, sync::Semaphore};
    ///
    /// let places = Semaphore::new(1);
    /// let (ctx, cancel) = Context::background().with_cancel();
    /// let _mine = places.acquire_ctx(1, &ctx)?;
    /// oxigo::go(move || cancel.cancel());
    /// assert_eq!(places.acquire_ctx(1, &ctx).unwrap_err(), ContextError::Canceled);
    /// # Ok::<(), ContextError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Why the context has ended; then no permits were taken, and those who wait behind can go on.
    ///
    /// # Panics
    ///
    /// As `acquire`.
    ///
    /// # Blocking
    ///
    /// As `acquire`.
    #[track_caller]
    pub fn acquire_ctx(&self, n: usize, ctx: &Context) -> Result<Permit<'_>, ContextError> {
        self.take_ctx(n, ctx)?;
        Ok(Permit { semaphore: self, n })
    }

    /// Like [`acquire_ctx`](Self::acquire_ctx), but the permit holds an `Arc` of the semaphore, where the other one borrows it.
    ///
    /// # Errors
    ///
    /// As `acquire_ctx`.
    ///
    /// # Panics
    ///
    /// As `acquire`.
    ///
    /// # Blocking
    ///
    /// As `acquire`.
    #[track_caller]
    pub fn acquire_owned_ctx(self: &Arc<Self>, n: usize, ctx: &Context) -> Result<OwnedPermit, ContextError> {
        self.take_ctx(n, ctx)?;
        Ok(self.owned(n))
    }

    #[track_caller]
    fn take_ctx(&self, n: usize, ctx: &Context) -> Result<(), ContextError> {
        ctx.check().inspect_err(|_| park::spend())?;
        if self.take(n, ctx.until()) { Ok(()) } else { Err(ctx.why_ended()) }
    }

    /// How many permits are free.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn available(&self) -> usize {
        // ORDERING: Relaxed. Says how it was.
        self.word.load(Relaxed) / ONE
    }

    fn try_take(&self, n: usize) -> bool {
        // ORDERING: Relaxed. The compare-exchange decides.
        let mut word = self.word.load(Relaxed);
        while word & WAITERS == 0 && word / ONE >= n {
            // ORDERING: Acquire. Takes over what was done under the permits before (HB-15); pairs with the Release in `give`.
            match self.word.compare_exchange_weak(word, word - n * ONE, Acquire, Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    #[track_caller]
    fn take(&self, n: usize, until: Until<'_>) -> bool {
        assert!(n <= self.size, "a request for {n} can never be granted: the semaphore's size is {}", self.size);
        park::spend();
        self.try_take(n) || self.take_slow(n, until)
    }

    #[cold]
    fn take_slow(&self, n: usize, until: Until<'_>) -> bool {
        let unit = park::current();
        let ticket = until.arm(unit);
        let node = Node::new(unit, ticket, std::ptr::from_ref(&n).cast_mut().cast());
        let gate = self.gate.lock();
        // ORDERING: Relaxed. The compare-exchange decides.
        let mut word = self.word.load(Relaxed);
        loop {
            let free = word & WAITERS == 0 && word / ONE >= n;
            let next = if free { word - n * ONE } else { word | WAITERS };
            // ORDERING: Acquire, as in `try_take`. Queueing publishes nothing by the word: the gate does.
            match self.word.compare_exchange(word, next, Acquire, Relaxed) {
                Ok(_) if free => {
                    drop(gate);
                    until::disarm(unit, ticket);
                    return true;
                }
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        // SAFETY: the node stays in this frame until it is out of the queue.
        unsafe { self.queue.push(&node) };
        drop(gate);
        if until.park(&node, ticket, Reason::Semaphore.on(self)) {
            return true;
        }
        let gate = self.gate.lock();
        self.queue.remove(&node);
        // A release that took it out as lost may have cleared the bit; then nobody waits.
        // ORDERING: Relaxed. With the gate, the bit stays as it is (W1).
        let waited = self.word.load(Relaxed) & WAITERS != 0;
        let granted = if waited { self.grant(0) } else { Claimed::none() };
        drop(gate);
        granted.wake();
        false
    }

    /// Gives permits to those in front, as far as they reach. Called with the gate, while `WAITERS` is set (W1: nobody else writes the word).
    fn grant(&self, given: usize) -> Claimed {
        // ORDERING: Relaxed. As above.
        let mut free = self.word.load(Relaxed) / ONE + given;
        let mut granted = Claimed::none();
        while let Some(place) = self.queue.first_place() {
            // SAFETY: its owner is in the queue and cannot leave before it has the gate; the number stands in its frame (Q1).
            let n = unsafe { *place.cast::<usize>() };
            if n > free {
                break;
            }
            if self.queue.claim_front_into(Outcome::Done, &mut granted) {
                free -= n;
            }
        }
        let waiters = if self.queue.is_empty() { 0 } else { WAITERS };
        // ORDERING: Release. Publishes what was done under the permits to those who take them by the word alone.
        self.word.store((free * ONE) | waiters, Release);
        granted
    }

    fn give(&self, n: usize) {
        let _p4 = park::no_switch();
        // ORDERING: Relaxed. The compare-exchange decides.
        let mut word = self.word.load(Relaxed);
        loop {
            if word & WAITERS == 0 {
                // ORDERING: Release. Publishes what was done under the permits (HB-15). The last touch (W3).
                match self.word.compare_exchange_weak(word, word + n * ONE, Release, Relaxed) {
                    Ok(_) => return,
                    Err(now) => word = now,
                }
                continue;
            }
            let gate = self.gate.lock();
            // ORDERING: Relaxed. With the gate, the bit stays as it is (W1).
            word = self.word.load(Relaxed);
            if word & WAITERS == 0 {
                // They left in the meantime.
                drop(gate);
                continue;
            }
            let granted = self.grant(n);
            drop(gate);
            return granted.wake();
        }
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // ORDERING: Relaxed. Says how it was.
        let word = self.word.load(Relaxed);
        f.debug_struct("Semaphore")
            .field("size", &self.size)
            .field("available", &(word / ONE))
            .field("waiters", &(word & WAITERS != 0))
            .finish()
    }
}

/// Permits of a [`Semaphore`], given back when this is dropped.
///
/// # Examples
///
/// See [`Semaphore`].
#[must_use = "dropping the permit gives it back"]
#[derive(Debug)]
pub struct Permit<'a> {
    semaphore: &'a Semaphore,
    n: usize,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.semaphore.give(self.n);
    }
}

/// Permits of a [`Semaphore`] behind an `Arc`, given back when this is dropped.
///
/// # Examples
///
/// See [`Semaphore::acquire_owned`].
#[must_use = "dropping the permit gives it back"]
#[derive(Debug)]
pub struct OwnedPermit {
    semaphore: Arc<Semaphore>,
    n: usize,
}

impl Drop for OwnedPermit {
    fn drop(&mut self) {
        self.semaphore.give(self.n);
    }
}
