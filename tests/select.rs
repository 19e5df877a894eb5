//! Groups SE, CN, CC and CQ as far as they concern `select!`: what is evaluated when, what is chosen, what is left behind.

mod common;

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use common::{Counted, at_1_2_4, at_length, closed_sender, quiesce, rt};
use oxigo::{
    Builder, Chan, Receiver, Sender, bounded,
    chan::{RecvError, SendError, after, at, never, tick},
    go, select, select_biased, unbounded, unbuffered, yield_now,
};

/// A receiver that is ready for ever.
fn closed<T>() -> Receiver<T> {
    unbuffered().1
}

/// Starts `body` on the current runtime of one worker, and says whether it has ended when nothing can run any more.
fn ends(body: impl FnOnce() + Send + 'static) -> bool {
    let handle = go(body);
    quiesce();
    handle.is_finished()
}

/// Pearson's statistic for equal shares. For eight kinds at most, 50 is exceeded once in more than 10⁷ fair runs.
fn chi_squared(counts: &[u32]) -> f64 {
    let expected = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
    counts.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum()
}

#[test]
fn se_01_operands_and_values_are_evaluated_once_in_source_order_on_entry() {
    let log = RefCell::new(Vec::new());
    let note = |what: &'static str| log.borrow_mut().push(what);
    let (tx, _full) = bounded(1);
    tx.send(0).unwrap();
    let (idle, _keep) = unbuffered::<i32>();
    let quiet = never::<i32>();
    let end = closed::<i32>();

    // Whichever is chosen, a closed receiver here…
    select! {
        recv({ note("receiver 1"); &quiet }) -> _ => unreachable!(),
        send({ note("sender 2"); &tx }, { note("value 2"); 1 }) -> _ => unreachable!(),
        recv({ note("receiver 3"); &end }) -> v => { v.unwrap_err(); note("body 3"); }
        send({ note("sender 4"); &idle }, { note("value 4"); 1 }) -> _ => unreachable!(),
    }
    let entry = ["receiver 1", "sender 2", "value 2", "receiver 3", "sender 4", "value 4"];
    assert_eq!(log.borrow()[..6], entry, "{log:?}");
    assert_eq!(log.borrow()[6..], ["body 3"]);

    // …or the default, with or without a time.
    log.borrow_mut().clear();
    select! {
        send({ note("sender 1"); &tx }, { note("value 1"); 1 }) -> _ => unreachable!(),
        default => note("default"),
    }
    assert_eq!(*log.borrow(), ["sender 1", "value 1", "default"]);

    log.borrow_mut().clear();
    select! {
        send({ note("sender 1"); &tx }, { note("value 1"); 1 }) -> _ => unreachable!(),
        recv({ note("receiver 2"); &quiet }) -> _ => unreachable!(),
        default({ note("duration"); Duration::from_millis(1) }) => note("default"),
    }
    assert_eq!(*log.borrow(), ["sender 1", "value 1", "receiver 2", "duration", "default"]);
}

#[test]
fn se_01_a_partner_never_waits_for_user_code() {
    // The value is there before the select begins, so the receiver has it while the body still runs.
    at_1_2_4(|| {
        let (tx, rx) = unbuffered();
        let (told, tell) = unbuffered();
        let receiver = go(move || {
            assert_eq!(rx.recv(), Ok(7));
            told.send(()).unwrap();
        });
        select! {
            send(tx, 7) -> sent => {
                sent.unwrap();
                tell.recv().unwrap();
            }
        }
        receiver.join().unwrap();
    });
}

#[test]
fn se_02_only_the_chosen_arm_runs() {
    let (tx, rx) = bounded(1);
    tx.send(3).unwrap();
    let quiet = never::<i32>();
    let looked_up = RefCell::new(Vec::new());
    let index = |i: usize| {
        looked_up.borrow_mut().push(i);
        i
    };
    let mut places = [0; 2];
    select! {
        recv(quiet) -> v => places[index(0)] = v.unwrap(),
        recv(rx) -> v => places[index(1)] = v.unwrap(),
    }
    assert_eq!((places, looked_up.into_inner()), ([0, 3], vec![1]));
}

/// A select over so many receivers; the index of the chosen one.
macro_rules! choose {
    ($rx:ident; $($i:literal)*) => {
        select! { $(recv($rx[$i]) -> _ => $i,)* }
    };
}

