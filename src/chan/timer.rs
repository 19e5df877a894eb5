//! Receivers that the clock sends to: `after`, `at`, `tick`.
//!
//! They are passive: a deadline under a lock, and no entry in any timing wheel. Whoever waits on one takes the deadline as the time limit of
//! its own wait; leaving forgets it. So an abandoned `after(1h)` costs nothing.
//!
//! - A1: `next` is when the next value is due; none when there will be none. Taking a due value and setting the next deadline is one step
//!   under the lock, so one value goes to one receiver.
//!   The first step of a select takes it as well. Who gives the value of a timer without a period up then puts its deadline back, unless it has been
//!   set anew or stopped meanwhile, which `set_at` tells. Of a ticker it is a tick more that a slow receiver has lost.
//! - A2: `waiters` holds those who wait, so that a change of the deadline can have them look again. Who has timed out meanwhile looks
//!   again anyway, and finds the new deadline.

use std::time::{Duration, Instant};

use super::core::Ended;
use crate::{
    runtime::{
        park::{self, Parked},
        present,
        wait::Reason,
        waitq::{Node, Outcome, TakenAt, WaitQueue},
    },
    util::BiasedLock,
};

/// A timer, as the channel that its receivers are ends of; `T` is always `Instant`, told by `make`, so that receivers of timers are receivers like others.
pub(crate) struct TimerChannel<T> {
    state: BiasedLock<State>,
    make: fn(Instant) -> T,
}

pub(crate) struct State {
    next: Option<Instant>,
    period: Option<Duration>,
    /// Set and neither stopped nor read: also where `next` is beyond what the clock can count to.
    armed: bool,
    /// When it was last set or stopped, and what was last taken since.
    set_at: TakenAt,
    taken: Option<Instant>,
    waiters: WaitQueue,
}

impl State {
    /// Takes the value that is due at `now`: the time at which it became due.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Instant> {
        let due = self.next.filter(|next| *next <= now)?;
        self.next = self.period.and_then(|period| next_tick(due, period, now));
        self.armed = self.period.is_some();
        self.taken = Some(due);
        Some(due)
    }

    pub(crate) fn is_due(&self) -> bool {
        self.next.is_some_and(|next| next <= present::now())
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.next
    }

    pub(crate) fn set_at(&self) -> TakenAt {
        self.set_at
    }

    pub(crate) fn waiters(&self) -> &WaitQueue {
        &self.waiters
    }
}

/// The first tick after `now` on the grid of `due`: a late receiver loses the ticks it has missed, and moves none that are to come. Without
/// a period every instant is on the grid.
fn next_tick(due: Instant, period: Duration, now: Instant) -> Option<Instant> {
    let late = now.duration_since(due);
    if late < period {
        return due.checked_add(period);
    }
    let beyond = late.as_nanos().checked_rem(period.as_nanos()).unwrap_or(0);
    // No more than `late`, which two readings of the clock are apart.
    let beyond = Duration::from_nanos(u64::try_from(beyond).unwrap_or(0));
    now.checked_add(period - beyond)
}

impl TimerChannel<Instant> {
    /// A timer that fires at `next`, if ever, and then every `period`, if there is one.
    pub(crate) fn new(next: Option<Instant>, period: Option<Duration>) -> Self {
        Self {
            state: BiasedLock::biased(State {
                next,
                period,
                armed: true,
                set_at: TakenAt::NEVER,
                taken: None,
                waiters: WaitQueue::new(),
            }),
            make: |instant| instant,
        }
    }
}

impl<T> TimerChannel<T> {
    pub(crate) fn state(&self) -> &BiasedLock<State> {
        &self.state
    }

    pub(crate) fn value(&self, due: Instant) -> T {
        (self.make)(due)
    }

    /// Sets the timer anew, and has all who wait look again. True when it was armed, or due and unread: a value that nobody can receive
    /// any more.
    pub(crate) fn set(&self, next: Option<Instant>, period: Option<Duration>) -> bool {
        self.replace(next, period, true)
    }

    /// Stops the timer; else as [`set`](Self::set).
    pub(crate) fn disarm(&self) -> bool {
        self.replace(None, None, false)
    }

    fn replace(&self, next: Option<Instant>, period: Option<Duration>, armed: bool) -> bool {
        let _p4 = park::no_switch();
        let mut state = self.state.lock();
        let was_armed = std::mem::replace(&mut state.armed, armed);
        state.next = next;
        state.period = period;
        state.set_at = state.set_at.next();
        let waiting = state.waiters.claim_all(Outcome::Again);
        drop(state);
        waiting.wake();
        was_armed
    }

    /// Puts back the value that was taken when the timer had been `set_at` that time (A1).
    pub(crate) fn give_back(&self, set_at: TakenAt) {
        let mut state = self.state.lock();
        if state.set_at != set_at || state.period.is_some() {
            return;
        }
        state.next = state.taken;
        state.armed = true;
        let waiting = state.waiters.claim_all(Outcome::Again);
        drop(state);
        waiting.wake();
    }

    /// When the next value is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.state.lock().next
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.state.lock().is_due())
    }

    pub(crate) fn try_receive(&self) -> Option<T> {
        let due = self.state.lock().take(present::now());
        due.map(self.make)
    }

    pub(crate) fn receive(&self, deadline: Option<Instant>) -> Result<T, Ended> {
        loop {
            let mut state = self.state.lock();
            let now = present::now();
            if let Some(due) = state.take(now) {
                drop(state);
                park::spend();
                return Ok((self.make)(due));
            }
            if deadline.is_some_and(|deadline| deadline <= now) {
                drop(state);
                park::spend();
                return Err(Ended::TimedOut);
            }
            let limit = match (state.next, deadline) {
                (Some(next), Some(deadline)) => Some(next.min(deadline)),
                (next, deadline) => next.or(deadline),
            };
            let unit = park::current();
            let ticket = unit.arm();
            let node = Node::new(unit, Some(ticket), std::ptr::null_mut());
            // SAFETY: the node stays in this frame until it is out of the queue.
            unsafe { state.waiters.push(&node) };
            drop(state);
            if unit.park_until(ticket, limit, Reason::TimerRecv.on(self)) == Parked::TimedOut {
                self.state.lock().waiters.remove(&node);
            }
        }
    }
}
