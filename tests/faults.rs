//! Peers that fail and listeners that are closed under load: what a server hears of it, and that it is left with nothing.

mod common;

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use common::{at_1_2_4, child, is_child, rt, stderr};
use oxigo::{
    go,
    net::{TcpListener, TcpStream},
    scope, time,
};

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

/// Ends the connection with a reset.
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Until what was started waits, or had the time to.
fn a_moment() {
    time::sleep(Duration::from_millis(5));
}

/// NT-02: a reset reaches whoever reads and whoever writes, waiting already or not.
#[test]
fn nt_02_a_peer_that_resets() {
    at_1_2_4(|| {
        let gone = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        let (near, far) = pair();
        scope(|s| {
            let reads = s.go(|| (&near).read(&mut [0]));
            let writes = s.go(|| (&near).write_all(&vec![0; 64 << 20]));
            a_moment();
            reset(far);
            // One of them gets the reset itself, the other finds the connection gone.
            let read = reads.join().unwrap();
            assert!(read.as_ref().is_ok_and(|n| *n == 0) || gone.contains(&read.unwrap_err().kind()));
            assert!(gone.contains(&writes.join().unwrap().unwrap_err().kind()));
        });
        let (near, far) = pair();
        reset(far);
        assert_eq!((&near).read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!((&near).write(&[0]).unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

/// A peer that stalls is left by its time limit, in both directions, and can go on afterwards.
#[test]
fn nt_09_a_peer_that_stalls() {
    const LIMIT: Duration = Duration::from_millis(20);
    at_1_2_4(|| {
        let (near, far) = pair();
        near.set_read_timeout(Some(LIMIT)).unwrap();
        near.set_write_timeout(Some(LIMIT)).unwrap();
        let begin = Instant::now();
        assert_eq!((&near).read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(begin.elapsed() >= LIMIT);
        let begin = Instant::now();
        let mut written = 0;
        let error = loop {
            match (&near).write(&[7; 1 << 20]) {
                Ok(n) => written += n,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(begin.elapsed() >= LIMIT);
        // It wakes up: all that was told to be written is there, and nothing else.
        near.shutdown(Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        (&far).read_to_end(&mut heard).unwrap();
        assert_eq!(heard.len(), written);
        (&far).write_all(b"sorry").unwrap();
        drop(far);
        near.set_read_timeout(None).unwrap();
        let mut text = String::new();
        (&near).read_to_string(&mut text).unwrap();
        assert_eq!(text, "sorry");
    });
}

/// NT-15: a byte at a time arrives, and does not put an absolute deadline off; a half-closed peer still hears the answer.
#[test]
fn nt_15_a_peer_that_sends_a_byte_at_a_time_and_half_closes() {
    at_1_2_4(|| {
        let (near, far) = pair();
        let sends = go(move || {
            far.set_nodelay(true).unwrap();
            for byte in b"a long story" {
                (&far).write_all(&[*byte]).unwrap();
                time::sleep(Duration::from_millis(1));
            }
            far.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            (&far).read_to_string(&mut answer).unwrap();
            answer
        });
        near.set_read_deadline(Some(Instant::now() + Duration::from_secs(30))).unwrap();
        let mut text = String::new();
        (&near).read_to_string(&mut text).unwrap();
        (&near).write_all(text.to_uppercase().as_bytes()).unwrap();
        drop(near);
        assert_eq!(sends.join().unwrap(), "A LONG STORY");
    });
}

/// NT-18: connections that were aborted before they were accepted come and go, or do not come at all; `accept` never fails for them.
#[test]
fn nt_18_aborted_connections_do_not_end_accept() {
    at_1_2_4(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        for _ in 0..20 {
            reset(TcpStream::connect(address).unwrap());
        }
        let good = go(move || {
            let stream = TcpStream::connect(address).unwrap();
            (&stream).write_all(b"good").unwrap();
            stream
        });
        listener.set_deadline(Some(Instant::now() + Duration::from_secs(30))).unwrap();
        loop {
            let (mut stream, _) = listener.accept().unwrap();
            let mut text = [0; 4];
            match stream.read_exact(&mut text) {
                Ok(()) => break assert_eq!(&text, b"good"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
            }
        }
        good.join().unwrap();
    });
}

/// One round: clients that connect as fast as they can, acceptors that serve them, and a close in the middle.
fn close_under_load(round: u32) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, served, closed) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    scope(|s| {
        for _ in 0..4 {
            s.go(|| {
                let error = loop {
                    match listener.accept() {
                        Ok((mut stream, _)) => {
                            if stream.read_exact(&mut [0]).is_ok() {
                                let _ = stream.write_all(b"served");
                            }
                            served.fetch_add(1, SeqCst);
                        }
                        Err(error) => break error,
                    }
                };
                assert_eq!((error.kind(), error.to_string()), (ErrorKind::NotConnected, "listener closed".into()));
                closed.fetch_add(1, SeqCst);
            });
        }
        let clients: Vec<_> = (0..8).map(|_| s.go(|| client(address, &stop))).collect();
        while served.load(SeqCst) < 50 {
            oxigo::yield_now();
        }
        time::sleep(Duration::from_micros(u64::from(round) * 100));
        listener.close().unwrap();
        // Refused from now on: every client ends by itself.
        let heard: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
        stop.store(true, SeqCst);
        assert!(heard >= 40, "{heard}");
    });
    assert_eq!(closed.load(SeqCst), 4);
    // The address is free at once (NT-19).
    TcpListener::bind(address).unwrap();
}

/// Connects and hears until it is refused; how often it was served. Connections that were in the queue are reset, not forgotten.
fn client(address: SocketAddr, stop: &AtomicBool) -> usize {
    let mut heard = 0;
    while !stop.load(SeqCst) {
        let Ok(mut stream) = TcpStream::connect(address) else { break };
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        // Linux forgets some of those that it was about to put into the queue without a word. They hear of it when they say something.
        let _ = stream.write_all(b"?");
        let mut text = String::new();
        match stream.read_to_string(&mut text) {
            Ok(_) if text == "served" => heard += 1,
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "left hanging"),
        }
        // The system keeps nothing of it: ports are few.
        reset(stream);
    }
    heard
}

/// NT-01: a listener that is closed under load ends all who accept, refuses or resets whoever is not served, and leaves no descriptor.
#[test]
fn nt_01_a_listener_that_is_closed_under_load() {
    const NAME: &str = "nt_01_a_listener_that_is_closed_under_load";
    if !is_child(NAME) {
        // Alone in its process: descriptors are counted.
        let output = child(NAME);
        assert!(output.status.success(), "{}", stderr(&output));
        return;
    }
    for workers in [1, 2, 4] {
        rt(workers, || {
            close_under_load(0);
            let before = descriptors();
            (0..10).for_each(close_under_load);
            assert_eq!(descriptors(), before);
        });
    }
}

/// How many this process has: the fewest of several looks, since the clock thread may have one open for a moment to list threads.
fn descriptors() -> usize {
    let table = if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" };
    let look = |_| {
        time::sleep(Duration::from_millis(1));
        std::fs::read_dir(table).unwrap().count()
    };
    (0..20).map(look).min().unwrap()
}

/// NT-24: what is kept for a connection is given back with it, however its wait ended; the pollers' own counts are looked at by a test of the
/// same number in `net::descriptor`.
#[test]
fn nt_24_the_pollers_books_are_even_at_the_end() {
    const NAME: &str = "nt_24_the_pollers_books_are_even_at_the_end";
    if !is_child(NAME) {
        let output = child(NAME);
        assert!(output.status.success(), "{}", stderr(&output));
        return;
    }
    rt(2, || {
        let waiting = || oxigo::debug::metrics().goroutines;
        let (goroutines, before) = (waiting(), descriptors());
        for _ in 0..20 {
            let all = Arc::new(oxigo::WaitGroup::new());
            let mut peers = Vec::new();
            for n in 0..100 {
                let (near, far) = oxigo::net::unix::UnixStream::pair().unwrap();
                // Registered, in both directions, and waited for when its peer goes, its own handle goes, or its time is up.
                let reading = near.try_clone().unwrap();
                all.go(move || {
                    if n % 3 == 0 {
                        reading.set_read_deadline(Some(Instant::now() + Duration::from_millis(2))).unwrap();
                    }
                    let _ = (&reading).read(&mut [0]);
                });
                peers.push((near, far));
            }
            a_moment();
            for (n, (near, far)) in peers.into_iter().enumerate() {
                if n % 2 == 0 { drop(far) } else { near.shutdown(Shutdown::Both).unwrap() }
            }
            all.wait();
        }
        assert_eq!(descriptors(), before);
        while waiting() > goroutines {
            oxigo::yield_now();
        }
    });
    // Whoever waits for nothing costs no look at the poller: the workers sleep.
    let quiet = || oxigo::debug::metrics().polls;
    let begin = Instant::now();
    loop {
        let polls = quiet();
        std::thread::sleep(Duration::from_millis(200));
        if quiet() == polls {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "somebody still polls");
    }
}