fn choose_of(k: usize, rx: &[Receiver<()>]) -> usize {
    match k {
        2 => choose!(rx; 0 1),
        3 => choose!(rx; 0 1 2),
        4 => choose!(rx; 0 1 2 3),
        5 => choose!(rx; 0 1 2 3 4),
        6 => choose!(rx; 0 1 2 3 4 5),
        7 => choose!(rx; 0 1 2 3 4 5 6),
        8 => choose!(rx; 0 1 2 3 4 5 6 7),
        _ => unreachable!(),
    }
}

#[test]
fn se_03_ready_arms_are_equally_likely() {
    for k in 2..=8 {
        let rx: Vec<Receiver<()>> = (0..k).map(|_| closed()).collect();
        let mut counts = vec![0; k];
        for _ in 0..30_000 {
            counts[choose_of(k, &rx)] += 1;
        }
        assert!(chi_squared(&counts) < 50.0, "{counts:?}");
    }
}

#[test]
fn se_03_arms_that_are_not_ready_change_nothing() {
    let (a, b, quiet) = (closed::<()>(), closed::<()>(), never::<()>());
    let (full, _rx) = bounded(1);
    full.send(()).unwrap();
    let mut counts = [0; 2];
    for _ in 0..30_000 {
        let chosen = select! {
            recv(a) -> _ => 0,
            send(full, ()) -> _ => unreachable!(),
            recv(quiet) -> _ => unreachable!(),
            recv(b) -> _ => 1,
        };
        counts[chosen] += 1;
    }
    assert!(chi_squared(&counts) < 50.0, "{counts:?}");
}

#[test]
fn se_03_a_channel_listed_twice_counts_twice() {
    let (a, b) = (closed::<()>(), closed::<()>());
    let mut counts = [0; 3];
    for _ in 0..30_000 {
        let chosen = select! {
            recv(a) -> _ => 0,
            recv(a) -> _ => 1,
            recv(b) -> _ => 2,
        };
        counts[chosen] += 1;
    }
    assert!(chi_squared(&counts) < 50.0, "{counts:?}");
}

#[test]
fn se_03_arms_on_one_channel_are_equally_likely_when_parked_too() {
    rt(1, || {
        let (tx, rx) = unbuffered();
        let sender = go(move || (0..4_000).for_each(|n| tx.send(n).unwrap()));
        let mut counts = [0; 2];
        for _ in 0..4_000 {
            // On one worker the sender comes only after we have parked, or it is parked and we find it.
            let chosen = select! {
                recv(rx) -> n => { n.unwrap(); 0 }
                recv(rx) -> n => { n.unwrap(); 1 }
            };
            counts[chosen] += 1;
        }
        sender.join().unwrap();
        assert!(chi_squared(&counts) < 50.0, "{counts:?}");
    });
}

#[test]
fn se_03_sends_and_receives_of_all_kinds_are_equally_likely() {
    let end = closed::<i32>();
    let (bounded_tx, bounded_rx) = bounded(1);
    let (unbounded_tx, unbounded_rx) = unbounded();
    let (closed_tx, _closed_rx) = closed_sender::<i32>();
    let (ready, value) = bounded(1);
    ready.send(0).unwrap();
    let due = tick(Duration::ZERO);
    let mut counts = [0; 6];
    for _ in 0..30_000 {
        let chosen = select! {
            recv(end) -> v => { v.unwrap_err(); 0 }
            send(bounded_tx, 1) -> sent => { sent.unwrap(); bounded_rx.recv().unwrap(); 1 }
            send(unbounded_tx, 1) -> sent => { sent.unwrap(); unbounded_rx.recv().unwrap(); 2 }
            send(closed_tx, 1) -> sent => { assert_eq!(sent, Err(SendError(1))); 3 }
            recv(value) -> v => { ready.send(v.unwrap()).unwrap(); 4 }
            recv(due) -> t => { t.unwrap(); 5 }
        };
        counts[chosen] += 1;
    }
    assert!(chi_squared(&counts) < 50.0, "{counts:?}");
}

#[test]
fn se_03_biased_takes_the_first_ready_arm() {
    let (a, b, quiet) = (closed::<()>(), closed::<()>(), never::<()>());
    for _ in 0..1_000 {
        select_biased! {
            recv(quiet) -> _ => unreachable!(),
            recv(a) -> _ => {}
            recv(b) -> _ => panic!("the second ready arm was chosen"),
            default => panic!("the default was chosen"),
        }
    }
}

