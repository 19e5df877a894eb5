//! After a fork without exec: whatever would need the threads that are not there says so, and the parent is not disturbed.
#![cfg(target_os = "linux")]

mod common;

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    process,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    task::Poll,
    time::{Duration, Instant},
};

use common::{child, is_child, rt, stderr};
use oxigo::{Runtime, WaitGroup, bounded, future::block_on, go, net::TcpListener, sync::Mutex, unbuffered};

/// Runs `body` in a forked child and returns how that ended: its exit code, or the signal that killed it, negative.
fn forked(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: allocation works in a forked child on Linux, and nobody else writes to standard error meanwhile.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        // What hangs is killed.
        // SAFETY: without preconditions.
        unsafe { libc::alarm(10) };
        let code = catch_unwind(AssertUnwindSafe(body)).unwrap_or(99);
        // SAFETY: runs nothing of the program's any more.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: the child is ours, and the pointer is valid.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } != child {}
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) }
}

/// Whether `operation` panics with the message of this crate.
fn panics<T>(operation: impl FnOnce() -> T) -> bool {
    let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(operation()))) else { return false };
    let text = payload.downcast_ref::<String>().map_or("", |text| text);
    text.contains("only fork followed by exec is supported")
}

#[track_caller]
fn refused<T>(what: &str, operation: impl FnOnce() -> T) {
    assert_eq!(forked(|| i32::from(!panics(operation))), 0, "{what}");
}

/// Runs the test in a process of its own. True in the parent, when that has passed.
fn alone(name: &str) -> bool {
    if is_child(name) {
        return false;
    }
    let output = child(name);
    assert!(output.status.success(), "{output:?}");
    true
}

#[test]
fn a_forked_child_of_a_plain_thread_is_told() {
    if alone("a_forked_child_of_a_plain_thread_is_told") {
        return;
    }
    let started = go(|| 1);
    assert_eq!(started.join().unwrap(), 1);
    let (tx, rx) = unbuffered::<u32>();
    refused("go", || go(|| 2));
    refused("run", || oxigo::run(|| 2));
    refused("scope", || oxigo::scope(|s| drop(s.go(|| 2))));
    refused("recv", || rx.recv());
    refused("recv_timeout", || rx.recv_timeout(Duration::from_millis(1)));
    refused("send", || tx.send(1));
    refused("select", || oxigo::select! { recv(rx) -> _ => (), send(tx, 1) -> _ => () });
    // Its locks were left held, and the ends that unwind waited for them.
    refused("select on ends of its own", || {
        let (tx, rx) = unbuffered();
        oxigo::select! { recv(rx) -> _ => (), send(tx, 1) -> _ => () }
    });
    refused("sleep", || oxigo::time::sleep(Duration::from_millis(1)));
    refused("yield_now", oxigo::yield_now);
    refused("park", oxigo::park);
    refused("after_func", || oxigo::time::after_func(Duration::ZERO, || ()));
    let group = WaitGroup::new();
    group.add(1);
    refused("WaitGroup", || group.wait());
    group.done();
    let held = Mutex::new(());
    let guard = held.lock();
    refused("Mutex", || drop(held.lock()));
    drop(guard);
    let waits = go({
        let rx = rx.clone();
        move || rx.recv()
    });
    refused("join", || waits.join());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    refused("accept", || listener.accept());
    // What reports errors does so.
    assert_eq!(forked(|| i32::from(Runtime::builder().workers(1).build().is_ok())), 0);
    assert_eq!(forked(|| i32::from(oxigo::Builder::new().spawn(|| ()).is_ok())), 0);
    // What waits for nobody works.
    let code = forked(|| {
        let (tx, rx) = bounded(1);
        tx.send(7).unwrap();
        rx.recv().unwrap()
    });
    assert_eq!(code, 7);
}

/// The copy of a worker runs no goroutine but the one that forked, and that one cannot end as if nothing had been.
#[test]
fn a_forked_child_of_a_goroutine_is_told() {
    const NAME: &str = "a_forked_child_of_a_goroutine_is_told";
    if !is_child(NAME) {
        let output = child(NAME);
        let text = stderr(&output);
        assert!(output.status.success(), "{text}");
        assert!(text.contains("fatal: the goroutine that forked has ended"), "{text}");
        return;
    }
    rt(1, || {
        static RAN: AtomicBool = AtomicBool::new(false);
        let (tx, rx) = unbuffered::<()>();
        // Ready, and its turn comes with the first switch.
        let other = go(|| RAN.store(true, SeqCst));
        let code = forked(|| {
            let told = panics(|| rx.recv()) && panics(oxigo::yield_now) && panics(|| go(|| ()));
            // Many times the budget after which a goroutine makes room for others.
            let (one, other) = bounded(1);
            for n in 0..100_000 {
                one.send(n).unwrap();
                other.recv().unwrap();
            }
            i32::from(!told) + 2 * i32::from(RAN.load(SeqCst))
        });
        assert_eq!(code, 0);
        assert!(!RAN.load(SeqCst), "it had its turn too early for this test");
        other.join().unwrap();
        // In the parent all goes on.
        let sends = go(move || tx.send(()));
        rx.recv().unwrap();
        sends.join().unwrap().unwrap();
    });
    rt(1, || {
        // SAFETY: the child does next to nothing.
        let pid = go(|| unsafe { libc::fork() }).join().unwrap();
        assert!(pid > 0, "the child's goroutine does not end");
        let mut status = 0;
        // SAFETY: the child is ours, and the pointer is valid.
        while unsafe { libc::waitpid(pid, &raw mut status, 0) } != pid {}
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGABRT);
    });
    process::exit(0);
}

