//! Groups SE, CC and CQ: whom a `select!` that waits meets, and what it leaves behind where another arm was chosen.

mod common;

use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    thread,
};

use common::{at_1_2_4, at_length, quiesce, rt};
use oxigo::{
    Chan, Receiver, Sender, bounded,
    chan::{RecvError, SendError, never},
    go, select, unbounded, unbuffered,
};

#[test]
fn se_05_without_default_it_waits() {
    rt(1, || {
        let (to_a, a) = unbuffered::<i32>();
        let (_to_b, b) = unbuffered::<i32>();
        let waits = go(move || {
            select! {
                recv(a) -> v => v.unwrap(),
                recv(b) -> _ => unreachable!(),
            }
        });
        quiesce();
        assert!(!waits.is_finished());
        to_a.send(5).unwrap();
        assert_eq!(waits.join().unwrap(), 5);
    });
}

#[test]
fn se_05_on_plain_threads_it_blocks_the_thread() {
    let (tx, rx) = unbuffered();
    let (back, answers) = unbuffered();
    let (_keep, quiet) = unbuffered::<i32>();
    let echo = thread::spawn(move || {
        for _ in 0..1_000 {
            let n: i32 = select! {
                recv(rx) -> n => n.unwrap(),
                recv(quiet) -> _ => unreachable!(),
            };
            select! {
                send(back, n + 1) -> sent => sent.unwrap(),
            }
        }
    });
    for n in 0..1_000 {
        select! {
            send(tx, n) -> sent => sent.unwrap(),
            recv(answers) -> _ => unreachable!(),
        }
        assert_eq!(answers.recv(), Ok(n + 1));
    }
    echo.join().unwrap();
}

#[test]
fn se_08_a_goroutine_never_meets_itself() {
    rt(1, || {
        let c = Chan::unbuffered();
        let (tx, rx) = (c.sender(), c.receiver());
        let alone = go(move || {
            select! {
                send(tx, 1) -> sent => { sent.unwrap(); None }
                recv(rx) -> v => Some(v.unwrap()),
            }
        });
        quiesce();
        assert!(!alone.is_finished(), "matched its own send with its own receive");
        // Its two nodes wait in both queues, and either is found.
        assert_eq!(c.try_send(5), Ok(()));
        assert_eq!(alone.join().unwrap(), Some(5));

        let (tx, rx) = (c.sender(), c.receiver());
        let alone = go(move || {
            select! {
                send(tx, 1) -> sent => sent.unwrap(),
                recv(rx) -> _ => unreachable!(),
            }
        });
        quiesce();
        assert_eq!(c.try_recv(), Ok(1));
        alone.join().unwrap();
        assert!(c.try_recv().is_err() && c.try_send(1).is_err(), "a node was left behind");
    });
}

#[test]
fn se_09_two_that_send_and_receive_on_one_channel_pair_up() {
    for capacity in [0, 10] {
        at_1_2_4(|| {
            let c = Chan::bounded(capacity);
            let workers: Vec<_> = [0_usize, 1]
                .into_iter()
                .map(|me| {
                    let (tx, rx) = (c.sender(), c.receiver());
                    go(move || {
                        for i in 0..2_000 {
                            // The partner may have gone: then the buffer serves, and without one the last send is matched by the drain.
                            let from = if i % 2 == 0 {
                                select! {
                                    recv(rx) -> v => Some(v),
                                    send(tx, me) -> sent => { sent.unwrap(); None }
                                }
                            } else {
                                select! {
                                    send(tx, me) -> sent => { sent.unwrap(); None }
                                    recv(rx) -> v => Some(v),
                                }
                            };
                            if let Some(from) = from {
                                assert!(capacity > 0 || from == Ok(1 - me), "received its own value");
                            }
                        }
                    })
                })
                .collect();
            // Every operation of one needs one of the other without a buffer, so both do equally many, and end together.
            for worker in workers {
                worker.join().unwrap();
            }
        });
    }
}

