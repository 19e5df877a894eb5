//! The runtime's basic costs, one number each: `cargo bench --bench core`; with `-- --test` each runs once, as a check.
//!
//! Every iteration does `ITEMS` units of work inside one `run`, whose own cost is a few microseconds. The rivals are in `bench/`.

use std::sync::{Arc, LazyLock};

use divan::{Bencher, counter::ItemsCount};
use oxigo::{Builder, Runtime, WaitGroup, bounded, go, select, sync::RwLock, unbuffered};

/// Units of work in one iteration.
const ITEMS: u64 = 20_000;

const WORKERS: [usize; 2] = [1, 2];

fn main() {
    divan::main();
}

static RUNTIMES: [LazyLock<Runtime>; 2] = [LazyLock::new(|| runtime(1)), LazyLock::new(|| runtime(2))];

fn runtime(workers: usize) -> Runtime {
    Runtime::builder().workers(workers).build().expect("a runtime")
}

/// Measures `work`, which does `ITEMS` units on a goroutine of a runtime of `workers` and returns something to check.
fn measure(bencher: Bencher<'_, '_>, workers: usize, expected: u64, work: fn() -> u64) {
    let runtime = &*RUNTIMES[workers - 1];
    bencher.counter(ItemsCount::new(ITEMS)).bench_local(|| assert_eq!(runtime.run(work), expected));
}

/// The sum of what a channel that carried 1 to `ITEMS` once has delivered.
const SUM: u64 = ITEMS * (ITEMS + 1) / 2;

#[divan::bench(args = WORKERS)]
fn spawn_and_wait(bencher: Bencher<'_, '_>, workers: usize) {
    measure(bencher, workers, SUM, || {
        let (results, received) = unbuffered();
        (1..=ITEMS)
            .map(|n| {
                let results = results.clone();
                go(move || results.send(n).expect("received below"));
                received.recv().expect("sent above")
            })
            .sum()
    });
}

#[divan::bench(args = WORKERS)]
fn spawn_many(bencher: Bencher<'_, '_>, workers: usize) {
    measure(bencher, workers, 0, || {
        let all = Arc::new(WaitGroup::new());
        all.add(ITEMS as isize);
        for _ in 0..ITEMS {
            let all = Arc::clone(&all);
            go(move || all.done());
        }
        all.wait();
        0
    });
}

/// A round trip is one unit.
#[divan::bench(args = WORKERS)]
fn ping_pong(bencher: Bencher<'_, '_>, workers: usize) {
    measure(bencher, workers, ITEMS, || {
        let (there, arrives) = unbuffered();
        let (back, answers) = unbuffered();
        go(move || {
            for n in &arrives {
                back.send(n + 1).expect("the other side waits");
            }
        });
        (0..ITEMS).fold(0, |n, _| {
            there.send(n).expect("the other side waits");
            answers.recv().expect("an answer")
        })
    });
}

fn stream(capacity: usize) -> u64 {
    let (numbers, received) = bounded(capacity);
    go(move || {
        for n in 1..=ITEMS {
            numbers.send(n).expect("received below");
        }
    });
    received.iter().sum()
}

#[divan::bench(args = WORKERS)]
fn stream_unbuffered(bencher: Bencher<'_, '_>, workers: usize) {
    measure(bencher, workers, SUM, || stream(0));
}

#[divan::bench(args = WORKERS)]
fn stream_buffered(bencher: Bencher<'_, '_>, workers: usize) {
    measure(bencher, workers, SUM, || stream(128));
}

#[divan::bench(args = WORKERS)]
fn eight_by_eight(bencher: Bencher<'_, '_>, workers: usize) {
    const PARTIES: u64 = 8;
    measure(bencher, workers, ITEMS, || {
        let (numbers, received) = bounded(64);
        for _ in 0..PARTIES {
            let numbers = numbers.clone();
            go(move || {
                for _ in 0..ITEMS / PARTIES {
                    numbers.send(1_u64).expect("received below");
                }
            });
        }
        drop(numbers);
        let receivers: Vec<_> = (0..PARTIES)
            .map(|_| {
                let received = received.clone();
                go(move || received.iter().sum::<u64>())
            })
            .collect();
        receivers.into_iter().map(|receiver| receiver.join().expect("a sum")).sum()
    });
}

