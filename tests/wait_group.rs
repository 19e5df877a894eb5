//! Group WG, and HB-10: waiting for goroutines, their failures, and misuse.

mod common;

use std::{
    fmt::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread,
    time::{Duration, Instant},
};

use common::{Counted, at_1_2_4, child, is_child, quiesce, rt, stderr};
use oxigo::{Runtime, WaitGroup, go, scope, time, unbuffered, yield_now};

const MS: Duration = Duration::from_millis(1);

/// The text of a panic that `f` ends with.
fn panic_text(f: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).expect_err("a panic was expected");
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload.downcast_ref::<&str>().expect("a text").to_string(),
    }
}

#[test]
fn wg_01_wait_returns_at_zero_and_at_once_if_it_is() {
    at_1_2_4(|| {
        WaitGroup::new().wait();
        assert!(WaitGroup::new().wait_timeout(Duration::ZERO));
        let (first, second) = (Arc::new(WaitGroup::new()), Arc::new(WaitGroup::new()));
        for _ in 0..8 {
            first.add(16);
            second.add(16);
            let exited = Arc::new(AtomicUsize::new(0));
            for _ in 0..16 {
                let (first, second, exited) = (first.clone(), second.clone(), exited.clone());
                go(move || {
                    first.done();
                    second.wait();
                    exited.fetch_add(1, SeqCst);
                });
            }
            first.wait();
            for _ in 0..16 {
                assert_eq!(exited.load(SeqCst), 0, "the second group released somebody too soon");
                second.done();
            }
            while exited.load(SeqCst) < 16 {
                yield_now();
            }
        }
    });
}

#[test]
fn wg_02_wait_never_returns_early() {
    at_1_2_4(|| {
        for _ in 0..300 {
            let tasks = Arc::new(WaitGroup::new());
            let done = Arc::new(AtomicUsize::new(0));
            tasks.add(2);
            for _ in 0..2 {
                let (tasks, done) = (tasks.clone(), done.clone());
                go(move || {
                    done.fetch_add(1, SeqCst);
                    tasks.done();
                });
            }
            tasks.wait();
            assert_eq!(done.load(SeqCst), 2);
        }
    });
}

#[test]
fn wg_03_one_transition_releases_all() {
    at_1_2_4(|| {
        let (tasks, released) = (WaitGroup::new(), AtomicUsize::new(0));
        tasks.add(1);
        scope(|s| {
            for n in 0..1000 {
                let (tasks, released) = (&tasks, &released);
                s.go(move || {
                    if n % 2 == 0 {
                        tasks.wait();
                    } else {
                        assert!(tasks.wait_timeout(Duration::from_secs(60)));
                    }
                    released.fetch_add(1, SeqCst);
                });
            }
            quiesce();
            assert_eq!(released.load(SeqCst), 0);
            tasks.done();
        });
        assert_eq!(released.load(SeqCst), 1000);
    });
}

#[test]
fn wg_04_below_zero_panics_and_changes_nothing() {
    rt(1, || {
        let tasks = WaitGroup::new();
        assert_eq!(panic_text(|| tasks.done()), "negative WaitGroup counter");
        tasks.add(2);
        assert_eq!(panic_text(|| tasks.add(-3)), "negative WaitGroup counter");
        assert!(!tasks.wait_timeout(Duration::ZERO), "it is still two");
        tasks.add(-1);
        assert!(!tasks.wait_timeout(Duration::ZERO), "it is still one");
        tasks.done();
        tasks.wait();
        assert_eq!(panic_text(|| tasks.add(isize::MIN)), "negative WaitGroup counter");
        tasks.add(isize::MAX);
        assert_eq!(panic_text(|| tasks.add(1)), "WaitGroup counter overflow");
        tasks.add(-isize::MAX);
        tasks.wait();
    });
}

/// WG-05, WG-06: whoever was released and has not run yet still waits.
#[test]
fn wg_05_wg_06_reuse_before_all_waits_returned_panics() {
    rt(1, || {
        let tasks = Arc::new(WaitGroup::new());
        tasks.add(1);
        let waits = tasks.clone();
        let waiter = go(move || panic_text(|| waits.wait()));
        quiesce();
        tasks.done();
        // On one worker the waiter has not run yet.
        tasks.add(1);
        assert_eq!(waiter.join().unwrap(), "WaitGroup is reused before previous wait has returned");
        tasks.done();
        // The misuse has broken nothing.
        tasks.wait();
        tasks.add(1);
        assert!(!tasks.wait_timeout(MS));
        tasks.done();
        tasks.wait();
    });
}

