//! Stacks: their sizes, what an overflow reports, and what happens where there is no room for one.

mod common;

use std::{
    process,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use common::{Counted, child, is_child, rt, stderr};
use oxigo::{Builder, Runtime, go, unbuffered};

#[test]
fn g_11_an_overflow_is_reported_and_ends_the_process() {
    const NAME: &str = "g_11_an_overflow_is_reported_and_ends_the_process";
    #[allow(unconditional_recursion, reason = "the point of the test")]
    fn endless(n: u64) -> u64 {
        std::hint::black_box(endless(n + 1)) + std::hint::black_box(n)
    }
    if is_child(NAME) {
        oxigo::run(|| {
            let deep = Builder::new().name("deep".into()).stack_size(128 * 1024).spawn(|| endless(0)).unwrap();
            let _ = deep.join();
        });
        unreachable!();
    }
    let output = child(NAME);
    let text = stderr(&output);
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(output.status.signal(), Some(6), "{text}");
    for words in [
        "goroutine ",
        "[deep]",
        "stack of 128 KiB, of which 64 KiB are the guard",
        "stack overflow",
        "OXIGO_STACK_SIZE",
        "stacks.rs:",
    ] {
        assert!(text.contains(words), "{words} is missing in: {text}");
    }
}

/// As programs do that take all signals by `sigwait`: threads inherit it.
#[test]
#[cfg(target_os = "linux")]
fn g_11_an_overflow_is_reported_where_the_program_blocks_all_signals() {
    const NAME: &str = "g_11_an_overflow_is_reported_where_the_program_blocks_all_signals";
    #[allow(unconditional_recursion, reason = "the point of the test")]
    fn endless(n: u64) -> u64 {
        std::hint::black_box(endless(n + 1)) + std::hint::black_box(n)
    }
    if is_child(NAME) {
        common::block_all_signals();
        oxigo::run(|| {
            let _ = Builder::new().name("deep".into()).spawn(|| endless(0)).unwrap().join();
        });
        unreachable!();
    }
    let output = child(NAME);
    let text = stderr(&output);
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{text}");
    assert!(text.contains("[deep]") && text.contains("stack overflow"), "{text}");
}

/// The thread is one of a pool: whose call it ran is what matters.
#[test]
#[cfg(target_os = "linux")]
fn g_11_an_overflow_in_a_blocking_call_names_its_goroutine() {
    const NAME: &str = "g_11_an_overflow_in_a_blocking_call_names_its_goroutine";
    #[allow(unconditional_recursion, reason = "the point of the test")]
    fn endless(n: u64) -> u64 {
        std::hint::black_box(endless(n + 1)) + std::hint::black_box(n)
    }
    if is_child(NAME) {
        oxigo::run(|| {
            // Another call of the same thread has ended well.
            oxigo::blocking(|| ());
            let deep = Builder::new().name("deep".into()).spawn(|| oxigo::blocking(|| endless(0))).unwrap();
            let _ = deep.join();
        });
        unreachable!();
    }
    let output = child(NAME);
    let text = stderr(&output);
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(output.status.signal(), Some(6), "{text}");
    for words in ["goroutine ", "[deep]", "stacks.rs:", "`blocking`", " KiB", "stack overflow", "RUST_MIN_STACK"] {
        assert!(text.contains(words), "{words} is missing in: {text}");
    }
}

/// Where a fault has its address, a signal that was sent has its sender, or what that one has put there. It ends the process as it would
/// without us.
#[test]
#[cfg(target_os = "linux")]
fn g_11_a_signal_that_was_sent_is_no_overflow() {
    const NAME: &str = "g_11_a_signal_that_was_sent_is_no_overflow";
    if is_child(NAME) {
        // SAFETY: without the standard library's handler, which makes nothing of the first such signal.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
        rt(1, || {
            let here = 0_u8;
            // SAFETY: all zeroes is a valid record.
            let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
            info.si_code = libc::SI_QUEUE;
            // In the guard of this goroutine, which has used little of its 192 KiB.
            let guard = (&raw const here).addr() - (200 << 10);
            let words = (&raw mut info).cast::<[usize; 3]>();
            // SAFETY: three numbers and the padding behind them lie before the address, in a record that has room for it.
            unsafe { (*words)[2] = guard };
            let thread = rustix::thread::gettid().as_raw_nonzero().get();
            // SAFETY: the calling thread, and a record.
            unsafe {
                libc::syscall(libc::SYS_rt_tgsigqueueinfo, process::id(), thread, libc::SIGSEGV, &raw const info)
            };
        });
        process::exit(3);
    }
    let output = child(NAME);
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{}", stderr(&output));
}

/// It was moved, whole, onto the stack of whoever gave it up or took the result, also when the closure had run: an overflow.
#[test]
fn g_11_a_large_closure_is_given_up_on_a_small_stack() {
    const NAME: &str = "g_11_a_large_closure_is_given_up_on_a_small_stack";
    // A debug build makes one copy still, for each write of an enum.
    const LARGE: usize = if cfg!(debug_assertions) { 100 << 10 } else { 400 << 10 };
    /// Goroutines have 192 KiB, these ones and the thread have plenty.
    fn start<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> oxigo::JoinHandle<T> {
        Builder::new().stack_size(32 << 20).spawn(f).unwrap()
    }

    fn ended<T>(handle: oxigo::JoinHandle<T>) -> oxigo::JoinHandle<T> {
        while !handle.is_finished() {
            thread::yield_now();
        }
        handle
    }
    if is_child(NAME) {
        let plenty = thread::Builder::new().stack_size(64 << 20).spawn(|| {
            let drops = Arc::new(AtomicUsize::new(0));
            let large = || (Counted(Arc::clone(&drops)), [7_u8; LARGE]);
            let (one, two, three, four) = (large(), large(), large(), large());
            // The last handle goes; the result is taken; the result is dropped.
            let given_up = ended(start(move || drop(one)));
            let joined = ended(start(move || {
                let held = two;
                held.1[5]
            }));
            let result = ended(start(move || three));
            let panicked = ended(start(move || {
                let _held = four;
                panic!("as it should");
            }));
            let ended = go(move || {
                drop(given_up);
                assert_eq!(joined.join().unwrap(), 7);
                drop(result);
                panicked.join().unwrap_err();
            });
            ended.join().unwrap();
            assert_eq!(drops.load(SeqCst), 4);
        });
        plenty.unwrap().join().unwrap();
        process::exit(0);
    }
    let output = child(NAME);
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn an_own_stack_size_is_what_a_goroutine_gets() {
    fn deep(kib: usize) -> usize {
        let page = [1_u8; 1024];
        if kib == 0 { 0 } else { deep(kib - 1) + usize::from(std::hint::black_box(page)[5]) }
    }
    let handle = Builder::new().stack_size(8 << 20).spawn(|| deep(2048)).unwrap();
    // A debug build's frame of it has over two KiB: this needs far more than the default of 192 KiB.
    assert_eq!(handle.join().unwrap(), 2048);
    let error = Builder::new().stack_size(usize::MAX).spawn(|| ()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}

/// As with std's threads, a stack size below the least is rounded up.
#[test]
fn g_10_a_stack_that_is_too_small_is_made_larger() {
    for bytes in [0, 1, 4096, 65536] {
        let handle = Builder::new().stack_size(bytes).spawn(|| format!("{:?}", oxigo::current().name())).unwrap();
        assert_eq!(handle.join().unwrap(), "None");
        let runtime = Runtime::builder().workers(1).stack_size(bytes).build().unwrap();
        assert_eq!(runtime.run(|| format!("{:.3}", std::hint::black_box(0.5))), "0.500");
    }
}

/// The process's threads: id, name, and whether any signal is blocked.
fn threads() -> Vec<(String, String, bool)> {
    let read = |task: &std::path::Path, file: &str| std::fs::read_to_string(task.join(file)).unwrap_or_default();
    let thread = |task: std::path::PathBuf| {
        let status = read(&task, "status");
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap_or_default();
        let id = task.file_name().unwrap().to_str().unwrap().to_owned();
        (id, read(&task, "comm"), blocked.trim().bytes().any(|digit| digit != b'0'))
    };
    std::fs::read_dir("/proc/self/task").unwrap().map(|task| thread(task.unwrap().path())).collect()
}

/// Whether all threads that were not there `before` have got as far as code of the runtime's, which blocks signals, and need no memory any
/// more to begin. The C library blocks them too, but before a thread has a name of its own.
fn all_have_begun(before: &[(String, String, bool)]) -> bool {
    threads().iter().all(|(id, name, blocked)| {
        before.iter().any(|(known, ..)| known == id) || *blocked && before.iter().all(|(_, old, _)| old != name)
    })
}

/// Out of address space: an error from `spawn`, a clear panic from `go`, and the process lives on.
#[test]
fn no_room_for_stacks_is_an_error() {
    const NAME: &str = "no_room_for_stacks_is_an_error";
    if is_child(NAME) {
        let before = threads();
        // Its stacks are larger than what will be left.
        let other = Runtime::builder().workers(1).stack_size(256 << 20).build().unwrap();
        oxigo::run(|| {
            use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
            let begin = Instant::now();
            while !all_have_begun(&before) {
                assert!(begin.elapsed() < Duration::from_secs(30), "a thread does not begin");
            }
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("VmSize:")).unwrap();
            let now = line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024;
            let limit = Rlimit { current: Some(now + (64 << 20)), maximum: getrlimit(Resource::As).maximum };
            setrlimit(Resource::As, limit).unwrap();
            static PLACES: std::sync::Mutex<Vec<String>> = std::sync::Mutex::new(Vec::new());
            let (keep, rx) = unbuffered::<()>();
            let mut started = Vec::new();
            let error = loop {
                let rx = rx.clone();
                match Builder::new().spawn(move || rx.recv().is_err()) {
                    Ok(handle) => started.push(handle),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), std::io::ErrorKind::OutOfMemory);
            assert!(error.to_string().contains("ulimit -v"), "{error}");
            let panicked = std::panic::catch_unwind(|| go(|| ())).unwrap_err();
            let text = panicked.downcast_ref::<String>().unwrap();
            assert!(text.contains("cannot start a goroutine"), "{text}");
            // PN-01: the place of the panic is the caller's line.
            std::panic::set_hook(Box::new(|info| {
                PLACES.lock().unwrap().push(info.location().unwrap().file().to_owned())
            }));
            let refused = (
                std::panic::catch_unwind(|| drop(other.go(|| ()))).is_err(),
                std::panic::catch_unwind(|| other.run(|| ())).is_err(),
            );
            drop(std::panic::take_hook());
            assert_eq!(refused, (true, true));
            assert_eq!(*PLACES.lock().unwrap(), [file!(); 2]);
            drop(keep);
            assert!(started.len() > 50, "{}", started.len());
            started.into_iter().for_each(|handle| assert!(handle.join().unwrap()));
            // What has ended makes room again.
            go(|| ()).join().unwrap();
        });
        println!("lives on");
        return;
    }
    let output = child(NAME);
    assert!(String::from_utf8_lossy(&output.stdout).contains("lives on"), "{}", stderr(&output));
}
