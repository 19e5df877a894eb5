//! What the system refuses, for a moment or for good: system calls behind a filter, descriptors where the table is full. Each test is a process of its
//! own.
#![cfg(target_os = "linux")]

mod common;

use std::{fs as std_fs, io as std_io, time::Duration};

use common::{child, is_child, stderr};
use oxigo::{Deadlock, Runtime, unbuffered};
use rustix::process::{Resource, Rlimit, Signal, getpid, getrlimit, kill_process, setrlimit};

/// Fills the table of descriptors; it is full for as long as the result lives.
fn full_table() -> Vec<std_fs::File> {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(256), maximum: most }).unwrap();
    let files: Vec<_> = std::iter::from_fn(|| std_fs::File::open("/dev/null").ok()).collect();
    assert_eq!(std_fs::File::open("/dev/null").unwrap_err().raw_os_error(), Some(libc::EMFILE));
    files
}

/// The report took a descriptor to be written, and the process ended with status 2 and without a word.
#[test]
fn a_deadlock_is_told_though_the_table_of_descriptors_is_full() {
    const NAME: &str = "a_deadlock_is_told_though_the_table_of_descriptors_is_full";
    if is_child(NAME) {
        let runtime = Runtime::builder().workers(2).deadlock(Deadlock::ClosedWorld).build().unwrap();
        let _full = full_table();
        return runtime.run(|| {
            let (_tx, rx) = unbuffered::<()>();
            let _ = rx.recv();
        });
    }
    let output = child(NAME);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("all goroutines are asleep - deadlock!"), "{}", stderr(&output));
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
