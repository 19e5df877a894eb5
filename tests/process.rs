//! Processes whose waits and pipes park.

mod common;

use std::{
    io::{BufRead, BufReader, ErrorKind, Write},
    os::unix::process::ExitStatusExt,
    time::{Duration, Instant},
};

use common::{at_1_2_4, rt};
use oxigo::{
    go,
    process::{Command, Stdio},
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
    rt(2, || {
        let output = Command::new("grep").args(["SigBlk", "/proc/self/status"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.split_whitespace().last(), Some("0000000000000000"), "{text}");
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
        assert_eq!(child.wait().unwrap().signal(), Some(15));
    });
}
