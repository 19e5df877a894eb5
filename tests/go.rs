//! Goroutines: creation, results, lifetime (groups G, S, RT of the conformance list).

use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::{Duration, Instant},
};

#[test]
fn g_01_joins_bring_results() {
    let handles: Vec<_> = (0..1000).map(|i| oxigo::go(move || i * 2)).collect();
    for (i, handle) in handles.into_iter().enumerate() {
        assert_eq!(handle.join().unwrap(), i * 2);
    }
}

#[test]
fn run_and_scope_borrow() {
    let count = AtomicUsize::new(0);
    oxigo::run(|| {
        oxigo::scope(|s| {
            for _ in 0..100 {
                s.go(|| {
                    oxigo::yield_now();
                    count.fetch_add(1, SeqCst);
                });
            }
        });
    });
    assert_eq!(count.load(SeqCst), 100);
}

#[test]
fn sleeps_last_at_least_their_time() {
    oxigo::run(|| {
        let handles: Vec<_> = (0..50)
            .map(|i| {
                oxigo::go(move || {
                    let start = Instant::now();
                    let time = Duration::from_millis(i);
                    oxigo::time::sleep(time);
                    assert!(start.elapsed() >= time);
                })
            })
            .collect();
        handles.into_iter().for_each(|h| h.join().unwrap());
    });
}
