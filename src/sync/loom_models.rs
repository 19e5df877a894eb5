//! Models of the locks (hand-over included), the condition variable, the semaphore, the once, the wait group, and what is built of them: two or three
//! parties, every order that matters.
//!
//! What a lock guards is in loom's own cell, which fails when two parties are in it at once or when an access is not ordered after the
//! last; a lost wake is a deadlock, which loom reports.

use std::time::{Duration, Instant};

use loom::{
    cell::UnsafeCell,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use super::{
    Condvar, ErrGroup, Once, Semaphore, SingleFlight, WaitGroup,
    mutex::{Manner, RawMutex},
    rwlock::{RawRwLock, Read, loom_overdue::ALWAYS},
};
use crate::{
    context::{Context, ContextError},
    runtime::until::Until,
};

/// A counter under a mutex.
struct Guarded {
    mutex: RawMutex,
    count: UnsafeCell<u32>,
}

// SAFETY: the count is used under the mutex only; loom checks that.
unsafe impl Send for Guarded {}
// SAFETY: as above.
unsafe impl Sync for Guarded {}

impl Guarded {
    fn new() -> Arc<Self> {
        Arc::new(Self { mutex: RawMutex::new(), count: UnsafeCell::new(0) })
    }

    /// Called with the lock held.
    fn increment(&self) -> u32 {
        self.count.with_mut(|count| {
            // SAFETY: the caller holds the lock.
            let count = unsafe { &mut *count };
            *count += 1;
            *count
        })
    }

    fn add(&self) {
        self.mutex.acquire();
        self.increment();
        self.unlock();
    }

    fn unlock(&self) {
        // SAFETY: called by the holder.
        unsafe { self.mutex.release() };
    }
}

/// MU-01, HB-07. In models a waiter that was woken in vain starves at once, so that this covers waking, overtaking and handing over.
#[test]
fn loom_mutex_excludes() {
    loom::model(|| {
        let guarded = Guarded::new();
        let parties: Vec<_> = (0..2)
            .map(|_| {
                let guarded = guarded.clone();
                thread::spawn(move || guarded.add())
            })
            .collect();
        guarded.add();
        parties.into_iter().for_each(|party| party.join().unwrap());
        guarded.mutex.acquire();
        assert_eq!(guarded.increment(), 4);
    });
}

/// The waiter is woken, comes too late, goes back to the front, and is handed the lock.
#[test]
fn loom_mutex_hands_over() {
    loom::model(|| {
        let guarded = Guarded::new();
        let other = guarded.clone();
        let waiter = thread::spawn(move || other.add());
        for _ in 0..3 {
            guarded.add();
        }
        waiter.join().unwrap();
        guarded.mutex.acquire();
        assert_eq!(guarded.increment(), 5);
    });
}

/// A time limit races with the unlock: the lock is taken or it is not, and the next party gets it either way.
#[test]
fn loom_mutex_time_limits_lose_no_wake() {
    loom::model(|| {
        let guarded = Guarded::new();
        let (timed, waiting) = (guarded.clone(), guarded.clone());
        let timed = thread::spawn(move || {
            let taken = timed.mutex.acquire_until(Until::deadline(Some(Instant::now() + Duration::from_secs(1))));
            if taken {
                timed.increment();
                timed.unlock();
            }
            u32::from(taken)
        });
        let waiting = thread::spawn(move || waiting.add());
        guarded.add();
        let taken = timed.join().unwrap();
        waiting.join().unwrap();
        guarded.mutex.acquire();
        assert_eq!(guarded.increment(), 3 + taken);
    });
}

/// HB-08: a successful `try_lock` is a lock.
#[test]
fn loom_mutex_try_lock() {
    loom::model(|| {
        let guarded = Guarded::new();
        let other = guarded.clone();
        let party = thread::spawn(move || {
            if other.mutex.try_acquire() {
                other.increment();
                other.unlock();
            }
        });
        guarded.add();
        party.join().unwrap();
        assert!(guarded.mutex.try_acquire(), "nobody holds it");
    });
}

/// CO-01, HB-11: a notification after the waiter let go of the lock is not missed.
#[test]
fn loom_condvar_misses_no_notification() {
    loom::model(|| {
        let shared = Arc::new((Guarded::new(), Condvar::new()));
        let other = shared.clone();
        let party = thread::spawn(move || {
            let (guarded, changed) = &*other;
            guarded.add();
            changed.notify_one();
        });
        let (guarded, changed) = &*shared;
        guarded.mutex.acquire();
        // SAFETY: the lock is held.
        while guarded.count.with(|count| unsafe { *count }) == 0 {
            assert!(changed.wait_raw(&guarded.mutex, Until::EVER));
        }
        guarded.unlock();
        party.join().unwrap();
    });
}

/// SM-01, HB-15: one permit is a lock.
#[test]
fn loom_semaphore_of_one_excludes() {
    loom::model(|| {
        let shared = Arc::new((Semaphore::new(1), Guarded::new()));
        let parties: Vec<_> = (0..2)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || {
                    let _permit = shared.0.acquire(1);
                    shared.1.increment();
                })
            })
            .collect();
        parties.into_iter().for_each(|party| party.join().unwrap());
        let _permit = shared.0.try_acquire(1).expect("all have given back");
        assert_eq!(shared.1.increment(), 3);
    });
}

