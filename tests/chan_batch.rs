//! `recv_many` and `send_many`: as single operations in a row would, but at once.

mod common;

use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use common::{Counted, at_1_2_4, at_length, quiesce, rt};
use oxigo::{
    Chan, bounded,
    chan::{RecvError, Select, after, tick},
    go, select, unbounded, unbuffered,
};

/// A generator of numbers (Marsaglia's xorshift) that a seed repeats.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// Random operations that need no waiting, on one channel, beside a queue that does the same in the plainest way.
#[test]
fn random_batches_agree_with_a_naive_queue() {
    let seed = std::env::var("OXIGO_SEED")
        .map_or_else(|_| RandomState::new().hash_one("batches"), |seed| seed.parse().expect("a number"))
        .max(1);
    println!("OXIGO_SEED={seed}");
    let mut numbers = Numbers(seed);
    for _ in 0..at_length(300, 3_000) {
        let capacity = [1, 2, 3, 64, 65, 200, usize::MAX][numbers.below(7)];
        let (tx, rx) = if capacity == usize::MAX { unbounded() } else { bounded(capacity) };
        let mut twin = VecDeque::new();
        let mut next = 0;
        for _ in 0..50 {
            let room = (capacity - twin.len()).min(150);
            match numbers.below(4) {
                0 if room > 0 => {
                    tx.send(next).unwrap();
                    twin.push_back(next);
                    next += 1;
                }
                1 => {
                    let count = numbers.below(room + 1);
                    tx.send_many((next..next + count).collect()).unwrap();
                    twin.extend(next..next + count);
                    next += count;
                }
                2 if !twin.is_empty() => assert_eq!(rx.recv().ok(), twin.pop_front()),
                3 if !twin.is_empty() => {
                    let limit = [0, 1, 2, 63, 64, 65, 130, usize::MAX][numbers.below(8)];
                    // What is there stays, and room that there is is used.
                    let mut into = Vec::with_capacity(numbers.below(100));
                    into.push(usize::MAX);
                    let count = rx.recv_many(&mut into, limit).unwrap();
                    assert_eq!(count, limit.min(twin.len()));
                    assert_eq!(into[0], usize::MAX);
                    assert!(twin.drain(..count).eq(into[1..].iter().copied()));
                }
                _ => {}
            }
            assert_eq!(rx.len(), twin.len());
        }
        tx.close().unwrap();
        let mut rest = Vec::new();
        while rx.recv_many(&mut rest, 70).is_ok() {}
        assert!(twin.into_iter().eq(rest));
    }
}

/// What parties take and give in batches, mixed with single operations.
fn parties(senders: usize, receivers: usize, capacity: usize, each: usize, batch: usize) {
    let (tx, rx) = bounded(capacity);
    for sender in 0..senders {
        let tx = tx.clone();
        go(move || {
            let mut sent = 0;
            while sent < each {
                let count = if sent % 3 == 0 { batch.min(each - sent) } else { 1 };
                let values: Vec<_> = (sent..sent + count).map(|n| (sender, n)).collect();
                if count == 1 {
                    tx.send(values[0]).unwrap();
                } else {
                    tx.send_many(values).unwrap();
                }
                sent += count;
            }
        });
    }
    drop(tx);
    let handles: Vec<_> = (0..receivers)
        .map(|receiver| {
            let rx = rx.clone();
            go(move || {
                let mut all = Vec::new();
                if receiver % 3 == 2 {
                    all.extend(&rx);
                } else {
                    while rx.recv_many(&mut all, batch).is_ok() {}
                }
                all
            })
        })
        .collect();
    drop(rx);
    let mut seen = vec![vec![false; each]; senders];
    for handle in handles {
        let mut last = vec![None; senders];
        for (sender, n) in handle.join().unwrap() {
            assert!(!std::mem::replace(&mut seen[sender][n], true), "received twice");
            assert!(last[sender].replace(n) < Some(n), "one sender's values come in their order");
        }
    }
    assert!(seen.iter().flatten().all(|seen| *seen), "a value is lost");
}

#[test]
fn every_value_arrives_once_and_in_its_senders_order() {
    at_1_2_4(|| {
        for capacity in [0, 1, 2, 64, 100] {
            for (senders, receivers) in [(1, 1), (4, 3), (1, 3), (3, 1)] {
                for batch in [2, 16, 200] {
                    parties(senders, receivers, capacity, at_length(600, 6_000), batch);
                }
            }
        }
    });
}

/// From threads that are not ours, with a goroutine between them.
#[test]
fn threads_take_and_give_batches() {
    let (tx, numbers) = bounded::<u32>(8);
    let (squares, rx) = bounded::<u32>(8);
    let sender = thread::spawn(move || tx.send_many((0..1000).collect()).unwrap());
    go(move || {
        let mut batch = Vec::new();
        while numbers.recv_many(&mut batch, 5).is_ok() {
            squares.send_many(batch.drain(..).map(|n| n * n).collect()).unwrap();
        }
    });
    let mut all = Vec::new();
    while rx.recv_many(&mut all, 1000).is_ok() {}
    sender.join().unwrap();
    assert!((0..1000).map(|n| n * n).eq(all));
}

