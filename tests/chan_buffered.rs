//! Buffered channels, `len` and `capacity`, and kinds of elements: groups CB, CL and CZ of the conformance list.

mod common;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use common::{Counted, at_1_2_4, quiesce, rt};
use oxigo::{
    Builder, Chan, WaitGroup, bounded,
    chan::{Select, SendTimeoutError, TrySendError, never},
    go, select, unbounded, unbuffered, yield_now,
};

#[test]
fn cb_01_a_send_waits_only_when_the_buffer_is_full() {
    for capacity in 0..200 {
        let (tx, rx) = bounded(capacity);
        (0..capacity).for_each(|n| tx.send(n).unwrap());
        assert_eq!(tx.len(), capacity);
        assert!(tx.is_full());
        assert_eq!(tx.try_send(capacity), Err(TrySendError::Full(capacity)));
        assert!(rx.try_iter().eq(0..capacity));
    }
    for capacity in [1, 2, 50] {
        rt(1, || {
            let (tx, rx) = bounded(capacity);
            let sent = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&sent);
            let sender = go(move || {
                for n in 0..capacity + 1 {
                    tx.send(n).unwrap();
                    count.fetch_add(1, SeqCst);
                }
            });
            quiesce();
            assert_eq!(sent.load(SeqCst), capacity, "the last send waits");
            assert_eq!(rx.recv(), Ok(0));
            quiesce();
            assert_eq!(sent.load(SeqCst), capacity + 1);
            sender.join().unwrap();
        });
    }
}

#[test]
fn cb_02_what_was_tried_in_vain_has_no_effect() {
    let drops = Arc::new(AtomicUsize::new(0));
    let counted = || Counted(Arc::clone(&drops));
    for capacity in [0, 1, 5] {
        let (tx, rx) = bounded(capacity);
        assert!(rx.try_recv().unwrap_err().is_empty());
        (0..capacity).for_each(|_| tx.send(counted()).unwrap());
        for _ in 0..3 {
            let Err(TrySendError::Full(value)) = tx.try_send(counted()) else { panic!("room in a full channel") };
            assert_eq!(drops.swap(0, SeqCst), 0, "the value comes back, it is not dropped");
            drop(value);
            assert_eq!(drops.swap(0, SeqCst), 1);
            assert_eq!(tx.len(), capacity);
            let Err(SendTimeoutError::Timeout(value)) = tx.send_timeout(counted(), std::time::Duration::ZERO) else {
                panic!("room in a full channel")
            };
            assert_eq!(drops.swap(0, SeqCst), 0);
            drop(value);
            assert_eq!(drops.swap(0, SeqCst), 1);
        }
        assert_eq!(rx.try_iter().count(), capacity);
        assert!(rx.try_recv().unwrap_err().is_empty());
        assert_eq!(drops.swap(0, SeqCst), capacity);
    }
}

#[test]
fn cb_03_the_buffer_first_then_senders_as_they_came() {
    for capacity in [0, 1, 2, 9] {
        rt(1, || {
            let (tx, rx) = bounded(capacity);
            (0..capacity).for_each(|n| tx.send(n).unwrap());
            let senders: Vec<_> = (capacity..capacity + 20)
                .map(|n| {
                    let tx = tx.clone();
                    // Plain sends and selects stand in one queue.
                    let sender = go(move || {
                        if n % 3 == 0 {
                            select! { send(tx, n) -> sent => sent.unwrap(), recv(never::<()>()) -> _ => {} }
                        } else {
                            tx.send(n).unwrap();
                        }
                    });
                    quiesce();
                    sender
                })
                .collect();
            for n in 0..capacity + 20 {
                assert_eq!(rx.recv(), Ok(n));
            }
            senders.into_iter().for_each(|sender| sender.join().unwrap());
        });
    }
}

#[test]
fn cb_04_receiving_from_a_full_channel_lets_the_first_sender_in() {
    rt(1, || {
        let (tx, rx) = bounded(2);
        tx.send(0).unwrap();
        tx.send(1).unwrap();
        let to = tx.clone();
        let sender = go(move || to.send(2).unwrap());
        quiesce();
        assert_eq!(rx.try_recv(), Ok(0));
        // In the same step: nothing else has run since.
        assert_eq!(rx.len(), 2);
        assert!(tx.try_send(3).unwrap_err().is_full());
        sender.join().unwrap();
        assert!(rx.try_iter().eq([1, 2]));
    });
    at_1_2_4(|| {
        let (tx, rx) = bounded(2);
        let sender = go(move || (0..2000).for_each(|n| tx.send(n).unwrap()));
        for n in 0..2000 {
            assert_eq!(rx.recv(), Ok(n));
            assert!(rx.len() <= 2);
        }
        sender.join().unwrap();
    });
}

