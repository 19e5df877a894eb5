//! Locks, semaphores and condition variables that a context may end the wait for; rows SM-05, CX-26 and MU, RW, CO beside them.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use common::{at_1_2_4, quiesce, rt};
use oxigo::{
    JoinHandle,
    context::{
        CancelHandle, Context,
        ContextError::{self, Canceled, DeadlineExceeded},
    },
    go,
    sync::{Condvar, Mutex, MutexCtx, RwLock, RwLockCtx, Semaphore},
    yield_now,
};

const LONG: Duration = Duration::from_secs(3600);

fn context() -> (Context, CancelHandle) {
    Context::background().with_cancel()
}

/// Runs `wait` with a context that is cancelled once it waits; on one worker.
fn cancelled_while_parked<T: Send + 'static>(
    wait: impl FnOnce(&Context) -> Result<T, ContextError> + Send + 'static,
) -> Result<T, ContextError> {
    let (ctx, cancel) = context();
    let waiter: JoinHandle<_> = go(move || wait(&ctx));
    quiesce();
    assert!(!waiter.is_finished());
    cancel.cancel();
    waiter.join().unwrap()
}

#[test]
fn cx_26_an_end_wakes_whoever_waits_for_a_mutex() {
    rt(1, || {
        let lock = Arc::new(Mutex::new(1));
        let guard = lock.lock();
        let other = Arc::clone(&lock);
        assert_eq!(cancelled_while_parked(move |ctx| other.lock_ctx(ctx).map(|_| ())), Err(Canceled));
        drop(guard);
        // Nobody is left in the queue: the lock goes from hand to hand as before.
        *lock.lock_ctx(&Context::background()).unwrap() += 1;
        assert_eq!(*lock.try_lock().unwrap(), 2);
    });
}

#[test]
fn cx_26_an_end_wakes_whoever_waits_for_a_rwlock() {
    rt(1, || {
        let lock = Arc::new(RwLock::new(1));
        let writer = lock.write();
        let other = Arc::clone(&lock);
        assert_eq!(cancelled_while_parked(move |ctx| other.read_ctx(ctx).map(|_| ())), Err(Canceled));
        drop(writer);

        // A writer that goes away lets the readers in that it held back (RW-02).
        let reader = lock.read();
        let (ctx, cancel) = context();
        let other = Arc::clone(&lock);
        let writer = go(move || other.write_ctx(&ctx).map(|_| ()));
        quiesce();
        assert!(lock.try_read().is_none());
        let other = Arc::clone(&lock);
        let held_back = go(move || *other.read());
        quiesce();
        assert!(!held_back.is_finished());
        cancel.cancel();
        assert_eq!(writer.join().unwrap(), Err(Canceled));
        assert_eq!(held_back.join().unwrap(), 1);
        drop(reader);
        *lock.write_ctx(&Context::background()).unwrap() += 1;
        assert_eq!(*lock.read_ctx(&Context::background()).unwrap(), 2);
    });
}

#[test]
fn cx_26_an_end_wakes_whoever_waits_on_a_condvar() {
    rt(1, || {
        let pair = Arc::new((Mutex::new(0), Condvar::new()));
        let other = Arc::clone(&pair);
        let ended = cancelled_while_parked(move |ctx| {
            let mut guard = other.0.lock();
            let ended = other.1.wait_ctx(&mut guard, ctx);
            // It is locked again.
            assert!(other.0.try_lock().is_none());
            *guard += 1;
            ended
        });
        assert_eq!(ended, Err(Canceled));
        assert_eq!(*pair.0.lock(), 1);
        assert!(!pair.1.notify_one(), "nobody is left in the queue");

        // A notification is not lost on one who has gone: the next gets it.
        let (ctx, cancel) = context();
        let wait = |ctx: Context| {
            let pair = Arc::clone(&pair);
            go(move || {
                let mut guard = pair.0.lock();
                pair.1.wait_ctx(&mut guard, &ctx)
            })
        };
        let (first, second) = (wait(ctx), wait(Context::background()));
        quiesce();
        cancel.cancel();
        assert!(pair.1.notify_one());
        assert_eq!(first.join().unwrap(), Err(Canceled));
        assert_eq!(second.join().unwrap(), Ok(()));
    });
}

