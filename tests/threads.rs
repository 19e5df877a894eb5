//! Channels, select and WaitGroup under stress from plain threads only: what `ci/sanitizers` runs under AddressSanitizer and
//! ThreadSanitizer. No goroutine may start here, since the sanitizers do not know that stacks are switched.

use std::{
    cell::UnsafeCell,
    env,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
    time::Duration,
};

use oxigo::{
    Chan, Receiver, Sender, WaitGroup, bounded,
    chan::{RecvTimeoutError, Select, SendTimeoutError, never},
    select, unbounded,
};

/// Rounds of a test that is long enough for the sanitizers and short enough for every day.
const ROUNDS: usize = 300;

/// Data without any synchronisation of its own: when the edge under test is missing, ThreadSanitizer reports a race on it.
#[derive(Default)]
struct Plain(UnsafeCell<usize>);

// SAFETY: each test orders its accesses by the edge that it is about.
unsafe impl Sync for Plain {}

impl Plain {
    fn set(&self, value: usize) {
        // SAFETY: ordered against the other accesses by the edge under test.
        unsafe { *self.0.get() = value }
    }

    fn get(&self) -> usize {
        // SAFETY: as above.
        unsafe { *self.0.get() }
    }
}

fn kinds<T>() -> [(Sender<T>, Receiver<T>); 4] {
    [bounded(0), bounded(1), bounded(16), unbounded()]
}

#[test]
fn cu_04_every_value_is_received_once() {
    for (tx, rx) in kinds() {
        let mut all = thread::scope(|s| {
            for party in 0..3 {
                let tx = tx.clone();
                s.spawn(move || (0..ROUNDS).for_each(|n| tx.send(Box::new(party * ROUNDS + n)).unwrap()));
            }
            drop(tx);
            let receivers = [0, 1, 2].map(|kind| {
                let rx = rx.clone();
                s.spawn(move || match kind {
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
        thread::scope(|s| {
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
        thread::scope(|s| {
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
    thread::scope(|s| {
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
    thread::scope(|s| {
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
    thread::scope(|s| {
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
    let total = thread::scope(|s| {
        let receivers: Vec<_> = (0..3)
            .map(|party| {
                let from = from.clone();
                s.spawn(move || {
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
        thread::scope(|s| {
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
        thread::scope(|s| {
            let senders = [0, 1, 2].map(|n| {
                let tx = tx.clone();
                s.spawn(move || tx.send(Box::new(n)).err().map(|error| *error.into_inner()))
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
        thread::scope(|s| {
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
        thread::scope(|s| {
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
