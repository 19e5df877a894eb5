//! Group NT for TCP: connecting and accepting, concurrent use, and what the types can do. What else there is to say of TCP is in
//! net_tcp_close.rs, net_tcp_deadlines.rs and net_tcp_readiness.rs.

mod common;
#[path = "common/tcp.rs"]
mod tcp;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    collections::HashMap,
    io::{ErrorKind, IoSlice, IoSliceMut, Read, Write},
    os::fd::{AsFd, AsRawFd},
    panic,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use common::{at_1_2_4, rt};
use oxigo::{
    WaitGroup, go,
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket},
    scope, time, yield_now,
};
use tcp::{AT_ONCE, BIG, MS, TOO_MUCH, kind, listen, narrow_pair, pair, until_parked};

/// Reads `count` blocks of `BIG` bytes; asserts that each is of one value, and counts how many of which.
fn whole_blocks(stream: &TcpStream, count: usize) -> HashMap<u8, usize> {
    let mut blocks = HashMap::new();
    let mut block = vec![0; BIG];
    for _ in 0..count {
        (&*stream).read_exact(&mut block).unwrap();
        let first = block[0];
        if block.iter().any(|byte| *byte != first) {
            // Ends those who wait for room, too.
            let _ = stream.shutdown(Shutdown::Both);
            panic!("writes are interleaved");
        }
        *blocks.entry(first).or_default() += 1;
    }
    blocks
}

#[test]
fn nt_16_concurrent_writes_do_not_interleave() {
    at_1_2_4(|| {
        // Room for a part of one write only, so that each takes many steps.
        let (near, far) = narrow_pair();
        scope(|s| {
            for byte in 1..=3 {
                let near = &near;
                s.go(move || {
                    let block = vec![byte; BIG];
                    match byte {
                        1 => assert_eq!((&*near).write(&block).unwrap(), BIG),
                        2 => (&*near).write_all(&block).unwrap(),
                        _ => {
                            // Empty parts, and more parts than the system takes at a time.
                            let part = BIG / 2048;
                            let parts: Vec<_> =
                                block.chunks(part).flat_map(|part| [IoSlice::new(part), IoSlice::new(&[])]).collect();
                            assert_eq!((&*near).write_vectored(&parts).unwrap(), BIG);
                        }
                    }
                });
            }
            let blocks = whole_blocks(&far, 3);
            assert_eq!(blocks, HashMap::from([(1, 1), (2, 1), (3, 1)]));
        });
    });
}

/// `write_all` that runs into its time-out has lost its turn: it does not go on behind another writer, which has come meanwhile.
#[test]
fn nt_16_write_all_does_not_go_on_after_a_time_out() {
    at_1_2_4(|| {
        let (near, far) = narrow_pair();
        near.set_write_timeout(Some(30 * MS)).unwrap();
        let clone = near.try_clone().unwrap();
        let first = go(move || {
            let begin = Instant::now();
            // Nobody reads.
            assert_eq!(kind((&clone).write_all(&vec![1; TOO_MUCH.len()])), ErrorKind::TimedOut);
            assert!(begin.elapsed() >= 30 * MS);
        });
        // It has begun, with its limit.
        far.readable().unwrap();
        // From here on nothing times out any more.
        near.set_write_timeout(None).unwrap();
        let second = go(move || {
            (&near).write_all(&[2; 1000]).unwrap();
            near
        });
        time::sleep(40 * MS);
        let mut heard = vec![0; 1];
        while heard.last() != Some(&2) {
            let mut some = [0; 4096];
            let n = (&far).read(&mut some).unwrap();
            heard.extend_from_slice(&some[..n]);
        }
        first.join().unwrap();
        second.join().unwrap().shutdown(Shutdown::Write).unwrap();
        (&far).read_to_end(&mut heard).unwrap();
        let ones = heard[1..].iter().take_while(|byte| **byte == 1).count();
        assert!(heard[1 + ones..] == [2; 1000]);
    });
}

