//! What the system refuses, for a moment or for good: system calls behind a filter, descriptors where the table is full. Each test is a process of its
//! own.
#![cfg(target_os = "linux")]

mod common;
#[path = "common/filter.rs"]
mod filter;

use std::{
    error::Error,
    fs as std_fs,
    io::{self as std_io, ErrorKind, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    panic, process,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use common::{alone, child, closed_world, deadlock_told, full_table, is_child, rt, stderr, wait_for_ever};
use oxigo::{
    Deadlock, Runtime, bounded, debug, fs, go, io,
    net::{TcpListener, TcpStream, unix::UnixStream},
    process::Command,
    unbuffered,
};
use rustix::process::{Resource, Rlimit, Signal, getpid, getrlimit, kill_process, setrlimit};

/// The report took a descriptor to be written, and the process ended with status 2 and without a word.
#[test]
fn a_deadlock_is_told_though_the_table_of_descriptors_is_full() {
    deadlock_told("a_deadlock_is_told_though_the_table_of_descriptors_is_full", || {
        let runtime = closed_world();
        let _full = full_table();
        runtime.run(wait_for_ever);
    });
}

#[test]
fn a_dump_is_written_though_the_table_of_descriptors_is_full() {
    const NAME: &str = "a_dump_is_written_though_the_table_of_descriptors_is_full";
    if is_child(NAME) {
        let runtime = Runtime::builder().workers(1).build().unwrap();
        let _full = full_table();
        return runtime.run(|| {
            let (_tx, rx) = unbuffered::<()>();
            kill_process(getpid(), Signal::QUIT).unwrap();
            let _ = rx.recv_timeout(Duration::from_secs(60));
        });
    }
    let output = child(NAME);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("SIGQUIT: quit\n\ngoroutine "), "{}", stderr(&output));
}

/// Whoever shares the pipe that standard error is may have made it one that does not block: then what did not fit was lost.
#[test]
fn a_report_is_whole_on_a_standard_error_that_does_not_block() {
    const NAME: &str = "a_report_is_whole_on_a_standard_error_that_does_not_block";
    if is_child(NAME) {
        rustix::io::ioctl_fionbio(std_io::stderr(), true).unwrap();
        let runtime = Runtime::builder().workers(1).deadlock(Deadlock::ClosedWorld).build().unwrap();
        return runtime.run(|| {
            let (_tx, rx) = unbuffered::<()>();
            for n in 0..2000 {
                let rx = rx.clone();
                let name = format!("one of many {n:0100}");
                drop(oxigo::Builder::new().name(name).spawn(move || rx.recv().is_ok()).unwrap());
            }
            let _ = rx.recv();
        });
    }
    let output = child(NAME);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    for n in 0..2000 {
        assert!(stderr(&output).contains(&format!("[one of many {n:0100}]")), "{n}");
    }
}

/// A copy takes a pipe of its own if there is one to be had; where there was none it failed, though a buffer does as well.
#[test]
fn a_copy_needs_no_room_in_the_table_of_descriptors() {
    alone("a_copy_needs_no_room_in_the_table_of_descriptors", || {
        rt(1, || {
            let ((near, mut far), (mut reader, writer)) = (UnixStream::pair().unwrap(), io::pipe().unwrap());
            far.write_all(b"passed on").unwrap();
            drop(far);
            let full = full_table();
            assert_eq!(io::copy(&near, &writer).unwrap(), 9);
            drop((full, writer));
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            assert_eq!(text, "passed on");
        });
    });
}

/// Filters most often answer with `EPERM`.
#[test]
fn a_copy_goes_through_a_buffer_where_a_filter_refuses_the_calls() {
    alone("a_copy_goes_through_a_buffer_where_a_filter_refuses_the_calls", || {
        for error in [libc::EPERM, libc::EACCES, libc::ENOSYS] {
            thread::spawn(move || filtered_copy(error)).join().unwrap();
        }
    });
}

fn filtered_copy(error: i32) {
    filter::refuse_here(&[(libc::SYS_splice, error), (libc::SYS_sendfile, error)]);
    let ((near, mut far), (mut reader, writer)) = (UnixStream::pair().unwrap(), io::pipe().unwrap());
    far.write_all(b"passed on").unwrap();
    drop(far);
    assert_eq!(io::copy(&near, &writer).unwrap(), 9);
    // All of it has room in the pipe.
    let manifest = fs::read("Cargo.toml").unwrap();
    assert_eq!(io::copy(&fs::File::open("Cargo.toml").unwrap(), &writer).unwrap(), manifest.len() as u64);
    drop(writer);
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    assert_eq!((&bytes[..9], &bytes[9..]), (&b"passed on"[..], &manifest[..]));
}

/// The system says of a descriptor that cannot be watched that no space is left on a device.
#[test]
fn the_limit_of_watched_descriptors_is_named() {
    // The crate that polls elsewhere says what the system says.
    if cfg!(oxigo_fallback) {
        return;
    }
    alone("the_limit_of_watched_descriptors_is_named", || {
        rt(1, || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let (near, mut far) = UnixStream::pair().unwrap();
            filter::refuse_everywhere(&[(libc::SYS_epoll_ctl, libc::ENOSPC)]);
            let told = |error: std_io::Error| {
                assert_eq!(error.kind(), ErrorKind::OutOfMemory);
                assert!(error.to_string().contains("fs.epoll.max_user_watches"), "{error}");
                let source = error.source().and_then(|source| source.downcast_ref::<std_io::Error>());
                assert_eq!(source.and_then(std_io::Error::raw_os_error), Some(libc::ENOSPC));
            };
            told((&near).read(&mut [0]).unwrap_err());
            let refused = Runtime::builder().workers(2).build().unwrap_err();
            assert!(refused.to_string().contains("fs.epoll.max_user_watches"), "{refused}");
            let begin = Instant::now();
            told(listener.accept().unwrap_err());
            assert!(begin.elapsed() >= Duration::from_millis(10), "a loop that tries again would spin");
            // What need not wait is done.
            far.write_all(&[7]).unwrap();
            let mut byte = [0];
            (&near).read_exact(&mut byte).unwrap();
            assert_eq!(byte, [7]);
            let _queued = std::net::TcpStream::connect(address).unwrap();
            drop::<TcpStream>(listener.accept().unwrap().0);
        });
    });
}

