//! `Once`, `OnceLock`, `LazyLock`, `Semaphore`, `Barrier`: groups ON, SM, HB of the conformance list.

mod common;

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{
            AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use common::{Counted, at_1_2_4, child, is_child, quiesce, rt, stderr};
use oxigo::{
    go,
    sync::{Barrier, Condvar, LazyLock, Mutex, Once, OnceLock, OnceState, Semaphore},
    yield_now,
};

#[test]
fn on_01_hb_09_once_and_all_others_wait() {
    at_1_2_4(|| {
        let (once, runs, value) = (Once::new(), AtomicUsize::new(0), AtomicUsize::new(0));
        oxigo::scope(|s| {
            for _ in 0..10 {
                s.go(|| {
                    once.call_once(|| {
                        runs.fetch_add(1, SeqCst);
                        (0..20).for_each(|_| yield_now());
                        // Relaxed: the once alone orders.
                        value.store(7, Relaxed);
                    });
                    assert_eq!(value.load(Relaxed), 7);
                });
            }
        });
        assert_eq!(runs.load(SeqCst), 1);
        assert_eq!(format!("{once:?}"), "Once { state: Done }");
    });
}

/// ON-02, as decided: it poisons, as parking_lot's does.
#[test]
fn on_02_a_panic_poisons_until_forced() {
    at_1_2_4(|| {
        let once = Once::new();
        let fails = || catch_unwind(AssertUnwindSafe(|| once.call_once(|| resume_unwind(Box::new(1)))));
        assert!(fails().is_err());
        assert_eq!(once.state(), OnceState::Poisoned);
        assert!(catch_unwind(AssertUnwindSafe(|| once.call_once(|| unreachable!()))).is_err());
        once.call_once_force(|state| assert!(state.poisoned()));
        once.call_once(|| unreachable!());
        assert!(once.state().done());
    });
}

/// As std's `wait` and `wait_force`.
#[test]
fn whoever_runs_it_others_may_wait() {
    rt(1, || {
        let once = Arc::new(Once::new());
        let wait = |how: fn(&Once)| {
            let once = once.clone();
            go(move || catch_unwind(AssertUnwindSafe(|| how(&once))).is_ok())
        };
        let (waits, forces) = (wait(Once::wait), wait(Once::wait_force));
        quiesce();
        assert!(catch_unwind(AssertUnwindSafe(|| once.call_once(|| resume_unwind(Box::new(1))))).is_err());
        assert!(!waits.join().unwrap() && !wait(Once::wait).join().unwrap(), "it is poisoned");
        quiesce();
        assert!(!forces.is_finished() && !once.is_completed());
        let also_forces = wait(Once::wait_force);
        quiesce();
        once.call_once_force(|_| ());
        assert!(forces.join().unwrap() && also_forces.join().unwrap() && wait(Once::wait).join().unwrap());
        assert!(once.is_completed());
    });
}

#[test]
fn on_04_a_lazy_value_is_made_once_and_a_panic_comes_back() {
    at_1_2_4(|| {
        let made = AtomicUsize::new(0);
        let lazy = LazyLock::new(|| {
            yield_now();
            made.fetch_add(1, SeqCst)
        });
        oxigo::scope(|s| {
            for _ in 0..8 {
                s.go(|| assert_eq!(*lazy, 0));
            }
        });
        assert_eq!(made.load(SeqCst), 1);
        let failing: LazyLock<u32> = LazyLock::new(|| resume_unwind(Box::new("on purpose")));
        assert!(catch_unwind(AssertUnwindSafe(|| *failing)).is_err());
        assert!(catch_unwind(AssertUnwindSafe(|| *failing)).is_err());
    });
}

/// ON-05: what the closure holds is dropped after the first call.
#[test]
fn on_05_the_closure_is_released() {
    let drops = Arc::new(AtomicUsize::new(0));
    let captured = Counted(drops.clone());
    let lazy = LazyLock::new(move || {
        let _captured = captured;
    });
    LazyLock::force(&lazy);
    assert_eq!(drops.load(SeqCst), 1);
}

#[test]
fn once_lock_holds_one_value() {
    at_1_2_4(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let mut place = OnceLock::new();
        assert!(place.get().is_none());
        assert!(place.set(Counted(drops.clone())).is_ok());
        assert!(place.set(Counted(drops.clone())).is_err());
        assert_eq!(drops.load(SeqCst), 1);
        drop(place.take());
        assert!(place.get_mut().is_none());
        place.get_or_init(|| Counted(drops.clone()));
        drop(place);
        assert_eq!(drops.load(SeqCst), 3);
        let empty = OnceLock::<u32>::new();
        let failed = catch_unwind(AssertUnwindSafe(|| *empty.get_or_init(|| resume_unwind(Box::new(1)))));
        assert!(failed.is_err());
        assert_eq!(format!("{empty:?}"), "OnceLock(<uninit>)");
        assert_eq!(*empty.get_or_init(|| 3), 3);
        assert_eq!(format!("{empty:?}"), "OnceLock(3)");
    });
}

