//! Group SE: slots, out of which a sending arm takes its value when it is chosen; several arms of one `select!` may share one.

mod common;

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use common::{Counted, at_1_2_4, at_length, closed_receiver, closed_sender, quiesce, rt};
use oxigo::{Sender, bounded, go, select, select_biased, unbounded, unbuffered};

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
    let end = closed_receiver::<()>();
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

#[test]
fn se_03_a_value_offered_to_several_from_one_slot_goes_to_one_of_them() {
    at_1_2_4(|| {
        let least = at_length(300, 3000);
        let ((one, from_one), (two, from_two)) = (unbuffered::<Box<usize>>(), unbuffered::<Box<usize>>());
        let (three, from_three) = bounded(1);
        let served: [_; 3] = std::array::from_fn(|_| Arc::new(AtomicUsize::new(0)));
        let mut served_by = served.iter().cloned();
        let receivers = [from_one, from_two, from_three].map(|rx| {
            let served = served_by.next().unwrap();
            let count = move |n: Box<usize>| {
                served.fetch_add(1, SeqCst);
                *n
            };
            go(move || rx.iter().map(count).collect::<Vec<_>>())
        });
        let mut slot = None;
        // Receivers may come late on a busy machine: it goes on until each has had one.
        let limit = Instant::now() + Duration::from_secs(60);
        let mut count = 0;
        while count < least || served.iter().any(|served| served.load(SeqCst) == 0) {
            assert!(Instant::now() < limit, "some arm was never chosen: {served:?}");
            slot = Some(Box::new(count));
            count += 1;
            select! {
                send(one, from slot) -> r => r.unwrap(),
                send(two, from slot) -> r => r.unwrap(),
                send(three, from slot) -> r => r.unwrap(),
            }
            assert_eq!(slot, None);
        }
        drop((one, two, three, slot));
        let received = receivers.map(|receiver| receiver.join().unwrap());
        let mut all = received.concat();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..count));
    });
}

#[test]
fn se_03_arms_that_share_a_slot_are_equally_likely_and_biased_ones_go_in_order() {
    let channels: [_; 3] = std::array::from_fn(|_| unbounded());
    let [(one, from_one), (two, from_two), (_, from_none)] = &channels;
    let mut slot;
    for _ in 0..6000 {
        slot = Some(());
        // A channel that is listed twice counts twice.
        select! {
            send(one, from slot) -> r => r.unwrap(),
            send(two, from slot) -> r => r.unwrap(),
            send(one, from slot) -> r => r.unwrap(),
            recv(from_none) -> _ => unreachable!(),
        }
        assert_eq!(slot, None);
    }
    let counts = [from_one.len() as u32, from_two.len() as u32];
    assert_eq!(counts[0] + counts[1], 6000);
    assert!((1700..2300).contains(&counts[1]), "{counts:?}");
    for _ in 0..10 {
        slot = Some(());
        select_biased! {
            send(two, from slot) -> r => r.unwrap(),
            send(one, from slot) -> r => r.unwrap(),
        }
    }
    assert_eq!(from_two.len() as u32, counts[1] + 10);
}

