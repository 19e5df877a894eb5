//! `Mutex`: mutual exclusion, the next in order when somebody has waited long.
//!
//! The word says whether the lock is held and whether anybody waits; the queue of those who wait stands beside it, behind a small lock of
//! its own, the *gate*. Locking and unlocking are one compare-exchange each while nobody waits.
//!
//! # The word
//!
//! | bit | set | when |
//! |---|---|---|
//! | `LOCKED` | by the new holder, or by the one who hands over | somebody holds the lock |
//! | `WAITERS` | under the gate, with the push of a node | the queue may hold nodes |
//! | `WOKEN` | by an unlock that woke a waiter | one waiter is on its way to the lock: further unlocks wake nobody. It takes the lock, or goes back to the front of the queue, and clears the bit in that step |
//! | `STARVING` | under the gate, by a woken waiter that came too late and has waited for more than 1 ms, or by an unlock that finds a woken waiter on its way for that long | unlocks hand over to the first in the queue. Never without `LOCKED` |
//! | `WHEN` | with `WOKEN` | the tick of the coarse clock in which that one was woken |
//! | `PLACE` | with `LOCKED` | the holder's [`place`](park::place): a waiter of the same worker does not spin for it |
//!
//! # What always holds
//!
//! - M1: while `LOCKED` is set, others than the holder change the word only under the gate. So the holder, once it has the gate, is the only
//!   writer.
//! - M2: `WAITERS` is clear only if the queue is empty, for everybody who holds the gate.
//! - M3 (P3, last touch): after the step that lets the next party have the lock, an unlock touches the mutex only while it holds the claim
//!   on a waiter that it has not woken yet: that one borrows the mutex and cannot go on. When it has found nobody to wake, it leaves the
//!   gate first, and the compare-exchange that clears `LOCKED` is its last touch.
//! - M4: no wake is lost. A waiter sets `WAITERS` in the same step in which it sees `LOCKED`; the unlock that clears `LOCKED` sees it, and
//!   wakes the first waiter, hands over to it, or sees `WOKEN`: then that waiter comes by and the unlock after it looks again.
//! - M5: newcomers may overtake a waiter for about 1 ms, which keeps the lock with a worker that runs, and no longer: then the lock is
//!   handed over in order until somebody gets it who has waited for less, or the queue is empty. A woken waiter may have to queue for its
//!   worker; the others do not wait for that (`WHEN`).
//!
//! A newcomer backs off without looking before it queues, unless the holder belongs to its own worker (then the holder cannot run while it
//! spins) or the lock is being handed over.

use std::time::{Duration, Instant};

use crate::{
    facade::{
        AtomicU32,
        Ordering::{Acquire, Relaxed, Release},
    },
    runtime::{
        park::{self, Wake},
        until::{self, Until},
        wait::Reason,
        waitq::{Node, Outcome, WaitQueue},
    },
    util::{Lock, backoff::Backoff},
};

const LOCKED: u32 = 1;
const WAITERS: u32 = 2;
const WOKEN: u32 = 4;
const STARVING: u32 = 8;
const WHEN: u32 = 0xFFF0;
const PLACE: u32 = 0xFFFF_0000;

/// What an unlock that wakes nobody leaves of the word.
const LEFT_BEHIND: u32 = WAITERS | WOKEN | WHEN;

/// How long a waiter may be overtaken.
const PATIENCE: Duration = Duration::from_millis(1);

/// Whether one who has waited since then has waited too long. In a model, at once: time does not pass there.
pub(super) fn out_of_patience(since: Instant) -> bool {
    cfg!(loom) || since.elapsed() >= PATIENCE
}

/// The tick that passes now, in its bits of the word.
#[inline]
fn when() -> u32 {
    (park::tick() << WHEN.trailing_zeros()) & WHEN
}

/// Whether the one that was woken should have come by now. The bits turn over every four seconds; at worst this says no once more then.
#[inline]
fn is_overdue(word: u32) -> bool {
    when().wrapping_sub(word & WHEN) & WHEN >= 2 << WHEN.trailing_zeros()
}

