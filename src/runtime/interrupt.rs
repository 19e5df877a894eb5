//! Waits that something beside their partner and the clock may end: a context that is cancelled.

use std::time::Instant;

use crate::runtime::{
    park::Parked,
    unit::{Ticket, Unit},
    wait::Wait,
};

/// What can end waits from outside.
pub(crate) trait Interrupt {
    /// Has the wait that `ticket` opened claimed and woken when this interrupts. None: it has interrupted already, and nobody will come.
    fn watch(&self, unit: &'static Unit, ticket: Ticket) -> Option<u64>;
    /// Forgets a wait that has ended.
    fn unwatch(&self, key: u64);
}

/// As [`Unit::park_until`], on `current()`, with an interrupt as one more competitor for the claim.
///
/// `TimedOut`: the claim is spent, by the clock or because the interrupt had come before. `Woken`: by the partner, which has left its
/// mark, or by the interrupt, which leaves none.
pub(crate) fn park_until(
    unit: &'static Unit,
    ticket: Ticket,
    deadline: Option<Instant>,
    interrupt: &dyn Interrupt,
    wait: Wait,
) -> Parked {
    match interrupt.watch(unit, ticket) {
        Some(key) => {
            let parked = unit.park_until(ticket, deadline, wait);
            interrupt.unwatch(key);
            parked
        }
        // Whoever wins the claim wakes; if it is us, nobody does, and there is nothing to park for (P2).
        None if unit.try_claim(ticket) => Parked::TimedOut,
        None => {
            unit.park(wait);
            Parked::Woken
        }
    }
}
