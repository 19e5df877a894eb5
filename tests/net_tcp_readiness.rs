//! Sockets of TCP: what readiness must survive, from the end of the worker that watches to signals, a full table and urgent data.

mod common;
#[path = "common/tcp.rs"]
mod tcp;

use std::{
    error::Error,
    io::{ErrorKind, Read, Write},
    os::fd::{AsFd, AsRawFd},
    panic,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use common::{at_1_2_4, child, is_child, rt, stderr};
use oxigo::{
    WaitGroup, go,
    net::{Shutdown, TcpStream},
    time,
};
use tcp::{MS, fill, kind, listen, narrow_pair, pair, until_parked};

#[test]
fn readable_and_writable_wait_and_take_nothing() {
    at_1_2_4(|| {
        let (near, far) = narrow_pair();
        let (near, far) = (Arc::new(near), Arc::new(far));
        near.writable().unwrap();
        let waits = Arc::clone(&near);
        let reader = go(move || waits.readable());
        until_parked(&reader);
        (&*far).write_all(b"here").unwrap();
        reader.join().unwrap().unwrap();
        near.readable().unwrap();
        let mut four = [0; 4];
        assert_eq!(near.peek(&mut four[..2]).unwrap(), 2);
        assert_eq!(&four[..2], b"he");
        assert_eq!((&*near).read(&mut four).unwrap(), 4);
        assert_eq!(&four, b"here");

        // Full, and full for a while: the system may make room by packing what it has.
        let mut filled = fill(&near);
        near.set_write_timeout(Some(20 * MS)).unwrap();
        while near.writable().is_ok() {
            filled += fill(&near);
            near.set_write_timeout(Some(20 * MS)).unwrap();
        }
        near.set_write_timeout(None).unwrap();
        let waits = Arc::clone(&near);
        let writer = go(move || waits.writable());
        time::sleep(5 * MS);
        (&*far).read_exact(&mut vec![0; filled]).unwrap();
        writer.join().unwrap().unwrap();

        // The end is readable too.
        let waits = Arc::clone(&near);
        let reader = go(move || waits.readable());
        until_parked(&reader);
        far.shutdown(Shutdown::Write).unwrap();
        reader.join().unwrap().unwrap();
        assert_eq!(near.peek(&mut four).unwrap(), 0);
    });
}

/// The worker that watches a socket ends with its runtime; the socket goes on elsewhere. Told as it was found: a connection that had waited
/// in a runtime was handed out of it, the runtime was dropped, and the next read waited for ever.
#[test]
fn a_socket_outlives_the_runtime_that_registered_it() {
    let make = || {
        rt(1, || {
            let (listener, address) = listen();
            let near = TcpStream::connect(address).unwrap();
            let (far, _) = listener.accept().unwrap();
            for stream in [&near, &far] {
                stream.set_read_deadline(Some(Instant::now() + MS)).unwrap();
                assert_eq!(kind((&*stream).read(&mut [0; 8])), ErrorKind::TimedOut);
                stream.set_read_deadline(None).unwrap();
            }
            (near, far)
        })
    };
    let talk = |near: TcpStream, far: TcpStream| {
        let reader = go(move || {
            let mut text = String::new();
            (&far).read_to_string(&mut text).map(|_| text)
        });
        time::sleep(5 * MS);
        let big = "x".repeat(8 << 20);
        (&near).write_all(big.as_bytes()).unwrap();
        drop(near);
        assert!(reader.join().unwrap().unwrap() == big);
    };
    for _ in 0..5 {
        // Plain threads and the default runtime, then another runtime.
        let (near, far) = make();
        talk(near, far);
        let (near, far) = make();
        rt(2, move || talk(near, far));
    }
}

/// The same for one who waits already when the watching worker ends.
#[test]
fn whoever_waits_when_the_watching_worker_ends_is_not_forgotten() {
    for round in 0..20 {
        let (to_us, from_it) = oxigo::unbounded();
        let runtime = oxigo::Runtime::builder().workers(2).build().unwrap();
        runtime.run(move || {
            let (near, far) = pair();
            near.set_read_deadline(Some(Instant::now() + MS / 2)).unwrap();
            assert_eq!(kind((&near).read(&mut [0; 8])), ErrorKind::TimedOut);
            near.set_read_deadline(None).unwrap();
            to_us.send((near, far)).unwrap();
        });
        let (near, far) = from_it.recv().unwrap();
        let reader = move || (&near).read(&mut [0; 8]).unwrap();
        let waits: Box<dyn FnOnce() -> usize> = if round % 2 == 0 {
            let thread = thread::spawn(reader);
            Box::new(move || thread.join().unwrap())
        } else {
            let goroutine = go(reader);
            Box::new(move || goroutine.join().unwrap())
        };
        thread::sleep(2 * MS);
        drop(runtime);
        thread::sleep(2 * MS);
        (&far).write_all(b"still here?").unwrap();
        assert_eq!(waits(), 8);
    }
}

/// In a panic hook operations block the thread, which is the one that would poll.
#[test]
fn sockets_can_be_waited_for_in_a_panic_hook() {
    const NAME: &str = "sockets_can_be_waited_for_in_a_panic_hook";
    if is_child(NAME) {
        static PEER: Mutex<Option<TcpStream>> = Mutex::new(None);
        // Set before the first runtime, which wraps it.
        panic::set_hook(Box::new(|_| {
            let peer = PEER.lock().unwrap().take();
            if let Some(peer) = peer {
                let mut answer = [0; 6];
                (&peer).write_all(b"a panic").unwrap();
                (&peer).read_exact(&mut answer).unwrap();
                peer.set_read_timeout(Some(20 * MS)).unwrap();
                let error = (&peer).read(&mut answer).unwrap_err();
                eprintln!("answer: {}, then {:?}", String::from_utf8_lossy(&answer), error.kind());
            }
        }));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _collector = thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            connection.read_exact(&mut [0; 7]).unwrap();
            thread::sleep(30 * MS);
            connection.write_all(b"got it").unwrap();
            thread::sleep(Duration::from_secs(20));
        });
        let peer = TcpStream::connect(address).unwrap();
        rt(1, move || {
            // Registered with the very worker that is to block.
            peer.set_read_deadline(Some(Instant::now() + MS)).unwrap();
            assert_eq!(kind((&peer).read(&mut [0; 8])), ErrorKind::TimedOut);
            peer.set_read_deadline(None).unwrap();
            *PEER.lock().unwrap() = Some(peer);
            go(|| panic!("tell the collector")).join().unwrap_err();
        });
        std::process::exit(0);
    }
    let output = child(NAME);
    assert!(output.status.success(), "{output:?}");
    assert!(stderr(&output).contains("answer: got it, then TimedOut"), "{output:?}");
}

