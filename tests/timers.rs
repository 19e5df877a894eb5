//! Groups SL, TM and TK: sleeping, timers, tickers, functions that run later.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use common::{Counted, at_1_2_4, quiesce, rt};
use oxigo::{
    WaitGroup, bounded, go, select,
    time::{self, Duration, Instant, Ticker, Timer, after_func},
    unbuffered, yield_now,
};

const LONG: Duration = Duration::from_secs(3600);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn sl_01_a_sleep_is_never_short_and_of_zero_returns_at_once() {
    at_1_2_4(|| {
        let start = Instant::now();
        time::sleep(ms(5));
        assert!(start.elapsed() >= ms(5));
        time::sleep(Duration::ZERO);
        time::sleep_until(start);
    });
}

#[test]
fn sleeps_last_at_least_their_time() {
    oxigo::run(|| {
        let handles: Vec<_> = (0..50)
            .map(|i| {
                oxigo::go(move || {
                    let start = Instant::now();
                    let time = Duration::from_millis(i);
                    time::sleep(time);
                    assert!(start.elapsed() >= time);
                })
            })
            .collect();
        handles.into_iter().for_each(|h| h.join().unwrap());
    });
}

/// In whatever order, and none of them early, though a worker is awake all the time.
/// A worker that has nothing else to do waits in its poller, once it has searched for up to 200 µs, and that must not count in whole
/// milliseconds. The best of many, since the machine may be busy with other things.
#[test]
fn sl_01_waits_below_a_millisecond_can_end_within_one() {
    rt(1, || {
        let short = Duration::from_micros(600);
        let (_tx, rx) = unbuffered::<()>();
        let (mut socket, _far) = oxigo::net::unix::UnixStream::pair().unwrap();
        socket.set_read_timeout(Some(short)).unwrap();
        let waits: [(&str, &mut dyn FnMut()); 4] = [
            ("sleep", &mut || time::sleep(short)),
            ("recv_timeout", &mut || assert!(rx.recv_timeout(short).is_err())),
            ("after", &mut || assert!(time::after(short).recv().is_ok())),
            ("a read", &mut || assert!(std::io::Read::read(&mut socket, &mut [0]).is_err())),
        ];
        for (name, wait) in waits {
            let begin = Instant::now();
            loop {
                let start = Instant::now();
                wait();
                let took = start.elapsed();
                assert!(took >= short, "{name}: {took:?}");
                if took < ms(1) {
                    break;
                }
                assert!(
                    begin.elapsed() < Duration::from_secs(30),
                    "{name}: no wait of {short:?} took less than a millisecond"
                );
            }
        }
    });
}

#[test]
fn sl_03_sleepers_until_one_instant_all_wake() {
    at_1_2_4(|| {
        let until = Instant::now() + ms(5);
        let woken = AtomicUsize::new(0);
        oxigo::scope(|s| {
            for _ in 0..1000 {
                s.go(|| {
                    time::sleep_until(until);
                    assert!(Instant::now() >= until);
                    woken.fetch_add(1, SeqCst);
                });
            }
            s.go(|| {
                while woken.load(SeqCst) < 1000 {
                    yield_now();
                }
            });
        });
        assert_eq!(woken.into_inner(), 1000);
    });
}

/// Some of a worker's deadlines are taken back, from anywhere among the others: those that are left are kept all the same.
#[test]
fn sl_03_sleepers_wake_though_others_leave() {
    at_1_2_4(|| {
        let begin = Instant::now();
        oxigo::scope(|s| {
            let (tx, rx) = unbuffered::<()>();
            let (mut sleepers, mut waiters) = (Vec::new(), Vec::new());
            for n in 0..400_u64 {
                let (scattered, rx) = (n * 7919 % 400, rx.clone());
                if scattered % 2 == 0 {
                    sleepers.push(s.go(move || {
                        let until = begin + ms(20) + Duration::from_micros(scattered * 50);
                        time::sleep_until(until);
                        assert!(Instant::now() >= until);
                        assert!(begin.elapsed() < Duration::from_secs(20), "woken by another's deadline");
                    }));
                } else {
                    waiters.push(s.go(move || rx.recv_timeout(Duration::from_secs(25)).unwrap()));
                }
            }
            // Half of them at once, the others when all sleepers have woken.
            (0..100).for_each(|_| tx.send(()).unwrap());
            sleepers.into_iter().for_each(|sleeper| sleeper.join().unwrap());
            (0..100).for_each(|_| tx.send(()).unwrap());
            waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        });
    });
}

