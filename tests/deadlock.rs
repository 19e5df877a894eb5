//! The report of a deadlock: when it comes, and when it must not. Each case is a process of its own, and its body runs on the process's
//! main thread: the standard harness would wait beside it in a thread of its own, which is foreign and silences the report.

mod common;

use std::{
    future::{pending, poll_fn},
    sync::mpsc,
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use common::{child, full_table, is_child, stderr};
use oxigo::{
    Deadlock, Runtime,
    future::block_on,
    go, run,
    sync::{LazyLock, Once},
    unbuffered,
};

type Case = (&'static str, fn());

macro_rules! cases {
    ($($name:ident,)*) => { &[$((stringify!($name), $name),)*] };
}

const CASES: &[Case] = cases![
    dd_01_a_receive_that_nobody_answers_is_reported,
    dd_01_every_goroutine_is_listed,
    dd_01_a_thread_that_waits_for_ever_is_reported,
    dd_02_goroutines_that_cannot_leave_their_threads_are_reported,
    dd_03_main_is_reported_when_all_goroutines_have_ended,
    dd_03_goroutines_are_reported_when_their_main_has_ended,
    dd_04_a_sleeping_goroutine_and_a_time_limit_suppress_the_report,
    dd_04_a_timer_that_nobody_waits_for_does_not,
    dd_04_a_function_that_waits_for_its_time_suppresses_the_report_until_it_has_run,
    dd_05_a_listener_in_accept_suppresses_the_report,
    dd_05_a_blocking_call_suppresses_the_report,
    dd_05_a_future_with_a_waker_suppresses_the_report,
    dd_05_a_future_whose_waker_nobody_has_does_not,
    dd_05_a_drop_on_a_thread_of_ours_suppresses_the_report,
    dd_05_a_drop_that_wakes_nobody_only_delays_the_report,
    dd_05_an_alarm_taken_back_only_delays_the_report,
    dd_06_a_subscription_to_signals_suppresses_the_report_while_it_lasts,
    dd_06_a_subscription_without_a_receiver_does_not,
    dd_06_a_context_that_a_signal_has_ended_does_not,
    dd_06_a_receiver_of_signals_that_a_thread_drops_only_delays_the_report,
    dd_07_a_foreign_thread_silences_it_until_it_has_ended,
    dd_07_a_full_table_of_descriptors_neither_silences_it_nor_hides_a_foreign_thread,
    dd_07_main_asleep_elsewhere_is_foreign,
    dd_07_closed_world_ignores_foreign_threads,
    dd_07_off_says_nothing,
    dd_08_main_in_an_empty_select_is_fine_while_another_lives,
    dd_08_a_dropped_runtime_neither_speaks_nor_hides,
    dd_09_a_panic_is_not_masked,
    dd_05_threads_that_wake_each_other_are_never_reported,
    on_03_a_once_called_from_inside_itself_is_reported,
    on_03_a_lazy_value_that_needs_itself_is_reported,
];

/// A small harness: `cargo test --test deadlock [part of a name]`.
fn main() {
    if let Some((_, case)) = CASES.iter().find(|(name, _)| is_child(name)) {
        return case();
    }
    // The list of threads is the kernel's.
    if !cfg!(target_os = "linux") {
        return;
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let chosen = CASES.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|part| name.contains(part)));
    let running: Vec<_> = chosen.map(|&(name, case)| (name, thread::spawn(case))).collect();
    println!("\nrunning {} tests", running.len());
    let mut failed = 0;
    for (name, case) in running {
        let passed = case.join().is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
    println!("\ntest result: {} failed\n", failed);
    std::process::exit(i32::from(failed > 0));
}

const FATAL: &str = "fatal: all goroutines are asleep - deadlock!";
/// Longer than two looks take after everything has become quiet.
const LONG: Duration = Duration::from_millis(600);

/// The child's standard error, once it has ended with the report.
#[track_caller]
fn reported(name: &str) -> String {
    let output = child(name);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(FATAL), "{text}");
    text
}

#[track_caller]
fn silent(name: &str) {
    let output = child(name);
    let text = stderr(&output);
    assert!(output.status.success() && !text.contains(FATAL), "{:?} {text}", output.status);
}

fn dd_01_a_receive_that_nobody_answers_is_reported() {
    const NAME: &str = "dd_01_a_receive_that_nobody_answers_is_reported";
    if is_child(NAME) {
        let (_tx, rx) = unbuffered::<()>();
        run(|| rx.recv()).unwrap();
    }
    let text = reported(NAME);
    assert!(text.contains("goroutine 1: chan receive on 0x"), "{text}");
    assert!(text.contains("tests/deadlock.rs:"), "{text}");
}

fn dd_01_every_goroutine_is_listed() {
    const NAME: &str = "dd_01_every_goroutine_is_listed";
    if is_child(NAME) {
        let (tx, rx) = unbuffered::<()>();
        run(|| {
            let (sender, receiver) = (tx.clone(), rx.clone());
            let held = oxigo::Builder::new().name("held".into()).spawn(move || {
                let _keep = sender;
                oxigo::park();
                drop(receiver);
            });
            held.unwrap().join().unwrap();
        });
    }
    let text = reported(NAME);
    assert!(text.contains("[held]: park") && text.contains("goroutine 1: join on"), "{text}");
    // Whom it joins is told by the number that heads that one's own lines: an address is in no heading.
    let held = text[..text.find(" [held]: park").unwrap()].rsplit(' ').next().unwrap();
    let join = text.lines().find(|line| line.starts_with("goroutine 1: join on")).unwrap();
    assert!(join.contains(&format!(" (goroutine {held}), ")), "{text}");
}

/// A plain `main` that waits for ever counts as a goroutine would.
fn dd_01_a_thread_that_waits_for_ever_is_reported() {
    const NAME: &str = "dd_01_a_thread_that_waits_for_ever_is_reported";
    if is_child(NAME) {
        let (tx, rx) = unbuffered::<()>();
        let held = tx.clone();
        go(move || drop(held)).join().unwrap();
        rx.recv().unwrap();
    }
    assert!(reported(NAME).contains("]: chan receive on 0x"));
}

/// Every goroutine is bound to its thread; these have values there that could not go elsewhere either, one on each worker.
fn dd_02_goroutines_that_cannot_leave_their_threads_are_reported() {
    const NAME: &str = "dd_02_goroutines_that_cannot_leave_their_threads_are_reported";
    if is_child(NAME) {
        thread_local! {
            static VALUE: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
        }
        let runtime = Runtime::builder().workers(3).build().unwrap();
        let (tx, rx) = unbuffered::<()>();
        let stuck: Vec<_> = (0..6)
            .map(|n| {
                let rx = rx.clone();
                let name = format!("bound {n}");
                runtime.run(move || {
                    oxigo::Builder::new().name(name).spread().spawn(move || {
                        let bound = std::rc::Rc::new(n);
                        VALUE.set(*bound);
                        let _ = rx.recv();
                        drop(bound);
                    })
                })
            })
            .collect();
        stuck.into_iter().for_each(|handle| handle.unwrap().join().unwrap());
        drop(tx);
    }
    let text = reported(NAME);
    assert!(text.contains("[bound 0]: chan receive on 0x") && text.contains("and 5 more like it"), "{text}");
}

/// Nobody has Goexit here; what comes nearest is a `main` that waits after the last goroutine, its own main goroutine included, has ended.
fn dd_03_main_is_reported_when_all_goroutines_have_ended() {
    const NAME: &str = "dd_03_main_is_reported_when_all_goroutines_have_ended";
    if is_child(NAME) {
        let (_tx, rx) = unbuffered::<()>();
        let ended = std::panic::catch_unwind(|| {
            run(|| {
                go(|| ()).join().unwrap();
                std::panic::resume_unwind(Box::new("over"))
            })
        });
        ended.unwrap_err();
        let _ = rx.recv();
    }
    let text = reported(NAME);
    assert!(!text.contains("goroutine 1:"), "{text}");
    assert!(text.contains("]: chan receive on 0x"), "{text}");
}

/// The other way round: main goroutines are gone, and what they left waits for ever beside a main thread that joins it.
fn dd_03_goroutines_are_reported_when_their_main_has_ended() {
    const NAME: &str = "dd_03_goroutines_are_reported_when_their_main_has_ended";
    if is_child(NAME) {
        let (_tx, rx) = unbuffered::<()>();
        let left = run(|| oxigo::Builder::new().name("left".into()).spawn(move || rx.recv()).unwrap());
        let _ = left.join();
    }
    let text = reported(NAME);
    assert!(text.contains("[left]: chan receive on 0x") && text.contains("]: join on 0x"), "{text}");
}

fn dd_04_a_sleeping_goroutine_and_a_time_limit_suppress_the_report() {
    const NAME: &str = "dd_04_a_sleeping_goroutine_and_a_time_limit_suppress_the_report";
    if is_child(NAME) {
        let (tx, rx) = unbuffered::<()>();
        go(move || {
            oxigo::time::sleep(LONG);
            tx.send(()).unwrap();
        });
        run(|| rx.recv()).unwrap();
        let (_tx, never) = unbuffered::<()>();
        assert!(run(|| never.recv_timeout(LONG)).is_err());
        return;
    }
    silent(NAME);
}

fn dd_04_a_timer_that_nobody_waits_for_does_not() {
    const NAME: &str = "dd_04_a_timer_that_nobody_waits_for_does_not";
    if is_child(NAME) {
        let _abandoned = oxigo::chan::after(Duration::from_secs(3600));
        let (_tx, rx) = unbuffered::<()>();
        run(|| rx.recv()).unwrap();
    }
    reported(NAME);
}

fn dd_04_a_function_that_waits_for_its_time_suppresses_the_report_until_it_has_run() {
    const NAME: &str = "dd_04_a_function_that_waits_for_its_time_suppresses_the_report_until_it_has_run";
    if is_child(NAME) {
        let (tx, rx) = unbuffered::<()>();
        let held = tx.clone();
        oxigo::time::after_func(LONG, move || tx.send(()).unwrap());
        run(|| rx.recv()).unwrap();
        println!("it ran");
        // The thread that waited for it is ours and sleeps now.
        run(|| rx.recv()).unwrap();
        drop(held);
    }
    let output = child(NAME);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("it ran"), "reported before it ran");
}

