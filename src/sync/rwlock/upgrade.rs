//! How the upgradable reader becomes the writer (R6, R7 of the module above).

use super::{
    RawRwLock, spin,
    word::{UPGRADING, readers, upgraded},
};
use crate::{
    facade::Ordering::{Acquire, Relaxed},
    runtime::{
        park,
        until::{self, Until},
        wait::Reason,
        waitq::{Node, Outcome},
    },
};

impl RawRwLock {
    /// Makes the writer of the upgradable reader, if no other reader is there.
    ///
    /// # Safety
    ///
    /// The upgradable lock is held, and whoever holds it lets the caller do this.
    #[inline]
    pub(in crate::sync) unsafe fn try_upgrade_now(&self) -> bool {
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
    pub(in crate::sync) unsafe fn upgrade_until(&self, until: Until<'_>) -> bool {
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
}
