//! What cannot be had for a moment is missing for that moment only: threads of ours that could not be started are started by their next user.

mod common;

use std::{io::ErrorKind, panic::catch_unwind, time::Duration};

use common::{alone, child, closed_world, deadlock_told, is_child, rt, stderr, wait_for_ever};
use oxigo::{Builder, Runtime, bounded, context::Context, debug, fs, io, net, process::Command, time, unbuffered};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// With too little address space to be had for a thread; then with all of it again.
fn starved<T>(f: impl FnOnce() -> T) -> T {
    let before = getrlimit(Resource::As);
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let now = pages.split(' ').next().unwrap().parse::<u64>().unwrap() * rustix::param::page_size() as u64;
    // Enough for messages, and not for a stack.
    setrlimit(Resource::As, Rlimit { current: Some(now + (1 << 20)), maximum: before.maximum }).unwrap();
    let result = f();
    setrlimit(Resource::As, before).unwrap();
    result
}

#[test]
fn timers_work_after_their_thread_could_not_be_started() {
    alone("timers_work_after_their_thread_could_not_be_started", || {
        rt(1, || {
            starved(|| catch_unwind(|| time::after_func(Duration::from_millis(1), || ())).unwrap_err());
            let (fired, fires) = bounded(1);
            time::after_func(Duration::from_millis(1), move || fired.send(()).unwrap());
            fires.recv().unwrap();
            let (ctx, _cancel) = Context::background().with_timeout(Duration::from_millis(1));
            ctx.done().recv().unwrap_err();
        });
    });
}

#[test]
fn a_deadlock_is_told_after_a_runtime_could_not_be_started() {
    deadlock_told("a_deadlock_is_told_after_a_runtime_could_not_be_started", || {
        let refused = starved(|| Runtime::builder().workers(1).build());
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::OutOfMemory);
        closed_world().run(wait_for_ever);
    });
}

/// There is nobody whom an error could be returned to. The functions were dropped without a word.
#[test]
fn functions_that_no_stack_can_be_had_for_are_told_of() {
    const NAME: &str = "functions_that_no_stack_can_be_had_for_are_told_of";
    if is_child(NAME) {
        return rt(1, || {
            let fires = || {
                let (fired, fires) = bounded(1);
                time::after_func(Duration::from_millis(1), move || fired.send(()).unwrap());
                fires.recv().unwrap();
            };
            // The thread for timers is there.
            fires();
            let (ctx, cancel) = Context::background().with_cancel();
            let ((cleans, cleaned), (times, timed)) = (unbuffered::<()>(), unbuffered::<()>());
            ctx.after_func(move || cleans.send(()).unwrap());
            let (keep, kept) = unbuffered::<()>();
            let mut started = Vec::new();
            starved(|| {
                // Those that this worker had promised to itself, and then those that anybody may have.
                for builder in [Builder::new, || Builder::new().spread()] {
                    let mut refused = 0;
                    while refused < 8 {
                        let kept = kept.clone();
                        match builder().spawn(move || kept.recv().is_err()) {
                            Ok(one) => started.push(one),
                            Err(_) => refused += 1,
                        }
                    }
                }
                time::after_func(Duration::from_millis(1), move || times.send(()).unwrap());
                cancel.cancel();
                cleaned.recv().unwrap_err();
                timed.recv().unwrap_err();
            });
            drop(keep);
            assert!(started.into_iter().all(|one| one.join().unwrap()));
            // The thread for timers has told of the other one before it comes to this.
            fires();
        });
    }
    let output = child(NAME);
    let text = stderr(&output);
    assert!(output.status.success(), "{:?} {text}", output.status);
    let told = |line: &&str| {
        line.contains("given to after_func cannot be started, and is dropped: ") && line.contains("ulimit -v")
    };
    assert_eq!(text.lines().filter(told).count(), 2, "{text}");
}

