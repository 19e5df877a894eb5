//! `Barrier`: a number of parties wait for each other, round after round.
//!
//! P3: the last of a round leaves the lock before it wakes, and touches the barrier no more.

use std::fmt;

use crate::{
    runtime::{
        park,
        wait::Reason,
        waitq::{Node, Outcome, WaitQueue},
    },
    util::Lock,
};

/// Lets `n` goroutines or threads wait for each other. As `std::sync::Barrier`.
///
/// # Examples
///
/// ```
/// use oxigo::sync::Barrier;
///
/// let start = Barrier::new(3);
/// oxigo::scope(|s| {
///     for _ in 0..3 {
///         s.go(|| {
///             // … prepare …
///             start.wait();
///             // … all are prepared …
///         });
///     }
/// });
/// ```
pub struct Barrier {
    parties: usize,
    state: Lock<State>,
}

struct State {
    waiting: usize,
    queue: WaitQueue,
}

impl Barrier {
    const_new! {
        /// A barrier for `n` parties; with 0 or 1 nobody waits.
        ///
        /// # Blocking
        ///
        /// Never parks.
        pub fn new(n: usize) -> Self {
            Self { parties: n, state: Lock::new(State { waiting: 0, queue: WaitQueue::new() }) }
        }
    }

    /// Waits until all parties have come; then the next round begins. The last one that comes is the leader.
    ///
    /// There is no form with a time limit: if a party gave up, the others would be one short.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(oxigo::sync::Barrier::new(1).wait().is_leader());
    /// ```
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn wait(&self) -> BarrierWaitResult {
        park::spend();
        let unit = park::current();
        let node = Node::new(unit, None, std::ptr::null_mut());
        let mut state = self.state.lock();
        if state.waiting + 1 < self.parties {
            state.waiting += 1;
            // SAFETY: the node stays in this frame until it is out of the queue.
            unsafe { state.queue.push(&node) };
            drop(state);
            unit.park(Reason::Barrier.on(self));
            return BarrierWaitResult(false);
        }
        state.waiting = 0;
        let all = state.queue.claim_all(Outcome::Done);
        drop(state);
        all.wake();
        BarrierWaitResult(true)
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.state.lock().waiting;
        f.debug_struct("Barrier").field("parties", &self.parties).field("waiting", &waiting).finish()
    }
}

/// Says whether a caller is the leader of a round of a [`Barrier`].
///
/// # Examples
///
/// See [`Barrier::wait`].
#[derive(Clone, Copy)]
pub struct BarrierWaitResult(bool);

impl BarrierWaitResult {
    /// Whether the caller is the leader: one in each round.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn is_leader(&self) -> bool {
        self.0
    }
}

impl fmt::Debug for BarrierWaitResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BarrierWaitResult").field("is_leader", &self.0).finish()
    }
}
