//! What waiting on channels costs: rows CQ-05 and CQ-06 of the conformance list. A file of their own, since they count allocations and
//! measure time in the whole process.

#[path = "common/alloc.rs"]
mod alloc;
mod common;

use std::time::{Duration, Instant};

use common::rt;
use oxigo::{WaitGroup, bounded, go, select, unbuffered, yield_now};

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

/// `parties` selects wait on one channel that they share and on one of their own, and each is woken through its own, in turn. When
/// leaving the shared queue takes time in proportion to its length, the whole takes four times as long for twice as many.
fn wake_in_turn(parties: usize) -> Duration {
    const TIMES: usize = 20;
    rt(1, || {
        let (keep, shared) = unbuffered::<()>();
        let group = WaitGroup::new();
        let ends: Vec<_> = (0..parties)
            .map(|_| {
                let shared = shared.clone();
                let (tx, rx) = unbuffered();
                group.go(move || {
                    for _ in 0..TIMES {
                        select! {
                            recv(shared) -> _ => unreachable!("nobody sends"),
                            recv(rx) -> value => value.unwrap(),
                        }
                    }
                });
                tx
            })
            .collect();
        (0..3).for_each(|_| yield_now());
        let begin = Instant::now();
        for _ in 0..TIMES {
            // The newest first, and then the others: neither end of the queue is favoured.
            for tx in ends.iter().rev() {
                tx.send(()).unwrap();
            }
        }
        group.wait();
        drop(keep);
        begin.elapsed()
    })
}

/// Go's test/chanlinear.
#[test]
fn cq_05_leaving_a_queue_takes_constant_time() {
    let _alone = alloc::alone();
    // The machine may be busy with other things: the best of several.
    let mut ratios = Vec::new();
    for _ in 0..8 {
        let once = (0..3).map(|_| wake_in_turn(1000)).min().unwrap();
        let twice = (0..3).map(|_| wake_in_turn(2000)).min().unwrap();
        let ratio = twice.as_secs_f64() / once.as_secs_f64();
        if ratio < 3.0 {
            return;
        }
        ratios.push(ratio);
    }
    panic!("twice as many selects take {ratios:?} times as long");
}

/// Go's test/chan/select2: selects leave nothing behind.
#[test]
fn cq_06_selects_do_not_grow_memory() {
    let _alone = alloc::alone();
    rt(1, || {
        let (tx, rx) = unbuffered();
        let (quiet, silence) = bounded::<u32>(1);
        let (stop, stopped) = unbuffered::<()>();
        let sender = go(move || {
            for n in 0_u32.. {
                select! {
                    send(tx, n) -> sent => sent.unwrap(),
                    recv(silence) -> _ => unreachable!("nobody sends"),
                    recv(stopped) -> _ => break,
                }
            }
        });
        let receive = |times: u32| {
            for _ in 0..times {
                select! {
                    recv(rx) -> value => assert!(value.is_ok()),
                    recv(oxigo::chan::never::<()>()) -> _ => {}
                }
            }
        };
        receive(10_000);
        let before = alloc::live();
        receive(100_000);
        let grown = alloc::live() - before;
        assert!(grown < 100_000, "{grown} bytes more after 100,000 selects");
        stop.close().unwrap();
        sender.join().unwrap();
        drop(quiet);
    });
}

/// A batch into room that is there, and one of values that the caller has.
#[test]
fn batches_allocate_nothing() {
    let _alone = alloc::alone();
    rt(1, || {
        let (tx, rx) = bounded(100);
        let pass = |values: Vec<u64>, into: &mut Vec<u64>| {
            tx.send_many(values).unwrap();
            assert_eq!(rx.recv_many(into, usize::MAX), Ok(100));
        };
        let mut into = Vec::with_capacity(100);
        pass((0..100).collect(), &mut into);
        into.clear();
        let mut allocates = || {
            let values = (0..100).collect();
            let before = alloc::calls();
            pass(values, &mut into);
            into.clear();
            alloc::calls() - before
        };
        // Threads of the runtime, and of the tests, allocate too, now and then.
        assert!((0..50).any(|_| allocates() == 0), "each pass allocates");
    });
}
