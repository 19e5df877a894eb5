//! `RwLock`: many readers or one writer; a waiting writer holds back new readers, and those are let in before the next writer.
//!
//! As in `mutex`, a word says how things stand, and the queues, one of readers and one of writers, stand beside it behind a gate.
//!
//! # The word
//!
//! | bit | set | when |
//! |---|---|---|
//! | `WRITER` | by the writer, or by the one who hands over | a writer holds the lock; excludes readers |
//! | `READERS_WAIT` | under the gate, with the push of a node | the queue of readers may hold nodes |
//! | `WRITERS_WAIT` | under the gate, with the push of a node | the queue of writers may hold nodes |
//! | `WOKEN` | by a writer's unlock that woke a writer | that one is on its way: it takes the lock, or goes back to the front of the queue, and clears the bit in that step |
//! | `STARVING` | under the gate, by a woken writer that came too late and has waited for more than 1 ms | a writer hands over to the first writer in the queue |
//! | the rest | by readers | how many readers hold the lock |
//!
//! # What always holds
//!
//! - R1: while `WRITER` is set, others than the writer change the word only under the gate. So the writer, once it has the gate, is the only
//!   one who writes it.
//! - R2: a reader comes in only while none of `WRITER`, `WRITERS_WAIT`, `WOKEN` is set (RW-02); recursive readers look at `WRITER` only.
//! - R3: the writer's unlock lets in all readers that wait (RW-03), else the first writer; the last reader's unlock hands over to the first
//!   writer. So readers and writers take turns, and nobody starves. Between writers alone, newcomers may overtake for about 1 ms.
//! - R4 (P3, last touch): as M3. An unlock that finds nobody to wake leaves the gate first; the compare-exchange on the word is its last
//!   touch. One that wakes touches the lock only while it holds a claim on somebody that it has not woken yet.
//! - R5: no wake is lost: who waits sets its bit in the same step in which it sees that it has to.

use std::time::Instant;

use super::mutex::{Manner, out_of_patience};
use crate::{
    chan::waitq::{Node, Outcome, WaitQueue},
    facade::{
        AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
    runtime::{
        park::{self, Wake},
        until::{self, Until},
        wait::Reason,
    },
    util::{Lock, backoff::Backoff},
};

const WRITER: usize = 1;
const READERS_WAIT: usize = 2;
const WRITERS_WAIT: usize = 4;
const WOKEN: usize = 8;
const STARVING: usize = 16;
/// One reader.
const READER: usize = 32;

fn readers(word: usize) -> usize {
    word / READER
}

/// The lock without a value, for the [`lock_api`] types. Users want [`RwLock`].
pub struct RawRwLock {
    word: AtomicUsize,
    /// Guards the queues. Under it: a few loads and stores, claims, no wake (L1).
    gate: Lock<()>,
    waiting_readers: WaitQueue,
    waiting_writers: WaitQueue,
}

// SAFETY: the queues are reached under the gate only; their nodes belong to parties that wait until they are out of them (Q1).
unsafe impl Send for RawRwLock {}
// SAFETY: as above.
unsafe impl Sync for RawRwLock {}

/// Whether a reader heeds writers that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    Plain,
    Recursive,
}

impl Read {
    /// Whether such a reader may come in (R2).
    #[inline]
    fn may_enter(self, word: usize) -> bool {
        match self {
            Self::Plain => word & (WRITER | WRITERS_WAIT | WOKEN) == 0,
            Self::Recursive => word & WRITER == 0,
        }
    }
}

impl RawRwLock {
    const_new! {
        /// Not locked.
        pub(crate) fn new() -> Self {
            Self {
                word: AtomicUsize::new(0),
                gate: Lock::new(()),
                waiting_readers: WaitQueue::new(),
                waiting_writers: WaitQueue::new(),
            }
        }
    }

    // ---- readers ---------------------------------------------------------------------------------------------------------

