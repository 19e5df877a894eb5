//! The watchdog, and the metrics.

mod common;

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::fd::AsRawFd,
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::{Duration, Instant},
};

use common::{child, is_child, rt, stderr};
use oxigo::{Builder, Runtime, debug, go, run, unbuffered};

/// Runs on a processor for `time`, as far as the process's clocks tell: a busy machine makes it longer.
fn burn(time: Duration) {
    let used = || {
        let usage = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(usage.tv_sec as u64, usage.tv_nsec as u32)
    };
    let end = used() + time;
    while used() < end {
        std::hint::spin_loop();
    }
}

/// Two that answer each other pass through no queue, and yet nobody holds the worker.
#[test]
fn a_pair_that_talks_holds_no_worker() {
    const NAME: &str = "a_pair_that_talks_holds_no_worker";
    if is_child(NAME) {
        rt(1, || {
            let (tx, rx) = unbuffered::<()>();
            let (back, returned) = unbuffered::<()>();
            let answers = go(move || {
                for () in &rx {
                    burn(Duration::from_millis(10));
                    back.send(()).unwrap();
                }
            });
            for _ in 0..50 {
                tx.send(()).unwrap();
                returned.recv().unwrap();
            }
            drop(tx);
            answers.join().unwrap();
        });
        return;
    }
    let output = child(NAME);
    let text = stderr(&output);
    assert!(output.status.success() && !text.contains("has held its worker"), "{text}");
}

/// A lock of std's that a goroutine keeps while it parks: whoever wants it on the same worker blocks the thread, and nobody ever releases it.
#[test]
fn a_worker_that_is_blocked_beside_others_is_told_of() {
    const NAME: &str = "a_worker_that_is_blocked_beside_others_is_told_of";
    if is_child(NAME) {
        let runtime = Runtime::builder().workers(1).name("blocked").build().unwrap();
        runtime.go(|| {
            let lock: &Mutex<()> = Box::leak(Box::new(Mutex::new(())));
            let held = lock.lock().unwrap();
            static BEGUN: AtomicBool = AtomicBool::new(false);
            go(move || {
                BEGUN.store(true, SeqCst);
                drop(lock.lock());
            });
            while !BEGUN.load(SeqCst) {
                oxigo::time::sleep(Duration::from_millis(10));
            }
            drop(held);
        });
        // It is told on the way. The parent ends this.
        std::thread::sleep(Duration::from_secs(120));
        return;
    }
    let mut stuck = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env("OXIGO_TEST_CHILD", NAME)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(stuck.stderr.take().unwrap()).lines().map_while(Result::ok);
    let told = lines.into_iter().find(|line| line.contains("has blocked the thread of"));
    stuck.kill().unwrap();
    stuck.wait().unwrap();
    assert!(told.is_some_and(|line| line.contains("blocked-0 for ")));
}

/// Standard error is a pipe that is full, which whoever writes to it waits for. It was the clock thread, with the list of runtimes locked: no runtime
/// started and no timer started its function any more.
#[test]
#[cfg(target_os = "linux")]
fn a_report_that_nobody_reads_yet_holds_up_nobody() {
    const NAME: &str = "a_report_that_nobody_reads_yet_holds_up_nobody";
    if is_child(NAME) {
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        while writer.write(&[b'\n'; 4096]).is_ok() {}
        rustix::io::ioctl_fionbio(&writer, false).unwrap();
        // SAFETY: two open descriptors; nobody else uses standard error.
        assert_eq!(unsafe { libc::dup2(writer.as_raw_fd(), 2) }, 2);

        static DONE: AtomicBool = AtomicBool::new(false);
        static BURNT: AtomicUsize = AtomicUsize::new(0);
        let held = Runtime::builder().workers(1).build().unwrap();
        let holder = held.go(|| {
            while !DONE.load(SeqCst) {
                burn(Duration::from_millis(10));
                BURNT.fetch_add(10, SeqCst);
            }
        });
        // Long after the report, and the clock counts on.
        while BURNT.load(SeqCst) < 400 || debug::metrics().longest_run < Duration::from_millis(400) {
            let runtime = Runtime::builder().workers(1).build().unwrap();
            assert_eq!(runtime.run(|| 42), 42);
            let (tx, fired) = oxigo::bounded(1);
            oxigo::time::after_func(Duration::from_millis(1), move || tx.send(()).unwrap());
            fired.recv().unwrap();
        }
        DONE.store(true, SeqCst);
        holder.join().unwrap();
        let mut read = String::new();
        let mut some = [0; 4096];
        while !read.contains("has held its worker for ") {
            let n = reader.read(&mut some).unwrap();
            read.push_str(std::str::from_utf8(&some[..n]).unwrap());
        }
        return;
    }
    let output = child(NAME);
    assert!(output.status.success(), "{:?} {}", output.status, stderr(&output));
}

/// Nobody waits for the worker: nobody is blamed.
#[test]
fn a_worker_that_is_blocked_alone_is_not_told_of() {
    const NAME: &str = "a_worker_that_is_blocked_alone_is_not_told_of";
    if is_child(NAME) {
        rt(1, || std::thread::sleep(Duration::from_millis(1500)));
        return;
    }
    let output = child(NAME);
    assert!(output.status.success() && stderr(&output).is_empty(), "{}", stderr(&output));
}