#[test]
fn sl_02_endless_durations_do_not_wrap_and_disturb_nobody() {
    at_1_2_4(|| {
        go(|| time::sleep(Duration::MAX));
        let timer = Timer::new(Duration::MAX);
        let func = after_func(Duration::MAX, || unreachable!("it is not the end of time"));
        assert!(timer.receiver().recv_timeout(ms(2)).is_err());
        let start = Instant::now();
        time::sleep(ms(2));
        assert!(start.elapsed() >= ms(2));
        assert!(func.stop());
        assert!(timer.receiver().try_recv().is_err());
        // Armed, however far off it is.
        assert!(timer.stop());
        assert!(!timer.stop());
        assert!(!timer.reset(Duration::MAX));
        assert!(timer.reset(Duration::ZERO));
        assert!(timer.receiver().recv().is_ok());
        assert!(!timer.stop());
    });
}

#[test]
fn tm_01_the_value_is_the_time_it_fired_however_late_it_is_read() {
    at_1_2_4(|| {
        let start = Instant::now();
        let timer = Timer::new(ms(2));
        time::sleep(ms(12));
        let fired = timer.receiver().recv().unwrap();
        assert!(fired >= start + ms(2));
        assert!(fired <= Instant::now() - ms(9));
        assert!(timer.receiver().recv_timeout(ms(2)).is_err(), "one value only");
    });
}

#[test]
fn tm_02_functions_start_in_the_order_of_their_deadlines() {
    rt(1, || {
        // Where setting them takes as long as two deadlines are apart, those are in another order.
        let in_time = (0..1000).any(|_| {
            let (tx, rx) = bounded(13);
            let begin = Instant::now();
            for slot in [5, 3, 6, 6, 6, 1, 2, 7, 9, 4, 8, 0, 10] {
                let tx = tx.clone();
                // `send` would let others run first, where the slice is over.
                after_func(ms(slot * 5), move || tx.try_send(slot).unwrap());
            }
            let in_time = begin.elapsed() < ms(5);
            let order: Vec<u64> = rx.iter().take(13).collect();
            assert!(!in_time || order.is_sorted(), "{order:?}");
            in_time
        });
        assert!(in_time, "never set within 5 ms");
    });
}

#[test]
fn tm_03_a_slow_function_delays_no_other_and_may_set_itself_anew() {
    at_1_2_4(|| {
        let (release, held) = unbuffered::<()>();
        after_func(ms(1), move || {
            let _ = held.recv();
        });
        let (tx, rx) = bounded(1);
        fn chain(left: u32, tx: oxigo::Sender<()>) {
            match left {
                0 => tx.send(()).unwrap(),
                _ => drop(after_func(ms(1), move || chain(left - 1, tx))),
            }
        }
        chain(10, tx);
        rx.recv().unwrap();
        drop(release);
    });
}

/// A function that sets itself anew and goes on runs beside the run that it has set.
#[test]
fn tm_12_a_function_set_anew_overlaps_its_last_run() {
    at_1_2_4(|| {
        let (tx, rx) = unbuffered::<()>();
        let (done, ended) = bounded(1);
        after_func(ms(1), move || {
            after_func(ms(1), move || tx.send(()).unwrap());
            // From the next run, while this one lasts.
            rx.recv().unwrap();
            done.send(()).unwrap();
        });
        ended.recv().unwrap();
    });
}

#[test]
fn tm_04_a_stopped_timer_never_fires_and_is_stopped_once() {
    at_1_2_4(|| {
        let timer = Timer::new(ms(1));
        let dropped = Arc::new(AtomicUsize::new(0));
        let counted = Counted(Arc::clone(&dropped));
        let func = after_func(LONG, move || drop(counted));
        assert!(timer.stop());
        assert!(!timer.stop());
        assert!(func.stop());
        assert_eq!(dropped.load(SeqCst), 1, "what a stopped function owned is released at once");
        assert!(!func.stop());
        assert!(timer.receiver().recv_timeout(ms(3)).is_err());
    });
}

#[test]
fn tm_05_stop_discards_an_unread_value_and_says_so() {
    at_1_2_4(|| {
        let timer = Timer::new(Duration::ZERO);
        assert_eq!(timer.receiver().len(), 1);
        assert!(timer.stop());
        assert!(timer.receiver().try_recv().is_err());
        assert!(timer.receiver().is_empty());
        assert!(!timer.stop());
    });
}

