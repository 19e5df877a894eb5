//! Directions and wait queues: groups CD and CQ of the conformance list.
//!
//! What must not compile (CD-01, CD-02) is in `compile_fail` examples of `Sender`, `Receiver` and `Chan`. CQ-05 and CQ-06 measure, and
//! are in `chan_cost.rs`.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use common::{at_1_2_4, quiesce, rt};
use oxigo::{
    Chan, Receiver, Sender, WaitGroup, bounded,
    chan::{RecvCtxError, SendCtxError, never},
    context::{Context, ContextError},
    go, select, unbuffered, yield_now,
};

#[test]
fn cd_01_a_two_way_channel_turns_into_either_end() {
    let chan = Chan::bounded(1);
    let tx: Sender<u32> = chan.clone().into();
    let rx: Receiver<u32> = chan.clone().into();
    fn send(tx: Sender<u32>) {
        tx.send(1).unwrap();
    }

    fn receive(rx: impl Into<Receiver<u32>>) -> u32 {
        rx.into().recv().unwrap()
    }
    send(chan.clone().into());
    assert_eq!(receive(chan.clone()), 1);
    tx.send(2).unwrap();
    assert_eq!(rx.recv(), Ok(2));
    drop(chan);
    drop(tx);
    assert!(rx.recv().is_err(), "the clones have gone into what they turned into");
}

/// As crossbeam's: it is made of nothing, so a static may hold one.
#[test]
fn cn_02_never_is_a_constant() {
    static DISABLED: Receiver<u32> = never();
    select! {
        recv(DISABLED) -> _ => unreachable!("never"),
        default => {}
    }
    assert!(DISABLED.same_channel(&never()));
}

#[test]
fn cd_02_a_sending_end_may_close() {
    let (tx, rx) = unbuffered::<u8>();
    tx.close().unwrap();
    assert!(rx.is_closed());
}

#[test]
fn cd_03_channels_carry_channels_of_any_direction() {
    at_1_2_4(|| {
        // A request carries the end on which the answer is wanted, and the answer carries a channel too.
        let requests = Chan::<Sender<Chan<Receiver<u32>>>>::unbuffered();
        let served = requests.receiver();
        let server = go(move || {
            for reply in served {
                let chan = Chan::bounded(1);
                let (tx, rx) = bounded(1);
                tx.send(17).unwrap();
                chan.send(rx).unwrap();
                reply.send(chan).unwrap();
            }
        });
        for _ in 0..10 {
            let (reply, answer) = unbuffered();
            requests.send(reply).unwrap();
            assert_eq!(answer.recv().unwrap().recv().unwrap().recv(), Ok(17));
            assert!(answer.recv().is_err(), "the server's end went with the request");
        }
        requests.close().unwrap();
        server.join().unwrap();
    });
}

/// How a party waits: all kinds stand in one queue.
fn wait_as(kind: usize, rx: &Receiver<usize>) -> usize {
    match kind % 3 {
        0 => rx.recv().unwrap(),
        1 => rx.recv_timeout(Duration::from_secs(600)).unwrap(),
        _ => select! { recv(rx) -> v => v.unwrap(), recv(never::<()>()) -> _ => unreachable!("never") },
    }
}

#[test]
fn cq_01_receivers_are_served_in_the_order_they_came() {
    for capacity in [0, 4] {
        rt(1, || {
            let (tx, rx) = bounded(capacity);
            let receivers: Vec<_> = (0..100)
                .map(|n| {
                    let rx = rx.clone();
                    let receiver = go(move || wait_as(n, &rx));
                    // Until it waits: on one worker nothing else runs after so many turns.
                    (0..3).for_each(|_| yield_now());
                    receiver
                })
                .collect();
            quiesce();
            (0..100).for_each(|n| tx.send(n).unwrap());
            for (n, receiver) in receivers.into_iter().enumerate() {
                assert_eq!(receiver.join().unwrap(), n);
            }
        });
    }
}

