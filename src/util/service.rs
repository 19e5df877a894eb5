//! A thread that the process needs once. Its first user starts it; where that fails, the next one tries again.

use std::{
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
};

/// See the module.
pub(crate) struct Service {
    started: AtomicBool,
    starting: Mutex<()>,
}

impl Service {
    pub(crate) const fn new() -> Self {
        Self { started: AtomicBool::new(false), starting: Mutex::new(()) }
    }

    /// Starts it by `spawn`, unless it runs.
    #[inline]
    pub(crate) fn start(&self, spawn: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        // ORDERING: Acquire. What `spawn` has set up is there; pairs with the Release below.
        if self.started.load(Acquire) { Ok(()) } else { self.start_slow(spawn) }
    }

    #[cold]
    fn start_slow(&self, spawn: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let _one_at_a_time = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        // ORDERING: Acquire. The lock orders it anyway.
        if !self.started.load(Acquire) {
            spawn()?;
            // ORDERING: Release. As above.
            self.started.store(true, Release);
        }
        Ok(())
    }
}
