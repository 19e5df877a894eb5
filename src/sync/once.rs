//! `Once`: something that is done one time, however many come for it.
//!
//! - O1: the word is one of four states, with `WAITERS` beside it (never beside `DONE`) when somebody may be in the queue. Who makes it `RUNNING` runs;
//!   nobody else changes the state until that one has ended.
//! - O2: `WAITERS` is set under the gate, in the step in which a waiter sees `RUNNING`; so the end of the run sees it and wakes all (no wake is
//!   lost).
//! - O3 (P3, last touch): a party that finds `DONE` may free the once. So the end of a run without waiters is one compare-exchange and touches
//!   nothing afterwards; with waiters, those that are claimed and not woken keep the once alive.

use std::{fmt, time::Instant};

use crate::{
    facade::{
        AtomicU32,
        Ordering::{Acquire, Relaxed, Release},
    },
    runtime::{
        park::{self, Parked},
        wait::Reason,
        waitq::{Node, Outcome, WaitQueue},
    },
    util::Lock,
};

const NEW: u32 = 0;
const POISONED: u32 = 1;
const RUNNING: u32 = 2;
const DONE: u32 = 3;
/// With all but `DONE`.
const WAITERS: u32 = 4;

const POISONED_ONCE: &str = "Once instance has previously been poisoned";

/// The state of a [`Once`].
///
/// # Examples
///
/// ```
/// use oxigo::sync::{Once, OnceState};
///
/// assert_eq!(Once::new().state(), OnceState::New);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnceState {
    /// Nobody has run it.
    New,
    /// The closure that ran last has panicked.
    Poisoned,
    /// Somebody runs it now.
    InProgress,
    /// It has been run.
    Done,
}

impl OnceState {
    /// Whether the closure that ran last has panicked.
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[inline]
    pub fn poisoned(self) -> bool {
        self == Self::Poisoned
    }

    /// Whether it has been run.
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[inline]
    pub fn done(self) -> bool {
        self == Self::Done
    }
}

/// Runs a closure once, however many callers there are; the others wait until it has ended. Go's `sync.Once`, with `parking_lot`'s interface.
///
/// A closure that panics poisons it. Its own caller gets that panic. Other calls of [`call_once`](Self::call_once), those that were waiting too,
/// panic with "Once instance has previously been poisoned", until one of [`call_once_force`](Self::call_once_force) succeeds.
///
/// # Examples
///
/// ```
/// use oxigo::sync::Once;
///
/// static START: Once = Once::new();
/// for _ in 0..3 {
///     START.call_once(|| println!("once"));
/// }
/// assert!(START.state().done());
/// ```
pub struct Once {
    word: AtomicU32,
    /// Guards `queue`.
    gate: Lock<()>,
    queue: WaitQueue,
}

// SAFETY: the queue is reached under the gate only; its nodes belong to parties that wait until they are out of it (Q1).
unsafe impl Send for Once {}
// SAFETY: as above.
unsafe impl Sync for Once {}
// A panic leaves it poisoned, which is a state like the others.
impl std::panic::RefUnwindSafe for Once {}
impl std::panic::UnwindSafe for Once {}

impl Once {
    const_new! {
        /// A `Once` that has not been run.
        ///
        /// # Blocking
        ///
        /// Never parks.
        pub fn new() -> Self {
            Self { word: AtomicU32::new(NEW), gate: Lock::new(()), queue: WaitQueue::new() }
        }
    }

