//! Dealing: goroutines that are started together are spread over the workers that have time.
//!
//! - B5: a worker that is out of started goroutines starts its fresh closures one after the other, far sooner than a worker that sleeps gets up
//!   to take some. Where they wait before they work, like the stages of a pipeline, all would stay here for good. So when `KEPT` of them have started
//!   and have not ended, it deals as many of the oldest to each worker that has time as it has itself, one to each in turn. A few talk faster on one
//!   worker, and stay; but where closures that were taken lately had long first turns, they are shared at once. Goroutines that make others divide their
//!   work already: then the count begins anew.

use std::{
    cell::{Cell, RefCell},
    ops::Range,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::{
    Worker,
    fresh::{MANY, steal},
};
use crate::runtime::{clock, scheduler::processor::Processor, task::TaskRef};

/// Goroutines started one after the other that have not ended, before the next ones are dealt. Fewer talk faster on one worker.
const KEPT: u64 = 3;
/// Ticks since the last time that a worker was out of work, if it has time: it may have taken the first of those that are dealt just now.
const RESTED: u64 = 1;
/// Ticks for which a first turn is remembered.
const LATELY: u64 = 100;
/// A first turn is long when it is as long as it takes to wake a worker, within these bounds.
const LONG: (Duration, Duration) = (Duration::from_micros(10), Duration::from_micros(50));
/// By which part of the difference a longer or a shorter first turn changes what is known of them, and the longest that counts: one that was long
/// may have lost its core.
const LONGER: u64 = 4;
const SHORTER: u64 = 2;
const LONGEST: Duration = Duration::from_micros(100);
/// Of so many closures that were taken from elsewhere, one's first turn is measured.
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
    /// How many each of those who had time has got.
    dealt: Cell<u64>,
    /// Those who had time in the tick in which it was looked for them last.
    to: RefCell<Vec<&'static Processor>>,
    asked: Cell<u64>,
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
            dealing.dealt.set(0);
            dealing.asked.set(0);
        }
        // At least so many: who had started before may have ended since.
        let wait = (started - dealing.started.get()).saturating_sub(ended - dealing.ended.get());
        let few = left < MANY && self.runtime.first_turns.known() >= self.wake_time.get().clamp(LONG.0, LONG.1);
        if wait < KEPT && !few {
            return;
        }
        let now = clock::now();
        let mut to = dealing.to.borrow_mut();
        if dealing.asked.replace(now) != now {
            to.clear();
            // Whoever is up already has a core, or gets one.
            let free = self.runtime.has_free_core();
            let has_time = |other: &&Processor| {
                !other.doze().has_ended()
                    && other.given.is_empty()
                    && (free || !other.doze().is_asleep())
                    && (other.is_out_of_work() || (wait >= KEPT && other.last_rest() + RESTED >= now))
            };
            let (before, from) = self.runtime.processors().split_at(self.index);
            let others = from[1..].iter().chain(before).copied().filter(has_time);
            to.extend(others.take(self.runtime.cores().saturating_sub(1)));
        }
        // Beside those that wait, the one that is started now, and whoever has made them all.
        let each = if wait >= KEPT { wait + 2 } else { left.div_ceil(to.len() + 1) as u64 };
        let dealt = in_turn(&to, dealing.dealt.get()..each, |other| {
            let oldest = steal(|| self.processor.stealer.steal());
            oldest.map(|task| self.runtime.place(other, task)).is_some()
        });
        dealing.dealt.set(dealt);
    }

    /// Starts a closure that was taken from elsewhere. How long its first turn is, is noted of the first after a rest, and of some others.
    // Never inlined: see `execute`.
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

/// Gives one to each of `to` in turn, until each has got so many or `give` has no more; how many each has got, but perhaps for one more.
fn in_turn<T>(to: &[T], rounds: Range<u64>, mut give: impl FnMut(&T) -> bool) -> u64 {
    let mut dealt = rounds.start;
    while !to.is_empty() && dealt < rounds.end && to.iter().all(&mut give) {
        dealt += 1;
    }
    dealt
}

/// How long first turns are of closures that were taken from elsewhere: mostly made on another worker.
#[derive(Default)]
pub(crate) struct FirstTurns {
    nanos: AtomicU64,
    /// The tick of the last one.
    noted: AtomicU64,
}

impl FirstTurns {
    /// About how long they were lately; nothing if there were none.
    fn known(&self) -> Duration {
        // ORDERING: Relaxed, here and below. Hints: two at once may count for one.
        if clock::now() > self.noted.load(Relaxed) + LATELY {
            return Duration::ZERO;
        }
        Duration::from_nanos(self.nanos.load(Relaxed))
    }

    fn note(&self, turn: Duration) {
        let (known, turn) = (self.known().as_nanos() as u64, turn.min(LONGEST).as_nanos() as u64);
        let next = if turn > known { known + (turn - known) / LONGER } else { known - (known - turn) / SHORTER };
        self.nanos.store(next, Relaxed);
        self.noted.store(clock::now(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many closures are on each worker, the one that has made them first, when all others have time.
    fn homes(closures: u64, workers: usize) -> Vec<u64> {
        let (mut left, mut here, mut there) = (closures, 0, vec![0; workers - 1]);
        let (others, mut dealt): (Vec<usize>, _) = ((0..workers - 1).collect(), 0);
        while left > 0 {
            left -= 1;
            if here >= KEPT {
                dealt = in_turn(&others, dealt..here + 2, |other| {
                    let gives = left > 0;
                    left -= u64::from(gives);
                    there[*other] += u64::from(gives);
                    gives
                });
            }
            here += 1;
        }
        [vec![here], there].concat()
    }

    #[test]
    fn b5_all_get_as_many() {
        assert_eq!(homes(4, 2), [4, 0]);
        assert_eq!(homes(9, 2), [4, 5]);
        assert_eq!(homes(16, 2), [8, 8]);
        assert_eq!(homes(9, 4), [4, 2, 2, 1]);
        assert_eq!(homes(16, 8), [4, 2, 2, 2, 2, 2, 1, 1]);
        assert_eq!(homes(64, 4), [16, 16, 16, 16]);
    }

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