/// A call for which no thread could be started waited until one of the others had ended, though there was room for a thread again.
#[test]
fn a_blocking_call_does_not_wait_for_another_when_threads_can_be_had_again() {
    alone("a_blocking_call_does_not_wait_for_another_when_threads_can_be_had_again", || {
        rt(1, || {
            let (goes_on, ends) = mpsc::channel::<()>();
            let ((begun, has_begun), (done, is_done)) = (bounded(1), bounded(1));
            let first = go(move || {
                oxigo::blocking(move || {
                    begun.send(()).unwrap();
                    ends.recv().unwrap();
                });
            });
            has_begun.recv().unwrap();
            let before = getrlimit(Resource::As);
            let pages = std_fs::read_to_string("/proc/self/statm").unwrap();
            let now = pages.split(' ').next().unwrap().parse::<u64>().unwrap() * rustix::param::page_size() as u64;
            setrlimit(Resource::As, Rlimit { current: Some(now + (1 << 20)), maximum: before.maximum }).unwrap();
            let second = go(move || {
                oxigo::blocking(|| ());
                done.send(()).unwrap();
            });
            // On one worker: it waits now.
            oxigo::yield_now();
            assert!(is_done.recv_timeout(Duration::from_millis(50)).is_err(), "there was a thread for it");
            setrlimit(Resource::As, before).unwrap();
            is_done.recv_timeout(Duration::from_secs(30)).expect("no thread was started for it");
            goes_on.send(()).unwrap();
            first.join().unwrap();
            second.join().unwrap();
        });
    });
}

