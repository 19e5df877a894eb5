//! Unbuffered channels: group CU of the conformance list.

mod common;
#[path = "common/series.rs"]
mod series;

use std::{
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use common::{Counted, at_1_2_4, quiesce, rt};
use oxigo::{
    Chan, Receiver, Sender, WaitGroup, bounded,
    chan::{Select, never},
    go, select, unbuffered, yield_now,
};
use series::Series;

#[test]
fn cu_01_a_receive_waits_for_a_sender() {
    for capacity in [0, 1, 7] {
        rt(1, || {
            let (tx, rx) = bounded(capacity);
            let received = Arc::new(AtomicBool::new(false));
            let flag = Arc::clone(&received);
            let receiver = go(move || {
                let value = rx.recv();
                flag.store(true, SeqCst);
                value
            });
            quiesce();
            assert!(!received.load(SeqCst), "received from an empty channel");
            tx.send(3).unwrap();
            assert_eq!(receiver.join().unwrap(), Ok(3));
        });
    }
}

#[test]
fn cu_02_a_send_waits_for_its_receiver() {
    rt(1, || {
        let (tx, rx) = unbuffered();
        let sent = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&sent);
        let sender = go(move || {
            tx.send(3).unwrap();
            flag.store(true, SeqCst);
        });
        quiesce();
        assert!(!sent.load(SeqCst), "sent without a receiver");
        assert_eq!(rx.recv(), Ok(3));
        sender.join().unwrap();
        assert!(sent.load(SeqCst));
    });
}

/// The other half of CU-02: what the receiver did before it received is done when the send returns.
#[test]
fn cu_02_when_send_returns_the_receiver_has_come() {
    at_1_2_4(|| {
        let (tx, rx) = unbuffered();
        let rounds = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&rounds);
        let receiver = go(move || {
            for round in 1..=2000 {
                seen.store(round, SeqCst);
                assert_eq!(rx.recv(), Ok(round));
            }
        });
        for round in 1..=2000 {
            tx.send(round).unwrap();
            assert!(rounds.load(SeqCst) >= round, "send returned before its receive had begun");
        }
        receiver.join().unwrap();
    });
}

/// Go's TestChan: a hundred in a row, alternately by `recv` and by a loop of `try_recv`.
fn hundred_in_order<T: Send + PartialEq + Debug + 'static>(make: impl Fn(u8) -> T + Send + Sync + Copy + 'static) {
    for capacity in [0, 1, 10] {
        let (tx, rx) = bounded(capacity);
        let sender = go(move || (0..100).for_each(|n| tx.send(make(n)).unwrap()));
        for n in 0..100 {
            let value = if n % 2 == 0 {
                rx.recv().unwrap()
            } else {
                loop {
                    match rx.try_recv() {
                        Ok(value) => break value,
                        Err(error) => assert!(error.is_empty()),
                    }
                    yield_now();
                }
            };
            assert_eq!(value, make(n));
        }
        assert!(rx.recv().is_err());
        sender.join().unwrap();
    }
}

#[test]
fn cu_03_values_keep_their_order_and_their_bits() {
    at_1_2_4(|| {
        hundred_in_order(|n| n);
        hundred_in_order(|n| u64::from(n).wrapping_mul(0x0123_4567_89AB_CDEF));
        hundred_in_order(|n| [u64::from(n) << 40; 32]);
        hundred_in_order(|n| format!("value {n}"));
        hundred_in_order(Box::new);
        hundred_in_order(|_| ());
    });
}

/// Go's TestChan: four senders, four receivers, a thousand each.
#[test]
fn cu_04_every_value_is_received_exactly_once() {
    at_1_2_4(|| {
        for capacity in [0, 1, 2, 10, 199] {
            let (tx, rx) = bounded(capacity);
            let senders = (0..4).map(|party| {
                let tx = tx.clone();
                go(move || (0..1000).for_each(|n| tx.send(party * 1000 + n).unwrap()))
            });
            let senders: Vec<_> = senders.collect();
            drop(tx);
            let receivers = (0..4).map(|_| {
                let rx = rx.clone();
                go(move || (0..1000).map(|_| rx.recv().unwrap()).collect::<Vec<usize>>())
            });
            let receivers: Vec<_> = receivers.collect();
            let mut all: Vec<_> = receivers.into_iter().flat_map(|r| r.join().unwrap()).collect();
            senders.into_iter().for_each(|s| s.join().unwrap());
            all.sort_unstable();
            assert!(all.into_iter().eq(0..4000), "capacity {capacity}");
            assert!(rx.recv().is_err());
        }
    });
}

