//! Bubbles: their clock, what counts as waiting, how they end.

mod common;

use std::{
    future::poll_fn,
    hash::{BuildHasher, RandomState},
    io::{Read, Write},
    net as std_net,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Mutex as StdMutex,
        atomic::{
            AtomicBool, AtomicU32,
            Ordering::{Relaxed, SeqCst},
        },
        mpsc,
    },
    task::{Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use common::{child, is_child, stderr};
use oxigo::{
    Runtime, WaitGroup, blocking, bounded, chan,
    context::Context,
    debug,
    future::block_on,
    go,
    net::{self, TcpListener},
    scope, select,
    sync::{Barrier, Condvar, Mutex, OnceLock, RwLock, Semaphore},
    synctest,
    time::{self, Ticker, Timer},
    unbuffered, yield_now,
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// How long `f` takes by the bubble's clock.
fn taken(f: impl FnOnce()) -> Duration {
    let begin = time::now();
    f();
    time::now() - begin
}

/// What the panic of a bubble says.
fn told<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> String {
    let ended = panic::catch_unwind(AssertUnwindSafe(|| synctest::test(f)));
    let payload = ended.err().expect("it panics");
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload.downcast::<&str>().expect("a text").to_string(),
    }
}

#[test]
fn st_01_all_goroutines_of_a_bubble_share_its_clock_and_nobody_else_does() {
    synctest::test(|| {
        time::sleep(HOUR);
        let now = time::now();
        assert!(now - Instant::now() > HOUR / 2, "everybody's clock is an hour behind");
        let child = go(move || go(move || assert_eq!(time::now(), now)).join().unwrap());
        child.join().unwrap();
        // The pool's threads are outside.
        assert!(now - blocking(time::now) > HOUR / 2);
    });
    let (before, now) = (Instant::now(), time::now());
    assert!(before <= now && now <= Instant::now());
}

#[test]
fn st_02_time_moves_only_when_all_wait_and_exactly_to_the_next_deadline() {
    synctest::test(|| {
        let odd = Duration::from_nanos(123_456_789_123);
        assert_eq!(taken(|| time::sleep(24 * HOUR)), 24 * HOUR);
        assert_eq!(taken(|| time::sleep(odd)), odd);
        let computes = taken(|| (0..100_000).for_each(|_| yield_now()));
        assert_eq!(computes, Duration::ZERO);
        // Deadlines near and far, set in another order than they come in.
        let begin = time::now();
        let (tx, rx) = unbuffered();
        let delays = [7 * HOUR, SECOND, Duration::from_nanos(1), 400 * 24 * HOUR, Duration::from_micros(3), 2 * SECOND];
        for delay in delays {
            let tx = tx.clone();
            go(move || {
                time::sleep(delay);
                tx.send((delay, time::now() - begin)).unwrap();
            });
        }
        drop(tx);
        let came: Vec<_> = rx.iter().collect();
        assert!(came.iter().all(|(delay, after)| delay == after), "{came:?}");
        assert!(came.is_sorted() && came.len() == delays.len());
    });
}

#[test]
fn st_02_every_time_limit_is_the_bubbles() {
    synctest::test(|| {
        let (tx, rx) = unbuffered::<()>();
        let exactly = |what: &str, f: &dyn Fn()| assert_eq!(taken(f), HOUR, "{what}");
        exactly("recv_timeout", &|| assert!(rx.recv_timeout(HOUR).unwrap_err().is_timeout()));
        exactly("send_timeout", &|| assert!(tx.send_timeout((), HOUR).is_err()));
        exactly("select", &|| {
            select! {
                recv(rx) -> _ => unreachable!(),
                default(HOUR) => {}
            }
        });
        exactly("after", &|| assert!(time::after(HOUR).recv().is_ok()));
        exactly("Timer", &|| assert!(Timer::new(HOUR).receiver().recv().is_ok()));
        exactly("sleep_until", &|| time::sleep_until(time::now() + HOUR));
        exactly("park_timeout", &|| oxigo::park_timeout(HOUR));
        let group = WaitGroup::new();
        let busy = group.guard();
        exactly("WaitGroup", &|| assert!(!group.wait_timeout(HOUR)));
        drop(busy);
        let (mutex, condvar) = (Mutex::new(()), Condvar::new());
        exactly("Condvar", &|| assert!(condvar.wait_for(&mut mutex.lock(), HOUR).timed_out()));
        let held = mutex.lock();
        exactly("Mutex", &|| assert!(mutex.try_lock_for(HOUR).is_none()));
        drop(held);
        let rwlock = RwLock::new(());
        let held = rwlock.write();
        exactly("RwLock", &|| assert!(rwlock.try_read_for(HOUR).is_none()));
        drop(held);
        let semaphore = Semaphore::new(1);
        let held = semaphore.acquire(1);
        exactly("Semaphore", &|| assert!(semaphore.acquire_timeout(1, HOUR).is_none()));
        drop(held);
        exactly("OnceLock", &|| assert!(OnceLock::<()>::new().wait_timeout(HOUR).is_none()));
        let (ctx, _cancel) = Context::background().with_timeout(HOUR);
        exactly("a context", &|| assert!(rx.recv_ctx(&ctx).is_err()));
        let (near, _far) = net::pipe();
        exactly("a pipe in memory", &|| {
            near.set_read_deadline(Some(time::now() + HOUR)).unwrap();
            assert_eq!((&near).read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::TimedOut);
        });
        let silent = go(|| time::sleep(3 * HOUR));
        let begin = time::now();
        let silent = silent.join_timeout(HOUR).unwrap_err();
        assert_eq!(time::now() - begin, HOUR);
        silent.join().unwrap();
        assert_eq!(time::now() - begin, 3 * HOUR);
    });
}

/// TestTimerReset, TestTickerReset.
#[test]
fn st_02_timers_and_tickers_are_exact() {
    synctest::test(|| {
        let timer = Timer::new(2 * HOUR);
        time::sleep(HOUR);
        assert!(timer.reset(5 * HOUR));
        assert_eq!(taken(|| assert!(timer.receiver().recv().is_ok())), 5 * HOUR);
        assert!(!timer.stop());

        let ticker = Ticker::new(10 * SECOND);
        for _ in 0..1000 {
            assert_eq!(taken(|| assert!(ticker.receiver().recv().is_ok())), 10 * SECOND);
        }
        ticker.reset(SECOND);
        assert_eq!(taken(|| assert!(ticker.receiver().recv().is_ok())), SECOND);
        // Who comes late has missed what it has missed.
        time::sleep(10 * SECOND + SECOND / 2);
        let due = ticker.receiver().recv().unwrap();
        assert_eq!(time::now() - due, 9 * SECOND + SECOND / 2);
        assert_eq!(taken(|| assert!(ticker.receiver().recv().is_ok())), SECOND / 2);
    });
}

/// CX-09 with exact times: a deadline ends the context unless a cancel was first; the earliest of a chain counts.
#[test]
fn st_02_contexts_end_at_their_deadlines() {
    synctest::test(|| {
        let (day, _keep) = Context::background().with_timeout(24 * HOUR);
        let (hour, _keep_too) = day.with_timeout(HOUR);
        let (later, _keep_as_well) = hour.with_timeout(2 * HOUR);
        assert_eq!(taken(|| assert!(later.done().recv().is_err())), HOUR);
        assert!(hour.err().is_some() && later.err().is_some() && day.err().is_none());
        assert_eq!(taken(|| assert!(day.done().recv().is_err())), 23 * HOUR);

        let (ctx, cancel) = Context::background().with_timeout(HOUR);
        cancel.cancel();
        time::sleep(2 * HOUR);
        assert_eq!(ctx.err().unwrap().to_string(), "context canceled");
        let (past, _keep) = Context::background().with_deadline(time::now());
        assert_eq!(past.err().unwrap().to_string(), "context deadline exceeded");
    });
}

/// TestWait.
#[test]
fn st_03_wait_comes_before_time_moves() {
    synctest::test(|| {
        let done = Arc::new(AtomicU32::new(0));
        for _ in 0..10 {
            let done = done.clone();
            go(move || {
                for _ in 0..100 {
                    yield_now();
                }
                done.fetch_add(1, SeqCst);
                time::sleep(Duration::from_nanos(1));
                done.fetch_add(100, SeqCst);
            });
        }
        assert_eq!(taken(synctest::wait), Duration::ZERO);
        assert_eq!(done.load(SeqCst), 10);
        time::sleep(Duration::from_nanos(1));
        synctest::wait();
        assert_eq!(done.load(SeqCst), 1010);
        // And where nobody else is.
        assert_eq!(taken(synctest::wait), Duration::ZERO);
    });
}

#[test]
fn st_03_two_cannot_wait_at_a_time_and_nobody_outside() {
    synctest::test(|| {
        let second = go(synctest::wait);
        synctest::wait();
        let payload = second.join().unwrap_err();
        assert!(payload.downcast::<&str>().unwrap().contains("while another goroutine of the bubble waits in it"));
    });
    let payload = panic::catch_unwind(synctest::wait).unwrap_err();
    assert!(payload.downcast::<&str>().unwrap().contains("outside of a bubble"));
}

/// What waits in each of these ways lets time move on; half an hour later it is let go.
#[test]
fn st_04_what_counts_as_waiting() {
    fn waits(what: &'static str, waiter: impl FnOnce() + Send + 'static, end: impl FnOnce() + Send + 'static) {
        let waiter = go(waiter);
        synctest::wait();
        assert!(!waiter.is_finished(), "{what}");
        assert_eq!(taken(|| time::sleep(HOUR)), HOUR, "{what}");
        assert!(!waiter.is_finished(), "{what}");
        end();
        assert_eq!(taken(|| waiter.join().unwrap()), Duration::ZERO, "{what}");
    }

    synctest::test(|| {
        let (tx, rx) = unbuffered();
        waits("recv", move || rx.recv().unwrap(), move || tx.send(()).unwrap());
        let (tx, rx) = unbuffered();
        waits("send", move || tx.send(()).unwrap(), move || rx.recv().unwrap());
        let (tx, rx) = bounded(1);
        tx.send(1).unwrap();
        waits("send to a full channel", move || tx.send(2).unwrap(), move || assert_eq!(rx.iter().take(2).count(), 2));
        let ((tx, rx), (other, silent)) = (unbuffered(), unbuffered::<()>());
        let selects = move || {
            select! {
                recv(rx) -> value => value.unwrap(),
                recv(silent) -> _ => unreachable!(),
                recv(chan::never::<()>()) -> _ => unreachable!(),
            }
        };
        waits("select", selects, move || {
            tx.send(()).unwrap();
            drop(other);
        });

        let group = Arc::new(WaitGroup::new());
        group.add(1);
        let waiter = group.clone();
        waits("WaitGroup", move || waiter.wait(), move || group.done());
        let pair = Arc::new((Mutex::new(false), Condvar::new()));
        let waiter = pair.clone();
        let wait = move || waiter.1.wait_while(&mut waiter.0.lock(), |ready| !*ready);
        waits("Condvar", wait, move || {
            *pair.0.lock() = true;
            pair.1.notify_one();
        });
        let barrier = Arc::new(Barrier::new(2));
        let waiter = barrier.clone();
        waits("Barrier", move || _ = waiter.wait(), move || _ = barrier.wait());
        let semaphore = Arc::new(Semaphore::new(1));
        let permit = semaphore.acquire_owned(1);
        waits("Semaphore", move || drop(semaphore.acquire(1)), move || drop(permit));
        let slot = Arc::new(OnceLock::new());
        let waiter = slot.clone();
        waits("OnceLock", move || assert_eq!(*waiter.wait(), 1), move || slot.set(1).unwrap());
        let (tx, rx) = unbuffered::<()>();
        let inner = go(move || rx.recv().unwrap());
        waits("join", move || inner.join().unwrap(), move || tx.send(()).unwrap());
        let (tx, rx) = unbuffered::<()>();
        let scoped = move || scope(|s| drop(s.go(|| rx.recv().unwrap())));
        waits("scope", scoped, move || tx.send(()).unwrap());
        let parks = go(oxigo::park);
        let parked = parks.goroutine().clone();
        waits("park", move || parks.join().unwrap(), move || parked.unpark());
        let (mut near, mut far) = net::pipe();
        let reads = move || far.read_exact(&mut [0; 2]).unwrap();
        waits("a pipe in memory", reads, move || near.write_all(b"ok").unwrap());
    });
}

/// Go's issue 77687: who waits for a lock whose holder sleeps does not stop the clock.
#[test]
fn st_04_locks_that_are_held_inside_let_time_move() {
    synctest::test(|| {
        let (mutex, rwlock) = (Arc::new(Mutex::new(0)), Arc::new(RwLock::new(0)));
        let holder = (mutex.clone(), rwlock.clone());
        go(move || {
            let (mut number, mut other) = (holder.0.lock(), holder.1.write());
            time::sleep(HOUR);
            (*number, *other) = (1, 1);
        });
        synctest::wait();
        assert_eq!(taken(|| assert_eq!((*mutex.lock(), *rwlock.read()), (1, 1))), HOUR);
        assert_eq!(mutex.try_lock_for(HOUR).map(|number| *number), Some(1));
    });
}

/// Sockets, names of hosts, blocking calls and processes take everybody's time and none of the bubble's.
#[test]
fn st_04_what_comes_from_outside_takes_no_time() {
    let (tell, address) = std::sync::mpsc::channel::<std_net::SocketAddr>();
    let client = thread::spawn(move || {
        let mut stream = std_net::TcpStream::connect(address.recv().unwrap()).unwrap();
        stream.write_all(b"ping").unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"pong");
    });
    synctest::test(move || {
        let late = go(|| time::sleep(HOUR));
        let passed = taken(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            assert!(net::lookup_host(("localhost", 1)).unwrap().count() > 0);
            tell.send(listener.local_addr().unwrap()).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            // A limit in the bubble's time never comes while it is waited for.
            stream.set_read_timeout(Some(SECOND)).unwrap();
            let mut asked = [0; 4];
            stream.read_exact(&mut asked).unwrap();
            assert_eq!(&asked, b"ping");
            stream.write_all(b"pong").unwrap();
            blocking(|| thread::sleep(Duration::from_millis(5)));
            assert!(oxigo::process::Command::new("true").status().unwrap().success());
        });
        assert_eq!(passed, Duration::ZERO);
        assert_eq!(taken(|| late.join().unwrap()), HOUR);
    });
    client.join().unwrap();
}

