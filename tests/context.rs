//! Group CX: contexts, and operations that a context ends.

mod common;

use std::{
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use common::{Counted, at_1_2_4, quiesce, rt};
use oxigo::{
    WaitGroup, bounded,
    chan::{Receiver, RecvCtxError, RecvTimeoutError, SendCtxError, TryRecvError},
    context::{
        CancelHandle, Context, ContextError, ContextError::Canceled, ContextError::DeadlineExceeded, merge, scope_ctx,
    },
    go, synctest, unbounded, unbuffered,
};

const LONG: Duration = Duration::from_secs(3600);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn cause(ctx: &Context) -> Option<String> {
    ctx.cause().map(|cause| cause.to_string())
}

fn done(ctx: &Context) -> bool {
    let closed = ctx.done().try_recv() == Err(TryRecvError::Disconnected);
    assert_eq!(closed, ctx.err().is_some());
    closed
}

#[test]
fn an_io_error_tells_the_context_s_error_in_it() {
    for error in [Canceled, DeadlineExceeded] {
        assert_eq!(ContextError::of(&error.into()), Some(error));
        assert_eq!(ContextError::of(&io::Error::other(io::Error::from(error))), Some(error), "wrapped");
    }
    assert_eq!(ContextError::of(&io::ErrorKind::TimedOut.into()), None);
    assert_eq!(ContextError::of(&io::Error::other("of another kind")), None);
    assert_eq!(ContextError::of(&io::Error::from_raw_os_error(2)), None);
}

#[test]
fn cx_01_the_background_never_ends() {
    let ctx = Context::background();
    assert!(!done(&ctx) && ctx.deadline().is_none() && ctx.cause().is_none() && ctx.value::<u8>().is_none());
    assert!(ctx.done().same_channel(Context::default().done()));
    assert_eq!(format!("{ctx:?}"), "Context::background()");
    assert!(ctx.check().is_ok());
}

#[test]
fn cx_02_cancelling_ends_all_below_before_it_returns() {
    at_1_2_4(|| {
        let (root, cancel) = Context::background().with_cancel();
        let mut all = vec![root.clone()];
        for n in 1..200_usize {
            let parent = all[n / 3].with_value(n);
            let (child, handle) = if n % 2 == 0 { parent.with_cancel() } else { parent.with_timeout(LONG) };
            handle.forget();
            all.push(child);
        }
        assert!(!all.iter().any(done));
        cancel.cancel();
        assert!(all.iter().all(|ctx| done(ctx) && ctx.err() == Some(Canceled)));
    });
}

#[test]
fn cx_02_every_one_of_several_cancellers_returns_after_all_are_marked() {
    at_1_2_4(|| {
        for _ in 0..50 {
            let (root, cancel) = Context::background().with_cancel();
            let cancel = Arc::new(cancel);
            let mut all = vec![root];
            for n in 1..60_usize {
                let (child, handle) = all[n / 2].with_cancel();
                handle.forget();
                all.push(child);
            }
            let all = Arc::new(all);
            let group = WaitGroup::new();
            for _ in 0..4 {
                let (cancel, all) = (Arc::clone(&cancel), Arc::clone(&all));
                group.go(move || {
                    cancel.cancel();
                    assert!(all.iter().all(done));
                });
            }
            group.wait();
        }
    });
}

#[test]
fn cx_03_a_child_ends_alone() {
    let (parent, _cancel) = Context::background().with_cancel();
    let (a, cancel_a) = parent.with_cancel();
    let (b, _cancel_b) = parent.with_cancel();
    cancel_a.cancel();
    assert!(done(&a) && !done(&b) && !done(&parent));
}

#[test]
fn cx_04_a_million_children_leave_nothing_behind() {
    let (parent, cancel) = Context::background().with_cancel();
    let dropped = Arc::new(AtomicUsize::new(0));
    for n in 0..1_000_000 {
        if n % 100 == 0 {
            let (child, handle) = parent.with_timeout(LONG);
            let counted = Counted(Arc::clone(&dropped));
            child.after_func(move || drop(counted));
            handle.forget();
            // A forgotten deadline keeps its context until then; the parent's end is earlier.
        } else {
            let (_child, _handle) = parent.with_cancel();
        }
    }
    cancel.cancel();
    let begin = Instant::now();
    while dropped.load(SeqCst) < 10_000 {
        assert!(begin.elapsed() < Duration::from_secs(20));
        thread::yield_now();
    }
}

#[test]
fn cx_04_deep_trees_neither_cancel_nor_drop_recursively() {
    at_1_2_4(|| {
        for cancels in [true, false] {
            let (mut ctx, cancel) = Context::background().with_cancel();
            for n in 0..20_000 {
                let (child, handle) = ctx.with_value(n).with_cancel();
                handle.forget();
                ctx = child;
            }
            if cancels {
                cancel.cancel();
                assert!(done(&ctx));
            } else {
                cancel.forget();
            }
        }
    });
}

#[test]
fn cx_04_deep_trees_that_are_listened_to_go_as_well() {
    at_1_2_4(|| {
        for merged in [false, true] {
            let (root, cancel) = Context::background().with_cancel();
            let (mut ctx, mut done) = (root.clone(), Vec::new());
            for _ in 0..if merged { 1_000 } else { 20_000 } {
                let (child, handle) = if merged { merge(&ctx, &root) } else { ctx.with_cancel() };
                handle.forget();
                done.push(child.done().clone());
                ctx = child;
            }
            drop(ctx);
            assert!(!done.iter().any(Receiver::is_closed));
            cancel.cancel();
            assert!(done.iter().all(Receiver::is_closed));
        }
    });
}

#[test]
fn cx_05_cancelling_is_idempotent_from_everywhere() {
    at_1_2_4(|| {
        let (root, cancel) = Context::background().with_cancel();
        let cancel = Arc::new(cancel);
        let group = WaitGroup::new();
        let mut leaves = Vec::new();
        for _ in 0..100 {
            let (ctx, handle) = root.with_cancel();
            leaves.push(ctx);
            let cancel = Arc::clone(&cancel);
            group.go(move || {
                handle.cancel();
                handle.cancel();
                cancel.cancel();
            });
        }
        group.wait();
        assert!(done(&root) && leaves.iter().all(done));
    });
}

#[test]
fn cx_06_interlocked_cancels_do_not_deadlock() {
    at_1_2_4(|| {
        let (parent, cancel_parent) = Context::background().with_cancel();
        let (child, cancel_child) = parent.with_cancel();
        let other = go({
            let parent = parent.clone();
            move || {
                parent.done().recv().unwrap_err();
                cancel_child.cancel();
            }
        });
        cancel_parent.cancel();
        child.done().recv().unwrap_err();
        other.join().unwrap();
    });
}

#[test]
fn cx_07_a_child_of_an_ended_context_is_born_ended() {
    at_1_2_4(|| {
        let (parent, cancel) = Context::background().with_cancel();
        cancel.cancel_with("enough");
        let (child, _c) = parent.with_timeout(LONG);
        assert_eq!((child.err(), cause(&child)), (Some(Canceled), Some("enough".into())));
        for _ in 0..100 {
            let (parent, cancel) = Context::background().with_cancel();
            let canceller = go(move || cancel.cancel());
            let (child, _c) = parent.with_cancel();
            canceller.join().unwrap();
            assert!(done(&child));
        }
    });
}

#[test]
fn cx_08_an_error_means_that_done_is_closed() {
    at_1_2_4(|| {
        for _ in 0..100 {
            let (ctx, cancel) = Context::background().with_cancel();
            let canceller = thread::spawn(move || cancel.cancel());
            while ctx.err().is_none() {
                std::hint::spin_loop();
            }
            assert_eq!(ctx.done().try_recv(), Err(TryRecvError::Disconnected));
            canceller.join().unwrap();
        }
    });
}

/// A forgotten child of `parent`, of which only `done` is left.
fn listened(parent: &Context, timeout: Option<Duration>) -> Receiver<()> {
    let (child, handle) = timeout.map_or_else(|| parent.with_cancel(), |timeout| parent.with_timeout(timeout));
    handle.forget();
    child.done().clone()
}

#[test]
fn cx_08_done_closes_with_an_end_and_not_with_the_last_context() {
    at_1_2_4(|| {
        let (root, cancel) = Context::background().with_cancel();
        let (other, _other) = Context::background().with_cancel();
        let (middle, handle) = root.with_cancel();
        handle.forget();
        let (merged, handle) = merge(&other, &middle);
        handle.forget();
        let mut all = vec![
            listened(&root, None),
            listened(&middle, None),
            listened(&middle, Some(LONG)),
            listened(&merged, None),
        ];
        all.push(merged.done().clone());
        drop(merged);
        drop(middle);
        assert!(!all.iter().any(Receiver::is_closed) && root.err().is_none());
        cancel.cancel();
        assert!(all.iter().all(Receiver::is_closed) && other.err().is_none());

        let begin = Instant::now();
        let (parent, _cancel) = Context::background().with_timeout(ms(4));
        listened(&parent, Some(LONG)).recv().unwrap_err();
        assert!(begin.elapsed() >= ms(4));
    });
}

#[test]
fn cx_08_done_stays_open_when_nothing_can_end_the_context_any_more() {
    let (root, handle) = Context::background().with_cancel();
    handle.forget();
    let done: Vec<_> = [root.done().clone()].into_iter().chain((0..100).map(|_| listened(&root, None))).collect();
    drop(root);
    assert!(!done.iter().any(Receiver::is_closed));
    assert_eq!(done[1].recv_timeout(ms(1)), Err(RecvTimeoutError::Timeout));
}

/// Whoever drops the last of a context while another thread ends its parent neither delays the closing of its `done` nor loses its functions.
#[test]
fn cx_02_cx_17_cancelling_ends_what_is_left_of_contexts_that_go_meanwhile() {
    for round in 0..2_000_u32 {
        let (root, cancel) = Context::background().with_cancel();
        let (middle, handle) = root.with_cancel();
        handle.forget();
        let done = [listened(&middle, None), listened(&middle, None), middle.done().clone()];
        let (tx, rx) = bounded(4);
        let (below, handle) = middle.with_cancel();
        handle.forget();
        for ctx in [&middle, &below] {
            let tx = tx.clone();
            ctx.after_func(move || tx.send(()).unwrap());
        }
        drop(below);
        drop(tx);
        let go = AtomicBool::new(false);
        thread::scope(|s| {
            s.spawn(|| {
                while !go.load(SeqCst) {
                    std::hint::spin_loop();
                }
                drop(middle);
            });
            go.store(true, SeqCst);
            (0..round % 64).for_each(|_| std::hint::spin_loop());
            cancel.cancel();
            assert!(done.iter().all(Receiver::is_closed));
        });
        assert_eq!(rx.iter().count(), 2);
    }
}

#[test]
fn cx_09_a_deadline_ends_the_context_unless_a_cancel_was_first() {
    at_1_2_4(|| {
        let start = Instant::now();
        let (ctx, _c) = Context::background().with_timeout(ms(4));
        ctx.done().recv().unwrap_err();
        assert!(start.elapsed() >= ms(4));
        assert_eq!(ctx.err(), Some(DeadlineExceeded));

        let (ctx, cancel) = Context::background().with_timeout(LONG);
        cancel.cancel();
        assert_eq!(ctx.err(), Some(Canceled));

        for when in [start, Instant::now()] {
            let (ctx, cancel) = Context::background().with_deadline(when);
            assert_eq!(ctx.err(), Some(DeadlineExceeded));
            cancel.cancel();
            assert_eq!(ctx.err(), Some(DeadlineExceeded));
        }
        let (ctx, _c) = Context::background().with_timeout(Duration::MAX);
        assert!(!done(&ctx) && ctx.deadline().is_none());
    });
}

#[test]
fn cx_09_a_deadline_comes_while_a_goroutine_holds_the_worker() {
    rt(1, || {
        let (ctx, _c) = Context::background().with_timeout(ms(3));
        let begin = Instant::now();
        while ctx.err().is_none() {
            assert!(begin.elapsed() < Duration::from_secs(20));
            std::hint::spin_loop();
        }
    });
}

/// Sleep and deadline were timers of their own, of which either could come first: a sleep of a millisecond below a deadline of a tenth of one
/// was a success now and then, on a machine with much to do.
#[test]
fn cx_09_a_sleep_that_reaches_the_deadline_ends_with_it() {
    synctest::test(|| {
        for _ in 0..100 {
            let (ctx, _c) = Context::background().with_timeout(ms(5));
            assert_eq!(ctx.sleep(ms(2)), Ok(()));
            assert_eq!(ctx.sleep(ms(3)), Err(DeadlineExceeded));
            assert_eq!(ctx.err(), Some(DeadlineExceeded));
        }
        let (parent, cancel) = Context::background().with_cancel();
        let (ctx, _c) = parent.with_timeout(ms(5));
        oxigo::time::after_func(ms(2), move || cancel.cancel());
        assert_eq!(ctx.sleep(LONG), Err(Canceled));
    });
}

#[test]
fn cx_10_a_child_shortens_and_never_extends() {
    let now = Instant::now();
    let (parent, _p) = Context::background().with_deadline(now + LONG);
    let (longer, _l) = parent.with_deadline(now + 2 * LONG);
    let (shorter, _s) = parent.with_deadline(now + LONG / 2);
    assert_eq!(longer.deadline(), Some(now + LONG));
    assert_eq!(shorter.deadline(), Some(now + LONG / 2));
    let (parent, _p) = Context::background().with_timeout(ms(2));
    let (child, _c) = parent.with_timeout(LONG);
    child.done().recv().unwrap_err();
    assert_eq!(child.err(), Some(DeadlineExceeded));
}

#[test]
fn cx_11_a_deadline_is_a_time_out() {
    assert!(DeadlineExceeded.is_timeout() && !Canceled.is_timeout());
    assert_eq!(std::io::Error::from(DeadlineExceeded).kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(std::io::Error::from(Canceled).to_string(), "context canceled");
    assert_eq!(DeadlineExceeded.to_string(), "context deadline exceeded");
}

#[test]
fn cx_13_the_first_cause_on_the_path_wins() {
    let (parent, cancel_parent) = Context::background().with_cancel();
    let (child, cancel_child) = parent.with_cancel();
    assert!(child.cause().is_none());
    cancel_child.cancel_with("child");
    cancel_parent.cancel_with("parent");
    cancel_parent.cancel_with("again");
    assert_eq!((cause(&parent), cause(&child)), (Some("parent".into()), Some("child".into())));
    assert_eq!(child.err(), Some(Canceled));

    let (parent, cancel_parent) = Context::background().with_cancel();
    let (child, cancel_child) = parent.with_cancel();
    cancel_parent.cancel_with("parent");
    cancel_child.cancel_with("child");
    assert_eq!(cause(&child), Some("parent".into()));

    let (ctx, cancel) = Context::background().with_cancel();
    cancel.cancel();
    assert_eq!(ctx.cause().unwrap().downcast_ref::<ContextError>(), Some(&Canceled));
    let (ctx, _c) = Context::background().with_timeout(Duration::ZERO);
    assert_eq!(cause(&ctx), Some("context deadline exceeded".into()));
    assert_eq!(cause(&ctx.with_value(1_u8)), cause(&ctx));
}

#[test]
fn cx_13_the_cause_of_a_deadline_counts_only_if_it_has_come() {
    at_1_2_4(|| {
        let now = Instant::now();
        let background = Context::background();
        let (ctx, _c) = background.with_timeout_cause(ms(2), "slow");
        let (below, _b) = ctx.with_timeout_cause(LONG, "slower");
        // Whoever is late may find it ended.
        assert!(ctx.cause().is_none() || Some(Instant::now()) >= ctx.deadline());
        assert_eq!(below.deadline(), ctx.deadline());
        below.done().recv().unwrap_err();
        assert_eq!(
            (ctx.err(), cause(&ctx), cause(&below)),
            (Some(DeadlineExceeded), Some("slow".into()), Some("slow".into()))
        );

        let (ctx, cancel) = background.with_deadline_cause(now + LONG, "slow");
        cancel.cancel();
        assert_eq!(cause(&ctx), Some("context canceled".into()));
        let (ctx, cancel) = background.with_timeout_cause(Duration::MAX, "slow");
        cancel.cancel_with("enough");
        assert_eq!(cause(&ctx), Some("enough".into()));

        let (ctx, cancel) = background.with_deadline_cause(now, "too late");
        cancel.cancel_with("enough");
        assert_eq!((ctx.err(), cause(&ctx)), (Some(DeadlineExceeded), Some("too late".into())));
        let (parent, _p) = background.with_timeout(ms(2));
        let (child, _c) = parent.with_timeout_cause(LONG, "slow");
        child.done().recv().unwrap_err();
        assert_eq!(cause(&child), Some("context deadline exceeded".into()));
    });
}

#[test]
fn cx_14_without_cancel_keeps_the_values_only() {
    let (ctx, cancel) = Context::background().with_value(7_u32).with_timeout(LONG);
    let before = ctx.without_cancel();
    cancel.cancel_with("over");
    for free in [before, ctx.without_cancel()] {
        assert!(!done(&free) && free.deadline().is_none() && free.cause().is_none());
        assert_eq!(free.value::<u32>().as_deref(), Some(&7));
    }
}

#[test]
fn cx_15_the_nearest_value_of_a_type_wins() {
    #[derive(Debug, PartialEq)]
    struct User(&'static str);
    let a = Context::background().with_value(User("a")).with_value(1_u8);
    let (b, cancel) = a.with_value(User("b")).with_cancel();
    let c = b.with_value(None::<u8>);
    cancel.cancel();
    assert_eq!(*c.value::<User>().unwrap(), User("b"));
    assert_eq!(*a.value::<User>().unwrap(), User("a"));
    assert_eq!((*c.value::<u8>().unwrap(), *c.value::<Option<u8>>().unwrap()), (1, None));
    assert!(c.value::<String>().is_none());
}

/// As the elements of a `Vec` are, and in a loop there too.
#[test]
fn values_behind_one_whose_drop_panics_are_dropped() {
    struct Value(Arc<AtomicUsize>, bool);
    impl Drop for Value {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
            assert!(!self.1, "on purpose");
        }
    }
    rt(1, || {
        for panics in [0, 50_000, 99_999] {
            let dropped = Arc::new(AtomicUsize::new(0));
            let mut ctx = Context::background();
            for n in 0..100_000 {
                ctx = ctx.with_value(Value(dropped.clone(), n == panics));
            }
            ctx = merge(&ctx, &Context::background().with_value(Value(dropped.clone(), false))).0;
            catch_unwind(AssertUnwindSafe(|| drop(ctx))).unwrap_err();
            assert_eq!(dropped.load(SeqCst), 100_001);
        }
    });
}

#[test]
fn cx_17_functions_run_once_in_goroutines_of_their_own() {
    at_1_2_4(|| {
        let (tx, rx) = unbuffered();
        let (ctx, cancel) = Context::background().with_cancel();
        ctx.after_func({
            let tx = tx.clone();
            move || tx.send("cancelled").unwrap()
        });
        cancel.cancel();
        cancel.cancel();
        assert_eq!(rx.recv(), Ok("cancelled"));

        let (ctx, _c) = Context::background().with_timeout(ms(1));
        let late = tx.clone();
        ctx.after_func(move || late.send("timed out").unwrap());
        assert_eq!(rx.recv(), Ok("timed out"));
        let at_once = ctx.after_func(move || tx.send("at once").unwrap());
        assert_eq!(rx.recv(), Ok("at once"));
        assert!(!at_once.stop());
        assert!(rx.recv().is_err(), "once each");
    });
}

#[test]
fn cx_17_functions_of_a_context_that_nobody_holds_run_when_its_parent_ends() {
    at_1_2_4(|| {
        let (root, cancel) = Context::background().with_cancel();
        let (other, _other) = Context::background().with_cancel();
        let (tx, rx) = bounded(2);
        let again = tx.clone();
        {
            let (middle, handle) = root.with_cancel();
            handle.forget();
            let (child, handle) = middle.with_cancel();
            handle.forget();
            child.after_func(move || tx.send("child").unwrap());
            let (merged, handle) = merge(&middle, &other);
            handle.forget();
            merged.after_func(move || again.send("merged").unwrap());
        }
        assert!(rx.try_recv().is_err());
        cancel.cancel();
        let mut ran: Vec<_> = rx.iter().collect();
        ran.sort_unstable();
        assert_eq!(ran, ["child", "merged"]);
    });
}

#[test]
fn cx_17_functions_that_can_no_longer_run_are_dropped() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let (root, handle) = Context::background().with_cancel();
    handle.forget();
    {
        let (child, handle) = root.with_cancel();
        handle.forget();
        let counted = Counted(Arc::clone(&dropped));
        child.after_func(move || drop(counted));
    }
    assert_eq!(dropped.load(SeqCst), 0);
    drop(root);
    assert_eq!(dropped.load(SeqCst), 1);
}

/// Trees that grow and lose their contexts, handles and listeners at random, beside a plain account of who is below whom.
#[test]
fn cx_02_cx_08_cx_17_random_trees_end_as_their_account_says() {
    struct Entry {
        parents: Vec<usize>,
        ended: bool,
        ctx: Option<Context>,
        handle: Option<CancelHandle>,
        done: Option<Receiver<()>>,
    }
    for seed in 0..500_u64 {
        let mut state = seed;
        let mut random = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let (tx, rx) = unbounded();
        let mut all: Vec<Entry> = Vec::new();
        for step in 0..200 {
            let at = random(all.len().max(1));
            match (random(9), all.get_mut(at)) {
                (0..3, _) => {
                    let held: Vec<_> = (0..all.len()).filter(|n| all[*n].ctx.is_some()).collect();
                    let parents: Vec<_> = (0..random(3).min(held.len()))
                        .map(|_| held[held.len() - 1 - random(held.len().min(4))])
                        .collect();
                    let ctx = |n: usize| all[n].ctx.as_ref().unwrap();
                    let (ctx, handle) = match *parents {
                        [a, b] => merge(ctx(a), ctx(b)),
                        [a] => ctx(a).with_cancel(),
                        _ => Context::background().with_cancel(),
                    };
                    let (n, ran) = (all.len(), tx.clone());
                    ctx.after_func(move || ran.send(n).unwrap());
                    let (ended, done) = (parents.iter().any(|n| all[*n].ended), Some(ctx.done().clone()));
                    all.push(Entry { parents, ended, ctx: Some(ctx), handle: Some(handle), done });
                }
                (3, Some(entry)) => drop(entry.done.take()),
                (4..=5, Some(entry)) if !entry.parents.is_empty() => {
                    entry.handle.take().into_iter().for_each(CancelHandle::forget)
                }
                (6, Some(entry)) if random(4) == 0 => entry.ended |= entry.handle.take().is_some(),
                (_, Some(entry)) => drop(entry.ctx.take()),
                (_, None) => {}
            }
            for n in 0..all.len() {
                all[n].ended |= all[n].parents.iter().any(|parent| all[*parent].ended);
                let closed = all[n].done.as_ref().map(Receiver::is_closed);
                assert!(closed.is_none_or(|closed| closed == all[n].ended), "seed {seed}, step {step}, context {n}");
            }
        }
        let ended: Vec<_> = (0..all.len()).filter(|n| all[*n].ended).collect();
        all.iter_mut().filter_map(|entry| entry.handle.take()).for_each(CancelHandle::forget);
        drop((all, tx));
        let mut ran: Vec<_> = rx.iter().collect();
        ran.sort_unstable();
        assert_eq!(ran, ended, "seed {seed}");
    }
}

#[test]
fn cx_18_exactly_one_of_stop_and_the_function_wins() {
    at_1_2_4(|| {
        let (ctx, cancel) = Context::background().with_cancel();
        let ran = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ran);
        let func = ctx.after_func(move || flag.store(true, SeqCst));
        assert!(func.stop());
        assert!(!func.stop());
        cancel.cancel();
        let never = Context::background().after_func(|| unreachable!());
        assert!(never.stop() && !never.stop());

        for _ in 0..100 {
            let (ctx, cancel) = Context::background().with_cancel();
            let (tx, rx) = bounded(1);
            let func = ctx.after_func(move || tx.send(()).unwrap());
            let canceller = thread::spawn(move || cancel.cancel());
            let stopped = func.stop();
            canceller.join().unwrap();
            assert_eq!(rx.recv().is_err(), stopped);
        }
        assert!(!ran.load(SeqCst));
    });
}

