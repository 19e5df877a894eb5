//! Turns: a bare lock whose holders are served in order, and that is waited for with a time limit that may change meanwhile.

use std::time::Instant;

use crate::{
    runtime::{
        interrupt::Interrupt,
        park::{self, Wake},
        until::{self, Until},
        wait::Reason,
        waitq::{Node, Outcome, WaitQueue},
    },
    util::Lock,
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Turn(Lock<State>);

#[derive(Debug)]
struct State {
    taken: bool,
    /// Counts calls of [`Turn::look_again`]: a limit that was read before one is not waited with after it.
    changes: u64,
    queue: WaitQueue,
}

/// It is our turn until this is dropped.
#[derive(Debug)]
pub(crate) struct MyTurn<'a>(&'a Turn);

impl Turn {
    pub(crate) fn new() -> Self {
        Self(Lock::new(State { taken: false, changes: 0, queue: WaitQueue::new() }))
    }

    /// Waits for the caller's turn; `limit` says until when, and is asked anew after each wake, `interrupt`'s too.
    pub(crate) fn take<E>(
        &self,
        reason: Reason,
        interrupt: Option<&dyn Interrupt>,
        mut limit: impl FnMut() -> Result<Option<Instant>, E>,
    ) -> Result<MyTurn<'_>, E> {
        loop {
            let mut state = self.0.lock();
            if !state.taken {
                state.taken = true;
                return Ok(MyTurn(self));
            }
            let changes = state.changes;
            drop(state);
            let deadline = limit()?;
            let unit = park::current();
            let until = Until::new(deadline, interrupt);
            let ticket = until.arm(unit);
            let node = Node::new(unit, ticket, std::ptr::null_mut());
            let mut state = self.0.lock();
            if !state.taken || state.changes != changes {
                let mine = !std::mem::replace(&mut state.taken, true);
                drop(state);
                until::disarm(unit, ticket);
                if mine {
                    return Ok(MyTurn(self));
                }
                continue;
            }
            // SAFETY: the node stays in this frame until it is out of the queue.
            unsafe { state.queue.push(&node) };
            drop(state);
            if !until.park(&node, ticket, reason.on(self)) {
                self.0.lock().queue.remove(&node);
                continue;
            }
            if node.outcome() == Outcome::Done {
                return Ok(MyTurn(self));
            }
        }
    }

    /// Has all who wait ask for their limits again.
    pub(crate) fn look_again(&self) {
        let mut state = self.0.lock();
        state.changes += 1;
        let woken = state.queue.claim_all(Outcome::Again);
        drop(state);
        woken.wake();
    }
}

impl Drop for MyTurn<'_> {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        // The turn passes straight on, so that nobody overtakes.
        let Some(next) = state.queue.claim_first() else {
            state.taken = false;
            return;
        };
        let unit = next.complete(Outcome::Done);
        drop(state);
        unit.wake(Wake::Queue);
    }
}

#[cfg(all(test, loom))]
mod loom_turn {
    use loom::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering::Relaxed},
        },
        thread,
    };

    use super::*;

    /// A limit that changes while somebody decides to wait is seen, however the two meet.
    #[test]
    fn a_change_of_limits_is_not_missed() {
        loom::model(|| {
            let (turn, over) = (Arc::new(Turn::new()), Arc::new(AtomicBool::new(false)));
            let holder = turn.take(Reason::Write, None, || Ok::<_, ()>(None)).unwrap();
            let (t, o) = (turn.clone(), over.clone());
            let waiter = thread::spawn(move || {
                let limit = || if o.load(Relaxed) { Err(()) } else { Ok(None) };
                assert!(t.take(Reason::Write, None, limit).is_err());
            });
            over.store(true, Relaxed);
            turn.look_again();
            waiter.join().unwrap();
            drop(holder);
        });
    }

    /// The turn passes on to whoever waits.
    #[test]
    fn a_turn_is_passed_on() {
        loom::model(|| {
            let turn = Arc::new(Turn::new());
            let other = turn.clone();
            let waiter = thread::spawn(move || drop(other.take(Reason::Write, None, || Ok::<_, ()>(None))));
            drop(turn.take(Reason::Write, None, || Ok::<_, ()>(None)));
            waiter.join().unwrap();
        });
    }
}