/// A full buffer: as many senders that wait are let in as values were taken, in their order (C2), and are done.
#[test]
fn senders_that_wait_are_let_in() {
    rt(1, || {
        let (tx, rx) = bounded(4);
        tx.send_many(vec![0, 1, 2, 3]).unwrap();
        let done = Arc::new(AtomicUsize::new(0));
        for n in 4..10 {
            let (tx, done) = (tx.clone(), Arc::clone(&done));
            go(move || {
                tx.send(n).unwrap();
                done.fetch_add(1, SeqCst);
            });
            quiesce();
        }
        let mut all = Vec::new();
        assert_eq!(rx.recv_many(&mut all, 3), Ok(3));
        // In the very step: nobody has run since.
        assert_eq!(rx.len(), 4);
        quiesce();
        assert_eq!(done.load(SeqCst), 3);
        // The first one taken makes room for a sender, whose value is then in the buffer as well.
        assert_eq!(rx.recv_many(&mut all, 10), Ok(5));
        assert_eq!(rx.recv_many(&mut all, 10), Ok(2));
        quiesce();
        assert_eq!(done.load(SeqCst), 6);
        assert!(all.into_iter().eq(0..10));
    });
}

/// Receivers that wait are served one value each, first come, first served; the rest goes into the buffer.
#[test]
fn receivers_that_wait_are_served_first() {
    for capacity in [0, 2] {
        rt(1, || {
            let (tx, rx) = bounded(capacity);
            let handles: Vec<_> = (0..3)
                .map(|_| {
                    let rx = rx.clone();
                    let handle = go(move || rx.recv());
                    quiesce();
                    handle
                })
                .collect();
            tx.send_many((0..3 + capacity).collect()).unwrap();
            assert_eq!(rx.len(), capacity);
            for (n, handle) in handles.into_iter().enumerate() {
                assert_eq!(handle.join().unwrap(), Ok(n));
            }
            assert!(rx.try_iter().eq(3..3 + capacity));
        });
    }
}

/// Without a buffer a batch takes those who wait, and does not wait for more.
#[test]
fn without_a_buffer_all_who_wait_are_received() {
    rt(1, || {
        let (tx, rx) = unbuffered();
        for n in 0..100 {
            let tx = tx.clone();
            go(move || tx.send(n).unwrap());
            quiesce();
        }
        let mut all = Vec::new();
        assert_eq!(rx.recv_many(&mut all, 3), Ok(3));
        while all.len() < 100 {
            assert!(rx.recv_many(&mut all, usize::MAX).unwrap() > 0);
        }
        assert!(all.into_iter().eq(0..100));
    });
}

#[test]
fn values_that_were_not_sent_come_back() {
    rt(1, || {
        // Closed before, closed while it waits, and the last receiver gone while it waits.
        let (tx, rx) = bounded(2);
        tx.close().unwrap();
        assert_eq!(tx.send_many(vec![1, 2]).unwrap_err().into_inner(), [1, 2]);
        assert_eq!(tx.send_many(Vec::new()), Ok(()));
        assert!(rx.recv().is_err());

        let (tx, rx) = bounded(2);
        let other = tx.clone();
        let sender = go(move || other.send_many((0..10).collect()));
        quiesce();
        assert_eq!(rx.recv(), Ok(0));
        quiesce();
        tx.close().unwrap();
        assert_eq!(sender.join().unwrap().unwrap_err().into_inner(), [3, 4, 5, 6, 7, 8, 9]);
        assert!(rx.iter().eq([1, 2]), "what was buffered is still delivered");

        let (tx, rx) = bounded(2);
        let sender = go(move || tx.send_many((0..5).collect()));
        quiesce();
        drop(rx);
        assert_eq!(sender.join().unwrap().unwrap_err().into_inner(), [2, 3, 4]);
    });
}

#[test]
fn a_receive_of_many_ends_with_the_channel() {
    rt(1, || {
        let (tx, rx) = bounded::<u8>(2);
        let waits = go(move || rx.recv_many(&mut Vec::new(), 5));
        quiesce();
        drop(tx);
        assert_eq!(waits.join().unwrap(), Err(RecvError));

        let (tx, rx) = bounded(4);
        tx.send_many(vec![1, 2, 3]).unwrap();
        drop(tx);
        let mut all = Vec::new();
        assert_eq!(rx.recv_many(&mut all, 0), Ok(0));
        assert_eq!(rx.recv_many(&mut all, 2), Ok(2));
        assert_eq!(rx.recv_many(&mut all, 2), Ok(1));
        assert_eq!(rx.recv_many(&mut all, 2), Err(RecvError));
        assert_eq!(rx.recv_many(&mut all, 0), Ok(0), "nothing was asked for");
        assert_eq!(all, [1, 2, 3]);
    });
}