/// Threads of ours block the signal that comes with the error. It stayed pending, and ended the process when that thread started another one.
#[test]
fn a_write_that_was_refused_does_not_end_the_process_later() {
    alone("a_write_that_was_refused_does_not_end_the_process_later", || {
        // SAFETY: an action that needs nothing.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        rt(1, || {
            let (reader, writer) = std_io::pipe().unwrap();
            drop(reader);
            let refused =
                fs::File::from(std_fs::File::from(OwnedFd::from(writer))).write_all(b"to nobody").unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::BrokenPipe);
            assert!(Command::new("true").status().unwrap().success());

            let path = std::env::temp_dir().join(format!("oxigo-refusals-{}", std::process::id()));
            let before = getrlimit(Resource::Fsize);
            setrlimit(Resource::Fsize, Rlimit { current: Some(1 << 16), maximum: before.maximum }).unwrap();
            let refused = fs::write(&path, vec![0; 1 << 20]).unwrap_err();
            setrlimit(Resource::Fsize, before).unwrap();
            std_fs::remove_file(path).unwrap();
            assert_eq!(refused.kind(), ErrorKind::FileTooLarge);
            assert!(Command::new("true").status().unwrap().success());
        });
    });
}

/// Each thread that could not have its signal stack left the memory for it behind.
#[test]
fn a_signal_stack_that_is_refused_is_given_back() {
    alone("a_signal_stack_that_is_refused_is_given_back", || {
        filter::refuse_here(&[(libc::SYS_sigaltstack, libc::ENOMEM)]);
        (0..50).for_each(|_| {
            let runtime = Runtime::builder().workers(4).build().unwrap();
            runtime.run(|| ());
        });
        // Workers end by themselves. Those of one runtime may be at work still.
        let begin = Instant::now();
        while std_fs::read_dir("/proc/self/task").unwrap().count() > 10 && begin.elapsed() < Duration::from_secs(30) {
            thread::yield_now();
        }
        let maps = std_fs::read_to_string("/proc/self/maps").unwrap();
        let number = |text: &str| usize::from_str_radix(text, 16).unwrap();
        let is_left = |line: &&str| {
            let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
            number(end) - number(start) == 64 << 10 && line.contains(" rw-p ")
        };
        let left = maps.lines().filter(is_left).count();
        assert!(left < 50, "{left} of 200 are left");
    });
}

/// A trace that does not fit on the disk says which file it was.
#[test]
fn a_trace_that_cannot_be_written_names_its_file() {
    alone("a_trace_that_cannot_be_written_names_its_file", || {
        debug::trace::start("/dev/full").unwrap();
        rt(2, || (0..10_000).for_each(|_| go(|| ()).join().unwrap()));
        let error = debug::trace::stop().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert!(error.to_string().starts_with("/dev/full: "), "{error}");
    });
}

/// A lock that leaned to a worker needs a system call to be had by others. If that is refused all at once, and standard error is a pipe that nobody
/// reads, the words about it unwound from the middle of the operation.
#[test]
fn a_lock_that_is_not_to_be_had_ends_the_process_though_nobody_hears_of_it() {
    const NAME: &str = "a_lock_that_is_not_to_be_had_ends_the_process_though_nobody_hears_of_it";
    const UNWOUND: i32 = 3;
    const PRIVATE_EXPEDITED: libc::c_long = 8;
    // SAFETY: asks for numbers.
    let commands = unsafe { libc::syscall(libc::SYS_membarrier, 0, 0) };
    if cfg!(oxigo_fallback) || commands < 0 || commands & PRIVATE_EXPEDITED == 0 {
        // No lock leans.
        return;
    }
    if is_child(NAME) {
        let (tx, rx) = bounded(1);
        rt(1, || {
            for _ in 0..100 {
                tx.send(()).unwrap();
                rx.recv().unwrap();
            }
        });
        filter::refuse_everywhere(&[(libc::SYS_membarrier, libc::EPERM)]);
        let (_, unheard) = std_io::pipe().unwrap();
        // SAFETY: replaces standard error, which is everybody's, by another file.
        assert_eq!(unsafe { libc::dup2(unheard.as_raw_fd(), 2) }, 2);
        let outcome = panic::catch_unwind(|| tx.try_send(()));
        process::exit(if outcome.is_err() { UNWOUND } else { 0 });
    }
    let status = child(NAME).status;
    assert_eq!(status.signal(), Some(libc::SIGABRT), "{status}");
}