#[test]
fn cb_05_a_value_goes_to_a_receiver_that_waits_and_not_through_the_buffer() {
    at_1_2_4(|| {
        let (tx, rx) = bounded(4);
        let from = rx.clone();
        let receiver = go(move || from.recv());
        // Sending is ready at any time, since there is room; so whether the receiver waits shows in an unbuffered select of its own.
        let (probe, probed) = bounded::<()>(0);
        let also = rx.clone();
        let selecting = go(move || {
            select! {
                recv(also) -> value => value,
                recv(probed) -> _ => unreachable!("only looked at"),
            }
        });
        let mut waits = Select::new();
        waits.send(&probe);
        while waits.try_ready().is_err() {
            yield_now();
        }
        // One of them waits at least; the other may be on its way, and takes what comes second.
        tx.try_send(7).unwrap();
        assert_eq!(rx.len(), 0, "a receiver waits, so the buffer stays empty");
        tx.send(8).unwrap();
        let mut values = [receiver.join().unwrap().unwrap(), selecting.join().unwrap().unwrap()];
        values.sort_unstable();
        assert_eq!(values, [7, 8]);
    });
}

/// A run-time select has been promised the only place; then another one gives up what it had received, which goes back to the front. The
/// promise is kept all the same.
#[test]
fn cb_02_a_promised_place_is_kept() {
    let (tx, rx) = bounded(1);
    tx.send(1).unwrap();
    let mut receiving = Select::new();
    receiving.recv(&rx);
    let received = receiving.select();
    let mut sending = Select::new();
    sending.send(&tx);
    let promised = sending.try_select().expect("there is room");
    assert!(tx.try_send(9).unwrap_err().is_full(), "the place is promised");
    // Dropping an operation that was chosen panics.
    assert!(catch_unwind(AssertUnwindSafe(|| drop(received))).is_err());
    promised.send(&tx, 2).unwrap();
    assert!(rx.try_iter().eq([1, 2]));
}

#[test]
fn cb_06_a_buffered_channel_is_a_semaphore() {
    at_1_2_4(|| {
        let slots = Chan::bounded(3);
        let holders = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let group = WaitGroup::new();
        for _ in 0..50 {
            let (slots, holders, most) = (slots.clone(), Arc::clone(&holders), Arc::clone(&most));
            group.go(move || {
                slots.send(()).unwrap();
                let now = holders.fetch_add(1, SeqCst) + 1;
                most.fetch_max(now, SeqCst);
                (0..3).for_each(|_| yield_now());
                holders.fetch_sub(1, SeqCst);
                slots.recv().unwrap();
            });
        }
        group.wait();
        let most = most.load(SeqCst);
        assert!((1..=3).contains(&most), "{most} at once");
        assert!(slots.is_empty());
    });
}

/// Go's TestMultiConsumer: many workers take from one queue by `range`, pass on, and all end when it is closed.
#[test]
fn cb_07_many_consumers_share_a_bounded_queue() {
    const ITEMS: u64 = if cfg!(debug_assertions) { 50_000 } else { 271_828 };
    at_1_2_4(|| {
        let (queue, items) = bounded(23 * 3);
        let (results, done) = bounded(23 * 3);
        let group = Arc::new(WaitGroup::new());
        for worker in 0..23_u64 {
            let (items, results) = (items.clone(), results.clone());
            group.go(move || {
                for item in items {
                    // Some workers are slower than others.
                    if item % 23 == worker {
                        yield_now();
                    }
                    results.send(item).unwrap();
                }
            });
        }
        drop(results);
        go(move || {
            (0..ITEMS).for_each(|item| queue.send(item).unwrap());
            queue.close().unwrap();
        });
        let (count, sum) = done.iter().fold((0, 0), |(count, sum), item| (count + 1, sum + item));
        group.wait();
        assert_eq!((count, sum), (ITEMS, ITEMS * (ITEMS - 1) / 2));
    });
}

