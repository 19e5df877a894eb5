//! Groups NT and PI: `close` gives back what the system has, though handles live, and no handle meets what others open after that.

mod common;
#[path = "common/tcp.rs"]
mod tcp;

use std::{
    fmt::Debug,
    io::{ErrorKind, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net as std_unix,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use common::{at_1_2_4, child, everywhere, is_child, rt, stderr};
use oxigo::{
    context::Context,
    go,
    io::{PipeReader, PipeWriter, pipe},
    net::{
        Shutdown, TcpListener, TcpStream, UdpSocket,
        unix::{UnixDatagram, UnixListener, UnixStream},
    },
    scope, time,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tcp::until_parked;

/// Ends a test that fails.
const LONG: Option<Duration> = Some(Duration::from_secs(20));
const MS: Duration = Duration::from_millis(1);

fn udp() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

fn pipe_with_limits() -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    reader.set_read_timeout(LONG).unwrap();
    writer.set_write_timeout(LONG).unwrap();
    (reader, writer)
}

#[track_caller]
fn is_closed<T: Debug>(result: std::io::Result<T>) {
    let error = result.unwrap_err();
    assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::NotConnected, "operation on a closed socket or pipe"));
}

#[track_caller]
fn is_listener_closed<T: Debug>(result: std::io::Result<T>) {
    let error = result.unwrap_err();
    assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::NotConnected, "listener closed"));
}

#[track_caller]
fn ends<T: Debug + PartialEq>(result: std::io::Result<T>, expected: T) {
    assert_eq!(result.expect("the end, not a time-out"), expected);
}