#[test]
fn wg_07_tasks_may_add_tasks() {
    at_1_2_4(|| {
        fn tree(tasks: &Arc<WaitGroup>, depth: u32, leaves: &Arc<AtomicUsize>) {
            if depth == 0 {
                leaves.fetch_add(1, SeqCst);
                return;
            }
            for _ in 0..2 {
                let (t, l) = (tasks.clone(), leaves.clone());
                tasks.go(move || tree(&t, depth - 1, &l));
            }
        }
        let (tasks, leaves) = (Arc::new(WaitGroup::new()), Arc::new(AtomicUsize::new(0)));
        tree(&tasks, 8, &leaves);
        tasks.wait();
        assert_eq!(leaves.load(SeqCst), 256);
    });
}

#[test]
fn wg_08_a_group_can_be_used_again() {
    at_1_2_4(|| {
        let tasks = WaitGroup::new();
        let sum = Arc::new(AtomicUsize::new(0));
        for round in 1..=100 {
            for _ in 0..3 {
                let sum = sum.clone();
                tasks.go(move || {
                    sum.fetch_add(1, SeqCst);
                });
            }
            tasks.wait();
            assert_eq!(sum.load(SeqCst), 3 * round);
        }
    });
}

#[test]
fn wg_09_go_adds_starts_and_is_done() {
    at_1_2_4(|| {
        let tasks = WaitGroup::new();
        let (open, gate) = unbuffered::<()>();
        tasks.go(move || {
            let _ = gate.recv();
        });
        assert!(!tasks.wait_timeout(5 * MS));
        drop(open);
        assert!(tasks.wait_timeout(Duration::from_secs(60)));
    });
}

/// WG-10 as decided: the panic is printed at once, and the first wait re-raises it when the others are done.
#[test]
fn wg_10_a_panic_is_re_raised_by_the_first_wait() {
    at_1_2_4(|| {
        let tasks = Arc::new(WaitGroup::new());
        let others = Arc::new(AtomicUsize::new(0));
        let (open, gate) = unbuffered::<()>();
        tasks.go(|| std::panic::panic_any(42_u8));
        for _ in 0..3 {
            let (gate, others) = (gate.clone(), others.clone());
            tasks.go(move || {
                let _ = gate.recv();
                others.fetch_add(1, SeqCst);
            });
        }
        assert!(!tasks.wait_timeout(5 * MS), "not before the others are done");
        drop(open);
        let payload = catch_unwind(|| tasks.wait()).unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&42_u8));
        assert_eq!(others.load(SeqCst), 3);
        // Whoever waits later is told as well, but a new round starts afresh.
        for _ in 0..2 {
            let text = panic_text(|| tasks.wait());
            assert!(text.starts_with("goroutine ") && text.ends_with("has panicked"), "{text}");
        }
        assert!(
            panic_text(|| {
                let _ = tasks.wait_timeout(MS);
            })
            .contains("has panicked")
        );
        tasks.go(|| ());
        tasks.wait();
    });
}

#[test]
fn wg_10_of_many_waits_one_gets_the_panic_and_the_others_are_told() {
    at_1_2_4(|| {
        let tasks = Arc::new(WaitGroup::new());
        let (open, gate) = unbuffered::<()>();
        tasks.go(move || {
            let _ = gate.recv();
            panic!("no luck");
        });
        let waits: Vec<_> = (0..5)
            .map(|_| {
                let tasks = tasks.clone();
                go(move || panic_text(|| tasks.wait()))
            })
            .collect();
        quiesce();
        drop(open);
        let texts: Vec<_> = waits.into_iter().map(|wait| wait.join().unwrap()).collect();
        assert_eq!(texts.iter().filter(|text| *text == "no luck").count(), 1, "{texts:?}");
        assert_eq!(texts.iter().filter(|text| text.ends_with("has panicked")).count(), 4, "{texts:?}");
    });
}

