//! Closing and ranging: groups CC and CR of the conformance list.
//!
//! CC-06, that a receiver cannot close, is a `compile_fail` example of `Receiver`.

mod common;

use std::{
    panic::catch_unwind,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use common::{Counted, at_1_2_4, quiesce, rt};
use oxigo::{
    Chan, WaitGroup, bounded,
    chan::{
        CloseError, RecvError, RecvTimeoutError, Select, SendError, SendTimeoutError, TryRecvError, TrySendError, never,
    },
    go, select, unbounded, unbuffered, yield_now,
};

/// Waits in `recv` and in `select`, half of each.
fn receive_as(n: usize, rx: &oxigo::Receiver<usize>) -> Result<usize, RecvError> {
    if n.is_multiple_of(2) {
        rx.recv()
    } else {
        select! { recv(rx) -> value => value, recv(never::<()>()) -> _ => unreachable!("never") }
    }
}

#[test]
fn cc_01_what_was_sent_before_the_close_is_delivered_then_errors_for_ever() {
    for capacity in [0, 1, 10, 100] {
        let (tx, rx) = bounded(capacity);
        (0..capacity).for_each(|n| tx.send(n).unwrap());
        tx.close().unwrap();
        for n in 0..capacity {
            let value = match n % 3 {
                0 => rx.recv().ok(),
                1 => rx.try_recv().ok(),
                _ => select! { recv(rx) -> value => value.ok(), default => None },
            };
            assert_eq!(value, Some(n));
        }
        for _ in 0..5 {
            assert_eq!(rx.recv(), Err(RecvError));
            assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected));
            assert_eq!(rx.recv_timeout(Duration::from_secs(60)), Err(RecvTimeoutError::Disconnected));
            assert_eq!(select! { recv(rx) -> value => Some(value), default => None }, Some(Err(RecvError)));
        }
    }
    // Dropping the last sender is closing; dropping another is not.
    let (tx, rx) = unbounded();
    let other = tx.clone();
    tx.send(1).unwrap();
    drop(tx);
    assert!(!rx.is_closed());
    other.send(2).unwrap();
    drop(other);
    assert!(rx.is_closed());
    assert!(rx.iter().eq([1, 2]));
}

#[test]
fn cc_02_close_wakes_all_receivers() {
    for by_drop in [false, true] {
        rt(1, || {
            let (tx, rx) = unbuffered();
            let group = WaitGroup::new();
            let woken = Arc::new(AtomicUsize::new(0));
            for n in 0..1000 {
                let (rx, woken) = (rx.clone(), Arc::clone(&woken));
                group.go(move || {
                    assert_eq!(receive_as(n, &rx), Err(RecvError));
                    woken.fetch_add(1, SeqCst);
                });
            }
            quiesce();
            assert_eq!(woken.load(SeqCst), 0);
            if by_drop {
                drop(tx);
            } else {
                tx.close().unwrap();
            }
            group.wait();
            assert_eq!(woken.load(SeqCst), 1000);
        });
    }
    // At several workers some are on their way when the channel is closed.
    at_1_2_4(|| {
        for capacity in [0, 2] {
            let (tx, rx) = bounded(capacity);
            let handles: Vec<_> = (0..1000)
                .map(|n| {
                    let rx = rx.clone();
                    go(move || receive_as(n, &rx))
                })
                .collect();
            yield_now();
            tx.close().unwrap();
            assert!(handles.into_iter().all(|handle| handle.join().unwrap() == Err(RecvError)));
        }
    });
}

#[test]
fn cc_03_a_send_on_a_closed_channel_gives_the_value_back() {
    let drops = Arc::new(AtomicUsize::new(0));
    let counted = || Counted(Arc::clone(&drops));
    for (tx, rx) in [unbuffered(), bounded(3), unbounded()] {
        let other = tx.clone();
        tx.close().unwrap();
        for tx in [&tx, &other] {
            assert!(tx.is_closed());
            let back = tx.send(counted()).unwrap_err();
            let tried = tx.try_send(counted()).unwrap_err();
            assert!(matches!(tried, TrySendError::Disconnected(_)));
            let timed = tx.send_timeout(counted(), Duration::from_secs(60)).unwrap_err();
            assert!(matches!(timed, SendTimeoutError::Disconnected(_)));
            let selected = select! { send(tx, counted()) -> result => result.unwrap_err() };
            let at_once = select! {
                send(tx, counted()) -> result => result.unwrap_err(),
                default => panic!("a closed channel is ready"),
            };
            let mut list = Select::new();
            list.send(tx);
            let dynamic = list.try_select().unwrap().send(tx, counted()).unwrap_err();
            assert_eq!(drops.load(SeqCst), 0, "no value was dropped");
            for text in [back.to_string(), tried.to_string(), timed.to_string(), format!("{selected:?}")] {
                assert_eq!(text, "send on closed channel");
            }
            drop((back, tried, timed, selected, at_once, dynamic));
            assert_eq!(drops.swap(0, SeqCst), 6);
        }
        assert!(matches!(rx.recv(), Err(RecvError)), "nothing was delivered");
    }
}