#[test]
fn cu_05_trying_needs_a_partner_that_waits() {
    at_1_2_4(|| {
        let (tx, rx) = unbuffered::<u32>();
        // Nobody waits.
        assert!(tx.try_send(1).unwrap_err().is_full());
        assert!(rx.try_recv().unwrap_err().is_empty());

        // A receiver that waits is found, and the value is its.
        let from = rx.clone();
        let receiver = go(move || from.recv());
        let mut ready = Select::new();
        ready.send(&tx);
        while ready.try_ready().is_err() {
            yield_now();
        }
        tx.try_send(2).expect("the receiver waits");
        assert_eq!(receiver.join().unwrap(), Ok(2));
        assert!(tx.try_send(3).unwrap_err().is_full());

        // A sender that waits is found.
        let to = tx.clone();
        let sender = go(move || to.send(4));
        let mut ready = Select::new();
        ready.recv(&rx);
        while ready.try_ready().is_err() {
            yield_now();
        }
        assert_eq!(rx.try_recv(), Ok(4));
        assert!(sender.join().unwrap().is_ok());
        assert!(rx.try_recv().unwrap_err().is_empty());
    });
}

/// Go's test/chan/nonblock: two that only try never meet.
#[test]
fn cu_05_two_that_only_try_never_meet() {
    at_1_2_4(|| {
        let (tx, rx) = unbuffered();
        let trier = go(move || (0..2000).filter(|n| tx.try_send(*n).is_ok()).count());
        let met = (0..2000).filter(|_| rx.try_recv().is_ok()).count();
        assert_eq!((trier.join().unwrap(), met), (0, 0));
    });
}

/// Go's test/chan/fifo, SynchFifo: each reader waits for the one before it, so the order of values is the order of readers.
#[test]
fn cu_06_readers_in_sequence_see_writes_in_sequence() {
    at_1_2_4(|| {
        for capacity in [0, 10] {
            let (tx, rx) = bounded(capacity);
            let (start, mut turn) = unbuffered::<()>();
            let readers: Vec<_> = (0..100)
                .map(|n| {
                    let rx = rx.clone();
                    let (done, next) = unbuffered();
                    let mine = std::mem::replace(&mut turn, next);
                    go(move || {
                        mine.recv().unwrap();
                        assert_eq!(rx.recv(), Ok(n));
                        done.send(()).unwrap();
                    })
                })
                .collect();
            let writer = go(move || (0..100).for_each(|n| tx.send(n).unwrap()));
            start.send(()).unwrap();
            turn.recv().unwrap();
            readers.into_iter().for_each(|reader| reader.join().unwrap());
            writer.join().unwrap();
        }
    });
}