#[test]
fn wg_10_of_many_panics_the_first_counts_and_no_payload_is_lost() {
    at_1_2_4(|| {
        let tasks = WaitGroup::new();
        let drops = Arc::new(AtomicUsize::new(0));
        for _ in 0..4 {
            let counted = Counted(drops.clone());
            tasks.go(move || std::panic::panic_any(counted));
        }
        let payload = catch_unwind(|| tasks.wait()).unwrap_err();
        assert_eq!(drops.load(SeqCst), 3);
        drop(payload);
        assert_eq!(drops.load(SeqCst), 4);
        // One after the other, so that the first is known.
        let hold = tasks.guard();
        for n in 0..3 {
            tasks.go(move || std::panic::panic_any(n));
            // Until only the guard is counted.
            while !format!("{tasks:?}").contains("count: 1,") {
                yield_now();
            }
        }
        drop(hold);
        assert_eq!(catch_unwind(|| tasks.wait()).unwrap_err().downcast_ref(), Some(&0));
        // One that nobody waits for is dropped with the group.
        tasks.add(1);
        tasks.done();
        let counted = Counted(drops.clone());
        tasks.go(move || std::panic::panic_any(counted));
        while format!("{tasks:?}").contains("count: 1") {
            yield_now();
        }
        drop(tasks);
        while drops.load(SeqCst) < 5 {
            yield_now();
        }
    });
}

/// A wait in a destructor while its goroutine unwinds raises nothing (that would abort), and keeps the failure.
#[test]
fn wg_10_a_wait_while_unwinding_keeps_the_failure() {
    struct WaitOnDrop(Arc<WaitGroup>);
    impl Drop for WaitOnDrop {
        fn drop(&mut self) {
            self.0.wait();
            assert!(self.0.wait_timeout(MS));
        }
    }
    at_1_2_4(|| {
        let tasks = Arc::new(WaitGroup::new());
        tasks.go(|| panic!("kept"));
        let waits = WaitOnDrop(tasks.clone());
        let unwinding = go(move || {
            let _waits = waits;
            panic!("another");
        });
        assert_eq!(unwinding.join().unwrap_err().downcast_ref(), Some(&"another"));
        assert_eq!(panic_text(|| tasks.wait()), "kept");
    });
}

/// With `PanicPolicy::Abort` it is as in Go: the process dies of the panic, and the wait never returns.
#[test]
fn wg_10_with_abort_the_wait_never_returns() {
    const NAME: &str = "wg_10_with_abort_the_wait_never_returns";
    if is_child(NAME) {
        let runtime = Runtime::builder().workers(2).panic(oxigo::PanicPolicy::Abort).build().unwrap();
        runtime.run(|| {
            let tasks = WaitGroup::new();
            tasks.go(|| panic!("the end"));
            let waited = catch_unwind(|| tasks.wait());
            eprintln!("wait returned {}", waited.is_ok());
        });
        std::process::exit(0);
    }
    let output = child(NAME);
    assert!(!output.status.success());
    let text = stderr(&output);
    assert!(text.contains("the end") && !text.contains("wait returned"), "{text}");
}

/// WG-11 has no counterpart: there is no `Goexit`. Whatever way a guard's owner ends, the guard counts down. WG-12: no copies (a
/// compile-fail test at `WaitGroup`), and a guard is taken before the goroutine starts, since it has to be moved in.
#[test]
fn wg_11_a_guard_counts_down_however_its_owner_ends() {
    fn is_send<T: Send + 'static>(_: &T) {}
    at_1_2_4(|| {
        let tasks = WaitGroup::new();
        let guards = [tasks.guard(), tasks.guard(), tasks.guard()];
        is_send(&guards);
        let [returns, panics, moved] = guards;
        go(move || drop(returns));
        let panicked = go(move || {
            let _guard = panics;
            panic!("owner ends");
        });
        thread::spawn(move || drop(moved)).join().unwrap();
        // A guard is not a goroutine of the group: its owner's panic is its owner's affair.
        tasks.wait();
        panicked.join().unwrap_err();

        // A guard may outlive the group.
        let guard = tasks.guard();
        drop(tasks);
        drop(guard);
    });
}

#[test]
fn go_on_a_dropped_runtime_panics_and_leaves_the_count() {
    let tasks = Arc::new(WaitGroup::new());
    let (drop_it, dropped) = unbuffered::<()>();
    let (tell, told) = unbuffered();
    let runtime = Runtime::builder().workers(1).build().unwrap();
    let inside = tasks.clone();
    let (begin, begun) = unbuffered();
    runtime.go(move || {
        begin.send(()).unwrap();
        let _ = dropped.recv();
        let text = panic_text(|| inside.go(|| ()));
        tell.send((text, inside.wait_timeout(Duration::ZERO))).unwrap();
    });
    begun.recv().unwrap();
    drop(runtime);
    drop(drop_it);
    let (text, zero) = told.recv().unwrap();
    assert!(text.contains("dropped"), "{text}");
    assert!(zero, "the count is as before");
    tasks.wait();
}