#[test]
fn cx_19_functions_of_one_context_are_independent() {
    at_1_2_4(|| {
        let (tx, rx) = bounded(3);
        let (ctx, cancel) = Context::background().with_cancel();
        let funcs: Vec<_> = (0..3)
            .map(|n| {
                let tx = tx.clone();
                ctx.after_func(move || tx.send(n).unwrap())
            })
            .collect();
        drop(tx);
        assert!(funcs[1].stop());
        cancel.cancel();
        let mut ran: Vec<_> = rx.iter().collect();
        ran.sort_unstable();
        assert_eq!(ran, [0, 2]);
    });
}

#[test]
fn cx_23_done_is_the_same_channel_on_every_call() {
    let (ctx, _c) = Context::background().with_cancel();
    assert!(ctx.done().same_channel(ctx.clone().with_value(1).done()));
}

#[test]
fn cx_24_a_dropped_handle_cancels_and_a_forgotten_one_does_not() {
    let (parent, cancel) = Context::background().with_cancel();
    let (child, handle) = parent.with_cancel();
    handle.forget();
    assert!(!done(&child));
    drop(cancel);
    assert!(done(&child));

    let (tx, rx) = bounded(1);
    let (ctx, handle) = Context::background().with_timeout(ms(1));
    ctx.after_func(move || tx.send(()).unwrap());
    handle.forget();
    drop(ctx);
    assert_eq!(rx.recv(), Ok(()), "a forgotten context still ends at its deadline");
}