#[test]
fn cx_26_wait_while_ends_with_the_condition_or_the_context() {
    at_1_2_4(|| {
        let (left, changed) = (Mutex::new(3), Condvar::new());
        let begin = Instant::now();
        let (ctx, _cancel) = Context::background().with_timeout(Duration::from_millis(2));
        let mut guard = left.lock();
        assert_eq!(changed.wait_while_ctx(&mut guard, |left| *left > 0, &ctx), Err(DeadlineExceeded));
        assert!(begin.elapsed() >= Duration::from_millis(2));
        assert_eq!(changed.wait_while_ctx(&mut guard, |left| *left > 3, &ctx), Ok(()), "nothing to wait for");
        drop(guard);
        let (ctx, _cancel) = Context::background().with_timeout(LONG);
        oxigo::scope(|s| {
            for _ in 0..3 {
                s.go(|| {
                    *left.lock() -= 1;
                    changed.notify_one();
                });
            }
            assert_eq!(changed.wait_while_ctx(&mut left.lock(), |left| *left > 0, &ctx), Ok(()));
        });
    });
}

#[test]
fn cx_26_an_ended_context_comes_before_a_lock_that_is_free() {
    at_1_2_4(|| {
        let (ctx, cancel) = context();
        cancel.cancel();
        let (mutex, rwlock, changed) = (Mutex::new(()), RwLock::new(()), Condvar::new());
        assert!(mutex.lock_ctx(&ctx).is_err());
        assert!(rwlock.read_ctx(&ctx).is_err());
        assert!(rwlock.write_ctx(&ctx).is_err());
        assert_eq!(changed.wait_ctx(&mut mutex.lock(), &ctx), Err(Canceled));
        assert!(!mutex.is_locked() && !rwlock.is_locked());
    });
}

#[test]
fn cx_26_locks_with_a_context_work_from_a_plain_thread() {
    let mutex = Arc::new(Mutex::new(0));
    let (ctx, cancel) = context();
    let guard = mutex.lock_ctx(&ctx).unwrap();
    let other = Arc::clone(&mutex);
    let thread = std::thread::spawn(move || other.lock_ctx(&ctx).map(|_| ()));
    cancel.cancel();
    assert_eq!(thread.join().unwrap(), Err(Canceled));
    drop(guard);
}

/// Whoever is told that it has the lock has it, and nobody else; whoever is told of the end has nothing.
#[test]
fn cx_26_mu_01_a_grant_and_a_cancellation_at_once_agree() {
    at_1_2_4(|| {
        let (mutex, rwlock, inside) = (Mutex::new(0), RwLock::new(0), AtomicUsize::new(0));
        let had = AtomicUsize::new(0);
        for round in 0..150 {
            let (ctx, cancel) = context();
            oxigo::scope(|s| {
                for party in 0..4 {
                    let (ctx, mutex, rwlock, inside, had) = (ctx.clone(), &mutex, &rwlock, &inside, &had);
                    s.go(move || {
                        let alone = || {
                            assert_eq!(inside.fetch_add(1, SeqCst), 0);
                            yield_now();
                            inside.fetch_sub(1, SeqCst);
                            had.fetch_add(1, SeqCst);
                        };
                        if round % 2 == 0 {
                            if let Ok(mut value) = mutex.lock_ctx(&ctx) {
                                *value += 1;
                                alone();
                            }
                        } else if party == 0 {
                            drop(rwlock.read_ctx(&ctx));
                        } else if let Ok(mut value) = rwlock.write_ctx(&ctx) {
                            *value += 1;
                            alone();
                        }
                    });
                }
                for _ in 0..round % 5 {
                    yield_now();
                }
                cancel.cancel();
            });
        }
        assert_eq!(*mutex.lock() + *rwlock.write(), had.load(SeqCst));
    });
}

/// The context says that it has ended to whoever was turned away by it, also while another thread is still at cancelling: that one marks in
/// one walk and closes in the next, and a long list of children widens the gap between the two.
#[test]
fn cx_08_who_is_turned_away_finds_the_context_ended() {
    let mutex = Mutex::new(());
    let _guard = mutex.lock();
    let mut whole = Duration::ZERO;
    for round in 0..20 {
        let (ctx, cancel) = context();
        let children: Vec<_> = (0..3000).map(|_| ctx.with_cancel()).collect();
        let (begun, late) = (AtomicBool::new(false), whole * round / 20);
        std::thread::scope(|s| {
            s.spawn(|| {
                while !begun.load(SeqCst) {
                    std::hint::spin_loop();
                }
                let begin = Instant::now();
                while begin.elapsed() < late {
                    std::hint::spin_loop();
                }
                assert_eq!(mutex.lock_ctx(&children[0].0).err(), Some(Canceled));
                assert!(children[0].0.done().is_closed());
            });
            let begin = Instant::now();
            begun.store(true, SeqCst);
            cancel.cancel();
            whole = begin.elapsed();
        });
    }
}