/// A token wanders between two channels and is never outside both: it is in the next before it leaves the last. Whoever looks at both at
/// one instant sees it; whoever looks at one after the other may miss it.
#[test]
fn se_04_default_runs_only_if_nothing_was_ready_at_one_instant() {
    for workers in [1, 2, 4] {
        rt(workers, || {
            let (a, b) = (Chan::bounded(2), Chan::bounded(2));
            a.send(()).unwrap();
            let stop = AtomicBool::new(false);
            oxigo::scope(|s| {
                s.go(|| {
                    while !stop.load(SeqCst) {
                        b.send(()).unwrap();
                        a.recv().unwrap();
                        a.send(()).unwrap();
                        b.recv().unwrap();
                        yield_now();
                    }
                });
                let (from_a, from_b) = (a.receiver(), b.receiver());
                for _ in 0..20_000 / workers {
                    // Taking a token would break the invariant, so it is put back before the wanderer can miss it: it waits for it.
                    select! {
                        recv(from_a) -> token => { token.unwrap(); a.send(()).unwrap() }
                        recv(from_b) -> token => { token.unwrap(); b.send(()).unwrap() }
                        default => panic!("one of the two channels always held a token"),
                    }
                }
                stop.store(true, SeqCst);
            });
        });
    }
}

/// Go's TestNonblockSelectRace and TestNonblockSelectRace2. The second channel becomes ready before the first ceases to be, so a select
/// over both never finds neither, in whichever order it looks. The arms between them give one that looks at them in turn the time to err.
#[test]
fn se_04_one_of_two_is_ready_at_every_instant() {
    const AT_ONCE: usize = 100;
    for (workers, close_instead) in [1, 2, 4].into_iter().flat_map(|workers| [(workers, false), (workers, true)]) {
        rt(workers, || {
            let (_keep, quiet) = bounded::<()>(1);
            let begin = Instant::now();
            for _ in 0..at_length(4_000, 100_000) / AT_ONCE {
                // On a busy machine each meeting takes a time slice.
                if begin.elapsed() > Duration::from_secs(if cfg!(debug_assertions) { 1 } else { 5 }) {
                    break;
                }
                let pairs: Arc<Vec<(Chan<()>, Chan<()>)>> = Arc::new(
                    (0..AT_ONCE)
                        .map(|_| (Chan::bounded(1), Chan::bounded(usize::from(!close_instead))))
                        .inspect(|(first, _)| first.send(()).unwrap())
                        .collect(),
                );
                // Both begin a round at about the same time.
                let rounds = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
                let meet = |rounds: &[AtomicUsize; 2], me: usize, round: usize| {
                    rounds[me].store(round + 1, SeqCst);
                    while rounds[1 - me].load(SeqCst) <= round {
                        yield_now();
                    }
                };
                let looker = {
                    let (pairs, rounds, quiet) = (Arc::clone(&pairs), Arc::clone(&rounds), quiet.clone());
                    let body = move || {
                        let mut misses = 0;
                        for (round, (first, second)) in pairs.iter().enumerate() {
                            let (a, b) = if round % 2 == 0 { (first, second) } else { (second, first) };
                            let (a, b) = (a.receiver(), b.receiver());
                            meet(&rounds, 0, round);
                            select! {
                                recv(a) -> _ => {}
                                recv(quiet) -> _ => unreachable!(),
                                recv(quiet) -> _ => unreachable!(),
                                recv(quiet) -> _ => unreachable!(),
                                recv(quiet) -> _ => unreachable!(),
                                recv(b) -> _ => {}
                                default => misses += 1,
                            }
                        }
                        misses
                    };
                    Builder::new().spread().spawn(body).unwrap()
                };
                for (round, (first, second)) in pairs.iter().enumerate() {
                    let (tx, rx) = (second.sender(), first.receiver());
                    meet(&rounds, 1, round);
                    (0..round % 64).for_each(|_| std::hint::spin_loop());
                    if close_instead {
                        tx.close().unwrap();
                    } else {
                        tx.send(()).unwrap();
                    }
                    select! {
                        recv(rx) -> _ => {}
                        default => {}
                    }
                }
                let misses = looker.join().unwrap();
                assert_eq!(misses, 0, "neither the first channel nor the second was seen ready");
            }
        });
    }
}

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
fn se_06_an_empty_select_waits_for_ever() {
    rt(1, || {
        assert!(!ends(|| select! {}));
        assert!(!ends(|| select_biased! {}));
    });
}

