//! Processes whose waits and pipes park.

mod common;

use std::{
    io::{self, BufRead, BufReader, ErrorKind, Write},
    os::unix::process::ExitStatusExt,
    thread,
    time::{Duration, Instant},
};

use common::{at_1_2_4, is_child, quiesce, rt};
use oxigo::{
    context::{
        Context,
        ContextError::{self, Canceled, DeadlineExceeded},
    },
    fs::File,
    go,
    process::{Command, ExitStatus, Stdio},
    signal::Signal,
};

#[test]
fn status_and_output() {
    at_1_2_4(|| {
        let output = Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]).output().unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!((&*output.stdout, &*output.stderr), (&b"out\n"[..], &b"err\n"[..]));
        assert!(Command::new("true").status().unwrap().success());
        assert_eq!(Command::new("/no/such/program").spawn().unwrap_err().kind(), ErrorKind::NotFound);
        let told = Command::new("sh").args(["-c", "echo $COLOUR"]).env("COLOUR", "blue").output().unwrap();
        assert_eq!(told.stdout, b"blue\n");
        let told = Command::new("sh")
            .args(["-c", "echo $COLOUR $SIZE"])
            .env("COLOUR", "blue")
            .envs([("COLOUR", "red"), ("SIZE", "small")])
            .output()
            .unwrap();
        assert_eq!(told.stdout, b"red small\n");
    });
}

/// As std: `output` leaves alone what was set, and sets the rest for its one process.
#[test]
fn output_keeps_what_was_set() {
    rt(1, || {
        let mut cat = Command::new("cat");
        let manifest = std::fs::read("Cargo.toml").unwrap();
        assert_eq!(cat.stdin(std::fs::File::open("Cargo.toml").unwrap()).output().unwrap().stdout, manifest);
        let mut echo = Command::new("sh");
        echo.args(["-c", "echo out; echo err >&2"]).stdout(Stdio::null());
        let output = echo.output().unwrap();
        assert_eq!((&*output.stdout, &*output.stderr), (&b""[..], &b"err\n"[..]));
        assert_eq!(Command::new("cat").output().unwrap().stdout, b"", "no input");

        // Afterwards they are ours again: there are no pipes that nobody reads.
        let mut command = Command::new("true");
        command.output().unwrap();
        let mut child = command.spawn().unwrap();
        assert!(child.stdin.is_none() && child.stdout.is_none() && child.stderr.is_none());
        assert!(child.wait().unwrap().success());
        // Also after a process that could not be started.
        let mut none = Command::new("/no/such/program");
        none.output().unwrap_err();
        none.output().unwrap_err();
    });
}

#[test]
fn a_file_may_be_a_stream_of_a_process() {
    at_1_2_4(|| {
        let path = std::env::temp_dir().join(format!("oxigo-test-stdio-{}", std::process::id()));
        std::fs::write(&path, "from a file").unwrap();
        let output = Command::new("cat").stdin(File::open(&path).unwrap()).output().unwrap();
        assert_eq!(output.stdout, b"from a file");
        let status = Command::new("echo").arg("to a file").stdout(File::create(&path).unwrap()).status().unwrap();
        assert!(status.success());
        assert_eq!(std::fs::read(&path).unwrap(), b"to a file\n");
        std::fs::remove_file(&path).unwrap();
    });
}