/// A `from` slot keeps the value while another arm is chosen, and the error of the chosen one carries it.
#[test]
fn cc_03_a_closed_send_from_a_slot() {
    let (tx, _rx) = unbuffered();
    tx.close().unwrap();
    let mut slot = Some(String::from("kept"));
    let error = select! { send(tx, from slot) -> result => result.unwrap_err() };
    assert_eq!((error.into_inner().as_str(), slot), ("kept", None));
}

#[test]
fn cc_04_senders_that_wait_get_their_values_back() {
    for (capacity, by_drop) in [(0, false), (0, true), (2, false), (2, true)] {
        rt(1, || {
            let drops = Arc::new(AtomicUsize::new(0));
            let counted = || Counted(Arc::clone(&drops));
            let (tx, rx) = bounded(capacity);
            (0..capacity).for_each(|_| tx.send(counted()).unwrap());
            let senders: Vec<_> = (0..9)
                .map(|n| {
                    let (tx, value) = (tx.clone(), counted());
                    go(move || match n % 3 {
                        0 => tx.send(value),
                        1 => select! { send(tx, value) -> sent => sent, recv(never::<()>()) -> _ => Ok(()) },
                        _ => tx
                            .send_timeout(value, Duration::from_secs(600))
                            .map_err(|error| SendError(error.into_inner())),
                    })
                })
                .collect();
            quiesce();
            let rx = if by_drop {
                drop(rx);
                None
            } else {
                tx.close().unwrap();
                Some(rx)
            };
            let back: Vec<_> = senders.into_iter().map(|sender| sender.join().unwrap().unwrap_err()).collect();
            if let Some(rx) = rx {
                assert_eq!(drops.load(SeqCst), 0);
                assert_eq!(rx.iter().count(), capacity, "only what was in the buffer is delivered");
            }
            assert_eq!(drops.swap(0, SeqCst), capacity);
            drop(back);
            assert_eq!(drops.load(SeqCst), 9);
        });
    }
    // At several workers: each value is received or comes back, never both.
    at_1_2_4(|| {
        for _ in 0..50 {
            let (tx, rx) = bounded(1);
            let senders: Vec<_> = (0..8)
                .map(|n| {
                    let tx = tx.clone();
                    go(move || tx.send(n).err().map(SendError::into_inner))
                })
                .collect();
            let closer = go(move || {
                yield_now();
                tx.close().unwrap();
            });
            let mut values: Vec<_> = rx.iter().collect();
            closer.join().unwrap();
            values.extend(senders.into_iter().filter_map(|sender| sender.join().unwrap()));
            values.sort_unstable();
            assert!(values.into_iter().eq(0..8));
        }
    });
}

#[test]
fn cc_05_a_second_close_is_an_error() {
    let (tx, rx) = bounded(1);
    tx.send(1).unwrap();
    assert_eq!(tx.close(), Ok(()));
    assert_eq!(tx.close(), Err(CloseError));
    assert_eq!(tx.clone().close().unwrap_err().to_string(), "close of closed channel");
    assert_eq!(rx.recv(), Ok(1));
    assert_eq!(tx.close(), Err(CloseError));

    // Without receivers a send is bound to fail; but nobody has closed the channel yet.
    let (tx, rx) = bounded::<u8>(1);
    drop(rx);
    assert!(tx.is_closed());
    assert_eq!(tx.close(), Ok(()));
    assert_eq!(tx.close(), Err(CloseError));
}

#[test]
fn cc_05_of_several_closes_at_once_one_wins() {
    at_1_2_4(|| {
        for _ in 0..300 {
            let chan = Chan::<u8>::bounded(1);
            let closers: Vec<_> = (0..4)
                .map(|_| {
                    let chan = chan.clone();
                    go(move || chan.close().is_ok())
                })
                .collect();
            assert_eq!(closers.into_iter().filter_map(|c| c.join().unwrap().then_some(())).count(), 1);
        }
    });
}

