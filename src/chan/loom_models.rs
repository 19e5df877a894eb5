//! Models of channels and select: two or three parties, every order that matters.
//!
//! Every value arrives exactly once or comes back; no wake is lost (loom reports a deadlock); nothing is completed twice.

use std::time::{Duration, Instant};

use loom::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::{
    Receiver, RecvCtxError, RecvTimeoutError, Select, SelectedOperation, SendTimeoutError, Sender, TryRecvError,
    bounded, core::Channel, receiver::FlavorRef, state::Step, two_step::Taken,
};
use crate::{
    context::Context,
    runtime::{park, wait::Reason},
    select,
    select::engine::loom_guess::WANTED,
    time::Timer,
};

/// Counts how often a value is dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// With selects that look at all arms only, and with selects that look at the first one before (X3 of `select::engine`).
fn with_each_look(model: impl Fn() + Sync + Send + Copy + 'static) {
    for wanted in [false, true] {
        WANTED.set(wanted);
        loom::model(model);
    }
}

fn for_capacities(model: impl Fn(usize) + Sync + Send + Copy + 'static) {
    for capacity in [0, 1, 2] {
        loom::model(move || model(capacity));
    }
}

#[test]
fn loom_values_arrive_once_and_in_order() {
    for_capacities(|capacity| {
        let (tx, rx) = bounded(capacity);
        let sender = thread::spawn(move || {
            tx.send(1).unwrap();
            tx.send(2).unwrap();
        });
        assert_eq!(rx.recv(), Ok(1));
        assert_eq!(rx.recv(), Ok(2));
        assert!(rx.recv().is_err());
        sender.join().unwrap();
    });
}

#[test]
fn loom_two_senders_one_receiver() {
    for_capacities(|capacity| {
        let (tx, rx) = bounded(capacity);
        let other = tx.clone();
        let a = thread::spawn(move || tx.send(1).unwrap());
        let b = thread::spawn(move || other.send(2).unwrap());
        assert_eq!(rx.recv().unwrap() + rx.recv().unwrap(), 3);
        a.join().unwrap();
        b.join().unwrap();
    });
}

#[test]
fn loom_batches_arrive_once_and_in_order() {
    for_capacities(|capacity| {
        let (tx, rx) = bounded(capacity);
        let sender = thread::spawn(move || tx.send_many(vec![1, 2]).unwrap());
        let mut all = Vec::new();
        while rx.recv_many(&mut all, 2).is_ok() {}
        assert_eq!(all, [1, 2]);
        sender.join().unwrap();
    });
}

/// C9: two that poll beside a sender. Whoever knows that something was sent finds it, also by a select or a batch.
#[test]
fn loom_polls_see_what_was_sent() {
    for how in [0, 1, 2] {
        loom::model(move || {
            let (tx, rx) = bounded(1);
            // The end of the last sender would be a change as well.
            let _open = tx.clone();
            let other = rx.clone();
            let polls = thread::spawn(move || other.try_recv().ok());
            let sends = thread::spawn(move || match how {
                0 => tx.try_send(1).unwrap(),
                1 => select! { send(tx, 1) -> sent => sent.unwrap() },
                _ => tx.send_many(vec![1]).unwrap(),
            });
            let first = rx.try_recv().ok();
            sends.join().unwrap();
            let second = rx.try_recv().ok();
            let all = [polls.join().unwrap(), first, second];
            assert_eq!(all.iter().flatten().count(), 1, "{all:?}");
        });
    }
}

/// C9: the same of a sender that waits, alone or in a select.
#[test]
fn loom_polls_meet_a_sender_that_waits() {
    for selects in [false, true] {
        loom::model(move || {
            let (tx, rx) = bounded(0);
            let _open = tx.clone();
            let sends = thread::spawn(move || {
                if selects {
                    select! { send(tx, 1) -> sent => sent.unwrap() }
                } else {
                    tx.send(1).unwrap();
                }
            });
            // Nothing else would let it end.
            while rx.try_recv().is_err() {
                loom::thread::yield_now();
            }
            sends.join().unwrap();
        });
    }
}