#[test]
fn tm_06_reset_discards_an_unread_value_and_says_so() {
    at_1_2_4(|| {
        let timer = Timer::new(Duration::ZERO);
        assert!(timer.reset(LONG));
        assert!(timer.receiver().try_recv().is_err());
        assert!(timer.reset(Duration::ZERO));
        timer.receiver().try_recv().unwrap();
        assert!(!timer.reset(LONG), "it was read");
        assert!(timer.stop());
        assert!(!timer.reset(LONG), "it was stopped");
    });
}

#[test]
fn tm_07_stop_tells_the_truth_in_every_race() {
    at_1_2_4(|| {
        let group = WaitGroup::new();
        for round in 0..200 {
            let timer = Arc::new(Timer::new(Duration::from_micros(round % 7 * 20)));
            let received = Arc::new(AtomicUsize::new(0));
            for _ in 0..2 {
                let (timer, received) = (Arc::clone(&timer), Arc::clone(&received));
                group.go(move || {
                    if timer.receiver().recv_timeout(ms(1)).is_ok() {
                        received.fetch_add(1, SeqCst);
                    }
                });
            }
            oxigo::yield_now();
            let stopped = timer.stop();
            group.wait();
            assert_eq!(received.load(SeqCst), usize::from(!stopped), "round {round}");
        }
    });
}

#[test]
fn tm_07_reset_tells_the_truth_in_every_race() {
    at_1_2_4(|| {
        for round in 0..200 {
            let timer = Arc::new(Timer::new(Duration::from_micros(round % 7 * 20)));
            let reader = go({
                let timer = Arc::clone(&timer);
                move || timer.receiver().recv().unwrap()
            });
            oxigo::yield_now();
            let before = Instant::now();
            let unread = timer.reset(Duration::from_micros(200));
            if unread {
                assert!(reader.join().unwrap() >= before, "a stale value was received");
                assert!(timer.receiver().try_recv().is_err());
            } else {
                reader.join().unwrap();
                assert!(timer.receiver().recv().unwrap() >= before);
            }
        }
    });
}

#[test]
fn tm_08_len_and_capacity_are_crossbeams() {
    let timer = Timer::new(LONG);
    assert_eq!((timer.receiver().len(), timer.receiver().capacity()), (0, Some(1)));
    timer.reset(Duration::ZERO);
    assert_eq!((timer.receiver().len(), timer.receiver().capacity()), (1, Some(1)));
}

#[test]
fn tm_09_who_waits_follows_the_timer() {
    rt(1, || {
        for selects in [false, true] {
            let timer = Arc::new(Timer::new(LONG));
            let reader = go({
                let timer = Arc::clone(&timer);
                move || {
                    if selects {
                        select! {
                            recv(timer.receiver()) -> fired => fired.unwrap(),
                            recv(oxigo::chan::never::<()>()) -> _ => unreachable!(),
                        }
                    } else {
                        timer.receiver().recv().unwrap()
                    }
                }
            });
            quiesce();
            assert!(timer.stop());
            quiesce();
            assert!(!reader.is_finished());
            assert!(!timer.reset(LONG));
            quiesce();
            assert!(!reader.is_finished());
            let before = Instant::now();
            assert!(timer.reset(ms(2)));
            assert!(reader.join().unwrap() >= before + ms(2));
        }
    });
}

#[test]
fn tm_09_a_timer_may_be_moved_earlier_from_a_plain_thread() {
    at_1_2_4(|| {
        let timer = Arc::new(Timer::new(LONG));
        let reader = go({
            let timer = Arc::clone(&timer);
            move || timer.receiver().recv().unwrap()
        });
        oxigo::yield_now();
        let other = Arc::clone(&timer);
        thread::spawn(move || assert!(other.reset(Duration::ZERO))).join().unwrap();
        reader.join().unwrap();
    });
}

#[test]
fn tm_10_of_two_who_wait_one_gets_the_value() {
    at_1_2_4(|| {
        let timer = Timer::new(ms(2));
        let (tx, rx) = bounded(2);
        for _ in 0..2 {
            let (receiver, tx) = (timer.receiver().clone(), tx.clone());
            go(move || tx.send(receiver.recv().unwrap()).unwrap());
        }
        rx.recv().unwrap();
        assert!(rx.recv_timeout(ms(5)).is_err());
        timer.reset(Duration::ZERO);
        rx.recv().unwrap();
    });
}

#[test]
fn tm_11_a_timer_of_zero_is_never_missed() {
    at_1_2_4(|| {
        for _ in 0..20_000 {
            Timer::new(Duration::ZERO).receiver().recv().unwrap();
        }
        for _ in 0..500 {
            let (tx, rx) = bounded(1);
            after_func(Duration::ZERO, move || tx.send(()).unwrap());
            rx.recv().unwrap();
        }
    });
}