/// `write` is short on a time-out only, and then tells how much was written.
#[test]
fn nt_16_a_short_write_tells_the_truth() {
    rt(2, || {
        let (near, far) = pair();
        near.set_write_timeout(Some(20 * MS)).unwrap();
        let written = (&near).write(&vec![1; 32 << 20]).unwrap();
        assert!(written > 0 && written < 32 << 20);
        near.shutdown(Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        (&far).read_to_end(&mut heard).unwrap();
        assert_eq!(heard.len(), written);
    });
}

#[test]
fn nt_16_all_methods_from_several_goroutines_at_once() {
    at_1_2_4(|| {
        let (near, far) = pair();
        scope(|s| {
            for _ in 0..3 {
                s.go(|| {
                    for _ in 0..50 {
                        let _ = (&near).write(b"some bytes").unwrap();
                        let _ = (&far).write(b"some bytes").unwrap();
                        near.readable().unwrap();
                        near.writable().unwrap();
                        assert!(near.peek(&mut [0; 4]).unwrap() > 0);
                        near.set_nodelay(true).unwrap();
                        near.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
                        near.set_write_deadline(Some(Instant::now() + Duration::from_secs(60))).unwrap();
                        assert_eq!(near.peer_addr().unwrap(), far.local_addr().unwrap());
                        let _ = near.try_clone().unwrap();
                        // As many bytes as were written; three times as many are there at most.
                        let mut four = [0; 4];
                        assert!((&near).read(&mut four).unwrap() > 0);
                    }
                });
            }
        });
    });
}

#[test]
fn nt_17_nothing_to_read_into_returns_at_once() {
    at_1_2_4(|| {
        let (near, _far) = pair();
        // Nothing has been sent, and the time is over: still at once.
        near.set_read_deadline(Some(Instant::now())).unwrap();
        assert_eq!((&near).read(&mut []).unwrap(), 0);
        assert_eq!(near.peek(&mut []).unwrap(), 0);
        assert_eq!((&near).read_vectored(&mut [IoSliceMut::new(&mut []), IoSliceMut::new(&mut [])]).unwrap(), 0);
        assert_eq!((&near).write(&[]).unwrap(), 0);
        assert_eq!((&near).write_vectored(&[]).unwrap(), 0);
    });
}

#[test]
fn nt_18_many_may_accept_on_one_listener() {
    at_1_2_4(|| {
        let (listener, address) = listen();
        let accepted = AtomicUsize::new(0);
        scope(|s| {
            for _ in 0..8 {
                s.go(|| {
                    while listener.accept().is_ok() {
                        accepted.fetch_add(1, SeqCst);
                    }
                });
            }
            for _ in 0..10 {
                // A burst, so that one edge stands for many.
                let burst: Vec<_> = (0..10).map(|_| TcpStream::connect(address).unwrap()).collect();
                drop(burst);
            }
            while accepted.load(SeqCst) < 100 {
                time::sleep(MS);
            }
            listener.close().unwrap();
        });
    });
}

/// Requests and answers over many connections, and a megabyte through each of a few, both ways at once.
#[test]
fn nt_25_echo_without_loss() {
    at_1_2_4(|| {
        let (listener, address) = listen();
        let listener = Arc::new(listener);
        let accepting = Arc::clone(&listener);
        let server = go(move || {
            while let Ok((connection, _)) = accepting.accept() {
                go(move || {
                    let mut buffer = [0; 4096];
                    loop {
                        match (&connection).read(&mut buffer).unwrap() {
                            0 => break,
                            n => (&connection).write_all(&buffer[..n]).unwrap(),
                        }
                    }
                });
            }
        });
        let clients = WaitGroup::new();
        for client in 0..40_u64 {
            clients.go(move || {
                let stream = TcpStream::connect(address).unwrap();
                for n in 0..20 {
                    let message = (client << 32 | n).to_le_bytes();
                    let mut back = [0; 8];
                    (&stream).write_all(&message).unwrap();
                    (&stream).read_exact(&mut back).unwrap();
                    assert_eq!(back, message);
                }
            });
        }
        for seed in 1..=2_u64 {
            clients.go(move || {
                let stream = TcpStream::connect(address).unwrap();
                let mut state = seed;
                let payload: Vec<u8> = (0..BIG)
                    .map(|_| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        (state >> 56) as u8
                    })
                    .collect();
                let mut back = Vec::new();
                scope(|s| {
                    s.go(|| {
                        (&stream).write_all(&payload).unwrap();
                        stream.shutdown(Shutdown::Write).unwrap();
                    });
                    (&stream).read_to_end(&mut back).unwrap();
                });
                assert!(back == payload);
            });
        }
        clients.wait();
        listener.close().unwrap();
        server.join().unwrap();
    });
}