/// Whether an unlock that finds this word has only to clear `LOCKED`: nobody waits, or a waiter is on its way and nobody starves.
#[inline]
fn nobody_to_wake(word: u32) -> bool {
    word & (WAITERS | STARVING) == 0 || (word & (WOKEN | STARVING) == WOKEN && !is_overdue(word))
}

/// Whom an unlock prefers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Whoever comes first, newcomers included, until somebody starves.
    Free,
    /// The first in the queue.
    Fair,
}

/// The lock without a value, for the types of [`lock_api`](https://docs.rs/lock_api/0.4/lock_api/). What programs use is [`Mutex`].
pub struct RawMutex {
    word: AtomicU32,
    /// Guards `queue`. Under it: a few loads and stores, claims, no wake (L1).
    gate: Lock<()>,
    queue: WaitQueue,
}

// SAFETY: the queue is reached under the gate only; its nodes belong to parties that wait until they are out of it (Q1).
unsafe impl Send for RawMutex {}
// SAFETY: as above.
unsafe impl Sync for RawMutex {}

impl RawMutex {
    const_new! {
        /// Not locked.
        pub(crate) fn new() -> Self {
            Self { word: AtomicU32::new(0), gate: Lock::new(()), queue: WaitQueue::new() }
        }
    }

    #[inline]
    pub(crate) fn acquire(&self) {
        // Before, not after: whoever yields here must not hold the lock.
        park::spend();
        self.acquire_unspent();
    }

    #[inline]
    fn acquire_unspent(&self) {
        let me = park::place();
        if !self.try_once(me) {
            let taken = self.acquire_slow(me, Until::EVER);
            debug_assert!(taken, "a wait without a limit ends with the lock");
        }
    }

    /// One attempt, which also overtakes those who wait. To look first is cheap, and a compare-exchange that fails is not: in a fight
    /// somebody always waits, so that the word of a free lock is not 0.
    #[inline]
    fn try_once(&self, me: u32) -> bool {
        // ORDERING: Relaxed. The compare-exchange decides.
        let word = self.word.load(Relaxed);
        // ORDERING: Acquire. Takes over what the last holder wrote; pairs with the Release in `release`.
        word & LOCKED == 0 && self.word.compare_exchange(word, word | LOCKED | me, Acquire, Relaxed).is_ok()
    }

    /// As `acquire`, after a park: what the caller spends has been spent.
    pub(super) fn acquire_again(&self) {
        self.acquire_unspent();
    }

    /// False when `until` came first.
    #[inline]
    pub(crate) fn acquire_until(&self, until: Until<'_>) -> bool {
        park::spend();
        let me = park::place();
        self.try_once(me) || self.acquire_slow(me, until)
    }

