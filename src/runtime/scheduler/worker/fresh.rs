//! Fresh closures: which one is started next, and where.
//!
//! - B1: a worker prefers what it has started. When fresh closures have waited behind a run queue for more than a tick, the oldest may start, at most
//!   every other round, and only where no less loaded worker will come for them. A worker that sleeps is woken for them; one that is awake takes them
//!   when it is out of work, and takes one now and then if it is never out of work but has clearly less to do; one that a goroutine has held for long
//!   does not count. What nobody has come for in `LEFT_TICKS`, what is in excess of `LEFT_MOST`, and what waits behind a crowd that does not compute
//!   while nobody has clearly less to do, starts here all the same; but where more than `LEFT_LOAD` goroutines are ready, only if no thief has taken
//!   anything in the last tick, or after `LEFT_LONGEST`. Where only a few goroutines compute, one more makes a difference: then a worker that has
//!   fewer looks at each tick. Behind one goroutine that yields, alone, the newest starts at once, unless another worker has time.
//! - B2: a pair that talks stays together, load spreads as soon as it exists. When a scheduling point has passed over many fresh closures (at least
//!   `MANY`), or over any that have waited by B1, others may take them, the oldest first, one at a time; very many are taken in batches. Fewer than
//!   `MANY` are taken only from an owner that has stood still for a while (`STALL`). An owner that comes to scheduling points quickly starts them
//!   itself after `PATIENCE` of those points, unless it has a crowd (B4, [`shed`](super::shed)). If the points were not quick, a sleeper is woken.
//!   Others may take any that is left where the first turns of those that started here are long (`WORKS` of [`deal`](super::deal)). What was placed by
//!   a hint is left to its worker unless that one stands still for long (`STALL_PLACED`), or was notified and does not get up
//!   ([`Processor::is_late`]).
//! - B3: the goroutine started next after a successful `accept` is the connection's handler; it goes to the worker with the fewest connections, and
//!   among those to the one with the fewest goroutines; if that includes the worker that accepted, it stays there.
//! - B7: of a worker's own closures the newest is started first: who divides its work then has the goroutines of one path alive, not all of a level. But
//!   where so many in a row have not ended with their first turn (`PARKED`), they may wait for older ones that have not begun, and each holds a
//!   stack: then the oldest is started, for as long as those get further. Where they did not, it takes twice as many the next time.