#[test]
fn cc_07_unwrapping_gives_gos_panics_and_they_can_be_caught() {
    fn text_of(f: impl FnOnce() + std::panic::UnwindSafe) -> String {
        let payload = catch_unwind(f).expect_err("unwrap panics");
        payload.downcast_ref::<String>().expect("a formatted text").clone()
    }
    rt(2, || {
        // No `Debug` is asked of the values.
        struct Opaque;
        let chan = Chan::bounded(2);
        assert!(chan.send(Opaque).is_ok());
        chan.close().unwrap();
        assert!(text_of(|| chan.send(Opaque).unwrap()).ends_with("send on closed channel"));
        assert!(text_of(|| chan.try_send(Opaque).unwrap()).ends_with("send on closed channel"));
        assert!(text_of(|| chan.close().unwrap()).ends_with("close of closed channel"));
        // The channel goes on as it was.
        assert_eq!(chan.len(), 1);
        assert!(chan.recv().is_ok());
        assert!(
            text_of(|| assert!(chan.recv().map(|_| 0).unwrap() == 1)).ends_with("receive on closed and empty channel")
        );
    });
}

#[test]
fn cc_08_close_is_an_event_for_selects_that_wait() {
    rt(1, || {
        let (tx, rx) = unbuffered::<u32>();
        let (quiet, silence) = unbuffered::<u32>();
        let receiving = go(move || select! { recv(rx) -> v => v, recv(silence) -> _ => unreachable!("silent") });
        quiesce();
        tx.close().unwrap();
        assert_eq!(receiving.join().unwrap(), Err(RecvError));
        assert!(quiet.try_send(1).unwrap_err().is_disconnected(), "the select's own receiver is gone with it");

        let chan = Chan::unbuffered();
        let (tx, (_quiet, silence)) = (chan.sender(), unbuffered::<u32>());
        let sending = go(move || select! { send(tx, 5) -> r => r, recv(silence) -> _ => unreachable!("silent") });
        quiesce();
        chan.close().unwrap();
        assert_eq!(sending.join().unwrap(), Err(SendError(5)));
    });
    // The run-time select too, of either kind.
    rt(1, || {
        let chan = Chan::<u32>::unbuffered();
        let (tx, rx) = (chan.sender(), chan.receiver());
        let receiving = go(move || {
            let mut list = Select::new();
            list.recv(&rx);
            list.select().recv(&rx)
        });
        quiesce();
        let ready = go(move || {
            let mut list = Select::new();
            list.send(&tx);
            // A receiver waits, so this is ready; it is only looked at.
            list.ready()
        });
        assert_eq!(ready.join().unwrap(), 0);
        chan.close().unwrap();
        assert_eq!(receiving.join().unwrap(), Err(RecvError));
    });
}

/// A run-time select learns of the close while it waits to send, and is given the value only afterwards; it comes back.
#[test]
fn cc_08_a_run_time_select_that_waits_to_send() {
    for (capacity, by_drop) in [(0, false), (0, true), (1, false), (1, true)] {
        rt(1, || {
            let (tx, rx) = bounded(capacity);
            (0..capacity).for_each(|_| tx.send(String::new()).unwrap());
            let to = tx.clone();
            let sending = go(move || {
                let mut list = Select::new();
                list.send(&to);
                let chosen = list.select();
                chosen.send(&to, String::from("too late"))
            });
            quiesce();
            if by_drop {
                drop(rx);
            } else {
                tx.close().unwrap();
            }
            assert_eq!(sending.join().unwrap(), Err(SendError(String::from("too late"))));
        });
    }
}

/// Go's TestNonblockRecvRace: a channel that holds a value and is then closed is never "empty".
#[test]
fn cc_09_a_close_never_makes_a_channel_look_empty() {
    at_1_2_4(|| {
        for round in 0..1500 {
            let (tx, rx) = bounded(1);
            tx.send(1).unwrap();
            let other = rx.clone();
            let closer = go(move || {
                tx.close().unwrap();
                other.recv().ok()
            });
            if round % 3 == 0 {
                yield_now();
            }
            let mine = if round % 2 == 0 {
                match rx.try_recv() {
                    Ok(value) => Some(value),
                    Err(TryRecvError::Disconnected) => None,
                    Err(TryRecvError::Empty) => panic!("looked empty while it held a value or was closed"),
                }
            } else {
                select! {
                    recv(rx) -> value => value.ok(),
                    default => panic!("looked empty while it held a value or was closed"),
                }
            };
            let theirs = closer.join().unwrap();
            assert_eq!(mine.or(theirs), Some(1));
            assert!(mine.is_none() || theirs.is_none(), "received twice");
        }
    });
}

