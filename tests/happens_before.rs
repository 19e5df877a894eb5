//! What comes before what: group HB of the conformance list, with plain data that an edge publishes, between goroutines.
//!
//! A processor that keeps the order by itself hides a missing edge, so `ci/sanitizers` runs this file under ThreadSanitizer: a goroutine never
//! changes its thread, and goroutines of different workers race as their threads do. The same between threads is in `threads.rs`, locks
//! (HB-07, HB-08, HB-11) are in `mutex.rs` and there.

mod common;

use std::{future::poll_fn, sync::Arc, task::Poll};

use common::{Plain, at_1_2_4};
use oxigo::{
    Builder, Chan, WaitGroup, bounded,
    context::Context,
    future::block_on,
    go, select,
    sync::{ErrGroup, Once, OnceLock, Semaphore},
    unbuffered, yield_now,
};

#[test]
fn hb_01_go_comes_before_the_start() {
    at_1_2_4(|| {
        for n in 0..500 {
            let data = Plain::shared();
            data.set(n);
            let shared = Arc::clone(&data);
            assert_eq!(go(move || shared.get()).join().unwrap(), n);
        }
    });
}

#[test]
fn hb_02_a_send_comes_before_its_receive() {
    at_1_2_4(|| {
        for capacity in [0, 1, 3] {
            let (tx, rx) = bounded(capacity);
            let sender = go(move || {
                for n in 0..1000 {
                    let data = Plain::shared();
                    data.set(n);
                    tx.send(data).unwrap_or_else(|_| panic!("the receiver is there"));
                }
            });
            for (n, data) in rx.iter().enumerate() {
                assert_eq!(data.get(), n);
                data.set(0);
            }
            sender.join().unwrap();
        }
    });
}

#[test]
fn hb_03_a_close_comes_before_the_receives_that_it_ends() {
    at_1_2_4(|| {
        for n in 1..300 {
            let (tx, rx) = bounded::<()>(n % 3);
            let data = Plain::shared();
            let readers = [false, true].map(|selects| {
                let (rx, data) = (rx.clone(), Arc::clone(&data));
                go(move || {
                    let received = if selects {
                        select! { recv(rx) -> v => v }
                    } else {
                        rx.recv()
                    };
                    assert!(received.is_err());
                    data.get()
                })
            });
            if n % 2 == 0 {
                yield_now();
            }
            data.set(n);
            if n % 5 == 0 {
                drop(tx);
            } else {
                tx.close().unwrap();
            }
            assert_eq!(readers.map(|reader| reader.join().unwrap()), [n; 2]);
        }
    });
}

#[test]
fn hb_04_an_unbuffered_receive_comes_before_the_end_of_its_send() {
    at_1_2_4(|| {
        let (tx, rx) = unbuffered();
        let data = Plain::shared();
        let shared = Arc::clone(&data);
        let (go_on, next) = unbuffered();
        let receiver = go(move || {
            for n in 1..=1000 {
                shared.set(n);
                rx.recv().unwrap();
                // The sender reads now; it says when it has.
                next.recv().unwrap();
            }
        });
        for n in 1..=1000 {
            tx.send(()).unwrap();
            assert_eq!(data.get(), n);
            go_on.send(()).unwrap();
        }
        receiver.join().unwrap();
    });
}

/// The semaphore idiom: sending takes a place, receiving gives it back; the data is the holder's alone.
#[test]
fn hb_05_a_receive_comes_before_the_send_that_takes_its_place() {
    at_1_2_4(|| {
        let semaphore = Chan::bounded(1);
        let data = Plain::shared();
        let group = WaitGroup::new();
        for _ in 0..8 {
            let (semaphore, data) = (semaphore.clone(), Arc::clone(&data));
            group.go(move || {
                for n in 0..200 {
                    semaphore.send(()).unwrap();
                    let value = data.get();
                    if n % 16 == 0 {
                        yield_now();
                    }
                    data.set(value + 1);
                    semaphore.recv().unwrap();
                }
            });
        }
        group.wait();
        assert_eq!(data.get(), 1600);
    });
}

