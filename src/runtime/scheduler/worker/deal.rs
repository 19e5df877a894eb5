//! Dealing: goroutines that are started together are spread over the workers that have time.
//!
//! - B5: a worker that is out of started goroutines starts its fresh closures one after the other, far sooner than a sleeping worker gets up to take
//!   some. If they wait before they work, like the stages of a pipeline, all would stay here for good. So when `KEPT` of them have started and have
//!   not ended, the worker deals the oldest to the workers that have time, one to each in turn, until each has as many as it has itself. A few talk
//!   faster on one worker, and stay; but if closures that other workers took lately had long first turns, a few are shared at once. So are twins,
//!   closures of one type that were made in one place, when the first of them waits to be given work, or has worked for long: they are a pool, or
//!   stages, and have more to do than to talk. A thief leaves half of them to whoever has made them and stands still. Goroutines that make others
//!   divide their work already: then the count begins anew.

use std::{
    cell::{Cell, Ref, RefCell},
    hint,
    ops::Range,
    ptr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::{
    Worker,
    fresh::{MANY, STALL, steal},
};
use crate::runtime::{clock, scheduler::processor::Processor, slot::Slot, task::TaskRef, wait::Reason};

/// Goroutines started one after the other that have not ended, before the next ones are dealt. Fewer talk faster on one worker.
const KEPT: u64 = 3;
/// So many twins are shared at most.
const TWINS: usize = 64;
/// Ticks since the last time that a worker was out of work, if it has time: it may have taken the first of those that are dealt just now.
pub(super) const RESTED: u64 = 1;
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
/// First turns of own closures from which on another worker may take any that is left: it costs a microsecond. And the longest that counts of those:
/// one alone says nothing.
const WORKS: Duration = Duration::from_micros(5);
const LONGEST_OWN: Duration = Duration::from_micros(19);

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
    /// Those who had time, or had had it just before, in the tick in which it was looked for them last.
    to: RefCell<Vec<&'static Processor>>,
    asked: Cell<Option<(u64, bool)>>,
    /// Closures from elsewhere that were started since the last whose first turn was measured.
    pub(super) taken: Cell<u32>,
    /// The tick in which it was looked last whether another worker has time, and the answer.
    looked: Cell<u64>,
    has_time: Cell<bool>,
    /// Whether it is looked at how the one that is started now begins, when that was, and whether its twins have been shared.
    watched: Cell<bool>,
    began: Cell<Option<Instant>>,
    shared: Cell<bool>,
    /// The goroutine that was taken last, if it waited after its first turn.
    waits: Cell<Option<&'static Slot>>,
    half: Cell<Half>,
    /// The tick in which the first turn of an own closure was measured last, and how long those were lately, in nanoseconds.
    measured: Cell<u64>,
    own_turns: Cell<u64>,
    /// How many own closures had been made when somebody was last woken for one that works.
    woken: Cell<u64>,
}

/// How many twins were taken from a worker one after the other while it stood still, and how many were left to it.
#[derive(Clone, Copy, Default)]
struct Half {
    of: Option<&'static Processor>,
    /// Its scheduling points, and the closures that it had to start, when the last one was taken.
    rounds: u64,
    left: usize,
    here: u32,
    there: u32,
}

/// Whether a worker comes to no scheduling point for as long as it would take to start many closures.
fn stands_still(victim: &Processor, rounds: u64) -> bool {
    let begin = Instant::now();
    while victim.rounds() == rounds {
        if begin.elapsed() >= STALL {
            return true;
        }
        (0..8).for_each(|_| hint::spin_loop());
    }
    false
}