/// Every value is dropped once, wherever it is.
#[test]
fn values_are_dropped_once() {
    at_1_2_4(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let values = |count: usize| -> Vec<_> { (0..count).map(|_| Counted(Arc::clone(&drops))).collect() };
        let (tx, rx) = bounded(100);
        tx.send_many(values(90)).unwrap();
        let mut taken = Vec::new();
        assert_eq!(rx.recv_many(&mut taken, 80), Ok(80));
        assert_eq!(drops.load(SeqCst), 0);
        drop(taken);
        assert_eq!(drops.load(SeqCst), 80);
        let last = tx.clone();
        let more = values(95);
        let sender = go(move || drop(last.send_many(more)));
        while rx.len() < 100 {
            oxigo::yield_now();
        }
        drop(rx);
        sender.join().unwrap();
        assert_eq!(drops.load(SeqCst), 185);
    });
}

/// Values without size, and values of which few are moved at once.
#[test]
fn any_size_of_value() {
    rt(2, || {
        let (tx, rx) = bounded(1_000_000_000_000);
        tx.send_many(vec![(); 1000]).unwrap();
        let mut all = Vec::new();
        assert_eq!(rx.recv_many(&mut all, usize::MAX), Ok(1000));

        let (tx, rx) = bounded(20);
        go(move || tx.send_many((0..50).map(|n| [n; 6_000]).collect::<Vec<[u8; 6_000]>>()).unwrap());
        let mut all = Vec::new();
        while rx.recv_many(&mut all, 7).is_ok() {}
        assert!(all.iter().map(|value| value[5_999]).eq(0..50));
    });
}

/// Timer channels have one value at a time, and those who wait in a `select!` are partners as any.
#[test]
fn timers_selects_and_both_ends_in_one() {
    rt(1, || {
        let begin = Instant::now();
        let mut times = Vec::new();
        assert_eq!(after(Duration::from_millis(2)).recv_many(&mut times, 5), Ok(1));
        let ticks = tick(Duration::from_millis(1));
        assert_eq!(ticks.recv_many(&mut times, 5), Ok(1));
        assert_eq!(times.len(), 2);
        assert!(begin.elapsed() >= Duration::from_millis(3));

        let chan = Chan::bounded(4);
        let rx = chan.receiver();
        let receiver = go(move || {
            select! {
                recv(rx) -> value => value,
                recv(after(Duration::from_secs(3600))) -> _ => unreachable!("an hour"),
            }
        });
        quiesce();
        chan.send_many(vec![1, 2, 3]).unwrap();
        assert_eq!(receiver.join().unwrap(), Ok(1));
        let tx = chan.sender();
        chan.send_many(vec![4, 5]).unwrap();
        let sender = go(move || {
            select! {
                send(tx, 6) -> sent => sent,
                recv(after(Duration::from_secs(3600))) -> _ => unreachable!("an hour"),
            }
        });
        quiesce();
        let mut all = Vec::new();
        assert_eq!(chan.recv_many(&mut all, 3), Ok(3));
        assert_eq!(sender.join().unwrap(), Ok(()));
        assert_eq!(chan.recv_many(&mut all, 3), Ok(2));
        assert_eq!(all, [2, 3, 4, 5, 6]);
    });
}

/// A sender that has chosen a place and has yet to say its value keeps it: values behind it are not taken before it (C6).
#[test]
fn a_promised_place_keeps_its_order() {
    rt(1, || {
        let (tx, rx) = bounded(2);
        let mut select = Select::new();
        select.send(&tx);
        let chosen = select.select();
        tx.send_many(vec![2]).unwrap();
        let mut all = Vec::new();
        let receiver = {
            let rx = rx.clone();
            go(move || {
                let mut all = Vec::new();
                let count = rx.recv_many(&mut all, 5);
                (count, all)
            })
        };
        quiesce();
        assert!(!receiver.is_finished());
        chosen.send(&tx, 1).unwrap();
        let (count, first) = receiver.join().unwrap();
        all.extend(first);
        if count == Ok(1) {
            assert_eq!(rx.recv_many(&mut all, 5), Ok(1));
        }
        assert_eq!(all, [1, 2]);
    });
}

/// A batch is an operation like others: who sends or receives for ever lets others run.
#[test]
fn batches_use_up_a_slice() {
    /// Does it again and again until another goroutine has run.
    fn until_another_runs(mut batch: impl FnMut()) {
        let ran = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&ran);
        let other = go(move || seen.store(1, SeqCst));
        let begin = Instant::now();
        while ran.load(SeqCst) == 0 {
            batch();
            assert!(begin.elapsed() < Duration::from_secs(60), "the other one never ran");
        }
        other.join().unwrap();
    }
    rt(1, || {
        let (tx, rx) = bounded(100);
        until_another_runs(|| {
            tx.send_many((0..10).collect()).unwrap();
            assert_eq!(rx.try_iter().count(), 10);
        });
        let mut into = Vec::new();
        until_another_runs(|| {
            (0..10).for_each(|n| tx.try_send(n).unwrap());
            rx.recv_many(&mut into, 10).unwrap();
            into.clear();
        });
    });
}