fn dd_05_a_listener_in_accept_suppresses_the_report() {
    const NAME: &str = "dd_05_a_listener_in_accept_suppresses_the_report";
    if is_child(NAME) {
        let listener = oxigo::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // On a thread of its own: that one is foreign only until the main thread waits in `accept`, too.
        let client = thread::spawn(move || {
            thread::sleep(LONG);
            std::net::TcpStream::connect(address).map(drop)
        });
        run(|| listener.accept()).unwrap();
        client.join().unwrap().unwrap();
        go(oxigo::park);
        let client = go(move || {
            oxigo::time::sleep(LONG);
            oxigo::net::TcpStream::connect(address).map(drop)
        });
        // A plain thread in `accept`.
        listener.accept().unwrap();
        client.join().unwrap().unwrap();
        return;
    }
    silent(NAME);
}

fn dd_05_a_blocking_call_suppresses_the_report() {
    const NAME: &str = "dd_05_a_blocking_call_suppresses_the_report";
    if is_child(NAME) {
        run(|| oxigo::blocking(|| thread::sleep(LONG)));
        return;
    }
    silent(NAME);
}

/// In a closed world as well: of a waker it is not known who has it.
fn dd_05_a_future_with_a_waker_suppresses_the_report() {
    const NAME: &str = "dd_05_a_future_with_a_waker_suppresses_the_report";
    if is_child(NAME) {
        let woken_late = || {
            let mut begun = false;
            poll_fn(move |cx| {
                if begun {
                    return Poll::Ready(());
                }
                begun = true;
                let waker = cx.waker().clone();
                thread::spawn(move || {
                    thread::sleep(LONG);
                    waker.wake();
                });
                Poll::Pending
            })
        };
        let runtime = Runtime::builder().workers(2).deadlock(Deadlock::ClosedWorld).build().unwrap();
        runtime.run(|| block_on(woken_late()));
        return;
    }
    silent(NAME);
}

