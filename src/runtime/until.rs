//! What may end a wait beside its partner: a time limit, or an interrupt such as a context.
//!
//! - I1: a wait that may be ended so has a ticket, and three compete for it: the partner, the clock, the interrupt. Whoever wins it ends the
//!   wait alone, and only the partner leaves its mark in the node. So a wait either had what it waited for, or did not: nothing is lost
//!   when an end and a grant come at once.

use std::time::Instant;

use crate::runtime::{
    interrupt::{self, Interrupt},
    park::Parked,
    unit::{Ticket, Unit},
    wait::Wait,
    waitq::{Node, Outcome},
};

/// Until when a wait lasts.
#[derive(Clone, Copy)]
pub(crate) struct Until<'a> {
    deadline: Option<Instant>,
    interrupt: Option<&'a dyn Interrupt>,
}

impl<'a> Until<'a> {
    /// No end but the partner's.
    pub(crate) const EVER: Until<'static> = Until { deadline: None, interrupt: None };

    #[inline]
    pub(crate) fn new(deadline: Option<Instant>, interrupt: Option<&'a dyn Interrupt>) -> Self {
        Self { deadline, interrupt }
    }

    #[inline]
    pub(crate) fn deadline(deadline: Option<Instant>) -> Self {
        Self::new(deadline, None)
    }

    #[inline]
    pub(crate) fn interrupt(interrupt: &'a dyn Interrupt) -> Self {
        Self::new(None, Some(interrupt))
    }

    /// Whether only the partner ends the wait.
    #[inline]
    pub(crate) fn is_ever(&self) -> bool {
        self.deadline.is_none() && self.interrupt.is_none()
    }

    /// The ticket of a wait that begins now; none if only the partner can end it.
    #[inline]
    pub(crate) fn arm(&self, unit: &'static Unit) -> Option<Ticket> {
        (!self.is_ever()).then(|| unit.arm())
    }

    /// Waits with `node`, which others have seen, made with the ticket that [`arm`](Self::arm) gave. False when the partner had no part in
    /// the end: then the caller takes the node out of its queue.
    #[inline]
    pub(crate) fn park(&self, node: &Node, ticket: Option<Ticket>, wait: Wait) -> bool {
        let unit = node.unit();
        let Some(ticket) = ticket else {
            unit.park(wait);
            return true;
        };
        // I1: an interrupt wakes as a partner does, but leaves no mark.
        self.park_unit(unit, ticket, wait) == Parked::Woken && node.outcome() != Outcome::Waiting
    }

    /// Waits without a node, with the ticket that [`arm`](Self::arm) gave and others have seen. The partner leaves its mark elsewhere.
    #[inline]
    pub(crate) fn park_unit(&self, unit: &'static Unit, ticket: Ticket, wait: Wait) -> Parked {
        match self.interrupt {
            None => unit.park_until(ticket, self.deadline, wait),
            Some(interrupt) => interrupt::park_until(unit, ticket, self.deadline, interrupt, wait),
        }
    }
}

/// Takes back a ticket that nobody has seen: what was to be waited for was there.
pub(crate) fn disarm(unit: &'static Unit, ticket: Option<Ticket>) {
    if let Some(ticket) = ticket {
        let unseen = unit.try_claim(ticket);
        debug_assert!(unseen, "nobody has seen this ticket");
    }
}

/// What models of waits end them with.
#[cfg(all(loom, test))]
pub(crate) mod model {
    use loom::sync::{Arc, Mutex};

    use super::*;
    use crate::runtime::park::{self, Wake};

    /// A time that has come.
    pub(crate) fn now() -> Until<'static> {
        Until::deadline(Some(Instant::now()))
    }

    /// The next wait is nobody's to end: who was to end the one before is past that.
    pub(crate) fn waits_for_nobody() {
        let unit = park::current();
        let ticket = unit.arm();
        assert!(unit.try_claim(ticket), "a wait was ended that nobody knew of");
    }

    /// As a context is: ends the wait that was registered, or those to come.
    pub(crate) struct Cancel(Mutex<(bool, Option<(&'static Unit, Ticket)>)>);

    impl Cancel {
        pub(crate) fn new() -> Arc<Self> {
            Arc::new(Self(Mutex::new((false, None))))
        }

        pub(crate) fn cancel(&self) {
            let waits = {
                let mut state = self.0.lock().unwrap();
                state.0 = true;
                state.1.take()
            };
            if let Some((unit, ticket)) = waits
                && unit.try_claim(ticket)
            {
                unit.wake(Wake::Queue);
            }
        }

        pub(crate) fn has_come(&self) -> bool {
            self.0.lock().unwrap().0
        }
    }

    impl Interrupt for Cancel {
        fn watch(&self, unit: &'static Unit, ticket: Ticket) -> Option<u64> {
            let mut state = self.0.lock().unwrap();
            if state.0 {
                return None;
            }
            state.1 = Some((unit, ticket));
            Some(0)
        }

        fn unwatch(&self, _key: u64) {
            self.0.lock().unwrap().1 = None;
        }
    }
}