#[test]
fn se_11_a_shared_slot_keeps_its_value_when_another_arm_is_chosen() {
    at_1_2_4(|| {
        let dropped = Arc::new(AtomicUsize::new(0));
        let ((one, from_one), (two, from_two)) = (bounded::<Counted>(0), bounded::<Counted>(0));
        let mut slot = Some(Counted(Arc::clone(&dropped)));
        select! {
            send(one, from slot) -> _ => unreachable!(),
            send(two, from slot) -> _ => unreachable!(),
            default => assert!(slot.is_some(), "the body sees the slot"),
        }
        select! {
            send(one, from slot) -> _ => unreachable!(),
            send(two, from slot) -> _ => unreachable!(),
            default(Duration::from_millis(1)) => assert!(slot.is_some()),
        }
        // After having waited.
        let (tx, rx) = unbuffered();
        let sender = go(move || tx.send(7));
        select! {
            send(one, from slot) -> _ => unreachable!(),
            recv(rx) -> n => { assert_eq!(n, Ok(7)); assert!(slot.is_some()); }
            send(two, from slot) -> _ => unreachable!(),
        }
        sender.join().unwrap().unwrap();
        // Nothing of the offers is left in the channels.
        assert!(from_one.try_recv().is_err() && from_two.try_recv().is_err());
        assert_eq!(dropped.load(SeqCst), 0);
        // The same slot again: it goes to the one that comes.
        let receiver = go(move || from_two.recv().unwrap());
        select! {
            send(one, from slot) -> _ => unreachable!(),
            send(two, from slot) -> r => { r.unwrap(); slot = None; }
        }
        drop(receiver.join().unwrap());
        assert!(slot.is_none() && from_one.try_recv().is_err());
        assert_eq!(dropped.load(SeqCst), 1);
    });
}

#[test]
fn se_07_a_closed_channel_gives_the_value_of_a_shared_slot_back() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let ((one, _one), (two, _two)) = (closed_sender(), closed_sender());
    for _ in 0..100 {
        let mut slot = Some(Counted(Arc::clone(&dropped)));
        let error = select! {
            send(one, from slot) -> sent => sent.unwrap_err(),
            send(two, from slot) -> sent => sent.unwrap_err(),
        };
        assert!(slot.is_none());
        let before = dropped.swap(0, SeqCst);
        drop((error, slot));
        assert_eq!((before, dropped.swap(0, SeqCst)), (0, 1));
    }
    // Closed while the select waits.
    at_1_2_4(|| {
        let ((one, from_one), (two, from_two)) = (unbuffered(), unbuffered());
        let mut slot = Some("kept".to_owned());
        let closer = go(move || drop((from_one, from_two)));
        let error = select! {
            send(one, from slot) -> sent => sent.unwrap_err(),
            send(two, from slot) -> sent => sent.unwrap_err(),
        };
        assert_eq!((error.into_inner().as_str(), slot), ("kept", None));
        closer.join().unwrap();
    });
}

#[test]
fn se_20_a_panic_leaves_a_shared_slot_full_or_empty_and_drops_its_value_once() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let ((one, from_one), (two, from_two)) = (bounded(1), bounded(1));
    let mut slot = Some(Counted(Arc::clone(&dropped)));
    // In an operand: nothing is sent.
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        select! {
            send(one, from slot) -> _ => {}
            send({ if dropped.load(SeqCst) == 0 { panic!("on purpose") } &two }, from slot) -> _ => {}
        }
    }));
    panicked.unwrap_err();
    assert!(slot.is_some() && from_one.is_empty() && from_two.is_empty());
    // In the body of an arm that has sent.
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        select! {
            send(one, from slot) -> _ => panic!("on purpose"),
            send(two, from slot) -> _ => panic!("on purpose"),
        }
    }));
    panicked.unwrap_err();
    assert!(slot.is_none());
    assert_eq!((from_one.len() + from_two.len(), dropped.load(SeqCst)), (1, 0));
    drop((from_one, from_two, one, two));
    assert_eq!(dropped.load(SeqCst), 1);
    // In the body of another one.
    let (full, _keep) = bounded(0);
    slot = Some(Counted(Arc::clone(&dropped)));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        select! {
            send(full, from slot) -> _ => {}
            send(full, from slot) -> _ => {}
            default => panic!("on purpose"),
        }
    }));
    panicked.unwrap_err();
    assert!(slot.is_some());
    assert_eq!(dropped.load(SeqCst), 1);
    // An empty slot is refused, as with one arm.
    let mut empty = None::<u8>;
    let (tx, rx) = bounded(1);
    let refused = catch_unwind(AssertUnwindSafe(|| {
        select! { send(tx, from empty) -> _ => {} send(tx, from empty) -> _ => {} }
    }));
    refused.unwrap_err();
    assert!(rx.is_empty());
}