fn dd_05_a_future_whose_waker_nobody_has_does_not() {
    const NAME: &str = "dd_05_a_future_whose_waker_nobody_has_does_not";
    if is_child(NAME) {
        run(|| block_on(pending::<()>()));
    }
    let text = reported(NAME);
    assert!(text.contains("goroutine 1: future (no waker left)"), "{text}");
}

/// A closure that no runtime takes any more is dropped on a thread of ours, where its `Drop` may take its time and then wake somebody.
fn dd_05_a_drop_on_a_thread_of_ours_suppresses_the_report() {
    const NAME: &str = "dd_05_a_drop_on_a_thread_of_ours_suppresses_the_report";
    struct Late(oxigo::Sender<()>);
    impl Drop for Late {
        fn drop(&mut self) {
            thread::sleep(LONG);
            self.0.send(()).unwrap();
        }
    }
    if is_child(NAME) {
        let (tx, rx) = unbuffered();
        let gone = Runtime::builder().workers(1).build().unwrap();
        gone.run(|| {
            let late = Late(tx);
            oxigo::time::after_func(Duration::from_millis(50), move || drop(late));
        });
        drop(gone);
        return run(|| rx.recv()).unwrap();
    }
    silent(NAME);
}

/// Nothing gets up when the last alarm is taken back by a thread.
fn dd_05_an_alarm_taken_back_only_delays_the_report() {
    const NAME: &str = "dd_05_an_alarm_taken_back_only_delays_the_report";
    if is_child(NAME) {
        let alarm = oxigo::time::after_func(Duration::from_secs(3600), || ());
        thread::spawn(move || {
            thread::sleep(LONG);
            assert!(alarm.stop());
            println!("taken back");
        });
        let (_tx, rx) = unbuffered::<()>();
        return run(|| rx.recv()).unwrap();
    }
    let output = child(NAME);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains(FATAL));
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().last(), Some("taken back"));
}