/// Signals that interrupt system calls are nothing that a program sees.
#[test]
fn interrupted_calls_go_on() {
    const NAME: &str = "interrupted_calls_go_on";
    if is_child(NAME) {
        extern "C" fn nothing(_: i32) {}
        // SAFETY: all zeroes are an empty mask and no flags: without SA_RESTART.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        // SAFETY: a handler that does nothing, for a signal that nobody else uses.
        unsafe { libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()) };
        // SAFETY: takes nothing.
        let me = unsafe { libc::pthread_self() } as usize;
        let (listener, address) = listen();
        let stop = AtomicBool::new(false);
        let ended = AtomicBool::new(false);
        thread::scope(|s| {
            s.spawn(|| {
                while !stop.load(SeqCst) {
                    // SAFETY: the thread is alive: it waits for this one.
                    unsafe { libc::pthread_kill(me as libc::pthread_t, libc::SIGUSR1) };
                    thread::sleep(MS / 10);
                }
                ended.store(true, SeqCst);
            });
            s.spawn(|| {
                let mut late = TcpStream::connect(address).unwrap();
                for _ in 0..50 {
                    thread::sleep(MS);
                    late.write_all(&[1; 10]).unwrap();
                }
            });
            // This thread is the one that is interrupted, in all it does.
            let (mut connection, _) = listener.accept().unwrap();
            let mut all = Vec::new();
            connection.read_to_end(&mut all).unwrap();
            assert_eq!(all.len(), 500);
            connection.set_read_timeout(Some(20 * MS)).unwrap();
            stop.store(true, SeqCst);
        });
        assert!(ended.load(SeqCst));
        std::process::exit(0);
    }
    let output = child(NAME);
    assert!(output.status.success(), "{output:?}");
}

