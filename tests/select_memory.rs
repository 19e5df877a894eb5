//! CQ-06 and SE-19: selects leave nothing in memory. In a file of its own, since it counts what is allocated.

#[path = "common/alloc.rs"]
mod alloc;
mod common;

use std::time::Duration;

use common::rt;
use oxigo::{
    chan::{Select, after},
    go, select, unbuffered,
};

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

/// What one round of `work` leaves behind, after a first round that may allocate what later ones use again.
fn left_behind(work: impl Fn()) -> isize {
    work();
    let before = alloc::live();
    work();
    alloc::live() - before
}

/// One test, so that no other one allocates meanwhile.
#[test]
fn cq_06_se_19_selects_and_abandoned_timers_do_not_grow_memory() {
    const N: u32 = 100_000;
    const MOST: isize = 100_000;

    // A select that never parks, and one that loses on a channel each time.
    rt(2, || {
        let (tx, rx) = unbuffered();
        let (_keep, quiet) = unbuffered::<u32>();
        let left = left_behind(|| {
            let tx = tx.clone();
            let sender = go(move || (0..N).for_each(|n| tx.send(n).unwrap()));
            for n in 0..N {
                select! {
                    recv(quiet) -> _ => unreachable!(),
                    recv(rx) -> v => assert_eq!(v, Ok(n)),
                }
                select! { recv(quiet) -> _ => unreachable!(), default => {} }
            }
            sender.join().unwrap();
        });
        assert!(left < MOST, "{left} bytes");

        // Parking on `after` arms it, leaving disarms it, dropping it forgets it.
        let left = left_behind(|| {
            let tx = tx.clone();
            let sender = go(move || (0..N).for_each(|n| tx.send(n).unwrap()));
            for n in 0..N {
                select! {
                    recv(rx) -> v => assert_eq!(v, Ok(n)),
                    recv(after(Duration::from_secs(3600))) -> _ => unreachable!(),
                }
            }
            sender.join().unwrap();
        });
        assert!(left < MOST, "{left} bytes");

        // The run-time one, whose rooms are on the heap.
        let left = left_behind(|| {
            let tx = tx.clone();
            let sender = go(move || (0..N / 10).for_each(|n| tx.send(n).unwrap()));
            for n in 0..N / 10 {
                let hour = after(Duration::from_secs(3600));
                let mut select = Select::new();
                select.recv(&hour);
                let index = select.recv(&rx);
                let operation = select.select();
                assert_eq!(operation.index(), index);
                assert_eq!(operation.recv(&rx), Ok(n));
            }
            sender.join().unwrap();
        });
        assert!(left < MOST, "{left} bytes");
    });

    // On a thread.
    let (tx, rx) = unbuffered();
    let left = left_behind(|| {
        let tx = tx.clone();
        let sender = std::thread::spawn(move || (0..2_000).for_each(|n: u32| tx.send(n).unwrap()));
        for n in 0..2_000 {
            select! {
                recv(rx) -> v => assert_eq!(v, Ok(n)),
                recv(after(Duration::from_secs(3600))) -> _ => unreachable!(),
            }
        }
        sender.join().unwrap();
    });
    assert!(left < MOST, "{left} bytes");
}
