//! `io::copy` between all kinds of ends.

mod common;

use std::{
    env, fs,
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    os::fd::OwnedFd,
    process,
    time::{Duration, Instant},
};

use common::{at_1_2_4, rt};
use oxigo::{
    fs::File,
    io::{PipeWriter, copy, pipe},
    net::{TcpListener, TcpStream, unix::UnixStream},
    scope,
};

/// More than sockets and pipes hold.
fn data() -> Vec<u8> {
    (0..3_000_000_u32).map(|n| (n ^ (n >> 8)) as u8).collect()
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

#[test]
fn from_socket_to_socket_and_from_pipe_to_pipe() {
    at_1_2_4(|| {
        let data = data();
        let (tcp_in, tcp_out) = tcp_pair();
        let (unix_in, mut unix_out) = UnixStream::pair().unwrap();
        let heard = scope(|s| {
            s.go(|| {
                (&tcp_in).write_all(&data).unwrap();
                tcp_in.shutdown(Shutdown::Write).unwrap();
            });
            s.go(|| {
                assert_eq!(copy(&tcp_out, &unix_in).unwrap(), data.len() as u64);
                unix_in.shutdown(Shutdown::Write).unwrap();
            });
            let mut heard = Vec::new();
            unix_out.read_to_end(&mut heard).unwrap();
            heard
        });
        assert!(heard == data);

        let ((r1, w1), (mut r2, w2)) = (pipe().unwrap(), pipe().unwrap());
        let heard = scope(|s| {
            let data = &data;
            s.go(move || (&w1).write_all(data).unwrap());
            s.go(move || assert_eq!(copy(&r1, &w2).unwrap(), data.len() as u64));
            let mut heard = Vec::new();
            r2.read_to_end(&mut heard).unwrap();
            heard
        });
        assert!(heard == data);
    });
}

#[test]
fn from_and_to_files() {
    rt(2, || {
        let data = data();
        let path = |what: &str| env::temp_dir().join(format!("oxigo-test-copy-{}-{what}", process::id()));
        let (original, copied) = (path("a"), path("b"));
        fs::write(&original, &data).unwrap();
        let (near, far) = tcp_pair();
        scope(|s| {
            s.go(|| {
                let file = File::open(&original).unwrap();
                assert_eq!(copy(&file, &near).unwrap(), data.len() as u64);
                near.shutdown(Shutdown::Write).unwrap();
            });
            let file = File::create(&copied).unwrap();
            assert_eq!(copy(&far, &file).unwrap(), data.len() as u64);
        });
        assert!(fs::read(&copied).unwrap() == data);
        let (from, to) = (File::open(&copied).unwrap(), File::create(&original).unwrap());
        assert_eq!(copy(&from, &to).unwrap(), data.len() as u64);
        assert!(fs::read(&original).unwrap() == data);
        fs::remove_file(original).unwrap();
        fs::remove_file(copied).unwrap();
    });
}

/// The kernel splices to no file that is open for appending, and says so only when it has the first bytes.
#[test]
fn what_the_writer_does_not_take_from_the_kernel_is_not_lost() {
    at_1_2_4(|| {
        let path = env::temp_dir().join(format!("oxigo-test-copy-{}-c", process::id()));
        let _ = fs::remove_file(&path);
        let file = fs::OpenOptions::new().append(true).create(true).open(&path).unwrap();
        // As standard output is behind a shell's `>>`.
        let log = PipeWriter::try_from(std::io::PipeWriter::from(OwnedFd::from(file))).unwrap();
        let data = data();
        let (reader, writer) = pipe().unwrap();
        scope(|s| {
            s.go(|| {
                // An error when nobody reads it any more.
                let _ = { writer }.write_all(&data);
            });
            let copied = copy(&reader, &log);
            drop(reader);
            assert_eq!(copied.unwrap(), data.len() as u64);
        });
        assert!(fs::read(&path).unwrap() == data);
        fs::remove_file(path).unwrap();
    });
}

#[test]
fn time_limits_and_closed_ends() {
    at_1_2_4(|| {
        let (near, far) = tcp_pair();
        let (reader, writer) = pipe().unwrap();
        let begin = Instant::now();
        far.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        assert_eq!(copy(&far, &writer).unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(begin.elapsed() >= Duration::from_millis(10));
        (&near).write_all(b"for nobody").unwrap();
        drop(reader);
        assert_eq!(copy(&far, &writer).unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}
