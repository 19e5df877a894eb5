//! How readers, the upgradable one included, come in and leave. What always holds is in the module above.

use super::{
    Gate, RawRwLock, spin,
    word::{
        CALLED, Heir, READER, READERS_WAIT, Read, UPGRADABLE, UPGRADABLES_WAIT, WRITER, WRITERS_WAIT, heir, upgraded,
    },
    writer::Next,
};
use crate::{
    facade::Ordering::{Acquire, Relaxed, Release},
    runtime::{
        park::{self, Wake},
        until::{self, Until},
        wait::Reason,
        waitq::{Claimed, Node, Outcome},
    },
};

impl RawRwLock {
    #[inline]
    pub(in crate::sync) fn try_acquire_shared(&self, read: Read) -> bool {
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
    pub(in crate::sync) fn acquire_shared(&self, read: Read, until: Until<'_>) -> bool {
        park::spend();
        self.try_acquire_shared(read) || self.acquire_shared_slow(read, until)
    }

    /// As [`try_acquire_shared`](Self::try_acquire_shared), for one that would wait otherwise (R8).
    fn enter(&self, read: Read) -> bool {
        // ORDERING: Relaxed. The compare-exchange decides.
        let mut word = self.word.load(Relaxed);
        while read.may_enter(word) || read.enters_meanwhile(word) {
            // ORDERING: Acquire, as above.
            match self.word.compare_exchange_weak(word, read.enter(word), Acquire, Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    #[cold]
    fn acquire_shared_slow(&self, read: Read, until: Until<'_>) -> bool {
        if self.enter(read) || (self.may_spin(read) && spin(until, || self.enter(read))) {
            return true;
        }
        let unit = park::current();
        let ticket = until.arm(unit);
        let node = Node::new(unit, ticket, std::ptr::null_mut());
        let gate = self.gate.lock();
        // ORDERING: Relaxed. The compare-exchange decides.
        let mut word = self.word.load(Relaxed);
        loop {
            let enters = read.may_enter(word) || read.enters_meanwhile(word);
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
    pub(in crate::sync) unsafe fn release_shared(&self) {
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
    pub(in crate::sync) unsafe fn release_upgradable(&self) {
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
            if word & (UPGRADABLES_WAIT | WRITERS_WAIT | CALLED) == UPGRADABLES_WAIT {
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
                self.hand_to(gate, upgraded((word & CALLED) | self.waits_still(word)), first);
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
    pub(super) unsafe fn downgrade_to_shared(&self) {
        let entered = self.try_acquire_shared(Read::Recursive);
        debug_assert!(entered, "there is no writer while we are the upgradable reader");
        // SAFETY: passed on.
        unsafe { self.release_upgradable() };
    }

    /// Readers that a queue holds back wait for longer than spinning helps.
    fn may_spin(&self, read: Read) -> bool {
        // ORDERING: Relaxed. A guess.
        self.word.load(Relaxed) & (WRITERS_WAIT | read.waits()) == 0
    }

    /// Counts all readers that wait as readers, and clears `bits` of the word. Called with the gate.
    ///
    /// # Safety
    ///
    /// A lock of the caller's own keeps writers out.
    pub(super) unsafe fn admit_readers(&self, bits: usize) -> Claimed {
        let admitted = self.waiting_readers.claim_all(Outcome::Done);
        // ORDERING: Relaxed, both. Nothing of ours is published: what we have read, the Release publishes with which our own lock is let go.
        // Those who come in see what the last writer wrote, since it comes before our own lock (the Acquire, or the wake, by which we got
        // it), and that before their wakes. Others' Releases stay in force: read-modify-writes carry them on, whatever their own ordering is.
        // Models: `loom_rwlock_*`.
        self.word.fetch_add(admitted.len() * READER, Relaxed);
        self.word.fetch_and(!(READERS_WAIT | bits), Relaxed);
        admitted
    }
}