#[test]
fn cx_25_a_merged_context_ends_with_either() {
    at_1_2_4(|| {
        for first in [true, false] {
            let (a, cancel_a) = Context::background().with_value(1_u8).with_timeout(LONG);
            let (b, cancel_b) = Context::background().with_value(2_u8).with_value("b").with_cancel();
            let (ctx, _c) = merge(&a, &b);
            let (below, _d) = ctx.with_cancel();
            assert_eq!(ctx.deadline(), a.deadline());
            assert_eq!((*ctx.value::<u8>().unwrap(), *ctx.value::<&str>().unwrap()), (1, "b"));
            (if first { &cancel_a } else { &cancel_b }).cancel_with("one of them");
            assert!(done(&ctx) && done(&below));
            assert_eq!(cause(&below), Some("one of them".into()));
            assert_eq!((done(&a), done(&b)), (first, !first));
        }
        let (both, _c) = merge(&Context::background(), &Context::background());
        assert!(!done(&both));
    });
}

#[test]
fn cx_25_values_that_were_merged_many_times_are_dropped_on_a_small_stack() {
    rt(1, || {
        let other = Context::background().with_value(1_u8);
        for left in [true, false] {
            let mut ctx = Context::background().with_value(2_u16);
            for _ in 0..20_000 {
                let (merged, _cancel) = if left { merge(&ctx, &other) } else { merge(&other, &ctx) };
                ctx = merged.without_cancel();
            }
            assert_eq!((*ctx.value::<u8>().unwrap(), *ctx.value::<u16>().unwrap()), (1, 2));
        }
    });
}

