//! Joins that give up, by a time limit or a context; row CX-26.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use common::{Counted, Plain, at_1_2_4, at_length, quiesce, rt};
use oxigo::{
    JoinCtxError, JoinHandle,
    context::{
        CancelHandle, Context,
        ContextError::{Canceled, DeadlineExceeded},
    },
    go, unbuffered, yield_now,
};

const LONG: Duration = Duration::from_secs(3600);

fn context() -> (Context, CancelHandle) {
    Context::background().with_cancel()
}

#[test]
fn a_join_that_times_out_gives_the_handle_back() {
    at_1_2_4(|| {
        let (tx, rx) = unbuffered();
        let handle = go(move || rx.recv().unwrap());
        let id = handle.id();
        let begin = Instant::now();
        let handle = handle.join_timeout(Duration::from_millis(2)).unwrap_err();
        let handle = handle.join_timeout(Duration::from_millis(2)).unwrap_err();
        assert!(begin.elapsed() >= Duration::from_millis(4));
        assert_eq!(handle.id(), id);
        assert!(!handle.join_timeout(Duration::ZERO).unwrap_err().is_finished());
        // Without a handle the goroutine goes on.
        tx.send(1).unwrap();

        let (tx, rx) = unbuffered();
        let handle = go(move || rx.recv().unwrap());
        let handle = handle.join_timeout(Duration::from_millis(1)).unwrap_err();
        tx.send(2).unwrap();
        assert_eq!(handle.join_timeout(LONG).unwrap().unwrap(), 2);
        assert_eq!(go(|| 3).join_timeout(Duration::MAX).unwrap().unwrap(), 3);

        let panics = go(|| -> () { std::panic::resume_unwind(Box::new("no luck")) });
        assert_eq!(panics.join_timeout(LONG).unwrap().unwrap_err().downcast_ref(), Some(&"no luck"));
    });
}

#[test]
fn a_goroutine_that_has_ended_is_joined_in_no_time() {
    rt(1, || {
        let handle = go(|| 4);
        quiesce();
        assert!(handle.is_finished());
        assert_eq!(handle.join_timeout(Duration::ZERO).unwrap().unwrap(), 4);
    });
}

/// On one worker: who only asks again and again lets the goroutine run that is to end.
#[test]
fn joins_that_have_no_time_let_others_run() {
    rt(1, || {
        let mut handle = go(|| (0..100).for_each(|_| yield_now()));
        while let Err(back) = handle.join_timeout(Duration::ZERO) {
            handle = back;
        }
        let (ctx, cancel) = context();
        drop(cancel);
        let mut handle = go(|| (0..100).for_each(|_| yield_now()));
        while !handle.is_finished() {
            handle = handle.join_ctx(&ctx).unwrap_err().handle;
        }
    });
}

#[test]
fn cx_26_a_join_ends_with_its_context_and_gives_the_handle_back() {
    rt(1, || {
        let (tx, rx) = unbuffered();
        let handle = go(move || rx.recv().unwrap());
        let (ctx, cancel) = context();
        let joins = go(move || handle.join_ctx(&ctx));
        quiesce();
        assert!(!joins.is_finished());
        cancel.cancel();
        let given_up = joins.join().unwrap().unwrap_err();
        assert_eq!((given_up.error, given_up.to_string().as_str()), (Canceled, "context canceled"));
        let handle = given_up.into_inner();
        assert!(!handle.is_finished());

        let begin = Instant::now();
        let (soon, _cancel) = Context::background().with_timeout(Duration::from_millis(2));
        let JoinCtxError { handle, error } = handle.join_ctx(&soon).unwrap_err();
        assert_eq!(error, DeadlineExceeded);
        assert!(begin.elapsed() >= Duration::from_millis(2));

        // The end of the goroutine ends the wait.
        let (ctx, cancel) = context();
        let joins = go(move || handle.join_ctx(&ctx));
        quiesce();
        tx.send(5).unwrap();
        assert_eq!(joins.join().unwrap().unwrap().unwrap(), 5);
        drop(cancel);
    });
}

#[test]
fn cx_26_an_ended_context_comes_before_a_goroutine_that_has_ended() {
    at_1_2_4(|| {
        let handle = go(|| 6);
        while !handle.is_finished() {
            yield_now();
        }
        let (ctx, cancel) = context();
        cancel.cancel();
        let given_up = handle.join_ctx(&ctx).unwrap_err();
        assert_eq!(given_up.error, Canceled);
        assert_eq!(given_up.handle.join_ctx(&Context::background()).unwrap().unwrap(), 6);
        assert_eq!(go(|| 7).join_ctx(&Context::background()).unwrap().unwrap(), 7);
    });
}

#[test]
fn cx_26_joins_that_give_up_work_from_a_plain_thread() {
    let (tx, rx) = unbuffered();
    let handle = go(move || rx.recv().unwrap());
    let begin = Instant::now();
    let handle = handle.join_timeout(Duration::from_millis(2)).unwrap_err();
    assert!(begin.elapsed() >= Duration::from_millis(2));
    let (ctx, cancel) = context();
    let joins = thread::spawn(move || handle.join_ctx(&ctx));
    thread::yield_now();
    cancel.cancel();
    let given_up = joins.join().unwrap().unwrap_err();
    assert_eq!(given_up.error, Canceled);
    let joins = thread::spawn(move || given_up.handle.join_ctx(&Context::background()));
    tx.send(8).unwrap();
    assert_eq!(joins.join().unwrap().unwrap().unwrap(), 8);
}