/// Counts allocations of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: by the caller.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn nt_27_reads_and_writes_allocate_nothing() {
    rt(1, || {
        let (near, far) = pair();
        let echo = go(move || {
            let mut buffer = [0; 64];
            loop {
                match (&far).read(&mut buffer).unwrap() {
                    0 => break,
                    n => (&far).write_all(&buffer[..n]).unwrap(),
                }
            }
        });
        let round = || {
            let mut back = [0; 8];
            (&near).write_all(b"12345678").unwrap();
            (&near).read_exact(&mut back).unwrap();
        };
        near.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        (0..100).for_each(|_| round());
        // One worker: both ends and the worker's own loop run on this thread.
        let before = ALLOCATIONS.get();
        (0..1000).for_each(|_| round());
        assert_eq!(ALLOCATIONS.get(), before);
        drop(near);
        echo.join().unwrap();
    });
}

#[test]
fn std_types_convert_both_ways() {
    rt(2, || {
        let std_listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = TcpListener::try_from(std_listener).unwrap();
        let address = listener.local_addr().unwrap();
        let near = TcpStream::connect(address).unwrap();
        let (far, peer) = listener.accept().unwrap();
        assert_eq!(peer, near.local_addr().unwrap());
        // Registered, so that it has to be taken out again.
        far.set_read_deadline(Some(Instant::now() + 5 * MS)).unwrap();
        assert_eq!(kind((&far).read(&mut [0; 8])), ErrorKind::TimedOut);
        let number = far.as_raw_fd();
        let std_far = std::net::TcpStream::try_from(far).unwrap();
        assert_eq!(std_far.as_raw_fd(), number, "moved, not copied");

        let echo = thread::spawn(move || {
            let mut four = [0; 4];
            // Blocking again: nothing is there yet.
            (&std_far).read_exact(&mut four).unwrap();
            (&std_far).write_all(&four).unwrap();
            std_far
        });
        time::sleep(10 * MS);
        (&near).write_all(b"ping").unwrap();
        let mut four = [0; 4];
        (&near).read_exact(&mut four).unwrap();
        assert_eq!(&four, b"ping");
        let far = TcpStream::try_from(echo.join().unwrap()).unwrap();
        let reader = go(move || (&far).read(&mut [0; 8]));
        until_parked(&reader);
        drop(near);
        assert_eq!(reader.join().unwrap().unwrap(), 0);

        let std_listener = std::net::TcpListener::try_from(listener).unwrap();
        let client = thread::spawn(move || std::net::TcpStream::connect(address).unwrap());
        std_listener.accept().unwrap();
        client.join().unwrap();
    });
}

/// As std's: shared and sent between threads, and used in `catch_unwind`.
#[test]
fn the_types_have_the_auto_traits_of_std() {
    fn has<T: Send + Sync + Unpin + panic::UnwindSafe + panic::RefUnwindSafe + std::fmt::Debug + AsFd>() {}
    has::<TcpListener>();
    has::<TcpStream>();
}

#[test]
fn everything_works_on_plain_threads() {
    let (listener, address) = listen();
    let listener = Arc::new(listener);
    let accepting = Arc::clone(&listener);
    let server = thread::spawn(move || {
        while let Ok((connection, _)) = accepting.accept() {
            thread::spawn(move || std::io::copy(&mut &connection, &mut &connection).unwrap());
        }
    });
    thread::scope(|s| {
        for n in 0..8_u8 {
            s.spawn(move || {
                let stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(10 * MS)).unwrap();
                let begin = Instant::now();
                assert_eq!(kind((&stream).read(&mut [0; 8])), ErrorKind::TimedOut);
                assert!(begin.elapsed() >= 10 * MS);
                stream.set_read_timeout(None).unwrap();
                let mut back = Vec::new();
                thread::scope(|s| {
                    s.spawn(|| {
                        (&stream).write_all(&vec![n; BIG]).unwrap();
                        stream.shutdown(Shutdown::Write).unwrap();
                    });
                    (&stream).read_to_end(&mut back).unwrap();
                });
                assert!(back == vec![n; BIG]);
            });
        }
    });
    listener.close().unwrap();
    server.join().unwrap();
}