/// SM-04, SM-05: who gives up leaves its permits to those behind it, and none is lost.
#[test]
fn loom_semaphore_loses_no_permit() {
    loom::model(|| {
        let semaphore = Arc::new(Semaphore::new(2));
        let held = semaphore.acquire(1);
        let (large, small) = (semaphore.clone(), semaphore.clone());
        let large = thread::spawn(move || drop(large.acquire_timeout(2, Duration::from_secs(1))));
        let small = thread::spawn(move || drop(small.acquire(1)));
        drop(held);
        large.join().unwrap();
        small.join().unwrap();
        assert_eq!(semaphore.available(), 2);
        assert!(semaphore.try_acquire(2).is_some());
    });
}

/// ON-01, HB-09.
#[test]
fn loom_once_runs_once_and_comes_before() {
    loom::model(|| {
        let shared = Arc::new((Once::new(), Guarded::new()));
        let parties: Vec<_> = (0..2)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || {
                    shared.0.call_once(|| {
                        shared.1.increment();
                    });
                    // SAFETY: done, and nobody writes any more.
                    assert_eq!(shared.1.count.with(|count| unsafe { *count }), 1);
                })
            })
            .collect();
        assert!(!shared.0.state().poisoned());
        parties.into_iter().for_each(|party| party.join().unwrap());
    });
}

/// A wait that began before the run, with a time limit or without.
#[test]
fn loom_once_wakes_those_who_wait() {
    loom::model(|| {
        let once = Arc::new(Once::new());
        let (waits, limited) = (once.clone(), once.clone());
        let waits = thread::spawn(move || assert!(waits.wait_done(None)));
        let limited = thread::spawn(move || {
            let _ = limited.wait_done(Some(Instant::now() + Duration::from_secs(1)));
        });
        once.call_once(|| {});
        waits.join().unwrap();
        limited.join().unwrap();
    });
}

/// WG-01, HB-10.
#[test]
fn loom_wait_group_waits_for_all() {
    loom::model(|| {
        let group = Arc::new(WaitGroup::new());
        let done = Arc::new((AtomicBool::new(false), AtomicBool::new(false)));
        group.add(2);
        let parties = [0, 1].map(|i| {
            let (group, done) = (group.clone(), done.clone());
            thread::spawn(move || {
                // ORDERING: Relaxed, so that only the group orders.
                if i == 0 { &done.0 } else { &done.1 }.store(true, Ordering::Relaxed);
                group.done();
            })
        });
        group.wait();
        assert!(done.0.load(Ordering::Relaxed) && done.1.load(Ordering::Relaxed));
        parties.into_iter().for_each(|party| party.join().unwrap());
    });
}