use std::{
    cell::Cell,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use crossbeam_deque::Steal;

use super::{Next, SLICE, Worker, deal::RESTED, shed::CROWD};
use crate::{
    debug::{
        hooks::{self, TRACE},
        trace,
    },
    runtime::{
        clock,
        scheduler::processor::{Processor, count, count_many},
        slot::Accepted,
        task::TaskRef,
    },
};

/// Fresh closures that are many enough for thieves to share at once.
pub(super) const MANY: usize = 4;
/// Scheduling points within one tick that pass over fewer before one of them is started.
const PATIENCE: u32 = 16;
/// Ticks between two times at which the oldest is started though nothing waits before it: one more for so many goroutines that are alive, up to so
/// many more. Each of these times a program that divides its work begins with another part of it, and has the goroutines of one more path alive.
const OLDEST_TICKS: u64 = 2;
const OLDEST_LIVE: u64 = 64;
const OLDEST_MOST: u64 = 62;
/// How many fresh closures a worker leaves to less loaded ones, and for how many ticks, before it starts the oldest itself; and beside how many ready
/// goroutines it does not while others come for them.
const LEFT_MOST: usize = 128;
const LEFT_TICKS: u64 = 10;
const LEFT_LOAD: u32 = 8;
/// Ticks after which one starts even then.
const LEFT_LONGEST: u64 = 10 * LEFT_TICKS;
/// A closure behind an owner that has stood still this long may be taken.
pub(super) const STALL: Duration = Duration::from_micros(20);
/// The same for closures that were placed by a hint or with their connection: the owner may just have lost its core for a moment.
const STALL_PLACED: Duration = Duration::from_millis(10);
/// How many of the newest, one after the other, that do not end with their first turn let the oldest be started; and how many of the oldest end that.
const PARKED: u32 = 32;
const PARKED_OLDEST: u32 = 4;
/// From how many on they are taken in batches, and of how many. They are the oldest; of a batch the newest is started first.
const BATCH_OF: usize = 128;
const BATCH: usize = 64;
/// So many stacks are reserved at once; and of how many reservations that are not spoken for how many are given back.
const RESERVED: u32 = 64;
const CREDITS_MOST: u32 = 256;
const CREDITS_GIVEN_BACK: u32 = 128;

/// What a worker was found at (B2).
#[derive(Clone, Copy)]
pub(super) struct Seen {
    rounds: u64,
    /// A worker that has nothing to do looks around before it rests.
    looks: u64,
    /// When it was first found so.
    since: Instant,
}

impl Seen {
    pub(super) fn nothing(now: Instant) -> Self {
        Self { rounds: 0, looks: 0, since: now }
    }
}

/// B7: from which end own closures are started.
pub(super) struct Order {
    oldest: Cell<bool>,
    /// First turns in a row with which no goroutine ended, and how many of the newest ones' turn the order round.
    parked: Cell<u32>,
    turns_at: Cell<u32>,
}

impl Order {
    pub(super) const fn new() -> Self {
        Self { oldest: Cell::new(false), parked: Cell::new(0), turns_at: Cell::new(PARKED) }
    }

    /// How a first turn has gone.
    #[inline]
    pub(super) fn note(&self, ended: bool) {
        if ended {
            self.parked.set(0);
            if self.oldest.get() {
                self.turns_at.set(PARKED);
            }
            return;
        }
        let parked = self.parked.get() + 1;
        self.parked.set(parked);
        if parked >= if self.oldest.get() { PARKED_OLDEST } else { self.turns_at.get() } {
            self.turn_round();
        }
    }

    #[cold]
    fn turn_round(&self) {
        self.parked.set(0);
        let oldest = !self.oldest.get();
        self.oldest.set(oldest);
        if oldest {
            self.turns_at.set(self.turns_at.get().saturating_mul(2));
        }
    }
}

impl Worker {
    /// An id for a closure that this worker's goroutine starts.
    #[inline]
    pub(crate) fn new_id(&self) -> u64 {
        let id = self.next_id.get();
        if id == self.last_id.get() {
            let block = crate::runtime::lifecycle::id_block();
            self.next_id.set(block.start + 1);
            self.last_id.set(block.end);
            return block.start;
        }
        self.next_id.set(id + 1);
        id
    }

    /// Reserves a stack for one closure.
    #[inline]
    pub(crate) fn reserve(&self) -> std::io::Result<()> {
        let credits = self.credits.get();
        if credits == 0 {
            self.runtime.reserve(RESERVED as usize)?;
            self.credits.set(RESERVED - 1);
        } else {
            self.credits.set(credits - 1);
        }
        Ok(())
    }

    /// Takes a reservation back.
    #[inline]
    pub(crate) fn credit(&self) {
        let credits = self.credits.get() + 1;
        if credits >= CREDITS_MOST {
            self.runtime.give_back_credits(CREDITS_GIVEN_BACK);
            self.credits.set(credits - CREDITS_GIVEN_BACK);
        } else {
            self.credits.set(credits);
        }
    }

    /// Takes in a fresh closure that a goroutine of this worker has made. Never switches (P4).
    #[inline]
    pub(crate) fn push_fresh(&self, task: TaskRef) {
        count(&self.processor.published.spawned);
        if let Some(connection) = self.running_or_panicking().and_then(|slot| slot.accepted().take()) {
            return self.place_connection(task, &connection);
        }
        self.fresh_came();
        self.fresh.push(task);
    }

    /// B2: scheduling points are counted from now on, if they were not.
    #[inline]
    fn fresh_came(&self) {
        if self.fresh_patience.get() == 0 {
            self.fresh_patience.set(PATIENCE);
        }
    }

    /// B3.
    #[cold]
    fn place_connection(&self, task: TaskRef, connection: &Accepted) {
        // Those that have not started yet count as well.
        let yet = |p: &Processor| p.given.len() as u64;
        let load = |p: &Processor| (p.sockets() + yet(p) as i64, p.live() + yet(p));
        let least = self.runtime.processors().iter().copied().min_by_key(|p| load(p)).expect("a runtime has a worker");
        let (sockets, living) = load(self.processor);
        let others = i64::from(connection.listener_is_here);
        if load(least) >= (sockets - others + self.fresh.len() as i64, living) {
            self.fresh.push(task);
        } else {
            self.runtime.place(least, task);
        }
    }

    /// B2: tells thieves whether a scheduling point has passed over many fresh closures, or others over a few for long, or a few are shed (B4), or any
    /// that work are there, and wakes one when some are left. How many those are.
    #[inline]
    pub(super) fn publish_fresh(&self, now: u64, works: bool) -> usize {
        let left = self.fresh.len();
        let many = left >= MANY || (left > 0 && (works || self.fresh_waits(now) || self.sheds()));
        let flag = &self.processor.published.fresh_left;
        // ORDERING: Relaxed. One writer; `wake_one` fences before it looks for sleepers.
        if many != flag.load(Relaxed) {
            flag.store(many, Relaxed);
        }
        // A few are most often started here before anybody has got up, so that is tried once a tick, and once for each that is shed or works.
        let anew = || {
            left >= MANY
                || self.fresh_waits(now)
                || self.few_woken.replace(now) != now
                || self.sheds_anew()
                || (works && self.fresh_works_anew())
        };
        if left > 0 && self.runtime.idle().wants_waking() && anew() {
            self.runtime.wake_one();
        }
        left
    }

    /// B1: whether fresh closures have waited behind the run queue for more than a tick.
    #[inline]
    fn fresh_waits(&self, now: u64) -> bool {
        self.fresh_credit.get() > 0 && now.wrapping_sub(self.fresh_since.get()) >= 2
    }

    /// B2: when a few fresh closures have been passed over by a number of quick scheduling points, the newest; of many, thieves are told. Its
    /// owner would be back here long before a thief had got up, and what it talks to is here.
    #[inline]
    pub(super) fn few_fresh(&self) -> Option<TaskRef> {
        let now = clock::now();
        if self.fresh_tick.get() != now {
            self.fresh_tick.set(now);
            self.fresh_patience.set(PATIENCE);
        }
        let left = self.fresh_patience.get() - 1;
        self.fresh_patience.set(left);
        if left == PATIENCE / 2 {
            self.fresh_half.set(Some(Instant::now()));
        }
        if left > 0 { None } else { self.few_have_waited(now) }
    }

    #[cold]
    #[inline(never)]
    fn few_have_waited(&self, now: u64) -> Option<TaskRef> {
        if self.fresh_half.get().is_some_and(|half| half.elapsed() >= STALL * (PATIENCE / 2)) {
            // These points were not quick: whoever has time may take it.
            self.fresh_patience.set(PATIENCE);
            self.fresh_has_waited(now);
            self.publish_fresh(now, false);
            return None;
        }
        let few = self.fresh.len();
        let sheds = self.sheds();
        if few > 1 || sheds {
            self.fresh_patience.set(PATIENCE);
        }
        if few < MANY && !sheds {
            let task = self.fresh.pop();
            self.deal(few.saturating_sub(1));
            return task;
        }
        // Hand-offs may go on for a whole slice.
        self.publish_fresh(now, false);
        None
    }

    /// B1: hand-offs have used up a slice, which fresh closures have waited for as for a queue. It is their turn.
    #[cold]
    pub(super) fn fresh_has_waited(&self, now: u64) {
        if self.fresh_credit.get() == 0 && !self.fresh.is_empty() {
            self.fresh_credit.set(self.fresh.len());
            self.fresh_since.set(now.saturating_sub(SLICE));
            self.fresh_turn.set(false);
        }
    }

    /// The next one of its own: the newest, or the oldest (B7); now and then the oldest in any case.
    #[inline]
    pub(super) fn next_fresh(&self, now: u64) -> Option<TaskRef> {
        if now >= self.oldest_due.get()
            && let Some(oldest) = self.oldest_fresh(now)
        {
            return Some(oldest);
        }
        if self.order.oldest.get() { self.take_oldest() } else { self.fresh.pop() }
    }

    /// From the end at which thieves take as well.
    pub(super) fn take_oldest(&self) -> Option<TaskRef> {
        steal(|| self.processor.stealer.steal())
    }

    #[cold]
    fn oldest_fresh(&self, now: u64) -> Option<TaskRef> {
        let more = (self.processor.live() / OLDEST_LIVE).min(OLDEST_MOST);
        self.oldest_due.set(now + OLDEST_TICKS + more);
        self.take_oldest()
    }

    /// B1. Called with a run queue and fresh closures that wait behind it.
    pub(super) fn fresh_before_queue(&self, now: u64) -> Option<TaskRef> {
        // Whoever yields with nobody else ready waits for something, perhaps for a closure of its own. Or it computes: where another worker has time,
        // that one is woken after a while, unless this one yields often (`few_fresh`).
        let has_time = |p: &Processor| p.last_rest() + RESTED >= now || p.is_out_of_work();
        if self.queue.len() == 1 && self.yielded.get() && !self.others().any(|p| has_time(p) && self.will_come(p)) {
            let task = self.fresh.pop();
            self.deal(self.fresh.len());
            return task;
        }
        let turn = !self.fresh_turn.get();
        self.fresh_turn.set(turn);
        if self.fresh_credit.get() == 0 {
            self.fresh_since.set(now);
            self.fresh_credit.set(self.fresh.len());
            return None;
        }
        if !turn || !self.fresh_waits(now) {
            return None;
        }
        let mine = self.queue.len();
        let waited = now.wrapping_sub(self.fresh_since.get());
        // Where nobody computes, and none of the others is about to take one, there is little to gain by waiting.
        let soon = mine >= CROWD
            && !self.queue.has_patient()
            && !self.others().any(|p| p.ready() + difference(false) < mine && self.will_come(p));
        let excess = self.fresh.len() > LEFT_MOST;
        let too_long = excess || soon || waited >= LEFT_TICKS;
        // What starts here stays here, and a crowd of it would hold up whoever makes more.
        let leaves = !too_long || (mine > LEFT_LOAD && waited < LEFT_LONGEST && self.thieves_come());
        if leaves && self.others().any(|p| less_loaded(p, mine, now) && self.will_come(p)) {
            self.runtime.wake_one();
            return None;
        }
        if too_long {
            // Nobody comes, or not often enough. This one, and the others get their time again.
            self.fresh_since.set(now.saturating_sub(2));
        }
        self.fresh_credit.set(self.fresh_credit.get() - 1);
        self.take_oldest()
    }

    /// Whether a less loaded worker takes what is left here before long: it is woken, or looks around (`take_from_more_loaded`). One that has stood
    /// still for a few ticks may just have lost its core, and what starts here because of that stays here.
    fn will_come(&self, other: &Processor) -> bool {
        if other.doze().is_asleep() {
            !other.doze().has_ended() && self.runtime.has_free_core()
        } else {
            other.watch.held() < LEFT_TICKS
        }
    }

    /// B1, seen from the other side: one, from a worker that has more to run and leaves fresh closures behind; clearly more, if there are not just a
    /// few.
    pub(super) fn take_from_more_loaded(&self, few: bool) -> Option<TaskRef> {
        let enough = self.queue.len() + difference(few);
        let more = |p: &&'static Processor| p.leaves_fresh() && p.ready() > enough;
        let victim = self.others().filter(more).max_by_key(|p| p.ready())?;
        let task = steal(|| victim.stealer.steal())?;
        self.note_steal(&task, victim, 0);
        Some(task)
    }

    /// `more`: how many came with it.
    fn note_steal(&self, task: &TaskRef, victim: &Processor, more: u32) {
        count_many(&self.processor.published.steals, 1 + u64::from(more));
        if hooks::on(TRACE) {
            trace::steals(task, victim, more);
        }
    }

    /// A fresh closure from anywhere but the own deque.
    pub(super) fn take_elsewhere(&self) -> Option<Next> {
        if let Some(task) = steal(|| self.processor.given.steal()) {
            return Some(Next::Taken(task));
        }
        self.take_injected().map(Next::Fresh).or_else(|| self.steal_from_others().map(Next::Taken))
    }

    /// The oldest closure from outside. Whoever injected more of them may have found somebody searching, and has woken nobody then.
    pub(super) fn take_injected(&self) -> Option<TaskRef> {
        let task = steal(|| self.runtime.injector().steal())?;
        if !self.runtime.injector().is_empty() {
            self.runtime.wake_one();
        }
        Some(task)
    }

    pub(super) fn steal_from_others(&self) -> Option<TaskRef> {
        let processors = self.runtime.processors();
        // More workers than cores at work on them would only part those who talk (`idle`).
        if processors.len() == 1 || !(self.found_left.take() || self.has_core()) {
            return None;
        }
        let first = self.random(processors.len());
        for i in 0..processors.len() {
            let index = (first + i) % processors.len();
            if index == self.index {
                continue;
            }
            let victim = processors[index];
            let (mut found, mut more) = (None, 0);
            if victim.leaves_fresh() {
                found = steal(|| victim.stealer.steal()).and_then(|task| self.leave_half(task, victim, false));
            }
            if found.is_none() {
                let stall = self.stall(index, victim);
                if stall >= STALL {
                    (found, more) = self.steal_some(victim);
                    if more == 0 {
                        found = found.and_then(|task| self.leave_half(task, victim, true));
                    }
                }
                if found.is_none() && (stall >= STALL_PLACED || victim.is_late()) {
                    found = steal(|| victim.given.steal());
                }
            }
            if let Some(task) = &found {
                self.note_steal(task, victim, more);
                return found;
            }
        }
        None
    }

    /// From one that makes closures and comes to no scheduling point: of many a batch, since each look at its deque takes a line from it, and it goes
    /// on making them. Others may take them from here as well. One, and how many more are here now.
    fn steal_some(&self, victim: &Processor) -> (Option<TaskRef>, u32) {
        if victim.stealer.len() < BATCH_OF {
            return (steal(|| victim.stealer.steal()), 0);
        }
        let before = self.fresh.len();
        let first = steal(|| victim.stealer.steal_batch_with_limit_and_pop(&self.fresh, BATCH));
        self.fresh_came();
        (first, (self.fresh.len() - before) as u32)
    }

    /// B2: for how long the victim has had closures to start and has not come to a scheduling point, or for how long it has run between two of
    /// those since the last look, if it has not looked around meanwhile. One that rests does not count: it has no closures of its own, and
    /// whoever placed one there has notified it.
    pub(super) fn stall(&self, index: usize, victim: &Processor) -> Duration {
        if victim.doze().is_resting() || (victim.stealer.is_empty() && victim.given.is_empty()) {
            return Duration::ZERO;
        }
        // ORDERING: Relaxed. Hints.
        let (rounds, looks) = (victim.published.rounds.load(Relaxed), victim.published.looks.load(Relaxed));
        let mut watched = self.watched.borrow_mut();
        let seen = &mut watched[index];
        let (points, passed) = (rounds.wrapping_sub(seen.rounds), seen.since.elapsed());
        if points == 0 {
            return passed;
        }
        let busy = looks == seen.looks;
        *seen = Seen { rounds, looks, since: Instant::now() };
        match u32::try_from(points) {
            Ok(points) if busy => passed / points,
            _ => Duration::ZERO,
        }
    }

    fn random(&self, below: usize) -> usize {
        // Marsaglia's xorshift.
        let mut x = self.seed.get();
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        self.seed.set(x);
        x as usize % below
    }
}

/// Whether it is less loaded than a worker with `mine` ready, about as it sees that itself: one that is never out of work does not come for a small
/// difference (`take_from_more_loaded`). A difference that is almost enough soon is, and what waits for that can still go to either (`unequal`: 0.97 of
/// the cores busy, and 0.94 where only those count that would come now).
fn less_loaded(other: &Processor, mine: u32, now: u64) -> bool {
    let rests = other.is_out_of_work() || other.last_rest() + LEFT_TICKS >= now;
    other.ready() + if rests { 0 } else { difference(other.takes_one_more()).min(1) } < mine
}

/// By more than so much another worker has to be more loaded for one that is never out of work to take from it: by any, where there are a few that
/// compute, and otherwise clearly.
fn difference(few: bool) -> u32 {
    if few { 0 } else { 2 }
}

/// Repeats a steal that lost a race; the race was won by another, so this ends.
#[inline]
pub(crate) fn steal(mut attempt: impl FnMut() -> Steal<TaskRef>) -> Option<TaskRef> {
    loop {
        match attempt() {
            Steal::Success(task) => return Some(task),
            Steal::Empty => return None,
            Steal::Retry => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b7_the_order_turns_round_where_first_turns_park() {
        let order = Order::new();
        let park = |times| (0..times).for_each(|_| order.note(false));
        park(PARKED - 1);
        assert!(!order.oldest.get());
        order.note(true);
        park(PARKED - 1);
        assert!(!order.oldest.get(), "not in a row");
        park(1);
        assert!(order.oldest.get());
        park(PARKED_OLDEST - 1);
        order.note(true);
        park(PARKED_OLDEST - 1);
        assert!(order.oldest.get(), "it pays");
        park(1);
        assert!(!order.oldest.get());
        park(PARKED);
        assert!(order.oldest.get());
        park(PARKED_OLDEST);
        assert!(!order.oldest.get());
        park(2 * PARKED - 1);
        assert!(!order.oldest.get(), "it did not help");
        park(1);
        assert!(order.oldest.get());
    }

    /// Nobody leaves closures to a worker that does not come for them: one that is never out of work and has only a little less to do.
    #[test]
    fn b1_who_is_a_little_less_loaded_comes_if_it_rests_or_has_a_few_that_compute() {
        const NOW: u64 = 100;
        let other = Processor::acquire().unwrap();
        // Not begun: out of work.
        assert!(less_loaded(other, 1, NOW));
        other.doze().wake_up();
        // One that runs.
        assert_eq!(other.ready(), 1);
        let least = || (0..10).find(|mine| less_loaded(other, *mine, NOW));
        assert_eq!(least(), Some(3));
        other.set_takes_one_more(true);
        assert_eq!(least(), Some(2));
        other.set_takes_one_more(false);
        other.rests(NOW - LEFT_TICKS);
        other.ends_rest();
        assert_eq!(least(), Some(2));
        other.rests(NOW - LEFT_TICKS - 1);
        other.ends_rest();
        assert_eq!(least(), Some(3));
        other.release();
    }
}