#[test]
fn se_07_closed_channels_are_ready_like_others() {
    let (tx, rx) = bounded(1);
    let (closed, _rx) = closed_sender::<i32>();
    let (mut received, mut refused) = (0, 0);
    for _ in 0..10_000 {
        let _ = tx.try_send(1);
        select! {
            recv(rx) -> v => { v.unwrap(); received += 1; }
            send(closed, 9) -> sent => { assert_eq!(sent.unwrap_err().into_inner(), 9); refused += 1; }
        }
    }
    assert!(chi_squared(&[received, refused]) < 50.0, "{received} {refused}");
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

/// What a receive in one of the forms gave: a value, the close, or nothing.
#[derive(Debug, PartialEq)]
enum Got {
    Value(i32),
    Closed,
    Nothing,
}

impl From<Result<i32, RecvError>> for Got {
    fn from(result: Result<i32, RecvError>) -> Self {
        result.map_or(Self::Closed, Self::Value)
    }
}

type ReceiveForm<'a> = &'a dyn Fn(&Receiver<i32>) -> Got;

/// What a send in one of the forms gave: done, refused with the value, or nothing.
type Sent = Result<(), Option<i32>>;
type SendForm<'a> = &'a dyn Fn(&Sender<i32>) -> Sent;

#[test]
fn se_12_all_forms_of_an_operation_agree() {
    use oxigo::chan::{TryRecvError, TrySendError};
    let quiet = never::<i32>();
    // Each form of receiving; those without a default must not be asked to wait.
    let receive_forms: [ReceiveForm<'_>; 5] = [
        &|rx| match rx.try_recv() {
            Ok(v) => Got::Value(v),
            Err(TryRecvError::Disconnected) => Got::Closed,
            Err(TryRecvError::Empty) => Got::Nothing,
        },
        &|rx| select! { recv(rx) -> v => v.into(), default => Got::Nothing },
        &|rx| select! { recv(rx) -> v => v.into(), recv(quiet) -> v => v.into(), default => Got::Nothing },
        &|rx| select! { recv(rx) -> v => v.into(), default(Duration::from_millis(1)) => Got::Nothing },
        &|rx| select_biased! { recv(quiet) -> v => v.into(), recv(rx) -> v => v.into(), default => Got::Nothing },
    ];
    let waiting_receive_forms: [ReceiveForm<'_>; 3] = [
        &|rx| rx.recv().into(),
        &|rx| select! { recv(rx) -> v => v.into() },
        &|rx| select! { recv(quiet) -> v => v.into(), recv(rx) -> v => v.into() },
    ];
    for capacity in [0, 1, 3] {
        for filled in 0..=capacity {
            for is_closed in [false, true] {
                for waits in [false, true] {
                    let forms = if waits { &waiting_receive_forms[..] } else { &receive_forms[..] };
                    for form in forms {
                        let (tx, rx) = bounded(capacity);
                        (0..filled).for_each(|n| tx.send(n as i32).unwrap());
                        if is_closed {
                            tx.close().unwrap();
                        }
                        (0..filled).for_each(|n| assert_eq!(form(&rx), Got::Value(n as i32)));
                        if is_closed {
                            assert_eq!(form(&rx), Got::Closed);
                            assert_eq!(form(&rx), Got::Closed);
                        } else if !waits {
                            assert_eq!(form(&rx), Got::Nothing);
                        }
                    }
                }
            }
        }
    }

    fn sent(result: Result<(), SendError<i32>>) -> Sent {
        result.map_err(|error| Some(error.into_inner()))
    }
    let send_forms: [SendForm<'_>; 4] = [
        &|tx| match tx.try_send(7) {
            Ok(()) => Ok(()),
            Err(TrySendError::Disconnected(v)) => Err(Some(v)),
            Err(TrySendError::Full(_)) => Err(None),
        },
        &|tx| select! { send(tx, 7) -> s => sent(s), default => Err(None) },
        &|tx| select! { recv(quiet) -> _ => unreachable!(), send(tx, 7) -> s => sent(s), default => Err(None) },
        &|tx| {
            let mut slot = Some(7);
            select! { send(tx, from slot) -> s => sent(s), default => { assert_eq!(slot, Some(7)); Err(None) } }
        },
    ];
    let waiting_send_forms: [SendForm<'_>; 3] = [
        &|tx| sent(tx.send(7)),
        &|tx| select! { send(tx, 7) -> s => sent(s) },
        &|tx| select! { send(tx, 7) -> s => sent(s), recv(quiet) -> _ => unreachable!() },
    ];
    for capacity in [0, 1, 3] {
        for is_closed in [false, true] {
            for deaf in [false, true] {
                for waits in [false, true] {
                    let forms = if waits { &waiting_send_forms[..] } else { &send_forms[..] };
                    for form in forms {
                        let (tx, rx) = bounded(capacity);
                        let rx = (!deaf).then_some(rx);
                        if is_closed {
                            tx.close().unwrap();
                        }
                        if is_closed || deaf {
                            assert_eq!(form(&tx), Err(Some(7)));
                            continue;
                        }
                        (0..capacity).for_each(|_| assert_eq!(form(&tx), Ok(())));
                        if !waits {
                            assert_eq!(form(&tx), Err(None));
                        }
                        assert_eq!(rx.unwrap().len(), capacity);
                    }
                }
            }
        }
    }
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
fn se_14_bodies_are_plain_code() {
    fn first(rx: &Receiver<i32>, quiet: &Receiver<i32>) -> Result<i32, RecvError> {
        let value = select! {
            recv(rx) -> v => v?,
            recv(quiet) -> _ => return Ok(-1),
        };
        Ok(value + 1)
    }
    let (tx, rx) = bounded(8);
    let quiet = never();
    tx.send(1).unwrap();
    assert_eq!(first(&rx, &quiet), Ok(2));
    tx.send(2).unwrap();
    assert_eq!(first(&quiet, &rx), Ok(-1));

    (0..8).for_each(|n| tx.send(n).unwrap());
    let mut seen = Vec::new();
    'outer: loop {
        for _ in 0..100 {
            select! {
                recv(rx) -> n => match n.unwrap() {
                    1 => continue,
                    3 => continue 'outer,
                    6 => break 'outer,
                    n => seen.push(n),
                },
                default => unreachable!(),
            }
        }
    }
    assert_eq!(seen, [0, 2, 4, 5]);
    let rest = loop {
        select! {
            recv(rx) -> n => break n.unwrap(),
            recv(quiet) -> _ => {}
        }
    };
    assert_eq!(rest, 7);
    drop(tx);
    assert_eq!(first(&rx, &quiet), Err(RecvError));
}

#[test]
fn se_14_patterns_expressions_and_operands_of_all_shapes() {
    struct Ends {
        tx: Sender<(i32, i32)>,
        rx: Vec<Receiver<(i32, i32)>>,
    }
    let (tx, rx) = bounded(2);
    let ends = Ends { tx, rx: vec![rx] };
    select! { send(ends.tx, (1, 2)) -> _ => {}, }
    select! { send(&ends.tx, { let n = 3; (n, n + 1) }) -> Ok(()) | Err(SendError(_)) => (), default => unreachable!() }
    let sum = select! {
        recv(ends.rx[0]) -> pair => { let (a, b) = pair.unwrap(); a + b }
    };
    assert_eq!(sum, 3);
    // A body with commas of its own, and one without a comma after its block.
    let boxed: Rc<Receiver<_>> = Rc::new(ends.rx[0].clone());
    let map = select! {
        recv(boxed) -> mut pair => { if let Ok(pair) = &mut pair { pair.0 += 10; } std::iter::once(pair.unwrap()).collect::<HashSet<_>>() }
        default() => HashSet::<(i32, i32), std::hash::RandomState>::new(),
    };
    assert_eq!(map, HashSet::from([(13, 4)]));
    // As a statement, as an expression, nested.
    let nested = select! {
        recv(boxed) -> _ => unreachable!(),
        default => select! { default => 5 },
    };
    assert_eq!(nested, 5);
    // A name that the macro could have used itself.
    let (place0, end0, value0) = (closed::<()>(), 1, 2);
    select! { recv(place0) -> r => assert_eq!((r, end0, value0), (Err(RecvError), 1, 2)) }
    // A value called `from` is a value.
    let (tx, rx) = bounded(4);
    let from = 3_u8;
    select! { send(tx, from) -> r => r.unwrap() }
    select! { send(tx, from + 1) -> r => r.unwrap() }
    select! { send(tx, from * 2) -> r => r.unwrap() }
    select! { send(tx, from as u32 as u8) -> r => r.unwrap() }
    assert_eq!(rx.try_iter().collect::<Vec<_>>(), [3, 4, 6, 3]);
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
fn se_18_in_a_hot_loop_no_ready_arm_starves() {
    // All arms are ready all the time.
    let c = Chan::bounded(1);
    c.send(()).unwrap();
    let (rx, end, due) = (c.receiver(), closed::<()>(), tick(Duration::ZERO));
    let mut counts = [0; 3];
    for _ in 0..8_000 {
        let chosen = select! {
            recv(rx) -> _ => { c.send(()).unwrap(); 0 }
            recv(end) -> _ => 1,
            recv(due) -> _ => 2,
        };
        counts[chosen] += 1;
    }
    assert!(counts.iter().all(|&n| n > 8_000 / 12), "{counts:?}");
}

#[test]
fn se_18_a_loop_over_a_closed_channel_lets_others_run_and_ends_by_its_timer() {
    rt(1, || {
        let end = closed::<()>();
        /// Ends the other goroutine, also when this one panics.
        struct Stop(Arc<AtomicBool>);
        impl Drop for Stop {
            fn drop(&mut self) {
                self.0.store(true, SeqCst);
            }
        }
        let others = Arc::new(AtomicUsize::new(0));
        let stop = Stop(Arc::new(AtomicBool::new(false)));
        go({
            let (others, stop) = (Arc::clone(&others), Arc::clone(&stop.0));
            move || {
                while !stop.load(SeqCst) {
                    others.fetch_add(1, SeqCst);
                    yield_now();
                }
            }
        });
        let begin = Instant::now();
        let limit = after(Duration::from_millis(20));
        loop {
            select! {
                recv(end) -> _ => {}
                recv(limit) -> _ => break,
            }
        }
        assert!(begin.elapsed() >= Duration::from_millis(20));
        // A busy machine may have given this process none of that time: the budget is counted in operations.
        for _ in 0..1_000_000 {
            if others.load(SeqCst) > 1 {
                return;
            }
            select! {
                recv(end) -> _ => {}
                recv(never::<()>()) -> _ => {}
            }
        }
        panic!("the loop kept its worker to itself");
    });
}

#[test]
fn se_20_a_panic_in_an_operand_leaves_nothing_registered() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let (tx, rx) = unbuffered();
    let quiet = never::<i32>();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        select! {
            recv(quiet) -> _ => {}
            send(tx, Counted(Arc::clone(&dropped))) -> _ => {}
            recv({ if dropped.load(SeqCst) == 0 { panic!("on purpose") }; &quiet }) -> _ => {}
        }
    }));
    assert_eq!(*panicked.unwrap_err().downcast::<&str>().unwrap(), "on purpose");
    assert_eq!(dropped.load(SeqCst), 1, "the value that had been evaluated was dropped once");
    assert!(rx.try_recv().is_err() && tx.try_send(Counted(Arc::clone(&dropped))).is_err(), "something is registered");

    // The same for a panic in a body: the operation was done, and that is all.
    let (tx, rx) = bounded(2);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        select! {
            send(tx, 1) -> _ => panic!("on purpose"),
            recv(quiet) -> _ => {}
        }
    }));
    panicked.unwrap_err();
    assert_eq!(rx.try_iter().collect::<Vec<_>>(), [1]);
}

