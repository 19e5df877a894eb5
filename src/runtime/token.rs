//! A token: who waits until it is set, by whoever can reach it. `park` and `unpark` are made of one, and so are the wakers of a future.
//!
//! - V1: it is one word, changed in one step each time. `wait` turns 0 into its ticket, and at its end whatever is there into 0; `set` turns
//!   whatever is there into SET, and if that was a ticket, ends the wait, if it is still open (U1). So a `set` that comes first is not lost.
//! - V2: several `set`s before one `take` or `wait` count once, and what was done before each of them is seen after it.
//! - V3: one party takes and waits, always with the same unit. A `set` touches nothing but the word unless it has found a ticket there, and
//!   then the unit, which is type-stable (U2): it may come late, and for ever.

use crate::{
    facade::{
        AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
    runtime::{
        park::{self, Wake},
        unit::{Ticket, Unit},
        until::Until,
        wait::Wait,
    },
};

/// Set, and not yet taken. Tickets are larger.
const SET: u64 = 1;

/// See the module.
#[derive(Debug)]
pub(crate) struct Token(AtomicU64);

impl Token {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Sets it, and wakes who waits for it, whose unit `unit` tells. Never switches.
    #[inline]
    pub(crate) fn set(&self, unit: impl FnOnce() -> &'static Unit) {
        // ORDERING: AcqRel. Release: what was done before this is seen by who takes it. Acquire: the unit of the ticket.
        let before = self.0.swap(SET, AcqRel);
        if before <= SET {
            return;
        }
        let unit = unit();
        // U1: an old ticket fails here without harm.
        if unit.try_claim(Ticket::from_bits(before)) {
            unit.wake(Wake::Queue);
        }
    }

    /// Takes it if it is set.
    #[inline]
    pub(crate) fn take(&self) -> bool {
        // ORDERING: Acquire. Pairs with the Release in `set`; so do the three below.
        self.0.compare_exchange(SET, 0, Acquire, Relaxed).is_ok()
    }

    /// Waits until it is set and takes it; false when `until` came first. On `unit`, the caller's own.
    #[inline]
    pub(crate) fn wait(&self, unit: &'static Unit, until: &Until<'_>, wait: Wait) -> bool {
        let ticket = unit.arm();
        // ORDERING: AcqRel. Release publishes the armed ticket.
        if self.0.compare_exchange(0, ticket.to_bits(), AcqRel, Acquire).is_err() {
            let mine = unit.try_claim(ticket);
            debug_assert!(mine, "nobody has seen this ticket");
            // ORDERING: Acquire, and a swap for it. It may have been set again since the look above. That counts as one with the first (V2), so
            // what was done before it has to be seen after this. A plain store would end it unseen: on x86 too a load behind the store may
            // come before it.
            self.0.swap(0, Acquire);
            park::spend();
            return true;
        }
        let _ = until.park_unit(unit, ticket, wait);
        self.0.swap(0, Acquire) == SET
    }

    /// Whether somebody waits and it has not been set. A hint, unless nobody else can set it.
    #[cfg(not(loom))]
    pub(crate) fn is_waited_for(&self) -> bool {
        // ORDERING: Relaxed. By the caller.
        self.0.load(Relaxed) > SET
    }
}

#[cfg(all(loom, test))]
mod loom_models {
    use loom::sync::{Arc, atomic::AtomicUsize};

    use super::*;
    use crate::{
        facade::thread,
        runtime::{
            until::model::{Cancel, now, waits_for_nobody},
            wait::Reason,
        },
    };

    const WAIT: Wait = Wait { reason: Reason::Park, object: 0 };

    /// A token with what its setters have done before.
    struct Shared {
        token: Token,
        unit: &'static Unit,
        done: AtomicUsize,
    }

    impl Shared {
        fn new() -> Arc<Self> {
            Arc::new(Self { token: Token::new(), unit: park::current(), done: AtomicUsize::new(0) })
        }

        /// On a thread of its own.
        fn set_elsewhere(shared: &Arc<Self>) -> thread::JoinHandle<()> {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.done.fetch_add(1, Relaxed);
                shared.token.set(|| shared.unit);
            })
        }

        fn done(&self) -> usize {
            self.done.load(Relaxed)
        }

        fn wait(&self, until: Until<'_>) -> bool {
            self.token.wait(self.unit, &until, WAIT)
        }

        /// As a future is driven: looks, and waits to look again.
        fn until_done(&self, n: usize) {
            while self.done() < n {
                if !self.token.take() {
                    assert!(self.wait(Until::EVER), "nothing else ends it");
                }
            }
            waits_for_nobody();
        }
    }

    /// V1, V2: before the wait, on the way to it, during it.
    #[test]
    fn no_set_is_lost() {
        loom::model(|| {
            let shared = Shared::new();
            let setter = Shared::set_elsewhere(&shared);
            shared.until_done(1);
            setter.join().unwrap();
        });
    }

    #[test]
    fn two_sets_count_once_and_both_are_seen() {
        loom::model(|| {
            let shared = Shared::new();
            let setters = [Shared::set_elsewhere(&shared), Shared::set_elsewhere(&shared)];
            shared.until_done(2);
            for setter in setters {
                setter.join().unwrap();
            }
        });
    }

    /// Whoever is told that the time has passed was not told that the token was set, and is so later.
    #[test]
    fn a_set_and_a_time_limit_agree() {
        loom::model(|| {
            let shared = Shared::new();
            let setter = Shared::set_elsewhere(&shared);
            if shared.wait(now()) {
                assert_eq!(shared.done(), 1, "what was done before is seen");
                waits_for_nobody();
            } else {
                assert!(shared.wait(Until::EVER), "it comes later");
                assert_eq!(shared.done(), 1);
            }
            setter.join().unwrap();
            assert!(!shared.token.take(), "one set, taken once");
        });
    }

    #[test]
    fn a_set_and_an_interrupt_agree() {
        loom::model(|| {
            let shared = Shared::new();
            let cancel = Cancel::new();
            let setter = Shared::set_elsewhere(&shared);
            let canceller = thread::spawn({
                let cancel = cancel.clone();
                move || cancel.cancel()
            });
            if !shared.wait(Until::interrupt(&*cancel)) {
                assert!(cancel.has_come(), "nothing else ends it");
                assert!(shared.wait(Until::EVER), "it comes later");
            }
            assert_eq!(shared.done(), 1);
            canceller.join().unwrap();
            setter.join().unwrap();
            waits_for_nobody();
        });
    }

    /// V3: a waker of a future that was given up sets a token that nobody waits for, while the same unit waits for another one.
    #[test]
    fn a_late_set_ends_no_other_wait() {
        loom::model(|| {
            let (first, second) = (Shared::new(), Shared::new());
            let late = Shared::set_elsewhere(&first);
            let _ = first.wait(now());
            let setter = Shared::set_elsewhere(&second);
            assert!(second.wait(Until::EVER));
            assert_eq!(second.done(), 1, "its own set has ended it");
            late.join().unwrap();
            setter.join().unwrap();
            waits_for_nobody();
        });
    }

    /// A look and a plain store in place of the one step that takes it.
    #[test]
    #[should_panic = "neither seen nor there"]
    fn a_set_that_is_wiped_out_is_caught() {
        loom::model(|| {
            let shared = Shared::new();
            let setters = [Shared::set_elsewhere(&shared), Shared::set_elsewhere(&shared)];
            let mut seen = 0;
            if shared.token.0.load(Acquire) == SET {
                shared.token.0.store(0, Relaxed);
                seen = shared.done();
            }
            for setter in setters {
                setter.join().unwrap();
            }
            assert!(seen == 2 || shared.token.take(), "neither seen nor there");
        });
    }
}
