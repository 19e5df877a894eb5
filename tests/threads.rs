//! Channels, select, locks, timers and contexts under stress from plain threads only: what `ci/sanitizers` runs under AddressSanitizer and
//! ThreadSanitizer. No goroutine starts here.

mod common;

use std::{
    cell::RefCell,
    env,
    future::poll_fn,
    io::{Read, Write},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    task::{Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use common::Plain;
use oxigo::{
    Chan, Receiver, Sender, WaitGroup, bounded,
    chan::{RecvTimeoutError, Select, SendTimeoutError, never},
    context::Context,
    future::{block_on, block_on_ctx, block_on_timeout},
    net, select,
    sync::{Barrier, Condvar, LazyLock, Mutex, MutexCtx, Once, OnceLock, RwLock, Semaphore, SingleFlight},
    time::{Ticker, Timer},
    unbounded,
};

/// Rounds of a test that is long enough for the sanitizers and short enough for every day.
const ROUNDS: usize = if cfg!(miri) { 12 } else { 300 };

/// Threads that are joined by the system's own call before the scope ends: ThreadSanitizer knows that call, and not the wait of
/// `std::thread::scope`, since the standard library is not instrumented.
struct Crew<'scope, 'env> {
    threads: &'scope thread::Scope<'scope, 'env>,
    handles: RefCell<Vec<thread::ScopedJoinHandle<'scope, ()>>>,
}

impl<'scope> Crew<'scope, '_> {
    fn spawn(&self, f: impl FnOnce() + Send + 'scope) {
        self.handles.borrow_mut().push(self.threads.spawn(f));
    }
}

fn scope<'env, T>(f: impl for<'scope> FnOnce(&Crew<'scope, 'env>) -> T) -> T {
    thread::scope(|threads| {
        let crew = Crew { threads, handles: RefCell::default() };
        let value = f(&crew);
        crew.handles.take().into_iter().for_each(|handle| handle.join().unwrap());
        value
    })
}

fn kinds<T>() -> [(Sender<T>, Receiver<T>); 4] {
    [bounded(0), bounded(1), bounded(16), unbounded()]
}

#[test]
fn cu_04_every_value_is_received_once() {
    for (tx, rx) in kinds() {
        let mut all = scope(|s| {
            for party in 0..3 {
                let tx = tx.clone();
                s.spawn(move || (0..ROUNDS).for_each(|n| tx.send(Box::new(party * ROUNDS + n)).unwrap()));
            }
            drop(tx);
            let receivers = [0, 1, 2].map(|kind| {
                let rx = rx.clone();
                s.threads.spawn(move || match kind {
                    0 => rx.iter().map(|value| *value).collect::<Vec<usize>>(),
                    1 => std::iter::from_fn(|| {
                        select! {
                            recv(rx) -> value => value.ok(),
                            recv(never::<()>()) -> _ => None,
                        }
                    })
                    .map(|value| *value)
                    .collect(),
                    _ => {
                        let mut values = Vec::new();
                        loop {
                            match rx.recv_timeout(Duration::from_micros(10)) {
                                Ok(value) => values.push(*value),
                                Err(RecvTimeoutError::Timeout) => {}
                                Err(RecvTimeoutError::Disconnected) => return values,
                            }
                        }
                    }
                })
            });
            receivers.map(|receiver| receiver.join().unwrap()).concat()
        });
        all.sort_unstable();
        assert!(all.into_iter().eq(0..3 * ROUNDS));
    }
}

#[test]
fn hb_02_a_send_comes_before_its_receive() {
    for (tx, rx) in kinds() {
        let data: Vec<Plain> = (0..ROUNDS).map(|_| Plain::default()).collect();
        let data = &data;
        scope(|s| {
            s.spawn(move || {
                for (n, place) in data.iter().enumerate() {
                    place.set(n + 1);
                    tx.send(n).unwrap();
                }
            });
            for n in rx {
                assert_eq!(data[n].get(), n + 1);
                data[n].set(0);
            }
        });
    }
}

#[test]
fn hb_03_a_close_comes_before_the_receives_that_it_ends() {
    for round in 0..ROUNDS {
        let data = Plain::default();
        let (tx, rx) = bounded::<()>(round % 2);
        scope(|s| {
            s.spawn(|| {
                assert!(rx.recv().is_err());
                assert_eq!(data.get(), 1);
            });
            let data = &data;
            s.spawn(move || {
                data.set(1);
                if round % 3 == 0 { drop(tx) } else { tx.close().unwrap() }
            });
        });
    }
}