    #[inline]
    pub(super) fn try_acquire_shared(&self, read: Read) -> bool {
        // ORDERING: Relaxed. The compare-exchange decides.
        let mut word = self.word.load(Relaxed);
        while read.may_enter(word) {
            let next = one_more_reader(word);
            // ORDERING: Acquire. Takes over what the last writer wrote; pairs with the Release of its unlock.
            match self.word.compare_exchange_weak(word, next, Acquire, Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// False when `until` came first.
    #[inline]
    pub(super) fn acquire_shared(&self, read: Read, until: Until<'_>) -> bool {
        park::spend();
        self.try_acquire_shared(read) || self.acquire_shared_slow(read, until)
    }

    #[cold]
    fn acquire_shared_slow(&self, read: Read, until: Until<'_>) -> bool {
        if self.may_spin() && spin(|| self.try_acquire_shared(read)) {
            return true;
        }
        let unit = park::current();
        let ticket = until.arm(unit);
        let node = Node::new(unit, ticket, std::ptr::null_mut());
        let gate = self.gate.lock();
        // ORDERING: Relaxed. The compare-exchange decides.
        let mut word = self.word.load(Relaxed);
        loop {
            let enters = read.may_enter(word);
            let next = if enters { one_more_reader(word) } else { word | READERS_WAIT };
            // ORDERING: Acquire, as above. Queueing publishes nothing by the word: the gate does.
            match self.word.compare_exchange(word, next, Acquire, Relaxed) {
                Ok(_) if enters => {
                    drop(gate);
                    until::disarm(unit, ticket);
                    return true;
                }
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        // SAFETY: the node stays in this frame until it is out of the queue.
        unsafe { self.waiting_readers.push(&node) };
        drop(gate);
        if !until.park(&node, ticket, Reason::RwLockRead.on(self)) {
            let _gate = self.gate.lock();
            self.waiting_readers.remove(&node);
            if self.waiting_readers.is_empty() {
                // ORDERING: Relaxed. Under the gate; nothing is published.
                self.word.fetch_and(!READERS_WAIT, Relaxed);
            }
            return false;
        }
        debug_assert!(node.outcome() == Outcome::Done, "readers are let in, not called to try");
        true
    }

    /// Lets go of one read lock.
    ///
    /// # Safety
    ///
    /// One is held, and whoever holds it lets the caller do this.
    #[inline]
    pub(super) unsafe fn release_shared(&self) {
        // ORDERING: Relaxed. The compare-exchange decides.
        let mut word = self.word.load(Relaxed);
        loop {
            if readers(word) == 1 && word & (WRITERS_WAIT | WOKEN) == WRITERS_WAIT {
                // Nobody but a writer gets the lock from us, and nobody writes the word while we are that writer (R1).
                // ORDERING: Acquire and Release by the two halves: what the other readers read is over before the writer writes.
                let gate = self.gate.lock();
                match self.word.compare_exchange(word, (word - READER) | WRITER, Acquire, Relaxed) {
                    Ok(_) => return self.pass_on(gate, Turn::Writer),
                    Err(now) => word = now,
                }
                continue;
            }
            // ORDERING: Release. What this reader read is read before the next writer writes. The last touch (R4).
            match self.word.compare_exchange_weak(word, word - READER, Release, Relaxed) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    // ---- the writer ------------------------------------------------------------------------------------------------------

    #[inline]
    pub(super) fn try_acquire_exclusive(&self) -> bool {
        // ORDERING: Acquire. Takes over what the last holder did; pairs with the Releases of both unlocks.
        self.word.compare_exchange(0, WRITER, Acquire, Relaxed).is_ok() || self.try_overtake(0)
    }

    /// Takes the lock if no party holds it; newcomers (`mine` is 0) leave it to readers that wait. Clears `mine`.
    fn try_overtake(&self, mine: usize) -> bool {
        // ORDERING: Relaxed. The compare-exchange decides.
        let mut word = self.word.load(Relaxed);
        while can_write(word, mine) {
            // ORDERING: Acquire, as above.
            match self.word.compare_exchange_weak(word, (word & !mine) | WRITER, Acquire, Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// False when `until` came first.
    #[inline]
    pub(super) fn acquire_exclusive(&self, until: Until<'_>) -> bool {
        park::spend();
        // ORDERING: Acquire, as above.
        self.word.compare_exchange(0, WRITER, Acquire, Relaxed).is_ok() || self.acquire_exclusive_slow(until)
    }

    #[cold]
    fn acquire_exclusive_slow(&self, until: Until<'_>) -> bool {
        if spin(|| self.try_overtake(0)) {
            return true;
        }
        let unit = park::current();
        let since = Instant::now();
        let (mut mine, mut mark) = (0, 0);
        loop {
            let ticket = until.arm(unit);
            let node = Node::new(unit, ticket, std::ptr::null_mut());
            if self.write_or_queue(&node, mine, mark) {
                until::disarm(unit, ticket);
                return true;
            }
            if !until.park(&node, ticket, Reason::RwLockWrite.on(self)) {
                self.writer_leaves(&node);
                return false;
            }
            if node.outcome() == Outcome::Done {
                return true;
            }
            mine = WOKEN;
            if spin(|| self.try_overtake(mine)) {
                return true;
            }
            if out_of_patience(since) {
                mark = STARVING;
            }
        }
    }

    /// Takes the lock, or puts `node` into the queue, in one step of the word (R5). `mine` goes out of the word either way.
    fn write_or_queue(&self, node: &Node, mine: usize, mark: usize) -> bool {
        let _gate = self.gate.lock();
        // ORDERING: Relaxed. The compare-exchange decides.
        let mut word = self.word.load(Relaxed);
        loop {
            let free = can_write(word, mine);
            let next = (word & !mine) | if free { WRITER } else { WRITERS_WAIT | mark };
            // ORDERING: Acquire, as in `try_acquire_exclusive`.
            match self.word.compare_exchange(word, next, Acquire, Relaxed) {
                Ok(_) if free => return true,
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        if mine == 0 {
            // SAFETY: the caller keeps the node in its frame until it is out of the queue.
            unsafe { self.waiting_writers.push(node) };
        } else {
            // SAFETY: as above.
            unsafe { self.waiting_writers.push_front(node) };
        }
        false
    }

    /// A writer's wait has ended without the lock. If it was the last one, the readers that it held back come in.
    #[cold]
    fn writer_leaves(&self, node: &Node) {
        let gate = self.gate.lock();
        self.waiting_writers.remove(node);
        if !self.waiting_writers.is_empty() {
            return;
        }
        // ORDERING: Relaxed. Under the gate; nothing is published.
        let word = self.word.fetch_and(!(WRITERS_WAIT | STARVING), Relaxed) & !(WRITERS_WAIT | STARVING);
        if word & READERS_WAIT == 0 || !Read::Plain.may_enter(word) {
            return;
        }
        // A read lock of our own keeps writers from the word while readers are let in; letting go of it settles the rest.
        if self.try_acquire_shared(Read::Recursive) {
            let admitted = self.waiting_readers.claim_all(Outcome::Done);
            // ORDERING: Release. Publishes nothing of ours; the readers' wakes order what they read.
            self.word.fetch_add(admitted.len() * READER, Release);
            self.word.fetch_and(!READERS_WAIT, Relaxed);
            drop(gate);
            admitted.wake();
            // SAFETY: our own.
            unsafe { self.release_shared() };
        }
    }

    /// Lets go of the write lock.
    ///
    /// # Safety
    ///
    /// It is held, and whoever holds it lets the caller do this.
    #[inline]
    pub(super) unsafe fn release_exclusive(&self, manner: Manner) {
        // ORDERING: Release. Publishes what was written; pairs with the Acquires of those who lock. The last touch (R4).
        if self.word.compare_exchange(WRITER, 0, Release, Relaxed).is_err() {
            self.release_exclusive_slow(manner);
        }
    }

    #[cold]
    fn release_exclusive_slow(&self, manner: Manner) {
        let _p4 = park::no_switch();
        loop {
            // ORDERING: Relaxed. The compare-exchange, or the gate, decides.
            let word = self.word.load(Relaxed);
            let on_its_way = manner == Manner::Free && word & (WOKEN | STARVING) == WOKEN;
            if word & READERS_WAIT != 0 || (word & WRITERS_WAIT != 0 && !on_its_way) {
                let gate = self.gate.lock();
                return self.pass_on(gate, Turn::Readers(manner));
            }
            // ORDERING: Release, the last touch, as above.
            if self.word.compare_exchange(word, word & !WRITER, Release, Relaxed).is_ok() {
                return;
            }
        }
    }

    /// Gives the write lock that the caller holds, together with the gate, to those whose turn it is.
    #[cold]
    fn pass_on(&self, gate: crate::util::lock::Guard<'_, ()>, turn: Turn) {
        let _p4 = park::no_switch();
        // ORDERING: Relaxed. We are the writer and have the gate: nobody else writes (R1).
        let word = self.word.load(Relaxed);
        let keep = word & WOKEN;
        if turn == Turn::Writer
            && let Some(first) = self.waiting_writers.claim_first()
        {
            return self.hand_to(gate, keep | self.waits(), unsafe_node(&first));
        }
        let admitted = self.waiting_readers.claim_all(Outcome::Done);
        let count = admitted.len();
        if count > 0 {
            // ORDERING: Release. Publishes what was written, for readers that come in by themselves; the others are ordered by their wake.
            self.word.store(keep | self.waits() | (count * READER), Release);
            drop(gate);
            // R4: until they are woken, they keep the lock alive.
            return admitted.wake();
        }
        let fair = turn == Turn::Readers(Manner::Fair) || word & STARVING != 0;
        // Somebody is on its way already: it has the first turn.
        let call = fair || keep == 0;
        if call && let Some(first) = self.waiting_writers.claim_first() {
            let first = unsafe_node(&first);
            if fair {
                return self.hand_to(gate, keep | self.waits(), first);
            }
            first.set_outcome(Outcome::Again);
            let unit = first.unit();
            // ORDERING: Release. Publishes what was written to a writer that overtakes.
            self.word.store(self.waits() | WOKEN, Release);
            drop(gate);
            return unit.wake(Wake::Handoff);
        }
        // Nobody. R4: the gate first, then the word.
        // ORDERING: Relaxed. Still ours.
        self.word.store(keep | self.waits() | WRITER, Relaxed);
        drop(gate);
        self.release_exclusive_slow(Manner::Free);
    }

    /// Makes the claimed `first` the writer.
    fn hand_to(&self, gate: crate::util::lock::Guard<'_, ()>, word: usize, first: &Node) {
        first.set_outcome(Outcome::Done);
        let unit = first.unit();
        // Who has been handed the lock in a queue of the starving hands it on as well.
        // ORDERING: Relaxed. The wake publishes, and nobody but the new writer goes by this word.
        let starving = if word & WRITERS_WAIT != 0 { self.word.load(Relaxed) & STARVING } else { 0 };
        self.word.store(word | WRITER | starving, Relaxed);
        drop(gate);
        unit.wake(Wake::Handoff);
    }

    /// The bits of those who wait, as the queues are. Called with the gate.
    fn waits(&self) -> usize {
        let readers = if self.waiting_readers.is_empty() { 0 } else { READERS_WAIT };
        let writers = if self.waiting_writers.is_empty() { 0 } else { WRITERS_WAIT };
        readers | writers
    }

    /// Turns the write lock that the caller holds into a read lock; readers that wait come in too.
    #[cfg(not(loom))]
    fn downgrade_exclusive(&self) {
        let _p4 = park::no_switch();
        // ORDERING: Release. Publishes what was written to readers that come in.
        if self.word.compare_exchange(WRITER, READER, Release, Relaxed).is_ok() {
            return;
        }
        let gate = self.gate.lock();
        let admitted = self.waiting_readers.claim_all(Outcome::Done);
        // ORDERING: Relaxed. We are the writer and have the gate (R1).
        let keep = self.word.load(Relaxed) & WOKEN;
        // ORDERING: Release, as above.
        self.word.store(keep | self.waits() | ((1 + admitted.len()) * READER), Release);
        drop(gate);
        admitted.wake();
    }

    /// Readers that a queue of writers holds back wait for longer than spinning helps.
    fn may_spin(&self) -> bool {
        // ORDERING: Relaxed. A guess.
        self.word.load(Relaxed) & (WRITERS_WAIT | READERS_WAIT) == 0
    }
}

/// Whose turn it is when the write lock passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The readers', then a writer's.
    Readers(Manner),
    /// A writer's.
    Writer,
}

/// Whether a writer may take the lock from `word`: a woken one whenever nobody holds it, others if no readers wait either.
fn can_write(word: usize, mine: usize) -> bool {
    let held = WRITER | if mine == 0 { READERS_WAIT } else { 0 };
    word & held == 0 && readers(word) == 0
}

/// The node that was claimed.
fn unsafe_node(first: &std::ptr::NonNull<Node>) -> &Node {
    // SAFETY: claimed and not woken, so its owner waits for us; the callers wake after their last use.
    unsafe { first.as_ref() }
}

#[inline]
fn one_more_reader(word: usize) -> usize {
    word.checked_add(READER).expect("too many readers")
}

/// Tries, backing off in between.
fn spin(mut attempt: impl FnMut() -> bool) -> bool {
    let mut backoff = Backoff::new();
    // Fewer rounds than for a mutex: who holds this lock may hold it long.
    for _ in 0..4 {
        if attempt() {
            return true;
        }
        if !backoff.pause() {
            break;
        }
    }
    false
}

impl std::fmt::Debug for RawRwLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // ORDERING: Relaxed. Says how it was.
        let word = self.word.load(Relaxed);
        f.debug_struct("RawRwLock")
            .field("readers", &readers(word))
            .field("writer", &(word & WRITER != 0))
            .field("waiting_readers", &(word & READERS_WAIT != 0))
            .field("waiting_writers", &(word & (WRITERS_WAIT | WOKEN) != 0))
            .finish()
    }
}

#[cfg(all(feature = "arc_lock", not(loom)))]
pub use api::{ArcRwLockReadGuard, ArcRwLockWriteGuard};
#[cfg(not(loom))]
pub use api::{MappedRwLockReadGuard, MappedRwLockWriteGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, const_rwlock};

#[cfg(not(loom))]
mod api {
    use std::time::{Duration, Instant};

    use super::{Manner, RawRwLock, Read, Relaxed, Until, WRITER, readers};

    // SAFETY: `WRITER` is set by one party at a time and only while there are no readers; readers come in only while it is clear.
    unsafe impl lock_api::RawRwLock for RawRwLock {
        #[allow(clippy::declare_interior_mutable_const, reason = "lock_api's way of saying `const fn new`")]
        const INIT: Self = Self::new();

        type GuardMarker = lock_api::GuardNoSend;

        #[inline]
        fn lock_shared(&self) {
            self.acquire_shared(Read::Plain, Until::EVER);
        }

        #[inline]
        fn try_lock_shared(&self) -> bool {
            self.try_acquire_shared(Read::Plain)
        }

        #[inline]
        unsafe fn unlock_shared(&self) {
            // SAFETY: passed on.
            unsafe { self.release_shared() };
        }

        #[inline]
        fn lock_exclusive(&self) {
            self.acquire_exclusive(Until::EVER);
        }

        #[inline]
        fn try_lock_exclusive(&self) -> bool {
            self.try_acquire_exclusive()
        }

        #[inline]
        unsafe fn unlock_exclusive(&self) {
            // SAFETY: passed on.
            unsafe { self.release_exclusive(Manner::Free) };
        }

        fn is_locked(&self) -> bool {
            // ORDERING: Relaxed. Says how it was.
            let word = self.word.load(Relaxed);
            word & WRITER != 0 || readers(word) > 0
        }

        fn is_locked_exclusive(&self) -> bool {
            // ORDERING: Relaxed, as above.
            self.word.load(Relaxed) & WRITER != 0
        }
    }

    // SAFETY: as above.
    unsafe impl lock_api::RawRwLockFair for RawRwLock {
        unsafe fn unlock_shared_fair(&self) {
            // SAFETY: passed on. The last reader hands over in any case.
            unsafe { self.release_shared() };
        }

        unsafe fn unlock_exclusive_fair(&self) {
            // SAFETY: passed on.
            unsafe { self.release_exclusive(Manner::Fair) };
        }
    }

    // SAFETY: the writer becomes a reader in one step.
    unsafe impl lock_api::RawRwLockDowngrade for RawRwLock {
        unsafe fn downgrade(&self) {
            self.downgrade_exclusive();
        }
    }

    // SAFETY: as above; true means that the lock was taken.
    unsafe impl lock_api::RawRwLockTimed for RawRwLock {
        type Duration = Duration;
        type Instant = Instant;

        fn try_lock_shared_for(&self, timeout: Duration) -> bool {
            self.acquire_shared(Read::Plain, Until::deadline(Instant::now().checked_add(timeout)))
        }

        fn try_lock_shared_until(&self, timeout: Instant) -> bool {
            self.acquire_shared(Read::Plain, Until::deadline(Some(timeout)))
        }

        fn try_lock_exclusive_for(&self, timeout: Duration) -> bool {
            self.acquire_exclusive(Until::deadline(Instant::now().checked_add(timeout)))
        }

        fn try_lock_exclusive_until(&self, timeout: Instant) -> bool {
            self.acquire_exclusive(Until::deadline(Some(timeout)))
        }
    }

    // SAFETY: a recursive reader waits for a writer that holds the lock only, never for one that waits.
    unsafe impl lock_api::RawRwLockRecursive for RawRwLock {
        fn lock_shared_recursive(&self) {
            self.acquire_shared(Read::Recursive, Until::EVER);
        }

        fn try_lock_shared_recursive(&self) -> bool {
            self.try_acquire_shared(Read::Recursive)
        }
    }

    // SAFETY: as above.
    unsafe impl lock_api::RawRwLockRecursiveTimed for RawRwLock {
        fn try_lock_shared_recursive_for(&self, timeout: Duration) -> bool {
            self.acquire_shared(Read::Recursive, Until::deadline(Instant::now().checked_add(timeout)))
        }

        fn try_lock_shared_recursive_until(&self, timeout: Instant) -> bool {
            self.acquire_shared(Read::Recursive, Until::deadline(Some(timeout)))
        }
    }

    /// Many readers or one writer of a value. Go's `sync.RWMutex`, with `parking_lot`'s interface.
    ///
    /// A writer that waits holds back new readers; when a writer leaves, the readers that wait come in before the next writer. So neither
    /// kind starves, and a goroutine must not take a second read lock with `read` (a writer may have come in between): that is what
    /// `read_recursive` is for. Not poisoned by panics.
    ///
    /// The methods are [`lock_api::RwLock`]'s: `read`, `write`, `try_read`, `try_write`, those with `_for` and `_until`,
    /// `read_recursive`, and those of the guards: `map`, `downgrade`, `unlocked`, `unlock_fair`, `bump`. There are no upgradable locks.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::sync::RwLock;
    ///
    /// let names = RwLock::new(vec!["ada"]);
    /// oxigo::scope(|s| {
    ///     s.go(|| names.write().push("grace"));
    ///     s.go(|| assert_eq!(names.read()[0], "ada"));
    /// });
    /// assert_eq!(names.read().len(), 2);
    /// ```
    ///
    /// # Blocking
    ///
    /// Taking a lock parks the goroutine, or blocks the thread. `try_read`, `try_write`, downgrading and unlocking do neither.
    pub type RwLock<T> = lock_api::RwLock<RawRwLock, T>;

    /// One of the read locks of an [`RwLock`], until it is dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::sync::{RwLock, RwLockReadGuard};
    ///
    /// let value = RwLock::new(1);
    /// let guard: RwLockReadGuard<'_, i32> = value.read();
    /// assert_eq!(*guard + *value.read_recursive(), 2);
    /// ```
    pub type RwLockReadGuard<'a, T> = lock_api::RwLockReadGuard<'a, RawRwLock, T>;

    /// The write lock of an [`RwLock`], until it is dropped or downgraded.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::sync::{RwLock, RwLockWriteGuard};
    ///
    /// let value = RwLock::new(1);
    /// let mut guard: RwLockWriteGuard<'_, i32> = value.write();
    /// *guard += 1;
    /// let reader = RwLockWriteGuard::downgrade(guard);
    /// assert_eq!(*reader, 2);
    /// ```
    pub type RwLockWriteGuard<'a, T> = lock_api::RwLockWriteGuard<'a, RawRwLock, T>;

    /// A [`RwLockReadGuard`] that leads to a part of the value. Made by `RwLockReadGuard::map`.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::sync::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};
    ///
    /// let pair = RwLock::new((1, 2));
    /// let second: MappedRwLockReadGuard<'_, i32> = RwLockReadGuard::map(pair.read(), |pair| &pair.1);
    /// assert_eq!(*second, 2);
    /// ```
    pub type MappedRwLockReadGuard<'a, T> = lock_api::MappedRwLockReadGuard<'a, RawRwLock, T>;

    /// A [`RwLockWriteGuard`] that leads to a part of the value. Made by `RwLockWriteGuard::map`.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::sync::{MappedRwLockWriteGuard, RwLock, RwLockWriteGuard};
    ///
    /// let pair = RwLock::new((1, 2));
    /// let mut second: MappedRwLockWriteGuard<'_, i32> = RwLockWriteGuard::map(pair.write(), |pair| &mut pair.1);
    /// *second = 7;
    /// drop(second);
    /// assert_eq!(pair.read().1, 7);
    /// ```
    pub type MappedRwLockWriteGuard<'a, T> = lock_api::MappedRwLockWriteGuard<'a, RawRwLock, T>;

    /// A read lock that owns its [`RwLock`] by an `Arc`. Made by `RwLock::read_arc`; with the feature `arc_lock`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use oxigo::sync::{ArcRwLockReadGuard, RwLock};
    ///
    /// let value = Arc::new(RwLock::new(1));
    /// let guard: ArcRwLockReadGuard<i32> = value.read_arc();
    /// assert_eq!(*guard + *value.read_recursive(), 2);
    /// ```
    #[cfg(feature = "arc_lock")]
    pub type ArcRwLockReadGuard<T> = lock_api::ArcRwLockReadGuard<RawRwLock, T>;

    /// A write lock that owns its [`RwLock`] by an `Arc`. Made by `RwLock::write_arc`; with the feature `arc_lock`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use oxigo::sync::{ArcRwLockWriteGuard, RwLock};
    ///
    /// let value = Arc::new(RwLock::new(1));
    /// let mut guard: ArcRwLockWriteGuard<i32> = value.write_arc();
    /// *guard += 1;
    /// drop(guard);
    /// assert_eq!(*value.read(), 2);
    /// ```
    #[cfg(feature = "arc_lock")]
    pub type ArcRwLockWriteGuard<T> = lock_api::ArcRwLockWriteGuard<RawRwLock, T>;

    /// A lock that nobody holds. The same as `RwLock::new`, which is `const` too; here because `parking_lot` has it.
    ///
    /// # Examples
    ///
    /// ```
    /// static NAME: oxigo::sync::RwLock<&str> = oxigo::sync::const_rwlock("ada");
    /// assert_eq!(*NAME.read(), "ada");
    /// ```
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub const fn const_rwlock<T>(value: T) -> RwLock<T> {
        RwLock::from_raw(RawRwLock::new(), value)
    }
}

#[cfg(loom)]
impl RawRwLock {
    /// What R5 forbids, for the model that must fail: looks for writers that wait and lets go in two steps.
    ///
    /// # Safety
    ///
    /// As [`release_shared`](Self::release_shared).
    pub(super) unsafe fn release_shared_broken(&self) {
        if self.word.load(Relaxed) & WRITERS_WAIT == 0 {
            self.word.fetch_sub(READER, Release);
        } else {
            // SAFETY: passed on.
            unsafe { self.release_shared() };
        }
    }
}
