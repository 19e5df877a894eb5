//! Group SG: signals, each test in a process of its own.
#![cfg(unix)]

mod common;

use std::{
    os::unix::process::ExitStatusExt,
    process,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use common::{at_1_2_4, child, is_child, rt, stderr};
use oxigo::{
    bounded,
    context::{Context, ContextError},
    go,
    signal::{self, Signal, SignalReceived},
    unbuffered,
};
use rustix::process::{Signal as Raw, getpid, kill_process};

fn send(signal: Signal) {
    kill_process(getpid(), Raw::from_named_raw(signal.as_raw()).unwrap()).unwrap();
}

/// Runs `body` in a child, which must end well.
fn isolated(name: &str, body: impl FnOnce()) {
    if is_child(name) {
        body();
        return;
    }
    let output = child(name);
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn sg_01_a_full_channel_drops_and_nobody_waits() {
    isolated("sg_01_a_full_channel_drops_and_nobody_waits", || {
        at_1_2_4(|| {
            let signals = signal::notify(&[Signal::USR1]);
            let (tx, rx) = unbuffered();
            let _also = signal::notify_to(&tx, &[Signal::USR1]);
            send(Signal::USR1);
            while signals.is_empty() {
                oxigo::yield_now();
            }
            // Nobody received on the unbuffered one, so that is lost; and no second one fits here.
            send(Signal::USR1);
            let last = go(move || rx.recv());
            let begin = Instant::now();
            while !last.is_finished() {
                send(Signal::USR1);
                oxigo::time::sleep(Duration::from_millis(1));
                assert!(begin.elapsed() < Duration::from_secs(20));
            }
            assert_eq!(last.join().unwrap(), Ok(Signal::USR1));
            assert_eq!(signals.recv(), Ok(Signal::USR1));
            assert!(signals.try_recv().is_err());
            // Later ones come again.
            send(Signal::USR1);
            assert_eq!(signals.recv(), Ok(Signal::USR1));
        });
    });
}

/// A signal that came twice took the room of another, which was lost.
#[test]
fn sg_01_there_is_room_for_one_of_each() {
    isolated("sg_01_there_is_room_for_one_of_each", || {
        at_1_2_4(|| {
            // The last one is delivered after all that were sent before it.
            let seen = signal::notify(&[Signal::USR1, Signal::USR2, Signal::HUP]);
            let signals = signal::notify(&[Signal::USR1, Signal::USR2, Signal::USR2]);
            // Of equal signals that are pending the system keeps one, so each is waited for.
            let deliver = |signal| {
                send(signal);
                assert_eq!(seen.recv(), Ok(signal));
            };
            for first in [Signal::USR1, Signal::USR2] {
                let second = if first == Signal::USR1 { Signal::USR2 } else { Signal::USR1 };
                (0..5).for_each(|_| deliver(first));
                (0..5).for_each(|_| deliver(second));
                deliver(Signal::HUP);
                assert_eq!(signals.recv(), Ok(first));
                // Only what has not been received keeps others of its number away.
                deliver(first);
                deliver(second);
                deliver(Signal::HUP);
                assert_eq!(signals.try_iter().collect::<Vec<_>>(), [second, first]);
            }
        });
    });
}

#[test]
fn sg_01_each_subscriber_gets_its_own_signals() {
    isolated("sg_01_each_subscriber_gets_its_own_signals", || {
        rt(2, || {
            let both = signal::notify(&[Signal::USR1, Signal::USR2]);
            let one = signal::notify(&[Signal::USR2]);
            send(Signal::USR2);
            assert_eq!(one.recv(), Ok(Signal::USR2));
            assert_eq!(both.recv(), Ok(Signal::USR2));
            send(Signal::USR1);
            assert_eq!(both.recv(), Ok(Signal::USR1));
            assert!(one.is_empty());
        });
    });
}

/// The child stops subscribing and sends itself the signal: it ends by it.
fn ends_by(name: &str, raw: i32, body: impl FnOnce()) {
    if is_child(name) {
        body();
        thread::sleep(Duration::from_secs(30));
        process::exit(3);
    }
    let output = child(name);
    assert_eq!(output.status.signal(), Some(raw), "{}", stderr(&output));
}

#[test]
fn sg_02_after_stop_a_signal_has_its_default_action() {
    ends_by("sg_02_after_stop_a_signal_has_its_default_action", libc_term(), || {
        let (tx, rx) = bounded(1);
        let subscription = signal::notify_to(&tx, &[Signal::TERM]);
        send(Signal::TERM);
        assert_eq!(rx.recv(), Ok(Signal::TERM));
        subscription.stop();
        send(Signal::TERM);
    });
}

#[test]
fn sg_02_without_a_receiver_a_signal_has_its_default_action() {
    ends_by("sg_02_without_a_receiver_a_signal_has_its_default_action", libc_term(), || {
        drop(signal::notify(&[Signal::TERM]));
        send(Signal::TERM);
    });
}

/// What the program says about `signal` before anybody subscribes to it.
fn act(signal: Signal, action: libc::sighandler_t) {
    // SAFETY: the handlers of these tests only count.
    assert_ne!(unsafe { libc::signal(signal.as_raw(), action) }, libc::SIG_ERR);
}

/// To the calling thread, which has handled it when this returns.
fn raise(signal: Signal) {
    // SAFETY: no memory is passed.
    assert_eq!(unsafe { libc::raise(signal.as_raw()) }, 0);
}

/// Subscribes, stops in both ways, and has the signal come again, six times in all: the process goes on.
fn subscribe_stop_and_go_on(signal: Signal) {
    let later = signal::notify(&[Signal::USR2]);
    let dealt_with = || {
        // The thread goes through what has come in the order of numbers: before the second of these it has come by the other signal.
        assert!(signal < Signal::USR2);
        for _ in 0..2 {
            raise(Signal::USR2);
            assert_eq!(later.recv(), Ok(Signal::USR2));
        }
    };
    for _ in 0..2 {
        let (tx, rx) = bounded(1);
        let subscription = signal::notify_to(&tx, &[signal]);
        raise(signal);
        assert_eq!(rx.recv(), Ok(signal));
        subscription.stop();
        raise(signal);
        dealt_with();
        drop(signal::notify(&[signal]));
        raise(signal);
        dealt_with();
    }
}

static CALLS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn counts(_: libc::c_int) {
    CALLS.fetch_add(1, SeqCst);
}

fn counting() -> libc::sighandler_t {
    counts as extern "C" fn(libc::c_int) as libc::sighandler_t
}

/// Its default action ended the process.
#[test]
fn sg_02_after_stop_a_signal_that_was_ignored_is_ignored() {
    isolated("sg_02_after_stop_a_signal_that_was_ignored_is_ignored", || {
        act(Signal::HUP, libc::SIG_IGN);
        subscribe_stop_and_go_on(Signal::HUP);
    });
}

#[test]
fn sg_02_after_stop_a_handler_of_the_programs_is_all_that_a_signal_calls() {
    isolated("sg_02_after_stop_a_handler_of_the_programs_is_all_that_a_signal_calls", || {
        act(Signal::USR1, counting());
        subscribe_stop_and_go_on(Signal::USR1);
        assert_eq!(CALLS.load(SeqCst), 6);
    });
}

/// As a shell has it for what it starts in the background.
#[test]
fn sg_02_after_stop_a_sigquit_that_was_ignored_is_ignored() {
    isolated("sg_02_after_stop_a_sigquit_that_was_ignored_is_ignored", || {
        act(Signal::QUIT, libc::SIG_IGN);
        rt(1, || ());
        subscribe_stop_and_go_on(Signal::QUIT);
    });
}

/// A runtime takes a signal that was subscribed to before for one that it may answer by a dump.
#[test]
fn sg_02_an_ignored_sigquit_that_was_subscribed_to_before_the_runtime() {
    isolated("sg_02_an_ignored_sigquit_that_was_subscribed_to_before_the_runtime", || {
        act(Signal::QUIT, libc::SIG_IGN);
        drop(signal::notify(&[Signal::QUIT]));
        rt(1, || ());
        subscribe_stop_and_go_on(Signal::QUIT);
    });
}

#[test]
fn sg_02_a_handled_sigquit_that_was_subscribed_to_before_the_runtime() {
    isolated("sg_02_a_handled_sigquit_that_was_subscribed_to_before_the_runtime", || {
        act(Signal::QUIT, counting());
        drop(signal::notify(&[Signal::QUIT]));
        rt(1, || ());
        subscribe_stop_and_go_on(Signal::QUIT);
        assert_eq!(CALLS.load(SeqCst), 6);
    });
}

/// It came to the subscriber, and ended the process all the same: the handler for dumps was called, too.
#[test]
fn sg_03_a_subscriber_to_sigquit_keeps_the_dump_away() {
    const NAME: &str = "sg_03_a_subscriber_to_sigquit_keeps_the_dump_away";
    if is_child(NAME) {
        rt(1, || {
            let signals = signal::notify(&[Signal::QUIT]);
            for _ in 0..2 {
                send(Signal::QUIT);
                assert_eq!(signals.recv(), Ok(Signal::QUIT));
            }
            // For a dump to be made meanwhile.
            oxigo::time::sleep(Duration::from_millis(300));
            eprintln!("still here");
            drop(signals);
            // Now it does what it did before.
            send(Signal::QUIT);
            oxigo::select! {}
        });
    }
    let output = child(NAME);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    let (before, after) = text.split_once("still here").expect("the subscriber deals with the signal");
    assert!(!before.contains("SIGQUIT") && after.contains("SIGQUIT: quit\n\ngoroutine"), "{text}");
}

#[test]
fn cx_22_a_signal_ends_the_context_and_further_ones_are_ignored() {
    ends_by("cx_22_a_signal_ends_the_context_and_further_ones_are_ignored", libc_term(), || {
        rt(2, || {
            let (ctx, until) = signal::context(&[Signal::TERM, Signal::USR1]);
            assert!(ctx.err().is_none());
            send(Signal::TERM);
            ctx.done().recv().unwrap_err();
            assert_eq!(ctx.err(), Some(ContextError::Canceled));
            let cause = ctx.cause().unwrap();
            assert_eq!(cause.downcast_ref::<SignalReceived>(), Some(&SignalReceived(Signal::TERM)));
            // Ignored; a second subscriber tells us that they were seen.
            let seen = signal::notify(&[Signal::TERM]);
            send(Signal::TERM);
            seen.recv().unwrap();
            drop(seen);
            send(Signal::TERM);
            until.stop();
            send(Signal::TERM);
        });
    });
}

#[test]
fn cx_22_the_parent_or_stop_end_the_context_too() {
    isolated("cx_22_the_parent_or_stop_end_the_context_too", || {
        let (parent, cancel) = Context::background().with_cancel();
        let (ctx, until) = signal::context_below(&parent, &[Signal::USR1]);
        cancel.cancel_with("parent");
        assert_eq!(ctx.cause().unwrap().to_string(), "parent");
        until.stop();
        let (ctx, until) = signal::context(&[Signal::USR1]);
        drop(until);
        assert_eq!(ctx.err(), Some(ContextError::Canceled));
    });
}

#[test]
fn sg_04_what_cannot_be_handled_is_refused() {
    for raw in [Signal::from_raw(9), Signal::from_raw(11), Signal::from_raw(12345)] {
        let payload = std::panic::catch_unwind(|| signal::notify(&[raw])).unwrap_err();
        assert!(payload.downcast::<String>().unwrap().starts_with("cannot subscribe to ["));
    }
    assert_eq!(format!("{:?} {}", Signal::INT, Signal::from_raw(12345)), "SIGINT signal 12345");
}

fn libc_term() -> i32 {
    Signal::TERM.as_raw()
}
