//! The sleep of the clock thread: no activity is slept over (C2 of [`clock`](super::clock)).
//!
//! | who has been active | the clock thread |
//! |---|---|
//! | E1: count it | F1: say that it sleeps |
//! | E2: fence (SeqCst) | F2: fence (SeqCst) |
//! | E3: look whether the thread sleeps; if it does, wake it | F3: look whether anything was counted, or is to be done; if not, wait to be woken |
//!
//! If E2 comes before F2, F3 sees what was counted, and what was done before that. Otherwise E3, which comes after F1, wakes the thread; a wake that
//! comes before the wait is not lost.
//!
//! Model: `loom_clock` below.

use crate::facade::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
    fence,
};

/// See the module.
pub(super) struct Sleep {
    activity: AtomicU64,
    asleep: AtomicBool,
}

impl Sleep {
    #[cfg(not(loom))]
    pub(super) const fn new() -> Self {
        Self { activity: AtomicU64::new(0), asleep: AtomicBool::new(false) }
    }

    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self { activity: AtomicU64::new(0), asleep: AtomicBool::new(false) }
    }

    /// E1 to E3: notes activity. True when the caller is to wake the thread.
    #[must_use]
    pub(super) fn disturb(&self) -> bool {
        // ORDERING: Relaxed, then the fence E2. Partner: F2 in `sleep`.
        self.activity.fetch_add(1, Relaxed);
        fence(SeqCst);
        self.is_asleep()
    }

    /// Whether the thread sleeps. A hint, but for E3.
    pub(super) fn is_asleep(&self) -> bool {
        // ORDERING: Relaxed. The fences order it where that matters.
        self.asleep.load(Relaxed)
    }

    /// How much activity there was.
    pub(super) fn activity(&self) -> u64 {
        // ORDERING: Relaxed. What comes later is seen later, or in `sleep`.
        self.activity.load(Relaxed)
    }

    /// F1 to F3: sleeps until there has been more activity than `seen`, or `has_work` says so. `wait` returns when the thread has been woken, and may
    /// return at any time.
    pub(super) fn sleep(&self, seen: u64, mut has_work: impl FnMut() -> bool, mut wait: impl FnMut()) {
        // ORDERING: Relaxed, then the fence F2. Partner: E2 in `disturb`.
        self.asleep.store(true, Relaxed);
        fence(SeqCst);
        while self.activity() == seen && !has_work() {
            wait();
        }
        // ORDERING: Relaxed. Who finds it late wakes a thread that is awake.
        self.asleep.store(false, Relaxed);
    }
}

#[cfg(all(test, loom))]
mod loom_clock {
    use loom::thread;

    use super::*;

    /// The thread, which `learns` until it knows all, beside parties that do something each. It sleeps for ever, which loom reports, if it sleeps over
    /// one of them.
    fn model<const PARTIES: usize>(act: fn(&AtomicBool), learns: fn(&Sleep, &AtomicBool)) {
        loom::model(move || {
            // Leaked, since loom's objects cannot be dropped while a failure unwinds.
            let (sleep, left): &'static (Sleep, AtomicBool) =
                Box::leak(Box::new((Sleep::new(), AtomicBool::new(false))));
            let clock = thread::spawn(move || learns(sleep, left));
            let parties = [(); PARTIES].map(|()| {
                let clock = clock.thread().clone();
                thread::spawn(move || {
                    act(left);
                    if sleep.disturb() {
                        clock.unpark();
                    }
                })
            });
            parties.into_iter().for_each(|party| party.join().unwrap());
            clock.join().unwrap();
        });
    }

    #[test]
    fn loom_no_activity_is_slept_over() {
        model::<2>(
            |_| {},
            |sleep, _| {
                let mut seen = 0;
                while seen < 2 {
                    sleep.sleep(seen, || false, thread::park);
                    seen = sleep.activity();
                }
            },
        );
    }

    /// The count may have been seen, and not yet what was left before it.
    #[test]
    fn loom_what_was_left_to_be_done_is_not_slept_over() {
        // ORDERING: Relaxed, so that only the fences order it.
        model::<1>(
            |left| left.store(true, Relaxed),
            |sleep, left| {
                while !left.load(Relaxed) {
                    sleep.sleep(sleep.activity(), || left.load(Relaxed), thread::park);
                }
            },
        );
    }
}
