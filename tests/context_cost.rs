//! What contexts cost in allocations: row CX-21. In a file of its own, since it counts those of the whole process.

#[path = "common/alloc.rs"]
mod alloc;
mod common;

use std::time::{Duration, Instant};

use common::at_1_2_4;
use oxigo::context::Context;

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

/// How many allocations `work` takes, the fewest of several times: threads of the runtime allocate too, now and then.
fn allocations(work: impl Fn()) -> usize {
    // The first time makes what later ones use again.
    work();
    let count = || {
        let before = alloc::calls();
        work();
        alloc::calls() - before
    };
    (0..10).map(|_| count()).min().expect("ten times")
}

#[test]
fn cx_21_contexts_are_cheap_in_allocations() {
    let _alone = alloc::alone();
    at_1_2_4(|| {
        let background = Context::background();
        assert_eq!(allocations(|| assert!(Context::background().done().try_recv().is_err())), 0);
        assert_eq!(allocations(|| drop(background.clone())), 0);

        let with_value = allocations(|| drop(background.with_value(17)));
        assert!(with_value <= 3, "with_value: {with_value}");

        let with_cancel = allocations(|| {
            let (ctx, cancel) = background.with_cancel();
            cancel.cancel();
            assert!(ctx.done().is_closed());
        });
        assert!(with_cancel <= 5, "with_cancel, cancel, done: {with_cancel}");

        let with_timeout = allocations(|| {
            let (ctx, cancel) = background.with_timeout(Duration::from_secs(3600));
            cancel.cancel();
            assert!(ctx.err().is_some());
        });
        assert!(with_timeout <= 8, "with_timeout, cancel: {with_timeout}");

        let fired = allocations(|| {
            let begin = Instant::now();
            let (ctx, _cancel) = background.with_timeout(Duration::from_millis(1));
            ctx.done().recv().unwrap_err();
            assert!(begin.elapsed() >= Duration::from_millis(1));
        });
        assert!(fired <= 12, "a timeout that fires: {fired}");
        println!("with_value {with_value}, with_cancel {with_cancel}, with_timeout {with_timeout}, fired {fired}");
    });
}

/// How many bytes stay of 300 times `work`, the fewest of several tries: a list of the runtime may grow once, when a thread has been late.
fn stay(work: impl Fn()) -> isize {
    (0..100).for_each(|_| work());
    let grown = || {
        let before = alloc::live();
        (0..300).for_each(|_| work());
        alloc::live() - before
    };
    (0..5).map(|_| grown()).min().expect("five tries")
}

/// An end, and what wakes a lock's waiter by it, adds nothing per wait that stays.
#[test]
fn cx_21_waits_with_a_context_leave_nothing() {
    use oxigo::sync::Semaphore;

    let _alone = alloc::alone();
    at_1_2_4(|| {
        let semaphore = Semaphore::new(1);
        let _held = semaphore.acquire(1);
        let (parent, _cancel) = Context::background().with_cancel();
        let grown = stay(|| {
            let (ctx, _cancel) = parent.with_timeout(Duration::from_micros(10));
            assert!(semaphore.acquire_ctx(1, &ctx).is_err());
        });
        assert!(grown < 300 * 16, "{grown} bytes stayed");

        // Waits that end otherwise take themselves off the list of a context that goes on.
        let (tx, rx) = oxigo::unbuffered::<()>();
        let grown = stay(|| {
            let receiver = oxigo::go({
                let (rx, ctx) = (rx.clone(), parent.clone());
                move || rx.recv_ctx(&ctx).unwrap()
            });
            tx.send(()).unwrap();
            receiver.join().unwrap();
        });
        assert!(grown < 300 * 16, "{grown} bytes stayed with a context that goes on");
    });
}
