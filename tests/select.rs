//! Groups SE and CN: what `select!` evaluates and when, the shapes in which it can be written, arms that never fire. What is chosen is in
//! select_choice.rs, who meets whom in select_partners.rs, slots in select_slots.rs, times in select_times.rs.

mod common;

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use common::{Counted, at_1_2_4, closed_receiver, closed_sender, quiesce, rt};
use oxigo::{
    Receiver, Sender, bounded,
    chan::{RecvError, SendError, never},
    go, select, select_biased, unbuffered,
};

/// Starts `body` on the current runtime of one worker, and says whether it has ended when nothing can run any more.
fn ends(body: impl FnOnce() + Send + 'static) -> bool {
    let handle = go(body);
    quiesce();
    handle.is_finished()
}

#[test]
fn se_01_operands_and_values_are_evaluated_once_in_source_order_on_entry() {
    let log = RefCell::new(Vec::new());
    let note = |what: &'static str| log.borrow_mut().push(what);
    let (tx, _full) = bounded(1);
    tx.send(0).unwrap();
    let (idle, _keep) = unbuffered::<i32>();
    let quiet = never::<i32>();
    let end = closed_receiver::<i32>();

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
fn se_06_an_empty_select_waits_for_ever() {
    rt(1, || {
        assert!(!ends(|| select! {}));
        assert!(!ends(|| select_biased! {}));
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
    let (place0, end0, value0) = (closed_receiver::<()>(), 1, 2);
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
fn unsent_values_are_dropped_once_before_the_chosen_body() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let counted = || Counted(Arc::clone(&dropped));
    let (full, _keep) = bounded(0);
    let (closed, _rx) = closed_sender();
    let (tx, rx) = bounded(1);
    let end = closed_receiver::<()>();
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