#[test]
fn se_20_other_operands_slots_are_left_as_they_were() {
    let (tx, _rx) = bounded(1);
    let (mut kept, mut empty) = (Some(1), None);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        select! {
            send(tx, from kept) -> _ => {}
            send(tx, from empty) -> _ => {}
        }
    }));
    let text = panicked.unwrap_err();
    let text = text.downcast_ref::<String>().map_or_else(|| *text.downcast_ref::<&str>().unwrap(), String::as_str);
    assert!(text.contains("slot") && text.contains("empty"), "{text}");
    assert_eq!((kept, empty), (Some(1), None));
}

#[test]
fn cn_01_never_never_delivers() {
    rt(1, || {
        assert!(!ends(|| {
            let _ = never::<()>().recv();
        }));
    });
}

#[test]
fn cn_02_an_arm_is_disabled_by_never() {
    // The idiom: a merge of two channels that turns each arm off when its channel has ended.
    at_1_2_4(|| {
        let (to_a, mut a) = unbuffered();
        let (to_b, mut b) = unbuffered();
        go(move || (0..100).for_each(|n| to_a.send(n).unwrap()));
        go(move || (100..300).for_each(|n| to_b.send(n).unwrap()));
        let (mut open, mut sum) = (2, 0);
        while open > 0 {
            select! {
                recv(a) -> n => match n {
                    Ok(n) => sum += n,
                    Err(_) => { a = never(); open -= 1; }
                },
                recv(b) -> n => match n {
                    Ok(n) => sum += n,
                    Err(_) => { b = never(); open -= 1; }
                },
            }
        }
        assert_eq!(sum, 299 * 300 / 2);
    });
}