/// TestDeadlockRoot, TestDeadlockChild, TestDeadlockTicker.
#[test]
fn st_07_a_bubble_that_stands_still_panics() {
    let root = told(|| {
        let (_tx, rx) = unbuffered::<()>();
        let _ = rx.recv();
    });
    assert!(root.starts_with("deadlock: all goroutines of the bubble wait for each other"), "{root}");
    assert!(root.contains("chan receive") && root.contains("synctest.rs"), "{root}");
    let child = told(|| {
        go(|| {
            let (_tx, rx) = unbuffered::<()>();
            let _ = rx.recv();
        });
    });
    assert!(child.starts_with("deadlock: the first goroutine of the bubble has ended, and others wait"), "{child}");
    let forever = told(|| time::sleep(Duration::MAX));
    assert!(forever.starts_with("deadlock: all goroutines"), "{forever}");
}

/// TestDeadlockTicker, TestTimerAfterBubbleExit: no time passes after the first goroutine's end.
#[test]
fn st_08_time_ends_with_the_first_goroutine() {
    let fired = Arc::new(AtomicBool::new(false));
    let (sleeps, late) = (fired.clone(), fired.clone());
    let text = told(move || {
        time::after_func(Duration::from_nanos(1), move || late.store(true, SeqCst));
        go(move || {
            time::sleep(Duration::from_nanos(1));
            sleeps.store(true, SeqCst);
        });
        go(|| Ticker::new(SECOND).receiver().iter().for_each(drop));
    });
    assert!(text.starts_with("deadlock: the first goroutine of the bubble has ended"), "{text}");
    assert!(text.contains("sleep") && text.contains("chan receive"), "{text}");
    assert!(!fired.load(SeqCst));
    // With an alarm alone nobody waits.
    let late = fired.clone();
    synctest::test(move || drop(time::after_func(SECOND, move || late.store(true, SeqCst))));
    assert!(!fired.load(SeqCst));
}