#[test]
fn cx_25_merges_of_merges_are_gone_through_once() {
    // As many ways lead from the last to the root as two to the power of the depth.
    let (root, cancel) = Context::background().with_cancel();
    let mut ctx = root.clone();
    for _ in 0..60 {
        let (a, b) = (ctx.with_value(1_u8), ctx.with_value(2_u16));
        let (merged, handle) = merge(&a, &b);
        handle.forget();
        ctx = merged;
    }
    assert!(ctx.value::<String>().is_none());
    assert_eq!(*ctx.value::<u16>().unwrap(), 2);
    cancel.cancel();
    assert!(done(&ctx));
}

#[test]
fn cx_26_an_end_wakes_the_parked_operation_itself() {
    rt(1, || {
        let (ctx, cancel) = Context::background().with_cancel();
        let (tx, rx) = unbuffered::<String>();
        let group = Arc::new(WaitGroup::new());
        let not_done = group.guard();
        let receiver = go({
            let ctx = ctx.clone();
            let (_silent, rx) = unbuffered::<u8>();
            move || rx.recv_ctx(&ctx).map(|_| drop(_silent))
        });
        let sender = go({
            let ctx = ctx.clone();
            move || tx.send_ctx("mine".into(), &ctx)
        });
        let waiter = go({
            let (ctx, group) = (ctx.clone(), Arc::clone(&group));
            move || group.wait_ctx(&ctx)
        });
        let sleeper = go({
            let ctx = ctx.clone();
            move || ctx.sleep(LONG)
        });
        quiesce();
        assert!(!receiver.is_finished() && !sender.is_finished() && !waiter.is_finished() && !sleeper.is_finished());
        cancel.cancel();
        assert_eq!(receiver.join().unwrap(), Err(RecvCtxError::Context(Canceled)));
        assert!(sender.join().unwrap() == Err(SendCtxError::Context("mine".into(), Canceled)));
        assert_eq!(waiter.join().unwrap(), Err(Canceled));
        assert_eq!(sleeper.join().unwrap(), Err(Canceled));
        assert!(rx.try_recv().is_err());
        // An ended context fails at once, whatever is ready.
        drop(not_done);
        assert_eq!(group.wait_ctx(&ctx), Err(Canceled));
        assert_eq!(ctx.sleep(Duration::ZERO), Err(Canceled));
        group.wait();
    });
}