/// WG-03: the last `done` releases all who wait.
#[test]
fn loom_wait_group_releases_all() {
    loom::model(|| {
        let group = Arc::new(WaitGroup::new());
        let guard = group.guard();
        let (other, timed) = (group.clone(), group.clone());
        let waiter = thread::spawn(move || other.wait());
        let timed = thread::spawn(move || {
            let _ = timed.wait_timeout(Duration::from_secs(1));
        });
        drop(guard);
        group.wait();
        waiter.join().unwrap();
        timed.join().unwrap();
    });
}

/// A context, and a party that ends it.
fn ends_meanwhile() -> (Context, thread::JoinHandle<()>) {
    let (ctx, cancel) = Context::background().with_cancel();
    (ctx, thread::spawn(move || cancel.cancel()))
}

/// I1 of `until`: the end of a context races with the unlock. The lock is taken or it is not, and the next party gets it either way.
#[test]
fn loom_mutex_contexts_lose_no_wake() {
    loom::model(|| {
        let guarded = Guarded::new();
        let (ctx, ends) = ends_meanwhile();
        let other = guarded.clone();
        guarded.mutex.acquire();
        let waits = thread::spawn(move || {
            let taken = ctx.within(|until| other.mutex.acquire_until(until));
            match taken {
                Ok(()) => {
                    other.increment();
                    other.unlock();
                }
                Err(error) => assert_eq!(error, ContextError::Canceled),
            }
            u32::from(taken.is_ok())
        });
        guarded.increment();
        guarded.unlock();
        let taken = waits.join().unwrap();
        ends.join().unwrap();
        assert!(guarded.mutex.try_acquire(), "nobody holds it");
        assert_eq!(guarded.increment(), 2 + taken);
    });
}

/// The same of a semaphore: no permit is lost, and none is had twice.
#[test]
fn loom_semaphore_contexts_lose_no_permit() {
    loom::model(|| {
        let shared = Arc::new((Semaphore::new(1), Guarded::new()));
        let (ctx, ends) = ends_meanwhile();
        let other = shared.clone();
        let held = shared.0.acquire(1);
        let waits = thread::spawn(move || match other.0.acquire_ctx(1, &ctx) {
            Ok(_permit) => _ = other.1.increment(),
            Err(error) => assert_eq!(error, ContextError::Canceled),
        });
        shared.1.increment();
        drop(held);
        waits.join().unwrap();
        ends.join().unwrap();
        assert!(shared.0.try_acquire(1).is_some());
    });
}

/// The same of a wait group: the wait has seen what the task did, or the context's end.
#[test]
fn loom_wait_group_waits_until_a_context_ends() {
    loom::model(|| {
        let group = WaitGroup::new();
        let done = Arc::new(AtomicBool::new(false));
        let (ctx, ends) = ends_meanwhile();
        let (guard, work) = (group.guard(), done.clone());
        let works = thread::spawn(move || {
            // ORDERING: Relaxed, so that only the group orders.
            work.store(true, Ordering::Relaxed);
            drop(guard);
        });
        match group.wait_ctx(&ctx) {
            Ok(()) => assert!(done.load(Ordering::Relaxed)),
            Err(error) => assert_eq!(error, ContextError::Canceled),
        }
        works.join().unwrap();
        ends.join().unwrap();
        // Nobody is counted as a waiter any more: a new round may begin.
        group.add(1);
        group.done();
        group.wait();
    });
}

/// An unlock that looks and acts in two steps loses the waiter that comes in between, which must be caught.
#[test]
#[should_panic]
fn loom_a_lost_wake_is_caught() {
    loom::model(|| {
        // Leaked, since loom's objects cannot be dropped while a failure unwinds.
        let guarded: &'static Arc<Guarded> = Box::leak(Box::new(Guarded::new()));
        guarded.mutex.acquire();
        let waiter = thread::spawn(move || guarded.add());
        guarded.mutex.release_broken();
        waiter.join().unwrap();
    });
}

/// A counter under a lock for readers and writers.
struct Shared {
    lock: RawRwLock,
    count: UnsafeCell<u32>,
}

