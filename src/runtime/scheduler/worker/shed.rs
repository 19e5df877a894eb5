//! Shedding: a worker that is short of time leaves what its goroutines start to others that have some.
//!
//! - B4: a worker has a crowd while many goroutines are ready at each tick and it is never out of work. When that has lasted, and another worker
//!   rests now and then, even a few fresh closures are not started here after some scheduling points (B2), but left to whoever is out of work first.
//!   If too many of them come tick after tick, and others rest all the same, the goroutines are too small, or talk too much with those here, to keep
//!   others busy; then nothing is shed for a while.
//!
//! The same look finds out whether thieves come at all, which B1 needs to know.

use std::{cell::Cell, sync::atomic::Ordering::Relaxed};

use super::Worker;
use crate::runtime::scheduler::processor::Processor;

/// Goroutines and fresh closures that are a crowd when they are ready.
pub(super) const CROWD: u32 = 4;
/// Ticks for which it has to last.
const LASTED: u32 = 4;
/// Closures that may come in one tick, of those that are left to others.
const MOST: u64 = 64;
/// Ticks in a row in which more came, before a pause, and its length in ticks.
const TOO_MANY: u32 = 4;
const PAUSE: u64 = 256;
/// Ticks since the last time that a worker was out of work, if it is now and then.
const RESTS: u64 = 2;

/// What a worker knows of its crowd, and of those who take from it.
#[derive(Default)]
pub(super) struct Shedding {
    /// The tick of the last look, and how many closures had come until then.
    seen: Cell<u64>,
    came: Cell<u64>,
    /// Looks in a row that have found a crowd.
    lasted: Cell<u32>,
    /// Whether others may take a few in this tick.
    sheds: Cell<bool>,
    /// Ticks in a row in which too many came for that.
    too_many: Cell<u32>,
    paused_until: Cell<u64>,
    /// How many closures the others had stolen until the last look, and whether some of them in the tick before.
    steals: Cell<u64>,
    thieves_come: Cell<bool>,
    /// How many closures had come when a thief was last woken for those that are shed.
    woken: Cell<u64>,
}

/// What the worker finds at a look.
struct Look {
    now: u64,
    /// What is ready, started or not.
    ready: u32,
    /// The tick in which the worker was last out of work.
    rested: u64,
    /// Closures that its goroutines have made.
    came: u64,
    /// Closures that the others have stolen.
    steals: u64,
}

impl Shedding {
    fn look(&self, look: &Look, others_rest: impl FnOnce() -> bool) {
        let before = self.seen.replace(look.now);
        self.thieves_come.set(self.steals.replace(look.steals) != look.steals);
        let too_many = if self.sheds.get() && !self.leaves(look.came) { self.too_many.get() + 1 } else { 0 };
        self.came.set(look.came);
        self.too_many.set(too_many % TOO_MANY);
        if too_many == TOO_MANY {
            self.paused_until.set(look.now + PAUSE);
        }
        let lasted = if look.ready >= CROWD && look.rested < before { self.lasted.get().saturating_add(1) } else { 0 };
        self.lasted.set(lasted);
        self.sheds.set(lasted >= LASTED && look.now >= self.paused_until.get() && others_rest());
    }

    /// Whether a few fresh closures are left to others, when so many have come.
    #[inline]
    fn leaves(&self, came: u64) -> bool {
        self.sheds.get() && came - self.came.get() <= MOST
    }
}

impl Worker {
    /// B4, once a tick.
    pub(super) fn look_at_crowd(&self, now: u64) {
        if self.shedding.seen.get() == now {
            return;
        }
        let look = Look {
            now,
            ready: self.queue.len() + self.fresh.len() as u32,
            rested: self.processor.last_rest(),
            came: self.came(),
            // ORDERING: Relaxed. A hint.
            steals: self.others().map(|p| p.published.steals.load(Relaxed)).sum(),
        };
        self.shedding.look(&look, || {
            let rests = |p: &Processor| !p.doze().has_ended() && (p.doze().is_asleep() || p.last_rest() + RESTS >= now);
            self.runtime.has_free_core() && self.others().any(rests)
        });
    }

    /// Closures that this worker's goroutines have made.
    #[inline]
    fn came(&self) -> u64 {
        // ORDERING: Relaxed. The own counter.
        self.processor.published.spawned.load(Relaxed)
    }

    /// Whether a few fresh closures are left to others (B4).
    #[inline]
    pub(super) fn sheds(&self) -> bool {
        self.shedding.leaves(self.came())
    }

    /// Whether a few are shed, and one of them is new since this was last asked.
    pub(super) fn sheds_anew(&self) -> bool {
        let came = self.came();
        self.shedding.leaves(came) && self.shedding.woken.replace(came) != came
    }

    /// Whether others have stolen closures in the last tick.
    pub(super) fn thieves_come(&self) -> bool {
        self.shedding.thieves_come.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd(now: u64, came: u64) -> Look {
        Look { now, ready: CROWD, rested: 0, came, steals: 0 }
    }

    /// Looks a tick apart by a worker that has a crowd, `came` closures before each; after which of them a few are left to others.
    fn looks(shedding: &Shedding, ticks: std::ops::Range<u64>, came: u64) -> Vec<bool> {
        let each = |now| {
            let came = shedding.came.get() + came;
            // What comes after the look decides at the next one.
            shedding.look(&crowd(now, came), || true);
            shedding.leaves(came)
        };
        ticks.map(each).collect()
    }

    #[test]
    fn b4_a_crowd_has_to_last() {
        let shedding = Shedding::default();
        assert_eq!(looks(&shedding, 1..6, 1), [false, false, false, false, true]);
        // Fewer are ready, or it was out of work since the last look.
        for (ready, rested) in [(CROWD - 1, 0), (CROWD, 10)] {
            looks(&shedding, 6..11, 1);
            shedding.look(&Look { ready, rested, ..crowd(11, shedding.came.get()) }, || true);
            assert_eq!(looks(&shedding, 12..16, 1), [false, false, false, true]);
        }
    }

    #[test]
    fn b4_nothing_is_left_to_those_who_are_busy() {
        let shedding = Shedding::default();
        assert!(looks(&shedding, 1..10, 0)[8]);
        shedding.look(&crowd(10, 0), || false);
        assert!(!shedding.leaves(0));
        shedding.look(&crowd(11, 0), || true);
        assert!(shedding.leaves(0));
    }

    #[test]
    fn b4_so_many_in_a_tick_and_after_some_such_ticks_a_pause() {
        let shedding = Shedding::default();
        looks(&shedding, 1..6, 0);
        assert!(shedding.leaves(MOST) && !shedding.leaves(MOST + 1));
        // Too many for three ticks, and one with fewer.
        assert_eq!(looks(&shedding, 6..9, MOST + 1), [true; 3]);
        assert_eq!(looks(&shedding, 9..10, MOST), [true]);
        assert_eq!(looks(&shedding, 10..13, MOST + 1), [true; 3]);
        assert!(looks(&shedding, 13..13 + PAUSE, MOST + 1).iter().all(|left| !left));
        assert_eq!(looks(&shedding, 13 + PAUSE..14 + PAUSE, MOST + 1), [true]);
    }

    #[test]
    fn b1_thieves_come_when_something_was_stolen_since_the_last_look() {
        let shedding = Shedding::default();
        let look = |now, steals| {
            shedding.look(&Look { steals, ..crowd(now, 0) }, || true);
            shedding.thieves_come.get()
        };
        assert_eq!([look(1, 0), look(2, 1), look(3, 1), look(4, 3)], [false, true, false, true]);
    }
}