/// Go's TestSelectStress: four channels, on each a plain sender, a plain receiver, and one select that sends and one that receives on all
/// four; an arm is disabled once its share is done.
#[test]
fn cu_07_plain_operations_and_selects_share_four_channels() {
    at_1_2_4(|| {
        const N: usize = 10_000;
        let channels: Arc<[Chan<usize>; 4]> =
            Arc::new([Chan::unbuffered(), Chan::unbuffered(), Chan::bounded(2), Chan::bounded(3)]);
        let group = WaitGroup::new();
        for chan in channels.iter() {
            let tx = chan.sender();
            group.go(move || (0..N).for_each(|n| tx.send(n).unwrap()));
            let rx = chan.receiver();
            group.go(move || (0..N).for_each(|n| assert!(rx.recv().is_ok(), "receive {n}")));
        }
        let all = Arc::clone(&channels);
        group.go(move || {
            let mut to = all.each_ref().map(Chan::sender);
            // What a channel is replaced by when its share is done: nobody receives from it.
            let (idle, _keep) = unbuffered();
            let mut counts = [0; 4];
            let [mut a, mut b, mut c, mut d] = [const { Some(0) }; 4];
            while counts.iter().any(|&count| count < N) {
                let chosen = select! {
                    send(to[0], from a) -> r => r.map(|()| 0),
                    send(to[1], from b) -> r => r.map(|()| 1),
                    send(to[2], from c) -> r => r.map(|()| 2),
                    send(to[3], from d) -> r => r.map(|()| 3),
                }
                .unwrap();
                counts[chosen] += 1;
                let slot = [&mut a, &mut b, &mut c, &mut d][chosen].replace(counts[chosen]);
                assert_eq!(slot, None, "the chosen arm's slot is emptied");
                if counts[chosen] == N {
                    to[chosen] = idle.clone();
                }
            }
        });
        let all = Arc::clone(&channels);
        group.go(move || {
            let mut from = all.each_ref().map(Chan::receiver);
            let mut counts = [0; 4];
            while counts.iter().any(|&count| count < N) {
                let chosen = select! {
                    recv(from[0]) -> v => v.map(|_| 0),
                    recv(from[1]) -> v => v.map(|_| 1),
                    recv(from[2]) -> v => v.map(|_| 2),
                    recv(from[3]) -> v => v.map(|_| 3),
                }
                .unwrap();
                counts[chosen] += 1;
                if counts[chosen] == N {
                    from[chosen] = never();
                }
            }
            assert_eq!(counts, [N; 4]);
        });
        group.wait();
        assert!(channels.iter().all(Chan::is_empty));
    });
}

/// How a party of CU-08 uses its channels.
#[derive(Clone, Copy, Debug)]
enum Style {
    Plain,
    Select,
}

/// Sends `values` round the channels in turn, or by a select over all of them.
fn send_all(style: Style, to: &[Sender<u32>], values: std::ops::Range<u32>) {
    let (quit, never_ready) = unbuffered::<()>();
    for value in values {
        let tx = &to[value as usize % to.len()];
        match style {
            Style::Plain => tx.send(value).unwrap(),
            Style::Select => {
                let other = &to[(value as usize + 1) % to.len()];
                let mut slot = Some(value);
                let mut spare = Some(value);
                select! {
                    send(tx, from slot) -> r => r.unwrap(),
                    send(other, from spare) -> r => r.unwrap(),
                    recv(never_ready) -> _ => unreachable!("nobody sends"),
                }
                // Exactly one of them has gone.
                assert!(slot.is_none() != spare.is_none());
            }
        }
    }
    drop(quit);
}

/// Receives from all channels until each is closed and empty.
fn receive_all(style: Style, from: &[Receiver<u32>]) -> Vec<u32> {
    match style {
        Style::Plain => {
            let readers: Vec<_> = from.to_vec();
            let readers: Vec<_> = readers.into_iter().map(|rx| go(move || rx.iter().collect::<Vec<_>>())).collect();
            readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect()
        }
        Style::Select => {
            let mut open: Vec<Receiver<u32>> = from.to_vec();
            let mut values = Vec::new();
            while !open.is_empty() {
                let mut select = Select::new();
                open.iter().for_each(|rx| {
                    select.recv(rx);
                });
                let chosen = select.select();
                let index = chosen.index();
                match chosen.recv(&open[index]) {
                    Ok(value) => values.push(value),
                    Err(_) => drop(open.swap_remove(index)),
                }
            }
            values
        }
    }
}

