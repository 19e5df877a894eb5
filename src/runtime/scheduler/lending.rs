//! The word by which a worker's thread is moved to the core of another worker, which lends it (`worker::lend_core`).
//!
//! Linux moves a thread by its mask of cores alone, and what a thread starts while its mask is narrow, threads or processes, inherits that for ever. So the
//! thread is interrupted first, and starts nothing before its handler has run; lender and handler agree by this word:
//!
//! - M1: a lender narrows the mask only once it has taken an offer of its own from `OFFERED` to `CHANGING`. A handler that comes before has got a core
//!   by itself: it takes the offer back, and the lender does nothing.
//! - M2: a handler that comes later waits while a mask is being changed, and does not return while it is narrow: it restores it, or waits for the lender
//!   to have done it. So one of them does, once, and a mask that the program chooses afterwards stays.
//! - M3: whoever lends is lent nothing meanwhile. So a lender never waits in its handler, and nobody waits in a circle.
//! - M4: one lender at a time: offers are made from `WHOLE` alone, and each ends there again.
//!
//! Model: `loom_lending` below.

use crate::facade::{
    AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

/// Nobody changes the mask of the worker's thread.
const WHOLE: u32 = 0;
/// As above, and the thread is being interrupted.
const OFFERED: u32 = 1;
/// Somebody changes it: the lender, or the handler that restores it.
const CHANGING: u32 = 2;
/// The lender has narrowed it. Whoever takes this to `CHANGING` restores it.
const NARROW: u32 = 3;
/// The worker lends (M3).
const LENDS: u32 = 4;

/// See the module. It belongs to the worker that may be moved.
pub(crate) struct Lending(AtomicU32);

impl Lending {
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(WHOLE))
    }

    /// Has the thread of the worker `other` moved by the worker of this word. `interrupt` has its handler run before it starts anything, and says whether
    /// that is certain; then `narrow` and `restore` change its mask. What of them fails leaves it as it is.
    pub(crate) fn lend_to(
        &self,
        other: &Self,
        interrupt: impl FnOnce() -> bool,
        narrow: impl FnOnce(),
        restore: impl FnOnce(),
    ) {
        if !self.pass(WHOLE, LENDS) {
            return;
        }
        if other.pass(WHOLE, OFFERED) {
            if interrupt() && other.pass(OFFERED, CHANGING) {
                narrow();
                other.change_to(NARROW);
                if other.pass(NARROW, CHANGING) {
                    restore();
                    other.change_to(WHOLE);
                }
            } else {
                // Unless the handler has done it.
                other.pass(OFFERED, WHOLE);
            }
        }
        self.change_to(WHOLE);
    }

    /// In the handler of the worker's thread: returns when its mask is whole. Who cannot `restore` it waits for the lender.
    pub(crate) fn answer(&self, restore: Option<impl Fn()>) {
        loop {
            // ORDERING: Acquire. What the lender did with the mask came before; pairs with the Release in `change_to`.
            match self.0.load(Acquire) {
                OFFERED if self.pass(OFFERED, WHOLE) => return,
                NARROW => match &restore {
                    Some(restore) if self.pass(NARROW, CHANGING) => {
                        restore();
                        return self.change_to(WHOLE);
                    }
                    Some(_) => {}
                    None => self.wait_while(NARROW),
                },
                CHANGING => self.wait_while(CHANGING),
                WHOLE | LENDS => return,
                // It has just changed.
                _ => {}
            }
        }
    }

    fn pass(&self, from: u32, to: u32) -> bool {
        // ORDERING: AcqRel. What was done with the mask before is done, and what comes next comes after it. Pairs with itself and `change_to`.
        self.0.compare_exchange(from, to, AcqRel, Relaxed).is_ok()
    }

    /// By whoever has the word at `CHANGING` or `LENDS`, which nobody else changes.
    fn change_to(&self, to: u32) {
        // ORDERING: Release, as in `pass`.
        self.0.store(to, Release);
        #[cfg(not(loom))]
        let _ = rustix::thread::futex::wake(&self.0, rustix::thread::futex::Flags::PRIVATE, 1);
    }

    /// The lender may have lost its core. Allowed in a handler, and leaves `errno` alone.
    #[cfg(not(loom))]
    fn wait_while(&self, state: u32) {
        let _ = rustix::thread::futex::wait(&self.0, rustix::thread::futex::Flags::PRIVATE, state, None);
    }

    #[cfg(loom)]
    fn wait_while(&self, _state: u32) {
        crate::facade::thread::yield_now();
    }
}

#[cfg(all(loom, test))]
mod loom_lending {
    use loom::{
        sync::{
            Arc, Mutex,
            atomic::{AtomicBool, Ordering::Relaxed},
        },
        thread,
    };

    use super::*;

    /// A worker's thread as the kernel has it.
    struct Thread {
        word: Lending,
        narrow: AtomicBool,
        /// Whether a signal is pending. It is looked at under the lock when something is started, as `clone` does.
        pending: Mutex<bool>,
    }

    impl Thread {
        fn new() -> Arc<Self> {
            Arc::new(Self { word: Lending::new(), narrow: AtomicBool::new(false), pending: Mutex::new(false) })
        }

        fn lend_to(&self, other: &Self) {
            let interrupt = || {
                *other.pending.lock().unwrap() = true;
                true
            };
            let narrow = || {
                // The handler may come in the middle of a lender as well.
                self.handle();
                other.narrow.store(true, Relaxed);
            };
            self.word.lend_to(&other.word, interrupt, narrow, || other.narrow.store(false, Relaxed));
        }

        fn handle(&self) {
            if std::mem::take(&mut *self.pending.lock().unwrap()) {
                self.word.answer(Some(|| self.narrow.store(false, Relaxed)));
            }
        }

        /// Whether what is started now inherits a narrow mask.
        fn starts_narrow(&self) -> bool {
            loop {
                self.handle();
                let pending = self.pending.lock().unwrap();
                if !*pending {
                    return self.narrow.load(Relaxed);
                }
            }
        }
    }

    #[test]
    fn loom_what_is_started_inherits_the_whole_mask() {
        loom::model(|| {
            let (lender, moved) = (Thread::new(), Thread::new());
            let lends = {
                let moved = Arc::clone(&moved);
                thread::spawn(move || lender.lend_to(&moved))
            };
            assert!(!moved.starts_narrow());
            moved.handle();
            assert!(!moved.starts_narrow());
            lends.join().unwrap();
            assert!(!moved.narrow.load(Relaxed));
        });
    }

    /// Each may move the other at the same moment, and neither waits for ever (M3).
    #[test]
    fn loom_two_that_lend_to_each_other_go_on() {
        loom::model(|| {
            let (a, b) = (Thread::new(), Thread::new());
            let other = {
                let (a, b) = (Arc::clone(&a), Arc::clone(&b));
                thread::spawn(move || {
                    b.lend_to(&a);
                    assert!(!b.starts_narrow());
                })
            };
            a.lend_to(&b);
            assert!(!a.starts_narrow());
            other.join().unwrap();
            assert!(!a.narrow.load(Relaxed) && !b.narrow.load(Relaxed));
        });
    }
}