#[test]
fn cx_26_a_wait_and_a_cancellation_at_once_agree() {
    at_1_2_4(|| {
        for _ in 0..100 {
            let (ctx, cancel) = Context::background().with_cancel();
            let group = Arc::new(WaitGroup::new());
            let guard = group.guard();
            let waiters: Vec<_> = (0..3)
                .map(|_| {
                    let (ctx, group) = (ctx.clone(), Arc::clone(&group));
                    go(move || group.wait_ctx(&ctx))
                })
                .collect();
            go(move || drop(guard));
            oxigo::yield_now();
            cancel.cancel();
            for waiter in waiters {
                let _ = waiter.join().unwrap();
            }
            group.wait();
        }
    });
}

#[test]
fn cx_26_operations_go_on_while_the_context_does() {
    at_1_2_4(|| {
        let (ctx, _c) = Context::background().with_timeout(LONG);
        let (tx, rx) = unbuffered();
        let sender = go({
            let ctx = ctx.clone();
            move || {
                (0..100).for_each(|n| tx.send_ctx(n, &ctx).unwrap());
                ctx.sleep(ms(1)).unwrap();
            }
        });
        let mut sum = 0;
        while let Ok(n) = rx.recv_ctx(&ctx) {
            sum += n;
        }
        assert_eq!(sum, 4950);
        sender.join().unwrap();
        let group = WaitGroup::new();
        group.go(|| oxigo::time::sleep(ms(1)));
        assert_eq!(group.wait_ctx(&ctx), Ok(()));
        assert_eq!(group.wait_ctx(&Context::background()), Ok(()));
    });
}