#[test]
fn se_10_through_a_buffer_a_goroutine_may_meet_itself() {
    let c = Chan::bounded(1);
    let (tx, rx) = (c.sender(), c.receiver());
    let (mut sent, mut received) = (0, 0);
    for _ in 0..1_000 {
        select! {
            send(tx, sent) -> done => { done.unwrap(); sent += 1; }
            recv(rx) -> v => { assert_eq!(v, Ok(received)); received += 1; }
        }
    }
    assert_eq!((sent, received), (500, 500));
}

#[test]
fn se_11_cq_02_a_lost_select_leaves_no_trace() {
    rt(1, || {
        let (tx1, rx1) = unbuffered();
        let (tx2, rx2) = unbuffered();
        let (got, results) = unbounded();
        // In the queue of the first channel: a receiver, a select, a receiver. The select is then served elsewhere.
        let spawn_receiver = || {
            let (rx, got) = (rx1.clone(), got.clone());
            go(move || got.send(("receiver", rx.recv().unwrap())).unwrap());
            quiesce();
        };
        spawn_receiver();
        go({
            let (rx1, got) = (rx1.clone(), got.clone());
            move || {
                select! {
                    recv(rx1) -> v => got.send(("select", v.unwrap())).unwrap(),
                    recv(rx2) -> v => got.send(("select", v.unwrap())).unwrap(),
                }
            }
        });
        quiesce();
        spawn_receiver();
        tx2.send(0).unwrap();
        tx1.send(1).unwrap();
        tx1.send(2).unwrap();
        assert!(tx1.try_send(3).is_err(), "somebody still waits");
        quiesce();
        let mut all: Vec<_> = results.try_iter().collect();
        all.sort_unstable();
        assert_eq!(all, [("receiver", 1), ("receiver", 2), ("select", 0)]);
    });
}

#[test]
fn se_11_a_lost_select_at_the_end_of_the_queue_leaves_no_trace() {
    // The queue's tail must be mended too: the next waiter joins behind the plain receiver, not behind the node that has gone.
    rt(1, || {
        let (tx1, rx1) = unbuffered();
        let (tx2, rx2) = unbuffered::<i32>();
        let first = go({
            let rx1 = rx1.clone();
            move || rx1.recv().unwrap()
        });
        quiesce();
        let select = go({
            let rx1 = rx1.clone();
            move || {
                select! {
                    recv(rx1) -> _ => unreachable!(),
                    recv(rx2) -> v => v.unwrap(),
                }
            }
        });
        quiesce();
        tx2.send(0).unwrap();
        select.join().unwrap();
        let second = go(move || rx1.recv().unwrap());
        quiesce();
        tx1.send(1).unwrap();
        tx1.send(2).unwrap();
        assert_eq!((first.join().unwrap(), second.join().unwrap()), (1, 2));
    });
}

#[test]
fn se_13_a_failed_receive_means_closed_and_drained() {
    at_1_2_4(|| {
        for _ in 0..50 {
            let (tx, rx) = bounded(10);
            let (_keep, quiet) = unbuffered::<i32>();
            let receiver = go(move || {
                let mut expected = 0;
                loop {
                    select! {
                        recv(rx) -> v => match v {
                            Ok(v) => { assert_eq!(v, expected); expected += 1; }
                            Err(_) => return expected,
                        },
                        recv(quiet) -> _ => unreachable!(),
                    }
                }
            });
            (0..100).for_each(|n| tx.send(n).unwrap());
            tx.close().unwrap();
            assert_eq!(receiver.join().unwrap(), 100);
        }
    });
}