/// Files and processes report it as they report everything else.
#[test]
fn files_and_processes_tell_that_no_thread_can_be_started() {
    alone("files_and_processes_tell_that_no_thread_can_be_started", || {
        rt(1, || {
            let (read, started) = starved(|| (fs::read("Cargo.toml"), Command::new("true").status()));
            assert_eq!(read.unwrap_err().kind(), ErrorKind::OutOfMemory);
            assert!(started.unwrap_err().to_string().contains("cannot start a thread for a blocking call"));
            assert!(fs::read("Cargo.toml").is_ok());
            assert!(Command::new("true").status().unwrap().success());
        });
    });
}

/// The system's error alone says neither what was wanted nor which limit is reached, and its kind is `WouldBlock`.
#[test]
fn look_ups_tell_that_no_thread_can_be_started() {
    alone("look_ups_tell_that_no_thread_can_be_started", || {
        rt(1, || {
            let error = starved(|| net::lookup_host("localhost:80")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::OutOfMemory);
            assert!(error.to_string().contains("cannot start a thread for a blocking call"), "{error}");
            assert!(net::lookup_host("localhost:80").unwrap().count() > 0);
        });
    });
}

/// What was printed is there, and the status: the process was aborted.
#[test]
fn exit_ends_the_process_where_no_thread_can_be_started_for_it() {
    const NAME: &str = "exit_ends_the_process_where_no_thread_can_be_started_for_it";
    if is_child(NAME) {
        return rt(1, || {
            print!("the last line, without an end");
            starved(|| oxigo::exit(7))
        });
    }
    let output = child(NAME);
    assert_eq!(output.status.code(), Some(7), "{:?} {}", output.status, stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("the last line, without an end"));
}

/// What is said to give an error does so, and does not panic.
#[test]
fn copies_and_looks_tell_that_no_thread_can_be_started() {
    alone("copies_and_looks_tell_that_no_thread_can_be_started", || {
        // Not opened by a call of ours, which would leave a thread.
        let file = fs::File::from(std::fs::File::open("Cargo.toml").unwrap());
        rt(1, || {
            let (_reader, writer) = io::pipe().unwrap();
            debug::trace::start("/dev/null").unwrap();
            let check = debug::leak_check().grace(Duration::from_millis(1));
            let parked = oxigo::go(oxigo::park);
            starved(|| {
                let refused = |error: std::io::Error| assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
                refused(io::copy(&file, &writer).unwrap_err());
                refused(debug::dump(&mut Vec::new()).unwrap_err());
                refused(debug::suspects(Duration::ZERO).unwrap_err());
                refused(debug::trace::stop().unwrap_err());
                let panic = std::panic::catch_unwind(debug::leaks).unwrap_err();
                assert!(panic.downcast::<String>().unwrap().starts_with("cannot look at the goroutines: "));
                // Told as one that could not be looked at.
                assert!(check.end().is_err());
            });
            parked.goroutine().unpark();
            parked.join().unwrap();
            // It is still being recorded.
            debug::trace::stop().unwrap();
            assert_ne!(io::copy(&file, &writer).unwrap(), 0);
        });
    });
}

/// Nothing new starts on a runtime that has been given up; what a process says is read without.
#[test]
fn a_process_is_heard_on_a_runtime_that_has_been_given_up() {
    let runtime = Runtime::builder().workers(1).build().unwrap();
    let ((begun, has_begun), (dropped, is_dropped)) = (bounded(1), bounded::<()>(1));
    let heard = runtime.go(move || {
        begun.send(()).unwrap();
        is_dropped.recv().unwrap_err();
        Command::new("sh").args(["-c", "echo out; echo err >&2"]).output().unwrap()
    });
    has_begun.recv().unwrap();
    drop(runtime);
    drop(dropped);
    let output = heard.join().unwrap();
    assert!(output.status.success());
    assert_eq!((&*output.stdout, &*output.stderr), (&b"out\n"[..], &b"err\n"[..]));
}

#[test]
fn a_name_that_no_thread_can_have_is_an_error() {
    let refused = Runtime::builder().name("a\0b").build().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert!(refused.to_string().contains("zero byte"));
}
