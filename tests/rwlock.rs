//! `RwLock`: readers together, writers alone, in turns; group RW of the conformance list.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use common::{at_1_2_4, quiesce, rt};
use oxigo::{
    go,
    sync::{Mutex, RwLock, RwLockWriteGuard},
    yield_now,
};

/// HB-07 as well: the values are plain.
#[test]
fn rw_01_readers_together_writers_alone() {
    at_1_2_4(|| {
        let (lock, active) = (RwLock::new((0u32, 0u32)), AtomicI64::new(0));
        oxigo::scope(|s| {
            for i in 0..12 {
                let (lock, active) = (&lock, &active);
                s.go(move || {
                    for round in 0..300 {
                        if i < 3 {
                            let mut pair = lock.write();
                            assert_eq!(active.fetch_add(10_000, SeqCst), 0);
                            pair.0 += 1;
                            if round % 16 == 0 {
                                yield_now();
                            }
                            pair.1 += 1;
                            active.fetch_sub(10_000, SeqCst);
                        } else {
                            let pair = lock.read();
                            let now = active.fetch_add(1, SeqCst);
                            assert!((0..10_000).contains(&now));
                            assert_eq!(pair.0, pair.1);
                            if round % 16 == 0 {
                                yield_now();
                            }
                            active.fetch_sub(1, SeqCst);
                        }
                    }
                });
            }
        });
        assert_eq!(*lock.try_write().expect("all are gone"), (900, 900));
    });
}

#[test]
fn rw_02_a_waiting_writer_holds_back_new_readers() {
    rt(1, || {
        let lock = Arc::new(RwLock::new(0));
        let reader = lock.read();
        let other = lock.clone();
        let writer = go(move || *other.write() = 1);
        quiesce();
        assert!(lock.try_read().is_none());
        assert!(lock.try_read_recursive().is_some());
        let other = lock.clone();
        let late = go(move || *other.read());
        quiesce();
        assert!(!late.is_finished());
        drop(reader);
        writer.join().unwrap();
        assert_eq!(late.join().unwrap(), 1, "the writer went first");
    });
}

#[test]
fn rw_03_readers_come_in_before_the_next_writer() {
    rt(1, || {
        let (lock, order) = (Arc::new(RwLock::new(())), Arc::new(Mutex::new(String::new())));
        let first = lock.write();
        let mut parties = Vec::new();
        for name in ['r', 'w', 'r', 'w', 'r'] {
            let (lock, order) = (lock.clone(), order.clone());
            parties.push(go(move || {
                if name == 'r' {
                    let _guard = lock.read();
                    order.lock().push(name);
                } else {
                    let _guard = lock.write();
                    order.lock().push(name);
                }
            }));
            quiesce();
        }
        drop(first);
        parties.into_iter().for_each(|party| party.join().unwrap());
        assert_eq!(*order.lock(), "rrrww");
    });
}

#[test]
fn rw_04_what_try_gives() {
    at_1_2_4(|| {
        let lock = RwLock::new(());
        let reader = lock.read();
        assert!(lock.try_read().is_some() && lock.try_write().is_none());
        drop(reader);
        let writer = lock.write();
        assert!(lock.try_read().is_none() && lock.try_write().is_none() && lock.is_locked_exclusive());
        let reader = RwLockWriteGuard::downgrade(writer);
        assert!(lock.try_read().is_some() && lock.try_write().is_none());
        drop(reader);
        assert!(lock.try_write().is_some());
    });
}

#[test]
fn rwlock_time_limits() {
    at_1_2_4(|| {
        let lock = Arc::new(RwLock::new(()));
        let reader = lock.read();
        let begin = Instant::now();
        assert!(lock.try_write_for(Duration::from_millis(10)).is_none());
        assert!(begin.elapsed() >= Duration::from_millis(10));
        // The writer that gave up holds nobody back.
        assert!(lock.try_read().is_some());
        drop(reader);
        let writer = lock.write();
        assert!(lock.try_read_for(Duration::from_millis(5)).is_none());
        assert!(lock.try_read_until(begin).is_none());
        drop(writer);
        assert!(lock.try_write_for(Duration::ZERO).is_some());
    });
}

/// Readers that wait behind a writer come in when it gives up.
#[test]
fn rwlock_a_writer_that_gives_up_lets_readers_in() {
    at_1_2_4(|| {
        let lock = Arc::new(RwLock::new(()));
        let held = lock.read();
        let (a, b) = (lock.clone(), lock.clone());
        let writer = go(move || a.try_write_for(Duration::from_millis(30)).is_none());
        while lock.try_read().is_some() && !writer.is_finished() {
            yield_now();
        }
        let reader = go(move || drop(b.read()));
        assert!(writer.join().unwrap());
        reader.join().unwrap();
        drop(held);
        assert!(lock.try_write().is_some());
    });
}

#[test]
fn rwlock_time_limits_in_a_fight() {
    at_1_2_4(|| {
        let (lock, taken) = (RwLock::new(0usize), AtomicUsize::new(0));
        oxigo::scope(|s| {
            for i in 0..12u64 {
                let (lock, taken) = (&lock, &taken);
                s.go(move || {
                    for _ in 0..100 {
                        match i % 4 {
                            0 => drop(lock.try_read_for(Duration::from_micros(20 * i))),
                            1 => drop(lock.read()),
                            2 => {
                                if let Some(mut value) = lock.try_write_for(Duration::from_micros(20 * i)) {
                                    *value += 1;
                                    taken.fetch_add(1, SeqCst);
                                    yield_now();
                                }
                            }
                            _ => {
                                *lock.write() += 1;
                                taken.fetch_add(1, SeqCst);
                            }
                        }
                    }
                });
            }
        });
        assert_eq!(*lock.try_read().expect("all are gone"), taken.load(SeqCst));
        assert!(lock.try_write().is_some());
    });
}