#[test]
fn cq_01_senders_are_served_in_the_order_they_came() {
    rt(1, || {
        let (tx, rx) = unbuffered();
        let senders: Vec<_> = (0..100)
            .map(|n| {
                let tx = tx.clone();
                let sender = go(move || match n % 3 {
                    0 => tx.send(n).unwrap(),
                    1 => tx.send_timeout(n, Duration::from_secs(600)).unwrap(),
                    _ => select! { send(tx, n) -> r => r.unwrap(), recv(never::<()>()) -> _ => {} },
                });
                (0..3).for_each(|_| yield_now());
                sender
            })
            .collect();
        quiesce();
        assert!((0..100).all(|n| rx.recv() == Ok(n)));
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

/// One who has given up is passed over, and those behind it move up.
#[test]
fn cq_01_who_has_given_up_is_passed_over() {
    rt(1, || {
        let (tx, rx) = unbuffered::<usize>();
        let spawn = |limit: Duration| {
            let rx = rx.clone();
            let receiver = go(move || rx.recv_timeout(limit).ok());
            quiesce();
            receiver
        };
        let brief = Duration::from_millis(5);
        let long = Duration::from_secs(600);
        let waiting = [long, brief, brief, long, brief, long].map(spawn);
        let [a, b, c, d, e, f] = waiting;
        for gone in [b, c, e] {
            assert_eq!(gone.join().unwrap(), None);
        }
        (0..3).for_each(|n| tx.send(n).unwrap());
        assert_eq!([a, d, f].map(|r| r.join().unwrap()), [Some(0), Some(1), Some(2)]);
    });
}

/// Go's test/chan/select6: a receiver waits, behind it a select on the same channel that is completed through another one, and behind
/// that one more receiver. Two sends must reach the two receivers.
#[test]
fn cq_02_a_select_that_was_completed_elsewhere_leaves_the_queue() {
    at_1_2_4(|| {
        for _ in 0..100 {
            let (tx, rx) = unbuffered();
            let (other, elsewhere) = unbuffered();
            let from = rx.clone();
            let first = go(move || from.recv().unwrap());
            let from = rx.clone();
            let selecting = go(move || {
                select! {
                    recv(from) -> _ => panic!("it lost on this channel"),
                    recv(elsewhere) -> value => value.unwrap(),
                }
            });
            (0..20).for_each(|_| yield_now());
            other.send(true).unwrap();
            assert!(selecting.join().unwrap());
            let second = go(move || rx.recv().unwrap());
            tx.send(1).unwrap();
            tx.send(2).unwrap();
            let mut values = [first.join().unwrap(), second.join().unwrap()];
            values.sort_unstable();
            assert_eq!(values, [1, 2]);
        }
    });
}

/// Go's TestSelectDuplicateChannel.
#[test]
fn cq_03_one_party_may_stand_in_a_queue_several_times() {
    at_1_2_4(|| {
        for _ in 0..100 {
            let (tx, rx) = unbuffered();
            let (other_tx, other) = unbuffered();
            let (from, also) = (rx.clone(), other.clone());
            // Stands three times for `rx`, and is served once.
            let many = go(move || {
                select! {
                    recv(from) -> v => v.unwrap(),
                    recv(also) -> v => v.unwrap(),
                    recv(from) -> v => v.unwrap(),
                    recv(from) -> v => v.unwrap(),
                }
            });
            let behind = go(move || rx.recv().unwrap());
            (0..10).for_each(|_| yield_now());
            tx.send(1).unwrap();
            tx.send(2).unwrap();
            assert_eq!(many.join().unwrap() + behind.join().unwrap(), 3);
            drop(other_tx);
            assert!(other.recv().is_err());
        }
    });
}

/// Go's test/chan/doubleselect: a sender that selects over four channels, merged by four readers; a value that was sent by two arms would
/// come twice, one sent by none would be missing.
#[test]
fn cq_04_one_partner_completes_a_select() {
    const N: u32 = 5000;
    at_1_2_4(|| {
        let (ends, readers): (Vec<Sender<u32>>, Vec<_>) = (0..4).map(|_| unbuffered()).unzip();
        let (merged, values) = unbuffered();
        for rx in readers {
            let merged = merged.clone();
            go(move || rx.iter().for_each(|v| merged.send(v).unwrap()));
        }
        drop(merged);
        go(move || {
            for n in 0..N {
                select! {
                    send(ends[0], n) -> r => r.unwrap(),
                    send(ends[1], n) -> r => r.unwrap(),
                    send(ends[2], n) -> r => r.unwrap(),
                    send(ends[3], n) -> r => r.unwrap(),
                }
            }
        });
        let mut all: Vec<_> = values.iter().collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..N));
    });
}

/// The same for a select that receives: two senders race for it, on two channels.
#[test]
fn cq_04_two_senders_race_for_one_select() {
    const N: usize = 3000;
    at_1_2_4(|| {
        let (ends, from): (Vec<Sender<usize>>, Vec<_>) = (0..2).map(|_| unbuffered()).unzip();
        let senders: Vec<_> = ends.into_iter().map(|tx| go(move || (0..N).for_each(|n| tx.send(n).unwrap()))).collect();
        let mut next = [0, 0];
        for _ in 0..2 * N {
            let (who, value) = select! {
                recv(from[0]) -> v => (0, v),
                recv(from[1]) -> v => (1, v),
            };
            match value {
                Ok(value) => {
                    assert_eq!(value, next[who], "none lost, none twice");
                    next[who] += 1;
                }
                // One has sent all it had; the other's values come in order.
                Err(_) => {
                    assert_eq!(next[who], N);
                    from[1 - who].iter().for_each(|value| {
                        assert_eq!(value, next[1 - who]);
                        next[1 - who] += 1;
                    });
                    break;
                }
            }
        }
        assert_eq!(next, [N, N]);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

/// Of senders and receivers only one kind can be left waiting, so as many are done as there are pairs.
#[test]
fn cq_07_senders_and_receivers_never_wait_side_by_side() {
    rt(1, || {
        let mut seed = 12345_u64;
        let mut random = move |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        for round in 0..60 {
            let (tx, rx) = unbuffered();
            let sent = Arc::new(AtomicUsize::new(0));
            let received = Arc::new(AtomicUsize::new(0));
            let group = Arc::new(WaitGroup::new());
            let (mut senders, mut receivers) = (0, 0);
            for _ in 0..random(40) {
                if random(2) == 0 {
                    senders += 1;
                    let (tx, count) = (tx.clone(), Arc::clone(&sent));
                    let selects = random(2) == 0;
                    group.go(move || {
                        let result = if selects {
                            select! { send(tx, 1) -> r => r, recv(never::<()>()) -> _ => Ok(()) }
                        } else {
                            tx.send(1)
                        };
                        count.fetch_add(usize::from(result.is_ok()), SeqCst);
                    });
                } else {
                    receivers += 1;
                    let (rx, count) = (rx.clone(), Arc::clone(&received));
                    let selects = random(2) == 0;
                    group.go(move || {
                        let result = if selects {
                            select! { recv(rx) -> v => v, recv(never::<()>()) -> _ => Ok(0) }
                        } else {
                            rx.recv()
                        };
                        count.fetch_add(usize::from(result.is_ok()), SeqCst);
                    });
                }
                if random(3) == 0 {
                    (0..random(50)).for_each(|_| yield_now());
                }
            }
            (0..200).for_each(|_| yield_now());
            let pairs = senders.min(receivers);
            assert_eq!((sent.load(SeqCst), received.load(SeqCst)), (pairs, pairs), "round {round}");
            tx.close().unwrap();
            group.wait();
            assert_eq!((sent.load(SeqCst), received.load(SeqCst)), (pairs, pairs), "round {round}, after the close");
        }
    });
}

/// A party that waits in both queues of a channel does not meet itself, but does meet another that does the same.
#[test]
fn cq_07_one_party_in_both_queues() {
    rt(1, || {
        let chan = Chan::unbuffered();
        let both = |me: usize| {
            let chan = chan.clone();
            move || {
                let (tx, rx) = (chan.sender(), chan.receiver());
                select! {
                    send(tx, me) -> r => { r.unwrap(); None }
                    recv(rx) -> v => Some(v.unwrap()),
                }
            }
        };
        let first = go(both(1));
        quiesce();
        assert!(!first.is_finished(), "it has met itself");
        let second = go(both(2));
        let ends = (first.join().unwrap(), second.join().unwrap());
        assert!(matches!(ends, (None, Some(1)) | (Some(2), None)), "{ends:?}");
    });
}

#[test]
fn cq_08_unpark_does_not_end_an_operation() {
    rt(1, || {
        let (tx, rx) = unbuffered();
        let (quiet, silence) = unbuffered::<u32>();
        let (from, silent) = (rx.clone(), silence.clone());
        let receiver = go(move || from.recv());
        let (from, silent2) = (rx.clone(), silent);
        let selecting = go(move || select! { recv(from) -> v => v, recv(silent2) -> v => v });
        let timed = go(move || rx.recv_timeout(Duration::from_secs(600)).unwrap());
        for _ in 0..100 {
            // Before it waits, while it waits, twice in a row.
            for goroutine in [receiver.goroutine(), selecting.goroutine(), timed.goroutine()] {
                goroutine.unpark();
                goroutine.unpark();
            }
            yield_now();
        }
        quiesce();
        assert!(!receiver.is_finished() && !selecting.is_finished() && !timed.is_finished());
        (1..=3).for_each(|n| tx.send(n).unwrap());
        let mut values = [receiver.join().unwrap().unwrap(), selecting.join().unwrap().unwrap(), timed.join().unwrap()];
        values.sort_unstable();
        assert_eq!(values, [1, 2, 3]);
        drop((quiet, silence));
    });
}

#[test]
fn cq_08_nor_does_unparking_a_thread() {
    let (tx, rx) = unbuffered();
    let thread = std::thread::spawn(move || (0..200).map(|_| rx.recv().unwrap()).collect::<Vec<u32>>());
    for n in 0..200 {
        thread.thread().unpark();
        tx.send(n).unwrap();
        thread.thread().unpark();
    }
    assert!(thread.join().unwrap().into_iter().eq(0..200));
}

/// A receiver that was chosen by a two-step send waits again when that is given up: who watches for it must be told.
#[test]
fn a_send_that_is_given_up_tells_those_who_watch() {
    let (sender, receiver) = oxigo::unbuffered::<u32>();
    let receives = std::thread::spawn(move || receiver.recv());
    let mut select = oxigo::chan::Select::new();
    select.send(&sender);
    let operation = loop {
        match select.try_select() {
            Ok(operation) => break operation,
            Err(_) => std::thread::yield_now(),
        }
    };
    let second = sender.clone();
    let watches = std::thread::spawn(move || {
        let mut select = oxigo::chan::Select::new();
        select.send(&second);
        let begin = std::time::Instant::now();
        let ready = select.ready_timeout(std::time::Duration::from_secs(10));
        (ready, begin.elapsed())
    });
    std::thread::sleep(std::time::Duration::from_millis(100));
    let given_up = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || drop(operation)));
    assert!(given_up.is_err());
    let (ready, took) = watches.join().unwrap();
    assert_eq!(ready, Ok(0));
    assert!(took < std::time::Duration::from_secs(9), "found by its time limit only: {took:?}");
    sender.send(1).unwrap();
    assert_eq!(receives.join().unwrap(), Ok(1));
}

/// A context ends the operations of a `Chan` as those of its ends.
#[test]
fn cd_01_a_context_ends_the_operations_of_a_two_way_channel() {
    let (ctx, cancel) = Context::background().with_cancel();
    let numbers = oxigo::Chan::bounded(1);
    numbers.send_ctx(1, &ctx).unwrap();
    assert_eq!(numbers.recv_ctx(&ctx), Ok(1));
    cancel.cancel();
    assert_eq!(numbers.recv_ctx(&ctx), Err(RecvCtxError::Context(ContextError::Canceled)));
    assert_eq!(numbers.send_ctx(2, &ctx), Err(SendCtxError::Context(2, ContextError::Canceled)));
    assert!(numbers.is_empty());
}

#[test]
fn cl_01_a_two_way_channel_without_bound_never_waits_to_send() {
    let numbers = Chan::unbounded();
    (0..1000).for_each(|n| numbers.send(n).unwrap());
    assert_eq!((numbers.len(), numbers.capacity(), numbers.is_full()), (1000, None, false));
    numbers.close().unwrap();
    assert!(numbers.iter().eq(0..1000));
}

/// A loop that owns the `Chan` ends by `close` only, as one that borrows it.
#[test]
fn cr_01_a_loop_that_owns_a_two_way_channel_ends_by_close() {
    at_1_2_4(|| {
        let numbers = oxigo::Chan::bounded(2);
        let (other, watched) = (numbers.sender(), numbers.sender());
        let sum = oxigo::go(move || numbers.into_iter().sum::<u32>());
        (1..=10).for_each(|n| other.send(n).unwrap());
        drop(other);
        for _ in 0..100 {
            oxigo::yield_now();
        }
        assert!(!sum.is_finished() && !watched.is_closed());
        watched.close().unwrap();
        assert_eq!(sum.join().unwrap(), 55);

        let alone = oxigo::Chan::bounded(1);
        let receiver = alone.receiver();
        alone.send(7).unwrap();
        let mut values = alone.into_iter();
        assert_eq!(values.next(), Some(7));
        assert!(!receiver.is_closed(), "the iterator counts as a sender");
        drop(values);
        assert!(receiver.is_closed());
    });
}
