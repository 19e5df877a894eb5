//! UDP, Unix datagrams, Unix listeners, and pipes of the operating system: what the stream suite does not reach.

mod common;

use std::{
    env, fs,
    io::{ErrorKind, Read, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    panic::{RefUnwindSafe, UnwindSafe},
    path::PathBuf,
    process::{self, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::{Duration, Instant},
};

use common::{at_1_2_4, rt, successes_of_two_threads};
use oxigo::{
    context::Context,
    go,
    io::pipe,
    net::{
        Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket,
        unix::{UnixDatagram, UnixListener, UnixStream},
    },
    scope, time,
};

/// A path that is free, and is freed again.
struct Path(PathBuf);

impl Path {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("oxigo-test-{}-{}", process::id(), COUNT.fetch_add(1, SeqCst));
        Self(env::temp_dir().join(name))
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn soon() -> Option<Instant> {
    Some(Instant::now() + Duration::from_millis(10))
}

fn udp() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

#[test]
fn nt_25_udp_echo() {
    at_1_2_4(|| {
        let (client, server) = (udp(), udp());
        let at = server.local_addr().unwrap();
        go(move || {
            let mut packet = [0; 64];
            for _ in 0..100 {
                let (length, from) = server.recv_from(&mut packet).unwrap();
                server.send_to(&packet[..length], from).unwrap();
            }
        });
        client.connect(at).unwrap();
        assert_eq!(client.peer_addr().unwrap(), at);
        for n in 0..100_u32 {
            assert_eq!(client.send(&n.to_le_bytes()).unwrap(), 4);
            let mut packet = [0; 64];
            assert_eq!(client.peek(&mut packet).unwrap(), 4);
            assert_eq!(client.recv(&mut packet).unwrap(), 4);
            assert_eq!(packet[..4], n.to_le_bytes());
        }
    });
}

#[test]
fn udp_keeps_the_borders_of_packets() {
    rt(1, || {
        let (near, far) = (udp(), udp());
        let to = far.local_addr().unwrap();
        for text in ["one", "", "three"] {
            near.send_to(text.as_bytes(), to).unwrap();
        }
        let mut packet = [0; 4];
        assert_eq!(far.peek_from(&mut packet).unwrap(), (3, near.local_addr().unwrap()));
        assert_eq!(far.recv_from(&mut packet).unwrap().0, 3);
        assert_eq!(far.recv_from(&mut packet).unwrap().0, 0);
        // What does not fit is lost.
        assert_eq!(far.recv_from(&mut packet).unwrap().0, 4);
        assert_eq!(&packet, b"thre");
        assert_eq!(near.send_to(b"", &[][..]).unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn nt_06_to_08_udp_time_limits() {
    at_1_2_4(|| {
        let (near, far) = (udp(), udp());
        // Past, even where a packet is there.
        near.send_to(b"here", far.local_addr().unwrap()).unwrap();
        far.set_read_deadline(Some(Instant::now())).unwrap();
        assert_eq!(far.recv_from(&mut [0; 4]).unwrap_err().kind(), ErrorKind::TimedOut);
        far.set_write_deadline(Some(Instant::now())).unwrap();
        let back = far.send_to(b"back", near.local_addr().unwrap());
        assert_eq!(back.unwrap_err().kind(), ErrorKind::TimedOut);
        far.set_read_deadline(None).unwrap();
        assert_eq!(far.recv_from(&mut [0; 4]).unwrap().0, 4);
        // A deadline acts on who waits, and for all handles.
        let clone = far.try_clone().unwrap();
        scope(|s| {
            let waiting = s.go(|| far.recv_from(&mut [0]));
            time::sleep(Duration::from_millis(5));
            clone.set_read_deadline(soon()).unwrap();
            assert_eq!(waiting.join().unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
        });
        far.set_read_deadline(None).unwrap();
        far.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let begin = Instant::now();
        assert_eq!(far.readable().unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(begin.elapsed() >= Duration::from_millis(5));
    });
}

#[test]
fn udp_options_and_conversions() {
    let socket = udp();
    socket.set_broadcast(true).unwrap();
    assert!(socket.broadcast().unwrap());
    socket.set_ttl(9).unwrap();
    assert_eq!(socket.ttl().unwrap(), 9);
    socket.set_multicast_loop_v4(false).unwrap();
    assert!(!socket.multicast_loop_v4().unwrap());
    let any = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    assert!(any.join_multicast_v4(&Ipv4Addr::LOCALHOST, &Ipv4Addr::UNSPECIFIED).is_err());
    let address = socket.local_addr().unwrap();
    let theirs = std::net::UdpSocket::try_from(socket).unwrap();
    assert_eq!(theirs.local_addr().unwrap(), address);
    theirs.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let begin = Instant::now();
    theirs.recv(&mut [0]).unwrap_err();
    assert!(begin.elapsed() >= Duration::from_millis(1), "it is blocking again");
    assert_eq!(UdpSocket::try_from(theirs).unwrap().local_addr().unwrap(), address);
}

#[test]
fn nt_25_unix_listener_serves_many() {
    at_1_2_4(|| {
        let path = Path::new();
        let listener = UnixListener::bind(&path.0).unwrap();
        assert_eq!(listener.local_addr().unwrap().as_pathname(), Some(&*path.0));
        go(move || {
            for connection in &listener {
                let mut connection = connection.unwrap();
                go(move || {
                    let mut text = String::new();
                    connection.read_to_string(&mut text).unwrap();
                    connection.write_all(text.to_uppercase().as_bytes()).unwrap();
                });
            }
        });
        let clients: Vec<_> = (0..50)
            .map(|n| {
                let path = path.0.clone();
                go(move || {
                    let mut stream = UnixStream::connect(path).unwrap();
                    write!(stream, "hello {n}").unwrap();
                    stream.shutdown(Shutdown::Write).unwrap();
                    let mut text = String::new();
                    stream.read_to_string(&mut text).unwrap();
                    assert_eq!(text, format!("HELLO {n}"));
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
}

#[test]
fn nt_01_closing_a_unix_listener_wakes_all_who_accept() {
    at_1_2_4(|| {
        let path = Path::new();
        let listener = UnixListener::bind(&path.0).unwrap();
        scope(|s| {
            let acceptors: Vec<_> = (0..5).map(|_| s.go(|| listener.accept().map(drop))).collect();
            time::sleep(Duration::from_millis(5));
            listener.close().unwrap();
            for acceptor in acceptors {
                let error = acceptor.join().unwrap().unwrap_err();
                assert_eq!((error.kind(), error.to_string()), (ErrorKind::NotConnected, "listener closed".into()));
            }
        });
        assert_eq!(listener.close().unwrap_err().kind(), ErrorKind::NotConnected);
        // Also where a time limit has passed.
        listener.set_deadline(Some(Instant::now())).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::NotConnected);
        let errors: Vec<_> = listener.incoming().take(3).map(|connection| connection.unwrap_err().kind()).collect();
        assert_eq!(errors, [ErrorKind::NotConnected]);
        assert!(UnixStream::connect(&path.0).is_err());
    });
}

/// Of several who close at once, exactly one is told that it did it.
#[test]
fn nt_03_one_of_many_closers_of_a_unix_listener_wins() {
    for _ in 0..300 {
        let path = Path::new();
        let listener = UnixListener::bind(&path.0).unwrap();
        assert_eq!(successes_of_two_threads(|| listener.close().is_ok()), 1);
    }
}

/// Giving a handle to `std` needs no room in the table of descriptors.
#[test]
fn conversions_into_std_move_the_descriptor() {
    fn moves<Ours: AsRawFd, Std: AsRawFd + TryFrom<Ours, Error = std::io::Error>>(ours: Ours) -> Std {
        let number = ours.as_raw_fd();
        let std = Std::try_from(ours).unwrap();
        assert_eq!(std.as_raw_fd(), number, "moved, not copied");
        std
    }
    let path = Path::new();
    moves::<_, std::os::unix::net::UnixListener>(UnixListener::bind(&path.0).unwrap());
    moves::<_, std::os::unix::net::UnixDatagram>(UnixDatagram::unbound().unwrap());
    moves::<_, std::net::UdpSocket>(UdpSocket::bind("127.0.0.1:0").unwrap());
    let (reader, writer) = pipe().unwrap();
    moves::<_, std::io::PipeReader>(reader);
    moves::<_, std::io::PipeWriter>(writer);
    // Registered, so that it has to be taken out again; and blocking afterwards.
    let (mut near, far) = UnixStream::pair().unwrap();
    far.set_read_deadline(Some(Instant::now() + Duration::from_millis(5))).unwrap();
    assert_eq!((&far).read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
    let mut far = moves::<_, std::os::unix::net::UnixStream>(far);
    let reader = std::thread::spawn(move || far.read_exact(&mut [0]));
    near.write_all(&[1]).unwrap();
    reader.join().unwrap().unwrap();
}

/// Whether calls block is a property of what duplicates share: the clone's read held its worker, and all who live there.
#[test]
fn a_handle_with_clones_does_not_convert() {
    fn refused<T: AsFd + TryInto<OwnedFd, Error = std::io::Error>>(ours: T, clone: &T) -> bool {
        let error = ours.try_into().unwrap_err();
        assert!(error.to_string().contains("try_clone"), "{error}");
        error.kind() == ErrorKind::ResourceBusy
            && rustix::fs::fcntl_getfl(clone).unwrap().contains(rustix::fs::OFlags::NONBLOCK)
    }
    rt(1, || {
        let (near, far) = UnixStream::pair().unwrap();
        let clone = near.try_clone().unwrap();
        assert!(refused(near, &clone));
        // It waits as before, and lets others run.
        oxigo::go(move || (&far).write_all(&[1]).unwrap());
        (&clone).read_exact(&mut [0]).unwrap();
        // The last handle goes.
        std::os::unix::net::UnixStream::try_from(clone).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(refused(listener.try_clone().unwrap(), &listener));
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(refused(stream.try_clone().unwrap(), &stream));
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(refused(socket.try_clone().unwrap(), &socket));
        let (reader, writer) = pipe().unwrap();
        assert!(refused(reader.try_clone().unwrap(), &reader));
        assert!(refused(writer.try_clone().unwrap(), &writer));
    });
}

/// So that a child process, or a library that speaks of descriptors, can be given one.
#[test]
fn every_handle_converts_into_a_descriptor_and_back() {
    use std::io::Error;
    fn there_and_back<T: AsRawFd + TryInto<OwnedFd, Error = Error> + TryFrom<OwnedFd, Error = Error>>(ours: T) -> T {
        let number = ours.as_raw_fd();
        let fd: OwnedFd = ours.try_into().unwrap();
        assert_eq!(fd.as_raw_fd(), number, "moved, not copied");
        assert!(!rustix::fs::fcntl_getfl(&fd).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
        T::try_from(fd).unwrap()
    }
    let path = Path::new();
    there_and_back(UnixListener::bind(&path.0).unwrap());
    there_and_back(UnixDatagram::unbound().unwrap());
    there_and_back(UdpSocket::bind("127.0.0.1:0").unwrap());
    let listener = there_and_back(TcpListener::bind("127.0.0.1:0").unwrap());
    there_and_back(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
    let (reader, writer) = pipe().unwrap();
    there_and_back(reader);
    there_and_back(writer);
    let (near, far) = UnixStream::pair().unwrap();
    let (near, mut far) = (there_and_back(near), there_and_back(far));
    let reader = oxigo::go(move || far.read(&mut [0; 4]).unwrap());
    (&near).write_all(b"ping").unwrap();
    assert_eq!(reader.join().unwrap(), 4);
}

/// As std's: shared and sent between threads, and used in `catch_unwind`.
#[test]
fn the_types_have_the_auto_traits_of_std() {
    fn has<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe + std::fmt::Debug>() {}
    has::<UdpSocket>();
    has::<UnixDatagram>();
    has::<UnixListener>();
    has::<UnixStream>();
    has::<oxigo::io::PipeReader>();
    has::<oxigo::io::PipeWriter>();
    has::<oxigo::process::Child>();
    has::<oxigo::fs::File>();
}

/// The kernel does not tell when a listener's queue has room again.
#[test]
fn unix_connect_waits_for_a_full_queue() {
    at_1_2_4(|| {
        let path = Path::new();
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        socket.bind(&socket2::SockAddr::unix(&path.0).unwrap()).unwrap();
        socket.listen(0).unwrap();
        let listener = UnixListener::try_from(std::os::unix::net::UnixListener::from(socket)).unwrap();
        scope(|s| {
            let clients: Vec<_> = (0..4).map(|_| s.go(|| UnixStream::connect(&path.0).unwrap())).collect();
            time::sleep(Duration::from_millis(5));
            let accepted: Vec<_> = (0..4).map(|_| listener.accept().unwrap()).collect();
            clients.into_iter().for_each(|client| drop(client.join().unwrap()));
            drop(accepted);
        });
    });
}

#[test]
fn unix_addresses() {
    let path = Path::new();
    let _listener = UnixListener::bind(&path.0).unwrap();
    assert_eq!(UnixListener::bind(&path.0).unwrap_err().kind(), ErrorKind::AddrInUse);
    let stream = UnixStream::connect(&path.0).unwrap();
    assert_eq!(stream.peer_addr().unwrap().as_pathname(), Some(&*path.0));
    assert!(stream.local_addr().unwrap().is_unnamed());
    assert_eq!(UnixStream::connect("").unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(UnixStream::connect("/no/such/socket").unwrap_err().kind(), ErrorKind::NotFound);
    let theirs = std::os::unix::net::UnixStream::try_from(stream).unwrap();
    assert_eq!(theirs.peer_addr().unwrap().as_pathname(), Some(&*path.0));
    UnixStream::try_from(theirs).unwrap();
}

/// One of exactly the length that the kernel has room for was bound without a zero byte at its end.
#[test]
fn unix_paths_that_std_refuses_are_refused_in_the_same_way() {
    use std::os::unix::net as std_unix;
    /// What came of it, in words.
    fn told<T>(result: std::io::Result<T>) -> String {
        result.map_or_else(|error| format!("{:?}: {error}", error.kind()), |_| "nothing amiss".into())
    }
    let most = std::mem::size_of::<libc::sockaddr_un>() - std::mem::offset_of!(libc::sockaddr_un, sun_path);
    for path in ["x".repeat(most), "x".repeat(300), "with\0zero".into()] {
        let refusal = told(std_unix::UnixListener::bind(&path));
        assert!(refusal.starts_with("InvalidInput"), "{refusal}");
        assert_eq!(told(UnixListener::bind(&path)), refusal);
        assert_eq!(told(UnixStream::connect(&path)), refusal);
        assert_eq!(told(UnixDatagram::bind(&path)), refusal);
        let socket = UnixDatagram::unbound().unwrap();
        assert_eq!(told(socket.connect(&path)), refusal);
        assert_eq!(told(socket.send_to(b"x", &path)), refusal);
    }
    // One byte less is bound.
    let shorter = env::temp_dir();
    let name = "x".repeat(most - 2 - shorter.as_os_str().len());
    let path = Path(shorter.join(name));
    drop(UnixListener::bind(&path.0).unwrap());
}

/// The kernel takes a name that fills its room without a zero byte, from who is no program of std's. Its address panicked whoever accepted the
/// connection or received the message.
#[cfg(target_os = "linux")]
#[test]
fn a_peer_whose_name_fills_the_room_is_served() {
    use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketType, bind, connect, sendto, socket};
    let directory = env::temp_dir();
    let name = format!("{:x<1$}", process::id(), 107 - directory.as_os_str().len());
    let peer = Path(directory.join(name));
    let far = |kind| {
        let _ = fs::remove_file(&peer.0);
        let far = socket(AddressFamily::UNIX, kind, None).unwrap();
        bind(&far, &SocketAddrUnix::new(&peer.0).unwrap()).unwrap();
        far
    };
    let path = Path::new();
    let address = SocketAddrUnix::new(&path.0).unwrap();
    let listener = UnixListener::bind(&path.0).unwrap();
    let client = far(SocketType::STREAM);
    connect(&client, &address).unwrap();
    let (near, from) = listener.accept().unwrap();
    assert!(from.is_unnamed() && near.peer_addr().unwrap().is_unnamed());
    drop(fs::remove_file(&path.0));
    let receiver = UnixDatagram::bind(&path.0).unwrap();
    sendto(far(SocketType::DGRAM), b"ping", SendFlags::empty(), &address).unwrap();
    let (length, from) = receiver.recv_from(&mut [0; 4]).unwrap();
    assert!(length == 4 && from.is_unnamed());
}

/// A path that fills the room together with its zero byte was told as an error: whoever accepted the connection of such a client lost it, and
/// whoever received its message lost that.
#[cfg(target_os = "linux")]
#[test]
fn nt_01_a_long_name_loses_neither_connection_nor_message() {
    use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketType, bind, connect, sendto, socket};
    for length in [106, 107, 108] {
        let directory = env::temp_dir();
        let long = Path(directory.join(format!("{:y<1$}", process::id(), length - 1 - directory.as_os_str().len())));
        assert_eq!(long.0.as_os_str().len(), length);
        // Nothing of std's makes an address of one without room for a zero byte.
        let name = (length < 108).then_some(&*long.0);
        let bound = |kind| {
            let _ = fs::remove_file(&long.0);
            let socket = socket(AddressFamily::UNIX, kind, None).unwrap();
            bind(&socket, &SocketAddrUnix::new(&long.0).unwrap()).unwrap();
            socket
        };
        let path = Path::new();
        let address = SocketAddrUnix::new(&path.0).unwrap();
        let listener = UnixListener::bind(&path.0).unwrap();
        let client = bound(SocketType::STREAM);
        connect(&client, &address).unwrap();
        let (near, from) = listener.accept().unwrap();
        assert_eq!((length, from.as_pathname(), from.is_unnamed()), (length, name, name.is_none()));
        assert_eq!(near.peer_addr().unwrap().as_pathname(), name);
        let client = UnixStream::try_from(client).unwrap();
        assert_eq!(client.local_addr().unwrap().as_pathname(), name);
        assert_eq!(client.peer_addr().unwrap().as_pathname(), Some(&*path.0));

        fs::remove_file(&path.0).unwrap();
        let receiver = UnixDatagram::bind(&path.0).unwrap();
        let sender = bound(SocketType::DGRAM);
        sendto(&sender, b"ping", SendFlags::empty(), &address).unwrap();
        let (size, from) = receiver.recv_from(&mut [0; 4]).unwrap();
        assert_eq!((length, size, from.as_pathname()), (length, 4, name));
        let sender = UnixDatagram::try_from(sender).unwrap();
        assert_eq!(sender.local_addr().unwrap().as_pathname(), name);
        if let Some(name) = name {
            let _ = fs::remove_file(name);
            let listener = UnixListener::bind(name).unwrap();
            assert_eq!(listener.local_addr().unwrap().as_pathname(), Some(name));
            assert_eq!(UnixStream::connect(name).unwrap().peer_addr().unwrap().as_pathname(), Some(name));
        }
    }
}

/// Of a socket that is none of this module's, whose addresses are of another family.
#[test]
fn nt_01_an_address_that_cannot_be_told_loses_no_connection() {
    let theirs = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = theirs.local_addr().unwrap();
    let listener = UnixListener::try_from(OwnedFd::from(theirs)).unwrap();
    let mut client = std::net::TcpStream::connect(at).unwrap();
    let (mut near, from) = listener.accept().unwrap();
    assert!(from.is_unnamed() && near.peer_addr().is_err());
    client.write_all(b"ping").unwrap();
    near.read_exact(&mut [0; 4]).unwrap();
}

/// A listener of another kind is told by an error, and not by waiting for ever.
#[test]
fn nt_01_a_listener_that_is_not_of_the_internet_is_an_error() {
    let path = std::env::temp_dir().join(format!("oxigo-test-kind-{}", process::id()));
    let theirs = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let _client = std::os::unix::net::UnixStream::connect(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let listener = TcpListener::try_from(std::net::TcpListener::from(OwnedFd::from(theirs))).unwrap();
    let error = listener.accept().unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (std::io::ErrorKind::InvalidData, "not an internet address".into()));
}

#[cfg(target_os = "linux")]
#[test]
fn unix_abstract_addresses() {
    use std::os::linux::net::SocketAddrExt;

    use oxigo::net::unix::SocketAddr;

    let address = SocketAddr::from_abstract_name(format!("oxigo-test-{}", process::id())).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    let stream = UnixStream::connect_addr(&address).unwrap();
    assert_eq!(stream.peer_addr().unwrap().as_abstract_name(), address.as_abstract_name());
    listener.accept().unwrap();
}

#[test]
fn nt_25_unix_datagrams() {
    at_1_2_4(|| {
        let (here, there) = (Path::new(), Path::new());
        let near = UnixDatagram::bind(&here.0).unwrap();
        let far = UnixDatagram::bind(&there.0).unwrap();
        const MESSAGES: u32 = 500;
        // More than a queue holds, to a peer that is connected and to one that is not: nothing is lost, and in order.
        for connected in [false, true] {
            if connected {
                near.connect(&there.0).unwrap();
            }
            scope(|s| {
                s.go(|| {
                    for n in 0..MESSAGES {
                        let message = n.to_le_bytes();
                        let sent = if connected { near.send(&message) } else { near.send_to(&message, &there.0) };
                        assert_eq!(sent.unwrap(), 4);
                    }
                });
                time::sleep(Duration::from_millis(2));
                for n in 0..MESSAGES {
                    let mut message = [0; 8];
                    let (length, from) = far.recv_from(&mut message).unwrap();
                    assert_eq!((length, from.as_pathname()), (4, Some(&*here.0)));
                    assert_eq!(message[..4], n.to_le_bytes());
                }
            });
        }
        far.set_read_deadline(soon()).unwrap();
        assert_eq!(far.recv(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn nt_06_a_full_unix_datagram_queue_and_time_limits() {
    at_1_2_4(|| {
        let there = Path::new();
        let far = UnixDatagram::bind(&there.0).unwrap();
        let near = UnixDatagram::unbound().unwrap();
        near.set_write_timeout(Some(Duration::from_millis(10))).unwrap();
        let begin = Instant::now();
        let error = std::iter::repeat_with(|| near.send_to(b"x", &there.0)).find_map(Result::err).unwrap();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(begin.elapsed() >= Duration::from_millis(10));
        drop(far);
    });
}

#[test]
fn nt_28_os_pipes_carry_bytes_and_end() {
    at_1_2_4(|| {
        let (mut reader, mut writer) = pipe().unwrap();
        let data = vec![0xA5; 1 << 20];
        scope(|s| {
            let writer = s.go(|| {
                writer.write_all(&data).unwrap();
                drop(writer);
            });
            let mut heard = Vec::new();
            reader.read_to_end(&mut heard).unwrap();
            assert!(heard == data);
            writer.join().unwrap();
        });
    });
}

/// Dropping the other end ends who waits: a reader reads the end, a writer gets an error.
#[test]
fn nt_28_closing_an_os_pipe_wakes_who_waits() {
    at_1_2_4(|| {
        let (reader, writer) = pipe().unwrap();
        let waiting = go(move || (&reader).read(&mut [0]));
        time::sleep(Duration::from_millis(5));
        drop(writer);
        assert_eq!(waiting.join().unwrap().unwrap(), 0);

        let (reader, writer) = pipe().unwrap();
        let waiting = go(move || (&writer).write_all(&vec![0; 1 << 20]));
        time::sleep(Duration::from_millis(5));
        drop(reader);
        assert_eq!(waiting.join().unwrap().unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn nt_28_os_pipe_deadlines() {
    at_1_2_4(|| {
        let (reader, writer) = pipe().unwrap();
        (&writer).write_all(b"here").unwrap();
        reader.set_read_deadline(Some(Instant::now())).unwrap();
        assert_eq!((&reader).read(&mut [0; 4]).unwrap_err().kind(), ErrorKind::TimedOut);
        reader.set_read_deadline(None).unwrap();
        (&reader).read_exact(&mut [0; 4]).unwrap();
        scope(|s| {
            let reads = s.go(|| (&reader).read(&mut [0]));
            let writes = s.go(|| {
                loop {
                    if let Err(error) = (&writer).write(&[0; 100_000]) {
                        return error;
                    }
                }
            });
            // The reader takes one byte, so that the writer has begun; and a reader on an empty pipe is timed out.
            assert_eq!(reads.join().unwrap().unwrap(), 1);
            time::sleep(Duration::from_millis(5));
            writer.set_write_deadline(soon()).unwrap();
            assert_eq!(writes.join().unwrap().kind(), ErrorKind::TimedOut);
        });
        reader.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let mut rest = Vec::new();
        assert_eq!((&reader).read_to_end(&mut rest).unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(rest.len() >= 4096);
    });
}

/// An end that a child process gets is blocking again.
#[test]
fn nt_28_an_os_pipe_goes_to_a_child() {
    rt(2, || {
        let (mut reader, writer) = pipe().unwrap();
        let stdout = Stdio::from(std::io::PipeWriter::try_from(writer).unwrap());
        let mut child = Command::new("echo").arg("from the child").stdout(stdout).spawn().unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "from the child\n");
        child.wait().unwrap();
    });
}

#[track_caller]
fn is_closed<T: std::fmt::Debug>(result: std::io::Result<T>) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConnected);
    assert_eq!(error.to_string(), "operation on a closed socket or pipe");
}

/// Whoever waits on any handle, in any operation, is told; data that was there is not given any more.
#[test]
fn nt_01_closing_a_udp_socket_wakes_all_who_wait() {
    at_1_2_4(|| {
        let (socket, peer) = (udp(), udp());
        let clone = socket.try_clone().unwrap();
        scope(|s| {
            let receive: Vec<_> = (0..3).map(|_| s.go(|| clone.recv_from(&mut [0]))).collect();
            let peek = s.go(|| socket.peek_from(&mut [0]));
            let ready = s.go(|| socket.readable());
            // On a plain thread, too.
            let address = socket.local_addr().unwrap();
            let thread = std::thread::spawn({
                let clone = socket.try_clone().unwrap();
                move || clone.recv(&mut [0])
            });
            time::sleep(Duration::from_millis(5));
            clone.close().unwrap();
            receive.into_iter().for_each(|waiting| is_closed(waiting.join().unwrap()));
            is_closed(peek.join().unwrap());
            is_closed(ready.join().unwrap());
            is_closed(oxigo::blocking(|| thread.join().unwrap()));
            // Nothing of what comes now is received.
            let _ = peer.send_to(b"late", address);
        });
        is_closed(socket.recv_from(&mut [0; 8]));
        is_closed(socket.send_to(b"x", peer.local_addr().unwrap()));
        is_closed(socket.writable());
        is_closed(socket.close());
        // Limits that are lifted open nothing.
        socket.set_read_deadline(None).unwrap();
        is_closed(socket.recv(&mut [0]));
    });
}

#[test]
fn nt_01_closing_a_unix_datagram_socket_wakes_all_who_wait() {
    at_1_2_4(|| {
        let there = Path::new();
        let far = UnixDatagram::bind(&there.0).unwrap();
        let (near, connected) = (UnixDatagram::unbound().unwrap(), UnixDatagram::unbound().unwrap());
        connected.connect(&there.0).unwrap();
        let (one, other) = UnixDatagram::pair().unwrap();
        scope(|s| {
            let receives = s.go(|| near.recv_from(&mut [0]));
            // Both wait for room with a peer that never receives.
            let sends = s.go(|| std::iter::repeat_with(|| near.send_to(b"x", &there.0)).find(Result::is_err).unwrap());
            let passes = s.go(|| std::iter::repeat_with(|| connected.send(b"x")).find(Result::is_err).unwrap());
            // One of the two has begun, so that there is something to receive in the end.
            far.readable().unwrap();
            time::sleep(Duration::from_millis(5));
            near.close().unwrap();
            is_closed(receives.join().unwrap());
            is_closed(sends.join().unwrap());
            connected.close().unwrap();
            is_closed(passes.join().unwrap());
            // The peer of a pair is told when it sends.
            one.close().unwrap();
            assert_eq!(other.send(b"x").unwrap_err().kind(), ErrorKind::ConnectionRefused);
        });
        is_closed(near.close());
        far.recv(&mut [0]).unwrap();
    });
}

/// Those who waited slept on, and later ones waited for ever.
#[test]
fn nt_05_shutting_down_a_unix_datagram_socket_ends_what_receives() {
    for how in [Shutdown::Read, Shutdown::Both] {
        at_1_2_4(|| {
            let (near, far) = UnixDatagram::pair().unwrap();
            // Ends a test that fails.
            near.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            scope(|s| {
                let receives = s.go(|| near.recv(&mut [0; 4]));
                let tells = s.go(|| near.recv_from(&mut [0; 4]));
                let under_ctx = s.go(|| near.recv_from_ctx(&mut [0; 4], &Context::background()));
                let readable = s.go(|| near.readable());
                time::sleep(Duration::from_millis(5));
                near.shutdown(how).unwrap();
                assert_eq!(receives.join().unwrap().unwrap(), 0);
                for result in [tells.join().unwrap(), under_ctx.join().unwrap()] {
                    let (length, from) = result.unwrap();
                    assert!(length == 0 && from.is_unnamed());
                }
                readable.join().unwrap().unwrap();
            });
            assert_eq!(near.recv(&mut [0; 4]).unwrap(), 0);
            assert_eq!(near.try_clone().unwrap().recv_from(&mut [0; 4]).unwrap().0, 0);
            assert_eq!(far.send(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
            // Sending is another half.
            assert_eq!(near.send(b"x").is_ok(), how == Shutdown::Read);
            near.close().unwrap();
            is_closed(near.recv(&mut [0; 4]));
        });
    }
}

#[test]
fn nt_05_what_was_sent_before_the_shutdown_is_received() {
    let (near, far) = UnixDatagram::pair().unwrap();
    let theirs = {
        let (theirs, peer) = std::os::unix::net::UnixDatagram::pair().unwrap();
        peer.send(b"one").unwrap();
        theirs.shutdown(Shutdown::Read).unwrap();
        theirs
    };
    far.send(b"one").unwrap();
    near.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    near.shutdown(Shutdown::Read).unwrap();
    for length in [3, 0, 0] {
        assert_eq!(theirs.recv(&mut [0; 4]).unwrap(), length);
        assert_eq!(near.recv(&mut [0; 4]).unwrap(), length);
    }
}

/// Close ends who waits at the end that is closed; of the other end see `net_close`.
#[test]
fn nt_28_closing_one_end_of_an_os_pipe_wakes_its_own() {
    at_1_2_4(|| {
        let (reader, writer) = pipe().unwrap();
        let clone = reader.try_clone().unwrap();
        scope(|s| {
            let reads: Vec<_> = (0..3).map(|_| s.go(|| (&clone).read(&mut [0]))).collect();
            time::sleep(Duration::from_millis(5));
            reader.close().unwrap();
            reads.into_iter().for_each(|waiting| is_closed(waiting.join().unwrap()));
            is_closed((&clone).read(&mut [0]));
            is_closed(clone.close());
            assert_eq!((&writer).write(&[0]).unwrap_err().kind(), ErrorKind::BrokenPipe);
        });

        let (_reader, writer) = pipe().unwrap();
        let second = writer.try_clone().unwrap();
        scope(|s| {
            // One waits for room, and one for its turn.
            let writes: Vec<_> = (0..2).map(|_| s.go(|| (&second).write_all(&vec![0; 1 << 20]))).collect();
            time::sleep(Duration::from_millis(5));
            writer.close().unwrap();
            writes.into_iter().for_each(|waiting| is_closed(waiting.join().unwrap()));
            is_closed((&writer).write(&[0]));
        });
    });
}

/// Close races with the beginning of a wait and with other closers: nobody is left behind, and one closer wins.
#[test]
fn nt_01_no_close_is_missed() {
    for workers in [1, 2, 4] {
        rt(workers, || {
            for round in 0..200 {
                let (reader, _writer) = pipe().unwrap();
                scope(|s| {
                    let waiting = s.go(|| (&reader).read(&mut [0]));
                    let closers: Vec<_> = (0..2)
                        .map(|_| {
                            s.go(|| {
                                (0..round % 5).for_each(|_| oxigo::yield_now());
                                reader.close().is_ok()
                            })
                        })
                        .collect();
                    is_closed(waiting.join().unwrap());
                    assert_eq!(closers.into_iter().filter_map(|c| c.join().unwrap().then_some(())).count(), 1);
                });
            }
        });
    }
}

/// NT-26: the end of a Unix stream is an end and no error, whether the peer closed or shut down.
#[test]
fn nt_26_the_end_of_a_unix_stream_is_plain() {
    at_1_2_4(|| {
        let (mut near, far) = UnixStream::pair().unwrap();
        (&far).write_all(b"last").unwrap();
        far.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        near.read_to_string(&mut text).unwrap();
        assert_eq!(text, "last");
        drop(far);
        assert_eq!(near.read(&mut [0]).unwrap(), 0);
        let error = near.read_exact(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);

        let (near, mut far) = UnixStream::pair().unwrap();
        let waiting = go(move || far.read(&mut [0]));
        time::sleep(Duration::from_millis(2));
        drop(near);
        assert_eq!(waiting.join().unwrap().unwrap(), 0);
    });
}
