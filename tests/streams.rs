//! The conformance suite for streams, over TCP, Unix sockets and pipes in memory; and what is particular to the last.

mod common;
#[path = "common/streams.rs"]
mod streams;

use std::{
    fmt,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::Shutdown,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    time::Duration,
};

use common::{at_1_2_4, rt};
use oxigo::{
    go, io,
    net::{PipeStream, TcpListener, TcpStream, pipe, unix::UnixStream},
    scope, time, yield_now,
};
use streams::{conformance, noise, stream};

stream!(TcpStream);
stream!(UnixStream);
stream!(PipeStream);

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

fn unix_pair() -> (UnixStream, UnixStream) {
    UnixStream::pair().unwrap()
}

conformance!(tcp, crate::tcp_pair);
conformance!(unix, crate::unix_pair);
conformance!(memory, oxigo::net::pipe);

/// Lets others go on while it is being formatted.
struct Halting(char);

impl fmt::Display for Halting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        yield_now();
        write!(f, "{}", self.0)
    }
}

/// A format of several pieces is one write: the lines of goroutines that share a stream come out whole.
#[test]
fn nt_16_a_formatted_line_is_contiguous() {
    fn whole_lines<W, R: Read>(near: &W, far: R)
    where
        W: Sync,
        for<'a> &'a W: Write,
    {
        scope(|s| {
            for c in ['a', 'b', 'c'] {
                s.go(move || {
                    let mut near = near;
                    writeln!(near, "<{}{}>", Halting(c), Halting(c)).unwrap();
                });
            }
            let mut lines: Vec<_> = BufReader::new(far).lines().take(3).map(Result::unwrap).collect();
            lines.sort();
            assert_eq!(lines, ["<aa>", "<bb>", "<cc>"]);
        });
    }
    at_1_2_4(|| {
        let (near, far) = tcp_pair();
        whole_lines(&near, &far);
        let (near, far) = unix_pair();
        whole_lines(&near, &far);
        let (near, far) = pipe();
        whole_lines(&near, &far);
        let (reader, writer) = io::pipe().unwrap();
        whole_lines(&writer, &reader);
    });
}

/// A write ends when all its bytes have been read, not before.
#[test]
fn pi_01_a_write_waits_for_its_last_byte_to_be_read() {
    at_1_2_4(|| {
        let (mut near, mut far) = pipe();
        let ended = AtomicBool::new(false);
        scope(|s| {
            let writer = s.go(|| {
                near.write_all(b"abc").unwrap();
                ended.store(true, SeqCst);
            });
            for byte in b"ab" {
                let mut buf = [0];
                far.read_exact(&mut buf).unwrap();
                assert_eq!(buf[0], *byte);
                time::sleep(Duration::from_millis(2));
                assert!(!ended.load(SeqCst), "a byte is left");
            }
            far.read_exact(&mut [0]).unwrap();
            writer.join().unwrap();
        });
    });
}

/// What a write that timed out counts is what was read; the rest is taken back.
#[test]
fn pi_01_a_write_that_times_out_takes_the_rest_back() {
    at_1_2_4(|| {
        let (mut near, mut far) = pipe();
        near.set_write_timeout(Some(Duration::from_millis(10))).unwrap();
        scope(|s| {
            let reader = s.go(|| far.read_exact(&mut [0; 2]).unwrap());
            // The reader may come when the time is over.
            let written = loop {
                match near.write(b"abc") {
                    Err(error) if error.kind() == ErrorKind::TimedOut => {}
                    written => break written.unwrap(),
                }
            };
            assert_eq!(written, 2);
            reader.join().unwrap();
        });
        near.set_write_timeout(None).unwrap();
        scope(|s| {
            s.go(|| near.write_all(b"xyz").unwrap());
            let mut buf = [0; 3];
            far.read_exact(&mut buf).unwrap();
            assert_eq!(&buf, b"xyz");
        });
    });
}

#[test]
fn pi_02_closing() {
    at_1_2_4(|| {
        // Remote reads end, remote writes fail, those that wait too.
        let (near, far) = pipe();
        scope(|s| {
            let reader = s.go(|| (&near).read(&mut [0]));
            let writer = s.go(|| (&near).write(&[0]));
            go(move || drop(far)).join().unwrap();
            assert_eq!(reader.join().unwrap().unwrap(), 0);
            assert_eq!(writer.join().unwrap().unwrap_err().kind(), ErrorKind::BrokenPipe);
        });
        // Shutting down one's own reading has the peer's writes fail.
        let (near, mut far) = pipe();
        near.shutdown(Shutdown::Read).unwrap();
        assert_eq!(far.write(&[0]).unwrap_err().kind(), ErrorKind::BrokenPipe);
        // One handle of several is not the last.
        let clone = near.try_clone().unwrap();
        drop(near);
        scope(|s| {
            s.go(|| (&clone).write_all(b"on").unwrap());
            far.read_exact(&mut [0; 2]).unwrap();
        });
    });
}

#[test]
fn pi_03_writers_take_turns_and_errors_reach_the_peer() {
    at_1_2_4(|| {
        let (near, far) = pipe();
        scope(|s| {
            let writers: Vec<_> = (0..10_u8)
                .map(|mark| {
                    let near = &near;
                    s.go(move || (&*near).write_all(&[mark; 1000]).unwrap())
                })
                .collect();
            for _ in 0..10 {
                let mut buf = [0; 1000];
                (&far).read_exact(&mut buf).unwrap();
                assert!(buf.iter().all(|&b| b == buf[0]));
            }
            writers.into_iter().for_each(|writer| writer.join().unwrap());

            let reader = s.go(|| (&far).read(&mut [0]));
            time::sleep(Duration::from_millis(2));
            near.close_with("out of paper");
            // The first reason counts.
            near.close_with("too late");
            assert_eq!(reader.join().unwrap().unwrap_err().to_string(), "out of paper");
            assert_eq!((&far).write(&[0]).unwrap_err().to_string(), "out of paper");
            assert_eq!((&near).write(&[0]).unwrap_err().kind(), ErrorKind::BrokenPipe);
        });
    });
}

/// Streams in memory work from plain threads too.
#[test]
fn pi_01_works_between_a_goroutine_and_a_thread() {
    let (near, mut far) = pipe();
    let data = noise(100_000);
    let expected = data.clone();
    let thread = std::thread::spawn(move || (&near).write_all(&data).unwrap());
    let heard = rt(2, move || {
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).unwrap();
        heard
    });
    assert!(heard == expected);
    thread.join().unwrap();
}