// SAFETY: the count is read under a read lock and written under the write lock only; loom checks that.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Self { lock: RawRwLock::new(), count: UnsafeCell::new(0) })
    }

    /// Called with a read lock held.
    fn read(&self) -> u32 {
        // SAFETY: the caller holds a read lock.
        self.count.with(|count| unsafe { *count })
    }

    fn get(&self, read: Read) -> u32 {
        assert!(self.lock.acquire_shared(read, Until::EVER));
        let count = self.read();
        self.let_readers_go();
        count
    }

    fn let_readers_go(&self) {
        // SAFETY: called by a reader.
        unsafe { self.lock.release_shared() };
    }

    /// Called with the upgradable lock held; false if it still is.
    fn upgrade(&self, until: Until<'_>) -> bool {
        // SAFETY: by the caller.
        unsafe { self.lock.upgrade_until(until) }
    }

    fn let_upgradable_go(&self) {
        // SAFETY: called by the upgradable reader.
        unsafe { self.lock.release_upgradable() };
    }

    /// As `add`, with a look beforehand that must still hold.
    fn look_and_add(&self) {
        assert!(self.lock.acquire_shared(Read::Upgradable, Until::EVER));
        let seen = self.read();
        assert!(self.upgrade(Until::EVER));
        assert_eq!(self.read(), seen);
        self.finish(Manner::Free);
    }

    /// Called with the write lock held, and lets go of it.
    fn finish(&self, manner: Manner) {
        // SAFETY: the caller holds the write lock.
        self.count.with_mut(|count| unsafe { *count += 1 });
        // SAFETY: as above.
        unsafe { self.lock.release_exclusive(manner) };
    }

    fn add(&self, manner: Manner) {
        assert!(self.lock.acquire_exclusive(Until::EVER));
        self.finish(manner);
    }
}

/// With writers on their way that unlocks wait for, and with ones that are late from the beginning (R3).
fn with_each_patience(model: impl Fn() + Sync + Send + Copy + 'static) {
    for late in [false, true] {
        ALWAYS.set(late);
        loom::model(model);
    }
}

/// RW-01, HB-07: two writers and a reader.
#[test]
fn loom_rwlock_excludes() {
    with_each_patience(|| {
        let shared = Shared::new();
        let (writes, reads) = (shared.clone(), shared.clone());
        let writer = thread::spawn(move || writes.add(Manner::Free));
        let reader = thread::spawn(move || assert!(reads.get(Read::Plain) <= 2));
        shared.add(Manner::Free);
        writer.join().unwrap();
        reader.join().unwrap();
        assert_eq!(shared.get(Read::Plain), 2);
    });
}

/// R3: the last of two readers hands over to the writer that waits, and the writer lets the reader in that it held back.
#[test]
fn loom_rwlock_readers_and_writers_take_turns() {
    with_each_patience(|| {
        let shared = Shared::new();
        let (writes, reads) = (shared.clone(), shared.clone());
        assert!(shared.lock.acquire_shared(Read::Plain, Until::EVER));
        let writer = thread::spawn(move || writes.add(Manner::Free));
        let reader = thread::spawn(move || {
            // One of two read locks of the same party must heed no writer that waits.
            reads.get(Read::Recursive);
            reads.get(Read::Plain)
        });
        assert_eq!(shared.read(), 0, "a reader holds it");
        shared.let_readers_go();
        writer.join().unwrap();
        reader.join().unwrap();
        assert_eq!(shared.get(Read::Plain), 1);
    });
}

/// R8: beside a reader that it lets in, a writer calls the next one, and until that has come by another reader comes in.
#[test]
fn loom_rwlock_readers_go_before_the_called_writer() {
    with_each_patience(|| {
        let shared = Shared::new();
        let (writes, reads) = (shared.clone(), shared.clone());
        assert!(shared.lock.acquire_exclusive(Until::EVER));
        let writer = thread::spawn(move || writes.add(Manner::Free));
        let reader = thread::spawn(move || assert!((1..=2).contains(&reads.get(Read::Plain))));
        shared.finish(Manner::Free);
        assert!((1..=2).contains(&shared.get(Read::Plain)));
        writer.join().unwrap();
        reader.join().unwrap();
        assert!(shared.lock.try_acquire_exclusive(), "nobody holds it");
        shared.finish(Manner::Free);
        assert_eq!(shared.get(Read::Plain), 3);
    });
}