#[test]
fn sm_05_an_ended_context_comes_before_permits_that_are_free() {
    at_1_2_4(|| {
        let semaphore = Arc::new(Semaphore::new(2));
        let (ctx, cancel) = context();
        let held = semaphore.acquire_ctx(1, &ctx).unwrap();
        let owned = semaphore.acquire_owned_ctx(1, &ctx).unwrap();
        assert_eq!(semaphore.available(), 0);
        drop((held, owned));
        cancel.cancel();
        assert_eq!(semaphore.acquire_ctx(1, &ctx).err(), Some(Canceled));
        assert_eq!(semaphore.acquire_owned_ctx(1, &ctx).err(), Some(Canceled));
        assert_eq!(semaphore.available(), 2);
    });
}

#[test]
fn sm_01_owned_permits_are_taken_as_borrowed_ones_are() {
    at_1_2_4(|| {
        let semaphore = Arc::new(Semaphore::new(3));
        let (soon, late) = (Duration::from_millis(1), Instant::now() + LONG);
        let held = [
            semaphore.try_acquire_owned(1).unwrap(),
            semaphore.acquire_owned_timeout(1, LONG).unwrap(),
            semaphore.acquire_owned_deadline(1, late).unwrap(),
        ];
        assert!(semaphore.try_acquire_owned(1).is_none());
        let begin = Instant::now();
        assert!(semaphore.acquire_owned_timeout(1, soon).is_none());
        assert!(semaphore.acquire_owned_deadline(1, begin + 2 * soon).is_none());
        assert!(begin.elapsed() >= 2 * soon);
        let waiter = {
            let semaphore = Arc::clone(&semaphore);
            go(move || semaphore.acquire_owned_timeout(3, LONG))
        };
        drop((semaphore, held));
        assert!(waiter.join().unwrap().is_some());
    });
}

#[test]
fn sm_03_more_permits_than_can_be_counted_panic() {
    drop(Semaphore::new(Semaphore::MAX_PERMITS).acquire(Semaphore::MAX_PERMITS));
    let panic = std::panic::catch_unwind(|| Semaphore::new(Semaphore::MAX_PERMITS + 1)).unwrap_err();
    assert!(panic.downcast::<&str>().unwrap().contains("MAX_PERMITS"));
}

/// Each permit is either had by somebody or free at the end, however grants and ends meet.
#[test]
fn sm_05_a_grant_and_a_cancellation_at_once_lose_no_permit() {
    at_1_2_4(|| {
        let semaphore = Semaphore::new(3);
        for round in 0..200 {
            let (ctx, cancel) = context();
            oxigo::scope(|s| {
                for n in 1..=3 {
                    let (ctx, semaphore) = (ctx.clone(), &semaphore);
                    s.go(move || {
                        let permit = semaphore.acquire_ctx(n, &ctx);
                        yield_now();
                        drop(permit);
                    });
                }
                for _ in 0..round % 4 {
                    yield_now();
                }
                cancel.cancel();
            });
            assert_eq!(semaphore.available(), 3);
        }
    });
}

/// SM-04 with a context: those behind a large request that gives up go on.
#[test]
fn sm_04_a_cancelled_request_lets_others_go_on() {
    rt(1, || {
        let semaphore = Arc::new(Semaphore::new(10));
        let held = semaphore.acquire(5);
        let (ctx, cancel) = context();
        let (a, b) = (Arc::clone(&semaphore), Arc::clone(&semaphore));
        let large = go(move || a.acquire_ctx(10, &ctx).err());
        quiesce();
        let small = go(move || drop(b.acquire(2)));
        quiesce();
        assert!(!small.is_finished());
        cancel.cancel();
        assert_eq!(large.join().unwrap(), Some(Canceled));
        small.join().unwrap();
        drop(held);
        assert_eq!(semaphore.available(), 10);
    });
}

/// The first of many who wait in line goes away: the others keep their order.
#[test]
fn mu_06_a_cancelled_waiter_leaves_the_line_in_order() {
    rt(1, || {
        let (lock, order, gone) = (Arc::new(Mutex::new(())), Arc::new(Mutex::new(Vec::new())), AtomicBool::new(false));
        let guard = lock.lock();
        let (ctx, cancel) = context();
        let waiters: Vec<_> = (0..4)
            .map(|n| {
                let (lock, order) = (Arc::clone(&lock), Arc::clone(&order));
                let ctx = if n == 1 { ctx.clone() } else { Context::background() };
                let waiter = go(move || {
                    let Ok(_guard) = lock.lock_ctx(&ctx) else { return };
                    order.lock().push(n);
                });
                quiesce();
                waiter
            })
            .collect();
        cancel.cancel();
        quiesce();
        gone.store(waiters[1].is_finished(), SeqCst);
        drop(guard);
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        assert!(gone.load(SeqCst));
        assert_eq!(*order.lock(), [0, 2, 3]);
    });
}