#[test]
fn cl_01_len_and_capacity_follow_the_buffer() {
    for capacity in 0..100 {
        let (tx, rx) = bounded(capacity);
        assert_eq!((tx.capacity(), rx.capacity()), (Some(capacity), Some(capacity)));
        for n in 0..capacity {
            assert_eq!((tx.len(), rx.len()), (n, n));
            assert_eq!((tx.is_empty(), rx.is_full()), (n == 0, false));
            tx.send(n).unwrap();
        }
        assert_eq!((tx.len(), rx.len(), tx.is_full()), (capacity, capacity, true));
        for n in (0..capacity).rev() {
            rx.recv().unwrap();
            assert_eq!((tx.len(), rx.is_empty()), (n, n == 0));
        }
    }
    let (tx, rx) = unbounded();
    (0..1000).for_each(|n| tx.send(n).unwrap());
    assert_eq!((tx.len(), rx.len(), tx.capacity(), tx.is_full()), (1000, 1000, None, false));
    assert_eq!((never::<u8>().len(), never::<u8>().capacity()), (0, Some(0)));
}

#[test]
fn cl_01_len_of_an_unbuffered_channel_is_0_also_while_senders_wait() {
    rt(1, || {
        let (tx, rx) = unbuffered();
        let to = tx.clone();
        let sender = go(move || to.send(1).unwrap());
        quiesce();
        assert_eq!((tx.len(), rx.len(), tx.capacity()), (0, 0, Some(0)));
        assert!(tx.is_empty() && tx.is_full());
        assert_eq!(rx.recv(), Ok(1));
        sender.join().unwrap();
    });
}

#[test]
fn cl_01_asking_is_safe_at_any_time() {
    at_1_2_4(|| {
        let chan = Chan::bounded(5);
        let stop = Arc::new(AtomicBool::new(false));
        let asking = {
            let (chan, stop) = (chan.clone(), Arc::clone(&stop));
            // A plain thread: it asks while the workers are at it.
            thread::spawn(move || {
                while !stop.load(SeqCst) {
                    assert!(chan.len() <= 5);
                    assert_eq!(chan.capacity(), Some(5));
                }
            })
        };
        let tx = chan.sender();
        go(move || (0..3000).for_each(|n| tx.send(n).unwrap()));
        (0..3000).for_each(|n| assert_eq!(chan.recv(), Ok(n)));
        stop.store(true, SeqCst);
        asking.join().unwrap();
    });
}

#[test]
fn cl_02_a_capacity_that_cannot_be_panics_and_says_so() {
    for capacity in [usize::MAX, usize::MAX / 8, isize::MAX as usize / 8 + 1] {
        let payload = catch_unwind(|| bounded::<[u8; 8]>(capacity)).expect_err("that cannot be allocated");
        let text = payload.downcast_ref::<String>().expect("a formatted text");
        assert!(text.contains(&capacity.to_string()) && text.contains("cannot be allocated"), "{text}");
        assert!(catch_unwind(|| Chan::<[u8; 8]>::bounded(capacity)).is_err());
    }
    // Values without size need no room.
    let (tx, rx) = bounded::<()>(usize::MAX);
    (0..1000).for_each(|_| tx.send(()).unwrap());
    assert_eq!((tx.len(), rx.capacity()), (1000, Some(usize::MAX)));
    assert_eq!(rx.try_iter().count(), 1000);
}

#[test]
fn cl_03_elements_may_be_large() {
    const SIZE: usize = 1 << 20;
    fn pass(capacity: usize) {
        let (tx, rx) = bounded::<[u8; SIZE]>(capacity);
        let sender = Builder::new().stack_size(32 << 20).spawn(move || tx.send([7; SIZE]).map_err(drop)).unwrap();
        let value = rx.recv().expect("sent");
        assert!(value[0] == 7 && value[SIZE - 1] == 7);
        sender.join().unwrap().unwrap();
    }
    rt(2, || {
        for capacity in [0, 1] {
            Builder::new().stack_size(32 << 20).spawn(move || pass(capacity)).unwrap().join().unwrap();
        }
    });
}