/// Whether a goroutine waits to be given work, or for somebody to take what it has done.
fn waits_as_in_a_pool(reason: Reason) -> bool {
    reason.is_for_work() || reason == Reason::ChanSend
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
    #[inline(never)]
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
            dealing.shared.set(false);
            dealing.asked.set(None);
        }
        // At least so many: who had started before may have ended since.
        let wait = (started - dealing.started.get()).saturating_sub(ended - dealing.ended.get());
        let few = left < MANY && self.runtime.first_turns.known() >= self.long_turn();
        if wait < KEPT && !few {
            dealing.watched.set(
                !dealing.shared.get()
                    && (self.runtime.idle().somebody_rests() || (left <= TWINS && self.somebody_has_time())),
            );
            return;
        }
        let to = self.those_with_time(wait >= KEPT);
        // Beside those that wait, the one that is started now, and whoever has made them all.
        let each = if wait >= KEPT { wait + 2 } else { left.div_ceil(to.len() + 1) as u64 };
        let dealt = in_turn(&to, dealing.dealt.get()..each, |other| self.deal_oldest(other));
        dealing.dealt.set(dealt);
    }

    /// Whether another worker has time, or had it just before; looked for once a tick.
    fn somebody_has_time(&self) -> bool {
        let now = clock::now();
        if self.dealing.looked.replace(now) != now {
            let free = self.runtime.has_free_core();
            let has_time = |other: &Processor| {
                !other.doze().has_ended()
                    && (free || !other.doze().is_asleep())
                    && (other.is_out_of_work() || other.last_rest() + RESTED >= now)
            };
            self.dealing.has_time.set(self.others().any(has_time));
        }
        self.dealing.has_time.get()
    }

    /// A first turn is long when it is as long as it takes to wake a worker.
    fn long_turn(&self) -> Duration {
        self.wake_time.get().clamp(LONG.0, LONG.1)
    }

    /// The other workers that have time, or had it just before; as looked for once a tick.
    fn those_with_time(&self, or_just_before: bool) -> Ref<'_, [&'static Processor]> {
        let now = clock::now();
        let asked = Some((now, or_just_before));
        if self.dealing.asked.replace(asked) != asked {
            // Whoever is up already has a core, or gets one.
            let free = self.runtime.has_free_core();
            let has_time = |other: &&Processor| {
                !other.doze().has_ended()
                    && other.given.is_empty()
                    && (free || !other.doze().is_asleep())
                    && (other.is_out_of_work() || (or_just_before && other.last_rest() + RESTED >= now))
            };
            let (before, from) = self.runtime.processors().split_at(self.index);
            let others = || from[1..].iter().chain(before).copied();
            let mut to = self.dealing.to.borrow_mut();
            to.clear();
            let most = self.runtime.cores().saturating_sub(1);
            // Where workers outnumber the cores, those that have goroutines need one in any case; newcomers get only what those leave.
            let settled = |other: &&Processor| !self.runtime.is_oversubscribed() || other.is_settled();
            to.extend(others().filter(settled).filter(has_time).take(most));
            let needed = others().filter(settled).filter(|other| other.watch.held() == 0).count();
            let newcomers = others().filter(|other| !settled(other)).filter(has_time);
            to.extend(newcomers.take(most.saturating_sub(needed)));
        }
        Ref::map(self.dealing.to.borrow(), Vec::as_slice)
    }

    /// Whether there was one.
    fn deal_oldest(&self, other: &Processor) -> bool {
        self.take_oldest().map(|task| self.runtime.place(other, task)).is_some()
    }

    /// Starts a fresh closure.
    #[inline(always)]
    pub(super) fn start_fresh(&self, task: TaskRef) {
        if self.dealing.watched.get() {
            self.note_begin();
        }
        if self.dealing.measured.get() != clock::now() && !self.fresh.is_empty() {
            return self.start_measured(task);
        }
        let slot = self.start(task);
        if self.dealing.watched.get() {
            self.share_twins(slot);
        }
    }

    /// As [`start_fresh`](Self::start_fresh), of one beside which others wait.
    #[cold]
    #[inline(never)]
    fn start_measured(&self, task: TaskRef) {
        let dealing = &self.dealing;
        dealing.measured.set(clock::now());
        let begin = Instant::now();
        let slot = self.start(task);
        dealing.own_turns.set(lately(dealing.own_turns.get(), begin.elapsed().min(LONGEST_OWN)));
        if dealing.watched.get() {
            self.share_twins(slot);
        }
    }

    /// B2: whether the closures that were started here lately work, rather than talk.
    #[inline]
    pub(super) fn fresh_works(&self) -> bool {
        self.dealing.own_turns.get() >= WORKS.as_nanos() as u64 && clock::now() <= self.dealing.measured.get() + LATELY
    }

    /// Whether one has been made since this was last asked.
    pub(super) fn fresh_works_anew(&self) -> bool {
        // ORDERING: Relaxed. The own counter.
        let made = self.processor.published.spawned.load(Relaxed);
        self.dealing.woken.replace(made) != made
    }

    #[cold]
    #[inline(never)]
    fn note_begin(&self) {
        self.dealing.began.set(self.somebody_has_time().then(Instant::now));
    }

    /// When the goroutine that was started now, which has not ended, waits to be given work, or has worked for long and waits for somebody to take what it
    /// has done, so will its twins that were made with it: all workers that have time get as many of them, neighbours together. Once for all
    /// that were made at one time.
    #[cold]
    #[inline(never)]
    fn share_twins(&self, slot: Option<&'static Slot>) {
        let dealing = &self.dealing;
        dealing.watched.set(false);
        let long = dealing.began.take().is_some_and(|began| began.elapsed() >= LONG.0);
        let for_work = |reason: Reason| reason.is_for_work() || (long && reason == Reason::ChanSend);
        let Some(started) = slot.filter(|slot| for_work(slot.wait().reason)).and_then(Slot::task) else {
            return;
        };
        // ORDERING: Relaxed. The own counter.
        let divides = self.processor.published.spawned.load(Relaxed) != dealing.made.get();
        let to = self.those_with_time(long);
        if divides || to.is_empty() || dealing.shared.get() {
            return;
        }
        // What was made after them, such as whoever gives them work, stays where it is.
        let (mut above, mut twins) = (Vec::new(), Vec::new());
        while above.len() + twins.len() < TWINS
            && let Some(task) = self.fresh.pop()
        {
            match (task.is_twin_of(&started), twins.is_empty()) {
                (true, _) => twins.push(task),
                (false, true) => above.push(task),
                (false, false) => {
                    self.fresh.push(task);
                    break;
                }
            }
        }
        // With the one that has started.
        let each = (twins.len() + 1).div_ceil(to.len() + 1);
        let mut blocks = twins.split_off(twins.len().min(each - 1)).into_iter();
        for other in to.iter() {
            blocks.by_ref().take(each).for_each(|twin| self.runtime.place(other, twin));
        }
        debug_assert!(blocks.next().is_none(), "one block for each");
        twins.into_iter().rev().chain(above.into_iter().rev()).for_each(|task| self.fresh.push(task));
        if each > 1 {
            dealing.shared.set(true);
            dealing.dealt.set(each as u64);
        }
    }

    /// Starts a closure that was taken from elsewhere. How long its first turn is, is noted of the first after a rest, and of some others.
    // Never inlined: see `execute_plainly`.
    #[inline(never)]
    pub(super) fn start_taken(&self, task: TaskRef) {
        let taken = self.dealing.taken.get();
        self.dealing.taken.set((taken + 1) % MEASURED);
        let begin = (taken == 0).then(Instant::now);
        // ORDERING: Relaxed. The own counter.
        let made = || self.processor.published.spawned.load(Relaxed);
        let before = made();
        let slot = self.start(task);
        if let Some(begin) = begin {
            self.runtime.first_turns.note(begin.elapsed());
        }
        let divides = made() != before;
        self.dealing.waits.set(slot.filter(|slot| !divides && waits_as_in_a_pool(slot.wait().reason)));
    }

    /// A closure that is being taken from another worker. When its twin, which was taken just before, waits here, so will this one, and all of them would
    /// be here when a worker that stands still for a moment comes back. So that one is left as many as are taken.
    #[inline]
    pub(super) fn leave_half(&self, task: TaskRef, victim: &'static Processor, is_still: bool) -> Option<TaskRef> {
        if self.dealing.waits.get().is_some() { self.leave_half_of_twins(task, victim, is_still) } else { Some(task) }
    }

    /// `is_still`: whether it is known already that the victim has come to no scheduling point for a while.
    #[cold]
    #[inline(never)]
    fn leave_half_of_twins(&self, mut task: TaskRef, victim: &'static Processor, is_still: bool) -> Option<TaskRef> {
        let twin = self.waiting_twin();
        let cell = &self.dealing.half;
        while twin.as_ref().is_some_and(|twin| task.is_twin_of(twin)) {
            let (rounds, left) = (victim.rounds(), victim.stealer.len());
            let mut half = cell.get();
            if !half.of.is_some_and(|of| ptr::eq(of, victim)) {
                half = Half { of: Some(victim), here: 1, ..Half::default() };
            }
            // Whoever comes to scheduling points starts the others itself, and those who talk (`sieve`) are not parted more than they are; and who is
            // still making them has more.
            let was_still = half.rounds == rounds && half.left == left + 1;
            let is_still =
                is_still || (was_still && (half.there > 0 || (left <= TWINS && stands_still(victim, rounds))));
            (half.rounds, half.left) = (rounds, left);
            if is_still && half.here > half.there {
                half.there += 1;
                cell.set(half);
                self.runtime.place(victim, task);
                task = steal(|| victim.stealer.steal())?;
                continue;
            }
            (half.here, half.there) = if is_still { (half.here + 1, half.there) } else { (2, 0) };
            cell.set(half);
            return Some(task);
        }
        cell.set(Half::default());
        Some(task)
    }

    /// The goroutine that was taken last, if it has waited since its first turn.
    fn waiting_twin(&self) -> Option<TaskRef> {
        // A slot that names this worker is this thread's (G1), and with it the task that it names.
        let is_ours = |slot: &&Slot| ptr::eq(slot.worker_address(), self.processor);
        let waits = |slot: &&Slot| waits_as_in_a_pool(slot.wait().reason);
        self.dealing.waits.get().filter(is_ours).filter(waits).and_then(Slot::task)
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
        self.nanos.store(lately(self.known().as_nanos() as u64, turn), Relaxed);
        self.noted.store(clock::now(), Relaxed);
    }
}

/// About how long turns were lately, in nanoseconds, after one more.
fn lately(known: u64, turn: Duration) -> u64 {
    let turn = turn.min(LONGEST).as_nanos() as u64;
    if turn > known { known + (turn - known) / LONGER } else { known - (known - turn) / SHORTER }
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

    #[test]
    fn b2_one_long_turn_is_not_enough() {
        let works = |turns: &[u64]| {
            let turns = turns.iter().map(|micros| Duration::from_micros(*micros).min(LONGEST_OWN));
            turns.fold(0, lately) >= WORKS.as_nanos() as u64
        };
        assert_eq!(
            [&[1_000][..], &[14], &[14, 14], &[14, 14, 1], &[1, 14, 1, 1]].map(works),
            [false, false, true, false, false]
        );
    }
}