#[test]
fn a_goroutine_that_holds_its_worker_is_named_once() {
    const NAME: &str = "a_goroutine_that_holds_its_worker_is_named_once";
    if is_child(NAME) {
        run(|| {
            let held = Builder::new().name("the busy one".into()).spawn(|| {
                for _ in 0..2 {
                    burn(Duration::from_millis(400));
                    oxigo::time::sleep(Duration::from_millis(1));
                }
            });
            // Blocks its thread without using it: nobody to blame.
            let idle = Builder::new().name("the idle one".into()).spread().spawn(|| {
                std::thread::sleep(Duration::from_millis(300));
            });
            held.unwrap().join().unwrap();
            idle.unwrap().join().unwrap();
        });
        return;
    }
    let output = child(NAME);
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches("[the busy one], started at tests/watchdog.rs:").count(), 1, "{text}");
    assert!(!text.contains("the idle one"), "{text}");

    let quiet = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture", "--test-threads=1"])
        .env("OXIGO_TEST_CHILD", NAME)
        .env("OXIGO_WATCHDOG", "off")
        .output()
        .unwrap();
    assert!(quiet.status.success() && !stderr(&quiet).contains("the busy one"));
}

/// What the watchdog says of a goroutine that `before` precedes and that runs for so long, in a process of its own.
#[cfg(target_os = "linux")]
fn told_of_one_that_holds(name: &str, before: impl FnOnce() + Send + 'static, time: Duration) -> Option<String> {
    if is_child(name) {
        let held = Builder::new().name("the busy one".into()).spawn(move || {
            before();
            burn(time);
        });
        held.unwrap().join().unwrap();
        return None;
    }
    let output = child(name);
    assert!(output.status.success(), "{}", stderr(&output));
    Some(stderr(&output))
}

/// As programs do that take all signals by `sigwait`: workers would inherit it.
#[test]
#[cfg(target_os = "linux")]
fn a_program_that_blocks_all_signals_has_its_watchdog() {
    const NAME: &str = "a_program_that_blocks_all_signals_has_its_watchdog";
    if is_child(NAME) {
        common::block_all_signals();
    }
    if let Some(text) = told_of_one_that_holds(NAME, || (), Duration::from_millis(400)) {
        assert!(text.contains("[the busy one]"), "{text}");
    }
}

/// Whoever cannot answer when it is asked for the first time, for want of a core for one, is asked again.
#[test]
#[cfg(target_os = "linux")]
fn a_goroutine_that_answers_late_is_named() {
    const NAME: &str = "a_goroutine_that_answers_late_is_named";
    let deaf_for_a_while = || {
        let mut urgent = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: empties the set.
        unsafe { libc::sigemptyset(urgent.as_mut_ptr()) };
        // SAFETY: a set that was emptied.
        unsafe { libc::sigaddset(urgent.as_mut_ptr(), libc::SIGURG) };
        // SAFETY: a valid set.
        let mask = |how| unsafe { libc::pthread_sigmask(how, urgent.as_ptr(), std::ptr::null_mut()) };
        assert_eq!(mask(libc::SIG_BLOCK), 0);
        burn(Duration::from_millis(250));
        assert_eq!(mask(libc::SIG_UNBLOCK), 0);
    };
    if let Some(text) = told_of_one_that_holds(NAME, deaf_for_a_while, Duration::from_millis(1000)) {
        assert_eq!(text.matches("[the busy one]").count(), 1, "{text}");
    }
}

/// A handler that the program sets for the signal, after the watchdog has used it, is the program's alone.
#[test]
#[cfg(target_os = "linux")]
fn a_handler_that_is_set_later_is_not_called() {
    use std::sync::atomic::AtomicUsize;
    const NAME: &str = "a_handler_that_is_set_later_is_not_called";
    static CALLED: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn counts(_: libc::c_int) {
        CALLED.fetch_add(1, SeqCst);
    }
    if is_child(NAME) {
        assert!(told_of_one_that_holds(NAME, || (), Duration::from_millis(400)).is_none());
        // SAFETY: the handler only counts.
        unsafe { libc::signal(libc::SIGURG, counts as extern "C" fn(libc::c_int) as libc::sighandler_t) };
    }
    let text = told_of_one_that_holds(NAME, || (), Duration::from_millis(400));
    assert!(text.is_none_or(|text| text.matches("[the busy one]").count() == 1));
    assert_eq!(CALLED.load(SeqCst), 0);
}

#[test]
fn metrics_count_goroutines() {
    const NAME: &str = "metrics_count_goroutines";
    // In a process of its own, since the counts are the whole process's.
    if is_child(NAME) {
        rt(2, || {
            let (tx, rx) = unbuffered::<()>();
            let waiting: Vec<_> = (0..10)
                .map(|_| {
                    let rx = rx.clone();
                    go(move || rx.recv().is_err())
                })
                .collect();
            let begin = Instant::now();
            let counts = loop {
                oxigo::time::sleep(Duration::from_millis(1));
                let counts = debug::metrics();
                if counts.parked == 10 || begin.elapsed() > Duration::from_secs(30) {
                    break counts;
                }
            };
            assert_eq!((counts.goroutines, counts.parked, counts.started, counts.workers), (11, 10, 11, 2));
            assert!(counts.polls > 0);
            drop(tx);
            waiting.into_iter().for_each(|handle| assert!(handle.join().unwrap()));
            assert_eq!(debug::metrics().goroutines, 1);
            // Two workers that speak to each other.
            let (there, here) = mpsc::channel();
            let far = Builder::new().spread().spawn(move || {
                there.send(oxigo::current()).unwrap();
                oxigo::park();
            });
            here.recv().unwrap().unpark();
            far.unwrap().join().unwrap();
            burn(Duration::from_millis(60));
            let begin = Instant::now();
            while debug::metrics().longest_run < Duration::from_millis(30) {
                assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", debug::metrics());
                oxigo::yield_now();
            }
        });
        return;
    }
    let output = child(NAME);
    assert!(output.status.success(), "{}", stderr(&output));
}