/// C9, C8: what was taken and given back, even after a close, is found.
#[test]
fn loom_polls_see_what_was_given_back() {
    loom::model(|| {
        let (tx, rx) = bounded(1);
        tx.send(7).unwrap();
        let other = rx.clone();
        let polls = thread::spawn(move || other.try_recv().ok());
        let closes = thread::spawn(move || tx.close().unwrap());
        take_and_give_back(&rx);
        closes.join().unwrap();
        let first = polls.join().unwrap();
        let left = rx.try_recv().ok();
        assert_eq!(first.or(left), Some(7));
        assert!(first.is_none() || left.is_none());
        assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected));
    });
}

/// HB-03, C9: who is told of the end sees what was done before it, also by one who was told before.
#[test]
fn loom_polls_of_an_end_see_what_was_before_it() {
    loom::model(|| {
        let (tx, rx) = bounded::<i32>(1);
        let done = Arc::new(AtomicUsize::new(0));
        let (other, written) = (rx.clone(), Arc::clone(&done));
        let closes = thread::spawn(move || {
            written.store(1, Ordering::Relaxed);
            tx.close().unwrap();
        });
        let polls = thread::spawn(move || _ = other.try_recv());
        for _ in 0..2 {
            if rx.try_recv() == Err(TryRecvError::Disconnected) {
                assert_eq!(done.load(Ordering::Relaxed), 1);
            }
        }
        closes.join().unwrap();
        assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected));
        polls.join().unwrap();
    });
}

/// C2: senders that wait beside a full buffer are let in by a batch, and told.
#[test]
fn loom_a_batch_and_two_senders() {
    for_capacities(|capacity| {
        let (tx, rx) = bounded(capacity);
        let other = tx.clone();
        let a = thread::spawn(move || tx.send(1).unwrap());
        let b = thread::spawn(move || other.send(2).unwrap());
        let mut all = Vec::new();
        while rx.recv_many(&mut all, 2).is_ok() {}
        assert_eq!(all.iter().sum::<i32>(), 3);
        a.join().unwrap();
        b.join().unwrap();
    });
}

/// A batch to a receiver that waits, or comes, while the channel is closed: what was not sent comes back.
#[test]
fn loom_a_batch_against_close() {
    for_capacities(|capacity| {
        let (tx, rx) = bounded(capacity);
        let closer = tx.clone();
        let sender = thread::spawn(move || match tx.send_many(vec![1, 2]) {
            Ok(()) => Vec::new(),
            Err(error) => error.0,
        });
        let closing = thread::spawn(move || closer.close().unwrap());
        let mut all: Vec<_> = rx.iter().collect();
        all.extend(sender.join().unwrap());
        closing.join().unwrap();
        assert_eq!(all, [1, 2]);
    });
}