#[test]
fn cx_26_one_function_may_wait_for_the_time_and_for_a_value() {
    fn later(ctx: &Context, rx: &Receiver<u8>) -> Result<u8, RecvCtxError> {
        ctx.sleep(ms(1))?;
        rx.recv_ctx(ctx)
    }
    let (tx, rx) = bounded(1);
    tx.send(5).unwrap();
    let (ctx, cancel) = Context::background().with_cancel();
    assert_eq!(later(&ctx, &rx), Ok(5));
    cancel.cancel();
    assert_eq!(later(&ctx, &rx), Err(RecvCtxError::Context(Canceled)));
}

#[test]
fn cx_27_the_first_failure_ends_the_scopes_context() {
    at_1_2_4(|| {
        let ended = AtomicUsize::new(0);
        let outcome = scope_ctx(&Context::background(), |s| {
            for _ in 0..5 {
                let ctx = s.context();
                let ended = &ended;
                s.go(move || {
                    let error = ctx.sleep(LONG).unwrap_err();
                    ended.fetch_add(1, SeqCst);
                    Err(error.to_string())
                });
            }
            let nested = s.clone();
            s.go(move || {
                nested.go(|| Err("first".to_string()));
                Ok(())
            });
            Ok(())
        });
        assert_eq!(outcome, Err("first".to_string()));
        assert_eq!(ended.load(SeqCst), 5);

        let fine: Result<i32, fmt::Error> = scope_ctx(&Context::background(), |s| {
            s.go(|| Ok(()));
            Ok(5)
        });
        assert_eq!(fine, Ok(5));
    });
}

