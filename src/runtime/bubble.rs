//! A bubble: a runtime of one worker with a clock of its own, which moves only while all its goroutines wait. Tests are made of it
//! ([`synctest`](crate::synctest)).
//!
//! - T1: *time moves by one hand.* Only the *conductor*, the bubble's main goroutine, moves the clock, and only to the next deadline. All deadlines
//!   that are made on the bubble's worker are made and compared by that clock ([`present`](super::present)).
//! - T2: *who has nothing to run tells the conductor.* The worker does in place of resting, while no goroutine of the bubble waits for what happens
//!   outside: a descriptor, a process, a blocking call. If one waits for a lock, which somebody outside may hold, the worker gives that one
//!   a moment before.
//! - T3: but for taking alarms back, all here happens on the worker's thread, one step after the other. So between two looks of the conductor's at
//!   what is pending, nothing is added.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use crate::{
    Builder, JoinHandle,
    runtime::{
        alarm::Action,
        blocking, clock, panics,
        park::{self, Wake},
        scheduler::Worker,
        unit::Unit,
        wait::Reason,
        wheel::{Due, Key, Wheel},
    },
    util::Lock,
};

/// How many there are: while there is none the time is everybody's.
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// By their numbers, for who takes back alarms.
static ALL: Mutex<Vec<(u64, Weak<Bubble>)>> = Mutex::new(Vec::new());

/// For how long somebody outside may still wake a goroutine of a bubble in which nothing else is going to happen.
const LAST_CHANCE: Duration = Duration::from_millis(100);

/// See the module.
pub(crate) struct Bubble {
    number: u64,
    /// As [`clock::nanos`] counts.
    now: AtomicU64,
    state: Lock<State>,
}

struct State {
    alarms: Wheel<Action>,
    /// While it waits.
    conductor: Option<&'static Unit>,
    /// Who wants to be told the same.
    waiter: Option<&'static Unit>,
    random: u64,
}

impl State {
    /// Marsaglia's xorshift.
    fn random(&mut self) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 32) as usize
    }
}

/// Why nothing is going to happen any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stuck {
    /// All wait for each other.
    All,
    /// The first goroutine has ended, and with it time; others wait.
    Left,
}

/// Whether there is any.
#[inline]
pub(crate) fn is_any() -> bool {
    // ORDERING: Relaxed. Whoever is in a bubble was started by who counted it.
    COUNT.load(Relaxed) != 0
}

/// The caller's.
pub(crate) fn current<'a>() -> Option<&'a Bubble> {
    Worker::current()?.bubble()
}

/// The one with this number, if it is still there.
pub(crate) fn numbered(number: u64) -> Option<Arc<Bubble>> {
    let all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    all.iter().find(|(other, _)| *other == number)?.1.upgrade()
}