#[test]
fn hb_04_an_unbuffered_receive_comes_before_the_end_of_its_send() {
    let data = Plain::default();
    let (tx, rx) = bounded(0);
    let (turn, next) = bounded(0);
    scope(|s| {
        s.spawn(|| {
            for n in 1..=ROUNDS {
                data.set(n);
                rx.recv().unwrap();
                next.recv().unwrap();
            }
        });
        for n in 1..=ROUNDS {
            tx.send(()).unwrap();
            assert_eq!(data.get(), n);
            turn.send(()).unwrap();
        }
    });
}

#[test]
fn hb_05_a_receive_comes_before_the_send_that_takes_its_place() {
    let data = Plain::default();
    let semaphore = Chan::bounded(1);
    scope(|s| {
        for _ in 0..3 {
            s.spawn(|| {
                for _ in 0..ROUNDS {
                    semaphore.send(()).unwrap();
                    data.set(data.get() + 1);
                    semaphore.recv().unwrap();
                }
            });
        }
    });
    assert_eq!(data.get(), 3 * ROUNDS);
}

/// Time limits that end just when a partner comes: the value is delivered or comes back, never both, never neither.
#[test]
fn time_limits_race_with_partners() {
    let (tx, rx) = bounded(0);
    let (sent, received) = (AtomicUsize::new(0), AtomicUsize::new(0));
    scope(|s| {
        for party in 0..2 {
            let (tx, rx, sent, received) = (tx.clone(), rx.clone(), &sent, &received);
            s.spawn(move || {
                for n in 0..ROUNDS {
                    match tx.send_timeout(Box::new(n), Duration::from_micros((n % 7) as u64 * 10)) {
                        Ok(()) => {
                            sent.fetch_add(n, Relaxed);
                        }
                        Err(SendTimeoutError::Timeout(value)) => assert_eq!(*value, n),
                        // The receivers have done all their rounds.
                        Err(SendTimeoutError::Disconnected(value)) => assert_eq!(*value, n),
                    }
                }
            });
            s.spawn(move || {
                for n in 0..ROUNDS {
                    let limit = Duration::from_micros(((n + party) % 5) as u64 * 10);
                    let value = if n % 2 == 0 {
                        rx.recv_timeout(limit).ok()
                    } else {
                        select! { recv(rx) -> value => value.ok(), default(limit) => None }
                    };
                    received.fetch_add(value.map_or(0, |value| *value), Relaxed);
                }
            });
        }
        drop((tx, rx));
    });
    assert_eq!(sent.load(Relaxed), received.load(Relaxed));
}

/// SE-17: selects over the same channels, each in an order of its own, never block each other; every value arrives.
#[test]
fn se_17_selects_in_any_order() {
    let (ends, from): (Vec<Sender<Box<usize>>>, Vec<_>) = (0..3).map(bounded).unzip();
    let total = scope(|s| {
        let receivers: Vec<_> = (0..3)
            .map(|party| {
                let from = from.clone();
                s.threads.spawn(move || {
                    let order = [party, (party + 1) % 3, (party + 2) % 3];
                    let mut open: Vec<_> = order.iter().map(|i| &from[*i]).collect();
                    let mut sum = 0;
                    while !open.is_empty() {
                        let mut list = Select::new();
                        open.iter().for_each(|rx| {
                            list.recv(rx);
                        });
                        let chosen = list.select();
                        let index = chosen.index();
                        match chosen.recv(open[index]) {
                            Ok(value) => sum += *value,
                            Err(_) => drop(open.remove(index)),
                        }
                    }
                    sum
                })
            })
            .collect();
        for party in 0..3 {
            let ends = ends.clone();
            s.spawn(move || {
                let [a, b, c] = [party, (party + 2) % 3, (party + 1) % 3].map(|i| &ends[i]);
                for n in 0..ROUNDS {
                    if n % 4 == 0 {
                        // In two steps.
                        let mut list = Select::new();
                        list.send(a);
                        list.send(b);
                        let chosen = list.select();
                        let tx = [a, b][chosen.index()];
                        chosen.send(tx, Box::new(n)).unwrap();
                        continue;
                    }
                    let mut value = Some(Box::new(n));
                    let mut same = Some(Box::new(n));
                    let mut again = Some(Box::new(n));
                    select! {
                        send(a, from value) -> result => result.unwrap(),
                        send(b, from same) -> result => result.unwrap(),
                        send(c, from again) -> result => result.unwrap(),
                    }
                    assert_eq!(
                        usize::from(value.is_none()) + usize::from(same.is_none()) + usize::from(again.is_none()),
                        1
                    );
                }
            });
        }
        drop(ends);
        receivers.into_iter().map(|receiver| receiver.join().unwrap()).sum::<usize>()
    });
    assert_eq!(total, 3 * ROUNDS * (ROUNDS - 1) / 2);
}