/// As `eight_by_eight`, each party so many values at once.
#[divan::bench(args = WORKERS)]
fn eight_by_eight_in_batches(bencher: Bencher<'_, '_>, workers: usize) {
    const PARTIES: u64 = 8;
    const BATCH: usize = 50;
    measure(bencher, workers, ITEMS, || {
        let (numbers, received) = bounded(4 * BATCH);
        for _ in 0..PARTIES {
            let numbers = numbers.clone();
            go(move || {
                for _ in 0..ITEMS / PARTIES / BATCH as u64 {
                    numbers.send_many(vec![1_u64; BATCH]).expect("received below");
                }
            });
        }
        drop(numbers);
        let receivers: Vec<_> = (0..PARTIES)
            .map(|_| {
                let received = received.clone();
                go(move || {
                    let (mut batch, mut sum) = (Vec::with_capacity(BATCH), 0);
                    while received.recv_many(&mut batch, BATCH).is_ok() {
                        sum += batch.drain(..).sum::<u64>();
                    }
                    sum
                })
            })
            .collect();
        receivers.into_iter().map(|receiver| receiver.join().expect("a sum")).sum()
    });
}

#[divan::bench(args = WORKERS)]
fn select_of_three(bencher: Bencher<'_, '_>, workers: usize) {
    measure(bencher, workers, ITEMS, || {
        let (left, from_left) = unbuffered();
        let (right, from_right) = unbuffered();
        let (quit, stop) = unbuffered::<()>();
        let senders = [left, right].map(|side| {
            go(move || {
                for _ in 0..ITEMS / 2 {
                    side.send(1_u64).expect("received below");
                }
                // The sender lives until the sum is there: a closed channel would be ready all the time.
                side
            })
        });
        go(move || {
            let sides = senders.map(|sender| sender.join().expect("a sender"));
            quit.close().expect("closed once");
            drop(sides);
        });
        let mut sum = 0;
        loop {
            select! {
                recv(stop) -> _ => break sum,
                recv(from_left) -> n => sum += n.unwrap_or(0),
                recv(from_right) -> n => sum += n.unwrap_or(0),
            }
        }
    });
}

/// Two writers and two readers of one lock, one of each on each worker.
#[divan::bench(args = WORKERS)]
fn rwlock_of_four(bencher: Bencher<'_, '_>, workers: usize) {
    const EACH: u64 = ITEMS / 4;
    measure(bencher, workers, 2 * EACH, || {
        let lock = Arc::new(RwLock::new(0));
        let party = |writes: bool| {
            let lock = Arc::clone(&lock);
            let work = move || {
                let mut greatest = 0;
                for _ in 0..EACH {
                    if writes {
                        *lock.write() += 1;
                    } else {
                        greatest = lock.read().max(greatest);
                    }
                }
                assert!(greatest <= 2 * EACH);
            };
            Builder::new().spread().spawn(work).expect("a stack")
        };
        [true, true, false, false].map(party).into_iter().for_each(|party| party.join().expect("no panic"));
        *lock.read()
    });
}

#[divan::bench(args = WORKERS)]
fn yield_now(bencher: Bencher<'_, '_>, workers: usize) {
    const GOROUTINES: u64 = 100;
    measure(bencher, workers, 0, || {
        let all = Arc::new(WaitGroup::new());
        all.add(GOROUTINES as isize);
        for _ in 0..GOROUTINES {
            let all = Arc::clone(&all);
            go(move || {
                for _ in 0..ITEMS / GOROUTINES {
                    oxigo::yield_now();
                }
                all.done();
            });
        }
        all.wait();
        0
    });
}