#[test]
fn cn_02_of_eight_arms_only_the_enabled_one_fires() {
    for enabled in 0..8 {
        let mut rx: Vec<Receiver<()>> = (0..8).map(|_| never()).collect();
        rx[enabled] = closed();
        for _ in 0..50 {
            assert_eq!(choose_of(8, &rx), enabled);
        }
    }
}

#[test]
fn cn_03_only_disabled_arms_wait_for_ever_or_take_the_default() {
    rt(1, || {
        assert!(!ends(|| {
            let (a, b) = (never::<i32>(), never::<String>());
            select! {
                recv(a) -> _ => {}
                recv(b) -> _ => {}
            }
        }));
        let quiet = never::<i32>();
        let chosen = select! { recv(quiet) -> _ => 1, default => 2 };
        assert_eq!(chosen, 2);
        let begin = Instant::now();
        let chosen = select! { recv(quiet) -> _ => 1, default(Duration::from_millis(10)) => 2 };
        assert_eq!(chosen, 2);
        assert!(begin.elapsed() >= Duration::from_millis(10));
    });
}

#[test]
fn cn_05_never_is_empty() {
    let quiet = never::<i32>();
    assert_eq!((quiet.len(), quiet.is_empty(), quiet.capacity()), (0, true, Some(0)));
    assert!(!quiet.is_closed());
    assert!(quiet.same_channel(&never()));
    rt(1, || assert!(!ends(|| for _ in never::<()>() {})));
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

#[test]
fn from_slots_are_emptied_only_by_the_chosen_arm() {
    let (tx, rx) = bounded(1);
    let (full, _keep) = bounded(0);
    let (mut a, mut b) = (Some("a".to_owned()), Some("b".to_owned()));
    select! {
        send(full, from a) -> _ => unreachable!(),
        send(tx, from b) -> sent => {
            sent.unwrap();
            assert_eq!((a.as_deref(), b.as_deref()), (Some("a"), None), "the body sees the slots");
            a = Some("changed".to_owned());
        }
    }
    assert_eq!((a.as_deref(), b), (Some("changed"), None));
    assert_eq!(rx.recv().unwrap(), "b");

    // Passed over for a receive, for the default, and for the default after a time.
    let end = closed::<()>();
    select! {
        send(full, from a) -> _ => unreachable!(),
        recv(end) -> _ => assert!(a.is_some()),
    }
    select! { send(full, from a) -> _ => unreachable!(), default => assert!(a.is_some()) }
    select! { send(full, from a) -> _ => unreachable!(), default(Duration::from_millis(1)) => assert!(a.is_some()) }
    assert_eq!(a.as_deref(), Some("changed"));

    // On a closed channel the arm is chosen, and the error carries the value.
    tx.close().unwrap();
    let error = select! { send(tx, from a) -> sent => sent.unwrap_err() };
    assert_eq!((error.into_inner().as_str(), a), ("changed", None));
}

#[test]
fn from_slots_may_be_any_place() {
    struct Holder {
        slot: Option<i32>,
        more: [Option<i32>; 2],
    }
    fn send(holder: &mut Holder, tx: &Sender<i32>) {
        let reference = &mut holder.more[0];
        select! { send(tx, from *reference) -> r => r.unwrap() }
        select! { send(tx, from holder.more[1]) -> r => r.unwrap() }
        select! { send(tx, from holder.slot,) -> r => r.unwrap() }
    }
    let (tx, rx) = unbounded();
    let mut holder = Holder { slot: Some(3), more: [Some(1), Some(2)] };
    send(&mut holder, &tx);
    assert_eq!((holder.slot, holder.more), (None, [None, None]));
    assert_eq!(rx.try_iter().collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn from_slots_survive_losing_a_parked_select() {
    at_1_2_4(|| {
        let (tx, rx) = unbuffered::<Box<u32>>();
        let (other, served) = unbuffered::<()>();
        let sender = go(move || {
            let mut slot = None;
            let (mut sent, mut lost) = (0, 0);
            while sent < 500 {
                let value: &u32 = slot.get_or_insert_with(|| Box::new(sent));
                assert_eq!(*value, sent, "another value than the one that was not sent");
                select! {
                    send(tx, from slot) -> r => { r.unwrap(); sent += 1; }
                    recv(served) -> _ => lost += 1,
                }
            }
            lost
        });
        let mut received = 0;
        let mut told = 0;
        while received < 500 {
            select! {
                recv(rx) -> v => { assert_eq!(*v.unwrap(), received); received += 1; }
                send(other, ()) -> r => { r.unwrap(); told += 1; }
            }
        }
        assert_eq!(sender.join().unwrap(), told);
    });
}

#[test]
fn unsent_values_are_dropped_once_before_the_chosen_body() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let counted = || Counted(Arc::clone(&dropped));
    let (full, _keep) = bounded(0);
    let (closed, _rx) = closed_sender();
    let (tx, rx) = bounded(1);
    let end = self::closed::<()>();
    select! {
        send(full, counted()) -> _ => unreachable!(),
        recv(end) -> _ => assert_eq!(dropped.load(SeqCst), 1),
    }
    select! {
        send(full, counted()) -> _ => unreachable!(),
        default => assert_eq!(dropped.load(SeqCst), 2),
    }
    select! { send(closed, counted()) -> sent => { assert_eq!(dropped.load(SeqCst), 2); drop(sent); } }
    assert_eq!(dropped.load(SeqCst), 3);
    select! { send(tx, counted()) -> sent => { sent.unwrap(); assert_eq!(dropped.load(SeqCst), 3); } }
    // A received value that nobody binds.
    select! { recv(rx) -> _ => {} }
    assert_eq!(dropped.load(SeqCst), 4);
}

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
        let mut sum = 0;
        let mut last = Instant::now();
        loop {
            select! {
                recv(rx) -> n => { sum += n.unwrap(); last = Instant::now(); }
                recv(after(Duration::from_millis(300))) -> _ => break,
            }
        }
        assert!(last.elapsed() >= Duration::from_millis(300));
        assert_eq!(sum, 10);
    });
}