#[test]
fn tm_13_dropping_a_timer_disarms_it_and_dropping_a_func_does_not() {
    at_1_2_4(|| {
        let timer = Timer::new(ms(1));
        let ticker = Ticker::new(ms(1));
        let (of_timer, of_ticker) = (timer.receiver().clone(), ticker.receiver().clone());
        drop((timer, ticker));
        let (tx, rx) = bounded(1);
        drop(after_func(ms(3), move || tx.send(()).unwrap()));
        rx.recv().unwrap();
        assert!(of_timer.try_recv().is_err());
        assert!(of_ticker.try_recv().is_err());
    });
}

#[test]
fn tm_14_many_sleepers_and_functions_beside_traffic() {
    at_1_2_4(|| {
        let group = WaitGroup::new();
        for n in 0..5_000 {
            let us = Duration::from_micros(n % 50 * 100);
            let done = group.guard();
            if n % 2 == 0 {
                go(move || {
                    time::sleep(us);
                    drop(done);
                });
            } else {
                after_func(us, move || drop(done));
            }
        }
        let (tx, rx) = unbuffered();
        go(move || (0..5_000).for_each(|n| tx.send(n).unwrap()));
        assert_eq!(rx.iter().count(), 5_000);
        group.wait();
    });
}

#[test]
fn tm_15_many_share_one_timer_and_one_ticker() {
    at_1_2_4(|| {
        let timer = Arc::new(Timer::new(ms(1)));
        let ticker = Arc::new(Ticker::new(Duration::from_micros(100)));
        let group = WaitGroup::new();
        for n in 0..100_u64 {
            let (timer, ticker) = (Arc::clone(&timer), Arc::clone(&ticker));
            group.go(move || {
                for round in 0..10 {
                    select! {
                        recv(timer.receiver()) -> _ => {
                            timer.reset(Duration::from_micros(n));
                        }
                        recv(ticker.receiver()) -> _ => ticker.reset(Duration::from_micros(50 + round)),
                        default(Duration::from_micros(300)) => {}
                    }
                }
            });
        }
        group.wait();
    });
}

#[test]
fn tm_18_exactly_one_of_stop_and_the_function_wins() {
    at_1_2_4(|| {
        for round in 0..300 {
            let ran = Arc::new(AtomicUsize::new(0));
            let (tx, rx) = bounded(1);
            let func = after_func(Duration::from_micros(round % 10 * 10), {
                let ran = Arc::clone(&ran);
                move || {
                    ran.fetch_add(1, SeqCst);
                    tx.send(()).unwrap();
                }
            });
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_micros(round % 7 * 20) {
                std::hint::spin_loop();
            }
            let stopped = func.stop();
            // Dropped unrun, the function drops its sender.
            assert_eq!(rx.recv().is_err(), stopped);
            assert_eq!(ran.load(SeqCst), usize::from(!stopped));
        }
    });
}

#[test]
fn tm_19_functions_work_from_a_plain_thread_and_survive_a_dropped_runtime() {
    let (tx, rx) = bounded(1);
    after_func(ms(1), move || tx.send(oxigo::current().id()).unwrap());
    rx.recv().unwrap();

    let dropped = Arc::new(AtomicUsize::new(0));
    let counted = Counted(Arc::clone(&dropped));
    rt(1, || drop(after_func(ms(1), move || drop(counted))));
    until_dropped(&dropped, 1);
}

fn until_dropped(dropped: &AtomicUsize, count: usize) {
    let begin = Instant::now();
    while dropped.load(SeqCst) < count {
        assert!(begin.elapsed() < Duration::from_secs(20), "the closure of a runtime that is gone is dropped");
        thread::yield_now();
    }
}

#[test]
fn tm_19_a_function_is_dropped_when_its_runtime_ends_as_it_starts() {
    const ROUNDS: usize = 400;
    let dropped = Arc::new(AtomicUsize::new(0));
    for round in 0..ROUNDS {
        let counted = Counted(Arc::clone(&dropped));
        // From before the end of the runtime to after it.
        let after = Duration::from_micros(round as u64 % 200);
        rt(1, move || drop(after_func(after, move || drop(counted))));
    }
    until_dropped(&dropped, ROUNDS);
}