/// What docs/stacks.md says of a default stack, in a debug build too: each operation in a goroutine of its own.
#[test]
fn cl_03_elements_of_four_kib_fit_a_default_stack() {
    type Large = [u8; 4096];
    fn large(n: u8) -> Large {
        std::hint::black_box([n; 4096])
    }
    rt(1, || {
        let (one, two, three) = (bounded::<Large>(3), bounded::<Large>(3), bounded::<Large>(3));
        let (tx, rx) = one.clone();
        go(move || tx.send(large(1)).unwrap()).join().unwrap();
        go(move || assert_eq!(rx.recv().unwrap()[4095], 1)).join().unwrap();
        let captured = large(2);
        go(move || assert_eq!(captured[4095], 2)).join().unwrap();
        go(move || assert_eq!(go(|| large(3)).join().unwrap()[4095], 3)).join().unwrap();
        let ((tx, rx), (tx2, rx2), (tx3, rx3)) = (one.clone(), two.clone(), three.clone());
        let sends = move || {
            select! {
                send(tx, large(4)) -> sent => sent.unwrap(),
                send(tx2, large(4)) -> sent => sent.unwrap(),
                send(tx3, large(4)) -> sent => sent.unwrap(),
            }
        };
        go(sends).join().unwrap();
        let receives = move || {
            let value = select! {
                recv(rx) -> value => value.unwrap(),
                recv(rx2) -> value => value.unwrap(),
                recv(rx3) -> value => value.unwrap(),
            };
            assert_eq!(value[4095], 4);
        };
        go(receives).join().unwrap();
    });
}

#[test]
fn cl_04_copies_are_the_same_channel() {
    let (tx, rx) = bounded::<u8>(1);
    let (tx2, rx2) = bounded::<u8>(1);
    assert!(tx.same_channel(&tx.clone()) && rx.same_channel(&rx.clone()));
    assert!(!tx.same_channel(&tx2) && !rx.same_channel(&rx2));
    tx.clone().send(1).unwrap();
    assert_eq!(rx.clone().recv(), Ok(1));

    let chan = Chan::<u8>::unbuffered();
    assert!(chan.same_channel(&chan.clone()) && !chan.same_channel(&Chan::unbuffered()));
    assert!(chan.sender().same_channel(&chan.clone().into()));
    assert!(chan.receiver().same_channel(&chan.clone().into()));
    assert!(!never::<u8>().same_channel(&rx));
}

#[test]
fn cz_01_elements_without_size_are_counted_exactly() {
    at_1_2_4(|| {
        for capacity in [0, 1, 1000] {
            let (tx, rx) = bounded::<()>(capacity);
            (0..capacity).for_each(|_| tx.try_send(()).unwrap());
            assert_eq!((tx.len(), tx.try_send(()).is_err()), (capacity, true));
            assert_eq!(rx.try_iter().count(), capacity);

            let senders: Vec<_> = (0..4)
                .map(|_| {
                    let tx = tx.clone();
                    go(move || (0..500).for_each(|_| tx.send(()).unwrap()))
                })
                .collect();
            drop(tx);
            assert_eq!(rx.iter().count(), 2000);
            senders.into_iter().for_each(|sender| sender.join().unwrap());
        }
    });
}

trait Named: Send {
    fn name(&self) -> String;
}