    #[inline]
    pub(crate) fn try_acquire(&self) -> bool {
        let me = park::place();
        // ORDERING: Relaxed. The compare-exchange decides.
        let mut word = self.word.load(Relaxed);
        while word & LOCKED == 0 {
            // ORDERING: Acquire, as in `acquire`. A failed attempt gives no edge (HB-08).
            match self.word.compare_exchange_weak(word, word | LOCKED | me, Acquire, Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    #[inline]
    pub(crate) fn is_held(&self) -> bool {
        // ORDERING: Relaxed. Says how it was, and publishes nothing.
        self.word.load(Relaxed) & LOCKED != 0
    }

    #[cold]
    fn acquire_slow(&self, me: u32, until: Until<'_>) -> bool {
        if self.spin(me, 0) {
            return true;
        }
        let unit = park::current();
        let since = Instant::now();
        // What changes with each wake in vain: whether `WOKEN` and `WHEN` are ours, and whether we starve.
        let (mut mine, mut mark) = (0, 0);
        loop {
            let ticket = until.arm(unit);
            let node = Node::new(unit, ticket, std::ptr::null_mut());
            if self.acquire_or_queue(me, &node, mine, mark) {
                until::disarm(unit, ticket);
                return true;
            }
            if !until.park(&node, ticket, Reason::Mutex.on(self)) {
                self.leave_queue(&node);
                return false;
            }
            if node.outcome() == Outcome::Done {
                if !out_of_patience(since) {
                    self.calm();
                }
                return true;
            }
            mine = WOKEN | WHEN;
            if self.spin(me, mine) {
                return true;
            }
            if out_of_patience(since) {
                mark = STARVING;
            }
        }
    }

    /// Tries, backing off in between. Takes `clear` out of the word when it takes the lock.
    fn spin(&self, me: u32, clear: u32) -> bool {
        let mut backoff = Backoff::new();
        loop {
            // ORDERING: Relaxed. The compare-exchange decides.
            let word = self.word.load(Relaxed);
            if word & LOCKED == 0 {
                // ORDERING: Acquire, as in `acquire`.
                if self.word.compare_exchange(word, (word & !clear) | LOCKED | me, Acquire, Relaxed).is_ok() {
                    return true;
                }
            } else if word & STARVING != 0 || (me != 0 && word & PLACE == me) {
                return false;
            }
            if !backoff.pause() {
                return false;
            }
        }
    }

    /// Takes the lock, or puts `node` into the queue, in one step of the word: M4. `mine` goes out of the word either way.
    fn acquire_or_queue(&self, me: u32, node: &Node, mine: u32, mark: u32) -> bool {
        let _gate = self.gate.lock();
        // ORDERING: Relaxed. The compare-exchange decides.
        let mut word = self.word.load(Relaxed);
        loop {
            let free = word & LOCKED == 0;
            let next = (word & !mine) | if free { LOCKED | me } else { WAITERS | mark };
            // ORDERING: Acquire, as in `acquire`. Queueing publishes nothing by the word: the gate does.
            match self.word.compare_exchange(word, next, Acquire, Relaxed) {
                Ok(_) if free => return true,
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        if mine == 0 {
            // SAFETY: the caller keeps the node in its frame until it is out of the queue.
            unsafe { self.queue.push(node) };
        } else {
            // SAFETY: as above.
            unsafe { self.queue.push_front(node) };
        }
        false
    }

    /// Takes the node of a wait that has ended without the lock back.
    #[cold]
    fn leave_queue(&self, node: &Node) {
        let _gate = self.gate.lock();
        self.queue.remove(node);
        if self.queue.is_empty() {
            // ORDERING: Relaxed. Under the gate (M2); nothing is published.
            self.word.fetch_and(!(WAITERS | STARVING), Relaxed);
        }
    }

    /// Ends handing over: the new holder did not wait long. Called by the holder.
    fn calm(&self) {
        let _gate = self.gate.lock();
        // ORDERING: Relaxed. We hold the lock and the gate (M1); nothing is published.
        let word = self.word.load(Relaxed);
        self.word.store(word & !STARVING, Relaxed);
    }

    /// Lets go.
    ///
    /// # Safety
    ///
    /// The lock is held, and whoever holds it lets the caller do this.
    #[inline]
    pub(crate) unsafe fn release(&self) {
        // ORDERING: Relaxed. The compare-exchange decides.
        let word = self.word.load(Relaxed);
        // ORDERING: Release. Publishes what was written under the lock; pairs with the Acquires of those who lock. The last touch (M3).
        if !nobody_to_wake(word) || self.word.compare_exchange(word, word & LEFT_BEHIND, Release, Relaxed).is_err() {
            // SAFETY: by the caller.
            unsafe { self.release_slow(Manner::Free) };
        }
    }

    /// # Safety
    ///
    /// As [`release`](Self::release).
    #[cold]
    unsafe fn release_slow(&self, manner: Manner) {
        let _p4 = park::no_switch();
        loop {
            // ORDERING: Relaxed. The compare-exchange, or the gate, decides.
            let word = self.word.load(Relaxed);
            if word & WAITERS == 0 || (manner == Manner::Free && nobody_to_wake(word)) {
                // ORDERING: Release, the last touch, as in `release`.
                if self.word.compare_exchange(word, word & LEFT_BEHIND, Release, Relaxed).is_ok() {
                    return;
                }
                continue;
            }
            let gate = self.gate.lock();
            let first = self.queue.claim_first();
            // ORDERING: Relaxed. We hold the lock and the gate: nobody else writes (M1).
            let mut held = self.word.load(Relaxed);
            if held & WOKEN != 0 && manner == Manner::Free {
                // Overdue.
                held = (held & !WHEN) | when() | STARVING;
            }
            // The last in the queue is handed the lock as well.
            let hand_over = manner == Manner::Fair || held & STARVING != 0;
            if self.queue.is_empty() {
                held &= !(WAITERS | STARVING);
            }
            let Some(first) = first else {
                // All had run out of time. M3: the gate first, then the word.
                self.word.store(held, Relaxed);
                drop(gate);
                continue;
            };
            let unit = first.complete(if hand_over { Outcome::Done } else { Outcome::Again });
            let passed_on = if hand_over {
                (held & !PLACE) | LOCKED | park::place_of(unit)
            } else {
                (held & !(PLACE | LOCKED)) | WOKEN | when()
            };
            // ORDERING: Release. To the new holder the wake publishes; to one that comes before the woken one does, this store.
            self.word.store(passed_on, Release);
            drop(gate);
            // M3: until now the one that waits kept the mutex alive.
            unit.wake(Wake::Handoff);
            return;
        }
    }
}

impl std::fmt::Debug for RawMutex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // ORDERING: Relaxed. Says how it was.
        let word = self.word.load(Relaxed);
        f.debug_struct("RawMutex")
            .field("locked", &(word & LOCKED != 0))
            .field("waiters", &(word & (WAITERS | WOKEN) != 0))
            .field("handing_over", &(word & STARVING != 0))
            .finish()
    }
}

#[cfg(all(feature = "arc_lock", not(loom)))]
pub use api::ArcMutexGuard;
#[cfg(not(loom))]
pub use api::{MappedMutexGuard, Mutex, MutexGuard, const_mutex};

#[cfg(not(loom))]
mod api {
    use super::{Duration, Instant, Manner, RawMutex, Until};
    use crate::runtime::present;

    // SAFETY: `LOCKED` is set by one party at a time, by compare-exchange from a word without it or handed over by the holder (M1).
    unsafe impl lock_api::RawMutex for RawMutex {
        #[allow(clippy::declare_interior_mutable_const, reason = "lock_api's way of saying `const fn new`")]
        const INIT: Self = Self::new();

        type GuardMarker = lock_api::GuardNoSend;

        #[inline]
        fn lock(&self) {
            self.acquire();
        }

        #[inline]
        fn try_lock(&self) -> bool {
            self.try_acquire()
        }

        #[inline]
        unsafe fn unlock(&self) {
            // SAFETY: passed on.
            unsafe { self.release() };
        }

        #[inline]
        fn is_locked(&self) -> bool {
            self.is_held()
        }
    }

    // SAFETY: as above; a handed-over lock has one new holder.
    unsafe impl lock_api::RawMutexFair for RawMutex {
        unsafe fn unlock_fair(&self) {
            // SAFETY: by the caller.
            unsafe { self.release_slow(Manner::Fair) };
        }

        unsafe fn bump(&self) {
            if self.has_waiters() {
                // SAFETY: by the caller.
                unsafe { self.release_slow(Manner::Fair) };
                self.acquire();
            }
        }
    }

    // SAFETY: as above; true means that the lock was taken.
    unsafe impl lock_api::RawMutexTimed for RawMutex {
        type Duration = Duration;
        type Instant = Instant;

        fn try_lock_for(&self, timeout: Duration) -> bool {
            self.acquire_until(Until::deadline(present::after(timeout)))
        }

        fn try_lock_until(&self, timeout: Instant) -> bool {
            self.acquire_until(Until::deadline(Some(timeout)))
        }
    }

    /// Mutual exclusion for a value: one party at a time may use it. Go's `sync.Mutex`, with `parking_lot`'s interface.
    ///
    /// It is not poisoned by panics: a guard that is dropped while unwinding unlocks like any other. A party that comes later may overtake those who
    /// wait; once somebody has been overtaken for about a millisecond, the lock is handed over in order. It is not re-entrant.
    ///
    /// The methods are [those of `lock_api::Mutex`](https://docs.rs/lock_api/0.4/lock_api/struct.Mutex.html):
    ///
    /// - `new(value)`: not locked.
    /// - `lock()`: waits until the lock is free and returns a guard.
    /// - `try_lock()`: a guard, if the lock is free now.
    /// - `try_lock_for(duration)`, `try_lock_until(instant)`: wait for so long at most.
    /// - `lock_ctx(&ctx)`: waits until `ctx` ends at the latest; import [`MutexCtx`](crate::sync::MutexCtx).
    /// - `is_locked()`: whether somebody holds it now.
    /// - `get_mut()`, `into_inner()`: the value, without locking, for whoever has the mutex to himself.
    ///
    /// A guard has `map`, `unlocked`, `unlock_fair` and `bump` as
    /// [associated functions](https://docs.rs/lock_api/0.4/lock_api/struct.MutexGuard.html). Guards are not `Send`; a goroutine never leaves its
    /// thread, so it may keep one while it waits for something else.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::sync::Mutex;
    ///
    /// static TOTAL: Mutex<u64> = Mutex::new(0);
    ///
    /// oxigo::scope(|s| {
    ///     for n in 1..=10 {
    ///         s.go(move || *TOTAL.lock() += n);
    ///     }
    /// });
    /// assert_eq!(*TOTAL.lock(), 55);
    /// ```
    ///
    /// # Blocking
    ///
    /// `lock`, `try_lock_for`, `try_lock_until`, `bump` and [`lock_ctx`](crate::sync::MutexCtx::lock_ctx) park the goroutine, or block the
    /// thread. `try_lock` and unlocking do neither.
    pub type Mutex<T> = lock_api::Mutex<RawMutex, T>;

    /// Keeps a [`Mutex`] locked until it is dropped, and gives access to its value.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::sync::{Mutex, MutexGuard};
    ///
    /// let pair = Mutex::new((1, 2));
    /// let mut guard: MutexGuard<'_, (i32, i32)> = pair.lock();
    /// guard.0 += 1;
    /// drop(guard);
    /// assert_eq!(pair.into_inner(), (2, 2));
    /// ```
    pub type MutexGuard<'a, T> = lock_api::MutexGuard<'a, RawMutex, T>;

    /// A [`MutexGuard`] that gives access to a part of the value. Made by `MutexGuard::map`.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::sync::{MappedMutexGuard, Mutex, MutexGuard};
    ///
    /// let pair = Mutex::new((1, 2));
    /// let mut second: MappedMutexGuard<'_, i32> = MutexGuard::map(pair.lock(), |pair| &mut pair.1);
    /// *second = 7;
    /// drop(second);
    /// assert_eq!(*pair.lock(), (1, 7));
    /// ```
    pub type MappedMutexGuard<'a, T> = lock_api::MappedMutexGuard<'a, RawMutex, T>;

    /// A guard that owns its [`Mutex`] through an `Arc`. Made by `Mutex::lock_arc`; with the feature `arc_lock`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use oxigo::sync::{ArcMutexGuard, Mutex};
    ///
    /// let value = Arc::new(Mutex::new(1));
    /// let guard: ArcMutexGuard<i32> = value.lock_arc();
    /// assert!(value.is_locked());
    /// drop(value);
    /// assert_eq!(*guard, 1);
    /// ```
    #[cfg(feature = "arc_lock")]
    pub type ArcMutexGuard<T> = lock_api::ArcMutexGuard<RawMutex, T>;

    /// A mutex that is not locked. The same as `Mutex::new`, which is `const` too; here because `parking_lot` has it.
    ///
    /// # Examples
    ///
    /// ```
    /// static COUNT: oxigo::sync::Mutex<u32> = oxigo::sync::const_mutex(3);
    /// assert_eq!(*COUNT.lock(), 3);
    /// ```
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub const fn const_mutex<T>(value: T) -> Mutex<T> {
        Mutex::from_raw(RawMutex::new(), value)
    }
}

#[cfg(not(loom))]
impl RawMutex {
    fn has_waiters(&self) -> bool {
        // ORDERING: Relaxed. Decides only whether to be polite.
        self.word.load(Relaxed) & WAITERS != 0
    }
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<RawMutex>() == 8 + 2 * size_of::<usize>(), "a mutex is small");

#[cfg(loom)]
impl RawMutex {
    /// What M4 forbids, for the model that must fail: looks for waiters and lets go in two steps.
    pub(super) fn release_broken(&self) {
        if self.word.load(Relaxed) & WAITERS == 0 {
            self.word.store(0, Release);
        } else {
            // SAFETY: the model that calls this holds the lock.
            unsafe { self.release_slow(Manner::Free) };
        }
    }
}