/// TestCleanup.
#[test]
fn st_09_it_returns_when_all_have_ended() {
    let ended = Arc::new(AtomicU32::new(0));
    let counted = ended.clone();
    let value = synctest::test(move || {
        let (ctx, cancel) = Context::background().with_cancel();
        for _ in 0..10 {
            let (ctx, counted) = (ctx.clone(), counted.clone());
            go(move || {
                ctx.done().recv().unwrap_err();
                for _ in 0..100 {
                    yield_now();
                }
                go(move || counted.fetch_add(1, SeqCst));
            });
        }
        synctest::wait();
        cancel.cancel();
        "done"
    });
    assert_eq!((value, ended.load(SeqCst)), ("done", 10));
}

#[test]
fn st_09_panics_of_the_first_goroutine_are_passed_on() {
    assert_eq!(told(|| panic!("no luck")), "no luck");
    // Before those who wait for ever are told of.
    let both = || {
        go(oxigo::park);
        synctest::wait();
        panic!("no luck either");
    };
    assert_eq!(told::<()>(both), "no luck either");
    // One of another goroutine is in its handle.
    synctest::test(|| assert!(go(|| panic!("kept")).join().is_err()));
}

/// TestTimerRunsImmediately, TestAfterFuncRunsImmediately, TestTimerResetZeroDoNotHang.
#[test]
fn st_10_what_is_due_now_does_not_wait_for_anybody() {
    synctest::test(|| {
        let ran = Arc::new(AtomicBool::new(false));
        let runs = ran.clone();
        time::after_func(Duration::ZERO, move || runs.store(true, SeqCst));
        while !ran.load(SeqCst) {
            yield_now();
        }
        assert!(Timer::new(Duration::ZERO).receiver().try_recv().is_ok());
        let timer = Timer::new(HOUR);
        timer.reset(Duration::ZERO);
        assert_eq!(taken(|| assert!(timer.receiver().recv().is_ok())), Duration::ZERO);
        assert_eq!(taken(|| time::sleep(Duration::ZERO)), Duration::ZERO);
    });
    // Also where the first goroutine ends at once.
    let ran = Arc::new(AtomicBool::new(false));
    let runs = ran.clone();
    synctest::test(move || drop(time::after_func(Duration::ZERO, move || runs.store(true, SeqCst))));
    assert!(ran.load(SeqCst));
}

