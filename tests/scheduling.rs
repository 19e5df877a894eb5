//! Group S: progress and fairness. Where goroutines start is in `placement.rs`.

mod common;

use std::{
    io::{self, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use common::{at_1_2_4, compute, lets_others_run, rt};
use oxigo::{
    Builder, WaitGroup, bounded,
    context::Context,
    go,
    net::{
        TcpListener, TcpStream, UdpSocket, lookup_host, lookup_host_ctx,
        unix::{UnixDatagram, UnixStream},
    },
    select,
    sync::{Barrier, Condvar, ErrGroup, Mutex, MutexCtx, Once, OnceLock, RwLock, RwLockCtx, Semaphore, SingleFlight},
    time, unbounded, unbuffered, yield_now,
};

/// Go's TestGoroutineParallelism: as many as there are workers make progress at once, by turns that nobody yields in.
fn take_turns(parties: u32) {
    let turn = Arc::new(AtomicU32::new(0));
    let handles: Vec<_> = (0..parties)
        .map(|me| {
            let turn = Arc::clone(&turn);
            go(move || {
                for round in 0..10 {
                    while turn.load(SeqCst) != round * parties + me {
                        std::hint::spin_loop();
                    }
                    turn.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    handles.into_iter().for_each(|handle| handle.join().unwrap());
}

#[test]
fn s_01_spinning_goroutines_progress_at_once() {
    rt(2, || {
        for _ in 0..20 {
            // Two parties on two workers: the main goroutine waits and needs none.
            take_turns(2);
        }
    });
}

#[test]
fn s_02_also_nested_after_idleness_and_with_a_poller() {
    rt(2, || {
        let _listener = oxigo::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for _ in 0..5 {
            go(|| go(|| take_turns(2)).join().unwrap()).join().unwrap();
            time::sleep(Duration::from_millis(2));
        }
    });
}

/// S-03 and Go's TestSchedLocalQueueEmpty: a wake that comes at any moment of falling asleep is not lost.
#[test]
fn s_03_no_wake_is_lost_on_the_way_to_sleep() {
    for workers in [1, 2, 4] {
        let (tx, rx) = bounded::<u32>(1);
        let (back, answers) = bounded::<u32>(1);
        let runtime = oxigo::Runtime::builder().workers(workers).build().unwrap();
        let echo = runtime.go(move || rx.iter().for_each(|v| back.send(v).unwrap()));
        let mut pause = 0_u32;
        for i in 0..3000 {
            // A plain thread wakes workers at ever other distances from their last work.
            pause = (pause * 5 + 7) % 400;
            (0..pause * 20).for_each(|_| std::hint::spin_loop());
            tx.send(i).unwrap();
            assert_eq!(answers.recv_timeout(Duration::from_secs(30)), Ok(i), "a wake was lost");
        }
        drop(tx);
        echo.join().unwrap();
    }
}

#[test]
fn s_04_every_closure_runs_exactly_once() {
    rt(4, || {
        let runs: Arc<Vec<AtomicU32>> = Arc::new((0..20_000).map(|_| AtomicU32::new(0)).collect());
        let group = WaitGroup::new();
        for i in 0..runs.len() {
            let runs = Arc::clone(&runs);
            group.go(move || {
                runs[i].fetch_add(1, SeqCst);
            });
        }
        group.wait();
        assert!(runs.iter().all(|n| n.load(SeqCst) == 1));
    });
}

/// Go's TestYieldProgress.
#[test]
fn s_06_a_loop_that_yields_sees_what_others_send() {
    at_1_2_4(|| {
        let (tx, rx) = bounded(1);
        go(move || tx.send(1).unwrap());
        while rx.try_recv().is_err() {
            oxigo::yield_now();
        }
    });
}

/// Calls that might have waited, but fail at once for a limit that has passed or for want of a peer, spend their caller's slice as others do:
/// a loop that just tries again held its worker for ever.
#[test]
fn s_06_calls_that_fail_at_once_let_others_run() {
    fn lets_others_run<T>(what: &str, call: impl Fn() -> io::Result<T>) {
        common::lets_others_run(what, || assert!(call().is_err(), "{what}"));
    }
    rt(1, || {
        let past = Some(Instant::now());
        let (ended, cancel) = Context::background().with_cancel();
        cancel.cancel();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let near = TcpStream::connect(address).unwrap();
        lets_others_run("a read with a context", || near.with_ctx(&ended).read(&mut [0]));
        lets_others_run("a write with a context", || near.with_ctx(&ended).write(&[0]));
        lets_others_run("a connect with a context", || TcpStream::connect_ctx(address, &ended));
        lets_others_run("a look-up with a context", || lookup_host_ctx("localhost:1", &ended));
        near.set_read_deadline(past).unwrap();
        near.set_write_deadline(past).unwrap();
        listener.set_deadline(past).unwrap();
        lets_others_run("a read", || (&near).read(&mut [0]));
        lets_others_run("a write", || (&near).write(&[0]));
        lets_others_run("a wait for bytes", || near.readable());
        lets_others_run("an accept", || listener.accept());
        listener.set_deadline(None).unwrap();
        listener.close().unwrap();
        lets_others_run("an accept after the close", || listener.accept());
        lets_others_run("a connect that is refused", || TcpStream::connect(address));
        let (one, other) = UnixDatagram::pair().unwrap();
        one.set_read_deadline(past).unwrap();
        lets_others_run("a receive", || one.recv(&mut [0]));
        lets_others_run("a send to nobody", || other.send_to(&[0], "/nobody/is/here"));
        lets_others_run("a connect to nobody", || UnixStream::connect("/nobody/is/here"));
        let (one, _other) = oxigo::net::pipe();
        one.set_read_deadline(past).unwrap();
        one.set_write_deadline(past).unwrap();
        lets_others_run("a read in memory", || (&one).read(&mut [0]));
        lets_others_run("a write in memory", || (&one).write(&[0]));
        let (reader, _writer) = oxigo::io::pipe().unwrap();
        reader.close().unwrap();
        lets_others_run("a read of a closed pipe", || (&reader).read(&mut [0]));
    });
}

/// Go parks where these return at once, or its clock takes the processor away.
#[test]
fn s_06_sleeps_that_are_over_let_others_run() {
    rt(1, || {
        let begin = Instant::now();
        lets_others_run("a sleep of nothing", || time::sleep(Duration::ZERO));
        lets_others_run("a sleep of a nanosecond", || time::sleep(Duration::from_nanos(1)));
        lets_others_run("a sleep of ten nanoseconds", || time::sleep(Duration::from_nanos(10)));
        lets_others_run("a sleep until what is over", || time::sleep_until(begin));
    });
}

/// Waits for what is there already, or for no time.
#[test]
fn s_06_waits_that_are_over_let_others_run() {
    rt(1, || {
        const NONE: Duration = Duration::ZERO;
        let begin = Instant::now();
        let (ended, cancel) = Context::background().with_cancel();
        cancel.cancel();

        let mutex = Mutex::new(());
        lets_others_run("a mutex that is free", || drop(mutex.lock()));
        lets_others_run("a mutex with a context", || assert!(mutex.lock_ctx(&ended).is_err()));
        let held = mutex.lock();
        lets_others_run("a mutex that is held, with a limit", || assert!(mutex.try_lock_for(NONE).is_none()));
        lets_others_run("a mutex that is held, with a deadline", || assert!(mutex.try_lock_until(begin).is_none()));
        drop(held);

        let lock = RwLock::new(());
        lets_others_run("a read lock", || drop(lock.read()));
        lets_others_run("a recursive read lock", || drop(lock.read_recursive()));
        lets_others_run("an upgradable read lock", || drop(lock.upgradable_read()));
        lets_others_run("a write lock", || drop(lock.write()));
        lets_others_run("a read lock with a context", || assert!(lock.read_ctx(&ended).is_err()));
        lets_others_run("an upgradable lock with a context", || assert!(lock.upgradable_read_ctx(&ended).is_err()));
        lets_others_run("a write lock with a context", || assert!(lock.write_ctx(&ended).is_err()));
        let held = lock.write();
        lets_others_run("a read lock with a limit", || assert!(lock.try_read_for(NONE).is_none()));
        lets_others_run("a write lock with a limit", || assert!(lock.try_write_for(NONE).is_none()));
        drop(held);

        let semaphore = Arc::new(Semaphore::new(1));
        lets_others_run("a permit that is free", || drop(semaphore.acquire(1)));
        lets_others_run("an owned permit", || drop(semaphore.acquire_owned(1)));
        lets_others_run("a permit with a context", || assert!(semaphore.acquire_ctx(1, &ended).is_err()));
        lets_others_run("an owned permit with a context", || assert!(semaphore.acquire_owned_ctx(1, &ended).is_err()));
        let taken = semaphore.acquire(1);
        lets_others_run("a permit with a limit", || assert!(semaphore.acquire_timeout(1, NONE).is_none()));
        drop(taken);

        let group = WaitGroup::new();
        lets_others_run("a group of nobody", || group.wait());
        lets_others_run("a group of nobody, with a context", || assert!(group.wait_ctx(&ended).is_err()));
        group.add(1);
        lets_others_run("a group with a limit", || assert!(!group.wait_timeout(NONE)));
        group.done();
        lets_others_run("a group of fallible tasks", || ErrGroup::<()>::new().wait().unwrap());

        let barrier = Barrier::new(1);
        lets_others_run("a barrier", || assert!(barrier.wait().is_leader()));

        let once = Once::new();
        once.call_once(|| {});
        lets_others_run("a run that is over", || once.wait());
        lets_others_run("a run that is over, whatever came of it", || once.wait_force());
        let value = OnceLock::new();
        lets_others_run("a value that is missing", || assert!(value.wait_timeout(NONE).is_none()));
        value.set(1).unwrap();
        lets_others_run("a value that is there", || assert_eq!(*value.wait(), 1));
        lets_others_run("a value that is there, with a limit", || assert!(value.wait_timeout(NONE).is_some()));

        let (changed, mut held) = (Condvar::new(), mutex.lock());
        lets_others_run("a change with a limit", || assert!(changed.wait_for(&mut held, NONE).timed_out()));
        lets_others_run("a change with a deadline", || assert!(changed.wait_until(&mut held, begin).timed_out()));
        lets_others_run("a condition with a limit", || {
            assert!(changed.wait_while_for(&mut held, |()| true, NONE).timed_out());
        });
        lets_others_run("a change with a context", || assert!(changed.wait_ctx(&mut held, &ended).is_err()));
        drop(held);
        // The mutex is given up meanwhile, as it is by a wait.
        let other = Arc::new(Mutex::new(false));
        let shared = Arc::clone(&other);
        let sets = go(move || *shared.lock() = true);
        let mut set = other.lock();
        let started = Instant::now();
        while !*set {
            assert!(changed.wait_while_ctx(&mut set, |set| !*set, &ended).is_err() || *set);
            assert!(started.elapsed() < Duration::from_secs(30), "the mutex stays held");
        }
        sets.join().unwrap();

        let flights = SingleFlight::new();
        lets_others_run("a flight of one", || assert_eq!(flights.work("key", || 1), (1, false)));
    });
}

/// Sockets that are ready, or at their end.
#[test]
fn s_06_sockets_that_do_not_wait_let_others_run() {
    rt(1, || {
        let (near, far) = UnixStream::pair().unwrap();
        lets_others_run("a read of no bytes", || assert_eq!((&near).read(&mut []).unwrap(), 0));
        lets_others_run("reads of no bytes", || assert_eq!((&near).read_vectored(&mut []).unwrap(), 0));
        lets_others_run("a write of no bytes", || assert_eq!((&near).write(&[]).unwrap(), 0));
        (&far).write_all(&[1]).unwrap();
        lets_others_run("a look at what is there", || assert_eq!(near.peek(&mut [0]).unwrap(), 1));
        lets_others_run("a wait for what is there", || near.readable().unwrap());
        lets_others_run("a wait for room that is there", || near.writable().unwrap());
        drop(far);
        (&near).read_exact(&mut [0]).unwrap();
        lets_others_run("a read at the end", || assert_eq!((&near).read(&mut [0]).unwrap(), 0));
        lets_others_run("a write to nobody", || assert!((&near).write(&[1]).is_err()));
        let (near, far) = oxigo::net::pipe();
        lets_others_run("a read of no bytes in memory", || assert_eq!((&near).read(&mut []).unwrap(), 0));
        lets_others_run("a write of no bytes in memory", || assert_eq!((&near).write(&[]).unwrap(), 0));
        drop(far);
        lets_others_run("a read at the end in memory", || assert_eq!((&near).read(&mut [0]).unwrap(), 0));
        lets_others_run("a write to nobody in memory", || assert!((&near).write(&[1]).is_err()));
        let packets = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = packets.local_addr().unwrap();
        lets_others_run("a packet", || assert_eq!(packets.send_to(&[1], address).unwrap(), 1));
        lets_others_run("a look-up of an address", || assert_eq!(lookup_host("127.0.0.1:1").unwrap().count(), 1));
    });
}

/// P4: what only tries, and what lets go, never gives way.
#[test]
fn s_06_tries_and_unlocks_do_not_give_way() {
    rt(1, || {
        let (mutex, lock, semaphore, group) = (Mutex::new(()), RwLock::new(()), Semaphore::new(1), WaitGroup::new());
        let (changed, value) = (Condvar::new(), OnceLock::new());
        let (tx, rx) = bounded(1);
        // The first one could have waited, so it may give way: on a slow machine the slice is over by then.
        value.set(0).unwrap();
        let ran = Arc::new(AtomicBool::new(false));
        let other = Arc::clone(&ran);
        let other = go(move || other.store(true, SeqCst));
        for i in 0..100_000 {
            drop(mutex.try_lock().unwrap());
            drop(lock.try_read().unwrap());
            drop(lock.try_write().unwrap());
            drop(semaphore.try_acquire(1).unwrap());
            group.add(1);
            group.done();
            changed.notify_all();
            let _ = (value.set(i), value.get());
            tx.try_send(i).unwrap();
            assert_eq!(rx.try_recv(), Ok(i));
        }
        assert!(!ran.load(SeqCst), "something gave way");
        other.join().unwrap();
    });
}

/// S-07: there is no preemption. The documented fallback: a goroutine that computes holds its own worker, and the others' goroutines go
/// on.
#[test]
fn s_07_a_hog_holds_only_its_own_worker() {
    rt(2, || {
        // `spread` is a hint: now and then the hog begins on the main goroutine's own worker, and then it gives up at once.
        for _ in 0..100 {
            let stop = Arc::new(AtomicBool::new(false));
            let flag = Arc::clone(&stop);
            let (started, is_started) = unbuffered();
            let main = thread::current().id();
            let hog = Builder::new()
                .spread()
                .spawn(move || {
                    let apart = thread::current().id() != main;
                    started.send(apart).unwrap();
                    while apart && !flag.load(SeqCst) {
                        std::hint::spin_loop();
                    }
                })
                .unwrap();
            if !is_started.recv().unwrap() {
                continue;
            }
            let handles: Vec<_> = (0..100_u64).map(|i| go(move || (0..i).sum::<u64>())).collect();
            for handle in handles {
                handle.join().unwrap();
            }
            stop.store(true, SeqCst);
            return hog.join().unwrap();
        }
        panic!("the hint was never followed");
    });
}

/// Go's TestPingPongHog: two heavy partners do not starve two light ones.
#[test]
fn s_08_a_heavy_pair_does_not_starve_a_light_one() {
    fn pair(limit: u64, counter: &Arc<AtomicU64>, done: &oxigo::Receiver<()>) -> oxigo::Sender<bool> {
        let (wake, woken) = unbuffered::<bool>();
        for _ in 0..2 {
            let (counter, done, wake, woken) = (Arc::clone(counter), done.clone(), wake.clone(), woken.clone());
            go(move || {
                loop {
                    select! {
                        recv(done) -> _ => return,
                        recv(woken) -> _ => {
                            for _ in 0..limit {
                                std::hint::black_box(counter.fetch_add(1, SeqCst));
                            }
                            select! {
                                send(wake, true) -> _ => {}
                                recv(done) -> _ => return,
                            }
                        }
                    }
                }
            });
        }
        wake
    }
    // In a debug build `select!` itself is most of a light step.
    let light_work = if cfg!(debug_assertions) { 1_000 } else { 100 };
    let ratio = |_| {
        rt(1, || {
            let (stop, done) = unbuffered::<()>();
            let (heavy, light) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
            let (wake_heavy, wake_light) = (pair(100_000, &heavy, &done), pair(light_work, &light, &done));
            wake_heavy.send(true).unwrap();
            wake_light.send(true).unwrap();
            time::sleep(Duration::from_millis(300));
            drop(stop);
            let (heavy, light) = (heavy.load(SeqCst) as f64, light.load(SeqCst) as f64);
            (heavy / light).max(light / heavy)
        })
    };
    // Machines are noisy: the best of a few counts.
    let best = (0..4).map(ratio).fold(f64::INFINITY, f64::min);
    assert!(best < 20.0, "a factor of {best}");
}

/// How many turns of eight goroutines that compute on the only worker go by before one runs that another thread has woken: many times, in order.
fn turns_before_who_is_woken() -> Vec<u64> {
    const COMPUTE: u64 = 8;
    const WAKES: usize = 50;
    rt(1, || {
        let (turns, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let computing: Vec<_> = (0..COMPUTE)
            .map(|_| {
                let (turns, over) = (Arc::clone(&turns), Arc::clone(&over));
                go(move || {
                    while !over.load(SeqCst) {
                        turns.fetch_add(1, SeqCst);
                        compute(Duration::from_micros(100));
                        yield_now();
                    }
                })
            })
            .collect();
        let (wake, woken) = bounded(1);
        let since = Arc::clone(&turns);
        // At any moment of a turn. The first ones come before it is known who computes.
        let wakes = thread::spawn(move || {
            for _ in 0..2 * WAKES {
                wake.send(since.load(SeqCst)).unwrap();
                let next = since.load(SeqCst) + 2 * COMPUTE + 1;
                while since.load(SeqCst) < next {
                    thread::sleep(Duration::from_micros(50));
                }
            }
        });
        let mut waited: Vec<_> = woken.iter().skip(WAKES).map(|then| turns.load(SeqCst) - then).collect();
        over.store(true, SeqCst);
        computing.into_iter().for_each(|one| one.join().unwrap());
        wakes.join().unwrap();
        waited.sort_unstable();
        waited
    })
}

/// B6: one or two of those that compute, not all of them.
#[test]
fn who_is_woken_does_not_wait_for_all_that_compute() {
    // The other thread may lose its core between its look and its wake.
    let mut found = Vec::new();
    while found.last().is_none_or(|waited: &Vec<u64>| waited[waited.len() / 2] > 2) {
        assert!(found.len() < 10, "turns of those that compute: {found:?}");
        found.push(turns_before_who_is_woken());
    }
}

#[test]
fn s_09_a_pair_that_talks_lets_a_third_run() {
    rt(1, || {
        let (tx, rx) = unbuffered::<u32>();
        let (back, returned) = unbuffered::<u32>();
        go(move || rx.iter().all(|v| back.send(v).is_ok()));
        let ran = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ran);
        let third = go(move || {
            // Started, then put behind the pair.
            oxigo::yield_now();
            flag.store(true, SeqCst);
        });
        let mut rounds = 0;
        while !ran.load(SeqCst) {
            tx.send(rounds).unwrap();
            returned.recv().unwrap();
            rounds += 1;
            assert!(rounds < 1_000_000, "the pair starves the third");
        }
        third.join().unwrap();
    });
}

/// Each turn of the pair is longer than a slice: whoever is woken does not run on what is left of it.
#[test]
fn s_09_a_pair_with_long_turns_lets_a_third_run_after_each() {
    rt(1, || {
        let turns = Arc::new(AtomicU32::new(0));
        let (tx, rx) = unbuffered::<()>();
        let (back, returned) = unbuffered::<()>();
        let turn = |turns: &AtomicU32| {
            compute(Duration::from_millis(5));
            turns.fetch_add(1, SeqCst);
        };
        let count = Arc::clone(&turns);
        let answers = go(move || {
            for () in &rx {
                turn(&count);
                back.send(()).unwrap();
            }
        });
        let (count, over) = (Arc::clone(&turns), Arc::new(AtomicBool::new(false)));
        let is_over = Arc::clone(&over);
        let asks = go(move || {
            while !is_over.load(SeqCst) && count.load(SeqCst) < 1000 {
                turn(&count);
                tx.send(()).unwrap();
                returned.recv().unwrap();
            }
        });
        let mut without = Vec::new();
        while without.len() < 25 && !asks.is_finished() {
            let before = turns.load(SeqCst);
            oxigo::yield_now();
            let passed = turns.load(SeqCst) - before;
            if passed > 0 {
                without.push(passed);
            }
        }
        over.store(true, SeqCst);
        without.sort_unstable();
        // Four at most, but where the clock thread does not get a core either, now and then. A pair that is not interrupted has all thousand.
        assert!(without.len() == 25 && without[12] <= 20, "turns of a pair without the third: {without:?}");
        asks.join().unwrap();
        answers.join().unwrap();
    });
}

/// Who was woken before somebody yielded runs before that one goes on, also when the slice was over by then.
#[test]
fn s_06_a_yield_lets_run_whom_the_caller_has_woken() {
    rt(1, || {
        let (tx, rx) = oxigo::unbounded::<u32>();
        let got = Arc::new(AtomicU32::new(0));
        let set = Arc::clone(&got);
        let receives = go(move || rx.iter().for_each(|value| set.store(value, SeqCst)));
        oxigo::yield_now();
        for value in 1..=20 {
            compute(Duration::from_millis(5));
            tx.send(value).unwrap();
            oxigo::yield_now();
            assert_eq!(got.load(SeqCst), value);
        }
        drop(tx);
        receives.join().unwrap();
    });
}

#[test]
fn s_10_work_from_outside_is_not_starved_by_a_busy_queue() {
    let runtime = oxigo::Runtime::builder().workers(1).build().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let busy: Vec<_> = (0..4)
        .map(|_| {
            let stop = Arc::clone(&stop);
            runtime.go(move || {
                while !stop.load(SeqCst) {
                    oxigo::yield_now();
                }
            })
        })
        .collect();
    for i in 0..50 {
        assert_eq!(runtime.go(move || i).join().unwrap(), i);
    }
    stop.store(true, SeqCst);
    busy.into_iter().for_each(|handle| handle.join().unwrap());
}

/// Closures that are placed with their worker, each of which starts the next one, are always there.
#[test]
fn s_10_work_from_outside_is_not_starved_by_what_is_placed() {
    fn next(left: u32, stop: Arc<AtomicBool>, stopped: oxigo::Sender<bool>) {
        if left == 0 || stop.load(SeqCst) {
            return stopped.send(left > 0).unwrap();
        }
        Builder::new().stack_size(128 << 10).spawn(move || next(left - 1, stop, stopped)).unwrap();
    }
    let runtime = oxigo::Runtime::builder().workers(1).build().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (tx, rx) = unbounded();
    runtime.run(|| {
        next(50_000, Arc::clone(&stop), tx);
        // The worker waits for the thread, and both closures for the worker.
        let from_outside = || drop(runtime.go(move || stop.store(true, SeqCst)));
        thread::scope(|scope| scope.spawn(from_outside).join().unwrap());
    });
    assert!(rx.recv().unwrap(), "a closure from outside has waited for 50,000 others");
}

/// A worker that helps one with more to do, closure by closure, each as long as a tick, runs its own goroutines in between.
#[test]
fn s_08_who_is_ready_does_not_wait_for_what_is_taken_from_others() {
    const TURN: Duration = Duration::from_micros(1500);
    let most = rt(2, || {
        let (stop, between, most) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (tx, rx) = unbounded();
        let (stopped, beside, longest) = (Arc::clone(&stop), Arc::clone(&between), Arc::clone(&most));
        let ready = Builder::new().spread().spawn(move || {
            tx.send(thread::current().id()).unwrap();
            while !stopped.load(SeqCst) {
                longest.fetch_max(beside.swap(0, SeqCst), SeqCst);
                compute(TURN);
                oxigo::yield_now();
            }
        });
        let home = rx.recv().unwrap();
        let me = oxigo::current();
        let busy: Vec<_> = (0..3)
            .map(|_| {
                let stop = Arc::clone(&stop);
                let computes = move || {
                    while !stop.load(SeqCst) {
                        compute(TURN);
                        oxigo::yield_now();
                    }
                };
                Builder::new().near(&me).spawn(computes).unwrap()
            })
            .collect();
        let closures: Vec<_> = (0..100)
            .map(|_| {
                let between = Arc::clone(&between);
                go(move || {
                    between.fetch_add(u32::from(thread::current().id() == home), SeqCst);
                    compute(TURN);
                })
            })
            .collect();
        while !closures.iter().all(|closure| closure.is_finished()) {
            oxigo::yield_now();
        }
        stop.store(true, SeqCst);
        busy.into_iter().chain(ready).for_each(|handle| handle.join().unwrap());
        most.load(SeqCst)
    });
    assert!(most <= 8, "{most} closures between two turns of a goroutine that is ready");
}

/// Workers that are never out of work, one of them less loaded: many closures that have waited start on the worker that has them, since the other
/// one never comes.
#[test]
fn s_10_closures_start_though_every_worker_always_has_somebody_ready() {
    rt(2, || {
        let stop = Arc::new(AtomicBool::new(false));
        let busy = |builder: Builder| {
            let stop = Arc::clone(&stop);
            let yields = move || {
                while !stop.load(SeqCst) {
                    oxigo::yield_now()
                }
            };
            builder.spawn(yields).unwrap()
        };
        let me = oxigo::current();
        let mut all: Vec<_> = (0..4).map(|_| busy(Builder::new().near(&me))).collect();
        all.push(busy(Builder::new().spread()));
        for _ in 0..20 {
            let closures: Vec<_> = (0..50).map(|i| go(move || i)).collect();
            for (i, closure) in closures.into_iter().enumerate() {
                while !closure.is_finished() {
                    oxigo::yield_now();
                }
                assert_eq!(closure.join().unwrap(), i);
            }
        }
        stop.store(true, SeqCst);
        all.into_iter().for_each(|handle| handle.join().unwrap());
    });
}

/// The newest closure comes first; whoever starts one and waits for it, again and again, does not keep the older ones waiting for ever.
#[test]
fn s_10_older_closures_start_beside_one_who_starts_and_joins() {
    rt(1, || {
        const OLDER: usize = 200;
        let started = Arc::new(AtomicUsize::new(0));
        let older: Vec<_> = (0..OLDER)
            .map(|_| {
                let started = Arc::clone(&started);
                go(move || started.fetch_add(1, SeqCst))
            })
            .collect();
        let begin = Instant::now();
        while started.load(SeqCst) < OLDER {
            go(|| ()).join().unwrap();
            assert!(begin.elapsed() < Duration::from_secs(30), "{} of {OLDER} have started", started.load(SeqCst));
        }
        older.into_iter().for_each(|closure| assert!(closure.join().unwrap() < OLDER));
    });
}

/// The same with a single closure and long turns: the less loaded worker comes for it.
#[test]
fn s_10_a_closure_starts_though_turns_are_long_and_nobody_is_ever_out_of_work() {
    rt(2, || {
        let (stop, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let busy = |builder: Builder| {
            let (stop, begun) = (Arc::clone(&stop), Arc::clone(&begun));
            let yields = move || {
                begun.fetch_add(1, SeqCst);
                while !stop.load(SeqCst) {
                    compute(Duration::from_micros(500));
                    oxigo::yield_now()
                }
            };
            builder.spawn(yields).unwrap()
        };
        let me = oxigo::current();
        let mut all: Vec<_> = (0..3).map(|_| busy(Builder::new().near(&me))).collect();
        all.push(busy(Builder::new().spread()));
        while begun.load(SeqCst) < 4 {
            oxigo::yield_now();
        }
        for _ in 0..20 {
            let closure = go(|| ());
            let mut turns = 0;
            while !closure.is_finished() {
                oxigo::yield_now();
                turns += 1;
                // Each is some 1.5 ms.
                assert!(turns < 200, "a closure waits behind those who yield");
            }
            closure.join().unwrap();
        }
        stop.store(true, SeqCst);
        all.into_iter().for_each(|handle| handle.join().unwrap());
    });
}

/// Two closures from a thread while one worker searches and the other sleeps: whoever takes the first, which holds its worker, leaves the
/// second to the sleeper. Likewise when an answer ends the search.
#[test]
fn s_10_what_comes_while_a_worker_searches_is_not_left_beside_a_sleeper() {
    const HELD: Duration = Duration::from_secs(20);
    let runtime = oxigo::Runtime::builder().workers(2).name("test").build().unwrap();
    let pause = || {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_micros(2) {
            std::hint::spin_loop();
        }
    };
    let hold = |done: Arc<AtomicBool>| {
        let begin = Instant::now();
        while !done.load(SeqCst) && begin.elapsed() < HELD {
            std::hint::spin_loop();
        }
        assert!(done.load(SeqCst), "the second closure waits for the first");
    };
    for round in 0..200_u32 {
        // Both fall asleep; then one is at work, and finds that it pays to search.
        thread::sleep(Duration::from_millis(2));
        let (tx, rx) = bounded::<Arc<AtomicBool>>(1);
        let answered = (round % 2 == 1).then(|| runtime.go(move || hold(rx.recv().unwrap())));
        for _ in 0..20 {
            let seen = Arc::new(AtomicBool::new(false));
            let set = Arc::clone(&seen);
            runtime.go(move || set.store(true, SeqCst));
            // Spinning finds the worker while it searches; where there is no core for both, it goes first.
            let spins = Instant::now();
            while !seen.load(SeqCst) {
                if spins.elapsed() > Duration::from_millis(1) {
                    thread::yield_now();
                }
                std::hint::spin_loop();
            }
            pause();
        }
        let done = Arc::new(AtomicBool::new(false));
        let held = Arc::clone(&done);
        let first = match answered {
            None => runtime.go(move || hold(held)),
            Some(first) => {
                tx.send(held).unwrap();
                first
            }
        };
        let set = Arc::clone(&done);
        runtime.go(move || set.store(true, SeqCst));
        first.join().unwrap();
    }
}

/// Go's TestTimerFairness.
#[test]
fn s_11_timers_fire_although_channels_are_always_ready() {
    at_1_2_4(|| {
        let (stop, done) = unbuffered::<()>();
        let (tx, rx) = unbuffered::<u32>();
        for _ in 0..2 {
            let (tx, done) = (tx.clone(), done.clone());
            go(move || {
                loop {
                    select! {
                        send(tx, 1) -> _ => {}
                        recv(done) -> _ => return,
                    }
                }
            });
        }
        let start = Instant::now();
        let timer = oxigo::chan::after(Duration::from_millis(20));
        loop {
            select! {
                recv(rx) -> _ => {}
                recv(timer) -> _ => break,
            }
        }
        assert!(start.elapsed() >= Duration::from_millis(20));
        drop(stop);
    });
}

/// Go's TestAfterFuncStarvation, with a sleeper for the callback.
#[test]
fn s_12_a_sleeper_wakes_while_a_pair_talks_for_ever() {
    rt(1, || {
        let (tx, rx) = unbuffered::<u32>();
        let (back, returned) = unbuffered::<u32>();
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        go(move || rx.iter().all(|v| back.send(v).is_ok()));
        let talks = go(move || {
            while !flag.load(SeqCst) {
                tx.send(1).unwrap();
                returned.recv().unwrap();
            }
        });
        time::sleep(Duration::from_millis(10));
        stop.store(true, SeqCst);
        talks.join().unwrap();
    });
}

#[test]
fn s_13_a_blocking_call_does_not_hold_the_worker() {
    rt(1, || {
        let (tx, rx) = std::sync::mpsc::channel::<()>();
        let blocked = go(move || oxigo::blocking(move || rx.recv().is_ok()));
        let others: Vec<_> = (0..100).map(|i| go(move || i)).collect();
        for other in others {
            other.join().unwrap();
        }
        tx.send(()).unwrap();
        assert!(blocked.join().unwrap());
    });
}

/// Go's TestPreemptionAfterSyscall, with the pool for the system calls.
#[test]
fn s_14_many_short_blocking_calls_on_two_workers() {
    rt(2, || {
        let handles: Vec<_> = (0..8)
            .map(|i| {
                go(move || {
                    for _ in 0..50 {
                        oxigo::blocking(|| thread::sleep(Duration::from_micros(10 * (i + 1))));
                    }
                })
            })
            .collect();
        handles.into_iter().for_each(|handle| handle.join().unwrap());
    });
}

/// Go's TestNetpollBreak: a wait in the poller is cut short by new work and by a nearer deadline.
#[test]
fn s_15_a_sleeping_worker_gets_up_for_new_work() {
    let runtime = oxigo::Runtime::builder().workers(2).build().unwrap();
    let far = runtime.go(|| oxigo::park_timeout(Duration::from_secs(600)));
    thread::sleep(Duration::from_millis(20));
    let start = Instant::now();
    runtime.go(|| time::sleep(Duration::from_millis(1))).join().unwrap();
    assert!(start.elapsed() < Duration::from_secs(60));
    far.goroutine().unpark();
    far.join().unwrap();
}

#[test]
fn s_16_sockets_are_polled_while_workers_are_busy() {
    use std::io::{Read, Write};
    rt(2, || {
        let stop = Arc::new(AtomicBool::new(false));
        for _ in 0..4 {
            let stop = Arc::clone(&stop);
            go(move || {
                while !stop.load(SeqCst) {
                    oxigo::yield_now();
                }
            });
        }
        let listener = oxigo::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = go(move || {
            let (mut peer, _) = listener.accept().unwrap();
            let mut byte = [0];
            while peer.read(&mut byte).unwrap() == 1 {
                peer.write_all(&byte).unwrap();
            }
        });
        let mut client = oxigo::net::TcpStream::connect(address).unwrap();
        for _ in 0..20 {
            client.write_all(&[1]).unwrap();
            client.read_exact(&mut [0]).unwrap();
        }
        drop(client);
        server.join().unwrap();
        stop.store(true, SeqCst);
    });
}

#[test]
fn s_19_one_close_wakes_ten_thousand() {
    at_1_2_4(|| {
        let (tx, rx) = unbuffered::<()>();
        let handles: Vec<_> = (0..10_000)
            .map(|_| {
                let rx = rx.clone();
                go(move || rx.recv().is_err())
            })
            .collect();
        tx.close().unwrap();
        assert!(handles.into_iter().all(|handle| handle.join().unwrap()));
    });
}

/// Runtimes share their stacks. Those that idle workers of one keep for themselves must not be missing in another: its closures waited
/// for ever, and its timers with them.
#[test]
fn g_01_many_runtimes_at_once_have_stacks_for_all() {
    let runtimes: Vec<_> = (0..12).map(|_| oxigo::Runtime::builder().workers(2).build().unwrap()).collect();
    for runtime in &runtimes {
        let handles: Vec<_> = (0..20).map(|n| runtime.go(move || n)).collect();
        (0..20).zip(handles).for_each(|(n, handle)| assert_eq!(handle.join().unwrap(), n));
    }
}
