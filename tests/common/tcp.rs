//! Connections over TCP, for the tests about them.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    io::{ErrorKind, Write},
    time::Duration,
};

use oxigo::{
    JoinHandle,
    net::{SocketAddr, TcpListener, TcpStream},
    time,
};

pub(crate) const MS: Duration = Duration::from_millis(1);
/// What must happen at once has happened after this long, on any machine.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(30);

pub(crate) fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Both ends of a connection.
pub(crate) fn pair() -> (TcpStream, TcpStream) {
    let (listener, address) = listen();
    let near = TcpStream::connect(address).unwrap();
    let (far, _) = listener.accept().unwrap();
    (near, far)
}

/// Both ends of a connection whose buffers do not grow.
pub(crate) fn narrow_pair() -> (TcpStream, TcpStream) {
    let (near, far) = pair();
    for stream in [&near, &far] {
        let socket = socket2::SockRef::from(stream);
        socket.set_send_buffer_size(32 << 10).unwrap();
        socket.set_recv_buffer_size(32 << 10).unwrap();
    }
    (near, far)
}

/// More than a narrow pair has room for, however the system packs it.
pub(crate) const TOO_MUCH: &[u8] = &[0; 4 << 20];

/// Writes until nothing more fits: what was written.
pub(crate) fn fill(stream: &TcpStream) -> usize {
    stream.set_write_timeout(Some(20 * MS)).unwrap();
    let block = [0x5A; 65536];
    let mut filled = 0;
    loop {
        match (&*stream).write(&block) {
            Ok(n) => filled += n,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::TimedOut);
                stream.set_write_timeout(None).unwrap();
                return filled;
            }
        }
    }
}

/// Waits, by a clock, until the goroutine is seen to wait in `operation`.
pub(crate) fn until_parked<T>(goroutine: &JoinHandle<T>) {
    // There is no public way to see it parked; on a busy machine this only makes the test weaker, never wrong.
    for _ in 0..20 {
        time::sleep(MS);
        assert!(!goroutine.is_finished(), "it should wait");
    }
}

pub(crate) fn kind<T>(result: std::io::Result<T>) -> ErrorKind {
    match result {
        Ok(_) => panic!("an error was expected"),
        Err(error) => error.kind(),
    }
}

pub(crate) const BIG: usize = 1 << 20;