/// CC-04: a value that was not received comes back; never both.
#[test]
fn loom_close_against_send_and_receive() {
    for_capacities(|capacity| {
        let drops = Arc::new(AtomicUsize::new(0));
        let (tx, rx) = bounded(capacity);
        let closer = tx.clone();
        let value = Counted(drops.clone());
        let sender = thread::spawn(move || tx.send(value).is_ok());
        let closing = thread::spawn(move || closer.close().unwrap());
        let received = rx.recv().is_ok();
        let sent = sender.join().unwrap();
        closing.join().unwrap();
        assert_eq!(sent, received, "sent and received are one event");
        drop(rx);
        assert_eq!(drops.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn loom_dropping_the_receiver_gives_values_back() {
    for_capacities(|capacity| {
        let drops = Arc::new(AtomicUsize::new(0));
        let (tx, rx) = bounded(capacity);
        let value = Counted(drops.clone());
        let sender = thread::spawn(move || drop(tx.send(value)));
        drop(rx);
        sender.join().unwrap();
        assert_eq!(drops.load(Ordering::SeqCst), 1);
    });
}

/// A time limit races with the partner: the value is received, or it stays with its sender.
#[test]
fn loom_time_limits_lose_no_value() {
    for_capacities(|capacity| {
        let (tx, rx) = bounded(capacity);
        let sender = thread::spawn(move || match tx.send_timeout(7, Duration::from_secs(1)) {
            Ok(()) => true,
            Err(SendTimeoutError::Timeout(7)) => false,
            Err(other) => panic!("{other}"),
        });
        let received = match rx.recv_timeout(Duration::from_secs(1)) {
            Ok(7) => true,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => false,
            other => panic!("{other:?}"),
        };
        let sent = sender.join().unwrap();
        let left = rx.try_recv().is_ok();
        assert_eq!(sent, received || left);
        assert!(!(received && left));
    });
}

/// The same of a context that both heed: a value is where the answers say, and who gave up can say why.
#[test]
fn loom_a_context_that_ends_loses_no_value() {
    for_capacities(|capacity| {
        let drops = Arc::new(AtomicUsize::new(0));
        let (ctx, cancel) = Context::background().with_cancel();
        let ends = thread::spawn(move || cancel.cancel());
        let (tx, rx) = bounded(capacity);
        let sends = {
            let (value, ctx) = (Counted(drops.clone()), ctx.clone());
            thread::spawn(move || tx.send_ctx(value, &ctx).is_ok())
        };
        let received = rx.recv_ctx(&ctx).map(drop);
        // Who gave up closes the channel, but the context had ended before.
        assert!(!matches!(received, Err(RecvCtxError::Disconnected)));
        let received = received.is_ok();
        let sent = sends.join().unwrap();
        ends.join().unwrap();
        assert!(!received || sent);
        assert!(received || !sent || capacity > 0, "a value was taken from a sender, and nobody has it");
        drop(rx);
        assert_eq!(drops.load(Ordering::SeqCst), 1);
    });
}

/// CC-09: a value that is there is never missed because of a close.
#[test]
fn loom_try_receive_against_close() {
    loom::model(|| {
        let (tx, rx) = bounded(1);
        tx.send(1).unwrap();
        let other = rx.clone();
        let closer = thread::spawn(move || {
            tx.close().unwrap();
            other.recv().is_ok()
        });
        let here = match rx.try_recv() {
            Ok(1) => true,
            Err(TryRecvError::Disconnected) => false,
            other => panic!("would block, though a value or the close was there: {other:?}"),
        };
        assert!(here != closer.join().unwrap());
    });
}

/// CQ-04: two partners, on two channels, complete a waiting select; one of them gets it and the other keeps its value.
#[test]
fn loom_a_select_is_completed_once() {
    with_each_look(|| {
        let (ta, ra) = bounded::<u32>(0);
        let (tb, rb) = bounded::<u32>(0);
        let a = thread::spawn(move || ta.send(1).is_ok());
        let b = thread::spawn(move || tb.send(2).is_ok());
        let first = select! {
            recv(ra) -> v => v.unwrap(),
            recv(rb) -> v => v.unwrap(),
        };
        drop((ra, rb));
        let sent = (a.join().unwrap(), b.join().unwrap());
        assert_eq!(sent, (first == 1, first == 2));
    });
}

/// Select against select: a send and a receive that may both be waiting.
#[test]
fn loom_select_meets_select() {
    with_each_look(|| {
        let (ta, ra) = bounded::<u32>(0);
        let (tb, rb) = bounded::<u32>(0);
        let other = thread::spawn(move || {
            select! {
                send(ta, 1) -> r => { r.unwrap(); 1 }
                send(tb, 2) -> r => { r.unwrap(); 2 }
            }
        });
        let received = select! {
            recv(rb) -> v => v.unwrap(),
            recv(ra) -> v => v.unwrap(),
        };
        assert_eq!(other.join().unwrap(), received);
    });
}

/// SE-09: two parties that both select {send, receive} on one channel pair up.
#[test]
fn loom_self_select_pairs_up() {
    with_each_look(|| {
        let (tx, rx) = bounded::<u32>(0);
        let (tx2, rx2) = (tx.clone(), rx.clone());
        let other = thread::spawn(move || {
            select! {
                send(tx2, 2) -> r => { r.unwrap(); None }
                recv(rx2) -> v => Some(v.unwrap()),
            }
        });
        let mine = select! {
            send(tx, 1) -> r => { r.unwrap(); None }
            recv(rx) -> v => Some(v.unwrap()),
        };
        match (mine, other.join().unwrap()) {
            (None, Some(1)) | (Some(2), None) => {}
            other => panic!("not a pair: {other:?}"),
        }
    });
}

#[test]
fn loom_select_sees_the_close() {
    with_each_look(|| {
        let (ta, ra) = bounded::<u32>(0);
        let (_tb, rb) = bounded::<u32>(1);
        let closer = thread::spawn(move || ta.close().unwrap());
        select! {
            recv(ra) -> v => assert!(v.is_err()),
            recv(rb) -> _ => unreachable!(),
        }
        closer.join().unwrap();
    });
}

/// One value, two that want it: one gets it, the other the end of the channel.
#[test]
fn loom_one_sender_two_receivers() {
    for_capacities(|capacity| {
        let (tx, rx) = bounded(capacity);
        let other = rx.clone();
        let a = thread::spawn(move || other.recv().is_ok());
        let b = thread::spawn(move || rx.recv().is_ok());
        tx.send(1).unwrap();
        drop(tx);
        assert!(a.join().unwrap() != b.join().unwrap());
    });
}

/// A select receives from two channels what two others send, each value once.
#[test]
fn loom_select_receives_every_value_once() {
    for_capacities(|capacity| {
        let (ta, ra) = bounded(capacity);
        let (tb, rb) = bounded(capacity);
        let a = thread::spawn(move || ta.send(1).unwrap());
        let b = thread::spawn(move || tb.send(2).unwrap());
        let mut sum = 0;
        let mut open = (true, true);
        while open.0 || open.1 {
            // A closed channel is always ready: it is asked once.
            let (ra, rb) = (open.0.then_some(&ra), open.1.then_some(&rb));
            match (ra, rb) {
                (Some(ra), Some(rb)) => select! {
                    recv(ra) -> v => match v { Ok(v) => sum += v, Err(_) => open.0 = false },
                    recv(rb) -> v => match v { Ok(v) => sum += v, Err(_) => open.1 = false },
                },
                (Some(last), None) | (None, Some(last)) => {
                    while let Ok(v) = last.recv() {
                        sum += v;
                    }
                    open = (false, false);
                }
                (None, None) => unreachable!(),
            }
        }
        assert_eq!(sum, 3);
        a.join().unwrap();
        b.join().unwrap();
    });
}

/// A select sends to one of two channels, on each of which another waits: one of them receives, and what it says is true.
#[test]
fn loom_select_sends_to_one() {
    for_capacities(|capacity| {
        let (ta, ra) = bounded::<u32>(capacity);
        let (tb, rb) = bounded::<u32>(capacity);
        let a = thread::spawn(move || ra.recv().is_ok());
        let b = thread::spawn(move || rb.recv().is_ok());
        let to_a = select! {
            send(ta, 1) -> r => { r.unwrap(); true }
            send(tb, 2) -> r => { r.unwrap(); false }
        };
        drop((ta, tb));
        assert_eq!((a.join().unwrap(), b.join().unwrap()), (to_a, !to_a));
    });
}

/// CC-04 for a select: a value that was not received comes back; never both.
#[test]
fn loom_close_against_select_and_receive() {
    for_capacities(|capacity| {
        let drops = Arc::new(AtomicUsize::new(0));
        let (tx, rx) = bounded(capacity);
        let (_keep, quiet) = bounded::<u32>(1);
        let closer = tx.clone();
        let mut slot = Some(Counted(drops.clone()));
        let sender = thread::spawn(move || {
            select! {
                send(tx, from slot) -> r => r.is_ok(),
                recv(quiet) -> _ => unreachable!(),
            }
        });
        let closing = thread::spawn(move || closer.close().unwrap());
        let received = rx.recv().is_ok();
        let sent = sender.join().unwrap();
        closing.join().unwrap();
        assert_eq!(sent, received, "sent and received are one event");
        drop(rx);
        assert_eq!(drops.load(Ordering::SeqCst), 1);
    });
}

/// The clock completes a waiting select, or the partner does; the value is received, or it is still there.
#[test]
fn loom_time_limits_of_select_lose_no_value() {
    for_capacities(|capacity| {
        let (tx, rx) = bounded(capacity);
        let (_keep, quiet) = bounded::<u32>(1);
        let sender = thread::spawn(move || {
            let mut slot = Some(7);
            let sent = select! {
                send(tx, from slot) -> r => r.is_ok(),
                default(Duration::from_secs(1)) => false,
            };
            assert_eq!(slot.is_some(), !sent);
            sent
        });
        let received = select! {
            recv(rx) -> v => v.is_ok(),
            recv(quiet) -> _ => unreachable!(),
            default(Duration::from_secs(1)) => false,
        };
        let sent = sender.join().unwrap();
        let left = rx.try_recv().is_ok();
        assert_eq!(sent, received || left);
        assert!(!(received && left));
    });
}

/// The two steps of a run-time select: what it was promised holds until the second step, or the channel is closed and it is told.
#[test]
fn loom_two_step_send_against_receive_and_close() {
    for_capacities(|capacity| {
        let (tx, rx) = bounded(capacity);
        let closer = tx.clone();
        let sender = thread::spawn(move || {
            let mut list = Select::new();
            list.send(&tx);
            list.select().send(&tx, 7).is_ok()
        });
        let closing = thread::spawn(move || closer.close().unwrap());
        let received = rx.recv() == Ok(7);
        let sent = sender.join().unwrap();
        closing.join().unwrap();
        assert_eq!(sent, received || rx.try_recv().is_ok(), "sent and received are one event");
    });
}

/// A run-time select on both sides.
#[test]
fn loom_two_step_send_meets_two_step_receive() {
    for_capacities(|capacity| {
        let (tx, rx) = bounded(capacity);
        let sender = thread::spawn(move || {
            let mut list = Select::new();
            list.send(&tx);
            list.select().send(&tx, 7).unwrap();
        });
        let mut list = Select::new();
        list.recv(&rx);
        assert_eq!(list.select().recv(&rx), Ok(7));
        sender.join().unwrap();
    });
}

fn choose_send(tx: &Sender<u32>) -> SelectedOperation<'_> {
    let mut list = Select::new();
    list.send(tx);
    list.select()
}

/// C6: what comes after a promise is received after it, whoever waits for what meanwhile.
#[test]
fn loom_a_promise_is_not_overtaken() {
    for capacity in [1, 2] {
        loom::model(move || {
            let (tx, rx) = bounded(capacity);
            let (first, second) = (tx.clone(), tx);
            let promised = choose_send(&first);
            let sender = thread::spawn(move || second.send(2).unwrap());
            let receiver = thread::spawn(move || (rx.recv(), rx.recv()));
            promised.send(&first, 1).unwrap();
            assert_eq!(receiver.join().unwrap(), (Ok(1), Ok(2)));
            sender.join().unwrap();
        });
    }
}

/// C6: a promise that is given up holds nobody up, and a receiver whose time passes meanwhile takes nothing with it.
#[test]
fn loom_a_promise_that_is_given_up_lets_others_go_on() {
    for capacity in [1, 2] {
        loom::model(move || {
            let (tx, rx) = bounded(capacity);
            let other = tx.clone();
            let grant = tx.channel().state().lock().grant().unwrap();
            let sender = thread::spawn(move || other.send(2).unwrap());
            let receiver = thread::spawn(move || {
                let first = rx.recv_timeout(Duration::from_secs(1)).ok();
                first.or_else(|| rx.recv().ok())
            });
            // SAFETY: granted above, by the same channel.
            unsafe { tx.channel().give_up_grant(grant) };
            assert_eq!(receiver.join().unwrap(), Some(2));
            sender.join().unwrap();
        });
    }
}

/// C6: a close ends promises; what is behind them is received, and nothing else.
#[test]
fn loom_a_close_ends_promises() {
    loom::model(|| {
        let (tx, rx) = bounded(2);
        let promised = choose_send(&tx);
        tx.send(2).unwrap();
        let closer = tx.clone();
        let closing = thread::spawn(move || closer.close().unwrap());
        let receiver = thread::spawn(move || (rx.recv().ok(), rx.recv().ok()));
        let sent = promised.send(&tx, 1).is_ok();
        let received = receiver.join().unwrap();
        assert_eq!(received, if sent { (Some(1), Some(2)) } else { (Some(2), None) });
        closing.join().unwrap();
    });
}

fn channel(rx: &Receiver<u32>) -> &Channel<u32> {
    match rx.flavor() {
        FlavorRef::Channel(channel) => channel,
        _ => unreachable!("a receiver of a channel"),
    }
}

/// Takes what is there in the first of two steps, and gives it back.
fn take_and_give_back(rx: &Receiver<u32>) {
    let mut value = std::mem::MaybeUninit::<u32>::uninit();
    // SAFETY: room for a value.
    let taken = unsafe { channel(rx).state().lock().take(value.as_mut_ptr()) };
    match taken {
        // SAFETY: taken just now, and used once.
        Taken::Held(sender) => unsafe { channel(rx).give_back_held(sender) },
        Taken::Step(Step::Done(sender), taken_at) => {
            // SAFETY: initialised, since that is done.
            channel(rx).give_back(unsafe { value.assume_init() }, taken_at);
            if let Some(sender) = sender {
                sender.wake(park::Wake::Queue);
            }
        }
        Taken::Step(..) => {}
    }
}

/// C7, C8: what a two-step receive gives back is received by another one, who may wait already, or is there after the close.
#[test]
fn loom_what_is_given_back_is_received_once() {
    let sent_by = |send: fn(&Sender<u32>) -> bool| {
        for_capacities(move |capacity| {
            let (tx, rx) = bounded(capacity);
            let other = rx.clone();
            let sender = thread::spawn(move || send(&tx));
            let receiver = thread::spawn(move || other.recv().ok());
            take_and_give_back(&rx);
            let sent = sender.join().unwrap();
            let received = receiver.join().unwrap();
            let left = rx.try_recv().ok();
            assert_eq!(received.or(left), sent.then_some(7));
            assert!(received.is_none() || left.is_none());
        });
    };
    sent_by(|tx| tx.send(7).is_ok());
    sent_by(|tx| tx.send_timeout(7, Duration::from_secs(1)).is_ok());
    sent_by(|tx| {
        let (_keep, quiet) = bounded::<u32>(0);
        select! { send(tx, 7) -> sent => sent.is_ok(), recv(quiet) -> _ => unreachable!() }
    });
}

/// CU-02: a send without a buffer has been received when it returns.
#[test]
fn loom_a_sender_whose_value_is_given_back_is_not_told_that_it_was_received() {
    loom::model(|| {
        let (tx, rx) = bounded(0);
        let sender = thread::spawn(move || tx.send(7).is_ok());
        take_and_give_back(&rx);
        drop(rx);
        assert!(!sender.join().unwrap());
    });
}

/// Who waits for an operation to become ready is told, by a plain send and by a select, and finds it so.
#[test]
fn loom_ready_is_told_and_true() {
    let told_by = |send: fn(super::Sender<u32>)| {
        for_capacities(move |capacity| {
            let (tx, rx) = bounded(capacity);
            let sender = thread::spawn(move || send(tx));
            let mut list = Select::new();
            list.recv(&rx);
            assert_eq!(list.ready(), 0);
            assert_eq!(rx.try_recv(), Ok(7));
            sender.join().unwrap();
        });
    };
    told_by(|tx| tx.send(7).unwrap());
    told_by(|tx| select! { send(tx, 7) -> sent => sent.unwrap() });
}

/// The second channel becomes ready before the first ceases to be; whether `look` found one of them.
fn one_of_two_is_ready(look: fn(&super::Receiver<u32>, &super::Receiver<u32>) -> bool) -> bool {
    let (ta, ra) = bounded(1);
    let (tb, rb) = bounded(1);
    ta.send(1).unwrap();
    let other = ra.clone();
    let partner = thread::spawn(move || {
        tb.send(2).unwrap();
        let _ = other.try_recv();
        tb
    });
    let found = look(&rb, &ra);
    drop(partner.join().unwrap());
    drop(ta);
    found
}

/// No limit of a wait in a model is sooner.
const LONG: Duration = Duration::from_secs(3600);

/// A timer that is set to a time that has come while another party waits on it, in one of two ways.
fn timer_is_set(waits: fn(&Receiver<Instant>)) {
    for stopped in [true, false] {
        loom::model(move || {
            // Whoever waits until the far time, which may pass at any moment, finds that it has not come.
            let timer = Timer::new(LONG);
            if stopped {
                assert!(timer.stop());
            }
            let receiver = timer.receiver().clone();
            let waits = thread::spawn(move || waits(&receiver));
            assert_eq!(timer.reset(Duration::ZERO), !stopped);
            waits.join().unwrap();
            assert!(!timer.stop(), "it was read");
        });
    }
}

/// A2 of `timer`.
#[test]
fn loom_a_timer_that_is_set_is_received() {
    timer_is_set(|receiver| _ = receiver.recv().unwrap());
}

/// A2 of `timer`, in a select.
#[test]
fn loom_a_timer_that_is_set_is_selected() {
    for wanted in [false, true] {
        WANTED.set(wanted);
        timer_is_set(|receiver| {
            let (_open, silent) = bounded::<()>(0);
            select! {
                recv(receiver) -> fired => _ = fired.unwrap(),
                recv(silent) -> _ => unreachable!(),
            }
        });
    }
}

/// A1 of `timer`: one value goes to one of those who wait, each in another way; the other one goes on waiting, and gets the next.
#[test]
fn loom_a_timers_values_are_received_once() {
    loom::model(|| {
        let timer = Timer::new(LONG);
        timer.stop();
        let fired = Arc::new(AtomicUsize::new(0));
        let parties = [false, true].map(|selects| {
            let (receiver, fired) = (timer.receiver().clone(), fired.clone());
            thread::spawn(move || {
                if selects {
                    select! { recv(receiver) -> at => _ = at.unwrap() }
                } else {
                    receiver.recv().unwrap();
                }
                fired.fetch_add(1, Ordering::SeqCst);
            })
        });
        assert!(!timer.reset(Duration::ZERO));
        while fired.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
        assert!(!timer.reset(Duration::ZERO), "it was read");
        parties.into_iter().for_each(|party| party.join().unwrap());
        assert!(!timer.stop());
    });
}

/// A1 of `timer`: `stop` and `reset` say the truth about a value that somebody receives meanwhile.
#[test]
fn loom_a_timer_that_is_stopped_is_received_or_not() {
    for resets in [false, true] {
        loom::model(move || {
            let timer = Timer::new(Duration::ZERO);
            let receiver = timer.receiver().clone();
            let receives = thread::spawn(move || receiver.try_recv().is_ok());
            let kept = if resets { timer.reset(LONG) } else { timer.stop() };
            assert!(timer.receiver().try_recv().is_err());
            assert_ne!(receives.join().unwrap(), kept);
            assert_eq!(timer.stop(), resets);
        });
    }
}

/// SE-04.
#[test]
fn loom_default_only_if_nothing_was_ready_at_one_instant() {
    with_each_look(|| {
        assert!(one_of_two_is_ready(|a, b| select! {
            recv(a) -> _ => true,
            recv(b) -> _ => true,
            default => false,
        }));
    });
}

/// Looking at one arm after the other misses both, which must be found.
#[test]
#[should_panic(expected = "missed")]
fn loom_looking_at_one_arm_after_the_other_is_caught() {
    loom::model(|| assert!(one_of_two_is_ready(|a, b| a.try_recv().is_ok() || b.try_recv().is_ok()), "missed"));
}

/// U1: of two claimers with one ticket, one wins; a ticket of an old wait never does.
#[test]
fn loom_one_claim_for_each_ticket() {
    loom::model(|| {
        let unit = park::current();
        let old = unit.arm();
        assert!(unit.try_claim(old));
        let ticket = unit.arm();
        let claim = move || {
            assert!(!unit.try_claim(old));
            let won = unit.try_claim(ticket);
            if won {
                unit.wake(park::Wake::Queue);
            }
            won
        };
        let (a, b) = (thread::spawn(claim), thread::spawn(claim));
        unit.park(Reason::Park.alone());
        assert!(a.join().unwrap() != b.join().unwrap());
    });
}

/// Waking without the claim completes a wait twice, which must be caught.
#[test]
#[should_panic]
fn loom_a_wake_without_a_claim_is_caught() {
    loom::model(|| {
        let unit = park::current();
        let ticket = unit.arm();
        // Leaked, since loom's objects cannot be dropped while a failure unwinds.
        let wins: &'static AtomicUsize = Box::leak(Box::new(AtomicUsize::new(0)));
        let parties: Vec<_> = (0..2)
            .map(|_| {
                thread::spawn(move || {
                    // The broken variant: looks and acts in two steps.
                    let _ = unit.try_claim(ticket);
                    wins.fetch_add(1, Ordering::SeqCst);
                    unit.wake(park::Wake::Queue);
                })
            })
            .collect();
        unit.park(Reason::Park.alone());
        parties.into_iter().for_each(|party| party.join().unwrap());
        assert_eq!(wins.load(Ordering::SeqCst), 1);
    });
}
