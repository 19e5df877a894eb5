//! Row SE-01: what an arm's operands need on the way is gone before the select waits.

mod common;

use std::{ops::Deref, sync::Arc, time::Duration};

use common::{at_1_2_4, rt};
use oxigo::{
    Chan, Receiver, Sender, bounded, go, select, select_biased,
    sync::Mutex,
    time::{Instant, Ticker, Timer},
    unbuffered, yield_now,
};

/// The receiver takes the lock before it receives: it would wait for the select, and the select for it.
#[test]
fn se_01_a_lock_that_only_the_value_needs_is_not_held_while_the_select_waits() {
    at_1_2_4(|| {
        let lock: &Mutex<u32> = Box::leak(Box::new(Mutex::new(7)));
        let (tx, rx) = unbuffered();
        let receiver = go(move || {
            *lock.lock() += 1;
            rx.recv().unwrap()
        });
        let sent = select! { send(tx, *lock.lock()) -> sent => sent };
        sent.unwrap();
        assert!(matches!(receiver.join().unwrap(), 7 | 8));
    });
}

/// Nor while the arm's body runs, in either macro.
#[test]
fn se_01_a_lock_that_only_an_operand_needs_is_free_in_the_body() {
    rt(1, || {
        let lock = Mutex::new(1_u64);
        let (tx, rx) = oxigo::bounded(2);
        select! { send(tx, *lock.lock()) -> sent => { sent.unwrap(); assert!(lock.try_lock().is_some()) } }
        select_biased! { send(tx, *lock.lock()) -> sent => { sent.unwrap(); assert!(lock.try_lock().is_some()) } }
        assert_eq!((rx.recv(), rx.recv()), (Ok(1), Ok(1)));
        select! {
            recv(rx) -> _ => unreachable!(),
            default(Duration::from_millis(*lock.lock())) => assert!(lock.try_lock().is_some()),
        }
    });
}

/// Braces around a body are no more than usual.
#[deny(unused_braces)]
#[test]
fn se_01_a_body_in_braces_draws_no_warning() {
    let (tx, rx) = oxigo::bounded(1);
    let mut sum = 0;
    select! { send(tx, 3) -> sent => { sent.unwrap() } }
    select! { recv(rx) -> value => { sum += value.unwrap() }, default => { sum += 1 } }
    select_biased! { recv(rx) -> value => { sum += value.unwrap() } default => { sum += 1 } }
    assert_eq!(sum, 4);
}

/// What is borrowed for the value lives until it has been made.
#[test]
fn se_01_a_value_may_be_made_of_temporaries() {
    rt(1, || {
        let (tx, rx): (Sender<String>, _) = unbuffered();
        let received = go(move || rx.recv().unwrap());
        yield_now();
        select! { send(tx, String::from("a b").split(' ').next_back().unwrap().to_owned()) -> sent => sent.unwrap() }
        assert_eq!(received.join().unwrap(), "b");
    });
}

/// A two-way channel is both ends.
#[test]
fn se_01_an_operand_may_be_a_two_way_channel() {
    at_1_2_4(|| {
        let numbers = Chan::unbuffered();
        let shared = Arc::new(Chan::<u32>::bounded(1));
        let squares = {
            let numbers = numbers.receiver();
            let squares = Arc::clone(&shared);
            go(move || numbers.iter().for_each(|n: u32| squares.send(n * n).unwrap()))
        };
        let (mut sent, mut sum) = (0, 0);
        let mut next = Some(1);
        while sum < 1 + 4 + 9 {
            if sent < 3 {
                next.get_or_insert(sent + 1);
                select! {
                    send(numbers, from next) -> result => { result.unwrap(); sent += 1 }
                    recv(shared) -> square => sum += square.unwrap(),
                }
            } else {
                sum += select_biased! { recv(&&shared) -> square => square.unwrap() };
            }
        }
        select! { send(*shared, 7) -> result => result.unwrap() }
        select! { recv(shared) -> seven => assert_eq!(seven, Ok(7)), default => unreachable!() }
        numbers.close().unwrap();
        squares.join().unwrap();
    });
}

/// Timers and tickers stand for their receivers.
#[test]
fn se_01_an_operand_may_be_a_timer_or_a_ticker() {
    at_1_2_4(|| {
        let (timer, ticker) = (Timer::new(Duration::from_secs(3600)), Arc::new(Ticker::new(Duration::from_millis(1))));
        for _ in 0..2 {
            select! {
                recv(timer) -> _ => unreachable!(),
                recv(ticker) -> due => assert!(due.unwrap() <= Instant::now()),
            }
        }
        ticker.stop();
        timer.reset(Duration::ZERO);
        select_biased! {
            recv(ticker) -> _ => unreachable!(),
            recv(&timer) -> fired => assert!(fired.unwrap() <= Instant::now()),
        }
        select! { recv(timer) -> _ => unreachable!(), default => {} }
    });
}

/// What leads to an end, as with a method's receiver.
#[test]
fn se_01_an_operand_may_be_what_dereferences_to_an_end() {
    struct Hub {
        out: Box<Sender<Box<dyn ToString>>>,
        into: Mutex<Receiver<Box<dyn ToString>>>,
    }
    let (tx, rx) = oxigo::bounded(1);
    let hub = Hub { out: Box::new(tx), into: Mutex::new(rx) };
    let hub = &hub;
    // The value becomes what the channel is of.
    select! { send(hub.out, Box::new(5)) -> result => assert!(result.is_ok()) }
    select! { recv(hub.into.lock()) -> text => assert_eq!(text.unwrap().to_string(), "5") }
    let slot: &mut Option<Box<dyn ToString>> = &mut Some(Box::new("six"));
    select! { send(&hub.out, from *slot) -> result => assert!(result.is_ok()) }
    select! { recv(&*hub.into.lock()) -> text => assert_eq!(text.unwrap().to_string(), "six") }
    // By a pointer of a kind that is not known.
    let chan: Box<dyn Deref<Target = Chan<u8>>> = Box::new(Arc::new(Chan::bounded(1)));
    select! { send(chan, 7) -> result => assert!(result.is_ok()) }
    select! { recv(chan) -> seven => assert_eq!(seven, Ok(7)) }
}

/// A pattern with alternatives, and a block with no comma after it, were refused when a macro had taken them as fragments.
#[test]
fn arms_may_be_made_of_what_a_macro_was_given() {
    macro_rules! received {
        ($rx:expr, $pattern:pat => $body:block, $otherwise:block) => {
            select! {
                recv($rx) -> $pattern => $body
                default => $otherwise
            }
        };
    }
    let (tx, rx) = bounded(1);
    assert_eq!(received!(rx, Ok(_) | Err(_) => { 1 }, { 2 }), 2);
    tx.send(()).unwrap();
    assert_eq!(received!(rx, Ok(_) | Err(_) => { 1 }, { 2 }), 1);
}
