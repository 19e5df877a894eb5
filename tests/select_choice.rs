//! Groups SE and CN: which arm of a `select!` is chosen, with what likelihood, and when it is the default.

mod common;

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use common::{at_length, closed_receiver, closed_sender, rt};
use oxigo::{
    Builder, Chan, Receiver, bounded,
    chan::{SendError, after, never, tick},
    go, select, select_biased, unbounded, unbuffered, yield_now,
};

/// Pearson's statistic for equal shares. For eight kinds at most, 50 is exceeded once in more than 10⁷ fair runs.
fn chi_squared(counts: &[u32]) -> f64 {
    let expected = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
    counts.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum()
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
        let rx: Vec<Receiver<()>> = (0..k).map(|_| closed_receiver()).collect();
        let mut counts = vec![0; k];
        for _ in 0..30_000 {
            counts[choose_of(k, &rx)] += 1;
        }
        assert!(chi_squared(&counts) < 50.0, "{counts:?}");
    }
}

#[test]
fn se_03_arms_that_are_not_ready_change_nothing() {
    let (a, b, quiet) = (closed_receiver::<()>(), closed_receiver::<()>(), never::<()>());
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
    let (a, b) = (closed_receiver::<()>(), closed_receiver::<()>());
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
    let end = closed_receiver::<i32>();
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
    let (a, b, quiet) = (closed_receiver::<()>(), closed_receiver::<()>(), never::<()>());
    for _ in 0..1_000 {
        select_biased! {
            recv(quiet) -> _ => unreachable!(),
            recv(a) -> _ => {}
            recv(b) -> _ => panic!("the second ready arm was chosen"),
            default => panic!("the default was chosen"),
        }
    }
}

#[test]
fn cn_02_of_eight_arms_only_the_enabled_one_fires() {
    for enabled in 0..8 {
        let mut rx: Vec<Receiver<()>> = (0..8).map(|_| never()).collect();
        rx[enabled] = closed_receiver();
        for _ in 0..50 {
            assert_eq!(choose_of(8, &rx), enabled);
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
fn se_18_in_a_hot_loop_no_ready_arm_starves() {
    // All arms are ready all the time.
    let c = Chan::bounded(1);
    c.send(()).unwrap();
    let (rx, end, due) = (c.receiver(), closed_receiver::<()>(), tick(Duration::ZERO));
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
        let end = closed_receiver::<()>();
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