/// A scoped handle that came back is as before: joined, a panic is the joiner's; dropped, the scope's.
#[test]
fn cx_26_scoped_joins_give_up_as_well() {
    at_1_2_4(|| {
        let (tx, rx) = unbuffered::<&str>();
        oxigo::scope(|s| {
            let handle = s.go(|| rx.recv().unwrap());
            let handle = handle.join_timeout(Duration::from_millis(1)).unwrap_err();
            let (ctx, cancel) = context();
            drop(cancel);
            let handle = handle.join_ctx(&ctx).unwrap_err().handle;
            tx.send("lent").unwrap();
            assert_eq!(handle.join_timeout(LONG).unwrap().unwrap(), "lent");

            let panics = s.go(|| rx.recv().map(|text| -> () { std::panic::resume_unwind(Box::new(text)) }));
            let panics = panics.join_timeout(Duration::from_millis(1)).unwrap_err();
            tx.send("no luck").unwrap();
            let payload = panics.join_ctx(&Context::background()).unwrap().unwrap_err();
            assert_eq!(payload.downcast_ref(), Some(&"no luck"));
        });
    });
}

/// What comes back with a handle that is dropped is dropped once, whoever is first.
#[test]
fn a_result_that_a_join_gave_up_is_dropped_once() {
    at_1_2_4(|| {
        let dropped = Arc::new(AtomicUsize::new(0));
        let rounds = at_length(200, 2000);
        for round in 0..rounds {
            let result = Counted(Arc::clone(&dropped));
            let handle = go(move || {
                (0..round % 4).for_each(|_| yield_now());
                result
            });
            drop(handle.join_timeout(Duration::from_micros(round as u64 % 8)));
        }
        while dropped.load(SeqCst) < rounds {
            yield_now();
        }
        assert_eq!(dropped.load(SeqCst), rounds);
    });
}

/// Joins until it has the result, giving up again and again. A wait that follows on one that was given up lasts its time: nobody who was to
/// end the join ends it.
fn join_in_the_end<T>(mut handle: JoinHandle<T>, patience: Duration) -> (T, usize) {
    for given_up in 0.. {
        match handle.join_timeout(patience) {
            Ok(result) => return (result.unwrap(), given_up),
            Err(back) => handle = back,
        }
        let begin = Instant::now();
        oxigo::time::sleep(Duration::from_micros(20));
        assert!(begin.elapsed() >= Duration::from_micros(20));
    }
    unreachable!();
}

/// HB-06 with the end and the time limit at once: whoever has joined sees what was written.
#[test]
fn hb_06_an_end_and_a_time_limit_at_once_agree() {
    let rounds = at_length(300, 3000);
    let join_some = || {
        for round in 0..rounds {
            let data = Plain::shared();
            let handle = go({
                let data = Arc::clone(&data);
                move || {
                    (0..50 * (round % 40)).for_each(|_| std::hint::spin_loop());
                    data.set(round + 1);
                    round
                }
            });
            let (result, _) = join_in_the_end(handle, Duration::from_micros(round as u64 % 60));
            assert_eq!((result, data.get()), (round, round + 1));
        }
    };
    at_1_2_4(join_some);
    // From threads, while workers end the goroutines.
    thread::scope(|s| {
        s.spawn(join_some);
        s.spawn(join_some);
    });
}

#[test]
fn cx_26_an_end_and_a_cancellation_at_once_agree() {
    at_1_2_4(|| {
        for round in 0..at_length(200, 2000) {
            let (ctx, cancel) = context();
            let handle = go(move || {
                (0..round % 3).for_each(|_| yield_now());
                round
            });
            let other = go(move || {
                (0..round % 5).for_each(|_| yield_now());
                cancel.cancel();
            });
            let result = handle.join_ctx(&ctx).unwrap_or_else(|given_up| {
                assert_eq!(given_up.error, Canceled);
                let begin = Instant::now();
                oxigo::time::sleep(Duration::from_micros(20));
                assert!(begin.elapsed() >= Duration::from_micros(20));
                given_up.handle.join()
            });
            assert_eq!(result.unwrap(), round);
            other.join().unwrap();
        }
    });
}

/// The handle goes from hand to hand, of goroutines and of threads, each of which gives up, until one has the result.
#[test]
fn hb_06_a_handle_that_came_back_is_joined_elsewhere() {
    fn pass_on(handle: JoinHandle<usize>, hops: usize) -> usize {
        let patience = Duration::from_micros(hops as u64 * 7 % 30);
        match handle.join_timeout(patience) {
            Ok(result) => result.unwrap(),
            // By `blocking`: the workers that the later hands need must not wait for a thread.
            Err(handle) if hops.is_multiple_of(5) => {
                oxigo::blocking(move || thread::spawn(move || pass_on(handle, hops + 1)).join().unwrap())
            }
            Err(handle) => go(move || pass_on(handle, hops + 1)).join().unwrap(),
        }
    }
    at_1_2_4(|| {
        for round in 0..at_length(50, 500) {
            let data = Plain::shared();
            let handle = go({
                let data = Arc::clone(&data);
                move || {
                    (0..100 * (round % 50)).for_each(|_| std::hint::spin_loop());
                    data.set(round);
                    round
                }
            });
            assert_eq!((pass_on(handle, round), data.get()), (round, round));
        }
    });
}
