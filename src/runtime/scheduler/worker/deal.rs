//! Dealing: goroutines that are started together are spread over the workers that have time.
//!
//! - B5: a worker that is out of started goroutines starts its fresh closures one after the other, far sooner than a worker that sleeps gets up
//!   to take some. Where they wait before they work, like the stages of a pipeline, all would stay here for good. So when `KEPT` of them have started
//!   and have not ended, it deals as many of the oldest to each worker that has time as it has itself. A few talk faster on one worker, and stay;
//!   but where closures that others have taken lately had long first turns, half of a few are dealt at once. Goroutines that make others divide
//!   their work already: then the count begins anew.

use std::{
    cell::Cell,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use super::{
    Worker,
    fresh::{MANY, steal},
};
use crate::runtime::{clock, scheduler::processor::Processor, task::TaskRef};

/// Goroutines started one after the other that have not ended, before the next ones are dealt. Fewer talk faster on one worker.
const KEPT: u64 = 3;
/// Ticks since the last time that a worker was out of work, if it has time.
const RESTED: u64 = 1;
/// A first turn is long when it is as long as it takes to wake a worker, within these bounds.
const LONG: (Duration, Duration) = (Duration::from_micros(10), Duration::from_micros(50));
/// By which part of the difference a longer or a shorter first turn changes what is known of them, and the longest that counts: one that was long
/// may have lost its core.
const LONGER: u64 = 4;
const SHORTER: u64 = 2;
const LONGEST: Duration = Duration::from_micros(100);
/// Of so many closures that were made elsewhere, one's first turn is measured.
const MEASURED: u32 = 8;

/// The closures that wait here, since there were several.
#[derive(Default)]
pub(super) struct Dealing {
    /// Whether there are several.
    open: Cell<bool>,
    /// Closures that goroutines of this worker had made then, and goroutines that had started and ended on it.
    made: Cell<u64>,
    started: Cell<u64>,
    ended: Cell<u64>,
    /// Whom it deals to, if there was anybody, and how many that one has got.
    to: Cell<Option<(&'static Processor, u64)>>,
    /// How many of the others that is, in the order in which they are asked.
    passed: Cell<usize>,
    /// Closures from elsewhere that were started since the last whose first turn was measured.
    pub(super) taken: Cell<u32>,
}

impl Worker {
    /// B5, when a closure is started and so many are left.
    #[inline]
    pub(super) fn deal(&self, left: usize) {
        if left > 0 {
            self.deal_some(left);
        } else {
            self.dealing.open.set(false);
        }
    }

    #[cold]
    fn deal_some(&self, left: usize) {
        let dealing = &self.dealing;
        // ORDERING: Relaxed. The own counters.
        let [made, started, ended] = {
            let published = &self.processor.published;
            [&published.spawned, &published.started, &published.ended].map(|counter| counter.load(Relaxed))
        };
        if !dealing.open.replace(true) || made != dealing.made.get() {
            dealing.made.set(made);
            dealing.started.set(started);
            dealing.ended.set(ended);
            dealing.to.set(None);
            dealing.passed.set(0);
        }
        let wait = (started - dealing.started.get()).saturating_sub(ended - dealing.ended.get());
        let share = if wait >= KEPT {
            // Beside them the one that is started now, and whoever has made them all.
            wait + 2
        } else if left < MANY && self.runtime.first_turns.known() >= self.wake_time.get().clamp(LONG.0, LONG.1) {
            left.div_ceil(2) as u64
        } else {
            return;
        };
        loop {
            if let Some((to, mut dealt)) = dealing.to.get() {
                while dealt < share {
                    let Some(task) = steal(|| self.processor.stealer.steal()) else { return };
                    self.runtime.place(to, task);
                    dealt += 1;
                }
                dealing.to.set(Some((to, dealt)));
            }
            let (before, from) = self.runtime.processors().split_at(self.index);
            let mut next = from[1..].iter().chain(before).copied().enumerate().skip(dealing.passed.get());
            let Some((at, to)) = next.find(|(_, other)| self.has_time(other)) else { return };
            dealing.passed.set(at + 1);
            dealing.to.set(Some((to, 0)));
        }
    }

    fn has_time(&self, other: &Processor) -> bool {
        let rests = other.doze().is_resting() || other.last_rest() + RESTED >= clock::now();
        rests && !other.doze().has_ended() && self.runtime.has_free_core()
    }

    /// Starts a closure that was made elsewhere. How long its first turn is, is noted of the first after a rest, and of some others.
    // Never inlined: see `start`.
    #[inline(never)]
    pub(super) fn start_taken(&self, task: TaskRef) {
        let taken = self.dealing.taken.get();
        self.dealing.taken.set((taken + 1) % MEASURED);
        let begin = (taken == 0).then(Instant::now);
        self.start(task);
        if let Some(begin) = begin {
            self.runtime.first_turns.note(begin.elapsed());
        }
    }
}

/// How long first turns are of closures that start on another worker than they were made on.
#[derive(Default)]
pub(crate) struct FirstTurns(std::sync::atomic::AtomicU64);

impl FirstTurns {
    fn known(&self) -> Duration {
        // ORDERING: Relaxed. A hint.
        Duration::from_nanos(self.0.load(Relaxed))
    }

    fn note(&self, turn: Duration) {
        // ORDERING: Relaxed. A hint: two at once may count for one.
        let (known, turn) = (self.0.load(Relaxed), turn.min(LONGEST).as_nanos() as u64);
        self.0.store(
            if turn > known { known + (turn - known) / LONGER } else { known - (known - turn) / SHORTER },
            Relaxed,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b5_one_long_turn_is_not_enough_and_short_ones_count_more() {
        let turns = FirstTurns::default();
        let note = |micros| {
            turns.note(Duration::from_micros(micros));
            turns.known().as_micros()
        };
        assert_eq!([note(1_000_000), note(60), note(60), note(60)], [25, 33, 40, 45]);
        assert_eq!([note(1), note(1), note(1)], [23, 12, 6]);
    }
}