/// TestTimerNondeterminism, TestSleepNondeterminism.
#[test]
fn st_11_what_is_due_at_one_time_comes_in_any_order() {
    fn both_orders(what: &str, race: impl Fn(&Arc<StdMutex<Vec<u32>>>) + Send + 'static) {
        const TRIES: usize = 400;
        let mut firsts = [0; 2];
        for _ in 0..TRIES {
            let order = Arc::new(StdMutex::new(Vec::new()));
            race(&order);
            synctest::sleep(2 * SECOND);
            let order = order.lock().unwrap();
            assert_eq!(order.len(), 2, "{what}");
            firsts[order[0] as usize] += 1;
        }
        // Half of them each; seven standard deviations from that.
        assert!(firsts.into_iter().min() >= Some(TRIES / 2 - 70), "{what}: {firsts:?}");
    }

    synctest::test(|| {
        let sleeper = |order: &Arc<StdMutex<Vec<u32>>>, n| {
            let order = order.clone();
            go(move || {
                time::sleep(SECOND);
                order.lock().unwrap().push(n);
            });
        };
        let alarm = |order: &Arc<StdMutex<Vec<u32>>>, n| {
            let order = order.clone();
            time::after_func(SECOND, move || order.lock().unwrap().push(n));
        };
        both_orders("sleepers", move |order| (0..2).for_each(|n| sleeper(order, n)));
        both_orders("functions", move |order| (0..2).for_each(|n| alarm(order, n)));
        both_orders("a sleeper and a function", move |order| {
            sleeper(order, 0);
            synctest::wait();
            alarm(order, 1);
        });
    });
}