/// Everybody leaves at the same time, in every order: the channel is freed once, after the last has gone.
#[test]
fn ends_go_at_the_same_time() {
    for round in 0..ROUNDS {
        let (tx, rx) = bounded(round % 3);
        scope(|s| {
            let (to, from) = (tx.clone(), rx.clone());
            s.spawn(move || {
                let _ = to.try_send(Box::new(1));
                let _ = to.send_timeout(Box::new(2), Duration::from_micros(20));
            });
            s.spawn(move || {
                let _ = from.recv_timeout(Duration::from_micros(20));
            });
            let to = tx.clone();
            s.spawn(move || {
                // Ends by the close, or because no receiver is left.
                let _ = to.send(Box::new(3));
                let _ = to.send(Box::new(4));
                let _ = to.send(Box::new(5));
            });
            s.spawn(move || drop(rx.try_recv()));
            s.spawn(move || {
                if round % 2 == 0 {
                    let _ = tx.close();
                }
            });
        });
    }
}

#[test]
fn cc_04_senders_that_wait_at_the_close() {
    for _ in 0..ROUNDS / 3 {
        let (tx, rx) = bounded(1);
        scope(|s| {
            let senders = [0, 1, 2].map(|n| {
                let tx = tx.clone();
                s.threads.spawn(move || tx.send(Box::new(n)).err().map(|error| *error.into_inner()))
            });
            s.spawn(|| tx.close().unwrap());
            let mut values: Vec<usize> = rx.iter().map(|value| *value).collect();
            values.extend(senders.map(|sender| sender.join().unwrap()).into_iter().flatten());
            values.sort_unstable();
            assert_eq!(values, [0, 1, 2]);
        });
    }
}

/// HB-10: what was done before `done` is seen after `wait`, by all who wait.
#[test]
fn hb_10_a_wait_group_of_threads() {
    for _ in 0..ROUNDS / 3 {
        let group = WaitGroup::new();
        let data: [Plain; 3] = Default::default();
        scope(|s| {
            for place in &data {
                let done = group.guard();
                s.spawn(move || {
                    place.set(7);
                    drop(done);
                });
            }
            for _ in 0..2 {
                s.spawn(|| {
                    while !group.wait_timeout(Duration::from_micros(30)) {}
                    group.wait();
                    assert!(data.iter().all(|place| place.get() == 7));
                });
            }
            group.wait();
            assert!(data.iter().all(|place| place.get() == 7));
        });
    }
}