/// It waited for ever: the system kept the end that was closed until its last handle was dropped.
#[test]
fn nt_28_closing_one_end_of_an_os_pipe_is_the_end_for_the_other() {
    everywhere(|| {
        let (reader, writer) = pipe_with_limits();
        (&writer).write_all(b"all of it").unwrap();
        writer.close().unwrap();
        let mut text = String::new();
        ends((&reader).read_to_string(&mut text), 9);
        assert_eq!(text, "all of it");
        drop(writer);

        let (reader, writer) = pipe_with_limits();
        let (writer, clone) = (Arc::new(writer.try_clone().unwrap()), writer);
        let other = Arc::clone(&writer);
        let closes = go(move || other.close());
        ends((&reader).read(&mut [0]), 0);
        closes.join().unwrap().unwrap();
        is_closed(clone.close());

        let (reader, writer) = pipe_with_limits();
        reader.close().unwrap();
        assert_eq!((&writer).write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        is_closed((&reader).read(&mut [0]));
    });
}

/// The other end waits already, wherever: it has been registered with its poller, and so has the one that is closed, where others wait.
#[test]
fn nt_28_closing_one_end_of_an_os_pipe_wakes_those_at_the_other() {
    at_1_2_4(|| {
        let (reader, writer) = pipe_with_limits();
        scope(|s| {
            // Of these one writes too much, the others wait for their turns.
            let writes: Vec<_> = (0..3).map(|_| s.go(|| (&writer).write_all(&vec![7; 1 << 20]))).collect();
            let mut some = vec![0; 1 << 17];
            (&reader).read_exact(&mut some).unwrap();
            let rest = s.go(|| (&reader).read_to_end(&mut Vec::new()));
            writer.close().unwrap();
            writes.into_iter().for_each(|waiting| is_closed(waiting.join().unwrap()));
            assert!(rest.join().unwrap().expect("the end") < 3 << 20);
        });

        let (reader, writer) = pipe_with_limits();
        thread::scope(|threads| {
            scope(|s| {
                let reads: Vec<_> = (0..3).map(|_| s.go(|| (&reader).read(&mut [0]))).collect();
                let thread = threads.spawn(|| (&reader).read(&mut [0]));
                let ready = s.go(|| reader.readable());
                writer.writable().unwrap();
                time::sleep(5 * MS);
                writer.close().unwrap();
                reads.into_iter().for_each(|waiting| ends(waiting.join().unwrap(), 0));
                ends(oxigo::blocking(|| thread.join().unwrap()), 0);
                ready.join().unwrap().unwrap();
            });
        });

        let (reader, writer) = pipe_with_limits();
        scope(|s| {
            let writes = s.go(|| (&writer).write_all(&vec![7; 1 << 20]));
            let reads = s.go(|| {
                // Takes what there is and waits.
                let mut all = Vec::new();
                let error = (&reader).read_to_end(&mut all).unwrap_err();
                (all.len(), error)
            });
            time::sleep(5 * MS);
            reader.close().unwrap();
            let (_, error) = reads.join().unwrap();
            is_closed::<()>(Err(error));
            let written = writes.join().unwrap();
            assert!(written.is_ok() || written.unwrap_err().kind() == ErrorKind::BrokenPipe);
        });
    });
}

/// What a large write tells when it is closed is what comes out at the other end, and that is at an end then.
#[test]
fn nt_28_a_write_that_is_closed_tells_how_far_it_came() {
    let pattern: Vec<u8> = (0..1_usize << 20).map(|n| (n % 251) as u8).collect();
    at_1_2_4(|| {
        for round in 0..30 {
            let (reader, writer) = pipe_with_limits();
            scope(|s| {
                let writes = s.go(|| (&writer).write(&pattern));
                let reads = s.go(|| {
                    let mut all = Vec::new();
                    (&reader).read_to_end(&mut all).map(|_| all)
                });
                (0..round).for_each(|_| oxigo::yield_now());
                writer.close().unwrap();
                let all = reads.join().unwrap().expect("the end");
                match writes.join().unwrap() {
                    Ok(written) => assert_eq!(written, all.len()),
                    Err(error) => {
                        is_closed::<()>(Err(error));
                        assert_eq!(all.len(), 0);
                    }
                }
                assert!(all == pattern[..all.len()]);
            });
        }
    });
}

/// It was refused: the address was in use until the last handle was dropped.
#[test]
fn nt_19_the_address_of_a_udp_socket_is_free_after_its_close() {
    everywhere(|| {
        let first = udp();
        let address = first.local_addr().unwrap();
        let clone = first.try_clone().unwrap();
        let waiting = go(move || clone.recv(&mut [0; 8]));
        // A try that is under way keeps the socket for its moment.
        until_parked(&waiting);
        first.close().unwrap();
        let second = UdpSocket::bind(address).unwrap();
        is_closed(waiting.join().unwrap());
        // Which it had can be asked for, and who is there now is another.
        assert_eq!(first.local_addr().unwrap(), address);
        udp().send_to(b"new", address).unwrap();
        second.set_read_timeout(LONG).unwrap();
        assert_eq!(second.recv(&mut [0; 8]).unwrap(), 3);
        is_closed(first.recv(&mut [0; 8]));
        second.close().unwrap();
        UdpSocket::bind(first.local_addr().unwrap()).unwrap();
    });
}

/// As of UDP. Names outside the file system live as long as their sockets.
#[test]
#[cfg(target_os = "linux")]
fn nt_19_an_abstract_name_is_free_after_the_close() {
    use std::os::linux::net::SocketAddrExt;
    let name = |what: &str| std_unix::SocketAddr::from_abstract_name(format!("oxigo-{what}-{}", std::process::id()));
    let (packets, connections) = (name("packets").unwrap(), name("connections").unwrap());
    at_1_2_4(|| {
        let (sockets, listeners) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let mut old = Vec::new();
        for _ in 0..3 {
            let socket = UnixDatagram::bind_addr(&packets).unwrap();
            let sender = UnixDatagram::unbound().unwrap();
            sender.send_to_addr(b"x", &packets).unwrap();
            sockets.fetch_add(socket.recv(&mut [0; 8]).unwrap(), SeqCst);
            socket.close().unwrap();
            assert_eq!(sender.send_to_addr(b"x", &packets).unwrap_err().kind(), ErrorKind::ConnectionRefused);

            let listener = UnixListener::bind_addr(&connections).unwrap();
            UnixStream::connect_addr(&connections).unwrap();
            listener.accept().unwrap();
            listeners.fetch_add(1, SeqCst);
            listener.close().unwrap();
            assert_eq!(UnixStream::connect_addr(&connections).unwrap_err().kind(), ErrorKind::ConnectionRefused);
            assert_eq!(listener.local_addr().unwrap().as_abstract_name(), connections.as_abstract_name());
            old.push((socket, listener));
        }
        assert_eq!((sockets.into_inner(), listeners.into_inner()), (3, 3));
    });
}

/// Whoever was not accepted in time waited for ever.
#[test]
fn nt_02_those_who_wait_to_be_accepted_are_told_of_the_close() {
    let path = std::env::temp_dir().join(format!("oxigo-test-close-{}", std::process::id()));
    at_1_2_4(|| {
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let clone = listener.try_clone().unwrap();
        let waiting = UnixStream::connect(&path).unwrap();
        waiting.set_read_timeout(LONG).unwrap();
        listener.close().unwrap();
        let heard = (&waiting).read(&mut [0]);
        assert!(matches!(&heard, Ok(0)) || heard.unwrap_err().kind() == ErrorKind::ConnectionReset);
        is_listener_closed(clone.accept());
        is_listener_closed(clone.close());

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let waiting = TcpStream::connect(address).unwrap();
        waiting.set_read_timeout(LONG).unwrap();
        listener.close().unwrap();
        assert_eq!((&waiting).read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        TcpListener::bind(address).unwrap();
        assert_eq!(listener.local_addr().unwrap(), address);
        is_listener_closed(listener.ttl());
    });
    let _ = std::fs::remove_file(&path);
}

/// A loop that looks at something now and then, whenever its time limit has passed, would go round for ever.
#[test]
fn nt_02_a_close_comes_before_a_limit_that_has_passed() {
    everywhere(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_deadline(Some(Instant::now())).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::TimedOut);
        let (ctx, cancel) = Context::background().with_cancel();
        cancel.cancel();
        assert_eq!(listener.accept_ctx(&ctx).unwrap_err().kind(), ErrorKind::Other);
        listener.close().unwrap();
        is_listener_closed(listener.accept());
        is_listener_closed(listener.accept_ctx(&ctx));
        let told: Vec<_> = listener.incoming().collect();
        assert_eq!(told.len(), 1);
        told.into_iter().for_each(is_listener_closed);

        let (reader, _writer) = pipe().unwrap();
        reader.set_read_deadline(Some(Instant::now())).unwrap();
        reader.close().unwrap();
        is_closed((&reader).read(&mut [0]));
        is_closed(reader.with_ctx(&ctx).read(&mut [0]));
    });
}

