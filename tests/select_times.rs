//! Group SE: `select!` with times: a default after a while, and the channels of `after`, `at` and `tick`.

mod common;

use std::time::{Duration, Instant};

use common::{at_1_2_4, rt};
use oxigo::{
    chan::{after, at, never, tick},
    go, select, unbuffered, yield_now,
};

#[test]
fn default_with_a_time_waits_that_long_and_no_less() {
    let body = || {
        let quiet = never::<()>();
        let (_tx, open) = unbuffered::<()>();
        let begin = Instant::now();
        select! {
            recv(quiet) -> _ => unreachable!(),
            recv(open) -> _ => unreachable!(),
            default(Duration::from_millis(15)) => {}
        }
        assert!(begin.elapsed() >= Duration::from_millis(15));
        // Zero looks once. The longest waits for ever, so something has to come.
        select! { recv(open) -> _ => unreachable!(), default(Duration::ZERO) => {} }
        let soon = after(Duration::from_millis(5));
        select! { recv(soon) -> t => { t.unwrap(); } default(Duration::MAX) => unreachable!() }
        // Alone it is a sleep.
        let begin = Instant::now();
        select! { default(Duration::from_millis(5)) => {} }
        assert!(begin.elapsed() >= Duration::from_millis(5));
    };
    body();
    at_1_2_4(body);
}

#[test]
fn default_with_a_time_is_not_taken_when_a_partner_comes_first() {
    at_1_2_4(|| {
        for n in 0..200 {
            let (tx, rx) = unbuffered();
            go(move || tx.send(n).unwrap());
            select! {
                recv(rx) -> v => assert_eq!(v, Ok(n)),
                default(Duration::from_secs(60)) => panic!("the partner was missed"),
            }
        }
    });
}

#[test]
fn after_and_at_deliver_once_and_stay_open() {
    let body = || {
        let begin = Instant::now();
        for rx in [after(Duration::from_millis(10)), at(begin + Duration::from_millis(10))] {
            assert_eq!(rx.capacity(), Some(1));
            let due = select! { recv(rx) -> t => t.unwrap() };
            assert!(due >= begin + Duration::from_millis(10), "what is received is the time at which it was due");
            assert!(Instant::now() >= due);
            assert_eq!((rx.len(), rx.is_empty(), rx.is_closed()), (0, true, false));
            select! { recv(rx) -> _ => panic!("twice"), default(Duration::from_millis(2)) => {} }
        }
        let past = at(Instant::now() - Duration::from_millis(1));
        assert_eq!((past.len(), past.is_full(), past.is_empty()), (1, true, false));
        let copy = past.clone();
        assert!(copy.same_channel(&past) && !past.same_channel(&after(Duration::ZERO)));
        copy.try_recv().unwrap();
        assert_eq!(past.len(), 0, "clones share the one value");
        assert!(after(Duration::MAX).try_recv().is_err());
    };
    body();
    at_1_2_4(body);
}

#[test]
fn one_due_value_goes_to_one_of_many_selects() {
    at_1_2_4(|| {
        let timer = after(Duration::from_millis(5));
        let (quit, done) = unbuffered::<()>();
        let waits: Vec<_> = (0..8)
            .map(|_| {
                let (timer, done) = (timer.clone(), done.clone());
                go(move || select! { recv(timer) -> t => t.is_ok(), recv(done) -> _ => false })
            })
            .collect();
        let begin = Instant::now();
        while waits.iter().all(|w| !w.is_finished()) {
            assert!(begin.elapsed() < Duration::from_secs(30), "nobody got it");
            oxigo::time::sleep(Duration::from_millis(1));
        }
        quit.close().unwrap();
        assert_eq!(waits.into_iter().map(|w| w.join().unwrap()).filter(|got| *got).count(), 1);
    });
}

#[test]
fn tick_keeps_to_its_period_and_drops_ticks_for_the_late() {
    let body = || {
        let period = Duration::from_millis(5);
        let begin = Instant::now();
        let ticks = tick(period);
        assert_eq!(ticks.capacity(), Some(1));
        for n in 1..=4_u32 {
            let at = select! { recv(ticks) -> t => t.unwrap() };
            assert!(at >= begin + period * n && Instant::now() >= at);
        }
        // Late by many periods: one tick waits, not many.
        let until = Instant::now() + period * 10;
        while Instant::now() < until {
            yield_now();
        }
        assert_eq!(ticks.len(), 1);
        ticks.try_recv().unwrap();
        assert!(ticks.len() <= 1 && !ticks.is_closed());
    };
    body();
    rt(1, body);
    let always = tick(Duration::ZERO);
    assert!((0..100).all(|_| always.try_recv().is_ok()));
}

#[test]
fn timers_and_channels_mix() {
    // A stream with an idle limit that each value renews: `after` anew in every round.
    at_1_2_4(|| {
        let (tx, rx) = unbuffered();
        go(move || {
            for n in 0..5 {
                oxigo::time::sleep(Duration::from_millis(1));
                tx.send(n).unwrap();
            }
            // Idle, without closing.
            oxigo::time::sleep(Duration::from_secs(30));
            drop(tx);
        });
        let (mut sum, mut idle) = (0, 0);
        let mut last = Instant::now();
        // The sender may be that late as well, where it does not get a core.
        while sum < 10 || idle == 0 {
            select! {
                recv(rx) -> n => { sum += n.unwrap(); last = Instant::now(); idle = 0; }
                recv(after(Duration::from_millis(300))) -> _ => {
                    assert!(last.elapsed() >= Duration::from_millis(300));
                    idle += 1;
                    assert!(idle < 100, "no value comes any more");
                }
            }
        }
        assert_eq!(sum, 10);
    });
}