/// Every way to get a lock takes over what the last holder did.
#[test]
fn hb_07_hb_08_an_unlock_comes_before_the_next_lock() {
    let (lock, data, times) = (Mutex::new(()), Plain::default(), AtomicUsize::new(0));
    scope(|s| {
        for party in 0..3 {
            let (lock, data, times) = (&lock, &data, &times);
            s.spawn(move || {
                let (ctx, _cancel) = Context::background().with_cancel();
                for n in 0..ROUNDS {
                    let guard = match (n + party) % 4 {
                        0 => lock.try_lock(),
                        1 => lock.try_lock_for(Duration::from_micros(20)),
                        2 => lock.lock_ctx(&ctx).ok(),
                        _ => Some(lock.lock()),
                    };
                    if guard.is_some() {
                        data.set(data.get() + 1);
                        times.fetch_add(1, Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(data.get(), times.into_inner());
    assert!(data.get() >= 3 * ROUNDS / 2);
}

#[test]
fn rw_01_readers_come_after_the_last_writer_and_before_the_next() {
    let (lock, data, times) = (RwLock::new(()), [Plain::default(), Plain::default()], AtomicUsize::new(0));
    scope(|s| {
        for party in 0..4 {
            let (lock, data, times) = (&lock, &data, &times);
            s.spawn(move || {
                for n in 0..ROUNDS {
                    let limit = Duration::from_micros(20);
                    if party % 2 == 0 {
                        let guard = if n % 2 == 0 { lock.try_write_for(limit) } else { Some(lock.write()) };
                        if guard.is_some() {
                            data.iter().for_each(|place| place.set(place.get() + 1));
                            times.fetch_add(1, Relaxed);
                        }
                    } else {
                        let guard = match n % 3 {
                            0 => lock.try_read(),
                            1 => lock.try_read_for(limit),
                            _ => Some(lock.read()),
                        };
                        if guard.is_some() {
                            assert_eq!(data[0].get(), data[1].get());
                        }
                    }
                }
            });
        }
    });
    assert_eq!(data[0].get(), times.into_inner());
}

#[test]
fn hb_09_the_closure_of_a_once_comes_before_every_return() {
    for _ in 0..ROUNDS / 3 {
        let data: [Plain; 3] = Default::default();
        let (once, lock, lazy) = (Once::new(), OnceLock::new(), LazyLock::new(|| data[2].set(7)));
        scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    once.call_once(|| data[0].set(7));
                    lock.get_or_init(|| data[1].set(7));
                    LazyLock::force(&lazy);
                    assert!(data.iter().all(|place| place.get() == 7));
                });
            }
            // Without the closure.
            s.spawn(|| {
                while !once.state().done() {
                    thread::yield_now();
                }
                assert_eq!(data[0].get(), 7);
                lock.wait();
                assert_eq!(data[1].get(), 7);
            });
        });
    }
}

/// Two that take turns, told by a condition variable, and one that gives up again and again in their midst.
#[test]
fn hb_11_a_notification_comes_before_the_wait_that_it_ends() {
    let (turn, told, data, over) = (Mutex::new(0_usize), Condvar::new(), Plain::default(), AtomicBool::new(false));
    scope(|s| {
        for party in 0..2 {
            let (turn, told, data, over) = (&turn, &told, &data, &over);
            s.spawn(move || {
                for n in 0..ROUNDS {
                    let mut at = turn.lock();
                    while *at != 2 * n + party {
                        told.wait(&mut at);
                    }
                    drop(at);
                    // Without the lock: the turn alone is what orders.
                    assert_eq!(data.get(), 2 * n + party);
                    data.set(data.get() + 1);
                    *turn.lock() += 1;
                    told.notify_all();
                }
                over.store(true, Relaxed);
            });
        }
        s.spawn(|| {
            while !over.load(Relaxed) {
                told.wait_for(&mut turn.lock(), Duration::from_micros(20));
            }
        });
    });
    assert_eq!(data.get(), 2 * ROUNDS);
}

#[test]
fn hb_15_a_permit_comes_before_the_next() {
    let (semaphore, data, times) = (Semaphore::new(2), Plain::default(), AtomicUsize::new(0));
    scope(|s| {
        for party in 0..3 {
            let (semaphore, data, times) = (&semaphore, &data, &times);
            s.spawn(move || {
                for n in 0..ROUNDS {
                    let limit = Duration::from_micros(20);
                    let permit = match (n + party) % 4 {
                        0 => semaphore.try_acquire(2),
                        1 => semaphore.acquire_timeout(2, limit),
                        // A small one between, whose release alone grants nothing.
                        2 => {
                            drop(semaphore.acquire_timeout(1, limit));
                            None
                        }
                        _ => Some(semaphore.acquire(2)),
                    };
                    if permit.is_some() {
                        data.set(data.get() + 1);
                        times.fetch_add(1, Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(data.get(), times.into_inner());
    assert_eq!(semaphore.available(), 2);
}

/// Whoever learns of the end, in whatever way, sees what was done before the cancel.
#[test]
fn hb_15_a_cancel_comes_before_its_end_is_seen() {
    for round in 0..ROUNDS / 3 {
        let data = Plain::default();
        let (parent, cancel) = Context::background().with_cancel();
        let (locked, semaphore) = (Mutex::new(()), Semaphore::new(1));
        let (_guard, _permit) = (locked.lock(), semaphore.acquire(1));
        scope(|s| {
            for kind in 0..5 {
                let (ctx, data, locked, semaphore) = (parent.clone(), &data, &locked, &semaphore);
                s.spawn(move || {
                    let (child, _cancel) = ctx.with_timeout(Duration::from_secs(3600));
                    match kind {
                        0 => assert!(child.done().recv().is_err()),
                        1 => assert!(locked.lock_ctx(&child).is_err()),
                        2 => assert!(semaphore.acquire_ctx(1, &child).is_err()),
                        3 => assert!(child.sleep(Duration::from_secs(3600)).is_err()),
                        _ => {
                            while child.err().is_none() {
                                thread::yield_now();
                            }
                        }
                    }
                    assert_eq!(data.get(), 1);
                });
            }
            if round % 2 == 0 {
                thread::yield_now();
            }
            data.set(1);
            if round % 3 == 0 { drop(cancel) } else { cancel.cancel() }
        });
    }
}

/// Contexts that end by cancels, by deadlines and by being dropped, while others join and leave them.
#[test]
fn cx_06_ends_cross_each_other() {
    for round in 0..ROUNDS / 3 {
        let (root, cancel) = Context::background().with_timeout(Duration::from_micros(300 * (round % 3 + 1) as u64));
        scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    for n in 0..20 {
                        let (child, cancel) = root.with_timeout(Duration::from_micros(n * 20));
                        let (merged, _end) = oxigo::context::merge(&child, &root);
                        if n % 2 == 0 {
                            cancel.cancel();
                            assert!(child.err().is_some() && merged.err().is_some());
                        }
                    }
                });
            }
            if round % 2 == 0 {
                s.spawn(|| cancel.cancel());
            }
        });
        root.done().recv().unwrap_err();
    }
}

#[test]
fn a_barrier_comes_between() {
    let (barrier, data): (_, [Plain; 3]) = (Barrier::new(3), Default::default());
    scope(|s| {
        for own in 0..3 {
            let (barrier, data) = (&barrier, &data);
            s.spawn(move || {
                for n in 0..ROUNDS {
                    data[own].set(n);
                    barrier.wait();
                    assert!(data.iter().all(|place| place.get() == n));
                    barrier.wait();
                }
            });
        }
    });
}

/// Two that take turns with nothing but `park` and `unpark` between them.
#[test]
fn an_unpark_comes_before_the_end_of_its_park() {
    let (data, turn) = (Plain::default(), AtomicUsize::new(0));
    let (mine, other) = bounded(1);
    let first = oxigo::current();
    scope(|s| {
        s.spawn(|| {
            mine.send(oxigo::current()).unwrap();
            for n in 0..ROUNDS {
                oxigo::park();
                assert_eq!(turn.load(Relaxed), 2 * n + 1, "woken once for each unpark");
                assert_eq!(data.get(), 2 * n + 1);
                data.set(2 * n + 2);
                turn.store(2 * n + 2, Relaxed);
                first.unpark();
            }
        });
        let other = other.recv().unwrap();
        for n in 0..ROUNDS {
            data.set(2 * n + 1);
            turn.store(2 * n + 1, Relaxed);
            other.unpark();
            oxigo::park();
            assert_eq!(data.get(), 2 * n + 2);
        }
    });
}

/// Timers that are moved, stopped and read by several at once: each value goes to one, and none comes after a stop.
/// By its waker, or by none: a limit and a context end what nobody wakes.
#[test]
fn a_wake_comes_before_the_poll_that_follows_it() {
    let (data, wakers) = (Plain::default(), bounded::<Waker>(0));
    let (tx, rx) = wakers;
    scope(|s| {
        s.spawn(|| {
            for (n, waker) in rx.iter().enumerate() {
                data.set(n + 1);
                waker.wake();
            }
        });
        for n in 1..=ROUNDS {
            let mut begun = false;
            let mut sees = poll_fn(|cx| {
                if begun {
                    return Poll::Ready(data.get());
                }
                begun = true;
                tx.send(cx.waker().clone()).unwrap();
                Poll::Pending
            });
            let (ctx, _cancel) = Context::background().with_cancel();
            let read = match n % 3 {
                0 => block_on(&mut sees),
                1 => block_on_timeout(&mut sees, Duration::from_secs(3600)).unwrap(),
                _ => block_on_ctx(&ctx, &mut sees).unwrap(),
            };
            assert_eq!(read, n);
        }
        drop(tx);
    });
}

/// Wakers that come when the time has passed, or nearly so.
#[test]
fn wakes_race_with_limits() {
    let (tx, rx) = bounded::<Waker>(4);
    scope(|s| {
        for _ in 0..2 {
            s.spawn(|| rx.iter().for_each(Waker::wake));
        }
        for n in 0..ROUNDS {
            let mut polls = 0;
            let twice = poll_fn(|cx| {
                polls += 1;
                tx.send(cx.waker().clone()).unwrap();
                if polls > 2 { Poll::Ready(()) } else { Poll::Pending }
            });
            let _ = block_on_timeout(twice, Duration::from_nanos(500 * (n as u64 % 40)));
        }
        drop(tx);
    });
}

#[test]
fn tm_07_a_timer_that_all_touch() {
    let (timer, ticker) = (Timer::new(Duration::from_micros(10)), Ticker::new(Duration::from_micros(20)));
    let (started, received) = (AtomicUsize::new(1), AtomicUsize::new(0));
    scope(|s| {
        for party in 0..3 {
            let (timer, ticker, started, received) = (&timer, &ticker, &started, &received);
            s.spawn(move || {
                for n in 0..ROUNDS {
                    let limit = Duration::from_micros((n % 5) as u64 * 10);
                    let got = select! {
                        recv(timer.receiver()) -> due => Some(due),
                        recv(ticker.receiver()) -> _ => None,
                        default(limit) => None,
                    };
                    if let Some(due) = got {
                        assert!(due.unwrap() <= Instant::now());
                        received.fetch_add(1, Relaxed);
                    }
                    // What it takes back is one value less that can be received.
                    if n % 3 == party {
                        if timer.reset(limit) {
                            started.fetch_sub(1, Relaxed);
                        }
                        started.fetch_add(1, Relaxed);
                    } else if n % 7 == party && timer.stop() {
                        started.fetch_sub(1, Relaxed);
                    }
                }
            });
        }
    });
    let left = usize::from(timer.stop());
    assert_eq!(received.into_inner() + left, started.into_inner());
}

#[test]
fn sf_01_a_shared_value_comes_after_its_work() {
    let (flights, data) = (SingleFlight::new(), Plain::default());
    scope(|s| {
        for _ in 0..3 {
            s.spawn(|| {
                for n in 0..ROUNDS {
                    let (value, _shared) = flights.work(n % 2, || {
                        // One at a time for a key; each key has its own half.
                        if n % 2 == 0 {
                            data.set(data.get() + 1);
                        }
                        Box::leak(Box::new(n)) as &usize
                    });
                    assert!(*value < ROUNDS);
                }
            });
        }
    });
}

#[test]
fn pi_01_a_pipe_in_memory() {
    let (near, far) = net::pipe();
    let data = Plain::default();
    scope(|s| {
        s.spawn(|| {
            for n in 0..ROUNDS {
                data.set(n);
                (&near).write_all(&[n as u8; 7]).unwrap();
            }
            near.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut buffer = [0; 7];
        for n in 0..ROUNDS {
            (&far).read_exact(&mut buffer[..5]).unwrap();
            // The writer waits for the rest.
            assert_eq!(data.get(), n);
            (&far).read_exact(&mut buffer[5..]).unwrap();
            assert_eq!(buffer, [n as u8; 7]);
        }
        assert_eq!((&far).read(&mut buffer).unwrap(), 0);
    });
}

/// The sanitizers are seen at work: `ci/sanitizers` expects these to be reported, and sets a variable without which they do nothing.
mod seeded {
    use super::*;

    fn asked_for() -> bool {
        env::var_os("OXIGO_SEEDED").is_some()
    }

    /// A write and a read without an edge between them.
    #[test]
    #[ignore = "a race, to be found by ThreadSanitizer"]
    fn seeded_thread() {
        if !asked_for() {
            return;
        }
        let data = Plain::default();
        let (tx, rx) = bounded(1);
        scope(|s| {
            s.spawn(|| {
                tx.send(()).unwrap();
                // Too late: the send has come before.
                data.set(1);
            });
            rx.recv().unwrap();
            std::hint::black_box(data.get());
        });
    }

    /// A read of what was freed.
    #[test]
    #[ignore = "a use after free, to be found by AddressSanitizer"]
    fn seeded_address() {
        if !asked_for() {
            return;
        }
        let (tx, rx) = bounded(1);
        let value = Box::new(1_usize);
        let pointer: *const usize = &raw const *value;
        tx.send(value).unwrap();
        drop(rx);
        // SAFETY: none; the receiver has dropped the value.
        std::hint::black_box(unsafe { pointer.read_volatile() });
    }
}