/// Go's test/ken/chan: senders and receivers of either style, with hops between that receive in one style and send in the other, buffers
/// of 0, 1, 10 and 100.
#[test]
fn cu_08_any_mix_of_plain_operations_and_selects() {
    at_1_2_4(|| {
        let both = [Style::Plain, Style::Select];
        for capacity in [0, 1, 10, 100] {
            for (sends, receives) in both.iter().flat_map(|s| both.iter().map(move |r| (*s, *r))) {
                for hops in [0, 2] {
                    const EACH: u32 = 40;
                    let (to, mut from): (Vec<_>, Vec<_>) = (0..3).map(|_| bounded(capacity)).unzip();
                    let to = Arc::new(to);
                    let senders: Vec<_> = (0..3)
                        .map(|party| {
                            let to = Arc::clone(&to);
                            go(move || send_all(sends, &to, party * EACH..(party + 1) * EACH))
                        })
                        .collect();
                    drop(to);
                    for _ in 0..hops {
                        let (next, end): (Vec<_>, Vec<_>) = from
                            .into_iter()
                            .map(|rx| {
                                let (tx, end) = bounded(capacity);
                                (go(move || rx.iter().for_each(|v| tx.send(v).unwrap())), end)
                            })
                            .unzip();
                        drop(next);
                        from = end;
                    }
                    let mut values = receive_all(receives, &from);
                    values.sort_unstable();
                    assert!(values.into_iter().eq(0..3 * EACH), "{capacity} {sends:?} {receives:?} {hops}");
                    senders.into_iter().for_each(|sender| sender.join().unwrap());
                }
            }
        }
    });
}

#[test]
fn cu_09_a_received_value_that_is_not_used_is_dropped_once() {
    at_1_2_4(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let (tx, rx) = unbuffered();
        let count = Arc::clone(&drops);
        let sender = go(move || (0..100).for_each(|_| tx.send(Counted(Arc::clone(&count))).unwrap()));
        for n in 1..=50 {
            let _ = rx.recv().unwrap();
            assert_eq!(drops.load(SeqCst), 2 * n - 1);
            select! { recv(rx) -> _ => {} }
            assert_eq!(drops.load(SeqCst), 2 * n);
        }
        assert!(rx.recv().is_err());
        sender.join().unwrap();
        assert_eq!(drops.load(SeqCst), 100);
    });
}

/// Go's test/chan/sieve1: a chain of filters, one for each prime found.
#[test]
fn cu_10_the_prime_sieve() {
    at_1_2_4(|| {
        let (tx, mut numbers) = unbuffered();
        go(move || (2_u32..).take_while(|n| tx.send(*n).is_ok()).for_each(drop));
        let mut primes = Vec::new();
        for _ in 0..150 {
            let prime: u32 = numbers.recv().unwrap();
            primes.push(prime);
            let (tx, filtered) = unbuffered();
            let unfiltered = std::mem::replace(&mut numbers, filtered);
            // When the last filter is dropped, each finds in its turn that nobody listens, and ends.
            go(move || {
                for n in unfiltered {
                    if n % prime != 0 && tx.send(n).is_err() {
                        break;
                    }
                }
            });
        }
        let by_division = (2_u32..).filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0));
        assert!(primes.into_iter().eq(by_division.take(150)));
    });
}

/// Go's test/chan/powser1: arithmetic on power series whose coefficients are computed on demand.
#[test]
fn cu_10_power_series() {
    at_1_2_4(|| {
        const TERMS: usize = 8;
        // 1/(1-x) = 1 + x + x² + …
        let ones = || Series::repeating(1);
        assert_eq!(ones().take(TERMS), [1; TERMS]);
        // Their sum and product: 2, 2, 2, … and 1, 2, 3, …
        assert_eq!(ones().plus(ones()).take(TERMS), [2; TERMS]);
        assert_eq!(ones().times(ones()).take(TERMS), [1, 2, 3, 4, 5, 6, 7, 8]);
        // A series that is split can be used twice.
        let (a, b) = ones().times(ones()).split();
        assert_eq!(a.times(b).take(TERMS), [1, 4, 10, 20, 35, 56, 84, 120]);
        // d/dx 1/(1-x) = 1/(1-x)²
        assert_eq!(ones().derivative().take(TERMS), ones().times(ones()).take(TERMS));
        // 1/(1-x-x²): each is the sum of the two before.
        let fibonacci = Series::reciprocal(Series::of([1, -1, -1]));
        assert_eq!(fibonacci.take(TERMS), [1, 1, 2, 3, 5, 8, 13, 21]);
    });
}