#[test]
fn cx_27_a_panic_ends_the_scopes_context_and_is_raised() {
    at_1_2_4(|| {
        for in_child in [true, false] {
            let waited = AtomicBool::new(false);
            let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let _ = scope_ctx::<_, (), ()>(&Context::background(), |s| {
                    let (ctx, waited) = (s.context(), &waited);
                    s.go(move || {
                        ctx.done().recv().unwrap_err();
                        waited.store(true, SeqCst);
                        Ok(())
                    });
                    if in_child {
                        s.go(|| panic!("child"));
                        return Ok(());
                    }
                    panic!("body")
                });
            }));
            let text = *panic.unwrap_err().downcast::<&str>().unwrap();
            assert_eq!(text, if in_child { "a scoped goroutine panicked" } else { "body" });
            assert!(waited.load(SeqCst));
        }
    });
}

#[test]
fn cx_27_the_outer_context_ends_the_scope() {
    at_1_2_4(|| {
        let (ctx, cancel) = Context::background().with_cancel();
        go(move || cancel.cancel());
        let outcome = scope_ctx(&ctx, |s| {
            let inner = s.context();
            s.go(move || inner.sleep(LONG));
            Ok(())
        });
        assert_eq!(outcome, Err(Canceled));
    });
}

/// A cause of a deadline, which knows where it ends.
#[derive(Debug)]
struct Watched(Arc<AtomicUsize>);

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("watched")
    }
}