/// TestTimeAfter.
#[test]
fn st_12_functions_of_timers_are_part_of_it_and_so_is_what_they_start() {
    synctest::test(|| {
        let (tx, rx) = unbuffered();
        let begin = time::now();
        time::after_func(HOUR, move || {
            time::after_func(HOUR, move || {
                go(move || {
                    time::sleep(HOUR);
                    tx.send(time::now()).unwrap();
                });
            });
        });
        assert_eq!(rx.recv().unwrap() - begin, 3 * HOUR);
        // A context's function likewise.
        let (tx, rx) = unbuffered();
        let (ctx, _keep) = Context::background().with_timeout(HOUR);
        ctx.after_func(move || {
            time::sleep(HOUR);
            tx.send(time::now()).unwrap();
        });
        assert_eq!(rx.recv().unwrap() - begin, 5 * HOUR);
    });
}

#[test]
fn st_12_functions_can_be_taken_back_from_anywhere() {
    synctest::test(|| {
        let here = time::after_func(HOUR, || unreachable!());
        assert!(here.stop() && !here.stop());
        let there = time::after_func(HOUR, || unreachable!());
        assert!(blocking(|| there.stop()) && !there.stop());
        let ran = time::after_func(HOUR, || ());
        time::sleep(2 * HOUR);
        assert!(!ran.stop());
    });
    // And when their bubble is gone.
    let left = synctest::test(|| time::after_func(HOUR, || unreachable!()));
    assert!(!left.stop());
}

