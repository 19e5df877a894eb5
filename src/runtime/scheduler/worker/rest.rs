//! A worker with nothing to do: it searches for a moment, gives memory back, and sleeps in its poller.
//!
//! The steps S1 to S3 are those of [`idle`](crate::runtime::scheduler::idle).

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use super::{Worker, fresh::STALL};
use crate::runtime::{
    bubble::Bubble,
    clock,
    scheduler::processor::{Processor, count},
    task_memory,
};

/// The longest search before sleep, but for one that expects an answer: see `answer_limit`.
pub(super) const SEARCH_MAX: Duration = Duration::from_micros(50);
/// The longest one of those.
const ANSWER_MAX: Duration = Duration::from_micros(200);
/// By which part of the difference a quicker or a slower wake changes what is known of how long they take: a slow one may have waited for the core.
const QUICKER: u32 = 2;
const SLOWER: u32 = 16;
/// The shortest search that is worth beginning.
const SEARCH_MIN: Duration = Duration::from_micros(2);
/// Searches in a row that answers outlast before the worker does without, and for how many sleeps that answers end.
const OUTLASTED: u32 = 4;
const UNSEARCHED: u32 = 256;
/// Looks at the inbox between two looks everywhere, with a pause after each.
const ANSWER_LOOKS: u32 = 64;
/// How long a worker naps while others are busy, and how often before it sleeps for good.
const NAP: Duration = Duration::from_millis(1);
const NAPS: u32 = 8;
/// Idle stacks given back to the kernel between two looks for work.
const TRIM_BATCH: usize = 64;
/// Magazines of idle task memory that are sorted between two looks for work.
const TRIM_MAGAZINES: usize = 4;
/// How long a worker that has more to give back sleeps while others are at work.
const TRIM_PAUSE: Duration = Duration::from_millis(1);
/// How often a worker of a bubble looks whether a lock comes free that somebody outside may hold, and the pause before each look.
const FOREIGN_LOCK_LOOKS: u32 = 10;
const FOREIGN_LOCK_PAUSE: Duration = Duration::from_millis(1);
/// Ticks between two times at which a worker gives back what deep calls have touched, as far as it is busy in between.
const TRIM_DEEP_PAUSE: u64 = 16;

impl Worker {
    pub(super) fn may_end(&self) -> bool {
        let nothing_left = || self.processor.live() == 0 && self.stalled.get().is_none() && !self.has_work();
        self.runtime.closing().may_end(nothing_left)
    }

    /// Whether there is anything for this worker to do now.
    fn has_work(&self) -> bool {
        self.has_own_work() || self.others_leave_work()
    }

    fn has_own_work(&self) -> bool {
        !self.queue.is_empty()
            || !self.processor.inbox().is_empty()
            || !self.fresh.is_empty()
            || !self.processor.given.is_empty()
            || !self.runtime.injector().is_empty()
            || self.processor.has_errands()
    }

    /// What was placed with others does not count: they were notified, and the clock thread looks whether they stand still.
    fn others_leave_work(&self) -> bool {
        self.others().any(Processor::leaves_fresh) && self.has_core()
    }

    /// Whether there is a core for this worker beside the others that are awake.
    pub(super) fn has_core(&self) -> bool {
        self.runtime.has_core_beside(|| self.others().filter(|p| !p.doze().is_asleep()).count())
    }