/// The process does with a signal what it wants, and one that was waited for gets none.
#[test]
fn a_signal_is_sent_until_the_process_was_waited_for() {
    at_1_2_4(|| {
        let script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done";
        let mut child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_ref().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        for number in [0, -1, 1000] {
            assert_eq!(child.signal(Signal::from_raw(number)).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        child.signal(Signal::TERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(7));
        child.signal(Signal::TERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(7), "told again");

        // One that has ended and was not waited for takes them, as it does with `kill`.
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        child.signal(Signal::TERM).unwrap();
        while child.signal(Signal::CONT).is_ok() && child.try_wait().unwrap().is_none() {
            oxigo::yield_now();
        }
        assert_eq!(child.wait().unwrap().signal(), Some(15));
    });
}

/// What a wait does first, whether or not it then waits.
#[test]
fn a_wait_that_gives_up_at_once_closes_the_input_too() {
    at_1_2_4(|| {
        let (ended, cancel) = Context::background().with_cancel();
        cancel.cancel();
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        assert_eq!(child.wait_ctx(&ended).unwrap_err().to_string(), "context canceled");
        assert!(child.stdin.is_none());
        assert!(child.wait().unwrap().success());

        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let _ = child.wait_timeout(Duration::ZERO).unwrap();
        assert!(child.stdin.is_none());
        assert!(child.wait().unwrap().success());
    });
}

/// More than a pipe holds on both streams at once.
#[test]
fn much_output_on_both_streams() {
    rt(1, || {
        let script = "head -c 300000 /dev/zero >&2; head -c 300000 /dev/zero";
        let output = Command::new("sh").args(["-c", script]).output().unwrap();
        assert_eq!((output.stdout.len(), output.stderr.len()), (300_000, 300_000));
    });
}

/// One worker: while a process is waited for and talked with, others run.
#[test]
fn pipes_and_waits_park() {
    rt(1, || {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for n in 0..10 {
            let text = format!("line {n}");
            writeln!(&stdin, "{text}").unwrap();
            assert_eq!(lines.next().unwrap().unwrap(), text);
        }
        let waiter = go(move || child.wait().unwrap());
        assert_eq!(go(|| 7).join().unwrap(), 7);
        assert!(!waiter.is_finished());
        drop(stdin);
        assert!(waiter.join().unwrap().success());
        assert!(lines.next().is_none());
    });
}

#[test]
fn wait_timeout_and_kill() {
    at_1_2_4(|| {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let begin = Instant::now();
        assert_eq!(child.wait_timeout(Duration::from_millis(20)).unwrap(), None);
        assert!(begin.elapsed() >= Duration::from_millis(20));
        assert_eq!(child.try_wait().unwrap(), None);
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(9));
        assert_eq!(child.wait_timeout(Duration::from_millis(1)).unwrap(), Some(status), "told again");
    });
}

/// The context's error in that of a wait; its kind agrees.
#[track_caller]
fn ended(result: io::Result<ExitStatus>) -> ContextError {
    let error = result.expect_err("the context ends it");
    let inner = *error.get_ref().and_then(|inner| inner.downcast_ref::<ContextError>()).expect("the context's error");
    assert_eq!(error.kind(), if inner.is_timeout() { ErrorKind::TimedOut } else { ErrorKind::Other });
    inner
}

#[test]
fn cx_26_a_wait_ends_with_its_context_and_the_process_goes_on() {
    rt(1, || {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let (ctx, cancel) = Context::background().with_cancel();
        oxigo::scope(|s| {
            let waiter = s.go(|| child.wait_ctx(&ctx));
            quiesce();
            assert!(!waiter.is_finished());
            cancel.cancel();
            assert_eq!(ended(waiter.join().unwrap()), Canceled);
        });
        assert_eq!(child.try_wait().unwrap(), None);

        let begin = Instant::now();
        let (soon, _cancel) = Context::background().with_timeout(Duration::from_millis(20));
        assert_eq!(ended(child.wait_ctx(&soon)), DeadlineExceeded);
        assert!(begin.elapsed() >= Duration::from_millis(20));
        assert_eq!(child.try_wait().unwrap(), None);

        // A context that has ended comes before a process that has; how it did is told by who asks again.
        child.kill().unwrap();
        let status = child.wait_ctx(&Context::background()).unwrap();
        assert_eq!(status.signal(), Some(9));
        assert_eq!(ended(child.wait_ctx(&ctx)), Canceled);
        assert_eq!(ended(child.wait_ctx(&soon)), DeadlineExceeded);
        assert_eq!(child.wait().unwrap(), status);
        assert_eq!(child.wait_ctx(&Context::background()).unwrap(), status, "told again");
    });
}

#[test]
fn cx_26_a_wait_with_a_context_closes_the_input_and_brings_the_status() {
    at_1_2_4(|| {
        let (ctx, _cancel) = Context::background().with_timeout(Duration::MAX);
        let mut child = Command::new("sh").args(["-c", "cat; exit 3"]).stdin(Stdio::piped()).spawn().unwrap();
        // No limit of another wait holds in this one, nor the other way round.
        let (soon, _cancel) = Context::background().with_timeout(Duration::from_millis(1));
        let input = child.stdin.take();
        assert_eq!(child.wait_timeout(Duration::from_millis(1)).unwrap(), None);
        assert_eq!(ended(child.wait_ctx(&soon)), DeadlineExceeded);
        child.stdin = input;
        assert_eq!(child.wait_ctx(&ctx).unwrap().code(), Some(3));
    });
}

/// The end of the process and that of the context at once: the status is told, then or by the next wait.
#[test]
fn cx_26_a_wait_that_a_context_ends_loses_no_status() {
    at_1_2_4(|| {
        for round in 0..20 {
            let (ctx, cancel) = Context::background().with_cancel();
            let mut child = Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
            let waited = thread::scope(|s| {
                s.spawn(|| {
                    (0..5_000 * round).for_each(|_| std::hint::spin_loop());
                    cancel.cancel();
                });
                child.wait_ctx(&ctx)
            });
            let status = waited.or_else(|error| {
                assert_eq!(ended(Err(error)), Canceled);
                child.wait()
            });
            assert_eq!(status.unwrap().code(), Some(7));
        }
    });
}

#[test]
fn cx_26_a_wait_with_a_context_works_from_a_plain_thread() {
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    let (ctx, cancel) = Context::background().with_cancel();
    thread::scope(|s| {
        let waiter = s.spawn(|| child.wait_ctx(&ctx));
        thread::yield_now();
        cancel.cancel();
        assert_eq!(ended(waiter.join().unwrap()), Canceled);
    });
    child.kill().unwrap();
    assert_eq!(child.wait_ctx(&Context::background()).unwrap().signal(), Some(9));
}

#[test]
fn many_at_once() {
    rt(2, || {
        let handles: Vec<_> = (0..20)
            .map(|n| go(move || Command::new("sh").args(["-c", &format!("exit {n}")]).status().unwrap()))
            .collect();
        for (n, handle) in handles.into_iter().enumerate() {
            assert_eq!(handle.join().unwrap().code(), Some(n as i32));
        }
    });
}

/// Workers keep signals away from themselves; a process that they start must not inherit that, or it could not be ended politely.
#[cfg(target_os = "linux")]
#[test]
fn a_child_blocks_no_signals() {
    let blocked = || {
        let output = Command::new("grep").args(["SigBlk", "/proc/self/status"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().split_whitespace().last().unwrap().to_owned()
    };
    const NONE: &str = "0000000000000000";
    rt(2, move || {
        assert_eq!(blocked(), NONE);
        assert_eq!(oxigo::blocking(blocked), NONE, "on a thread of the pool");
        let on_a_thread = move || thread::spawn(blocked).join().unwrap();
        assert_eq!(on_a_thread(), NONE, "on a thread that a goroutine has started");
        assert_eq!(oxigo::blocking(on_a_thread), NONE);
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
        assert_eq!(child.wait().unwrap().signal(), Some(15));
    });
    // What a thread of the program's own blocks is the program's business.
    thread::spawn(move || {
        // SAFETY: all zeroes is a set, the empty one.
        let mut set = unsafe { std::mem::zeroed::<libc::sigset_t>() };
        // SAFETY: a valid set and signal.
        unsafe { libc::sigaddset(&raw mut set, libc::SIGUSR1) };
        // SAFETY: a valid set, for this thread, which ends soon.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        assert_eq!(blocked(), "0000000000000200");
    })
    .join()
    .unwrap();
}

/// `exec` leaves the worker's signals behind as well; what cannot be executed leaves the process and the worker's signals as they were.
#[cfg(target_os = "linux")]
#[test]
fn exec_blocks_no_signals() {
    const NAME: &str = "exec_blocks_no_signals";
    if is_child(NAME) {
        let exec = || {
            let blocked = || {
                let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
                status.lines().find(|line| line.starts_with("SigBlk")).unwrap().to_owned()
            };
            let before = blocked();
            assert_eq!(Command::new("/nonexistent").exec().kind(), ErrorKind::NotFound);
            assert_eq!(blocked(), before);
            panic!("{}", Command::new("grep").args(["SigBlk", "/proc/self/status"]).exec());
        };
        match std::env::var("EXEC_ON").unwrap().as_str() {
            "goroutine" => rt(2, exec),
            "pool" => rt(2, move || oxigo::blocking(exec)),
            _ => exec(),
        }
    }
    for place in ["goroutine", "pool", "thread"] {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .envs([("OXIGO_TEST_CHILD", NAME), ("EXEC_ON", place)])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("SigBlk:\t0000000000000000\n"), "{place}: {text}");
    }
}