#[test]
fn st_14_bubbles_are_not_nested_but_run_side_by_side() {
    let text = told(|| synctest::test(|| ()));
    assert!(text.contains("inside of a bubble"), "{text}");
    thread::scope(|s| {
        for hours in 1..=4 {
            s.spawn(move || {
                for _ in 0..20 {
                    synctest::test(move || assert_eq!(taken(|| time::sleep(hours * HOUR)), hours * HOUR));
                }
            });
        }
    });
    // From goroutines, which are parked meanwhile.
    let runtime = Runtime::builder().workers(1).build().unwrap();
    runtime.run(|| {
        let bubbles = WaitGroup::new();
        for _ in 0..4 {
            bubbles.go(|| assert_eq!(synctest::test(|| taken(|| time::sleep(HOUR))), HOUR));
        }
        bubbles.wait();
    });
}

#[test]
fn st_15_sleep_is_over_when_all_that_is_due_has_happened() {
    synctest::test(|| {
        for _ in 0..100 {
            let done = Arc::new(AtomicU32::new(0));
            for _ in 0..3 {
                let done = done.clone();
                go(move || {
                    time::sleep(SECOND);
                    done.fetch_add(1, SeqCst);
                });
            }
            assert_eq!(taken(|| synctest::sleep(SECOND)), SECOND);
            assert_eq!(done.load(SeqCst), 3);
        }
    });
}

/// TestHappensBefore.
#[test]
fn hb_16_waits_come_after_what_they_wait_for() {
    synctest::test(|| {
        let count = common::Plain::shared();
        for n in 0..10 {
            let counted = count.clone();
            match n % 2 {
                0 => drop(go(move || counted.set(counted.get() + 1))),
                _ => drop(time::after_func(Duration::ZERO, move || counted.set(counted.get() + 1))),
            }
            synctest::wait();
            assert_eq!(count.get(), n + 1);
        }
    });
}

/// A server with time-outs, a client with retries and back-off, over pipes in memory: a day of it in no time.
#[test]
fn st_02_a_day_of_a_service_with_time_limits() {
    synctest::test(|| {
        let served = Arc::new(AtomicU32::new(0));
        let (connections, accepted) = unbuffered::<net::PipeStream>();
        let (ctx, stop) = Context::background().with_cancel();
        let counted = served.clone();
        let server = go(move || {
            let handlers = WaitGroup::new();
            while let Ok(mut connection) = accepted.recv_ctx(&ctx) {
                let counted = counted.clone();
                handlers.go(move || {
                    let mut request = [0; 4];
                    loop {
                        connection.set_read_deadline(Some(time::now() + 60 * SECOND)).unwrap();
                        if connection.read_exact(&mut request).is_err() {
                            return;
                        }
                        counted.fetch_add(1, Relaxed);
                        time::sleep(SECOND);
                        if connection.write_all(&request).is_err() {
                            return;
                        }
                    }
                });
            }
            handlers.wait();
        });
        let begin = time::now();
        for _ in 0..24 {
            let (mut near, far) = net::pipe();
            connections.send(far).unwrap();
            for _ in 0..10 {
                near.write_all(b"ping").unwrap();
                near.read_exact(&mut [0; 4]).unwrap();
                time::sleep(30 * SECOND);
            }
            // The server gives up after a minute of silence.
            time::sleep(HOUR - 310 * SECOND);
            assert_eq!(near.read(&mut [0]).unwrap(), 0);
        }
        assert_eq!(time::now() - begin, 24 * HOUR);
        stop.cancel();
        server.join().unwrap();
        assert_eq!(served.load(Relaxed), 240);
    });
}

