//! `block_on` and its kin: futures on goroutines and on plain threads, and who wakes them.

mod common;

use std::{
    cell::Cell,
    future::{Future, IntoFuture, pending, poll_fn, ready},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    task::{Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use common::{Counted, at_1_2_4, at_length, everywhere, quiesce, rt};
use oxigo::{
    Builder, blocking,
    context::{Context, ContextError},
    debug,
    future::{BlockOnTimeoutError, block_on, block_on_ctx, block_on_deadline, block_on_timeout},
    go, synctest, unbuffered,
};

const MINUTE: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(5);

/// What an `async` crate has inside: somebody opens it, and wakes who waits. Keeps its last waker, also when it is open.
#[derive(Default)]
struct Gate {
    is_open: AtomicBool,
    polls: AtomicUsize,
    waker: Mutex<Option<Waker>>,
}

impl Gate {
    fn shared() -> Arc<Self> {
        Arc::default()
    }

    fn passed(self: &Arc<Self>) -> impl Future<Output = usize> + use<> {
        let gate = Arc::clone(self);
        poll_fn(move |cx| {
            let polls = gate.polls.fetch_add(1, SeqCst) + 1;
            *gate.waker.lock().unwrap() = Some(cx.waker().clone());
            if gate.is_open.load(SeqCst) { Poll::Ready(polls) } else { Poll::Pending }
        })
    }

    fn polls(&self) -> usize {
        self.polls.load(SeqCst)
    }

    fn waker(&self) -> Waker {
        self.waker.lock().unwrap().clone().expect("it was polled")
    }

    fn open(&self) {
        self.is_open.store(true, SeqCst);
        if let Some(waker) = &*self.waker.lock().unwrap() {
            waker.wake_by_ref();
        }
    }

    /// Until the future was polled: who waits for it is on its way to park, or parked.
    fn until_polled(&self) {
        while self.polls() == 0 {
            oxigo::yield_now();
        }
    }
}

/// A `passed` that counts its end.
struct Watched {
    gate: Pin<Box<dyn Future<Output = usize> + Send>>,
    _counted: Counted,
}

impl Watched {
    fn new(gate: &Arc<Gate>) -> (Self, Arc<AtomicUsize>) {
        let drops = Arc::new(AtomicUsize::new(0));
        (Self { gate: Box::pin(gate.passed()), _counted: Counted(Arc::clone(&drops)) }, drops)
    }
}

impl Future for Watched {
    type Output = usize;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<usize> {
        self.gate.as_mut().poll(cx)
    }
}

/// Wakes itself at each of `n` polls.
fn wakes_itself(n: usize, mut polled: impl FnMut(usize)) -> impl Future<Output = ()> {
    let mut polls = 0;
    poll_fn(move |cx| {
        polls += 1;
        polled(polls);
        if polls > n {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

#[test]
fn what_is_ready_is_returned() {
    everywhere(|| {
        assert_eq!(block_on(async { 6 * 7 }), 42);
        assert_eq!(block_on(ready("now")), "now");
        // Neither `Send` nor `'static`.
        let cell = Cell::new(1);
        block_on(async {
            wakes_itself(3, |_| cell.set(cell.get() * 2)).await;
        });
        assert_eq!(cell.get(), 16);
    });
}

#[test]
fn what_becomes_a_future_is_taken() {
    struct Request(u32);
    impl IntoFuture for Request {
        type Output = u32;
        type IntoFuture = std::future::Ready<u32>;

        fn into_future(self) -> Self::IntoFuture {
            ready(self.0 + 1)
        }
    }
    assert_eq!(block_on(Request(1)), 2);
    assert_eq!(block_on_timeout(Request(2), MINUTE), Ok(3));
    assert_eq!(block_on_deadline(Request(3), Instant::now() + MINUTE), Ok(4));
    assert_eq!(block_on_ctx(&Context::background(), Request(4)), Ok(5));
}

/// By whoever it is, while the future is polled, between, and when the goroutine has parked.
#[test]
fn a_wake_ends_the_wait() {
    everywhere(|| {
        type Opens = fn(Arc<Gate>);
        let openers: [Opens; 4] = [
            |gate| drop(go(move || gate.open())),
            |gate| drop(Builder::new().spread().spawn(move || gate.open()).unwrap()),
            |gate| drop(thread::spawn(move || gate.open())),
            // On a thread that no goroutine has, of a pool.
            |gate| drop(go(move || blocking(|| gate.open()))),
        ];
        for opens in openers {
            let gate = Gate::shared();
            opens(Arc::clone(&gate));
            block_on(gate.passed());

            // Not before it was polled.
            let gate = Gate::shared();
            let later = Arc::clone(&gate);
            go(move || {
                later.until_polled();
                opens(later);
            });
            assert!(block_on(gate.passed()) >= 2);
        }
    });
}

/// One worker, so that it is known where everybody is.
#[test]
fn a_goroutine_that_has_parked_is_woken_and_polls_once() {
    rt(1, || {
        let gate = Gate::shared();
        let future = gate.passed();
        let waits = go(move || block_on(future));
        quiesce();
        assert_eq!(gate.polls(), 1, "nobody has woken it");
        gate.waker().wake_by_ref();
        quiesce();
        assert_eq!(gate.polls(), 2, "a wake is a poll");
        let wakers = [gate.waker(), gate.waker(), gate.waker()];
        wakers.into_iter().for_each(Waker::wake);
        quiesce();
        assert_eq!(gate.polls(), 3, "wakes before a poll count once");
        gate.open();
        assert_eq!(waits.join().unwrap(), 4);
    });
}

#[test]
fn a_wake_during_the_poll_is_not_lost() {
    everywhere(|| {
        let mut polls = 0;
        block_on(poll_fn(|cx| {
            polls += 1;
            // From another thread, and over before the poll is.
            let waker = cx.waker().clone();
            blocking(|| thread::spawn(move || waker.wake()).join().unwrap());
            if polls == 3 { Poll::Ready(()) } else { Poll::Pending }
        }));
        assert_eq!(polls, 3);
    });
}

/// The future itself waits, with all that this crate has for that.
#[test]
fn a_wake_during_a_wait_inside_of_the_poll_is_not_lost() {
    at_1_2_4(|| {
        let (tx, rx) = unbuffered();
        let mut received = 0;
        block_on(poll_fn(|cx| {
            let (waker, tx) = (cx.waker().clone(), tx.clone());
            go(move || {
                // The value comes after the wake, when nobody but the channel could wake.
                waker.wake();
                tx.send(1).unwrap();
            });
            received += rx.recv().unwrap();
            if received == 10 { Poll::Ready(()) } else { Poll::Pending }
        }));
        assert_eq!(received, 10);
    });
}

#[test]
fn it_nests() {
    everywhere(|| {
        let (outer, inner) = (Gate::shared(), Gate::shared());
        let opens = (Arc::clone(&outer), Arc::clone(&inner));
        go(move || {
            opens.1.until_polled();
            // The outer one is woken while the inner one waits.
            opens.0.open();
            opens.1.open();
        });
        let mut passes = pin!(outer.passed());
        let mut inside = 0;
        block_on(poll_fn(|cx| {
            let poll = passes.as_mut().poll(cx);
            if inside == 0 {
                inside = block_on(inner.passed());
            }
            poll
        }));
        assert!(inside >= 2);
    });
}

#[test]
fn many_wake_at_once() {
    for _ in 0..at_length(20, 100) {
        everywhere(|| {
            const WAKERS: usize = 8;
            let come = Arc::new(AtomicUsize::new(0));
            let mut begun = false;
            block_on(poll_fn(|cx| {
                if !begun {
                    begun = true;
                    for n in 0..WAKERS {
                        let (come, waker) = (Arc::clone(&come), cx.waker().clone());
                        let wake = move || {
                            come.fetch_add(1, SeqCst);
                            if n % 2 == 0 { waker.wake() } else { waker.wake_by_ref() }
                        };
                        if n % 4 == 0 { drop(thread::spawn(wake)) } else { drop(go(wake)) }
                    }
                }
                if come.load(SeqCst) == WAKERS { Poll::Ready(()) } else { Poll::Pending }
            }));
        });
    }
}

/// A waker outlives the call, and its goroutine, whose slot serves another one.
#[test]
fn a_late_wake_does_nothing() {
    rt(1, || {
        let gate = Gate::shared();
        gate.open();
        let future = gate.passed();
        go(move || block_on(future)).join().unwrap();
        let ended = gate.waker();
        let timed_out = Gate::shared();
        let future = timed_out.passed();
        let next = go(move || {
            assert_eq!(block_on_timeout(future, MOMENT), Err(BlockOnTimeoutError));
            oxigo::park();
        });
        while !next.is_finished() && timed_out.polls() < 2 {
            oxigo::time::sleep(MOMENT);
        }
        quiesce();
        for waker in [ended, timed_out.waker()] {
            waker.wake_by_ref();
            waker.wake();
        }
        quiesce();
        assert!(!next.is_finished(), "it waits for something else");
        next.goroutine().unpark();
        next.join().unwrap();
        timed_out.waker().wake();
    });
}

/// The same unit, another future.
#[test]
fn a_waker_wakes_its_own_future_only() {
    rt(1, || {
        let (first, second) = (Gate::shared(), Gate::shared());
        first.open();
        let futures = (first.passed(), second.passed());
        let waits = go(move || {
            block_on(futures.0);
            block_on(futures.1)
        });
        quiesce();
        first.waker().wake();
        quiesce();
        assert_eq!(second.polls(), 1);
        second.open();
        assert_eq!(waits.join().unwrap(), 2);
    });
}

#[test]
fn the_token_of_park_is_another_one() {
    rt(1, || {
        let gate = Gate::shared();
        let future = gate.passed();
        let (tx, parked) = unbuffered();
        let waits = go(move || {
            let polls = block_on(future);
            tx.send(polls).unwrap();
            // The `unpark` of before is still there; the next one is not.
            oxigo::park();
            tx.send(0).unwrap();
            oxigo::park();
        });
        quiesce();
        waits.goroutine().unpark();
        quiesce();
        assert_eq!(gate.polls(), 1, "an `unpark` is no wake");
        gate.open();
        assert_eq!(parked.recv(), Ok(2));
        assert_eq!(parked.recv(), Ok(0), "the `unpark` was eaten");
        quiesce();
        gate.waker().wake();
        quiesce();
        assert!(!waits.is_finished(), "a wake is no `unpark`");
        waits.goroutine().unpark();
        waits.join().unwrap();
    });
}

#[test]
fn a_panic_of_the_future_is_passed_on() {
    everywhere(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let inside = Counted(Arc::clone(&drops));
        let mut polls = 0;
        let future = poll_fn(move |cx| {
            let _inside = &inside;
            polls += 1;
            cx.waker().wake_by_ref();
            if polls == 2 { panic!("no luck") } else { Poll::<()>::Pending }
        });
        let payload = catch_unwind(AssertUnwindSafe(|| block_on(future))).unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&"no luck"));
        assert_eq!(drops.load(SeqCst), 1);
        assert_eq!(block_on(async { 1 }), 1);
    });
    assert!(go(|| block_on(async { panic!("no luck") })).join().is_err());
}

/// P4. Each poll that has woken itself lets the others run: what `yield_now().await` of an `async` crate is for.
#[test]
fn a_future_that_wakes_itself_starves_nobody() {
    rt(1, || {
        let turns = Arc::new(Mutex::new(Vec::new()));
        let parties = [0, 1].map(|party| {
            let turns = Arc::clone(&turns);
            go(move || block_on(wakes_itself(100, |_| turns.lock().unwrap().push(party))))
        });
        parties.into_iter().for_each(|party| party.join().unwrap());
        let turns = turns.lock().unwrap();
        let both = &turns[turns.iter().position(|party| *party != turns[0]).unwrap() - 1..];
        assert!(both[..150].windows(2).all(|two| two[0] != two[1]), "{turns:?}");
    });
    // It may wait so for another goroutine of its worker.
    at_1_2_4(|| {
        let flag = Arc::new(AtomicBool::new(false));
        let sets = Arc::clone(&flag);
        go(move || sets.store(true, SeqCst));
        block_on(poll_fn(|cx| {
            cx.waker().wake_by_ref();
            if flag.load(SeqCst) { Poll::Ready(()) } else { Poll::Pending }
        }));
    });
    // And who always finds its future ready uses up its slice, as by any operation.
    rt(1, || common::lets_others_run("block_on", || block_on(ready(()))));
    let ctx = Context::background().with_cancel().0;
    rt(1, || common::lets_others_run("block_on_ctx", || block_on_ctx(&ctx, ready(())).unwrap_err()));
}

#[test]
fn a_limit_drops_the_future() {
    everywhere(|| {
        let gate = Gate::shared();
        let (future, drops) = Watched::new(&gate);
        let begin = Instant::now();
        assert_eq!(block_on_timeout(future, MOMENT), Err(BlockOnTimeoutError));
        assert!(begin.elapsed() >= MOMENT);
        assert_eq!(drops.load(SeqCst), 1);

        let (future, drops) = Watched::new(&gate);
        let deadline = Instant::now() + MOMENT;
        assert_eq!(block_on_deadline(future, deadline), Err(BlockOnTimeoutError));
        assert!(Instant::now() >= deadline);
        assert_eq!(drops.load(SeqCst), 1);

        // One that is woken all the time.
        let begin = Instant::now();
        assert!(block_on_timeout(wakes_itself(usize::MAX - 1, |_| ()), MOMENT).is_err());
        assert!(begin.elapsed() >= MOMENT);
        // A limit that nobody can count to is none.
        let later = Arc::clone(&gate);
        go(move || later.open());
        assert!(block_on_timeout(gate.passed(), Duration::MAX).is_ok());
    });
    assert_eq!(
        format!("{BlockOnTimeoutError} {BlockOnTimeoutError:?}"),
        "timed out waiting on future timed out waiting on future"
    );
}

/// What it drops may wait.
#[test]
fn a_drop_at_the_limit_may_wait() {
    struct Waits(oxigo::Receiver<u8>);
    impl Drop for Waits {
        fn drop(&mut self) {
            assert_eq!(self.0.recv(), Ok(1));
        }
    }
    everywhere(|| {
        let (tx, rx) = unbuffered();
        go(move || tx.send(1).unwrap());
        let future = async move {
            let _waits = Waits(rx);
            pending::<()>().await;
        };
        assert!(block_on_timeout(future, MOMENT).is_err());
    });
}

#[test]
fn a_future_that_is_ready_comes_before_a_limit_that_has_passed() {
    everywhere(|| {
        assert_eq!(block_on_timeout(ready(1), Duration::ZERO), Ok(1));
        assert_eq!(block_on_deadline(ready(2), Instant::now() - MOMENT), Ok(2));
        assert_eq!(block_on_timeout(pending::<()>(), Duration::ZERO), Err(BlockOnTimeoutError));
        // It got ready meanwhile, and nobody has said so.
        let begin = Instant::now();
        let late = poll_fn(|_| if begin.elapsed() >= MOMENT { Poll::Ready(3) } else { Poll::Pending });
        assert_eq!(block_on_timeout(late, MOMENT), Ok(3));
    });
}

#[test]
fn a_context_drops_the_future() {
    everywhere(|| {
        let gate = Gate::shared();
        let (ctx, cancel) = Context::background().with_cancel();
        let (future, drops) = Watched::new(&gate);
        let polled = Arc::clone(&gate);
        go(move || {
            polled.until_polled();
            cancel.cancel();
        });
        assert_eq!(block_on_ctx(&ctx, future), Err(ContextError::Canceled));
        assert_eq!(drops.load(SeqCst), 1);

        let begin = Instant::now();
        let (ctx, _cancel) = Context::background().with_timeout(MOMENT);
        assert_eq!(block_on_ctx(&ctx, gate.passed()), Err(ContextError::DeadlineExceeded));
        assert!(begin.elapsed() >= MOMENT);
        let (ctx, _cancel) = Context::background().with_timeout(MOMENT);
        let always = wakes_itself(usize::MAX - 1, |_| ());
        assert_eq!(block_on_ctx(&ctx, always), Err(ContextError::DeadlineExceeded));

        // One that has not ended.
        let (ctx, _cancel) = Context::background().with_cancel();
        let later = Arc::clone(&gate);
        go(move || later.open());
        assert!(block_on_ctx(&ctx, gate.passed()).is_ok());
        assert!(block_on_ctx(&Context::background(), gate.passed()).is_ok());
    });
}

#[test]
fn a_context_that_has_ended_comes_before_a_future_that_is_ready() {
    everywhere(|| {
        let gate = Gate::shared();
        gate.open();
        let (ctx, cancel) = Context::background().with_cancel();
        cancel.cancel();
        let (future, drops) = Watched::new(&gate);
        assert_eq!(block_on_ctx(&ctx, future), Err(ContextError::Canceled));
        assert_eq!((gate.polls(), drops.load(SeqCst)), (0, 1));
    });
    // But not before one that has got ready while it was waited for.
    rt(1, || {
        let gate = Gate::shared();
        let (ctx, cancel) = Context::background().with_cancel();
        let future = gate.passed();
        let waits = go(move || block_on_ctx(&ctx, future));
        quiesce();
        gate.is_open.store(true, SeqCst);
        cancel.cancel();
        assert_eq!(waits.join().unwrap(), Ok(2));
    });
}

/// Time limits and wakes at once: a value is received, or comes later, and is never lost; and no wake ends another wait.
#[test]
fn wakes_and_limits_agree() {
    at_1_2_4(|| {
        let (tx, rx) = unbuffered::<Arc<Gate>>();
        let opens = Builder::new().spread().spawn(move || {
            for (n, gate) in rx.iter().enumerate() {
                for _ in 0..n % 50 {
                    std::hint::spin_loop();
                }
                gate.open();
            }
        });
        let (mut in_time, mut late) = (0, 0);
        for n in 0..at_length(300, 3_000) {
            let gate = Gate::shared();
            let future = gate.passed();
            tx.send(Arc::clone(&gate)).unwrap();
            let limit = Duration::from_nanos(200 * (n as u64 % 40));
            match block_on_timeout(future, limit) {
                Ok(_) => in_time += 1,
                Err(BlockOnTimeoutError) => {
                    late += 1;
                    block_on(gate.passed());
                }
            }
            // A wake that came late would end this one, or be found here.
            oxigo::park_timeout(Duration::from_nanos(1));
        }
        drop(tx);
        opens.unwrap().join().unwrap();
        assert_eq!(in_time + late, at_length(300, 3_000));
    });
}

/// Many goroutines, each a link of a ring of futures.
#[test]
fn a_ring_of_futures_turns() {
    at_1_2_4(|| {
        const LINKS: usize = 50;
        let laps = at_length(20, 200);
        let place: Arc<Mutex<(usize, Vec<Option<Waker>>)>> = Arc::new(Mutex::new((0, vec![None; LINKS])));
        let links: Vec<_> = (0..LINKS)
            .map(|link| {
                let place = Arc::clone(&place);
                go(move || {
                    for lap in 0..laps {
                        block_on(poll_fn(|cx| {
                            let mut place = place.lock().unwrap();
                            if place.0 == lap * LINKS + link {
                                return Poll::Ready(());
                            }
                            place.1[link] = Some(cx.waker().clone());
                            Poll::Pending
                        }));
                        let next = {
                            let mut place = place.lock().unwrap();
                            place.0 += 1;
                            place.1[(link + 1) % LINKS].take()
                        };
                        next.into_iter().for_each(Waker::wake);
                    }
                })
            })
            .collect();
        links.into_iter().for_each(|link| link.join().unwrap());
        assert_eq!(place.lock().unwrap().0, laps * LINKS);
    });
}

/// Dumps until there is a line that begins with `heading`.
#[track_caller]
fn dumped(heading: &str) -> String {
    let begin = Instant::now();
    loop {
        let mut text = Vec::new();
        debug::dump(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        if let Some(line) = text.lines().find(|line| line.starts_with(heading)) {
            return line.to_owned();
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "{heading} is not in {text}");
        oxigo::time::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_wait_is_seen_as_what_it_is() {
    at_1_2_4(|| {
        let is_leak = |id| debug::leaks().iter().any(|leak| leak.id() == id);
        let gate = Gate::shared();
        let future = gate.passed();
        let waits = go(move || block_on(future));
        let line = dumped(&format!("goroutine {}: future", waits.id()));
        assert!(!line.contains("no waker") && !line.contains("for ever"), "{line}");
        assert!(!is_leak(waits.id()));
        gate.open();
        waits.join().unwrap();

        // Nobody has its waker.
        let forgotten = go(|| block_on(pending::<()>()));
        let line = dumped(&format!("goroutine {}: future (no waker left)", forgotten.id()));
        assert!(line.contains("for ever"), "{line}");
        assert!(is_leak(forgotten.id()));

        // Nothing ends that context.
        let forgotten = go(|| block_on_ctx(&Context::background(), pending::<()>()).unwrap());
        let line = dumped(&format!("goroutine {}: future (no waker left)", forgotten.id()));
        assert!(line.contains("for ever"), "{line}");
        assert!(is_leak(forgotten.id()));

        // But something else may end it.
        let limited = go(|| block_on_timeout(pending::<()>(), MINUTE).is_ok());
        let (ctx, cancel) = Context::background().with_cancel();
        let cancelled = go(move || block_on_ctx(&ctx, pending::<()>()).is_ok());
        for waits in [&limited, &cancelled] {
            let line = dumped(&format!("goroutine {}: future (no waker left)", waits.id()));
            assert!(!line.contains("for ever"), "{line}");
            assert!(!is_leak(waits.id()));
        }
        cancel.cancel();
        assert!(!cancelled.join().unwrap());
    });
}

/// `debug::suspects` leaves alone who waits for a future, and who waits for that one.
#[test]
fn nobody_is_suspected() {
    at_1_2_4(|| {
        let gate = Gate::shared();
        let future = gate.passed();
        let (tx, rx) = unbuffered::<()>();
        let waits = go(move || {
            block_on(future);
            drop(tx);
        });
        let receives = go(move || rx.recv().unwrap_err());
        dumped(&format!("goroutine {}: future", waits.id()));
        dumped(&format!("goroutine {}: chan receive", receives.id()));
        if let Ok(suspects) = debug::suspects(Duration::ZERO) {
            let ids = [waits.id(), receives.id()];
            for suspect in suspects.iter() {
                assert!(!suspect.goroutines().any(|goroutine| ids.contains(&goroutine.id())), "{suspects}");
            }
        }
        gate.open();
        waits.join().unwrap();
        receives.join().unwrap();
    });
}

const HOUR: Duration = Duration::from_secs(3600);

/// Who may be woken from outside holds time.
#[test]
fn in_a_bubble_time_stands_still_for_a_future() {
    let gate = Gate::shared();
    let (tell, polled) = mpsc::channel();
    let outside = thread::spawn({
        let gate = Arc::clone(&gate);
        move || {
            polled.recv().unwrap();
            thread::sleep(MOMENT);
            gate.open();
        }
    });
    synctest::test(move || {
        let late = go(|| oxigo::time::sleep(HOUR));
        let begin = oxigo::time::now();
        let mut passed = pin!(gate.passed());
        block_on(poll_fn(|cx| {
            let poll = passed.as_mut().poll(cx);
            let _ = tell.send(());
            poll
        }));
        assert_eq!(oxigo::time::now(), begin);
        late.join().unwrap();
        assert_eq!(oxigo::time::now() - begin, HOUR);

        // Nobody can wake these.
        let begin = oxigo::time::now();
        assert!(block_on_timeout(pending::<()>(), HOUR).is_err());
        assert_eq!(oxigo::time::now() - begin, HOUR);
        assert!(block_on_deadline(pending::<()>(), begin + 2 * HOUR).is_err());
        assert_eq!(oxigo::time::now() - begin, 2 * HOUR);
        let (ctx, _cancel) = Context::background().with_timeout(HOUR);
        assert_eq!(block_on_ctx(&ctx, pending::<()>()), Err(ContextError::DeadlineExceeded));
        assert_eq!(oxigo::time::now() - begin, 3 * HOUR);
    });
    outside.join().unwrap();
    let stuck = catch_unwind(|| synctest::test(|| block_on(pending::<()>()))).unwrap_err();
    let text = stuck.downcast_ref::<String>().unwrap();
    assert!(text.starts_with("deadlock") && text.contains("future (no waker left)"), "{text}");
}
