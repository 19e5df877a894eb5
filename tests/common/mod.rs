//! What several tests need.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    cell::UnsafeCell,
    env, fs,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Once,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use oxigo::{Deadlock, Runtime};
use rustix::process::{Pid, Signal, kill_process};

/// Runs `body` as the main goroutine of a runtime with so many workers.
pub(crate) fn rt<T: Send>(workers: usize, body: impl FnOnce() -> T + Send) -> T {
    let runtime = Runtime::builder().workers(workers).name("test").build().expect("a runtime");
    runtime.run(body)
}

/// Runs `body` at 1, 2 and 4 workers.
pub(crate) fn at_1_2_4(body: impl Fn() + Sync) {
    for workers in [1, 2, 4] {
        rt(workers, &body);
    }
}

/// Runs `body` on goroutines at 1, 2 and 4 workers, and on a plain thread.
pub(crate) fn everywhere(body: impl Fn() + Sync) {
    at_1_2_4(&body);
    body();
}

/// Has two threads call `step` at the same moment, and counts those for which it says true.
pub(crate) fn successes_of_two_threads(step: impl Fn() -> bool + Sync) -> usize {
    let (succeeded, arrived) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                arrived.fetch_add(1, SeqCst);
                while arrived.load(SeqCst) < 2 {
                    std::hint::spin_loop();
                }
                if step() {
                    succeeded.fetch_add(1, SeqCst);
                }
            });
        }
    });
    succeeded.into_inner()
}

/// On one worker: lets all others run until none of them can.
pub(crate) fn quiesce() {
    for _ in 0..1000 {
        oxigo::yield_now();
    }
}

/// On one worker: makes `call` again and again until another goroutine has run.
pub(crate) fn lets_others_run<T>(what: &str, mut call: impl FnMut() -> T) {
    let ran = Arc::new(AtomicBool::new(false));
    let other = Arc::clone(&ran);
    let other = oxigo::go(move || other.store(true, SeqCst));
    let begin = Instant::now();
    while !ran.load(SeqCst) {
        call();
        assert!(begin.elapsed() < Duration::from_secs(30), "{what} holds its worker");
    }
    other.join().unwrap();
}

/// Keeps the processor busy for so long.
pub(crate) fn compute(time: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// A value that counts how often it was dropped.
#[derive(Debug)]
pub(crate) struct Counted(pub(crate) Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Data without any synchronisation of its own. Where the edge under test is missing, a stale value may be read, and ThreadSanitizer reports
/// a race (`ci/sanitizers`).
#[derive(Default)]
pub(crate) struct Plain(UnsafeCell<usize>);

// SAFETY: each test orders its accesses by the edge that it is about.
unsafe impl Sync for Plain {}

impl Plain {
    pub(crate) fn shared() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn set(&self, value: usize) {
        // SAFETY: ordered against the other accesses by the edge under test.
        unsafe { *self.0.get() = value }
    }

    pub(crate) fn get(&self) -> usize {
        // SAFETY: as above.
        unsafe { *self.0.get() }
    }
}

/// Runs the test `name` of the calling test binary again, in a process of its own that knows it is the child. One that does not end is
/// killed after a while; its status and what it has said tell.
pub(crate) fn child(name: &str) -> Output {
    const LIMIT: Duration = Duration::from_secs(300);
    let process = Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env("OXIGO_TEST_CHILD", name)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let id = Pid::from_child(&process);
    let (ends, ended) = mpsc::channel::<()>();
    let watch = thread::spawn(move || {
        if ended.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("the child {id:?} does not end");
            let _ = kill_process(id, Signal::KILL);
        }
    });
    let output = process.wait_with_output().unwrap();
    drop(ends);
    watch.join().unwrap();
    output
}

/// Runs the body of the test `name` in a process of its own, which has to end well.
#[track_caller]
pub(crate) fn alone(name: &str, body: impl FnOnce()) {
    if is_child(name) {
        return body();
    }
    let output = child(name);
    assert!(output.status.success(), "{:?} {}", output.status, stderr(&output));
}

/// Runs the body of the test `name` in a process of its own, which has to end with the report of a deadlock.
#[track_caller]
pub(crate) fn deadlock_told(name: &str, body: impl FnOnce()) {
    if is_child(name) {
        return body();
    }
    let output = child(name);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("all goroutines are asleep - deadlock!"), "{}", stderr(&output));
}

/// A runtime whose deadlock is told though the harness has threads of its own.
pub(crate) fn closed_world() -> Runtime {
    Runtime::builder().workers(2).deadlock(Deadlock::ClosedWorld).build().unwrap()
}

pub(crate) fn wait_for_ever() {
    let (_tx, rx) = oxigo::unbuffered::<()>();
    let _ = rx.recv();
}

/// Fills the table of descriptors; it is full for as long as the result lives.
#[cfg(target_os = "linux")]
pub(crate) fn full_table() -> Vec<fs::File> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(256), maximum: most }).unwrap();
    let files: Vec<_> = std::iter::from_fn(|| fs::File::open("/dev/null").ok()).collect();
    assert_eq!(fs::File::open("/dev/null").unwrap_err().raw_os_error(), Some(libc::EMFILE));
    files
}

/// Whether this process is the child for test `name`. If so, signals are as in a program that a user has started, whoever started the tests: a
/// shell has what runs in its background ignore some, which is inherited.
pub(crate) fn is_child(name: &str) -> bool {
    static DEFAULTS: Once = Once::new();
    let is_child = env::var("OXIGO_TEST_CHILD").is_ok_and(|child| child == name);
    if is_child {
        DEFAULTS.call_once(|| {
            for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2] {
                // SAFETY: nobody has asked for any of them yet: a test asks this first.
                unsafe { libc::signal(signal, libc::SIG_DFL) };
            }
        });
    }
    is_child
}

/// Has the calling thread, and those that it starts, block all signals.
#[cfg(target_os = "linux")]
pub(crate) fn block_all_signals() {
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: fills the set.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: a set that was filled.
    assert_eq!(unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), std::ptr::null_mut()) }, 0);
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// User and system time that another process has used, on Linux.
pub(crate) fn cpu_time(process: &Child) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    // After the name, which is in parentheses: state is field 3, utime and stime are 14 and 15.
    let fields: Vec<_> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

/// An example, which `cargo test` builds; built here when a test is run alone.
pub(crate) fn example(name: &str) -> PathBuf {
    // target/PROFILE/deps/TEST-HASH → target/PROFILE/examples/NAME
    let test = env::current_exe().unwrap();
    let profile = test.parent().unwrap().parent().unwrap();
    let example = profile.join("examples").join(name);
    if !example.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--example", name]);
        build.arg("--target-dir").arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "the example cannot be built");
    }
    example
}

/// A receiver that is ready for ever, since it is closed.
pub(crate) fn closed_receiver<T>() -> oxigo::Receiver<T> {
    oxigo::unbuffered().1
}

/// A sender that is ready for ever, since it is closed.
pub(crate) fn closed_sender<T>() -> (oxigo::Sender<T>, oxigo::Receiver<T>) {
    let (tx, rx) = oxigo::unbuffered();
    tx.close().unwrap();
    (tx, rx)
}

/// How many rounds: many where they are fast.
pub(crate) fn at_length(debug: usize, release: usize) -> usize {
    if cfg!(debug_assertions) { debug } else { release }
}