impl Bubble {
    /// Its time begins now.
    pub(crate) fn new() -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // ORDERING: Relaxed. A number that no other has.
        let number = NEXT.fetch_add(1, Relaxed);
        // ORDERING: SeqCst. No more than `is_any` asks.
        COUNT.fetch_add(1, SeqCst);
        let random = RandomState::new().build_hasher().finish() | 1;
        let state = State { alarms: Wheel::new(), conductor: None, waiter: None, random };
        let now = AtomicU64::new(clock::nanos(Instant::now()));
        let bubble = Arc::new(Self { number, now, state: Lock::new(state) });
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, bubble)| bubble.strong_count() > 0);
        all.push((number, Arc::downgrade(&bubble)));
        bubble
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn now(&self) -> Instant {
        // ORDERING: Relaxed. T3.
        clock::instant(self.now.load(Relaxed)).unwrap_or_else(Instant::now)
    }

    // ---- what goroutines do ----------------------------------------------------------------------------------------------

    /// Has `action` run at `at`, which is to come, on the conductor.
    pub(crate) fn set_alarm(&self, at: u64, action: Action) -> Key {
        self.state.lock().alarms.add(at, action)
    }

    /// Takes an alarm back, if it has not fired.
    pub(crate) fn take_alarm(&self, key: Key) -> Option<Action> {
        self.state.lock().alarms.take(key)
    }

    /// Waits until all others wait.
    ///
    /// # Panics
    ///
    /// When another goroutine of the bubble does the same.
    #[track_caller]
    pub(crate) fn settle(&self) {
        let unit = park::current();
        let mut state = self.state.lock();
        if state.waiter.is_some() {
            drop(state);
            panic!("synctest::wait is called while another goroutine of the bubble waits in it");
        }
        state.waiter = Some(unit);
        drop(state);
        unit.park(Reason::Settle.alone());
    }

    // ---- what the worker does --------------------------------------------------------------------------------------------

    /// Whether the conductor waits to be told that all others do.
    pub(crate) fn is_conducted(&self) -> bool {
        self.state.lock().conductor.is_some()
    }

    /// Tells it (T2).
    pub(crate) fn all_wait(&self) {
        let conductor = self.state.lock().conductor.take();
        if let Some(conductor) = conductor {
            conductor.wake(Wake::Queue);
        }
    }

    // ---- what the conductor does -----------------------------------------------------------------------------------------

    /// Moves time until `first` and all that it has started have ended. Called by the bubble's main goroutine.
    pub(crate) fn conduct<T>(&self, first: &JoinHandle<T>) -> Result<(), Stuck> {
        let mut last_chance = true;
        loop {
            self.until_all_wait();
            let worker = Worker::current().expect("the conductor is a goroutine");
            let ended = first.is_finished();
            // ORDERING: Relaxed. T3.
            let now = self.now.load(Relaxed);
            // When the first has ended nothing comes due any more.
            let next = Some(self.next(worker)).filter(|next| !ended || *next <= now).unwrap_or(u64::MAX);
            if next <= now {
                self.fire(worker);
            } else if let Some(waiter) = self.take_waiter() {
                waiter.wake(Wake::Queue);
            } else if next < u64::MAX {
                // ORDERING: Relaxed. T3.
                self.now.store(next, Relaxed);
                self.fire(worker);
            } else if ended && self.drop_alarms() {
                // What their `Drop`s have started, if anything, comes first.
            } else if ended && worker.runtime.alive() == 1 {
                return Ok(());
            } else if last_chance {
                last_chance = false;
                blocking::blocking(|| std::thread::sleep(LAST_CHANCE));
                continue;
            } else {
                return Err(if ended { Stuck::Left } else { Stuck::All });
            }
            last_chance = true;
        }
    }

    /// Waits until all others wait.
    fn until_all_wait(&self) {
        let unit = park::current();
        self.state.lock().conductor = Some(unit);
        unit.park(Reason::Conduct.alone());
    }

    fn take_waiter(&self) -> Option<&'static Unit> {
        self.state.lock().waiter.take()
    }

    /// The next time at which something is due, or may be.
    fn next(&self, worker: &Worker) -> u64 {
        let alarm = self.state.lock().alarms.next();
        alarm.unwrap_or(u64::MAX).min(worker.next_deadline())
    }

    /// Has happen what is due now: goroutines whose time has come, or alarms. If there are both, either may come first; the others follow when those
    /// wait again.
    fn fire(&self, worker: &Worker) {
        let mut due = Vec::new();
        let mut state = self.state.lock();
        // ORDERING: Relaxed. T3.
        let now = self.now.load(Relaxed);
        if worker.next_deadline() > now || state.random().is_multiple_of(2) {
            state.alarms.advance(now, &mut due);
        }
        drop(state);
        if due.is_empty() {
            return worker.fire_timers();
        }
        self.shuffle(&mut due);
        for Due { item: action, .. } in due {
            // As on the alarm thread.
            panics::quietly(action);
        }
    }

    /// Drops the alarms, whose time is not going to come; false when there are none. To drop them is user code, which may wait: on goroutines of their
    /// own, since nothing moves while the conductor waits for something else.
    fn drop_alarms(&self) -> bool {
        let mut never = Vec::new();
        self.state.lock().alarms.advance(u64::MAX, &mut never);
        let any = !never.is_empty();
        for Due { item: action, .. } in never {
            // Without a stack for it the closure has been dropped in there all the same.
            let _ = Builder::new().spawn(move || drop(action));
        }
        any
    }

    /// Puts what is due at one time into any order.
    pub(crate) fn shuffle<T>(&self, due: &mut [T]) {
        let mut state = self.state.lock();
        for i in (1..due.len()).rev() {
            due.swap(i, state.random() % (i + 1));
        }
    }
}

impl Drop for Bubble {
    fn drop(&mut self) {
        // ORDERING: SeqCst, as in `new`.
        COUNT.fetch_sub(1, SeqCst);
        // Set by goroutines that were woken from outside after time had ended. To drop them is user code, and this may be a worker's own stack.
        let mut never = Vec::new();
        self.state.lock().alarms.advance(u64::MAX, &mut never);
        for Due { item: action, .. } in never {
            // Without a thread for it the closure has been dropped in there all the same.
            let _ = blocking::detached(move || drop(action));
        }
    }
}