struct Person(&'static str, Counted);

impl Named for Person {
    fn name(&self) -> String {
        let _: &Counted = &self.1;
        self.0.to_owned()
    }
}

#[test]
fn cz_02_values_are_moved_and_their_places_forget_them() {
    at_1_2_4(|| {
        for capacity in [0, 1, 3] {
            let drops = Arc::new(AtomicUsize::new(0));
            let (tx, rx) = bounded::<Box<dyn Named>>(capacity);
            let count = Arc::clone(&drops);
            let sender = go(move || {
                for name in ["Ann", "Bob", "Cy", "Di"] {
                    let value: Box<dyn Named> = Box::new(Person(name, Counted(Arc::clone(&count))));
                    if tx.send(value).is_err() {
                        panic!("the receiver is there");
                    }
                }
            });
            for (n, name) in ["Ann", "Bob", "Cy", "Di"].into_iter().enumerate() {
                let value = rx.recv().unwrap();
                assert_eq!(value.name(), name);
                assert_eq!(drops.load(SeqCst), n, "dropped by nobody but the receiver");
                drop(value);
                assert_eq!(drops.load(SeqCst), n + 1);
            }
            sender.join().unwrap();
            drop(rx);
            assert_eq!(drops.load(SeqCst), 4, "the channel held nothing any more");
        }
    });
}

#[test]
fn cz_03_what_is_left_in_a_channel_is_dropped_once() {
    let drops = Arc::new(AtomicUsize::new(0));
    let counted = || Counted(Arc::clone(&drops));
    for receivers_go_first in [false, true] {
        for (tx, rx) in [bounded(10), unbounded()] {
            (0..10).for_each(|_| tx.send(counted()).unwrap());
            (0..3).for_each(|_| drop(rx.recv().unwrap()));
            assert_eq!(drops.swap(0, SeqCst), 3);
            let other = rx.clone();
            if receivers_go_first {
                drop(rx);
                assert_eq!(drops.swap(0, SeqCst), 0, "there is a receiver");
                drop(other);
                assert_eq!(drops.swap(0, SeqCst), 7, "the last receiver drops what is left");
                let back = tx.send(counted()).unwrap_err();
                assert_eq!(drops.load(SeqCst), 0, "the value comes back");
                drop(back);
                assert_eq!(drops.swap(0, SeqCst), 1);
                drop(tx);
            } else {
                drop(tx);
                assert_eq!(drops.swap(0, SeqCst), 0, "what was sent can still be received");
                drop(other.recv().unwrap());
                drop((other, rx));
                assert_eq!(drops.swap(0, SeqCst), 7);
            }
        }
    }
    assert_eq!(drops.load(SeqCst), 0);
}

/// Dropping a channel whose values hold ends of it, or of others, ends.
#[test]
fn cz_03_a_channel_may_hold_its_own_ends() {
    let drops = Arc::new(AtomicUsize::new(0));
    let chan = Chan::<(Option<Box<dyn std::any::Any + Send>>, Counted)>::bounded(4);
    let (tx, rx) = (chan.sender(), chan.receiver());
    let sent = chan.send((Some(Box::new(tx)), Counted(Arc::clone(&drops))));
    assert!(sent.is_ok());
    drop(chan);
    drop(rx);
    assert_eq!(drops.load(SeqCst), 1);
}

/// Values whose drops panic: the first panic comes out of the drop of the last receiver, after every value has been dropped once.
#[test]
fn cz_03_a_drop_that_panics() {
    /// Panics in each drop, also when another has already panicked.
    struct Bomb(Counted, usize);
    impl Drop for Bomb {
        fn drop(&mut self) {
            let _: &Counted = &self.0;
            panic!("bomb {}", self.1);
        }
    }
    at_1_2_4(|| {
        for capacity in [Some(3), Some(8), None] {
            let drops = Arc::new(AtomicUsize::new(0));
            let (tx, rx) = capacity.map_or_else(unbounded, bounded);
            for number in 0..3 {
                assert!(tx.send(Bomb(Counted(Arc::clone(&drops)), number)).is_ok());
            }
            let payload = catch_unwind(AssertUnwindSafe(|| drop(rx))).unwrap_err();
            assert_eq!(payload.downcast_ref::<String>().unwrap(), "bomb 0");
            assert_eq!(drops.load(SeqCst), 3, "each is dropped once");
            let back = tx.try_send(Bomb(Counted(Arc::clone(&drops)), 3)).unwrap_err();
            assert!(back.is_disconnected());
            std::mem::forget(back);
            assert_eq!(drops.load(SeqCst), 3, "the value came back");
        }
    });
}

/// On a channel that another worker or thread uses too, a receive with a time limit waits for the limit, not for many turns of others.
#[test]
fn cr_a_time_limit_is_not_lingered_past() {
    rt(1, || {
        let (tx, rx) = bounded::<u32>(4);
        let (stop, turns) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let others = WaitGroup::new();
        let (stopped, turn) = (stop.clone(), turns.clone());
        others.go(move || {
            while !stopped.load(SeqCst) {
                let begin = Instant::now();
                while begin.elapsed() < Duration::from_millis(2) {
                    std::hint::spin_loop();
                }
                turn.fetch_add(1, SeqCst);
                yield_now();
            }
        });
        // Where the clock thread has no core for a while, turns go by: the fewest count.
        let fewest = (0..10)
            .map(|n| {
                // A thread of another runtime's kind has had the channel.
                let tx = tx.clone();
                thread::spawn(move || tx.send(n).unwrap()).join().unwrap();
                assert_eq!(rx.recv(), Ok(n));
                let before = turns.load(SeqCst);
                assert!(rx.recv_timeout(Duration::from_millis(1)).is_err());
                turns.load(SeqCst) - before
            })
            .min();
        stop.store(true, SeqCst);
        others.wait();
        assert!(fewest < Some(8), "{fewest:?} turns of another went by");
    });
}