/// Their threads and descriptors are used again. In a process of its own, since other tests open sockets meanwhile.
#[test]
fn st_09_bubbles_leave_nothing_behind() {
    const NAME: &str = "st_09_bubbles_leave_nothing_behind";
    if !is_child(NAME) {
        let output = child(NAME);
        assert!(output.status.success(), "{}", stderr(&output));
        return;
    }
    let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    synctest::test(|| time::sleep(SECOND));
    let (threads, descriptors) = (count("task"), count("fd"));
    for _ in 0..200 {
        synctest::test(|| {
            let tasks = WaitGroup::new();
            (1..=3).for_each(|n| tasks.go(move || time::sleep(n * SECOND)));
            tasks.wait();
        });
    }
    // A few threads of ours start at their first use.
    assert!(count("task") < threads + 50, "threads are left");
    assert!(count("fd") < descriptors + 50, "descriptors are left");
}

/// A million seconds in which a thousand goroutines sleep and wake, against a naive twin: each wakes exactly when it is to, in order of time.
#[test]
fn st_02_random_sleeps_agree_with_a_sorted_list() {
    let seed = std::env::var("OXIGO_SEED")
        .map_or_else(|_| RandomState::new().hash_one("sleeps"), |seed| seed.parse().expect("a number"));
    println!("OXIGO_SEED={seed}");
    synctest::test(move || {
        let mut state = seed | 1;
        let mut random = move || {
            // Marsaglia's xorshift.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let begin = time::now();
        let mut due: Vec<u64> = (0..1_000).map(|_| random() % 1_000_000_000_000_000).collect();
        let (woken, wakes) = bounded(due.len());
        for &nanos in &due {
            let woken = woken.clone();
            go(move || {
                time::sleep(Duration::from_nanos(nanos));
                woken.send((time::now() - begin).as_nanos() as u64).unwrap();
            });
        }
        drop(woken);
        let seen: Vec<u64> = wakes.iter().collect();
        due.sort_unstable();
        assert!(seen == due, "OXIGO_SEED={seed}");
    });
}

/// The conductor dropped what never comes due itself, and waited for a time that only it could have moved: the test hung.
#[test]
fn st_07_a_drop_that_waits_for_a_time_that_never_comes_is_told_of() {
    struct Sleeps;
    impl Drop for Sleeps {
        fn drop(&mut self) {
            time::sleep(SECOND);
        }
    }
    let text = told(|| {
        let late = Sleeps;
        time::after_func(HOUR, move || drop(late));
    });
    assert!(text.contains("others wait for ever") && text.contains("sleep"), "{text}");
}

/// Time does not move on past a wait for a future, so a bubble may stay there for ever. A dump tells why the others wait.
#[test]
fn a_dump_tells_that_time_stands_still() {
    const WORDS: &str = "time stands still in this bubble";
    let (sent, wakers) = mpsc::channel::<Waker>();
    let woken = Arc::new(AtomicBool::new(false));
    let told = woken.clone();
    let bubble = thread::spawn(move || {
        synctest::test(move || {
            let sleeps = go(|| time::sleep(HOUR));
            block_on(poll_fn(|cx| {
                if told.load(SeqCst) {
                    return Poll::Ready(());
                }
                sent.send(cx.waker().clone()).unwrap();
                Poll::Pending
            }));
            sleeps.join().unwrap();
        });
    });
    let waker = wakers.recv().unwrap();
    let dump = || {
        let mut text = Vec::new();
        debug::dump(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    };
    let begin = Instant::now();
    while !dump().contains(WORDS) {
        assert!(begin.elapsed() < Duration::from_secs(20), "{}", dump());
        thread::yield_now();
    }
    woken.store(true, SeqCst);
    waker.wake();
    bubble.join().unwrap();
}
