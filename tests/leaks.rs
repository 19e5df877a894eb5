//! Leaks: what `leaks` is certain of, what it must not claim, and what `leak_check` finds at the end. The cases are those of Go's
//! goroutine leak tests that a runtime without a garbage collector can decide, and the others as cases that are left alone.

mod common;

use std::{
    error::Error,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Barrier, mpsc},
    time::{Duration, Instant},
};

use common::{at_1_2_4, child, is_child, rt, stderr};
use oxigo::{Builder, Chan, JoinHandle, WaitGroup, chan::never, context::Context, debug, go, select, sync, unbuffered};

/// Waits until the goroutines are leaks.
#[track_caller]
fn leaked<T>(handles: &[&JoinHandle<T>]) {
    let begin = Instant::now();
    loop {
        let leaks = debug::leaks();
        if handles.iter().all(|handle| leaks.iter().any(|leak| leak.id() == handle.id())) {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "not all of {handles:?} in {leaks}");
        oxigo::time::sleep(Duration::from_millis(1));
    }
}

/// Waits until the goroutine waits for `reason`, and checks that it is no leak.
#[track_caller]
fn open<T>(handle: &JoinHandle<T>, reason: &str) {
    let begin = Instant::now();
    loop {
        let mut text = Vec::new();
        debug::dump(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let headed = format!("goroutine {}: {reason}", handle.id());
        let found = text.lines().find(|line| line.starts_with(&headed));
        if let Some(line) = found {
            assert!(!line.contains("for ever"), "{line}");
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "{headed} is not in {text}");
        oxigo::time::sleep(Duration::from_millis(1));
    }
    let leaks = debug::leaks();
    assert!(!leaks.iter().any(|leak| leak.id() == handle.id()), "{leaks}");
}

#[test]
fn dg_06_waits_on_nothing_are_leaks() {
    at_1_2_4(|| {
        let receive = go(|| never::<i32>().recv().map(drop).is_ok());
        let empty = go(|| -> bool {
            select! {}
        });
        let disabled = go(|| {
            select! {
                recv(never::<i32>()) -> _ => true,
                recv(never::<()>()) -> _ => false,
            }
        });
        leaked(&[&receive, &empty, &disabled]);
        let leaks = debug::leaks();
        let leak = leaks.iter().find(|leak| leak.id() == receive.id()).unwrap();
        assert_eq!(leak.waits_for(), "chan receive (never ready)");
        assert!(leak.started_at().file().ends_with("leaks.rs"));
        assert!(
            leaks.to_string().contains(&format!("goroutine {}: chan receive (never ready)", receive.id())),
            "{leaks}"
        );
    });
}

#[test]
fn dg_06_a_wait_on_nothing_with_a_time_limit_is_no_leak() {
    rt(2, || {
        let limited = go(|| {
            select! {
                recv(never::<i32>()) -> _ => (),
                default(Duration::from_millis(300)) => (),
            }
        });
        let receives = go(|| never::<i32>().recv_timeout(Duration::from_millis(300)).is_err());
        while !(limited.is_finished() && receives.is_finished()) {
            let leaks = debug::leaks();
            assert!(!leaks.iter().any(|leak| leak.id() == limited.id() || leak.id() == receives.id()), "{leaks}");
        }
    });
}

#[test]
fn dg_06_a_parked_goroutine_is_a_leak_when_no_handle_is_left() {
    at_1_2_4(|| {
        let (tell, id) = mpsc::channel();
        drop(go(move || {
            tell.send(oxigo::current().id()).unwrap();
            oxigo::park();
        }));
        // Not `recv`: on one worker that would hold it.
        let id = loop {
            match id.try_recv() {
                Ok(id) => break id,
                Err(_) => oxigo::yield_now(),
            }
        };
        let begin = Instant::now();
        while !debug::leaks().iter().any(|leak| leak.id() == id && leak.waits_for() == "park") {
            assert!(begin.elapsed() < Duration::from_secs(20));
            oxigo::time::sleep(Duration::from_millis(1));
        }

        let held = go(oxigo::park);
        open(&held, "park");
        held.goroutine().unpark();
        held.join().unwrap();

        let limited = go(|| oxigo::park_timeout(Duration::from_secs(600)));
        open(&limited, "park");
        limited.goroutine().unpark();
        limited.join().unwrap();
    });
}

#[test]
fn dg_06_a_handle_that_unparks_and_goes_is_never_too_late() {
    // The claim is won, the handle is gone, and the goroutine has not run on yet: it is no leak then.
    at_1_2_4(|| {
        for _ in 0..200 {
            let (tell, handle) = oxigo::bounded(1);
            let done = go(move || {
                tell.send(oxigo::current()).unwrap();
                oxigo::park();
            });
            let id = done.id();
            let goroutine = handle.recv().unwrap();
            drop(done);
            goroutine.unpark();
            drop(goroutine);
            let leaks = debug::leaks();
            assert!(!leaks.iter().any(|leak| leak.id() == id), "{leaks}");
        }
    });
}

#[test]
fn dg_06_who_joins_a_leak_is_one_and_who_joins_another_is_not() {
    at_1_2_4(|| {
        let stuck = go(|| -> () {
            select! {}
        });
        let middle = go(move || stuck.join().is_ok());
        let outer = go(move || middle.join().is_ok());
        leaked(&[&outer]);

        let (tx, rx) = unbuffered::<()>();
        let waits = go(move || rx.recv().is_ok());
        let joins = go(move || waits.join().unwrap());
        open(&joins, "join");
        drop(tx);
        assert!(!joins.join().unwrap());

        // Nothing ends that context.
        let stuck = go(|| -> () {
            select! {}
        });
        let joins = go(move || stuck.join_ctx(&Context::background()).unwrap().unwrap());
        leaked(&[&joins]);

        // Another context may end it as well.
        let stuck = go(|| -> () {
            select! {}
        });
        let (ctx, cancel) = Context::background().with_cancel();
        let joins = go(move || stuck.join_ctx(&ctx).is_ok());
        open(&joins, "join");
        cancel.cancel();
        assert!(!joins.join().unwrap());
    });
}

#[test]
fn dg_06_goroutines_that_join_each_other_are_leaks() {
    at_1_2_4(|| {
        let (to_first, first_gets) = oxigo::bounded::<JoinHandle<()>>(1);
        let (to_second, second_gets) = oxigo::bounded::<JoinHandle<()>>(1);
        let first = go(move || first_gets.recv().unwrap().join().unwrap());
        let second = go(move || second_gets.recv().unwrap().join().unwrap());
        let ids = [first.id(), second.id()];
        to_second.send(first).unwrap();
        to_first.send(second).unwrap();
        let begin = Instant::now();
        loop {
            let leaks = debug::leaks();
            if ids.iter().all(|id| leaks.iter().any(|leak| leak.id() == *id && leak.waits_for() == "join")) {
                break;
            }
            assert!(begin.elapsed() < Duration::from_secs(20), "{leaks}");
            oxigo::time::sleep(Duration::from_millis(1));
        }
    });
}

#[test]
fn dg_06_main_in_an_empty_select_is_no_leak() {
    const NAME: &str = "dg_06_main_in_an_empty_select_is_no_leak";
    if is_child(NAME) {
        std::thread::spawn(|| {
            let begin = Instant::now();
            loop {
                let mut text = Vec::new();
                debug::dump(&mut text).unwrap();
                if String::from_utf8_lossy(&text).contains("goroutine 1: select (no cases)") {
                    break;
                }
                assert!(begin.elapsed() < Duration::from_secs(20));
            }
            let leaks = debug::leaks();
            std::process::exit(if leaks.is_empty() { 0 } else { 3 });
        });
        oxigo::run(|| -> () {
            select! {}
        });
    }
    let output = child(NAME);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

/// Each of these is still able to end; nothing of it may be claimed.
#[test]
fn dg_06_no_false_positives() {
    at_1_2_4(|| {
        // A receiver whose sender is elsewhere, a sender whose receiver is, and both by one handle that is shared.
        let (tx, rx) = unbuffered::<i32>();
        let receives = go(move || rx.recv().is_err());
        open(&receives, "chan receive");
        drop(tx);
        receives.join().unwrap();

        let (tx, rx) = unbuffered::<i32>();
        let sends = go(move || tx.send(1).is_err());
        open(&sends, "chan send");
        drop(rx);
        sends.join().unwrap();

        let shared = Arc::new(Chan::<i32>::unbuffered());
        let receives = go({
            let shared = Arc::clone(&shared);
            move || shared.recv().unwrap()
        });
        open(&receives, "chan receive");
        shared.send(1).unwrap();
        receives.join().unwrap();

        // One handle, on the stack of a goroutine that waits, lent to another.
        oxigo::scope(|s| {
            let own = Chan::<i32>::unbuffered();
            let (begin, begun) = unbuffered::<()>();
            let outer = go({
                move || {
                    oxigo::scope(|s| {
                        s.go(|| {
                            begun.recv().unwrap_err();
                            own.send(5).unwrap();
                        });
                        assert_eq!(own.recv(), Ok(5));
                    });
                }
            });
            open(&outer, "chan receive");
            drop(begin);
            outer.join().unwrap();
            s.go(|| ());
        });

        let group = Arc::new(WaitGroup::new());
        group.add(1);
        let waits = go({
            let group = Arc::clone(&group);
            move || group.wait()
        });
        open(&waits, "WaitGroup.wait");
        group.done();
        waits.join().unwrap();

        let mutex = Arc::new(sync::Mutex::new(()));
        let guard = mutex.lock();
        let locks = go({
            let mutex = Arc::clone(&mutex);
            move || drop(mutex.lock())
        });
        open(&locks, "Mutex.lock");
        drop(guard);
        locks.join().unwrap();

        let lock = Arc::new(sync::RwLock::new(()));
        let guard = lock.write();
        let reads = go({
            let lock = Arc::clone(&lock);
            move || drop(lock.read())
        });
        open(&reads, "RwLock.read");
        drop(guard);
        reads.join().unwrap();
    });
}

#[test]
fn dg_06_dumps_mark_what_never_ends() {
    rt(2, || {
        let stuck = Builder::new()
            .name("stuck".into())
            .spawn(|| -> () {
                select! {}
            })
            .unwrap();
        leaked(&[&stuck]);
        let mut text = Vec::new();
        debug::dump(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains(&format!("goroutine {} [stuck]: select (no cases), for ever, ", stuck.id())), "{text}");
    });
}

// ---- leak_check ----------------------------------------------------------------------------------------------------------

/// Go's micro cases: one goroutine that something forgot. Each leaves `hold` behind, which ends it in the end.
fn micro(body: impl FnOnce() -> Box<dyn std::any::Any>, reason: &str) {
    let check = debug::leak_check().grace(Duration::from_millis(30));
    let hold = body();
    let left = check.end().unwrap_err();
    assert_eq!(left.len(), 1, "{left}");
    let one = left.iter().next().unwrap();
    assert_eq!(one.waits_for(), reason, "{left}");
    assert!(one.started_at().file().ends_with("leaks.rs"));
    drop(hold);
    // A test that ends with `check.end()?` tells of them.
    let error: Box<dyn Error + Send + Sync> = left.into();
    assert!(error.to_string().contains(reason), "{error}");
}

#[test]
fn dg_06_leak_check_finds_the_micro_cases() {
    at_1_2_4(|| {
        micro(
            || {
                let (tx, rx) = unbuffered::<()>();
                go(move || rx.recv());
                Box::new(tx)
            },
            "chan receive",
        );
        micro(
            || {
                let (tx, rx) = unbuffered();
                go(move || tx.send(()));
                Box::new(rx)
            },
            "chan send",
        );
        micro(
            || {
                let (tx, rx) = unbuffered::<()>();
                let other = rx.clone();
                go(move || select! { recv(rx) -> _ => (), recv(other) -> _ => () });
                Box::new(tx)
            },
            "select",
        );
        micro(
            || {
                go(|| -> () {
                    select! {}
                });
                Box::new(())
            },
            "select (no cases)",
        );
        micro(
            || {
                // The classic in Rust: the loop ends when the last sender is gone, and the goroutine keeps one itself.
                let (tx, rx) = unbuffered::<()>();
                let end = tx.clone();
                go(move || {
                    for () in &rx {}
                    drop(tx);
                });
                struct Close(oxigo::Sender<()>);
                impl Drop for Close {
                    fn drop(&mut self) {
                        self.0.close().unwrap();
                    }
                }
                Box::new(Close(end))
            },
            "chan receive",
        );
        micro(
            || {
                let group = Arc::new(WaitGroup::new());
                let guard = group.guard();
                go(move || group.wait());
                Box::new(guard)
            },
            "WaitGroup.wait",
        );
        micro(
            || {
                let semaphore = Arc::new(sync::Semaphore::new(1));
                let permit = semaphore.acquire_owned(1);
                go(move || drop(semaphore.acquire(1)));
                Box::new(permit)
            },
            "Semaphore.acquire",
        );
    });
}

/// A pattern of Go's tests: the first of several answers is taken, and those who bring the others are left standing.
#[test]
fn dg_06_leak_check_finds_the_early_return() {
    at_1_2_4(|| {
        let check = debug::leak_check().grace(Duration::from_millis(30));
        let (tx, rx) = unbuffered();
        for n in 0..4 {
            let tx = tx.clone();
            Builder::new().name(format!("answer {n}")).spawn(move || tx.send(n)).unwrap();
        }
        rx.recv().unwrap();
        let left = check.end().unwrap_err();
        assert_eq!(left.len(), 3, "{left}");
        assert!(
            left.iter().all(|one| one.name().unwrap().starts_with("answer ") && one.waits_for() == "chan send"),
            "{left}"
        );
        assert!(left.to_string().contains("started at tests/leaks.rs:"), "{left}");
    });
}

#[test]
fn dg_06_leak_check_waits_for_those_that_end() {
    at_1_2_4(|| {
        let check = debug::leak_check();
        let (tx, rx) = unbuffered::<()>();
        go(move || {
            // Children of children count, too.
            go(move || {
                let _ = rx.recv();
                oxigo::time::sleep(Duration::from_millis(20));
            });
        });
        drop(tx);
        check.end().unwrap();
    });
}

#[test]
fn dg_06_leak_check_counts_grandchildren_and_what_has_not_started() {
    rt(1, || {
        let check = debug::leak_check().grace(Duration::from_millis(30));
        let (tx, rx) = unbuffered::<()>();
        go(move || drop(go(move || rx.recv())));
        let left = check.end().unwrap_err();
        assert_eq!(left.len(), 1, "{left}");
        drop(tx);
    });
}

#[test]
fn no_goroutines_print_as_such() {
    assert_eq!(debug::Goroutines::default().to_string(), "no goroutines\n");
}

#[test]
fn dg_06_leak_check_is_disturbed_by_nobody_else() {
    let (tx, rx) = unbuffered::<()>();
    let before = go({
        let rx = rx.clone();
        move || rx.recv().is_err()
    });
    let both = Arc::new(Barrier::new(2));
    let check = debug::leak_check().grace(Duration::from_millis(30));
    let other = std::thread::spawn({
        let both = Arc::clone(&both);
        move || {
            let waits = go(move || rx.recv().is_err());
            both.wait();
            waits.join().unwrap()
        }
    });
    both.wait();
    check.end().unwrap();
    drop(tx);
    assert!(before.join().unwrap() && other.join().unwrap());
}

#[test]
fn dg_06_leak_check_nests_and_panics_when_dropped() {
    at_1_2_4(|| {
        let outer = debug::leak_check().grace(Duration::from_millis(30));
        let (tx, rx) = unbuffered::<()>();
        let failed = panic::catch_unwind(AssertUnwindSafe(|| {
            let _inner = debug::leak_check().grace(Duration::from_millis(30));
            go(move || rx.recv());
        }));
        let text = failed.unwrap_err().downcast::<String>().unwrap();
        assert!(text.contains("1 goroutine that was started during a leak check and is still alive"), "{text}");
        assert!(text.contains("chan receive on 0x"), "{text}");
        assert_eq!(outer.end().unwrap_err().len(), 1);
        drop(tx);

        // During another panic it says nothing.
        let failed = panic::catch_unwind(|| {
            let _check = debug::leak_check();
            go(oxigo::park);
            panic::resume_unwind(Box::new("first"));
        });
        assert_eq!(failed.unwrap_err().downcast_ref(), Some(&"first"));
    });
}

/// Lists and dumps are kept by whoever likes: a goroutine that has ended since is no leak.
#[test]
fn dg_06_a_list_that_is_kept_is_no_leak() {
    at_1_2_4(|| {
        let outer = debug::leak_check().grace(Duration::from_millis(30));
        let inner = debug::leak_check().grace(Duration::from_millis(1));
        let _label = debug::label("kept", "yes");
        let (tx, rx) = unbuffered::<()>();
        let waits = go(move || rx.recv());
        let kept = inner.end().unwrap_err();
        drop(tx);
        waits.join().unwrap().unwrap_err();
        outer.end().unwrap();
        assert_eq!(kept.iter().next().unwrap().label("kept"), Some("yes"));
    });
}

#[test]
fn dg_06_leak_check_works_on_threads_and_over_runtimes() {
    let check = debug::leak_check().grace(Duration::from_millis(30));
    let (tx, rx) = unbuffered::<()>();
    let runtime = oxigo::Runtime::builder().workers(1).build().unwrap();
    runtime.run(move || drop(go(move || rx.recv())));
    let left = check.end().unwrap_err();
    assert_eq!(left.len(), 1, "{left}");
    drop(tx);
}
