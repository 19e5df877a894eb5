//! Rows HB-06, HB-14 and HB-15 of the conformance list: plain data that an edge publishes. The other edges are tested beside what they
//! belong to, and those between threads under the thread sanitizer too (`tests/threads.rs`).

mod common;

use std::{cell::UnsafeCell, sync::Arc};

use common::at_1_2_4;
use oxigo::{
    context::Context,
    go,
    sync::{ErrGroup, Semaphore},
};

/// Data without any synchronisation of its own.
struct Plain(UnsafeCell<u64>);

// SAFETY: the tests order all accesses by the edge that they test.
unsafe impl Sync for Plain {}

impl Plain {
    fn new() -> Arc<Self> {
        Arc::new(Self(UnsafeCell::new(0)))
    }

    fn set(&self, value: u64) {
        // SAFETY: ordered with all other accesses by the edge that the test is about.
        unsafe { *self.0.get() = value }
    }

    fn get(&self) -> u64 {
        // SAFETY: as in `set`.
        unsafe { *self.0.get() }
    }
}

/// In Go the end of a goroutine orders nothing; here `join` does, and nothing else.
#[test]
fn hb_06_the_end_comes_before_its_join() {
    at_1_2_4(|| {
        for round in 0..200 {
            let plain = Plain::new();
            let child = go({
                let plain = Arc::clone(&plain);
                move || plain.set(round)
            });
            child.join().unwrap();
            assert_eq!(plain.get(), round);
            // By a thread of the pool as well.
            let child = go({
                let plain = Arc::clone(&plain);
                move || plain.set(round + 1)
            });
            oxigo::blocking(move || child.join()).unwrap();
            assert_eq!(plain.get(), round + 1);
        }
    });
}

#[test]
fn hb_14_what_came_before_run_is_seen_in_it_and_what_it_did_after() {
    for workers in [1, 2, 4] {
        let plain = Plain::new();
        plain.set(1);
        let runtime = oxigo::Runtime::builder().workers(workers).build().unwrap();
        for round in 1..200 {
            runtime.run(|| {
                assert_eq!(plain.get(), round);
                plain.set(round + 1);
            });
            assert_eq!(plain.get(), round + 1);
        }
    }
}

#[test]
fn hb_15_a_cancel_comes_before_done() {
    at_1_2_4(|| {
        for round in 1..200 {
            let plain = Plain::new();
            let (ctx, handle) = Context::background().with_cancel();
            go({
                let plain = Arc::clone(&plain);
                move || {
                    plain.set(round);
                    handle.cancel();
                }
            });
            ctx.done().recv().unwrap_err();
            assert_eq!(plain.get(), round);
        }
    });
}

#[test]
fn hb_15_a_permit_comes_before_the_next() {
    at_1_2_4(|| {
        const PARTIES: u64 = 8;
        const ROUNDS: u64 = 200;
        let plain = Plain::new();
        let one = Arc::new(Semaphore::new(1));
        let parties: Vec<_> = (0..PARTIES)
            .map(|_| {
                let (plain, one) = (Arc::clone(&plain), Arc::clone(&one));
                go(move || {
                    for _ in 0..ROUNDS {
                        let _permit = one.acquire(1);
                        plain.set(plain.get() + 1);
                    }
                })
            })
            .collect();
        parties.into_iter().for_each(|party| party.join().unwrap());
        assert_eq!(plain.get(), PARTIES * ROUNDS);
    });
}

#[test]
fn hb_15_a_task_comes_before_the_wait_of_its_group() {
    at_1_2_4(|| {
        for round in 1..100 {
            let plain = [Plain::new(), Plain::new()];
            let group = ErrGroup::<()>::new();
            for plain in &plain {
                let plain = Arc::clone(plain);
                group.go(move || {
                    plain.set(round);
                    Ok(())
                });
            }
            group.wait().unwrap();
            assert!(plain.iter().all(|plain| plain.get() == round));
        }
    });
}