#[test]
fn nt_29_addresses_have_the_method_of_std_s_trait() {
    // Generic code says this much of std's trait, and of ours after a change of imports.
    fn addresses<A: ToSocketAddrs>(of: A) -> Vec<SocketAddr> {
        of.to_socket_addrs().unwrap().collect()
    }
    at_1_2_4(|| {
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 80));
        assert_eq!(addresses("127.0.0.1:80"), [local]);
        assert_eq!(addresses((Ipv4Addr::LOCALHOST, 80)), [local]);
        assert_eq!(addresses(&[local, local][..]), [local, local]);
        let named = addresses(("localhost", 80));
        assert!(!named.is_empty() && named.iter().all(|address| address.ip().is_loopback() && address.port() == 80));
        assert_eq!(kind("no port".to_socket_addrs()), ErrorKind::InvalidInput);
    });
}

#[test]
fn nt_20_connect_reaches_names_and_tells_what_went_wrong() {
    at_1_2_4(|| {
        let (listener, address) = listen();
        let port = address.port();
        for stream in [
            TcpStream::connect(("127.0.0.1", port)),
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)),
            TcpStream::connect(format!("127.0.0.1:{port}")),
            TcpStream::connect(("localhost", port)),
            TcpStream::connect(&[address][..]),
            TcpStream::connect_timeout(&address, Duration::MAX),
        ] {
            let stream = stream.unwrap();
            listener.accept().unwrap();
            // The time for connecting is not a time for writing.
            (&stream).write_all(b"x").unwrap();
        }
        assert_eq!(kind(TcpStream::connect_timeout(&address, Duration::ZERO)), ErrorKind::InvalidInput);
        assert_eq!(kind(TcpStream::connect("no port")), ErrorKind::InvalidInput);
        let to_bind = "the host is missing: write 0.0.0.0:8080 or [::]:8080 to listen on all addresses";
        let to_reach = "the host is missing: write localhost:8080 for this machine";
        for (error, text) in [
            (TcpListener::bind(":8080").unwrap_err(), to_bind),
            (TcpListener::bind(("", 8080)).unwrap_err(), to_bind),
            (UdpSocket::bind(":8080".to_owned()).unwrap_err(), to_bind),
            (TcpStream::connect(":8080").unwrap_err(), to_reach),
        ] {
            assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::InvalidInput, text));
        }
        drop(listener);
        assert_eq!(kind(TcpStream::connect(address)), ErrorKind::ConnectionRefused);
        assert_eq!(kind(TcpStream::connect_timeout(&address, AT_ONCE)), ErrorKind::ConnectionRefused);
    });
}

/// A listener whose queue is full does not answer: the one address here that makes `connect` wait.
#[test]
fn nt_20_connect_timeout_acts_and_not_early() {
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    rt(2, || {
        let mut queued = Vec::new();
        loop {
            let begin = Instant::now();
            match TcpStream::connect_timeout(&address, 50 * MS) {
                Ok(stream) => queued.push(stream),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::TimedOut);
                    assert!(begin.elapsed() >= 50 * MS);
                    break;
                }
            }
            assert!(queued.len() < 64);
        }
    });
}

/// The limit is for connecting only, and has passed when the connection is used.
#[test]
fn nt_21_what_limited_the_connecting_does_not_limit_the_connection() {
    const LIMIT: Duration = Duration::from_millis(100);
    at_1_2_4(|| {
        let (_listener, address) = listen();
        // On a busy machine the first attempt may take longer.
        let stream = (0..50).find_map(|_| TcpStream::connect_timeout(&address, LIMIT).ok()).expect("connected");
        time::sleep(LIMIT);
        (&stream).write_all(b"on").unwrap();
        stream.writable().unwrap();
    });
}

#[test]
fn nt_18_clones_of_a_listener_share_it() {
    at_1_2_4(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let clone = listener.try_clone().unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(clone.local_addr().unwrap(), address);
        for _ in 0..2 {
            let _peer = TcpStream::connect(address).unwrap();
            clone.accept().unwrap();
        }
        let waits = go(move || clone.accept().unwrap_err().kind());
        yield_now();
        listener.close().unwrap();
        assert_eq!(waits.join().unwrap(), ErrorKind::NotConnected);
    });
}