#[test]
fn values_need_not_be_send_beyond_what_channels_ask() {
    // What a body captures stays on its goroutine.
    rt(1, || {
        let local = Rc::new(Cell::new(0));
        let (tx, rx) = bounded(1);
        for n in 0..10 {
            tx.send(n).unwrap();
            select! {
                recv(rx) -> v => local.set(local.get() + v.unwrap()),
            }
        }
        assert_eq!(local.get(), 45);
    });
}

/// What `select!` expands to can be named, without `unsafe`; it must not send a value twice.
#[test]
fn an_arm_that_was_chosen_is_not_run_again() {
    use oxigo::__private::macros::{Otherwise, Recv, Send, SendFrom, Slot, run};
    let (tx, rx) = bounded(4);
    let mut value = Some(2);
    let slot = Slot::new(&tx, &mut value);
    let (mut sends, mut sends_from) = (Send::new(&tx, 1), SendFrom::new(&slot, &tx));
    let mut shares = SendFrom::new(&slot, &tx);
    let mut receives = Recv::new(&rx);
    for _ in 0..2 {
        let _ = catch_unwind(AssertUnwindSafe(|| run([&mut sends], false, Otherwise::Return)));
        let _ = catch_unwind(AssertUnwindSafe(|| run([&mut sends_from], false, Otherwise::Return)));
        let _ = catch_unwind(AssertUnwindSafe(|| run([&mut shares], false, Otherwise::Return)));
    }
    assert_eq!(rx.len(), 2, "a value was sent twice");
    for _ in 0..2 {
        let _ = catch_unwind(AssertUnwindSafe(|| run([&mut receives], false, Otherwise::Return)));
    }
    assert_eq!((receives.finish(), rx.len()), (Ok(1), 1), "a value was lost");
    let _ = catch_unwind(AssertUnwindSafe(|| shares.finish().is_ok()));
    assert_eq!(sends_from.finish(), Ok(()));
    assert_eq!(value, None);
}