/// As std's: copies hold copies of the value, and equality is that of what is held.
#[test]
fn once_lock_is_copied_and_compared_by_its_value() {
    let (empty, ada) = (OnceLock::new(), OnceLock::from("ada".to_owned()));
    let copy = ada.clone();
    assert_eq!(copy, ada);
    assert_ne!(empty, ada);
    assert_eq!(empty.clone(), empty);
    copy.get().expect("copied with its value");
    empty.set("ada".to_owned()).unwrap();
    assert_eq!(empty, copy);
}

#[test]
fn on_04_a_lazy_value_may_be_looked_at_and_changed() {
    let mut lazy = LazyLock::new(|| vec![1]);
    assert_eq!(LazyLock::get(&lazy), None);
    assert_eq!(LazyLock::get_mut(&mut lazy), None);
    LazyLock::force_mut(&mut lazy).push(2);
    lazy.push(3);
    assert_eq!(LazyLock::get(&lazy), Some(&vec![1, 2, 3]));
    LazyLock::get_mut(&mut lazy).unwrap().clear();
    assert!(lazy.is_empty());

    let mut failing: LazyLock<u32> = LazyLock::new(|| resume_unwind(Box::new("on purpose")));
    for _ in 0..2 {
        assert!(catch_unwind(AssertUnwindSafe(|| *LazyLock::force_mut(&mut failing))).is_err());
    }
    assert_eq!(LazyLock::get_mut(&mut failing), None);
}

#[test]
fn panics_name_the_callers_line() {
    const NAME: &str = "panics_name_the_callers_line";
    if is_child(NAME) {
        let failing = |run: &dyn Fn()| assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        let once = Once::new();
        failing(&|| once.call_once_force(|_| resume_unwind(Box::new("on purpose"))));
        failing(&|| once.call_once(|| ()));
        failing(&|| once.wait());
        let lazy: LazyLock<u32> = LazyLock::new(|| resume_unwind(Box::new("on purpose")));
        failing(&|| assert_eq!(LazyLock::force(&lazy), &1));
        failing(&|| assert_eq!(LazyLock::force(&lazy), &1));
        failing(&|| assert_eq!(*lazy, 1));
        // Somebody waits with another mutex.
        let (changed, one, other, waits) = (Condvar::new(), Mutex::new(()), Mutex::new(()), Mutex::new(false));
        oxigo::scope(|s| {
            s.go(|| {
                let mut guard = one.lock();
                *waits.lock() = true;
                changed.wait(&mut guard);
            });
            while !*waits.lock() {
                yield_now();
            }
            drop(one.lock());
            failing(&|| changed.wait(&mut other.lock()));
            failing(&|| assert!(changed.wait_for(&mut other.lock(), Duration::from_secs(1)).timed_out()));
            failing(&|| changed.wait_while(&mut other.lock(), |_| true));
            assert!(changed.notify_one());
        });
        return;
    }
    let output = child(NAME);
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches("panicked at tests/sync_once.rs:").count(), 7, "{text}");
    assert_eq!(text.matches("panicked at ").count(), 7, "{text}");
}

