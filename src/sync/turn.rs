//! Turns: a bare lock whose holders are served in order, and that is waited for with a time limit that may change meanwhile.

use std::time::Instant;

use crate::{
    chan::waitq::{Node, Outcome, WaitQueue},
    runtime::{
        park::{self, Parked, Wake},
        wait::Reason,
    },
    util::Lock,
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Turn(Lock<State>);

#[derive(Debug)]
struct State {
    taken: bool,
    queue: WaitQueue,
}

/// It is our turn until this is dropped.
#[derive(Debug)]
pub(crate) struct MyTurn<'a>(&'a Turn);

impl Turn {
    pub(crate) fn new() -> Self {
        Self(Lock::new(State { taken: false, queue: WaitQueue::new() }))
    }

    /// Waits for the caller's turn; `limit` says until when, and is asked anew after each wake.
    pub(crate) fn take<E>(
        &self,
        reason: Reason,
        mut limit: impl FnMut() -> Result<Option<Instant>, E>,
    ) -> Result<MyTurn<'_>, E> {
        loop {
            let mut state = self.0.lock();
            if !state.taken {
                state.taken = true;
                return Ok(MyTurn(self));
            }
            drop(state);
            let deadline = limit()?;
            let unit = park::current();
            let ticket = deadline.map(|_| unit.arm());
            let node = Node::new(unit, ticket, std::ptr::null_mut());
            let mut state = self.0.lock();
            if !state.taken {
                state.taken = true;
                drop(state);
                if let Some(ticket) = ticket {
                    let mine = unit.try_claim(ticket);
                    debug_assert!(mine, "nobody has seen this ticket");
                }
                return Ok(MyTurn(self));
            }
            // SAFETY: the node stays in this frame until it is out of the queue.
            unsafe { state.queue.push(&node) };
            drop(state);
            match ticket {
                None => unit.park(reason.on(self)),
                Some(ticket) => {
                    if unit.park_until(ticket, deadline, reason.on(self)) == Parked::TimedOut {
                        self.0.lock().queue.remove(&node);
                        continue;
                    }
                }
            }
            if node.outcome() == Outcome::Done {
                return Ok(MyTurn(self));
            }
        }
    }

    /// Has all who wait ask for their limits again.
    pub(crate) fn look_again(&self) {
        let woken = self.0.lock().queue.claim_all(Outcome::Again);
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
        // SAFETY: claimed, so its owner waits for us.
        let next = unsafe { next.as_ref() };
        next.set_outcome(Outcome::Done);
        let unit = next.unit();
        drop(state);
        unit.wake(Wake::Queue);
    }
}