/// What is closed by a socket's name stops in every hand that holds a duplicate; dropping it leaves theirs as it is.
#[test]
fn nt_04_duplicates_of_a_socket_are_stopped() {
    let to = udp();
    let address = to.local_addr().unwrap();
    for closes in [false, true] {
        let (socket, (near, _far)) = (udp(), UnixDatagram::pair().unwrap());
        let packets = std::net::UdpSocket::from(socket.as_fd().try_clone_to_owned().unwrap());
        let messages = std_unix::UnixDatagram::from(near.as_fd().try_clone_to_owned().unwrap());
        if closes {
            socket.close().unwrap();
            near.close().unwrap();
        } else {
            drop((socket, near));
        }
        assert_eq!(packets.send_to(b"x", address).is_err(), closes);
        assert_eq!(messages.send(b"x").is_err(), closes);
    }
}

#[test]
fn nt_02_the_peer_of_a_datagram_pair_is_told_of_the_close() {
    at_1_2_4(|| {
        let (near, far) = UnixDatagram::pair().unwrap();
        far.set_write_timeout(LONG).unwrap();
        scope(|s| {
            let sends = s.go(|| std::iter::repeat_with(|| far.send(b"x")).find(Result::is_err).unwrap());
            near.readable().unwrap();
            time::sleep(MS);
            near.close().unwrap();
            let told = sends.join().unwrap().unwrap_err().kind();
            // The system has stopped it before it took it back.
            assert!(matches!(told, ErrorKind::ConnectionRefused | ErrorKind::BrokenPipe), "{told}");
        });
        let told = far.send(b"x").unwrap_err().kind();
        assert!(
            matches!(told, ErrorKind::ConnectionRefused | ErrorKind::NotConnected | ErrorKind::BrokenPipe),
            "{told}"
        );
    });
}

