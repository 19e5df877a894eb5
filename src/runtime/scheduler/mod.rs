//! Placeholder until the scheduler lands: every party is a plain thread.

use std::time::Instant;

use crate::runtime::{
    park::{Parked, Wake},
    unit::{Ticket, Unit},
    wait::Wait,
};

#[derive(Debug)]
pub(crate) struct Home(std::sync::atomic::AtomicPtr<()>);

impl Home {
    pub(crate) fn thread() -> Self {
        Self(std::sync::atomic::AtomicPtr::new(std::ptr::null_mut()))
    }
    pub(crate) fn set_whole(&self, whole: *const ()) {
        self.0.store(whole.cast_mut(), std::sync::atomic::Ordering::Relaxed);
    }
    pub(crate) fn whole(&self) -> *const () {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
    pub(crate) fn is_thread(&self) -> bool {
        true
    }
}

pub(crate) struct Slot {
    unit: Unit,
}
impl Slot {
    pub(crate) fn unit(&'static self) -> &'static Unit {
        &self.unit
    }
}
pub(crate) fn current_slot() -> Option<&'static Slot> {
    None
}
pub(crate) fn park(_: &'static Unit, _: Wait) {}
pub(crate) fn park_until(_: &'static Unit, _: Ticket, _: Instant, _: Wait) -> Parked {
    Parked::Woken
}
pub(crate) fn wake(_: &'static Unit, _: Wake) {}

/// Wakes many units of one event (close, broadcast) with one push for each home worker. All are woken when it is dropped,
/// threads at once.
pub(crate) struct WakeBatch;

impl WakeBatch {
    pub(crate) fn new() -> Self {
        Self
    }

    /// Takes over the claim on `unit`. P3: the node it was found through must not be touched any more.
    pub(crate) fn push(&mut self, unit: &'static Unit) {
        unit.wake(Wake::Queue);
    }
}

/// Counts one operation that could have parked but did not; when the goroutine has used up its budget, it yields. On a plain
/// thread this does nothing. Never called from `try_*`, unbounded `send`, `close` and the like (P4).
#[inline]
pub(crate) fn spend() {}