/// Nor may two selects have a slot at a time: goroutines of one worker share what is neither `Send` nor `Sync`.
#[test]
fn a_slot_is_not_lent_to_two_runs() {
    use oxigo::__private::macros::{Otherwise, SendFrom, Slot, run};
    thread_local! {
        static SHARED: Cell<Option<(&'static Sender<String>, &'static Slot<'static, String>)>> = const { Cell::new(None) };
    }
    rt(1, || {
        let (tx, rx) = unbuffered::<String>();
        let (tx, value): (&'static _, &'static mut _) =
            (Box::leak(Box::new(tx)), Box::leak(Box::new(Some("once".into()))));
        SHARED.set(Some((tx, Box::leak(Box::new(Slot::new(tx, value))))));
        // Who is refused tries again, from the same frame.
        let offer = || {
            let (tx, slot) = SHARED.get().expect("on the same worker");
            (0..3).any(|_| {
                let run = || {
                    let mut arm = SendFrom::new(slot, tx);
                    run([&mut arm], false, Otherwise::Wait(None));
                    arm.finish().unwrap();
                };
                catch_unwind(AssertUnwindSafe(run)).is_ok()
            })
        };
        let (first, second) = (go(offer), go(offer));
        quiesce();
        assert_eq!(rx.recv().unwrap(), "once");
        quiesce();
        assert!(rx.try_recv().is_err(), "a value was sent twice");
        assert_ne!(first.join().unwrap(), second.join().unwrap(), "one of them has sent");
    });
}