#[test]
fn se_01_a_shared_slot_is_lent_once_and_channels_are_evaluated_in_order() {
    struct Offer {
        slot: Option<i32>,
        pair: (Option<i32>, u8),
    }
    impl Offer {
        fn offer(&mut self, one: &Sender<i32>, two: &Sender<i32>) {
            let log = RefCell::new(Vec::new());
            let note = |what: &'static str| log.borrow_mut().push(what);
            select_biased! {
                send({ note("one"); one }, from self.slot) -> r => r.unwrap(),
                send({ note("two"); two }, from self.pair.0) -> _ => unreachable!(),
                send({ note("one again"); one }, from self.slot) -> _ => unreachable!(),
                send({ note("two again"); two }, from self.pair.0) -> _ => unreachable!(),
            }
            assert_eq!(log.into_inner(), ["one", "two", "one again", "two again"]);
        }
    }

    fn to_either(slot: &mut Option<i32>, one: &Sender<i32>, two: &Sender<i32>) {
        select_biased! { send(two, from *slot) -> r => r.unwrap(), send(one, from *slot) -> _ => unreachable!() }
    }
    let ((one, from_one), (two, from_two)) = (unbounded(), unbounded());
    let mut offer = Offer { slot: Some(1), pair: (Some(2), 0) };
    offer.offer(&one, &two);
    assert_eq!((offer.slot, offer.pair), (None, (Some(2), 0)));
    let mut slot = Some(3);
    to_either(&mut slot, &one, &two);
    assert_eq!(slot, None);
    assert!(from_one.try_iter().eq([1]) && from_two.try_iter().eq([3]));
}

/// Those of a macro and of its caller; and one that a macro names twice is one slot.
#[test]
fn slots_of_one_name_are_told_apart() {
    macro_rules! offer_after_mine {
        ($slot:ident, $full:ident, $tx:ident) => {
            let mut slot = Some("the macro's");
            select! {
                send($full, from slot) -> _ => unreachable!(),
                send($tx, from $slot) -> r => r.unwrap(),
            }
            assert_eq!(($slot, slot), (None, Some("the macro's")));
            $slot = slot;
            select! {
                send($full, from $slot) -> _ => unreachable!(),
                send($tx, from $slot) -> r => r.unwrap(),
            }
        };
    }
    let ((tx, rx), (full, _keep)) = (unbounded(), bounded(0));
    let mut slot = Some("the caller's");
    offer_after_mine!(slot, full, tx);
    assert_eq!(slot, None);
    assert!(rx.try_iter().eq(["the caller's", "the macro's"]));
}

/// It was taken for a value that begins with the word `from`, and did not compile.
#[test]
fn a_slot_may_be_an_expression_that_a_macro_was_given() {
    struct Offer {
        slot: Option<&'static str>,
    }
    macro_rules! offer {
        ($slot:expr, $full:expr, $tx:expr) => {
            select! {
                send($full, from $slot) -> _ => unreachable!(),
                send($tx, from $slot) -> r => r.unwrap(),
            }
        };
    }
    macro_rules! offer_its {
        ($offer:expr, $tx:expr) => {
            select! { send($tx, from $offer.slot) -> r => r.unwrap() }
        };
    }
    let ((tx, rx), (full, _keep)) = (unbounded(), bounded(0));
    let mut slot = Some("a variable");
    offer!(slot, full, tx);
    let mut offer = Offer { slot: Some("a field") };
    offer!(offer.slot, full, tx);
    assert_eq!((slot, offer.slot), (None, None));
    offer.slot = Some("a field of an expression");
    offer_its!(offer, tx);
    assert!(rx.try_iter().eq(["a variable", "a field", "a field of an expression"]));
}