/// All that a handle can be asked for says that it is closed, but for its address.
#[test]
fn nt_03_every_operation_on_what_is_closed_fails() {
    everywhere(|| {
        let (socket, peer) = (udp(), udp());
        let to = peer.local_addr().unwrap();
        socket.connect(to).unwrap();
        socket.close().unwrap();
        let clone = socket.try_clone().unwrap();
        is_closed(socket.close());
        is_closed(clone.send(b"x"));
        is_closed(clone.send_to(b"x", to));
        is_closed(clone.recv(&mut [0]));
        is_closed(clone.peek_from(&mut [0]));
        is_closed(clone.readable());
        is_closed(clone.connect(to));
        is_closed(clone.peer_addr());
        is_closed(clone.ttl());
        is_closed(clone.set_broadcast(true));
        is_closed(clone.take_error());
        is_closed(clone.join_multicast_v4(&[224, 0, 0, 251].into(), &[127, 0, 0, 1].into()));
        assert!(format!("{clone:?}").starts_with("UdpSocket { addr: 127.0.0.1:"), "{clone:?}");
        is_closed(OwnedFd::try_from(clone).map_err(|error| {
            // One handle is left.
            assert_eq!(error.kind(), ErrorKind::ResourceBusy);
            std::net::UdpSocket::try_from(socket).unwrap_err()
        }));

        let (near, far) = UnixDatagram::pair().unwrap();
        near.close().unwrap();
        is_closed(near.send(b"x"));
        is_closed(near.send_to_addr(b"x", &far.local_addr().unwrap()));
        is_closed(near.connect("/nowhere"));
        is_closed(near.shutdown(Shutdown::Both));
        is_closed(near.peer_addr());
        assert!(near.local_addr().unwrap().is_unnamed());

        let (reader, writer) = pipe().unwrap();
        let (stream, _stream) = UnixStream::pair().unwrap();
        (&writer).write_all(b"x").unwrap();
        reader.close().unwrap();
        writer.close().unwrap();
        is_closed(oxigo::io::copy(&reader, &stream));
        is_closed(reader.readable());
        is_closed(writer.writable());
        is_closed((&writer).write_vectored(&[std::io::IoSlice::new(b"x")]));
        // Also what there is nothing to do for.
        is_closed((&reader).read(&mut []));
        is_closed((&reader).read_vectored(&mut []));
        is_closed((&writer).write(b""));
        is_closed((&writer).write_all(b""));
        is_closed(OwnedFd::try_from(reader));
        is_closed(std::io::PipeWriter::try_from(writer));
    });
}

