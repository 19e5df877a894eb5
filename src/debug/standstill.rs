//! Whether a runtime stands still for good: nothing runs, and nothing of the runtime's own could wake a goroutine.
//!
//! A runtime stands still when at two looks all its workers sleep, no goroutine of it waits for a timer, a descriptor or a blocking
//! call, and between the looks nothing was started, ended or woken. Threads outside the runtime may still wake a goroutine; whether
//! they count is the caller's to decide.

use std::sync::Arc;

use crate::runtime::lifecycle::RuntimeInner;

/// Remembers the last look.
pub(crate) struct Standstill {
    runtime: Arc<RuntimeInner>,
    last: Option<u64>,
}

impl Standstill {
    pub(crate) fn new(runtime: &Arc<RuntimeInner>) -> Self {
        Self { runtime: Arc::clone(runtime), last: None }
    }

    /// Looks once more; true when this look and the one before found the same standstill.
    pub(crate) fn look(&mut self) -> bool {
        let now = self.runtime.standstill().filter(|_| self.runtime.alive() > 0);
        let still = now.is_some() && now == self.last;
        self.last = now;
        still
    }
}