#[test]
fn once_lock_waits_for_its_value() {
    at_1_2_4(|| {
        let place = Arc::new(OnceLock::new());
        let begin = Instant::now();
        assert!(place.wait_timeout(Duration::from_millis(5)).is_none());
        assert!(begin.elapsed() >= Duration::from_millis(5));
        let waiters: Vec<_> = (0..5)
            .map(|_| {
                let place = place.clone();
                go(move || *place.wait())
            })
            .collect();
        oxigo::time::sleep(Duration::from_millis(1));
        place.set(4).unwrap();
        waiters.into_iter().for_each(|waiter| assert_eq!(waiter.join().unwrap(), 4));
        assert_eq!(place.wait_timeout(Duration::ZERO), Some(&4));
    });
}

#[test]
fn sm_01_never_more_than_the_size() {
    at_1_2_4(|| {
        let (semaphore, out) = (Semaphore::new(10), AtomicUsize::new(0));
        oxigo::scope(|s| {
            for i in 0..20 {
                let (semaphore, out) = (&semaphore, &out);
                s.go(move || {
                    for round in 0..50 {
                        let n = (i * 7 + round) % 11;
                        let permit = match round % 3 {
                            0 => semaphore.acquire_timeout(n, Duration::from_micros(100)),
                            _ => Some(semaphore.acquire(n)),
                        };
                        let Some(_permit) = permit else { continue };
                        assert!(out.fetch_add(n, SeqCst) + n <= 10);
                        yield_now();
                        out.fetch_sub(n, SeqCst);
                    }
                });
            }
        });
        assert_eq!(semaphore.available(), 10);
        assert!(semaphore.try_acquire(10).is_some());
    });
}

/// SM-01, SM-02: nobody overtakes a large request, not even with `try_acquire`.
#[test]
fn sm_02_first_come_first_served() {
    rt(1, || {
        let (semaphore, order) = (Arc::new(Semaphore::new(10)), Arc::new(Mutex::new(Vec::new())));
        let one = semaphore.acquire(1);
        let mut parties = Vec::new();
        for n in [10, 1, 9, 2] {
            let (semaphore, order) = (semaphore.clone(), order.clone());
            parties.push(go(move || {
                let _permit = semaphore.acquire_owned(n);
                // `lock` would let others run first, where the slice is over: of those who have permits together another might come before.
                order.try_lock().expect("one worker").push(n);
            }));
            quiesce();
        }
        assert!(order.lock().is_empty());
        assert!(semaphore.try_acquire(1).is_none());
        assert_eq!(format!("{semaphore:?}"), "Semaphore { size: 10, available: 9, waiters: true }");
        drop(one);
        parties.into_iter().for_each(|party| party.join().unwrap());
        assert_eq!(*order.lock(), [10, 1, 9, 2]);
    });
}

#[test]
#[should_panic(expected = "can never be granted")]
fn sm_03_more_than_the_size_panics() {
    let _ = Semaphore::new(3).acquire(4);
}

#[test]
fn sm_04_who_gives_up_lets_others_go_on() {
    at_1_2_4(|| {
        let semaphore = Arc::new(Semaphore::new(10));
        let held = semaphore.acquire(5);
        let (a, b) = (semaphore.clone(), semaphore.clone());
        let large = go(move || a.acquire_timeout(10, Duration::from_millis(30)).is_none());
        // Where this one has no core meanwhile, it may have given up before it is seen to wait.
        while semaphore.try_acquire(1).is_some() && !large.is_finished() {
            oxigo::time::sleep(Duration::from_micros(50));
        }
        let small = go(move || drop(b.acquire(2)));
        assert!(large.join().unwrap());
        small.join().unwrap();
        drop(held);
        assert_eq!(semaphore.available(), 10);
    });
}

#[test]
fn barrier_rounds_have_one_leader() {
    at_1_2_4(|| {
        let (barrier, leaders, arrived) = (Barrier::new(8), AtomicUsize::new(0), AtomicUsize::new(0));
        oxigo::scope(|s| {
            for _ in 0..8 {
                s.go(|| {
                    for round in 1..=50 {
                        arrived.fetch_add(1, SeqCst);
                        if barrier.wait().is_leader() {
                            leaders.fetch_add(1, SeqCst);
                        }
                        assert!(arrived.load(SeqCst) >= 8 * round);
                    }
                });
            }
        });
        assert_eq!(leaders.load(SeqCst), 50);
        assert_eq!(format!("{barrier:?}"), "Barrier { parties: 8, waiting: 0 }");
    });
}