/// A full table of descriptors: accept says which limit it is, pauses, and goes on when there is room again.
#[test]
fn a_full_table_neither_spins_nor_ends_accept() {
    const NAME: &str = "a_full_table_neither_spins_nor_ends_accept";
    if is_child(NAME) {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        rt(2, || {
            let (listener, address) = listen();
            let first = TcpStream::connect(address).unwrap();
            listener.accept().unwrap();
            let maximum = getrlimit(Resource::Nofile).maximum;
            let limit = Rlimit { current: Some(first.as_raw_fd() as u64 + 20), maximum };
            setrlimit(Resource::Nofile, limit).unwrap();
            // One is left for a client that is not accepted.
            let mut hoard = Vec::new();
            // Several times: somebody may have had one open for a moment.
            for _ in 0..20 {
                while let Ok(fd) = first.as_fd().try_clone_to_owned() {
                    hoard.push(fd);
                }
                time::sleep(MS);
            }
            hoard.pop();
            let waiting = TcpStream::connect(address).unwrap();
            let begin = Instant::now();
            for _ in 0..5 {
                let error = listener.accept().unwrap_err();
                assert!(error.to_string().contains("limit of descriptors"), "{error}");
                assert_eq!(error.kind(), ErrorKind::OutOfMemory);
                let source = error.source().expect("the system's error").downcast_ref::<std::io::Error>();
                assert_eq!(source.unwrap().raw_os_error(), Some(libc::EMFILE));
            }
            assert!(begin.elapsed() >= 50 * MS, "five pauses");
            // With the table full a connection can still be given to std.
            let std_waiting = std::net::TcpStream::try_from(waiting).unwrap();
            hoard.pop();
            listener.accept().unwrap();
            drop(std_waiting);
        });
        std::process::exit(0);
    }
    let output = child(NAME);
    assert!(output.status.success(), "{output:?}");
}

/// A read stops at urgent data, though more lies behind it: what is short there is not all.
#[test]
#[cfg(target_os = "linux")]
fn a_read_behind_urgent_data_finds_what_is_there() {
    use rustix::net::{SendFlags, send};
    rt(2, || {
        for _ in 0..5 {
            let (near, far) = pair();
            // The poller has told of nothing yet.
            near.set_read_deadline(Some(Instant::now() + Duration::from_millis(1))).unwrap();
            assert_eq!(kind((&near).read(&mut [0])), ErrorKind::TimedOut);
            near.set_read_deadline(None).unwrap();
            let reader = go(move || {
                let (mut all, mut some) = (Vec::new(), [0; 64]);
                near.set_read_deadline(Some(Instant::now() + Duration::from_secs(10))).unwrap();
                while all.len() < 4 {
                    let n = (&near).read(&mut some).unwrap();
                    all.extend_from_slice(&some[..n]);
                }
                all
            });
            // All is there before the first read.
            let pieces: [(&[u8], SendFlags); 3] =
                [(b"ab", SendFlags::empty()), (b"!", SendFlags::OOB), (b"cd", SendFlags::empty())];
            for (bytes, flags) in pieces {
                send(&far, bytes, flags).unwrap();
            }
            assert_eq!(reader.join().unwrap(), b"abcd");
        }
    });
}

/// A stream that its worker has told of, emptied by a read that brought less than it asked for.
fn emptied() -> (TcpStream, TcpStream) {
    let (near, far) = pair();
    near.set_read_deadline(Some(Instant::now() + Duration::from_millis(1))).unwrap();
    assert_eq!(kind((&near).read(&mut [0])), ErrorKind::TimedOut);
    near.set_read_deadline(None).unwrap();
    (&far).write_all(b"x").unwrap();
    assert_eq!((&near).read(&mut [0; 64]).unwrap(), 1);
    (near, far)
}

/// What is there when a read begins is read, however late the worker is to hear of it.
#[test]
fn nt_06_a_time_limit_that_passes_meanwhile_does_not_hide_what_is_there() {
    rt(1, || {
        let (near, far) = emptied();
        for _ in 0..5 {
            (&far).write_all(b"y").unwrap();
            near.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
            let others = WaitGroup::new();
            others.go(|| {
                let begin = Instant::now();
                while begin.elapsed() < Duration::from_millis(5) {
                    std::hint::spin_loop();
                }
            });
            assert_eq!((&near).read(&mut [0; 64]).unwrap(), 1);
            others.wait();
        }
    });
}

/// A plain thread reads, while the worker that watches the stream stands still.
#[test]
fn nt_06_who_reads_elsewhere_finds_what_is_there() {
    rt(1, || {
        let (near, far) = emptied();
        (&far).write_all(b"y").unwrap();
        near.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let read = std::thread::scope(|s| s.spawn(|| (&near).read(&mut [0; 64])).join().unwrap());
        assert_eq!(read.unwrap(), 1);
    });
}