/// Whoever has borrowed the descriptor of what is closed has a number that is open, of nobody else, and useless.
#[test]
fn nt_04_the_number_stays_taken_and_does_nothing() {
    rt(2, || {
        let (reader, writer) = pipe_with_limits();
        let socket = udp();
        let numbers = [reader.as_raw_fd(), writer.as_raw_fd(), socket.as_raw_fd()];
        let (borrowed, sends) = (reader.as_fd(), socket.as_fd());
        let duplicate = writer.as_fd().try_clone_to_owned().unwrap();
        reader.close().unwrap();
        socket.close().unwrap();
        assert_eq!(numbers, [reader.as_raw_fd(), writer.as_raw_fd(), socket.as_raw_fd()]);
        let others: Vec<_> = (0..64).map(|_| UnixStream::pair().unwrap()).collect();
        assert!(others.iter().all(|(a, b)| !numbers.contains(&a.as_raw_fd()) && !numbers.contains(&b.as_raw_fd())));
        assert_eq!(rustix::io::read(borrowed, &mut [0_u8]).unwrap_err(), rustix::io::Errno::BADF);
        assert!(rustix::net::send(sends, b"x", rustix::net::SendFlags::NOSIGNAL).is_err());
        assert!(borrowed.try_clone_to_owned().is_ok());

        // A duplicate that somebody has made keeps the system's object, as ever.
        let (reader, writer) = pipe_with_limits();
        let second = writer.as_fd().try_clone_to_owned().unwrap();
        writer.close().unwrap();
        reader.set_read_timeout(Some(5 * MS)).unwrap();
        assert_eq!((&reader).read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
        rustix::io::write(&second, b"still").unwrap();
        drop(second);
        let mut text = String::new();
        (&reader).read_to_string(&mut text).unwrap();
        assert_eq!(text, "still");
        drop(duplicate);
    });
}

/// Opens and closes files, in which only its own bytes may ever be found.
fn strangers(stop: &AtomicBool) {
    const OURS: &[u8] = b"of a stranger";
    while !stop.load(SeqCst) {
        let pipes: Vec<_> = (0..8).map(|_| std::io::pipe().unwrap()).collect();
        let (near, far) = std_unix::UnixDatagram::pair().unwrap();
        pipes.iter().for_each(|(_, writer)| (&mut &*writer).write_all(OURS).unwrap());
        near.send(OURS).unwrap();
        thread::yield_now();
        for (mut reader, writer) in pipes {
            drop(writer);
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            assert_eq!(all, OURS, "somebody has met the pipe of a stranger");
        }
        let mut packet = [0; 64];
        assert_eq!(far.recv(&mut packet).unwrap(), OURS.len(), "somebody has met the socket of a stranger");
        far.set_nonblocking(true).unwrap();
        assert_eq!(far.recv(&mut packet).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

/// A pipe of which one end is closed, a socket and a listener, which all its parts use at the same time.
struct Race {
    closes_writer: bool,
    /// How often those who close let others go first.
    patience: usize,
    pipe: (PipeReader, PipeWriter),
    socket: UdpSocket,
    peer: UdpSocket,
    listener: TcpListener,
    /// How many of the closes have done it.
    closed: AtomicUsize,
}

const BYTE: u8 = 0x11;
const PACKET: &[u8] = b"of a peer";

impl Race {
    fn new(n: usize) -> Self {
        let (socket, peer) = (udp(), udp());
        socket.set_read_timeout(LONG).unwrap();
        Self {
            closes_writer: n.is_multiple_of(2),
            patience: n % 7,
            pipe: pipe_with_limits(),
            socket,
            peer,
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            closed: AtomicUsize::new(0),
        }
    }

    const PARTS: [fn(&Self); 9] = [
        Self::reads,
        Self::writes,
        Self::writes_slices,
        Self::receives,
        Self::is_peer,
        Self::sends,
        Self::accepts,
        Self::closes,
        Self::closes,
    ];

    fn reads(&self) {
        let mut bytes = [0; 3000];
        loop {
            match (&self.pipe.0).read(&mut bytes) {
                Ok(0) => break assert!(self.closes_writer, "the writer is open"),
                Ok(count) => assert!(bytes[..count].iter().all(|byte| *byte == BYTE), "of somebody else"),
                Err(error) => break is_closed::<()>(Err(error)),
            }
        }
    }

    fn ends_by(&self, mut write: impl FnMut() -> std::io::Result<usize>) {
        match std::iter::repeat_with(|| write().inspect(|count| assert_ne!(*count, 0))).find_map(Result::err).unwrap() {
            error if error.kind() == ErrorKind::BrokenPipe => assert!(!self.closes_writer, "the reader is open"),
            error => is_closed::<()>(Err(error)),
        }
    }

    fn writes(&self) {
        self.ends_by(|| (&self.pipe.1).write(&[BYTE; 2000]));
    }

    fn writes_slices(&self) {
        let slice = std::io::IoSlice::new(&[BYTE; 2000]);
        self.ends_by(|| (&self.pipe.1).write_vectored(&[slice, slice]));
    }

    fn receives(&self) {
        let (mut packet, from) = ([0; 64], self.peer.local_addr().unwrap());
        let error = loop {
            match self.socket.recv_from(&mut packet) {
                Ok((length, sender)) => assert_eq!((&packet[..length], sender), (PACKET, from)),
                Err(error) => break error,
            }
        };
        is_closed::<()>(Err(error));
    }

    fn is_peer(&self) {
        while self.closed.load(SeqCst) == 0 {
            let _ = self.peer.send_to(PACKET, self.socket.local_addr().unwrap());
        }
    }

    fn sends(&self) {
        let (own, to) = (self.socket.local_addr().unwrap(), self.peer.local_addr().unwrap());
        is_closed(std::iter::repeat_with(|| self.socket.send_to(b"to a peer", to)).find(Result::is_err).unwrap());
        is_closed(std::iter::repeat_with(|| self.socket.ttl()).find(Result::is_err).unwrap());
        is_closed(self.socket.readable());
        assert_eq!(self.socket.local_addr().unwrap(), own);
    }

    fn accepts(&self) {
        is_listener_closed(self.listener.accept().map(drop));
        // Those who accept are told before the socket has gone.
        is_listener_closed(std::iter::repeat_with(|| self.listener.ttl()).find(Result::is_err).unwrap());
    }

    fn closes(&self) {
        (0..self.patience).for_each(|_| oxigo::yield_now());
        let pipe = if self.closes_writer { self.pipe.1.close() } else { self.pipe.0.close() };
        let closed = [pipe, self.socket.close(), self.listener.close()];
        self.closed.fetch_add(closed.iter().filter(|closed| closed.is_ok()).count(), SeqCst);
    }
}

/// Close races with all else, on goroutines and on threads, while others open and close files: each operation is of what it was called on, or
/// says that this is closed, and of two who close one is told that it did it.
#[test]
fn nt_04_no_operation_meets_the_file_of_a_stranger() {
    let stop = AtomicBool::new(false);
    thread::scope(|s| {
        let strangers: Vec<_> = (0..2).map(|_| s.spawn(|| strangers(&stop))).collect();
        let result = std::panic::catch_unwind(|| {
            rt(2, || {
                for n in 0..1000 {
                    let race = Race::new(n);
                    scope(|s| Race::PARTS.iter().for_each(|part| drop(s.go(|| part(&race)))));
                    assert_eq!(race.closed.into_inner(), 3);
                }
            });
            for n in 0..300 {
                let race = Race::new(n);
                thread::scope(|s| Race::PARTS.iter().for_each(|part| drop(s.spawn(|| part(&race)))));
                assert_eq!(race.closed.into_inner(), 3);
            }
        });
        stop.store(true, SeqCst);
        strangers.into_iter().for_each(|stranger| stranger.join().unwrap());
        result.unwrap();
    });
}

/// The first try of an operation, and what it does when it finds that it has to wait, at each moment of a close.
#[test]
fn nt_01_a_close_at_each_moment_of_a_beginning() {
    for round in 0..3000 {
        let (reader, _writer) = pipe_with_limits();
        let begun = AtomicBool::new(false);
        let begin = || {
            begun.store(true, SeqCst);
            match round % 3 {
                0 => is_closed(reader.readable()),
                1 => is_closed((&reader).read(&mut [0])),
                _ => is_closed((&reader).read_vectored(&mut [std::io::IoSliceMut::new(&mut [0])])),
            }
        };
        thread::scope(|s| {
            s.spawn(begin);
            while !begun.load(SeqCst) {
                std::hint::spin_loop();
            }
            (0..round / 3 % 200).for_each(|_| std::hint::spin_loop());
            reader.close().unwrap();
        });
    }
}

/// How many descriptors this process has: the fewest of several looks, since the clock thread may have one open for a moment.
fn descriptors() -> usize {
    let table = if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" };
    let look = |_| {
        time::sleep(MS);
        std::fs::read_dir(table).unwrap().count()
    };
    (0..20).map(look).min().unwrap()
}

/// Descriptors are counted: alone in its process.
#[test]
fn nt_04_no_descriptor_is_left_by_a_close() {
    const NAME: &str = "nt_04_no_descriptor_is_left_by_a_close";
    if !is_child(NAME) {
        let output = child(NAME);
        assert!(output.status.success(), "{}", stderr(&output));
        return;
    }
    rt(2, || {
        drop(udp());
        let before = descriptors();
        for n in 0..100 {
            let (reader, writer) = pipe().unwrap();
            let (socket, listener) = (udp(), TcpListener::bind("127.0.0.1:0").unwrap());
            let handles = (reader.try_clone().unwrap(), socket.try_clone().unwrap(), listener.try_clone().unwrap());
            scope(|s| {
                s.go(|| (&reader).read(&mut [0]));
                s.go(|| socket.recv(&mut [0]));
                s.go(|| listener.accept());
                (0..n % 3).for_each(|_| oxigo::yield_now());
                reader.close().unwrap();
                socket.close().unwrap();
                listener.close().unwrap();
                if n % 2 == 0 {
                    writer.close().unwrap();
                }
            });
            drop(handles);
        }
        assert_eq!(descriptors(), before);
    });
    std::process::exit(0);
}

fn limit_to(descriptors: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(descriptors), maximum }).unwrap();
}

/// What takes the place is there before the table is full. Where the limit is below the number, the last handle's drop does it.
#[test]
fn nt_04_closing_at_the_limit_of_descriptors() {
    const NAME: &str = "nt_04_closing_at_the_limit_of_descriptors";
    if !is_child(NAME) {
        let output = child(NAME);
        assert!(output.status.success(), "{}", stderr(&output));
        return;
    }
    rt(2, || {
        let (reader, writer) = pipe_with_limits();
        let (second, late) = pipe_with_limits();
        let socket = udp();
        let address = socket.local_addr().unwrap();
        limit_to(late.as_raw_fd().max(socket.as_raw_fd()) as u64 + 20);
        let mut hoard = Vec::new();
        for _ in 0..20 {
            while let Ok(fd) = socket.as_fd().try_clone_to_owned() {
                hoard.push(fd);
            }
            time::sleep(MS);
        }
        writer.close().unwrap();
        ends((&reader).read(&mut [0]), 0);
        // Duplicates of it are in the hoard: it is closed by name only.
        socket.close().unwrap();
        assert_eq!(UdpSocket::bind(address).unwrap_err().raw_os_error(), Some(libc::EMFILE));
        drop(hoard);
        UdpSocket::bind(address).unwrap();

        limit_to(late.as_raw_fd() as u64);
        late.close().unwrap();
        is_closed((&late).write(b"x"));
        second.set_read_timeout(Some(5 * MS)).unwrap();
        assert_eq!((&second).read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
        drop(late);
        ends((&second).read(&mut [0]), 0);
    });
    std::process::exit(0);
}
