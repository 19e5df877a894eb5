//! The end of a runtime: no closure is left with a worker that has ended.
//!
//! | who places a closure with a worker | the worker, when it has nothing to do |
//! |---|---|
//! | E1: push it | F1: look whether the runtime is closed; if not, go on |
//! | E2: fence (SeqCst) | F2: fence (SeqCst) |
//! | E3: look whether the runtime is closed; if it is, take back what is there | F3: look at what was placed; if there is something, go on; otherwise end |
//!
//! *No closure is lost.* If E2 comes before F2, F3 sees the push. Otherwise F1, which has seen the runtime closed, comes before E3, which then sees it
//! too. What both see one of them takes out.
//!
//! Model: `loom_closing` below.

use crate::facade::{
    AtomicBool,
    Ordering::{Acquire, Release, SeqCst},
    fence,
};

/// Whether a runtime has been given up.
pub(crate) struct Closing(AtomicBool);

impl Closing {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Gives the runtime up. The caller wakes the workers, each with a fence.
    pub(crate) fn close(&self) {
        // ORDERING: Release. What was done before is seen by those who see it closed.
        self.0.store(true, Release);
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        // ORDERING: Acquire. Pairs with the Release in `close`.
        self.0.load(Acquire)
    }

    /// E2 and E3: whether the caller has to take back what it has placed.
    #[inline]
    #[must_use]
    pub(crate) fn is_too_late(&self) -> bool {
        fence(SeqCst);
        self.is_closed()
    }

    /// F1 to F3: whether a worker may end, when `nothing_left` says that nothing is left for it.
    #[inline]
    pub(crate) fn may_end(&self, nothing_left: impl FnOnce() -> bool) -> bool {
        if !self.is_closed() {
            return false;
        }
        fence(SeqCst);
        nothing_left()
    }
}

#[cfg(all(test, loom))]
mod loom_closing {
    use loom::thread;

    use super::*;
    use crate::facade::Ordering::Relaxed;

    /// One who places a closure, the worker, and one who gives the runtime up.
    fn placed_while_closing(is_too_late: fn(&Closing) -> bool) {
        loom::model(move || {
            // Leaked, since loom's objects cannot be dropped while a failure unwinds.
            let (closing, placed): &'static (Closing, AtomicBool) =
                Box::leak(Box::new((Closing::new(), AtomicBool::new(false))));
            let placer = thread::spawn(move || {
                placed.store(true, Relaxed);
                if is_too_late(closing) {
                    placed.swap(false, Relaxed);
                }
            });
            let worker = thread::spawn(move || closing.may_end(|| !placed.load(Relaxed)));
            closing.close();
            placer.join().unwrap();
            let ended = worker.join().unwrap();
            assert!(!(ended && placed.load(Relaxed)), "a closure is left with a worker that has ended");
        });
    }

    #[test]
    fn no_closure_is_left_with_a_worker_that_ends() {
        placed_while_closing(Closing::is_too_late);
    }

    /// Without E2 the look may pass the push, which must be caught.
    #[test]
    #[should_panic = "a closure is left"]
    fn a_placer_that_does_not_fence_is_caught() {
        placed_while_closing(Closing::is_closed);
    }
}