/// Between writers: woken, overtaken, handed over, free and fair.
#[test]
fn loom_rwlock_hands_over() {
    with_each_patience(|| {
        let shared = Shared::new();
        let other = shared.clone();
        let waiter = thread::spawn(move || other.add(Manner::Free));
        for manner in [Manner::Free, Manner::Fair, Manner::Free] {
            shared.add(manner);
        }
        waiter.join().unwrap();
        assert_eq!(shared.get(Read::Plain), 4);
    });
}

/// A writer's wait ends while a reader is held back by it: the reader comes in, whether the writer had the lock or not.
#[test]
fn loom_rwlock_a_writer_that_leaves_lets_readers_in() {
    with_each_patience(|| {
        let shared = Shared::new();
        let (timed, reads) = (shared.clone(), shared.clone());
        assert!(shared.lock.acquire_shared(Read::Plain, Until::EVER));
        let timed = thread::spawn(move || {
            let taken = timed.lock.acquire_exclusive(Until::deadline(Some(Instant::now() + Duration::from_secs(1))));
            if taken {
                timed.finish(Manner::Free);
            }
            u32::from(taken)
        });
        let reader = thread::spawn(move || reads.get(Read::Plain));
        shared.let_readers_go();
        let taken = timed.join().unwrap();
        assert!(reader.join().unwrap() <= taken);
        assert!(shared.lock.try_acquire_exclusive(), "nobody holds it");
        shared.finish(Manner::Free);
        assert_eq!(shared.get(Read::Plain), 1 + taken);
    });
}

/// R6: what the upgradable reader has read still holds when it has become the writer, beside a reader that leaves and a writer that waits.
#[test]
fn loom_rwlock_upgrade_goes_first() {
    with_each_patience(|| {
        let shared = Shared::new();
        let (writes, reads) = (shared.clone(), shared.clone());
        assert!(shared.lock.acquire_shared(Read::Upgradable, Until::EVER));
        let writer = thread::spawn(move || writes.add(Manner::Free));
        let reader = thread::spawn(move || assert!(reads.get(Read::Plain) <= 2));
        assert_eq!(shared.read(), 0, "no writer came in");
        assert!(shared.upgrade(Until::EVER));
        assert_eq!(shared.read(), 0, "no writer came in between");
        shared.finish(Manner::Free);
        writer.join().unwrap();
        reader.join().unwrap();
        assert_eq!(shared.get(Read::Plain), 2);
    });
}

/// One upgradable reader at a time; the next is let in by the writer, whether it lets go or becomes upgradable and the writer again.
#[test]
fn loom_rwlock_upgradables_take_turns() {
    with_each_patience(|| {
        let shared = Shared::new();
        let other = shared.clone();
        let upgrades = thread::spawn(move || other.look_and_add());
        assert!(shared.lock.acquire_exclusive(Until::EVER));
        // SAFETY: locked above.
        unsafe { shared.lock.downgrade_exclusive_to_upgradable() };
        let seen = shared.read();
        assert!(shared.upgrade(Until::EVER));
        assert_eq!(shared.read(), seen);
        shared.finish(Manner::Free);
        upgrades.join().unwrap();
        assert_eq!(shared.get(Read::Plain), 2);
    });
}

/// R6, R7: an upgrade gives up while the last reader leaves and another is held back. That one comes in while the upgradable lock is still
/// held, and nothing is lost if the upgrade was granted in that moment.
#[test]
fn loom_rwlock_an_upgrade_that_gives_up_lets_readers_in() {
    loom::model(|| {
        let shared = Shared::new();
        let (timed, reads) = (shared.clone(), shared.clone());
        assert!(shared.lock.acquire_shared(Read::Plain, Until::EVER));
        assert!(shared.lock.acquire_shared(Read::Upgradable, Until::EVER));
        let reader = thread::spawn(move || reads.get(Read::Plain));
        let timed = thread::spawn(move || {
            let taken = timed.upgrade(Until::deadline(Some(Instant::now() + Duration::from_secs(1))));
            if taken {
                timed.finish(Manner::Free);
                assert!(reader.join().unwrap() <= 1);
            } else {
                assert_eq!(reader.join().unwrap(), 0, "it came in beside us");
                timed.let_upgradable_go();
            }
            u32::from(taken)
        });
        shared.let_readers_go();
        let taken = timed.join().unwrap();
        assert!(shared.lock.try_acquire_exclusive(), "nobody holds it");
        shared.finish(Manner::Free);
        assert_eq!(shared.get(Read::Plain), 1 + taken);
    });
}