#[test]
fn se_17_selects_over_the_same_channels_in_any_order_never_deadlock() {
    let total = at_length(100_000, 1_000_000);
    for workers in [1, 2, 4] {
        for parties in [2, 4, 6, 8] {
            let rounds = total / 12 / parties;
            rt(workers, || {
                let channels: Vec<Chan<usize>> = (0..4).map(|_| Chan::unbuffered()).collect();
                let sum = AtomicUsize::new(0);
                oxigo::scope(|s| {
                    for party in 0..parties {
                        let (channels, sum) = (&channels, &sum);
                        s.go(move || {
                            let mut random = (workers * 100 + parties * 10 + party) as u64;
                            for n in 0..rounds {
                                let [a, b, c, d] = permutation(&mut random).map(|i| &channels[i]);
                                if party % 2 == 0 {
                                    let [a, b, c, d] = [a, b, c, d].map(Chan::sender);
                                    select! {
                                        send(a, n) -> r => r.unwrap(),
                                        send(b, n) -> r => r.unwrap(),
                                        send(c, n) -> r => r.unwrap(),
                                        send(d, n) -> r => r.unwrap(),
                                    }
                                } else {
                                    let [a, b, c, d] = [a, b, c, d].map(Chan::receiver);
                                    let n = select! {
                                        recv(a) -> n => n.unwrap(),
                                        recv(b) -> n => n.unwrap(),
                                        recv(c) -> n => n.unwrap(),
                                        recv(d) -> n => n.unwrap(),
                                    };
                                    sum.fetch_add(n, SeqCst);
                                }
                            }
                        });
                    }
                });
                assert_eq!(sum.into_inner(), parties / 2 * (rounds * (rounds - 1) / 2));
            });
        }
    }
}

/// One of the 24 orders of four things.
fn permutation(random: &mut u64) -> [usize; 4] {
    let mut order = [0, 1, 2, 3];
    for i in (1..4).rev() {
        // Knuth's linear congruence; its upper bits are the good ones.
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(i, (*random >> 33) as usize % (i + 1));
    }
    order
}

#[test]
fn cc_08_close_wakes_parked_selects() {
    rt(1, || {
        let (tx, rx) = unbuffered::<i32>();
        let (_keep, quiet) = unbuffered::<i32>();
        let receivers: Vec<_> = (0..10)
            .map(|_| {
                let (rx, quiet) = (rx.clone(), quiet.clone());
                go(move || {
                    select! {
                        recv(quiet) -> _ => unreachable!(),
                        recv(rx) -> v => v,
                    }
                })
            })
            .collect();
        quiesce();
        tx.close().unwrap();
        for receiver in receivers {
            assert_eq!(receiver.join().unwrap(), Err(RecvError));
        }

        let c = Chan::bounded(1);
        c.send(0).unwrap();
        let senders: Vec<_> = (1..10)
            .map(|n| {
                let (tx, quiet) = (c.sender(), quiet.clone());
                go(move || {
                    select! {
                        send(tx, n) -> sent => sent.map_err(SendError::into_inner),
                        recv(quiet) -> _ => unreachable!(),
                    }
                })
            })
            .collect();
        quiesce();
        c.close().unwrap();
        for (sender, n) in senders.into_iter().zip(1..) {
            assert_eq!(sender.join().unwrap(), Err(n), "the value comes back");
        }
        assert_eq!((c.recv(), c.recv()), (Ok(0), Err(RecvError)), "what was parked at the close is never received");
    });
}

#[test]
fn cc_08_a_peer_that_is_gone_wakes_parked_selects() {
    rt(1, || {
        let (tx, rx) = unbuffered::<i32>();
        let quiet = never::<i32>();
        let sender = go(move || {
            select! {
                send(tx, 4) -> sent => sent,
                recv(quiet) -> _ => unreachable!(),
            }
        });
        quiesce();
        drop(rx);
        assert_eq!(sender.join().unwrap(), Err(SendError(4)));
    });
}