fn dd_05_a_drop_that_wakes_nobody_only_delays_the_report() {
    const NAME: &str = "dd_05_a_drop_that_wakes_nobody_only_delays_the_report";
    struct Slow;
    impl Drop for Slow {
        fn drop(&mut self) {
            thread::sleep(LONG);
            println!("dropped");
        }
    }
    if is_child(NAME) {
        let gone = Runtime::builder().workers(1).build().unwrap();
        gone.run(|| {
            let slow = Slow;
            oxigo::time::after_func(Duration::from_millis(50), move || drop(slow));
        });
        drop(gone);
        let (_tx, rx) = unbuffered::<()>();
        return run(|| rx.recv()).unwrap();
    }
    let output = child(NAME);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("dropped"), "reported before that");
}

/// A signal may come at any time, from outside; but only for whoever has asked for it, and for as long as that lasts.
fn dd_06_a_subscription_to_signals_suppresses_the_report_while_it_lasts() {
    const NAME: &str = "dd_06_a_subscription_to_signals_suppresses_the_report_while_it_lasts";
    if is_child(NAME) {
        let (tx, signals) = oxigo::bounded(1);
        let subscription = oxigo::signal::notify_to(&tx, &[oxigo::signal::Signal::USR1]);
        let kill = format!("sleep {}; kill -USR1 {}", LONG.as_secs_f64(), std::process::id());
        let mut sender = std::process::Command::new("sh").args(["-c", &kill]).spawn().unwrap();
        run(|| signals.recv()).unwrap();
        eprintln!("received");
        sender.wait().unwrap();
        subscription.stop();
        run(|| signals.recv()).unwrap();
    }
    let text = reported(NAME);
    assert!(text.find("received").unwrap() < text.find(FATAL).unwrap(), "{text}");
}

/// It kept the detector silent until such a signal came.
fn dd_06_a_subscription_without_a_receiver_does_not() {
    const NAME: &str = "dd_06_a_subscription_without_a_receiver_does_not";
    if is_child(NAME) {
        let (tx, rx) = unbuffered();
        let _subscription = oxigo::signal::notify_to(&tx, &[oxigo::signal::Signal::USR2]);
        return run(move || {
            drop(rx);
            drop(oxigo::signal::notify(&[oxigo::signal::Signal::USR1]));
            oxigo::park();
        });
    }
    reported(NAME);
}