#[test]
fn tk_01_ticks_keep_the_period_and_follow_reset_and_stop() {
    at_1_2_4(|| {
        let start = Instant::now();
        let ticker = Ticker::new(ms(2));
        for _ in 0..5 {
            ticker.receiver().recv().unwrap();
        }
        assert!(start.elapsed() >= ms(10));
        let start = Instant::now();
        ticker.reset(ms(5));
        ticker.receiver().recv().unwrap();
        assert!(start.elapsed() >= ms(5));
        ticker.stop();
        assert!(ticker.receiver().recv_timeout(ms(12)).is_err());
    });
}

/// Who reads late loses ticks, and puts no later one off.
#[test]
fn tk_01_a_late_reader_does_not_move_the_grid() {
    at_1_2_4(|| {
        const PERIOD: Duration = Duration::from_millis(5);
        for late in [PERIOD / 2, PERIOD * 5 / 2, PERIOD * 7] {
            let ticker = Ticker::new(PERIOD);
            time::sleep(PERIOD + late);
            let first = ticker.receiver().recv().unwrap();
            let read = Instant::now();
            let second = ticker.receiver().recv().unwrap();
            assert_eq!((second - first).as_nanos() % PERIOD.as_nanos(), 0, "off the grid");
            assert!(second - first >= late, "an old tick was kept");
            assert!(second <= read + PERIOD, "a tick was put off");
        }
        let ticks = oxigo::chan::tick(PERIOD);
        time::sleep(PERIOD * 7 / 2);
        let first = ticks.recv().unwrap();
        assert_eq!((ticks.recv().unwrap() - first).as_nanos() % PERIOD.as_nanos(), 0, "off the grid");
    });
}

#[test]
fn tk_02_a_slow_receiver_finds_one_tick_and_the_next_is_a_period_away() {
    at_1_2_4(|| {
        let ticker = Ticker::new(ms(10));
        time::sleep(ms(45));
        let read = Instant::now();
        ticker.receiver().try_recv().unwrap();
        // Where that took its time, the next one may be due.
        if let Ok(next) = ticker.receiver().try_recv() {
            assert!(read < next && next <= Instant::now(), "an old tick was kept, or one comes early");
        }
    });
}

#[test]
fn tk_03_stop_does_not_close_and_reset_starts_anew() {
    rt(1, || {
        let ticker = Arc::new(Ticker::new(LONG));
        let reader = go({
            let ticker = Arc::clone(&ticker);
            move || ticker.receiver().recv()
        });
        quiesce();
        ticker.stop();
        quiesce();
        assert!(!reader.is_finished() && !ticker.receiver().is_closed());
        ticker.reset(ms(1));
        assert!(reader.join().unwrap().is_ok());
        assert!(ticker.receiver().recv().is_ok());
    });
}

#[test]
fn tk_04_a_period_of_zero_panics() {
    let ticker = Ticker::new(LONG);
    for text in [
        std::panic::catch_unwind(|| drop(Ticker::new(Duration::ZERO))).unwrap_err(),
        std::panic::catch_unwind(|| ticker.reset(Duration::ZERO)).unwrap_err(),
    ] {
        assert_eq!(*text.downcast::<&str>().unwrap(), "a ticker's period must not be zero");
    }
    assert!(time::tick(Duration::ZERO).try_recv().is_ok(), "as crossbeam's");
}

#[test]
fn tk_05_the_value_is_the_time_the_tick_was_due() {
    at_1_2_4(|| {
        let start = Instant::now();
        let ticker = Ticker::new(ms(3));
        let created = Instant::now();
        time::sleep(ms(20));
        let tick = ticker.receiver().recv().unwrap();
        assert!(tick >= start + ms(3) && tick <= created + ms(3));
    });
}

/// What cannot be started is dropped where that may wait: its `Drop` holds up no other timer of the process.
#[test]
fn tm_03_a_closure_dropped_unrun_delays_no_other() {
    struct Waits(std::sync::mpsc::Receiver<()>);
    impl Drop for Waits {
        fn drop(&mut self) {
            let _ = self.0.recv();
        }
    }
    let (release, held) = std::sync::mpsc::channel();
    let runtime = oxigo::Runtime::builder().workers(1).build().unwrap();
    runtime.run(move || {
        let waits = Waits(held);
        oxigo::time::after_func(std::time::Duration::from_millis(30), move || drop(waits));
    });
    drop(runtime);
    oxigo::run(|| {
        let (tx, rx) = oxigo::unbuffered();
        oxigo::time::after_func(std::time::Duration::from_millis(60), move || tx.send(()).unwrap());
        // Before, this came only after the other's `Drop` had returned: never.
        rx.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
    });
    drop(release);
}