/// Whoever waits for a future was known before it was polled: one that forks in its poll is told all the same, where the child would wait,
/// and where it would poll again after others.
#[test]
fn a_future_that_forks_is_told() {
    if alone("a_future_that_forks_is_told") {
        return;
    }
    static RAN: AtomicBool = AtomicBool::new(false);
    fn forks(wakes_itself: bool) {
        let mut child = None;
        let told = panics(|| {
            block_on(poll_fn(|cx| {
                let forked = *child.get_or_insert_with(|| {
                    // SAFETY: as in `forked`.
                    let pid = unsafe { libc::fork() };
                    if pid == 0 {
                        // SAFETY: without preconditions.
                        unsafe { libc::alarm(10) };
                    }
                    pid
                });
                if wakes_itself {
                    cx.waker().wake_by_ref();
                }
                if forked == 0 { Poll::Pending } else { Poll::Ready(()) }
            }));
        });
        let pid = child.unwrap();
        if pid == 0 {
            // SAFETY: runs nothing of the program's any more.
            unsafe { libc::_exit(i32::from(!told) + 2 * i32::from(RAN.load(SeqCst))) };
        }
        assert!(pid > 0);
        let mut status = 0;
        // SAFETY: the child is ours, and the pointer is valid.
        while unsafe { libc::waitpid(pid, &raw mut status, 0) } != pid {}
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "wakes itself: {wakes_itself}, {status:#x}");
    }
    go(|| ()).join().unwrap();
    for wakes_itself in [false, true] {
        forks(wakes_itself);
        rt(1, || {
            RAN.store(false, SeqCst);
            // Ready, and its turn comes with the first switch.
            let other = go(|| RAN.store(true, SeqCst));
            forks(wakes_itself);
            assert!(!RAN.load(SeqCst), "it had its turn too early for this test");
            other.join().unwrap();
            RAN.store(false, SeqCst);
        });
    }
    process::exit(0);
}

/// What a child drops stays registered for the parent, which shares the poller.
#[test]
fn a_forked_child_takes_nothing_from_its_parent() {
    if alone("a_forked_child_takes_nothing_from_its_parent") {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_deadline(Some(Instant::now() + Duration::from_millis(5))).unwrap();
    listener.accept().unwrap_err();
    listener.set_deadline(Some(Instant::now() + Duration::from_secs(30))).unwrap();
    let mut listener = Some(listener);
    let code = forked(|| {
        drop(listener.take());
        0
    });
    assert_eq!(code, 0);
    let listener = listener.unwrap();
    let accepts = go(move || listener.accept().map(drop));
    std::thread::sleep(Duration::from_millis(20));
    let _client = std::net::TcpStream::connect(address).unwrap();
    accepts.join().unwrap().unwrap();
}

/// SIGQUIT that is sent to a child ends the child: the pipe by which the signal is told of is the parent's as well.
#[test]
fn sg_03_sigquit_of_a_forked_child_leaves_its_parent_alone() {
    if alone("sg_03_sigquit_of_a_forked_child_leaves_its_parent_alone") {
        return;
    }
    assert_eq!(go(|| 1).join().unwrap(), 1);
    let code = forked(|| {
        // SAFETY: without preconditions.
        unsafe { libc::raise(libc::SIGQUIT) };
        7
    });
    assert_eq!(code, -libc::SIGQUIT);
    // The thread that would print the dump has had its time.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(go(|| 2).join().unwrap(), 2);
}

/// Whoever forks before anything was started has a whole process.
#[test]
fn a_fork_before_the_first_runtime_is_none_of_our_affairs() {
    if alone("a_fork_before_the_first_runtime_is_none_of_our_affairs") {
        return;
    }
    static DONE: AtomicUsize = AtomicUsize::new(0);
    let code = forked(|| {
        oxigo::run(|| {
            let tasks = WaitGroup::new();
            (0..5).for_each(|_| {
                tasks.go(|| {
                    DONE.fetch_add(1, SeqCst);
                });
            });
            tasks.wait();
        });
        DONE.load(SeqCst) as i32
    });
    assert_eq!(code, 5);
    assert_eq!(oxigo::run(|| 6), 6);
}

/// fork followed by exec, as `Command` does it when it has to run something in between.
#[test]
fn a_fork_followed_by_exec_works() {
    use std::os::unix::process::CommandExt;
    rt(2, || {
        let mut command = process::Command::new("echo");
        // SAFETY: nothing is done.
        unsafe { command.arg("executed").pre_exec(|| Ok(())) };
        let output = oxigo::blocking(|| command.output()).unwrap();
        assert_eq!(output.stdout, b"executed\n");
    });
}
