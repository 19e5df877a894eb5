//! `RwLock`: many readers or one writer; a waiting writer holds back new readers, and those are let in before the next writer. One of the
//! readers at a time may be upgradable: it may become the writer without letting go.
//!
//! As in `mutex`, a word says how things stand ([`word`] has its bits), and the queues stand beside it behind a gate: one of readers, one
//! of writers, one of upgradable readers, and the place of the upgradable reader that waits to become the writer.
//!
//! # What always holds
//!
//! - R1: while `WRITER` is set, others than the writer change the word only under the gate. So the writer, once it has the gate, is the only
//!   one who writes it.
//! - R2: a reader comes in only while none of `WRITER`, `WRITERS_WAIT`, `WOKEN`, `UPGRADING` is set (RW-02); recursive readers look at
//!   `WRITER` only. An upgradable one heeds the same, and others of its kind.
//! - R3: the writer's unlock lets in all readers that wait (RW-03) and the first upgradable one, else the first writer; when the last reader
//!   of either kind leaves, it is the first writer's turn. A writer that was the upgradable reader, and so went before those that
//!   wait, lets no other upgradable one in before them (`UPGRADED`): parties that upgrade one after the other would keep writers out. So
//!   readers and writers take turns, and nobody starves. A writer whose turn it is is called, and until it comes other writers may overtake it, and
//!   with it the readers that wait for it, for about 1 ms: otherwise the lock would lie idle for each wake. Then it is handed the lock. One that has not
//!   come by then may be stuck behind a goroutine that holds its worker: it keeps its turn, but unlocks wait for it no longer; they let in who waits, as
//!   if nobody were on its way (`called_at`). Between upgradable
//!   readers none overtakes, not even for that long: who leaves hands over to the first, or leaves it to the next writer to let it in.
//! - R4 (P3, last touch): as M3. An unlock that finds nobody to wake leaves the gate first; the compare-exchange on the word is its last
//!   touch. One that wakes touches the lock only while it holds a claim on somebody that it has not woken yet.
//! - R5: no wake is lost: who waits sets its bit in the same step in which it sees that it has to. While a queue of readers or of upgradable
//!   ones has anybody to let in, one of the bits that hold them back is set, and whoever clears the last of these lets them in or hands
//!   on. The writer does so when it lets go or steps down, the writer and the upgrade that give up when they leave their queue.
//! - R6: an upgrade goes before all writers that wait, since none of them can have the lock before the upgradable reader lets go. While it
//!   waits no reader comes in but recursive ones, so it ends. The last reader becomes the writer for the upgrade in the step in which it
//!   leaves, with the gate, and passes the lock on. If the upgrade has given up in that very moment, the last reader takes that step back;
//!   the one that gave up holds its upgradable lock as before, and has still to come by the gate, which keeps the lock alive for the last
//!   reader (R4).
//! - R7: an upgrade that gives up ends a turn of writing like an unlock: all readers that wait come in, those that a queue of writers holds
//!   back too. None of the writers could have had the lock now, and some reader may be a recursive one that met with R6's step.

use std::time::Instant;