/// Whatever comes after the first signal is ignored: a program that hangs on its way to the end is told.
fn dd_06_a_context_that_a_signal_has_ended_does_not() {
    const NAME: &str = "dd_06_a_context_that_a_signal_has_ended_does_not";
    if is_child(NAME) {
        let (ctx, _until) = oxigo::signal::context(&[oxigo::signal::Signal::USR1]);
        let kill = format!("sleep {}; kill -USR1 {}", LONG.as_secs_f64(), std::process::id());
        let mut sender = std::process::Command::new("sh").args(["-c", &kill]).spawn().unwrap();
        return run(move || {
            ctx.done().recv().unwrap_err();
            eprintln!("ended");
            sender.wait().unwrap();
            oxigo::park();
        });
    }
    let text = reported(NAME);
    assert!(text.find("ended").unwrap() < text.find(FATAL).unwrap(), "{text}");
}

/// As with an alarm that a thread takes back, nothing gets up.
fn dd_06_a_receiver_of_signals_that_a_thread_drops_only_delays_the_report() {
    const NAME: &str = "dd_06_a_receiver_of_signals_that_a_thread_drops_only_delays_the_report";
    if is_child(NAME) {
        let signals = oxigo::signal::notify(&[oxigo::signal::Signal::USR1]);
        thread::spawn(move || {
            thread::sleep(LONG);
            drop(signals);
            eprintln!("dropped");
        });
        let (_tx, rx) = unbuffered::<()>();
        return run(|| rx.recv()).unwrap();
    }
    let text = reported(NAME);
    assert!(text.find("dropped").unwrap() < text.find(FATAL).unwrap(), "{text}");
}

fn waits_for_a_foreign_thread_and_then_for_nobody() {
    let (tx, rx) = unbuffered::<()>();
    thread::spawn(move || {
        thread::sleep(LONG);
        tx.send(()).unwrap();
        // Ends without dropping what could still be used.
        std::mem::forget(tx);
    });
    run(|| rx.recv()).unwrap();
    eprintln!("received");
    run(|| rx.recv()).unwrap();
}

fn dd_07_a_foreign_thread_silences_it_until_it_has_ended() {
    const NAME: &str = "dd_07_a_foreign_thread_silences_it_until_it_has_ended";
    if is_child(NAME) {
        waits_for_a_foreign_thread_and_then_for_nobody();
    }
    let text = reported(NAME);
    assert!(text.find("received").unwrap() < text.find(FATAL).unwrap(), "{text}");
}

/// The list of threads takes a descriptor to be read. Where there was none nothing was ever said, unless the world was closed.
fn dd_07_a_full_table_of_descriptors_neither_silences_it_nor_hides_a_foreign_thread() {
    const NAME: &str = "dd_07_a_full_table_of_descriptors_neither_silences_it_nor_hides_a_foreign_thread";
    if is_child(NAME) {
        // The workers have their descriptors.
        run(|| ());
        let _full = full_table();
        waits_for_a_foreign_thread_and_then_for_nobody();
    }
    let text = reported(NAME);
    assert!(text.find("received").unwrap() < text.find(FATAL).unwrap(), "{text}");
    assert!(text.contains(": chan receive on 0x"), "{text}");
}

fn dd_07_main_asleep_elsewhere_is_foreign() {
    const NAME: &str = "dd_07_main_asleep_elsewhere_is_foreign";
    if is_child(NAME) {
        go(oxigo::park);
        thread::sleep(LONG);
        // As is one that waits for another thread.
        let (tx, rx) = mpsc::channel::<()>();
        thread::spawn(move || {
            let _ = rx.recv_timeout(LONG);
        })
        .join()
        .unwrap();
        drop(tx);
        return;
    }
    silent(NAME);
}

fn dd_07_closed_world_ignores_foreign_threads() {
    const NAME: &str = "dd_07_closed_world_ignores_foreign_threads";
    if is_child(NAME) {
        let runtime = Runtime::builder().workers(2).deadlock(Deadlock::ClosedWorld).build().unwrap();
        runtime.go(oxigo::park);
        thread::sleep(Duration::from_secs(60));
    }
    let begin = Instant::now();
    reported(NAME);
    assert!(begin.elapsed() < Duration::from_secs(50));
}