#[test]
fn cc_10_len_goes_on_counting_after_the_close() {
    let (tx, rx) = bounded(5);
    (0..5).for_each(|n| tx.send(n).unwrap());
    tx.close().unwrap();
    for left in (0..5).rev() {
        rx.recv().unwrap();
        assert_eq!((tx.len(), rx.len(), rx.is_empty()), (left, left, left == 0));
    }
    assert_eq!(rx.capacity(), Some(5));
}

/// In which order those who are woken by a close run is not promised: only that all do, each once.
#[test]
fn cc_11_all_who_are_woken_run_in_some_order() {
    at_1_2_4(|| {
        let (tx, rx) = unbuffered();
        let order = Arc::new(Mutex::new(Vec::new()));
        let group = WaitGroup::new();
        for n in 0..200 {
            let (rx, order) = (rx.clone(), Arc::clone(&order));
            group.go(move || {
                assert!(receive_as(n, &rx).is_err());
                order.lock().unwrap().push(n);
            });
        }
        (0..20).for_each(|_| yield_now());
        drop(tx);
        group.wait();
        let mut order = std::mem::take(&mut *order.lock().unwrap());
        order.sort_unstable();
        assert!(order.into_iter().eq(0..200));
    });
}

#[test]
fn cr_01_ranging_yields_all_in_order_and_ends() {
    at_1_2_4(|| {
        for capacity in [0, 1, 7] {
            let (tx, rx) = bounded(capacity);
            let sender = go(move || {
                (0..100).for_each(|n| tx.send(n).unwrap());
                tx.close().unwrap();
            });
            let mut expected = 0;
            for value in &rx {
                assert_eq!(value, expected);
                expected += 1;
            }
            assert_eq!(expected, 100);
            assert_eq!((&rx).into_iter().next(), None);
            sender.join().unwrap();
        }
        // By value, and over a two-way channel.
        let chan = Chan::bounded(3);
        (0..3).for_each(|n| chan.send(n).unwrap());
        chan.close().unwrap();
        let rx = chan.receiver();
        let mut by_reference = Vec::new();
        for value in &chan {
            by_reference.push(value);
        }
        assert_eq!(by_reference, [0, 1, 2]);
        assert!(rx.into_iter().next().is_none());
    });
}

#[test]
fn cr_02_the_operand_is_evaluated_once() {
    let (tx, rx) = bounded(10);
    (0..10).for_each(|n| tx.send(n).unwrap());
    drop(tx);
    let mut evaluated = 0;
    let mut operand = || {
        evaluated += 1;
        &rx
    };
    let mut rounds = 0;
    for _ in operand() {
        rounds += 1;
    }
    assert_eq!((evaluated, rounds), (1, 10));
}

#[test]
fn cr_03_several_share_the_values_and_all_end() {
    at_1_2_4(|| {
        for capacity in [0, 5] {
            let (tx, rx) = bounded(capacity);
            let readers: Vec<_> = (0..6)
                .map(|_| {
                    let rx = rx.clone();
                    go(move || rx.into_iter().collect::<Vec<usize>>())
                })
                .collect();
            (0..1200).for_each(|n| tx.send(n).unwrap());
            tx.close().unwrap();
            let shares: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
            assert!(shares.iter().all(|share| share.is_sorted()), "each sees its share in order");
            let mut all = shares.concat();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..1200));
        }
    });
}

#[test]
fn cr_04_leaving_early_leaves_the_channel_open() {
    for capacity in [0, 2] {
        rt(2, || {
            let (tx, rx) = bounded(capacity);
            let sender = go(move || (1..=6).for_each(|n| tx.send(n).unwrap()));
            for value in &rx {
                if value == 3 {
                    break;
                }
            }
            assert!(!rx.is_closed());
            assert_eq!(rx.recv(), Ok(4));
            assert!(rx.iter().eq([5, 6]));
            sender.join().unwrap();
        });
    }
}