/// A writer gives up that has held back an upgradable reader, while a reader leaves: one of the two lets it in.
#[test]
fn loom_rwlock_a_writer_that_leaves_lets_the_upgradable_in() {
    with_each_patience(|| {
        let shared = Shared::new();
        let (timed, upgrades) = (shared.clone(), shared.clone());
        assert!(shared.lock.acquire_shared(Read::Plain, Until::EVER));
        let timed = thread::spawn(move || {
            let taken = timed.lock.acquire_exclusive(Until::deadline(Some(Instant::now() + Duration::from_secs(1))));
            if taken {
                timed.finish(Manner::Free);
            }
            u32::from(taken)
        });
        let upgrades = thread::spawn(move || upgrades.look_and_add());
        shared.let_readers_go();
        let taken = timed.join().unwrap();
        upgrades.join().unwrap();
        assert_eq!(shared.get(Read::Plain), 1 + taken);
    });
}

/// The last reader that looks for writers and lets go in two steps loses the writer that comes in between, which must be caught.
#[test]
#[should_panic]
fn loom_a_lost_wake_of_a_writer_is_caught() {
    loom::model(|| {
        // Leaked, as above.
        let shared: &'static Arc<Shared> = Box::leak(Box::new(Shared::new()));
        assert!(shared.lock.acquire_shared(Read::Plain, Until::EVER));
        let writer = thread::spawn(move || shared.add(Manner::Free));
        // SAFETY: a read lock is held.
        unsafe { shared.lock.release_shared_broken() };
        writer.join().unwrap();
    });
}

/// F1 of `single_flight`: who asks at the same time shares one call, and the flags tell the truth.
#[test]
fn loom_single_flight_runs_once_for_those_at_the_same_time() {
    for forgets in [false, true] {
        loom::model(move || {
            let flight = Arc::new(SingleFlight::new());
            let runs = Arc::new(AtomicUsize::new(0));
            let asks = {
                let (flight, runs) = (flight.clone(), runs.clone());
                move || flight.work(0_u8, || runs.fetch_add(1, Ordering::SeqCst))
            };
            let other = thread::spawn(asks.clone());
            if forgets {
                flight.forget(&0);
            }
            let (mine, its) = (asks(), other.join().unwrap());
            if runs.load(Ordering::SeqCst) == 1 {
                assert_eq!((mine, its), ((0, true), (0, true)));
            } else {
                assert_ne!(mine.0, its.0);
                assert!(!mine.1 && !its.1);
            }
            // Nothing has been left behind.
            assert_eq!(flight.work(0, || 9), (9, false));
        });
    }
}

/// E2, E3 of `err_group`: two tasks fail. The cause is made from the error that `wait` gives, and the context has ended by then.
#[test]
fn loom_err_group_gives_the_error_that_is_the_cause() {
    loom::model(|| {
        let mut group = ErrGroup::new();
        group.set_cause(|error: &u32| error.to_string());
        let ctx = group.context().clone();
        for n in [1, 2] {
            group.go(move || Err(n));
        }
        let early = ctx.cause();
        let error = group.wait().unwrap_err();
        assert_eq!(ctx.cause().unwrap().to_string(), error.to_string());
        assert!(early.is_none_or(|cause| cause.to_string() == error.to_string()));
    });
}

/// E1 of `err_group`: with a limit of one the tasks exclude each other, and each gets its turn.
#[test]
fn loom_err_group_of_one_excludes() {
    loom::model(|| {
        let group = ErrGroup::<u32>::with_limit(1);
        let guarded = Guarded::new();
        for _ in 0..2 {
            let guarded = guarded.clone();
            group.go(move || {
                guarded.increment();
                Ok(())
            });
        }
        assert!(group.wait().is_ok());
        assert_eq!(guarded.increment(), 3);
    });
}