/// What never ran has not succeeded.
#[test]
fn a_closure_that_its_runtime_never_started_is_a_failure() {
    let tasks = Arc::new(WaitGroup::new());
    let (begun, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let runtime = Runtime::builder().workers(1).build().unwrap();
    let (inside, started, stopped) = (tasks.clone(), begun.clone(), stop.clone());
    runtime.go(move || {
        inside.go(|| ());
        // Not by a channel: a send may yield, and the closure would start.
        started.store(true, SeqCst);
        // Holds the only worker, so that the closure cannot start.
        while !stopped.load(SeqCst) {
            std::hint::spin_loop();
        }
    });
    while !begun.load(SeqCst) {
        thread::yield_now();
    }
    drop(runtime);
    stop.store(true, SeqCst);
    let text = panic_text(|| tasks.wait());
    assert!(text.contains("dropped before"), "{text}");
}

#[test]
fn wait_timeout_keeps_its_time_and_leaves_nothing_behind() {
    at_1_2_4(|| {
        let tasks = Arc::new(WaitGroup::new());
        tasks.add(1);
        let begin = Instant::now();
        assert!(!tasks.wait_timeout(20 * MS));
        assert!(begin.elapsed() >= 20 * MS);
        // Time-outs and the release at the same moments.
        for n in 0..200_u64 {
            let done = tasks.clone();
            let waits = tasks.clone();
            let waiter = go(move || waits.wait_timeout(Duration::from_micros(n % 50)));
            if n % 3 == 0 {
                yield_now();
            }
            done.done();
            waiter.join().unwrap();
            tasks.add(1);
        }
        let begin = Instant::now();
        assert!(!tasks.wait_deadline(begin) && !tasks.wait_deadline(begin + 5 * MS));
        assert!(begin.elapsed() >= 5 * MS);
        tasks.done();
        assert!(tasks.wait_deadline(begin), "nothing to wait for");
        assert!(tasks.wait_timeout(Duration::MAX));
        assert_eq!(format!("{tasks:?}"), "WaitGroup { count: 0, waiting: 0 }");
    });
}

#[test]
fn it_works_from_plain_threads() {
    let tasks = Arc::new(WaitGroup::new());
    let sum = Arc::new(AtomicUsize::new(0));
    for _ in 0..4 {
        let (guard, s) = (tasks.guard(), sum.clone());
        thread::spawn(move || {
            s.fetch_add(1, Relaxed);
            drop(guard);
        });
        let s = sum.clone();
        tasks.go(move || {
            s.fetch_add(1, Relaxed);
        });
    }
    let waits = tasks.clone();
    let other = thread::spawn(move || waits.wait());
    tasks.wait();
    other.join().unwrap();
    assert_eq!(sum.load(Relaxed), 8);
}

/// The last `done` may release a waiter that drops the group at once.
#[test]
fn the_group_may_go_the_moment_the_wait_returns() {
    at_1_2_4(|| {
        for _ in 0..300 {
            let tasks = WaitGroup::new();
            let guard = tasks.guard();
            go(move || drop(guard));
            tasks.wait();
            drop(tasks);
        }
        time::sleep(MS);
    });
}

/// As a socket is one: whoever prints a group to it does not hold the group meanwhile.
#[test]
fn a_group_is_printed_to_a_writer_that_waits() {
    const NAME: &str = "a_group_is_printed_to_a_writer_that_waits";
    struct Waits(String);
    impl Write for Waits {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            yield_now();
            self.0.push_str(text);
            Ok(())
        }
    }
    if !is_child(NAME) {
        let output = child(NAME);
        assert!(output.status.success(), "{}", stderr(&output));
        return;
    }
    rt(1, || {
        let group = Arc::new(WaitGroup::new());
        let done = group.guard();
        let other = go(move || drop(done));
        let mut printed = Waits(String::new());
        write!(printed, "{group:?}").unwrap();
        other.join().unwrap();
        assert_eq!(printed.0, "WaitGroup { count: 1, waiting: 0 }");
    });
}