    /// Its state. Whoever sees `Done` also sees the effects of the closure.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn state(&self) -> OnceState {
        // ORDERING: Acquire. Pairs with the Release of the run's end (HB-09).
        match self.word.load(Acquire) & !WAITERS {
            NEW => OnceState::New,
            POISONED => OnceState::Poisoned,
            RUNNING => OnceState::InProgress,
            _ => OnceState::Done,
        }
    }

    /// Runs `f` if nobody has run one; returns when the closure that was run has ended.
    ///
    /// # Examples
    ///
    /// See the [type](Once).
    ///
    /// # Panics
    ///
    /// When it is poisoned. A panic of `f` goes through to the caller.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread, while another one runs it. A call from within `f` waits for ever.
    #[inline]
    #[track_caller]
    pub fn call_once<F: FnOnce()>(&self, f: F) {
        self.call_once_or_say(POISONED_ONCE, f);
    }

    /// As [`call_once`](Self::call_once), which panics with `poisoned` when it is.
    #[inline]
    #[track_caller]
    pub(crate) fn call_once_or_say<F: FnOnce()>(&self, poisoned: &'static str, f: F) {
        if !self.is_done() {
            self.run(Some(poisoned), |_| f());
        }
    }

    /// Like [`call_once`](Self::call_once), but also runs `f` when it is poisoned; `f` is given the state.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::sync::Once;
    ///
    /// let once = Once::new();
    /// once.call_once_force(|state| assert!(!state.poisoned()));
    /// ```
    ///
    /// # Panics
    ///
    /// A panic of `f` goes through to the caller.
    ///
    /// # Blocking
    ///
    /// As `call_once`.
    #[inline]
    #[track_caller]
    pub fn call_once_force<F: FnOnce(OnceState)>(&self, f: F) {
        if !self.is_done() {
            self.run(None, f);
        }
    }

    /// Whether it has been run; as [`state`](Self::state) with [`done`](OnceState::done).
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[inline]
    pub fn is_completed(&self) -> bool {
        self.is_done()
    }

    /// Waits until somebody has run it.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::sync::Once;
    ///
    /// static START: Once = Once::new();
    /// oxigo::go(|| START.call_once(|| println!("once")));
    /// START.wait();
    /// assert!(START.is_completed());
    /// ```
    ///
    /// # Panics
    ///
    /// When it is poisoned, also while this waits.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    #[track_caller]
    pub fn wait(&self) {
        if self.is_done() {
            return park::spend();
        }
        loop {
            // ORDERING: Acquire, as in `is_done`.
            match self.word.load(Acquire) & !WAITERS {
                DONE => return,
                POISONED => panic!("{POISONED_ONCE}"),
                state => {
                    let changed = self.wait_while(state, None);
                    debug_assert!(changed);
                }
            }
        }
    }

    /// Like [`wait`](Self::wait), but goes on waiting while it is poisoned, for a call of [`call_once_force`](Self::call_once_force).
    ///
    /// # Blocking
    ///
    /// As `wait`.
    pub fn wait_force(&self) {
        let done = self.wait_done(None);
        debug_assert!(done);
    }

    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        // ORDERING: Acquire. Pairs with the Release of the run's end (HB-09).
        self.word.load(Acquire) == DONE
    }

    /// Panics with `poisoned` when it is; without such words it runs `f` then.
    #[cold]
    #[track_caller]
    fn run(&self, poisoned: Option<&'static str>, f: impl FnOnce(OnceState)) {
        park::spend();
        loop {
            // ORDERING: Acquire, as in `is_done`.
            let word = self.word.load(Acquire);
            match word & !WAITERS {
                DONE => return,
                RUNNING => {
                    let ended = self.wait_while(RUNNING, None);
                    debug_assert!(ended);
                }
                POISONED if let Some(text) = poisoned => panic!("{text}"),
                // ORDERING: Acquire. Sees what a poisoned run left.
                before => {
                    // Those who wait for a run that nobody had begun stay in the queue.
                    let running = RUNNING | (word & WAITERS);
                    if self.word.compare_exchange(word, running, Acquire, Relaxed).is_err() {
                        continue;
                    }
                    let mut completion = CompletionGuard { once: self, state: POISONED };
                    f(if before == NEW { OnceState::New } else { OnceState::Poisoned });
                    completion.state = DONE;
                    return;
                }
            }
        }
    }

    /// Waits for the end of a run, if the state is `state`. False when `deadline` passed first.
    fn wait_while(&self, state: u32, deadline: Option<Instant>) -> bool {
        let unit = park::current();
        let ticket = deadline.map(|_| unit.arm());
        let node = Node::new(unit, ticket, std::ptr::null_mut());
        let gate = self.gate.lock();
        // ORDERING: Relaxed. Queueing publishes nothing by the word, the gate does (O2).
        let mut word = self.word.load(Relaxed);
        while word & !WAITERS == state {
            match self.word.compare_exchange(word, word | WAITERS, Relaxed, Relaxed) {
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        if word & !WAITERS != state {
            drop(gate);
            if let Some(ticket) = ticket {
                let unseen = unit.try_claim(ticket);
                debug_assert!(unseen, "nobody has seen this ticket");
            }
            return true;
        }
        // SAFETY: the node stays in this frame until it is out of the queue.
        unsafe { self.queue.push(&node) };
        drop(gate);
        match ticket {
            None => unit.park(Reason::Once.on(self)),
            Some(ticket) => {
                if unit.park_until(ticket, deadline, Reason::Once.on(self)) == Parked::TimedOut {
                    let _gate = self.gate.lock();
                    self.queue.remove(&node);
                    return false;
                }
            }
        }
        true
    }

    /// Waits until it is done, whoever will run it. False when `deadline` passed first.
    pub(crate) fn wait_done(&self, deadline: Option<Instant>) -> bool {
        if self.is_done() {
            park::spend();
            return true;
        }
        loop {
            // ORDERING: Acquire, as in `is_done`.
            let word = self.word.load(Acquire);
            if word == DONE {
                return true;
            }
            if !self.wait_while(word & !WAITERS, deadline) {
                return self.is_done();
            }
        }
    }

    /// Makes the state `state`: the end of a run.
    fn finish(&self, state: u32) {
        let _p4 = park::no_switch();
        loop {
            // ORDERING: Release. Publishes what the closure did (HB-09). The last touch (O3).
            if self.word.compare_exchange(RUNNING, state, Release, Relaxed).is_ok() {
                return;
            }
            let gate = self.gate.lock();
            let waiting = self.queue.claim_all(Outcome::Done);
            if waiting.len() == 0 {
                // All had run out of time. O3: the gate first, then the word.
                // ORDERING: Relaxed. Ours while it is `RUNNING` and we have the gate.
                self.word.store(RUNNING, Relaxed);
                drop(gate);
                continue;
            }
            // ORDERING: Release, as above.
            self.word.store(state, Release);
            drop(gate);
            return waiting.wake();
        }
    }
}

/// Ends a run, also when it panics.
struct CompletionGuard<'a> {
    once: &'a Once,
    state: u32,
}

impl Drop for CompletionGuard<'_> {
    fn drop(&mut self) {
        self.once.finish(self.state);
    }
}

impl Default for Once {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").field("state", &self.state()).finish()
    }
}