fn dd_07_off_says_nothing() {
    const NAME: &str = "dd_07_off_says_nothing";
    if is_child(NAME) {
        let runtime = Runtime::builder().workers(1).deadlock(Deadlock::Off).build().unwrap();
        let stuck = runtime.go(oxigo::park);
        thread::spawn(|| {
            thread::sleep(LONG);
            std::process::exit(0);
        });
        stuck.join().unwrap();
    }
    silent(NAME);
}

fn dd_08_main_in_an_empty_select_is_fine_while_another_lives() {
    const NAME: &str = "dd_08_main_in_an_empty_select_is_fine_while_another_lives";
    if is_child(NAME) {
        run(|| {
            go(|| {
                for _ in 0..3 {
                    oxigo::time::sleep(LONG / 3);
                }
                oxigo::exit(0);
            });
            oxigo::select! {}
        });
    }
    silent(NAME);
}

/// What a runtime leaves behind when it is dropped is no deadlock, and wakes nobody either.
fn dd_08_a_dropped_runtime_neither_speaks_nor_hides() {
    const NAME: &str = "dd_08_a_dropped_runtime_neither_speaks_nor_hides";
    if is_child(NAME) {
        let runtime = Runtime::builder().workers(2).build().unwrap();
        runtime.run(|| {
            go(oxigo::park);
            go(oxigo::yield_now).join().unwrap();
        });
        drop(runtime);
        run(|| oxigo::time::sleep(LONG));
        eprintln!("slept");
        run(oxigo::park);
    }
    let text = reported(NAME);
    assert!(text.find("slept").unwrap() < text.find(FATAL).unwrap(), "{text}");
}

fn dd_09_a_panic_is_not_masked() {
    const NAME: &str = "dd_09_a_panic_is_not_masked";
    struct Slow;
    impl std::fmt::Display for Slow {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            oxigo::yield_now();
            oxigo::time::sleep(LONG);
            f.write_str("the panic's own text")
        }
    }
    if is_child(NAME) {
        run(|| panic!("{}", Slow));
    }
    let output = child(NAME);
    let text = stderr(&output);
    assert!(text.contains("the panic's own text") && !text.contains(FATAL), "{text}");
    assert_eq!(output.status.code(), Some(101), "{text}");
}

/// Threads that hand a token round, each asleep most of the time, with workers that are mostly asleep too.
fn dd_05_threads_that_wake_each_other_are_never_reported() {
    const NAME: &str = "dd_05_threads_that_wake_each_other_are_never_reported";
    if is_child(NAME) {
        let (there, back) = (unbuffered::<u32>(), unbuffered::<u32>());
        let (receive, send) = (there.1, back.0);
        go(move || {
            for n in receive {
                send.send(n).unwrap();
            }
        });
        let begin = Instant::now();
        while begin.elapsed() < LONG {
            // Quiet for about as long as the clock needs to fall asleep, then a wake in the middle of its looks.
            thread::sleep(Duration::from_millis(105));
            run(|| there.0.send(1)).unwrap();
            assert_eq!(back.1.recv(), Ok(1));
        }
        return;
    }
    silent(NAME);
}

fn on_03_a_once_called_from_inside_itself_is_reported() {
    const NAME: &str = "on_03_a_once_called_from_inside_itself_is_reported";
    if is_child(NAME) {
        static ONCE: Once = Once::new();
        run(|| ONCE.call_once(|| ONCE.call_once(|| ())));
    }
    let text = reported(NAME);
    assert!(text.contains("goroutine 1: Once on 0x"), "{text}");
    assert!(text.contains("tests/deadlock.rs:"), "{text}");
}

fn on_03_a_lazy_value_that_needs_itself_is_reported() {
    const NAME: &str = "on_03_a_lazy_value_that_needs_itself_is_reported";
    if is_child(NAME) {
        static ONE: LazyLock<u32> = LazyLock::new(|| *OTHER + 1);
        static OTHER: LazyLock<u32> = LazyLock::new(|| *ONE + 1);
        run(|| *ONE);
    }
    let text = reported(NAME);
    assert!(text.contains("goroutine 1: Once on 0x"), "{text}");
}