#[test]
fn cc_09_a_racing_close_never_hides_a_buffered_value() {
    for workers in [1, 2, 4] {
        rt(workers, || {
            for _ in 0..4_000 {
                let c = Chan::bounded(1);
                c.send(()).unwrap();
                let looker = go({
                    let rx = c.receiver();
                    move || select! { recv(rx) -> _ => true, default => false }
                });
                c.close().unwrap();
                let _ = c.recv();
                assert!(looker.join().unwrap(), "neither the value nor the close was seen");
            }
        });
    }
}

#[test]
fn cq_03_one_channel_many_times_in_one_select() {
    rt(1, || {
        let (tx, rx) = unbuffered();
        let (tx2, rx2) = unbuffered();
        let waits = go(move || {
            let mut sum = 0;
            for _ in 0..100 {
                sum += select! {
                    recv(rx) -> v => v.unwrap(),
                    recv(rx2) -> v => v.unwrap(),
                    recv(rx) -> v => v.unwrap(),
                    recv(rx) -> v => v.unwrap(),
                };
            }
            sum
        });
        for n in 0..100 {
            quiesce();
            if n % 2 == 0 {
                tx.try_send(n).unwrap()
            } else {
                tx2.try_send(n).unwrap()
            }
            // One node of it was served; the others are gone, or lost: they take nothing.
            assert!(tx.try_send(n).is_err() && tx2.try_send(n).is_err());
        }
        assert_eq!(waits.join().unwrap(), 99 * 100 / 2);
    });
}

#[test]
fn cq_04_exactly_one_partner_completes_a_select() {
    for workers in [1, 2, 4] {
        rt(workers, || {
            let n = at_length(10_000, 100_000) as u32;
            let ends: Vec<_> = (0..4).map(|_| unbuffered()).collect();
            let tx: Vec<Sender<u32>> = ends.iter().map(|(tx, _)| tx.clone()).collect();
            let sender = go(move || {
                for i in 0..n {
                    select! {
                        send(tx[0], i) -> r => r.unwrap(),
                        send(tx[1], i) -> r => r.unwrap(),
                        send(tx[2], i) -> r => r.unwrap(),
                        send(tx[3], i) -> r => r.unwrap(),
                    }
                }
                tx.iter().for_each(|tx| tx.close().unwrap());
            });
            let receivers: Vec<_> =
                ends.into_iter().map(|(_, rx)| go(move || rx.iter().collect::<Vec<u32>>())).collect();
            sender.join().unwrap();
            let mut all: Vec<u32> = receivers.into_iter().flat_map(|r| r.join().unwrap()).collect();
            all.sort_unstable();
            assert!(all.iter().copied().eq(0..n), "a value was lost or seen twice");
        });
    }
}

#[test]
fn cq_04_selects_on_both_sides_and_threads_among_them() {
    // Selecting senders against selecting receivers, half of them threads: every value arrives once.
    rt(2, || {
        let (a, b) = (Chan::unbuffered(), Chan::bounded(1));
        let n = 1_500;
        let send = |a: Sender<u64>, b: Sender<u64>, base: u64| {
            move || {
                for i in base..base + n {
                    select! {
                        send(a, i) -> r => r.unwrap(),
                        send(b, i) -> r => r.unwrap(),
                    }
                }
            }
        };
        let receive = |a: Receiver<u64>, b: Receiver<u64>| {
            move || {
                (0..n).map(|_| select! { recv(b) -> v => v.unwrap(), recv(a) -> v => v.unwrap() }).collect::<Vec<_>>()
            }
        };
        let sender = go(send(a.sender(), b.sender(), 0));
        let thread_sender = thread::spawn(send(a.sender(), b.sender(), n));
        let receiver = go(receive(a.receiver(), b.receiver()));
        let thread_receiver = thread::spawn(receive(a.receiver(), b.receiver()));
        let mut all = receiver.join().unwrap();
        all.extend(oxigo::blocking(|| thread_receiver.join().unwrap()));
        all.sort_unstable();
        assert!(all.into_iter().eq(0..2 * n));
        sender.join().unwrap();
        oxigo::blocking(|| thread_sender.join().unwrap());
    });
}