/// In Go the end of a goroutine orders nothing; here `join` does, and nothing else.
#[test]
fn hb_06_the_end_comes_before_its_join() {
    at_1_2_4(|| {
        for round in 0..200 {
            let plain = Plain::shared();
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

/// Several run for it, of which one runs the closure and the others return after it.
#[test]
fn hb_09_the_closure_of_a_once_comes_before_every_return() {
    at_1_2_4(|| {
        for round in 1..200 {
            let (once, lock) = (Once::new(), OnceLock::new());
            let plain = [Plain::default(), Plain::default()];
            oxigo::scope(|s| {
                for _ in 0..4 {
                    s.go(|| {
                        once.call_once(|| plain[0].set(round));
                        assert_eq!(plain[0].get(), round);
                        lock.get_or_init(|| plain[1].set(round));
                        assert_eq!(plain[1].get(), round);
                    });
                }
            });
        }
    });
}

#[test]
fn hb_10_done_comes_before_the_wait_that_it_ends() {
    at_1_2_4(|| {
        for round in 0..50 {
            let cells: Arc<Vec<_>> = Arc::new((0..8).map(|_| Plain::default()).collect());
            let tasks = WaitGroup::new();
            for n in 0..8 {
                let cells = Arc::clone(&cells);
                tasks.go(move || cells[n].set(round));
            }
            tasks.wait();
            assert!(cells.iter().all(|cell| cell.get() == round));
        }
    });
}

#[test]
fn hb_14_what_came_before_run_is_seen_in_it_and_what_it_did_after() {
    for workers in [1, 2, 4] {
        let plain = Plain::shared();
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
            let plain = Plain::shared();
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
        const PARTIES: usize = 8;
        const ROUNDS: usize = 200;
        let plain = Plain::shared();
        let one = Arc::new(Semaphore::new(1));
        let parties: Vec<_> = (0..PARTIES)
            .map(|_| {
                let (plain, one) = (Arc::clone(&plain), Arc::clone(&one));
                go(move || {
                    for round in 0..ROUNDS {
                        let _permit = if round % 2 == 0 {
                            one.acquire(1)
                        } else {
                            one.acquire_ctx(1, &Context::background()).unwrap()
                        };
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
            let plain = [Plain::shared(), Plain::shared()];
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

#[test]
fn a_wake_comes_before_the_poll_that_follows_it() {
    at_1_2_4(|| {
        for n in 1..300 {
            let data = Plain::shared();
            let mut begun = false;
            // Only the wake says that it may be read.
            let read = block_on(poll_fn(|cx| {
                if begun {
                    return Poll::Ready(data.get());
                }
                begun = true;
                let (data, waker) = (Arc::clone(&data), cx.waker().clone());
                let writer = Builder::new().spread().spawn(move || {
                    data.set(n);
                    waker.wake();
                });
                writer.map_or(Poll::Ready(0), |_| Poll::Pending)
            }));
            assert_eq!(read, n);
        }
    });
}

/// ThreadSanitizer is seen at work on goroutines: `ci/sanitizers` expects this to be reported, and sets a variable without which it does
/// nothing.
#[test]
#[ignore = "a race, to be found by ThreadSanitizer"]
fn seeded_goroutines() {
    if std::env::var_os("OXIGO_SEEDED").is_none() {
        return;
    }
    // One race may go unseen: when the writer has ended before the receive, the end of its sender comes before that.
    for _ in 0..100 {
        let plain = Plain::shared();
        let (tx, rx) = bounded(1);
        let writer = go({
            let plain = Arc::clone(&plain);
            move || {
                tx.send(()).unwrap();
                // Too late: the send has come before.
                plain.set(1);
            }
        });
        rx.recv().unwrap();
        std::hint::black_box(plain.get());
        writer.join().unwrap();
    }
}
