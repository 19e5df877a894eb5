//! Rows RT-10 and RT-11: signals without end, at every thread of the process, in a child of its own.
#![cfg(target_os = "linux")]

mod common;

use std::{
    fs,
    io::{Read, Write},
    panic::{self, AssertUnwindSafe},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use common::{at_1_2_4, child, is_child, stderr};
use oxigo::{
    go,
    net::{TcpListener, TcpStream},
    time, unbuffered,
};

static HANDLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn handler(_: libc::c_int) {
    HANDLED.fetch_add(1, Relaxed);
}

/// Runs `body` in a child while every thread there gets signals, whose handler does not ask for calls to be restarted.
fn in_a_storm(name: &str, body: impl FnOnce()) {
    if !is_child(name) {
        let output = child(name);
        assert!(output.status.success(), "{}", stderr(&output));
        return;
    }
    // SAFETY: all zeros are a valid sigaction without flags.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the handler only counts.
    assert_eq!(unsafe { libc::sigaction(libc::SIGURG, &raw const action, std::ptr::null_mut()) }, 0);
    let process = std::process::id() as libc::pid_t;
    let stop = AtomicBool::new(false);
    let begin = Instant::now();
    thread::scope(|s| {
        s.spawn(|| {
            while !stop.load(Relaxed) {
                for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
                    let thread: libc::pid_t = task.file_name().to_str().unwrap().parse().unwrap();
                    // SAFETY: sends a signal that has a handler; a thread that has ended is an error that we do not mind.
                    unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGURG) };
                }
                thread::sleep(Duration::from_micros(200));
            }
        });
        // The body may be over before the storm's thread has had a core for long.
        while HANDLED.load(Relaxed) <= 100 && begin.elapsed() < Duration::from_secs(30) {
            thread::sleep(Duration::from_millis(1));
        }
        // A body that fails must end the storm too, since the scope waits for it.
        let result = panic::catch_unwind(AssertUnwindSafe(body));
        stop.store(true, Relaxed);
        result.unwrap_or_else(|payload| panic::resume_unwind(payload));
    });
    assert!(HANDLED.load(Relaxed) > 100, "a storm of {}", HANDLED.load(Relaxed));
    assert!(begin.elapsed() < Duration::from_secs(60));
}

/// Waits in every way that has a limit; each must take its time.
fn timed_waits() {
    const LIMIT: Duration = Duration::from_millis(30);
    let lasts = |what: &str, wait: &dyn Fn()| {
        let begin = Instant::now();
        wait();
        assert!(begin.elapsed() >= LIMIT, "{what} took {:?}", begin.elapsed());
    };
    let (tx, rx) = unbuffered::<()>();
    let lock = oxigo::sync::Mutex::new(());
    let held = lock.lock();
    let group = oxigo::WaitGroup::new();
    group.add(1);
    lasts("sleep", &|| time::sleep(LIMIT));
    lasts("recv_timeout", &|| assert!(rx.recv_timeout(LIMIT).is_err()));
    lasts("send_timeout", &|| assert!(tx.send_timeout((), LIMIT).is_err()));
    lasts("try_lock_for", &|| assert!(lock.try_lock_for(LIMIT).is_none()));
    lasts("wait_timeout", &|| assert!(!group.wait_timeout(LIMIT)));
    lasts("park_timeout", &|| {
        // std's may return early, and so may ours; nobody unparks here.
        let begin = Instant::now();
        while begin.elapsed() < LIMIT {
            oxigo::park_timeout(LIMIT.saturating_sub(begin.elapsed()));
        }
    });
    lasts("select", &|| {
        oxigo::select! {
            recv(rx) -> _ => unreachable!("nobody sends"),
            default(LIMIT) => {}
        }
    });
    lasts("after", &|| assert!(oxigo::chan::after(LIMIT).recv().is_ok()));
    drop(held);
}

#[test]
fn rt_10_timed_waits_take_their_time_in_a_storm_of_signals() {
    in_a_storm("rt_10_timed_waits_take_their_time_in_a_storm_of_signals", || {
        timed_waits();
        at_1_2_4(timed_waits);
        go(|| oxigo::blocking(|| thread::sleep(Duration::from_millis(30)))).join().unwrap();
    });
}

/// An echo of so many lines, and a new connection for every ten.
fn echo() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = go(move || {
        for _ in 0..10 {
            let (mut connection, _) = listener.accept().unwrap();
            go(move || std::io::copy(&mut connection.try_clone().unwrap(), &mut connection).unwrap());
        }
    });
    for _ in 0..10 {
        let mut connection = TcpStream::connect(address).unwrap();
        for round in 0..10_u8 {
            // More than goes into the buffers at once, now and then.
            let sent = vec![round; if round % 5 == 0 { 300_000 } else { 100 }];
            let mut writer = connection.try_clone().unwrap();
            let bytes = sent.clone();
            let writing = go(move || writer.write_all(&bytes).unwrap());
            let mut heard = vec![0; sent.len()];
            connection.read_exact(&mut heard).unwrap();
            assert!(heard == sent);
            writing.join().unwrap();
        }
    }
    server.join().unwrap();
}

#[test]
fn rt_11_reading_and_writing_go_on_in_a_storm_of_signals() {
    in_a_storm("rt_11_reading_and_writing_go_on_in_a_storm_of_signals", || {
        echo();
        at_1_2_4(echo);
        let path = std::env::temp_dir().join(format!("oxigo-storm-{}", std::process::id()));
        for _ in 0..20 {
            oxigo::fs::write(&path, vec![7; 200_000]).unwrap();
            assert_eq!(oxigo::fs::read(&path).unwrap().len(), 200_000);
        }
        fs::remove_file(path).unwrap();
    });
}
