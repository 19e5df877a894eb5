//! How the writer comes in, leaves, and passes the lock on. What always holds is in the module above.

use std::time::Instant;

use super::{
    Gate, RawRwLock, spin,
    word::{
        CALLED, LENIENT, NO_CALL, QUEUES, READER, READERS_WAIT, Read, STARVING, UPGRADABLE, UPGRADABLES_WAIT, UPGRADED,
        WOKEN, WRITER, WRITERS_WAIT, can_write, is_on_its_way,
    },
};
use crate::{
    facade::Ordering::{Acquire, Relaxed, Release},
    runtime::{
        park::{self, Wake},
        until::{self, Until},
        wait::Reason,
        waitq::{Claimed, ClaimedNode, Node, Outcome, WaitQueue},
    },
    sync::mutex::{Manner, out_of_patience},
};

impl RawRwLock {
    #[inline]
    pub(in crate::sync) fn try_acquire_exclusive(&self) -> bool {
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
    pub(in crate::sync) fn acquire_exclusive(&self, until: Until<'_>) -> bool {
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
            // One of them is ours. The other's owner comes by as well, without it.
            mine = CALLED;
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
    pub(in crate::sync) unsafe fn release_exclusive(&self, manner: Manner) {
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
            // R8: to a writer that was called behind readers the lock is left only while no others wait.
            let called = is_on_its_way(word) || word & (LENIENT | READERS_WAIT) == LENIENT;
            let leaves_it_to_the_called = manner == Manner::Free && called && !self.is_overdue();
            if !leaves_it_to_the_called && word & QUEUES != 0 {
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
    pub(super) unsafe fn pass_on(&self, gate: Gate<'_>, next: Next) {
        let _p4 = park::no_switch();
        // ORDERING: Relaxed. We are the writer and have the gate: nobody else writes (R1).
        let word = self.word.load(Relaxed);
        // The bit of a writer that has been called stays until that one comes by.
        let called = word & CALLED;
        // A writer, since the last reader has left.
        if next == Next::Writer
            && let Some(first) = self.waiting_writers.claim_first()
        {
            if word & NO_CALL == 0 {
                return self.call(gate, first);
            }
            // One starves, and has its turn now (so without `STARVING`); or the one that has been called is overdue (`heir`).
            // SAFETY: passed on.
            return unsafe { self.hand_to(gate, called | self.waits(), first) };
        }
        // Else all readers that wait.
        // SAFETY: the lock is ours by the caller, and is given up for `held` below.
        let (admitted, held) = unsafe { self.claim_readers() };
        if held > 0 {
            // SAFETY: passed on.
            return unsafe { self.let_readers_in(gate, word, admitted, held) };
        }
        // Else a writer: it is handed the lock, or called, or the one that has been called has the first turn.
        let must_hand_over =
            next == Next::Readers(Manner::Fair) || word & STARVING != 0 || (called != 0 && self.is_overdue());
        if (must_hand_over || called == 0)
            && let Some(first) = self.waiting_writers.claim_first()
        {
            if must_hand_over {
                // Who has been handed the lock in a queue of the starving hands it on as well.
                // SAFETY: passed on.
                return unsafe { self.hand_to(gate, called | self.waits_still(word), first) };
            }
            return self.call(gate, first);
        }
        // Nobody. R4: the gate first, then the word.
        // ORDERING: Relaxed. Still ours.
        self.word.store(called | self.waits() | WRITER, Relaxed);
        drop(gate);
        // SAFETY: passed on: the lock is still ours.
        unsafe { self.release_exclusive_slow(Manner::Free) };
    }

    /// Gives the write lock that the caller holds, together with the gate, up for `held`, the locks of the readers in `admitted`. Behind them a writer
    /// is called, unless one starves or has been called (R8). `word` is that of the lock.
    ///
    /// # Safety
    ///
    /// As [`release_exclusive`](Self::release_exclusive).
    unsafe fn let_readers_in(&self, gate: Gate<'_>, word: usize, mut admitted: Claimed, mut held: usize) {
        let claimed = if word & NO_CALL == 0 { self.waiting_writers.claim_first() } else { None };
        let called = if claimed.is_some() { LENIENT } else { word & CALLED };
        let writer = claimed.map(|first| {
            // ORDERING: Relaxed. A hint, see `is_overdue`.
            self.called_at.store(park::tick(), Relaxed);
            first.complete(Outcome::Again)
        });
        // `claim_readers` may have let an upgradable one wait for writers that have run out of time since.
        let no_writer = called == 0 && self.waiting_writers.is_empty();
        if no_writer && held & UPGRADABLE == 0 && self.waiting_upgradables.claim_some(Outcome::Done, 1, &mut admitted) {
            held |= UPGRADABLE;
        }
        // ORDERING: Release. Publishes what was written, for readers that come in by themselves; the others are ordered by their wake.
        self.word.store(called | self.waits_still(word) | held, Release);
        drop(gate);
        // R4: until they are woken, they keep the lock alive.
        admitted.wake();
        if let Some(writer) = writer {
            writer.wake(Wake::Queue);
        }
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
    pub(super) fn is_overdue(&self) -> bool {
        #[cfg(loom)]
        if super::loom_overdue::ALWAYS.get() {
            return true;
        }
        // ORDERING: Relaxed. A hint: to let others in too early, beside one that is on its way, costs a wake and no more.
        park::tick().wrapping_sub(self.called_at.load(Relaxed)) >= 2
    }

    /// Makes the claimed `first` the writer; `word` is what is kept of the word, and who waits.
    ///
    /// # Safety
    ///
    /// The write lock is the caller's to give.
    pub(super) unsafe fn hand_to(&self, gate: Gate<'_>, word: usize, first: ClaimedNode) {
        let unit = first.complete(Outcome::Done);
        // ORDERING: Relaxed. The wake publishes, and nobody but the new writer goes by this word.
        self.word.store(word | WRITER, Relaxed);
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
        let word = self.word.load(Relaxed);
        let skip = word & UPGRADED != 0 && (word & LENIENT != 0 || !self.waiting_writers.is_empty());
        let upgradable = !skip && self.waiting_upgradables.claim_some(Outcome::Done, 1, &mut admitted);
        (admitted, readers | if upgradable { UPGRADABLE } else { 0 })
    }

    /// The bits of those who wait, as the queues are. Called with the gate.
    pub(super) fn waits(&self) -> usize {
        let bit = |queue: &WaitQueue, bit| if queue.is_empty() { 0 } else { bit };
        bit(&self.waiting_readers, READERS_WAIT)
            | bit(&self.waiting_writers, WRITERS_WAIT)
            | bit(&self.waiting_upgradables, UPGRADABLES_WAIT)
    }

    /// As [`waits`](Self::waits), with `STARVING` of `word` as long as writers wait.
    pub(super) fn waits_still(&self, word: usize) -> usize {
        self.waits() | if self.waiting_writers.is_empty() { 0 } else { word & STARVING }
    }

    /// Turns the write lock that the caller holds into a read lock; readers that wait come in too, and the first upgradable one.
    ///
    /// # Safety
    ///
    /// As [`release_exclusive`](Self::release_exclusive).
    #[cfg(not(loom))]
    pub(super) unsafe fn downgrade_exclusive(&self) {
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
    pub(in crate::sync) unsafe fn downgrade_exclusive_to_upgradable(&self) {
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
        let word = self.word.load(Relaxed);
        // ORDERING: Release. Publishes what was written to readers that come in.
        self.word.store((word & CALLED) | self.waits_still(word) | held, Release);
        drop(gate);
        admitted.wake();
    }
}

/// Who comes next when the write lock passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The readers, if any wait; else a writer.
    Readers(Manner),
    /// A writer, if one waits; else the readers.
    Writer,
}