pub(super) use self::word::Read;
use self::word::{
    Heir, READER, READERS_WAIT, STARVING, UPGRADABLE, UPGRADABLES_WAIT, UPGRADED, UPGRADING, WOKEN, WRITER,
    WRITERS_WAIT, can_write, heir, is_on_its_way, readers, upgraded,
};
use super::mutex::{Manner, out_of_patience};
use crate::{
    facade::{
        AtomicU32, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
    runtime::{
        park::{self, Wake},
        until::{self, Until},
        wait::Reason,
        waitq::{Claimed, ClaimedNode, Node, Outcome, WaitQueue},
    },
    util::{Lock, backoff::Backoff, lock::Guard},
};

/// How often a party tries before it queues. Fewer times than for a mutex: who holds this lock may hold it long.
const ROUNDS: u32 = 4;

type Gate<'a> = Guard<'a, ()>;

/// The lock without a value, for the types of [`lock_api`](https://docs.rs/lock_api/0.4/lock_api/). What programs use is [`RwLock`].
pub struct RawRwLock {
    word: AtomicUsize,
    /// Guards the queues. Under it: a few loads and stores, claims, no wake (L1).
    gate: Lock<()>,
    waiting_readers: WaitQueue,
    waiting_writers: WaitQueue,
    waiting_upgradables: WaitQueue,
    /// The upgradable reader, while it waits to become the writer: one at most.
    upgrader: WaitQueue,
    /// The tick of the coarse clock in which the last writer was called.
    called_at: AtomicU32,
}

// SAFETY: the queues are reached under the gate only; their nodes belong to parties that wait until they are out of them (Q1).
unsafe impl Send for RawRwLock {}
// SAFETY: as above.
unsafe impl Sync for RawRwLock {}

impl RawRwLock {
    const_new! {
        /// Not locked.
        pub(crate) fn new() -> Self {
            Self {
                word: AtomicUsize::new(0),
                gate: Lock::new(()),
                waiting_readers: WaitQueue::new(),
                waiting_writers: WaitQueue::new(),
                waiting_upgradables: WaitQueue::new(),
                upgrader: WaitQueue::new(),
                called_at: AtomicU32::new(0),
            }
        }
    }

    // ---- readers, the upgradable one included ----------------------------------------------------------------------------

    #[inline]
    pub(super) fn try_acquire_shared(&self, read: Read) -> bool {
        // ORDERING: Relaxed. The compare-exchange decides.
        let mut word = self.word.load(Relaxed);
        while read.may_enter(word) {
            // ORDERING: Acquire. Takes over what the last writer wrote; pairs with the Release of its unlock.
            match self.word.compare_exchange_weak(word, read.enter(word), Acquire, Relaxed) {
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
        if self.may_spin(read) && spin(until, || self.try_acquire_shared(read)) {
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
            let next = if enters { read.enter(word) } else { word | read.waits() };
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
        let (queue, reason) = match read {
            Read::Plain | Read::Recursive => (&self.waiting_readers, Reason::RwLockRead),
            Read::Upgradable => (&self.waiting_upgradables, Reason::RwLockUpgradable),
        };
        // SAFETY: the node stays in this frame until it is out of the queue.
        unsafe { queue.push(&node) };
        drop(gate);
        if !until.park(&node, ticket, reason.on(self)) {
            let _gate = self.gate.lock();
            queue.remove(&node);
            if queue.is_empty() {
                // ORDERING: Relaxed. Under the gate; nothing is published.
                self.word.fetch_and(!read.waits(), Relaxed);
            }
            return false;
        }
        debug_assert!(node.outcome() == Outcome::Done, "readers are let in, not called to try");
        true
    }

    /// Lets go of one read lock, not the upgradable one.
    ///
    /// # Safety
    ///
    /// One is held, and whoever holds it lets the caller do this.
    #[inline]
    pub(super) unsafe fn release_shared(&self) {
        // ORDERING: Relaxed. The compare-exchange decides.
        let mut word = self.word.load(Relaxed);
        loop {
            let rest = word - READER;
            if let Some(heir) = heir(rest, || self.is_overdue()) {
                // SAFETY: passed on; `rest` is without our lock.
                match unsafe { self.bequeath(word, rest, heir) } {
                    Ok(()) => return,
                    Err(now) => word = now,
                }
                continue;
            }
            // ORDERING: Release. What this reader read is read before the next writer writes. The last touch (R4).
            match self.word.compare_exchange_weak(word, rest, Release, Relaxed) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// Lets go of the upgradable lock; the first that waits for it gets it, unless it is a writer's turn.
    ///
    /// # Safety
    ///
    /// It is held, and whoever holds it lets the caller do this.
    #[inline]
    pub(super) unsafe fn release_upgradable(&self) {
        // ORDERING: Relaxed. The compare-exchange decides.
        let mut word = self.word.load(Relaxed);
        loop {
            let rest = word & !UPGRADABLE;
            if let Some(heir) = heir(rest, || self.is_overdue()) {
                // SAFETY: passed on; `rest` is without our lock.
                match unsafe { self.bequeath(word, rest, heir) } {
                    Ok(()) => return,
                    Err(now) => word = now,
                }
                continue;
            }
            if word & (UPGRADABLES_WAIT | WRITERS_WAIT | WOKEN) == UPGRADABLES_WAIT {
                // SAFETY: passed on.
                if unsafe { self.hand_upgradable_on() } {
                    return;
                }
                // ORDERING: Relaxed, as above.
                word = self.word.load(Relaxed);
                continue;
            }
            // ORDERING: Release. What was read is read before the next writer writes. The last touch (R4).
            match self.word.compare_exchange_weak(word, rest, Release, Relaxed) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// The last reader's leave, from `word` to `rest`, while a party waits for that; or how the word is now.
    ///
    /// # Safety
    ///
    /// A read lock or the upgradable one is held, and whoever holds it lets the caller give it up; `rest` is `word` without it, and `heir` is
    /// that of `rest`.
    #[cold]
    unsafe fn bequeath(&self, word: usize, rest: usize, heir: Heir) -> Result<(), usize> {
        // Nobody but the heir gets the lock from us, and nobody writes the word while we are the writer (R1).
        let gate = self.gate.lock();
        // ORDERING: Acquire and Release by the two halves: what the other readers read is over before the writer writes.
        self.word.compare_exchange(word, rest | WRITER, Acquire, Relaxed)?;
        match heir {
            // SAFETY: the step above has made us the writer.
            Heir::Writer => unsafe { self.pass_on(gate, Next::Writer) },
            // SAFETY: as above; `UPGRADABLE` is still set for the upgrade (R6).
            Heir::Upgrader => unsafe { self.pass_to_upgrader(gate) },
        }
        Ok(())
    }

    /// Gives the write lock that the caller holds, together with the gate, to the upgrade that waits; or back, if that has given up (R6).
    ///
    /// # Safety
    ///
    /// The write lock is the caller's to give.
    unsafe fn pass_to_upgrader(&self, gate: Gate<'_>) {
        let _p4 = park::no_switch();
        // ORDERING: Relaxed. We are the writer and have the gate: nobody else writes (R1).
        let word = self.word.load(Relaxed);
        match self.upgrader.claim_first() {
            // SAFETY: passed on.
            Some(first) => unsafe {
                self.hand_to(gate, upgraded((word & WOKEN) | self.waits()), first);
            },
            None => {
                // ORDERING: Release. What we read is read before the next writer writes.
                self.word.store(word & !WRITER, Release);
                drop(gate);
            }
        }
    }

    /// Gives the upgradable lock that the caller holds to the first that waits for it. False if all had run out of time.
    ///
    /// # Safety
    ///
    /// As [`release_upgradable`](Self::release_upgradable).
    #[cold]
    unsafe fn hand_upgradable_on(&self) -> bool {
        let _p4 = park::no_switch();
        let gate = self.gate.lock();
        let first = self.waiting_upgradables.claim_first();
        if self.waiting_upgradables.is_empty() {
            // ORDERING: Relaxed. Under the gate; nothing is published.
            self.word.fetch_and(!UPGRADABLES_WAIT, Relaxed);
        }
        let Some(first) = first else { return false };
        let unit = first.complete(Outcome::Done);
        drop(gate);
        // R4: until now the one that waits kept the lock alive. What we read comes before what it does by its wake.
        unit.wake(Wake::Handoff);
        true
    }

    /// Makes an ordinary reader of the upgradable one.
    ///
    /// # Safety
    ///
    /// As [`release_upgradable`](Self::release_upgradable).
    #[cfg(not(loom))]
    unsafe fn downgrade_to_shared(&self) {
        let entered = self.try_acquire_shared(Read::Recursive);
        debug_assert!(entered, "there is no writer while we are the upgradable reader");
        // SAFETY: passed on.
        unsafe { self.release_upgradable() };
    }

    // ---- the upgrade -----------------------------------------------------------------------------------------------------

    /// Makes the writer of the upgradable reader, if no other reader is there.
    ///
    /// # Safety
    ///
    /// The upgradable lock is held, and whoever holds it lets the caller do this.
    #[inline]
    pub(super) unsafe fn try_upgrade_now(&self) -> bool {
        // ORDERING: Relaxed. The compare-exchange decides.
        let mut word = self.word.load(Relaxed);
        while readers(word) == 0 {
            // ORDERING: Acquire. What the readers read is over before we write; pairs with the Release in `release_shared`.
            match self.word.compare_exchange_weak(word, upgraded(word), Acquire, Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// As `try_upgrade_now`, waiting for the readers to leave. False when `until` came first: then the upgradable lock is still held.
    ///
    /// # Safety
    ///
    /// As [`try_upgrade_now`](Self::try_upgrade_now).
    #[inline]
    pub(super) unsafe fn upgrade_until(&self, until: Until<'_>) -> bool {
        park::spend();
        // SAFETY: passed on.
        let upgraded = unsafe { self.try_upgrade_now() };
        // SAFETY: as above.
        upgraded || unsafe { self.upgrade_slow(until) }
    }

    /// # Safety
    ///
    /// As [`try_upgrade_now`](Self::try_upgrade_now).
    #[cold]
    unsafe fn upgrade_slow(&self, until: Until<'_>) -> bool {
        // SAFETY: passed on.
        if spin(until, || unsafe { self.try_upgrade_now() }) {
            return true;
        }
        let unit = park::current();
        let ticket = until.arm(unit);
        let node = Node::new(unit, ticket, std::ptr::null_mut());
        let gate = self.gate.lock();
        // ORDERING: Relaxed. The compare-exchange decides.
        let mut word = self.word.load(Relaxed);
        loop {
            let alone = readers(word) == 0;
            let next = if alone { upgraded(word) } else { word | UPGRADING };
            // ORDERING: Acquire, as in `try_upgrade_now`. Queueing publishes nothing by the word: the gate does.
            match self.word.compare_exchange(word, next, Acquire, Relaxed) {
                Ok(_) if alone => {
                    drop(gate);
                    until::disarm(unit, ticket);
                    return true;
                }
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        // SAFETY: the node stays in this frame until it is out of the queue.
        unsafe { self.upgrader.push(&node) };
        drop(gate);
        if !until.park(&node, ticket, Reason::RwLockUpgrade.on(self)) {
            // SAFETY: the upgradable lock is ours, by the caller.
            unsafe { self.upgrader_leaves(&node) };
            return false;
        }
        debug_assert!(node.outcome() == Outcome::Done, "an upgrade is handed the lock, not called to try");
        true
    }

    /// An upgrade's wait has ended without the write lock. The readers that wait come in (R7).
    ///
    /// # Safety
    ///
    /// As [`try_upgrade_now`](Self::try_upgrade_now).
    #[cold]
    unsafe fn upgrader_leaves(&self, node: &Node) {
        let gate = self.gate.lock();
        self.upgrader.remove(node);
        // SAFETY: there is no writer while `UPGRADABLE` is ours and we have the gate (R6).
        let admitted = unsafe { self.admit_readers(UPGRADING) };
        drop(gate);
        admitted.wake();
    }

    /// Counts all readers that wait as readers, and clears `bits` of the word. Called with the gate.
    ///
    /// # Safety
    ///
    /// A lock of the caller's own keeps writers out.
    unsafe fn admit_readers(&self, bits: usize) -> Claimed {
        let admitted = self.waiting_readers.claim_all(Outcome::Done);
        // ORDERING: Relaxed, both. Nothing of ours is published: what we have read, the Release publishes with which our own lock is let go.
        // Those who come in see what the last writer wrote, since it comes before our own lock (the Acquire, or the wake, by which we got
        // it), and that before their wakes. Others' Releases stay in force: read-modify-writes carry them on, whatever their own ordering is.
        // Models: `loom_rwlock_*`.
        self.word.fetch_add(admitted.len() * READER, Relaxed);
        self.word.fetch_and(!(READERS_WAIT | bits), Relaxed);
        admitted
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
        if spin(until, || self.try_overtake(0)) {
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
            if spin(until, || self.try_overtake(mine)) {
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
        // Locks of our own keep writers from the word while the others are let in; letting go of them settles the rest.
        let reads = word & READERS_WAIT != 0 && Read::Plain.may_enter(word) && self.try_acquire_shared(Read::Recursive);
        // SAFETY: if `reads`, the read lock just taken keeps writers out.
        let admitted = if reads { unsafe { self.admit_readers(0) } } else { Claimed::none() };
        let upgradable = word & UPGRADABLES_WAIT != 0 && self.try_acquire_shared(Read::Upgradable);
        drop(gate);
        admitted.wake();
        if upgradable {
            // SAFETY: our own. It passes to the first that waits.
            unsafe { self.release_upgradable() };
        }
        if reads {
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
            // SAFETY: passed on.
            unsafe { self.release_exclusive_slow(manner) };
        }
    }

    /// # Safety
    ///
    /// As [`release_exclusive`](Self::release_exclusive).
    #[cold]
    unsafe fn release_exclusive_slow(&self, manner: Manner) {
        let _p4 = park::no_switch();
        loop {
            // ORDERING: Relaxed. The compare-exchange, or the gate, decides.
            let word = self.word.load(Relaxed);
            let on_its_way = manner == Manner::Free && is_on_its_way(word) && !self.is_overdue();
            if !on_its_way && word & (READERS_WAIT | UPGRADABLES_WAIT | WRITERS_WAIT) != 0 {
                let gate = self.gate.lock();
                // SAFETY: passed on.
                return unsafe { self.pass_on(gate, Next::Readers(manner)) };
            }
            // ORDERING: Release, the last touch, as above.
            if self.word.compare_exchange(word, word & !(WRITER | UPGRADED), Release, Relaxed).is_ok() {
                return;
            }
        }
    }

    /// Gives the write lock that the caller holds, together with the gate, to those who come next.
    ///
    /// # Safety
    ///
    /// As [`release_exclusive`](Self::release_exclusive).
    #[cold]
    unsafe fn pass_on(&self, gate: Gate<'_>, next: Next) {
        let _p4 = park::no_switch();
        // ORDERING: Relaxed. We are the writer and have the gate: nobody else writes (R1).
        let word = self.word.load(Relaxed);
        let keep = word & WOKEN;
        if next == Next::Writer
            && let Some(first) = self.waiting_writers.claim_first()
        {
            if word & (STARVING | WOKEN) == 0 {
                return self.call(gate, first);
            }
            // SAFETY: passed on.
            return unsafe { self.hand_to(gate, keep | self.waits(), first) };
        }
        // SAFETY: the lock is ours by the caller, and is given up for `held` below.
        let (admitted, held) = unsafe { self.claim_readers() };
        if held > 0 {
            // ORDERING: Release. Publishes what was written, for readers that come in by themselves; the others are ordered by their wake.
            self.word.store(keep | self.waits() | held, Release);
            drop(gate);
            // R4: until they are woken, they keep the lock alive.
            return admitted.wake();
        }
        let fair = next == Next::Readers(Manner::Fair) || word & STARVING != 0 || (keep != 0 && self.is_overdue());
        // Somebody is on its way already: it has the first turn.
        let call = fair || keep == 0;
        if call && let Some(first) = self.waiting_writers.claim_first() {
            if fair {
                // SAFETY: passed on.
                return unsafe { self.hand_to(gate, keep | self.waits(), first) };
            }
            return self.call(gate, first);
        }
        // Nobody. R4: the gate first, then the word.
        // ORDERING: Relaxed. Still ours.
        self.word.store(keep | self.waits() | WRITER, Relaxed);
        drop(gate);
        // SAFETY: passed on: the lock is still ours.
        unsafe { self.release_exclusive_slow(Manner::Free) };
    }

    /// Lets go of the write lock that the caller holds, and calls the claimed `first` to take it; others may be quicker. Nobody else is on its way.
    fn call(&self, gate: Gate<'_>, first: ClaimedNode) {
        let unit = first.complete(Outcome::Again);
        // ORDERING: Relaxed. A hint, see `is_overdue`.
        self.called_at.store(park::tick(), Relaxed);
        // ORDERING: Release. Publishes what was written, and what was read, to a writer that overtakes.
        self.word.store(self.waits() | WOKEN, Release);
        drop(gate);
        // R4: until it is woken, it keeps the lock alive.
        unit.wake(Wake::Handoff);
    }

    /// Whether a writer that is on its way should have come by now.
    fn is_overdue(&self) -> bool {
        #[cfg(loom)]
        if loom_overdue::ALWAYS.get() {
            return true;
        }
        // ORDERING: Relaxed. A hint: to let others in too early, beside one that is on its way, costs a wake and no more.
        park::tick().wrapping_sub(self.called_at.load(Relaxed)) >= 2
    }

    /// Makes the claimed `first` the writer.
    ///
    /// # Safety
    ///
    /// The write lock is the caller's to give.
    unsafe fn hand_to(&self, gate: Gate<'_>, word: usize, first: ClaimedNode) {
        let unit = first.complete(Outcome::Done);
        // Who has been handed the lock in a queue of the starving hands it on as well.
        // ORDERING: Relaxed. The wake publishes, and nobody but the new writer goes by this word.
        let starving = if word & WRITERS_WAIT != 0 { self.word.load(Relaxed) & STARVING } else { 0 };
        self.word.store(word | WRITER | starving, Relaxed);
        drop(gate);
        unit.wake(Wake::Handoff);
    }

    /// Claims all readers that wait and the first upgradable one, if it is not a writer's turn before (R3), and says how they hold the lock.
    /// Called with the gate.
    ///
    /// # Safety
    ///
    /// The caller is the writer, and gives the write lock up for what this says before it wakes them.
    unsafe fn claim_readers(&self) -> (Claimed, usize) {
        let mut admitted = self.waiting_readers.claim_all(Outcome::Done);
        let readers = admitted.len() * READER;
        // ORDERING: Relaxed. We are the writer and have the gate (R1).
        let skip = self.word.load(Relaxed) & UPGRADED != 0 && !self.waiting_writers.is_empty();
        let upgradable = !skip && self.waiting_upgradables.claim_some(Outcome::Done, 1, &mut admitted);
        (admitted, readers | if upgradable { UPGRADABLE } else { 0 })
    }

    /// The bits of those who wait, as the queues are. Called with the gate.
    fn waits(&self) -> usize {
        let bit = |queue: &WaitQueue, bit| if queue.is_empty() { 0 } else { bit };
        bit(&self.waiting_readers, READERS_WAIT)
            | bit(&self.waiting_writers, WRITERS_WAIT)
            | bit(&self.waiting_upgradables, UPGRADABLES_WAIT)
    }

    /// Turns the write lock that the caller holds into a read lock; readers that wait come in too, and the first upgradable one.
    ///
    /// # Safety
    ///
    /// As [`release_exclusive`](Self::release_exclusive).
    #[cfg(not(loom))]
    unsafe fn downgrade_exclusive(&self) {
        // ORDERING: Release. Publishes what was written to readers that come in.
        if self.word.compare_exchange(WRITER, READER, Release, Relaxed).is_err() {
            let gate = self.gate.lock();
            // SAFETY: the lock is ours by the caller, and given up in the next step.
            let (admitted, held) = unsafe { self.claim_readers() };
            // SAFETY: as above; one reader is ourselves.
            unsafe { self.step_down(gate, READER + held, admitted) };
        }
    }

    /// Turns the write lock that the caller holds into the upgradable lock; readers that wait come in too.
    ///
    /// # Safety
    ///
    /// As [`release_exclusive`](Self::release_exclusive).
    pub(super) unsafe fn downgrade_exclusive_to_upgradable(&self) {
        // ORDERING: Release, as above.
        if self.word.compare_exchange(WRITER, UPGRADABLE, Release, Relaxed).is_err() {
            let gate = self.gate.lock();
            let admitted = self.waiting_readers.claim_all(Outcome::Done);
            let held = UPGRADABLE | (admitted.len() * READER);
            // SAFETY: the lock is ours by the caller; the upgradable lock is for ourselves.
            unsafe { self.step_down(gate, held, admitted) };
        }
    }

    /// Gives the write lock up for `held`, the locks of the caller and of those in `admitted`.
    ///
    /// # Safety
    ///
    /// As [`release_exclusive`](Self::release_exclusive).
    #[cold]
    unsafe fn step_down(&self, gate: Gate<'_>, held: usize, admitted: Claimed) {
        let _p4 = park::no_switch();
        // ORDERING: Relaxed. We are the writer and have the gate (R1).
        let keep = self.word.load(Relaxed) & WOKEN;
        // ORDERING: Release. Publishes what was written to readers that come in.
        self.word.store(keep | self.waits() | held, Release);
        drop(gate);
        admitted.wake();
    }

    /// Readers that a queue holds back wait for longer than spinning helps.
    fn may_spin(&self, read: Read) -> bool {
        // ORDERING: Relaxed. A guess.
        self.word.load(Relaxed) & (WRITERS_WAIT | read.waits()) == 0
    }
}

/// Who comes next when the write lock passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The readers, if any wait; else a writer.
    Readers(Manner),
    /// A writer, if one waits; else the readers.
    Writer,
}

/// Tries, and leaves the lock alone for a moment in between: others of this worker run, who may be those that are waited for. Where there is no other
/// worker they are, and it is left to them to wake the caller. Who may give up lets nobody run: a pass of the run queue may be long.
fn spin(until: Until<'_>, mut attempt: impl FnMut() -> bool) -> bool {
    let mut backoff = Backoff::new();
    for _ in 0..ROUNDS {
        if attempt() {
            return true;
        }
        if park::is_on_only_worker() {
            break;
        }
        if until.is_ever() {
            park::linger(0);
        } else if !backoff.pause() {
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
            .field("upgradable", &(word & UPGRADABLE != 0))
            .field("writer", &(word & WRITER != 0))
            .field("waiting_readers", &(word & READERS_WAIT != 0))
            .field("waiting_upgradables", &(word & UPGRADABLES_WAIT != 0))
            .field("waiting_writers", &(word & (WRITERS_WAIT | WOKEN | UPGRADING) != 0))
            .finish()
    }
}

#[cfg(all(feature = "arc_lock", not(loom)))]
pub use api::{ArcRwLockReadGuard, ArcRwLockUpgradableReadGuard, ArcRwLockWriteGuard};
#[cfg(not(loom))]
pub use api::{
    MappedRwLockReadGuard, MappedRwLockWriteGuard, RwLock, RwLockReadGuard, RwLockUpgradableReadGuard,
    RwLockWriteGuard, const_rwlock,
};

#[cfg(not(loom))]
mod api;
mod word;

#[cfg(not(loom))]
const _: () = assert!(size_of::<RawRwLock>() == 8 + 9 * size_of::<usize>(), "the tick lies beside the gate");

/// Whether in a model all writers that were called are late.
#[cfg(loom)]
pub(super) mod loom_overdue {
    use std::cell::Cell;

    thread_local! {
        /// All threads of a model are one of the system's.
        pub(in crate::sync) static ALWAYS: Cell<bool> = const { Cell::new(false) };
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