    /// Where there are more workers than cores, and this one has no goroutines: another one that sleeps and has some. It will be up again, and then one of the
    /// two would lack a core.
    fn settled_sleeper(&self) -> Option<&'static Processor> {
        if !self.runtime.is_oversubscribed() || self.processor.live() > 0 {
            return None;
        }
        self.others().find(|p| p.is_settled() && p.doze().is_asleep())
    }

    /// Wakes such a worker for what others leave. The caller has fenced.
    fn leave_to_settled(&self) -> bool {
        self.settled_sleeper().is_some_and(Processor::notify_fenced)
    }

    pub(super) fn others(&self) -> impl Iterator<Item = &'static Processor> {
        self.runtime.processors().iter().copied().filter(|p| !std::ptr::eq(*p, self.processor))
    }

    fn others_stand_still(&self) -> bool {
        let processors = self.runtime.processors();
        processors
            .iter()
            .enumerate()
            .any(|(i, p)| i != self.index && !p.stealer.is_empty() && self.stall(i, p) >= STALL)
    }

    /// Searches, then sleeps, until there may be something to do.
    #[cold]
    pub(super) fn rest(&self) {
        if self.bubble().is_some_and(|bubble| self.all_wait(bubble)) {
            return;
        }
        self.dealing.taken.set(0);
        let searches = self.looks_before_sleep() && self.may_search() && self.unsearched.get() == 0;
        self.vain.set(self.vain.get().wrapping_add(1));
        if searches && self.search() {
            self.processor.ends_rest();
            self.vain.set(0);
            self.outlasted.set(0);
            return;
        }
        let begin = Instant::now();
        self.sleep();
        let slept = begin.elapsed();
        if slept < self.answer_limit() && !self.processor.inbox().is_empty() {
            self.vain.set(0);
            self.answered_in_sleep(searches, slept);
        }
    }

    /// Tells the conductor of a bubble that nothing more is going to happen at this time (T2 of `bubble`); false when something may.
    fn all_wait(&self, bubble: &Bubble) -> bool {
        let published = &self.processor.published;
        if !bubble.is_conducted() || published.foreign.load(Relaxed) > 0 {
            return false;
        }
        if published.locks.load(Relaxed) > 0 {
            for _ in 0..FOREIGN_LOCK_LOOKS {
                std::thread::sleep(FOREIGN_LOCK_PAUSE);
                if self.has_own_work() {
                    return true;
                }
            }
        }
        bubble.all_wait();
        true
    }

    /// The first deadline that a goroutine of this worker waits for, or, if it is far, an earlier time; as [`clock::nanos`] counts.
    pub(crate) fn next_deadline(&self) -> u64 {
        self.timers.borrow_mut().next_look().map_or(u64::MAX, clock::nanos)
    }

    /// An answer came soon after the worker had gone to sleep. A search as long as the sleep would have paid, if who answered has a core of its own.
    /// If search after search ends just before the answer, it came because the core was free: some other process has the other one.
    fn answered_in_sleep(&self, searched: bool, slept: Duration) {
        let unsearched = self.unsearched.get();
        if unsearched > 0 {
            self.unsearched.set(unsearched - 1);
            return;
        }
        let outlasted = if searched { self.outlasted.get() + 1 } else { 0 };
        if outlasted < OUTLASTED {
            self.outlasted.set(outlasted);
            self.search.set(slept.max(SEARCH_MIN));
        } else {
            self.outlasted.set(0);
            self.unsearched.set(UNSEARCHED);
        }
    }

    /// The longest search for an answer: as long as two wakes take here, since who answers may have had to get up first. On a virtual machine, whose idle
    /// processors the host has to start, that is ten times as long as on others.
    fn answer_limit(&self) -> Duration {
        (2 * self.wake_time.get()).clamp(SEARCH_MAX, ANSWER_MAX)
    }

    /// Learns how long the wake took that has just ended a sleep.
    fn measure_wake(&self) {
        let took = clock::nanos(Instant::now()).saturating_sub(self.processor.notified_at());
        let (took, known) = (Duration::from_nanos(took).min(ANSWER_MAX), self.wake_time.get());
        self.wake_time.set(match took.checked_sub(known) {
            Some(more) => known + more / SLOWER,
            None => known - (known - took) / QUICKER,
        });
    }

    /// Whether a search takes nothing from anybody: there are others who may bring work, and a core for each that is awake or gets up.
    fn may_search(&self) -> bool {
        let (workers, cores) = (self.runtime.processors().len(), self.runtime.cores());
        workers > 1 && cores > 1 && (workers <= cores || self.runtime.awake() <= cores)
    }

    /// Whether to poll without waiting and to search before going to sleep. Where that has found nothing several times in a row, as with
    /// connections that wait for their peers, it is done now and then only: the sleep polls as well.
    pub(super) fn looks_before_sleep(&self) -> bool {
        let vain = self.vain.get();
        vain < 4 || vain.is_multiple_of(16)
    }

    /// Looks for work for a moment. The moment grows when it paid and shrinks when it did not.
    ///
    /// As many as the idle protocol lets look everywhere; the others look for what comes to them, since an answer often comes at once.
    fn search(&self) -> bool {
        let workers = self.runtime.processors().len();
        let limit = self.search.get();
        let begin = Instant::now();
        let mut everywhere = false;
        // Whether by an answer.
        let found = loop {
            // Who searches does not stand still (B2).
            self.count_round();
            everywhere = everywhere || self.runtime.idle().begin_search(workers);
            let answered = self.expect_answer();
            if answered || (everywhere && (self.has_work() || self.others_stand_still())) {
                break Some(answered);
            }
            if begin.elapsed() >= limit || !self.may_search() {
                break None;
            }
        };
        self.search.set(match found {
            Some(true) => (limit * 2).min(self.answer_limit()),
            Some(false) => (limit * 2).min(SEARCH_MAX),
            None => (limit / 2).max(SEARCH_MIN),
        });
        if everywhere {
            let idle = self.runtime.idle();
            match found {
                None => _ = idle.end_search(),
                // Others may sleep beside more of the same. Who has something of its own does not come to what was injected so soon; who has not
                // sees it in `take_injected`.
                Some(answered) => {
                    let injected = || self.has_more_urgent(answered) && !self.runtime.injector().is_empty();
                    if idle.end_search_with_more(|| self.others_leave_work() || injected()) {
                        self.runtime.wake_one();
                    }
                }
            }
        }
        found.is_some()
    }

    /// Whether there is something that comes before what was injected.
    fn has_more_urgent(&self, answered: bool) -> bool {
        answered || !self.processor.inbox().is_empty() || !self.processor.given.is_empty()
    }

    /// Looks at the inbox for a short while, since that is where goroutines of other workers answer.
    fn expect_answer(&self) -> bool {
        for _ in 0..ANSWER_LOOKS {
            if !self.processor.inbox().is_empty() {
                return true;
            }
            std::hint::spin_loop();
        }
        false
    }

    /// Sleeps until there may be something to do.
    pub(super) fn sleep(&self) {
        let mut naps = 0;
        loop {
            let pause = self.give_back_pages();
            self.runtime.idle().announce(self.processor.doze());
            // S3: the last look. S2 has fenced for `leave_to_settled`.
            let left = self.others_leave_work() && !self.leave_to_settled();
            self.found_left.set(left);
            let work = left || self.has_own_work() || self.may_end();
            let mut napping = false;
            if !work {
                let (timeout, is_nap) = self.sleep_time(naps);
                let pause = pause.filter(|pause| timeout.is_none_or(|timeout| *pause < timeout));
                napping = is_nap || pause.is_some();
                count(&self.processor.published.looks);
                self.poll(pause.or(timeout));
            }
            // Getting up is a scheduling point: thieves count from here (B2).
            self.count_round();
            self.processor.rests(clock::now());
            let notified = self.runtime.idle().wake_up(self.processor.doze());
            if notified && !work {
                self.measure_wake();
                self.lend_core.leave_to_notifier(self.processor, self.runtime.processors(), clock::now());
            }
            if work || notified || !napping {
                break;
            }
            self.fire_timers();
            if self.has_work() {
                break;
            }
            if let Some(task) = self.steal_from_others() {
                self.fresh.push(task);
                break;
            }
            naps += 1;
        }
        self.processor.ends_rest();
        clock::active();
    }

    /// How long to wait in the poller, and whether that is a nap: while others are busy, somebody must look whether they leave
    /// closures behind without coming to a scheduling point. After the last nap the clock thread does, once a tick, and wakes a settled worker first.
    fn sleep_time(&self, naps: u32) -> (Option<Duration>, bool) {
        let workers = self.runtime.processors().len();
        // What a bubble's goroutines wait for does not come by itself.
        let next = if self.bubble().is_some() { None } else { self.timers.borrow_mut().next_look() };
        let until = next.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let napping = naps < NAPS
            && self.runtime.idle().sleeping() < workers
            && self.has_core()
            && self.settled_sleeper().is_none();
        match (until, napping) {
            (Some(until), true) if NAP < until => (Some(NAP), true),
            (Some(until), _) => (Some(until), false),
            (None, true) => (Some(NAP), true),
            (None, false) => (None, false),
        }
    }

    /// Gives pages of idle stacks back to the kernel for as long as nothing else is to be done. While others are at work only a few in
    /// each tick: to take a page away interrupts them. When some are left, how long to wait before the next time.
    fn give_back_pages(&self) -> Option<Duration> {
        let pause = self.give_back_deep_pages();
        let (now, workers) = (clock::now(), self.runtime.processors().len());
        while !self.has_work() {
            let alone = self.runtime.idle().sleeping() + 1 >= workers;
            if !alone && self.last_trim.replace(now) == now {
                let surplus = self.runtime.stacks().has_surplus() || task_memory::has_surplus();
                return surplus.then_some(TRIM_PAUSE).or(pause);
            }
            if self.runtime.stacks().trim(TRIM_BATCH) + task_memory::trim(TRIM_MAGAZINES) == 0 {
                break;
            }
        }
        pause
    }

    /// What only deep calls have touched, once in a while: a worker may come here thousands of times a second.
    fn give_back_deep_pages(&self) -> Option<Duration> {
        let mut stacks = self.stacks.borrow_mut();
        if !stacks.has_deep() {
            return None;
        }
        // The coarse clock may be asleep.
        let now = clock::precisely();
        let passed = now.wrapping_sub(self.last_trim_deep.get());
        if passed < TRIM_DEEP_PAUSE {
            return Some(clock::TICK * (TRIM_DEEP_PAUSE - passed) as u32);
        }
        self.last_trim_deep.set(now);
        stacks.trim_deep();
        None
    }
}