impl std::error::Error for Watched {}

impl Drop for Watched {
    fn drop(&mut self) {
        let on_alarm_thread = thread::current().name() == Some("oxigo-alarm");
        self.0.fetch_add(if on_alarm_thread { 1 << 32 } else { 1 }, SeqCst);
    }
}

/// Contexts are given up while their deadlines pass. Where the handle had come first, the thread for alarms had the last of the cause; a `Drop` that
/// waits would have held up every deadline of the process.
#[test]
#[cfg(target_pointer_width = "64")]
fn a_cause_is_not_dropped_by_the_thread_for_alarms() {
    const ROUNDS: usize = 20;
    const EACH: usize = 300;
    rt(2, || {
        let dropped = Arc::new(AtomicUsize::new(0));
        for round in 0..ROUNDS {
            let deadline = Instant::now() + ms(2);
            let cause = || Watched(Arc::clone(&dropped));
            let contexts: Vec<_> =
                (0..EACH).map(|_| Context::background().with_deadline_cause(deadline, cause())).collect();
            while Instant::now() < deadline + Duration::from_micros(20 * round as u64) {
                std::hint::spin_loop();
            }
            drop(contexts);
        }
        // Elsewhere may be later.
        let begin = Instant::now();
        while dropped.load(SeqCst) < ROUNDS * EACH && begin.elapsed() < Duration::from_secs(10) {
            oxigo::time::sleep(ms(1));
        }
        assert_eq!(dropped.load(SeqCst), ROUNDS * EACH, "some on the thread for alarms, or none");
    });
}
